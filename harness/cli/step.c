/*
 * step.c: `oombench step DIRECTORY [--control NAME]`: runs the job described there and leaves its
 * result beside it. Internal: the processes of a case are made of this.
 */
#include "harness/cli/cli.h"

#include "harness/base/options.h"
#include "harness/base/control.h"
#include "harness/verify/job.h"
#include "kernels/hostmem.h"

#include <stdio.h>

struct step_options {
    const char *control;
};

static const struct oom_option rows[] = {
    {.name = "control",
     .kind = OOM_OPTION_TEXT,
     .offset = offsetof(struct step_options, control),
     .help = "the wrong twin to run"},
};

static enum oom_status set_control(const char *name) {
    if (name == NULL) return OOM_OK;
    enum oom_control control = oom_control_find(name);
    if (control == OOM_CONTROL_NONE) return oom_fail(OOM_USAGE, "unknown control '%s'", name);
    oom_control_set(control);
    return OOM_OK;
}

static enum oom_status run_job(const char *directory) {
    struct oom_job *job = oom_host_alloc(sizeof *job);
    struct oom_job_result *result = oom_host_alloc(sizeof *result);
    enum oom_status status = OOM_HOST_NOMEM;
    if (job != NULL && result != NULL) {
        status = oom_job_read(directory, job);
        if (status == OOM_OK) status = oom_job_run(job, result);
        if (status == OOM_OK) status = oom_job_result_write(job, result);
    }
    oom_host_free(job);
    oom_host_free(result);
    return status;
}

int oom_verb_step(int argc, char **argv) {
    struct oom_options options = {rows, sizeof rows / sizeof rows[0]};
    struct step_options chosen = {0};
    enum { OPERANDS_MAX = 64 };
    const char *operands[OPERANDS_MAX];
    int count = 0;
    enum oom_status status =
        oom_options_parse(&options, argc, argv, &chosen, operands, &count, NULL);
    if (status == OOM_OK && count != 1) status = oom_fail(OOM_USAGE, "step takes one directory");
    if (status == OOM_OK) status = set_control(chosen.control);
    if (status == OOM_OK) status = run_job(operands[0]);
    return status == OOM_OK ? OOM_EXIT_OK : oom_exit_for(status, "step");
}
