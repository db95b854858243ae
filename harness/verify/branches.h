/*
 * branches.h: the decisions that a run's kinks made (harness/train/kinks.h), read back as bytes.
 *
 * Owns nothing. Failure is that of the device.
 */
#ifndef OOM_HARNESS_VERIFY_BRANCHES_H
#define OOM_HARNESS_VERIFY_BRANCHES_H

#include "harness/train/kinks.h"

/* Element i of an array of any floating dtype. */
double oom_element(enum oom_dtype dtype, const void *array, size_t i);

/* Decisions [at, at + n) of those that the kink made for all samples of its micro-batch: whether
 * an element passed the ReLU, or which of its window a pooling took. */
enum oom_status oom_branches_read(struct oom_session *session, const struct oom_kink *kink,
                                  int64_t at, int64_t n, uint8_t *out);

#endif
