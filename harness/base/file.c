#include "harness/base/file.h"

#include "kernels/hostmem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum oom_status fail_path(const char *what, const char *path) {
    int error = errno;
    return oom_fail_native(OOM_IO, error, "cannot %s \"%.200s\": %s", what, path, strerror(error));
}

static enum oom_status too_long(const char *path) {
    errno = ENAMETOOLONG;
    return fail_path("use", path);
}

/* The directory of path, with its '/' ("" for the current one). */
static size_t directory_bytes(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash == NULL ? 0 : (size_t)(slash - path) + 1;
}

/* The next name to try for a temporary file beside the target. */
static bool name_temporary(struct oom_file_writer *writer) {
    static _Atomic unsigned counter;
    int n = snprintf(writer->temporary, sizeof writer->temporary, "%.*s.oombench-%ld-%u.tmp",
                     (int)directory_bytes(writer->path), writer->path, (long)getpid(),
                     atomic_fetch_add(&counter, 1));
    if (n < (int)sizeof writer->temporary) return true;
    errno = ENAMETOOLONG;
    return false;
}

enum { TRIES = 100 };

static int open_named(struct oom_file_writer *writer) {
    for (int tries = 0; tries < TRIES && name_temporary(writer); tries++) {
        int fd = open(writer->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0 || errno != EEXIST) return fd;
    }
    return -1;
}

/* /proc is how a file without a name gets one. */
static void descriptor_path(int fd, char *out, size_t n) {
    snprintf(out, n, "/proc/self/fd/%d", fd);
}

/* Without a name where the file system can do that: then nothing is left of a process that is
 * killed on the way. */
static int open_temporary(struct oom_file_writer *writer) {
    char directory[PATH_MAX] = ".", self[40];
    size_t bytes = directory_bytes(writer->path);
    if (bytes > 0) snprintf(directory, sizeof directory, "%.*s", (int)bytes, writer->path);
    int fd = name_temporary(writer) ? open(directory, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666) : -1;
    descriptor_path(fd, self, sizeof self);
    writer->unnamed = fd >= 0 && access(self, F_OK) == 0;
    if (writer->unnamed) return fd;
    if (fd >= 0) close(fd);
    return open_named(writer);
}

static bool link_unnamed(struct oom_file_writer *writer) {
    char self[40];
    descriptor_path(fileno(writer->file), self, sizeof self);
    for (int tries = 0; tries < TRIES && name_temporary(writer); tries++) {
        bool linked = linkat(AT_FDCWD, self, AT_FDCWD, writer->temporary, AT_SYMLINK_FOLLOW) == 0;
        if (linked) writer->unnamed = false;
        if (linked || errno != EEXIST) return linked;
    }
    return false;
}

/* A link is written through: its target is what gets replaced. */
static enum oom_status target_resolve(const char *path, char *out, struct stat *info, bool *there) {
    *there = stat(path, info) == 0;
    size_t bytes = strlen(path);
    bool names_file = bytes > 0 && path[bytes - 1] != '/';
    if (!*there && (errno != ENOENT || !names_file)) return fail_path("write", path);
    if (*there && S_ISDIR(info->st_mode)) {
        errno = EISDIR;
        return fail_path("write", path);
    }
    bool regular = *there && S_ISREG(info->st_mode);
    if (regular) return realpath(path, out) != NULL ? OOM_OK : fail_path("write", path);
    if (bytes >= PATH_MAX) return too_long(path);
    strcpy(out, path);
    return OOM_OK;
}

enum oom_status oom_file_writer_open(struct oom_file_writer *writer, const char *path) {
    struct stat info;
    bool there;
    writer->file = NULL;
    writer->temporary[0] = 0;
    writer->unnamed = false;
    OOM_TRY(target_resolve(path, writer->path, &info, &there));
    bool direct = there && !S_ISREG(info.st_mode);
    int fd = direct ? open(path, O_WRONLY | O_CLOEXEC) : open_temporary(writer);
    if (fd < 0) {
        writer->temporary[0] = 0;
        return fail_path("write", path);
    }
    if (there && !direct) (void)!fchmod(fd, info.st_mode & 07777); /* as before, where allowed */
    writer->file = fdopen(fd, "w");
    if (writer->file != NULL) return OOM_OK;
    enum oom_status status = fail_path("write", path);
    close(fd);
    oom_file_writer_abandon(writer);
    return status;
}

static bool sync_all(int fd) {
    return fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP || errno == EROFS;
}

static void directory_sync(const char *path) {
    char directory[PATH_MAX] = ".";
    size_t bytes = directory_bytes(path);
    if (bytes > 0) {
        memcpy(directory, path, bytes);
        directory[bytes] = 0;
    }
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return; /* a directory that may be written, not read: the rename stands */
    (void)sync_all(fd);
    close(fd);
}

