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
#include "harness/train/gpt-attention.h"

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
    struct oom_attention_saved attention;
    struct oom_tensor residual; /* r1 */
    struct oom_norm norm2;
    struct oom_tensor fc, activated;
    struct oom_mask mask1, mask2; /* of the embedding's stage: the first */
};

/* Shapes and dtypes, once: x and what is added to it make the residual stream, the rest runs as
 * linear layers do. */
struct shape {
    int64_t c, n, each; /* n = B T; each: elements of a sample, T C */
    enum oom_dtype stream, inner;
};

static struct shape shape_of(const struct oom_trainer *t) {
    const struct oom_model_spec *spec = &t->options.spec;
    enum oom_dtype stream = oom_layer_dtype(t, OOM_LAYER_EMBEDDING, t->session->dtype);
    return (struct shape){.c = spec->width,
                          .n = t->batch.rows,
                          .each = t->batch.each * spec->width,
                          .stream = stream,
                          .inner = oom_layer_dtype(t, OOM_LAYER_LINEAR, stream)};
}

static struct oom_parameter *block_of(struct oom_trainer *t, int layer) {
    return t->parameters + FIRST_BLOCK + layer * PER_BLOCK;
}

/* ---- embedding ---- */

static enum oom_status embedding_forward(struct oom_trainer *t, struct saved *k,
                                         struct oom_tensor *x) {
    struct shape s = shape_of(t);
    OOM_TRY(oom_activation(t, s.stream, s.n * s.c, "embedding", x));
    struct oom_embedding_forward_args embed = {.dtype = s.stream,
                                               .rows = s.n,
                                               .channels = s.c,
                                               .vocab = t->options.spec.vocab,
                                               .tokens = t->batch.inputs.data,
                                               .table = t->parameters[TABLE].value.data,
                                               .out = x->data};
    OOM_TRY(oom_run(t->session, OOM_OP_EMBEDDING_FORWARD, &embed));
    struct oom_position_forward_args position = {.dtype = s.stream,
                                                 .batch = t->batch.samples,
                                                 .positions = t->batch.each,
                                                 .channels = s.c,
                                                 .table = t->parameters[POSITION].value.data,
                                                 .x = x->data};
    OOM_TRY(oom_run(t->session, OOM_OP_POSITION_FORWARD, &position));
    k->mask1 = oom_mask_draw(t, 0);
    return oom_dropout(t, k->mask1, s.each, x, x);
}

static enum oom_status embedding_backward(struct oom_trainer *t, const struct saved *k,
                                          struct oom_tensor *dx) {
    struct shape s = shape_of(t);
    struct oom_parameter *table = &t->parameters[TABLE], *where = &t->parameters[POSITION];
    OOM_TRY(oom_dropout(t, k->mask1, s.each, dx, dx));
    OOM_TRY(oom_parameter_gradient(t, where));
    OOM_TRY(oom_parameter_gradient(t, table));
    struct oom_position_backward_args position = {.dtype = dx->dtype,
                                                  .batch = t->batch.samples,
                                                  .positions = t->batch.each,
                                                  .channels = s.c,
                                                  .dout = dx->data,
                                                  .dtable = where->gradient.data};
    OOM_TRY(oom_run(t->session, OOM_OP_POSITION_BACKWARD, &position));
    struct oom_embedding_backward_args embed = {.dtype = dx->dtype,
                                                .rows = s.n,
                                                .channels = s.c,
                                                .vocab = t->options.spec.vocab,
                                                .tokens = t->batch.inputs.data,
                                                .dout = dx->data,
                                                .dtable = table->gradient.data};
    OOM_TRY(oom_run(t->session, OOM_OP_EMBEDDING_BACKWARD, &embed));
    return oom_drop(t, dx);
}

/* ---- a branch beside the residual stream ---- */

