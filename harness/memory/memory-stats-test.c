/* The statistics as PyTorch's users see them: every key, in order; what a reset leaves; the lowest
 * use of what was reserved. */
#include "harness/memory/allocator-testing.h"

#include <stdio.h>

void memory_stats_test(void);

enum { KEYS_MAX = 256 };

struct seen {
    int count;
    bool sorted;
    char last[128];
    struct {
        char key[128];
        int64_t value;
    } rows[KEYS_MAX];
};

static enum oom_status note(const char *key, int64_t value, void *context) {
    struct seen *seen = context;
    if (seen->count == KEYS_MAX) return OOM_INTERNAL;
    if (seen->count > 0 && strcmp(seen->last, key) >= 0) seen->sorted = false;
    snprintf(seen->last, sizeof seen->last, "%s", key);
    snprintf(seen->rows[seen->count].key, sizeof seen->rows[0].key, "%s", key);
    seen->rows[seen->count++].value = value;
    return OOM_OK;
}

static struct seen look(void) {
    static struct seen seen;
    seen = (struct seen){.sorted = true};
    CHECK_OK(oom_allocator_memory_stats(a, note, &seen));
    return seen;
}

static int64_t value_of(const char *key) {
    static struct seen seen;
    seen = look();
    for (int i = 0; i < seen.count; i++) {
        if (strcmp(seen.rows[i].key, key) == 0) return seen.rows[i].value;
    }
    CHECK_MSG(false, "no key %s", key);
    return -99;
}

static enum oom_status stop(const char *key, int64_t value, void *context) {
    (void)value;
    ++*(int *)context;
    return strcmp(key, "active.all.freed") == 0 ? OOM_NOTHING : OOM_OK;
}

static void keys(void) {
    static const char *const families[] = {
        "active",          "active_bytes",   "allocated_bytes",
        "allocation",      "inactive_split", "inactive_split_bytes",
        "requested_bytes", "reserved_bytes", "segment"};
    static const char *const pools[] = {"all", "large_pool", "small_pool"};
    static const char *const fields[] = {"allocated", "current", "freed", "peak"};
    static const char *const scalars[] = {
        "max_split_size",       "num_alloc_retries",         "num_device_alloc",
        "num_device_free",      "num_oom_rejections",        "num_ooms",
        "num_sync_all_streams", "oversize_allocations.peak", "oversize_segments.current"};
    char key[128];
    TEST("memory_stats: every key of torch.cuda.memory_stats, sorted");
    begin(GIB, "");
    take(3 * MIB);
    static struct seen seen;
    seen = look();
    CHECK(seen.sorted);
    CHECK_EQ(seen.count, 9 * 12 + 2 * 4 + 7);
    for (int f = 0; f < 9; f++) {
        for (int p = 0; p < 3; p++) {
            for (int i = 0; i < 4; i++) {
                snprintf(key, sizeof key, "%s.%s.%s", families[f], pools[p], fields[i]);
                CHECK(value_of(key) >= 0);
            }
        }
    }
    for (int i = 0; i < 9; i++) CHECK(value_of(scalars[i]) >= -1);
    CHECK_STR(seen.rows[0].key, "active.all.allocated");
    CHECK_STR(seen.rows[seen.count - 1].key, "segment.small_pool.peak");
    CHECK_EQ(value_of("max_split_size"), -1);
    CHECK_EQ(value_of("allocated_bytes.large_pool.current"), 3 * MIB);
    CHECK_EQ(value_of("allocated_bytes.small_pool.peak"), 0);
    CHECK_EQ(value_of("reserved_bytes.all.allocated"), 20 * MIB);
    CHECK_EQ(value_of("num_device_alloc"), 1);
    int calls = 0;
    CHECK_EQ(oom_allocator_memory_stats(a, stop, &calls), OOM_NOTHING);
    CHECK_EQ(calls, 3);
    end();

    TEST("memory_stats: private pools have keys of their own while they are there");
    begin(GIB, "max_split_size_mb:30");
    static const struct oom_pool_id ids[] = {{0, 2}, {1, 10}, {1, 1}};
    for (int i = 0; i < 3; i++) {
        CHECK_OK(oom_allocator_pool_use(a, ids[i]));
        give(take((uint64_t)(i + 1) * 10 * MIB));
    }
    CHECK_OK(oom_allocator_pool_use(a, (struct oom_pool_id){0, 0}));
    take(512);
    seen = look();
    CHECK(seen.sorted);
    CHECK_EQ(seen.count, 9 * 12 + 2 * 4 + 7 + 3 * 12);
    CHECK_EQ(value_of("max_split_size"), 30 * MIB);
    CHECK_EQ(value_of("reserved_bytes_by_private_pools.1_10.all.current"), 20 * MIB);
    CHECK_EQ(value_of("reserved_bytes_by_private_pools.1_1.large_pool.peak"), 30 * MIB);
    CHECK_EQ(value_of("reserved_bytes_by_private_pools.0_2.small_pool.peak"), 0);
    CHECK_EQ(value_of("reserved_bytes.all.current"), 62 * MIB);
    CHECK_OK(oom_allocator_pool_retire(a, ids[1]));
    CHECK_OK(oom_allocator_release_cached(a));
    CHECK_EQ(look().count, 9 * 12 + 2 * 4 + 7 + 2 * 12);
    end();
}

