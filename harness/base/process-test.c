#include "harness/base/process.h"

#include "harness/base/file.h"
#include "kernels/hostmem.h"
#include "kernels/testing.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

void process_test(void);

static struct oom_process_result result;

static char shell[] = "/bin/sh", dash_c[] = "-c";

static enum oom_status run(const char *script, struct oom_process_options options) {
    char text[400];
    snprintf(text, sizeof text, "%s", script);
    char *argv[] = {shell, dash_c, text, NULL};
    options.argv = argv;
    return oom_process_run(&options, &result);
}

static enum oom_status start(const char *script, struct oom_process_options options,
                             struct oom_process **out) {
    char text[400];
    snprintf(text, sizeof text, "%s", script);
    char *argv[] = {shell, dash_c, text, NULL};
    options.argv = argv;
    return oom_process_start(&options, out);
}

#define NO_OPTIONS \
    (struct oom_process_options) { \
        0 \
    }

static int open_files(void) {
    int count = 0;
    DIR *directory = opendir("/proc/self/fd");
    if (directory == NULL) return -1;
    while (readdir(directory) != NULL) count++;
    closedir(directory);
    return count;
}

static bool is_gone(pid_t pid) {
    for (int i = 0; i < 2000; i++) { /* a killed process may take a moment; never more than 20 s */
        char path[64], *text;
        size_t bytes;
        snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
        if (oom_file_read(path, 4096, &text, &bytes) != OOM_OK) {
            oom_failure_clear();
            return true;
        }
        const char *after = strrchr(text, ')');
        bool zombie = after != NULL && after[1] == ' ' && after[2] == 'Z'; /* its parent's affair */
        oom_host_free(text);
        if (zombie) return true;
        usleep(10000);
    }
    return false;
}

static void endings(void) {
    char text[80];
    TEST("process: exit codes and signals");
    CHECK_OK(run("exit 0", NO_OPTIONS));
    CHECK(result.exit_code == 0 && result.signal == 0 && !result.timed_out);
    CHECK_OK(run("exit 3", NO_OPTIONS));
    CHECK_EQ(result.exit_code, 3);
    CHECK_STR(oom_process_describe(&result, text, sizeof text), "exit code 3");
    CHECK_OK(run("kill -SEGV $$", NO_OPTIONS));
    CHECK(result.exit_code == -1 && result.signal == SIGSEGV);
    CHECK_STR(oom_process_describe(&result, text, sizeof text), "killed by SIGSEGV");
    CHECK(result.max_rss > 100 << 10 && result.seconds > 0);
    TEST("process: what cannot be run is this side's failure");
    char missing[] = "/no/such/program";
    char *argv[] = {missing, NULL};
    struct oom_process_options options = {.argv = argv};
    CHECK_EQ(oom_process_run(&options, &result), OOM_IO);
    CHECK_EQ(oom_failure_last()->native, ENOENT);
    CHECK(strstr(oom_failure_last()->message, missing) != NULL);
    oom_failure_clear();
    options = (struct oom_process_options){.directory = "/no/such/directory"};
    CHECK_EQ(run("exit 0", options), OOM_IO);
    oom_failure_clear();
    CHECK_EQ(run("exit 0", (struct oom_process_options){.line_fd = 2}), OOM_INVALID);
    oom_failure_clear();
}

