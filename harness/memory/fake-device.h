/*
 * fake-device.h: for tests only: a device that gives addresses in an order that the test chooses,
 * counts, fails on demand and, where asked, has real memory behind its addresses.
 *
 * The test owns the struct; fake_open prepares it, device->api->close (or fake_close) unmaps.
 * It knows memory, virtual memory, upload, download, and streams whose progress the test makes by
 * hand; the rest of the table is empty. Misuse is counted beside its status.
 */
#ifndef OOM_HARNESS_MEMORY_FAKE_DEVICE_H
#define OOM_HARNESS_MEMORY_FAKE_DEVICE_H

#include "kernels/device.h"

#include <string.h>
#include <sys/mman.h>

enum { FAKE_REGIONS = 16384, FAKE_PAGES = 2048, FAKE_STREAMS = 8, FAKE_EVENTS = 4096 };

/* Calls that can be told to fail, with the letter that each leaves in the log. */
enum fake_call {
    FAKE_RESERVE,
    FAKE_UNRESERVE,
    FAKE_CREATE,
    FAKE_MAP,
    FAKE_ACCESS,
    FAKE_UNMAP,
    FAKE_RELEASE,
    FAKE_STREAM_SYNC,
    FAKE_EVENT_CREATE,
    FAKE_EVENT_RECORD,
    FAKE_EVENT_SYNC,
    FAKE_CALLS
};

struct fake_device {
    struct oom_device device;
    uint64_t base, span; /* the address space */
    uint64_t capacity, used, peak;
    uint64_t foreign;               /* bytes that somebody else holds; may be changed at any time */
    bool descending;                /* new segments lie below all others */
    bool computes;                  /* real memory */
    uint64_t allocs, frees, copies; /* calls */
    uint64_t misuse;                /* calls answered with OOM_INVALID */
    enum oom_status fail_free, fail_copy; /* returned instead of working, unless OOM_OK */
    struct {
        uint64_t left; /* the call that fails, counted down; 0: none */
        enum oom_status status;
    } fail[FAKE_CALLS];
    char log[256]; /* letters of the calls above, the newest last */
    uint64_t count;
    struct fake_region {
        uint64_t address, bytes;
        bool reserved;       /* addresses only */
    } regions[FAKE_REGIONS]; /* ascending */

    oom_handle last_handle;
    struct fake_page {
        oom_handle handle; /* 0: the place is free */
        uint64_t bytes, address;
        bool mapped, accessible, released;
    } pages[FAKE_PAGES];

    /* Stream i is (struct oom_stream *)&streams[i], the default one also NULL. What was submitted
     * finishes only when the test, or a wait, says so. */
    struct fake_stream {
        uint64_t submitted, finished;
    } streams[FAKE_STREAMS];
    struct fake_event {
        bool made;
        struct fake_stream *stream; /* NULL: nothing recorded */
        uint64_t position;
    } events[FAKE_EVENTS];
    uint64_t event_count; /* made and not destroyed */
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
                                          .computes = fake_of(device)->computes,
                                          .virtual_memory = true};
}

static inline void fake_memory_info(struct oom_device *device, struct oom_memory_info *out) {
    struct fake_device *fake = fake_of(device);
    uint64_t used = fake->used + fake->foreign;
    *out = (struct oom_memory_info){.capacity = fake->capacity,
                                    .free = fake->capacity - used,
                                    .used = used,
                                    .peak = fake->peak};
}

static inline enum oom_status fake_misuse(struct fake_device *fake, const char *what) {
    fake->misuse++;
    return oom_fail(OOM_INVALID, "fake: %s", what);
}

/* Logs the call; not OOM_OK when it was told to fail. */
static inline enum oom_status fake_enter(struct fake_device *fake, enum fake_call call) {
    static const char letters[] = "RVCMAULSenw";
    size_t length = strlen(fake->log);
    if (length + 1 >= sizeof fake->log) {
        memmove(fake->log, fake->log + 128, length - 127);
        length -= 128;
    }
    fake->log[length] = letters[call];
    fake->log[length + 1] = 0;
    if (fake->fail[call].left == 0 || --fake->fail[call].left > 0) return OOM_OK;
    return oom_fail(fake->fail[call].status, "fake: told to fail");
}

/* ---- memory ---- */

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

