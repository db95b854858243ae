/*
 * device.h: the one contract of a device: memory, virtual memory, copies, streams, events, ops.
 *
 * A device is a table of functions and an object of its own. `host` (a simulated GPU that really
 * computes in capped real memory), `dry` (the same bookkeeping, no memory and no arithmetic) and
 * `cuda` (a plugin) implement it; everything above talks to this table only.
 *
 * Conventions, once for all functions:
 *   - they return OOM_OK or a status with oom_failure_last() filled in; outputs are by pointer and
 *     untouched on failure, except that a failed alloc or create leaves *out 0;
 *   - OOM_NOMEM means that the capacity, or the address space, is exhausted (the message says
 *     which): nothing has changed, the call may be repeated after something was freed;
 *   - queued work that fails counts as done; the next call that waits (a sync, download, free,
 *     stream_destroy) returns the first such failure, once. A download that does has not filled
 *     `dst`, a free has freed nothing;
 *   - misuse (double free, foreign pointer, unmap of what is not mapped or still in use) is
 *     OOM_INVALID; the message names the address, and nothing has changed;
 *   - all sizes are bytes; a device address (oom_devptr) is never dereferenced by a caller;
 *   - a device is used by one thread at a time; streams give concurrency on the device's side.
 */
#ifndef OOM_KERNELS_DEVICE_H
#define OOM_KERNELS_DEVICE_H

#include "kernels/dtype.h"
#include "kernels/ops.h"
#include "kernels/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t oom_handle; /* physical memory made by create; 0 is none */

struct oom_device;
struct oom_stream; /* an in-order queue; NULL names the default stream, which always exists */
struct oom_event;

enum { OOM_DEVICE_API_VERSION = 1 };

/* When queued work really runs. The results of a program without races never depend on it.
 *
 * lazy and seeded run work only when a call needs it: a sync, a read-back, free, destruction of a
 * stream, and under seeded an event query that is answered "ready"; such a call runs what it needs
 * and nothing else. Nothing else tells a caller whether work has run, so every behaviour that a
 * device working on by itself can show to a program without races is one of seeded's.
 *
 * Races, by the order of commands and not by timing, under lazy and under every seed alike: two
 * commands race when one writes memory that the other touches and neither the order of a stream, a
 * chain of event waits, nor a wait of the caller between the two submissions orders them. The one
 * submitted second then runs at once, ahead of the first, with everything it waits for and nothing
 * else; so a program's first race always happens in the wrong order, whatever is waited for
 * afterwards. (What an overtaking command took along has run; races with that come later and may
 * keep their order. eager shows no race, threads may show any.) */
#define OOM_SCHEDULE_MAP(X) \
    X(EAGER, "eager")   /* at once */ \
    X(LAZY, "lazy")     /* as late as possible; an event is ready only after a call that waited */ \
    X(SEEDED, "seeded") /* as lazy, but the seed decides whether an event that is asked for is \
                           ready and in which legal order work is done: the same seed and calls \
                           give the same answers and order, on host and dry alike */ \
    X(THREADS, "threads") /* a thread per stream; ops still run one at a time, as the streams \
                             share the processors and the scratch. On dry: lazy */

enum oom_schedule {
#define X(id, name) OOM_SCHEDULE_##id,
    OOM_SCHEDULE_MAP(X)
#undef X
        OOM_SCHEDULE_COUNT
};

/* Instruction sets of the host kernels. All give the same bits. */
#define OOM_ISA_MAP(X) \
    X(AUTO, "auto")     /* the best that this CPU has */ \
    X(BASE, "base")     /* plain x86-64, or whatever the machine's baseline is */ \
    X(AVX2, "avx2")     /* x86-64-v3: AVX2, FMA, F16C */ \
    X(AVX512, "avx512") /* x86-64-v4: AVX-512 F, BW, DQ, VL */

enum oom_isa {
#define X(id, name) OOM_ISA_##id,
    OOM_ISA_MAP(X)
#undef X
        OOM_ISA_COUNT
};

struct oom_device_options {
    uint64_t capacity;    /* bytes of device memory; 0: the device's default */
    uint64_t reservation; /* bytes of address space; 0: the device's default */
    enum oom_schedule schedule;
    enum oom_isa isa;
    int threads;   /* 0: as many as this process may use */
    uint64_t seed; /* of the schedule `seeded`; any value */
};

struct oom_device_properties {
    char name[64];        /* "host", "dry", "NVIDIA H200" */
    char isa[16];         /* instruction set in force, "-" where there is none */
    uint64_t capacity;    /* bytes that may be committed */
    uint64_t reservation; /* bytes of address space */
    uint64_t page;        /* granularity of create, map and unmap: 2 MiB */
    uint64_t scratch;     /* fixed on-chip stand-in, taken at open, never counted */
    int threads;          /* 0 where the word has no meaning */
    bool computes;        /* false: ops only check their operands */
    bool virtual_memory;  /* the group reserve ... release is there */
};

/* What the device itself counts. `used` covers alloc (rounded as the device rounds) and create. */
struct oom_memory_info {
    uint64_t capacity;
    uint64_t free; /* capacity - used */
    uint64_t used;
    uint64_t peak;      /* highest `used` since open or reset_peak */
    uint64_t anonymous; /* of `used`, in anonymous memory of this process */
};

enum oom_access { OOM_ACCESS_NONE, OOM_ACCESS_READ_WRITE };

struct oom_device_api {
    uint32_t api_version; /* OOM_DEVICE_API_VERSION */
    const char *name;

    void (*close)(struct oom_device *dev); /* finishes all work; frees everything */
    void (*properties)(struct oom_device *dev, struct oom_device_properties *out);
    void (*memory_info)(struct oom_device *dev, struct oom_memory_info *out);
    void (*reset_peak)(struct oom_device *dev);

