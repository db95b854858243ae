/*
 * allocator.h: the caching allocator, over any device, modelled on PyTorch's to the byte
 * (rounding, pools, segments, expandable segments, best fit, split, merge, streams, the retry
 * chain, release of cached blocks, statistics, trace). settings.h says whose decisions it makes.
 *
 * The allocator owns the segments it takes from the device and all blocks within; a caller owns a
 * block from alloc to free. It borrows the device, which must outlive it. Not thread-safe.
 * Failure: OOM_NOMEM after the whole retry chain, with oom_allocator_report() filled in and the
 * allocator usable; OOM_INVALID for an address that is not a live block; OOM_HOST_NOMEM when the
 * host cannot hold the bookkeeping: nothing has changed then.
 */
#ifndef OOM_HARNESS_MEMORY_ALLOCATOR_H
#define OOM_HARNESS_MEMORY_ALLOCATOR_H

#include "harness/memory/fragmentation.h"
#include "harness/memory/settings.h"
#include "kernels/device.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* What a block is for: every allocation says. */
#define OOM_TAG_MAP(X) \
    X(PARAMETER, "parameter") \
    X(GRADIENT, "gradient") \
    X(OPTIMIZER, "optimizer") \
    X(ACTIVATION, "activation") \
    X(WORKSPACE, "workspace") \
    X(COMMUNICATION, "communication") \
    X(DATA, "data") \
    X(OTHER, "other")

enum oom_tag {
#define X(id, name) OOM_TAG_##id,
    OOM_TAG_MAP(X)
#undef X
        OOM_TAG_COUNT
};

const char *oom_tag_name(enum oom_tag tag);

struct oom_allocator;

/* ---- life ---- */

/* settings NULL: the defaults. Settings out of range are OOM_USAGE. */
enum oom_status oom_allocator_create(struct oom_device *device,
                                     const struct oom_allocator_settings *settings,
                                     struct oom_allocator **out);
/* Gives every segment back, live blocks included. NULL is allowed. */
void oom_allocator_destroy(struct oom_allocator *allocator);

struct oom_device *oom_allocator_device(const struct oom_allocator *allocator);

/* bytes > 0; 0 gives *out = 0 and touches nothing. `site` names the allocation for people
 * ("layer 3 gelu"); the string is copied where it is kept (63 characters). A block is reused only
 * on its own stream; what other streams do with it must be told (record_stream) or finished before
 * it is freed. */
enum oom_status oom_allocator_alloc(struct oom_allocator *allocator, uint64_t bytes,
                                    struct oom_stream *stream, enum oom_tag tag, const char *site,
                                    oom_devptr *out);
/* ptr 0 is allowed and does nothing. With guards a damaged block is freed like any other; the
 * damage is counted for oom_allocator_guards_check. */
enum oom_status oom_allocator_free(struct oom_allocator *allocator, oom_devptr ptr);

/* Another stream uses the block as well: once freed, it stays "pending free" until everything that
 * this stream had queued at the time of the free has run. Its own stream is ignored. */
enum oom_status oom_allocator_record_stream(struct oom_allocator *allocator, oom_devptr ptr,
                                            struct oom_stream *stream);

/* Private pools (PyTorch's MemPool and graph pools): later allocations come from pool `id`, whose
 * segments serve nobody else, until another one is chosen; {0, 0} are the default pools. A pool is
 * made at first use. Segments of a pool in use are never given back by retries or a release. */
struct oom_pool_id {
    uint64_t a, b;
};

enum oom_status oom_allocator_pool_use(struct oom_allocator *allocator, struct oom_pool_id id);
/* Nobody will allocate from it any more: its cached segments may be given back from now on. */
enum oom_status oom_allocator_pool_retire(struct oom_allocator *allocator, struct oom_pool_id id);

/* Waits for the streams that freed blocks wait for, then gives all wholly unused segments, and of
 * expandable ones all wholly unused pages, back to the device (PyTorch's empty_cache). */
enum oom_status oom_allocator_release_cached(struct oom_allocator *allocator);

