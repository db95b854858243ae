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

#include <math.h>

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

void oom_request_plan(const struct oom_allocator *a, const struct oom_pool_group *group,
                      struct oom_request *request) {
    uint64_t n = request->bytes + 2 * a->settings.guard_bytes;
    bool direct = oom_is_direct(a);
    request->size = direct ? direct_size(n) : block_size(&a->settings, n);
    request->segment_bytes = direct ? request->size : segment_size(&a->settings, request->size);
    request->pool = &group->pools[request->size <= OOM_SMALL_MAX ? OOM_POOL_SMALL : OOM_POOL_LARGE];
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

static struct oom_block *find_fit(const struct oom_allocator *a,
                                  const struct oom_request *request) {
    const struct oom_pool *pool = request->pool;
    if (request->refused || oom_is_direct(a)) return NULL;
    struct oom_block *block = oom_free_set_find(&pool->free, request->stream, request->size);
    if (block != NULL && block->expandable) block = pick_expandable(a, pool, block);
    return block == NULL || oversize(a, block, request->size) ? NULL : block;
}

struct oom_block *oom_chain_search(struct oom_allocator *a, const struct oom_request *request) {
    if (collects_garbage(a)) request->pool->searches++;
    bool skip = a->skip_search;
    a->skip_search = false;
    struct oom_block *block = skip ? NULL : find_fit(a, request);
    if (block != NULL) oom_free_set_remove(&request->pool->free, block);
    return block;
}

void oom_chain_unsearch(struct oom_allocator *a, const struct oom_request *request) {
    if (collects_garbage(a)) request->pool->searches--;
}

/* ---- asking the device ---- */

/* PyTorch compares with the fraction as it is configured, truncated, where the limit is rounded. */
static bool rejects(const struct oom_allocator *a, uint64_t bytes) {
    double fraction = a->settings.per_process_memory_fraction;
    return a->settings.throw_on_cudamalloc_oom &&
           a->reserved + bytes > (uint64_t)(fraction * (double)a->properties.capacity);
}

static bool over_limit(const struct oom_allocator *a, uint64_t bytes) {
    return a->limit != OOM_NO_LIMIT && a->reserved + bytes > a->limit;
}

bool oom_chain_may_ask(const struct oom_allocator *a, const struct oom_request *request) {
    return !over_limit(a, request->segment_bytes) && !rejects(a, request->segment_bytes);
}

/* Steps D, F and G: one attempt. OOM_NOMEM: limit, device or an injection said no. The bytes that
 * limits know are those of a segment, even where pages are mapped. */
static enum oom_status attempt(struct oom_allocator *a, struct oom_request *request,
                               struct oom_block **out) {
    uint64_t bytes = request->segment_bytes;
    if (over_limit(a, bytes)) return OOM_NOMEM;
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

/* Steps C and F pick whole free segments, and a release picks all of them: to be given back now, or
 * only to be named (oom_allocator_foresee), while they stay where they are. */
struct taker {
    enum oom_status (*take)(struct taker *taker, struct oom_block *block);
    struct oom_allocator *a;
    uint64_t bytes; /* of what was taken; for G, of pages, too */
    enum oom_foreseen_step step;
    void (*visit)(uint64_t address, enum oom_foreseen_step step, void *context);
    void *context;
};

static enum oom_status take_now(struct taker *taker, struct oom_block *block) {
    return release(taker->a, block, &taker->bytes);
}

static enum oom_status take_never(struct taker *taker, struct oom_block *block) {
    taker->bytes += block->bytes;
    taker->visit(block->address, taker->step, taker->context);
    return OOM_OK;
}

/* Step C looks at the default large pool only. What it has taken already is what is at least as old
 * as the last pass asked for: ages asked for only fall, as what is above the average goes. */
struct collection {
    struct oom_pool *pool;
    uint64_t searches; /* of that pool, this request's included */
    double gone;       /* age of what was taken */
};

static bool collectable(const struct oom_block *block) {
    return !oom_block_is_split(block) && !block->expandable;
}

static double age_of(const struct collection *c, const struct oom_block *block) {
    return (double)(c->searches - block->age_base);
}

static bool is_gone(const struct collection *c, const struct oom_block *block) {
    return block->owner == c->pool && collectable(block) && age_of(c, block) >= c->gone;
}

/* One pass: every whole free segment at least as old as the average. */
static enum oom_status collect_older(struct collection *c, double age, struct taker *taker) {
    struct oom_block *next;
    for (struct oom_block *b = oom_free_set_first(&c->pool->free); b != NULL; b = next) {
        next = oom_free_set_next(&c->pool->free, b);
        if (!collectable(b) || is_gone(c, b)) continue;
        if (age_of(c, b) >= age) OOM_TRY(taker->take(taker, b));
    }
    c->gone = age;
    return OOM_OK;
}

/* Average age of whole free segments, expandable ones included though they will not be freed;
 * false: there are none. */
static bool average_age(const struct collection *c, double *out) {
    double total = 0, count = 0;
    for (struct oom_block *b = oom_free_set_first(&c->pool->free); b != NULL;
         b = oom_free_set_next(&c->pool->free, b)) {
        if (oom_block_is_split(b) || is_gone(c, b)) continue;
        total += age_of(c, b);
        count++;
    }
    if (count > 0) *out = total / count;
    return count > 0;
}

/* Step C. A pass is never cut short by reaching the target. */
static enum oom_status collect_garbage(const struct oom_allocator *a, struct collection *c,
                                       struct taker *taker) {
    uint64_t before;
    double age = 0;
    taker->step = OOM_FORESEEN_GARBAGE;
    if (a->reserved <= a->gc_allowed) return OOM_OK;
    uint64_t target = a->reserved - a->gc_allowed;
    do {
        if (!average_age(c, &age)) break;
        before = taker->bytes;
        OOM_TRY(collect_older(c, age, taker));
    } while (taker->bytes < target && taker->bytes > before);
    return OOM_OK;
}

/* The nearest block of the stream, this one included, that step C has left; side 1: upward. */
static struct oom_block *left_by(const struct collection *c, const struct oom_free_set *set,
                                 struct oom_block *block, uint16_t stream, int side) {
    while (block != NULL && block->stream == stream && is_gone(c, block)) {
        block = side ? oom_free_set_next(set, block) : oom_free_set_prev(set, block);
    }
    return block != NULL && block->stream == stream ? block : NULL;
}

/* Step F: oversize cached blocks of this pool and stream, the first that fits or, from the largest
 * down, as many as are needed; never expandable ones. *enough: worth asking the device again.
 * PyTorch does not look whether they are split, and as long as max_split_size stays the same (it is
 * at least large_segment_size) none is; in a state that was begun with one can be, and its segment
 * is not to be given back under what lives there. */
static enum oom_status release_oversize(const struct oom_allocator *a,
                                        const struct oom_request *request,
                                        const struct collection *c, struct taker *taker,
                                        bool *enough) {
    uint64_t max_split = a->settings.max_split_size, before = taker->bytes;
    const struct oom_free_set *set = &request->pool->free;
    uint16_t stream = request->stream;
    *enough = false;
    if (max_split == OOM_NO_LIMIT) return OOM_OK;
    uint64_t key = request->size > max_split ? request->size : max_split;
    struct oom_block *block = left_by(c, set, oom_free_set_find(set, stream, key), stream, 1);
    taker->step = OOM_FORESEEN_OVERSIZE;
    if (block != NULL && collectable(block)) {
        OOM_TRY(taker->take(taker, block));
    } else {
        taker->step = OOM_FORESEEN_LARGEST;
        block = block != NULL ? oom_free_set_prev(set, block) : oom_free_set_last(set, stream);
        block = left_by(c, set, block, stream, 0);
        while (block != NULL && taker->bytes - before < key && block->bytes >= max_split) {
            struct oom_block *prev = left_by(c, set, oom_free_set_prev(set, block), stream, 0);
            if (collectable(block)) OOM_TRY(taker->take(taker, block));
            block = prev;
        }
    }
    *enough = taker->bytes - before >= key;
    return OOM_OK;
}

static enum oom_status take_pages(struct taker *taker, struct oom_pool *pool) {
    struct oom_block *next;
    for (struct oom_block *b = oom_free_set_first(&pool->free); b != NULL; b = next) {
        next = oom_free_set_next(&pool->free, b);
        if (b->expandable) OOM_TRY(oom_expandable_release(taker->a, b, &taker->bytes));
    }
    return OOM_OK;
}

/* Whole segments first, then pages, which are never only named. What is cut off while pages go
 * holds no whole page, so it does not matter whether the walk meets it. */
static enum oom_status release_pool(struct taker *taker, struct oom_pool *pool) {
    struct oom_block *next;
    uint64_t expandable = 0;
    for (struct oom_block *b = oom_free_set_first(&pool->free); b != NULL; b = next) {
        next = oom_free_set_next(&pool->free, b);
        expandable += b->expandable;
        if (collectable(b)) OOM_TRY(taker->take(taker, b));
    }
    return expandable > 0 && taker->take == take_now ? take_pages(taker, pool) : OOM_OK;
}

/* Large before small; of private pools, which must be retired, small before large. */
static enum oom_status release_pools(struct taker *taker, const struct oom_pool_group *defaults) {
    OOM_TRY(release_pool(taker, &defaults->pools[OOM_POOL_LARGE]));
    OOM_TRY(release_pool(taker, &defaults->pools[OOM_POOL_SMALL]));
    for (struct oom_pool_group *group = defaults->next; group != NULL; group = group->next) {
        if (!group->retired) continue;
        OOM_TRY(release_pool(taker, &group->pools[OOM_POOL_SMALL]));
        OOM_TRY(release_pool(taker, &group->pools[OOM_POOL_LARGE]));
    }
    return OOM_OK;
}

static enum oom_status release_all(struct oom_allocator *a, uint64_t *released) {
    struct taker taker = {.take = take_now, .a = a};
    enum oom_status status = release_pools(&taker, &a->group);
    *released += taker.bytes;
    if (status == OOM_OK) oom_pools_sweep(a);
    return status;
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

/* Steps C, D and F. *enough: F gave back so much that the device was worth asking again. */
static enum oom_status steps_before_g(struct oom_allocator *a, struct oom_request *request,
                                      struct taker *taker, struct oom_block **out) {
    struct oom_pool *large = &a->pools[OOM_POOL_LARGE];
    struct collection c = {.pool = large, .searches = large->searches, .gone = INFINITY};
    bool enough;
    OOM_TRY(collect_garbage(a, &c, taker)); /* C */

    enum oom_status status = attempt(a, request, out); /* D */
    if (status != OOM_NOMEM || request->rejected) return status;

    OOM_TRY(release_oversize(a, request, &c, taker, &enough)); /* F */
    return enough ? attempt(a, request, out) : OOM_NOMEM;
}

enum oom_status oom_chain_obtain(struct oom_allocator *a, struct oom_request *request,
                                 struct oom_block **out) {
    struct taker taker = {.take = take_now, .a = a};
    if (oom_is_direct(a)) return attempt(a, request, out);
    enum oom_status status = steps_before_g(a, request, &taker, out);
    request->released += taker.bytes;
    if (status != OOM_NOMEM || request->rejected) return status;
    return step_g(a, request, out);
}

/* ---- foreseeing ---- */

/* The oversize rules of the search do not hold where pages are to be mapped: what they keep back
 * may be taken there without one. */
static bool place_is_mapped(const struct oom_allocator *a, const struct oom_request *request) {
    if (!oom_is_expandable(a) || !oom_chain_may_ask(a, request)) return false;
    const struct oom_block *place = oom_expandable_place(request);
    return place != NULL && place->hold == OOM_HOLD_FREE && place->bytes >= request->size;
}

bool oom_chain_fits(const struct oom_allocator *a, const struct oom_request *request) {
    return find_fit(a, request) != NULL || place_is_mapped(a, request);
}

bool oom_chain_fits_unsearched(const struct oom_allocator *a, const struct oom_request *request,
                               uint64_t address) {
    const struct oom_block *found = find_fit(a, request);
    if (found == NULL || found->address == address) return false;
    return place_is_mapped(a, request) && oom_expandable_place(request)->address == address;
}

void oom_chain_foresee(const struct oom_allocator *a, const struct oom_request *request,
                       void (*visit)(uint64_t address, enum oom_foreseen_step step, void *context),
                       void *context) {
    struct oom_pool *large = &a->group.pools[OOM_POOL_LARGE];
    struct collection c = {.pool = large, .searches = large->searches, .gone = INFINITY};
    struct taker taker = {.take = take_never, .visit = visit, .context = context};
    bool enough;
    if (oom_is_direct(a)) return;
    if (collects_garbage(a)) c.searches += request->pool == large; /* by step A */
    (void)collect_garbage(a, &c, &taker); /* only naming, they cannot fail */
    (void)release_oversize(a, request, &c, &taker, &enough);
}

void oom_chain_foresee_release(const struct oom_allocator *a,
                               void (*visit)(uint64_t address, enum oom_foreseen_step step,
                                             void *context),
                               void *context) {
    struct taker taker = {
        .take = take_never, .visit = visit, .context = context, .step = OOM_FORESEEN_RELEASE};
    (void)release_pools(&taker, &a->group);
}
