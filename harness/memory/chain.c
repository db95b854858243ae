/* chain.c: the decisions of one malloc, in PyTorch's order:
 *
 *   A search the free set   C collect garbage   D ask the device
 *   F release oversize cached blocks, ask again
 *   G wait for other streams, release all cached blocks, ask again (a "retry")
 *
 * (B, callbacks, and E, memory pools lent on OOM, have nothing to call here.) G does not search
 * again for what came free while it waited, as PyTorch does not (pytorch#189504); profile `fixed`
 * does, between waiting and releasing. */
#include "harness/memory/internal.h"

/* ---- sizes and pools ---- */

static uint64_t round_up(uint64_t n, uint64_t to) {
    return (n + to - 1) / to * to;
}

static unsigned log2_floor(uint64_t n) {
    return 63u - (unsigned)__builtin_clzll(n);
}

static uint64_t divisions_for(const struct oom_allocator_settings *settings, uint64_t n) {
    unsigned log = log2_floor(n);
    unsigned class = log < 20 ? 0 : log - 20;
    if (class >= OOM_ROUNDUP_CLASSES) class = OOM_ROUNDUP_CLASSES - 1;
    return settings->roundup_power2_divisions[class];
}

static uint64_t block_size(const struct oom_allocator_settings *settings, uint64_t n) {
    if (n < OOM_MIN_BLOCK) return OOM_MIN_BLOCK;
    uint64_t divisions = divisions_for(settings, n);
    if (divisions <= 1 || n <= OOM_MIN_BLOCK * divisions) return round_up(n, OOM_MIN_BLOCK);
    uint64_t step = ((uint64_t)1 << log2_floor(n)) / divisions; /* >= 512: n > 512 divisions */
    return round_up(n, step);
}

static uint64_t segment_size(const struct oom_allocator_settings *settings, uint64_t size) {
    if (size <= OOM_SMALL_MAX) return OOM_SMALL_SEGMENT;
    if (size < OOM_LARGE_MIN) return settings->large_segment_size;
    return round_up(size, OOM_LARGE_ROUND);
}

/* Backend `direct`: a block is a device allocation, as the device rounds it. */
static uint64_t direct_size(uint64_t n) {
    return round_up(n, n < OOM_SMALL_MAX ? OOM_GRANULE : OOM_PAGE);
}

void oom_request_plan(struct oom_allocator *a, struct oom_request *request) {
    uint64_t n = request->bytes + 2 * a->settings.guard_bytes;
    bool direct = oom_is_direct(a);
    request->size = direct ? direct_size(n) : block_size(&a->settings, n);
    request->segment_bytes = direct ? request->size : segment_size(&a->settings, request->size);
    request->pool =
        &a->current->pools[request->size <= OOM_SMALL_MAX ? OOM_POOL_SMALL : OOM_POOL_LARGE];
}

/* ---- the free set ---- */

void oom_chain_make_free(struct oom_block *block) {
    block->hold = OOM_HOLD_FREE;
    block->age_base = block->owner->searches;
    oom_free_set_insert(&block->owner->free, block);
}

static bool collects_garbage(const struct oom_allocator *a) {
    return a->gc_allowed != OOM_NO_LIMIT;
}

/* What a block counts for in the search for the best fit: one that touches unmapped addresses can
 * grow, so a closed hole goes first. */
static uint64_t reach(const struct oom_block *block) {
    const struct oom_block *next = block->next;
    return block->bytes + (next != NULL && next->hold == OOM_HOLD_UNMAPPED ? next->bytes : 0);
}

static struct oom_block *next_of_stream(const struct oom_pool *pool,
                                        const struct oom_block *block) {
    struct oom_block *next = oom_free_set_next(&pool->free, block);
    return next != NULL && next->stream == block->stream ? next : NULL;
}

/* `block` fits and is expandable: the one to take instead, or NULL. */
static struct oom_block *pick_expandable(const struct oom_allocator *a, const struct oom_pool *pool,
                                         struct oom_block *block) {
    while (block != NULL && block->expandable) {
        struct oom_block *next = next_of_stream(pool, block);
        if (oom_is_expandable(a) && (next == NULL || reach(next) >= reach(block))) break;
        block = next;
    }
    return block;
}

