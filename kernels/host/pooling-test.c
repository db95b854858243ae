/*
 * Pooling: the largest of a window by PyTorch's rule on ties and NaN, its index, given branches,
 * windows that do not fill the image; means as chains; gradients.
 */
#include "kernels/host/op-testing.h"

void pooling_test(void);

static const enum oom_dtype dtypes[] = {OOM_F32, OOM_F64, OOM_F16, OOM_BF16};

/* batch, height, width, channels, size */
static const int64_t shapes[][5] = {{1, 1, 1, 1, 1},  {2, 4, 6, 3, 2},    {3, 5, 7, 33, 2},
                                    {1, 9, 6, 16, 3}, {2, 17, 33, 5, 16}, {1, 8, 8, 70, 8},
                                    {4, 3, 2, 1, 2}};

struct pool {
    enum oom_dtype dtype;
    int64_t batch, height, width, c, size, p, q, in, out;
    void *x, *y, *dy, *dx;
    uint8_t *index, *branch;
};

/* Few different values, so that many are equal. */
static struct pool pool_new(enum oom_dtype dtype, const int64_t shape[5]) {
    struct pool v = {dtype, shape[0], shape[1], shape[2], shape[3], shape[4], 0,    0,
                     0,     0,        NULL,     NULL,     NULL,     NULL,     NULL, NULL};
    v.p = v.height / v.size;
    v.q = v.width / v.size;
    v.in = v.batch * v.height * v.width * v.c;
    v.out = v.batch * v.p * v.q * v.c;
    v.x = test_array(dtype, v.in, -3, 3);
    for (int64_t i = 0; i < v.in; i++) test_set(dtype, v.x, i, floor(test_get(dtype, v.x, i)));
    v.y = test_array(dtype, v.out, 5, 6);
    v.dy = test_array(dtype, v.out, -1, 1);
    v.dx = test_array(dtype, v.in, 5, 6);
    v.index = test_bytes((size_t)v.out);
    v.branch = test_bytes((size_t)v.out);
    for (int64_t i = 0; i < v.out; i++)
        v.branch[i] = (uint8_t)test_uniform(0, (double)(v.size * v.size));
    return v;
}

static struct oom_maxpool_forward_args forward_args(const struct pool *v) {
    return (struct oom_maxpool_forward_args){
        v->dtype, v->batch,      v->height, v->width,      v->c,
        v->size,  ADDRESS(v->x), 0,         ADDRESS(v->y), ADDRESS(v->index)};
}

static struct oom_maxpool_backward_args backward_args(const struct pool *v) {
    return (struct oom_maxpool_backward_args){
        v->dtype, v->batch,       v->height,         v->width,      v->c,
        v->size,  ADDRESS(v->dy), ADDRESS(v->index), ADDRESS(v->dx)};
}

/* Element `place` of the window of output i. */
static int64_t window(const struct pool *v, int64_t i, int64_t place) {
    int64_t c = i % v->c, q = i / v->c % v->q, p = i / v->c / v->q % v->p,
            b = i / v->c / v->q / v->p;
    int64_t h = p * v->size + place / v->size, w = q * v->size + place % v->size;
    return ((b * v->height + h) * v->width + w) * v->c + c;
}

/* PyTorch: in order, a later element is taken if it is greater, or NaN. */
static int64_t largest(const struct pool *v, int64_t i) {
    int64_t best = 0;
    for (int64_t k = 1; k < v->size * v->size; k++) {
        double next = test_get(v->dtype, v->x, window(v, i, k));
        if (next > test_get(v->dtype, v->x, window(v, i, best)) || isnan(next)) best = k;
    }
    return best;
}

/* branch: that of `v`, or NULL. */
static void check_forward(const struct pool *v, const uint8_t *branch) {
    for (int64_t i = 0; i < v->out; i++) {
        int64_t want = branch != NULL ? branch[i] : largest(v, i);
        double x = test_get(v->dtype, v->x, window(v, i, want)), y = test_get(v->dtype, v->y, i);
        CHECK_MSG(v->index[i] == want, "index[%lld] = %d, want %lld", (long long)i, v->index[i],
                  (long long)want);
        CHECK_MSG(y == x || (isnan(x) && isnan(y)), "y[%lld] = %g, want %g", (long long)i, y, x);
    }
}

static void check_backward(const struct pool *v) {
    double *dx = test_bytes((size_t)v->in * 8);
    for (int64_t i = 0; dx != NULL && i < v->out; i++)
        dx[window(v, i, v->index[i])] = test_get(v->dtype, v->dy, i);
    for (int64_t i = 0; dx != NULL && i < v->in; i++)
        CHECK_MSG(test_get(v->dtype, v->dx, i) == dx[i], "dx[%lld] = %g, want %g", (long long)i,
                  test_get(v->dtype, v->dx, i), dx[i]);
}

