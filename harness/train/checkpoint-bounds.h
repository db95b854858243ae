/*
 * checkpoint-bounds.h: how few flops could a plan compute again at the very least, inside an
 * interval and around it? Answers from tables over clusters of allowances (checkpoint-grid.h),
 * always rounded in the plan's favour; the exact search uses them to leave out what cannot matter.
 *
 * Only plans below a limit matter. Where an interval cannot be part of one, its allowances are left
 * out, and the clusters of those left are cut: so the bounds come close where it counts.
 * The outermost chain of intervals, plan(s, n), has a grid of its own: there are n of the first and
 * n * n / 2 of the others, and the longest sums of sizes are in the first.
 * The caller owns the bounds (bounds_free); OOM_HOST_NOMEM.
 */
#ifndef OOM_HARNESS_TRAIN_CHECKPOINT_BOUNDS_H
#define OOM_HARNESS_TRAIN_CHECKPOINT_BOUNDS_H

#include "harness/train/checkpoint-grid.h"

/* Of one grid. Cells are by cluster + 1: cell 0 is of allowances below all clusters. */
struct oom_checkpoint_maps {
    size_t *from; /* (n, n): where the map from stage s to j begins; (s, s): to s+1, saving s */
    size_t count;
    uint16_t *up;   /* by cluster: the cell that the cluster's highest allowance becomes */
    uint16_t *down; /* by cluster: the least that one of its allowances can become */
};

struct oom_checkpoint_bounds {
    const struct oom_checkpoint_bounds *coarser; /* that it refines; NULL: none */
    const struct oom_checkpoint_tables *tables;
    int64_t budget; /* bytes */
    double price;   /* flops a byte: see checkpoint-bounds-outer.c */
    double limit;   /* flops: plans below it are of interest */
    uint64_t work;  /* cells looked at so far: the same on every machine */
    uint64_t bytes; /* of memory, about */
    uint64_t effort,
        outer_effort; /* of them: what a next round with the same clusters would take */
    uint64_t effort_of[OOM_CHECKPOINT_STAGES]; /* both, of the intervals from stage s on */
    struct oom_checkpoint_grid inner, outer;
    struct oom_checkpoint_maps inner_maps, outer_maps;
    uint16_t *into; /* by cluster of the outer grid: the inner grid's cell of its highest */
    /* flops, as double: rounding is allowed for by whoever compares */
    size_t *place;   /* (n+1, n+1): where the cells of (s, e) begin, in the next two */
    double *inside;  /* of plan(s, e) at an allowance of that cell */
    double *outside; /* of everything but plan(s, e), given that it is part of a plan */
    double *rest;    /* by outer cell: of plan(s, n) */
    double *reach;   /* by outer cell: to come to plan(s, n) */
    /* by (s, e), (n+1, n+1): */
    struct oom_checkpoint_cluster *live; /* allowances that can be part of a plan of interest */
    double *around;                      /* the least outside there */
    bool *pairs, *outer_pairs;           /* (n, n): some (s, e), or (s, n), may be split at j */
    float *splits; /* by (s, e, j): the least of a plan in which (s, e) is split at j */
};

/* budget: at least the need of the whole. After it the first level is to be filled. */
enum oom_status oom_checkpoint_bounds_create(const struct oom_checkpoint_tables *tables,
                                             int64_t budget, struct oom_checkpoint_bounds *out);
void oom_checkpoint_bounds_free(struct oom_checkpoint_bounds *bounds);

/* Bottom-up: `inside` and `rest`. *least: no plan below the limit computes fewer flops again. */
void oom_checkpoint_bounds_inside(struct oom_checkpoint_bounds *bounds, double *least);
/* Top-down, for plans below the limit: the rest. */
void oom_checkpoint_bounds_outside(struct oom_checkpoint_bounds *bounds, int64_t limit);
/* Before another limit, up to the coarser one's. */
void oom_checkpoint_bounds_reset(struct oom_checkpoint_bounds *bounds);
/* After `outside`: the same with the clusters of interest cut; `inside` is to be filled. It needs
 * `from` as it is for as long as it is used. */
enum oom_status oom_checkpoint_bounds_refine(const struct oom_checkpoint_bounds *from, int parts,
                                             int outer_parts, struct oom_checkpoint_bounds *out);

/* What rounding may have taken from a sum of so many flops, or added. */
double oom_checkpoint_bounds_rounding(const struct oom_checkpoint_bounds *bounds, double flops);

/* Of plan(s, e), by j - s - 1. */
const float *oom_checkpoint_bounds_splits(const struct oom_checkpoint_bounds *bounds, int s, int e);

/* Which plans of (s, e) can be part of a whole below the limit: allowances from..to, flops below
 * `flops`. False: none. */
struct oom_checkpoint_window {
    int64_t from, to, flops;
};
bool oom_checkpoint_bounds_window(const struct oom_checkpoint_bounds *bounds, int s, int e,
                                  int64_t limit, struct oom_checkpoint_window *out);

/* Can a plan(s, e) of so many flops, given an allowance in from..to, be part of a whole below the
 * limit? */
bool oom_checkpoint_bounds_useful(const struct oom_checkpoint_bounds *bounds, int s, int e,
                                  const struct oom_checkpoint_window *plan, int64_t limit);

/* The least of plan(s, e) at an allowance, and with e == n with its price. */
double oom_checkpoint_bounds_plan(const struct oom_checkpoint_bounds *bounds, int shift, int s,
                                  int e, int64_t allowance);

#endif
