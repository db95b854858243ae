/*
 * dropout-body.h: dropout.c for one element type.
 */

/* Elements [at, at + n) of x; words[i] belongs to element at + i. */
static void OOM_R(drop)(const struct oom_dropout_args *a, int64_t at, int64_t n,
                        const uint32_t *words, uint32_t threshold) {
    const stored *x = OOM_HOST_PTR(const stored, a->x) + at;
    stored *y = OOM_HOST_PTR(stored, a->y) + at;
    const real left = (real)(1 - a->p);
    for (int64_t i = 0; i < n; i += REAL_LANES) {
        vreal kept = OOM_S(oom_take)(x + i, n - i) / left;
        OOM_S(oom_put)
        (y + i, n - i, OOM_V(oom_select)(OOM_V(keep)(words + i, threshold), kept, (vreal){0}));
    }
}
