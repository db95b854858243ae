/*
 * The devices `host` and `dry`: one table of functions over the books (memory.h) and the queues
 * (streams.h). On `host` a device address is the address in this process and ops run through the
 * table of kernels; `dry` has no memory behind its addresses: ops only check their operands,
 * nothing is stored, and download fills with zeros.
 *
 * The queues' lock guards the books as well: under the schedule `threads` workers look at them
 * while a caller changes them. It is not held while data moves.
 */
#include "kernels/host/kernels.h"
#include "kernels/hostmem.h"
#include "kernels/simulated/arena.h"
#include "kernels/simulated/limit.h"
#include "kernels/simulated/memory.h"
#include "kernels/simulated/streams.h"

#include <stdio.h>
#include <string.h>

typedef unsigned long long ull; /* for printf */

static const uint64_t capacity_most = (uint64_t)1 << 60;
static const uint64_t reservation_most = (uint64_t)1 << 62;
static const uint64_t reservation_default = (uint64_t)32 << 30;
static const uint64_t dry_base = (uint64_t)1 << 40; /* nothing is there; any multiple of the page */

struct simulated {
    struct oom_device device;
    struct oom_device_properties properties;
    struct oom_memory memory;
    struct oom_queues queues;
    struct oom_arena arena;                 /* host */
    const struct oom_host_kernels *kernels; /* host; NULL: nothing is computed */
    struct oom_pool *pool;                  /* host */
    pthread_mutex_t ops;                    /* the pool and its scratch serve one op at a time */
};

static struct simulated *simulated(struct oom_device *dev) {
    return (struct simulated *)dev;
}

static void *view(oom_devptr ptr) {
    return OOM_HOST_PTR(void, ptr);
}

static struct simulated *enter(struct oom_device *dev) {
    oom_queues_enter(&simulated(dev)->queues);
    return simulated(dev);
}

static enum oom_status leave(struct simulated *sim, enum oom_status status) {
    oom_queues_leave(&sim->queues);
    return status;
}

/* ---- running a command ---- */

static enum oom_status check_range(const struct simulated *sim, const char *what, const char *name,
                                   oom_devptr ptr, uint64_t bytes) {
    oom_devptr bad;
    if (bytes == 0 || oom_memory_accessible(&sim->memory, ptr, bytes, &bad)) return OOM_OK;
    return oom_fail(OOM_INVALID,
                    "%s: %s of %llu bytes at 0x%llx: 0x%llx is not in live, accessible memory",
                    what, name, (ull)bytes, (ull)ptr, (ull)bad);
}

static enum oom_status check_operands(const struct simulated *sim, enum oom_op op,
                                      const void *args) {
    struct oom_operand operands[OOM_OPERANDS_MAX];
    int count = oom_op_operands(op, args, operands);
    for (int i = 0; i < count; i++) {
        OOM_TRY(check_range(sim, oom_op_name(op), operands[i].name, operands[i].ptr,
                            operands[i].bytes));
    }
    return OOM_OK;
}

/* Made when a command is queued and once more before it runs: memory may have been unmapped or
 * closed meanwhile. */
static enum oom_status check_command(void *context, const struct oom_command *command) {
    const struct simulated *sim = context;
    switch (command->kind) {
    case OOM_COMMAND_OP:
        return check_operands(sim, command->op, &command->args);
    case OOM_COMMAND_COPY:
        OOM_TRY(check_range(sim, "copy", "src", command->src, command->bytes));
        return check_range(sim, "copy", "dst", command->dst, command->bytes);
    case OOM_COMMAND_FILL:
        return check_range(sim, "fill", "dst", command->dst, command->bytes);
    case OOM_COMMAND_UPLOAD:
        return check_range(sim, "upload", "dst", command->dst, command->bytes);
    case OOM_COMMAND_WAIT:
        break;
    }
    return OOM_OK;
}

/* A GPU's streams share its processors, and these share pool and scratch. */
static void run_op(struct simulated *sim, const struct oom_command *command) {
    pthread_mutex_lock(&sim->ops);
    oom_host_kernels_run(sim->kernels, sim->pool, command->op, &command->args);
    pthread_mutex_unlock(&sim->ops);
}

