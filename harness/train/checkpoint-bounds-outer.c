/*
 * The outermost chain, plan(s, n), of which every plan is made: what is left to do from there, and
 * what it took to come there.
 *
 * Many small tensors may be kept along it, and rounding each of them down gives away more than a
 * budget has to spare. So what is kept there has a price as well: with p >= 0
 *   flops >= flops + p * (bytes kept - bytes there are for keeping)
 * as no plan keeps more than there are (Lagrange; for a knapsack it is Dantzig's bound).
 */
#include "harness/train/checkpoint-bounds-cells.h"

#include <math.h>

#define at oom_checkpoint_at
#define max oom_checkpoint_max
#define min oom_checkpoint_min
#define lower oom_checkpoint_lower
#define never oom_checkpoint_never

double oom_checkpoint_outer_to_keep(const struct oom_checkpoint_bounds *b) {
    const struct oom_checkpoint_tables *t = b->tables;
    return (double)(b->budget - t->save[at(t, t->n - 1, t->n)]);
}

/* ---- what is left to do ---- */

/* The first cluster of plan(s, n) that saves everything. */
static int saving_all(const struct oom_checkpoint_bounds *b, int s) {
    const struct oom_checkpoint_tables *t = b->tables;
    return oom_checkpoint_holding(oom_checkpoint_clusters(&b->outer, s), 0,
                                  oom_checkpoint_grid_count(&b->outer, s),
                                  t->whole[at(t, s, t->n)]);
}

static void fill_rest(struct oom_checkpoint_bounds *b, int s) {
    const struct oom_checkpoint_tables *t = b->tables;
    const struct oom_checkpoint_cluster *c = oom_checkpoint_clusters(&b->outer, s);
    int count = oom_checkpoint_grid_count(&b->outer, s), whole = saving_all(b, s), n = t->n;
    double *cell = oom_checkpoint_rest_of(b, s) + 1;
    const uint16_t *into = b->into + b->outer.first[s];
    for (int k = -1; k < count; k++) {
        cell[k] = k < whole ? never : b->price * (double)(t->before[n - 1] - t->before[s]);
    }
    if (s + 1 == n) return;
    const uint16_t *up = oom_checkpoint_map(b, &b->outer_maps, s, s);
    const double *next = oom_checkpoint_rest_of(b, s + 1);
    double price = b->price * (double)t->kept[s];
    for (int k = oom_checkpoint_holding(c, 0, whole, t->save[at(t, s, n)]); k < whole; k++) {
        cell[k] = price + next[up[k]];
    }
    const float *useful = oom_checkpoint_splits_of(b, s, n) - (s + 1);
    price = b->price * (double)t->x[s];
    for (int j = s + 1, run = 0; j < n; j++) {
        if ((double)useful[j] >= b->limit) continue;
        run = oom_checkpoint_holding(c, run, whole, oom_checkpoint_run(t, s, j, n));
        double work = price + (double)oom_checkpoint_work(t, s, j);
        const double *left = oom_checkpoint_inside_of(b, s, j);
        const double *right = oom_checkpoint_rest_of(b, j);
        up = oom_checkpoint_map(b, &b->outer_maps, s, j);
        for (int k = run; k < whole; k++) lower(&cell[k], work + right[up[k]] + left[into[k]]);
        b->work += (uint64_t)(whole - run);
    }
    /* what may be in a lower cluster may cost what it costs there: keeping all has its price */
    for (int k = 1; k < count; k++) lower(&cell[k], cell[k - 1]);
}

void oom_checkpoint_outer_rest(struct oom_checkpoint_bounds *b) {
    for (int s = b->tables->n - 1; s >= 0; s--) fill_rest(b, s);
}

double oom_checkpoint_outer_least(const struct oom_checkpoint_bounds *b) {
    int k = oom_checkpoint_grid_find(&b->outer, 0, b->budget);
    return oom_checkpoint_rest_of(b, 0)[k + 1] - b->price * oom_checkpoint_outer_to_keep(b);
}

/* ---- the price ---- */

/* The bound that a price gives by itself, without allowances: quick to compute. */
static double bound_of_price(const struct oom_checkpoint_bounds *b, double price) {
    const struct oom_checkpoint_tables *t = b->tables;
    double rest[OOM_CHECKPOINT_STAGES];
    rest[t->n - 1] = 0;
    for (int s = t->n - 2; s >= 0; s--) {
        double work = price * (double)t->x[s] - (double)t->work[s];
        int last = oom_checkpoint_grid_count(&b->inner, s);
        rest[s] = price * (double)t->kept[s] + rest[s + 1];
        for (int j = s + 1; j < t->n; j++) {
            lower(&rest[s],
                  work + (double)t->work[j] + rest[j] + oom_checkpoint_inside_of(b, s, j)[last]);
        }
    }
    return rest[0] - price * oom_checkpoint_outer_to_keep(b);
}

