/*
 * checkpoint-frontier.h: the exact search. For every interval the frontier of its plans: ascending
 * allowance, descending flops computed again; no plan off it can be part of a best one.
 *
 * With unlimited frontiers this is the dynamic programme itself; what makes it quick is that bounds
 * (checkpoint-bounds.h) leave out every plan that no schedule below `limit` flops can contain. The
 * caller owns the search (search_free); OOM_HOST_NOMEM.
 */
#ifndef OOM_HARNESS_TRAIN_CHECKPOINT_FRONTIER_H
#define OOM_HARNESS_TRAIN_CHECKPOINT_FRONTIER_H

#include "harness/train/checkpoint-bounds.h"

/* From this allowance on, up to the next point's, so many flops are computed again. */
struct oom_checkpoint_point {
    int64_t bytes, flops;
};

struct oom_checkpoint_points {
    struct oom_checkpoint_point *points;
    size_t count, capacity;
};

/* Where an interval's points begin in the pool. */
struct oom_checkpoint_frontier {
    size_t first, count;
};

struct oom_checkpoint_search {
    const struct oom_checkpoint_tables *tables;
    struct oom_checkpoint_bounds *bounds;
    struct oom_checkpoint_frontier *frontiers; /* (n+1, n+1) */
    uint64_t work, most_work;                  /* so far; where it gives up */
    uint64_t least_work;                       /* where it begins to tell whether it will */
    double below; /* the limit, and what rounding may have added to a bound */
    struct oom_checkpoint_points pool, current, next;
};

enum oom_status oom_checkpoint_search_create(const struct oom_checkpoint_tables *tables,
                                             struct oom_checkpoint_bounds *bounds,
                                             struct oom_checkpoint_search *out);
void oom_checkpoint_search_free(struct oom_checkpoint_search *search);

enum { OOM_CHECKPOINT_NONE = -1, OOM_CHECKPOINT_UNKNOWN = -2 };

/* Looks for plans that compute fewer than `limit` flops again, at most the limit of the bounds.
 * *found: the least; NONE: there is no such plan; UNKNOWN: it has given up. */
enum oom_status oom_checkpoint_search_run(struct oom_checkpoint_search *search, int64_t limit,
                                          int64_t *found);

/* After a run that found one: its schedule. */
enum oom_status oom_checkpoint_search_emit(const struct oom_checkpoint_search *search,
                                           struct oom_checkpoint_schedule *out);

#endif
