/*
 * What all schedules share: the queues themselves, what is in use, failures, life of streams and
 * events.
 */
#include "kernels/simulated/streams.h"

#include "kernels/hostmem.h"
#include "kernels/simulated/queue.h"

#include <string.h>

enum oom_status oom_stream_check(const struct oom_queues *queues, const struct oom_stream *stream) {
    if (stream == NULL || (stream->queues == queues && stream->live)) return OOM_OK;
    return oom_fail(OOM_INVALID, "stream %p is not a live stream of this device",
                    (const void *)stream);
}

static enum oom_status check_event(const struct oom_queues *queues, const struct oom_event *event) {
    if (event != NULL && event->queues == queues && event->live) return OOM_OK;
    return oom_fail(OOM_INVALID, "event %p is not a live event of this device",
                    (const void *)event);
}

static struct oom_stream *named(const struct oom_queues *queues, struct oom_stream *stream) {
    return stream != NULL ? stream : queues->first;
}

void oom_queues_enter(struct oom_queues *queues) {
    pthread_mutex_lock(&queues->lock);
}

void oom_queues_leave(struct oom_queues *queues) {
    pthread_mutex_unlock(&queues->lock);
}

/* ---- one command ---- */

void oom_queue_pop(struct oom_stream *stream) {
    struct oom_command *command = stream->head;
    stream->head = command->next;
    if (stream->head == NULL) stream->tail = &stream->head;
    oom_host_free(command);
}

/* The failure record of the thread is the caller's: a queued command must not write into it. */
static enum oom_status check_apart(const struct oom_queues *queues,
                                   const struct oom_command *command, struct oom_failure *failure) {
    struct oom_failure before = *oom_failure_last();
    oom_failure_clear();
    enum oom_status status = queues->work.check(queues->work.context, command);
    if (status != OOM_OK) *failure = *oom_failure_last();
    oom_failure_clear();
    if (before.status != OOM_OK) {
        oom_failure_record(before.file, before.line, before.status, before.native, "%s",
                           before.message);
    }
    return status;
}

static void run_head(struct oom_queues *queues, struct oom_stream *stream) {
    const struct oom_command *command = stream->head;
    struct oom_failure failure;
    if (check_apart(queues, command, &failure) != OOM_OK) {
        if (queues->failure.status == OOM_OK) queues->failure = failure;
        return;
    }
    stream->running = true;
    oom_queues_leave(queues);
    queues->work.run(queues->work.context, command);
    oom_queues_enter(queues);
    stream->running = false;
}

void oom_queue_step(struct oom_queues *queues, struct oom_stream *stream) {
    if (stream->head->kind != OOM_COMMAND_WAIT) run_head(queues, stream);
    oom_queue_pop(stream);
    stream->finished++;
}

/* What failed since the last report, in the record of the calling thread. */
static enum oom_status report(struct oom_queues *queues) {
    struct oom_failure failure = queues->failure;
    if (failure.status == OOM_OK) return OOM_OK;
    queues->failure = (struct oom_failure){0};
    return oom_failure_record(failure.file, failure.line, failure.status, failure.native, "%s",
                              failure.message);
}

/* ---- submitting ---- */

/* A copy, with the spans and then the data behind it. */
static struct oom_command *copy_command(const struct oom_command *command) {
    struct oom_span spans[OOM_OPERANDS_MAX];
    int count = oom_command_spans(command, spans);
    size_t span_bytes = (size_t)count * sizeof spans[0];
    uint64_t data_bytes = command->kind == OOM_COMMAND_UPLOAD ? command->bytes : 0;
    if (data_bytes > SIZE_MAX / 2) return NULL;
    struct oom_command *copy = oom_host_alloc(sizeof *copy + span_bytes + (size_t)data_bytes);
    if (copy == NULL) return NULL;
    *copy = *command;
    copy->next = NULL;
    copy->spans = memcpy(copy + 1, spans, span_bytes);
    copy->span_count = count;
    if (data_bytes > 0) {
        copy->data = memcpy((char *)(copy + 1) + span_bytes, command->data, data_bytes);
    }
    return copy;
}

