/*
 * precision.c: the step does not fit in f32. In mixed precision it does: activations are halves,
 * weights, gradients and sums stay f32, and what is saved is measured, not assumed.
 */
#include "scenarios/situation.h"

#include <stddef.h>

enum { BATCH = 64, CURVE_STEPS = 31 };

static const double need = 1.15;

/* What a row varies. */
enum variant {
    PLAIN,
    GROUP_NORM,
    OVERFLOW,   /* the scale begins so high that the gradients of the first steps are not finite */
    UNDERFLOW,  /* so many rows that without a scale their gradients are below what f16 can hold */
    WINDOW,     /* accumulation over micro-batches */
    LARGE_MEAN, /* the norms' rows have a mean of many times their deviation */
    CURVE,      /* 30 steps, their losses and where they lead */
};

/* ---- models: few layers, whose roundings add up; as long samples as it takes ---- */

static const struct shape {
    const char *text;
    size_t length;   /* the field of the spec that is searched, */
    int64_t at_once; /* a multiple of this, */
    int64_t longest; /* up to this: above it the model becomes wider */
} shapes[OOM_MODEL_COUNT] = {
    [OOM_MODEL_GPT] = {"gpt,layers=4,width=32,heads=4", offsetof(struct oom_model_spec, context), 1,
                       256},
    [OOM_MODEL_MLP] = {"mlp,layers=4,width=32", offsetof(struct oom_model_spec, rows), 1, 4096},
    [OOM_MODEL_CNN] = {"cnn,layers=2,width=8", offsetof(struct oom_model_spec, image), 2, 64},
};

static enum oom_status reaches(const struct oom_situation *s, const struct oom_model_spec *spec,
                               bool *enough) {
    struct oom_job job = oom_situation_job(s, spec, BATCH, 1);
    uint64_t bytes = 0;
    OOM_TRY(oom_situation_need(&job, &bytes));
    *enough = (double)bytes >= need * (double)s->options->capacity;
    return OOM_OK;
}

/* The least length that needs what is wanted; *enough false: the longest does not. */
static enum oom_status search_length(const struct oom_situation *s, const struct shape *shape,
                                     struct oom_model_spec *spec, bool *enough) {
    int64_t *length = (int64_t *)(void *)((char *)spec + shape->length);
    int64_t low = 0, high = shape->longest / shape->at_once;
    *length = high * shape->at_once;
    OOM_TRY(reaches(s, spec, enough));
    while (*enough && high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        bool more = false;
        *length = middle * shape->at_once;
        OOM_TRY(reaches(s, spec, &more));
        *(more ? &high : &low) = middle;
    }
    *length = high * shape->at_once;
    return OOM_OK;
}

static enum oom_status search_shape(const struct oom_situation *s, const struct shape *shape,
                                    struct oom_model_spec *spec) {
    for (bool enough = false;; spec->width *= 2) {
        OOM_TRY(search_length(s, shape, spec, &enough));
        if (enough) return OOM_OK;
        if (spec->kind == OOM_MODEL_GPT) spec->heads *= 2; /* as wide each as before */
    }
}

/* Narrow and of so many rows that one weighs about 2^-18 in the loss. */
static const struct shape underflowing = {"mlp,layers=2,width=8",
                                          offsetof(struct oom_model_spec, rows), 1, 65536};

static enum oom_status model_of(struct oom_situation *s, const struct oom_row *row,
                                struct oom_model_spec *out) {
    if (row->choice == CURVE) { /* small: its jobs take 31 steps each */
        return oom_model_spec_parse("gpt,layers=3,width=32,heads=4,vocab=128,batch=32", out);
    }
    const struct shape *shape = row->choice == UNDERFLOW ? &underflowing : &shapes[row->model];
    if (s->options->model != NULL) {
        OOM_TRY(oom_situation_model(s, row->model, BATCH, need, out));
    } else {
        OOM_TRY(oom_model_spec_parse(shape->text, out));
        OOM_TRY(search_shape(s, shape, out));
    }
    if (row->choice == GROUP_NORM) out->norm = OOM_IMAGE_NORM_GROUP;
    return OOM_OK;
}

/* ---- jobs ---- */

/* The position table is a term of every row that a norm reads. The deviation of a row is that of
 * two tables, its mean this one's. Rounding an x of m deviations to a half leaves m u / sqrt(3) of
 * them, and less by up to a half as x nears the next power of two: 14 to 29 u at m = 50. Measured
 * there over 60 seeds: 7.4 to 25 u (f16), 7.6 to 31 u (bf16), the right step at most 3.4 u; the
 * bound is 4. At m = 400, over 10 seeds: 67 to 172 u, so over the bound ten times and more. */
static enum oom_status raise_mean(struct oom_trainer_options *trainer) {
    enum { POSITION_TABLE = 1, TIMES_THE_DEVIATION = 400 };
    if (trainer->spec.dropout > 0) {
        return oom_fail(OOM_USAGE,
                        "dropout=%g: rows of a large mean have none, as it would make "
                        "their deviation as large",
                        trainer->spec.dropout);
    }
    trainer->raised = POSITION_TABLE;
    trainer->raised_by = TIMES_THE_DEVIATION * 1.414 * OOM_SMALL_DEVIATION;
    return OOM_OK;
}

/* The largest gradient of a logit is about scale / rows, and f16 ends at 2^16: a power of two that
 * is some halvings away from not overflowing. */
static double overflowing_scale(const struct oom_job *job) {
    double scale = 0x1p17;
    for (int64_t n = job->samples * oom_spec_rows(&job->trainer.spec); n > 1; n /= 2) scale *= 2;
    return scale;
}

/* Updates so small that halves would lose nearly all of them, in a capacity that suits the model.
 */
