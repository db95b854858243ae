/*
 * load.c: what an allocator is made to do before and while it is measured.
 */
#include "harness/bench/load.h"

#include "kernels/hostmem.h"

#include <math.h>

static const uint64_t KIB = 1 << 10, MIB = 1 << 20;

#define K *(uint64_t)1024
const uint64_t oom_load_sizes[OOM_LOAD_SIZES] = {
    512,    1536,   4 K,    10 K,   32 K,   100 K,  300 K,  1024 K,
    1280 K, 1536 K, 2048 K, 3072 K, 4096 K, 6144 K, 8192 K, 9728 K,
};
#undef K

enum oom_status oom_load_create(const char *device, uint64_t capacity, uint64_t trace,
                                struct oom_load **out) {
    *out = NULL;
    struct oom_load *load = oom_host_calloc(1, sizeof *load);
    if (load == NULL) return oom_fail(OOM_HOST_NOMEM, "a load");
    const struct oom_device_options options = {.capacity = capacity, .threads = 1};
    struct oom_allocator_settings settings = oom_allocator_settings_default();
    settings.trace_entries = trace;
    enum oom_status status = oom_device_open(device, &options, &load->device);
    if (status == OOM_OK) status = oom_allocator_create(load->device, &settings, &load->allocator);
    if (status != OOM_OK) {
        oom_load_free(load);
        return status;
    }
    *out = load;
    return OOM_OK;
}

void oom_load_free(struct oom_load *load) {
    if (load == NULL) return;
    oom_allocator_destroy(load->allocator);
    oom_device_close(load->device);
    oom_host_free(load->slots);
    oom_host_free(load->drawn);
    oom_host_free(load);
}

static enum oom_status take(struct oom_load *load, uint64_t bytes, oom_devptr *out) {
    return oom_allocator_alloc(load->allocator, bytes, NULL, OOM_TAG_OTHER, "load", out);
}

static uint64_t device_calls(const struct oom_load *load) {
    const struct oom_allocator_stats *stats = oom_allocator_stats(load->allocator);
    return stats->num_device_alloc + stats->num_device_free;
}

/* ---- the state of the cached pairs ---- */

/* Every other block of a segment, in order of address: no two of them are neighbours. */
struct choice {
    oom_devptr *chosen;
    uint64_t count, wanted;
    uint64_t segment;
    bool last_free; /* the block before is, or will be */
};

static enum oom_status choose(const struct oom_block_view *block, void *context) {
    struct choice *c = context;
    bool follows_free = c->segment == block->segment && c->last_free;
    c->segment = block->segment;
    c->last_free = !block->allocated;
    if (!block->allocated || follows_free || c->count == c->wanted) return OOM_OK;
    c->chosen[c->count++] = block->address;
    c->last_free = true;
    return OOM_OK;
}

enum oom_status oom_load_fill(struct oom_load *load, uint64_t live, uint64_t free) {
    if (free > live)
        return oom_fail(OOM_USAGE, "free blocks lie between live ones: at most as many");
    struct choice choice = {oom_host_calloc(free + 1, sizeof *choice.chosen), 0, free, 0, false};
    if (choice.chosen == NULL) {
        return oom_fail(OOM_HOST_NOMEM, "%llu blocks", (unsigned long long)free);
    }
    enum oom_status status = OOM_OK;
    for (uint64_t i = 0; status == OOM_OK && i < live + free; i++) {
        oom_devptr block;
        status = take(load, oom_load_sizes[i % OOM_LOAD_SIZES], &block);
    }
    if (status == OOM_OK) status = oom_allocator_walk(load->allocator, choose, &choice);
    for (uint64_t i = 0; status == OOM_OK && i < choice.count; i++) {
        status = oom_allocator_free(load->allocator, choice.chosen[i]);
    }
    oom_host_free(choice.chosen);
    load->device_calls = device_calls(load);
    return status;
}

enum oom_status oom_load_pairs(struct oom_load *load, uint64_t times) {
    for (uint64_t i = 0; i < times; i++) {
        oom_devptr block;
        OOM_TRY(take(load, oom_load_sizes[load->at++ % OOM_LOAD_SIZES], &block));
        OOM_TRY(oom_allocator_free(load->allocator, block));
    }
    if (device_calls(load) == load->device_calls) return OOM_OK;
    return oom_fail(OOM_INTERNAL, "a pair missed the cache");
}

/* ---- random sizes and frees ---- */

/* Knuth's MMIX generator: the cost of drawing must be small beside what is measured. */
static uint64_t draw(struct oom_load *load, uint64_t n) {
    load->random = load->random * 6364136223846793005u + 1442695040888963407u;
    return (load->random >> 32) * n >> 32;
}

static enum oom_status replace(struct oom_load *load, uint64_t slot) {
    uint64_t bytes = load->drawn[load->at++ % OOM_LOAD_DRAWN];
    if (load->slots[slot] != 0) OOM_TRY(oom_allocator_free(load->allocator, load->slots[slot]));
    load->slots[slot] = 0;
    return take(load, bytes, &load->slots[slot]);
}

enum oom_status oom_load_scatter(struct oom_load *load, uint64_t live, uint64_t largest,
                                 uint64_t seed) {
    load->random = seed;
    load->slots = oom_host_calloc(live, sizeof *load->slots);
    load->drawn = oom_host_calloc(OOM_LOAD_DRAWN, sizeof *load->drawn);
    if (load->slots == NULL || load->drawn == NULL) {
        return oom_fail(OOM_HOST_NOMEM, "%llu slots", (unsigned long long)live);
    }
    load->slot_count = live;
    double octaves = log2((double)largest / 512);
    for (int i = 0; i < OOM_LOAD_DRAWN; i++) {
        load->drawn[i] =
            (uint64_t)(512 * exp2(octaves * ((double)draw(load, 1 << 20) / (1 << 20))));
    }
    for (uint64_t i = 0; i < live; i++) OOM_TRY(replace(load, i));
    /* a steady state: every block has been replaced about once */
    OOM_TRY(oom_load_churn(load, live));
    load->device_calls = device_calls(load);
    return OOM_OK;
}

enum oom_status oom_load_churn(struct oom_load *load, uint64_t times) {
    for (uint64_t i = 0; i < times; i++) OOM_TRY(replace(load, draw(load, load->slot_count)));
    return OOM_OK;
}

/* ---- past the cache ---- */

enum oom_status oom_load_uncached(struct oom_load *load, uint64_t times) {
    for (uint64_t i = 0; i < times; i++) {
        oom_devptr block;
        OOM_TRY(take(load, 20 * MIB + 2 * MIB * (i % 4) + KIB, &block));
        OOM_TRY(oom_allocator_free(load->allocator, block));
        OOM_TRY(oom_allocator_release_cached(load->allocator));
    }
    return OOM_OK;
}
