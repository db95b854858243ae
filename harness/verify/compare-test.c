/*
 * compare-test.c: what passes a comparison, and everything that must not: NaN, infinities, nothing
 * at all, one sample of 64 missing.
 */
#include "harness/verify/compare.h"

#include "harness/base/rng.h"
#include "kernels/testing.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void compare_test(void);

static const double u = 0x1p-24;

static void constants(void) {
    TEST("compare: the bound's constant: 16 + sqrt(N)/2 for f32, 4 for halves");
    CHECK(oom_bound_constant(OOM_F32, 0) == 16);
    CHECK(oom_bound_constant(OOM_F32, 1) == 16.5);
    CHECK(oom_bound_constant(OOM_F32, 16384) == 80);
    CHECK(oom_bound_constant(OOM_F32, 1 << 20) == 528);
    CHECK(oom_bound_constant(OOM_F16, 1 << 20) == 4);
    CHECK(oom_bound_constant(OOM_BF16, 1) == 4);
}

/* Three elements of magnitude 2, 3, 6: norm 7. The second is off by `error`. */
static struct oom_agreement off_by(double error) {
    const float found[] = {1.0f, (float)(2.0 + error), -4.0f};
    const double truth[] = {1, 2, -4}, magnitude[] = {2, 3, 6};
    return oom_compare_bounded(found, truth, magnitude, 3, OOM_F32, 4);
}

static void bounds(void) {
    TEST("compare: the error is in units of u |S|, and passes up to the bound");
    CHECK(off_by(0).pass && off_by(0).error == 0 && off_by(0).bound == 17);
    double step = 0x1p-22; /* a whole number of roundings of 2 */
    CHECK(fabs(off_by(7 * step).error - 7 * step / (7 * u)) < 1e-9);
    CHECK(off_by(29 * step).pass);  /* 116 u / 7 = 16.57 */
    CHECK(!off_by(30 * step).pass); /* 17.14 */
    CHECK(!off_by(-30 * step).pass);
    TEST("compare: error and bound do not change with the scale");
    for (int k = -60; k <= 60; k += 20) {
        const float found[] = {ldexpf(1.0f + 0x1p-20f, k)};
        const double truth[] = {ldexp(1, k)}, magnitude[] = {ldexp(1, k)};
        struct oom_agreement a = oom_compare_bounded(found, truth, magnitude, 1, OOM_F32, 4);
        CHECK(fabs(a.error - 16) < 1e-6 && a.pass);
    }
}

static bool passes(float found, double truth, double magnitude) {
    const float f[] = {0.5f, found};
    const double t[] = {0.5, truth}, m[] = {1, magnitude};
    return oom_compare_bounded(f, t, m, 2, OOM_F32, 1 << 20).pass;
}

static void not_finite(void) {
    TEST("compare: NaN and infinity never pass, whatever stands beside them");
    CHECK(passes(2, 2, 2));
    CHECK(!passes(NAN, 2, 2));
    CHECK(!passes(NAN, NAN, NAN));
    CHECK(!passes(INFINITY, 2, 2));
    CHECK(!passes(-INFINITY, 2, 2));
    CHECK(!passes(INFINITY, INFINITY, INFINITY));
    CHECK(!passes(-INFINITY, INFINITY, INFINITY));
    CHECK(!passes(2, 2, NAN));
    CHECK(!passes(2, 2, INFINITY));
    CHECK(!passes(2, 3, INFINITY));
    CHECK(!passes(2, NAN, 2));
    CHECK(!passes(2, INFINITY, 2));
    CHECK(!passes(3e38f, -INFINITY, INFINITY));
    const float found[] = {NAN, INFINITY, 1, -INFINITY};
    const double truth[] = {1, 1, 1, 1}, magnitude[] = {1, 1, 1, 1};
    struct oom_agreement a = oom_compare_bounded(found, truth, magnitude, 4, OOM_F32, 4);
    CHECK_EQ(a.nonfinite, 3);
    CHECK(isinf(a.error) && !a.pass);
    TEST("compare: the largest finite number is one");
    CHECK(passes(3.4028234e38f, 3.4028234e38, 3.4028234e38));
}

static void zeros(void) {
    const float zero[] = {0.0f, -0.0f}, tiny[] = {0, 1e-45f};
    const double none[] = {0, 0};
    TEST("compare: a reference of zeros asks for exact zeros");
    CHECK(oom_compare_bounded(zero, none, none, 2, OOM_F32, 4).pass);
    CHECK(!oom_compare_bounded(tiny, none, none, 2, OOM_F32, 4).pass);
    CHECK(isinf(oom_compare_bounded(tiny, none, none, 2, OOM_F32, 4).error));
    TEST("compare: nothing compared is nothing passed");
    CHECK(!oom_compare_bounded(zero, none, none, 0, OOM_F32, 4).pass);
}

