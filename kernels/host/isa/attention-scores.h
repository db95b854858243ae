/*
 * attention-scores.h: attention with materialised scores, for one type (real.h), one head at a
 * time. Included by attention.c.
 */

/* scores[i][j] = x[i] . y[j] for rows i0 .. i0 + rows and j <= i; the diagonal block goes through
 * the tile, as nothing right of the diagonal may be written. */
static void OOM_R(lower_product)(int64_t i0, int64_t rows, int64_t size, struct OOM_R(matrix) x,
                                 struct OOM_R(matrix) y, real *scores, int64_t ld, real *tile,
                                 void *scratch) {
    real *out = scores + i0 * ld;
    struct OOM_R(matrix) diagonal = {y.at + i0 * y.ld, y.ld};
    OOM_R(multiply)(OOM_R(TURNED_B), false, rows, i0, size, x, y, out, ld, scratch);
    OOM_R(multiply)(OOM_R(TURNED_B), false, rows, rows, size, x, diagonal, tile, TILE, scratch);
    for (int64_t r = 0; r < rows; r++)
        memcpy(out + r * ld + i0, tile + r * TILE, (size_t)(r + 1) * sizeof(real));
}

/* c[i] = sum over j <= i of a[i][j] b[j], block by block */
static void OOM_R(lower_times)(const struct head *h, struct OOM_R(matrix) a, struct OOM_R(matrix) b,
                               real *c, int64_t ldc, void *scratch) {
    for (int64_t i0 = 0; i0 < h->positions; i0 += TILE) {
        int64_t rows = min_i64(TILE, h->positions - i0);
        struct OOM_R(matrix) left = {a.at + i0 * a.ld, a.ld}, diagonal = {left.at + i0, a.ld};
        struct OOM_R(matrix) below = {b.at + i0 * b.ld, b.ld};
        real *out = c + i0 * ldc;
        OOM_R(multiply)(OOM_R(PLAIN), false, rows, h->size, i0, left, b, out, ldc, scratch);
        OOM_R(triangle)(false, rows, h->size, diagonal, below, out, ldc, scratch);
    }
}

/* c[j] = sum over i >= j of a[i][j] b[i] */
static void OOM_R(lower_turned_times)(const struct head *h, struct OOM_R(matrix) a,
                                      struct OOM_R(matrix) b, real *c, int64_t ldc, void *scratch) {
    for (int64_t j0 = 0; j0 < h->positions; j0 += TILE) {
        int64_t rows = min_i64(TILE, h->positions - j0), next = j0 + rows;
        struct OOM_R(matrix) diagonal = {a.at + j0 * a.ld + j0, a.ld};
        struct OOM_R(matrix) b_here = {b.at + j0 * b.ld, b.ld};
        real *out = c + j0 * ldc;
        for (int64_t r = 0; r < rows; r++) memset(out + r * ldc, 0, (size_t)h->size * sizeof(real));
        OOM_R(triangle)(true, rows, h->size, diagonal, b_here, out, ldc, scratch);
        if (next == h->positions) break;
        struct OOM_R(matrix) below = {a.at + next * a.ld + j0, a.ld};
        struct OOM_R(matrix) b_below = {b.at + next * b.ld, b.ld};
        OOM_R(multiply)
        (OOM_R(TURNED_A), true, rows, h->size, h->positions - next, below, b_below, out, ldc,
         scratch);
    }
}

static real *OOM_R(other_scratch)(void *scratch) {
    return (real *)((unsigned char *)scratch + OOM_PRODUCT_SCRATCH_BYTES);
}

/* 1 / sqrt(D), rounded once more to the type */
static real OOM_R(scale_of)(const struct head *h) {
    return (real)(1 / sqrt((double)h->size));
}

static void OOM_R(scores_forward)(const struct oom_attention_scores_forward_args *x, int64_t item,
                                  void *scratch) {
    struct head h = head_of(item, x->positions, x->channels, x->heads);
    const real *q = OOM_HOST_PTR(const real, x->qkv) + h.qkv;
    struct OOM_R(matrix) k = {q + h.channels, h.row};
    real *scores = OOM_HOST_PTR(real, x->scores) + h.scores;
    real *tile = OOM_R(other_scratch)(scratch), *scaled = tile + TILE * TILE;
    int64_t block = tile_rows(h.size);
    for (int64_t i0 = 0; i0 < h.positions; i0 += block) {
        int64_t rows = min_i64(block, h.positions - i0);
        OOM_R(rows_scale)(scaled, h.size, q + i0 * h.row, h.row, rows, h.size, OOM_R(scale_of)(&h));
        struct OOM_R(matrix) queries = {scaled, h.size};
        OOM_R(lower_product)(i0, rows, h.size, queries, k, scores, h.positions, tile, scratch);
    }
}

