/*
 * amp.h: automatic mixed precision (Micikevicius et al. 2018): which layers run in a half, the
 * half copies of the weights, and the loss scale with its rule for steps that overflowed.
 *
 * Parameters, their gradients and the optimizer stay f32: they are the master weights. A layer that
 * runs in a half reads copies, made at their first use in a micro-batch and kept to its end. The
 * half copies lie in the trainer's scope. Failure is that of the allocator.
 */
#ifndef OOM_HARNESS_TRAIN_AMP_H
#define OOM_HARNESS_TRAIN_AMP_H

#include "harness/train/tensor.h"

#include <stdbool.h>
#include <stdint.h>

struct oom_trainer;
struct oom_parameter;

/* ---- which layers run in what ---- */

/* kind, name, rule, why */
#define OOM_LAYER_MAP(X) \
    X(LINEAR, "linear", IN_HALF, "matrix units read halves and add in f32") \
    X(CONVOLUTION, "convolution", IN_HALF, "as linear") \
    X(ATTENTION, "attention", IN_HALF, "as linear; its softmax is computed in f32") \
    X(EMBEDDING, "embedding", IN_FULL, "a table is read, nothing is computed") \
    X(NORM, "norm", AS_INPUT, "mean and variance are computed in f32 of what is stored") \
    X(POINTWISE, "gelu, relu, dropout, pooling", AS_INPUT, "bound by memory, not by precision") \
    X(SUM, "sum with the residual stream", AS_WIDEST, "small terms must not be lost in it") \
    X(LOSS, "loss", AS_INPUT, "softmax and logarithm are computed in f32")

enum oom_layer {
#define X(id, name, rule, why) OOM_LAYER_##id,
    OOM_LAYER_MAP(X)
#undef X
        OOM_LAYER_COUNT
};

const char *oom_layer_name(enum oom_layer layer);
const char *oom_layer_rule(enum oom_layer layer); /* "half", "f32", "as its input", "the wider" */
const char *oom_layer_why(enum oom_layer layer);

enum oom_amp { OOM_AMP_OFF, OOM_AMP_F16, OOM_AMP_BF16 };

/* The dtype in which a layer runs that gets `input`. Without AMP the session's. */
enum oom_dtype oom_layer_dtype(const struct oom_trainer *t, enum oom_layer layer,
                               enum oom_dtype input);

/* ---- casts ---- */

/* A copy of n elements in another dtype. */
enum oom_status oom_cast(struct oom_trainer *t, enum oom_dtype dtype, int64_t n,
                         const struct oom_tensor *x, const char *site, struct oom_tensor *out);
/* Replaces *x by its copy, unless it is of that dtype. */
enum oom_status oom_cast_in_place(struct oom_trainer *t, enum oom_dtype dtype, int64_t n,
                                  const char *site, struct oom_tensor *x);
/* The parameter's values in dtype: its own, or the copy of this micro-batch. */
enum oom_status oom_weight(struct oom_trainer *t, struct oom_parameter *p, enum oom_dtype dtype,
                           oom_devptr *out);
/* Frees the copies: the micro-batch is over. */
enum oom_status oom_weight_copies_free(struct oom_trainer *t);

/* ---- the loss scale ---- */

/* As torch.amp.GradScaler: gradients are those of scale * loss; a step whose gradients are not all
 * finite is left out and the scale times `backoff`; after `interval` steps without one it grows by
 * `growth`, unless that is infinite. The scale is f32, computed in f64 and rounded once. */
struct oom_scaler_options {
    double initial, growth, backoff;
    int interval;
};

/* 65536, 2, 1/2, 2000 */
struct oom_scaler_options oom_scaler_default(void);

struct oom_scaler {
    bool on;
    float scale; /* 1 where off */
    int clean;   /* steps since the last change */
    /* of the step in hand */
    bool unscaled, found; /* found: a gradient is not finite */
    int64_t skipped;      /* steps so far */
};

/* After a step, by what was found in it. */
void oom_scaler_update(struct oom_scaler *scaler, const struct oom_scaler_options *options);

/* Divides the gradients by the scale and looks for infinities and NaN: once, after the window's
 * last micro-batch. A second time before the update is OOM_INVALID. Nothing where the scaler is
 * off. */
enum oom_status oom_unscale(struct oom_trainer *t);

/* The factor of this micro-batch's loss gradient. */
double oom_loss_scale(const struct oom_trainer *t);

#endif
