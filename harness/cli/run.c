/*
 * run.c: `oombench run [GLOB...]`: each selected scenario in a process of its own, one after the
 * other, their records to the reports. A scenario that dies costs only its own cases.
 */
#include "harness/cli/cli.h"

#include "harness/base/file.h"
#include "harness/base/nearest.h"
#include "harness/base/process.h"
#include "harness/base/sizes.h"
#include "harness/base/text.h"
#include "harness/cli/capabilities.h"
#include "harness/cli/run-options.h"
#include "harness/report/record.h"
#include "kernels/hostmem.h"
#include "kernels/simulated/limit.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- what will be run ---- */

struct part {
    const struct oom_scenario *scenario;
    int first, count; /* of the announced records */
};

struct run {
    struct oom_run_command command;
    int argc;
    char **argv;
    struct oom_case_record *announced; /* ids, in order; all else zero */
    bool *told;                        /* a record of this id came */
    int total, done;
    struct part *parts;
    int part_count;
    struct oom_reporter *reporter; /* while the run goes on */
    struct oom_report_totals totals;
    enum oom_status status;       /* of reporting, from within callbacks */
    char absent[OOM_REASON_MAX];  /* why the device is not there */
    char temporary[PATH_MAX + 8]; /* "TMPDIR=...": the children's, removed however they end */
};

static enum oom_status no_memory(void) {
    return oom_fail(OOM_HOST_NOMEM, "the list of cases");
}

static enum oom_status announce(struct run *run, const struct oom_scenario *scenario) {
    struct oom_docket docket;
    OOM_TRY(oom_run_docket(&run->command, scenario, &docket));
    size_t total = (size_t)(run->total + docket.count);
    struct oom_case_record *grown =
        oom_host_realloc(run->announced, (total + 1) * sizeof *run->announced);
    struct part *parts =
        oom_host_realloc(run->parts, (size_t)(run->part_count + 1) * sizeof *run->parts);
    if (grown != NULL) run->announced = grown;
    if (parts != NULL) run->parts = parts;
    if (grown == NULL || parts == NULL) {
        oom_docket_free(&docket);
        return no_memory();
    }
    for (int i = 0; i < docket.count; i++) {
        oom_run_announce(&run->command, &docket.rows[i], &run->announced[run->total + i]);
    }
    if (docket.count > 0) {
        run->parts[run->part_count++] = (struct part){scenario, run->total, docket.count};
    }
    run->total = (int)total;
    oom_docket_free(&docket);
    return OOM_OK;
}

/* A glob that can match nothing of a scenario saves making its list. */
static bool may_match(const struct oom_run_command *command, const char *scenario) {
    for (int i = 0; i < command->glob_count; i++) {
        const char *glob = command->globs[i];
        size_t n = strcspn(glob, "/*?[");
        bool literal = glob[n] == '/' || glob[n] == 0;
        if (!literal || (strncmp(glob, scenario, n) == 0 && scenario[n] == 0)) return true;
    }
    return command->glob_count == 0;
}

static const char *nearest_scenario(const char *glob) {
    const char *names[64];
    int count = 0;
    for (int i = 0; oom_scenarios[i] != NULL && count < 64; i++)
        names[count++] = oom_scenarios[i]->name;
    return oom_nearest_name(glob, names, count);
}

static enum oom_status nothing_selected(const struct run *run) {
    const struct oom_run_command *c = &run->command;
    if (c->glob_count == 0) return oom_fail(OOM_NOTHING, "no case is selected by these options");
    const char *near = nearest_scenario(c->globs[0]);
    return oom_fail(OOM_NOTHING, "no case matches '%s'%s%s%s; `oombench list` names them",
                    c->globs[0], near != NULL ? "; nearest scenario is '" : "",
                    near != NULL ? near : "", near != NULL ? "'" : "");
}

static enum oom_status announce_all(struct run *run) {
    for (int i = 0; oom_scenarios[i] != NULL; i++) {
        if (may_match(&run->command, oom_scenarios[i]->name)) {
            OOM_TRY(announce(run, oom_scenarios[i]));
        }
    }
    if (run->total == 0) return nothing_selected(run);
    run->told = oom_host_calloc((size_t)run->total, sizeof *run->told);
    return run->told != NULL ? OOM_OK : no_memory();
}

/* Bytes of the largest run there will be. */
static double most_bytes(const struct run *run) {
    double most = 0;
    for (int i = 0; oom_scenarios[i] != NULL; i++) {
        const struct oom_scenario *scenario = oom_scenarios[i];
        double need = scenario->most_need, capacity = (double)run->command.capacity;
        if (!may_match(&run->command, scenario->name)) continue;
        if (run->command.quick && need > 1.5) need = 1.5;
        if (!run->command.quick && capacity < (double)scenario->least_capacity) {
            capacity = (double)scenario->least_capacity;
        }
        if ((need + 0.5) * capacity > most) most = (need + 0.5) * capacity;
    }
    return most;
}

/* The references need a multiple of the capacity: refused at once where it is not there, before
 * anything is sized for it. */
