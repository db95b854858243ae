/*
 * recovery-test.c: an OOM at every single allocation of a step, after which everything is as before
 * and the retried step gives the bits of an undisturbed one; the same for the update alone, for the
 * host's own memory, and what each kind of recovery frees and takes back.
 */
#include "harness/train/batch-size.h"

#include "harness/train/train-testing.h"

#include <stdio.h>

void recovery_test(void);

/* ---- everything that a failed step must leave as it was ---- */

struct everything {
    struct snapshot weights;
    struct snapshot states;     /* those that exist, one after the other */
    struct snapshot statistics; /* of batch norms: a forward changes them */
    int64_t allocated, steps;
    uint32_t rng_step;
};

static void read_states(struct rig *rig, struct snapshot *out) {
    struct oom_trainer *t = rig->trainer;
    *out = (struct snapshot){0};
    for (int pass = 0; pass < 2; pass++) {
        size_t at = 0;
        for (int i = 0; i < OOM_STATES * t->parameter_count; i++) {
            const struct oom_parameter *p = &t->parameters[i / OOM_STATES];
            oom_devptr data = p->state[i % OOM_STATES].data;
            size_t bytes = data != 0 ? (size_t)oom_parameter_n(p) * rig_real(rig) : 0;
            if (pass == 1 && bytes > 0) rig_download(rig, data, out->bytes + at, bytes);
            at += bytes;
        }
        if (pass == 0) out->bytes = oom_host_alloc(at + 1);
        out->count = at;
    }
}

static void read_statistics(struct rig *rig, struct snapshot *out) {
    struct oom_trainer *t = rig->trainer;
    size_t count = 0;
    for (int i = 0; i < t->statistic_count; i++) {
        count += (size_t)t->statistics[i].n * rig_real(rig);
    }
    *out = (struct snapshot){.bytes = oom_host_alloc(count + 1)};
    for (int i = 0; out->bytes != NULL && i < t->statistic_count; i++) {
        size_t bytes = (size_t)t->statistics[i].n * rig_real(rig);
        rig_download(rig, t->statistics[i].value.data, out->bytes + out->count, bytes);
        out->count += bytes;
    }
}

static struct everything everything_take(struct rig *rig) {
    struct everything e = {
        .allocated =
            oom_allocator_stats(rig->session.allocator)->allocated_bytes[OOM_POOL_ALL].current,
        .steps = rig->trainer->optimizer_steps,
        .rng_step = rig->trainer->rng_step};
    snapshot_take(rig, true, &e.weights);
    e.weights.count -= rig_real(rig); /* the loss of a failed step is nothing to keep */
    read_states(rig, &e.states);
    read_statistics(rig, &e.statistics);
    return e;
}

static void everything_free(struct everything *e) {
    snapshot_free(&e->weights);
    snapshot_free(&e->states);
    snapshot_free(&e->statistics);
}

static bool gradients_clear(struct rig *rig) {
    bool clear = true;
    for (int i = 0; i < rig->trainer->parameter_count; i++) {
        struct oom_parameter *p = &rig->trainer->parameters[i];
        size_t bytes = (size_t)oom_parameter_n(p) * rig_real(rig);
        if (p->gradient.data == 0) continue;
        if (rig->trainer->options.gradients == OOM_GRADIENTS_NONE) return false;
        uint8_t *data = oom_host_alloc(bytes);
        if (!CHECK(data != NULL)) return false;
        rig_download(rig, p->gradient.data, data, bytes);
        for (size_t k = 0; k < bytes; k++) clear = clear && data[k] == 0;
        oom_host_free(data);
    }
    return clear;
}

/* Figures first: the largest part of a run is the same, so one line a difference. */
static void check_same(const struct everything *a, const struct everything *b, const char *when,
                       int n) {
    CHECK_MSG(snapshot_same(&a->weights, &b->weights), "weights, %s %d", when, n);
    CHECK_MSG(a->states.count == b->states.count &&
                  memcmp(a->states.bytes, b->states.bytes, a->states.count) == 0,
              "optimizer states, %s %d", when, n);
    CHECK_MSG(a->steps == b->steps && a->rng_step == b->rng_step, "counters, %s %d", when, n);
}

/* ---- an OOM at every allocation ---- */

struct trial_run {
    struct rig rig;
    struct everything before;
    int n; /* the allocation that fails */
    int failures;
};

