#include "harness/train/checkpoint-testing.h"

#include <string.h>

void checkpoint_simulate_test(void);

/* ---- the judge ---- */

static enum oom_status run_ops(const struct model *m, struct oom_checkpoint_op *ops, int count,
                               struct oom_checkpoint_outcome *outcome) {
    struct oom_checkpoint_schedule schedule = {.ops = ops, .count = count, .capacity = count};
    return oom_checkpoint_simulate(&m->chain, &schedule, outcome);
}

/* Two stages, every figure another power of ten, added up by hand. */
static void two_stages(struct model *m) {
    *m = (struct model){.chain = {.count = 2, .fixed = 7000000, .input = 1, .stages = m->stages}};
    m->stages[0] = (struct oom_checkpoint_stage){.forward_flops = 3,
                                                 .backward_flops = 50,
                                                 .output = 10,
                                                 .saved = 100,
                                                 .gradient = 5,
                                                 .left = 2000,
                                                 .peak = {20, 30, 150, 40000}};
    m->stages[1] = (struct oom_checkpoint_stage){.forward_flops = 4,
                                                 .backward_flops = 60,
                                                 .output = 200,
                                                 .saved = 300,
                                                 .gradient = 400,
                                                 .left = 6000,
                                                 .peak = {210, 220, 900, 50000}};
}

static void by_hand(void) {
    struct oom_checkpoint_op saved[] = {{SAVE, 0}, {SAVE, 1}, {BACK, 1}, {BACK, 0}};
    struct oom_checkpoint_op again[] = {{TICK, 0}, {SAVE, 1}, {BACK, 1}, {SAVE, 0}, {BACK, 0}};
    struct model m;
    struct oom_checkpoint_outcome o;
    TEST("checkpoint judge: two stages against sums by hand");
    two_stages(&m);
    CHECK_OK(run_ops(&m, saved, 4, &o));
    /* before BACKWARD(1): 7000000 + 1 + (10 + 100) + (200 + 300) = 7000611, peak + 50000 */
    CHECK_EQ(o.peak, 7050611);
    CHECK_EQ(o.peak_op, 2);
    CHECK_EQ(o.extra_flops, 0);
    CHECK_EQ(o.flops, 117);
    CHECK_OK(run_ops(&m, again, 5, &o));
    /* the same without the 100 that stage 0 saved */
    CHECK_EQ(o.peak, 7050511);
    CHECK_EQ(o.extra_flops, 3);
    CHECK_EQ(o.extra_forwards, 1);
    CHECK_EQ(o.flops, 120);
    TEST("checkpoint judge: a boundary that the stage below reads outlives its own backward");
    m.stages[0].peak[BACK] = 90000;
    CHECK_OK(run_ops(&m, saved, 4, &o));
    /* before BACKWARD(0): 7000000 + 1 + 100 + dx(1) 400 + left 6000 */
    CHECK_EQ(o.peak, 7096501);
    m.stages[0].reads_output = true;
    CHECK_OK(run_ops(&m, saved, 4, &o));
    CHECK_EQ(o.peak, 7096511);
    CHECK_OK(run_ops(&m, again, 5, &o)); /* made again just before: there in either case */
    CHECK_EQ(o.peak, 7096511);
    m.stages[0].reads_output = false;
    CHECK_OK(run_ops(&m, again, 5, &o));
    CHECK_EQ(o.peak, 7096511);
}

