/* The memory of the bounds, and what changes from one level of clusters to the next. */
#include "harness/train/checkpoint-bounds-cells.h"

#include "kernels/hostmem.h"

#include <string.h>

#define at oom_checkpoint_at
#define max oom_checkpoint_max
#define min oom_checkpoint_min

typedef struct oom_checkpoint_cluster cluster;

enum { FIRST = 32, OUTER_FIRST = 192 };

/* ---- maps ---- */

static size_t split_count(const struct oom_checkpoint_bounds *b) {
    size_t n = (size_t)b->tables->n;
    return (n + 1) * n * (n - 1) / 6 + 1;
}

static void fill_map(const struct oom_checkpoint_grid *g, int s, int j, int64_t less, uint16_t *up,
                     uint16_t *down) {
    const cluster *from = oom_checkpoint_clusters(g, s), *to = oom_checkpoint_clusters(g, j);
    int count = oom_checkpoint_grid_count(g, s), last = oom_checkpoint_grid_count(g, j), cell = 0,
        low = 0;
    for (int k = 0; k < count; k++) {
        while (cell < last && to[cell].low <= from[k].high - less) cell++;
        while (low < last && to[low].high < from[k].low - less) low++;
        up[k] = (uint16_t)cell;
        down[k] = (uint16_t)min(low + 1, cell);
    }
}

static enum oom_status fill_maps(const struct oom_checkpoint_tables *t,
                                 const struct oom_checkpoint_grid *g, const bool *pairs,
                                 struct oom_checkpoint_maps *maps) {
    size_t n = (size_t)t->n, cells = 0;
    for (int s = 0; s < t->n; s++) {
        for (int j = s; j < t->n; j++) {
            maps->from[(size_t)s * n + (size_t)j] = cells;
            if (j > s && !pairs[(size_t)s * n + (size_t)j]) continue;
            cells += (size_t)oom_checkpoint_grid_count(g, s);
        }
    }
    maps->count = cells;
    maps->up = oom_host_alloc((cells + 1) * sizeof *maps->up);
    maps->down = oom_host_alloc((cells + 1) * sizeof *maps->down);
    if (maps->up == NULL || maps->down == NULL)
        return oom_fail(OOM_HOST_NOMEM, "maps of %zu allowances", cells);
    for (int s = 0; s + 1 < t->n; s++) {
        const size_t *from = maps->from + (size_t)s * n;
        fill_map(g, s, s + 1, t->kept[s], maps->up + from[s], maps->down + from[s]);
        for (int j = s + 1; j < t->n; j++) {
            if (!pairs[(size_t)s * n + (size_t)j]) continue;
            fill_map(g, s, j, t->x[s], maps->up + from[j], maps->down + from[j]);
        }
    }
    return OOM_OK;
}

static void fill_into(struct oom_checkpoint_bounds *b) {
    for (int s = 0; s < b->tables->n; s++) {
        const cluster *from = oom_checkpoint_clusters(&b->outer, s);
        for (int k = 0; k < oom_checkpoint_grid_count(&b->outer, s); k++) {
            int cell = oom_checkpoint_grid_find(&b->inner, s, from[k].high) + 1;
            b->into[b->outer.first[s] + k] = (uint16_t)cell;
        }
    }
}

/* ---- cells ---- */

/* By the end first: the loops go through the right parts (j, e) of one e, while the left parts
 * (s, j) of one s stay in the cache. */
static size_t fill_places(struct oom_checkpoint_bounds *b) {
    int n = b->tables->n;
    size_t cells = 0;
    for (int e = 1; e < n; e++) {
        for (int s = 0; s < e; s++) {
            b->place[at(b->tables, s, e)] = cells;
            cells += (size_t)oom_checkpoint_grid_count(&b->inner, s) + 1;
        }
    }
    b->place[at(b->tables, n, n)] = cells;
    return cells;
}

