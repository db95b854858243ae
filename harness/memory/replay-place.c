/* replay-place.c: looking at the model's blocks and pools. */
#include "harness/memory/replay-internal.h"

#include <stdio.h>

struct search {
    uint64_t address;
    struct oom_block_view *out;
    bool found;
};

static enum oom_status look_at(const struct oom_block_view *block, void *context) {
    struct search *search = context;
    if (search->address >= block->address && search->address - block->address < block->bytes) {
        search->found = true;
        *search->out = *block;
    }
    return OOM_OK;
}

bool oom_replay_block_at(const struct oom_allocator *allocator, uint64_t address,
                         struct oom_block_view *out) {
    struct search search = {.address = address, .out = out};
    return oom_allocator_walk(allocator, look_at, &search) == OOM_OK && search.found;
}

const char *oom_replay_place(const struct oom_allocator *allocator, uint64_t address, char *out,
                             size_t n) {
    struct oom_block_view block;
    if (oom_replay_block_at(allocator, address, &block)) {
        snprintf(out, n, "0x%llx (segment 0x%llx + %llu)", (oom_ull)address, (oom_ull)block.segment,
                 (oom_ull)(address - block.segment));
    } else {
        snprintf(out, n, "0x%llx (in no segment of the model)", (oom_ull)address);
    }
    return out;
}

/* ---- pools ---- */

enum oom_status oom_replay_retire(struct oom_allocator *allocator, struct oom_pool_id pool) {
    bool recorded = oom_failure_last()->status != OOM_OK;
    enum oom_status status = oom_allocator_pool_retire(allocator, pool);
    oom_allocator_pool_last(allocator, pool);
    if (status != OOM_INVALID) return status;
    if (!recorded) oom_failure_clear();
    return OOM_OK;
}

uint64_t oom_replay_pending(const struct oom_allocator *allocator) {
    const struct oom_allocator_stats *stats = oom_allocator_stats(allocator);
    return (uint64_t)(stats->active[OOM_POOL_ALL].current -
                      stats->allocation[OOM_POOL_ALL].current);
}

/* ---- streams and pools ---- */

static void place_text(const struct oom_snapshot_event *event, uint64_t handle,
                       struct oom_pool_id pool, char *out, size_t n) {
    char text[96];
    snprintf(out, n, "%s on stream 0x%llx in pool (%llu, %llu)",
             oom_event_text(event, text, sizeof text), (oom_ull)handle, (oom_ull)pool.a,
             (oom_ull)pool.b);
}

void oom_replay_compare_place(const struct oom_recording *recording, uint64_t index,
                              const struct oom_place *place,
                              struct oom_replay_difference *difference) {
    const struct oom_snapshot_event *event = &recording->events[index];
    struct oom_pool_id pool = oom_recording_pool(recording, index);
    if (place == NULL || difference->found) return;
    uint64_t handle = recording->streams[place->stream];
    if (handle == event->stream && oom_pool_same(pool, place->pool)) return;
    difference->found = true;
    difference->event = index;
    place_text(event, event->stream, pool, difference->expected, sizeof difference->expected);
    place_text(event, handle, place->pool, difference->got, sizeof difference->got);
}
