#include "harness/train/layers.h"

#include "harness/base/control.h"

#include <stdio.h>
#include <string.h>

static const double norm_eps = 1e-5; /* as GPT-2 */

/* ---- tensors ---- */

enum oom_status oom_activation(struct oom_trainer *t, int64_t n, const char *site,
                               struct oom_tensor *out) {
    return oom_scope_alloc(&t->scope, (uint64_t)n * oom_dtype_bytes(t->session->dtype),
                           OOM_TAG_ACTIVATION, site, out);
}

enum oom_status oom_activation_of(struct oom_trainer *t, int64_t n, int layer, const char *what,
                                  struct oom_tensor *out) {
    char site[64];
    snprintf(site, sizeof site, "layer %d %s", layer, what);
    return oom_activation(t, n, site, out);
}

enum oom_status oom_drop(struct oom_trainer *t, struct oom_tensor *tensor) {
    return oom_scope_free(&t->scope, tensor);
}

enum oom_status oom_drop_unless_kept(struct oom_trainer *t, struct oom_tensor *tensor) {
    return t->stages.keeping.saved ? OOM_OK : oom_drop(t, tensor);
}

enum oom_status oom_drop_input(struct oom_trainer *t, struct oom_tensor *tensor) {
    return t->stages.keeping.input ? OOM_OK : oom_drop(t, tensor);
}

enum oom_status oom_keep_saved(struct oom_trainer *t, const struct oom_tensor *tensor) {
    if (!oom_control_on(OOM_CONTROL_FREED_TOO_EARLY)) return OOM_OK;
    struct oom_tensor gone = *tensor; /* the address stays behind, as a dangling pointer does */
    return oom_drop(t, &gone);
}

enum oom_status oom_drop_saved(struct oom_trainer *t, struct oom_tensor *tensor) {
    return oom_control_on(OOM_CONTROL_FREED_TOO_EARLY) ? OOM_OK : oom_drop(t, tensor);
}

/* ---- linear ---- */

enum oom_status oom_linear_forward(struct oom_trainer *t, const struct oom_parameter *w,
                                   const struct oom_parameter *b, int64_t n, oom_devptr x,
                                   oom_devptr y) {
    struct oom_gemm_args args = {.dtype = t->session->dtype,
                                 .transpose_b = true,
                                 .m = n,
                                 .n = w->rows,
                                 .k = w->columns,
                                 .a = x,
                                 .lda = w->columns,
                                 .b = w->value.data,
                                 .ldb = w->columns,
                                 .c = y,
                                 .ldc = w->rows,
                                 .bias = b != NULL ? b->value.data : 0};
    return oom_run(t->session, OOM_OP_GEMM, &args);
}

enum oom_status oom_linear_backward_input(struct oom_trainer *t, const struct oom_parameter *w,
                                          int64_t n, oom_devptr dy, oom_devptr dx) {
    struct oom_gemm_args args = {.dtype = t->session->dtype,
                                 .m = n,
                                 .n = w->columns,
                                 .k = w->rows,
                                 .a = dy,
                                 .lda = w->rows,
                                 .b = w->value.data,
                                 .ldb = w->columns,
                                 .c = dx,
                                 .ldc = w->columns};
    return oom_run(t->session, OOM_OP_GEMM, &args);
}

static enum oom_status bias_backward(struct oom_trainer *t, struct oom_parameter *b, int64_t n,
                                     oom_devptr dy) {
    OOM_TRY(oom_parameter_gradient(t, b));
    if (oom_control_on(OOM_CONTROL_BIAS_OVERWRITTEN) && t->micro_batch > 0) {
        uint64_t bytes = (uint64_t)b->columns * oom_dtype_bytes(t->session->dtype);
        OOM_TRY(t->session->device->api->fill(t->session->device, b->gradient.data, 0, bytes,
                                              t->session->stream));
    }
    struct oom_sum_rows_args args = {.dtype = t->session->dtype,
                                     .rows = n,
                                     .columns = b->columns,
                                     .x = dy,
                                     .out = b->gradient.data};
    return oom_run(t->session, OOM_OP_SUM_ROWS, &args);
}

