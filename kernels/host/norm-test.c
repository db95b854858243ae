/*
 * Layer norm: against the formula in double; f64 gradients against central differences; dgamma and
 * dbeta in pieces equal the whole bitwise.
 */
#include "kernels/host/op-testing.h"

void norm_test(void);

static const enum oom_dtype dtypes[] = {OOM_F32, OOM_F64, OOM_F16, OOM_BF16};
static const int64_t channels_tried[] = {1, 2, 31, 33, 64, 257};

enum { ROWS = 70 };

#define GET(array, i) test_get(dtype, array, i)
#define GET_WIDE(array, i) test_get(oom_dtype_wide(dtype), array, i)

/* One norm and everything around it; `c` channels. */
struct norm {
    enum oom_dtype dtype;
    int64_t rows, c;
    double eps;
    void *x, *gamma, *beta, *out, *mean, *rstd, *dout, *residual, *dx, *dgamma, *dbeta;
};

static struct norm norm_new(enum oom_dtype dtype, int64_t rows, int64_t c) {
    struct norm n = {.dtype = dtype, .rows = rows, .c = c, .eps = 1e-5};
    const enum oom_dtype wide = oom_dtype_wide(dtype);
    n.x = test_array(dtype, rows * c, -1, 3);
    n.gamma = test_array(wide, c, 0.5, 1.5);
    n.beta = test_array(wide, c, -1, 1);
    n.out = test_array(dtype, rows * c, 5, 6);
    n.mean = test_array(wide, rows, 5, 6);
    n.rstd = test_array(wide, rows, 5, 6);
    n.dout = test_array(dtype, rows * c, -1, 1);
    n.residual = test_array(dtype, rows * c, -1, 1);
    n.dx = test_array(dtype, rows * c, 5, 6);
    n.dgamma = test_array(wide, c, -1, 1);
    n.dbeta = test_array(wide, c, -1, 1);
    return n;
}

static struct oom_layernorm_forward_args forward_args(const struct norm *n) {
    return (struct oom_layernorm_forward_args){n->dtype,         n->rows,         n->c,
                                               n->eps,           ADDRESS(n->x),   ADDRESS(n->gamma),
                                               ADDRESS(n->beta), ADDRESS(n->out), ADDRESS(n->mean),
                                               ADDRESS(n->rstd)};
}

static struct oom_layernorm_backward_args backward_args(const struct norm *n) {
    return (struct oom_layernorm_backward_args){n->dtype,
                                                n->rows,
                                                n->c,
                                                ADDRESS(n->dout),
                                                ADDRESS(n->x),
                                                ADDRESS(n->gamma),
                                                ADDRESS(n->mean),
                                                ADDRESS(n->rstd),
                                                ADDRESS(n->residual),
                                                ADDRESS(n->dx),
                                                ADDRESS(n->dgamma),
                                                ADDRESS(n->dbeta)};
}

/* mean and rstd of row r in double */
static void moments(const struct norm *n, int64_t r, double *mean, double *rstd) {
    double sum = 0, spread = 0;
    for (int64_t i = 0; i < n->c; i++) sum += test_get(n->dtype, n->x, r * n->c + i);
    *mean = sum / (double)n->c;
    for (int64_t i = 0; i < n->c; i++) {
        double d = test_get(n->dtype, n->x, r * n->c + i) - *mean;
        spread += d * d;
    }
    *rstd = 1 / sqrt(spread / (double)n->c + n->eps);
}

static void forward_case(enum oom_dtype dtype, int64_t c) {
    const double u = oom_dtype_roundoff(oom_dtype_wide(dtype));
    struct norm n = norm_new(dtype, ROWS, c);
    struct oom_layernorm_forward_args a = forward_args(&n);
    test_same_everywhere(OOM_OP_LAYERNORM_FORWARD, &a);
    for (int64_t i = 0; i < n.rows * c; i++) {
        double mean, rstd;
        moments(&n, i / c, &mean, &rstd);
        /* the mean is off by up to 20 roundoffs of its terms (at most 3), and x - mean with it */
        double gamma = GET_WIDE(n.gamma, i % c), beta = GET_WIDE(n.beta, i % c);
        double xhat = (GET(n.x, i) - mean) * rstd;
        double bound = 20 * u * (3 * rstd + fabs(xhat) * 2) * gamma + 2 * u;
        test_close("mean", i / c, GET_WIDE(n.mean, i / c), mean, 60 * u);
        test_close("rstd", i / c, GET_WIDE(n.rstd, i / c), rstd, 30 * u * rstd);
        bound += test_half_rounding(dtype, xhat * gamma + beta);
        test_close("out", i, GET(n.out, i), xhat * gamma + beta, bound);
    }
    TEST_HALF_IS_F32_ROUNDED(OOM_OP_LAYERNORM_FORWARD, a);
}

