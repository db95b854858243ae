/*
 * checkpoint-testing.h: chains for the tests of checkpoint-*.c: filled in, nothing to free.
 */
#ifndef OOM_HARNESS_TRAIN_CHECKPOINT_TESTING_H
#define OOM_HARNESS_TRAIN_CHECKPOINT_TESTING_H

#include "harness/train/checkpoint-plan.h"
#include "kernels/testing.h"

#define FREE OOM_CHECKPOINT_FORWARD_FREE
#define TICK OOM_CHECKPOINT_FORWARD_CHECK
#define SAVE OOM_CHECKPOINT_FORWARD_SAVE
#define BACK OOM_CHECKPOINT_BACKWARD

struct model {
    struct oom_checkpoint_stage stages[OOM_CHECKPOINT_STAGES];
    struct oom_checkpoint_chain chain;
};

/* Temporaries beside what each operation makes. */
static inline void set_peaks(struct model *m, int i, uint64_t forward, uint64_t save,
                             uint64_t backward) {
    struct oom_checkpoint_stage *s = &m->stages[i];
    s->peak[FREE] = s->output + forward;
    s->peak[TICK] = s->output + forward;
    s->peak[SAVE] = s->output + s->saved + save;
    s->peak[BACK] = s->gradient + s->left + backward;
}

static inline void equal_stages(struct model *m, int n, uint64_t boundary, uint64_t saved,
                                uint64_t gradient, uint64_t temporary) {
    *m = (struct model){.chain = {.count = n, .input = boundary, .stages = m->stages}};
    for (int i = 0; i < n; i++) {
        m->stages[i] = (struct oom_checkpoint_stage){.forward_flops = 1,
                                                     .backward_flops = 2,
                                                     .output = boundary,
                                                     .saved = saved,
                                                     .gradient = i > 0 ? gradient : 0};
        set_peaks(m, i, temporary, temporary, temporary);
    }
}

static inline struct oom_checkpoint_outcome judged(const struct model *m,
                                                   const struct oom_checkpoint_schedule *schedule) {
    struct oom_checkpoint_outcome outcome;
    CHECK_OK(oom_checkpoint_simulate(&m->chain, schedule, &outcome));
    return outcome;
}

#endif