static enum oom_status before_step(void *context, struct oom_trainer *trainer) {
    struct trial_run *run = context;
    (void)trainer;
    everything_free(&run->before);
    run->before = everything_take(&run->rig);
    return OOM_OK;
}

static enum oom_status after_failure(void *context, struct oom_trainer *trainer) {
    struct trial_run *run = context;
    struct everything now = everything_take(&run->rig);
    (void)trainer;
    run->failures++;
    CHECK_EQ(oom_failure_last()->status, OOM_NOMEM);
    CHECK(oom_allocator_report(run->rig.session.allocator)->injected);
    check_same(&run->before, &now, "failed at", run->n);
    everything_free(&now);
    return OOM_OK;
}

static enum oom_status after_recovery(void *context, struct oom_trainer *trainer) {
    struct trial_run *run = context;
    struct everything now = everything_take(&run->rig);
    (void)trainer;
    check_same(&run->before, &now, "recovered from", run->n);
    CHECK_MSG(memcmp(run->before.statistics.bytes, now.statistics.bytes, now.statistics.count) == 0,
              "batch statistics, recovered from %d", run->n);
    CHECK_MSG(now.allocated == run->before.allocated, "allocated bytes, recovered from %d", run->n);
    CHECK_MSG(gradients_clear(&run->rig), "clear gradients, recovered from %d", run->n);
    CHECK_OK(oom_allocator_check(run->rig.session.allocator));
    everything_free(&now);
    return OOM_OK;
}

/* Two steps; allocation n of step `at` fails. Returns how many failures were met. */
static int disturbed(const struct rig_options *o, struct oom_sizing sizing, int at, int n,
                     struct snapshot out[3]) {
    struct trial_run run = {.n = n};
    rig_open(&run.rig, o);
    sizing.watch = (struct oom_watch){&run, before_step, after_failure, after_recovery, NULL};
    for (int step = 0; step < 2; step++) {
        struct rig_ready ready = {&run.rig, &out[step]};
        sizing.ready = (struct oom_gradients_ready){&ready, rig_take_gradients};
        if (step == at) oom_allocator_fail_call_at(run.rig.session.allocator, (uint64_t)n);
        CHECK_OK(rig_sized_step(&run.rig, &sizing, step, 6));
        oom_allocator_fail_call_at(run.rig.session.allocator, 0);
    }
    snapshot_take(&run.rig, true, &out[2]);
    everything_free(&run.before);
    rig_close(&run.rig);
    return run.failures;
}

/* A micro-batch halves after the OOM, a batch is run again as it was: the same bits either way. */
static void every_allocation(const char *model, bool micro, enum oom_gradients gradients,
                             enum oom_optimizer optimizer) {
    struct rig_options o = {.model = model,
                            .dtype = OOM_F32,
                            .capacity = 16 << 20,
                            .gradients = gradients,
                            .optimizer = optimizer};
    struct oom_sizing sizing = {.rule = micro ? OOM_RULE_HALVING : OOM_RULE_RETRY,
                                .micro = micro,
                                .most = micro ? 4 : 6,
                                .retry = 6};
    struct snapshot calm[3] = {{0}};
    int met = 0;
    TEST("recovery: an OOM at every allocation of a step changes nothing: %s%s, gradients %s",
         model, micro ? ", micro-batches" : "",
         gradients == OOM_GRADIENTS_NONE ? "none" : "zeroed");
    if (!micro)
        sizing.most = 7; /* the window is of 6: the retry's size is another, its samples not */
    uint64_t host_before = oom_host_bytes_current();
    CHECK_EQ(disturbed(&o, sizing, 0, 0, calm), 0);
    for (int at = 0; at < 2; at++) {
        for (int n = 1, failures = 1; failures > 0; n++) {
            struct snapshot found[3] = {{0}};
            failures = disturbed(&o, sizing, at, n, found);
            CHECK(failures <= 1);
            met += failures;
            for (int i = 0; i < 3; i++) {
                CHECK_MSG(snapshot_same(&calm[i], &found[i]),
                          "step %d, allocation %d: the bits of %s", at, n,
                          i == 2 ? "weights and loss in the end" : "gradients and loss");
                snapshot_free(&found[i]);
            }
        }
    }
    for (int i = 0; i < 3; i++) snapshot_free(&calm[i]);
    CHECK_EQ(oom_host_bytes_current(), host_before);
    CHECK(met > 20);
    printf("# %d allocations\n", met);
}

/* ---- the optimizer alone ---- */

