/*
 * attention-tiled.h: attention by tiles with online softmax, for one type (real.h), one head at a
 * time. Included by attention.c.
 *
 * Forward, for a block of queries and each block of keys up to the diagonal, with m the largest
 * score so far and l the sum of exp(score - m):
 *     m' = max(m, tile);  P = exp(tile - m');  a = exp(m - m');  l = a l + sum P;  O = a O + P v
 * and out = O / l, lse = m + log l. Backward makes P = exp(tile - lse) anew.
 */

/* One tile's worth of the forward: rows of the block's state go from m, l to m', l', out to a out.
 * Row r has the tile's first r + 1 columns on the diagonal, else all. */
static void OOM_R(tile_softmax)(real *tile, int64_t rows, int64_t columns, bool diagonal,
                                bool first, real *m, real *l, struct OOM_R(sums) out,
                                int64_t size) {
    for (int64_t r = 0; r < rows; r++) {
        real *row = tile + r * TILE, *sums = out.at + r * out.ld;
        int64_t n = diagonal ? r + 1 : columns;
        real best = OOM_W(row_max)(row, n);
        if (first) {
            l[r] = OOM_W(row_exp)(row, row, n, best);
        } else {
            best = best > m[r] ? best : m[r];
            real fade = OOM_W(oom_exp)(m[r] - best);
            l[r] = fade * l[r] + OOM_W(row_exp)(row, row, n, best);
            OOM_W(row_write)(sums, sums, size, fade);
        }
        m[r] = best;
    }
}

static void OOM_R(tiled_forward)(const struct oom_attention_tiled_forward_args *x, int64_t item,
                                 void *scratch) {
    struct head h = head_of(item, x->positions, x->channels, x->heads);
    struct OOM_R(tiles) s = OOM_R(tiles_of)(scratch);
    const stored *q = OOM_HOST_PTR(const stored, x->qkv) + h.qkv;
    const struct oom_factor k = OOM_R(in_memory)(q + h.channels, h.row);
    const struct oom_factor v = OOM_R(in_memory)(q + 2 * h.channels, h.row);
    const struct oom_factor probs = OOM_R(computed)(s.probs, TILE);
    const struct oom_factor queries = OOM_R(computed)(s.queries, h.size);
    const struct OOM_R(sums) tile = {s.probs, TILE};
    int64_t block = tile_rows(h.size);
    real m[TILE], l[TILE];
    for (int64_t i0 = 0; i0 < h.positions; i0 += block) {
        int64_t rows = min_i64(block, h.positions - i0);
        stored *out = OOM_HOST_PTR(stored, x->out) + h.out + i0 * h.channels;
        real *lse = OOM_HOST_PTR(real, x->lse) + h.lse + i0;
        struct OOM_R(sums) sums = OOM_R(sums_of)(out, h.channels, s.sums, h.size);
        OOM_R(rows_read)
        (s.queries, h.size, q + i0 * h.row, h.row, rows, h.size, OOM_R(scale_of)(&h));
        for (int64_t j0 = 0; j0 <= i0; j0 += block) {
            bool diagonal = j0 == i0;
            int64_t columns = diagonal ? rows : block;
            OOM_R(multiply)
            (false, rows, columns, h.size, queries, turned(from(k, j0, 0)), tile, scratch);
            OOM_R(tile_softmax)
            (s.probs, rows, columns, diagonal, j0 == 0, m, l, sums, h.size);
            /* on the diagonal of the first block nothing is there to go on from: k = 0 clears it */
            OOM_R(multiply)
            (j0 > 0, rows, h.size, diagonal ? 0 : columns, probs, from(v, j0, 0), sums, scratch);
            if (diagonal) OOM_R(triangle)(rows, h.size, probs, from(v, j0, 0), sums, scratch);
        }
        for (int64_t r = 0; r < rows; r++) {
            OOM_R(row_write)(out + r * h.channels, sums.at + r * sums.ld, h.size, 1 / l[r]);
            lse[r] = m[r] + OOM_W(oom_log)(l[r]);
        }
    }
}

/* What the backward of a head works on. */
struct OOM_R(tiled_back) {
    struct head h;
    struct OOM_R(tiles) s;
    const stored *q;
    const real *lse, *delta;
    struct oom_factor k, v, dout; /* of all positions */
    struct OOM_R(sums) dq;        /* likewise */
    struct OOM_R(sums) dk, dv;    /* of the block of keys */
};

/* The tiles P and dS of queries i0 .. and keys j0 ..; right of the diagonal they are not defined.
 */
static void OOM_R(tiles_again)(const struct OOM_R(tiled_back) * x, int64_t i0, int64_t rows,
                               int64_t j0, int64_t columns) {
    const struct head *h = &x->h;
    const struct OOM_R(tiles) *s = &x->s;
    struct OOM_R(sums) tile = {s->probs, TILE}, other = {s->grads, TILE};
    OOM_R(rows_read)
    (s->queries, h->size, x->q + i0 * h->row, h->row, rows, h->size, OOM_R(scale_of)(h));
    OOM_R(multiply)
    (false, rows, columns, h->size, OOM_R(computed)(s->queries, h->size), turned(from(x->k, j0, 0)),
     tile, s->scratch);
    OOM_R(multiply)
    (false, rows, columns, h->size, from(x->dout, i0, 0), turned(from(x->v, j0, 0)), other,
     s->scratch);
    for (int64_t r = 0; r < rows; r++) {
        real *probs = s->probs + r * TILE, *grads = s->grads + r * TILE;
        int64_t n = i0 == j0 ? r + 1 : columns;
        OOM_W(row_exp)(probs, probs, n, x->lse[i0 + r]);
        OOM_W(row_softmax_back)(grads, probs, grads, n, x->delta[i0 + r]);
    }
}

