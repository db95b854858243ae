/*
 * cures.h: a table of cures: one training run on the dry device, as it is and under one setting
 * after the other; which of them let it come to its end is pinned, and so is where it fails as it
 * is. Nothing is owned; a run that fails is an answer.
 */
#ifndef OOM_HARNESS_VERIFY_CURES_H
#define OOM_HARNESS_VERIFY_CURES_H

#include "harness/verify/case.h"

/* Sets oom_without (it fails where it is pinned, though as many bytes as it asks for are free) and
 * fits_with (every cell is as pinned); the other bits are not asked. */
enum oom_status oom_cures_judge(const struct oom_case *the_case, struct oom_case_record *record);

/* The job of one cell: settings in force replaced by the cure's. */
enum oom_status oom_cure_apply(const struct oom_cure *cure, struct oom_job *job);

#endif
