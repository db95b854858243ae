#include "harness/bench/sampler.h"

#include "harness/base/rng.h"
#include "kernels/hostmem.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct oom_sampler_options oom_sampler_options_default(void) {
    return (struct oom_sampler_options){
        .warmup = 1, .least = 10, .most = 200, .seconds = 2, .steady = 0.01, .seed = 1};
}

static double monotonic(void *context) {
    (void)context;
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* ---- statistics ---- */

double oom_quantile(const double *sorted, int n, double p) {
    double at = p * (n - 1);
    int below = (int)at;
    if (below >= n - 1) return sorted[n - 1];
    return sorted[below] + (at - below) * (sorted[below + 1] - sorted[below]);
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static enum oom_status spread_of(const double *values, const double *divisors, int n,
                                 struct oom_spread *out) {
    *out = (struct oom_spread){0};
    if (n == 0) return oom_fail(OOM_USAGE, "no samples");
    double *sorted = oom_host_alloc((size_t)n * sizeof *sorted);
    if (sorted == NULL) return oom_fail(OOM_HOST_NOMEM, "%d samples", n);
    for (int i = 0; i < n; i++) sorted[i] = divisors != NULL ? values[i] / divisors[i] : values[i];
    qsort(sorted, (size_t)n, sizeof *sorted, compare_doubles);
    *out = (struct oom_spread){.median = oom_quantile(sorted, n, 0.5),
                               .low = oom_quantile(sorted, n, 0.25),
                               .high = oom_quantile(sorted, n, 0.75),
                               .least = sorted[0],
                               .count = n};
    oom_host_free(sorted);
    return OOM_OK;
}

enum oom_status oom_samples_spread(const struct oom_samples *samples, int entry,
                                   struct oom_spread *out) {
    return spread_of(samples->seconds + (size_t)entry * (size_t)samples->rounds, NULL,
                     samples->rounds, out);
}

enum oom_status oom_samples_ratio(const struct oom_samples *samples, int numerator, int denominator,
                                  struct oom_spread *out) {
    size_t rounds = (size_t)samples->rounds;
    return spread_of(samples->seconds + (size_t)numerator * rounds,
                     samples->seconds + (size_t)denominator * rounds, samples->rounds, out);
}

void oom_samples_free(struct oom_samples *samples) {
    oom_host_free(samples->seconds);
    *samples = (struct oom_samples){0};
}

/* ---- the run ---- */

struct sampling {
    const struct oom_sampler_entry *entries;
    int count;
    struct oom_sampler_options options;
    struct oom_rng rng;
    int *order;      /* (count) */
    double *seconds; /* (count, most) */
    int rounds;
};

/* Fisher, Yates. */
static void shuffle(struct sampling *s) {
    for (int i = s->count - 1; i > 0; i--) {
        int j = (int)oom_rng_below(&s->rng, (uint32_t)i + 1);
        int kept = s->order[i];
        s->order[i] = s->order[j];
        s->order[j] = kept;
    }
}

static enum oom_status run_round(struct sampling *s, bool keep) {
    shuffle(s);
    for (int i = 0; i < s->count; i++) {
        int entry = s->order[i];
        double start = s->options.now(s->options.now_context);
        OOM_TRY(s->entries[entry].work(s->entries[entry].context));
        double took = s->options.now(s->options.now_context) - start;
        if (s->entries[entry].rest != NULL)
            OOM_TRY(s->entries[entry].rest(s->entries[entry].context));
        if (keep) s->seconds[(size_t)entry * (size_t)s->options.most + (size_t)s->rounds] = took;
    }
    if (keep) s->rounds++;
    return OOM_OK;
}

static enum oom_status is_steady(const struct sampling *s, bool *steady) {
    *steady = true;
    for (int i = 0; i < s->count && *steady; i++) {
        struct oom_spread spread;
        OOM_TRY(
            spread_of(s->seconds + (size_t)i * (size_t)s->options.most, NULL, s->rounds, &spread));
        *steady = (spread.high - spread.low) / 2 <= s->options.steady * spread.median;
    }
    return OOM_OK;
}

static enum oom_status run_rounds(struct sampling *s, bool *steady) {
    const struct oom_sampler_options *o = &s->options;
    for (int i = 0; i < o->warmup; i++) OOM_TRY(run_round(s, false));
    double start = o->now(o->now_context);
    *steady = false;
    while (s->rounds < o->most && !*steady) {
        bool late = o->now(o->now_context) - start >= o->seconds;
        if (s->rounds >= o->least && late) break;
        OOM_TRY(run_round(s, true));
        if (s->rounds >= o->least) OOM_TRY(is_steady(s, steady));
    }
    return OOM_OK;
}

static enum oom_status check(int count, const struct oom_sampler_options *o) {
    bool good = count > 0 && o->warmup >= 0 && o->least >= 1 && o->most >= o->least &&
                o->seconds >= 0 && o->steady >= 0;
    if (good) return OOM_OK;
    return oom_fail(OOM_USAGE,
                    "sampler: %d entries, rounds %d to %d: at least one of each, and the least is "
                    "no more than the most",
                    count, o->least, o->most);
}

/* Rows lie `most` apart while rounds are counted, then `rounds` apart. */
static void pack(struct sampling *s, struct oom_samples *out) {
    for (int i = 1; i < s->count; i++) {
        memmove(s->seconds + (size_t)i * (size_t)s->rounds,
                s->seconds + (size_t)i * (size_t)s->options.most,
                (size_t)s->rounds * sizeof *s->seconds);
    }
    out->entries = s->count;
    out->rounds = s->rounds;
    out->seconds = s->seconds;
}

enum oom_status oom_sampler_run(const struct oom_sampler_entry *entries, int count,
                                const struct oom_sampler_options *options,
                                struct oom_samples *out) {
    *out = (struct oom_samples){0};
    OOM_TRY(check(count, options));
    struct sampling s = {entries, count, *options, {options->seed}, NULL, NULL, 0};
    if (s.options.now == NULL) s.options.now = monotonic;
    s.order = oom_host_calloc((size_t)count, sizeof *s.order);
    s.seconds = oom_host_calloc((size_t)count * (size_t)options->most, sizeof *s.seconds);
    enum oom_status status = OOM_OK;
    if (s.order == NULL || s.seconds == NULL) {
        status = oom_fail(OOM_HOST_NOMEM, "samples of %d entries", count);
    }
    for (int i = 0; status == OOM_OK && i < count; i++) s.order[i] = i;
    if (status == OOM_OK) status = run_rounds(&s, &out->steady);
    oom_host_free(s.order);
    if (status == OOM_OK) {
        pack(&s, out);
    } else {
        oom_host_free(s.seconds);
    }
    return status;
}
