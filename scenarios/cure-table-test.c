/*
 * cure-table-test.c: what the design asks of the table of cures; that the pinned sizes are those
 * that the search finds; and that a table which has changed is caught.
 */
#include "scenarios/cure-table.h"

#include "harness/verify/cures.h"
#include "kernels/testing.h"

#include <stdio.h>
#include <string.h>

void cure_table_test(void);

static struct oom_run_options options;
static struct oom_situation situation = {.options = &options};

static bool fits(const struct oom_pinned *pin, enum oom_cure_id cure) {
    return pin->fits >> cure & 1;
}

static bool is_kept_counter_example(const struct oom_pinned *pin) {
    return pin->fails == OOM_CURE_EXPANDABLE;
}

static void promises(void) {
    TEST("cures: expandable segments fit wherever the default fails, but for the one kept to show "
         "that they can fail where it fits; every cure has its generator");
    int counter_examples = 0;
    uint32_t cured = 0;
    for (const struct oom_pinned *pin = oom_pinned; pin->generator != NULL; pin++) {
        const struct oom_generator *generator = oom_generator_find(pin->generator);
        if (!CHECK_MSG(generator != NULL, "%s", pin->generator)) continue;
        CHECK_MSG(!fits(pin, pin->fails), "%s fails as it is", pin->generator);
        if (is_kept_counter_example(pin)) {
            CHECK(fits(pin, OOM_CURE_DEFAULT));
            counter_examples++;
        } else if (generator->foreign_share > 0) {
            CHECK_EQ(pin->fits, 1u << OOM_CURE_RELEASE); /* recipes, section 5 */
        } else {
            CHECK_MSG(fits(pin, OOM_CURE_EXPANDABLE), "%s", pin->generator);
            cured |= pin->fits;
        }
        CHECK_MSG(pin->free >= pin->requested, "%s", pin->generator);
    }
    CHECK_EQ(counter_examples, 1);
    for (int cure = OOM_CURE_EXPANDABLE; cure < OOM_CURE_COUNT; cure++) {
        if (cure == OOM_CURE_MAX_SPLIT_QUARTER) continue; /* too large a share to cure but rarely */
        CHECK_MSG(cured >> cure & 1, "%s", oom_cures[cure].name);
    }
}

static void sizes(void) {
    TEST("cures: the pinned sizes are those found on the dry device");
    for (const struct oom_pinned *pin = oom_pinned; pin->generator != NULL; pin++) {
        const struct oom_generator *generator = oom_generator_find(pin->generator);
        struct oom_job found, pinned;
        CHECK_OK(
            oom_generator_job(&situation, generator, OOM_PINNED_CAPACITY, pin->seed, 0, &found));
        CHECK_OK(oom_generator_job(&situation, generator, OOM_PINNED_CAPACITY, pin->seed, pin->size,
                                   &pinned));
        CHECK_EQ(oom_generator_size(generator, &found), pin->size);
        CHECK(memcmp(&found.trainer.spec, &pinned.trainer.spec, sizeof found.trainer.spec) == 0);
        CHECK_EQ(found.loop.evaluate_rows, pinned.loop.evaluate_rows);
    }
}

static void judge(const struct oom_case *c, struct oom_case_record *record) {
    memset(record, 0, sizeof *record);
    CHECK_OK(oom_cures_judge(c, record));
    oom_record_decide(record);
}

static void table_holds(void) {
    TEST("cures: every row of the table is as pinned");
    for (const struct oom_pinned *pin = oom_pinned; pin->generator != NULL; pin++) {
        struct oom_case c = {.id = "x"};
        struct oom_case_record record;
        CHECK_OK(oom_cure_table_case(&situation, pin->generator, &c));
        judge(&c, &record);
        CHECK_MSG(record.outcome == OOM_OUTCOME_PASS, "%s: %s; %s", pin->generator,
                  record.why[OOM_BIT_OOM_WITHOUT], record.why[OOM_BIT_FITS_WITH]);
        CHECK_EQ(record.bits[OOM_BIT_GRAD_MATCH], OOM_NOT_ASKED);
    }
}

static void changes_are_caught(void) {
    TEST("cures: a cell, an allocation, a size or the free bytes that changed fail the row");
    struct oom_case c = {.id = "x"};
    struct oom_case_record record;
    CHECK_OK(oom_cure_table_case(&situation, "tail", &c));
    for (int i = 0; i < c.table.count; i++) {
        c.table.cures[i].fits = !c.table.cures[i].fits;
        judge(&c, &record);
        c.table.cures[i].fits = !c.table.cures[i].fits;
        CHECK_EQ(record.outcome, OOM_OUTCOME_FAIL);
        CHECK_EQ(record.bits[OOM_BIT_FITS_WITH], OOM_FALSE);
        CHECK(strstr(record.why[OOM_BIT_FITS_WITH], c.table.cures[i].name) != NULL);
    }
    uint64_t *pinned[] = {&c.table.allocation, &c.table.requested, &c.table.free};
    for (int i = 0; i < 3; i++) {
        ++*pinned[i];
        judge(&c, &record);
        --*pinned[i];
        CHECK_EQ(record.outcome, OOM_OUTCOME_FAIL);
        CHECK_EQ(record.bits[OOM_BIT_OOM_WITHOUT], OOM_FALSE);
    }
    c.unmitigated.capacity *= 2;
    judge(&c, &record);
    CHECK_EQ(record.bits[OOM_BIT_OOM_WITHOUT], OOM_FALSE);
}

void cure_table_test(void) {
    snprintf(options.device, sizeof options.device, "dry");
    options.capacity = OOM_PINNED_CAPACITY;
    options.settings = oom_allocator_settings_default();
    options.seed = 1;
    options.threads = 1;
    promises();
    sizes();
    table_holds();
    changes_are_caught();
}
