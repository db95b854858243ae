/*
 * truth.h: the gradient of a window, in f64, summed one sample at a time: independent of how the
 * run under test cut its batch (accumulate.c is not used).
 *
 * A window of B samples draws on P distinct ones, so the truth is a weighted sum over P, whatever
 * B is. It is taken at the weights the run had and, where a model has kinks, on the branches that
 * the run took; a branch that differs from the truth's own must lie within the rounding of its
 * kink.
 *
 * Rounding is as large as what is added up, S: the sum over samples of |their weighted gradient|.
 * In a cnn's convolutions and norms a sample's gradient is itself a sum over pixels that cancels;
 * S there is the sum over samples and pixels of |weighted term| where that is larger
 * (truth-magnitude.h). The caller owns a truth until oom_truth_free.
 */
#ifndef OOM_HARNESS_VERIFY_TRUTH_H
#define OOM_HARNESS_VERIFY_TRUTH_H

#include "harness/verify/job.h"

struct oom_truth {
    int64_t n;         /* elements of all parameters, in order */
    double *gradient;  /* (n) */
    double *magnitude; /* (n): S, which errors are measured by */
    double loss, loss_magnitude;
    int64_t branches_differ; /* from the truth's own */
    int64_t branches_wrong;  /* of them further from the kink than rounding explains */
};

/* Of step `step` of a captured job that ran `samples` samples there. */
enum oom_status oom_truth_make(const struct oom_job *job, int step, int64_t samples,
                               struct oom_truth *out);
void oom_truth_free(struct oom_truth *truth);

#endif
