/*
 * checkpoint-schedule.h: for those who write schedules: operations appended one by one.
 *
 * The schedule is the caller's, also after a failure (OOM_HOST_NOMEM).
 */
#ifndef OOM_HARNESS_TRAIN_CHECKPOINT_SCHEDULE_H
#define OOM_HARNESS_TRAIN_CHECKPOINT_SCHEDULE_H

#include "harness/train/checkpoint-plan.h"

enum oom_status oom_checkpoint_append(struct oom_checkpoint_schedule *schedule,
                                      enum oom_checkpoint_kind kind, int stage);
/* The forwards from stage `first` to before `end`, of which only the first keeps its input. */
enum oom_status oom_checkpoint_append_run(struct oom_checkpoint_schedule *schedule, int first,
                                          int end);
/* The stages from `first` to before `end`, saved and gone back through. */
enum oom_status oom_checkpoint_append_saved(struct oom_checkpoint_schedule *schedule, int first,
                                            int end);

#endif
