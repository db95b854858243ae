/*
 * internal.h: what the files of the caching allocator share; nobody else includes it.
 *
 * The allocator owns all records below and the segments on the device. One file per job:
 * allocator.c life and the calls of the public header; chain.c the decisions of one malloc;
 * segment.c whole segments, expandable.c pages of them; pool.c private pools; pending.c blocks
 * that other streams use; drive.c what a replay may do; statistics.c, report.c, guard.c, inspect.c,
 * check.c what their names say.
 */
#ifndef OOM_HARNESS_MEMORY_INTERNAL_H
#define OOM_HARNESS_MEMORY_INTERNAL_H

#include "harness/memory/allocator.h"
#include "harness/memory/block.h"
#include "harness/memory/drive.h"
#include "harness/memory/free-set.h"
#include "harness/memory/site.h"
#include "harness/memory/trace.h"

#define OOM_NO_LIMIT UINT64_MAX
#define OOM_EXABYTE (UINT64_C(1) << 60) /* requests of so much are refused before anything else */

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
    struct oom_tree unmapped; /* blocks, by (stream, address) */
    uint64_t unmapped_count;
    uint64_t searches; /* counted only where garbage collection can act */
    struct oom_pool_group *group;
    uint16_t number; /* of the group's id, into pool_ids; 0 is {0, 0} */
    uint8_t kind;    /* enum oom_pool_kind */
};

/* The two pools of one id. Group 0, {0, 0}, is part of the allocator and has its pools there. */
struct oom_pool_group {
    struct oom_pool *pools; /* by enum oom_pool_kind; ALL is not used */
    struct oom_pool_id id;
    uint64_t segments; /* that it has, expandable ones included */
    struct oom_counter reserved_bytes[OOM_POOL_COUNT];
    struct oom_pool_group *next; /* in the order of their making */
    bool retired;
};

/* Another stream that uses a block: first with the block, then, when it was freed, in the queue of
 * the stream until its event is ready. */
struct oom_use {
    struct oom_use *next;            /* of the same block, or of the unused */
    struct oom_use *later, *earlier; /* in the queue */
    struct oom_use *made_before;     /* all there are */
    struct oom_block *block;
    struct oom_event *event; /* NULL until it was needed */
    uint16_t stream;
};

struct oom_use_queue {
    struct oom_use *first, *last; /* oldest first */
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
    bool refused;  /* injected: nothing may satisfy it */
    bool obtained; /* the cache had nothing: the device was asked */
    bool rejected; /* by throw_on_cudamalloc_oom: the chain was cut short */
};

struct oom_allocator {
    struct oom_device *device;
    struct oom_allocator_settings settings;
    struct oom_device_properties properties;
    uint64_t limit;      /* bytes that may be reserved, or OOM_NO_LIMIT */
    uint64_t gc_allowed; /* garbage is collected above this; OOM_NO_LIMIT: never */
    uint64_t reserved;

    struct oom_pool pools[OOM_POOL_COUNT]; /* the default ones, by enum oom_pool_kind; ALL is not
                                              used */
    struct oom_pool_group group;           /* of these */
    struct oom_pool_group *current;        /* that allocations come from */
    struct oom_pool_id *pool_ids;          /* of all groups there ever were, by number */
    uint32_t pool_id_count;

    struct oom_block_store blocks;
    struct oom_live_table live;
    struct oom_tree segments; /* by address */
    uint64_t next_counter;    /* of segments */
    uint64_t mapped_pages;    /* of expandable segments: no more free blocks can hold a page */
    /* records reserved for the next ones: whole segments; expandable ones by kind of pool */
    struct oom_segment *spare_segment, *spare_expandable; /* the latter with pages */
    struct oom_stream **streams; /* by number, in order of first use; [0] is the default */
    uint32_t stream_count;

    struct oom_use *uses, *unused_uses; /* all; those at hand */
    struct oom_use_queue *queues;       /* by number of stream */
    uint64_t waiting;                   /* uses in them */
    struct oom_use_queue held;          /* no event: until they are completed by hand */
    struct oom_live_table held_table;   /* their blocks */

    struct oom_allocator_stats stats;
    bool sums_reset; /* the sums no longer reach back to the start */
    struct oom_report report;
    struct oom_site_table sites;
    struct oom_trace trace;
    struct oom_trace_event *event; /* what oom_allocator_trace_at returned last */
    struct oom_trace_clock clock;

    uint64_t fail_device, fail_call; /* countdowns; 0: off */
    bool skip_search;                /* by the next call of alloc */
    struct {
        oom_devptr last, given, meant;
    } twice; /* the twin's: the last large block; of two at one address, and the later's own */
    uint64_t guards_damaged; /* found at free, not yet reported */
    char guards_first[160];  /* and the first of them, for people */
};

