#include "harness/report/report.h"

#include "harness/base/text.h"
#include "harness/report/report-driver.h"
#include "kernels/hostmem.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SINKS_MAX = 4 };

static const struct oom_report_driver *const drivers[] = {
    &oom_report_table_driver,
    &oom_report_tap_driver,
    &oom_report_json_driver,
    &oom_report_junit_driver,
};

static const char *const format_names[] = {
#define X(id, name) name,
    OOM_FORMAT_MAP(X)
#undef X
};

struct oom_reporter {
    struct oom_run_context context;
    struct oom_report_run run;
    struct oom_report_sink sinks[SINKS_MAX];
    int sink_count;
    int own_stdout; /* where fd 1 led, while it leads to standard error; -1: it was left alone */
    bool progress_is_terminal, progress_on_show, colour;
    double progress_last; /* seconds */
};

size_t oom_report_scenario_bytes(const char *id) {
    return strcspn(id, "/");
}

static const struct oom_report_driver *driver_of(enum oom_format format) {
    for (size_t i = 0; i < sizeof drivers / sizeof *drivers; i++) {
        if (drivers[i]->format == format) return drivers[i];
    }
    return NULL;
}

/* ---- where the reports go ---- */

/* A library that prints a line beginning with "ok" would add a point to TAP: machine formats get a
 * stream of their own, and fd 1 leads to standard error until the end. */
