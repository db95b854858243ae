/*
 * attention-test.c: both kinds of attention against a naive f64 computation and finite differences;
 * equal bits over instruction sets, parts and batch; causality bit by bit.
 *
 * Bounds. Inputs lie within [-1, 1]. A score is a chain of D terms scaled by 1/sqrt(D), so it is
 * off by at most (D + 4) u sqrt(D); a probability by that twice (its own score and the sum's), the
 * sum's T additions, and a few roundings more: e = u (2 (D + 4) sqrt(D) + 2 T + 32), relative. out
 * is a mean of values of at most 1 with T more roundings: at most 2 e off. Gradients are sums of P
 * (dP - delta) k scale with |dP|, |delta| <= D, at most 2 sqrt(D) times the sum of P taken, which
 * along a column is at most the largest column sum: 8 e sqrt(D) times that.
 *
 * Halves: each op gives its f32 result on the same values rounded once, bit for bit. Against the
 * naive computation e grows by what is stored in between, each rounding v of a half: tiled, only
 * out (as delta): e + 2 v. With scores, these are off by v sqrt(D), so probs by twice that and
 * their own rounding, dprobs and dscores by one each: e + v (2 sqrt(D) + 4).
 */
#include "kernels/half.h"
#include "kernels/host/isa-sets.h"
#include "kernels/testing.h"

#include <math.h>
#include <string.h>

void attention_test(void);

enum array { QKV, DOUT, OUT, LSE, SCORES, PROBS, DPROBS, DSCORES, DQKV, WORK, ARRAYS };

struct problem {
    enum oom_dtype dtype;
    int64_t batch, positions, channels, heads;
    void *x[ARRAYS];
    void *scratch;
};

static int64_t array_count(const struct problem *p, int which) {
    int64_t rows = p->batch * p->positions, lines = p->batch * p->heads * p->positions;
    switch (which) {
    case QKV:
    case DQKV:
        return rows * p->channels * 3;
    case DOUT:
    case OUT:
        return rows * p->channels;
    case LSE:
        return lines;
    case WORK:
        return lines + (oom_dtype_is_half(p->dtype) ? rows * p->channels : 0);
    default:
        return lines * p->positions;
    }
}

static enum oom_dtype array_dtype(const struct problem *p, int which) {
    return which == LSE || which == WORK ? oom_dtype_wide(p->dtype) : p->dtype;
}

static size_t array_bytes(const struct problem *p, int which) {
    return (size_t)array_count(p, which) * oom_dtype_bytes(array_dtype(p, which));
}

static double get(const struct problem *p, int which, int64_t i) {
    enum oom_dtype dtype = array_dtype(p, which);
    if (oom_dtype_is_half(dtype)) return oom_f32_from_half(dtype, ((uint16_t *)p->x[which])[i]);
    return dtype == OOM_F32 ? (double)((const float *)p->x[which])[i]
                            : ((const double *)p->x[which])[i];
}

static void set(const struct problem *p, int which, int64_t i, double value) {
    enum oom_dtype dtype = array_dtype(p, which);
    if (oom_dtype_is_half(dtype))
        ((uint16_t *)p->x[which])[i] = oom_half_from_f64(dtype, value);
    else if (dtype == OOM_F32)
        ((float *)p->x[which])[i] = (float)value;
    else
        ((double *)p->x[which])[i] = value;
}

static void problem_free(struct problem *p) {
    for (int i = 0; i < ARRAYS; i++) oom_host_free(p->x[i]);
    oom_host_free(p->scratch);
}

/* Everything but the inputs starts as 7, so that what must not be written can be looked at. */
static bool problem_make(struct problem *p, enum oom_dtype dtype, int64_t batch, int64_t positions,
                         int64_t channels, int64_t heads) {
    *p = (struct problem){dtype, batch, positions, channels, heads, {NULL}, NULL};
    uint64_t state = 11;
    for (int a = 0; a < ARRAYS; a++) {
        p->x[a] = oom_host_alloc(array_bytes(p, a));
        if (p->x[a] == NULL) return false;
        for (int64_t i = 0; i < array_count(p, a); i++)
            set(p, a, i, a == QKV || a == DOUT ? oom_test_random(&state) : 7);
    }
    p->scratch = oom_host_alloc(OOM_HOST_SCRATCH_BYTES);
    return p->scratch != NULL;
}

