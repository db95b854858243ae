/*
 * limit.h: how much memory this process may still use, so that a simulated device larger than
 * that is refused at once, with both figures, instead of being killed later.
 *
 * Nothing is owned. A source that is not there (no cgroup, another kernel) is passed over.
 */
#ifndef OOM_KERNELS_SIMULATED_LIMIT_H
#define OOM_KERNELS_SIMULATED_LIMIT_H

#include <stdint.h>

struct oom_memory_limit {
    uint64_t bytes;     /* UINT64_MAX: no source says anything */
    const char *source; /* static, for messages: "the memory limit of the cgroup" */
};

/* The least of: limit - usage of this process's cgroup and of each one above it (v1 and v2; page
 * cache that can be dropped is not usage), MemAvailable, what is left of RLIMIT_AS, RLIMIT_FSIZE
 * (it binds the file behind the device memory). proc and cgroup are the directories to read,
 * "/proc" and "/sys/fs/cgroup" outside tests. */
struct oom_memory_limit oom_memory_limit_read(const char *proc, const char *cgroup);

#endif
