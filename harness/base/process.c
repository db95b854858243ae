#include "harness/base/process.h"

#include "kernels/hostmem.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif

enum {
    FD_MIN = 64,        /* the child's ends are moved here, away from 0..2 and line_fd */
    FD_FALLBACK = 4096, /* closed one by one where the kernel has no close_range */
    CHILDREN_MAX = 64,
    SLICE_MS = 20, /* between looks at a child that closed its pipes */
    LINE_MAX_BYTES = 1 << 20,
    UNKILLABLE_SECONDS = 30,
};

/* What is polled of a child: its pipes, and the end of it (a pidfd, where there are such). */
enum channel { CHANNEL_OUT, CHANNEL_ERR, CHANNEL_LINES, CHANNEL_COUNT, END = CHANNEL_COUNT, FDS };

struct oom_process {
    pid_t pid;
    int slot;                /* in `groups` */
    int fds[FDS];            /* our ends; -1: closed or none */
    double started, timeout; /* seconds */
    double killed;           /* when; 0: not */
    bool finished;
    void (*on_line)(void *user, const char *line);
    void *user;
    char *line;
    size_t line_bytes, line_capacity;
    bool line_overlong;
    enum oom_status status; /* first failure of this side */
    struct oom_process_result result;
};

/* The child's half of what start() prepares. */
struct plan {
    char *const *argv;
    char **environment;
    const char *directory;
    int in, out, err, lines, line_fd, report; /* report: errno, if exec fails */
    pid_t parent;
    sigset_t mask;
};

static double now_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* ---- groups to kill when this process is told to end ---- */

static _Atomic pid_t groups[CHILDREN_MAX];
static _Atomic bool holding;
static _Atomic int held_signal;

static int group_slot_take(void) {
    for (int i = 0; i < CHILDREN_MAX; i++) {
        pid_t none = 0;
        if (atomic_compare_exchange_strong(&groups[i], &none, -1)) return i;
    }
    return -1;
}

static void on_signal(int signal_number) {
    for (int i = 0; i < CHILDREN_MAX; i++) {
        pid_t pid = atomic_load(&groups[i]);
        if (pid > 0) kill(-pid, SIGKILL);
    }
    int none = 0;
    if (atomic_load(&holding) && atomic_compare_exchange_strong(&held_signal, &none, signal_number))
        return;
    signal(signal_number, SIG_DFL);
    raise(signal_number); /* delivered on return, as it is blocked meanwhile */
}

bool oom_process_hold_signals(void) {
    atomic_store(&holding, true);
    return atomic_load(&held_signal) != 0;
}

void oom_process_release_signals(void) {
    atomic_store(&holding, false);
    int signal_number = atomic_exchange(&held_signal, 0);
    if (signal_number == 0) return;
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

enum oom_status oom_process_install_signals(void) {
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    for (int i = 0; i < 3; i++) {
        struct sigaction old, action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
        sigemptyset(&action.sa_mask);
        if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler == SIG_IGN)
            continue; /* nohup */
        if (sigaction(signals[i], &action, NULL) != 0)
            return oom_fail_native(OOM_INTERNAL, errno, "sigaction: %s", strerror(errno));
    }
    return OOM_OK;
}

/* ---- the child, between fork and exec: async-signal-safe calls only ---- */

static void child_close_rest(void) {
#ifdef SYS_close_range
    if (syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC) == 0) return;
#endif
    for (int fd = 3; fd < FD_FALLBACK; fd++) fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static void child_signals(const sigset_t *mask) {
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGCHLD};
    for (int i = 0; i < 5; i++) signal(signals[i], SIG_DFL);
    sigprocmask(SIG_SETMASK, mask, NULL);
}

static bool child_files(const struct plan *plan) {
    if (dup2(plan->in, 0) < 0 || dup2(plan->out, 1) < 0 || dup2(plan->err, 2) < 0) return false;
    child_close_rest();
    return plan->line_fd == 0 || dup2(plan->lines, plan->line_fd) >= 0;
}

