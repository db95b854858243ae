/* replay-explain-test.c: who gave memory back, and for whom: recordings by hand, of which the
 * specification says which are possible. */
#include "harness/memory/replay-hand-testing.h"
#include "harness/memory/replay.h"

#include "kernels/testing.h"

#include <stdio.h>
#include <string.h>

void replay_explain_test(void);

#define AT(mib) ((UINT64_C(1) << 40) + (uint64_t)(mib)*MIB)

static void set_max_split(struct oom_snapshot *s, int mib) {
    s->has_settings = true;
    s->max_split_size = (int64_t)mib * MIB;
    s->profile = OOM_PROFILE_PYTORCH_2_13;
    snprintf(s->conf, sizeof s->conf, "max_split_size_mb:%d", mib);
}

/* ---- whole segments, freed in some order before a request of 70 MiB ---- */

/* X and Y of 40 MiB, X the older one and at the higher address, W of 36 MiB. */
static const struct {
    char name;
    uint64_t address, bytes;
} cached[] = {{'X', AT(200), 40 * MIB}, {'Y', AT(100), 40 * MIB}, {'W', AT(300), 36 * MIB}};
enum { CACHED = 3, BEFORE = 4 * CACHED };

static uint64_t address_of(char name) {
    int i = 0;
    while (cached[i].name != name) i++;
    return cached[i].address;
}

/* The recording in which `order` goes before the request; it succeeds or not. */
static void verify_order(const char *order, bool fails, uint64_t cut,
                         struct oom_replay_verdict *v) {
    struct oom_snapshot_event events[BEFORE + CACHED + 2];
    struct oom_snapshot_segment segments[CACHED + 1] = {{0}};
    struct oom_snapshot_block blocks[CACHED + 1] = {{0}};
    struct oom_snapshot_trace trace = {0, BEFORE};
    uint64_t left = 0;
    for (uint64_t i = 0; i < CACHED; i++) {
        uint64_t at = cached[i].address, bytes = cached[i].bytes;
        events[2 * i] = (struct oom_snapshot_event)EVENT(SEGMENT_ALLOC, at, bytes);
        events[2 * i + 1] = (struct oom_snapshot_event)EVENT(ALLOC, at, bytes);
        events[2 * CACHED + 2 * i] = (struct oom_snapshot_event)EVENT(FREE_REQUESTED, at, bytes);
        events[2 * CACHED + 2 * i + 1] =
            (struct oom_snapshot_event)EVENT(FREE_COMPLETED, at, bytes);
    }
    for (; *order != 0; order++) {
        uint64_t bytes = *order == 'W' ? 36 * MIB : 40 * MIB;
        events[trace.count++] =
            (struct oom_snapshot_event)EVENT(SEGMENT_FREE, address_of(*order), bytes);
    }
    for (uint64_t place = 100; place <= 300; place += 100) { /* by address */
        for (uint64_t i = 0; i < CACHED; i++) {
            bool gone = false;
            for (uint64_t k = BEFORE; k < trace.count; k++) {
                gone |= events[k].address == cached[i].address;
            }
            if (cached[i].address != AT(place) || gone) continue;
            segments[left] = (struct oom_snapshot_segment){.address = cached[i].address,
                                                           .bytes = cached[i].bytes};
            blocks[left++].bytes = cached[i].bytes;
        }
    }
    if (fails) {
        events[trace.count++] = (struct oom_snapshot_event)EVENT(OOM, 30 * MIB, 70 * MIB);
    } else {
        events[trace.count++] = (struct oom_snapshot_event)EVENT(SEGMENT_ALLOC, AT(400), 70 * MIB);
        events[trace.count++] = (struct oom_snapshot_event)EVENT(ALLOC, AT(400), 70 * MIB);
        segments[left] = (struct oom_snapshot_segment){.address = AT(400), .bytes = 70 * MIB};
        blocks[left++] = (struct oom_snapshot_block){
            .bytes = 70 * MIB, .requested = 70 * MIB, .state = OOM_BLOCK_ALLOCATED};
    }
    struct oom_snapshot s = by_hand(segments, left, blocks, left, events, &trace);
    set_max_split(&s, 32);
    trace.first += cut;
    trace.count -= cut;
    memset(v, 0, sizeof *v);
    CHECK_OK(oom_replay_verify(&s, NULL, v));
}

/* Spec 2.3 and 2.5. K is 70 MiB and nothing has it: from the largest down, of equal ones the
 * youngest first, until 70 MiB are there; then the device is asked; then all others by size, of
 * equal ones the oldest first. A release by the program is in that last order, and of all. */
