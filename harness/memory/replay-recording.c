/* replay-recording.c: one device's part of a recording, with the settings that
 * were in force. */
#include "harness/memory/replay-internal.h"

#include "harness/base/sizes.h"
#include "kernels/hostmem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- words ---- */

char *oom_event_text(const struct oom_snapshot_event *event, char *out, size_t n) {
    const char *action = oom_action_name((enum oom_action)event->action);
    if (event->action == OOM_ACTION_OOM) {
        snprintf(out, n, "oom for %llu bytes", (oom_ull)event->bytes);
    } else {
        snprintf(out, n, "%s of %llu bytes at 0x%llx", action, (oom_ull)event->bytes,
                 (oom_ull)event->address);
    }
    return out;
}

enum oom_status oom_recording_refuse(const struct oom_recording *recording, uint64_t index,
                                     const char *why) {
    char text[96];
    return oom_fail(OOM_USAGE,
                    "the recording cannot be replayed: event %llu of %llu, %s: "
                    "%s (it is cut or "
                    "contradicts itself)",
                    (oom_ull)index, (oom_ull)recording->count,
                    oom_event_text(&recording->events[index], text, sizeof text), why);
}

static void note(struct oom_recording *recording, const char *text) {
    size_t used = strlen(recording->notes);
    snprintf(recording->notes + used, sizeof recording->notes - used, "%s%s", used > 0 ? " " : "",
             text);
}

/* ---- sizes ---- */

/* Spec of the allocator, 1.2 and 1.3. */
uint64_t oom_replay_rounded(const struct oom_allocator_settings *settings, uint64_t bytes) {
    enum { MIN_BLOCK = 512 };
    if (settings->backend == OOM_BACKEND_DIRECT) { /* as the device rounds */
        uint64_t to = bytes < OOM_REPLAY_SMALL_MAX ? MIN_BLOCK : OOM_REPLAY_PAGE;
        return (bytes + to - 1) / to * to;
    }
    if (bytes < MIN_BLOCK) return MIN_BLOCK;
    unsigned log = 63u - (unsigned)__builtin_clzll(bytes);
    unsigned class = log < 20 ? 0 : log - 20;
    if (class >= OOM_ROUNDUP_CLASSES) class = OOM_ROUNDUP_CLASSES - 1;
    uint64_t divisions = settings->roundup_power2_divisions[class];
    uint64_t step = MIN_BLOCK;
    if (divisions > 1 && bytes > MIN_BLOCK * divisions) step = ((uint64_t)1 << log) / divisions;
    return (bytes + step - 1) / step * step;
}

/* ---- settings ---- */

/* Our own recordings may name what PyTorch does not know (backend:direct). */
static bool parse_own(struct oom_recording *r) {
    struct oom_allocator_settings own = r->settings;
    bool recorded = oom_failure_last()->status != OOM_OK;
    if (r->snapshot->kind != OOM_SNAPSHOT_KIND_OOMBENCH) return false;
    bool parsed = oom_allocator_settings_parse(r->snapshot->conf, &own) == OOM_OK;
    if (!parsed && !recorded) oom_failure_clear();
    if (parsed) r->settings = own;
    return parsed;
}

static void recorded_settings(struct oom_recording *r) {
    const struct oom_snapshot *s = r->snapshot;
    if (!s->has_settings) {
        note(r, "The recording names no settings: the defaults are assumed.");
        return;
    }
    if (!parse_own(r)) {
        oom_allocator_settings_parse_leniently(s->conf, &r->settings, r->notes, sizeof r->notes);
    }
    r->settings.expandable_segments = s->expandable_segments;
    r->settings.max_split_size = s->max_split_size < 0 ? UINT64_MAX : (uint64_t)s->max_split_size;
    r->settings.garbage_collection_threshold = s->garbage_collection_threshold;
    memcpy(r->settings.roundup_power2_divisions, s->roundup_power2_divisions,
           sizeof s->roundup_power2_divisions);
}

/* A fraction of an unknown capacity is no limit that could be checked: what it
 * refused is seen in the recording like any other refusal. */