#define AT(p, which) ((uintptr_t)(p)->x[which])
#define SHAPE(p) \
    .dtype = (p)->dtype, .batch = (p)->batch, .positions = (p)->positions, .heads = (p)->heads
#define RUN(op, name, ...) \
    do { \
        struct oom_attention_##name##_args args = {SHAPE(p), __VA_ARGS__}; \
        oom_test_run_parts(kernels, op, &args, parts, p->scratch); \
    } while (0)

typedef void step(struct problem *p, const struct oom_host_kernels *kernels, int parts);

static void scores(struct problem *p, const struct oom_host_kernels *kernels, int parts) {
    RUN(OOM_OP_ATTENTION_SCORES_FORWARD, scores_forward, .channels = p->channels, .qkv = AT(p, QKV),
        .scores = AT(p, SCORES));
}

static void softmax(struct problem *p, const struct oom_host_kernels *kernels, int parts) {
    RUN(OOM_OP_ATTENTION_SOFTMAX_FORWARD, softmax_forward, .scores = AT(p, SCORES),
        .probs = AT(p, PROBS));
}

static void values(struct problem *p, const struct oom_host_kernels *kernels, int parts) {
    RUN(OOM_OP_ATTENTION_VALUES_FORWARD, values_forward, .channels = p->channels,
        .probs = AT(p, PROBS), .qkv = AT(p, QKV), .out = AT(p, OUT));
}

static void values_back(struct problem *p, const struct oom_host_kernels *kernels, int parts) {
    RUN(OOM_OP_ATTENTION_VALUES_BACKWARD, values_backward, .channels = p->channels,
        .dout = AT(p, DOUT), .probs = AT(p, PROBS), .qkv = AT(p, QKV), .dprobs = AT(p, DPROBS),
        .dqkv = AT(p, DQKV));
}

static void softmax_back(struct problem *p, const struct oom_host_kernels *kernels, int parts) {
    RUN(OOM_OP_ATTENTION_SOFTMAX_BACKWARD, softmax_backward, .probs = AT(p, PROBS),
        .dprobs = AT(p, DPROBS), .dscores = AT(p, DSCORES));
}

static void scores_back(struct problem *p, const struct oom_host_kernels *kernels, int parts) {
    RUN(OOM_OP_ATTENTION_SCORES_BACKWARD, scores_backward, .channels = p->channels,
        .dscores = AT(p, DSCORES), .qkv = AT(p, QKV), .dqkv = AT(p, DQKV));
}

static void scores_forward(struct problem *p, const struct oom_host_kernels *kernels, int parts) {
    scores(p, kernels, parts);
    softmax(p, kernels, parts);
    values(p, kernels, parts);
}

static void scores_backward(struct problem *p, const struct oom_host_kernels *kernels, int parts) {
    values_back(p, kernels, parts);
    softmax_back(p, kernels, parts);
    scores_back(p, kernels, parts);
}

static void tiled_forward(struct problem *p, const struct oom_host_kernels *kernels, int parts) {
    RUN(OOM_OP_ATTENTION_TILED_FORWARD, tiled_forward, .channels = p->channels, .qkv = AT(p, QKV),
        .out = AT(p, OUT), .lse = AT(p, LSE));
}

static void tiled_backward(struct problem *p, const struct oom_host_kernels *kernels, int parts) {
    RUN(OOM_OP_ATTENTION_TILED_BACKWARD, tiled_backward, .channels = p->channels,
        .dout = AT(p, DOUT), .out = AT(p, OUT), .qkv = AT(p, QKV), .lse = AT(p, LSE),
        .dqkv = AT(p, DQKV), .workspace = AT(p, WORK));
}

static const struct kind {
    const char *name;
    step *forward, *backward;
} kinds[] = {{"scores", scores_forward, scores_backward}, {"tiled", tiled_forward, tiled_backward}};

