/*
 * loop-test.c: samples of changing length, evaluations and kept results: the numbers are those of
 * a model that was made for that length, and nothing is left behind but what was asked for.
 */
#include "harness/train/loop.h"

#include "harness/train/train-testing.h"

#include <math.h>

void loop_test(void);

/* ---- lengths ---- */

static double loss_of(struct rig *rig) {
    double loss = 0;
    float narrow = 0;
    bool wide = rig->session.dtype == OOM_F64;
    rig_download(rig, rig->trainer->loss.data, wide ? (void *)&loss : &narrow, wide ? 8 : 4);
    return wide ? loss : (double)narrow;
}

/* One sample cut to `rows`: its loss, and its gradient of one parameter. */
static double cut_step(const char *model, int64_t rows, const char *parameter, uint8_t *gradient,
                       size_t bytes) {
    struct rig rig;
    rig_open(&rig, &(struct rig_options){.model = model, .dtype = OOM_F32});
    rig_window(&rig, 1, 0, false);
    if (rows > 0) oom_window_cut(&rig.window, &rows, 1);
    CHECK_OK(oom_trainer_begin_step(rig.trainer));
    CHECK_OK(oom_trainer_micro_batch(rig.trainer, &rig.window, 0, 1,
                                     (struct oom_weighing){.divisor = rig.window.total}));
    double loss = loss_of(&rig);
    for (int i = 0; i < rig.trainer->parameter_count; i++) {
        const struct oom_parameter *p = &rig.trainer->parameters[i];
        if (strcmp(p->name, parameter) == 0) rig_download(&rig, p->gradient.data, gradient, bytes);
    }
    rig_close(&rig);
    return loss;
}

/* A sample cut to T rows is the sample of a model made for T rows, bit for bit. */
static void cut_is_short(const char *whole, const char *made_for_it, int64_t rows,
                         const char *parameter, size_t bytes) {
    TEST("loop: samples cut to %d rows are those of a model made for them: %s", (int)rows, whole);
    uint8_t cut[4096] = {1}, made[4096] = {2};
    double loss = cut_step(whole, rows, parameter, cut, bytes);
    CHECK(loss > 0 && loss == cut_step(made_for_it, 0, parameter, made, bytes));
    CHECK(memcmp(cut, made, bytes) == 0);
    CHECK(loss != cut_step(whole, 0, parameter, made, bytes));
}

static double window_loss(const int64_t *cut, int64_t begin, int64_t end, double *total) {
    struct rig rig;
    rig_open(&rig, &(struct rig_options){.model = "gpt,layers=1,width=8,heads=2,context=12,vocab=9",
                                         .dtype = OOM_F64});
    rig_window(&rig, 4, 0, false);
    oom_window_cut(&rig.window, cut, 2);
    *total = oom_window_mass(&rig.window, begin, end);
    CHECK_OK(oom_trainer_begin_step(rig.trainer));
    for (int64_t at = begin; at < end; at += 2) {
        CHECK_OK(oom_trainer_micro_batch(rig.trainer, &rig.window, at, at + 2,
                                         (struct oom_weighing){.divisor = *total}));
    }
    double loss = loss_of(&rig);
    rig_close(&rig);
    return loss;
}

static void weights_follow_lengths(void) {
    TEST("loop: each micro-batch has its own length, and its part of the weights");
    static const int64_t cut[] = {11, 4};
    double whole, first, second;
    double loss = window_loss(cut, 0, 4, &whole), a = window_loss(cut, 0, 2, &first),
           b = window_loss(cut, 2, 4, &second);
    CHECK(first == 22 && second == 8 && whole == 30);
    CHECK(fabs(30 * loss - (22 * a + 8 * b)) <= 1e-12 * 30 * loss);
}

/* The reference is splitmix64 itself, drawn in a row. */
static void draws(void) {
    TEST("loop: lengths are drawn by splitmix64 in order, the same when a step is repeated");
    struct rig rig;
    rig_open(&rig, &(struct rig_options){.model = "mlp,layers=1,width=8,rows=1000,vocab=3"});
    struct oom_loop_options options = {.lengths = OOM_LENGTHS_DRAWN, .low = 0.75, .seed = 7};
    struct oom_loop loop;
    CHECK_OK(oom_loop_begin(&loop, &options, &rig.session, 3));
    oom_loop_attach(&loop, rig.trainer);
    struct oom_rng rng = {7};
    for (int step = 0; step < 5; step++) {
        int64_t expected[3];
        for (int j = 0; j < 3; j++) {
            expected[j] = (int64_t)(1000 * (0.75 + 0.25 * oom_rng_uniform(&rng)));
        }
        for (int again = 0; again < 2; again++) {
            CHECK_OK(oom_loop_before(&loop, &rig.source, step));
            CHECK(memcmp(loop.cut, expected, sizeof expected) == 0);
        }
    }
    CHECK_OK(oom_loop_end(&loop, &rig.session));
    options = (struct oom_loop_options){
        .lengths = OOM_LENGTHS_RISING, .low = 0.5, .rising_steps = 3, .seed = 7};
    CHECK_OK(oom_loop_begin(&loop, &options, &rig.session, 1));
    oom_loop_attach(&loop, rig.trainer);
    static const int64_t most[] = {500, 750, 1000, 1000};
    for (int step = 0; step < 4; step++) { /* at most half a percent below */
        CHECK_OK(oom_loop_before(&loop, &rig.source, step));
        CHECK(loop.cut[0] <= most[step] && loop.cut[0] >= most[step] * 995 / 1000 - 1);
    }
    CHECK_OK(oom_loop_end(&loop, &rig.session));
    rig_close(&rig);
}

