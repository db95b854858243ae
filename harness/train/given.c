#include "harness/train/given.h"

#include "kernels/hostmem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- names and layouts ---- */

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* By name, since a matrix may have one row. */
static bool is_matrix(const struct oom_parameter *p) {
    return ends_with(p->name, ".weight") || ends_with(p->name, ".table") ||
           ends_with(p->name, ".position");
}

int oom_given_weights_count(const struct oom_trainer *t) {
    return t->parameter_count + t->statistic_count;
}

static void describe_parameter(const struct oom_parameter *p, struct oom_safetensors_tensor *out) {
    out->name = p->name;
    if (p->kernel > 0) {
        int64_t shape[] = {p->rows, p->kernel, p->kernel, p->columns / (p->kernel * p->kernel)};
        out->rank = 4;
        memcpy(out->shape, shape, sizeof shape);
    } else if (is_matrix(p)) {
        out->rank = 2;
        out->shape[0] = p->rows;
        out->shape[1] = p->columns;
    } else {
        out->rank = 1;
        out->shape[0] = p->columns;
    }
}

void oom_given_describe(const struct oom_trainer *t, int i, enum oom_dtype real,
                        struct oom_safetensors_tensor *out, struct oom_tensor *value) {
    struct oom_tensor where;
    *out = (struct oom_safetensors_tensor){.dtype = real};
    if (i < t->parameter_count) {
        describe_parameter(&t->parameters[i], out);
        where = t->parameters[i].value;
    } else {
        const struct oom_statistic *statistic = &t->statistics[i - t->parameter_count];
        out->name = statistic->name;
        out->rank = 1;
        out->shape[0] = statistic->n;
        where = statistic->value;
    }
    oom_safetensors_size(real, out->rank, out->shape, &out->count, &out->bytes);
    if (value != NULL) *value = where;
}

static const char *const batch_names[OOM_GIVEN_COUNT] = {
    [OOM_GIVEN_INPUTS] = "batch.inputs",
    [OOM_GIVEN_TARGETS] = "batch.targets",
    [OOM_GIVEN_WEIGHTS] = "batch.weights",
    [OOM_GIVEN_IDENTITIES] = "batch.identities",
};

/* Dimensions of inputs and of targets; after the samples. */
static const int ranks[OOM_MODEL_COUNT][2] = {
    [OOM_MODEL_MLP] = {3, 2}, [OOM_MODEL_GPT] = {2, 2}, [OOM_MODEL_CNN] = {4, 1}};

void oom_given_describe_batch(const struct oom_model_spec *spec, enum oom_dtype real,
                              struct oom_safetensors_tensor out[OOM_GIVEN_COUNT]) {
    bool images = spec->kind == OOM_MODEL_CNN, text = spec->kind == OOM_MODEL_GPT;
    const struct oom_safetensors_tensor tensors[OOM_GIVEN_COUNT] = {
        [OOM_GIVEN_INPUTS] = {.dtype = text ? OOM_I32 : real,
                              .rank = ranks[spec->kind][0],
                              .shape = {spec->batch, images ? spec->image : oom_spec_rows(spec),
                                        images ? spec->image : spec->width, OOM_IMAGE_CHANNELS}},
        [OOM_GIVEN_TARGETS] = {.dtype = OOM_I32,
                               .rank = ranks[spec->kind][1],
                               .shape = {spec->batch, oom_spec_rows(spec)}},
        [OOM_GIVEN_WEIGHTS] = {.dtype = real,
                               .rank = ranks[spec->kind][1],
                               .shape = {spec->batch, oom_spec_rows(spec)}},
        [OOM_GIVEN_IDENTITIES] = {.dtype = OOM_I64, .rank = 1, .shape = {spec->batch}},
    };
    for (int i = 0; i < OOM_GIVEN_COUNT; i++) {
        out[i] = tensors[i];
        out[i].name = batch_names[i];
        oom_safetensors_size(out[i].dtype, out[i].rank, out[i].shape, &out[i].count, &out[i].bytes);
    }
}

