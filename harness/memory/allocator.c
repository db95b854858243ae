/* allocator.c: the life of an allocator, and alloc and free around the chain of chain.c. */
#include "harness/memory/drive.h"
#include "harness/memory/internal.h"

#include "harness/base/control.h"

#include "kernels/hostmem.h"

const char *oom_tag_name(enum oom_tag tag) {
    static const char *const names[] = {
#define X(id, name) name,
        OOM_TAG_MAP(X)
#undef X
    };
    return (unsigned)tag < OOM_TAG_COUNT ? names[tag] : "unknown";
}

const char *oom_action_name(enum oom_action action) {
    static const char *const names[] = {
#define X(id, name) name,
        OOM_ACTION_MAP(X)
#undef X
    };
    return (unsigned)action < sizeof names / sizeof names[0] ? names[action] : "unknown";
}

/* ---- life ---- */

/* PyTorch's number of bytes for a fraction: rounded half away from zero, up to 2.11 truncated. */
static uint64_t limit_of(const struct oom_allocator *a) {
    double fraction = a->settings.per_process_memory_fraction;
    double half = a->settings.profile == OOM_PROFILE_PYTORCH_2_11 ? 0 : 0.5;
    if (!(fraction < 1)) return OOM_NO_LIMIT;
    return (uint64_t)(fraction * (double)a->properties.capacity + half);
}

/* The threshold is of the limit and does nothing without one (pytorch#106660), but in profile
 * `fixed`, where the device's capacity stands in. */
static uint64_t gc_allowed_of(const struct oom_allocator *a) {
    double threshold = a->settings.garbage_collection_threshold;
    uint64_t limit = a->limit;
    if (limit == OOM_NO_LIMIT && oom_is_fixed(a)) limit = a->properties.capacity;
    if (limit == OOM_NO_LIMIT || !(threshold > 0)) return OOM_NO_LIMIT;
    return (uint64_t)(threshold * (double)limit);
}

static enum oom_status add_stream(struct oom_allocator *a, struct oom_stream *stream) {
    uint32_t count = a->stream_count + 1;
    if (count > UINT16_MAX) {
        return oom_fail(OOM_INVALID, "allocator: more than %d streams", UINT16_MAX);
    }
    OOM_TRY(oom_pools_reserve(a, count));
    OOM_TRY(oom_pending_reserve(a, count));
    struct oom_stream **streams = oom_host_realloc(a->streams, count * sizeof(struct oom_stream *));
    if (streams == NULL) {
        return oom_fail(OOM_HOST_NOMEM, "allocator: no host memory for one more stream");
    }
    a->streams = streams;
    a->streams[a->stream_count++] = stream;
    return OOM_OK;
}

enum oom_status oom_stream_number(struct oom_allocator *a, struct oom_stream *stream,
                                  uint16_t *out) {
    uint32_t number = 0;
    while (number < a->stream_count && a->streams[number] != stream) number++;
    if (number == a->stream_count) OOM_TRY(add_stream(a, stream));
    *out = (uint16_t)number;
    return OOM_OK;
}

static enum oom_status init(struct oom_allocator *a, struct oom_device *device,
                            const struct oom_allocator_settings *settings) {
    a->device = device;
    a->settings = *settings;
    if (oom_is_direct(a)) a->settings.expandable_segments = false; /* there are no segments */
    device->api->properties(device, &a->properties);
    if (oom_is_expandable(a)) OOM_TRY(oom_expandable_check(a));
    a->limit = limit_of(a);
    a->gc_allowed = gc_allowed_of(a);
    oom_trace_clock_start(&a->clock);
    a->event = oom_host_calloc(1, sizeof *a->event);
    if (a->event == NULL) return oom_fail(OOM_HOST_NOMEM, "allocator: no host memory for an event");
    OOM_TRY(oom_pools_init(a));
    OOM_TRY(oom_live_table_init(&a->live));
    OOM_TRY(oom_site_table_init(&a->sites));
    OOM_TRY(oom_trace_init(&a->trace, settings->trace_entries));
    return add_stream(a, NULL);
}

