/*
 * One loop runs everything that is queued: run_until follows waits from stream to stream.
 */
#include "kernels/simulated/streams.h"

#include "kernels/hostmem.h"

#include <string.h>

/* Destroyed streams and events stay in the list of all and are used again: a position kept
 * somewhere stays true, and a use after destruction is found. */
struct oom_stream {
    const struct oom_queues *owner; /* NULL: destroyed */
    struct oom_stream *next, *next_unused;
    struct oom_command *head, **tail;
    uint64_t submitted, finished; /* commands, since ever */
    uint64_t target;              /* while running: finish so many ... */
    struct oom_stream *waiter;    /* ... and go on with this one */
};

struct oom_event {
    const struct oom_queues *owner; /* NULL: destroyed */
    struct oom_event *next, *next_unused;
    struct oom_stream *stream; /* NULL: never recorded */
    uint64_t position;
};

enum oom_status oom_stream_check(const struct oom_queues *queues, const struct oom_stream *stream) {
    if (stream == NULL || stream->owner == queues) return OOM_OK;
    return oom_fail(OOM_INVALID, "stream %p is not a live stream of this device",
                    (const void *)stream);
}

static enum oom_status check_event(const struct oom_queues *queues, const struct oom_event *event) {
    if (event != NULL && event->owner == queues) return OOM_OK;
    return oom_fail(OOM_INVALID, "event %p is not a live event of this device",
                    (const void *)event);
}

static struct oom_stream *named(const struct oom_queues *queues, struct oom_stream *stream) {
    return stream != NULL ? stream : queues->first;
}

/* ---- running ---- */

static void pop(struct oom_stream *stream) {
    struct oom_command *command = stream->head;
    stream->head = command->next;
    if (stream->head == NULL) stream->tail = &stream->head;
    oom_host_free(command);
}

/* Runs what `stream` needs to finish `target` commands, and nothing else. `waiter` makes the chain
 * of streams that wait for one another; a wait is always for something submitted earlier, so no
 * stream comes into the chain twice. */
static enum oom_status run_until(const struct oom_queues *queues, struct oom_stream *stream,
                                 uint64_t target) {
    enum oom_status first = OOM_OK;
    stream->target = target;
    stream->waiter = NULL;
    while (stream != NULL) {
        if (stream->finished >= stream->target) {
            stream = stream->waiter;
            continue;
        }
        struct oom_command *command = stream->head;
        if (command->kind == OOM_COMMAND_WAIT && command->awaited->finished < command->position) {
            command->awaited->target = command->position;
            command->awaited->waiter = stream;
            stream = command->awaited;
            continue;
        }
        if (command->kind != OOM_COMMAND_WAIT) {
            enum oom_status status = queues->run(queues->context, command);
            if (first == OOM_OK) first = status;
        }
        pop(stream);
        stream->finished++;
    }
    return first;
}

static enum oom_status enqueue(struct oom_stream *stream, const struct oom_command *command) {
    uint64_t data_bytes = command->kind == OOM_COMMAND_UPLOAD ? command->bytes : 0;
    struct oom_command *copy =
        data_bytes < SIZE_MAX / 2 ? oom_host_alloc(sizeof *copy + data_bytes) : NULL;
    if (copy == NULL) {
        return oom_fail(OOM_HOST_NOMEM, "no host memory for a queued command and %llu bytes of it",
                        (unsigned long long)data_bytes);
    }
    *copy = *command;
    copy->next = NULL;
    if (data_bytes > 0) copy->data = memcpy(copy + 1, command->data, data_bytes);
    *stream->tail = copy;
    stream->tail = &copy->next;
    stream->submitted++;
    return OOM_OK;
}

enum oom_status oom_queues_submit(struct oom_queues *queues, struct oom_stream *stream,
                                  const struct oom_command *command) {
    OOM_TRY(oom_stream_check(queues, stream));
    if (queues->schedule == OOM_SCHEDULE_EAGER) return queues->run(queues->context, command);
    return enqueue(named(queues, stream), command);
}

enum oom_status oom_queues_sync(struct oom_queues *queues) {
    enum oom_status first = OOM_OK;
    for (struct oom_stream *stream = queues->streams; stream != NULL; stream = stream->next) {
        enum oom_status status = run_until(queues, stream, stream->submitted);
        if (first == OOM_OK) first = status;
    }
    return first;
}

/* ---- what is in use ---- */

static bool overlap(oom_devptr a, uint64_t a_bytes, oom_devptr b, uint64_t b_bytes) {
    return a <= b ? b - a < a_bytes : a - b < b_bytes;
}

