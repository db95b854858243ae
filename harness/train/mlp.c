/*
 * mlp.c: hidden layers of width x width with ReLU (and dropout), then a linear head. A sample is a
 * bag of R rows with one label each.
 *
 *   y0 = x;  y(l+1) = drop(relu(y(l) W(l)^T + b(l)));  logits = yL Whead^T + b   (N,V), N = B R
 *
 * ReLU works in place on the product, dropout makes a tensor of its own. Saved per layer and row:
 * C elements, 2 C with dropout.
 */
#include "harness/train/layers.h"
#include "harness/train/loop.h"
#include "kernels/hostmem.h"

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

struct saved_layer {
    struct oom_tensor relu;    /* y before dropout: its sign is the branch */
    struct oom_tensor dropped; /* none without dropout */
};

static size_t mlp_saved_bytes(const struct oom_model_spec *spec) {
    return (size_t)spec->layers * sizeof(struct saved_layer);
}

/* What the next layer reads. */
static oom_devptr output_of(const struct saved_layer *layer) {
    return layer->dropped.data != 0 ? layer->dropped.data : layer->relu.data;
}

static oom_devptr input_of(const struct oom_trainer *t, int layer) {
    const struct saved_layer *saved = t->saved;
    return layer == 0 ? t->batch.inputs.data : output_of(&saved[layer - 1]);
}

/* The branches of this layer as a tensor of bytes, where they come from outside. */
static enum oom_status taken_branches(struct oom_trainer *t, int layer, struct oom_tensor *out) {
    *out = (struct oom_tensor){0};
    const struct oom_branches *branches = &t->branches;
    if (branches->take == NULL) return OOM_OK;
    int64_t elements = t->batch.each * t->options.spec.width;
    uint64_t bytes = (uint64_t)(t->batch.samples * elements);
    OOM_TRY(oom_scope_alloc(&t->scope, bytes, OOM_TAG_DATA, "branches", out));
    uint8_t *host = oom_host_alloc(bytes);
    if (host == NULL) return oom_fail(OOM_HOST_NOMEM, "the branches of one layer");
    enum oom_status status =
        branches->take(branches->context, layer, t->first_sample, t->batch.samples, elements, host);
    if (status == OOM_OK) {
        status = t->session->device->api->upload(t->session->device, out->data, host, bytes,
                                                 t->session->stream);
    }
    oom_host_free(host);
    return status;
}

static enum oom_status layer_forward(struct oom_trainer *t, int layer, struct saved_layer *k) {
    const struct oom_model_spec *spec = &t->options.spec;
    struct oom_parameter *p = t->parameters + 2 * layer;
    int64_t n = t->batch.rows * spec->width, elements = t->batch.each * spec->width;
    OOM_TRY(oom_activation_of(t, n, layer, "relu", &k->relu));
    OOM_TRY(oom_linear_forward(t, &p[0], &p[1], t->batch.rows, input_of(t, layer), k->relu.data));
    const struct oom_branches *branches = &t->branches;
    if (branches->see != NULL) {
        OOM_TRY(branches->see(branches->context, layer, t->first_sample, t->batch.samples, elements,
                              k->relu.data));
    }
    struct oom_tensor branch;
    OOM_TRY(taken_branches(t, layer, &branch));
    struct oom_relu_forward_args relu = {t->session->dtype, n, k->relu.data, branch.data,
                                         k->relu.data};
    OOM_TRY(oom_run(t->session, OOM_OP_RELU_FORWARD, &relu));
    OOM_TRY(oom_drop(t, &branch));
    if (spec->dropout == 0 || t->evaluating) return OOM_OK;
    OOM_TRY(oom_activation_of(t, n, layer, "dropout", &k->dropped));
    return oom_dropout(t, (uint32_t)layer, elements, k->relu.data, k->dropped.data);
}

/* dy: gradient of the layer's output; becomes that of its input (none below the first layer). */
static enum oom_status layer_backward(struct oom_trainer *t, int layer, struct saved_layer *k,
                                      struct oom_tensor *dy) {
    const struct oom_model_spec *spec = &t->options.spec;
    struct oom_parameter *p = t->parameters + 2 * layer;
    int64_t n = t->batch.rows * spec->width;
    OOM_TRY(oom_dropout(t, (uint32_t)layer, t->batch.each * spec->width, dy->data, dy->data));
    struct oom_tensor branch;
    OOM_TRY(taken_branches(t, layer, &branch));
    struct oom_relu_backward_args relu = {t->session->dtype, n,        k->relu.data,
                                          branch.data,       dy->data, dy->data};
    OOM_TRY(oom_run(t->session, OOM_OP_RELU_BACKWARD, &relu));
    OOM_TRY(oom_drop(t, &branch));
    OOM_TRY(oom_drop(t, &k->dropped));
    OOM_TRY(oom_drop_saved(t, &k->relu));
    struct oom_tensor dx = {0};
    if (layer > 0) {
        OOM_TRY(oom_activation_of(t, n, layer, "dx", &dx));
        OOM_TRY(oom_linear_backward_input(t, &p[0], t->batch.rows, dy->data, dx.data));
    }
    OOM_TRY(
        oom_linear_backward_weight(t, &p[0], &p[1], t->batch.rows, input_of(t, layer), dy->data));
    OOM_TRY(oom_drop(t, dy));
    *dy = dx;
    return OOM_OK;
}

static enum oom_status mlp_forward(struct oom_trainer *t) {
    const struct oom_model_spec *spec = &t->options.spec;
    struct saved_layer *saved = t->saved;
    int layers = (int)spec->layers;
    for (int i = 0; i < layers; i++) {
        struct oom_tensor *read = i == 0 ? &t->batch.inputs : &saved[i - 1].relu;
        OOM_TRY(layer_forward(t, i, &saved[i]));
        if (i > 0) OOM_TRY(oom_keep_saved(t, read));
        OOM_TRY(oom_drop_unless_training(t, read));
        OOM_TRY(oom_loop_after_layer(t));
    }
    struct oom_parameter *head = t->parameters + 2 * layers;
    OOM_TRY(oom_activation(t, t->batch.rows * spec->vocab, "logits", &t->logits));
    OOM_TRY(oom_linear_forward(t, &head[0], &head[1], t->batch.rows, input_of(t, layers),
                               t->logits.data));
    return oom_drop_unless_training(t, &saved[layers - 1].relu);
}

static enum oom_status mlp_backward(struct oom_trainer *t) {
    const struct oom_model_spec *spec = &t->options.spec;
    struct saved_layer *saved = t->saved;
    int layers = (int)spec->layers;
    struct oom_parameter *head = t->parameters + 2 * layers;
    struct oom_tensor dy;
    OOM_TRY(oom_activation(t, t->batch.rows * spec->width, "dhead", &dy));
    OOM_TRY(oom_linear_backward_input(t, &head[0], t->batch.rows, t->dlogits.data, dy.data));
    OOM_TRY(oom_linear_backward_weight(t, &head[0], &head[1], t->batch.rows, input_of(t, layers),
                                       t->dlogits.data));
    OOM_TRY(oom_drop(t, &t->dlogits));
    for (int i = layers - 1; i >= 0; i--) OOM_TRY(layer_backward(t, i, &saved[i], &dy));
    return OOM_OK;
}

const struct oom_model oom_model_mlp = {
    .count = mlp_count,
    .describe = mlp_describe,
    .saved_bytes = mlp_saved_bytes,
    .forward = mlp_forward,
    .backward = mlp_backward,
};
