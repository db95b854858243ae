#include "harness/verify/court.h"

#include "harness/base/file.h"
#include "harness/base/fingerprint.h"
#include "harness/base/process.h"
#include "kernels/hostmem.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Both lists only grow while the court is open. */
struct remembered_hearing {
    struct remembered_hearing *next;
    uint64_t key;
    struct oom_hearing hearing;
};

struct remembered_truth {
    struct remembered_truth *next;
    uint64_t key;
    struct oom_truth truth;
};

struct oom_court {
    struct oom_court_options options;
    char directory[PATH_MAX];
    int jobs;
    struct remembered_hearing *hearings;
    struct remembered_truth *truths;
};

enum oom_status oom_court_open(const struct oom_court_options *options, struct oom_court **out) {
    *out = NULL;
    struct oom_court *court = oom_host_calloc(1, sizeof *court);
    if (court == NULL) return oom_fail(OOM_HOST_NOMEM, "a court");
    court->options = *options;
    enum oom_status status = oom_directory_temporary(court->directory, sizeof court->directory);
    if (status != OOM_OK) {
        oom_host_free(court);
        return status;
    }
    *out = court;
    return OOM_OK;
}

void oom_court_close(struct oom_court *court) {
    if (court == NULL) return;
    for (struct remembered_hearing *h = court->hearings, *next; h != NULL; h = next) {
        next = h->next;
        oom_host_free(h);
    }
    for (struct remembered_truth *t = court->truths, *next; t != NULL; t = next) {
        next = t->next;
        oom_truth_free(&t->truth);
        oom_host_free(t);
    }
    oom_directory_remove(court->directory);
    oom_host_free(court);
}

/* ---- jobs ---- */

/* Two jobs are the same when all but their directories is, and the extra options too. Jobs are
 * made from zeroed memory by struct assignment, so padding is zero; a difference only in padding
 * would merely run a job twice. */
static uint64_t job_key(const struct oom_job *job, const char *const *extra) {
    struct oom_job plain;
    memcpy(&plain, job, sizeof plain);
    memset(plain.directory, 0, sizeof plain.directory);
    struct oom_fingerprint hash;
    oom_fingerprint_init(&hash, 0);
    oom_fingerprint_update(&hash, &plain, sizeof plain);
    for (; extra != NULL && *extra != NULL; extra++) {
        oom_fingerprint_update(&hash, *extra, strlen(*extra) + 1);
    }
    return oom_fingerprint_value(&hash);
}

static enum oom_status make_directory(struct oom_court *court, const char *role,
                                      struct oom_job *job) {
    int n = snprintf(job->directory, sizeof job->directory, "%s/%d-%s", court->directory,
                     court->jobs++, role);
    if (n >= (int)sizeof job->directory) {
        return oom_fail(OOM_USAGE, "TMPDIR: '%s' is too long", court->directory);
    }
    if (mkdir(job->directory, 0700) == 0) return OOM_OK;
    return oom_fail_native(OOM_IO, errno, "'%s': %s", job->directory, strerror(errno));
}

/* The last line that the process wrote on standard error. */
static const char *last_line(char *text) {
    size_t n = strlen(text);
    while (n > 0 && text[n - 1] == '\n') text[--n] = 0;
    char *line = strrchr(text, '\n');
    return line != NULL ? line + 1 : text;
}

static void describe_end(const struct oom_process_result *process, char *err, char *out, size_t n) {
    char how[48];
    oom_process_describe(process, how, sizeof how);
    snprintf(out, n, "%s%s%.40s", how, err[0] != 0 ? ": " : "", last_line(err));
}

static enum oom_status execute(struct oom_court *court, struct oom_hearing *hearing,
                               const char *const *extra) {
    enum { ARGUMENTS_MAX = 8 };
    char *argv[ARGUMENTS_MAX + 4] = {(char *)(uintptr_t)court->options.self, "step",
                                     hearing->job.directory};
    int argc = 3;
    for (; extra != NULL && *extra != NULL && argc < ARGUMENTS_MAX + 3; extra++) {
        argv[argc++] = (char *)(uintptr_t)*extra;
    }
    struct oom_process_options options = {.argv = argv, .timeout = court->options.timeout};
    struct oom_process_result *process = oom_host_alloc(sizeof *process);
    if (process == NULL) return oom_fail(OOM_HOST_NOMEM, "a process's result");
    enum oom_status status = oom_process_run(&options, process);
    if (status == OOM_OK) {
        hearing->finished = process->exit_code == 0;
        if (!hearing->finished) {
            describe_end(process, process->err, hearing->end, sizeof hearing->end);
        }
    }
    oom_host_free(process);
    if (status != OOM_OK || !hearing->finished) return status;
    return oom_job_result_read(&hearing->job, &hearing->result);
}

