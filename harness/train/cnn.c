/*
 * cnn.c: a residual convolutional net over images (He et al. 2016), channels last.
 *
 *   stem        y = relu(norm(conv(x)))                                (B,H,H,3) -> (B,H,H,C)
 *   block       y = relu(x + norm(conv(relu(norm(conv(x))))))
 *   transition  y = maxpool(relu(norm(conv(x))))     (B,H,H,C) -> (B,H/2,H/2,2C), between stages
 *   head        logits = drop(mean over positions of x) W^T + b                           (B,V)
 *
 * Convolutions are 3 by 3, keep the size and have no bias: a norm follows. The norm is batch norm
 * (Ioffe, Szegedy 2015), whose statistics join the samples of a micro-batch, or group norm (Wu, He
 * 2018), whose do not. Saved per block and position: 3 C elements, and what the block gives.
 */
#include "harness/train/cnn-unit.h"
#include "harness/train/kinks.h"

#include <stdio.h>

/* ---- where a stage lies ---- */

enum kind { STEM, BLOCK, TRANSITION, HEAD };

enum { PER_UNIT = 3 }; /* a convolution's weight, its norm's gamma and beta */

struct place {
    enum kind kind;
    int number;        /* of its kind */
    int64_t image, in; /* height, channels of the input */
    int unit;          /* the first of its units */
    int kink;          /* the first of its kinks */
};

/* The stages in order: the stem, then each resolution's blocks with a transition after them, but
 * for the last, which the head follows. */
static struct place place_of(const struct oom_model_spec *spec, int index) {
    int per = (int)(spec->layers / spec->stages), i = index - 1;
    if (index == 0) return (struct place){STEM, 0, spec->image, OOM_IMAGE_CHANNELS, 0, 0};
    int level = i / (per + 1), within = i % (per + 1);
    bool last = i == (int)(spec->layers + spec->stages - 1);
    struct place place = {.kind = last           ? HEAD
                                  : within < per ? BLOCK
                                                 : TRANSITION,
                          .image = spec->image >> level,
                          .in = spec->width << level,
                          .unit = 1 + level * (2 * per + 1) + 2 * within,
                          .kink = 1 + level * (2 * per + 2) + 2 * within};
    place.number = place.kind == BLOCK ? level * per + within : level;
    return place;
}

static int cnn_stages(const struct oom_model_spec *spec) {
    return (int)(spec->layers + spec->stages) + 1;
}

static int unit_count(const struct oom_model_spec *spec) {
    return (int)(2 * spec->layers +
                 spec->stages); /* the stem's and the transitions' are one each */
}

static int64_t channels_after(const struct place *place, const struct oom_model_spec *spec) {
    return place->kind == STEM ? spec->width : place->kind == BLOCK ? place->in : 2 * place->in;
}

/* ---- parameters ---- */

static int cnn_count(const struct oom_model_spec *spec) {
    return PER_UNIT * unit_count(spec) + 2;
}

/* The unit's place and its name: "block3.conv1", with "norm1" beside it. */
static struct place unit_place(const struct oom_model_spec *spec, int unit, int *second) {
    int index = 0;
    struct place place = place_of(spec, 0);
    while (unit >= place.unit + (place.kind == BLOCK ? 2 : 1)) place = place_of(spec, ++index);
    *second = unit - place.unit;
    return place;
}

static void name_of(const struct oom_model_spec *spec, int unit, const char *part, const char *what,
                    char out[32]) {
    int second;
    struct place place = unit_place(spec, unit, &second);
    if (place.kind == STEM) {
        snprintf(out, 32, "stem.%s.%s", part, what);
    } else if (place.kind == TRANSITION) {
        snprintf(out, 32, "transition%d.%s.%s", place.number, part, what);
    } else {
        snprintf(out, 32, "block%d.%s%d.%s", place.number, part, second + 1, what);
    }
}

static void describe_head(const struct oom_model_spec *spec, bool bias, struct oom_parameter *out) {
    snprintf(out->name, sizeof out->name, "head.%s", bias ? "bias" : "weight");
    out->rows = bias ? 1 : spec->vocab;
    out->columns = bias ? spec->vocab : spec->width << (spec->stages - 1);
    out->deviation = OOM_SMALL_DEVIATION;
}

