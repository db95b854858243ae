/* expandable.c: segments that are ranges of addresses, with memory mapped page by page: finding a
 * place, mapping what is missing, giving whole free pages back.
 *
 * A page is 2 MiB for the small pool, a large segment's size for the large one. A block is mapped
 * from end to end or not at all; neighbours of one kind are always merged. */
#include "harness/memory/internal.h"

#include "kernels/hostmem.h"

typedef unsigned long long ull; /* for printf */

static uint64_t min_u64(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

uint64_t oom_expandable_page(const struct oom_allocator *a, uint8_t kind) {
    return kind == OOM_POOL_SMALL ? OOM_SMALL_SEGMENT : a->settings.large_segment_size;
}

enum oom_status oom_expandable_check(const struct oom_allocator *a) {
    uint64_t page = a->properties.page;
    if (!a->properties.virtual_memory) {
        return oom_fail(OOM_UNSUPPORTED,
                        "expandable_segments:True: device %s has no virtual memory calls",
                        a->properties.name);
    }
    for (uint8_t kind = OOM_POOL_SMALL; kind <= OOM_POOL_LARGE; kind++) {
        uint64_t bytes = oom_expandable_page(a, kind);
        if (page > 0 && bytes % page == 0) continue;
        return oom_fail(OOM_USAGE,
                        "expandable_segments:True: pages of %llu bytes (large_segment_size_mb), "
                        "allowed are multiples of the device's page of %llu bytes",
                        (ull)bytes, (ull)page);
    }
    return OOM_OK;
}

/* ---- records ---- */

/* Addresses to reserve for one segment: what was asked for, at most 9/8 of the device. */
static uint64_t reserve_bytes(const struct oom_allocator *a, uint64_t page) {
    uint64_t total = a->properties.capacity, full = total + total / 8, wanted = full;
    const struct oom_allocator_settings *settings = &a->settings;
    if (settings->expandable_reserve_bytes > 0) {
        wanted = settings->expandable_reserve_bytes;
    } else if (settings->expandable_reserve_fraction > 0) {
        double bytes = settings->expandable_reserve_fraction * (double)total;
        wanted = bytes < (double)full ? (uint64_t)bytes : full;
    }
    return (min_u64(wanted, full) + page - 1) / page * page;
}

uint64_t oom_expandable_reserves(const struct oom_allocator *a, const struct oom_request *request) {
    uint64_t bytes = reserve_bytes(a, oom_expandable_page(a, request->pool->kind));
    return bytes < request->size ? 0 : bytes; /* it could never hold the block */
}

/* ---- unmapped blocks, by (stream, address) ---- */

static struct oom_block *block_of(struct oom_tree_node *node) {
    return (struct oom_block *)node; /* the first member */
}

static bool sorts_after(const struct oom_block *a, const struct oom_block *b) {
    if (a->stream != b->stream) return a->stream > b->stream;
    return a->address > b->address;
}

void oom_unmapped_insert(struct oom_block *block) {
    struct oom_tree *tree = &block->owner->unmapped;
    struct oom_tree_node *parent = NULL, *at = tree->root;
    int side = 0;
    block->hold = OOM_HOLD_UNMAPPED;
    while (at != NULL) {
        parent = at;
        side = sorts_after(block, block_of(at));
        at = at->child[side];
    }
    oom_tree_link(tree, &block->node, parent, side);
    block->owner->unmapped_count++;
}

static void unmapped_remove(struct oom_block *block) {
    oom_tree_unlink(&block->owner->unmapped, &block->node);
    block->owner->unmapped_count--;
}

static struct oom_block *first_unmapped(const struct oom_pool *pool, uint16_t stream) {
    struct oom_tree_node *found = NULL, *at = pool->unmapped.root;
    while (at != NULL) {
        bool reached = block_of(at)->stream >= stream;
        if (reached) found = at;
        at = at->child[!reached];
    }
    return found != NULL && block_of(found)->stream == stream ? block_of(found) : NULL;
}

static struct oom_block *next_unmapped(const struct oom_block *block) {
    struct oom_tree_node *node = oom_tree_step(&block->node, 1);
    return node != NULL && block_of(node)->stream == block->stream ? block_of(node) : NULL;
}

/* The table of pages grows with what is mapped: addresses are reserved for far more than there is.
 */
static enum oom_status make_room(struct oom_segment *segment, uint64_t pages) {
    if (pages <= segment->room) return OOM_OK;
    uint64_t room = pages > 2 * segment->room ? pages : 2 * segment->room;
    struct oom_page *table = oom_host_realloc(segment->pages, room * sizeof *table);
    if (table == NULL) {
        return oom_fail(OOM_HOST_NOMEM, "allocator: no host memory for a segment of %llu pages",
                        (ull)room);
    }
    for (uint64_t i = segment->room; i < room; i++) table[i] = (struct oom_page){0};
    segment->pages = table;
    segment->room = room;
    return OOM_OK;
}

/* A block begins in or before an unmapped range and ends, rounded to pages, no further behind its
 * beginning than its own size; what a release unmaps lies lower still. */
enum oom_status oom_expandable_prepare(struct oom_allocator *a, const struct oom_request *request) {
    uint64_t page = oom_expandable_page(a, request->pool->kind), pages = request->size / page + 2;
    if (a->spare_expandable == NULL) {
        a->spare_expandable = oom_host_calloc(1, sizeof *a->spare_expandable);
        if (a->spare_expandable == NULL) {
            return oom_fail(OOM_HOST_NOMEM, "allocator: no host memory for a segment's record");
        }
    }
    OOM_TRY(make_room(a->spare_expandable, pages));
    for (struct oom_block *c = first_unmapped(request->pool, request->stream); c != NULL;
         c = next_unmapped(c)) {
        struct oom_segment *segment = c->segment;
        uint64_t last = segment->bytes / page;
        uint64_t wanted = (c->address - segment->address) / page + pages;
        OOM_TRY(make_room(segment, min_u64(wanted, last)));
    }
    return OOM_OK;
}

/* Merges with neighbours of its own kind, free or unmapped; it is in no set, nor is the result. */
static struct oom_block *merge(struct oom_allocator *a, struct oom_block *block) {
    struct oom_block *neighbours[] = {block->prev, block->next};
    for (int i = 0; i < 2; i++) {
        struct oom_block *other = neighbours[i];
        if (other == NULL || other->hold != block->hold) continue;
        if (block->hold == OOM_HOLD_UNMAPPED)
            unmapped_remove(other);
        else
            oom_free_set_remove(&other->owner->free, other);
        if (i == 0) block = other;
        oom_block_absorb_next(&a->blocks, block);
    }
    return block;
}

/* ---- pages ---- */

static enum oom_status drop_mapping(struct oom_allocator *a, const struct oom_segment *segment,
                                    uint64_t index) {
    return a->device->api->unmap(a->device, segment->address + index * segment->page,
                                 segment->page);
}

/* Undoes what of [first, last) was made; a page that the device will not unmap stays as it is. */
static void roll_back(struct oom_allocator *a, struct oom_segment *segment, uint64_t first,
                      uint64_t last) {
    for (uint64_t i = first; i < last; i++) {
        struct oom_page *page = &segment->pages[i];
        if (page->handle == 0) continue;
        if (page->mapped && drop_mapping(a, segment, i) != OOM_OK) continue;
        page->mapped = false;
        if (!oom_twin_shares(segment, i)) (void)a->device->api->release(a->device, page->handle);
        page->handle = 0;
    }
}

/* *made counts the handles; pages behind those may have one of an earlier call. */
static enum oom_status create_pages(struct oom_allocator *a, struct oom_segment *segment,
                                    uint64_t first, uint64_t last, uint64_t *made) {
    *made = 0;
    for (uint64_t i = first; i < last; i++) {
        if (segment->pages[i].handle != 0) {
            return oom_fail(OOM_DEVICE,
                            "expandable segment at 0x%llx: page %llu has a handle that an earlier, "
                            "failed mapping left behind (pytorch#188008; profile 'fixed' rolls "
                            "back)",
                            (ull)segment->address, (ull)i);
        }
        segment->pages[i].handle = oom_twin_handle(segment, i);
        if (segment->pages[i].handle == 0) {
            OOM_TRY(a->device->api->create(a->device, segment->page, &segment->pages[i].handle));
        }
        ++*made;
    }
    return OOM_OK;
}

static enum oom_status map_pages(struct oom_allocator *a, struct oom_segment *segment,
                                 uint64_t first, uint64_t last) {
    uint64_t address = segment->address + first * segment->page;
    for (uint64_t i = first; i < last; i++) {
        OOM_TRY(a->device->api->map(a->device, segment->address + i * segment->page, segment->page,
                                    segment->pages[i].handle));
        segment->pages[i].mapped = true;
    }
    return a->device->api->set_access(a->device, address, (last - first) * segment->page,
                                      OOM_ACCESS_READ_WRITE);
}

/* A device that is full while it maps is a driver error in PyTorch and not an OOM. */
static enum oom_status raise_as_driver_error(bool recorded) {
    struct oom_failure failure = *oom_failure_last();
    if (!recorded) oom_failure_clear();
    return oom_fail(OOM_DEVICE,
                    "expandable segment: mapping failed (%.160s): a driver error in PyTorch, not "
                    "an OOM, and its pages are lost (pytorch#188008; profile 'fixed' rolls back)",
                    failure.message);
}

/* All of [first, last) or nothing, but where PyTorch itself stops half-way: there the profiles that
 * model it leave behind what it leaves. A record of failure is kept only for what is no OOM. */
static enum oom_status obtain_pages(struct oom_allocator *a, struct oom_segment *segment,
                                    uint64_t first, uint64_t last) {
    bool recorded = oom_failure_last()->status != OOM_OK;
    uint64_t made;
    enum oom_status status = create_pages(a, segment, first, last, &made);
    if (status == OOM_OK) {
        status = map_pages(a, segment, first, last);
        if (status == OOM_NOMEM && !oom_is_fixed(a)) status = raise_as_driver_error(recorded);
    }
    if (status == OOM_OK) return OOM_OK;
    if (status == OOM_NOMEM || status == OOM_HOST_NOMEM || oom_is_fixed(a)) {
        roll_back(a, segment, first, first + made);
        if (status == OOM_NOMEM && !recorded) oom_failure_clear();
    }
    return status;
}

/* ---- segments ---- */

/* Addresses are not memory: where there are none left PyTorch raises a driver error. */
static enum oom_status reserve_addresses(struct oom_allocator *a, uint64_t bytes, oom_devptr *out) {
    bool recorded = oom_failure_last()->status != OOM_OK;
    enum oom_status status = a->device->api->reserve(a->device, bytes, out);
    if (status != OOM_NOMEM) return status;
    if (!recorded) oom_failure_clear();
    if (oom_is_fixed(a)) return OOM_NOMEM;
    return oom_fail(OOM_DEVICE,
                    "expandable segment: the device has no %llu bytes of addresses left: a driver "
                    "error in PyTorch, not an OOM (expandable_segments_reserve makes them fewer)",
                    (ull)bytes);
}

static enum oom_status new_segment(struct oom_allocator *a, const struct oom_request *request,
                                   struct oom_block **out) {
    struct oom_pool *pool = request->pool;
    uint64_t bytes = oom_expandable_reserves(a, request);
    struct oom_segment *segment = a->spare_expandable;
    oom_devptr address = 0;
    if (bytes == 0) return OOM_NOMEM;
    OOM_TRY(reserve_addresses(a, bytes, &address));
    a->spare_expandable = NULL;
    segment->address = address;
    segment->bytes = bytes;
    segment->owner = pool;
    segment->stream = request->stream;
    segment->pool = pool->kind;
    segment->expandable = true;
    segment->page = oom_expandable_page(a, pool->kind);
    segment->mapped = 0; /* and no page has a handle */
    if (!oom_segment_link(a, segment)) {
        a->spare_expandable = segment;
        return oom_fail(OOM_DEVICE, "the device reserved 0x%llx, which it had given before",
                        (ull)address);
    }
    *out = oom_segment_block(a, segment);
    oom_unmapped_insert(*out);
    return OOM_OK;
}

/* `block`, unmapped, covers its whole segment. */
static enum oom_status drop_segment(struct oom_allocator *a, struct oom_block *block) {
    struct oom_segment *segment = block->segment;
    for (uint64_t i = 0; i < segment->room; i++) {
        if (segment->pages[i].handle != 0)
            return OOM_OK; /* PyTorch lost it: not to be given back */
    }
    OOM_TRY(a->device->api->unreserve(a->device, segment->address, segment->bytes));
    unmapped_remove(block);
    oom_block_give(&a->blocks, block);
    oom_segment_forget(a, segment);
    return OOM_OK;
}

void oom_expandable_abandon(struct oom_allocator *a, struct oom_segment *segment) {
    roll_back(a, segment, 0, segment->room);
    (void)a->device->api->unreserve(a->device, segment->address, segment->bytes);
}

/* ---- mapping ---- */

/* Maps the first `bytes` of an unmapped block, rounded up to pages, and merges what became free
 * with its free neighbours; *block is the result, in the free set. */
static enum oom_status map_block(struct oom_allocator *a, const struct oom_request *request,
                                 struct oom_block **block, uint64_t bytes) {
    struct oom_block *mapped = *block;
    struct oom_segment *segment = mapped->segment;
    uint64_t address = mapped->address, page = segment->page;
    uint64_t first = (address - segment->address) / page;
    uint64_t last = first + (bytes + page - 1) / page;
    if (!oom_device_may_give(a, request)) return OOM_NOMEM;
    OOM_TRY(obtain_pages(a, segment, first, last));

    bytes = (last - first) * page;
    unmapped_remove(mapped);
    if (bytes < mapped->bytes) oom_unmapped_insert(oom_block_cut(&a->blocks, mapped, bytes));
    mapped->hold = OOM_HOLD_FREE;
    *block = merge(a, mapped);
    oom_chain_make_free(*block);

    segment->mapped += bytes;
    a->mapped_pages += last - first;
    a->stats.num_device_alloc++;
    oom_count_reserved_up(a, segment->owner, bytes);
    oom_allocator_record(a, OOM_ACTION_SEGMENT_MAP, address, bytes, segment->stream,
                         segment->owner->number, request->site, request->tag);
    return OOM_OK;
}

static bool may_be_filled(const struct oom_block *block) {
    return block != NULL && (block->hold == OOM_HOLD_FREE || block->hold == OOM_HOLD_UNMAPPED);
}

/* The lowest address from where free and unmapped neighbours together hold the block. */
struct oom_block *oom_expandable_place(const struct oom_request *request) {
    for (struct oom_block *c = first_unmapped(request->pool, request->stream); c != NULL;
         c = next_unmapped(c)) {
        struct oom_block *start = may_be_filled(c->prev) ? c->prev : c;
        uint64_t bytes = 0;
        for (struct oom_block *b = start; may_be_filled(b); b = b->next) {
            bytes += b->bytes;
            if (bytes >= request->size) return start;
        }
    }
    return NULL;
}

enum oom_status oom_expandable_obtain(struct oom_allocator *a, const struct oom_request *request,
                                      struct oom_block **out) {
    if (request->refused) return OOM_NOMEM;
    struct oom_block *block = oom_expandable_place(request);
    if (block == NULL) OOM_TRY(new_segment(a, request, &block));
    if (block->hold == OOM_HOLD_UNMAPPED) {
        OOM_TRY(map_block(a, request, &block, min_u64(block->bytes, request->size)));
    }
    while (block->bytes < request->size) { /* what follows is unmapped: all else is merged */
        uint64_t missing = request->size - block->bytes;
        block = block->next;
        OOM_TRY(map_block(a, request, &block, min_u64(block->bytes, missing)));
    }
    oom_free_set_remove(&request->pool->free, block);
    *out = block;
    return OOM_OK;
}

/* ---- unmapping ---- */

/* How many pages of [first, last) went; the rest is as before when the device refuses one. */
static enum oom_status unmap_pages(struct oom_allocator *a, struct oom_segment *segment,
                                   uint64_t first, uint64_t last, uint64_t *done) {
    *done = 0;
    OOM_TRY(a->device->api->stream_sync(a->device, a->streams[segment->stream]));
    for (uint64_t i = first; i < last; i++) {
        struct oom_page *page = &segment->pages[i];
        OOM_TRY(drop_mapping(a, segment, i));
        page->mapped = false;
        ++*done;
        if (!oom_twin_shares(segment, i)) {
            OOM_TRY(a->device->api->release(a->device, page->handle));
        }
        page->handle = 0;
    }
    return OOM_OK;
}

enum oom_status oom_expandable_release(struct oom_allocator *a, struct oom_block *block,
                                       uint64_t *released) {
    struct oom_segment *segment = block->segment;
    uint64_t page = segment->page, offset = block->address - segment->address, done;
    uint64_t first = (offset + page - 1) / page, last = (offset + block->bytes) / page;
    if (first >= last) return OOM_OK;
    enum oom_status status = unmap_pages(a, segment, first, last, &done);
    if (done == 0) return status;
    if (status == OOM_OK) status = oom_twin_unmap(a, segment, offset);

    uint64_t bytes = done * page, address = segment->address + first * page;
    oom_free_set_remove(&block->owner->free, block);
    if (address > block->address) {
        struct oom_block *front = block;
        block = oom_block_cut(&a->blocks, front, address - front->address);
        oom_chain_make_free(front);
    }
    if (block->bytes > bytes) oom_chain_make_free(oom_block_cut(&a->blocks, block, bytes));
    block->hold = OOM_HOLD_UNMAPPED;
    block = merge(a, block);
    oom_unmapped_insert(block);

    segment->mapped -= bytes;
    a->mapped_pages -= done;
    a->stats.num_device_free++;
    *released += bytes;
    oom_count_reserved_down(a, segment->owner, bytes);
    oom_allocator_record(a, OOM_ACTION_SEGMENT_UNMAP, address, bytes, segment->stream,
                         segment->owner->number, 0, OOM_TAG_OTHER);
    if (status == OOM_OK && !oom_block_is_split(block)) status = drop_segment(a, block);
    return status;
}
