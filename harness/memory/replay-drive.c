/*
 * replay-drive.c: one pass over the events: requests go to the model, whatever
 * lies between two of them is what the device is to answer from, and each
 * answer of the model is compared.
 *
 * Two things a recording does not tell, and what surrounds them does. When
 * other streams were done with a block: where all that waited are completed and
 * memory is given back (or none is found), the release that waits for all has
 * completed them; else they were found ready. And who gave memory back: the
 * program, where the request after it takes nothing new or would have found
 * what it wanted before; else that request's own retry.
 */
#include "harness/memory/replay-internal.h"

#include "kernels/hostmem.h"

#include <stdarg.h>
#include <stdio.h>

struct drive {
    struct oom_replay_pass *pass;
    const struct oom_recording *recording;
    const struct oom_snapshot_event *events;
    struct oom_allocator *allocator;
    struct oom_script script;
    struct oom_stream **streams; /* by number */
    struct oom_pool_id pool;     /* in use */
    bool partial_releases;       /* a request may release a part of what is cached */
    bool unserved;               /* the next request found nothing before what lies before it */
};

/* ---- what differs ---- */

static void differ(struct drive *drive, uint64_t event, const char *expected, const char *format,
                   ...) __attribute__((format(printf, 4, 5)));

static void differ(struct drive *drive, uint64_t event, const char *expected, const char *format,
                   ...) {
    struct oom_replay_difference *difference = &drive->pass->difference;
    if (difference->found) return;
    difference->found = true;
    difference->event = event;
    snprintf(difference->expected, sizeof difference->expected, "%s", expected);
    va_list args;
    va_start(args, format);
    vsnprintf(difference->got, sizeof difference->got, format, args);
    va_end(args);
}

/* ---- requests ---- */

static enum oom_status use_pool(struct drive *drive, struct oom_pool_id pool) {
    if (oom_pool_same(drive->pool, pool)) return OOM_OK;
    drive->pool = pool;
    return oom_allocator_pool_use(drive->allocator, pool);
}

/* What the model says is an answer, and leaves no record of a failure, unless
 * the host itself has no memory. */
static enum oom_status answered(struct drive *drive, enum oom_status status, uint64_t event,
                                bool recorded) {
    char expected[128];
    if (status == OOM_OK || status == OOM_HOST_NOMEM) return status;
    differ(drive, event, oom_event_text(&drive->events[event], expected, sizeof expected), "%s",
           recorded ? oom_status_text(status) : oom_failure_last()->message);
    if (!recorded) oom_failure_clear();
    return OOM_OK;
}

static enum oom_status ask(struct drive *drive, uint64_t index, oom_devptr *out, bool *given) {
    const struct oom_snapshot_event *event = &drive->events[index];
    uint32_t stream = oom_recording_stream(drive->recording, event->stream);
    bool recorded = oom_failure_last()->status != OOM_OK;
    *given = false;
    enum oom_status status = use_pool(drive, oom_recording_pool(drive->recording, index));
    if (status != OOM_OK) return answered(drive, status, index, recorded);
    drive->script.asker =
        (struct oom_place){stream, drive->pool, oom_replay_is_small(drive->recording, index)};
    status = oom_allocator_alloc(drive->allocator, event->bytes, drive->streams[stream],
                                 OOM_TAG_OTHER, "", out);
    *given = status == OOM_OK;
    if (status != OOM_NOMEM) return answered(drive, status, index, recorded);
    if (!recorded) oom_failure_clear();
    return OOM_OK;
}

static void compare(struct drive *drive, uint64_t index, bool given, oom_devptr got) {
    const struct oom_snapshot_event *event = &drive->events[index];
    const struct oom_snapshot_event *left = oom_script_next(&drive->script);
    char expected[128], there[128];
    oom_event_text(left != NULL ? left : event, expected, sizeof expected);
    if (left != NULL) index = drive->script.at;
    if (!given && event->action == OOM_ACTION_ALLOC) {
        differ(drive, index, expected, "out of memory");
    } else if (given && (event->action == OOM_ACTION_OOM || left != NULL)) {
        differ(drive, index, expected, "alloc of %llu bytes at %s", (oom_ull)event->bytes,
               oom_replay_place(drive->allocator, got, there, sizeof there));
    } else if (left != NULL) {
        differ(drive, index, expected, "out of memory");
    } else if (given && got != event->address) {
        char wanted[128];
        snprintf(expected, sizeof expected, "alloc of %llu bytes at %s", (oom_ull)event->bytes,
                 oom_replay_place(drive->allocator, event->address, wanted, sizeof wanted));
        differ(drive, index, expected, "alloc of %llu bytes at %s", (oom_ull)event->bytes,
               oom_replay_place(drive->allocator, got, there, sizeof there));
        drive->pass->difference.older = event->address;
        drive->pass->difference.younger = got;
    }
}

