/*
 * cnn-unit.h: a convolution of 3 by 3 and the norm after it, the unit of cnn.c.
 *
 * Works on the trainer's scope. Failure: the status of the first thing that failed.
 */
#ifndef OOM_HARNESS_TRAIN_CNN_UNIT_H
#define OOM_HARNESS_TRAIN_CNN_UNIT_H

#include "harness/train/layers.h"

enum { OOM_KERNEL = 3 };

/* Shapes, dtypes and parameters of one unit, once. */
struct oom_unit {
    struct oom_parameter *weight, *gamma, *beta;
    struct oom_statistic *running; /* mean, then variance; NULL with group norm */
    struct oom_conv_shape conv;
    int64_t positions, elements; /* of a sample's result: H H, and times K */
    int64_t groups;              /* 0: batch norm */
    enum oom_dtype dtype;        /* of the convolution */
    int index;                   /* of the stage, for the sites */
};

/* What backward needs: the norm's input and statistics. */
struct oom_unit_saved {
    struct oom_tensor conv, mean, rstd;
};

/* What the gradients of a unit's parameters are sums of: trainer->watch is told. */
struct oom_unit_seen {
    const struct oom_unit *unit;
    const struct oom_unit_saved *saved;
    const struct oom_tensor *x, *dout, *dconv;
};

/* out = norm(conv(x)), a new tensor. */
enum oom_status oom_unit_forward(struct oom_trainer *t, const struct oom_unit *u,
                                 const struct oom_tensor *x, struct oom_unit_saved *k,
                                 struct oom_tensor *out);
/* dout: gradient of the unit's result; stays. dx (new; NULL: not wanted): that of x, which the unit
 * read. Frees what the unit saved. */
enum oom_status oom_unit_backward(struct oom_trainer *t, const struct oom_unit *u,
                                  const struct oom_tensor *x, struct oom_unit_saved *k,
                                  const struct oom_tensor *dout, struct oom_tensor *dx);

#endif
