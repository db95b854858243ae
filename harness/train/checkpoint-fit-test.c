/*
 * checkpoint-fit-test.c: the budget found is the largest whose steps come to their end; a larger
 * one of another schedule does not; a budget that cannot be is refused with the least that can.
 */
#include "harness/train/checkpoint-fit.h"
#include "harness/train/checkpoint.h"
#include "kernels/testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void checkpoint_fit_test(void);

static struct oom_plan_request request_of(const char *model, uint64_t capacity) {
    struct oom_plan_request request = {.trainer = {.seed = 1, .optimizer = OOM_OPTIMIZER_ADAMW},
                                       .settings = oom_allocator_settings_default(),
                                       .capacity = capacity,
                                       .steps = OOM_PLAN_STEPS};
    CHECK_OK(oom_model_spec_parse(model, &request.trainer.spec));
    request.samples = request.size = request.trainer.spec.batch;
    return request;
}

static struct oom_plan plan_with(struct oom_plan_request request, uint64_t budget) {
    struct oom_plan plan = {0};
    request.trainer.checkpointing = OOM_CHECKPOINTING_BUDGET;
    request.trainer.checkpoint_budget = budget;
    CHECK_OK(oom_plan_run(&request, &plan));
    return plan;
}

static const char deep[] = "gpt,layers=12,width=32,heads=4,context=64,batch=32,dropout=0.125";

static void test_largest(void) {
    static const uint64_t neighbours[] = {1 << 20, 100};
    struct oom_plan_request request = request_of(deep, 40 << 20);
    struct oom_checkpoint_fit fit;
    TEST("checkpoint-fit: the largest budget whose steps fit, of all there is");
    request.neighbours = neighbours;
    request.neighbour_count = 2;
    request.foreign = 3 << 20;
    CHECK_OK(oom_checkpoint_fit(&request, &fit));
    /* foreign bytes in pages of 2 MiB, neighbours in 512 */
    CHECK_EQ(fit.available, (40u << 20) - (4u << 20) - (1u << 20) - 512);
    CHECK(fit.budget <= fit.available && fit.share >= fit.live_share);
    CHECK(fit.unproven == 0); /* the best schedule, and known to be */
    struct oom_plan found = plan_with(request, fit.budget);
    CHECK(found.fits);
    CHECK(found.peak_allocated <= fit.budget + (1 << 20) + 512);
    int other = 0; /* schedules above it, each of which fails */
    for (uint64_t budget = fit.available; budget > fit.budget; budget -= 1 << 14) {
        struct oom_plan plan = plan_with(request, budget);
        if (plan.fits) CHECK_EQ(plan.recomputed, found.recomputed); /* the same schedule */
        other += !plan.fits;
        if (budget < (1 << 14)) break;
    }
    CHECK(fit.passed == 0 || other > 0);
}

static void test_all_fits(void) {
    struct oom_plan_request request = request_of(deep, UINT64_C(1) << 30);
    struct oom_checkpoint_fit fit;
    TEST("checkpoint-fit: where everything fits nothing is computed again");
    CHECK_OK(oom_checkpoint_fit(&request, &fit));
    CHECK_EQ(fit.passed, 0);
    CHECK_EQ(fit.budget, fit.available);
    CHECK(fit.share == 0 && fit.live_share == 0);
    CHECK_EQ(plan_with(request, fit.budget).recomputed, 0);
}

/* Reserved bytes of expandable segments are closer to the live ones: less is lost to them. */
static void test_settings(void) {
    struct oom_plan_request request =
        request_of("gpt,layers=16,width=32,heads=4,context=256,batch=32,dropout=0.125", 192 << 20);
    struct oom_checkpoint_fit plain, expandable;
    TEST("checkpoint-fit: the allocator's settings decide how much of the capacity is of use");
    CHECK_OK(oom_checkpoint_fit(&request, &plain));
    request.settings.expandable_segments = true;
    CHECK_OK(oom_checkpoint_fit(&request, &expandable));
    CHECK(expandable.budget > plain.budget && expandable.share <= plain.share);
    CHECK(expandable.live_share == plain.live_share);
}

static void test_accumulating(void) {
    struct oom_plan_request request = request_of(deep, 24 << 20);
    struct oom_checkpoint_fit fit;
    TEST("checkpoint-fit: later micro-batches have gradients to hold beside");
    request.micro = true;
    request.size = 16;
    CHECK_OK(oom_checkpoint_fit(&request, &fit));
    CHECK(plan_with(request, fit.budget).fits);
}

/* The number before " bytes" at the end of the message. */
static uint64_t stated(const char *message) {
    const char *end = strstr(message, " bytes");
    if (end == NULL) return 0;
    while (end > message && end[-1] >= '0' && end[-1] <= '9') end--;
    return strtoull(end, NULL, 10);
}

static void test_too_small(void) {
    struct oom_plan_request request = request_of(deep, UINT64_C(1) << 40);
    struct oom_checkpoint_chain chain;
    struct oom_checkpoint_fit fit;
    struct oom_plan plan;
    uint64_t least = 0;
    TEST("checkpoint-fit: a budget below the least is refused, which is stated");
    CHECK_OK(oom_checkpoint_describe(&request.trainer, OOM_F32, request.size, false, &chain));
    CHECK_OK(oom_checkpoint_minimum(&chain, &least));
    oom_checkpoint_chain_free(&chain);
    request.trainer.checkpointing = OOM_CHECKPOINTING_BUDGET;
    request.trainer.checkpoint_budget = least - 1;
    CHECK_EQ(oom_plan_run(&request, &plan), OOM_USAGE);
    char digits[24];
    snprintf(digits, sizeof digits, "%llu", (unsigned long long)least);
    CHECK(strstr(oom_failure_last()->message, digits) != NULL);
    oom_failure_clear();
    CHECK(plan_with(request, least).fits);
    request.capacity = 4 << 20;
    CHECK_EQ(oom_checkpoint_fit(&request, &fit), OOM_USAGE);
    CHECK_EQ(stated(oom_failure_last()->message), least);
    oom_failure_clear();
}

void checkpoint_fit_test(void) {
    test_largest();
    test_all_fits();
    test_settings();
    test_accumulating();
    test_too_small();
}