static enum oom_status make_curve(struct oom_job *job, enum oom_amp amp) {
    uint64_t bytes = 0;
    job->steps = CURVE_STEPS;
    job->trainer.learning_rate = amp == OOM_AMP_F16 ? 0x1p-18 : 0x1p-15;
    OOM_TRY(oom_situation_need(job, &bytes));
    job->capacity = (uint64_t)((double)bytes / need) / OOM_PAGE * OOM_PAGE;
    return OOM_OK;
}

static enum oom_status make(struct oom_situation *s, const struct oom_row *row, enum oom_amp amp,
                            struct oom_case *out) {
    enum { STEPS = 2, OVERFLOW_STEPS = 6, CURVE_SCALE = 4096 };
    struct oom_model_spec spec;
    OOM_TRY(model_of(s, row, &spec));
    struct oom_job unmitigated = oom_situation_job(s, &spec, spec.batch, STEPS);
    unmitigated.trainer.learning_rate = 0x1p-13; /* as a warm-up has it */
    if (row->choice == OVERFLOW) unmitigated.steps = OVERFLOW_STEPS;
    if (row->choice == LARGE_MEAN) OOM_TRY(raise_mean(&unmitigated.trainer));
    if (row->choice == CURVE) OOM_TRY(make_curve(&unmitigated, amp));
    struct oom_job mitigated = unmitigated;
    struct oom_scaler_options *scaler = &mitigated.trainer.scaler;
    mitigated.trainer.amp = amp;
    *scaler = oom_scaler_default();
    if (row->choice == OVERFLOW) scaler->initial = overflowing_scale(&mitigated);
    if (row->choice == CURVE) scaler->initial = CURVE_SCALE; /* every step is clean */
    mitigated.micro = row->choice == WINDOW;
    if (mitigated.micro) mitigated.most = spec.batch / 4;
    oom_situation_case(out, &mitigated, &unmitigated, need);
    out->bitwise = false;
    out->bounded = row->choice != CURVE;
    out->curve = row->choice == CURVE;
    out->skips = row->choice == OVERFLOW;
    return OOM_OK;
}

static enum oom_status make_f16(struct oom_situation *s, const struct oom_row *row,
                                struct oom_case *out) {
    return make(s, row, OOM_AMP_F16, out);
}

static enum oom_status make_bf16(struct oom_situation *s, const struct oom_row *row,
                                 struct oom_case *out) {
    return make(s, row, OOM_AMP_BF16, out);
}

#define F16 "amp_fp16"
#define BF16 "amp_bf16"
#define GPT OOM_MODEL_GPT
#define MLP OOM_MODEL_MLP
#define CNN OOM_MODEL_CNN

static const struct oom_row rows[] = {
    {F16, NULL, GPT, .quick = true, .make = make_f16, .choice = PLAIN},
    {F16, NULL, MLP, .small = true, .make = make_f16, .choice = PLAIN},
    {F16, NULL, CNN, .small = true, .make = make_f16, .choice = PLAIN},
    {F16, "group_norm", CNN, .small = true, .make = make_f16, .choice = GROUP_NORM},
    {F16, "overflow", GPT, .quick = true, .small = true, .make = make_f16, .choice = OVERFLOW},
    {F16, "underflow", MLP, .small = true, .make = make_f16, .choice = UNDERFLOW},
    {F16, "accumulation", GPT, .small = true, .make = make_f16, .choice = WINDOW},
    {F16, "large_mean", GPT, .small = true, .make = make_f16, .choice = LARGE_MEAN},
    {F16, "curve", GPT, .small = true, .make = make_f16, .choice = CURVE},
    {BF16, NULL, GPT, .quick = true, .make = make_bf16, .choice = PLAIN},
    {BF16, NULL, MLP, .small = true, .make = make_bf16, .choice = PLAIN},
    {BF16, NULL, CNN, .small = true, .make = make_bf16, .choice = PLAIN},
    {BF16, "group_norm", CNN, .small = true, .make = make_bf16, .choice = GROUP_NORM},
    {BF16, "large_mean", GPT, .small = true, .make = make_bf16, .choice = LARGE_MEAN},
    {BF16, "curve", GPT, .small = true, .make = make_bf16, .choice = CURVE},
    {0},
};

static const struct oom_twin twins[] = {
    {F16, "underflow", OOM_CONTROL_NO_LOSS_SCALE, OOM_BITS_GRADS},
    {F16, NULL, OOM_CONTROL_NOT_UNSCALED, OOM_BITS_GRADS},
    {F16, "overflow", OOM_CONTROL_STEP_ON_INF, OOM_BITS_GRADS},
    {F16, "curve", OOM_CONTROL_NO_MASTER, OOM_BITS_GRADS},
    {F16, "large_mean", OOM_CONTROL_NORM_IN_HALF, OOM_BITS_GRADS},
    {F16, "accumulation", OOM_CONTROL_SCALE_IN_WINDOW, OOM_BITS_GRADS},
    {BF16, "curve", OOM_CONTROL_NO_MASTER, OOM_BITS_GRADS},
    {BF16, "large_mean", OOM_CONTROL_NORM_IN_HALF, OOM_BITS_GRADS},
    {0},
};

static enum oom_status list(const struct oom_run_options *options, struct oom_docket *docket) {
    return oom_situation_list("precision", rows, twins, options, docket);
}

extern const char oom_lesson_precision[];

const struct oom_scenario oom_scenario_precision = {
    .name = "precision",
    .summary = "fp32 does not fit: halves with f32 master weights, and a scale for the loss",
    .seconds = 10,
    .most_need = 1.15,
    .list = list,
    .lesson = oom_lesson_precision,
};