static void outputs(void) {
    TEST("process: output is kept, the last of it");
    CHECK_OK(run("echo out; echo err >&2", NO_OPTIONS));
    CHECK_STR(result.out, "out\n");
    CHECK_STR(result.err, "err\n");
    CHECK_OK(run("i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done", NO_OPTIONS));
    CHECK_EQ(strlen(result.out), OOM_PROCESS_TAIL);
    CHECK_EQ(result.out_bytes, 10 * 7 + 90 * 8 + 900 * 9 + 2000 * 10);
    CHECK_STR(result.out + OOM_PROCESS_TAIL - 20, "line 2998\nline 2999\n");
    TEST("process: output into files");
    char directory[100], out[128], *text = NULL;
    size_t bytes;
    CHECK_OK(oom_directory_temporary(directory, sizeof directory));
    snprintf(out, sizeof out, "%s/out", directory);
    CHECK_OK(run("echo out; echo err >&2", (struct oom_process_options){.out_path = out}));
    CHECK_OK(oom_file_read(out, 100, &text, &bytes));
    CHECK_STR(text, "out\n");
    CHECK_STR(result.out, "");
    CHECK_STR(result.err, "err\n");
    oom_host_free(text);
    TEST("process: directory, environment, standard input");
    CHECK_OK(run("pwd", (struct oom_process_options){.directory = "/"}));
    CHECK_STR(result.out, "/\n");
    setenv("OOMBENCH_TEST_GONE", "1", 1);
    setenv("OOMBENCH_TEST_KEPT", "2", 1);
    static const char *const additions[] = {"OOMBENCH_TEST_NEW=a b", "OOMBENCH_TEST_GONE", NULL};
    CHECK_OK(run("echo \"$OOMBENCH_TEST_NEW-$OOMBENCH_TEST_GONE-$OOMBENCH_TEST_KEPT\"; cat",
                 (struct oom_process_options){.environment = additions}));
    CHECK_STR(result.out, "a b--2\n");
    unsetenv("OOMBENCH_TEST_GONE");
    unsetenv("OOMBENCH_TEST_KEPT");
    CHECK_OK(oom_directory_remove(directory));
}

static void inheritance(void) {
    TEST("process: the child has standard files only, and its signals as usual");
    int own = dup(0); /* not close-on-exec */
    CHECK_OK(run("ls /proc/self/fd | wc -l", NO_OPTIONS));
    CHECK_EQ(atoi(result.out), 4); /* 0, 1, 2 and that of ls on the directory */
    CHECK_OK(run("ls /proc/self/fd | wc -l", (struct oom_process_options){.line_fd = 9}));
    CHECK_EQ(atoi(result.out), 5);
    close(own);
    CHECK_OK(run("kill -TERM $$; exit 0", NO_OPTIONS));
    CHECK_EQ(result.signal, SIGTERM);
}

static void time_limits(void) {
    TEST("process: at its time limit the whole group dies");
    CHECK_OK(run("sleep 100 & echo $!; wait", (struct oom_process_options){.timeout = 0.3}));
    CHECK(result.timed_out && result.signal == SIGKILL);
    CHECK(atoi(result.out) > 1 && is_gone(atoi(result.out)));
    TEST("process: a child that ends leaves no descendant, and none holds us up");
    CHECK_OK(run("sleep 100 & echo $!; exit 5", NO_OPTIONS));
    CHECK_EQ(result.exit_code, 5);
    CHECK(result.seconds < 50);
    CHECK(atoi(result.out) > 1 && is_gone(atoi(result.out)));
    TEST("process: freed while it runs, it is killed");
    struct oom_process *process;
    bool finished = true;
    CHECK_OK(start("exec sleep 100", NO_OPTIONS, &process));
    CHECK_OK(oom_process_poll(process, 0, &finished));
    CHECK(!finished);
    oom_process_free(process);
    errno = 0;
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD); /* no zombie */
}

struct lines {
    int count;
    char last[64];
    size_t longest;
};

static void line_add(void *user, const char *line) {
    struct lines *lines = user;
    lines->count++;
    snprintf(lines->last, sizeof lines->last, "%s", line);
    if (strlen(line) > lines->longest) lines->longest = strlen(line);
}

