/* replay-end.c: the model's last state beside the recording's: segments,
 * blocks, sizes, states. */
#include "harness/memory/replay-internal.h"

#include <stdio.h>

struct cursor {
    const struct oom_recording *recording;
    struct oom_replay_difference *difference;
    uint64_t segment, block; /* the next one of the recording; block: within its segment */
};

static const char *state_name(const struct oom_block_view *block) {
    return block->allocated ? "active_allocated"
           : block->pending ? "active_pending_free"
                            : "inactive";
}

static const char *recorded_state(uint8_t state) {
    static const char *const names[] = {"inactive", "active_allocated", "active_pending_free"};
    return state < 3 ? names[state] : "unknown";
}

static void view_text(const struct oom_block_view *block, char *out, size_t n) {
    snprintf(out, n,
             "at the end: %s block of %llu bytes (%llu asked for) at 0x%llx, "
             "segment of "
             "%llu bytes at 0x%llx",
             state_name(block), (oom_ull)block->bytes, (oom_ull)block->requested,
             (oom_ull)block->address, (oom_ull)block->segment_bytes, (oom_ull)block->segment);
}

static const struct oom_snapshot_segment *skip_others(struct cursor *cursor) {
    const struct oom_snapshot *s = cursor->recording->snapshot;
    while (cursor->segment < s->segment_count &&
           (s->segments[cursor->segment].device != cursor->recording->device ||
            cursor->block == s->segments[cursor->segment].block_count)) {
        cursor->segment++;
        cursor->block = 0;
    }
    return cursor->segment < s->segment_count ? &s->segments[cursor->segment] : NULL;
}

static void block_text(const struct oom_snapshot_segment *segment,
                       const struct oom_snapshot_block *block, char *out, size_t n) {
    snprintf(out, n,
             "at the end: %s block of %llu bytes (%llu asked for) at 0x%llx, "
             "segment of "
             "%llu bytes at 0x%llx",
             recorded_state(block->state), (oom_ull)block->bytes,
             (oom_ull)(block->state == OOM_BLOCK_INACTIVE ? 0 : block->requested),
             (oom_ull)block->address, (oom_ull)segment->bytes, (oom_ull)segment->address);
}

static void differ(struct cursor *cursor, const struct oom_block_view *got) {
    struct oom_replay_difference *difference = cursor->difference;
    const struct oom_snapshot_segment *segment = skip_others(cursor);
    difference->found = true;
    difference->event = cursor->recording->count;
    if (segment != NULL) {
        const struct oom_snapshot_block *block =
            &cursor->recording->snapshot->blocks[segment->first_block + cursor->block];
        block_text(segment, block, difference->expected, sizeof difference->expected);
    } else {
        snprintf(difference->expected, sizeof difference->expected, "at the end: no more blocks");
    }
    if (got != NULL)
        view_text(got, difference->got, sizeof difference->got);
    else
        snprintf(difference->got, sizeof difference->got, "at the end: no more blocks");
}

static bool same_block(const struct cursor *cursor, const struct oom_snapshot_segment *segment,
                       const struct oom_block_view *got) {
    const struct oom_recording *r = cursor->recording;
    const struct oom_snapshot_block *block =
        &r->snapshot->blocks[segment->first_block + cursor->block];
    uint8_t state = got->allocated ? OOM_BLOCK_ALLOCATED
                    : got->pending ? OOM_BLOCK_PENDING_FREE
                                   : OOM_BLOCK_INACTIVE;
    return segment->address == got->segment && segment->bytes == got->segment_bytes &&
           segment->small_pool == got->small_pool && segment->expandable == got->expandable &&
           oom_recording_stream(r, segment->stream) == got->stream &&
           oom_pool_same(segment->pool, got->pool) && block->address == got->address &&
           block->bytes == got->bytes && block->state == state &&
           (state == OOM_BLOCK_INACTIVE || block->requested == got->requested);
}

static enum oom_status compare_block(const struct oom_block_view *got, void *context) {
    struct cursor *cursor = context;
    if (cursor->difference->found) return OOM_OK;
    const struct oom_snapshot_segment *segment = skip_others(cursor);
    if (segment == NULL || !same_block(cursor, segment, got)) {
        differ(cursor, got);
    } else {
        cursor->block++;
    }
    return OOM_OK;
}

enum oom_status oom_replay_compare_end(const struct oom_recording *recording,
                                       const struct oom_allocator *allocator,
                                       struct oom_replay_difference *difference) {
    struct cursor cursor = {.recording = recording, .difference = difference};
    OOM_TRY(oom_allocator_walk(allocator, compare_block, &cursor));
    if (!difference->found && skip_others(&cursor) != NULL) differ(&cursor, NULL);
    return OOM_OK;
}
