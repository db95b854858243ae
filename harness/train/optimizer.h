/*
 * optimizer.h: SGD with momentum and AdamW over a trainer's parameters.
 *
 * The states belong to the parameters and are made at the first update. The update is all or
 * nothing: every state is allocated before anything is written, and on failure what this call
 * allocated is freed again, so weights, states and the step counter are those before.
 */
#ifndef OOM_HARNESS_TRAIN_OPTIMIZER_H
#define OOM_HARNESS_TRAIN_OPTIMIZER_H

#include "harness/train/trainer.h"

/* Makes every state, or none. */
enum oom_status oom_optimizer_prepare(struct oom_trainer *trainer);
enum oom_status oom_optimizer_update(struct oom_trainer *trainer);

#endif