/* A free names the block's stream and pool. */
static void compare_free(struct drive *drive, uint64_t index) {
    struct oom_place place;
    uint64_t address = drive->events[index].address;
    bool known = oom_allocator_block_place(drive->allocator, address, &place);
    oom_replay_compare_place(drive->recording, index, known ? &place : NULL,
                             &drive->pass->difference);
}

/* ---- what lies between requests ---- */

static bool is_release(uint8_t action) {
    return action == OOM_ACTION_SEGMENT_FREE || action == OOM_ACTION_SEGMENT_UNMAP;
}

static bool is_taking(uint8_t action) {
    return action == OOM_ACTION_SEGMENT_ALLOC || action == OOM_ACTION_SEGMENT_MAP;
}

static enum oom_status release(struct drive *drive, uint64_t first, uint64_t end) {
    char expected[128];
    oom_script_window(&drive->script, first, end);
    OOM_TRY(oom_allocator_release_cached(drive->allocator));
    const struct oom_snapshot_event *left = oom_script_next(&drive->script);
    if (left == NULL) return OOM_OK;
    differ(drive, drive->script.at, oom_event_text(left, expected, sizeof expected),
           "nothing more that could be given back");
    return OOM_OK;
}

static bool is_free(const struct drive *drive, uint8_t action) {
    if (drive->recording->has_requests) return action == OOM_ACTION_FREE_REQUESTED;
    return action == OOM_ACTION_FREE_COMPLETED;
}

static struct oom_replay_group group_at(const struct drive *drive, uint64_t first) {
    const struct oom_recording *r = drive->recording;
    struct oom_replay_group group = {.first = first, .taking = OOM_REPLAY_NEVER, .end = first};
    for (; group.end < r->count; group.end++) {
        uint8_t action = drive->events[group.end].action;
        group.fails = action == OOM_ACTION_OOM;
        group.request = group.fails || action == OOM_ACTION_ALLOC;
        if (group.request || action == OOM_ACTION_SNAPSHOT || is_free(drive, action)) break;
        group.completions += action == OOM_ACTION_FREE_COMPLETED;
        group.releases_any |= is_release(action);
        if (group.taking == OOM_REPLAY_NEVER && is_taking(action)) group.taking = group.end;
        if (group.taking == OOM_REPLAY_NEVER) group.releases |= is_release(action);
    }
    if (group.taking == OOM_REPLAY_NEVER) group.taking = group.end;
    return group;
}

static enum oom_status complete_at(struct drive *drive, uint64_t index) {
    bool recorded = oom_failure_last()->status != OOM_OK;
    enum oom_status status = oom_allocator_complete(drive->allocator, drive->events[index].address);
    return answered(drive, status, index, recorded);
}

static enum oom_status complete(struct drive *drive, uint64_t index) {
    oom_script_window(&drive->script, index + 1, drive->recording->count); /* for `direct` */
    return complete_at(drive, index);
}

/* It fails without having been given anything: a release tried to save it. */
static bool fails_outright(const struct oom_replay_group *group) {
    return group->fails && group->taking == group->end;
}

/* Pools whose memory is given back are used by nobody any more, but for the request's own. */
static enum oom_status retire_pools(struct drive *drive, const struct oom_replay_group *group) {
    struct oom_pool_id last = {0, 0}, own = last;
    if (group->request) own = oom_recording_pool(drive->recording, group->end);
    for (uint64_t i = group->first; i < group->end; i++) {
        struct oom_pool_id pool = oom_recording_pool(drive->recording, i);
        if (!is_release(drive->events[i].action) || (pool.a == 0 && pool.b == 0)) continue;
        if (oom_pool_same(pool, last) || oom_pool_same(pool, own)) continue;
        OOM_TRY(use_pool(drive, (struct oom_pool_id){0, 0}));
        OOM_TRY(oom_replay_retire(drive->allocator, pool));
        last = pool;
    }
    return OOM_OK;
}

