/*
 * gpt.c: a GPT-2 style decoder. Forward and backward are written out: what is saved for backward
 * is the struct below, and every tensor's birth and death stands in the code.
 *
 *   x0  = table[token] + position[t]                              (N,C), N = B T
 *   per block:  n1 = norm(x);   qkv = n1 Wqkv^T + b;  att = attention(qkv)
 *               r1 = x + drop(att Wproj^T + b)
 *               n2 = norm(r1);  fc = n2 Wfc^T + b;    act = gelu(fc)
 *               x' = r1 + drop(act Wout^T + b)
 *   logits = norm(x) Whead^T                                      (N,V)
 *
 * (Radford et al. 2019.) Saved per block and token: 16 C elements with tiled attention, and
 * NH x T more with materialised scores.
 */
#include "harness/train/layers.h"

#include <stdio.h>
#include <string.h>

/* ---- parameters: two tables, twelve a block, the final norm, the head ---- */

enum {
    LN1_GAMMA,
    LN1_BETA,
    QKV_WEIGHT,
    QKV_BIAS,
    PROJ_WEIGHT,
    PROJ_BIAS,
    LN2_GAMMA,
    LN2_BETA,
    FC_WEIGHT,
    FC_BIAS,
    OUT_WEIGHT,
    OUT_BIAS,
    PER_BLOCK
};
enum { TABLE, POSITION, FIRST_BLOCK };

/* rows and columns in units of C; 0 rows: a vector */
static const struct {
    const char *name;
    int rows, columns;
    double mean;
} block_parameters[PER_BLOCK] = {
    [LN1_GAMMA] = {"ln1.gamma", 0, 1, 1},     [LN1_BETA] = {"ln1.beta", 0, 1, 0},
    [QKV_WEIGHT] = {"qkv.weight", 3, 1, 0},   [QKV_BIAS] = {"qkv.bias", 0, 3, 0},
    [PROJ_WEIGHT] = {"proj.weight", 1, 1, 0}, [PROJ_BIAS] = {"proj.bias", 0, 1, 0},
    [LN2_GAMMA] = {"ln2.gamma", 0, 1, 1},     [LN2_BETA] = {"ln2.beta", 0, 1, 0},
    [FC_WEIGHT] = {"fc.weight", 4, 1, 0},     [FC_BIAS] = {"fc.bias", 0, 4, 0},
    [OUT_WEIGHT] = {"out.weight", 1, 4, 0},   [OUT_BIAS] = {"out.bias", 0, 1, 0},
};

static int final_gamma(const struct oom_model_spec *spec) {
    return FIRST_BLOCK + PER_BLOCK * (int)spec->layers;
}

static int head_weight(const struct oom_model_spec *spec) {
    return spec->tied ? TABLE : final_gamma(spec) + 2;
}

static int gpt_count(const struct oom_model_spec *spec) {
    return final_gamma(spec) + 2 + (spec->tied ? 0 : 1);
}

static void describe_block(const struct oom_model_spec *spec, int i, struct oom_parameter *out) {
    int block = (i - FIRST_BLOCK) / PER_BLOCK, part = (i - FIRST_BLOCK) % PER_BLOCK;
    snprintf(out->name, sizeof out->name, "block%d.%s", block, block_parameters[part].name);
    out->rows = block_parameters[part].rows == 0 ? 1 : block_parameters[part].rows * spec->width;
    out->columns = block_parameters[part].columns * spec->width;
    out->mean = block_parameters[part].mean;
    out->deviation = out->rows == 1 ? OOM_SMALL_DEVIATION : 0.0;
}

static void gpt_describe(const struct oom_model_spec *spec, int i, struct oom_parameter *out) {
    int last = final_gamma(spec);
    if (i >= FIRST_BLOCK && i < last) {
        describe_block(spec, i, out);
        return;
    }
    bool vector = i == last || i == last + 1;
    out->columns = spec->width;
    out->rows = vector ? 1 : i == POSITION ? spec->context : spec->vocab;
    out->mean = i == last ? 1 : 0;
    out->deviation = OOM_SMALL_DEVIATION;
    const char *name = i == TABLE      ? "embedding.table"
                       : i == POSITION ? "embedding.position"
                       : i == last     ? "final.gamma"
                       : i == last + 1 ? "final.beta"
                                       : "head.weight";
    snprintf(out->name, sizeof out->name, "%s", name);
}

