/* The allocator's decisions against figures worked out from PyTorch's rules by hand: the golden
 * vectors of the survey, the worked examples, which free block is taken, misuse, tags. */
#include "harness/memory/allocator-testing.h"

#include "kernels/hostmem.h"

#include <stdio.h>
#include <string.h>

void allocator_test(void);

/* ---- reuse ---- */

static void reuse(int first_count, uint64_t first, int second_count, uint64_t second,
                  int64_t expected_first, int64_t expected_second) {
    oom_devptr held[16];
    begin(GIB, "");
    for (int i = 0; i < first_count; i++) held[i] = take(first * MIB);
    CHECK_EQ(reserved(), expected_first * (int64_t)MIB);
    for (int i = 0; i < first_count; i++) give(held[i]);
    for (int i = 0; i < second_count; i++) held[i] = take(second * MIB);
    CHECK_EQ(reserved(), expected_second * (int64_t)MIB);
    for (int i = 0; i < second_count; i++) give(held[i]);
    end();
}

static void golden_vectors(void) {
    TEST("allocator: 8 x 16 MiB, free, 4 x 32 MiB reserves 128 then 256 MiB");
    reuse(8, 16, 4, 32, 128, 256);

    TEST("allocator: 4 x 32 MiB, free, 8 x 16 MiB stays at 128 MiB");
    reuse(4, 32, 8, 16, 128, 128);

    TEST("allocator: the 1 MiB loophole: 2 then 0.5 MiB reserves 22, 2 then 2 reserves 20");
    begin(GIB, "");
    take(2 * MIB);
    take(MIB / 2);
    CHECK_EQ(reserved(), 22 * MIB);
    end();
    begin(GIB, "");
    take(2 * MIB);
    take(2 * MIB);
    CHECK_EQ(reserved(), 20 * MIB);
    end();
}

/* ---- one request to an empty allocator ---- */

static void worked_examples(void) {
    static const struct {
        uint64_t request, block, segment, rest; /* rest 0: not split */
    } rows[] = {
        {1, 512, 2097152, 2096640},
        {512, 512, 2097152, 2096640},
        {513, 1024, 2097152, 2096128},
        {1048576, 1048576, 2097152, 1048576},
        {1048577, 1049088, 20971520, 19922432},
        {2097152, 2097152, 20971520, 18874368},
        {10475274 /* 9.99 MiB */, 10475520, 20971520, 10496000},
        {10485760, 10485760, 10485760, 0},
        {10485761, 10486272, 12582912, 2096640},
        {12058624 /* 11.5 MiB */, 12582912, 12582912, 0},
        {11534336 /* 11 MiB: a rest of 1 MiB is not more than 1 MiB */, 12582912, 12582912, 0},
        {11533824 /* 512 less */, 11533824, 12582912, 1049088},
        {88080384, 88080384, 88080384, 0},
    };
    TEST("allocator: blocks, segments and rests of single requests");
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        begin(GIB, "");
        oom_devptr ptr = take(rows[i].request);
        bool split = rows[i].rest > 0;
        bool small = rows[i].segment == 2 * MIB;
        int pool = small ? OOM_POOL_SMALL : OOM_POOL_LARGE, other = small ? 2 : 1;
        CHECK_EQ(block_at(0).address, ptr);
        CHECK_EQ(block_at(0).bytes, rows[i].block);
        CHECK_EQ(block_at(0).requested, rows[i].request);
        CHECK_EQ(block_at(0).small_pool, small);
        if (split) CHECK_EQ(block_at(1).bytes, rows[i].rest);
        CHECK_EQ(stats()->allocated_bytes[pool].current, rows[i].block);
        CHECK_EQ(stats()->active_bytes[OOM_POOL_ALL].current, rows[i].block);
        CHECK_EQ(stats()->requested_bytes[pool].current, rows[i].request);
        CHECK_EQ(stats()->reserved_bytes[pool].current, rows[i].segment);
        CHECK_EQ(stats()->reserved_bytes[other].current, 0);
        CHECK_EQ(stats()->inactive_split[pool].current, split);
        CHECK_EQ(stats()->inactive_split_bytes[pool].current, rows[i].rest);
        CHECK_EQ(stats()->num_device_alloc, 1);
        give(ptr);
        CHECK_EQ(stats()->inactive_split_bytes[pool].current, 0);
        CHECK_EQ(stats()->allocated_bytes[pool].freed, rows[i].block);
        end();
    }

    TEST("allocator: two blocks of 1 MiB share a segment, the third makes one");
    begin(GIB, "");
    oom_devptr first = take(MIB), second = take(MIB);
    CHECK_EQ(second - first, MIB);
    CHECK_EQ(reserved(), 2 * MIB);
    take(MIB);
    CHECK_EQ(reserved(), 4 * MIB);
    end();

    TEST("allocator: a request of nothing gives nothing and touches nothing");
    begin(GIB, "");
    CHECK_EQ(take(0), 0);
    give(0);
    CHECK_EQ(stats()->allocations, 0);
    CHECK_EQ(oom_allocator_trace_count(a), 0);
    CHECK_EQ(fake.allocs, 0);
    end();
}

