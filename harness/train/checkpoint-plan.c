#include "harness/train/checkpoint-plan.h"

#include "harness/train/checkpoint-hunt.h"
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

/* The judge has the last word: a plan it does not find within the budget never leaves here. */
static enum oom_status judge(const struct oom_checkpoint_chain *chain, uint64_t budget,
                             uint64_t flops, const struct oom_checkpoint_schedule *schedule) {
    struct oom_checkpoint_outcome outcome;
    OOM_TRY(oom_checkpoint_simulate(chain, schedule, &outcome));
    if (outcome.peak <= budget && outcome.extra_flops == flops) return OOM_OK;
    return oom_fail(OOM_INTERNAL,
                    "checkpoint plan: %" PRIu64 " bytes and %" PRIu64 " flops, planned: %" PRIu64
                    " and %" PRIu64,
                    outcome.peak, outcome.extra_flops, budget, flops);
}

/* To begin with: the best of the segments of equal length, where some are within the budget. */
static enum oom_status try_segments(const struct oom_checkpoint_chain *chain, uint64_t bytes,
                                    struct oom_checkpoint_schedule *best) {
    for (int k = 1; k <= chain->count; k++) {
        struct oom_checkpoint_schedule made;
        struct oom_checkpoint_outcome outcome;
        OOM_TRY(oom_checkpoint_segments(chain, k, &made));
        enum oom_status status = oom_checkpoint_simulate(chain, &made, &outcome);
        bool better = best->count == 0 || outcome.extra_flops < best->proof.flops;
        if (status == OOM_OK && outcome.peak <= bytes && better) {
            struct oom_checkpoint_schedule old = *best;
            *best = made;
            best->proof.flops = outcome.extra_flops;
            made = old;
        }
        oom_checkpoint_schedule_free(&made);
        OOM_TRY(status);
    }
    return OOM_OK;
}

static enum oom_status plan_within(const struct oom_checkpoint_chain *chain,
                                   const struct oom_checkpoint_tables *tables, uint64_t bytes,
                                   uint64_t work, struct oom_checkpoint_schedule *out) {
    int64_t whole = tables->whole[oom_checkpoint_at(tables, 0, tables->n)];
    if (bytes < (uint64_t)whole_need(tables)) {
        return oom_fail(OOM_USAGE,
                        "checkpoints: a budget of %" PRIu64 " bytes; at least %" PRId64
                        " are needed, whatever is computed again",
                        bytes, whole_need(tables));
    }
    if (bytes >= (uint64_t)whole) {
        out->proof.exact = true;
        OOM_TRY(oom_checkpoint_append_saved(out, 0, tables->n));
    } else {
        OOM_TRY(try_segments(chain, bytes, out));
        OOM_TRY(oom_checkpoint_hunt(tables, (int64_t)bytes, work, out));
    }
    return judge(chain, bytes, out->proof.flops, out);
}

enum oom_status oom_checkpoint_budget_within(const struct oom_checkpoint_chain *chain,
                                             uint64_t bytes, uint64_t work,
                                             struct oom_checkpoint_schedule *out) {
    struct oom_checkpoint_tables tables;
    *out = (struct oom_checkpoint_schedule){0};
    OOM_TRY(oom_checkpoint_chain_check(chain));
    OOM_TRY(oom_checkpoint_tables_create(chain, &tables));
    enum oom_status status = plan_within(chain, &tables, bytes, work, out);
    if (status != OOM_OK) oom_checkpoint_schedule_free(out);
    oom_checkpoint_tables_free(&tables);
    return status;
}

enum oom_status oom_checkpoint_budget(const struct oom_checkpoint_chain *chain, uint64_t bytes,
                                      struct oom_checkpoint_schedule *out) {
    return oom_checkpoint_budget_within(chain, bytes, OOM_CHECKPOINT_WORK, out);
}
