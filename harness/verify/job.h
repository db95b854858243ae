/*
 * job.h: one process of a case: a training run described by a struct of plain values, and what it
 * measured. Both travel between processes as files of their bytes, since both ends are the same
 * binary; gradients, weights, branches and state are raw arrays in files of their own.
 *
 * The job's directory belongs to whoever made it. A run that ends in an out-of-memory is a
 * complete result (status OOM_NOMEM with its attempts), not a failure.
 */
#ifndef OOM_HARNESS_VERIFY_JOB_H
#define OOM_HARNESS_VERIFY_JOB_H

#include "harness/train/batch-size.h"
#include "harness/train/checkpoint-fit.h"
#include "harness/train/loop.h"
#include "harness/train/plan.h"
#include "harness/verify/injection.h"
#include "harness/verify/state.h"

enum {
    OOM_JOB_STEPS_MAX = 32,
    OOM_JOB_PATH_MAX = 512,
};

struct oom_job {
    /* the device and what is on it */
    char device[16];
    uint64_t capacity;
    enum oom_schedule schedule;
    enum oom_isa isa;
    int threads;
    struct oom_allocator_settings settings;
    uint64_t foreign;         /* bytes that another consumer holds from the start */
    uint64_t foreign_between; /* bytes that one takes after a step, and gives back */
    int foreign_step;         /* this one */
    bool release_between;     /* give cached memory back before that */

    /* the training */
    struct oom_trainer_options trainer; /* checkpoint_budget 0: the largest whose steps fit */
    enum oom_dtype dtype;
    char data[OOM_JOB_PATH_MAX]; /* "": generated */
    int steps;
    int64_t samples;      /* of a window */
    int64_t last_samples; /* of the last step's window; 0: the same */
    int64_t distinct;
    bool token_weights;
    struct oom_loop_options loop; /* what else the training loop does */

    /* how it is sized */
    enum oom_rule rule;
    enum oom_recovery recovery;
    bool micro, uneven;
    int64_t most, retry;
    int64_t sizes[OOM_JOB_STEPS_MAX]; /* not 0: this size at this step, whatever the rule */

    struct oom_injection injection; /* while the steps run */

    bool record;  /* leave what the allocator remembers behind, as a snapshot */
    bool capture; /* write gradients, weights, branches and the final state */
    char directory[OOM_JOB_PATH_MAX];
};

struct oom_job_step {
    int64_t samples; /* of its window, as run */
    int64_t size;    /* of the (micro-)batch that succeeded */
    bool captured;   /* all gradients were there and the optimizer was about to read them */
    bool skipped;    /* a gradient was not finite, and the optimizer did not read them */
    float scale;     /* of its loss; 0: there is no scaler */
    double loss;
    double evaluation;  /* loss of the last evaluation before or after it; 0: none */
    uint64_t gradients; /* fingerprint of all gradients, in order */
};

struct oom_job_result {
    uint64_t magic;
    enum oom_status status; /* OOM_OK, OOM_NOMEM, or what broke */
    char message[320];
    int steps_done;
    struct oom_job_step steps[OOM_JOB_STEPS_MAX];
    int attempt_count;
    struct oom_attempt attempts[OOM_ATTEMPTS_MAX];
    struct oom_report oom; /* of the failure that ended the run */

    /* bytes */
    uint64_t capacity, foreign, peak_device, peak_reserved, peak_allocated;
    bool peaks_agree; /* device peak = reserved peak + foreign, in every stretch of the run */
    uint64_t tag_at_peak[OOM_TAG_COUNT];
    uint64_t scratch;      /* of the device: fixed, never counted */
    uint64_t host_peak;    /* taken through oom_host_alloc, without the device's scratch */
    uint64_t resident_out; /* resident outside arena and scratch, at most; 0: not known */
    uint64_t retries, device_allocations;
    uint64_t step_calls; /* of alloc, while the steps ran */

    /* checks made and failed */
    int restored_checks, restored_bad;
    char restored_why[96];
    int skipped;               /* steps that the loss scaler left out */
    int skip_checks, skip_bad; /* steps after which scale and state were looked at */
    char skip_why[96];
    int parameter_checks, parameter_bad;
    int canary_checks;
    uint64_t canary_bad; /* bytes */
    uint64_t kept_bad;   /* tensors that the training loop keeps */
    int guard_checks;
    uint64_t guards_bad; /* blocks */
    /* checkpointing, of the last window: forwards that ran again, flops of those and the others */
    int recomputed;
    double forward_flops, again_flops;
    struct oom_checkpoint_fit fit; /* where the job chose its budget */

    bool torn_down; /* teardown was judged: the next two are figures */
    uint64_t left_allocated, left_reserved;

    double seconds, step_seconds; /* of all, of the steps where they came to their end */
};

/* The type whose roundoff its gradients carry: the half of mixed precision, or dtype. */
enum oom_dtype oom_job_precision(const struct oom_job *job);

/* Runs the job in this process. The status is that of making the result; the run's own is in it. */
enum oom_status oom_job_run(const struct oom_job *job, struct oom_job_result *out);
/* The same on the dry device, whatever job->device says: its end or its OOM is an answer, anything
 * else a failure. */
enum oom_status oom_job_run_dry(const struct oom_job *job, struct oom_job_result *out);

/* The files: <directory>/job, result, and by step gradients-0, weights-0, branches-0; state. */
enum oom_status oom_job_write(const struct oom_job *job);
enum oom_status oom_job_read(const char *directory, struct oom_job *out);
enum oom_status oom_job_result_write(const struct oom_job *job,
                                     const struct oom_job_result *result);
enum oom_status oom_job_result_read(const struct oom_job *job, struct oom_job_result *out);
void oom_job_path(const struct oom_job *job, const char *what, int step,
                  char out[OOM_JOB_PATH_MAX + 32]);

/* Where the decisions of a kink for one sample begin in the file of branches, a byte each: kinks,
 * then samples. */
int64_t oom_job_branches_at(const struct oom_job *job, int kink, int64_t sample);
/* Whether a run of the job leaves such a file: samples of changing length have none. */
bool oom_job_keeps_branches(const struct oom_job *job);

#endif
