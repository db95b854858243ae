/*
 * pool.c: threads that wait by spinning for a while and then sleep.
 *
 * Spinning makes an empty call cost a tenth of a microsecond; sleeping workers cost 40 to 80 (both
 * measured). Workers spin for 200 us, longer than the gaps between the ops of a training step, and
 * not at all where there are more threads than CPUs: there a spinner only keeps the others out.
 *
 * One 32-bit word tells the workers what to do: a generation that changes with every run, and how
 * many parts this run has. A worker that has no part learns so from the word alone and touches
 * nothing else, so a run need not wait for it.
 */
#include "kernels/host/pool.h"

#include "kernels/hostmem.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    SPIN_NANOSECONDS = 200000,
    PARTS_BITS = 10, /* of the word; 0 parts: stop */
    PARTS_MASK = (1 << PARTS_BITS) - 1,
    SCRATCH_ALIGNMENT = 4096,
};

struct worker {
    struct oom_pool *pool;
    pthread_t thread;
    int index;
};

struct oom_pool {
    _Alignas(64) _Atomic uint32_t word;    /* generation << PARTS_BITS | parts */
    _Atomic int sleepers;                  /* workers in the kernel, waiting for the word */
    _Alignas(64) _Atomic uint32_t pending; /* workers' parts not yet done */
    _Atomic int caller_sleeps;
    _Alignas(64) oom_pool_function function;
    void *context;
    int threads;
    int caller_cpu; /* the CPU that no worker is pinned to; -1: workers are free */
    int64_t spin;
    size_t scratch_bytes;
    unsigned char *scratch;
    struct worker *workers; /* threads - 1 */
    char note[160];
};

static void futex_wait(_Atomic uint32_t *word, uint32_t value) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int count) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

static int64_t now_nanoseconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline void pause_cpu(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Waits until *word is (wanted: equal to; else: not) value, at most `limit` ns; says whether. */
static bool spin_until(_Atomic uint32_t *word, uint32_t value, bool equal, int64_t limit) {
    int64_t end = 0;
    for (;;) {
        for (int i = 0; i < 64; i++) {
            if ((atomic_load_explicit(word, memory_order_acquire) == value) == equal) return true;
            pause_cpu();
        }
        int64_t now = now_nanoseconds();
        if (end == 0) end = now + limit;
        if (now >= end) return false;
    }
}

static uint32_t wait_for_work(struct oom_pool *pool, uint32_t seen) {
    if (!spin_until(&pool->word, seen, false, pool->spin)) {
        atomic_fetch_add(&pool->sleepers, 1);
        while (atomic_load(&pool->word) == seen) futex_wait(&pool->word, seen);
        atomic_fetch_sub(&pool->sleepers, 1);
    }
    return atomic_load(&pool->word);
}

static void run_part(struct oom_pool *pool, int index, int count) {
    struct oom_host_part part = {
        .index = index,
        .count = count,
        .scratch = pool->scratch + (size_t)index * pool->scratch_bytes,
        .scratch_bytes = pool->scratch_bytes,
    };
    pool->function(pool->context, &part);
}

static void *worker_main(void *argument) {
    struct worker *self = argument;
    struct oom_pool *pool = self->pool;
    uint32_t seen = 0;
    for (;;) {
        seen = wait_for_work(pool, seen);
        int parts = (int)(seen & PARTS_MASK);
        if (parts == 0) return NULL;
        if (self->index >= parts) continue;
        run_part(pool, self->index, parts);
        if (atomic_fetch_sub(&pool->pending, 1) == 1 && atomic_load(&pool->caller_sleeps))
            futex_wake(&pool->pending, 1);
    }
}

static void publish(struct oom_pool *pool, int parts) {
    uint32_t generation = (atomic_load(&pool->word) >> PARTS_BITS) + 1;
    atomic_store(&pool->word, generation << PARTS_BITS | (uint32_t)parts);
    if (atomic_load(&pool->sleepers) > 0) futex_wake(&pool->word, pool->threads);
}

static void wait_for_workers(struct oom_pool *pool) {
    if (spin_until(&pool->pending, 0, true, pool->spin)) return;
    atomic_store(&pool->caller_sleeps, 1);
    for (;;) {
        uint32_t left = atomic_load(&pool->pending);
        if (left == 0) break;
        futex_wait(&pool->pending, left);
    }
    atomic_store(&pool->caller_sleeps, 0);
}

/* Puts the caller on the CPU that no worker is pinned to, and lets it free again: it stays there
 * while the others are busy, and what it forks or starts later inherits the whole mask. Left on a
 * worker's CPU the two would take turns for milliseconds (measured: a tenth of the speed). */
static void move_caller(const struct oom_pool *pool) {
    cpu_set_t mask, one;
    if (pool->caller_cpu < 0 || sched_getcpu() == pool->caller_cpu) return;
    if (sched_getaffinity(0, sizeof(mask), &mask) != 0) return;
    if (!CPU_ISSET(pool->caller_cpu, &mask)) return;
    CPU_ZERO(&one);
    CPU_SET(pool->caller_cpu, &one);
    if (sched_setaffinity(0, sizeof(one), &one) == 0) sched_setaffinity(0, sizeof(mask), &mask);
}

void oom_pool_run(struct oom_pool *pool, int count, oom_pool_function function, void *context) {
    if (count > pool->threads) count = pool->threads;
    pool->function = function;
    pool->context = context;
    if (count <= 1) {
        run_part(pool, 0, 1);
        return;
    }
    move_caller(pool);
    atomic_store(&pool->pending, (uint32_t)count - 1);
    publish(pool, count);
    run_part(pool, 0, count);
    wait_for_workers(pool);
}

int oom_pool_threads(const struct oom_pool *pool) {
    return pool->threads;
}

const char *oom_pool_note(const struct oom_pool *pool) {
    return pool->note;
}

/* Signals of the process go to its own threads; those a thread causes itself (a bus error in a
 * mapping) must still reach their handler. */
void oom_pool_signals_block(sigset_t *before) {
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
    sigset_t all;
    sigfillset(&all);
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++) sigdelset(&all, own[i]);
    pthread_sigmask(SIG_SETMASK, &all, before);
}

