/*
 * Reservations, handles and mappings on both devices, and what the host really gets back.
 */
#include "kernels/simulated/test-device.h"

#include <stdio.h>

void simulated_virtual_test(void);

enum { MIB = TEST_MIB };
static const uint64_t page = OOM_PAGE;
static enum oom_schedule schedule; /* of the devices that are opened */

static bool computes(struct oom_device *dev) {
    struct oom_device_properties properties;
    dev->api->properties(dev, &properties);
    return properties.computes;
}

/* A handle of its own mapped at `at`, accessible. */
static oom_handle map_new(struct oom_device *dev, oom_devptr at, uint64_t bytes) {
    oom_handle handle = 0;
    CHECK_OK(dev->api->create(dev, bytes, &handle));
    CHECK_OK(dev->api->map(dev, at, bytes, handle));
    CHECK_OK(dev->api->set_access(dev, at, bytes, OOM_ACCESS_READ_WRITE));
    return handle;
}

static void write_value(struct oom_device *dev, oom_devptr at, uint64_t value) {
    CHECK_OK(dev->api->upload(dev, at, &value, sizeof value, NULL));
    CHECK_OK(dev->api->sync(dev)); /* what is queued keeps memory mapped */
}

static void check_value(struct oom_device *dev, oom_devptr at, uint64_t want) {
    uint64_t got = ~want;
    CHECK_OK(dev->api->download(dev, &got, at, sizeof got, NULL));
    CHECK_EQ(got, computes(dev) ? want : 0); /* dry downloads zeros */
}

static void check_life(const char *name) {
    TEST("%s, %s: memory goes with the release and the last mapping, in any order", name,
         oom_schedule_name(schedule));
    for (int order = 0; order < 6; order++) {
        static const char orders[6][4] = {"rab", "rba", "arb", "bra", "abr", "bar"};
        struct oom_device *dev = test_open(name, 16 * MIB, schedule);
        oom_devptr space;
        CHECK_OK(dev->api->reserve(dev, 8 * page, &space));
        oom_handle handle = map_new(dev, space, 2 * page);
        CHECK_OK(dev->api->map(dev, space + 4 * page, 2 * page, handle));
        for (int i = 0; i < 3; i++) {
            CHECK_EQ(test_used(dev), 2 * page);
            switch (orders[order][i]) {
            case 'r':
                CHECK_OK(dev->api->release(dev, handle));
                test_expect(dev->api->release(dev, handle), OOM_INVALID, "released");
                test_expect(dev->api->map(dev, space + 6 * page, 2 * page, handle), OOM_INVALID,
                            "released");
                break;
            case 'a':
                CHECK_OK(dev->api->unmap(dev, space, 2 * page));
                break;
            default:
                CHECK_OK(dev->api->unmap(dev, space + 4 * page, 2 * page));
                break;
            }
        }
        CHECK_EQ(test_used(dev), 0);
        CHECK_OK(dev->api->unreserve(dev, space, 8 * page));
        oom_device_close(dev);
    }
}

static void check_alias(const char *name) {
    TEST("%s, %s: two mappings of a handle are the same memory, and it outlives them", name,
         oom_schedule_name(schedule));
    struct oom_device *dev = test_open(name, 16 * MIB, schedule);
    oom_devptr space;
    CHECK_OK(dev->api->reserve(dev, 8 * page, &space));
    oom_handle handle = map_new(dev, space, 2 * page);
    CHECK_OK(dev->api->map(dev, space + 5 * page, 2 * page, handle));
    CHECK_OK(dev->api->set_access(dev, space + 5 * page, 2 * page, OOM_ACCESS_READ_WRITE));
    write_value(dev, space + page, 0x1234567);
    check_value(dev, space + 6 * page, 0x1234567);
    write_value(dev, space + 7 * page - 8, 0x89abcde);
    check_value(dev, space + 2 * page - 8, 0x89abcde);
    CHECK_OK(dev->api->unmap(dev, space, 2 * page));
    CHECK_OK(dev->api->unmap(dev, space + 5 * page, 2 * page));
    oom_devptr other; /* other memory comes and goes meanwhile */
    CHECK_OK(dev->api->alloc(dev, 12 * MIB, &other));
    CHECK_OK(dev->api->fill(dev, other, 0xff, 12 * MIB, NULL));
    CHECK_OK(dev->api->free(dev, other));
    CHECK_OK(dev->api->map(dev, space + 3 * page, 2 * page, handle));
    CHECK_OK(dev->api->set_access(dev, space + 3 * page, 2 * page, OOM_ACCESS_READ_WRITE));
    check_value(dev, space + 4 * page, 0x1234567);
    check_value(dev, space + 5 * page - 8, 0x89abcde);
    oom_device_close(dev);
}