/* Tests and injection: the n-th *device* allocation attempt from now fails with OOM_NOMEM
 * (1 is the next one; 0 switches it off), as if the device were full. */
void oom_allocator_fail_device_at(struct oom_allocator *allocator, uint64_t n);

/* The same for a whole call: the n-th call of alloc from now ends in OOM_NOMEM after the whole
 * retry chain, whatever the cache and the device have. */
void oom_allocator_fail_call_at(struct oom_allocator *allocator, uint64_t n);

/* ---- what it counts: torch.cuda.memory_stats, same names and meaning ---- */

struct oom_counter {
    int64_t current, peak, allocated, freed; /* allocated, freed: sums since the start */
};

enum oom_pool_kind { OOM_POOL_ALL, OOM_POOL_SMALL, OOM_POOL_LARGE, OOM_POOL_COUNT };

#define OOM_STATISTIC_MAP(X) \
    X(allocation) \
    X(allocated_bytes) \
    X(active) \
    X(active_bytes) \
    X(requested_bytes) \
    X(segment) \
    X(reserved_bytes) \
    X(inactive_split) \
    X(inactive_split_bytes)

struct oom_allocator_stats {
#define X(name) struct oom_counter name[OOM_POOL_COUNT];
    OOM_STATISTIC_MAP(X)
#undef X
    struct oom_counter oversize_allocations, oversize_segments;
    uint64_t num_alloc_retries, num_ooms, num_sync_all_streams, num_device_alloc, num_device_free;
    uint64_t num_oom_rejections;                /* by throw_on_cudamalloc_oom */
    uint64_t lowest_allocated, lowest_reserved; /* allocated and reserved bytes at the moment of the
                                                   least allocated / reserved; 0, 0: none yet */
    uint64_t tag_current[OOM_TAG_COUNT];        /* allocated bytes by tag, now */
    uint64_t tag_at_peak[OOM_TAG_COUNT]; /* the same at the moment of the highest allocated_bytes */
    uint64_t allocations;                /* successful and failed calls of alloc since the start */
};

const struct oom_allocator_stats *oom_allocator_stats(const struct oom_allocator *allocator);
void oom_allocator_reset_peaks(struct oom_allocator *allocator);
/* torch.cuda.reset_accumulated_memory_stats: sums and event counts to 0. */
void oom_allocator_reset_accumulated(struct oom_allocator *allocator);

/* Every key of torch.cuda.memory_stats with its value, sorted by key, as PyTorch flattens it
 * ("active.all.current"). Stops at the first status that is not OOM_OK. */
enum oom_status oom_allocator_memory_stats(const struct oom_allocator *allocator,
                                           enum oom_status (*visit)(const char *key, int64_t value,
                                                                    void *context),
                                           void *context);

/* ---- the report of the last OOM ---- */

struct oom_report {
    bool valid;           /* an OOM has happened */
    char site[64];        /* which allocation */
    enum oom_tag tag;     /* and what for */
    uint64_t index;       /* its number among all calls of alloc, from 1 */
    uint64_t requested;   /* bytes asked for */
    uint64_t rounded;     /* block size */
    uint64_t wanted;      /* segment size asked of the device */
    bool injected;        /* by oom_allocator_fail_call_at: the figures need not add up to a lack */
    uint64_t capacity;    /* of the device */
    uint64_t limit;       /* what this allocator may reserve (fraction); UINT64_MAX: no limit */
    uint64_t released;    /* given back to the device by this call's retries */
    uint64_t device_free; /* what the device had left after the cache was released */
    uint64_t reserved;    /* held by this allocator */
    uint64_t allocated;   /* of it in live blocks */
    uint64_t foreign;     /* used on the device, but not by this allocator */
    uint64_t cached;      /* reserved and free: what fragmentation holds back */
    uint64_t cached_pieces;            /* in how many free blocks */
    uint64_t largest_cached;           /* the largest of them */
    uint64_t largest_usable;           /* of the request's own pool and stream */
    uint64_t private_cached;           /* of the cached bytes those in private pools */
    uint64_t tag_bytes[OOM_TAG_COUNT]; /* live bytes by tag */
    bool rejected; /* by throw_on_cudamalloc_oom: nothing was tried, nothing given back */
    struct oom_fragmentation fragmentation; /* the state, and who pins what */
    struct oom_allocator_settings settings; /* in force */
};

