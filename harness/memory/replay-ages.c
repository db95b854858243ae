/*
 * replay-ages.c: what a difference tells about ages. Nothing records how old
 * the segments of a start are, and PyTorch 2.13 takes equal blocks oldest
 * first. So where the model took (or gave back) another block than the
 * recording, both equal and both there from the start, the recording says which
 * one is older. Only an order that agrees with all of that, in a pass of its
 * own, counts.
 */
#include "harness/memory/replay-internal.h"

#include "kernels/hostmem.h"

struct lesson {
    struct oom_replay_pass *pass;
    struct oom_allocator *allocator;
    bool *gone; /* by segment of the start: given back before the difference */
    uint64_t older, younger;
    struct oom_block_view like; /* what the tie is about */
};

/* The start's segment that holds the address, by number; false: none, or that
 * one is gone. */
static bool start_segment(const struct lesson *lesson, uint64_t address, uint64_t *out) {
    const struct oom_recording *r = lesson->pass->recording;
    uint64_t low = 0, high = r->segment_count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (r->segments[middle].address <= address)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0) return false;
    *out = low - 1;
    return address - r->segments[*out].address < r->segments[*out].bytes && !lesson->gone[*out];
}

static void find_gone(struct lesson *lesson) {
    const struct oom_recording *r = lesson->pass->recording;
    for (uint64_t i = 0; i < lesson->pass->difference.event; i++) {
        uint64_t number;
        if (r->events[i].action != OOM_ACTION_SEGMENT_FREE) continue;
        if (start_segment(lesson, r->events[i].address, &number)) lesson->gone[number] = true;
    }
}

/* ---- a block taken ---- */

static bool alike(const struct oom_block_view *a, const struct oom_block_view *b) {
    return !a->allocated && !a->pending && !b->allocated && !b->pending && a->bytes == b->bytes &&
           a->stream == b->stream && a->small_pool == b->small_pool &&
           oom_pool_same(a->pool, b->pool);
}

/* What was taken is older than all that would have done as well. */
static enum oom_status learn_tie(const struct oom_block_view *block, void *context) {
    struct lesson *lesson = context;
    uint64_t number;
    if (!alike(block, &lesson->like)) return OOM_OK;
    if (!start_segment(lesson, block->address, &number) || number == lesson->older) return OOM_OK;
    return oom_replay_order_add(lesson->pass->order, lesson->older, number);
}

static enum oom_status learn_from_alloc(struct lesson *lesson) {
    const struct oom_replay_difference *difference = &lesson->pass->difference;
    struct oom_block_view other;
    /* as it was before: free blocks merge at once */
    OOM_TRY(oom_allocator_free(lesson->allocator, difference->younger));
    if (!oom_replay_block_at(lesson->allocator, difference->older, &lesson->like)) return OOM_OK;
    if (!oom_replay_block_at(lesson->allocator, difference->younger, &other)) return OOM_OK;
    if (lesson->like.address != difference->older || other.address != difference->younger ||
        !alike(&lesson->like, &other)) {
        return OOM_OK;
    }
    return oom_allocator_walk(lesson->allocator, learn_tie, lesson);
}

/* ---- memory given back ---- */

static bool same_class(const struct lesson *lesson, uint64_t a, uint64_t b) {
    const struct oom_start_segment *x = &lesson->pass->recording->segments[a];
    const struct oom_start_segment *y = &lesson->pass->recording->segments[b];
    return x->stream == y->stream && x->small_pool == y->small_pool &&
           oom_pool_same(x->pool, y->pool) && x->expandable == y->expandable &&
           (x->expandable || x->bytes == y->bytes);
}

/* Equal segments were given back oldest first, or in one step the youngest. */
static enum oom_status learn_from_release(struct lesson *lesson) {
    const struct oom_recording *r = lesson->pass->recording;
    uint64_t last = lesson->older, number;
    if (!same_class(lesson, lesson->older, lesson->younger)) return OOM_OK;
    OOM_TRY(oom_replay_order_add(lesson->pass->order, lesson->older, lesson->younger));
    if (lesson->pass->difference.downward) return OOM_OK;
    for (uint64_t i = lesson->pass->difference.event + 1; i < r->count; i++) {
        uint8_t action = r->events[i].action;
        if (action == OOM_ACTION_FREE_COMPLETED) continue;
        if (action != OOM_ACTION_SEGMENT_FREE && action != OOM_ACTION_SEGMENT_UNMAP) break;
        if (!start_segment(lesson, r->events[i].address, &number) || number == last) continue;
        if (!same_class(lesson, last, number)) continue;
        OOM_TRY(oom_replay_order_add(lesson->pass->order, last, number));
        last = number;
    }
    return OOM_OK;
}

/* ---- */

/* All that was seen; where that contradicts what is known, at least the one
 * pair. */
static enum oom_status keep_what_fits(struct lesson *lesson, uint64_t before) {
    struct oom_replay_order *order = lesson->pass->order;
    bool fits = false;
    if (order->edge_count == before) return OOM_OK;
    OOM_TRY(oom_replay_order_sort(order, NULL, &fits));
    if (!fits) {
        order->edge_count = before;
        OOM_TRY(oom_replay_order_add(order, lesson->older, lesson->younger));
        OOM_TRY(oom_replay_order_sort(order, NULL, &fits));
    }
    if (!fits) order->edge_count = before;
    lesson->pass->learned = fits;
    return OOM_OK;
}

/* In this pass it was the older one already: then its age explains nothing. */
static enum oom_status is_known(struct lesson *lesson, bool *known) {
    const struct oom_replay_order *order = lesson->pass->order;
    uint64_t *rank = oom_host_alloc((order->count + 1) * sizeof *rank), at = 0;
    bool fits = false;
    *known = false;
    if (rank == NULL) return oom_fail(OOM_HOST_NOMEM, "replay: no host memory for ages");
    enum oom_status status = oom_replay_order_sort(order, rank, &fits);
    if (status == OOM_OK && fits) {
        while (rank[at] != lesson->older && rank[at] != lesson->younger) at++;
        *known = rank[at] == lesson->older;
    }
    oom_host_free(rank);
    return status;
}

static enum oom_status learn(struct lesson *lesson) {
    const struct oom_replay_difference *difference = &lesson->pass->difference;
    uint64_t before = lesson->pass->order->edge_count;
    bool taken = lesson->pass->recording->events[difference->event].action == OOM_ACTION_ALLOC;
    find_gone(lesson);
    if (!start_segment(lesson, difference->older, &lesson->older)) return OOM_OK;
    if (!start_segment(lesson, difference->younger, &lesson->younger)) return OOM_OK;
    bool known = lesson->older == lesson->younger;
    if (!known) OOM_TRY(is_known(lesson, &known));
    if (known) return OOM_OK;
    OOM_TRY(taken ? learn_from_alloc(lesson) : learn_from_release(lesson));
    return keep_what_fits(lesson, before);
}

enum oom_status oom_replay_learn(struct oom_replay_pass *pass, struct oom_allocator *allocator) {
    struct lesson lesson = {.pass = pass, .allocator = allocator};
    if (!pass->difference.found || pass->difference.older == 0) return OOM_OK;
    if (pass->settings->profile == OOM_PROFILE_PYTORCH_2_11) return OOM_OK; /* by address */
    lesson.gone = oom_host_calloc(pass->recording->segment_count + 1, sizeof *lesson.gone);
    if (lesson.gone == NULL) return oom_fail(OOM_HOST_NOMEM, "replay: no host memory for ages");
    enum oom_status status = learn(&lesson);
    oom_host_free(lesson.gone);
    return status;
}
