/*
 * witness.h: what a training step shows to an outsider, as safetensors: the weights and the batch
 * that it is about to use; then loss, outputs, branches and gradients. harness/train/given.h has
 * the layout of what goes in. What comes out:
 *
 *   loss           []            of the window
 *   outputs        (B,T,V) gpt, (B,R,V) mlp, (B,V) cnn: the logits
 *   grad.<name>    in the shape of the parameter
 *   after.<name>   running statistics of batch norm, as the step leaves them
 *   branch.<n>     (B,E) u8: the decisions of the n-th kink (kinks.h), in forward order
 *
 * A witness owns host memory for outputs and branches, from begin to end; trainer and session are
 * borrowed and must outlive it. Files are there whole or not at all. Failure: OOM_HOST_NOMEM,
 * OOM_IO, or what the device says.
 */
#ifndef OOM_HARNESS_VERIFY_WITNESS_H
#define OOM_HARNESS_VERIFY_WITNESS_H

#include "harness/base/safetensors.h"
#include "harness/train/loop.h"

struct oom_metadata {
    const struct oom_safetensors_entry *entries;
    int count;
};

/* Weights, and the whole window as one batch (which the trainer must not hold already). */
enum oom_status oom_witness_write_given(struct oom_trainer *trainer,
                                        const struct oom_window *window,
                                        struct oom_metadata metadata, const char *path);

struct oom_witness {
    struct oom_trainer *trainer;
    struct oom_loop loop;
    void *outputs;
    struct oom_branch_record *branches; /* by layer */
    int branch_count;
};

/* From now on, until end, it watches the trainer's steps; a window has spec.batch samples. */
enum oom_status oom_witness_begin(struct oom_witness *witness, struct oom_trainer *trainer);
/* Called when the gradients of a window are there (accumulate.h). */
enum oom_status oom_witness_write(const struct oom_witness *witness, struct oom_metadata metadata,
                                  const char *path);
/* Harmless on a zeroed one. */
void oom_witness_end(struct oom_witness *witness);

#endif
