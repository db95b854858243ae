/*
 * Conversions to and from halves against their mathematics: the value of every half by ldexp, and
 * for every number the nearer of the two halves around it, by exact differences in double. Every
 * boundary of every half, seeded numbers, NaNs, and f64 where two roundings end elsewhere than one.
 * (Over all 2^32 f32 the same comparison has been made once: no difference.)
 */
#include "kernels/half.h"
#include "kernels/testing.h"

#include <float.h>
#include <math.h>

void half_test(void);

enum { SEEDED = 1 << 20 };

struct format {
    enum oom_dtype dtype;
    int fraction, bias;
    int infinity;                 /* its bits: all below are finite */
    double values[(1 << 15) + 1]; /* of the halves without sign; infinity's is the power of two
                                   * where the next finite one would stand */
};

static struct format formats[2] = {{.dtype = OOM_F16, .fraction = 10, .bias = 15},
                                   {.dtype = OOM_BF16, .fraction = 7, .bias = 127}};

static void format_fill(struct format *f) {
    const int one = 1 << f->fraction;
    f->infinity = (2 * f->bias + 1) * one;
    for (int k = 0; k <= f->infinity; k++) {
        int exponent = k / one, rest = k % one;
        f->values[k] = exponent == 0 ? ldexp(rest, 1 - f->bias - f->fraction)
                                     : ldexp(one + rest, exponent - f->bias - f->fraction);
    }
}

/* The half nearest to x, which is not NaN. Differences are exact wherever they are nearly equal. */
static int nearest(const struct format *f, double x) {
    const int sign = signbit(x) ? 0x8000 : 0;
    const double size = fabs(x);
    int low = 0, high = f->infinity;
    if (size >= f->values[high]) return sign | high;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (f->values[middle] <= size)
            low = middle;
        else
            high = middle;
    }
    double below = size - f->values[low], above = f->values[high] - size;
    bool up = above < below || (above == below && low % 2 == 1);
    return sign | (up ? high : low);
}

static void check_f32(const struct format *f, float x) {
    int got = oom_half_from_f32(f->dtype, x), want = nearest(f, (double)x);
    CHECK_MSG(got == want, "f32 %a to %s: 0x%04x, nearest is 0x%04x", (double)x,
              oom_dtype_name(f->dtype), got, want);
}

static void check_f64(const struct format *f, double x) {
    int got = oom_half_from_f64(f->dtype, x), want = nearest(f, x);
    CHECK_MSG(got == want, "f64 %a to %s: 0x%04x, nearest is 0x%04x", x, oom_dtype_name(f->dtype),
              got, want);
}

/* Both signs of x and of its neighbours in f32 and in f64. */
static void check_around(const struct format *f, double x) {
    for (int sign = -1; sign <= 1; sign += 2) {
        double at = sign * x;
        if (x < 0x1p128) {
            check_f32(f, (float)at);
            check_f32(f, nextafterf((float)at, INFINITY));
            check_f32(f, nextafterf((float)at, -INFINITY));
        }
        check_f64(f, at);
        check_f64(f, nextafter(at, INFINITY));
        check_f64(f, nextafter(at, -INFINITY));
    }
}

static void test_boundaries(const struct format *f) {
    TEST("half: every value and every halfway point, and their neighbours, subnormals included");
    for (int k = 0; k < f->infinity; k++) {
        check_around(f, f->values[k]);
        check_around(f, f->values[k] + (f->values[k + 1] - f->values[k]) / 2);
    }
    check_around(f, f->values[f->infinity]);
    TEST("half: the ends of f32 and f64, infinities");
    const double ends[] = {0,       (double)FLT_TRUE_MIN, (double)FLT_MIN, (double)FLT_MAX, DBL_MIN,
                           DBL_MAX, DBL_TRUE_MIN,         INFINITY};
    for (int i = 0; i < 8; i++) {
        for (int sign = -1; sign <= 1; sign += 2) {
            check_f64(f, sign * ends[i]);
            check_f32(f, (float)(sign * ends[i]));
        }
    }
}

