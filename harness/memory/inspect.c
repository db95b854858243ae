/* inspect.c: looking in from outside: the trace, every block, and the check that recomputes the
 * statistics from the blocks. */
#include "harness/memory/internal.h"

#include <string.h>

/* ---- trace ---- */

uint64_t oom_allocator_trace_count(const struct oom_allocator *a) {
    return a->trace.held;
}

uint64_t oom_allocator_trace_dropped(const struct oom_allocator *a) {
    return a->trace.written - a->trace.held;
}

const struct oom_trace_event *oom_allocator_trace_at(const struct oom_allocator *a, uint64_t i) {
    if (i >= a->trace.held) return NULL;
    const struct oom_trace_record *record = oom_trace_get(&a->trace, i);
    struct oom_trace_event *event = a->event;
    *event = (struct oom_trace_event){.action = (enum oom_action)record->action,
                                      .tag = (enum oom_tag)record->tag,
                                      .address = record->address,
                                      .bytes = record->bytes,
                                      .stream = record->stream,
                                      .time_us = record->time_us};
    strncpy(event->site, oom_site_name(&a->sites, record->site), sizeof event->site - 1);
    return event;
}

/* ---- blocks ---- */

static struct oom_block_view view_of(const struct oom_allocator *a, const struct oom_block *block) {
    return (struct oom_block_view){.segment = block->segment->address,
                                   .segment_bytes = block->segment->bytes,
                                   .small_pool = block->pool == OOM_POOL_SMALL,
                                   .address = block->address,
                                   .bytes = block->bytes,
                                   .requested = block->allocated ? block->requested : 0,
                                   .allocated = block->allocated,
                                   .tag = (enum oom_tag)block->tag,
                                   .site = oom_site_name(&a->sites, block->site)};
}

enum oom_status oom_allocator_walk(const struct oom_allocator *a,
                                   enum oom_status (*visit)(const struct oom_block_view *block,
                                                            void *context),
                                   void *context) {
    for (struct oom_tree_node *node = oom_tree_end(&a->segments, 0); node != NULL;
         node = oom_tree_step(node, 1)) {
        for (struct oom_block *b = oom_segment_first(node); b != NULL; b = b->next) {
            struct oom_block_view view = view_of(a, b);
            OOM_TRY(visit(&view, context));
        }
    }
    return OOM_OK;
}

/* ---- check ---- */

struct recount {
    int64_t statistic[9][OOM_POOL_COUNT]; /* in the order of OOM_STATISTIC_MAP */
    int64_t oversize_allocations, oversize_segments;
    uint64_t tags[OOM_TAG_COUNT];
    uint64_t live, free[OOM_POOL_COUNT];
};

enum {
#define X(name) STATISTIC_##name,
    OOM_STATISTIC_MAP(X)
#undef X
};

static void add(struct recount *recount, int statistic, uint8_t pool, uint64_t by) {
    recount->statistic[statistic][OOM_POOL_ALL] += (int64_t)by;
    recount->statistic[statistic][pool] += (int64_t)by;
}

static enum oom_status broken(const struct oom_block *block, const char *what) {
    return oom_fail(OOM_INTERNAL, "allocator: block 0x%llx of %llu bytes %s",
                    (unsigned long long)block->address, (unsigned long long)block->bytes, what);
}

static enum oom_status count_block(const struct oom_allocator *a, const struct oom_block *block,
                                   struct recount *recount) {
    const struct oom_segment *segment = block->segment;
    if (block->pool != segment->pool || block->stream != segment->stream ||
        block->counter != segment->counter) {
        return broken(block, "disagrees with its segment");
    }
    if (!block->allocated) {
        if (block->next != NULL && !block->next->allocated) {
            return broken(block, "is free and not merged with the free one behind it");
        }
        recount->free[block->pool]++;
        if (!oom_block_is_split(block)) return OOM_OK;
        add(recount, STATISTIC_inactive_split, block->pool, 1);
        add(recount, STATISTIC_inactive_split_bytes, block->pool, block->bytes);
        return OOM_OK;
    }
    if (oom_live_table_find(&a->live, block->address) != block) {
        return broken(block, "is allocated but not in the table of live blocks");
    }
    recount->live++;
    recount->tags[block->tag] += block->bytes;
    recount->oversize_allocations += block->bytes >= a->settings.max_split_size;
    add(recount, STATISTIC_allocation, block->pool, 1);
    add(recount, STATISTIC_allocated_bytes, block->pool, block->bytes);
    add(recount, STATISTIC_active, block->pool, 1);
    add(recount, STATISTIC_active_bytes, block->pool, block->bytes);
    add(recount, STATISTIC_requested_bytes, block->pool, block->requested);
    return OOM_OK;
}

