/*
 * ops.c: one description per op, from which the checks, the operands, the workspace and the cost
 * are all derived, so that they cannot contradict each other.
 *
 * A description names the op's dtype, dimensions, scalars and operands in the order of its struct
 * and gives its flops by the formula in ops.h. Counting rules: each addition, subtraction,
 * multiplication, division, square root, comparison and transcendental function is one, an fma is
 * two; integer work (Philox, indices) is none. A span runs to the last byte an op may touch; the
 * cost counts only bytes that it does touch (half of a causal square, the v part of qkv, at most
 * min(N, V) rows of a gathered table).
 */
#include "kernels/ops.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { DIMS_MAX = 9 };

enum presence { OPTIONAL, REQUIRED };

/* What a description fills in. */
struct sheet {
    enum oom_op op;
    bool report; /* record the failures found; only oom_op_check wants that */
    enum oom_status status;
    uint64_t element; /* bytes of the op's dtype */
    uint64_t wide;    /* bytes of its wide type (oom_dtype_wide) */
    int dims, operands;
    struct {
        const char *name;
        int64_t value;
    } dim[DIMS_MAX];
    struct oom_operand operand[OOM_OPERANDS_MAX];
    uint64_t workspace;
    struct oom_op_cost cost;
};

__attribute__((format(printf, 2, 3))) static void reject(struct sheet *s, const char *format, ...) {
    s->status = OOM_INVALID;
    if (!s->report) return;
    char text[256];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    oom_fail(OOM_INVALID, "%s: %s", oom_op_name(s->op), text);
}

