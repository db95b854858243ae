/* drive.c: the state that a replay begins with, built from a description; and what it may ask. */
#include "harness/memory/drive.h"

#include "harness/memory/internal.h"
#include "kernels/hostmem.h"

typedef unsigned long long ull; /* for printf */

enum oom_status oom_allocator_stream_add(struct oom_allocator *a, struct oom_stream *stream) {
    for (uint32_t i = 0; i < a->stream_count; i++) {
        if (a->streams[i] == stream) {
            return oom_fail(OOM_INVALID, "stream_add: the stream has number %u already",
                            (unsigned)i);
        }
    }
    uint16_t number;
    return oom_stream_number(a, stream, &number);
}

/* ---- what a replay may ask ---- */

/* False: no such pool or stream was ever used, so nothing is cached there. */
static bool plan(const struct oom_allocator *a, struct oom_pool_id pool, uint64_t stream,
                 uint64_t bytes, struct oom_request *out) {
    const struct oom_pool_group *group = oom_pool_group_look(a, pool);
    *out = (struct oom_request){.bytes = bytes, .stream = (uint16_t)stream};
    if (group == NULL || stream >= a->stream_count) return false;
    if (bytes == 0 || bytes >= OOM_EXABYTE) return false;
    oom_request_plan(a, group, out);
    return true;
}

bool oom_allocator_fits(const struct oom_allocator *a, struct oom_pool_id pool, uint64_t stream,
                        uint64_t bytes) {
    struct oom_request request;
    return plan(a, pool, stream, bytes, &request) && oom_chain_fits(a, &request);
}

bool oom_allocator_fits_unsearched(const struct oom_allocator *a, struct oom_pool_id pool,
                                   uint64_t stream, uint64_t bytes, uint64_t address) {
    struct oom_request request;
    address -= a->settings.guard_bytes;
    return plan(a, pool, stream, bytes, &request) &&
           oom_chain_fits_unsearched(a, &request, address);
}

uint64_t oom_allocator_new_range(const struct oom_allocator *a, struct oom_pool_id pool,
                                 uint64_t stream, uint64_t bytes) {
    struct oom_request request;
    if (!oom_is_expandable(a)) return 0;
    bool used = plan(a, pool, stream, bytes, &request);
    if (!used && (bytes == 0 || bytes >= OOM_EXABYTE)) return 0;
    if (!used) oom_request_plan(a, &a->group, &request); /* a new pool has the same sizes */
    if (used && oom_expandable_place(&request) != NULL) return 0;
    return oom_chain_may_ask(a, &request) ? oom_expandable_reserves(a, &request) : 0;
}

void oom_allocator_foresee(
    const struct oom_allocator *a, struct oom_pool_id pool, uint64_t stream, uint64_t bytes,
    void (*visit)(uint64_t address, enum oom_foreseen_step step, void *context), void *context) {
    struct oom_request request;
    if (plan(a, pool, stream, bytes, &request)) oom_chain_foresee(a, &request, visit, context);
}

void oom_allocator_foresee_release(const struct oom_allocator *a,
                                   void (*visit)(uint64_t address, enum oom_foreseen_step step,
                                                 void *context),
                                   void *context) {
    oom_chain_foresee_release(a, visit, context);
}

void oom_allocator_skip_search(struct oom_allocator *a) {
    a->skip_search = true;
}

void oom_allocator_pool_last(struct oom_allocator *a, struct oom_pool_id pool) {
    struct oom_pool_group **link = &a->group.next;
    while (*link != NULL && ((*link)->id.a != pool.a || (*link)->id.b != pool.b)) {
        link = &(*link)->next;
    }
    struct oom_pool_group *group = *link;
    if (group == NULL) return;
    *link = group->next;
    while (*link != NULL) link = &(*link)->next;
    group->next = NULL;
    *link = group;
}

bool oom_allocator_block_place(const struct oom_allocator *a, uint64_t address,
                               struct oom_place *out) {
    address -= a->settings.guard_bytes;
    const struct oom_block *block = oom_live_table_find(&a->live, address);
    if (block == NULL && a->held_table.buckets != NULL) {
        block = oom_live_table_find(&a->held_table, address);
    }
    if (block == NULL) return false;
    *out =
        (struct oom_place){block->stream, block->owner->group->id, block->pool == OOM_POOL_SMALL};
    return true;
}

bool oom_allocator_segment_place(const struct oom_allocator *a, uint64_t address,
                                 struct oom_place *out) {
    const struct oom_tree_node *at = a->segments.root;
    while (at != NULL) {
        const struct oom_segment *segment = (const struct oom_segment *)at;
        if (address >= segment->address && address - segment->address < segment->bytes) {
            *out = (struct oom_place){segment->stream, segment->owner->group->id,
                                      segment->pool == OOM_POOL_SMALL};
            return true;
        }
        at = at->child[address > segment->address];
    }
    return false;
}