static void child_run(const struct plan *plan) {
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != plan->parent) _exit(127); /* it ended before prctl */
    if (child_files(plan) && (plan->directory == NULL || chdir(plan->directory) == 0)) {
        child_signals(&plan->mask);
        execve(plan->argv[0], plan->argv, plan->environment);
    }
    int error = errno;
    ssize_t written = write(plan->report, &error, sizeof error);
    _exit(written < 0 ? 126 : 127);
}

/* ---- preparing ---- */

static size_t name_bytes(const char *entry) {
    return strcspn(entry, "=");
}

/* The last of the additions that speaks of the variable, or NULL. */
static const char *addition_find(const char *const *additions, const char *entry) {
    const char *found = NULL;
    size_t bytes = name_bytes(entry);
    for (; additions != NULL && *additions != NULL; additions++) {
        if (name_bytes(*additions) == bytes && memcmp(*additions, entry, bytes) == 0)
            found = *additions;
    }
    return found;
}

/* A new array of borrowed strings. */
static char **environment_make(const char *const *additions) {
    size_t count = 1, n = 0;
    for (char **entry = environ; entry != NULL && *entry != NULL; entry++) count++;
    for (const char *const *entry = additions; entry != NULL && *entry != NULL; entry++) count++;
    char **out = oom_host_alloc(count * sizeof *out);
    if (out == NULL) return NULL;
    for (char **entry = environ; entry != NULL && *entry != NULL; entry++) {
        if (addition_find(additions, *entry) == NULL) out[n++] = *entry;
    }
    for (const char *const *entry = additions; entry != NULL && *entry != NULL; entry++) {
        bool sets = strchr(*entry, '=') != NULL;
        if (sets && addition_find(additions, *entry) == *entry)
            out[n++] = (char *)(uintptr_t)*entry;
    }
    out[n] = NULL;
    return out;
}

/* Moves a descriptor to FD_MIN or above, close-on-exec. */
static int fd_raise(int fd) {
    if (fd < 0) return -1;
    int raised = fcntl(fd, F_DUPFD_CLOEXEC, FD_MIN);
    int error = errno;
    close(fd);
    errno = error;
    return raised;
}

static void fd_close(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

/* The child's end is returned; ours (non-blocking) goes to *own. */
static int pipe_make(int *own) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return -1;
    *own = ends[0];
    if (fcntl(ends[0], F_SETFL, O_NONBLOCK) != 0) {
        close(ends[1]);
        return -1;
    }
    return fd_raise(ends[1]);
}

static int output_open(const char *path, int *own) {
    if (path == NULL) return pipe_make(own);
    return fd_raise(open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
}

static enum oom_status plan_make(const struct oom_process_options *options,
                                 struct oom_process *process, struct plan *plan, int *report) {
    plan->argv = options->argv;
    plan->directory = options->directory;
    plan->line_fd = options->line_fd;
    plan->parent = getpid();
    plan->environment = environment_make(options->environment);
    if (plan->environment == NULL)
        return oom_fail(OOM_HOST_NOMEM, "no host memory to start \"%.80s\"", options->argv[0]);
    plan->in = fd_raise(open("/dev/null", O_RDONLY | O_CLOEXEC));
    plan->out = output_open(options->out_path, &process->fds[CHANNEL_OUT]);
    plan->err = output_open(options->err_path, &process->fds[CHANNEL_ERR]);
    plan->report = pipe_make(report);
    if (options->line_fd != 0) plan->lines = pipe_make(&process->fds[CHANNEL_LINES]);
    bool ok = plan->in >= 0 && plan->out >= 0 && plan->err >= 0 && plan->report >= 0 &&
              (options->line_fd == 0 || plan->lines >= 0);
    if (ok) return OOM_OK;
    return oom_fail_native(OOM_IO, errno, "cannot make files for \"%.80s\": %s", options->argv[0],
                           strerror(errno));
}

static void plan_close(struct plan *plan) {
    fd_close(&plan->in);
    fd_close(&plan->out);
    fd_close(&plan->err);
    fd_close(&plan->lines);
    fd_close(&plan->report);
    oom_host_free(plan->environment);
}

/* Signals are blocked around fork, so that the handler sees the group as soon as it exists. */
static bool plan_fork(struct plan *plan, struct oom_process *process) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &plan->mask);
    pid_t pid = fork();
    if (pid == 0) child_run(plan);
    int error = errno;
    if (pid > 0) {
        setpgid(pid, pid); /* the child does so too; whoever comes first */
        atomic_store(&groups[process->slot], pid);
        process->pid = pid;
#ifdef SYS_pidfd_open
        process->fds[END] = (int)syscall(SYS_pidfd_open, pid, 0);
#endif
    }
    sigprocmask(SIG_SETMASK, &plan->mask, NULL);
    errno = error;
    return pid > 0;
}