const struct oom_report *oom_allocator_report(const struct oom_allocator *allocator);
/* For people, human sizes. The line: what was wanted and what there was, as the failure record has
 * it. The text: that line, then one each of fragmentation, pins, settings in force and advice,
 * which hangs on the settings and the state. No trailing newline. Both return as snprintf. */
int oom_report_line(const struct oom_report *report, char *out, size_t n);
int oom_report_text(const struct oom_report *report, char *out, size_t n);
/* The same moment in PyTorch's own words, as the profile has them. What other processes hold is
 * left out, as PyTorch does where the driver's library does not answer. Returns as snprintf. */
int oom_report_pytorch_text(const struct oom_report *report, enum oom_profile profile, char *out,
                            size_t n);

/* ---- trace and inspection ---- */

#define OOM_ACTION_MAP(X) \
    X(ALLOC, "alloc") \
    X(FREE_REQUESTED, "free_requested") \
    X(FREE_COMPLETED, "free_completed") \
    X(SEGMENT_ALLOC, "segment_alloc") \
    X(SEGMENT_FREE, "segment_free") \
    X(SEGMENT_MAP, "segment_map") \
    X(SEGMENT_UNMAP, "segment_unmap") \
    X(OOM, "oom") \
    X(SNAPSHOT, "snapshot")

enum oom_action {
#define X(id, name) OOM_ACTION_##id,
    OOM_ACTION_MAP(X)
#undef X
};

const char *oom_action_name(enum oom_action action);

struct oom_trace_event {
    enum oom_action action;
    enum oom_tag tag;
    uint64_t address; /* of block or segment; for oom the device's free bytes */
    uint64_t bytes;   /* alloc, free: as requested; oom: rounded; segment, map: its size */
    uint64_t stream;  /* number: 0 is the default stream */
    struct oom_pool_id pool;
    uint64_t time_us; /* monotonic, from the allocator's creation */
    char site[64];
};

uint64_t oom_allocator_trace_count(const struct oom_allocator *allocator); /* held in the ring */
uint64_t oom_allocator_trace_dropped(const struct oom_allocator *allocator);
/* i from 0, oldest first; NULL past the end. The event is valid until the next call of this. */
const struct oom_trace_event *oom_allocator_trace_at(const struct oom_allocator *allocator,
                                                     uint64_t i);

struct oom_block_view {
    uint64_t segment, segment_bytes; /* address and size of the segment it lies in; of an
                                        expandable one, of the mapped run of pages */
    bool small_pool, expandable;
    uint64_t stream; /* number, of the segment */
    struct oom_pool_id pool;
    uint64_t address, bytes, requested;
    bool allocated;
    bool pending; /* freed, but other streams are not done with it: active, not allocated */
    enum oom_tag tag;
    const char *site; /* valid during the visit */
};

/* Every mapped block, segments in order of address. Stops at the first status that is not OOM_OK.
 * With guards `address` is the block's own: what alloc gave lies guard_bytes above. */
enum oom_status oom_allocator_walk(const struct oom_allocator *allocator,
                                   enum oom_status (*visit)(const struct oom_block_view *block,
                                                            void *context),
                                   void *context);

/* Recomputes every statistic from the blocks and compares: OOM_INTERNAL names the first that
 * differs. */
enum oom_status oom_allocator_check(const struct oom_allocator *allocator);

/* With guards: reads every live block's guard regions back; *damaged counts blocks whose guards
 * changed, and the failure record names the first (the status is OOM_OK: the check was made). A
 * block's guards are also checked when it is freed (counted in the same figure until the next
 * call). A region once found damaged is not mended, so it counts again. Always 0 on a device that
 * does not compute. */
enum oom_status oom_allocator_guards_check(struct oom_allocator *allocator, uint64_t *damaged);

#endif
