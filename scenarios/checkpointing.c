/*
 * checkpointing.c: a deep net's saved activations do not fit. Some boundaries between its stages
 * are kept, the rest is computed again on the way back: the same bits, for at most one forward
 * more. Also together with what people use beside it: mixed precision, accumulation, expandable
 * segments.
 */
#include "scenarios/situation.h"

#include "harness/base/control.h"

enum { BATCH = 32, MICRO = 8 };

#define NEED 1.5      /* of what keeps less: checkpoints, micro-batches */
#define NEED_AMP 1.15 /* of what only makes it smaller */

/* What a row varies. */
enum {
    SQRT = 1 << 0,
    BUDGET = 1 << 1,
    GROUP_NORM = 1 << 2,
    STATEFUL = 1 << 3, /* random numbers as PyTorch has them: running, not keyed */
    MICRO_BATCHES = 1 << 4,
    EXPANDABLE = 1 << 5,
    F16 = 1 << 6,
    BF16 = 1 << 7,
    COMBINED = 1 << 8,
};

/* Deep rather than wide, with dropout in every layer. */
static enum oom_status model_of(struct oom_situation *s, const struct oom_row *row, double need,
                                struct oom_model_spec *out) {
    struct oom_model_spec shape = oom_situation_shape(s, row->model);
    if (row->model == OOM_MODEL_GPT) shape.heads = 4;
    if (row->model != OOM_MODEL_CNN) shape.width = 32;
    bool images = row->model == OOM_MODEL_CNN;
    if (images && (row->choice & GROUP_NORM)) shape.norm = OOM_IMAGE_NORM_GROUP;
    shape.dropout = 0.125;
    return oom_situation_model_of(s, &shape, BATCH, need, out);
}

static void apply(int choice, struct oom_job *job) {
    if (choice & SQRT) job->trainer.checkpointing = OOM_CHECKPOINTING_SQRT;
    if (choice & BUDGET) job->trainer.checkpointing = OOM_CHECKPOINTING_BUDGET; /* 0: what fits */
    if (choice & F16) job->trainer.amp = OOM_AMP_F16;
    if (choice & BF16) job->trainer.amp = OOM_AMP_BF16;
    if (choice & EXPANDABLE) job->settings.expandable_segments = true;
    if (!(choice & MICRO_BATCHES)) return;
    job->micro = true;
    job->most = MICRO;
}

/* The reference keeps everything, in the same precision, and does not cut the batch: its bits are
 * asked for. The truth goes through the samples one by one, with masks by their identities: not for
 * running random numbers. */
static enum oom_status make(struct oom_situation *s, const struct oom_row *row,
                            struct oom_case *out) {
    int choice = row->choice;
    struct oom_model_spec spec;
    double need = choice & (SQRT | BUDGET | MICRO_BATCHES) ? NEED : NEED_AMP;
    OOM_TRY(model_of(s, row, need, &spec));
    struct oom_job unmitigated = oom_situation_job(s, &spec, BATCH, 2);
    if (choice & STATEFUL) unmitigated.trainer.rng = OOM_RNG_STATEFUL;
    struct oom_job mitigated = unmitigated;
    apply(choice, &mitigated);
    oom_situation_case(out, &mitigated, &unmitigated, need);
    out->reference = OOM_REFERENCE_WHOLE;
    out->without_oom = true;
    out->bounded = !(choice & (STATEFUL | COMBINED));
    return OOM_OK;
}

/* ---- the tables ---- */

#define GPT OOM_MODEL_GPT
#define MLP OOM_MODEL_MLP
#define CNN OOM_MODEL_CNN
/* Together with what people use beside it. Batch norm sees micro-batches: not under accumulation.
 */
#define TOGETHER(model, name, set, ...) \
    { \
        "combined", name, model, .small = true, .unguarded = true, .make = make, \
                                 .choice = COMBINED | GROUP_NORM | (set), __VA_ARGS__ \
    }
#define PAIRS_OF_AMP(model, half) \
    TOGETHER(model, "amp+checkpointing", (half) | SQRT, .full = true), \
        TOGETHER(model, "amp+accumulation", (half) | MICRO_BATCHES, .full = true), \
        TOGETHER(model, "amp+expandable", (half) | EXPANDABLE, .full = true)
#define PAIRS(model) \
    PAIRS_OF_AMP(model, F16), PAIRS_OF_AMP(model, BF16), \
        TOGETHER(model, "accumulation+checkpointing", MICRO_BATCHES | SQRT, .full = true), \
        TOGETHER(model, "accumulation+expandable", MICRO_BATCHES | EXPANDABLE, .full = true), \
        TOGETHER(model, "checkpointing+expandable", BUDGET | EXPANDABLE, .full = true)
#define ALL_FOUR(model, half, ...) \
    TOGETHER(model, "amp+accumulation+checkpointing+expandable", \
             (half) | MICRO_BATCHES | SQRT | EXPANDABLE, __VA_ARGS__)

static const struct oom_row rows[] = {
    {"checkpoint_sqrt", NULL, GPT, .quick = true, .make = make, .choice = SQRT},
    {"checkpoint_sqrt", NULL, MLP, .small = true, .make = make, .choice = SQRT},
    {"checkpoint_sqrt", "batch_norm", CNN, .small = true, .make = make, .choice = SQRT},
    {"checkpoint_sqrt", "group_norm", CNN, .full = true, .small = true, .make = make,
     .choice = SQRT | GROUP_NORM},
    {"checkpoint_sqrt", "stateful", GPT, .small = true, .unguarded = true, .make = make,
     .choice = SQRT | STATEFUL},
    {"checkpoint_budget", NULL, GPT, .quick = true, .make = make, .choice = BUDGET},
    {"checkpoint_budget", NULL, MLP, .small = true, .make = make, .choice = BUDGET},
    {"checkpoint_budget", "batch_norm", CNN, .full = true, .small = true, .make = make,
     .choice = BUDGET},
    {"checkpoint_budget", "group_norm", CNN, .small = true, .make = make,
     .choice = BUDGET | GROUP_NORM},
    ALL_FOUR(GPT, F16, .full = true),
    ALL_FOUR(GPT, BF16, .full = false),
    ALL_FOUR(CNN, F16, .full = false),
    ALL_FOUR(CNN, BF16, .full = true),
    PAIRS(GPT),
    PAIRS(CNN),
    {0},
};

static const struct oom_twin twins[] = {
    {"checkpoint_sqrt", "stateful", OOM_CONTROL_RNG_NOT_RESTORED, OOM_BITS_GRADS},
    {"checkpoint_sqrt", "batch_norm", OOM_CONTROL_STATISTICS_TWICE, OOM_BITS_GRADS},
    {"checkpoint_sqrt", NULL, OOM_CONTROL_BOUNDARY_CHANGED, OOM_BITS_GRADS},
    {"checkpoint_sqrt", NULL, OOM_CONTROL_SEGMENT_INPUT, OOM_BITS_GRADS},
    {0},
};

static enum oom_status list(const struct oom_run_options *options, struct oom_docket *docket) {
    return oom_situation_list("checkpointing", rows, twins, options, docket);
}

extern const char oom_lesson_checkpointing[];

const struct oom_scenario oom_scenario_checkpointing = {
    .name = "checkpointing",
    .summary = "a deep net's activations do not fit: some are kept, the rest computed again",
    .seconds = 4,
    .most_need = 1.5,
    .list = list,
    .lesson = oom_lesson_checkpointing,
};
