/*
 * Our own functions against libm one size larger: f32 against double, f64 against long double, in
 * units in the last place of the exact result; special values; pow's many special cases.
 *
 * -DOOM_MATH_TEST_STRIDE=1 looks at every f32 input (minutes); the bounds come from such a run.
 */
#include "kernels/math.h"
#include "kernels/testing.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

void math_test(void);

#ifndef OOM_MATH_TEST_STRIDE
#define OOM_MATH_TEST_STRIDE 4999
#endif

enum { SAMPLES_F64 = 200000, SAMPLES_POW = 200000 };

/* ---- f32 ---- */

static float sine_f32(float x) {
    float sine, cosine;
    oom_sincospi_f32(x, &sine, &cosine);
    return sine;
}

static float cosine_f32(float x) {
    float sine, cosine;
    oom_sincospi_f32(x, &sine, &cosine);
    return cosine;
}

/* sin and cos of pi x by fmod and the quadrant, which reduce exactly and by other means than ours.
 */
static long double sine_reference(long double x) {
    long double u = fmodl(x, 2);
    if (u > 1) u -= 2;
    if (u < -1) u += 2;
    if (u > 0.5L) u = 1 - u;
    if (u < -0.5L) u = -1 - u;
    const long double pi = 3.14159265358979323846264338327950288L;
    return fabsl(u) <= 0.25L ? sinl(pi * u) : copysignl(cosl(pi * (0.5L - fabsl(u))), u);
}

static long double cosine_reference(long double x) {
    long double u = fabsl(fmodl(x, 2));
    if (u > 1) u = 2 - u;
    return sine_reference(0.5L - u);
}

static double sine_double(double x) {
    return (double)sine_reference((long double)x);
}

static double cosine_double(double x) {
    return (double)cosine_reference((long double)x);
}

struct function_f32 {
    const char *name;
    float (*ours)(float);
    double (*reference)(double);
    float end; /* inputs with a larger magnitude give a constant */
    double bound;
};

static float exp_f32(float x) {
    return oom_exp_f32(x);
}
static float log_f32(float x) {
    return oom_log_f32(x);
}
static float tanh_f32(float x) {
    return oom_tanh_f32(x);
}
static float erf_f32(float x) {
    return oom_erf_f32(x);
}

static const struct function_f32 functions_f32[] = {
    {"exp", exp_f32, exp, 110, 1.0},
    {"log", log_f32, log, FLT_MAX, 0.9},
    {"tanh", tanh_f32, tanh, 10, 1.4},
    {"erf", erf_f32, erf, 5, 1.3},
    {"sinpi", sine_f32, sine_double, 0x1p24f, 1.2},
    {"cospi", cosine_f32, cosine_double, 0x1p24f, 1.2},
};

/* |y - exact| in units of the spacing of f32 at exact; infinity where one is infinite or NaN. */
static double ulps_f32(float y, double exact) {
    if (isnan(exact)) return isnan(y) ? 0 : INFINITY;
    if (fabs(exact) >= 0x1.ffffffp127)
        return y == (exact > 0 ? INFINITY : -INFINITY) ? 0 : INFINITY;
    if (!isfinite(y)) return INFINITY;
    int exponent = fabs(exact) < 0x1p-126 ? -126 : ilogb(exact);
    return ldexp(fabs((double)y - exact), 23 - exponent);
}

static void scan_f32(const struct function_f32 *f) {
    double worst = 0;
    float at = 0;
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += OOM_MATH_TEST_STRIDE) {
        float x = oom_from_bits_f32((uint32_t)bits);
        if (!(fabsf(x) <= f->end)) continue;
        double error = ulps_f32(f->ours(x), f->reference((double)x));
        if (!(error <= worst)) worst = error, at = x;
    }
    TEST("math: %s f32 stays within %.2f ulp (every input divisible by %d)", f->name, f->bound,
         (int)OOM_MATH_TEST_STRIDE);
    CHECK_MSG(worst <= f->bound, "%s: %.4f ulp at %a", f->name, worst, (double)at);
#if OOM_MATH_TEST_STRIDE == 1
    printf("# %s f32: %.4f ulp at %a\n", f->name, worst, (double)at);
#endif
}

/* ---- f64 ---- */

static uint64_t random_state = 20240607;

