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

/* By cross-multiplication, as this is on the path of every free. */
void oom_count_utilization(struct oom_allocator *a) {
    struct oom_allocator_stats *stats = &a->stats;
    uint64_t allocated = (uint64_t)stats->allocated_bytes[OOM_POOL_ALL].current;
    if (a->reserved == 0) return;
    if (stats->lowest_reserved != 0 && !((double)allocated * (double)stats->lowest_reserved <
                                         (double)stats->lowest_allocated * (double)a->reserved)) {
        return;
    }
    stats->lowest_allocated = allocated;
    stats->lowest_reserved = a->reserved;
}

void oom_count_reserved_up(struct oom_allocator *a, struct oom_pool *pool, uint64_t bytes) {
    struct oom_counter *private = pool->group->reserved_bytes;
    a->reserved += bytes;
    OOM_COUNT_UP(a, reserved_bytes, pool->kind, bytes);
    oom_counter_up(&private[OOM_POOL_ALL], bytes);
    oom_counter_up(&private[pool->kind], bytes);
}

void oom_count_reserved_down(struct oom_allocator *a, struct oom_pool *pool, uint64_t bytes) {
    struct oom_counter *private = pool->group->reserved_bytes;
    a->reserved -= bytes;
    OOM_COUNT_DOWN(a, reserved_bytes, pool->kind, bytes);
    oom_counter_down(&private[OOM_POOL_ALL], bytes);
    oom_counter_down(&private[pool->kind], bytes);
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
    oom_count_utilization(a);
}

const struct oom_allocator_stats *oom_allocator_stats(const struct oom_allocator *a) {
    return &a->stats;
}

/* Calls `each` for every counter there is, those of private pools included. */
static void for_counters(struct oom_allocator *a, void (*each)(struct oom_counter *counter)) {
    for (int pool = 0; pool < OOM_POOL_COUNT; pool++) {
#define X(name) each(&a->stats.name[pool]);
        OOM_STATISTIC_MAP(X)
#undef X
        for (struct oom_pool_group *group = a->group.next; group != NULL; group = group->next) {
            each(&group->reserved_bytes[pool]);
        }
    }
    each(&a->stats.oversize_allocations);
    each(&a->stats.oversize_segments);
}

static void reset_peak(struct oom_counter *counter) {
    counter->peak = counter->current;
}

static void reset_sums(struct oom_counter *counter) {
    counter->allocated = counter->freed = 0;
}

void oom_allocator_reset_peaks(struct oom_allocator *a) {
    for_counters(a, reset_peak);
    memcpy(a->stats.tag_at_peak, a->stats.tag_current, sizeof a->stats.tag_at_peak);
}

void oom_allocator_reset_accumulated(struct oom_allocator *a) {
    struct oom_allocator_stats *stats = &a->stats;
    for_counters(a, reset_sums);
    a->sums_reset = true;
    stats->num_alloc_retries = stats->num_ooms = stats->num_sync_all_streams = 0;
    stats->num_device_alloc = stats->num_device_free = stats->num_oom_rejections = 0;
}