/* ---- what forward keeps ---- */

struct saved {
    struct oom_norm norm1; /* of the head's stage: the final norm */
    struct oom_tensor qkv;
    struct oom_tensor probs; /* materialised scores only */
    struct oom_tensor lse;   /* tiled only */
    struct oom_tensor attention;
    struct oom_tensor residual; /* r1 */
    struct oom_norm norm2;
    struct oom_tensor fc, activated;
};

/* Shapes, once. */
struct shape {
    int64_t b, t, c, nh, n; /* n = b t */
};

static struct shape shape_of(const struct oom_trainer *t) {
    const struct oom_model_spec *spec = &t->options.spec;
    return (struct shape){t->batch.samples, t->batch.each, spec->width, spec->heads, t->batch.rows};
}

static struct oom_parameter *block_of(struct oom_trainer *t, int layer) {
    return t->parameters + FIRST_BLOCK + layer * PER_BLOCK;
}

/* ---- embedding ---- */

static enum oom_status embedding_forward(struct oom_trainer *t, struct oom_tensor *x) {
    struct shape s = shape_of(t);
    OOM_TRY(oom_activation(t, s.n * s.c, "embedding", x));
    struct oom_embedding_forward_args embed = {.dtype = t->session->dtype,
                                               .rows = s.n,
                                               .channels = s.c,
                                               .vocab = t->options.spec.vocab,
                                               .tokens = t->batch.inputs.data,
                                               .table = t->parameters[TABLE].value.data,
                                               .out = x->data};
    OOM_TRY(oom_run(t->session, OOM_OP_EMBEDDING_FORWARD, &embed));
    struct oom_position_forward_args position = {.dtype = t->session->dtype,
                                                 .batch = s.b,
                                                 .positions = s.t,
                                                 .channels = s.c,
                                                 .table = t->parameters[POSITION].value.data,
                                                 .x = x->data};
    OOM_TRY(oom_run(t->session, OOM_OP_POSITION_FORWARD, &position));
    return oom_dropout(t, 0, s.t * s.c, x->data, x->data);
}

static enum oom_status embedding_backward(struct oom_trainer *t, struct oom_tensor *gradient) {
    struct shape s = shape_of(t);
    oom_devptr dx = gradient->data;
    struct oom_parameter *table = &t->parameters[TABLE], *where = &t->parameters[POSITION];
    OOM_TRY(oom_dropout(t, 0, s.t * s.c, dx, dx));
    OOM_TRY(oom_parameter_gradient(t, where));
    OOM_TRY(oom_parameter_gradient(t, table));
    struct oom_position_backward_args position = {.dtype = t->session->dtype,
                                                  .batch = s.b,
                                                  .positions = s.t,
                                                  .channels = s.c,
                                                  .dout = dx,
                                                  .dtable = where->gradient.data};
    OOM_TRY(oom_run(t->session, OOM_OP_POSITION_BACKWARD, &position));
    struct oom_embedding_backward_args embed = {.dtype = t->session->dtype,
                                                .rows = s.n,
                                                .channels = s.c,
                                                .vocab = t->options.spec.vocab,
                                                .tokens = t->batch.inputs.data,
                                                .dout = dx,
                                                .dtable = table->gradient.data};
    OOM_TRY(oom_run(t->session, OOM_OP_EMBEDDING_BACKWARD, &embed));
    return oom_drop(t, gradient);
}

/* ---- attention, in two kinds ---- */

static enum oom_status tiled_forward(struct oom_trainer *t, int layer, struct saved *k) {
    struct shape s = shape_of(t);
    OOM_TRY(oom_activation_of(t, s.b * s.nh * s.t, layer, "attention lse", &k->lse));
    OOM_TRY(oom_activation_of(t, s.n * s.c, layer, "attention", &k->attention));
    struct oom_attention_tiled_forward_args args = {.dtype = t->session->dtype,
                                                    .batch = s.b,
                                                    .positions = s.t,
                                                    .channels = s.c,
                                                    .heads = s.nh,
                                                    .qkv = k->qkv.data,
                                                    .out = k->attention.data,
                                                    .lse = k->lse.data};
    return oom_run(t->session, OOM_OP_ATTENTION_TILED_FORWARD, &args);
}

