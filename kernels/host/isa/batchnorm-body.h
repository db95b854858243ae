/*
 * batchnorm-body.h: batchnorm.c for one element type. A block is `vectors` (a constant, at most
 * WIDE) vectors of columns from j on, each of n lanes.
 */

#include "kernels/host/isa/compensated.h"

enum { OOM_R(WIDE) = 4, OOM_R(WIDE_BACK) = 2 };

/* Rows in all, and the count of one sample. */
static real OOM_R(total)(const real *counts, int64_t batch, int64_t positions) {
    if (counts == NULL) return (real)(batch * positions);
    real sum = 0;
    for (int64_t b = 0; b < batch; b++) sum += counts[b];
    return sum * (real)positions;
}

OOM_FUNCTION real OOM_R(count_of)(const real *counts, int64_t sample) {
    return counts != NULL ? counts[sample] : 1;
}

/* What a block of columns needs to know. */
struct OOM_R(forward) {
    const struct oom_batchnorm_forward_args *a;
    const real *counts;
    real total;
};

/* sum c x or, given the mean, sum c (x - mean)^2. */
OOM_FUNCTION void OOM_R(column_sums)(const struct OOM_R(forward) * f, int64_t j, const int vectors,
                                     int64_t n, const vreal *mean, vreal *sum) {
    const int64_t c = f->a->channels, positions = f->a->positions;
    const stored *x = OOM_HOST_PTR(const stored, f->a->x) + j;
    vreal lost[OOM_R(WIDE)];
    OOM_UNROLL
    for (int v = 0; v < vectors; v++) sum[v] = lost[v] = (vreal){0};
    for (int64_t b = 0; b < f->a->batch; b++) {
        const real count = OOM_R(count_of)(f->counts, b);
        for (int64_t e = 0; e < positions; e++, x += c) {
            OOM_UNROLL
            for (int v = 0; v < vectors; v++) {
                vreal value = OOM_S(oom_take)(x + v * REAL_LANES, n);
                if (mean != NULL) {
                    vreal distance = value - mean[v];
                    value = distance * distance;
                }
                OOM_R(add)(&sum[v], &lost[v], count * value);
            }
        }
    }
}

/* running = (1 - momentum) running + momentum value */
OOM_FUNCTION void OOM_R(move)(real *running, int64_t n, double momentum, vreal value) {
    vreal old = (real)(1 - momentum) * OOM_V(oom_take)(running, n);
    OOM_V(oom_put)(running, n, old + (real)momentum * value);
}

OOM_FUNCTION void OOM_R(forward_block)(const struct OOM_R(forward) * f, int64_t j,
                                       const int vectors, int64_t n) {
    const struct oom_batchnorm_forward_args *a = f->a;
    const int64_t c = a->channels, rows = a->batch * a->positions;
    vreal mean[OOM_R(WIDE)], sum[OOM_R(WIDE)], rstd[OOM_R(WIDE)], gamma[OOM_R(WIDE)],
        beta[OOM_R(WIDE)];
    OOM_R(column_sums)(f, j, vectors, n, NULL, mean);
    OOM_UNROLL
    for (int v = 0; v < vectors; v++) mean[v] /= f->total;
    OOM_R(column_sums)(f, j, vectors, n, mean, sum);
    for (int v = 0; v < vectors; v++) {
        const int64_t at = j + v * REAL_LANES;
        rstd[v] = 1 / OOM_V(oom_sqrt)(sum[v] / f->total + (real)a->eps);
        gamma[v] = OOM_V(oom_take)(OOM_HOST_PTR(const real, a->gamma) + at, n);
        beta[v] = OOM_V(oom_take)(OOM_HOST_PTR(const real, a->beta) + at, n);
        OOM_V(oom_put)(OOM_HOST_PTR(real, a->mean) + at, n, mean[v]);
        OOM_V(oom_put)(OOM_HOST_PTR(real, a->rstd) + at, n, rstd[v]);
        if (a->running_mean == 0) continue;
        OOM_R(move)(OOM_HOST_PTR(real, a->running_mean) + at, n, a->momentum, mean[v]);
        OOM_R(move)
        (OOM_HOST_PTR(real, a->running_var) + at, n, a->momentum, sum[v] / (f->total - 1));
    }
    const stored *x = OOM_HOST_PTR(const stored, a->x) + j;
    stored *out = OOM_HOST_PTR(stored, a->out) + j;
    for (int64_t r = 0; r < rows; r++, x += c, out += c) {
        OOM_UNROLL
        for (int v = 0; v < vectors; v++) {
            vreal xhat = (OOM_S(oom_take)(x + v * REAL_LANES, n) - mean[v]) * rstd[v];
            OOM_S(oom_put)(out + v * REAL_LANES, n, xhat * gamma[v] + beta[v]);
        }
    }
}

