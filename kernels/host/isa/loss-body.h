/*
 * loss-body.h: loss.c for one element type.
 */

#include "kernels/host/isa/row-sum.h"

/* Absent lanes are -infinity: they win no maximum, and their exponential is 0. */
OOM_FUNCTION vreal OOM_R(logits_at)(const stored *x, int64_t n) {
    return n >= REAL_LANES ? OOM_S(oom_load)(x)
                           : OOM_S(oom_load_some)(x, n, -(real)__builtin_inff());
}

OOM_FUNCTION real OOM_R(row_max)(const stored *x, int64_t n) {
    vreal best[LANE_VECTORS];
    for (int v = 0; v < LANE_VECTORS; v++) best[v] = OOM_V(oom_set)(-(real)__builtin_inff());
    int64_t i = 0;
    for (; i + OOM_LANES <= n; i += OOM_LANES) {
        OOM_UNROLL
        for (int v = 0; v < LANE_VECTORS; v++) {
            best[v] = OOM_V(oom_max)(OOM_S(oom_load)(x + i + v * REAL_LANES), best[v]);
        }
    }
    for (int v = 0; i < n; v++, i += REAL_LANES) {
        best[v] = OOM_V(oom_max)(OOM_R(logits_at)(x + i, n - i), best[v]);
    }
    return OOM_V(oom_fold_max)(best);
}

/* exp(x - best), written to e (unless NULL; may be x) and summed. */
OOM_FUNCTION real OOM_R(row_exp)(const stored *x, stored *e, int64_t n, real best) {
    vreal sum[LANE_VECTORS] = {{0}};
    int64_t i = 0;
    for (; i + OOM_LANES <= n; i += OOM_LANES) {
        OOM_UNROLL
        for (int v = 0; v < LANE_VECTORS; v++) {
            vreal y = OOM_V(oom_exp)(OOM_S(oom_load)(x + i + v * REAL_LANES) - best);
            if (e != NULL) OOM_S(oom_store)(e + i + v * REAL_LANES, y);
            sum[v] += y;
        }
    }
    for (int v = 0; i < n; v++, i += REAL_LANES) {
        vreal y = OOM_V(oom_exp)(OOM_R(logits_at)(x + i, n - i) - best);
        if (e != NULL) OOM_S(oom_put)(e + i, n - i, y);
        sum[v] += y;
    }
    return OOM_V(oom_fold)(sum);
}

/* exp(x - best) once more: as row_exp left it in e, which may be x. A half would have rounded it
 * there, so for halves it is computed again. */
OOM_FUNCTION vreal OOM_R(exp_at)(const stored *x, const stored *e, int64_t n, real best) {
#if HALF
    (void)e;
    return OOM_V(oom_exp)(OOM_R(logits_at)(x, n) - best);
#else
    (void)x, (void)best;
    return OOM_S(oom_take)(e, n);
#endif
}

/* e = exp(x - best) * inverse * weight */
OOM_FUNCTION void OOM_R(row_gradient)(const stored *x, stored *e, int64_t n, real best,
                                      real inverse, real weight) {
    int64_t i = 0;
    for (; i + REAL_LANES <= n; i += REAL_LANES) {
        vreal y = OOM_R(exp_at)(x + i, e + i, REAL_LANES, best);
        OOM_S(oom_store)(e + i, y * inverse * weight);
    }
    if (i == n) return;
    OOM_S(oom_put)(e + i, n - i, OOM_R(exp_at)(x + i, e + i, n - i, best) * inverse * weight);
}

static void OOM_R(cross_entropy)(const struct oom_cross_entropy_args *args,
                                 const struct oom_host_part *part) {
    const struct oom_cross_entropy_args a = *args;
    const int64_t n = a.classes;
    const real scale = (real)a.scale;
    const int32_t *targets = OOM_HOST_PTR(const int32_t, a.targets);
    const real *weights = OOM_HOST_PTR(const real, a.weights);
    real *losses = OOM_HOST_PTR(real, a.losses);
    stored *gradients = OOM_HOST_PTR(stored, a.dlogits);
    int64_t r, end;
    oom_host_share(a.rows, ROWS, part, &r, &end);
    for (; r < end; r++) {
        const stored *x = OOM_HOST_PTR(const stored, a.logits) + r * n;
        stored *e = gradients == NULL ? NULL : gradients + r * n;
        int64_t target = targets[r] < 0 ? 0 : targets[r] < n ? targets[r] : n - 1;
        real best = OOM_R(row_max)(x, n);
        real right = OOM_S(oom_read)(x + target); /* before e is written, which may be x */
        real sum = OOM_R(row_exp)(x, HALF ? NULL : e, n, best);
        losses[r] = weights[r] * (OOM_W(oom_log)(sum) - (right - best));
        if (e == NULL) continue;
        real weight = weights[r] * scale, inverse = 1 / sum;
        real p = OOM_W(oom_exp)(right - best) * inverse;
        OOM_R(row_gradient)(x, e, n, best, inverse, weight);
        OOM_S(oom_write)(e + target, weight * (p - 1));
    }
}

#if !HALF
static void OOM_R(loss_sum)(const struct oom_loss_sum_args *a) {
    const real *losses = OOM_HOST_PTR(const real, a->losses);
    real *out = OOM_HOST_PTR(real, a->out), sum = *out;
    for (int64_t b = 0; b < a->batch; b++) {
        sum += OOM_R(row_sum)(losses + b * a->positions, a->positions);
    }
    *out = sum;
}
#endif