static enum oom_status scores_forward(struct oom_trainer *t, int layer, struct saved *k) {
    struct shape s = shape_of(t);
    enum oom_dtype dtype = t->session->dtype;
    int64_t n = s.b * s.nh * s.t * s.t;
    struct oom_tensor scores;
    OOM_TRY(oom_activation_of(t, n, layer, "attention scores", &scores));
    OOM_TRY(oom_activation_of(t, n, layer, "attention probs", &k->probs));
    struct oom_attention_scores_forward_args score = {dtype, s.b,         s.t,        s.c,
                                                      s.nh,  k->qkv.data, scores.data};
    OOM_TRY(oom_run(t->session, OOM_OP_ATTENTION_SCORES_FORWARD, &score));
    struct oom_attention_softmax_forward_args softmax = {dtype, s.b,         s.t,
                                                         s.nh,  scores.data, k->probs.data};
    OOM_TRY(oom_run(t->session, OOM_OP_ATTENTION_SOFTMAX_FORWARD, &softmax));
    OOM_TRY(oom_drop(t, &scores));
    OOM_TRY(oom_activation_of(t, s.n * s.c, layer, "attention", &k->attention));
    struct oom_attention_values_forward_args value = {
        dtype, s.b, s.t, s.c, s.nh, k->probs.data, k->qkv.data, k->attention.data};
    return oom_run(t->session, OOM_OP_ATTENTION_VALUES_FORWARD, &value);
}

static enum oom_status tiled_backward(struct oom_trainer *t, int layer, struct saved *k,
                                      struct oom_tensor *dout, struct oom_tensor *dqkv) {
    struct shape s = shape_of(t);
    OOM_TRY(oom_activation_of(t, 3 * s.n * s.c, layer, "dqkv", dqkv));
    struct oom_attention_tiled_backward_args args = {.dtype = t->session->dtype,
                                                     .batch = s.b,
                                                     .positions = s.t,
                                                     .channels = s.c,
                                                     .heads = s.nh,
                                                     .dout = dout->data,
                                                     .out = k->attention.data,
                                                     .qkv = k->qkv.data,
                                                     .lse = k->lse.data,
                                                     .dqkv = dqkv->data};
    struct oom_tensor workspace;
    uint64_t bytes = oom_op_workspace_bytes(OOM_OP_ATTENTION_TILED_BACKWARD, &args);
    OOM_TRY(oom_scope_alloc(&t->scope, bytes, OOM_TAG_WORKSPACE, "attention delta", &workspace));
    args.workspace = workspace.data;
    OOM_TRY(oom_run(t->session, OOM_OP_ATTENTION_TILED_BACKWARD, &args));
    OOM_TRY(oom_drop(t, &workspace));
    OOM_TRY(oom_drop(t, dout));
    OOM_TRY(oom_drop(t, &k->attention));
    OOM_TRY(oom_drop(t, &k->lse));
    return oom_drop(t, &k->qkv);
}

static enum oom_status scores_backward(struct oom_trainer *t, int layer, struct saved *k,
                                       struct oom_tensor *dout, struct oom_tensor *dqkv) {
    struct shape s = shape_of(t);
    enum oom_dtype dtype = t->session->dtype;
    int64_t n = s.b * s.nh * s.t * s.t;
    struct oom_tensor dprobs, dscores;
    OOM_TRY(oom_drop(t, &k->attention));
    OOM_TRY(oom_activation_of(t, 3 * s.n * s.c, layer, "dqkv", dqkv));
    OOM_TRY(oom_activation_of(t, n, layer, "dprobs", &dprobs));
    struct oom_attention_values_backward_args value = {
        dtype,      s.b,           s.t,         s.c,         s.nh,
        dout->data, k->probs.data, k->qkv.data, dprobs.data, dqkv->data};
    OOM_TRY(oom_run(t->session, OOM_OP_ATTENTION_VALUES_BACKWARD, &value));
    OOM_TRY(oom_drop(t, dout));
    OOM_TRY(oom_activation_of(t, n, layer, "dscores", &dscores));
    struct oom_attention_softmax_backward_args softmax = {
        dtype, s.b, s.t, s.nh, k->probs.data, dprobs.data, dscores.data};
    OOM_TRY(oom_run(t->session, OOM_OP_ATTENTION_SOFTMAX_BACKWARD, &softmax));
    OOM_TRY(oom_drop(t, &dprobs));
    OOM_TRY(oom_drop(t, &k->probs));
    struct oom_attention_scores_backward_args score = {
        dtype, s.b, s.t, s.c, s.nh, dscores.data, k->qkv.data, dqkv->data};
    OOM_TRY(oom_run(t->session, OOM_OP_ATTENTION_SCORES_BACKWARD, &score));
    OOM_TRY(oom_drop(t, &k->qkv));
    return oom_drop(t, &dscores);
}