/* The gradients by the formula in double, from the mean and rstd that the kernel was given. */
static void backward_case(enum oom_dtype dtype, int64_t c, bool with_residual) {
    const double u = oom_dtype_roundoff(oom_dtype_wide(dtype));
    struct norm n = norm_new(dtype, ROWS, c);
    struct oom_layernorm_forward_args f = forward_args(&n);
    struct oom_layernorm_backward_args b = backward_args(&n);
    if (!with_residual) b.residual = 0;
    test_run(OOM_OP_LAYERNORM_FORWARD, &f);
    double *dgamma = test_bytes((size_t)c * 8), *dbeta = test_bytes((size_t)c * 8);
    for (int64_t j = 0; j < c; j++)
        dgamma[j] = GET_WIDE(n.dgamma, j), dbeta[j] = GET_WIDE(n.dbeta, j);
    test_same_everywhere(OOM_OP_LAYERNORM_BACKWARD, &b);
    for (int64_t r = 0; r < n.rows; r++) {
        double mean = GET_WIDE(n.mean, r), rstd = GET_WIDE(n.rstd, r), sum_g = 0, sum_gx = 0,
               size = 0;
        for (int64_t j = 0; j < c; j++) {
            double xhat = (GET(n.x, r * c + j) - mean) * rstd, dout = GET(n.dout, r * c + j);
            sum_g += dout * GET_WIDE(n.gamma, j);
            sum_gx += dout * GET_WIDE(n.gamma, j) * xhat;
            size = fmax(size, fabs(xhat));
            dgamma[j] += dout * xhat;
            dbeta[j] += dout;
        }
        for (int64_t j = 0; j < c; j++) {
            double xhat = (GET(n.x, r * c + j) - mean) * rstd;
            double g = GET(n.dout, r * c + j) * GET_WIDE(n.gamma, j);
            double want = rstd * (g - sum_g / (double)c - xhat * sum_gx / (double)c) +
                          (with_residual ? GET(n.residual, r * c + j) : 0);
            double bound = 20 * u * (rstd * (3 + 1.5 * size * (size + fabs(xhat))) + 1);
            bound += test_half_rounding(dtype, want);
            test_close("dx", r * c + j, GET(n.dx, r * c + j), want, bound);
        }
    }
    for (int64_t j = 0; j < c; j++) {
        test_close("dgamma", j, GET_WIDE(n.dgamma, j), dgamma[j], ROWS * u * ROWS);
        test_close("dbeta", j, GET_WIDE(n.dbeta, j), dbeta[j], ROWS * u * ROWS);
    }
    TEST_HALF_IS_F32_ROUNDED(OOM_OP_LAYERNORM_BACKWARD, b);
}

/* sum of dout * out, whose gradients the backward gives */
static double objective(const struct norm *n) {
    struct oom_layernorm_forward_args f = forward_args(n);
    test_run(OOM_OP_LAYERNORM_FORWARD, &f);
    double sum = 0;
    for (int64_t i = 0; i < n->rows * n->c; i++)
        sum += ((double *)n->dout)[i] * ((double *)n->out)[i];
    return sum;
}

static double difference(const struct norm *n, double *at) {
    const double h = 1e-5, x = *at;
    *at = x + h;
    double up = objective(n);
    *at = x - h;
    double down = objective(n);
    *at = x;
    return (up - down) / (2 * h);
}

