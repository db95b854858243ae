/*
 * norm-body.h: norm.c for one element type.
 */

#include "kernels/host/isa/row-sum.h"

OOM_FUNCTION vreal OOM_R(square)(vreal x) {
    return x * x;
}

/* Sum of (x - mean)^2 over a row. */
OOM_FUNCTION real OOM_R(row_spread)(const stored *x, int64_t n, real mean) {
    vreal sum[LANE_VECTORS] = {{0}};
    int64_t i = 0;
    for (; i + OOM_LANES <= n; i += OOM_LANES) {
        OOM_UNROLL
        for (int v = 0; v < LANE_VECTORS; v++) {
            sum[v] += OOM_R(square)(OOM_S(oom_load)(x + i + v * REAL_LANES) - mean);
        }
    }
    for (int v = 0; i < n; v++, i += REAL_LANES) {
        vreal some =
            n - i >= REAL_LANES ? OOM_S(oom_load)(x + i) : OOM_S(oom_load_some)(x + i, n - i, mean);
        sum[v] += OOM_R(square)(some - mean);
    }
    return OOM_V(oom_fold)(sum);
}

OOM_FUNCTION void OOM_R(forward_at)(const stored *x, const real *gamma, const real *beta,
                                    stored *out, real mean, real rstd, int64_t n) {
    vreal xhat = (OOM_S(oom_take)(x, n) - mean) * rstd;
    OOM_S(oom_put)(out, n, xhat * OOM_V(oom_take)(gamma, n) + OOM_V(oom_take)(beta, n));
}

static void OOM_R(layernorm_forward)(const struct oom_layernorm_forward_args *a,
                                     const struct oom_host_part *part) {
    const real *gamma = OOM_HOST_PTR(const real, a->gamma);
    const real *beta = OOM_HOST_PTR(const real, a->beta);
    real *means = OOM_HOST_PTR(real, a->mean), *rstds = OOM_HOST_PTR(real, a->rstd);
    const real eps = (real)a->eps;
    const int64_t c = a->channels;
    int64_t r, end;
    oom_host_share(a->rows, LINE, part, &r, &end);
    for (; r < end; r++) {
        const stored *x = OOM_HOST_PTR(const stored, a->x) + r * c;
        stored *out = OOM_HOST_PTR(stored, a->out) + r * c;
        real mean = OOM_R(row_sum)(x, c) / (real)c;
        real rstd = 1 / OOM_W(oom_sqrt)(OOM_R(row_spread)(x, c, mean) / (real)c + eps);
        int64_t i = 0;
        for (; i + REAL_LANES <= c; i += REAL_LANES) {
            OOM_R(forward_at)(x + i, gamma + i, beta + i, out + i, mean, rstd, REAL_LANES);
        }
        if (i < c) OOM_R(forward_at)(x + i, gamma + i, beta + i, out + i, mean, rstd, c - i);
        means[r] = mean;
        rstds[r] = rstd;
    }
}

/* One row of the backward; residual may be NULL. */
struct OOM_R(backward_row) {
    const stored *dout, *x, *residual;
    const real *gamma;
    stored *dx;
    real mean, rstd;
};

/* g and g * xhat of n lanes from element i, added to their sums. */
OOM_FUNCTION void OOM_R(backward_sums)(const struct OOM_R(backward_row) * row, int64_t i, int64_t n,
                                       vreal *sum_g, vreal *sum_gx) {
    vreal g = OOM_S(oom_take)(row->dout + i, n) * OOM_V(oom_take)(row->gamma + i, n);
    *sum_g += g;
    *sum_gx += g * ((OOM_S(oom_take)(row->x + i, n) - row->mean) * row->rstd);
}

OOM_FUNCTION void OOM_R(backward_dx)(const struct OOM_R(backward_row) * row, int64_t i, int64_t n,
                                     real mean_g, real mean_gx) {
    vreal g = OOM_S(oom_take)(row->dout + i, n) * OOM_V(oom_take)(row->gamma + i, n);
    vreal xhat = (OOM_S(oom_take)(row->x + i, n) - row->mean) * row->rstd;
    vreal dx = row->rstd * ((g - mean_g) - xhat * mean_gx);
    if (row->residual != NULL) dx = OOM_S(oom_take)(row->residual + i, n) + dx;
    OOM_S(oom_put)(row->dx + i, n, dx);
}

