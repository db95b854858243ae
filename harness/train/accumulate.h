/*
 * accumulate.h: one optimizer step over a window that is cut into micro-batches.
 *
 * The weights of the whole window are known before its first micro-batch: each row carries w / W,
 * gradients and loss are added up in place and in order, and nothing is divided afterwards. So on
 * a strict device the result does not depend on the cut, bit for bit.
 */
#ifndef OOM_HARNESS_TRAIN_ACCUMULATE_H
#define OOM_HARNESS_TRAIN_ACCUMULATE_H

#include "harness/train/trainer.h"

/* How a window is cut. The last micro-batch takes what is left. */
struct oom_cut {
    int64_t micro; /* samples of a micro-batch */
    bool uneven;   /* sizes cycle through micro, micro / 2, micro / 4 (at least 1) */
};

/* Samples of micro-batch number j, before the end of the window shortens it. */
int64_t oom_cut_size(struct oom_cut cut, int j);
int oom_cut_count(struct oom_cut cut, int64_t samples);

/* Called when all gradients of a window are there, before the optimizer reads them; also where one
 * of them is not finite and the step will be left out (trainer->scaler.found). */
struct oom_gradients_ready {
    void *context;
    enum oom_status (*call)(void *context, struct oom_trainer *trainer,
                            const struct oom_window *window);
};

/* Forward, loss and backward of every micro-batch; then the update and the end of the step. */
enum oom_status oom_window_run(struct oom_trainer *trainer, const struct oom_window *window,
                               struct oom_cut cut, struct oom_gradients_ready ready);

#endif
