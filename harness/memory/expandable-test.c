/* Expandable segments: where a block goes, which pages are mapped and given back, what the device
 * is asked in which order, and what is left when it fails half-way. Figures are PyTorch's own tests
 * or worked out by hand from its rules. */
#include "harness/memory/allocator-testing.h"
#include "harness/memory/internal.h"

#include "kernels/hostmem.h"

void expandable_test(void);

static const char *const on = "expandable_segments:True";

static void forget_log(void) {
    fake.log[0] = 0;
}

/* ---- sizes ---- */

static void golden_vectors(void) {
    static const int64_t after[8] = {20, 40, 60, 80, 80, 100, 120, 140};
    oom_devptr held[8];
    TEST("expandable: 8 x 16 MiB map 20 MiB pages as needed; then 4 x 32 MiB map none");
    begin(GIB, on);
    for (int i = 0; i < 8; i++) {
        held[i] = take(16 * MIB);
        CHECK_EQ(reserved(), after[i] * (int64_t)MIB);
        CHECK_EQ(held[i] - held[0], (uint64_t)i * 16 * MIB);
    }
    CHECK_EQ(stats()->segment[OOM_POOL_ALL].current, 0); /* pages are no segments */
    CHECK_EQ(stats()->num_device_alloc, 7);
    for (int i = 0; i < 8; i++) give(held[i]);
    CHECK_EQ(block_at(0).bytes, 140 * MIB);
    for (int i = 0; i < 4; i++) held[i] = take(32 * MIB);
    CHECK_EQ(reserved(), 140 * MIB);
    end();

    TEST("expandable: 4 x 16 MiB, free two of them apart: 32 MiB grows, as the holes are pinned");
    begin(GIB, on);
    for (int i = 0; i < 4; i++) held[i] = take(16 * MIB);
    CHECK_EQ(reserved(), 80 * MIB);
    give(held[0]);
    give(held[2]);
    oom_devptr large = take(32 * MIB);
    CHECK_EQ(reserved(), 100 * MIB);
    CHECK_EQ(large, held[3] + 16 * MIB);
    give(held[1]);
    give(held[3]);
    give(large);
    CHECK_EQ(take(32 * MIB), held[0]);
    CHECK_EQ(reserved(), 100 * MIB);
    end();
}

static void sizes(void) {
    static const struct {
        uint64_t request, block, mapped;
    } rows[] = {
        {1, 512, 2097152},
        {1048576, 1048576, 2097152},
        {1048577, 1049088, 20971520},
        {2097152, 2097152, 20971520},   /* PyTorch's test: 2097152 active, 18874368 free */
        {10485760, 10485760, 20971520}, /* not made to measure */
        {33554432, 33554432, 41943040}, /* the same test: 33554432 and 8388608 */
        {20971520, 20971520, 20971520}, /* a whole page: nothing is cut off */
        {20971008, 20971008, 20971520}, /* a rest of 512 is */
        {62914561, 62915072, 83886080},
    };
    TEST("expandable: block and pages of single requests to an empty allocator");
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        begin(GIB, on);
        oom_devptr ptr = take(rows[i].request);
        int pool = rows[i].block <= MIB ? OOM_POOL_SMALL : OOM_POOL_LARGE;
        CHECK_EQ(block_at(0).address, ptr);
        CHECK_EQ(block_at(0).bytes, rows[i].block);
        CHECK(block_at(0).expandable);
        CHECK_EQ(block_at(0).segment_bytes, rows[i].mapped);
        if (rows[i].mapped > rows[i].block) {
            CHECK_EQ(block_at(1).bytes, rows[i].mapped - rows[i].block);
            CHECK(!block_at(1).allocated);
        }
        CHECK_EQ(stats()->reserved_bytes[pool].current, rows[i].mapped);
        CHECK_EQ(stats()->inactive_split[OOM_POOL_ALL].current, 0);
        CHECK_EQ(fake.used, rows[i].mapped);
        CHECK_EQ(stats()->num_device_alloc, 1);
        CHECK(traced("Ma"));
        CHECK_EQ(traced_address(1), ptr);
        CHECK_EQ(traced_bytes(1), rows[i].mapped);
        end();
    }

    TEST("expandable: a block of 2 and one of 32 MiB share pages: 2097152 and 39845888");
    begin(GIB, on);
    take(2097152);
    oom_devptr large = take(33554432);
    CHECK_EQ(reserved(), 41943040);
    give(large);
    CHECK_EQ(block_at(0).bytes, 2097152);
    CHECK_EQ(block_at(1).bytes, 39845888);
    CHECK_EQ(stats()->num_device_alloc, 2);
    end();

    TEST("expandable: pages of the large pool are as large as large segments");
    begin(GIB, "expandable_segments:True,large_segment_size_mb:12");
    take(2 * MIB);
    CHECK_EQ(reserved(), 12 * MIB);
    take(11 * MIB);
    CHECK_EQ(reserved(), 24 * MIB);
    end();

    TEST(
        "expandable: a page that is no multiple of the device's, or no virtual memory, is refused");
    struct oom_allocator_settings settings = oom_allocator_settings_default();
    settings.expandable_segments = true;
    settings.large_segment_size = settings.max_non_split_rounding = 21 * MIB;
    fake_open(&fake, GIB, false);
    CHECK_EQ(oom_allocator_create(&fake.device, &settings, &a), OOM_USAGE);
    CHECK(strstr(oom_failure_last()->message, "large_segment_size_mb") != NULL);
    oom_failure_clear();
}

