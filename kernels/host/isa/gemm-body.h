/*
 * gemm-body.h: the product for one type (real.h). Included twice by gemm.c, which tells the whole.
 */
#include "kernels/host/isa/gemm-pack.h"

/* A panel of the result being computed: rows x up to two vectors of columns. */
struct OOM_R(tile) {
    const real *a;    /* element (i, p) at a[i * a_row + p * a_step], one of the two being 1 */
    int64_t a_stride; /* the other */
    const real *b;    /* row p at b + p * b_stride */
    int64_t b_stride;
    real *c;
    int64_t c_stride;
    const real *bias; /* added at the end, or NULL */
    int64_t k;
    bool go_on; /* start from c, else from 0 */
};

/* rows, vectors and rows_adjacent are constants in every copy. The loop over k is not unrolled: gcc
 * would copy and spill the accumulators. */
static inline __attribute__((always_inline)) void OOM_R(tile_run)(const struct OOM_R(tile) * t,
                                                                  const int rows, const int vectors,
                                                                  const bool rows_adjacent) {
    vreal sum[TILE_ROWS][TILE_VECTORS];
    real *c = t->c;
    const int64_t c_stride = t->c_stride, a_stride = t->a_stride, b_stride = t->b_stride;
    if (t->go_on) {
        OOM_UNROLL
        for (int i = 0; i < rows; i++) OOM_UNROLL
        for (int v = 0; v < vectors; v++)
            sum[i][v] = OOM_V(oom_load)(c + i * c_stride + v * REAL_LANES);
    } else {
        OOM_UNROLL
        for (int i = 0; i < rows; i++) OOM_UNROLL
        for (int v = 0; v < vectors; v++) sum[i][v] = (vreal){0};
    }
    const real *a = t->a, *b = t->b;
    for (int64_t p = t->k; p > 0; p--) {
        vreal row[TILE_VECTORS];
        OOM_UNROLL
        for (int v = 0; v < vectors; v++) row[v] = OOM_V(oom_load)(b + v * REAL_LANES);
        OOM_UNROLL
        for (int i = 0; i < rows; i++) {
            vreal x = OOM_V(oom_set)(rows_adjacent ? a[i] : a[i * a_stride]);
            OOM_UNROLL
            for (int v = 0; v < vectors; v++) sum[i][v] = OOM_V(oom_fma)(x, row[v], sum[i][v]);
        }
        a += rows_adjacent ? a_stride : 1;
        b += b_stride;
    }
    if (t->bias != NULL) {
        OOM_UNROLL
        for (int v = 0; v < vectors; v++) {
            vreal bias = OOM_V(oom_load)(t->bias + v * REAL_LANES);
            OOM_UNROLL
            for (int i = 0; i < rows; i++) sum[i][v] += bias;
        }
    }
    OOM_UNROLL
    for (int i = 0; i < rows; i++) OOM_UNROLL
    for (int v = 0; v < vectors; v++)
        OOM_V(oom_store)(c + i * c_stride + v * REAL_LANES, sum[i][v]);
}

#define TILE_CASES(n) \
    case 4 * (n): \
        OOM_R(tile_run)(t, n, 1, false); \
        break; \
    case 4 * (n) + 1: \
        OOM_R(tile_run)(t, n, 1, true); \
        break; \
    case 4 * (n) + 2: \
        OOM_R(tile_run)(t, n, 2, false); \
        break; \
    case 4 * (n) + 3: \
        OOM_R(tile_run)(t, n, 2, true); \
        break;

/* columns is a multiple of the vector's width, 1 or 2 of them. */
static void OOM_R(tile_whole)(const struct OOM_R(tile) * t, int rows, int64_t columns,
                              bool rows_adjacent) {
    switch (4 * rows + 2 * (columns > REAL_LANES) + rows_adjacent) { TILE_ROW_COUNTS(TILE_CASES) }
}
#undef TILE_CASES

/* Any number of columns up to a panel's: the rest goes through a tile on the stack. b is readable
 * to the end of the panel's last vector. */
