/*
 * replay-undo.c: what was there before the first event: the events are undone
 * from the final state, last first. An `alloc` takes its block out, a completed
 * free puts one back, segments and mapped runs likewise. What cannot be undone
 * cannot have happened: the recording is cut or contradicts itself, and is
 * refused with the event.
 */
#include "harness/memory/address-map.h"
#include "harness/memory/replay-internal.h"

#include "kernels/hostmem.h"

#include <stdlib.h>

struct undo {
    struct oom_recording *recording;
    struct oom_region_tree regions;
    struct oom_address_map live; /* address to index in blocks */
    struct oom_replay_block *blocks;
    uint64_t count, room;
    uint64_t unused; /* chain of given-up blocks, by `freed`; NEVER: none */
};

/* ---- blocks ---- */

static enum oom_status put_block(struct undo *undo, const struct oom_replay_block *block) {
    uint64_t index = undo->unused;
    if (index != OOM_REPLAY_NEVER) {
        undo->unused = undo->blocks[index].freed;
    } else {
        if (undo->count == undo->room) {
            uint64_t room = 2 * undo->room + 256;
            void *blocks = oom_host_realloc(undo->blocks, room * sizeof *undo->blocks);
            if (blocks == NULL)
                return oom_fail(OOM_HOST_NOMEM, "replay: no host memory for blocks");
            undo->blocks = blocks;
            undo->room = room;
        }
        index = undo->count++;
    }
    undo->blocks[index] = *block;
    return oom_address_map_put(&undo->live, block->address, index);
}

static struct oom_replay_block *live_block(const struct undo *undo, uint64_t address) {
    uint64_t index;
    return oom_address_map_get(&undo->live, address, &index) ? &undo->blocks[index] : NULL;
}

static void drop_block(struct undo *undo, uint64_t address) {
    uint64_t index;
    if (!oom_address_map_get(&undo->live, address, &index)) return;
    oom_address_map_remove(&undo->live, address);
    undo->blocks[index].freed = undo->unused;
    undo->unused = index;
}

/* ---- the final state ---- */

static enum oom_status take_final_blocks(struct undo *undo,
                                         const struct oom_snapshot_segment *segment) {
    const struct oom_snapshot *snapshot = undo->recording->snapshot;
    for (uint64_t i = 0; i < segment->block_count; i++) {
        const struct oom_snapshot_block *b = &snapshot->blocks[segment->first_block + i];
        if (b->state == OOM_BLOCK_INACTIVE) continue;
        if (b->address == 0 || live_block(undo, b->address) != NULL) {
            return oom_fail(OOM_USAGE,
                            "the recording cannot be replayed: two live blocks of "
                            "its final state "
                            "are at 0x%llx",
                            (oom_ull)b->address);
        }
        OOM_TRY(put_block(undo,
                          &(struct oom_replay_block){.address = b->address,
                                                     .bytes = b->bytes,
                                                     .requested = b->requested,
                                                     .freed = OOM_REPLAY_NEVER,
                                                     .site = b->site,
                                                     .pending = b->state == OOM_BLOCK_PENDING_FREE,
                                                     .exact = true}));
    }
    return OOM_OK;
}

static enum oom_status take_final_state(struct undo *undo) {
    struct oom_recording *r = undo->recording;
    for (uint64_t i = 0; i < r->snapshot->segment_count; i++) {
        const struct oom_snapshot_segment *s = &r->snapshot->segments[i];
        if (s->device != r->device) continue;
        struct oom_replay_region region = {.address = s->address,
                                           .bytes = s->bytes,
                                           .stream = s->stream,
                                           .pool = s->pool,
                                           .size =
                                               s->small_pool ? OOM_REPLAY_SMALL : OOM_REPLAY_LARGE,
                                           .expandable = s->expandable};
        bool clash;
        OOM_TRY(oom_region_tree_add(&undo->regions, &region, &clash));
        if (clash) {
            return oom_fail(OOM_USAGE,
                            "the recording cannot be replayed: two segments of its final state "
                            "overlap at 0x%llx",
                            (oom_ull)s->address);
        }
        OOM_TRY(take_final_blocks(undo, s));
    }
    return OOM_OK;
}

