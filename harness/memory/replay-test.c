#include "harness/memory/replay-testing.h"

#include "kernels/testing.h"

#include <stdio.h>
#include <stdlib.h>

void replay_test(void);

enum { MIB = 1 << 20 };

static const struct recorder_script plain = {.conf = "",
                                             .profile = OOM_PROFILE_PYTORCH_2_13,
                                             .capacity = UINT64_C(400) << 20,
                                             .steps = 400,
                                             .seed = 3,
                                             .streams = 1,
                                             .live_bytes = UINT64_C(300) << 20};

/* A recording of a random script. False: said already. */
static bool record(const struct recorder_script *script, struct oom_snapshot *out) {
    struct recorder recorder;
    CHECK_OK(recorder_open(&recorder, script));
    CHECK_OK(recorder_run(&recorder));
    enum oom_status status = oom_snapshot_take(recorder.allocator, out);
    CHECK_OK(status);
    recorder_close(&recorder);
    return status == OOM_OK;
}

/* ---- recordings of PyTorch; figures from the README beside them ---- */

static bool read_recording(const char *name, struct oom_snapshot *out) {
    char path[1024];
    const char *folder = getenv("OOMBENCH_TRACES");
    if (folder == NULL) {
        SKIP("OOMBENCH_TRACES names no folder of recordings");
        return false;
    }
    snprintf(path, sizeof path, "%s/%s", folder, name);
    enum oom_status status = oom_snapshot_read(path, "", out);
    CHECK_OK(status);
    oom_failure_clear();
    return status == OOM_OK;
}

static void test_recordings(void) {
    static const struct {
        const char *name;
        uint64_t decisions, peak_reserved, peak_allocated, end_allocated, segments, live;
    } known[] = {
        {"silmont2000-mem.pickle", 36, 3781165056, 3249144832, 31719936, 0, 0},
        {"silmont2000-forward-fp32-128.pickle", 681, 610271232, 560939008, 525286400, 29, 137},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        struct oom_snapshot snapshot = {0};
        struct oom_replay_verdict v;
        TEST("replay: %s is decided as PyTorch did", known[i].name);
        if (!read_recording(known[i].name, &snapshot)) continue;
        expect_equal(&snapshot, &v);
        CHECK_EQ(v.decisions, known[i].decisions);
        CHECK_EQ(v.peak_reserved, known[i].peak_reserved);
        CHECK_EQ(v.peak_allocated, known[i].peak_allocated);
        CHECK_EQ(v.end_allocated, known[i].end_allocated);
        CHECK_EQ(v.start.segments, known[i].segments);
        CHECK_EQ(v.start.live, known[i].live);
        CHECK_EQ(v.start.ambiguous, 0);
        oom_snapshot_free(&snapshot);
    }
}

static void test_refusals(void) {
    static const char *const names[] = {"transformer_nuggets-mini.pickle", "verl-segments.pickle",
                                        "llm-inference-oom-v2.0.pickle"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct oom_snapshot snapshot = {0};
        struct oom_replay_verdict v;
        TEST("replay: %s cannot be replayed, and that is said", names[i]);
        if (!read_recording(names[i], &snapshot)) continue;
        CHECK_EQ(oom_replay_verify(&snapshot, NULL, &v), OOM_USAGE);
        CHECK(strstr(oom_failure_last()->message, "cannot be replayed") != NULL);
        oom_failure_clear();
        oom_snapshot_free(&snapshot);
    }
}

/* ---- wrong recordings: the first wrong event is named ---- */

static uint64_t find_action(const struct oom_snapshot *s, enum oom_action action, uint64_t from) {
    while (from < s->event_count && s->events[from].action != action) from++;
    return from;
}

static void expect_difference(const struct oom_snapshot *snapshot, uint64_t event) {
    struct oom_replay_verdict v;
    CHECK_OK(oom_replay_verify(snapshot, NULL, &v));
    CHECK(!v.matched);
    CHECK_EQ(v.first_event, event);
    CHECK(v.equal < v.decisions);
    CHECK(v.expected[0] != 0 && v.got[0] != 0);
}

static void expect_refusal(const struct oom_snapshot *snapshot, uint64_t event) {
    struct oom_replay_verdict v;
    char text[64];
    snprintf(text, sizeof text, "event %llu of", (unsigned long long)event);
    CHECK_EQ(oom_replay_verify(snapshot, NULL, &v), OOM_USAGE);
    CHECK_MSG(strstr(oom_failure_last()->message, text) != NULL, "%s: %s", text,
              oom_failure_last()->message);
    oom_failure_clear();
}

