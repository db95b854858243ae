/*
 * optimizer-test.c: five updates of SGD and AdamW against the published formulas in double, on a
 * model whose gradients are set by hand.
 *
 *   SGD     v = a v + g;  w -= r v                     (a 7/8, r 2^-10; PyTorch's form)
 *   AdamW   w -= r d w;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
 *           w -= r (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + e)
 *           (Loshchilov, Hutter 2019; b1 0.9, b2 0.999, e 1e-8, d 0.01)
 */
#include "harness/train/optimizer.h"

#include "harness/train/train-testing.h"

#include <math.h>

void optimizer_test(void);

struct naive {
    double w, first, second; /* first: v of SGD, m of AdamW */
};

static void sgd(struct naive *x, double g, int t) {
    (void)t;
    x->first = 0.875 * x->first + g;
    x->w -= x->first / 1024;
}

static void adamw(struct naive *x, double g, int t) {
    x->w -= x->w * 0.01 / 1024;
    x->first = 0.9 * x->first + (1 - 0.9) * g;
    x->second = 0.999 * x->second + (1 - 0.999) * g * g;
    double m = x->first / (1 - pow(0.9, t)), v = x->second / (1 - pow(0.999, t));
    x->w -= m / (sqrt(v) + 1e-8) / 1024;
}

static double read_real(struct rig *rig, oom_devptr from, int64_t i) {
    double wide = 0;
    float narrow = 0;
    bool is_wide = rig->session.dtype == OOM_F64;
    rig_download(rig, from + (uint64_t)i * rig_real(rig), is_wide ? (void *)&wide : (void *)&narrow,
                 rig_real(rig));
    return is_wide ? wide : (double)narrow;
}

static void write_real(struct rig *rig, oom_devptr to, int64_t i, double value) {
    float narrow = (float)value;
    bool wide = rig->session.dtype == OOM_F64;
    rig_upload(rig, to + (uint64_t)i * rig_real(rig), wide ? (void *)&value : (void *)&narrow,
               rig_real(rig));
}

/* From 1e-6 to 1e2, of both signs, and some zeros: epsilon shows in the small ones. */
static double draw_gradient(struct oom_rng *rng) {
    uint32_t kind = oom_rng_below(rng, 20);
    double size = pow(10, 8 * oom_rng_uniform(rng) - 6);
    return kind == 0 ? 0 : (double)(float)(kind % 2 == 0 ? size : -size);
}

enum { ELEMENTS_MAX = 4096 };

/* `closeness` in units of the update's size, plus some roundings of the weight. */
static void against_naive(enum oom_optimizer optimizer, enum oom_dtype dtype) {
    static struct naive naive[ELEMENTS_MAX];
    void (*update)(struct naive *, double, int) = optimizer == OOM_OPTIMIZER_SGD ? sgd : adamw;
    double u = oom_dtype_roundoff(dtype);
    struct rig rig;
    struct oom_rng rng = {11};
    TEST("optimizer: five updates agree with the formula: %s, %s",
         optimizer == OOM_OPTIMIZER_SGD ? "sgd" : "adamw", oom_dtype_name(dtype));
    rig_open(&rig, &(struct rig_options){.model = "mlp,layers=2,width=13,rows=1,vocab=3",
                                         .dtype = dtype,
                                         .optimizer = optimizer,
                                         .gradients = OOM_GRADIENTS_ZEROED});
    struct oom_trainer *t = rig.trainer;
    for (int step = 1; step <= 5; step++) {
        int at = 0;
        for (int i = 0; i < t->parameter_count; i++) {
            struct oom_parameter *p = &t->parameters[i];
            for (int64_t k = 0; k < oom_parameter_n(p) && CHECK(at < ELEMENTS_MAX); k++, at++) {
                double g = draw_gradient(&rng);
                if (step == 1) naive[at] = (struct naive){.w = read_real(&rig, p->value.data, k)};
                write_real(&rig, p->gradient.data, k, g);
                update(&naive[at], g, step);
            }
        }
        CHECK_OK(oom_optimizer_update(t));
        CHECK_EQ(t->optimizer_steps, step);
    }
    int at = 0;
    for (int i = 0; i < t->parameter_count; i++) {
        struct oom_parameter *p = &t->parameters[i];
        for (int64_t k = 0; k < oom_parameter_n(p); k++, at++) {
            double w = read_real(&rig, p->value.data, k), expected = naive[at].w;
            double bound = 64 * u * (fabs(expected) + 0.01) + 16 * u * fabs(naive[at].first) / 64;
            CHECK_MSG(fabs(w - expected) <= bound, "%s[%d]: %.12g, expected %.12g", p->name, (int)k,
                      w, expected);
        }
        CHECK((p->state[0].data != 0) &&
              (p->state[1].data != 0) == (optimizer != OOM_OPTIMIZER_SGD));
    }
    rig_close(&rig);
}

/* States are made at the first update and kept: the second one allocates nothing. */
static void states_once(enum oom_optimizer optimizer, int per_parameter) {
    struct rig rig;
    TEST("optimizer: states are made once, %d a parameter", per_parameter);
    rig_open(&rig, &(struct rig_options){.model = "mlp,layers=2,width=13,rows=1,vocab=3",
                                         .optimizer = optimizer,
                                         .gradients = OOM_GRADIENTS_ZEROED});
    const struct oom_allocator_stats *stats = oom_allocator_stats(rig.session.allocator);
    uint64_t before = stats->allocations;
    CHECK_EQ(stats->tag_current[OOM_TAG_OPTIMIZER], 0);
    CHECK_OK(oom_optimizer_update(rig.trainer));
    uint64_t bytes = stats->tag_current[OOM_TAG_OPTIMIZER];
    CHECK_EQ(stats->allocations - before, per_parameter * rig.trainer->parameter_count);
    CHECK_EQ(bytes, (uint64_t)per_parameter * stats->tag_current[OOM_TAG_PARAMETER]);
    CHECK_OK(oom_optimizer_update(rig.trainer));
    CHECK_EQ(stats->tag_current[OOM_TAG_OPTIMIZER], bytes);
    CHECK_EQ(stats->allocations - before, per_parameter * rig.trainer->parameter_count);
    rig_close(&rig);
}

void optimizer_test(void) {
    against_naive(OOM_OPTIMIZER_SGD, OOM_F64);
    against_naive(OOM_OPTIMIZER_ADAMW, OOM_F64);
    against_naive(OOM_OPTIMIZER_SGD, OOM_F32);
    against_naive(OOM_OPTIMIZER_ADAMW, OOM_F32);
    states_once(OOM_OPTIMIZER_SGD, 1);
    states_once(OOM_OPTIMIZER_ADAMW, 2);
}
