/*
 * fma-test.c: our fma against libm's. This file is compiled without instruction set flags, so on
 * x86-64 it meets the emulation.
 */
#include "kernels/host/isa/fma.h"
#include "kernels/testing.h"

void fma_test(void);

enum { CASES = 200000 };

static uint64_t next(uint64_t *state) { /* SplitMix64 (Steele, Lea, Flood 2014) */
    uint64_t z = *state += 0x9e3779b97f4a7c15U;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
    z = (z ^ z >> 27) * 0x94d049bb133111ebU;
    return z ^ z >> 31;
}

static float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

static double double_of(uint64_t bits) {
    double x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

static bool same_f32(float x, float y) {
    return (isnan(x) && isnan(y)) || memcmp(&x, &y, sizeof(x)) == 0;
}

static bool same_f64(double x, double y) {
    return (isnan(x) && isnan(y)) || memcmp(&x, &y, sizeof(x)) == 0;
}

/* One lane is enough to tell; the other lanes hold harmless values, so that one bad lane must raise
 * the alarm for all. */
static float ours_f32(float a, float b, float c, int lane) {
    oom_vf x = oom_set_vf(0.75F), y = oom_set_vf(1.5F), z = oom_set_vf(0.1F);
    x[lane] = a;
    y[lane] = b;
    z[lane] = c;
    return oom_fma_vf(x, y, z)[lane];
}

static double ours_f64(double a, double b, double c, int lane) {
    oom_vd x = oom_set_vd(0.75), y = oom_set_vd(1.5), z = oom_set_vd(0.1);
    x[lane] = a;
    y[lane] = b;
    z[lane] = c;
    return oom_fma_vd(x, y, z)[lane];
}

struct triple_f32 {
    float a, b, c;
};
struct triple_f64 {
    double a, b, c;
};

/* kinds of cases */
enum kind { ANY_BITS, NEAR_ONE, CANCELLING, TIES, BESIDE_TIES, SUBNORMAL, ZEROS, KINDS };
static const char *const kind_names[] = {
    "any bits",           "near one",          "cancelling",        "ties",
    "a hair beside ties", "subnormal results", "zeros and specials"};

/* With u the spacing above 1, (1 + (k + j) u)(1 - k u) = 1 + j u - k (k + j) u^2: as half a unit of
 * c's last place, a product that a longer sum still takes for a tie, or for the tie's neighbour. */
static struct triple_f64 beside_tie(uint64_t r, uint64_t q, double u, int digits) {
    double k = (double)(r & 63), j = (double)(r >> 6 & 3) - 1;
    double c = 1 + (double)(q >> (64 - digits)) * u;
    int exponent = (int)(r >> 8 & 31) - 16;
    double sign = (r >> 13 & 1) != 0 ? 1 : -1;
    double a = sign * ldexp(1 + (k + j) * u, exponent);
    double b = ldexp(1 - k * u, -exponent - digits - 1);
    return (struct triple_f64){a, b, (r >> 14 & 1) != 0 ? c : -c};
}

static struct triple_f32 make_f32(enum kind kind, uint64_t *state) {
    static const float specials[] = {0.0F,      -0.0F, 1.0F,      INFINITY,
                                     -INFINITY, NAN,   0x1p-149F, 0x1p127F};
    uint64_t r = next(state), q = next(state);
    float a = float_of((uint32_t)r), b = float_of((uint32_t)(r >> 32)), c = float_of((uint32_t)q);
    float u = 1 + (float)(r & 0x7fffff) * 0x1p-23F, v = 1 + (float)(r >> 40 & 0x7fffff) * 0x1p-23F;
    switch (kind) {
    case ANY_BITS:
        break;
    case NEAR_ONE:
        return (struct triple_f32){u, v, ldexpf(c - c == 0 ? 1.7F : 1.3F, (int)(q % 60) - 30)};
    case CANCELLING:
        return (struct triple_f32){u, v, -(u * v) * (1 + (float)(q % 3) * 0x1p-23F)};
    case TIES: /* few bits each, so that the sum often ends exactly between two floats */
        u = (float)(1 + (r & 0xfff)), v = (float)(1 + (r >> 32 & 0x1fff));
        return (struct triple_f32){u, v, ldexpf((float)(q & 0xffffff), (int)(q >> 32 & 31) - 8)};
    case BESIDE_TIES: {
        struct triple_f64 t = beside_tie(r, q, 0x1p-23, 23);
        return (struct triple_f32){(float)t.a, (float)t.b, (float)t.c};
    }
    case SUBNORMAL:
        return (struct triple_f32){ldexpf(u, -80 - (int)(q & 15)),
                                   ldexpf(v, -46 - (int)(q >> 4 & 31)),
                                   ldexpf((float)(q >> 9 & 0xff), -140 - (int)(q >> 20 & 15))};
    default:
        return (struct triple_f32){specials[r & 7], (r >> 8 & 1) != 0 ? u : specials[r >> 9 & 7],
                                   (r >> 12 & 1) != 0 ? -v : specials[r >> 13 & 7]};
    }
    return (struct triple_f32){a, b, c};
}

static struct triple_f64 make_f64(enum kind kind, uint64_t *state) {
    static const double specials[] = {0.0,       -0.0, 1.0,       INFINITY,
                                      -INFINITY, NAN,  0x1p-1074, 0x1p1023};
    uint64_t r = next(state), q = next(state), s = next(state);
    double u = 1 + (double)(r >> 12) * 0x1p-52, v = 1 + (double)(q >> 12) * 0x1p-52;
    double w = 1 + (double)(s >> 12) * 0x1p-52;
    switch (kind) {
    case ANY_BITS:
        break;
    case NEAR_ONE:
        return (struct triple_f64){u, v, ldexp(w, (int)(s % 120) - 60)};
    case CANCELLING:
        return (struct triple_f64){u, -v, u * v * (1 + (double)(s % 3) * 0x1p-52)};
    case TIES:
        return (struct triple_f64){(double)(r >> 37), (double)(q >> 36),
                                   ldexp((double)(s >> 11), (int)(s & 63) - 8)};
    case BESIDE_TIES:
        return beside_tie(r, q, 0x1p-52, 52);
    case SUBNORMAL:
        return (struct triple_f64){ldexp(u, -520 - (int)(s & 31)),
                                   ldexp(v, -500 - (int)(s >> 5 & 63)),
                                   ldexp((double)(s >> 20 & 0xff), -1060 - (int)(s >> 40 & 15))};
    default:
        return (struct triple_f64){specials[r & 7], (r >> 8 & 1) != 0 ? u : specials[r >> 9 & 7],
                                   (r >> 12 & 1) != 0 ? -v : specials[r >> 13 & 7]};
    }
    return (struct triple_f64){double_of(r), double_of(q), double_of(s)};
}

static void test_kind(enum kind kind) {
    TEST("fma: equals libm's, %s", kind_names[kind]);
    uint64_t state = 7 + (uint64_t)kind;
    int wrong = 0;
    for (int i = 0; i < CASES; i++) {
        struct triple_f32 t = make_f32(kind, &state);
        if (same_f32(ours_f32(t.a, t.b, t.c, i % OOM_VF_LANES), fmaf(t.a, t.b, t.c))) continue;
        if (wrong++ == 0)
            CHECK_MSG(false, "f32 fma(%a, %a, %a)", (double)t.a, (double)t.b, (double)t.c);
    }
    CHECK_EQ(wrong, 0);
    wrong = 0;
    for (int i = 0; i < CASES; i++) {
        struct triple_f64 t = make_f64(kind, &state);
        if (same_f64(ours_f64(t.a, t.b, t.c, i % OOM_VD_LANES), fma(t.a, t.b, t.c))) continue;
        if (wrong++ == 0) CHECK_MSG(false, "f64 fma(%a, %a, %a)", t.a, t.b, t.c);
    }
    CHECK_EQ(wrong, 0);
}

void fma_test(void) {
    TEST("fma: a tie of a subnormal result, decided by the product's last bits");
    float r = ours_f32(0x1p-100F * 8384513, 0x1p-96F * 8392705, 0x1p-127F, 0);
    CHECK_MSG(r == 0x1.000004p-127F, "%a", (double)r);
    for (int kind = 0; kind < KINDS; kind++) test_kind((enum kind)kind);
}