static void run_command(void *context, const struct oom_command *command) {
    struct simulated *sim = context;
    if (sim->kernels == NULL) return;
    switch (command->kind) {
    case OOM_COMMAND_OP:
        run_op(sim, command);
        break;
    case OOM_COMMAND_COPY:
        memcpy(view(command->dst), view(command->src), command->bytes);
        break;
    case OOM_COMMAND_FILL:
        memset(view(command->dst), command->value, command->bytes);
        break;
    case OOM_COMMAND_UPLOAD:
        memcpy(view(command->dst), command->data, command->bytes);
        break;
    case OOM_COMMAND_WAIT:
        break;
    }
}

/* What will run later is checked now as well, so that the caller hears of it where it happens. */
static enum oom_status submit_locked(struct simulated *sim, struct oom_stream *stream,
                                     const struct oom_command *command) {
    if (command->kind != OOM_COMMAND_OP && command->bytes == 0) {
        return oom_stream_check(&sim->queues, stream);
    }
    if (sim->queues.schedule != OOM_SCHEDULE_EAGER) OOM_TRY(check_command(sim, command));
    return oom_queues_submit(&sim->queues, stream, command);
}

static enum oom_status submit(struct oom_device *dev, struct oom_stream *stream,
                              const struct oom_command *command) {
    struct simulated *sim = enter(dev);
    return leave(sim, submit_locked(sim, stream, command));
}

/* ---- the device itself ---- */

static void device_close(struct oom_device *dev) {
    struct simulated *sim = enter(dev);
    (void)leave(sim, oom_queues_sync(&sim->queues));
    oom_queues_free(&sim->queues);
    oom_memory_free(&sim->memory);
    oom_pool_destroy(sim->pool);
    oom_arena_close(&sim->arena);
    pthread_mutex_destroy(&sim->ops);
    oom_host_free(sim);
}

static void device_properties(struct oom_device *dev, struct oom_device_properties *out) {
    *out = simulated(dev)->properties;
}

static void device_memory_info(struct oom_device *dev, struct oom_memory_info *out) {
    const struct oom_memory *memory = &simulated(dev)->memory;
    *out = (struct oom_memory_info){.capacity = memory->capacity,
                                    .free = memory->capacity - memory->used,
                                    .used = memory->used,
                                    .peak = memory->peak,
                                    .anonymous = memory->anonymous};
}

static void device_reset_peak(struct oom_device *dev) {
    struct oom_memory *memory = &simulated(dev)->memory;
    memory->peak = memory->used;
}

/* ---- memory ---- */

static enum oom_status device_alloc(struct oom_device *dev, uint64_t bytes, oom_devptr *out) {
    struct simulated *sim = enter(dev);
    return leave(sim, oom_block_alloc(&sim->memory, bytes, out));
}

/* When work that was queued fails, that is what free returns, and nothing was freed. */
static enum oom_status free_locked(struct simulated *sim, oom_devptr ptr) {
    OOM_TRY(oom_block_check(&sim->memory, ptr));
    OOM_TRY(oom_queues_sync(&sim->queues));
    return oom_block_free(&sim->memory, ptr);
}

static enum oom_status device_free(struct oom_device *dev, oom_devptr ptr) {
    struct simulated *sim = enter(dev);
    return leave(sim, free_locked(sim, ptr));
}

static enum oom_status device_reserve(struct oom_device *dev, uint64_t bytes, oom_devptr *out) {
    struct simulated *sim = enter(dev);
    return leave(sim, oom_virtual_reserve(&sim->memory, bytes, out));
}

static enum oom_status device_unreserve(struct oom_device *dev, oom_devptr ptr, uint64_t bytes) {
    struct simulated *sim = enter(dev);
    return leave(sim, oom_virtual_unreserve(&sim->memory, ptr, bytes));
}

static enum oom_status device_create(struct oom_device *dev, uint64_t bytes, oom_handle *out) {
    struct simulated *sim = enter(dev);
    return leave(sim, oom_virtual_create(&sim->memory, bytes, out));
}

static enum oom_status device_map(struct oom_device *dev, oom_devptr ptr, uint64_t bytes,
                                  oom_handle handle) {
    struct simulated *sim = enter(dev);
    return leave(sim, oom_virtual_map(&sim->memory, ptr, bytes, handle));
}

/* Work that was checked before access went away must be over before it goes. */
static enum oom_status device_set_access(struct oom_device *dev, oom_devptr ptr, uint64_t bytes,
                                         enum oom_access access) {
    struct simulated *sim = enter(dev);
    oom_queues_settle(&sim->queues, ptr, bytes);
    return leave(sim, oom_virtual_access(&sim->memory, ptr, bytes, access));
}

