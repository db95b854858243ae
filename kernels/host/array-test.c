/*
 * Array ops: against their formulas in double with libm, within a bound in units of roundoff; the
 * slopes against central differences; the same bits everywhere.
 */
#include "kernels/host/op-testing.h"

void array_test(void);

static const int64_t sizes[] = {1, 31, 33, 257, 1500};
static const enum oom_dtype dtypes[] = {OOM_F32, OOM_F64, OOM_F16, OOM_BF16};

/* Runs `body` for the first dtypes (2: no halves) and each size, with u the unit roundoff. */
#define EACH_CASE(count, body) \
    for (int d = 0; d < count; d++) { \
        for (int s = 0; s < 5; s++) { \
            const enum oom_dtype dtype = dtypes[d]; \
            const int64_t n = sizes[s]; \
            const double u = oom_dtype_roundoff(dtype); \
            (void)u; \
            body; \
            test_release(); \
        } \
    }

#define GET(array, i) test_get(dtype, array, i)

static double gelu(double x) {
    return x / 2 * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

/* Magnitude of what rounds inside: the tail's exponent loses 2u * |x| digits. */
static double gelu_scale(double x) {
    return fabs(x) / (1 + exp(-1.6 * x)) * (1 + fabs(x) * (1 + 0.2 * x * x)) + 1e-300;
}

static void gelu_case(enum oom_dtype dtype, int64_t n, double u) {
    void *x = test_array(dtype, n, -6, 6), *y = test_array(dtype, n, 0, 1);
    struct oom_gelu_forward_args a = {dtype, n, ADDRESS(x), ADDRESS(y)};
    test_same_everywhere(OOM_OP_GELU_FORWARD, &a);
    for (int64_t i = 0; i < n; i++) {
        double at = GET(x, i);
        test_close("gelu", i, GET(y, i), gelu(at), 8 * u * gelu_scale(at) + 0x1p-52 * fabs(at));
    }
    TEST_HALF_IS_F32_ROUNDED(OOM_OP_GELU_FORWARD, a);
    a.y = a.x; /* in place */
    TEST_HALF_IS_F32_ROUNDED(OOM_OP_GELU_FORWARD, a);
}

static void gelu_slope_case(enum oom_dtype dtype, int64_t n, double u) {
    void *x = test_array(dtype, n, -6, 6), *dy = test_array(dtype, n, -1, 1);
    void *dx = test_array(dtype, n, 0, 1);
    struct oom_gelu_backward_args a = {dtype, n, ADDRESS(x), ADDRESS(dy), ADDRESS(dx)};
    test_same_everywhere(OOM_OP_GELU_BACKWARD, &a);
    for (int64_t i = 0; i < n; i++) {
        const double h = 1e-5;
        double at = GET(x, i), slope = (gelu(at + h) - gelu(at - h)) / (2 * h);
        test_close("gelu slope", i, GET(dx, i), GET(dy, i) * slope, 24 * u + 1e-9);
    }
    TEST_HALF_IS_F32_ROUNDED(OOM_OP_GELU_BACKWARD, a);
    a.dx = a.dy; /* in place */
    TEST_HALF_IS_F32_ROUNDED(OOM_OP_GELU_BACKWARD, a);
}

static void test_gelu(void) {
    TEST("gelu: the tanh formula within 8 roundoffs, the same bits everywhere");
    EACH_CASE(4, gelu_case(dtype, n, u));
    TEST("gelu: slope against central differences, the same bits everywhere");
    EACH_CASE(4, gelu_slope_case(dtype, n, u));
    TEST("gelu: far arguments, infinities, NaN");
    float x[] = {1e30f, -1e30f, 50, -50, NAN, 0.0f, -0.0f, 1e-40f}, y[8], one[8], dx[8];
    for (int i = 0; i < 8; i++) one[i] = 1;
    struct oom_gelu_forward_args f = {OOM_F32, 8, ADDRESS(x), ADDRESS(y)};
    struct oom_gelu_backward_args b = {OOM_F32, 8, ADDRESS(x), ADDRESS(one), ADDRESS(dx)};
    test_run(OOM_OP_GELU_FORWARD, &f);
    test_run(OOM_OP_GELU_BACKWARD, &b);
    CHECK(y[0] == 1e30f && y[1] == 0 && y[2] == 50 && y[3] == 0 && isnan(y[4]));
    CHECK(y[5] == 0 && !signbit(y[5]) && y[6] == 0 && signbit(y[6]));
    CHECK(y[7] == 0.5f * 1e-40f);
    CHECK(dx[0] == 1 && dx[1] == 0 && dx[2] == 1 && dx[3] == 0 && isnan(dx[4]));
    CHECK(dx[5] == 0.5f && dx[6] == 0.5f && dx[7] == 0.5f);
}

static void relu_case(enum oom_dtype dtype, int64_t n) {
    void *x = test_array(dtype, n, -1, 1), *y = test_array(dtype, n, 5, 6);
    void *dy = test_array(dtype, n, -1, 1), *dx = test_array(dtype, n, 5, 6);
    uint8_t *branch = test_bytes((size_t)n);
    test_set(dtype, x, n / 2, NAN);
    test_set(dtype, x, 0, -0.0);
    for (int64_t i = 0; i < n; i++) branch[i] = (uint8_t)(test_uniform(0, 1) < 0.5 ? 0 : i % 3 + 1);
    for (int forced = 0; forced < 2; forced++) {
        oom_devptr from = forced ? ADDRESS(branch) : 0;
        struct oom_relu_forward_args f = {dtype, n, ADDRESS(x), from, ADDRESS(y)};
        struct oom_relu_backward_args b = {dtype, n,           forced ? 0 : ADDRESS(y),
                                           from,  ADDRESS(dy), ADDRESS(dx)};
        test_same_everywhere(OOM_OP_RELU_FORWARD, &f);
        test_same_everywhere(OOM_OP_RELU_BACKWARD, &b);
        TEST_HALF_IS_F32_ROUNDED(OOM_OP_RELU_BACKWARD, b);
        for (int64_t i = 0; i < n; i++) {
            bool on = forced ? branch[i] != 0 : GET(x, i) > 0;
            double want = on ? GET(x, i) : 0;
            CHECK(GET(y, i) == want || (isnan(want) && isnan(GET(y, i))));
            CHECK(GET(dx, i) == (on ? GET(dy, i) : 0));
        }
    }
}

static void test_relu(void) {
    TEST("relu: forward and backward, by sign and by branch, exact");
    EACH_CASE(4, relu_case(dtype, n));
}

static void sgd_case(enum oom_dtype dtype, int64_t n, double u) {
    void *w = test_array(dtype, n, -1, 1), *v = test_array(dtype, n, -1, 1);
    double *exact_w = test_bytes((size_t)n * 8), *exact_v = test_bytes((size_t)n * 8);
    for (int64_t i = 0; i < n; i++) exact_w[i] = GET(w, i), exact_v[i] = GET(v, i);
    for (int step = 1; step <= 5; step++) {
        void *g = test_array(dtype, n, -1, 1);
        struct oom_sgd_args a = {dtype, n, 0.1, 0.9, ADDRESS(w), ADDRESS(v), ADDRESS(g)};
        test_same_everywhere(OOM_OP_SGD, &a);
        for (int64_t i = 0; i < n; i++) {
            exact_v[i] = 0.9 * exact_v[i] + GET(g, i);
            exact_w[i] -= 0.1 * exact_v[i];
            test_close("v", i, GET(v, i), exact_v[i], 8 * u * step * 5);
            test_close("w", i, GET(w, i), exact_w[i], 4 * u * step * 5);
        }
    }
}

/* AdamW as its authors write it: bias-corrected moments, each in double. */
static void adamw_case(enum oom_dtype dtype, int64_t n, double u) {
    const double lr = 1e-2, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, decay = 0.1;
    void *w = test_array(dtype, n, -1, 1), *m = test_array(dtype, n, 0, 0);
    void *v = test_array(dtype, n, 0, 0);
    double *exact = test_bytes((size_t)n * 24);
    for (int64_t i = 0; i < n; i += 2) test_set(dtype, w, i, 0); /* here the steps are all of w */
    for (int64_t i = 0; i < n; i++) exact[3 * i] = GET(w, i);
    for (int t = 1; t <= 6; t++) {
        void *g = test_array(dtype, n, 0.1, 1);
        struct oom_adamw_args a = {dtype, n,     t,          lr,         beta1,      beta2,
                                   eps,   decay, ADDRESS(w), ADDRESS(m), ADDRESS(v), ADDRESS(g)};
        test_same_everywhere(OOM_OP_ADAMW, &a);
        for (int64_t i = 0; i < n; i++) {
            double *e = exact + 3 * i, gradient = GET(g, i);
            e[1] = beta1 * e[1] + (1 - beta1) * gradient;
            e[2] = beta2 * e[2] + (1 - beta2) * gradient * gradient;
            double m_hat = e[1] / (1 - pow(beta1, t)), v_hat = e[2] / (1 - pow(beta2, t));
            e[0] = e[0] - lr * decay * e[0] - lr * m_hat / (sqrt(v_hat) + eps);
            test_close("m", i, GET(m, i), e[1], 4 * u * t);
            test_close("v", i, GET(v, i), e[2], 6 * u * t * e[2]);
            test_close("w", i, GET(w, i), e[0], u * t * (3 * fabs(e[0]) + 8 * lr));
        }
    }
}

static void test_optimizers(void) {
    TEST("sgd: five steps against double, the same bits everywhere");
    EACH_CASE(2, sgd_case(dtype, n, u));
    TEST("adamw: six steps against the paper's form in double, the same bits everywhere");
    EACH_CASE(2, adamw_case(dtype, n, u));
}

/* Each of these is one or two correctly rounded operations, so the result is known exactly. */
static double rounded(enum oom_dtype dtype, double x) {
    double out[1];
    test_set(dtype, out, 0, x);
    return test_get(dtype, out, 0);
}

static void plain_case(enum oom_dtype dtype, int64_t n) {
    const enum oom_dtype wide = oom_dtype_wide(dtype);
    void *x = test_array(dtype, n, -1, 1), *y = test_array(wide, n, -1, 1);
    void *out = test_array(dtype, n, 5, 6), *old = test_array(wide, n, 0, 0);
    const double factor = rounded(wide, 0.3);
    struct oom_fill_args fill = {dtype, n, 0.3, ADDRESS(out)};
    test_same_everywhere(OOM_OP_FILL, &fill);
    for (int64_t i = 0; i < n; i++) CHECK(GET(out, i) == rounded(dtype, 0.3));
    fill.value = 1 + oom_dtype_roundoff(dtype) + 0x1p-40; /* by way of f32 a half would be 1 */
    test_same_everywhere(OOM_OP_FILL, &fill);
    for (int64_t i = 0; i < n; i++) CHECK(GET(out, i) == rounded(dtype, fill.value));
    memcpy(old, y, (size_t)n * oom_dtype_bytes(wide));
    struct oom_axpy_args axpy = {dtype, n, 0.3, ADDRESS(x), ADDRESS(y)};
    test_same_everywhere(OOM_OP_AXPY, &axpy);
    for (int64_t i = 0; i < n; i++) {
        double product = rounded(wide, factor * GET(x, i));
        CHECK(test_get(wide, y, i) == rounded(wide, test_get(wide, old, i) + product));
    }
    memcpy(old, x, (size_t)n * oom_dtype_bytes(dtype));
    struct oom_scale_args scale = {dtype, n, 0.3, ADDRESS(x)};
    test_same_everywhere(OOM_OP_SCALE, &scale);
    for (int64_t i = 0; i < n; i++) {
        CHECK(GET(x, i) == rounded(dtype, rounded(wide, factor * GET(old, i))));
    }
}

/* b of every dtype that may stand beside; out a new array, a, or b where that is of dtype. */
static void add_case(enum oom_dtype dtype, int64_t n) {
    const enum oom_dtype wide = oom_dtype_wide(dtype);
    for (int d = 0; d < 4; d++) {
        const enum oom_dtype other = dtypes[d];
        if (other != dtype && (oom_dtype_wide(other) != wide || (other != wide && dtype != wide)))
            continue;
        void *a = test_array(dtype, n, -1, 1), *b = test_array(other, n, -1, 1);
        void *out = test_array(dtype, n, 5, 6), *want = test_array(dtype, n, 5, 6);
        struct oom_add_args add = {dtype, other, n, ADDRESS(a), ADDRESS(b), ADDRESS(out)};
        struct oom_add_args in_a = add, in_b = add;
        for (int64_t i = 0; i < n; i++) {
            double sum = rounded(wide, GET(a, i) + test_get(other, b, i));
            test_set(dtype, want, i, sum);
        }
        const size_t bytes = (size_t)n * oom_dtype_bytes(dtype);
        test_same_everywhere(OOM_OP_ADD, &add);
        CHECK(memcmp(out, want, bytes) == 0);
        in_a.out = in_a.a;
        test_same_everywhere(OOM_OP_ADD, &in_a);
        CHECK(memcmp(a, want, bytes) == 0);
        if (other != dtype) continue;
        memcpy(OOM_HOST_PTR(void, in_b.a = add.out), b, bytes); /* b + b */
        in_b.out = in_b.b;
        test_same_everywhere(OOM_OP_ADD, &in_b);
        for (int64_t i = 0; i < n; i++) CHECK(GET(b, i) == 2 * GET(out, i));
    }
}

static void copy_case(enum oom_dtype from, int64_t n) {
    void *x = test_array(from, n, -1, 1);
    for (int d = 0; d < 4; d++) {
        enum oom_dtype to = dtypes[d];
        void *y = test_array(to, n, 5, 6);
        struct oom_copy_args a = {from, to, n, ADDRESS(x), ADDRESS(y)};
        test_same_everywhere(OOM_OP_COPY, &a);
        for (int64_t i = 0; i < n; i++) {
            CHECK(test_get(to, y, i) == rounded(to, test_get(from, x, i)));
        }
    }
}

/* Found wherever the one bad element stands, and nothing else. */
static void finite_case(enum oom_dtype dtype, int64_t n) {
    const double bad[] = {INFINITY, -INFINITY, NAN};
    const double large = dtype == OOM_F16 ? 65504 : 1e30;
    void *x = test_array(dtype, n, -large, large);
    int32_t *found = test_bytes(sizeof *found);
    struct oom_finite_check_args a = {dtype, n, ADDRESS(x), ADDRESS(found)};
    test_same_everywhere(OOM_OP_FINITE_CHECK, &a);
    CHECK_EQ(*found, 0);
    for (int64_t i = 0; i < n; i += n / 9 + 1) {
        double good = GET(x, i);
        test_set(dtype, x, i, bad[i % 3]);
        *found = 0;
        test_same_everywhere(OOM_OP_FINITE_CHECK, &a);
        CHECK_EQ(*found, 1);
        test_set(dtype, x, i, good);
    }
    *found = 7;
    test_run(OOM_OP_FINITE_CHECK, &a);
    CHECK_EQ(*found, 7);
}

static void test_plain(void) {
    TEST("fill, axpy, scale: each product and sum rounded once, exact");
    EACH_CASE(4, plain_case(dtype, n));
    TEST("add: every pair of dtypes, a sum of two rounded once, exact, in place");
    EACH_CASE(4, add_case(dtype, n));
    TEST("copy: sixteen conversions, exact");
    EACH_CASE(4, copy_case(dtype, n));
    TEST("finite_check: every kind of bad element in every place, the rest left alone");
    EACH_CASE(4, finite_case(dtype, n));
}

void array_test(void) {
    test_gelu();
    test_relu();
    test_optimizers();
    test_plain();
}
