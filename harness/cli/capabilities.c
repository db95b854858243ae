/*
 * capabilities.c: the table that ci/probe made, compiled in, so that a report from another machine
 * says how its program was built.
 */
#include "harness/cli/capabilities.h"

#include "generated/capabilities.h"
#include "generated/version.h"

static const struct oom_capability rows[] = {
#define X(name, present, detail) {name, present, detail},
    OOM_CAPABILITY_MAP(X)
#undef X
};

const struct oom_capability *oom_capabilities(size_t *count) {
    *count = sizeof rows / sizeof rows[0];
    return rows;
}

void oom_capabilities_print(FILE *out, bool utf8) {
    const char *yes = utf8 ? "\xe2\x9c\x93" : "yes";
    const char *no = utf8 ? "\xe2\x9c\x97" : "no ";
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        fprintf(out, "  %s %-16s %s\n", rows[i].present ? yes : no, rows[i].name, rows[i].detail);
}

const char *oom_version(void) {
    return OOM_VERSION;
}

const char *oom_commit(void) {
    return OOM_COMMIT;
}