static enum oom_status unmap_locked(struct simulated *sim, oom_devptr ptr, uint64_t bytes) {
    if (oom_queues_use(&sim->queues, ptr, bytes)) {
        return oom_fail(OOM_INVALID, "unmap of %llu bytes at 0x%llx: queued work still uses them",
                        (ull)bytes, (ull)ptr);
    }
    return oom_virtual_unmap(&sim->memory, ptr, bytes);
}

static enum oom_status device_unmap(struct oom_device *dev, oom_devptr ptr, uint64_t bytes) {
    struct simulated *sim = enter(dev);
    return leave(sim, unmap_locked(sim, ptr, bytes));
}

static enum oom_status device_release(struct oom_device *dev, oom_handle handle) {
    struct simulated *sim = enter(dev);
    return leave(sim, oom_virtual_release(&sim->memory, handle));
}

/* ---- copies ---- */

static enum oom_status device_upload(struct oom_device *dev, oom_devptr dst, const void *src,
                                     uint64_t bytes, struct oom_stream *stream) {
    struct oom_command command = {
        .kind = OOM_COMMAND_UPLOAD, .dst = dst, .data = src, .bytes = bytes};
    return submit(dev, stream, &command);
}

static enum oom_status finish_range(struct simulated *sim, oom_devptr src, uint64_t bytes,
                                    struct oom_stream *stream) {
    OOM_TRY(check_range(sim, "download", "src", src, bytes));
    return oom_stream_finish(&sim->queues, stream);
}

static enum oom_status device_download(struct oom_device *dev, void *dst, oom_devptr src,
                                       uint64_t bytes, struct oom_stream *stream) {
    struct simulated *sim = enter(dev);
    OOM_TRY(leave(sim, finish_range(sim, src, bytes, stream)));
    if (bytes == 0) return OOM_OK;
    if (sim->kernels != NULL) {
        memcpy(dst, view(src), bytes);
    } else {
        memset(dst, 0, bytes);
    }
    return OOM_OK;
}

static enum oom_status device_copy(struct oom_device *dev, oom_devptr dst, oom_devptr src,
                                   uint64_t bytes, struct oom_stream *stream) {
    uint64_t distance = dst > src ? dst - src : src - dst;
    if (distance < bytes) {
        return oom_fail(OOM_INVALID, "copy of %llu bytes from 0x%llx to 0x%llx: they overlap",
                        (ull)bytes, (ull)src, (ull)dst);
    }
    struct oom_command command = {.kind = OOM_COMMAND_COPY, .dst = dst, .src = src, .bytes = bytes};
    return submit(dev, stream, &command);
}

static enum oom_status device_fill(struct oom_device *dev, oom_devptr dst, uint8_t value,
                                   uint64_t bytes, struct oom_stream *stream) {
    struct oom_command command = {
        .kind = OOM_COMMAND_FILL, .dst = dst, .value = value, .bytes = bytes};
    return submit(dev, stream, &command);
}

/* ---- streams and events ---- */

static enum oom_status device_stream_create(struct oom_device *dev, struct oom_stream **out) {
    struct simulated *sim = enter(dev);
    return leave(sim, oom_stream_make(&sim->queues, out));
}

static enum oom_status device_stream_destroy(struct oom_device *dev, struct oom_stream *stream) {
    struct simulated *sim = enter(dev);
    return leave(sim, oom_stream_drop(&sim->queues, stream));
}

static enum oom_status device_stream_sync(struct oom_device *dev, struct oom_stream *stream) {
    struct simulated *sim = enter(dev);
    return leave(sim, oom_stream_finish(&sim->queues, stream));
}

static enum oom_status device_stream_wait(struct oom_device *dev, struct oom_stream *stream,
                                          struct oom_event *event) {
    struct simulated *sim = enter(dev);
    return leave(sim, oom_stream_await(&sim->queues, stream, event));
}

static enum oom_status device_sync(struct oom_device *dev) {
    struct simulated *sim = enter(dev);
    return leave(sim, oom_queues_sync(&sim->queues));
}

static enum oom_status device_event_create(struct oom_device *dev, struct oom_event **out) {
    struct simulated *sim = enter(dev);
    return leave(sim, oom_event_make(&sim->queues, out));
}

