/*
 * vector.h: vectors of the register width of the instruction set a file is compiled for, and the
 * few operations on them that C does not write by itself.
 *
 *   oom_vf  float    oom_vi  int32_t (masks of oom_vf)    OOM_VF_LANES of them
 *   oom_vd  double   oom_vl  int64_t (masks of oom_vd)    OOM_VD_LANES of them
 *
 * + - * / < > == & | ~ << >> work lane by lane; a comparison gives a mask of 0 and -1. Functions
 * end in the type they work on. Loads and stores need no alignment. The types may alias anything.
 *
 * Sums within a row use OOM_LANES (32) lanes whatever the register width: arrays of
 * OOM_LANES / OOM_VF_LANES vectors, lane l of the array adding elements l, l + 32, ...; see
 * oom_fold_vf. The count is part of the results' definition (ops.h).
 */
#ifndef OOM_KERNELS_HOST_ISA_VECTOR_H
#define OOM_KERNELS_HOST_ISA_VECTOR_H

#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define OOM_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define OOM_VECTOR_BYTES 32
#else
#define OOM_VECTOR_BYTES 16
#endif

#define OOM_VF_LANES (OOM_VECTOR_BYTES / 4)
#define OOM_VD_LANES (OOM_VECTOR_BYTES / 8)
#define OOM_LANES 32

/* Unrolls the loop that follows, whose trip count is a constant. */
#if defined(__clang__)
#define OOM_UNROLL _Pragma("clang loop unroll(full)")
#else
#define OOM_UNROLL _Pragma("GCC unroll 64")
#endif

#define OOM_VECTOR_TYPE(element, name, bytes, alignment) \
    typedef element name __attribute__((vector_size(bytes), aligned(alignment), may_alias))

OOM_VECTOR_TYPE(float, oom_vf, OOM_VECTOR_BYTES, OOM_VECTOR_BYTES);
OOM_VECTOR_TYPE(int32_t, oom_vi, OOM_VECTOR_BYTES, OOM_VECTOR_BYTES);
OOM_VECTOR_TYPE(double, oom_vd, OOM_VECTOR_BYTES, OOM_VECTOR_BYTES);
OOM_VECTOR_TYPE(int64_t, oom_vl, OOM_VECTOR_BYTES, OOM_VECTOR_BYTES);
OOM_VECTOR_TYPE(float, oom_vf_anywhere, OOM_VECTOR_BYTES, 4);
OOM_VECTOR_TYPE(double, oom_vd_anywhere, OOM_VECTOR_BYTES, 8);

/* clang-format off */
#define OOM_VECTOR_FUNCTIONS(real, v, vr, vm, LANES) \
    static inline vr oom_load_##v(const real *p) { return *(const vr##_anywhere *)p; } \
    static inline void oom_store_##v(real *p, vr x) { *(vr##_anywhere *)p = x; } \
    /* every lane x; subtracting +0 changes no bit, not even the sign of a zero */ \
    static inline vr oom_set_##v(real x) { return x - (vr){0}; } \
    /* lane by lane: mask ? a : b */ \
    static inline vr oom_select_##v(vm mask, vr a, vr b) { \
        return (vr)((mask & (vm)a) | (~mask & (vm)b)); \
    } \
    /* a > b ? a : b; a NaN in a is lost, one in b stays */ \
    static inline vr oom_max_##v(vr a, vr b) { return oom_select_##v(a > b, a, b); }
/* clang-format on */

OOM_VECTOR_FUNCTIONS(float, vf, oom_vf, oom_vi, OOM_VF_LANES)
OOM_VECTOR_FUNCTIONS(double, vd, oom_vd, oom_vl, OOM_VD_LANES)

/* The fixed tree of ops.h: 32 lanes folded 16, 8, 4, 2, 1, in quads whatever the register width. */
/* clang-format off */
#define OOM_FOLD(name, real, vr, LANES, quad, JOIN, JOIN_TWO) \
    static inline real name(const vr parts[OOM_LANES / LANES]) { \
        quad q[OOM_LANES / 4]; \
        memcpy(q, parts, sizeof(q)); \
        OOM_UNROLL \
        for (int i = 0; i < 4; i++) q[i] = JOIN(q[i], q[i + 4]); \
        quad low = JOIN(q[0], q[2]), high = JOIN(q[1], q[3]), all = JOIN(low, high); \
        real even = JOIN_TWO(all[0], all[2]), odd = JOIN_TWO(all[1], all[3]); \
        return JOIN_TWO(even, odd); \
    }
/* clang-format on */

OOM_VECTOR_TYPE(float, oom_quad_f, 16, 16);
OOM_VECTOR_TYPE(int32_t, oom_quad_i, 16, 16);
OOM_VECTOR_TYPE(double, oom_quad_d, 32, 32);
OOM_VECTOR_TYPE(int64_t, oom_quad_l, 32, 32);

