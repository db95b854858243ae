/*
 * groupnorm-body.h: groupnorm.c for one element type.
 */

#include "kernels/host/isa/compensated.h"

/* The groups of a unit: group `first` of sample `sample`, channels [begin, end). */
struct OOM_R(unit) {
    int64_t sample, first, groups, begin, end, width;
    real mean[CHUNK], rstd[CHUNK], sum[CHUNK], sum_x[CHUNK]; /* by group */
};

static void OOM_R(unit_start)(struct OOM_R(unit) * u, const struct units *units, int64_t index,
                              int64_t groups) {
    u->sample = index / units->each;
    u->first = index % units->each * units->groups;
    u->groups = groups - u->first < units->groups ? groups - u->first : units->groups;
    u->width = units->width;
    u->begin = u->first * u->width;
    u->end = u->begin + u->groups * u->width;
}

/* A value of each group for each of n channels from j on. */
static void OOM_R(spread)(const struct OOM_R(unit) * u, const real *by_group, int64_t j, int64_t n,
                          real *to) {
    int64_t group = (j - u->begin) / u->width, left = u->width - (j - u->begin) % u->width;
    for (int64_t i = 0; i < n; i++) {
        to[i] = by_group[group];
        if (--left > 0) continue;
        left = u->width;
        group++;
    }
}

/* Adds what n channels from j on have to their groups, in order. */
static void OOM_R(gather_sums)(const struct OOM_R(unit) * u, const real *parts, int64_t j,
                               int64_t n, real *by_group) {
    int64_t group = (j - u->begin) / u->width, left = u->width - (j - u->begin) % u->width;
    for (int64_t i = 0; i < n; i++) {
        by_group[group] += parts[i];
        if (--left > 0) continue;
        left = u->width;
        group++;
    }
}

/* sum x or, with the mean, sum (x - mean)^2 of n channels, each over its positions. */
OOM_FUNCTION void OOM_R(channel_sums)(const stored *x, int64_t positions, int64_t c, int64_t n,
                                      const real *mean, real *parts) {
    for (int64_t i = 0; i < n; i += REAL_LANES) {
        const stored *at = x + i;
        vreal sum = {0}, lost = {0}, centre = {0};
        if (mean != NULL) centre = OOM_V(oom_load)(mean + i);
        for (int64_t e = 0; e < positions; e++, at += c) {
            vreal value = OOM_S(oom_take)(at, n - i);
            if (mean != NULL) {
                vreal distance = value - centre;
                value = distance * distance;
            }
            OOM_R(add)(&sum, &lost, value);
        }
        OOM_V(oom_store)(parts + i, sum);
    }
}

/* Both statistics of a unit's groups. */
static void OOM_R(unit_moments)(const struct oom_groupnorm_forward_args *a, struct OOM_R(unit) * u,
                                const stored *x) {
    const real n = (real)(a->positions * u->width);
    real parts[CHUNK], mean[CHUNK];
    for (int64_t g = 0; g < u->groups; g++) u->mean[g] = u->sum[g] = 0;
    for (int64_t j = u->begin; j < u->end; j += CHUNK) {
        int64_t here = u->end - j < CHUNK ? u->end - j : CHUNK;
        OOM_R(channel_sums)(x + j, a->positions, a->channels, here, NULL, parts);
        OOM_R(gather_sums)(u, parts, j, here, u->mean);
    }
    for (int64_t g = 0; g < u->groups; g++) u->mean[g] /= n;
    for (int64_t j = u->begin; j < u->end; j += CHUNK) {
        int64_t here = u->end - j < CHUNK ? u->end - j : CHUNK;
        OOM_R(spread)(u, u->mean, j, here, mean);
        OOM_R(channel_sums)(x + j, a->positions, a->channels, here, mean, parts);
        OOM_R(gather_sums)(u, parts, j, here, u->sum);
    }
    for (int64_t g = 0; g < u->groups; g++)
        u->rstd[g] = 1 / OOM_W(oom_sqrt)(u->sum[g] / n + (real)a->eps);
}

/* out of n channels from j on. */
static void OOM_R(unit_out)(const struct oom_groupnorm_forward_args *a,
                            const struct OOM_R(unit) * u, const stored *x, stored *out, int64_t j,
                            int64_t n) {
    real means[CHUNK], rstds[CHUNK];
    OOM_R(spread)(u, u->mean, j, n, means);
    OOM_R(spread)(u, u->rstd, j, n, rstds);
    for (int64_t i = 0; i < n; i += REAL_LANES) {
        const vreal mean = OOM_V(oom_load)(means + i), rstd = OOM_V(oom_load)(rstds + i);
        const vreal gamma = OOM_V(oom_take)(OOM_HOST_PTR(const real, a->gamma) + j + i, n - i);
        const vreal beta = OOM_V(oom_take)(OOM_HOST_PTR(const real, a->beta) + j + i, n - i);
        for (int64_t e = 0, at = j + i; e < a->positions; e++, at += a->channels) {
            vreal xhat = (OOM_S(oom_take)(x + at, n - i) - mean) * rstd;
            OOM_S(oom_put)(out + at, n - i, xhat * gamma + beta);
        }
    }
}