/* Moves the block that event `at` allocates, with all its later events. */
static void move_block(struct oom_snapshot *s, uint64_t at, uint64_t by) {
    uint64_t from = s->events[at].address;
    for (uint64_t i = at; i < s->event_count; i++) {
        struct oom_snapshot_event *event = &s->events[i];
        if (i > at && event->action == OOM_ACTION_ALLOC && event->address == from) break;
        if (event->address == from && event->action != OOM_ACTION_SEGMENT_ALLOC &&
            event->action != OOM_ACTION_OOM) {
            event->address += by;
        }
    }
}

/* A small block alone in its segment, freed at once, then others: s is empty before. */
static bool make_simple(struct oom_snapshot *out) {
    struct recorder r;
    struct recorder_script script = plain;
    script.steps = 0;
    CHECK_OK(recorder_open(&r, &script));
    CHECK_OK(recorder_alloc(&r, 4096, 0));               /* 0 segment, 1 alloc */
    CHECK_OK(recorder_alloc(&r, 1000, 0));               /* 2 */
    CHECK_OK(recorder_free(&r, 1, false));               /* 3, 4 */
    CHECK_OK(recorder_alloc(&r, 2 << 20, 0));            /* 5 segment, 6 alloc */
    CHECK_OK(recorder_alloc(&r, 512, 0));                /* 7 */
    CHECK_OK(recorder_free(&r, 1, false));               /* 8, 9: the large one */
    CHECK_OK(oom_allocator_release_cached(r.allocator)); /* 10 */
    CHECK_OK(recorder_alloc(&r, 600, 0));                /* 11 */
    enum oom_status status = oom_snapshot_take(r.allocator, out);
    recorder_close(&r);
    CHECK_EQ(out->event_count, 12);
    return status == OOM_OK && out->event_count == 12;
}

static void drop_event(struct oom_snapshot *s, uint64_t at) {
    memmove(&s->events[at], &s->events[at + 1], (s->event_count - at - 1) * sizeof *s->events);
    s->event_count--;
    s->traces[0].count--;
}

static void test_wrong(void) {
    struct oom_snapshot s;
    struct oom_replay_verdict v = {0};
    TEST("replay: a short recording matches");
    if (make_simple(&s)) expect_equal(&s, &v);
    CHECK(v.start.empty);
    oom_snapshot_free(&s);

    TEST("replay: a block at another address is a difference there");
    if (make_simple(&s)) move_block(&s, 2, 4096);
    expect_difference(&s, 2);
    oom_snapshot_free(&s);

    TEST("replay: one address changed alone is refused there");
    if (make_simple(&s)) s.events[2].address += 512;
    expect_refusal(&s, 2);
    oom_snapshot_free(&s);

    TEST("replay: a size changed is refused there");
    if (make_simple(&s)) s.events[2].bytes += 4096;
    expect_refusal(&s, 2);
    oom_snapshot_free(&s);

    TEST("replay: an allocation that is missing");
    if (make_simple(&s)) drop_event(&s, 2);
    CHECK_EQ(oom_replay_verify(&s, NULL, &v), OOM_USAGE);
    oom_failure_clear();
    oom_snapshot_free(&s);

    TEST("replay: a release that is missing");
    if (make_simple(&s)) drop_event(&s, 10);
    expect_refusal(&s, 6);
    oom_snapshot_free(&s);

    TEST("replay: two allocations swapped are a difference at the first");
    if (make_simple(&s)) {
        uint64_t address = s.events[7].address;
        move_block(&s, 7, 1024);
        CHECK_EQ(s.events[11].address, address + 512);
        for (uint64_t i = 0; i < s.block_count; i++) { /* as the end would be */
            if (s.blocks[i].address == address) s.blocks[i].address += 1024;
        }
    }
    CHECK_EQ(oom_replay_verify(&s, NULL, &v) == OOM_OK && v.matched, 0);
    oom_failure_clear();
    oom_snapshot_free(&s);

    TEST("replay: another end is a difference at the end");
    if (make_simple(&s)) {
        for (uint64_t i = 0; i < s.block_count; i++) {
            if (s.blocks[i].state == OOM_BLOCK_INACTIVE) s.blocks[i].bytes -= 512;
        }
    }
    CHECK_OK(oom_replay_verify(&s, NULL, &v));
    CHECK(!v.matched);
    CHECK_EQ(v.first_event, 12);
    CHECK_EQ(v.equal, v.decisions);
    oom_snapshot_free(&s);
}