/* Adds the tile's share: dv += P^T dout, dk += dS^T (scale q), dq += dS k. */
static void OOM_R(tiles_spread)(const struct OOM_R(tiled_back) * x, int64_t i0, int64_t rows,
                                int64_t j0, int64_t columns) {
    int64_t size = x->h.size;
    void *scratch = x->s.scratch;
    struct oom_factor probs = OOM_R(computed)(x->s.probs, TILE);
    struct oom_factor grads = OOM_R(computed)(x->s.grads, TILE);
    struct oom_factor queries = OOM_R(computed)(x->s.queries, size);
    struct oom_factor dout = from(x->dout, i0, 0), k = from(x->k, j0, 0);
    struct OOM_R(sums) dq = {x->dq.at + i0 * x->dq.ld, x->dq.ld};
    if (i0 == j0) {
        OOM_R(triangle)(rows, size, turned(probs), dout, x->dv, scratch);
        OOM_R(triangle)(rows, size, turned(grads), queries, x->dk, scratch);
        OOM_R(triangle)(rows, size, grads, k, dq, scratch);
        return;
    }
    OOM_R(multiply)(true, columns, size, rows, turned(probs), dout, x->dv, scratch);
    OOM_R(multiply)(true, columns, size, rows, turned(grads), queries, x->dk, scratch);
    OOM_R(multiply)(true, rows, size, columns, grads, k, dq, scratch);
}

/* dk and dv of keys j0 .. and their share of dq */
static void OOM_R(tiled_keys)(struct OOM_R(tiled_back) * x, int64_t j0, int64_t block,
                              stored *dqkv) {
    const struct head *h = &x->h;
    int64_t columns = min_i64(block, h->positions - j0);
    stored *dk = dqkv + j0 * h->row + h->channels, *dv = dk + h->channels;
    x->dk = OOM_R(sums_of)(dk, h->row, x->s.sums, h->size);
    x->dv = OOM_R(sums_of)(dv, h->row, x->s.others, h->size);
    OOM_R(sums_clear)(x->dk, columns, h->size);
    OOM_R(sums_clear)(x->dv, columns, h->size);
    for (int64_t i0 = j0; i0 < h->positions; i0 += block) {
        int64_t rows = min_i64(block, h->positions - i0);
        OOM_R(tiles_again)(x, i0, rows, j0, columns);
        OOM_R(tiles_spread)(x, i0, rows, j0, columns);
    }
    OOM_R(rows_write)(dk, h->row, x->dk.at, x->dk.ld, columns, h->size, 1);
    OOM_R(rows_write)(dv, h->row, x->dv.at, x->dv.ld, columns, h->size, 1);
}

static void OOM_R(tiled_backward)(const struct oom_attention_tiled_backward_args *x, int64_t item,
                                  void *scratch) {
    struct head h = head_of(item, x->positions, x->channels, x->heads);
    const stored *qkv = OOM_HOST_PTR(const stored, x->qkv) + h.qkv;
    const stored *out = OOM_HOST_PTR(const stored, x->out) + h.out;
    const stored *dout = OOM_HOST_PTR(const stored, x->dout) + h.out;
    stored *dqkv = OOM_HOST_PTR(stored, x->dqkv) + h.qkv;
    real *workspace = OOM_HOST_PTR(real, x->workspace), *delta = workspace + h.lse;
    real *dq = workspace + x->batch * x->heads * h.positions + item * h.positions * h.size;
    struct OOM_R(tiled_back) back = {
        .h = h,
        .s = OOM_R(tiles_of)(scratch),
        .q = qkv,
        .lse = OOM_HOST_PTR(const real, x->lse) + h.lse,
        .delta = delta,
        .k = OOM_R(in_memory)(qkv + h.channels, h.row),
        .v = OOM_R(in_memory)(qkv + 2 * h.channels, h.row),
        .dout = OOM_R(in_memory)(dout, h.channels),
        .dq = OOM_R(sums_of)(dqkv, h.row, dq, h.size),
    };
    for (int64_t i = 0; i < h.positions; i++)
        delta[i] = OOM_R(row_dot)(dout + i * h.channels, out + i * h.channels, h.size);
    OOM_R(sums_clear)(back.dq, h.positions, h.size);
    int64_t block = tile_rows(h.size);
    for (int64_t j0 = 0; j0 < h.positions; j0 += block) OOM_R(tiled_keys)(&back, j0, block, dqkv);
    OOM_R(rows_write)
    (dqkv, h.row, back.dq.at, back.dq.ld, h.positions, h.size, OOM_R(scale_of)(&h));
}