static inline enum oom_status fake_take(struct fake_device *fake, uint64_t bytes, bool reserved,
                                        oom_devptr *out) {
    uint64_t place, address;
    if (fake->count == FAKE_REGIONS || !fake_place(fake, bytes, &place, &address)) {
        return oom_fail(OOM_NOMEM, "fake: no room for one more region");
    }
    memmove(&fake->regions[place + 1], &fake->regions[place],
            (fake->count - place) * sizeof fake->regions[0]);
    fake->regions[place] = (struct fake_region){address, bytes, reserved};
    fake->count++;
    *out = address;
    return OOM_OK;
}

static inline enum oom_status fake_drop(struct fake_device *fake, oom_devptr ptr, bool reserved) {
    uint64_t place = 0;
    while (place < fake->count && fake->regions[place].address != ptr) place++;
    if (place == fake->count || fake->regions[place].reserved != reserved) {
        return fake_misuse(fake, "foreign address");
    }
    fake->count--;
    memmove(&fake->regions[place], &fake->regions[place + 1],
            (fake->count - place) * sizeof fake->regions[0]);
    return OOM_OK;
}

static inline bool fake_lacks(struct fake_device *fake, uint64_t bytes) {
    return bytes > fake->capacity || fake->used + fake->foreign + bytes > fake->capacity;
}

static inline void fake_use(struct fake_device *fake, uint64_t bytes) {
    fake->used += bytes;
    if (fake->used + fake->foreign > fake->peak) fake->peak = fake->used + fake->foreign;
}

static inline enum oom_status fake_alloc(struct oom_device *device, uint64_t bytes,
                                         oom_devptr *out) {
    struct fake_device *fake = fake_of(device);
    fake->allocs++;
    *out = 0;
    if (fake_lacks(fake, bytes)) {
        return oom_fail(OOM_NOMEM, "fake: %llu bytes wanted", (unsigned long long)bytes);
    }
    OOM_TRY(fake_take(fake, bytes, false, out));
    fake_use(fake, bytes);
    return OOM_OK;
}

static inline enum oom_status fake_free(struct oom_device *device, oom_devptr ptr) {
    struct fake_device *fake = fake_of(device);
    uint64_t bytes = 0;
    fake->frees++;
    if (fake->fail_free != OOM_OK) return oom_fail(fake->fail_free, "fake: told to fail");
    for (uint64_t i = 0; i < fake->count; i++) {
        if (fake->regions[i].address == ptr) bytes = fake->regions[i].bytes;
    }
    OOM_TRY(fake_drop(fake, ptr, false));
    fake->used -= bytes;
    return OOM_OK;
}

/* ---- virtual memory ---- */

static inline struct fake_page *fake_find(struct fake_device *fake, oom_handle handle) {
    for (int i = 0; i < FAKE_PAGES; i++) {
        if (fake->pages[i].handle == handle && !fake->pages[i].released) return &fake->pages[i];
    }
    return NULL;
}

static inline struct fake_page *fake_mapping(struct fake_device *fake, oom_devptr ptr) {
    for (int i = 0; i < FAKE_PAGES; i++) {
        struct fake_page *page = &fake->pages[i];
        if (page->handle != 0 && page->mapped && ptr >= page->address &&
            ptr - page->address < page->bytes) {
            return page;
        }
    }
    return NULL;
}

static inline void fake_sweep(struct fake_device *fake, struct fake_page *page) {
    if (!page->released || page->mapped) return;
    fake->used -= page->bytes;
    *page = (struct fake_page){0};
}

static inline enum oom_status fake_reserve(struct oom_device *device, uint64_t bytes,
                                           oom_devptr *out) {
    OOM_TRY(fake_enter(fake_of(device), FAKE_RESERVE));
    if (bytes % OOM_PAGE != 0) return fake_misuse(fake_of(device), "reserve of part of a page");
    return fake_take(fake_of(device), bytes, true, out);
}

static inline enum oom_status fake_unreserve(struct oom_device *device, oom_devptr ptr,
                                             uint64_t bytes) {
    struct fake_device *fake = fake_of(device);
    OOM_TRY(fake_enter(fake, FAKE_UNRESERVE));
    for (int i = 0; i < FAKE_PAGES; i++) {
        const struct fake_page *page = &fake->pages[i];
        if (page->mapped && page->address >= ptr && page->address < ptr + bytes) {
            return fake_misuse(fake, "unreserve of what is mapped");
        }
    }
    return fake_drop(fake, ptr, true);
}

