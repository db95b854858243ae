/*
 * Inside, with c a cluster and c' the one that its highest allowance becomes in a part:
 *   inside(s, e, c) = min(inside(s+1, e, c'), min over j of work(s, j) + inside(j, e, c')
 *                         + inside(s, j, c))
 * Outside the other way round, from the whole down to its parts (all clusters c comes to).
 */
#include "harness/train/checkpoint-bounds-cells.h"

#include "kernels/hostmem.h"

#include <string.h>

#define at oom_checkpoint_at
#define max oom_checkpoint_max
#define min oom_checkpoint_min
#define lower oom_checkpoint_lower
#define never oom_checkpoint_never

typedef struct oom_checkpoint_cluster cluster;

const float *oom_checkpoint_bounds_splits(const struct oom_checkpoint_bounds *b, int s, int e) {
    return oom_checkpoint_splits_of(b, s, e);
}

/* ---- inside ---- */

/* Of the clusters of an interval: those that are live, from where on everything can be saved, and
 * from where on it is. */
struct span {
    int from, to, can, whole;
};

static struct span span_of(const struct oom_checkpoint_bounds *b, int s, int e) {
    const cluster *c = oom_checkpoint_clusters(&b->inner, s);
    cluster live = b->live[at(b->tables, s, e)];
    int count = oom_checkpoint_grid_count(&b->inner, s);
    struct span span = {.to = count};
    span.from = oom_checkpoint_holding(c, 0, count, live.low);
    while (span.to > span.from && c[span.to - 1].low > live.high) span.to--;
    span.can = span.whole =
        oom_checkpoint_holding(c, span.from, span.to, b->tables->whole[at(b->tables, s, e)]);
    if (span.whole < span.to && c[span.whole].low < b->tables->whole[at(b->tables, s, e)]) {
        span.whole++;
    }
    return span;
}

static void inside_splits(struct oom_checkpoint_bounds *b, int s, int e, struct span span) {
    const struct oom_checkpoint_tables *t = b->tables;
    const cluster *c = oom_checkpoint_clusters(&b->inner, s);
    const float *useful = oom_checkpoint_splits_of(b, s, e) - (s + 1);
    double *cell = oom_checkpoint_inside_of(b, s, e) + 1;
    int run = span.from;
    for (int j = s + 1; j < e; j++) {
        run = oom_checkpoint_holding(c, run, span.can, oom_checkpoint_run(t, s, j, e));
        if (run == span.can) break; /* it only grows with j */
        if ((double)useful[j] >= b->limit) continue;
        double work = (double)oom_checkpoint_work(t, s, j);
        const double *left = oom_checkpoint_inside_of(b, s, j) + 1;
        const double *right = oom_checkpoint_inside_of(b, j, e);
        const uint16_t *up = oom_checkpoint_map(b, &b->inner_maps, s, j);
        for (int k = run; k < span.can; k++) lower(&cell[k], work + right[up[k]] + left[k]);
        b->work += (uint64_t)(span.can - run);
    }
}

static void fill_inside(struct oom_checkpoint_bounds *b, int s, int e) {
    const struct oom_checkpoint_tables *t = b->tables;
    const cluster *c = oom_checkpoint_clusters(&b->inner, s);
    int count = oom_checkpoint_grid_count(&b->inner, s);
    struct span span = span_of(b, s, e);
    double *cell = oom_checkpoint_inside_of(b, s, e) + 1;
    for (int k = -1; k < count; k++) cell[k] = k < span.can || span.from == span.to ? never : 0;
    if (span.from >= span.can) return;
    const uint16_t *up = oom_checkpoint_map(b, &b->inner_maps, s, s);
    const double *next = oom_checkpoint_inside_of(b, s + 1, e);
    int save = oom_checkpoint_holding(c, span.from, span.can, t->save[at(t, s, e)]);
    for (int k = save; k < span.can; k++) cell[k] = next[up[k]];
    inside_splits(b, s, e, span);
    for (int k = span.to; k < count; k++) cell[k] = cell[span.to - 1];
}

void oom_checkpoint_bounds_inside(struct oom_checkpoint_bounds *b, double *least) {
    int n = b->tables->n;
    for (int s = n - 1; s >= 0; s--) {
        for (int e = s + 1; e < n; e++) fill_inside(b, s, e);
    }
    if (b->price < 0) {
        oom_checkpoint_outer_choose_price(b);
    } else {
        oom_checkpoint_outer_rest(b);
    }
    *least = oom_checkpoint_outer_least(b);
}

