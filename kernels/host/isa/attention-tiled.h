/*
 * attention-tiled.h: attention by tiles with online softmax, for one type (real.h), one head at a
 * time. Included by attention.c.
 *
 * Forward, for a block of queries and each block of keys up to the diagonal, with m the largest
 * score so far and l the sum of exp(score - m):
 *     m' = max(m, tile);  P = exp(tile - m');  a = exp(m - m');  l = a l + sum P;  O = a O + P v
 * and out = O / l, lse = m + log l. Backward makes P = exp(tile - lse) anew.
 */

/* The thread's tiles. */
struct OOM_R(tiles) {
    real *probs, *grads; /* (TILE, TILE) each */
    real *queries;       /* scaled, (rows, D) */
    void *scratch;       /* of the products */
};

static struct OOM_R(tiles) OOM_R(tiles_of)(void *scratch) {
    real *other = OOM_R(other_scratch)(scratch);
    return (struct OOM_R(tiles)){other, other + TILE * TILE, other + 2 * TILE * TILE, scratch};
}

/* One tile's worth of the forward: rows of the block's state go from m, l to m', l', out to a out.
 * Row r has the tile's first r + 1 columns on the diagonal, else all. */
static void OOM_R(tile_softmax)(real *tile, int64_t rows, int64_t columns, bool diagonal,
                                bool first, real *m, real *l, real *out, int64_t ld, int64_t size) {
    for (int64_t r = 0; r < rows; r++) {
        real *row = tile + r * TILE;
        int64_t n = diagonal ? r + 1 : columns;
        real best = OOM_R(row_max)(row, n);
        if (first) {
            l[r] = OOM_R(row_exp)(row, row, n, best);
        } else {
            best = best > m[r] ? best : m[r];
            real fade = OOM_R(oom_exp)(m[r] - best);
            l[r] = fade * l[r] + OOM_R(row_exp)(row, row, n, best);
            OOM_R(row_scale)(out + r * ld, out + r * ld, size, fade);
        }
        m[r] = best;
    }
}

static void OOM_R(tiled_forward)(const struct oom_attention_tiled_forward_args *x, int64_t item,
                                 void *scratch) {
    struct head h = head_of(item, x->positions, x->channels, x->heads);
    struct OOM_R(tiles) s = OOM_R(tiles_of)(scratch);
    const real *q = OOM_HOST_PTR(const real, x->qkv) + h.qkv;
    int64_t block = tile_rows(h.size);
    struct OOM_R(matrix) probs = {s.probs, TILE}, queries = {s.queries, h.size};
    real m[TILE], l[TILE];
    for (int64_t i0 = 0; i0 < h.positions; i0 += block) {
        int64_t rows = min_i64(block, h.positions - i0);
        real *out = OOM_HOST_PTR(real, x->out) + h.out + i0 * h.channels;
        real *lse = OOM_HOST_PTR(real, x->lse) + h.lse + i0;
        OOM_R(rows_scale)
        (s.queries, h.size, q + i0 * h.row, h.row, rows, h.size, OOM_R(scale_of)(&h));
        for (int64_t j0 = 0; j0 <= i0; j0 += block) {
            bool diagonal = j0 == i0;
            int64_t columns = diagonal ? rows : block;
            struct OOM_R(matrix) k = {q + h.channels + j0 * h.row, h.row};
            struct OOM_R(matrix) v = {k.at + h.channels, h.row};
            OOM_R(multiply)
            (OOM_R(TURNED_B), false, rows, columns, h.size, queries, k, s.probs, TILE, scratch);
            OOM_R(tile_softmax)
            (s.probs, rows, columns, diagonal, j0 == 0, m, l, out, h.channels, h.size);
            /* on the diagonal of the first block nothing is there to go on from: k = 0 clears it */
            OOM_R(multiply)
            (OOM_R(PLAIN), j0 > 0, rows, h.size, diagonal ? 0 : columns, probs, v, out, h.channels,
             scratch);
            if (diagonal) OOM_R(triangle)(false, rows, h.size, probs, v, out, h.channels, scratch);
        }
        for (int64_t r = 0; r < rows; r++) {
            OOM_R(row_scale)(out + r * h.channels, out + r * h.channels, h.size, 1 / l[r]);
            lse[r] = m[r] + OOM_R(oom_log)(l[r]);
        }
    }
}

/* What the backward of a head works on. */
struct OOM_R(tiled_back) {
    struct head h;
    struct OOM_R(tiles) s;
    const real *q, *dout, *lse, *delta; /* k is q + C, v is q + 2C */
    real *dq;                           /* likewise */
};

/* The tiles P and dS of queries i0 .. and keys j0 ..; right of the diagonal they are not defined.
 */
