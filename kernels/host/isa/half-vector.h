/*
 * half-vector.h: loads and stores of halves as vectors of f32, for the instruction set in force,
 * with the bits of half.h. Beside vf (f32 in memory) and vd (f64) there are two more suffixes:
 *
 *   vh   f16 in memory, oom_vf in registers        vb   bf16 in memory, oom_vf in registers
 *
 * The set is the same for all four (oom_load_vh, oom_take_vb ...), so that a body names it once
 * (OOM_S of real.h): load, store, load_some, store_some, take, put (see vector.h, vector-math.h),
 * and for one element read, write and nearest, the element nearest to a double, rounded once.
 *
 * f16 uses F16C or AVX-512 where the file is compiled for it (nearest even whatever the mode set),
 * else integer lanes; bf16 is integer lanes everywhere.
 */
#ifndef OOM_KERNELS_HOST_ISA_HALF_VECTOR_H
#define OOM_KERNELS_HOST_ISA_HALF_VECTOR_H

#include "kernels/half.h"
#include "kernels/host/isa/vector-math.h"

/* As many halves as an oom_vf has lanes. */
OOM_VECTOR_TYPE(uint16_t, oom_vh, OOM_VECTOR_BYTES / 2, OOM_VECTOR_BYTES / 2);
OOM_VECTOR_TYPE(uint16_t, oom_vh_anywhere, OOM_VECTOR_BYTES / 2, 2);

OOM_FUNCTION oom_vu oom_select_vu(oom_vi mask, oom_vu a, oom_vu b) {
    return ((oom_vu)mask & a) | (~(oom_vu)mask & b);
}

/* ---- halves and lanes of 32 bits ---- */

OOM_FUNCTION oom_vu oom_widen_vh(oom_vh half) {
#if defined(__AVX512BW__)
    return (oom_vu)_mm512_cvtepu16_epi32((__m256i)half);
#elif defined(__AVX2__)
    return (oom_vu)_mm256_cvtepu16_epi32((__m128i)half);
#else
    return __builtin_convertvector(half, oom_vu);
#endif
}

/* Lanes are below 2^16. */
OOM_FUNCTION oom_vh oom_narrow_vu(oom_vu lanes) {
#if defined(__AVX512BW__)
    return (oom_vh)_mm512_cvtepi32_epi16((__m512i)lanes);
#elif defined(__AVX2__)
    __m256i x = (__m256i)lanes;
    return (oom_vh)_mm_packus_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
#else
    return __builtin_convertvector(lanes, oom_vh);
#endif
}

/* ---- conversions by integer lanes: half.h without branches. Comparisons are of 31 bits, which
 * every instruction set has with a sign. ---- */

/* A subnormal: with the exponent of 2^-14 it is 2^-14 too large; the difference is exact. */
OOM_FUNCTION oom_vf oom_lanes_from_f16(oom_vh half) {
    oom_vu wide = oom_widen_vh(half), number = wide & 0x7fff, sign = (wide ^ number) << 16;
    oom_vu bits = number << 13, least = (oom_vu){0} + (113u << 23);
    oom_vu subnormal = (oom_vu)((oom_vf)(bits + least) - (oom_vf)least);
    oom_vu all = oom_select_vu((oom_vi)number < 0x0400, subnormal, bits + (112u << 23));
    oom_vu nan = (oom_vu)((oom_vi)number > 0x7c00) & 0x00400000;
    all = oom_select_vu((oom_vi)number >= 0x7c00, (bits | 0x7f800000) | nan, all);
    return (oom_vf)(all | sign);
}

/* A subnormal: next to 1/2 the last bit of an f32 is worth 2^-24, a subnormal's unit, and the sum
 * is rounded to it. */
OOM_FUNCTION oom_vh oom_lanes_to_f16(oom_vf x) {
    oom_vu bits = (oom_vu)x, number = bits & 0x7fffffff, sign = (bits ^ number) >> 16;
    oom_vu odd = number >> 13 & 1;
    oom_vu half = (number - (112u << 23) + 0xfff + odd) >> 13;
    oom_vu subnormal = (oom_vu)((oom_vf)number + 0.5f) - 0x3f000000;
    half = oom_select_vu((oom_vi)number < (113 << 23), subnormal, half);
    half = oom_select_vu((oom_vi)number >= 0x477ff000, (oom_vu){0} + 0x7c00, half); /* 65520 */
    oom_vu nan = (number >> 13 & 0x3ff) | 0x7e00;
    half = oom_select_vu((oom_vi)number > 0x7f800000, nan, half);
    return oom_narrow_vu(half | sign);
}

OOM_FUNCTION oom_vf oom_vf_from_bf16(oom_vh half) {
    return (oom_vf)(oom_widen_vh(half) << 16);
}

