/*
 * Halves as vectors: on every instruction set the op copy gives the bits of half.h (which
 * half-test.c compares with the mathematics), NaNs included, for every half, every boundary and
 * seeded f32; the ends of arrays are kept; the base's integer lanes agree one by one.
 */
#include "kernels/host/isa/half-vector.h"
#include "kernels/host/op-testing.h"

void half_vector_test(void);

enum { HALVES = 1 << 16, SEEDED = 1 << 20 };

static const enum oom_dtype halves[] = {OOM_F16, OOM_BF16};

/* Bits at which a half changes, their neighbours, and all that the seed gives; n of them. */
static float *many_f32(enum oom_dtype half, int64_t *n) {
    *n = 6 * HALVES + SEEDED;
    float *x = test_bytes((size_t)*n * sizeof *x);
    if (x == NULL) return NULL;
    for (uint32_t i = 0; i < HALVES; i++) {
        uint32_t bits = oom_bits_f32(oom_f32_from_half(half, (uint16_t)i));
        uint32_t next = oom_bits_f32(oom_f32_from_half(half, (uint16_t)(i + 1)));
        uint32_t middle = bits + (next - bits) / 2;
        const uint32_t six[] = {bits - 1, bits, bits + 1, middle - 1, middle, middle + 1};
        for (int j = 0; j < 6; j++) x[6 * i + (uint32_t)j] = oom_from_bits_f32(six[j]);
    }
    for (int64_t i = 6 * HALVES; i < *n; i++)
        x[i] = oom_from_bits_f32((uint32_t)test_uniform(0, 0x1p32));
    return x;
}

static void narrowing(enum oom_dtype half) {
    int64_t n;
    float *x = many_f32(half, &n);
    uint16_t *y = test_bytes((size_t)n * sizeof *y);
    struct oom_copy_args a = {OOM_F32, half, n, ADDRESS(x), ADDRESS(y)};
    if (x == NULL || y == NULL) return;
    test_same_everywhere(OOM_OP_COPY, &a);
    for (int64_t i = 0; i < n; i++) {
        uint16_t want = oom_half_from_f32(half, x[i]);
        CHECK_MSG(y[i] == want, "f32 0x%08x to %s: 0x%04x, half.h has 0x%04x", oom_bits_f32(x[i]),
                  oom_dtype_name(half), y[i], want);
    }
}

static uint16_t *all_halves(void) {
    uint16_t *x = test_bytes(HALVES * sizeof *x);
    for (int i = 0; x != NULL && i < HALVES; i++) x[i] = (uint16_t)i;
    return x;
}

static void widening(enum oom_dtype half) {
    uint16_t *x = all_halves(), *other = test_bytes(HALVES * sizeof *other);
    float *y = test_bytes(HALVES * sizeof *y);
    const enum oom_dtype to = half == OOM_F16 ? OOM_BF16 : OOM_F16;
    struct oom_copy_args wide = {half, OOM_F32, HALVES, ADDRESS(x), ADDRESS(y)};
    struct oom_copy_args across = {half, to, HALVES, ADDRESS(x), ADDRESS(other)};
    test_same_everywhere(OOM_OP_COPY, &wide);
    test_same_everywhere(OOM_OP_COPY, &across);
    for (int i = 0; i < HALVES; i++) {
        float want = oom_f32_from_half(half, (uint16_t)i);
        CHECK_EQ(oom_bits_f32(y[i]), oom_bits_f32(want));
        CHECK_EQ(other[i], oom_half_from_f32(to, want));
    }
}

