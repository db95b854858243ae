/* Each decision in which the profiles differ, under every profile; and what throw_on_cudamalloc_oom
 * and backend `direct` change. */
#include "harness/memory/allocator-testing.h"
#include "harness/memory/internal.h"

void profile_test(void);

/* ---- equal blocks of different segments ---- */

/* Which of three equal free blocks is taken: the device gives addresses downward, so the oldest has
 * the highest. */
static void tie(enum oom_profile profile, int expected, const char *conf) {
    oom_devptr held[3];
    begin_as(GIB, profile, conf);
    fake.descending = true;
    for (int i = 0; i < 3; i++) held[i] = take_on(fake_stream(&fake, 0), 30 * MIB);
    give(held[1]);
    give(held[0]);
    give(held[2]);
    CHECK_EQ(take(30 * MIB), held[expected]);
    CHECK_EQ(take(30 * MIB), held[1]);
    CHECK_EQ(take(30 * MIB), held[2 - expected]);
    end();
}

/* The same of the rests in three segments. */
static void tie_of_rests(enum oom_profile profile, int expected) {
    oom_devptr front[3];
    begin_as(GIB, profile, "");
    fake.descending = true;
    for (int i = 0; i < 3; i++) front[i] = take(9 * MIB), take(9 * MIB);
    CHECK_EQ(reserved(), 60 * MIB);
    CHECK_EQ(take(2 * MIB), front[expected] + 18 * MIB);
    end();
}

static void order(void) {
    TEST("profile: equal blocks: from 2.13 on the oldest segment, up to 2.11 the lowest address");
    tie(OOM_PROFILE_PYTORCH_2_13, 0, "");
    tie(OOM_PROFILE_FIXED, 0, "");
    tie(OOM_PROFILE_PYTORCH_2_11, 2, "");
    tie_of_rests(OOM_PROFILE_PYTORCH_2_13, 0);
    tie_of_rests(OOM_PROFILE_PYTORCH_2_11, 2);
}

/* ---- the limit ---- */

/* 0.3 of 200000001 bytes are 60000000.3; of 200000002, 60000000.6. */
static uint64_t limit(enum oom_profile profile, uint64_t capacity) {
    begin_as(capacity, profile, "per_process_memory_fraction:0.3");
    uint64_t bytes = a->limit;
    end();
    return bytes;
}

static void limits(void) {
    struct oom_allocator_settings settings = oom_allocator_settings_default();
    TEST("profile: the limit of a fraction is rounded, up to 2.11 truncated");
    CHECK_EQ(limit(OOM_PROFILE_PYTORCH_2_13, 200000001), 60000000);
    CHECK_EQ(limit(OOM_PROFILE_PYTORCH_2_13, 200000002), 60000001);
    CHECK_EQ(limit(OOM_PROFILE_FIXED, 200000002), 60000001);
    fake_open(&fake, 200000002, false); /* 2.11 does not know the key: set by hand */
    settings.profile = OOM_PROFILE_PYTORCH_2_11;
    settings.per_process_memory_fraction = 0.3;
    CHECK_OK(oom_allocator_create(&fake.device, &settings, &a));
    CHECK_EQ(a->limit, 60000000);
    end();

    TEST("profile: a limit of 0 forbids every segment");
    begin(GIB, "per_process_memory_fraction:0.0");
    refuse(1);
    CHECK_EQ(fake.allocs, 0);
    end();
}

/* ---- garbage collection without a fraction ---- */

static uint64_t collected(enum oom_profile profile) {
    begin_as(100 * MIB, profile, "garbage_collection_threshold:0.5");
    give(take(60 * MIB));
    take_on(fake_stream(&fake, 1), 30 * MIB);
    uint64_t frees = stats()->num_device_free;
    CHECK_EQ(stats()->num_alloc_retries, 0);
    end();
    return frees;
}

static void collection(void) {
    TEST("profile: a gc threshold without a fraction does nothing (pytorch#106660) but in fixed");
    CHECK_EQ(collected(OOM_PROFILE_PYTORCH_2_11), 0);
    CHECK_EQ(collected(OOM_PROFILE_PYTORCH_2_13), 0);
    CHECK_EQ(collected(OOM_PROFILE_FIXED), 1);

    TEST("profile: fixed collects by the capacity, but no limit comes of it");
    begin_as(100 * MIB, OOM_PROFILE_FIXED, "garbage_collection_threshold:0.5");
    take(100 * MIB);
    CHECK_EQ(stats()->num_ooms, 0);
    end();
}

/* ---- the oversize rules ---- */

/* A free block of 60 MiB, max_split 24: may a request of `bytes` have it? */
static bool taken(enum oom_profile profile, const char *conf, uint64_t bytes) {
    begin_as(GIB, profile, conf);
    oom_devptr block = take(60 * MIB);
    take(2 * MIB); /* of an expandable segment: closes the hole */
    give(block);
    bool same = take(bytes) == block;
    end();
    return same;
}

static void oversize(void) {
    const char *expandable = "expandable_segments:True,max_split_size_mb:24";
    const char *plain = "max_split_size_mb:24";
    TEST("profile: oversize blocks: kept for large requests, of expandable ones not in fixed");
    for (int i = 0; i < OOM_PROFILE_COUNT; i++) {
        enum oom_profile profile = (enum oom_profile)i;
        CHECK(!taken(profile, plain, 23 * MIB));
        CHECK(!taken(profile, plain, 40 * MIB));
        CHECK(taken(profile, plain, 41 * MIB));
        CHECK_EQ(taken(profile, expandable, 23 * MIB), profile == OOM_PROFILE_FIXED);
        CHECK_EQ(taken(profile, expandable, 40 * MIB), profile == OOM_PROFILE_FIXED);
        CHECK(taken(profile, expandable, 41 * MIB));
    }
}