/* Starts workers 1 .. threads - 1, fewer where the system refuses. Worker i goes on the i-th CPU of
 * the mask when there are as many threads as CPUs. */
static void start_workers(struct oom_pool *pool, int threads, const cpu_set_t *cpus) {
    bool pin = cpus != NULL && CPU_COUNT(cpus) == threads;
    int cpu = -1;
    sigset_t before;
    oom_pool_signals_block(&before);
    for (int i = 0; i < threads; i++) {
        cpu_set_t one;
        CPU_ZERO(&one);
        if (pin) {
            do cpu++;
            while (!CPU_ISSET(cpu, cpus));
            CPU_SET(cpu, &one);
        }
        if (i == 0) { /* the caller */
            pool->caller_cpu = cpu;
            continue;
        }
        struct worker *w = &pool->workers[i - 1];
        *w = (struct worker){.pool = pool, .index = i};
        int error = pthread_create(&w->thread, NULL, worker_main, w);
        if (error != 0) {
            snprintf(pool->note, sizeof(pool->note), "%d threads instead of %d: %s", i, threads,
                     strerror(error));
            break;
        }
        if (pin) pthread_setaffinity_np(w->thread, sizeof(one), &one);
        pool->threads = i + 1;
    }
    if (pool->threads < threads) pool->caller_cpu = -1;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

enum oom_status oom_pool_create(int threads, size_t scratch_bytes, struct oom_pool **out) {
    *out = NULL;
    if (threads < 0 || threads > OOM_POOL_THREADS_MAX)
        return oom_fail(OOM_INVALID, "threads: %d, allowed 0 (all there are) to %d", threads,
                        (int)OOM_POOL_THREADS_MAX);
    int allowed = oom_pool_threads_allowed();
    if (threads == 0) threads = allowed;
    scratch_bytes = (scratch_bytes + SCRATCH_ALIGNMENT - 1) / SCRATCH_ALIGNMENT * SCRATCH_ALIGNMENT;

    struct oom_pool *pool = oom_host_calloc(1, sizeof(*pool));
    if (pool == NULL) goto nomem;
    pool->workers = oom_host_calloc((size_t)threads, sizeof(*pool->workers));
    if (pool->workers == NULL) goto nomem;
    if (scratch_bytes > 0) {
        pool->scratch = oom_host_alloc((size_t)threads * scratch_bytes);
        if (pool->scratch == NULL) goto nomem;
    }
    pool->scratch_bytes = scratch_bytes;
    pool->spin = threads <= allowed ? SPIN_NANOSECONDS : 0;
    pool->threads = 1;
    pool->caller_cpu = -1;
    cpu_set_t cpus;
    bool known = sched_getaffinity(0, sizeof(cpus), &cpus) == 0;
    start_workers(pool, threads, known ? &cpus : NULL);
    *out = pool;
    return OOM_OK;

nomem:
    if (pool != NULL) oom_host_free(pool->workers);
    oom_host_free(pool);
    return oom_fail(OOM_HOST_NOMEM, "a pool of %d threads with %zu bytes of scratch each", threads,
                    scratch_bytes);
}

void oom_pool_destroy(struct oom_pool *pool) {
    if (pool == NULL) return;
    publish(pool, 0);
    for (int i = 1; i < pool->threads; i++) pthread_join(pool->workers[i - 1].thread, NULL);
    oom_host_free(pool->scratch);
    oom_host_free(pool->workers);
    oom_host_free(pool);
}