enum oom_status oom_allocator_create(struct oom_device *device,
                                     const struct oom_allocator_settings *settings,
                                     struct oom_allocator **out) {
    struct oom_allocator_settings defaults = oom_allocator_settings_default();
    if (settings == NULL) settings = &defaults;
    *out = NULL;
    OOM_TRY(oom_allocator_settings_check(settings));
    struct oom_allocator *a = oom_host_calloc(1, sizeof *a);
    if (a == NULL) {
        return oom_fail(OOM_HOST_NOMEM, "allocator: no host memory for %zu bytes", sizeof *a);
    }
    enum oom_status status = init(a, device, settings);
    if (status != OOM_OK) {
        oom_allocator_destroy(a);
        return status;
    }
    *out = a;
    return OOM_OK;
}

/* Work that is still queued may use blocks: pages under it could not be unmapped. */
static void settle(struct oom_allocator *a) {
    bool expandable = false;
    for (struct oom_tree_node *node = oom_tree_end(&a->segments, 0); node != NULL;
         node = oom_tree_step(node, 1)) {
        expandable = expandable || ((struct oom_segment *)node)->expandable;
    }
    if (expandable) (void)a->device->api->sync(a->device);
}

void oom_allocator_destroy(struct oom_allocator *a) {
    if (a == NULL) return;
    struct oom_tree_node *node;
    settle(a);
    while ((node = oom_tree_end(&a->segments, 0)) != NULL) {
        struct oom_segment *segment = (struct oom_segment *)node;
        if (segment->expandable)
            oom_expandable_abandon(a, segment);
        else
            (void)a->device->api->free(a->device, segment->address);
        oom_tree_unlink(&a->segments, node);
        oom_segment_discard(segment);
    }
    oom_pools_free(a);
    oom_pending_free(a);
    oom_block_store_free(&a->blocks);
    oom_live_table_free(&a->live);
    oom_site_table_free(&a->sites);
    oom_trace_free(&a->trace);
    oom_segment_discard(a->spare_segment);
    oom_segment_discard(a->spare_expandable);
    oom_host_free(a->streams);
    oom_host_free(a->event);
    oom_host_free(a);
}

struct oom_device *oom_allocator_device(const struct oom_allocator *a) {
    return a->device;
}

/* ---- the trace ---- */

/* At the time that the clock was last read. */
static void add_event(struct oom_allocator *a, enum oom_action action, uint64_t address,
                      uint64_t bytes, uint16_t stream, uint16_t pool, uint32_t site, uint8_t tag) {
    struct oom_trace_record *record = oom_trace_add(&a->trace);
    if (record == NULL) return;
    *record = (struct oom_trace_record){.address = address,
                                        .bytes = bytes,
                                        .time_us = a->clock.now_us,
                                        .pool = pool,
                                        .site = site,
                                        .stream = stream,
                                        .action = (uint8_t)action,
                                        .tag = tag};
}

static void add_block_event(struct oom_allocator *a, enum oom_action action,
                            const struct oom_block *block) {
    add_event(a, action, block->address, block->requested, block->stream, block->owner->number,
              block->site, block->tag);
}

void oom_allocator_record(struct oom_allocator *a, enum oom_action action, uint64_t address,
                          uint64_t bytes, uint16_t stream, uint16_t pool, uint32_t site,
                          uint8_t tag) {
    if (a->trace.limit == 0) return;
    oom_trace_clock_read(&a->clock);
    add_event(a, action, address, bytes, stream, pool, site, tag);
}

/* ---- taking back ---- */

static enum oom_status not_live(const struct oom_allocator *a, const char *verb, oom_devptr ptr) {
    const struct oom_tree_node *at = a->segments.root;
    while (at != NULL) {
        const struct oom_segment *segment = (const struct oom_segment *)at;
        if (ptr >= segment->address && ptr - segment->address < segment->bytes) {
            return oom_fail(OOM_INVALID,
                            "%s of 0x%llx: no live block begins there, though the segment at "
                            "0x%llx (%llu bytes) holds it: freed before, or not a block's start",
                            verb, (unsigned long long)ptr, (unsigned long long)segment->address,
                            (unsigned long long)segment->bytes);
        }
        at = at->child[ptr > segment->address];
    }
    return oom_fail(OOM_INVALID,
                    "%s of 0x%llx: this allocator has no segment there; allowed are addresses "
                    "that alloc gave and that were not freed",
                    verb, (unsigned long long)ptr);
}

