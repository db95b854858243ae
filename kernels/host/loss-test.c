/*
 * Cross-entropy: against the formula in double; f64 gradient against central differences; in place,
 * loss only, clamped targets, large logits.
 */
#include "kernels/host/op-testing.h"

void loss_test(void);

static const enum oom_dtype dtypes[] = {OOM_F32, OOM_F64, OOM_F16, OOM_BF16};
static const int64_t classes_tried[] = {1, 2, 31, 33, 256, 257};

enum { ROWS = 13 };

#define GET(array, i) test_get(dtype, array, i)
#define GET_WIDE(array, i) test_get(oom_dtype_wide(dtype), array, i)

struct loss {
    struct oom_cross_entropy_args a;
    void *logits, *weights, *losses, *dlogits;
    int32_t *targets;
};

static struct loss loss_new(enum oom_dtype dtype, int64_t classes) {
    struct loss l;
    l.logits = test_array(dtype, ROWS * classes, -8, 8);
    l.weights = test_array(oom_dtype_wide(dtype), ROWS, 0.1, 1);
    l.losses = test_array(oom_dtype_wide(dtype), ROWS, 5, 6);
    l.dlogits = test_array(dtype, ROWS * classes, 5, 6);
    l.targets = test_tokens(ROWS, -1, (int)classes + 1);
    l.a = (struct oom_cross_entropy_args){dtype,
                                          ROWS,
                                          classes,
                                          3.0,
                                          ADDRESS(l.logits),
                                          ADDRESS(l.targets),
                                          ADDRESS(l.weights),
                                          ADDRESS(l.losses),
                                          ADDRESS(l.dlogits)};
    return l;
}

static int64_t target_of(const struct loss *l, int64_t r) {
    int64_t t = l->targets[r];
    return t < 0 ? 0 : t >= l->a.classes ? l->a.classes - 1 : t;
}

/* log sum exp of row r; the logits are small enough for a plain sum. Wider than f64, whose bound
 * has no room for errors of the truth's own. */
static long double log_sum(const struct loss *l, int64_t r) {
    long double sum = 0;
    for (int64_t j = 0; j < l->a.classes; j++) {
        sum += expl(test_get(l->a.dtype, l->logits, r * l->a.classes + j));
    }
    return logl(sum);
}

/* `logits` holds the inputs; the kernel may have worked in another array. */
static void check_rows(const struct loss *l, const void *dlogits) {
    const enum oom_dtype dtype = l->a.dtype;
    const int64_t n = l->a.classes;
    const double u = oom_dtype_roundoff(oom_dtype_wide(dtype));
    for (int64_t r = 0; r < ROWS; r++) {
        const long double all = log_sum(l, r);
        double weight = GET_WIDE(l->weights, r), want;
        int64_t target = target_of(l, r);
        want = weight * (double)(all - GET(l->logits, r * n + target));
        test_close("loss", r, GET_WIDE(l->losses, r), want, 8 * u * weight * (16 + fabs(want)));
        for (int64_t j = 0; dlogits != NULL && j < n; j++) {
            /* 16: the exponent's rounding, |x - max| <= 16; 6: the tree of the sum; at the target
             * three roundings of about weight * 3: of that product, of p - 1, of theirs */
            double p = (double)expl(GET(l->logits, r * n + j) - all), hot = j == target ? 1 : 0;
            double slope = weight * 3 * (p - hot);
            test_close("dlogits", r * n + j, GET(dlogits, r * n + j), slope,
                       u * weight * 3 * ((16 + 6 + 8) * p + 3 * hot) +
                           test_half_rounding(dtype, slope));
        }
    }
}

static void formula_case(enum oom_dtype dtype, int64_t classes) {
    struct loss l = loss_new(dtype, classes);
    test_same_everywhere(OOM_OP_CROSS_ENTROPY, &l.a);
    check_rows(&l, l.dlogits);
    TEST_HALF_IS_F32_ROUNDED(OOM_OP_CROSS_ENTROPY, l.a);
    struct loss only = l; /* the same losses without the gradient ... */
    only.losses = test_array(oom_dtype_wide(dtype), ROWS, 5, 6);
    only.a.losses = ADDRESS(only.losses);
    only.a.dlogits = 0;
    test_same_everywhere(OOM_OP_CROSS_ENTROPY, &only.a);
    CHECK(memcmp(only.losses, l.losses, ROWS * oom_dtype_bytes(oom_dtype_wide(dtype))) == 0);
    size_t bytes = (size_t)(ROWS * classes) * oom_dtype_bytes(dtype);
    struct loss place = l; /* ... and the same gradient in place of the logits */
    void *work = test_bytes(bytes);
    memcpy(work, l.logits, bytes);
    place.a.logits = place.a.dlogits = ADDRESS(work);
    test_same_everywhere(OOM_OP_CROSS_ENTROPY, &place.a);
    CHECK(memcmp(work, l.dlogits, bytes) == 0);
}

