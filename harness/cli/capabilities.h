/*
 * capabilities.h: what the build found on its machine (compiler, libraries, tools), the rows that
 * `make config` prints. Everything is static and nothing here can fail.
 */
#ifndef OOM_HARNESS_CLI_CAPABILITIES_H
#define OOM_HARNESS_CLI_CAPABILITIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct oom_capability {
    const char *name; /* "compiler", "avx2", "jansson" ... */
    bool present;
    const char *detail; /* version, flags, or the reason for its absence */
};

/* The rows, in a fixed order. */
const struct oom_capability *oom_capabilities(size_t *count);

/* One line each: mark, name, detail. The marks are check marks where `utf8` says the terminal has
 * them, and words elsewhere. */
void oom_capabilities_print(FILE *out, bool utf8);

/* "0.1.0", and the commit it was built from ("unknown" outside git, "-dirty" with changes). */
const char *oom_version(void);
const char *oom_commit(void);

#endif
