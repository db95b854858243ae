/*
 * fuzz.c: runs a fuzz target many times in a child process and tells how that ended.
 *
 * Parent and child share one mapping: the input lies at its end, just below a page that cannot be
 * read, so that reading past it faults in every build; when the child is gone the parent still has
 * the input that did it. No copy is made, so an execution costs little more than the target.
 */
#include "harness/base/fuzz.h"

#include "harness/base/file.h"
#include "harness/base/options.h"
#include "harness/base/process.h"
#include "harness/base/text.h"
#include "kernels/hostmem.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- the corpus ---- */

static enum oom_status seed_add(struct oom_fuzz_corpus *corpus, const char *folder,
                                const char *name) {
    struct oom_fuzz_seed *grown =
        oom_host_realloc(corpus->seeds, (size_t)(corpus->count + 1) * sizeof *grown);
    if (grown == NULL) return oom_fail(OOM_HOST_NOMEM, "a list of %d seeds", corpus->count + 1);
    corpus->seeds = grown;
    struct oom_fuzz_seed *seed = &grown[corpus->count];
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    snprintf(seed->name, sizeof seed->name, "%s", name);
    OOM_TRY(oom_file_read(path, OOM_FUZZ_BYTES_MAX, &seed->bytes, &seed->n));
    corpus->count++;
    return OOM_OK;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct oom_fuzz_seed *)a)->name, ((const struct oom_fuzz_seed *)b)->name);
}

enum oom_status oom_fuzz_corpus_read(const char *folder, struct oom_fuzz_corpus *out) {
    *out = (struct oom_fuzz_corpus){0};
    DIR *directory = opendir(folder);
    if (directory == NULL) {
        return oom_fail_native(OOM_IO, errno, "corpus '%s': %s", folder, strerror(errno));
    }
    enum oom_status status = OOM_OK;
    struct dirent *entry;
    while (status == OOM_OK && (entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] != '.') status = seed_add(out, folder, entry->d_name);
    }
    closedir(directory);
    if (status == OOM_OK && out->count == 0) {
        status = oom_fail(OOM_USAGE, "corpus '%s': no file in it; at least one is needed", folder);
    }
    if (status != OOM_OK) {
        oom_fuzz_corpus_free(out);
    } else {
        qsort(out->seeds, (size_t)out->count, sizeof *out->seeds, by_name);
    }
    return status;
}

void oom_fuzz_corpus_free(struct oom_fuzz_corpus *corpus) {
    for (int i = 0; i < corpus->count; i++) oom_host_free(corpus->seeds[i].bytes);
    oom_host_free(corpus->seeds);
    *corpus = (struct oom_fuzz_corpus){0};
}

/* ---- what parent and child share ---- */

struct shared {
    _Atomic uint64_t executions; /* begun */
    _Atomic size_t length;       /* of the input at hand */
    _Atomic int finished;
    char why[160];
};

struct fuzz {
    const char *name, *folder;
    oom_fuzz_target *target;
    struct oom_fuzz_corpus corpus;
    struct shared *shared;
    uint8_t *end;  /* of the input; the next byte cannot be read */
    size_t mapped; /* bytes, of the whole mapping */

    uint64_t runs, seed;
    double seconds, hang;
    const char *keep;
    bool help;
    char keep_default[PATH_MAX];
};

