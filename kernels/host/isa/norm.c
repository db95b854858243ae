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

#define OOM_BODY "kernels/host/isa/norm-body.h"
#include "kernels/host/isa/each-dtype.h"

OOM_KERNEL_OF(layernorm_forward, OOM_BY_DTYPE)
OOM_KERNEL_OF(layernorm_backward, OOM_BY_DTYPE)
