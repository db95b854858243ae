#include "harness/train/checkpoint.h"

#include "kernels/hostmem.h"

static const uint64_t UNLIMITED = UINT64_C(1) << 60;

/* ---- describing: a trainer on a dry device, its operations run one by one ---- */

struct bench {
    struct oom_session session;
    struct oom_source source;
    struct oom_trainer *trainer;
    struct oom_window window;
    double flops; /* of the operation in hand */
    double unit;  /* flops that a description counts as one */
};

static uint64_t live(const struct bench *b) {
    return (uint64_t)oom_allocator_stats(b->session.allocator)
        ->allocated_bytes[OOM_POOL_ALL]
        .current;
}

static enum oom_status open_bench(struct bench *b, const struct oom_trainer_options *options,
                                  enum oom_dtype dtype, int64_t samples, bool accumulating) {
    struct oom_device_options device = {.capacity = UNLIMITED};
    struct oom_allocator_settings settings = oom_allocator_settings_default();
    struct oom_trainer_options plain = *options;
    plain.checkpointing = OOM_CHECKPOINTING_OFF;
    if (accumulating) plain.gradients = OOM_GRADIENTS_ZEROED;
    settings.trace_entries = 0;
    settings.expandable_segments = true; /* blocks are cut to 512 bytes, however small the rest */
    OOM_TRY(oom_dry_open(&device, &b->session.device));
    b->session.dtype = dtype;
    b->session.flops = &b->flops;
    OOM_TRY(oom_allocator_create(b->session.device, &settings, &b->session.allocator));
    OOM_TRY(oom_trainer_create(&b->session, &plain, &b->trainer));
    oom_window_init(&b->window, &b->trainer->options.spec, &b->source, samples, 1, false);
    return OOM_OK;
}

static void close_bench(struct bench *b) {
    oom_trainer_destroy(b->trainer);
    oom_allocator_destroy(b->session.allocator);
    oom_device_close(b->session.device);
}

/* A power of two such that sums over all stages, as often as there are stages, stay far from the
 * end of 64 bits: 1 below some 10^15 flops a step. */
static double unit_of(double flops, int stages) {
    double unit = 1;
    while (flops / unit * stages > 0x1p58) unit *= 2;
    return unit;
}

/* A whole step, so that optimizer states exist; then the batch of the next. */
static enum oom_status warm_up(struct bench *b) {
    struct oom_weighing weighing = {.divisor = b->window.total};
    struct oom_trainer *t = b->trainer;
    OOM_TRY(oom_trainer_begin_step(t));
    OOM_TRY(oom_trainer_micro_batch(t, &b->window, 0, b->window.samples, weighing));
    OOM_TRY(oom_trainer_update(t));
    OOM_TRY(oom_trainer_end_step(t));
    b->unit = unit_of(b->flops, t->stages.count);
    OOM_TRY(oom_trainer_begin_step(t));
    return oom_trainer_load(t, &b->window, 0, b->window.samples, weighing);
}

struct measured {
    uint64_t peak;  /* above what lived when it began */
    int64_t growth; /* of what lives */
    uint64_t flops;
};

static enum oom_status measure(struct bench *b, enum oom_checkpoint_kind kind, int stage,
                               struct oom_tensor *gradient, struct measured *out) {
    uint64_t before = live(b);
    oom_allocator_reset_peaks(b->session.allocator);
    b->flops = 0;
    bool last = stage == b->trainer->stages.count - 1;
    if (kind == OOM_CHECKPOINT_BACKWARD && last) OOM_TRY(oom_trainer_loss(b->trainer));
    OOM_TRY(oom_stages_run(b->trainer, (struct oom_checkpoint_op){kind, stage}, gradient));
    const struct oom_allocator_stats *stats = oom_allocator_stats(b->session.allocator);
    uint64_t peak = (uint64_t)stats->allocated_bytes[OOM_POOL_ALL].peak;
    *out = (struct measured){.peak = peak - before,
                             .growth = (int64_t)live(b) - (int64_t)before,
                             .flops = (uint64_t)(b->flops / b->unit)};
    return OOM_OK;
}

