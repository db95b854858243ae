/* What a replay does to an allocator: frees that wait until they are completed by hand, streams in
 * a given order, and a state to begin with. */
#include "harness/memory/drive.h"

#include "harness/memory/allocator-testing.h"
#include "harness/memory/internal.h"

#include "kernels/hostmem.h"

void drive_test(void);

static void held(void) {
    TEST("drive: a held free is pending until it is completed");
    begin(GIB, "");
    oom_devptr ptr = take(512);
    take(512);
    CHECK_OK(oom_allocator_free_held(a, ptr));
    CHECK(traced("r"));
    CHECK(block_at(0).pending);
    CHECK_EQ(stats()->allocated_bytes[0].current, 512);
    CHECK_EQ(stats()->active_bytes[0].current, 1024);
    CHECK(take(512) != ptr);
    CHECK_EQ(oom_allocator_free(a, ptr), OOM_INVALID);
    oom_failure_clear();
    CHECK_OK(oom_allocator_check(a));
    CHECK_OK(oom_allocator_complete(a, ptr));
    CHECK(traced("c"));
    CHECK_EQ(oom_allocator_complete(a, ptr), OOM_INVALID);
    CHECK(strstr(oom_failure_last()->message, "complete of") != NULL);
    oom_failure_clear();
    CHECK_EQ(take(512), ptr);
    CHECK_EQ(oom_allocator_complete(a, ptr), OOM_INVALID);
    oom_failure_clear();
    end();

    TEST("drive: a release completes what is held, oldest first; what was told is dropped");
    begin(GIB, "");
    oom_devptr first = take(30 * MIB), second = take(20 * MIB), third = take(24 * MIB);
    CHECK_OK(oom_allocator_record_stream(a, first, fake_stream(&fake, 1)));
    CHECK_OK(oom_allocator_free_held(a, first));
    CHECK_OK(oom_allocator_free_held(a, second));
    CHECK_OK(oom_allocator_free_held(a, third));
    CHECK_OK(oom_allocator_complete(a, second));
    CHECK_OK(oom_allocator_release_cached(a));
    CHECK(traced("rrrcccFFF"));
    CHECK_EQ(traced_address(4), first);
    CHECK_EQ(traced_address(3), third);
    end();

    TEST("drive: no host memory for a held free: the block is still live");
    begin(GIB, "");
    oom_devptr ptr2 = take(512);
    for (uint64_t nth = 1; nth <= 2; nth++) {
        oom_host_fail_at(nth == 1 ? 1 : 1);
        CHECK_EQ(oom_allocator_free_held(a, ptr2), OOM_HOST_NOMEM);
        oom_host_fail_at(0);
        oom_failure_clear();
        CHECK(block_at(0).allocated);
        CHECK_OK(oom_allocator_check(a));
        if (nth == 1) CHECK_OK(oom_live_table_init(&a->held_table)); /* the next need fails */
    }
    CHECK_OK(oom_allocator_free_held(a, ptr2));
    end();
}

static void streams(void) {
    TEST("drive: streams have the numbers in which they were added");
    begin(GIB, "");
    CHECK_OK(oom_allocator_stream_add(a, fake_stream(&fake, 3)));
    CHECK_OK(oom_allocator_stream_add(a, fake_stream(&fake, 1)));
    CHECK_EQ(oom_allocator_stream_add(a, fake_stream(&fake, 3)), OOM_INVALID);
    oom_failure_clear();
    CHECK_EQ(oom_allocator_stream_add(a, NULL), OOM_INVALID);
    oom_failure_clear();
    take_on(fake_stream(&fake, 1), 512);
    CHECK_EQ(block_at(0).stream, 2);
    end();
}

/* ---- a start ---- */

#define AT(offset) (base + (uint64_t)(offset))

static const uint64_t base = (uint64_t)1 << 41;