static void cnn_describe(const struct oom_model_spec *spec, int i, struct oom_parameter *out) {
    enum { WEIGHT, GAMMA, BETA };
    static const char *const names[PER_UNIT] = {"weight", "gamma", "beta"};
    int unit = i / PER_UNIT, part = i % PER_UNIT, second;
    if (unit == unit_count(spec)) {
        describe_head(spec, part == 1, out);
        return;
    }
    struct place place = unit_place(spec, unit, &second);
    int64_t channels = channels_after(&place, spec);
    name_of(spec, unit, part == WEIGHT ? "conv" : "norm", names[part], out->name);
    out->rows = part == WEIGHT ? channels : 1;
    out->columns = part == WEIGHT ? OOM_KERNEL * OOM_KERNEL * place.in : channels;
    out->kernel = part == WEIGHT ? OOM_KERNEL : 0;
    out->mean = part == GAMMA ? 1 : 0;
    out->deviation = part == WEIGHT ? 0 : OOM_SMALL_DEVIATION;
}

/* Two for each batch norm. */
static int cnn_statistics(const struct oom_model_spec *spec) {
    return spec->norm == OOM_IMAGE_NORM_BATCH ? 2 * unit_count(spec) : 0;
}

static void cnn_describe_statistic(const struct oom_model_spec *spec, int i,
                                   struct oom_statistic *out) {
    int second;
    struct place place = unit_place(spec, i / 2, &second);
    name_of(spec, i / 2, "norm", i % 2 == 0 ? "running_mean" : "running_var", out->name);
    out->n = channels_after(&place, spec);
    out->initial = i % 2 == 0 ? 0 : 1;
}

/* ---- kinks ---- */

static int cnn_kinks(const struct oom_model_spec *spec) {
    return (int)(2 * spec->layers + 1 + 2 * (spec->stages - 1));
}

static int64_t cnn_kink_elements(const struct oom_model_spec *spec, int kink) {
    int index = 0;
    struct place place = place_of(spec, 0);
    while (kink >= place.kink + (place.kind == STEM ? 1 : 2)) place = place_of(spec, ++index);
    bool pool = place.kind == TRANSITION && kink == place.kink + 1;
    return place.image * place.image * channels_after(&place, spec) / (pool ? 4 : 1);
}

/* ---- units ---- */

static struct oom_unit unit_of(struct oom_trainer *t, const struct oom_stage *stage,
                               const struct place *place, int second) {
    const struct oom_model_spec *spec = &t->options.spec;
    struct oom_parameter *p = t->parameters + PER_UNIT * (place->unit + second);
    int64_t filters = channels_after(place, spec);
    bool batch = spec->norm == OOM_IMAGE_NORM_BATCH;
    return (struct oom_unit){.weight = &p[0],
                             .gamma = &p[1],
                             .beta = &p[2],
                             .running = batch ? &t->statistics[2 * (place->unit + second)] : NULL,
                             .conv = {.batch = t->batch.samples,
                                      .height = place->image,
                                      .width = place->image,
                                      .channels = place->in,
                                      .filters = filters,
                                      .kernel_height = OOM_KERNEL,
                                      .kernel_width = OOM_KERNEL,
                                      .stride = 1,
                                      .pad = OOM_KERNEL / 2},
                             .positions = place->image * place->image,
                             .elements = place->image * place->image * filters,
                             .groups = batch ? 0 : spec->groups,
                             .index = stage->index,
                             .dtype = oom_layer_dtype(t, OOM_LAYER_CONVOLUTION, t->session->dtype)};
}

/* ---- what stages keep ---- */

struct saved {
    struct oom_tensor cast; /* stem: the images, where the convolution runs in another dtype */
    struct oom_unit_saved first, second;
    struct oom_tensor relu;   /* block: of the first unit; transition: what is pooled */
    struct oom_tensor chosen; /* transition */
    struct oom_tensor pooled; /* head: the mean over positions, dropped out */
    struct oom_mask mask;
};

/* ---- stem ---- */

static const struct oom_tensor *images_of(const struct oom_stage *stage) {
    struct saved *k = stage->kept;
    return k->cast.data != 0 ? &k->cast : stage->in;
}

static enum oom_status stem_forward(struct oom_trainer *t, const struct oom_stage *stage,
                                    const struct place *place) {
    struct saved *k = stage->kept;
    struct oom_unit u = unit_of(t, stage, place, 0);
    int64_t n = u.conv.batch * u.positions * u.conv.channels;
    if (u.dtype != stage->in->dtype) {
        OOM_TRY(oom_cast(t, u.dtype, n, stage->in, "images cast", &k->cast));
    }
    OOM_TRY(oom_unit_forward(t, &u, images_of(stage), &k->first, stage->out));
    OOM_TRY(oom_relu_forward(t, place->kink, u.elements, stage->out));
    OOM_TRY(oom_drop_unless_kept(t, &k->cast));
    return oom_drop_input(t, stage->in);
}