/* Every op, in an order in which each finds what it reads. */
static const struct {
    const char *name;
    step *run;
} ops[] = {{"scores_forward", scores},         {"softmax_forward", softmax},
           {"values_forward", values},         {"values_backward", values_back},
           {"softmax_backward", softmax_back}, {"scores_backward", scores_back},
           {"tiled_forward", tiled_forward},   {"tiled_backward", tiled_backward}};

enum { KINDS = 2 };

/* ---- the naive computation, f64, written from the formula ---- */

struct naive {
    double *out, *lse, *dqkv, *probs;
    double columns; /* largest column sum of the probabilities, at least 1 */
};

static double naive_dot(const struct problem *p, int x, int64_t x0, int y, int64_t y0) {
    double sum = 0;
    for (int64_t d = 0; d < p->channels / p->heads; d++)
        sum += get(p, x, x0 + d) * get(p, y, y0 + d);
    return sum;
}

static void naive_head(const struct problem *p, int64_t b, int64_t head, struct naive *n) {
    int64_t T = p->positions, C = p->channels, D = C / p->heads;
    double scale = 1 / sqrt((double)D);
    for (int64_t i = 0; i < T; i++) {
        int64_t q = (b * T + i) * 3 * C + head * D, out = (b * T + i) * C + head * D;
        double sum = 0, delta = 0;
        for (int64_t j = 0; j <= i; j++) {
            int64_t k = (b * T + j) * 3 * C + C + head * D;
            n->probs[i * T + j] = exp(scale * naive_dot(p, QKV, q, QKV, k));
            sum += n->probs[i * T + j];
        }
        n->lse[(b * p->heads + head) * T + i] = log(sum);
        for (int64_t j = 0; j <= i; j++) n->probs[i * T + j] /= sum;
        for (int64_t d = 0; d < D; d++) {
            n->out[out + d] = 0;
            for (int64_t j = 0; j <= i; j++)
                n->out[out + d] +=
                    n->probs[i * T + j] * get(p, QKV, (b * T + j) * 3 * C + 2 * C + head * D + d);
            delta += n->out[out + d] * get(p, DOUT, out + d);
        }
        for (int64_t j = 0; j <= i; j++) {
            int64_t k = (b * T + j) * 3 * C + C + head * D, v = k + C;
            double P = n->probs[i * T + j];
            double dS = P * (naive_dot(p, DOUT, out, QKV, v) - delta);
            for (int64_t d = 0; d < D; d++) {
                n->dqkv[q + d] += scale * dS * get(p, QKV, k + d);
                n->dqkv[k + d] += scale * dS * get(p, QKV, q + d);
                n->dqkv[v + d] += P * get(p, DOUT, out + d);
            }
        }
    }
    for (int64_t j = 0; j < T; j++) {
        double sum = 0;
        for (int64_t i = j; i < T; i++) sum += n->probs[i * T + j];
        if (sum > n->columns) n->columns = sum;
    }
}

static bool naive_make(const struct problem *p, struct naive *n) {
    *n = (struct naive){
        .out = oom_host_calloc((size_t)array_count(p, OUT), sizeof(double)),
        .lse = oom_host_calloc((size_t)array_count(p, LSE), sizeof(double)),
        .dqkv = oom_host_calloc((size_t)array_count(p, DQKV), sizeof(double)),
        .probs = oom_host_calloc((size_t)(p->positions * p->positions), sizeof(double)),
        .columns = 1,
    };
    if (!n->out || !n->lse || !n->dqkv || !n->probs) return false;
    for (int64_t b = 0; b < p->batch; b++)
        for (int64_t h = 0; h < p->heads; h++) naive_head(p, b, h, n);
    return true;
}

static void naive_free(struct naive *n) {
    oom_host_free(n->out);
    oom_host_free(n->lse);
    oom_host_free(n->dqkv);
    oom_host_free(n->probs);
}

static double largest_error(const struct problem *p, int which, const double *expected) {
    double largest = 0;
    for (int64_t i = 0; i < array_count(p, which); i++) {
        double error = fabs(get(p, which, i) - expected[i]);
        if (!(error <= largest)) largest = error; /* a NaN stays */
    }
    return largest;
}

