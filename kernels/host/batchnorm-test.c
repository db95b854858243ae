/*
 * Batch norm: against the formula in double; its sums as the chains that ops.h states, bit for bit;
 * running values with the unbiased variance; a sample's count against the sample repeated; f64
 * gradients against central differences; dgamma and dbeta in pieces.
 */
#include "kernels/host/op-testing.h"

void batchnorm_test(void);

static const enum oom_dtype dtypes[] = {OOM_F32, OOM_F64, OOM_F16, OOM_BF16};
static const int64_t channels_tried[] = {1, 3, 16, 33, 64, 131};

enum { BATCH = 6, POSITIONS = 11, ROWS = BATCH * POSITIONS };

/* One norm and everything around it. */
struct norm {
    enum oom_dtype dtype, wide;
    int64_t batch, positions, c, rows;
    void *x, *gamma, *beta, *counts, *out, *mean, *rstd, *running_mean, *running_var;
    void *dout, *residual, *dx, *dgamma, *dbeta;
};

static struct norm norm_new(enum oom_dtype dtype, int64_t batch, int64_t positions, int64_t c) {
    const enum oom_dtype wide = oom_dtype_wide(dtype);
    struct norm n = {.dtype = dtype, .wide = wide, .batch = batch, .positions = positions, .c = c};
    n.rows = batch * positions;
    n.x = test_array(dtype, n.rows * c, -1, 3);
    n.gamma = test_array(wide, c, 0.5, 1.5);
    n.beta = test_array(wide, c, -1, 1);
    n.counts = test_array(wide, batch, 0, 1);
    for (int64_t b = 0; b < batch; b++) test_set(wide, n.counts, b, (double)(1 + b % 3));
    n.out = test_array(dtype, n.rows * c, 5, 6);
    n.mean = test_array(wide, c, 5, 6);
    n.rstd = test_array(wide, c, 5, 6);
    n.running_mean = test_array(wide, c, -1, 1);
    n.running_var = test_array(wide, c, 0.5, 2);
    n.dout = test_array(dtype, n.rows * c, -1, 1);
    n.residual = test_array(dtype, n.rows * c, -1, 1);
    n.dx = test_array(dtype, n.rows * c, 5, 6);
    n.dgamma = test_array(wide, c, -1, 1);
    n.dbeta = test_array(wide, c, -1, 1);
    return n;
}

static struct oom_batchnorm_forward_args forward_args(const struct norm *n) {
    return (struct oom_batchnorm_forward_args){
        .dtype = n->dtype,
        .batch = n->batch,
        .positions = n->positions,
        .channels = n->c,
        .eps = 1e-5,
        .momentum = 0.1,
        .x = ADDRESS(n->x),
        .gamma = ADDRESS(n->gamma),
        .beta = ADDRESS(n->beta),
        .out = ADDRESS(n->out),
        .mean = ADDRESS(n->mean),
        .rstd = ADDRESS(n->rstd),
        .running_mean = ADDRESS(n->running_mean),
        .running_var = ADDRESS(n->running_var),
    };
}

static struct oom_batchnorm_backward_args backward_args(const struct norm *n) {
    return (struct oom_batchnorm_backward_args){
        .dtype = n->dtype,
        .batch = n->batch,
        .positions = n->positions,
        .channels = n->c,
        .dout = ADDRESS(n->dout),
        .x = ADDRESS(n->x),
        .gamma = ADDRESS(n->gamma),
        .mean = ADDRESS(n->mean),
        .rstd = ADDRESS(n->rstd),
        .dx = ADDRESS(n->dx),
        .dgamma = ADDRESS(n->dgamma),
        .dbeta = ADDRESS(n->dbeta),
    };
}

#define GET(n, array, i) test_get((n)->dtype, (n)->array, i)
#define WIDE(n, array, i) test_get((n)->wide, (n)->array, i)

/* Roundoff of what is computed in. */
static double unit(const struct norm *n) {
    return oom_dtype_roundoff(n->wide);
}

