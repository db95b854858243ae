/*
 * checkpoint-fit.h: the budget of activation checkpointing, chosen by what fits.
 *
 * A schedule's budget counts live bytes; a device has to hold the allocator's reserved ones, which
 * are more. So the largest budget whose steps come to their end on the dry device is looked for,
 * from all the bytes that the run may have, down. Nothing is owned.
 */
#ifndef OOM_HARNESS_TRAIN_CHECKPOINT_FIT_H
#define OOM_HARNESS_TRAIN_CHECKPOINT_FIT_H

#include "harness/train/plan.h"

struct oom_checkpoint_fit {
    uint64_t available; /* bytes: capacity less what is foreign and what the neighbours have */
    uint64_t budget;    /* bytes of all that is live in the run: trainer.checkpoint_budget */
    int passed;         /* larger budgets, of another schedule each, whose steps did not fit */
    double share;       /* extra forward flops of a step / flops of one forward */
    double unproven;    /* of that share, how much another schedule within the budget might save at
                         * most: 0 unless the planner's work ended first (checkpoint-plan.h) */
    double live_share;  /* the same of the schedule for `available`: had live bytes decided */
};

/* The request's trainer runs by budget, whatever it says. OOM_USAGE: no budget fits, down to the
 * least of any schedule, which is stated. */
enum oom_status oom_checkpoint_fit(const struct oom_plan_request *request,
                                   struct oom_checkpoint_fit *out);

#endif
