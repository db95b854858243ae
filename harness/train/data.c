/*
 * data.c: seeded samples. Numbers come from splitmix64 and are dyadic, so that f32 and f64 runs
 * see the very same values; nothing here calls libm.
 */
#include "harness/train/data.h"

#include "harness/base/fingerprint.h"
#include "harness/base/rng.h"
#include "harness/base/control.h"
#include "harness/train/given.h"
#include "kernels/hostmem.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static uint64_t seed_mix(uint64_t seed, uint64_t salt) {
    struct oom_rng rng = {seed ^ (salt * 0x9e3779b97f4a7c15u)};
    return oom_rng_next(&rng);
}

/* Nearly normal: the sum of four uniforms, scaled to variance 1.02; a float, so that f32 and f64
 * hold the same value. */
static double draw_normal(struct oom_rng *rng) {
    double sum = -2.0;
    for (int i = 0; i < 4; i++) sum += (double)(oom_rng_next(rng) >> 40) * 0x1p-24;
    return (double)(float)(1.75 * sum);
}

/* ---- source ---- */

static enum oom_status hash_file(const char *path, struct oom_source *source) {
    uint8_t bytes[16384];
    struct oom_fingerprint hash;
    oom_fingerprint_init(&hash, 0);
    for (uint64_t at = 0; at < source->bytes;) {
        ssize_t got = pread(source->file, bytes, sizeof bytes, (off_t)at);
        if (got <= 0) {
            return oom_fail_native(OOM_IO, errno, "data file '%s' cannot be read at byte %llu",
                                   path, (unsigned long long)at);
        }
        oom_fingerprint_update(&hash, bytes, (size_t)got);
        at += (uint64_t)got;
    }
    source->file_hash = oom_fingerprint_value(&hash);
    return OOM_OK;
}

enum oom_status oom_source_open(const char *path, uint64_t seed, struct oom_source *out) {
    *out = (struct oom_source){.seed = seed, .file = -1};
    if (path == NULL) return OOM_OK;
    struct stat info;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &info) != 0) {
        int error = errno;
        if (file >= 0) close(file);
        return oom_fail_native(OOM_USAGE, error, "data file '%s' cannot be read: %s", path,
                               strerror(error));
    }
    out->file = file;
    out->bytes = (uint64_t)info.st_size;
    enum oom_status status = OOM_OK;
    if (!S_ISREG(info.st_mode)) {
        status = oom_fail(OOM_USAGE, "data file '%s' is not a regular file", path);
    } else if (info.st_size < 2) {
        status = oom_fail(OOM_USAGE, "data file '%s' has %lld bytes; at least 2 are needed", path,
                          (long long)info.st_size);
    } else {
        status = hash_file(path, out);
    }
    if (status != OOM_OK) oom_source_close(out);
    return status;
}

void oom_source_close(struct oom_source *source) {
    if (source->file >= 0) close(source->file);
    source->file = -1;
}

/* ---- text: a frozen grammar; changing a word changes every recorded result ---- */

static const char *const grammar[][8] = {
    {"the", "a", "one", "every", "this", "some", "no", "that"},
    {"small", "large", "late", "free", "lost", "early", "cached", "quiet"},
    {"block", "tensor", "page", "batch", "kernel", "layer", "segment", "stream"},
    {"holds", "splits", "frees", "waits for", "maps", "fills", "moves", "keeps"},
};
enum { GRAMMAR_PARTS = 7 };
static const int sentence[GRAMMAR_PARTS] = {0, 1, 2, 3, 0, 1, 2};

static uint64_t sample_seed(const struct oom_source *source, int64_t identity) {
    return seed_mix(source->seed, (uint64_t)identity + 1);
}