static double count_of(const struct norm *n, bool counted, int64_t row) {
    return counted ? WIDE(n, counts, row / n->positions) : 1;
}

/* Mean, biased variance and number of rows of column j in double. */
static void moments(const struct norm *n, bool counted, int64_t j, double *mean, double *var,
                    double *total) {
    double sum = 0, spread = 0;
    *total = 0;
    for (int64_t r = 0; r < n->rows; r++) {
        double c = count_of(n, counted, r);
        sum += c * GET(n, x, r * n->c + j);
        *total += c;
    }
    *mean = sum / *total;
    for (int64_t r = 0; r < n->rows; r++) {
        double d = GET(n, x, r * n->c + j) - *mean;
        spread += count_of(n, counted, r) * d * d;
    }
    *var = spread / *total;
}

/* A chain of T terms is off by at most T roundoffs of the sum of their sizes: the mean of numbers
 * up to 3 by 3 (T + 2) u, the variance (whose first order in the mean's error vanishes) by
 * (T + 8) u of itself and the mean's error squared, rstd by half of that. */
static void forward_case(enum oom_dtype dtype, int64_t c, bool counted) {
    struct norm n = norm_new(dtype, BATCH, POSITIONS, c);
    struct oom_batchnorm_forward_args a = forward_args(&n);
    const double u = unit(&n), off = (ROWS + 8) * u;
    double *old_mean = test_bytes((size_t)c * 8), *old_var = test_bytes((size_t)c * 8);
    for (int64_t j = 0; j < c; j++) {
        old_mean[j] = WIDE(&n, running_mean, j);
        old_var[j] = WIDE(&n, running_var, j);
    }
    if (counted) a.counts = ADDRESS(n.counts);
    test_same_everywhere(OOM_OP_BATCHNORM_FORWARD, &a);
    for (int64_t j = 0; j < c; j++) {
        double mean, var, total;
        moments(&n, counted, j, &mean, &var, &total);
        double rstd = 1 / sqrt(var + a.eps), unbiased = var * total / (total - 1);
        test_close("mean", j, WIDE(&n, mean, j), mean, 3 * off);
        test_close("rstd", j, WIDE(&n, rstd, j), rstd, off * rstd);
        test_close("running_mean", j, WIDE(&n, running_mean, j), 0.9 * old_mean[j] + 0.1 * mean,
                   off);
        test_close("running_var", j, WIDE(&n, running_var, j), 0.9 * old_var[j] + 0.1 * unbiased,
                   off + 4 * u * old_var[j]);
        for (int64_t i = j; i < n.rows * c; i += c) {
            double xhat = (GET(&n, x, i) - mean) * rstd, gamma = WIDE(&n, gamma, j);
            double want = xhat * gamma + WIDE(&n, beta, j);
            double bound = gamma * off * (3 * rstd + 2 * fabs(xhat)) + 2 * u;
            test_close("out", i, GET(&n, out, i), want, bound + test_half_rounding(dtype, want));
        }
    }
    TEST_HALF_IS_F32_ROUNDED(OOM_OP_BATCHNORM_FORWARD, a);
    test_release();
}

static void infer_case(enum oom_dtype dtype, int64_t c) {
    struct norm n = norm_new(dtype, BATCH, POSITIONS, c);
    const double u = unit(&n);
    struct oom_batchnorm_infer_args a = {dtype,
                                         n.rows,
                                         c,
                                         1e-5,
                                         ADDRESS(n.x),
                                         ADDRESS(n.gamma),
                                         ADDRESS(n.beta),
                                         ADDRESS(n.running_mean),
                                         ADDRESS(n.running_var),
                                         ADDRESS(n.out)};
    test_same_everywhere(OOM_OP_BATCHNORM_INFER, &a);
    for (int64_t i = 0; i < n.rows * c; i++) {
        double d = GET(&n, x, i) - WIDE(&n, running_mean, i % c);
        double xhat = d / sqrt(WIDE(&n, running_var, i % c) + 1e-5);
        double want = xhat * WIDE(&n, gamma, i % c) + WIDE(&n, beta, i % c);
        double bound = 20 * u * (fabs(xhat) + 1) + test_half_rounding(dtype, want);
        test_close("out", i, GET(&n, out, i), want, bound);
    }
    TEST_HALF_IS_F32_ROUNDED(OOM_OP_BATCHNORM_INFER, a);
    test_release();
}

