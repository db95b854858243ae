/* replay-regions.c: segments and mapped runs as a sorted array: there are few
 * of them beside the blocks, and finding one is what happens most. */
#include "harness/memory/replay-internal.h"

#include "kernels/hostmem.h"

#include <string.h>

void oom_replay_regions_free(struct oom_replay_regions *regions) {
    oom_host_free(regions->items);
    *regions = (struct oom_replay_regions){0};
}

uint64_t oom_replay_regions_below(const struct oom_replay_regions *regions, uint64_t address) {
    uint64_t low = 0, high = regions->count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (regions->items[middle].address <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct oom_replay_region *oom_replay_regions_at(const struct oom_replay_regions *regions,
                                                uint64_t address) {
    uint64_t below = oom_replay_regions_below(regions, address);
    if (below == 0) return NULL;
    struct oom_replay_region *region = &regions->items[below - 1];
    return address - region->address < region->bytes ? region : NULL;
}

static enum oom_status insert(struct oom_replay_regions *regions, uint64_t place,
                              const struct oom_replay_region *region) {
    if (regions->count == regions->room) {
        uint64_t room = 2 * regions->room + 64;
        struct oom_replay_region *items =
            oom_host_realloc(regions->items, room * sizeof *regions->items);
        if (items == NULL) {
            return oom_fail(OOM_HOST_NOMEM, "replay: no host memory for %llu segments",
                            (oom_ull)room);
        }
        regions->items = items;
        regions->room = room;
    }
    memmove(&regions->items[place + 1], &regions->items[place],
            (regions->count - place) * sizeof *regions->items);
    regions->items[place] = *region;
    regions->count++;
    return OOM_OK;
}

static void erase(struct oom_replay_regions *regions, uint64_t place) {
    regions->count--;
    memmove(&regions->items[place], &regions->items[place + 1],
            (regions->count - place) * sizeof *regions->items);
}

/* Two runs of one address range, as far as one can see. */
static bool belong_together(const struct oom_replay_region *a, const struct oom_replay_region *b) {
    return a->expandable && b->expandable && a->stream == b->stream &&
           oom_pool_same(a->pool, b->pool) &&
           (a->size == b->size || a->size == OOM_REPLAY_UNKNOWN || b->size == OOM_REPLAY_UNKNOWN);
}

static void join(struct oom_replay_regions *regions, uint64_t place) {
    struct oom_replay_region *front = &regions->items[place], *back = front + 1;
    if (place + 1 >= regions->count || front->address + front->bytes != back->address) return;
    if (!belong_together(front, back)) return;
    front->bytes += back->bytes;
    if (front->size == OOM_REPLAY_UNKNOWN) front->size = back->size;
    erase(regions, place + 1);
}

enum oom_status oom_replay_regions_add(struct oom_replay_regions *regions,
                                       const struct oom_replay_region *region, bool *clash) {
    uint64_t place = oom_replay_regions_below(regions, region->address);
    const struct oom_replay_region *before = place > 0 ? &regions->items[place - 1] : NULL;
    *clash =
        region->bytes == 0 || region->address + region->bytes < region->address ||
        (before != NULL && region->address - before->address < before->bytes) ||
        (place < regions->count && regions->items[place].address - region->address < region->bytes);
    if (*clash) return OOM_OK;
    OOM_TRY(insert(regions, place, region));
    if (!region->expandable) return OOM_OK;
    join(regions, place);
    if (place > 0) join(regions, place - 1);
    return OOM_OK;
}

enum oom_status oom_replay_regions_take(struct oom_replay_regions *regions,
                                        const struct oom_replay_region *region, bool *clash) {
    struct oom_replay_region *there = oom_replay_regions_at(regions, region->address);
    *clash = true;
    if (there == NULL || there->expandable != region->expandable) return OOM_OK;
    uint64_t place = (uint64_t)(there - regions->items), end = there->address + there->bytes;
    uint64_t front = region->address - there->address;
    if (region->bytes == 0 || region->bytes > there->bytes - front) return OOM_OK;
    uint64_t back = there->bytes - front - region->bytes;
    if (!region->expandable && (front > 0 || back > 0)) return OOM_OK;
    *clash = false;
    if (there->size == OOM_REPLAY_UNKNOWN) there->size = region->size;
    if (front == 0 && back == 0) {
        erase(regions, place);
    } else if (front == 0) {
        there->address = end - back;
        there->bytes = back;
    } else {
        there->bytes = front;
        struct oom_replay_region rest = *there;
        rest.address = end - back;
        rest.bytes = back;
        if (back > 0) return insert(regions, place + 1, &rest);
    }
    return OOM_OK;
}
