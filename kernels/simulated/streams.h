/*
 * streams.h: streams and events of a simulated device: in-order queues of commands, run at once or
 * as late as possible. A stream counts the commands that were submitted and those that finished;
 * an event is a position in a stream, and waiting for one is a command.
 *
 * The structure owns streams, events and queued commands with the data that an upload carries. A
 * queued command that fails counts as finished; the call that ran it reports the first such
 * status. A wait can only name a position that exists already, so streams never wait in a circle.
 */
#ifndef OOM_KERNELS_SIMULATED_STREAMS_H
#define OOM_KERNELS_SIMULATED_STREAMS_H

#include "kernels/device.h"

enum oom_command_kind {
    OOM_COMMAND_OP,
    OOM_COMMAND_COPY,
    OOM_COMMAND_FILL,
    OOM_COMMAND_UPLOAD,
    OOM_COMMAND_WAIT, /* the queues' own */
};

struct oom_command {
    struct oom_command *next; /* the queue's */
    enum oom_command_kind kind;
    enum oom_op op; /* OP */
    uint8_t value;  /* FILL */
    oom_devptr dst, src;
    uint64_t bytes;
    const void *data;           /* UPLOAD: `bytes` bytes on the host */
    struct oom_stream *awaited; /* WAIT: until this stream has finished so many */
    uint64_t position;
    union oom_op_args args; /* OP */
};

/* Does the work; the queues call it in a legal order, on the thread that made them run. */
typedef enum oom_status oom_command_run(void *context, const struct oom_command *command);

struct oom_queues {
    enum oom_schedule schedule;
    oom_command_run *run;
    void *context;
    struct oom_stream *streams, *unused_streams; /* all; those that were destroyed */
    struct oom_event *events, *unused_events;
    struct oom_stream *first; /* the default stream */
};

enum oom_status oom_queues_init(struct oom_queues *queues, enum oom_schedule schedule,
                                oom_command_run *run, void *context);
void oom_queues_free(struct oom_queues *queues); /* what is queued is dropped */

/* Queues a copy of the command, its data included, or runs it at once. */
enum oom_status oom_queues_submit(struct oom_queues *queues, struct oom_stream *stream,
                                  const struct oom_command *command);
enum oom_status oom_queues_sync(struct oom_queues *queues);
/* Does queued work read or write part of [ptr, ptr + bytes)? */
bool oom_queues_use(const struct oom_queues *queues, oom_devptr ptr, uint64_t bytes);

enum oom_status oom_stream_make(struct oom_queues *queues, struct oom_stream **out);
enum oom_status oom_stream_drop(struct oom_queues *queues, struct oom_stream *stream);
enum oom_status oom_stream_finish(struct oom_queues *queues, struct oom_stream *stream);
enum oom_status oom_stream_await(struct oom_queues *queues, struct oom_stream *stream,
                                 struct oom_event *event);

enum oom_status oom_event_make(struct oom_queues *queues, struct oom_event **out);
enum oom_status oom_event_drop(struct oom_queues *queues, struct oom_event *event);
enum oom_status oom_event_mark(struct oom_queues *queues, struct oom_event *event,
                               struct oom_stream *stream);
enum oom_status oom_event_ask(struct oom_queues *queues, struct oom_event *event);
enum oom_status oom_event_finish(struct oom_queues *queues, struct oom_event *event);

/* OOM_OK when the stream is one of these queues' (NULL: the default) and not destroyed. */
enum oom_status oom_stream_check(const struct oom_queues *queues, const struct oom_stream *stream);

#endif