enum oom_status oom_court_hear(struct oom_court *court, const char *role, const struct oom_job *job,
                               const char *const *extra, const struct oom_hearing **out) {
    uint64_t key = job_key(job, extra);
    for (struct remembered_hearing *h = court->hearings; h != NULL; h = h->next) {
        if (h->key == key) {
            *out = &h->hearing;
            return OOM_OK;
        }
    }
    if (court->options.progress != NULL) court->options.progress(court->options.user, role);
    struct remembered_hearing *entry = oom_host_calloc(1, sizeof *entry);
    if (entry == NULL) return oom_fail(OOM_HOST_NOMEM, "a hearing");
    entry->key = key;
    entry->hearing.job = *job;
    enum oom_status status = make_directory(court, role, &entry->hearing.job);
    if (status == OOM_OK) status = oom_job_write(&entry->hearing.job);
    if (status == OOM_OK) status = execute(court, &entry->hearing, extra);
    if (status != OOM_OK) { /* not heard: the next who asks shall try again */
        oom_host_free(entry);
        return status;
    }
    entry->next = court->hearings;
    court->hearings = entry;
    *out = &entry->hearing;
    return OOM_OK;
}

void oom_court_forget(struct oom_court *court, const struct oom_hearing *hearing) {
    for (struct remembered_hearing **at = &court->hearings; *at != NULL; at = &(*at)->next) {
        struct remembered_hearing *entry = *at;
        if (&entry->hearing != hearing) continue;
        *at = entry->next;
        oom_directory_remove(entry->hearing.job.directory);
        oom_host_free(entry);
        return;
    }
}

/* ---- truths ---- */

static enum oom_status hash_file(const struct oom_job *job, const char *what, int step,
                                 struct oom_fingerprint *hash) {
    char path[OOM_JOB_PATH_MAX + 32];
    oom_job_path(job, what, step, path);
    FILE *file = fopen(path, "rbe");
    if (file == NULL) {
        return oom_fail_native(OOM_IO, errno, "'%s' cannot be read: %s", path, strerror(errno));
    }
    uint8_t bytes[16384];
    for (size_t n; (n = fread(bytes, 1, sizeof bytes, file)) > 0;) {
        oom_fingerprint_update(hash, bytes, n);
    }
    fclose(file);
    return OOM_OK;
}

static enum oom_status truth_key(const struct oom_job *job, int step, int64_t samples,
                                 uint64_t *key) {
    struct oom_fingerprint hash;
    char spec[OOM_SPEC_TEXT_MAX];
    oom_model_spec_text(&job->trainer.spec, spec);
    oom_fingerprint_init(&hash, 1);
    oom_fingerprint_update(&hash, spec, strlen(spec) + 1);
    oom_fingerprint_update(&hash, job->data, strlen(job->data) + 1);
    int64_t numbers[] = {
        (int64_t)job->dtype, (int64_t)job->trainer.seed, samples,
        job->distinct,       job->token_weights,         job->trainer.spec.dropout > 0 ? step : 0};
    oom_fingerprint_update(&hash, numbers, sizeof numbers);
    OOM_TRY(hash_file(job, "weights", step, &hash));
    if (oom_job_keeps_branches(job)) OOM_TRY(hash_file(job, "branches", step, &hash));
    *key = oom_fingerprint_value(&hash);
    return OOM_OK;
}

enum oom_status oom_court_truth(struct oom_court *court, const struct oom_job *job, int step,
                                int64_t samples, const struct oom_truth **out) {
    uint64_t key;
    OOM_TRY(truth_key(job, step, samples, &key));
    for (struct remembered_truth *t = court->truths; t != NULL; t = t->next) {
        if (t->key == key) {
            *out = &t->truth;
            return OOM_OK;
        }
    }
    if (court->options.progress != NULL) court->options.progress(court->options.user, "truth");
    struct remembered_truth *entry = oom_host_calloc(1, sizeof *entry);
    if (entry == NULL) return oom_fail(OOM_HOST_NOMEM, "a truth");
    enum oom_status status = oom_truth_make(job, step, samples, &entry->truth);
    if (status != OOM_OK) {
        oom_host_free(entry);
        return status;
    }
    entry->key = key;
    entry->next = court->truths;
    court->truths = entry;
    *out = &entry->truth;
    return OOM_OK;
}