static enum oom_status stdout_take(struct oom_reporter *reporter, struct oom_report_sink *sink) {
    fflush(stdout);
    int fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    sink->file = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (sink->file == NULL) {
        int error = errno;
        if (fd >= 0) close(fd);
        return oom_fail_native(OOM_IO, error, "standard output: %s", strerror(error));
    }
    sink->standard_output = true;
    if (sink->driver->format == OOM_FORMAT_TABLE) return OOM_OK;
    reporter->own_stdout = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    if (reporter->own_stdout < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
        return oom_fail_native(OOM_IO, errno, "standard output: %s", strerror(errno));
    return OOM_OK;
}

static void stdout_restore(struct oom_reporter *reporter) {
    if (reporter->own_stdout < 0) return;
    fflush(stdout);
    (void)dup2(reporter->own_stdout, STDOUT_FILENO);
    close(reporter->own_stdout);
    reporter->own_stdout = -1;
}

static enum oom_status sink_add(struct oom_reporter *reporter, enum oom_format format,
                                const char *path) {
    struct oom_report_sink *sink = &reporter->sinks[reporter->sink_count++];
    sink->driver = driver_of(format);
    if (path == NULL) return stdout_take(reporter, sink);
    OOM_TRY(oom_file_writer_open(&sink->writer, path));
    sink->file = sink->writer.file;
    return OOM_OK;
}

/* Which format has standard output: the one asked for, or that of a path "-". */
static enum oom_status stdout_format(const struct oom_report_paths *paths, enum oom_format *out) {
    const struct {
        enum oom_format format;
        const char *path;
    } files[] = {{OOM_FORMAT_TAP, paths->tap},
                 {OOM_FORMAT_JSON, paths->json},
                 {OOM_FORMAT_JUNIT, paths->junit}};
    *out = paths->format;
    for (int i = 0; i < 3; i++) {
        if (files[i].path == NULL || strcmp(files[i].path, "-") != 0) continue;
        if (*out != OOM_FORMAT_TABLE && *out != files[i].format)
            return oom_fail(OOM_USAGE, "standard output holds one report: %s or %s, not both",
                            format_names[*out], format_names[files[i].format]);
        *out = files[i].format;
    }
    return OOM_OK;
}

static bool is_file(const char *path) {
    return path != NULL && strcmp(path, "-") != 0;
}

static enum oom_status sinks_open(struct oom_reporter *reporter,
                                  const struct oom_report_paths *paths) {
    enum oom_format format;
    if (driver_of(paths->format) == NULL)
        return oom_fail(OOM_INVALID, "no such report format: %d", (int)paths->format);
    OOM_TRY(stdout_format(paths, &format));
    if (is_file(paths->tap)) OOM_TRY(sink_add(reporter, OOM_FORMAT_TAP, paths->tap));
    if (is_file(paths->json)) OOM_TRY(sink_add(reporter, OOM_FORMAT_JSON, paths->json));
    if (is_file(paths->junit)) OOM_TRY(sink_add(reporter, OOM_FORMAT_JUNIT, paths->junit));
    return sink_add(reporter, format, NULL);
}

/* ---- what was announced ---- */

/* A record announced as skipped or failed stands for a whole that cannot run: one point. */
static enum oom_status entries_set(struct oom_report_run *run,
                                   const struct oom_case_record *announced, int cases) {
    run->entries = oom_host_calloc((size_t)cases + 1, sizeof *run->entries);
    if (run->entries == NULL) return oom_fail(OOM_HOST_NOMEM, "no host memory for %d cases", cases);
    run->entry_count = cases;
    for (int i = 0; i < cases; i++) {
        struct oom_report_entry *entry = &run->entries[i];
        bool whole = announced[i].is_control || announced[i].outcome != OOM_OUTCOME_PASS;
        memcpy(entry->id, announced[i].id, sizeof entry->id);
        entry->id[sizeof entry->id - 1] = 0;
        entry->is_control = announced[i].is_control;
        entry->points = whole ? 1 : OOM_BIT_COUNT;
        for (int j = 0; j < i; j++) {
            if (strcmp(run->entries[j].id, entry->id) == 0)
                return oom_fail(OOM_INVALID, "the case %s is announced twice", entry->id);
        }
    }
    return OOM_OK;
}

static struct oom_report_entry *entry_find(struct oom_report_run *run, const char *id) {
    for (int i = 0; i < run->entry_count; i++) {
        if (strcmp(run->entries[i].id, id) == 0) return &run->entries[i];
    }
    return NULL;
}

/* ---- life ---- */

static void reporter_free(struct oom_reporter *reporter) {
    for (int i = 0; i < reporter->sink_count; i++) {
        struct oom_report_sink *sink = &reporter->sinks[i];
        oom_host_free(sink->state);
        if (sink->standard_output) {
            fclose(sink->file);
        } else {
            oom_file_writer_abandon(&sink->writer);
        }
    }
    stdout_restore(reporter);
    oom_host_free(reporter->run.entries);
    oom_host_free(reporter->run.records);
    oom_host_free(reporter);
}

static enum oom_status sink_check(const struct oom_report_sink *sink) {
    if (sink->file == NULL || !ferror(sink->file)) return OOM_OK;
    const char *name = sink->standard_output ? "standard output" : sink->writer.path;
    return oom_fail_native(OOM_IO, errno, "cannot write %.200s: %s", name, strerror(errno));
}

static enum oom_status sinks_begin(struct oom_reporter *reporter) {
    for (int i = 0; i < reporter->sink_count; i++) {
        struct oom_report_sink *sink = &reporter->sinks[i];
        if (sink->driver->begin != NULL) OOM_TRY(sink->driver->begin(sink, &reporter->run));
        OOM_TRY(sink_check(sink));
    }
    return OOM_OK;
}

enum oom_status oom_reporter_open(const struct oom_report_paths *paths,
                                  const struct oom_run_context *context,
                                  const struct oom_case_record *announced, int cases,
                                  struct oom_reporter **out) {
    *out = NULL;
    if (cases < 0) return oom_fail(OOM_INVALID, "a negative number of cases");
    struct oom_reporter *reporter = oom_host_calloc(1, sizeof *reporter);
    if (reporter == NULL) return oom_fail(OOM_HOST_NOMEM, "no host memory for the reports");
    reporter->own_stdout = -1;
    reporter->context = *context;
    reporter->run.context = &reporter->context;
    reporter->progress_is_terminal = isatty(STDERR_FILENO);
    enum oom_status status = entries_set(&reporter->run, announced, cases);
    if (status == OOM_OK) status = sinks_open(reporter, paths);
    if (status == OOM_OK) status = sinks_begin(reporter);
    if (status == OOM_OK) {
        *out = reporter;
    } else {
        reporter_free(reporter);
    }
    return status;
}

/* ---- progress ---- */

static double now_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void progress_clear(struct oom_reporter *reporter) {
    if (!reporter->progress_on_show) return;
    fprintf(stderr, "\r\033[K");
    fflush(stderr);
    reporter->progress_on_show = false;
}

void oom_reporter_progress(struct oom_reporter *reporter, const char *what, int done, int total) {
    char line[600], cut[600];
    double now = now_seconds();
    bool terminal = reporter->progress_is_terminal;
    if (!terminal && reporter->progress_last != 0 && now - reporter->progress_last < 1) return;
    reporter->progress_last = now;
    snprintf(line, sizeof line, "[%d/%d] %s", done, total, what);
    oom_text_fit(line, terminal ? oom_terminal_columns(STDERR_FILENO) - 1 : 400,
                 !oom_locale_is_utf8(), cut, sizeof cut);
    fprintf(stderr, terminal ? "\r\033[K%s" : "%s\n", cut);
    fflush(stderr);
    reporter->progress_on_show = terminal;
}

/* ---- records ---- */

static struct oom_case_record *record_keep(struct oom_report_run *run,
                                           const struct oom_case_record *record) {
    if (run->record_count == run->record_capacity) {
        int capacity = run->record_capacity * 2 + 16;
        struct oom_case_record *grown =
            oom_host_realloc(run->records, (size_t)capacity * sizeof *grown);
        if (grown == NULL) return NULL;
        run->records = grown;
        run->record_capacity = capacity;
    }
    struct oom_case_record *kept = &run->records[run->record_count++];
    *kept = *record;
    return kept;
}

static void totals_add(struct oom_report_totals *totals, enum oom_outcome outcome) {
    if (outcome == OOM_OUTCOME_PASS) {
        totals->passed++;
    } else if (outcome == OOM_OUTCOME_SKIP) {
        totals->skipped++;
    } else {
        totals->failed++;
    }
}

/* Every sink gets the record, also after one of them failed. */
enum oom_status oom_reporter_case(struct oom_reporter *reporter,
                                  const struct oom_case_record *record) {
    struct oom_report_run *run = &reporter->run;
    struct oom_report_entry *entry = entry_find(run, record->id);
    if (entry == NULL || entry->done || entry->is_control != record->is_control)
        return oom_fail(OOM_INVALID, "a record of %s: %s", record->id,
                        entry == NULL ? "never announced"
                        : entry->done ? "there is one already"
                                      : "announced as the other of case and control");
    const struct oom_case_record *kept = record_keep(run, record);
    if (kept == NULL)
        return oom_fail(OOM_HOST_NOMEM, "no host memory for the record %s", record->id);
    entry->done = true;
    totals_add(&run->totals, record->outcome);
    progress_clear(reporter);
    enum oom_status status = OOM_OK;
    for (int i = 0; i < reporter->sink_count; i++) {
        struct oom_report_sink *sink = &reporter->sinks[i];
        enum oom_status own = OOM_OK;
        if (sink->driver->record != NULL) own = sink->driver->record(sink, run, entry, kept);
        if (own == OOM_OK && sink->standard_output) fflush(sink->file);
        if (own == OOM_OK) own = sink_check(sink);
        if (status == OOM_OK) status = own;
    }
    return status;
}

/* What was announced and never came is an error: a plan is a promise. */
static enum oom_status missing_report(struct oom_reporter *reporter) {
    for (int i = 0; i < reporter->run.entry_count; i++) {
        const struct oom_report_entry *entry = &reporter->run.entries[i];
        if (entry->done) continue;
        struct oom_case_record record = {.outcome = OOM_OUTCOME_ERROR,
                                         .is_control = entry->is_control};
        memcpy(record.id, entry->id, sizeof record.id);
        snprintf(record.reason, sizeof record.reason, "the run ended before this case");
        OOM_TRY(oom_reporter_case(reporter, &record));
    }
    return OOM_OK;
}

static enum oom_status sink_finish(struct oom_reporter *reporter, struct oom_report_sink *sink) {
    if (sink->driver->end != NULL) OOM_TRY(sink->driver->end(sink, &reporter->run));
    if (!sink->standard_output) {
        sink->file = NULL;
        return oom_file_writer_commit(&sink->writer);
    }
    fflush(sink->file);
    return sink_check(sink);
}

enum oom_status oom_reporter_close(struct oom_reporter *reporter) {
    enum oom_status status = missing_report(reporter);
    progress_clear(reporter);
    for (int i = 0; i < reporter->sink_count; i++) {
        enum oom_status own = sink_finish(reporter, &reporter->sinks[i]);
        if (status == OOM_OK) status = own;
    }
    reporter_free(reporter);
    return status;
}

struct oom_report_totals oom_reporter_totals(const struct oom_reporter *reporter) {
    return reporter->run.totals;
}
