/* Every allocation on the host and every call to the kernel fails once, one at a time: the device
 * goes on as if the failed call had not been made, and nothing is left behind after close. */
#include "kernels/hostmem.h"
#include "kernels/simulated/arena.h"
#include "kernels/simulated/test-device.h"

#include <errno.h>
#include <stdio.h>

void simulated_faults_test(void);

enum { MIB = TEST_MIB, CAPACITY = 18 * MIB, WITNESS = 4096 };
static const uint64_t page = OOM_PAGE;

enum kind { HOST_ALLOCATION, KERNEL_CALL };

/* Says whether the fault asked for before has come, where that is known. */
static bool arm(enum kind kind, uint64_t n) {
    if (kind == KERNEL_CALL) return oom_arena_fail_at(n) == 0;
    oom_host_fail_at(n);
    return false;
}

/* Something of everything. Each call that fails is made once more: the fault is over by then, so
 * it must succeed. Returns how many calls failed. */
struct state {
    struct oom_device *dev;
    int failed;
    bool fine;
};

static void expect_fault(struct state *s, enum oom_status status) {
    const struct oom_failure *last = oom_failure_last();
    s->failed++;
    s->fine =
        s->fine && status == OOM_HOST_NOMEM && last->status == status && last->message[0] != 0;
    oom_failure_clear();
}

#define AGAIN(call) \
    do { \
        struct oom_memory_info info_before, info_after; \
        dev->api->memory_info(dev, &info_before); \
        enum oom_status once = (call); \
        if (once == OOM_OK) break; \
        dev->api->memory_info(dev, &info_after); \
        s->fine = s->fine && memcmp(&info_before, &info_after, sizeof info_before) == 0; \
        expect_fault(s, once); \
        CHECK_OK(call); \
    } while (0)

static void use_memory(struct state *s) {
    struct oom_device *dev = s->dev;
    oom_devptr small[3], single[3], large, space;
    oom_handle handles[3];
    uint8_t bytes[WITNESS], back[WITNESS];
    struct oom_stream *stream;
    struct oom_event *event;
    memset(bytes, 0x5a, sizeof bytes);
    for (int i = 0; i < 3; i++) AGAIN(dev->api->alloc(dev, MIB - 1, &small[i]));
    for (int i = 0; i < 3; i++) AGAIN(dev->api->alloc(dev, page, &single[i]));
    AGAIN(dev->api->upload(dev, small[1], bytes, WITNESS, NULL));
    AGAIN(dev->api->free(dev, single[0]));
    AGAIN(dev->api->free(dev, single[2]));
    AGAIN(dev->api->alloc(dev, 3 * page, &large)); /* of several runs of pages */
    AGAIN(dev->api->reserve(dev, 8 * page, &space));
    for (int i = 0; i < 3; i++) AGAIN(dev->api->create(dev, page, &handles[i]));
    for (uint64_t i = 0; i < 3; i++) AGAIN(dev->api->map(dev, space + i * page, page, handles[i]));
    AGAIN(dev->api->set_access(dev, space, 3 * page, OOM_ACCESS_READ_WRITE));
    AGAIN(dev->api->stream_create(dev, &stream));
    AGAIN(dev->api->event_create(dev, &event));
    AGAIN(dev->api->copy(dev, space + page, small[1], WITNESS, NULL));
    AGAIN(dev->api->event_record(dev, event, NULL));
    AGAIN(dev->api->stream_wait(dev, stream, event));
    AGAIN(dev->api->copy(dev, large + 3 * page - WITNESS, space + page, WITNESS, stream));
    AGAIN(dev->api->download(dev, back, large + 3 * page - WITNESS, WITNESS, stream));
    s->fine = s->fine && memcmp(bytes, back, WITNESS) == 0;
    memset(back, 1, sizeof back);
    AGAIN(dev->api->unmap(dev, space, 2 * page));
    AGAIN(dev->api->set_access(dev, space + 2 * page, page, OOM_ACCESS_NONE));
    for (int i = 0; i < 3; i++) AGAIN(dev->api->release(dev, handles[i]));
    AGAIN(dev->api->unmap(dev, space + 2 * page, page));
    AGAIN(dev->api->unreserve(dev, space, 8 * page));
    AGAIN(dev->api->free(dev, large));
    AGAIN(dev->api->free(dev, single[1]));
    for (int i = 0; i < 3; i++) AGAIN(dev->api->free(dev, small[i]));
    s->fine = s->fine && test_used(dev) == 0;
    /* Pages that could not be cleared when they were given back are zero when they come again. */
    AGAIN(dev->api->alloc(dev, CAPACITY, &large));
    for (uint64_t at = 0; at < CAPACITY; at += WITNESS) {
        CHECK_OK(dev->api->download(dev, back, large + at, WITNESS, NULL));
        for (int i = 0; i < WITNESS; i++) s->fine = s->fine && back[i] == 0;
    }
    AGAIN(dev->api->free(dev, large));
}

/* False when the n-th never came. Giving pages back may fail without a word, so a fault can come
 * and no call fail. */
