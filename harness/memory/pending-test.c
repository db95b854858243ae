/* Blocks that other streams use: when they come back, in which order, what is counted meanwhile,
 * and what a retry does with them. The test itself says when a stream has got how far. */
#include "harness/memory/allocator-testing.h"
#include "harness/memory/internal.h"

#include "kernels/hostmem.h"

void pending_test(void);

static struct oom_stream *stream(int i) {
    return fake_stream(&fake, i);
}

static void used_by(oom_devptr ptr, int i) {
    CHECK_OK(oom_allocator_record_stream(a, ptr, stream(i)));
}

static void statistics(void) {
    TEST("pending: allocated falls at the request, active and requested when the stream is done");
    begin(GIB, "");
    oom_devptr ptr = take(1000), rest = take(4096);
    used_by(ptr, 1);
    give(ptr);
    CHECK_EQ(stats()->allocation[OOM_POOL_ALL].current, 1);
    CHECK_EQ(stats()->allocated_bytes[OOM_POOL_SMALL].current, 4096);
    CHECK_EQ(stats()->active[OOM_POOL_ALL].current, 2);
    CHECK_EQ(stats()->active_bytes[OOM_POOL_ALL].current, 4096 + 1024);
    CHECK_EQ(stats()->requested_bytes[OOM_POOL_ALL].current, 4096 + 1000);
    CHECK(block_at(0).pending && !block_at(0).allocated);
    CHECK_EQ(block_at(0).requested, 1000);
    CHECK(traced("r"));
    CHECK_OK(oom_allocator_check(a));

    CHECK(take(1024) != ptr); /* not done: another block */
    fake_finish(&fake, 1);
    CHECK_EQ(stats()->active[OOM_POOL_ALL].current, 3); /* only an alloc looks */
    CHECK_EQ(take(1024), ptr);
    CHECK(traced("ca"));
    CHECK_EQ(stats()->active[OOM_POOL_ALL].current, 3);
    CHECK_EQ(stats()->active_bytes[OOM_POOL_ALL].freed, 1024);
    give(rest);
    end();

    TEST("pending: a block cannot be freed or told about twice");
    begin(GIB, "");
    ptr = take(512);
    used_by(ptr, 1);
    give(ptr);
    CHECK_EQ(oom_allocator_free(a, ptr), OOM_INVALID);
    CHECK(strstr(oom_failure_last()->message, "freed before") != NULL);
    oom_failure_clear();
    CHECK_EQ(oom_allocator_record_stream(a, ptr, stream(2)), OOM_INVALID);
    CHECK(strstr(oom_failure_last()->message, "record_stream of") != NULL);
    oom_failure_clear();
    CHECK_EQ(stats()->allocation[OOM_POOL_ALL].freed, 1);
    end(); /* destroyed with the block still waited for */

    TEST("pending: its own stream is ignored, and a stream told twice counts once");
    begin(GIB, "");
    ptr = take_on(stream(1), 512);
    used_by(ptr, 1);
    give(ptr);
    CHECK_EQ(fake.event_count, 0);
    CHECK(traced("rc"));
    ptr = take(512);
    used_by(ptr, 2);
    used_by(ptr, 2);
    CHECK_EQ(fake.event_count, 1);
    end(); /* destroyed with a live block that has uses */
}

static void order(void) {
    TEST("pending: all streams must be done");
    begin(GIB, "");
    oom_devptr ptr = take(512);
    used_by(ptr, 1);
    used_by(ptr, 2);
    give(ptr);
    fake_finish(&fake, 2);
    take(512);
    CHECK(block_at(0).pending);
    fake_finish(&fake, 1);
    CHECK_EQ(take(512), ptr);
    end();

    TEST("pending: each stream in order; a slow one holds up its own queue only");
    begin(GIB, "");
    oom_devptr first = take(512), second = take(512), other = take(512);
    take(512);
    used_by(first, 1);
    used_by(second, 1);
    used_by(other, 2);
    give(first);
    give(second);
    give(other);
    fake_finish(&fake, 2);
    take(4096);
    CHECK(block_at(0).pending && block_at(1).pending && !block_at(2).pending);
    fake.streams[1].finished++; /* the first of the two */
    take(4096);
    CHECK(!block_at(0).pending && block_at(1).pending);
    CHECK_EQ(take(512), first);
    fake_finish(&fake, 1);
    CHECK_EQ(take(1024), second); /* merged with `other` */
    end();

    TEST("pending: what was submitted after the free is not waited for; events are used again");
    begin(GIB, "");
    for (int i = 0; i < 100; i++) {
        ptr = take(512);
        used_by(ptr, 1);
        give(ptr);
        fake_finish(&fake, 1);
        fake.streams[1].submitted++;
    }
    CHECK_EQ(fake.event_count, 1);
    CHECK_EQ(stats()->reserved_bytes[0].current, 2 * MIB);
    end();

    TEST("pending: the event is recorded at the free; failing there, the block is still live");
    begin(GIB, "");
    ptr = take(512);
    used_by(ptr, 1);
    used_by(ptr, 2);
    fake.fail[FAKE_EVENT_RECORD].left = 2;
    fake.fail[FAKE_EVENT_RECORD].status = OOM_DEVICE;
    CHECK_EQ(oom_allocator_free(a, ptr), OOM_DEVICE);
    oom_failure_clear();
    CHECK_EQ(stats()->allocation[OOM_POOL_ALL].current, 1);
    CHECK_OK(oom_allocator_check(a));
    give(ptr);
    CHECK(block_at(0).pending);
    end();
}