static uint64_t random_bits(void) { /* splitmix64 (Steele, Lea, Flood 2014) */
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Uniform in [low, high). */
static double uniform(double low, double high) {
    return low + (high - low) * ((double)(random_bits() >> 11) * 0x1p-53);
}

static double sine_f64(double x) {
    double sine, cosine;
    oom_sincospi_f64(x, &sine, &cosine);
    return sine;
}
static double cosine_f64(double x) {
    double sine, cosine;
    oom_sincospi_f64(x, &sine, &cosine);
    return cosine;
}
static double exp_f64(double x) {
    return oom_exp_f64(x);
}
static double log_f64(double x) {
    return oom_log_f64(x);
}
static double tanh_f64(double x) {
    return oom_tanh_f64(x);
}
static double erf_f64(double x) {
    return oom_erf_f64(x);
}

struct function_f64 {
    const char *name;
    double (*ours)(double);
    long double (*reference)(long double);
    double low, high;                /* sampled evenly here ... */
    int exponent_low, exponent_high; /* ... and evenly in the exponent here, sign by `low` */
    double bound;
};

static const struct function_f64 functions_f64[] = {
    {"exp", exp_f64, expl, -750, 711, -60, 9, 1.0},
    {"log", log_f64, logl, 0, 3, -1074, 1023, 0.95},
    {"tanh", tanh_f64, tanhl, -20, 20, -1074, 5, 1.5},
    {"erf", erf_f64, erfl, -6.5, 6.5, -1074, 3, 1.5},
    {"sinpi", sine_f64, sine_reference, -4, 4, -1000, 52, 1.5},
    {"cospi", cosine_f64, cosine_reference, -4, 4, -60, 52, 1.5},
};

static double ulps_f64(double y, long double exact) {
    if (isnan(exact)) return isnan(y) ? 0 : INFINITY;
    if (fabsl(exact) > (long double)DBL_MAX) return isinf(y) ? 0 : INFINITY;
    if (!isfinite(y)) return INFINITY;
    int exponent = fabsl(exact) < 0x1p-1022L ? -1022 : ilogbl(exact);
    return (double)ldexpl(fabsl((long double)y - exact), 52 - exponent);
}

static double sample_f64(const struct function_f64 *f, int i) {
    if (i % 2 == 0) return uniform(f->low, f->high);
    double x = ldexp(uniform(1, 2), (int)uniform(f->exponent_low, f->exponent_high));
    return f->low < 0 && i % 4 == 1 ? -x : x;
}

static void scan_f64(const struct function_f64 *f) {
    TEST("math: %s f64 stays within %.2f ulp (%d samples)", f->name, f->bound, SAMPLES_F64);
    if (LDBL_MANT_DIG < 64) {
        SKIP("long double is no longer than double here");
        return;
    }
    double worst = 0, at = 0;
    for (int i = 0; i < SAMPLES_F64; i++) {
        double x = sample_f64(f, i);
        double error = ulps_f64(f->ours(x), f->reference((long double)x));
        if (!(error <= worst)) worst = error, at = x;
    }
    CHECK_MSG(worst <= f->bound, "%s: %.4f ulp at %a", f->name, worst, at);
#if OOM_MATH_TEST_STRIDE == 1
    printf("# %s f64: %.4f ulp at %a\n", f->name, worst, at);
#endif
}

static void test_pow_accuracy(void) {
    TEST("math: pow stays within 0.51 (f32) and 1.0 ulp (f64) (%d samples each)", SAMPLES_POW);
    double worst32 = 0, worst64 = 0;
    for (int i = 0; i < SAMPLES_POW; i++) {
        double x = i % 2 ? uniform(0.5, 2) : ldexp(uniform(1, 2), (int)uniform(-300, 300));
        double y = uniform(-700, 700) / fmax(0.01, fabs(log(x)));
        float xf = (float)x, yf = (float)y * 0.12f;
        double error32 = ulps_f32(oom_pow_f32(xf, yf), pow((double)xf, (double)yf));
        if (!(error32 <= worst32)) worst32 = error32;
        if (LDBL_MANT_DIG < 64) continue;
        double error64 = ulps_f64(oom_pow_f64(x, y), powl((long double)x, (long double)y));
        if (!(error64 <= worst64)) worst64 = error64;
    }
    CHECK_MSG(worst32 <= 0.51, "pow f32: %.4f ulp", worst32);
    CHECK_MSG(worst64 <= 1.0, "pow f64: %.4f ulp", worst64);
#if OOM_MATH_TEST_STRIDE == 1
    printf("# pow: f32 %.4f ulp, f64 %.4f ulp\n", worst32, worst64);
#endif
}

/* C11 F.10.4.4, all of it, against libm: the result must be the same, sign of zero included. */
static void test_pow_special(void) {
    TEST("math: pow's special cases are C's");
    const double values[] = {0.0,
                             -0.0,
                             1,
                             -1,
                             2,
                             -2,
                             3,
                             -3,
                             0.5,
                             -0.5,
                             1.5,
                             -1.5,
                             1e300,
                             -1e300,
                             INFINITY,
                             -INFINITY,
                             NAN,
                             0x1p-1074,
                             0x1p53,
                             -0x1p53,
                             0x1.fffffffffffffp52,
                             4503599627370497.0};
    const int n = (int)(sizeof values / sizeof values[0]);
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < n; j++) {
            double ours = oom_pow_f64(values[i], values[j]), c = pow(values[i], values[j]);
            bool same = isnan(c) ? isnan(ours) : ours == c && signbit(ours) == signbit(c);
            CHECK_MSG(same || (isfinite(c) && c != 0 && fabs(ours / c - 1) < 1e-15),
                      "pow(%g, %g) = %g, C has %g", values[i], values[j], ours, c);
        }
    }
}

