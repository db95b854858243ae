/*
 * pooling-body.h: pooling.c for one element type.
 */

/* A lane of a mask: an integer as wide as a real. */
typedef __typeof__(((vmask){0})[0]) OOM_R(lane);

/* The place of the largest of a window in each of n channels; x is the window's first element, the
 * next rows are `line` elements on, the next columns `c`. */
OOM_FUNCTION void OOM_R(window)(const stored *x, int64_t line, int64_t c, int64_t size, int64_t n,
                                vreal *value, vmask *index) {
    vreal best = OOM_S(oom_take)(x, n);
    vmask at = {0};
    for (int64_t r = 0; r < size; r++)
        for (int64_t s = r == 0; s < size; s++) {
            vreal next = OOM_S(oom_take)(x + r * line + s * c, n);
            vmask better = (vmask)(next > best) | (vmask)(next != next);
            vmask here = (vmask){0} + (OOM_R(lane))(r * size + s);
            best = OOM_V(oom_select)(better, next, best);
            at = (better & here) | (~better & at);
        }
    *value = best;
    *index = at;
}

/* A pixel of the result, c channels; index and branch are those of its channels. */
OOM_FUNCTION void OOM_R(pixel_forward)(const stored *x, int64_t line, int64_t c, int64_t size,
                                       const uint8_t *branch, stored *y, uint8_t *index) {
    for (int64_t i = 0; i < c; i += REAL_LANES) {
        const int64_t n = c - i < REAL_LANES ? c - i : REAL_LANES;
        vreal value = {0};
        vmask at = {0};
        if (branch == NULL) {
            OOM_R(window)(x + i, line, c, size, n, &value, &at);
        } else {
            for (int64_t lane = 0; lane < n; lane++) {
                int64_t last = size * size - 1, place = branch[i + lane];
                at[lane] = (OOM_R(lane))(place < last ? place : last);
                value[lane] =
                    OOM_S(oom_read)(x + i + lane + at[lane] / size * line + at[lane] % size * c);
            }
        }
        OOM_S(oom_put)(y + i, n, value);
        for (int64_t lane = 0; lane < n; lane++) index[i + lane] = (uint8_t)at[lane];
    }
}

static void OOM_R(maxpool_forward)(const struct oom_maxpool_forward_args *args,
                                   const struct oom_host_part *part) {
    const struct oom_maxpool_forward_args a = *args;
    const int64_t rows = a.height / a.size, columns = a.width / a.size, c = a.channels;
    const uint8_t *branch = a.branch != 0 ? OOM_HOST_PTR(const uint8_t, a.branch) : NULL;
    int64_t i, end;
    oom_host_share(a.batch * rows, 1, part, &i, &end);
    for (; i < end; i++) {
        int64_t first = (i / rows * a.height + i % rows * a.size) * a.width;
        for (int64_t q = 0; q < columns; q++) {
            const int64_t to = (i * columns + q) * c;
            OOM_R(pixel_forward)
            (OOM_HOST_PTR(const stored, a.x) + (first + q * a.size) * c, a.width * c, c, a.size,
             branch != NULL ? branch + to : NULL, OOM_HOST_PTR(stored, a.y) + to,
             OOM_HOST_PTR(uint8_t, a.index) + to);
        }
    }
}

static void OOM_R(maxpool_backward)(const struct oom_maxpool_backward_args *args,
                                    const struct oom_host_part *part) {
    const struct oom_maxpool_backward_args a = *args;
    const int64_t rows = a.height / a.size, columns = a.width / a.size, c = a.channels;
    const stored *dy = OOM_HOST_PTR(const stored, a.dy);
    const uint8_t *index = OOM_HOST_PTR(const uint8_t, a.index);
    int64_t i, end;
    oom_host_share(a.batch * a.height, 1, part, &i, &end);
    for (; i < end; i++) {
        stored *dx = OOM_HOST_PTR(stored, a.dx) + i * a.width * c;
        const int64_t sample = i / a.height, p = i % a.height / a.size, r = i % a.height % a.size;
        const int64_t used = p < rows ? columns * a.size : 0; /* columns within windows */
        for (int64_t w = 0; w < used; w++) {
            const int64_t from = ((sample * rows + p) * columns + w / a.size) * c;
            const int64_t here = r * a.size + w % a.size;
            for (int64_t j = 0; j < c; j++)
                dx[w * c + j] = index[from + j] == here ? dy[from + j] : 0;
        }
        memset(dx + used * c, 0, (size_t)((a.width - used) * c) * sizeof(stored));
    }
}

static void OOM_R(meanpool_forward)(const struct oom_meanpool_forward_args *args,
                                    const struct oom_host_part *part) {
    const struct oom_meanpool_forward_args a = *args;
    const int64_t chunks = (a.channels + LINE - 1) / LINE;
    int64_t i, end;
    oom_host_share(a.batch * chunks, 1, part, &i, &end);
    for (; i < end; i++) {
        const int64_t b = i / chunks, first = i % chunks * LINE;
        const int64_t last = first + LINE < a.channels ? first + LINE : a.channels;
        for (int64_t j = first; j < last; j += REAL_LANES) {
            const stored *x = OOM_HOST_PTR(const stored, a.x) + b * a.positions * a.channels + j;
            vreal sum = {0};
            for (int64_t e = 0; e < a.positions; e++, x += a.channels)
                sum += OOM_S(oom_take)(x, last - j);
            OOM_S(oom_put)
            (OOM_HOST_PTR(stored, a.y) + b * a.channels + j, last - j, sum / (real)a.positions);
        }
    }
}

static void OOM_R(meanpool_backward)(const struct oom_meanpool_backward_args *args,
                                     const struct oom_host_part *part) {
    const struct oom_meanpool_backward_args a = *args;
    int64_t i, end;
    oom_host_share(a.batch * a.positions, LINE, part, &i, &end);
    for (; i < end; i++) {
        const stored *dy = OOM_HOST_PTR(const stored, a.dy) + i / a.positions * a.channels;
        stored *dx = OOM_HOST_PTR(stored, a.dx) + i * a.channels;
        for (int64_t j = 0; j < a.channels; j += REAL_LANES) {
            vreal value = OOM_S(oom_take)(dy + j, a.channels - j) / (real)a.positions;
            OOM_S(oom_put)(dx + j, a.channels - j, value);
        }
    }
}
