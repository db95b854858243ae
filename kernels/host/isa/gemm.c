/*
 * gemm.c: C = [C +] op(A) op(B) [+ bias], every element summed over k in order: in one fma chain
 * from C when accumulating, else in chains of OOM_CHAIN_STEPS that are added up.
 *
 * Blocks as in Goto, van de Geijn 2008: columns by n, then k, then rows by m; packed panels of A
 * (TILE_ROWS wide) and of B (two vectors wide); a tile of C in registers. Each further block of k
 * loads C and goes on with the same chain, or adds its own to it, so blocks, tiles, packing,
 * threads and instruction set never show in the bits. Flops 2MNK. Traffic from beyond L2: A once
 * per block of columns, B once, C once per block of k, read and written.
 *
 * Halves are converted to f32 by the pass that packs them, so the chains are those of f32; a C of
 * halves is rounded tile by tile after the last block of k.
 *
 * Packing costs one pass over the operand and is left out where the product is too small to earn
 * it back (measured; see blocks_choose).
 */
#include "kernels/host/isa/fma.h"
#include "kernels/host/isa/half-vector.h"
#include "kernels/host/isa/product.h"
#include "kernels/host/kernels.h"

#if defined(__AVX512F__) || defined(__ARM_FEATURE_FMA)
#define TILE_ROWS 12 /* 24 accumulators of 32 registers */
#define TILE_ROW_COUNTS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#elif defined(__AVX2__)
#define TILE_ROWS 6 /* 12 of 16 */
#define TILE_ROW_COUNTS(X) X(1) X(2) X(3) X(4) X(5) X(6)
#else
#define TILE_ROWS 2 /* an emulated fma needs the registers itself */
#define TILE_ROW_COUNTS(X) X(1) X(2)
#endif
#define TILE_VECTORS 2

/* Part of a vector of B is read in place; otherwise B is packed, its last vector filled up. */
#define ENDS_IN_PLACE (OOM_VECTOR_BYTES > 16)

/* Block sizes (elements) and what is packed. */
struct blocks {
    int64_t m, n, k;
    int64_t rows; /* of C, taken through all of k before the next */
    bool pack_a, pack_b;
};

enum {
    PANELS_AT_ONCE = 8,   /* that packing fills */
    STEPS_AT_ONCE = 16,   /* made for them, where they are not in place */
    ROOM = 8 << 10,       /* elements made at once */
    B_BYTES = 1536 << 10, /* of packed panels of B */
    HALF_COLUMNS = 512,   /* of a C of halves that is kept through the blocks of k ... */
    HALF_ELEMENTS = 288 * HALF_COLUMNS, /* ... and all that is kept of it */
};

/* As numbers that can be computed with where they are. */
static inline bool in_memory(const struct oom_factor *f) {
    return f->gather == NULL && !oom_dtype_is_half(f->dtype);
}

/* A large product's A is read as it is stored, or converted, where the columns of B are few: it is
 * not used often enough to earn its pass (half as fast again at 16 columns, a tenth at 64; at 128
 * packing won). Turned with long rows every step would be on another page. */
static bool narrow(const struct oom_product *q) {
    enum { COLUMNS = 64, ROW = 256 };
    return q->n <= COLUMNS && (!q->a.transpose || q->a.ld <= ROW);
}

/* Measured on the shapes of the models: below a million multiplications packing costs more than
 * it gives, unless B is transposed (vectors need its columns adjacent); with few rows a packed B is
 * not used often enough to earn its pass (a long, wide one is, as packing reads it
 * along its rows from memory); k up to 256 keeps a panel of B in the first cache, 96
 * rows of A and 1.5 MiB of B in the second. A factor that does not lie in memory as it is computed
 * with is packed (B) or at least copied (A), few rows at a time then, as they are not read often; A
 * of a gather never more than that, as a second pass cost up to a third of a convolution's speed. A
 * C of halves stays in f32 through all of k, so it is taken in lots of as many rows as there is
 * room for, and B packed again for each. */