static bool command_uses(const struct oom_command *command, oom_devptr ptr, uint64_t bytes) {
    switch (command->kind) {
    case OOM_COMMAND_WAIT:
        return false;
    case OOM_COMMAND_COPY:
        return overlap(command->dst, command->bytes, ptr, bytes) ||
               overlap(command->src, command->bytes, ptr, bytes);
    case OOM_COMMAND_FILL:
    case OOM_COMMAND_UPLOAD:
        return overlap(command->dst, command->bytes, ptr, bytes);
    case OOM_COMMAND_OP:
        break;
    }
    struct oom_operand operands[OOM_OPERANDS_MAX];
    int count = oom_op_operands(command->op, &command->args, operands);
    for (int i = 0; i < count; i++) {
        if (overlap(operands[i].ptr, operands[i].bytes, ptr, bytes)) return true;
    }
    return false;
}

bool oom_queues_use(const struct oom_queues *queues, oom_devptr ptr, uint64_t bytes) {
    for (const struct oom_stream *stream = queues->streams; stream; stream = stream->next) {
        for (const struct oom_command *command = stream->head; command; command = command->next) {
            if (command_uses(command, ptr, bytes)) return true;
        }
    }
    return false;
}

/* ---- streams ---- */

enum oom_status oom_stream_make(struct oom_queues *queues, struct oom_stream **out) {
    struct oom_stream *stream = queues->unused_streams;
    if (stream != NULL) {
        queues->unused_streams = stream->next_unused;
    } else {
        stream = oom_host_calloc(1, sizeof *stream);
        if (stream == NULL) return oom_fail(OOM_HOST_NOMEM, "no host memory for a stream");
        stream->tail = &stream->head;
        stream->next = queues->streams;
        queues->streams = stream;
    }
    stream->owner = queues;
    *out = stream;
    return OOM_OK;
}

enum oom_status oom_stream_finish(struct oom_queues *queues, struct oom_stream *stream) {
    OOM_TRY(oom_stream_check(queues, stream));
    stream = named(queues, stream);
    return run_until(queues, stream, stream->submitted);
}

enum oom_status oom_stream_drop(struct oom_queues *queues, struct oom_stream *stream) {
    if (stream == NULL || stream == queues->first) {
        return oom_fail(OOM_INVALID, "the default stream cannot be destroyed");
    }
    OOM_TRY(oom_stream_check(queues, stream));
    enum oom_status status = run_until(queues, stream, stream->submitted);
    stream->owner = NULL;
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
    return enqueue(named(queues, stream), &wait);
}

/* ---- events ---- */

enum oom_status oom_event_make(struct oom_queues *queues, struct oom_event **out) {
    struct oom_event *event = queues->unused_events;
    if (event != NULL) {
        queues->unused_events = event->next_unused;
    } else {
        event = oom_host_calloc(1, sizeof *event);
        if (event == NULL) return oom_fail(OOM_HOST_NOMEM, "no host memory for an event");
        event->next = queues->events;
        queues->events = event;
    }
    event->owner = queues;
    event->stream = NULL;
    *out = event;
    return OOM_OK;
}

/* Waits that were queued know stream and position, not the event: it may go at any time. */
enum oom_status oom_event_drop(struct oom_queues *queues, struct oom_event *event) {
    OOM_TRY(check_event(queues, event));
    event->owner = NULL;
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

enum oom_status oom_event_ask(struct oom_queues *queues, struct oom_event *event) {
    OOM_TRY(check_event(queues, event));
    bool ready = event->stream == NULL || event->stream->finished >= event->position;
    return ready ? OOM_OK : OOM_NOT_READY;
}

enum oom_status oom_event_finish(struct oom_queues *queues, struct oom_event *event) {
    OOM_TRY(check_event(queues, event));
    return event->stream != NULL ? run_until(queues, event->stream, event->position) : OOM_OK;
}

/* ---- the whole ---- */

enum oom_status oom_queues_init(struct oom_queues *queues, enum oom_schedule schedule,
                                oom_command_run *run, void *context) {
    *queues = (struct oom_queues){.schedule = schedule, .run = run, .context = context};
    return oom_stream_make(queues, &queues->first);
}

void oom_queues_free(struct oom_queues *queues) {
    while (queues->streams != NULL) {
        struct oom_stream *stream = queues->streams;
        while (stream->head != NULL) pop(stream);
        queues->streams = stream->next;
        oom_host_free(stream);
    }
    while (queues->events != NULL) {
        struct oom_event *event = queues->events;
        queues->events = event->next;
        oom_host_free(event);
    }
}
