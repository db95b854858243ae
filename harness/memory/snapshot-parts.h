/*
 * snapshot-parts.h: the readers behind oom_snapshot_parse, one for each kind of file; nobody but
 * snapshot.c, tests and fuzzers includes it. Ownership and failure are those of oom_snapshot_parse.
 */
#ifndef OOM_HARNESS_MEMORY_SNAPSHOT_PARTS_H
#define OOM_HARNESS_MEMORY_SNAPSHOT_PARTS_H

#include "harness/memory/snapshot.h"

enum oom_status oom_snapshot_parse_pickle(const char *name, const void *bytes, size_t n,
                                          struct oom_snapshot *out);
enum oom_status oom_snapshot_parse_rmm(const char *name, const void *bytes, size_t n,
                                       struct oom_snapshot *out);
enum oom_status oom_snapshot_parse_json(const char *name, const void *bytes, size_t n,
                                        const char *part, struct oom_snapshot *out);

#endif
