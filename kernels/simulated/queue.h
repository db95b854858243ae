/*
 * queue.h: the inside of streams.h: what a stream and an event are, and the two ways in which
 * queued commands get done: when somebody needs them (deferred.c: lazy, seeded) or by a thread of
 * each stream (workers.c). Ownership and the lock are those of streams.h.
 */
#ifndef OOM_KERNELS_SIMULATED_QUEUE_H
#define OOM_KERNELS_SIMULATED_QUEUE_H

#include "kernels/simulated/streams.h"

/* Destroyed streams and events stay in the list of all and are used again: a position kept
 * somewhere stays true, and a use after destruction is found. */
struct oom_stream {
    struct oom_queues *queues;
    bool live; /* false: destroyed */
    struct oom_stream *next, *next_unused;
    struct oom_command *head, **tail;
    uint64_t submitted, finished; /* commands, since ever */
    bool running;                 /* the head is being done */

    /* deferred.c, during one call */
    uint64_t target;          /* finish so many */
    struct oom_command *walk; /* the first command not looked at ... */
    uint64_t walked;          /* ... which has so many before it */

    /* workers.c */
    pthread_t thread;
    pthread_cond_t wake; /* a command was queued, or the worker must end */
};

struct oom_event {
    const struct oom_queues *queues;
    bool live; /* false: destroyed */
    struct oom_event *next, *next_unused;
    struct oom_stream *stream; /* NULL: never recorded */
    uint64_t position;
};

/* The head waits for something that has not finished. */
static inline bool oom_queue_blocked(const struct oom_stream *stream) {
    const struct oom_command *head = stream->head;
    return head->kind == OOM_COMMAND_WAIT && head->awaited->finished < head->position;
}

/* Does the head, which is not blocked, and takes it from the queue. */
void oom_queue_step(struct oom_queues *queues, struct oom_stream *stream);
void oom_queue_pop(struct oom_stream *stream);

/* ---- lazy and seeded ---- */

/* Runs what `stream` needs to finish `position` commands; everything that is queued. */
void oom_deferred_finish(struct oom_queues *queues, struct oom_stream *stream, uint64_t position);
void oom_deferred_finish_all(struct oom_queues *queues);
/* `command` was just queued last in `stream`: where it races with earlier work, it runs first. */
void oom_deferred_overtake(struct oom_queues *queues, struct oom_stream *stream,
                           const struct oom_command *command);
/* Somebody asks whether so much has finished, which it has not: it may do so now. */
void oom_deferred_asked(struct oom_queues *queues, struct oom_stream *stream, uint64_t position);

/* ---- threads ---- */

enum oom_status oom_worker_start(struct oom_stream *stream);
void oom_workers_stop(struct oom_queues *queues); /* they finish what they are doing */
void oom_worker_wake(struct oom_stream *stream);
void oom_worker_wait(struct oom_queues *queues, struct oom_stream *stream, uint64_t position);

#endif
