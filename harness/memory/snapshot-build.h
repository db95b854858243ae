/*
 * snapshot-build.h: how every reader fills in a snapshot: arrays that grow, names and pools kept
 * once, and the checks that hold whatever the format was.
 *
 * The builder owns its tables and, until oom_build_finish, the snapshot's arrays. After a failure
 * call oom_build_abandon. `unit` and `at` say where in the file the reader is; failures carry them.
 */
#ifndef OOM_HARNESS_MEMORY_SNAPSHOT_BUILD_H
#define OOM_HARNESS_MEMORY_SNAPSHOT_BUILD_H

#include "harness/memory/address-map.h"
#include "harness/memory/snapshot.h"

#include <inttypes.h>

enum {
    OOM_SNAPSHOT_DEVICES = 128, /* as PyTorch has it: a device is an int8 */
    OOM_SNAPSHOT_SITE = 64      /* bytes of a name with its NUL */
};

struct oom_snapshot_builder {
    struct oom_snapshot out;
    const char *name; /* of the file */
    const char *unit; /* "byte", "line" */
    uint64_t at;

    uint64_t segment_room, block_room, event_room, trace_room, pool_room, site_room;
    uint64_t text_used, text_room;
    struct oom_address_map pool_index, site_index;
    uint16_t pool_last;
    bool sorted; /* segments came by device and address */
};

/* What the file says the sums over a segment's blocks are. */
struct oom_build_sums {
    bool has_allocated, has_active, has_requested;
    uint64_t allocated, active, requested;
};

#define oom_build_fail(build, format, ...) \
    oom_fail(OOM_USAGE, "%.80s: %s %" PRIu64 ": " format, (build)->name, (build)->unit, \
             (build)->at, __VA_ARGS__)

enum oom_status oom_build_begin(struct oom_snapshot_builder *build, const char *name,
                                const char *unit);
/* `pool` and `site` of what is added must have come from here. */
enum oom_status oom_build_pool(struct oom_snapshot_builder *build, struct oom_pool_id id,
                               uint16_t *out);
/* Any bytes: what is not UTF-8 or a control becomes '?'; cut at 63 bytes. */
enum oom_status oom_build_site(struct oom_snapshot_builder *build, const char *text, size_t bytes,
                               uint32_t *out);
enum oom_status oom_build_event(struct oom_snapshot_builder *build,
                                const struct oom_snapshot_event *event);
/* The next device's: everything added since the last trace. */
enum oom_status oom_build_trace(struct oom_snapshot_builder *build);
/* A segment first, then its blocks in order of address, then its check. */
enum oom_status oom_build_segment(struct oom_snapshot_builder *build,
                                  const struct oom_snapshot_segment *segment);
enum oom_status oom_build_block(struct oom_snapshot_builder *build,
                                const struct oom_snapshot_block *block);
/* The blocks fill the segment, and their sums are what the file says; the segment gets the sums. */
enum oom_status oom_build_segment_check(struct oom_snapshot_builder *build,
                                        const struct oom_build_sums *said);

/* Sorts, looks for overlaps, hands the snapshot over. */
enum oom_status oom_build_finish(struct oom_snapshot_builder *build, struct oom_snapshot *out);
void oom_build_abandon(struct oom_snapshot_builder *build);

/* "name (file:line)": the parts of a frame as one name, in 63 bytes; the name gives way. Returns
 * the length. */
size_t oom_site_compose(const char *name, size_t name_bytes, const char *file, size_t file_bytes,
                        int64_t line, char out[OOM_SNAPSHOT_SITE]);
struct oom_site_parts {
    const char *name, *file;
    int name_bytes, file_bytes;
    int64_t line;
};
/* The parts from which oom_site_compose makes the same text. */
struct oom_site_parts oom_site_split(const char *text);

#endif