static struct blocks blocks_choose(const struct oom_product *q, size_t size, int64_t mr,
                                   int64_t nr) {
    enum {
        ROWS = 96,
        FEW = 24,
        STEPS = OOM_CHAIN_STEPS,
        LONG = 2048,
        WIDEST = OOM_VECTOR_BYTES / 2
    };
    _Static_assert((ROOM + ROWS * STEPS) * sizeof(double) + B_BYTES <= OOM_PRODUCT_SCRATCH_BYTES,
                   "packed panels fit the scratch");
    _Static_assert((ROOM + ROWS * STEPS + ROWS * WIDEST) * sizeof(float) + B_BYTES <=
                       OOM_PRODUCT_SCRATCH_BYTES,
                   "so does a panel of C");
    _Static_assert((ROOM + ROWS * STEPS + HALF_COLUMNS * STEPS + HALF_ELEMENTS) * sizeof(float) <=
                       OOM_PRODUCT_SCRATCH_BYTES,
                   "so does all that is kept of C");
    _Static_assert(WIDEST * STEPS <= ROOM && PANELS_AT_ONCE * WIDEST * STEPS_AT_ONCE <= ROOM,
                   "what is made at once fits its room");
    bool large = (double)q->m * (double)q->n * (double)q->k > 1e6;
    struct blocks plan = {
        .m = (large || in_memory(&q->a) ? ROWS : FEW) / mr * mr,
        .n = B_BYTES / ((int64_t)size * STEPS) / nr * nr,
        .k = q->k < 1       ? 1
             : q->k < STEPS ? q->k
                            : STEPS,
        .rows = q->m,
        .pack_a = large && q->a.gather == NULL && !narrow(q),
        .pack_b = q->b.transpose || (large && q->m > (q->k > LONG && q->n > 128 ? 24 : 64)) ||
                  !in_memory(&q->b) || (!ENDS_IN_PLACE && q->n % (nr / TILE_VECTORS) != 0),
    };
    if (!oom_dtype_is_half(q->c_dtype) || plan.k >= q->k) return plan;
    plan.n = HALF_COLUMNS;
    int64_t columns = q->n < plan.n ? (q->n + nr - 1) / nr * nr : plan.n;
    plan.rows = columns > 0 ? HALF_ELEMENTS / columns / plan.m * plan.m : plan.m;
    return plan;
}

/* ---- halves ---- */

#define HALVES(name, TAKE, PUT) \
    static void halves_copy_##name(float *to, const uint16_t *from, int64_t ld, int64_t rows, \
                                   int64_t columns) { \
        for (int64_t r = 0; r < rows; r++, from += ld, to += columns) { \
            int64_t c = 0; \
            for (; c + OOM_VF_LANES <= columns; c += OOM_VF_LANES) \
                oom_store_vf(to + c, TAKE(from + c, OOM_VF_LANES)); \
            if (c < columns) oom_put_vf(to + c, columns - c, TAKE(from + c, columns - c)); \
        } \
    } \
    static void halves_panels_##name(float *to, int64_t apart, const uint16_t *from, int64_t ld, \
                                     int64_t rows, int64_t columns) { \
        enum { NR = TILE_VECTORS * OOM_VF_LANES }; \
        for (int64_t r = 0; r < rows; r++, from += ld, to += NR) { \
            float *panel = to; \
            for (int64_t c = 0; c < columns; c += NR, panel += apart) OOM_UNROLL \
            for (int v = 0; v < TILE_VECTORS; v++) { \
                int64_t at = c + v * OOM_VF_LANES; \
                oom_store_vf(panel + v * OOM_VF_LANES, TAKE(from + at, columns - at)); \
            } \
        } \
    } \
    static void halves_write_##name(uint16_t *to, int64_t ld, const float *from, int64_t from_ld, \
                                    int64_t rows, int64_t columns) { \
        for (int64_t r = 0; r < rows; r++, from += from_ld, to += ld) OOM_UNROLL \
        for (int v = 0; v < TILE_VECTORS; v++) { \
            int64_t at = v * OOM_VF_LANES; \
            PUT(to + at, columns - at, oom_load_vf(from + at)); \
        } \
    }

HALVES(f16, oom_take_vh, oom_put_vh)
HALVES(bf16, oom_take_vb, oom_put_vb)

/* The functions for halves have pointers to void, as the body for f64 names them too, though it
 * never calls them. */

/* A block of the factor as floats, rows adjacent. */
static void halves_copy(void *to, const struct oom_factor *f, int64_t row, int64_t rows,
                        int64_t column, int64_t columns) {
    const uint16_t *from = (const uint16_t *)f->at + row * f->ld + column;
    if (f->dtype == OOM_F16)
        halves_copy_f16(to, from, f->ld, rows, columns);
    else
        halves_copy_bf16(to, from, f->ld, rows, columns);
}

/* The same as panels of vectors, which begin `apart` floats from each other; zeros fill the last.
 */
static void halves_panels(void *to, int64_t apart, const struct oom_factor *f, int64_t row,
                          int64_t rows, int64_t column, int64_t columns) {
    const uint16_t *from = (const uint16_t *)f->at + (f->row + row) * f->ld + f->column + column;
    if (f->dtype == OOM_F16)
        halves_panels_f16(to, apart, from, f->ld, rows, columns);
    else
        halves_panels_bf16(to, apart, from, f->ld, rows, columns);
}