/* ---- the events, backwards ---- */

static struct oom_replay_region region_of(const struct undo *undo, uint64_t index) {
    const struct oom_recording *r = undo->recording;
    const struct oom_snapshot_event *e = &r->events[index];
    bool expandable = e->action == OOM_ACTION_SEGMENT_MAP || e->action == OOM_ACTION_SEGMENT_UNMAP;
    enum oom_replay_size size = OOM_REPLAY_LARGE;
    if (!expandable) {
        bool direct = r->settings.backend == OOM_BACKEND_DIRECT; /* a segment is a block */
        if (direct ? e->bytes <= OOM_REPLAY_SMALL_MAX : e->bytes == OOM_REPLAY_PAGE) {
            size = OOM_REPLAY_SMALL;
        }
    } else if (e->bytes % r->settings.large_segment_size != 0) {
        size = OOM_REPLAY_SMALL;
    } else if (e->action == OOM_ACTION_SEGMENT_UNMAP) {
        size = OOM_REPLAY_UNKNOWN; /* ten small pages are as long as one large one */
    }
    return (struct oom_replay_region){
        e->address, e->bytes, e->stream, oom_recording_pool(r, index), size, expandable};
}

/* The pools of events that do not name any are those of the segments. */
static enum oom_status note_pool(struct undo *undo, uint64_t index, struct oom_pool_id pool) {
    struct oom_recording *r = undo->recording;
    if (oom_pool_same(oom_recording_pool(r, index), pool)) return OOM_OK;
    if (r->events[index].pool != 0) return OOM_OK; /* that shows when it is driven */
    if (r->pools == NULL) {
        struct oom_pool_id *pools = oom_host_alloc(r->count * sizeof *pools);
        if (pools == NULL) return oom_fail(OOM_HOST_NOMEM, "replay: no host memory for pools");
        for (uint64_t i = 0; i < r->count; i++) pools[i] = oom_recording_pool(r, i);
        r->pools = pools;
    }
    r->pools[index] = pool;
    return OOM_OK;
}

/* Where no event names any pool at all, of others than allocations, too. */
static enum oom_status infer_pool(struct undo *undo, uint64_t index) {
    const struct oom_replay_region *region = NULL;
    if (undo->recording->names_pools) return OOM_OK;
    region = oom_region_tree_at(&undo->regions, undo->recording->events[index].address);
    return region != NULL ? note_pool(undo, index, region->pool) : OOM_OK;
}

static enum oom_status undo_segment(struct undo *undo, uint64_t index, bool made) {
    struct oom_recording *r = undo->recording;
    struct oom_replay_region region = region_of(undo, index);
    bool clash;
    if (made) OOM_TRY(infer_pool(undo, index));
    OOM_TRY(made ? oom_region_tree_take(&undo->regions, &region, &clash)
                 : oom_region_tree_add(&undo->regions, &region, &clash));
    if (!clash) return OOM_OK;
    return oom_recording_refuse(r, index,
                                made ? "what it made is not there as a whole afterwards"
                                     : "it overlaps memory that is there afterwards");
}

/* A block tells of which pool the runs are that it lies in. */
static void settle(struct undo *undo, uint64_t address, uint64_t bytes) {
    oom_region_tree_settle(&undo->regions, address, bytes,
                           bytes <= OOM_REPLAY_SMALL_MAX ? OOM_REPLAY_SMALL : OOM_REPLAY_LARGE);
}

static enum oom_status undo_alloc(struct undo *undo, uint64_t index) {
    struct oom_recording *r = undo->recording;
    const struct oom_snapshot_event *e = &r->events[index];
    struct oom_replay_block *block = live_block(undo, e->address);
    if (block == NULL) {
        return oom_recording_refuse(r, index, "nothing is live there afterwards");
    }
    if (block->requested != e->bytes) {
        return oom_recording_refuse(r, index, "another size is live there afterwards");
    }
    if (block->pending && r->has_requests) {
        return oom_recording_refuse(r, index, "it is freed without a request");
    }
    settle(undo, e->address, block->bytes);
    const struct oom_replay_region *region = oom_region_tree_at(&undo->regions, e->address);
    if (region == NULL || block->bytes > region->bytes - (e->address - region->address)) {
        return oom_recording_refuse(r, index, "no segment holds it at that time");
    }
    OOM_TRY(note_pool(undo, index, region->pool));
    drop_block(undo, e->address);
    return OOM_OK;
}

