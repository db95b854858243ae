/* Trees of files as kernels of both kinds show them, with figures small enough to check by hand. */
#include "kernels/simulated/limit.h"
#include "kernels/simulated/test-device.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

void simulated_limit_test(void);

static char root[64], proc[128], cgroup[128];

static void put(const char *folder, const char *name, const char *text) {
    char path[400];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    for (char *slash = path + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = 0;
        mkdir(path, 0700);
        *slash = '/';
    }
    FILE *file = fopen(path, "w");
    CHECK(file != NULL);
    if (file == NULL) return;
    fputs(text, file);
    fclose(file);
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *walk) {
    (void)info, (void)kind, (void)walk;
    return remove(path);
}

static void clear_tree(void) {
    nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void new_tree(void) {
    snprintf(root, sizeof root, "/tmp/oom-limit-XXXXXX");
    CHECK(mkdtemp(root) != NULL);
    snprintf(proc, sizeof proc, "%s/proc", root);
    snprintf(cgroup, sizeof cgroup, "%s/cgroup", root);
}

static void check_limit(uint64_t bytes, const char *source) {
    struct oom_memory_limit limit = oom_memory_limit_read(proc, cgroup);
    CHECK_EQ(limit.bytes, bytes);
    CHECK_STR(limit.source, source);
}

static void check_process(void) {
    TEST("limit: the machine and the process");
    new_tree();
    check_limit(UINT64_MAX, "no limit");
    put(proc, "meminfo", "MemTotal:  9000 kB\nMemFree:  100 kB\nMemAvailable:   4000 kB\n");
    check_limit(4000 * 1024, "MemAvailable of the machine");
    put(proc, "self/limits",
        "Limit                     Soft Limit           Hard Limit           Units     \n"
        "Max file size             unlimited            unlimited            bytes     \n"
        "Max address space         5000000              unlimited            bytes     \n");
    char statm[32];
    snprintf(statm, sizeof statm, "%ld 77 66", 3000000 / sysconf(_SC_PAGESIZE));
    put(proc, "self/statm", statm);
    uint64_t used = 3000000 / (uint64_t)sysconf(_SC_PAGESIZE) * (uint64_t)sysconf(_SC_PAGESIZE);
    check_limit(5000000 - used, "RLIMIT_AS");
    put(proc, "self/statm", "999999999 77 66");
    check_limit(0, "RLIMIT_AS");
    put(proc, "self/limits", "Max file size             1000000    unlimited    bytes     \n");
    check_limit(1000000, "RLIMIT_FSIZE");
    clear_tree();
}

static const char group_source[] = "the memory limit of the cgroup";

static void check_version_2(void) {
    TEST("limit: control groups, version 2: the tightest level, cache is not usage");
    new_tree();
    put(proc, "self/cgroup", "0::/user/job/step\n");
    put(cgroup, "user/job/step/memory.max", "max\n");
    put(cgroup, "user/job/step/memory.current", "10\n");
    check_limit(UINT64_MAX, "no limit");
    put(cgroup, "user/job/memory.max", "1000000\n");
    put(cgroup, "user/job/memory.current", "700000\n");
    put(cgroup, "user/job/memory.stat", "anon 5\nactive_file 9\ninactive_file 200000\n");
    check_limit(500000, group_source);
    put(cgroup, "user/memory.max", "900000\n");
    put(cgroup, "user/memory.current", "750000\n");
    check_limit(150000, group_source);
    put(cgroup, "user/memory.current", "950000\n");
    check_limit(0, group_source);
    put(proc, "self/cgroup", "0::/not/in/this/mount\n"); /* a container's own mount */
    check_limit(UINT64_MAX, "no limit");
    put(cgroup, "memory.max", "800000\n");
    put(cgroup, "memory.current", "100000\n");
    check_limit(700000, group_source);
    clear_tree();
}

static void check_version_1(void) {
    TEST("limit: control groups, version 1");
    new_tree();
    put(proc, "self/cgroup",
        "9:name=systemd:/x\n6:mem:/x\n5:memoryless:/x\n4:cpu,memory:/box/in\n0::/\n");
    put(cgroup, "memory/x/memory.limit_in_bytes", "1\n");
    put(cgroup, "memory/x/memory.usage_in_bytes", "1\n");
    put(cgroup, "memory/box/in/memory.limit_in_bytes", "9223372036854771712\n");
    put(cgroup, "memory/box/in/memory.usage_in_bytes", "300000\n");
    check_limit(9223372036854771712u - 300000, group_source);
    put(cgroup, "memory/box/memory.limit_in_bytes", "1000000\n");
    put(cgroup, "memory/box/memory.usage_in_bytes", "300000\n");
    put(cgroup, "memory/box/memory.stat",
        "inactive_file 1\ntotal_cache 2\ntotal_inactive_file 100000\n");
    check_limit(800000, group_source);
    clear_tree();
}

static void check_refused(void) {
    TEST("limit: a host device larger than that is refused with both figures");
    struct oom_device_options options = {.capacity = (uint64_t)1 << 50};
    struct oom_device *dev = NULL;
    test_expect(oom_host_open(&options, &dev), OOM_HOST_NOMEM, "1125899906842624");
    char figure[32];
    (void)oom_host_open(&options, &dev);
    const char *rest = strstr(oom_failure_last()->message, "more than the ");
    CHECK(rest != NULL && sscanf(rest, "more than the %31[0-9] that", figure) == 1);
    CHECK(rest != NULL && strtoull(figure, NULL, 10) < options.capacity);
    oom_failure_clear();
    CHECK(dev == NULL);
    CHECK_OK(oom_dry_open(&options, &dev));
    oom_device_close(dev);
}

void simulated_limit_test(void) {
    check_process();
    check_version_2();
    check_version_1();
    check_refused();
}
