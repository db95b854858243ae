/*
 * batch-size-test.c: the rules' arithmetic against hand-made sequences and brute force, and the
 * chosen size against real runs. What a failed step leaves: recovery-test.c.
 */
#include "harness/train/batch-size.h"

#include "harness/train/plan.h"
#include "harness/train/train-testing.h"

#include <stdio.h>

void batch_size_test(void);

/* ---- sequences ---- */

static void check_sequence(enum oom_rule rule, const int64_t *sizes, int count) {
    struct oom_sizing sizing = {.rule = rule, .size = sizes[0]};
    for (int i = 1; i < count; i++) {
        sizing.size = oom_sizing_next(&sizing);
        CHECK_EQ(sizing.size, sizes[i]);
    }
}

static void sequences(void) {
    static const int64_t x09[] = {128, 115, 103, 92, 82, 73, 65, 58, 52, 46, 41, 36, 32, 28, 25, 22,
                                  19,  17,  15,  13, 11, 9,  8,  7,  6,  5,  4,  3,  2,  1,  0};
    static const int64_t halving[] = {100, 50, 25, 12, 6, 3, 1, 0};
    TEST("batch size: the sequence of x09, as recorded from others down to 8");
    check_sequence(OOM_RULE_X09, x09, sizeof x09 / sizeof x09[0]);
    TEST("batch size: the sequence of halving");
    check_sequence(OOM_RULE_HALVING, halving, sizeof halving / sizeof halving[0]);
    TEST("batch size: a retry is made once, an estimate that was wrong is halved, a plan is final");
    struct oom_sizing sizing = {.rule = OOM_RULE_RETRY, .most = 64, .retry = 48, .size = 64};
    CHECK_EQ(oom_sizing_next(&sizing), 48);
    sizing.size = 48;
    CHECK_EQ(oom_sizing_next(&sizing), 0);
    static const struct {
        enum oom_rule rule;
        int64_t next;
    } others[] = {{OOM_RULE_FIXED, 0},
                  {OOM_RULE_PLANNED, 0},
                  {OOM_RULE_TWO_POINT_085, 24},
                  {OOM_RULE_SEED_085, 24}};
    for (int i = 0; i < 4; i++) {
        sizing.rule = others[i].rule;
        CHECK_EQ(oom_sizing_next(&sizing), others[i].next);
    }
    for (int i = 0; i < OOM_RULE_COUNT; i++) {
        CHECK(oom_rule_name((enum oom_rule)i)[0] != 0 && oom_rule_prose((enum oom_rule)i)[0] != 0);
    }
}

/* ---- the largest size that fits ---- */

enum { SIZES_MAX = 4000 };

struct predicate {
    bool fits[SIZES_MAX + 2]; /* by size */
    int64_t most, asked;
};

static enum oom_status answer(void *context, int64_t size, bool *fits) {
    struct predicate *p = context;
    p->asked++;
    if (!CHECK(size >= 1 && size <= p->most)) return OOM_INTERNAL;
    *fits = p->fits[size];
    return OOM_OK;
}

static int64_t first_failure(const struct predicate *p) {
    int64_t size = 1;
    while (size <= p->most && p->fits[size]) size++;
    return size;
}

static int64_t search(struct predicate *p) {
    int64_t found = -1;
    CHECK_OK(oom_largest_fit(p, answer, p->most, &found));
    return found;
}

static void monotone(struct predicate *p, struct oom_rng *rng) {
    TEST("batch size: the largest fit of 300 monotone predicates is brute force's");
    for (int round = 0; round < 300; round++) {
        p->most = 1 + oom_rng_below(rng, round % 2 == 0 ? SIZES_MAX : 700);
        int64_t limit = oom_rng_below(rng, (uint32_t)p->most + 2);
        for (int64_t i = 0; i <= p->most; i++) p->fits[i] = i <= limit;
        p->asked = 0;
        int64_t found = search(p);
        CHECK_EQ(found, first_failure(p) - 1);
        CHECK(p->asked <= 512 + 12 + 33);
    }
}

