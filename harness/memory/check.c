/* check.c: every statistic, set and list recomputed from the blocks and compared. */
#include "harness/memory/internal.h"

typedef long long ll; /* for printf */

/* ---- what the blocks say ---- */

enum {
#define X(name) STATISTIC_##name,
    OOM_STATISTIC_MAP(X)
#undef X
        STATISTICS
};

struct recount {
    int64_t statistic[STATISTICS][OOM_POOL_COUNT];
    int64_t oversize_allocations, oversize_segments;
    uint64_t tags[OOM_TAG_COUNT];
    uint64_t live, held, waits, mapped_pages;
};

static void add(struct recount *recount, int statistic, uint8_t pool, uint64_t by) {
    recount->statistic[statistic][OOM_POOL_ALL] += (int64_t)by;
    recount->statistic[statistic][pool] += (int64_t)by;
}

static enum oom_status broken(const struct oom_block *block, const char *what) {
    return oom_fail(OOM_INTERNAL, "allocator: block 0x%llx of %llu bytes %s",
                    (unsigned long long)block->address, (unsigned long long)block->bytes, what);
}

static enum oom_status count_free(const struct oom_block *block, struct recount *recount) {
    if (block->next != NULL && block->next->hold == block->hold) {
        return broken(block, "is free and not merged with the free one behind it");
    }
    if (block->uses != NULL || block->waits != 0) return broken(block, "is free and waited for");
    if (block->hold == OOM_HOLD_UNMAPPED || block->expandable || !oom_block_is_split(block)) {
        return OOM_OK;
    }
    add(recount, STATISTIC_inactive_split, block->pool, 1);
    add(recount, STATISTIC_inactive_split_bytes, block->pool, block->bytes);
    return OOM_OK;
}

static enum oom_status count_live(const struct oom_allocator *a, const struct oom_block *block,
                                  struct recount *recount) {
    if (oom_live_table_find(&a->live, block->address) != block) {
        return broken(block, "is allocated but not in the table of live blocks");
    }
    for (const struct oom_use *use = block->uses; use != NULL; use = use->next) {
        if (use->block != block) return broken(block, "has a use of another block");
    }
    recount->live++;
    recount->tags[block->tag] += block->bytes;
    recount->oversize_allocations += block->bytes >= a->settings.max_split_size;
    add(recount, STATISTIC_allocation, block->pool, 1);
    add(recount, STATISTIC_allocated_bytes, block->pool, block->bytes);
    return OOM_OK;
}

static enum oom_status count_pending(const struct oom_allocator *a, const struct oom_block *block,
                                     struct recount *recount) {
    bool held = a->held_table.buckets != NULL &&
                oom_live_table_find(&a->held_table, block->address) == block;
    if (held == (block->waits > 0)) return broken(block, "is pending and waits for nothing");
    recount->held += held;
    recount->waits += block->waits;
    return OOM_OK;
}

static enum oom_status count_block(const struct oom_allocator *a, const struct oom_block *block,
                                   struct recount *recount) {
    const struct oom_segment *segment = block->segment;
    if (block->pool != segment->pool || block->stream != segment->stream ||
        block->counter != segment->counter || block->owner != segment->owner ||
        block->expandable != segment->expandable) {
        return broken(block, "disagrees with its segment");
    }
    if (block->hold == OOM_HOLD_FREE || block->hold == OOM_HOLD_UNMAPPED) {
        return count_free(block, recount);
    }
    if (block->hold == OOM_HOLD_LIVE)
        OOM_TRY(count_live(a, block, recount));
    else
        OOM_TRY(count_pending(a, block, recount));
    add(recount, STATISTIC_active, block->pool, 1);
    add(recount, STATISTIC_active_bytes, block->pool, block->bytes);
    add(recount, STATISTIC_requested_bytes, block->pool, block->requested);
    return OOM_OK;
}

/* Pages under a mapped block are there; under an unmapped one only what a failed mapping left. */
static enum oom_status check_pages(const struct oom_segment *segment,
                                   const struct oom_block *block) {
    uint64_t offset = block->address - segment->address;
    bool unmapped = block->hold == OOM_HOLD_UNMAPPED;
    if (unmapped && (offset % segment->page != 0 || block->bytes % segment->page != 0)) {
        return broken(block, "is unmapped and not whole pages");
    }
    for (uint64_t at = offset / segment->page * segment->page; at < offset + block->bytes;
         at += segment->page) {
        if (unmapped) continue;
        uint64_t index = at / segment->page;
        if (index >= segment->room || segment->pages[index].handle == 0 ||
            !segment->pages[index].mapped) {
            return broken(block, "lies on a page that is not mapped");
        }
    }
    return OOM_OK;
}