/* From the mean and rstd that the kernel was given. Sums of terms up to 1 and 4 (xhat is below 4
 * here) over T rows, divided by T: off by T u and 4 T u. */
static void backward_case(enum oom_dtype dtype, int64_t c, bool counted, bool with_residual) {
    struct norm n = norm_new(dtype, BATCH, POSITIONS, c);
    const double off = (ROWS + 16) * unit(&n);
    struct oom_batchnorm_forward_args f = forward_args(&n);
    struct oom_batchnorm_backward_args a = backward_args(&n);
    if (counted) f.counts = a.counts = ADDRESS(n.counts);
    if (with_residual) a.residual = ADDRESS(n.residual);
    test_run(OOM_OP_BATCHNORM_FORWARD, &f);
    double *dgamma = test_bytes((size_t)c * 8), *dbeta = test_bytes((size_t)c * 8);
    for (int64_t j = 0; j < c; j++) {
        dgamma[j] = WIDE(&n, dgamma, j);
        dbeta[j] = WIDE(&n, dbeta, j);
    }
    test_same_everywhere(OOM_OP_BATCHNORM_BACKWARD, &a);
    for (int64_t j = 0; j < c; j++) {
        double mean = WIDE(&n, mean, j), rstd = WIDE(&n, rstd, j), sum = 0, sum_x = 0, total = 0;
        for (int64_t r = 0; r < n.rows; r++) {
            double d = GET(&n, dout, r * c + j);
            sum += d;
            sum_x += d * (GET(&n, x, r * c + j) - mean) * rstd;
            total += count_of(&n, counted, r);
        }
        for (int64_t r = 0; r < n.rows; r++) {
            int64_t i = r * c + j;
            double times = count_of(&n, counted, r), xhat = (GET(&n, x, i) - mean) * rstd;
            double scale = WIDE(&n, gamma, j) * rstd;
            double want =
                scale * (GET(&n, dout, i) - times * sum / total - times * xhat * sum_x / total);
            if (with_residual) want += GET(&n, residual, i);
            double bound = off * (scale * (2 + 8 * (1 + fabs(xhat))) + 1);
            test_close("dx", i, GET(&n, dx, i), want, bound + test_half_rounding(dtype, want));
        }
        test_close("dgamma", j, WIDE(&n, dgamma, j), dgamma[j] + sum_x, off * 4 * ROWS);
        test_close("dbeta", j, WIDE(&n, dbeta, j), dbeta[j] + sum, off * ROWS);
    }
    TEST_HALF_IS_F32_ROUNDED(OOM_OP_BATCHNORM_BACKWARD, a);
    test_release();
}

/* One rounding to what is computed in. */
#define rounded(n, x) test_rounded((n)->wide, x)