static void OOM_R(tile_any)(const struct OOM_R(tile) * t, int rows, int64_t columns,
                            bool rows_adjacent) {
    if (columns % REAL_LANES == 0) {
        OOM_R(tile_whole)(t, rows, columns, rows_adjacent);
        return;
    }
    enum { WIDTH = TILE_VECTORS * REAL_LANES };
    real c[TILE_ROWS * WIDTH], bias[WIDTH];
    struct OOM_R(tile) padded = *t;
    padded.c = c;
    padded.c_stride = WIDTH;
    if (t->go_on) OOM_R(copy_some)(c, WIDTH, WIDTH, t->c, t->c_stride, columns, rows);
    if (t->bias != NULL) {
        OOM_R(copy_some)(bias, WIDTH, WIDTH, t->bias, 0, columns, 1);
        padded.bias = bias;
    }
    OOM_R(tile_whole)(&padded, rows, columns, rows_adjacent);
    OOM_R(copy_some)(t->c, t->c_stride, columns, c, WIDTH, columns, rows);
}

/* ---- the product ---- */

/* A chain starts from C, so a tile waits for its C before it can begin; C larger than the caches
 * cost up to a third of the speed until it was fetched one tile ahead. */
static inline void OOM_R(prefetch)(const real *c, int64_t stride) {
    for (int i = 0; i < TILE_ROWS; i++)
        for (int at = 0; at < TILE_VECTORS * OOM_VECTOR_BYTES; at += 64)
            __builtin_prefetch((const char *)(c + i * stride) + at, 1);
}

/* One panel of columns down a block of rows; a row of A's block begins a_row after the last. Where
 * C is of halves and done, it is rounded into `out`. */
static void OOM_R(panel)(struct OOM_R(tile) t, const real *a, int64_t a_row, int64_t rows,
                         int64_t columns, bool rows_adjacent, const real *next,
                         const struct halves *out) {
    for (int64_t i = 0; i < rows; i += TILE_ROWS, t.c += TILE_ROWS * t.c_stride) {
        t.a = a + i * a_row;
        int64_t height = rows - i < TILE_ROWS ? rows - i : TILE_ROWS;
        if (rows - i >= 2 * TILE_ROWS)
            OOM_R(prefetch)(t.c + TILE_ROWS * t.c_stride, t.c_stride);
        else if (rows >= TILE_ROWS && next != NULL && height == rows - i)
            OOM_R(prefetch)(next, t.c_stride);
        if (out != NULL) halves_prefetch(out, i, height);
        OOM_R(tile_any)(&t, (int)height, columns, rows_adjacent);
        if (out != NULL) halves_write(out, i, t.c, t.c_stride, height, columns);
    }
}

/* Where the blocks lie in the scratch. */
struct OOM_R(rooms) {
    real *fetched, *a, *b, *c;
};

static struct OOM_R(rooms) OOM_R(rooms_of)(const struct blocks *plan, real *scratch) {
    real *a = scratch + ROOM, *b = a + plan->m * plan->k;
    return (struct OOM_R(rooms)){scratch, a, b, b + plan->n * plan->k};
}

/* Where a panel of a block of C is summed: in its place, or, of halves, in the scratch: there all
 * panels stay from one block of k to the next, unless there is but one. Row i and column j0 + j. */
static inline struct OOM_R(tile)
    OOM_R(tile_of)(const struct oom_product *q, const struct blocks *plan, real *room, int64_t i,
                   int64_t j0, int64_t j) {
    enum { NR = TILE_VECTORS * REAL_LANES };
    struct OOM_R(tile) t = {.c = room, .c_stride = NR};
    if (!oom_dtype_is_half(q->c_dtype)) {
        t.c = (real *)q->c + i * q->ldc + j0 + j;
        t.c_stride = q->ldc;
    } else if (plan->k < q->k)
        t.c += j * plan->rows + i % plan->rows * NR;
    return t;
}

