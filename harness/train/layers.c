#include "harness/train/layers.h"

#include "harness/base/control.h"

#include <stdio.h>
#include <string.h>

static const double norm_eps = 1e-5; /* as GPT-2 */

/* ---- tensors ---- */

enum oom_status oom_activation(struct oom_trainer *t, enum oom_dtype dtype, int64_t n,
                               const char *site, struct oom_tensor *out) {
    OOM_TRY(oom_scope_alloc(&t->scope, (uint64_t)n * oom_dtype_bytes(dtype), OOM_TAG_ACTIVATION,
                            site, out));
    out->dtype = dtype;
    out->elements = n;
    return OOM_OK;
}

enum oom_status oom_activation_of(struct oom_trainer *t, enum oom_dtype dtype, int64_t n, int layer,
                                  const char *what, struct oom_tensor *out) {
    char site[64];
    snprintf(site, sizeof site, "layer %d %s", layer, what);
    return oom_activation(t, dtype, n, site, out);
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

enum oom_status oom_linear_forward(struct oom_trainer *t, struct oom_parameter *w,
                                   const struct oom_parameter *b, int64_t n,
                                   const struct oom_tensor *x, const struct oom_tensor *y) {
    oom_devptr weight;
    OOM_TRY(oom_weight(t, w, x->dtype, &weight));
    struct oom_gemm_args args = {.dtype = x->dtype,
                                 .transpose_b = true,
                                 .m = n,
                                 .n = w->rows,
                                 .k = w->columns,
                                 .a = x->data,
                                 .lda = w->columns,
                                 .b = weight,
                                 .ldb = w->columns,
                                 .c = y->data,
                                 .ldc = w->rows,
                                 .bias = b != NULL ? b->value.data : 0};
    return oom_run(t->session, OOM_OP_GEMM, &args);
}

enum oom_status oom_linear_backward_input(struct oom_trainer *t, struct oom_parameter *w, int64_t n,
                                          const struct oom_tensor *dy,
                                          const struct oom_tensor *dx) {
    oom_devptr weight;
    OOM_TRY(oom_weight(t, w, dy->dtype, &weight));
    struct oom_gemm_args args = {.dtype = dy->dtype,
                                 .m = n,
                                 .n = w->columns,
                                 .k = w->rows,
                                 .a = dy->data,
                                 .lda = w->rows,
                                 .b = weight,
                                 .ldb = w->columns,
                                 .c = dx->data,
                                 .ldc = w->columns};
    return oom_run(t->session, OOM_OP_GEMM, &args);
}

static enum oom_status bias_backward(struct oom_trainer *t, struct oom_parameter *b, int64_t n,
                                     const struct oom_tensor *dy) {
    OOM_TRY(oom_parameter_gradient(t, b));
    if (oom_control_on(OOM_CONTROL_BIAS_OVERWRITTEN) && t->micro_batch > 0) {
        uint64_t bytes = (uint64_t)b->columns * oom_dtype_bytes(t->session->dtype);
        OOM_TRY(t->session->device->api->fill(t->session->device, b->gradient.data, 0, bytes,
                                              t->session->stream));
    }
    struct oom_sum_rows_args args = {.dtype = dy->dtype,
                                     .rows = n,
                                     .columns = b->columns,
                                     .x = dy->data,
                                     .out = b->gradient.data};
    return oom_run(t->session, OOM_OP_SUM_ROWS, &args);
}

enum oom_status oom_linear_backward_weight(struct oom_trainer *t, struct oom_parameter *w,
                                           struct oom_parameter *b, int64_t n,
                                           const struct oom_tensor *x,
                                           const struct oom_tensor *dy) {
    OOM_TRY(oom_parameter_gradient(t, w));
    struct oom_gemm_args args = {.dtype = dy->dtype,
                                 .wide = true,
                                 .transpose_a = true,
                                 .accumulate = true,
                                 .m = w->rows,
                                 .n = w->columns,
                                 .k = n,
                                 .a = dy->data,
                                 .lda = w->rows,
                                 .b = x->data,
                                 .ldb = w->columns,
                                 .c = w->gradient.data,
                                 .ldc = w->columns};
    OOM_TRY(oom_run(t->session, OOM_OP_GEMM, &args));
    return b != NULL ? bias_backward(t, b, n, dy) : OOM_OK;
}

/* ---- dropout, sums ---- */

bool oom_drops(const struct oom_trainer *t) {
    return t->options.spec.dropout > 0 && !t->evaluating;
}

/* Beside the layers' own numbers, so that keyed and running masks never meet. */
enum { RUNNING = 1u << 30 };

struct oom_mask oom_mask_draw(struct oom_trainer *t, uint32_t layer) {
    if (t->options.rng == OOM_RNG_KEYED) return (struct oom_mask){t->rng_step, layer};
    return (struct oom_mask){oom_drops(t) ? t->rng_offset++ : t->rng_offset, RUNNING};
}

enum oom_status oom_dropout(struct oom_trainer *t, struct oom_mask mask, int64_t elements,
                            const struct oom_tensor *x, const struct oom_tensor *y) {
    if (!oom_drops(t)) return OOM_OK;
    struct oom_dropout_args args = {.dtype = x->dtype,
                                    .batch = t->batch.samples,
                                    .elements = elements,
                                    .p = t->options.spec.dropout,
                                    .seed = t->options.seed,
                                    .step = mask.step,
                                    .layer = mask.layer,
                                    .samples = t->batch.identities.data,
                                    .x = x->data,
                                    .y = y->data};
    return oom_run(t->session, OOM_OP_DROPOUT, &args);
}

enum oom_status oom_sum(struct oom_trainer *t, int64_t n, const struct oom_tensor *a,
                        const struct oom_tensor *b, const struct oom_tensor *out) {
    struct oom_add_args args = {a->dtype, b->dtype, n, a->data, b->data, out->data};
    return oom_run(t->session, OOM_OP_ADD, &args);
}

/* ---- norm ---- */

bool oom_statistics_count(const struct oom_trainer *t) {
    return !t->recomputing || oom_control_on(OOM_CONTROL_STATISTICS_TWICE);
}

static enum oom_status norm_run(struct oom_trainer *t, const struct oom_parameter *gamma,
                                const struct oom_parameter *beta, int64_t n, int64_t channels,
                                const struct oom_tensor *x, const struct oom_norm *norm) {
    struct oom_layernorm_forward_args args = {.dtype = x->dtype,
                                              .rows = n,
                                              .channels = channels,
                                              .eps = norm_eps,
                                              .x = x->data,
                                              .gamma = gamma->value.data,
                                              .beta = beta->value.data,
                                              .out = norm->out.data,
                                              .mean = norm->mean.data,
                                              .rstd = norm->rstd.data};
    return oom_run(t->session, OOM_OP_LAYERNORM_FORWARD, &args);
}

enum oom_status oom_norm_forward(struct oom_trainer *t, const struct oom_parameter *gamma,
                                 const struct oom_parameter *beta, int64_t n, int64_t channels,
                                 const struct oom_tensor *x, int layer, const char *what,
                                 struct oom_norm *out) {
    enum oom_dtype runs = oom_layer_dtype(t, OOM_LAYER_NORM, x->dtype);
    enum oom_dtype wide = oom_dtype_wide(runs);
    OOM_TRY(oom_activation_of(t, runs, n * channels, layer, what, &out->out));
    OOM_TRY(oom_activation_of(t, wide, n, layer, "norm mean", &out->mean));
    OOM_TRY(oom_activation_of(t, wide, n, layer, "norm rstd", &out->rstd));
    if (runs == x->dtype) return norm_run(t, gamma, beta, n, channels, x, out);
    struct oom_tensor cast;
    OOM_TRY(oom_cast(t, runs, n * channels, x, "norm's input", &cast));
    OOM_TRY(norm_run(t, gamma, beta, n, channels, &cast, out));
    return oom_drop(t, &cast);
}

enum oom_status oom_norm_drop_unless_kept(struct oom_trainer *t, struct oom_norm *norm) {
    OOM_TRY(oom_drop_unless_kept(t, &norm->out));
    OOM_TRY(oom_drop_unless_kept(t, &norm->mean));
    return oom_drop_unless_kept(t, &norm->rstd);
}

enum oom_status oom_norm_backward(struct oom_trainer *t, struct oom_parameter *gamma,
                                  struct oom_parameter *beta, int64_t n, int64_t channels,
                                  struct oom_tensor *dout, const struct oom_tensor *x,
                                  const struct oom_tensor *residual, const struct oom_tensor *dx,
                                  struct oom_norm *norm) {
    OOM_TRY(oom_parameter_gradient(t, gamma));
    OOM_TRY(oom_parameter_gradient(t, beta));
    OOM_TRY(oom_cast_in_place(t, x->dtype, n * channels, "norm's gradient", dout));
    struct oom_layernorm_backward_args args = {.dtype = x->dtype,
                                               .rows = n,
                                               .channels = channels,
                                               .dout = dout->data,
                                               .x = x->data,
                                               .gamma = gamma->value.data,
                                               .mean = norm->mean.data,
                                               .rstd = norm->rstd.data,
                                               .residual = residual != NULL ? residual->data : 0,
                                               .dx = dx->data,
                                               .dgamma = gamma->gradient.data,
                                               .dbeta = beta->gradient.data};
    OOM_TRY(oom_run(t->session, OOM_OP_LAYERNORM_BACKWARD, &args));
    OOM_TRY(oom_drop(t, &norm->mean));
    OOM_TRY(oom_drop(t, &norm->rstd));
    return oom_drop(t, &norm->out);
}