static void OOM_R(batchnorm_forward)(const struct oom_batchnorm_forward_args *args,
                                     const struct oom_host_part *part) {
    const struct oom_batchnorm_forward_args a = *args;
    const real *counts = OOM_HOST_PTR(const real, a.counts);
    const struct OOM_R(forward) f = {&a, counts, OOM_R(total)(counts, a.batch, a.positions)};
    int64_t begin, end;
    oom_host_share(a.channels, LINE, part, &begin, &end);
    COLUMNS(OOM_R(forward_block), &f, begin, end, OOM_R(WIDE));
}

OOM_FUNCTION void OOM_R(infer_block)(const struct oom_batchnorm_infer_args *a, int64_t j,
                                     const int vectors, int64_t n) {
    const int64_t c = a->channels;
    vreal mean[OOM_R(WIDE)], rstd[OOM_R(WIDE)], gamma[OOM_R(WIDE)], beta[OOM_R(WIDE)];
    for (int v = 0; v < vectors; v++) {
        const int64_t at = j + v * REAL_LANES;
        vreal var = OOM_V(oom_take)(OOM_HOST_PTR(const real, a->running_var) + at, n);
        rstd[v] = 1 / OOM_V(oom_sqrt)(var + (real)a->eps);
        mean[v] = OOM_V(oom_take)(OOM_HOST_PTR(const real, a->running_mean) + at, n);
        gamma[v] = OOM_V(oom_take)(OOM_HOST_PTR(const real, a->gamma) + at, n);
        beta[v] = OOM_V(oom_take)(OOM_HOST_PTR(const real, a->beta) + at, n);
    }
    const stored *x = OOM_HOST_PTR(const stored, a->x) + j;
    stored *out = OOM_HOST_PTR(stored, a->out) + j;
    for (int64_t r = 0; r < a->rows; r++, x += c, out += c) {
        OOM_UNROLL
        for (int v = 0; v < vectors; v++) {
            vreal xhat = (OOM_S(oom_take)(x + v * REAL_LANES, n) - mean[v]) * rstd[v];
            OOM_S(oom_put)(out + v * REAL_LANES, n, xhat * gamma[v] + beta[v]);
        }
    }
}

static void OOM_R(batchnorm_infer)(const struct oom_batchnorm_infer_args *args,
                                   const struct oom_host_part *part) {
    const struct oom_batchnorm_infer_args a = *args;
    int64_t begin, end;
    oom_host_share(a.channels, LINE, part, &begin, &end);
    COLUMNS(OOM_R(infer_block), &a, begin, end, OOM_R(WIDE));
}

struct OOM_R(backward) {
    const struct oom_batchnorm_backward_args *a;
    const real *counts;
    real total;
};

/* What a block of columns keeps: the channels' statistics, and its sums. */
struct OOM_R(backward_state) {
    vreal mean[OOM_R(WIDE_BACK)], rstd[OOM_R(WIDE_BACK)];
    vreal sum_d[OOM_R(WIDE_BACK)], sum_dx[OOM_R(WIDE_BACK)];
};

/* Compensated sums of dout and dout * xhat. */
struct OOM_R(sample_sums) {
    vreal d[OOM_R(WIDE_BACK)], lost_d[OOM_R(WIDE_BACK)];
    vreal dx[OOM_R(WIDE_BACK)], lost_dx[OOM_R(WIDE_BACK)];
};

OOM_FUNCTION void OOM_R(add_sample)(const struct oom_batchnorm_backward_args *a, int64_t sample,
                                    int64_t j, const int vectors, int64_t n,
                                    const struct OOM_R(backward_state) * s,
                                    struct OOM_R(sample_sums) * sums) {
    const int64_t first = sample * a->positions * a->channels + j;
    const stored *x = OOM_HOST_PTR(const stored, a->x) + first;
    const stored *dout = OOM_HOST_PTR(const stored, a->dout) + first;
    for (int64_t e = 0; e < a->positions; e++, x += a->channels, dout += a->channels) {
        OOM_UNROLL
        for (int v = 0; v < vectors; v++) {
            vreal d = OOM_S(oom_take)(dout + v * REAL_LANES, n);
            vreal xhat = (OOM_S(oom_take)(x + v * REAL_LANES, n) - s->mean[v]) * s->rstd[v];
            OOM_R(add)(&sums->d[v], &sums->lost_d[v], d);
            OOM_R(add)(&sums->dx[v], &sums->lost_dx[v], d * xhat);
        }
    }
}

