/*
 * checkpoint-bounds-cells.h: within checkpoint-bounds*.c: where the cells lie, and the passes.
 */
#ifndef OOM_HARNESS_TRAIN_CHECKPOINT_BOUNDS_CELLS_H
#define OOM_HARNESS_TRAIN_CHECKPOINT_BOUNDS_CELLS_H

#include "harness/train/checkpoint-bounds.h"

/* More than any plan's flops. */
static const double oom_checkpoint_never = 1e30;

static inline double *oom_checkpoint_inside_of(const struct oom_checkpoint_bounds *b, int s,
                                               int e) {
    return b->inside + b->place[oom_checkpoint_at(b->tables, s, e)];
}

static inline double *oom_checkpoint_outside_of(const struct oom_checkpoint_bounds *b, int s,
                                                int e) {
    return b->outside + b->place[oom_checkpoint_at(b->tables, s, e)];
}

/* Intervals of k stages have k - 1 splits; those that begin at s lie behind those of all before. */
static inline float *oom_checkpoint_splits_of(const struct oom_checkpoint_bounds *b, int s, int e) {
    size_t n = (size_t)b->tables->n, rest = n - (size_t)s, length = (size_t)(e - s);
    size_t total = (n + 1) * n * (n - 1) / 6, from_here = (rest + 1) * rest * (rest - 1) / 6;
    return b->splits + (total - from_here + (length - 1) * (length - 2) / 2);
}

static inline const uint16_t *oom_checkpoint_map(const struct oom_checkpoint_bounds *b,
                                                 const struct oom_checkpoint_maps *maps, int s,
                                                 int j) {
    return maps->up + maps->from[(size_t)s * (size_t)b->tables->n + (size_t)j];
}

static inline const uint16_t *oom_checkpoint_down(const struct oom_checkpoint_bounds *b,
                                                  const struct oom_checkpoint_maps *maps, int s,
                                                  int j) {
    return maps->down + maps->from[(size_t)s * (size_t)b->tables->n + (size_t)j];
}

static inline const struct oom_checkpoint_cluster *
oom_checkpoint_clusters(const struct oom_checkpoint_grid *g, int s) {
    return g->clusters + g->first[s];
}

static inline double *oom_checkpoint_rest_of(const struct oom_checkpoint_bounds *b, int s) {
    return b->rest + b->outer.first[s] + s;
}

static inline double *oom_checkpoint_reach_of(const struct oom_checkpoint_bounds *b, int s) {
    return b->reach + b->outer.first[s] + s;
}

static inline void oom_checkpoint_lower(double *cell, double value) {
    *cell = value < *cell ? value : *cell;
}

/* The first cluster from k on that holds so many bytes or more; count: none. */
static inline int oom_checkpoint_holding(const struct oom_checkpoint_cluster *clusters, int k,
                                         int count, int64_t bytes) {
    while (k < count && clusters[k].high < bytes) k++;
    return k;
}

/* What is not below `limit` is left out. */
static inline float oom_checkpoint_rounded_down(double flops) {
    return (float)(flops * (1 - 0x1p-22));
}

/* The outermost chain. */
void oom_checkpoint_outer_rest(struct oom_checkpoint_bounds *bounds);
void oom_checkpoint_outer_reach(struct oom_checkpoint_bounds *bounds);
void oom_checkpoint_outer_choose_price(struct oom_checkpoint_bounds *bounds);
double oom_checkpoint_outer_least(const struct oom_checkpoint_bounds *bounds);
/* Bytes there are for keeping below the last stage. */
double oom_checkpoint_outer_to_keep(const struct oom_checkpoint_bounds *bounds);

#endif