/* Saturates at UINT64_MAX, which operand() refuses: no product of dimensions can wrap around. */
static uint64_t times(uint64_t a, uint64_t b) {
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

static uint64_t plus(uint64_t a, uint64_t b) {
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

/* Number of elements of an array; a dimension below 1 has been refused already. */
static uint64_t area(int64_t a, int64_t b) {
    return times((uint64_t)a, (uint64_t)b);
}

static uint64_t volume(int64_t a, int64_t b, int64_t c) {
    return times(area(a, b), (uint64_t)c);
}

/* What an op may be of; `element` and `wide` are those of the dtype described last. */
static void float_dtype(struct sheet *s, const char *field, enum oom_dtype dtype, bool halves) {
    s->element = s->wide = 8;
    if (dtype == OOM_F32 || dtype == OOM_F64 || (halves && oom_dtype_is_half(dtype))) {
        s->element = oom_dtype_bytes(dtype);
        s->wide = oom_dtype_bytes(oom_dtype_wide(dtype));
        return;
    }
    reject(s, "%s is %s (%d), allowed are f32%s f64%s", field, oom_dtype_name(dtype), (int)dtype,
           halves ? "," : " and", halves ? ", f16 and bf16" : "");
}

static void dim(struct sheet *s, const char *field, int64_t value, int64_t max) {
    if (value < 1) reject(s, "%s is %lld, allowed is at least 1", field, (long long)value);
    if (value > max) {
        reject(s, "%s is %lld, allowed is at most %lld", field, (long long)value, (long long)max);
    }
    s->dim[s->dims].name = field;
    s->dim[s->dims++].value = value;
}

/* Scalars: [low, high), where `high` INFINITY asks for a finite value; NaN is in no interval. */
static void scalar(struct sheet *s, const char *field, double value, double low, double high) {
    if (value >= low && value < high) return;
    reject(s, "%s is %g, allowed is %g <= %s < %g", field, value, low, field, high);
}

static void too_large(struct sheet *s, const char *field) {
    char text[160] = "";
    for (int i = 0, n = 0; i < s->dims && n < (int)sizeof text - 1; i++) {
        n += snprintf(text + n, sizeof text - (size_t)n, "%s%s %lld", i == 0 ? "" : ", ",
                      s->dim[i].name, (long long)s->dim[i].value);
    }
    reject(s, "%s has more than 2^63 - 1 bytes (%s)", field, text);
}

/* span and touched count elements of `size` bytes. */
static void operand(struct sheet *s, const char *field, oom_devptr ptr, enum presence presence,
                    enum oom_direction direction, uint64_t size, uint64_t span, uint64_t touched) {
    if (ptr == 0) {
        if (presence == REQUIRED) reject(s, "%s is 0, allowed is a device address", field);
        return;
    }
    uint64_t bytes = times(span, size);
    if (bytes > INT64_MAX) too_large(s, field);
    double traffic = (double)touched * (double)size;
    if (direction & OOM_READ) s->cost.bytes_read += traffic;
    if (direction & OOM_WRITE) s->cost.bytes_written += traffic;
    s->operand[s->operands++] = (struct oom_operand){field, ptr, bytes, direction};
}

/* The words of a description; `s` is the sheet, `a` the arguments. */
#define DESCRIBE(name) \
    static void describe_##name(struct sheet *s, const struct oom_##name##_args *a)
#define DTYPE(field) float_dtype(s, #field, a->field, true)
#define DTYPE_NO_HALF(field) float_dtype(s, #field, a->field, false)
#define DIM(field) dim(s, #field, a->field, INT64_MAX)
#define DIM_MAX(field, max) dim(s, #field, a->field, max)
#define SCALAR(field, low, high) scalar(s, #field, a->field, low, high)
#define SIZED(field, presence, direction, size, span, touched) \
    operand(s, #field, a->field, presence, OOM_##direction, size, span, touched)
#define PART(field, direction, span, touched) \
    SIZED(field, REQUIRED, direction, s->element, span, touched)
#define READ(field, n) PART(field, READ, n, n)
#define WRITE(field, n) PART(field, WRITE, n, n)
#define UPDATE(field, n) PART(field, READ_WRITE, n, n)
#define READ_IF(field, n) SIZED(field, OPTIONAL, READ, s->element, n, n)
#define READ_WIDE(field, n) SIZED(field, REQUIRED, READ, s->wide, n, n)
#define WRITE_WIDE(field, n) SIZED(field, REQUIRED, WRITE, s->wide, n, n)
#define UPDATE_WIDE(field, n) SIZED(field, REQUIRED, READ_WRITE, s->wide, n, n)
#define READ_WIDE_IF(field, n) SIZED(field, OPTIONAL, READ, s->wide, n, n)
#define COUNTED_OF(DTYPES) \
    uint64_t n = (uint64_t)a->n; \
    DTYPES(dtype); \
    DIM(n)
#define COUNTED COUNTED_OF(DTYPE)
#define FLOPS(count) (s->cost.flops = (count))

/* ---- matrices, rows, tables ---- */

static void leading(struct sheet *s, const char *field, int64_t ld, int64_t columns) {
    if (ld >= columns) return;
    reject(s, "%s is %lld, allowed is at least the row's length %lld", field, (long long)ld,
           (long long)columns);
}

/* Elements from the first to the last one of `rows` rows that are ld apart. */
static uint64_t strided(int64_t rows, int64_t columns, int64_t ld) {
    return plus(area(rows - 1, ld), (uint64_t)columns);
}

DESCRIBE(gemm) {
    int64_t a_rows = a->transpose_a ? a->k : a->m, a_columns = a->transpose_a ? a->m : a->k;
    int64_t b_rows = a->transpose_b ? a->n : a->k, b_columns = a->transpose_b ? a->k : a->n;
    double mn = (double)a->m * (double)a->n;
    DTYPE(dtype);
    DIM(m), DIM(n), DIM(k);
    if (s->status != OOM_OK) return; /* spans of impossible sizes mean nothing */
    leading(s, "lda", a->lda, a_columns);
    leading(s, "ldb", a->ldb, b_columns);
    leading(s, "ldc", a->ldc, a->n);
    if (a->accumulate && a->bias != 0) {
        reject(s, "bias is 0x%llx, allowed is 0 with accumulate", (unsigned long long)a->bias);
    }
    if (a->accumulate && !a->wide && oom_dtype_is_half(a->dtype)) {
        reject(s, "wide is false, allowed is true with accumulate and dtype %s",
               oom_dtype_name(a->dtype));
    }
    uint64_t c_size = a->wide ? s->wide : s->element, c_span = strided(a->m, a->n, a->ldc);
    READ(a, strided(a_rows, a_columns, a->lda));
    READ(b, strided(b_rows, b_columns, a->ldb));
    if (a->accumulate)
        SIZED(c, REQUIRED, READ_WRITE, c_size, c_span, c_span);
    else
        SIZED(c, REQUIRED, WRITE, c_size, c_span, c_span);
    READ_WIDE_IF(bias, (uint64_t)a->n);
    double k = (double)a->k, bias = a->bias != 0 ? 1 : 0;
    s->cost.bytes_read = (double)s->element * ((double)a->m * k + k * (double)a->n) +
                         (a->accumulate ? (double)c_size * mn : 0) +
                         (double)s->wide * bias * (double)a->n; /* gaps between rows cost nothing */
    s->cost.bytes_written = (double)c_size * mn;
    FLOPS(2 * mn * k + bias * mn);
}

DESCRIBE(sum_rows) {
    DTYPE(dtype);
    DIM(rows), DIM(columns);
    uint64_t n = area(a->rows, a->columns);
    READ(x, n);
    UPDATE_WIDE(out, (uint64_t)a->columns);
    FLOPS((double)n);
}

/* Rows of a table that N tokens can name. */
static uint64_t gathered(int64_t rows, int64_t vocab, int64_t channels) {
    return area(rows < vocab ? rows : vocab, channels);
}

DESCRIBE(embedding_forward) {
    DTYPE(dtype);
    DIM(rows), DIM(channels), DIM_MAX(vocab, INT32_MAX);
    SIZED(tokens, REQUIRED, READ, 4, (uint64_t)a->rows, (uint64_t)a->rows);
    PART(table, READ, area(a->vocab, a->channels), gathered(a->rows, a->vocab, a->channels));
    WRITE(out, area(a->rows, a->channels));
}

DESCRIBE(embedding_backward) {
    DTYPE(dtype);
    DIM(rows), DIM(channels), DIM_MAX(vocab, INT32_MAX);
    uint64_t n = area(a->rows, a->channels);
    SIZED(tokens, REQUIRED, READ, 4, (uint64_t)a->rows, (uint64_t)a->rows);
    READ(dout, n);
    SIZED(dtable, REQUIRED, READ_WRITE, s->wide, area(a->vocab, a->channels),
          gathered(a->rows, a->vocab, a->channels));
    FLOPS((double)n);
}

DESCRIBE(position_forward) {
    DTYPE(dtype);
    DIM(batch), DIM(positions), DIM(channels);
    uint64_t n = volume(a->batch, a->positions, a->channels);
    READ(table, area(a->positions, a->channels));
    UPDATE(x, n);
    FLOPS((double)n);
}

DESCRIBE(position_backward) {
    DTYPE(dtype);
    DIM(batch), DIM(positions), DIM(channels);
    uint64_t n = volume(a->batch, a->positions, a->channels);
    READ(dout, n);
    UPDATE_WIDE(dtable, area(a->positions, a->channels));
    FLOPS((double)n);
}

/* ---- norm and elementwise ---- */

DESCRIBE(layernorm_forward) {
    uint64_t rows = (uint64_t)a->rows, channels = (uint64_t)a->channels;
    DTYPE(dtype);
    DIM(rows), DIM(channels);
    SCALAR(eps, 0, INFINITY);
    uint64_t n = area(a->rows, a->channels);
    READ(x, n);
    READ_WIDE(gamma, channels);
    READ_WIDE(beta, channels);
    WRITE(out, n);
    WRITE_WIDE(mean, rows);
    WRITE_WIDE(rstd, rows);
    FLOPS(8 * (double)n + 5 * (double)rows); /* mean 1, var 3, out 4; a row: / / + sqrt / */
}

DESCRIBE(layernorm_backward) {
    uint64_t rows = (uint64_t)a->rows, channels = (uint64_t)a->channels;
    DTYPE(dtype);
    DIM(rows), DIM(channels);
    uint64_t n = area(a->rows, a->channels);
    READ(dout, n);
    READ(x, n);
    READ_WIDE(gamma, channels);
    READ_WIDE(mean, rows);
    READ_WIDE(rstd, rows);
    READ_IF(residual, n);
    WRITE(dx, n);
    UPDATE_WIDE(dgamma, channels);
    UPDATE_WIDE(dbeta, channels);
    /* xhat 2, g 1, two sums 3, dx 4 and the residual, dgamma 2, dbeta 1; a row: two divisions */
    FLOPS((a->residual != 0 ? 14 : 13) * (double)n + 2 * (double)rows);
}

DESCRIBE(gelu_forward) {
    COUNTED;
    READ(x, n);
    WRITE(y, n);
    FLOPS(9 * (double)n);
}

DESCRIBE(gelu_backward) {
    COUNTED;
    READ(x, n);
    READ(dy, n);
    WRITE(dx, n);
    FLOPS(18 * (double)n); /* tanh and its argument 6, the derivative 11, times dy */
}

DESCRIBE(relu_forward) {
    COUNTED;
    READ(x, n);
    SIZED(branch, OPTIONAL, READ, 1, n, n);
    WRITE(y, n);
    FLOPS((double)n);
}

DESCRIBE(relu_backward) {
    COUNTED;
    SIZED(branch, OPTIONAL, READ, 1, n, n);
    if (a->branch == 0) READ(y, n);
    READ(dy, n);
    WRITE(dx, n);
    FLOPS((double)n);
}

#include "kernels/describe-attention.h"
#include "kernels/describe-images.h"

/* ---- loss, dropout, optimizers, plain array ops ---- */

DESCRIBE(cross_entropy) {
    uint64_t rows = (uint64_t)a->rows;
    DTYPE(dtype);
    DIM(rows), DIM_MAX(classes, INT32_MAX);
    SCALAR(scale, -DBL_MAX, INFINITY);
    uint64_t n = area(a->rows, a->classes);
    READ(logits, n);
    SIZED(targets, REQUIRED, READ, 4, rows, rows);
    READ_WIDE(weights, rows);
    WRITE_WIDE(losses, rows);
    SIZED(dlogits, OPTIONAL, WRITE, s->element, n, n);
    /* max, -, exp, +; a row: log, +, -, *.  The gradient: /, *; a row: weight * scale, - 1 */
    double per = a->dlogits != 0 ? 6 : 4;
    FLOPS(per * ((double)n + (double)rows));
}

DESCRIBE(loss_sum) {
    DTYPE_NO_HALF(dtype);
    DIM(batch), DIM(positions);
    uint64_t n = area(a->batch, a->positions);
    READ(losses, n);
    UPDATE(out, 1);
    FLOPS((double)n);
}

DESCRIBE(dropout) {
    uint64_t batch = (uint64_t)a->batch;
    DTYPE(dtype);
    DIM(batch), DIM_MAX(elements, ((int64_t)1 << 34) - 1);
    SCALAR(p, 0, 1);
    uint64_t n = area(a->batch, a->elements);
    SIZED(samples, REQUIRED, READ, 8, batch, batch);
    READ(x, n);
    WRITE(y, n);
    FLOPS((double)n);
}

DESCRIBE(sgd) {
    COUNTED_OF(DTYPE_NO_HALF);
    SCALAR(lr, 0, INFINITY);
    SCALAR(momentum, 0, INFINITY);
    UPDATE(w, n);
    UPDATE(v, n);
    READ(g, n);
    FLOPS(4 * (double)n);
}

DESCRIBE(adamw) {
    COUNTED_OF(DTYPE_NO_HALF);
    DIM(t);
    SCALAR(lr, 0, INFINITY);
    SCALAR(beta1, 0, 1);
    SCALAR(beta2, 0, 1);
    SCALAR(eps, 0, INFINITY);
    SCALAR(decay, 0, INFINITY);
    UPDATE(w, n);
    UPDATE(m, n);
    UPDATE(v, n);
    READ(g, n);
    FLOPS(14 * (double)n); /* decay 1, m 3, v 4, step 6 */
}

DESCRIBE(fill) {
    COUNTED;
    WRITE(x, n);
}

DESCRIBE(copy) {
    uint64_t n = (uint64_t)a->n;
    DTYPE(from);
    DIM(n);
    READ(x, n);
    DTYPE(to);
    WRITE(y, n);
}

DESCRIBE(scale) {
    COUNTED;
    UPDATE(x, n);
    FLOPS((double)a->n);
}

DESCRIBE(axpy) {
    COUNTED;
    READ(x, n);
    UPDATE_WIDE(y, n);
    FLOPS(2 * (double)n);
}

/* b is of dtype, or one of the two is a half and the other f32. */
static void beside(struct sheet *s, enum oom_dtype dtype, enum oom_dtype b) {
    if (s->status != OOM_OK || b == dtype) return;
    if (b == OOM_F32 && oom_dtype_is_half(dtype)) return;
    if (dtype == OOM_F32 && oom_dtype_is_half(b)) return;
    reject(s, "b_dtype is %s (%d), allowed beside %s %s", oom_dtype_name(b), (int)b,
           oom_dtype_name(dtype),
           dtype == OOM_F64   ? "is f64"
           : dtype == OOM_F32 ? "are f32, f16 and bf16"
                              : "are the same and f32");
}

DESCRIBE(add) {
    COUNTED;
    beside(s, a->dtype, a->b_dtype);
    READ(a, n);
    SIZED(b, REQUIRED, READ, s->status == OOM_OK ? oom_dtype_bytes(a->b_dtype) : 8, n, n);
    WRITE(out, n);
    FLOPS((double)n);
}

DESCRIBE(finite_check) {
    COUNTED;
    READ(x, n);
    SIZED(found, REQUIRED, READ_WRITE, 4, 1, 1); /* kept where all is finite, so it is read too */
    FLOPS((double)a->n);
}

/* ---- the public face ---- */

static bool known(enum oom_op op) {
    return (unsigned)op < OOM_OP_COUNT;
}

/* Of the lists only what is counted is set: this runs, more than once, for every op that does. */
static void describe(struct sheet *s, enum oom_op op, const void *args, bool report) {
    s->op = op;
    s->report = report;
    s->status = OOM_OK;
    s->element = s->wide = s->workspace = 0;
    s->dims = s->operands = 0;
    s->cost = (struct oom_op_cost){0};
    /* clang-format off */
    switch (op) {
#define X(id, name) \
    case OOM_OP_##id: \
        describe_##name(s, args); \
        break;
        OOM_OP_MAP(X)
#undef X
    case OOM_OP_COUNT:
        break;
    }
}

const char *oom_op_name(enum oom_op op) {
    static const char *const names[] = {
#define X(id, name) #name,
        OOM_OP_MAP(X)
#undef X
    };
    return known(op) ? names[op] : "unknown";
}

size_t oom_op_args_bytes(enum oom_op op) {
    static const size_t sizes[] = {
#define X(id, name) sizeof(struct oom_##name##_args),
        OOM_OP_MAP(X)
#undef X
    };
    return known(op) ? sizes[op] : 0;
}

enum oom_status oom_op_check(enum oom_op op, const void *args) {
    if (!known(op)) {
        return oom_fail(OOM_INVALID, "op is %d, allowed is below %d", (int)op, OOM_OP_COUNT);
    }
    if (args == NULL) return oom_fail(OOM_INVALID, "%s: args is NULL", oom_op_name(op));
    struct sheet s;
    describe(&s, op, args, true);
    return s.status;
}

int oom_op_operands(enum oom_op op, const void *args, struct oom_operand out[OOM_OPERANDS_MAX]) {
    struct sheet s;
    describe(&s, op, args, false);
    memcpy(out, s.operand, (size_t)s.operands * sizeof out[0]);
    return s.operands;
}

uint64_t oom_op_workspace_bytes(enum oom_op op, const void *args) {
    struct sheet s;
    describe(&s, op, args, false);
    return s.workspace;
}

struct oom_op_cost oom_op_cost(enum oom_op op, const void *args) {
    struct sheet s;
    describe(&s, op, args, false);
    return s.cost;
}