static void start_blocks(void) {
    const struct oom_start_block small[] = {
        {AT(0), 512, 100, OOM_START_ALLOCATED, "weight"},
        {AT(512), 1024, 0, OOM_START_FREE, ""},
        {AT(1536), 2 * MIB - 1536, 1 * MIB, OOM_START_PENDING, "late"},
    };
    const struct oom_start_block whole[] = {{AT(64 * MIB), 40 * MIB, 0, OOM_START_FREE, ""}};
    const struct oom_start_block pages[] = {
        {AT(128 * MIB), 20 * MIB, 0, OOM_START_UNMAPPED, ""},
        {AT(148 * MIB), 4 * MIB, 3 * MIB, OOM_START_ALLOCATED, "a"},
        {AT(152 * MIB), 36 * MIB, 0, OOM_START_FREE, ""},
        {AT(188 * MIB), 40 * MIB, 0, OOM_START_UNMAPPED, ""},
    };
    const struct oom_start_segment segments[] = {
        {AT(64 * MIB), 40 * MIB, 0, {0, 0}, false, false, whole, 1},
        {AT(0), 2 * MIB, 0, {0, 0}, true, false, small, 3},
        {AT(128 * MIB), 100 * MIB, 1, {5, 6}, false, true, pages, 4},
    };
    TEST("drive: a state to begin with is there, counted, and goes on");
    begin(GIB, "");
    CHECK_OK(oom_allocator_stream_add(a, fake_stream(&fake, 1)));
    CHECK_OK(oom_allocator_start(a, segments, 3));
    CHECK_OK(oom_allocator_check(a));
    CHECK_EQ(fake.allocs, 0);
    CHECK_EQ(reserved(), 82 * MIB);
    CHECK_EQ(stats()->segment[OOM_POOL_ALL].current, 2);
    CHECK_EQ(stats()->allocated_bytes[OOM_POOL_ALL].current, 512 + 4 * MIB);
    CHECK_EQ(stats()->active_bytes[OOM_POOL_SMALL].current, 2 * MIB - 1024);
    CHECK_EQ(stats()->inactive_split_bytes[OOM_POOL_ALL].current, 1024);
    CHECK_STR(block_at(0).site, "weight");
    CHECK(block_at(2).pending);
    CHECK_EQ(block_at(4).segment, AT(148 * MIB));
    CHECK_EQ(block_at(4).segment_bytes, 40 * MIB);
    CHECK_EQ(block_at(4).pool.b, 6);
    CHECK_EQ(take(1024), AT(512));
    CHECK_EQ(take(40 * MIB), AT(64 * MIB));
    CHECK_OK(oom_allocator_complete(a, AT(1536)));
    CHECK_EQ(take(700 * 1024), AT(1536));
    CHECK_OK(oom_allocator_free(a, AT(148 * MIB)));
    CHECK_EQ(block_at(4).bytes, 40 * MIB);
    CHECK_OK(oom_allocator_check(a));
    /* These settings make no expandable segments: their free blocks are passed over. */
    CHECK_OK(oom_allocator_pool_use(a, (struct oom_pool_id){5, 6}));
    CHECK(take_on(fake_stream(&fake, 1), 4 * MIB) < base);
    CHECK_EQ(fake.allocs, 1);
    CHECK_OK(oom_allocator_release_cached(a));
    CHECK_OK(oom_allocator_check(a));
    fake.device.api = &(struct oom_device_api){.free = fake.device.api->free,
                                               .sync = fake.device.api->sync,
                                               .unmap = fake.device.api->unmap,
                                               .release = fake.device.api->release,
                                               .unreserve = fake.device.api->unreserve,
                                               .close = fake.device.api->close};
    oom_allocator_destroy(a); /* the device never heard of these addresses */
    oom_failure_clear();
    fake_close(&fake.device);
}

static uint64_t given_back;

static enum oom_status give_back(struct oom_device *device, oom_devptr ptr) {
    (void)device, (void)ptr;
    given_back++;
    return OOM_OK;
}

/* No allocator with this max_split_size cuts a block into one that is still as large; another may
 * have. The search takes it neither for 20 MiB (max_non_split_rounding) nor for 4 MiB (it may not
 * be cut), and step F looks for just such blocks: but a part of the segment lives. */
