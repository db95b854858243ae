/* Google Benchmark behind its C header; where it is not there, that it says so. */
#include "harness/bench/gbench.h"

#include "kernels/hostmem.h"
#include "kernels/testing.h"

#include <stdio.h>
#include <string.h>

void gbench_test(void);

struct probe {
    int opened, closed;
    uint64_t units;
    bool broken, absent;
};

static bool open_probe(void *context, char *reason, size_t n) {
    struct probe *probe = context;
    if (probe->absent) {
        snprintf(reason, n, "not here");
        return false;
    }
    probe->opened++;
    return true;
}

static bool work(void *context, uint64_t times, char *reason, size_t n) {
    struct probe *probe = context;
    if (probe->broken) {
        snprintf(reason, n, "asked to fail");
        return false;
    }
    for (uint64_t i = 0; i < times; i++) {
        void *block = oom_host_alloc(1000);
        if (block == NULL) return false;
        oom_host_free(block);
    }
    probe->units += times;
    return true;
}

static void close_probe(void *context) {
    ((struct probe *)context)->closed++;
}

static bool refused(const char *flag) {
    bool reports;
    bool yes = oom_gbench_flags(1, &flag, &reports) == OOM_USAGE &&
               strstr(oom_failure_last()->message, flag) != NULL;
    oom_failure_clear();
    return yes;
}

static void test_flags(void) {
    TEST(
        "gbench: flags it knows are taken, others and wrong values refused, none ends the program");
    static const char *const good[] = {"--benchmark_min_time=0.001", "--benchmark_filter="},
                             *const format[] = {"--benchmark_format=json"},
                             *const out[] = {"--benchmark_out=/proc/none/x"};
    bool reports = true;
    CHECK_OK(oom_gbench_flags(2, good, &reports));
    CHECK(!reports);
    CHECK_OK(oom_gbench_flags(1, format, &reports));
    CHECK(reports);
    CHECK(refused("--benchmark_mintime=1"));
    CHECK(refused("--benchmark_format=xml"));
    CHECK(refused("--benchmark_out_format=xml"));
    CHECK(oom_gbench_flags(1, out, &reports) == OOM_IO);
    oom_failure_clear();
}

static void test_run(void) {
    TEST("gbench: what is measured, what failed and what is not there are told apart");
    static const char *const filter[] = {"--benchmark_filter=^[^c]"}, *const none[] = {
                                                                          "--benchmark_filter=zzz"};
    struct probe probes[4] = {{0}, {.broken = true}, {0}, {.absent = true}};
    struct oom_gbench_entry entries[4];
    struct oom_gbench_result found[4];
    static const char *const names[] = {"a/good", "b/broken", "c/left", "d/absent"};
    bool reports;
    for (int i = 0; i < 4; i++) {
        entries[i] =
            (struct oom_gbench_entry){names[i], &probes[i], i == 0, open_probe, work, close_probe};
    }
    CHECK_OK(oom_gbench_flags(1, filter, &reports));
    CHECK_OK(oom_gbench_run(entries, 4, false, found));
    CHECK(found[0].measured && found[0].nanoseconds > 0 && found[0].iterations > 0);
    CHECK(found[0].iterations <= probes[0].units);
    CHECK_STR(found[0].error, "");
    CHECK(found[0].allocations == 1); /* of host memory, per unit */
    CHECK(found[0].bytes == 1000);
    CHECK(!found[1].measured);
    CHECK_STR(found[1].error, "asked to fail");
    CHECK(!found[2].measured && found[2].error[0] == 0 && probes[2].opened == 0);
    CHECK_STR(found[3].error, "not here");
    for (int i = 0; i < 4; i++) CHECK_EQ(probes[i].opened, probes[i].closed);
    CHECK_EQ(probes[0].opened, 1); /* however often it was called */

    CHECK_OK(oom_gbench_flags(1, none, &reports));
    CHECK(oom_gbench_run(entries, 4, false, found) == OOM_NOTHING);
    oom_failure_clear();
}

static void test_absent(void) {
    TEST("gbench: not there, which it says");
    static const char *const flag[] = {"--benchmark_format=json"};
    bool reports;
    CHECK(oom_gbench_note()[0] != 0);
    CHECK_OK(oom_gbench_flags(0, NULL, &reports));
    CHECK(oom_gbench_flags(1, flag, &reports) == OOM_ABSENT);
    oom_failure_clear();
    CHECK(oom_gbench_run(NULL, 0, false, NULL) == OOM_ABSENT);
    oom_failure_clear();
}

void gbench_test(void) {
    if (!oom_gbench_present()) {
        test_absent();
        return;
    }
    test_flags();
    test_run();
}
