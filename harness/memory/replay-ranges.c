/*
 * replay-ranges.c: the address ranges behind expandable segments. A snapshot
 * shows runs of mapped pages only. PyTorch makes one range per stream and pool,
 * 9/8 of the card long, and a second only where the first is full; a range
 * begins with the page that was mapped first. So runs of the same stream and
 * pool with nothing foreign between them are one range, which begins at its
 * lowest page ever mapped, and ends before whatever else is seen above it.
 */
#include "harness/memory/replay-internal.h"

#include "kernels/hostmem.h"

#include <stdlib.h>

#define RESERVE_GUESS (UINT64_C(256) << 30) /* of a card, where nothing says how large it is */

uint64_t oom_replay_page(const struct oom_recording *recording, enum oom_replay_size size) {
    return size == OOM_REPLAY_SMALL ? OOM_REPLAY_PAGE : recording->settings.large_segment_size;
}

/* ---- all memory that is ever seen, by address ---- */

struct marks {
    struct oom_replay_region *items;
    uint64_t count;
};

static int by_address(const void *a, const void *b) {
    uint64_t x = ((const struct oom_replay_region *)a)->address;
    uint64_t y = ((const struct oom_replay_region *)b)->address;
    return x < y ? -1 : x > y;
}

static bool is_segment_action(uint8_t action) {
    return action == OOM_ACTION_SEGMENT_ALLOC || action == OOM_ACTION_SEGMENT_FREE ||
           action == OOM_ACTION_SEGMENT_MAP || action == OOM_ACTION_SEGMENT_UNMAP;
}

static struct oom_replay_region mark_of(const struct oom_recording *r, uint64_t index) {
    const struct oom_snapshot_event *e = &r->events[index];
    bool mapped = e->action == OOM_ACTION_SEGMENT_MAP || e->action == OOM_ACTION_SEGMENT_UNMAP;
    enum oom_replay_size size = OOM_REPLAY_UNKNOWN;
    if (e->action == OOM_ACTION_SEGMENT_MAP) {
        size = e->bytes % r->settings.large_segment_size != 0 ? OOM_REPLAY_SMALL : OOM_REPLAY_LARGE;
    }
    return (struct oom_replay_region){.address = e->address,
                                      .bytes = e->bytes,
                                      .stream = e->stream,
                                      .pool = oom_recording_pool(r, index),
                                      .size = size,
                                      .expandable = mapped};
}

static enum oom_status make_marks(const struct oom_recording *r, struct marks *out) {
    uint64_t room = r->regions.count;
    for (uint64_t i = 0; i < r->count; i++) room += is_segment_action(r->events[i].action);
    out->items = oom_host_alloc((room + 1) * sizeof *out->items);
    if (out->items == NULL) return oom_fail(OOM_HOST_NOMEM, "replay: no host memory for segments");
    for (uint64_t i = 0; i < r->regions.count; i++) {
        out->items[out->count++] = r->regions.items[i];
    }
    for (uint64_t i = 0; i < r->count; i++) {
        if (is_segment_action(r->events[i].action)) out->items[out->count++] = mark_of(r, i);
    }
    qsort(out->items, out->count, sizeof *out->items, by_address);
    return OOM_OK;
}

static bool is_foreign(const struct oom_replay_region *a, const struct oom_replay_region *b) {
    return !a->expandable || !b->expandable || a->stream != b->stream ||
           !oom_pool_same(a->pool, b->pool) ||
           (a->size != b->size && a->size != OOM_REPLAY_UNKNOWN && b->size != OOM_REPLAY_UNKNOWN);
}

/* The first address above `address` where memory of another kind was seen. */
static uint64_t next_foreign(const struct marks *marks, const struct oom_replay_region *own,
                             uint64_t address) {
    uint64_t low = 0, high = marks->count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (marks->items[middle].address <= address)
            low = middle + 1;
        else
            high = middle;
    }
    while (low < marks->count && !is_foreign(&marks->items[low], own)) low++;
    return low < marks->count ? marks->items[low].address : UINT64_MAX;
}

/* ---- how large a card the ranges fit ---- */

static uint64_t reserve_for(uint64_t capacity, uint64_t page) {
    return (capacity + capacity / 8 + page - 1) / page * page;
}

/* Neighbouring marks of one kind are one range: it must hold them and not reach
 * the next. */
static void choose_reserve(struct oom_recording *r, const struct marks *marks) {
    uint64_t least = OOM_REPLAY_PAGE, most = RESERVE_GUESS;
    r->reserve = r->capacity;
    if (r->capacity != 0) return;
    for (uint64_t i = 0; i < marks->count;) {
        const struct oom_replay_region *first = &marks->items[i];
        uint64_t end = first->address;
        if (!first->expandable) {
            i++;
            continue;
        }
        for (; i < marks->count && !is_foreign(&marks->items[i], first); i++) {
            if (marks->items[i].address + marks->items[i].bytes > end) {
                end = marks->items[i].address + marks->items[i].bytes;
            }
        }
        uint64_t span = end - first->address;
        uint64_t room = i < marks->count ? marks->items[i].address - first->address : UINT64_MAX;
        uint64_t page = r->settings.large_segment_size;
        if (span > least) least = span;
        if (room != UINT64_MAX && room > 2 * page && (room - page) / 9 * 8 < most) {
            most = (room - page) / 9 * 8;
        }
    }
    r->reserve = (most > least ? most : least) / OOM_REPLAY_PAGE * OOM_REPLAY_PAGE;
}

