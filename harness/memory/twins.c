/* twins.c: the allocator's wrong twins: what it would look like if its books were right and its
 * memory was not. Each is switched on by a control (harness/base/control.h) and does nothing else.
 */
#include "harness/memory/internal.h"

#include "harness/base/control.h"

/* ---- a block handed out twice: what a free set does that keeps a block it gave away ---- */

/* The address that the caller gets for `block`: that of the large block handed out before it, while
 * both live. */
oom_devptr oom_twin_hand_out(struct oom_allocator *a, const struct oom_block *block) {
    enum { LARGE = 64 << 10 }; /* bytes: what a step is made of, not its vectors */
    if (block->tag != OOM_TAG_ACTIVATION || block->bytes < LARGE) return block->address;
    const struct oom_block *before = oom_live_table_find(&a->live, a->twice.last);
    bool lives = before != NULL && before != block && before->bytes >= block->bytes;
    a->twice.last = block->address;
    if (!lives || a->twice.given != 0) return block->address;
    a->twice.given = before->address;
    a->twice.meant = block->address;
    return before->address;
}

/* The block that a free of `address` is for: of two at one address the later one first. */
oom_devptr oom_twin_take_back(struct oom_allocator *a, oom_devptr address) {
    if (a->twice.given == 0 || address != a->twice.given) return address;
    a->twice.given = 0;
    return a->twice.meant;
}

/* ---- a segment unmapped while live: rounding to pages outward, not inward ---- */

enum oom_status oom_twin_unmap(struct oom_allocator *a, const struct oom_segment *segment,
                               uint64_t offset) {
    if (!oom_control_on(OOM_CONTROL_UNMAPPED_LIVE) || offset % segment->page == 0) return OOM_OK;
    return a->device->api->unmap(
        a->device, segment->address + offset / segment->page * segment->page, segment->page);
}

/* ---- a page mapped twice: a stale handle after a remap ---- */

/* A handle that another page of the segment has already; 0: none. */
oom_handle oom_twin_handle(const struct oom_segment *segment, uint64_t index) {
    if (!oom_control_on(OOM_CONTROL_PAGE_TWICE)) return 0;
    for (uint64_t i = 0; i < segment->room; i++) {
        if (i != index && segment->pages[i].handle != 0) return segment->pages[i].handle;
    }
    return 0;
}

/* Another page still has this one's handle: it is not to be released yet. */
bool oom_twin_shares(const struct oom_segment *segment, uint64_t index) {
    if (!oom_control_on(OOM_CONTROL_PAGE_TWICE)) return false;
    for (uint64_t i = 0; i < segment->room; i++) {
        if (i != index && segment->pages[i].handle == segment->pages[index].handle) return true;
    }
    return false;
}
