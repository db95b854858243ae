#include "harness/memory/trace.h"

#include "kernels/hostmem.h"

enum { CHUNK = 1024 };

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

static struct oom_trace_record *at(const struct oom_trace *trace, uint64_t place) {
    return &trace->chunks[place / CHUNK][place % CHUNK];
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

void oom_trace_add(struct oom_trace *trace, const struct oom_trace_record *record) {
    trace->written++;
    if (trace->next == trace->room && trace->room < trace->limit) grow(trace);
    if (trace->room == 0) return;
    if (trace->next == trace->room) trace->next = 0;
    *at(trace, trace->next++) = *record;
    if (trace->held < trace->room) trace->held++;
}

const struct oom_trace_record *oom_trace_get(const struct oom_trace *trace, uint64_t i) {
    uint64_t oldest = trace->next >= trace->held ? trace->next - trace->held
                                                 : trace->next + trace->room - trace->held;
    return at(trace, (oldest + i) % trace->room);
}
