/*
 * gradients-test.c: whole models against finite differences, in f64: the derivative of the
 * window's loss by one element, from losses alone.
 *
 *   D(h) = (L(w + h) - L(w - h)) / 2h,   L'(w) = (4 D(h/2) - D(h)) / 3 + O(h^4)   (Richardson)
 */
#include "harness/train/train-testing.h"

#include <math.h>
#include <stdio.h>

void gradients_test(void);

static const double step_size = 0x1p-12;
enum { PER_PARAMETER = 5, SIGNS_MAX = 1 << 14 };

/* The signs before each ReLU, in the order they come. */
struct signs {
    struct rig *rig;
    uint8_t now[SIGNS_MAX], base[SIGNS_MAX];
    int64_t count;
};

static enum oom_status see_signs(void *context, const struct oom_kink *kink) {
    struct signs *signs = context;
    double value;
    for (int64_t i = 0; i < kink->samples * kink->elements; i++) {
        uint8_t now;
        if (kink->kind == OOM_KINK_POOL) {
            rig_download(signs->rig, kink->taken->data + (uint64_t)i, &now, 1);
        } else {
            rig_download(signs->rig, kink->x->data + (uint64_t)i * 8, &value, 8);
            now = value > 0;
        }
        if (CHECK(signs->count < SIGNS_MAX)) signs->now[signs->count++] = now;
    }
    return OOM_OK;
}

static double loss_of(struct rig *rig, struct signs *signs) {
    struct oom_trainer *t = rig->trainer;
    double loss = NAN;
    signs->count = 0;
    CHECK_OK(oom_trainer_begin_step(t));
    CHECK_OK(oom_trainer_micro_batch(t, &rig->window, 0, rig->window.samples,
                                     (struct oom_weighing){.divisor = rig->window.total}));
    rig_download(rig, t->loss.data, &loss, 8);
    CHECK_OK(oom_trainer_drop(t));
    return loss;
}

struct difference {
    double value;
    bool flipped; /* a ReLU changed its branch on the way */
};

static double loss_at(struct rig *rig, struct signs *signs, oom_devptr where, double value,
                      struct difference *d) {
    rig_upload(rig, where, &value, 8);
    double loss = loss_of(rig, signs);
    d->flipped = d->flipped || memcmp(signs->now, signs->base, (size_t)signs->count) != 0;
    return loss;
}

static struct difference differentiate(struct rig *rig, struct signs *signs, oom_devptr where) {
    struct difference d = {0};
    double w, slopes[2];
    rig_download(rig, where, &w, 8);
    for (int i = 0; i < 2; i++) {
        double h = i == 0 ? step_size : step_size / 2;
        double above = loss_at(rig, signs, where, w + h, &d);
        double below = loss_at(rig, signs, where, w - h, &d);
        slopes[i] = (above - below) / ((w + h) - (w - h));
    }
    rig_upload(rig, where, &w, 8);
    d.value = (4 * slopes[1] - slopes[0]) / 3;
    return d;
}

static int64_t largest(const double *values, int64_t n) {
    int64_t at = 0;
    for (int64_t i = 1; i < n; i++) {
        if (fabs(values[i]) > fabs(values[at])) at = i;
    }
    return at;
}

struct tally {
    int compared, flipped;
    double worst;
};

/* The largest element, where a wrong factor shows best, and some others. */
static void check_parameter(struct rig *rig, struct signs *signs, int index, const double *gradient,
                            struct oom_rng *rng, struct tally *tally) {
    const struct oom_parameter *p = &rig->trainer->parameters[index];
    int64_t n = oom_parameter_n(p), top = largest(gradient, n);
    double scale = fabs(gradient[top]);
    CHECK_MSG(scale > 1e-6, "%s has a gradient: its largest element is %g", p->name, scale);
    for (int k = 0; k < PER_PARAMETER; k++) {
        int64_t i = k == 0 ? top : (int64_t)oom_rng_below(rng, (uint32_t)n);
        struct difference d = differentiate(rig, signs, p->value.data + (uint64_t)i * 8);
        tally->flipped += d.flipped;
        if (d.flipped) continue;
        double error = fabs(d.value - gradient[i]), bound = 1e-6 * scale + 1e-11;
        CHECK_MSG(error <= bound, "%s[%lld]: gradient %.12g, difference %.12g", p->name,
                  (long long)i, gradient[i], d.value);
        tally->compared++;
        if (error / scale > tally->worst) tally->worst = error / scale;
    }
}

static void check_model(const char *model, uint64_t seed, int64_t samples, int64_t distinct,
                        bool tokens) {
    struct rig rig;
    static struct signs signs;
    struct snapshot truth = {0};
    struct tally tally = {0};
    TEST("gradients: %s, seed %d, %d samples of %d%s", model, (int)seed, (int)samples,
         (int)distinct, tokens ? ", token weights" : "");
    rig_open(&rig, &(struct rig_options){.model = model,
                                         .seed = seed,
                                         .dtype = OOM_F64,
                                         .gradients = OOM_GRADIENTS_ZEROED});
    rig_window(&rig, samples, distinct, tokens);
    signs = (struct signs){.rig = &rig};
    rig.trainer->branches = (struct oom_branches){.context = &signs, .see = see_signs};
    loss_of(&rig, &signs);
    memcpy(signs.base, signs.now, sizeof signs.base);
    snapshot_take(&rig, false, &truth);
    struct oom_rng rng = {seed};
    const double *gradient = (const double *)(void *)truth.bytes;
    for (int i = 0; i < rig.trainer->parameter_count; i++) {
        check_parameter(&rig, &signs, i, gradient, &rng, &tally);
        gradient += oom_parameter_n(&rig.trainer->parameters[i]);
    }
    CHECK_MSG(tally.flipped * 4 <= tally.compared, "%d compared, %d with a flipped ReLU",
              tally.compared, tally.flipped);
    printf("# %d compared, %d left out for a flipped ReLU, worst %.1e of the largest element\n",
           tally.compared, tally.flipped, tally.worst);
    snapshot_free(&truth);
    rig_close(&rig);
}