/* splitmix64 (Steele, Lea, Flood 2014) */
static uint64_t seeded(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void test_seeded(const struct format *f) {
    TEST("half: seeded bits of f32; seeded f64 over the range of the halves");
    uint64_t state = 1;
    for (int i = 0; i < SEEDED; i++) {
        float x = oom_from_bits_f32((uint32_t)seeded(&state));
        if (!isnan(x)) check_f32(f, x);
        double size =
            ldexp((double)(seeded(&state) >> 11) * 0x1p-53 + 1, (int)(seeded(&state) % 300) - 160);
        check_f64(f, seeded(&state) % 2 == 0 ? size : -size);
    }
}

/* Just above a halfway point that an even half lies below, f32 has only the halfway point itself,
 * and a second rounding goes down. */
static void test_once(const struct format *f) {
    TEST("half: f64 is rounded once, where f32 in between would round to another half");
    int64_t others = 0;
    for (int k = 0; k < f->infinity; k++) {
        double middle = f->values[k] + (f->values[k + 1] - f->values[k]) / 2;
        double x = nextafter(middle, k % 2 == 0 ? INFINITY : 0);
        check_f64(f, x);
        others += oom_half_from_f32(f->dtype, (float)x) != nearest(f, x);
    }
    CHECK_EQ(others, f->infinity); /* for every one of them the detour is wrong */
}

/* A NaN keeps its sign and the upper bits of its payload, and is quiet. */
static void test_nan(const struct format *f) {
    TEST("half: NaNs");
    const int quiet = f->infinity | 1 << (f->fraction - 1);
    for (uint32_t i = 0; i < 2 * 23; i++) {
        const uint32_t sign = i % 2, payload = 1u << i / 2;
        const uint32_t bits = sign << 31 | 0x7f800000 | payload;
        const uint64_t long_bits =
            (uint64_t)sign << 63 | 0x7ff0000000000000 | (uint64_t)payload << 29;
        const int kept = (int)(payload >> (23 - f->fraction)),
                  want = (int)sign << 15 | quiet | kept;
        CHECK_EQ(oom_half_from_f32(f->dtype, oom_from_bits_f32(bits)), want);
        CHECK_EQ(oom_half_from_f64(f->dtype, oom_from_bits_f64(long_bits)), want);
    }
    CHECK_EQ(oom_half_from_f64(f->dtype, oom_from_bits_f64(0x7ff0000000000001)), quiet);
}

static void test_back(const struct format *f) {
    TEST("half: all 65536 to f32, and there and back");
    for (int half = 0; half < 1 << 16; half++) {
        const int size = half & 0x7fff;
        const float x = oom_f32_from_half(f->dtype, (uint16_t)half);
        CHECK_EQ(signbit(x) != 0, half >> 15);
        if (size > f->infinity) {
            CHECK(isnan(x));
            int quiet = half | 1 << (f->fraction - 1);
            CHECK_EQ(oom_half_from_f32(f->dtype, x), quiet);
            uint32_t payload = oom_bits_f32(x) << 9 >> (32 - f->fraction);
            uint32_t want = (uint32_t)(f->dtype == OOM_F16 ? quiet : half);
            CHECK_EQ(payload, want % (1u << f->fraction));
            continue;
        }
        double want = size == f->infinity ? INFINITY : f->values[size];
        CHECK_MSG(fabs((double)x) == want, "%s 0x%04x: %a", oom_dtype_name(f->dtype), half,
                  (double)x);
        CHECK_EQ(oom_half_from_f32(f->dtype, x), half);
        CHECK_EQ(oom_half_from_f64(f->dtype, (double)x), half);
    }
}

void half_test(void) {
    for (int i = 0; i < 2; i++) {
        format_fill(&formats[i]);
        test_boundaries(&formats[i]);
        test_seeded(&formats[i]);
        test_once(&formats[i]);
        test_nan(&formats[i]);
        test_back(&formats[i]);
    }
    TEST("half: dtypes are stored in 2 bytes and wide in f32");
    CHECK(oom_dtype_wide(OOM_F16) == OOM_F32 && oom_dtype_wide(OOM_BF16) == OOM_F32);
    CHECK(oom_dtype_wide(OOM_F32) == OOM_F32 && oom_dtype_wide(OOM_F64) == OOM_F64);
}