/* ---- evaluation ---- */

static void evaluation(const char *model, const char *without_dropout) {
    TEST("loop: an evaluation gives the loss of a step, keeps nothing: %s", model);
    struct rig rig, plain;
    rig_open(&rig, &(struct rig_options){.model = model});
    rig_open(&plain, &(struct rig_options){.model = without_dropout});
    rig_window(&rig, 6, 0, false);
    rig_window(&plain, 6, 0, false);
    const struct oom_allocator_stats *stats = oom_allocator_stats(rig.session.allocator);
    int64_t before = stats->allocated_bytes[OOM_POOL_ALL].current;
    double loss = -1;
    oom_allocator_reset_peaks(rig.session.allocator);
    CHECK_OK(oom_trainer_evaluate(rig.trainer, &rig.window, &loss));
    int64_t evaluating = rig_live_peak(&rig);
    CHECK_EQ(stats->allocated_bytes[OOM_POOL_ALL].current, before);
    CHECK_OK(oom_trainer_begin_step(plain.trainer));
    CHECK_OK(oom_trainer_micro_batch(plain.trainer, &plain.window, 0, 6,
                                     (struct oom_weighing){.divisor = plain.window.total}));
    CHECK(loss > 0 && loss == loss_of(&plain));
    CHECK(evaluating < rig_live_peak(&plain));
    double again = -1;
    CHECK_OK(oom_trainer_evaluate(rig.trainer, &rig.window, &again));
    CHECK(again == loss);
    rig_close(&rig);
    rig_close(&plain);
}

/* ---- results and frozen tensors ---- */

enum { RESULT = 3000, FROZEN = 70000 };

static int64_t live(const struct rig *rig) {
    return oom_allocator_stats(rig->session.allocator)->allocated_bytes[OOM_POOL_ALL].current;
}

static int64_t rounded(int64_t bytes) {
    return (bytes + 511) / 512 * 512;
}

static void run_micro_batch(struct rig *rig) {
    CHECK_OK(oom_trainer_micro_batch(rig->trainer, &rig->window, 0, rig->window.samples,
                                     (struct oom_weighing){.divisor = rig->window.total}));
}

static void open_looping(struct rig *rig, struct oom_loop *loop,
                         const struct oom_loop_options *options) {
    rig_open(rig, &(struct rig_options){.model = "mlp,layers=3,width=8,rows=4,vocab=3",
                                        .gradients = OOM_GRADIENTS_ZEROED});
    rig_window(rig, 2, 0, false);
    CHECK_OK(oom_loop_begin(loop, options, &rig->session, 1));
    oom_loop_attach(loop, rig->trainer);
}

static void one_is_kept(void) {
    TEST("loop: of the results of a batch one is kept; a failed attempt keeps none");
    struct rig rig;
    struct oom_loop loop;
    open_looping(
        &rig, &loop,
        &(struct oom_loop_options){
            .results = OOM_RESULTS_OF_BATCH, .result_count = 5, .result_bytes = RESULT, .seed = 3});
    for (int step = 0; step < 4; step++) {
        CHECK_OK(oom_loop_before(&loop, &rig.source, step));
        CHECK_OK(oom_trainer_begin_step(rig.trainer));
        int64_t before = live(&rig);
        run_micro_batch(&rig);
        CHECK_OK(oom_trainer_drop(rig.trainer)); /* as after an OOM: nothing of it stays */
        CHECK_EQ(live(&rig), before);
        run_micro_batch(&rig);
        CHECK_OK(oom_trainer_end_step(rig.trainer));
        CHECK_OK(oom_loop_after(&loop, &rig.source, step));
        CHECK_EQ(live(&rig), before + rounded(RESULT));
        CHECK_EQ(loop.kept_count, step + 1);
    }
    uint64_t damaged = 9;
    CHECK_OK(oom_loop_check(&loop, &damaged));
    CHECK_EQ(damaged, 0);
    uint8_t other = 0;
    rig_upload(&rig, loop.kept[2].tensor.data + RESULT - 1, &other, 1);
    CHECK_OK(oom_loop_check(&loop, &damaged));
    CHECK_EQ(damaged, 1);
    CHECK_OK(oom_loop_end(&loop, &rig.session));
    rig_close(&rig);
}

