/*
 * gemm-body.h: the product for one type (real.h). Included twice by gemm.c, which tells the whole.
 */

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

/* Copies the first n of each row's elements, up to two vectors; `room` of the destination's may be
 * written, those beyond n as zeros. */
static inline void OOM_R(copy_some)(real *to, int64_t to_ld, int64_t room, const real *from,
                                    int64_t from_ld, int64_t n, int64_t rows) {
    for (int64_t r = 0; r < rows; r++, to += to_ld, from += from_ld) OOM_UNROLL
    for (int v = 0; v < TILE_VECTORS; v++) {
        int64_t at = v * REAL_LANES;
        vreal x = OOM_V(oom_load_some)(from + at, n - at, 0);
        OOM_V(oom_store_some)(to + at, room - at, x);
    }
}

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

/* ---- packing: to[p * width + r], r below `count`, p below k ---- */

/* One row of a panel; a panel of vectors is filled up with zeros. */
static inline void OOM_R(pack_row)(real *to, int64_t panel, const real *from, int64_t count) {
    if (panel == TILE_VECTORS * REAL_LANES)
        OOM_R(copy_some)(to, panel, panel, from, 0, count, 1);
    else if (count >= TILE_ROWS)
        memcpy(to, from, TILE_ROWS * sizeof(real));
    else
        memcpy(to, from, (size_t)count * sizeof(real));
}

/* From rows along p: from[p * ld + r]. Several panels at once, so that the memory is read along its
 * rows, and no more, as their places in `to` would fall on the same lines of the cache. */
static void OOM_R(pack_straight)(real *to, int64_t panel, const real *from, int64_t ld,
                                 int64_t count, int64_t k) {
    const int64_t group = 8 * panel;
    for (int64_t r0 = 0; r0 < count; r0 += group) {
        int64_t end = count - r0 < group ? count : r0 + group;
        for (int64_t p = 0; p < k; p++)
            for (int64_t r = r0; r < end; r += panel)
                OOM_R(pack_row)(to + r * k + p * panel, panel, from + p * ld + r, count - r);
    }
}

OOM_VECTOR_TYPE(real, OOM_R(quad), 4 * sizeof(real), sizeof(real));

/* From rows along r: from[r * ld + p]. Four by four, the rest one by one. */
static void OOM_R(pack_turned)(real *to, int64_t width, const real *from, int64_t ld, int64_t count,
                               int64_t k) {
    typedef OOM_R(quad) quad;
    int64_t r = 0;
    for (; r + 4 <= count; r += 4) {
        const real *row = from + r * ld;
        real *out = to + r;
        int64_t p = 0;
        for (; p + 4 <= k; p += 4, out += 4 * width) {
            quad q0 = *(const quad *)(row + p), q1 = *(const quad *)(row + ld + p);
            quad q2 = *(const quad *)(row + 2 * ld + p), q3 = *(const quad *)(row + 3 * ld + p);
            quad low01 = __builtin_shufflevector(q0, q1, 0, 4, 1, 5);
            quad high01 = __builtin_shufflevector(q0, q1, 2, 6, 3, 7);
            quad low23 = __builtin_shufflevector(q2, q3, 0, 4, 1, 5);
            quad high23 = __builtin_shufflevector(q2, q3, 2, 6, 3, 7);
            *(quad *)out = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
            *(quad *)(out + width) = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
            *(quad *)(out + 2 * width) = __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
            *(quad *)(out + 3 * width) = __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
        }
        for (; p < k; p++, out += width)
            for (int i = 0; i < 4; i++) out[i] = row[i * ld + p];
    }
    for (; r < count; r++)
        for (int64_t p = 0; p < k; p++) to[p * width + r] = from[r * ld + p];
}

/* Panels of `panel` of the count things, k steps each, one after the other. Lanes beyond count are
 * zeroed where `pad` is set (vectors read them). */
static void OOM_R(pack)(real *to, int64_t panel, bool pad, const real *from, int64_t ld,
                        bool turned, int64_t count, int64_t k) {
    if (!turned) {
        OOM_R(pack_straight)(to, panel, from, ld, count, k);
        return;
    }
    for (int64_t r = 0; r < count; r += panel, to += panel * k) {
        int64_t here = count - r < panel ? count - r : panel;
        if (pad && here < panel) memset(to, 0, (size_t)(panel * k) * sizeof(real));
        OOM_R(pack_turned)(to, panel, from + r * ld, ld, here, k);
    }
}

/* ---- the product ---- */

/* A chain starts from C, so a tile waits for its C before it can begin; C larger than the caches
 * cost up to a third of the speed until it was fetched one tile ahead. */
static inline void OOM_R(fetch)(const real *c, int64_t stride) {
    for (int i = 0; i < TILE_ROWS; i++)
        for (int at = 0; at < TILE_VECTORS * OOM_VECTOR_BYTES; at += 64)
            __builtin_prefetch((const char *)(c + i * stride) + at, 1);
}

