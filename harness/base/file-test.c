#include "harness/base/file.h"

#include "kernels/hostmem.h"
#include "kernels/testing.h"

#include <dirent.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void file_test(void);

static char directory[PATH_MAX - 64];

static const char *in_directory(const char *name) {
    static char path[2][PATH_MAX];
    static int turn;
    turn = !turn;
    snprintf(path[turn], PATH_MAX, "%s/%s", directory, name);
    return path[turn];
}

static void check_content(const char *path, const char *expected) {
    char *text = NULL;
    size_t bytes = 0;
    CHECK_OK(oom_file_read(path, 1 << 20, &text, &bytes));
    CHECK_STR(text, expected);
    CHECK_EQ(bytes, strlen(expected));
    oom_host_free(text);
}

static int entries(void) {
    int count = 0;
    DIR *listing = opendir(directory);
    if (!CHECK(listing != NULL)) return -1;
    while (readdir(listing) != NULL) count++;
    closedir(listing);
    return count;
}

static void whole_or_not(void) {
    struct oom_file_writer writer;
    TEST("file: appears whole at commit, and replaces whole");
    CHECK_OK(oom_file_writer_open(&writer, in_directory("a")));
    fputs("one", writer.file);
    fflush(writer.file);
    CHECK(access(in_directory("a"), F_OK) != 0);
    CHECK_OK(oom_file_writer_commit(&writer));
    check_content(in_directory("a"), "one");
    CHECK_OK(oom_file_writer_open(&writer, in_directory("a")));
    fputs("two", writer.file);
    check_content(in_directory("a"), "one");
    oom_file_writer_abandon(&writer);
    oom_file_writer_abandon(&writer); /* harmless */
    check_content(in_directory("a"), "one");
    CHECK_OK(oom_file_write(in_directory("a"), "three", 5));
    check_content(in_directory("a"), "three");
    CHECK_EQ(oom_file_writer_commit(&writer), OOM_INVALID);
    oom_failure_clear();
    TEST("file: a link is written through, and the mode stays");
    chmod(in_directory("a"), 0640);
    CHECK_EQ(symlink("a", in_directory("link")), 0);
    CHECK_OK(oom_file_write(in_directory("link"), "four", 4));
    struct stat info;
    CHECK(lstat(in_directory("link"), &info) == 0 && S_ISLNK(info.st_mode));
    check_content(in_directory("a"), "four");
    CHECK(stat(in_directory("a"), &info) == 0 && (info.st_mode & 0777) == 0640);
    TEST("file: a writer that is killed leaves nothing, where files need no name");
    int before = entries();
    CHECK_OK(oom_file_writer_open(&writer, in_directory("killed")));
    if (writer.unnamed) {
        CHECK_EQ(entries(), before);
    } else {
        SKIP("no O_TMPFILE here");
    }
    oom_file_writer_abandon(&writer);
    CHECK_EQ(entries(), before);
    TEST("file: an empty one");
    CHECK_OK(oom_file_write(in_directory("empty"), NULL, 0));
    check_content(in_directory("empty"), "");
}

static void failures(void) {
    struct oom_file_writer writer;
    char *text = NULL;
    size_t bytes;
    TEST("file: a place that cannot be written is found at open");
    CHECK_EQ(oom_file_writer_open(&writer, in_directory("none/x")), OOM_IO);
    CHECK(strstr(oom_failure_last()->message, "none/x") != NULL);
    CHECK_EQ(oom_failure_last()->native, 2); /* ENOENT */
    oom_failure_clear();
    CHECK_EQ(oom_file_writer_open(&writer, directory), OOM_IO);
    oom_failure_clear();
    CHECK_EQ(oom_file_writer_open(&writer, in_directory("a/x")), OOM_IO);
    oom_failure_clear();
    CHECK_EQ(oom_file_writer_open(&writer, ""), OOM_IO);
    oom_failure_clear();
    TEST("file: a full disk is told at commit");
    if (access("/dev/full", W_OK) == 0) {
        CHECK_EQ(oom_file_write("/dev/full", "x", 1), OOM_IO);
        CHECK_EQ(oom_failure_last()->native, 28); /* ENOSPC */
        oom_failure_clear();
    } else {
        SKIP("no /dev/full");
    }
    TEST("file: special files are written directly");
    CHECK_OK(oom_file_write("/dev/null", "x", 1));
    struct stat info;
    CHECK(stat("/dev/null", &info) == 0 && S_ISCHR(info.st_mode));
    TEST("file: limits and errors of reading");
    CHECK_EQ(oom_file_read(in_directory("none"), 10, &text, &bytes), OOM_IO);
    oom_failure_clear();
    CHECK_EQ(oom_file_read(directory, 10, &text, &bytes), OOM_IO);
    oom_failure_clear();
    CHECK_OK(oom_file_write(in_directory("ten"), "0123456789", 10));
    CHECK_EQ(oom_file_read(in_directory("ten"), 9, &text, &bytes), OOM_USAGE);
    oom_failure_clear();
    CHECK_OK(oom_file_read(in_directory("ten"), 10, &text, &bytes));
    CHECK_EQ(bytes, 10);
    oom_host_free(text);
    CHECK_OK(oom_file_read("/proc/self/status", 1 << 20, &text, &bytes)); /* stat says 0 bytes */
    CHECK(bytes > 100 && strlen(text) == bytes);
    oom_host_free(text);
    TEST("file: no host memory for reading");
    oom_host_fail_at(1);
    CHECK_EQ(oom_file_read(in_directory("ten"), 10, &text, &bytes), OOM_HOST_NOMEM);
    oom_host_fail_at(0);
    oom_failure_clear();
}

static void directories(void) {
    char outside[PATH_MAX];
    struct stat info;
    TEST("file: a directory is removed with all in it, and nothing beyond its links");
    CHECK_OK(oom_directory_temporary(outside, sizeof outside));
    CHECK(stat(outside, &info) == 0 && (info.st_mode & 0777) == 0700);
    CHECK_EQ(mkdir(in_directory("deep"), 0700), 0);
    CHECK_EQ(mkdir(in_directory("deep/er"), 0700), 0);
    CHECK_OK(oom_file_write(in_directory("deep/er/x"), "x", 1));
    CHECK_EQ(symlink(outside, in_directory("deep/out")), 0);
    CHECK_OK(oom_directory_remove(directory));
    CHECK(stat(directory, &info) != 0);
    CHECK(stat(outside, &info) == 0);
    CHECK_OK(oom_directory_remove(outside));
    CHECK_EQ(oom_directory_remove(outside), OOM_IO);
    oom_failure_clear();
}

void file_test(void) {
    TEST("file: a temporary directory");
    CHECK_OK(oom_directory_temporary(directory, sizeof directory));
    whole_or_not();
    failures();
    directories();
}