/* ---- throw_on_cudamalloc_oom ---- */

static void rejections(void) {
    TEST("reject: more than the device has: no retry, no release, counted apart");
    begin(100 * MIB, "throw_on_cudamalloc_oom:True");
    give(take(60 * MIB));
    uint64_t asked = fake.allocs, events = oom_allocator_trace_count(a);
    refuse(61 * MIB);
    CHECK_EQ(stats()->num_oom_rejections, 1);
    CHECK_EQ(stats()->num_ooms, 0);
    CHECK_EQ(stats()->num_alloc_retries, 0);
    CHECK_EQ(stats()->num_sync_all_streams, 0);
    CHECK_EQ(fake.allocs, asked);
    CHECK_EQ(oom_allocator_trace_count(a), events);
    CHECK_EQ(reserved(), 60 * MIB);
    CHECK(oom_allocator_report(a)->valid);
    CHECK_EQ(oom_allocator_report(a)->requested, 61 * MIB);
    give(take(40 * MIB)); /* exactly what there is */
    oom_allocator_reset_accumulated(a);
    CHECK_EQ(stats()->num_oom_rejections, 0);
    end();

    TEST("reject: nor are oversize blocks released for it");
    begin(100 * MIB, "throw_on_cudamalloc_oom:True,max_split_size_mb:20");
    oom_devptr most = take(60 * MIB);
    give(take(30 * MIB));
    refuse(50 * MIB);
    CHECK_EQ(stats()->num_oom_rejections, 1);
    CHECK_EQ(reserved(), 90 * MIB);
    give(most);
    end();

    TEST("reject: a fraction in the same string is a limit first: the chain runs");
    begin(100 * MIB, "throw_on_cudamalloc_oom:True,per_process_memory_fraction:0.5");
    give(take(40 * MIB));
    refuse(51 * MIB);
    CHECK_EQ(stats()->num_oom_rejections, 0);
    CHECK_EQ(stats()->num_ooms, 1);
    end();

    TEST("reject: the limit is rounded, the comparison here truncated");
    begin(209715201, "throw_on_cudamalloc_oom:True,per_process_memory_fraction:0.5");
    CHECK_EQ(a->limit, 104857601); /* 104857600.5 */
    take(100 * MIB);
    CHECK_EQ(stats()->num_oom_rejections, 0);
    end();
    begin(209715199, "throw_on_cudamalloc_oom:True,per_process_memory_fraction:0.5");
    CHECK_EQ(a->limit, 104857600); /* 104857599.5: 100 MiB pass the limit and are rejected */
    refuse(100 * MIB);
    CHECK_EQ(stats()->num_oom_rejections, 1);
    end();
}

/* ---- backend direct ---- */

static void direct(void) {
    static const struct {
        uint64_t request, block;
    } rows[] = {{1, 512},           {513, 1024},        {1048575, 1048576},
                {1048576, 2097152}, {2097153, 4194304}, {33554432, 33554432}};
    TEST("direct: one device allocation per tensor, as the device rounds it");
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        begin(GIB, "backend:native");
        oom_allocator_destroy(a);
        struct oom_allocator_settings settings = oom_allocator_settings_default();
        settings.backend = OOM_BACKEND_DIRECT;
        CHECK_OK(oom_allocator_create(&fake.device, &settings, &a));
        oom_devptr ptr = take(rows[i].request), other = take(512);
        CHECK_EQ(fake.allocs, 2);
        CHECK_EQ(reserved(), (int64_t)rows[i].block + 512);
        CHECK_EQ(stats()->allocated_bytes[OOM_POOL_ALL].current, (int64_t)rows[i].block + 512);
        CHECK_EQ(stats()->segment[OOM_POOL_ALL].current, 2);
        CHECK_EQ(fake.used, rows[i].block + 512);
        CHECK_OK(oom_allocator_record_stream(a, ptr, fake_stream(&fake, 1))); /* a free waits */
        CHECK_OK(oom_allocator_check(a));
        give(ptr);
        CHECK(traced("rcF"));
        CHECK_EQ(reserved(), 512);
        CHECK_EQ(fake.used, 512);
        give(other);
        CHECK_OK(oom_allocator_release_cached(a));
        end();
    }

    TEST("direct: out of memory at once, with a report; a device that refuses a free changes "
         "nothing");
    struct oom_allocator_settings settings = oom_allocator_settings_default();
    settings.backend = OOM_BACKEND_DIRECT;
    settings.expandable_segments = true; /* has no meaning here */
    fake_open(&fake, 64 * MIB, false);
    CHECK_OK(oom_allocator_create(&fake.device, &settings, &a));
    oom_devptr ptr = take(40 * MIB);
    refuse(30 * MIB);
    CHECK_EQ(fake.allocs, 2);
    CHECK_EQ(stats()->num_ooms, 1);
    CHECK_EQ(stats()->num_alloc_retries, 0);
    CHECK_EQ(oom_allocator_report(a)->wanted, 30 * MIB);
    CHECK_EQ(oom_allocator_report(a)->cached, 0);
    fake.fail_free = OOM_DEVICE;
    CHECK_EQ(oom_allocator_free(a, ptr), OOM_DEVICE);
    CHECK_OK(oom_allocator_check(a));
    oom_failure_clear();
    CHECK_EQ(stats()->allocation[0].current, 1);
    fake.fail_free = OOM_OK;
    give(ptr);
    end();
}

void profile_test(void) {
    order();
    limits();
    collection();
    oversize();
    rejections();
    direct();
}
