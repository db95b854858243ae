/*
 * court.h: runs jobs in processes of their own and remembers what they came to. Internal to
 * verify/: case.h is the door.
 */
#ifndef OOM_HARNESS_VERIFY_COURT_H
#define OOM_HARNESS_VERIFY_COURT_H

#include "harness/verify/case.h"
#include "harness/verify/truth.h"

/* What became of a job's process. */
struct oom_hearing {
    struct oom_job job;           /* with its directory */
    struct oom_job_result result; /* valid when `finished` */
    bool finished;                /* the process ended by itself and left a result */
    char end[96];                 /* how it ended, when not finished: "killed by SIGSEGV" */
};

/* Runs the job, or finds the hearing of an identical one. *out stays valid while the court is. */
enum oom_status oom_court_hear(struct oom_court *court, const char *role, const struct oom_job *job,
                               const char *const *extra, const struct oom_hearing **out);

/* Its files and what is remembered of it go; nobody may hold it any more. */
void oom_court_forget(struct oom_court *court, const struct oom_hearing *hearing);

/* The truth of a step of a captured job, made once for equal weights, branches and windows. */
enum oom_status oom_court_truth(struct oom_court *court, const struct oom_job *job, int step,
                                int64_t samples, const struct oom_truth **out);

#endif