static enum oom_status count_expandable(const struct oom_segment *segment,
                                        struct recount *recount) {
    uint64_t mapped = 0;
    for (const struct oom_block *b = segment->first; b != NULL; b = b->next) {
        OOM_TRY(check_pages(segment, b));
        if (b->hold != OOM_HOLD_UNMAPPED) mapped += b->bytes;
    }
    if (mapped != segment->mapped || mapped % segment->page != 0) {
        return oom_fail(OOM_INTERNAL,
                        "allocator: segment 0x%llx has %llu bytes in mapped blocks and counts %llu",
                        (unsigned long long)segment->address, (unsigned long long)mapped,
                        (unsigned long long)segment->mapped);
    }
    recount->mapped_pages += mapped / segment->page;
    add(recount, STATISTIC_reserved_bytes, segment->pool, mapped);
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
    if (segment->expandable) return count_expandable(segment, recount);
    add(recount, STATISTIC_segment, segment->pool, 1);
    add(recount, STATISTIC_reserved_bytes, segment->pool, segment->bytes);
    recount->oversize_segments += segment->bytes >= a->settings.max_split_size;
    return OOM_OK;
}

/* ---- compared with what was counted ---- */

static enum oom_status same(const char *name, int pool, int64_t counted, int64_t found) {
    if (counted == found) return OOM_OK;
    static const char *const pools[] = {"all", "small_pool", "large_pool"};
    return oom_fail(OOM_INTERNAL, "allocator: %s.%s is %lld, the blocks give %lld", name,
                    pools[pool], (ll)counted, (ll)found);
}

static enum oom_status counter_holds(const struct oom_allocator *a, const char *name, int pool,
                                     const struct oom_counter *counter, int64_t found) {
    OOM_TRY(same(name, pool, counter->current, found));
    if (!a->sums_reset) OOM_TRY(same(name, pool, counter->allocated - counter->freed, found));
    if (counter->peak >= counter->current) return OOM_OK;
    return oom_fail(OOM_INTERNAL, "allocator: %s has its peak below its current value", name);
}

