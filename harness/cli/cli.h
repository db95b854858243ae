/*
 * cli.h: the verbs of the command. A verb gets the arguments after its name and returns the exit
 * code; it has printed its one line on standard error when that is 2 or more.
 */
#ifndef OOM_HARNESS_CLI_CLI_H
#define OOM_HARNESS_CLI_CLI_H

#include "kernels/status.h"

/* Exit codes. */
enum oom_exit {
    OOM_EXIT_OK = 0,      /* all passed, or were skipped with leave */
    OOM_EXIT_FAILED = 1,  /* a case failed or a gate tripped */
    OOM_EXIT_USAGE = 2,   /* wrong usage */
    OOM_EXIT_NOTHING = 3, /* nothing selected, or a requirement not met */
    OOM_EXIT_HARNESS = 4, /* the harness itself failed */
};

struct oom_verb {
    const char *name;
    const char *operands; /* of the usage line */
    const char *summary;  /* NULL: internal, not listed */
    int (*main)(int argc, char **argv);
};

int oom_verb_run(int argc, char **argv);
int oom_verb_list(int argc, char **argv);
int oom_verb_explain(int argc, char **argv);
int oom_verb_plan(int argc, char **argv);
int oom_verb_replay(int argc, char **argv);
int oom_verb_bench(int argc, char **argv);
int oom_verb_grad(int argc, char **argv);
int oom_verb_scenario(int argc, char **argv); /* one scenario's cases, in this process */
int oom_verb_step(int argc, char **argv);     /* one job of a case, in this process */

extern const struct oom_verb oom_verbs[]; /* ends with a zero row */

/* Prints the recorded failure as one line on standard error; returns the exit code for it. */
int oom_exit_for(enum oom_status status, const char *what);
/* The path of this binary, for executing it again. */
const char *oom_self(void);

#endif
