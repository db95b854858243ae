/*
 * report.h: one stream of case records in; terminal table, TAP, JUnit and results JSON out.
 *
 * A reporter owns its files: they are opened (as temporary files beside their targets) before the
 * run, so that a path that cannot be written is found at once, and renamed when complete; a run
 * that dies leaves the last complete file. Failure is OOM_IO or OOM_USAGE with path and errno.
 */
#ifndef OOM_HARNESS_REPORT_REPORT_H
#define OOM_HARNESS_REPORT_REPORT_H

#include "harness/verify/verdict.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OOM_FORMAT_MAP(X) \
    X(TABLE, "table") \
    X(TAP, "tap") \
    X(JSON, "json") \
    X(JUNIT, "junit")

enum oom_format {
#define X(id, name) OOM_FORMAT_##id,
    OOM_FORMAT_MAP(X)
#undef X
        OOM_FORMAT_COUNT
};

/* What the run was: goes into every report. Strings are borrowed for the reporter's life. */
struct oom_run_context {
    const char *version, *git, *started; /* "0.1.0", "abc1234" or "abc1234-dirty", RFC 3339 */
    int argc;
    char *const *argv;
    const char *device, *isa, *schedule, *capacity_from; /* "host", "avx512", "eager", "option" */
    const char *cpu_model;
    uint64_t capacity, seed;
    int threads, cpus;
    const char *capabilities; /* the build's table, one "name=value" a line */
    const char *traces; /* directory with the traces of cases, by oom_trace_path; NULL: none */
};

/* The file of a case's trace in that directory. */
void oom_trace_path(const char *directory, const char *id, char *out, size_t n);

struct oom_report_paths {
    enum oom_format format;         /* on standard output */
    const char *tap, *json, *junit; /* files beside it; NULL: none; "-": standard output */
};

struct oom_reporter;

/* `cases` records are announced for the TAP plan (each case has five points, a control one, a
 * skipped or failed scenario one per announced case); ids are announced in order. */
enum oom_status oom_reporter_open(const struct oom_report_paths *paths,
                                  const struct oom_run_context *context,
                                  const struct oom_case_record *announced, int cases,
                                  struct oom_reporter **out);
/* Terminal only: what runs now ("large_batch/halving: reference"), done and total. Plain lines
 * when standard error is not a terminal, and at most one a second. */
void oom_reporter_progress(struct oom_reporter *reporter, const char *what, int done, int total);
enum oom_status oom_reporter_case(struct oom_reporter *reporter,
                                  const struct oom_case_record *record);
/* Writes and renames the files; the last line says what passed, failed and was skipped. */
enum oom_status oom_reporter_close(struct oom_reporter *reporter);
/* Counts so far. */
struct oom_report_totals {
    int passed, failed, skipped;
};
struct oom_report_totals oom_reporter_totals(const struct oom_reporter *reporter);

#endif
