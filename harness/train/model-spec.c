#include "harness/train/model-spec.h"

#include "harness/base/nearest.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name, *prose;
} models[OOM_MODEL_COUNT] = {
#define X(id, name, prose) {name, prose},
    OOM_MODEL_MAP(X)
#undef X
};

const char *oom_model_name(enum oom_model_kind kind) {
    return models[kind].name;
}

const char *oom_model_prose(enum oom_model_kind kind) {
    return models[kind].prose;
}

/* ---- the keys: one row each; a model uses those whose default is not UNUSED ---- */

enum { UNUSED = -1 };

static const char *const attention_names[] = {"tiled", "scores", NULL};
static const char *const norm_names[] = {"batch", "group", NULL};

/* Of mlp, gpt, cnn. */
#define INITIAL(mlp, gpt, cnn) \
    { [OOM_MODEL_MLP] = (mlp), [OOM_MODEL_GPT] = (gpt), [OOM_MODEL_CNN] = (cnn) }
#define FIELD(name) #name, offsetof(struct oom_model_spec, name)

static const struct key {
    const char *name;
    size_t offset;
    int64_t least, most;
    int64_t initial[OOM_MODEL_COUNT];
    const char *const *names; /* of the values, where they have some */
} keys[] = {
    {FIELD(layers), 1, 4096, INITIAL(4, 4, 4), NULL},
    {FIELD(width), 1, 65536, INITIAL(64, 64, 16), NULL},
    {FIELD(heads), 1, 1024, INITIAL(UNUSED, 4, UNUSED), NULL},
    {FIELD(context), 1, 1048576, INITIAL(UNUSED, 64, UNUSED), NULL},
    {FIELD(rows), 1, 1048576, INITIAL(64, UNUSED, UNUSED), NULL},
    {FIELD(image), 1, 4096, INITIAL(UNUSED, UNUSED, 16), NULL},
    {FIELD(stages), 1, 8, INITIAL(UNUSED, UNUSED, 2), NULL},
    {FIELD(norm), 0, 1, INITIAL(UNUSED, UNUSED, OOM_IMAGE_NORM_BATCH), norm_names},
    {FIELD(groups), 1, 65536, INITIAL(UNUSED, UNUSED, 4), NULL},
    {FIELD(vocab), 2, 1048576, INITIAL(16, 256, 10), NULL},
    {FIELD(batch), 1, 1048576, INITIAL(64, 64, 64), NULL},
    {FIELD(attention), 0, 1, INITIAL(UNUSED, OOM_ATTENTION_TILED, UNUSED), attention_names},
    {FIELD(tied), 0, 1, INITIAL(UNUSED, 0, UNUSED), NULL},
};
#undef FIELD
#undef INITIAL
enum { KEYS = sizeof keys / sizeof keys[0] };

static int64_t *field(struct oom_model_spec *spec, const struct key *key) {
    return (int64_t *)(void *)((char *)spec + key->offset);
}

struct oom_model_spec oom_model_spec_default(enum oom_model_kind kind) {
    struct oom_model_spec spec = {.kind = kind};
    for (int i = 0; i < KEYS; i++) *field(&spec, &keys[i]) = keys[i].initial[kind];
    return spec;
}

/* ---- reading ---- */

static const struct key *find_key(enum oom_model_kind kind, const char *name) {
    for (int i = 0; i < KEYS; i++) {
        if (keys[i].initial[kind] != UNUSED && strcmp(keys[i].name, name) == 0) return &keys[i];
    }
    return NULL;
}

static enum oom_status unknown_key(enum oom_model_kind kind, const char *name) {
    const char *known[KEYS + 1];
    int count = 0;
    for (int i = 0; i < KEYS; i++) {
        if (keys[i].initial[kind] != UNUSED) known[count++] = keys[i].name;
    }
    known[count++] = "dropout";
    const char *near = oom_nearest_name(name, known, count);
    return oom_fail(OOM_USAGE, "model %s has no key '%s'; nearest is '%s'", models[kind].name, name,
                    near != NULL ? near : "layers");
}

static enum oom_status read_name(const struct key *key, const char *text, int64_t *out) {
    for (int i = 0; key->names[i] != NULL; i++) {
        if (strcmp(text, key->names[i]) != 0) continue;
        *out = i;
        return OOM_OK;
    }
    return oom_fail(OOM_USAGE, "model key %s=%s: allowed are %s, %s", key->name, text,
                    key->names[0], key->names[1]);
}