static void prepare_update(struct rig *rig) {
    CHECK_OK(oom_trainer_begin_step(rig->trainer));
    CHECK_OK(oom_trainer_micro_batch(rig->trainer, &rig->window, 0, rig->window.samples,
                                     (struct oom_weighing){.divisor = rig->window.total}));
}

static void optimizer_all_or_nothing(enum oom_optimizer optimizer, int states) {
    struct rig_options o = {.model = "mlp,layers=2,width=8,rows=2,vocab=3",
                            .dtype = OOM_F32,
                            .capacity = 16 << 20,
                            .optimizer = optimizer};
    struct everything calm = {.steps = 0};
    int failures = 0;
    TEST("recovery: the update is all or nothing: optimizer %d", (int)optimizer);
    for (int n = 0; n <= states + 1; n++) {
        struct rig rig;
        rig_open(&rig, &o);
        rig_window(&rig, 4, 0, false);
        prepare_update(&rig);
        struct everything before = everything_take(&rig);
        oom_allocator_fail_call_at(rig.session.allocator, (uint64_t)n);
        enum oom_status status = oom_trainer_update(rig.trainer);
        oom_allocator_fail_call_at(rig.session.allocator, 0);
        if (status != OOM_OK) {
            struct everything after = everything_take(&rig);
            CHECK_EQ(status, OOM_NOMEM);
            failures++;
            check_same(&before, &after, "update failed at", n);
            CHECK_EQ(before.allocated, after.allocated);
            everything_free(&after);
            oom_failure_clear();
            CHECK_OK(oom_trainer_update(rig.trainer)); /* the gradients are still those */
        }
        struct everything done = everything_take(&rig);
        CHECK(!snapshot_same(&before.weights, &done.weights));
        CHECK_EQ(done.steps, 1);
        if (n == 0) {
            calm = done;
        } else {
            check_same(&calm, &done, "after the update, failed at", n);
            everything_free(&done);
        }
        everything_free(&before);
        rig_close(&rig);
    }
    CHECK_EQ(failures, states);
    everything_free(&calm);
}

/* ---- the host's own memory ---- */

static void host_memory(void) {
    struct rig_options o = {.model = "gpt,layers=1,width=8,heads=2,context=6,vocab=9,dropout=0.125",
                            .dtype = OOM_F32,
                            .capacity = 16 << 20};
    struct oom_trainer_options options = rig_trainer_options(&o);
    uint64_t before = oom_host_bytes_current();
    bool done = false;
    int n = 0;
    TEST("recovery: no host memory at any place of a step is a status, and leaves nothing");
    while (!done && n < 2000) {
        struct rig rig;
        struct oom_sizing sizing = {.rule = OOM_RULE_HALVING, .most = 4};
        rig_open_allocator(&rig, &o);
        oom_host_fail_at((uint64_t)++n);
        enum oom_status status = oom_trainer_create(&rig.session, &options, &rig.trainer);
        CHECK((status == OOM_OK) == (rig.trainer != NULL));
        if (status == OOM_OK) status = rig_sized_step(&rig, &sizing, 0, 4);
        oom_host_fail_at(0);
        CHECK_MSG(status == OOM_OK || status == OOM_HOST_NOMEM, "allocation %d: %s", n,
                  oom_status_name(status));
        CHECK((status == OOM_OK) == (oom_failure_last()->status == OOM_OK));
        done = status == OOM_OK;
        oom_failure_clear();
        rig_close(&rig);
    }
    CHECK(done && n > 3);
    CHECK_EQ(oom_host_bytes_current(), before);
    printf("# %d places\n", n - 1);
}

/* ---- the kinds of recovery ---- */

static int64_t current(const struct rig *rig, bool reserved) {
    const struct oom_allocator_stats *stats = oom_allocator_stats(rig->session.allocator);
    return reserved ? stats->reserved_bytes[OOM_POOL_ALL].current
                    : stats->allocated_bytes[OOM_POOL_ALL].current;
}