static void OOM_R(softmax_forward)(const struct oom_attention_softmax_forward_args *x, int64_t item,
                                   void *scratch) {
    (void)scratch;
    int64_t offset = item * x->positions * x->positions;
    const real *scores = OOM_HOST_PTR(const real, x->scores) + offset;
    real *probs = OOM_HOST_PTR(real, x->probs) + offset;
    for (int64_t i = 0; i < x->positions; i++, scores += x->positions, probs += x->positions) {
        real sum = OOM_R(row_exp)(probs, scores, i + 1, OOM_R(row_max)(scores, i + 1));
        OOM_R(row_scale)(probs, probs, i + 1, 1 / sum);
    }
}

static void OOM_R(values_forward)(const struct oom_attention_values_forward_args *x, int64_t item,
                                  void *scratch) {
    struct head h = head_of(item, x->positions, x->channels, x->heads);
    struct OOM_R(matrix) probs = {OOM_HOST_PTR(const real, x->probs) + h.scores, h.positions};
    struct OOM_R(matrix) v = {OOM_HOST_PTR(const real, x->qkv) + h.qkv + 2 * h.channels, h.row};
    OOM_R(lower_times)(&h, probs, v, OOM_HOST_PTR(real, x->out) + h.out, h.channels, scratch);
}

static void OOM_R(values_backward)(const struct oom_attention_values_backward_args *x, int64_t item,
                                   void *scratch) {
    struct head h = head_of(item, x->positions, x->channels, x->heads);
    struct OOM_R(matrix) probs = {OOM_HOST_PTR(const real, x->probs) + h.scores, h.positions};
    struct OOM_R(matrix) v = {OOM_HOST_PTR(const real, x->qkv) + h.qkv + 2 * h.channels, h.row};
    struct OOM_R(matrix) dout = {OOM_HOST_PTR(const real, x->dout) + h.out, h.channels};
    real *dv = OOM_HOST_PTR(real, x->dqkv) + h.qkv + 2 * h.channels;
    real *dprobs = OOM_HOST_PTR(real, x->dprobs) + h.scores;
    for (int64_t i0 = 0; i0 < h.positions; i0 += TILE) {
        struct OOM_R(matrix) block = {dout.at + i0 * dout.ld, dout.ld};
        OOM_R(lower_product)
        (i0, min_i64(TILE, h.positions - i0), h.size, block, v, dprobs, h.positions,
         OOM_R(other_scratch)(scratch), scratch);
    }
    OOM_R(lower_turned_times)(&h, probs, dout, dv, h.row, scratch);
}

static void OOM_R(softmax_backward)(const struct oom_attention_softmax_backward_args *x,
                                    int64_t item, void *scratch) {
    (void)scratch;
    for (int64_t i = 0; i < x->positions; i++) {
        int64_t row = (item * x->positions + i) * x->positions;
        const real *probs = OOM_HOST_PTR(const real, x->probs) + row;
        const real *dprobs = OOM_HOST_PTR(const real, x->dprobs) + row;
        OOM_R(row_softmax_back)
        (OOM_HOST_PTR(real, x->dscores) + row, probs, dprobs, i + 1,
         OOM_R(row_dot)(probs, dprobs, i + 1));
    }
}

static void OOM_R(scores_backward)(const struct oom_attention_scores_backward_args *x, int64_t item,
                                   void *scratch) {
    struct head h = head_of(item, x->positions, x->channels, x->heads);
    const real *qkv = OOM_HOST_PTR(const real, x->qkv) + h.qkv;
    struct OOM_R(matrix) q = {qkv, h.row}, k = {qkv + h.channels, h.row};
    struct OOM_R(matrix) dscores = {OOM_HOST_PTR(const real, x->dscores) + h.scores, h.positions};
    real *dq = OOM_HOST_PTR(real, x->dqkv) + h.qkv, *dk = dq + h.channels;
    OOM_R(lower_times)(&h, dscores, k, dq, h.row, scratch);
    OOM_R(rows_scale)(dq, h.row, dq, h.row, h.positions, h.size, OOM_R(scale_of)(&h));
    OOM_R(lower_turned_times)(&h, dscores, q, dk, h.row, scratch);
    OOM_R(rows_scale)(dk, h.row, dk, h.row, h.positions, h.size, OOM_R(scale_of)(&h));
}
