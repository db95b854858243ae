/*
 * attention.c: causal multi-head attention with materialised scores, one op per stage, and tiled
 * with online softmax (formulas in ops.h). One work item is a head of a sample; threads share them
 * out, so a result depends on neither batch nor threads.
 *
 * All sums over positions or channels are fma chains in order (product.h); sums within a row of
 * probabilities use the fixed tree of 32 lanes; exp and log are math.h's. q is multiplied by the
 * scale before it meets k: D products a row instead of T.
 *
 * Causality is exact, not a multiplication by 0: on the diagonal the square products below it are
 * cut in halves down to triangles of 8 rows, and no future row is ever read into a sum. A NaN in a
 * later token cannot reach an earlier one.
 *
 * Halves: everything is computed in f32; sums that grow over tiles stay in the thread's scratch (dq
 * of the tiled backward in the workspace) and are rounded once, when they are done.
 *
 * Traffic of a head, in elements: materialised, T^2/2 for every score array read or written and
 * T D for q, k, v, out; blocks of rows read k and v again from L2. Tiled, T D for q and out and
 * T^2 D / (2 * 64) for k and v; the tile of scores (64 x 64) stays in the thread's scratch. The
 * backward reads q, dout (T^2 D / 128) beside them and makes each tile anew: 5 products instead
 * of 4.
 */
#include "kernels/host/isa/fma.h"
#include "kernels/host/isa/half-vector.h"
#include "kernels/host/isa/product.h"
#include "kernels/host/isa/vector-math.h"
#include "kernels/host/isa/vector.h"
#include "kernels/host/kernels.h"

enum {
    TILE = 64,   /* queries and keys of a tile */
    WIDTH = 256, /* of the heads that a tile's rows fit */
    LEAF = 8,    /* rows of a triangle that is summed directly */
};

/* Where the arrays of one head begin, in elements. */
struct head {
    int64_t positions, size, channels, row; /* T, D, C, 3C */
    int64_t qkv, out, scores, lse;
};

static struct head head_of(int64_t item, int64_t positions, int64_t channels, int64_t heads) {
    int64_t sample = item / heads, head = item % heads, size = channels / heads;
    return (struct head){
        .positions = positions,
        .size = size,
        .channels = channels,
        .row = 3 * channels,
        .qkv = sample * positions * 3 * channels + head * size,
        .out = sample * positions * channels + head * size,
        .scores = item * positions * positions,
        .lse = item * positions,
    };
}

/* Rows of a tile: by the head's size alone, so that the scaled queries always fit the scratch. */
static int64_t tile_rows(int64_t size) {
    enum { ELEMENTS = TILE * WIDTH };
    if (size <= WIDTH) return TILE;
    return size < ELEMENTS ? ELEMENTS / size : 1;
}

static inline int64_t min_i64(int64_t x, int64_t y) {
    return x < y ? x : y;
}

/* The factor from a row and column of what is stored on; the factor turned. */
static inline struct oom_factor from(struct oom_factor f, int64_t row, int64_t column) {
    f.row += row;
    f.column += column;
    return f;
}

static inline struct oom_factor turned(struct oom_factor f) {
    f.transpose = !f.transpose;
    return f;
}

#define OOM_BODY "kernels/host/isa/attention-body.h"
#include "kernels/host/isa/each-dtype.h"

#define ATTENTION(name) \
    void OOM_HOST_KERNEL(attention_##name)(const void *args, const struct oom_host_part *part) { \
        const struct oom_attention_##name##_args *x = args; \
        int64_t begin, end; \
        oom_host_share(x->batch * x->heads, 1, part, &begin, &end); \
        for (int64_t item = begin; item < end; item++) \
            OOM_BY_DTYPE(x->dtype, name, x, item, part->scratch); \
    }

ATTENTION(scores_forward)
ATTENTION(softmax_forward)
ATTENTION(values_forward)
ATTENTION(values_backward)
ATTENTION(softmax_backward)
ATTENTION(scores_backward)
ATTENTION(tiled_forward)
ATTENTION(tiled_backward)
