/*
 * attention-rows.h: what both kinds of attention are made of, for one type (real.h): operations on
 * a row, products, triangles. Included by attention.c.
 */

#undef STORED_DTYPE
#undef REAL_DTYPE
#define REAL_DTYPE (OOM_REAL == 64 ? OOM_F64 : OOM_F32)
#define STORED_DTYPE (!HALF ? REAL_DTYPE : OOM_REAL == 16 ? OOM_F16 : OOM_BF16)

/* ---- rows of n elements, 32 lanes: lane l takes elements l, l + 32, ... ---- */

#define ROW_VECTORS (OOM_LANES / REAL_LANES)

/* For i in steps of 32 and v over the group's vectors that have elements: BODY may use `at`, the
 * first element of the vector, and `left`, how many elements there are from there on. */
#define FOR_ROW(n, BODY) \
    do { \
        int64_t row_i = 0; \
        for (; row_i + OOM_LANES <= (n); row_i += OOM_LANES) { \
            OOM_UNROLL \
            for (int v = 0; v < ROW_VECTORS; v++) { \
                const int64_t at = row_i + v * REAL_LANES, left = REAL_LANES; \
                BODY \
            } \
        } \
        for (int v = 0; v < ROW_VECTORS; v++) { \
            const int64_t at = row_i + v * REAL_LANES, left = (n)-at; \
            if (left <= 0) break; \
            BODY \
        } \
    } while (0)

static real OOM_R(row_max)(const stored *x, int64_t n) {
    vreal best[ROW_VECTORS];
    const real first = OOM_S(oom_read)(x);
    for (int v = 0; v < ROW_VECTORS; v++) best[v] = OOM_V(oom_set)(first);
    FOR_ROW(n, { best[v] = OOM_V(oom_max)(OOM_S(oom_load_some)(x + at, left, first), best[v]); });
    return OOM_V(oom_fold_max)(best);
}

/* exp(x - shift); 0 beyond the row */
OOM_FUNCTION vreal OOM_R(exp_some)(const stored *x, int64_t left, real shift) {
    vreal e = OOM_S(oom_load_some)(x, left, shift) - OOM_V(oom_set)(shift);
    return OOM_V(oom_select)(OOM_V(oom_first)(left), OOM_V(oom_exp)(e), (vreal){0});
}

static real OOM_R(row_dot)(const stored *x, const stored *y, int64_t n) {
    vreal sums[ROW_VECTORS] = {0};
    FOR_ROW(n, { sums[v] += OOM_S(oom_take)(x + at, left) * OOM_S(oom_take)(y + at, left); });
    return OOM_V(oom_fold)(sums);
}

/* dscores = probs * (dprobs - dot) */
static void OOM_R(row_softmax_back)(stored *dscores, const stored *probs, const stored *dprobs,
                                    int64_t n, real dot) {
    const vreal dots = OOM_V(oom_set)(dot);
    FOR_ROW(n, {
        vreal d = OOM_S(oom_take)(dprobs + at, left) - dots;
        OOM_S(oom_put)(dscores + at, left, d * OOM_S(oom_take)(probs + at, left));
    });
}

/* y = x * factor, from memory to where it is computed with (in place allowed, where nothing is
 * converted) and back. */
static void OOM_R(row_read)(real *y, const stored *x, int64_t n, real factor) {
    FOR_ROW(n, { OOM_V(oom_put)(y + at, left, OOM_S(oom_take)(x + at, left) * factor); });
}

static void OOM_R(row_write)(stored *y, const real *x, int64_t n, real factor) {
    FOR_ROW(n, { OOM_S(oom_put)(y + at, left, OOM_V(oom_take)(x + at, left) * factor); });
}

static void OOM_R(rows_read)(real *y, int64_t ldy, const stored *x, int64_t ldx, int64_t rows,
                             int64_t n, real factor) {
    for (int64_t r = 0; r < rows; r++) OOM_R(row_read)(y + r * ldy, x + r * ldx, n, factor);
}

/* A finished result goes from where it was summed to its memory: nothing where that is the same and
 * nothing is scaled. */
static void OOM_R(rows_write)(stored *y, int64_t ldy, const real *x, int64_t ldx, int64_t rows,
                              int64_t n, real factor) {
    if (!HALF && factor == 1) return;
    for (int64_t r = 0; r < rows; r++) OOM_R(row_write)(y + r * ldy, x + r * ldx, n, factor);
}

/* Rows that are summed in their memory, or, of halves, in a tile whose rows are adjacent. */
struct OOM_R(sums) {
    real *at;
    int64_t ld;
};

static struct OOM_R(sums) OOM_R(sums_of)(stored *memory, int64_t ld, real *tile, int64_t n) {
    return HALF ? (struct OOM_R(sums)){tile, n} : (struct OOM_R(sums)){(void *)memory, ld};
}

static void OOM_R(sums_clear)(struct OOM_R(sums) c, int64_t rows, int64_t n) {
    for (int64_t r = 0; r < rows; r++) memset(c.at + r * c.ld, 0, (size_t)n * sizeof(real));
}

/* What lies in the op's memory, and what was computed. */
static inline struct oom_factor OOM_R(in_memory)(const stored *at, int64_t ld) {
    return (struct oom_factor){.dtype = STORED_DTYPE, .at = at, .ld = ld};
}

