#include "harness/train/amp.h"

#include "harness/base/control.h"
#include "harness/train/trainer.h"

#include <math.h>
#include <stdio.h>

/* ---- the table ---- */

enum rule { IN_HALF, IN_FULL, AS_INPUT, AS_WIDEST };

static const char *const rule_names[] = {"half", "f32", "as its input", "the wider"};

static const struct {
    const char *name;
    enum rule rule;
    const char *why;
} layers[OOM_LAYER_COUNT] = {
#define X(id, name, rule, why) {name, rule, why},
    OOM_LAYER_MAP(X)
#undef X
};

const char *oom_layer_name(enum oom_layer layer) {
    return layers[layer].name;
}

const char *oom_layer_rule(enum oom_layer layer) {
    return rule_names[layers[layer].rule];
}

const char *oom_layer_why(enum oom_layer layer) {
    return layers[layer].why;
}

static enum rule rule_of(enum oom_layer layer) {
    if (layer == OOM_LAYER_NORM && oom_control_on(OOM_CONTROL_NORM_IN_HALF)) return IN_HALF;
    return layers[layer].rule;
}

static enum oom_dtype half_of(const struct oom_trainer *t) {
    static const enum oom_dtype halves[] = {
        [OOM_AMP_F16] = OOM_F16,
        [OOM_AMP_BF16] = OOM_BF16,
    };
    return halves[t->options.amp];
}

enum oom_dtype oom_layer_dtype(const struct oom_trainer *t, enum oom_layer layer,
                               enum oom_dtype input) {
    if (t->options.amp == OOM_AMP_OFF) return t->session->dtype;
    switch (rule_of(layer)) {
    case IN_HALF:
        return half_of(t);
    case IN_FULL:
        return t->session->dtype;
    default: /* of a sum, `input` is the wider of the two */
        return input;
    }
}

/* ---- casts ---- */

static enum oom_status copy(struct oom_trainer *t, enum oom_dtype from, oom_devptr x,
                            enum oom_dtype to, oom_devptr y, int64_t n) {
    struct oom_copy_args args = {.from = from, .to = to, .n = n, .x = x, .y = y};
    return oom_run(t->session, OOM_OP_COPY, &args);
}

enum oom_status oom_cast(struct oom_trainer *t, enum oom_dtype dtype, int64_t n,
                         const struct oom_tensor *x, const char *site, struct oom_tensor *out) {
    OOM_TRY(oom_scope_alloc(&t->scope, (uint64_t)n * oom_dtype_bytes(dtype), OOM_TAG_ACTIVATION,
                            site, out));
    out->dtype = dtype;
    out->elements = n;
    return copy(t, x->dtype, x->data, dtype, out->data, n);
}

enum oom_status oom_cast_in_place(struct oom_trainer *t, enum oom_dtype dtype, int64_t n,
                                  const char *site, struct oom_tensor *x) {
    if (x->dtype == dtype) return OOM_OK;
    struct oom_tensor cast;
    OOM_TRY(oom_cast(t, dtype, n, x, site, &cast));
    OOM_TRY(oom_scope_free(&t->scope, x));
    *x = cast;
    return OOM_OK;
}

enum oom_status oom_weight(struct oom_trainer *t, struct oom_parameter *p, enum oom_dtype dtype,
                           oom_devptr *out) {
    *out = p->value.data;
    if (dtype == t->session->dtype) return OOM_OK;
    if (p->half.data == 0) {
        int64_t n = oom_parameter_n(p);
        char site[64];
        snprintf(site, sizeof site, "%s in %s", p->name, oom_dtype_name(dtype));
        OOM_TRY(oom_scope_alloc(&t->scope, (uint64_t)n * oom_dtype_bytes(dtype), OOM_TAG_PARAMETER,
                                site, &p->half));
        p->half.dtype = dtype;
        p->half.elements = n;
        OOM_TRY(copy(t, t->session->dtype, p->value.data, dtype, p->half.data, n));
    }
    *out = p->half.data;
    return OOM_OK;
}

enum oom_status oom_weight_copies_free(struct oom_trainer *t) {
    for (int i = 0; i < t->parameter_count; i++) {
        OOM_TRY(oom_scope_free(&t->scope, &t->parameters[i].half));
    }
    return OOM_OK;
}

/* ---- the loss scale ---- */

/* Static, so that its padding is zero: jobs are written, and told apart, byte by byte. */
struct oom_scaler_options oom_scaler_default(void) {
    static const struct oom_scaler_options defaults = {
        .initial = 65536, .growth = 2, .backoff = 0.5, .interval = 2000};
    return defaults;
}

void oom_scaler_update(struct oom_scaler *scaler, const struct oom_scaler_options *options) {
    if (scaler->found) {
        scaler->scale = (float)((double)scaler->scale * options->backoff);
        scaler->clean = 0;
        scaler->skipped++;
    } else if (++scaler->clean == options->interval) {
        float grown = (float)((double)scaler->scale * options->growth);
        if (isfinite(grown)) scaler->scale = grown;
        scaler->clean = 0;
    }
    scaler->unscaled = scaler->found = false;
}

double oom_loss_scale(const struct oom_trainer *t) {
    if (oom_control_on(OOM_CONTROL_NO_LOSS_SCALE)) return 1.0;
    bool changed = oom_control_on(OOM_CONTROL_SCALE_IN_WINDOW) && t->micro_batch > 0;
    return (double)t->scaler.scale * (changed ? 2.0 : 1.0);
}

/* 1 / scale by way of f64, as PyTorch has it: the reciprocal is rounded to f32 once. */
static double inverse_scale(const struct oom_trainer *t) {
    bool one =
        oom_control_on(OOM_CONTROL_NO_LOSS_SCALE) || oom_control_on(OOM_CONTROL_NOT_UNSCALED);
    return one ? 1.0 : (double)(float)(1.0 / (double)t->scaler.scale);
}

static enum oom_status unscale_one(struct oom_trainer *t, struct oom_parameter *p) {
    if (p->gradient.data == 0) return OOM_OK;
    int64_t n = oom_parameter_n(p);
    enum oom_dtype dtype = t->session->dtype;
    struct oom_finite_check_args check = {dtype, n, p->gradient.data, t->found.data};
    struct oom_scale_args scale = {dtype, n, inverse_scale(t), p->gradient.data};
    OOM_TRY(oom_run(t->session, OOM_OP_FINITE_CHECK, &check));
    return oom_run(t->session, OOM_OP_SCALE, &scale);
}

/* On the dry device nothing is found: no plan can know a skip. */
static enum oom_status read_found(struct oom_trainer *t) {
    int32_t found = 0;
    struct oom_device *device = t->session->device;
    struct oom_device_properties properties;
    device->api->properties(device, &properties);
    if (properties.computes) {
        OOM_TRY(
            device->api->download(device, &found, t->found.data, sizeof found, t->session->stream));
    }
    t->scaler.found = found != 0 && !oom_control_on(OOM_CONTROL_STEP_ON_INF);
    return OOM_OK;
}

enum oom_status oom_unscale(struct oom_trainer *t) {
    if (!t->scaler.on) return OOM_OK;
    if (t->scaler.unscaled) {
        return oom_fail(OOM_INVALID, "gradients are unscaled a second time since the last update; "
                                     "allowed is once");
    }
    struct oom_device *device = t->session->device;
    OOM_TRY(device->api->fill(device, t->found.data, 0, sizeof(int32_t), t->session->stream));
    for (int i = 0; i < t->parameter_count; i++) OOM_TRY(unscale_one(t, &t->parameters[i]));
    t->scaler.unscaled = true;
    return read_found(t);
}
