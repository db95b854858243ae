/*
 * malloc-rows.c: our allocator beside those of the host, on the same sequence of requests: glibc's,
 * and jemalloc and mimalloc where they are (libjemalloc.so.2, libmimalloc.so.2, or the paths in
 * $OOMBENCH_JEMALLOC and $OOMBENCH_MIMALLOC). It is the same request for another thing: theirs
 * writes headers into memory that it maps, ours keeps books about memory of a device.
 */
#include "harness/bench/bench.h"

#include "harness/base/rng.h"
#include "harness/memory/allocator.h"
#include "kernels/hostmem.h"

#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LIVE, STEPS = 1 << 14 };

/* One request: what is in the slot goes, and this comes. */
struct step {
    uint32_t slot, bytes;
};

struct heap {
    void *(*take)(size_t bytes);
    void (*give)(void *block);
    void *library;
};

struct run {
    struct oom_device *device; /* ours */
    struct oom_allocator *allocator;
    struct heap heap; /* a peer's */
    struct step *steps;
    uint64_t at, slot_count;
    union {
        oom_devptr ours;
        void *theirs;
    } * slots;
};

static enum oom_status work_ours(void *context, uint64_t times) {
    struct run *r = context;
    for (uint64_t i = 0; i < times; i++) {
        const struct step *step = &r->steps[r->at++ % STEPS];
        oom_devptr *slot = &r->slots[step->slot].ours;
        OOM_TRY(oom_allocator_free(r->allocator, *slot));
        OOM_TRY(oom_allocator_alloc(r->allocator, step->bytes, NULL, OOM_TAG_OTHER, "step", slot));
    }
    return OOM_OK;
}

static enum oom_status work_theirs(void *context, uint64_t times) {
    struct run *r = context;
    for (uint64_t i = 0; i < times; i++) {
        const struct step *step = &r->steps[r->at++ % STEPS];
        void **slot = &r->slots[step->slot].theirs;
        r->heap.give(*slot);
        *slot = r->heap.take(step->bytes);
        if (*slot == NULL) return oom_fail(OOM_HOST_NOMEM, "%u bytes of a peer", step->bytes);
        oom_bench_keep(*slot);
    }
    return OOM_OK;
}

static void close_run(void *context) {
    struct run *r = context;
    for (uint64_t i = 0; r->heap.give != NULL && r->slots != NULL && i < r->slot_count; i++) {
        r->heap.give(r->slots[i].theirs);
    }
    oom_allocator_destroy(r->allocator);
    oom_device_close(r->device);
    oom_host_free(r->steps);
    oom_host_free(r->slots);
    oom_host_free(r);
}

/* ---- the requests ---- */

/* live 1: 16 sizes in turn, each freed before the next; else random slots and sizes, 512 B to
 * 64 KiB log-uniformly. The same for everybody. */
static void make_steps(struct step *steps, uint64_t live, uint64_t seed) {
    struct oom_rng rng = {seed};
    for (int i = 0; i < STEPS; i++) {
        double octave = live == 1 ? i % 16 * (7.0 / 15) : 7 * oom_rng_uniform(&rng);
        steps[i].slot = oom_rng_below(&rng, (uint32_t)live);
        steps[i].bytes = (uint32_t)(512 * exp2(octave));
    }
}

static enum oom_status make_run(uint64_t live, uint64_t seed, struct run **out) {
    struct run *r = oom_host_calloc(1, sizeof *r);
    *out = r;
    if (r == NULL) return oom_fail(OOM_HOST_NOMEM, "a run");
    r->slot_count = live;
    r->slots = oom_host_calloc(live, sizeof *r->slots);
    r->steps = oom_host_calloc(STEPS, sizeof *r->steps);
    if (r->slots == NULL || r->steps == NULL) return oom_fail(OOM_HOST_NOMEM, "a run's steps");
    make_steps(r->steps, live, seed);
    return OOM_OK;
}

static enum oom_status make_ours(struct run *r) {
    const struct oom_device_options options = {.capacity = (uint64_t)1 << 40, .threads = 1};
    OOM_TRY(oom_device_open("dry", &options, &r->device));
    return oom_allocator_create(r->device, NULL, &r->allocator);
}