static inline enum oom_status fake_create(struct oom_device *device, uint64_t bytes,
                                          oom_handle *out) {
    struct fake_device *fake = fake_of(device);
    *out = 0;
    OOM_TRY(fake_enter(fake, FAKE_CREATE));
    if (fake_lacks(fake, bytes)) return oom_fail(OOM_NOMEM, "fake: full");
    for (int i = 0; i < FAKE_PAGES; i++) {
        if (fake->pages[i].handle != 0) continue;
        fake->pages[i] = (struct fake_page){.handle = ++fake->last_handle, .bytes = bytes};
        fake_use(fake, bytes);
        *out = fake->last_handle;
        return OOM_OK;
    }
    return oom_fail(OOM_INTERNAL, "fake: no room for one more page");
}

static inline enum oom_status fake_map(struct oom_device *device, oom_devptr ptr, uint64_t bytes,
                                       oom_handle handle) {
    struct fake_device *fake = fake_of(device);
    struct fake_page *page = fake_find(fake, handle);
    OOM_TRY(fake_enter(fake, FAKE_MAP));
    if (page == NULL || page->mapped || page->bytes != bytes || fake_mapping(fake, ptr) != NULL) {
        return fake_misuse(fake, "map");
    }
    page->mapped = true;
    page->address = ptr;
    return OOM_OK;
}

static inline enum oom_status fake_set_access(struct oom_device *device, oom_devptr ptr,
                                              uint64_t bytes, enum oom_access access) {
    struct fake_device *fake = fake_of(device);
    OOM_TRY(fake_enter(fake, FAKE_ACCESS));
    for (uint64_t done = 0; done < bytes;) {
        struct fake_page *page = fake_mapping(fake, ptr + done);
        if (page == NULL) return fake_misuse(fake, "set_access of what is not mapped");
        page->accessible = access == OOM_ACCESS_READ_WRITE;
        done += page->bytes;
    }
    return OOM_OK;
}

/* Contents are lost, so that a block that is used after its page went is seen. */
static inline enum oom_status fake_unmap(struct oom_device *device, oom_devptr ptr,
                                         uint64_t bytes) {
    struct fake_device *fake = fake_of(device);
    struct fake_page *page = fake_mapping(fake, ptr);
    OOM_TRY(fake_enter(fake, FAKE_UNMAP));
    if (page == NULL || page->address != ptr || page->bytes != bytes) {
        return fake_misuse(fake, "unmap");
    }
    if (fake->computes) madvise((void *)(uintptr_t)ptr, bytes, MADV_DONTNEED);
    page->mapped = page->accessible = false;
    fake_sweep(fake, page);
    return OOM_OK;
}

static inline enum oom_status fake_release(struct oom_device *device, oom_handle handle) {
    struct fake_device *fake = fake_of(device);
    struct fake_page *page = fake_find(fake, handle);
    OOM_TRY(fake_enter(fake, FAKE_RELEASE));
    if (handle == 0 || page == NULL) return fake_misuse(fake, "release");
    page->released = true;
    fake_sweep(fake, page);
    return OOM_OK;
}

/* All of it may be read and written. */
static inline bool fake_accessible(struct fake_device *fake, oom_devptr ptr, uint64_t bytes) {
    for (uint64_t i = 0; i < fake->count; i++) {
        const struct fake_region *region = &fake->regions[i];
        if (ptr < region->address || ptr + bytes > region->address + region->bytes) continue;
        if (!region->reserved) return true;
        for (uint64_t at = ptr; at < ptr + bytes;) {
            const struct fake_page *page = fake_mapping(fake, at);
            if (page == NULL || !page->accessible) return false;
            at = page->address + page->bytes;
        }
        return true;
    }
    return false;
}

/* ---- copies ---- */

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

/* ---- streams and events ---- */

static inline struct oom_stream *fake_stream(struct fake_device *fake, int i) {
    return i == 0 ? NULL : (struct oom_stream *)&fake->streams[i];
}

static inline struct fake_stream *fake_stream_of(struct fake_device *fake,
                                                 struct oom_stream *stream) {
    return stream == NULL ? &fake->streams[0] : (struct fake_stream *)stream;
}

/* Everything submitted to stream i so far is done. */
static inline void fake_finish(struct fake_device *fake, int i) {
    fake->streams[i].finished = fake->streams[i].submitted;
}

