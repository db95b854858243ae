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
#include "kernels/device.h"
#include "kernels/status.h"

#include <stdint.h>

struct oom_pool;
struct oom_use;

/* One page of an expandable segment. Where PyTorch would leave a page half made, so does the
 * model: a handle, mapped or not, under a block that is still unmapped. */
struct oom_page {
    oom_handle handle; /* 0: none */
    bool mapped;
};

/* One range of addresses, cut into blocks without gaps: given by the device as a whole, or (an
 * expandable one) reserved, with memory mapped page by page. */
struct oom_segment {
    struct oom_tree_node node; /* in the allocator's tree of segments, by address */
    uint64_t address, bytes;
    uint64_t counter;        /* age: the n-th segment since the start, from 0; profile 2.11: 0 */
    struct oom_block *first; /* the block of lowest address */
    struct oom_pool *owner;
    uint16_t stream;
    uint8_t pool; /* enum oom_pool_kind */
    bool expandable;
    uint64_t page;          /* bytes of one page; 0 unless expandable */
    uint64_t mapped;        /* bytes in mapped blocks; 0 unless expandable */
    struct oom_page *pages; /* `room` of them: those behind were never mapped */
    uint64_t room;
};

enum oom_hold {
    OOM_HOLD_FREE,     /* in its pool's free set */
    OOM_HOLD_UNMAPPED, /* addresses without memory: in its pool's tree of unmapped blocks */
    OOM_HOLD_LIVE,     /* a caller has it: in the live table */
    OOM_HOLD_PENDING   /* freed, but other streams are not done with it */
};

/* What a search reads lies in the first 64 bytes, one line of the cache; what a merge reads in the
 * second. */
struct oom_block {
    _Alignas(64) union {
        struct oom_tree_node node;   /* while free or unmapped */
        struct oom_block *same_hash; /* while in a table */
    };
    uint64_t address, bytes;
    uint64_t counter; /* its segment's, here because the free set is ordered by it */
    uint32_t site;
    uint16_t stream;
    uint8_t pool; /* enum oom_pool_kind: small or large */
    uint8_t tag;
    uint8_t hold; /* enum oom_hold */
    bool expandable;
    uint16_t waits; /* while pending: events that are not ready yet */
    struct oom_segment *segment;
    struct oom_block *prev, *next; /* neighbours by address within the segment */
    uint64_t requested;            /* while live or pending: bytes the caller asked for */
    uint64_t age_base;             /* while free: the pool's search count when it became so */
    struct oom_pool *owner;
    struct oom_use *uses; /* while live: the other streams that were told to use it */
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
struct oom_block *oom_block_take(struct oom_block_store *store); /* reserved before; undefined */
void oom_block_give(struct oom_block_store *store, struct oom_block *block);
void oom_block_store_free(struct oom_block_store *store);

/* Cuts `block` after `size` bytes: it keeps the front, the new record of the rest, otherwise a
 * copy, is returned. Neither is put into a set. */
struct oom_block *oom_block_cut(struct oom_block_store *store, struct oom_block *block,
                                uint64_t size);
/* `front` swallows the block behind it, which is in no set any more. */
void oom_block_absorb_next(struct oom_block_store *store, struct oom_block *front);

/* ---- blocks by address ---- */

struct oom_live_table {
    struct oom_block **buckets;
    uint64_t count;
    unsigned bits; /* log2 of the number of buckets */
};

enum oom_status oom_live_table_init(struct oom_live_table *table);
void oom_live_table_free(struct oom_live_table *table);
void oom_live_table_add(struct oom_live_table *table, struct oom_block *block);
struct oom_block *oom_live_table_find(const struct oom_live_table *table, uint64_t address);
/* Takes it out; NULL: no block of this table begins at this address. */
struct oom_block *oom_live_table_take(struct oom_live_table *table, uint64_t address);

#endif
