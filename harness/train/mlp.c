/*
 * mlp.c: hidden layers of width x width with ReLU (and dropout), then a linear head. A sample is a
 * bag of R rows with one label each.
 *
 *   y0 = x;  y(l+1) = drop(relu(y(l) W(l)^T + b(l)));  logits = yL Whead^T + b   (N,V), N = B R
 *
 * ReLU works in place on the product, dropout makes a tensor of its own. Saved per layer and row:
 * C elements, 2 C with dropout.
 */
#include "harness/train/kinks.h"
#include "harness/train/layers.h"
#include "harness/train/loop.h"

#include <stdio.h>

static int mlp_count(const struct oom_model_spec *spec) {
    return 2 * ((int)spec->layers + 1);
}

static void mlp_describe(const struct oom_model_spec *spec, int i, struct oom_parameter *out) {
    int layer = i / 2;
    bool bias = i % 2 == 1, head = layer == (int)spec->layers;
    int64_t outputs = head ? spec->vocab : spec->width;
    const char *kind = bias ? "bias" : "weight";
    if (head) {
        snprintf(out->name, sizeof out->name, "head.%s", kind);
    } else {
        snprintf(out->name, sizeof out->name, "layer%d.%s", layer, kind);
    }
    out->rows = bias ? 1 : outputs;
    out->columns = bias ? outputs : spec->width;
    out->deviation = bias || head ? OOM_SMALL_DEVIATION : 0.0;
}

struct saved {
    struct oom_tensor cast; /* of the input, where the layer runs in another dtype */
    struct oom_tensor relu; /* y before dropout, where there is one: its sign is the branch */
    struct oom_mask mask;
};

/* What ReLU made: the boundary itself where nothing is dropped out. */
static struct oom_tensor *relu_of(const struct oom_trainer *t, const struct oom_stage *stage) {
    struct saved *k = stage->kept;
    return oom_drops(t) ? &k->relu : stage->out;
}

/* The input as the linear layer reads it. */
static const struct oom_tensor *input_of(const struct oom_stage *stage) {
    struct saved *k = stage->kept;
    return k->cast.data != 0 ? &k->cast : stage->in;
}

static enum oom_status cast_input(struct oom_trainer *t, const struct oom_stage *stage) {
    struct saved *k = stage->kept;
    enum oom_dtype dtype = oom_layer_dtype(t, OOM_LAYER_LINEAR, stage->in->dtype);
    if (dtype == stage->in->dtype) return OOM_OK;
    int64_t n = t->batch.rows * t->options.spec.width;
    return oom_cast(t, dtype, n, stage->in, "inputs cast", &k->cast);
}

static enum oom_status layer_forward(struct oom_trainer *t, const struct oom_stage *stage) {
    struct saved *k = stage->kept;
    int layer = stage->index;
    struct oom_parameter *p = t->parameters + 2 * layer;
    struct oom_tensor *y = relu_of(t, stage);
    int64_t elements = t->batch.each * t->options.spec.width, n = t->batch.samples * elements;
    OOM_TRY(cast_input(t, stage));
    const struct oom_tensor *x = input_of(stage);
    OOM_TRY(oom_activation_of(t, x->dtype, n, layer, "relu", y));
    OOM_TRY(oom_linear_forward(t, &p[0], &p[1], t->batch.rows, x, y));
    OOM_TRY(oom_drop_unless_kept(t, &k->cast));
    OOM_TRY(oom_relu_forward(t, layer, elements, y));
    k->mask = oom_mask_draw(t, (uint32_t)layer);
    if (!oom_drops(t)) return OOM_OK;
    OOM_TRY(oom_activation_of(t, y->dtype, n, layer, "dropout", stage->out));
    OOM_TRY(oom_dropout(t, k->mask, elements, y, stage->out));
    return oom_drop_unless_kept(t, y);
}

