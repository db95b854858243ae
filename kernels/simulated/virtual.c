/*
 * CUDA's virtual memory calls: address space, physical memory and the mapping of one to the other
 * are three things. Memory of a handle goes when the handle was released and its last mapping is
 * gone. unmap and set_access take whole mappings, one or several side by side.
 */
#include "kernels/simulated/memory.h"

typedef unsigned long long ull; /* for printf */

static enum oom_status check_paged(const char *what, oom_devptr ptr, uint64_t bytes) {
    if (bytes > 0 && oom_is_paged(bytes) && oom_is_paged(ptr)) return OOM_OK;
    return oom_fail(OOM_INVALID,
                    "%s of %llu bytes at 0x%llx: both must be multiples of the page of %d bytes",
                    what, (ull)bytes, (ull)ptr, OOM_PAGE);
}

/* ---- address space ---- */

enum oom_status oom_virtual_reserve(struct oom_memory *memory, uint64_t bytes, oom_devptr *out) {
    struct oom_range *space;
    OOM_TRY(check_paged("reserve", 0, bytes));
    OOM_TRY(oom_space_take(memory, "reserve", bytes, OOM_SPACE_RESERVATION, &space));
    *out = space->start;
    return OOM_OK;
}

enum oom_status oom_virtual_unreserve(struct oom_memory *memory, oom_devptr ptr, uint64_t bytes) {
    struct oom_range *space = oom_range_find(memory->spaces, ptr);
    if (space == NULL || space->kind != OOM_SPACE_RESERVATION || space->length != bytes) {
        return oom_fail(OOM_INVALID, "unreserve of %llu bytes at 0x%llx: no such reservation",
                        (ull)bytes, (ull)ptr);
    }
    if (space->uses > 0) {
        return oom_fail(OOM_INVALID, "unreserve at 0x%llx: %u mappings are still in it", (ull)ptr,
                        space->uses);
    }
    oom_space_give(memory, space);
    return OOM_OK;
}

/* ---- physical memory ---- */

static void drop_unused(struct oom_memory *memory, struct oom_range *handle, bool released) {
    if (!released || handle->uses > 0) return;
    oom_frames_decommit(memory, handle->link);
    oom_frames_give(memory, handle->link);
    oom_range_put(&memory->pool, handle);
}

enum oom_status oom_virtual_create(struct oom_memory *memory, uint64_t bytes, oom_handle *out) {
    *out = 0;
    OOM_TRY(check_paged("create", 0, bytes));
    struct oom_range *handle = oom_range_get(&memory->pool);
    if (handle == NULL) return oom_fail(OOM_HOST_NOMEM, "no host memory for a handle's record");
    enum oom_status status = oom_frames_take(memory, "create", bytes, &handle->link);
    if (status == OOM_OK) {
        status = oom_frames_commit(memory, handle->link);
        if (status != OOM_OK) oom_frames_give(memory, handle->link);
    }
    if (status != OOM_OK) {
        oom_range_put(&memory->pool, handle);
        return status;
    }
    handle->start = ++memory->last_handle;
    handle->length = bytes;
    oom_range_insert(&memory->handles, handle);
    if (memory->used > memory->peak) memory->peak = memory->used;
    *out = handle->start;
    return OOM_OK;
}

static enum oom_status find_handle(const struct oom_memory *memory, const char *what,
                                   oom_handle handle, struct oom_range **out) {
    *out = oom_range_find(memory->handles, handle);
    if (*out != NULL) return OOM_OK;
    return oom_fail(OOM_INVALID, "%s of handle %llu: it was never made or is released", what,
                    (ull)handle);
}

enum { HANDLE_LIVE, HANDLE_RELEASED };

enum oom_status oom_virtual_release(struct oom_memory *memory, oom_handle handle) {
    struct oom_range *found;
    OOM_TRY(find_handle(memory, "release", handle, &found));
    oom_range_remove(&memory->handles, found);
    found->kind = HANDLE_RELEASED;
    drop_unused(memory, found, true);
    return OOM_OK;
}

/* ---- mappings ---- */

/* Ranges of different mappings never overlap, so the last one that starts before the end tells. */
static bool any_mapped(const struct oom_memory *memory, oom_devptr ptr, uint64_t bytes) {
    const struct oom_range *last = oom_range_floor(memory->mappings, ptr + bytes - 1);
    return last != NULL && last->start + last->length > ptr;
}

static enum oom_status find_place(const struct oom_memory *memory, oom_devptr ptr, uint64_t bytes,
                                  struct oom_range **space) {
    *space = oom_range_at(memory->spaces, ptr);
    if (*space == NULL || (*space)->kind != OOM_SPACE_RESERVATION ||
        bytes > (*space)->length - (ptr - (*space)->start)) {
        return oom_fail(OOM_INVALID, "map of %llu bytes at 0x%llx: not inside one reservation",
                        (ull)bytes, (ull)ptr);
    }
    if (any_mapped(memory, ptr, bytes)) {
        return oom_fail(OOM_INVALID, "map of %llu bytes at 0x%llx: part of it is mapped already",
                        (ull)bytes, (ull)ptr);
    }
    return OOM_OK;
}

