/*
 * command.h: one piece of work of a stream, and which memory it reads and writes. A command
 * borrows the data of an upload and its spans; the queue that keeps a copy owns both there.
 * Nothing here fails.
 */
#ifndef OOM_KERNELS_SIMULATED_COMMAND_H
#define OOM_KERNELS_SIMULATED_COMMAND_H

#include "kernels/device.h"

enum oom_command_kind {
    OOM_COMMAND_OP,
    OOM_COMMAND_COPY,
    OOM_COMMAND_FILL,
    OOM_COMMAND_UPLOAD,
    OOM_COMMAND_WAIT, /* the queues' own */
};

/* Bytes [start, start + bytes) that a command touches; bytes > 0. */
struct oom_span {
    oom_devptr start;
    uint64_t bytes;
    bool writes;
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
    const struct oom_span *spans; /* the queue's: what it touches */
    int span_count;
    union oom_op_args args; /* OP */
};

/* What the command touches, by kind and operands; returns how many. `spans` is not looked at. */
int oom_command_spans(const struct oom_command *command, struct oom_span out[OOM_OPERANDS_MAX]);

/* Of commands that have their spans: do they touch [ptr, ptr + bytes); does the order of the two
 * matter, that is, does one write what the other touches? */
bool oom_command_uses(const struct oom_command *command, oom_devptr ptr, uint64_t bytes);
bool oom_commands_conflict(const struct oom_command *a, const struct oom_command *b);

#endif
