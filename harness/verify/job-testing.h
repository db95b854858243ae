/*
 * job-testing.h: for tests only: a folder for a job's files, and a small job to begin with.
 */
#ifndef OOM_HARNESS_VERIFY_JOB_TESTING_H
#define OOM_HARNESS_VERIFY_JOB_TESTING_H

#include "harness/verify/job.h"
#include "kernels/hostmem.h"
#include "kernels/testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline void folder_make(char *out, size_t n) {
    snprintf(out, n, "/tmp/oombench-job-XXXXXX");
    CHECK(mkdtemp(out) != NULL);
}

static inline void folder_remove(const char *folder) {
    static const char *const names[] = {"job",         "result",      "state",     "gradients-0",
                                        "gradients-1", "weights-0",   "weights-1", "branches-0",
                                        "branches-1",  "gradients-2", "weights-2", "branches-2"};
    char path[OOM_JOB_PATH_MAX + 32];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    CHECK_EQ(rmdir(folder), 0);
}

/* Two steps of AdamW over `samples` samples of 4 distinct ones, whole, captured into `folder`. */
static inline struct oom_job small_job(const char *model, int64_t samples, const char *folder) {
    struct oom_job job = {.capacity = 64 << 20,
                          .threads = 1,
                          .settings = oom_allocator_settings_default(),
                          .trainer = {.seed = 3, .optimizer = OOM_OPTIMIZER_ADAMW},
                          .dtype = OOM_F32,
                          .steps = 2,
                          .samples = samples,
                          .distinct = 4,
                          .rule = OOM_RULE_FIXED,
                          .most = samples,
                          .capture = true};
    CHECK_OK(oom_model_spec_parse(model, &job.trainer.spec));
    job.settings.trace_entries = 0;
    snprintf(job.device, sizeof job.device, "host");
    snprintf(job.directory, sizeof job.directory, "%s", folder);
    return job;
}

/* All of a job's file; the caller frees it. */
static inline uint8_t *job_file(const struct oom_job *job, const char *what, int step,
                                size_t *bytes) {
    char path[OOM_JOB_PATH_MAX + 32];
    oom_job_path(job, what, step, path);
    FILE *file = fopen(path, "rbe");
    uint8_t *data = NULL;
    *bytes = 0;
    CHECK_MSG(file != NULL, "%s is there", path);
    if (file == NULL) return NULL;
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    data = oom_host_alloc((size_t)size + 1);
    if (CHECK(data != NULL)) *bytes = fread(data, 1, (size_t)size, file);
    CHECK_EQ(*bytes, size);
    fclose(file);
    return data;
}

#endif
