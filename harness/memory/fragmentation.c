/* fragmentation.c: one walk over all blocks, segment by segment, in order of address. */
#include "harness/memory/internal.h"

#include "harness/base/sizes.h"

#include <string.h>

/* ---- one segment, or page run ---- */

struct picture {
    const struct oom_allocator *allocator;
    struct oom_fragmentation *out;
    bool begun;
    bool keeps; /* its pool is a private one in use: nothing of it is given back */
    bool expandable;
    uint64_t page;
    uint64_t soft; /* of the segment in hand */
    struct oom_pin pin;
};

/* Most free bytes first; equal ones stay in order of address. */
static void keep_pin(struct oom_fragmentation *out, const struct oom_pin *pin) {
    int at = out->pin_count;
    out->pinned_segments++;
    while (at > 0 && out->pins[at - 1].free_bytes < pin->free_bytes) at--;
    if (at == OOM_PINS_MAX) return;
    if (out->pin_count < OOM_PINS_MAX) out->pin_count++;
    memmove(&out->pins[at + 1], &out->pins[at],
            (size_t)(out->pin_count - 1 - at) * sizeof out->pins[0]);
    out->pins[at] = *pin;
}

static void end_segment(struct picture *picture) {
    struct oom_pin *pin = &picture->pin;
    if (!picture->begun) return;
    picture->out->soft += picture->soft;
    pin->free_bytes -= picture->soft;
    if (pin->free_bytes > 0 && pin->pinned_count > 0) keep_pin(picture->out, pin);
}

/* Segments of a private pool stay until nobody allocates from it any more. */
static bool in_use(const struct oom_allocator *a, struct oom_pool_id id) {
    const struct oom_pool_group *group = a->group.next;
    while (group != NULL && (group->id.a != id.a || group->id.b != id.b)) group = group->next;
    return group != NULL && !group->retired;
}

static void begin_segment(struct picture *picture, const struct oom_block_view *block) {
    end_segment(picture);
    picture->begun = true;
    picture->keeps = in_use(picture->allocator, block->pool);
    picture->expandable = block->expandable;
    picture->page = oom_expandable_page(picture->allocator,
                                        block->small_pool ? OOM_POOL_SMALL : OOM_POOL_LARGE);
    picture->soft = 0;
    picture->pin =
        (struct oom_pin){.segment = block->segment, .segment_bytes = block->segment_bytes};
}

/* Runs begin on a page, so pages count from there. */
static uint64_t whole_pages(const struct picture *picture, const struct oom_block_view *block) {
    uint64_t from = block->address - block->segment, page = picture->page;
    uint64_t first = (from + page - 1) / page, last = (from + block->bytes) / page;
    return last > first ? (last - first) * page : 0;
}

static void see_free(struct picture *picture, const struct oom_block_view *block) {
    struct oom_fragmentation *out = picture->out;
    out->cached_pieces++;
    if (block->bytes > out->largest_cached) out->largest_cached = block->bytes;
    picture->pin.free_bytes += block->bytes;
    if (picture->keeps) return;
    if (picture->expandable)
        picture->soft += whole_pages(picture, block);
    else if (block->bytes == block->segment_bytes)
        picture->soft += block->bytes;
}

static void see_live(struct picture *picture, const struct oom_block_view *block) {
    struct oom_pin *pin = &picture->pin;
    pin->pinned_bytes += block->bytes;
    pin->pinned_count++;
    if (pin->pinned_count > 1 && block->bytes >= pin->smallest) return;
    pin->smallest = block->bytes;
    snprintf(pin->site, sizeof pin->site, "%s", block->site);
}

static enum oom_status see(const struct oom_block_view *block, void *context) {
    struct picture *picture = context;
    if (!picture->begun || picture->pin.segment != block->segment) begin_segment(picture, block);
    if (block->allocated || block->pending)
        see_live(picture, block);
    else
        see_free(picture, block);
    return OOM_OK;
}

/* ---- the whole ---- */

static double share(uint64_t part, uint64_t whole, double of_nothing) {
    return whole > 0 ? (double)part / (double)whole : of_nothing;
}

static uint64_t current(const struct oom_counter counter[OOM_POOL_COUNT]) {
    return (uint64_t)counter[OOM_POOL_ALL].current;
}

