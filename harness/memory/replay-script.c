/*
 * replay-script.c: a device that answers as the recorded one did. It hands out
 * the addresses that the recording names next, refuses where the recording goes
 * on without the memory asked for, and writes down the first call that the
 * recording does not know.
 */
#include "harness/memory/replay-internal.h"

#include <stdarg.h>
#include <stdio.h>

static struct oom_script *script_of(struct oom_device *device) {
    return (struct oom_script *)device;
}

/* ---- the window ---- */

void oom_script_window(struct oom_script *script, uint64_t first, uint64_t end) {
    script->at = first;
    script->end = end;
    script->unmapped = 0;
}

static bool concerns_device(uint8_t action) {
    return action == OOM_ACTION_SEGMENT_ALLOC || action == OOM_ACTION_SEGMENT_FREE ||
           action == OOM_ACTION_SEGMENT_MAP || action == OOM_ACTION_SEGMENT_UNMAP;
}

const struct oom_snapshot_event *oom_script_next(struct oom_script *script) {
    const struct oom_snapshot_event *events = script->recording->events;
    while (script->at < script->end && !concerns_device(events[script->at].action)) script->at++;
    return script->at < script->end ? &events[script->at] : NULL;
}

/* What the recording has where the model did something else. */
static void expected_text(struct oom_script *script, const struct oom_snapshot_event *next,
                          char *out, size_t n) {
    if (next == NULL && script->end < script->recording->count) {
        next = &script->recording->events[script->end];
    }
    if (next == NULL)
        snprintf(out, n, "the end of the recording");
    else
        oom_event_text(next, out, n);
}

