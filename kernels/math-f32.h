/*
 * math-f32.h: the bodies of math.h for f32, for scalars or vectors by the M_ words. No include
 * guard: it is included once per type.
 */

OOM_FUNCTION M_UINT M(oom_math_bits)(M_REAL x) {
    M_UINT bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

OOM_FUNCTION M_REAL M(oom_math_real)(M_UINT bits) {
    M_REAL x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

OOM_FUNCTION M_REAL M(oom_abs)(M_REAL x) {
    return M(oom_math_real)(M(oom_math_bits)(x) & 0x7fffffffu);
}

/* |x| with the sign of y; x is not negative */
OOM_FUNCTION M_REAL M(oom_sign_of)(M_REAL x, M_REAL y) {
    return M(oom_math_real)(M(oom_math_bits)(x) | (M(oom_math_bits)(y) & 0x80000000u));
}

/* To the nearest whole number, ties to even. */
OOM_FUNCTION M_REAL M(oom_rint)(M_REAL x) {
    M_REAL a = M(oom_abs)(x);
    M_REAL whole = (a + 0x1p23f) - 0x1p23f;
    return M_SELECT(a < 0x1p23f, M(oom_sign_of)(whole, x), x);
}

/* x = n ln 2 + r; exp r = 1 + r + r^2 P(r); 2^n in two factors, so that one rounding at most is of
 * a subnormal. Adding 1.5 * 2^23 rounds to n and leaves n in the low bits. */
OOM_FUNCTION M_REAL M(oom_exp)(M_REAL x) {
    x = M_SELECT(x > 89.0f, M_SET(89.0f), x);
    x = M_SELECT(x < -104.0f, M_SET(-104.0f), x);
    M_REAL shifted = x * 0x1.715476p+0f + 0x1.8p23f;
    M_REAL n = shifted - 0x1.8p23f;
    M_REAL r = (x - n * 0x1.63p-1f) - n * -0x1.bd0106p-13f; /* n * high is exact */
    M_REAL p = r * 0x1.6a5f66p-10f + 0x1.123ab6p-7f;
    p = p * r + 0x1.5558a0p-5f;
    p = p * r + 0x1.555490p-3f;
    p = p * r + 0x1.fffffcp-2f;
    p = ((r * r) * p + r) + 1.0f;
    M_UINT bits = M(oom_math_bits)(shifted) - 0x4b400000u;
    M_UINT half = (M_UINT)((M_INT)bits >> 1);
    M_REAL first = M(oom_math_real)((half + 127u) << 23);
    M_REAL second = M(oom_math_real)((bits - half + 127u) << 23);
    return (p * first) * second;
}

/* x = 2^k (1 + f), 1 + f in [sqrt(1/2), sqrt(2)); log(1 + f) = f - f^2/2 + f^3 P(f). */
OOM_FUNCTION M_REAL M(oom_log)(M_REAL x) {
    M_REAL normal = M_SELECT(x < 0x1p-126f, x * 0x1p23f, x);
    M_REAL k = M_SELECT(x < 0x1p-126f, M_SET(-23.0f), M_SET(0.0f));
    M_UINT bits = M(oom_math_bits)(normal) - 0x3f3504f3u; /* sqrt(1/2) */
    M_UINT exponent = (M_UINT)((M_INT)bits >> 23) + 0x4b400000u;
    k = k + (M(oom_math_real)(exponent) - 0x1.8p23f);
    M_REAL f = M(oom_math_real)((bits & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
    M_REAL p = f * 0x1.137f76p-4f + -0x1.dd7544p-4f;
    p = p * f + 0x1.e6e164p-4f;
    p = p * f + -0x1.fc427ap-4f;
    p = p * f + 0x1.233af8p-3f;
    p = p * f + -0x1.555b7cp-3f;
    p = p * f + 0x1.99a478p-3f;
    p = p * f + -0x1.000008p-2f;
    p = p * f + 0x1.555548p-2f;
    M_REAL z = f * f;
    M_REAL y = (f * z) * p + k * -0x1.bd0106p-13f;
    y = (f + (y - 0.5f * z)) + k * 0x1.63p-1f;
    y = M_SELECT(x < __builtin_inff(), y, x); /* infinity, NaN */
    y = M_SELECT(x == 0.0f, M_SET(-__builtin_inff()), y);
    return M_SELECT(x < 0.0f, M_SET(__builtin_nanf("")), y);
}

/* a + a^3 P(a^2) up to 0.625, then 1 - 2 / (exp(2a) + 1). */
OOM_FUNCTION M_REAL M(oom_tanh)(M_REAL x) {
    M_REAL a = M(oom_abs)(x);
    M_REAL z = a * a;
    M_REAL p = z * -0x1.756dc0p-8f + 0x1.520a52p-6f;
    p = p * z + -0x1.b83794p-5f;
    p = p * z + 0x1.1106fep-3f;
    p = p * z + -0x1.555532p-2f;
    M_REAL low = a + (a * z) * p;
    M_REAL high = 1.0f - 2.0f / (M(oom_exp)(a + a) + 1.0f);
    return M(oom_sign_of)(M_SELECT(a < 0.625f, low, high), x);
}

/* a + a P(a^2) up to 0.9277, then 1 - exp(Q(a)), Q = log(erfc). */
OOM_FUNCTION M_REAL M(oom_erf)(M_REAL x) {
    M_REAL a = M(oom_abs)(x);
    M_REAL z = a * a;
    M_REAL p = z * 0x1.5c4710p-14f + -0x1.aa033ep-11f;
    p = p * z + 0x1.54be64p-8f;
    p = p * z + -0x1.b80d1ep-6f;
    p = p * z + 0x1.ce2deep-4f;
    p = p * z + -0x1.812742p-2f;
    p = p * z + 0x1.06eba8p-3f;
    M_REAL low = a + a * p;
    a = M_SELECT(a > 4.0f, M_SET(4.0f), a); /* erfc(4) < 2^-25 */
    M_REAL q = a * -0x1.639860p-16f + 0x1.c8ca16p-12f;
    q = q * a + -0x1.11ba46p-8f;
    q = q * a + 0x1.9bcdc2p-6f;
    q = q * a + -0x1.bb9c7cp-4f;
    q = q * a + -0x1.44433ep-1f;
    q = q * a + -0x1.212896p+0f;
    q = q * a + 0x1.72f9aep-13f;
    M_REAL high = 1.0f - M(oom_exp)(q);
    return M(oom_sign_of)(M_SELECT(a < 0.9277f, low, high), x);
}

/* x = 2 whole + u; u = q / 2 + r, |r| <= 1/4, all exact; pi is added in two parts. */
OOM_FUNCTION void M(oom_sincospi)(M_REAL x, M_REAL *sine, M_REAL *cosine) {
    M_REAL u = x - 2.0f * M(oom_rint)(0.5f * x);
    M_REAL shifted = 2.0f * u + 0x1.8p23f;
    M_REAL r = u - 0.5f * (shifted - 0x1.8p23f);
    M_REAL z = r * r;
    M_REAL s = z * 0x1.44d00ap-4f + -0x1.32af4cp-1f;
    s = s * z + 0x1.466b7ap+1f;
    s = s * z + -0x1.4abbcep+2f;
    M_REAL high =
        M(oom_math_real)(M(oom_math_bits)(r) & 0xfffff000u); /* high * 0x1.92p+1f: exact */
    s = high * 0x1.92p+1f + (((r - high) * 0x1.92p+1f + r * 0x1.fb5444p-11f) + (r * z) * s);
    M_REAL c = z * 0x1.d4e422p-3f + -0x1.55b29ap+0f;
    c = c * z + 0x1.03c1b0p+2f;
    c = c * z + -0x1.3bd3ccp+2f;
    c = 1.0f + z * c;
    M_UINT quarter = M(oom_math_bits)(shifted); /* mod 4: s c, c -s, -s -c, -c s */
    M_REAL first = M_SELECT((quarter & 1u) != 0u, c, s);
    M_REAL second = M_SELECT((quarter & 1u) != 0u, s, c);
    *sine = M_SELECT((quarter & 2u) != 0u, 0.0f - first, first);
    *cosine = M_SELECT(((quarter + 1u) & 2u) != 0u, 0.0f - second, second);
}