/* Completes what stands in the events [first, end). */
static enum oom_status complete_all(struct drive *drive, uint64_t first, uint64_t end) {
    for (uint64_t i = first; i < end; i++) {
        if (drive->events[i].action == OOM_ACTION_FREE_COMPLETED) OOM_TRY(complete(drive, i));
    }
    return OOM_OK;
}

/* Blocks found ready are completed before the request looks for memory; the rest, or all, by the
 * release that waits for them. *at: the first event that is left; *giver: who the releases are by,
 * where there are any. */
static enum oom_status complete_ready(struct drive *drive, const struct oom_replay_group *group,
                                      uint64_t *at, enum oom_replay_giver *giver) {
    const struct oom_recording *r = drive->recording;
    drive->unserved = group->request && group->completions > 0 &&
                      !oom_replay_fits(r, drive->allocator, group->end);
    bool retry_seen = false, releases = group->releases_any || fails_outright(group);
    *giver = group->request ? OOM_GIVER_REQUEST : OOM_GIVER_PROGRAM;
    *at = group->end;
    if (!group->request || !releases) return complete_all(drive, group->first, group->end);
    for (*at = group->first; *at < group->taking; ++*at) {
        if (drive->events[*at].action != OOM_ACTION_FREE_COMPLETED) break;
        retry_seen |= oom_replay_by_request(r, drive->allocator, group, *at);
        drive->unserved |= !oom_replay_fits(r, drive->allocator, group->end);
        if (retry_seen && !drive->partial_releases) return OOM_OK;
        OOM_TRY(complete(drive, *at));
    }
    bool ages_known =
        r->segment_count == 0 || drive->pass->settings->profile == OOM_PROFILE_PYTORCH_2_11;
    if (!ages_known) {
        oom_replay_downward(r, drive->allocator, group, *at, &drive->script.downward_first,
                            &drive->script.downward_end);
    }
    drive->unserved |= !oom_replay_fits(r, drive->allocator, group->end);
    *giver = oom_replay_giver(r, drive->allocator, group, *at, ages_known, retry_seen);
    return OOM_OK;
}

/* Whatever is freed is given back with it; at the start the cut may lie between the two. */
static enum oom_status run_direct(struct drive *drive, const struct oom_replay_group *group) {
    bool half = group->first == 0 && drive->events[0].action == OOM_ACTION_SEGMENT_FREE;
    if (half) {
        oom_script_window(&drive->script, 0, drive->recording->count);
        OOM_TRY(complete_at(drive, 0));
    }
    OOM_TRY(complete_all(drive, group->first, group->end));
    uint64_t from = drive->script.at > group->first ? drive->script.at : group->first;
    oom_script_window(&drive->script, from, group->end);
    return OOM_OK;
}

/* The release was a request's own, after which it does not search again. Where it took nothing new
 * that shows if it took what a search would not: where it would have mapped more, enough was mapped
 * already. */
static bool searched_before(const struct drive *drive, const struct oom_replay_group *group,
                            enum oom_replay_giver giver) {
    const struct oom_recording *r = drive->recording;
    const struct oom_snapshot_event *event = &drive->events[group->end];
    if (giver == OOM_GIVER_RETRY) return true;
    if (!group->request || group->fails || group->taking < group->end) return false;
    return drive->unserved &&
           oom_allocator_fits_unsearched(drive->allocator, oom_recording_pool(r, group->end),
                                         oom_recording_stream(r, event->stream), event->bytes,
                                         event->address);
}

