/*
 * streams.h: streams and events of a simulated device: in-order queues of commands, run at once,
 * as late as possible, in a seeded order or by threads (device.h says what each means). A stream
 * counts the commands that were submitted and those that finished; an event is a position in a
 * stream, and waiting for one is a command.
 *
 * The structure owns streams, events, threads and queued commands with the data that an upload
 * carries. A queued command that fails counts as finished; the first such failure is kept, and the
 * next call that waits reports it, once. A wait can only name a position that exists already, so
 * streams never wait in a circle.
 *
 * It is a monitor: one lock guards the queues and whatever else its user reads in `check`. All
 * functions but init and free are called between enter and leave; the lock is let go while work
 * runs and while a call waits.
 */
#ifndef OOM_KERNELS_SIMULATED_STREAMS_H
#define OOM_KERNELS_SIMULATED_STREAMS_H

#include "kernels/simulated/command.h"

#include <pthread.h>

/* What is done with a command: `check` under the lock, then, when that is OOM_OK, `run` without
 * it. Under `threads` any number of streams call run at once, otherwise the thread that made the
 * work run does. */
struct oom_work {
    enum oom_status (*check)(void *context, const struct oom_command *command);
    void (*run)(void *context, const struct oom_command *command);
    void *context;
};

struct oom_queues {
    enum oom_schedule schedule;
    struct oom_work work;
    uint64_t random;                             /* SEEDED: state of the generator */
    struct oom_stream *streams, *unused_streams; /* all; those that were destroyed */
    struct oom_event *events, *unused_events;
    struct oom_stream *first;   /* the default stream */
    struct oom_failure failure; /* of queued commands, the first; OOM_OK: none */
    pthread_mutex_t lock;
    pthread_cond_t progress; /* THREADS: a command has finished */
    bool stopping;           /* THREADS: workers must end */
};

/* After a failed init, free is to be called as after any other. */
enum oom_status oom_queues_init(struct oom_queues *queues, enum oom_schedule schedule,
                                uint64_t seed, const struct oom_work *work);
void oom_queues_free(struct oom_queues *queues); /* what is queued is dropped */

void oom_queues_enter(struct oom_queues *queues);
void oom_queues_leave(struct oom_queues *queues);

/* Queues a copy of the command, its data included, or runs it at once. */
enum oom_status oom_queues_submit(struct oom_queues *queues, struct oom_stream *stream,
                                  const struct oom_command *command);
enum oom_status oom_queues_sync(struct oom_queues *queues);
/* Does work that is queued or being done read or write part of [ptr, ptr + bytes)? */
bool oom_queues_use(const struct oom_queues *queues, oom_devptr ptr, uint64_t bytes);
/* Waits until no work that is being done does; what is queued stays so as long as the lock is
 * held. */
void oom_queues_settle(struct oom_queues *queues, oom_devptr ptr, uint64_t bytes);

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
