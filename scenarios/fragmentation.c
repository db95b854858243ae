/*
 * fragmentation.c: the request fails although more bytes than it asks for are free, because no
 * piece of them is large enough.
 *
 * First a table, made on the dry device: each generator under each cure, every cell pinned. Then
 * each mitigation for real in one generator that it cures, from the start to one step beyond the
 * failure, with gradients that must be those of a run with room to spare.
 */
#include "harness/verify/cures.h"
#include "scenarios/cure-table.h"

#include <string.h>

enum {
    SEEDS = 20,
    SMALL_STEPS = 2,
};

/* ---- for real ---- */

/* How far the run comes; its number of steps when it ends. */
static enum oom_status steps_done(const struct oom_job *job, bool *fits, int *steps) {
    struct oom_job_result result;
    OOM_TRY(oom_job_run_dry(job, &result));
    *fits = result.status == OOM_OK;
    *steps = result.steps_done;
    return OOM_OK;
}

/* Does this seed fail as it is, and end with the cure? *steps: how far it comes as it is. */
static enum oom_status is_cured(const struct oom_job *unmitigated, const struct oom_job *mitigated,
                                bool *yes, int *steps) {
    bool fits = true;
    int ignored;
    *yes = false;
    OOM_TRY(steps_done(unmitigated, &fits, steps));
    if (fits) return OOM_OK;
    return steps_done(mitigated, yes, &ignored);
}

struct pair {
    struct oom_job unmitigated, mitigated;
};

static enum oom_status make_table(struct oom_situation *s, const struct oom_row *row,
                                  struct oom_case *out) {
    return oom_cure_table_case(s, row->variant, out);
}

static enum oom_status make_pair(struct oom_situation *s, const struct oom_row *row,
                                 uint64_t capacity, uint64_t seed, int64_t size, struct pair *out) {
    const struct oom_generator *generator = oom_generator_find(row->variant);
    OOM_TRY(oom_generator_job(s, generator, capacity, seed, size, &out->unmitigated));
    OOM_TRY(oom_cure_apply(&oom_cures[OOM_CURE_DEFAULT], &out->unmitigated));
    out->mitigated = out->unmitigated;
    return oom_cure_apply(&oom_cures[row->choice], &out->mitigated);
}

/* The seed that fails first, so that the least has to be computed; the first step will do. */
static enum oom_status search_seed(struct oom_situation *s, const struct oom_row *row,
                                   uint64_t capacity, struct pair *out) {
    int best = 0;
    for (uint64_t seed = 1; seed <= SEEDS && best != 1; seed++) {
        struct pair pair;
        bool cured = false;
        int steps = 0;
        OOM_TRY(make_pair(s, row, capacity, seed, 0, &pair));
        OOM_TRY(is_cured(&pair.unmitigated, &pair.mitigated, &cured, &steps));
        if (!cured || (best > 0 && steps + 1 >= best)) continue;
        best = steps + 1;
        *out = pair;
    }
    if (best == 0) {
        return oom_fail(OOM_USAGE,
                        "fragmentation/%s: at %llu bytes no seed up to %d fails in generator %s "
                        "without it and ends with it",
                        row->mitigation, (unsigned long long)capacity, SEEDS, row->variant);
    }
    out->unmitigated.steps = out->mitigated.steps = best + 1;
    return OOM_OK;
}

static enum oom_status take_pinned(struct oom_situation *s, const struct oom_row *row,
                                   struct pair *out) {
    const struct oom_pinned *pin = oom_pinned_find(row->variant);
    bool cured = false;
    int steps = 0;
    OOM_TRY(make_pair(s, row, OOM_PINNED_CAPACITY, pin->real_seed, pin->size, out));
    OOM_TRY(is_cured(&out->unmitigated, &out->mitigated, &cured, &steps));
    if (!cured) return oom_fail(OOM_INTERNAL, "fragmentation/%s: its pinned seed", row->variant);
    out->unmitigated.steps = out->mitigated.steps = steps + 2;
    return OOM_OK;
}

/* At the capacity asked for. Some cures hold in a narrow band of sizes only (a threshold that frees
 * just the one segment that lacks): where no seed falls into it, the pinned situation is shown, at
 * its own, smaller capacity, which the report names. */
static enum oom_status search(struct oom_situation *s, const struct oom_row *row,
                              struct pair *out) {
    uint64_t capacity = s->options->capacity;
    if (capacity <= OOM_PINNED_CAPACITY) return take_pinned(s, row, out);
    enum oom_status status = search_seed(s, row, capacity, out);
    if (status != OOM_USAGE) return status;
    oom_failure_clear();
    return take_pinned(s, row, out);
}

/* Guards and controls run at --quick size. There the tail of a segment is the one generator that
 * fails: the others' loops run, and need not. Pages come and go at each step. */
