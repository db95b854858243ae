/*
 * options.h: a command's options as rows of a table, which drives parsing, range checks, the
 * environment, and --help.
 *
 * The caller owns the table and the struct that is filled; texts in it are borrowed from argv, the
 * environment or the table. A bad option or value is OOM_USAGE with one line for the user (the
 * nearest known name, what is allowed); the struct may then be partly filled.
 */
#ifndef OOM_HARNESS_BASE_OPTIONS_H
#define OOM_HARNESS_BASE_OPTIONS_H

#include "kernels/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* kind, C type of the destination */
enum oom_option_kind {
    OOM_OPTION_FLAG,     /* bool; takes no value; --name=yes|no is allowed */
    OOM_OPTION_INT,      /* int */
    OOM_OPTION_UINT64,   /* uint64_t, also 0x... */
    OOM_OPTION_SIZE,     /* uint64_t bytes; names[i], where given, yields oom_option_size_name(i) */
    OOM_OPTION_DOUBLE,   /* double */
    OOM_OPTION_CHOICE,   /* int: index into names */
    OOM_OPTION_TEXT,     /* const char * */
    OOM_OPTION_PATH,     /* const char *; never empty */
    OOM_OPTION_DURATION, /* double, seconds */
    OOM_OPTION_LIST,     /* struct oom_option_list: each time adds one */
    OOM_OPTION_PREFIX,   /* struct oom_option_list: whole arguments that begin with --name, e.g.
                            name "benchmark_" collects "--benchmark_filter=x" untouched */
};

enum { OOM_OPTION_LIST_MAX = 64 };

struct oom_option_list {
    int count;
    const char *items[OOM_OPTION_LIST_MAX];
};

struct oom_option {
    const char *name; /* without dashes */
    char letter;      /* -x; 0: none */
    enum oom_option_kind kind;
    size_t offset;            /* offsetof(struct yours, field) */
    double min, max;          /* allowed range; both 0: any (of the type) */
    const char *const *names; /* CHOICE (needed) and SIZE (optional): ends with NULL */
    const char *fallback;     /* the default, as text; NULL: the field is left as it was */
    const char *metavar;      /* "SIZE"; NULL: from the kind */
    const char *environment;  /* "OOMBENCH_CAPACITY"; NULL: none */
    const char *help;         /* one or two sentences; NULL: not shown in --help */
};

/* Where a value came from; "default", "environment", "option". */
enum oom_option_source { OOM_SOURCE_DEFAULT, OOM_SOURCE_ENVIRONMENT, OOM_SOURCE_OPTION };
const char *oom_option_source_name(enum oom_option_source source);

struct oom_options {
    const struct oom_option *rows;
    int count;
};

/* Fills *destination: defaults first, then the environment, then argv[0 .. argc), whose options may
 * stand among the operands; after "--" all are operands. `operands` has room for argc pointers;
 * `sources` (may be NULL) for options->count. */
enum oom_status oom_options_parse(const struct oom_options *options, int argc, char *const *argv,
                                  void *destination, const char **operands, int *operand_count,
                                  enum oom_option_source *sources);

/* The rows as text of at most `columns` columns (at least 40 are used). */
void oom_options_help(const struct oom_options *options, FILE *out, int columns);

/* What a SIZE option is when its i-th name was given; above every size that can be meant. */
static inline uint64_t oom_option_size_name(int i) {
    return UINT64_MAX - (uint64_t)i;
}

#endif
