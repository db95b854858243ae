/*
 * stages.h: a model as a chain of stages, and the order in which their forwards and backwards run.
 *
 * Stage i reads the boundary x(i) and makes x(i+1); x(0) is the batch's inputs, and the last stage
 * leaves the logits instead. What a stage's backward needs it keeps in a struct of its own, one for
 * each stage. The chain owns boundaries and kept tensors; all of them lie in the trainer's scope.
 */
#ifndef OOM_HARNESS_TRAIN_STAGES_H
#define OOM_HARNESS_TRAIN_STAGES_H

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
    struct oom_keeping keeping;  /* of the forward that runs */
};

/* Host memory only. */
enum oom_status oom_stages_create(struct oom_stages *stages, int count, size_t stage_bytes);
void oom_stages_free(struct oom_stages *stages);
/* Forgets every tensor, without freeing. */
void oom_stages_forget(struct oom_stages *stages);

/* From the batch to the logits, and from their gradient back. In an evaluation nothing is kept. */
enum oom_status oom_stages_forward(struct oom_trainer *trainer);
enum oom_status oom_stages_backward(struct oom_trainer *trainer);

#endif
