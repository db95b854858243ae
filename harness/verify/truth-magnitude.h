/*
 * truth-magnitude.h: how large the numbers are that a cnn's gradients are sums of: the sum over
 * samples and pixels of |term|, beside the truth's sum over samples of |gradient|. For a
 * convolution a term is dy x, for a norm's gamma dout xhat, for its beta dout.
 *
 * Watches an f64 trainer's units while it runs; whoever began a magnitude ends it, before the
 * trainer. Other models have no units: nothing is done for them. Failure: no memory, or a device's.
 */
#ifndef OOM_HARNESS_VERIFY_TRUTH_MAGNITUDE_H
#define OOM_HARNESS_VERIFY_TRUTH_MAGNITUDE_H

#include "harness/train/trainer.h"

struct oom_magnitude {
    struct oom_trainer *trainer; /* borrowed */
    double *terms;               /* (n) of all parameters, in order; 0 where they are not watched */
    struct oom_tensor scratch;
    double coefficient;
};

/* Device memory that a magnitude takes beside the trainer's, in bytes. */
uint64_t oom_magnitude_bytes(const struct oom_model_spec *spec);

enum oom_status oom_magnitude_begin(struct oom_trainer *trainer, struct oom_magnitude *out);
/* From now on the terms of each backward, times `coefficient`, are added. */
void oom_magnitude_watch(struct oom_magnitude *m, double coefficient);
/* magnitude (n) = the larger of it and the terms, by element. */
void oom_magnitude_raise(const struct oom_magnitude *m, double *magnitude);
void oom_magnitude_end(struct oom_magnitude *m);

#endif
