#include "harness/base/file.h"
#include "harness/verify/job.h"
#include "kernels/hostmem.h"

#include <stdio.h>
#include <string.h>

static const uint64_t result_magic = 0x6f6f6d726573756c; /* "oomresul" */

void oom_job_path(const struct oom_job *job, const char *what, int step,
                  char out[OOM_JOB_PATH_MAX + 32]) {
    if (step < 0) {
        snprintf(out, OOM_JOB_PATH_MAX + 32, "%s/%s", job->directory, what);
    } else {
        snprintf(out, OOM_JOB_PATH_MAX + 32, "%s/%s-%d", job->directory, what, step);
    }
}

static enum oom_status read_struct(const char *path, void *out, size_t bytes) {
    char *data;
    size_t found;
    OOM_TRY(oom_file_read(path, bytes, &data, &found));
    if (found == bytes) memcpy(out, data, bytes);
    oom_host_free(data);
    if (found == bytes) return OOM_OK;
    return oom_fail(OOM_IO, "'%s' has %zu bytes, expected %zu", path, found, bytes);
}

enum oom_status oom_job_write(const struct oom_job *job) {
    char path[OOM_JOB_PATH_MAX + 32];
    oom_job_path(job, "job", -1, path);
    return oom_file_write(path, job, sizeof *job);
}

enum oom_status oom_job_read(const char *directory, struct oom_job *out) {
    char path[OOM_JOB_PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/job", directory);
    return read_struct(path, out, sizeof *out);
}

enum oom_status oom_job_result_write(const struct oom_job *job,
                                     const struct oom_job_result *result) {
    char path[OOM_JOB_PATH_MAX + 32];
    struct oom_job_result copy = *result;
    copy.magic = result_magic;
    oom_job_path(job, "result", -1, path);
    return oom_file_write(path, &copy, sizeof copy);
}

enum oom_status oom_job_result_read(const struct oom_job *job, struct oom_job_result *out) {
    char path[OOM_JOB_PATH_MAX + 32];
    oom_job_path(job, "result", -1, path);
    OOM_TRY(read_struct(path, out, sizeof *out));
    if (out->magic == result_magic) return OOM_OK;
    return oom_fail(OOM_IO, "'%s' is no result of a job", path);
}
