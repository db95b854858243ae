/*
 * large-batch.c: a batch of 64 needs six times the memory there is. Three ways out: choose the
 * batch before running, halve it after each OOM, or keep it and cut it into micro-batches.
 */
#include "scenarios/situation.h"

enum { BATCH = 64 };

static double need_of(const struct oom_situation *s) {
    return s->options->quick ? 1.5 : 6.0;
}

static enum oom_status sized_model(struct oom_situation *s, const struct oom_row *row,
                                   struct oom_model_spec *spec) {
    OOM_TRY(oom_situation_model(s, row->model, BATCH, need_of(s), spec));
    if (row->dropout > 0) spec->dropout = row->dropout;
    return OOM_OK;
}

/* ---- dynamic sizing: a neighbour holds a quarter of the device, so free is not total ---- */

static enum oom_status make_sizing(struct oom_situation *s, const struct oom_row *row,
                                   struct oom_case *out) {
    struct oom_model_spec spec;
    OOM_TRY(sized_model(s, row, &spec));
    struct oom_job unmitigated = oom_situation_job(s, &spec, BATCH, 2);
    unmitigated.foreign = unmitigated.capacity / 4 / OOM_PAGE * OOM_PAGE;
    struct oom_job mitigated = unmitigated;
    mitigated.rule = (enum oom_rule)row->choice;
    oom_situation_case(out, &mitigated, &unmitigated, need_of(s));
    out->without_oom = out->at_the_edge = mitigated.rule == OOM_RULE_PLANNED;
    out->rates = true;
    return OOM_OK;
}

/* ---- halving, of the batch or of the micro-batch ---- */

static enum oom_status make_halving(struct oom_situation *s, const struct oom_row *row,
                                    struct oom_case *out) {
    struct oom_model_spec spec;
    OOM_TRY(sized_model(s, row, &spec));
    int steps = row->choice == OOM_RULE_X09 ? 1 : 2; /* x09 has failures enough in one */
    struct oom_job unmitigated = oom_situation_job(s, &spec, BATCH, steps);
    struct oom_job mitigated = unmitigated;
    mitigated.rule = (enum oom_rule)row->choice;
    if (row->wanted != NULL) OOM_TRY(oom_situation_place(&mitigated, row->wanted, row->variant));
    unmitigated.capacity = mitigated.capacity;
    unmitigated.samples = unmitigated.most = mitigated.most;
    oom_situation_case(out, &mitigated, &unmitigated, row->wanted != NULL ? 1.0 : need_of(s));
    out->rates = row->wanted == NULL;
    return OOM_OK;
}

/* The whole-batch reference at need 6 is the most expensive run of the suite: one step of it. */
static enum oom_status make_accumulation(struct oom_situation *s, const struct oom_row *row,
                                         struct oom_case *out) {
    struct oom_model_spec spec;
    OOM_TRY(sized_model(s, row, &spec));
    bool placed = row->wanted != NULL;
    struct oom_job unmitigated = oom_situation_job(s, &spec, BATCH, placed ? 2 : 1);
    struct oom_job mitigated = unmitigated;
    mitigated.rule = OOM_RULE_HALVING;
    mitigated.micro = true;
    if (placed) {
        mitigated.most = BATCH / 2;
        OOM_TRY(oom_situation_place(&mitigated, row->wanted, row->variant));
        unmitigated.capacity = mitigated.capacity;
    }
    oom_situation_case(out, &mitigated, &unmitigated, placed ? 1.0 : need_of(s));
    out->reference = OOM_REFERENCE_WHOLE;
    return OOM_OK;
}

/* States outweigh activations here (wide layers, few rows), so that the optimizer's first step is
 * where the memory ends. What a smaller batch then frees is a segment: the step's inputs, alive
 * until it is over, pin one that smaller inputs share with others. Where that line runs depends on
 * the segment sizes, so several shapes are tried. */
static const struct {
    int64_t width, layers, rows;
} heavy_shapes[] = {{320, 3, 4}, {384, 3, 4}, {320, 5, 12}, {384, 5, 4}};

static enum oom_status make_heavy(struct oom_situation *s, const struct oom_row *row,
                                  struct oom_case *out) {
    enum oom_status status = OOM_OK;
    struct oom_job mitigated;
    for (size_t i = 0; i < sizeof heavy_shapes / sizeof heavy_shapes[0]; i++) {
        struct oom_model_spec spec = oom_model_spec_default(OOM_MODEL_MLP);
        spec.width = heavy_shapes[i].width;
        spec.layers = heavy_shapes[i].layers;
        spec.rows = heavy_shapes[i].rows;
        spec.batch = BATCH;
        mitigated = oom_situation_job(s, &spec, BATCH, 2);
        mitigated.rule = OOM_RULE_HALVING;
        mitigated.micro = row->choice != 0;
        oom_failure_clear();
        status = oom_situation_place(&mitigated, row->wanted, "large_batch/oom_in_optimizer");
        if (status == OOM_OK) break;
    }
    OOM_TRY(status);
    struct oom_job unmitigated = mitigated;
    unmitigated.rule = OOM_RULE_FIXED;
    unmitigated.micro = false;
    unmitigated.most = unmitigated.samples;
    oom_situation_case(out, &mitigated, &unmitigated, 1.0);
    if (mitigated.micro) out->reference = OOM_REFERENCE_WHOLE;
    return OOM_OK;
}