/* ---- which of the free blocks ---- */

static void choice(void) {
    TEST("allocator: the best fit wins, not the first");
    begin(GIB, "");
    oom_devptr large = take(40 * MIB), fit = take(16 * MIB);
    take(24 * MIB);
    give(large);
    give(fit);
    CHECK_EQ(take(15 * MIB + MIB / 2), fit);
    CHECK_EQ(take(16 * MIB), large);
    end();

    /* The device gives addresses downward, so that age and address disagree. */
    TEST("allocator: equal blocks of different segments: the older segment, not the address");
    begin(GIB, "");
    fake.descending = true;
    oom_devptr old = take(16 * MIB), middle = take(16 * MIB), young = take(16 * MIB);
    CHECK(young < middle && middle < old);
    give(young);
    give(old);
    give(middle);
    CHECK_EQ(take(16 * MIB), old);
    CHECK_EQ(take(16 * MIB), middle);
    CHECK_EQ(take(16 * MIB), young);
    end();

    TEST("allocator: a rest has the age of its segment");
    begin(GIB, "");
    fake.descending = true;
    oom_devptr front = take(2 * MIB), rest = take(9 * MIB), tail = take(9 * MIB);
    oom_devptr next = take(2 * MIB), rest2 = take(9 * MIB), tail2 = take(9 * MIB);
    CHECK_EQ(reserved(), 40 * MIB);
    CHECK(next < front && rest2 - next == rest - front && tail2 < tail);
    give(rest2);
    give(rest);
    CHECK_EQ(take(9 * MIB), rest);
    CHECK_EQ(take(9 * MIB), rest2);
    end();

    TEST("allocator: equal blocks of one segment: by address");
    begin(GIB, "");
    oom_devptr low = take(512), gap = take(512), high = take(512), last = take(512);
    give(high);
    give(low);
    CHECK_EQ(take(512), low);
    CHECK_EQ(take(512), high);
    CHECK(gap < last);
    end();

    TEST("allocator: freed neighbours merge on both sides");
    begin(GIB, "");
    oom_devptr left = take(512), mid = take(1024), right = take(512);
    take(512);
    give(left);
    give(right);
    CHECK_EQ(stats()->inactive_split[OOM_POOL_SMALL].current, 3);
    give(mid);
    CHECK_EQ(stats()->inactive_split[OOM_POOL_SMALL].current, 2);
    CHECK_EQ(block_at(0).bytes, 2048);
    CHECK_EQ(take(2048), left);
    end();

    TEST("allocator: a segment is never used by two streams or two pools");
    begin(GIB, "");
    oom_devptr other = 0;
    take(512);
    CHECK_OK(
        oom_allocator_alloc(a, 512, (struct oom_stream *)&fake, OOM_TAG_OTHER, "other", &other));
    CHECK_EQ(reserved(), 4 * MIB);
    give(other);
    take(MIB);
    CHECK_EQ(reserved(), 4 * MIB);
    take(MIB); /* the first segment has no MiB left; the other stream's is not touched */
    CHECK_EQ(reserved(), 6 * MIB);
    oom_devptr big = take(2 * MIB);
    give(big);
    take(MIB);
    CHECK_EQ(reserved(), 26 * MIB);
    take(MIB / 2);
    CHECK_EQ(oom_allocator_trace_at(a, 3)->stream, 1);
    end();
}