/* The key's bias adds one number to all scores of a row of the softmax: no gradient at all. */
static void key_bias(const char *model) {
    struct rig rig;
    struct snapshot gradients = {0};
    TEST("gradients: %s: the bias of the keys has none", model);
    rig_open(&rig, &(struct rig_options){.model = model, .dtype = OOM_F64});
    rig_window(&rig, 3, 0, false);
    CHECK_OK(rig_step(&rig, (struct oom_cut){.micro = 3}, &gradients));
    const double *at = (const double *)(void *)gradients.bytes;
    int seen = 0;
    for (int i = 0; i < rig.trainer->parameter_count; i++) {
        const struct oom_parameter *p = &rig.trainer->parameters[i];
        int64_t n = oom_parameter_n(p);
        for (int64_t k = n / 3; strstr(p->name, "qkv.bias") != NULL && k < 2 * n / 3; k++) {
            CHECK_MSG(fabs(at[k]) <= 1e-15, "%s[%lld] is %g", p->name, (long long)k, at[k]);
            seen++;
        }
        at += n;
    }
    CHECK(seen > 0);
    snapshot_free(&gradients);
    rig_close(&rig);
}

/* ---- branches from outside ---- */

static enum oom_status take_signs(void *context, const struct oom_kink *kink, uint8_t *out) {
    const struct signs *signs = context;
    const struct oom_trainer *t = signs->rig->trainer;
    int64_t n = kink->samples * kink->elements;
    CHECK_EQ(kink->begin, t->first_sample);
    memcpy(out, signs->base + kink->index * n, (size_t)n);
    return OOM_OK;
}

static void taken_branches(void) {
    static struct signs signs;
    struct rig rig;
    struct snapshot own = {0}, same = {0}, turned = {0};
    TEST("gradients: the own branches taken from outside change no bit, one other does");
    rig_open(&rig,
             &(struct rig_options){.model = "mlp,layers=3,width=8,rows=3,vocab=5,dropout=0.125",
                                   .dtype = OOM_F64,
                                   .gradients = OOM_GRADIENTS_ZEROED});
    rig_window(&rig, 4, 0, false);
    signs = (struct signs){.rig = &rig};
    rig.trainer->branches = (struct oom_branches){.context = &signs, .see = see_signs};
    loss_of(&rig, &signs);
    snapshot_take(&rig, false, &own);
    CHECK_EQ(signs.count, 3 * 4 * 3 * 8);
    memcpy(signs.base, signs.now, sizeof signs.base);
    rig.trainer->branches = (struct oom_branches){.context = &signs, .take = take_signs};
    CHECK_OK(oom_trainer_clear_gradients(rig.trainer));
    loss_of(&rig, &signs);
    snapshot_take(&rig, false, &same);
    CHECK(snapshot_same(&own, &same));
    signs.base[2 * 96] ^= 1;
    CHECK_OK(oom_trainer_clear_gradients(rig.trainer));
    loss_of(&rig, &signs);
    snapshot_take(&rig, false, &turned);
    CHECK(!snapshot_same(&own, &turned));
    snapshot_free(&own);
    snapshot_free(&same);
    snapshot_free(&turned);
    rig_close(&rig);
}

void gradients_test(void) {
    check_model("mlp,layers=1,width=5,rows=1,vocab=3", 1, 4, 4, false);
    check_model("mlp,layers=3,width=9,rows=3,vocab=4", 2, 5, 2, false);
    check_model("mlp,layers=2,width=8,rows=5,vocab=6,dropout=0.125", 3, 3, 2, true);
    check_model("gpt,layers=1,width=4,heads=1,context=5,vocab=7", 1, 2, 2, false);
    check_model("gpt,layers=2,width=6,heads=3,context=7,vocab=11,attention=scores", 2, 3, 2, true);
    check_model("gpt,layers=2,width=8,heads=2,context=6,vocab=9,dropout=0.125", 3, 3, 3, true);
    check_model("gpt,layers=1,width=8,heads=2,context=9,vocab=13,tied=1", 4, 3, 2, false);
    check_model(
        "gpt,layers=2,width=4,heads=2,context=5,vocab=8,tied=1,attention=scores,dropout=0.125", 5,
        3, 2, true);
    check_model("cnn,layers=2,width=4,image=4,stages=2,norm=group,groups=2,vocab=5", 6, 3, 2,
                false);
    check_model("cnn,layers=1,width=3,image=3,stages=1,norm=batch,vocab=4", 7, 4, 2, false);
    check_model("cnn,layers=2,width=2,image=4,stages=2,norm=batch,vocab=3,dropout=0.125", 8, 3, 3,
                false);
    key_bias("gpt,layers=2,width=8,heads=2,context=6,vocab=9");
    key_bias("gpt,layers=2,width=8,heads=2,context=6,vocab=9,attention=scores");
    taken_branches();
}
