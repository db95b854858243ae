/*
 * Group norm: against the formula in double; its sums as the chains that ops.h states, bit for bit;
 * f64 gradients against central differences; dgamma and dbeta in pieces of a batch.
 */
#include "kernels/host/op-testing.h"

void groupnorm_test(void);

static const enum oom_dtype dtypes[] = {OOM_F32, OOM_F64, OOM_F16, OOM_BF16};
/* channels, groups; the last ones take several units of work, of whole groups or of one alone */
static const int64_t sizes[][2] = {{1, 1},  {6, 2},    {12, 12}, {32, 8}, {33, 11},
                                   {70, 1}, {150, 30}, {200, 4}, {260, 2}};

enum { BATCH = 5, POSITIONS = 7 };

struct norm {
    enum oom_dtype dtype, wide;
    int64_t c, groups, width;
    void *x, *gamma, *beta, *out, *mean, *rstd, *dout, *residual, *dx, *dgamma, *dbeta;
    double eps;
};

static struct norm norm_new(enum oom_dtype dtype, int64_t c, int64_t groups) {
    const enum oom_dtype wide = oom_dtype_wide(dtype);
    const int64_t n = BATCH * POSITIONS * c;
    struct norm v = {.dtype = dtype, .wide = wide, .c = c, .groups = groups, .width = c / groups};
    v.eps = 1e-5;
    v.x = test_array(dtype, n, -1, 3);
    v.gamma = test_array(wide, c, 0.5, 1.5);
    v.beta = test_array(wide, c, -1, 1);
    v.out = test_array(dtype, n, 5, 6);
    v.mean = test_array(wide, BATCH * groups, 5, 6);
    v.rstd = test_array(wide, BATCH * groups, 5, 6);
    v.dout = test_array(dtype, n, -1, 1);
    v.residual = test_array(dtype, n, -1, 1);
    v.dx = test_array(dtype, n, 5, 6);
    v.dgamma = test_array(wide, c, -1, 1);
    v.dbeta = test_array(wide, c, -1, 1);
    return v;
}

static struct oom_groupnorm_forward_args forward_args(const struct norm *n) {
    return (struct oom_groupnorm_forward_args){
        n->dtype,         BATCH,           POSITIONS,        n->c,
        n->groups,        n->eps,          ADDRESS(n->x),    ADDRESS(n->gamma),
        ADDRESS(n->beta), ADDRESS(n->out), ADDRESS(n->mean), ADDRESS(n->rstd)};
}