/* ---- places ---- */

static void places(void) {
    oom_devptr held[6];
    TEST("expandable: a closed hole goes before one that touches unmapped addresses");
    begin(GIB, on);
    for (int i = 0; i < 6; i++) held[i] = take(20 * MIB);
    give(held[1]); /* 20 MiB, closed */
    give(held[5]); /* 20 MiB, and the addresses behind it */
    oom_devptr tail = take(12 * MIB);
    CHECK_EQ(tail, held[1]);
    give(tail);
    give(held[2]); /* closed: 40 MiB; the tail is smaller, but counts as more */
    CHECK_EQ(take(18 * MIB), held[1]);
    end();

    TEST("expandable: unmapped pages are filled again from the lowest address");
    begin(200 * MIB, on);
    for (int i = 0; i < 6; i++) held[i] = take(20 * MIB);
    give(held[1]);
    give(held[3]);
    CHECK_OK(oom_allocator_release_cached(a));
    CHECK_EQ(reserved(), 80 * MIB);
    CHECK_EQ(stats()->num_device_free, 2);
    CHECK_EQ(block_at(0).segment_bytes, 20 * MIB); /* runs: 0, 2, 4 and 5 */
    CHECK_EQ(block_at(1).segment, held[2]);
    CHECK_EQ(block_at(2).segment_bytes, 40 * MIB);
    CHECK_EQ(block_at(3).segment, held[4]);
    CHECK_EQ(take(20 * MIB), held[1]);
    CHECK_EQ(take(20 * MIB), held[3]);
    CHECK_EQ(take(20 * MIB), held[5] + 20 * MIB);
    end();

    TEST("expandable: free and unmapped neighbours together hold a block");
    begin(GIB, on);
    for (int i = 0; i < 5; i++) held[i] = take(20 * MIB);
    give(held[2]);
    CHECK_OK(oom_allocator_release_cached(a)); /* a hole of one page */
    give(held[1]);
    give(held[3]); /* free, unmapped, free */
    forget_log();
    CHECK_EQ(take(60 * MIB), held[1]);
    CHECK_STR(fake.log, "CMA");
    CHECK_EQ(reserved(), 100 * MIB);
    end();

    TEST("expandable: each stream, and each size of page, has a segment of its own");
    begin(GIB, on);
    oom_devptr first = take(2 * MIB), other = take_on(fake_stream(&fake, 1), 2 * MIB);
    oom_devptr small = take(512);
    CHECK_EQ(fake.count, 3);
    CHECK(other - first >= GIB && small - first >= GIB);
    CHECK_EQ(reserved(), 42 * MIB);
    end();

    TEST("expandable: addresses: 9/8 of the device, or what the setting says, in whole pages");
    begin(100 * MIB, on); /* 112.5 MiB are 6 pages of 20 */
    take(2 * MIB);
    CHECK_EQ(fake.regions[0].bytes, 120 * MIB);
    take(512); /* 57 of 2 */
    CHECK_EQ(fake.regions[1].bytes, 114 * MIB);
    end();
    begin(400 * MIB, "expandable_segments:True,expandable_segments_reserve:0.1");
    take(30 * MIB);
    CHECK_EQ(fake.regions[0].bytes, 40 * MIB);
    take(30 * MIB); /* no room: one more */
    CHECK_EQ(fake.count, 2);
    end();
    begin(400 * MIB, "expandable_segments:True,expandable_segments_reserve:1G");
    take(2 * MIB); /* never more than 450 */
    CHECK_EQ(fake.regions[0].bytes, 460 * MIB);
    end();

    TEST("expandable: a request larger than the reserve is an ordinary OOM");
    begin(400 * MIB, "expandable_segments:True,expandable_segments_reserve:0.05");
    give(take(2 * MIB));
    refuse(80 * MIB);
    CHECK_EQ(stats()->num_ooms, 1);
    CHECK_EQ(stats()->num_alloc_retries, 1);
    CHECK_EQ(reserved(), 0); /* the cache was given back on the way */
    CHECK_EQ(fake.count, 0);
    end();
}

