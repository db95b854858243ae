/*
 * fragmentation-test.c: whatever the capacity, every row can be made, fails as it is on the dry
 * device, and ends with its cure.
 */
#include "harness/cli/scenario.h"
#include "kernels/testing.h"

#include <stdio.h>
#include <string.h>

void fragmentation_test(void);

extern const struct oom_scenario oom_scenario_fragmentation;

static bool is_real(const struct oom_scenario_case *row) {
    return row->control == OOM_CONTROL_NONE && row->the_case.table.count == 0;
}

static void check_row(const struct oom_scenario_case *row, uint64_t capacity) {
    const struct oom_case *c = &row->the_case;
    struct oom_job_result result;
    if (!CHECK_MSG(row->skip[0] == 0, "%s: %s", c->id, row->skip) || !is_real(row)) return;
    CHECK(c->mitigated.capacity <= capacity || c->mitigated.capacity == 512u << 20);
    CHECK_OK(oom_job_run_dry(&c->unmitigated, &result));
    CHECK_MSG(result.status == OOM_NOMEM, "%s fails", c->id);
    CHECK_MSG(result.oom.capacity - result.oom.allocated >= result.oom.requested, "%s", c->id);
    CHECK_OK(oom_job_run_dry(&c->mitigated, &result));
    CHECK_MSG(result.status == OOM_OK && result.steps_done == c->mitigated.steps, "%s", c->id);
    bool checkpoints = strstr(c->id, "/checkpointed") != NULL;
    CHECK_MSG((result.recomputed > 0) == checkpoints, "%s: %d", c->id, result.recomputed);
}

static void at_capacity(uint64_t mib) {
    struct oom_run_options options = {.capacity = mib << 20,
                                      .capacity_from = "option",
                                      .settings = oom_allocator_settings_default(),
                                      .seed = 1,
                                      .threads = 1};
    struct oom_docket docket = {0};
    TEST("fragmentation: every row can be made at %d MiB, fails, and is cured", (int)mib);
    snprintf(options.device, sizeof options.device, "host");
    int real = 0;
    CHECK_OK(oom_scenario_fragmentation.list(&options, &docket));
    for (int i = 0; i < docket.count; i++) {
        real += is_real(&docket.rows[i]);
        check_row(&docket.rows[i], mib << 20);
    }
    CHECK_EQ(real, 7);
    oom_docket_free(&docket);
}

void fragmentation_test(void) {
    at_capacity(192);
    at_capacity(1024);
}
