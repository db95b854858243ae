#include "harness/train/checkpoint-fit.h"

#include "harness/base/sizes.h"
#include "harness/train/checkpoint.h"

enum { CHAINS = 2 }; /* of a window's first micro-batch, of the others */

struct search {
    struct oom_plan_request request;
    struct oom_checkpoint_chain chain[CHAINS];
    int chains;
};

/* ---- what a budget comes to ---- */

struct schedules {
    uint64_t peak; /* live bytes of the higher one: budgets from there up are the same schedules */
    double share;  /* of the later micro-batches, of which there are more */
    double unproven; /* of that: what a better schedule might save */
};

static enum oom_status outcome_of(const struct oom_checkpoint_chain *chain, uint64_t budget,
                                  struct oom_checkpoint_outcome *out,
                                  struct oom_checkpoint_proof *proof) {
    struct oom_checkpoint_schedule schedule = {0};
    OOM_TRY(oom_checkpoint_budget(chain, budget, &schedule));
    enum oom_status status = oom_checkpoint_simulate(chain, &schedule, out);
    *proof = schedule.proof;
    oom_checkpoint_schedule_free(&schedule);
    return status;
}

static enum oom_status schedules_of(const struct search *s, uint64_t budget,
                                    struct schedules *out) {
    *out = (struct schedules){0};
    for (int i = 0; i < s->chains; i++) {
        struct oom_checkpoint_outcome outcome;
        struct oom_checkpoint_proof proof;
        double once = 0;
        OOM_TRY(outcome_of(&s->chain[i], budget, &outcome, &proof));
        for (int k = 0; k < s->chain[i].count; k++) {
            once += (double)s->chain[i].stages[k].forward_flops;
        }
        if (outcome.peak > out->peak) out->peak = outcome.peak;
        out->share = once > 0 ? (double)outcome.extra_flops / once : 0;
        out->unproven = once > 0 ? (double)(proof.flops - proof.least) / once : 0;
    }
    return OOM_OK;
}

static enum oom_status least_budget(const struct search *s, uint64_t *out) {
    *out = 0;
    for (int i = 0; i < s->chains; i++) {
        uint64_t least = 0;
        OOM_TRY(oom_checkpoint_minimum(&s->chain[i], &least));
        if (least > *out) *out = least;
    }
    return OOM_OK;
}

/* ---- the search ---- */

static uint64_t rounded(uint64_t bytes, uint64_t unit) {
    return (bytes + unit - 1) / unit * unit;
}

static uint64_t available(const struct oom_plan_request *r) {
    uint64_t taken = rounded(r->foreign, OOM_PAGE);
    for (int i = 0; i < r->neighbour_count; i++) taken += rounded(r->neighbours[i], OOM_GRANULE);
    return r->capacity > taken ? r->capacity - taken : 0;
}

static enum oom_status describe(struct search *s) {
    const struct oom_plan_request *r = &s->request;
    bool several = r->micro && r->samples > r->size;
    bool there = r->trainer.gradients == OOM_GRADIENTS_ZEROED;
    for (int i = 0; i < (several && !there ? 2 : 1); i++) {
        OOM_TRY(
            oom_checkpoint_describe(&r->trainer, OOM_F32, r->size, there || i > 0, &s->chain[i]));
        s->chains++;
    }
    return OOM_OK;
}

static enum oom_status nothing_fits(const struct search *s, uint64_t least) {
    char capacity[16];
    return oom_fail(
        OOM_USAGE, "checkpointing: nothing fits %s, down to the least budget of %llu bytes",
        oom_size_format(s->request.capacity, capacity, sizeof capacity), (unsigned long long)least);
}

/* Schedule by schedule: each next budget is the largest that forbids the one before. */
static enum oom_status search(struct search *s, struct oom_checkpoint_fit *out) {
    uint64_t least;
    OOM_TRY(least_budget(s, &least));
    for (uint64_t budget = out->available; budget >= least; out->passed++) {
        struct schedules made;
        struct oom_plan plan;
        OOM_TRY(schedules_of(s, budget, &made));
        if (out->passed == 0) out->live_share = made.share;
        s->request.trainer.checkpoint_budget = budget;
        OOM_TRY(oom_plan_run(&s->request, &plan));
        if (plan.fits) {
            out->budget = budget;
            out->share = made.share;
            out->unproven = made.unproven;
            return OOM_OK;
        }
        budget = made.peak - 1;
    }
    return nothing_fits(s, least);
}

enum oom_status oom_checkpoint_fit(const struct oom_plan_request *request,
                                   struct oom_checkpoint_fit *out) {
    struct search s = {.request = *request};
    *out = (struct oom_checkpoint_fit){.available = available(request)};
    s.request.trainer.checkpointing = OOM_CHECKPOINTING_BUDGET;
    enum oom_status status = describe(&s);
    if (status == OOM_OK) status = search(&s, out);
    for (int i = 0; i < s.chains; i++) oom_checkpoint_chain_free(&s.chain[i]);
    return status;
}