/* ---- checks ---- */

/* The relative error of a probability; `kind` as in kinds. */
static double error_of(const struct problem *p, int kind) {
    enum oom_dtype wide = oom_dtype_wide(p->dtype);
    double d = (double)(p->channels / p->heads), u = oom_dtype_roundoff(wide);
    double half = oom_dtype_is_half(p->dtype) ? oom_dtype_roundoff(p->dtype) : 0;
    /* the naive computation itself rounds in f64 */
    double e =
        (wide == OOM_F64 ? 2 * u : u) * (2 * (d + 4) * sqrt(d) + 2 * (double)p->positions + 32);
    return e + half * (kind == 0 ? 2 * sqrt(d) + 4 : 2);
}

static void check_naive(struct problem *p, const struct oom_host_kernels *kernels) {
    struct naive n;
    double d = (double)(p->channels / p->heads);
    bool made = naive_make(p, &n);
    CHECK(made);
    for (int k = 0; made && k < KINDS; k++) {
        kinds[k].forward(p, kernels, 1);
        kinds[k].backward(p, kernels, 1);
        double out = largest_error(p, OUT, n.out), grads = largest_error(p, DQKV, n.dqkv);
        double e = error_of(p, k), bound = 8 * e * sqrt(d) * n.columns;
        CHECK_MSG(out <= 2 * e, "%s: out off by %.3g, bound %.3g", kinds[k].name, out, 2 * e);
        CHECK_MSG(grads <= bound, "%s: dqkv off by %.3g, bound %.3g", kinds[k].name, grads, bound);
    }
    double lse = made ? largest_error(p, LSE, n.lse) : NAN, e = error_of(p, 1);
    CHECK_MSG(lse <= 4 * e, "lse off by %.3g, bound %.3g", lse, 4 * e);
    naive_free(&n);
}

/* Every op on halves equals the op on f32 that is given the same values, rounded once. */
static void check_rounded(struct problem *p, const struct oom_host_kernels *kernels) {
    struct problem q;
    bool made = problem_make(&q, OOM_F32, p->batch, p->positions, p->channels, p->heads);
    CHECK(made);
    for (size_t o = 0; made && o < sizeof(ops) / sizeof(ops[0]); o++) {
        int64_t wrong = 0;
        for (int a = 0; a < WORK; a++)
            for (int64_t i = 0; i < array_count(p, a); i++) set(&q, a, i, get(p, a, i));
        ops[o].run(p, kernels, 1);
        ops[o].run(&q, kernels, 1);
        for (int a = 0; a < WORK; a++)
            for (int64_t i = 0; i < array_count(p, a); i++) {
                double got = get(p, a, i), wide = get(&q, a, i);
                if (a != LSE)
                    wide = oom_f32_from_half(p->dtype, oom_half_from_f32(p->dtype, (float)wide));
                if (memcmp(&got, &wide, sizeof(got)) != 0) wrong++;
            }
        CHECK_MSG(wrong == 0, "%s: %lld elements are not the rounded ones", ops[o].name,
                  (long long)wrong);
    }
    problem_free(&q);
}

/* What was computed last is kept as `saved` and compared with another way to compute it. */
static bool same_as_saved(const struct problem *p, void *const saved[ARRAYS]) {
    bool same = true;
    for (int a = OUT; a < WORK; a++)
        if (memcmp(p->x[a], saved[a], array_bytes(p, a)) != 0) same = false;
    return same;
}

