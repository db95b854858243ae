/*
 * gemm-pack.h: blocks of a factor as numbers of one type (real.h), in place or made, and packed
 * into panels. Included by gemm-body.h.
 */

/* Rows of a block: element (r, c) at at[r * ld + c]. */
struct OOM_R(view) {
    const real *at;
    int64_t ld;
};

/* A block of the factor as it is stored; one that is not in place is written to `room`, its rows
 * `columns` apart. */
static struct OOM_R(view) OOM_R(fetch)(const struct oom_factor *f, int64_t row, int64_t rows,
                                       int64_t column, int64_t columns, real *room) {
    row += f->row;
    column += f->column;
    if (f->gather != NULL)
        f->gather(f->context, row, rows, column, columns, room, columns);
    else if (oom_dtype_is_half(f->dtype))
        halves_copy(room, f, row, rows, column, columns);
    else
        return (struct OOM_R(view)){(const real *)f->at + row * f->ld + column, f->ld};
    return (struct OOM_R(view)){room, columns};
}

/* Copies the first n of each row's elements, up to two vectors; `room` of the destination's may be
 * written, those beyond n as zeros. */
static inline void OOM_R(copy_some)(real *to, int64_t to_ld, int64_t room, const real *from,
                                    int64_t from_ld, int64_t n, int64_t rows) {
    for (int64_t r = 0; r < rows; r++, to += to_ld, from += from_ld) OOM_UNROLL
    for (int v = 0; v < TILE_VECTORS; v++) {
        int64_t at = v * REAL_LANES;
        vreal x = OOM_V(oom_load_some)(from + at, n - at, 0);
        OOM_V(oom_store_some)(to + at, room - at, x);
    }
}

/* ---- panels: to[p * width + r], r below `count`, p below k ---- */

/* One row of a panel; a panel of vectors is filled up with zeros. */
static inline void OOM_R(pack_row)(real *to, int64_t panel, const real *from, int64_t count) {
    if (panel == TILE_VECTORS * REAL_LANES)
        OOM_R(copy_some)(to, panel, panel, from, 0, count, 1);
    else if (count >= TILE_ROWS)
        memcpy(to, from, TILE_ROWS * sizeof(real));
    else
        memcpy(to, from, (size_t)count * sizeof(real));
}

/* `steps` rows of panels of k, which begin `panel * k` apart, from rows along p: from[p * ld + r].
 * Several panels at once, so that the memory is read along its rows, and no more, as their places
 * in `to` would fall on the same lines of the cache. */
static void OOM_R(pack_straight)(real *to, int64_t panel, struct OOM_R(view) from, int64_t count,
                                 int64_t steps, int64_t k) {
    const int64_t group = PANELS_AT_ONCE * panel;
    for (int64_t r0 = 0; r0 < count; r0 += group) {
        int64_t end = count - r0 < group ? count : r0 + group;
        for (int64_t p = 0; p < steps; p++)
            for (int64_t r = r0; r < end; r += panel) OOM_R(pack_row)
        (to + r * k + p * panel, panel, from.at + p * from.ld + r, count - r);
    }
}

OOM_VECTOR_TYPE(real, OOM_R(quad), 4 * sizeof(real), sizeof(real));

/* From rows along r: from[r * ld + p]. Four by four, the rest one by one. */
static void OOM_R(pack_turned)(real *to, int64_t width, const real *from, int64_t ld, int64_t count,
                               int64_t k) {
    typedef OOM_R(quad) quad;
    int64_t r = 0;
    for (; r + 4 <= count; r += 4) {
        const real *row = from + r * ld;
        real *out = to + r;
        int64_t p = 0;
        for (; p + 4 <= k; p += 4, out += 4 * width) {
            quad q0 = *(const quad *)(row + p), q1 = *(const quad *)(row + ld + p);
            quad q2 = *(const quad *)(row + 2 * ld + p), q3 = *(const quad *)(row + 3 * ld + p);
            quad low01 = __builtin_shufflevector(q0, q1, 0, 4, 1, 5);
            quad high01 = __builtin_shufflevector(q0, q1, 2, 6, 3, 7);
            quad low23 = __builtin_shufflevector(q2, q3, 0, 4, 1, 5);
            quad high23 = __builtin_shufflevector(q2, q3, 2, 6, 3, 7);
            *(quad *)out = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
            *(quad *)(out + width) = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
            *(quad *)(out + 2 * width) = __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
            *(quad *)(out + 3 * width) = __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
        }
        for (; p < k; p++, out += width)
            for (int i = 0; i < 4; i++) out[i] = row[i * ld + p];
    }
    for (; r < count; r++)
        for (int64_t p = 0; p < k; p++) to[p * width + r] = from[r * ld + p];
}

/* ---- what is packed: things r0 .. r0 + count, steps p0 .. p0 + k ---- */

/* What is made is made of as many rows and columns as the room holds, whole panels of them. */
static void OOM_R(pack_along)(real *to, int64_t panel, const struct oom_factor *f, int64_t r0,
                              int64_t count, int64_t p0, int64_t k, real *room) {
    const bool whole = in_memory(f);
    const bool halves = !whole && f->gather == NULL && panel == TILE_VECTORS * REAL_LANES;
    int64_t columns = whole ? count : PANELS_AT_ONCE * panel, steps = whole ? k : STEPS_AT_ONCE;
    for (int64_t r = 0; r < count; r += columns) {
        int64_t here = count - r < columns ? count - r : columns;
        if (halves) halves_panels(to + r * k, panel * k, f, p0, k, r0 + r, here);
        for (int64_t p = 0; p < k && !halves; p += steps) {
            int64_t now = k - p < steps ? k - p : steps;
            struct OOM_R(view) v = OOM_R(fetch)(f, p0 + p, now, r0 + r, here, room);
            OOM_R(pack_straight)(to + r * k + p * panel, panel, v, here, now, k);
        }
    }
}

/* Lanes beyond count are zeroed where `pad` is set (vectors read them). */
static void OOM_R(pack_across)(real *to, int64_t panel, bool pad, const struct oom_factor *f,
                               int64_t r0, int64_t count, int64_t p0, int64_t k, real *room) {
    int64_t group = panel < 16 ? 16 / panel * panel : panel;
    struct OOM_R(view) v = {NULL, 0};
    for (int64_t r = 0; r < count; r += panel, to += panel * k, v.at += panel * v.ld) {
        int64_t here = count - r < panel ? count - r : panel;
        if (r % group == 0) {
            int64_t rows = count - r < group ? count - r : group;
            v = OOM_R(fetch)(f, r0 + r, rows, p0, k, room);
        }
        if (pad && here < panel) memset(to, 0, (size_t)(panel * k) * sizeof(real));
        OOM_R(pack_turned)(to, panel, v.at, v.ld, here, k);
    }
}

/* Panels of `panel` of the things, k steps each, one after the other. */
static void OOM_R(pack)(real *to, int64_t panel, bool pad, const struct oom_factor *f, bool across,
                        int64_t r0, int64_t count, int64_t p0, int64_t k, real *room) {
    if (across)
        OOM_R(pack_across)(to, panel, pad, f, r0, count, p0, k, room);
    else
        OOM_R(pack_along)(to, panel, f, r0, count, p0, k, room);
}
