#include "harness/train/cnn-unit.h"

/* As PyTorch's batch norm. */
static const double eps = 1e-5, momentum = 0.1;

/* ---- forward ---- */

static enum oom_status batchnorm_forward(struct oom_trainer *t, const struct oom_unit *u,
                                         const struct oom_unit_saved *k,
                                         const struct oom_tensor *out) {
    if (t->evaluating) {
        struct oom_batchnorm_infer_args args = {.dtype = out->dtype,
                                                .rows = u->conv.batch * u->positions,
                                                .channels = u->conv.filters,
                                                .eps = eps,
                                                .x = k->conv.data,
                                                .gamma = u->gamma->value.data,
                                                .beta = u->beta->value.data,
                                                .running_mean = u->running[0].value.data,
                                                .running_var = u->running[1].value.data,
                                                .out = out->data};
        return oom_run(t->session, OOM_OP_BATCHNORM_INFER, &args);
    }
    bool update = oom_statistics_count(t);
    struct oom_batchnorm_forward_args args = {
        .dtype = out->dtype,
        .batch = u->conv.batch,
        .positions = u->positions,
        .channels = u->conv.filters,
        .eps = eps,
        .momentum = momentum,
        .x = k->conv.data,
        .gamma = u->gamma->value.data,
        .beta = u->beta->value.data,
        .counts = t->batch.counts.data,
        .out = out->data,
        .mean = k->mean.data,
        .rstd = k->rstd.data,
        .running_mean = update ? u->running[0].value.data : 0,
        .running_var = update ? u->running[1].value.data : 0,
    };
    return oom_run(t->session, OOM_OP_BATCHNORM_FORWARD, &args);
}

static enum oom_status groupnorm_forward(struct oom_trainer *t, const struct oom_unit *u,
                                         const struct oom_unit_saved *k, const struct oom_tensor *x,
                                         const struct oom_tensor *out) {
    struct oom_groupnorm_forward_args args = {.dtype = out->dtype,
                                              .batch = u->conv.batch,
                                              .positions = u->positions,
                                              .channels = u->conv.filters,
                                              .groups = u->groups,
                                              .eps = eps,
                                              .x = x->data,
                                              .gamma = u->gamma->value.data,
                                              .beta = u->beta->value.data,
                                              .out = out->data,
                                              .mean = k->mean.data,
                                              .rstd = k->rstd.data};
    return oom_run(t->session, OOM_OP_GROUPNORM_FORWARD, &args);
}

static enum oom_status convolve(struct oom_trainer *t, const struct oom_unit *u,
                                const struct oom_tensor *x, const struct oom_tensor *y) {
    oom_devptr weight;
    OOM_TRY(oom_weight(t, u->weight, x->dtype, &weight));
    struct oom_conv_forward_args args = {.dtype = x->dtype,
                                         .algorithm = OOM_CONV_IMPLICIT,
                                         .shape = u->conv,
                                         .x = x->data,
                                         .w = weight,
                                         .y = y->data};
    return oom_run(t->session, OOM_OP_CONV_FORWARD, &args);
}

enum oom_status oom_unit_forward(struct oom_trainer *t, const struct oom_unit *u,
                                 const struct oom_tensor *x, struct oom_unit_saved *k,
                                 struct oom_tensor *out) {
    int64_t n = u->conv.batch * u->elements;
    int64_t rows = u->groups > 0 ? u->conv.batch * u->groups : u->conv.filters;
    enum oom_dtype wide = oom_dtype_wide(u->dtype);
    OOM_TRY(oom_activation_of(t, u->dtype, n, u->index, "convolution", &k->conv));
    OOM_TRY(convolve(t, u, x, &k->conv));
    OOM_TRY(oom_activation_of(t, u->dtype, n, u->index, "norm", out));
    OOM_TRY(oom_activation_of(t, wide, rows, u->index, "norm mean", &k->mean));
    OOM_TRY(oom_activation_of(t, wide, rows, u->index, "norm rstd", &k->rstd));
    OOM_TRY(u->groups > 0 ? groupnorm_forward(t, u, k, &k->conv, out)
                          : batchnorm_forward(t, u, k, out));
    OOM_TRY(oom_drop_unless_kept(t, &k->conv));
    OOM_TRY(oom_drop_unless_kept(t, &k->mean));
    return oom_drop_unless_kept(t, &k->rstd);
}

