/*
 * plan.h: the very step, run by the very allocator, on the dry device: how many bytes would it
 * need, when and for what, and does it fit under this capacity?
 *
 * A plan owns nothing: device, allocator and trainer live within the call. A step that does not
 * fit is an answer (fits = false with the failing attempt), not a failure.
 */
#ifndef OOM_HARNESS_TRAIN_PLAN_H
#define OOM_HARNESS_TRAIN_PLAN_H

#include "harness/train/batch-size.h"

struct oom_plan_request {
    struct oom_trainer_options trainer;
    struct oom_allocator_settings settings;
    uint64_t capacity;          /* bytes; OOM_PLAN_UNLIMITED: what would it need? */
    uint64_t foreign;           /* bytes that others hold on the device */
    const uint64_t *neighbours; /* sizes of other blocks in the same allocator */
    int neighbour_count;
    int64_t samples; /* of the window */
    int64_t size;    /* of the batch, or of the micro-batch when `micro` */
    bool micro, uneven;
    int steps; /* optimizer steps in a row; the first one makes the optimizer's states */
};

/* "It fits" means so many optimizer steps in a row: the first makes the optimizer's states. */
enum { OOM_PLAN_STEPS = 3 };

#define OOM_PLAN_UNLIMITED (UINT64_C(1) << 60)

struct oom_plan {
    bool fits;
    uint64_t peak_device, peak_reserved, peak_allocated; /* bytes */
    uint64_t tag_at_peak[OOM_TAG_COUNT];                 /* of peak_allocated */
    struct oom_attempt failed;                           /* when it does not fit */
    int recomputed;       /* checkpointing, of the last step: forwards that ran again */
    double extra_forward; /* their flops / those of one forward */
    double unproven;   /* of that, how much another schedule within the budget might save at most:
                        * 0 unless the planner's work ended first (checkpoint-plan.h) */
    double extra_step; /* their flops / those of all else in the step */
};

enum oom_status oom_plan_run(const struct oom_plan_request *request, struct oom_plan *out);

#endif
