/*
 * map-rows.c: what a page costs that is made, mapped, made accessible, unmapped and given back: the
 * price of expandable segments. Addresses are reserved once, as an allocator does.
 */
#include "harness/bench/bench.h"

#include "kernels/hostmem.h"

enum { MEBIBYTES, HOST };

struct mapping {
    struct oom_device *device;
    oom_devptr range; /* 0: none */
    uint64_t bytes;
};

static void close_mapping(void *context) {
    struct mapping *m = context;
    if (m->range != 0) m->device->api->unreserve(m->device, m->range, m->bytes);
    oom_device_close(m->device);
    oom_host_free(m);
}

static enum oom_status once(struct mapping *m) {
    const struct oom_device_api *api = m->device->api;
    oom_handle handle;
    OOM_TRY(api->create(m->device, m->bytes, &handle));
    enum oom_status status = api->map(m->device, m->range, m->bytes, handle);
    if (status == OOM_OK) {
        status = api->set_access(m->device, m->range, m->bytes, OOM_ACCESS_READ_WRITE);
        enum oom_status unmapped = api->unmap(m->device, m->range, m->bytes);
        if (status == OOM_OK) status = unmapped;
    }
    enum oom_status released = api->release(m->device, handle);
    return status == OOM_OK ? released : status;
}

static enum oom_status work(void *context, uint64_t times) {
    for (uint64_t i = 0; i < times; i++) OOM_TRY(once(context));
    return OOM_OK;
}

static enum oom_status prepare(const struct oom_bench_row *row, struct mapping *m) {
    const struct oom_device_options options = {.capacity = 64 << 20, .threads = 1};
    m->bytes = (uint64_t)row->parameters[MEBIBYTES] << 20;
    OOM_TRY(oom_device_open(row->parameters[HOST] ? "host" : "dry", &options, &m->device));
    struct oom_device_properties properties;
    m->device->api->properties(m->device, &properties);
    if (!properties.virtual_memory) {
        return oom_fail(OOM_ABSENT, "device %s has no virtual memory", properties.name);
    }
    return m->device->api->reserve(m->device, m->bytes, &m->range);
}

static enum oom_status open_row(const struct oom_bench_row *row,
                                const struct oom_bench_settings *settings,
                                struct oom_bench_subjects *out) {
    (void)settings;
    struct mapping *m = oom_host_calloc(1, sizeof *m);
    if (m == NULL) return oom_fail(OOM_HOST_NOMEM, "a mapping");
    enum oom_status status = prepare(row, m);
    if (status != OOM_OK) {
        close_mapping(m);
        return status;
    }
    out->count = 1;
    out->items[0] = (struct oom_bench_subject){.context = m, .work = work, .close = close_mapping};
    return OOM_OK;
}

static enum oom_status list_rows(const struct oom_bench_family *family,
                                 struct oom_bench_list *list) {
    static const int sizes[] = {2, 20};
    (void)family;
    for (int host = 0; host < 2; host++) {
        for (int i = 0; i < 2; i++) {
            const struct oom_bench_row row = {
                .unit = "mapping", .quick = true, .parameters = {sizes[i], host}, .open = open_row};
            OOM_TRY(
                oom_bench_list_add(list, &row, "map/%s/%dMiB", host ? "host" : "dry", sizes[i]));
        }
    }
    return OOM_OK;
}

const struct oom_bench_family oom_bench_map = {
    .name = "map",
    .prose = "device memory made, mapped, unmapped and given back, as expandable segments do",
    .note = "dry: the books alone; host: the kernel clears real pages and takes them back",
    .list = list_rows,
};