/* Where rows of a panel of C are to be, rounded. */
struct halves {
    enum oom_dtype dtype;
    uint16_t *at;
    int64_t ld;
};

static void halves_write(const struct halves *to, int64_t row, const void *from, int64_t ld,
                         int64_t rows, int64_t columns) {
    if (to->dtype == OOM_F16)
        halves_write_f16(to->at + row * to->ld, to->ld, from, ld, rows, columns);
    else
        halves_write_bf16(to->at + row * to->ld, to->ld, from, ld, rows, columns);
}

static inline void halves_prefetch(const struct halves *to, int64_t row, int64_t rows) {
    for (int64_t i = row; i < row + rows; i++) __builtin_prefetch(to->at + i * to->ld, 1);
}

/* The part's rectangle of the result. Of all grids of `count` parts the one is taken whose largest
 * rectangle costs least, packing (one pass over its rows of A and columns of B) counted. */
static void grid_share(int64_t m, int64_t n, int64_t nr, const struct oom_host_part *part,
                       int64_t *m0, int64_t *m1, int64_t *n0, int64_t *n1) {
    enum { ROWS = 4 }; /* any number of rows is a fast tile, any number of columns is not */
    double least = INFINITY;
    struct oom_host_part by_m = *part, by_n = *part;
    for (int across = 1; across <= part->count; across++) {
        if (part->count % across != 0) continue;
        int down = part->count / across;
        double rows = ceil(ceil((double)m / ROWS) / down) * ROWS;
        double columns = ceil(ceil((double)n / (double)nr) / across) * (double)nr;
        double cost = rows * columns + 8 * (rows + columns);
        if (!(cost < least)) continue;
        least = cost;
        by_m.index = part->index / across;
        by_m.count = down;
        by_n.index = part->index % across;
        by_n.count = across;
    }
    oom_host_share(m, ROWS, &by_m, m0, m1);
    oom_host_share(n, nr, &by_n, n0, n1);
}

#define OOM_REAL 32
#include "kernels/host/isa/real.h"
#include "kernels/host/isa/gemm-body.h"
#undef OOM_REAL
#define OOM_REAL 64
#include "kernels/host/isa/real.h"
#include "kernels/host/isa/gemm-body.h"
#undef OOM_REAL

void OOM_HOST_NAME(oom_product)(const struct oom_product *p, void *scratch) {
    if (p->c_dtype == OOM_F64)
        product_f64(p, scratch);
    else
        product_f32(p, scratch);
}

/* The factor from its row (or column) `first` on. */
static struct oom_factor factor_from(struct oom_factor f, bool by_rows, int64_t first) {
    if (by_rows)
        f.row += first;
    else
        f.column += first;
    return f;
}

void OOM_HOST_NAME(oom_product_part)(const struct oom_product *p,
                                     const struct oom_host_part *part) {
    int64_t m0, m1, n0, n1, wide = (int64_t)oom_dtype_bytes(oom_dtype_wide(p->c_dtype));
    grid_share(p->m, p->n, TILE_VECTORS * OOM_VECTOR_BYTES / wide, part, &m0, &m1, &n0, &n1);
    if (m0 >= m1 || n0 >= n1) return;
    struct oom_product q = *p;
    q.m = m1 - m0;
    q.n = n1 - n0;
    q.a = factor_from(p->a, !p->a.transpose, m0);
    q.b = factor_from(p->b, p->b.transpose, n0);
    q.c = (char *)p->c + (m0 * p->ldc + n0) * (int64_t)oom_dtype_bytes(p->c_dtype);
    if (p->bias != NULL) q.bias = (const char *)p->bias + n0 * wide;
    OOM_HOST_NAME(oom_product)(&q, part->scratch);
}

void OOM_HOST_KERNEL(gemm)(const void *args, const struct oom_host_part *part) {
    const struct oom_gemm_args *g = args;
    const struct oom_product p = {
        .accumulate = g->accumulate,
        .m = g->m,
        .n = g->n,
        .k = g->k,
        .a = {.transpose = g->transpose_a,
              .dtype = g->dtype,
              .at = OOM_HOST_PTR(const void, g->a),
              .ld = g->lda},
        .b = {.transpose = g->transpose_b,
              .dtype = g->dtype,
              .at = OOM_HOST_PTR(const void, g->b),
              .ld = g->ldb},
        .c_dtype = g->wide ? oom_dtype_wide(g->dtype) : g->dtype,
        .c = OOM_HOST_PTR(void, g->c),
        .ldc = g->ldc,
        .bias = OOM_HOST_PTR(const void, g->bias),
    };
    OOM_HOST_NAME(oom_product_part)(&p, part);
}
