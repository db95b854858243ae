/* replay-random-test.c: recordings of random scripts match, from their beginning, and from the
 * middle wherever the start is not said to be ambiguous. */
#include "harness/memory/replay-testing.h"

#include "kernels/testing.h"

void replay_random_test(void);

enum { SEEDS = 8, CUTS = 4 };

static const struct recorder_script scripts[] = {
    /* capacity: in MiB here; 0 is 400 */
    {.conf = "", .streams = 1, .release = 3},
    {.conf = "", .streams = 3, .release = 3, .held = 100, .pools = 20},
    {.conf = "roundup_power2_divisions:4", .streams = 2, .release = 3, .held = 50},
    {.conf = "max_split_size_mb:40", .streams = 1},
    {.conf = "max_split_size_mb:20", .capacity = 120, .streams = 3, .release = 10, .held = 100},
    {.conf = "max_split_size_mb:32", .capacity = 160, .streams = 2, .release = 10, .pools = 20},
    {.conf = "garbage_collection_threshold:0.5,per_process_memory_fraction:0.9,"
             "max_split_size_mb:24",
     .capacity = 150,
     .streams = 2,
     .release = 5,
     .held = 50},
    {.conf = "garbage_collection_threshold:0.7,per_process_memory_fraction:0.8",
     .capacity = 200,
     .streams = 1,
     .release = 3},
    {.conf = "backend:direct", .capacity = 150, .streams = 2, .held = 100},
    {.conf = "expandable_segments:True", .streams = 1, .release = 3},
    {.conf = "expandable_segments:True", .streams = 3, .release = 3, .held = 100, .pools = 20},
    {.conf = "expandable_segments:True",
     .capacity = 120,
     .streams = 3,
     .release = 10,
     .held = 100,
     .pools = 20},
    {.conf = "expandable_segments:True,max_split_size_mb:24",
     .capacity = 120,
     .streams = 2,
     .release = 10,
     .held = 100,
     .pools = 20},
    {.conf = "expandable_segments:True,garbage_collection_threshold:0.5,"
             "per_process_memory_fraction:0.8",
     .capacity = 200,
     .streams = 2,
     .release = 10,
     .held = 100,
     .pools = 20},
};

/* Of the first 400 of each those in which something happens that is rare. */
static const struct {
    size_t script;
    uint64_t seed;
} rare[] = {
    {1, 345},  {13, 197},            /* pools made in another order than used */
    {10, 99},  {11, 54},             /* a range where pages of others just were, */
    {12, 96},  {12, 97},             /* or where they reached to */
    {12, 51},  {12, 75},             /* oversize for the search, not where pages are mapped */
    {10, 104}, {12, 56},  {12, 188}, /* a retry that takes nothing new, */
    {12, 208}, {12, 291},            /* nor gives anything back */
};

static void check(const struct oom_snapshot *snapshot, const struct recorder *recorder,
                  uint64_t cut) {
    const struct oom_allocator_stats *stats = oom_allocator_stats(recorder->allocator);
    struct oom_snapshot part = *snapshot;
    struct oom_snapshot_trace trace = snapshot->traces[0];
    struct oom_replay_verdict v;
    part.traces = &trace;
    recorder_cut(&part, cut);
    CHECK_OK(oom_replay_verify(&part, NULL, &v));
    CHECK_EQ(v.matched, v.equal == v.decisions);
    if (v.start.ambiguous > 0) return;
    CHECK_MSG(v.matched,
              "seed %llu, from event %llu: %llu of %llu; event %llu: expected %s, got %s",
              (unsigned long long)recorder->script.seed, (unsigned long long)cut,
              (unsigned long long)v.equal, (unsigned long long)v.decisions,
              (unsigned long long)v.first_event, v.expected, v.got);
    CHECK_EQ(v.end_reserved, stats->reserved_bytes[OOM_POOL_ALL].current);
    CHECK_EQ(v.end_allocated, stats->allocated_bytes[OOM_POOL_ALL].current);
    if (cut > 0) return;
    CHECK_EQ(v.peak_reserved, stats->reserved_bytes[OOM_POOL_ALL].peak);
    CHECK_EQ(v.peak_allocated, stats->allocated_bytes[OOM_POOL_ALL].peak);
}

static void run_script(const struct recorder_script *script, uint64_t seed) {
    struct recorder_script full = *script;
    struct recorder recorder;
    struct oom_snapshot snapshot = {0};
    bool fraction = strstr(script->conf, "per_process_memory_fraction") != NULL; /* not in 2.11 */
    full.profile = seed % 2 == 0 && !fraction ? OOM_PROFILE_PYTORCH_2_11 : OOM_PROFILE_PYTORCH_2_13;
    full.capacity = (script->capacity != 0 ? script->capacity : 400) << 20;
    full.live_bytes = full.capacity / 20 * 17;
    full.steps = 1200;
    full.seed = seed;
    enum oom_status status = recorder_open(&recorder, &full);
    CHECK_OK(status);
    if (status != OOM_OK) return;
    CHECK_OK(recorder_run(&recorder));
    CHECK_OK(oom_snapshot_take(recorder.allocator, &snapshot));
    for (int i = 0; i < CUTS; i++) {
        check(&snapshot, &recorder, i == 0 ? 0 : recorder_below(&recorder, snapshot.event_count));
    }
    oom_snapshot_free(&snapshot);
    recorder_close(&recorder);
}

void replay_random_test(void) {
    for (size_t i = 0; i < sizeof scripts / sizeof scripts[0]; i++) {
        TEST("replay: random recordings match under '%s', %d streams%s, %d MiB", scripts[i].conf,
             scripts[i].streams, scripts[i].pools > 0 ? ", private pools, held frees" : "",
             (int)(scripts[i].capacity != 0 ? scripts[i].capacity : 400));
        for (uint64_t seed = 1; seed <= SEEDS; seed++) run_script(&scripts[i], seed);
    }
    TEST("replay: random recordings match where something rare happens");
    for (size_t i = 0; i < sizeof rare / sizeof rare[0]; i++) {
        run_script(&scripts[rare[i].script], rare[i].seed);
    }
}
