/*
 * checkpoint-tables.h: what the search for the best plan asks about a chain, again and again.
 *
 * plan(s, e) runs stages s .. e-1 once x(s) and dx(e) are there. Its *allowance* is the budget less
 * what is kept below x(s); x(s), dx(e) and what lives throughout come out of it. The right part of
 * a split at j, plan(j, e), has x(s) less to spend; the left part, plan(s, j), the same again.
 * The tables belong to the caller (tables_free); OOM_HOST_NOMEM. Everything is in bytes or flops.
 */
#ifndef OOM_HARNESS_TRAIN_CHECKPOINT_TABLES_H
#define OOM_HARNESS_TRAIN_CHECKPOINT_TABLES_H

#include "harness/train/checkpoint-plan.h"

#include <stddef.h>

struct oom_checkpoint_tables {
    int n;           /* stages */
    int64_t *x;      /* (n+1): of boundary i */
    int64_t *kept;   /* (n): x(i) and what stage i saves */
    int64_t *before; /* (n+1): kept below i when everything is saved */
    int64_t *work;   /* (n+1): forward flops of the stages below i */
    int64_t *ground; /* (n+1): lives while plan(., e) begins: dx(e), what is fixed or left */
    /* (n+1, n+1) by (s, e), s < e: */
    int64_t *save;  /* allowance for SAVE(s) and BACKWARD(s) around plan(s+1, e) */
    int64_t *run;   /* bytes beside the ground for CHECK(s) FREE(s+1) .. FREE(e-1) */
    int64_t *need;  /* least allowance of any plan */
    int64_t *whole; /* allowance when everything is saved: nothing is computed again */
};

enum oom_status oom_checkpoint_tables_create(const struct oom_checkpoint_chain *chain,
                                             struct oom_checkpoint_tables *out);
void oom_checkpoint_tables_free(struct oom_checkpoint_tables *tables);

static inline size_t oom_checkpoint_at(const struct oom_checkpoint_tables *t, int s, int e) {
    return (size_t)s * (size_t)(t->n + 1) + (size_t)e;
}

/* Forward flops from x(s) to x(j). */
static inline int64_t oom_checkpoint_work(const struct oom_checkpoint_tables *t, int s, int j) {
    return t->work[j] - t->work[s];
}

/* The allowance that the forwards from x(s) to x(j) need while dx(e) is there. */
static inline int64_t oom_checkpoint_run(const struct oom_checkpoint_tables *t, int s, int j,
                                         int e) {
    return t->run[oom_checkpoint_at(t, s, j)] + t->ground[e];
}

static inline int64_t oom_checkpoint_max(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static inline int64_t oom_checkpoint_min(int64_t a, int64_t b) {
    return a < b ? a : b;
}

#endif
