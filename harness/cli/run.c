/*
 * run.c: `oombench run [GLOB...]`: each selected scenario in a process of its own, as many at once
 * as there are cores for, their records to the reports in the order announced. A scenario that dies
 * costs only its own cases.
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
#include "kernels/host/pool.h"
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
    struct oom_docket docket;
    int first; /* of the announced records */
    bool started;
    struct oom_process *process; /* while it runs */
};

struct run {
    struct oom_run_command command;
    int argc;
    char **argv;
    struct oom_case_record *announced; /* ids, in order; all else zero */
    struct oom_case_record **came;     /* their records, until those before them came, too */
    int total, done, told;
    struct part *parts;
    int part_count, jobs;
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
    run->parts[run->part_count] = (struct part){scenario, docket, run->total, false, NULL};
    if (docket.count > 0) {
        run->part_count++;
    } else {
        oom_docket_free(&docket);
    }
    run->total = (int)total;
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
    run->came = oom_host_calloc((size_t)run->total, sizeof(struct oom_case_record *));
    return run->came != NULL ? OOM_OK : no_memory();
}

/* Bytes of the largest run of a scenario. */
static double bytes_of(const struct run *run, const struct oom_scenario *scenario) {
    double need = scenario->most_need, capacity = (double)run->command.capacity;
    if (!may_match(&run->command, scenario->name)) return 0;
    if (run->command.quick && need > 1.5) need = 1.5;
    if (!run->command.quick && capacity < (double)scenario->least_capacity) {
        capacity = (double)scenario->least_capacity;
    }
    return (need + 0.5) * capacity;
}

/* Of the `jobs` largest scenarios together. */
static double most_bytes(const struct run *run, int jobs) {
    double largest[OOM_JOBS_MAX] = {0}, sum = 0;
    for (int i = 0; oom_scenarios[i] != NULL; i++) {
        double bytes = bytes_of(run, oom_scenarios[i]);
        for (int k = 0; k < jobs; k++) {
            double before = largest[k];
            if (bytes <= before) continue;
            largest[k] = bytes;
            bytes = before;
        }
    }
    for (int k = 0; k < jobs; k++) sum += largest[k];
    return sum;
}

/* The references need a multiple of the capacity: refused at once where it is not there, before
 * anything is sized for it. */
static enum oom_status check_memory(const struct run *run) {
    char capacity[16], needed[16], there[16], side_by_side[48] = "";
    int jobs = run->command.jobs;
    double bytes = most_bytes(run, jobs > 1 ? jobs : 1);
    struct oom_memory_limit limit = oom_memory_limit_read("/proc", "/sys/fs/cgroup");
    if (bytes <= (double)limit.bytes) return OOM_OK;
    uint64_t whole = bytes < 0x1p63 ? (uint64_t)bytes : UINT64_MAX;
    if (jobs > 1) snprintf(side_by_side, sizeof side_by_side, " and --jobs %d", jobs);
    return oom_fail(OOM_USAGE,
                    "--capacity %s%s: with the runs that need more to compare with, %s; this "
                    "process may use %s (%s)",
                    oom_size_format(run->command.capacity, capacity, sizeof capacity), side_by_side,
                    oom_size_format(whole, needed, sizeof needed),
                    oom_size_format(limit.bytes, there, sizeof there), limit.source);
}

/* Narrow models gain little from threads, so on a simulated device each core rather has a scenario
 * of its own; another device has one user at a time. */
