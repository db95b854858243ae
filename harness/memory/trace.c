#include "harness/memory/trace.h"

#include "kernels/hostmem.h"

#include <time.h>

enum { CHUNK = 1024 };

/* ---- time ---- */

static uint64_t monotonic_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

void oom_trace_clock_start(struct oom_trace_clock *clock) {
    *clock = (struct oom_trace_clock){.start_us = monotonic_us()};
}

void oom_trace_clock_ask(struct oom_trace_clock *clock, uint64_t ticks) {
    clock->ticks = ticks;
    clock->now_us = monotonic_us() - clock->start_us;
}

/* ---- the ring ---- */

enum oom_status oom_trace_init(struct oom_trace *trace, uint64_t entries) {
    *trace = (struct oom_trace){.limit = entries};
    if (entries == 0) return OOM_OK;
    trace->chunks = oom_host_calloc((entries + CHUNK - 1) / CHUNK, sizeof *trace->chunks);
    if (trace->chunks != NULL) return OOM_OK;
    return oom_fail(OOM_HOST_NOMEM, "allocator: no host memory for a trace of %llu events",
                    (unsigned long long)entries);
}

void oom_trace_free(struct oom_trace *trace) {
    for (uint64_t i = 0; i * CHUNK < trace->room; i++) oom_host_free(trace->chunks[i]);
    oom_host_free(trace->chunks);
    *trace = (struct oom_trace){0};
}

static void grow(struct oom_trace *trace) {
    uint64_t left = trace->limit - trace->room;
    uint64_t more = left < CHUNK ? left : CHUNK;
    struct oom_trace_record *chunk = oom_host_alloc(more * sizeof *chunk);
    if (chunk == NULL) {
        trace->limit = trace->room;
        return;
    }
    trace->chunks[trace->room / CHUNK] = chunk;
    trace->room += more;
}

/* Record n lies at n % room: as long as the ring grows, n is below. `written` counts the record
 * that is on its way. */
bool oom_trace_turn(struct oom_trace *trace) {
    uint64_t n = trace->written - 1;
    if (n == trace->room && n < trace->limit) grow(trace);
    if (trace->room == 0) return false;
    uint64_t place = n % trace->room, chunk = place / CHUNK;
    uint64_t end = trace->room - chunk * CHUNK;
    trace->at = &trace->chunks[chunk][place % CHUNK];
    trace->end = &trace->chunks[chunk][end < CHUNK ? end : CHUNK];
    return true;
}

uint64_t oom_trace_held(const struct oom_trace *trace) {
    return trace->written < trace->room ? trace->written : trace->room;
}

const struct oom_trace_record *oom_trace_get(const struct oom_trace *trace, uint64_t i) {
    uint64_t place = (trace->written - oom_trace_held(trace) + i) % trace->room;
    return &trace->chunks[place / CHUNK][place % CHUNK];
}