static inline struct oom_block *oom_segment_first(const struct oom_tree_node *node) {
    return ((const struct oom_segment *)node)->first; /* the node is its first member */
}

/* Profile `fixed`: without what its users suffer from. */
static inline bool oom_is_fixed(const struct oom_allocator *allocator) {
    return allocator->settings.profile == OOM_PROFILE_FIXED;
}

static inline bool oom_is_direct(const struct oom_allocator *allocator) {
    return allocator->settings.backend == OOM_BACKEND_DIRECT;
}

static inline bool oom_is_expandable(const struct oom_allocator *allocator) {
    return allocator->settings.expandable_segments;
}

/* ---- allocator.c ---- */

/* The number of a stream, which is added when it is new. */
enum oom_status oom_stream_number(struct oom_allocator *a, struct oom_stream *stream,
                                  uint16_t *out);
void oom_allocator_record(struct oom_allocator *a, enum oom_action action, uint64_t address,
                          uint64_t bytes, uint16_t stream, uint16_t pool, uint32_t site,
                          uint8_t tag);
/* The live block that alloc gave as ptr; `verb` is for the failure. */
enum oom_status oom_block_find(struct oom_allocator *a, const char *verb, oom_devptr ptr,
                               struct oom_block **out);
/* No stream uses a pending block any more: into the cache, or back to the device. It is in no
 * table; on failure nothing has changed. */
enum oom_status oom_block_complete(struct oom_allocator *a, struct oom_block *block);

/* ---- chain.c ---- */

/* Fills in size, segment_bytes and pool, one of the group's, from bytes. */
void oom_request_plan(const struct oom_allocator *a, const struct oom_pool_group *group,
                      struct oom_request *request);
/* Step A; NULL: nothing in the cache fits. A block found is taken out of the free set. */
struct oom_block *oom_chain_search(struct oom_allocator *a, const struct oom_request *request);
/* As if that search had not been. */
void oom_chain_unsearch(struct oom_allocator *a, const struct oom_request *request);
/* All host memory that the steps after A may need, so that nothing fails half-way. */
enum oom_status oom_chain_prepare(struct oom_allocator *a, const struct oom_request *request);
enum oom_status oom_chain_prepare_release(struct oom_allocator *a); /* for a release alone */
/* The steps after A, prepared before. *out is a block in no set, of at least the size. */
enum oom_status oom_chain_obtain(struct oom_allocator *a, struct oom_request *request,
                                 struct oom_block **out);
/* Cuts what was found to size; books the change of inactive_split. */
void oom_chain_cut(struct oom_allocator *a, struct oom_block *block, uint64_t size);
/* Into the free set, merged with free neighbours; the statistics of a completed free. */
void oom_chain_free(struct oom_allocator *a, struct oom_block *block);
/* Into the free set as it is; its age begins. */
void oom_chain_make_free(struct oom_block *block);
/* Step G, and release_cached: every whole free segment and page back to the device. Prepared
 * before. */
enum oom_status oom_chain_release_cached(struct oom_allocator *a, uint64_t *released);
/* For drive.h: what A, C with F, and a release would do; nothing changes. */
bool oom_chain_fits(const struct oom_allocator *a, const struct oom_request *request);
bool oom_chain_fits_unsearched(const struct oom_allocator *a, const struct oom_request *request,
                               uint64_t address);
/* No limit is in the way of asking the device. */
bool oom_chain_may_ask(const struct oom_allocator *a, const struct oom_request *request);
void oom_chain_foresee(const struct oom_allocator *a, const struct oom_request *request,
                       void (*visit)(uint64_t address, enum oom_foreseen_step step, void *context),
                       void *context);
void oom_chain_foresee_release(const struct oom_allocator *a,
                               void (*visit)(uint64_t address, enum oom_foreseen_step step,
                                             void *context),
                               void *context);

/* ---- segment.c ---- */

/* Another device allocation may be tried: no injection forbids it. Counts down. */
bool oom_device_may_give(struct oom_allocator *a, const struct oom_request *request);
/* Links a record, filled in but for node and counter, into the tree, as the youngest. False: it
 * overlaps another one, and nothing was done. */
bool oom_segment_link(struct oom_allocator *a, struct oom_segment *segment);
/* Its only block, made from a record reserved before, in no set. */
struct oom_block *oom_segment_block(struct oom_allocator *a, struct oom_segment *segment);
enum oom_status oom_segment_prepare(struct oom_allocator *a);
/* One attempt. OOM_NOMEM: the device or an injection said no. */
enum oom_status oom_segment_obtain(struct oom_allocator *a, const struct oom_request *request,
                                   struct oom_block **out);