static void text_generated(const struct oom_source *source, int64_t identity, uint8_t *out,
                           int64_t bytes) {
    struct oom_rng rng = {sample_seed(source, identity)};
    int64_t at = 0;
    for (int part = 0; at < bytes; part = (part + 1) % GRAMMAR_PARTS) {
        const char *word = grammar[sentence[part]][oom_rng_next(&rng) >> 61];
        for (; *word != 0 && at < bytes; word++) out[at++] = (uint8_t)*word;
        if (at < bytes) out[at++] = part == GRAMMAR_PARTS - 1 ? '\n' : ' ';
    }
}

/* A file is read from a seeded place on, and from its beginning again at its end. */
static enum oom_status text_from_file(const struct oom_source *source, int64_t identity,
                                      uint8_t *out, int64_t bytes) {
    uint64_t at = sample_seed(source, identity) % source->bytes;
    for (int64_t done = 0; done < bytes;) {
        uint64_t left = source->bytes - at;
        size_t want = (uint64_t)(bytes - done) < left ? (size_t)(bytes - done) : (size_t)left;
        ssize_t got = pread(source->file, out + done, want, (off_t)at);
        if (got <= 0) return oom_fail_native(OOM_IO, errno, "the data file became unreadable");
        done += got;
        at = (at + (uint64_t)got) % source->bytes;
    }
    return OOM_OK;
}

/* ---- the window ---- */

enum { SALT_IDENTITY = 101, SALT_WEIGHT, SALT_LENGTH, SALT_TARGET };

static uint64_t window_draw(const struct oom_window *window, int64_t i, uint64_t salt) {
    return seed_mix(seed_mix(window->source->seed, salt), (uint64_t)i + 1);
}

int64_t oom_window_identity(const struct oom_window *window, int64_t sample) {
    if (sample < window->distinct) return sample;
    return (int64_t)(window_draw(window, sample, SALT_IDENTITY) % (uint64_t)window->distinct);
}

/* Multiples of 2^-10, so that sums of weights are exact in double. */
double oom_window_weight(const struct oom_window *window, int64_t sample) {
    if (window->samples <= window->distinct) return 1.0;
    return 0.5 + (double)(window_draw(window, sample, SALT_WEIGHT) >> 54) * 0x1p-10;
}

int64_t oom_window_length(const struct oom_window *window, int64_t identity) {
    int64_t rows = oom_spec_rows(window->spec);
    if (!window->token_weights || rows < 4) return rows;
    int64_t least = rows / 4;
    return least +
           (int64_t)(window_draw(window, identity, SALT_LENGTH) % (uint64_t)(rows - least + 1));
}

int64_t oom_window_rows(const struct oom_window *window, int64_t sample) {
    return window->cut != NULL ? window->cut[sample / window->micro] : oom_spec_rows(window->spec);
}

/* Rows of a sample that count. */
static int64_t rows_that_count(const struct oom_window *window, int64_t sample) {
    int64_t length = oom_window_length(window, oom_window_identity(window, sample));
    int64_t rows = oom_window_rows(window, sample);
    return length < rows ? length : rows;
}

double oom_window_mass(const struct oom_window *window, int64_t begin, int64_t end) {
    double mass = 0;
    for (int64_t i = begin; i < end; i++) {
        mass += oom_window_weight(window, i) * (double)rows_that_count(window, i);
    }
    return mass;
}

void oom_window_init(struct oom_window *window, const struct oom_model_spec *spec,
                     const struct oom_source *source, int64_t samples, int64_t distinct,
                     bool token_weights) {
    *window = (struct oom_window){.spec = spec,
                                  .source = source,
                                  .samples = samples,
                                  .nominal = samples,
                                  .distinct = distinct < samples ? distinct : samples,
                                  .token_weights = token_weights};
    window->total = oom_window_mass(window, 0, samples);
}

void oom_window_cut(struct oom_window *window, const int64_t *cut, int64_t micro) {
    window->cut = cut;
    window->micro = micro;
    window->total = oom_window_mass(window, 0, window->samples);
}

/* ---- batches: each sample is made in a host buffer of its own size and uploaded ---- */

