/*
 * snapshot.h: a recorded run in memory: what PyTorch's _dump_snapshot, an RMM log, or this program
 * wrote, in one form; reading it safely from any of those, and writing it.
 *
 * Reading trusts nothing: pickles are interpreted by a machine that knows plain data only (every
 * opcode that names a class or calls is refused), with bounds on size, depth and memo, in memory
 * proportional to the file. Bad input is OOM_USAGE, and the failure names file, byte offset or
 * line, what was expected and what was found. A snapshot owns its arrays until
 * oom_snapshot_free; zero-initialised is empty.
 */
#ifndef OOM_HARNESS_MEMORY_SNAPSHOT_H
#define OOM_HARNESS_MEMORY_SNAPSHOT_H

#include "harness/base/json-write.h"
#include "harness/memory/allocator.h"

#include <stdio.h>

#define OOM_SNAPSHOT_KIND_MAP(X) \
    X(PYTORCH, "PyTorch snapshot")                    /* pickle, blocks with addresses */ \
    X(PYTORCH_2_0, "PyTorch snapshot, layout of 2.0") /* blocks with `history` */ \
    X(RMM, "RMM log")                                 /* CSV */ \
    X(OOMBENCH, "oombench trace")                     /* JSON of a results file */

enum oom_snapshot_kind {
#define X(id, name) OOM_SNAPSHOT_KIND_##id,
    OOM_SNAPSHOT_KIND_MAP(X)
#undef X
};

const char *oom_snapshot_kind_name(enum oom_snapshot_kind kind);

enum oom_block_state { OOM_BLOCK_INACTIVE, OOM_BLOCK_ALLOCATED, OOM_BLOCK_PENDING_FREE };

struct oom_snapshot_block {
    uint64_t address, bytes, requested;
    uint32_t site; /* index into sites */
    uint8_t state; /* enum oom_block_state */
};

struct oom_snapshot_segment {
    uint64_t address, bytes; /* expandable: one entry per contiguous mapped run */
    uint64_t allocated, active, requested;
    uint64_t stream; /* handle, as recorded */
    struct oom_pool_id pool;
    uint64_t first_block, block_count; /* in blocks */
    uint32_t site;
    int32_t device;
    bool small_pool, expandable;
};

struct oom_snapshot_event {
    uint64_t address; /* oom: the device's free bytes */
    uint64_t bytes;
    uint64_t stream; /* handle */
    uint64_t time_us;
    uint32_t site;
    uint16_t pool;  /* index into pools */
    uint8_t action; /* enum oom_action */
};

/* The events of one device, oldest first: a part of `events`. */
struct oom_snapshot_trace {
    uint64_t first, count;
};

struct oom_snapshot {
    enum oom_snapshot_kind kind;
    struct oom_snapshot_segment *segments; /* by device, then address */
    uint64_t segment_count;
    struct oom_snapshot_block *blocks;
    uint64_t block_count;
    struct oom_snapshot_event *events;
    uint64_t event_count;
    uint64_t events_skipped; /* of actions that are unknown here ("annotate"), not in `events` */
    struct oom_snapshot_trace *traces; /* by device */
    uint64_t device_count;
    struct oom_pool_id *pools; /* [0] is {0, 0}; those of events and of segments */
    uint64_t pool_count;
    char *site_text; /* all names, each NUL-terminated; sites[i] is an offset; [0] is "" */
    uint64_t *sites;
    uint64_t site_count;

    bool has_settings;       /* the recording names its settings: */
    char conf[OOM_CONF_MAX]; /* its string, lenient; and the fields beside it */
    bool expandable_segments;
    int64_t max_split_size; /* bytes, -1: unlimited */
    double garbage_collection_threshold;
    uint32_t roundup_power2_divisions[OOM_ROUNDUP_CLASSES];

    uint64_t capacity;        /* of the device where the recording says it (our own); else 0 */
    enum oom_profile profile; /* our own: whose decisions; else OOM_PROFILE_COUNT */
};

void oom_snapshot_free(struct oom_snapshot *snapshot);
static inline const char *oom_snapshot_site(const struct oom_snapshot *snapshot, uint32_t site) {
    return site < snapshot->site_count ? snapshot->site_text + snapshot->sites[site] : "";
}

/* ---- reading ---- */

/* By what is in the file, not by its name. `part`: of a results file, which case's trace ("" or
 * NULL: the only one, else the failure lists them); of others it must be empty. */
enum oom_status oom_snapshot_read(const char *path, const char *part, struct oom_snapshot *out);
/* The same from memory; `name` is for messages. The bytes are not kept. */
enum oom_status oom_snapshot_parse(const char *name, const void *bytes, size_t n, const char *part,
                                   struct oom_snapshot *out);

/* ---- writing; each streams, and returns OOM_IO when the stream failed ---- */

/* PyTorch's format, pickle protocol 4, for PyTorch's own tools: a site is a frame, what stands in
 * parentheses at its end the frame's file and line. What PyTorch has no place for (capacity,
 * profile) stands under a key of our own, "oombench"; events_skipped is lost. */
enum oom_status oom_snapshot_write_pickle(const struct oom_snapshot *snapshot, FILE *out);
/* Chrome trace JSON, for https://ui.perfetto.dev ("Open trace file"): allocations as slices,
 * reserved, active and allocated bytes as counters, out-of-memory as instants. */
enum oom_status oom_snapshot_write_perfetto(const struct oom_snapshot *snapshot, FILE *out);
/* One JSON object on one line, as results files hold it; oom_snapshot_parse reads it alone, too. */
enum oom_status oom_snapshot_write_json(const struct oom_snapshot *snapshot, FILE *out);
/* The same object as a value of a larger document; errors stay with the writer. */
void oom_snapshot_put_json(const struct oom_snapshot *snapshot, struct oom_json_writer *json);

/* What an allocator holds and remembers now; sites are "site (tag)". A trace that lost its oldest
 * events is no error. */
enum oom_status oom_snapshot_take(const struct oom_allocator *allocator, struct oom_snapshot *out);

#endif
