/*
 * stale-cache.c: after an out-of-memory the memory seems gone. It is not: a reference still holds
 * the failed step's tensors, or the allocator's cache holds segments of shapes nobody wants now.
 */
#include "scenarios/cure-table.h"

enum { BATCH = 64 };

/* ---- held: the failed step's tensors are still referenced when a small batch is tried ---- */

static enum oom_status make_held(struct oom_situation *s, const struct oom_row *row,
                                 struct oom_case *out) {
    struct oom_model_spec spec;
    OOM_TRY(oom_situation_model(s, row->model, BATCH, 1.5, &spec));
    struct oom_job mitigated = oom_situation_job(s, &spec, BATCH, 2);
    mitigated.rule = OOM_RULE_RETRY;
    mitigated.retry = BATCH / 4;
    struct oom_job unmitigated = mitigated;
    unmitigated.recovery = OOM_RECOVERY_HELD;
    oom_situation_case(out, &mitigated, &unmitigated, 0);
    return OOM_OK;
}

/* ---- foreign: cached blocks starve a consumer outside the allocator ---- */

static enum oom_status make_foreign(struct oom_situation *s, const struct oom_row *row,
                                    struct oom_case *out) {
    struct oom_model_spec spec;
    OOM_TRY(oom_situation_model(s, row->model, BATCH, 0.65, &spec));
    struct oom_job unmitigated = oom_situation_job(s, &spec, BATCH, 2);
    unmitigated.foreign_between = unmitigated.capacity / 2 / OOM_PAGE * OOM_PAGE;
    struct oom_job mitigated = unmitigated;
    mitigated.release_between = true;
    oom_situation_case(out, &mitigated, &unmitigated, 0);
    return OOM_OK;
}

/* ---- near the limit: the largest batch that fits a fresh process, after a failed larger one ----
 */

static enum oom_status completes(const struct oom_job *job, bool *yes) {
    struct oom_job_result result;
    OOM_TRY(oom_job_run_dry(job, &result));
    *yes = result.status == OOM_OK && result.steps_done == job->steps;
    return OOM_OK;
}

static enum oom_status fits_fresh(void *context, int64_t size, bool *fits) {
    struct oom_job job = *(const struct oom_job *)context;
    job.rule = OOM_RULE_FIXED;
    job.most = size;
    return completes(&job, fits);
}

/* Is this capacity one at which dropping alone does not do, and releasing does? */
static enum oom_status starves(struct oom_job *mitigated, struct oom_job *unmitigated, bool *yes) {
    bool with = false, without = true;
    *yes = false;
    OOM_TRY(oom_largest_fit(mitigated, fits_fresh, BATCH - 1, &mitigated->retry));
    if (mitigated->retry == 0) return OOM_OK;
    *unmitigated = *mitigated;
    unmitigated->recovery = OOM_RECOVERY_DROPPED;
    OOM_TRY(completes(mitigated, &with));
    OOM_TRY(completes(unmitigated, &without));
    *yes = with && !without;
    return OOM_OK;
}

/* Few layers with long samples: at a batch of 64 their tensors are above 10 MiB and get segments
 * to measure, at the batch that fits they are below and cut those segments up. */
static enum oom_status make_near_limit(struct oom_situation *s, const struct oom_row *row,
                                       struct oom_case *out) {
    struct oom_model_spec spec = oom_model_spec_default(row->model);
    spec.batch = BATCH;
    spec.width = 64;
    if (row->model == OOM_MODEL_GPT) {
        spec.context = 256;
    } else {
        spec.rows = 1024;
    }
    OOM_TRY(oom_situation_depth(s, BATCH, 3.0, &spec));
    struct oom_job mitigated = oom_situation_job(s, &spec, BATCH, 2), unmitigated;
    mitigated.rule = OOM_RULE_RETRY;
    uint64_t least = mitigated.capacity / 2;
    for (bool found = false; mitigated.capacity >= least; mitigated.capacity -= OOM_PAGE) {
        OOM_TRY(starves(&mitigated, &unmitigated, &found));
        if (!found) continue;
        oom_situation_case(out, &mitigated, &unmitigated, 0);
        return OOM_OK;
    }
    return oom_fail(OOM_USAGE, "stale_cache/near_limit: with this model a retry without a release "
                               "succeeds at every capacity");
}

/* ---- foreign, under every cure: no setting helps a consumer outside the allocator ---- */

static enum oom_status make_visitor(struct oom_situation *s, const struct oom_row *row,
                                    struct oom_case *out) {
    (void)row;
    return oom_cure_table_case(s, "visitor", out);
}

/* ---- the tables ---- */

#define GPT OOM_MODEL_GPT
#define MLP OOM_MODEL_MLP

static const struct oom_row rows[] = {
    {"cache_release", "held", GPT, .quick = true, .make = make_held},
    {"cache_release", "held", MLP, .make = make_held},
    {"cache_release", "foreign", GPT, .quick = true, .make = make_foreign},
    {"cache_release", "foreign", MLP, .make = make_foreign},
    {"cures", "foreign", GPT, .quick = true, .table = true, .make = make_visitor},
    {"cache_release", "near_limit", GPT, .quick = true, .make = make_near_limit},
    {"cache_release", "near_limit", MLP, .make = make_near_limit},
    {0},
};

static const struct oom_twin twins[] = {
    {"cache_release", "held", OOM_CONTROL_REFERENCES_HELD, OOM_BITS_FITS | OOM_BITS_STATE},
    {"cache_release", "held", OOM_CONTROL_TENSOR_LEAKED, OOM_BITS_STATE},
    {"cache_release", "near_limit", OOM_CONTROL_NO_RELEASE, OOM_BITS_FITS},
    {0},
};

static enum oom_status list(const struct oom_run_options *options, struct oom_docket *docket) {
    return oom_situation_list("stale_cache", rows, twins, options, docket);
}

extern const char oom_lesson_stale_cache[];

const struct oom_scenario oom_scenario_stale_cache = {
    .name = "stale_cache",
    .summary = "after an OOM the memory seems gone: drop references, release the cache, retry",
    .seconds = 4,
    .most_need = 3,
    .list = list,
    .lesson = oom_lesson_stale_cache,
};