struct loader {
    struct oom_scope *scope;
    const struct oom_window *window;
    struct oom_weighing weighing;
    struct oom_batch *batch;
    uint64_t staged;  /* bytes uploaded since the last sync */
    uint8_t *staging; /* large enough for one array of one sample */
};

/* Uploads may be kept by the device until they run: bound what is staged. */
enum { STAGED_MOST = 1 << 20 };

static enum oom_status put(struct loader *load, struct oom_tensor tensor, int64_t place,
                           uint64_t bytes) {
    struct oom_session *session = load->scope->session;
    const struct oom_device_api *api = session->device->api;
    OOM_TRY(api->upload(session->device, tensor.data + (uint64_t)place * bytes, load->staging,
                        bytes, session->stream));
    load->staged += bytes;
    if (load->staged < STAGED_MOST) return OOM_OK;
    load->staged = 0;
    return api->stream_sync(session->device, session->stream);
}

static void store_real(struct loader *load, int64_t i, double value) {
    if (load->scope->session->dtype == OOM_F64) {
        ((double *)(void *)load->staging)[i] = value;
    } else {
        ((float *)(void *)load->staging)[i] = (float)value;
    }
}

static enum oom_status load_text(struct loader *load, int64_t identity, int64_t place) {
    const struct oom_window *window = load->window;
    int64_t context = load->batch->each;
    int32_t *tokens = (int32_t *)(void *)load->staging;
    uint8_t *bytes = load->staging + (uint64_t)context * 4; /* context + 1 of them */
    if (window->source->file >= 0) {
        OOM_TRY(text_from_file(window->source, identity, bytes, context + 1));
    } else {
        text_generated(window->source, identity, bytes, context + 1);
    }
    for (int shift = 0; shift < 2; shift++) { /* inputs, then targets: the next byte */
        for (int64_t t = 0; t < context; t++) {
            tokens[t] = (int32_t)(bytes[t + shift] % window->spec->vocab);
        }
        struct oom_tensor to = shift == 0 ? load->batch->inputs : load->batch->targets;
        OOM_TRY(put(load, to, place, (uint64_t)context * 4));
    }
    return OOM_OK;
}

static enum oom_status load_rows(struct loader *load, int64_t identity, int64_t place) {
    const struct oom_model_spec *spec = load->window->spec;
    struct oom_rng rng = {sample_seed(load->window->source, identity)};
    int64_t rows = load->batch->each, n = rows * oom_spec_row_numbers(spec);
    for (int64_t i = 0; i < n; i++) store_real(load, i, draw_normal(&rng));
    OOM_TRY(put(load, load->batch->inputs, place,
                (uint64_t)n * oom_dtype_bytes(load->scope->session->dtype)));
    int32_t *targets = (int32_t *)(void *)load->staging;
    for (int64_t r = 0; r < rows; r++) {
        uint64_t draw = window_draw(load->window, identity * oom_spec_rows(spec) + r, SALT_TARGET);
        targets[r] = (int32_t)(draw % (uint64_t)spec->vocab);
    }
    return put(load, load->batch->targets, place, (uint64_t)rows * 4);
}

static enum oom_status load_weights(struct loader *load, int64_t sample, int64_t place) {
    const struct oom_window *window = load->window;
    int64_t identity = oom_window_identity(window, sample);
    int64_t rows = load->batch->each, length = rows_that_count(window, sample);
    const double *given = load->weighing.weights;
    double weight = given != NULL ? given[sample] : oom_window_weight(window, sample);
    weight /= load->weighing.divisor;
    if (load->weighing.per_sample) weight /= (double)length;
    for (int64_t t = 0; t < rows; t++) store_real(load, t, t < length ? weight : 0.0);
    OOM_TRY(put(load, load->batch->weights, place,
                (uint64_t)rows * oom_dtype_bytes(load->scope->session->dtype)));
    if (load->weighing.by_place || oom_control_on(OOM_CONTROL_DROPOUT_BY_PLACE)) identity = place;
    memcpy(load->staging, &identity, sizeof identity);
    OOM_TRY(put(load, load->batch->identities, place, sizeof identity));
    if (load->weighing.counts == NULL) return OOM_OK;
    store_real(load, 0, load->weighing.counts[sample]);
    return put(load, load->batch->counts, place, oom_dtype_bytes(load->scope->session->dtype));
}