/* out = residual + drop(in W^T + b). In one dtype the product is made where the sum will be. */
static enum oom_status branch_forward(struct oom_trainer *t, struct oom_parameter *w,
                                      const struct oom_parameter *b, struct oom_mask mask,
                                      const struct oom_tensor *in,
                                      const struct oom_tensor *residual, struct oom_tensor *out) {
    struct shape s = shape_of(t);
    struct oom_tensor made = {0}, *product = out;
    if (in->dtype != out->dtype) {
        product = &made;
        OOM_TRY(oom_activation(t, in->dtype, s.n * s.c, "branch", &made));
    }
    OOM_TRY(oom_linear_forward(t, w, b, s.n, in, product));
    OOM_TRY(oom_dropout(t, mask, s.each, product, product));
    if (product == out) return oom_sum(t, s.n * s.c, out, residual, out);
    OOM_TRY(oom_sum(t, s.n * s.c, residual, &made, out));
    return oom_drop(t, &made);
}

/* The gradient of the branch's product: the stream's, cast and dropped; that itself where nothing
 * is to be done. `made` is none or what was made for it. */
static enum oom_status branch_gradient(struct oom_trainer *t, int layer, struct oom_mask mask,
                                       const struct oom_tensor *dres, struct oom_tensor *made,
                                       const struct oom_tensor **dy) {
    struct shape s = shape_of(t);
    *made = (struct oom_tensor){0};
    *dy = dres;
    if (s.inner == dres->dtype && !oom_drops(t)) return OOM_OK;
    *dy = made;
    if (s.inner != dres->dtype) {
        OOM_TRY(oom_cast(t, s.inner, s.n * s.c, dres, "branch's gradient", made));
        return oom_dropout(t, mask, s.each, made, made);
    }
    OOM_TRY(oom_activation_of(t, s.inner, s.n * s.c, layer, "ddropout", made));
    return oom_dropout(t, mask, s.each, dres, made);
}

/* ---- a block ---- */

static enum oom_status attention_half_forward(struct oom_trainer *t, int layer,
                                              struct oom_tensor *input, struct saved *k) {
    struct shape s = shape_of(t);
    struct oom_parameter *p = block_of(t, layer);
    struct oom_attention_saved *a = &k->attention;
    OOM_TRY(oom_norm_forward(t, &p[LN1_GAMMA], &p[LN1_BETA], s.n, s.c, input, layer, "norm 1",
                             &k->norm1));
    OOM_TRY(oom_cast_in_place(t, s.inner, s.n * s.c, "norm 1 cast", &k->norm1.out));
    OOM_TRY(oom_activation_of(t, s.inner, 3 * s.n * s.c, layer, "qkv", &a->qkv));
    OOM_TRY(oom_linear_forward(t, &p[QKV_WEIGHT], &p[QKV_BIAS], s.n, &k->norm1.out, &a->qkv));
    OOM_TRY(oom_norm_drop_unless_kept(t, &k->norm1));
    OOM_TRY(oom_attention_forward(t, layer, a));
    OOM_TRY(oom_activation_of(t, s.stream, s.n * s.c, layer, "residual 1", &k->residual));
    k->mask1 = oom_mask_draw(t, 1 + 2 * (uint32_t)layer);
    OOM_TRY(
        branch_forward(t, &p[PROJ_WEIGHT], &p[PROJ_BIAS], k->mask1, &a->out, input, &k->residual));
    OOM_TRY(oom_drop_unless_kept(t, &a->out));
    return oom_drop_input(t, input);
}