static bool is_tiled(const struct oom_trainer *t) {
    return t->options.spec.attention == OOM_ATTENTION_TILED;
}

/* ---- a block ---- */

/* r1 = x + drop(att Wproj^T + b): the product is made where the sum will be. */
static enum oom_status add_branch(struct oom_trainer *t, const struct oom_parameter *w,
                                  const struct oom_parameter *b, uint32_t dropout_layer,
                                  oom_devptr in, oom_devptr residual, oom_devptr out) {
    struct shape s = shape_of(t);
    OOM_TRY(oom_linear_forward(t, w, b, s.n, in, out));
    OOM_TRY(oom_dropout(t, dropout_layer, s.t * s.c, out, out));
    return oom_add_to(t, s.n * s.c, out, residual);
}

static enum oom_status attention_half_forward(struct oom_trainer *t, int layer,
                                              struct oom_tensor *input, struct saved *k) {
    struct shape s = shape_of(t);
    struct oom_parameter *p = block_of(t, layer);
    OOM_TRY(oom_norm_forward(t, &p[LN1_GAMMA], &p[LN1_BETA], s.n, s.c, input->data, layer, "norm 1",
                             &k->norm1));
    OOM_TRY(oom_activation_of(t, 3 * s.n * s.c, layer, "qkv", &k->qkv));
    OOM_TRY(
        oom_linear_forward(t, &p[QKV_WEIGHT], &p[QKV_BIAS], s.n, k->norm1.out.data, k->qkv.data));
    OOM_TRY(oom_norm_drop_unless_kept(t, &k->norm1));
    OOM_TRY(is_tiled(t) ? tiled_forward(t, layer, k) : scores_forward(t, layer, k));
    OOM_TRY(oom_drop_unless_kept(t, &k->qkv));
    OOM_TRY(oom_drop_unless_kept(t, &k->probs));
    OOM_TRY(oom_drop_unless_kept(t, &k->lse));
    OOM_TRY(oom_activation_of(t, s.n * s.c, layer, "residual 1", &k->residual));
    OOM_TRY(add_branch(t, &p[PROJ_WEIGHT], &p[PROJ_BIAS], 1 + 2 * (uint32_t)layer,
                       k->attention.data, input->data, k->residual.data));
    OOM_TRY(oom_drop_unless_kept(t, &k->attention));
    return oom_drop_input(t, input);
}

static enum oom_status mlp_half_forward(struct oom_trainer *t, int layer, struct saved *k,
                                        struct oom_tensor *out) {
    struct shape s = shape_of(t);
    struct oom_parameter *p = block_of(t, layer);
    OOM_TRY(oom_norm_forward(t, &p[LN2_GAMMA], &p[LN2_BETA], s.n, s.c, k->residual.data, layer,
                             "norm 2", &k->norm2));
    OOM_TRY(oom_activation_of(t, 4 * s.n * s.c, layer, "fc", &k->fc));
    OOM_TRY(oom_linear_forward(t, &p[FC_WEIGHT], &p[FC_BIAS], s.n, k->norm2.out.data, k->fc.data));
    OOM_TRY(oom_norm_drop_unless_kept(t, &k->norm2));
    OOM_TRY(oom_activation_of(t, 4 * s.n * s.c, layer, "gelu", &k->activated));
    struct oom_gelu_forward_args gelu = {t->session->dtype, 4 * s.n * s.c, k->fc.data,
                                         k->activated.data};
    OOM_TRY(oom_run(t->session, OOM_OP_GELU_FORWARD, &gelu));
    OOM_TRY(oom_drop_unless_kept(t, &k->fc));
    OOM_TRY(oom_activation_of(t, s.n * s.c, layer, "residual 2", out));
    OOM_TRY(add_branch(t, &p[OUT_WEIGHT], &p[OUT_BIAS], 2 + 2 * (uint32_t)layer, k->activated.data,
                       k->residual.data, out->data));
    OOM_TRY(oom_drop_unless_kept(t, &k->activated));
    OOM_TRY(oom_drop_unless_kept(t, &k->residual));
    return oom_keep_saved(t, &k->residual);
}