enum oom_status oom_file_writer_commit(struct oom_file_writer *writer) {
    if (writer->file == NULL) return oom_fail(OOM_INVALID, "commit of a file that is not open");
    enum oom_status status = OOM_OK;
    if (ferror(writer->file) || fflush(writer->file) != 0 || !sync_all(fileno(writer->file)))
        status = fail_path("write", writer->path);
    if (status == OOM_OK && writer->unnamed && !link_unnamed(writer))
        status = fail_path("write", writer->path);
    if (fclose(writer->file) != 0 && status == OOM_OK) status = fail_path("write", writer->path);
    writer->file = NULL;
    bool renames = writer->temporary[0] != 0;
    if (status == OOM_OK && renames && rename(writer->temporary, writer->path) != 0)
        status = fail_path("replace", writer->path);
    if (status == OOM_OK && renames) {
        writer->temporary[0] = 0;
        directory_sync(writer->path);
    }
    oom_file_writer_abandon(writer);
    return status;
}

void oom_file_writer_abandon(struct oom_file_writer *writer) {
    if (writer->file != NULL) fclose(writer->file);
    writer->file = NULL;
    if (writer->temporary[0] != 0 && !writer->unnamed) unlink(writer->temporary);
    writer->temporary[0] = 0;
}

enum oom_status oom_file_write(const char *path, const void *data, size_t bytes) {
    struct oom_file_writer writer;
    OOM_TRY(oom_file_writer_open(&writer, path));
    if (bytes > 0 && fwrite(data, 1, bytes, writer.file) != bytes) {
        enum oom_status status = fail_path("write", path);
        oom_file_writer_abandon(&writer);
        return status;
    }
    return oom_file_writer_commit(&writer);
}

/* ---- reading ---- */

/* Reads to the end of the file; the size that stat says is a first guess only (/proc says 0). */
static enum oom_status read_all(int fd, const char *path, size_t guess, size_t limit, char **out,
                                size_t *bytes) {
    size_t capacity = (guess < limit ? guess : limit) + 2, used = 0;
    char *data = oom_host_alloc(capacity);
    while (data != NULL) {
        ssize_t got = read(fd, data + used, capacity - 1 - used);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            enum oom_status status = fail_path("read", path);
            oom_host_free(data);
            return status;
        }
        used += (size_t)got;
        if (used > limit) {
            oom_host_free(data);
            return oom_fail(OOM_USAGE, "%.200s: more than %zu bytes; no more are read", path,
                            limit);
        }
        if (got == 0) {
            data[used] = 0;
            *out = data;
            *bytes = used;
            return OOM_OK;
        }
        if (used < capacity - 1) continue;
        size_t larger = capacity > SIZE_MAX / 4 ? 0 : capacity * 2;
        char *grown = larger > 0 ? oom_host_realloc(data, larger) : NULL;
        if (grown == NULL) oom_host_free(data);
        data = grown;
        capacity = larger;
    }
    return oom_fail(OOM_HOST_NOMEM, "%.200s: no host memory to read it", path);
}

enum oom_status oom_file_read(const char *path, size_t limit, char **out, size_t *bytes) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail_path("read", path);
    struct stat info;
    size_t guess = fstat(fd, &info) == 0 && info.st_size > 0 ? (size_t)info.st_size : 4096;
    enum oom_status status = read_all(fd, path, guess, limit, out, bytes);
    close(fd);
    return status;
}

/* ---- directories ---- */

enum oom_status oom_directory_temporary(char *out, size_t n) {
    const char *base = getenv("TMPDIR");
    if (base == NULL || *base == 0) base = "/tmp";
    if (snprintf(out, n, "%s/oombench-XXXXXX", base) >= (int)n) return too_long(base);
    return mkdtemp(out) != NULL ? OOM_OK : fail_path("make a directory in", base);
}

static bool directory_empty(int parent, const char *name);

static bool entry_remove(int fd, const char *name) {
    if (unlinkat(fd, name, 0) == 0) return true;
    if (errno != EISDIR && errno != EPERM) return false;
    return directory_empty(fd, name) && unlinkat(fd, name, AT_REMOVEDIR) == 0;
}

static bool directory_empty(int parent, const char *name) {
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
    if (directory == NULL) {
        if (fd >= 0) close(fd);
        return false;
    }
    bool ok = true;
    int error = 0;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (entry_remove(fd, entry->d_name)) continue;
        error = errno;
        ok = false;
    }
    closedir(directory);
    errno = error;
    return ok;
}

enum oom_status oom_directory_remove(const char *path) {
    if (!directory_empty(AT_FDCWD, path) || rmdir(path) != 0) return fail_path("remove", path);
    return OOM_OK;
}
