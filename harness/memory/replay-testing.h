/*
 * replay-testing.h: for tests only: recordings made by driving an allocator
 * with a random script, and taken from its trace and its blocks.
 *
 * A recorder owns device, allocator and what it took until recorder_close.
 */
#ifndef OOM_HARNESS_MEMORY_REPLAY_TESTING_H
#define OOM_HARNESS_MEMORY_REPLAY_TESTING_H

#include "harness/memory/drive.h"
#include "harness/memory/replay.h"

#include "harness/base/rng.h"
#include "kernels/hostmem.h"
#include "kernels/testing.h"

#include <string.h>

enum { RECORDER_STREAMS = 4, RECORDER_LIVE = 512, RECORDER_POOLS = 3 };

/* What a random script may do; all chances are of 1000 steps. */
struct recorder_script {
    const char *conf;
    enum oom_profile profile;
    uint64_t capacity;
    uint64_t steps, seed;
    int streams;         /* 1 .. RECORDER_STREAMS */
    int release;         /* chance that the cache is released */
    int held;            /* chance that a free waits for another stream */
    int pools;           /* chance that another pool is used */
    uint64_t live_bytes; /* above this rather free than allocate */
};

struct recorder {
    struct recorder_script script;
    struct oom_device *device;
    struct oom_allocator *allocator;
    struct oom_stream *streams[RECORDER_STREAMS];
    struct oom_rng rng;
    struct {
        oom_devptr address;
        uint64_t bytes;
    } live[RECORDER_LIVE], held[RECORDER_LIVE];
    int live_count, held_count;
    uint64_t bytes, ooms;
    uint64_t pools[RECORDER_POOLS], last_pool; /* their ids; 0: none yet */
};

static inline uint64_t recorder_below(struct recorder *r, uint64_t n) {
    return oom_rng_next(&r->rng) % n;
}

static inline bool recorder_chance(struct recorder *r, int of_1000) {
    return recorder_below(r, 1000) < (uint64_t)of_1000;
}

/* Few sizes often, so that blocks of one size meet; others anywhere. */
static inline uint64_t recorder_size(struct recorder *r) {
    static const uint64_t usual[] = {
        512,     4096,     1 << 20,  (1 << 20) + 512,        2 << 20,  3 << 20,
        7 << 20, 10 << 20, 12 << 20, (11 << 20) + (1 << 19), 20 << 20, 33 << 20};
    if (recorder_chance(r, 600)) return usual[recorder_below(r, 12)];
    if (recorder_chance(r, 500)) return 1 + recorder_below(r, 1 << 20);
    return 1 + recorder_below(r, 40 << 20);
}

static inline enum oom_status recorder_open(struct recorder *r,
                                            const struct recorder_script *script) {
    struct oom_allocator_settings settings = oom_allocator_settings_default();
    const struct oom_device_options options = {.capacity = script->capacity,
                                               .reservation = UINT64_C(1) << 50};
    memset(r, 0, sizeof *r);
    r->script = *script;
    r->rng.state = script->seed;
    settings.profile = script->profile;
    OOM_TRY(oom_allocator_settings_parse(script->conf, &settings));
    settings.trace_entries = 8 * script->steps + 4096;
    OOM_TRY(oom_dry_open(&options, &r->device));
    OOM_TRY(oom_allocator_create(r->device, &settings, &r->allocator));
    for (int i = 1; i < script->streams; i++) {
        OOM_TRY(r->device->api->stream_create(r->device, &r->streams[i]));
        OOM_TRY(oom_allocator_stream_add(r->allocator, r->streams[i]));
    }
    return OOM_OK;
}

static inline void recorder_close(struct recorder *r) {
    oom_allocator_destroy(r->allocator);
    oom_device_close(r->device);
}

static inline enum oom_status recorder_alloc(struct recorder *r, uint64_t bytes, int stream) {
    oom_devptr got;
    if (r->live_count == RECORDER_LIVE) return OOM_OK;
    enum oom_status status =
        oom_allocator_alloc(r->allocator, bytes, r->streams[stream], OOM_TAG_OTHER, "test", &got);
    if (status == OOM_NOMEM) {
        oom_failure_clear();
        r->ooms++;
        return OOM_OK;
    }
    OOM_TRY(status);
    r->live[r->live_count].address = got;
    r->live[r->live_count++].bytes = bytes;
    r->bytes += bytes;
    return OOM_OK;
}

