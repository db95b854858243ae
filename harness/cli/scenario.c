/*
 * scenario.c: `oombench scenario NAME ROWS <options of run>`: the cases of one scenario, in this
 * process, as `run` has listed them in the file ROWS. Internal: `run` executes it once per
 * scenario, and reads from file descriptor 3 one line of JSON per finished case and "@what" for
 * what is being run.
 */
#include "harness/cli/cli.h"

#include "harness/base/process.h"
#include "harness/cli/run-options.h"
#include "harness/report/record.h"
#include "kernels/hostmem.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

enum { LINES_FD = 3 };

struct hearing {
    FILE *lines;
    const char *id; /* of the case in hand */
};

static void tell_progress(void *user, const char *role) {
    const struct hearing *hearing = user;
    fprintf(hearing->lines, "@%s: %s\n", hearing->id, role);
    fflush(hearing->lines);
}

static enum oom_status tell_record(FILE *lines, const struct oom_case_record *record) {
    char *text;
    OOM_TRY(oom_record_write(record, &text));
    fprintf(lines, "%s\n", text);
    oom_host_free(text);
    return fflush(lines) == 0 ? OOM_OK : oom_fail(OOM_IO, "the parent does not read");
}

static enum oom_status run_row(struct oom_court *court, const struct oom_run_command *command,
                               struct oom_scenario_case *row, bool is_first,
                               struct oom_case_record *record) {
    const char *extra[] = {"--control", oom_control_name(row->control), NULL};
    oom_run_announce(command, row, record);
    if (row->skip[0] != 0) return OOM_OK; /* announced as skipped, with the reason */
    if (row->control != OOM_CONTROL_NONE) row->the_case.extra = extra;
    char trace[PATH_MAX];
    struct oom_exports exports = {0};
    if (command->traces && row->control == OOM_CONTROL_NONE) {
        const char *directory = getenv("TMPDIR"); /* the parent's, which reads it there */
        oom_trace_path(directory != NULL ? directory : "/tmp", row->the_case.id, trace,
                       sizeof trace);
        exports.trace = trace;
    }
    if (is_first && command->snapshot != NULL && command->snapshot[0] != 0) {
        exports.snapshot = command->snapshot;
    }
    if (exports.trace != NULL || exports.snapshot != NULL) row->the_case.exports = &exports;
    oom_failure_clear();
    const struct oom_injection *injection = &command->options.injection;
    enum oom_status status = oom_injection_on(injection)
                                 ? oom_case_inject(court, &row->the_case, injection, record)
                                 : oom_case_run(court, &row->the_case, record);
    row->the_case.extra = NULL;
    row->the_case.exports = NULL;
    if (status != OOM_OK) {
        record->outcome = OOM_OUTCOME_ERROR;
        snprintf(record->reason, sizeof record->reason, "%.200s", oom_failure_last()->message);
    }
    oom_record_decide(record);
    return OOM_OK;
}

static enum oom_status run_rows(const struct oom_run_command *command,
                                const struct oom_scenario *scenario, struct oom_docket *docket,
                                FILE *lines) {
    struct hearing hearing = {.lines = lines};
    struct oom_court_options options = {.self = oom_self(),
                                        .timeout = oom_run_timeout(command, scenario),
                                        .progress = tell_progress,
                                        .user = &hearing};
    struct oom_court *court;
    OOM_TRY(oom_court_open(&options, &court));
    struct oom_case_record *record = oom_host_alloc(sizeof *record);
    enum oom_status status = record != NULL ? OOM_OK : oom_fail(OOM_HOST_NOMEM, "a record");
    for (int i = 0; i < docket->count && status == OOM_OK; i++) {
        hearing.id = docket->rows[i].the_case.id;
        status = run_row(court, command, &docket->rows[i], i == 0, record);
        if (status == OOM_OK) status = tell_record(lines, record);
    }
    oom_host_free(record);
    oom_court_close(court);
    return status;
}

int oom_verb_scenario(int argc, char **argv) {
    enum { GLOBS_MAX = 256 };
    const char *globs[GLOBS_MAX];
    struct oom_run_command command;
    enum oom_status status = OOM_OK;
    if (argc < 2 || argc > GLOBS_MAX) {
        status = oom_fail(OOM_USAGE, "scenario takes a name, its rows and the options of run");
        return oom_exit_for(status, "scenario");
    }
    const struct oom_scenario *scenario = oom_scenario_find(argv[0]);
    if (scenario == NULL) status = oom_fail(OOM_USAGE, "unknown scenario '%s'", argv[0]);
    if (status == OOM_OK) status = oom_run_command_parse(argc - 2, argv + 2, &command, globs);
    struct oom_docket docket = {0};
    if (status == OOM_OK) status = oom_docket_read(argv[1], &docket);
    FILE *lines = fdopen(LINES_FD, "w");
    if (lines == NULL && status == OOM_OK) status = oom_fail(OOM_USAGE, "started by `run` only");
    if (status == OOM_OK) status = oom_process_install_signals();
    if (status == OOM_OK) status = run_rows(&command, scenario, &docket, lines);
    oom_docket_free(&docket);
    return status == OOM_OK ? OOM_EXIT_OK : oom_exit_for(status, "scenario");
}
