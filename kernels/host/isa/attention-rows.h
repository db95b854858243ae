/*
 * attention-rows.h: what both kinds of attention are made of, for one type (real.h): operations on
 * a row, products, triangles. Included by attention.c.
 */

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

static real OOM_R(row_max)(const real *x, int64_t n) {
    vreal best[ROW_VECTORS];
    for (int v = 0; v < ROW_VECTORS; v++) best[v] = OOM_V(oom_set)(x[0]);
    FOR_ROW(n, { best[v] = OOM_V(oom_max)(OOM_V(oom_load_some)(x + at, left, x[0]), best[v]); });
    return OOM_V(oom_fold_max)(best);
}

/* y = exp(x - shift), in place allowed; returns the sum. */
static real OOM_R(row_exp)(real *y, const real *x, int64_t n, real shift) {
    vreal sums[ROW_VECTORS] = {0};
    const vreal shifts = OOM_V(oom_set)(shift);
    FOR_ROW(n, {
        vreal e = OOM_V(oom_exp)(OOM_V(oom_load_some)(x + at, left, shift) - shifts);
        e = OOM_V(oom_select)(OOM_V(oom_first)(left), e, (vreal){0});
        OOM_V(oom_store_some)(y + at, left, e);
        sums[v] += e;
    });
    return OOM_V(oom_fold)(sums);
}

static real OOM_R(row_dot)(const real *x, const real *y, int64_t n) {
    vreal sums[ROW_VECTORS] = {0};
    FOR_ROW(n, {
        vreal product = OOM_V(oom_load_some)(x + at, left, 0);
        product *= OOM_V(oom_load_some)(y + at, left, 0);
        sums[v] += product;
    });
    return OOM_V(oom_fold)(sums);
}

/* y = x * factor, in place allowed */
static void OOM_R(row_scale)(real *y, const real *x, int64_t n, real factor) {
    const vreal factors = OOM_V(oom_set)(factor);
    FOR_ROW(n, {
        vreal scaled = OOM_V(oom_load_some)(x + at, left, 0) * factors;
        OOM_V(oom_store_some)(y + at, left, scaled);
    });
}

/* dscores = probs * (dprobs - dot) */
static void OOM_R(row_softmax_back)(real *dscores, const real *probs, const real *dprobs, int64_t n,
                                    real dot) {
    const vreal dots = OOM_V(oom_set)(dot);
    FOR_ROW(n, {
        vreal d = OOM_V(oom_load_some)(dprobs + at, left, 0) - dots;
        d *= OOM_V(oom_load_some)(probs + at, left, 0);
        OOM_V(oom_store_some)(dscores + at, left, d);
    });
}

static void OOM_R(rows_scale)(real *y, int64_t ldy, const real *x, int64_t ldx, int64_t rows,
                              int64_t n, real factor) {
    for (int64_t r = 0; r < rows; r++) OOM_R(row_scale)(y + r * ldy, x + r * ldx, n, factor);
}

/* ---- products ---- */

struct OOM_R(matrix) {
    const real *at;
    int64_t ld;
};

enum OOM_R(form) { OOM_R(PLAIN), OOM_R(TURNED_A), OOM_R(TURNED_B) };

/* c [+]= op(a) op(b), c (m,n), chains over k */
static void OOM_R(multiply)(enum OOM_R(form) form, bool go_on, int64_t m, int64_t n, int64_t k,
                            struct OOM_R(matrix) a, struct OOM_R(matrix) b, real *c, int64_t ldc,
                            void *scratch) {
    struct oom_product p = {
        .transpose_a = form == OOM_R(TURNED_A),
        .transpose_b = form == OOM_R(TURNED_B),
        .accumulate = go_on,
        .m = m,
        .n = n,
        .k = k,
        .a = a.at,
        .lda = a.ld,
        .b = b.at,
        .ldb = b.ld,
        .c = c,
        .ldc = ldc,
    };
    OOM_HOST_NAME(OOM_R(oom_product))(&p, scratch);
}

/* c[r] += sum of t(r,j) b[j] in order of j, over j <= r with t(r,j) = a[r][j], or, turned, over
 * j >= r with t(r,j) = a[j][r]: the lower triangle of a either way. */
static void OOM_R(triangle_leaf)(bool turned, int64_t count, int64_t n, struct OOM_R(matrix) a,
                                 struct OOM_R(matrix) b, real *c, int64_t ldc) {
    for (int64_t r = 0; r < count; r++) {
        int64_t first = turned ? r : 0, last = turned ? count - 1 : r;
        const real *t = turned ? a.at + r : a.at + r * a.ld;
        int64_t step = turned ? a.ld : 1;
        for (int64_t at = 0; at < n; at += REAL_LANES) {
            vreal sum = OOM_V(oom_load_some)(c + r * ldc + at, n - at, 0);
            for (int64_t j = first; j <= last; j++)
                sum = OOM_V(oom_fma)(OOM_V(oom_set)(t[j * step]),
                                     OOM_V(oom_load_some)(b.at + j * b.ld + at, n - at, 0), sum);
            OOM_V(oom_store_some)(c + r * ldc + at, n - at, sum);
        }
    }
}

/* The same by halves: a triangle, a square, a triangle; each chain still goes on in order. */
static void OOM_R(triangle)(bool turned, int64_t count, int64_t n, struct OOM_R(matrix) a,
                            struct OOM_R(matrix) b, real *c, int64_t ldc, void *scratch) {
    if (count <= LEAF) {
        OOM_R(triangle_leaf)(turned, count, n, a, b, c, ldc);
        return;
    }
    int64_t half = (count / 2 + LEAF - 1) / LEAF * LEAF, rest = count - half;
    struct OOM_R(matrix) square = {a.at + half * a.ld, a.ld}, b_rest = {b.at + half * b.ld, b.ld};
    struct OOM_R(matrix) a_rest = {square.at + half, a.ld};
    OOM_R(triangle)(turned, half, n, a, b, c, ldc, scratch);
    if (turned)
        OOM_R(multiply)(OOM_R(TURNED_A), true, half, n, rest, square, b_rest, c, ldc, scratch);
    else
        OOM_R(multiply)(OOM_R(PLAIN), true, rest, n, half, square, b, c + half * ldc, ldc, scratch);
    OOM_R(triangle)(turned, rest, n, a_rest, b_rest, c + half * ldc, ldc, scratch);
}
