/* Running out, on the device and on the host: the retry chain step by step, what is reported, and
 * that whatever fails leaves a whole allocator behind. */
#include "harness/memory/allocator-testing.h"

#include "kernels/hostmem.h"

#include <stdio.h>
#include <string.h>

void allocator_oom_test(void);

/* ---- running out ---- */

static int actions(const char *expected) {
    static const char letters[] = {'a', 'r', 'c', 'S', 'F', 'M', 'U', 'O'};
    int n = 0;
    uint64_t count = oom_allocator_trace_count(a), length = strlen(expected);
    if (count < length) return -1;
    for (uint64_t i = 0; i < length; i++) {
        const struct oom_trace_event *event = oom_allocator_trace_at(a, count - length + i);
        n += letters[event->action] == expected[i];
    }
    return n == (int)length;
}

static void retries(void) {
    TEST("allocator: a retry releases whole segments, large pool first, and succeeds");
    begin(64 * MIB, "");
    oom_devptr small = take(512), large = take(16 * MIB), larger = take(24 * MIB);
    give(small);
    give(larger);
    give(large);
    take(40 * MIB);
    CHECK_EQ(stats()->num_alloc_retries, 1);
    CHECK_EQ(stats()->num_sync_all_streams, 1);
    CHECK_EQ(stats()->num_ooms, 0);
    CHECK_EQ(stats()->num_device_free, 3);
    CHECK(actions("FFFSa"));
    uint64_t count = oom_allocator_trace_count(a);
    CHECK_EQ(oom_allocator_trace_at(a, count - 5)->address, large); /* smallest first */
    CHECK_EQ(oom_allocator_trace_at(a, count - 4)->address, larger);
    CHECK_EQ(oom_allocator_trace_at(a, count - 3)->address, small);
    CHECK_EQ(oom_allocator_trace_at(a, count - 3)->bytes, 2 * MIB);
    CHECK_EQ(oom_failure_last()->status, OOM_OK); /* the device's refusal was cured */
    CHECK_EQ(reserved(), 40 * MIB);
    end();

    TEST("allocator: an OOM: counters, events, state, and the next smaller request");
    begin(64 * MIB, "");
    oom_devptr keep = take(30 * MIB), cached = take(16 * MIB);
    give(cached);
    oom_devptr part = take(2 * MIB);
    uint64_t asked = fake.allocs;
    refuse(36 * MIB - 1000);
    CHECK_EQ(fake.allocs - asked, 2);
    CHECK_EQ(stats()->num_ooms, 1);
    CHECK_EQ(stats()->num_alloc_retries, 1);
    CHECK(actions("O"));
    CHECK_EQ(stats()->allocations, 4);
    CHECK_EQ(stats()->allocated_bytes[OOM_POOL_ALL].current, 32 * MIB);
    CHECK_OK(oom_allocator_check(a));
    const struct oom_report *report = oom_allocator_report(a);
    CHECK(report->valid && !report->injected);
    CHECK_EQ(report->index, 4);
    CHECK_EQ(report->requested, 36 * MIB - 1000);
    CHECK_EQ(report->rounded, 36 * MIB - 512);
    CHECK_EQ(report->wanted, 36 * MIB);
    CHECK_EQ(report->capacity, 64 * MIB);
    CHECK_EQ(report->device_free, 18 * MIB);
    CHECK_EQ(report->reserved, 46 * MIB);
    CHECK_EQ(report->allocated, 32 * MIB);
    CHECK_EQ(report->cached, 14 * MIB);
    CHECK_EQ(report->cached_pieces, 1);
    CHECK_EQ(report->largest_cached, 14 * MIB);
    CHECK_EQ(report->foreign, 0);
    CHECK_EQ(report->tag_bytes[OOM_TAG_ACTIVATION], 32 * MIB);
    CHECK_STR(report->site, "refused");
    uint64_t last = oom_allocator_trace_count(a) - 1;
    CHECK_EQ(oom_allocator_trace_at(a, last)->address, 18 * MIB); /* the device's free bytes */
    CHECK_EQ(oom_allocator_trace_at(a, last)->bytes, 36 * MIB - 512);
    give(take(18 * MIB));
    give(part);
    give(keep);
    end();

    TEST("allocator: what the retries gave back is in the figures of the report");
    begin(64 * MIB, "");
    give(take(20 * MIB));
    take(512);
    fake.foreign = 10 * MIB;
    refuse(60 * MIB);
    CHECK_EQ(oom_allocator_report(a)->released, 20 * MIB);
    CHECK_EQ(oom_allocator_report(a)->foreign, 10 * MIB);
    CHECK_EQ(oom_allocator_report(a)->device_free, 52 * MIB);
    CHECK_EQ(oom_allocator_report(a)->cached, 2 * MIB - 512);
    CHECK_EQ(reserved(), 2 * MIB);
    CHECK(actions("FO"));
    end();

    TEST("allocator: 1 EiB is refused before anything is counted or asked");
    begin(GIB, "");
    give(take(20 * MIB));
    uint64_t before = fake.allocs;
    refuse((uint64_t)1 << 60);
    refuse(UINT64_MAX);
    CHECK_EQ(fake.allocs, before);
    CHECK_EQ(stats()->num_ooms, 0);
    CHECK_EQ(reserved(), 20 * MIB);
    refuse(((uint64_t)1 << 60) - 1);
    CHECK_EQ(stats()->num_ooms, 1);
    end();

    TEST("allocator: releasing the cache spares what is in use and says so to the device");
    begin(GIB, "");
    oom_devptr gone = take(16 * MIB), stays = take(2 * MIB);
    give(gone);
    CHECK_OK(oom_allocator_release_cached(a));
    CHECK_EQ(reserved(), 20 * MIB);
    CHECK_EQ(fake.used, 20 * MIB);
    CHECK_EQ(stats()->num_sync_all_streams, 1);
    CHECK_OK(oom_allocator_release_cached(a));
    CHECK_EQ(stats()->num_sync_all_streams, 2);
    give(stays);
    CHECK_OK(oom_allocator_release_cached(a));
    CHECK_EQ(reserved(), 0);
    CHECK_EQ(stats()->segment[OOM_POOL_ALL].current, 0);
    end();
}

