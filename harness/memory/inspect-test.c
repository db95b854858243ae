/* The trace, and that the check of the allocator sees what it is there to see: each kind of damage,
 * done by hand, must be named. */
#include "harness/memory/allocator-testing.h"
#include "harness/memory/internal.h"

#include <string.h>

void inspect_test(void);

static void trace(void) {
    TEST("allocator: the trace is a ring of the newest events");
    struct oom_allocator_settings settings = oom_allocator_settings_default();
    settings.trace_entries = 1500;
    fake_open(&fake, GIB, false);
    CHECK_OK(oom_allocator_create(&fake.device, &settings, &a));
    for (int i = 0; i < 1000; i++) give(take((uint64_t)i + 1)); /* 1 + 3000 events */
    CHECK_EQ(oom_allocator_trace_count(a), 1500);
    CHECK_EQ(oom_allocator_trace_dropped(a), 1501);
    int good = 0;
    for (int i = 0; i < 1500; i += 3) {
        uint64_t bytes = 501 + (uint64_t)i / 3, at = (uint64_t)i;
        good += oom_allocator_trace_at(a, at)->action == OOM_ACTION_ALLOC &&
                oom_allocator_trace_at(a, at)->bytes == bytes;
        good += oom_allocator_trace_at(a, at + 1)->action == OOM_ACTION_FREE_REQUESTED &&
                oom_allocator_trace_at(a, at + 1)->bytes == bytes;
        good += oom_allocator_trace_at(a, at + 2)->action == OOM_ACTION_FREE_COMPLETED;
    }
    CHECK_EQ(good, 1500);
    CHECK(oom_allocator_trace_at(a, 1500) == NULL);
    end();
}

/* ---- damage ---- */

static void caught(const char *words) {
    oom_failure_clear();
    CHECK_EQ(oom_allocator_check(a), OOM_INTERNAL);
    CHECK_MSG(strstr(oom_failure_last()->message, words) != NULL, "'%s' is not in: %s", words,
              oom_failure_last()->message);
    oom_failure_clear();
}

/* A counter whose current value, sums or peak are wrong. */
static void damage_counter(struct oom_counter *counter, const char *name) {
    struct oom_counter before = *counter;
    counter->current++;
    counter->allocated++;
    caught(name);
    *counter = before;
    counter->freed++;
    caught(name);
    *counter = before;
    counter->current++;
    caught(name);
    *counter = before;
    counter->peak = counter->current - 1;
    caught(name);
    *counter = before;
}

static void damage(void) {
    TEST("check: each statistic that is off by one is named");
    begin(GIB, "");
    oom_devptr first = take(512), middle = take(1024);
    take(512);
    take(30 * MIB);
    give(first);
    for (int pool = 0; pool < OOM_POOL_COUNT; pool++) {
#define X(name) damage_counter(&a->stats.name[pool], #name);
        OOM_STATISTIC_MAP(X)
#undef X
    }
    damage_counter(&a->stats.oversize_segments, "oversize_segments");
    damage_counter(&a->stats.oversize_allocations, "oversize_allocations");
    a->stats.tag_current[OOM_TAG_DATA]++;
    caught("data");
    a->stats.tag_current[OOM_TAG_DATA]--;
    a->reserved++;
    caught("reserved for the limit");
    a->reserved--;

    TEST("check: blocks that overlap, leave gaps, or are in the wrong set are named");
    struct oom_block *block = oom_live_table_find(&a->live, middle);
    block->bytes += 512;
    caught("does not follow");
    block->bytes -= 512;
    block->prev->bytes -= 512;
    caught("does not follow");
    block->prev->bytes += 512;
    block->hold = OOM_HOLD_FREE;
    caught("not merged");
    block->hold = OOM_HOLD_LIVE;
    block->prev->hold = OOM_HOLD_LIVE;
    caught("not in the table");
    block->prev->hold = OOM_HOLD_FREE;
    oom_free_set_remove(&a->pools[OOM_POOL_SMALL].free, block->prev);
    caught("free");
    oom_free_set_insert(&a->pools[OOM_POOL_SMALL].free, block->prev);
    block->counter++;
    caught("disagrees");
    block->counter--;
    CHECK_EQ(oom_live_table_take(&a->live, middle)->address, middle);
    caught("not in the table");
    oom_live_table_add(&a->live, block);
    end();
}

void inspect_test(void) {
    trace();
    damage();
}