static enum oom_status load_sample(struct loader *load, int64_t sample, int64_t place) {
    int64_t identity = oom_window_identity(load->window, sample);
    if (load->window->spec->kind == OOM_MODEL_GPT) {
        OOM_TRY(load_text(load, identity, place));
    } else {
        OOM_TRY(load_rows(load, identity, place));
    }
    return load_weights(load, sample, place);
}

static enum oom_status allocate(struct oom_scope *scope, const struct oom_model_spec *spec,
                                bool counted, struct oom_batch *batch) {
    uint64_t real = oom_dtype_bytes(scope->session->dtype), n = (uint64_t)batch->rows;
    bool text = spec->kind == OOM_MODEL_GPT;
    uint64_t input_bytes = n * (uint64_t)oom_spec_row_numbers(spec) * (text ? 4 : real);
    OOM_TRY(oom_scope_alloc(scope, input_bytes, OOM_TAG_DATA, text ? "tokens" : "inputs",
                            &batch->inputs));
    batch->inputs.dtype = text ? OOM_I32 : scope->session->dtype;
    batch->inputs.elements = (int64_t)n * oom_spec_row_numbers(spec);
    OOM_TRY(oom_scope_alloc(scope, n * 4, OOM_TAG_DATA, "targets", &batch->targets));
    OOM_TRY(oom_scope_alloc(scope, n * real, OOM_TAG_DATA, "row weights", &batch->weights));
    OOM_TRY(oom_scope_alloc(scope, (uint64_t)batch->samples * 8, OOM_TAG_DATA, "sample identities",
                            &batch->identities));
    if (!counted) return OOM_OK;
    return oom_scope_alloc(scope, (uint64_t)batch->samples * real, OOM_TAG_DATA, "sample counts",
                           &batch->counts);
}

enum oom_status oom_batch_load(struct oom_scope *scope, const struct oom_window *window,
                               int64_t begin, int64_t end, struct oom_weighing weighing,
                               struct oom_batch *out) {
    const struct oom_model_spec *spec = window->spec;
    int64_t rows = oom_window_rows(window, begin);
    *out = (struct oom_batch){.samples = end - begin, .rows = (end - begin) * rows, .each = rows};
    OOM_TRY(allocate(scope, spec, weighing.counts != NULL, out));

    struct oom_device_properties properties;
    scope->session->device->api->properties(scope->session->device, &properties);
    if (!properties.computes) return OOM_OK; /* a plan needs no data */
    if (window->given != NULL) {
        return oom_given_load(window->given, scope->session, begin, weighing.divisor, out);
    }

    size_t row_bytes = (size_t)oom_spec_row_numbers(spec) * 8 + 16;
    struct loader load = {.scope = scope, .window = window, .weighing = weighing, .batch = out};
    load.staging = oom_host_alloc((size_t)rows * row_bytes + 64);
    if (load.staging == NULL) return oom_fail(OOM_HOST_NOMEM, "one sample's staging buffer");
    enum oom_status status = OOM_OK;
    for (int64_t i = begin; i < end && status == OOM_OK; i++) {
        status = load_sample(&load, i, i - begin);
    }
    oom_host_free(load.staging);
    return status;
}

enum oom_status oom_batch_free(struct oom_scope *scope, struct oom_batch *batch) {
    OOM_TRY(oom_scope_free(scope, &batch->inputs));
    OOM_TRY(oom_scope_free(scope, &batch->targets));
    OOM_TRY(oom_scope_free(scope, &batch->weights));
    OOM_TRY(oom_scope_free(scope, &batch->counts));
    return oom_scope_free(scope, &batch->identities);
}