static inline enum oom_status fake_stream_sync(struct oom_device *device,
                                               struct oom_stream *stream) {
    OOM_TRY(fake_enter(fake_of(device), FAKE_STREAM_SYNC));
    struct fake_stream *named = fake_stream_of(fake_of(device), stream);
    named->finished = named->submitted;
    return OOM_OK;
}

static inline enum oom_status fake_sync(struct oom_device *device) {
    for (int i = 0; i < FAKE_STREAMS; i++) fake_finish(fake_of(device), i);
    return OOM_OK;
}

static inline enum oom_status fake_event_create(struct oom_device *device, struct oom_event **out) {
    struct fake_device *fake = fake_of(device);
    OOM_TRY(fake_enter(fake, FAKE_EVENT_CREATE));
    for (int i = 0; i < FAKE_EVENTS; i++) {
        if (fake->events[i].made) continue;
        fake->events[i] = (struct fake_event){.made = true};
        fake->event_count++;
        *out = (struct oom_event *)&fake->events[i];
        return OOM_OK;
    }
    return oom_fail(OOM_INTERNAL, "fake: no room for one more event");
}

static inline enum oom_status fake_event_destroy(struct oom_device *device,
                                                 struct oom_event *event) {
    if (!((struct fake_event *)event)->made) return fake_misuse(fake_of(device), "event");
    ((struct fake_event *)event)->made = false;
    fake_of(device)->event_count--;
    return OOM_OK;
}

static inline enum oom_status fake_event_record(struct oom_device *device, struct oom_event *event,
                                                struct oom_stream *stream) {
    OOM_TRY(fake_enter(fake_of(device), FAKE_EVENT_RECORD));
    struct fake_event *fake_event = (struct fake_event *)event;
    fake_event->stream = fake_stream_of(fake_of(device), stream);
    fake_event->position = ++fake_event->stream->submitted;
    return OOM_OK;
}

static inline enum oom_status fake_event_query(struct oom_device *device, struct oom_event *event) {
    const struct fake_event *fake_event = (const struct fake_event *)event;
    (void)device;
    bool ready = fake_event->stream == NULL || fake_event->stream->finished >= fake_event->position;
    return ready ? OOM_OK : OOM_NOT_READY;
}

static inline enum oom_status fake_event_sync(struct oom_device *device, struct oom_event *event) {
    struct fake_event *fake_event = (struct fake_event *)event;
    OOM_TRY(fake_enter(fake_of(device), FAKE_EVENT_SYNC));
    if (fake_event->stream != NULL && fake_event->stream->finished < fake_event->position) {
        fake_event->stream->finished = fake_event->position;
    }
    return OOM_OK;
}

/* ---- life ---- */

static inline void fake_open_wide(struct fake_device *fake, uint64_t capacity, uint64_t span,
                                  bool computes) {
    static const struct oom_device_api api = {.api_version = OOM_DEVICE_API_VERSION,
                                              .name = "fake",
                                              .close = fake_close,
                                              .properties = fake_properties,
                                              .memory_info = fake_memory_info,
                                              .alloc = fake_alloc,
                                              .free = fake_free,
                                              .reserve = fake_reserve,
                                              .unreserve = fake_unreserve,
                                              .create = fake_create,
                                              .map = fake_map,
                                              .set_access = fake_set_access,
                                              .unmap = fake_unmap,
                                              .release = fake_release,
                                              .upload = fake_upload,
                                              .download = fake_download,
                                              .stream_sync = fake_stream_sync,
                                              .sync = fake_sync,
                                              .event_create = fake_event_create,
                                              .event_destroy = fake_event_destroy,
                                              .event_record = fake_event_record,
                                              .event_query = fake_event_query,
                                              .event_sync = fake_event_sync};
    memset(fake, 0, sizeof *fake);
    fake->device.api = &api;
    fake->capacity = capacity;
    fake->computes = computes;
    fake->span = span;
    fake->base = (uint64_t)1 << 40;
    if (!computes) return;
    void *memory = mmap(NULL, fake->span, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    fake->computes = memory != MAP_FAILED;
    fake->base = (uint64_t)(uintptr_t)memory;
}

static inline void fake_open(struct fake_device *fake, uint64_t capacity, bool computes) {
    fake_open_wide(fake, capacity, 2 * capacity, computes); /* room for gaps */
}

#endif
