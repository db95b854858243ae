/* report-advice.c: what to do about an OOM, as rows of (condition, text): a row speaks only where
 * the state and the settings in force make it true, so that nothing is advised that is already on,
 * or that could not help. */
#include "harness/memory/internal.h"
#include "harness/memory/report-text.h"

#include <string.h>

enum { LEAST_LARGE_SEGMENT = 11 << 20 };

/* ---- what was short ---- */

static uint64_t less(uint64_t from, uint64_t what) {
    return from > what ? from - what : 0;
}

static uint64_t beside_others(const struct oom_report *r) {
    return less(r->capacity, r->foreign);
}

/* All that this allocator may hold beside the others on the device. */
static uint64_t room(const struct oom_report *r) {
    uint64_t device = beside_others(r);
    return r->limit < device ? r->limit : device;
}

static uint64_t pending(const struct oom_report *r) {
    return less(r->fragmentation.active, r->fragmentation.allocated);
}

/* Bytes by which so large a block and all live ones exceed `space`. */
static uint64_t excess(const struct oom_report *r, uint64_t block, uint64_t space) {
    return less(r->allocated + pending(r) + block, space);
}

static uint64_t lack(const struct oom_report *r, uint64_t space) {
    return excess(r, r->rounded, space);
}

/* The block without roundup_power2_divisions. */
static uint64_t plain_block(const struct oom_report *r) {
    uint64_t guarded = r->requested + 2 * r->settings.guard_bytes, unit = OOM_MIN_BLOCK;
    uint64_t plain = (guarded + unit - 1) / unit * unit;
    return plain < r->rounded ? plain : r->rounded;
}

static uint64_t plain_lack(const struct oom_report *r, uint64_t space) {
    return excess(r, plain_block(r), space);
}

static bool genuine(const struct oom_report *r) {
    return !r->injected;
}

static bool larger_than_device(const struct oom_report *r) {
    return genuine(r) && plain_block(r) > r->capacity;
}

static bool too_much_alive(const struct oom_report *r) {
    return genuine(r) && !larger_than_device(r) && plain_lack(r, r->capacity) > pending(r);
}

static bool others_are_in_the_way(const struct oom_report *r) {
    return genuine(r) && plain_lack(r, r->capacity) == 0 && plain_lack(r, beside_others(r)) > 0;
}

static bool limit_is_in_the_way(const struct oom_report *r) {
    return genuine(r) && plain_lack(r, beside_others(r)) == 0 && plain_lack(r, room(r)) > 0;
}

static bool rounding_is_what_lacks(const struct oom_report *r) {
    return genuine(r) && lack(r, room(r)) > 0 && plain_lack(r, room(r)) == 0;
}

/* Enough in sum. */
static bool in_pieces(const struct oom_report *r) {
    return genuine(r) && lack(r, room(r)) == 0;
}

/* Not held by this allocator yet, and no more than that. */
static uint64_t unreserved(const struct oom_report *r) {
    return less(room(r), r->reserved);
}

static bool native(const struct oom_report *r) {
    return r->settings.backend == OOM_BACKEND_NATIVE;
}

static bool plain_segments(const struct oom_report *r) {
    return native(r) && !r->settings.expandable_segments;
}

/* ---- in pieces: why ---- */

static bool device_would_do(const struct oom_report *r) {
    return in_pieces(r) && !r->rejected && unreserved(r) >= r->wanted;
}

static bool block_fits_its_segment_does_not(const struct oom_report *r) {
    return in_pieces(r) && unreserved(r) >= r->rounded && unreserved(r) < r->wanted;
}

static bool segment_could_be_smaller(const struct oom_report *r) {
    return block_fits_its_segment_does_not(r) && native(r) &&
           r->settings.profile != OOM_PROFILE_PYTORCH_2_11 &&
           r->wanted == r->settings.large_segment_size && unreserved(r) >= LEAST_LARGE_SEGMENT;
}

static bool segment_is_what_it_is(const struct oom_report *r) {
    return block_fits_its_segment_does_not(r) && !segment_could_be_smaller(r);
}

static bool oversize(const struct oom_report *r) {
    uint64_t split = r->settings.max_split_size;
    if (r->rounded < split) return r->largest_usable >= split;
    return r->largest_usable >= r->rounded + r->settings.max_non_split_rounding;
}

static bool kept_for_larger_ones(const struct oom_report *r) {
    return in_pieces(r) && native(r) && r->largest_usable >= r->rounded && oversize(r);
}

static bool came_free_too_late(const struct oom_report *r) {
    return in_pieces(r) && !r->rejected && r->largest_usable >= r->rounded && !oversize(r);
}

static bool of_another_stream(const struct oom_report *r) {
    return in_pieces(r) && r->largest_usable < r->rounded && r->largest_cached >= r->rounded;
}

/* A release would make room for the segment: an allocator's own retry has just made one, so this
 * is about consumers beside it. */
static bool cache_holds_it(const struct oom_report *r) {
    uint64_t soft = r->fragmentation.soft;
    return in_pieces(r) && !r->rejected && unreserved(r) < r->wanted &&
           unreserved(r) + soft >= r->wanted;
}

/* Free bytes beside live blocks are what is missing: no segment is to be had, even after a
 * release. */
static bool pinned(const struct oom_report *r) {
    return in_pieces(r) && native(r) && r->largest_cached < r->rounded &&
           r->fragmentation.hard > 0 && unreserved(r) + r->fragmentation.soft < r->wanted;
}

static bool pinned_in_plain_segments(const struct oom_report *r) {
    return pinned(r) && plain_segments(r);
}