void oom_recording_drop_fraction(struct oom_recording *r) {
    if (r->capacity != 0 || r->settings.per_process_memory_fraction >= 1) return;
    r->settings.per_process_memory_fraction = 1;
    r->settings.throw_on_cudamalloc_oom = false;
    note(r, "The capacity of the card is not known, so what its memory fraction "
            "refused, and what "
            "garbage collection did under it, is not checked.");
}

static void choose_settings(struct oom_recording *r, const struct oom_replay_options *options) {
    r->settings = oom_allocator_settings_default();
    if (options->settings_given)
        r->settings = options->settings;
    else
        recorded_settings(r);
    if (r->snapshot->profile < OOM_PROFILE_COUNT) r->settings.profile = r->snapshot->profile;
    if (options->profile_given) r->settings.profile = options->profile;
    r->settings.trace_entries = r->settings.guard_bytes = 0;
    r->capacity = options->capacity != 0 ? options->capacity : r->snapshot->capacity;
}

/* ---- streams ---- */

uint32_t oom_recording_stream(const struct oom_recording *recording, uint64_t handle) {
    uint64_t low = 0, high = recording->stream_count;
    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;
        if (recording->streams[middle] <= handle)
            low = middle;
        else
            high = middle;
    }
    return (uint32_t)low;
}

static enum oom_status add_stream(struct oom_recording *r, uint64_t handle) {
    uint64_t place = oom_recording_stream(r, handle);
    if (r->streams[place] == handle) return OOM_OK;
    if (r->stream_count >= UINT16_MAX) {
        return oom_fail(OOM_USAGE, "the recording cannot be replayed: more than %d streams",
                        UINT16_MAX);
    }
    if ((r->stream_count & (r->stream_count - 1)) == 0) { /* room is the next power of two */
        uint64_t *streams = oom_host_realloc(r->streams, 2 * r->stream_count * sizeof *streams);
        if (streams == NULL) return oom_fail(OOM_HOST_NOMEM, "replay: no host memory for streams");
        r->streams = streams;
    }
    memmove(&r->streams[place + 2], &r->streams[place + 1],
            (r->stream_count - place - 1) * sizeof *r->streams);
    r->streams[place + 1] = handle;
    r->stream_count++;
    return OOM_OK;
}

static enum oom_status collect_streams(struct oom_recording *r) {
    r->streams = oom_host_calloc(1, sizeof *r->streams);
    if (r->streams == NULL) return oom_fail(OOM_HOST_NOMEM, "replay: no host memory for streams");
    r->stream_count = 1; /* the default stream, handle 0 */
    uint64_t last = 0;
    for (uint64_t i = 0; i < r->count; i++) {
        if (r->events[i].stream == last || r->events[i].action == OOM_ACTION_SNAPSHOT) continue;
        last = r->events[i].stream;
        OOM_TRY(add_stream(r, last));
    }
    for (uint64_t i = 0; i < r->snapshot->segment_count; i++) {
        const struct oom_snapshot_segment *segment = &r->snapshot->segments[i];
        if (segment->device == r->device) OOM_TRY(add_stream(r, segment->stream));
    }
    return OOM_OK;
}

/* ---- opening ---- */

static enum oom_status choose_device(struct oom_recording *r, uint64_t device) {
    const struct oom_snapshot *s = r->snapshot;
    if (s->event_count == 0) {
        return oom_fail(OOM_USAGE,
                        "the recording cannot be replayed: it has no events, only a state; "
                        "recording must be on before "
                        "(torch.cuda.memory._record_memory_history())");
    }
    if (device >= s->device_count || s->traces[device].count == 0) {
        uint64_t with = 0;
        while (with < s->device_count && s->traces[with].count == 0) with++;
        return oom_fail(OOM_USAGE,
                        "the recording has no events of device %llu; it has %llu "
                        "of device %llu",
                        (oom_ull)device,
                        with < s->device_count ? (oom_ull)s->traces[with].count : 0, (oom_ull)with);
    }
    r->events = s->events + s->traces[device].first;
    r->count = s->traces[device].count;
    r->device = (int32_t)device;
    return OOM_OK;
}

/* Some frees wait to the end: then a request alone completes nothing, even where none did. */
static bool ends_with_pending(const struct oom_recording *r) {
    const struct oom_snapshot *s = r->snapshot;
    for (uint64_t i = 0; i < s->segment_count; i++) {
        const struct oom_snapshot_segment *segment = &s->segments[i];
        if (segment->device != r->device) continue;
        for (uint64_t j = 0; j < segment->block_count; j++) {
            if (s->blocks[segment->first_block + j].state == OOM_BLOCK_PENDING_FREE) return true;
        }
    }
    return false;
}

