/*
 * layers.h: the steps that models are written in: an op or two each, with its temporaries.
 *
 * Everything works on the trainer's scope. N is rows (samples x positions), C channels. `site`
 * names the tensor that is made. All functions return the status of the first thing that failed.
 */
#ifndef OOM_HARNESS_TRAIN_LAYERS_H
#define OOM_HARNESS_TRAIN_LAYERS_H

#include "harness/train/trainer.h"

/* A new activation of n elements. */
enum oom_status oom_activation(struct oom_trainer *t, enum oom_dtype dtype, int64_t n,
                               const char *site, struct oom_tensor *out);
/* The same, with a site of the form "layer 3 fc". */
enum oom_status oom_activation_of(struct oom_trainer *t, enum oom_dtype dtype, int64_t n, int layer,
                                  const char *what, struct oom_tensor *out);
enum oom_status oom_drop(struct oom_trainer *t, struct oom_tensor *tensor);
/* Called where forward has read it for the last time: what backward would read goes unless it is
 * kept (stages.h), and so does a stage's input. */
enum oom_status oom_drop_unless_kept(struct oom_trainer *t, struct oom_tensor *tensor);
enum oom_status oom_drop_input(struct oom_trainer *t, struct oom_tensor *tensor);

/* Called where a saved activation has been read for the last time in forward: it is kept, for
 * backward reads it; and where backward is done with it. */
enum oom_status oom_keep_saved(struct oom_trainer *t, const struct oom_tensor *tensor);
enum oom_status oom_drop_saved(struct oom_trainer *t, struct oom_tensor *tensor);

/* ---- linear; x, y, dy of one dtype, in which the weights are read; they must exist ---- */

/* y (N,out) = x (N,in) W^T + b.  W (out,in); b NULL: none. */
enum oom_status oom_linear_forward(struct oom_trainer *t, struct oom_parameter *w,
                                   const struct oom_parameter *b, int64_t n,
                                   const struct oom_tensor *x, const struct oom_tensor *y);
/* dx (N,in) = dy W. */
enum oom_status oom_linear_backward_input(struct oom_trainer *t, struct oom_parameter *w, int64_t n,
                                          const struct oom_tensor *dy, const struct oom_tensor *dx);
/* dW += dy^T x; db += sum over rows of dy.  b NULL: none. */
enum oom_status oom_linear_backward_weight(struct oom_trainer *t, struct oom_parameter *w,
                                           struct oom_parameter *b, int64_t n,
                                           const struct oom_tensor *x, const struct oom_tensor *dy);

/* ---- dropout ---- */

/* Which random numbers a dropout drew; backward needs the same. */
struct oom_mask {
    uint32_t step, layer;
};

/* Whether there is any: not without dropout, nor in evaluation. */
bool oom_drops(const struct oom_trainer *t);
/* Draws the mask of this layer: keyed by step and layer, or the next of the running numbers. */
struct oom_mask oom_mask_draw(struct oom_trainer *t, uint32_t layer);
/* y may be x (samples of the batch, elements each); nothing where nothing is dropped. */
enum oom_status oom_dropout(struct oom_trainer *t, struct oom_mask mask, int64_t elements,
                            const struct oom_tensor *x, const struct oom_tensor *y);

/* out = a + b, n elements; a and out of one dtype. out may be a. */
enum oom_status oom_sum(struct oom_trainer *t, int64_t n, const struct oom_tensor *a,
                        const struct oom_tensor *b, const struct oom_tensor *out);

/* ---- norm ---- */

/* Whether this forward counts in the running statistics of a batch norm. */
bool oom_statistics_count(const struct oom_trainer *t);

/* A norm's output and the two statistics backward needs. */
struct oom_norm {
    struct oom_tensor out, mean, rstd;
};
enum oom_status oom_norm_forward(struct oom_trainer *t, const struct oom_parameter *gamma,
                                 const struct oom_parameter *beta, int64_t n, int64_t channels,
                                 const struct oom_tensor *x, int layer, const char *what,
                                 struct oom_norm *out);
enum oom_status oom_norm_drop_unless_kept(struct oom_trainer *t, struct oom_norm *norm);
/* dx = residual + gradient through the norm; residual NULL: none. dout is cast to x's dtype where
 * it has another; residual and dx have it. Frees the norm's tensors. */
enum oom_status oom_norm_backward(struct oom_trainer *t, struct oom_parameter *gamma,
                                  struct oom_parameter *beta, int64_t n, int64_t channels,
                                  struct oom_tensor *dout, const struct oom_tensor *x,
                                  const struct oom_tensor *residual, const struct oom_tensor *dx,
                                  struct oom_norm *norm);

#endif
