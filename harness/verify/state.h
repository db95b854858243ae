/*
 * state.h: fingerprints of everything a failed step must leave as it was.
 *
 * A print owns nothing. Taking one reads tensors back in small pieces; gradients are looked at for
 * being none or zero.
 */
#ifndef OOM_HARNESS_VERIFY_STATE_H
#define OOM_HARNESS_VERIFY_STATE_H

#include "harness/train/trainer.h"

struct oom_state_print {
    uint64_t weights;
    uint64_t optimizer;  /* states (which exist, and their contents) and the step counter */
    uint64_t statistics; /* of batch norms */
    uint64_t random;     /* the step that random numbers are keyed by, and the running number */
    uint64_t scale;      /* of the loss: its bits, the clean steps since it changed */
    uint64_t allocated;  /* bytes in live blocks */
    bool gradients_clear;
};

enum oom_status oom_state_take(struct oom_trainer *trainer, struct oom_state_print *out);
/* NULL when `after` is `before` with clear gradients; else what differs first, in words. */
const char *oom_state_difference(const struct oom_state_print *before,
                                 const struct oom_state_print *after);

/* Reads a tensor back in pieces. Stops at the first status that is not OOM_OK. A device that
 * computes nothing is asked for them, too, but has nothing to show. */
enum oom_status
oom_tensor_read(struct oom_session *session, struct oom_tensor tensor, uint64_t bytes,
                enum oom_status (*piece)(void *context, const void *data, size_t bytes),
                void *context);

#endif