static enum oom_status stem_backward(struct oom_trainer *t, const struct oom_stage *stage,
                                     const struct place *place, struct oom_tensor *d) {
    struct saved *k = stage->kept;
    struct oom_unit u = unit_of(t, stage, place, 0);
    OOM_TRY(oom_relu_backward(t, place->kink, u.elements, stage->out, d));
    OOM_TRY(oom_drop(t, stage->out));
    OOM_TRY(oom_unit_backward(t, &u, images_of(stage), &k->first, d, NULL));
    OOM_TRY(oom_drop(t, &k->cast));
    return oom_drop(t, d);
}

/* ---- block ---- */

static enum oom_status block_forward(struct oom_trainer *t, const struct oom_stage *stage,
                                     const struct place *place) {
    struct saved *k = stage->kept;
    struct oom_unit first = unit_of(t, stage, place, 0), second = unit_of(t, stage, place, 1);
    OOM_TRY(oom_unit_forward(t, &first, stage->in, &k->first, &k->relu));
    OOM_TRY(oom_relu_forward(t, place->kink, first.elements, &k->relu));
    OOM_TRY(oom_unit_forward(t, &second, &k->relu, &k->second, stage->out));
    OOM_TRY(oom_drop_unless_kept(t, &k->relu));
    OOM_TRY(oom_sum(t, second.conv.batch * second.elements, stage->out, stage->in, stage->out));
    OOM_TRY(oom_relu_forward(t, place->kink + 1, second.elements, stage->out));
    return oom_drop_input(t, stage->in);
}

/* d: gradient of the block's result, which both the sum's terms get. */
static enum oom_status block_backward(struct oom_trainer *t, const struct oom_stage *stage,
                                      const struct place *place, struct oom_tensor *d) {
    struct saved *k = stage->kept;
    struct oom_unit first = unit_of(t, stage, place, 0), second = unit_of(t, stage, place, 1);
    struct oom_tensor drelu, dx;
    OOM_TRY(oom_relu_backward(t, place->kink + 1, second.elements, stage->out, d));
    OOM_TRY(oom_drop(t, stage->out));
    OOM_TRY(oom_unit_backward(t, &second, &k->relu, &k->second, d, &drelu));
    OOM_TRY(oom_relu_backward(t, place->kink, first.elements, &k->relu, &drelu));
    OOM_TRY(oom_drop(t, &k->relu));
    OOM_TRY(oom_unit_backward(t, &first, stage->in, &k->first, &drelu, &dx));
    OOM_TRY(oom_drop(t, &drelu));
    OOM_TRY(oom_sum(t, first.conv.batch * first.elements, &dx, d, &dx));
    OOM_TRY(oom_drop(t, d));
    *d = dx;
    return OOM_OK;
}

/* ---- transition ---- */

static struct oom_pool_shape pool_of(const struct oom_unit *u) {
    return (struct oom_pool_shape){u->conv.height, u->conv.width, u->conv.filters};
}

static enum oom_status transition_forward(struct oom_trainer *t, const struct oom_stage *stage,
                                          const struct place *place) {
    struct saved *k = stage->kept;
    struct oom_unit u = unit_of(t, stage, place, 0);
    int64_t n = u.conv.batch * u.elements / 4;
    OOM_TRY(oom_unit_forward(t, &u, stage->in, &k->first, &k->relu));
    OOM_TRY(oom_relu_forward(t, place->kink, u.elements, &k->relu));
    OOM_TRY(oom_drop_input(t, stage->in));
    OOM_TRY(oom_activation_of(t, u.dtype, n, stage->index, "pool", stage->out));
    OOM_TRY(oom_activation_of(t, OOM_U8, n, stage->index, "pool index", &k->chosen));
    OOM_TRY(oom_maxpool_forward(t, place->kink + 1, pool_of(&u), &k->relu, stage->out, &k->chosen));
    OOM_TRY(oom_drop_unless_kept(t, &k->relu));
    return oom_drop_unless_kept(t, &k->chosen);
}

static enum oom_status transition_backward(struct oom_trainer *t, const struct oom_stage *stage,
                                           const struct place *place, struct oom_tensor *d) {
    struct saved *k = stage->kept;
    struct oom_unit u = unit_of(t, stage, place, 0);
    struct oom_tensor drelu, dx;
    OOM_TRY(oom_drop(t, stage->out));
    OOM_TRY(
        oom_activation_of(t, u.dtype, u.conv.batch * u.elements, stage->index, "dpool", &drelu));
    OOM_TRY(oom_maxpool_backward(t, pool_of(&u), d, &k->chosen, &drelu));
    OOM_TRY(oom_drop(t, d));
    OOM_TRY(oom_drop(t, &k->chosen));
    OOM_TRY(oom_relu_backward(t, place->kink, u.elements, &k->relu, &drelu));
    OOM_TRY(oom_drop(t, &k->relu));
    OOM_TRY(oom_unit_backward(t, &u, stage->in, &k->first, &drelu, &dx));
    OOM_TRY(oom_drop(t, &drelu));
    *d = dx;
    return OOM_OK;
}

