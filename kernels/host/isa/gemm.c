/*
 * gemm.c: C = [C +] op(A) op(B) [+ bias], every element one fma chain over k in order.
 *
 * Blocks as in Goto, van de Geijn 2008: columns by n, then k, then rows by m; packed panels of A
 * (TILE_ROWS wide) and of B (two vectors wide); a tile of C in registers. Each further block of k
 * loads C and goes on with the same chain, so blocks, tiles, packing, threads and instruction set
 * never show in the bits. Flops 2MNK. Traffic from beyond L2: A once per block of columns, B once,
 * C once per block of k, read and written.
 *
 * Packing costs one pass over the operand and is left out where the product is too small to earn
 * it back (measured; see blocks_choose).
 */
#include "kernels/host/isa/fma.h"
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

/* Block sizes (elements) and what is packed. */
struct blocks {
    int64_t m, n, k;
    bool pack_a, pack_b;
};

/* Measured on the shapes of the models: below a million multiplications packing costs more than
 * it gives, unless B is transposed (vectors need its columns adjacent); with few rows a packed B is
 * not used often enough to earn its pass (a long, wide one is, as packing reads it
 * along its rows from memory); k up to 256 keeps a panel of B in the first cache, 96
 * rows of A and 1.5 MiB of B in the second. */
static struct blocks blocks_choose(const struct oom_product *q, size_t size, int64_t mr,
                                   int64_t nr) {
    enum { ROWS = 96, STEPS = 256, B_BYTES = 1536 << 10, LONG = 2048 };
    _Static_assert(B_BYTES + ROWS * STEPS * sizeof(double) <= OOM_PRODUCT_SCRATCH_BYTES,
                   "packed panels fit the scratch");
    bool large = (double)q->m * (double)q->n * (double)q->k > 1e6;
    return (struct blocks){
        .m = ROWS / mr * mr,
        .n = B_BYTES / ((int64_t)size * STEPS) / nr * nr,
        .k = q->k < 1       ? 1
             : q->k < STEPS ? q->k
                            : STEPS,
        .pack_a = large,
        .pack_b = q->transpose_b || (large && q->m > (q->k > LONG && q->n > 128 ? 24 : 64)),
    };
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

void OOM_HOST_KERNEL(gemm)(const void *args, const struct oom_host_part *part) {
    const struct oom_gemm_args *g = args;
    if (g->dtype == OOM_F64)
        gemm_part_f64(g, part);
    else
        gemm_part_f32(g, part);
}
