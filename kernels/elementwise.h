/*
 * elementwise.h: the op bodies that host loops and CUDA kernels share: GELU and its slope, AdamW,
 * SGD, and the random words of dropout. One source, so the results are the same bits.
 *
 * Plain functions of values, scalar here; elementwise-body.h gives the host's vectors the same
 * ones (kernels/host/isa/vector-math.h). No function can fail. -ffp-contract=off, as math.h.
 */
#ifndef OOM_KERNELS_ELEMENTWISE_H
#define OOM_KERNELS_ELEMENTWISE_H

#include "kernels/math.h"
#include "kernels/ops.h"

/* ---- Philox 4x32-10 (Salmon, Moraes, Dror, Shaw 2011): 4 random words from 4 + 2 words ---- */

#define OOM_PHILOX_MULTIPLY_0 0xd2511f53u
#define OOM_PHILOX_MULTIPLY_1 0xcd9e8d57u
#define OOM_PHILOX_KEY_STEP_0 0x9e3779b9u
#define OOM_PHILOX_KEY_STEP_1 0xbb67ae85u
enum { OOM_PHILOX_ROUNDS = 10 };

OOM_FUNCTION void oom_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t words[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int i = 0; i < OOM_PHILOX_ROUNDS; i++) {
        uint64_t p0 = (uint64_t)OOM_PHILOX_MULTIPLY_0 * c0;
        uint64_t p1 = (uint64_t)OOM_PHILOX_MULTIPLY_1 * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += OOM_PHILOX_KEY_STEP_0;
        k1 += OOM_PHILOX_KEY_STEP_1;
    }
    words[0] = c0, words[1] = c1, words[2] = c2, words[3] = c3;
}

/* An element is kept when its word is at least this: floor(p 2^32); 0 keeps all. */
OOM_FUNCTION uint32_t oom_dropout_threshold(double p) {
    return (uint32_t)(p * 4294967296.0);
}

/* ---- scalar factors: computed in double, rounded to the op's dtype once ---- */

OOM_FUNCTION double oom_rounded(enum oom_dtype dtype, double x) {
    return dtype == OOM_F32 ? (double)(float)x : x;
}

struct oom_adamw_factors {
    double keep;    /* 1 - lr * decay */
    double fresh_m; /* 1 - beta1 */
    double old_v;   /* beta2 */
    double fresh_v; /* 1 - beta2 */
    double rate;    /* lr / (1 - beta1^t) */
    double root;    /* 1 / sqrt(1 - beta2^t) */
    double eps;
};

OOM_FUNCTION struct oom_adamw_factors oom_adamw_factors(const struct oom_adamw_args *a) {
    double t = (double)a->t;
    struct oom_adamw_factors f;
    f.keep = oom_rounded(a->dtype, 1 - a->lr * a->decay);
    f.fresh_m = oom_rounded(a->dtype, 1 - a->beta1);
    f.old_v = oom_rounded(a->dtype, a->beta2);
    f.fresh_v = oom_rounded(a->dtype, 1 - a->beta2);
    f.rate = oom_rounded(a->dtype, a->lr / (1 - oom_pow_f64(a->beta1, t)));
    f.root = oom_rounded(a->dtype, 1 / oom_sqrt_f64(1 - oom_pow_f64(a->beta2, t)));
    f.eps = oom_rounded(a->dtype, a->eps);
    return f;
}

#define M_SELECT(condition, a, b) ((condition) ? (a) : (b))
#define M_SET(constant) (constant)

#define M(name) name##_f32
#define M_REAL float
#define M_SCALAR float
#include "kernels/elementwise-body.h"
#undef M
#undef M_REAL
#undef M_SCALAR

#define M(name) name##_f64
#define M_REAL double
#define M_SCALAR double
#include "kernels/elementwise-body.h"
#undef M
#undef M_REAL
#undef M_SCALAR

#undef M_SELECT
#undef M_SET

#endif
