/*
 * attention-scores.h: attention with materialised scores, for one type (real.h), one head at a
 * time. Included by attention.c.
 */

/* scores[i][j] = x[i] . y[j] for rows i0 .. i0 + rows and j <= i; the diagonal block goes through
 * the tile, as nothing right of the diagonal may be written. */
static void OOM_R(lower_product)(int64_t i0, int64_t rows, int64_t size, struct oom_factor x,
                                 struct oom_factor y, stored *scores, int64_t ld, real *tile,
                                 void *scratch) {
    stored *out = scores + i0 * ld;
    struct oom_product before = {.m = rows,
                                 .n = i0,
                                 .k = size,
                                 .a = x,
                                 .b = turned(y),
                                 .c_dtype = STORED_DTYPE,
                                 .c = out,
                                 .ldc = ld};
    struct OOM_R(sums) diagonal = {tile, TILE};
    OOM_HOST_NAME(oom_product)(&before, scratch);
    OOM_R(multiply)(false, rows, rows, size, x, turned(from(y, i0, 0)), diagonal, scratch);
    for (int64_t r = 0; r < rows; r++)
        OOM_R(row_write)(out + r * ld + i0, tile + r * TILE, r + 1, 1);
}

/* c[i] = factor * sum over j <= i of a[i][j] b[j], block by block */
static void OOM_R(lower_times)(const struct head *h, struct oom_factor a, struct oom_factor b,
                               stored *c, int64_t ldc, real factor, struct OOM_R(tiles) s) {
    int64_t block = tile_rows(h->size);
    for (int64_t i0 = 0; i0 < h->positions; i0 += block) {
        int64_t rows = min_i64(block, h->positions - i0);
        stored *out = c + i0 * ldc;
        struct OOM_R(sums) sums = OOM_R(sums_of)(out, ldc, s.sums, h->size);
        OOM_R(multiply)(false, rows, h->size, i0, from(a, i0, 0), b, sums, s.scratch);
        OOM_R(triangle)(rows, h->size, from(a, i0, i0), from(b, i0, 0), sums, s.scratch);
        OOM_R(rows_write)(out, ldc, sums.at, sums.ld, rows, h->size, factor);
    }
}

/* c[j] = factor * sum over i >= j of a[i][j] b[i] */
static void OOM_R(lower_turned_times)(const struct head *h, struct oom_factor a,
                                      struct oom_factor b, stored *c, int64_t ldc, real factor,
                                      struct OOM_R(tiles) s) {
    int64_t block = tile_rows(h->size);
    for (int64_t j0 = 0; j0 < h->positions; j0 += block) {
        int64_t rows = min_i64(block, h->positions - j0), next = j0 + rows;
        stored *out = c + j0 * ldc;
        struct OOM_R(sums) sums = OOM_R(sums_of)(out, ldc, s.sums, h->size);
        OOM_R(sums_clear)(sums, rows, h->size);
        OOM_R(triangle)
        (rows, h->size, turned(from(a, j0, j0)), from(b, j0, 0), sums, s.scratch);
        if (next < h->positions) OOM_R(multiply)
        (true, rows, h->size, h->positions - next, turned(from(a, next, j0)), from(b, next, 0),
         sums, s.scratch);
        OOM_R(rows_write)(out, ldc, sums.at, sums.ld, rows, h->size, factor);
    }
}

static void OOM_R(scores_forward)(const struct oom_attention_scores_forward_args *x, int64_t item,
                                  void *scratch) {
    struct head h = head_of(item, x->positions, x->channels, x->heads);
    struct OOM_R(tiles) s = OOM_R(tiles_of)(scratch);
    const stored *q = OOM_HOST_PTR(const stored, x->qkv) + h.qkv;
    struct oom_factor k = OOM_R(in_memory)(q + h.channels, h.row);
    struct oom_factor queries = OOM_R(computed)(s.queries, h.size);
    stored *scores = OOM_HOST_PTR(stored, x->scores) + h.scores;
    int64_t block = tile_rows(h.size);
    for (int64_t i0 = 0; i0 < h.positions; i0 += block) {
        int64_t rows = min_i64(block, h.positions - i0);
        OOM_R(rows_read)
        (s.queries, h.size, q + i0 * h.row, h.row, rows, h.size, OOM_R(scale_of)(&h));
        OOM_R(lower_product)
        (i0, rows, h.size, queries, k, scores, h.positions, s.probs, scratch);
    }
}

#if !HALF
/* y = exp(x - shift), in place allowed; returns the sum. */
static real OOM_R(row_exp)(real *y, const real *x, int64_t n, real shift) {
    vreal sums[ROW_VECTORS] = {0};
    FOR_ROW(n, {
        vreal e = OOM_R(exp_some)(x + at, left, shift);
        OOM_V(oom_store_some)(y + at, left, e);
        sums[v] += e;
    });
    return OOM_V(oom_fold)(sums);
}
#endif