/* ---- the device's calls ---- */

static void device_calls(void) {
    TEST("expandable: create each page, map each, one set_access; and back");
    begin(GIB, on);
    oom_devptr ptr = take(50 * MIB);
    CHECK_STR(fake.log, "RCCCMMMA");
    give(ptr);
    forget_log();
    CHECK_OK(oom_allocator_release_cached(a));
    CHECK_STR(fake.log, "SULULULV");
    CHECK_EQ(fake.count, 0);
    CHECK(traced("U"));
    CHECK_EQ(traced_bytes(0), 60 * MIB);
    end();

    TEST("expandable: of a free block only whole pages go; what is left stays free");
    begin(GIB, on);
    oom_devptr front = take(10 * MIB), middle = take(60 * MIB), back = take(5 * MIB);
    give(middle); /* [10, 70): pages 1 and 2, the 3rd is shared with `back` */
    forget_log();
    CHECK_OK(oom_allocator_release_cached(a));
    CHECK_STR(fake.log, "SULUL");
    CHECK_EQ(reserved(), 40 * MIB);
    CHECK_EQ(block_at(1).bytes, 10 * MIB);
    CHECK_EQ(block_at(2).bytes, 10 * MIB);
    CHECK_EQ(block_at(2).address, front + 60 * MIB);
    CHECK_EQ(block_at(2).segment, front + 60 * MIB);
    CHECK_EQ(block_at(2).segment_bytes, 20 * MIB);
    CHECK_EQ(traced_address(0), front + 20 * MIB);
    CHECK_EQ(traced_bytes(0), 40 * MIB);
    CHECK_EQ(stats()->num_device_free, 1);
    give(back);
    give(front);
    end();

    TEST("expandable: nothing is unmapped but by a full release: not for an oversize request");
    begin(100 * MIB, "expandable_segments:True,max_split_size_mb:20");
    give(take(40 * MIB));
    take_on(fake_stream(&fake, 1), 40 * MIB);
    forget_log();
    take_on(fake_stream(&fake, 1), 40 * MIB);
    CHECK_EQ(stats()->num_alloc_retries, 1);
    CHECK_EQ(stats()->num_sync_all_streams, 1);
    CHECK_EQ(reserved(), 80 * MIB);
    end();

    TEST("expandable: garbage collection looks at whole segments, and finds none to free");
    begin(100 * MIB, "expandable_segments:True,garbage_collection_threshold:0.1,"
                     "per_process_memory_fraction:0.9");
    give(take(40 * MIB));
    take_on(fake_stream(&fake, 1), 20 * MIB);
    CHECK_EQ(reserved(), 60 * MIB);
    CHECK_EQ(stats()->num_device_free, 0);
    end();

    TEST("expandable: nor is a wholly mapped segment garbage, however old");
    begin(400 * MIB, "expandable_segments:True,garbage_collection_threshold:0.05,"
                     "per_process_memory_fraction:0.9,expandable_segments_reserve:0.1");
    give(take(40 * MIB)); /* all of it */
    CHECK_EQ(block_at(0).bytes, fake.regions[0].bytes);
    take_on(fake_stream(&fake, 1), 20 * MIB);
    CHECK_EQ(reserved(), 60 * MIB);
    CHECK_EQ(fake.frees, 0);
    end();

    TEST("expandable: the limit knows the size of a segment, not of pages");
    begin(200 * MIB, "expandable_segments:True,per_process_memory_fraction:0.2"); /* 40 MiB */
    take(32 * MIB); /* counted as 32, mapped as 40 */
    CHECK_EQ(reserved(), 40 * MIB);
    end();
    begin(200 * MIB, "expandable_segments:True,per_process_memory_fraction:0.15"); /* 30 MiB */
    oom_devptr large = take(28 * MIB); /* 40 MiB are more than the limit */
    CHECK_EQ(reserved(), 40 * MIB);
    take(6 * MIB); /* from the rest of the page */
    refuse(7 * MIB);
    give(large);
    end();
    begin(200 * MIB, "expandable_segments:True,per_process_memory_fraction:0.15");
    oom_devptr most = take(18 * MIB);
    refuse(3 * MIB); /* 20 + 20 are asked for, although 1 MiB more would do */
    CHECK_EQ(stats()->num_ooms, 1);
    give(most);
    end();

    TEST("expandable: out of memory: whole pages of all streams and pools are given back first");
    begin(100 * MIB, on);
    give(take(512));
    give(take_on(fake_stream(&fake, 1), 30 * MIB));
    oom_devptr kept = take(10 * MIB);
    CHECK_EQ(reserved(), 62 * MIB);
    oom_devptr got = take(50 * MIB); /* 10 in the first page, so 2 more: 62 + 40 do not fit */
    CHECK_EQ(reserved(), 60 * MIB);
    CHECK(traced("UUMa"));
    CHECK_EQ(got, kept + 10 * MIB);
    give(got);
    end();
}