enum oom_status oom_linear_backward_weight(struct oom_trainer *t, struct oom_parameter *w,
                                           struct oom_parameter *b, int64_t n, oom_devptr x,
                                           oom_devptr dy) {
    OOM_TRY(oom_parameter_gradient(t, w));
    struct oom_gemm_args args = {.dtype = t->session->dtype,
                                 .transpose_a = true,
                                 .accumulate = true,
                                 .m = w->rows,
                                 .n = w->columns,
                                 .k = n,
                                 .a = dy,
                                 .lda = w->rows,
                                 .b = x,
                                 .ldb = w->columns,
                                 .c = w->gradient.data,
                                 .ldc = w->columns};
    OOM_TRY(oom_run(t->session, OOM_OP_GEMM, &args));
    return b != NULL ? bias_backward(t, b, n, dy) : OOM_OK;
}

/* ---- dropout, sums ---- */

enum oom_status oom_dropout(struct oom_trainer *t, uint32_t layer, int64_t elements, oom_devptr x,
                            oom_devptr y) {
    if (t->options.spec.dropout == 0 || t->evaluating) return OOM_OK;
    struct oom_dropout_args args = {.dtype = t->session->dtype,
                                    .batch = t->batch.samples,
                                    .elements = elements,
                                    .p = t->options.spec.dropout,
                                    .seed = t->options.seed,
                                    .step = t->rng_step,
                                    .layer = layer,
                                    .samples = t->batch.identities.data,
                                    .x = x,
                                    .y = y};
    return oom_run(t->session, OOM_OP_DROPOUT, &args);
}

enum oom_status oom_add_to(struct oom_trainer *t, int64_t n, oom_devptr a, oom_devptr b) {
    struct oom_add_args args = {.dtype = t->session->dtype, .n = n, .a = a, .b = b, .out = a};
    return oom_run(t->session, OOM_OP_ADD, &args);
}

/* ---- norm ---- */

enum oom_status oom_norm_forward(struct oom_trainer *t, const struct oom_parameter *gamma,
                                 const struct oom_parameter *beta, int64_t n, int64_t channels,
                                 oom_devptr x, int layer, const char *what, struct oom_norm *out) {
    OOM_TRY(oom_activation_of(t, n * channels, layer, what, &out->out));
    OOM_TRY(oom_activation_of(t, n, layer, "norm mean", &out->mean));
    OOM_TRY(oom_activation_of(t, n, layer, "norm rstd", &out->rstd));
    struct oom_layernorm_forward_args args = {.dtype = t->session->dtype,
                                              .rows = n,
                                              .channels = channels,
                                              .eps = norm_eps,
                                              .x = x,
                                              .gamma = gamma->value.data,
                                              .beta = beta->value.data,
                                              .out = out->out.data,
                                              .mean = out->mean.data,
                                              .rstd = out->rstd.data};
    return oom_run(t->session, OOM_OP_LAYERNORM_FORWARD, &args);
}

enum oom_status oom_norm_drop_unless_kept(struct oom_trainer *t, struct oom_norm *norm) {
    OOM_TRY(oom_drop_unless_kept(t, &norm->out));
    OOM_TRY(oom_drop_unless_kept(t, &norm->mean));
    return oom_drop_unless_kept(t, &norm->rstd);
}

enum oom_status oom_norm_backward(struct oom_trainer *t, struct oom_parameter *gamma,
                                  struct oom_parameter *beta, int64_t n, int64_t channels,
                                  oom_devptr dout, oom_devptr x, oom_devptr residual, oom_devptr dx,
                                  struct oom_norm *norm) {
    OOM_TRY(oom_parameter_gradient(t, gamma));
    OOM_TRY(oom_parameter_gradient(t, beta));
    struct oom_layernorm_backward_args args = {.dtype = t->session->dtype,
                                               .rows = n,
                                               .channels = channels,
                                               .dout = dout,
                                               .x = x,
                                               .gamma = gamma->value.data,
                                               .mean = norm->mean.data,
                                               .rstd = norm->rstd.data,
                                               .residual = residual,
                                               .dx = dx,
                                               .dgamma = gamma->gradient.data,
                                               .dbeta = beta->gradient.data};
    OOM_TRY(oom_run(t->session, OOM_OP_LAYERNORM_BACKWARD, &args));
    OOM_TRY(oom_drop(t, &norm->mean));
    OOM_TRY(oom_drop(t, &norm->rstd));
    return oom_drop(t, &norm->out);
}