static void differ(struct oom_script *script, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void differ(struct oom_script *script, const char *format, ...) {
    struct oom_replay_difference *difference = script->difference;
    if (script->closing || difference->found) return;
    const struct oom_snapshot_event *next = oom_script_next(script);
    va_list args;
    va_start(args, format);
    vsnprintf(difference->got, sizeof difference->got, format, args);
    va_end(args);
    difference->found = true;
    difference->event = next != NULL ? script->at : script->end;
    expected_text(script, next, difference->expected, sizeof difference->expected);
}

/* The recording shows that the device refused: it goes on with memory given
 * back, or with an out-of-memory error. */
static bool is_refused(struct oom_script *script) {
    const struct oom_snapshot_event *next = oom_script_next(script);
    const struct oom_recording *recording = script->recording;
    if (next != NULL) {
        return next->action == OOM_ACTION_SEGMENT_FREE || next->action == OOM_ACTION_SEGMENT_UNMAP;
    }
    return script->end < recording->count &&
           recording->events[script->end].action == OOM_ACTION_OOM;
}

static bool next_is(struct oom_script *script, enum oom_action action) {
    const struct oom_snapshot_event *next = oom_script_next(script);
    return next != NULL && next->action == action;
}

/* Memory is taken for the request's stream and pool, and given back from the segment's. */
static void compare_taken(struct oom_script *script) {
    oom_replay_compare_place(script->recording, script->at, &script->asker, script->difference);
}

static void compare_given_back(struct oom_script *script, oom_devptr ptr) {
    struct oom_place place;
    bool known = oom_allocator_segment_place(script->allocator, ptr, &place);
    oom_replay_compare_place(script->recording, script->at, known ? &place : NULL,
                             script->difference);
}

/* ---- memory ---- */

static enum oom_status script_alloc(struct oom_device *device, uint64_t bytes, oom_devptr *out) {
    struct oom_script *script = script_of(device);
    const struct oom_snapshot_event *next = oom_script_next(script);
    *out = 0;
    if (script->difference->found || is_refused(script)) return OOM_NOMEM;
    if (script->end == 0 && script->recording->given_bytes == bytes) {
        *out = script->recording->given;
        return OOM_OK;
    }
    if (!next_is(script, OOM_ACTION_SEGMENT_ALLOC) || next->bytes != bytes) {
        differ(script, "segment_alloc of %llu bytes", (oom_ull)bytes);
        return OOM_NOMEM;
    }
    *out = next->address;
    compare_taken(script);
    script->at++;
    return OOM_OK;
}

static enum oom_status script_free(struct oom_device *device, oom_devptr ptr) {
    struct oom_script *script = script_of(device);
    const struct oom_snapshot_event *next = oom_script_next(script);
    if (script->closing || script->difference->found) return OOM_OK;
    if (next_is(script, OOM_ACTION_SEGMENT_FREE) && next->address == ptr) {
        compare_given_back(script, ptr);
        script->at++;
        return OOM_OK;
    }
    differ(script, "segment_free at 0x%llx", (oom_ull)ptr);
    if (next_is(script, OOM_ACTION_SEGMENT_FREE)) {
        bool downward = script->at >= script->downward_first && script->at < script->downward_end;
        script->difference->older = downward ? ptr : next->address;
        script->difference->younger = downward ? next->address : ptr;
        script->difference->downward = downward;
    }
    return OOM_OK;
}

/* ---- virtual memory ---- */

bool oom_replay_maps_for(const struct oom_recording *r, uint64_t index, uint64_t request) {
    const struct oom_snapshot_event *event = &r->events[index];
    bool small = event->bytes % r->settings.large_segment_size != 0;
    return event->action == OOM_ACTION_SEGMENT_MAP && event->stream == r->events[request].stream &&
           small == oom_replay_is_small(r, request) &&
           oom_pool_same(oom_recording_pool(r, index), oom_recording_pool(r, request));
}

/* Where the first mapping of a new range was refused, the range begins with the
 * next page that is mapped for the same stream and pools. */
static bool first_page(const struct oom_script *script, oom_devptr *out) {
    const struct oom_recording *r = script->recording;
    for (uint64_t i = script->at; i < r->count; i++) {
        if (!oom_replay_maps_for(r, i, script->end)) continue;
        *out = r->events[i].address;
        if (oom_region_tree_at(&script->ranges, *out) == NULL) return true;
    }
    return false;
}

static enum oom_status note_range(struct oom_script *script, uint64_t address, uint64_t bytes) {
    const struct oom_replay_region range = {.address = address, .bytes = bytes};
    bool clash; /* the model finds that out, too */
    return oom_region_tree_add(&script->ranges, &range, &clash);
}

/* A new range begins with the page that is mapped next. */
static enum oom_status script_reserve(struct oom_device *device, uint64_t bytes, oom_devptr *out) {
    struct oom_script *script = script_of(device);
    const struct oom_snapshot_event *next = oom_script_next(script);
    uint64_t address = 0;
    *out = 0;
    if (script->difference->found) return OOM_NOMEM;
    if (next_is(script, OOM_ACTION_SEGMENT_MAP)) {
        address = next->address;
    } else if (!is_refused(script)) {
        differ(script, "a new range of %llu bytes of addresses", (oom_ull)bytes);
        return OOM_NOMEM;
    } else if (!first_page(script, &address)) {
        script->stray -= (bytes + OOM_REPLAY_PAGE - 1) / OOM_REPLAY_PAGE * OOM_REPLAY_PAGE;
        address = script->stray;
    }
    OOM_TRY(note_range(script, address, bytes));
    *out = address;
    return OOM_OK;
}

static enum oom_status script_unreserve(struct oom_device *device, oom_devptr ptr, uint64_t bytes) {
    const struct oom_replay_region range = {.address = ptr, .bytes = bytes};
    bool clash;
    return oom_region_tree_take(&script_of(device)->ranges, &range, &clash);
}

static enum oom_status script_create(struct oom_device *device, uint64_t bytes, oom_handle *out) {
    struct oom_script *script = script_of(device);
    *out = 0;
    if (script->difference->found || is_refused(script)) return OOM_NOMEM;
    if (!next_is(script, OOM_ACTION_SEGMENT_MAP)) {
        differ(script, "segment_map of %llu bytes or more", (oom_ull)bytes);
        return OOM_NOMEM;
    }
    *out = ++script->last_handle;
    return OOM_OK;
}

static enum oom_status script_map(struct oom_device *device, oom_devptr ptr, uint64_t bytes,
                                  oom_handle handle) {
    (void)device, (void)ptr, (void)bytes, (void)handle;
    return OOM_OK;
}

/* Called once for all that was mapped. */
static enum oom_status script_access(struct oom_device *device, oom_devptr ptr, uint64_t bytes,
                                     enum oom_access access) {
    struct oom_script *script = script_of(device);
    const struct oom_snapshot_event *next = oom_script_next(script);
    if (access == OOM_ACCESS_NONE || script->closing) return OOM_OK;
    if (next_is(script, OOM_ACTION_SEGMENT_MAP) && next->address == ptr && next->bytes == bytes) {
        compare_taken(script);
        script->at++;
    } else {
        differ(script, "segment_map of %llu bytes at 0x%llx", (oom_ull)bytes, (oom_ull)ptr);
    }
    return OOM_OK;
}

static enum oom_status script_unmap(struct oom_device *device, oom_devptr ptr, uint64_t bytes) {
    struct oom_script *script = script_of(device);
    const struct oom_snapshot_event *next = oom_script_next(script);
    if (script->closing || script->difference->found) return OOM_OK;
    if (next_is(script, OOM_ACTION_SEGMENT_UNMAP) && next->address + script->unmapped == ptr &&
        next->bytes - script->unmapped >= bytes) {
        script->unmapped += bytes;
        if (script->unmapped < next->bytes) return OOM_OK;
        script->unmapped = 0;
        compare_given_back(script, ptr);
        script->at++;
        return OOM_OK;
    }
    differ(script, "segment_unmap at 0x%llx", (oom_ull)(ptr - script->unmapped));
    if (script->unmapped == 0 && next_is(script, OOM_ACTION_SEGMENT_UNMAP)) {
        script->difference->older = next->address;
        script->difference->younger = ptr;
    }
    return OOM_OK;
}

static enum oom_status script_release(struct oom_device *device, oom_handle handle) {
    (void)device, (void)handle;
    return OOM_OK;
}

/* ---- the rest ---- */

static void script_close(struct oom_device *device) {
    (void)device;
}

static void script_properties(struct oom_device *device, struct oom_device_properties *out) {
    *out = script_of(device)->properties;
}

static void script_memory_info(struct oom_device *device, struct oom_memory_info *out) {
    struct oom_script *script = script_of(device);
    const struct oom_recording *recording = script->recording;
    uint64_t capacity = script->properties.capacity, left = 0;
    if (script->end < recording->count && recording->events[script->end].action == OOM_ACTION_OOM) {
        left = recording->events[script->end].address;
    }
    if (left > capacity) left = capacity;
    *out = (struct oom_memory_info){
        .capacity = capacity, .free = left, .used = capacity - left, .peak = capacity};
}

static enum oom_status script_stream_sync(struct oom_device *device, struct oom_stream *stream) {
    (void)device, (void)stream;
    return OOM_OK;
}

static enum oom_status script_sync(struct oom_device *device) {
    (void)device;
    return OOM_OK;
}

enum oom_status oom_script_open(struct oom_script *script, const struct oom_recording *recording,
                                struct oom_replay_difference *difference) {
    static const struct oom_device_api api = {.api_version = OOM_DEVICE_API_VERSION,
                                              .name = "script",
                                              .close = script_close,
                                              .properties = script_properties,
                                              .memory_info = script_memory_info,
                                              .alloc = script_alloc,
                                              .free = script_free,
                                              .reserve = script_reserve,
                                              .unreserve = script_unreserve,
                                              .create = script_create,
                                              .map = script_map,
                                              .set_access = script_access,
                                              .unmap = script_unmap,
                                              .release = script_release,
                                              .stream_sync = script_stream_sync,
                                              .sync = script_sync};
    *script = (struct oom_script){.device = {&api},
                                  .recording = recording,
                                  .difference = difference,
                                  .stray = UINT64_C(1) << 62,
                                  .properties = {.name = "script",
                                                 .capacity = recording->reserve,
                                                 .reservation = UINT64_C(1) << 62,
                                                 .page = OOM_REPLAY_PAGE,
                                                 .virtual_memory = true}};
    for (uint64_t i = 0; i < recording->segment_count; i++) {
        const struct oom_start_segment *segment = &recording->segments[i];
        if (segment->expandable) OOM_TRY(note_range(script, segment->address, segment->bytes));
    }
    return OOM_OK;
}

void oom_script_close(struct oom_script *script) {
    oom_region_tree_free(&script->ranges);
}