/* ---- failing half-way ---- */

static void half_way(void) {
    static const struct {
        enum fake_call call;
        uint64_t nth;
    } rows[] = {{FAKE_MAP, 1}, {FAKE_MAP, 2}, {FAKE_MAP, 3}, {FAKE_ACCESS, 1}};
    TEST("expandable: no memory for a page: what was created goes back, and the chain goes on");
    for (int profile = 0; profile < OOM_PROFILE_COUNT; profile++) {
        begin_as(100 * MIB, (enum oom_profile)profile, on);
        oom_devptr cached = take_on(fake_stream(&fake, 1), 30 * MIB);
        give(cached);
        forget_log();
        take(70 * MIB); /* 4 pages, 3 of them are there */
        CHECK_STR(fake.log, "RCCCCLLLSULULVCCCCMMMMA");
        CHECK_EQ(oom_failure_last()->status, OOM_OK);
        CHECK_EQ(reserved(), 80 * MIB);
        CHECK_EQ(fake.used, 80 * MIB);
        end();
    }

    TEST("expandable: mapping fails: raised as in PyTorch, and the pages are lost to it");
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        begin(GIB, on);
        oom_devptr ptr = 1, kept = take(20 * MIB);
        fake.fail[rows[i].call].left = rows[i].nth;
        fake.fail[rows[i].call].status = OOM_NOMEM;
        CHECK_EQ(oom_allocator_alloc(a, 50 * MIB, NULL, OOM_TAG_OTHER, "x", &ptr), OOM_DEVICE);
        CHECK(strstr(oom_failure_last()->message, "pytorch#188008") != NULL);
        CHECK_EQ(ptr, 0);
        CHECK_EQ(reserved(), 20 * MIB);
        CHECK_EQ(fake.used, 80 * MIB); /* three pages that nobody counts */
        CHECK_EQ(stats()->num_ooms, 0);
        oom_failure_clear();
        CHECK_OK(oom_allocator_check(a));
        CHECK_EQ(oom_allocator_alloc(a, 30 * MIB, NULL, OOM_TAG_OTHER, "x", &ptr), OOM_DEVICE);
        CHECK(strstr(oom_failure_last()->message, "pytorch#188008") != NULL);
        oom_failure_clear();
        give(kept);
        CHECK_EQ(take(20 * MIB), kept);
        end(); /* gives all back */
    }

    TEST("expandable: profile fixed rolls the same back, and it is an OOM that a retry cures");
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        begin_as(GIB, OOM_PROFILE_FIXED, on);
        take(20 * MIB);
        fake.fail[rows[i].call].left = rows[i].nth;
        fake.fail[rows[i].call].status = OOM_NOMEM;
        take(50 * MIB);
        CHECK_EQ(stats()->num_alloc_retries, 1);
        CHECK_EQ(reserved(), 80 * MIB);
        CHECK_EQ(fake.used, 80 * MIB);
        CHECK_EQ(oom_failure_last()->status, OOM_OK);
        end();
    }

    TEST("expandable: a driver error is passed on; only profile fixed leaves nothing behind");
    for (int profile = 0; profile < OOM_PROFILE_COUNT; profile++) {
        begin_as(GIB, (enum oom_profile)profile, on);
        oom_devptr ptr = 1;
        fake.fail[FAKE_MAP].left = 2;
        fake.fail[FAKE_MAP].status = OOM_IO;
        CHECK_EQ(oom_allocator_alloc(a, 50 * MIB, NULL, OOM_TAG_OTHER, "x", &ptr), OOM_IO);
        oom_failure_clear();
        CHECK_EQ(fake.used, profile == OOM_PROFILE_FIXED ? 0 : 60 * MIB);
        CHECK_EQ(reserved(), 0);
        end();
    }

    TEST("expandable: out of addresses: a driver error in PyTorch, an OOM in profile fixed");
    begin(GIB, on);
    oom_devptr ptr = 1;
    fake.fail[FAKE_RESERVE].left = 1;
    fake.fail[FAKE_RESERVE].status = OOM_NOMEM;
    CHECK_EQ(oom_allocator_alloc(a, 512, NULL, OOM_TAG_OTHER, "x", &ptr), OOM_DEVICE);
    CHECK_EQ(stats()->num_ooms, 0);
    oom_failure_clear();
    take(512);
    end();
    begin_as(GIB, OOM_PROFILE_FIXED, on);
    fake.fail[FAKE_RESERVE].left = 1;
    fake.fail[FAKE_RESERVE].status = OOM_NOMEM;
    take(512);
    CHECK_EQ(stats()->num_alloc_retries, 1);
    end();

    TEST("expandable: the device refuses to unmap: what went is booked, the rest is as before");
    begin(GIB, on);
    give(take(60 * MIB));
    fake.fail[FAKE_UNMAP].left = 2;
    fake.fail[FAKE_UNMAP].status = OOM_DEVICE;
    CHECK_EQ(oom_allocator_release_cached(a), OOM_DEVICE);
    oom_failure_clear();
    CHECK_EQ(reserved(), 40 * MIB);
    CHECK_OK(oom_allocator_check(a));
    CHECK_OK(oom_allocator_release_cached(a));
    CHECK_EQ(reserved(), 0);
    end();

    TEST("expandable: injected refusals of the device count mappings");
    begin(GIB, on);
    take(2 * MIB);
    oom_allocator_fail_device_at(a, 1);
    take(30 * MIB);
    CHECK_EQ(stats()->num_alloc_retries, 1);
    oom_allocator_fail_call_at(a, 1);
    refuse(512);
    CHECK_EQ(stats()->num_ooms, 1);
    end();
}

