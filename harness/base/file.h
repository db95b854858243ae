/*
 * file.h: files that are whole or not there, and directories for the time of a run.
 *
 * A writer owns its temporary file until commit() or abandon(); what read() gives is the caller's
 * (oom_host_free). Failure is OOM_IO with path and errno; the target is then as it was before.
 */
#ifndef OOM_HARNESS_BASE_FILE_H
#define OOM_HARNESS_BASE_FILE_H

#include "kernels/status.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct oom_file_writer {
    FILE *file; /* write here; NULL: not open */
    char path[PATH_MAX], temporary[PATH_MAX];
    bool unnamed; /* the temporary file has no name before commit() */
};

/* Makes the temporary file beside `path`, without a name where that can be: a place that cannot be
 * written is found at once. A path that exists and is no regular file (/dev/null, a fifo) is
 * written directly. */
enum oom_status oom_file_writer_open(struct oom_file_writer *writer, const char *path);
/* Flushes, fsyncs, renames, fsyncs the directory. The writer is closed, whatever comes back. */
enum oom_status oom_file_writer_commit(struct oom_file_writer *writer);
/* Removes the temporary file. Harmless on a writer that is not open. */
void oom_file_writer_abandon(struct oom_file_writer *writer);

/* A whole file at once, by the way above. */
enum oom_status oom_file_write(const char *path, const void *data, size_t bytes);

/* The whole file and a NUL after it; more than `limit` bytes are OOM_USAGE. */
enum oom_status oom_file_read(const char *path, size_t limit, char **out, size_t *bytes);

/* A new directory in $TMPDIR or /tmp, for this user only; its name into out (PATH_MAX is enough).
 */
enum oom_status oom_directory_temporary(char *out, size_t n);
/* With all that is in it; symbolic links are removed, not followed. */
enum oom_status oom_directory_remove(const char *path);

#endif
