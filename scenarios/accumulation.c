/*
 * accumulation.c: the effective batch of 128 does not fit, a smaller one would change training.
 * The window is cut into micro-batches of 32 whose gradients add up to the same bits; with batch
 * norm, whose statistics are those of what it sees at once, they cannot, and one row shows by how
 * much.
 */
#include "scenarios/situation.h"

enum { BATCH = 128, MICRO = 32 };

/* What a row varies. */
enum variant {
    EQUAL,
    ZEROED,     /* gradients kept and filled with zeros, not freed */
    UNEVEN,     /* micro-batches of 32, 16, 8, 32 ... */
    PARTIAL,    /* the last window has 80 samples: two and a half micro-batches */
    TOKENS,     /* samples of different lengths: rows past the end weigh nothing */
    TIED,       /* the head is the embedding table: two chains into one gradient, class bounded */
    GROUP_NORM, /* of each image by itself: the cut changes nothing */
    BATCH_NORM, /* over the micro-batch: another function, another gradient */
};

/* --model's keys win; then a row may have lost what it is about. */
static enum oom_status check_norm(const struct oom_row *row, const struct oom_model_spec *spec) {
    bool batch = spec->kind == OOM_MODEL_CNN && spec->norm == OOM_IMAGE_NORM_BATCH;
    if (batch == (row->choice == BATCH_NORM)) return OOM_OK;
    return oom_fail(OOM_USAGE, "accumulation/%s: with this model the norm is norm=%s", row->variant,
                    batch ? "batch" : "group");
}

static enum oom_status make(struct oom_situation *s, const struct oom_row *row,
                            struct oom_case *out) {
    struct oom_model_spec spec, shape = oom_situation_shape(s, row->model);
    if (row->choice == GROUP_NORM) shape.norm = OOM_IMAGE_NORM_GROUP;
    OOM_TRY(oom_situation_model_of(s, &shape, BATCH, 1.5, &spec));
    OOM_TRY(check_norm(row, &spec));
    spec.dropout = row->dropout > 0 ? row->dropout : spec.dropout;
    spec.tied = row->choice == TIED ? 1 : spec.tied;
    struct oom_job unmitigated = oom_situation_job(s, &spec, BATCH, 2);
    if (row->choice == ZEROED) unmitigated.trainer.gradients = OOM_GRADIENTS_ZEROED;
    if (row->choice == PARTIAL) unmitigated.last_samples = BATCH * 5 / 8;
    unmitigated.token_weights = row->choice == TOKENS;
    struct oom_job mitigated = unmitigated;
    mitigated.micro = true;
    mitigated.most = MICRO;
    mitigated.uneven = row->choice == UNEVEN;
    oom_situation_case(out, &mitigated, &unmitigated, 1.5);
    out->reference = OOM_REFERENCE_WHOLE;
    out->bitwise = row->choice != TIED && row->unequal == NULL;
    out->bounded = row->unequal == NULL;
    return OOM_OK;
}

#define GPT OOM_MODEL_GPT
#define MLP OOM_MODEL_MLP
#define CNN OOM_MODEL_CNN

static const struct oom_row rows[] = {
    {"accumulation", NULL, GPT, .quick = true, .make = make, .choice = EQUAL},
    {"accumulation", NULL, MLP, .make = make, .choice = EQUAL},
    {"accumulation", "zeroed", GPT, .make = make, .choice = ZEROED},
    {"accumulation", "uneven", GPT, .make = make, .choice = UNEVEN},
    {"accumulation", "uneven", MLP, .make = make, .choice = UNEVEN},
    {"accumulation", "partial_window", GPT, .make = make, .choice = PARTIAL},
    {"accumulation", "partial_window", MLP, .make = make, .choice = PARTIAL},
    {"accumulation", "token_weights", GPT, .make = make, .choice = TOKENS},
    {"accumulation", "dropout", GPT, .make = make, .choice = EQUAL, .dropout = 0.125},
    {"accumulation", "dropout", MLP, .make = make, .choice = EQUAL, .dropout = 0.125},
    {"accumulation", "tied", GPT, .make = make, .choice = TIED},
    {"accumulation", "group_norm", CNN, .small = true, .make = make, .choice = GROUP_NORM},
    {"accumulation", "batch_norm", CNN, .small = true, .make = make, .choice = BATCH_NORM,
     .unequal = "statistics of 32 images are not those of 128"},
    {0},
};

static const struct oom_twin twins[] = {
    {"accumulation", NULL, OOM_CONTROL_LOSS_NOT_DIVIDED, OOM_BITS_GRADS},
    {"accumulation", NULL, OOM_CONTROL_GRADS_CLEARED, OOM_BITS_GRADS},
    {"accumulation", "uneven", OOM_CONTROL_MEAN_OF_MEANS, OOM_BITS_GRADS},
    {"accumulation", "partial_window", OOM_CONTROL_LAST_WINDOW_DROPPED, OOM_BITS_GRADS},
    {"accumulation", "partial_window", OOM_CONTROL_FULL_DIVISOR, OOM_BITS_GRADS},
    {"accumulation", "token_weights", OOM_CONTROL_TOKENS_IGNORED, OOM_BITS_GRADS},
    {"accumulation", NULL, OOM_CONTROL_SAMPLE_DROPPED, OOM_BITS_GRADS},
    {"accumulation", NULL, OOM_CONTROL_SAMPLE_TWICE, OOM_BITS_GRADS},
    {"accumulation", "dropout", OOM_CONTROL_DROPOUT_BY_PLACE, OOM_BITS_GRADS},
    {"accumulation", NULL, OOM_CONTROL_LOSS_LAST_ONLY, OOM_BITS_GRADS},
    {"accumulation", NULL, OOM_CONTROL_BIAS_OVERWRITTEN, OOM_BITS_GRADS},
    {0},
};

static enum oom_status list(const struct oom_run_options *options, struct oom_docket *docket) {
    return oom_situation_list("accumulation", rows, twins, options, docket);
}

extern const char oom_lesson_accumulation[];

const struct oom_scenario oom_scenario_accumulation = {
    .name = "accumulation",
    .summary = "the effective batch does not fit: micro-batches that add up to the same bits",
    .seconds = 9,
    .most_need = 1.5,
    .list = list,
    .lesson = oom_lesson_accumulation,
};