/* ---- the peers ---- */

static const struct peer {
    const char *name, *library, *variable; /* library NULL: the program's own */
    const char *take, *give;
} peers[OOM_BENCH_PEERS_MAX] = {
    {"glibc", NULL, NULL, NULL, NULL},
    {"jemalloc", "libjemalloc.so.2", "OOMBENCH_JEMALLOC", "malloc", "free"},
    {"mimalloc", "libmimalloc.so.2", "OOMBENCH_MIMALLOC", "mi_malloc", "mi_free"},
};

/* Libraries stay loaded: some cannot be taken out again. */
static bool find_heap(const struct peer *peer, struct heap *heap, char *missing, size_t n) {
    if (peer->library == NULL) {
        heap->take = malloc;
        heap->give = free;
        return true;
    }
    const char *path = getenv(peer->variable);
    if (path == NULL) path = peer->library;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const char *why = library == NULL ? dlerror() : NULL;
    if (library != NULL) {
        *(void **)&heap->take = dlsym(library, peer->take);
        *(void **)&heap->give = dlsym(library, peer->give);
        if (heap->take != NULL && heap->give != NULL) return true;
        why = dlerror();
    }
    *heap = (struct heap){0};
    /* a library loaded late has little room for variables of threads */
    const char *hint = why != NULL && strstr(why, "static TLS") != NULL
                           ? "; GLIBC_TUNABLES=glibc.rtld.optional_static_tls=16384 makes room"
                           : "";
    snprintf(missing, n, "%s%s", why != NULL ? why : path, hint);
    return false;
}

static enum oom_status open_peer(const struct peer *peer, uint64_t live, uint64_t seed,
                                 struct oom_bench_subject *out) {
    struct heap heap = {0};
    *out = (struct oom_bench_subject){.name = peer->name};
    if (!find_heap(peer, &heap, out->missing, sizeof out->missing)) return OOM_OK;
    struct run *r;
    enum oom_status status = make_run(live, seed, &r);
    if (status != OOM_OK) {
        if (r != NULL) close_run(r);
        return status;
    }
    r->heap = heap;
    out->context = r;
    out->work = work_theirs;
    out->close = close_run;
    return OOM_OK;
}

static enum oom_status open_row(const struct oom_bench_row *row,
                                const struct oom_bench_settings *settings,
                                struct oom_bench_subjects *out) {
    uint64_t live = (uint64_t)row->parameters[LIVE];
    struct run *r;
    enum oom_status status = make_run(live, settings->seed, &r);
    if (status == OOM_OK) status = make_ours(r);
    if (r != NULL) {
        out->items[out->count++] =
            (struct oom_bench_subject){.context = r, .work = work_ours, .close = close_run};
    }
    for (int i = 0; status == OOM_OK && i < OOM_BENCH_PEERS_MAX; i++) {
        status = open_peer(&peers[i], live, settings->seed, &out->items[out->count]);
        if (status == OOM_OK) out->count++;
    }
    if (status == OOM_OK) return OOM_OK;
    for (int i = 0; i < out->count; i++) {
        if (out->items[i].close != NULL) out->items[i].close(out->items[i].context);
    }
    out->count = 0;
    return status;
}

static enum oom_status list_rows(const struct oom_bench_family *family,
                                 struct oom_bench_list *list) {
    (void)family;
    struct oom_bench_row row = {.unit = "pair", .quick = true, .parameters = {1}, .open = open_row};
    OOM_TRY(oom_bench_list_add(list, &row, "malloc/pair"));
    for (int live = 2; live <= 4; live++) {
        row.parameters[LIVE] = (int64_t)pow(10, live);
        row.quick = live < 4;
        OOM_TRY(oom_bench_list_add(list, &row, "malloc/random/live=1e%d", live));
    }
    return OOM_OK;
}

const struct oom_bench_family oom_bench_malloc = {
    .name = "malloc",
    .prose = "the same requests through our allocator, glibc's, jemalloc and mimalloc",
    .note = "sizes of 512 B to 64 KiB. A malloc writes headers into memory of its own; ours keeps "
            "books, with a trace, about memory of a device: the ratio says what that costs",
    .list = list_rows,
};
