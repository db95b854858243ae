#include "harness/train/trainer.h"

#include "harness/base/rng.h"
#include "harness/base/control.h"
#include "harness/train/checkpoint.h"
#include "harness/train/layers.h"
#include "harness/train/loop.h"
#include "harness/train/optimizer.h"
#include "kernels/hostmem.h"

#include <math.h>
#include <string.h>

static const char *const phase_names[] = {
#define X(id, name) name,
    OOM_PHASE_MAP(X)
#undef X
};

const char *oom_phase_name(enum oom_phase phase) {
    return phase_names[phase];
}

const struct oom_model *oom_model_of(const struct oom_model_spec *spec) {
    static const struct oom_model *const models[OOM_MODEL_COUNT] = {
        [OOM_MODEL_MLP] = &oom_model_mlp,
        [OOM_MODEL_GPT] = &oom_model_gpt,
        [OOM_MODEL_CNN] = &oom_model_cnn,
    };
    return models[spec->kind];
}

static uint64_t real_bytes(const struct oom_trainer *t) {
    return oom_dtype_bytes(t->session->dtype);
}

static enum oom_status fill_zero(struct oom_trainer *t, oom_devptr data, uint64_t bytes) {
    return t->session->device->api->fill(t->session->device, data, 0, bytes, t->session->stream);
}

/* ---- parameters ---- */

/* Nearly normal and dyadic, as in data.c: f32 and f64 models start from the same values. */
static double draw(struct oom_rng *rng) {
    double sum = -2.0;
    for (int i = 0; i < 4; i++) sum += (double)(oom_rng_next(rng) >> 40) * 0x1p-24;
    return 1.75 * sum;
}

/* Weights keep the size of what passes through them: He et al. 2015 for ReLU (dropout raises the
 * mean square by 1 / (1 - p)), less for gpt. */
static double deviation_of(const struct oom_trainer *t, const struct oom_parameter *p) {
    if (p->deviation > 0) return p->deviation;
    const struct oom_model_spec *spec = &t->options.spec;
    double kept = spec->kind == OOM_MODEL_MLP ? 1.0 - spec->dropout : 1.0;
    double gain = spec->kind == OOM_MODEL_GPT ? 0.5 : 2.0 * kept;
    return sqrt(gain / (double)p->columns);
}

enum { CHUNK = 2048 }; /* elements of a staging buffer on the stack */

static enum oom_status initialise(struct oom_trainer *t, struct oom_parameter *p) {
    union {
        float f32[CHUNK];
        double f64[CHUNK];
    } staging;
    struct oom_rng rng = {oom_seed_derive(t->options.seed, p->name)};
    double deviation = deviation_of(t, p), mean = p->mean;
    if (p == &t->parameters[t->options.raised]) mean += t->options.raised_by;
    bool wide = t->session->dtype == OOM_F64;
    for (int64_t at = 0, n = oom_parameter_n(p); at < n; at += CHUNK) {
        int64_t count = n - at < CHUNK ? n - at : CHUNK;
        for (int64_t i = 0; i < count; i++) {
            float value = (float)(mean + deviation * draw(&rng));
            if (wide) {
                staging.f64[i] = value;
            } else {
                staging.f32[i] = value;
            }
        }
        uint64_t size = real_bytes(t);
        OOM_TRY(t->session->device->api->upload(t->session->device,
                                                p->value.data + (uint64_t)at * size, &staging,
                                                (uint64_t)count * size, t->session->stream));
    }
    return OOM_OK;
}

static enum oom_status create_parameters(struct oom_trainer *t) {
    const struct oom_model *model = oom_model_of(&t->options.spec);
    struct oom_device_properties properties;
    t->session->device->api->properties(t->session->device, &properties);
    for (int i = 0; i < t->parameter_count; i++) {
        struct oom_parameter *p = &t->parameters[i];
        model->describe(&t->options.spec, i, p);
        OOM_TRY(oom_tensor_alloc(t->session, (uint64_t)oom_parameter_n(p) * real_bytes(t),
                                 OOM_TAG_PARAMETER, p->name, &p->value));
        if (properties.computes) OOM_TRY(initialise(t, p));
    }
    OOM_TRY(oom_tensor_alloc(t->session, real_bytes(t), OOM_TAG_OTHER, "loss", &t->loss));
    return fill_zero(t, t->loss.data, real_bytes(t));
}

/* ---- batch statistics ---- */

static uint64_t statistic_bytes(const struct oom_trainer *t,
                                const struct oom_statistic *statistic) {
    return (uint64_t)statistic->n * real_bytes(t);
}

