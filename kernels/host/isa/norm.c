/*
 * norm.c: layer normalisation.
 *   forward   mean = sum x / C; var = sum (x - mean)^2 / C; rstd = 1 / sqrt(var + eps);
 *             out = (x - mean) rstd gamma + beta
 *   backward  xhat = (x - mean) rstd; g = dout gamma;
 *             dx = residual + rstd (g - sum(g) / C - xhat sum(g xhat) / C);
 *             dgamma += sum over rows of dout xhat; dbeta += sum over rows of dout
 *
 * Sums within a row: the tree of 32 lanes. Sums over rows: one chain per column. The backward walks
 * over blocks of rows that fit a second-level cache, first row by row for dx (threads divide the
 * block's rows), then column by column (threads divide the columns): so x, dout come from memory
 * once, and two threads never add to one column. f32 bytes per element: 8 forward, 12 (16)
 * backward.
 */
#include "kernels/host/isa/vector-math.h"
#include "kernels/host/kernels.h"

enum {
    LINE = 16,                /* columns by which threads divide: a cache line of f32 */
    BLOCK_ELEMENTS = 1 << 14, /* of x in a block of rows */
};

/* A row of a 32-lane sum: LANE_VECTORS vectors a step. */
#define LANE_VECTORS (OOM_LANES / REAL_LANES)

#define OOM_REAL 32
#include "kernels/host/isa/real.h"
#include "kernels/host/isa/norm-body.h"
#undef OOM_REAL
#define OOM_REAL 64
#include "kernels/host/isa/real.h"
#include "kernels/host/isa/norm-body.h"

void OOM_HOST_KERNEL(layernorm_forward)(const void *args, const struct oom_host_part *part) {
    const struct oom_layernorm_forward_args *a = args;
    if (a->dtype == OOM_F32)
        layernorm_forward_f32(a, part);
    else
        layernorm_forward_f64(a, part);
}

void OOM_HOST_KERNEL(layernorm_backward)(const void *args, const struct oom_host_part *part) {
    const struct oom_layernorm_backward_args *a = args;
    if (a->dtype == OOM_F32)
        layernorm_backward_f32(a, part);
    else
        layernorm_backward_f64(a, part);
}