static enum oom_status make_small(struct oom_situation *s, const struct oom_row *row,
                                  struct pair *out) {
    struct oom_row small = *row;
    if (strcmp(row->variant, "tail") == 0) {
        small.variant = "small tail";
        OOM_TRY(search_seed(s, &small, s->options->capacity, out));
    } else {
        OOM_TRY(make_pair(s, row, s->options->capacity, 1, 0, out));
    }
    out->unmitigated.steps = out->mitigated.steps = SMALL_STEPS;
    out->mitigated.loop.release_each_step = true;
    return OOM_OK;
}

static enum oom_status make_real(struct oom_situation *s, const struct oom_row *row,
                                 struct oom_case *out) {
    struct pair pair;
    OOM_TRY(s->options->quick ? make_small(s, row, &pair) : search(s, row, &pair));
    oom_situation_case(out, &pair.mitigated, &pair.unmitigated, 0);
    out->bounded = false; /* against the same loop with room to spare, bit for bit */
    out->reference = OOM_REFERENCE_DEFAULTS;
    out->fragmented = true;
    return OOM_OK;
}

/* The failed step is dropped, the cache released, the step repeated: a release before the step,
 * made too late only by one attempt. Released while the tensors are held it changes nothing: the
 * allocator has just done it. */
static enum oom_status make_repeat(struct oom_situation *s, const struct oom_row *row,
                                   struct oom_case *out) {
    struct oom_row lengths = *row;
    lengths.variant = "lengths";
    lengths.choice = OOM_CURE_RELEASE;
    OOM_TRY(make_real(s, &lengths, out));
    out->mitigated.loop.release_each_step = false;
    out->mitigated.rule = out->unmitigated.rule = OOM_RULE_REPEAT;
    out->unmitigated.recovery = OOM_RECOVERY_EMPTIED;
    out->fragmented = false; /* it fails twice: replay tells of the first */
    return OOM_OK;
}

/* ---- the tables ---- */

#define GPT OOM_MODEL_GPT
#define MLP OOM_MODEL_MLP

static const struct oom_row rows[] = {
    {"cures", "tail", MLP, .quick = true, .table = true, .make = make_table},
    {"cures", "scores", GPT, .quick = true, .table = true, .make = make_table},
    {"cures", "survivors", MLP, .quick = true, .table = true, .make = make_table},
    {"cures", "lengths", GPT, .quick = true, .table = true, .make = make_table},
    {"cures", "evaluation", GPT, .quick = true, .table = true, .make = make_table},
    {"cures", "powers", GPT, .quick = true, .table = true, .make = make_table},
    {"cures", "classes", GPT, .quick = true, .table = true, .make = make_table},
    {"cures", "checkpointed", GPT, .quick = true, .table = true, .make = make_table},
    {"cures", "even", GPT, .quick = true, .table = true, .make = make_table},
    {"cures", "items", MLP, .quick = true, .table = true, .make = make_table},
    {"expandable_segments", "tail", MLP, .make = make_real, .choice = OOM_CURE_EXPANDABLE},
    {"max_split_size", "scores", GPT, .make = make_real, .choice = OOM_CURE_MAX_SPLIT},
    {"max_split_size", "checkpointed", GPT, .make = make_real, .choice = OOM_CURE_MAX_SPLIT_TENTH},
    {"cache_release", "lengths", GPT, .make = make_real, .choice = OOM_CURE_RELEASE},
    {"cache_release", "repeat", GPT, .make = make_repeat, .choice = OOM_CURE_DEFAULT},
    {"roundup", "even", GPT, .make = make_real, .choice = OOM_CURE_ROUNDUP_2},
    {"gc_threshold", "even", GPT, .make = make_real, .choice = OOM_CURE_GC_60},
    {0},
};

static const struct oom_twin twins[] = {
    {"expandable_segments", "tail", OOM_CONTROL_UNMAPPED_LIVE, OOM_BITS_FITS | OOM_BITS_DATA},
    {"expandable_segments", "tail", OOM_CONTROL_PAGE_TWICE,
     OOM_BITS_FITS | OOM_BITS_GRADS | OOM_BITS_DATA},
    {"expandable_segments", "tail", OOM_CONTROL_BLOCK_TWICE, OOM_BITS_GRADS},
    {0},
};

static enum oom_status list(const struct oom_run_options *options, struct oom_docket *docket) {
    return oom_situation_list("fragmentation", rows, twins, options, docket);
}

extern const char oom_lesson_fragmentation[];

const struct oom_scenario oom_scenario_fragmentation = {
    .name = "fragmentation",
    .summary = "the request fails although more bytes than it asks for are free",
    .seconds = 14,
    .most_need = 1.5,
    .least_capacity = OOM_PINNED_CAPACITY,
    .list = list,
    .lesson = oom_lesson_fragmentation,
};
