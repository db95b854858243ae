/* replay-verify.c: does some profile, with some ages of the start's segments,
 * decide as the recording did? */
#include "harness/memory/replay-internal.h"

#include <stdio.h>
#include <string.h>

/* Events driven at most while ages are learned, one pass for each tie. */
#define LEARNING_EVENTS (UINT64_C(1) << 26)

struct attempt {
    struct oom_replay_pass pass;
    uint64_t learned; /* ties that ages decided */
    bool gave_up;     /* too many of them */
};

static enum oom_status try_profile(const struct oom_recording *recording, enum oom_profile profile,
                                   struct attempt *out) {
    struct oom_allocator_settings settings = recording->settings;
    struct oom_replay_order order = {0};
    uint64_t driven = 0;
    enum oom_status status;
    settings.profile = profile;
    *out =
        (struct attempt){.pass = {.recording = recording, .settings = &settings, .order = &order}};
    for (;;) {
        status = oom_replay_drive(&out->pass);
        if (status != OOM_OK || !out->pass.learned) break;
        out->learned++;
        driven += recording->count;
        out->gave_up = driven > LEARNING_EVENTS;
        if (out->gave_up) break;
    }
    oom_replay_order_free(&order);
    out->pass.settings = NULL;
    out->pass.order = NULL;
    return status;
}

static bool is_better(const struct attempt *a, const struct attempt *b) {
    if (a->pass.equal != b->pass.equal) return a->pass.equal > b->pass.equal;
    if (a->pass.difference.found != b->pass.difference.found) return !a->pass.difference.found;
    return a->learned < b->learned;
}

static void fill_in(const struct oom_recording *recording, const struct attempt *attempt,
                    struct oom_replay_verdict *out) {
    const struct oom_replay_difference *difference = &attempt->pass.difference;
    out->start = recording->start;
    out->start.learned = attempt->learned;
    if (attempt->gave_up && out->start.ambiguous++ == 0) {
        snprintf(out->start.why, sizeof out->start.why,
                 "the ages of the segments there were not learned to the end, as "
                 "too many choices "
                 "hang on them");
    }
    out->decisions = attempt->pass.decisions;
    out->equal = attempt->pass.equal;
    out->matched = !difference->found;
    out->first_event = difference->found ? difference->event : 0;
    memcpy(out->expected, difference->expected, sizeof out->expected);
    memcpy(out->got, difference->got, sizeof out->got);
    out->peak_reserved = attempt->pass.peak_reserved;
    out->peak_allocated = attempt->pass.peak_allocated;
    out->end_reserved = attempt->pass.end_reserved;
    out->end_allocated = attempt->pass.end_allocated;
    memcpy(out->settings_notes, recording->notes, sizeof out->settings_notes);
}

/* What the card had for this allocator shows where it was full. */
static void look_at_ooms(const struct oom_recording *recording, struct oom_replay_verdict *out) {
    uint64_t reserved = recording->start.reserved;
    for (uint64_t i = 0; i < recording->count; i++) {
        const struct oom_snapshot_event *event = &recording->events[i];
        switch ((enum oom_action)event->action) {
        case OOM_ACTION_SEGMENT_ALLOC:
        case OOM_ACTION_SEGMENT_MAP:
            reserved += event->bytes;
            break;
        case OOM_ACTION_SEGMENT_FREE:
        case OOM_ACTION_SEGMENT_UNMAP:
            reserved -= event->bytes;
            break;
        case OOM_ACTION_OOM:
            out->ooms++;
            out->last_oom = i;
            if (reserved + event->address > out->seen_capacity) {
                out->seen_capacity = reserved + event->address;
            }
            break;
        default:
            break;
        }
    }
}

static enum oom_status verify(const struct oom_recording *recording, bool profile_known,
                              struct oom_replay_verdict *out) {
    struct attempt first, second;
    enum oom_profile known = recording->settings.profile;
    OOM_TRY(try_profile(recording, profile_known ? known : OOM_PROFILE_PYTORCH_2_13, &first));
    out->profile = profile_known ? known : OOM_PROFILE_PYTORCH_2_13;
    if (!profile_known) {
        OOM_TRY(try_profile(recording, OOM_PROFILE_PYTORCH_2_11, &second));
        out->profile_decided = first.pass.equal != second.pass.equal ||
                               first.pass.difference.found != second.pass.difference.found;
        if (is_better(&second, &first)) {
            first = second;
            out->profile = OOM_PROFILE_PYTORCH_2_11;
        }
    }
    fill_in(recording, &first, out);
    look_at_ooms(recording, out);
    return OOM_OK;
}

enum oom_status oom_replay_verify(const struct oom_snapshot *snapshot,
                                  const struct oom_replay_options *options,
                                  struct oom_replay_verdict *out) {
    struct oom_recording recording;
    *out = (struct oom_replay_verdict){0};
    OOM_TRY(oom_recording_open(&recording, snapshot, options));
    if (!oom_replay_has_segments(snapshot, options != NULL ? options->device : 0)) {
        oom_recording_close(&recording);
        return oom_fail(OOM_USAGE,
                        "the recording (%s) names no segments, so there are no decisions to "
                        "compare; what other settings would have done can be asked",
                        oom_snapshot_kind_name(snapshot->kind));
    }
    bool known =
        (options != NULL && options->profile_given) || snapshot->profile < OOM_PROFILE_COUNT;
    oom_recording_drop_fraction(&recording);
    enum oom_status status = verify(&recording, known, out);
    oom_recording_close(&recording);
    return status;
}