static void test_recorded_oom(void) {
    struct recorder_script script = plain;
    struct oom_snapshot s;
    struct oom_replay_verdict v;
    struct oom_replay_outcome outcome;
    uint64_t least = 0;
    TEST("replay: out-of-memory errors are decisions, and show the card");
    script.capacity = UINT64_C(100) << 20;
    if (!record(&script, &s)) return;
    expect_equal(&s, &v);
    CHECK(v.ooms > 0);
    CHECK_EQ(v.seen_capacity, script.capacity);
    uint64_t first = find_action(&s, OOM_ACTION_OOM, 0);

    TEST("replay: on the same card the same request fails");
    struct oom_replay_options options = {.profile_given = true,
                                         .profile = OOM_PROFILE_PYTORCH_2_13};
    CHECK_OK(oom_replay_what_if(&s, &options, script.capacity, &outcome));
    CHECK(!outcome.fits);
    CHECK_EQ(outcome.failed_event, first);
    CHECK_EQ(outcome.oom.rounded, s.events[first].bytes);
    CHECK_EQ(outcome.oom.device_free, s.events[first].address);

    TEST("replay: the least card is enough, and nothing below within 64 MiB");
    CHECK_OK(oom_replay_least(&s, &options, &least));
    CHECK_OK(oom_replay_what_if(&s, &options, least, &outcome));
    CHECK(outcome.fits);
    CHECK(least >= outcome.peak_live);
    for (uint64_t c = least - (UINT64_C(64) << 20); c < least; c += OOM_PAGE) {
        if (c < OOM_PAGE || c >= least) continue;
        CHECK_OK(oom_replay_what_if(&s, &options, c, &outcome));
        CHECK(!outcome.fits);
    }
    oom_snapshot_free(&s);
}

static bool take(struct recorder *r, struct oom_snapshot *out) {
    enum oom_status status = oom_snapshot_take(r->allocator, out);
    CHECK_OK(status);
    recorder_close(r);
    return status == OOM_OK;
}

static void begin(struct recorder *r) {
    struct recorder_script script = plain;
    script.steps = 0;
    CHECK_OK(recorder_open(r, &script));
}

static void test_tails(void) {
    struct recorder r;
    struct oom_snapshot s;
    struct oom_replay_verdict v;
    TEST("replay: what was never cut off belongs to the block before it");
    begin(&r);
    CHECK_OK(recorder_alloc(&r, 12 * MIB - 600000, 0)); /* 0 segment, 1: the whole segment */
    CHECK_OK(recorder_free(&r, 0, false));
    CHECK_OK(recorder_alloc(&r, 12 * MIB, 0));
    if (take(&r, &s)) {
        recorder_cut(&s, 2);
        expect_equal(&s, &v);
        CHECK_EQ(v.start.allocated, 12 * MIB);
        CHECK_EQ(v.start.ambiguous, 0);
        oom_snapshot_free(&s);
    }
    for (int told = 0; told < 2; told++) {
        TEST("replay: a tail beside a larger hole is %s",
             told ? "learned" : "said not to be known");
        begin(&r);
        CHECK_OK(recorder_alloc(&r, 7 * MIB / 2, 0)); /* 0 segment, 1 */
        CHECK_OK(recorder_alloc(&r, 3 * MIB, 0));     /* 2 */
        CHECK_OK(recorder_free(&r, 0, false));        /* 3, 4 */
        CHECK_OK(recorder_alloc(&r, 3 * MIB, 0));     /* 5: into the hole, whole */
        CHECK_OK(recorder_free(&r, 0, false));        /* 6, 7 */
        if (told) CHECK_OK(recorder_alloc(&r, 2 * MIB, 0));
        CHECK_OK(recorder_free(&r, 0, false));
        if (!take(&r, &s)) continue;
        recorder_cut(&s, 8);
        expect_equal(&s, &v);
        CHECK_EQ(v.start.ambiguous, !told);
        CHECK_EQ(v.start.why[0] != 0, !told);
        CHECK_EQ(v.start.allocated, told ? 7 * MIB / 2 : 3 * MIB);
        oom_snapshot_free(&s);
    }
}

/* Two equal segments, the younger one at the lower address. */
static void test_ages(void) {
    struct recorder r;
    struct oom_snapshot s;
    struct oom_replay_verdict v;
    struct oom_replay_options options = {.profile_given = true,
                                         .profile = OOM_PROFILE_PYTORCH_2_11};
    TEST("replay: ages that nothing records are learned from what was chosen");
    begin(&r);
    for (int i = 0; i < 3; i++) CHECK_OK(recorder_alloc(&r, 12 * MIB, 0)); /* 0 .. 5 */
    CHECK_OK(recorder_free(&r, 0, false));                                 /* 6, 7 */
    CHECK_OK(oom_allocator_release_cached(r.allocator));                   /* 8 */
    CHECK_OK(recorder_alloc(&r, 12 * MIB, 0)); /* 9, 10: where the first one was */
    CHECK_OK(recorder_free(&r, 2, false));     /* 11, 12: the youngest */
    CHECK_OK(recorder_free(&r, 1, false));     /* 13, 14: an older one */
    CHECK_OK(recorder_alloc(&r, 12 * MIB, 0)); /* 15 */
    if (!take(&r, &s)) return;
    CHECK(s.events[15].address > s.events[10].address);
    expect_equal(&s, &v);
    CHECK_EQ(v.start.learned, 0);
    recorder_cut(&s, 15);
    expect_equal(&s, &v);
    CHECK_EQ(v.start.learned, 1);

    TEST("replay: another profile decides otherwise, and is found out");
    s.profile = OOM_PROFILE_COUNT;
    CHECK_OK(oom_replay_verify(&s, &options, &v));
    CHECK(!v.matched);
    CHECK_EQ(v.first_event, 0);
    CHECK_OK(oom_replay_verify(&s, NULL, &v));
    CHECK(v.matched && v.profile_decided && v.profile == OOM_PROFILE_PYTORCH_2_13);
    oom_snapshot_free(&s);
}

