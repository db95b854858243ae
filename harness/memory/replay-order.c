/* replay-order.c: what is known of the ages of the start's segments, as pairs,
 * and an order that agrees with all of them, by address where nothing is known.
 */
#include "harness/memory/replay-internal.h"

#include "kernels/hostmem.h"

void oom_replay_order_free(struct oom_replay_order *order) {
    oom_host_free(order->edges);
    *order = (struct oom_replay_order){0};
}

enum oom_status oom_replay_order_add(struct oom_replay_order *order, uint64_t older,
                                     uint64_t younger) {
    if (order->edge_count == order->edge_room) {
        uint64_t room = 2 * order->edge_room + 64;
        void *edges = oom_host_realloc(order->edges, room * sizeof *order->edges);
        if (edges == NULL) return oom_fail(OOM_HOST_NOMEM, "replay: no host memory for ages");
        order->edges = edges;
        order->edge_room = room;
    }
    order->edges[order->edge_count++] = (struct oom_replay_edge){older, younger};
    return OOM_OK;
}

/* A heap of numbers, the smallest first. */
static void heap_push(uint64_t *heap, uint64_t count, uint64_t value) {
    uint64_t at = count;
    while (at > 0 && heap[(at - 1) / 2] > value) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = value;
}

static uint64_t heap_pop(uint64_t *heap, uint64_t count) {
    uint64_t top = heap[0], value = heap[count - 1], at = 0;
    for (;;) {
        uint64_t child = 2 * at + 1;
        if (child + 1 < count - 1 && heap[child + 1] < heap[child]) child++;
        if (child >= count - 1 || heap[child] >= value) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = value;
    return top;
}

struct sorting {
    uint64_t *older;   /* by segment: so many that are older have not come yet */
    uint64_t *first;   /* by segment: its place in younger */
    uint64_t *heap;    /* of which everything older has come */
    uint64_t *younger; /* the other ends of the pairs, grouped by segment */
};

static void group(const struct oom_replay_order *order, struct sorting *s) {
    for (uint64_t i = 0; i < order->edge_count; i++) {
        s->older[order->edges[i].younger]++;
        s->first[order->edges[i].older + 1]++;
    }
    for (uint64_t i = 0; i < order->count; i++) s->first[i + 1] += s->first[i];
    for (uint64_t i = 0; i < order->edge_count; i++) { /* the heap serves as cursors */
        uint64_t from = order->edges[i].older;
        s->younger[s->first[from] + s->heap[from]++] = order->edges[i].younger;
    }
}

static uint64_t sort(const struct oom_replay_order *order, struct sorting *s, uint64_t *rank) {
    uint64_t waiting = 0, done = 0;
    group(order, s);
    for (uint64_t i = 0; i < order->count; i++) {
        if (s->older[i] == 0) heap_push(s->heap, waiting++, i);
    }
    while (waiting > 0) {
        uint64_t next = heap_pop(s->heap, waiting--);
        if (rank != NULL) rank[done] = next;
        done++;
        for (uint64_t i = s->first[next]; i < s->first[next + 1]; i++) {
            if (--s->older[s->younger[i]] == 0) heap_push(s->heap, waiting++, s->younger[i]);
        }
    }
    return done;
}

enum oom_status oom_replay_order_sort(const struct oom_replay_order *order, uint64_t *rank,
                                      bool *fits) {
    uint64_t n = order->count + 2;
    uint64_t *work = oom_host_calloc(3 * n + order->edge_count, sizeof *work);
    if (work == NULL) return oom_fail(OOM_HOST_NOMEM, "replay: no host memory to sort segments");
    struct sorting sorting = {work, work + n, work + 2 * n, work + 3 * n};
    *fits = sort(order, &sorting, rank) == order->count;
    oom_host_free(work);
    return OOM_OK;
}