static void difference_case(int64_t classes) {
    struct loss l = loss_new(OOM_F64, classes);
    const double h = 1e-5;
    double *x = l.logits, *losses = l.losses;
    struct oom_cross_entropy_args only = l.a;
    only.dlogits = 0;
    test_run(OOM_OP_CROSS_ENTROPY, &l.a);
    for (int64_t i = 0; i < ROWS * classes; i++) {
        double kept = x[i];
        x[i] = kept + h;
        test_run(OOM_OP_CROSS_ENTROPY, &only);
        double up = losses[i / classes];
        x[i] = kept - h;
        test_run(OOM_OP_CROSS_ENTROPY, &only);
        double slope = 3 * (up - losses[i / classes]) / (2 * h);
        x[i] = kept;
        test_close("dlogits", i, ((double *)l.dlogits)[i], slope, 1e-8);
    }
}

static void test_extremes(void) {
    TEST("cross_entropy: large, equal and infinite logits");
    float x[4][3] = {{1e30f, -1e30f, 0}, {-2000, -2000, -2000}, {-INFINITY, 0, 0}, {NAN, 0, 0}};
    float weights[4] = {1, 1, 1, 1}, losses[4], d[4][3];
    int32_t targets[4] = {0, 1, 1, 1};
    struct oom_cross_entropy_args a = {
        OOM_F32,         4,         3, 1, ADDRESS(x), ADDRESS(targets), ADDRESS(weights),
        ADDRESS(losses), ADDRESS(d)};
    test_run(OOM_OP_CROSS_ENTROPY, &a);
    CHECK(losses[0] == 0 && d[0][0] == 0 && d[0][1] == 0 && d[0][2] == 0);
    CHECK(fabs((double)losses[1] - log(3)) <= 0x1p-22);
    CHECK(fabs((double)losses[2] - log(2)) <= 0x1p-22 && d[2][0] == 0);
    CHECK(isnan(losses[3]) && isnan(d[3][0]) && isnan(d[3][1]) && isnan(d[3][2]));
}

/* The tree written out: lane l adds l, l + 32, ...; lanes fold 16, 8, 4, 2, 1. */
static float naive_tree(const float *x, int64_t n) {
    float lanes[32] = {0};
    for (int64_t i = 0; i < n; i++) lanes[i % 32] += x[i];
    for (int half = 16; half > 0; half /= 2) {
        for (int l = 0; l < half; l++) lanes[l] += lanes[l + half];
    }
    return lanes[0];
}

static void sum_case(int64_t batch, int64_t positions) {
    float *losses = test_array(OOM_F32, batch * positions, 0.5, 3), *out = test_bytes(4);
    *out = 1.25f;
    float want = *out, *piece = test_bytes(4);
    *piece = *out;
    for (int64_t b = 0; b < batch; b++) want += naive_tree(losses + b * positions, positions);
    struct oom_loss_sum_args a = {OOM_F32, batch, positions, ADDRESS(losses), ADDRESS(out)};
    for (int64_t b = 0, n = 1; b < batch; b += n, n = 2) { /* uneven pieces of the same batch */
        if (n > batch - b) n = batch - b;
        struct oom_loss_sum_args p = {OOM_F32, n, positions, ADDRESS(losses + b * positions),
                                      ADDRESS(piece)};
        test_run(OOM_OP_LOSS_SUM, &p);
    }
    test_same_everywhere(OOM_OP_LOSS_SUM, &a);
    CHECK(memcmp(out, &want, 4) == 0);
    CHECK(memcmp(piece, &want, 4) == 0);
}

void loss_test(void) {
    TEST("loss_sum: a tree per sample, a chain over samples, bit by bit, whole and in pieces");
    for (int i = 0; i < 6; i++) {
        sum_case(1 + 4 * i, classes_tried[i]);
        test_release();
    }
    TEST("cross_entropy: against double; loss only and in place give the same bits; everywhere");
    for (int i = 0; i < 24; i++) {
        formula_case(dtypes[i % 4], classes_tried[i / 4]);
        test_release();
    }
    TEST("cross_entropy: f64 gradient against central differences");
    for (int i = 0; i < 4; i++) {
        difference_case(classes_tried[i]);
        test_release();
    }
    test_extremes();
}
