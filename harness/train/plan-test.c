/*
 * plan-test.c: what a plan says is what the host device then measures, to the byte, in another
 * place, at another address, with real data; and where a plan says that it does not fit, the run
 * fails at the same allocation.
 */
#include "harness/train/plan.h"

#include "harness/train/train-testing.h"

#include <stdio.h>

void plan_test(void);

static const uint64_t neighbours[] = {700, 300000, 1310720};

/* One request as rows of a table. */
struct situation {
    const char *model;
    int64_t samples, size;
    bool micro, uneven;
    int steps;
    enum oom_gradients gradients;
    enum oom_optimizer optimizer;
    uint64_t capacity, foreign;
    bool with_neighbours;
    const char *conf;
};

static struct oom_plan_request request_of(const struct situation *s) {
    struct rig_options o = {
        .model = s->model, .gradients = s->gradients, .optimizer = s->optimizer};
    struct oom_plan_request request = {.trainer = rig_trainer_options(&o),
                                       .settings = oom_allocator_settings_default(),
                                       .capacity = s->capacity,
                                       .foreign = s->foreign,
                                       .neighbours = neighbours,
                                       .neighbour_count = s->with_neighbours ? 3 : 0,
                                       .samples = s->samples,
                                       .size = s->size,
                                       .micro = s->micro,
                                       .uneven = s->uneven,
                                       .steps = s->steps};
    if (s->conf != NULL) CHECK_OK(oom_allocator_settings_parse(s->conf, &request.settings));
    return request;
}

/* ---- the real run: its own loop, not the plan's ---- */

struct measured {
    enum oom_status status;
    struct oom_memory_info info;
    struct oom_allocator_stats stats;
    struct oom_report report;
    enum oom_phase phase;
    int micro_batch, gradients_written;
};

static enum oom_status real_steps(struct rig *rig, const struct oom_plan_request *request) {
    oom_devptr ptr;
    struct oom_device *device = rig->session.device;
    if (request->foreign > 0) OOM_TRY(device->api->alloc(device, request->foreign, &ptr));
    for (int i = 0; i < request->neighbour_count; i++) {
        OOM_TRY(oom_allocator_alloc(rig->session.allocator, request->neighbours[i], NULL,
                                    OOM_TAG_OTHER, "neighbour", &ptr));
    }
    OOM_TRY(oom_trainer_create(&rig->session, &request->trainer, &rig->trainer));
    int64_t samples = request->micro ? request->samples : request->size;
    rig_window(rig, samples, 3, false);
    struct oom_cut cut = {.micro = request->size, .uneven = request->uneven};
    for (int i = 0; i < request->steps; i++) OOM_TRY(rig_step(rig, cut, NULL));
    return OOM_OK;
}

static struct measured measure(const struct oom_plan_request *request) {
    struct rig rig;
    struct rig_options o = {.model = "mlp", .capacity = request->capacity, .threads = 2};
    struct measured m = {.status = OOM_OK};
    rig_open_allocator(&rig, &o);
    oom_allocator_destroy(rig.session.allocator);
    CHECK_OK(oom_allocator_create(rig.session.device, &request->settings, &rig.session.allocator));
    m.status = real_steps(&rig, request);
    oom_failure_clear();
    rig.session.device->api->memory_info(rig.session.device, &m.info);
    m.stats = *oom_allocator_stats(rig.session.allocator);
    m.report = *oom_allocator_report(rig.session.allocator);
    if (rig.trainer != NULL) {
        m.phase = rig.trainer->phase;
        m.micro_batch = rig.trainer->micro_batch;
        m.gradients_written = rig.trainer->gradients_written;
    }
    oom_trainer_destroy(rig.trainer);
    oom_allocator_destroy(rig.session.allocator);
    oom_device_close(rig.session.device);
    return m;
}

static void same_peaks(const struct oom_plan *plan, const struct measured *m) {
    CHECK_EQ(plan->peak_device, m->info.peak);
    CHECK_EQ(plan->peak_reserved, m->stats.reserved_bytes[OOM_POOL_ALL].peak);
    CHECK_EQ(plan->peak_allocated, m->stats.allocated_bytes[OOM_POOL_ALL].peak);
    for (int i = 0; i < OOM_TAG_COUNT; i++) CHECK_EQ(plan->tag_at_peak[i], m->stats.tag_at_peak[i]);
}