static void released(void) {
    TEST("pending: a release waits for all of them");
    begin(GIB, "");
    oom_devptr small = take(512), large = take(30 * MIB);
    used_by(small, 1);
    used_by(large, 2);
    give(small);
    give(large);
    CHECK_OK(oom_allocator_release_cached(a));
    CHECK_EQ(reserved(), 0);
    CHECK_EQ(stats()->active[OOM_POOL_ALL].current, 0);
    CHECK(traced("rrccFF"));
    CHECK_EQ(stats()->num_sync_all_streams, 1);
    end();

    TEST("pending: expandable: a retry waits, merges and unmaps");
    begin(160 * MIB, "expandable_segments:True");
    oom_devptr first = take(40 * MIB), second = take(40 * MIB);
    used_by(first, 1);
    give(first);
    give(second);
    CHECK_EQ(take(130 * MIB), first);
    CHECK_EQ(stats()->num_alloc_retries, 1);
    CHECK(traced("cUMa"));
    end();
}

/* 20 MiB are free but pending, in a segment that a survivor keeps: PyTorch's step G waits, cannot
 * give the segment back, does not look into its cache again and fails. */
static enum oom_status after_wait(enum oom_profile profile, const char *conf) {
    oom_devptr got = 0;
    begin_as(60 * MIB, profile, conf);
    oom_devptr block = take(9 * MIB);
    take(2 * MIB);
    take(9 * MIB);
    take(38 * MIB);
    used_by(block, 1);
    give(block);
    oom_failure_clear();
    enum oom_status status = oom_allocator_alloc(a, 8 * MIB, NULL, OOM_TAG_OTHER, "x", &got);
    oom_failure_clear();
    CHECK_EQ(stats()->num_sync_all_streams, 1);
    if (status == OOM_OK) CHECK_EQ(got, block);
    if (status == OOM_NOMEM) { /* an immediate second call succeeds */
        CHECK_EQ(stats()->num_alloc_retries, 1);
        CHECK_EQ(take(8 * MIB), block);
    } else {
        CHECK_EQ(stats()->num_alloc_retries, 0);
    }
    end();
    return status;
}

static void second_search(void) {
    TEST("pending: what comes free while a retry waits is not looked for (pytorch#189504)");
    CHECK_EQ(after_wait(OOM_PROFILE_PYTORCH_2_13, ""), OOM_NOMEM);
    CHECK_EQ(after_wait(OOM_PROFILE_PYTORCH_2_11, ""), OOM_NOMEM);

    TEST("pending: profile fixed looks again, before it releases anything");
    CHECK_EQ(after_wait(OOM_PROFILE_FIXED, ""), OOM_OK);
}

static void host_memory(void) {
    TEST("pending: no host memory: not told, nothing changed");
    begin(GIB, "");
    oom_devptr ptr = take(512);
    for (uint64_t nth = 1; nth < 8; nth++) {
        oom_host_fail_at(nth);
        enum oom_status status = oom_allocator_record_stream(a, ptr, stream(1));
        oom_host_fail_at(0);
        if (status == OOM_OK) break;
        CHECK_EQ(status, OOM_HOST_NOMEM);
        oom_failure_clear();
        CHECK_OK(oom_allocator_check(a));
        CHECK_EQ(fake.event_count, 0);
        CHECK(nth < 7);
    }
    oom_host_fail_at(1); /* a free needs none */
    CHECK_OK(oom_allocator_free(a, ptr));
    void *probe = oom_host_alloc(1);
    CHECK(probe == NULL);
    oom_host_free(probe);
    oom_host_fail_at(0);
    CHECK(block_at(0).pending);
    end();
}

void pending_test(void) {
    statistics();
    order();
    released();
    second_search();
    host_memory();
}
