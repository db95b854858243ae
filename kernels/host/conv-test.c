/*
 * Convolutions: both algorithms, every instruction set and number of parts against a naive loop of
 * libm's fma in the order that ops.h states, bit for bit; gradients of weights in pieces of a batch
 * equal the whole; NaN, infinities and their products with the border's zeros.
 */
#include "kernels/host/op-testing.h"

void conv_test(void);

static const enum oom_dtype dtypes[] = {OOM_F32, OOM_F64, OOM_F16, OOM_BF16};

/* B H W C, K R S, stride, pad */
static const struct oom_conv_shape shapes[] = {
    {1, 1, 1, 1, 1, 1, 1, 1, 0},    {2, 5, 7, 3, 4, 3, 3, 1, 1},   {1, 6, 5, 2, 33, 1, 1, 1, 0},
    {2, 7, 9, 5, 17, 5, 3, 2, 2},   {1, 8, 6, 4, 3, 2, 4, 1, 1},   {1, 9, 11, 3, 2, 7, 7, 3, 3},
    {3, 4, 4, 1, 1, 3, 3, 1, 0},    {1, 3, 3, 40, 50, 3, 3, 1, 1}, /* steps: two blocks */
    {2, 2, 3, 300, 5, 1, 1, 1, 0},                                 /* channels: two blocks */
    {1, 12, 13, 6, 70, 3, 3, 1, 1},                                /* rows: two blocks */
    {5, 8, 8, 8, 8, 3, 3, 2, 1},    {1, 4, 4, 2, 2, 6, 6, 1, 5},   /* larger than the image */
    {1, 9, 9, 2, 3, 2, 2, 4, 0},                                   /* between windows: no dy */
    {3, 12, 11, 3, 5, 3, 3, 1, 1},                                 /* rows of dy: two blocks */
    {1, 2, 3, 2, 530, 1, 1, 1, 0},                                 /* more filters than a block */
    {1, 1, 1, 7, 3, 1, 1, 1, 0},    {1, 5, 1, 16, 32, 3, 1, 2, 0}, {2, 6, 6, 65, 31, 4, 4, 3, 2},
};
enum { SHAPES = sizeof shapes / sizeof shapes[0], TEXT = 80 };

enum kind { FORWARD, DATA, WEIGHT, KINDS };
static const enum oom_op ops[KINDS] = {OOM_OP_CONV_FORWARD, OOM_OP_CONV_BACKWARD_DATA,
                                       OOM_OP_CONV_BACKWARD_WEIGHT};

struct conv {
    enum oom_dtype dtype;
    struct oom_conv_shape s;
    int64_t p, q;            /* size of the result */
    int64_t in, out, weight; /* elements of x, y, w */
    void *x, *w, *y, *dw;    /* dw wide */
};

static struct conv conv_new(enum oom_dtype dtype, struct oom_conv_shape s) {
    struct conv v = {.dtype = dtype, .s = s};
    v.p = (s.height + 2 * s.pad - s.kernel_height) / s.stride + 1;
    v.q = (s.width + 2 * s.pad - s.kernel_width) / s.stride + 1;
    v.in = s.batch * s.height * s.width * s.channels;
    v.out = s.batch * v.p * v.q * s.filters;
    v.weight = s.filters * s.kernel_height * s.kernel_width * s.channels;
    v.x = test_array(dtype, v.in, -1, 1);
    v.w = test_array(dtype, v.weight, -1, 1);
    v.y = test_array(dtype, v.out, -1, 1);
    v.dw = test_array(oom_dtype_wide(dtype), v.weight, -1, 1);
    return v;
}

static const char *shape_text(const struct oom_conv_shape *s) {
    static char text[TEXT];
    snprintf(text, sizeof text, "B %lld %lldx%lld C %lld K %lld %lldx%lld stride %lld pad %lld",
             (long long)s->batch, (long long)s->height, (long long)s->width, (long long)s->channels,
             (long long)s->filters, (long long)s->kernel_height, (long long)s->kernel_width,
             (long long)s->stride, (long long)s->pad);
    return text;
}

