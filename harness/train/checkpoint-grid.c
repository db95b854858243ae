#include "harness/train/checkpoint-grid.h"

#include "kernels/hostmem.h"

#include <string.h>

#define at oom_checkpoint_at
#define max oom_checkpoint_max
#define min oom_checkpoint_min

typedef struct oom_checkpoint_cluster cluster;

enum { MOST = 60000 }; /* of a stage: a cell has to be a number of 16 bits */

int oom_checkpoint_grid_find(const struct oom_checkpoint_grid *g, int s, int64_t bytes) {
    const cluster *c = g->clusters + g->first[s];
    int low = -1, high = oom_checkpoint_grid_count(g, s);
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if (c[middle].low <= bytes) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

void oom_checkpoint_grid_free(struct oom_checkpoint_grid *grid) {
    oom_host_free(grid->first);
    oom_host_free(grid->clusters);
    *grid = (struct oom_checkpoint_grid){0};
}

static enum oom_status allocate(struct oom_checkpoint_grid *g, int n, size_t clusters) {
    *g = (struct oom_checkpoint_grid){.n = n};
    g->first = oom_host_calloc((size_t)n + 1, sizeof *g->first);
    g->clusters = oom_host_alloc((clusters + 1) * sizeof *g->clusters);
    if (g->first != NULL && g->clusters != NULL) return OOM_OK;
    oom_checkpoint_grid_free(g);
    return oom_fail(OOM_HOST_NOMEM, "%zu clusters of allowances", clusters);
}

/* ---- what occurs ---- */

struct step {
    int64_t from, to, less; /* bytes */
};

struct walk {
    const struct oom_checkpoint_tables *tables;
    const struct oom_checkpoint_grid *buckets;
    const struct oom_checkpoint_grid *outer; /* NULL: this is the outermost chain's */
    const bool *pairs;                       /* NULL: all */
    cluster *found; /* by bucket: of what occurs in it; empty: low above high */
};

/* The least of what lives below dx(e) for any end beyond j. */
static int64_t least_ground(const struct walk *w, int j) {
    const struct oom_checkpoint_tables *t = w->tables;
    int64_t least = t->ground[t->n];
    if (w->outer == NULL) return least;
    for (int e = j + 1; e < t->n; e++) least = min(least, t->ground[e]);
    return least;
}

/* What begins in [from, to] at some stage comes to stage j with so much less. Clusters ascend,
 * buckets ascend: one walk through both. */
static void carry(const struct walk *w, const cluster *first, const cluster *end, int j,
                  struct step step) {
    const struct oom_checkpoint_grid *b = w->buckets;
    int k = b->first[j], last = b->first[j + 1];
    for (const cluster *c = first; c < end; c++) {
        int64_t low = max(c->low, step.from) - step.less;
        int64_t high = min(c->high, step.to) - step.less;
        if (low > high) continue;
        while (k < last && b->clusters[k].high < low) k++;
        for (int m = k; m < last && b->clusters[m].low <= high; m++) {
            w->found[m].low = min(w->found[m].low, max(low, b->clusters[m].low));
            w->found[m].high = max(w->found[m].high, min(high, b->clusters[m].high));
        }
    }
}

static int64_t most_whole(const struct oom_checkpoint_tables *t, int s, bool outermost) {
    if (outermost) return t->whole[at(t, s, t->n)];
    int64_t most = 0;
    for (int e = s + 1; e < t->n; e++) most = max(most, t->whole[at(t, s, e)]);
    return most;
}

static void carry_all(const struct walk *w, int s) {
    const struct oom_checkpoint_tables *t = w->tables;
    const struct oom_checkpoint_grid *b = w->buckets, *o = w->outer;
    const cluster *first = w->found + b->first[s], *end = w->found + b->first[s + 1];
    int64_t to = most_whole(t, s, o == NULL) - 1; /* from there on no part is looked at */
    if (o != NULL) { /* what is split off the outermost chain has its allowance */
        carry(w, o->clusters + o->first[s], o->clusters + o->first[s + 1], s,
              (struct step){0, INT64_MAX / 2, 0});
    }
    if (s + 1 < t->n) carry(w, first, end, s + 1, (struct step){0, to, t->kept[s]});
    for (int j = s + 1; j < t->n; j++) {
        if (w->pairs != NULL && !w->pairs[(size_t)s * (size_t)t->n + (size_t)j]) continue;
        int64_t from = t->run[at(t, s, j)] + least_ground(w, j);
        carry(w, first, end, j, (struct step){from, to, t->x[s]});
    }
}

static void keep_found(const struct walk *w, struct oom_checkpoint_grid *out) {
    const struct oom_checkpoint_grid *b = w->buckets;
    int count = 0;
    for (int s = 0; s < b->n; s++) {
        out->first[s] = count;
        for (int i = b->first[s]; i < b->first[s + 1]; i++) {
            if (w->found[i].low <= w->found[i].high) out->clusters[count++] = w->found[i];
        }
    }
    out->first[b->n] = count;
}

static enum oom_status occurring(const struct oom_checkpoint_tables *tables,
                                 const struct oom_checkpoint_grid *outer, int64_t budget,
                                 const bool *pairs, const struct oom_checkpoint_grid *buckets,
                                 struct oom_checkpoint_grid *out) {
    size_t count = (size_t)buckets->first[buckets->n];
    struct walk walk = {tables, buckets, outer, pairs,
                        oom_host_alloc((count + 1) * sizeof(cluster))};
    if (walk.found == NULL) return oom_fail(OOM_HOST_NOMEM, "%zu buckets of allowances", count);
    for (size_t i = 0; i < count; i++) walk.found[i] = (cluster){INT64_MAX / 2, -1};
    int first = oom_checkpoint_grid_find(buckets, 0, budget);
    if (outer == NULL && first >= 0) walk.found[first] = (cluster){budget, budget};
    for (int s = 0; s < tables->n; s++) carry_all(&walk, s);
    enum oom_status status = allocate(out, tables->n, count);
    if (status == OOM_OK) keep_found(&walk, out);
    oom_host_free(walk.found);
    return status;
}

/* ---- buckets ---- */

static int cut(cluster whole, int parts, cluster *out) {
    int64_t width = (whole.high - whole.low) / parts + 1;
    int count = 0;
    for (int64_t low = whole.low; low <= whole.high; low += width) {
        out[count++] = (cluster){low, min(low + width - 1, whole.high)};
    }
    return count;
}

static int64_t least_need(const struct oom_checkpoint_tables *t, int s, bool outermost) {
    int64_t least = t->need[at(t, s, t->n)];
    if (outermost) return least;
    for (int e = s + 1; e < t->n; e++) least = min(least, t->need[at(t, s, e)]);
    return least;
}

enum oom_status oom_checkpoint_grid_create(const struct oom_checkpoint_tables *t,
                                           const struct oom_checkpoint_grid *outer, int64_t budget,
                                           int most, struct oom_checkpoint_grid *out) {
    struct oom_checkpoint_grid buckets;
    bool outermost = outer == NULL;
    int count = 0;
    OOM_TRY(allocate(&buckets, t->n, (size_t)t->n * (size_t)most));
    for (int s = 0; s < t->n; s++) {
        int64_t low = least_need(t, s, outermost), whole = most_whole(t, s, outermost);
        buckets.first[s] = count;
        if (low > budget) continue;
        if (low < whole) {
            count +=
                cut((cluster){low, min(whole - 1, budget)}, most - 1, buckets.clusters + count);
        }
        if (whole <= budget) buckets.clusters[count++] = (cluster){max(low, whole), budget};
    }
    buckets.first[t->n] = count;
    enum oom_status status = occurring(t, outer, budget, NULL, &buckets, out);
    oom_checkpoint_grid_free(&buckets);
    return status;
}

enum oom_status oom_checkpoint_grid_refine(const struct oom_checkpoint_tables *tables,
                                           const struct oom_checkpoint_grid *outer, int64_t budget,
                                           const struct oom_checkpoint_grid *from,
                                           const unsigned char *what, int parts, const bool *pairs,
                                           struct oom_checkpoint_grid *out) {
    struct oom_checkpoint_grid buckets;
    int count = 0;
    OOM_TRY(allocate(&buckets, from->n, (size_t)from->first[from->n] * (size_t)parts));
    for (int s = 0; s < from->n; s++) {
        buckets.first[s] = count;
        bool many = oom_checkpoint_grid_count(from, s) > MOST / parts;
        for (int i = from->first[s]; i < from->first[s + 1]; i++) {
            if (what[i] == OOM_CHECKPOINT_DROP) continue;
            int into = (what[i] & OOM_CHECKPOINT_CUT) != 0 && !many ? parts : 1;
            count += cut(from->clusters[i], into, buckets.clusters + count);
        }
    }
    buckets.first[from->n] = count;
    enum oom_status status = occurring(tables, outer, budget, pairs, &buckets, out);
    oom_checkpoint_grid_free(&buckets);
    return status;
}
