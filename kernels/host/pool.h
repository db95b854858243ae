/*
 * pool.h: the threads of the host device, each with a scratch of its own.
 *
 * The pool owns its worker threads and every thread's scratch; the calling thread is thread 0 and
 * works along. Only oom_pool_create can fail for lack of memory; a thread that cannot be made means
 * fewer threads, and oom_pool_note says so. Results of the kernels never depend on the count.
 */
#ifndef OOM_KERNELS_HOST_POOL_H
#define OOM_KERNELS_HOST_POOL_H

#include "kernels/status.h"

#include <signal.h>
#include <stddef.h>
#include <stdint.h>

struct oom_pool;

/* One thread's share of a run. */
struct oom_host_part {
    int index, count; /* this is part `index` of `count` */
    void *scratch;    /* this thread's own, aligned to 64 bytes, contents undefined */
    size_t scratch_bytes;
};

typedef void (*oom_pool_function)(void *context, const struct oom_host_part *part);

enum { OOM_POOL_THREADS_MAX = 256 };

/* threads counts the caller; 0 means as many as this process may use. */
enum oom_status oom_pool_create(int threads, size_t scratch_bytes, struct oom_pool **out);
void oom_pool_destroy(struct oom_pool *pool); /* NULL is allowed */

int oom_pool_threads(const struct oom_pool *pool);
const char *oom_pool_note(const struct oom_pool *pool); /* why fewer than asked; "" if not */

/* Runs function(context, part) once for every part, one part per thread, and returns when all are
 * done. At most `count` parts (1: on the caller alone, no other thread is woken). One run at a
 * time, from one thread at a time; function must not call oom_pool_run. */
void oom_pool_run(struct oom_pool *pool, int count, oom_pool_function function, void *context);

/* What a thread made from here on must not be asked to handle: signals of the process. The caller
 * sets *before again (pthread_sigmask) when the thread is there. */
void oom_pool_signals_block(sigset_t *before);

/* min(CPUs in the affinity mask, CPU quota of the cgroup rounded up), at least 1. */
int oom_pool_threads_allowed(void);

/* The quota, in CPUs rounded up, of the control group (v2 or v1) whose files are found under
 * `root`, walking from `group` upward; 0 when nothing limits it. For oom_pool_threads_allowed and
 * its tests. */
int oom_pool_quota(const char *root, const char *group);

/* The share of n things that part has: [*begin, *end), cut at multiples of grain (at least 1);
 * shares are contiguous, differ by at most one grain, and together are 0 .. n. */
static inline void oom_host_share(int64_t n, int64_t grain, const struct oom_host_part *part,
                                  int64_t *begin, int64_t *end) {
    int64_t grains = n / grain + (n % grain != 0);
    int64_t each = grains / part->count, rest = grains % part->count;
    int64_t first = each * part->index + (part->index < rest ? part->index : rest);
    int64_t last = first + each + (part->index < rest);
    *begin = first * grain < n ? first * grain : n;
    *end = last * grain < n ? last * grain : n;
}

#endif