/* mean, dgamma and dbeta are the stated chains of additions, each product rounded before. */
static void chain_case(enum oom_dtype dtype, bool counted) {
    const int64_t c = 37;
    struct norm n = norm_new(dtype, BATCH, POSITIONS, c);
    struct oom_batchnorm_forward_args f = forward_args(&n);
    struct oom_batchnorm_backward_args a = backward_args(&n);
    if (counted) f.counts = a.counts = ADDRESS(n.counts);
    double *dgamma = test_bytes((size_t)c * 8), *dbeta = test_bytes((size_t)c * 8);
    for (int64_t j = 0; j < c; j++) {
        dgamma[j] = WIDE(&n, dgamma, j);
        dbeta[j] = WIDE(&n, dbeta, j);
    }
    test_run(OOM_OP_BATCHNORM_FORWARD, &f);
    test_run(OOM_OP_BATCHNORM_BACKWARD, &a);
    for (int64_t j = 0; j < c; j++) {
        double sum = 0, lost = 0, total = 0, one = 0, one_x = 0, lost_d = 0, lost_x = 0;
        double mean = WIDE(&n, mean, j), rstd = WIDE(&n, rstd, j);
        for (int64_t r = 0; r < n.rows; r++) {
            double d = GET(&n, dout, r * c + j), x = GET(&n, x, r * c + j);
            double times = count_of(&n, counted, r);
            double xhat = rounded(&n, rounded(&n, x - mean) * rstd);
            sum = test_compensated((&n)->wide, sum, rounded(&n, times * x), &lost);
            total += times;
            one_x = test_compensated((&n)->wide, one_x, rounded(&n, d * xhat), &lost_x);
            one = test_compensated((&n)->wide, one, d, &lost_d);
            if ((r + 1) % n.positions != 0) continue;
            dgamma[j] = rounded(&n, dgamma[j] + one_x);
            dbeta[j] = rounded(&n, dbeta[j] + one);
            one = one_x = lost_d = lost_x = 0;
        }
        CHECK_MSG(mean == rounded(&n, sum / total), "mean[%lld]", (long long)j);
        CHECK_MSG(WIDE(&n, dgamma, j) == dgamma[j], "dgamma[%lld]", (long long)j);
        CHECK_MSG(WIDE(&n, dbeta, j) == dbeta[j], "dbeta[%lld]", (long long)j);
    }
    test_release();
}

/* A plain chain over as many rows is off by some hundred roundoffs. */
static void test_many_rows(void) {
    TEST("batch norm: f32: mean and variance of 2^17 rows are off by few roundoffs");
    const int64_t c = 5;
    struct norm n = norm_new(OOM_F32, 128, 1024, c);
    struct oom_batchnorm_forward_args f = forward_args(&n);
    for (int64_t i = 0; i < n.rows * c; i++) ((float *)n.x)[i] += 3;
    test_run(OOM_OP_BATCHNORM_FORWARD, &f);
    for (int64_t j = 0; j < c; j++) {
        double sum = 0, squares = 0;
        for (int64_t r = 0; r < n.rows; r++) sum += GET(&n, x, r * c + j);
        double mean = sum / (double)n.rows, found = WIDE(&n, mean, j);
        for (int64_t r = 0; r < n.rows; r++) {
            double distance = GET(&n, x, r * c + j) - mean;
            squares += distance * distance;
        }
        double rstd = 1 / sqrt(squares / (double)n.rows + f.eps);
        CHECK_MSG(fabs(found - mean) <= 3 * 0x1p-24 * fabs(mean), "mean[%d]: %g", (int)j,
                  (found - mean) / mean);
        CHECK_MSG(fabs(WIDE(&n, rstd, j) - rstd) <= 6 * 0x1p-24 * rstd, "rstd[%d]", (int)j);
    }
    test_release();
}

/* The norm of samples counted 1, 2, 3, 1, 2, 3 in `few` and of the samples themselves, as often as
 * that, in `many`; the gradient of a counted sample is that of all its occurrences. */
static void fill_repeated(const struct norm *few, const struct norm *many) {
    const int64_t image = few->positions * few->c;
    memcpy(many->gamma, few->gamma, (size_t)few->c * 8);
    memcpy(many->beta, few->beta, (size_t)few->c * 8);
    memcpy(many->running_mean, few->running_mean, (size_t)few->c * 8);
    memcpy(many->running_var, few->running_var, (size_t)few->c * 8);
    memcpy(many->dgamma, few->dgamma, (size_t)few->c * 8);
    memcpy(many->dbeta, few->dbeta, (size_t)few->c * 8);
    double *to = many->x, *dout = many->dout;
    for (int64_t b = 0; b < few->batch; b++)
        for (int64_t k = 0; k < 1 + b % 3; k++, to += image, dout += image) {
            memcpy(to, (double *)few->x + b * image, (size_t)image * 8);
            for (int64_t i = 0; i < image; i++)
                dout[i] = ((double *)few->dout)[b * image + i] / (double)(1 + b % 3);
        }
}

