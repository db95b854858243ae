/*
 * sampler.h: measures several things side by side, fairly: in rounds, each round in a new seeded
 * order, so that a clock that drifts or a machine that is disturbed touches all of them alike.
 * Every sample is kept; what is reported are medians and quartiles, and ratios between entries of
 * the same run: never an absolute time in a test.
 *
 * The caller owns the entries and, after a run, the samples (oom_samples_free). Failure: what an
 * entry returned, OOM_HOST_NOMEM, OOM_USAGE for options out of range.
 */
#ifndef OOM_HARNESS_BENCH_SAMPLER_H
#define OOM_HARNESS_BENCH_SAMPLER_H

#include "kernels/status.h"

#include <stdbool.h>
#include <stdint.h>

struct oom_sampler_entry {
    const char *name;
    void *context;
    /* Does the work once; only the time of this call is taken. */
    enum oom_status (*work)(void *context);
    enum oom_status (*rest)(void *context); /* after each, not timed; NULL: nothing */
};

struct oom_sampler_options {
    int warmup;      /* rounds that are not kept */
    int least, most; /* rounds that are; at least `least`, at most `most` */
    double seconds;  /* after `least` rounds no new one begins later than this */
    double steady;   /* stop when every entry's half interquartile range / median is below */
    uint64_t seed;   /* of the order within a round */
    double (*now)(void *context); /* NULL: the monotonic clock, seconds */
    void *now_context;
};

struct oom_sampler_options oom_sampler_options_default(void);

/* seconds[entry * rounds + round] */
struct oom_samples {
    int entries, rounds;
    double *seconds;
    bool steady; /* stopped because it was; else at `most` or the time limit */
};

enum oom_status oom_sampler_run(const struct oom_sampler_entry *entries, int count,
                                const struct oom_sampler_options *options, struct oom_samples *out);
void oom_samples_free(struct oom_samples *samples);

/* Of one entry, or of a ratio between two: by round, numerator / denominator. */
struct oom_spread {
    double median, low, high, least; /* low, high: quartiles */
    int count;
};
enum oom_status oom_samples_spread(const struct oom_samples *samples, int entry,
                                   struct oom_spread *out);
enum oom_status oom_samples_ratio(const struct oom_samples *samples, int numerator, int denominator,
                                  struct oom_spread *out);

/* Quantile p in [0, 1] of sorted values, linear between neighbours (Hyndman, Fan 1996, type 7). */
double oom_quantile(const double *sorted, int n, double p);

#endif