static enum oom_status count_segment(const struct oom_allocator *a,
                                     const struct oom_segment *segment, struct recount *recount) {
    const struct oom_block *before = NULL;
    uint64_t at = segment->address;
    for (const struct oom_block *b = segment->first; b != NULL; b = b->next) {
        if (b->address != at || b->prev != before || b->segment != segment || b->bytes == 0) {
            return broken(b, "does not follow its neighbour");
        }
        OOM_TRY(count_block(a, b, recount));
        at += b->bytes;
        before = b;
    }
    if (at != segment->address + segment->bytes) {
        return oom_fail(OOM_INTERNAL, "allocator: the blocks of segment 0x%llx end at 0x%llx",
                        (unsigned long long)segment->address, (unsigned long long)at);
    }
    add(recount, STATISTIC_segment, segment->pool, 1);
    add(recount, STATISTIC_reserved_bytes, segment->pool, segment->bytes);
    recount->oversize_segments += segment->bytes >= a->settings.max_split_size;
    return OOM_OK;
}

static enum oom_status same(const char *name, int pool, int64_t counted, int64_t found) {
    if (counted == found) return OOM_OK;
    static const char *const pools[] = {"all", "small_pool", "large_pool"};
    return oom_fail(OOM_INTERNAL, "allocator: %s.%s is %lld, the blocks give %lld", name,
                    pools[pool], (long long)counted, (long long)found);
}

static enum oom_status counter_holds(const char *name, int pool, const struct oom_counter *counter,
                                     int64_t found) {
    OOM_TRY(same(name, pool, counter->current, found));
    OOM_TRY(same(name, pool, counter->allocated - counter->freed, found));
    if (counter->peak >= counter->current) return OOM_OK;
    return oom_fail(OOM_INTERNAL, "allocator: %s has its peak below its current value", name);
}

static enum oom_status compare(const struct oom_allocator *a, const struct recount *recount) {
    const struct oom_allocator_stats *stats = &a->stats;
    for (int pool = 0; pool < OOM_POOL_COUNT; pool++) {
#define X(name) \
    OOM_TRY(counter_holds(#name, pool, &stats->name[pool], \
                          recount->statistic[STATISTIC_##name][pool]));
        OOM_STATISTIC_MAP(X)
#undef X
    }
    OOM_TRY(counter_holds("oversize_allocations", 0, &stats->oversize_allocations,
                          recount->oversize_allocations));
    OOM_TRY(counter_holds("oversize_segments", 0, &stats->oversize_segments,
                          recount->oversize_segments));
    for (int tag = 0; tag < OOM_TAG_COUNT; tag++) {
        OOM_TRY(same(oom_tag_name((enum oom_tag)tag), 0, (int64_t)stats->tag_current[tag],
                     (int64_t)recount->tags[tag]));
    }
    OOM_TRY(same("number of live blocks", 0, (int64_t)a->live.count, (int64_t)recount->live));
    OOM_TRY(same("reserved for the limit", 0, (int64_t)a->reserved,
                 recount->statistic[STATISTIC_reserved_bytes][OOM_POOL_ALL]));
    for (int pool = OOM_POOL_SMALL; pool <= OOM_POOL_LARGE; pool++) {
        OOM_TRY(same("number of free blocks", pool, (int64_t)a->pools[pool].free.count,
                     (int64_t)recount->free[pool]));
    }
    return OOM_OK;
}

/* Every member is a free block of this pool, in order; that every free block is a member follows
 * from their number. */
static enum oom_status check_free_set(const struct oom_pool *pool) {
    const struct oom_block *before = NULL;
    uint64_t count = 0;
    for (const struct oom_block *b = oom_free_set_first(&pool->free); b != NULL;
         b = oom_free_set_next(&pool->free, b)) {
        if (b->allocated) return broken(b, "is allocated but in the free set");
        if (b->pool != pool->kind) return broken(b, "is in the free set of the other pool");
        if (before != NULL && before->stream == b->stream && before->bytes > b->bytes) {
            return broken(b, "is out of order in the free set");
        }
        before = b;
        count++;
    }
    return same("size of the free set", pool->kind, (int64_t)pool->free.count, (int64_t)count);
}

enum oom_status oom_allocator_check(const struct oom_allocator *a) {
    struct recount recount = {0};
    for (struct oom_tree_node *node = oom_tree_end(&a->segments, 0); node != NULL;
         node = oom_tree_step(node, 1)) {
        OOM_TRY(count_segment(a, (const struct oom_segment *)node, &recount));
    }
    OOM_TRY(check_free_set(&a->pools[OOM_POOL_SMALL]));
    OOM_TRY(check_free_set(&a->pools[OOM_POOL_LARGE]));
    return compare(a, &recount);
}
