/*
 * replay-start.c: the state before the first event, as an allocator can begin
 * with it: every segment's blocks without gaps. What lies between live blocks
 * was free; but in the large pool a rest of at most 1 MiB is never cut off, so
 * it belongs to the block before it. Where such a block had a larger free one
 * behind it, the border between them is known only if something was allocated
 * there before it was freed: else the place is ambiguous, and said to be.
 */
#include "harness/memory/replay-internal.h"

#include "kernels/hostmem.h"

#include <stdarg.h>
#include <stdio.h>

/* ---- unsplit tails ---- */

static bool keeps_tails(const struct oom_recording *r, const struct oom_replay_region *region) {
    return region->size != OOM_REPLAY_SMALL && !region->expandable &&
           !r->settings.expandable_segments;
}

static uint64_t gap_behind(const struct oom_recording *r, const struct oom_replay_region *region,
                           uint64_t index) {
    uint64_t end = region->address + region->bytes;
    if (index + 1 < r->block_count && r->blocks[index + 1].address < end) {
        end = r->blocks[index + 1].address;
    }
    return end - r->blocks[index].address - r->blocks[index].bytes;
}

/* The live block at or below the address whose tail may reach to it, else NULL.
 */
static struct oom_replay_block *block_below(const struct oom_recording *r, uint64_t address) {
    uint64_t low = 0, high = r->block_count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (r->blocks[middle].address <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 ? &r->blocks[low - 1] : NULL;
}

/* What is first allocated in a free block lies at its very beginning. */
static void learn_borders(struct oom_recording *r) {
    for (uint64_t i = 0; i < r->count; i++) {
        const struct oom_snapshot_event *e = &r->events[i];
        if (e->action != OOM_ACTION_ALLOC) continue;
        struct oom_replay_block *block = block_below(r, e->address);
        if (block == NULL || block->exact || block->freed < i) continue;
        const struct oom_replay_region *region = oom_replay_regions_at(&r->regions, block->address);
        uint64_t end = block->address + block->bytes;
        if (region == NULL || e->address < end || !keeps_tails(r, region)) continue;
        if (e->address - region->address >= region->bytes) continue;
        if (e->address - end <= OOM_REPLAY_SMALL_MAX) block->bytes += e->address - end;
        block->exact = true;
    }
}

static void note_ambiguous(struct oom_recording *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void note_ambiguous(struct oom_recording *r, const char *format, ...) {
    va_list args;
    if (r->start.ambiguous++ > 0) return;
    va_start(args, format);
    vsnprintf(r->start.why, sizeof r->start.why, format, args);
    va_end(args);
}

static void give_tail(struct oom_recording *r, const struct oom_replay_region *region,
                      uint64_t index) {
    struct oom_replay_block *block = &r->blocks[index];
    uint64_t gap = gap_behind(r, region, index);
    if (block->exact || gap == 0 || !keeps_tails(r, region)) return;
    if (gap <= OOM_REPLAY_SMALL_MAX || block->bytes >= r->settings.max_split_size) {
        block->bytes += gap;
    } else {
        note_ambiguous(r,
                       "the block at 0x%llx (%llu bytes asked for), live at the start, may have "
                       "had a tail of up to 1 MiB of the %llu bytes behind it; none is assumed",
                       (oom_ull)block->address, (oom_ull)block->requested, (oom_ull)gap);
    }
}

/* ---- checks ---- */

static enum oom_status refuse_block(const struct oom_replay_block *block, const char *why) {
    return oom_fail(OOM_USAGE,
                    "the recording cannot be replayed: the block of %llu bytes at 0x%llx, "
                    "live "
                    "before the first event, %s (it is cut or contradicts itself)",
                    (oom_ull)block->requested, (oom_ull)block->address, why);
}

static enum oom_status place_blocks(struct oom_recording *r) {
    for (uint64_t i = 0; i < r->block_count; i++) {
        struct oom_replay_block *block = &r->blocks[i];
        const struct oom_replay_region *region = oom_replay_regions_at(&r->regions, block->address);
        if (region == NULL || block->bytes > region->bytes - (block->address - region->address)) {
            return refuse_block(block, "lies in no segment");
        }
        if (i + 1 < r->block_count && r->blocks[i + 1].address - block->address < block->bytes) {
            return refuse_block(block, "overlaps the next one");
        }
    }
    return OOM_OK;
}

/* A run in which nothing was ever seen but its end. */
static void settle_sizes(struct oom_recording *r) {
    for (uint64_t i = 0; i < r->regions.count; i++) {
        struct oom_replay_region *region = &r->regions.items[i];
        if (region->size != OOM_REPLAY_UNKNOWN) continue;
        region->size = OOM_REPLAY_LARGE;
        note_ambiguous(r,
                       "the %llu mapped bytes at 0x%llx may be of either pool; the large one is "
                       "assumed",
                       (oom_ull)region->bytes, (oom_ull)region->address);
    }
}

/* What no recording names, and decisions can hang on. */
static void note_unknowns(struct oom_recording *r, const struct oom_replay_range *ranges,
                          uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        note_ambiguous(r,
                       "the address range at 0x%llx is assumed to begin with its lowest page seen "
                       "and to be %llu bytes long",
                       (oom_ull)ranges[i].address, (oom_ull)ranges[i].bytes);
    }
    if (r->settings.max_split_size != UINT64_MAX && r->regions.count > 0 &&
        r->events[0].action == OOM_ACTION_SEGMENT_FREE) {
        note_ambiguous(r, "the events begin with memory given back, and what the same request gave "
                          "back before, which decides how much more it does, is not recorded");
    }
    if (r->settings.garbage_collection_threshold > 0 &&
        r->settings.per_process_memory_fraction < 1 && r->regions.count > 0) {
        note_ambiguous(r, "how long blocks had been free when the events begin, by which garbage "
                          "is collected, is not recorded");
    }
}

/* ---- the first event ---- */

static bool holds_blocks(const struct oom_recording *r, const struct oom_replay_region *region) {
    const struct oom_replay_block *last = block_below(r, region->address + region->bytes - 1);
    return last != NULL && last->address >= region->address;
}

/* A segment that no search would have found, and the first event takes it: the cut fell between
 * what the device gave for a request and its end. It is not there at the start. */
static bool was_given(const struct oom_recording *r, const struct oom_replay_region *region) {
    const struct oom_allocator_settings *settings = &r->settings;
    const struct oom_snapshot_event *first = &r->events[0];
    if (first->action != OOM_ACTION_ALLOC || first->address != region->address) return false;
    if (region->expandable || holds_blocks(r, region)) return false;
    uint64_t size = oom_replay_rounded(settings, first->bytes);
    if (settings->backend == OOM_BACKEND_DIRECT) return true;
    return size < settings->max_split_size
               ? region->bytes >= settings->max_split_size
               : region->bytes >= size + settings->max_non_split_rounding;
}

/* ---- laying out ---- */

struct layout {
    struct oom_recording *recording;
    uint64_t next; /* the first live block not laid out yet */
};

static void add(struct oom_recording *r, uint64_t address, uint64_t bytes,
                enum oom_start_state state) {
    if (bytes == 0) return;
    r->start_blocks[r->start_block_count++] =
        (struct oom_start_block){.address = address, .bytes = bytes, .state = state};
}

static void lay_region(struct layout *layout, const struct oom_replay_region *region) {
    struct oom_recording *r = layout->recording;
    uint64_t at = region->address, end = region->address + region->bytes;
    for (; layout->next < r->block_count && r->blocks[layout->next].address < end; layout->next++) {
        const struct oom_replay_block *block = &r->blocks[layout->next];
        add(r, at, block->address - at, OOM_START_FREE);
        add(r, block->address, block->bytes,
            block->pending ? OOM_START_PENDING : OOM_START_ALLOCATED);
        r->start_blocks[r->start_block_count - 1].requested = block->requested;
        r->start_blocks[r->start_block_count - 1].site =
            oom_snapshot_site(r->snapshot, block->site);
        at = block->address + block->bytes;
        r->start.allocated += block->pending ? 0 : block->bytes;
        r->start.ghosts += block->freed == OOM_REPLAY_NEVER;
    }
    bool direct = r->settings.backend == OOM_BACKEND_DIRECT; /* its free has begun, that is all */
    add(r, at, end - at, direct ? OOM_START_PENDING : OOM_START_FREE);
    r->start.reserved += region->bytes;
    r->start.segments++;
}

static void lay_range(struct layout *layout, const struct oom_replay_range *range) {
    struct oom_recording *r = layout->recording;
    uint64_t at = range->address;
    for (uint64_t i = 0; i < range->count; i++) {
        const struct oom_replay_region *run = &r->regions.items[range->first + i];
        add(r, at, run->address - at, OOM_START_UNMAPPED);
        lay_region(layout, run);
        at = run->address + run->bytes;
    }
    add(r, at, range->address + range->bytes - at, OOM_START_UNMAPPED);
}

static void lay_out(struct oom_recording *r, const struct oom_replay_range *ranges,
                    uint64_t range_count) {
    struct layout layout = {.recording = r};
    uint64_t range = 0;
    for (uint64_t i = 0; i < r->regions.count;) {
        const struct oom_replay_region *region = &r->regions.items[i];
        bool whole = range < range_count && ranges[range].first == i;
        if (was_given(r, region)) {
            r->given = region->address;
            r->given_bytes = region->bytes;
            r->start.reserved += region->bytes;
            r->start.segments++;
            i++;
            continue;
        }
        struct oom_start_segment *segment = &r->segments[r->segment_count++];
        uint64_t first = r->start_block_count;
        *segment =
            (struct oom_start_segment){.address = whole ? ranges[range].address : region->address,
                                       .bytes = whole ? ranges[range].bytes : region->bytes,
                                       .stream = oom_recording_stream(r, region->stream),
                                       .pool = region->pool,
                                       .small_pool = region->size == OOM_REPLAY_SMALL,
                                       .expandable = region->expandable,
                                       .blocks = &r->start_blocks[first]};
        if (whole)
            lay_range(&layout, &ranges[range]);
        else
            lay_region(&layout, region);
        segment->block_count = r->start_block_count - first;
        i += whole ? ranges[range++].count : 1;
    }
}

enum oom_status oom_recording_layout(struct oom_recording *recording) {
    struct oom_recording *r = recording;
    struct oom_replay_range *ranges = NULL;
    uint64_t range_count = 0;
    learn_borders(r);
    OOM_TRY(place_blocks(r));
    settle_sizes(r);
    for (uint64_t i = 0; i < r->block_count; i++) {
        give_tail(r, oom_replay_regions_at(&r->regions, r->blocks[i].address), i);
    }
    OOM_TRY(oom_recording_ranges(r, &ranges, &range_count));
    note_unknowns(r, ranges, range_count);
    uint64_t room = 2 * r->block_count + 3 * r->regions.count + 1;
    r->segments = oom_host_calloc(r->regions.count + 1, sizeof *r->segments);
    r->start_blocks = oom_host_calloc(room, sizeof *r->start_blocks);
    bool there = r->segments != NULL && r->start_blocks != NULL;
    if (there) lay_out(r, ranges, range_count);
    oom_host_free(ranges);
    if (!there) return oom_fail(OOM_HOST_NOMEM, "replay: no host memory for the start");
    r->start.empty = r->regions.count == 0;
    r->start.live = r->block_count;
    return OOM_OK;
}
