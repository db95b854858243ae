/*
 * Chrome's trace format, for https://ui.perfetto.dev and chrome://tracing: one process per device;
 * every allocation an asynchronous slice from its `alloc` to its `free_completed`, named by its
 * site; counters; out-of-memory and snapshots as instants. Times are microseconds from the first
 * event and never run backwards; a recording without times gets the numbers of its events.
 *
 * Counters are sums of the sizes in the events: reserved as asked of the device, allocated and
 * active as requested by the program. A recording that begins mid-run begins with what is left when
 * the events are undone from the final segments.
 */
#include "harness/memory/address-map.h"
#include "harness/memory/snapshot.h"

#include <inttypes.h>

/* Bytes, modulo 2^64: a recording may claim any sizes. Below zero counts as zero. */
struct level {
    uint64_t reserved, allocated, active;
};

struct trace_writer {
    struct oom_json_writer json;
    const struct oom_snapshot *s;
    struct oom_address_map live; /* address -> number of the event that began the slice */
    uint64_t device;
    uint64_t base_us, now_us;
    bool timed;
    struct level level;
};

static void level_add(struct level *level, const struct oom_snapshot_event *event, int sign) {
    uint64_t bytes = sign > 0 ? event->bytes : -event->bytes;
    switch ((enum oom_action)event->action) {
    case OOM_ACTION_ALLOC:
        level->allocated += bytes;
        level->active += bytes;
        break;
    case OOM_ACTION_FREE_REQUESTED:
        level->allocated -= bytes;
        break;
    case OOM_ACTION_FREE_COMPLETED:
        level->active -= bytes;
        break;
    case OOM_ACTION_SEGMENT_ALLOC:
    case OOM_ACTION_SEGMENT_MAP:
        level->reserved += bytes;
        break;
    case OOM_ACTION_SEGMENT_FREE:
    case OOM_ACTION_SEGMENT_UNMAP:
        level->reserved -= bytes;
        break;
    case OOM_ACTION_OOM:
    case OOM_ACTION_SNAPSHOT:
        break;
    }
}

static uint64_t not_below_zero(uint64_t value) {
    return value <= (uint64_t)INT64_MAX ? value : 0;
}

static struct level level_at_start(const struct oom_snapshot *s, uint64_t device) {
    struct level level = {0};
    for (uint64_t i = 0; i < s->segment_count; i++) {
        const struct oom_snapshot_segment *segment = &s->segments[i];
        if ((uint64_t)segment->device != device) continue;
        level.reserved += segment->bytes;
        for (uint64_t k = 0; k < segment->block_count; k++) {
            const struct oom_snapshot_block *block = &s->blocks[segment->first_block + k];
            uint64_t bytes = block->requested;
            if (block->state == OOM_BLOCK_ALLOCATED) level.allocated += bytes;
            if (block->state != OOM_BLOCK_INACTIVE) level.active += bytes;
        }
    }
    const struct oom_snapshot_trace *trace = &s->traces[device];
    for (uint64_t i = trace->first; i < trace->first + trace->count; i++)
        level_add(&level, &s->events[i], -1);
    return (struct level){not_below_zero(level.reserved), not_below_zero(level.allocated),
                          not_below_zero(level.active)};
}

/* ---- records ---- */

/* {"ph", "name", "pid", "tid", "ts" and whatever the caller adds */
static void record_begin(struct trace_writer *w, const char *phase, const char *name) {
    oom_json_object_begin(&w->json);
    oom_json_put_string(&w->json, "ph", phase);
    oom_json_put_string(&w->json, "name", name);
    oom_json_put_uint64(&w->json, "pid", w->device);
    oom_json_put_uint64(&w->json, "tid", 0);
    oom_json_put_uint64(&w->json, "ts", w->now_us);
}

