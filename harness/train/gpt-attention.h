/*
 * gpt-attention.h: the attention of a gpt block, in two kinds: tiled, and with materialised scores.
 *
 * Works on the trainer's scope, in qkv's dtype. Failure: the status of the first thing that failed.
 */
#ifndef OOM_HARNESS_TRAIN_GPT_ATTENTION_H
#define OOM_HARNESS_TRAIN_GPT_ATTENTION_H

#include "harness/train/layers.h"

/* What backward needs of it. */
struct oom_attention_saved {
    struct oom_tensor qkv;   /* (N,3C) */
    struct oom_tensor probs; /* materialised scores only: (B,NH,T,T) */
    struct oom_tensor lse;   /* tiled only: (B,NH,T) wide */
    struct oom_tensor out;   /* (N,C) */
};

/* Makes out from qkv; what backward reads goes unless it is kept, `out` excepted. */
enum oom_status oom_attention_forward(struct oom_trainer *t, int layer,
                                      struct oom_attention_saved *k);
/* dout (N,C) becomes dqkv (N,3C); frees dout and what was saved. */
enum oom_status oom_attention_backward(struct oom_trainer *t, int layer,
                                       struct oom_attention_saved *k, struct oom_tensor *dout,
                                       struct oom_tensor *dqkv);

#endif
