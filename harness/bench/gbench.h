/*
 * gbench.h: Google Benchmark, from C. It is the project's one C++ dependency and optional: where it
 * was not found at build time everything here says OOM_ABSENT, and our own sampler measures alone.
 *
 * The caller owns entries and results. Work is opened when its turn comes and closed after it.
 */
#ifndef OOM_HARNESS_BENCH_GBENCH_H
#define OOM_HARNESS_BENCH_GBENCH_H

#include "kernels/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The callbacks record no failure; `reason` (size n) gets it. */
struct oom_gbench_entry {
    const char *name;
    void *context;
    bool cpu_time; /* stop by CPU time; else by the wall's */
    bool (*open)(void *context, char *reason, size_t n);
    bool (*work)(void *context, uint64_t times, char *reason, size_t n); /* `times` units */
    void (*close)(void *context);
};

struct oom_gbench_result {
    bool measured;
    char error[160]; /* of a row that was skipped; "": none */
    double nanoseconds, cpu_nanoseconds;
    uint64_t iterations;
    double allocations, bytes; /* host memory: times per iteration, peak; < 0: not known */
};

bool oom_gbench_present(void);
/* Why it is not; "" where it is. */
const char *oom_gbench_note(void);

/* Reads --benchmark_* flags. One it does not know, or a value it does not, is OOM_USAGE.
 * `reports`: it prints by itself, on standard output (a format or a list was asked for). */
enum oom_status oom_gbench_flags(int argc, const char *const *argv, bool *reports);
/* Runs all entries, as the flags say. An entry that fails is a result with its error: Google
 * Benchmark itself would end as if nothing had been. */
enum oom_status oom_gbench_run(const struct oom_gbench_entry *entries, int count, bool reports,
                               struct oom_gbench_result *results);

#endif