/* ---- growth without end ---- */

/* Bytes that one cycle adds: A = 91 MiB and B = 45.5 MiB come and go, 2 MiB stay. */
static int64_t growth(enum oom_profile profile) {
    int64_t before = 0;
    begin_as(16 * GIB, profile, "expandable_segments:True,max_split_size_mb:20");
    for (int cycle = 0; cycle < 12; cycle++) {
        if (cycle == 2) before = reserved();
        oom_devptr first = take(91 * MIB), second = take(45 * MIB + MIB / 2);
        take(2 * MIB);
        give(first);
        give(second);
    }
    int64_t grown = (reserved() - before) / 10;
    end();
    return grown;
}

static void unbounded(void) {
    TEST("expandable: max_split_size makes reserved memory grow (pytorch#123548) but in fixed");
    CHECK(growth(OOM_PROFILE_PYTORCH_2_13) >= (int64_t)(136 * MIB));
    CHECK(growth(OOM_PROFILE_PYTORCH_2_13) <= (int64_t)(140 * MIB));
    CHECK_EQ(growth(OOM_PROFILE_PYTORCH_2_11), growth(OOM_PROFILE_PYTORCH_2_13));
    CHECK(growth(OOM_PROFILE_FIXED) <= (int64_t)(2 * MIB));
}

/* ---- upstream's tests with a limit ---- */

static void limited(void) {
    oom_devptr held[3];
    TEST("expandable: limit 120 MiB, max_split 40: three of 40 MiB fit, a fourth does not");
    begin(1200 * MIB, "expandable_segments:True,max_split_size_mb:40,"
                      "per_process_memory_fraction:0.1");
    for (int i = 0; i < 3; i++) held[i] = take(40 * MIB);
    refuse(40 * MIB);
    for (int i = 0; i < 3; i++) give(held[i]);
    take(120 * MIB);
    end();

    TEST("expandable: limit 120 MiB, gc 0.5: two of 40 MiB cached, 80 MiB succeed");
    begin(1200 * MIB, "expandable_segments:True,garbage_collection_threshold:0.5,"
                      "per_process_memory_fraction:0.1");
    for (int i = 0; i < 2; i++) held[i] = take(40 * MIB);
    for (int i = 0; i < 2; i++) give(held[i]);
    take_on(fake_stream(&fake, 1), 40 * MIB);
    take(80 * MIB);
    end();
}