static enum oom_status create_statistics(struct oom_trainer *t) {
    const struct oom_model *model = oom_model_of(&t->options.spec);
    for (int i = 0; i < t->statistic_count; i++) {
        struct oom_statistic *s = &t->statistics[i];
        model->describe_statistic(&t->options.spec, i, s);
        uint64_t bytes = statistic_bytes(t, s);
        OOM_TRY(oom_tensor_alloc(t->session, bytes, OOM_TAG_OTHER, s->name, &s->value));
        OOM_TRY(oom_tensor_alloc(t->session, bytes, OOM_TAG_OTHER, s->name, &s->before));
        struct oom_fill_args fill = {t->session->dtype, s->n, s->initial, s->value.data};
        OOM_TRY(oom_run(t->session, OOM_OP_FILL, &fill));
    }
    return OOM_OK;
}

static enum oom_status copy_statistics(struct oom_trainer *t, bool back) {
    for (int i = 0; i < t->statistic_count; i++) {
        struct oom_statistic *s = &t->statistics[i];
        oom_devptr value = s->value.data, before = s->before.data;
        struct oom_copy_args copy = {t->session->dtype, t->session->dtype, s->n,
                                     back ? before : value, back ? value : before};
        OOM_TRY(oom_run(t->session, OOM_OP_COPY, &copy));
    }
    return OOM_OK;
}

/* ---- life ---- */

/* The optimizer's states are made now: no plan can know which is the first step that is not left
 * out. */
static enum oom_status prepare_amp(struct oom_trainer *t) {
    struct oom_scaler_options *options = &t->options.scaler;
    if (options->interval == 0) *options = oom_scaler_default();
    t->scaler = (struct oom_scaler){.on = t->options.amp == OOM_AMP_F16, .scale = 1};
    if (t->options.amp == OOM_AMP_OFF) return OOM_OK;
    if (t->session->dtype != OOM_F32) {
        return oom_fail(OOM_USAGE, "mixed precision beside %s: allowed is f32",
                        oom_dtype_name(t->session->dtype));
    }
    OOM_TRY(oom_optimizer_prepare(t));
    if (!t->scaler.on) return OOM_OK;
    t->scaler.scale = (float)options->initial;
    OOM_TRY(oom_tensor_alloc(t->session, sizeof(int32_t), OOM_TAG_OTHER, "found", &t->found));
    return fill_zero(t, t->found.data, sizeof(int32_t));
}

enum oom_status oom_parameter_gradient(struct oom_trainer *t, struct oom_parameter *p) {
    t->gradients_written++;
    if (p->gradient.data != 0) return OOM_OK;
    uint64_t bytes = (uint64_t)oom_parameter_n(p) * real_bytes(t);
    OOM_TRY(oom_tensor_alloc(t->session, bytes, OOM_TAG_GRADIENT, p->name, &p->gradient));
    return fill_zero(t, p->gradient.data, bytes);
}

enum oom_status oom_trainer_create(struct oom_session *session,
                                   const struct oom_trainer_options *options,
                                   struct oom_trainer **out) {
    *out = NULL;
    const struct oom_model *model = oom_model_of(&options->spec);
    struct oom_trainer *t = oom_host_calloc(1, sizeof *t);
    if (t == NULL) return oom_fail(OOM_HOST_NOMEM, "a trainer");
    t->session = session;
    t->options = *options;
    t->scope.session = session;
    t->parameter_count = model->count(&options->spec);
    t->parameters = oom_host_calloc((size_t)t->parameter_count, sizeof *t->parameters);
    enum oom_status status =
        oom_stages_create(&t->stages, model->stages(&options->spec), model->stage_bytes);
    t->statistic_count = model->statistics != NULL ? model->statistics(&options->spec) : 0;
    t->statistics = oom_host_calloc((size_t)t->statistic_count + 1, sizeof *t->statistics);
    if (status == OOM_OK && (t->parameters == NULL || t->statistics == NULL)) {
        status = oom_fail(OOM_HOST_NOMEM, "the tables of %d parameters", t->parameter_count);
    }
    if (status == OOM_OK) status = create_parameters(t);
    if (status == OOM_OK) status = create_statistics(t);
    if (status == OOM_OK) status = prepare_amp(t);
    if (status == OOM_OK && options->gradients == OOM_GRADIENTS_ZEROED) {
        for (int i = 0; i < t->parameter_count && status == OOM_OK; i++) {
            status = oom_parameter_gradient(t, &t->parameters[i]);
        }
    }
    if (status != OOM_OK) {
        oom_trainer_destroy(t);
        return status;
    }
    *out = t;
    return OOM_OK;
}