enum oom_status oom_block_find(struct oom_allocator *a, const char *verb, oom_devptr ptr,
                               struct oom_block **out) {
    *out = oom_live_table_find(&a->live, ptr - a->settings.guard_bytes);
    return *out != NULL ? OOM_OK : not_live(a, verb, ptr);
}

/* The books of a free that no stream has anything against any more. */
static void finish(struct oom_allocator *a, struct oom_block *block) {
    uint64_t released = 0;
    add_block_event(a, OOM_ACTION_FREE_COMPLETED, block);
    oom_count_free_completed(a, block);
    if (oom_is_direct(a))
        oom_segment_gone(a, block, &released);
    else
        oom_chain_free(a, block);
}

enum oom_status oom_block_complete(struct oom_allocator *a, struct oom_block *block) {
    if (oom_is_direct(a)) OOM_TRY(a->device->api->free(a->device, block->address));
    oom_trace_clock_read(&a->clock);
    finish(a, block);
    return OOM_OK;
}

/* What may fail of a free, before anything has changed. *pending: other streams use the block. */
static enum oom_status begin_free(struct oom_allocator *a, struct oom_block *block, bool held,
                                  bool *pending) {
    *pending = held;
    if (held) return oom_pending_hold_prepare(a, 1);
    if (block->uses != NULL) return oom_pending_begin(a, block, pending);
    return oom_is_direct(a) ? a->device->api->free(a->device, block->address) : OOM_OK;
}

/* `block` was taken out of the live table; on failure it is there again. */
static enum oom_status take_back(struct oom_allocator *a, struct oom_block *block, bool held) {
    bool pending;
    enum oom_status status = begin_free(a, block, held, &pending);
    if (status != OOM_OK) {
        oom_live_table_add(&a->live, block);
        return status;
    }
    if (a->trace.limit > 0) oom_trace_clock_read(&a->clock);
    add_block_event(a, OOM_ACTION_FREE_REQUESTED, block);
    oom_count_free_requested(a, block);
    if (held)
        oom_pending_hold(a, block);
    else if (pending)
        block->hold = OOM_HOLD_PENDING;
    else
        finish(a, block);
    return OOM_OK;
}

static enum oom_status take_back_ptr(struct oom_allocator *a, oom_devptr ptr, bool held) {
    if (ptr == 0) return OOM_OK;
    uint64_t address = ptr - a->settings.guard_bytes;
    if (oom_control_on(OOM_CONTROL_BLOCK_TWICE)) address = oom_twin_take_back(a, address);
    if (a->settings.guard_bytes > 0) {
        const struct oom_block *guarded = oom_live_table_find(&a->live, address);
        if (guarded != NULL) OOM_TRY(oom_guard_read(a, guarded, &a->guards_damaged));
    }
    struct oom_block *block = oom_live_table_take(&a->live, address);
    return block != NULL ? take_back(a, block, held) : not_live(a, "free", ptr);
}

/* ---- alloc ---- */

/* The host memory that every call needs; most need no more. */
static enum oom_status prepare(struct oom_allocator *a, struct oom_stream *stream, const char *site,
                               struct oom_request *request) {
    OOM_TRY(oom_site_intern(&a->sites, site, &request->site));
    OOM_TRY(oom_stream_number(a, stream, &request->stream));
    return oom_block_store_reserve(&a->blocks, 1);
}

static void count_call(struct oom_allocator *a) {
    a->stats.allocations++;
    if (a->fail_call > 0) a->fail_call--;
}

