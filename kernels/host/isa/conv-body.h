/*
 * conv-body.h: rows of windows and of weights (conv.c), for one element type.
 */

static inline void OOM_R(clear)(real *to, int64_t n) {
    int64_t i = 0;
    for (; i + REAL_LANES <= n; i += REAL_LANES) OOM_V(oom_store)(to + i, (vreal){0});
    if (i < n) OOM_V(oom_store_some)(to + i, n - i, (vreal){0});
}

static inline void OOM_R(copy_row)(real *to, const stored *from, int64_t n) {
    int64_t i = 0;
    for (; i + REAL_LANES <= n; i += REAL_LANES)
        OOM_V(oom_store)(to + i, OOM_S(oom_load)(from + i));
    if (i < n) OOM_V(oom_store_some)(to + i, n - i, OOM_S(oom_load_some)(from + i, n - i, 0));
}

/* Taps of one row of the kernel, n elements from channel c of tap s on; `line` is the row of the
 * image that they read. One after the other in the image, so one copy, where the image is walked
 * forward. */
static inline void OOM_R(gather_forward)(const struct windows *w, const stored *line,
                                         int64_t column, int64_t s, int64_t c, int64_t n,
                                         real *to) {
    int64_t from = (column * w->step + w->offset + s) * w->channels + c;
    int64_t begin = least(most(-from, 0), n);
    int64_t end = most(least(w->width * w->channels - from, n), begin);
    OOM_R(clear)(to, begin);
    OOM_R(copy_row)(to + begin, line + from + begin, end - begin);
    OOM_R(clear)(to + end, n - end);
}

static inline void OOM_R(gather_taps)(const struct windows *w, const stored *line, int64_t column,
                                      int64_t s, int64_t c, int64_t n, real *to) {
    for (; n > 0; s++, c = 0) {
        int64_t here = least(w->channels - c, n), x = tap_of(w, column, s, w->width);
        if (x < 0)
            OOM_R(clear)(to, here);
        else
            OOM_R(copy_row)(to, line + x * w->channels + c, here);
        to += here;
        n -= here;
    }
}

/* The windows as a factor (oom_gather). */
static void OOM_R(gather)(const void *context, int64_t first, int64_t count, int64_t k0, int64_t n,
                          void *block, int64_t ld) {
    const struct windows *w = context;
    const int64_t line = w->width * w->channels, across = w->kernel_width * w->channels;
    const int64_t r0 = k0 / across, rest = k0 % across;
    int64_t column = first % w->columns, row = first / w->columns % w->rows;
    const stored *image = w->image;
    image += first / w->columns / w->rows * w->height * line;
    real *to = block;
    for (; count > 0; count--, to += ld) {
        real *out = to;
        int64_t s = rest / w->channels, c = rest % w->channels, here = across - rest;
        for (int64_t r = r0, left = n; left > 0; r++, s = c = 0, here = across) {
            int64_t y = tap_of(w, row, r, w->height);
            here = least(here, left);
            if (y < 0)
                OOM_R(clear)(out, here);
            else if (w->sign > 0)
                OOM_R(gather_forward)(w, image + y * line, column, s, c, here, out);
            else
                OOM_R(gather_taps)(w, image + y * line, column, s, c, here, out);
            out += here;
            left -= here;
        }
        if (++column < w->columns) continue;
        column = 0;
        if (++row < w->rows) continue;
        row = 0;
        image += w->height * line;
    }
}

static void OOM_R(gather_weights)(const void *context, int64_t first, int64_t count, int64_t column,
                                  int64_t n, void *block, int64_t ld) {
    const struct taps *t = context;
    const stored *weights = t->weights;
    int64_t tap = first / t->filters, filter = first % t->filters;
    real *to = block;
    for (; count > 0; count--, to += ld) {
        OOM_R(copy_row)(to, weights + (filter * t->count + tap) * t->channels + column, n);
        if (++filter < t->filters) continue;
        filter = 0;
        tap++;
    }
}

static void OOM_R(write)(const struct windows *w, void *matrix, int64_t first, int64_t last,
                         int64_t k0, int64_t k1) {
    stored *to = (stored *)matrix + first * w->depth + k0;
#if HALF
    for (; first < last; first++, to += w->depth)
        for (int64_t k = k0; k < k1; k += TILE) {
            real tile[TILE];
            OOM_R(gather)(w, first, 1, k, least(k1 - k, TILE), tile, TILE);
            for (int64_t i = 0; i < least(k1 - k, TILE); i += REAL_LANES)
                OOM_S(oom_put)(to + k - k0 + i, k1 - k - i, OOM_V(oom_load)(tile + i));
        }
#else
    OOM_R(gather)(w, first, last - first, k0, k1 - k0, to, w->depth);
#endif
}