static enum oom_status compare(const struct oom_allocator *a, const struct recount *recount) {
    const struct oom_allocator_stats *stats = &a->stats;
    for (int pool = 0; pool < OOM_POOL_COUNT; pool++) {
#define X(name) \
    OOM_TRY(counter_holds(a, #name, pool, &stats->name[pool], \
                          recount->statistic[STATISTIC_##name][pool]));
        OOM_STATISTIC_MAP(X)
#undef X
    }
    OOM_TRY(counter_holds(a, "oversize_allocations", 0, &stats->oversize_allocations,
                          recount->oversize_allocations));
    OOM_TRY(counter_holds(a, "oversize_segments", 0, &stats->oversize_segments,
                          recount->oversize_segments));
    for (int tag = 0; tag < OOM_TAG_COUNT; tag++) {
        OOM_TRY(same(oom_tag_name((enum oom_tag)tag), 0, (int64_t)stats->tag_current[tag],
                     (int64_t)recount->tags[tag]));
    }
    OOM_TRY(same("number of live blocks", 0, (int64_t)a->live.count, (int64_t)recount->live));
    OOM_TRY(same("number of held blocks", 0, (int64_t)a->held_table.count, (int64_t)recount->held));
    OOM_TRY(same("number of events waited for", 0, (int64_t)a->waiting, (int64_t)recount->waits));
    OOM_TRY(same("number of mapped pages", 0, (int64_t)a->mapped_pages,
                 (int64_t)recount->mapped_pages));
    return same("reserved for the limit", 0, (int64_t)a->reserved,
                recount->statistic[STATISTIC_reserved_bytes][OOM_POOL_ALL]);
}

/* ---- sets and queues ---- */

/* What the segments say of one pool. */
struct pool_count {
    uint64_t free, unmapped, reserved;
};

static struct pool_count count_pool(const struct oom_allocator *a, const struct oom_pool *pool) {
    struct pool_count count = {0};
    for (struct oom_tree_node *node = oom_tree_end(&a->segments, 0); node != NULL;
         node = oom_tree_step(node, 1)) {
        if (((const struct oom_segment *)node)->owner != pool) continue;
        for (const struct oom_block *b = oom_segment_first(node); b != NULL; b = b->next) {
            count.free += b->hold == OOM_HOLD_FREE;
            count.unmapped += b->hold == OOM_HOLD_UNMAPPED;
            count.reserved += b->hold == OOM_HOLD_UNMAPPED ? 0 : b->bytes;
        }
    }
    return count;
}

static enum oom_status check_unmapped(const struct oom_pool *pool, uint64_t expected) {
    const struct oom_block *before = NULL;
    uint64_t count = 0;
    for (struct oom_tree_node *node = oom_tree_end(&pool->unmapped, 0); node != NULL;
         node = oom_tree_step(node, 1)) {
        const struct oom_block *b = (const struct oom_block *)node;
        if (b->hold != OOM_HOLD_UNMAPPED || b->owner != pool) {
            return broken(b, "is among the unmapped blocks of a pool and should not be");
        }
        if (before != NULL && (before->stream > b->stream ||
                               (before->stream == b->stream && before->address >= b->address))) {
            return broken(b, "is out of order among the unmapped");
        }
        before = b;
        count++;
    }
    OOM_TRY(same("unmapped blocks in order", pool->kind, (int64_t)count, (int64_t)expected));
    return same("number of unmapped blocks", pool->kind, (int64_t)pool->unmapped_count,
                (int64_t)expected);
}

/* Every member is a free block of this pool, in order; that every free block is a member follows
 * from their number. */
static enum oom_status check_pool(const struct oom_allocator *a, const struct oom_pool *pool) {
    struct pool_count expected = count_pool(a, pool);
    const struct oom_block *before = NULL;
    uint64_t count = 0;
    for (const struct oom_block *b = oom_free_set_first(&pool->free); b != NULL;
         b = oom_free_set_next(&pool->free, b)) {
        if (b->hold != OOM_HOLD_FREE) return broken(b, "is not free but in the free set");
        if (b->owner != pool) return broken(b, "is in the free set of another pool");
        if (before != NULL && before->stream == b->stream && before->bytes > b->bytes) {
            return broken(b, "is out of order in the free set");
        }
        before = b;
        count++;
    }
    OOM_TRY(same("size of the free set", pool->kind, (int64_t)pool->free.count, (int64_t)count));
    OOM_TRY(same("number of free blocks", pool->kind, (int64_t)count, (int64_t)expected.free));
    OOM_TRY(check_unmapped(pool, expected.unmapped));
    return counter_holds(a, "reserved_bytes_by_private_pools", pool->kind,
                         &pool->group->reserved_bytes[pool->kind], (int64_t)expected.reserved);
}

static enum oom_status check_queues(const struct oom_allocator *a) {
    uint64_t waiting = 0, held = 0;
    for (uint32_t i = 0; i < a->stream_count; i++) {
        for (const struct oom_use *use = a->queues[i].first; use != NULL; use = use->later) {
            if (use->stream != i || use->block->hold != OOM_HOLD_PENDING) {
                return broken(use->block, "is waited for in the wrong queue");
            }
            waiting++;
        }
    }
    for (const struct oom_use *use = a->held.first; use != NULL; use = use->later) held++;
    OOM_TRY(same("length of the queues", 0, (int64_t)waiting, (int64_t)a->waiting));
    return same("length of the queue of held blocks", 0, (int64_t)held,
                (int64_t)a->held_table.count);
}

enum oom_status oom_allocator_check(const struct oom_allocator *a) {
    struct recount recount = {0};
    for (struct oom_tree_node *node = oom_tree_end(&a->segments, 0); node != NULL;
         node = oom_tree_step(node, 1)) {
        OOM_TRY(count_segment(a, (const struct oom_segment *)node, &recount));
    }
    OOM_TRY(compare(a, &recount));
    for (const struct oom_pool_group *group = &a->group; group != NULL; group = group->next) {
        OOM_TRY(check_pool(a, &group->pools[OOM_POOL_SMALL]));
        OOM_TRY(check_pool(a, &group->pools[OOM_POOL_LARGE]));
    }
    return check_queues(a);
}
