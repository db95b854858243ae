/*
 * The parts of the books that blocks and virtual memory share: physical pages, address space, and
 * the answer to whether memory may be touched.
 */
#include "kernels/simulated/memory.h"

typedef unsigned long long ull; /* for printf */

/* ---- the whole ---- */

static enum oom_status add_hole(struct oom_memory *memory, struct oom_holes *holes, uint64_t start,
                                uint64_t length) {
    struct oom_range *hole = oom_range_get(&memory->pool);
    if (hole == NULL) return oom_fail(OOM_HOST_NOMEM, "no host memory for the device's books");
    hole->start = start;
    hole->length = length;
    oom_holes_give(holes, hole);
    return OOM_OK;
}

enum oom_status oom_memory_init(struct oom_memory *memory, uint64_t capacity, uint64_t base,
                                uint64_t reservation, struct oom_arena *arena) {
    *memory = (struct oom_memory){
        .capacity = capacity,
        .reservation = reservation,
        .arena = arena,
        .frames.pool = &memory->pool,
        .addresses.pool = &memory->pool,
        .granules = {.pool = &memory->pool, .boundary = OOM_PAGE},
    };
    enum oom_status status = add_hole(memory, &memory->frames, 0, capacity / OOM_PAGE * OOM_PAGE);
    if (status == OOM_OK) status = add_hole(memory, &memory->addresses, base, reservation);
    if (status != OOM_OK) oom_memory_free(memory);
    return status;
}

void oom_memory_free(struct oom_memory *memory) {
    oom_range_pool_free(&memory->pool);
}

/* ---- physical pages ---- */

static void give_runs(struct oom_memory *memory, struct oom_range *runs) {
    while (runs != NULL) {
        struct oom_range *next = runs->link;
        runs->link = NULL;
        oom_holes_give(&memory->frames, runs);
        runs = next;
    }
}

static enum oom_status take_runs(struct oom_memory *memory, uint64_t bytes,
                                 struct oom_range **runs) {
    struct oom_range **end = runs;
    *runs = NULL;
    for (uint64_t left = bytes; left > 0; left -= (*end)->length, end = &(*end)->link) {
        enum oom_status status = oom_holes_take_lowest(&memory->frames, left, end);
        if (status == OOM_OK) continue;
        *end = NULL;
        give_runs(memory, *runs);
        return status;
    }
    *end = NULL;
    return OOM_OK;
}

static void decommit_until(struct oom_memory *memory, struct oom_range *runs,
                           const struct oom_range *end) {
    if (memory->arena == NULL) return;
    for (; runs != end; runs = runs->link) {
        oom_arena_decommit(memory->arena, runs->start, runs->length);
    }
}

void oom_frames_decommit(struct oom_memory *memory, struct oom_range *runs) {
    decommit_until(memory, runs, NULL);
}

enum oom_status oom_frames_commit(struct oom_memory *memory, struct oom_range *runs) {
    if (memory->arena == NULL) return OOM_OK;
    for (struct oom_range *run = runs; run != NULL; run = run->link) {
        enum oom_status status = oom_arena_commit(memory->arena, run->start, run->length);
        if (status == OOM_OK) continue;
        decommit_until(memory, runs, run);
        return status;
    }
    return OOM_OK;
}

enum oom_status oom_frames_take(struct oom_memory *memory, const char *what, uint64_t bytes,
                                struct oom_range **runs) {
    uint64_t left = memory->capacity / OOM_PAGE * OOM_PAGE - memory->used;
    if (bytes > left) {
        return oom_fail(OOM_NOMEM, "%s needs %llu bytes in pages of 2 MiB: %llu of %llu are free",
                        what, (ull)bytes, (ull)left, (ull)memory->capacity);
    }
    OOM_TRY(take_runs(memory, bytes, runs));
    memory->used += bytes;
    return OOM_OK;
}

void oom_frames_give(struct oom_memory *memory, struct oom_range *runs) {
    for (struct oom_range *run = runs; run != NULL; run = run->link) memory->used -= run->length;
    give_runs(memory, runs);
}

