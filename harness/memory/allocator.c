/* allocator.c: the life of an allocator, and alloc and free around the chain of chain.c. */
#include "harness/memory/internal.h"

#include "kernels/hostmem.h"

#include <time.h>

static const uint64_t EXA = (uint64_t)1 << 60;

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

static uint64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* ---- life ---- */

/* PyTorch's number of bytes for a fraction: rounded half away from zero. */
static uint64_t limit_of(double fraction, uint64_t capacity) {
    return fraction < 1 ? (uint64_t)(fraction * (double)capacity + 0.5) : OOM_NO_LIMIT;
}

static enum oom_status add_stream(struct oom_allocator *a, struct oom_stream *stream) {
    uint32_t count = a->stream_count + 1;
    if (count > UINT16_MAX) {
        return oom_fail(OOM_INVALID, "allocator: more than %d streams", UINT16_MAX);
    }
    OOM_TRY(oom_free_set_reserve(&a->pools[OOM_POOL_SMALL].free, count));
    OOM_TRY(oom_free_set_reserve(&a->pools[OOM_POOL_LARGE].free, count));
    struct oom_stream **streams = oom_host_realloc(a->streams, count * sizeof(struct oom_stream *));
    if (streams == NULL) {
        return oom_fail(OOM_HOST_NOMEM, "allocator: no host memory for one more stream");
    }
    a->streams = streams;
    a->streams[a->stream_count++] = stream;
    return OOM_OK;
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
    a->device = device;
    a->settings = *settings;
    device->api->properties(device, &a->properties);
    a->limit = limit_of(settings->per_process_memory_fraction, a->properties.capacity);
    a->pools[OOM_POOL_SMALL].kind = OOM_POOL_SMALL;
    a->pools[OOM_POOL_LARGE].kind = OOM_POOL_LARGE;
    a->start_us = now_us();
    a->event = oom_host_calloc(1, sizeof *a->event);
    if (a->event == NULL) {
        oom_host_free(a);
        return oom_fail(OOM_HOST_NOMEM, "allocator: no host memory for an event");
    }

    enum oom_status status = oom_live_table_init(&a->live);
    if (status == OOM_OK) status = oom_site_table_init(&a->sites);
    if (status == OOM_OK) status = oom_trace_init(&a->trace, settings->trace_entries);
    if (status == OOM_OK) status = add_stream(a, NULL);
    if (status != OOM_OK) {
        oom_allocator_destroy(a);
        return status;
    }
    *out = a;
    return OOM_OK;
}

void oom_allocator_destroy(struct oom_allocator *a) {
    if (a == NULL) return;
    struct oom_tree_node *node;
    while ((node = oom_tree_end(&a->segments, 0)) != NULL) {
        struct oom_segment *segment = (struct oom_segment *)node;
        a->device->api->free(a->device, segment->address);
        oom_tree_unlink(&a->segments, node);
        oom_host_free(segment);
    }
    oom_free_set_free(&a->pools[OOM_POOL_SMALL].free);
    oom_free_set_free(&a->pools[OOM_POOL_LARGE].free);
    oom_block_store_free(&a->blocks);
    oom_live_table_free(&a->live);
    oom_site_table_free(&a->sites);
    oom_trace_free(&a->trace);
    oom_host_free(a->spare_segment);
    oom_host_free(a->streams);
    oom_host_free(a->event);
    oom_host_free(a);
}

struct oom_device *oom_allocator_device(const struct oom_allocator *a) {
    return a->device;
}

void oom_allocator_record(struct oom_allocator *a, enum oom_action action, uint64_t address,
                          uint64_t bytes, uint16_t stream, uint32_t site, uint8_t tag) {
    if (a->settings.trace_entries == 0) return;
    /* completed in the call that requested it: the clock is the dearest part of a record */
    if (action != OOM_ACTION_FREE_COMPLETED) a->event_us = now_us() - a->start_us;
    oom_trace_add(&a->trace, &(struct oom_trace_record){.address = address,
                                                        .bytes = bytes,
                                                        .time_us = a->event_us,
                                                        .site = site,
                                                        .stream = stream,
                                                        .action = (uint8_t)action,
                                                        .tag = tag});
}

/* ---- alloc ---- */

static enum oom_status stream_number(struct oom_allocator *a, struct oom_stream *stream,
                                     uint16_t *out) {
    uint32_t number = 0;
    while (number < a->stream_count && a->streams[number] != stream) number++;
    if (number == a->stream_count) OOM_TRY(add_stream(a, stream));
    *out = (uint16_t)number;
    return OOM_OK;
}

