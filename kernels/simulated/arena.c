/*
 * The calls to the kernel behind the arena, each of which may fail and says so.
 */
#include "kernels/simulated/arena.h"

#include "kernels/device.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* fallocate starts over after a signal: in pieces of this size it gets on under any timer. */
enum { COMMIT_PIECE = 32 << 20 };

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

static const int inaccessible = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

static uint64_t fail_countdown;

uint64_t oom_arena_fail_at(uint64_t n) {
    uint64_t left = fail_countdown;
    fail_countdown = n;
    return left;
}

bool oom_arena_fails(void) {
    return fail_countdown != 0 && --fail_countdown == 0;
}

static bool must_fail(void) {
    if (!oom_arena_fails()) return false;
    errno = ENOMEM;
    return true;
}

static void *map_pages(void *address, uint64_t bytes, int access, int flags, int fd,
                       uint64_t offset) {
    if (must_fail()) return MAP_FAILED;
    return mmap(address, bytes, access, flags, fd, (off_t)offset);
}

static int allocate_frames(int fd, int mode, uint64_t offset, uint64_t bytes) {
    if (must_fail()) return -1;
    int rc;
    do rc = fallocate(fd, mode, (off_t)offset, (off_t)bytes);
    while (rc != 0 && errno == EINTR);
    return rc;
}

/* ---- open, close ---- */

static bool reserve(struct oom_arena *arena, uint64_t bytes) {
    void *whole = map_pages(NULL, bytes + OOM_PAGE, PROT_NONE, inaccessible, -1, 0);
    if (whole == MAP_FAILED) return false;
    arena->whole = whole;
    arena->base = ((uintptr_t)whole + OOM_PAGE - 1) / OOM_PAGE * OOM_PAGE;
    arena->reservation = bytes;
    return true;
}

static enum oom_status reserve_some(struct oom_arena *arena, uint64_t least, uint64_t wanted) {
    uint64_t bytes = wanted;
    while (!reserve(arena, bytes)) {
        if (bytes <= least) {
            return oom_fail_native(OOM_HOST_NOMEM, errno,
                                   "reserving %llu bytes of address space: %s",
                                   (unsigned long long)bytes, strerror(errno));
        }
        bytes = bytes / 2 / OOM_PAGE * OOM_PAGE;
        if (bytes < least) bytes = least;
    }
    return OOM_OK;
}

static enum oom_status make_file(struct oom_arena *arena, uint64_t capacity) {
    arena->fd = must_fail() ? -1 : memfd_create("oombench-device", MFD_CLOEXEC);
    if (arena->fd < 0) {
        return oom_fail_native(OOM_HOST_NOMEM, errno, "memfd_create for the device memory: %s",
                               strerror(errno));
    }
    if (must_fail() || ftruncate(arena->fd, (off_t)capacity) != 0) {
        return oom_fail_native(OOM_HOST_NOMEM, errno, "a sparse file of %llu bytes: %s",
                               (unsigned long long)capacity, strerror(errno));
    }
    return OOM_OK;
}

enum oom_status oom_arena_open(struct oom_arena *arena, uint64_t capacity, uint64_t reservation,
                               uint64_t wanted) {
    *arena = (struct oom_arena){.fd = -1};
    uint64_t least = (capacity + OOM_PAGE - 1) / OOM_PAGE * OOM_PAGE;
    enum oom_status status = make_file(arena, least);
    if (status == OOM_OK) {
        status = reservation != 0 ? reserve_some(arena, reservation, reservation)
                                  : reserve_some(arena, least, wanted);
    }
    if (status != OOM_OK) oom_arena_close(arena);
    return status;
}

void oom_arena_close(struct oom_arena *arena) {
    if (arena->whole != NULL) munmap(arena->whole, arena->reservation + OOM_PAGE);
    if (arena->fd >= 0) close(arena->fd);
    *arena = (struct oom_arena){.fd = -1};
}

