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

struct saved {
    struct oom_tensor relu; /* y before dropout, where there is one: its sign is the branch */
};

static bool drops(const struct oom_trainer *t) {
    return t->options.spec.dropout > 0 && !t->evaluating;
}

/* What ReLU made: the boundary itself where nothing is dropped out. */
static struct oom_tensor *relu_of(const struct oom_trainer *t, const struct oom_stage *stage) {
    struct saved *k = stage->kept;
    return drops(t) ? &k->relu : stage->out;
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

static enum oom_status layer_forward(struct oom_trainer *t, const struct oom_stage *stage) {
    const struct oom_model_spec *spec = &t->options.spec;
    int layer = stage->index;
    struct oom_parameter *p = t->parameters + 2 * layer;
    struct oom_tensor *y = relu_of(t, stage), branch;
    int64_t n = t->batch.rows * spec->width, elements = t->batch.each * spec->width;
    OOM_TRY(oom_activation_of(t, n, layer, "relu", y));
    OOM_TRY(oom_linear_forward(t, &p[0], &p[1], t->batch.rows, stage->in->data, y->data));
    const struct oom_branches *branches = &t->branches;
    if (branches->see != NULL) {
        OOM_TRY(branches->see(branches->context, layer, t->first_sample, t->batch.samples, elements,
                              y->data));
    }
    OOM_TRY(taken_branches(t, layer, &branch));
    struct oom_relu_forward_args relu = {t->session->dtype, n, y->data, branch.data, y->data};
    OOM_TRY(oom_run(t->session, OOM_OP_RELU_FORWARD, &relu));
    OOM_TRY(oom_drop(t, &branch));
    if (!drops(t)) return OOM_OK;
    OOM_TRY(oom_activation_of(t, n, layer, "dropout", stage->out));
    OOM_TRY(oom_dropout(t, (uint32_t)layer, elements, y->data, stage->out->data));
    return oom_drop_unless_kept(t, y);
}

static enum oom_status layer_backward(struct oom_trainer *t, const struct oom_stage *stage,
                                      struct oom_tensor *dy) {
    const struct oom_model_spec *spec = &t->options.spec;
    int layer = stage->index;
    struct oom_parameter *p = t->parameters + 2 * layer;
    struct oom_tensor *y = relu_of(t, stage), branch, dx = {0};
    int64_t n = t->batch.rows * spec->width;
    OOM_TRY(oom_dropout(t, (uint32_t)layer, t->batch.each * spec->width, dy->data, dy->data));
    OOM_TRY(taken_branches(t, layer, &branch));
    struct oom_relu_backward_args relu = {t->session->dtype, n,        y->data,
                                          branch.data,       dy->data, dy->data};
    OOM_TRY(oom_run(t->session, OOM_OP_RELU_BACKWARD, &relu));
    OOM_TRY(oom_drop(t, &branch));
    if (drops(t)) OOM_TRY(oom_drop(t, stage->out));
    OOM_TRY(oom_drop_saved(t, y));
    if (layer > 0) {
        OOM_TRY(oom_activation_of(t, n, layer, "dx", &dx));
        OOM_TRY(oom_linear_backward_input(t, &p[0], t->batch.rows, dy->data, dx.data));
    }
    OOM_TRY(oom_linear_backward_weight(t, &p[0], &p[1], t->batch.rows, stage->in->data, dy->data));
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

static enum oom_status head_forward(struct oom_trainer *t, const struct oom_stage *stage) {
    const struct oom_model_spec *spec = &t->options.spec;
    struct oom_parameter *head = t->parameters + 2 * spec->layers;
    OOM_TRY(oom_activation(t, t->batch.rows * spec->vocab, "logits", &t->logits));
    OOM_TRY(
        oom_linear_forward(t, &head[0], &head[1], t->batch.rows, stage->in->data, t->logits.data));
    return oom_drop_input(t, stage->in);
}

static enum oom_status head_backward(struct oom_trainer *t, const struct oom_stage *stage,
                                     struct oom_tensor *dy) {
    const struct oom_model_spec *spec = &t->options.spec;
    struct oom_parameter *head = t->parameters + 2 * spec->layers;
    OOM_TRY(oom_activation(t, t->batch.rows * spec->width, "dhead", dy));
    OOM_TRY(oom_linear_backward_input(t, &head[0], t->batch.rows, t->dlogits.data, dy->data));
    OOM_TRY(oom_linear_backward_weight(t, &head[0], &head[1], t->batch.rows, stage->in->data,
                                       t->dlogits.data));
    return oom_drop(t, &t->dlogits);
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
    .stages = mlp_stages,
    .stage_bytes = sizeof(struct saved),
    .forward = mlp_forward,
    .backward = mlp_backward,
};
