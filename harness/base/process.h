/*
 * process.h: runs a child process, with a time limit, and tells how it ended.
 *
 * The child has a process group of its own, which is killed whole (SIGKILL) at the time limit, when
 * the child ends, and at a signal (oom_process_install_signals); it inherits standard files only.
 * When the thread that started it ends, the child is killed, its descendants only if they are
 * started by this room too. The caller owns a started process until oom_process_free. A child that
 * fails is an answer, not a failure; OOM_IO is for what this side could not do (pipe, fork, exec:
 * errno).
 */
#ifndef OOM_HARNESS_BASE_PROCESS_H
#define OOM_HARNESS_BASE_PROCESS_H

#include "kernels/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { OOM_PROCESS_TAIL = 4096 };

struct oom_process_options {
    char *const *argv; /* argv[0] is a path ("/proc/self/exe"), not searched for */
    const char *const
        *environment;      /* "NAME=value" sets, "NAME" removes; ends with NULL; NULL: as is */
    const char *directory; /* NULL: as is */
    const char *out_path, *err_path; /* files (truncated) for its standard output and standard
                                        error; NULL: the last OOM_PROCESS_TAIL bytes are kept */
    double timeout;                  /* seconds; 0: none */
    int line_fd; /* a pipe the child finds open at this number (3..63); 0: none */
    void (*on_line)(void *user,
                    const char *line); /* each line written there, without its newline */
    void *user;
};

struct oom_process_result {
    int exit_code; /* -1 when a signal ended it */
    int signal;    /* 0: none */
    bool timed_out;
    double seconds;                /* from start to end */
    uint64_t max_rss;              /* bytes, of the child and the descendants it waited for */
    uint64_t out_bytes, err_bytes; /* written in all, where the tail was kept */
    char out[OOM_PROCESS_TAIL + 1], err[OOM_PROCESS_TAIL + 1]; /* the tails, NUL-terminated */
};

/* Starts, waits, tells. */
enum oom_status oom_process_run(const struct oom_process_options *options,
                                struct oom_process_result *result);

struct oom_process;

/* `options` and what it points to are not needed after the call (but `user` is, for on_line). */
enum oom_status oom_process_start(const struct oom_process_options *options,
                                  struct oom_process **out);
/* Waits for at most `seconds` (0: looks only), calling on_line meanwhile. *finished: it has ended
 * and everything it wrote was read. */
enum oom_status oom_process_poll(struct oom_process *process, double seconds, bool *finished);
/* The same for several at once: *which is the first found ended, -1: none within `seconds`. */
enum oom_status oom_process_poll_any(struct oom_process *const *processes, int count,
                                     double seconds, int *which);
/* Polls until it has ended; *result is filled (and may be asked for again). */
enum oom_status oom_process_wait(struct oom_process *process, struct oom_process_result *result);
/* Kills the group; wait() tells the end. */
void oom_process_kill(struct oom_process *process);
/* Kills the group if it still runs, collects the child, frees. NULL is allowed. */
void oom_process_free(struct oom_process *process);

/* For main: SIGINT, SIGTERM and SIGHUP kill every child's group and then this process by the same
 * signal. Handlers stay in force until the process ends. */
enum oom_status oom_process_install_signals(void);
/* From now on the first of them kills the children and is held: this returns whether one is, so
 * that its caller may put things in order. A second one ends the process. */
bool oom_process_hold_signals(void);
/* Ends the process by the signal that is held, if one is; from now on none is. */
void oom_process_release_signals(void);

/* "exit code 3", "killed by SIGSEGV", "no answer within 10 s". Returns out. */
char *oom_process_describe(const struct oom_process_result *result, char *out, size_t n);

#endif
