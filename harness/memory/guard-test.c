/* Guards on a device with memory: every byte next to a block counts, and nothing else does. */
#include "harness/memory/allocator.h"

#include "harness/memory/fake-device.h"
#include "kernels/testing.h"

void guard_test(void);

static const uint64_t MIB = 1 << 20;

static struct fake_device fake;
static struct oom_allocator *a;

static void begin(uint64_t guard_bytes, bool computes) {
    struct oom_allocator_settings settings = oom_allocator_settings_default();
    settings.guard_bytes = guard_bytes;
    fake_open(&fake, 128 * MIB, computes);
    CHECK_OK(oom_allocator_create(&fake.device, &settings, &a));
}

static void end(void) {
    oom_failure_clear();
    CHECK_OK(oom_allocator_check(a));
    oom_allocator_destroy(a);
    fake_close(&fake.device);
}

static oom_devptr take(uint64_t bytes) {
    oom_devptr ptr = 0;
    CHECK_OK(oom_allocator_alloc(a, bytes, NULL, OOM_TAG_GRADIENT, "layer 3", &ptr));
    return ptr;
}

static uint64_t damaged(void) {
    uint64_t count = 999;
    oom_failure_clear();
    CHECK_OK(oom_allocator_guards_check(a, &count));
    return count;
}

static void flip(oom_devptr ptr) {
    *(uint8_t *)(uintptr_t)ptr ^= 1;
}

static void one_byte(uint64_t guard_bytes, uint64_t bytes) {
    const struct {
        uint64_t offset; /* from the block's start, as the caller sees it */
        const char *words;
    } rows[] = {
        {(uint64_t)-1, "1 byte before"},
        {bytes, "1 byte after"},
        {(uint64_t)-guard_bytes, "bytes before"},
        {bytes + guard_bytes - 1, "bytes after"},
    };
    for (int i = 0; i < 4; i++) {
        begin(guard_bytes, true);
        oom_devptr left = take(bytes), ptr = take(bytes), right = take(bytes);
        memset((void *)(uintptr_t)ptr, 0x5a, bytes);
        memset((void *)(uintptr_t)right, 0xff, bytes);
        CHECK_EQ(damaged(), 0);
        flip(ptr + rows[i].offset);
        CHECK_EQ(damaged(), 1);
        CHECK(strstr(oom_failure_last()->message, rows[i].words) != NULL);
        CHECK(strstr(oom_failure_last()->message, "layer 3, gradient") != NULL);
        flip(ptr + rows[i].offset);
        CHECK_EQ(damaged(), 0);
        flip(left - 1);
        flip(right + bytes);
        CHECK_EQ(damaged(), 2);
        end();
    }
}

void guard_test(void) {
    TEST("guards: one byte before and after a block, first and last of its guards");
    one_byte(512, 1);
    one_byte(512, 1000);
    one_byte(512, 3 * MIB);
    one_byte(8192, 512);

    TEST("guards: damage is found at the free and told once");
    begin(512, true);
    oom_devptr ptr = take(100);
    flip(ptr + 100);
    CHECK_OK(oom_allocator_free(a, ptr));
    CHECK_EQ(damaged(), 1);
    CHECK(strstr(oom_failure_last()->message, "1 byte after") != NULL);
    CHECK_EQ(damaged(), 0);
    CHECK_EQ(oom_failure_last()->status, OOM_OK);
    end();

    TEST("guards: a pattern copied from elsewhere is damage");
    begin(512, true);
    oom_devptr first = take(512), second = take(512);
    memcpy((void *)(uintptr_t)(second + 512), (void *)(uintptr_t)(first + 512), 512);
    CHECK_EQ(damaged(), 1);
    end();

    TEST("guards: block sizes grow by both, requested bytes do not");
    begin(512, true);
    ptr = take(512);
    CHECK_EQ(oom_allocator_stats(a)->allocated_bytes[0].current, 1536);
    CHECK_EQ(oom_allocator_stats(a)->requested_bytes[0].current, 512);
    CHECK_EQ(oom_allocator_free(a, ptr - 512), OOM_INVALID);
    oom_failure_clear();
    CHECK_OK(oom_allocator_free(a, ptr));
    end();

    TEST("guards: the copy failing: alloc gives nothing, free changes nothing");
    begin(512, true);
    ptr = take(512);
    fake.fail_copy = OOM_DEVICE;
    oom_devptr none = 1;
    CHECK_EQ(oom_allocator_alloc(a, 512, NULL, OOM_TAG_OTHER, "x", &none), OOM_DEVICE);
    CHECK_EQ(none, 0);
    CHECK_EQ(oom_allocator_free(a, ptr), OOM_DEVICE);
    CHECK_EQ(oom_allocator_stats(a)->allocation[0].current, 1);
    fake.fail_copy = OOM_OK;
    oom_failure_clear();
    CHECK_OK(oom_allocator_free(a, ptr));
    end();

    TEST("guards: a device that does not compute has no copies and no damage, but the same sizes");
    begin(512, false);
    ptr = take(512);
    CHECK_EQ(oom_allocator_stats(a)->allocated_bytes[0].current, 1536);
    CHECK_EQ(damaged(), 0);
    CHECK_OK(oom_allocator_free(a, ptr));
    CHECK_EQ(fake.copies, 0);
    end();
}