OOM_FUNCTION void OOM_R(backward_sums)(const struct OOM_R(backward) * f, int64_t j,
                                       const int vectors, int64_t n,
                                       struct OOM_R(backward_state) * s) {
    const struct oom_batchnorm_backward_args *a = f->a;
    real *dgammas = OOM_HOST_PTR(real, a->dgamma) + j, *dbetas = OOM_HOST_PTR(real, a->dbeta) + j;
    vreal dgamma[OOM_R(WIDE_BACK)], dbeta[OOM_R(WIDE_BACK)];
    struct OOM_R(sample_sums) all = {.d = {{0}}};
    OOM_UNROLL
    for (int v = 0; v < vectors; v++) {
        const int64_t at = v * REAL_LANES;
        s->mean[v] = OOM_V(oom_take)(OOM_HOST_PTR(const real, a->mean) + j + at, n);
        s->rstd[v] = OOM_V(oom_take)(OOM_HOST_PTR(const real, a->rstd) + j + at, n);
        dgamma[v] = OOM_V(oom_take)(dgammas + at, n);
        dbeta[v] = OOM_V(oom_take)(dbetas + at, n);
    }
    for (int64_t b = 0; b < a->batch; b++) {
        struct OOM_R(sample_sums) one = {.d = {{0}}};
        OOM_R(add_sample)(a, b, j, vectors, n, s, &one);
        OOM_UNROLL
        for (int v = 0; v < vectors; v++) {
            OOM_R(add)(&all.d[v], &all.lost_d[v], one.d[v]);
            OOM_R(add)(&all.dx[v], &all.lost_dx[v], one.dx[v]);
            dgamma[v] += one.dx[v];
            dbeta[v] += one.d[v];
        }
    }
    OOM_UNROLL
    for (int v = 0; v < vectors; v++) {
        s->sum_d[v] = all.d[v];
        s->sum_dx[v] = all.dx[v];
    }
    OOM_UNROLL
    for (int v = 0; v < vectors; v++) {
        OOM_V(oom_put)(dgammas + v * REAL_LANES, n, dgamma[v]);
        OOM_V(oom_put)(dbetas + v * REAL_LANES, n, dbeta[v]);
    }
}

OOM_FUNCTION void OOM_R(backward_block)(const struct OOM_R(backward) * f, int64_t j,
                                        const int vectors, int64_t n) {
    const struct oom_batchnorm_backward_args *a = f->a;
    struct OOM_R(backward_state) s;
    OOM_R(backward_sums)(f, j, vectors, n, &s);
    const stored *residual = a->residual != 0 ? OOM_HOST_PTR(const stored, a->residual) : NULL;
    const stored *x = OOM_HOST_PTR(const stored, a->x);
    const stored *dout = OOM_HOST_PTR(const stored, a->dout);
    stored *dx = OOM_HOST_PTR(stored, a->dx);
    vreal factor[OOM_R(WIDE_BACK)];
    OOM_UNROLL
    for (int v = 0; v < vectors; v++) {
        const real *gamma = OOM_HOST_PTR(const real, a->gamma) + j + v * REAL_LANES;
        factor[v] = OOM_V(oom_take)(gamma, n) * s.rstd[v];
        s.sum_d[v] /= f->total;
        s.sum_dx[v] /= f->total;
    }
    int64_t row = j;
    for (int64_t b = 0; b < a->batch; b++) {
        const real count = OOM_R(count_of)(f->counts, b);
        for (int64_t e = 0; e < a->positions; e++, row += a->channels) {
            OOM_UNROLL
            for (int v = 0; v < vectors; v++) {
                const int64_t at = row + v * REAL_LANES;
                vreal xhat = (OOM_S(oom_take)(x + at, n) - s.mean[v]) * s.rstd[v];
                vreal own = OOM_S(oom_take)(dout + at, n) - count * s.sum_d[v];
                vreal value = factor[v] * (own - xhat * (count * s.sum_dx[v]));
                if (residual != NULL) value = OOM_S(oom_take)(residual + at, n) + value;
                OOM_S(oom_put)(dx + at, n, value);
            }
        }
    }
}

static void OOM_R(batchnorm_backward)(const struct oom_batchnorm_backward_args *args,
                                      const struct oom_host_part *part) {
    const struct oom_batchnorm_backward_args a = *args;
    const real *counts = OOM_HOST_PTR(const real, a.counts);
    const struct OOM_R(backward) f = {&a, counts, OOM_R(total)(counts, a.batch, a.positions)};
    int64_t begin, end;
    oom_host_share(a.channels, LINE, part, &begin, &end);
    COLUMNS(OOM_R(backward_block), &f, begin, end, OOM_R(WIDE_BACK));
}