/* The gradient before a dropout: `dres` itself where there is none, else a new tensor. */
static enum oom_status undropped(struct oom_trainer *t, int layer, uint32_t dropout_layer,
                                 oom_devptr dres, struct oom_tensor *made, oom_devptr *out) {
    struct shape s = shape_of(t);
    *made = (struct oom_tensor){0};
    *out = dres;
    if (t->options.spec.dropout == 0) return OOM_OK;
    OOM_TRY(oom_activation_of(t, s.n * s.c, layer, "ddropout", made));
    *out = made->data;
    return oom_dropout(t, dropout_layer, s.t * s.c, dres, made->data);
}

/* dres: gradient of the block's output; becomes the gradient of r1. */
static enum oom_status mlp_half_backward(struct oom_trainer *t, int layer, struct saved *k,
                                         struct oom_tensor *dres) {
    struct shape s = shape_of(t);
    struct oom_parameter *p = block_of(t, layer);
    struct oom_tensor made, dactivated, dfc, dnorm, dresidual;
    oom_devptr dy;
    OOM_TRY(undropped(t, layer, 2 + 2 * (uint32_t)layer, dres->data, &made, &dy));
    OOM_TRY(oom_activation_of(t, 4 * s.n * s.c, layer, "dgelu", &dactivated));
    OOM_TRY(oom_linear_backward_input(t, &p[OUT_WEIGHT], s.n, dy, dactivated.data));
    OOM_TRY(
        oom_linear_backward_weight(t, &p[OUT_WEIGHT], &p[OUT_BIAS], s.n, k->activated.data, dy));
    OOM_TRY(oom_drop(t, &made));
    OOM_TRY(oom_drop(t, &k->activated));
    OOM_TRY(oom_activation_of(t, 4 * s.n * s.c, layer, "dfc", &dfc));
    struct oom_gelu_backward_args gelu = {t->session->dtype, 4 * s.n * s.c, k->fc.data,
                                          dactivated.data, dfc.data};
    OOM_TRY(oom_run(t->session, OOM_OP_GELU_BACKWARD, &gelu));
    OOM_TRY(oom_drop(t, &dactivated));
    OOM_TRY(oom_drop(t, &k->fc));
    OOM_TRY(oom_activation_of(t, s.n * s.c, layer, "dnorm 2", &dnorm));
    OOM_TRY(oom_linear_backward_input(t, &p[FC_WEIGHT], s.n, dfc.data, dnorm.data));
    OOM_TRY(oom_linear_backward_weight(t, &p[FC_WEIGHT], &p[FC_BIAS], s.n, k->norm2.out.data,
                                       dfc.data));
    OOM_TRY(oom_drop(t, &dfc));
    OOM_TRY(oom_activation_of(t, s.n * s.c, layer, "dresidual 1", &dresidual));
    OOM_TRY(oom_norm_backward(t, &p[LN2_GAMMA], &p[LN2_BETA], s.n, s.c, dnorm.data,
                              k->residual.data, dres->data, dresidual.data, &k->norm2));
    OOM_TRY(oom_drop(t, &dnorm));
    OOM_TRY(oom_drop(t, dres));
    *dres = dresidual;
    return oom_drop_saved(t, &k->residual);
}

/* dres: gradient of r1; becomes the gradient of the block's input. */
static enum oom_status attention_half_backward(struct oom_trainer *t, int layer,
                                               struct oom_tensor *input, struct saved *k,
                                               struct oom_tensor *dres) {
    struct shape s = shape_of(t);
    struct oom_parameter *p = block_of(t, layer);
    struct oom_tensor made, dattention, dqkv, dnorm, dx;
    oom_devptr dy;
    OOM_TRY(undropped(t, layer, 1 + 2 * (uint32_t)layer, dres->data, &made, &dy));
    OOM_TRY(oom_activation_of(t, s.n * s.c, layer, "dattention", &dattention));
    OOM_TRY(oom_linear_backward_input(t, &p[PROJ_WEIGHT], s.n, dy, dattention.data));
    OOM_TRY(
        oom_linear_backward_weight(t, &p[PROJ_WEIGHT], &p[PROJ_BIAS], s.n, k->attention.data, dy));
    OOM_TRY(oom_drop(t, &made));
    OOM_TRY(is_tiled(t) ? tiled_backward(t, layer, k, &dattention, &dqkv)
                        : scores_backward(t, layer, k, &dattention, &dqkv));
    OOM_TRY(oom_activation_of(t, s.n * s.c, layer, "dnorm 1", &dnorm));
    OOM_TRY(oom_linear_backward_input(t, &p[QKV_WEIGHT], s.n, dqkv.data, dnorm.data));
    OOM_TRY(oom_linear_backward_weight(t, &p[QKV_WEIGHT], &p[QKV_BIAS], s.n, k->norm1.out.data,
                                       dqkv.data));
    OOM_TRY(oom_drop(t, &dqkv));
    OOM_TRY(oom_activation_of(t, s.n * s.c, layer, "dx", &dx));
    OOM_TRY(oom_norm_backward(t, &p[LN1_GAMMA], &p[LN1_BETA], s.n, s.c, dnorm.data, input->data,
                              dres->data, dx.data, &k->norm1));
    OOM_TRY(oom_drop(t, &dnorm));
    OOM_TRY(oom_drop(t, dres));
    *dres = dx;
    return oom_drop(t, input);
}