static void check_sets(struct problem *p) {
    const struct oom_host_kernels *sets[OOM_ISA_COUNT];
    int n = oom_test_isa_sets(sets);
    void *saved[ARRAYS] = {NULL};
    bool made = true;
    for (int a = 0; a < ARRAYS; a++) made &= (saved[a] = oom_host_alloc(array_bytes(p, a))) != NULL;
    CHECK(made);
    for (int k = 0; made && k < KINDS; k++) {
        kinds[k].forward(p, sets[0], 1);
        kinds[k].backward(p, sets[0], 1);
        for (int a = 0; a < ARRAYS; a++) memcpy(saved[a], p->x[a], array_bytes(p, a));
        for (int s = 0; s < n; s++)
            for (int parts = 1; parts <= 3; parts++) {
                kinds[k].forward(p, sets[s], parts);
                kinds[k].backward(p, sets[s], parts);
                CHECK_MSG(same_as_saved(p, saved), "%s: %s in %d parts", kinds[k].name,
                          sets[s]->isa, parts);
            }
    }
    for (int a = 0; a < ARRAYS; a++) oom_host_free(saved[a]);
}

static void check_future_untouched(const struct problem *p) {
    int64_t wrong = 0, T = p->positions;
    for (int a = SCORES; a <= DSCORES; a++)
        for (int64_t i = 0; i < array_count(p, a); i++)
            if (i % T > i / T % T && !(get(p, a, i) == 7)) wrong++;
    CHECK_EQ(wrong, 0);
}

static void test_shapes(enum oom_dtype dtype) {
    static const int64_t shapes[][4] = {{2, 1, 4, 2},    {3, 5, 9, 3},    {2, 70, 34, 2},
                                        {1, 130, 64, 2}, {1, 65, 256, 1}, {2, 64, 32, 8},
                                        {1, 9, 260, 1}};
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
        const int64_t *d = shapes[s];
        TEST("attention: %s B %d, T %d, C %d, heads %d: naive, all sets and parts, the future",
             oom_dtype_name(dtype), (int)d[0], (int)d[1], (int)d[2], (int)d[3]);
        const struct oom_host_kernels *kernels = NULL;
        CHECK_OK(oom_host_kernels_select(OOM_ISA_AUTO, &kernels));
        struct problem p;
        bool made = problem_make(&p, dtype, d[0], d[1], d[2], d[3]);
        CHECK(made);
        if (made) {
            check_naive(&p, kernels);
            check_sets(&p);
            if (oom_dtype_is_half(dtype)) check_rounded(&p, kernels);
            check_future_untouched(&p);
        }
        problem_free(&p);
    }
}

/* The second sample alone must give what it gives in the batch. */
static void test_batch(enum oom_dtype dtype) {
    TEST("attention: %s a sample's results do not depend on its batch", oom_dtype_name(dtype));
    const struct oom_host_kernels *kernels = NULL;
    CHECK_OK(oom_host_kernels_select(OOM_ISA_AUTO, &kernels));
    struct problem both, one;
    bool made = problem_make(&both, dtype, 2, 67, 20, 2);
    made &= problem_make(&one, dtype, 1, 67, 20, 2);
    CHECK(made);
    static const int inputs[] = {QKV, DOUT}, outputs[] = {OUT, DQKV};
    for (int k = 0; made && k < KINDS; k++) {
        for (int i = 0; i < 2; i++) {
            size_t bytes = array_bytes(&one, inputs[i]);
            memcpy(one.x[inputs[i]], (char *)both.x[inputs[i]] + bytes, bytes);
        }
        kinds[k].forward(&both, kernels, 1);
        kinds[k].backward(&both, kernels, 1);
        kinds[k].forward(&one, kernels, 1);
        kinds[k].backward(&one, kernels, 1);
        for (int i = 0; i < 2; i++) {
            size_t bytes = array_bytes(&one, outputs[i]);
            CHECK_MSG(memcmp(one.x[outputs[i]], (char *)both.x[outputs[i]] + bytes, bytes) == 0,
                      "%s", kinds[k].name);
        }
    }
    problem_free(&both);
    problem_free(&one);
}

/* Whatever is put into token t, even NaN, earlier outputs keep their bits; and whatever is in dout
 * of token t, later gradients keep theirs. */
