/*
 * checkpoint-bounds.h: how few flops could a plan compute again at the very least, inside an
 * interval and around it? Answers from tables over discretised allowances, always rounded in the
 * plan's favour; the exact search uses them to leave out what cannot matter, never as an answer.
 *
 * The outermost chain of intervals, plan(s, n), has fine slots, the others coarse ones: there are
 * n of the first and n * n / 2 of the second, and the longest sums of sizes are in the first.
 * The caller owns the bounds (bounds_free); OOM_HOST_NOMEM. About 800 n^2 bytes.
 */
#ifndef OOM_HARNESS_TRAIN_CHECKPOINT_BOUNDS_H
#define OOM_HARNESS_TRAIN_CHECKPOINT_BOUNDS_H

#include "harness/train/checkpoint-tables.h"

enum { OOM_CHECKPOINT_COARSE = 64, OOM_CHECKPOINT_FINE = 1024 };

struct oom_checkpoint_bounds {
    const struct oom_checkpoint_tables *tables;
    int64_t budget; /* bytes */
    double price;   /* flops a byte: see checkpoint-bounds.c */
    int64_t fine,
        coarse; /* bytes of a slot; slot k is the allowances above k-1 and up to k slots */
    int top;    /* the fine slot of the budget itself */
    /* flops, as double: rounding is allowed for by whoever compares; (n+1, COARSE+1) and so on */
    double *inside;  /* (n, n, COARSE+1) by (s, e-1, slot): of plan(s, e) at that allowance */
    double *outside; /* the same: of everything but plan(s, e), given that it is part of a plan */
    bool *splits;    /* by (s, e, j): plan(s, e) split at j may be part of a plan below the limit */
    double *begun;   /* the same, only where plan(s, e) is split off plan(s, n) itself */
    double *rest;    /* (n, FINE+1): of plan(s, n) */
    double *reach;   /* (n, FINE+1): to come to plan(s, n) with at most so many slots kept below */
};

/* budget: at least the need of the whole. */
enum oom_status oom_checkpoint_bounds_create(const struct oom_checkpoint_tables *tables,
                                             int64_t budget, struct oom_checkpoint_bounds *out);
void oom_checkpoint_bounds_free(struct oom_checkpoint_bounds *bounds);

/* No plan computes fewer flops again. */
int64_t oom_checkpoint_bounds_least(const struct oom_checkpoint_bounds *bounds);

/* Fills `outside` and `splits` for plans of fewer than `limit` flops. */
void oom_checkpoint_bounds_limit(struct oom_checkpoint_bounds *bounds, int64_t limit);

/* Of plan(s, e), by j - s - 1. */
const bool *oom_checkpoint_bounds_splits(const struct oom_checkpoint_bounds *bounds, int s, int e);

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

#endif
