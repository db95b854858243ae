/*
 * bench.h: what is measured: families of rows, each row a piece of work of ours and, where there is
 * somebody to compare with, the same work done by peers, interleaved in one process.
 *
 * A family makes its rows when it is listed and opens one only when it is measured; what open()
 * gave is closed by the subjects' close(). A list owns its rows, results own nothing. Failure: a
 * row that cannot be measured here is OOM_ABSENT with the reason and costs only itself.
 */
#ifndef OOM_HARNESS_BENCH_BENCH_H
#define OOM_HARNESS_BENCH_BENCH_H

#include "harness/bench/sampler.h"
#include "kernels/device.h"

#include <stdio.h>

enum {
    OOM_BENCH_NAME = 96,
    OOM_BENCH_TEXT = 160,
    OOM_BENCH_PARAMETERS = 8,
    OOM_BENCH_PEERS_MAX = 3,
    OOM_BENCH_SUBJECTS_MAX = 1 + OOM_BENCH_PEERS_MAX,
};

/* How to measure; from the command line. */
struct oom_bench_settings {
    bool quick;
    uint64_t seed;
    double seconds; /* at most, per row, beyond the least rounds; 0: as usual */
    int threads;    /* of the host kernels */
    enum oom_isa isa;
};

/* Who does the work: [0] is ours, the others are peers. */
struct oom_bench_subject {
    const char *name; /* of a peer: "OpenBLAS" */
    void *context;
    /* Does one unit of the work `times` times. */
    enum oom_status (*work)(void *context, uint64_t times);
    enum oom_status (*rest)(void *context); /* after each sample, not timed; NULL: nothing */
    void (*close)(void *context);           /* NULL: nothing */
    char missing[OOM_BENCH_TEXT];           /* a peer: why it is not here; "": it is */
};

struct oom_bench_subjects {
    struct oom_bench_subject items[OOM_BENCH_SUBJECTS_MAX];
    int count;
};

struct oom_bench_row {
    char name[OOM_BENCH_NAME]; /* an id: "allocator/pair/cached/live=1e5" */
    const char *unit;          /* what is done once: "pair", "event" */
    const char *rate_unit;     /* "GF/s"; NULL: none */
    double rate;               /* times this by units per nanosecond: the rate in that unit */
    bool quick;                /* measured with --quick, too */
    bool minor;                /* reported, but no part of a family's worst */
    bool threaded;             /* does its work on settings->threads threads */
    double series;             /* > 0: the n of a growth, rows of one stem belong together */
    int64_t parameters[OOM_BENCH_PARAMETERS];
    const struct oom_bench_family *family;
    /* Fills `out`; on failure everything was closed. */
    enum oom_status (*open)(const struct oom_bench_row *row,
                            const struct oom_bench_settings *settings,
                            struct oom_bench_subjects *out);
};

struct oom_bench_list {
    struct oom_bench_row *rows;
    int count, capacity;
};

struct oom_bench_family {
    const char *name, *prose;
    const char *note; /* below the family's table; NULL: none */
    enum oom_status (*list)(const struct oom_bench_family *family, struct oom_bench_list *list);
    void (*close)(void); /* what rows shared; NULL: nothing */
};

extern const struct oom_bench_family *const oom_bench_families[]; /* ends with NULL */
extern const struct oom_bench_family oom_bench_allocator, oom_bench_malloc, oom_bench_map,
    oom_bench_replay, oom_bench_gemm;

/* ---- rows ---- */

/* A copy of `row` under a name made as by printf; the name's own field is not looked at. */
enum oom_status oom_bench_list_add(struct oom_bench_list *list, const struct oom_bench_row *row,
                                   const char *format, ...) __attribute__((format(printf, 3, 4)));
void oom_bench_list_free(struct oom_bench_list *list);
/* Of `families` (as above) those that a glob matches (no globs: all) and, if quick, that have a
 * quick form. OOM_NOTHING names the first glob that matches no row. */
enum oom_status oom_bench_select(const struct oom_bench_family *const *families,
                                 const char *const *globs, int glob_count, bool quick,
                                 struct oom_bench_list *out);

/* ---- measuring ---- */

struct oom_bench_figure {
    char name[24];                 /* of the peer; "" for ours */
    char missing[OOM_BENCH_TEXT];  /* why there is no figure; "": there is one */
    struct oom_spread nanoseconds; /* per unit */
    struct oom_spread ratio;       /* peers: their time / ours, by round: above 1 ours is faster */
};

/* What Google Benchmark found for the same work. */
struct oom_bench_gbench {
    char missing[OOM_BENCH_TEXT];
    double nanoseconds, cpu_nanoseconds; /* per unit: of the one run, or their median */
    uint64_t iterations;
    double allocations, bytes; /* host memory asked for: times per unit, peak; < 0: not known */
};

struct oom_bench_result {
    const struct oom_bench_row *row;
    enum oom_status status; /* OOM_ABSENT: skipped; other failures: the row failed */
    char reason[OOM_BENCH_TEXT];
    bool cpu_time;
    uint64_t times[OOM_BENCH_SUBJECTS_MAX]; /* units in one sample */
    struct oom_samples samples;             /* seconds per sample, (subject there, round) */
    int figure_count;
    struct oom_bench_figure figures[OOM_BENCH_SUBJECTS_MAX];
    struct oom_bench_gbench gbench;
};

/* The clock of a row: CPU time, which other processes do not lengthen, where one thread does the
 * work; else the wall's. */
bool oom_bench_cpu_time(const struct oom_bench_row *row, const struct oom_bench_settings *settings);
/* Opens, measures side by side, closes. A row that fails is a result, too. */
void oom_bench_measure(const struct oom_bench_row *row, const struct oom_bench_settings *settings,
                       struct oom_bench_result *out);
void oom_bench_result_free(struct oom_bench_result *result);

/* ---- showing ---- */

void oom_bench_show_head(const struct oom_bench_family *family, bool utf8, FILE *out);
void oom_bench_show_row(const struct oom_bench_result *result, bool utf8, FILE *out);
/* After the last row of a family: its geometric means, its worst, how it grows, its note. */
void oom_bench_show_foot(const struct oom_bench_result *results, int count, FILE *out);
/* " 1.23 us": three digits and a unit. Returns out. */
char *oom_bench_time_text(double nanoseconds, char *out, size_t n);

/* ---- recording ---- */

struct oom_bench_context {
    const char *version, *git, *started; /* RFC 3339 */
    int argc;
    char *const *argv;
    const struct oom_bench_settings *settings;
};

/* results/schema/oombench-bench-1.json; `benchmarks` is for Google Benchmark's compare.py: one
 * entry per round. */
enum oom_status oom_bench_record(const struct oom_bench_context *context,
                                 const struct oom_bench_result *results, int count, FILE *out);

/* The compiler must believe that what `pointer` points to is used. */
static inline void oom_bench_keep(const void *pointer) {
    __asm__ volatile("" : : "g"(pointer) : "memory");
}

#endif