static void test_counts(void) {
    TEST("batch norm: f64: counted samples equal the samples repeated");
    const int64_t c = 19;
    struct norm few = norm_new(OOM_F64, BATCH, POSITIONS, c);
    struct norm many = norm_new(OOM_F64, 12, POSITIONS, c);
    fill_repeated(&few, &many);
    struct oom_batchnorm_forward_args f = forward_args(&few), g = forward_args(&many);
    struct oom_batchnorm_backward_args a = backward_args(&few), b = backward_args(&many);
    f.counts = a.counts = ADDRESS(few.counts);
    test_run(OOM_OP_BATCHNORM_FORWARD, &f);
    test_run(OOM_OP_BATCHNORM_FORWARD, &g);
    test_run(OOM_OP_BATCHNORM_BACKWARD, &a);
    test_run(OOM_OP_BATCHNORM_BACKWARD, &b);
    for (int64_t j = 0; j < c; j++) {
        test_close("mean", j, WIDE(&few, mean, j), WIDE(&many, mean, j), 1e-14);
        test_close("rstd", j, WIDE(&few, rstd, j), WIDE(&many, rstd, j), 1e-14);
        test_close("running_mean", j, WIDE(&few, running_mean, j), WIDE(&many, running_mean, j),
                   1e-14);
        test_close("running_var", j, WIDE(&few, running_var, j), WIDE(&many, running_var, j),
                   1e-14);
        test_close("dgamma", j, WIDE(&few, dgamma, j), WIDE(&many, dgamma, j), 1e-12);
        test_close("dbeta", j, WIDE(&few, dbeta, j), WIDE(&many, dbeta, j), 1e-12);
    }
    const int64_t image = POSITIONS * c;
    int64_t at = 0;
    for (int64_t sample = 0; sample < BATCH; sample++)
        for (int64_t i = 0; i < image; i++) {
            double dx = 0;
            int64_t repeats = 1 + sample % 3;
            if (i == 0 && sample > 0) at += (1 + (sample - 1) % 3) * image;
            for (int64_t k = 0; k < repeats; k++) dx += GET(&many, dx, at + k * image + i);
            test_close("out", i, GET(&few, out, sample * image + i), GET(&many, out, at + i),
                       1e-13);
            test_close("dx", i, GET(&few, dx, sample * image + i), dx, 1e-13);
        }
    test_release();
}

/* The loss sum(dout * out), whose gradients the backward gives. */
static double loss(const struct norm *n, const struct oom_batchnorm_forward_args *f) {
    double sum = 0;
    test_run(OOM_OP_BATCHNORM_FORWARD, f);
    for (int64_t i = 0; i < n->rows * n->c; i++) sum += GET(n, dout, i) * GET(n, out, i);
    return sum;
}

