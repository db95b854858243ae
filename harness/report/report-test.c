#include "harness/report/sample-records.h"

#include <dirent.h>
#include <sys/wait.h>

void report_test(void);

static char directory[100];

static char *in_directory(const char *name) {
    static char path[160];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static int entries(void) {
    int count = 0;
    DIR *stream = opendir(directory);
    while (stream != NULL && readdir(stream) != NULL) count++;
    if (stream != NULL) closedir(stream);
    return count - 2;
}

static enum oom_status opened(const struct oom_report_paths *paths, struct oom_reporter **out) {
    struct oom_case_record records[OOM_SAMPLE_COUNT], announced[OOM_SAMPLE_COUNT];
    static struct oom_run_context context;
    context = oom_sample_context();
    oom_sample_fill(records);
    oom_sample_announce(records, announced);
    return oom_reporter_open(paths, &context, announced, OOM_SAMPLE_COUNT, out);
}

static void refusals(void) {
    struct oom_reporter *reporter = NULL;
    TEST("report: a path that cannot be written is found at once, and nothing is left");
    char tap[160];
    snprintf(tap, sizeof tap, "%s", in_directory("run.tap"));
    struct oom_report_paths paths = {.tap = tap, .junit = in_directory("none/run.xml")};
    CHECK_EQ(opened(&paths, &reporter), OOM_IO);
    CHECK(strstr(oom_failure_last()->message, "none/run.xml") != NULL);
    CHECK(reporter == NULL);
    CHECK_EQ(entries(), 0);
    oom_failure_clear();
    TEST("report: standard output holds one report");
    paths = (struct oom_report_paths){.tap = "-", .json = "-"};
    CHECK_EQ(opened(&paths, &reporter), OOM_USAGE);
    CHECK_STR(oom_failure_last()->message,
              "standard output holds one report: tap or json, not both");
    oom_failure_clear();
    paths = (struct oom_report_paths){.format = OOM_FORMAT_TAP, .junit = "-"};
    CHECK_EQ(opened(&paths, &reporter), OOM_USAGE);
    oom_failure_clear();
    paths = (struct oom_report_paths){.format = OOM_FORMAT_COUNT};
    CHECK_EQ(opened(&paths, &reporter), OOM_INVALID);
    oom_failure_clear();
    TEST("report: the same format twice is one report");
    paths = (struct oom_report_paths){.format = OOM_FORMAT_TAP, .tap = "-"};
    char *text = oom_sample_capture(&paths, 0, 1);
    CHECK(text != NULL && strstr(strstr(text, "TAP") + 3, "TAP version") == NULL);
    oom_host_free(text);
}

/* In a child, whose standard output is a file: the reporter's is not the test's. */
static void wrong_records(void) {
    struct oom_case_record records[OOM_SAMPLE_COUNT];
    struct oom_reporter *reporter;
    const struct oom_report_paths paths = {.tap = in_directory("run.tap")};
    int failures = 0;
    oom_sample_fill(records);
    if (opened(&paths, &reporter) != OOM_OK) _exit(99);
    failures += oom_reporter_case(reporter, &records[0]) != OOM_OK;
    failures += oom_reporter_case(reporter, &records[0]) != OOM_INVALID; /* twice */
    records[1].id[0] = 'L';
    failures += oom_reporter_case(reporter, &records[1]) != OOM_INVALID; /* not announced */
    records[2].is_control = false;
    failures += oom_reporter_case(reporter, &records[2]) != OOM_INVALID; /* the other kind */
    struct oom_report_totals totals = oom_reporter_totals(reporter);
    failures += totals.passed != 1 || totals.failed != 0 || totals.skipped != 0;
    failures += access(in_directory("run.tap"), F_OK) == 0; /* not before it is complete */
    failures += oom_reporter_close(reporter) != OOM_OK;
    fflush(stdout);
    _exit(failures);
}

static int in_child(void (*run)(void)) {
    int state = 0;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, 1);
        dup2(null, 2);
        run();
        _exit(98);
    }
    waitpid(pid, &state, 0);
    return WIFEXITED(state) ? WEXITSTATUS(state) : -1;
}

static void plan_kept(void) {
    char *text = NULL;
    size_t bytes;
    TEST("report: records that were not announced are refused; those that never came are errors");
    CHECK_EQ(in_child(wrong_records), 0);
    CHECK_OK(oom_file_read(in_directory("run.tap"), 1 << 20, &text, &bytes));
    CHECK(text != NULL && strstr(text, "\n1..39\n") != NULL);
    CHECK(text != NULL && strstr(text, "\nnot ok 39 - ") != NULL);
    CHECK(text != NULL && strstr(text, "reason: 'the run ended before this case'") != NULL);
    oom_host_free(text);
}

static void die_halfway(void) {
    struct oom_case_record records[OOM_SAMPLE_COUNT];
    struct oom_reporter *reporter;
    const struct oom_report_paths paths = {.json = in_directory("run.json")};
    oom_sample_fill(records);
    if (opened(&paths, &reporter) != OOM_OK) _exit(99);
    if (oom_reporter_case(reporter, &records[0]) != OOM_OK) _exit(99);
    _exit(0);
}

static void last_complete(void) {
    char *text = NULL;
    size_t bytes;
    TEST("report: a run that dies leaves the last complete file");
    CHECK_OK(oom_file_write(in_directory("run.json"), "{}", 2));
    CHECK_EQ(in_child(die_halfway), 0);
    CHECK_OK(oom_file_read(in_directory("run.json"), 100, &text, &bytes));
    CHECK_STR(text, "{}");
    oom_host_free(text);
}

static void no_memory(void) {
    uint64_t before = oom_host_bytes_current();
    int failed = 0;
    TEST("report: no host memory, wherever it happens, is told and nothing leaks");
    for (uint64_t n = 1; n <= 12; n++) {
        const struct oom_report_paths paths = {.format = OOM_FORMAT_TAP};
        fflush(stdout);
        int out = dup(1), err = dup(2), null = open("/dev/null", O_WRONLY);
        dup2(null, 1);
        dup2(null, 2);
        oom_host_fail_at(n);
        enum oom_status status = oom_sample_report(&paths, 0, OOM_SAMPLE_COUNT);
        oom_host_fail_at(0);
        fflush(stdout);
        dup2(out, 1);
        dup2(err, 2);
        close(out), close(err), close(null);
        CHECK(status == OOM_OK || status == OOM_HOST_NOMEM);
        failed += status == OOM_HOST_NOMEM;
        oom_failure_clear();
    }
    CHECK(failed >= 3 && failed < 12);
    CHECK_EQ(oom_host_bytes_current(), before);
}

static void full_disk(void) {
    const struct oom_report_paths paths = {.tap = "/dev/full"};
    TEST("report: a full disk is told");
    if (access("/dev/full", W_OK) != 0) {
        SKIP("no /dev/full");
        return;
    }
    fflush(stdout);
    int out = dup(1), null = open("/dev/null", O_WRONLY);
    dup2(null, 1);
    enum oom_status status = oom_sample_report(&paths, 0, OOM_SAMPLE_COUNT);
    fflush(stdout);
    dup2(out, 1);
    close(out), close(null);
    CHECK_EQ(status, OOM_IO);
    oom_failure_clear();
}

void report_test(void) {
    TEST("report: a place for files");
    CHECK_OK(oom_directory_temporary(directory, sizeof directory));
    refusals();
    plan_kept();
    last_complete();
    no_memory();
    full_disk();
    CHECK_OK(oom_directory_remove(directory));
}
