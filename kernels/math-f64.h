/*
 * math-f64.h: the bodies of math.h for f64; see math-f32.h. No include guard.
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
    return M(oom_math_real)(M(oom_math_bits)(x) & 0x7fffffffffffffffu);
}

/* |x| with the sign of y; x is not negative */
OOM_FUNCTION M_REAL M(oom_sign_of)(M_REAL x, M_REAL y) {
    return M(oom_math_real)(M(oom_math_bits)(x) | (M(oom_math_bits)(y) & 0x8000000000000000u));
}

/* To the nearest whole number, ties to even. */
OOM_FUNCTION M_REAL M(oom_rint)(M_REAL x) {
    M_REAL a = M(oom_abs)(x);
    M_REAL whole = (a + 0x1p52) - 0x1p52;
    return M_SELECT(a < 0x1p52, M(oom_sign_of)(whole, x), x);
}

/* exp(x + low), low small against 1: x = n ln 2 + r, exp r = 1 + r + r^2 P(r). */
OOM_FUNCTION M_REAL M(oom_exp_plus)(M_REAL x, M_REAL low) {
    x = M_SELECT(x > 710.0, M_SET(710.0), x);
    x = M_SELECT(x < -746.0, M_SET(-746.0), x);
    M_REAL shifted = x * 0x1.71547652b82fep+0 + 0x1.8p52;
    M_REAL n = shifted - 0x1.8p52;
    M_REAL r = (x - n * 0x1.62e42ffp-1) - (n * -0x1.718432a1b0e26p-35 - low);
    M_REAL p = r * 0x1.1ea48f220a867p-29 + 0x1.af6a9a453b2d2p-26;
    p = p * r + 0x1.27e563c7c4717p-22;
    p = p * r + 0x1.71ddf100b1620p-19;
    p = p * r + 0x1.a01a01666639ap-16;
    p = p * r + 0x1.a01a01b312fffp-13;
    p = p * r + 0x1.6c16c16c22e8bp-10;
    p = p * r + 0x1.111111110edb4p-7;
    p = p * r + 0x1.555555555553ap-5;
    p = p * r + 0x1.555555555555bp-3;
    p = p * r + 0.5;
    p = ((r * r) * p + r) + 1.0;
    M_UINT bits = M(oom_math_bits)(shifted) - 0x4338000000000000u;
    M_UINT half = (M_UINT)((M_INT)bits >> 1);
    M_REAL first = M(oom_math_real)((half + 1023u) << 52);
    M_REAL second = M(oom_math_real)((bits - half + 1023u) << 52);
    return (p * first) * second;
}

OOM_FUNCTION M_REAL M(oom_exp)(M_REAL x) {
    return M(oom_exp_plus)(x, M_SET(0.0));
}

/* x = 2^k (1 + f); s = f / (2 + f); log(1 + f) = f - (f^2/2 - s (f^2/2 + s^2 P(s^2))). */
OOM_FUNCTION M_REAL M(oom_log)(M_REAL x) {
    M_REAL normal = M_SELECT(x < 0x1p-1022, x * 0x1p54, x);
    M_REAL k = M_SELECT(x < 0x1p-1022, M_SET(-54.0), M_SET(0.0));
    M_UINT bits = M(oom_math_bits)(normal) - 0x3fe6a09e667f3bcdu; /* sqrt(1/2) */
    M_UINT exponent = (M_UINT)((M_INT)bits >> 52) + 0x4338000000000000u;
    k = k + (M(oom_math_real)(exponent) - 0x1.8p52);
    M_REAL f = M(oom_math_real)((bits & 0x000fffffffffffffu) + 0x3fe6a09e667f3bcdu) - 1.0;
    M_REAL s = f / (2.0 + f);
    M_REAL z = s * s;
    M_REAL p = z * 0x1.0f0c6f7f9501dp-3 + 0x1.0f676bcacc2d8p-3;
    p = p * z + 0x1.3b2022b8f0ba9p-3;
    p = p * z + 0x1.745ce1d34d564p-3;
    p = p * z + 0x1.c71c724b45912p-3;
    p = p * z + 0x1.249249243999fp-2;
    p = p * z + 0x1.9999999999d10p-2;
    p = p * z + 0x1.5555555555555p-1;
    M_REAL h = (0.5 * f) * f;
    M_REAL y = (s * (h + z * p) + k * -0x1.718432a1b0e26p-35) - h;
    y = k * 0x1.62e42ffp-1 + (f + y);
    y = M_SELECT(x < __builtin_inf(), y, x); /* infinity, NaN */
    y = M_SELECT(x == 0.0, M_SET(-__builtin_inf()), y);
    return M_SELECT(x < 0.0, M_SET(__builtin_nan("")), y);
}

/* a + a^3 P(a^2) up to 0.625, then 1 - 2 / (exp(2a) + 1). */
OOM_FUNCTION M_REAL M(oom_tanh)(M_REAL x) {
    M_REAL a = M(oom_abs)(x);
    M_REAL z = a * a;
    M_REAL p = z * -0x1.2638066694c88p-19 + 0x1.84d9612c21266p-17;
    p = p * z + -0x1.314268af7d048p-15;
    p = p * z + 0x1.90f314df2d192p-14;
    p = p * z + -0x1.f498c3744628fp-13;
    p = p * z + 0x1.354b00d46659ap-11;
    p = p * z + -0x1.7da25114cccf4p-10;
    p = p * z + 0x1.d6d3c11028e12p-9;
    p = p * z + -0x1.226e350f0f268p-7;
    p = p * z + 0x1.664f4880bc852p-6;
    p = p * z + -0x1.ba1ba1ba13d0dp-5;
    p = p * z + 0x1.1111111111096p-3;
    p = p * z + -0x1.5555555555555p-2;
    M_REAL low = a + (a * z) * p;
    M_REAL high = 1.0 - 2.0 / (M(oom_exp)(a + a) + 1.0);
    return M(oom_sign_of)(M_SELECT(a < 0.625, low, high), x);
}

