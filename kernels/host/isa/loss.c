/*
 * loss.c: softmax cross-entropy with row weights.
 *   p = softmax(logits[r]); losses[r] = weights[r] * -log p[target];
 *   dlogits[r] = weights[r] * scale * (p - onehot(target))
 * and the sum of the losses of a batch.
 *
 * By rows: maximum, exp(x - maximum) and its sum (tree of 32 lanes), then the gradient from the
 * exponentials left in dlogits. A row stays in the first-level cache: 8 bytes per f32 element.
 */
#include "kernels/host/isa/vector-math.h"
#include "kernels/host/kernels.h"

enum { ROWS = 4 }; /* by which threads divide */

#define LANE_VECTORS (OOM_LANES / REAL_LANES)

#define OOM_REAL 32
#include "kernels/host/isa/real.h"
#include "kernels/host/isa/loss-body.h"
#undef OOM_REAL
#define OOM_REAL 64
#include "kernels/host/isa/real.h"
#include "kernels/host/isa/loss-body.h"

void OOM_HOST_KERNEL(cross_entropy)(const void *args, const struct oom_host_part *part) {
    const struct oom_cross_entropy_args *a = args;
    if (a->dtype == OOM_F32)
        cross_entropy_f32(a, part);
    else
        cross_entropy_f64(a, part);
}

void OOM_HOST_KERNEL(loss_sum)(const void *args, const struct oom_host_part *part) {
    const struct oom_loss_sum_args *a = args;
    if (part->index > 0) return; /* one chain */
    if (a->dtype == OOM_F32)
        loss_sum_f32(a);
    else
        loss_sum_f64(a);
}
