/* Failures put into a run on purpose: how they are asked for, how often chance makes them, and what
 * a training run comes to whichever of its allocations fails. */
#include "harness/verify/injection.h"

#include "harness/verify/job-testing.h"

#include <math.h>

void injection_test(void);

static void asked_for(void) {
    static const struct {
        const char *text;
        bool every;
        uint64_t at;
        double share;
    } good[] = {{"1", false, 1, 0},
                {"37", false, 37, 0},
                {"every", true, 0, 0},
                {"p=0.25", false, 0, 0.25},
                {"p=1", false, 0, 1}};
    static const char *const bad[] = {"",
                                      "0",
                                      "-1",
                                      "x",
                                      "37x",
                                      "EVERY",
                                      "every ",
                                      "p",
                                      "p=",
                                      "p=0",
                                      "p=2",
                                      "p=x",
                                      "p=-1",
                                      "p=nan",
                                      "1.5",
                                      "0.1",
                                      " 1",
                                      "p =.5",
                                      "18446744073709551616"};
    TEST("injection: what can be asked for");
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct oom_injection injection;
        CHECK_OK(oom_injection_parse(good[i].text, &injection));
        CHECK_EQ(injection.every, good[i].every);
        CHECK_EQ(injection.at, good[i].at);
        CHECK(injection.share == good[i].share);
        CHECK(oom_injection_on(&injection));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct oom_injection injection = {.at = 7};
        CHECK_MSG(oom_injection_parse(bad[i], &injection) == OOM_USAGE, "'%s' was taken", bad[i]);
        CHECK(injection.at == 7 && !injection.every && !(injection.share > 0));
    }
    struct oom_injection none = {0};
    CHECK(!oom_injection_on(&none));
    oom_failure_clear();
}

/* ---- chance ---- */

enum { CALLS = 20000 };

/* Which calls fail: the numbers, first to last. */
static int failures(double share, uint64_t seed, uint16_t *at) {
    struct oom_device_options options = {.capacity = 1 << 30};
    struct oom_device *device = NULL;
    struct oom_allocator *allocator = NULL;
    struct oom_injection injection = {.share = share};
    struct oom_injector injector;
    int count = 0;
    CHECK_OK(oom_dry_open(&options, &device));
    CHECK_OK(oom_allocator_create(device, NULL, &allocator));
    oom_injector_begin(&injector, &injection, seed, allocator);
    for (int i = 0; i < CALLS; i++) {
        oom_devptr ptr;
        enum oom_status status =
            oom_allocator_alloc(allocator, 512, NULL, OOM_TAG_OTHER, "x", &ptr);
        if (status == OOM_OK) {
            CHECK_OK(oom_allocator_free(allocator, ptr));
            continue;
        }
        CHECK_EQ(status, OOM_NOMEM);
        at[count++] = (uint16_t)i;
        oom_failure_clear();
        oom_injector_again(&injector, allocator);
    }
    oom_injector_end(&injector, allocator);
    oom_allocator_destroy(allocator);
    oom_device_close(device);
    return count;
}

/* Gaps between failures are geometric: mean 1/p, and a share p of them is 1. */
static void chance(void) {
    static const double shares[] = {0.5, 0.05, 0.01};
    static uint16_t first[CALLS], again[CALLS];
    TEST("injection: each call fails with the probability asked for, the same ones by the same "
         "seed");
    for (int i = 0; i < 3; i++) {
        double p = shares[i];
        int count = failures(p, 5, first), same = failures(p, 5, again), ones = 0;
        double sigma = sqrt(CALLS * p * (1 - p));
        CHECK_MSG(fabs(count - CALLS * p) <= 5 * sigma, "p %g: %d of %d", p, count, CALLS);
        for (int k = 1; k < count; k++) ones += first[k] - first[k - 1] == 1;
        CHECK_MSG(fabs(ones - count * p) <= 5 * sqrt(count * p) + 1, "p %g: %d of %d", p, ones,
                  count);
        CHECK(same == count && memcmp(first, again, (size_t)count * sizeof *first) == 0);
        int other = failures(p, 6, again);
        CHECK(other != count || memcmp(first, again, (size_t)count * sizeof *first) != 0);
    }
    CHECK_EQ(failures(1, 5, first), CALLS);
}

/* ---- a training run ---- */

static struct oom_job_result *run(struct oom_job *job, uint64_t at) {
    struct oom_job_result *result = oom_host_alloc(sizeof *result);
    CHECK(result != NULL);
    job->injection = (struct oom_injection){.at = at};
    CHECK_OK(oom_job_run(job, result));
    oom_failure_clear();
    return result;
}

