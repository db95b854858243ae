/* chain.c: the decisions of one malloc, in PyTorch 2.13's order:
 *
 *   A search the free set   C collect garbage   D ask the device
 *   F release oversize cached blocks, ask again
 *   G release all cached blocks, ask again (a "retry")
 *
 * (B, callbacks, and E, memory pools lent on OOM, have nothing to call here.) There is no second
 * search after G, as there is none in PyTorch. */
#include "harness/memory/internal.h"

#include "kernels/hostmem.h"

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

void oom_request_plan(struct oom_allocator *a, struct oom_request *request) {
    request->size = block_size(&a->settings, request->bytes + 2 * a->settings.guard_bytes);
    request->segment_bytes = segment_size(&a->settings, request->size);
    request->pool = &a->pools[request->size <= OOM_SMALL_MAX ? OOM_POOL_SMALL : OOM_POOL_LARGE];
}

/* ---- the free set ---- */

static void make_free(struct oom_allocator *a, struct oom_block *block) {
    struct oom_pool *pool = &a->pools[block->pool];
    block->age_base = pool->searches;
    oom_free_set_insert(&pool->free, block);
}

static bool collects_garbage(const struct oom_allocator *a) {
    return a->limit != OOM_NO_LIMIT && a->settings.garbage_collection_threshold > 0;
}

/* Step A. */
static struct oom_block *search(struct oom_allocator *a, const struct oom_request *request) {
    struct oom_pool *pool = request->pool;
    uint64_t max_split = a->settings.max_split_size;
    if (collects_garbage(a)) pool->searches++;
    if (request->refused) return NULL;
    struct oom_block *block = oom_free_set_find(&pool->free, request->stream, request->size);
    if (block == NULL) return NULL;
    if (request->size < max_split && block->bytes >= max_split) return NULL;
    if (request->size >= max_split &&
        block->bytes >= request->size + a->settings.max_non_split_rounding) {
        return NULL;
    }
    oom_free_set_remove(&pool->free, block);
    return block;
}

/* ---- segments ---- */

static bool device_may_give(struct oom_allocator *a, const struct oom_request *request) {
    if (a->fail_device > 0 && --a->fail_device == 0) return false;
    return !request->refused;
}

/* The device's own OOM is an answer here: it leaves no failure record behind, as the next step of
 * the chain may cure it. A record made before this call stays. */
static enum oom_status ask_device(struct oom_allocator *a, const struct oom_request *request,
                                  oom_devptr *out) {
    if (!device_may_give(a, request)) return OOM_NOMEM;
    bool recorded = oom_failure_last()->status != OOM_OK;
    enum oom_status status = a->device->api->alloc(a->device, request->segment_bytes, out);
    if (status == OOM_NOMEM && !recorded) oom_failure_clear();
    return status;
}

static void link_segment(struct oom_allocator *a, struct oom_segment *segment) {
    struct oom_tree_node *parent = NULL, *at = a->segments.root;
    int side = 0;
    while (at != NULL) {
        parent = at;
        side = segment->address > ((struct oom_segment *)at)->address;
        at = at->child[side];
    }
    oom_tree_link(&a->segments, &segment->node, parent, side);
}

static struct oom_block *adopt_segment(struct oom_allocator *a, const struct oom_request *request,
                                       oom_devptr address) {
    struct oom_segment *segment = a->spare_segment;
    struct oom_block *block = oom_block_take(&a->blocks);
    a->spare_segment = NULL;
    *segment = (struct oom_segment){.address = address,
                                    .bytes = request->segment_bytes,
                                    .counter = a->next_counter++,
                                    .first = block,
                                    .stream = request->stream,
                                    .pool = request->pool->kind};
    block->address = address;
    block->bytes = segment->bytes;
    block->counter = segment->counter;
    block->stream = segment->stream;
    block->pool = segment->pool;
    block->segment = segment;
    link_segment(a, segment);
    return block;
}

/* Steps D, F and G: one attempt. OOM_NOMEM: the limit, the device or an injection said no. */
static enum oom_status new_segment(struct oom_allocator *a, const struct oom_request *request,
                                   struct oom_block **out) {
    uint64_t bytes = request->segment_bytes;
    oom_devptr address = 0;
    if (a->limit != OOM_NO_LIMIT && a->reserved + bytes > a->limit) return OOM_NOMEM;
    OOM_TRY(ask_device(a, request, &address));
    *out = adopt_segment(a, request, address);
    a->reserved += bytes;
    OOM_COUNT_UP(a, segment, request->pool->kind, 1);
    OOM_COUNT_UP(a, reserved_bytes, request->pool->kind, bytes);
    if (bytes >= a->settings.max_split_size) oom_counter_up(&a->stats.oversize_segments, 1);
    a->stats.num_device_alloc++;
    oom_allocator_record(a, OOM_ACTION_SEGMENT_ALLOC, address, bytes, request->stream,
                         request->site, request->tag);
    return OOM_OK;
}

