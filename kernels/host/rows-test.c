/*
 * Sums over rows and gathers: against a plain loop in the same order, bit by bit, since one chain
 * in row order leaves no choice; rows in pieces equal the whole. With halves the chains are of f32.
 */
#include "kernels/host/op-testing.h"

void rows_test(void);

static const enum oom_dtype dtypes[] = {OOM_F32, OOM_F64, OOM_F16, OOM_BF16};
static const int64_t columns_tried[] = {1, 16, 31, 33, 64, 257};
static const int64_t rows_tried[] = {1, 7, 90};

#define EACH_CASE(body) \
    for (int d = 0; d < 4; d++) { \
        for (int i = 0; i < 18; i++) { \
            const enum oom_dtype dtype = dtypes[d], wide = oom_dtype_wide(dtype); \
            const int64_t rows = rows_tried[i / 6], columns = columns_tried[i % 6]; \
            (void)wide; \
            body; \
            test_release(); \
        } \
    }

#define GET(array, i) test_get(dtype, array, i)

static void *shifted(enum oom_dtype dtype, void *array, int64_t elements) {
    return (char *)array + (size_t)elements * oom_dtype_bytes(dtype);
}

static void *copied(enum oom_dtype dtype, const void *array, int64_t n) {
    void *copy = test_array(dtype, n, 0, 0);
    if (copy != NULL) memcpy(copy, array, (size_t)n * oom_dtype_bytes(dtype));
    return copy;
}

static bool same(enum oom_dtype dtype, const void *a, const void *b, int64_t n) {
    return memcmp(a, b, (size_t)n * oom_dtype_bytes(dtype)) == 0;
}

/* to += value, rounded to the dtype: one link of a chain. A sum of two f32 or of two halves that is
 * rounded to f64 or f32 first comes to the same (Figueroa 1995). */
static void chain(enum oom_dtype dtype, void *to, int64_t i, double value) {
    test_set(dtype, to, i, GET(to, i) + value);
}

static void sum_case(enum oom_dtype dtype, enum oom_dtype wide, int64_t rows, int64_t columns) {
    void *x = test_array(dtype, rows * columns, -1, 1), *out = test_array(wide, columns, -1, 1);
    void *naive = copied(wide, out, columns), *pieces = copied(wide, out, columns);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t j = 0; j < columns; j++) chain(wide, naive, j, GET(x, r * columns + j));
    }
    struct oom_sum_rows_args a = {dtype, rows, columns, ADDRESS(x), ADDRESS(out)};
    test_same_everywhere(OOM_OP_SUM_ROWS, &a);
    CHECK(same(wide, out, naive, columns));
    for (int64_t r = 0, n = 1; r < rows; r += n, n++) {
        if (n > rows - r) n = rows - r;
        void *piece = shifted(dtype, x, r * columns);
        struct oom_sum_rows_args p = {dtype, n, columns, ADDRESS(piece), ADDRESS(pieces)};
        test_run(OOM_OP_SUM_ROWS, &p);
    }
    CHECK(same(wide, pieces, naive, columns));
}

static void position_case(enum oom_dtype dtype, enum oom_dtype wide, int64_t positions,
                          int64_t channels) {
    const int64_t batch = 5, row = positions * channels;
    void *x = test_array(dtype, batch * row, -1, 1), *dout = copied(dtype, x, batch * row);
    void *want = copied(dtype, x, batch * row);
    void *table = test_array(dtype, row + 3, -1, 1), *dtable = test_array(wide, row + 3, -1, 1);
    void *naive = copied(wide, dtable, row + 3), *pieces = copied(wide, dtable, row + 3);
    for (int64_t i = 0; i < batch * row; i++) chain(dtype, want, i, GET(table, i % row));
    struct oom_position_forward_args f = {dtype,    batch,          positions,
                                          channels, ADDRESS(table), ADDRESS(x)};
    test_same_everywhere(OOM_OP_POSITION_FORWARD, &f);
    CHECK(same(dtype, x, want, batch * row));
    for (int64_t i = 0; i < batch * row; i++) chain(wide, naive, i % row, GET(dout, i));
    struct oom_position_backward_args b = {dtype,    batch,         positions,
                                           channels, ADDRESS(dout), ADDRESS(dtable)};
    test_same_everywhere(OOM_OP_POSITION_BACKWARD, &b);
    CHECK(same(wide, dtable, naive, row + 3));
    for (int64_t at = 0; at < batch; at++) { /* sample by sample */
        void *sample = shifted(dtype, dout, at * row);
        struct oom_position_backward_args p = {
            dtype, 1, positions, channels, ADDRESS(sample), ADDRESS(pieces)};
        test_run(OOM_OP_POSITION_BACKWARD, &p);
    }
    CHECK(same(wide, pieces, naive, row + 3));
}

/* Tokens from -2 to vocab + 1: those outside are clamped. */
static void embedding_case(enum oom_dtype dtype, enum oom_dtype wide, int64_t rows,
                           int64_t channels) {
    const int64_t vocab = 11;
    int32_t *tokens = test_tokens(rows, -2, (int)vocab + 2);
    void *table = test_array(dtype, vocab * channels, -1, 1);
    void *out = test_array(dtype, rows * channels, 5, 6);
    void *dtable = test_array(wide, vocab * channels, -1, 1);
    void *naive = copied(wide, dtable, vocab * channels);
    void *pieces = copied(wide, dtable, vocab * channels);
    struct oom_embedding_forward_args f = {dtype,           rows,           channels,    vocab,
                                           ADDRESS(tokens), ADDRESS(table), ADDRESS(out)};
    test_same_everywhere(OOM_OP_EMBEDDING_FORWARD, &f);
    for (int64_t i = 0; i < rows * channels; i++) {
        int64_t token = tokens[i / channels];
        token = token < 0 ? 0 : token >= vocab ? vocab - 1 : token;
        CHECK(GET(out, i) == GET(table, token * channels + i % channels));
        chain(wide, naive, token * channels + i % channels, GET(out, i));
    }
    struct oom_embedding_backward_args b = {dtype,           rows,         channels,       vocab,
                                            ADDRESS(tokens), ADDRESS(out), ADDRESS(dtable)};
    test_same_everywhere(OOM_OP_EMBEDDING_BACKWARD, &b);
    CHECK(same(wide, dtable, naive, vocab * channels));
    for (int64_t r = 0; r < rows; r++) {
        void *row = shifted(dtype, out, r * channels);
        struct oom_embedding_backward_args p = {
            dtype, 1, channels, vocab, ADDRESS(tokens + r), ADDRESS(row), ADDRESS(pieces)};
        test_run(OOM_OP_EMBEDDING_BACKWARD, &p);
    }
    CHECK(same(wide, pieces, naive, vocab * channels));
}

void rows_test(void) {
    TEST("sum_rows: one chain per column, bit by bit, whole and in pieces, everywhere");
    EACH_CASE(sum_case(dtype, wide, rows, columns));
    TEST("position: forward and backward, bit by bit, whole and in pieces, everywhere");
    EACH_CASE(position_case(dtype, wide, rows, columns));
    TEST("embedding: forward and backward, clamped tokens, whole and in pieces, everywhere");
    EACH_CASE(embedding_case(dtype, wide, rows, columns));
}