/* One panel of columns down a block of rows; a row of A's block begins a_row after the last. */
static void OOM_R(panel)(struct OOM_R(tile) t, const real *a, int64_t a_row, int64_t rows,
                         int64_t columns, bool rows_adjacent, const real *next) {
    for (int64_t i = 0; i < rows; i += TILE_ROWS, t.c += TILE_ROWS * t.c_stride) {
        t.a = a + i * a_row;
        int64_t height = rows - i < TILE_ROWS ? rows - i : TILE_ROWS;
        if (rows - i >= 2 * TILE_ROWS)
            OOM_R(fetch)(t.c + TILE_ROWS * t.c_stride, t.c_stride);
        else if (rows >= TILE_ROWS && next != NULL && height == rows - i)
            OOM_R(fetch)(next, t.c_stride);
        OOM_R(tile_any)(&t, (int)height, columns, rows_adjacent);
    }
}

/* Columns j0 .. and steps p0 .. of all rows. Columns of b are read in place where it is not to be
 * packed; a last panel that is not whole always is, as vectors would read beyond it. */
static void OOM_R(block)(const struct oom_product *q, const struct blocks *plan, real *scratch,
                         int64_t j0, int64_t p0) {
    enum { NR = TILE_VECTORS * REAL_LANES };
    const real *a = q->a, *b = q->b, *bias = p0 + plan->k >= q->k ? q->bias : NULL;
    real *c = q->c, *a_packed = scratch, *b_packed = scratch + plan->m * plan->k;
    int64_t columns = q->n - j0 < plan->n ? q->n - j0 : plan->n;
    int64_t k = q->k - p0 < plan->k ? q->k - p0 : plan->k;
    int64_t direct = plan->pack_b ? 0 : columns / NR * NR, packed = j0 + direct;
    OOM_R(pack)
    (b_packed, NR, true, q->transpose_b ? b + packed * q->ldb + p0 : b + p0 * q->ldb + packed,
     q->ldb, q->transpose_b, columns - direct, k);
    for (int64_t i0 = 0; i0 < q->m; i0 += plan->m) {
        int64_t rows = q->m - i0 < plan->m ? q->m - i0 : plan->m;
        const real *a_block = q->transpose_a ? a + p0 * q->lda + i0 : a + i0 * q->lda + p0;
        int64_t a_row = plan->pack_a ? k : q->transpose_a ? 1 : q->lda;
        if (plan->pack_a) {
            OOM_R(pack)(a_packed, TILE_ROWS, false, a_block, q->lda, !q->transpose_a, rows, k);
            a_block = a_packed;
        }
        for (int64_t j = 0; j < columns; j += NR) {
            struct OOM_R(tile) t = {
                .a_stride = plan->pack_a ? TILE_ROWS : q->lda,
                .b = j < direct ? b + p0 * q->ldb + j0 + j : b_packed + (j - direct) * k,
                .b_stride = j < direct ? q->ldb : NR,
                .c = c + i0 * q->ldc + j0 + j,
                .c_stride = q->ldc,
                .bias = bias != NULL ? bias + j0 + j : NULL,
                .k = k,
                .go_on = q->accumulate || p0 > 0,
            };
            OOM_R(panel)
            (t, a_block, a_row, rows, columns - j < NR ? columns - j : NR,
             plan->pack_a || q->transpose_a, j + 2 * NR <= columns ? t.c + NR : NULL);
        }
    }
}

void OOM_HOST_NAME(OOM_R(oom_product))(const struct oom_product *q, void *scratch) {
    struct blocks plan = blocks_choose(q, sizeof(real), TILE_ROWS, TILE_VECTORS * REAL_LANES);
    for (int64_t j0 = 0; j0 < q->n; j0 += plan.n)
        for (int64_t p0 = 0; p0 == 0 || p0 < q->k; p0 += plan.k) /* once for k = 0, too */
            OOM_R(block)(q, &plan, scratch, j0, p0);
}

static void OOM_R(gemm_part)(const struct oom_gemm_args *g, const struct oom_host_part *part) {
    int64_t m0, m1, n0, n1;
    grid_share(g->m, g->n, TILE_VECTORS * REAL_LANES, part, &m0, &m1, &n0, &n1);
    if (m0 >= m1 || n0 >= n1) return;
    const real *a = OOM_HOST_PTR(const real, g->a), *b = OOM_HOST_PTR(const real, g->b);
    const real *bias = OOM_HOST_PTR(const real, g->bias);
    struct oom_product p = {
        .transpose_a = g->transpose_a,
        .transpose_b = g->transpose_b,
        .accumulate = g->accumulate,
        .m = m1 - m0,
        .n = n1 - n0,
        .k = g->k,
        .a = g->transpose_a ? a + m0 : a + m0 * g->lda,
        .lda = g->lda,
        .b = g->transpose_b ? b + n0 * g->ldb : b + n0,
        .ldb = g->ldb,
        .c = OOM_HOST_PTR(real, g->c) + m0 * g->ldc + n0,
        .ldc = g->ldc,
        .bias = bias != NULL ? bias + n0 : NULL,
    };
    OOM_HOST_NAME(OOM_R(oom_product))(&p, part->scratch);
}