static void share_cores(struct run *run) {
    const struct oom_run_command *c = &run->command;
    int cores = oom_pool_threads_allowed(), jobs = c->jobs;
    if (jobs == 0) {
        struct oom_memory_limit limit = oom_memory_limit_read("/proc", "/sys/fs/cgroup");
        jobs = strcmp(c->device, "host") == 0 ? cores / (c->threads > 0 ? c->threads : 1) : 1;
        if (jobs > OOM_JOBS_MAX) jobs = OOM_JOBS_MAX;
        while (jobs > 1 && most_bytes(run, jobs) > (double)limit.bytes) jobs--;
    }
    if (jobs > run->part_count) jobs = run->part_count;
    run->jobs = jobs > 1 ? jobs : 1;
    if (c->threads > 0 || run->jobs == 1) return;
    int threads = cores > run->jobs ? cores / run->jobs : 1;
    for (int i = 0; i < run->part_count; i++) {
        for (int k = 0; k < run->parts[i].docket.count; k++) {
            struct oom_case *the_case = &run->parts[i].docket.rows[k].the_case;
            the_case->mitigated.threads = the_case->unmitigated.threads = threads;
            the_case->guards.threads = threads;
        }
    }
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

static void keep_status(struct run *run, enum oom_status status) {
    if (run->status == OOM_OK) run->status = status;
}

/* What came goes to the reporter in the order announced. */
static void report(struct run *run, const struct oom_case_record *record) {
    int at = index_of(run, record->id);
    if (at < run->told || run->came[at] != NULL) return;
    run->came[at] = oom_host_alloc(sizeof *record);
    if (run->came[at] == NULL) {
        keep_status(run, oom_fail(OOM_HOST_NOMEM, "the record of %s", record->id));
        return;
    }
    *run->came[at] = *record;
    run->done++;
    for (; run->told < run->total && run->came[run->told] != NULL; run->told++) {
        keep_status(run, oom_reporter_case(run->reporter, run->came[run->told]));
        oom_host_free(run->came[run->told]);
        run->came[run->told] = NULL;
    }
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
    for (int i = part->first; i < part->first + part->docket.count; i++) {
        if (i < run->told || run->came[i] != NULL) continue;
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

static const char *directory_of(const struct run *run) {
    return run->temporary + strlen("TMPDIR=");
}

static enum oom_status start_part(struct run *run, struct part *part) {
    char rows[PATH_MAX + 64];
    char **argv = oom_host_calloc((size_t)run->argc + 5, sizeof *argv);
    if (argv == NULL) return oom_fail(OOM_HOST_NOMEM, "the arguments of a scenario");
    int argc = 0;
    argv[argc++] = (char *)(uintptr_t)oom_self();
    argv[argc++] = (char *)(uintptr_t) "scenario";
    argv[argc++] = (char *)(uintptr_t)part->scenario->name;
    argv[argc++] = rows;
    argc += child_arguments(run, part == run->parts, argv + argc);
    snprintf(rows, sizeof rows, "%s/%s.rows", directory_of(run), part->scenario->name);
    const char *const environment[] = {run->temporary, NULL};
    struct oom_process_options options = {.argv = argv,
                                          .environment = environment,
                                          .timeout = oom_run_timeout(&run->command, part->scenario),
                                          .line_fd = 3,
                                          .on_line = on_line,
                                          .user = run};
    enum oom_status status = oom_docket_write(&part->docket, rows);
    if (status == OOM_OK) status = oom_process_start(&options, &part->process);
    part->started = true;
    oom_host_free(argv);
    return status;
}

/* One after the other as announced; of several at once the longest first, so that what is left to
 * the end is short. */
static struct part *next_part(const struct run *run) {
    struct part *next = NULL;
    for (int i = 0; i < run->part_count; i++) {
        struct part *part = &run->parts[i];
        if (part->started) continue;
        bool longer = next != NULL && part->scenario->seconds > next->scenario->seconds;
        if (next == NULL || (run->jobs > 1 && longer)) next = part;
    }
    return next;
}

/* As many as may run at once are running. */
static enum oom_status start_parts(struct run *run, int running) {
    for (; running < run->jobs; running++) {
        struct part *part = next_part(run);
        if (part == NULL) break;
        OOM_TRY(start_part(run, part));
    }
    return OOM_OK;
}

/* Those that run, in the order of the parts. */
static int list_running(struct run *run, struct part **parts, struct oom_process **processes) {
    int count = 0;
    for (int i = 0; i < run->part_count && count < OOM_JOBS_MAX; i++) {
        if (run->parts[i].process == NULL) continue;
        parts[count] = &run->parts[i];
        processes[count++] = run->parts[i].process;
    }
    return count;
}

static enum oom_status run_parts(struct run *run, struct oom_process_result *result) {
    struct part *parts[OOM_JOBS_MAX];
    struct oom_process *processes[OOM_JOBS_MAX];
    for (int count = 0, ended; !oom_process_hold_signals() && run->status == OOM_OK;) {
        OOM_TRY(start_parts(run, count));
        count = list_running(run, parts, processes);
        if (count == 0) break;
        OOM_TRY(oom_process_poll_any(processes, count, 3600, &ended));
        if (ended < 0 || oom_process_hold_signals()) continue;
        OOM_TRY(oom_process_wait(processes[ended], result));
        report_missing(run, parts[ended], result);
        oom_process_free(processes[ended]);
        parts[ended]->process = NULL;
        count--;
    }
    return run->status;
}

/* What a killed process was writing may come after the others have gone. */
static void remove_directory(const char *directory) {
    for (int tries = 0; tries < 100; tries++) {
        if (oom_directory_remove(directory) == OOM_OK) break;
        oom_failure_clear();
        usleep(10000);
    }
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

/* Everything is in one directory, which is removed however the run ends. */
static enum oom_status run_there(struct run *run) {
    char *directory = run->temporary + strlen("TMPDIR=");
    struct oom_process_result *result = oom_host_alloc(sizeof *result);
    if (result == NULL) return oom_fail(OOM_HOST_NOMEM, "a process's result");
    oom_process_hold_signals();
    memcpy(run->temporary, "TMPDIR=", sizeof "TMPDIR=");
    enum oom_status status = oom_directory_temporary(directory, PATH_MAX);
    if (status == OOM_OK) status = run_parts(run, result);
    for (int i = 0; i < run->part_count; i++) {
        oom_process_free(run->parts[i].process);
        run->parts[i].process = NULL;
    }
    oom_host_free(result);
    if (!oom_process_hold_signals()) return status;
    remove_directory(directory);
    oom_process_release_signals();
    return status;
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
                                      .traces = c->traces ? directory_of(run) : NULL};
    enum oom_status status =
        oom_reporter_open(&c->paths, &context, run->announced, run->total, &run->reporter);
    if (status != OOM_OK) return status == OOM_IO ? OOM_USAGE : status;
    if (there == OOM_ABSENT) skip_all(run);
    if (there == OOM_OK) status = run_there(run);
    run->totals = oom_reporter_totals(run->reporter);
    enum oom_status closed = oom_reporter_close(run->reporter);
    run->reporter = NULL;
    if (directory_of(run)[0] != 0) remove_directory(directory_of(run));
    oom_process_release_signals();
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

static void free_run(struct run *run) {
    for (int i = 0; i < run->part_count; i++) oom_docket_free(&run->parts[i].docket);
    for (int i = 0; run->came != NULL && i < run->total; i++) oom_host_free(run->came[i]);
    oom_host_free(run->announced);
    oom_host_free(run->came);
    oom_host_free(run->parts);
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
    if (status == OOM_OK) share_cores(&run);
    if (status == OOM_OK) status = run_all(&run, there);
    int code = status == OOM_OK ? exit_code(&run, there) : oom_exit_for(status, "run");
    free_run(&run);
    return code;
}
