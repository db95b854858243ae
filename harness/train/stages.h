/*
 * stages.h: a model as a chain of stages, and the order in which their forwards and backwards run.
 *
 * Stage i reads the boundary x(i) and makes x(i+1); x(0) is the batch's inputs, and the last stage
 * leaves the logits instead. What a stage's backward needs it keeps in a struct of its own, one for
 * each stage. Boundaries and kept tensors lie in the trainer's scope.
 *
 * The order is a schedule of checkpoint-plan.h; without one every forward saves, once. A forward
 * that runs again draws the random numbers it drew before and does not count in batch statistics.
 */
#ifndef OOM_HARNESS_TRAIN_STAGES_H
#define OOM_HARNESS_TRAIN_STAGES_H

#include "harness/train/checkpoint-plan.h"
#include "harness/train/tensor.h"

#include <stdbool.h>
#include <stddef.h>

struct oom_trainer;

/* What stays of a stage's forward, beside what it makes. */
struct oom_keeping {
    bool saved; /* what backward reads; else it goes as soon as forward has read it */
    bool input; /* the boundary that was read; else it goes with its last reader */
};

struct oom_stages {
    int count;
    size_t stage_bytes;          /* of the struct a stage keeps */
    char *kept;                  /* count * stage_bytes */
    struct oom_tensor *boundary; /* x(0) .. x(count - 1); x(0) is not used: it is the batch's */
    uint32_t *offset;            /* the running random number at each stage's first forward */
    bool *saved;                 /* by stage: its backward can run */
    struct oom_keeping keeping;  /* of the forward that runs */
    const struct oom_checkpoint_schedule *schedule; /* borrowed; NULL: every forward saves */
    int next;                                       /* operation of the schedule */
    int reached;                                    /* stages whose forward has run */
    int recomputed;                                 /* forwards that ran again, so far */
    double first_flops, again_flops;                /* of forwards so far, where they are counted */
};

/* Host memory only. */
enum oom_status oom_stages_create(struct oom_stages *stages, int count, size_t stage_bytes);
void oom_stages_free(struct oom_stages *stages);
/* Forgets every tensor, without freeing. */
void oom_stages_forget(struct oom_stages *stages);

/* From the batch to the logits, and from their gradient back. In an evaluation nothing is kept. */
enum oom_status oom_stages_forward(struct oom_trainer *trainer);
enum oom_status oom_stages_backward(struct oom_trainer *trainer);

/* One operation by itself, for those who measure. gradient: that of x(stage + 1), becomes that of
 * x(stage); backward only. */
enum oom_status oom_stages_run(struct oom_trainer *trainer, struct oom_checkpoint_op op,
                               struct oom_tensor *gradient);

#endif
