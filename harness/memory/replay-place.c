/* replay-place.c: looking at the model's blocks and pools. */
#include "harness/memory/replay-internal.h"

#include "kernels/hostmem.h"

#include <stdio.h>
#include <stdlib.h>

struct search {
    uint64_t address;
    struct oom_block_view *out;
    bool found;
};

static enum oom_status look_at(const struct oom_block_view *block, void *context) {
    struct search *search = context;
    if (search->address >= block->address && search->address - block->address < block->bytes) {
        search->found = true;
        *search->out = *block;
    }
    return OOM_OK;
}

bool oom_replay_block_at(const struct oom_allocator *allocator, uint64_t address,
                         struct oom_block_view *out) {
    struct search search = {.address = address, .out = out};
    return oom_allocator_walk(allocator, look_at, &search) == OOM_OK && search.found;
}

const char *oom_replay_place(const struct oom_allocator *allocator, uint64_t address, char *out,
                             size_t n) {
    struct oom_block_view block;
    if (oom_replay_block_at(allocator, address, &block)) {
        snprintf(out, n, "0x%llx (segment 0x%llx + %llu)", (oom_ull)address, (oom_ull)block.segment,
                 (oom_ull)(address - block.segment));
    } else {
        snprintf(out, n, "0x%llx (in no segment of the model)", (oom_ull)address);
    }
    return out;
}

/* ---- pools ---- */

enum oom_status oom_replay_retire(struct oom_allocator *allocator, struct oom_pool_id pool) {
    bool recorded = oom_failure_last()->status != OOM_OK;
    enum oom_status status = oom_allocator_pool_retire(allocator, pool);
    if (status != OOM_INVALID) return status;
    if (!recorded) oom_failure_clear();
    return OOM_OK;
}

/* ---- a full release ---- */

struct cached_segment {
    uint64_t address, stream, bytes;
    bool small, busy;
};

struct cache {
    struct cached_segment *items; /* the last one may be busy */
    uint64_t count, room;
    bool full;
};

static void drop_busy(struct cache *cache) {
    if (cache->count > 0 && cache->items[cache->count - 1].busy) cache->count--;
}

static enum oom_status collect_cached(const struct oom_block_view *block, void *context) {
    struct cache *cache = context;
    bool busy = block->allocated; /* a release waits for what is pending */
    if (block->expandable || block->pool.a != 0 || block->pool.b != 0) return OOM_OK;
    if (cache->count == 0 || cache->items[cache->count - 1].address != block->segment) {
        drop_busy(cache);
        cache->full |= cache->count == cache->room;
        if (cache->full) return OOM_OK;
        cache->items[cache->count++] = (struct cached_segment){
            block->segment, block->stream, block->segment_bytes, block->small_pool, false};
    }
    cache->items[cache->count - 1].busy |= busy;
    return OOM_OK;
}

/* Large before small, then as the free set is ordered; among equal ones any
 * order will do here. */
static int by_release(const void *a, const void *b) {
    const struct cached_segment *x = a, *y = b;
    if (x->small != y->small) return x->small ? 1 : -1;
    if (x->stream != y->stream) return x->stream < y->stream ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static bool is_release_of(const struct oom_recording *recording, const struct cache *cache,
                          uint64_t first, uint64_t end) {
    uint64_t next = 0;
    for (uint64_t i = first; i < end; i++) {
        const struct oom_snapshot_event *event = &recording->events[i];
        struct oom_pool_id pool = oom_recording_pool(recording, i);
        if (event->action != OOM_ACTION_SEGMENT_FREE || pool.a != 0 || pool.b != 0) continue;
        if (next == cache->count || cache->items[next].bytes != event->bytes ||
            cache->items[next].stream != oom_recording_stream(recording, event->stream)) {
            return false;
        }
        next++;
    }
    return next == cache->count;
}

enum oom_status oom_replay_full_release(const struct oom_recording *recording,
                                        const struct oom_allocator *allocator, uint64_t first,
                                        uint64_t end, bool *out) {
    struct cache cache = {.room = end - first + 1};
    cache.items = oom_host_alloc((cache.room + 1) * sizeof *cache.items);
    if (cache.items == NULL) return oom_fail(OOM_HOST_NOMEM, "replay: no host memory for segments");
    enum oom_status status = oom_allocator_walk(allocator, collect_cached, &cache);
    drop_busy(&cache);
    if (cache.count > 0) qsort(cache.items, cache.count, sizeof *cache.items, by_release);
    *out = !cache.full && is_release_of(recording, &cache, first, end);
    oom_host_free(cache.items);
    return status;
}

/* ---- a fit ---- */

struct fit {
    const struct oom_allocator_settings *settings;
    uint64_t size, stream, best; /* best 0: none */
    struct oom_pool_id pool;
};

static enum oom_status look_for_fit(const struct oom_block_view *block, void *context) {
    struct fit *fit = context;
    if (block->allocated || block->pending || block->bytes < fit->size) return OOM_OK;
    if (block->stream != fit->stream || !oom_pool_same(block->pool, fit->pool)) return OOM_OK;
    if (block->small_pool != (fit->size <= OOM_REPLAY_SMALL_MAX)) return OOM_OK;
    if (block->expandable && !fit->settings->expandable_segments) return OOM_OK;
    if (fit->best == 0 || block->bytes < fit->best) fit->best = block->bytes;
    return OOM_OK;
}

enum oom_status oom_replay_would_fit(const struct oom_recording *recording,
                                     const struct oom_allocator *allocator, uint64_t index,
                                     bool *out) {
    const struct oom_allocator_settings *settings = &recording->settings;
    const struct oom_snapshot_event *event = &recording->events[index];
    struct fit fit = {.settings = settings,
                      .size = oom_replay_rounded(settings, event->bytes),
                      .stream = oom_recording_stream(recording, event->stream),
                      .pool = oom_recording_pool(recording, index)};
    OOM_TRY(oom_allocator_walk(allocator, look_for_fit, &fit));
    bool oversize = fit.size < settings->max_split_size
                        ? fit.best >= settings->max_split_size
                        : fit.best >= fit.size + settings->max_non_split_rounding;
    *out = fit.best != 0 && !oversize && settings->backend != OOM_BACKEND_DIRECT;
    return OOM_OK;
}
