/* canary-test.c: one byte damaged anywhere in a canary is found, and named. */
#include "harness/verify/canary.h"

#include "kernels/hostmem.h"
#include "kernels/testing.h"

#include <stdio.h>
#include <string.h>

void canary_test(void);

static struct oom_device *device;
static struct oom_allocator *allocator;
static struct oom_canaries canaries;

static void begin(const char *name, uint64_t capacity) {
    struct oom_device_options options = {.capacity = capacity, .threads = 1};
    CHECK_OK(oom_device_open(name, &options, &device));
    CHECK_OK(oom_allocator_create(device, NULL, &allocator));
}

static int64_t allocated(void) {
    return oom_allocator_stats(allocator)->allocated_bytes[OOM_POOL_ALL].current;
}

static void end(void) {
    CHECK_EQ(allocated(), 0);
    oom_allocator_destroy(allocator);
    oom_device_close(device);
}

static uint64_t damaged(void) {
    uint64_t found = 99;
    oom_failure_clear();
    CHECK_OK(oom_canaries_check(&canaries, &found));
    return found;
}

static void flip(int block, uint64_t at) {
    uint8_t *byte = device->api->host_view(device, canaries.blocks[block] + at);
    if (CHECK(byte != NULL)) *byte ^= 0x40;
}

static void one_byte(void) {
    TEST("canary: unharmed ones are found unharmed, and a look changes nothing");
    begin("host", 64 << 20);
    CHECK_OK(oom_canaries_plant(device, allocator, 9, &canaries));
    CHECK_EQ(damaged(), 0);
    CHECK_EQ(damaged(), 0);
    CHECK_EQ(oom_failure_last()->status, OOM_OK);
    TEST("canary: one damaged byte is found, at its first, last and middle places");
    for (int block = 0; block < OOM_CANARIES; block++) {
        uint64_t size = oom_canary_bytes[block];
        const uint64_t places[] = {0, 1, 699, size / 2, size / 8192 * 8192, size - 1};
        for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
            char expected[64];
            if (places[i] >= size) continue;
            flip(block, places[i]);
            CHECK_EQ(damaged(), 1);
            snprintf(expected, sizeof expected, "canary %d changed at byte %d", block,
                     (int)places[i]);
            CHECK_MSG(strstr(oom_failure_last()->message, expected) != NULL, "%s: %s", expected,
                      oom_failure_last()->message);
            flip(block, places[i]);
        }
    }
    CHECK_EQ(damaged(), 0);
    TEST("canary: damaged bytes are counted over all blocks");
    flip(0, 5);
    flip(1, 200000);
    flip(2, 9);
    flip(2, 10);
    CHECK_EQ(damaged(), 4);
    oom_failure_clear();
    CHECK_OK(oom_canaries_free(&canaries));
    CHECK_EQ(damaged(), 0);
    end();
}

/* Contents of two canaries exchanged, or one from another seed, are no canaries. */
static void contents(void) {
    static uint8_t a[700], b[700];
    TEST("canary: contents differ by block, by place and by seed");
    begin("host", 64 << 20);
    for (int seed = 1; seed <= 2; seed++) {
        CHECK_OK(oom_canaries_plant(device, allocator, (uint64_t)seed, &canaries));
        memcpy(a, device->api->host_view(device, canaries.blocks[0]), 700);
        memcpy(b, device->api->host_view(device, canaries.blocks[1]), 700);
        CHECK(memcmp(a, b, 700) != 0);
        uint8_t *far = device->api->host_view(device, canaries.blocks[1] + 8192);
        CHECK(memcmp(far, b, 700) != 0);
        canaries.seed++;
        CHECK(damaged() > 500000);
        oom_failure_clear();
        CHECK_OK(oom_canaries_free(&canaries));
    }
    end();
}

static void no_room(void) {
    TEST("canary: where there is no room, nothing is left");
    begin("host", 16 << 20);
    for (int n = 1; n <= OOM_CANARIES; n++) {
        oom_allocator_fail_call_at(allocator, (uint64_t)n);
        CHECK_EQ(oom_canaries_plant(device, allocator, 1, &canaries), OOM_NOMEM);
        CHECK_EQ(allocated(), 0);
        oom_failure_clear();
    }
    end();
    TEST("canary: the dry device has them and finds no damage");
    begin("dry", 64 << 20);
    CHECK_OK(oom_canaries_plant(device, allocator, 1, &canaries));
    CHECK(allocated() >= 700 + 300000 + 1310720);
    CHECK_EQ(damaged(), 0);
    CHECK_OK(oom_canaries_free(&canaries));
    end();
}

void canary_test(void) {
    one_byte();
    contents();
    no_room();
}
