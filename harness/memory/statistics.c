/* statistics.c: when each counter moves, as torch.cuda.memory_stats defines it. */
#include "harness/memory/internal.h"

#include <string.h>

static void by_sign(struct oom_counter *counters, uint8_t pool, int64_t change) {
    struct oom_counter *both[] = {&counters[OOM_POOL_ALL], &counters[pool]};
    for (int i = 0; i < 2; i++) {
        if (change > 0) oom_counter_up(both[i], (uint64_t)change);
        if (change < 0) oom_counter_down(both[i], (uint64_t)-change);
    }
}

void oom_count_inactive_split(struct oom_allocator *a, uint8_t pool, int64_t blocks,
                              int64_t bytes) {
    if (blocks != 0) by_sign(a->stats.inactive_split, pool, blocks);
    if (bytes != 0) by_sign(a->stats.inactive_split_bytes, pool, bytes);
}

void oom_count_handed_out(struct oom_allocator *a, const struct oom_block *block) {
    int64_t peak = a->stats.allocated_bytes[OOM_POOL_ALL].peak;
    OOM_COUNT_UP(a, allocation, block->pool, 1);
    OOM_COUNT_UP(a, allocated_bytes, block->pool, block->bytes);
    OOM_COUNT_UP(a, active, block->pool, 1);
    OOM_COUNT_UP(a, active_bytes, block->pool, block->bytes);
    OOM_COUNT_UP(a, requested_bytes, block->pool, block->requested);
    if (block->bytes >= a->settings.max_split_size) {
        oom_counter_up(&a->stats.oversize_allocations, 1);
    }
    a->stats.tag_current[block->tag] += block->bytes;
    if (a->stats.allocated_bytes[OOM_POOL_ALL].peak > peak) {
        memcpy(a->stats.tag_at_peak, a->stats.tag_current, sizeof a->stats.tag_at_peak);
    }
}

/* The bytes are no longer the caller's; they are active until every stream is done with them. */
void oom_count_free_requested(struct oom_allocator *a, const struct oom_block *block) {
    OOM_COUNT_DOWN(a, allocation, block->pool, 1);
    OOM_COUNT_DOWN(a, allocated_bytes, block->pool, block->bytes);
    if (block->bytes >= a->settings.max_split_size) {
        oom_counter_down(&a->stats.oversize_allocations, 1);
    }
    a->stats.tag_current[block->tag] -= block->bytes;
}

void oom_count_free_completed(struct oom_allocator *a, const struct oom_block *block) {
    OOM_COUNT_DOWN(a, active, block->pool, 1);
    OOM_COUNT_DOWN(a, active_bytes, block->pool, block->bytes);
    OOM_COUNT_DOWN(a, requested_bytes, block->pool, block->requested);
}

const struct oom_allocator_stats *oom_allocator_stats(const struct oom_allocator *a) {
    return &a->stats;
}

void oom_allocator_reset_peaks(struct oom_allocator *a) {
    for (int pool = 0; pool < OOM_POOL_COUNT; pool++) {
#define X(name) a->stats.name[pool].peak = a->stats.name[pool].current;
        OOM_STATISTIC_MAP(X)
#undef X
    }
    a->stats.oversize_allocations.peak = a->stats.oversize_allocations.current;
    a->stats.oversize_segments.peak = a->stats.oversize_segments.current;
    memcpy(a->stats.tag_at_peak, a->stats.tag_current, sizeof a->stats.tag_at_peak);
}
