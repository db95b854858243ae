/*
 * drive.h: how a recording drives an allocator. A replay knows what a caller never does: at which
 * address a run began, when a block's other streams were done with it, which streams there were.
 *
 * Only replay.c and tests use it. Failures are those of allocator.h; OOM_INVALID where a start is
 * impossible (overlapping, outside its segment, unaligned), and nothing has changed then.
 */
#ifndef OOM_HARNESS_MEMORY_DRIVE_H
#define OOM_HARNESS_MEMORY_DRIVE_H

#include "harness/memory/allocator.h"

/* Makes `stream` the next number. PyTorch orders streams by their handles, this allocator by their
 * numbers: a replay registers them in the order of the handles, the default stream (NULL) being
 * number 0 already. */
enum oom_status oom_allocator_stream_add(struct oom_allocator *allocator,
                                         struct oom_stream *stream);

/* As oom_allocator_free, but the block stays pending until oom_allocator_complete, or until a full
 * release waits for everything. */
enum oom_status oom_allocator_free_held(struct oom_allocator *allocator, oom_devptr ptr);
enum oom_status oom_allocator_complete(struct oom_allocator *allocator, oom_devptr ptr);

/* What a request of `bytes` would do now in a pool, on the stream of that number: a recording shows
 * what was given back, and this tells who did it. Nothing changes. */

/* Does the cache hold what it would take? Expandable: in its search, or where it would map more. */
bool oom_allocator_fits(const struct oom_allocator *allocator, struct oom_pool_id pool,
                        uint64_t stream, uint64_t bytes);

/* It would take the block at `address` where it would map more, but its search another. */
bool oom_allocator_fits_unsearched(const struct oom_allocator *allocator, struct oom_pool_id pool,
                                   uint64_t stream, uint64_t bytes, uint64_t address);

/* How many bytes of addresses it would reserve; 0: none. */
uint64_t oom_allocator_new_range(const struct oom_allocator *allocator, struct oom_pool_id pool,
                                 uint64_t stream, uint64_t bytes);

/* Else it gives back whole segments, in two steps with an attempt at the device after each, before
 * it gives back the whole cache. */
enum oom_foreseen_step {
    OOM_FORESEEN_GARBAGE,
    OOM_FORESEEN_OVERSIZE, /* the one that is large enough */
    OOM_FORESEEN_LARGEST,  /* none is: from the largest, of equal ones the youngest, down */
    OOM_FORESEEN_RELEASE,  /* only of the function below */
};

void oom_allocator_foresee(
    const struct oom_allocator *allocator, struct oom_pool_id pool, uint64_t stream, uint64_t bytes,
    void (*visit)(uint64_t address, enum oom_foreseen_step step, void *context), void *context);
/* The whole segments that a release would give back, if nothing is pending. */
void oom_allocator_foresee_release(const struct oom_allocator *allocator,
                                   void (*visit)(uint64_t address, enum oom_foreseen_step step,
                                                 void *context),
                                   void *context);

/* The next alloc does not look into the cache: it did before, and found nothing, and what it gave
 * back since was given back by other calls. */
void oom_allocator_skip_search(struct oom_allocator *allocator);

/* A release gives back that private pool's memory after all others'. Pools come in the order in
 * which they were made, which no recording tells (PyTorch takes it from a hash table). */
void oom_allocator_pool_last(struct oom_allocator *allocator, struct oom_pool_id pool);

/* Whose a block or a segment is. */
struct oom_place {
    uint64_t stream; /* number */
    struct oom_pool_id pool;
    bool small_pool;
};

/* Of the block, live or pending, that begins at the address. False: there is none. */
bool oom_allocator_block_place(const struct oom_allocator *allocator, uint64_t address,
                               struct oom_place *out);
/* Of the segment that holds the address. */
bool oom_allocator_segment_place(const struct oom_allocator *allocator, uint64_t address,
                                 struct oom_place *out);
/* Some segment has addresses of [address, address + bytes). */
bool oom_allocator_overlaps(const struct oom_allocator *allocator, uint64_t address,
                            uint64_t bytes);

/* A state to begin with: segments in the order of their age, each with its blocks in order of
 * address without gaps (an expandable segment: its mapped runs and the unmapped ranges between
 * them). The memory is taken as held already: the device is not asked, and
 * for release a mapped page's handle is its address. Only on a new allocator. */
enum oom_start_state {
    OOM_START_FREE,
    OOM_START_ALLOCATED,
    OOM_START_PENDING,  /* freed, not completed */
    OOM_START_UNMAPPED, /* of an expandable segment */
};

struct oom_start_block {
    uint64_t address, bytes, requested;
    enum oom_start_state state;
    const char *site;
};

struct oom_start_segment {
    uint64_t address, bytes; /* expandable: the whole address range */
    uint64_t stream;         /* number */
    struct oom_pool_id pool;
    bool small_pool, expandable;
    const struct oom_start_block *blocks;
    uint64_t block_count;
};

enum oom_status oom_allocator_start(struct oom_allocator *allocator,
                                    const struct oom_start_segment *segments, uint64_t count);

#endif
