/*
 * kinks.h: the points where a model's slope jumps: ReLU at 0, max pooling where two elements tie.
 *
 * Two computations of the same numbers, rounded differently, may fall on either side. Whoever
 * compares them watches which branch one took and makes the other take it too. Kinks are numbered
 * in the order of forward; each makes `elements` decisions per sample.
 */
#ifndef OOM_HARNESS_TRAIN_KINKS_H
#define OOM_HARNESS_TRAIN_KINKS_H

#include "harness/train/tensor.h"

struct oom_trainer;

enum oom_kink_kind {
    OOM_KINK_RELU, /* 1 where x > 0, else 0 */
    OOM_KINK_POOL, /* which element of the window: r * size + s */
};

/* One kink of a micro-batch, as it is passed: before a ReLU works in place, after a pooling. */
struct oom_kink {
    int index;
    enum oom_kink_kind kind;
    int64_t begin, samples;         /* of the window: [begin, begin + samples) */
    int64_t elements;               /* decisions of a sample */
    const struct oom_tensor *x;     /* what goes in: (samples, elements), or (samples,H,W,C) */
    const struct oom_tensor *taken; /* pooling: the decisions, u8 (samples,P,Q,C) */
    int64_t height, width, channels, size; /* pooling */
};

/* see() is told of every kink; take(), if not NULL, supplies its decisions, samples * elements
 * bytes. Both may fail. */
struct oom_branches {
    void *context;
    enum oom_status (*see)(void *context, const struct oom_kink *kink);
    enum oom_status (*take)(void *context, const struct oom_kink *kink, uint8_t *out);
};

/* ReLU of y, in place, and the gradient dy through it, in place. */
enum oom_status oom_relu_forward(struct oom_trainer *t, int index, int64_t elements,
                                 const struct oom_tensor *y);
enum oom_status oom_relu_backward(struct oom_trainer *t, int index, int64_t elements,
                                  const struct oom_tensor *y, const struct oom_tensor *dy);

/* The sizes of a max pooling with windows of 2 by 2: x (B,H,W,C), y and `chosen` (B,H/2,W/2,C). */
struct oom_pool_shape {
    int64_t height, width, channels;
};
/* y and chosen (u8) must exist. */
enum oom_status oom_maxpool_forward(struct oom_trainer *t, int index, struct oom_pool_shape shape,
                                    const struct oom_tensor *x, const struct oom_tensor *y,
                                    const struct oom_tensor *chosen);
enum oom_status oom_maxpool_backward(struct oom_trainer *t, struct oom_pool_shape shape,
                                     const struct oom_tensor *dy, const struct oom_tensor *chosen,
                                     const struct oom_tensor *dx);

#endif