static enum oom_status share(struct fuzz *f) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t head = (sizeof *f->shared + page - 1) / page * page;
    size_t room = (OOM_FUZZ_BYTES_MAX + page - 1) / page * page;
    f->mapped = head + room + page;
    uint8_t *base =
        mmap(NULL, f->mapped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return oom_fail(OOM_HOST_NOMEM, "%zu bytes to share", f->mapped);
    f->shared = (struct shared *)(void *)base;
    f->end = base + head + room;
    if (mprotect(f->end, page, PROT_NONE) == 0) return OOM_OK;
    return oom_fail_native(OOM_IO, errno, "mprotect: %s", strerror(errno));
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- the child ---- */

/* Moves n bytes that lie at the beginning of the room to its end, and runs the target on them. */
static bool execute(struct fuzz *f, const void *bytes, size_t n) {
    uint8_t *data = f->end - n;
    memmove(data, bytes, n);
    atomic_store(&f->shared->length, n);
    atomic_fetch_add(&f->shared->executions, 1);
    uint64_t before = oom_host_bytes_current();
    oom_failure_clear();
    const char *wrong = NULL;
    if (f->target(data, n) != 0) wrong = "the target says that something is wrong";
    if (oom_host_bytes_current() != before) wrong = "host memory was not given back";
    if (wrong != NULL) snprintf(f->shared->why, sizeof f->shared->why, "%s", wrong);
    return wrong == NULL;
}

/* Every seed as it is, then mutants; false at the first finding. */
static bool run_all(struct fuzz *f) {
    struct oom_rng rng = {f->seed};
    uint8_t *room = f->end - OOM_FUZZ_BYTES_MAX;
    double begun = now();
    for (int i = 0; i < f->corpus.count; i++) {
        if (!execute(f, f->corpus.seeds[i].bytes, f->corpus.seeds[i].n)) return false;
    }
    for (uint64_t i = (uint64_t)f->corpus.count; i < f->runs; i++) {
        if (f->seconds > 0 && i % 64 == 0 && now() - begun > f->seconds) break;
        size_t n = oom_fuzz_mutate(&f->corpus, &rng, room, OOM_FUZZ_BYTES_MAX);
        if (!execute(f, room, n)) return false;
    }
    atomic_store(&f->shared->finished, 1);
    return true;
}

/* ---- the parent ---- */

/* Waits for the child; kills it when one execution takes longer than allowed. Its wait status. */
static int watch(struct fuzz *f, pid_t child) {
    int status = 0;
    uint64_t last = 0;
    double moved = now();
    while (waitpid(child, &status, WNOHANG) == 0) {
        uint64_t executions = atomic_load(&f->shared->executions);
        if (executions != last) moved = now();
        last = executions;
        if (now() - moved > f->hang) {
            snprintf(f->shared->why, sizeof f->shared->why, "no answer within %g s", f->hang);
            kill(child, SIGKILL);
            moved = now();
        }
        nanosleep(&(struct timespec){0, 5000000}, NULL);
    }
    return status;
}

static void say_why(struct fuzz *f, int status) {
    char *why = f->shared->why;
    size_t n = sizeof f->shared->why;
    if (why[0] != 0) return;
    struct oom_process_result end = {.exit_code = WIFSIGNALED(status) ? -1 : WEXITSTATUS(status),
                                     .signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0};
    if (end.exit_code != 0 || end.signal != 0) {
        oom_process_describe(&end, why, n);
    } else if (!atomic_load(&f->shared->finished)) {
        snprintf(why, n, "the child ended early");
    }
}

static int report(struct fuzz *f, const char *program, double took) {
    uint64_t executions = atomic_load(&f->shared->executions);
    bool good = f->shared->why[0] == 0;
    printf("TAP version 13\n1..1\n%sok 1 - fuzz %s: %llu executions, %d seeds, seed %llu\n",
           good ? "" : "not ", f->name, (unsigned long long)executions, f->corpus.count,
           (unsigned long long)f->seed);
    if (good) {
        printf("# %.0f executions per second\n", (double)executions / took);
        return 0;
    }
    printf("# %s\n", f->shared->why);
    size_t n = atomic_load(&f->shared->length);
    if (oom_file_write(f->keep, f->end - n, n) == OOM_OK) {
        printf("# the input of %zu bytes is kept; once more: %s %s\n", n, program, f->keep);
    } else {
        printf("# the input cannot be kept: %s\n", oom_failure_last()->message);
    }
    return 1;
}

/* The child returns from here, too: its main ends, and leaks are looked for. */
static int run_child(struct fuzz *f, const char *program) {
    double begun = now();
    fflush(NULL);
    pid_t parent = getpid(), child = fork();
    if (child < 0) {
        fprintf(stderr, "%s: fork: %s\n", program, strerror(errno));
        return 4;
    }
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) return 4;
        return run_all(f) ? 0 : 3;
    }
    say_why(f, watch(f, child));
    return report(f, program, now() - begun);
}

