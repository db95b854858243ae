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

/* A range while it lives: from its first page to the end of the highest one mapped. It dies with
 * its last page; its addresses may then serve another. */
struct living {
    struct oom_replay_region kind;
    uint64_t low, high, mapped;
    bool began_here; /* in the recording: so `low` is its base */
};

struct lives {
    struct living *items;
    uint64_t count, room;
    uint64_t least, most; /* bytes: some range reached so far; none can have been longer */
};

static bool holds(const struct living *life, const struct oom_replay_region *mark) {
    if (life->mapped == 0 || is_foreign(&life->kind, mark)) return false;
    if (life->began_here && mark->address < life->low) return false;
    uint64_t low = mark->address < life->low ? mark->address : life->low;
    return mark->address + mark->bytes - low <= reserve_for(RESERVE_GUESS, OOM_REPLAY_PAGE);
}

/* The nearest of its kind below, else above. */
static struct living *life_of(struct lives *lives, const struct oom_replay_region *mark) {
    struct living *found = NULL;
    for (uint64_t i = 0; i < lives->count; i++) {
        struct living *life = &lives->items[i];
        if (!holds(life, mark)) continue;
        bool below = life->low <= mark->address;
        if (found == NULL || (below && (found->low > mark->address || life->low > found->low))) {
            found = life;
        }
    }
    return found;
}

/* Ranges that live side by side do not reach into each other. */
static void keep_apart(struct lives *lives, uint64_t page) {
    for (uint64_t i = 0; i < lives->count; i++) {
        const struct living *x = &lives->items[i];
        if (x->mapped == 0) continue;
        if (x->high - x->low > lives->least) lives->least = x->high - x->low;
        for (uint64_t j = 0; j < lives->count; j++) {
            const struct living *y = &lives->items[j];
            if (y->mapped == 0 || y->low <= x->low) continue;
            uint64_t room = y->low - x->low;
            if (room > 2 * page && (room - page) / 9 * 8 < lives->most) {
                lives->most = (room - page) / 9 * 8;
            }
        }
    }
}

static struct living *new_life(struct lives *lives) {
    uint64_t at = 0;
    while (at < lives->count && lives->items[at].mapped > 0) at++;
    if (at == lives->room) return NULL; /* more at once than anybody makes: they teach nothing */
    if (at == lives->count) lives->count++;
    return &lives->items[at];
}

/* One mapping. */
static void extend(struct lives *lives, const struct oom_replay_region *mark, bool began_here,
                   uint64_t page) {
    struct living *life = life_of(lives, mark);
    uint64_t end = mark->address + mark->bytes;
    if (life == NULL) {
        life = new_life(lives);
        if (life == NULL) return;
        *life = (struct living){*mark, mark->address, end, 0, began_here};
    }
    if (mark->address < life->low) life->low = mark->address;
    if (end > life->high) life->high = end;
    life->mapped += mark->bytes;
    keep_apart(lives, page);
}

static void shrink(struct lives *lives, const struct oom_replay_region *mark) {
    struct living *life = life_of(lives, mark);
    if (life != NULL) life->mapped -= mark->bytes < life->mapped ? mark->bytes : life->mapped;
}

/* From the start to the end of the recording; then the longest reserve by which no two ranges that
 * lived together overlap, and the shortest that holds each. */
static void choose_reserve(struct oom_recording *r) {
    enum { LIVES = 64 };
    struct living items[LIVES];
    struct lives lives = {
        .items = items, .room = LIVES, .least = OOM_REPLAY_PAGE, .most = RESERVE_GUESS};
    uint64_t page = r->settings.large_segment_size;
    r->reserve = r->capacity;
    if (r->capacity != 0) return;
    for (uint64_t i = 0; i < r->regions.count; i++) {
        if (r->regions.items[i].expandable) extend(&lives, &r->regions.items[i], false, page);
    }
    for (uint64_t i = 0; i < r->count; i++) {
        struct oom_replay_region mark = mark_of(r, i);
        if (r->events[i].action == OOM_ACTION_SEGMENT_MAP) extend(&lives, &mark, true, page);
        if (r->events[i].action == OOM_ACTION_SEGMENT_UNMAP) shrink(&lives, &mark);
    }
    uint64_t reserve = lives.most > lives.least ? lives.most : lives.least;
    r->reserve = reserve / OOM_REPLAY_PAGE * OOM_REPLAY_PAGE;
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
        choose_reserve(recording);
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