static void check_scattered(const char *name) {
    TEST("%s, %s: pages that are not neighbours make one block; a fresh page is zero", name,
         oom_schedule_name(schedule));
    struct oom_device *dev = test_open(name, 10 * MIB, schedule);
    oom_devptr single[5], whole;
    for (int i = 0; i < 5; i++) {
        CHECK_OK(dev->api->alloc(dev, page, &single[i]));
        CHECK_OK(dev->api->fill(dev, single[i], (uint8_t)(0xa0 + i), page, NULL));
    }
    for (int i = 0; i < 5; i += 2) CHECK_OK(dev->api->free(dev, single[i]));
    CHECK_OK(dev->api->alloc(dev, 3 * page, &whole));
    static uint8_t bytes[3 * OOM_PAGE];
    memset(bytes, 1, sizeof bytes);
    CHECK_OK(dev->api->download(dev, bytes, whole, sizeof bytes, NULL));
    size_t nonzero = 0;
    for (size_t i = 0; i < sizeof bytes; i++) nonzero += bytes[i] != 0;
    CHECK_EQ(nonzero, 0);
    for (size_t i = 0; i < sizeof bytes; i += 8) memcpy(bytes + i, &i, 8);
    CHECK_OK(dev->api->upload(dev, whole, bytes, sizeof bytes, NULL));
    for (uint64_t i = 0; i < 3 * page; i += page / 2) check_value(dev, whole + i, i);
    check_value(dev, single[1] + page - 8, 0xa1a1a1a1a1a1a1a1);
    check_value(dev, single[3], 0xa3a3a3a3a3a3a3a3);
    oom_device_close(dev);
}

static void check_map_misuse(const char *name) {
    TEST("%s, %s: misuse of map, unmap, set_access and the rest changes nothing", name,
         oom_schedule_name(schedule));
    struct oom_device *dev = test_open(name, 32 * MIB, schedule);
    const struct oom_device_api *api = dev->api;
    oom_devptr space, block, out = 77;
    oom_handle loose, handle;
    CHECK_OK(api->alloc(dev, 2 * page, &block));
    CHECK_OK(api->reserve(dev, 8 * page, &space));
    CHECK_OK(api->create(dev, 2 * page, &loose));
    handle = map_new(dev, space + 2 * page, 2 * page);
    CHECK_OK(api->release(dev, handle));
    write_value(dev, space + 2 * page, 42);

    test_expect(api->reserve(dev, page + 1, &out), OOM_INVALID, "2097153");
    test_expect(api->reserve(dev, 0, &out), OOM_INVALID, "");
    CHECK_EQ(out, 77);
    test_expect(api->create(dev, page / 2, &handle), OOM_INVALID, "1048576");
    test_expect(api->map(dev, space + page, 2 * page, loose), OOM_INVALID, "mapped already");
    test_expect(api->map(dev, space + 3 * page, 2 * page, loose), OOM_INVALID, "mapped already");
    test_expect(api->map(dev, space + 512, 2 * page, loose), OOM_INVALID, "multiples");
    test_expect(api->map(dev, space, page, loose), OOM_INVALID, "it has 4194304");
    test_expect(api->map(dev, space + 7 * page, 2 * page, loose), OOM_INVALID, "reservation");
    test_expect(api->map(dev, block, 2 * page, loose), OOM_INVALID, "reservation");
    test_expect(api->map(dev, space, 2 * page, 999), OOM_INVALID, "999");
    test_expect(api->unmap(dev, space, 2 * page), OOM_INVALID, "no whole mapping");
    test_expect(api->unmap(dev, space + 2 * page, page), OOM_INVALID, "no whole mapping");
    test_expect(api->unmap(dev, space + 3 * page, page), OOM_INVALID, "no whole mapping");
    test_expect(api->unmap(dev, space + 2 * page, 3 * page), OOM_INVALID, "no whole mapping");
    test_expect(api->unmap(dev, block, 2 * page), OOM_INVALID, "no whole mapping");
    test_expect(api->set_access(dev, space + 2 * page, page, OOM_ACCESS_NONE), OOM_INVALID, "");
    test_expect(api->set_access(dev, space, 4 * page, OOM_ACCESS_NONE), OOM_INVALID, "");
    test_expect(api->release(dev, 0), OOM_INVALID, "handle 0");
    test_expect(api->unreserve(dev, space, 8 * page), OOM_INVALID, "1 mappings");
    test_expect(api->unreserve(dev, space, 4 * page), OOM_INVALID, "no such");
    test_expect(api->unreserve(dev, block, 2 * page), OOM_INVALID, "no such");
    test_expect(api->free(dev, space), OOM_INVALID, "");

    check_value(dev, space + 2 * page, 42);
    CHECK_EQ(test_used(dev), 6 * page);
    CHECK_OK(api->map(dev, space, 2 * page, loose));
    CHECK_OK(api->release(dev, loose));
    CHECK_OK(api->unmap(dev, space, 4 * page)); /* two whole mappings at once */
    CHECK_EQ(test_used(dev), 2 * page);
    CHECK_OK(api->unreserve(dev, space, 8 * page));
    oom_device_close(dev);
}