/* All host memory that one call may need, so that nothing fails half-way. */
static enum oom_status prepare(struct oom_allocator *a, struct oom_stream *stream, const char *site,
                               struct oom_request *request) {
    OOM_TRY(oom_site_intern(&a->sites, site, &request->site));
    OOM_TRY(stream_number(a, stream, &request->stream));
    OOM_TRY(oom_block_store_reserve(&a->blocks, 2));
    if (a->spare_segment == NULL) a->spare_segment = oom_host_alloc(sizeof *a->spare_segment);
    if (a->spare_segment != NULL) return OOM_OK;
    return oom_fail(OOM_HOST_NOMEM, "allocator: no host memory for a segment's record");
}

/* The call of oom_allocator_fail_call_at has come. */
static bool must_fail(struct oom_allocator *a) {
    return a->fail_call > 0 && --a->fail_call == 0;
}

static enum oom_status out_of_memory(struct oom_allocator *a, const struct oom_request *request) {
    struct oom_memory_info info;
    a->device->api->memory_info(a->device, &info);
    oom_allocator_record(a, OOM_ACTION_OOM, info.free, request->size, request->stream,
                         request->site, request->tag);
    a->stats.num_ooms++;
    return oom_report_fill(a, request);
}

static void hand_out(struct oom_allocator *a, struct oom_block *block,
                     const struct oom_request *request) {
    block->allocated = true;
    block->requested = request->bytes;
    block->site = request->site;
    block->tag = request->tag;
    oom_live_table_add(&a->live, block);
    oom_count_handed_out(a, block);
    oom_allocator_record(a, OOM_ACTION_ALLOC, block->address, block->requested, block->stream,
                         block->site, block->tag);
}

static void give_back(struct oom_allocator *a, struct oom_block *block) {
    uint64_t address = block->address, requested = block->requested;
    uint16_t stream = block->stream;
    uint32_t site = block->site;
    uint8_t tag = block->tag;
    oom_allocator_record(a, OOM_ACTION_FREE_REQUESTED, address, requested, stream, site, tag);
    oom_count_free_requested(a, block);
    oom_allocator_record(a, OOM_ACTION_FREE_COMPLETED, address, requested, stream, site, tag);
    oom_count_free_completed(a, block);
    block->allocated = false;
    oom_chain_free(a, block);
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
    a->stats.allocations++;
    request.refused = must_fail(a);
    if (bytes >= EXA) { /* before anything else, and not counted as an OOM, as in PyTorch */
        request.size = request.segment_bytes = bytes;
        return oom_report_fill(a, &request);
    }
    oom_request_plan(a, &request);
    enum oom_status status = oom_chain_find(a, &request, &block);
    if (status == OOM_NOMEM) return out_of_memory(a, &request);
    if (status != OOM_OK) return status;
    hand_out(a, block, &request);
    status = oom_guard_write(a, block);
    if (status != OOM_OK) {
        give_back(a, oom_live_table_take(&a->live, block->address));
        return status;
    }
    *out = block->address + a->settings.guard_bytes;
    return OOM_OK;
}

/* ---- free ---- */

static enum oom_status not_live(const struct oom_allocator *a, oom_devptr ptr) {
    const struct oom_tree_node *at = a->segments.root;
    while (at != NULL) {
        const struct oom_segment *segment = (const struct oom_segment *)at;
        if (ptr >= segment->address && ptr - segment->address < segment->bytes) {
            return oom_fail(OOM_INVALID,
                            "free of 0x%llx: no live block begins there, though the segment at "
                            "0x%llx (%llu bytes) holds it: freed before, or not a block's start",
                            (unsigned long long)ptr, (unsigned long long)segment->address,
                            (unsigned long long)segment->bytes);
        }
        at = at->child[ptr > segment->address];
    }
    return oom_fail(OOM_INVALID,
                    "free of 0x%llx: this allocator has no segment there; allowed are addresses "
                    "that alloc gave and that were not freed",
                    (unsigned long long)ptr);
}

enum oom_status oom_allocator_free(struct oom_allocator *a, oom_devptr ptr) {
    if (ptr == 0) return OOM_OK;
    uint64_t address = ptr - a->settings.guard_bytes;
    if (a->settings.guard_bytes > 0) {
        const struct oom_block *guarded = oom_live_table_find(&a->live, address);
        if (guarded != NULL) OOM_TRY(oom_guard_read(a, guarded, &a->guards_damaged));
    }
    struct oom_block *block = oom_live_table_take(&a->live, address);
    if (block == NULL) return not_live(a, ptr);
    give_back(a, block);
    return OOM_OK;
}

enum oom_status oom_allocator_release_cached(struct oom_allocator *a) {
    uint64_t released = 0;
    return oom_chain_release_cached(a, &released);
}

void oom_allocator_fail_device_at(struct oom_allocator *a, uint64_t n) {
    a->fail_device = n;
}

void oom_allocator_fail_call_at(struct oom_allocator *a, uint64_t n) {
    a->fail_call = n;
}