enum oom_status oom_frames_map(struct oom_memory *memory, struct oom_range *runs, uint64_t address,
                               uint64_t bytes) {
    if (memory->arena == NULL) return OOM_OK;
    uint64_t at = address;
    for (struct oom_range *run = runs; run != NULL; at += run->length, run = run->link) {
        enum oom_status status = oom_arena_map(memory->arena, at, run->length, run->start);
        if (status == OOM_OK) continue;
        /* The failed call may have torn a hole into the reservation: close it too. */
        (void)oom_arena_unmap(memory->arena, address, bytes);
        return status;
    }
    return OOM_OK;
}

enum oom_status oom_frames_unmap(struct oom_memory *memory, uint64_t address, uint64_t bytes) {
    return memory->arena != NULL ? oom_arena_unmap(memory->arena, address, bytes) : OOM_OK;
}

enum oom_status oom_space_back(struct oom_memory *memory, uint64_t address, uint64_t bytes) {
    if (memory->arena == NULL) return OOM_OK;
    OOM_TRY(oom_arena_back(memory->arena, address, bytes));
    memory->anonymous += bytes;
    return OOM_OK;
}

enum oom_status oom_space_clear(struct oom_memory *memory, uint64_t address, uint64_t bytes) {
    if (memory->arena == NULL) return OOM_OK;
    OOM_TRY(oom_arena_unmap(memory->arena, address, bytes));
    memory->anonymous -= bytes;
    return OOM_OK;
}

/* ---- address space ---- */

enum oom_status oom_space_take(struct oom_memory *memory, const char *what, uint64_t bytes,
                               enum oom_space kind, struct oom_range **out) {
    enum oom_status status = oom_holes_take(&memory->addresses, bytes, out);
    if (status == OOM_NOMEM) {
        return oom_fail(OOM_NOMEM, "%s: the address space of %llu bytes has no hole of %llu", what,
                        (ull)memory->reservation, (ull)bytes);
    }
    if (status == OOM_OK) {
        (*out)->kind = (uint8_t)kind;
        (*out)->uses = 0;
        (*out)->link = NULL;
        oom_range_insert(&memory->spaces, *out);
    }
    return status;
}

void oom_space_give(struct oom_memory *memory, struct oom_range *space) {
    oom_range_remove(&memory->spaces, space);
    oom_holes_give(&memory->addresses, space);
}

/* ---- what may be touched ---- */

/* Bytes from ptr on that belong to accessible mappings without a gap, at most `most`. */
static uint64_t mapped_from(const struct oom_memory *memory, oom_devptr ptr, uint64_t most) {
    uint64_t at = ptr;
    const struct oom_range *mapping = oom_range_at(memory->mappings, at);
    while (mapping != NULL && mapping->kind == OOM_ACCESS_READ_WRITE && at - ptr < most) {
        at = mapping->start + mapping->length;
        mapping = oom_range_find(memory->mappings, at);
    }
    return at - ptr;
}

static uint64_t block_from(const struct oom_range *block, oom_devptr ptr) {
    uint64_t offset = block != NULL ? ptr - block->start : 0;
    return block != NULL && offset < block->asked ? block->asked - offset : 0;
}

bool oom_memory_accessible(const struct oom_memory *memory, oom_devptr ptr, uint64_t bytes,
                           oom_devptr *bad) {
    const struct oom_range *space = oom_range_at(memory->spaces, ptr);
    uint64_t length = 0;
    if (space != NULL && space->kind == OOM_SPACE_BLOCK) {
        length = block_from(space, ptr);
    } else if (space != NULL && space->kind == OOM_SPACE_PAGE) {
        length = block_from(oom_range_at(memory->blocks, ptr), ptr);
    } else if (space != NULL) {
        length = mapped_from(memory, ptr, bytes);
    }
    *bad = ptr + length;
    return length >= bytes;
}
