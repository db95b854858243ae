/*
 * quota.c: how many threads this process may use: CPUs in its affinity mask, and no more than the
 * CPU quota of its control groups (cgroup v2 cpu.max; v1 cpu.cfs_quota_us / cpu.cfs_period_us).
 * A quota of 1.5 CPUs gives 2: the third of the time that a thread is throttled costs less than
 * half a CPU left idle.
 */
#include "kernels/host/pool.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The file's text, cut at n - 1 bytes; false where it cannot be read. */
static int read_text(const char *root, const char *group, const char *name, char *text, int n) {
    char path[PATH_MAX];
    int length = snprintf(path, sizeof(path), "%s%s/%s", root, group, name);
    if (length < 0 || length >= (int)sizeof(path)) return 0;
    FILE *f = fopen(path, "re");
    if (f == NULL) return 0;
    size_t got = fread(text, 1, (size_t)n - 1, f);
    fclose(f);
    text[got] = '\0';
    return got > 0;
}

static int quota_of(const char *root, const char *group) {
    char text[64], period_text[64];
    long long quota = -1, period = 0;
    if (read_text(root, group, "cpu.max", text, sizeof(text))) {
        if (sscanf(text, "%lld %lld", &quota, &period) != 2) return 0; /* "max 100000" */
    } else if (read_text(root, group, "cpu.cfs_quota_us", text, sizeof(text)) &&
               read_text(root, group, "cpu.cfs_period_us", period_text, sizeof(period_text))) {
        quota = strtoll(text, NULL, 10);
        period = strtoll(period_text, NULL, 10);
    }
    if (quota <= 0 || period <= 0) return 0;
    long long cpus = quota / period + (quota % period != 0);
    return cpus > INT_MAX ? INT_MAX : (int)cpus;
}

int oom_pool_quota(const char *root, const char *group) {
    char path[PATH_MAX];
    if (snprintf(path, sizeof(path), "%s", group) >= (int)sizeof(path)) return 0;
    int least = 0;
    for (;;) {
        size_t length = strlen(path);
        while (length > 0 && path[length - 1] == '/') path[--length] = '\0';
        int quota = quota_of(root, path);
        if (quota > 0 && (least == 0 || quota < least)) least = quota;
        char *slash = strrchr(path, '/');
        if (slash == NULL) return least;
        *slash = '\0';
    }
}

/* "N:controllers:/path": v2 has no controllers, v1 has cpu among them. */
static int line_quota(char *line) {
    char *controllers = strchr(line, ':');
    if (controllers == NULL) return 0;
    *controllers++ = '\0';
    char *path = strchr(controllers, ':');
    if (path == NULL) return 0;
    *path++ = '\0';
    path[strcspn(path, "\n")] = '\0';
    if (controllers[0] == '\0') return oom_pool_quota("/sys/fs/cgroup", path);
    char *rest = NULL;
    char root[PATH_MAX];
    if (snprintf(root, sizeof(root), "/sys/fs/cgroup/%s", controllers) >= (int)sizeof(root))
        return 0;
    for (char *one = strtok_r(controllers, ",", &rest); one != NULL;
         one = strtok_r(NULL, ",", &rest))
        if (strcmp(one, "cpu") == 0) return oom_pool_quota(root, path);
    return 0;
}

int oom_pool_threads_allowed(void) {
    cpu_set_t cpus;
    int allowed = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
    FILE *f = fopen("/proc/self/cgroup", "re");
    if (f != NULL) {
        char line[PATH_MAX];
        while (fgets(line, sizeof(line), f) != NULL) {
            int quota = line_quota(line);
            if (quota > 0 && quota < allowed) allowed = quota;
        }
        fclose(f);
    }
    if (allowed > OOM_POOL_THREADS_MAX) allowed = OOM_POOL_THREADS_MAX;
    return allowed < 1 ? 1 : allowed;
}