static void recoveries(void) {
    static const struct {
        const char *name;
        enum oom_recovery recovery;
        bool held, cached;
    } kinds[] = {{"full", OOM_RECOVERY_FULL, false, false},
                 {"held", OOM_RECOVERY_HELD, true, true},
                 {"dropped", OOM_RECOVERY_DROPPED, false, true}};
    struct rig_options o = {
        .model = "mlp,layers=12,width=64,rows=128", .dtype = OOM_F32, .capacity = 32 << 20};
    for (int i = 0; i < 3; i++) {
        struct rig rig;
        TEST("recovery: %s: tensors %s, cache %s", kinds[i].name, kinds[i].held ? "held" : "gone",
             kinds[i].cached ? "kept" : "given back");
        rig_open(&rig, &o);
        rig_window(&rig, 64, 0, false);
        int64_t allocated = current(&rig, false), reserved = current(&rig, true);
        CHECK_EQ(rig_step(&rig, (struct oom_cut){.micro = 64}, NULL), OOM_NOMEM);
        oom_failure_clear();
        CHECK(current(&rig, false) > allocated);
        CHECK_OK(oom_recover(rig.trainer, kinds[i].recovery));
        CHECK_EQ(current(&rig, false) > allocated, kinds[i].held);
        CHECK_EQ(current(&rig, true) > reserved, kinds[i].cached);
        rig_close(&rig); /* checks that nothing is left, held tensors included */
    }
}

/* The forwards of a failed step have changed batch statistics and running random numbers, whether
 * its tensors are dropped or not. */
static void statistics_come_back(enum oom_recovery recovery, const char *name) {
    TEST("recovery: %s takes statistics and running random numbers back", name);
    struct rig_options o = {.model = "cnn,layers=1,width=4,image=4,stages=1,vocab=4,dropout=0.25",
                            .dtype = OOM_F32};
    struct oom_trainer_options options = rig_trainer_options(&o);
    struct snapshot before = {0}, changed = {0}, after = {0};
    struct rig rig;
    options.rng = OOM_RNG_STATEFUL;
    rig_open_allocator(&rig, &o);
    CHECK_OK(oom_trainer_create(&rig.session, &options, &rig.trainer));
    rig_window(&rig, 4, 0, false);
    read_statistics(&rig, &before);
    CHECK_OK(oom_trainer_begin_step(rig.trainer));
    CHECK_OK(oom_trainer_micro_batch(rig.trainer, &rig.window, 0, 4,
                                     (struct oom_weighing){.divisor = rig.window.total}));
    read_statistics(&rig, &changed);
    CHECK(!snapshot_same(&before, &changed) && rig.trainer->rng_offset > 0);
    CHECK_OK(oom_recover(rig.trainer, recovery));
    read_statistics(&rig, &after);
    CHECK(snapshot_same(&before, &after));
    CHECK_EQ(rig.trainer->rng_offset, 0);
    snapshot_free(&before);
    snapshot_free(&changed);
    snapshot_free(&after);
    rig_close(&rig);
}

void recovery_test(void) {
    static const char gpt[] = "gpt,layers=1,width=8,heads=2,context=6,vocab=9,dropout=0.125";
    static const char scores[] = "gpt,layers=1,width=8,heads=2,context=5,vocab=9,attention=scores";
    static const char mlp[] = "mlp,layers=2,width=8,rows=3,vocab=4,dropout=0.125";
    static const char cnn[] =
        "cnn,layers=2,width=4,image=4,norm=group,groups=2,vocab=4,dropout=0.125";
    static const char batch_norm[] = "cnn,layers=1,width=4,image=4,stages=1,vocab=4";
    every_allocation(gpt, false, OOM_GRADIENTS_NONE, OOM_OPTIMIZER_ADAMW);
    every_allocation(gpt, true, OOM_GRADIENTS_ZEROED, OOM_OPTIMIZER_ADAMW);
    every_allocation(scores, true, OOM_GRADIENTS_NONE, OOM_OPTIMIZER_SGD);
    every_allocation(mlp, true, OOM_GRADIENTS_NONE, OOM_OPTIMIZER_ADAMW);
    every_allocation(mlp, false, OOM_GRADIENTS_ZEROED, OOM_OPTIMIZER_SGD);
    every_allocation(cnn, true, OOM_GRADIENTS_NONE, OOM_OPTIMIZER_SGD);
    every_allocation(batch_norm, false, OOM_GRADIENTS_NONE, OOM_OPTIMIZER_SGD);
    optimizer_all_or_nothing(OOM_OPTIMIZER_SGD, 6);
    optimizer_all_or_nothing(OOM_OPTIMIZER_ADAMW, 12);
    host_memory();
    recoveries();
    statistics_come_back(OOM_RECOVERY_FULL, "full");
    statistics_come_back(OOM_RECOVERY_HELD, "held");
}