/* What a forward made goes again, so that the next way of running it starts from the same. */
static enum oom_status undo(struct bench *b, int stage) {
    struct oom_trainer *t = b->trainer;
    bool last = stage == t->stages.count - 1;
    return oom_scope_free(&t->scope, last ? &t->logits : &t->stages.boundary[stage + 1]);
}

static uint64_t rounded(const struct oom_tensor *x) {
    uint64_t bytes = (uint64_t)x->elements * oom_dtype_bytes(x->dtype);
    return (bytes + 511) / 512 * 512;
}

/* FREE is measured as CHECK with its input's bytes gone where it is read for the last time, so it
 * is run on a copy of the input. */
static enum oom_status measure_free(struct bench *b, int stage, struct measured *out) {
    struct oom_trainer *t = b->trainer;
    if (stage == 0) {
        OOM_TRY(measure(b, OOM_CHECKPOINT_FORWARD_FREE, 0, NULL, out));
        return undo(b, 0);
    }
    struct oom_tensor kept = t->stages.boundary[stage];
    struct oom_tensor *x = &t->stages.boundary[stage];
    OOM_TRY(oom_scope_alloc(&t->scope, (uint64_t)x->elements * oom_dtype_bytes(x->dtype),
                            OOM_TAG_ACTIVATION, "copy", x));
    x->dtype = kept.dtype;
    x->elements = kept.elements;
    OOM_TRY(measure(b, OOM_CHECKPOINT_FORWARD_FREE, stage, NULL, out));
    *x = kept;
    return undo(b, stage);
}

static enum oom_status describe_forward(struct bench *b, int stage,
                                        struct oom_checkpoint_stage *out) {
    struct oom_trainer *t = b->trainer;
    struct measured free, check, save;
    OOM_TRY(measure_free(b, stage, &free)); /* makes the half copies of the weights, which stay */
    OOM_TRY(measure_free(b, stage, &free));
    OOM_TRY(measure(b, OOM_CHECKPOINT_FORWARD_CHECK, stage, NULL, &check));
    OOM_TRY(undo(b, stage));
    OOM_TRY(measure(b, OOM_CHECKPOINT_FORWARD_SAVE, stage, NULL, &save));
    bool last = stage == t->stages.count - 1;
    out->forward_flops = save.flops;
    out->output = rounded(last ? &t->logits : &t->stages.boundary[stage + 1]);
    out->saved = (uint64_t)save.growth - out->output;
    out->peak[OOM_CHECKPOINT_FORWARD_FREE] = free.peak;
    out->peak[OOM_CHECKPOINT_FORWARD_CHECK] = check.peak;
    out->peak[OOM_CHECKPOINT_FORWARD_SAVE] = save.peak;
    return OOM_OK;
}

/* What is left for good is what no other figure explains. */
static enum oom_status describe_backward(struct bench *b, int stage, uint64_t input,
                                         struct oom_tensor *gradient,
                                         struct oom_checkpoint_stage *stages) {
    struct oom_checkpoint_stage *s = &stages[stage];
    const struct oom_model *model = oom_model_of(&b->trainer->options.spec);
    int last = b->trainer->stages.count - 1;
    bool reads = model->reads_output && stage < last;
    struct measured back;
    uint64_t before = stage < last ? stages[stage + 1].gradient : 0;
    OOM_TRY(measure(b, OOM_CHECKPOINT_BACKWARD, stage, gradient, &back));
    s->backward_flops = back.flops;
    s->peak[OOM_CHECKPOINT_BACKWARD] = back.peak;
    s->gradient = gradient->data != 0 ? rounded(gradient) : 0;
    s->reads_output = reads || stage == last;
    uint64_t freed = s->saved + before + (s->reads_output ? s->output : 0);
    if (stage > 0 && !model->reads_output) freed += input;
    s->left = (uint64_t)(back.growth + (int64_t)freed - (int64_t)s->gradient);
    return OOM_OK;
}