static enum oom_status check_memory(const struct run *run) {
    char capacity[16], needed[16], there[16];
    double bytes = most_bytes(run);
    struct oom_memory_limit limit = oom_memory_limit_read("/proc", "/sys/fs/cgroup");
    if (bytes <= (double)limit.bytes) return OOM_OK;
    uint64_t whole = bytes < 0x1p63 ? (uint64_t)bytes : UINT64_MAX;
    return oom_fail(OOM_USAGE,
                    "--capacity %s: with the runs that need more to compare with, %s; this process "
                    "may use %s (%s)",
                    oom_size_format(run->command.capacity, capacity, sizeof capacity),
                    oom_size_format(whole, needed, sizeof needed),
                    oom_size_format(limit.bytes, there, sizeof there), limit.source);
}

/* Is the device there? OOM_ABSENT leaves the reason in the run. */
static enum oom_status check_device(struct run *run) {
    struct oom_device_options options = {.capacity = run->command.capacity};
    struct oom_device *device;
    enum oom_status status = oom_device_open(run->command.device, &options, &device);
    if (status == OOM_OK) oom_device_close(device);
    if (status == OOM_ABSENT) {
        snprintf(run->absent, sizeof run->absent, "%.200s", oom_failure_last()->message);
        oom_failure_clear();
    }
    return status;
}

/* ---- context of the reports ---- */

static void now_text(char *out, size_t n) {
    time_t now = time(NULL);
    struct tm parts;
    gmtime_r(&now, &parts);
    strftime(out, n, "%Y-%m-%dT%H:%M:%SZ", &parts);
}

static void cpu_text(char *out, size_t n) {
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[256];
    snprintf(out, n, "unknown");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, "model name", 10) != 0) continue;
        char *value = strchr(line, ':');
        if (value != NULL) snprintf(out, n, "%.*s", (int)strcspn(value + 2, "\n"), value + 2);
        break;
    }
    if (file != NULL) fclose(file);
}

static void capabilities_text(char *out, size_t n) {
    size_t count, used = 0;
    const struct oom_capability *rows = oom_capabilities(&count);
    out[0] = 0;
    for (size_t i = 0; i < count && used < n; i++) {
        used += (size_t)snprintf(out + used, n - used, "%s=%s%s\n", rows[i].name,
                                 rows[i].present ? "" : "no: ", rows[i].detail);
    }
}

/* ---- children ---- */

static int index_of(const struct run *run, const char *id) {
    for (int i = 0; i < run->total; i++) {
        if (strcmp(run->announced[i].id, id) == 0) return i;
    }
    return -1;
}

static void report(struct run *run, const struct oom_case_record *record) {
    int at = index_of(run, record->id);
    if (at < 0 || run->told[at]) return;
    run->told[at] = true;
    run->done++;
    enum oom_status status = oom_reporter_case(run->reporter, record);
    if (run->status == OOM_OK) run->status = status;
}

static void on_line(void *user, const char *line) {
    struct run *run = user;
    if (line[0] == '@') {
        oom_reporter_progress(run->reporter, line + 1, run->done, run->total);
        return;
    }
    struct oom_case_record *record = oom_host_alloc(sizeof *record);
    if (record != NULL && oom_record_read(line, strlen(line), record) == OOM_OK) {
        report(run, record);
    }
    oom_host_free(record);
    oom_failure_clear();
}

/* What the child did not tell is an error, with how the child ended as its reason. */
static void report_missing(struct run *run, const struct part *part,
                           const struct oom_process_result *process) {
    char how[64];
    oom_process_describe(process, how, sizeof how);
    size_t n = strlen(process->err);
    while (n > 0 && process->err[n - 1] == '\n') n--;
    for (int i = part->first; i < part->first + part->count; i++) {
        if (run->told[i]) continue;
        struct oom_case_record record = run->announced[i];
        record.outcome = process->timed_out ? OOM_OUTCOME_TIMEOUT : OOM_OUTCOME_ERROR;
        snprintf(record.reason, sizeof record.reason, "the scenario's process: %s%s%.*s", how,
                 n > 0 ? ": " : "", n > 150 ? 150 : (int)n, process->err);
        report(run, &record);
    }
}

/* What the parent was given; but there is one snapshot, of the first case of all. */
static int child_arguments(const struct run *run, bool first, char **argv) {
    static const char option[] = "--snapshot";
    size_t n = sizeof option - 1;
    int count = 0;
    for (int i = 0; i < run->argc; i++) {
        bool named = strncmp(run->argv[i], option, n) == 0;
        if (first || !named || (run->argv[i][n] != 0 && run->argv[i][n] != '=')) {
            argv[count++] = run->argv[i];
        } else if (run->argv[i][n] == 0) {
            i++; /* its value */
        }
    }
    return count;
}

