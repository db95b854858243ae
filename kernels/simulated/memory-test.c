/*
 * cudaMalloc and cudaFree as rows worked out by hand, on both devices; options; 2^60 bytes.
 */
#include "kernels/simulated/test-device.h"

#include "kernels/hostmem.h"

#include <stdio.h>

void simulated_memory_test(void);

enum { MIB = TEST_MIB };
static const uint64_t page = OOM_PAGE;
static enum oom_schedule schedule; /* of the devices that are opened */

static void check_rounding(const char *name) {
    TEST("%s, %s: blocks below 1 MiB share pages in granules of 512, larger ones have their own",
         name, oom_schedule_name(schedule));
    static const struct {
        uint64_t bytes, offset, used;
    } rows[] = {
        {1, 0, 2 * MIB},
        {512, 512, 2 * MIB},
        {513, 1024, 2 * MIB},
        {1, 2048, 2 * MIB},
        {MIB - 1, 2560, 2 * MIB},    /* 1 MiB of granules */
        {MIB - 1, 2 * MIB, 4 * MIB}, /* the rest of the first page is too small */
        {MIB, 4 * MIB, 6 * MIB},     /* a page of its own */
        {2 * MIB + 1, 6 * MIB, 10 * MIB},
        {700, MIB + 2560, 10 * MIB}, /* first fit: back to the first page */
        {2 * MIB, 10 * MIB, 12 * MIB},
    };
    enum { ROWS = sizeof rows / sizeof rows[0] };
    struct oom_device *dev = test_open(name, 16 * MIB, schedule);
    oom_devptr base = test_base(dev), blocks[ROWS];
    for (int i = 0; i < ROWS; i++) {
        CHECK_OK(dev->api->alloc(dev, rows[i].bytes, &blocks[i]));
        CHECK_EQ(blocks[i] - base, rows[i].offset);
        CHECK_EQ(test_used(dev), rows[i].used);
    }
    for (int i = ROWS - 1; i >= 0; i--) CHECK_OK(dev->api->free(dev, blocks[i]));
    CHECK_EQ(test_used(dev), 0);
    oom_device_close(dev);
}

static void check_exact_capacity(const char *name, uint64_t capacity) {
    TEST("%s, %s: out of memory at %llu bytes exactly", name, oom_schedule_name(schedule),
         (unsigned long long)capacity);
    struct oom_device *dev = test_open(name, capacity, schedule);
    oom_devptr blocks[4], more = 1, again;
    for (int i = 0; i < 4; i++) CHECK_OK(dev->api->alloc(dev, page, &blocks[i]));
    test_expect(dev->api->alloc(dev, page, &more), OOM_NOMEM, "2097152");
    CHECK_EQ(more, 0);
    test_expect(dev->api->alloc(dev, 1, &more), OOM_NOMEM, "");
    oom_handle handle = 1;
    test_expect(dev->api->create(dev, page, &handle), OOM_NOMEM, "");
    CHECK_EQ(handle, 0);
    CHECK_EQ(test_used(dev), 4 * page);
    CHECK_OK(dev->api->free(dev, blocks[1]));
    test_expect(dev->api->alloc(dev, page + 1, &more), OOM_NOMEM, "");
    CHECK_OK(dev->api->alloc(dev, page, &again));
    CHECK_EQ(again, blocks[1]);
    test_expect(dev->api->alloc(dev, UINT64_MAX, &more), OOM_NOMEM, "");
    blocks[1] = again;
    for (int i = 0; i < 4; i++) CHECK_OK(dev->api->free(dev, blocks[i]));
    CHECK_EQ(test_used(dev), 0);
    CHECK_OK(dev->api->alloc(dev, 4 * page, &more));
    CHECK_EQ(test_used(dev), 4 * page);
    CHECK_OK(dev->api->free(dev, more));
    oom_device_close(dev);
}

static void check_full_page(const char *name) {
    TEST("%s, %s: a page holds 4096 granules, whatever the order of freeing", name,
         oom_schedule_name(schedule));
    enum { GRANULES = OOM_PAGE / OOM_GRANULE };
    static oom_devptr blocks[GRANULES];
    struct oom_device *dev = test_open(name, page, schedule);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < GRANULES; i++) CHECK_OK(dev->api->alloc(dev, 1 + i % 512, &blocks[i]));
        oom_devptr more;
        test_expect(dev->api->alloc(dev, 1, &more), OOM_NOMEM, "");
        for (int i = 0; i < GRANULES; i++) { /* 1021 is prime to 4096 */
            CHECK_OK(dev->api->free(dev, blocks[(i * 1021 + round) % GRANULES]));
        }
        CHECK_EQ(test_used(dev), 0);
    }
    oom_device_close(dev);
}

static void check_free_misuse(const char *name) {
    TEST("%s, %s: double free, foreign pointer, inside of a block", name,
         oom_schedule_name(schedule));
    struct oom_device *dev = test_open(name, 16 * MIB, schedule);
    oom_devptr small, other, large, space;
    char named[32];
    CHECK_OK(dev->api->alloc(dev, 1000, &small));
    CHECK_OK(dev->api->alloc(dev, 1000, &other));
    CHECK_OK(dev->api->alloc(dev, 3 * MIB, &large));
    CHECK_OK(dev->api->reserve(dev, page, &space));
    CHECK_OK(dev->api->free(dev, other));
    const oom_devptr wrong[] = {0,         1,     other,        small + 512, small + 1,
                                large + 1, space, large + page, UINT64_MAX,  large + 64 * page};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        snprintf(named, sizeof named, "0x%llx", (unsigned long long)wrong[i]);
        test_expect(dev->api->free(dev, wrong[i]), OOM_INVALID, named);
    }
    oom_devptr out = 1;
    test_expect(dev->api->alloc(dev, 0, &out), OOM_INVALID, "0 bytes");
    CHECK_EQ(test_used(dev), 6 * MIB);
    CHECK_OK(dev->api->free(dev, small));
    CHECK_OK(dev->api->free(dev, large));
    test_expect(dev->api->free(dev, large), OOM_INVALID, "");
    CHECK_EQ(test_used(dev), 0);
    oom_device_close(dev);
}

