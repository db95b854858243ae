/*
 * pool-test.c: every part is run once and only once, awake or asleep, with more threads than CPUs;
 * the quota files of both versions of cgroups; failures.
 */
#include "kernels/host/pool.h"
#include "kernels/hostmem.h"
#include "kernels/testing.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

void pool_test(void);

struct tally {
    _Atomic int runs[8];
    _Atomic int wrong; /* parts that are not what they should be */
    int count;
};

static void tally_part(void *context, const struct oom_host_part *part) {
    struct tally *t = context;
    if (part->count != t->count || part->index >= part->count) atomic_fetch_add(&t->wrong, 1);
    if (part->scratch_bytes < 100 || (uintptr_t)part->scratch % 64 != 0)
        atomic_fetch_add(&t->wrong, 1);
    memset(part->scratch, part->index, part->scratch_bytes);
    atomic_fetch_add(&t->runs[part->index], 1);
}

static void check_runs(struct oom_pool *pool, int count, int times, long pause_us) {
    static struct tally t;
    memset(&t, 0, sizeof(t));
    t.count = count < oom_pool_threads(pool) ? count : oom_pool_threads(pool);
    for (int i = 0; i < times; i++) {
        oom_pool_run(pool, count, tally_part, &t);
        struct timespec pause = {0, pause_us * 1000};
        if (pause_us > 0) nanosleep(&pause, NULL);
    }
    CHECK_EQ(atomic_load(&t.wrong), 0);
    for (int i = 0; i < 8; i++) CHECK_EQ(atomic_load(&t.runs[i]), i < t.count ? times : 0);
}

static void test_threads(int threads) {
    TEST("pool: %d threads, every part once, spinning and after sleep", threads);
    struct oom_pool *pool;
    CHECK_OK(oom_pool_create(threads, 100, &pool));
    if (pool == NULL) return;
    CHECK_EQ(oom_pool_threads(pool), threads);
    CHECK_STR(oom_pool_note(pool), "");
    for (int count = 1; count <= threads + 1; count++) {
        check_runs(pool, count, 300, 0);
        check_runs(pool, count, 5, 1000);
    }
    for (int i = 0; i < 300; i++) /* a worker that slept through a run must not take it later */
        check_runs(pool, 1 + i % threads, 1, 0);
    oom_pool_destroy(pool);
}

static void test_failures(void) {
    TEST("pool: no memory and wrong counts are statuses");
    struct oom_pool *pool;
    uint64_t before = oom_host_bytes_current();
    for (uint64_t n = 1; n <= 3; n++) {
        oom_host_fail_at(n);
        CHECK_EQ(oom_pool_create(2, 4096, &pool), OOM_HOST_NOMEM);
        CHECK(pool == NULL);
        oom_failure_clear();
        CHECK_EQ(oom_host_bytes_current(), before);
    }
    oom_host_fail_at(0);
    CHECK_EQ(oom_pool_create(-1, 0, &pool), OOM_INVALID);
    CHECK_EQ(oom_pool_create(OOM_POOL_THREADS_MAX + 1, 0, &pool), OOM_INVALID);
    oom_failure_clear();
    oom_pool_destroy(NULL);
}

static void write_file(const char *root, const char *path, const char *text) {
    char name[256];
    snprintf(name, sizeof(name), "%s%s", root, path);
    FILE *f = fopen(name, "w");
    CHECK(f != NULL);
    if (f == NULL) return;
    fputs(text, f);
    fclose(f);
}

static void test_quota(void) {
    TEST("pool: CPU quotas of cgroup v1 and v2, the smallest on the way up");
    char root[] = "/tmp/oombench-quota-XXXXXX", path[256];
    CHECK(mkdtemp(root) != NULL);
    CHECK_EQ(oom_pool_quota(root, "/a/b"), 0);
    static const char *const folders[] = {"/a", "/a/b", "/a/c"};
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s%s", root, folders[i]);
        CHECK_EQ(mkdir(path, 0700), 0);
    }
    write_file(root, "/cpu.max", "max 100000\n");
    write_file(root, "/a/cpu.max", "300000 100000\n");
    write_file(root, "/a/b/cpu.max", "max 100000\n");
    CHECK_EQ(oom_pool_quota(root, "/"), 0);
    CHECK_EQ(oom_pool_quota(root, "/a/b"), 3);
    CHECK_EQ(oom_pool_quota(root, "/a/b/gone"), 3);
    write_file(root, "/a/b/cpu.max", "150000 100000\n");
    CHECK_EQ(oom_pool_quota(root, "/a/b"), 2);
    write_file(root, "/a/c/cpu.cfs_quota_us", "-1\n");
    write_file(root, "/a/c/cpu.cfs_period_us", "100000\n");
    CHECK_EQ(oom_pool_quota(root, "/a/c"), 3);
    write_file(root, "/a/c/cpu.cfs_quota_us", "50000\n");
    CHECK_EQ(oom_pool_quota(root, "/a/c/"), 1);
    CHECK(oom_pool_threads_allowed() >= 1);
    static const char *const files[] = {"/a/c/cpu.cfs_quota_us", "/a/c/cpu.cfs_period_us",
                                        "/a/b/cpu.max", "/a/cpu.max", "/cpu.max"};
    for (int i = 0; i < 5; i++) {
        snprintf(path, sizeof(path), "%s%s", root, files[i]);
        unlink(path);
    }
    for (int i = 2; i >= 0; i--) {
        snprintf(path, sizeof(path), "%s%s", root, folders[i]);
        rmdir(path);
    }
    CHECK_EQ(rmdir(root), 0);
}

static void test_share(void) {
    TEST("pool: shares are contiguous, whole and even");
    for (int64_t n = 0; n < 40; n++)
        for (int64_t grain = 1; grain < 9; grain++)
            for (int count = 1; count < 6; count++) {
                int64_t at = 0, largest = 0, smallest = n + grain;
                for (int i = 0; i < count; i++) {
                    struct oom_host_part part = {i, count, NULL, 0};
                    int64_t begin, end;
                    oom_host_share(n, grain, &part, &begin, &end);
                    CHECK(begin == at && end >= begin && (begin % grain == 0 || begin == n));
                    at = end;
                    largest = end - begin > largest ? end - begin : largest;
                    smallest = end - begin < smallest ? end - begin : smallest;
                }
                CHECK(at == n && largest - smallest <= 2 * grain - 1);
            }
}

void pool_test(void) {
    test_share();
    for (int threads = 1; threads <= 5; threads++) test_threads(threads);
    test_failures();
    test_quota();
}