static void max_case(enum oom_dtype dtype, const int64_t shape[5]) {
    struct pool v = pool_new(dtype, shape);
    struct oom_maxpool_forward_args f = forward_args(&v);
    struct oom_maxpool_backward_args b = backward_args(&v);
    test_same_everywhere(OOM_OP_MAXPOOL_FORWARD, &f);
    check_forward(&v, NULL);
    test_same_everywhere(OOM_OP_MAXPOOL_BACKWARD, &b);
    check_backward(&v);
    TEST_HALF_IS_F32_ROUNDED(OOM_OP_MAXPOOL_FORWARD, f);
    TEST_HALF_IS_F32_ROUNDED(OOM_OP_MAXPOOL_BACKWARD, b);
    f.branch = ADDRESS(v.branch);
    test_same_everywhere(OOM_OP_MAXPOOL_FORWARD, &f);
    check_forward(&v, v.branch);
    test_same_everywhere(OOM_OP_MAXPOOL_BACKWARD, &b);
    check_backward(&v);
    test_release();
}

static void edges_case(enum oom_dtype dtype) {
    static const int64_t shape[5] = {1, 4, 4, 2, 2};
    struct pool v = pool_new(dtype, shape);
    struct oom_maxpool_forward_args f = forward_args(&v);
    for (int64_t i = 0; i < v.in; i++) test_set(dtype, v.x, i, -INFINITY);
    test_set(dtype, v.x, window(&v, 2, 1), NAN); /* two in one window: the last */
    test_set(dtype, v.x, window(&v, 2, 2), NAN);
    test_set(dtype, v.x, window(&v, 2, 3), INFINITY);
    test_set(dtype, v.x, window(&v, 4, 0), NAN); /* the first stays: nothing is greater */
    test_set(dtype, v.x, window(&v, 4, 3), 7);
    test_set(dtype, v.x, window(&v, 5, 1), -0.0); /* equal to 0: the first stays */
    test_set(dtype, v.x, window(&v, 5, 2), 0.0);
    test_same_everywhere(OOM_OP_MAXPOOL_FORWARD, &f);
    check_forward(&v, NULL);
    CHECK_EQ(v.index[0], 0); /* all equal, and none above -inf */
    CHECK_EQ(v.index[2], 2);
    CHECK_EQ(v.index[4], 0);
    CHECK_EQ(v.index[5], 1);
    CHECK(signbit(test_get(dtype, v.y, 5)) != 0);
    v.branch[1] = 200; /* no such place: the last */
    f.branch = ADDRESS(v.branch);
    test_same_everywhere(OOM_OP_MAXPOOL_FORWARD, &f);
    CHECK_EQ(v.index[1], 3);
    test_release();
}

static double rounded(enum oom_dtype dtype, double x) {
    return dtype == OOM_F64 ? x : (double)(float)x;
}

static double as_stored(enum oom_dtype dtype, double x) {
    uint64_t room = 0;
    test_set(dtype, &room, 0, rounded(dtype, x));
    return test_get(dtype, &room, 0);
}

static void mean_case(enum oom_dtype dtype, int64_t batch, int64_t positions, int64_t c) {
    void *x = test_array(dtype, batch * positions * c, -1, 3),
         *y = test_array(dtype, batch * c, 5, 6);
    void *dy = test_array(dtype, batch * c, -1, 1),
         *dx = test_array(dtype, batch * positions * c, 5, 6);
    struct oom_meanpool_forward_args f = {dtype, batch, positions, c, ADDRESS(x), ADDRESS(y)};
    struct oom_meanpool_backward_args b = {dtype, batch, positions, c, ADDRESS(dy), ADDRESS(dx)};
    test_same_everywhere(OOM_OP_MEANPOOL_FORWARD, &f);
    test_same_everywhere(OOM_OP_MEANPOOL_BACKWARD, &b);
    for (int64_t i = 0; i < batch * c; i++) {
        double sum = 0, share = as_stored(dtype, test_get(dtype, dy, i) / (double)positions);
        for (int64_t e = 0; e < positions; e++) {
            int64_t at = (i / c * positions + e) * c + i % c;
            sum = rounded(dtype, sum + test_get(dtype, x, at));
            CHECK_MSG(test_get(dtype, dx, at) == share, "dx[%lld]", (long long)at);
        }
        CHECK_MSG(test_get(dtype, y, i) == as_stored(dtype, sum / (double)positions), "y[%lld]",
                  (long long)i);
    }
    TEST_HALF_IS_F32_ROUNDED(OOM_OP_MEANPOOL_FORWARD, f);
    TEST_HALF_IS_F32_ROUNDED(OOM_OP_MEANPOOL_BACKWARD, b);
    test_release();
}

void pooling_test(void) {
    for (size_t d = 0; d < sizeof dtypes / sizeof dtypes[0]; d++) {
        const char *name = oom_dtype_name(dtypes[d]);
        TEST("pooling: %s: the largest, its index and its gradient, own and given branches", name);
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
            max_case(dtypes[d], shapes[i]);
        TEST("pooling: %s: infinities, NaN, zeros of either sign, places that are not", name);
        edges_case(dtypes[d]);
        TEST("pooling: %s: means are chains over positions", name);
        mean_case(dtypes[d], 1, 1, 1);
        mean_case(dtypes[d], 3, 7, 5);
        mean_case(dtypes[d], 2, 100, 33);
        mean_case(dtypes[d], 5, 4, 64);
    }
}