/* Nothing is made accessible yet, so the arena hears of a mapping in set_access only. */
enum oom_status oom_virtual_map(struct oom_memory *memory, oom_devptr ptr, uint64_t bytes,
                                oom_handle handle) {
    struct oom_range *found, *space;
    OOM_TRY(check_paged("map", ptr, bytes));
    OOM_TRY(find_handle(memory, "map", handle, &found));
    if (found->length != bytes) {
        return oom_fail(OOM_INVALID, "map of %llu bytes of handle %llu: it has %llu", (ull)bytes,
                        (ull)handle, (ull)found->length);
    }
    OOM_TRY(find_place(memory, ptr, bytes, &space));
    struct oom_range *mapping = oom_range_get(&memory->pool);
    if (mapping == NULL) return oom_fail(OOM_HOST_NOMEM, "no host memory for a mapping's record");
    mapping->start = ptr;
    mapping->length = bytes;
    mapping->link = found;
    mapping->kind = OOM_ACCESS_NONE;
    oom_range_insert(&memory->mappings, mapping);
    found->uses++;
    space->uses++;
    return OOM_OK;
}

/* [ptr, ptr + bytes) is a row of whole mappings. */
static enum oom_status check_row(const struct oom_memory *memory, const char *what, oom_devptr ptr,
                                 uint64_t bytes) {
    OOM_TRY(check_paged(what, ptr, bytes));
    for (uint64_t done = 0; done < bytes;) {
        const struct oom_range *mapping = oom_range_find(memory->mappings, ptr + done);
        if (mapping == NULL || mapping->length > bytes - done) {
            return oom_fail(OOM_INVALID, "%s of %llu bytes at 0x%llx: no whole mapping at 0x%llx",
                            what, (ull)bytes, (ull)ptr, (ull)(ptr + done));
        }
        done += mapping->length;
    }
    return OOM_OK;
}

enum oom_status oom_virtual_unmap(struct oom_memory *memory, oom_devptr ptr, uint64_t bytes) {
    OOM_TRY(check_row(memory, "unmap", ptr, bytes));
    OOM_TRY(oom_frames_unmap(memory, ptr, bytes));
    for (uint64_t done = 0; done < bytes;) {
        struct oom_range *mapping = oom_range_find(memory->mappings, ptr + done);
        struct oom_range *handle = mapping->link;
        done += mapping->length;
        oom_range_remove(&memory->mappings, mapping);
        oom_range_at(memory->spaces, mapping->start)->uses--;
        oom_range_put(&memory->pool, mapping);
        handle->uses--;
        drop_unused(memory, handle, handle->kind == HANDLE_RELEASED);
    }
    return OOM_OK;
}

/* ---- access ---- */

/* `asked` of a mapping is not used otherwise: it keeps the access before this call. */
static void remember_access(struct oom_memory *memory, oom_devptr ptr, uint64_t bytes) {
    for (uint64_t done = 0; done < bytes;) {
        struct oom_range *mapping = oom_range_find(memory->mappings, ptr + done);
        mapping->asked = mapping->kind;
        done += mapping->length;
    }
}

static void restore_access(struct oom_memory *memory, oom_devptr ptr, uint64_t bytes) {
    for (uint64_t done = 0; done < bytes;) {
        struct oom_range *mapping = oom_range_find(memory->mappings, ptr + done);
        if (mapping->kind != mapping->asked) {
            (void)oom_frames_unmap(memory, mapping->start, mapping->length);
            mapping->kind = (uint8_t)mapping->asked;
        }
        done += mapping->length;
    }
}

static enum oom_status allow(struct oom_memory *memory, oom_devptr ptr, uint64_t bytes) {
    remember_access(memory, ptr, bytes);
    for (uint64_t done = 0; done < bytes;) {
        struct oom_range *mapping = oom_range_find(memory->mappings, ptr + done);
        enum oom_status status = OOM_OK;
        if (mapping->kind == OOM_ACCESS_NONE) {
            status = oom_frames_map(memory, mapping->link->link, mapping->start, mapping->length);
        }
        if (status != OOM_OK) {
            restore_access(memory, ptr, done);
            return status;
        }
        mapping->kind = OOM_ACCESS_READ_WRITE;
        done += mapping->length;
    }
    return OOM_OK;
}

static enum oom_status forbid(struct oom_memory *memory, oom_devptr ptr, uint64_t bytes) {
    OOM_TRY(oom_frames_unmap(memory, ptr, bytes));
    for (uint64_t done = 0; done < bytes;) {
        struct oom_range *mapping = oom_range_find(memory->mappings, ptr + done);
        mapping->kind = OOM_ACCESS_NONE;
        done += mapping->length;
    }
    return OOM_OK;
}

enum oom_status oom_virtual_access(struct oom_memory *memory, oom_devptr ptr, uint64_t bytes,
                                   enum oom_access access) {
    OOM_TRY(check_row(memory, "set_access", ptr, bytes));
    switch (access) {
    case OOM_ACCESS_NONE:
        return forbid(memory, ptr, bytes);
    case OOM_ACCESS_READ_WRITE:
        return allow(memory, ptr, bytes);
    }
    return oom_fail(OOM_INVALID, "set_access at 0x%llx: %d is no access", (ull)ptr, (int)access);
}
