#include "harness/train/checkpoint-plan.h"

#include "harness/train/checkpoint-frontier.h"
#include "harness/train/checkpoint-schedule.h"

#include <inttypes.h>

static int64_t whole_need(const struct oom_checkpoint_tables *t) {
    return t->need[oom_checkpoint_at(t, 0, t->n)];
}

enum oom_status oom_checkpoint_minimum(const struct oom_checkpoint_chain *chain, uint64_t *bytes) {
    struct oom_checkpoint_tables tables;
    OOM_TRY(oom_checkpoint_chain_check(chain));
    OOM_TRY(oom_checkpoint_tables_create(chain, &tables));
    *bytes = (uint64_t)whole_need(&tables);
    oom_checkpoint_tables_free(&tables);
    return OOM_OK;
}

/* ---- the best for a budget ---- */

/* The search is quick where few plans lie below its limit, and it tells when none does: so the
 * limit starts just above the bound and moves away from it in doubling steps. */
static enum oom_status search_all(struct oom_checkpoint_search *search, int64_t *flops) {
    const struct oom_checkpoint_tables *t = search->tables;
    int64_t least = oom_checkpoint_bounds_least(search->bounds);
    int64_t most = t->work[t->n] * t->n + 1;
    *flops = -1;
    /* a bound that has a price is a close one */
    int64_t step = t->work[t->n] / (search->bounds->price > 0 ? 8192 : 128) + 1;
    for (; *flops < 0; step *= 2) {
        int64_t limit = oom_checkpoint_min(least + step, most);
        oom_checkpoint_bounds_limit(search->bounds, limit);
        OOM_TRY(oom_checkpoint_search_run(search, limit, flops));
        if (*flops < 0 && limit == most) {
            return oom_fail(OOM_INTERNAL, "checkpoint plan: none below %" PRId64 " flops", most);
        }
    }
    return OOM_OK;
}

static enum oom_status search_and_emit(const struct oom_checkpoint_tables *tables, int64_t budget,
                                       int64_t *flops, struct oom_checkpoint_schedule *out) {
    struct oom_checkpoint_bounds bounds;
    struct oom_checkpoint_search search;
    OOM_TRY(oom_checkpoint_bounds_create(tables, budget, &bounds));
    enum oom_status status = oom_checkpoint_search_create(tables, &bounds, &search);
    if (status == OOM_OK) status = search_all(&search, flops);
    if (status == OOM_OK) status = oom_checkpoint_search_emit(&search, out);
    oom_checkpoint_search_free(&search);
    oom_checkpoint_bounds_free(&bounds);
    return status;
}

/* The judge has the last word: a plan it does not find within the budget never leaves here. */
static enum oom_status judge(const struct oom_checkpoint_chain *chain, uint64_t budget,
                             int64_t flops, const struct oom_checkpoint_schedule *schedule) {
    struct oom_checkpoint_outcome outcome;
    OOM_TRY(oom_checkpoint_simulate(chain, schedule, &outcome));
    if (outcome.peak <= budget && outcome.extra_flops == (uint64_t)flops) return OOM_OK;
    return oom_fail(OOM_INTERNAL,
                    "checkpoint plan: %" PRIu64 " bytes and %" PRIu64 " flops, planned: %" PRIu64
                    " and %" PRId64,
                    outcome.peak, outcome.extra_flops, budget, flops);
}

static enum oom_status plan_within(const struct oom_checkpoint_chain *chain,
                                   const struct oom_checkpoint_tables *tables, uint64_t bytes,
                                   struct oom_checkpoint_schedule *out) {
    int64_t flops = 0, whole = tables->whole[oom_checkpoint_at(tables, 0, tables->n)];
    if (bytes < (uint64_t)whole_need(tables)) {
        return oom_fail(OOM_USAGE,
                        "checkpoints: a budget of %" PRIu64 " bytes; at least %" PRId64
                        " are needed, whatever is computed again",
                        bytes, whole_need(tables));
    }
    if (bytes >= (uint64_t)whole) {
        OOM_TRY(oom_checkpoint_append_saved(out, 0, tables->n));
    } else {
        OOM_TRY(search_and_emit(tables, (int64_t)bytes, &flops, out));
    }
    return judge(chain, bytes, flops, out);
}

enum oom_status oom_checkpoint_budget(const struct oom_checkpoint_chain *chain, uint64_t bytes,
                                      struct oom_checkpoint_schedule *out) {
    struct oom_checkpoint_tables tables;
    *out = (struct oom_checkpoint_schedule){0};
    OOM_TRY(oom_checkpoint_chain_check(chain));
    OOM_TRY(oom_checkpoint_tables_create(chain, &tables));
    enum oom_status status = plan_within(chain, &tables, bytes, out);
    if (status != OOM_OK) oom_checkpoint_schedule_free(out);
    oom_checkpoint_tables_free(&tables);
    return status;
}
