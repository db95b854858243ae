/*
 * allocator.h: the caching allocator, over any device, modelled on PyTorch's to the byte
 * (decisions of profile `pytorch-2.13`: rounding, pools, segments, best fit, split, merge, the
 * retry chain, release of cached blocks, statistics, trace).
 *
 * The allocator owns the segments it takes from the device and all blocks within; a caller owns a
 * block from alloc to free. It borrows the device, which must outlive it. Not thread-safe.
 * Failure: OOM_NOMEM after the whole retry chain, with oom_allocator_report() filled in and the
 * allocator usable; OOM_INVALID for an address that is not a live block; OOM_HOST_NOMEM when the
 * host cannot hold the bookkeeping: nothing has changed then.
 */
#ifndef OOM_HARNESS_MEMORY_ALLOCATOR_H
#define OOM_HARNESS_MEMORY_ALLOCATOR_H

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

/* ---- settings ---- */

enum { OOM_ROUNDUP_CLASSES = 16 };

/* Begin with oom_allocator_settings_default(), never with zeros. */
struct oom_allocator_settings {
    uint64_t trace_entries; /* ring of the newest events; 0: no trace */
    uint64_t guard_bytes;   /* guard region on each side of every block, multiple of 512, at most
                               1 GiB; 0: none. Guards change block sizes, and so what fits. */
    char conf[256];         /* the settings string as given, for reports */

    /* The keys of the string, as PyTorch documents them; sizes in bytes. */
    uint64_t max_split_size;             /* UINT64_MAX: no limit, the default */
    uint64_t max_non_split_rounding;     /* 20 MiB */
    uint64_t large_segment_size;         /* 20 MiB */
    double garbage_collection_threshold; /* in (0, 1); 0: off. Acts only beside a fraction < 1 */
    double per_process_memory_fraction;  /* in [0, 1]; 1: no limit beside the device's */
    uint32_t roundup_power2_divisions[OOM_ROUNDUP_CLASSES]; /* by floor(log2 MiB), 0: none */
};

/* The defaults: no guards, a trace of 65536 events, an empty string, PyTorch's own values. */
struct oom_allocator_settings oom_allocator_settings_default(void);

/* Parses the grammar of PYTORCH_CUDA_ALLOC_CONF, strictly: a bad string is OOM_USAGE and the
 * failure names key, column, what is allowed and what PyTorch would have done with it. Only the
 * keys implemented are accepted. As in PyTorch, a new string sets the keys that it does
 * not name back to their defaults, but for large_segment_size_mb and per_process_memory_fraction,
 * which keep what *settings has. *settings is untouched on failure. */
enum oom_status oom_allocator_settings_parse(const char *conf,
                                             struct oom_allocator_settings *settings);

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
 * on its own stream; before it is freed, what other streams do with it must have finished. */
enum oom_status oom_allocator_alloc(struct oom_allocator *allocator, uint64_t bytes,
                                    struct oom_stream *stream, enum oom_tag tag, const char *site,
                                    oom_devptr *out);
/* ptr 0 is allowed and does nothing. With guards a damaged block is freed like any other; the
 * damage is counted for oom_allocator_guards_check. */
enum oom_status oom_allocator_free(struct oom_allocator *allocator, oom_devptr ptr);

/* Gives all wholly unused segments back to the device (PyTorch's empty_cache). */
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
    uint64_t tag_current[OOM_TAG_COUNT]; /* allocated bytes by tag, now */
    uint64_t tag_at_peak[OOM_TAG_COUNT]; /* the same at the moment of the highest allocated_bytes */
    uint64_t allocations;                /* successful and failed calls of alloc since the start */
};

const struct oom_allocator_stats *oom_allocator_stats(const struct oom_allocator *allocator);
void oom_allocator_reset_peaks(struct oom_allocator *allocator);

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
    uint64_t tag_bytes[OOM_TAG_COUNT]; /* live bytes by tag */
};

const struct oom_report *oom_allocator_report(const struct oom_allocator *allocator);
/* One paragraph for people: human sizes, no trailing newline. Returns as snprintf. */
int oom_report_text(const struct oom_report *report, char *out, size_t n);

/* ---- trace and inspection ---- */

#define OOM_ACTION_MAP(X) \
    X(ALLOC, "alloc") \
    X(FREE_REQUESTED, "free_requested") \
    X(FREE_COMPLETED, "free_completed") \
    X(SEGMENT_ALLOC, "segment_alloc") \
    X(SEGMENT_FREE, "segment_free") \
    X(OOM, "oom")

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
    uint64_t bytes;   /* alloc, free: as requested; oom: rounded; segment: its size */
    uint64_t stream;  /* number: 0 is the default stream */
    uint64_t time_us; /* monotonic, from the allocator's creation */
    char site[64];
};

uint64_t oom_allocator_trace_count(const struct oom_allocator *allocator); /* held in the ring */
uint64_t oom_allocator_trace_dropped(const struct oom_allocator *allocator);
/* i from 0, oldest first; NULL past the end. The event is valid until the next call of this. */
const struct oom_trace_event *oom_allocator_trace_at(const struct oom_allocator *allocator,
                                                     uint64_t i);

struct oom_block_view {
    uint64_t segment, segment_bytes; /* address and size of the segment it lies in */
    bool small_pool;
    uint64_t address, bytes, requested;
    bool allocated;
    enum oom_tag tag;
    const char *site; /* valid during the visit */
};

/* Every block, segments in order of address. Stops at the first status that is not OOM_OK. With
 * guards `address` is the block's own: what alloc gave lies guard_bytes above. */
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