/* Above 512 the answer need not be the first failure, but it fits, the next does not, and up to
 * 512 nothing may have failed. */
static void jagged(struct predicate *p, struct oom_rng *rng) {
    TEST("batch size: 600 jagged predicates: first failure - 1 up to 512, above a size that fits");
    for (int round = 0; round < 600; round++) {
        p->most = 1 + oom_rng_below(rng, SIZES_MAX);
        uint32_t odds = 1 + oom_rng_below(rng, 40);
        int64_t smooth = oom_rng_below(rng, 1024);
        for (int64_t i = 0; i <= p->most; i++) {
            p->fits[i] = i <= smooth || oom_rng_below(rng, odds) > 0;
        }
        int64_t found = search(p), first = first_failure(p);
        if (first <= 512) {
            CHECK_EQ(found, first - 1);
            continue;
        }
        CHECK(found >= 512 || found == p->most);
        CHECK_MSG(p->fits[found], "round %d: the answer %d fits", round, (int)found);
        CHECK_MSG(found == p->most || !p->fits[found + 1], "round %d: %d, and not one more", round,
                  (int)found);
    }
}

static enum oom_status break_off(void *context, int64_t size, bool *fits) {
    (void)context, (void)fits;
    return size < 3 ? OOM_OK : OOM_IO;
}

static void largest_fit(void) {
    static struct predicate p;
    struct oom_rng rng = {7};
    monotone(&p, &rng);
    jagged(&p, &rng);
    TEST("batch size: a plan that breaks is no size");
    int64_t found = -1;
    CHECK_EQ(oom_largest_fit(NULL, break_off, 9, &found), OOM_IO);
    CHECK_EQ(found, -1);
    oom_failure_clear();
}

/* ---- rules on a device ---- */

struct planned {
    struct rig_options options;
    bool micro;
    int64_t samples;
};

static enum oom_status plan_fits(void *context, int64_t size, bool *fits) {
    const struct planned *planned = context;
    struct oom_plan plan;
    struct oom_plan_request request = {.trainer = rig_trainer_options(&planned->options),
                                       .settings = oom_allocator_settings_default(),
                                       .capacity = planned->options.capacity,
                                       .samples = planned->micro ? planned->samples : size,
                                       .size = size,
                                       .micro = planned->micro,
                                       .steps = 3};
    OOM_TRY(oom_plan_run(&request, &plan));
    *fits = plan.fits;
    return OOM_OK;
}

/* Three steps; how many of them were done. */
static int run_three(struct planned *planned, struct oom_sizing *sizing) {
    struct rig rig;
    int done = 0;
    rig_open(&rig, &planned->options);
    for (; done < 3; done++) {
        enum oom_status status = rig_sized_step(&rig, sizing, done, planned->samples);
        if (status == OOM_OK) continue;
        CHECK_EQ(status, OOM_NOMEM);
        break;
    }
    oom_failure_clear();
    rig_close(&rig);
    return done;
}

static void planned_is_largest(const char *model, uint64_t capacity, bool micro) {
    struct planned planned = {.options = {.model = model,
                                          .dtype = OOM_F32,
                                          .capacity = capacity,
                                          .optimizer = OOM_OPTIMIZER_ADAMW,
                                          .threads = 2},
                              .micro = micro,
                              .samples = 300};
    struct oom_sizing sizing = {.rule = OOM_RULE_PLANNED,
                                .micro = micro,
                                .most = 512,
                                .plan_context = &planned,
                                .plan = plan_fits};
    TEST("batch size: planned runs without an OOM, one more fails: %s%s", model,
         micro ? ", micro-batches" : "");
    CHECK_EQ(run_three(&planned, &sizing), 3);
    CHECK_EQ(sizing.attempt_count, 3);
    CHECK(sizing.size > 1 && sizing.size < 512);
    struct oom_sizing beyond = {.rule = OOM_RULE_FIXED, .micro = micro, .most = sizing.size + 1};
    CHECK(run_three(&planned, &beyond) < 3);
    CHECK_EQ(beyond.attempts[beyond.attempt_count - 1].status, OOM_NOMEM);
    CHECK(beyond.attempts[beyond.attempt_count - 1].report.valid);
    printf("# the largest is %d\n", (int)sizing.size);
}