static void injections(void) {
    TEST("allocator: an injected refusal of the device is cured by the retry");
    begin(GIB, "");
    oom_allocator_fail_device_at(a, 2);
    take(2 * MIB);
    take(MIB);
    CHECK_EQ(stats()->num_alloc_retries, 1);
    take(30 * MIB);
    CHECK_EQ(stats()->num_alloc_retries, 1);
    end();

    TEST("allocator: an injected failure of a call is an OOM, though the cache could serve");
    begin(GIB, "");
    oom_devptr cached = take(4 * MIB);
    take(2 * MIB);
    give(cached);
    oom_allocator_fail_call_at(a, 2);
    give(take(4 * MIB));
    refuse(4 * MIB);
    CHECK(oom_allocator_report(a)->injected);
    CHECK_EQ(stats()->num_ooms, 1);
    take(4 * MIB);
    end();

    TEST("allocator: the device failing in free changes nothing but the status");
    begin(64 * MIB, "");
    give(take(40 * MIB));
    fake.fail_free = OOM_DEVICE;
    oom_devptr ptr = 1;
    CHECK_EQ(oom_allocator_alloc(a, 50 * MIB, NULL, OOM_TAG_OTHER, "x", &ptr), OOM_DEVICE);
    CHECK_EQ(ptr, 0);
    CHECK_EQ(reserved(), 40 * MIB);
    CHECK_OK(oom_allocator_check(a));
    oom_failure_clear();
    fake.fail_free = OOM_OK;
    take(50 * MIB);
    end();
}

static void oversize(void) {
    const char *conf = "max_split_size_mb:24,max_non_split_rounding_mb:20";
    TEST("allocator: oversize blocks are not cut, nor given where they are too large by 20 MiB");
    begin(GIB, conf);
    oom_devptr most = take(42 * MIB), more = take(44 * MIB);
    give(more);
    CHECK(take(24 * MIB) != more);
    give(most);
    CHECK_EQ(take(24 * MIB), most);
    CHECK_EQ(stats()->allocated_bytes[OOM_POOL_ALL].current, (24 + 42) * (int64_t)MIB);
    CHECK_EQ(stats()->inactive_split[OOM_POOL_ALL].current, 0);
    CHECK_EQ(stats()->oversize_allocations.current, 2);
    CHECK_EQ(stats()->oversize_segments.current, 3);
    CHECK(take(23 * MIB) != more); /* a smaller one leaves it alone */
    end();

    TEST("allocator: released first: one oversize block that fits; no retry is counted");
    begin(128 * MIB, conf);
    oom_devptr first = take(30 * MIB), second = take(60 * MIB);
    give(first);
    give(second);
    take(39 * MIB);
    CHECK_EQ(reserved(), (30 + 40) * (int64_t)MIB);
    CHECK_EQ(stats()->num_alloc_retries, 0);
    CHECK_EQ(stats()->num_device_free, 1);
    end();

    TEST("allocator: oversize blocks of another stream are left to the retry");
    begin(128 * MIB, conf);
    struct oom_stream *stream = (struct oom_stream *)&fake.span;
    oom_devptr own = 0, big = 0, other = take(40 * MIB);
    take(40 * MIB);
    CHECK_OK(oom_allocator_alloc(a, 30 * MIB, stream, OOM_TAG_OTHER, "own", &own));
    give(other);
    give(own);
    CHECK_OK(oom_allocator_alloc(a, 60 * MIB, stream, OOM_TAG_OTHER, "big", &big));
    CHECK_EQ(stats()->num_alloc_retries, 1);
    CHECK_EQ(reserved(), 100 * MIB);
    end();
}