static enum oom_status mlp_half_forward(struct oom_trainer *t, int layer, struct saved *k,
                                        struct oom_tensor *out) {
    struct shape s = shape_of(t);
    struct oom_parameter *p = block_of(t, layer);
    OOM_TRY(oom_norm_forward(t, &p[LN2_GAMMA], &p[LN2_BETA], s.n, s.c, &k->residual, layer,
                             "norm 2", &k->norm2));
    OOM_TRY(oom_cast_in_place(t, s.inner, s.n * s.c, "norm 2 cast", &k->norm2.out));
    OOM_TRY(oom_activation_of(t, s.inner, 4 * s.n * s.c, layer, "fc", &k->fc));
    OOM_TRY(oom_linear_forward(t, &p[FC_WEIGHT], &p[FC_BIAS], s.n, &k->norm2.out, &k->fc));
    OOM_TRY(oom_norm_drop_unless_kept(t, &k->norm2));
    OOM_TRY(oom_activation_of(t, s.inner, 4 * s.n * s.c, layer, "gelu", &k->activated));
    struct oom_gelu_forward_args gelu = {s.inner, 4 * s.n * s.c, k->fc.data, k->activated.data};
    OOM_TRY(oom_run(t->session, OOM_OP_GELU_FORWARD, &gelu));
    OOM_TRY(oom_drop_unless_kept(t, &k->fc));
    OOM_TRY(oom_activation_of(t, s.stream, s.n * s.c, layer, "residual 2", out));
    k->mask2 = oom_mask_draw(t, 2 + 2 * (uint32_t)layer);
    OOM_TRY(branch_forward(t, &p[OUT_WEIGHT], &p[OUT_BIAS], k->mask2, &k->activated, &k->residual,
                           out));
    OOM_TRY(oom_drop_unless_kept(t, &k->activated));
    OOM_TRY(oom_drop_unless_kept(t, &k->residual));
    return oom_keep_saved(t, &k->residual);
}

/* dres: gradient of the block's output; becomes the gradient of r1. */
static enum oom_status mlp_half_backward(struct oom_trainer *t, int layer, struct saved *k,
                                         struct oom_tensor *dres) {
    struct shape s = shape_of(t);
    struct oom_parameter *p = block_of(t, layer);
    struct oom_tensor made, dactivated, dfc, dnorm, dresidual;
    const struct oom_tensor *dy;
    OOM_TRY(branch_gradient(t, layer, k->mask2, dres, &made, &dy));
    OOM_TRY(oom_activation_of(t, s.inner, 4 * s.n * s.c, layer, "dgelu", &dactivated));
    OOM_TRY(oom_linear_backward_input(t, &p[OUT_WEIGHT], s.n, dy, &dactivated));
    OOM_TRY(oom_linear_backward_weight(t, &p[OUT_WEIGHT], &p[OUT_BIAS], s.n, &k->activated, dy));
    OOM_TRY(oom_drop(t, &made));
    OOM_TRY(oom_drop(t, &k->activated));
    OOM_TRY(oom_activation_of(t, s.inner, 4 * s.n * s.c, layer, "dfc", &dfc));
    struct oom_gelu_backward_args gelu = {s.inner, 4 * s.n * s.c, k->fc.data, dactivated.data,
                                          dfc.data};
    OOM_TRY(oom_run(t->session, OOM_OP_GELU_BACKWARD, &gelu));
    OOM_TRY(oom_drop(t, &dactivated));
    OOM_TRY(oom_drop(t, &k->fc));
    OOM_TRY(oom_activation_of(t, s.inner, s.n * s.c, layer, "dnorm 2", &dnorm));
    OOM_TRY(oom_linear_backward_input(t, &p[FC_WEIGHT], s.n, &dfc, &dnorm));
    OOM_TRY(oom_linear_backward_weight(t, &p[FC_WEIGHT], &p[FC_BIAS], s.n, &k->norm2.out, &dfc));
    OOM_TRY(oom_drop(t, &dfc));
    OOM_TRY(oom_activation_of(t, s.stream, s.n * s.c, layer, "dresidual 1", &dresidual));
    OOM_TRY(oom_norm_backward(t, &p[LN2_GAMMA], &p[LN2_BETA], s.n, s.c, &dnorm, &k->residual, dres,
                              &dresidual, &k->norm2));
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
    const struct oom_tensor *dy;
    OOM_TRY(branch_gradient(t, layer, k->mask1, dres, &made, &dy));
    OOM_TRY(oom_activation_of(t, s.inner, s.n * s.c, layer, "dattention", &dattention));
    OOM_TRY(oom_linear_backward_input(t, &p[PROJ_WEIGHT], s.n, dy, &dattention));
    OOM_TRY(
        oom_linear_backward_weight(t, &p[PROJ_WEIGHT], &p[PROJ_BIAS], s.n, &k->attention.out, dy));
    OOM_TRY(oom_drop(t, &made));
    OOM_TRY(oom_attention_backward(t, layer, &k->attention, &dattention, &dqkv));
    OOM_TRY(oom_activation_of(t, s.inner, s.n * s.c, layer, "dnorm 1", &dnorm));
    OOM_TRY(oom_linear_backward_input(t, &p[QKV_WEIGHT], s.n, &dqkv, &dnorm));
    OOM_TRY(oom_linear_backward_weight(t, &p[QKV_WEIGHT], &p[QKV_BIAS], s.n, &k->norm1.out, &dqkv));
    OOM_TRY(oom_drop(t, &dqkv));
    OOM_TRY(oom_activation_of(t, s.stream, s.n * s.c, layer, "dx", &dx));
    OOM_TRY(oom_norm_backward(t, &p[LN1_GAMMA], &p[LN1_BETA], s.n, s.c, &dnorm, input, dres, &dx,
                              &k->norm1));
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
    OOM_TRY(oom_norm_forward(t, &p[0], &p[1], s.n, s.c, input, (int)spec->layers, "final norm",
                             &k->norm1));
    OOM_TRY(oom_drop_input(t, input));
    OOM_TRY(oom_cast_in_place(t, s.inner, s.n * s.c, "final norm cast", &k->norm1.out));
    OOM_TRY(oom_activation(t, s.inner, s.n * spec->vocab, "logits", &t->logits));
    OOM_TRY(oom_linear_forward(t, &t->parameters[head_weight(spec)], NULL, s.n, &k->norm1.out,
                               &t->logits));
    return oom_norm_drop_unless_kept(t, &k->norm1);
}

