/*
 * row-sum.h: the sum of a row by the fixed tree of 32 lanes, for one element type. Included by the
 * bodies of norm.c and loss.c, once for each type.
 */

/* Sum of x over a row. Absent lanes add +0, which changes no sum that began at +0. */
OOM_FUNCTION real OOM_R(row_sum)(const stored *x, int64_t n) {
    vreal sum[LANE_VECTORS] = {{0}};
    int64_t i = 0;
    for (; i + OOM_LANES <= n; i += OOM_LANES) {
        OOM_UNROLL
        for (int v = 0; v < LANE_VECTORS; v++) sum[v] += OOM_S(oom_load)(x + i + v * REAL_LANES);
    }
    for (int v = 0; i < n; v++, i += REAL_LANES) sum[v] += OOM_S(oom_take)(x + i, n - i);
    return OOM_V(oom_fold)(sum);
}
