/*
 * fake-device.h: for tests only: a device that gives addresses in an order that the test chooses,
 * counts, fails on demand and, where asked, has real memory behind its addresses.
 *
 * The test owns the struct; fake_open prepares it, device->api->close (or fake_close) unmaps.
 * It knows alloc, free, memory_info, upload and download; the rest of the table is empty.
 */
#ifndef OOM_HARNESS_MEMORY_FAKE_DEVICE_H
#define OOM_HARNESS_MEMORY_FAKE_DEVICE_H

#include "kernels/device.h"

#include <string.h>
#include <sys/mman.h>

enum { FAKE_REGIONS = 16384 };

struct fake_device {
    struct oom_device device;
    uint64_t base, span; /* the address space */
    uint64_t capacity, used, peak;
    uint64_t foreign;               /* bytes that somebody else holds; may be changed at any time */
    bool descending;                /* new segments lie below all others */
    bool computes;                  /* real memory */
    uint64_t allocs, frees, copies; /* calls */
    enum oom_status fail_free, fail_copy; /* returned instead of working, unless OOM_OK */
    uint64_t count;
    struct fake_region {
        uint64_t address, bytes;
    } regions[FAKE_REGIONS]; /* ascending */
};

static inline struct fake_device *fake_of(struct oom_device *device) {
    return (struct fake_device *)device;
}

static inline void fake_close(struct oom_device *device) {
    struct fake_device *fake = fake_of(device);
    if (fake->computes) munmap((void *)(uintptr_t)fake->base, fake->span);
    fake->computes = false;
}

static inline void fake_properties(struct oom_device *device, struct oom_device_properties *out) {
    *out = (struct oom_device_properties){.name = "fake",
                                          .capacity = fake_of(device)->capacity,
                                          .page = OOM_PAGE,
                                          .computes = fake_of(device)->computes};
}

static inline void fake_memory_info(struct oom_device *device, struct oom_memory_info *out) {
    struct fake_device *fake = fake_of(device);
    uint64_t used = fake->used + fake->foreign;
    *out = (struct oom_memory_info){fake->capacity, fake->capacity - used, used, fake->peak};
}

/* The place among the regions, and the address: the lowest gap, or below the lowest region. */
static inline bool fake_place(struct fake_device *fake, uint64_t bytes, uint64_t *place,
                              uint64_t *address) {
    uint64_t end = fake->base;
    if (fake->descending) {
        uint64_t top = fake->count > 0 ? fake->regions[0].address : fake->base + fake->span;
        *place = 0;
        *address = top - bytes;
        return top - fake->base >= bytes;
    }
    for (*place = 0; *place < fake->count; ++*place) {
        if (fake->regions[*place].address - end >= bytes) break;
        end = fake->regions[*place].address + fake->regions[*place].bytes;
    }
    *address = end;
    return fake->base + fake->span - end >= bytes;
}

static inline enum oom_status fake_alloc(struct oom_device *device, uint64_t bytes,
                                         oom_devptr *out) {
    struct fake_device *fake = fake_of(device);
    uint64_t place, address;
    fake->allocs++;
    *out = 0;
    if (bytes > fake->capacity || fake->used + fake->foreign + bytes > fake->capacity) {
        return oom_fail(OOM_NOMEM, "fake: %llu bytes wanted", (unsigned long long)bytes);
    }
    if (fake->count == FAKE_REGIONS || !fake_place(fake, bytes, &place, &address)) {
        return oom_fail(OOM_INTERNAL, "fake: no room for one more region");
    }
    memmove(&fake->regions[place + 1], &fake->regions[place],
            (fake->count - place) * sizeof fake->regions[0]);
    fake->regions[place] = (struct fake_region){address, bytes};
    fake->count++;
    fake->used += bytes;
    if (fake->used + fake->foreign > fake->peak) fake->peak = fake->used + fake->foreign;
    *out = address;
    return OOM_OK;
}

static inline enum oom_status fake_free(struct oom_device *device, oom_devptr ptr) {
    struct fake_device *fake = fake_of(device);
    uint64_t place = 0;
    fake->frees++;
    if (fake->fail_free != OOM_OK) return oom_fail(fake->fail_free, "fake: told to fail");
    while (place < fake->count && fake->regions[place].address != ptr) place++;
    if (place == fake->count) return oom_fail(OOM_INVALID, "fake: foreign address");
    fake->used -= fake->regions[place].bytes;
    fake->count--;
    memmove(&fake->regions[place], &fake->regions[place + 1],
            (fake->count - place) * sizeof fake->regions[0]);
    return OOM_OK;
}

static inline enum oom_status fake_upload(struct oom_device *device, oom_devptr dst,
                                          const void *src, uint64_t bytes,
                                          struct oom_stream *stream) {
    (void)stream;
    fake_of(device)->copies++;
    if (fake_of(device)->fail_copy != OOM_OK) {
        return oom_fail(fake_of(device)->fail_copy, "fake: told to fail");
    }
    memcpy((void *)(uintptr_t)dst, src, bytes);
    return OOM_OK;
}

static inline enum oom_status fake_download(struct oom_device *device, void *dst, oom_devptr src,
                                            uint64_t bytes, struct oom_stream *stream) {
    (void)stream;
    fake_of(device)->copies++;
    if (fake_of(device)->fail_copy != OOM_OK) {
        return oom_fail(fake_of(device)->fail_copy, "fake: told to fail");
    }
    memcpy(dst, (const void *)(uintptr_t)src, bytes);
    return OOM_OK;
}

static inline void fake_open(struct fake_device *fake, uint64_t capacity, bool computes) {
    static const struct oom_device_api api = {.api_version = OOM_DEVICE_API_VERSION,
                                              .name = "fake",
                                              .close = fake_close,
                                              .properties = fake_properties,
                                              .memory_info = fake_memory_info,
                                              .alloc = fake_alloc,
                                              .free = fake_free,
                                              .upload = fake_upload,
                                              .download = fake_download};
    memset(fake, 0, sizeof *fake);
    fake->device.api = &api;
    fake->capacity = capacity;
    fake->computes = computes;
    fake->span = 2 * capacity; /* room for gaps */
    fake->base = (uint64_t)1 << 40;
    if (!computes) return;
    void *memory = mmap(NULL, fake->span, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    fake->computes = memory != MAP_FAILED;
    fake->base = (uint64_t)(uintptr_t)memory;
}

#endif