/* The oversize rules: a large block is not cut for a small request, nor wasted on one that is much
 * smaller. They end the search. PyTorch applies them to expandable blocks, too, which could be cut
 * (pytorch#123548); profile `fixed` does not. */
static bool oversize(const struct oom_allocator *a, const struct oom_block *block, uint64_t size) {
    uint64_t max_split = a->settings.max_split_size;
    if (block->expandable && oom_is_fixed(a)) return false;
    if (size < max_split) return block->bytes >= max_split;
    return block->bytes >= size + a->settings.max_non_split_rounding;
}

struct oom_block *oom_chain_search(struct oom_allocator *a, const struct oom_request *request) {
    struct oom_pool *pool = request->pool;
    if (collects_garbage(a)) pool->searches++;
    if (request->refused || oom_is_direct(a)) return NULL;
    struct oom_block *block = oom_free_set_find(&pool->free, request->stream, request->size);
    if (block != NULL && block->expandable) block = pick_expandable(a, pool, block);
    if (block == NULL || oversize(a, block, request->size)) return NULL;
    oom_free_set_remove(&pool->free, block);
    return block;
}

void oom_chain_unsearch(struct oom_allocator *a, const struct oom_request *request) {
    if (collects_garbage(a)) request->pool->searches--;
}

/* ---- asking the device ---- */

/* PyTorch compares with the fraction as it is configured, truncated, where the limit is rounded. */
static bool rejects(struct oom_allocator *a, uint64_t bytes) {
    double fraction = a->settings.per_process_memory_fraction;
    return a->settings.throw_on_cudamalloc_oom &&
           a->reserved + bytes > (uint64_t)(fraction * (double)a->properties.capacity);
}

/* Steps D, F and G: one attempt. OOM_NOMEM: limit, device or an injection said no. The bytes that
 * limits know are those of a segment, even where pages are mapped. */
static enum oom_status attempt(struct oom_allocator *a, struct oom_request *request,
                               struct oom_block **out) {
    uint64_t bytes = request->segment_bytes;
    if (a->limit != OOM_NO_LIMIT && a->reserved + bytes > a->limit) return OOM_NOMEM;
    if (rejects(a, bytes)) {
        a->stats.num_oom_rejections++;
        request->rejected = true;
        return OOM_NOMEM;
    }
    if (oom_is_expandable(a)) return oom_expandable_obtain(a, request, out);
    return oom_segment_obtain(a, request, out);
}

/* ---- giving back ---- */

/* A whole free segment. On failure nothing has changed. */
static enum oom_status release(struct oom_allocator *a, struct oom_block *block,
                               uint64_t *released) {
    oom_free_set_remove(&block->owner->free, block);
    enum oom_status status = oom_segment_release(a, block, released);
    if (status != OOM_OK) oom_free_set_insert(&block->owner->free, block);
    return status;
}

static uint64_t age_of(const struct oom_pool *pool, const struct oom_block *block) {
    return pool->searches - block->age_base;
}

/* One pass of step C: every whole free segment at least as old as the average. */
static enum oom_status collect_older(struct oom_allocator *a, struct oom_pool *pool, double age,
                                     uint64_t *released) {
    struct oom_block *next;
    for (struct oom_block *b = oom_free_set_first(&pool->free); b != NULL; b = next) {
        next = oom_free_set_next(&pool->free, b);
        if (oom_block_is_split(b) || b->expandable) continue;
        if ((double)age_of(pool, b) >= age) OOM_TRY(release(a, b, released));
    }
    return OOM_OK;
}

/* Average age of whole free segments, expandable ones included though they will not be freed;
 * false: there are none. */