/* `block` is free and its segment's only one. On failure nothing has changed. */
static enum oom_status release_segment(struct oom_allocator *a, struct oom_block *block,
                                       uint64_t *released) {
    struct oom_segment *segment = block->segment;
    OOM_TRY(a->device->api->free(a->device, segment->address));
    a->stats.num_device_free++;
    a->reserved -= segment->bytes;
    *released += segment->bytes;
    OOM_COUNT_DOWN(a, segment, segment->pool, 1);
    OOM_COUNT_DOWN(a, reserved_bytes, segment->pool, segment->bytes);
    if (segment->bytes >= a->settings.max_split_size) {
        oom_counter_down(&a->stats.oversize_segments, 1);
    }
    oom_allocator_record(a, OOM_ACTION_SEGMENT_FREE, segment->address, segment->bytes,
                         segment->stream, 0, OOM_TAG_OTHER);
    oom_free_set_remove(&a->pools[block->pool].free, block);
    oom_block_give(&a->blocks, block);
    oom_tree_unlink(&a->segments, &segment->node);
    if (a->spare_segment == NULL)
        a->spare_segment = segment;
    else
        oom_host_free(segment);
    return OOM_OK;
}

/* ---- giving back ---- */

/* One pass of step C: every whole free segment at least as old as the average. */
static enum oom_status collect_older(struct oom_allocator *a, struct oom_pool *pool, double age,
                                     uint64_t *released) {
    struct oom_block *next;
    for (struct oom_block *b = oom_free_set_first(&pool->free); b != NULL; b = next) {
        next = oom_free_set_next(&pool->free, b);
        if (oom_block_is_split(b)) continue;
        if ((double)(pool->searches - b->age_base) >= age) OOM_TRY(release_segment(a, b, released));
    }
    return OOM_OK;
}

/* Average age of whole free segments; false: there are none. */
static bool average_age(const struct oom_pool *pool, double *out) {
    double total = 0, count = 0;
    for (struct oom_block *b = oom_free_set_first(&pool->free); b != NULL;
         b = oom_free_set_next(&pool->free, b)) {
        if (oom_block_is_split(b)) continue;
        total += (double)(pool->searches - b->age_base);
        count++;
    }
    if (count > 0) *out = total / count;
    return count > 0;
}

/* Step C. The large pool only; a pass is never cut short by reaching the target. */
static enum oom_status collect_garbage(struct oom_allocator *a, struct oom_request *request) {
    if (!collects_garbage(a)) return OOM_OK;
    struct oom_pool *pool = &a->pools[OOM_POOL_LARGE];
    uint64_t allowed = (uint64_t)(a->settings.garbage_collection_threshold * (double)a->limit);
    uint64_t reclaimed = 0, before;
    double age = 0;
    if (a->reserved <= allowed) return OOM_OK;
    uint64_t target = a->reserved - allowed;
    do {
        if (!average_age(pool, &age)) break;
        before = reclaimed;
        OOM_TRY(collect_older(a, pool, age, &reclaimed));
    } while (reclaimed < target && reclaimed > before);
    request->released += reclaimed;
    return OOM_OK;
}

/* Step F: oversize cached blocks of this pool and stream, the first that fits or, from the largest
 * down, as many as are needed. *enough: worth asking the device again. */
static enum oom_status release_oversize(struct oom_allocator *a, struct oom_request *request,
                                        bool *enough) {
    uint64_t max_split = a->settings.max_split_size, released = 0;
    struct oom_free_set *set = &request->pool->free;
    *enough = false;
    if (max_split == OOM_NO_LIMIT) return OOM_OK;
    uint64_t key = request->size > max_split ? request->size : max_split;
    struct oom_block *block = oom_free_set_find(set, request->stream, key);
    if (block != NULL) {
        OOM_TRY(release_segment(a, block, &released));
    } else {
        block = oom_free_set_last(set, request->stream);
        while (block != NULL && released < key && block->stream == request->stream &&
               block->bytes >= max_split) {
            struct oom_block *prev = oom_free_set_prev(set, block);
            OOM_TRY(release_segment(a, block, &released));
            block = prev;
        }
    }
    request->released += released;
    *enough = released >= key;
    return OOM_OK;
}

