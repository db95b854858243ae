/*
 * internal.h: what the files of the caching allocator share; nobody else includes it.
 *
 * The allocator owns all records below and the segments on the device. One file per job:
 * allocator.c life and the calls of the public header; chain.c the decisions of one malloc;
 * statistics.c, report.c, guard.c, inspect.c what their names say.
 */
#ifndef OOM_HARNESS_MEMORY_INTERNAL_H
#define OOM_HARNESS_MEMORY_INTERNAL_H

#include "harness/memory/allocator.h"
#include "harness/memory/block.h"
#include "harness/memory/free-set.h"
#include "harness/memory/site.h"
#include "harness/memory/trace.h"

#define OOM_NO_LIMIT UINT64_MAX

enum {
    OOM_MIN_BLOCK = 512,
    OOM_SMALL_MAX = 1 << 20, /* a rounded size up to this goes to the small pool */
    OOM_SMALL_SEGMENT = 2 << 20,
    OOM_LARGE_SEGMENT = 20 << 20,
    OOM_LARGE_MIN = 10 << 20, /* from here on a segment is made to measure, */
    OOM_LARGE_ROUND = 2 << 20 /* in multiples of this */
};

struct oom_pool {
    struct oom_free_set free;
    uint64_t searches; /* counted only where garbage collection can act */
    uint8_t kind;      /* enum oom_pool_kind */
};

/* One call of alloc on its way through the chain. */
struct oom_request {
    uint64_t bytes;         /* as the caller asked */
    uint64_t size;          /* of the block */
    uint64_t segment_bytes; /* of a new segment for it */
    struct oom_pool *pool;
    uint64_t released; /* given back to the device on the way */
    uint32_t site;
    uint16_t stream;
    uint8_t tag;
    bool refused; /* injected: nothing may satisfy it */
};

struct oom_allocator {
    struct oom_device *device;
    struct oom_allocator_settings settings;
    struct oom_device_properties properties;
    uint64_t limit; /* bytes that may be reserved, or OOM_NO_LIMIT */
    uint64_t reserved;

    struct oom_pool pools[OOM_POOL_COUNT]; /* by enum oom_pool_kind; ALL is not used */
    struct oom_block_store blocks;
    struct oom_live_table live;
    struct oom_tree segments;          /* by address */
    struct oom_segment *spare_segment; /* reserved for the next one */
    uint64_t next_counter;             /* of segments */
    struct oom_stream **streams;       /* by number, in order of first use; [0] is the default */
    uint32_t stream_count;

    struct oom_allocator_stats stats;
    struct oom_report report;
    struct oom_site_table sites;
    struct oom_trace trace;
    struct oom_trace_event *event; /* what oom_allocator_trace_at returned last */
    uint64_t start_us, event_us;   /* the clock at the creation; the last event's time from there */

    uint64_t fail_device, fail_call; /* countdowns; 0: off */
    uint64_t guards_damaged;         /* found at free, not yet reported */
    char guards_first[160];          /* and the first of them, for people */
};

static inline struct oom_block *oom_segment_first(const struct oom_tree_node *node) {
    return ((const struct oom_segment *)node)->first; /* the node is its first member */
}

/* ---- allocator.c ---- */

void oom_allocator_record(struct oom_allocator *a, enum oom_action action, uint64_t address,
                          uint64_t bytes, uint16_t stream, uint32_t site, uint8_t tag);

/* ---- chain.c ---- */

/* Fills in size, segment_bytes and pool from bytes. */
void oom_request_plan(struct oom_allocator *a, struct oom_request *request);
/* The whole chain; *out is a block taken from everything, cut to size, not yet handed out.
 * Records for two blocks and a segment are reserved before. */
enum oom_status oom_chain_find(struct oom_allocator *a, struct oom_request *request,
                               struct oom_block **out);
/* Into the free set, merged with free neighbours; the statistics of a completed free. */
void oom_chain_free(struct oom_allocator *a, struct oom_block *block);
/* Step G, and release_cached: every whole free segment back to the device. */
enum oom_status oom_chain_release_cached(struct oom_allocator *a, uint64_t *released);

/* ---- statistics.c ---- */

static inline void oom_counter_up(struct oom_counter *counter, uint64_t by) {
    counter->current += (int64_t)by;
    counter->allocated += (int64_t)by;
    if (counter->current > counter->peak) counter->peak = counter->current;
}

static inline void oom_counter_down(struct oom_counter *counter, uint64_t by) {
    counter->current -= (int64_t)by;
    counter->freed += (int64_t)by;
}

/* A change counts for the pool and for all. */
#define OOM_COUNT_UP(a, name, pool, by) \
    (oom_counter_up(&(a)->stats.name[OOM_POOL_ALL], (by)), \
     oom_counter_up(&(a)->stats.name[pool], (by)))
#define OOM_COUNT_DOWN(a, name, pool, by) \
    (oom_counter_down(&(a)->stats.name[OOM_POOL_ALL], (by)), \
     oom_counter_down(&(a)->stats.name[pool], (by)))

/* Net changes of free blocks in split segments, booked by sign. */
void oom_count_inactive_split(struct oom_allocator *a, uint8_t pool, int64_t blocks, int64_t bytes);
void oom_count_handed_out(struct oom_allocator *a, const struct oom_block *block);
void oom_count_free_requested(struct oom_allocator *a, const struct oom_block *block);
void oom_count_free_completed(struct oom_allocator *a, const struct oom_block *block);

/* ---- report.c ---- */

/* Fills in a->report and records the failure; returns OOM_NOMEM. */
enum oom_status oom_report_fill(struct oom_allocator *a, const struct oom_request *request);

/* ---- guard.c ---- */

enum oom_status oom_guard_write(struct oom_allocator *a, const struct oom_block *block);
/* Counts damage in *damaged and describes the first in a->guards_first. */
enum oom_status oom_guard_read(struct oom_allocator *a, const struct oom_block *block,
                               uint64_t *damaged);

/* ---- settings.c ---- */

enum oom_status oom_allocator_settings_check(const struct oom_allocator_settings *settings);

#endif