static void OOM_R(groupnorm_forward)(const struct oom_groupnorm_forward_args *args,
                                     const struct oom_host_part *part) {
    const struct oom_groupnorm_forward_args a = *args;
    const struct units units = units_of(a.channels, a.groups);
    const int64_t image = a.positions * a.channels;
    int64_t i, last;
    oom_host_share(a.batch * units.each, 1, part, &i, &last);
    for (; i < last; i++) {
        struct OOM_R(unit) u;
        OOM_R(unit_start)(&u, &units, i, a.groups);
        const stored *x = OOM_HOST_PTR(const stored, a.x) + u.sample * image;
        stored *out = OOM_HOST_PTR(stored, a.out) + u.sample * image;
        OOM_R(unit_moments)(&a, &u, x);
        for (int64_t g = 0; g < u.groups; g++) {
            const int64_t at = u.sample * a.groups + u.first + g;
            OOM_HOST_PTR(real, a.mean)[at] = u.mean[g];
            OOM_HOST_PTR(real, a.rstd)[at] = u.rstd[g];
        }
        for (int64_t j = u.begin; j < u.end; j += CHUNK) {
            int64_t here = u.end - j < CHUNK ? u.end - j : CHUNK;
            OOM_R(unit_out)(&a, &u, x, out, j, here);
        }
    }
}

/* ---- backward ---- */

/* n channels of a unit from j on, as arrays from the sample's start. */
struct OOM_R(strip) {
    const stored *dout, *x, *residual;
    stored *dx;
    const real *gamma;
    int64_t positions, channels, j, n;
    real mean[CHUNK], rstd[CHUNK], sum[CHUNK], sum_x[CHUNK]; /* by channel */
};

/* sum g and sum g xhat of each channel over its positions. */
static void OOM_R(strip_sums)(struct OOM_R(strip) * s) {
    for (int64_t i = 0; i < s->n; i += REAL_LANES) {
        const vreal mean = OOM_V(oom_load)(s->mean + i), rstd = OOM_V(oom_load)(s->rstd + i);
        const vreal gamma = OOM_V(oom_take)(s->gamma + s->j + i, s->n - i);
        vreal sum = {0}, sum_x = {0}, lost = {0}, lost_x = {0};
        for (int64_t e = 0, at = s->j + i; e < s->positions; e++, at += s->channels) {
            vreal g = OOM_S(oom_take)(s->dout + at, s->n - i) * gamma;
            vreal xhat = (OOM_S(oom_take)(s->x + at, s->n - i) - mean) * rstd;
            OOM_R(add)(&sum, &lost, g);
            OOM_R(add)(&sum_x, &lost_x, g * xhat);
        }
        OOM_V(oom_store)(s->sum + i, sum);
        OOM_V(oom_store)(s->sum_x + i, sum_x);
    }
}

/* dx, with the groups' sums / n spread over the channels. */
static void OOM_R(strip_dx)(const struct OOM_R(strip) * s) {
    for (int64_t i = 0; i < s->n; i += REAL_LANES) {
        const int64_t n = s->n - i;
        const vreal mean = OOM_V(oom_load)(s->mean + i), rstd = OOM_V(oom_load)(s->rstd + i);
        const vreal mean_g = OOM_V(oom_load)(s->sum + i), mean_gx = OOM_V(oom_load)(s->sum_x + i);
        const vreal gamma = OOM_V(oom_take)(s->gamma + s->j + i, n);
        for (int64_t e = 0, at = s->j + i; e < s->positions; e++, at += s->channels) {
            vreal g = OOM_S(oom_take)(s->dout + at, n) * gamma;
            vreal xhat = (OOM_S(oom_take)(s->x + at, n) - mean) * rstd;
            vreal dx = rstd * ((g - mean_g) - xhat * mean_gx);
            if (s->residual != NULL) dx = OOM_S(oom_take)(s->residual + at, n) + dx;
            OOM_S(oom_put)(s->dx + at, n, dx);
        }
    }
}

static void OOM_R(strip_start)(struct OOM_R(strip) * s, const struct OOM_R(unit) * u, int64_t j) {
    s->j = j;
    s->n = u->end - j < CHUNK ? u->end - j : CHUNK;
    OOM_R(spread)(u, u->mean, j, s->n, s->mean);
    OOM_R(spread)(u, u->rstd, j, s->n, s->rstd);
}