static void check_access(const char *name) {
    TEST("%s, %s: nothing is accessible before set_access or after it was taken away", name,
         oom_schedule_name(schedule));
    struct oom_device *dev = test_open(name, 32 * MIB, schedule);
    const struct oom_device_api *api = dev->api;
    oom_devptr space;
    oom_handle handle;
    uint64_t word = 7;
    CHECK_OK(api->reserve(dev, 4 * page, &space));
    CHECK_OK(api->create(dev, page, &handle));
    test_expect(api->upload(dev, space, &word, 8, NULL), OOM_INVALID, "upload");
    CHECK_OK(api->map(dev, space, page, handle));
    test_expect(api->upload(dev, space, &word, 8, NULL), OOM_INVALID, "not in live");
    test_expect(api->download(dev, &word, space, 8, NULL), OOM_INVALID, "download");
    test_expect(api->fill(dev, space, 0, 8, NULL), OOM_INVALID, "fill");
    CHECK(api->host_view(dev, space) == NULL);
    CHECK_EQ(word, 7);
    CHECK_OK(api->set_access(dev, space, page, OOM_ACCESS_READ_WRITE));
    CHECK_OK(api->set_access(dev, space, page, OOM_ACCESS_READ_WRITE));
    write_value(dev, space, 8);
    CHECK_EQ(api->host_view(dev, space) != NULL, computes(dev));
    test_expect(api->upload(dev, space + page - 4, &word, 8, NULL), OOM_INVALID, "");
    CHECK_OK(api->set_access(dev, space, page, OOM_ACCESS_NONE));
    test_expect(api->download(dev, &word, space, 8, NULL), OOM_INVALID, "download");
    (void)map_new(dev, space + page, page);
    CHECK_OK(api->set_access(dev, space, 2 * page, OOM_ACCESS_READ_WRITE));
    check_value(dev, space, 8);
    CHECK_OK(api->upload(dev, space + page - 4, &word, 8, NULL)); /* across two mappings */
    check_value(dev, space + page - 4, 7);
    test_expect(api->upload(dev, space + 2 * page - 4, &word, 8, NULL), OOM_INVALID, "");
    oom_device_close(dev);
}

/* ---- what the host really gets back ---- */

static uint64_t resident_bytes(void) {
    char line[200];
    unsigned long long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "RssShmem: %llu", &kib) == 1) break;
    }
    if (file != NULL) fclose(file);
    return kib * 1024;
}

static void check_returned(void) {
    TEST("host: the memory of freed blocks and released handles really goes back");
    struct oom_device *dev = test_open("host", 64 * MIB, OOM_SCHEDULE_EAGER);
    oom_devptr base = test_base(dev), block, space;
    struct oom_memory_info info;
    CHECK_EQ(test_committed(), 0);
    CHECK_EQ(test_anonymous(dev, base), 0);
    CHECK_OK(dev->api->alloc(dev, 32 * MIB, &block));
    CHECK_OK(dev->api->reserve(dev, 32 * MIB, &space));
    oom_handle handle = map_new(dev, space, 32 * MIB);
    CHECK_EQ(test_committed(), 32 * MIB);
    CHECK_EQ(test_anonymous(dev, base), 32 * MIB);
    dev->api->memory_info(dev, &info);
    CHECK_EQ(info.anonymous, 32 * MIB);
    uint64_t full = resident_bytes();
    CHECK(full >= 32 * MIB);
    CHECK_OK(dev->api->free(dev, block));
    CHECK_EQ(test_committed(), 32 * MIB);
    CHECK_EQ(test_anonymous(dev, base), 0);
    dev->api->memory_info(dev, &info);
    CHECK_EQ(info.anonymous, 0);
    CHECK_OK(dev->api->release(dev, handle));
    CHECK_EQ(test_committed(), 32 * MIB);
    CHECK_OK(dev->api->unmap(dev, space, 32 * MIB));
    CHECK_EQ(test_committed(), 0);
    CHECK(resident_bytes() < full / 10);
    oom_device_close(dev);
}

static void check_mappings_merge(void) {
    TEST("host: adjacent mappings of adjacent pages are one mapping to the kernel");
    struct oom_device *dev = test_open("host", 64 * MIB, OOM_SCHEDULE_EAGER);
    oom_devptr space;
    CHECK_OK(dev->api->reserve(dev, 64 * MIB, &space));
    for (uint64_t at = 0; at < 64 * MIB; at += page) (void)map_new(dev, space + at, page);
    CHECK_EQ(test_kernel_mappings(), 1);
    oom_device_close(dev);
}

void simulated_virtual_test(void) {
    for (int i = 0; i < 2 * OOM_SCHEDULE_COUNT; i++) {
        const char *name = test_devices[i % 2];
        schedule = (enum oom_schedule)(i / 2);
        check_life(name);
        check_alias(name);
        check_scattered(name);
        check_map_misuse(name);
        check_access(name);
    }
    check_returned();
    check_mappings_merge();
}