/* ---- the host runs out ---- */

static uint64_t fingerprint(void) {
    uint64_t sum = (uint64_t)reserved() * 31 + fake.used * 7 + stats()->allocations;
    const struct oom_allocator_stats *s = stats();
    sum = sum * 31 + (uint64_t)s->allocated_bytes[0].allocated + s->num_device_alloc * 3 +
          s->num_device_free * 5 + s->num_alloc_retries * 11 + s->num_sync_all_streams * 13;
    return sum * 31 + oom_allocator_trace_count(a) + a->pools[OOM_POOL_LARGE].searches;
}

/* Step k of a script in which every call may need host memory: pages, pieces, holes, a release. */
static enum oom_status step(int k, oom_devptr held[64]) {
    static const struct oom_stream *const none = NULL;
    struct oom_stream *stream = k % 7 == 3 ? fake_stream(&fake, 1) : (struct oom_stream *)none;
    char site[16];
    if (k % 20 == 19) return oom_allocator_release_cached(a);
    if (k % 3 == 2 && held[(k * 7) % 64] != 0) {
        enum oom_status status = oom_allocator_free(a, held[(k * 7) % 64]);
        if (status == OOM_OK) held[(k * 7) % 64] = 0;
        return status;
    }
    if (held[k % 64] != 0) return OOM_OK;
    site[0] = (char)('a' + k % 26);
    site[1] = (char)('a' + k / 26 % 26);
    site[2] = 0;
    uint64_t bytes = k % 5 == 0 ? 700 : (uint64_t)(k % 11 + 1) * 5 * MIB;
    return oom_allocator_alloc(a, bytes, stream, OOM_TAG_OTHER, site, &held[k % 64]);
}

static void host_failures(void) {
    TEST("expandable: host memory refused at every place: the call has not been");
    uint64_t before = oom_host_bytes_current(), refused = 0, changed = 0, broken = 0;
    for (uint64_t nth = 1; nth < 4; nth++) {
        oom_devptr held[64] = {0};
        begin(400 * MIB, "expandable_segments:True,garbage_collection_threshold:0.3,"
                         "per_process_memory_fraction:0.9");
        for (int k = 0; k < 400; k++) {
            uint64_t was = fingerprint();
            oom_failure_clear();
            oom_host_fail_at(nth);
            enum oom_status status = step(k, held);
            oom_host_fail_at(0);
            if (status == OOM_HOST_NOMEM) {
                refused++;
                changed += fingerprint() != was;
                status = step(k, held);
            }
            broken += status != OOM_OK && status != OOM_NOMEM;
            broken += oom_allocator_check(a) != OOM_OK;
        }
        oom_failure_clear();
        end();
    }
    CHECK(refused > 30);
    CHECK_EQ(changed, 0);
    CHECK_EQ(broken, 0);
    CHECK_EQ(oom_host_bytes_current(), before);
}

/* Each hole leaves two pieces: a release of many needs records, all of them before the first page
 * goes. */
static void many_pieces(void) {
    enum { HOLES = 300 };
    static oom_devptr holes[HOLES];
    TEST("expandable: a release of many pages has its records before it begins");
    begin(64 * GIB, on);
    for (int i = 0; i < HOLES; i++) {
        take(5 * MIB);
        holes[i] = take(45 * MIB);
    }
    take(5 * MIB);
    for (int i = 0; i < HOLES; i++) give(holes[i]);
    for (int i = 0; i < 3000; i++) take(512); /* uses up what earlier calls had reserved */
    uint64_t was = fingerprint();
    oom_host_fail_at(1);
    CHECK_EQ(oom_allocator_release_cached(a), OOM_HOST_NOMEM);
    oom_host_fail_at(0);
    oom_failure_clear();
    CHECK_EQ(fingerprint(), was);
    CHECK_OK(oom_allocator_release_cached(a));
    CHECK(stats()->num_device_free >= HOLES / 2);
    end();
}

void expandable_test(void) {
    golden_vectors();
    sizes();
    places();
    device_calls();
    half_way();
    unbounded();
    limited();
    host_failures();
    many_pieces();
}