enum oom_status oom_fragmentation_take(const struct oom_allocator *a,
                                       struct oom_fragmentation *out) {
    const struct oom_allocator_stats *stats = oom_allocator_stats(a);
    struct oom_memory_info info;
    a->device->api->memory_info(a->device, &info);
    *out = (struct oom_fragmentation){
        .allocated = current(stats->allocated_bytes),
        .active = current(stats->active_bytes),
        .reserved = current(stats->reserved_bytes),
        .device_free = info.free,
        .inactive_split = current(stats->inactive_split_bytes),
    };
    struct picture picture = {.allocator = a, .out = out};
    OOM_TRY(oom_allocator_walk(a, see, &picture));
    end_segment(&picture);
    out->cached = out->reserved - out->active;
    out->hard = out->cached - out->soft;
    out->largest_hole = out->cached > 0 ? 1 - share(out->largest_cached, out->cached, 1) : 0;
    out->waste_at_peak = 1 - share((uint64_t)stats->active_bytes[OOM_POOL_ALL].peak,
                                   (uint64_t)stats->reserved_bytes[OOM_POOL_ALL].peak, 1);
    out->inactive_split_share = share(out->inactive_split, out->reserved, 0);
    out->snapshot_ratio = share(out->allocated, out->reserved, 1);
    out->lowest_utilization = share(stats->lowest_allocated, stats->lowest_reserved, 1);
    return OOM_OK;
}

/* ---- for people ---- */

static void print_bytes(FILE *out, const char *name, uint64_t bytes, const char *meaning) {
    char size[16];
    fprintf(out, "  %-22s %12s  %s\n", name, oom_size_format(bytes, size, sizeof size), meaning);
}

static void print_share(FILE *out, const char *name, double value, const char *meaning) {
    fprintf(out, "  %-22s %10.1f %%  %s\n", name, 100 * value, meaning);
}

static void print_pin(FILE *out, const struct oom_pin *pin) {
    char whole[16], free[16], pinned[16], smallest[16];
    fprintf(out, "  pinned: %s of a segment of %s are free beside %llu live block%s of %s",
            oom_size_format(pin->free_bytes, free, sizeof free),
            oom_size_format(pin->segment_bytes, whole, sizeof whole),
            (unsigned long long)pin->pinned_count, pin->pinned_count == 1 ? "" : "s",
            oom_size_format(pin->pinned_bytes, pinned, sizeof pinned));
    fprintf(out, ", the smallest '%s' (%s)\n", pin->site,
            oom_size_format(pin->smallest, smallest, sizeof smallest));
}

void oom_fragmentation_print(const struct oom_fragmentation *f, FILE *out) {
    print_bytes(out, "allocated", f->allocated, "in live blocks");
    print_bytes(out, "active", f->active, "and in those that other streams are not done with");
    print_bytes(out, "reserved", f->reserved, "held from the device");
    print_bytes(out, "device free", f->device_free, "held by nobody");
    print_bytes(out, "cached", f->cached, "reserved, not active");
    print_bytes(out, "largest cached", f->largest_cached, "the largest free block");
    print_bytes(out, "soft", f->soft, "of the cached: a release gives it back");
    print_bytes(out, "hard", f->hard, "of the cached: held by live blocks beside it");
    print_bytes(out, "inactive split", f->inactive_split, "free in segments that are cut");
    print_share(out, "largest hole", f->largest_hole, "1 - largest free / all free (RMM)");
    print_share(out, "waste at peak", f->waste_at_peak, "1 - peak active / peak reserved (GMLake)");
    print_share(out, "inactive split share", f->inactive_split_share,
                "inactive split / reserved (PyTorch)");
    print_share(out, "snapshot ratio", f->snapshot_ratio, "allocated / reserved, now");
    print_share(out, "lowest utilization", f->lowest_utilization,
                "least allocated / reserved so far (cuDF)");
    for (int i = 0; i < f->pin_count; i++) print_pin(out, &f->pins[i]);
    if (f->pinned_segments > (uint64_t)f->pin_count) {
        fprintf(out, "  and %llu more\n",
                (unsigned long long)(f->pinned_segments - (uint64_t)f->pin_count));
    }
}