/* `block` is its segment's only one and in no set any more. On failure nothing has changed. */
enum oom_status oom_segment_release(struct oom_allocator *a, struct oom_block *block,
                                    uint64_t *released);
/* The same once the device has it back. */
void oom_segment_gone(struct oom_allocator *a, struct oom_block *block, uint64_t *released);
/* Out of the tree; the record becomes the spare one of its kind, or is freed. */
void oom_segment_discard(struct oom_segment *segment); /* the record; NULL is allowed */
void oom_segment_forget(struct oom_allocator *a, struct oom_segment *segment);

/* ---- expandable.c ---- */

uint64_t oom_expandable_page(const struct oom_allocator *a, uint8_t kind);
/* The device and the settings allow what `expandable_segments` asks for. */
/* Where it begins to map; a free block there may be large enough already. NULL: in a new range, */
struct oom_block *oom_expandable_place(const struct oom_request *request);
/* of so many bytes of addresses; 0: none could hold it. */
uint64_t oom_expandable_reserves(const struct oom_allocator *a, const struct oom_request *request);
enum oom_status oom_expandable_check(const struct oom_allocator *a);
enum oom_status oom_expandable_prepare(struct oom_allocator *a, const struct oom_request *request);
/* One attempt: finds a place, maps what is missing. OOM_NOMEM as above; what was mapped on the way
 * stays as free blocks. */
enum oom_status oom_expandable_obtain(struct oom_allocator *a, const struct oom_request *request,
                                      struct oom_block **out);
/* Whole pages of a free block back to the device; an empty segment's addresses, too. */
enum oom_status oom_expandable_release(struct oom_allocator *a, struct oom_block *block,
                                       uint64_t *released);
/* All of it, whatever is in it; the record stays. */
void oom_expandable_abandon(struct oom_allocator *a, struct oom_segment *segment);
/* A block of addresses without memory into its pool's tree. */
void oom_unmapped_insert(struct oom_block *block);

/* ---- pool.c ---- */

enum oom_status oom_pools_init(struct oom_allocator *a);
void oom_pools_free(struct oom_allocator *a);
/* Room for streams 0 .. count - 1 in the free sets of all pools. */
enum oom_status oom_pools_reserve(struct oom_allocator *a, uint32_t count);
/* The group with this id, made when it is new. */
enum oom_status oom_pool_group_find(struct oom_allocator *a, struct oom_pool_id id,
                                    struct oom_pool_group **out);
/* The same where it is not to be made: NULL, there is none. */
const struct oom_pool_group *oom_pool_group_look(const struct oom_allocator *a,
                                                 struct oom_pool_id id);
/* Forgets the groups that are retired and have no segment any more. */
void oom_pools_sweep(struct oom_allocator *a);

/* ---- pending.c ---- */

enum oom_status oom_pending_reserve(struct oom_allocator *a, uint32_t streams);
void oom_pending_free(struct oom_allocator *a);
/* The block, live, was asked to be freed: its events are recorded. *pending: it has to wait for
 * them. On failure nothing has changed. */
enum oom_status oom_pending_begin(struct oom_allocator *a, struct oom_block *block, bool *pending);
/* Completes what is ready, of every stream in order. */
enum oom_status oom_pending_poll(struct oom_allocator *a);
/* Waits for all, held ones included, and completes them. */
enum oom_status oom_pending_finish(struct oom_allocator *a);
/* Host memory for `count` more held blocks; then a block, live until now and in no table, waits to
 * be completed by hand. */
enum oom_status oom_pending_hold_prepare(struct oom_allocator *a, uint64_t count);
void oom_pending_hold(struct oom_allocator *a, struct oom_block *block);

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

void oom_count_reserved_up(struct oom_allocator *a, struct oom_pool *pool, uint64_t bytes);
void oom_count_reserved_down(struct oom_allocator *a, struct oom_pool *pool, uint64_t bytes);
/* Keeps the moment of the least allocated / reserved: called after every completed free, and after
 * a block for which the device was asked was handed out. */
void oom_count_utilization(struct oom_allocator *a);
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

/* ---- twins.c; in the product they change nothing ---- */

oom_devptr oom_twin_hand_out(struct oom_allocator *a, const struct oom_block *block);
oom_devptr oom_twin_take_back(struct oom_allocator *a, oom_devptr address);
enum oom_status oom_twin_unmap(struct oom_allocator *a, const struct oom_segment *segment,
                               uint64_t offset);
oom_handle oom_twin_handle(const struct oom_segment *segment, uint64_t index);
bool oom_twin_shares(const struct oom_segment *segment, uint64_t index);

/* ---- settings.c ---- */

enum oom_status oom_allocator_settings_check(const struct oom_allocator_settings *settings);

#endif
