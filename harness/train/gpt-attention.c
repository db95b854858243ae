#include "harness/train/gpt-attention.h"

/* Shapes, once. */
struct shape {
    int64_t b, t, c, nh;
    int64_t out, scores, lse; /* elements of arrays */
    enum oom_dtype dtype;
};

static struct shape shape_of(const struct oom_trainer *t, const struct oom_attention_saved *k) {
    const struct oom_model_spec *spec = &t->options.spec;
    int64_t b = t->batch.samples, each = t->batch.each, nh = spec->heads;
    return (struct shape){.b = b,
                          .t = each,
                          .c = spec->width,
                          .nh = nh,
                          .out = t->batch.rows * spec->width,
                          .scores = b * nh * each * each,
                          .lse = b * nh * each,
                          .dtype = k->qkv.dtype};
}

static bool is_tiled(const struct oom_trainer *t) {
    return t->options.spec.attention == OOM_ATTENTION_TILED;
}

/* ---- forward ---- */

static enum oom_status tiled_forward(struct oom_trainer *t, int layer,
                                     struct oom_attention_saved *k) {
    struct shape s = shape_of(t, k);
    OOM_TRY(oom_activation_of(t, oom_dtype_wide(s.dtype), s.lse, layer, "attention lse", &k->lse));
    OOM_TRY(oom_activation_of(t, s.dtype, s.out, layer, "attention", &k->out));
    struct oom_attention_tiled_forward_args args = {s.dtype, s.b,         s.t,         s.c,
                                                    s.nh,    k->qkv.data, k->out.data, k->lse.data};
    return oom_run(t->session, OOM_OP_ATTENTION_TILED_FORWARD, &args);
}

static enum oom_status scores_forward(struct oom_trainer *t, int layer,
                                      struct oom_attention_saved *k) {
    struct shape s = shape_of(t, k);
    struct oom_tensor scores;
    OOM_TRY(oom_activation_of(t, s.dtype, s.scores, layer, "attention scores", &scores));
    OOM_TRY(oom_activation_of(t, s.dtype, s.scores, layer, "attention probs", &k->probs));
    struct oom_attention_scores_forward_args score = {s.dtype, s.b,         s.t,        s.c,
                                                      s.nh,    k->qkv.data, scores.data};
    OOM_TRY(oom_run(t->session, OOM_OP_ATTENTION_SCORES_FORWARD, &score));
    struct oom_attention_softmax_forward_args softmax = {s.dtype, s.b,         s.t,
                                                         s.nh,    scores.data, k->probs.data};
    OOM_TRY(oom_run(t->session, OOM_OP_ATTENTION_SOFTMAX_FORWARD, &softmax));
    OOM_TRY(oom_drop(t, &scores));
    OOM_TRY(oom_activation_of(t, s.dtype, s.out, layer, "attention", &k->out));
    struct oom_attention_values_forward_args value = {
        s.dtype, s.b, s.t, s.c, s.nh, k->probs.data, k->qkv.data, k->out.data};
    return oom_run(t->session, OOM_OP_ATTENTION_VALUES_FORWARD, &value);
}

enum oom_status oom_attention_forward(struct oom_trainer *t, int layer,
                                      struct oom_attention_saved *k) {
    OOM_TRY(is_tiled(t) ? tiled_forward(t, layer, k) : scores_forward(t, layer, k));
    OOM_TRY(oom_drop_unless_kept(t, &k->qkv));
    OOM_TRY(oom_drop_unless_kept(t, &k->probs));
    return oom_drop_unless_kept(t, &k->lse);
}

/* ---- backward ---- */

static enum oom_status tiled_backward(struct oom_trainer *t, int layer,
                                      struct oom_attention_saved *k, struct oom_tensor *dout,
                                      struct oom_tensor *dqkv) {
    struct shape s = shape_of(t, k);
    OOM_TRY(oom_activation_of(t, s.dtype, 3 * s.out, layer, "dqkv", dqkv));
    struct oom_attention_tiled_backward_args args = {.dtype = s.dtype,
                                                     .batch = s.b,
                                                     .positions = s.t,
                                                     .channels = s.c,
                                                     .heads = s.nh,
                                                     .dout = dout->data,
                                                     .out = k->out.data,
                                                     .qkv = k->qkv.data,
                                                     .lse = k->lse.data,
                                                     .dqkv = dqkv->data};
    struct oom_tensor workspace;
    uint64_t bytes = oom_op_workspace_bytes(OOM_OP_ATTENTION_TILED_BACKWARD, &args);
    OOM_TRY(
        oom_scope_alloc(&t->scope, bytes, OOM_TAG_WORKSPACE, "attention workspace", &workspace));
    args.workspace = workspace.data;
    OOM_TRY(oom_run(t->session, OOM_OP_ATTENTION_TILED_BACKWARD, &args));
    OOM_TRY(oom_drop(t, &workspace));
    OOM_TRY(oom_drop(t, dout));
    OOM_TRY(oom_drop(t, &k->out));
    OOM_TRY(oom_drop(t, &k->lse));
    return oom_drop(t, &k->qkv);
}

static enum oom_status scores_backward(struct oom_trainer *t, int layer,
                                       struct oom_attention_saved *k, struct oom_tensor *dout,
                                       struct oom_tensor *dqkv) {
    struct shape s = shape_of(t, k);
    struct oom_tensor dprobs, dscores;
    OOM_TRY(oom_drop(t, &k->out));
    OOM_TRY(oom_activation_of(t, s.dtype, 3 * s.out, layer, "dqkv", dqkv));
    OOM_TRY(oom_activation_of(t, s.dtype, s.scores, layer, "dprobs", &dprobs));
    struct oom_attention_values_backward_args value = {
        s.dtype,    s.b,           s.t,         s.c,         s.nh,
        dout->data, k->probs.data, k->qkv.data, dprobs.data, dqkv->data};
    OOM_TRY(oom_run(t->session, OOM_OP_ATTENTION_VALUES_BACKWARD, &value));
    OOM_TRY(oom_drop(t, dout));
    OOM_TRY(oom_activation_of(t, s.dtype, s.scores, layer, "dscores", &dscores));
    struct oom_attention_softmax_backward_args softmax = {
        s.dtype, s.b, s.t, s.nh, k->probs.data, dprobs.data, dscores.data};
    OOM_TRY(oom_run(t->session, OOM_OP_ATTENTION_SOFTMAX_BACKWARD, &softmax));
    OOM_TRY(oom_drop(t, &dprobs));
    OOM_TRY(oom_drop(t, &k->probs));
    struct oom_attention_scores_backward_args score = {
        s.dtype, s.b, s.t, s.c, s.nh, dscores.data, k->qkv.data, dqkv->data};
    OOM_TRY(oom_run(t->session, OOM_OP_ATTENTION_SCORES_BACKWARD, &score));
    OOM_TRY(oom_drop(t, &k->qkv));
    return oom_drop(t, &dscores);
}

enum oom_status oom_attention_backward(struct oom_trainer *t, int layer,
                                       struct oom_attention_saved *k, struct oom_tensor *dout,
                                       struct oom_tensor *dqkv) {
    return is_tiled(t) ? tiled_backward(t, layer, k, dout, dqkv)
                       : scores_backward(t, layer, k, dout, dqkv);
}
