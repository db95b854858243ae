/*
 * batchnorm.c: batch normalisation over N = B E rows of C channels; c is a sample's count, or 1.
 *   forward   mean = sum c x / M; var = sum c (x - mean)^2 / M; rstd = 1 / sqrt(var + eps);
 *             out = (x - mean) rstd gamma + beta; the running values move towards mean and
 *             sum c (x - mean)^2 / (M - 1)
 *   infer     out = (x - running_mean) / sqrt(running_var + eps) gamma + beta
 *   backward  xhat = (x - mean) rstd; dgamma += sum dout xhat; dbeta += sum dout;
 *             dx = residual + gamma rstd (dout - c sum(dout) / M - c xhat sum(dout xhat) / M)
 *
 * Sums are per channel and compensated: the statistics' one chain over all rows, the backward's one
 * over a sample's positions, samples added in order (ops.h). Threads and vectors divide channels,
 * so no thread waits for another's sums, and the two of the backward never leave the registers. The
 * price is that x is walked along columns: three times forward (twice with dout backward), a cache
 * line or more of each row at a time, from the second cache where a part's columns fit. f32 bytes
 * per element: 16 forward, 20 (24) backward, 8 infer.
 */
#include "kernels/host/isa/vector-math.h"
#include "kernels/host/kernels.h"

enum { LINE = 16 }; /* columns by which threads divide: a cache line of f32 */

/* f(context, column, vectors, lanes) for columns [begin, end): blocks of `wide` vectors, then
 * single ones, the last of which may have fewer lanes. */
#define COLUMNS(f, context, begin, end, wide) \
    do { \
        int64_t column = begin; \
        for (; column + (wide)*REAL_LANES <= end; column += (wide)*REAL_LANES) \
            f(context, column, wide, REAL_LANES); \
        for (; column + REAL_LANES <= end; column += REAL_LANES) \
            f(context, column, 1, REAL_LANES); \
        if (column < end) f(context, column, 1, end - column); \
    } while (0)

#define OOM_BODY "kernels/host/isa/batchnorm-body.h"
#include "kernels/host/isa/each-dtype.h"

OOM_KERNEL_OF(batchnorm_forward, OOM_BY_DTYPE)
OOM_KERNEL_OF(batchnorm_infer, OOM_BY_DTYPE)
OOM_KERNEL_OF(batchnorm_backward, OOM_BY_DTYPE)