static void test_causality(enum oom_dtype dtype, double poison) {
    TEST("attention: %s causality bit by bit, %g in one token", oom_dtype_name(dtype), poison);
    enum { T = 131, C = 12, AT_TOKEN = 77 };
    const struct oom_host_kernels *sets[OOM_ISA_COUNT];
    int n = oom_test_isa_sets(sets);
    struct problem p, q;
    bool made = problem_make(&p, dtype, 1, T, C, 2);
    made &= problem_make(&q, dtype, 1, T, C, 2);
    CHECK(made);
    size_t out_row = C * oom_dtype_bytes(dtype), qkv_row = 3 * out_row;
    for (int k = 0; made && k < KINDS; k++)
        for (int s = 0; s < n; s++) {
            kinds[k].forward(&p, sets[s], 1);
            kinds[k].backward(&p, sets[s], 1);
            memcpy(q.x[QKV], p.x[QKV], array_bytes(&p, QKV));
            for (int i = 0; i < 3 * C; i++) set(&q, QKV, AT_TOKEN * 3 * C + i, poison);
            kinds[k].forward(&q, sets[s], 1);
            CHECK_MSG(memcmp(p.x[OUT], q.x[OUT], AT_TOKEN * out_row) == 0, "%s forward, %s",
                      kinds[k].name, sets[s]->isa);
            CHECK(memcmp((char *)p.x[OUT] + AT_TOKEN * out_row,
                         (char *)q.x[OUT] + AT_TOKEN * out_row, out_row) != 0);
            memcpy(q.x[QKV], p.x[QKV], array_bytes(&p, QKV));
            memcpy(q.x[DOUT], p.x[DOUT], array_bytes(&p, DOUT));
            for (int i = 0; i < C; i++) set(&q, DOUT, AT_TOKEN * C + i, poison);
            kinds[k].forward(&q, sets[s], 1);
            kinds[k].backward(&q, sets[s], 1);
            size_t at = (AT_TOKEN + 1) * qkv_row;
            CHECK_MSG(memcmp((char *)p.x[DQKV] + at, (char *)q.x[DQKV] + at, T * qkv_row - at) == 0,
                      "%s backward, %s", kinds[k].name, sets[s]->isa);
            CHECK(memcmp(p.x[DQKV], q.x[DQKV], qkv_row) != 0);
        }
    problem_free(&p);
    problem_free(&q);
}

static double loss(struct problem *p, const struct oom_host_kernels *kernels, step *forward) {
    forward(p, kernels, 1);
    double sum = 0;
    for (int64_t i = 0; i < array_count(p, OUT); i++) sum += get(p, OUT, i) * get(p, DOUT, i);
    return sum;
}

/* Central differences: their error is h^2 f'''/6 + u f/h; with h = 1e-4 below 1e-7 here. */
static void test_differences(void) {
    const double h = 1e-4;
    const struct oom_host_kernels *kernels = NULL;
    CHECK_OK(oom_host_kernels_select(OOM_ISA_AUTO, &kernels));
    for (int k = 0; k < KINDS; k++) {
        TEST("attention: %s backward equals finite differences in f64", kinds[k].name);
        struct problem p;
        bool made = problem_make(&p, OOM_F64, 1, 67, 6, 2);
        CHECK(made);
        double worst = 0;
        kinds[k].forward(&p, kernels, 1);
        kinds[k].backward(&p, kernels, 1);
        for (int64_t i = 0; made && i < array_count(&p, QKV); i += 7) {
            double x = get(&p, QKV, i);
            set(&p, QKV, i, x + h);
            double above = loss(&p, kernels, kinds[k].forward);
            set(&p, QKV, i, x - h);
            double below = loss(&p, kernels, kinds[k].forward);
            set(&p, QKV, i, x);
            double error = fabs((above - below) / (2 * h) - get(&p, DQKV, i));
            if (!(error <= worst)) worst = error;
        }
        CHECK_MSG(worst <= 1e-7, "largest difference %.3g", worst);
        problem_free(&p);
    }
}

void attention_test(void) {
    static const enum oom_dtype dtypes[] = {OOM_F32, OOM_F64, OOM_F16, OOM_BF16};
    for (size_t i = 0; i < 4; i++) {
        test_shapes(dtypes[i]);
        test_batch(dtypes[i]);
        test_causality(dtypes[i], 0.25);
        test_causality(dtypes[i], (double)NAN);
    }
    test_differences();
}