static void difference_case(int64_t c) {
    struct norm n = norm_new(OOM_F64, 3, c);
    struct oom_layernorm_backward_args b = backward_args(&n);
    b.residual = 0;
    memset(n.dgamma, 0, (size_t)c * 8);
    memset(n.dbeta, 0, (size_t)c * 8);
    objective(&n); /* for mean and rstd */
    test_run(OOM_OP_LAYERNORM_BACKWARD, &b);
    double *x = n.x, *gamma = n.gamma, *beta = n.beta;
    double *dx = n.dx, *dgamma = n.dgamma, *dbeta = n.dbeta;
    for (int64_t i = 0; i < 3 * c; i++) {
        test_close("dx", i, dx[i], difference(&n, &x[i]), 1e-7 * (1 + fabs(dx[i])));
    }
    for (int64_t j = 0; j < c; j++) {
        test_close("dgamma", j, dgamma[j], difference(&n, &gamma[j]), 1e-7 * (1 + fabs(dgamma[j])));
        test_close("dbeta", j, dbeta[j], difference(&n, &beta[j]), 1e-7 * (1 + fabs(dbeta[j])));
    }
}

/* Rows in pieces of 1, 2, 3 ...: dgamma and dbeta go on where they were. */
static void pieces_case(enum oom_dtype dtype, int64_t c) {
    struct norm n = norm_new(dtype, ROWS, c);
    struct oom_layernorm_forward_args f = forward_args(&n);
    test_run(OOM_OP_LAYERNORM_FORWARD, &f);
    const size_t size = oom_dtype_bytes(dtype), wide = oom_dtype_bytes(oom_dtype_wide(dtype));
    const size_t bytes = (size_t)c * wide;
    void *dgamma = test_bytes(bytes), *dbeta = test_bytes(bytes);
    memcpy(dgamma, n.dgamma, bytes);
    memcpy(dbeta, n.dbeta, bytes);
    struct oom_layernorm_backward_args whole = backward_args(&n);
    test_run(OOM_OP_LAYERNORM_BACKWARD, &whole);
    for (int64_t r = 0, k = 1; r < ROWS; r += k, k++) {
        if (k > ROWS - r) k = ROWS - r;
        struct oom_layernorm_backward_args piece = whole;
        const size_t rows = (size_t)(r * c) * size, one = (size_t)r * wide;
        piece.rows = k;
        piece.dout += rows, piece.x += rows, piece.residual += rows, piece.dx += rows;
        piece.mean += one, piece.rstd += one;
        piece.dgamma = ADDRESS(dgamma), piece.dbeta = ADDRESS(dbeta);
        test_run(OOM_OP_LAYERNORM_BACKWARD, &piece);
    }
    CHECK(memcmp(dgamma, n.dgamma, bytes) == 0);
    CHECK(memcmp(dbeta, n.dbeta, bytes) == 0);
}

/* More rows than a block of the backward holds: 2^14 elements. */
static void test_blocks(void) {
    TEST("layernorm: several blocks of rows, the same bits everywhere");
    for (int d = 0; d < 4; d++) {
        struct norm n = norm_new(dtypes[d], 700, 64);
        struct oom_layernorm_forward_args f = forward_args(&n);
        struct oom_layernorm_backward_args b = backward_args(&n);
        test_same_everywhere(OOM_OP_LAYERNORM_FORWARD, &f);
        test_same_everywhere(OOM_OP_LAYERNORM_BACKWARD, &b);
        TEST_HALF_IS_F32_ROUNDED(OOM_OP_LAYERNORM_BACKWARD, b);
        test_release();
    }
}

#define EACH_CASE(body) \
    for (int d = 0; d < 4; d++) { \
        for (int s = 0; s < 6; s++) { \
            const enum oom_dtype dtype = dtypes[d]; \
            const int64_t c = channels_tried[s]; \
            body; \
            test_release(); \
        } \
    }

void norm_test(void) {
    TEST("layernorm: forward against double, the same bits everywhere");
    EACH_CASE(forward_case(dtype, c));
    TEST("layernorm: backward against double, the same bits everywhere");
    EACH_CASE(backward_case(dtype, c, true); backward_case(dtype, c, false));
    TEST("layernorm: f64 gradients against central differences");
    for (int s = 0; s < 5; s++) {
        difference_case(channels_tried[s]);
        test_release();
    }
    TEST("layernorm: dgamma and dbeta over pieces equal the whole bitwise");
    EACH_CASE(pieces_case(dtype, c));
    test_blocks();
}
