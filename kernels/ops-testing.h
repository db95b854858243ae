/*
 * ops-testing.h: for tests of the ops' descriptions: operands and costs as worked out by hand, and
 * refusals that name op, field and value. Nothing looks at addresses: any number stands for one.
 */
#ifndef OOM_KERNELS_OPS_TESTING_H
#define OOM_KERNELS_OPS_TESTING_H

#include "kernels/ops.h"
#include "kernels/testing.h"

#include <stdio.h>
#include <string.h>

/* "x:r24 out:rw12": name, direction, bytes of each operand */
static const char *operands_text(enum oom_op op, const void *args) {
    static char text[512];
    static const char *const directions[] = {"", "r", "w", "rw"};
    struct oom_operand out[OOM_OPERANDS_MAX];
    int n = oom_op_operands(op, args, out), at = 0;
    text[0] = 0;
    for (int i = 0; i < n && at < (int)sizeof text; i++) {
        CHECK(out[i].ptr != 0);
        at += snprintf(text + at, sizeof text - (size_t)at, "%s%s:%s%llu", i ? " " : "",
                       out[i].name, directions[out[i].direction], (unsigned long long)out[i].bytes);
    }
    return text;
}

static void expect(enum oom_op op, const void *args, const char *operands, double flops,
                   double bytes_read, double bytes_written) {
    struct oom_op_cost cost = oom_op_cost(op, args);
    const char *name = oom_op_name(op);
    CHECK_OK(oom_op_check(op, args));
    CHECK_STR(operands_text(op, args), operands);
    CHECK_MSG(cost.flops == flops, "%s: %g flops, by hand %g", name, cost.flops, flops);
    CHECK_MSG(cost.bytes_read == bytes_read, "%s: reads %g, by hand %g", name, cost.bytes_read,
              bytes_read);
    CHECK_MSG(cost.bytes_written == bytes_written, "%s: writes %g, by hand %g", name,
              cost.bytes_written, bytes_written);
}

/* The check fails and says "op: field ..." with the value in it. */
static void refuse(enum oom_op op, const void *args, const char *field, const char *value) {
    char start[80];
    snprintf(start, sizeof start, "%s: %s ", oom_op_name(op), field);
    oom_failure_clear();
    CHECK_EQ(oom_op_check(op, args), OOM_INVALID);
    const char *message = oom_failure_last()->message;
    CHECK_MSG(strncmp(message, start, strlen(start)) == 0 && strstr(message, value) != NULL,
              "\"%s\" should begin with \"%s\" and contain %s", message, start, value);
    oom_failure_clear();
}

#define BAD(OP, good, field, wrong, text) \
    do { \
        __typeof__(good) bad = good; \
        bad.field = wrong; \
        refuse(OOM_OP_##OP, &bad, #field, text); \
    } while (0)
#define BAD_DTYPE(OP, good) \
    BAD(OP, good, dtype, OOM_I32, "allowed are f32"); \
    BAD(OP, good, dtype, (enum oom_dtype)99, "99")
#define BAD_HALF(OP, good) \
    BAD(OP, good, dtype, OOM_F16, "f16"); \
    BAD(OP, good, dtype, OOM_BF16, "allowed are f32 and f64")
#define BAD_DIM(OP, good, field) \
    BAD(OP, good, field, 0, "0"); \
    BAD(OP, good, field, -3, "-3")
#define BAD_POINTER(OP, good, field) BAD(OP, good, field, 0, "0")
/* A size that fits, but not in bytes: the first operand cannot be that large. */
#define BAD_N(OP, good, operand) \
    do { \
        __typeof__(good) huge = good; \
        huge.n = INT64_MAX / 2; \
        refuse(OOM_OP_##OP, &huge, operand, "n 4611686018427387903"); \
        BAD_DTYPE(OP, good); \
        BAD_DIM(OP, good, n); \
    } while (0)

#endif