static inline struct oom_factor OOM_R(computed)(const real *at, int64_t ld) {
    return (struct oom_factor){.dtype = REAL_DTYPE, .at = at, .ld = ld};
}

/* ---- products ---- */

/* c [+]= op(a) op(b), c (m,n), chains over k */
static void OOM_R(multiply)(bool go_on, int64_t m, int64_t n, int64_t k, struct oom_factor a,
                            struct oom_factor b, struct OOM_R(sums) c, void *scratch) {
    struct oom_product p = {
        .accumulate = go_on,
        .m = m,
        .n = n,
        .k = k,
        .a = a,
        .b = b,
        .c_dtype = REAL_DTYPE,
        .c = c.at,
        .ldc = c.ld,
    };
    OOM_HOST_NAME(oom_product)(&p, scratch);
}

/* Where a factor's part begins; element and n lanes at i elements from there. */
OOM_FUNCTION const void *OOM_R(start)(const struct oom_factor *f) {
    int64_t i = f->row * f->ld + f->column;
    if (HALF && f->dtype == STORED_DTYPE) return (const stored *)f->at + i;
    return (const real *)f->at + i;
}

OOM_FUNCTION real OOM_R(element)(bool half, const void *at, int64_t i) {
    return half ? OOM_S(oom_read)((const stored *)at + i) : ((const real *)at)[i];
}

OOM_FUNCTION vreal OOM_R(lanes)(bool half, const void *at, int64_t i, int64_t n) {
    if (half) return OOM_S(oom_take)((const stored *)at + i, n);
    return OOM_V(oom_load_some)((const real *)at + i, n, 0);
}

/* c[r] += sum of t(r,j) b[j] in order of j, over j <= r with t(r,j) = a[r][j], or, turned, over
 * j >= r with t(r,j) = a[j][r]: the lower triangle of a either way. */
static void OOM_R(triangle_leaf)(int64_t count, int64_t n, const struct oom_factor *a,
                                 const struct oom_factor *b, struct OOM_R(sums) c) {
    const bool turn = a->transpose;
    const bool a_half = HALF && a->dtype == STORED_DTYPE, b_half = HALF && b->dtype == STORED_DTYPE;
    const void *a_start = OOM_R(start)(a), *b_start = OOM_R(start)(b);
    const int64_t down = turn ? 1 : a->ld, step = turn ? a->ld : 1, b_step = b->ld;
    for (int64_t r = 0; r < count; r++) {
        int64_t first = turn ? r : 0, last = turn ? count - 1 : r;
        for (int64_t at = 0; at < n; at += REAL_LANES) {
            vreal sum = OOM_V(oom_load_some)(c.at + r * c.ld + at, n - at, 0);
            for (int64_t j = first; j <= last; j++) {
                real t = OOM_R(element)(a_half, a_start, r * down + j * step);
                vreal row = OOM_R(lanes)(b_half, b_start, j * b_step + at, n - at);
                sum = OOM_V(oom_fma)(OOM_V(oom_set)(t), row, sum);
            }
            OOM_V(oom_store_some)(c.at + r * c.ld + at, n - at, sum);
        }
    }
}

/* The same by halves: a triangle, a square, a triangle; each chain still goes on in order. */
static void OOM_R(triangle)(int64_t count, int64_t n, struct oom_factor a, struct oom_factor b,
                            struct OOM_R(sums) c, void *scratch) {
    if (count <= LEAF) {
        OOM_R(triangle_leaf)(count, n, &a, &b, c);
        return;
    }
    int64_t half = (count / 2 + LEAF - 1) / LEAF * LEAF, rest = count - half;
    struct oom_factor square = from(a, half, 0), b_rest = from(b, half, 0);
    struct OOM_R(sums) c_rest = {c.at + half * c.ld, c.ld};
    OOM_R(triangle)(half, n, a, b, c, scratch);
    if (a.transpose)
        OOM_R(multiply)(true, half, n, rest, square, b_rest, c, scratch);
    else
        OOM_R(multiply)(true, rest, n, half, square, b, c_rest, scratch);
    OOM_R(triangle)(rest, n, from(a, half, half), b_rest, c_rest, scratch);
}

/* 1 / sqrt(D), rounded once more to the type */
static real OOM_R(scale_of)(const struct head *h) {
    return (real)(1 / sqrt((double)h->size));
}

/* The thread's tiles, beside what the products use. */
struct OOM_R(tiles) {
    real *probs, *grads; /* (TILE, TILE) each */
    real *queries;       /* scaled, (rows, D) */
    real *sums, *others; /* (rows, D) each, for halves only */
    void *scratch;       /* of the products */
};

static struct OOM_R(tiles) OOM_R(tiles_of)(void *scratch) {
    enum { LARGE = TILE * WIDTH, ALL = 2 * TILE * TILE + (HALF ? 3 : 1) * LARGE };
    _Static_assert(ALL * sizeof(real) <= OOM_OTHER_SCRATCH_BYTES, "the tiles fit the scratch");
    real *tiles = (real *)(void *)((unsigned char *)scratch + OOM_PRODUCT_SCRATCH_BYTES);
    real *queries = tiles + 2 * TILE * TILE;
    return (struct OOM_R(tiles)){
        .probs = tiles,
        .grads = tiles + TILE * TILE,
        .queries = queries,
        .sums = HALF ? queries + LARGE : NULL,
        .others = HALF ? queries + 2 * LARGE : NULL,
        .scratch = scratch,
    };
}
