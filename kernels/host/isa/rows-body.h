/*
 * rows-body.h: rows.c for one element type.
 */

/* Columns [0, vectors * REAL_LANES) of x, whose rows are `stride` apart; `vectors` is constant. */
OOM_FUNCTION void OOM_R(sum_block)(const stored *x, int64_t rows, int64_t stride, real *out,
                                   int vectors) {
    vreal sum[WIDTH_MAX];
    OOM_UNROLL
    for (int v = 0; v < vectors; v++) sum[v] = OOM_V(oom_load)(out + v * REAL_LANES);
    for (int64_t r = 0; r < rows; r++, x += stride) {
        OOM_UNROLL
        for (int v = 0; v < vectors; v++) sum[v] += OOM_S(oom_load)(x + v * REAL_LANES);
    }
    OOM_UNROLL
    for (int v = 0; v < vectors; v++) OOM_V(oom_store)(out + v * REAL_LANES, sum[v]);
}

/* Fewer columns than a vector has lanes. */
static void OOM_R(sum_rest)(const stored *x, int64_t rows, int64_t stride, real *out, int64_t n) {
    real sum[REAL_LANES] = {0};
    for (int64_t j = 0; j < n; j++) sum[j] = out[j];
    for (int64_t r = 0; r < rows; r++, x += stride) {
        for (int64_t j = 0; j < n; j++) sum[j] += OOM_S(oom_read)(x + j);
    }
    for (int64_t j = 0; j < n; j++) out[j] = sum[j];
}

/* As many blocks of `vectors` as there are left: a row of x should be read in one go. */
#define SUM_BLOCKS(vectors) \
    for (; j + vectors * REAL_LANES <= end; j += vectors * REAL_LANES) { \
        OOM_R(sum_block)(x + j, rows, stride, out + j, vectors); \
    }

static void OOM_R(sum_columns)(const stored *x, int64_t rows, int64_t stride, real *out,
                               const struct oom_host_part *part) {
    int64_t j, end;
    oom_host_share(stride, LINE, part, &j, &end);
    SUM_BLOCKS(8)
    SUM_BLOCKS(4)
    SUM_BLOCKS(2)
    SUM_BLOCKS(1)
    if (j < end) OOM_R(sum_rest)(x + j, rows, stride, out + j, end - j);
}
#undef SUM_BLOCKS

static void OOM_R(sum_rows)(const struct oom_sum_rows_args *a, const struct oom_host_part *part) {
    OOM_R(sum_columns)
    (OOM_HOST_PTR(const stored, a->x), a->rows, a->columns, OOM_HOST_PTR(real, a->out), part);
}

static void OOM_R(position_backward)(const struct oom_position_backward_args *a,
                                     const struct oom_host_part *part) {
    OOM_R(sum_columns)
    (OOM_HOST_PTR(const stored, a->dout), a->batch, a->positions * a->channels,
     OOM_HOST_PTR(real, a->dtable), part);
}

/* to[j] += from[j] */
OOM_FUNCTION void OOM_R(row_add)(stored *to, const stored *from, int64_t n) {
    int64_t j = 0;
    for (; j + REAL_LANES <= n; j += REAL_LANES) {
        OOM_S(oom_store)(to + j, OOM_S(oom_load)(to + j) + OOM_S(oom_load)(from + j));
    }
    for (; j < n; j++)
        OOM_S(oom_write)(to + j, OOM_S(oom_read)(to + j) + OOM_S(oom_read)(from + j));
}

/* The same into a wide row. */
OOM_FUNCTION void OOM_R(row_add_wide)(real *to, const stored *from, int64_t n) {
    int64_t j = 0;
    for (; j + REAL_LANES <= n; j += REAL_LANES) {
        OOM_V(oom_store)(to + j, OOM_V(oom_load)(to + j) + OOM_S(oom_load)(from + j));
    }
    for (; j < n; j++) to[j] += OOM_S(oom_read)(from + j);
}

/* Each sample's T*C elements in chunks; a thread takes chunks. */
static void OOM_R(position_forward)(const struct oom_position_forward_args *a,
                                    const struct oom_host_part *part) {
    stored *x = OOM_HOST_PTR(stored, a->x);
    const stored *table = OOM_HOST_PTR(const stored, a->table);
    int64_t elements = a->positions * a->channels, chunks = (elements + CHUNK - 1) / CHUNK;
    int64_t i, end;
    oom_host_share(a->batch * chunks, 1, part, &i, &end);
    for (; i < end; i++) {
        int64_t at = i % chunks * CHUNK, n = elements - at < CHUNK ? elements - at : CHUNK;
        OOM_R(row_add)(x + i / chunks * elements + at, table + at, n);
    }
}

static void OOM_R(embedding_forward)(const struct oom_embedding_forward_args *a,
                                     const struct oom_host_part *part) {
    const int32_t *tokens = OOM_HOST_PTR(const int32_t, a->tokens);
    const stored *table = OOM_HOST_PTR(const stored, a->table);
    stored *out = OOM_HOST_PTR(stored, a->out);
    int64_t c = a->channels, r, end;
    oom_host_share(a->rows, LINE, part, &r, &end);
    for (; r < end; r++) {
        const stored *from = table + clamp_token(tokens[r], a->vocab) * c;
        memcpy(out + r * c, from, (size_t)c * sizeof(stored));
    }
}

static void OOM_R(embedding_backward)(const struct oom_embedding_backward_args *a,
                                      const struct oom_host_part *part) {
    const int32_t *tokens = OOM_HOST_PTR(const int32_t, a->tokens);
    const stored *dout = OOM_HOST_PTR(const stored, a->dout);
    real *dtable = OOM_HOST_PTR(real, a->dtable);
    int64_t c = a->channels, begin, end;
    oom_host_share(c, LINE, part, &begin, &end);
    if (begin == end) return;
    for (int64_t r = 0; r < a->rows; r++) {
        real *to = dtable + clamp_token(tokens[r], a->vocab) * c;
        OOM_R(row_add_wide)(to + begin, dout + r * c + begin, end - begin);
    }
}
