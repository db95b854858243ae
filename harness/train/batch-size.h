/*
 * batch-size.h: how many samples go through the device at once: rules that choose before running,
 * rules that back off after an out-of-memory, and the recovery between a failure and its retry.
 *
 * What is sized is either the batch itself (the effective batch shrinks with it) or the
 * micro-batch of a window that keeps its size. A size once found is kept for the following steps
 * and never grows.
 */
#ifndef OOM_HARNESS_TRAIN_BATCH_SIZE_H
#define OOM_HARNESS_TRAIN_BATCH_SIZE_H

#include "harness/train/accumulate.h"

/* name, prose */
#define OOM_RULE_MAP(X) \
    X(FIXED, "fixed", "the size that was asked for; an OOM is final") \
    X(PLANNED, "planned", "the largest size whose steps fit on the dry device; nothing is tried") \
    X(TWO_POINT_085, "two_point_085", \
      "peaks of sizes 1 and 2 give fixed and per-sample bytes; 0.85 of what is free; then halved") \
    X(SEED_085, "seed_085", \
      "the widespread recipe: the peak of size 1 as the cost of a sample; 0.85; then halved") \
    X(HALVING, "halving", "half after each OOM, caches released, same samples again") \
    X(X09, "x09", "0.9 of it after each OOM, rounded down") \
    X(RETRY, "retry", "after an OOM once more, at a size that is known to fit a fresh process") \
    X(REPEAT, "repeat", "after an OOM the same once more: what fragmentation broke may fit now")

enum oom_rule {
#define X(id, name, prose) OOM_RULE_##id,
    OOM_RULE_MAP(X)
#undef X
        OOM_RULE_COUNT
};

const char *oom_rule_name(enum oom_rule rule);
const char *oom_rule_prose(enum oom_rule rule);

/* What happens between a failure and its retry. Only FULL is right; the others are the situations
 * that `stale_cache` shows. */
enum oom_recovery {
    OOM_RECOVERY_FULL,    /* tensors dropped, gradients cleared, cached memory given back */
    OOM_RECOVERY_HELD,    /* the failed step's tensors stay referenced, as by a live exception */
    OOM_RECOVERY_DROPPED, /* dropped and cleared, but the cache keeps its segments */
    OOM_RECOVERY_EMPTIED, /* the cache is given back while the tensors stay referenced */
};

/* One try of a step. */
struct oom_attempt {
    int step;
    int64_t size;
    bool trial; /* forward and backward only, to measure */
    enum oom_status status;
    enum oom_phase phase;     /* reached */
    int micro_batch;          /* number, from 0 */
    int gradients_written;    /* parameter gradients begun */
    struct oom_report report; /* of the allocator, when status is OOM_NOMEM */
};

enum { OOM_ATTEMPTS_MAX = 64 };

/* Told what happens, for those who watch (NULL: not told). A status other than OOM_OK ends the run.
 */
struct oom_watch {
    void *context;
    enum oom_status (*before)(void *context, struct oom_trainer *trainer);
    enum oom_status (*failed)(void *context, struct oom_trainer *trainer);
    enum oom_status (*recovered)(void *context, struct oom_trainer *trainer);
    enum oom_status (*peaks)(void *context, struct oom_trainer *trainer); /* about to be reset */
};

struct oom_sizing {
    enum oom_rule rule;
    bool micro;  /* the micro-batch is sized; else the batch */
    bool uneven; /* micro-batches cycle in size */
    enum oom_recovery recovery;
    int64_t most;       /* the size to begin with, and never to exceed */
    int64_t retry;      /* rule retry: the second size */
    uint64_t available; /* bytes this run may use on the device: capacity less what others hold */
    /* planned: does a size fit, by a plan on the dry device? */
    void *plan_context;
    enum oom_status (*plan)(void *context, int64_t size, bool *fits);
    struct oom_gradients_ready ready;
    struct oom_watch watch;

    int64_t size;  /* in force; 0 before the first step */
    bool repeated; /* rule repeat: this step has been */
    int attempt_count;
    struct oom_attempt attempts[OOM_ATTEMPTS_MAX];
};

/* Makes a window of so many samples. */
struct oom_windows {
    void *context;
    void (*make)(void *context, int64_t samples, struct oom_window *out);
};

/* One optimizer step, with the rule's choice before the first and its retries after an OOM.
 * OOM_NOMEM when no size is left (or the rule does not retry): the failed step's tensors are
 * still held then, as they are after an exception nobody caught. */
enum oom_status oom_sized_step(struct oom_sizing *sizing, struct oom_trainer *trainer, int step,
                               int64_t samples, int64_t nominal, struct oom_windows windows);

/* Between a failure and a retry. */
enum oom_status oom_recover(struct oom_trainer *trainer, enum oom_recovery recovery);

/* The size after an OOM at the size in force; 0 when the rule has none. */
int64_t oom_sizing_next(const struct oom_sizing *sizing);

/* The largest size for which every size up to it fits: scanned to 512, bisected above. 0: none. */
enum oom_status oom_largest_fit(void *context,
                                enum oom_status (*plan)(void *context, int64_t size, bool *fits),
                                int64_t most, int64_t *out);

#endif
