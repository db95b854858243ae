/*
 * fma.h: a * b + c rounded once, lane by lane, with the same bits on every machine.
 *
 *   hardware fma   written per lane; both compilers make one packed instruction of it. Contraction
 *                  is never relied on (it depends on compiler, level and -std).
 *   SSE2 only      exact emulation, below; about 1/35 of the hardware's speed in a GEMM.
 *   neither        libm's fma, which is exact and slow.
 *
 * Emulation rests on rounding to odd (Boldo, Melquiond 2008, "Emulation of FMA and correctly
 * rounded sums"): a sum whose error is known is moved to the neighbour with an odd last bit, so
 * that rounding it a second time, to fewer bits, gives what one rounding would have given.
 */
#ifndef OOM_KERNELS_HOST_ISA_FMA_H
#define OOM_KERNELS_HOST_ISA_FMA_H

#include "kernels/host/isa/vector.h"

#include <math.h>

#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define OOM_FMA_HARDWARE 1
#elif defined(__SSE2__) && !defined(OOM_FMA_LIBM)
#define OOM_FMA_EMULATED 1
#include <emmintrin.h>
#endif

#ifdef OOM_FMA_EMULATED

/* x + y rounded to odd; x and y finite, no overflow. Knuth's TwoSum gives the error exactly. */
static inline double oom_add_odd(double x, double y) {
    double sum = x + y;
    double part = sum - x;
    double error = (x - (sum - part)) + (y - part);
    uint64_t bits;
    memcpy(&bits, &sum, sizeof(bits));
    if (error != 0 && (bits & 1) == 0) bits += (error > 0) == (sum > 0) ? 1 : UINT64_MAX;
    memcpy(&sum, &bits, sizeof(bits));
    return sum;
}

/* The product of two floats is exact in double, so only the sum needs care. */
static inline float oom_fma_careful_f32(float a, float b, float c) {
    double product = (double)a * (double)b;
    double sum = product + (double)c;
    if (!(sum - sum == 0)) return (float)sum; /* infinite or NaN */
    return (float)oom_add_odd(product, (double)c);
}

/* Rounding a double sum to float can differ from one rounding only where the sum lies exactly
 * between two floats: the 29 dropped bits are 100...0, or, for subnormal results, fewer bits are
 * kept and any sum is suspect. */
static inline oom_vf oom_fma_vf(oom_vf a, oom_vf b, oom_vf c) {
    __m128 xa = (__m128)a, xb = (__m128)b, xc = (__m128)c;
    __m128d low = _mm_add_pd(_mm_mul_pd(_mm_cvtps_pd(xa), _mm_cvtps_pd(xb)), _mm_cvtps_pd(xc));
    __m128d high = _mm_add_pd(
        _mm_mul_pd(_mm_cvtps_pd(_mm_movehl_ps(xa, xa)), _mm_cvtps_pd(_mm_movehl_ps(xb, xb))),
        _mm_cvtps_pd(_mm_movehl_ps(xc, xc)));
    __m128 first = _mm_castpd_ps(low), second = _mm_castpd_ps(high);
    __m128i lower = _mm_castps_si128(_mm_shuffle_ps(first, second, _MM_SHUFFLE(2, 0, 2, 0)));
    __m128i upper = _mm_castps_si128(_mm_shuffle_ps(first, second, _MM_SHUFFLE(3, 1, 3, 1)));
    upper = _mm_and_si128(upper, _mm_set1_epi32(0x7fffffff));
    __m128i tie = _mm_cmpeq_epi32(_mm_and_si128(lower, _mm_set1_epi32(0x1fffffff)),
                                  _mm_set1_epi32(0x10000000));
    __m128i tiny = _mm_cmplt_epi32(upper, _mm_set1_epi32(0x38100000)); /* below 2^-126 */
    __m128i zero = _mm_cmpeq_epi32(_mm_or_si128(upper, lower), _mm_setzero_si128());
    __m128i alarm = _mm_or_si128(tie, _mm_andnot_si128(zero, tiny));
    if (__builtin_expect(_mm_movemask_epi8(alarm) == 0, 1))
        return (oom_vf)_mm_movelh_ps(_mm_cvtpd_ps(low), _mm_cvtpd_ps(high));
    oom_vf r;
    for (int i = 0; i < OOM_VF_LANES; i++) r[i] = oom_fma_careful_f32(a[i], b[i], c[i]);
    return r;
}

