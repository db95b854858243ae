#include "harness/verify/recording.h"

#include "harness/base/file.h"
#include "harness/memory/replay.h"

#include <stdio.h>

typedef unsigned long long ull; /* for printf */

static void path_of(const struct oom_job *job, char path[OOM_JOB_PATH_MAX + 32]) {
    snprintf(path, OOM_JOB_PATH_MAX + 32, "%s/snapshot.pickle", job->directory);
}

static enum oom_status write_to(const char *path, const struct oom_snapshot *snapshot,
                                enum oom_status (*write)(const struct oom_snapshot *, FILE *)) {
    struct oom_file_writer writer;
    OOM_TRY(oom_file_writer_open(&writer, path));
    enum oom_status status = write(snapshot, writer.file);
    if (status == OOM_OK) return oom_file_writer_commit(&writer);
    oom_file_writer_abandon(&writer);
    return status;
}

enum oom_status oom_recording_write(const struct oom_job *job,
                                    const struct oom_allocator *allocator) {
    struct oom_snapshot snapshot = {0};
    char path[OOM_JOB_PATH_MAX + 32];
    path_of(job, path);
    enum oom_status status = oom_snapshot_take(allocator, &snapshot);
    if (status == OOM_OK) status = write_to(path, &snapshot, oom_snapshot_write_pickle);
    oom_snapshot_free(&snapshot);
    return status;
}

/* ---- replayed ---- */

static const char *compare(const struct oom_report *recorded,
                           const struct oom_replay_verdict *verdict,
                           const struct oom_replay_outcome *outcome, char *why, size_t n) {
    const struct oom_report *again = &outcome->oom;
    if (!verdict->matched) {
        snprintf(why, n, "replay decides otherwise at event %llu: expected %.80s, got %.80s",
                 (ull)verdict->first_event, verdict->expected, verdict->got);
    } else if (outcome->fits) {
        snprintf(why, n, "replayed on a card of the same size, the run fits");
    } else if (again->index != recorded->index || again->rounded != recorded->rounded) {
        snprintf(why, n, "replay fails at allocation %llu of %llu bytes, the run at %llu of %llu",
                 (ull)again->index, (ull)again->rounded, (ull)recorded->index,
                 (ull)recorded->rounded);
    } else {
        return NULL;
    }
    return why;
}

enum oom_status oom_recording_judge(const struct oom_hearing *failed, const char **wrong, char *why,
                                    size_t n) {
    struct oom_snapshot snapshot = {0};
    struct oom_replay_verdict verdict;
    struct oom_replay_outcome outcome;
    struct oom_replay_options options = {.settings_given = true,
                                         .settings = failed->job.settings,
                                         .profile_given = true,
                                         .profile = failed->job.settings.profile};
    char path[OOM_JOB_PATH_MAX + 32];
    path_of(&failed->job, path);
    enum oom_status status = oom_snapshot_read(path, NULL, &snapshot);
    if (status == OOM_OK) status = oom_replay_verify(&snapshot, &options, &verdict);
    if (status == OOM_OK) {
        status = oom_replay_what_if(&snapshot, &options, failed->job.capacity, &outcome);
    }
    oom_snapshot_free(&snapshot);
    OOM_TRY(status);
    *wrong = compare(&failed->result.oom, &verdict, &outcome, why, n);
    return OOM_OK;
}

/* ---- handed out ---- */

enum oom_status oom_recording_export(const struct oom_hearing *hearing,
                                     const struct oom_exports *exports) {
    struct oom_snapshot snapshot = {0};
    char path[OOM_JOB_PATH_MAX + 32];
    path_of(&hearing->job, path);
    enum oom_status status = oom_snapshot_read(path, NULL, &snapshot);
    if (status == OOM_OK && exports->snapshot != NULL) {
        status = write_to(exports->snapshot, &snapshot, oom_snapshot_write_pickle);
    }
    if (status == OOM_OK && exports->trace != NULL) {
        snapshot.capacity = hearing->job.capacity;
        snapshot.profile = hearing->job.settings.profile;
        status = write_to(exports->trace, &snapshot, oom_snapshot_write_json);
    }
    oom_snapshot_free(&snapshot);
    return status;
}