static void extra_pipe(void) {
    struct oom_process *process;
    struct lines lines = {0};
    struct oom_process_options options = {.line_fd = 3, .on_line = line_add, .user = &lines};
    bool finished = false;
    TEST("process: lines through an extra pipe, as they come");
    CHECK_OK(start("echo one >&3; echo two >&3; read x; echo -n part >&3; sleep 100", options,
                   &process));
    while (lines.count < 2 && oom_process_poll(process, 0.05, &finished) == OOM_OK && !finished) {}
    CHECK_EQ(lines.count, 2);
    CHECK_STR(lines.last, "two");
    CHECK(!finished);
    oom_process_kill(process);
    CHECK_OK(oom_process_wait(process, &result));
    CHECK_EQ(result.signal, SIGKILL);
    CHECK_EQ(lines.count, 2); /* an unfinished line is none */
    oom_process_free(process);
    TEST("process: many and long lines");
    lines = (struct lines){0};
    CHECK_OK(run("i=0; while [ $i -lt 500 ]; do echo $i >&3; i=$((i+1)); done;"
                 "head -c 300000 /dev/zero | tr '\\0' a >&3; echo >&3",
                 options));
    CHECK_EQ(lines.count, 501);
    CHECK_EQ(lines.longest, 300000);
    lines = (struct lines){0};
    CHECK_OK(run("head -c 3000000 /dev/zero | tr '\\0' a >&3; echo >&3; echo end >&3", options));
    CHECK_EQ(lines.count, 1); /* beyond 1 MiB a line is dropped whole */
    CHECK_STR(lines.last, "end");
}

static void several(void) {
    struct oom_process *processes[2];
    struct lines lines = {0};
    struct oom_process_options options = {.line_fd = 3, .on_line = line_add, .user = &lines};
    int which = 5;
    TEST("process: of several, the one that has ended is told, and all are listened to");
    CHECK_OK(start("echo first >&3; exec sleep 100", options, &processes[0]));
    CHECK_OK(start("read x; echo second >&3; exit 7", options, &processes[1]));
    CHECK_OK(oom_process_poll_any(processes, 2, 100, &which));
    CHECK_EQ(which, 1);
    CHECK_OK(oom_process_wait(processes[1], &result));
    CHECK_EQ(result.exit_code, 7);
    while (lines.count < 2 && oom_process_poll_any(processes, 1, 0.05, &which) == OOM_OK) {}
    CHECK_EQ(lines.count, 2);
    CHECK_OK(oom_process_poll_any(processes, 1, 0.05, &which));
    CHECK_EQ(which, -1); /* the first still sleeps */
    oom_process_kill(processes[0]);
    CHECK_OK(oom_process_poll_any(processes, 1, 100, &which));
    CHECK_EQ(which, 0);
    for (int i = 0; i < 2; i++) oom_process_free(processes[i]);
    TEST("process: of several, each has its own time limit");
    for (int i = 0; i < 2; i++) {
        options.timeout = i == 0 ? 0 : 0.2;
        CHECK_OK(start("exec sleep 100", options, &processes[i]));
    }
    CHECK_OK(oom_process_poll_any(processes, 2, 100, &which));
    CHECK_EQ(which, 1);
    CHECK_OK(oom_process_wait(processes[1], &result));
    CHECK(result.timed_out);
    for (int i = 0; i < 2; i++) oom_process_free(processes[i]);
    CHECK_EQ(oom_process_poll_any(processes, 0, 0, &which), OOM_INVALID);
    oom_failure_clear();
}

/* In a child of the test: holds signals, tells whom it started, and that a signal has come. */
static void holding_parent(int report, bool release) {
    struct oom_process *process;
    struct lines lines = {0};
    struct oom_process_options options = {.line_fd = 3, .on_line = line_add, .user = &lines};
    bool finished = false;
    signal(SIGINT, SIG_DFL);
    bool ready = oom_process_install_signals() == OOM_OK && !oom_process_hold_signals() &&
                 start("echo $$ >&3; exec sleep 100", options, &process) == OOM_OK;
    while (ready && lines.count == 0 && oom_process_poll(process, 0.05, &finished) == OOM_OK) {}
    int pid = ready ? atoi(lines.last) : 0;
    if (write(report, &pid, sizeof pid) != sizeof pid) _exit(1);
    while (!oom_process_hold_signals()) usleep(1000);
    while (!finished && oom_process_poll(process, 1, &finished) == OOM_OK) {}
    if (write(report, &pid, sizeof pid) != sizeof pid) _exit(1);
    while (!release) usleep(1000);
    oom_process_release_signals();
    _exit(0);
}