void oom_trainer_destroy(struct oom_trainer *t) {
    if (t == NULL) return;
    oom_scope_end(&t->scope);
    for (int i = 0; t->parameters != NULL && i < t->parameter_count; i++) {
        struct oom_parameter *p = &t->parameters[i];
        oom_tensor_free(t->session, &p->value);
        oom_tensor_free(t->session, &p->gradient);
        for (int k = 0; k < OOM_STATES; k++) oom_tensor_free(t->session, &p->state[k]);
    }
    for (int i = 0; t->statistics != NULL && i < t->statistic_count; i++) {
        oom_tensor_free(t->session, &t->statistics[i].value);
        oom_tensor_free(t->session, &t->statistics[i].before);
    }
    oom_tensor_free(t->session, &t->loss);
    oom_tensor_free(t->session, &t->found);
    oom_host_free(t->statistics);
    oom_host_free(t->parameters);
    oom_checkpoint_end(t);
    oom_stages_free(&t->stages);
    oom_host_free(t);
}

/* ---- one micro-batch ---- */

/* dlogits = weights * scale * (softmax(logits) - onehot), but for an evaluation; loss += sum of
 * weighted losses. */
enum oom_status oom_trainer_loss(struct oom_trainer *t) {
    int64_t n = t->batch.rows, v = t->options.spec.vocab;
    uint64_t size = real_bytes(t);
    enum oom_dtype dtype = oom_layer_dtype(t, OOM_LAYER_LOSS, t->logits.dtype);
    OOM_TRY(
        oom_scope_alloc(&t->scope, (uint64_t)n * size, OOM_TAG_ACTIVATION, "losses", &t->losses));
    if (!t->evaluating) {
        OOM_TRY(oom_activation(t, dtype, n * v, "dlogits", &t->dlogits));
    }
    struct oom_cross_entropy_args entropy = {.dtype = dtype,
                                             .rows = n,
                                             .classes = v,
                                             .scale = oom_loss_scale(t),
                                             .logits = t->logits.data,
                                             .targets = t->batch.targets.data,
                                             .weights = t->batch.weights.data,
                                             .losses = t->losses.data,
                                             .dlogits = t->dlogits.data};
    OOM_TRY(oom_run(t->session, OOM_OP_CROSS_ENTROPY, &entropy));
    OOM_TRY(oom_scope_free(&t->scope, &t->logits));
    if (oom_control_on(OOM_CONTROL_LOSS_LAST_ONLY)) OOM_TRY(fill_zero(t, t->loss.data, size));
    struct oom_loss_sum_args sum = {.dtype = t->session->dtype,
                                    .batch = t->batch.samples,
                                    .positions = n / t->batch.samples,
                                    .losses = t->losses.data,
                                    .out = t->loss.data};
    OOM_TRY(oom_run(t->session, OOM_OP_LOSS_SUM, &sum));
    return oom_scope_free(&t->scope, &t->losses);
}

enum oom_status oom_trainer_load(struct oom_trainer *t, const struct oom_window *window,
                                 int64_t begin, int64_t end, struct oom_weighing weighing) {
    weighing.by_place = t->options.rng == OOM_RNG_STATEFUL;
    return oom_batch_load(&t->scope, window, begin, end, weighing, &t->batch);
}

enum oom_status oom_trainer_micro_batch(struct oom_trainer *t, const struct oom_window *window,
                                        int64_t begin, int64_t end, struct oom_weighing weighing) {
    t->phase = OOM_PHASE_LOAD;
    t->first_sample = begin;
    OOM_TRY(oom_checkpoint_prepare(t, end - begin));
    OOM_TRY(oom_batch_free(&t->scope, &t->batch));
    OOM_TRY(oom_trainer_load(t, window, begin, end, weighing));
    t->phase = OOM_PHASE_FORWARD;
    OOM_TRY(oom_stages_forward(t));
    OOM_TRY(oom_loop_after_forward(t));
    t->phase = OOM_PHASE_LOSS;
    OOM_TRY(oom_trainer_loss(t));
    t->phase = OOM_PHASE_BACKWARD;
    OOM_TRY(oom_stages_backward(t));
    OOM_TRY(oom_weight_copies_free(t));
    return oom_loop_after_backward(t);
}

/* ---- evaluation ---- */

