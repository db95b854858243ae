/*
 * checkpoint-hunt.h: the schedule of least forward flops within a budget, or, where that takes more
 * than a stated amount of work, a good one and how much better any could be.
 *
 * Is there a plan below a limit? The tighter the limit, the less there is to look at: so limits
 * start just above what is proven to be needed and move away from it in doubling steps. For each
 * limit the exact search (checkpoint-frontier.h) is tried with some work; where that does not
 * suffice, the bounds are refined, and the same is done with those, for limits up to this one.
 * Plans that follow the bounds (checkpoint-guess.h) end it early where they meet what is proven.
 * The caller owns the schedule; OOM_HOST_NOMEM.
 */
#ifndef OOM_HARNESS_TRAIN_CHECKPOINT_HUNT_H
#define OOM_HARNESS_TRAIN_CHECKPOINT_HUNT_H

#include "harness/train/checkpoint-tables.h"

/* work: in cells of the bounds; 0: whatever it takes. out: an empty schedule, or
 * one within the budget with its flops to begin with; it gets its proof. */
enum oom_status oom_checkpoint_hunt(const struct oom_checkpoint_tables *tables, int64_t budget,
                                    uint64_t work, struct oom_checkpoint_schedule *out);

#endif