/* SIGTERM is held; then the parent releases it, or gets SIGINT. The signal it ended by. */
static int end_of_holding(bool release) {
    int told[2], pid = 0, again = 0, state = 0;
    CHECK_EQ(pipe(told), 0);
    fflush(stdout);
    pid_t parent = fork();
    if (parent == 0) holding_parent(told[1], release);
    close(told[1]);
    CHECK_EQ(read(told[0], &pid, sizeof pid), sizeof pid);
    CHECK(pid > 1 && kill(pid, 0) == 0);
    CHECK_EQ(kill(parent, SIGTERM), 0);
    CHECK_EQ(read(told[0], &again, sizeof again), sizeof again); /* it goes on */
    CHECK(pid > 1 && is_gone(pid));
    close(told[0]);
    if (!release) CHECK_EQ(kill(parent, SIGINT), 0);
    CHECK_EQ(waitpid(parent, &state, 0), parent);
    return WIFSIGNALED(state) ? WTERMSIG(state) : 0;
}

static void held_signals(void) {
    TEST("process: a signal that is held ends the children, and this one when it is released");
    CHECK_EQ(end_of_holding(true), SIGTERM);
    TEST("process: a second signal is not held");
    CHECK_EQ(end_of_holding(false), SIGINT);
}

/* In a child of the test: starts another, tells the id that it tells, and waits to be killed. */
static void signalled_parent(int report, const char *script) {
    struct oom_process *process;
    struct lines lines = {0};
    bool finished = false;
    signal(SIGINT, SIG_DFL); /* a shell's background job ignores it, and that is left as it is */
    if (oom_process_install_signals() != OOM_OK) _exit(1);
    struct oom_process_options options = {.line_fd = 3, .on_line = line_add, .user = &lines};
    if (start(script, options, &process) != OOM_OK) _exit(1);
    while (lines.count == 0 && oom_process_poll(process, 0.05, &finished) == OOM_OK) {}
    int pid = atoi(lines.last);
    if (write(report, &pid, sizeof pid) != sizeof pid) _exit(1);
    for (;;) pause();
}

static void signals(void) {
    static const int numbers[] = {SIGINT, SIGTERM, SIGKILL};
    /* A signal that can be handled takes the whole group along; SIGKILL the child itself. */
    static const char group[] = "sleep 100 & echo $! >&3; wait";
    static const char alone[] = "echo $$ >&3; exec sleep 100";
    TEST("process: children die with a parent that is interrupted, ended or killed");
    for (int i = 0; i < 3; i++) {
        int ends[2], pid = 0, state = 0;
        CHECK_EQ(pipe(ends), 0);
        fflush(stdout);
        pid_t parent = fork();
        if (parent == 0) signalled_parent(ends[1], numbers[i] == SIGKILL ? alone : group);
        close(ends[1]);
        CHECK_EQ(read(ends[0], &pid, sizeof pid), sizeof pid);
        close(ends[0]);
        CHECK(pid > 1 && kill(pid, 0) == 0);
        CHECK_EQ(kill(parent, numbers[i]), 0);
        CHECK_EQ(waitpid(parent, &state, 0), parent);
        CHECK(WIFSIGNALED(state) && WTERMSIG(state) == numbers[i]);
        CHECK(pid > 1 && is_gone(pid));
    }
}

static void no_memory(void) {
    TEST("process: no host memory is told, nothing leaks");
    for (uint64_t n = 1; n <= 2; n++) {
        oom_host_fail_at(n);
        CHECK_EQ(run("exit 0", NO_OPTIONS), OOM_HOST_NOMEM);
        oom_failure_clear();
    }
    struct lines lines = {0};
    oom_host_fail_at(3);
    CHECK_EQ(run("echo x >&3",
                 (struct oom_process_options){.line_fd = 3, .on_line = line_add, .user = &lines}),
             OOM_HOST_NOMEM);
    oom_host_fail_at(0);
    oom_failure_clear();
}

void process_test(void) {
    int files = open_files();
    uint64_t bytes = oom_host_bytes_current();
    endings();
    outputs();
    inheritance();
    time_limits();
    extra_pipe();
    several();
    held_signals();
    signals();
    no_memory();
    TEST("process: no file and no memory is left");
    CHECK_EQ(open_files(), files);
    CHECK_EQ(oom_host_bytes_current(), bytes);
}