/* ---- the tables ---- */

#define GPT OOM_MODEL_GPT
#define MLP OOM_MODEL_MLP

static const struct oom_row rows[] = {
    {"dynamic_sizing", "planned", GPT, .quick = true, .make = make_sizing,
     .choice = OOM_RULE_PLANNED},
    {"dynamic_sizing", "two_point_085", GPT, .make = make_sizing, .choice = OOM_RULE_TWO_POINT_085},
    {"dynamic_sizing", "seed_085", GPT, .make = make_sizing, .choice = OOM_RULE_SEED_085},
    {"dynamic_sizing", "planned", MLP, .make = make_sizing, .choice = OOM_RULE_PLANNED},
    {"dynamic_sizing", "two_point_085", MLP, .make = make_sizing, .choice = OOM_RULE_TWO_POINT_085},
    {"dynamic_sizing", "seed_085", MLP, .make = make_sizing, .choice = OOM_RULE_SEED_085},
    {"halving", NULL, GPT, .quick = true, .make = make_halving, .choice = OOM_RULE_HALVING},
    {"halving", NULL, MLP, .make = make_halving, .choice = OOM_RULE_HALVING},
    {"halving", "x09", GPT, .make = make_halving, .choice = OOM_RULE_X09},
    {"halving", "x09", MLP, .make = make_halving, .choice = OOM_RULE_X09},
    {"halving", "dropout", GPT, .small = true, .make = make_halving, .choice = OOM_RULE_HALVING,
     .dropout = 0.125},
    {"halving", "oom_in_backward", GPT, .small = true, .make = make_halving,
     .choice = OOM_RULE_HALVING, .wanted = oom_place_backward},
    {"halving", "oom_in_optimizer", MLP, .small = true, .make = make_heavy, .choice = 0,
     .wanted = oom_place_optimizer},
    {"accumulation", NULL, GPT, .quick = true, .make = make_accumulation},
    {"accumulation", "oom_in_backward", GPT, .small = true, .make = make_accumulation,
     .wanted = oom_place_backward},
    {"accumulation", "oom_in_later_micro_batch", GPT, .small = true, .make = make_accumulation,
     .wanted = oom_place_later_micro_batch},
    {"accumulation", "oom_in_optimizer", MLP, .small = true, .make = make_heavy, .choice = 1,
     .wanted = oom_place_optimizer},
    {0},
};

static const struct oom_twin twins[] = {
    {"dynamic_sizing", "planned", OOM_CONTROL_TOTAL_NOT_FREE, OOM_BITS_FITS},
    {"dynamic_sizing", "planned", OOM_CONTROL_SIZE_NOT_RUN, OOM_BITS_FITS},
    {"halving", NULL, OOM_CONTROL_REFERENCES_HELD, OOM_BITS_FITS | OOM_BITS_STATE},
    {"halving", NULL, OOM_CONTROL_TENSOR_LEAKED, OOM_BITS_STATE},
    {"halving", NULL, OOM_CONTROL_FREED_TOO_EARLY, OOM_BITS_GRADS},
    {"halving", "dropout", OOM_CONTROL_RNG_ADVANCED, OOM_BITS_GRADS | OOM_BITS_STATE},
    {"halving", "oom_in_backward", OOM_CONTROL_RETRY_KEEPS_GRADS, OOM_BITS_GRADS | OOM_BITS_STATE},
    {"halving", "oom_in_optimizer", OOM_CONTROL_STEP_COUNTED, OOM_BITS_GRADS | OOM_BITS_STATE},
    {"halving", "oom_in_optimizer", OOM_CONTROL_OPTIMIZER_PARTIAL,
     OOM_BITS_GRADS | OOM_BITS_DATA | OOM_BITS_STATE},
    {"accumulation", "oom_in_later_micro_batch", OOM_CONTROL_RETRY_KEEPS_GRADS,
     OOM_BITS_GRADS | OOM_BITS_STATE},
    {0},
};

static enum oom_status list(const struct oom_run_options *options, struct oom_docket *docket) {
    return oom_situation_list("large_batch", rows, twins, options, docket);
}

extern const char oom_lesson_large_batch[];

const struct oom_scenario oom_scenario_large_batch = {
    .name = "large_batch",
    .summary = "a batch needs six times the memory there is: size it, halve it, or accumulate",
    .seconds = 12,
    .most_need = 6,
    .list = list,
    .lesson = oom_lesson_large_batch,
};
