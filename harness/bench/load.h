/*
 * load.h: an allocator in a known state on a dry device, and loads to put on it. Rows and the
 * recording for replay share them; nothing is measured here.
 *
 * A load owns its device and allocator until oom_load_free, which takes zeros and NULL, too.
 */
#ifndef OOM_HARNESS_BENCH_LOAD_H
#define OOM_HARNESS_BENCH_LOAD_H

#include "harness/memory/allocator.h"

enum { OOM_LOAD_SIZES = 16, OOM_LOAD_DRAWN = 4096 };

/* Half in the small pool, half in the large one. */
extern const uint64_t oom_load_sizes[OOM_LOAD_SIZES]; /* bytes */

struct oom_load {
    struct oom_device *device;
    struct oom_allocator *allocator;
    uint64_t at;       /* units done */
    oom_devptr *slots; /* (slot_count); 0: empty */
    uint64_t slot_count;
    uint64_t *drawn;       /* (OOM_LOAD_DRAWN) bytes, log-uniform */
    uint64_t random;       /* state */
    uint64_t device_calls; /* when the state was ready */
};

/* An empty allocator on device "dry" or "host". trace: entries of its ring. */
enum oom_status oom_load_create(const char *device, uint64_t capacity, uint64_t trace,
                                struct oom_load **out);
void oom_load_free(struct oom_load *load);

/* `live` live blocks of the 16 sizes, in turn, and at least `free` free ones of the same sizes
 * between them (and the ends of segments). free <= live. */
enum oom_status oom_load_fill(struct oom_load *load, uint64_t live, uint64_t free);
/* `live` live blocks of sizes drawn log-uniformly from 512 bytes to `largest`. */
enum oom_status oom_load_scatter(struct oom_load *load, uint64_t live, uint64_t largest,
                                 uint64_t seed);

/* One alloc and free of the next of the 16 sizes, `times` times; a miss of the cache is
 * OOM_INTERNAL. */
enum oom_status oom_load_pairs(struct oom_load *load, uint64_t times);
/* A random block is freed and another allocated in its place, `times` times. */
enum oom_status oom_load_churn(struct oom_load *load, uint64_t times);
/* An allocation that the cache cannot serve, a free, and the release of the cache. */
enum oom_status oom_load_uncached(struct oom_load *load, uint64_t times);

#endif
