/*
 * math.h: exp, log, tanh, erf, sine and cosine of pi x, and pow, of our own: the same bits on every
 * machine, compiler, instruction set and libm version.
 *
 * Only + - * /, comparisons and bit operations; no fma, no table, no libm, no branch on data (pow
 * apart). Compile with -ffp-contract=off (CUDA: -fmad=false). The bodies are in math-f32.h and
 * math-f64.h, written once for scalars and vectors: a file that defines the M_ words (see below
 * or kernels/host/isa/vector-math.h) and includes a body gets its functions.
 * Reductions are Cody and Waite's (1980); the polynomials are weighted minimax fits of our own.
 *
 *   oom_exp_f32(x) ...   the suffix names the type: f32, f64, and on the host vf, vd (vectors)
 *   oom_sincospi_f32(x, &sine, &cosine)   sin(pi x), cos(pi x); reduced exactly; sin(-0) is +0
 *   oom_pow_f32(x, y), oom_pow_f64(x, y)  scalar only; special cases as in C (Annex F)
 *
 * Largest error seen, in ulp of the exact result; f32 over all 2^32 inputs (pow: sampled), f64
 * 6 million samples against the x87 long double:
 *
 *            exp     log     tanh    erf     sinpi   cospi   pow
 *     f32    0.991   0.822   1.333   1.198   1.130   1.130   0.501
 *     f64    0.936   0.835   1.260   1.144   1.119   1.123   0.945
 *
 * Overflow gives infinity, log(0) -infinity, log of a negative number NaN; NaN stays NaN (its sign
 * and payload are not defined). Subnormal arguments and results are right to the same error.
 */
#ifndef OOM_KERNELS_MATH_H
#define OOM_KERNELS_MATH_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* How a function of a shared body is declared. */
#if defined(__CUDACC__)
#define OOM_FUNCTION static __host__ __device__ __forceinline__
#else
#define OOM_FUNCTION static inline __attribute__((always_inline, unused))
#endif

