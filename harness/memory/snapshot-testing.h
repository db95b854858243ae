/*
 * snapshot-testing.h: what the tests and fuzzers of snapshots share: a stream into memory, and a
 * comparison field by field.
 *
 * Names are compared as texts and pools as ids: their numbers may differ between two readers.
 */
#ifndef OOM_HARNESS_MEMORY_SNAPSHOT_TESTING_H
#define OOM_HARNESS_MEMORY_SNAPSHOT_TESTING_H

#include "harness/memory/grow.h"
#include "harness/memory/snapshot.h"
#include "kernels/hostmem.h"

#include <string.h>

struct memory_stream {
    char *data;
    uint64_t bytes, room;
};

static inline ssize_t memory_stream_write(void *cookie, const char *from, size_t n) {
    struct memory_stream *stream = cookie;
    if (stream->bytes + n > stream->room) {
        void *grown = oom_grown(stream->data, &stream->room, stream->bytes + n, 1);
        if (grown == NULL) return 0;
        stream->data = grown;
    }
    memcpy(stream->data + stream->bytes, from, n);
    stream->bytes += n;
    return (ssize_t)n;
}

typedef enum oom_status snapshot_writer(const struct oom_snapshot *snapshot, FILE *out);

/* What the writer writes; the caller frees stream->data. */
static inline enum oom_status snapshot_written(const struct oom_snapshot *snapshot,
                                               snapshot_writer *writer,
                                               struct memory_stream *stream) {
    *stream = (struct memory_stream){0};
    FILE *out = fopencookie(stream, "w", (cookie_io_functions_t){.write = memory_stream_write});
    if (out == NULL) return oom_fail(OOM_HOST_NOMEM, "no stream");
    enum oom_status status = writer(snapshot, out);
    return fclose(out) == 0 ? status : OOM_IO;
}

static inline bool same_site(const struct oom_snapshot *a, uint32_t x, const struct oom_snapshot *b,
                             uint32_t y) {
    return strcmp(oom_snapshot_site(a, x), oom_snapshot_site(b, y)) == 0;
}

static inline bool same_segments(const struct oom_snapshot *a, const struct oom_snapshot *b) {
    if (a->segment_count != b->segment_count || a->block_count != b->block_count) return false;
    for (uint64_t i = 0; i < a->segment_count; i++) {
        const struct oom_snapshot_segment *x = &a->segments[i], *y = &b->segments[i];
        if (x->address != y->address || x->bytes != y->bytes || x->allocated != y->allocated ||
            x->active != y->active || x->requested != y->requested || x->stream != y->stream ||
            x->pool.a != y->pool.a || x->pool.b != y->pool.b || x->device != y->device ||
            x->first_block != y->first_block || x->block_count != y->block_count ||
            x->small_pool != y->small_pool || x->expandable != y->expandable ||
            !same_site(a, x->site, b, y->site))
            return false;
    }
    for (uint64_t i = 0; i < a->block_count; i++) {
        const struct oom_snapshot_block *x = &a->blocks[i], *y = &b->blocks[i];
        if (x->address != y->address || x->bytes != y->bytes || x->requested != y->requested ||
            x->state != y->state || !same_site(a, x->site, b, y->site))
            return false;
    }
    return true;
}

static inline bool same_traces(const struct oom_snapshot *a, const struct oom_snapshot *b) {
    if (a->device_count != b->device_count || a->event_count != b->event_count) return false;
    for (uint64_t i = 0; i < a->device_count; i++) {
        if (a->traces[i].first != b->traces[i].first || a->traces[i].count != b->traces[i].count)
            return false;
    }
    for (uint64_t i = 0; i < a->event_count; i++) {
        const struct oom_snapshot_event *x = &a->events[i], *y = &b->events[i];
        const struct oom_pool_id *p = &a->pools[x->pool], *q = &b->pools[y->pool];
        if (x->address != y->address || x->bytes != y->bytes || x->stream != y->stream ||
            x->time_us != y->time_us || x->action != y->action || p->a != q->a || p->b != q->b ||
            !same_site(a, x->site, b, y->site))
            return false;
    }
    return true;
}

static inline bool same_settings(const struct oom_snapshot *a, const struct oom_snapshot *b) {
    return a->has_settings == b->has_settings && strcmp(a->conf, b->conf) == 0 &&
           a->expandable_segments == b->expandable_segments &&
           a->max_split_size == b->max_split_size &&
           a->garbage_collection_threshold == b->garbage_collection_threshold &&
           memcmp(a->roundup_power2_divisions, b->roundup_power2_divisions,
                  sizeof a->roundup_power2_divisions) == 0;
}

/* What differs, or NULL. The kind and events_skipped are not looked at: not all formats keep
 * them. */
static inline const char *snapshot_difference(const struct oom_snapshot *a,
                                              const struct oom_snapshot *b) {
    if (!same_segments(a, b)) return "segments";
    if (!same_traces(a, b)) return "traces";
    if (!same_settings(a, b)) return "settings";
    if (a->capacity != b->capacity || a->profile != b->profile) return "capacity or profile";
    return NULL;
}

/* Written and read again it is the same: NULL, or what is not. */
static inline const char *snapshot_round_trip(const struct oom_snapshot *snapshot,
                                              snapshot_writer *writer) {
    struct memory_stream stream;
    struct oom_snapshot again = {0};
    const char *why = "writing";
    if (snapshot_written(snapshot, writer, &stream) == OOM_OK) {
        why = "reading";
        if (oom_snapshot_parse("again", stream.data, stream.bytes, NULL, &again) == OOM_OK)
            why = snapshot_difference(snapshot, &again);
    }
    oom_snapshot_free(&again);
    oom_host_free(stream.data);
    return why;
}

#endif