static void test_differences(void) {
    TEST("batch norm: f64: gradients equal central differences");
    const int64_t c = 3;
    struct norm n = norm_new(OOM_F64, 2, 4, c);
    struct oom_batchnorm_forward_args f = forward_args(&n);
    struct oom_batchnorm_backward_args b = backward_args(&n);
    f.running_mean = f.running_var = 0;
    memset(n.dgamma, 0, (size_t)c * 8);
    memset(n.dbeta, 0, (size_t)c * 8);
    test_run(OOM_OP_BATCHNORM_FORWARD, &f);
    test_run(OOM_OP_BATCHNORM_BACKWARD, &b);
    struct {
        double *at, *gradient;
        int64_t n;
    } arrays[] = {{n.x, n.dx, n.rows * c}, {n.gamma, n.dgamma, c}, {n.beta, n.dbeta, c}};
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

/* Statistics given, so pieces of the batch have the same: dgamma and dbeta in pieces. */
static void pieces_case(enum oom_dtype dtype) {
    const int64_t c = 21, size = (int64_t)oom_dtype_bytes(dtype) * POSITIONS * c;
    static const int64_t cuts[] = {0, 1, 4, BATCH};
    struct norm n = norm_new(dtype, BATCH, POSITIONS, c);
    struct oom_batchnorm_forward_args f = forward_args(&n);
    struct oom_batchnorm_backward_args b = backward_args(&n);
    test_run(OOM_OP_BATCHNORM_FORWARD, &f);
    struct test_copy before = test_copy_outputs(OOM_OP_BATCHNORM_BACKWARD, &b);
    test_run(OOM_OP_BATCHNORM_BACKWARD, &b);
    struct test_copy whole = test_copy_outputs(OOM_OP_BATCHNORM_BACKWARD, &b);
    test_put_back(&before);
    for (int i = 0; i < 3; i++) {
        struct oom_batchnorm_backward_args piece = b;
        piece.batch = cuts[i + 1] - cuts[i];
        piece.dout += (uint64_t)(cuts[i] * size);
        piece.x += (uint64_t)(cuts[i] * size);
        test_run(OOM_OP_BATCHNORM_BACKWARD, &piece);
    }
    const size_t bytes = (size_t)c * oom_dtype_bytes(n.wide);
    CHECK(memcmp(n.dgamma, whole.bytes[1], bytes) == 0);
    CHECK(memcmp(n.dbeta, whole.bytes[2], bytes) == 0);
    CHECK(memcmp(n.dbeta, before.bytes[2], bytes) != 0);
    test_release();
}

/* A channel with a NaN has NaN everywhere, its neighbours nothing of it. */
static void nan_case(enum oom_dtype dtype) {
    const int64_t c = 18;
    struct norm n = norm_new(dtype, BATCH, POSITIONS, c);
    struct oom_batchnorm_forward_args f = forward_args(&n);
    struct oom_batchnorm_backward_args b = backward_args(&n);
    test_set(dtype, n.x, 5 * c + 7, NAN);
    test_run(OOM_OP_BATCHNORM_FORWARD, &f);
    test_run(OOM_OP_BATCHNORM_BACKWARD, &b);
    for (int64_t i = 0; i < n.rows * c; i++) {
        CHECK(isnan(GET(&n, out, i)) == (i % c == 7));
        CHECK(isnan(GET(&n, dx, i)) == (i % c == 7));
    }
    CHECK(isnan(WIDE(&n, running_var, 7)) && isnan(WIDE(&n, dgamma, 7)));
    CHECK(!isnan(WIDE(&n, running_var, 6)) && !isnan(WIDE(&n, dgamma, 8)));
    test_release();
}

void batchnorm_test(void) {
    for (size_t d = 0; d < sizeof dtypes / sizeof dtypes[0]; d++) {
        const enum oom_dtype dtype = dtypes[d];
        const char *name = oom_dtype_name(dtype);
        TEST("batch norm: %s: forward, infer and backward by the formulas", name);
        for (size_t i = 0; i < sizeof channels_tried / sizeof channels_tried[0]; i++) {
            const int64_t c = channels_tried[i];
            forward_case(dtype, c, i % 2 != 0);
            infer_case(dtype, c);
            backward_case(dtype, c, i % 2 == 0, i % 4 < 2);
            backward_case(dtype, c, i % 2 != 0, i % 4 >= 2);
        }
        TEST("batch norm: %s: sums are the stated chains over rows", name);
        chain_case(dtype, false);
        chain_case(dtype, true);
        TEST("batch norm: %s: dgamma and dbeta in pieces equal the whole", name);
        pieces_case(dtype);
        TEST("batch norm: %s: NaN stays in its channel", name);
        nan_case(dtype);
    }
    test_many_rows();
    test_counts();
    test_differences();
}