static void OOM_R(tiles_again)(const struct OOM_R(tiled_back) * x, int64_t i0, int64_t rows,
                               int64_t j0, int64_t columns) {
    const struct head *h = &x->h;
    struct OOM_R(matrix) queries = {x->s.queries, h->size};
    struct OOM_R(matrix) dout = {x->dout + i0 * h->channels, h->channels};
    struct OOM_R(matrix) k = {x->q + h->channels + j0 * h->row, h->row};
    struct OOM_R(matrix) v = {k.at + h->channels, h->row};
    OOM_R(rows_scale)
    (x->s.queries, h->size, x->q + i0 * h->row, h->row, rows, h->size, OOM_R(scale_of)(h));
    OOM_R(multiply)
    (OOM_R(TURNED_B), false, rows, columns, h->size, queries, k, x->s.probs, TILE, x->s.scratch);
    OOM_R(multiply)
    (OOM_R(TURNED_B), false, rows, columns, h->size, dout, v, x->s.grads, TILE, x->s.scratch);
    for (int64_t r = 0; r < rows; r++) {
        real *probs = x->s.probs + r * TILE, *grads = x->s.grads + r * TILE;
        int64_t n = i0 == j0 ? r + 1 : columns;
        OOM_R(row_exp)(probs, probs, n, x->lse[i0 + r]);
        OOM_R(row_softmax_back)(grads, probs, grads, n, x->delta[i0 + r]);
    }
}

/* Adds the tile's share: dv += P^T dout, dk += dS^T (scale q), dq += dS k. */
static void OOM_R(tiles_spread)(const struct OOM_R(tiled_back) * x, int64_t i0, int64_t rows,
                                int64_t j0, int64_t columns) {
    const struct head *h = &x->h;
    struct OOM_R(matrix) probs = {x->s.probs, TILE}, grads = {x->s.grads, TILE};
    struct OOM_R(matrix) queries = {x->s.queries, h->size};
    struct OOM_R(matrix) dout = {x->dout + i0 * h->channels, h->channels};
    struct OOM_R(matrix) k = {x->q + h->channels + j0 * h->row, h->row};
    real *dq = x->dq + i0 * h->row, *dk = x->dq + h->channels + j0 * h->row, *dv = dk + h->channels;
    if (i0 == j0) {
        OOM_R(triangle)(true, rows, h->size, probs, dout, dv, h->row, x->s.scratch);
        OOM_R(triangle)(true, rows, h->size, grads, queries, dk, h->row, x->s.scratch);
        OOM_R(triangle)(false, rows, h->size, grads, k, dq, h->row, x->s.scratch);
        return;
    }
    OOM_R(multiply)
    (OOM_R(TURNED_A), true, columns, h->size, rows, probs, dout, dv, h->row, x->s.scratch);
    OOM_R(multiply)
    (OOM_R(TURNED_A), true, columns, h->size, rows, grads, queries, dk, h->row, x->s.scratch);
    OOM_R(multiply)(OOM_R(PLAIN), true, rows, h->size, columns, grads, k, dq, h->row, x->s.scratch);
}

static void OOM_R(tiled_backward)(const struct oom_attention_tiled_backward_args *x, int64_t item,
                                  void *scratch) {
    struct head h = head_of(item, x->positions, x->channels, x->heads);
    const real *out = OOM_HOST_PTR(const real, x->out) + h.out;
    real *delta = OOM_HOST_PTR(real, x->workspace) + h.lse;
    struct OOM_R(tiled_back) back = {
        .h = h,
        .s = OOM_R(tiles_of)(scratch),
        .q = OOM_HOST_PTR(const real, x->qkv) + h.qkv,
        .dout = OOM_HOST_PTR(const real, x->dout) + h.out,
        .lse = OOM_HOST_PTR(const real, x->lse) + h.lse,
        .delta = delta,
        .dq = OOM_HOST_PTR(real, x->dqkv) + h.qkv,
    };
    for (int64_t i = 0; i < h.positions; i++) {
        delta[i] = OOM_R(row_dot)(back.dout + i * h.channels, out + i * h.channels, h.size);
        for (int part = 0; part < 3; part++)
            memset(back.dq + part * h.channels + i * h.row, 0, (size_t)h.size * sizeof(real));
    }
    int64_t block = tile_rows(h.size);
    for (int64_t j0 = 0; j0 < h.positions; j0 += block)
        for (int64_t i0 = j0; i0 < h.positions; i0 += block) {
            int64_t rows = min_i64(block, h.positions - i0);
            int64_t columns = i0 == j0 ? rows : block;
            OOM_R(tiles_again)(&back, i0, rows, j0, columns);
            OOM_R(tiles_spread)(&back, i0, rows, j0, columns);
        }
    OOM_R(rows_scale)(back.dq, h.row, back.dq, h.row, h.positions, h.size, OOM_R(scale_of)(&h));
}