#define OOM_SUM(a, b) ((a) + (b))
#define OOM_MAX_TWO(a, b) ((a) > (b) ? (a) : (b))
#define OOM_MAX_F(a, b) \
    ((oom_quad_f)((((oom_quad_i)(a)) & ((a) > (b))) | (((oom_quad_i)(b)) & ~((a) > (b)))))
#define OOM_MAX_D(a, b) \
    ((oom_quad_d)((((oom_quad_l)(a)) & ((a) > (b))) | (((oom_quad_l)(b)) & ~((a) > (b)))))

OOM_FOLD(oom_fold_vf, float, oom_vf, OOM_VF_LANES, oom_quad_f, OOM_SUM, OOM_SUM)
OOM_FOLD(oom_fold_vd, double, oom_vd, OOM_VD_LANES, oom_quad_d, OOM_SUM, OOM_SUM)
OOM_FOLD(oom_fold_max_vf, float, oom_vf, OOM_VF_LANES, oom_quad_f, OOM_MAX_F, OOM_MAX_TWO)
OOM_FOLD(oom_fold_max_vd, double, oom_vd, OOM_VD_LANES, oom_quad_d, OOM_MAX_D, OOM_MAX_TWO)

/*
 * The first n lanes in memory and the others `fill`; storing only the first n. n may be more than
 * the lanes (all of them) or less than 0 (none); nothing else in memory is touched. oom_first is
 * the mask of the first n lanes.
 */
/* clang-format off */
#define OOM_FIRST_LANES(v, vm, integer, LANES) \
    static inline vm oom_first_##v(int64_t n) { \
        vm lane; \
        OOM_UNROLL \
        for (int i = 0; i < LANES; i++) lane[i] = i; \
        return (vm)(lane < (integer)(n < 0 ? 0 : n < LANES ? n : LANES)); \
    }
/* clang-format on */

OOM_FIRST_LANES(vf, oom_vi, int32_t, OOM_VF_LANES)
OOM_FIRST_LANES(vd, oom_vl, int64_t, OOM_VD_LANES)

#if defined(__AVX512F__)

static inline uint32_t oom_lane_bits(int64_t n, int64_t lanes) {
    return n >= lanes ? 0xffffU : n > 0 ? (1U << n) - 1 : 0;
}

static inline oom_vf oom_load_some_vf(const float *p, int64_t n, float fill) {
    __m512 others = (__m512)oom_set_vf(fill);
    return (oom_vf)_mm512_mask_loadu_ps(others, (__mmask16)oom_lane_bits(n, OOM_VF_LANES), p);
}

static inline oom_vd oom_load_some_vd(const double *p, int64_t n, double fill) {
    __m512d others = (__m512d)oom_set_vd(fill);
    return (oom_vd)_mm512_mask_loadu_pd(others, (__mmask8)oom_lane_bits(n, OOM_VD_LANES), p);
}

static inline void oom_store_some_vf(float *p, int64_t n, oom_vf x) {
    _mm512_mask_storeu_ps(p, (__mmask16)oom_lane_bits(n, OOM_VF_LANES), (__m512)x);
}

static inline void oom_store_some_vd(double *p, int64_t n, oom_vd x) {
    _mm512_mask_storeu_pd(p, (__mmask8)oom_lane_bits(n, OOM_VD_LANES), (__m512d)x);
}

#elif defined(__AVX2__)

static inline oom_vf oom_load_some_vf(const float *p, int64_t n, float fill) {
    oom_vi mask = oom_first_vf(n);
    return oom_select_vf(mask, (oom_vf)_mm256_maskload_ps(p, (__m256i)mask), oom_set_vf(fill));
}

static inline oom_vd oom_load_some_vd(const double *p, int64_t n, double fill) {
    oom_vl mask = oom_first_vd(n);
    return oom_select_vd(mask, (oom_vd)_mm256_maskload_pd(p, (__m256i)mask), oom_set_vd(fill));
}

static inline void oom_store_some_vf(float *p, int64_t n, oom_vf x) {
    _mm256_maskstore_ps(p, (__m256i)oom_first_vf(n), (__m256)x);
}

static inline void oom_store_some_vd(double *p, int64_t n, oom_vd x) {
    _mm256_maskstore_pd(p, (__m256i)oom_first_vd(n), (__m256d)x);
}

#else

/* clang-format off */
#define OOM_SOME_LANES(real, v, vr, LANES) \
    static inline vr oom_load_some_##v(const real *p, int64_t n, real fill) { \
        real lanes[LANES]; \
        if (n >= LANES) return oom_load_##v(p); \
        for (int i = 0; i < LANES; i++) lanes[i] = i < n ? p[i] : fill; \
        return oom_load_##v(lanes); \
    } \
    static inline void oom_store_some_##v(real *p, int64_t n, vr x) { \
        if (n >= LANES) \
            oom_store_##v(p, x); \
        else \
            for (int i = 0; i < n; i++) p[i] = x[i]; \
    }
/* clang-format on */

OOM_SOME_LANES(float, vf, oom_vf, OOM_VF_LANES)
OOM_SOME_LANES(double, vd, oom_vd, OOM_VD_LANES)

#endif

#endif
