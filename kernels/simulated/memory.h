/*
 * memory.h: the books of a simulated device: physical pages below a capacity, an address space,
 * blocks, reservations, handles and mappings, with CUDA's rules. One source for `host` and `dry`:
 * with an arena every change is also made in real memory, without one nothing else happens, so
 * both give the same addresses relative to their base and fail at the same call.
 *
 * The structure owns its records and not the arena. Misuse is OOM_INVALID, exhaustion OOM_NOMEM,
 * a refusal of the kernel OOM_HOST_NOMEM; after any of them the books are as before.
 */
#ifndef OOM_KERNELS_SIMULATED_MEMORY_H
#define OOM_KERNELS_SIMULATED_MEMORY_H

#include "kernels/device.h"
#include "kernels/simulated/arena.h"
#include "kernels/simulated/range.h"

struct oom_memory {
    uint64_t capacity;    /* bytes */
    uint64_t used, peak;  /* bytes in committed pages */
    uint64_t anonymous;   /* those among them that are blocks', in real memory; else 0 */
    uint64_t reservation; /* bytes of address space */
    uint64_t last_handle;
    struct oom_arena *arena; /* NULL: count only */
    struct oom_range_pool pool;
    struct oom_holes frames;    /* free physical memory, offsets in bytes */
    struct oom_holes addresses; /* free address space */
    struct oom_holes granules;  /* free parts of the pages that small blocks share */
    struct oom_range *spaces;   /* what is taken of the address space: enum oom_space */
    struct oom_range *blocks;   /* live small blocks */
    struct oom_range *mappings; /* of handles in reservations; kind is enum oom_access */
    struct oom_range *handles;  /* unreleased; start is the handle, length its bytes */
};

enum oom_space { OOM_SPACE_BLOCK, OOM_SPACE_PAGE, OOM_SPACE_RESERVATION };

/* base: first address, a multiple of the page and not 0. */
enum oom_status oom_memory_init(struct oom_memory *memory, uint64_t capacity, uint64_t base,
                                uint64_t reservation, struct oom_arena *arena);
void oom_memory_free(struct oom_memory *memory);

/* True when all of [ptr, ptr + bytes) may be read and written: within the bytes asked for of one
 * block, or within accessible mappings without a gap. Otherwise *bad is the first byte that may
 * not. bytes > 0. */
bool oom_memory_accessible(const struct oom_memory *memory, oom_devptr ptr, uint64_t bytes,
                           oom_devptr *bad);

/* cudaMalloc, cudaFree. block_check says whether block_free would accept ptr. */
enum oom_status oom_block_alloc(struct oom_memory *memory, uint64_t bytes, oom_devptr *out);
enum oom_status oom_block_check(const struct oom_memory *memory, oom_devptr ptr);
enum oom_status oom_block_free(struct oom_memory *memory, oom_devptr ptr);

/* The virtual memory group of device.h. */
enum oom_status oom_virtual_reserve(struct oom_memory *memory, uint64_t bytes, oom_devptr *out);
enum oom_status oom_virtual_unreserve(struct oom_memory *memory, oom_devptr ptr, uint64_t bytes);
enum oom_status oom_virtual_create(struct oom_memory *memory, uint64_t bytes, oom_handle *out);
enum oom_status oom_virtual_map(struct oom_memory *memory, oom_devptr ptr, uint64_t bytes,
                                oom_handle handle);
enum oom_status oom_virtual_access(struct oom_memory *memory, oom_devptr ptr, uint64_t bytes,
                                   enum oom_access access);
enum oom_status oom_virtual_unmap(struct oom_memory *memory, oom_devptr ptr, uint64_t bytes);
enum oom_status oom_virtual_release(struct oom_memory *memory, oom_handle handle);

/* ---- physical pages, for the two groups above ---- */

/* Takes the lowest free pages: a chain of runs. `what` begins the message. */
enum oom_status oom_frames_take(struct oom_memory *memory, const char *what, uint64_t bytes,
                                struct oom_range **runs);
void oom_frames_give(struct oom_memory *memory, struct oom_range *runs);
/* Memory for a chain that may be mapped anywhere; all or nothing. */
enum oom_status oom_frames_commit(struct oom_memory *memory, struct oom_range *runs);
void oom_frames_decommit(struct oom_memory *memory, struct oom_range *runs);
/* Makes such a chain accessible at an address; all or nothing. */
enum oom_status oom_frames_map(struct oom_memory *memory, struct oom_range *runs, uint64_t address,
                               uint64_t bytes);
enum oom_status oom_frames_unmap(struct oom_memory *memory, uint64_t address, uint64_t bytes);
/* Memory for pages that are at this address only, accessible; and its end. */
enum oom_status oom_space_back(struct oom_memory *memory, uint64_t address, uint64_t bytes);
enum oom_status oom_space_clear(struct oom_memory *memory, uint64_t address, uint64_t bytes);
/* An address range for a new space; the message names `what`. */
enum oom_status oom_space_take(struct oom_memory *memory, const char *what, uint64_t bytes,
                               enum oom_space kind, struct oom_range **out);
void oom_space_give(struct oom_memory *memory, struct oom_range *space);

static inline bool oom_is_paged(uint64_t bytes) {
    return bytes % OOM_PAGE == 0;
}

#endif
