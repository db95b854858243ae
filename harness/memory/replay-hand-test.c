/* Recordings made by hand, of what no short program gets a real allocator to do. */
#include "harness/memory/replay-hand-testing.h"
#include "harness/memory/replay-testing.h"

#include "kernels/testing.h"

#include <stdio.h>

void replay_hand_test(void);

static void moved_ranges(void) {
    enum { EVENTS = 14 };
    const uint64_t low = UINT64_C(1) << 40, high = low + (UINT64_C(100) << 30);
    TEST("replay: an expandable range that died may come back where another one was");
    struct oom_snapshot_event events[EVENTS] = {
        EVENT(SEGMENT_MAP, low, 20 * MIB),    EVENT(ALLOC, low, 15 * MIB),
        EVENT(FREE_REQUESTED, low, 15 * MIB), EVENT(FREE_COMPLETED, low, 15 * MIB),
        EVENT(SEGMENT_MAP, high, 2 * MIB),    EVENT(ALLOC, high, 512),
        EVENT(FREE_REQUESTED, high, 512),     EVENT(FREE_COMPLETED, high, 512),
        EVENT(SEGMENT_UNMAP, low, 20 * MIB),  EVENT(SEGMENT_UNMAP, high, 2 * MIB),
        EVENT(SEGMENT_MAP, high, 20 * MIB),   EVENT(ALLOC, high, 15 * MIB),
        EVENT(SEGMENT_MAP, low, 2 * MIB),     EVENT(ALLOC, low, 512)};
    struct oom_snapshot_segment segments[] = {
        {.address = low, .bytes = 2 * MIB, .small_pool = true, .expandable = true},
        {.address = high, .bytes = 20 * MIB, .expandable = true}};
    struct oom_snapshot_block blocks[] = {
        {.bytes = 512, .requested = 512, .state = OOM_BLOCK_ALLOCATED},
        {.bytes = 2 * MIB - 512},
        {.bytes = 15 * MIB, .requested = 15 * MIB, .state = OOM_BLOCK_ALLOCATED},
        {.bytes = 5 * MIB}};
    struct oom_snapshot_trace trace = {0, EVENTS};
    struct oom_snapshot s = by_hand(segments, 2, blocks, 4, events, &trace);
    s.has_settings = s.expandable_segments = true;
    s.max_split_size = -1;
    snprintf(s.conf, sizeof s.conf, "expandable_segments:True");
    struct oom_replay_verdict v;
    expect_equal(&s, &v);
    CHECK_EQ(v.decisions, 4);
    CHECK_EQ(v.peak_reserved, 22 * MIB);
}

static void pending_to_the_end(void) {
    const uint64_t at = UINT64_C(1) << 40;
    struct oom_replay_verdict v;
    TEST("replay: a free that waits to the end completes nothing, though no free ever did");
    struct oom_snapshot_event events[] = {EVENT(SEGMENT_ALLOC, at, 2 * MIB), EVENT(ALLOC, at, 700),
                                          EVENT(FREE_REQUESTED, at, 700)};
    struct oom_snapshot_segment small[] = {{.address = at, .bytes = 2 * MIB, .small_pool = true}};
    struct oom_snapshot_block waits[] = {
        {.bytes = 1024, .requested = 700, .state = OOM_BLOCK_PENDING_FREE},
        {.bytes = 2 * MIB - 1024}};
    struct oom_snapshot_trace three = {0, 3};
    struct oom_snapshot s = by_hand(small, 1, waits, 2, events, &three);
    expect_equal(&s, &v);
    CHECK_EQ(v.peak_allocated, 1024);
    CHECK_EQ(v.end_allocated, 0);
    TEST("replay: what waited at the start was no longer allocated, then or at the peak");
    struct oom_snapshot_event one_more[] = {EVENT(ALLOC, at + 4 * MIB, 3 * MIB)};
    struct oom_snapshot_segment large[] = {{.address = at, .bytes = 20 * MIB}};
    struct oom_snapshot_block beside[] = {
        {.bytes = 4 * MIB, .requested = 4 * MIB, .state = OOM_BLOCK_PENDING_FREE},
        {.bytes = 3 * MIB, .requested = 3 * MIB, .state = OOM_BLOCK_ALLOCATED},
        {.bytes = 13 * MIB}};
    struct oom_snapshot_trace one = {0, 1};
    s = by_hand(large, 1, beside, 3, one_more, &one);
    expect_equal(&s, &v);
    CHECK_EQ(v.start.allocated, 0);
    CHECK_EQ(v.peak_allocated, 3 * MIB);
}

static void absurd(void) {
    const uint64_t at = UINT64_C(1) << 40;
    struct oom_replay_verdict v;
    TEST("replay: a segment that no card has, or that lies askew, is refused");
    for (int askew = 0; askew < 2; askew++) {
        uint64_t bytes = askew ? 2 * MIB : UINT64_C(1) << 45;
        struct oom_snapshot_event events[] = {EVENT(ALLOC, at + (uint64_t)askew, 512)};
        struct oom_snapshot_segment segments[] = {
            {.address = at + (uint64_t)askew, .bytes = bytes, .small_pool = true}};
        struct oom_snapshot_block blocks[] = {
            {.bytes = 512, .requested = 512, .state = OOM_BLOCK_ALLOCATED}, {.bytes = bytes - 512}};
        struct oom_snapshot_trace one = {0, 1};
        struct oom_snapshot s = by_hand(segments, 1, blocks, 2, events, &one);
        CHECK_EQ(oom_replay_verify(&s, NULL, &v), OOM_USAGE);
        oom_failure_clear();
    }
}

void replay_hand_test(void) {
    moved_ranges();
    pending_to_the_end();
    absurd();
}