/* ---- outside ---- */

/* The limit leaves some live: only these matter from now on. */
static struct span narrow(struct oom_checkpoint_bounds *b, int s, int e) {
    const cluster *c = oom_checkpoint_clusters(&b->inner, s);
    const double *in = oom_checkpoint_inside_of(b, s, e) + 1;
    const double *out = oom_checkpoint_outside_of(b, s, e) + 1;
    struct span span = span_of(b, s, e);
    while (span.from < span.to && !(in[span.from] + out[span.from] < b->limit)) span.from++;
    while (span.from < span.to && !(in[span.to - 1] + out[span.to - 1] < b->limit)) span.to--;
    span.whole = (int)max(span.from, min(span.whole, span.to));
    cluster *live = &b->live[at(b->tables, s, e)];
    double least = never;
    for (int k = span.from; k < span.to; k++) lower(&least, out[k]);
    b->around[at(b->tables, s, e)] = least;
    if (span.from == span.to) {
        *live = (cluster){INT64_MAX / 2, -1};
    } else {
        live->low = max(live->low, c[span.from].low);
        live->high = min(live->high, c[span.to - 1].high);
    }
    return span;
}

static void spread_split(struct oom_checkpoint_bounds *b, int s, int j, int e, int from, int to) {
    const struct oom_checkpoint_tables *t = b->tables;
    const uint16_t *up = oom_checkpoint_map(b, &b->inner_maps, s, j);
    const uint16_t *down = oom_checkpoint_down(b, &b->inner_maps, s, j);
    const double *out = oom_checkpoint_outside_of(b, s, e) + 1;
    const double *left = oom_checkpoint_inside_of(b, s, j) + 1;
    const double *right = oom_checkpoint_inside_of(b, j, e);
    double *restrict out_left = oom_checkpoint_outside_of(b, s, j) + 1;
    double *restrict out_right = oom_checkpoint_outside_of(b, j, e);
    double work = (double)oom_checkpoint_work(t, s, j), least = never;
    for (int k = from; k < to; k++) {
        double with_left = out[k] + work + left[k], all = with_left + right[up[k]];
        if (!(all < b->limit)) continue;
        lower(&least, all);
        lower(&out_left[k], out[k] + work + right[up[k]]);
        for (int cell = down[k]; cell <= up[k]; cell++) lower(&out_right[cell], with_left);
    }
    b->work += (uint64_t)(to - from);
    if (least < b->limit) {
        b->effort += (uint64_t)(to - from);
        b->effort_of[s] += (uint64_t)(to - from);
        b->pairs[s * t->n + j] = true;
    }
    oom_checkpoint_splits_of(b, s, e)[j - s - 1] = oom_checkpoint_rounded_down(least);
}

/* SAVE. */
static void spread_save(struct oom_checkpoint_bounds *b, int s, int e, struct span span) {
    const cluster *c = oom_checkpoint_clusters(&b->inner, s);
    const uint16_t *up = oom_checkpoint_map(b, &b->inner_maps, s, s);
    const uint16_t *down = oom_checkpoint_down(b, &b->inner_maps, s, s);
    const double *out = oom_checkpoint_outside_of(b, s, e) + 1;
    double *next = oom_checkpoint_outside_of(b, s + 1, e);
    int k = oom_checkpoint_holding(c, span.from, span.whole, b->tables->save[at(b->tables, s, e)]);
    for (; k < span.whole; k++) {
        for (int cell = down[k]; cell <= up[k]; cell++) lower(&next[cell], out[k]);
    }
}

static void spread(struct oom_checkpoint_bounds *b, int s, int e) {
    const struct oom_checkpoint_tables *t = b->tables;
    const cluster *c = oom_checkpoint_clusters(&b->inner, s);
    struct span span = narrow(b, s, e);
    if (span.from == span.to) return; /* nobody looks at its splits */
    const float *useful = oom_checkpoint_splits_of(b, s, e) - (s + 1);
    int run = span.from;
    if (e > s + 1) spread_save(b, s, e, span);
    for (int j = s + 1; j < e; j++) {
        if ((double)useful[j] >= b->limit) continue;
        run = oom_checkpoint_holding(c, run, span.whole, oom_checkpoint_run(t, s, j, e));
        spread_split(b, s, j, e, run, span.whole);
    }
}