/* a + a P(a^2) up to 0.9277, then 1 - exp(-a^2 + Q((a - 2) / (a + 2))), Q = log(erfc) + a^2. */
OOM_FUNCTION M_REAL M(oom_erf)(M_REAL x) {
    M_REAL a = M(oom_abs)(x);
    M_REAL z = a * a;
    M_REAL p = z * 0x1.92c34d810496fp-32 + -0x1.7a745975b11e7p-29;
    p = p * z + 0x1.3c01b7c8b2848p-26;
    p = p * z + -0x1.69ca3917d70d3p-23;
    p = p * z + 0x1.bb0012eb894f3p-20;
    p = p * z + -0x1.f4e625d0d4930p-17;
    p = p * z + 0x1.f9a4158609d85p-14;
    p = p * z + -0x1.c02dbb6f05cdbp-11;
    p = p * z + 0x1.565bcd344574bp-8;
    p = p * z + -0x1.b82ce3136eb6dp-6;
    p = p * z + 0x1.ce2f21a0459e1p-4;
    p = p * z + -0x1.812746b037a23p-2;
    p = p * z + 0x1.06eba8214db69p-3;
    M_REAL low = a + a * p;
    a = M_SELECT(a > 6.0, M_SET(6.0), a); /* erfc(6) < 2^-54 */
    M_REAL t = (a - 2.0) / (a + 2.0);
    M_REAL q = t * -0x1.58b9ec9d77f5dp-6 + -0x1.c6ae77af73e9bp-5;
    q = q * t + -0x1.350e2d510a719p-4;
    q = q * t + -0x1.492b514cbdfedp-4;
    q = q * t + -0x1.5739d664f4bfap-4;
    q = q * t + -0x1.72eea44b1ac6fp-4;
    q = q * t + -0x1.99b47c79c12b0p-4;
    q = q * t + -0x1.c9dcd12a637e5p-4;
    q = q * t + -0x1.004dd92463b67p-3;
    q = q * t + -0x1.1fc48dc5d4e16p-3;
    q = q * t + -0x1.51bb22aed524cp-3;
    q = q * t + -0x1.abac6819ed651p-3;
    q = q * t + -0x1.0a1c10f5fcf1fp-2;
    q = q * t + -0x1.254fee34b5750p-2;
    q = q * t + -0x1.cf853c75bcd6bp-2;
    q = q * t + -0x1.ac3258a8dc25ap+0;
    q = q * t + -0x1.5d6cca6c7d453p+0;
    M_REAL high = 1.0 - M(oom_exp)(q - a * a);
    return M(oom_sign_of)(M_SELECT(a < 0.9277, low, high), x);
}

/* x = 2 whole + u; u = q / 2 + r, |r| <= 1/4, all exact; pi is added in two parts. */
OOM_FUNCTION void M(oom_sincospi)(M_REAL x, M_REAL *sine, M_REAL *cosine) {
    M_REAL u = x - 2.0 * M(oom_rint)(0.5 * x);
    M_REAL shifted = 2.0 * u + 0x1.8p52;
    M_REAL r = u - 0.5 * (shifted - 0x1.8p52);
    M_REAL z = r * r;
    M_REAL s = z * -0x1.732e68d30847fp-16 + 0x1.e906c31b70d11p-12;
    s = s * z + -0x1.e3076c44857fcp-8;
    s = s * z + 0x1.5078349c33558p-4;
    s = s * z + -0x1.32d2cce63a3fap-1;
    s = s * z + 0x1.466bc6775ab78p+1;
    s = s * z + -0x1.4abbce625be53p+2;
    M_REAL high =
        M(oom_math_real)(M(oom_math_bits)(r) & 0xfffffffff8000000u); /* 26 bits, as pi's */
    s = high * 0x1.921fb58p+1 +
        (((r - high) * 0x1.921fb58p+1 + r * -0x1.dde973dcb3b3ap-26) + (r * z) * s);
    M_REAL c = z * -0x1.6486b806fb0cfp-16 + -0x1.9bef87d806ebcp-14;
    c = c * z + 0x1.f9a77f9b71501p-10;
    c = c * z + -0x1.a6d1cd3537c25p-6;
    c = c * z + 0x1.e1f5066601709p-3;
    c = c * z + -0x1.55d3c7e3ba49dp+0;
    c = c * z + 0x1.03c1f081b5a3bp+2;
    c = c * z + -0x1.3bd3cc9be45dep+2;
    c = 1.0 + z * c;
    M_UINT quarter = M(oom_math_bits)(shifted); /* mod 4: s c, c -s, -s -c, -c s */
    M_REAL first = M_SELECT((quarter & 1u) != 0u, c, s);
    M_REAL second = M_SELECT((quarter & 1u) != 0u, s, c);
    *sine = M_SELECT((quarter & 2u) != 0u, 0.0 - first, first);
    *cosine = M_SELECT(((quarter + 1u) & 2u) != 0u, 0.0 - second, second);
}