enum oom_status oom_given_only(const struct oom_trainer *t, const struct oom_safetensors *file) {
    int weights = oom_given_weights_count(t), count = weights + OOM_GIVEN_COUNT;
    const char **names = oom_host_alloc((size_t)count * sizeof *names);
    if (names == NULL) return oom_fail(OOM_HOST_NOMEM, "a list of %d names", count);
    for (int i = 0; i < weights; i++) {
        struct oom_safetensors_tensor tensor;
        oom_given_describe(t, i, OOM_F32, &tensor, NULL);
        names[i] = tensor.name;
    }
    for (int i = 0; i < OOM_GIVEN_COUNT; i++) names[weights + i] = batch_names[i];
    enum oom_status status = oom_safetensors_only(file, names, count);
    oom_host_free(names);
    return status;
}

/* ---- elements ---- */

enum { PIECE = 2048 }; /* elements of a buffer on the stack */

union piece {
    float f32[PIECE];
    double f64[PIECE];
    int32_t i32[PIECE];
    int64_t i64[PIECE];
};

static double element_of(const union piece *piece, enum oom_dtype dtype, uint64_t i) {
    switch (dtype) {
    case OOM_F64:
        return piece->f64[i];
    case OOM_F32:
        return (double)piece->f32[i];
    case OOM_I64:
        return (double)piece->i64[i];
    default:
        return (double)piece->i32[i];
    }
}

static enum oom_status refuse(const struct oom_safetensors *file,
                              const struct oom_safetensors_tensor *tensor, uint64_t element,
                              double found, const char *expected) {
    char index[OOM_SAFETENSORS_TEXT];
    return oom_fail(OOM_USAGE, "%.80s: tensor \"%s\": element %s is %.17g; expected %s", file->path,
                    tensor->name, oom_safetensors_index(tensor, element, index), found, expected);
}

/* Every element is at least `least`, at most `most` (NaN is not); *sum (may be NULL) of all. */
static enum oom_status check_range(const struct oom_safetensors *file,
                                   const struct oom_safetensors_tensor *tensor, double least,
                                   double most, const char *expected, double *sum) {
    union piece piece;
    for (uint64_t at = 0; at < tensor->count; at += PIECE) {
        uint64_t count = tensor->count - at < PIECE ? tensor->count - at : PIECE;
        OOM_TRY(oom_safetensors_copy(tensor, at, count, &piece));
        for (uint64_t i = 0; i < count; i++) {
            double value = element_of(&piece, tensor->dtype, i);
            bool good = value >= least && value <= most;
            if (!good) return refuse(file, tensor, at + i, value, expected);
            if (sum != NULL) *sum += value;
        }
    }
    return OOM_OK;
}

static double largest_of(enum oom_dtype real) {
    return real == OOM_F64 ? 0x1.fffffffffffffp1023 : 0x1.fffffep127;
}

static enum oom_status check_finite(const struct oom_safetensors *file,
                                    const struct oom_safetensors_tensor *tensor) {
    double most = largest_of(tensor->dtype);
    return check_range(file, tensor, -most, most, "finite numbers", NULL);
}

/* Elements [first, first + count) of a tensor to an address, as they are. */
static enum oom_status upload(struct oom_session *session,
                              const struct oom_safetensors_tensor *tensor, uint64_t first,
                              uint64_t count, oom_devptr to) {
    union piece piece;
    uint64_t each = oom_dtype_bytes(tensor->dtype);
    for (uint64_t at = 0; at < count; at += PIECE) {
        uint64_t n = count - at < PIECE ? count - at : PIECE;
        OOM_TRY(oom_safetensors_copy(tensor, first + at, n, &piece));
        OOM_TRY(session->device->api->upload(session->device, to + at * each, &piece, n * each,
                                             session->stream));
    }
    return OOM_OK;
}

/* ---- weights ---- */

/* All are looked at before the first is overwritten. */
enum oom_status oom_given_weights(struct oom_trainer *t, const struct oom_safetensors *file) {
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < oom_given_weights_count(t); i++) {
            struct oom_safetensors_tensor wanted;
            const struct oom_safetensors_tensor *found;
            struct oom_tensor value;
            oom_given_describe(t, i, oom_dtype_wide(t->session->dtype), &wanted, &value);
            OOM_TRY(oom_safetensors_expect(file, wanted.name, wanted.dtype, wanted.rank,
                                           wanted.shape, &found));
            OOM_TRY(pass == 0 ? check_finite(file, found)
                              : upload(t->session, found, 0, found->count, value.data));
        }
    }
    return OOM_OK;
}

/* ---- the batch ---- */

