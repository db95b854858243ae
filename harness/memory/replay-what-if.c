/* replay-what-if.c: a recording's requests under other settings, on a card of
 * another size. */
#include "harness/memory/replay-internal.h"

#include "kernels/hostmem.h"

#include <stdio.h>

#define NO_CAPACITY_ABOVE (UINT64_C(1) << 50)
#define ADDRESS_SPACE (UINT64_C(1) << 62)

enum { SEARCH_BELOW = 64 << 20 };

struct question {
    const struct oom_snapshot *snapshot;
    struct oom_replay_requests requests;
    struct oom_allocator_settings settings;
};

struct run {
    const struct oom_replay_requests *requests;
    struct oom_device *device;
    struct oom_allocator *allocator;
    struct oom_stream **streams; /* by number */
    struct run_block {
        oom_devptr address;
        uint64_t held; /* counts full releases + 1; 0: not held */
    } * blocks;        /* by slot */
    uint16_t pool;
};

/* ---- one run ---- */

static uint64_t releases(const struct run *run) {
    return oom_allocator_stats(run->allocator)->num_sync_all_streams;
}

static enum oom_status use_pool(struct run *run, uint16_t pool) {
    if (run->pool == pool) return OOM_OK;
    run->pool = pool;
    return oom_allocator_pool_use(run->allocator, run->requests->pools[pool]);
}

static enum oom_status run_alloc(struct run *run, const struct oom_replay_request *request,
                                 bool last) {
    oom_devptr got;
    OOM_TRY(use_pool(run, request->pool));
    OOM_TRY(oom_allocator_alloc(run->allocator, request->bytes, run->streams[request->stream],
                                OOM_TAG_OTHER, "", &got));
    if (request->kind == OOM_REPLAY_ALLOC) {
        run->blocks[request->slot] = (struct run_block){.address = got};
        return OOM_OK;
    }
    return last ? OOM_OK : oom_allocator_free(run->allocator, got);
}

static enum oom_status run_retire(struct run *run, const struct oom_replay_request *request) {
    if (run->pool == request->pool) OOM_TRY(use_pool(run, 0));
    return oom_replay_retire(run->allocator, run->requests->pools[request->pool]);
}

static enum oom_status run_one(struct run *run, const struct oom_replay_request *request,
                               bool last) {
    struct run_block *block = &run->blocks[request->slot];
    switch ((enum oom_replay_kind)request->kind) {
    case OOM_REPLAY_ALLOC:
    case OOM_REPLAY_TRY:
        return run_alloc(run, request, last);
    case OOM_REPLAY_FREE:
        return oom_allocator_free(run->allocator, block->address);
    case OOM_REPLAY_HOLD:
        block->held = releases(run) + 1;
        return oom_allocator_free_held(run->allocator, block->address);
    case OOM_REPLAY_COMPLETE: /* unless a release has waited for it meanwhile */
        if (block->held != releases(run) + 1) return OOM_OK;
        return oom_allocator_complete(run->allocator, block->address);
    case OOM_REPLAY_RELEASE:
        return oom_allocator_release_cached(run->allocator);
    case OOM_REPLAY_RETIRE:
        return run_retire(run, request);
    }
    return OOM_OK;
}

static void fill_in_failure(const struct run *run, const struct oom_snapshot *snapshot,
                            const struct oom_replay_request *request,
                            struct oom_replay_outcome *out) {
    out->fits = false;
    out->failed_event = request->event == OOM_REPLAY_NEVER ? 0 : request->event;
    out->oom = *oom_allocator_report(run->allocator);
    snprintf(out->oom.site, sizeof out->oom.site, "%s", oom_snapshot_site(snapshot, request->site));
}

static enum oom_status run_all(struct run *run, const struct oom_snapshot *snapshot,
                               struct oom_replay_outcome *out) {
    const struct oom_replay_requests *requests = run->requests;
    bool recorded = oom_failure_last()->status != OOM_OK;
    enum oom_status status = OOM_OK;
    uint64_t i = 0;
    while (i < requests->count && status == OOM_OK) {
        status = run_one(run, &requests->items[i], i + 1 == requests->count);
        i++;
    }
    out->fits = status == OOM_OK;
    if (status != OOM_NOMEM) return status;
    if (!recorded) oom_failure_clear();
    fill_in_failure(run, snapshot, &requests->items[i - 1], out);
    return OOM_OK;
}

static enum oom_status take_figures(const struct run *run, struct oom_replay_outcome *out) {
    const struct oom_allocator_stats *stats = oom_allocator_stats(run->allocator);
    out->peak_live = run->requests->peak_live;
    out->peak_allocated = (uint64_t)stats->allocated_bytes[OOM_POOL_ALL].peak;
    out->peak_reserved = (uint64_t)stats->reserved_bytes[OOM_POOL_ALL].peak;
    out->device_calls = stats->num_device_alloc + stats->num_device_free;
    out->retries = stats->num_alloc_retries;
    return oom_fragmentation_take(run->allocator, &out->fragmentation);
}

static enum oom_status open_run(struct run *run, const struct oom_allocator_settings *settings,
                                uint64_t capacity) {
    const struct oom_device_options options = {.capacity = capacity, .reservation = ADDRESS_SPACE};
    OOM_TRY(oom_dry_open(&options, &run->device));
    OOM_TRY(oom_allocator_create(run->device, settings, &run->allocator));
    run->blocks = oom_host_calloc(run->requests->slot_count + 1, sizeof *run->blocks);
    run->streams = oom_host_calloc(run->requests->stream_count + 1, sizeof(struct oom_stream *));
    if (run->blocks == NULL || run->streams == NULL) {
        return oom_fail(OOM_HOST_NOMEM, "replay: no host memory for live blocks");
    }
    for (uint64_t i = 1; i < run->requests->stream_count; i++) {
        OOM_TRY(run->device->api->stream_create(run->device, &run->streams[i]));
        OOM_TRY(oom_allocator_stream_add(run->allocator, run->streams[i]));
    }
    return OOM_OK;
}