/* Highest live bytes of forward and backward at one size, measured apart from the rule. */
static double trial_peak(const struct rig_options *o, int64_t size) {
    struct rig rig;
    rig_open(&rig, o);
    rig_window(&rig, size, 0, false);
    oom_allocator_reset_peaks(rig.session.allocator);
    CHECK_OK(oom_trainer_micro_batch(rig.trainer, &rig.window, 0, size,
                                     (struct oom_weighing){.divisor = rig.window.total}));
    double peak = (double)rig_live_peak(&rig);
    CHECK_OK(oom_recover(rig.trainer, OOM_RECOVERY_FULL));
    rig_close(&rig);
    return peak;
}

static void measured_rules(void) {
    struct planned planned = {.options = {.model = "gpt,layers=2,width=32,heads=4,context=64",
                                          .device = "dry",
                                          .capacity = 64 << 20},
                              .samples = 100000};
    double one = trial_peak(&planned.options, 1), two = trial_peak(&planned.options, 2);
    double available = 40 << 20, sample = two - one, fixed = one - sample;
    struct oom_sizing sizing = {
        .rule = OOM_RULE_TWO_POINT_085, .most = 100000, .available = 40 << 20};
    struct rig rig;
    TEST("batch size: two_point_085 solves peak(B) = fixed + B sample for 0.85 of what is there");
    rig_open(&rig, &planned.options);
    CHECK_OK(rig_sized_step(&rig, &sizing, 0, 100000));
    CHECK(sample > 0 && fixed > 0);
    CHECK_EQ(sizing.size, (0.85 * available - fixed) / sample);
    CHECK_EQ(sizing.attempt_count, 3);
    CHECK(sizing.attempts[0].trial && sizing.attempts[1].trial && !sizing.attempts[2].trial);
    rig_close(&rig);
    TEST("batch size: seed_085 takes the peak of one sample for its cost");
    sizing = (struct oom_sizing){.rule = OOM_RULE_SEED_085, .most = 100000, .available = 40 << 20};
    rig_open(&rig, &planned.options);
    CHECK_OK(rig_sized_step(&rig, &sizing, 0, 100000));
    CHECK_EQ(sizing.size, 0.85 * available / one);
    rig_close(&rig);
    TEST("batch size: no rule goes above the size that was asked for");
    sizing = (struct oom_sizing){.rule = OOM_RULE_SEED_085, .most = 3, .available = 40 << 20};
    rig_open(&rig, &planned.options);
    CHECK_OK(rig_sized_step(&rig, &sizing, 0, 100000));
    CHECK_EQ(sizing.size, 3);
    rig_close(&rig);
    TEST("batch size: where not one sample fits, the rule ends in an OOM that says so");
    sizing = (struct oom_sizing){.rule = OOM_RULE_SEED_085, .most = 3, .available = 4096};
    rig_open(&rig, &planned.options);
    CHECK_EQ(rig_sized_step(&rig, &sizing, 0, 100000), OOM_NOMEM);
    CHECK(strstr(oom_failure_last()->message, "seed_085: not even one sample fits") != NULL);
    oom_failure_clear();
    rig_close(&rig);
}

void batch_size_test(void) {
    sequences();
    largest_fit();
    planned_is_largest("gpt,layers=2,width=32,heads=4,context=64", 16 << 20, false);
    planned_is_largest("mlp,layers=4,width=8,rows=512", 16 << 20, false);
    planned_is_largest("mlp,layers=4,width=8,rows=512", 16 << 20, true);
    measured_rules();
}