static void OOM_R(unit_backward)(const struct oom_groupnorm_backward_args *a,
                                 struct OOM_R(unit) * u) {
    const int64_t image = a->positions * a->channels * u->sample;
    const int64_t at = u->sample * a->groups + u->first;
    const real n = (real)(a->positions * u->width);
    struct OOM_R(strip) s = {
        .dout = OOM_HOST_PTR(const stored, a->dout) + image,
        .x = OOM_HOST_PTR(const stored, a->x) + image,
        .residual = a->residual != 0 ? OOM_HOST_PTR(const stored, a->residual) + image : NULL,
        .dx = OOM_HOST_PTR(stored, a->dx) + image,
        .gamma = OOM_HOST_PTR(const real, a->gamma),
        .positions = a->positions,
        .channels = a->channels,
    };
    for (int64_t g = 0; g < u->groups; g++) {
        u->mean[g] = OOM_HOST_PTR(const real, a->mean)[at + g];
        u->rstd[g] = OOM_HOST_PTR(const real, a->rstd)[at + g];
        u->sum[g] = u->sum_x[g] = 0;
    }
    for (int64_t j = u->begin; j < u->end; j += CHUNK) {
        OOM_R(strip_start)(&s, u, j);
        OOM_R(strip_sums)(&s);
        OOM_R(gather_sums)(u, s.sum, j, s.n, u->sum);
        OOM_R(gather_sums)(u, s.sum_x, j, s.n, u->sum_x);
    }
    for (int64_t g = 0; g < u->groups; g++) {
        u->sum[g] /= n;
        u->sum_x[g] /= n;
    }
    for (int64_t j = u->begin; j < u->end; j += CHUNK) {
        OOM_R(strip_start)(&s, u, j);
        OOM_R(spread)(u, u->sum, j, s.n, s.sum);
        OOM_R(spread)(u, u->sum_x, j, s.n, s.sum_x);
        OOM_R(strip_dx)(&s);
    }
}

/* dgamma and dbeta of n columns from j on, over all rows. */
static void OOM_R(parameters)(const struct oom_groupnorm_backward_args *a, int64_t width, int64_t j,
                              int64_t n) {
    const real *means = OOM_HOST_PTR(const real, a->mean);
    const real *rstds = OOM_HOST_PTR(const real, a->rstd);
    const stored *dout = OOM_HOST_PTR(const stored, a->dout) + j;
    const stored *x = OOM_HOST_PTR(const stored, a->x) + j;
    real *dgamma = OOM_HOST_PTR(real, a->dgamma) + j, *dbeta = OOM_HOST_PTR(real, a->dbeta) + j;
    vreal sum_gamma = OOM_V(oom_take)(dgamma, n), sum_beta = OOM_V(oom_take)(dbeta, n);
    int64_t group[REAL_LANES] = {0};
    for (int64_t i = 0; i < REAL_LANES && i < n; i++) group[i] = (j + i) / width;
    for (int64_t b = 0; b < a->batch; b++, means += a->groups, rstds += a->groups) {
        vreal mean, rstd, one = {0}, one_x = {0}, lost = {0}, lost_x = {0};
        for (int i = 0; i < REAL_LANES; i++) mean[i] = means[group[i]], rstd[i] = rstds[group[i]];
        for (int64_t e = 0; e < a->positions; e++, dout += a->channels, x += a->channels) {
            vreal d = OOM_S(oom_take)(dout, n);
            OOM_R(add)(&one_x, &lost_x, d * ((OOM_S(oom_take)(x, n) - mean) * rstd));
            OOM_R(add)(&one, &lost, d);
        }
        sum_gamma += one_x;
        sum_beta += one;
    }
    OOM_V(oom_put)(dgamma, n, sum_gamma);
    OOM_V(oom_put)(dbeta, n, sum_beta);
}

static void OOM_R(groupnorm_backward)(const struct oom_groupnorm_backward_args *args,
                                      const struct oom_host_part *part) {
    const struct oom_groupnorm_backward_args a = *args;
    const struct units units = units_of(a.channels, a.groups);
    int64_t i, last;
    oom_host_share(a.batch * units.each, 1, part, &i, &last);
    for (; i < last; i++) {
        struct OOM_R(unit) u;
        OOM_R(unit_start)(&u, &units, i, a.groups);
        OOM_R(unit_backward)(&a, &u);
    }
    oom_host_share(a.channels, LINE, part, &i, &last);
    for (; i < last; i += REAL_LANES)
        OOM_R(parameters)(&a, units.width, i, last - i < REAL_LANES ? last - i : REAL_LANES);
}