/* Tables are kept by the page: bytes that no card has are refused before they are made. */
static enum oom_status check_sizes(const struct oom_recording *r) {
    static const uint64_t most = (uint64_t)1 << 42;
    const struct oom_snapshot *s = r->snapshot;
    for (uint64_t i = 0; i < s->segment_count; i++) {
        if (s->segments[i].device != r->device || s->segments[i].bytes <= most) continue;
        return oom_fail(OOM_USAGE,
                        "the recording cannot be replayed: segment %llu has %llu bytes, more than "
                        "the %llu that are allowed",
                        (oom_ull)i, (oom_ull)s->segments[i].bytes, (oom_ull)most);
    }
    for (uint64_t i = 0; i < r->count; i++) {
        bool segment = r->events[i].action == OOM_ACTION_SEGMENT_MAP ||
                       r->events[i].action == OOM_ACTION_SEGMENT_ALLOC;
        if (!segment || r->events[i].bytes <= most) continue;
        return oom_recording_refuse(r, i, "so large a segment has no card (4 TiB are allowed)");
    }
    return OOM_OK;
}

static enum oom_status look_through(struct oom_recording *r) {
    bool seen[OOM_ACTION_SNAPSHOT + 1] = {false};
    for (uint64_t i = 0; i < r->count; i++) {
        if (r->events[i].action > OOM_ACTION_SNAPSHOT) {
            return oom_recording_refuse(r, i, "nothing is known of such an event");
        }
        seen[r->events[i].action] = true;
        r->names_pools |= r->events[i].pool != 0;
    }
    r->has_requests = seen[OOM_ACTION_FREE_REQUESTED];
    r->has_completions = seen[OOM_ACTION_FREE_COMPLETED] || ends_with_pending(r);
    OOM_TRY(check_sizes(r));
    if (seen[OOM_ACTION_ALLOC] || seen[OOM_ACTION_OOM] || r->has_requests) return OOM_OK;
    return oom_fail(OOM_USAGE,
                    "the recording cannot be replayed: none of its %llu events "
                    "is an allocation or "
                    "a free",
                    (oom_ull)r->count);
}

bool oom_replay_has_segments(const struct oom_snapshot *snapshot, uint64_t device) {
    if (snapshot->kind == OOM_SNAPSHOT_KIND_RMM || device >= snapshot->device_count) return false;
    for (uint64_t i = 0; i < snapshot->segment_count; i++) {
        if ((uint64_t)snapshot->segments[i].device == device) return true;
    }
    const struct oom_snapshot_trace *trace = &snapshot->traces[device];
    for (uint64_t i = trace->first; i < trace->first + trace->count; i++) {
        if (snapshot->events[i].action == OOM_ACTION_SEGMENT_ALLOC ||
            snapshot->events[i].action == OOM_ACTION_SEGMENT_MAP) {
            return true;
        }
    }
    return false;
}

enum oom_status oom_recording_open(struct oom_recording *recording,
                                   const struct oom_snapshot *snapshot,
                                   const struct oom_replay_options *options) {
    static const struct oom_replay_options plain;
    if (options == NULL) options = &plain;
    *recording = (struct oom_recording){.snapshot = snapshot};
    OOM_TRY(choose_device(recording, options->device));
    choose_settings(recording, options);
    OOM_TRY(look_through(recording));
    enum oom_status status = collect_streams(recording);
    if (status == OOM_OK && oom_replay_has_segments(snapshot, options->device)) {
        status = oom_recording_undo(recording);
        if (status == OOM_OK) status = oom_recording_layout(recording);
    }
    if (status != OOM_OK) oom_recording_close(recording);
    return status;
}

void oom_recording_close(struct oom_recording *recording) {
    oom_host_free(recording->streams);
    oom_host_free(recording->pools);
    oom_replay_regions_free(&recording->regions);
    oom_host_free(recording->blocks);
    oom_host_free(recording->segments);
    oom_host_free(recording->start_blocks);
    *recording = (struct oom_recording){0};
}
