/*
 * block.h: the records of blocks and segments, and the table that finds a live block by address.
 *
 * Records come from slabs that the store owns and keeps until it is freed. Only
 * oom_block_store_reserve needs host memory, so an allocation that has reserved what it may need
 * cannot stop half-way; the table grows when it can and only gets slower when it cannot.
 */
#ifndef OOM_HARNESS_MEMORY_BLOCK_H
#define OOM_HARNESS_MEMORY_BLOCK_H

#include "harness/memory/tree.h"
#include "kernels/status.h"

#include <stdint.h>

/* One range given by the device, cut into blocks without gaps. */
struct oom_segment {
    struct oom_tree_node node; /* in the allocator's tree of segments, by address */
    uint64_t address, bytes;
    uint64_t counter;        /* age: the n-th segment since the start, from 0 */
    struct oom_block *first; /* the block of lowest address */
    uint16_t stream;
    uint8_t pool; /* enum oom_pool_kind */
};

/* What a search reads lies in the first 64 bytes, one line of the cache. */
struct oom_block {
    _Alignas(64) union {
        struct oom_tree_node node;   /* while free: in its pool's free set */
        struct oom_block *same_hash; /* while allocated: in the live table */
    };
    uint64_t address, bytes;
    uint64_t counter; /* its segment's, here because the free set is ordered by it */
    uint32_t site;
    uint16_t stream;
    uint8_t pool; /* enum oom_pool_kind: small or large */
    uint8_t tag;
    bool allocated;
    struct oom_segment *segment;
    struct oom_block *prev, *next; /* neighbours by address within the segment */
    uint64_t requested;            /* while allocated: bytes the caller asked for */
    uint64_t age_base;             /* while free: the pool's search count when it became so */
};

static inline bool oom_block_is_split(const struct oom_block *block) {
    return block->prev != NULL || block->next != NULL;
}

/* ---- records ---- */

struct oom_block_slab;

struct oom_block_store {
    struct oom_block_slab *slabs;
    struct oom_block *unused; /* chained by next */
    uint64_t unused_count;
};

/* OOM_HOST_NOMEM: fewer than `count` records are at hand and no slab could be had. */
enum oom_status oom_block_store_reserve(struct oom_block_store *store, uint64_t count);
struct oom_block *oom_block_take(struct oom_block_store *store); /* reserved before; zeroed */
void oom_block_give(struct oom_block_store *store, struct oom_block *block);
void oom_block_store_free(struct oom_block_store *store);

/* ---- live blocks by address ---- */

struct oom_live_table {
    struct oom_block **buckets;
    uint64_t count;
    unsigned bits; /* log2 of the number of buckets */
};

enum oom_status oom_live_table_init(struct oom_live_table *table);
void oom_live_table_free(struct oom_live_table *table);
void oom_live_table_add(struct oom_live_table *table, struct oom_block *block);
struct oom_block *oom_live_table_find(const struct oom_live_table *table, uint64_t address);
/* Takes it out; NULL: no live block begins at this address. */
struct oom_block *oom_live_table_take(struct oom_live_table *table, uint64_t address);

#endif