static enum oom_status fill_level(struct oom_checkpoint_bounds *b) {
    size_t cells = fill_places(b), outer = (size_t)(b->outer.first[b->tables->n] + b->tables->n);
    double **all[] = {&b->inside, &b->outside, &b->rest, &b->reach};
    OOM_TRY(fill_maps(b->tables, &b->inner, b->pairs, &b->inner_maps));
    OOM_TRY(fill_maps(b->tables, &b->outer, b->outer_pairs, &b->outer_maps));
    for (int i = 0; i < 4; i++) {
        *all[i] = oom_host_alloc(((i < 2 ? cells : outer) + 1) * sizeof **all[i]);
        if (*all[i] == NULL) return oom_fail(OOM_HOST_NOMEM, "bounds of %zu cells", cells);
    }
    b->into = oom_host_alloc((outer + 1) * sizeof *b->into);
    if (b->into == NULL) return oom_fail(OOM_HOST_NOMEM, "bounds of %zu cells", outer);
    fill_into(b);
    b->work += cells + outer;
    b->bytes = 2 * cells * sizeof(double) + split_count(b) * sizeof *b->splits +
               2 * (b->inner_maps.count + b->outer_maps.count) * sizeof(uint16_t);
    return OOM_OK;
}

/* ---- refining ---- */

static void mark_inner(const struct oom_checkpoint_bounds *b, unsigned char *what) {
    const struct oom_checkpoint_tables *t = b->tables;
    for (int s = 0; s < t->n; s++) {
        const cluster *c = oom_checkpoint_clusters(&b->inner, s);
        int count = oom_checkpoint_grid_count(&b->inner, s);
        unsigned char *mark = what + b->inner.first[s];
        for (int e = s + 1; e < t->n; e++) {
            cluster live = b->live[at(t, s, e)];
            if (live.low > live.high) continue;
            for (int k = oom_checkpoint_holding(c, 0, count, live.low);
                 k < count && c[k].low <= live.high; k++) {
                bool whole = c[k].low >= t->whole[at(t, s, e)] || c[k].low == c[k].high;
                mark[k] |= whole ? OOM_CHECKPOINT_KEEP : OOM_CHECKPOINT_CUT;
            }
        }
    }
}

static void mark_outer(const struct oom_checkpoint_bounds *b, unsigned char *what) {
    double below = b->limit + b->price * oom_checkpoint_outer_to_keep(b);
    for (int s = 0; s < b->tables->n; s++) {
        const cluster *c = oom_checkpoint_clusters(&b->outer, s);
        const double *rest = oom_checkpoint_rest_of(b, s) + 1;
        const double *reach = oom_checkpoint_reach_of(b, s) + 1;
        for (int k = 0; k < oom_checkpoint_grid_count(&b->outer, s); k++) {
            if (!(reach[k] + rest[k] < below)) continue;
            what[b->outer.first[s] + k] =
                c[k].low < c[k].high ? OOM_CHECKPOINT_CUT : OOM_CHECKPOINT_KEEP;
        }
    }
}

static enum oom_status refine_grid(const struct oom_checkpoint_bounds *from, int parts,
                                   bool outermost, struct oom_checkpoint_bounds *out) {
    const struct oom_checkpoint_grid *grid = outermost ? &from->outer : &from->inner;
    unsigned char *what = oom_host_calloc((size_t)grid->first[grid->n] + 1, 1);
    if (what == NULL) return oom_fail(OOM_HOST_NOMEM, "%d clusters", grid->first[grid->n]);
    enum oom_status status;
    if (outermost) {
        mark_outer(from, what);
        status = oom_checkpoint_grid_refine(from->tables, NULL, from->budget, grid, what, parts,
                                            from->outer_pairs, &out->outer);
    } else {
        mark_inner(from, what);
        status = oom_checkpoint_grid_refine(from->tables, &out->outer, from->budget, grid, what,
                                            parts, from->pairs, &out->inner);
    }
    oom_host_free(what);
    return status;
}

/* ---- the whole ---- */

static enum oom_status allocate(struct oom_checkpoint_bounds *b) {
    size_t n = (size_t)b->tables->n, row = n + 1;
    b->place = oom_host_calloc(row * row, sizeof *b->place);
    b->live = oom_host_calloc(row * row, sizeof *b->live);
    b->around = oom_host_calloc(row * row, sizeof *b->around);
    b->pairs = oom_host_alloc(n * n * sizeof *b->pairs);
    b->outer_pairs = oom_host_alloc(n * n * sizeof *b->outer_pairs);
    b->splits = oom_host_alloc(split_count(b) * sizeof *b->splits);
    b->inner_maps.from = oom_host_calloc(n * n, sizeof *b->inner_maps.from);
    b->outer_maps.from = oom_host_calloc(n * n, sizeof *b->outer_maps.from);
    if (b->place && b->live && b->around && b->pairs && b->outer_pairs && b->splits &&
        b->inner_maps.from && b->outer_maps.from) {
        return OOM_OK;
    }
    return oom_fail(OOM_HOST_NOMEM, "bounds of a chain of %d stages", b->tables->n);
}