static bool average_age(const struct oom_pool *pool, double *out) {
    double total = 0, count = 0;
    for (struct oom_block *b = oom_free_set_first(&pool->free); b != NULL;
         b = oom_free_set_next(&pool->free, b)) {
        if (oom_block_is_split(b)) continue;
        total += (double)age_of(pool, b);
        count++;
    }
    if (count > 0) *out = total / count;
    return count > 0;
}

/* Step C. The default large pool only; a pass is never cut short by reaching the target. */
static enum oom_status collect_garbage(struct oom_allocator *a, struct oom_request *request) {
    struct oom_pool *pool = &a->pools[OOM_POOL_LARGE];
    uint64_t reclaimed = 0, before;
    double age = 0;
    if (a->reserved <= a->gc_allowed) return OOM_OK;
    uint64_t target = a->reserved - a->gc_allowed;
    do {
        if (!average_age(pool, &age)) break;
        before = reclaimed;
        OOM_TRY(collect_older(a, pool, age, &reclaimed));
    } while (reclaimed < target && reclaimed > before);
    request->released += reclaimed;
    return OOM_OK;
}

/* Step F: oversize cached blocks of this pool and stream, the first that fits or, from the largest
 * down, as many as are needed; never expandable ones. *enough: worth asking the device again. */
static enum oom_status release_oversize(struct oom_allocator *a, struct oom_request *request,
                                        bool *enough) {
    uint64_t max_split = a->settings.max_split_size, released = 0;
    struct oom_free_set *set = &request->pool->free;
    *enough = false;
    if (max_split == OOM_NO_LIMIT) return OOM_OK;
    uint64_t key = request->size > max_split ? request->size : max_split;
    struct oom_block *block = oom_free_set_find(set, request->stream, key);
    if (block != NULL && !block->expandable) {
        OOM_TRY(release(a, block, &released));
    } else {
        block =
            block != NULL ? oom_free_set_prev(set, block) : oom_free_set_last(set, request->stream);
        while (block != NULL && released < key && block->stream == request->stream &&
               block->bytes >= max_split) {
            struct oom_block *prev = oom_free_set_prev(set, block);
            if (!block->expandable) OOM_TRY(release(a, block, &released));
            block = prev;
        }
    }
    request->released += released;
    *enough = released >= key;
    return OOM_OK;
}

/* Whole segments first, then pages. What is cut off while pages go holds no whole page, so it does
 * not matter whether the walk meets it. */
static enum oom_status release_pool(struct oom_allocator *a, struct oom_pool *pool,
                                    uint64_t *released) {
    struct oom_block *next;
    uint64_t expandable = 0;
    for (struct oom_block *b = oom_free_set_first(&pool->free); b != NULL; b = next) {
        next = oom_free_set_next(&pool->free, b);
        expandable += b->expandable;
        if (!b->expandable && !oom_block_is_split(b)) OOM_TRY(release(a, b, released));
    }
    if (expandable == 0) return OOM_OK;
    for (struct oom_block *b = oom_free_set_first(&pool->free); b != NULL; b = next) {
        next = oom_free_set_next(&pool->free, b);
        if (b->expandable) OOM_TRY(oom_expandable_release(a, b, released));
    }
    return OOM_OK;
}

/* Large before small; of private pools, which must be retired, small before large. */
static enum oom_status release_all(struct oom_allocator *a, uint64_t *released) {
    OOM_TRY(release_pool(a, &a->pools[OOM_POOL_LARGE], released));
    OOM_TRY(release_pool(a, &a->pools[OOM_POOL_SMALL], released));
    for (struct oom_pool_group *group = a->group.next; group != NULL; group = group->next) {
        if (!group->retired) continue;
        OOM_TRY(release_pool(a, &group->pools[OOM_POOL_SMALL], released));
        OOM_TRY(release_pool(a, &group->pools[OOM_POOL_LARGE], released));
    }
    oom_pools_sweep(a);
    return OOM_OK;
}

static enum oom_status synchronise(struct oom_allocator *a) {
    a->stats.num_sync_all_streams++;
    return oom_pending_finish(a);
}

enum oom_status oom_chain_release_cached(struct oom_allocator *a, uint64_t *released) {
    OOM_TRY(synchronise(a));
    return release_all(a, released);
}

