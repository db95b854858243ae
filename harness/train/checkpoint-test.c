/*
 * checkpoint-test.c: a step with checkpoints has the bits of one without (gradients, loss, batch
 * statistics, running random numbers), at the peak of live bytes that the description of its
 * stages predicts; each way of doing it wrong shows.
 */
#include "harness/train/checkpoint.h"

#include "harness/base/control.h"
#include "harness/train/train-testing.h"

void checkpoint_test(void);

enum { SAMPLES = 6, STEPS = 2 };

struct run {
    const char *model;
    enum oom_checkpointing checkpointing;
    uint64_t budget;
    enum oom_rng_kind rng;
    enum oom_amp amp;
    int64_t micro;
    enum oom_control control;
};

/* What a run leaves: gradients and loss of the last step, statistics, where random numbers stand.
 */
struct left {
    struct snapshot gradients, statistics;
    uint32_t offset;
    int64_t peak; /* of live bytes, of the last step up to its update */
    int recomputed, stages;
};

static void left_free(struct left *left) {
    snapshot_free(&left->gradients);
    snapshot_free(&left->statistics);
}

static void take_statistics(struct rig *rig, struct snapshot *out) {
    struct oom_trainer *t = rig->trainer;
    size_t room = 1;
    for (int i = 0; i < t->statistic_count; i++) room += (size_t)t->statistics[i].n * rig_real(rig);
    *out = (struct snapshot){.bytes = oom_host_alloc(room)};
    for (int i = 0; out->bytes != NULL && i < t->statistic_count; i++) {
        size_t bytes = (size_t)t->statistics[i].n * rig_real(rig);
        rig_download(rig, t->statistics[i].value.data, out->bytes + out->count, bytes);
        out->count += bytes;
    }
}

static void one_step(struct rig *rig, const struct run *run) {
    struct oom_trainer *t = rig->trainer;
    struct oom_weighing weighing = {.divisor = rig->window.total};
    CHECK_OK(oom_trainer_begin_step(t));
    oom_allocator_reset_peaks(rig->session.allocator);
    for (int64_t at = 0; at < SAMPLES; at += run->micro, t->micro_batch++) {
        CHECK_OK(oom_trainer_micro_batch(t, &rig->window, at, at + run->micro, weighing));
    }
    CHECK_OK(oom_unscale(t));
}

static struct left left_by(const struct run *run) {
    struct rig_options o = {.model = run->model, .dtype = OOM_F32};
    struct oom_trainer_options options = rig_trainer_options(&o);
    struct left left = {.peak = 0};
    struct rig rig;
    options.checkpointing = run->checkpointing;
    options.checkpoint_budget = run->budget;
    options.rng = run->rng;
    options.amp = run->amp;
    rig_open_allocator(&rig, &o);
    oom_control_set(run->control);
    CHECK_OK(oom_trainer_create(&rig.session, &options, &rig.trainer));
    rig_window(&rig, SAMPLES, 0, false);
    for (int step = 0; step < STEPS; step++) {
        one_step(&rig, run);
        if (step + 1 == STEPS) break;
        CHECK_OK(oom_trainer_update(rig.trainer));
        CHECK_OK(oom_trainer_end_step(rig.trainer));
    }
    oom_control_set(OOM_CONTROL_NONE);
    const struct oom_allocator_stats *stats = oom_allocator_stats(rig.session.allocator);
    left.peak = stats->allocated_bytes[OOM_POOL_ALL].peak;
    left.offset = rig.trainer->rng_offset;
    left.recomputed = rig.trainer->stages.recomputed;
    left.stages = rig.trainer->stages.count;
    snapshot_take(&rig, false, &left.gradients);
    take_statistics(&rig, &left.statistics);
    rig_close(&rig);
    return left;
}

static bool same(const struct left *a, const struct left *b) {
    return snapshot_same(&a->gradients, &b->gradients) && a->offset == b->offset &&
           a->statistics.count == b->statistics.count &&
           memcmp(a->statistics.bytes, b->statistics.bytes, a->statistics.count) == 0;
}

/* ---- bits ---- */

static void same_bits(const char *model, enum oom_amp amp, enum oom_rng_kind rng, int64_t micro) {
    static const char *const amps[] = {"f32", "f16", "bf16"};
    TEST("checkpoint: the bits of a step without: %s, %s, random numbers %s, micro-batches of %d",
         model, amps[amp], rng == OOM_RNG_KEYED ? "keyed" : "running", (int)micro);
    struct run run = {.model = model, .rng = rng, .amp = amp, .micro = micro};
    struct left without = left_by(&run);
    run.checkpointing = OOM_CHECKPOINTING_SQRT;
    struct left with = left_by(&run);
    CHECK(same(&without, &with));
    CHECK(with.recomputed > 0 && with.recomputed < with.stages * (SAMPLES / micro));
    CHECK(with.peak < without.peak);
    left_free(&without);
    left_free(&with);
}

static void controls(const char *model, enum oom_rng_kind rng, enum oom_control control,
                     bool caught) {
    TEST("checkpoint: %s %s in %s, random numbers %s", oom_control_name(control),
         caught ? "shows" : "is harmless", model, rng == OOM_RNG_KEYED ? "keyed" : "running");
    struct run run = {.model = model, .rng = rng, .micro = SAMPLES};
    struct left without = left_by(&run);
    run.checkpointing = OOM_CHECKPOINTING_SQRT;
    run.control = control;
    struct left with = left_by(&run);
    CHECK_EQ(same(&without, &with), !caught);
    left_free(&without);
    left_free(&with);
}