OOM_FUNCTION void OOM_R(backward_row_run)(const struct OOM_R(backward_row) * row, int64_t c) {
    vreal sum_g[LANE_VECTORS] = {{0}}, sum_gx[LANE_VECTORS] = {{0}};
    int64_t i = 0;
    for (; i + OOM_LANES <= c; i += OOM_LANES) {
        OOM_UNROLL
        for (int v = 0; v < LANE_VECTORS; v++) {
            OOM_R(backward_sums)(row, i + v * REAL_LANES, REAL_LANES, &sum_g[v], &sum_gx[v]);
        }
    }
    for (int v = 0; i < c; v++, i += REAL_LANES) {
        OOM_R(backward_sums)(row, i, c - i, &sum_g[v], &sum_gx[v]);
    }
    real mean_g = OOM_V(oom_fold)(sum_g) / (real)c, mean_gx = OOM_V(oom_fold)(sum_gx) / (real)c;
    for (i = 0; i + REAL_LANES <= c; i += REAL_LANES) {
        OOM_R(backward_dx)(row, i, REAL_LANES, mean_g, mean_gx);
    }
    if (i < c) OOM_R(backward_dx)(row, i, c - i, mean_g, mean_gx);
}

/* dx of rows [begin, end). */
static void OOM_R(backward_rows)(const struct oom_layernorm_backward_args *a, int64_t begin,
                                 int64_t end) {
    const int64_t c = a->channels;
    const stored *residual = OOM_HOST_PTR(const stored, a->residual);
    for (int64_t r = begin; r < end; r++) {
        const struct OOM_R(backward_row) row = {
            .dout = OOM_HOST_PTR(const stored, a->dout) + r * c,
            .x = OOM_HOST_PTR(const stored, a->x) + r * c,
            .gamma = OOM_HOST_PTR(const real, a->gamma),
            .residual = residual != NULL ? residual + r * c : NULL,
            .dx = OOM_HOST_PTR(stored, a->dx) + r * c,
            .mean = OOM_HOST_PTR(const real, a->mean)[r],
            .rstd = OOM_HOST_PTR(const real, a->rstd)[r],
        };
        OOM_R(backward_row_run)(&row, c);
    }
}

/* dgamma and dbeta of n columns from j, over rows [begin, end). */
OOM_FUNCTION void OOM_R(backward_columns)(const struct oom_layernorm_backward_args *a,
                                          int64_t begin, int64_t end, int64_t j, int64_t n) {
    const real *mean = OOM_HOST_PTR(const real, a->mean), *rstd = OOM_HOST_PTR(const real, a->rstd);
    const stored *dout = OOM_HOST_PTR(const stored, a->dout) + begin * a->channels + j;
    const stored *x = OOM_HOST_PTR(const stored, a->x) + begin * a->channels + j;
    real *dgamma = OOM_HOST_PTR(real, a->dgamma) + j, *dbeta = OOM_HOST_PTR(real, a->dbeta) + j;
    vreal sum_gamma = OOM_V(oom_take)(dgamma, n), sum_beta = OOM_V(oom_take)(dbeta, n);
    for (int64_t r = begin; r < end; r++, dout += a->channels, x += a->channels) {
        vreal d = OOM_S(oom_take)(dout, n);
        sum_gamma += d * ((OOM_S(oom_take)(x, n) - mean[r]) * rstd[r]);
        sum_beta += d;
    }
    OOM_V(oom_put)(dgamma, n, sum_gamma);
    OOM_V(oom_put)(dbeta, n, sum_beta);
}

static void OOM_R(layernorm_backward)(const struct oom_layernorm_backward_args *args,
                                      const struct oom_host_part *part) {
    const struct oom_layernorm_backward_args a = *args;
    int64_t block = BLOCK_ELEMENTS / a.channels + 1, first, last;
    oom_host_share(a.channels, LINE, part, &first, &last);
    for (int64_t r = 0; r < a.rows; r += block) {
        int64_t rows = a.rows - r < block ? a.rows - r : block, begin, end, j = first;
        oom_host_share(rows, 1, part, &begin, &end);
        OOM_R(backward_rows)(&a, r + begin, r + end);
        for (; j + REAL_LANES <= last; j += REAL_LANES) {
            OOM_R(backward_columns)(&a, r, r + rows, j, REAL_LANES);
        }
        if (j < last) OOM_R(backward_columns)(&a, r, r + rows, j, last - j);
    }
}