/* ---- backward ---- */

static enum oom_status norm_backward(struct oom_trainer *t, const struct oom_unit *u,
                                     const struct oom_unit_saved *k, const struct oom_tensor *dout,
                                     const struct oom_tensor *dconv) {
    OOM_TRY(oom_parameter_gradient(t, u->gamma));
    OOM_TRY(oom_parameter_gradient(t, u->beta));
    if (u->groups > 0) {
        struct oom_groupnorm_backward_args args = {.dtype = dout->dtype,
                                                   .batch = u->conv.batch,
                                                   .positions = u->positions,
                                                   .channels = u->conv.filters,
                                                   .groups = u->groups,
                                                   .dout = dout->data,
                                                   .x = k->conv.data,
                                                   .gamma = u->gamma->value.data,
                                                   .mean = k->mean.data,
                                                   .rstd = k->rstd.data,
                                                   .dx = dconv->data,
                                                   .dgamma = u->gamma->gradient.data,
                                                   .dbeta = u->beta->gradient.data};
        return oom_run(t->session, OOM_OP_GROUPNORM_BACKWARD, &args);
    }
    struct oom_batchnorm_backward_args args = {.dtype = dout->dtype,
                                               .batch = u->conv.batch,
                                               .positions = u->positions,
                                               .channels = u->conv.filters,
                                               .dout = dout->data,
                                               .x = k->conv.data,
                                               .gamma = u->gamma->value.data,
                                               .mean = k->mean.data,
                                               .rstd = k->rstd.data,
                                               .counts = t->batch.counts.data,
                                               .dx = dconv->data,
                                               .dgamma = u->gamma->gradient.data,
                                               .dbeta = u->beta->gradient.data};
    return oom_run(t->session, OOM_OP_BATCHNORM_BACKWARD, &args);
}

static enum oom_status convolve_back(struct oom_trainer *t, const struct oom_unit *u,
                                     const struct oom_tensor *dconv, const struct oom_tensor *x,
                                     const struct oom_tensor *dx) {
    oom_devptr weight;
    OOM_TRY(oom_weight(t, u->weight, dconv->dtype, &weight));
    if (dx != NULL) {
        struct oom_conv_backward_data_args data = {.dtype = dconv->dtype,
                                                   .algorithm = OOM_CONV_IMPLICIT,
                                                   .shape = u->conv,
                                                   .dy = dconv->data,
                                                   .w = weight,
                                                   .dx = dx->data};
        OOM_TRY(oom_run(t->session, OOM_OP_CONV_BACKWARD_DATA, &data));
    }
    OOM_TRY(oom_parameter_gradient(t, u->weight));
    struct oom_conv_backward_weight_args args = {.dtype = dconv->dtype,
                                                 .algorithm = OOM_CONV_IMPLICIT,
                                                 .shape = u->conv,
                                                 .dy = dconv->data,
                                                 .x = x->data,
                                                 .dw = u->weight->gradient.data};
    return oom_run(t->session, OOM_OP_CONV_BACKWARD_WEIGHT, &args);
}

static enum oom_status be_watched(struct oom_trainer *t, const struct oom_unit_seen *seen) {
    return t->watch.unit == NULL ? OOM_OK : t->watch.unit(t->watch.context, seen);
}

enum oom_status oom_unit_backward(struct oom_trainer *t, const struct oom_unit *u,
                                  const struct oom_tensor *x, struct oom_unit_saved *k,
                                  const struct oom_tensor *dout, struct oom_tensor *dx) {
    struct oom_tensor dconv;
    int64_t inputs = u->conv.batch * u->positions * u->conv.channels;
    OOM_TRY(oom_activation_of(t, u->dtype, u->conv.batch * u->elements, u->index, "dconvolution",
                              &dconv));
    OOM_TRY(norm_backward(t, u, k, dout, &dconv));
    OOM_TRY(be_watched(t, &(struct oom_unit_seen){u, k, x, dout, &dconv}));
    OOM_TRY(oom_drop(t, &k->conv));
    OOM_TRY(oom_drop(t, &k->mean));
    OOM_TRY(oom_drop(t, &k->rstd));
    if (dx != NULL) OOM_TRY(oom_activation_of(t, u->dtype, inputs, u->index, "dx", dx));
    OOM_TRY(convolve_back(t, u, &dconv, x, dx));
    return oom_drop(t, &dconv);
}
