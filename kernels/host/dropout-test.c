/*
 * Dropout: Philox against the known answers of its authors and, word by word, the kernel against
 * Philox; masks follow the sample's identity; keep rate.
 */
#include "kernels/elementwise.h"
#include "kernels/host/op-testing.h"

void dropout_test(void);

static const enum oom_dtype dtypes[] = {OOM_F32, OOM_F64, OOM_F16, OOM_BF16};

static void test_philox(void) {
    TEST("philox 4x32-10: known answers (Random123, kat_vectors)");
    static const uint32_t known[3][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d,
         0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09,
         0x94fdcceb, 0x5001e420, 0x24126ea1},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t words[4];
        oom_philox(known[i], known[i] + 4, words);
        for (int j = 0; j < 4; j++) CHECK_EQ(words[j], known[i][6 + j]);
    }
}

static struct oom_dropout_args dropout_args(enum oom_dtype dtype, int64_t batch, int64_t elements,
                                            double p) {
    void *x = test_array(dtype, batch * elements, 1, 2);
    void *y = test_array(dtype, batch * elements, 5, 6);
    int64_t *samples = test_bytes((size_t)batch * sizeof *samples);
    for (int64_t b = 0; samples != NULL && b < batch; b++) samples[b] = 1000 * b + 7;
    return (struct oom_dropout_args){
        dtype, batch, elements,         p,          0x123456789abcdef0u,
        3,     9,     ADDRESS(samples), ADDRESS(x), ADDRESS(y)};
}

/* Word by word against the definition. */
static void formula_case(enum oom_dtype dtype, int64_t elements, double p) {
    const int64_t batch = 3;
    struct oom_dropout_args a = dropout_args(dtype, batch, elements, p);
    const int64_t *samples = OOM_HOST_PTR(int64_t, a.samples);
    const void *x = OOM_HOST_PTR(void, a.x), *y = OOM_HOST_PTR(void, a.y);
    const double bound = 2.1 * oom_dtype_roundoff(dtype);
    test_same_everywhere(OOM_OP_DROPOUT, &a);
    for (int64_t i = 0; i < batch * elements; i++) {
        uint32_t e = (uint32_t)(i % elements), words[4];
        const uint32_t counter[4] = {e / 4, (uint32_t)samples[i / elements], 3, 9};
        const uint32_t key[2] = {0x9abcdef0, 0x12345678};
        oom_philox(counter, key, words);
        bool keep = (double)words[e % 4] >= floor(p * 4294967296.0);
        double want = keep ? test_get(dtype, x, i) / (1 - p) : 0;
        test_close("y", i, test_get(dtype, y, i), want, bound * want);
    }
    TEST_HALF_IS_F32_ROUNDED(OOM_OP_DROPOUT, a);
}

static void test_identity(void) {
    TEST("dropout: a sample keeps its mask at another place, in another batch");
    struct oom_dropout_args a = dropout_args(OOM_F32, 4, 300, 0.5);
    float *x = OOM_HOST_PTR(float, a.x), *y = OOM_HOST_PTR(float, a.y);
    int64_t *samples = OOM_HOST_PTR(int64_t, a.samples), third = samples[2];
    for (int i = 0; i < 1200; i++) x[i] = 1;
    test_run(OOM_OP_DROPOUT, &a);
    float *alone = test_array(OOM_F32, 300, 0, 0);
    struct oom_dropout_args one = a;
    one.batch = 1, one.samples = ADDRESS(&third), one.y = ADDRESS(alone);
    test_run(OOM_OP_DROPOUT, &one);
    CHECK(memcmp(alone, y + 600, 300 * sizeof *y) == 0);
    CHECK(memcmp(alone, y, 300 * sizeof *y) != 0);
    one.step = 4; /* another step, layer or seed: another mask */
    test_run(OOM_OP_DROPOUT, &one);
    CHECK(memcmp(alone, y + 600, 300 * sizeof *y) != 0);
    one.step = 3, one.layer = 8;
    test_run(OOM_OP_DROPOUT, &one);
    CHECK(memcmp(alone, y + 600, 300 * sizeof *y) != 0);
    one.layer = 9, one.seed ^= 1ull << 32;
    test_run(OOM_OP_DROPOUT, &one);
    CHECK(memcmp(alone, y + 600, 300 * sizeof *y) != 0);
    test_release();
}

static void test_rate(void) {
    TEST("dropout: the share kept is 1 - p within five standard deviations; p = 0 keeps all");
    const double rates[] = {0, 0.1, 0.5, 0.9};
    for (int k = 0; k < 4; k++) {
        const int64_t n = 50000;
        struct oom_dropout_args a = dropout_args(OOM_F32, 1, n, rates[k]);
        test_run(OOM_OP_DROPOUT, &a);
        double kept = 0, p = rates[k];
        for (int64_t i = 0; i < n; i++) kept += OOM_HOST_PTR(float, a.y)[i] != 0;
        test_close("kept", k, kept, (double)n * (1 - p), 5 * sqrt((double)n * p * (1 - p)));
        test_release();
    }
}

static void test_in_place_halves(void) {
    TEST("dropout: in place on halves");
    for (int d = 2; d < 4; d++) {
        struct oom_dropout_args a = dropout_args(dtypes[d], 2, 77, 0.5), place = a;
        test_run(OOM_OP_DROPOUT, &a);
        place.y = a.x;
        test_same_everywhere(OOM_OP_DROPOUT, &place);
        CHECK(memcmp(OOM_HOST_PTR(void, a.x), OOM_HOST_PTR(void, a.y), 154 * 2) == 0);
        test_release();
    }
}

static void test_in_place(void) {
    TEST("dropout: in place; a dropped infinity or NaN becomes 0");
    struct oom_dropout_args a = dropout_args(OOM_F32, 2, 77, 0.5);
    float *y = OOM_HOST_PTR(float, a.y), *x = OOM_HOST_PTR(float, a.x);
    test_run(OOM_OP_DROPOUT, &a);
    struct oom_dropout_args place = a;
    place.y = a.x;
    test_same_everywhere(OOM_OP_DROPOUT, &place);
    CHECK(memcmp(x, y, 154 * sizeof *x) == 0);
    for (int i = 0; i < 154; i++) x[i] = i % 2 ? INFINITY : NAN;
    bool masked = true;
    float *again = test_array(OOM_F32, 154, 5, 6);
    a.y = ADDRESS(again);
    test_run(OOM_OP_DROPOUT, &a);
    for (int i = 0; i < 154; i++) masked = masked && (y[i] == 0) == (again[i] == 0);
    CHECK(masked);
    test_release();
}

void dropout_test(void) {
    test_philox();
    TEST("dropout: every element as defined, the same bits everywhere");
    const int64_t sizes[] = {1, 3, 31, 33, 257, 2500};
    for (int i = 0; i < 24; i++) {
        formula_case(dtypes[i % 4], sizes[i / 4], i % 3 == 0 ? 0.1 : 0.6);
        test_release();
    }
    test_identity();
    test_rate();
    test_in_place();
    test_in_place_halves();
}
