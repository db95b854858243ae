/*
 * control.h: the wrong twins. Each is a switch inside the product's own path that makes one
 * mistake people really make; the verifier, which does not know that they exist, must catch it.
 *
 * At most one is on in a process. Off is the product. The scenarios' tables say which bits each
 * one turns, and in which situation.
 */
#ifndef OOM_HARNESS_BASE_CONTROL_H
#define OOM_HARNESS_BASE_CONTROL_H

#include "kernels/status.h"

#include <stdbool.h>

/* id, name, the mistake in one line */
#define OOM_CONTROL_MAP(X) \
    X(LOSS_NOT_DIVIDED, "loss_not_divided", \
      "each micro-batch is normalised by itself and their gradients are summed, not averaged") \
    X(GRADS_CLEARED, "grads_cleared_each_micro", \
      "the widespread loop that clears the gradients before each micro-batch") \
    X(LAST_WINDOW_DROPPED, "last_window_dropped", \
      "the last, partial window is neither stepped on nor cleared") \
    X(MEAN_OF_MEANS, "mean_of_means", "uneven micro-batches are averaged with equal weight") \
    X(FULL_DIVISOR, "partial_window_full_divisor", \
      "the last, partial window is divided as if it were a full one") \
    X(TOKENS_IGNORED, "token_weights_ignored", \
      "samples count alike although their numbers of tokens differ") \
    X(SAMPLE_DROPPED, "one_sample_dropped", \
      "the last micro-batch stops one sample early: one of the window is never seen") \
    X(SAMPLE_TWICE, "one_sample_twice", \
      "the cut overlaps: the first sample of the last micro-batch repeats its predecessor") \
    X(DROPOUT_BY_PLACE, "dropout_by_place", \
      "dropout is keyed by the place in the micro-batch, not by the sample") \
    X(LOSS_LAST_ONLY, "loss_of_last_micro", "the reported loss is that of the last micro-batch") \
    X(BIAS_OVERWRITTEN, "bias_gradient_overwritten", \
      "one bias gradient is overwritten by each micro-batch instead of added to") \
    X(RETRY_KEEPS_GRADS, "retry_keeps_gradients", \
      "a retry starts on the partial gradients of the failed attempt") \
    X(OPTIMIZER_PARTIAL, "optimizer_not_atomic", \
      "the optimizer updates each parameter as soon as its own state is allocated") \
    X(STEP_COUNTED, "failed_step_counted", \
      "the optimizer's step counter keeps the failed step: the bias correction is off by one") \
    X(RNG_ADVANCED, "rng_advanced_by_failure", \
      "the failed attempt's random numbers are spent: the retry draws others") \
    X(REFERENCES_HELD, "release_while_held", \
      "the cache is released while the failed step's tensors are still referenced") \
    X(NO_RELEASE, "retry_without_release", \
      "the retry starts without giving the cached blocks back") \
    X(TENSOR_LEAKED, "one_tensor_leaked", "the recovery forgets one tensor of the failed step") \
    X(TOTAL_NOT_FREE, "sized_from_total", \
      "the batch is sized from the device's total memory, not from what is free") \
    X(SIZE_NOT_RUN, "size_off_by_one", \
      "the finder returns the first size that fails instead of the last that fits") \
    X(FREED_TOO_EARLY, "activation_freed_early", \
      "a saved activation is freed before its backward has read it, and reused") \
    X(NO_LOSS_SCALE, "no_loss_scale", \
      "gradients are computed in f16 without a loss scale: the small ones become 0") \
    X(NOT_UNSCALED, "gradients_not_unscaled", \
      "the optimizer gets the gradients of the scaled loss") \
    X(STEP_ON_INF, "stepped_on_inf", "a step whose gradients overflowed is taken all the same") \
    X(NO_MASTER, "no_master_weights", \
      "the weights themselves are halves: updates below half a unit in the last place are lost") \
    X(NORM_IN_HALF, "norm_in_half", "a norm reads its rows rounded to a half") \
    X(SCALE_IN_WINDOW, "scale_changed_in_window", \
      "the loss scale changes between the micro-batches of one window") \
    X(RNG_NOT_RESTORED, "rng_not_restored", \
      "a recomputed segment draws new random numbers for its dropout") \
    X(BOUNDARY_CHANGED, "boundary_changed_in_place", \
      "a checkpoint is changed in place after it was kept") \
    X(SEGMENT_INPUT, "segment_from_wrong_input", \
      "one segment is recomputed from an input in which one sample stands for another") \
    X(STATISTICS_TWICE, "statistics_updated_twice", \
      "a recomputed batch norm counts its batch a second time") \
    X(BLOCK_TWICE, "block_handed_out_twice", \
      "the allocator hands out a block that somebody holds") \
    X(UNMAPPED_LIVE, "segment_unmapped_live", \
      "a release unmaps pages that live blocks lie in: it rounds outward, not inward") \
    X(PAGE_TWICE, "page_mapped_twice", \
      "after a remap a page has the memory of another one: a stale handle")

enum oom_control {
    OOM_CONTROL_NONE,
#define X(id, name, prose) OOM_CONTROL_##id,
    OOM_CONTROL_MAP(X)
#undef X
        OOM_CONTROL_COUNT
};

const char *oom_control_name(enum oom_control control);
const char *oom_control_prose(enum oom_control control);
/* OOM_CONTROL_NONE when the name is unknown. */
enum oom_control oom_control_find(const char *name);

void oom_control_set(enum oom_control control);

extern enum oom_control oom_control_in_force; /* set by oom_control_set alone */
static inline bool oom_control_on(enum oom_control control) {
    return oom_control_in_force == control;
}

#endif