static void put_slice(struct trace_writer *w, const char *phase, uint64_t id,
                      const struct oom_snapshot_event *event) {
    char text[24];
    const char *site = oom_snapshot_site(w->s, event->site);
    record_begin(w, phase, *site != 0 ? site : "allocation");
    oom_json_put_string(&w->json, "cat", "allocation");
    snprintf(text, sizeof text, "0x%" PRIx64, id);
    oom_json_put_string(&w->json, "id", text);
    if (*phase == 'b') {
        oom_json_key(&w->json, "args");
        oom_json_object_begin(&w->json);
        snprintf(text, sizeof text, "0x%" PRIx64, event->address);
        oom_json_put_string(&w->json, "address", text);
        oom_json_put_uint64(&w->json, "bytes", event->bytes);
        oom_json_put_uint64(&w->json, "stream", event->stream);
        oom_json_object_end(&w->json);
    }
    oom_json_object_end(&w->json);
}

static void put_counter(struct trace_writer *w, const char *name, uint64_t bytes) {
    record_begin(w, "C", name);
    oom_json_key(&w->json, "args");
    oom_json_object_begin(&w->json);
    oom_json_put_uint64(&w->json, "bytes", not_below_zero(bytes));
    oom_json_object_end(&w->json);
    oom_json_object_end(&w->json);
}

/* Those that changed; all where `before` is NULL. */
static void put_counters(struct trace_writer *w, const struct level *before) {
    const struct level *now = &w->level;
    if (before == NULL || before->reserved != now->reserved)
        put_counter(w, "reserved", now->reserved);
    if (before == NULL || before->allocated != now->allocated)
        put_counter(w, "allocated", now->allocated);
    if (before == NULL || before->active != now->active) put_counter(w, "active", now->active);
}

static void put_instant(struct trace_writer *w, const struct oom_snapshot_event *event) {
    bool oom = event->action == OOM_ACTION_OOM;
    record_begin(w, "i", oom ? "out of memory" : "snapshot");
    oom_json_put_string(&w->json, "s", "p");
    oom_json_key(&w->json, "args");
    oom_json_object_begin(&w->json);
    if (oom) oom_json_put_string(&w->json, "site", oom_snapshot_site(w->s, event->site));
    oom_json_put_uint64(&w->json, "bytes", event->bytes);
    if (oom) oom_json_put_uint64(&w->json, "device_free", event->address);
    oom_json_object_end(&w->json);
    oom_json_object_end(&w->json);
}

static void put_process(struct trace_writer *w) {
    char name[32];
    snprintf(name, sizeof name, "device %" PRIu64, w->device);
    record_begin(w, "M", "process_name");
    oom_json_key(&w->json, "args");
    oom_json_object_begin(&w->json);
    oom_json_put_string(&w->json, "name", name);
    oom_json_object_end(&w->json);
    oom_json_object_end(&w->json);
}

/* ---- events ---- */

/* What is freed without having been allocated was there at the start. */
static enum oom_status put_initial(struct trace_writer *w, const struct oom_snapshot_trace *trace) {
    struct oom_address_map seen = {0};
    enum oom_status status = OOM_OK;
    for (uint64_t i = trace->first; status == OOM_OK && i < trace->first + trace->count; i++) {
        const struct oom_snapshot_event *event = &w->s->events[i];
        uint64_t before;
        if (event->action != OOM_ACTION_ALLOC && event->action != OOM_ACTION_FREE_COMPLETED)
            continue;
        bool known = oom_address_map_get(&seen, event->address, &before);
        if (!known) status = oom_address_map_put(&seen, event->address, i);
        if (status != OOM_OK || known || event->action == OOM_ACTION_ALLOC) continue;
        put_slice(w, "b", i, event);
        status = oom_address_map_put(&w->live, event->address, i);
    }
    oom_address_map_free(&seen);
    return status;
}