static void test_orders(void) {
    static const struct {
        const char *order;
        bool fails;
        int first; /* difference, among the releases; -1: none */
        const char *why;
    } rows[] = {
        {"YX", false, -1, "as many as are needed, the largest and youngest first"},
        {"YXW", false, -1, "the same, not enough, and then all"},
        {"YXW", true, -1, "the same in vain"},
        {"WXY", false, -1, "all, by the program"},
        {"WXY", true, -1, "all, by the program, in vain"},
        {"XY", false, 0, "the older one first, though not all are given back"},
        {"XYW", false, 0, "the older one first, and then the smaller one"},
        {"WYX", false, 0, "all, but the younger of equal ones first"},
        {"Y", false, 1, "less than is needed, and less than there is"},
        {"YW", true, 1, "not the next largest"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct oom_replay_verdict v;
        TEST("replay: releases %s before a request that %s: %s", rows[i].order,
             rows[i].fails ? "fails" : "succeeds", rows[i].why);
        verify_order(rows[i].order, rows[i].fails, 0, &v);
        CHECK_EQ(v.matched, rows[i].first < 0);
        CHECK_EQ(v.decisions, CACHED + 1);
        CHECK_EQ(v.equal, CACHED + (rows[i].first < 0));
        if (rows[i].first < 0) continue;
        CHECK_EQ(v.first_event, BEFORE + (uint64_t)rows[i].first);
        CHECK(strstr(v.expected, "segment") != NULL && strstr(v.got, "segment_free") != NULL);
    }
}

/* By address Y would be the older one; that it goes first here tells that it is not. */
static void test_learned(void) {
    struct oom_replay_verdict v;
    TEST("replay: what goes first from the largest down is the younger one");
    verify_order("YX", false, BEFORE - 2, &v);
    CHECK_MSG(v.matched, "expected %s, got %s", v.expected, v.got);
    CHECK_EQ(v.start.learned, 1);
    CHECK_EQ(v.start.ambiguous, 0);
}

/* ---- what came free while a release waited for it ---- */

/* A segment of 20 MiB, all of it live: 5, 9 and 6 MiB; the first is freed, and 5 MiB are wanted. */
static void test_waiting(void) {
    static const char *const names[] = {"waits, and does not look again: an error",
                                        "is over before: an error is a difference",
                                        "is over before: the block is taken"};
    for (int i = 0; i < 3; i++) {
        struct oom_snapshot_event events[] = {EVENT(SEGMENT_ALLOC, AT(0), 20 * MIB),
                                              EVENT(ALLOC, AT(0), 5 * MIB),
                                              EVENT(ALLOC, AT(5), 9 * MIB),
                                              EVENT(ALLOC, AT(14), 6 * MIB),
                                              EVENT(FREE_REQUESTED, AT(0), 5 * MIB),
                                              EVENT(FREE_COMPLETED, AT(0), 5 * MIB),
                                              EVENT(SNAPSHOT, 0, 0),
                                              EVENT(OOM, 1 * MIB, 5 * MIB)};
        struct oom_snapshot_segment segments[] = {{.address = AT(0), .bytes = 20 * MIB}};
        struct oom_snapshot_block blocks[] = {
            {.bytes = 5 * MIB},
            {.bytes = 9 * MIB, .requested = 9 * MIB, .state = OOM_BLOCK_ALLOCATED},
            {.bytes = 6 * MIB, .requested = 6 * MIB, .state = OOM_BLOCK_ALLOCATED}};
        struct oom_snapshot_trace trace = {0, 8};
        struct oom_replay_verdict v = {0};
        TEST("replay: a request for what a free %s", names[i]);
        if (i == 0) events[6] = events[--trace.count];
        if (i == 2) {
            events[7] = (struct oom_snapshot_event)EVENT(ALLOC, AT(0), 5 * MIB);
            blocks[0].requested = 5 * MIB;
            blocks[0].state = OOM_BLOCK_ALLOCATED;
        }
        struct oom_snapshot s = by_hand(segments, 1, blocks, 3, events, &trace);
        set_max_split(&s, 32);
        CHECK_OK(oom_replay_verify(&s, NULL, &v));
        CHECK_EQ(v.matched, i != 1);
        if (i == 1) CHECK_EQ(v.first_event, 7);
    }
}

/* ---- a cut in the middle of a request ---- */

/* Of 20 MiB that may not be cut for less, once they are free (spec 1.7, rule 4), 3 MiB are taken:
 * so they had just been given. */
static void test_given(void) {
    struct oom_snapshot_event events[] = {EVENT(ALLOC, AT(0), 3 * MIB),
                                          EVENT(FREE_REQUESTED, AT(0), 3 * MIB),
                                          EVENT(FREE_COMPLETED, AT(0), 3 * MIB)};
    struct oom_snapshot_segment segments[] = {{.address = AT(0), .bytes = 20 * MIB}};
    struct oom_snapshot_block blocks[] = {{.bytes = 20 * MIB}};
    struct oom_snapshot_trace trace = {0, 3};
    struct oom_snapshot s = by_hand(segments, 1, blocks, 1, events, &trace);
    struct oom_replay_verdict v = {0};
    TEST("replay: a recording that begins between a segment and its block");
    set_max_split(&s, 20);
    CHECK_OK(oom_replay_verify(&s, NULL, &v));
    CHECK_MSG(v.matched, "expected %s, got %s", v.expected, v.got);
    CHECK_EQ(v.decisions, 1);
    CHECK_EQ(v.start.reserved, 20 * MIB);
    CHECK_EQ(v.peak_reserved, 20 * MIB);
}

/* ---- streams and pools ---- */

enum { OTHER_STREAM = 0x1234000, FAR = 1 << 20 };

/* One segment on stream 16 in pool (0, 7), taken, freed, given back; then another that stays. With
 * something in between the free was over at once, else the release may have waited for it. */
static void verify_place(bool expandable, bool between, uint64_t changed, bool stream,
                         struct oom_replay_verdict *v) {
    uint64_t unit = (uint64_t)(expandable ? 20 : 12) * MIB;
    struct oom_snapshot_event events[] = {
        EVENT(SEGMENT_ALLOC, AT(0), unit),  EVENT(ALLOC, AT(0), unit),
        EVENT(FREE_REQUESTED, AT(0), unit), EVENT(FREE_COMPLETED, AT(0), unit),
        EVENT(SEGMENT_FREE, AT(0), unit),   EVENT(SEGMENT_ALLOC, AT(FAR), 2 * MIB),
        EVENT(ALLOC, AT(FAR), 512),         EVENT(SNAPSHOT, 0, 0)};
    struct oom_snapshot_segment segments[] = {
        {.address = AT(FAR), .bytes = 2 * MIB, .small_pool = true, .expandable = expandable}};
    struct oom_snapshot_block blocks[] = {
        {.bytes = 512, .requested = 512, .state = OOM_BLOCK_ALLOCATED}, {.bytes = 2 * MIB - 512}};
    struct oom_snapshot_trace trace = {0, 7};
    for (uint64_t i = 0; i < trace.count; i++) {
        if (expandable && events[i].action == OOM_ACTION_SEGMENT_ALLOC)
            events[i].action = OOM_ACTION_SEGMENT_MAP;
        if (expandable && events[i].action == OOM_ACTION_SEGMENT_FREE)
            events[i].action = OOM_ACTION_SEGMENT_UNMAP;
        if (i < 5) events[i].stream = 16;
        if (i < 5) events[i].pool = 1;
        if (i != changed) continue;
        if (stream) events[i].stream = OTHER_STREAM;
        if (!stream) events[i].pool = !events[i].pool;
    }
    if (between) {
        const struct oom_snapshot_event snapshot_taken = events[7];
        memmove(&events[5], &events[4], 3 * sizeof events[0]);
        events[4] = snapshot_taken;
        trace.count++;
    }
    struct oom_snapshot s = by_hand(segments, 1, blocks, 2, events, &trace);
    s.has_settings = true;
    s.max_split_size = -1;
    s.expandable_segments = expandable;
    snprintf(s.conf, sizeof s.conf, expandable ? "expandable_segments:True" : "");
    s.profile = OOM_PROFILE_PYTORCH_2_13;
    memset(v, 0, sizeof *v);
    CHECK_OK(oom_replay_verify(&s, NULL, v));
}

static void test_places(void) {
    static const struct {
        uint64_t event;
        const char *name;
    } rows[] = {{0, "memory taken"},
                {2, "a free requested"},
                {3, "a free completed"},
                {4, "memory given back"}};
    for (int kind = 0; kind < 4; kind++) {
        struct oom_replay_verdict v;
        bool expandable = kind & 1, between = kind & 2;
        const char *name = expandable ? ", expandable" : "", *when = between ? ", later" : "";
        TEST("replay: streams and pools of all events%s%s", name, when);
        verify_place(expandable, between, OOM_REPLAY_UNLIMITED, true, &v);
        CHECK_MSG(v.matched, "event %llu: expected %s, got %s", (unsigned long long)v.first_event,
                  v.expected, v.got);
        for (size_t i = 0; i < 2 * sizeof rows / sizeof rows[0]; i++) {
            bool stream = i % 2 == 0;
            uint64_t event = rows[i / 2].event;
            TEST("replay: another %s of %s%s%s is a difference there", stream ? "stream" : "pool",
                 rows[i / 2].name, name, when);
            verify_place(expandable, between, event, stream, &v);
            CHECK(!v.matched);
            CHECK_EQ(v.first_event, event + (between && event >= 4));
            if (i / 2 == 3 && !stream) continue; /* that pool has nothing to give back */
            CHECK(strstr(v.expected, stream ? "on stream 0x1234000" : "in pool (0, 0)") != NULL);
            CHECK(strstr(v.got, "on stream 0x10 in pool (0, 7)") != NULL);
        }
    }
}

void replay_explain_test(void) {
    test_orders();
    test_learned();
    test_waiting();
    test_given();
    test_places();
}
