/*
 * run-options.h: the options of `run`, and of the child that runs one scenario of it: one table,
 * so that a child is started with what its parent was given.
 */
#ifndef OOM_HARNESS_CLI_RUN_OPTIONS_H
#define OOM_HARNESS_CLI_RUN_OPTIONS_H

#include "harness/base/options.h"
#include "harness/cli/scenario.h"
#include "harness/report/report.h"

enum { OOM_JOBS_MAX = 32 }; /* scenarios at once */

struct oom_run_command {
    /* as given */
    const char *device, *alloc_conf, *profile, *data, *model, *control, *require, *inject;
    uint64_t capacity, seed;
    int jobs, threads, isa, rng, schedule, format;
    bool quick, full, traces, help;
    double timeout;
    const char *tap, *json, *junit, *snapshot;

    /* made from it */
    enum oom_option_source alloc_conf_from, profile_from;
    struct oom_run_options options;
    enum oom_control chosen_control;
    struct oom_report_paths paths;
    int glob_count;
    const char *const *globs;
};

extern const struct oom_options oom_run_option_table;

/* Parses and checks everything that can be checked before anything runs. `globs` has room for
 * argc pointers and lives as long as the command. */
enum oom_status oom_run_command_parse(int argc, char **argv, struct oom_run_command *out,
                                      const char **globs);

/* True when the glob list selects the id (an empty list selects all). */
bool oom_run_selects(const struct oom_run_command *command, const char *id);

/* The scenario's rows that are selected, in order. With --control: only the rows of that wrong
 * twin, each as a plain case. */
enum oom_status oom_run_docket(const struct oom_run_command *command,
                               const struct oom_scenario *scenario, struct oom_docket *out);

/* NULL: there is no such scenario. */
const struct oom_scenario *oom_scenario_find(const char *name);

/* A record as announced: id, and for a control what is expected of it. */
void oom_run_announce(const struct oom_run_command *command, const struct oom_scenario_case *row,
                      struct oom_case_record *out);

/* Seconds that a scenario, or one process of it, may take. */
double oom_run_timeout(const struct oom_run_command *command, const struct oom_scenario *scenario);

#endif
