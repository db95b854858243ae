/*
 * The schedule `threads`: a worker per stream, which does what is queued there in order. Workers
 * sleep when they have nothing to do; all talk to one another through the lock alone, so there is
 * no order of events in here that a plain monitor does not have.
 */
#include "kernels/simulated/queue.h"

#include "kernels/host/pool.h"
#include "kernels/simulated/arena.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

static void *work(void *argument) {
    struct oom_stream *stream = argument;
    struct oom_queues *queues = stream->queues;
    oom_queues_enter(queues);
    while (!queues->stopping) {
        if (stream->head == NULL) {
            pthread_cond_wait(&stream->wake, &queues->lock);
        } else if (oom_queue_blocked(stream)) {
            pthread_cond_wait(&queues->progress, &queues->lock);
        } else {
            oom_queue_step(queues, stream);
            pthread_cond_broadcast(&queues->progress);
        }
    }
    oom_queues_leave(queues);
    return NULL;
}

enum oom_status oom_worker_start(struct oom_stream *stream) {
    sigset_t before;
    stream->wake = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    oom_pool_signals_block(&before);
    int code = oom_arena_fails() ? EAGAIN : pthread_create(&stream->thread, NULL, work, stream);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code == 0) return OOM_OK;
    return oom_fail_native(OOM_HOST_NOMEM, code, "a thread for a stream: %s", strerror(code));
}

void oom_workers_stop(struct oom_queues *queues) {
    oom_queues_enter(queues);
    queues->stopping = true;
    pthread_cond_broadcast(&queues->progress);
    for (struct oom_stream *each = queues->streams; each != NULL; each = each->next) {
        oom_worker_wake(each);
    }
    oom_queues_leave(queues);
    for (struct oom_stream *each = queues->streams; each != NULL; each = each->next) {
        pthread_join(each->thread, NULL);
        pthread_cond_destroy(&each->wake);
    }
}

void oom_worker_wake(struct oom_stream *stream) {
    pthread_cond_signal(&stream->wake);
}

void oom_worker_wait(struct oom_queues *queues, struct oom_stream *stream, uint64_t position) {
    while (stream->finished < position) pthread_cond_wait(&queues->progress, &queues->lock);
}