#define SPECIAL(type, suffix, tiny) \
    static void test_special_##suffix(void) { \
        TEST("math: infinities, zeros and NaN, " #suffix); \
        const type inf = INFINITY, nan = NAN, zero = 0; \
        CHECK(oom_exp_##suffix(inf) == inf && oom_exp_##suffix(-inf) == 0); \
        CHECK(oom_exp_##suffix(zero) == 1 && oom_exp_##suffix(-zero) == 1); \
        CHECK(oom_exp_##suffix(800) == inf && oom_exp_##suffix(-800) == 0); \
        CHECK(isnan(oom_exp_##suffix(nan)) && isnan(oom_exp_##suffix(-nan))); \
        CHECK(oom_log_##suffix(inf) == inf && oom_log_##suffix(zero) == -inf); \
        CHECK(oom_log_##suffix(-zero) == -inf && oom_log_##suffix(1) == 0); \
        CHECK(isnan(oom_log_##suffix(-1)) && isnan(oom_log_##suffix(-inf))); \
        CHECK(isnan(oom_log_##suffix(nan)) && isnan(oom_log_##suffix(-tiny))); \
        CHECK(oom_tanh_##suffix(inf) == 1 && oom_tanh_##suffix(-inf) == -1); \
        CHECK(isnan(oom_tanh_##suffix(nan)) && isnan(oom_tanh_##suffix(-nan))); \
        CHECK(oom_tanh_##suffix(-zero) == 0 && signbit(oom_tanh_##suffix(-zero))); \
        CHECK(oom_tanh_##suffix(tiny) == tiny && oom_tanh_##suffix(-tiny) == -tiny); \
        CHECK(oom_erf_##suffix(inf) == 1 && oom_erf_##suffix(-inf) == -1); \
        CHECK(isnan(oom_erf_##suffix(nan))); \
        CHECK(oom_erf_##suffix(-zero) == 0 && signbit(oom_erf_##suffix(-zero))); \
        type s, c; \
        oom_sincospi_##suffix(inf, &s, &c); \
        CHECK(isnan(s) && isnan(c)); \
        oom_sincospi_##suffix((type)0x1p60, &s, &c); \
        CHECK(s == 0 && c == 1); \
        for (int k = -9; k <= 9; k++) { /* halves are exact */ \
            static const int sines[] = {0, 1, 0, -1}; \
            oom_sincospi_##suffix((type)k / 2, &s, &c); \
            CHECK_MSG(s == sines[k & 3] && c == sines[(k + 1) & 3], "k %d: %g %g", k, (double)s, \
                      (double)c); \
        } \
    }

SPECIAL(float, f32, 0x1p-149f)
SPECIAL(double, f64, 0x1p-1074)

void math_test(void) {
    for (int i = 0; i < (int)(sizeof functions_f32 / sizeof functions_f32[0]); i++) {
        scan_f32(&functions_f32[i]);
    }
    for (int i = 0; i < (int)(sizeof functions_f64 / sizeof functions_f64[0]); i++) {
        scan_f64(&functions_f64[i]);
    }
    test_pow_accuracy();
    test_pow_special();
    test_special_f32();
    test_special_f64();
}
