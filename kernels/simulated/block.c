/*
 * cudaMalloc as it behaves: below 1 MiB blocks share 2 MiB pages in granules of 512 bytes, larger
 * ones have pages of their own. A shared page is given back with its last block. First fit, lowest
 * address, in both.
 */
#include "kernels/simulated/memory.h"

typedef unsigned long long ull; /* for printf */

enum { SMALL_BELOW = 1 << 20 };

static const char what[] = "alloc";

static uint64_t round_up(uint64_t bytes, uint64_t unit) {
    return (bytes + unit - 1) / unit * unit;
}

/* Address space with memory of its own behind it, accessible. */
static enum oom_status space_open(struct oom_memory *memory, uint64_t bytes, enum oom_space kind,
                                  struct oom_range **out) {
    struct oom_range *runs, *space = NULL;
    OOM_TRY(oom_frames_take(memory, what, bytes, &runs));
    enum oom_status status = oom_space_take(memory, what, bytes, kind, &space);
    if (status == OOM_OK) status = oom_space_back(memory, space->start, bytes);
    if (status == OOM_OK) {
        space->link = runs;
        *out = space;
        return OOM_OK;
    }
    if (space != NULL) oom_space_give(memory, space);
    oom_frames_give(memory, runs);
    return status;
}

static enum oom_status space_close(struct oom_memory *memory, struct oom_range *space) {
    OOM_TRY(oom_space_clear(memory, space->start, space->length));
    oom_frames_give(memory, space->link);
    oom_space_give(memory, space);
    return OOM_OK;
}

/* ---- small ---- */

/* A fresh shared page, cut into the block and one hole behind it. */
static enum oom_status page_open(struct oom_memory *memory, uint64_t length,
                                 struct oom_range **out) {
    struct oom_range *page;
    struct oom_range *block = oom_range_get(&memory->pool);
    struct oom_range *hole = oom_range_get(&memory->pool);
    enum oom_status status =
        block != NULL && hole != NULL
            ? space_open(memory, OOM_PAGE, OOM_SPACE_PAGE, &page)
            : oom_fail(OOM_HOST_NOMEM, "no host memory for the records of a page");
    if (status != OOM_OK) {
        if (block != NULL) oom_range_put(&memory->pool, block);
        if (hole != NULL) oom_range_put(&memory->pool, hole);
        return status;
    }
    block->start = page->start;
    block->length = length;
    hole->start = page->start + length;
    hole->length = OOM_PAGE - length; /* a small block is at most half a page */
    oom_holes_give(&memory->granules, hole);
    *out = block;
    return OOM_OK;
}

static enum oom_status small_alloc(struct oom_memory *memory, uint64_t bytes,
                                   struct oom_range **out) {
    uint64_t length = round_up(bytes, OOM_GRANULE);
    struct oom_range *block;
    enum oom_status status = oom_holes_take(&memory->granules, length, &block);
    if (status == OOM_NOMEM) status = page_open(memory, length, &block);
    if (status != OOM_OK) return status;
    oom_range_at(memory->spaces, block->start)->uses++;
    oom_range_insert(&memory->blocks, block);
    *out = block;
    return OOM_OK;
}

static enum oom_status small_free(struct oom_memory *memory, struct oom_range *page,
                                  struct oom_range *block) {
    if (page->uses > 1) {
        page->uses--;
        oom_range_remove(&memory->blocks, block);
        oom_holes_give(&memory->granules, block);
        return OOM_OK;
    }
    OOM_TRY(space_close(memory, page));
    oom_range_remove(&memory->blocks, block);
    struct oom_range *hole = oom_holes_give(&memory->granules, block);
    oom_range_remove(&memory->granules.root, hole);
    oom_range_put(&memory->pool, hole);
    return OOM_OK;
}

/* ---- both ---- */

enum oom_status oom_block_alloc(struct oom_memory *memory, uint64_t bytes, oom_devptr *out) {
    struct oom_range *block;
    *out = 0;
    if (bytes == 0) return oom_fail(OOM_INVALID, "alloc of 0 bytes");
    if (bytes < SMALL_BELOW) {
        OOM_TRY(small_alloc(memory, bytes, &block));
    } else if (bytes > memory->capacity) { /* before rounding, which could overflow */
        return oom_fail(OOM_NOMEM, "alloc needs %llu bytes: the whole device has %llu", (ull)bytes,
                        (ull)memory->capacity);
    } else {
        OOM_TRY(space_open(memory, round_up(bytes, OOM_PAGE), OOM_SPACE_BLOCK, &block));
    }
    block->asked = bytes;
    if (memory->used > memory->peak) memory->peak = memory->used;
    *out = block->start;
    return OOM_OK;
}

/* The space of a live block that starts at ptr, and the block when it is a small one. */
static enum oom_status find_block(const struct oom_memory *memory, oom_devptr ptr,
                                  struct oom_range **space, struct oom_range **small) {
    *small = NULL;
    *space = oom_range_at(memory->spaces, ptr);
    if (*space != NULL && (*space)->kind == OOM_SPACE_PAGE) {
        *small = oom_range_find(memory->blocks, ptr);
        if (*small != NULL) return OOM_OK;
    } else if (*space != NULL && (*space)->kind == OOM_SPACE_BLOCK && (*space)->start == ptr) {
        return OOM_OK;
    }
    return oom_fail(OOM_INVALID, "free of 0x%llx: no live block of alloc starts there", (ull)ptr);
}

enum oom_status oom_block_check(const struct oom_memory *memory, oom_devptr ptr) {
    struct oom_range *space, *small;
    return find_block(memory, ptr, &space, &small);
}

enum oom_status oom_block_free(struct oom_memory *memory, oom_devptr ptr) {
    struct oom_range *space, *small;
    OOM_TRY(find_block(memory, ptr, &space, &small));
    return small != NULL ? small_free(memory, space, small) : space_close(memory, space);
}