OOM_FUNCTION oom_vh oom_bf16_from_vf(oom_vf x) {
    oom_vu bits = (oom_vu)x, upper = bits >> 16;
    oom_vi nan = (oom_vi)(bits & 0x7fffffff) > 0x7f800000;
    oom_vu nearest = (bits + 0x7fff + (upper & 1)) >> 16;
    return oom_narrow_vu(oom_select_vu(nan, upper | 0x40, nearest));
}

OOM_FUNCTION oom_vf oom_vf_from_f16(oom_vh half) {
#if defined(__AVX512F__)
    return (oom_vf)_mm512_cvtph_ps((__m256i)half);
#elif defined(__F16C__)
    return (oom_vf)_mm256_cvtph_ps((__m128i)half);
#else
    return oom_lanes_from_f16(half);
#endif
}

OOM_FUNCTION oom_vh oom_f16_from_vf(oom_vf x) {
#if defined(__AVX512F__)
    return (oom_vh)_mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__F16C__)
    return (oom_vh)_mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT);
#else
    return oom_lanes_to_f16(x);
#endif
}

/* ---- memory ---- */

/* The first n halves of p, the others 0; n may be more than the lanes or below 0. Without AVX-512
 * by way of an array: these are the ends of rows. */
OOM_FUNCTION oom_vh oom_first_halves(const uint16_t *p, int64_t n) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    return (oom_vh)_mm256_maskz_loadu_epi16((__mmask16)oom_lane_bits(n, OOM_VF_LANES), p);
#else
    uint16_t lanes[OOM_VF_LANES] = {0};
    if (n >= OOM_VF_LANES) return *(const oom_vh_anywhere *)p;
    for (int i = 0; i < n; i++) lanes[i] = p[i];
    return *(const oom_vh_anywhere *)lanes;
#endif
}

OOM_FUNCTION void oom_store_halves(uint16_t *p, int64_t n, oom_vh half) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    _mm256_mask_storeu_epi16(p, (__mmask16)oom_lane_bits(n, OOM_VF_LANES), (__m256i)half);
#else
    uint16_t lanes[OOM_VF_LANES];
    *(oom_vh_anywhere *)lanes = half;
    for (int i = 0; i < n && i < OOM_VF_LANES; i++) p[i] = lanes[i];
#endif
}

/* clang-format off */
#define OOM_HALF_FUNCTIONS(v, name) \
    OOM_FUNCTION oom_vf oom_load_##v(const uint16_t *p) { \
        return oom_vf_from_##name(*(const oom_vh_anywhere *)p); \
    } \
    OOM_FUNCTION void oom_store_##v(uint16_t *p, oom_vf x) { \
        *(oom_vh_anywhere *)p = oom_##name##_from_vf(x); \
    } \
    OOM_FUNCTION oom_vf oom_load_some_##v(const uint16_t *p, int64_t n, float fill) { \
        oom_vf some = oom_vf_from_##name(oom_first_halves(p, n)); \
        return oom_select_vf(oom_first_vf(n), some, oom_set_vf(fill)); \
    } \
    OOM_FUNCTION void oom_store_some_##v(uint16_t *p, int64_t n, oom_vf x) { \
        oom_store_halves(p, n, oom_##name##_from_vf(x)); \
    } \
    OOM_FUNCTION oom_vf oom_take_##v(const uint16_t *p, int64_t n) { \
        if (n >= OOM_VF_LANES) return oom_load_##v(p); \
        return oom_vf_from_##name(oom_first_halves(p, n)); /* a half of bits 0 is 0 */ \
    } \
    OOM_FUNCTION void oom_put_##v(uint16_t *p, int64_t n, oom_vf x) { \
        if (n >= OOM_VF_LANES) \
            oom_store_##v(p, x); \
        else \
            oom_store_some_##v(p, n, x); \
    } \
    OOM_FUNCTION float oom_read_##v(const uint16_t *p) { return oom_f32_from_##name(*p); } \
    OOM_FUNCTION void oom_write_##v(uint16_t *p, float x) { *p = oom_##name##_from_f32(x); } \
    OOM_FUNCTION uint16_t oom_nearest_##v(double x) { return oom_##name##_from_f64(x); }

OOM_HALF_FUNCTIONS(vh, f16)
OOM_HALF_FUNCTIONS(vb, bf16)

/* The same three for what is stored as it is computed. */
#define OOM_ELEMENT_FUNCTIONS(v, real) \
    OOM_FUNCTION real oom_read_##v(const real *p) { return *p; } \
    OOM_FUNCTION void oom_write_##v(real *p, real x) { *p = x; } \
    OOM_FUNCTION real oom_nearest_##v(double x) { return (real)x; }
/* clang-format on */

OOM_ELEMENT_FUNCTIONS(vf, float)
OOM_ELEMENT_FUNCTIONS(vd, double)

#endif
