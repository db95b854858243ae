/*
 * checkpoint-grid.h: which allowances can occur at a stage, in clusters: what the bounds are
 * tabulated over.
 *
 * An allowance at stage s is the budget less boundaries, or what stages saved, kept below s. All
 * that there can be, walked from stage to stage, fall into buckets; a cluster is the least and the
 * greatest of a bucket, and where few sums are possible a cluster is one of them. Refining cuts the
 * buckets of those that are still of use and leaves out the others. Allowances that save everything
 * whatever the end of the interval are one last cluster.
 * The caller owns a grid (grid_free); OOM_HOST_NOMEM.
 */
#ifndef OOM_HARNESS_TRAIN_CHECKPOINT_GRID_H
#define OOM_HARNESS_TRAIN_CHECKPOINT_GRID_H

#include "harness/train/checkpoint-tables.h"

struct oom_checkpoint_cluster {
    int64_t low, high; /* bytes, both in it */
};

struct oom_checkpoint_grid {
    int n;
    int *first;                              /* (n+1): where the clusters of stage s begin */
    struct oom_checkpoint_cluster *clusters; /* of each stage ascending, apart from each other */
};

/* What becomes of a cluster. */
enum oom_checkpoint_refine { OOM_CHECKPOINT_DROP, OOM_CHECKPOINT_KEEP, OOM_CHECKPOINT_CUT };

/* outer: the grid of plan(s, n) when this one is of all other intervals; NULL: this is that one. At
 * most `most` clusters a stage, at least 2. */
enum oom_status oom_checkpoint_grid_create(const struct oom_checkpoint_tables *tables,
                                           const struct oom_checkpoint_grid *outer, int64_t budget,
                                           int most, struct oom_checkpoint_grid *out);
/* what: by cluster of `from`. A cut cluster gets at most `parts`.
 * pairs: by (s, j), whether some interval from s on is split at j. */
enum oom_status oom_checkpoint_grid_refine(const struct oom_checkpoint_tables *tables,
                                           const struct oom_checkpoint_grid *outer, int64_t budget,
                                           const struct oom_checkpoint_grid *from,
                                           const unsigned char *what, int parts, const bool *pairs,
                                           struct oom_checkpoint_grid *out);
void oom_checkpoint_grid_free(struct oom_checkpoint_grid *grid);

static inline int oom_checkpoint_grid_count(const struct oom_checkpoint_grid *g, int s) {
    return g->first[s + 1] - g->first[s];
}

/* The last cluster of stage s that begins at or below so many bytes; -1: none. */
int oom_checkpoint_grid_find(const struct oom_checkpoint_grid *grid, int s, int64_t bytes);

#endif
