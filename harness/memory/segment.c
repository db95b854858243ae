/* segment.c: whole segments, as cudaMalloc gives them, and the tree of all segments. */
#include "harness/memory/internal.h"

#include "kernels/hostmem.h"

/* ---- records ---- */

bool oom_segment_link(struct oom_allocator *a, struct oom_segment *segment) {
    struct oom_tree_node *parent = NULL, *at = a->segments.root;
    int side = 0;
    while (at != NULL) {
        const struct oom_segment *other = (struct oom_segment *)at;
        parent = at;
        side = segment->address > other->address;
        uint64_t between =
            side ? segment->address - other->address : other->address - segment->address;
        if (between < (side ? other->bytes : segment->bytes)) return false;
        at = at->child[side];
    }
    oom_tree_link(&a->segments, &segment->node, parent, side);
    /* In profile 2.11 age does not count: equal counters leave the order to the address. */
    segment->counter = a->settings.profile == OOM_PROFILE_PYTORCH_2_11 ? 0 : a->next_counter++;
    segment->owner->group->segments++;
    return true;
}

struct oom_block *oom_segment_block(struct oom_allocator *a, struct oom_segment *segment) {
    struct oom_block *block = oom_block_take(&a->blocks);
    *block = (struct oom_block){.address = segment->address,
                                .bytes = segment->bytes,
                                .counter = segment->counter,
                                .stream = segment->stream,
                                .pool = segment->pool,
                                .expandable = segment->expandable,
                                .segment = segment,
                                .owner = segment->owner};
    segment->first = block;
    return block;
}

void oom_segment_forget(struct oom_allocator *a, struct oom_segment *segment) {
    struct oom_segment **spare = segment->expandable ? &a->spare_expandable : &a->spare_segment;
    oom_tree_unlink(&a->segments, &segment->node);
    segment->owner->group->segments--;
    if (*spare == NULL)
        *spare = segment;
    else
        oom_segment_discard(segment);
}

void oom_segment_discard(struct oom_segment *segment) {
    if (segment != NULL) oom_host_free(segment->pages);
    oom_host_free(segment);
}

enum oom_status oom_segment_prepare(struct oom_allocator *a) {
    if (a->spare_segment == NULL) a->spare_segment = oom_host_calloc(1, sizeof *a->spare_segment);
    if (a->spare_segment != NULL) return OOM_OK;
    return oom_fail(OOM_HOST_NOMEM, "allocator: no host memory for a segment's record");
}

/* ---- the device ---- */

bool oom_device_may_give(struct oom_allocator *a, const struct oom_request *request) {
    if (a->fail_device > 0 && --a->fail_device == 0) return false;
    return !request->refused;
}

/* The device's own OOM is an answer here: it leaves no failure record behind, as the next step of
 * the chain may cure it. A record made before this call stays. */
static enum oom_status ask_device(struct oom_allocator *a, const struct oom_request *request,
                                  oom_devptr *out) {
    if (!oom_device_may_give(a, request)) return OOM_NOMEM;
    bool recorded = oom_failure_last()->status != OOM_OK;
    enum oom_status status = a->device->api->alloc(a->device, request->segment_bytes, out);
    if (status == OOM_NOMEM && !recorded) oom_failure_clear();
    return status;
}

enum oom_status oom_segment_obtain(struct oom_allocator *a, const struct oom_request *request,
                                   struct oom_block **out) {
    struct oom_segment *segment = a->spare_segment;
    uint64_t bytes = request->segment_bytes;
    oom_devptr address = 0;
    OOM_TRY(ask_device(a, request, &address));
    *segment = (struct oom_segment){.address = address,
                                    .bytes = bytes,
                                    .owner = request->pool,
                                    .stream = request->stream,
                                    .pool = request->pool->kind};
    if (!oom_segment_link(a, segment)) {
        return oom_fail(OOM_DEVICE, "the device gave 0x%llx, which it had given before",
                        (unsigned long long)address);
    }
    a->spare_segment = NULL;
    *out = oom_segment_block(a, segment);
    OOM_COUNT_UP(a, segment, segment->pool, 1);
    if (bytes >= a->settings.max_split_size) oom_counter_up(&a->stats.oversize_segments, 1);
    a->stats.num_device_alloc++;
    oom_count_reserved_up(a, segment->owner, bytes);
    oom_allocator_record(a, OOM_ACTION_SEGMENT_ALLOC, address, bytes, request->stream,
                         request->pool->number, request->site, request->tag);
    return OOM_OK;
}

enum oom_status oom_segment_release(struct oom_allocator *a, struct oom_block *block,
                                    uint64_t *released) {
    OOM_TRY(a->device->api->free(a->device, block->address));
    oom_segment_gone(a, block, released);
    return OOM_OK;
}

void oom_segment_gone(struct oom_allocator *a, struct oom_block *block, uint64_t *released) {
    struct oom_segment *segment = block->segment;
    a->stats.num_device_free++;
    *released += segment->bytes;
    OOM_COUNT_DOWN(a, segment, segment->pool, 1);
    oom_count_reserved_down(a, segment->owner, segment->bytes);
    if (segment->bytes >= a->settings.max_split_size) {
        oom_counter_down(&a->stats.oversize_segments, 1);
    }
    oom_allocator_record(a, OOM_ACTION_SEGMENT_FREE, segment->address, segment->bytes,
                         segment->stream, segment->owner->number, 0, OOM_TAG_OTHER);
    oom_block_give(&a->blocks, block);
    oom_segment_forget(a, segment);
}