/* ---- head ---- */

static enum oom_status head_forward(struct oom_trainer *t, struct oom_tensor *input,
                                    struct saved *k) {
    struct shape s = shape_of(t);
    const struct oom_model_spec *spec = &t->options.spec;
    struct oom_parameter *p = t->parameters + final_gamma(spec);
    OOM_TRY(oom_norm_forward(t, &p[0], &p[1], s.n, s.c, input->data, (int)spec->layers,
                             "final norm", &k->norm1));
    OOM_TRY(oom_drop_input(t, input));
    OOM_TRY(oom_activation(t, s.n * spec->vocab, "logits", &t->logits));
    OOM_TRY(oom_linear_forward(t, &t->parameters[head_weight(spec)], NULL, s.n, k->norm1.out.data,
                               t->logits.data));
    return oom_norm_drop_unless_kept(t, &k->norm1);
}

static enum oom_status head_backward(struct oom_trainer *t, struct oom_tensor *input,
                                     struct saved *k, struct oom_tensor *dres) {
    struct shape s = shape_of(t);
    const struct oom_model_spec *spec = &t->options.spec;
    struct oom_parameter *p = t->parameters + final_gamma(spec);
    struct oom_parameter *head = &t->parameters[head_weight(spec)];
    struct oom_tensor dnorm;
    OOM_TRY(oom_activation(t, s.n * s.c, "dfinal norm", &dnorm));
    OOM_TRY(oom_linear_backward_input(t, head, s.n, t->dlogits.data, dnorm.data));
    OOM_TRY(oom_linear_backward_weight(t, head, NULL, s.n, k->norm1.out.data, t->dlogits.data));
    OOM_TRY(oom_drop(t, &t->dlogits));
    OOM_TRY(oom_activation(t, s.n * s.c, "dlast", dres));
    OOM_TRY(oom_norm_backward(t, &p[0], &p[1], s.n, s.c, dnorm.data, input->data, 0, dres->data,
                              &k->norm1));
    OOM_TRY(oom_drop(t, &dnorm));
    return oom_drop(t, input);
}

/* ---- the model ---- */

static int gpt_stages(const struct oom_model_spec *spec) {
    return (int)spec->layers + 2;
}

static enum oom_status gpt_forward(struct oom_trainer *t, const struct oom_stage *stage) {
    if (stage->index == 0) return embedding_forward(t, stage->out);
    if (stage->out == NULL) return head_forward(t, stage->in, stage->kept);
    int layer = stage->index - 1;
    OOM_TRY(attention_half_forward(t, layer, stage->in, stage->kept));
    return mlp_half_forward(t, layer, stage->kept, stage->out);
}

static enum oom_status gpt_backward(struct oom_trainer *t, const struct oom_stage *stage,
                                    struct oom_tensor *gradient) {
    if (stage->index == 0) return embedding_backward(t, gradient);
    if (stage->out == NULL) return head_backward(t, stage->in, stage->kept, gradient);
    int layer = stage->index - 1;
    OOM_TRY(mlp_half_backward(t, layer, stage->kept, gradient));
    return attention_half_backward(t, layer, stage->in, stage->kept, gradient);
}

const struct oom_model oom_model_gpt = {
    .count = gpt_count,
    .describe = gpt_describe,
    .stages = gpt_stages,
    .stage_bytes = sizeof(struct saved),
    .forward = gpt_forward,
    .backward = gpt_backward,
};