static void came_down(const struct oom_job_result *r, uint64_t at) {
    bool clean = r->torn_down && r->left_allocated == 0 && r->left_reserved == 0;
    CHECK_MSG(clean, "call %d: %d bytes allocated, %d reserved are left", (int)at,
              (int)r->left_allocated, (int)r->left_reserved);
    CHECK_MSG(r->restored_bad == 0, "call %d: %s", (int)at, r->restored_why);
    CHECK_EQ(r->canary_bad, 0);
    CHECK_EQ(r->parameter_bad, 0);
    CHECK(r->canary_checks > 0);
}

/* Whichever call fails, a run of fixed size ends there, says which, and leaves nothing behind. */
static void without_retry(const char *folder) {
    struct oom_job job = small_job("mlp,layers=2,width=16", 8, folder);
    TEST("injection: each call in turn ends a run of fixed size, and nothing is left behind");
    struct oom_job_result *whole = run(&job, 0);
    uint64_t calls = whole->step_calls;
    CHECK_EQ(whole->status, OOM_OK);
    CHECK(calls > 20);
    for (uint64_t at = 1; at <= calls; at++) {
        struct oom_job_result *r = run(&job, at);
        CHECK_EQ(r->status, OOM_NOMEM);
        CHECK(r->oom.valid && r->oom.injected);
        CHECK_EQ(r->step_calls, at);
        CHECK_EQ(r->restored_checks, 1);
        came_down(r, at);
        oom_host_free(r);
    }
    struct oom_job_result *beyond = run(&job, calls + 1);
    CHECK_EQ(beyond->status, OOM_OK);
    for (int step = 0; step < job.steps; step++) {
        CHECK_EQ(beyond->steps[step].gradients, whole->steps[step].gradients);
    }
    oom_host_free(beyond);
    oom_host_free(whole);
}

/* Whichever call fails, halving comes through, with the bits of a run that began at its sizes. */
static void with_retry(const char *folder) {
    struct oom_job job = small_job("mlp,layers=2,width=16", 8, folder), fresh = job;
    TEST("injection: each call in turn is survived by halving, with the bits of a fresh run at its "
         "sizes");
    job.rule = OOM_RULE_HALVING;
    struct oom_job_result *whole = run(&job, 0);
    for (uint64_t at = 1; at <= whole->step_calls; at++) {
        struct oom_job_result *r = run(&job, at);
        CHECK_EQ(r->status, OOM_OK);
        CHECK_EQ(r->steps_done, job.steps);
        CHECK_EQ(r->restored_checks, 1);
        CHECK_EQ(r->steps[job.steps - 1].size, 4);
        came_down(r, at);
        for (int step = 0; step < job.steps; step++) fresh.sizes[step] = r->steps[step].size;
        struct oom_job_result *same = run(&fresh, 0);
        for (int step = 0; step < job.steps; step++) {
            CHECK_MSG(same->steps[step].gradients == r->steps[step].gradients &&
                          same->steps[step].loss == r->steps[step].loss,
                      "call %d: step %d differs", (int)at, step);
        }
        oom_host_free(same);
        oom_host_free(r);
    }
    oom_host_free(whole);
}

/* By chance: down to one sample and beyond, it ends well or cleanly. */
static void by_chance(const char *folder) {
    struct oom_job job = small_job("mlp,layers=2,width=16", 8, folder);
    int recovered = 0, ended = 0;
    TEST("injection: by chance, a run comes through or ends cleanly");
    job.rule = OOM_RULE_HALVING;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct oom_job_result *r = oom_host_alloc(sizeof *r);
        CHECK(r != NULL);
        job.trainer.seed = seed;
        job.injection = (struct oom_injection){.share = 0.04};
        CHECK_OK(oom_job_run(&job, r));
        oom_failure_clear();
        CHECK(r->status == OOM_OK || (r->status == OOM_NOMEM && r->oom.injected));
        CHECK(r->status == OOM_OK || r->attempts[r->attempt_count - 1].size == 1);
        recovered += r->status == OOM_OK && r->restored_checks > 0;
        ended += r->status == OOM_NOMEM;
        came_down(r, seed);
        oom_host_free(r);
    }
    CHECK_MSG(recovered >= 3 && ended >= 3, "%d recovered, %d ended", recovered, ended);
}

void injection_test(void) {
    char folder[64];
    asked_for();
    chance();
    folder_make(folder, sizeof folder);
    without_retry(folder);
    with_retry(folder);
    by_chance(folder);
    folder_remove(folder);
}