/* *at: as above. */
static enum oom_status run_group(struct drive *drive, const struct oom_replay_group *group,
                                 uint64_t *at) {
    enum oom_replay_giver giver;
    *at = group->end;
    for (uint64_t i = group->first; i < group->end; i++) {
        if (drive->events[i].action == OOM_ACTION_FREE_COMPLETED) compare_free(drive, i);
    }
    if (drive->pass->settings->backend == OOM_BACKEND_DIRECT) return run_direct(drive, group);
    if (group->releases_any) OOM_TRY(retire_pools(drive, group));
    OOM_TRY(complete_ready(drive, group, at, &giver));
    bool released = giver != OOM_GIVER_REQUEST && (group->releases || giver == OOM_GIVER_RETRY);
    if (!group->releases_any) released |= searched_before(drive, group, giver); /* it only waited */
    if (released) OOM_TRY(release(drive, group->first, group->taking));
    if (released && searched_before(drive, group, giver)) {
        oom_allocator_skip_search(drive->allocator);
    }
    oom_script_window(&drive->script, released ? group->taking : group->first, group->end);
    const struct oom_snapshot_event *left = oom_script_next(&drive->script);
    char expected[128];
    if (group->request || left == NULL) return OOM_OK;
    differ(drive, drive->script.at, oom_event_text(left, expected, sizeof expected),
           "no request that could take it");
    return OOM_OK;
}

/* What a release was to wait for, and there was none. */
static enum oom_status complete_rest(struct drive *drive, const struct oom_replay_group *group,
                                     uint64_t at) {
    bool recorded = oom_failure_last()->status != OOM_OK;
    for (; at < group->end; at++) {
        if (drive->events[at].action != OOM_ACTION_FREE_COMPLETED) continue;
        enum oom_status status =
            oom_allocator_complete(drive->allocator, drive->events[at].address);
        if (status != OOM_INVALID) OOM_TRY(status);
        if (!recorded) oom_failure_clear();
    }
    return OOM_OK;
}

static enum oom_status run_request(struct drive *drive, const struct oom_replay_group *group) {
    oom_devptr got = 0;
    uint64_t at;
    bool given = false;
    drive->pass->decisions++;
    OOM_TRY(run_group(drive, group, &at));
    if (drive->pass->difference.found) return OOM_OK;
    OOM_TRY(ask(drive, group->end, &got, &given));
    compare(drive, group->end, given, got);
    OOM_TRY(complete_rest(drive, group, at));
    drive->pass->equal += !drive->pass->difference.found;
    return OOM_OK;
}

/* Backend `direct` gives memory back with the free itself. */
static uint64_t direct_end(struct drive *drive, uint64_t next) {
    if (drive->pass->settings->backend != OOM_BACKEND_DIRECT) return next;
    return drive->script.at > next ? drive->script.at : next;
}

/* A completion right after its request was at once; or a release that follows
 * waited for it. Then it is left to what follows. *next: the first event that
 * this did not deal with. */
static enum oom_status run_free(struct drive *drive, uint64_t index, uint64_t *next) {
    const struct oom_recording *r = drive->recording;
    const struct oom_snapshot_event *event = &drive->events[index], *after = event + 1;
    bool at_once = !r->has_completions || !r->has_requests;
    bool recorded = oom_failure_last()->status != OOM_OK;
    *next = index + 1;
    if (!at_once && index + 1 < r->count && after->action == OOM_ACTION_FREE_COMPLETED &&
        after->address == event->address) {
        struct oom_replay_group group = group_at(drive, index + 1);
        at_once = !group.releases && !fails_outright(&group);
        *next += at_once;
    }
    compare_free(drive, index);
    if (*next == index + 2) compare_free(drive, index + 1);
    oom_script_window(&drive->script, *next, *next);
    if (drive->pass->settings->backend == OOM_BACKEND_DIRECT) drive->script.end = r->count;
    enum oom_status status = at_once ? oom_allocator_free(drive->allocator, event->address)
                                     : oom_allocator_free_held(drive->allocator, event->address);
    *next = direct_end(drive, *next);
    return answered(drive, status, index, recorded);
}

static bool is_decision(uint8_t action) {
    return action == OOM_ACTION_ALLOC || action == OOM_ACTION_OOM;
}

static enum oom_status run_events(struct drive *drive) {
    const struct oom_recording *r = drive->recording;
    uint64_t i = 0;
    while (i < r->count && !drive->pass->difference.found) {
        if (is_free(drive, drive->events[i].action)) {
            OOM_TRY(run_free(drive, i, &i));
            continue;
        }
        struct oom_replay_group group = group_at(drive, i);
        uint64_t left;
        OOM_TRY(group.request ? run_request(drive, &group) : run_group(drive, &group, &left));
        i = group.end;
        if (i < r->count && !is_free(drive, drive->events[i].action)) i++;
    }
    for (; i < r->count; i++) drive->pass->decisions += is_decision(drive->events[i].action);
    return OOM_OK;
}