/* exec closes the report; text in it is the errno of what went wrong. */
static int exec_error(int report) {
    int error = 0;
    struct pollfd wait = {report, POLLIN, 0};
    while (poll(&wait, 1, -1) < 0 && errno == EINTR) {}
    ssize_t got = read(report, &error, sizeof error);
    return got == (ssize_t)sizeof error ? error : 0;
}

enum oom_status oom_process_start(const struct oom_process_options *options,
                                  struct oom_process **out) {
    *out = NULL;
    bool sane = options->argv != NULL && options->argv[0] != NULL && options->timeout >= 0 &&
                (options->line_fd == 0 || (options->line_fd >= 3 && options->line_fd < FD_MIN));
    if (!sane) return oom_fail(OOM_INVALID, "process: no argv, a negative time or a bad line_fd");
    struct oom_process *process = oom_host_calloc(1, sizeof *process);
    if (process == NULL) return oom_fail(OOM_HOST_NOMEM, "no host memory to start a process");
    for (int i = 0; i < FDS; i++) process->fds[i] = -1;
    process->timeout = options->timeout;
    process->on_line = options->on_line;
    process->user = options->user;
    process->slot = group_slot_take();
    struct plan plan = {.in = -1, .out = -1, .err = -1, .lines = -1, .report = -1};
    int report = -1;
    enum oom_status status = OOM_OK;
    if (process->slot < 0) status = oom_fail(OOM_INVALID, "more than %d children", CHILDREN_MAX);
    if (status == OOM_OK) status = plan_make(options, process, &plan, &report);
    process->started = now_seconds();
    if (status == OOM_OK && !plan_fork(&plan, process))
        status = oom_fail_native(OOM_IO, errno, "fork: %s", strerror(errno));
    plan_close(&plan);
    int error = status == OOM_OK ? exec_error(report) : 0;
    if (error != 0)
        status = oom_fail_native(OOM_IO, error, "cannot run \"%.200s\": %s", options->argv[0],
                                 strerror(error));
    fd_close(&report);
    if (status == OOM_OK) {
        *out = process;
    } else {
        oom_process_free(process);
    }
    return status;
}

/* ---- reading what it writes ---- */

static void tail_add(char *tail, uint64_t *total, const char *data, size_t bytes) {
    size_t held = *total < OOM_PROCESS_TAIL ? (size_t)*total : OOM_PROCESS_TAIL;
    *total += bytes;
    if (bytes > OOM_PROCESS_TAIL) {
        data += bytes - OOM_PROCESS_TAIL;
        bytes = OOM_PROCESS_TAIL;
    }
    size_t kept = held + bytes > OOM_PROCESS_TAIL ? OOM_PROCESS_TAIL - bytes : held;
    memmove(tail, tail + held - kept, kept);
    memcpy(tail + kept, data, bytes);
    tail[kept + bytes] = 0;
}

/* Room for `bytes` more and a NUL. A line beyond the limit is dropped whole: cut, it might read as
 * something else. */