static enum oom_status device_event_destroy(struct oom_device *dev, struct oom_event *event) {
    struct simulated *sim = enter(dev);
    return leave(sim, oom_event_drop(&sim->queues, event));
}

static enum oom_status device_event_record(struct oom_device *dev, struct oom_event *event,
                                           struct oom_stream *stream) {
    struct simulated *sim = enter(dev);
    return leave(sim, oom_event_mark(&sim->queues, event, stream));
}

static enum oom_status device_event_query(struct oom_device *dev, struct oom_event *event) {
    struct simulated *sim = enter(dev);
    return leave(sim, oom_event_ask(&sim->queues, event));
}

static enum oom_status device_event_sync(struct oom_device *dev, struct oom_event *event) {
    struct simulated *sim = enter(dev);
    return leave(sim, oom_event_finish(&sim->queues, event));
}

/* ---- ops ---- */

static enum oom_status check_op(enum oom_op op, const void *args) {
    if ((unsigned)op >= OOM_OP_COUNT) return oom_fail(OOM_INVALID, "op %d is unknown", (int)op);
    return oom_op_check(op, args);
}

/* The reason comes out of a failure record; the one that was there before stays. */
static bool device_supports(struct oom_device *dev, enum oom_op op, const void *args, char *reason,
                            size_t n) {
    (void)dev; /* the kernels' table is complete */
    struct oom_failure before = *oom_failure_last();
    oom_failure_clear();
    bool supported = check_op(op, args) == OOM_OK;
    if (n > 0) snprintf(reason, n, "%s", supported ? "" : oom_failure_last()->message);
    oom_failure_clear();
    if (before.status != OOM_OK) {
        oom_failure_record(before.file, before.line, before.status, before.native, "%s",
                           before.message);
    }
    return supported;
}

static enum oom_status device_launch(struct oom_device *dev, enum oom_op op, const void *args,
                                     struct oom_stream *stream) {
    struct oom_command command = {.kind = OOM_COMMAND_OP, .op = op};
    OOM_TRY(check_op(op, args));
    memcpy(&command.args, args, oom_op_args_bytes(op));
    return submit(dev, stream, &command);
}

static void *device_host_view(struct oom_device *dev, oom_devptr ptr) {
    const struct simulated *sim = simulated(dev);
    oom_devptr bad;
    bool there = sim->kernels != NULL && oom_memory_accessible(&sim->memory, ptr, 1, &bad);
    return there ? view(ptr) : NULL;
}

/* ---- opening ---- */

#define SIMULATED_API(called) \
    { \
        .api_version = OOM_DEVICE_API_VERSION, .name = called, .close = device_close, \
        .properties = device_properties, .memory_info = device_memory_info, \
        .reset_peak = device_reset_peak, .alloc = device_alloc, .free = device_free, \
        .reserve = device_reserve, .unreserve = device_unreserve, .create = device_create, \
        .map = device_map, .set_access = device_set_access, .unmap = device_unmap, \
        .release = device_release, .upload = device_upload, .download = device_download, \
        .copy = device_copy, .fill = device_fill, .stream_create = device_stream_create, \
        .stream_destroy = device_stream_destroy, .stream_sync = device_stream_sync, \
        .stream_wait = device_stream_wait, .sync = device_sync, \
        .event_create = device_event_create, .event_destroy = device_event_destroy, \
        .event_record = device_event_record, .event_query = device_event_query, \
        .event_sync = device_event_sync, .supports = device_supports, .launch = device_launch, \
        .host_view = device_host_view, \
    }

static const struct oom_device_api host_api = SIMULATED_API("host");
static const struct oom_device_api dry_api = SIMULATED_API("dry");

static enum oom_status check_options(const struct oom_device_options *options) {
    if (options->capacity < OOM_PAGE || options->capacity > capacity_most) {
        return oom_fail(OOM_USAGE, "capacity of %llu bytes: allowed are %d to %llu",
                        (ull)options->capacity, OOM_PAGE, (ull)capacity_most);
    }
    if (!oom_is_paged(options->reservation) || options->reservation > reservation_most) {
        return oom_fail(OOM_USAGE,
                        "reservation of %llu bytes: allowed are multiples of %d up to %llu",
                        (ull)options->reservation, OOM_PAGE, (ull)reservation_most);
    }
    if ((unsigned)options->schedule >= OOM_SCHEDULE_COUNT) {
        return oom_fail(OOM_USAGE, "schedule %d is unknown", (int)options->schedule);
    }
    if ((unsigned)options->isa >= OOM_ISA_COUNT) {
        return oom_fail(OOM_USAGE, "instruction set %d is unknown", (int)options->isa);
    }
    if (options->threads < 0) {
        return oom_fail(OOM_USAGE, "%d threads: allowed are 0 (all) and more", options->threads);
    }
    return OOM_OK;
}