/* ---- cutting and merging ---- */

static bool should_split(const struct oom_allocator *a, const struct oom_block *block,
                         uint64_t size) {
    uint64_t rest = block->bytes - size;
    if (oom_is_direct(a)) return false;
    if (block->pool == OOM_POOL_SMALL || oom_is_expandable(a)) {
        return rest >= OOM_MIN_BLOCK;
    }
    return size < a->settings.max_split_size && rest > OOM_SMALL_MAX;
}

void oom_chain_cut(struct oom_allocator *a, struct oom_block *block, uint64_t size) {
    bool was_split = oom_block_is_split(block), split = should_split(a, block, size);
    uint64_t whole = block->bytes;
    if (split) oom_chain_make_free(oom_block_cut(&a->blocks, block, size));
    if (block->expandable) return; /* not counted: its free pages can be given back */
    if (split && was_split)
        oom_count_inactive_split(a, block->pool, 0, -(int64_t)size);
    else if (split)
        oom_count_inactive_split(a, block->pool, 1, (int64_t)(whole - size));
    else if (was_split)
        oom_count_inactive_split(a, block->pool, -1, -(int64_t)whole);
}

void oom_chain_free(struct oom_allocator *a, struct oom_block *block) {
    struct oom_free_set *set = &block->owner->free;
    struct oom_block *neighbours[] = {block->prev, block->next};
    int64_t blocks = 0, bytes = 0; /* net change of inactive_split */
    for (int i = 0; i < 2; i++) {
        struct oom_block *other = neighbours[i];
        if (other == NULL || other->hold != OOM_HOLD_FREE) continue;
        blocks--;
        bytes -= (int64_t)other->bytes;
        oom_free_set_remove(set, other);
        if (i == 0) block = other;
        oom_block_absorb_next(&a->blocks, block);
    }
    if (oom_block_is_split(block)) {
        blocks++;
        bytes += (int64_t)block->bytes;
    }
    oom_chain_make_free(block);
    if (!block->expandable) oom_count_inactive_split(a, block->pool, blocks, bytes);
}

/* ---- the chain ---- */

enum oom_status oom_chain_prepare(struct oom_allocator *a, const struct oom_request *request) {
    OOM_TRY(oom_segment_prepare(a));
    if (oom_is_expandable(a)) OOM_TRY(oom_expandable_prepare(a, request));
    OOM_TRY(oom_block_store_reserve(&a->blocks, 2));
    return oom_chain_prepare_release(a);
}

/* A free block yields two pieces beside its pages. At most as many as there are pages hold one,
 * and the attempts before a release can add one; they map with one rest each, and cut. */
enum oom_status oom_chain_prepare_release(struct oom_allocator *a) {
    if (a->mapped_pages == 0 && !oom_is_expandable(a)) return OOM_OK;
    return oom_block_store_reserve(&a->blocks, 2 * a->mapped_pages + 16);
}

static enum oom_status step_g(struct oom_allocator *a, struct oom_request *request,
                              struct oom_block **out) {
    OOM_TRY(synchronise(a));
    if (oom_is_fixed(a)) {
        *out = oom_chain_search(a, request);
        if (*out != NULL) return OOM_OK;
    }
    OOM_TRY(release_all(a, &request->released));
    a->stats.num_alloc_retries++;
    return attempt(a, request, out);
}

enum oom_status oom_chain_obtain(struct oom_allocator *a, struct oom_request *request,
                                 struct oom_block **out) {
    bool enough;
    if (oom_is_direct(a)) return attempt(a, request, out);

    OOM_TRY(collect_garbage(a, request)); /* C */

    enum oom_status status = attempt(a, request, out); /* D */
    if (status != OOM_NOMEM || request->rejected) return status;

    OOM_TRY(release_oversize(a, request, &enough)); /* F */
    if (enough) status = attempt(a, request, out);
    if (status != OOM_NOMEM || request->rejected) return status;

    return step_g(a, request, out);
}
