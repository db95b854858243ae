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
#define DROPOUT 0.125

static struct oom_model_spec with_dropout(struct oom_model_spec spec) {
    spec.dropout = DROPOUT;
    return spec;
}

/* ---- checkpointing alone ---- */

enum {
    SQRT = 1 << 0,
    BUDGET = 1 << 1,
    GROUP_NORM = 1 << 2,
    STATEFUL = 1 << 3, /* random numbers as PyTorch has them: running, not keyed */
    /* combined */
    MICRO_BATCHES = 1 << 4,
    EXPANDABLE = 1 << 5,
    F16 = 1 << 6,
    BF16 = 1 << 7,
};

static void apply_checkpointing(int choice, struct oom_trainer_options *out) {
    if (choice & SQRT) out->checkpointing = OOM_CHECKPOINTING_SQRT;
    if (choice & BUDGET) out->checkpointing = OOM_CHECKPOINTING_BUDGET; /* 0: what fits */
}

static enum oom_status make(struct oom_situation *s, const struct oom_row *row,
                            struct oom_case *out) {
    struct oom_model_spec spec;
    OOM_TRY(oom_situation_model(s, row->model, BATCH, NEED, &spec));
    spec = with_dropout(spec);
    if (row->choice & GROUP_NORM) spec.norm = OOM_IMAGE_NORM_GROUP;
    struct oom_job unmitigated = oom_situation_job(s, &spec, BATCH, 2);
    if (row->choice & STATEFUL) unmitigated.trainer.rng = OOM_RNG_STATEFUL;
    struct oom_job mitigated = unmitigated;
    apply_checkpointing(row->choice, &mitigated.trainer);
    oom_situation_case(out, &mitigated, &unmitigated, NEED);
    out->reference = OOM_REFERENCE_WHOLE;
    out->without_oom = true;
    /* the truth goes through the samples one by one, with the masks of their identities */
    out->bounded = !(row->choice & STATEFUL);
    return OOM_OK;
}

/* ---- together with others ---- */

/* The bits are those of one: the same precision, the whole batch, nothing computed again, the
 * allocator as it is. */
static enum oom_status make_combined(struct oom_situation *s, const struct oom_row *row,
                                     struct oom_case *out) {
    struct oom_model_spec spec;
    int choice = row->choice;
    double need = choice & (SQRT | BUDGET | MICRO_BATCHES) ? NEED : NEED_AMP;
    OOM_TRY(oom_situation_model(s, row->model, BATCH, need, &spec));
    spec = with_dropout(spec);
    spec.norm = row->model == OOM_MODEL_CNN ? OOM_IMAGE_NORM_GROUP : spec.norm;
    struct oom_job unmitigated = oom_situation_job(s, &spec, BATCH, 2), mitigated = unmitigated;
    apply_checkpointing(choice, &mitigated.trainer);
    if (choice & F16) mitigated.trainer.amp = OOM_AMP_F16;
    if (choice & BF16) mitigated.trainer.amp = OOM_AMP_BF16;
    mitigated.micro = choice & MICRO_BATCHES;
    if (choice & MICRO_BATCHES) mitigated.most = MICRO;
    if (choice & EXPANDABLE) mitigated.settings.expandable_segments = true;
    oom_situation_case(out, &mitigated, &unmitigated, need);
    out->reference = OOM_REFERENCE_WHOLE;
    out->bounded = false;
    out->without_oom = true;
    return OOM_OK;
}

/* ---- the tables ---- */

#define GPT OOM_MODEL_GPT
#define MLP OOM_MODEL_MLP
#define CNN OOM_MODEL_CNN
#define COMBINED(model, name, set) \
    {"combined", name, model, .small = true, .make = make_combined, .choice = (set)}
/* Every pair, and all four. */
#define COMBINATIONS(model) \
    COMBINED(model, "amp+checkpointing", F16 | SQRT), \
    COMBINED(model, "amp+checkpointing", BF16 | SQRT), \
    COMBINED(model, "amp+accumulation", F16 | MICRO_BATCHES), \
    COMBINED(model, "amp+accumulation", BF16 | MICRO_BATCHES), \
    COMBINED(model, "amp+expandable", F16 | EXPANDABLE), \
    COMBINED(model, "amp+expandable", BF16 | EXPANDABLE), \
    COMBINED(model, "accumulation+checkpointing", MICRO_BATCHES | SQRT), \
    COMBINED(model, "accumulation+expandable", MICRO_BATCHES | EXPANDABLE), \
    COMBINED(model, "checkpointing+expandable", SQRT | EXPANDABLE), \
    COMBINED(model, "amp+accumulation+checkpointing+expandable", \
             F16 | MICRO_BATCHES | BUDGET | EXPANDABLE), \
    COMBINED(model, "amp+accumulation+checkpointing+expandable", \
             BF16 | MICRO_BATCHES | BUDGET | EXPANDABLE)

static const struct oom_row rows[] = {
    {"checkpoint_sqrt", NULL, GPT, .quick = true, .make = make, .choice = SQRT},
    {"checkpoint_sqrt", NULL, MLP, .make = make, .choice = SQRT},
    {"checkpoint_sqrt", "batch_norm", CNN, .small = true, .make = make, .choice = SQRT},
    {"checkpoint_sqrt", "group_norm", CNN, .small = true, .make = make, .choice = SQRT | GROUP_NORM},
    {"checkpoint_sqrt", "stateful", GPT, .small = true, .make = make, .choice = SQRT | STATEFUL},
    {"checkpoint_budget", NULL, GPT, .quick = true, .make = make, .choice = BUDGET},
    {"checkpoint_budget", NULL, MLP, .make = make, .choice = BUDGET},
    {"checkpoint_budget", "batch_norm", CNN, .small = true, .make = make, .choice = BUDGET},
    {"checkpoint_budget", "group_norm", CNN, .small = true, .make = make,
     .choice = BUDGET | GROUP_NORM},
    COMBINATIONS(GPT),
    COMBINATIONS(CNN),
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
