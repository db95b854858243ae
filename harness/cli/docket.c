/*
 * docket.c: a scenario's rows as a file, from the process that made them to the one that runs them:
 * making them searches sizes on the dry device, which is not done twice. Both ends are the same
 * binary, and rows are plain values until they run.
 */
#include "harness/base/file.h"
#include "harness/cli/scenario.h"
#include "kernels/hostmem.h"

enum { FILE_MOST = 64 << 20 };

enum oom_status oom_docket_write(const struct oom_docket *docket, const char *path) {
    return oom_file_write(path, docket->rows, (size_t)docket->count * sizeof *docket->rows);
}

enum oom_status oom_docket_read(const char *path, struct oom_docket *out) {
    char *data;
    size_t bytes;
    *out = (struct oom_docket){0};
    OOM_TRY(oom_file_read(path, FILE_MOST, &data, &bytes));
    if (bytes % sizeof *out->rows != 0) {
        oom_host_free(data);
        return oom_fail(OOM_IO, "'%s' has %zu bytes, not a multiple of %zu", path, bytes,
                        sizeof *out->rows);
    }
    out->rows = (struct oom_scenario_case *)(void *)data; /* aligned to 64 */
    out->count = out->capacity = (int)(bytes / sizeof *out->rows);
    return OOM_OK;
}