static enum oom_status enqueue(struct oom_queues *queues, struct oom_stream *stream,
                               const struct oom_command *command) {
    struct oom_command *copy = copy_command(command);
    if (copy == NULL) {
        return oom_fail(OOM_HOST_NOMEM, "no host memory for a queued command and %llu bytes of it",
                        (unsigned long long)command->bytes);
    }
    *stream->tail = copy;
    stream->tail = &copy->next;
    stream->submitted++;
    if (queues->schedule == OOM_SCHEDULE_THREADS) {
        oom_worker_wake(stream);
    } else {
        oom_deferred_overtake(queues, stream, copy);
    }
    return OOM_OK;
}

enum oom_status oom_queues_submit(struct oom_queues *queues, struct oom_stream *stream,
                                  const struct oom_command *command) {
    OOM_TRY(oom_stream_check(queues, stream));
    if (queues->schedule != OOM_SCHEDULE_EAGER) {
        return enqueue(queues, named(queues, stream), command);
    }
    OOM_TRY(queues->work.check(queues->work.context, command));
    queues->work.run(queues->work.context, command);
    return OOM_OK;
}

/* ---- finishing ---- */

static enum oom_status finish(struct oom_queues *queues, struct oom_stream *stream,
                              uint64_t position) {
    if (queues->schedule == OOM_SCHEDULE_THREADS) {
        oom_worker_wait(queues, stream, position);
    } else {
        oom_deferred_finish(queues, stream, position);
    }
    return report(queues);
}

enum oom_status oom_queues_sync(struct oom_queues *queues) {
    if (queues->schedule != OOM_SCHEDULE_THREADS) {
        oom_deferred_finish_all(queues);
        return report(queues);
    }
    for (struct oom_stream *stream = queues->streams; stream != NULL; stream = stream->next) {
        oom_worker_wait(queues, stream, stream->submitted);
    }
    return report(queues);
}

/* ---- what is in use ---- */

bool oom_queues_use(const struct oom_queues *queues, oom_devptr ptr, uint64_t bytes) {
    for (const struct oom_stream *stream = queues->streams; stream; stream = stream->next) {
        for (const struct oom_command *command = stream->head; command; command = command->next) {
            if (oom_command_uses(command, ptr, bytes)) return true;
        }
    }
    return false;
}

static const struct oom_stream *running_on(const struct oom_queues *queues, oom_devptr ptr,
                                           uint64_t bytes) {
    const struct oom_stream *stream = queues->streams;
    while (stream && !(stream->running && oom_command_uses(stream->head, ptr, bytes))) {
        stream = stream->next;
    }
    return stream;
}

void oom_queues_settle(struct oom_queues *queues, oom_devptr ptr, uint64_t bytes) {
    while (running_on(queues, ptr, bytes) != NULL) {
        pthread_cond_wait(&queues->progress, &queues->lock);
    }
}

/* ---- streams ---- */

static enum oom_status add_stream(struct oom_queues *queues, struct oom_stream **out) {
    struct oom_stream *stream = oom_host_calloc(1, sizeof *stream);
    if (stream == NULL) return oom_fail(OOM_HOST_NOMEM, "no host memory for a stream");
    stream->queues = queues;
    stream->tail = &stream->head;
    if (queues->schedule == OOM_SCHEDULE_THREADS) {
        enum oom_status status = oom_worker_start(stream);
        if (status != OOM_OK) {
            oom_host_free(stream);
            return status;
        }
    }
    stream->next = queues->streams;
    queues->streams = stream;
    *out = stream;
    return OOM_OK;
}

enum oom_status oom_stream_make(struct oom_queues *queues, struct oom_stream **out) {
    struct oom_stream *stream = queues->unused_streams;
    if (stream != NULL) {
        queues->unused_streams = stream->next_unused;
    } else {
        OOM_TRY(add_stream(queues, &stream));
    }
    stream->live = true;
    *out = stream;
    return OOM_OK;
}