static enum oom_status out_of_memory(struct oom_allocator *a, const struct oom_request *request) {
    if (!request->rejected) { /* as in PyTorch, whose rejection is no OOM of these */
        struct oom_memory_info info;
        a->device->api->memory_info(a->device, &info);
        oom_allocator_record(a, OOM_ACTION_OOM, info.free, request->size, request->stream,
                             request->pool->number, request->site, request->tag);
        a->stats.num_ooms++;
    }
    return oom_report_fill(a, request);
}

/* The chain. On OOM_HOST_NOMEM before it has changed anything, the call has not been. */
static enum oom_status find_block(struct oom_allocator *a, struct oom_request *request,
                                  struct oom_block **out) {
    enum oom_status status = OOM_OK;
    *out = oom_chain_search(a, request);
    if (*out == NULL) status = oom_chain_prepare(a, request);
    if (status != OOM_OK) {
        oom_chain_unsearch(a, request);
        return status;
    }
    count_call(a);
    request->obtained = *out == NULL;
    if (request->obtained) status = oom_chain_obtain(a, request, out);
    if (status == OOM_NOMEM) return out_of_memory(a, request);
    if (status == OOM_OK) oom_chain_cut(a, *out, request->size);
    return status;
}

static void hand_out(struct oom_allocator *a, struct oom_block *block,
                     const struct oom_request *request) {
    block->hold = OOM_HOLD_LIVE;
    block->requested = request->bytes;
    block->site = request->site;
    block->tag = request->tag;
    oom_live_table_add(&a->live, block);
    oom_count_handed_out(a, block);
    if (request->obtained) oom_count_utilization(a);
    if (a->trace.limit > 0) oom_trace_clock_read(&a->clock);
    add_block_event(a, OOM_ACTION_ALLOC, block);
}

enum oom_status oom_allocator_alloc(struct oom_allocator *a, uint64_t bytes,
                                    struct oom_stream *stream, enum oom_tag tag, const char *site,
                                    oom_devptr *out) {
    struct oom_request request = {.bytes = bytes, .tag = (uint8_t)tag};
    struct oom_block *block = NULL;
    *out = 0;
    if (bytes == 0) return OOM_OK;
    if ((unsigned)tag >= OOM_TAG_COUNT) {
        return oom_fail(OOM_INVALID, "alloc: tag %d, allowed 0 to %d", (int)tag, OOM_TAG_COUNT - 1);
    }
    OOM_TRY(prepare(a, stream, site, &request));
    request.refused = a->fail_call == 1;
    if (bytes >= OOM_EXABYTE) { /* before anything else, and not counted as an OOM, as in PyTorch */
        count_call(a);
        request.size = request.segment_bytes = bytes;
        request.pool = &a->current->pools[OOM_POOL_LARGE];
        return oom_report_fill(a, &request);
    }
    if (a->waiting > 0) OOM_TRY(oom_pending_poll(a));
    oom_request_plan(a, a->current, &request);
    OOM_TRY(find_block(a, &request, &block));
    hand_out(a, block, &request);
    enum oom_status status = oom_guard_write(a, block);
    if (status != OOM_OK) {
        (void)take_back(a, oom_live_table_take(&a->live, block->address), false);
        return status;
    }
    *out = block->address + a->settings.guard_bytes;
    if (oom_control_on(OOM_CONTROL_BLOCK_TWICE)) *out = oom_twin_hand_out(a, block);
    return OOM_OK;
}

/* ---- free ---- */

enum oom_status oom_allocator_free(struct oom_allocator *a, oom_devptr ptr) {
    return take_back_ptr(a, ptr, false);
}

enum oom_status oom_allocator_free_held(struct oom_allocator *a, oom_devptr ptr) {
    return take_back_ptr(a, ptr, true);
}

enum oom_status oom_allocator_release_cached(struct oom_allocator *a) {
    uint64_t released = 0;
    OOM_TRY(oom_chain_prepare_release(a));
    return oom_chain_release_cached(a, &released);
}

void oom_allocator_fail_device_at(struct oom_allocator *a, uint64_t n) {
    a->fail_device = n;
}

void oom_allocator_fail_call_at(struct oom_allocator *a, uint64_t n) {
    a->fail_call = n;
}
