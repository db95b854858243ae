#include "harness/memory/snapshot.h"

/* Before the other: that one has a global with a short name. */
#include "harness/memory/snapshot-testing.h"

#include "harness/memory/allocator-testing.h"

void snapshot_take_test(void);

static struct oom_snapshot s;

/* Every block of the walk is in the snapshot, in order, and nothing else is. */
struct walked {
    uint64_t blocks, wrong, allocated;
};

static enum oom_status compare(const struct oom_block_view *view, void *context) {
    struct walked *walked = context;
    const struct oom_snapshot_block *block = &s.blocks[walked->blocks++];
    if (walked->blocks > s.block_count) return OOM_INTERNAL;
    if (block->address != view->address || block->bytes != view->bytes ||
        (block->state == OOM_BLOCK_ALLOCATED) != view->allocated ||
        (block->state == OOM_BLOCK_PENDING_FREE) != view->pending)
        walked->wrong++;
    if (view->allocated) walked->allocated += view->bytes;
    return OOM_OK;
}

static void check_taken(const char *conf) {
    struct walked walked = {0};
    CHECK_OK(oom_snapshot_take(a, &s));
    CHECK_OK(oom_allocator_walk(a, compare, &walked));
    CHECK_EQ(walked.wrong, 0);
    CHECK_EQ(walked.blocks, s.block_count);
    uint64_t sum = 0, held = 0;
    for (uint64_t i = 0; i < s.segment_count; i++) {
        sum += s.segments[i].bytes;
        held += s.segments[i].allocated;
    }
    CHECK_EQ(sum, reserved());
    CHECK_EQ(held, walked.allocated);
    CHECK_EQ(s.event_count, oom_allocator_trace_count(a));
    CHECK_EQ(s.traces[0].count, s.event_count);
    for (uint64_t i = 0; i < s.event_count; i++) {
        const struct oom_trace_event *event = oom_allocator_trace_at(a, i);
        CHECK(s.events[i].action == event->action && s.events[i].address == event->address &&
              s.events[i].bytes == event->bytes && s.events[i].time_us == event->time_us);
    }
    CHECK_STR(s.conf, conf);
    CHECK(s.has_settings && s.capacity == GIB && s.kind == OOM_SNAPSHOT_KIND_OOMBENCH);
    CHECK(snapshot_round_trip(&s, oom_snapshot_write_pickle) == NULL);
    CHECK(snapshot_round_trip(&s, oom_snapshot_write_json) == NULL);
}

static void script(void) {
    oom_devptr x = take(1000), y, z = take(30 * MIB);
    CHECK_OK(oom_allocator_alloc(a, 5 * MIB, NULL, OOM_TAG_ACTIVATION, "layer 3 gelu", &y));
    CHECK_OK(oom_allocator_pool_use(a, (struct oom_pool_id){0, 7}));
    take(3 * MIB);
    give(z);
    refuse(2 * GIB);
    give(x);
}

static bool has_site(const char *name) {
    for (uint64_t i = 0; i < s.block_count; i++) {
        if (strcmp(oom_snapshot_site(&s, s.blocks[i].site), name) == 0) return true;
    }
    return false;
}

static void whole_segments(void) {
    TEST("take: blocks, events and settings of an allocator");
    begin(GIB, "max_split_size_mb:20");
    script();
    check_taken("max_split_size_mb:20");
    CHECK(has_site("layer 3 gelu (activation)"));
    CHECK_EQ(s.max_split_size, 20 * MIB);
    CHECK_EQ(s.profile, OOM_PROFILE_PYTORCH_2_13);
    bool pooled = false;
    for (uint64_t i = 0; i < s.segment_count; i++) pooled = pooled || s.segments[i].pool.b == 7;
    CHECK(pooled);
    oom_snapshot_free(&s);
    end();
}

static void expandable(void) {
    TEST("take: of expandable segments one entry for each run of mapped pages");
    begin(GIB, "expandable_segments:True");
    script();
    check_taken("expandable_segments:True");
    CHECK(s.expandable_segments && s.segment_count > 0 && s.segments[0].expandable);
    oom_snapshot_free(&s);
    end();
}

static void settings(void) {
    TEST("take: settings made without a string get one that says them");
    struct oom_allocator_settings made = oom_allocator_settings_default();
    fake_open(&fake, GIB, false);
    made.max_split_size = 30 * MIB;
    made.per_process_memory_fraction = 0.5;
    CHECK_OK(oom_allocator_create(&fake.device, &made, &a));
    CHECK_OK(oom_snapshot_take(a, &s));
    CHECK_STR(s.conf, "max_split_size_mb:30,per_process_memory_fraction:0.5");
    oom_snapshot_free(&s);
    end();
}

static void no_memory(void) {
    TEST("take: without host memory it says so and leaves nothing");
    begin(GIB, "");
    script();
    uint64_t before = oom_host_bytes_current();
    int refused = 0;
    for (uint64_t n = 1; n < 60; n++) {
        oom_failure_clear();
        oom_host_fail_at(n);
        enum oom_status status = oom_snapshot_take(a, &s);
        oom_host_fail_at(0);
        if (status == OOM_OK) break;
        CHECK_EQ(status, OOM_HOST_NOMEM);
        CHECK_EQ(oom_host_bytes_current(), before);
        refused++;
    }
    CHECK(refused > 3);
    oom_snapshot_free(&s);
    oom_failure_clear();
    end();
}

void snapshot_take_test(void) {
    whole_segments();
    expandable();
    settings();
    no_memory();
}