bool oom_allocator_overlaps(const struct oom_allocator *a, uint64_t address, uint64_t bytes) {
    const struct oom_tree_node *at = a->segments.root;
    while (at != NULL) {
        const struct oom_segment *segment = (const struct oom_segment *)at;
        bool above = address > segment->address;
        if (above ? address - segment->address < segment->bytes
                  : segment->address - address < bytes) {
            return true;
        }
        at = at->child[above];
    }
    return false;
}

/* ---- what a start must be ---- */

static enum oom_status impossible(const struct oom_start_segment *s, const char *what) {
    return oom_fail(OOM_INVALID, "start: segment 0x%llx of %llu bytes %s", (ull)s->address,
                    (ull)s->bytes, what);
}

static bool merges(const struct oom_start_block *a, const struct oom_start_block *b) {
    return a->state == b->state && (a->state == OOM_START_FREE || a->state == OOM_START_UNMAPPED);
}

static enum oom_status check_blocks(const struct oom_start_segment *s, uint64_t page) {
    uint64_t at = s->address;
    for (uint64_t i = 0; i < s->block_count; i++) {
        const struct oom_start_block *b = &s->blocks[i];
        bool unmapped = b->state == OOM_START_UNMAPPED;
        if ((unsigned)b->state > OOM_START_UNMAPPED || (unmapped && !s->expandable)) {
            return impossible(s, "has a block in a state that it cannot have");
        }
        if (b->address != at || b->bytes == 0 || b->bytes > s->address + s->bytes - at ||
            b->bytes % OOM_MIN_BLOCK != 0 || b->requested > b->bytes) {
            return impossible(s, "has blocks that leave gaps, overlap, or are no multiples of 512");
        }
        if (unmapped && ((b->address - s->address) % page != 0 || b->bytes % page != 0)) {
            return impossible(s, "has an unmapped range that is not whole pages");
        }
        if (i > 0 && merges(b, b - 1)) return impossible(s, "has free neighbours not merged");
        at += b->bytes;
    }
    return at == s->address + s->bytes ? OOM_OK : impossible(s, "has blocks that end elsewhere");
}

static enum oom_status check_segment(const struct oom_allocator *a,
                                     const struct oom_start_segment *s) {
    uint64_t page = s->expandable
                        ? oom_expandable_page(a, s->small_pool ? OOM_POOL_SMALL : OOM_POOL_LARGE)
                        : OOM_MIN_BLOCK;
    if (s->stream >= a->stream_count) return impossible(s, "is of a stream that was not added");
    if (s->address == 0 || s->address % OOM_MIN_BLOCK != 0 || s->bytes == 0 ||
        s->bytes % page != 0 || s->bytes > UINT64_MAX - s->address) {
        return impossible(s, "is not aligned, or no multiple of its page");
    }
    return check_blocks(s, page);
}

/* ---- records ---- */

static enum oom_status make_segment(struct oom_allocator *a, const struct oom_start_segment *s) {
    uint8_t kind = s->small_pool ? OOM_POOL_SMALL : OOM_POOL_LARGE;
    uint64_t page = s->expandable ? oom_expandable_page(a, kind) : 0;
    uint64_t pages = s->expandable ? s->bytes / page : 0;
    struct oom_pool_group *group;
    OOM_TRY(oom_pool_group_find(a, s->pool, &group));
    struct oom_segment *segment = oom_host_calloc(1, sizeof *segment);
    if (segment != NULL && pages > 0) {
        segment->pages = oom_host_calloc(pages, sizeof *segment->pages);
        segment->room = pages;
    }
    if (segment == NULL || (pages > 0 && segment->pages == NULL)) {
        oom_segment_discard(segment);
        return oom_fail(OOM_HOST_NOMEM, "start: no host memory for a segment");
    }
    segment->address = s->address;
    segment->bytes = s->bytes;
    segment->owner = &group->pools[kind];
    segment->stream = (uint16_t)s->stream;
    segment->pool = kind;
    segment->expandable = s->expandable;
    segment->page = page;
    if (oom_segment_link(a, segment)) return OOM_OK;
    oom_segment_discard(segment);
    return impossible(s, "overlaps another one");
}

static struct oom_segment *segment_at(const struct oom_allocator *a, uint64_t address) {
    struct oom_tree_node *at = a->segments.root;
    while (((struct oom_segment *)at)->address != address) {
        at = at->child[address > ((struct oom_segment *)at)->address];
    }
    return (struct oom_segment *)at;
}