static enum oom_status put_event(struct trace_writer *w, uint64_t i) {
    const struct oom_snapshot_event *event = &w->s->events[i];
    uint64_t began;
    switch ((enum oom_action)event->action) {
    case OOM_ACTION_ALLOC:
        /* Twice at one place: the first was freed where nobody looked. */
        if (oom_address_map_get(&w->live, event->address, &began))
            put_slice(w, "e", began, &w->s->events[began]);
        put_slice(w, "b", i, event);
        return oom_address_map_put(&w->live, event->address, i);
    case OOM_ACTION_FREE_COMPLETED:
        if (!oom_address_map_get(&w->live, event->address, &began)) return OOM_OK;
        put_slice(w, "e", began, &w->s->events[began]);
        oom_address_map_remove(&w->live, event->address);
        return OOM_OK;
    case OOM_ACTION_OOM:
    case OOM_ACTION_SNAPSHOT:
        put_instant(w, event);
        return OOM_OK;
    case OOM_ACTION_FREE_REQUESTED:
    case OOM_ACTION_SEGMENT_ALLOC:
    case OOM_ACTION_SEGMENT_FREE:
    case OOM_ACTION_SEGMENT_MAP:
    case OOM_ACTION_SEGMENT_UNMAP:
        break;
    }
    return OOM_OK;
}

static void clock_set(struct trace_writer *w, const struct oom_snapshot_trace *trace, uint64_t i) {
    uint64_t time = w->timed ? w->s->events[i].time_us : i - trace->first;
    if (time >= w->base_us && time - w->base_us > w->now_us) w->now_us = time - w->base_us;
}

/* Slices that nobody ended last to the end. In the order of their beginning: that of the table
 * differs from run to run. */
static void put_final(struct trace_writer *w, const struct oom_snapshot_trace *trace) {
    for (uint64_t i = trace->first; i < trace->first + trace->count && w->live.count > 0; i++) {
        uint64_t address = w->s->events[i].address, began;
        if (!oom_address_map_get(&w->live, address, &began) || began != i) continue;
        put_slice(w, "e", i, &w->s->events[i]);
        oom_address_map_remove(&w->live, address);
    }
}

static enum oom_status put_device(struct trace_writer *w) {
    const struct oom_snapshot_trace *trace = &w->s->traces[w->device];
    w->now_us = 0;
    w->level = level_at_start(w->s, w->device);
    put_process(w);
    put_counters(w, NULL);
    OOM_TRY(put_initial(w, trace));
    for (uint64_t i = trace->first; i < trace->first + trace->count; i++) {
        struct level before = w->level;
        clock_set(w, trace, i);
        OOM_TRY(put_event(w, i));
        level_add(&w->level, &w->s->events[i], 1);
        put_counters(w, &before);
    }
    put_final(w, trace);
    oom_address_map_free(&w->live);
    return OOM_OK;
}

/* The earliest of all devices, so that they stay beside each other. */
static void base_find(struct trace_writer *w) {
    const struct oom_snapshot *s = w->s;
    w->base_us = UINT64_MAX;
    for (uint64_t i = 0; i < s->event_count; i++) {
        if (s->events[i].time_us != 0) w->timed = true;
        if (s->events[i].time_us < w->base_us) w->base_us = s->events[i].time_us;
    }
    if (!w->timed) w->base_us = 0;
}

enum oom_status oom_snapshot_write_perfetto(const struct oom_snapshot *snapshot, FILE *out) {
    struct trace_writer w = {.s = snapshot};
    enum oom_status status = OOM_OK;
    oom_json_writer_init_file(&w.json, out, OOM_JSON_COMPACT);
    base_find(&w);
    oom_json_object_begin(&w.json);
    oom_json_put_string(&w.json, "displayTimeUnit", "ms");
    oom_json_key(&w.json, "traceEvents");
    oom_json_array_begin(&w.json);
    for (uint64_t d = 0; d < snapshot->device_count && status == OOM_OK; d++) {
        w.device = d;
        status = put_device(&w);
    }
    oom_json_array_end(&w.json);
    oom_json_object_end(&w.json);
    oom_address_map_free(&w.live);
    enum oom_status finished = oom_json_writer_finish(&w.json, NULL, NULL);
    return status != OOM_OK ? status : finished;
}