static enum oom_status head_backward(struct oom_trainer *t, struct oom_tensor *input,
                                     struct saved *k, struct oom_tensor *dres) {
    struct shape s = shape_of(t);
    const struct oom_model_spec *spec = &t->options.spec;
    struct oom_parameter *p = t->parameters + final_gamma(spec);
    struct oom_parameter *head = &t->parameters[head_weight(spec)];
    struct oom_tensor dnorm;
    OOM_TRY(oom_activation(t, s.inner, s.n * s.c, "dfinal norm", &dnorm));
    OOM_TRY(oom_linear_backward_input(t, head, s.n, &t->dlogits, &dnorm));
    OOM_TRY(oom_linear_backward_weight(t, head, NULL, s.n, &k->norm1.out, &t->dlogits));
    OOM_TRY(oom_drop(t, &t->dlogits));
    OOM_TRY(oom_activation(t, s.stream, s.n * s.c, "dlast", dres));
    OOM_TRY(oom_norm_backward(t, &p[0], &p[1], s.n, s.c, &dnorm, input, NULL, dres, &k->norm1));
    OOM_TRY(oom_drop(t, &dnorm));
    return oom_drop(t, input);
}

/* ---- the model ---- */

static int gpt_stages(const struct oom_model_spec *spec) {
    return (int)spec->layers + 2;
}

static enum oom_status gpt_forward(struct oom_trainer *t, const struct oom_stage *stage) {
    if (stage->index == 0) return embedding_forward(t, stage->kept, stage->out);
    if (stage->out == NULL) return head_forward(t, stage->in, stage->kept);
    int layer = stage->index - 1;
    OOM_TRY(attention_half_forward(t, layer, stage->in, stage->kept));
    return mlp_half_forward(t, layer, stage->kept, stage->out);
}

static enum oom_status gpt_backward(struct oom_trainer *t, const struct oom_stage *stage,
                                    struct oom_tensor *gradient) {
    if (stage->index == 0) return embedding_backward(t, stage->kept, gradient);
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