/* The high 26 bits of x (Veltkamp); x below 2^996. */
static inline oom_vd oom_split_vd(oom_vd x) {
    oom_vd t = x * 134217729.0; /* 2^27 + 1 */
    return t - (t - x);
}

/* Correct where the product is a zero of a zero factor, or 2^-700 to 2^900, and no operand above
 * 2^900: then nothing over- or underflows on the way. */
static inline oom_vd oom_fma_in_range_vd(oom_vd a, oom_vd b, oom_vd c) {
    oom_vd product = a * b;
    oom_vd a1 = oom_split_vd(a), b1 = oom_split_vd(b);
    oom_vd a2 = a - a1, b2 = b - b1;
    oom_vd rest = ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2; /* Dekker: exact */
    /* c + product + rest as an unevaluated sum of three; TwoSum each time */
    oom_vd t = c + rest, t_part = t - c;
    oom_vd t_error = (c - (t - t_part)) + (rest - t_part);
    oom_vd s = product + t, s_part = s - product;
    oom_vd s_error = (product - (s - s_part)) + (t - s_part);
    /* the two errors added, rounded to odd */
    oom_vd z = t_error + s_error, z_part = z - t_error;
    oom_vd z_error = (t_error - (z - z_part)) + (s_error - z_part);
    oom_vl bits = (oom_vl)z;
    oom_vl odd = (oom_vl){0} - (bits & 1);
    oom_vl same = (oom_vl)(((z_error > 0) & (z > 0)) | ((z_error < 0) & (z < 0)));
    oom_vl move = (same & 2) - 1;
    bits += (oom_vl)(z_error != 0) & ~odd & move;
    oom_vl no_product = (oom_vl)((a == 0) | (b == 0)); /* keeps the sign of a zero */
    return oom_select_vd(no_product, product + c, s + (oom_vd)bits);
}

static inline oom_vd oom_fma_vd(oom_vd a, oom_vd b, oom_vd c) {
    const __m128d sign = _mm_set1_pd(-0.0), large = _mm_set1_pd(0x1p900);
    __m128d xa = _mm_andnot_pd(sign, (__m128d)a), xb = _mm_andnot_pd(sign, (__m128d)b);
    __m128d xc = _mm_andnot_pd(sign, (__m128d)c);
    __m128d product = _mm_mul_pd(xa, xb);
    __m128d none =
        _mm_or_pd(_mm_cmpeq_pd(xa, _mm_setzero_pd()), _mm_cmpeq_pd(xb, _mm_setzero_pd()));
    __m128d fine = _mm_or_pd(none, _mm_cmpge_pd(product, _mm_set1_pd(0x1p-700)));
    /* a NaN fails every comparison */
    __m128d small = _mm_and_pd(_mm_and_pd(_mm_cmple_pd(xa, large), _mm_cmple_pd(xb, large)),
                               _mm_and_pd(_mm_cmple_pd(product, large), _mm_cmple_pd(xc, large)));
    if (__builtin_expect(_mm_movemask_pd(_mm_and_pd(fine, small)) == 3, 1))
        return oom_fma_in_range_vd(a, b, c);
    oom_vd r;
    for (int i = 0; i < OOM_VD_LANES; i++) r[i] = fma(a[i], b[i], c[i]);
    return r;
}

#else /* hardware, or libm where there is neither */

static inline oom_vf oom_fma_vf(oom_vf a, oom_vf b, oom_vf c) {
    oom_vf r;
    OOM_UNROLL
    for (int i = 0; i < OOM_VF_LANES; i++) r[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return r;
}

static inline oom_vd oom_fma_vd(oom_vd a, oom_vd b, oom_vd c) {
    oom_vd r;
    OOM_UNROLL
    for (int i = 0; i < OOM_VD_LANES; i++) r[i] = __builtin_fma(a[i], b[i], c[i]);
    return r;
}

#endif

#endif
