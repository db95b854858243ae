/*
 * Spans are made once, when a command is queued: each is compared many times.
 */
#include "kernels/simulated/command.h"

static int add(struct oom_span *out, int count, oom_devptr start, uint64_t bytes, bool writes) {
    if (bytes == 0) return count;
    out[count] = (struct oom_span){.start = start, .bytes = bytes, .writes = writes};
    return count + 1;
}

static int op_spans(const struct oom_command *command, struct oom_span *out) {
    struct oom_operand operands[OOM_OPERANDS_MAX];
    int all = oom_op_operands(command->op, &command->args, operands), count = 0;
    for (int i = 0; i < all; i++) {
        bool writes = (operands[i].direction & OOM_WRITE) != 0;
        count = add(out, count, operands[i].ptr, operands[i].bytes, writes);
    }
    return count;
}

int oom_command_spans(const struct oom_command *command, struct oom_span out[OOM_OPERANDS_MAX]) {
    switch (command->kind) {
    case OOM_COMMAND_OP:
        return op_spans(command, out);
    case OOM_COMMAND_COPY:
        return add(out, add(out, 0, command->src, command->bytes, false), command->dst,
                   command->bytes, true);
    case OOM_COMMAND_FILL:
    case OOM_COMMAND_UPLOAD:
        return add(out, 0, command->dst, command->bytes, true);
    case OOM_COMMAND_WAIT:
        break;
    }
    return 0;
}

static bool overlap(oom_devptr a, uint64_t a_bytes, oom_devptr b, uint64_t b_bytes) {
    return a <= b ? b - a < a_bytes : a - b < b_bytes;
}

bool oom_command_uses(const struct oom_command *command, oom_devptr ptr, uint64_t bytes) {
    for (int i = 0; i < command->span_count; i++) {
        const struct oom_span *span = &command->spans[i];
        if (overlap(span->start, span->bytes, ptr, bytes)) return true;
    }
    return false;
}

bool oom_commands_conflict(const struct oom_command *a, const struct oom_command *b) {
    for (int i = 0; i < a->span_count; i++) {
        const struct oom_span *x = &a->spans[i];
        for (int k = 0; k < b->span_count; k++) {
            const struct oom_span *y = &b->spans[k];
            if (!x->writes && !y->writes) continue;
            if (overlap(x->start, x->bytes, y->start, y->bytes)) return true;
        }
    }
    return false;
}
