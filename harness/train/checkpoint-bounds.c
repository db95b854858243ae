/*
 * Inside, with k a slot and k' the slot of what is left of it (the larger one, where two can be):
 *   inside(s, e, k) = min(inside(s+1, e, k'), min over j of work(s, j) + inside(j, e, k')
 *                         + inside(s, j, k))
 * Outside the other way round, from the whole down to its parts (both slots that can be left).
 *
 * Along the outermost chain many small tensors may be kept, and rounding each of them down gives
 * away more than a budget has to spare. So what is kept there has a price as well: with p >= 0
 *   flops >= flops + p * (bytes kept - bytes there are for keeping)
 * as no plan keeps more than there are (Lagrange; for a knapsack it is Dantzig's bound).
 */
#include "harness/train/checkpoint-bounds.h"

#include "kernels/hostmem.h"

#include <math.h>
#include <string.h>

#define at oom_checkpoint_at
#define max oom_checkpoint_max
#define min oom_checkpoint_min

enum { COARSE = OOM_CHECKPOINT_COARSE, FINE = OOM_CHECKPOINT_FINE, RATIO = FINE / COARSE };

static const double never = 1e30;

/* Sums of at most n^2 terms, each rounded: by far less than this part of them. */
static const double slack = 1e-9;

/* By the end first: the loops go through the right parts (j, e) of one e, while the left parts
 * (s, j) of one s stay in the cache. */
static size_t triangle(int s, int e) {
    return (size_t)e * (size_t)(e - 1) / 2 + (size_t)s;
}

static size_t cells(const struct oom_checkpoint_bounds *b) {
    size_t n = (size_t)b->tables->n;
    return n * (n + 1) / 2 * (COARSE + 1);
}

static double *inside_of(const struct oom_checkpoint_bounds *b, int s, int e) {
    return b->inside + triangle(s, e) * (COARSE + 1);
}

static double *outside_of(const struct oom_checkpoint_bounds *b, int s, int e) {
    return b->outside + triangle(s, e) * (COARSE + 1);
}

static double *begun_of(const struct oom_checkpoint_bounds *b, int s, int e) {
    return b->begun + triangle(s, e) * (COARSE + 1);
}

/* Intervals of k stages have k - 1 splits; those that begin at s lie behind those of all before. */
static size_t splits_before(const struct oom_checkpoint_bounds *b, int s, int e) {
    size_t n = (size_t)b->tables->n, rest = n - (size_t)s, length = (size_t)(e - s);
    size_t total = (n + 1) * n * (n - 1) / 6, from_here = (rest + 1) * rest * (rest - 1) / 6;
    return total - from_here + (length - 1) * (length - 2) / 2;
}

static bool *splits_of(const struct oom_checkpoint_bounds *b, int s, int e) {
    return b->splits + splits_before(b, s, e);
}

const bool *oom_checkpoint_bounds_splits(const struct oom_checkpoint_bounds *b, int s, int e) {
    return splits_of(b, s, e);
}

static double *rest_of(const struct oom_checkpoint_bounds *b, int s) {
    return b->rest + (size_t)s * (FINE + 1);
}

static double *reach_of(const struct oom_checkpoint_bounds *b, int s) {
    return b->reach + (size_t)s * (FINE + 1);
}

/* The slot of an allowance; slots beyond the last are not asked for. */
static int slot_of(int64_t bytes, int64_t slot, int last) {
    int64_t k = bytes > 0 ? (bytes + slot - 1) / slot : 0;
    return k <= last ? (int)k : last + 1;
}

static int whole_slots(int64_t bytes, int64_t slot, int last) {
    return (int)min(bytes / slot, last + 1);
}

static void lower(double *cell, double value) {
    *cell = value < *cell ? value : *cell;
}

/* ---- inside ---- */

static void inside_split(const struct oom_checkpoint_bounds *b, int s, int j, int e, int end) {
    const struct oom_checkpoint_tables *t = b->tables;
    int less = whole_slots(t->x[s], b->coarse, COARSE);
    int k = (int)max(less, slot_of(oom_checkpoint_run(t, s, j, e), b->coarse, COARSE));
    double work = (double)oom_checkpoint_work(t, s, j), *cell = inside_of(b, s, e);
    const double *left = inside_of(b, s, j), *right = inside_of(b, j, e);
    for (; k < end; k++) lower(&cell[k], work + right[k - less] + left[k]);
}

