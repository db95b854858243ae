/*
 * loss.c: softmax cross-entropy with row weights.
 *   p = softmax(logits[r]); losses[r] = weights[r] * -log p[target];
 *   dlogits[r] = weights[r] * scale * (p - onehot(target))
 * and the sum of the losses of a batch.
 *
 * By rows: maximum, exp(x - maximum) and its sum (tree of 32 lanes), then the gradient from the
 * exponentials, which are left in dlogits or, where that is of halves, computed a second time. A
 * row stays in the first-level cache: 8 bytes per f32 element.
 */
#include "kernels/host/isa/vector-math.h"
#include "kernels/host/kernels.h"

enum { ROWS = 4 }; /* by which threads divide */

#define LANE_VECTORS (OOM_LANES / REAL_LANES)

#define OOM_BODY "kernels/host/isa/loss-body.h"
#include "kernels/host/isa/each-dtype.h"

OOM_KERNEL_OF(cross_entropy, OOM_BY_DTYPE)

void OOM_HOST_KERNEL(loss_sum)(const void *args, const struct oom_host_part *part) {
    const struct oom_loss_sum_args *a = args;
    if (part->index == 0) OOM_BY_WIDE(a->dtype, loss_sum, a); /* one chain */
}