static enum oom_status run_part(struct run *run, const struct part *part) {
    char **argv = oom_host_calloc((size_t)run->argc + 4, sizeof *argv);
    struct oom_process_result *result = oom_host_alloc(sizeof *result);
    enum oom_status status = OOM_HOST_NOMEM;
    if (argv != NULL && result != NULL) {
        int argc = 0;
        argv[argc++] = (char *)(uintptr_t)oom_self();
        argv[argc++] = (char *)(uintptr_t) "scenario";
        argv[argc++] = (char *)(uintptr_t)part->scenario->name;
        argc += child_arguments(run, part == run->parts, argv + argc);
        const char *const environment[] = {run->temporary, NULL};
        struct oom_process_options options = {.argv = argv,
                                              .environment = environment,
                                              .timeout =
                                                  oom_run_timeout(&run->command, part->scenario),
                                              .line_fd = 3,
                                              .on_line = on_line,
                                              .user = run};
        status = oom_process_run(&options, result);
        if (status == OOM_OK) report_missing(run, part, result);
    }
    oom_host_free(argv);
    oom_host_free(result);
    return status != OOM_OK ? status : run->status;
}

/* ---- the run ---- */

/* A device that is not there: every case is skipped, with the reason. */
static void skip_all(struct run *run) {
    for (int i = 0; i < run->total; i++) {
        struct oom_case_record record = run->announced[i];
        record.outcome = OOM_OUTCOME_SKIP;
        snprintf(record.reason, sizeof record.reason, "%s", run->absent);
        report(run, &record);
    }
}

static enum oom_status run_all(struct run *run, enum oom_status there) {
    char started[32], cpu[128], capabilities[4096];
    now_text(started, sizeof started);
    cpu_text(cpu, sizeof cpu);
    capabilities_text(capabilities, sizeof capabilities);
    const struct oom_run_command *c = &run->command;
    struct oom_run_context context = {.version = oom_version(),
                                      .git = oom_commit(),
                                      .started = started,
                                      .argc = run->argc,
                                      .argv = run->argv,
                                      .device = c->device,
                                      .isa = oom_isa_name((enum oom_isa)c->isa),
                                      .schedule = oom_schedule_name((enum oom_schedule)c->schedule),
                                      .capacity_from = c->options.capacity_from,
                                      .cpu_model = cpu,
                                      .capacity = c->capacity,
                                      .seed = c->seed,
                                      .threads = c->threads,
                                      .cpus = (int)sysconf(_SC_NPROCESSORS_ONLN),
                                      .capabilities = capabilities,
                                      .traces =
                                          c->traces ? run->temporary + strlen("TMPDIR=") : NULL};
    enum oom_status status =
        oom_reporter_open(&c->paths, &context, run->announced, run->total, &run->reporter);
    if (status != OOM_OK) return status == OOM_IO ? OOM_USAGE : status;
    if (there == OOM_ABSENT) skip_all(run);
    char *directory = run->temporary + strlen("TMPDIR=");
    memcpy(run->temporary, "TMPDIR=", sizeof "TMPDIR=");
    if (there == OOM_OK) status = oom_directory_temporary(directory, PATH_MAX);
    for (int i = 0; there == OOM_OK && i < run->part_count && status == OOM_OK; i++) {
        status = run_part(run, &run->parts[i]);
    }
    run->totals = oom_reporter_totals(run->reporter);
    enum oom_status closed = oom_reporter_close(run->reporter);
    run->reporter = NULL;
    if (directory[0] != 0) oom_directory_remove(directory);
    return status != OOM_OK ? status : closed;
}

static int exit_code(const struct run *run, enum oom_status there) {
    if (there == OOM_ABSENT && run->command.require != NULL) {
        fprintf(stderr, "oombench run: --require %s: every case was skipped\n",
                run->command.require);
        return OOM_EXIT_NOTHING;
    }
    return run->totals.failed > 0 || run->done < run->total ? OOM_EXIT_FAILED : OOM_EXIT_OK;
}

static int run_help(void) {
    printf("usage: oombench run [GLOB...] [options]\n\n"
           "Reproduces out-of-memory situations and verifies their mitigations. A GLOB matches an "
           "id\nsuch as large_batch/halving/gpt/f32, or a leading part of it.\n\n");
    oom_options_help(&oom_run_option_table, stdout, oom_terminal_columns(1));
    return OOM_EXIT_OK;
}

int oom_verb_run(int argc, char **argv) {
    enum { GLOBS_MAX = 256 };
    const char *globs[GLOBS_MAX];
    struct run run = {.argc = argc, .argv = argv};
    enum oom_status status = OOM_OK, there = OOM_OK;
    if (argc > GLOBS_MAX) status = oom_fail(OOM_USAGE, "more than %d arguments", GLOBS_MAX);
    if (status == OOM_OK) status = oom_run_command_parse(argc, argv, &run.command, globs);
    if (status == OOM_OK && run.command.help) return run_help();
    if (status == OOM_OK) status = oom_process_install_signals();
    if (status == OOM_OK) status = check_memory(&run);
    if (status == OOM_OK) there = check_device(&run);
    if (status == OOM_OK && there != OOM_ABSENT) status = there;
    if (status == OOM_OK) status = announce_all(&run);
    if (status == OOM_OK) status = run_all(&run, there);
    int code = status == OOM_OK ? exit_code(&run, there) : oom_exit_for(status, "run");
    oom_host_free(run.announced);
    oom_host_free(run.told);
    oom_host_free(run.parts);
    return code;
}
