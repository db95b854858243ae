/*
 * replay-requests.c: the program's side of a recording, as a list that can be
 * run many times: which blocks it asked for and gave back. What was live before
 * the first event is asked for first, in the order of addresses. Memory given
 * back between two requests was the program's doing when the next thing is no
 * request, or one that took nothing from the device; else it may as well have
 * been the retry of that request, and is left out.
 */
#include "harness/memory/address-map.h"
#include "harness/memory/replay-internal.h"

#include "kernels/hostmem.h"

struct maker {
    const struct oom_recording *recording;
    struct oom_replay_requests *out;
    struct oom_address_map slots; /* by recorded address */
    struct slot {
        uint64_t bytes; /* rounded to 512 */
        uint32_t next;  /* unused one, + 1 */
        bool held;
    } * live;
    uint64_t room;
    uint32_t unused; /* + 1; 0: none */
    uint64_t bytes;  /* live now */
};

/* ---- lists ---- */

static enum oom_status add(struct maker *maker, const struct oom_replay_request *request) {
    struct oom_replay_requests *out = maker->out;
    if (out->count == out->room) {
        uint64_t room = 2 * out->room + 256;
        void *items = oom_host_realloc(out->items, room * sizeof *out->items);
        if (items == NULL) return oom_fail(OOM_HOST_NOMEM, "replay: no host memory for requests");
        out->items = items;
        out->room = room;
    }
    out->items[out->count++] = *request;
    return OOM_OK;
}

static enum oom_status take_slot(struct maker *maker, uint32_t *out) {
    if (maker->unused != 0) {
        *out = maker->unused - 1;
        maker->unused = maker->live[*out].next;
        return OOM_OK;
    }
    if (maker->out->slot_count == maker->room) {
        uint64_t room = 2 * maker->room + 256;
        void *live = oom_host_realloc(maker->live, room * sizeof *maker->live);
        if (live == NULL || room > UINT32_MAX / 2) {
            if (live != NULL) maker->live = live;
            return oom_fail(OOM_HOST_NOMEM, "replay: no host memory for live blocks");
        }
        maker->live = live;
        maker->room = room;
    }
    *out = (uint32_t)maker->out->slot_count++;
    return OOM_OK;
}

static enum oom_status find_pool(struct maker *maker, struct oom_pool_id id, uint16_t *out) {
    struct oom_replay_requests *r = maker->out;
    uint64_t i = 0;
    while (i < r->pool_count && !oom_pool_same(r->pools[i], id)) i++;
    if (i == UINT16_MAX) return oom_fail(OOM_USAGE, "the recording has too many private pools");
    if (i == r->pool_count) {
        void *pools = oom_host_realloc(r->pools, (i + 1) * sizeof *r->pools);
        if (pools == NULL) return oom_fail(OOM_HOST_NOMEM, "replay: no host memory for pools");
        r->pools = pools;
        r->pools[r->pool_count++] = id;
    }
    *out = (uint16_t)i;
    return OOM_OK;
}

/* ---- blocks ---- */

static void grow(struct maker *maker, uint64_t bytes) {
    maker->bytes += bytes;
    if (maker->bytes > maker->out->peak_live) maker->out->peak_live = maker->bytes;
}

static uint64_t granules(uint64_t bytes) {
    return (bytes + OOM_GRANULE - 1) / OOM_GRANULE * OOM_GRANULE;
}

/* `request` lacks slot and pool. */
static enum oom_status begin_block(struct maker *maker, uint64_t address, struct oom_pool_id pool,
                                   struct oom_replay_request *request) {
    uint64_t there;
    if (oom_address_map_get(&maker->slots, address, &there)) {
        return oom_recording_refuse(maker->recording, request->event,
                                    "something is live there already");
    }
    OOM_TRY(take_slot(maker, &request->slot));
    OOM_TRY(oom_address_map_put(&maker->slots, address, request->slot));
    OOM_TRY(find_pool(maker, pool, &request->pool));
    maker->live[request->slot] = (struct slot){.bytes = granules(request->bytes)};
    grow(maker, maker->live[request->slot].bytes);
    return add(maker, request);
}

static void end_block(struct maker *maker, uint64_t address, uint32_t slot) {
    maker->bytes -= maker->live[slot].bytes;
    maker->live[slot].next = maker->unused;
    maker->unused = slot + 1;
    oom_address_map_remove(&maker->slots, address);
}

static enum oom_status begin_start(struct maker *maker) {
    const struct oom_recording *r = maker->recording;
    for (uint64_t i = 0; i < r->block_count; i++) {
        const struct oom_replay_block *block = &r->blocks[i];
        const struct oom_replay_region *region = oom_replay_regions_at(&r->regions, block->address);
        struct oom_replay_request request = {
            .bytes = block->requested != 0 ? block->requested : block->bytes,
            .event = OOM_REPLAY_NEVER,
            .site = block->site,
            .stream = (uint16_t)oom_recording_stream(r, region->stream),
            .kind = OOM_REPLAY_ALLOC};
        OOM_TRY(begin_block(maker, block->address, region->pool, &request));
        if (!block->pending) continue;
        request.kind = OOM_REPLAY_HOLD;
        maker->live[request.slot].held = true;
        OOM_TRY(add(maker, &request));
    }
    return OOM_OK;
}

/* ---- events ---- */

