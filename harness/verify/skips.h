/*
 * skips.h: the steps that mixed precision leaves out because a gradient is not finite. What such a
 * step must leave as it was, when it may be left out, and how the loss scale moves.
 *
 * As in PyTorch the step's forward and backward have run: batch statistics and random numbers are
 * those after them. Weights, optimizer states and the optimizer's count of steps are those before;
 * the scale backs off. A watch owns nothing.
 */
#ifndef OOM_HARNESS_VERIFY_SKIPS_H
#define OOM_HARNESS_VERIFY_SKIPS_H

#include "harness/verify/job.h"

/* The step in hand. */
struct oom_skip_watch {
    bool left_out;                /* as the trainer says */
    struct oom_state_print ready; /* when all gradients were there */
    uint64_t nonfinite;           /* elements of them that are not finite */
};

/* When all gradients are there and one of them is not finite. */
enum oom_status oom_skip_ready(struct oom_skip_watch *watch, struct oom_trainer *trainer,
                               const struct oom_state_print *now);

/* After the step, with its state from before: notes in the result what was done, and what is wrong
 * with it. The watch is ready for the next step. */
enum oom_status oom_skip_after(struct oom_skip_watch *watch, struct oom_trainer *trainer,
                               const struct oom_state_print *before, int step,
                               struct oom_job_result *result);

#endif
