/*
 * canary.h: blocks with a known content that must keep it across every alloc, free, map, unmap and
 * retry of a run. They are ordinary blocks of the allocator, so a plan knows them.
 *
 * The caller owns the canaries until oom_canaries_free. On a device that does not compute they are
 * allocated and never found damaged.
 */
#ifndef OOM_HARNESS_VERIFY_CANARY_H
#define OOM_HARNESS_VERIFY_CANARY_H

#include "harness/memory/allocator.h"

/* One in the small pool, one that shares a small segment, one in the large pool (bytes). */
enum { OOM_CANARIES = 3 };
extern const uint64_t oom_canary_bytes[OOM_CANARIES];

struct oom_canaries {
    struct oom_device *device;
    struct oom_allocator *allocator;
    uint64_t seed;
    oom_devptr blocks[OOM_CANARIES];
};

/* On failure nothing is left allocated. */
enum oom_status oom_canaries_plant(struct oom_device *device, struct oom_allocator *allocator,
                                   uint64_t seed, struct oom_canaries *out);
/* *damaged: bytes that changed; the failure record names the first, and is left only then. */
enum oom_status oom_canaries_check(const struct oom_canaries *canaries, uint64_t *damaged);
enum oom_status oom_canaries_free(struct oom_canaries *canaries);

#endif