/* ---- head ---- */

static enum oom_status head_forward(struct oom_trainer *t, const struct oom_stage *stage,
                                    const struct place *place) {
    struct saved *k = stage->kept;
    const struct oom_model_spec *spec = &t->options.spec;
    struct oom_parameter *p = t->parameters + PER_UNIT * unit_count(spec);
    enum oom_dtype dtype = oom_layer_dtype(t, OOM_LAYER_POINTWISE, stage->in->dtype);
    int64_t b = t->batch.samples;
    OOM_TRY(oom_activation(t, dtype, b * place->in, "mean pool", &k->pooled));
    struct oom_meanpool_forward_args pool = {.dtype = dtype,
                                             .batch = b,
                                             .positions = place->image * place->image,
                                             .channels = place->in,
                                             .x = stage->in->data,
                                             .y = k->pooled.data};
    OOM_TRY(oom_run(t->session, OOM_OP_MEANPOOL_FORWARD, &pool));
    OOM_TRY(oom_drop_input(t, stage->in));
    k->mask = oom_mask_draw(t, 0);
    OOM_TRY(oom_dropout(t, k->mask, place->in, &k->pooled, &k->pooled));
    OOM_TRY(oom_activation(t, dtype, b * spec->vocab, "logits", &t->logits));
    OOM_TRY(oom_linear_forward(t, &p[0], &p[1], b, &k->pooled, &t->logits));
    return oom_drop_unless_kept(t, &k->pooled);
}

static enum oom_status head_backward(struct oom_trainer *t, const struct oom_stage *stage,
                                     const struct place *place, struct oom_tensor *d) {
    struct saved *k = stage->kept;
    struct oom_parameter *p = t->parameters + PER_UNIT * unit_count(&t->options.spec);
    int64_t b = t->batch.samples, positions = place->image * place->image;
    struct oom_tensor dpooled;
    OOM_TRY(oom_activation(t, t->dlogits.dtype, b * place->in, "dmean pool", &dpooled));
    OOM_TRY(oom_linear_backward_input(t, &p[0], b, &t->dlogits, &dpooled));
    OOM_TRY(oom_linear_backward_weight(t, &p[0], &p[1], b, &k->pooled, &t->dlogits));
    OOM_TRY(oom_drop(t, &t->dlogits));
    OOM_TRY(oom_drop(t, &k->pooled));
    OOM_TRY(oom_dropout(t, k->mask, place->in, &dpooled, &dpooled));
    OOM_TRY(oom_activation(t, dpooled.dtype, b * positions * place->in, "dlast", d));
    struct oom_meanpool_backward_args pool = {.dtype = dpooled.dtype,
                                              .batch = b,
                                              .positions = positions,
                                              .channels = place->in,
                                              .dy = dpooled.data,
                                              .dx = d->data};
    OOM_TRY(oom_run(t->session, OOM_OP_MEANPOOL_BACKWARD, &pool));
    return oom_drop(t, &dpooled);
}

/* ---- the model ---- */

static enum oom_status cnn_forward(struct oom_trainer *t, const struct oom_stage *stage) {
    static enum oom_status (*const stages[])(struct oom_trainer *, const struct oom_stage *,
                                             const struct place *) = {
        [STEM] = stem_forward,
        [BLOCK] = block_forward,
        [TRANSITION] = transition_forward,
        [HEAD] = head_forward,
    };
    struct place place = place_of(&t->options.spec, stage->index);
    return stages[place.kind](t, stage, &place);
}

static enum oom_status cnn_backward(struct oom_trainer *t, const struct oom_stage *stage,
                                    struct oom_tensor *gradient) {
    static enum oom_status (*const stages[])(struct oom_trainer *, const struct oom_stage *,
                                             const struct place *, struct oom_tensor *) = {
        [STEM] = stem_backward,
        [BLOCK] = block_backward,
        [TRANSITION] = transition_backward,
        [HEAD] = head_backward,
    };
    struct place place = place_of(&t->options.spec, stage->index);
    return stages[place.kind](t, stage, &place, gradient);
}

const struct oom_model oom_model_cnn = {
    .count = cnn_count,
    .describe = cnn_describe,
    .statistics = cnn_statistics,
    .describe_statistic = cnn_describe_statistic,
    .kinks = cnn_kinks,
    .kink_elements = cnn_kink_elements,
    .stages = cnn_stages,
    .stage_bytes = sizeof(struct saved),
    .reads_output = true,
    .forward = cnn_forward,
    .backward = cnn_backward,
};
