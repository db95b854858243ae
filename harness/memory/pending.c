/* pending.c: blocks that other streams use. Each use is told before the free; at the free an event
 * is recorded on each of those streams, and the block waits in their queues until all are ready.
 * Queues are first in, first out: a slow stream holds up its own queue only.
 *
 * A use carries its event and is made when it is told, so that the free itself needs no memory. */
#include "harness/memory/drive.h"
#include "harness/memory/internal.h"

#include "kernels/hostmem.h"

/* ---- uses ---- */

static enum oom_status take_use(struct oom_allocator *a, bool with_event, struct oom_use **out) {
    struct oom_use *use = a->unused_uses;
    if (use == NULL) {
        use = oom_host_calloc(1, sizeof *use);
        if (use == NULL) {
            return oom_fail(OOM_HOST_NOMEM, "allocator: no host memory for a block's other stream");
        }
        use->made_before = a->uses;
        a->uses = use;
        a->unused_uses = use;
    }
    if (with_event && use->event == NULL) {
        OOM_TRY(a->device->api->event_create(a->device, &use->event));
    }
    a->unused_uses = use->next;
    *out = use;
    return OOM_OK;
}

static void give_use(struct oom_allocator *a, struct oom_use *use) {
    use->next = a->unused_uses;
    a->unused_uses = use;
}

static void push(struct oom_use_queue *queue, struct oom_use *use) {
    use->later = NULL;
    use->earlier = queue->last;
    if (queue->last != NULL)
        queue->last->later = use;
    else
        queue->first = use;
    queue->last = use;
}

static void unlink_use(struct oom_use_queue *queue, struct oom_use *use) {
    *(use->earlier != NULL ? &use->earlier->later : &queue->first) = use->later;
    *(use->later != NULL ? &use->later->earlier : &queue->last) = use->earlier;
}

enum oom_status oom_pending_reserve(struct oom_allocator *a, uint32_t streams) {
    struct oom_use_queue *queues = oom_host_realloc(a->queues, streams * sizeof *queues);
    if (queues == NULL) {
        return oom_fail(OOM_HOST_NOMEM, "allocator: no host memory for a stream's queue");
    }
    a->queues = queues;
    for (uint32_t i = a->stream_count; i < streams; i++) queues[i] = (struct oom_use_queue){0};
    return OOM_OK;
}

void oom_pending_free(struct oom_allocator *a) {
    while (a->uses != NULL) {
        struct oom_use *use = a->uses;
        a->uses = use->made_before;
        if (use->event != NULL) (void)a->device->api->event_destroy(a->device, use->event);
        oom_host_free(use);
    }
    oom_host_free(a->queues);
    oom_live_table_free(&a->held_table);
}

/* ---- telling ---- */

enum oom_status oom_allocator_record_stream(struct oom_allocator *a, oom_devptr ptr,
                                            struct oom_stream *stream) {
    struct oom_block *block;
    struct oom_use *use;
    uint16_t number;
    OOM_TRY(oom_block_find(a, "record_stream", ptr, &block));
    OOM_TRY(oom_stream_number(a, stream, &number));
    if (number == block->stream || oom_is_direct(a)) return OOM_OK;
    for (use = block->uses; use != NULL; use = use->next) {
        if (use->stream == number) return OOM_OK;
    }
    OOM_TRY(take_use(a, true, &use));
    use->block = block;
    use->stream = number;
    use->next = block->uses;
    block->uses = use;
    return OOM_OK;
}

/* ---- freeing ---- */

enum oom_status oom_pending_begin(struct oom_allocator *a, struct oom_block *block, bool *pending) {
    *pending = false;
    for (const struct oom_use *use = block->uses; use != NULL; use = use->next) {
        OOM_TRY(a->device->api->event_record(a->device, use->event, a->streams[use->stream]));
    }
    while (block->uses != NULL) {
        struct oom_use *use = block->uses;
        block->uses = use->next;
        push(&a->queues[use->stream], use);
        block->waits++;
        a->waiting++;
        *pending = true;
    }
    return OOM_OK;
}

/* The event of the first use in a queue was seen ready. */
static enum oom_status finish_first(struct oom_allocator *a, struct oom_use_queue *queue) {
    struct oom_use *use = queue->first;
    struct oom_block *block = use->block;
    unlink_use(queue, use);
    give_use(a, use);
    a->waiting--;
    return --block->waits == 0 ? oom_block_complete(a, block) : OOM_OK;
}

enum oom_status oom_pending_poll(struct oom_allocator *a) {
    for (uint32_t i = 0; i < a->stream_count; i++) {
        struct oom_use_queue *queue = &a->queues[i];
        while (queue->first != NULL) {
            enum oom_status status = a->device->api->event_query(a->device, queue->first->event);
            if (status == OOM_NOT_READY) break;
            OOM_TRY(status);
            OOM_TRY(finish_first(a, queue));
        }
    }
    return OOM_OK;
}

/* ---- held by hand (drive.h) ---- */

static enum oom_status finish_held(struct oom_allocator *a, struct oom_use *use) {
    struct oom_block *block = use->block;
    (void)oom_live_table_take(&a->held_table, block->address);
    block->uses = NULL;
    enum oom_status status = oom_block_complete(a, block);
    if (status != OOM_OK) {
        block->uses = use;
        oom_live_table_add(&a->held_table, block);
        return status;
    }
    unlink_use(&a->held, use);
    give_use(a, use);
    return OOM_OK;
}

enum oom_status oom_pending_hold_prepare(struct oom_allocator *a, uint64_t count) {
    enum oom_status status = OOM_OK;
    struct oom_use *taken = NULL, *use = NULL;
    if (a->held_table.buckets == NULL) OOM_TRY(oom_live_table_init(&a->held_table));
    for (uint64_t i = 0; i < count && status == OOM_OK; i++) {
        status = take_use(a, false, &use);
        if (status != OOM_OK) break;
        use->next = taken;
        taken = use;
    }
    while (taken != NULL) {
        use = taken;
        taken = use->next;
        give_use(a, use);
    }
    return status;
}

void oom_pending_hold(struct oom_allocator *a, struct oom_block *block) {
    struct oom_use *use = a->unused_uses;
    a->unused_uses = use->next;
    while (block->uses != NULL) { /* the driver knows better than their events */
        struct oom_use *told = block->uses;
        block->uses = told->next;
        give_use(a, told);
    }
    use->block = block;
    use->next = NULL;
    push(&a->held, use);
    block->uses = use;
    block->hold = OOM_HOLD_PENDING;
    oom_live_table_add(&a->held_table, block);
}

enum oom_status oom_allocator_complete(struct oom_allocator *a, oom_devptr ptr) {
    struct oom_block *block = NULL;
    if (a->held_table.buckets != NULL) {
        block = oom_live_table_find(&a->held_table, ptr - a->settings.guard_bytes);
    }
    if (block == NULL) {
        return oom_fail(OOM_INVALID,
                        "complete of 0x%llx: no block that was freed and held begins "
                        "there",
                        (unsigned long long)ptr);
    }
    return finish_held(a, block->uses);
}

enum oom_status oom_pending_finish(struct oom_allocator *a) {
    for (uint32_t i = 0; i < a->stream_count && a->waiting > 0; i++) {
        struct oom_use_queue *queue = &a->queues[i];
        while (queue->first != NULL) {
            OOM_TRY(a->device->api->event_sync(a->device, queue->first->event));
            OOM_TRY(finish_first(a, queue));
        }
    }
    while (a->held.first != NULL) OOM_TRY(finish_held(a, a->held.first));
    return OOM_OK;
}