#define GPT "gpt,layers=2,width=16,heads=4,context=32"
#define MIB << 20
static const struct situation fitting[] = {
    {.model = GPT, .samples = 8, .size = 8, .steps = 3},
    {.model = GPT ",tied=1", .samples = 5, .size = 5, .steps = 2, .optimizer = OOM_OPTIMIZER_ADAMW},
    {.model = GPT ",attention=scores,dropout=0.125",
     .samples = 16,
     .size = 16,
     .steps = 3,
     .optimizer = OOM_OPTIMIZER_ADAMW},
    {.model = GPT, .samples = 29, .size = 8, .micro = true, .steps = 2},
    {.model = GPT,
     .samples = 29,
     .size = 8,
     .micro = true,
     .uneven = true,
     .steps = 2,
     .gradients = OOM_GRADIENTS_ZEROED,
     .optimizer = OOM_OPTIMIZER_ADAMW},
    {.model = GPT,
     .samples = 40,
     .size = 40,
     .steps = 3,
     .foreign = 5000001,
     .with_neighbours = true},
    {.model = "mlp,layers=3,width=20,rows=33",
     .samples = 64,
     .size = 64,
     .steps = 3,
     .optimizer = OOM_OPTIMIZER_ADAMW},
    {.model = "mlp,layers=6,width=12,rows=96,dropout=0.125",
     .samples = 96,
     .size = 32,
     .micro = true,
     .steps = 3,
     .with_neighbours = true},
    {.model = "mlp,layers=6,width=12,rows=96",
     .samples = 64,
     .size = 64,
     .steps = 2,
     .conf = "max_split_size_mb:21,roundup_power2_divisions:4"},
    {.model = "mlp,layers=2,width=7,rows=1,vocab=3", .samples = 1, .size = 1, .steps = 1},
};

static void predicted_peaks(void) {
    for (size_t i = 0; i < sizeof fitting / sizeof fitting[0]; i++) {
        const struct situation *s = &fitting[i];
        struct situation capped = *s;
        struct oom_plan plan, unlimited;
        capped.capacity = 96 MIB;
        struct oom_plan_request request = request_of(&capped);
        TEST("plan: to the byte as measured: %s, %d samples by %d%s, %d steps", s->model,
             (int)s->samples, (int)s->size, s->uneven ? " uneven" : "", s->steps);
        CHECK_OK(oom_plan_run(&request, &plan));
        struct measured m = measure(&request);
        CHECK_EQ(m.status, OOM_OK);
        CHECK(plan.fits);
        CHECK(plan.peak_allocated > 0 && plan.peak_allocated <= plan.peak_reserved);
        same_peaks(&plan, &m);
        request.capacity = OOM_PLAN_UNLIMITED;
        CHECK_OK(oom_plan_run(&request, &unlimited));
        CHECK_EQ(unlimited.peak_reserved, plan.peak_reserved);
        CHECK_EQ(unlimited.peak_allocated, plan.peak_allocated);
    }
}

/* Capacities below what is needed fail in different places. */
static void predicted_failures(const struct situation *base, uint64_t from, uint64_t to) {
    char last[64] = "";
    int failures = 0, fits = 0, places = 0;
    TEST("plan: where it does not fit, the run fails at the same allocation: %s", base->model);
    for (uint64_t capacity = from; capacity <= to; capacity += 2 MIB) {
        struct situation s = *base;
        struct oom_plan plan;
        s.capacity = capacity;
        struct oom_plan_request request = request_of(&s);
        CHECK_OK(oom_plan_run(&request, &plan));
        CHECK_EQ(oom_failure_last()->status, OOM_OK);
        struct measured m = measure(&request);
        CHECK_EQ(m.status, plan.fits ? OOM_OK : OOM_NOMEM);
        same_peaks(&plan, &m);
        fits += plan.fits;
        if (plan.fits) continue;
        failures++;
        const struct oom_report *a = &plan.failed.report, *b = &m.report;
        CHECK_STR(a->site, b->site);
        CHECK(a->valid && a->tag == b->tag && a->index == b->index);
        CHECK(a->requested == b->requested && a->rounded == b->rounded && a->wanted == b->wanted);
        CHECK(a->device_free == b->device_free && a->reserved == b->reserved);
        CHECK(a->allocated == b->allocated && a->foreign == b->foreign && a->cached == b->cached);
        CHECK(plan.failed.phase == m.phase && plan.failed.micro_batch == m.micro_batch);
        CHECK_EQ(plan.failed.gradients_written, m.gradients_written);
        places += strcmp(last, a->site) != 0;
        snprintf(last, sizeof last, "%s", a->site);
    }
    CHECK_MSG(places >= 2 && failures >= 3 && fits > 0, "%d failures in %d places, %d fit",
              failures, places, fits);
}

void plan_test(void) {
    predicted_peaks();
    predicted_failures(&(struct situation){.model = "mlp,layers=4,width=512,rows=1,vocab=512",
                                           .samples = 3,
                                           .size = 3,
                                           .steps = 2,
                                           .optimizer = OOM_OPTIMIZER_ADAMW},
                       2 MIB, 30 MIB);
    predicted_failures(
        &(struct situation){.model = "gpt,layers=8,width=16,heads=4,context=64,vocab=900",
                            .samples = 16,
                            .size = 8,
                            .micro = true,
                            .steps = 2,
                            .with_neighbours = true,
                            .foreign = 1},
        4 MIB, 30 MIB);
}
