#include "harness/train/optimizer.h"

#include "harness/base/control.h"

/* The hyperparameters of every run, where nothing else is said: they are no subject here. */
static const double usual_rate = 0x1p-10, momentum = 0.875;
static const double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, decay = 0.01;

static const char *const state_sites[][OOM_STATES] = {
    [OOM_OPTIMIZER_SGD] = {"momentum", NULL},
    [OOM_OPTIMIZER_ADAMW] = {"adam m", "adam v"},
};

static uint64_t bytes_of(const struct oom_trainer *t, const struct oom_parameter *p) {
    return (uint64_t)oom_parameter_n(p) * oom_dtype_bytes(t->session->dtype);
}

static enum oom_status allocate_states(struct oom_trainer *t, struct oom_parameter *p) {
    for (int k = 0; k < OOM_STATES; k++) {
        const char *site = state_sites[t->options.optimizer][k];
        if (site == NULL || p->state[k].data != 0) continue;
        OOM_TRY(
            oom_tensor_alloc(t->session, bytes_of(t, p), OOM_TAG_OPTIMIZER, site, &p->state[k]));
        OOM_TRY(t->session->device->api->fill(t->session->device, p->state[k].data, 0,
                                              bytes_of(t, p), t->session->stream));
    }
    return OOM_OK;
}

static enum oom_status apply(struct oom_trainer *t, struct oom_parameter *p) {
    enum oom_dtype dtype = t->session->dtype;
    double learning_rate = t->options.learning_rate > 0 ? t->options.learning_rate : usual_rate;
    if (t->options.optimizer == OOM_OPTIMIZER_SGD) {
        struct oom_sgd_args args = {.dtype = dtype,
                                    .n = oom_parameter_n(p),
                                    .lr = learning_rate,
                                    .momentum = momentum,
                                    .w = p->value.data,
                                    .v = p->state[0].data,
                                    .g = p->gradient.data};
        return oom_run(t->session, OOM_OP_SGD, &args);
    }
    struct oom_adamw_args args = {.dtype = dtype,
                                  .n = oom_parameter_n(p),
                                  .t = t->optimizer_steps + 1,
                                  .lr = learning_rate,
                                  .beta1 = beta1,
                                  .beta2 = beta2,
                                  .eps = epsilon,
                                  .decay = decay,
                                  .w = p->value.data,
                                  .m = p->state[0].data,
                                  .v = p->state[1].data,
                                  .g = p->gradient.data};
    return oom_run(t->session, OOM_OP_ADAMW, &args);
}

static void free_states(struct oom_trainer *t) {
    for (int i = 0; i < t->parameter_count; i++) {
        for (int k = 0; k < OOM_STATES; k++) {
            oom_tensor_free(t->session, &t->parameters[i].state[k]);
        }
    }
}

enum oom_status oom_optimizer_prepare(struct oom_trainer *t) {
    bool first = t->parameters[0].state[0].data == 0; /* states are made together or not at all */
    for (int i = 0; i < t->parameter_count; i++) {
        enum oom_status status = allocate_states(t, &t->parameters[i]);
        if (status == OOM_OK) continue;
        if (first) free_states(t);
        return status;
    }
    return OOM_OK;
}

/* The wrong twin: each parameter is updated as soon as its own states are there. */
static enum oom_status update_one_by_one(struct oom_trainer *t) {
    for (int i = 0; i < t->parameter_count; i++) {
        OOM_TRY(allocate_states(t, &t->parameters[i]));
        OOM_TRY(apply(t, &t->parameters[i]));
    }
    t->optimizer_steps++;
    return OOM_OK;
}

/* The wrong twin: the weights that live on are the halves. */
static enum oom_status round_weights(struct oom_trainer *t) {
    enum oom_dtype half = oom_layer_dtype(t, OOM_LAYER_LINEAR, OOM_F32);
    for (int i = 0; i < t->parameter_count; i++) {
        struct oom_parameter *p = &t->parameters[i];
        struct oom_tensor narrow, value = p->value;
        int64_t n = oom_parameter_n(p);
        OOM_TRY(oom_cast(t, half, n, &value, "halves", &narrow));
        struct oom_copy_args back = {half, OOM_F32, n, narrow.data, value.data};
        OOM_TRY(oom_run(t->session, OOM_OP_COPY, &back));
        OOM_TRY(oom_scope_free(&t->scope, &narrow));
    }
    return OOM_OK;
}

enum oom_status oom_optimizer_update(struct oom_trainer *t) {
    if (oom_control_on(OOM_CONTROL_OPTIMIZER_PARTIAL)) return update_one_by_one(t);
    enum oom_status status = oom_optimizer_prepare(t);
    if (status != OOM_OK) {
        if (oom_control_on(OOM_CONTROL_STEP_COUNTED)) t->optimizer_steps++;
        return status;
    }
    for (int i = 0; i < t->parameter_count; i++) OOM_TRY(apply(t, &t->parameters[i]));
    t->optimizer_steps++;
    return oom_control_on(OOM_CONTROL_NO_MASTER) ? round_weights(t) : OOM_OK;
}
