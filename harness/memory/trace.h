/*
 * trace.h: the ring of the newest events, 32 bytes each, in chunks that are taken as it fills.
 *
 * The ring owns its chunks. Recording never fails: where the host refuses the next chunk the ring
 * stays as long as it is and overwrites its oldest events, which `dropped` counts.
 */
#ifndef OOM_HARNESS_MEMORY_TRACE_H
#define OOM_HARNESS_MEMORY_TRACE_H

#include "kernels/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct oom_trace_record {
    uint64_t address, bytes;
    uint64_t time_us : 48, pool : 16; /* 48 bits are nine years */
    uint32_t site;
    uint16_t stream;
    uint8_t action, tag;
};

struct oom_trace {
    struct oom_trace_record *at, *end; /* where the next record goes, and the end of its chunk */
    struct oom_trace_record **chunks;
    uint64_t limit;   /* records to hold at most; 0: records nothing */
    uint64_t room;    /* records there are chunks for */
    uint64_t written; /* since the start */
};

/* The time of events: microseconds since it was started, never going back. On x86-64 the clock is
 * asked only when the processor's own counter has moved by OOM_CLOCK_TICKS (less than a microsecond
 * from 1 GHz on) since it was last asked, as asking costs more than all else in a record; elsewhere
 * it is always asked. So a time may be one microsecond early, and no more. */
struct oom_trace_clock {
    uint64_t start_us, now_us, ticks;
};

enum { OOM_CLOCK_TICKS = 1000 };

void oom_trace_clock_start(struct oom_trace_clock *clock);
void oom_trace_clock_ask(struct oom_trace_clock *clock, uint64_t ticks);

/* Brings clock->now_us up to date. */
static inline void oom_trace_clock_read(struct oom_trace_clock *clock) {
#ifdef __x86_64__
    uint64_t ticks = __builtin_ia32_rdtsc();
    if (ticks - clock->ticks < OOM_CLOCK_TICKS) return; /* not so when it went back, either */
#else
    uint64_t ticks = 0;
#endif
    oom_trace_clock_ask(clock, ticks);
}

enum oom_status oom_trace_init(struct oom_trace *trace, uint64_t entries);
void oom_trace_free(struct oom_trace *trace);
/* The next chunk, or the first one again; false: there is no room at all. */
bool oom_trace_turn(struct oom_trace *trace);
uint64_t oom_trace_held(const struct oom_trace *trace);
/* i from 0, the oldest, to held - 1. */
const struct oom_trace_record *oom_trace_get(const struct oom_trace *trace, uint64_t i);

/* The place of one more record, which the caller fills in; NULL: none is kept. */
static inline struct oom_trace_record *oom_trace_add(struct oom_trace *trace) {
    if (trace->limit == 0) return NULL;
    trace->written++;
    if (trace->at == trace->end && !oom_trace_turn(trace)) return NULL;
    return trace->at++;
}

#endif