static struct oom_groupnorm_backward_args backward_args(const struct norm *n) {
    return (struct oom_groupnorm_backward_args){n->dtype,
                                                BATCH,
                                                POSITIONS,
                                                n->c,
                                                n->groups,
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

#define GET(n, array, i) test_get((n)->dtype, (n)->array, i)
#define WIDE(n, array, i) test_get((n)->wide, (n)->array, i)

/* Element of position e and channel `j` of a group of sample b. */
static int64_t place(const struct norm *n, int64_t b, int64_t g, int64_t e, int64_t j) {
    return (b * POSITIONS + e) * n->c + g * n->width + j;
}

static double mean_of(const struct norm *n, int64_t b, int64_t g) {
    double sum = 0;
    for (int64_t e = 0; e < POSITIONS; e++)
        for (int64_t j = 0; j < n->width; j++) sum += GET(n, x, place(n, b, g, e, j));
    return sum / (double)(POSITIONS * n->width);
}

/* A chain over positions and one over channels: off by at most T = E + w roundoffs of the sizes. */
static double off_by(const struct norm *n) {
    return (double)(POSITIONS + n->width + 16) * oom_dtype_roundoff(n->wide);
}

static void forward_group(const struct norm *n, int64_t b, int64_t g) {
    const double off = off_by(n), mean = mean_of(n, b, g);
    double var = 0;
    for (int64_t e = 0; e < POSITIONS; e++)
        for (int64_t j = 0; j < n->width; j++)
            var += pow(GET(n, x, place(n, b, g, e, j)) - mean, 2);
    double rstd = 1 / sqrt(var / (double)(POSITIONS * n->width) + n->eps);
    test_close("mean", b * n->groups + g, WIDE(n, mean, b * n->groups + g), mean, 3 * off);
    test_close("rstd", b * n->groups + g, WIDE(n, rstd, b * n->groups + g), rstd, off * rstd);
    for (int64_t e = 0; e < POSITIONS; e++)
        for (int64_t j = 0; j < n->width; j++) {
            int64_t i = place(n, b, g, e, j), c = g * n->width + j;
            double xhat = (GET(n, x, i) - mean) * rstd, gamma = WIDE(n, gamma, c);
            double want = xhat * gamma + WIDE(n, beta, c);
            double bound = gamma * off * (3 * rstd + 2 * fabs(xhat)) + off;
            test_close("out", i, GET(n, out, i), want, bound + test_half_rounding(n->dtype, want));
        }
}

/* dx of a group, from the mean and rstd that the kernel was given. */
static void backward_group(const struct norm *n, int64_t b, int64_t g, bool with_residual) {
    const double count = (double)(POSITIONS * n->width), off = off_by(n);
    const double mean = WIDE(n, mean, b * n->groups + g), rstd = WIDE(n, rstd, b * n->groups + g);
    double sum = 0, sum_x = 0, size = 0;
    for (int64_t e = 0; e < POSITIONS; e++)
        for (int64_t j = 0; j < n->width; j++) {
            int64_t i = place(n, b, g, e, j);
            double d = GET(n, dout, i) * WIDE(n, gamma, g * n->width + j);
            double xhat = (GET(n, x, i) - mean) * rstd;
            sum += d;
            sum_x += d * xhat;
            size = fmax(size, fabs(xhat));
        }
    for (int64_t e = 0; e < POSITIONS; e++)
        for (int64_t j = 0; j < n->width; j++) {
            int64_t i = place(n, b, g, e, j);
            double d = GET(n, dout, i) * WIDE(n, gamma, g * n->width + j);
            double xhat = (GET(n, x, i) - mean) * rstd;
            double want = rstd * (d - sum / count - xhat * sum_x / count);
            if (with_residual) want += GET(n, residual, i);
            double bound = off * (rstd * (3 + 3 * size * (size + 1)) + 1);
            test_close("dx", i, GET(n, dx, i), want, bound + test_half_rounding(n->dtype, want));
        }
}

/* One rounding to what is computed in. */
#define rounded(n, x) test_rounded((n)->wide, x)

/* dgamma and dbeta from `old`: a sample's chain over positions, then one over samples. */
static void check_parameters(const struct norm *n, const double *dgamma, const double *dbeta) {
    for (int64_t c = 0; c < n->c; c++) {
        double sum_x = dgamma[c], sum = dbeta[c], one = 0, one_x = 0, lost = 0, lost_x = 0;
        for (int64_t r = 0; r < BATCH * POSITIONS; r++) {
            int64_t i = r * n->c + c, at = r / POSITIONS * n->groups + c / n->width;
            double d = GET(n, dout, i), xhat = rounded(n, GET(n, x, i) - WIDE(n, mean, at));
            xhat = rounded(n, xhat * WIDE(n, rstd, at));
            one_x = test_compensated((n)->wide, one_x, rounded(n, d * xhat), &lost_x);
            one = test_compensated((n)->wide, one, d, &lost);
            if ((r + 1) % POSITIONS != 0) continue;
            sum_x = rounded(n, sum_x + one_x);
            sum = rounded(n, sum + one);
            one = one_x = lost = lost_x = 0;
        }
        CHECK_MSG(WIDE(n, dgamma, c) == sum_x, "dgamma[%lld]", (long long)c);
        CHECK_MSG(WIDE(n, dbeta, c) == sum, "dbeta[%lld]", (long long)c);
    }
}

/* The mean is chains over positions, then one over the group's channels. */
static void check_means(const struct norm *n) {
    for (int64_t at = 0; at < BATCH * n->groups; at++) {
        double sum = 0;
        for (int64_t j = 0; j < n->width; j++) {
            double channel = 0, lost = 0;
            for (int64_t e = 0; e < POSITIONS; e++) {
                double x = GET(n, x, place(n, at / n->groups, at % n->groups, e, j));
                channel = test_compensated((n)->wide, channel, x, &lost);
            }
            sum = rounded(n, sum + channel);
        }
        CHECK_MSG(WIDE(n, mean, at) == rounded(n, sum / (double)(POSITIONS * n->width)),
                  "mean[%lld]", (long long)at);
    }
}

static void size_case(enum oom_dtype dtype, int64_t c, int64_t groups, bool with_residual) {
    struct norm n = norm_new(dtype, c, groups);
    struct oom_groupnorm_forward_args f = forward_args(&n);
    struct oom_groupnorm_backward_args b = backward_args(&n);
    double *dgamma = test_bytes((size_t)c * 8), *dbeta = test_bytes((size_t)c * 8);
    for (int64_t j = 0; j < c; j++) {
        dgamma[j] = WIDE(&n, dgamma, j);
        dbeta[j] = WIDE(&n, dbeta, j);
    }
    if (!with_residual) b.residual = 0;
    test_same_everywhere(OOM_OP_GROUPNORM_FORWARD, &f);
    test_same_everywhere(OOM_OP_GROUPNORM_BACKWARD, &b);
    for (int64_t i = 0; i < BATCH * groups; i++) {
        forward_group(&n, i / groups, i % groups);
        backward_group(&n, i / groups, i % groups, with_residual);
    }
    check_means(&n);
    check_parameters(&n, dgamma, dbeta);
    TEST_HALF_IS_F32_ROUNDED(OOM_OP_GROUPNORM_FORWARD, f);
    TEST_HALF_IS_F32_ROUNDED(OOM_OP_GROUPNORM_BACKWARD, b);
    test_release();
}

/* A group of the whole sample is PyTorch's layer norm over (C,H,W); one of a channel, instance
 * norm: here only that samples do not know each other. */
static void samples_case(enum oom_dtype dtype) {
    struct norm n = norm_new(dtype, 24, 3);
    struct oom_groupnorm_forward_args f = forward_args(&n);
    const size_t image = (size_t)(POSITIONS * n.c) * oom_dtype_bytes(dtype);
    void *last = test_bytes(image);
    test_run(OOM_OP_GROUPNORM_FORWARD, &f);
    memcpy(last, (char *)n.out + (BATCH - 1) * image, image);
    f.batch = 1;
    f.x += (BATCH - 1) * image;
    test_run(OOM_OP_GROUPNORM_FORWARD, &f);
    CHECK(memcmp(last, n.out, image) == 0);
    test_release();
}

static void pieces_case(enum oom_dtype dtype) {
    struct norm n = norm_new(dtype, 24, 3);
    struct oom_groupnorm_forward_args f = forward_args(&n);
    struct oom_groupnorm_backward_args b = backward_args(&n);
    const uint64_t image = (uint64_t)(POSITIONS * n.c) * oom_dtype_bytes(dtype);
    const uint64_t row = (uint64_t)n.groups * oom_dtype_bytes(n.wide);
    static const int64_t cuts[] = {0, 1, 3, BATCH};
    test_run(OOM_OP_GROUPNORM_FORWARD, &f);
    struct test_copy before = test_copy_outputs(OOM_OP_GROUPNORM_BACKWARD, &b);
    test_run(OOM_OP_GROUPNORM_BACKWARD, &b);
    struct test_copy whole = test_copy_outputs(OOM_OP_GROUPNORM_BACKWARD, &b);
    test_put_back(&before);
    for (int i = 0; i < 3; i++) {
        const uint64_t at = (uint64_t)cuts[i];
        struct oom_groupnorm_backward_args piece = b;
        piece.batch = cuts[i + 1] - cuts[i];
        piece.dout += at * image, piece.x += at * image, piece.residual += at * image;
        piece.dx += at * image, piece.mean += at * row, piece.rstd += at * row;
        test_run(OOM_OP_GROUPNORM_BACKWARD, &piece);
    }
    struct test_copy pieces = test_copy_outputs(OOM_OP_GROUPNORM_BACKWARD, &b);
    for (int i = 0; i < 3; i++) {
        CHECK(memcmp(pieces.bytes[i], whole.bytes[i], whole.operand[i].bytes) == 0);
        CHECK(memcmp(pieces.bytes[i], before.bytes[i], whole.operand[i].bytes) != 0);
    }
    test_release();
}

static double loss(const struct norm *n, const struct oom_groupnorm_forward_args *f) {
    double sum = 0;
    test_run(OOM_OP_GROUPNORM_FORWARD, f);
    for (int64_t i = 0; i < BATCH * POSITIONS * n->c; i++) sum += GET(n, dout, i) * GET(n, out, i);
    return sum;
}

static void test_differences(void) {
    TEST("group norm: f64: gradients equal central differences");
    struct norm n = norm_new(OOM_F64, 4, 2);
    struct oom_groupnorm_forward_args f = forward_args(&n);
    struct oom_groupnorm_backward_args b = backward_args(&n);
    b.residual = 0;
    memset(n.dgamma, 0, 4 * 8);
    memset(n.dbeta, 0, 4 * 8);
    test_run(OOM_OP_GROUPNORM_FORWARD, &f);
    test_run(OOM_OP_GROUPNORM_BACKWARD, &b);
    struct {
        double *at, *gradient;
        int64_t n;
    } arrays[] = {{n.x, n.dx, BATCH * POSITIONS * 4}, {n.gamma, n.dgamma, 4}, {n.beta, n.dbeta, 4}};
    for (int k = 0; k < 3; k++)
        for (int64_t i = 0; i < arrays[k].n; i++) {
            const double h = 1e-5, x = arrays[k].at[i];
            arrays[k].at[i] = x + h;
            double above = loss(&n, &f);
            arrays[k].at[i] = x - h;
            double below = loss(&n, &f);
            arrays[k].at[i] = x;
            test_close("gradient", i, arrays[k].gradient[i], (above - below) / (2 * h), 1e-8);
        }
    test_release();
}

/* A NaN stays in its sample and group. */
static void nan_case(enum oom_dtype dtype) {
    struct norm n = norm_new(dtype, 20, 4);
    struct oom_groupnorm_forward_args f = forward_args(&n);
    struct oom_groupnorm_backward_args b = backward_args(&n);
    test_set(dtype, n.x, place(&n, 3, 2, 1, 4), NAN);
    test_run(OOM_OP_GROUPNORM_FORWARD, &f);
    test_run(OOM_OP_GROUPNORM_BACKWARD, &b);
    for (int64_t i = 0; i < BATCH * POSITIONS * n.c; i++) {
        bool hit = i / n.c / POSITIONS == 3 && i % n.c / n.width == 2;
        CHECK(isnan(GET(&n, out, i)) == hit);
        CHECK(isnan(GET(&n, dx, i)) == hit);
    }
    test_release();
}

void groupnorm_test(void) {
    for (size_t d = 0; d < sizeof dtypes / sizeof dtypes[0]; d++) {
        const char *name = oom_dtype_name(dtypes[d]);
        TEST("group norm: %s: forward and backward by the formulas, sums by their chains", name);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
            size_case(dtypes[d], sizes[i][0], sizes[i][1], i % 2 == 0);
        TEST("group norm: %s: a sample alone is as in its batch", name);
        samples_case(dtypes[d]);
        TEST("group norm: %s: the backward in pieces equals the whole", name);
        pieces_case(dtypes[d]);
        TEST("group norm: %s: NaN stays in its group", name);
        nan_case(dtypes[d]);
    }
    test_differences();
}