/* ---- frames ---- */

static int punch(int fd, uint64_t offset, uint64_t bytes) {
    return allocate_frames(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes);
}

static enum oom_status commit_failed(int code, uint64_t bytes) {
    return oom_fail_native(OOM_HOST_NOMEM, code,
                           "the host gives no memory for %llu bytes of device memory: %s",
                           (unsigned long long)bytes, strerror(code));
}

enum oom_status oom_arena_commit(struct oom_arena *arena, uint64_t offset, uint64_t bytes) {
    if (arena->dirty && punch(arena->fd, offset, bytes) != 0) return commit_failed(errno, bytes);
    for (uint64_t done = 0; done < bytes;) {
        uint64_t piece = bytes - done < COMMIT_PIECE ? bytes - done : COMMIT_PIECE;
        if (allocate_frames(arena->fd, 0, offset + done, piece) != 0) {
            int code = errno;
            if (done > 0) oom_arena_decommit(arena, offset, done);
            return commit_failed(code, bytes);
        }
        done += piece;
    }
    return OOM_OK;
}

void oom_arena_decommit(struct oom_arena *arena, uint64_t offset, uint64_t bytes) {
    if (punch(arena->fd, offset, bytes) != 0) arena->dirty = true;
}

/* ---- addresses ---- */

/* Populated at once: a page fault inside an op would be charged to the op, and a commit that the
 * kernel defers could fail there as a signal. */
enum oom_status oom_arena_map(struct oom_arena *arena, uint64_t address, uint64_t bytes,
                              uint64_t offset) {
    int flags = MAP_SHARED | MAP_FIXED | MAP_POPULATE;
    void *at = (void *)(uintptr_t)address;
    if (map_pages(at, bytes, PROT_READ | PROT_WRITE, flags, arena->fd, offset) == at) return OOM_OK;
    return oom_fail_native(OOM_HOST_NOMEM, errno, "mapping %llu bytes at 0x%llx: %s",
                           (unsigned long long)bytes, (unsigned long long)address, strerror(errno));
}

/* A kernel that cannot populate is made to by touching, where it cannot say no. */
static int populate(unsigned char *at, uint64_t bytes) {
    enum { LEAST_PAGE = 4096 };
    int rc;
    if (must_fail()) return -1;
    do rc = madvise(at, bytes, MADV_POPULATE_WRITE);
    while (rc != 0 && errno == EINTR); /* goes on where it was */
    if (rc == 0 || errno != EINVAL) return rc;
    for (uint64_t i = 0; i < bytes; i += LEAST_PAGE) ((volatile unsigned char *)at)[i] = 0;
    return 0;
}

/* Populated at once, as in oom_arena_map. Huge pages are not asked for: in a virtual machine that
 * gives free ones back to its host, touching them anew was measured to cost three times the small
 * pages' time. */
enum oom_status oom_arena_back(struct oom_arena *arena, uint64_t address, uint64_t bytes) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    void *at = (void *)(uintptr_t)address;
    if (map_pages(at, bytes, PROT_READ | PROT_WRITE, flags, -1, 0) != at) {
        return commit_failed(errno, bytes);
    }
    if (populate(at, bytes) == 0) return OOM_OK;
    int code = errno;
    (void)oom_arena_unmap(arena, address, bytes);
    return commit_failed(code, bytes);
}

enum oom_status oom_arena_unmap(struct oom_arena *arena, uint64_t address, uint64_t bytes) {
    (void)arena;
    void *at = (void *)(uintptr_t)address;
    if (map_pages(at, bytes, PROT_NONE, inaccessible | MAP_FIXED, -1, 0) == at) return OOM_OK;
    return oom_fail_native(OOM_HOST_NOMEM, errno, "unmapping %llu bytes at 0x%llx: %s",
                           (unsigned long long)bytes, (unsigned long long)address, strerror(errno));
}
