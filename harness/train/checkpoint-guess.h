/*
 * checkpoint-guess.h: a plan that follows the bounds: at every choice what they promise most of.
 * It always stays within the budget, and it is the better the closer the bounds are. The caller
 * owns the schedule; OOM_HOST_NOMEM.
 */
#ifndef OOM_HARNESS_TRAIN_CHECKPOINT_GUESS_H
#define OOM_HARNESS_TRAIN_CHECKPOINT_GUESS_H

#include "harness/train/checkpoint-bounds.h"

/* *flops: what it computes again. shift: how many cells lower than the allowance's it looks, so as
 * not to rely on the last bytes. */
enum oom_status oom_checkpoint_guess(const struct oom_checkpoint_bounds *bounds, int shift,
                                     int64_t *flops, struct oom_checkpoint_schedule *out);

#endif