/* Arguments of an op of `v`; the workspace is to come. */
static union oom_op_args args_of(const struct conv *v, enum kind kind,
                                 enum oom_conv_algorithm algorithm) {
    union oom_op_args a = {0};
    if (kind == FORWARD)
        a.conv_forward = (struct oom_conv_forward_args){
            v->dtype, algorithm, v->s, ADDRESS(v->x), ADDRESS(v->w), ADDRESS(v->y), 1};
    else if (kind == DATA)
        a.conv_backward_data = (struct oom_conv_backward_data_args){
            v->dtype, algorithm, v->s, ADDRESS(v->y), ADDRESS(v->w), ADDRESS(v->x), 1};
    else
        a.conv_backward_weight = (struct oom_conv_backward_weight_args){
            v->dtype, algorithm, v->s, ADDRESS(v->y), ADDRESS(v->x), ADDRESS(v->dw), 1};
    return a;
}

/* Exactly as large as asked, so that a sanitizer sees what is written beyond it. */
static void give_workspace(union oom_op_args *a, enum kind kind) {
    uint64_t bytes = oom_op_workspace_bytes(ops[kind], a);
    oom_devptr at = bytes > 0 ? ADDRESS(test_bytes(bytes)) : 0;
    if (kind == FORWARD)
        a->conv_forward.workspace = at;
    else if (kind == DATA)
        a->conv_backward_data.workspace = at;
    else
        a->conv_backward_weight.workspace = at;
}

/* ---- the definition ---- */

static double weight_at(const struct conv *v, int64_t k, int64_t r, int64_t s, int64_t c) {
    const struct oom_conv_shape *n = &v->s;
    return test_get(v->dtype, v->w,
                    ((k * n->kernel_height + r) * n->kernel_width + s) * n->channels + c);
}

/* x where the window of (p, q) has its tap (r, s); 0 outside. */
static double x_at(const struct conv *v, int64_t b, int64_t p, int64_t q, int64_t r, int64_t s,
                   int64_t c) {
    int64_t h = p * v->s.stride + r - v->s.pad, w = q * v->s.stride + s - v->s.pad;
    if (h < 0 || h >= v->s.height || w < 0 || w >= v->s.width) return 0;
    return test_get(v->dtype, v->x, ((b * v->s.height + h) * v->s.width + w) * v->s.channels + c);
}

static double dy_at(const struct conv *v, int64_t b, int64_t p, int64_t q, int64_t k) {
    return test_get(v->dtype, v->y, ((b * v->p + p) * v->q + q) * v->s.filters + k);
}

static double naive_y(const struct conv *v, int64_t b, int64_t p, int64_t q, int64_t k) {
    struct test_sum sum = {v->dtype, 0, 0, 0};
    for (int64_t r = 0; r < v->s.kernel_height; r++)
        for (int64_t s = 0; s < v->s.kernel_width; s++)
            for (int64_t c = 0; c < v->s.channels; c++)
                test_sum_add(&sum, x_at(v, b, p, q, r, s, c), weight_at(v, k, r, s, c));
    return test_sum_end(&sum);
}

/* The p whose tap r is at h, or -1. */
static int64_t source(int64_t h, int64_t r, int64_t n, const struct oom_conv_shape *s) {
    for (int64_t p = 0; p < n; p++)
        if (p * s->stride + r - s->pad == h) return p;
    return -1;
}

static double naive_dx(const struct conv *v, int64_t b, int64_t h, int64_t w, int64_t c) {
    struct test_sum sum = {v->dtype, 0, 0, 0};
    for (int64_t r = 0; r < v->s.kernel_height; r++)
        for (int64_t s = 0; s < v->s.kernel_width; s++) {
            int64_t p = source(h, r, v->p, &v->s), q = source(w, s, v->q, &v->s);
            for (int64_t k = 0; k < v->s.filters; k++) {
                double dy = p >= 0 && q >= 0 ? dy_at(v, b, p, q, k) : 0;
                test_sum_add(&sum, dy, weight_at(v, k, r, s, c));
            }
        }
    return test_sum_end(&sum);
}

static double naive_dw(const struct conv *v, int64_t k, int64_t r, int64_t s, int64_t c,
                       double sum) {
    for (int64_t b = 0; b < v->s.batch; b++)
        for (int64_t p = 0; p < v->p; p++)
            for (int64_t q = 0; q < v->q; q++)
                sum = test_fma(v->dtype, dy_at(v, b, p, q, k), x_at(v, b, p, q, r, s, c), sum);
    return sum;
}

