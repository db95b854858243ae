/*
 * measure.c: one row: as many units per sample as make a sample long enough for the clock, then
 * ours and its peers in turn, round after round.
 */
#include "harness/bench/bench.h"

#include "kernels/hostmem.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static const double SAMPLE = 2e-3, QUICK_SAMPLE = 2e-4; /* seconds, at least */
static const uint64_t TIMES_MAX = (uint64_t)1 << 30;

enum { ROUNDS_LEAST = 10, ROUNDS_MOST = 100, QUICK_LEAST = 3, QUICK_MOST = 5 };

/* One subject that is there, as the sampler sees it. */
struct turn {
    struct oom_bench_subject *subject;
    uint64_t times;
};

struct measurement {
    const struct oom_bench_row *row;
    bool cpu_time;
    struct oom_bench_subjects subjects;
    struct turn turns[OOM_BENCH_SUBJECTS_MAX];
    int subject_of[OOM_BENCH_SUBJECTS_MAX], there; /* those that are not missing */
};

static double clock_seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

bool oom_bench_cpu_time(const struct oom_bench_row *row,
                        const struct oom_bench_settings *settings) {
    return !row->threaded || settings->threads == 1;
}

static double row_clock(void *context) {
    bool cpu_time = *(const bool *)context;
    return clock_seconds(cpu_time ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC);
}

static enum oom_status work(void *context) {
    struct turn *turn = context;
    return turn->subject->work(turn->subject->context, turn->times);
}

static enum oom_status rest(void *context) {
    struct turn *turn = context;
    if (turn->subject->rest == NULL) return OOM_OK;
    return turn->subject->rest(turn->subject->context);
}

/* Doubles the units until one sample is long enough. */
static enum oom_status calibrate(struct turn *turn, bool cpu_time, double least) {
    turn->times = 1;
    for (;;) {
        double start = row_clock(&cpu_time);
        OOM_TRY(work(turn));
        double took = row_clock(&cpu_time) - start;
        OOM_TRY(rest(turn));
        if (took >= least || turn->times >= TIMES_MAX) return OOM_OK;
        turn->times *= took > 0 && took < least / 16 ? 8 : 2;
    }
}

static struct oom_sampler_options options_of(struct measurement *m,
                                             const struct oom_bench_settings *settings) {
    struct oom_sampler_options options = oom_sampler_options_default();
    options.least = settings->quick ? QUICK_LEAST : ROUNDS_LEAST;
    options.most = settings->quick ? QUICK_MOST : ROUNDS_MOST;
    options.seconds = settings->seconds > 0 ? settings->seconds : settings->quick ? 0.02 : 0.5;
    options.seed = settings->seed;
    options.now = row_clock;
    options.now_context = &m->cpu_time;
    return options;
}

static enum oom_status sample(struct measurement *m, const struct oom_bench_settings *settings,
                              struct oom_samples *out) {
    struct oom_sampler_entry entries[OOM_BENCH_SUBJECTS_MAX];
    m->there = 0;
    for (int i = 0; i < m->subjects.count; i++) {
        struct oom_bench_subject *subject = &m->subjects.items[i];
        if (subject->missing[0] != 0) continue;
        struct turn *turn = &m->turns[m->there];
        turn->subject = subject;
        OOM_TRY(calibrate(turn, m->cpu_time, settings->quick ? QUICK_SAMPLE : SAMPLE));
        entries[m->there] = (struct oom_sampler_entry){
            .name = subject->name, .context = turn, .work = work, .rest = rest};
        m->subject_of[m->there++] = i;
    }
    struct oom_sampler_options options = options_of(m, settings);
    return oom_sampler_run(entries, m->there, &options, out);
}

/* Seconds per sample into nanoseconds per unit. */
static struct oom_spread scaled(struct oom_spread spread, double factor) {
    spread.median *= factor;
    spread.low *= factor;
    spread.high *= factor;
    spread.least *= factor;
    return spread;
}

static enum oom_status figures_make(const struct measurement *m, struct oom_bench_result *out) {
    out->figure_count = m->subjects.count;
    for (int i = 0; i < m->subjects.count; i++) {
        const struct oom_bench_subject *subject = &m->subjects.items[i];
        if (i > 0) snprintf(out->figures[i].name, sizeof out->figures[i].name, "%s", subject->name);
        memcpy(out->figures[i].missing, subject->missing, sizeof subject->missing);
    }
    for (int k = 0; k < m->there; k++) {
        struct oom_bench_figure *figure = &out->figures[m->subject_of[k]];
        double times = (double)m->turns[k].times;
        out->times[m->subject_of[k]] = m->turns[k].times;
        OOM_TRY(oom_samples_spread(&out->samples, k, &figure->nanoseconds));
        figure->nanoseconds = scaled(figure->nanoseconds, 1e9 / times);
        if (m->subject_of[k] == 0) continue;
        OOM_TRY(oom_samples_ratio(&out->samples, k, 0, &figure->ratio));
        figure->ratio = scaled(figure->ratio, (double)m->turns[0].times / times);
    }
    return OOM_OK;
}

static enum oom_status measure(struct measurement *m, const struct oom_bench_settings *settings,
                               struct oom_bench_result *out) {
    OOM_TRY(m->row->open(m->row, settings, &m->subjects));
    enum oom_status status = sample(m, settings, &out->samples);
    if (status == OOM_OK) status = figures_make(m, out);
    for (int i = 0; i < m->subjects.count; i++) {
        struct oom_bench_subject *subject = &m->subjects.items[i];
        if (subject->close != NULL) subject->close(subject->context);
    }
    return status;
}

void oom_bench_measure(const struct oom_bench_row *row, const struct oom_bench_settings *settings,
                       struct oom_bench_result *out) {
    struct measurement m = {.row = row, .cpu_time = oom_bench_cpu_time(row, settings)};
    struct oom_bench_gbench kept = out->gbench;
    *out = (struct oom_bench_result){.row = row, .cpu_time = m.cpu_time, .gbench = kept};
    oom_failure_clear();
    out->status = measure(&m, settings, out);
    if (out->status == OOM_OK) return;
    const struct oom_failure *failure = oom_failure_last();
    snprintf(out->reason, sizeof out->reason, "%.150s",
             failure->status != OOM_OK ? failure->message : oom_status_text(out->status));
    oom_samples_free(&out->samples);
    out->figure_count = 0;
    oom_failure_clear();
}

void oom_bench_result_free(struct oom_bench_result *result) {
    oom_samples_free(&result->samples);
}