/* The files named, each once, in this process, for a debugger. */
static int run_files(struct fuzz *f, const char *const *paths, int count) {
    int bad = 0;
    for (int i = 0; i < count; i++) {
        char *bytes;
        size_t n;
        if (oom_file_read(paths[i], OOM_FUZZ_BYTES_MAX, &bytes, &n) != OOM_OK) {
            fprintf(stderr, "%s: %s\n", f->name, oom_failure_last()->message);
            return 2;
        }
        bool good = execute(f, bytes, n);
        printf("%s: %s\n", paths[i], good ? "nothing is wrong" : f->shared->why);
        oom_host_free(bytes);
        bad |= !good;
    }
    return bad;
}

#define AT(field) .offset = offsetof(struct fuzz, field)
static const struct oom_option rows[] = {
    {"runs", 0, OOM_OPTION_UINT64, AT(runs), .fallback = "20000", .min = 1, .max = 1e15,
     .environment = "OOMBENCH_FUZZ_RUNS", .help = "executions"},
    {"seed", 0, OOM_OPTION_UINT64, AT(seed), .fallback = "1", .environment = "OOMBENCH_FUZZ_SEED",
     .help = "of the mutations"},
    {"seconds", 0, OOM_OPTION_DURATION, AT(seconds), .fallback = "0",
     .environment = "OOMBENCH_FUZZ_SECONDS", .help = "stop after this time; 0: after the runs"},
    {"hang", 0, OOM_OPTION_DURATION, AT(hang), .fallback = "60",
     .help = "an execution that takes longer is a finding"},
    {"keep", 0, OOM_OPTION_PATH, AT(keep), .help = "where a failing input goes"},
    {"help", 'h', OOM_OPTION_FLAG, AT(help), .help = "this list"},
};
#undef AT

int oom_fuzz_main(int argc, char **argv, const char *name, oom_fuzz_target *target,
                  const char *folder) {
    enum { FILES_MAX = 256 };
    const char *files[FILES_MAX];
    const struct oom_options options = {rows, sizeof rows / sizeof rows[0]};
    struct fuzz f = {.name = name, .folder = folder, .target = target};
    int count = 0, code = 2;
    snprintf(f.keep_default, sizeof f.keep_default, "%s.failed", argv[0]);
    f.keep = f.keep_default;
    enum oom_status status =
        argc - 1 > FILES_MAX
            ? oom_fail(OOM_USAGE, "more than %d arguments", FILES_MAX)
            : oom_options_parse(&options, argc - 1, argv + 1, &f, files, &count, NULL);
    if (status == OOM_OK && f.help) {
        printf("usage: %s [options] [FILE...]   with files: each once, in this process\n\n",
               argv[0]);
        oom_options_help(&options, stdout, oom_terminal_columns(1));
        return 0;
    }
    if (status == OOM_OK) status = share(&f);
    if (status == OOM_OK && count == 0) status = oom_fuzz_corpus_read(folder, &f.corpus);
    if (status != OOM_OK) {
        fprintf(stderr, "%s: %s\n", argv[0], oom_failure_last()->message);
    } else {
        code = count > 0 ? run_files(&f, files, count) : run_child(&f, argv[0]);
    }
    oom_fuzz_corpus_free(&f.corpus);
    if (f.shared != NULL) munmap(f.shared, f.mapped);
    return code;
}