/* What the op should leave in its output, element i, before which `old` is there. */
static double naive(const struct conv *v, enum kind kind, int64_t i, double old) {
    const struct oom_conv_shape *s = &v->s;
    int64_t last = kind == FORWARD ? s->filters : s->channels;
    int64_t columns = kind == FORWARD ? v->q : kind == DATA ? s->width : s->kernel_width;
    int64_t rows = kind == FORWARD ? v->p : kind == DATA ? s->height : s->kernel_height;
    int64_t c = i % last, column = i / last % columns;
    int64_t row = i / last / columns % rows, first = i / last / columns / rows;
    if (kind == FORWARD) return naive_y(v, first, row, column, c);
    if (kind == DATA) return naive_dx(v, first, row, column, c);
    return naive_dw(v, first, row, column, c, old);
}

struct output {
    void *at;
    int64_t n;
    enum oom_dtype dtype;
};

static struct output output_of(const struct conv *v, enum kind kind) {
    if (kind == FORWARD) return (struct output){v->y, v->out, v->dtype};
    if (kind == DATA) return (struct output){v->x, v->in, v->dtype};
    return (struct output){v->dw, v->weight, oom_dtype_wide(v->dtype)};
}

/* An array as the op should leave it. */
static void *expected_of(const struct conv *v, enum kind kind) {
    struct output o = output_of(v, kind);
    void *expected = test_bytes((size_t)o.n * oom_dtype_bytes(o.dtype));
    for (int64_t i = 0; expected != NULL && i < o.n; i++)
        test_set(o.dtype, expected, i, naive(v, kind, i, test_get(o.dtype, o.at, i)));
    return expected;
}

/* ---- the checks ---- */

static void check_conv(const struct conv *v, enum kind kind) {
    struct output o = output_of(v, kind);
    const size_t bytes = (size_t)o.n * oom_dtype_bytes(o.dtype);
    void *expected = expected_of(v, kind), *before = test_bytes(bytes);
    if (expected == NULL || before == NULL) return;
    memcpy(before, o.at, bytes);
    for (int i = 0; i < OOM_CONV_ALGORITHM_COUNT; i++) {
        union oom_op_args a = args_of(v, kind, (enum oom_conv_algorithm)i);
        give_workspace(&a, kind);
        memcpy(o.at, before, bytes);
        test_same_everywhere(ops[kind], &a);
        CHECK_MSG(memcmp(o.at, expected, bytes) == 0, "%s, algorithm %d: not the naive chain",
                  shape_text(&v->s), i);
    }
    memcpy(o.at, before, bytes);
}

static void test_chains(enum oom_dtype dtype) {
    for (int i = 0; i < SHAPES; i++) {
        struct conv v = conv_new(dtype, shapes[i]);
        for (int kind = 0; kind < KINDS; kind++) check_conv(&v, (enum kind)kind);
        test_release();
    }
}

/* A half's op is the f32 op on converted arrays, rounded: by both algorithms. */
static void test_halves(enum oom_dtype dtype) {
    struct conv v = conv_new(dtype, shapes[3]);
    for (int i = 0; i < OOM_CONV_ALGORITHM_COUNT; i++)
        for (int kind = 0; kind < KINDS; kind++) {
            union oom_op_args a = args_of(&v, (enum kind)kind, (enum oom_conv_algorithm)i);
            give_workspace(&a, (enum kind)kind);
            union oom_op_args wide = a;
            wide.conv_forward.dtype = OOM_F32; /* each of the three begins with it */
            test_half_is_f32_rounded(ops[kind], &a, &wide);
        }
    test_release();
}

