/*
 * trace.h: the ring of the newest events, 32 bytes each, in chunks that are taken as it fills.
 *
 * The ring owns its chunks. Recording never fails: where the host refuses the next chunk the ring
 * stays as long as it is and overwrites its oldest events, which `dropped` counts.
 */
#ifndef OOM_HARNESS_MEMORY_TRACE_H
#define OOM_HARNESS_MEMORY_TRACE_H

#include "kernels/status.h"

#include <stdint.h>

struct oom_trace_record {
    uint64_t address, bytes, time_us;
    uint32_t site;
    uint16_t stream;
    uint8_t action, tag;
};

struct oom_trace {
    struct oom_trace_record **chunks;
    uint64_t limit;   /* records to hold at most */
    uint64_t room;    /* records there are chunks for */
    uint64_t written; /* since the start */
    uint64_t next;    /* place of the next record */
    uint64_t held;
};

enum oom_status oom_trace_init(struct oom_trace *trace, uint64_t entries); /* 0: records nothing */
void oom_trace_free(struct oom_trace *trace);
void oom_trace_add(struct oom_trace *trace, const struct oom_trace_record *record);
/* i from 0, the oldest, to held - 1. */
const struct oom_trace_record *oom_trace_get(const struct oom_trace *trace, uint64_t i);

#endif
