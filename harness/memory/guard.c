/* guard.c: guard regions around every block. A block is [guard | what the caller has | guard |
 * rest]; each guard byte depends on its own address, so that a copied or shifted region shows too.
 */
#include "harness/memory/internal.h"

#include <stdio.h>

enum { CHUNK = 4096 };

static uint8_t pattern(uint64_t address) {
    return (uint8_t)((address * 0x9e3779b97f4a7c15u) >> 56);
}

static bool in_use(const struct oom_allocator *a) {
    return a->settings.guard_bytes > 0 && a->properties.computes;
}

static uint64_t chunk_at(const struct oom_allocator *a, uint64_t done) {
    uint64_t left = a->settings.guard_bytes - done;
    return left < CHUNK ? left : CHUNK;
}

static uint64_t region(const struct oom_allocator *a, const struct oom_block *block, int side) {
    return side == 0 ? block->address : block->address + a->settings.guard_bytes + block->requested;
}

enum oom_status oom_guard_write(struct oom_allocator *a, const struct oom_block *block) {
    uint8_t bytes[CHUNK];
    if (!in_use(a)) return OOM_OK;
    for (int side = 0; side < 2; side++) {
        uint64_t start = region(a, block, side);
        for (uint64_t done = 0; done < a->settings.guard_bytes; done += CHUNK) {
            uint64_t n = chunk_at(a, done);
            for (uint64_t i = 0; i < n; i++) bytes[i] = pattern(start + done + i);
            OOM_TRY(a->device->api->upload(a->device, start + done, bytes, n,
                                           a->streams[block->stream]));
        }
    }
    return OOM_OK;
}

static void describe(struct oom_allocator *a, const struct oom_block *block, int side,
                     uint64_t offset) {
    uint64_t distance = side == 0 ? a->settings.guard_bytes - offset : offset + 1;
    snprintf(a->guards_first, sizeof a->guards_first,
             "guard damaged %llu byte%s %s the block at 0x%llx of %llu bytes (%s, %s)",
             (unsigned long long)distance, distance == 1 ? "" : "s",
             side == 0 ? "before" : "after the end of",
             (unsigned long long)(block->address + a->settings.guard_bytes),
             (unsigned long long)block->requested, oom_site_name(&a->sites, block->site),
             oom_tag_name((enum oom_tag)block->tag));
}

/* *found: a byte of this region changed; the one nearest to the block is described. */
static enum oom_status read_side(struct oom_allocator *a, const struct oom_block *block, int side,
                                 uint64_t *nearest, bool *found) {
    uint8_t bytes[CHUNK];
    uint64_t start = region(a, block, side);
    *found = false;
    for (uint64_t done = 0; done < a->settings.guard_bytes; done += CHUNK) {
        uint64_t n = chunk_at(a, done);
        OOM_TRY(
            a->device->api->download(a->device, bytes, start + done, n, a->streams[block->stream]));
        for (uint64_t i = 0; i < n; i++) {
            if (bytes[i] == pattern(start + done + i)) continue;
            if (!*found || side == 0) *nearest = done + i;
            *found = true;
        }
    }
    return OOM_OK;
}

enum oom_status oom_guard_read(struct oom_allocator *a, const struct oom_block *block,
                               uint64_t *damaged) {
    bool any = false;
    if (!in_use(a)) return OOM_OK;
    for (int side = 0; side < 2; side++) {
        uint64_t nearest = 0;
        bool found;
        OOM_TRY(read_side(a, block, side, &nearest, &found));
        if (found && a->guards_first[0] == 0) describe(a, block, side, nearest);
        any = any || found;
    }
    *damaged += any;
    return OOM_OK;
}

enum oom_status oom_allocator_guards_check(struct oom_allocator *a, uint64_t *damaged) {
    uint64_t count = a->guards_damaged;
    for (struct oom_tree_node *node = oom_tree_end(&a->segments, 0); node != NULL;
         node = oom_tree_step(node, 1)) {
        for (struct oom_block *b = oom_segment_first(node); b != NULL; b = b->next) {
            if (b->hold == OOM_HOLD_LIVE) OOM_TRY(oom_guard_read(a, b, &count));
        }
    }
    if (count > 0) (void)oom_fail(OOM_INVALID, "%s", a->guards_first);
    a->guards_damaged = 0;
    a->guards_first[0] = 0;
    *damaged = count;
    return OOM_OK;
}