static uint64_t weight_copies(const struct oom_trainer *t) {
    uint64_t bytes = 0;
    for (int i = 0; i < t->parameter_count; i++) {
        const struct oom_tensor *half = &t->parameters[i].half;
        if (half->data != 0) bytes += rounded(half);
    }
    return bytes;
}

static enum oom_status describe(struct bench *b, struct oom_checkpoint_chain *out,
                                struct oom_checkpoint_stage *stages) {
    struct oom_tensor gradient = {0};
    OOM_TRY(warm_up(b));
    out->input = rounded(&b->trainer->batch.inputs);
    out->fixed = live(b) - out->input;
    for (int i = 0; i < out->count; i++) OOM_TRY(describe_forward(b, i, &stages[i]));
    out->fixed += weight_copies(b->trainer);
    for (int i = out->count - 1; i >= 0; i--) {
        OOM_TRY(describe_backward(b, i, i > 0 ? stages[i - 1].output : 0, &gradient, stages));
    }
    return OOM_OK;
}

enum oom_status oom_checkpoint_describe(const struct oom_trainer_options *options,
                                        enum oom_dtype dtype, int64_t samples, bool accumulating,
                                        struct oom_checkpoint_chain *out) {
    struct bench b = {.source = {.seed = 1, .file = -1}};
    int count = oom_model_of(&options->spec)->stages(&options->spec);
    *out = (struct oom_checkpoint_chain){.count = count};
    struct oom_checkpoint_stage *stages = oom_host_calloc((size_t)count, sizeof *stages);
    if (stages == NULL) return oom_fail(OOM_HOST_NOMEM, "the figures of %d stages", count);
    enum oom_status status = open_bench(&b, options, dtype, samples, accumulating);
    if (status == OOM_OK) status = describe(&b, out, stages);
    close_bench(&b);
    out->stages = stages;
    if (status != OOM_OK) oom_checkpoint_chain_free(out);
    return status;
}

void oom_checkpoint_chain_free(struct oom_checkpoint_chain *chain) {
    oom_host_free((void *)(uintptr_t)chain->stages);
    *chain = (struct oom_checkpoint_chain){0};
}

/* ---- the schedule of a trainer ---- */

static enum oom_status make_schedule(const struct oom_trainer_options *options,
                                     const struct oom_checkpoint_chain *chain,
                                     struct oom_checkpoint_schedule *out) {
    if (options->checkpointing == OOM_CHECKPOINTING_BUDGET) {
        return oom_checkpoint_budget(chain, options->checkpoint_budget, out);
    }
    return oom_checkpoint_segments(chain, oom_checkpoint_sqrt(chain->count), out);
}

enum oom_status oom_checkpoint_prepare(struct oom_trainer *t, int64_t samples) {
    if (t->options.checkpointing == OOM_CHECKPOINTING_OFF) return OOM_OK;
    bool accumulating = t->parameters[0].gradient.data != 0;
    struct oom_trainer_schedule *scheduled = &t->scheduled[accumulating];
    t->stages.schedule = &scheduled->schedule;
    if (scheduled->samples == samples) return OOM_OK;
    oom_checkpoint_schedule_free(&scheduled->schedule);
    *scheduled = (struct oom_trainer_schedule){.samples = samples};
    struct oom_checkpoint_chain chain;
    OOM_TRY(oom_checkpoint_describe(&t->options, t->session->dtype, samples, accumulating, &chain));
    enum oom_status status = make_schedule(&t->options, &chain, &scheduled->schedule);
    oom_checkpoint_chain_free(&chain);
    if (status != OOM_OK) scheduled->samples = 0;
    return status;
}

void oom_checkpoint_end(struct oom_trainer *t) {
    for (int i = 0; i < 2; i++) {
        oom_checkpoint_schedule_free(&t->scheduled[i].schedule);
        t->scheduled[i] = (struct oom_trainer_schedule){0};
    }
    t->stages.schedule = NULL;
}