static enum oom_status read_integer(const struct key *key, const char *text, int64_t *out) {
    if (key->names != NULL) return read_name(key, text, out);
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    bool digits = text[strspn(text, "-0123456789")] == 0; /* no space, no plus */
    bool number = digits && end != text && *end == 0 && errno == 0;
    if (!number || value < key->least || value > key->most) {
        return oom_fail(OOM_USAGE, "model key %s=%s: allowed are whole numbers from %lld to %lld",
                        key->name, text, (long long)key->least, (long long)key->most);
    }
    *out = value;
    return OOM_OK;
}

static enum oom_status read_dropout(const char *text, double *out) {
    char *end;
    double value = strtod(text, &end);
    bool digits = text[strspn(text, "0123456789.eE+-")] == 0;
    bool good = digits && end != text && *end == 0 && value >= 0.0 && value <= 0.95;
    if (!good) {
        return oom_fail(OOM_USAGE, "model key dropout=%s: allowed are numbers from 0 to 0.95",
                        text);
    }
    *out = value;
    return OOM_OK;
}

/* *seen: the keys read so far, one bit each; the last is dropout's. */
static enum oom_status read_once(const char *name, int key, uint32_t *seen) {
    if ((*seen >> key & 1) != 0) return oom_fail(OOM_USAGE, "model key %s stands twice", name);
    *seen |= UINT32_C(1) << key;
    return OOM_OK;
}

static enum oom_status read_pair(struct oom_model_spec *spec, char *pair, uint32_t *seen) {
    char *equals = strchr(pair, '=');
    if (equals == NULL) {
        return oom_fail(OOM_USAGE, "model %s: '%s' is not of the form key=value",
                        models[spec->kind].name, pair);
    }
    *equals = 0;
    const struct key *key = find_key(spec->kind, pair);
    bool dropout = strcmp(pair, "dropout") == 0;
    if (key == NULL && !dropout) return unknown_key(spec->kind, pair);
    OOM_TRY(read_once(pair, dropout ? KEYS : (int)(key - keys), seen));
    if (dropout) return read_dropout(equals + 1, &spec->dropout);
    return read_integer(key, equals + 1, field(spec, key));
}

static enum oom_status find_model(const char *name, enum oom_model_kind *out) {
    const char *known[OOM_MODEL_COUNT];
    for (int i = 0; i < OOM_MODEL_COUNT; i++) {
        if (strcmp(models[i].name, name) == 0) {
            *out = (enum oom_model_kind)i;
            return OOM_OK;
        }
        known[i] = models[i].name;
    }
    const char *near = oom_nearest_name(name, known, OOM_MODEL_COUNT);
    if (near != NULL) return oom_fail(OOM_USAGE, "unknown model '%s'; nearest is '%s'", name, near);
    return oom_fail(OOM_USAGE, "unknown model '%s'; known are mlp, gpt and cnn", name);
}

static enum oom_status check_gpt(const struct oom_model_spec *spec) {
    if (spec->width % spec->heads != 0) {
        return oom_fail(OOM_USAGE, "model gpt: width=%lld is not a multiple of heads=%lld",
                        (long long)spec->width, (long long)spec->heads);
    }
    if (spec->width / spec->heads <= 256) return OOM_OK;
    return oom_fail(OOM_USAGE, "model gpt: width/heads is %lld, allowed are 1 to 256",
                    (long long)(spec->width / spec->heads));
}

static enum oom_status check_cnn(const struct oom_model_spec *spec) {
    int64_t halvings = (int64_t)1 << (spec->stages - 1);
    if (spec->layers % spec->stages != 0) {
        return oom_fail(OOM_USAGE, "model cnn: layers=%lld is not a multiple of stages=%lld",
                        (long long)spec->layers, (long long)spec->stages);
    }
    if (spec->image % halvings != 0) {
        return oom_fail(OOM_USAGE,
                        "model cnn: image=%lld is not a multiple of %lld, as %lld stages "
                        "need it",
                        (long long)spec->image, (long long)halvings, (long long)spec->stages);
    }
    if (spec->norm == OOM_IMAGE_NORM_BATCH) {
        if (spec->image > halvings) return OOM_OK;
        return oom_fail(OOM_USAGE,
                        "model cnn: image=%lld is one pixel after %lld stages, and batch norm has "
                        "nothing to compare a single sample with; at least %lld, or norm=group",
                        (long long)spec->image, (long long)spec->stages, (long long)(2 * halvings));
    }
    if (spec->width % spec->groups == 0) return OOM_OK;
    return oom_fail(OOM_USAGE, "model cnn: width=%lld is not a multiple of groups=%lld",
                    (long long)spec->width, (long long)spec->groups);
}