static bool run_with_fault(enum kind kind, enum oom_schedule schedule, uint64_t n) {
    struct oom_device_options options = {.capacity = CAPACITY, .schedule = schedule, .threads = 1};
    struct state s = {.fine = true};
    arm(kind, n);
    enum oom_status status = oom_host_open(&options, &s.dev);
    if (status != OOM_OK) {
        expect_fault(&s, status);
        CHECK_OK(oom_host_open(&options, &s.dev));
    }
    use_memory(&s);
    bool came = arm(kind, 0) || s.failed > 0;
    oom_device_close(s.dev);
    CHECK_MSG(s.fine && s.failed <= 1, "fault %llu", (unsigned long long)n);
    return came;
}

static void check_faults(enum kind kind, enum oom_schedule schedule) {
    TEST("faults: every %s fails once, %s",
         kind == KERNEL_CALL ? "call to the kernel" : "allocation on the host",
         oom_schedule_name(schedule));
    uint64_t before = oom_host_bytes_current(), n = 1;
    while (run_with_fault(kind, schedule, n)) n++;
    CHECK_MSG(n > 5, "%llu faults", (unsigned long long)n - 1);
    CHECK_EQ(oom_host_bytes_current(), before);
}

static void check_code(void) {
    TEST("faults: the kernel's code is in the record");
    struct oom_device *dev = test_open("host", CAPACITY, OOM_SCHEDULE_EAGER);
    oom_devptr block = 1;
    oom_arena_fail_at(1);
    CHECK_EQ(dev->api->alloc(dev, page, &block), OOM_HOST_NOMEM);
    CHECK_EQ(block, 0);
    CHECK_EQ(oom_failure_last()->native, ENOMEM);
    test_expect(OOM_HOST_NOMEM, OOM_HOST_NOMEM, "2097152");
    oom_device_close(dev);
}

static void check_all_or_nothing(void) {
    TEST("faults: what was done before the failing call is undone");
    struct oom_device *dev = test_open("host", 64 * MIB, OOM_SCHEDULE_EAGER);
    oom_devptr base = test_base(dev), block, space;
    for (uint64_t n = 1; n <= 2; n++) { /* mapping, populating */
        oom_arena_fail_at(n);
        test_expect(dev->api->alloc(dev, 3 * page, &block), OOM_HOST_NOMEM, "");
        CHECK_EQ(test_anonymous(dev, base), 0);
        CHECK_EQ(test_used(dev), 0);
    }
    CHECK_OK(dev->api->alloc(dev, 3 * page, &block));
    CHECK_EQ(test_anonymous(dev, base), 3 * page);

    oom_handle single[5], handle;
    for (int i = 0; i < 5; i++) CHECK_OK(dev->api->create(dev, page, &single[i]));
    for (int i = 0; i < 5; i += 2) CHECK_OK(dev->api->release(dev, single[i]));
    oom_arena_fail_at(3); /* of three runs of pages */
    test_expect(dev->api->create(dev, 3 * page, &handle), OOM_HOST_NOMEM, "");
    CHECK_EQ(test_committed(), 2 * page);
    CHECK_OK(dev->api->create(dev, 3 * page, &handle));
    CHECK_OK(dev->api->reserve(dev, 3 * page, &space));
    CHECK_OK(dev->api->map(dev, space, 3 * page, handle));
    oom_arena_fail_at(3);
    test_expect(dev->api->set_access(dev, space, 3 * page, OOM_ACCESS_READ_WRITE), OOM_HOST_NOMEM,
                "");
    CHECK_EQ(test_kernel_mappings(), 0);
    oom_arena_fail_at(2); /* one run, committed in pieces of 32 MiB */
    test_expect(dev->api->create(dev, 40 * MIB, &handle), OOM_HOST_NOMEM, "");
    CHECK_EQ(test_committed(), 5 * page);

    CHECK_OK(dev->api->reserve(dev, 4 * page, &space));
    for (oom_devptr at = space; at < space + 4 * page; at += page) {
        CHECK_OK(dev->api->create(dev, page, &handle));
        CHECK_OK(dev->api->map(dev, at, page, handle));
    }
    CHECK_OK(dev->api->set_access(dev, space, page, OOM_ACCESS_READ_WRITE));
    int mappings = test_kernel_mappings();
    oom_arena_fail_at(3);
    test_expect(dev->api->set_access(dev, space, 4 * page, OOM_ACCESS_READ_WRITE), OOM_HOST_NOMEM,
                "");
    CHECK_EQ(test_kernel_mappings(), mappings);
    CHECK(dev->api->host_view(dev, space) != NULL); /* had it before */
    for (uint64_t i = 1; i < 4; i++) CHECK(dev->api->host_view(dev, space + i * page) == NULL);
    CHECK_OK(dev->api->set_access(dev, space, 4 * page, OOM_ACCESS_READ_WRITE));
    oom_device_close(dev);
}

void simulated_faults_test(void) {
    check_all_or_nothing();
    for (int i = 0; i < OOM_SCHEDULE_COUNT; i++) {
        check_faults(HOST_ALLOCATION, (enum oom_schedule)i);
    }
    check_faults(KERNEL_CALL, OOM_SCHEDULE_EAGER);
    check_faults(KERNEL_CALL, OOM_SCHEDULE_THREADS); /* making a thread is one */
    check_code();
}