static bool line_room(struct oom_process *process, size_t bytes) {
    size_t needed = process->line_bytes + bytes + 1;
    if (needed <= process->line_capacity) return true;
    if (needed > LINE_MAX_BYTES) {
        process->line_overlong = true;
        return false;
    }
    char *grown = oom_host_realloc(process->line, needed * 2);
    if (grown == NULL) {
        process->status = oom_fail(OOM_HOST_NOMEM, "no host memory for a line of a child");
        process->line_overlong = true;
        return false;
    }
    process->line = grown;
    process->line_capacity = needed * 2;
    return true;
}

static void lines_add(struct oom_process *process, const char *data, size_t bytes) {
    while (bytes > 0) {
        const char *newline = memchr(data, '\n', bytes);
        size_t part = newline != NULL ? (size_t)(newline - data) : bytes;
        if (!process->line_overlong && line_room(process, part)) {
            memcpy(process->line + process->line_bytes, data, part);
            process->line_bytes += part;
            process->line[process->line_bytes] = 0;
        }
        if (newline == NULL) return;
        if (!process->line_overlong && process->on_line != NULL)
            process->on_line(process->user, process->line);
        process->line_bytes = 0;
        process->line_overlong = false;
        data += part + 1;
        bytes -= part + 1;
    }
}

static void channel_add(struct oom_process *process, int channel, const char *data, size_t bytes) {
    struct oom_process_result *result = &process->result;
    if (channel == CHANNEL_OUT) tail_add(result->out, &result->out_bytes, data, bytes);
    if (channel == CHANNEL_ERR) tail_add(result->err, &result->err_bytes, data, bytes);
    if (channel == CHANNEL_LINES) lines_add(process, data, bytes);
}

/* Reads once; true when there was something. */
static bool channel_read(struct oom_process *process, int channel) {
    char data[8192];
    if (process->fds[channel] < 0) return false;
    ssize_t got = read(process->fds[channel], data, sizeof data);
    if (got > 0) channel_add(process, channel, data, (size_t)got);
    if (got == 0) fd_close(&process->fds[channel]);
    return got > 0 || (got < 0 && errno == EINTR);
}

/* Waits until one of them writes or ends, and reads what there is. */
static void wait_for_some(struct oom_process *const *processes, int count, int milliseconds) {
    struct pollfd waits[CHILDREN_MAX * FDS];
    for (int i = 0; i < count * FDS; i++) {
        int fd = processes[i / FDS]->fds[i % FDS];
        waits[i] = (struct pollfd){fd, POLLIN, 0}; /* poll ignores -1 */
    }
    if (poll(waits, (nfds_t)(count * FDS), milliseconds) <= 0) return;
    for (int i = 0; i < count * FDS; i++) {
        bool reads = i % FDS != END && waits[i].revents != 0;
        if (reads) channel_read(processes[i / FDS], i % FDS);
    }
}

/* ---- the end ---- */

void oom_process_kill(struct oom_process *process) {
    if (process->finished || process->pid <= 0) return;
    if (process->killed == 0) process->killed = now_seconds();
    kill(-process->pid, SIGKILL);
    kill(process->pid, SIGKILL); /* should it not have its group yet */
}

/* Looks without collecting: the group's number stays taken until its leader is collected. */
static bool has_ended(const struct oom_process *process) {
    siginfo_t info = {0};
    int got;
    do {
        got = waitid(P_PID, (id_t)process->pid, &info, WEXITED | WNOHANG | WNOWAIT);
    } while (got != 0 && errno == EINTR);
    return got != 0 || info.si_pid == process->pid;
}

