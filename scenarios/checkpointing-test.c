/*
 * checkpointing-test.c: whatever the capacity, every row can be made, fails as it is on the dry
 * device and ends with its cure; and what sqrt(n) segments keep and cost by depth.
 */
#include "harness/cli/scenario.h"
#include "kernels/testing.h"

#include <math.h>
#include <stdio.h>

void checkpointing_test(void);

extern const struct oom_scenario oom_scenario_checkpointing;

static void check_row(const struct oom_scenario_case *row) {
    const struct oom_case *c = &row->the_case;
    struct oom_job_result result;
    if (!CHECK_MSG(row->skip[0] == 0, "%s: %s", c->id, row->skip)) return;
    CHECK_OK(oom_job_run_dry(&c->unmitigated, &result));
    CHECK_MSG(result.status == OOM_NOMEM, "%s fails", c->id);
    CHECK_OK(oom_job_run_dry(&c->mitigated, &result));
    bool ends = result.status == OOM_OK && result.steps_done == c->mitigated.steps;
    CHECK_MSG(ends, "%s ends: %s", c->id, result.message);
    bool checkpoints = c->mitigated.trainer.checkpointing != OOM_CHECKPOINTING_OFF;
    CHECK_MSG((result.recomputed > 0) == checkpoints, "%s: %d forwards again", c->id,
              result.recomputed);
    if (c->mitigated.trainer.checkpointing != OOM_CHECKPOINTING_SQRT) return;
    CHECK_MSG(result.again_flops < result.forward_flops, "%s: at most one forward more", c->id);
}

static void at_capacity(uint64_t mib, bool full) {
    struct oom_run_options options = {.capacity = mib << 20,
                                      .capacity_from = "option",
                                      .settings = oom_allocator_settings_default(),
                                      .seed = 1,
                                      .full = full,
                                      .threads = 1};
    struct oom_docket docket = {0};
    TEST("checkpointing: every row can be made at %d MiB, fails, and is cured", (int)mib);
    snprintf(options.device, sizeof options.device, "host");
    CHECK_OK(oom_scenario_checkpointing.list(&options, &docket));
    CHECK(docket.count > (full ? 30 : 12));
    for (int i = 0; i < docket.count; i++) check_row(&docket.rows[i]);
    oom_docket_free(&docket);
}

static struct oom_plan plan_of(int64_t layers, enum oom_checkpointing checkpointing) {
    struct oom_plan_request request = {.trainer = {.seed = 1, .checkpointing = checkpointing},
                                       .settings = oom_allocator_settings_default(),
                                       .capacity = OOM_PLAN_UNLIMITED,
                                       .steps = 1};
    struct oom_plan plan = {0};
    CHECK_OK(
        oom_model_spec_parse("gpt,width=32,heads=4,context=64,batch=8", &request.trainer.spec));
    request.trainer.spec.layers = layers;
    request.samples = request.size = 8;
    CHECK_OK(oom_plan_run(&request, &plan));
    return plan;
}

/* Four times the depth is four times what is saved, and twice what sqrt(n) segments keep. A chain
 * keeps at most a boundary for each segment and all of the longest; s = sqrt(n) + 1 of each. */
static void test_by_depth(void) {
    double before = 0;
    TEST("checkpointing: sqrt(n) segments keep what grows as sqrt(n), at less than a forward more");
    uint64_t block = plan_of(65, OOM_CHECKPOINTING_OFF).tag_at_peak[OOM_TAG_ACTIVATION] -
                     plan_of(64, OOM_CHECKPOINTING_OFF).tag_at_peak[OOM_TAG_ACTIVATION];
    uint64_t boundary = 8 * 64 * 32 * 4;
    for (int64_t layers = 14; layers <= 254; layers = 4 * (layers + 2) - 2) {
        struct oom_plan plan = plan_of(layers, OOM_CHECKPOINTING_SQRT);
        double kept = (double)plan.tag_at_peak[OOM_TAG_ACTIVATION];
        double root = ceil(sqrt((double)layers + 2)) + 1;
        CHECK_MSG(kept <= root * (double)(block + boundary), "%d layers: %.0f", (int)layers, kept);
        CHECK_MSG(plan.extra_forward > 0 && plan.extra_forward < 1, "%.3f", plan.extra_forward);
        if (before > 0)
            CHECK_MSG(kept < 2.1 * before, "%d layers: %.2f", (int)layers, kept / before);
        before = kept;
    }
}

void checkpointing_test(void) {
    at_capacity(64, true);
    at_capacity(192, false);
    at_capacity(512, false);
    test_by_depth();
}