/* ---- ranges of the start ---- */

static void join_runs(const struct oom_recording *r, struct oom_replay_range *ranges,
                      uint64_t *count) {
    *count = 0;
    for (uint64_t i = 0; i < r->regions.count; i++) {
        const struct oom_replay_region *run = &r->regions.items[i];
        if (!run->expandable) continue;
        struct oom_replay_range *last = *count > 0 ? &ranges[*count - 1] : NULL;
        uint64_t page = oom_replay_page(r, run->size);
        if (last != NULL && last->first + last->count == i &&
            !is_foreign(run, &r->regions.items[last->first]) &&
            (run->address - last->address) % page == 0 &&
            run->address + run->bytes - last->address <= reserve_for(r->reserve, page)) {
            last->count++;
            last->mapped += run->bytes;
        } else {
            ranges[(*count)++] = (struct oom_replay_range){
                .first = i, .count = 1, .address = run->address, .mapped = run->bytes};
        }
    }
}

/* The living range of this kind that an event at `address` is about: the last
 * one that begins at or below it, else the first one above. */
static struct oom_replay_range *range_near(const struct oom_recording *r,
                                           struct oom_replay_range *ranges, uint64_t count,
                                           const struct oom_replay_region *mark) {
    struct oom_replay_range *found = NULL;
    for (uint64_t i = 0; i < count; i++) {
        const struct oom_replay_region *run = &r->regions.items[ranges[i].first];
        uint64_t reach = reserve_for(r->reserve, oom_replay_page(r, run->size));
        if (ranges[i].mapped == 0 || is_foreign(run, mark)) continue;
        if (ranges[i].address > mark->address) {
            bool near = run->address + run->bytes - mark->address <= reach;
            return found != NULL || !near ? found : &ranges[i];
        }
        found = mark->address - ranges[i].address < reach ? &ranges[i] : NULL;
    }
    return found;
}

/* A page mapped below what is known of a living range belongs to it: it begins
 * there. */
static void lower_bases(const struct oom_recording *r, const struct marks *marks,
                        struct oom_replay_range *ranges, uint64_t count) {
    uint64_t living = count;
    for (uint64_t i = 0; i < r->count && living > 0; i++) {
        uint8_t action = r->events[i].action;
        if (action != OOM_ACTION_SEGMENT_MAP && action != OOM_ACTION_SEGMENT_UNMAP) continue;
        struct oom_replay_region mark = mark_of(r, i);
        struct oom_replay_range *range = range_near(r, ranges, count, &mark);
        if (range == NULL) continue;
        if (action == OOM_ACTION_SEGMENT_UNMAP) {
            range->mapped -= mark.bytes < range->mapped ? mark.bytes : range->mapped;
            living -= range->mapped == 0;
            continue;
        }
        uint64_t page = oom_replay_page(r, r->regions.items[range->first].size);
        if (mark.address < range->address) {
            if ((range->address - mark.address) % page != 0) continue;
            if (next_foreign(marks, &mark, mark.address) < range->address) continue;
            range->address = mark.address;
        }
        range->mapped += mark.bytes;
    }
}

static void choose_ends(const struct oom_recording *r, const struct marks *marks,
                        struct oom_replay_range *ranges, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        const struct oom_replay_region *first = &r->regions.items[ranges[i].first];
        const struct oom_replay_region *last = &first[ranges[i].count - 1];
        uint64_t page = oom_replay_page(r, first->size);
        uint64_t need = last->address + last->bytes - ranges[i].address;
        uint64_t bytes = reserve_for(r->reserve, page);
        uint64_t foreign = next_foreign(marks, first, ranges[i].address);
        uint64_t room = foreign - ranges[i].address;
        if (i + 1 < count && ranges[i + 1].address - ranges[i].address < room) {
            room = ranges[i + 1].address - ranges[i].address;
        }
        if (bytes > room) bytes = room / page * page;
        ranges[i].bytes = bytes > need ? bytes : (need + page - 1) / page * page;
    }
}

enum oom_status oom_recording_ranges(struct oom_recording *recording,
                                     struct oom_replay_range **ranges, uint64_t *count) {
    struct marks marks = {0};
    *count = 0;
    *ranges = oom_host_calloc(recording->regions.count + 1, sizeof **ranges);
    if (*ranges == NULL) return oom_fail(OOM_HOST_NOMEM, "replay: no host memory for ranges");
    enum oom_status status = make_marks(recording, &marks);
    if (status == OOM_OK) {
        choose_reserve(recording, &marks);
        join_runs(recording, *ranges, count);
        lower_bases(recording, &marks, *ranges, *count);
        choose_ends(recording, &marks, *ranges, *count);
    } else {
        oom_host_free(*ranges);
        *ranges = NULL;
    }
    oom_host_free(marks.items);
    return status;
}
