/*
 * free-set.h: the free blocks of one pool, ordered by (stream, size, segment counter, address):
 * the order in which PyTorch 2.13 searches and releases; that of 2.11, where all counters are 0.
 *
 * Blocks stay the allocator's; a set owns only its bins. Per stream, sizes fall into bins (one for
 * each size of a small pool, 64 to an octave above) with a bit map of those in use, and each bin is
 * a tree, so a search costs the logarithm of the blocks of about that size. Only
 * oom_free_set_reserve can fail.
 */
#ifndef OOM_HARNESS_MEMORY_FREE_SET_H
#define OOM_HARNESS_MEMORY_FREE_SET_H

#include "harness/memory/block.h"

struct oom_free_bins;

struct oom_free_set {
    struct oom_free_bins **streams; /* by stream number */
    uint32_t stream_count;
    uint64_t count; /* blocks */
};

/* Makes room for streams 0 .. count - 1. OOM_HOST_NOMEM: what was there still works. */
enum oom_status oom_free_set_reserve(struct oom_free_set *set, uint32_t count);
void oom_free_set_free(struct oom_free_set *set);

void oom_free_set_insert(struct oom_free_set *set, struct oom_block *block);
void oom_free_set_remove(struct oom_free_set *set, struct oom_block *block);

/* The first block of this stream with at least `bytes`, or NULL. */
struct oom_block *oom_free_set_find(const struct oom_free_set *set, uint16_t stream,
                                    uint64_t bytes);
/* The last, so largest, block of this stream, or NULL. */
struct oom_block *oom_free_set_last(const struct oom_free_set *set, uint16_t stream);
/* In the order of the whole set, streams one after the other; NULL at the end. */
struct oom_block *oom_free_set_first(const struct oom_free_set *set);
struct oom_block *oom_free_set_next(const struct oom_free_set *set, const struct oom_block *block);
struct oom_block *oom_free_set_prev(const struct oom_free_set *set, const struct oom_block *block);

#endif