/* f64 is wide enough for all halves; same to same keeps every bit, of signalling NaNs too. */
static void other_pairs(enum oom_dtype half) {
    uint16_t *x = all_halves(), *again = test_bytes(HALVES * sizeof *again);
    double *y = test_bytes(HALVES * sizeof *y);
    struct oom_copy_args wide = {half, OOM_F64, HALVES, ADDRESS(x), ADDRESS(y)};
    struct oom_copy_args back = {OOM_F64, half, HALVES, ADDRESS(y), ADDRESS(again)};
    struct oom_copy_args same = {half, half, HALVES, ADDRESS(x), ADDRESS(again)};
    test_same_everywhere(OOM_OP_COPY, &wide);
    test_same_everywhere(OOM_OP_COPY, &back);
    for (int i = 0; i < HALVES; i++) {
        float value = oom_f32_from_half(half, (uint16_t)i);
        CHECK(isnan(value) ? isnan(y[i]) : y[i] == (double)value);
        CHECK_EQ(again[i], oom_half_from_f32(half, value));
    }
    test_same_everywhere(OOM_OP_COPY, &same);
    CHECK(memcmp(again, x, HALVES * sizeof *x) == 0);
}

/* Every length to beyond two vectors: nothing after the end is written, and addresses need no
 * alignment. */
static void ends(enum oom_dtype half) {
    uint16_t *x = test_array(half, 80, -1, 1), *y = test_bytes(80 * sizeof *y);
    float *wide = test_array(OOM_F32, 80, -1, 1);
    for (int64_t n = 1; n <= 40; n++) {
        for (int from = 0; from < 3; from++) {
            memset(y, 0xab, 80 * sizeof *y);
            struct oom_copy_args a = {OOM_F32, half, n, ADDRESS(wide + from), ADDRESS(y + 1)};
            test_same_everywhere(OOM_OP_COPY, &a);
            for (int i = 0; i < 79; i++) {
                uint16_t want = i < n ? oom_half_from_f32(half, wide[from + i]) : 0xabab;
                CHECK_EQ(y[1 + i], want);
            }
            CHECK_EQ(y[0], 0xabab);
            struct oom_scale_args s = {half, n, 2, ADDRESS(x + from)};
            test_same_everywhere(OOM_OP_SCALE, &s);
            s.factor = 0.5;
            test_run(OOM_OP_SCALE, &s);
        }
        while (test_memory.count > 3) oom_host_free(test_memory.buffers[--test_memory.count]);
    }
}

/* This file is compiled for the base: fill, first lanes, single elements. */
static void some_lanes(void) {
    TEST("half vectors: some lanes, the others a fill; single elements; one rounding of a double");
    uint16_t x[OOM_VF_LANES], y[OOM_VF_LANES];
    for (int i = 0; i < OOM_VF_LANES; i++) x[i] = oom_f16_from_f32((float)(i + 1));
    for (int64_t n = -1; n <= OOM_VF_LANES + 1; n++) {
        const int64_t count = n < 0 ? 0 : n < OOM_VF_LANES ? n : OOM_VF_LANES;
        const oom_vf filled = oom_load_some_vh(x, n, -7), taken = oom_take_vh(x, count);
        memset(y, 0xab, sizeof y);
        oom_store_some_vh(y, n, filled);
        for (int i = 0; i < OOM_VF_LANES; i++) {
            const float lane = filled[i], zero = taken[i];
            CHECK(lane == (i < n ? (float)(i + 1) : -7.0f));
            CHECK(zero == (i < n ? (float)(i + 1) : 0.0f));
            CHECK_EQ(y[i], i < n ? x[i] : 0xabab);
        }
    }
    uint16_t one;
    oom_write_vb(&one, 3.0f);
    CHECK(oom_read_vb(&one) == 3.0f && oom_read_vh(x) == 1.0f);
    const double above = 1 + 0x1p-11 + 0x1p-40; /* f32 loses the last term */
    CHECK_EQ(oom_nearest_vh(above), 0x3c01);
    CHECK_EQ(oom_nearest_vb(1 + 0x1p-8 + 0x1p-40), 0x3f81);
}

void half_vector_test(void) {
    some_lanes();
    for (int i = 0; i < 2; i++) {
        TEST("half vectors: every boundary and seeded f32, the bits of half.h everywhere");
        narrowing(halves[i]);
        test_release();
        TEST("half vectors: all halves to f32, the other half and f64, everywhere");
        widening(halves[i]);
        test_release();
        other_pairs(halves[i]);
        test_release();
        TEST("half vectors: every length, nothing beyond its end");
        ends(halves[i]);
        test_release();
    }
}
