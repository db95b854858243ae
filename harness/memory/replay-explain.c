/*
 * replay-explain.c: who gave back the memory that a recording shows to go before a request: the
 * program, by emptying the cache, or the request itself, and in which of its steps? Nothing records
 * that. The model is asked what each of them would give back, and in which order, and the events
 * tell whose it was: the same addresses in the same order. Only where the ages of a start's
 * segments are not known may equal ones stand for each other.
 */
#include "harness/memory/replay-internal.h"

struct reading {
    const struct oom_recording *recording;
    const struct oom_replay_group *group;
    uint64_t at;       /* the next event */
    bool alike;        /* equal segments of the start may stand for each other */
    bool other;        /* the events say something else */
    bool given;        /* the device had what was asked for after step C */
    uint64_t downward; /* events read of those that go from the youngest down */
};

static const struct oom_start_segment *start_segment(const struct oom_recording *r,
                                                     uint64_t address) {
    uint64_t low = 0, high = r->segment_count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (r->segments[middle].address < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low < r->segment_count && r->segments[low].address == address ? &r->segments[low] : NULL;
}

static bool stands_for(const struct reading *reading, uint64_t a, uint64_t b) {
    if (a == b) return true;
    if (!reading->alike) return false;
    const struct oom_start_segment *x = start_segment(reading->recording, a);
    const struct oom_start_segment *y = start_segment(reading->recording, b);
    return x != NULL && y != NULL && x->bytes == y->bytes && x->stream == y->stream &&
           x->small_pool == y->small_pool && oom_pool_same(x->pool, y->pool);
}

static bool takes(const struct oom_replay_group *group) {
    return group->taking < group->end;
}

/* The model gives back the segment at `address` next. */
static void read_release(uint64_t address, enum oom_foreseen_step step, void *context) {
    struct reading *reading = context;
    const struct oom_replay_group *group = reading->group;
    const struct oom_snapshot_event *events = reading->recording->events;
    bool oversize = step == OOM_FORESEEN_OVERSIZE || step == OOM_FORESEEN_LARGEST;
    if (oversize && reading->at == group->taking && takes(group)) {
        reading->given = true; /* what lay before was enough: that step is not reached */
    }
    if (reading->other || reading->given) return;
    while (step == OOM_FORESEEN_RELEASE && reading->at < group->taking &&
           events[reading->at].action == OOM_ACTION_SEGMENT_UNMAP) {
        reading->at++; /* pages are not foreseen */
    }
    if (reading->at == group->taking || events[reading->at].action != OOM_ACTION_SEGMENT_FREE ||
        !stands_for(reading, events[reading->at].address, address)) {
        reading->other = true;
    } else {
        reading->at++;
        reading->downward += step == OOM_FORESEEN_LARGEST;
    }
}

/* What is left is the request's own release of everything: it waits for all that is pending, then
 * gives back. */
static bool is_retry(const struct reading *reading, uint64_t held) {
    const struct oom_replay_group *group = reading->group;
    const struct oom_snapshot_event *events = reading->recording->events;
    uint64_t at = reading->at, completions = 0;
    while (at < group->taking && events[at].action == OOM_ACTION_FREE_COMPLETED) {
        at++;
        completions++;
    }
    if (completions > 0 && (completions != held || (at == group->taking && takes(group)))) {
        return false;
    }
    while (at < group->taking && events[at].action != OOM_ACTION_FREE_COMPLETED) at++;
    return at == group->taking;
}

bool oom_replay_fits(const struct oom_recording *r, const struct oom_allocator *allocator,
                     uint64_t index) {
    const struct oom_snapshot_event *event = &r->events[index];
    return oom_allocator_fits(allocator, oom_recording_pool(r, index),
                              oom_recording_stream(r, event->stream), event->bytes);
}

static void read_steps(struct reading *reading, const struct oom_allocator *allocator) {
    const struct oom_recording *r = reading->recording;
    uint64_t index = reading->group->end;
    const struct oom_snapshot_event *event = &r->events[index];
    oom_allocator_foresee(allocator, oom_recording_pool(r, index),
                          oom_recording_stream(r, event->stream), event->bytes, read_release,
                          reading);
}

/* Where the range begins that the request makes, if it makes one: the next page mapped for its kind
 * in none of those that there are. False: none is. */
static bool range_begins(const struct oom_recording *r, const struct oom_allocator *allocator,
                         const struct oom_replay_group *group, uint64_t *out) {
    struct oom_place place;
    for (uint64_t i = group->first; i < r->count; i++) {
        if (!oom_replay_maps_for(r, i, group->end)) continue;
        *out = r->events[i].address;
        if (!oom_allocator_segment_place(allocator, *out, &place)) return true;
        if (place.stream != oom_recording_stream(r, r->events[i].stream) ||
            !oom_pool_same(place.pool, oom_recording_pool(r, i)) ||
            place.small_pool != oom_replay_is_small(r, group->end)) {
            return true;
        }
    }
    return false;
}

/* A request that gives back has been refused memory before, for addresses that it had: a range that
 * it makes does not lie where others still are. */
static bool has_addresses(const struct oom_recording *r, const struct oom_allocator *allocator,
                          const struct oom_replay_group *group) {
    const struct oom_snapshot_event *event = &r->events[group->end];
    uint64_t at,
        bytes = oom_allocator_new_range(allocator, oom_recording_pool(r, group->end),
                                        oom_recording_stream(r, event->stream), event->bytes);
    if (bytes == 0 || !range_begins(r, allocator, group, &at)) return true;
    return !oom_allocator_overlaps(allocator, at, bytes);
}

bool oom_replay_by_request(const struct oom_recording *recording,
                           const struct oom_allocator *allocator,
                           const struct oom_replay_group *group, uint64_t at) {
    struct reading reading = {.recording = recording, .group = group, .at = at};
    if (!takes(group) && !group->fails) return false; /* it found what it wanted */
    if (oom_replay_fits(recording, allocator, group->end)) return false;
    read_steps(&reading, allocator);
    if (reading.given) return true;
    return !reading.other && is_retry(&reading, oom_replay_pending(allocator)) &&
           has_addresses(recording, allocator, group);
}

void oom_replay_downward(const struct oom_recording *recording,
                         const struct oom_allocator *allocator,
                         const struct oom_replay_group *group, uint64_t at, uint64_t *first,
                         uint64_t *end) {
    struct reading reading = {.recording = recording, .group = group, .at = at, .alike = true};
    read_steps(&reading, allocator);
    *end = reading.at; /* nothing is read after them */
    *first = reading.at - reading.downward;
}

/* The same of a release by the program, for which nothing is pending any more. */
static bool by_release(const struct oom_recording *recording, const struct oom_allocator *allocator,
                       const struct oom_replay_group *group, uint64_t at, bool alike) {
    struct reading reading = {.recording = recording, .group = group, .at = at, .alike = alike};
    oom_allocator_foresee_release(allocator, read_release, &reading);
    while (reading.at < group->taking &&
           recording->events[reading.at].action == OOM_ACTION_SEGMENT_UNMAP) {
        reading.at++;
    }
    return !reading.other && reading.at == group->taking;
}

enum oom_replay_giver oom_replay_giver(const struct oom_recording *recording,
                                       const struct oom_allocator *allocator,
                                       const struct oom_replay_group *group, uint64_t at,
                                       bool ages_known, bool retry_seen) {
    enum oom_replay_giver release = retry_seen        ? OOM_GIVER_RETRY
                                    : group->releases ? OOM_GIVER_PROGRAM
                                                      : OOM_GIVER_REQUEST;
    if (oom_replay_by_request(recording, allocator, group, at)) return OOM_GIVER_REQUEST;
    if (by_release(recording, allocator, group, at, false)) return release;
    if (group->releases && oom_replay_fits(recording, allocator, group->end))
        return OOM_GIVER_PROGRAM;
    if (!ages_known && by_release(recording, allocator, group, at, true)) return release;
    return OOM_GIVER_REQUEST;
}
