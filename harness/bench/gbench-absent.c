/* gbench-absent.c: what gbench.h says where Google Benchmark was not found at build time; the build
 * takes this file or gbench.cc. */
#include "harness/bench/gbench.h"

static const char why[] = "Google Benchmark was not found when this program was built";

bool oom_gbench_present(void) {
    return false;
}

const char *oom_gbench_note(void) {
    return why;
}

enum oom_status oom_gbench_flags(int argc, const char *const *argv, bool *reports) {
    *reports = false;
    if (argc == 0) return OOM_OK;
    return oom_fail(OOM_ABSENT, "%.60s: %s", argv[0], why);
}

enum oom_status oom_gbench_run(const struct oom_gbench_entry *entries, int count, bool reports,
                               struct oom_gbench_result *results) {
    (void)entries, (void)count, (void)reports, (void)results;
    return oom_fail(OOM_ABSENT, "%s", why);
}