static void refusals(void) {
    static const struct {
        struct oom_checkpoint_op ops[7];
        int count;
        const char *message;
    } cases[] = {
        {{{SAVE, 1}}, 1, "operation 0, FORWARD_SAVE(1): x(1) is not there"},
        {{{SAVE, 0}, {SAVE, 0}}, 2, "operation 1, FORWARD_SAVE(0): x(1) has been made already"},
        {{{FREE, 0}}, 1, "operation 0, FORWARD_FREE(0): x(0) is kept until its backward"},
        {{{SAVE, 0}, {FREE, 1}}, 2, "operation 1, FORWARD_FREE(1): x(1) is kept"},
        {{{TICK, 0}, {TICK, 1}, {FREE, 1}}, 3, "x(2) has been made already"},
        {{{TICK, 0}, {FREE, 1}, {BACK, 2}}, 3, "BACKWARD(2): x(3) was made without saving"},
        {{{SAVE, 0}, {BACK, 0}}, 2, "BACKWARD(0): x(1) has no gradient yet"},
        {{{SAVE, 0}, {SAVE, 1}, {SAVE, 2}}, 3, "ends before the backward of stage 2"},
        {{{SAVE, 0}, {SAVE, 1}, {SAVE, 2}, {BACK, 2}, {SAVE, 2}}, 5, "x(2) is not there"},
        {{{SAVE, 0}, {SAVE, 1}, {SAVE, 2}, {BACK, 2}, {BACK, 1}, {BACK, 0}, {SAVE, 0}},
         7,
         "x(0) has no backward to come"},
        {{{SAVE, 3}}, 1, "operation 0: FORWARD_SAVE, stage 3 of 3"},
        {{{SAVE, -1}}, 1, "stage -1 of 3"},
        {{{OOM_CHECKPOINT_KIND_COUNT, 0}}, 1, "operation 0: unknown"},
    };
    struct model m;
    TEST("checkpoint judge: what cannot be run is refused by name");
    equal_stages(&m, 3, 512, 1024, 512, 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct oom_checkpoint_op ops[7];
        struct oom_checkpoint_outcome outcome;
        memcpy(ops, cases[i].ops, sizeof ops);
        CHECK_EQ(run_ops(&m, ops, cases[i].count, &outcome), OOM_INVALID);
        const char *message = oom_failure_last()->message;
        CHECK_MSG(strstr(message, cases[i].message) != NULL, "case %d: %s", (int)i, message);
        oom_failure_clear();
    }
}

static void bad_description(struct model *m, const char *message) {
    struct oom_checkpoint_schedule schedule;
    CHECK_EQ(oom_checkpoint_budget(&m->chain, 1 << 30, &schedule), OOM_USAGE);
    CHECK_MSG(strstr(oom_failure_last()->message, message) != NULL, "%s",
              oom_failure_last()->message);
    CHECK(schedule.ops == NULL);
    oom_failure_clear();
}

static void bad_descriptions(void) {
    struct model m;
    TEST("checkpoint plan: a description that contradicts itself is refused");
    equal_stages(&m, 3, 512, 1024, 512, 0);
    m.stages[1].peak[SAVE] = 1535;
    bad_description(&m, "stage 1: the peak of FORWARD_SAVE is 1535 bytes, yet it leaves 1536");
    m.stages[1].peak[SAVE] = 1536;
    m.stages[2].left = 512 * 9;
    bad_description(&m, "stage 2: the peak of BACKWARD is 512 bytes, yet it leaves 5120");
    m.stages[2].left = 0;
    m.stages[0].output = UINT64_C(1) << 49;
    bad_description(&m, "more than 2^48 bytes");
    equal_stages(&m, 3, 512, 1024, 512, 0);
    m.stages[0].forward_flops = UINT64_MAX;
    bad_description(&m, "flops");
    m.chain.count = 0;
    bad_description(&m, "0 stages");
    m.chain.count = OOM_CHECKPOINT_STAGES + 1;
    bad_description(&m, "513 stages");
}

/* ---- schedules without a search ---- */

static void segments(void) {
    struct model m;
    struct oom_checkpoint_schedule schedule;
    TEST("checkpoint plan: segments: as many as asked for, balanced, at most one forward more");
    for (int n = 1; n <= 40; n++) {
        equal_stages(&m, n, 512, 4096, 512, 0);
        for (int k = 1; k <= n; k++) {
            CHECK_OK(oom_checkpoint_segments(&m.chain, k, &schedule));
            struct oom_checkpoint_outcome o = judged(&m, &schedule);
            int checks = 0;
            for (int i = 0; i < schedule.count; i++) checks += schedule.ops[i].kind == TICK;
            CHECK_EQ(checks, k - 1);
            CHECK_EQ(o.extra_flops, (k - 1) * n / k); /* all but the last segment */
            CHECK_EQ(o.extra_forwards, o.extra_flops);
            oom_checkpoint_schedule_free(&schedule);
        }
        CHECK_EQ(oom_checkpoint_segments(&m.chain, n + 1, &schedule), OOM_USAGE);
        oom_failure_clear();
        CHECK_EQ(oom_checkpoint_segments(&m.chain, 0, &schedule), OOM_USAGE);
        oom_failure_clear();
    }
}

void checkpoint_simulate_test(void) {
    by_hand();
    refusals();
    bad_descriptions();
    segments();
}