enum oom_status oom_trainer_read_loss(struct oom_trainer *t, double *loss) {
    union {
        float f32;
        double f64;
    } value = {.f64 = 0};
    OOM_TRY(t->session->device->api->download(t->session->device, &value, t->loss.data,
                                              real_bytes(t), t->session->stream));
    *loss = t->session->dtype == OOM_F64 ? value.f64 : (double)value.f32;
    return OOM_OK;
}

static enum oom_status forward_and_loss(struct oom_trainer *t, const struct oom_window *window) {
    struct oom_weighing weighing = {.divisor = window->total};
    t->phase = OOM_PHASE_LOAD;
    t->first_sample = 0;
    OOM_TRY(oom_trainer_load(t, window, 0, window->samples, weighing));
    t->phase = OOM_PHASE_FORWARD;
    OOM_TRY(oom_stages_forward(t));
    t->phase = OOM_PHASE_LOSS;
    return oom_trainer_loss(t);
}

enum oom_status oom_trainer_evaluate(struct oom_trainer *t, const struct oom_window *window,
                                     double *loss) {
    OOM_TRY(oom_trainer_begin_step(t));
    OOM_TRY(oom_batch_free(&t->scope, &t->batch));
    t->evaluating = true;
    enum oom_status status = forward_and_loss(t, window);
    t->evaluating = false;
    OOM_TRY(status);
    OOM_TRY(oom_weight_copies_free(t));
    OOM_TRY(oom_batch_free(&t->scope, &t->batch));
    t->phase = OOM_PHASE_SETUP;
    return oom_trainer_read_loss(t, loss);
}

/* ---- the step around it ---- */

enum oom_status oom_trainer_begin_step(struct oom_trainer *t) {
    t->micro_batch = 0;
    t->stages.recomputed = 0;
    t->stages.first_flops = t->stages.again_flops = 0;
    t->gradients_written = 0;
    t->rng_offset_before = t->rng_offset;
    OOM_TRY(copy_statistics(t, false));
    return fill_zero(t, t->loss.data, real_bytes(t));
}

enum oom_status oom_trainer_update(struct oom_trainer *t) {
    t->phase = OOM_PHASE_OPTIMIZER;
    if (!t->scaler.found) OOM_TRY(oom_optimizer_update(t));
    if (t->scaler.on) oom_scaler_update(&t->scaler, &t->options.scaler);
    return OOM_OK;
}

enum oom_status oom_trainer_clear_gradients(struct oom_trainer *t) {
    for (int i = 0; i < t->parameter_count; i++) {
        struct oom_parameter *p = &t->parameters[i];
        if (p->gradient.data == 0) continue;
        if (t->options.gradients == OOM_GRADIENTS_NONE) {
            OOM_TRY(oom_tensor_free(t->session, &p->gradient));
        } else {
            OOM_TRY(fill_zero(t, p->gradient.data, (uint64_t)oom_parameter_n(p) * real_bytes(t)));
        }
    }
    return OOM_OK;
}

enum oom_status oom_trainer_end_step(struct oom_trainer *t) {
    OOM_TRY(oom_batch_free(&t->scope, &t->batch));
    OOM_TRY(oom_trainer_clear_gradients(t));
    t->rng_step++;
    t->phase = OOM_PHASE_SETUP;
    return OOM_OK;
}

/* Nothing of the step is remembered: the structs that named its tensors are wiped. */
static enum oom_status wipe(struct oom_trainer *t) {
    t->batch = (struct oom_batch){0};
    t->logits = t->dlogits = t->losses = (struct oom_tensor){0};
    oom_stages_forget(&t->stages);
    for (int i = 0; i < t->parameter_count; i++) t->parameters[i].half = (struct oom_tensor){0};
    t->rng_offset = t->rng_offset_before;
    t->recomputing = false;
    t->scaler.unscaled = t->scaler.found = false;
    return copy_statistics(t, true);
}

enum oom_status oom_trainer_forget(struct oom_trainer *t) {
    oom_loop_forget(t);
    return wipe(t);
}

static void leak_one(struct oom_scope *scope) {
    for (int i = 0; i < scope->slots; i++) {
        if (scope->live[i] == 0) continue;
        scope->live[i] = 0;
        return;
    }
}

enum oom_status oom_trainer_drop(struct oom_trainer *t) {
    OOM_TRY(wipe(t));
    if (oom_control_on(OOM_CONTROL_TENSOR_LEAKED)) leak_one(&t->scope);
    if (oom_control_on(OOM_CONTROL_RNG_ADVANCED)) t->rng_step++;
    OOM_TRY(oom_loop_drop(t));
    return oom_scope_drop(&t->scope);
}