static void fill_inside(const struct oom_checkpoint_bounds *b, int s, int e) {
    const struct oom_checkpoint_tables *t = b->tables;
    int whole = slot_of(t->whole[at(t, s, e)], b->coarse, COARSE);
    int need = slot_of(t->need[at(t, s, e)], b->coarse, COARSE);
    double *cell = inside_of(b, s, e);
    for (int k = 0; k <= COARSE; k++) cell[k] = k < whole ? never : 0;
    if (need >= whole) return;
    int less = whole_slots(t->kept[s], b->coarse, COARSE);
    int k = (int)max(less, slot_of(t->save[at(t, s, e)], b->coarse, COARSE));
    for (; k < whole; k++) cell[k] = inside_of(b, s + 1, e)[k - less];
    for (int j = s + 1; j < e; j++) {
        if (slot_of(oom_checkpoint_run(t, s, j, e), b->coarse, COARSE) >= whole) break;
        inside_split(b, s, j, e, whole);
    }
}

/* ---- the outermost chain ---- */

/* Allowance for a segment [s, j) split off plan(s, n), in fine slots. */
static int segment_slot(const struct oom_checkpoint_bounds *b, int s, int j) {
    const struct oom_checkpoint_tables *t = b->tables;
    int64_t run = oom_checkpoint_run(t, s, j, t->n);
    return slot_of(max(run, t->need[at(t, s, j)]), b->fine, FINE);
}

static int coarse_of(int fine) {
    return (fine + RATIO - 1) / RATIO;
}

/* Bytes there are for keeping below the last stage. */
static double to_keep(const struct oom_checkpoint_bounds *b) {
    const struct oom_checkpoint_tables *t = b->tables;
    return (double)(b->budget - t->save[at(t, t->n - 1, t->n)]);
}

static void fill_rest(const struct oom_checkpoint_bounds *b, int s) {
    const struct oom_checkpoint_tables *t = b->tables;
    double *cell = rest_of(b, s);
    int k = slot_of(t->save[at(t, s, t->n)], b->fine, FINE);
    for (int i = 0; i <= b->top; i++) cell[i] = s + 1 == t->n && i >= k ? 0 : never;
    if (s + 1 == t->n) return;
    int less = whole_slots(t->kept[s], b->fine, FINE);
    double price = b->price * (double)t->kept[s];
    for (k = (int)max(k, less); k <= b->top; k++) cell[k] = price + rest_of(b, s + 1)[k - less];
    less = whole_slots(t->x[s], b->fine, FINE);
    price = b->price * (double)t->x[s];
    for (int j = s + 1; j < t->n; j++) {
        double work = price + (double)oom_checkpoint_work(t, s, j);
        const double *left = inside_of(b, s, j), *right = rest_of(b, j);
        for (k = (int)max(less, segment_slot(b, s, j)); k <= b->top; k++) {
            lower(&cell[k], work + right[k - less] + left[coarse_of(k)]);
        }
    }
}

/* With k slots kept below s, the allowance is in slot top - k at best. */
static void spread_reach(const struct oom_checkpoint_bounds *b, int s) {
    const struct oom_checkpoint_tables *t = b->tables;
    double *cell = reach_of(b, s);
    for (int k = 1; k <= b->top; k++) lower(&cell[k], cell[k - 1]);
    int more = whole_slots(t->kept[s], b->fine, FINE);
    int most = b->top - (int)max(more, slot_of(t->save[at(t, s, t->n)], b->fine, FINE));
    double price = b->price * (double)t->kept[s];
    for (int k = 0; k <= most && s + 1 < t->n; k++) {
        lower(&reach_of(b, s + 1)[k + more], price + cell[k]);
    }
    more = whole_slots(t->x[s], b->fine, FINE);
    price = b->price * (double)t->x[s];
    for (int j = s + 1; j < t->n; j++) {
        double work = price + (double)oom_checkpoint_work(t, s, j), *next = reach_of(b, j);
        const double *left = inside_of(b, s, j);
        most = b->top - (int)max(more, segment_slot(b, s, j));
        for (int k = 0; k <= most; k++) {
            lower(&next[k + more], work + cell[k] + left[coarse_of(b->top - k)]);
        }
    }
}