static void collect(struct oom_process *process) {
    struct oom_process_result *result = &process->result;
    int state = 0;
    struct rusage usage = {0};
    pid_t got;
    kill(-process->pid, SIGKILL); /* descendants that it left behind */
    atomic_store(&groups[process->slot], -1);
    do {
        got = wait4(process->pid, &state, 0, &usage);
    } while (got < 0 && errno == EINTR);
    result->seconds = now_seconds() - process->started;
    result->exit_code = got > 0 && WIFEXITED(state) ? WEXITSTATUS(state) : -1;
    result->signal = got > 0 && WIFSIGNALED(state) ? WTERMSIG(state) : 0;
    result->max_rss = (uint64_t)usage.ru_maxrss * 1024;
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        while (channel_read(process, i)) {}
    }
    for (int i = 0; i < FDS; i++) fd_close(&process->fds[i]);
    process->finished = true;
}

static void enforce_timeout(struct oom_process *process, double now) {
    if (process->timeout == 0 || now - process->started < process->timeout) return;
    if (process->killed == 0) process->result.timed_out = true;
    if (process->killed == 0) oom_process_kill(process);
}

/* Has it ended, or is its time up? */
static enum oom_status look(struct oom_process *process, double now) {
    if (!process->finished && has_ended(process)) collect(process);
    if (process->finished || process->status != OOM_OK) return process->status;
    enforce_timeout(process, now);
    if (process->killed == 0 || now - process->killed <= UNKILLABLE_SECONDS) return OOM_OK;
    return oom_fail(OOM_TIMEOUT, "process %ld does not end, %d s after SIGKILL", (long)process->pid,
                    UNKILLABLE_SECONDS);
}

enum oom_status oom_process_poll_any(struct oom_process *const *processes, int count,
                                     double seconds, int *which) {
    double until = now_seconds() + seconds;
    *which = -1;
    if (count < 1 || count > CHILDREN_MAX) return oom_fail(OOM_INVALID, "%d processes", count);
    for (;;) {
        double now = now_seconds();
        for (int i = 0; i < count; i++) {
            enum oom_status status = look(processes[i], now);
            if (!processes[i]->finished && status == OOM_OK) continue;
            *which = i;
            return status;
        }
        double left = until > now ? until - now : 0;
        wait_for_some(processes, count, left * 1000 < SLICE_MS ? (int)(left * 1000) : SLICE_MS);
        if (now >= until) return OOM_OK;
    }
}

enum oom_status oom_process_poll(struct oom_process *process, double seconds, bool *finished) {
    int which;
    enum oom_status status = oom_process_poll_any(&process, 1, seconds, &which);
    *finished = process->finished;
    return status;
}

enum oom_status oom_process_wait(struct oom_process *process, struct oom_process_result *result) {
    bool finished = false;
    while (!finished) OOM_TRY(oom_process_poll(process, 3600, &finished));
    *result = process->result;
    return OOM_OK;
}

void oom_process_free(struct oom_process *process) {
    if (process == NULL) return;
    if (process->pid > 0 && !process->finished) {
        oom_process_kill(process);
        while (!has_ended(process) && now_seconds() - process->killed < UNKILLABLE_SECONDS)
            poll(NULL, 0, 1);
        if (has_ended(process)) collect(process);
    }
    for (int i = 0; i < FDS; i++) fd_close(&process->fds[i]);
    if (process->slot >= 0) atomic_store(&groups[process->slot], 0);
    oom_host_free(process->line);
    oom_host_free(process);
}

enum oom_status oom_process_run(const struct oom_process_options *options,
                                struct oom_process_result *result) {
    struct oom_process *process;
    OOM_TRY(oom_process_start(options, &process));
    enum oom_status status = oom_process_wait(process, result);
    oom_process_free(process);
    return status;
}

char *oom_process_describe(const struct oom_process_result *result, char *out, size_t n) {
    const char *name = result->signal != 0 ? sigabbrev_np(result->signal) : NULL;
    if (result->timed_out) {
        snprintf(out, n, "stopped at its time limit, after %.1f s", result->seconds);
    } else if (name != NULL) {
        snprintf(out, n, "killed by SIG%s", name);
    } else if (result->signal != 0) {
        snprintf(out, n, "killed by signal %d", result->signal);
    } else {
        snprintf(out, n, "exit code %d", result->exit_code);
    }
    return out;
}
