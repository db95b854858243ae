/*
 * half.h: conversions between f32, f64 and the halves f16 (IEEE binary16: 5 bits of exponent, 10
 * of fraction) and bf16 (the upper half of an f32), which are stored as uint16_t. Integers only,
 * one source for host and CUDA, so the bits are the same everywhere; the host's vectors
 * (kernels/host/isa/half-vector.h) and the CPU's instructions give them too.
 *
 * To a half: rounded once to nearest, ties to even, subnormals included; from half a unit beyond
 * the largest finite value on (f16: 65520) it is infinity. From a half: exact.
 * NaN stays NaN of its sign, with the upper bits of its payload. It is made quiet wherever F16C
 * does so (VCVTPS2PH, VCVTPH2PS; Intel SDM vol. 2); bf16 to f32 is a shift that changes nothing.
 * No function can fail.
 */
#ifndef OOM_KERNELS_HALF_H
#define OOM_KERNELS_HALF_H

#include "kernels/dtype.h"
#include "kernels/math.h"

enum {
    OOM_F16_FRACTION = 10,
    OOM_F16_BIAS = 15,
    OOM_BF16_FRACTION = 7,
    OOM_BF16_BIAS = 127,
};

/* The half nearest to a number without sign in a wider format. A format is its bits of fraction and
 * its bias; its infinity has 2 * bias + 1 as exponent. All formats are constants of the caller's.
 *
 * number = significand * 2^(exponent - bias - fraction), with 1 for the exponent of a subnormal. In
 * the half's format the exponent is `to`; where that is below 1 the half is subnormal, and its last
 * bit lies that much higher in the significand. A carry out of the fraction goes into the exponent,
 * as it should, and out of the last exponent into infinity. */
OOM_FUNCTION uint16_t oom_half_nearest(uint64_t bits, int fraction, int bias, int half_fraction,
                                       int half_bias) {
    const uint64_t one = (uint64_t)1 << fraction;
    const uint64_t half_infinity = (uint64_t)(2 * half_bias + 1) << half_fraction;
    int drop = fraction - half_fraction, exponent = (int)(bits >> fraction);
    uint64_t significand = bits & (one - 1);
    if (exponent == 2 * bias + 1) {
        uint64_t quiet = (uint64_t)1 << (half_fraction - 1) | significand >> drop;
        return (uint16_t)(half_infinity | (significand != 0 ? quiet : 0));
    }
    if (exponent > 0)
        significand |= one;
    else
        exponent = 1;
    int to = exponent - bias + half_bias;
    if (to < 1) {
        drop += 1 - to;
        to = 1;
    }
    if (drop > fraction + 2) return 0; /* below a quarter of the least half */
    uint64_t all = ((uint64_t)(to - 1) << fraction) + significand, half = all >> drop;
    uint64_t rest = all & (((uint64_t)1 << drop) - 1), middle = (uint64_t)1 << (drop - 1);
    half += rest > middle || (rest == middle && (half & 1) != 0) ? 1 : 0;
    return (uint16_t)(half < half_infinity ? half : half_infinity);
}

OOM_FUNCTION uint16_t oom_half_from_bits_f32(uint32_t bits, int half_fraction, int half_bias) {
    uint16_t half = oom_half_nearest(bits & 0x7fffffff, 23, 127, half_fraction, half_bias);
    return (uint16_t)(half | (bits >> 16 & 0x8000));
}

OOM_FUNCTION uint16_t oom_half_from_bits_f64(uint64_t bits, int half_fraction, int half_bias) {
    uint64_t number = bits & 0x7fffffffffffffff;
    uint16_t half = oom_half_nearest(number, 52, 1023, half_fraction, half_bias);
    return (uint16_t)(half | (bits >> 48 & 0x8000));
}

OOM_FUNCTION uint16_t oom_f16_from_f32(float x) {
    return oom_half_from_bits_f32(oom_bits_f32(x), OOM_F16_FRACTION, OOM_F16_BIAS);
}

OOM_FUNCTION uint16_t oom_bf16_from_f32(float x) {
    return oom_half_from_bits_f32(oom_bits_f32(x), OOM_BF16_FRACTION, OOM_BF16_BIAS);
}

/* Once, not by way of f32: two roundings can end beside the nearest. */
OOM_FUNCTION uint16_t oom_f16_from_f64(double x) {
    return oom_half_from_bits_f64(oom_bits_f64(x), OOM_F16_FRACTION, OOM_F16_BIAS);
}

OOM_FUNCTION uint16_t oom_bf16_from_f64(double x) {
    return oom_half_from_bits_f64(oom_bits_f64(x), OOM_BF16_FRACTION, OOM_BF16_BIAS);
}

/* A subnormal is its fraction times 2^-24: a whole number, exact in f32, times a power of two. */
OOM_FUNCTION float oom_f32_from_f16(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, number = half & 0x7fff, bits = number << 13;
    if (number > 0x7c00)
        bits |= 0x7fc00000;
    else if (number == 0x7c00)
        bits = 0x7f800000;
    else if (number >= 0x0400)
        bits += (uint32_t)(127 - OOM_F16_BIAS) << 23;
    else
        bits = oom_bits_f32((float)number * 0x1p-24f);
    return oom_from_bits_f32(sign | bits);
}

OOM_FUNCTION float oom_f32_from_bf16(uint16_t half) {
    return oom_from_bits_f32((uint32_t)half << 16);
}

/* The same for a half whose type is a value; dtype is OOM_F16 or OOM_BF16. */
OOM_FUNCTION uint16_t oom_half_from_f32(enum oom_dtype dtype, float x) {
    return dtype == OOM_F16 ? oom_f16_from_f32(x) : oom_bf16_from_f32(x);
}

OOM_FUNCTION uint16_t oom_half_from_f64(enum oom_dtype dtype, double x) {
    return dtype == OOM_F16 ? oom_f16_from_f64(x) : oom_bf16_from_f64(x);
}

OOM_FUNCTION float oom_f32_from_half(enum oom_dtype dtype, uint16_t half) {
    return dtype == OOM_F16 ? oom_f32_from_f16(half) : oom_f32_from_bf16(half);
}

#endif