static void check_peak(const char *name) {
    TEST("%s, %s: peak is the highest use since open or reset", name, oom_schedule_name(schedule));
    struct oom_device *dev = test_open(name, 16 * MIB, schedule);
    struct oom_memory_info info;
    oom_devptr a, b;
    oom_handle handle;
    CHECK_OK(dev->api->alloc(dev, 4 * MIB, &a));
    CHECK_OK(dev->api->create(dev, 6 * MIB, &handle));
    CHECK_OK(dev->api->release(dev, handle));
    test_expect(dev->api->alloc(dev, 14 * MIB, &b), OOM_NOMEM, "");
    dev->api->memory_info(dev, &info);
    CHECK_EQ(info.peak, 10 * MIB);
    CHECK_EQ(info.used, 4 * MIB);
    dev->api->reset_peak(dev);
    CHECK_OK(dev->api->alloc(dev, 1, &b));
    dev->api->memory_info(dev, &info);
    CHECK_EQ(info.peak, 6 * MIB);
    CHECK_EQ(info.capacity, 16 * MIB);
    oom_device_close(dev); /* with live blocks */
}

static void check_options(const char *name) {
    TEST("%s, %s: options are checked", name, oom_schedule_name(schedule));
    static const struct {
        struct oom_device_options options;
        const char *named;
    } rows[] = {
        {{.capacity = 1}, "capacity of 1 "},
        {{.capacity = OOM_PAGE - 1}, "2097151"},
        {{.capacity = ((uint64_t)1 << 60) + 1}, "1152921504606846977"},
        {{.reservation = 5}, "reservation of 5 "},
        {{.schedule = OOM_SCHEDULE_COUNT}, "schedule"},
        {{.isa = OOM_ISA_COUNT}, "instruction set"},
        {{.threads = -1}, "-1 threads"},
    };
    struct oom_device *dev = NULL;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        test_expect(oom_device_open(name, &rows[i].options, &dev), OOM_USAGE, rows[i].named);
    }
    CHECK(dev == NULL);
    struct oom_device_options options = {
        .capacity = 8 * MIB, .reservation = 16 * MIB, .schedule = schedule, .seed = UINT64_MAX};
    struct oom_device_properties properties;
    CHECK_OK(oom_device_open(name, &options, &dev));
    dev->api->properties(dev, &properties);
    CHECK_STR(properties.name, name);
    CHECK_EQ(properties.capacity, 8 * MIB);
    CHECK_EQ(properties.reservation, 16 * MIB);
    CHECK_EQ(properties.page, page);
    CHECK(properties.virtual_memory);
    CHECK_EQ(properties.computes, strcmp(name, "host") == 0);
    oom_devptr space;
    test_expect(dev->api->reserve(dev, 18 * MIB, &space), OOM_NOMEM, "address space");
    CHECK_OK(dev->api->reserve(dev, 16 * MIB, &space));
    test_expect(dev->api->alloc(dev, 4 * MIB, &space), OOM_NOMEM, "address space");
    CHECK_EQ(test_used(dev), 0);
    oom_device_close(dev);
    CHECK_OK(oom_device_open(name, NULL, &dev));
    dev->api->properties(dev, &properties);
    CHECK_EQ(properties.capacity, OOM_DEFAULT_CAPACITY);
    oom_device_close(dev);
}

static void check_huge(void) {
    TEST("dry: 2^60 bytes, 10^5 live blocks, books that do not grow with the capacity");
    enum { BLOCKS = 100000 };
    static oom_devptr blocks[BLOCKS];
    uint64_t before = oom_host_bytes_current();
    oom_host_peak_reset();
    struct oom_device *dev = test_open("dry", (uint64_t)1 << 60, OOM_SCHEDULE_EAGER);
    bool fine = true;
    for (int i = 0; i < BLOCKS; i++) {
        uint64_t bytes = i % 2 == 0 ? 512 : ((uint64_t)1 << 40) + (uint64_t)i * page;
        fine = dev->api->alloc(dev, bytes, &blocks[i]) == OOM_OK && fine;
    }
    for (int i = 0; i < BLOCKS; i++) { /* 33331 is prime to 100000 */
        fine = dev->api->free(dev, blocks[(uint64_t)i * 33331 % BLOCKS]) == OOM_OK && fine;
    }
    CHECK(fine);
    CHECK_EQ(test_used(dev), 0);
    CHECK(oom_host_bytes_peak() - before < (uint64_t)BLOCKS * 256);
    oom_devptr all;
    CHECK_OK(dev->api->alloc(dev, (uint64_t)1 << 60, &all));
    oom_device_close(dev);
    CHECK_EQ(oom_host_bytes_current(), before);
}

void simulated_memory_test(void) {
    for (int i = 0; i < 2 * OOM_SCHEDULE_COUNT; i++) {
        const char *name = test_devices[i % 2];
        schedule = (enum oom_schedule)(i / 2);
        check_rounding(name);
        check_exact_capacity(name, 4 * OOM_PAGE);
        check_exact_capacity(name, 5 * OOM_PAGE - 1);
        check_full_page(name);
        check_free_misuse(name);
        check_peak(name);
        check_options(name);
    }
    check_huge();
}