/* dw of 5 samples in one go and as 2, 1 and 2. */
static void test_pieces(enum oom_dtype dtype, enum oom_conv_algorithm algorithm) {
    static const int64_t cuts[] = {0, 2, 3, 5};
    struct conv v = conv_new(dtype, shapes[10]);
    const size_t size = oom_dtype_bytes(dtype),
                 bytes = (size_t)v.weight * oom_dtype_bytes(oom_dtype_wide(dtype));
    void *start = test_bytes(bytes), *whole = test_bytes(bytes);
    union oom_op_args a = args_of(&v, WEIGHT, algorithm);
    give_workspace(&a, WEIGHT);
    memcpy(start, v.dw, bytes);
    test_run(ops[WEIGHT], &a);
    memcpy(whole, v.dw, bytes);
    memcpy(v.dw, start, bytes);
    for (int i = 0; i < 3; i++) {
        struct oom_conv_backward_weight_args piece = a.conv_backward_weight;
        piece.shape.batch = cuts[i + 1] - cuts[i];
        piece.dy += (uint64_t)(v.out / v.s.batch * cuts[i]) * size;
        piece.x += (uint64_t)(v.in / v.s.batch * cuts[i]) * size;
        test_run(ops[WEIGHT], &piece);
    }
    CHECK(memcmp(v.dw, whole, bytes) == 0);
    CHECK(memcmp(v.dw, start, bytes) != 0);
    test_release();
}

static bool same_number(double a, double b) {
    return isnan(a) ? isnan(b) : memcmp(&a, &b, sizeof a) == 0;
}

/* An infinite weight times a border's 0 is NaN; a NaN of the image reaches the windows that have
 * it, and no others. */
static void check_extremes(const struct conv *v, enum kind kind, enum oom_conv_algorithm algorithm,
                           const void *expected) {
    struct output o = output_of(v, kind);
    union oom_op_args a = args_of(v, kind, algorithm);
    give_workspace(&a, kind);
    for (int isa = OOM_ISA_BASE; isa < OOM_ISA_COUNT; isa++) {
        struct test_copy before = test_copy_outputs(ops[kind], &a);
        int64_t wrong = 0, nans = 0;
        if (!test_isa_present((enum oom_isa)isa)) continue;
        test_run_parts((enum oom_isa)isa, 2, ops[kind], &a);
        for (int64_t i = 0; i < o.n; i++) {
            double got = test_get(o.dtype, o.at, i);
            wrong += !same_number(got, test_get(o.dtype, expected, i));
            nans += isnan(got) ? 1 : 0;
        }
        CHECK_MSG(wrong == 0, "op %d, isa %d: %lld of %lld differ", kind, isa, (long long)wrong,
                  (long long)o.n);
        CHECK_MSG(nans > 0 && nans < o.n, "op %d: %lld NaN of %lld", kind, (long long)nans,
                  (long long)o.n);
        test_put_back(&before);
    }
}

static void test_extremes(enum oom_dtype dtype) {
    struct conv v = conv_new(dtype, (struct oom_conv_shape){2, 6, 7, 3, 5, 3, 3, 2, 1});
    test_set(dtype, v.x, 3 * 7 * 3 + 4, NAN);
    test_set(dtype, v.x, 4, INFINITY);
    test_set(dtype, v.w, 2 * 27 + 1, -INFINITY);
    test_set(dtype, v.y, 17, NAN);
    test_set(dtype, v.y, 5, INFINITY);
    for (int kind = 0; kind < KINDS; kind++) {
        void *expected = expected_of(&v, (enum kind)kind);
        for (int i = 0; expected != NULL && i < OOM_CONV_ALGORITHM_COUNT; i++)
            check_extremes(&v, (enum kind)kind, (enum oom_conv_algorithm)i, expected);
    }
    test_release();
}

void conv_test(void) {
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
        const char *name = oom_dtype_name(dtypes[i]);
        TEST("conv: %s: %d shapes equal the naive chain, both algorithms, all sets and parts", name,
             SHAPES);
        test_chains(dtypes[i]);
        TEST("conv: %s: gradients of weights in pieces of a batch equal the whole", name);
        test_pieces(dtypes[i], OOM_CONV_IMPLICIT);
        test_pieces(dtypes[i], OOM_CONV_EXPLICIT);
        TEST("conv: %s: NaN and infinities as in the naive chain", name);
        test_extremes(dtypes[i]);
        if (!oom_dtype_is_half(dtypes[i])) continue;
        TEST("conv: %s: the f32 op on converted arrays, rounded", name);
        test_halves(dtypes[i]);
    }
}