/* ---- a pass ---- */

static enum oom_status begin(struct drive *drive) {
    const struct oom_recording *r = drive->recording;
    struct oom_start_segment *segments = NULL;
    uint64_t *rank = NULL;
    bool fits = true;
    OOM_TRY(oom_allocator_create(&drive->script.device, drive->pass->settings, &drive->allocator));
    drive->script.allocator = drive->allocator;
    for (uint64_t i = 1; i < r->stream_count; i++) {
        OOM_TRY(oom_allocator_stream_add(drive->allocator, drive->streams[i]));
    }
    if (r->segment_count == 0) return OOM_OK;
    rank = oom_host_alloc(r->segment_count * sizeof *rank);
    segments = oom_host_alloc(r->segment_count * sizeof *segments);
    enum oom_status status = OOM_OK;
    if (rank == NULL || segments == NULL) {
        status = oom_fail(OOM_HOST_NOMEM, "replay: no host memory for the start");
    }
    if (status == OOM_OK) status = oom_replay_order_sort(drive->pass->order, rank, &fits);
    for (uint64_t i = 0; i < r->segment_count && status == OOM_OK; i++) {
        segments[i] = r->segments[fits ? rank[i] : i];
    }
    if (status == OOM_OK) {
        status = oom_allocator_start(drive->allocator, segments, r->segment_count);
        if (status == OOM_INVALID) { /* no allocator can ever have been so */
            status = oom_fail(OOM_USAGE, "the recording cannot be replayed: %.200s",
                              oom_failure_last()->message);
        }
    }
    oom_host_free(segments);
    oom_host_free(rank);
    return status;
}

static enum oom_status make_streams(struct drive *drive) {
    uint64_t count = drive->recording->stream_count;
    char *names = oom_host_calloc(count, sizeof(struct oom_stream *) + 1);
    if (names == NULL) return oom_fail(OOM_HOST_NOMEM, "replay: no host memory for streams");
    drive->streams = (struct oom_stream **)(void *)names;
    names += count * sizeof(struct oom_stream *);
    for (uint64_t i = 1; i < count; i++) drive->streams[i] = (struct oom_stream *)(void *)&names[i];
    return OOM_OK;
}

static void take_figures(struct drive *drive) {
    const struct oom_allocator_stats *stats = oom_allocator_stats(drive->allocator);
    struct oom_replay_pass *pass = drive->pass;
    pass->peak_reserved = (uint64_t)stats->reserved_bytes[OOM_POOL_ALL].peak;
    pass->peak_allocated = (uint64_t)stats->allocated_bytes[OOM_POOL_ALL].peak;
    pass->end_reserved = (uint64_t)stats->reserved_bytes[OOM_POOL_ALL].current;
    pass->end_allocated = (uint64_t)stats->allocated_bytes[OOM_POOL_ALL].current;
}

enum oom_status oom_replay_drive(struct oom_replay_pass *pass) {
    const struct oom_recording *r = pass->recording;
    const struct oom_allocator_settings *settings = pass->settings;
    struct drive drive = {.pass = pass, .recording = r, .events = r->events};
    drive.partial_releases =
        settings->max_split_size != UINT64_MAX ||
        (settings->garbage_collection_threshold > 0 && settings->per_process_memory_fraction < 1);
    pass->order->count = r->segment_count;
    pass->decisions = pass->equal = 0;
    pass->difference = (struct oom_replay_difference){0};
    pass->learned = false;
    enum oom_status status = oom_script_open(&drive.script, r, &pass->difference);
    if (status == OOM_OK) status = make_streams(&drive);
    if (status == OOM_OK) status = begin(&drive);
    if (status == OOM_OK) status = run_events(&drive);
    if (status == OOM_OK) take_figures(&drive);
    if (status == OOM_OK && !pass->difference.found) {
        status = oom_replay_compare_end(r, drive.allocator, &pass->difference);
    }
    if (status == OOM_OK) status = oom_replay_learn(pass, drive.allocator);
    drive.script.closing = true;
    oom_allocator_destroy(drive.allocator);
    oom_script_close(&drive.script);
    oom_host_free(drive.streams);
    return status;
}