/* The records alone: nothing is counted yet. */
static void undo_segments(struct oom_allocator *a) {
    struct oom_tree_node *node;
    while ((node = oom_tree_end(&a->segments, 0)) != NULL) {
        ((struct oom_segment *)node)->owner->group->segments--;
        oom_tree_unlink(&a->segments, node);
        oom_segment_discard((struct oom_segment *)node);
    }
    a->next_counter = 0;
}

static enum oom_status prepare(struct oom_allocator *a, const struct oom_start_segment *segments,
                               uint64_t count) {
    uint64_t blocks = 0, pending = 0;
    uint32_t site;
    for (uint64_t i = 0; i < count; i++) {
        OOM_TRY(check_segment(a, &segments[i]));
        blocks += segments[i].block_count;
        for (uint64_t j = 0; j < segments[i].block_count; j++) {
            OOM_TRY(oom_site_intern(&a->sites, segments[i].blocks[j].site, &site));
            pending += segments[i].blocks[j].state == OOM_START_PENDING;
        }
    }
    OOM_TRY(oom_block_store_reserve(&a->blocks, blocks));
    OOM_TRY(oom_pending_hold_prepare(a, pending));
    for (uint64_t i = 0; i < count; i++) OOM_TRY(make_segment(a, &segments[i]));
    return OOM_OK;
}

/* ---- state ---- */

static void set_state(struct oom_allocator *a, struct oom_block *block,
                      const struct oom_start_block *b) {
    block->requested = b->requested;
    block->tag = OOM_TAG_OTHER;
    (void)oom_site_intern(&a->sites, b->site, &block->site); /* known by now */
    switch (b->state) {
    case OOM_START_UNMAPPED:
        oom_unmapped_insert(block);
        return;
    case OOM_START_FREE:
        oom_chain_make_free(block);
        if (!block->expandable && oom_block_is_split(block)) {
            oom_count_inactive_split(a, block->pool, 1, (int64_t)block->bytes);
        }
        return;
    case OOM_START_ALLOCATED:
    case OOM_START_PENDING:
        oom_count_handed_out(a, block);
        block->hold = OOM_HOLD_LIVE;
        if (b->state == OOM_START_ALLOCATED) {
            oom_live_table_add(&a->live, block);
        } else {
            oom_count_free_requested(a, block);
            oom_pending_hold(a, block);
        }
        return;
    }
}

/* The device is not asked: the handle of a page that is held already is the page's address. */
static void set_pages(struct oom_allocator *a, struct oom_segment *segment,
                      const struct oom_start_segment *s) {
    uint64_t block = 0;
    for (uint64_t i = 0; i < s->bytes / segment->page; i++) {
        uint64_t address = s->address + i * segment->page;
        while (s->blocks[block].address + s->blocks[block].bytes <= address) block++;
        if (s->blocks[block].state == OOM_START_UNMAPPED) continue;
        segment->pages[i] = (struct oom_page){.handle = address, .mapped = true};
        segment->mapped += segment->page;
        a->mapped_pages++;
    }
}

static void fill_segment(struct oom_allocator *a, const struct oom_start_segment *s) {
    struct oom_segment *segment = segment_at(a, s->address);
    struct oom_block *block = oom_segment_block(a, segment);
    if (s->expandable) {
        set_pages(a, segment, s);
    } else {
        OOM_COUNT_UP(a, segment, segment->pool, 1);
        if (s->bytes >= a->settings.max_split_size) {
            oom_counter_up(&a->stats.oversize_segments, 1);
        }
    }
    oom_count_reserved_up(a, segment->owner, s->expandable ? segment->mapped : s->bytes);
    for (uint64_t i = 1; i < s->block_count; i++) { /* links first: whether split depends on them */
        block = oom_block_cut(&a->blocks, block, s->blocks[i - 1].bytes);
    }
    block = segment->first;
    for (uint64_t i = 0; i < s->block_count; i++, block = block->next) {
        set_state(a, block, &s->blocks[i]);
    }
}

enum oom_status oom_allocator_start(struct oom_allocator *a,
                                    const struct oom_start_segment *segments, uint64_t count) {
    if (a->segments.root != NULL || a->stats.allocations > 0) {
        return oom_fail(OOM_INVALID, "start: the allocator has been used");
    }
    enum oom_status status = prepare(a, segments, count);
    if (status != OOM_OK) {
        undo_segments(a);
        return status;
    }
    for (uint64_t i = 0; i < count; i++) fill_segment(a, &segments[i]);
    oom_count_utilization(a);
    oom_allocator_reset_peaks(a); /* pending blocks were never allocated here */
    return OOM_OK;
}
