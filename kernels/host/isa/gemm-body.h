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
    int64_t last; /* columns of the last vector, where it is not whole */
    bool go_on;   /* start from c, else from 0 */
    bool add;     /* add to c in the end */
};

/* Vector v of a row: all of it, or, of a `ragged` tile's last, those columns that there are. */
#define LOAD(from, v) \
    (ragged && (v) == vectors - 1 ? OOM_V(oom_load_some)((from) + (v)*REAL_LANES, last, 0) \
                                  : OOM_V(oom_load)((from) + (v)*REAL_LANES))

/* rows, vectors, rows_adjacent and ragged are constants in every copy. The loop over k is not
 * unrolled: gcc would copy and spill the accumulators. */
static inline __attribute__((always_inline)) void OOM_R(tile_run)(const struct OOM_R(tile) * t,
                                                                  const int rows, const int vectors,
                                                                  const bool rows_adjacent,
                                                                  const bool ragged) {
    vreal sum[TILE_ROWS][TILE_VECTORS];
    const int64_t last = t->last;
    real *c = t->c;
    const int64_t c_stride = t->c_stride, a_stride = t->a_stride, b_stride = t->b_stride;
    if (t->go_on) {
        OOM_UNROLL
        for (int i = 0; i < rows; i++) OOM_UNROLL
        for (int v = 0; v < vectors; v++) sum[i][v] = LOAD(c + i * c_stride, v);
    } else {
        OOM_UNROLL
        for (int i = 0; i < rows; i++) OOM_UNROLL
        for (int v = 0; v < vectors; v++) sum[i][v] = (vreal){0};
    }
    const real *a = t->a, *b = t->b;
    for (int64_t p = t->k; p > 0; p--) {
        vreal row[TILE_VECTORS];
        OOM_UNROLL
        for (int v = 0; v < vectors; v++)
            row[v] = ENDS_IN_PLACE ? LOAD(b, v) : OOM_V(oom_load)(b + v * REAL_LANES);
        OOM_UNROLL
        for (int i = 0; i < rows; i++) {
            vreal x = OOM_V(oom_set)(rows_adjacent ? a[i] : a[i * a_stride]);
            OOM_UNROLL
            for (int v = 0; v < vectors; v++) sum[i][v] = OOM_V(oom_fma)(x, row[v], sum[i][v]);
        }
        a += rows_adjacent ? a_stride : 1;
        b += b_stride;
    }
    if (t->add) {
        OOM_UNROLL
        for (int i = 0; i < rows; i++) OOM_UNROLL
        for (int v = 0; v < vectors; v++) sum[i][v] += LOAD(c + i * c_stride, v);
    }
    if (t->bias != NULL) {
        OOM_UNROLL
        for (int v = 0; v < vectors; v++) {
            vreal bias = LOAD(t->bias, v);
            OOM_UNROLL
            for (int i = 0; i < rows; i++) sum[i][v] += bias;
        }
    }
    OOM_UNROLL
    for (int i = 0; i < rows; i++) OOM_UNROLL
    for (int v = 0; v < vectors; v++) {
        real *to = c + i * c_stride + v * REAL_LANES;
        if (ragged && v == vectors - 1)
            OOM_V(oom_store_some)(to, last, sum[i][v]);
        else
            OOM_V(oom_store)(to, sum[i][v]);
    }
}
#undef LOAD

#define TILE_KIND(n, kind, vectors, rows_adjacent, ragged) \
    case 8 * (n) + (kind): \
        OOM_R(tile_run)(t, n, vectors, rows_adjacent, ragged); \
        break;
#define TILE_CASES(n) \
    TILE_KIND(n, 0, 1, false, false) \
    TILE_KIND(n, 1, 1, true, false) \
    TILE_KIND(n, 2, 2, false, false) \
    TILE_KIND(n, 3, 2, true, false) \
    TILE_KIND(n, 4, 1, false, true) \
    TILE_KIND(n, 5, 1, true, true) \
    TILE_KIND(n, 6, 2, false, true) \
    TILE_KIND(n, 7, 2, true, true)

/* Any number of columns up to a panel's. */
static void OOM_R(tile_any)(struct OOM_R(tile) * t, int rows, int64_t columns, bool rows_adjacent) {
    const bool two = columns > REAL_LANES, ragged = columns % REAL_LANES != 0;
    t->last = columns % REAL_LANES;
    switch (8 * rows + 4 * ragged + 2 * two + rows_adjacent) { TILE_ROW_COUNTS(TILE_CASES) }
}
#undef TILE_KIND
#undef TILE_CASES

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

/* Steps p0 .., columns j0 .. of B: packed or in place. */
static struct OOM_R(view) OOM_R(block_of_b)(const struct oom_product *q, const struct blocks *plan,
                                            const struct OOM_R(rooms) * rooms, int64_t j0,
                                            int64_t columns, int64_t p0, int64_t k) {
    enum { NR = TILE_VECTORS * REAL_LANES };
    if (!plan->pack_b) return OOM_R(fetch)(&q->b, p0, k, j0, columns, NULL);
    OOM_R(pack)
    (rooms->b, NR, true, &q->b, q->b.transpose, j0, columns, p0, k, rooms->fetched);
    return (struct OOM_R(view)){rooms->b, NR};
}

/* Steps p0 .. of columns j0 .. and rows i_begin .. i_end. */
static void OOM_R(block)(const struct oom_product *q, const struct blocks *plan,
                         const struct OOM_R(rooms) * rooms, int64_t i_begin, int64_t i_end,
                         int64_t j0, int64_t p0) {
    enum { NR = TILE_VECTORS * REAL_LANES };
    const bool last = p0 + plan->k >= q->k, half = oom_dtype_is_half(q->c_dtype);
    const bool rows_adjacent = plan->pack_a || q->a.transpose;
    const real *bias = last ? q->bias : NULL;
    int64_t columns = q->n - j0 < plan->n ? q->n - j0 : plan->n;
    int64_t k = q->k - p0 < plan->k ? q->k - p0 : plan->k;
    struct OOM_R(view) b = OOM_R(block_of_b)(q, plan, rooms, j0, columns, p0, k);
    for (int64_t i0 = i_begin; i0 < i_end; i0 += plan->m) {
        int64_t rows = i_end - i0 < plan->m ? i_end - i0 : plan->m;
        struct OOM_R(view) a = OOM_R(block_of_a)(q, plan, rooms, i0, rows, p0, k);
        int64_t a_row = plan->pack_a ? k : q->a.transpose ? 1 : a.ld;
        for (int64_t j = 0; j < columns; j += NR) {
            int64_t width = columns - j < NR ? columns - j : NR;
            struct OOM_R(tile) t = OOM_R(tile_of)(q, plan, rooms->c, i0, j0, j);
            t.a_stride = a.ld;
            t.b = b.at + (plan->pack_b ? j * k : j);
            t.b_stride = b.ld;
            t.bias = bias != NULL ? bias + j0 + j : NULL;
            t.k = k;
            t.go_on = q->accumulate;
            t.add = !q->accumulate && p0 > 0;
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