static void resets(void) {
    TEST("memory_stats: accumulated sums and event counts go to 0; peaks and currents stay");
    begin(64 * MIB, "");
    give(take(30 * MIB));
    oom_devptr kept = take(10 * MIB);
    CHECK_OK(oom_allocator_release_cached(a));
    refuse(60 * MIB);
    oom_allocator_reset_accumulated(a);
    CHECK_EQ(value_of("allocated_bytes.all.allocated"), 0);
    CHECK_EQ(value_of("allocated_bytes.all.freed"), 0);
    CHECK_EQ(value_of("allocated_bytes.all.current"), 10 * MIB);
    CHECK_EQ(value_of("allocated_bytes.all.peak"), 30 * MIB);
    CHECK_EQ(value_of("num_ooms"), 0);
    CHECK_EQ(value_of("num_alloc_retries"), 0);
    CHECK_EQ(value_of("num_sync_all_streams"), 0);
    CHECK_EQ(value_of("num_device_alloc"), 0);
    CHECK_EQ(value_of("num_device_free"), 0);
    CHECK_OK(oom_allocator_check(a));
    give(kept);
    CHECK_EQ(value_of("allocated_bytes.all.freed"), 10 * MIB);
    oom_allocator_reset_peaks(a);
    CHECK_EQ(value_of("allocated_bytes.all.peak"), 0);
    end();
}

static void utilization(void) {
    TEST("stats: the least of what was reserved that was in use");
    begin(GIB, "");
    CHECK_EQ(stats()->lowest_reserved, 0);
    oom_devptr first = take(20 * MIB), second = take(2 * MIB), third = take(30 * MIB);
    CHECK_EQ(stats()->lowest_allocated, 22 * MIB); /* of 40; then 52 of 70 */
    CHECK_EQ(stats()->lowest_reserved, 40 * MIB);
    give(third);
    CHECK_EQ(stats()->lowest_allocated, 22 * MIB);
    CHECK_EQ(stats()->lowest_reserved, 70 * MIB);
    CHECK_OK(oom_allocator_release_cached(a));
    oom_devptr last = take(18 * MIB); /* 40 of 40 */
    give(first);
    give(second);
    CHECK_EQ(stats()->lowest_reserved, 70 * MIB);
    give(last);
    CHECK_EQ(stats()->lowest_allocated, 0);
    CHECK_EQ(stats()->lowest_reserved, 40 * MIB);
    end();
}

void memory_stats_test(void) {
    keys();
    resets();
    utilization();
}