/* As a program does that appends to a list in vain and still holds what it appended. */
static void forgotten_are_held(void) {
    TEST("loop: results of a failed attempt that stay referenced live on, and go with the loop");
    struct rig rig;
    struct oom_loop loop;
    open_looping(&rig, &loop,
                 &(struct oom_loop_options){
                     .results = OOM_RESULTS_OF_BATCH, .result_count = 5, .result_bytes = RESULT});
    int64_t before = live(&rig);
    CHECK_OK(oom_loop_before(&loop, &rig.source, 0));
    for (int attempt = 0; attempt < 20; attempt++) {
        CHECK_OK(oom_trainer_begin_step(rig.trainer));
        oom_allocator_fail_call_at(rig.session.allocator, 12); /* after forward */
        CHECK_EQ(oom_trainer_micro_batch(rig.trainer, &rig.window, 0, rig.window.samples,
                                         (struct oom_weighing){.divisor = rig.window.total}),
                 OOM_NOMEM);
        CHECK_OK(oom_trainer_forget(rig.trainer));
        oom_failure_clear();
    }
    oom_allocator_fail_call_at(rig.session.allocator, 0);
    CHECK_OK(oom_trainer_begin_step(rig.trainer));
    run_micro_batch(&rig);
    CHECK_OK(oom_trainer_end_step(rig.trainer));
    CHECK(live(&rig) > before + 20 * rounded(RESULT));
    uint64_t damaged = 9;
    CHECK_OK(oom_loop_check(&loop, &damaged));
    CHECK_EQ(damaged, 0);
    CHECK_OK(oom_trainer_drop(rig.trainer));
    CHECK_OK(oom_loop_end(&loop, &rig.session));
    CHECK_EQ(live(&rig), before);
    rig_close(&rig);
}

static void all_are_kept(void) {
    TEST("loop: results of layers are kept for as many steps as asked, frozen tensors for ever");
    struct rig rig;
    struct oom_loop loop;
    open_looping(&rig, &loop,
                 &(struct oom_loop_options){.results = OOM_RESULTS_OF_LAYER,
                                            .result_bytes = RESULT,
                                            .result_steps = 1,
                                            .frozen = 2,
                                            .frozen_bytes = FROZEN});
    int64_t before = live(&rig);
    for (int step = 0; step < 3; step++) {
        CHECK_OK(oom_loop_before(&loop, &rig.source, step));
        CHECK_OK(oom_trainer_begin_step(rig.trainer));
        run_micro_batch(&rig);
        CHECK_EQ(loop.kept_count, step == 0 ? 3 : 6);
        CHECK_OK(oom_trainer_end_step(rig.trainer));
        CHECK_OK(oom_loop_after(&loop, &rig.source, step));
        CHECK_EQ(loop.kept_count, 3);
        CHECK_EQ(live(&rig), before + 3 * rounded(RESULT));
    }
    uint64_t damaged = 9;
    uint8_t other = 0;
    rig_upload(&rig, loop.frozen[1].data, &other, 1);
    CHECK_OK(oom_loop_check(&loop, &damaged));
    CHECK_EQ(damaged, 1);
    CHECK_OK(oom_loop_end(&loop, &rig.session));
    CHECK_EQ(live(&rig), before - 2 * rounded(FROZEN));
    rig_close(&rig);
}

static void bad_options(void) {
    TEST("loop: options out of range are refused");
    static const struct oom_loop_options bad[] = {
        {.lengths = OOM_LENGTHS_DRAWN},
        {.lengths = OOM_LENGTHS_DRAWN, .low = 1.5},
        {.lengths = OOM_LENGTHS_DRAWN, .low = NAN},
        {.results = OOM_RESULTS_OF_BATCH, .result_count = 33},
        {.frozen = -1},
        {.evaluate_every = 2},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_EQ(oom_loop_check_options(&bad[i]), OOM_USAGE);
    }
    oom_failure_clear();
}

void loop_test(void) {
    cut_is_short("gpt,layers=2,width=8,heads=2,context=12,vocab=9",
                 "gpt,layers=2,width=8,heads=2,context=7,vocab=9", 7, "head.weight", 9 * 8 * 4);
    cut_is_short("gpt,layers=2,width=8,heads=2,context=12,vocab=9,attention=scores",
                 "gpt,layers=2,width=8,heads=2,context=7,vocab=9,attention=scores", 7,
                 "embedding.position", 7 * 8 * 4);
    cut_is_short("mlp,layers=2,width=8,rows=12,vocab=9", "mlp,layers=2,width=8,rows=5,vocab=9", 5,
                 "layer0.weight", 8 * 8 * 4);
    weights_follow_lengths();
    draws();
    evaluation("gpt,layers=2,width=8,heads=2,context=12,vocab=9,dropout=0.5",
               "gpt,layers=2,width=8,heads=2,context=12,vocab=9");
    evaluation("gpt,layers=2,width=8,heads=2,context=12,vocab=9,attention=scores",
               "gpt,layers=2,width=8,heads=2,context=12,vocab=9,attention=scores");
    evaluation("mlp,layers=4,width=8,rows=12,vocab=9", "mlp,layers=4,width=8,rows=12,vocab=9");
    one_is_kept();
    forgotten_are_held();
    all_are_kept();
    bad_options();
}
