#include "harness/bench/sampler.h"

#include "kernels/hostmem.h"
#include "kernels/testing.h"

#include <math.h>
#include <string.h>

void sampler_test(void);

/* A clock that stands still but for what the work says it takes. */
struct fake {
    double now;
    int calls, rests;
    char order[256];
};

struct item {
    struct fake *clock;
    double takes;
    double grows; /* more with every call */
    char letter;
    int fail_at;
};

static double fake_now(void *context) {
    return ((struct fake *)context)->now;
}

static enum oom_status work(void *context) {
    struct item *item = context;
    struct fake *clock = item->clock;
    if (clock->calls < 255) clock->order[clock->calls] = item->letter;
    clock->calls++;
    if (item->fail_at == clock->calls) return oom_fail(OOM_IO, "asked to fail");
    clock->now += item->takes;
    item->takes += item->grows;
    return OOM_OK;
}

static enum oom_status rest(void *context) {
    struct fake *clock = ((struct item *)context)->clock;
    clock->rests++;
    clock->now += 100;
    return OOM_OK;
}

static struct oom_sampler_options options_with(struct fake *clock) {
    struct oom_sampler_options options = oom_sampler_options_default();
    options.now = fake_now;
    options.now_context = clock;
    return options;
}

static void test_quantiles(void) {
    TEST("sampler: quantiles of known values");
    const double values[] = {1, 2, 3, 4};
    CHECK(oom_quantile(values, 4, 0) == 1 && oom_quantile(values, 4, 1) == 4);
    CHECK(oom_quantile(values, 4, 0.5) == 2.5);
    CHECK(oom_quantile(values, 4, 0.25) == 1.75); /* type 7: 1 + 0.25 * 3 steps */
    CHECK(oom_quantile(values, 1, 0.5) == 1);
}

static void test_steady(void) {
    TEST("sampler: constant work stops at the least rounds; ratios are exact; order is shuffled");
    struct fake clock = {0};
    struct item a = {&clock, 0.25, 0, 'a', 0}, b = {&clock, 0.5, 0, 'b', 0};
    struct oom_sampler_entry entries[] = {{"a", &a, work, rest}, {"b", &b, work, NULL}};
    struct oom_sampler_options options = options_with(&clock);
    options.seconds = 10000;
    struct oom_samples samples;
    CHECK_OK(oom_sampler_run(entries, 2, &options, &samples));
    CHECK(samples.steady);
    CHECK_EQ(samples.rounds, 10);
    CHECK_EQ(clock.calls, 22); /* one round of warm-up */
    CHECK_EQ(clock.rests, 11); /* whose time is in no sample */
    struct oom_spread spread, ratio;
    CHECK_OK(oom_samples_spread(&samples, 1, &spread));
    CHECK(spread.median == 0.5 && spread.low == 0.5 && spread.high == 0.5);
    CHECK_OK(oom_samples_ratio(&samples, 1, 0, &ratio));
    CHECK(ratio.median == 2 && ratio.count == 10);
    CHECK(strstr(clock.order, "abba") != NULL || strstr(clock.order, "baab") != NULL);
    oom_samples_free(&samples);
}

static void test_limits(void) {
    TEST("sampler: restless work goes on to the most rounds, or to the time limit, all kept");
    struct fake clock = {0};
    struct item a = {&clock, 1, 1, 'a', 0};
    struct oom_sampler_entry entry = {"a", &a, work, NULL};
    struct oom_sampler_options options = options_with(&clock);
    options.warmup = 0;
    options.most = 15;
    options.seconds = 1e9;
    struct oom_samples samples;
    CHECK_OK(oom_sampler_run(&entry, 1, &options, &samples));
    CHECK(!samples.steady);
    CHECK_EQ(samples.rounds, 15);
    for (int i = 0; i < 15; i++) CHECK(samples.seconds[i] == i + 1);
    oom_samples_free(&samples);

    struct item c = {&clock, 1, 1, 'c', 0};
    struct oom_sampler_entry other = {"c", &c, work, NULL};
    options.seconds = 70; /* 1 + 2 + ... + 12 = 78: no round begins after it */
    CHECK_OK(oom_sampler_run(&other, 1, &options, &samples));
    CHECK_EQ(samples.rounds, 12);
    oom_samples_free(&samples);
}

static void test_failures(void) {
    TEST("sampler: a failing entry, options out of range, no host memory: a status, nothing kept");
    struct fake clock = {0};
    struct item a = {&clock, 1, 0, 'a', 5};
    struct oom_sampler_entry entry = {"a", &a, work, NULL};
    struct oom_sampler_options options = options_with(&clock);
    struct oom_samples samples;
    uint64_t before = oom_host_bytes_current();
    CHECK(oom_sampler_run(&entry, 1, &options, &samples) == OOM_IO);
    CHECK(samples.seconds == NULL);
    options.most = 3;
    CHECK(oom_sampler_run(&entry, 1, &options, &samples) == OOM_USAGE);
    options.most = 30;
    for (uint64_t k = 1; k <= 2; k++) {
        oom_host_fail_at(k);
        CHECK(oom_sampler_run(&entry, 1, &options, &samples) == OOM_HOST_NOMEM);
        oom_failure_clear();
    }
    oom_host_fail_at(0);
    CHECK_EQ(oom_host_bytes_current(), before);
}

void sampler_test(void) {
    test_quantiles();
    test_steady();
    test_limits();
    test_failures();
}
