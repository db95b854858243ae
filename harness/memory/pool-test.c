/* Private pools: they share nothing, are given back only when nobody can allocate from them any
 * more, and are counted beside the rest. */
#include "harness/memory/allocator-testing.h"
#include "harness/memory/internal.h"

#include "kernels/hostmem.h"

void pool_test(void);

static const struct oom_pool_id none = {0, 0}, first = {1, 0}, second = {0, 7};

static void use(struct oom_pool_id id) {
    CHECK_OK(oom_allocator_pool_use(a, id));
}

static void retire(struct oom_pool_id id) {
    CHECK_OK(oom_allocator_pool_retire(a, id));
}

static void separation(const char *conf) {
    begin(GIB, conf);
    oom_devptr common = take(2 * MIB);
    give(common);
    use(first);
    oom_devptr own = take(2 * MIB);
    CHECK(own != common);
    CHECK_EQ(reserved(), 40 * MIB);
    use(second);
    oom_devptr third = take(2 * MIB);
    CHECK(third != own && third != common);
    give(own); /* into its own pool, whatever is in use */
    CHECK(take(2 * MIB) != own);
    use(first);
    CHECK_EQ(take(2 * MIB), own);
    use(none);
    CHECK_EQ(take(2 * MIB), common);
    CHECK_EQ(reserved(), 60 * MIB);
    CHECK_EQ(oom_allocator_trace_at(a, oom_allocator_trace_count(a) - 1)->pool.a, 0);
    CHECK_EQ(oom_allocator_trace_at(a, oom_allocator_trace_count(a) - 2)->pool.a, 1);
    CHECK_OK(oom_allocator_check(a));
    end();
}

static void life(void) {
    TEST("pool: a free block serves its own pool only");
    separation("");
    TEST("pool: the same with expandable segments");
    separation("expandable_segments:True");

    TEST("pool: two of 1 MiB share a segment, a third makes one; blocks say whose they are");
    begin(GIB, "");
    use(first);
    oom_devptr ptr = take(MIB);
    CHECK_EQ(take(MIB) - ptr, MIB);
    take(MIB);
    CHECK_EQ(reserved(), 4 * MIB);
    CHECK_EQ(block_at(0).pool.a, 1);
    end();

    TEST("pool: a pool in use keeps its cache through releases and retries; retired it does not");
    begin(100 * MIB, "");
    use(first);
    oom_devptr small = take(512), large = take(40 * MIB);
    give(small);
    give(large);
    use(none);
    CHECK_OK(oom_allocator_release_cached(a));
    CHECK_EQ(reserved(), 42 * MIB);
    refuse(80 * MIB);
    CHECK_EQ(reserved(), 42 * MIB);
    retire(first);
    CHECK_EQ(reserved(), 42 * MIB); /* nothing asked for it back yet */
    give(take(80 * MIB));
    CHECK_EQ(stats()->num_alloc_retries, 2);
    CHECK(traced("FFSarc"));
    CHECK_EQ(traced_address(5), small); /* small before large */
    CHECK_EQ(traced_address(4), large);
    end();

    TEST("pool: the default pools go large before small, and before private ones");
    begin(100 * MIB, "");
    oom_devptr tiny = take(512), big = take(30 * MIB);
    give(tiny);
    give(big);
    use(first);
    give(take(512));
    use(none);
    retire(first);
    CHECK_OK(oom_allocator_release_cached(a));
    CHECK(traced("FFF"));
    CHECK_EQ(traced_address(2), big);
    CHECK_EQ(traced_address(1), tiny);
    end();

    TEST("pool: within it, a release is of the default pools: what it holds stays");
    begin(80 * MIB, "");
    give(take(60 * MIB));
    use(first);
    take(60 * MIB); /* cached in the default pool: given back by the retry */
    CHECK_EQ(reserved(), 60 * MIB);
    CHECK_EQ(stats()->num_alloc_retries, 1);
    end();

    TEST("pool: one in use stays, though it has nothing yet");
    begin(GIB, "");
    use(first);
    CHECK_OK(oom_allocator_release_cached(a));
    CHECK(a->group.next != NULL);
    take(512);
    CHECK_EQ(block_at(0).pool.a, 1);
    end();

    TEST("pool: an id can be used again when the pool of that id is gone");
    begin(GIB, "");
    use(first);
    oom_devptr kept = take(512);
    use(none);
    retire(first);
    CHECK_EQ(oom_allocator_pool_use(a, first), OOM_INVALID);
    CHECK(strstr(oom_failure_last()->message, "is retired") != NULL);
    oom_failure_clear();
    CHECK_OK(oom_allocator_release_cached(a));
    CHECK_EQ(reserved(), 2 * MIB); /* a live block keeps it */
    give(kept);
    CHECK_OK(oom_allocator_release_cached(a));
    CHECK(a->group.next == NULL);
    use(first);
    take(512);
    end();

    TEST("pool: misuse");
    begin(GIB, "");
    CHECK_EQ(oom_allocator_pool_retire(a, none), OOM_INVALID);
    oom_failure_clear();
    CHECK_EQ(oom_allocator_pool_retire(a, first), OOM_INVALID);
    CHECK(strstr(oom_failure_last()->message, "no such pool") != NULL);
    oom_failure_clear();
    use(first);
    CHECK_EQ(oom_allocator_pool_retire(a, first), OOM_INVALID);
    CHECK(strstr(oom_failure_last()->message, "another one must") != NULL);
    oom_failure_clear();
    use(none);
    retire(first); /* empty: gone at once */
    CHECK(a->group.next == NULL);
    end();
}

static void collection(void) {
    TEST("pool: garbage is collected in the default large pool only");
    begin(200 * MIB, "garbage_collection_threshold:0.1,per_process_memory_fraction:0.9");
    use(first);
    give(take(30 * MIB));
    give(take(512));
    take_on(fake_stream(&fake, 1), 40 * MIB);
    CHECK_EQ(stats()->num_device_free, 0);
    use(none);
    give(take(32 * MIB));
    take_on(fake_stream(&fake, 1), 34 * MIB);
    CHECK_EQ(stats()->num_device_free, 1);
    end();
}

static void host_memory(void) {
    TEST("pool: no host memory: the pools are as before");
    uint64_t refused = 0;
    begin(GIB, "");
    for (uint64_t nth = 1; nth < 20; nth++) {
        oom_failure_clear();
        oom_host_fail_at(nth);
        enum oom_status status = oom_allocator_pool_use(a, first);
        oom_host_fail_at(0);
        if (status == OOM_OK) break;
        CHECK_EQ(status, OOM_HOST_NOMEM);
        CHECK(a->group.next == NULL && a->current == &a->group);
        refused++;
    }
    CHECK(refused >= 4);
    take(512);
    end();
}

void pool_test(void) {
    life();
    collection();
    host_memory();
}