static enum oom_status undo_completed(struct undo *undo, uint64_t index) {
    struct oom_recording *r = undo->recording;
    const struct oom_snapshot_event *e = &r->events[index];
    if (e->address == 0 || e->bytes == 0 || live_block(undo, e->address) != NULL) {
        return oom_recording_refuse(r, index, "something is live there afterwards");
    }
    OOM_TRY(infer_pool(undo, index));
    uint64_t bytes = oom_replay_rounded(&r->settings, e->bytes);
    settle(undo, e->address, bytes);
    return put_block(undo,
                     &(struct oom_replay_block){.address = e->address,
                                                .bytes = bytes,
                                                .requested = e->bytes,
                                                .freed = index,
                                                .site = e->site,
                                                .pending = r->has_requests && r->has_completions});
}

static enum oom_status undo_requested(struct undo *undo, uint64_t index) {
    struct oom_recording *r = undo->recording;
    const struct oom_snapshot_event *e = &r->events[index];
    if (!r->has_completions) return undo_completed(undo, index);
    struct oom_replay_block *block = live_block(undo, e->address);
    if (block == NULL || !block->pending || block->requested != e->bytes) {
        return oom_recording_refuse(r, index, "no such block is being freed afterwards");
    }
    block->pending = false;
    return infer_pool(undo, index);
}

static enum oom_status undo_event(struct undo *undo, uint64_t index) {
    switch ((enum oom_action)undo->recording->events[index].action) {
    case OOM_ACTION_ALLOC:
        return undo_alloc(undo, index);
    case OOM_ACTION_FREE_REQUESTED:
        return undo_requested(undo, index);
    case OOM_ACTION_FREE_COMPLETED:
        return undo_completed(undo, index);
    case OOM_ACTION_SEGMENT_ALLOC:
    case OOM_ACTION_SEGMENT_MAP:
        return undo_segment(undo, index, true);
    case OOM_ACTION_SEGMENT_FREE:
    case OOM_ACTION_SEGMENT_UNMAP:
        return undo_segment(undo, index, false);
    case OOM_ACTION_OOM:
    case OOM_ACTION_SNAPSHOT:
        return OOM_OK;
    }
    return oom_recording_refuse(undo->recording, index, "nothing is known of such an event");
}

/* ---- what is left ---- */

static int by_address(const void *a, const void *b) {
    uint64_t x = ((const struct oom_replay_block *)a)->address;
    uint64_t y = ((const struct oom_replay_block *)b)->address;
    return x < y ? -1 : x > y;
}

static void hand_over(struct undo *undo) {
    struct oom_recording *r = undo->recording;
    uint64_t kept = 0;
    for (uint64_t i = undo->unused, next; i != OOM_REPLAY_NEVER; i = next) {
        next = undo->blocks[i].freed;
        undo->blocks[i].address = 0;
    }
    for (uint64_t i = 0; i < undo->count; i++) {
        if (undo->blocks[i].address != 0) undo->blocks[kept++] = undo->blocks[i];
    }
    if (kept > 0) qsort(undo->blocks, kept, sizeof *undo->blocks, by_address);
    r->blocks = undo->blocks;
    r->block_count = kept;
    undo->blocks = NULL;
}

enum oom_status oom_recording_undo(struct oom_recording *recording) {
    struct undo undo = {.recording = recording, .unused = OOM_REPLAY_NEVER};
    enum oom_status status = take_final_state(&undo);
    for (uint64_t i = recording->count; status == OOM_OK && i-- > 0;) status = undo_event(&undo, i);
    if (status == OOM_OK) hand_over(&undo);
    oom_region_tree_settle_rest(&undo.regions);
    if (status == OOM_OK) status = oom_region_tree_list(&undo.regions, &recording->regions);
    oom_region_tree_free(&undo.regions);
    oom_host_free(undo.blocks);
    oom_address_map_free(&undo.live);
    return status;
}