static void begin_of_interest(struct oom_checkpoint_bounds *b) {
    const struct oom_checkpoint_tables *t = b->tables;
    size_t n = (size_t)t->n;
    for (int s = 0; s < t->n; s++) {
        for (int e = s + 1; e < t->n; e++) {
            int64_t high = b->budget - (s > 0 ? t->x[0] : 0);
            b->live[at(t, s, e)] = (cluster){t->need[at(t, s, e)], high};
        }
    }
    memset(b->pairs, 1, n * n);
    memset(b->outer_pairs, 1, n * n);
    memset(b->splits, 0, split_count(b) * sizeof *b->splits);
    b->limit = oom_checkpoint_never;
}

/* What is of interest to the coarser one, which looks at a limit at least as high. */
static void take_of_interest(struct oom_checkpoint_bounds *b) {
    const struct oom_checkpoint_bounds *from = b->coarser;
    size_t n = (size_t)b->tables->n, row = n + 1;
    memcpy(b->live, from->live, row * row * sizeof *b->live);
    memcpy(b->pairs, from->pairs, n * n);
    memcpy(b->outer_pairs, from->outer_pairs, n * n);
    memcpy(b->splits, from->splits, split_count(b) * sizeof *b->splits);
    b->limit = from->limit;
}

void oom_checkpoint_bounds_reset(struct oom_checkpoint_bounds *b) {
    if (b->coarser == NULL) {
        begin_of_interest(b);
    } else {
        take_of_interest(b);
    }
}

static enum oom_status begin(struct oom_checkpoint_bounds *b) {
    const struct oom_checkpoint_tables *t = b->tables;
    OOM_TRY(allocate(b));
    oom_checkpoint_bounds_reset(b);
    OOM_TRY(oom_checkpoint_grid_create(t, NULL, b->budget, OUTER_FIRST, &b->outer));
    OOM_TRY(oom_checkpoint_grid_create(t, &b->outer, b->budget, FIRST, &b->inner));
    return fill_level(b);
}

enum oom_status oom_checkpoint_bounds_create(const struct oom_checkpoint_tables *tables,
                                             int64_t budget, struct oom_checkpoint_bounds *out) {
    *out = (struct oom_checkpoint_bounds){.tables = tables, .budget = budget, .price = -1};
    enum oom_status status = begin(out);
    if (status != OOM_OK) oom_checkpoint_bounds_free(out);
    return status;
}

static enum oom_status refine(const struct oom_checkpoint_bounds *from, int parts, int outer_parts,
                              struct oom_checkpoint_bounds *out) {
    OOM_TRY(allocate(out));
    oom_checkpoint_bounds_reset(out);
    OOM_TRY(refine_grid(from, outer_parts, true, out));
    OOM_TRY(refine_grid(from, parts, false, out));
    return fill_level(out);
}

enum oom_status oom_checkpoint_bounds_refine(const struct oom_checkpoint_bounds *from, int parts,
                                             int outer_parts, struct oom_checkpoint_bounds *out) {
    *out = (struct oom_checkpoint_bounds){
        .tables = from->tables, .budget = from->budget, .price = from->price, .coarser = from};
    enum oom_status status = refine(from, parts, outer_parts, out);
    if (status != OOM_OK) oom_checkpoint_bounds_free(out);
    return status;
}

void oom_checkpoint_bounds_free(struct oom_checkpoint_bounds *b) {
    void *all[] = {b->place,
                   b->inside,
                   b->outside,
                   b->rest,
                   b->reach,
                   b->live,
                   b->around,
                   b->pairs,
                   b->outer_pairs,
                   b->splits,
                   b->into,
                   b->inner_maps.from,
                   b->inner_maps.up,
                   b->inner_maps.down,
                   b->outer_maps.from,
                   b->outer_maps.up,
                   b->outer_maps.down};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) oom_host_free(all[i]);
    oom_checkpoint_grid_free(&b->inner);
    oom_checkpoint_grid_free(&b->outer);
    *b = (struct oom_checkpoint_bounds){0};
}
