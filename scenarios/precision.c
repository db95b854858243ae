/*
 * precision.c: the step does not fit in f32. In mixed precision it does: activations are halves,
 * weights, gradients and sums stay f32, and what is saved is measured, not assumed.
 */
#include "scenarios/situation.h"

enum { BATCH = 64, CURVE_STEPS = 31 };

static const double need = 1.15;

/* What a row varies. */
enum variant {
    PLAIN,
    GROUP_NORM,
    OVERFLOW,   /* the first steps' gradients are not finite */
    UNDERFLOW,  /* gradients below the least half, but for the scale */
    WINDOW,     /* accumulation over micro-batches */
    LARGE_MEAN, /* the norms' rows have a mean of many times their deviation */
    CURVE,      /* 30 steps */
};

static enum oom_status shape_of(struct oom_situation *s, const struct oom_row *row,
                                struct oom_model_spec *out) {
    OOM_TRY(oom_situation_model(s, row->model, BATCH, need, out));
    if (row->choice == GROUP_NORM) out->norm = OOM_IMAGE_NORM_GROUP;
    if (row->choice != UNDERFLOW) return OOM_OK;
    out->rows = 4096;
    return oom_situation_depth(s, BATCH, need, out);
}

static enum oom_status make(struct oom_situation *s, const struct oom_row *row,
                            struct oom_case *out) {
    struct oom_model_spec spec;
    OOM_TRY(shape_of(s, row, &spec));
    struct oom_job unmitigated = oom_situation_job(s, &spec, BATCH, 2);
    if (row->choice == OVERFLOW) unmitigated.steps = 5;
    if (row->choice == CURVE) {
        unmitigated.steps = CURVE_STEPS;
        unmitigated.trainer.learning_rate = row->precision == OOM_F16 ? 0x1p-16 : 0x1p-13;
    }
    if (row->choice == LARGE_MEAN) {
        unmitigated.trainer.raised = 1;
        unmitigated.trainer.raised_by = 0.07 * 200;
    }
    struct oom_job mitigated = unmitigated;
    mitigated.trainer.amp = row->precision == OOM_F16 ? OOM_AMP_F16 : OOM_AMP_BF16;
    mitigated.trainer.scaler = oom_scaler_default();
    if (row->choice == OVERFLOW) mitigated.trainer.scaler.initial = 0x1p32F;
    if (row->choice == CURVE) mitigated.trainer.scaler.initial = 0x1p12F;
    mitigated.micro = row->choice == WINDOW;
    if (mitigated.micro) mitigated.most = BATCH / 4;
    oom_situation_case(out, &mitigated, &unmitigated, need);
    out->bitwise = false;
    out->bounded = row->choice != CURVE;
    out->curve = row->choice == CURVE;
    out->skips = row->choice == OVERFLOW;
    return OOM_OK;
}

#define F16 "amp_fp16"
#define BF16 "amp_bf16"
#define ROW(mitigation, half, kind, ...) \
    { mitigation, .model = OOM_MODEL_##kind, .make = make, .precision = OOM_##half, __VA_ARGS__ }

static const struct oom_row rows[] = {
    ROW(F16, F16, GPT, .quick = true),
    ROW(F16, F16, MLP),
    ROW(F16, F16, CNN),
    ROW(F16, F16, CNN, .variant = "group_norm", .choice = GROUP_NORM),
    ROW(F16, F16, GPT, .variant = "overflow", .choice = OVERFLOW, .small = true),
    ROW(F16, F16, MLP, .variant = "underflow", .choice = UNDERFLOW, .small = true),
    ROW(F16, F16, GPT, .variant = "accumulation", .choice = WINDOW, .small = true),
    ROW(F16, F16, GPT, .variant = "large_mean", .choice = LARGE_MEAN, .small = true),
    ROW(F16, F16, GPT, .variant = "curve", .choice = CURVE, .small = true),
    ROW(BF16, BF16, GPT, .quick = true),
    ROW(BF16, BF16, MLP),
    ROW(BF16, BF16, CNN),
    ROW(BF16, BF16, CNN, .variant = "group_norm", .choice = GROUP_NORM),
    ROW(BF16, BF16, GPT, .variant = "large_mean", .choice = LARGE_MEAN, .small = true),
    ROW(BF16, BF16, GPT, .variant = "curve", .choice = CURVE, .small = true),
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
    .seconds = 4,
    .most_need = 1.15,
    .list = list,
    .lesson = oom_lesson_precision,
};