enum oom_status oom_chain_release_cached(struct oom_allocator *a, uint64_t *released) {
    static const uint8_t order[] = {OOM_POOL_LARGE, OOM_POOL_SMALL};
    a->stats.num_sync_all_streams++;
    for (int i = 0; i < 2; i++) {
        struct oom_free_set *set = &a->pools[order[i]].free;
        struct oom_block *next;
        for (struct oom_block *b = oom_free_set_first(set); b != NULL; b = next) {
            next = oom_free_set_next(set, b);
            if (!oom_block_is_split(b)) OOM_TRY(release_segment(a, b, released));
        }
    }
    return OOM_OK;
}

/* ---- cutting and merging ---- */

static bool should_split(const struct oom_allocator *a, const struct oom_block *block,
                         uint64_t size) {
    uint64_t rest = block->bytes - size;
    if (block->pool == OOM_POOL_SMALL) return rest >= OOM_MIN_BLOCK;
    return size < a->settings.max_split_size && rest > OOM_SMALL_MAX;
}

/* The front keeps the record, the rest gets a new one. */
static void split(struct oom_allocator *a, struct oom_block *block, uint64_t size) {
    struct oom_block *rest = oom_block_take(&a->blocks);
    *rest = *block;
    rest->address += size;
    rest->bytes -= size;
    rest->prev = block;
    if (rest->next != NULL) rest->next->prev = rest;
    block->next = rest;
    block->bytes = size;
    make_free(a, rest);
}

static void cut(struct oom_allocator *a, struct oom_block *block, uint64_t size) {
    bool was_split = oom_block_is_split(block);
    uint64_t whole = block->bytes;
    if (should_split(a, block, size)) {
        split(a, block, size);
        if (was_split)
            oom_count_inactive_split(a, block->pool, 0, -(int64_t)size);
        else
            oom_count_inactive_split(a, block->pool, 1, (int64_t)(whole - size));
    } else if (was_split) {
        oom_count_inactive_split(a, block->pool, -1, -(int64_t)whole);
    }
}

/* `front` swallows the block behind it, which is free and in no set any more. */
static struct oom_block *absorb_next(struct oom_allocator *a, struct oom_block *front) {
    struct oom_block *gone = front->next;
    front->bytes += gone->bytes;
    front->next = gone->next;
    if (front->next != NULL) front->next->prev = front;
    oom_block_give(&a->blocks, gone);
    return front;
}

void oom_chain_free(struct oom_allocator *a, struct oom_block *block) {
    struct oom_free_set *set = &a->pools[block->pool].free;
    struct oom_block *neighbours[] = {block->prev, block->next};
    int64_t blocks = 0, bytes = 0; /* net change of inactive_split */
    for (int i = 0; i < 2; i++) {
        struct oom_block *other = neighbours[i];
        if (other == NULL || other->allocated) continue;
        blocks--;
        bytes -= (int64_t)other->bytes;
        oom_free_set_remove(set, other);
        block = absorb_next(a, i == 0 ? other : block);
    }
    if (oom_block_is_split(block)) {
        blocks++;
        bytes += (int64_t)block->bytes;
    }
    make_free(a, block);
    oom_count_inactive_split(a, block->pool, blocks, bytes);
}

/* ---- the chain ---- */

static enum oom_status find_whole(struct oom_allocator *a, struct oom_request *request,
                                  struct oom_block **out) {
    bool enough;
    *out = search(a, request); /* A */
    if (*out != NULL) return OOM_OK;

    OOM_TRY(collect_garbage(a, request)); /* C */

    enum oom_status status = new_segment(a, request, out); /* D */
    if (status != OOM_NOMEM) return status;

    OOM_TRY(release_oversize(a, request, &enough)); /* F */
    if (enough) status = new_segment(a, request, out);
    if (status != OOM_NOMEM) return status;

    OOM_TRY(oom_chain_release_cached(a, &request->released)); /* G */
    a->stats.num_alloc_retries++;
    return new_segment(a, request, out);
}

enum oom_status oom_chain_find(struct oom_allocator *a, struct oom_request *request,
                               struct oom_block **out) {
    OOM_TRY(find_whole(a, request, out));
    cut(a, *out, request->size);
    return OOM_OK;
}