/* ---- bytes ---- */

static struct oom_checkpoint_chain described(const char *model, enum oom_amp amp,
                                             bool accumulating) {
    struct rig_options o = {.model = model};
    struct oom_trainer_options options = rig_trainer_options(&o);
    struct oom_checkpoint_chain chain;
    options.amp = amp;
    CHECK_OK(oom_checkpoint_describe(&options, OOM_F32, SAMPLES, accumulating, &chain));
    return chain;
}

/* Under a budget the step peaks where the planner's judge says, to the byte, and within it. */
static void predicted(const char *model, enum oom_amp amp) {
    TEST("checkpoint: live bytes peak where the schedule says: %s%s", model,
         amp != OOM_AMP_OFF ? ", mixed precision" : "");
    struct oom_checkpoint_chain chain = described(model, amp, false);
    struct run run = {.model = model, .amp = amp, .micro = SAMPLES};
    struct left without = left_by(&run);
    uint64_t least = 0, most = (uint64_t)without.peak;
    CHECK_OK(oom_checkpoint_minimum(&chain, &least));
    CHECK(least < most);
    run.checkpointing = OOM_CHECKPOINTING_BUDGET;
    for (int i = 0; i <= 4; i++) {
        struct oom_checkpoint_schedule schedule = {0};
        struct oom_checkpoint_outcome outcome;
        run.budget = least + (most - least) * (uint64_t)i / 4;
        CHECK_OK(oom_checkpoint_budget(&chain, run.budget, &schedule));
        CHECK_OK(oom_checkpoint_simulate(&chain, &schedule, &outcome));
        struct left with = left_by(&run);
        CHECK_EQ(with.peak, (int64_t)outcome.peak);
        CHECK(with.peak <= (int64_t)run.budget);
        CHECK(same(&without, &with));
        CHECK_EQ(with.recomputed, outcome.extra_forwards);
        oom_checkpoint_schedule_free(&schedule);
        left_free(&with);
    }
    left_free(&without);
    oom_checkpoint_chain_free(&chain);
}

static void too_small(void) {
    TEST("checkpoint: a budget below the minimum is refused, and the minimum stated");
    static const char model[] = "mlp,layers=6,width=16,rows=8";
    struct oom_checkpoint_chain chain = described(model, OOM_AMP_OFF, false);
    uint64_t least = 0;
    char text[32];
    CHECK_OK(oom_checkpoint_minimum(&chain, &least));
    struct rig_options o = {.model = model, .dtype = OOM_F32};
    struct oom_trainer_options options = rig_trainer_options(&o);
    struct rig rig;
    options.checkpointing = OOM_CHECKPOINTING_BUDGET;
    options.checkpoint_budget = least - 1;
    rig_open_allocator(&rig, &o);
    CHECK_OK(oom_trainer_create(&rig.session, &options, &rig.trainer));
    rig_window(&rig, SAMPLES, 0, false);
    CHECK_EQ(rig_step(&rig, (struct oom_cut){.micro = SAMPLES}, NULL), OOM_USAGE);
    snprintf(text, sizeof text, "%llu", (unsigned long long)least);
    CHECK_MSG(strstr(oom_failure_last()->message, text) != NULL, "'%s' names %s",
              oom_failure_last()->message, text);
    oom_failure_clear();
    rig_close(&rig);
    oom_checkpoint_chain_free(&chain);
}

void checkpoint_test(void) {
    static const char mlp[] = "mlp,layers=9,width=16,rows=8,dropout=0.25";
    static const char gpt[] = "gpt,layers=7,width=16,heads=2,context=16,vocab=31,dropout=0.125";
    static const char cnn[] = "cnn,layers=6,width=4,image=8,dropout=0.25";
    static const char group[] = "cnn,layers=6,width=4,image=8,norm=group,groups=2";
    static const char wide_head[] = "cnn,layers=4,width=3,image=8,vocab=1000"; /* than its input */
    static const char *const models[] = {mlp, gpt, cnn, group};
    for (int i = 0; i < 4; i++) {
        same_bits(models[i], OOM_AMP_OFF, OOM_RNG_KEYED, SAMPLES);
        same_bits(models[i], OOM_AMP_F16, OOM_RNG_STATEFUL, 3);
        same_bits(models[i], OOM_AMP_BF16, OOM_RNG_STATEFUL, SAMPLES);
        predicted(models[i], OOM_AMP_OFF);
        predicted(models[i], OOM_AMP_F16);
        controls(models[i], OOM_RNG_KEYED, OOM_CONTROL_BOUNDARY_CHANGED, true);
        controls(models[i], OOM_RNG_KEYED, OOM_CONTROL_SEGMENT_INPUT, true);
    }
    predicted(wide_head, OOM_AMP_OFF);
    predicted(wide_head, OOM_AMP_BF16);
    same_bits(wide_head, OOM_AMP_F16, OOM_RNG_KEYED, SAMPLES);
    controls(mlp, OOM_RNG_KEYED, OOM_CONTROL_RNG_NOT_RESTORED, false);
    controls(mlp, OOM_RNG_STATEFUL, OOM_CONTROL_RNG_NOT_RESTORED, true);
    controls(gpt, OOM_RNG_STATEFUL, OOM_CONTROL_RNG_NOT_RESTORED, true);
    controls(cnn, OOM_RNG_KEYED, OOM_CONTROL_STATISTICS_TWICE, true);
    controls(group, OOM_RNG_KEYED, OOM_CONTROL_STATISTICS_TWICE, false);
    too_small();
}
