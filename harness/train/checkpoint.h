/*
 * checkpoint.h: activation checkpointing of a trainer: its stages described by a dry run, and the
 * schedule that follows from the options.
 *
 * A checkpoint owns its description and schedule, until oom_checkpoint_end. Making one runs a step
 * on a dry device of its own: host memory, no device memory. Failure: what the dry run or the
 * planner says (OOM_USAGE for a budget below the minimum, which is named).
 */
#ifndef OOM_HARNESS_TRAIN_CHECKPOINT_H
#define OOM_HARNESS_TRAIN_CHECKPOINT_H

#include "harness/train/checkpoint-plan.h"
#include "harness/train/trainer.h"

/* The chain of a trainer's stages for micro-batches of so many whole samples, in its second step:
 * the optimizer has its states. accumulating: the gradients are there from the start, as in the
 * later micro-batches of a window; else each is made by its stage's backward. */
enum oom_status oom_checkpoint_describe(const struct oom_trainer_options *options,
                                        enum oom_dtype dtype, int64_t samples, bool accumulating,
                                        struct oom_checkpoint_chain *out);
void oom_checkpoint_chain_free(struct oom_checkpoint_chain *chain);

/* The schedule by the options for micro-batches of so many samples; kept until they change. */
enum oom_status oom_checkpoint_prepare(struct oom_trainer *trainer, int64_t samples);
void oom_checkpoint_end(struct oom_trainer *trainer);

#endif
