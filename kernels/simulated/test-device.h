/*
 * test-device.h: what the tests of the simulated devices share: opening one, short forms of its
 * calls, and a failure record that does not go from one check to the next.
 */
#ifndef OOM_KERNELS_SIMULATED_TEST_DEVICE_H
#define OOM_KERNELS_SIMULATED_TEST_DEVICE_H

#include "kernels/device.h"
#include "kernels/testing.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TEST_MIB = 1 << 20 };

static const char *const test_devices[] = {"host", "dry"};

static inline struct oom_device *test_open_seeded(const char *name, uint64_t capacity,
                                                  enum oom_schedule schedule, uint64_t seed) {
    struct oom_device_options options = {
        .capacity = capacity, .schedule = schedule, .threads = 1, .seed = seed};
    struct oom_device *dev = NULL;
    CHECK_OK(oom_device_open(name, &options, &dev));
    return dev;
}

static inline struct oom_device *test_open(const char *name, uint64_t capacity,
                                           enum oom_schedule schedule) {
    return test_open_seeded(name, capacity, schedule, 1);
}

/* Addresses count from here: the address of a device's first block. */
static inline oom_devptr test_base(struct oom_device *dev) {
    oom_devptr base = 0;
    CHECK_OK(dev->api->alloc(dev, 1, &base));
    CHECK_OK(dev->api->free(dev, base));
    return base;
}

static inline uint64_t test_used(struct oom_device *dev) {
    struct oom_memory_info info;
    dev->api->memory_info(dev, &info);
    CHECK_EQ(info.free, info.capacity - info.used);
    return info.used;
}

/* The call failed as expected, and its record names what is expected in it ("" for anything). */
static inline void test_expect(enum oom_status got, enum oom_status want, const char *named) {
    const struct oom_failure *last = oom_failure_last();
    CHECK_MSG(got == want, "%s where %s was expected (%s)", oom_status_name(got),
              oom_status_name(want), last->message);
    CHECK_EQ(last->status, want);
    CHECK_MSG(strstr(last->message, named) != NULL, "\"%s\" is not in \"%s\"", named,
              last->message);
    oom_failure_clear();
}

/* ---- what the kernel knows of the host device of this process ---- */

/* Bytes committed behind its memory file: what virtual memory maps. */
static inline uint64_t test_committed(void) {
    uint64_t bytes = 0;
    DIR *folder = opendir("/proc/self/fd");
    if (folder == NULL) return 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char path[300], target[300];
        struct stat info;
        snprintf(path, sizeof path, "/proc/self/fd/%s", entry->d_name);
        ssize_t length = readlink(path, target, sizeof target - 1);
        if (length <= 0 || stat(path, &info) != 0) continue;
        target[length] = 0;
        if (strstr(target, "oombench-device") != NULL) bytes += (uint64_t)info.st_blocks * 512;
    }
    closedir(folder);
    return bytes;
}

/* Resident bytes of anonymous memory among its addresses, from `base` on: what blocks have. */
static inline uint64_t test_anonymous(struct oom_device *dev, oom_devptr base) {
    struct oom_device_properties properties;
    char line[500];
    bool among = false;
    unsigned long long start, end, kib;
    uint64_t bytes = 0;
    dev->api->properties(dev, &properties);
    FILE *file = fopen("/proc/self/smaps", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "%llx-%llx ", &start, &end) == 2) {
            among = start >= base && end <= base + properties.reservation;
        } else if (among && sscanf(line, "Anonymous: %llu kB", &kib) == 1) {
            bytes += kib * 1024;
        }
    }
    if (file != NULL) fclose(file);
    return bytes;
}

/* Mappings of that file. */
static inline int test_kernel_mappings(void) {
    char line[500];
    int found = 0;
    FILE *file = fopen("/proc/self/maps", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        found += strstr(line, "oombench-device") != NULL;
    }
    if (file != NULL) fclose(file);
    return found;
}

#endif