static void close_run(struct run *run) {
    oom_allocator_destroy(run->allocator);
    oom_device_close(run->device); /* with its streams */
    oom_host_free(run->blocks);
    oom_host_free(run->streams);
}

/* The records of expandable segments grow with the card, so no endless one is
 * used for them: what one run can reserve is bounded by what lives in it. */
static uint64_t bounded(const struct oom_replay_requests *requests,
                        const struct oom_allocator_settings *settings, uint64_t capacity) {
    uint64_t enough = 8 * requests->peak_live + (UINT64_C(8) << 30);
    if (capacity < OOM_REPLAY_UNLIMITED || !settings->expandable_segments) return capacity;
    return enough / OOM_PAGE * OOM_PAGE;
}

static enum oom_status run_at(const struct question *question, uint64_t capacity,
                              struct oom_replay_outcome *out) {
    struct run run = {.requests = &question->requests};
    *out = (struct oom_replay_outcome){0};
    capacity = bounded(run.requests, &question->settings, capacity) / OOM_PAGE * OOM_PAGE;
    enum oom_status status = open_run(&run, &question->settings, capacity);
    if (status == OOM_OK) status = run_all(&run, question->snapshot, out);
    if (status == OOM_OK) status = take_figures(&run, out);
    close_run(&run);
    return status;
}

/* The settings asked about are not those that were in force: the requests are taken from the
 * recording first. */
static enum oom_status open_question(struct question *question, const struct oom_snapshot *snapshot,
                                     const struct oom_replay_options *options) {
    struct oom_replay_options recorded = {0};
    struct oom_recording recording;
    if (options != NULL) recorded = *options;
    recorded.settings_given = false;
    *question = (struct question){.snapshot = snapshot};
    OOM_TRY(oom_recording_open(&recording, snapshot, &recorded));
    question->settings = recording.settings;
    if (options != NULL && options->settings_given) {
        question->settings = options->settings;
        question->settings.trace_entries = question->settings.guard_bytes = 0;
        if (options->profile_given) question->settings.profile = options->profile;
    }
    enum oom_status status = oom_replay_requests_make(&recording, &question->requests);
    oom_recording_close(&recording);
    return status;
}

enum oom_status oom_replay_what_if(const struct oom_snapshot *snapshot,
                                   const struct oom_replay_options *options, uint64_t capacity,
                                   struct oom_replay_outcome *out) {
    struct question question;
    if (capacity < OOM_PAGE) {
        return oom_fail(OOM_USAGE, "a card of %llu bytes: allowed are %d and more",
                        (oom_ull)capacity, OOM_PAGE);
    }
    enum oom_status status = open_question(&question, snapshot, options);
    if (status == OOM_OK) status = run_at(&question, capacity, out);
    oom_replay_requests_free(&question.requests);
    return status;
}

/* ---- the smallest card ---- */

static enum oom_status fits(const struct question *question, uint64_t capacity, bool *out) {
    struct oom_replay_outcome outcome;
    OOM_TRY(run_at(question, capacity, &outcome));
    *out = outcome.fits;
    return OOM_OK;
}

static uint64_t pages_up(uint64_t bytes) {
    return (bytes + OOM_PAGE - 1) / OOM_PAGE * OOM_PAGE;
}

/* Some capacity that is enough, from what an endless card would see used. 0:
 * none is. */
static enum oom_status find_enough(const struct question *question, uint64_t *out) {
    struct oom_replay_outcome outcome;
    bool enough = false;
    OOM_TRY(run_at(question, OOM_REPLAY_UNLIMITED, &outcome));
    *out = pages_up(outcome.peak_reserved > OOM_PAGE ? outcome.peak_reserved : OOM_PAGE);
    while (*out < NO_CAPACITY_ABOVE) {
        OOM_TRY(fits(question, *out, &enough));
        if (enough) return OOM_OK;
        *out = pages_up(*out + *out / 4);
    }
    *out = 0;
    return OOM_OK;
}

static enum oom_status find_least(const struct question *question, uint64_t *out) {
    uint64_t bound = pages_up(question->requests.peak_live), high; /* nothing below it can do */
    bool enough;
    if (bound == 0) bound = OOM_PAGE;
    OOM_TRY(find_enough(question, &high));
    *out = high;
    if (high == 0) return OOM_OK;
    uint64_t low = bound - OOM_PAGE;
    while (high - low > OOM_PAGE) { /* does not fit `low`, fits `high` */
        uint64_t middle = (low + (high - low) / 2) / OOM_PAGE * OOM_PAGE;
        OOM_TRY(fits(question, middle, &enough));
        *(enough ? &high : &low) = middle;
    }
    uint64_t first = high > SEARCH_BELOW ? high - SEARCH_BELOW : OOM_PAGE;
    if (first < bound) first = bound;
    for (*out = first; *out < high; *out += OOM_PAGE) {
        OOM_TRY(fits(question, *out, &enough));
        if (enough) break;
    }
    return OOM_OK;
}

enum oom_status oom_replay_least(const struct oom_snapshot *snapshot,
                                 const struct oom_replay_options *options, uint64_t *capacity) {
    struct question question;
    *capacity = 0;
    enum oom_status status = open_question(&question, snapshot, options);
    if (status == OOM_OK) status = find_least(&question, capacity);
    oom_replay_requests_free(&question.requests);
    return status;
}