/* Rows i0 .. of A, steps p0 .. : packed, in place, or copied as they are stored. */
static struct OOM_R(view) OOM_R(block_of_a)(const struct oom_product *q, const struct blocks *plan,
                                            const struct OOM_R(rooms) * rooms, int64_t i0,
                                            int64_t rows, int64_t p0, int64_t k) {
    if (!plan->pack_a)
        return q->a.transpose ? OOM_R(fetch)(&q->a, p0, k, i0, rows, rooms->a)
                              : OOM_R(fetch)(&q->a, i0, rows, p0, k, rooms->a);
    OOM_R(pack)
    (rooms->a, TILE_ROWS, false, &q->a, !q->a.transpose, i0, rows, p0, k, rooms->fetched);
    return (struct OOM_R(view)){rooms->a, TILE_ROWS};
}

/* Steps p0 .. of columns j0 .. and rows i_begin .. i_end. Columns of b are read in place where it
 * is not to be packed; a last panel that is not whole always is, as vectors would read beyond it.
 */
static void OOM_R(block)(const struct oom_product *q, const struct blocks *plan,
                         const struct OOM_R(rooms) * rooms, int64_t i_begin, int64_t i_end,
                         int64_t j0, int64_t p0) {
    enum { NR = TILE_VECTORS * REAL_LANES };
    const bool last = p0 + plan->k >= q->k, half = oom_dtype_is_half(q->c_dtype);
    const bool rows_adjacent = plan->pack_a || q->a.transpose;
    const real *bias = last ? q->bias : NULL;
    int64_t columns = q->n - j0 < plan->n ? q->n - j0 : plan->n;
    int64_t k = q->k - p0 < plan->k ? q->k - p0 : plan->k;
    int64_t direct = plan->pack_b ? 0 : columns / NR * NR;
    struct OOM_R(view) b = {NULL, 0};
    if (direct > 0) b = OOM_R(fetch)(&q->b, p0, k, j0, direct, NULL);
    OOM_R(pack)
    (rooms->b, NR, true, &q->b, q->b.transpose, j0 + direct, columns - direct, p0, k,
     rooms->fetched);
    for (int64_t i0 = i_begin; i0 < i_end; i0 += plan->m) {
        int64_t rows = i_end - i0 < plan->m ? i_end - i0 : plan->m;
        struct OOM_R(view) a = OOM_R(block_of_a)(q, plan, rooms, i0, rows, p0, k);
        int64_t a_row = plan->pack_a ? k : q->a.transpose ? 1 : a.ld;
        for (int64_t j = 0; j < columns; j += NR) {
            int64_t width = columns - j < NR ? columns - j : NR;
            struct OOM_R(tile) t = OOM_R(tile_of)(q, plan, rooms->c, i0, j0, j);
            t.a_stride = a.ld;
            t.b = j < direct ? b.at + j : rooms->b + (j - direct) * k;
            t.b_stride = j < direct ? b.ld : NR;
            t.bias = bias != NULL ? bias + j0 + j : NULL;
            t.k = k;
            t.go_on = q->accumulate || p0 > 0;
            struct halves out = {q->c_dtype, (uint16_t *)q->c + i0 * q->ldc + j0 + j, q->ldc};
            OOM_R(panel)
            (t, a.at, a_row, rows, width, rows_adjacent,
             !half && j + 2 * NR <= columns ? t.c + NR : NULL, half && last ? &out : NULL);
        }
    }
}

static void OOM_R(product)(const struct oom_product *q, void *scratch) {
    struct blocks plan = blocks_choose(q, sizeof(real), TILE_ROWS, TILE_VECTORS * REAL_LANES);
    struct OOM_R(rooms) rooms = OOM_R(rooms_of)(&plan, scratch);
    for (int64_t j0 = 0; j0 < q->n; j0 += plan.n)
        for (int64_t i0 = 0; i0 < q->m; i0 += plan.rows) {
            int64_t end = q->m - i0 < plan.rows ? q->m : i0 + plan.rows;
            for (int64_t p0 = 0; p0 == 0 || p0 < q->k; p0 += plan.k) /* once for k = 0, too */
                OOM_R(block)(q, &plan, &rooms, i0, end, j0, p0);
        }
}