/* Elements of the largest tensor of a step, roughly. */
static double largest_tensor(const struct oom_model_spec *s) {
    double batch = (double)s->batch, width = (double)s->width, vocab = (double)s->vocab;
    if (s->kind == OOM_MODEL_CNN) {
        double image = (double)s->image, last = width * (double)(1 << (s->stages - 1));
        return fmax(fmax(batch * image * image * width, batch * vocab), 9 * last * last);
    }
    double row = fmax(4 * width, vocab);
    double matrix = width * row;
    if (s->kind == OOM_MODEL_GPT && s->attention == OOM_ATTENTION_SCORES) {
        row = fmax(row, (double)s->heads * (double)s->context);
    }
    return fmax(batch * (double)oom_spec_rows(s) * row, matrix);
}

/* More than any machine has, and far below where a count of bytes could overflow. */
static enum oom_status check_size(const struct oom_model_spec *spec) {
    const double most = 0x1p44, largest = largest_tensor(spec);
    if (largest <= most) return OOM_OK;
    return oom_fail(OOM_USAGE,
                    "model %s: its largest tensor would have about %.2g elements, at most %.2g are "
                    "allowed",
                    models[spec->kind].name, largest, most);
}

static enum oom_status check_whole(const struct oom_model_spec *spec) {
    if (spec->kind == OOM_MODEL_GPT) OOM_TRY(check_gpt(spec));
    if (spec->kind == OOM_MODEL_CNN) OOM_TRY(check_cnn(spec));
    return check_size(spec);
}

/* Reads the text's keys into *spec; `fresh` starts from the model's defaults. */
static enum oom_status read_text(const char *text, bool fresh, struct oom_model_spec *spec) {
    char copy[512];
    if (strlen(text) >= sizeof copy) {
        return oom_fail(OOM_USAGE, "a model's text is at most %zu characters", sizeof copy - 1);
    }
    strcpy(copy, text);
    char *rest = copy;
    char *name = strsep(&rest, ",");
    enum oom_model_kind kind = OOM_MODEL_MLP;
    OOM_TRY(find_model(name, &kind));
    struct oom_model_spec read = fresh ? oom_model_spec_default(kind) : *spec;
    if (read.kind != kind) {
        return oom_fail(OOM_USAGE, "model '%s': this situation is of model %s", name,
                        models[read.kind].name);
    }
    uint32_t seen = 0;
    for (char *pair; (pair = strsep(&rest, ",")) != NULL;) OOM_TRY(read_pair(&read, pair, &seen));
    OOM_TRY(check_whole(&read));
    *spec = read;
    return OOM_OK;
}

enum oom_status oom_model_spec_parse(const char *text, struct oom_model_spec *out) {
    return read_text(text, true, out);
}

enum oom_status oom_model_spec_override(const char *text, struct oom_model_spec *spec) {
    return read_text(text, false, spec);
}

/* ---- writing ---- */

void oom_model_spec_text(const struct oom_model_spec *spec, char out[OOM_SPEC_TEXT_MAX]) {
    int used = snprintf(out, OOM_SPEC_TEXT_MAX, "%s", models[spec->kind].name);
    for (int i = 0; i < KEYS; i++) {
        if (keys[i].initial[spec->kind] == UNUSED) continue;
        int64_t value = *(const int64_t *)(const void *)((const char *)spec + keys[i].offset);
        char number[24];
        snprintf(number, sizeof number, "%lld", (long long)value);
        const char *shown = keys[i].names != NULL ? keys[i].names[value] : number;
        used +=
            snprintf(out + used, (size_t)(OOM_SPEC_TEXT_MAX - used), ",%s=%s", keys[i].name, shown);
    }
    if (spec->dropout == 0) return;
    for (int digits = 1; digits <= 17; digits++) { /* the fewest that are read as the same number */
        char *text = out + used;
        snprintf(text, (size_t)(OOM_SPEC_TEXT_MAX - used), ",dropout=%.*g", digits, spec->dropout);
        if (strtod(text + strlen(",dropout="), NULL) == spec->dropout) return;
    }
}