static enum oom_status make_alloc(struct maker *maker, uint64_t index) {
    const struct oom_recording *r = maker->recording;
    const struct oom_snapshot_event *event = &r->events[index];
    struct oom_replay_request request = {
        .bytes = event->bytes,
        .event = index,
        .site = event->site,
        .stream = (uint16_t)oom_recording_stream(r, event->stream),
        .kind = event->action == OOM_ACTION_OOM ? OOM_REPLAY_TRY : OOM_REPLAY_ALLOC};
    if (request.kind == OOM_REPLAY_ALLOC) {
        return begin_block(maker, event->address, oom_recording_pool(r, index), &request);
    }
    OOM_TRY(find_pool(maker, oom_recording_pool(r, index), &request.pool));
    grow(maker, granules(event->bytes));
    maker->bytes -= granules(event->bytes);
    return add(maker, &request);
}

static enum oom_status make_free(struct maker *maker, uint64_t index, bool held) {
    const struct oom_recording *r = maker->recording;
    const struct oom_snapshot_event *event = &r->events[index];
    uint64_t slot;
    if (!oom_address_map_get(&maker->slots, event->address, &slot) || maker->live[slot].held) {
        return oom_recording_refuse(r, index, "no such block is live");
    }
    maker->live[slot].held = held;
    if (!held) end_block(maker, event->address, (uint32_t)slot);
    return add(maker,
               &(struct oom_replay_request){.event = index,
                                            .slot = (uint32_t)slot,
                                            .kind = held ? OOM_REPLAY_HOLD : OOM_REPLAY_FREE});
}

static enum oom_status make_complete(struct maker *maker, uint64_t index) {
    const struct oom_snapshot_event *event = &maker->recording->events[index];
    uint64_t slot;
    if (!oom_address_map_get(&maker->slots, event->address, &slot) || !maker->live[slot].held) {
        return oom_recording_refuse(maker->recording, index, "no such block waits");
    }
    end_block(maker, event->address, (uint32_t)slot);
    return add(maker, &(struct oom_replay_request){
                          .event = index, .slot = (uint32_t)slot, .kind = OOM_REPLAY_COMPLETE});
}

static bool is_release(uint8_t action) {
    return action == OOM_ACTION_SEGMENT_FREE || action == OOM_ACTION_SEGMENT_UNMAP;
}

/* Memory is given back from event `index` on: by the program itself? *end: the
 * first event that is not about that. */
static bool by_program(const struct oom_recording *r, uint64_t index, uint64_t *end) {
    while (index < r->count && (is_release(r->events[index].action) ||
                                r->events[index].action == OOM_ACTION_FREE_COMPLETED)) {
        index++;
    }
    *end = index;
    if (index == r->count) return true;
    uint8_t action = r->events[index].action;
    return action == OOM_ACTION_ALLOC || action == OOM_ACTION_FREE_REQUESTED ||
           action == OOM_ACTION_SNAPSHOT;
}

/* Completions among them come with the release, but are kept: other settings
 * release nothing. */
static enum oom_status make_release(struct maker *maker, uint64_t index, uint64_t *end) {
    const struct oom_recording *r = maker->recording;
    bool own = by_program(r, index, end) && r->settings.backend != OOM_BACKEND_DIRECT;
    for (uint64_t i = index; i < *end; i++) {
        struct oom_replay_request request = {.event = i, .kind = OOM_REPLAY_RETIRE};
        struct oom_pool_id pool = oom_recording_pool(r, i);
        if (!is_release(r->events[i].action)) {
            OOM_TRY(make_complete(maker, i));
        } else if (pool.a != 0 || pool.b != 0) {
            OOM_TRY(find_pool(maker, pool, &request.pool));
            OOM_TRY(add(maker, &request));
        }
    }
    if (!own) return OOM_OK;
    return add(maker, &(struct oom_replay_request){.event = index, .kind = OOM_REPLAY_RELEASE});
}

static enum oom_status make_event(struct maker *maker, uint64_t index, uint64_t *next) {
    const struct oom_recording *r = maker->recording;
    const struct oom_snapshot_event *event = &r->events[index];
    bool paired = r->has_requests && r->has_completions;
    *next = index + 1;
    switch ((enum oom_action)event->action) {
    case OOM_ACTION_ALLOC:
    case OOM_ACTION_OOM:
        return make_alloc(maker, index);
    case OOM_ACTION_FREE_REQUESTED: {
        bool followed = paired && *next < r->count &&
                        event[1].action == OOM_ACTION_FREE_COMPLETED &&
                        event[1].address == event->address;
        *next += followed;
        return make_free(maker, index, paired && !followed);
    }
    case OOM_ACTION_FREE_COMPLETED:
        return paired ? make_complete(maker, index) : make_free(maker, index, false);
    case OOM_ACTION_SEGMENT_FREE:
    case OOM_ACTION_SEGMENT_UNMAP:
        return make_release(maker, index, next);
    case OOM_ACTION_SEGMENT_ALLOC:
    case OOM_ACTION_SEGMENT_MAP:
    case OOM_ACTION_SNAPSHOT:
        break;
    }
    return OOM_OK;
}

enum oom_status oom_replay_requests_make(const struct oom_recording *recording,
                                         struct oom_replay_requests *out) {
    struct maker maker = {.recording = recording, .out = out};
    uint16_t first;
    *out = (struct oom_replay_requests){.stream_count = recording->stream_count};
    enum oom_status status = find_pool(&maker, (struct oom_pool_id){0, 0}, &first);
    if (status == OOM_OK) status = begin_start(&maker);
    for (uint64_t i = 0; i < recording->count && status == OOM_OK;) {
        status = make_event(&maker, i, &i);
    }
    oom_address_map_free(&maker.slots);
    oom_host_free(maker.live);
    if (status != OOM_OK) oom_replay_requests_free(out);
    return status;
}

void oom_replay_requests_free(struct oom_replay_requests *requests) {
    oom_host_free(requests->items);
    oom_host_free(requests->pools);
    *requests = (struct oom_replay_requests){0};
}