OOM_FUNCTION uint32_t oom_bits_f32(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

OOM_FUNCTION float oom_from_bits_f32(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

OOM_FUNCTION uint64_t oom_bits_f64(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

OOM_FUNCTION double oom_from_bits_f64(uint64_t bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

OOM_FUNCTION float oom_sqrt_f32(float x) {
    return __builtin_sqrtf(x);
}

OOM_FUNCTION double oom_sqrt_f64(double x) {
    return __builtin_sqrt(x);
}

/* The words of a body: real, signed and unsigned type of one width; M(name) gives a function's
 * name; M_SELECT(condition, a, b) and M_SET(constant). Here for scalars. */
#define M_SELECT(condition, a, b) ((condition) ? (a) : (b))
#define M_SET(constant) (constant)

#define M(name) name##_f32
#define M_REAL float
#define M_INT int32_t
#define M_UINT uint32_t
#include "kernels/math-f32.h"
#undef M
#undef M_REAL
#undef M_INT
#undef M_UINT

#define M(name) name##_f64
#define M_REAL double
#define M_INT int64_t
#define M_UINT uint64_t
#include "kernels/math-f64.h"
#undef M
#undef M_REAL
#undef M_INT
#undef M_UINT

#undef M_SELECT
#undef M_SET

/* ---- pow: exp(y log x) with the logarithm in two doubles ---- */

struct oom_twice {
    double high, low;
};

/* a + b = high + low exactly, for |a| >= |b| or a = 0 (Dekker 1971). */
OOM_FUNCTION struct oom_twice oom_twice_sum(double a, double b) {
    struct oom_twice sum;
    sum.high = a + b;
    sum.low = b - (sum.high - a);
    return sum;
}

/* a * b = high + low exactly (Veltkamp, Dekker 1971), where nothing over- or underflows. */
OOM_FUNCTION struct oom_twice oom_twice_product(double a, double b) {
    const double splitter = 134217729.0; /* 2^27 + 1 */
    double a_high = a * splitter, b_high = b * splitter;
    a_high = a_high - (a_high - a);
    b_high = b_high - (b_high - b);
    double a_low = a - a_high, b_low = b - b_high;
    struct oom_twice product;
    product.high = a * b;
    product.low =
        ((a_high * b_high - product.high) + a_high * b_low + a_low * b_high) + a_low * b_low;
    return product;
}

/* (a.high + a.low) * (b.high + b.low), to about 2^-102. */
OOM_FUNCTION struct oom_twice oom_twice_times(struct oom_twice a, struct oom_twice b) {
    struct oom_twice product = oom_twice_product(a.high, b.high);
    product.low += a.high * b.low + a.low * b.high;
    return oom_twice_sum(product.high, product.low);
}

/* constant + x for |constant| >= |x| */
OOM_FUNCTION struct oom_twice oom_twice_plus(double high, double low, struct oom_twice x) {
    struct oom_twice sum = oom_twice_sum(high, x.high);
    sum.low += low + x.low;
    return oom_twice_sum(sum.high, sum.low);
}

/* log x, x positive and finite, to about 2^-68: x = 2^k m, s = (m - 1) / (m + 1), log m =
 * 2 s (1 + s^2 (1/3 + s^2 (1/5 + ...))); the first terms in two doubles. */
OOM_FUNCTION struct oom_twice oom_log_twice(double x) {
    double k = 0;
    if (x < 0x1p-1022) {
        x *= 0x1p54;
        k = -54;
    }
    const uint64_t root = 0x3fe6a09e667f3bcd; /* sqrt(1/2) */
    uint64_t bits = oom_bits_f64(x) - root;
    k += (double)((int64_t)bits >> 52);
    double f = oom_from_bits_f64((bits & 0x000fffffffffffff) + root) - 1.0;
    struct oom_twice below = oom_twice_sum(2.0, f);
    struct oom_twice s;
    s.high = f / below.high;
    struct oom_twice back = oom_twice_product(s.high, below.high);
    s.low = (((f - back.high) - back.low) - s.high * below.low) / below.high;
    struct oom_twice z = oom_twice_times(s, s);
    double tail = 2.0 / 27;
    for (int i = 25; i >= 7; i -= 2) tail = tail * z.high + 2.0 / i;
    struct oom_twice p = {z.high * tail, 0};
    p = oom_twice_plus(0x1.999999999999ap-2, -0x1.999999999999ap-56, p); /* 2/5 */
    p = oom_twice_times(z, p);
    p = oom_twice_plus(0x1.5555555555555p-1, 0x1.5555555555555p-55, p); /* 2/3 */
    p = oom_twice_times(s, oom_twice_times(z, p));
    struct oom_twice s2 = {2 * s.high, 2 * s.low};
    p = oom_twice_plus(s2.high, s2.low, p);
    /* k * high is exact: 32 bits and 11 */
    return oom_twice_plus(k * 0x1.62e42ffp-1, k * -0x1.718432a1b0e26p-35, p);
}

OOM_FUNCTION double oom_pow_positive(double x, double y) {
    struct oom_twice l = oom_log_twice(x);
    double about = y * l.high;
    if (!(about > -1100.0 && about < 1100.0)) return about > 0 ? (double)__builtin_inf() : 0.0;
    struct oom_twice p = oom_twice_product(y, l.high);
    p.low += y * l.low;
    return oom_exp_plus_f64(p.high, p.low);
}

/* y is a whole number, an odd one */
OOM_FUNCTION bool oom_is_whole(double y) {
    return oom_rint_f64(y) == y;
}

OOM_FUNCTION bool oom_is_odd(double y) {
    return oom_is_whole(y) && oom_rint_f64(0.5 * y) != 0.5 * y;
}

OOM_FUNCTION double oom_pow_size(double size, double y) {
    const double infinity = (double)__builtin_inf();
    if (size == 1) return 1;
    if (size == 0 || size == infinity) return (size == 0) == (y < 0) ? infinity : 0;
    if (y - y != 0) return (size > 1) == (y > 0) ? infinity : 0;
    return oom_pow_positive(size, y);
}

OOM_FUNCTION double oom_pow_f64(double x, double y) {
    const double infinity = (double)__builtin_inf();
    if (y == 0 || x == 1) return 1;
    if (x != x || y != y) return x + y;
    if (x < 0 && x > -infinity && !oom_is_whole(y)) return (double)__builtin_nan("");
    double size = oom_abs_f64(x), result = oom_pow_size(size, y);
    return oom_bits_f64(x) >> 63 && oom_is_odd(y) ? -result : result;
}

/* Through f64, rounded once. */
OOM_FUNCTION float oom_pow_f32(float x, float y) {
    return (float)oom_pow_f64((double)x, (double)y);
}

#endif
