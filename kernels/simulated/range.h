/*
 * range.h: ranges [start, start + length) in ordered trees, and sets of free ranges with first fit.
 *
 * One record serves live things (blocks, reservations, mappings, handles) and holes alike: freeing
 * turns the live record into the hole, so giving back never needs memory and never fails. A record
 * belongs to its pool and is in at most one tree; everything is O(log n), n the number of ranges.
 */
#ifndef OOM_KERNELS_SIMULATED_RANGE_H
#define OOM_KERNELS_SIMULATED_RANGE_H

#include "kernels/status.h"

#include <stdint.h>

struct oom_range {
    struct oom_range *left, *right; /* the tree's */
    uint64_t start, length;
    uint64_t longest;       /* the tree's: greatest length in this subtree */
    uint64_t asked;         /* of a block: the bytes that were asked for */
    struct oom_range *link; /* of a block, page or handle: its runs; of a run: the next one;
                             * of a mapping: its handle */
    uint32_t priority;      /* the tree's */
    uint32_t uses;          /* of a page: its live blocks; of a reservation or a released or live
                             * handle: its mappings */
    uint8_t kind;           /* the owner's enum */
};

/* ---- the pool: records in slabs, kept until oom_range_pool_free ---- */

struct oom_range_slab;
struct oom_range_pool {
    struct oom_range_slab *slabs;
    struct oom_range *unused;
    uint32_t random; /* the state behind the priorities; any value */
};

struct oom_range *oom_range_get(struct oom_range_pool *pool); /* zeroed; NULL: no host memory */
void oom_range_put(struct oom_range_pool *pool, struct oom_range *range);
void oom_range_pool_free(struct oom_range_pool *pool);

/* ---- trees, ordered by start (unique in a tree); an empty tree is NULL ---- */

void oom_range_insert(struct oom_range **root, struct oom_range *range);
void oom_range_remove(struct oom_range **root, struct oom_range *range);
struct oom_range *oom_range_find(struct oom_range *root, uint64_t start);  /* exactly, or NULL */
struct oom_range *oom_range_floor(struct oom_range *root, uint64_t start); /* last at or before */
struct oom_range *oom_range_above(struct oom_range *root, uint64_t start); /* first after */
/* The range that contains `address`, of ranges that do not overlap. */
struct oom_range *oom_range_at(struct oom_range *root, uint64_t address);

/* Tests only: how many ranges this thread has looked at, since ever. */
uint64_t oom_range_visits(void);

/* ---- sets of free ranges ---- */

struct oom_holes {
    struct oom_range *root;
    struct oom_range_pool *pool;
    uint64_t boundary; /* holes on two sides of a multiple of this stay apart; 0: none */
};

/* The lowest `length` that lie in one hole. OOM_NOMEM: no hole is long enough (no record is made,
 * the caller knows what was wanted); OOM_HOST_NOMEM: no record for the rest. */
enum oom_status oom_holes_take(struct oom_holes *holes, uint64_t length, struct oom_range **out);
/* The lowest hole, or its first `most`. */
enum oom_status oom_holes_take_lowest(struct oom_holes *holes, uint64_t most,
                                      struct oom_range **out);
/* Gives back; returns the hole that it became part of. */
struct oom_range *oom_holes_give(struct oom_holes *holes, struct oom_range *range);

#endif