/* ---- the report ---- */

static void paragraph(void) {
    static const struct oom_report report = {
        .valid = true,
        .site = "layer 3 gelu",
        .tag = OOM_TAG_ACTIVATION,
        .index = 417,
        .requested = 20 << 20,
        .rounded = 20 << 20,
        .wanted = 20 << 20,
        .capacity = 192 << 20,
        .limit = UINT64_MAX,
        .device_free = 12 << 20,
        .reserved = 180 << 20,
        .allocated = 150 << 20,
        .cached = 30 << 20,
        .cached_pieces = 14,
        .largest_cached = 3 << 20,
        .tag_bytes = {[OOM_TAG_PARAMETER] = 50 << 20, [OOM_TAG_ACTIVATION] = 100 << 20}};
    char text[600];
    TEST("report: the paragraph");
    int length = oom_report_line(&report, text, sizeof text);
    CHECK_STR(text,
              "Out of memory: wanted 20.00 MiB for layer 3 gelu (activation), allocation 417; "
              "12.00 MiB free on the device of 192.00 MiB; 150.00 MiB live, 30.00 MiB cached in 14 "
              "pieces, the largest 3.00 MiB. Live by purpose: parameter 50.00 MiB, activation "
              "100.00 MiB.");
    CHECK_EQ(length, strlen(text));
    CHECK_EQ(oom_report_line(&report, NULL, 0), length);
    CHECK_EQ(oom_report_line(&report, text, 10), length);
    CHECK_STR(text, "Out of me");
    struct oom_report more = report;
    more.limit = 180 << 20;
    more.foreign = 5 << 20;
    more.released = 2 << 20;
    more.requested = 1000;
    more.injected = true;
    more.cached_pieces = 1;
    oom_report_line(&more, text, sizeof text);
    CHECK(strstr(text, "wanted 1000 B for layer 3 gelu (activation), allocation 417, as a segment "
                       "of 20.00 MiB; ") != NULL);
    CHECK(strstr(text, "where this allocator may hold 180.00 MiB; ") != NULL);
    CHECK(strstr(text, "30.00 MiB cached in one piece, 5.00 MiB used by others; 2.00 MiB of cache "
                       "was given back first.") != NULL);
    CHECK(strstr(text, "injected") != NULL);
    more.valid = false;
    oom_report_line(&more, text, sizeof text);
    CHECK_STR(text, "No out-of-memory error has happened.");
}

/* ---- the host runs out ---- */

static enum oom_status script(uint64_t *calls) {
    struct oom_allocator *b = NULL;
    oom_devptr ptrs[300];
    char site[32];
    int held = 0;
    OOM_TRY(oom_allocator_create(&fake.device, NULL, &b));
    enum oom_status status = OOM_OK, checked;
    for (int i = 0; i < 300 && status == OOM_OK; i++) {
        snprintf(site, sizeof site, "site %d", i % 90);
        struct oom_stream *stream = i % 50 == 49 ? (struct oom_stream *)&fake.span : NULL;
        status = oom_allocator_alloc(b, (uint64_t)i * 30000 + 1, stream, OOM_TAG_OTHER, site,
                                     &ptrs[held]);
        if (status == OOM_OK) held++;
        ++*calls;
    }
    checked = oom_allocator_check(b);
    if (oom_allocator_stats(b)->allocation[OOM_POOL_ALL].current != held) checked = OOM_INTERNAL;
    while (held > 0 && checked == OOM_OK) checked = oom_allocator_free(b, ptrs[--held]);
    if (checked == OOM_OK) checked = oom_allocator_release_cached(b);
    if (checked == OOM_OK) checked = oom_allocator_check(b);
    if (fake.used != 0) checked = OOM_INTERNAL;
    oom_allocator_destroy(b);
    return checked != OOM_OK ? checked : status;
}

static void host_failures(void) {
    TEST("allocator: host memory refused at every place: consistent, nothing lost");
    uint64_t before = oom_host_bytes_current(), calls = 0, ended = 0;
    int refused = 0, bad = 0;
    fake_open(&fake, 4 * GIB, false);
    for (uint64_t k = 1; k < 2000 && ended == 0; k++) {
        oom_failure_clear();
        oom_host_fail_at(k);
        enum oom_status status = script(&calls);
        void *probe = oom_host_alloc(1); /* fails when the script made fewer than k requests */
        oom_host_free(probe);
        oom_host_fail_at(0);
        refused += status == OOM_HOST_NOMEM;
        bad += status != OOM_OK && status != OOM_HOST_NOMEM;
        bad += fake.used != 0 || oom_host_bytes_current() != before;
        if (probe == NULL) ended = k;
    }
    CHECK(ended > 100); /* the script makes that many host allocations, less one */
    CHECK(refused > 90);
    CHECK_EQ(bad, 0);
}

void allocator_oom_test(void) {
    retries();
    injections();
    oversize();
    paragraph();
    host_failures();
}