/* It is concave in the price: thirds of the logarithm, as prices are of any size. */
static double best_price(const struct oom_checkpoint_bounds *b) {
    double scale = (double)b->tables->work[b->tables->n] / (double)max(1, b->budget);
    double low = 1e-5 * scale, high = 1e5 * scale;
    while (high > 1.02 * low) {
        double step = cbrt(high / low), a = low * step, c = high / step;
        if (bound_of_price(b, a) < bound_of_price(b, c)) {
            low = a;
        } else {
            high = c;
        }
    }
    return low;
}

static double rest_at(struct oom_checkpoint_bounds *b, double price) {
    b->price = price;
    oom_checkpoint_outer_rest(b);
    return oom_checkpoint_outer_least(b);
}

void oom_checkpoint_outer_choose_price(struct oom_checkpoint_bounds *b) {
    double without = rest_at(b, 0), price = best_price(b);
    if (bound_of_price(b, price) < 0.8 * without) return;
    if (rest_at(b, price) < without) rest_at(b, 0);
}

/* ---- what it took to come there ---- */

static void lower_range(double *cells, const struct oom_checkpoint_cluster *clusters, int cell,
                        int64_t low, double value) {
    for (; cell > 0 && clusters[cell - 1].high >= low; cell--) lower(&cells[cell], value);
}

static void spread_split(struct oom_checkpoint_bounds *b, int s, int j, int from, int to) {
    const struct oom_checkpoint_tables *t = b->tables;
    const struct oom_checkpoint_cluster *c = oom_checkpoint_clusters(&b->outer, s);
    const struct oom_checkpoint_cluster *inner = oom_checkpoint_clusters(&b->inner, s);
    const uint16_t *into = b->into + b->outer.first[s];
    const uint16_t *up = oom_checkpoint_map(b, &b->outer_maps, s, j);
    const uint16_t *down = oom_checkpoint_down(b, &b->outer_maps, s, j);
    const double *left = oom_checkpoint_inside_of(b, s, j), *right = oom_checkpoint_rest_of(b, j);
    const double *reach = oom_checkpoint_reach_of(b, s) + 1;
    double *begun = oom_checkpoint_outside_of(b, s, j), *reached = oom_checkpoint_reach_of(b, j);
    double work = b->price * (double)t->x[s] + (double)oom_checkpoint_work(t, s, j);
    double keep = b->price * oom_checkpoint_outer_to_keep(b), least = never;
    for (int k = from; k < to; k++) {
        double so_far = reach[k] + work, with_left = so_far + left[into[k]];
        double without = so_far + right[up[k]] - keep, all = with_left + right[up[k]] - keep;
        if (!(all < b->limit)) continue;
        lower(&least, all);
        b->outer_effort++;
        b->effort_of[s]++;
        lower_range(begun, inner, into[k], c[k].low, without);
        for (int cell = down[k]; cell <= up[k]; cell++) lower(&reached[cell], with_left);
    }
    b->work += (uint64_t)(to - from);
    if (least >= never) b->outer_pairs[s * t->n + j] = false;
    oom_checkpoint_splits_of(b, s, t->n)[j - s - 1] = oom_checkpoint_rounded_down(least);
}

static void spread(struct oom_checkpoint_bounds *b, int s) {
    const struct oom_checkpoint_tables *t = b->tables;
    const struct oom_checkpoint_cluster *c = oom_checkpoint_clusters(&b->outer, s);
    int whole = saving_all(b, s), n = t->n;
    if (s + 1 == n) return;
    const uint16_t *up = oom_checkpoint_map(b, &b->outer_maps, s, s);
    const uint16_t *down = oom_checkpoint_down(b, &b->outer_maps, s, s);
    const double *reach = oom_checkpoint_reach_of(b, s) + 1;
    double *next = oom_checkpoint_reach_of(b, s + 1);
    double price = b->price * (double)t->kept[s];
    for (int k = oom_checkpoint_holding(c, 0, whole, t->save[at(t, s, n)]); k < whole; k++) {
        for (int cell = down[k]; cell <= up[k]; cell++) lower(&next[cell], reach[k] + price);
    }
    float *useful = oom_checkpoint_splits_of(b, s, n) - (s + 1);
    for (int j = s + 1, run = 0; j < n; j++) {
        if ((double)useful[j] >= b->limit) continue;
        run = oom_checkpoint_holding(c, run, whole, oom_checkpoint_run(t, s, j, n));
        spread_split(b, s, j, run, whole);
    }
}

void oom_checkpoint_outer_reach(struct oom_checkpoint_bounds *b) {
    int n = b->tables->n, cells = b->outer.first[n] + n;
    for (int i = 0; i < cells; i++) b->reach[i] = never;
    oom_checkpoint_reach_of(b, 0)[oom_checkpoint_grid_find(&b->outer, 0, b->budget) + 1] = 0;
    b->outer_effort = 0;
    for (int s = 0; s < n; s++) spread(b, s);
}