static void test_segment_size(void) {
    struct oom_snapshot s;
    TEST("replay: a segment of another size is a difference there");
    if (!make_simple(&s)) return;
    s.events[5].bytes += 2 * MIB;
    s.events[10].bytes += 2 * MIB;
    expect_difference(&s, 5);
    oom_snapshot_free(&s);
}

static void test_held(void) {
    struct recorder r;
    struct oom_snapshot s;
    struct oom_replay_verdict v;
    struct oom_replay_outcome outcome;
    TEST("replay: a free that waits for another stream is completed where it was");
    begin(&r);
    CHECK_OK(recorder_alloc(&r, 12 * MIB, 0));
    CHECK_OK(recorder_free(&r, 0, true));
    CHECK_OK(recorder_alloc(&r, 512, 0));
    CHECK_OK(recorder_complete(&r, 0));
    CHECK_OK(recorder_alloc(&r, 12 * MIB, 0));
    if (!take(&r, &s)) return;
    expect_equal(&s, &v);
    CHECK_OK(oom_replay_what_if(&s, NULL, OOM_REPLAY_UNLIMITED, &outcome));
    CHECK(outcome.fits);
    CHECK_EQ(outcome.peak_reserved, 14 * MIB);
    CHECK_EQ(outcome.peak_live, 12 * MIB + 512);
    oom_snapshot_free(&s);
}

/* The peak of live bytes, counted another way. */
static void test_lower_bound(void) {
    struct oom_snapshot s;
    struct oom_replay_outcome outcome;
    uint64_t live = 0, peak = 0;
    TEST("replay: the lower bound is the peak of live bytes");
    if (!record(&plain, &s)) return;
    for (uint64_t i = 0; i < s.event_count; i++) {
        uint64_t bytes = (s.events[i].bytes + 511) / 512 * 512;
        if (s.events[i].action == OOM_ACTION_ALLOC) live += bytes;
        if (s.events[i].action == OOM_ACTION_FREE_COMPLETED) live -= bytes;
        if (s.events[i].action == OOM_ACTION_OOM && live + bytes > peak) peak = live + bytes;
        if (live > peak) peak = live;
    }
    CHECK_OK(oom_replay_what_if(&s, NULL, OOM_REPLAY_UNLIMITED, &outcome));
    CHECK(outcome.fits);
    CHECK_EQ(outcome.peak_live, peak);
    CHECK(outcome.peak_reserved >= peak);
    CHECK(outcome.device_calls > 0);
    oom_snapshot_free(&s);
}

/* Every failure of the host's memory is a status, and everything is given back. */
static void test_host_memory(void) {
    struct oom_snapshot s;
    struct oom_replay_verdict v;
    struct oom_replay_outcome outcome;
    struct recorder_script script = plain;
    script.steps = 60;
    script.conf = "expandable_segments:True";
    TEST("replay: without host memory it says so and leaks nothing");
    if (!record(&script, &s)) return;
    recorder_cut(&s, 20);
    uint64_t before = oom_host_bytes_current();
    for (int verifies = 0; verifies < 2; verifies++) {
        bool done = false;
        for (uint64_t n = 1; n < 400 && !done; n++) {
            oom_host_fail_at(n);
            enum oom_status status =
                verifies ? oom_replay_verify(&s, NULL, &v)
                         : oom_replay_what_if(&s, NULL, OOM_REPLAY_UNLIMITED, &outcome);
            done = status == OOM_OK && oom_host_bytes_current() == before;
            oom_host_fail_at(0);
            CHECK(status == OOM_OK || status == OOM_HOST_NOMEM);
            oom_failure_clear();
            CHECK_EQ(oom_host_bytes_current(), before);
        }
    }
    oom_snapshot_free(&s);
}

void replay_test(void) {
    test_recordings();
    test_refusals();
    test_wrong();
    test_recorded_oom();
    test_tails();
    test_ages();
    test_segment_size();
    test_held();
    test_lower_bound();
    test_host_memory();
}