static inline enum oom_status recorder_free(struct recorder *r, int i, bool held) {
    oom_devptr address = r->live[i].address;
    uint64_t bytes = r->live[i].bytes;
    r->bytes -= bytes;
    r->live[i] = r->live[--r->live_count];
    if (!held || r->held_count == RECORDER_LIVE) return oom_allocator_free(r->allocator, address);
    r->held[r->held_count].address = address;
    r->held[r->held_count++].bytes = bytes;
    return oom_allocator_free_held(r->allocator, address);
}

/* What a full release waited for is held no more. */
static inline void recorder_forget_held(struct recorder *r, uint64_t syncs) {
    if (oom_allocator_stats(r->allocator)->num_sync_all_streams != syncs) r->held_count = 0;
}

static inline enum oom_status recorder_complete(struct recorder *r, int i) {
    oom_devptr address = r->held[i].address;
    r->held[i] = r->held[--r->held_count];
    return oom_allocator_complete(r->allocator, address);
}

/* Another pool, sometimes a new one in place of one that is used no more. */
static inline enum oom_status recorder_pool(struct recorder *r) {
    uint64_t which = recorder_below(r, RECORDER_POOLS); /* 0: the default ones */
    if (which != 0 && r->pools[which] != 0 && recorder_chance(r, 200)) {
        struct oom_pool_id old = {0, r->pools[which]};
        r->pools[which] = 0;
        OOM_TRY(oom_allocator_pool_use(r->allocator, (struct oom_pool_id){0, 0}));
        return oom_allocator_pool_retire(r->allocator, old);
    }
    if (which != 0 && r->pools[which] == 0) r->pools[which] = ++r->last_pool;
    return oom_allocator_pool_use(r->allocator, (struct oom_pool_id){0, r->pools[which]});
}

static inline enum oom_status recorder_step(struct recorder *r) {
    uint64_t syncs = oom_allocator_stats(r->allocator)->num_sync_all_streams;
    enum oom_status status = OOM_OK;
    if (recorder_chance(r, r->script.pools)) OOM_TRY(recorder_pool(r));
    if (r->held_count > 0 && recorder_chance(r, 300)) {
        OOM_TRY(recorder_complete(r, (int)recorder_below(r, (uint64_t)r->held_count)));
    }
    bool full = r->bytes > r->script.live_bytes || recorder_chance(r, 450);
    if (recorder_chance(r, r->script.release)) {
        status = oom_allocator_release_cached(r->allocator);
    } else if (r->live_count > 0 && full) {
        status = recorder_free(r, (int)recorder_below(r, (uint64_t)r->live_count),
                               recorder_chance(r, r->script.held));
    } else {
        status = recorder_alloc(r, recorder_size(r),
                                (int)recorder_below(r, (uint64_t)r->script.streams));
    }
    recorder_forget_held(r, syncs);
    return status;
}

static inline enum oom_status recorder_run(struct recorder *r) {
    for (uint64_t i = 0; i < r->script.steps; i++) OOM_TRY(recorder_step(r));
    return OOM_OK;
}

/* The recording without its first `count` events: as a ring would have it that
 * lost them. */
static inline void recorder_cut(struct oom_snapshot *snapshot, uint64_t count) {
    snapshot->traces[0].first += count;
    snapshot->traces[0].count -= count;
}

/* Every decision of the recording is found again. */
static inline void expect_equal(const struct oom_snapshot *snapshot,
                                struct oom_replay_verdict *out) {
    CHECK_OK(oom_replay_verify(snapshot, NULL, out));
    CHECK_MSG(out->matched, "%llu of %llu equal; event %llu: expected %s, got %s",
              (unsigned long long)out->equal, (unsigned long long)out->decisions,
              (unsigned long long)out->first_event, out->expected, out->got);
    CHECK_EQ(out->equal, out->decisions);
}

#endif
