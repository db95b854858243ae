/*
 * scenario.h: what a scenario is to the command. The table itself is in scenarios/list.c: the
 * scenarios know the harness, and the harness knows them only through this.
 */
#ifndef OOM_HARNESS_CLI_SCENARIO_H
#define OOM_HARNESS_CLI_SCENARIO_H

#include "harness/base/control.h"
#include "harness/verify/case.h"

/* The options that shape a scenario's cases. */
struct oom_run_options {
    char device[16];
    uint64_t capacity;
    const char *capacity_from; /* "default", "option", "environment" */
    enum oom_schedule schedule;
    enum oom_isa isa;
    int threads;
    uint64_t seed;
    struct oom_allocator_settings settings;
    const char *data;  /* NULL: generated */
    const char *model; /* NULL: the scenario's; else a model's text whose keys win */
    bool quick, full;
    struct oom_injection injection; /* into every mitigated run; none: all zero */
};

/* One row of a scenario: a case, or a wrong twin of one. */
struct oom_scenario_case {
    struct oom_case the_case;
    enum oom_control control;  /* NONE: the product */
    uint32_t expected_false;   /* of a control, or of a case by mathematics: 1 << enum oom_bit */
    char skip[OOM_REASON_MAX]; /* why it cannot be made with these options; "": it can */
};

/* Where a scenario puts its rows. */
struct oom_docket {
    struct oom_scenario_case *rows;
    int count, capacity;
};

/* A new zeroed row, or NULL when the host has no memory (the docket remembers). */
struct oom_scenario_case *oom_docket_add(struct oom_docket *docket);
void oom_docket_free(struct oom_docket *docket);
/* As a file, for a process that runs the rows. */
enum oom_status oom_docket_write(const struct oom_docket *docket, const char *path);
enum oom_status oom_docket_read(const char *path, struct oom_docket *out);

struct oom_scenario {
    const char *name;
    const char *summary;     /* one line: what happens here */
    double seconds;          /* about, at the default capacity on two cores */
    uint64_t least_capacity; /* bytes it takes at least, whatever --capacity says; 0: nothing */
    double most_need; /* the largest need of its cases: memory of the references / capacity */
    /* Adds the rows, in the order they are run; every figure is derived from the options. */
    enum oom_status (*list)(const struct oom_run_options *options, struct oom_docket *docket);
    const char *lesson; /* its Markdown, embedded */
};

extern const struct oom_scenario *const oom_scenarios[]; /* ends with NULL */

#endif