static enum oom_status layer_backward(struct oom_trainer *t, const struct oom_stage *stage,
                                      struct oom_tensor *dy) {
    struct saved *k = stage->kept;
    int layer = stage->index;
    struct oom_parameter *p = t->parameters + 2 * layer;
    struct oom_tensor *y = relu_of(t, stage), dx = {0};
    int64_t elements = t->batch.each * t->options.spec.width, n = t->batch.samples * elements;
    OOM_TRY(oom_dropout(t, k->mask, elements, dy, dy));
    OOM_TRY(oom_relu_backward(t, layer, elements, y, dy));
    if (oom_drops(t)) OOM_TRY(oom_drop(t, stage->out));
    OOM_TRY(oom_drop_saved(t, y));
    if (layer > 0) {
        OOM_TRY(oom_activation_of(t, dy->dtype, n, layer, "dx", &dx));
        OOM_TRY(oom_linear_backward_input(t, &p[0], t->batch.rows, dy, &dx));
    }
    OOM_TRY(oom_linear_backward_weight(t, &p[0], &p[1], t->batch.rows, input_of(stage), dy));
    OOM_TRY(oom_drop(t, &k->cast));
    OOM_TRY(oom_drop(t, dy));
    *dy = dx;
    return OOM_OK;
}

static enum oom_status hidden_forward(struct oom_trainer *t, const struct oom_stage *stage) {
    OOM_TRY(layer_forward(t, stage));
    if (stage->index > 0) OOM_TRY(oom_keep_saved(t, stage->in));
    OOM_TRY(oom_drop_input(t, stage->in));
    return oom_loop_after_layer(t);
}

/* ---- head ---- */

static enum oom_status head_forward(struct oom_trainer *t, const struct oom_stage *stage) {
    const struct oom_model_spec *spec = &t->options.spec;
    struct oom_parameter *head = t->parameters + 2 * spec->layers;
    OOM_TRY(oom_activation(t, stage->in->dtype, t->batch.rows * spec->vocab, "logits", &t->logits));
    OOM_TRY(oom_linear_forward(t, &head[0], &head[1], t->batch.rows, stage->in, &t->logits));
    return oom_drop_input(t, stage->in);
}

static enum oom_status head_backward(struct oom_trainer *t, const struct oom_stage *stage,
                                     struct oom_tensor *dy) {
    const struct oom_model_spec *spec = &t->options.spec;
    struct oom_parameter *head = t->parameters + 2 * spec->layers;
    int64_t n = t->batch.rows;
    OOM_TRY(oom_activation(t, t->dlogits.dtype, n * spec->width, "dhead", dy));
    OOM_TRY(oom_linear_backward_input(t, &head[0], n, &t->dlogits, dy));
    OOM_TRY(oom_linear_backward_weight(t, &head[0], &head[1], n, stage->in, &t->dlogits));
    return oom_drop(t, &t->dlogits);
}

/* ---- the model ---- */

static int mlp_kinks(const struct oom_model_spec *spec) {
    return (int)spec->layers;
}

static int64_t mlp_kink_elements(const struct oom_model_spec *spec, int kink) {
    (void)kink;
    return spec->rows * spec->width;
}

static int mlp_stages(const struct oom_model_spec *spec) {
    return (int)spec->layers + 1;
}

static enum oom_status mlp_forward(struct oom_trainer *t, const struct oom_stage *stage) {
    return stage->out == NULL ? head_forward(t, stage) : hidden_forward(t, stage);
}

static enum oom_status mlp_backward(struct oom_trainer *t, const struct oom_stage *stage,
                                    struct oom_tensor *gradient) {
    return stage->out == NULL ? head_backward(t, stage, gradient)
                              : layer_backward(t, stage, gradient);
}

const struct oom_model oom_model_mlp = {
    .count = mlp_count,
    .describe = mlp_describe,
    .kinks = mlp_kinks,
    .kink_elements = mlp_kink_elements,
    .stages = mlp_stages,
    .stage_bytes = sizeof(struct saved),
    .reads_output = true,
    .forward = mlp_forward,
    .backward = mlp_backward,
};
