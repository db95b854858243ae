/*
 * groupnorm.c: group normalisation; the statistics are those of one sample's group of w = C / G
 * adjacent channels, n = E w elements.
 *   forward   mean = sum x / n; var = sum (x - mean)^2 / n; rstd = 1 / sqrt(var + eps);
 *             out = (x - mean) rstd gamma + beta
 *   backward  xhat = (x - mean) rstd; g = dout gamma;
 *             dx = residual + rstd (g - sum(g) / n - xhat sum(g xhat) / n);
 *             dgamma += sum over rows of dout xhat; dbeta += sum over rows of dout
 *
 * Sums: one compensated chain over positions per channel, a vector's lanes being channels, then the
 * group's channels in order; for dgamma and dbeta, then the samples in order (ops.h). A unit of
 * work is as many whole groups of a sample as have CHUNK channels, or one group; threads divide
 * units, for dgamma and dbeta channels. A unit's columns are walked three times forward, twice
 * backward and once more for dgamma, mostly from the second cache. f32 bytes per element from
 * memory: 8 forward, 20 (24) backward.
 */
#include "kernels/host/isa/vector-math.h"
#include "kernels/host/kernels.h"

enum {
    LINE = 16,  /* columns by which threads divide: a cache line of f32 */
    CHUNK = 64, /* channels handled at a time: a multiple of every vector */
};

/* Groups of one sample handled together: their channels, and how many units a sample has. */
struct units {
    int64_t width;  /* channels of a group */
    int64_t groups; /* of a unit, at most CHUNK */
    int64_t each;   /* units of a sample */
};

static struct units units_of(int64_t channels, int64_t groups) {
    struct units u = {.width = channels / groups};
    u.groups = u.width < CHUNK ? CHUNK / u.width : 1;
    u.each = (groups + u.groups - 1) / u.groups;
    return u;
}

#define OOM_BODY "kernels/host/isa/groupnorm-body.h"
#include "kernels/host/isa/each-dtype.h"

OOM_KERNEL_OF(groupnorm_forward, OOM_BY_DTYPE)
OOM_KERNEL_OF(groupnorm_backward, OOM_BY_DTYPE)
