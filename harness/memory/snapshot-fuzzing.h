/*
 * snapshot-fuzzing.h: what the fuzzers of the readers ask of whatever was fed: a refusal is
 * OOM_USAGE with a message, memory stays in proportion, and what was accepted survives being
 * written and read again.
 */
#ifndef OOM_HARNESS_MEMORY_SNAPSHOT_FUZZING_H
#define OOM_HARNESS_MEMORY_SNAPSHOT_FUZZING_H

#include "harness/base/json-read.h"
#include "harness/memory/snapshot-testing.h"

enum { FUZZ_BYTES_EACH = 512, FUZZ_BYTES_BASE = 1 << 20 };

static inline int fuzz_wrong(const char *name, const char *what, const char *detail) {
    fprintf(stderr, "%s: %s: %s\n", name, what, detail);
    return 1;
}

static inline bool perfetto_is_json(const struct oom_snapshot *snapshot) {
    struct memory_stream stream;
    struct oom_json_document *document = NULL;
    enum oom_status status = snapshot_written(snapshot, oom_snapshot_write_perfetto, &stream);
    if (status == OOM_OK)
        status = oom_json_parse("perfetto", stream.data, stream.bytes, 0, &document);
    oom_json_document_free(document);
    oom_host_free(stream.data);
    return status == OOM_OK;
}

/* After parsing n bytes, begun with `before` bytes in use and a reset peak. Frees *snapshot. */
static inline int fuzz_judge(const char *name, enum oom_status status, size_t n, uint64_t before,
                             struct oom_snapshot *snapshot) {
    if (oom_host_bytes_peak() - before > (uint64_t)n * FUZZ_BYTES_EACH + FUZZ_BYTES_BASE)
        return fuzz_wrong(name, "memory out of proportion", "");
    if (status != OOM_OK) {
        if (status != OOM_USAGE) return fuzz_wrong(name, "status", oom_status_name(status));
        if (oom_failure_last()->message[0] == 0) return fuzz_wrong(name, "no message", "");
        return oom_host_bytes_current() == before ? 0 : fuzz_wrong(name, "a leak", "");
    }
    const char *why = snapshot_round_trip(snapshot, oom_snapshot_write_pickle);
    if (why != NULL) return fuzz_wrong(name, "pickle differs", why);
    why = snapshot_round_trip(snapshot, oom_snapshot_write_json);
    if (why != NULL) return fuzz_wrong(name, "json differs", why);
    if (!perfetto_is_json(snapshot)) return fuzz_wrong(name, "perfetto is no JSON", "");
    oom_snapshot_free(snapshot);
    return oom_host_bytes_current() == before ? 0 : fuzz_wrong(name, "a leak", "");
}

#endif