/* ---- misuse ---- */

static void misuse(void) {
    TEST("allocator: a block freed twice, a foreign address, an address within a block");
    begin(GIB, "");
    oom_devptr ptr = take(4096);
    CHECK_EQ(oom_allocator_free(a, ptr + 512), OOM_INVALID);
    CHECK(strstr(oom_failure_last()->message, "not a block's start") != NULL);
    oom_failure_clear();
    CHECK_EQ(oom_allocator_free(a, 0x1234), OOM_INVALID);
    CHECK(strstr(oom_failure_last()->message, "0x1234") != NULL);
    oom_failure_clear();
    give(ptr);
    CHECK_EQ(oom_allocator_free(a, ptr), OOM_INVALID);
    CHECK(strstr(oom_failure_last()->message, "freed before") != NULL);
    oom_failure_clear();
    CHECK_EQ(stats()->allocation[OOM_POOL_ALL].freed, 1);
    end();

    TEST("allocator: settings of zeros are refused, and say where to begin");
    struct oom_allocator_settings zeros = {0};
    fake_open(&fake, GIB, false);
    CHECK_EQ(oom_allocator_create(&fake.device, &zeros, &a), OOM_USAGE);
    CHECK(a == NULL);
    CHECK(strstr(oom_failure_last()->message, "large_segment_size") != NULL);
    oom_allocator_destroy(NULL);
}

/* ---- what a block is for ---- */

static void tags(void) {
    TEST("allocator: bytes by tag, now and at the peak");
    begin(GIB, "");
    oom_devptr weight = 0, work = 0;
    CHECK_OK(oom_allocator_alloc(a, 1000, NULL, OOM_TAG_PARAMETER, "w", &weight));
    CHECK_OK(oom_allocator_alloc(a, 5000, NULL, OOM_TAG_WORKSPACE, "k", &work));
    CHECK_EQ(stats()->tag_current[OOM_TAG_PARAMETER], 1024);
    CHECK_EQ(stats()->tag_current[OOM_TAG_WORKSPACE], 5120);
    give(work);
    CHECK_EQ(stats()->tag_current[OOM_TAG_WORKSPACE], 0);
    CHECK_EQ(stats()->tag_at_peak[OOM_TAG_WORKSPACE], 5120);
    CHECK_EQ(stats()->tag_at_peak[OOM_TAG_PARAMETER], 1024);
    CHECK_EQ(stats()->allocated_bytes[OOM_POOL_ALL].peak, 6144);
    oom_allocator_reset_peaks(a);
    CHECK_EQ(stats()->allocated_bytes[OOM_POOL_ALL].peak, 1024);
    CHECK_EQ(stats()->tag_at_peak[OOM_TAG_WORKSPACE], 0);
    take(100);
    CHECK_EQ(stats()->tag_at_peak[OOM_TAG_ACTIVATION], 512);
    CHECK_EQ(block_at(0).tag, OOM_TAG_PARAMETER);
    CHECK_STR(block_at(0).site, "w");
    end();

    TEST("allocator: names of sites are cut at 63 characters and bounded in number");
    begin(GIB, "");
    char name[100];
    memset(name, 'x', sizeof name);
    name[99] = 0;
    oom_devptr ptr;
    CHECK_OK(oom_allocator_alloc(a, 1, NULL, OOM_TAG_DATA, name, &ptr));
    CHECK_EQ(strlen(oom_allocator_trace_at(a, 1)->site), 63);
    give(ptr);
    for (int i = 0; i < 20000; i++) {
        snprintf(name, sizeof name, "site %d", i);
        if (oom_allocator_alloc(a, 1, NULL, OOM_TAG_DATA, name, &ptr) != OOM_OK) break;
        if (i == 100) CHECK_STR(block_at(0).site, "site 100");
        if (i == 19999) CHECK_STR(block_at(0).site, "(one of too many site names)");
        if (oom_allocator_free(a, ptr) != OOM_OK) break;
    }
    CHECK_EQ(stats()->allocations, 20001);
    CHECK(oom_host_bytes_current() < 6 * MIB);
    end();
}

void allocator_test(void) {
    golden_vectors();
    worked_examples();
    choice();
    misuse();
    tags();
}