void oom_checkpoint_bounds_outside(struct oom_checkpoint_bounds *b, int64_t limit) {
    int n = b->tables->n;
    size_t cells = b->place[at(b->tables, n, n)];
    b->limit = (double)limit + oom_checkpoint_bounds_rounding(b, (double)limit);
    b->effort = 0;
    memset(b->effort_of, 0, sizeof b->effort_of);
    memset(b->pairs, 0, (size_t)n * (size_t)n);
    for (size_t i = 0; i < cells; i++) b->outside[i] = never;
    oom_checkpoint_outer_reach(b);
    for (int s = 0; s < n; s++) {
        for (int e = n - 1; e > s; e--) spread(b, s, e);
    }
}

/* ---- answers ---- */

/* Sums of at most n^2 terms, each rounded: by far less than this part of them. Without a price they
 * are whole numbers, exact up to 2^53. */
double oom_checkpoint_bounds_rounding(const struct oom_checkpoint_bounds *b, double flops) {
    const struct oom_checkpoint_tables *t = b->tables;
    if (b->price == 0 && (double)t->work[t->n] * t->n < 0x1p52) return 0;
    return 1e-9 * (flops + b->price * (double)b->budget);
}

static bool outer_window(const struct oom_checkpoint_bounds *b, int s, int64_t limit,
                         struct oom_checkpoint_window *out) {
    const cluster *c = oom_checkpoint_clusters(&b->outer, s);
    const double *rest = oom_checkpoint_rest_of(b, s) + 1;
    const double *reach = oom_checkpoint_reach_of(b, s) + 1;
    double below = (double)limit + oom_checkpoint_bounds_rounding(b, (double)limit) +
                   b->price * oom_checkpoint_outer_to_keep(b);
    int from = 0, to = oom_checkpoint_grid_count(&b->outer, s);
    while (from < to && !(reach[from] + rest[from] < below)) from++;
    while (from < to && !(reach[to - 1] + rest[to - 1] < below)) to--;
    if (from == to) return false;
    *out = (struct oom_checkpoint_window){c[from].low, c[to - 1].high, limit};
    return true;
}

bool oom_checkpoint_bounds_window(const struct oom_checkpoint_bounds *b, int s, int e,
                                  int64_t limit, struct oom_checkpoint_window *out) {
    if (e == b->tables->n) return outer_window(b, s, limit, out);
    cluster live = b->live[at(b->tables, s, e)];
    double below = (double)limit + oom_checkpoint_bounds_rounding(b, (double)limit);
    double flops = below - b->around[at(b->tables, s, e)];
    if (live.low > live.high || flops <= 0) return false;
    *out = (struct oom_checkpoint_window){live.low, live.high, (int64_t)flops + 1};
    return true;
}

/* What leads to plan(s, n) costs least where most is kept: at the least allowance. */
static bool outer_useful(const struct oom_checkpoint_bounds *b, int s,
                         const struct oom_checkpoint_window *plan, double below) {
    const cluster *c = oom_checkpoint_clusters(&b->outer, s);
    const double *reach = oom_checkpoint_reach_of(b, s) + 1;
    for (int k = oom_checkpoint_grid_find(&b->outer, s, plan->to); k >= 0; k--) {
        if (c[k].high < plan->from) break;
        double kept = (double)(b->budget - max(c[k].low, plan->from));
        if (reach[k] - b->price * kept < below) return true;
    }
    return false;
}

bool oom_checkpoint_bounds_useful(const struct oom_checkpoint_bounds *b, int s, int e,
                                  const struct oom_checkpoint_window *plan, int64_t limit) {
    double below = (double)limit + oom_checkpoint_bounds_rounding(b, (double)limit);
    below -= (double)plan->flops;
    if (e == b->tables->n) return outer_useful(b, s, plan, below);
    const cluster *c = oom_checkpoint_clusters(&b->inner, s);
    const double *out = oom_checkpoint_outside_of(b, s, e) + 1;
    for (int k = oom_checkpoint_grid_find(&b->inner, s, plan->to); k >= 0; k--) {
        if (c[k].high < plan->from) break;
        if (out[k] < below) return true;
    }
    return false;
}

double oom_checkpoint_bounds_plan(const struct oom_checkpoint_bounds *b, int shift, int s, int e,
                                  int64_t allowance) {
    bool outermost = e == b->tables->n;
    int k = 1 + oom_checkpoint_grid_find(outermost ? &b->outer : &b->inner, s, allowance);
    const double *cells =
        outermost ? oom_checkpoint_rest_of(b, s) : oom_checkpoint_inside_of(b, s, e);
    int low = (int)max(0, k - shift);
    while (low < k && cells[low] >= never) low++;
    return cells[low];
}
