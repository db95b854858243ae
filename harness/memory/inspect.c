/* inspect.c: looking in from outside: the trace and every block. */
#include "harness/memory/internal.h"

#include <string.h>

/* ---- trace ---- */

uint64_t oom_allocator_trace_count(const struct oom_allocator *a) {
    return oom_trace_held(&a->trace);
}

uint64_t oom_allocator_trace_dropped(const struct oom_allocator *a) {
    return a->trace.written - oom_trace_held(&a->trace);
}

const struct oom_trace_event *oom_allocator_trace_at(const struct oom_allocator *a, uint64_t i) {
    if (i >= oom_trace_held(&a->trace)) return NULL;
    const struct oom_trace_record *record = oom_trace_get(&a->trace, i);
    struct oom_trace_event *event = a->event;
    *event = (struct oom_trace_event){.action = (enum oom_action)record->action,
                                      .tag = (enum oom_tag)record->tag,
                                      .address = record->address,
                                      .bytes = record->bytes,
                                      .stream = record->stream,
                                      .pool = a->pool_ids[record->pool],
                                      .time_us = record->time_us};
    strncpy(event->site, oom_site_name(&a->sites, record->site), sizeof event->site - 1);
    return event;
}

/* ---- blocks ---- */

/* A segment as people see it: whole, or one run of mapped pages of an expandable one. */
struct run {
    uint64_t address, bytes;
};

static struct run run_from(const struct oom_block *block) {
    const struct oom_segment *segment = block->segment;
    if (!segment->expandable) return (struct run){segment->address, segment->bytes};
    struct run run = {block->address, 0};
    for (; block != NULL && block->hold != OOM_HOLD_UNMAPPED; block = block->next) {
        run.bytes += block->bytes;
    }
    return run;
}

static struct oom_block_view view_of(const struct oom_allocator *a, const struct oom_block *block,
                                     const struct run *run) {
    bool live = block->hold == OOM_HOLD_LIVE, pending = block->hold == OOM_HOLD_PENDING;
    return (struct oom_block_view){.segment = run->address,
                                   .segment_bytes = run->bytes,
                                   .small_pool = block->pool == OOM_POOL_SMALL,
                                   .expandable = block->expandable,
                                   .stream = block->stream,
                                   .pool = block->owner->group->id,
                                   .address = block->address,
                                   .bytes = block->bytes,
                                   .requested = live || pending ? block->requested : 0,
                                   .allocated = live,
                                   .pending = pending,
                                   .tag = (enum oom_tag)block->tag,
                                   .site = oom_site_name(&a->sites, block->site)};
}

enum oom_status oom_allocator_walk(const struct oom_allocator *a,
                                   enum oom_status (*visit)(const struct oom_block_view *block,
                                                            void *context),
                                   void *context) {
    for (struct oom_tree_node *node = oom_tree_end(&a->segments, 0); node != NULL;
         node = oom_tree_step(node, 1)) {
        struct run run = {0, 0};
        for (struct oom_block *b = oom_segment_first(node); b != NULL; b = b->next) {
            if (b->hold == OOM_HOLD_UNMAPPED) continue;
            if (b->address >= run.address + run.bytes) run = run_from(b);
            struct oom_block_view view = view_of(a, b, &run);
            OOM_TRY(visit(&view, context));
        }
    }
    return OOM_OK;
}