static void oversize_split(void) {
    static const uint64_t wanted[] = {20, 4, 80}; /* MiB: the one that fits, twice; the largest */
    const struct oom_start_block blocks[] = {{AT(0), 8 * MIB, 8 * MIB, OOM_START_ALLOCATED, "x"},
                                             {AT(8 * MIB), 56 * MIB, 0, OOM_START_FREE, ""}};
    const struct oom_start_segment segment = {AT(0), 64 * MIB, 0, {0, 0}, false, false, blocks, 2};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        TEST("drive: %llu MiB wanted: a segment of which a part lives is not given back",
             (unsigned long long)wanted[i]);
        begin(1 * MIB, "max_split_size_mb:20");
        struct oom_device_api api = *fake.device.api; /* it never heard of these addresses */
        api.free = give_back;
        fake.device.api = &api;
        given_back = 0;
        CHECK_OK(oom_allocator_start(a, &segment, 1));
        refuse(wanted[i] * MIB);
        CHECK_OK(oom_allocator_check(a));
        CHECK_EQ(given_back, 0);
        CHECK_EQ(reserved(), 64 * MIB);
        give(AT(0)); /* and once nothing lives, it is */
        refuse(wanted[i] * MIB);
        CHECK_EQ(given_back, 1);
        CHECK_EQ(reserved(), 0);
        end();
    }
}

static void refused(const struct oom_start_segment *segments, uint64_t count, const char *words) {
    oom_failure_clear();
    CHECK_EQ(oom_allocator_start(a, segments, count), OOM_INVALID);
    CHECK_MSG(strstr(oom_failure_last()->message, words) != NULL, "'%s' is not in: %s", words,
              oom_failure_last()->message);
    oom_failure_clear();
    CHECK(a->segments.root == NULL);
    CHECK_OK(oom_allocator_check(a));
}

static void impossible(void) {
    TEST("drive: impossible starts are refused and leave nothing");
    begin(GIB, "");
    struct oom_start_block one[] = {{AT(0), 1 * MIB, 0, OOM_START_FREE, ""},
                                    {AT(1 * MIB), 1 * MIB, 0, OOM_START_ALLOCATED, ""}};
    struct oom_start_segment segment = {AT(0), 2 * MIB, 0, {0, 0}, true, false, one, 2};
    struct oom_start_segment two[] = {segment, segment};
    refused(two, 2, "overlaps");
    segment.stream = 1;
    refused(&segment, 1, "stream");
    segment.stream = 0;
    segment.bytes -= 512;
    refused(&segment, 1, "gaps, overlap");
    segment.bytes += 1024;
    refused(&segment, 1, "end elsewhere");
    segment.bytes -= 512;
    one[1].state = OOM_START_FREE;
    refused(&segment, 1, "not merged");
    one[1].state = OOM_START_UNMAPPED;
    refused(&segment, 1, "a state");
    one[1].state = OOM_START_PENDING;
    one[1].address += 512;
    refused(&segment, 1, "gaps, overlap");
    one[1].address -= 512;
    segment.address += 256;
    refused(&segment, 1, "aligned");
    segment.address -= 256;
    segment.expandable = true;
    one[1].state = OOM_START_UNMAPPED;
    refused(&segment, 1, "whole pages");
    one[1].state = OOM_START_ALLOCATED;
    segment.expandable = false;
    take(512);
    CHECK_EQ(oom_allocator_start(a, &segment, 1), OOM_INVALID);
    CHECK(strstr(oom_failure_last()->message, "has been used") != NULL);
    oom_failure_clear();
    end();
}

static void no_host_memory(void) {
    TEST("drive: no host memory for a start: nothing has changed");
    const struct oom_start_block blocks[] = {{AT(0), 1 * MIB, 0, OOM_START_FREE, "x"},
                                             {AT(1 * MIB), 1 * MIB, 5, OOM_START_PENDING, "y"}};
    const struct oom_start_segment segment = {AT(0), 2 * MIB, 0, {1, 1}, true, false, blocks, 2};
    uint64_t refusals = 0;
    for (uint64_t nth = 1; nth < 40; nth++) {
        begin(GIB, "");
        oom_host_fail_at(nth);
        enum oom_status status = oom_allocator_start(a, &segment, 1);
        oom_host_fail_at(0);
        if (status == OOM_OK) nth = 40;
        refusals += status == OOM_HOST_NOMEM;
        CHECK(status == OOM_OK || a->segments.root == NULL);
        oom_failure_clear();
        CHECK_OK(oom_allocator_check(a));
        oom_allocator_destroy(a);
        oom_failure_clear();
        fake_close(&fake.device);
    }
    CHECK(refusals >= 6);
}

void drive_test(void) {
    held();
    streams();
    start_blocks();
    oversize_split();
    impossible();
    no_host_memory();
}