static void fill_begun(const struct oom_checkpoint_bounds *b, int s, int j) {
    const struct oom_checkpoint_tables *t = b->tables;
    int less = whole_slots(t->x[s], b->fine, FINE);
    double fixed = (double)oom_checkpoint_work(t, s, j) + b->price * ((double)t->x[s] - to_keep(b));
    const double *reach = reach_of(b, s) + b->top, *rest = rest_of(b, j) - less;
    double *cell = begun_of(b, s, j);
    for (int k = 0; k <= COARSE; k++) cell[k] = never;
    for (int k = (int)max(less, segment_slot(b, s, j)); k <= b->top; k++) {
        lower(&cell[coarse_of(k)], fixed + reach[-k] + rest[k]);
    }
}

/* ---- the price ---- */

static double least_at(const struct oom_checkpoint_bounds *b) {
    return rest_of(b, 0)[b->top] - b->price * to_keep(b);
}

static double fill_rests(struct oom_checkpoint_bounds *b, double price) {
    b->price = price;
    for (int s = b->tables->n - 1; s >= 0; s--) fill_rest(b, s);
    return least_at(b);
}

/* The bound that a price gives by itself, without slots: quick to compute. */
static double bound_of_price(const struct oom_checkpoint_bounds *b, double price) {
    const struct oom_checkpoint_tables *t = b->tables;
    double rest[OOM_CHECKPOINT_STAGES];
    rest[t->n - 1] = 0;
    for (int s = t->n - 2; s >= 0; s--) {
        double work = price * (double)t->x[s] - (double)t->work[s];
        rest[s] = price * (double)t->kept[s] + rest[s + 1];
        for (int j = s + 1; j < t->n; j++) {
            lower(&rest[s],
                  work + (double)t->work[j] + rest[j] + inside_of(b, s, j)[coarse_of(b->top)]);
        }
    }
    return rest[0] - price * to_keep(b);
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

static void choose_price(struct oom_checkpoint_bounds *b) {
    double without = fill_rests(b, 0), price = best_price(b);
    if (bound_of_price(b, price) < 0.8 * without) return;
    if (fill_rests(b, price) < without) fill_rests(b, 0);
}

static void fill_all(struct oom_checkpoint_bounds *b) {
    int n = b->tables->n;
    for (int s = n - 1; s >= 0; s--) {
        for (int e = s + 1; e < n; e++) fill_inside(b, s, e);
    }
    choose_price(b);
    for (int s = 0; s < n; s++) {
        for (int k = 0; k <= b->top; k++) reach_of(b, s)[k] = s == 0 ? 0 : never;
    }
    for (int s = 0; s < n; s++) spread_reach(b, s);
    for (int s = 0; s < n; s++) {
        for (int j = s + 1; j < n; j++) fill_begun(b, s, j);
    }
}

/* ---- outside ---- */

struct range {
    int from, to; /* slots, both included */
};

static struct range live_slots(const struct oom_checkpoint_bounds *b, int s, int e, double limit) {
    const double *in = inside_of(b, s, e), *out = outside_of(b, s, e);
    struct range range = {0, coarse_of(b->top)};
    while (range.from <= range.to && !(in[range.from] + out[range.from] < limit)) range.from++;
    while (range.from <= range.to && !(in[range.to] + out[range.to] < limit)) range.to--;
    return range;
}

/* A right part begins in slot k - less or in the one below. */
static void lower_right(double *restrict right, const double *restrict value, int less,
                        struct range range) {
    if (range.from > range.to) return;
    for (int k = range.from; k < range.to; k++) {
        lower(&right[k - less], value[k] < value[k + 1] ? value[k] : value[k + 1]);
    }
    lower(&right[range.to - less], value[range.to]);
    if (range.from > less) lower(&right[range.from - less - 1], value[range.from]);
}

static void outside_split(const struct oom_checkpoint_bounds *b, int s, int j, int e,
                          struct range range, double limit) {
    const struct oom_checkpoint_tables *t = b->tables;
    int less = whole_slots(t->x[s], b->coarse, COARSE);
    int run = slot_of(oom_checkpoint_run(t, s, j, e), b->coarse, COARSE);
    double work = (double)oom_checkpoint_work(t, s, j), with_left[COARSE + 1];
    const double *restrict out = outside_of(b, s, e), *restrict in_left = inside_of(b, s, j);
    const double *restrict in_right = inside_of(b, j, e);
    double *restrict left = outside_of(b, s, j);
    bool below = false;
    range.from = (int)max(range.from, max(run, less));
    for (int k = range.from; k <= range.to; k++) {
        double rest = out[k] + work, with_right = rest + in_right[k - less];
        with_left[k] = rest + in_left[k];
        lower(&left[k], with_right);
        below |= with_right + in_left[k] < limit;
    }
    lower_right(outside_of(b, j, e), with_left, less, range);
    splits_of(b, s, e)[j - s - 1] = below;
}

static void outermost_splits(const struct oom_checkpoint_bounds *b, int s, double limit) {
    for (int j = s + 1; j < b->tables->n; j++) {
        const double *in = inside_of(b, s, j), *out = begun_of(b, s, j);
        double least = never;
        for (int k = 0; k <= COARSE; k++) lower(&least, in[k] + out[k]);
        splits_of(b, s, b->tables->n)[j - s - 1] = least < limit;
    }
}

static void spread_outside(const struct oom_checkpoint_bounds *b, int s, int e, double limit) {
    const struct oom_checkpoint_tables *t = b->tables;
    struct range range = live_slots(b, s, e, limit);
    /* where everything can be saved nothing else is looked at */
    range.to = (int)min(range.to, slot_of(t->whole[at(t, s, e)], b->coarse, COARSE));
    if (range.from > range.to) return; /* no window either */
    int less = whole_slots(t->kept[s], b->coarse, COARSE);
    int save = slot_of(t->save[at(t, s, e)], b->coarse, COARSE);
    lower_right(outside_of(b, s + 1, e), outside_of(b, s, e), less,
                (struct range){(int)max(range.from, max(save, less)), range.to});
    for (int j = s + 1; j < e; j++) outside_split(b, s, j, e, range, limit);
}

static double rounding(const struct oom_checkpoint_bounds *b, double flops) {
    return slack * (flops + b->price * (double)b->budget);
}

static double with_slack(const struct oom_checkpoint_bounds *b, int64_t limit) {
    return (double)limit + rounding(b, (double)limit);
}

void oom_checkpoint_bounds_limit(struct oom_checkpoint_bounds *b, int64_t limit) {
    int n = b->tables->n;
    double below = with_slack(b, limit);
    memcpy(b->outside, b->begun, cells(b) * sizeof(double));
    for (int s = 0; s < n; s++) outermost_splits(b, s, below);
    for (int s = 0; s < n; s++) {
        for (int e = n - 1; e > s + 1; e--) spread_outside(b, s, e, below);
    }
}

/* ---- answers ---- */

int64_t oom_checkpoint_bounds_least(const struct oom_checkpoint_bounds *b) {
    double least = least_at(b) - rounding(b, least_at(b));
    return least > 0 ? (int64_t)least : 0;
}

static bool outermost_window(const struct oom_checkpoint_bounds *b, int s, int64_t limit,
                             struct oom_checkpoint_window *out) {
    const double *reach = reach_of(b, s), *rest = rest_of(b, s);
    double below = with_slack(b, limit) + b->price * to_keep(b);
    int from = 0, to = b->top;
    while (from <= to && !(reach[b->top - from] + rest[from] < below)) from++;
    while (from <= to && !(reach[b->top - to] + rest[to] < below)) to--;
    *out = (struct oom_checkpoint_window){(from - 1) * b->fine, to * b->fine, limit};
    return from <= to;
}

static bool inner_window(const struct oom_checkpoint_bounds *b, int s, int e, int64_t limit,
                         struct oom_checkpoint_window *out) {
    double below = with_slack(b, limit), least = below;
    struct range range = live_slots(b, s, e, below);
    for (int k = range.from; k <= range.to; k++) lower(&least, outside_of(b, s, e)[k]);
    *out = (struct oom_checkpoint_window){(range.from - 1) * b->coarse, range.to * b->coarse,
                                          (int64_t)(below - least) + 1};
    return range.from <= range.to;
}

bool oom_checkpoint_bounds_window(const struct oom_checkpoint_bounds *b, int s, int e,
                                  int64_t limit, struct oom_checkpoint_window *out) {
    const struct oom_checkpoint_tables *t = b->tables;
    bool any = e == t->n ? outermost_window(b, s, limit, out) : inner_window(b, s, e, limit, out);
    /* below s lie x(0), where it is not x(s) itself, and at most all that can be kept */
    out->to = min(out->to, b->budget - (s > 0 ? t->x[0] : 0));
    out->from = max(out->from, b->budget - t->before[s]);
    return any && out->from <= out->to;
}

/* What leads to plan(s, n) costs least where most is kept: at the least allowance. */
static double least_before(const struct oom_checkpoint_bounds *b, int s, int64_t allowance) {
    int slot = slot_of(allowance, b->fine, b->top);
    if (slot > b->top) return never;
    return reach_of(b, s)[b->top - slot] - b->price * (double)(b->budget - allowance);
}

bool oom_checkpoint_bounds_useful(const struct oom_checkpoint_bounds *b, int s, int e,
                                  const struct oom_checkpoint_window *plan, int64_t limit) {
    double below = with_slack(b, limit) - (double)plan->flops;
    if (e == b->tables->n) return least_before(b, s, plan->from) < below;
    const double *out = outside_of(b, s, e);
    int last = (int)min(slot_of(plan->to, b->coarse, COARSE), coarse_of(b->top));
    for (int k = slot_of(plan->from, b->coarse, COARSE); k <= last; k++) {
        if (out[k] < below) return true;
    }
    return false;
}

/* ---- the whole ---- */

static int64_t lost(const struct oom_checkpoint_tables *t, int64_t slot) {
    int64_t bytes = 0;
    for (int i = 0; i < t->n; i++) bytes += t->x[i] % slot + t->kept[i] % slot;
    return bytes;
}

/* Slots that sizes are multiples of, give or take a byte, lose nothing: equal stages have such. */
static int64_t best_slot(const struct oom_checkpoint_tables *t, int64_t least) {
    int64_t best = least, least_lost = lost(t, least * RATIO);
    for (int i = 0; i < 2 * t->n; i++) {
        int64_t size = i < t->n ? t->x[i] : t->kept[i - t->n], times = size / (least * RATIO);
        int64_t slot = times > 0 ? size / (times * RATIO) : least;
        int64_t bytes = lost(t, slot * RATIO);
        if (5 * bytes > 4 * least_lost) continue; /* not worth the larger slots */
        best = slot;
        least_lost = bytes;
    }
    return best;
}

static bool allocate(struct oom_checkpoint_bounds *b) {
    size_t n = (size_t)b->tables->n, cell = sizeof(double);
    b->inside = oom_host_alloc(cells(b) * cell);
    b->outside = oom_host_alloc(cells(b) * cell);
    b->begun = oom_host_alloc(cells(b) * cell);
    b->splits = oom_host_calloc((n + 1) * n * (n - 1) / 6 + 1, sizeof *b->splits);
    b->rest = oom_host_alloc(n * (FINE + 1) * cell);
    b->reach = oom_host_alloc(n * (FINE + 1) * cell);
    return b->inside && b->outside && b->begun && b->splits && b->rest && b->reach;
}

enum oom_status oom_checkpoint_bounds_create(const struct oom_checkpoint_tables *tables,
                                             int64_t budget, struct oom_checkpoint_bounds *out) {
    *out = (struct oom_checkpoint_bounds){.tables = tables, .budget = budget};
    out->fine = best_slot(tables, max(1, (budget + FINE - 1) / FINE));
    out->coarse = out->fine * RATIO;
    out->top = slot_of(budget, out->fine, FINE);
    if (!allocate(out)) {
        oom_checkpoint_bounds_free(out);
        return oom_fail(OOM_HOST_NOMEM, "bounds of a chain of %d stages", tables->n);
    }
    fill_all(out);
    return OOM_OK;
}

void oom_checkpoint_bounds_free(struct oom_checkpoint_bounds *b) {
    double *all[] = {b->inside, b->outside, b->begun, b->rest, b->reach};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) oom_host_free(all[i]);
    oom_host_free(b->splits);
    *b = (struct oom_checkpoint_bounds){0};
}