    /* As cudaMalloc: below 1 MiB blocks share 2 MiB pages in 512-byte granules, larger ones are
     * rounded up to 2 MiB. bytes > 0. free() first finishes all queued work, as cudaFree does, and
     * may therefore return what failed there earlier. */
    enum oom_status (*alloc)(struct oom_device *dev, uint64_t bytes, oom_devptr *out);
    enum oom_status (*free)(struct oom_device *dev, oom_devptr ptr);

    /* Virtual memory (optional: all NULL where properties.virtual_memory is false). Sizes and
     * addresses are multiples of `page`. Memory is committed by create and given back when the
     * handle was released *and* its last mapping is gone, as with CUDA. A fresh mapping is not
     * accessible until set_access. set_access and unmap take whole mappings, one or several side
     * by side. unmap of a range that queued work uses is OOM_INVALID. reserve and alloc may find
     * the address space exhausted while memory is free: OOM_NOMEM too. */
    enum oom_status (*reserve)(struct oom_device *dev, uint64_t bytes, oom_devptr *out);
    enum oom_status (*unreserve)(struct oom_device *dev, oom_devptr ptr, uint64_t bytes);
    enum oom_status (*create)(struct oom_device *dev, uint64_t bytes, oom_handle *out);
    enum oom_status (*map)(struct oom_device *dev, oom_devptr ptr, uint64_t bytes,
                           oom_handle handle); /* the whole handle; bytes = its size */
    enum oom_status (*set_access)(struct oom_device *dev, oom_devptr ptr, uint64_t bytes,
                                  enum oom_access access);
    enum oom_status (*unmap)(struct oom_device *dev, oom_devptr ptr, uint64_t bytes);
    enum oom_status (*release)(struct oom_device *dev, oom_handle handle);

    /* Copies, in stream order. upload may return before the data arrived but never looks at `src`
     * again; download is a read-back: it returns when `dst` is filled, with zeros by a device that
     * does not compute. */
    enum oom_status (*upload)(struct oom_device *dev, oom_devptr dst, const void *src,
                              uint64_t bytes, struct oom_stream *stream);
    enum oom_status (*download)(struct oom_device *dev, void *dst, oom_devptr src, uint64_t bytes,
                                struct oom_stream *stream);
    enum oom_status (*copy)(struct oom_device *dev, oom_devptr dst, oom_devptr src, uint64_t bytes,
                            struct oom_stream *stream); /* ranges must not overlap */
    enum oom_status (*fill)(struct oom_device *dev, oom_devptr dst, uint8_t value, uint64_t bytes,
                            struct oom_stream *stream);

    enum oom_status (*stream_create)(struct oom_device *dev, struct oom_stream **out);
    enum oom_status (*stream_destroy)(struct oom_device *dev, struct oom_stream *stream);
    enum oom_status (*stream_sync)(struct oom_device *dev, struct oom_stream *stream);
    enum oom_status (*stream_wait)(struct oom_device *dev, struct oom_stream *stream,
                                   struct oom_event *event);
    enum oom_status (*sync)(struct oom_device *dev); /* all streams */

    /* stream_destroy finishes the stream's work first and destroys it even when it then returns a
     * failure of queued work. query: OOM_OK when what was recorded has finished (or nothing was),
     * else OOM_NOT_READY, which is an answer and leaves no failure record. */
    enum oom_status (*event_create)(struct oom_device *dev, struct oom_event **out);
    enum oom_status (*event_destroy)(struct oom_device *dev, struct oom_event *event);
    enum oom_status (*event_record)(struct oom_device *dev, struct oom_event *event,
                                    struct oom_stream *stream);
    enum oom_status (*event_query)(struct oom_device *dev, struct oom_event *event);
    enum oom_status (*event_sync)(struct oom_device *dev, struct oom_event *event);

    /* Ops (ops.h). `args` points to the struct of that op and is copied. supports() answers
     * without side effects; reason (size n) says why not. launch() checks shapes and operands:
     * an operand outside live, accessible memory is OOM_INVALID and names op, operand, address. */
    bool (*supports)(struct oom_device *dev, enum oom_op op, const void *args, char *reason,
                     size_t n);
    enum oom_status (*launch)(struct oom_device *dev, enum oom_op op, const void *args,
                              struct oom_stream *stream);

    /* (optional) The address behind a host-visible device pointer, for tests that damage memory on
     * purpose; NULL on devices whose memory the host cannot see. */
    void *(*host_view)(struct oom_device *dev, oom_devptr ptr);
};

/* Every implementation begins with this. */
struct oom_device {
    const struct oom_device_api *api;
};

/* The devices that are built in. Opening one never touches another. */
enum oom_status oom_host_open(const struct oom_device_options *options, struct oom_device **out);
enum oom_status oom_dry_open(const struct oom_device_options *options, struct oom_device **out);

/* By name ("host", "dry", "cuda"). Unknown: OOM_USAGE; known but not there: OOM_ABSENT, reason in
 * the failure record. */
enum oom_status oom_device_open(const char *name, const struct oom_device_options *options,
                                struct oom_device **out);
static inline void oom_device_close(struct oom_device *dev) {
    if (dev != NULL) dev->api->close(dev);
}

const char *oom_schedule_name(enum oom_schedule schedule);
const char *oom_isa_name(enum oom_isa isa);

enum {
    OOM_DEFAULT_CAPACITY = 192 << 20, /* bytes, host and dry */
    OOM_PAGE = 2 << 20,               /* bytes */
    OOM_GRANULE = 512,                /* bytes */
};

#endif