/* 64 samples of 500 elements; the f32 gradient is their sum in any order. */
enum { SAMPLES = 64, ELEMENTS = 500 };

static void one_of_64(void) {
    static float found[ELEMENTS], without[ELEMENTS], twice[ELEMENTS];
    static double truth[ELEMENTS], magnitude[ELEMENTS];
    struct oom_rng rng = {5};
    for (int s = 0; s < SAMPLES; s++) {
        for (int i = 0; i < ELEMENTS; i++) {
            double g = (2 * oom_rng_uniform(&rng) - 1) / SAMPLES;
            truth[i] += g;
            magnitude[i] += fabs(g);
            found[i] += (float)g;
            if (s != 17) without[i] += (float)g;
            twice[i] += (float)(s == 17 ? 2 * g : g);
        }
    }
    TEST("compare: rounding alone stays in bound, one sample of 64 exceeds it ten times");
    struct oom_agreement a =
        oom_compare_bounded(found, truth, magnitude, ELEMENTS, OOM_F32, SAMPLES);
    CHECK_MSG(a.pass && a.error > 0 && a.error < 4, "rounding: %g of %g", a.error, a.bound);
    a = oom_compare_bounded(without, truth, magnitude, ELEMENTS, OOM_F32, SAMPLES);
    CHECK_MSG(!a.pass && a.error > 10 * a.bound, "one dropped: %g of %g", a.error, a.bound);
    a = oom_compare_bounded(twice, truth, magnitude, ELEMENTS, OOM_F32, SAMPLES);
    CHECK_MSG(!a.pass && a.error > 10 * a.bound, "one twice: %g of %g", a.error, a.bound);
}

/* ---- files ---- */

static char folder[] = "/tmp/oombench-compare-XXXXXX";

static const char *path_of(int which) {
    static char paths[2][64];
    snprintf(paths[which], sizeof paths[which], "%s/%d", folder, which);
    return paths[which];
}

static void put(int which, const char *data, size_t bytes) {
    FILE *file = fopen(path_of(which), "wbe");
    CHECK(file != NULL);
    if (file == NULL) return;
    CHECK_EQ(fwrite(data, 1, bytes, file), bytes);
    fclose(file);
}

static struct oom_equality compare(void) {
    struct oom_equality equality = {.pass = true};
    CHECK_OK(oom_compare_files(path_of(0), path_of(1), &equality));
    return equality;
}

static void files(void) {
    enum { BYTES = 40000 };
    static char data[BYTES];
    if (!CHECK(mkdtemp(folder) != NULL)) return;
    for (int i = 0; i < BYTES; i++) data[i] = (char)(i * 7);
    TEST("compare: equal files are equal");
    put(0, data, BYTES);
    put(1, data, BYTES);
    CHECK(compare().pass && compare().bytes == BYTES && compare().differ == 0);
    TEST("compare: every single byte is seen, and the first one named");
    for (int at = 0; at < BYTES; at += at < 8 || at > BYTES - 8 ? 1 : 997) {
        data[at] ^= 1;
        put(1, data, BYTES);
        struct oom_equality e = compare();
        CHECK(!e.pass && e.differ == 1 && e.first == (uint64_t)at);
        data[at] ^= 1;
    }
    TEST("compare: files of different size differ, also where one is the other's beginning");
    for (int bytes = BYTES - 1; bytes > 0; bytes /= 3) {
        put(1, data, (size_t)bytes);
        CHECK(!compare().pass);
    }
    put(1, data, 16384);
    CHECK(!compare().pass);
    TEST("compare: two empty files are no proof");
    put(0, data, 0);
    put(1, data, 0);
    CHECK(!compare().pass);
    TEST("compare: a missing file is a failure with its name");
    struct oom_equality equality;
    unlink(path_of(1));
    CHECK_EQ(oom_compare_files(path_of(0), path_of(1), &equality), OOM_IO);
    CHECK(strstr(oom_failure_last()->message, path_of(1)) != NULL && !equality.pass);
    oom_failure_clear();
    unlink(path_of(0));
    rmdir(folder);
}

void compare_test(void) {
    constants();
    bounds();
    not_finite();
    zeros();
    one_of_64();
    files();
}