static uint64_t reservation_wanted(uint64_t capacity) {
    uint64_t wanted = (capacity + OOM_PAGE - 1) / OOM_PAGE * OOM_PAGE * 4;
    return wanted > reservation_default ? wanted : reservation_default;
}

static enum oom_status open_host(struct simulated *sim, const struct oom_device_options *options) {
    struct oom_memory_limit limit = oom_memory_limit_read("/proc", "/sys/fs/cgroup");
    if (options->capacity > limit.bytes) {
        return oom_fail(OOM_HOST_NOMEM,
                        "device memory of %llu bytes is more than the %llu that this process may "
                        "use (%s)",
                        (ull)options->capacity, (ull)limit.bytes, limit.source);
    }
    OOM_TRY(oom_arena_open(&sim->arena, options->capacity, options->reservation,
                           reservation_wanted(options->capacity)));
    OOM_TRY(oom_pool_create(options->threads, OOM_HOST_SCRATCH_BYTES, &sim->pool));
    OOM_TRY(oom_host_kernels_select(options->isa, &sim->kernels));
    sim->properties.threads = oom_pool_threads(sim->pool);
    sim->properties.scratch = (uint64_t)sim->properties.threads * OOM_HOST_SCRATCH_BYTES;
    snprintf(sim->properties.isa, sizeof sim->properties.isa, "%s", sim->kernels->isa);
    return oom_memory_init(&sim->memory, options->capacity, sim->arena.base, sim->arena.reservation,
                           &sim->arena);
}

static enum oom_status open_dry(struct simulated *sim, const struct oom_device_options *options) {
    uint64_t reservation =
        options->reservation != 0 ? options->reservation : reservation_wanted(options->capacity);
    snprintf(sim->properties.isa, sizeof sim->properties.isa, "-");
    return oom_memory_init(&sim->memory, options->capacity, dry_base, reservation, NULL);
}

/* Without anything to compute there is nothing for threads to do: `dry` frees as late as any of
 * them could, so what it predicts is an upper bound. */
static enum oom_schedule schedule_of(enum oom_schedule asked, bool computes) {
    return asked == OOM_SCHEDULE_THREADS && !computes ? OOM_SCHEDULE_LAZY : asked;
}

static enum oom_status open_simulated(const struct oom_device_api *api,
                                      const struct oom_device_options *given,
                                      struct oom_device **out) {
    struct oom_device_options options = given != NULL ? *given : (struct oom_device_options){0};
    if (options.capacity == 0) options.capacity = OOM_DEFAULT_CAPACITY;
    OOM_TRY(check_options(&options));
    struct simulated *sim = oom_host_calloc(1, sizeof *sim);
    if (sim == NULL) return oom_fail(OOM_HOST_NOMEM, "no host memory for device %s", api->name);
    sim->device.api = api;
    sim->arena.fd = -1;
    sim->ops = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    bool computes = api == &host_api;
    const struct oom_work work = {check_command, run_command, sim};
    enum oom_status status =
        oom_queues_init(&sim->queues, schedule_of(options.schedule, computes), options.seed, &work);
    if (status == OOM_OK) status = computes ? open_host(sim, &options) : open_dry(sim, &options);
    if (status != OOM_OK) {
        device_close(&sim->device);
        return status;
    }
    snprintf(sim->properties.name, sizeof sim->properties.name, "%s", api->name);
    sim->properties.capacity = options.capacity;
    sim->properties.reservation = sim->memory.reservation;
    sim->properties.page = OOM_PAGE;
    sim->properties.computes = computes;
    sim->properties.virtual_memory = true;
    *out = &sim->device;
    return OOM_OK;
}

enum oom_status oom_host_open(const struct oom_device_options *options, struct oom_device **out) {
    return open_simulated(&host_api, options, out);
}

enum oom_status oom_dry_open(const struct oom_device_options *options, struct oom_device **out) {
    return open_simulated(&dry_api, options, out);
}