static bool pinned_in_expandable_ones(const struct oom_report *r) {
    return pinned(r) && r->settings.expandable_segments;
}

static bool large_segments_are_cut(const struct oom_report *r) {
    bool cut = false;
    for (int i = 0; i < r->fragmentation.pin_count; i++) {
        cut = cut || r->fragmentation.pins[i].segment_bytes > r->settings.large_segment_size;
    }
    return pinned_in_plain_segments(r) && cut && r->settings.max_split_size == OOM_NO_LIMIT;
}

static bool named_blocks_pin(const struct oom_report *r) {
    return pinned(r) && r->fragmentation.pin_count > 0;
}

/* ---- other settings ---- */

static bool rejected_with_cache(const struct oom_report *r) {
    return genuine(r) && r->rejected && unreserved(r) + r->fragmentation.soft >= r->wanted;
}

static bool streams_hold_what_lacks(const struct oom_report *r) {
    return genuine(r) && lack(r, room(r)) > 0 && lack(r, room(r)) <= pending(r);
}

static bool collection_is_idle(const struct oom_report *r) {
    return genuine(r) && native(r) && r->settings.garbage_collection_threshold > 0 &&
           r->limit == OOM_NO_LIMIT && r->settings.profile != OOM_PROFILE_FIXED;
}

static bool oversize_and_expandable(const struct oom_report *r) {
    return genuine(r) && native(r) && r->settings.expandable_segments &&
           r->settings.max_split_size != OOM_NO_LIMIT && r->settings.profile != OOM_PROFILE_FIXED;
}

static bool without_cache(const struct oom_report *r) {
    return genuine(r) && !native(r) && in_pieces(r);
}

static bool injected(const struct oom_report *r) {
    return r->injected;
}

#define LESS_ALIVE \
    "less must be alive at once: a smaller batch with gradients accumulated, checkpointing, " \
    "smaller optimizer states"

static const struct {
    bool (*holds)(const struct oom_report *report);
    const char *text;
} rows[] = {
    {injected, "nothing to mend: the failure was injected"},
    {larger_than_device,
     "no setting helps, as this block alone is larger than the device: compute it in parts (fewer "
     "samples or tokens at a time, nothing materialised that can be streamed)"},
    {too_much_alive,
     "no setting helps, as live blocks and this one exceed the device: " LESS_ALIVE},
    {others_are_in_the_way,
     "without what others hold on the device it would fit: free that, or plan with what is left"},
    {limit_is_in_the_way,
     "the limit of per_process_memory_fraction is what lacks, not the device: raise it, or "
     "else " LESS_ALIVE},
    {streams_hold_what_lacks,
     "freed blocks still wait for other streams: synchronize those before this allocation"},
    {rounding_is_what_lacks,
     "without the rounding of roundup_power2_divisions it would fit: leave sizes of this class "
     "out of it (0)"},
    {rejected_with_cache,
     "throw_on_cudamalloc_oom refused before the cache was given back: release it first, or leave "
     "that setting out"},
    {device_would_do,
     "the device refused although it has that much: what is free there is in pieces, or was taken "
     "meanwhile"},
    {segment_could_be_smaller,
     "the block would fit, its segment does not: large_segment_size_mb can be lowered (to 11 at "
     "least)"},
    {segment_is_what_it_is,
     "the block would fit, its segment does not: give back what is cached before, or allocate it "
     "earlier"},
    {kept_for_larger_ones,
     "a free block that fits is kept for other sizes by max_split_size_mb: raise that (or "
     "max_non_split_rounding_mb, for requests above it)"},
    {came_free_too_late,
     "a block that fits came free during this very call, and PyTorch does not look again "
     "(#189504): the same call succeeds now; profile fixed looks again"},
    {of_another_stream,
     "a free block that fits is not for this one: blocks of another stream, and those above 1 MiB "
     "beside those up to it, share no segments"},
    {cache_holds_it, "the cache holds what lacks, and no setting gives it back: release it before"},
    {pinned_in_plain_segments,
     "enough is free, but beside live blocks: expandable_segments:True gathers whole free pages"},
    {pinned_in_expandable_ones,
     "enough is free, but in parts of pages beside live blocks, which expandable segments (on) "
     "cannot gather"},
    {large_segments_are_cut,
     "max_split_size_mb keeps large segments whole, so that small blocks do not pin them"},
    {named_blocks_pin,
     "allocate what lives long first, or free the blocks that pin (named above) and release the "
     "cache"},
    {oversize_and_expandable,
     "max_split_size_mb acts on expandable segments too and can make them grow without end "
     "(PyTorch #123548): leave it out"},
    {collection_is_idle,
     "garbage_collection_threshold does nothing without per_process_memory_fraction"},
    {without_cache, "backend direct keeps no cache: what is free in pieces is the device's own"},
};

/* A lack below what two decimals of MiB show is given in bytes. */
static void say_lack(struct oom_text *text, uint64_t bytes) {
    static const uint64_t shown = 10 << 10;
    if (bytes < shown)
        oom_text_say(text, "\nAdvice: short by %llu bytes", (unsigned long long)bytes);
    else
        oom_text_size(text, "\nAdvice: short by ", bytes, "");
}

void oom_report_advise(struct oom_text *text, const struct oom_report *r) {
    uint64_t short_by = r->injected ? 0 : lack(r, room(r));
    const char *before = "\nAdvice: ";
    if (short_by > 0) {
        say_lack(text, short_by);
        before = "; ";
    }
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (!rows[i].holds(r)) continue;
        oom_text_say(text, "%s%s", before, rows[i].text);
        before = "; ";
    }
    if (strcmp(before, "; ") == 0) oom_text_say(text, ".");
}