/* Of halves, the exponentials are made twice: a row of any length needs no copy of it in f32. */
static void OOM_R(softmax_row)(stored *probs, const stored *scores, int64_t n) {
    const real best = OOM_R(row_max)(scores, n);
#if HALF
    vreal sums[ROW_VECTORS] = {0};
    FOR_ROW(n, { sums[v] += OOM_R(exp_some)(scores + at, left, best); });
    const real factor = 1 / OOM_V(oom_fold)(sums);
    FOR_ROW(n, {
        OOM_S(oom_put)(probs + at, left, OOM_R(exp_some)(scores + at, left, best) * factor);
    });
#else
    real sum = OOM_R(row_exp)(probs, scores, n, best);
    OOM_R(row_write)(probs, probs, n, 1 / sum);
#endif
}

static void OOM_R(softmax_forward)(const struct oom_attention_softmax_forward_args *x, int64_t item,
                                   void *scratch) {
    (void)scratch;
    int64_t offset = item * x->positions * x->positions;
    const stored *scores = OOM_HOST_PTR(const stored, x->scores) + offset;
    stored *probs = OOM_HOST_PTR(stored, x->probs) + offset;
    for (int64_t i = 0; i < x->positions; i++, scores += x->positions, probs += x->positions)
        OOM_R(softmax_row)(probs, scores, i + 1);
}

static void OOM_R(values_forward)(const struct oom_attention_values_forward_args *x, int64_t item,
                                  void *scratch) {
    struct head h = head_of(item, x->positions, x->channels, x->heads);
    const stored *qkv = OOM_HOST_PTR(const stored, x->qkv) + h.qkv;
    const stored *probs = OOM_HOST_PTR(const stored, x->probs) + h.scores;
    OOM_R(lower_times)
    (&h, OOM_R(in_memory)(probs, h.positions), OOM_R(in_memory)(qkv + 2 * h.channels, h.row),
     OOM_HOST_PTR(stored, x->out) + h.out, h.channels, 1, OOM_R(tiles_of)(scratch));
}

static void OOM_R(values_backward)(const struct oom_attention_values_backward_args *x, int64_t item,
                                   void *scratch) {
    struct head h = head_of(item, x->positions, x->channels, x->heads);
    struct OOM_R(tiles) s = OOM_R(tiles_of)(scratch);
    const stored *qkv = OOM_HOST_PTR(const stored, x->qkv) + h.qkv;
    struct oom_factor v = OOM_R(in_memory)(qkv + 2 * h.channels, h.row);
    struct oom_factor probs =
        OOM_R(in_memory)(OOM_HOST_PTR(const stored, x->probs) + h.scores, h.positions);
    struct oom_factor dout =
        OOM_R(in_memory)(OOM_HOST_PTR(const stored, x->dout) + h.out, h.channels);
    stored *dv = OOM_HOST_PTR(stored, x->dqkv) + h.qkv + 2 * h.channels;
    stored *dprobs = OOM_HOST_PTR(stored, x->dprobs) + h.scores;
    for (int64_t i0 = 0; i0 < h.positions; i0 += TILE) {
        OOM_R(lower_product)
        (i0, min_i64(TILE, h.positions - i0), h.size, from(dout, i0, 0), v, dprobs, h.positions,
         s.probs, scratch);
    }
    OOM_R(lower_turned_times)(&h, probs, dout, dv, h.row, 1, s);
}

static void OOM_R(softmax_backward)(const struct oom_attention_softmax_backward_args *x,
                                    int64_t item, void *scratch) {
    (void)scratch;
    for (int64_t i = 0; i < x->positions; i++) {
        int64_t row = (item * x->positions + i) * x->positions;
        const stored *probs = OOM_HOST_PTR(const stored, x->probs) + row;
        const stored *dprobs = OOM_HOST_PTR(const stored, x->dprobs) + row;
        OOM_R(row_softmax_back)
        (OOM_HOST_PTR(stored, x->dscores) + row, probs, dprobs, i + 1,
         OOM_R(row_dot)(probs, dprobs, i + 1));
    }
}

static void OOM_R(scores_backward)(const struct oom_attention_scores_backward_args *x, int64_t item,
                                   void *scratch) {
    struct head h = head_of(item, x->positions, x->channels, x->heads);
    struct OOM_R(tiles) s = OOM_R(tiles_of)(scratch);
    const stored *qkv = OOM_HOST_PTR(const stored, x->qkv) + h.qkv;
    struct oom_factor q = OOM_R(in_memory)(qkv, h.row);
    struct oom_factor k = OOM_R(in_memory)(qkv + h.channels, h.row);
    struct oom_factor dscores =
        OOM_R(in_memory)(OOM_HOST_PTR(const stored, x->dscores) + h.scores, h.positions);
    stored *dq = OOM_HOST_PTR(stored, x->dqkv) + h.qkv, *dk = dq + h.channels;
    OOM_R(lower_times)(&h, dscores, k, dq, h.row, OOM_R(scale_of)(&h), s);
    OOM_R(lower_turned_times)(&h, dscores, q, dk, h.row, OOM_R(scale_of)(&h), s);
}