static enum oom_status check_classes(const struct oom_safetensors *file,
                                     const struct oom_safetensors_tensor *tensor, int64_t vocab) {
    char expected[64];
    snprintf(expected, sizeof expected, "0 to %lld", (long long)vocab - 1);
    return check_range(file, tensor, 0, (double)(vocab - 1), expected, NULL);
}

static enum oom_status check_values(const struct oom_safetensors *file,
                                    const struct oom_model_spec *spec, struct oom_given *given) {
    const struct oom_safetensors_tensor **t = given->tensors;
    OOM_TRY(t[OOM_GIVEN_INPUTS]->dtype == OOM_I32
                ? check_classes(file, t[OOM_GIVEN_INPUTS], spec->vocab)
                : check_finite(file, t[OOM_GIVEN_INPUTS]));
    OOM_TRY(check_classes(file, t[OOM_GIVEN_TARGETS], spec->vocab));
    const struct oom_safetensors_tensor *weights = t[OOM_GIVEN_WEIGHTS];
    OOM_TRY(check_range(file, weights, 0, largest_of(weights->dtype),
                        "finite numbers that are not negative", &given->total));
    OOM_TRY(check_range(file, t[OOM_GIVEN_IDENTITIES], 0, 4294967295.0, "0 to 4294967295", NULL));
    if (given->total > 0 && isfinite(given->total)) return OOM_OK;
    return oom_fail(OOM_USAGE,
                    "%.80s: tensor \"%s\": its sum is %g; expected a finite number "
                    "above 0",
                    file->path, weights->name, given->total);
}

enum oom_status oom_given_batch(const struct oom_safetensors *file,
                                const struct oom_model_spec *spec, enum oom_dtype real,
                                struct oom_given *out) {
    struct oom_safetensors_tensor wanted[OOM_GIVEN_COUNT];
    *out = (struct oom_given){.total = 0};
    oom_given_describe_batch(spec, real, wanted);
    for (int i = 0; i < OOM_GIVEN_COUNT; i++) {
        OOM_TRY(oom_safetensors_expect(file, wanted[i].name, wanted[i].dtype, wanted[i].rank,
                                       wanted[i].shape, &out->tensors[i]));
    }
    return check_values(file, spec, out);
}

void oom_given_window(const struct oom_given *given, const struct oom_model_spec *spec,
                      const struct oom_source *source, struct oom_window *out) {
    oom_window_init(out, spec, source, spec->batch, spec->batch, false);
    out->given = given;
    out->total = given->total;
}

/* Each row's weight is divided in double and rounded once, as a seeded one. */
static enum oom_status upload_weights(struct oom_session *session,
                                      const struct oom_safetensors_tensor *tensor, uint64_t first,
                                      uint64_t count, double divisor, oom_devptr to) {
    union piece piece;
    uint64_t each = oom_dtype_bytes(tensor->dtype);
    for (uint64_t at = 0; at < count; at += PIECE) {
        uint64_t n = count - at < PIECE ? count - at : PIECE;
        OOM_TRY(oom_safetensors_copy(tensor, first + at, n, &piece));
        for (uint64_t i = 0; i < n; i++) {
            double weight = element_of(&piece, tensor->dtype, i) / divisor;
            if (tensor->dtype == OOM_F64) {
                piece.f64[i] = weight;
            } else {
                piece.f32[i] = (float)weight;
            }
        }
        OOM_TRY(session->device->api->upload(session->device, to + at * each, &piece, n * each,
                                             session->stream));
    }
    return OOM_OK;
}

enum oom_status oom_given_load(const struct oom_given *given, struct oom_session *session,
                               int64_t begin, double divisor, struct oom_batch *batch) {
    const oom_devptr to[OOM_GIVEN_COUNT] = {batch->inputs.data, batch->targets.data,
                                            batch->weights.data, batch->identities.data};
    for (int i = 0; i < OOM_GIVEN_COUNT; i++) {
        const struct oom_safetensors_tensor *tensor = given->tensors[i];
        uint64_t sample = tensor->count / (uint64_t)tensor->shape[0]; /* elements of one */
        uint64_t first = (uint64_t)begin * sample, count = (uint64_t)batch->samples * sample;
        OOM_TRY(i == OOM_GIVEN_WEIGHTS
                    ? upload_weights(session, tensor, first, count, divisor, to[i])
                    : upload(session, tensor, first, count, to[i]));
    }
    return OOM_OK;
}