enum oom_status oom_stream_finish(struct oom_queues *queues, struct oom_stream *stream) {
    OOM_TRY(oom_stream_check(queues, stream));
    stream = named(queues, stream);
    return finish(queues, stream, stream->submitted);
}

enum oom_status oom_stream_drop(struct oom_queues *queues, struct oom_stream *stream) {
    if (stream == NULL || stream == queues->first) {
        return oom_fail(OOM_INVALID, "the default stream cannot be destroyed");
    }
    OOM_TRY(oom_stream_check(queues, stream));
    enum oom_status status = finish(queues, stream, stream->submitted);
    stream->live = false;
    stream->next_unused = queues->unused_streams;
    queues->unused_streams = stream;
    return status;
}

enum oom_status oom_stream_await(struct oom_queues *queues, struct oom_stream *stream,
                                 struct oom_event *event) {
    OOM_TRY(oom_stream_check(queues, stream));
    OOM_TRY(check_event(queues, event));
    if (event->stream == NULL || event->stream->finished >= event->position) return OOM_OK;
    struct oom_command wait = {
        .kind = OOM_COMMAND_WAIT, .awaited = event->stream, .position = event->position};
    return enqueue(queues, named(queues, stream), &wait);
}

/* ---- events ---- */

enum oom_status oom_event_make(struct oom_queues *queues, struct oom_event **out) {
    struct oom_event *event = queues->unused_events;
    if (event != NULL) {
        queues->unused_events = event->next_unused;
    } else {
        event = oom_host_calloc(1, sizeof *event);
        if (event == NULL) return oom_fail(OOM_HOST_NOMEM, "no host memory for an event");
        event->queues = queues;
        event->next = queues->events;
        queues->events = event;
    }
    event->live = true;
    event->stream = NULL;
    *out = event;
    return OOM_OK;
}

/* Waits that were queued know stream and position, not the event: it may go at any time. */
enum oom_status oom_event_drop(struct oom_queues *queues, struct oom_event *event) {
    OOM_TRY(check_event(queues, event));
    event->live = false;
    event->next_unused = queues->unused_events;
    queues->unused_events = event;
    return OOM_OK;
}

enum oom_status oom_event_mark(struct oom_queues *queues, struct oom_event *event,
                               struct oom_stream *stream) {
    OOM_TRY(check_event(queues, event));
    OOM_TRY(oom_stream_check(queues, stream));
    event->stream = named(queues, stream);
    event->position = event->stream->submitted;
    return OOM_OK;
}

static bool is_ready(const struct oom_event *event) {
    return event->stream == NULL || event->stream->finished >= event->position;
}

enum oom_status oom_event_ask(struct oom_queues *queues, struct oom_event *event) {
    OOM_TRY(check_event(queues, event));
    if (!is_ready(event)) oom_deferred_asked(queues, event->stream, event->position);
    return is_ready(event) ? OOM_OK : OOM_NOT_READY;
}

enum oom_status oom_event_finish(struct oom_queues *queues, struct oom_event *event) {
    OOM_TRY(check_event(queues, event));
    return event->stream != NULL ? finish(queues, event->stream, event->position) : OOM_OK;
}

/* ---- the whole ---- */

enum oom_status oom_queues_init(struct oom_queues *queues, enum oom_schedule schedule,
                                uint64_t seed, const struct oom_work *work) {
    *queues = (struct oom_queues){.schedule = schedule, .work = *work, .random = seed};
    queues->lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    queues->progress = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    return oom_stream_make(queues, &queues->first);
}

void oom_queues_free(struct oom_queues *queues) {
    if (queues->schedule == OOM_SCHEDULE_THREADS) oom_workers_stop(queues);
    while (queues->streams != NULL) {
        struct oom_stream *stream = queues->streams;
        while (stream->head != NULL) oom_queue_pop(stream);
        queues->streams = stream->next;
        oom_host_free(stream);
    }
    while (queues->events != NULL) {
        struct oom_event *event = queues->events;
        queues->events = event->next;
        oom_host_free(event);
    }
    pthread_cond_destroy(&queues->progress);
    pthread_mutex_destroy(&queues->lock);
}
