#include "harness/verify/canary.h"

#include "harness/base/rng.h"

#include <string.h>

const uint64_t oom_canary_bytes[OOM_CANARIES] = {700, 300000, 1310720};

enum { CHUNK = 8192 }; /* bytes made or read at once */

/* The content of a chunk depends on seed, block and place. */
static void pattern(uint64_t seed, int block, uint64_t at, uint8_t *out) {
    struct oom_rng rng = {seed ^ ((uint64_t)(block + 1) << 48) ^ at};
    for (size_t i = 0; i < CHUNK; i += 8) {
        uint64_t word = oom_rng_next(&rng);
        memcpy(out + i, &word, 8);
    }
}

static uint64_t chunk_bytes(int block, uint64_t at) {
    uint64_t left = oom_canary_bytes[block] - at;
    return left < CHUNK ? left : CHUNK;
}

/* A device that computes nothing keeps nothing either. */
static bool computes(const struct oom_canaries *c) {
    struct oom_device_properties properties;
    c->device->api->properties(c->device, &properties);
    return properties.computes;
}

static enum oom_status plant_one(struct oom_canaries *c, int block) {
    uint8_t bytes[CHUNK];
    OOM_TRY(oom_allocator_alloc(c->allocator, oom_canary_bytes[block], NULL, OOM_TAG_OTHER,
                                "canary", &c->blocks[block]));
    if (!computes(c)) return OOM_OK;
    for (uint64_t at = 0; at < oom_canary_bytes[block]; at += CHUNK) {
        pattern(c->seed, block, at, bytes);
        OOM_TRY(c->device->api->upload(c->device, c->blocks[block] + at, bytes,
                                       chunk_bytes(block, at), NULL));
    }
    return c->device->api->stream_sync(c->device, NULL);
}

enum oom_status oom_canaries_plant(struct oom_device *device, struct oom_allocator *allocator,
                                   uint64_t seed, struct oom_canaries *out) {
    *out = (struct oom_canaries){.device = device, .allocator = allocator, .seed = seed};
    for (int i = 0; i < OOM_CANARIES; i++) {
        enum oom_status status = plant_one(out, i);
        if (status != OOM_OK) {
            oom_canaries_free(out);
            return status;
        }
    }
    return OOM_OK;
}

static enum oom_status check_one(const struct oom_canaries *c, int block, uint64_t *damaged) {
    uint8_t expected[CHUNK], found[CHUNK];
    for (uint64_t at = 0; at < oom_canary_bytes[block]; at += CHUNK) {
        uint64_t bytes = chunk_bytes(block, at);
        pattern(c->seed, block, at, expected);
        OOM_TRY(c->device->api->download(c->device, found, c->blocks[block] + at, bytes, NULL));
        if (memcmp(found, expected, bytes) == 0) continue;
        for (uint64_t i = 0; i < bytes; i++) {
            if (found[i] == expected[i]) continue;
            if ((*damaged)++ > 0) continue;
            oom_fail(OOM_INTERNAL, "canary %d changed at byte %llu: 0x%02x, was 0x%02x", block,
                     (unsigned long long)(at + i), found[i], expected[i]);
        }
    }
    return OOM_OK;
}

enum oom_status oom_canaries_check(const struct oom_canaries *c, uint64_t *damaged) {
    *damaged = 0;
    for (int i = 0; computes(c) && i < OOM_CANARIES; i++) {
        if (c->blocks[i] != 0) OOM_TRY(check_one(c, i, damaged));
    }
    return OOM_OK;
}

enum oom_status oom_canaries_free(struct oom_canaries *c) {
    enum oom_status first = OOM_OK;
    for (int i = 0; i < OOM_CANARIES; i++) {
        if (c->blocks[i] == 0) continue;
        enum oom_status status = oom_allocator_free(c->allocator, c->blocks[i]);
        if (first == OOM_OK) first = status;
        c->blocks[i] = 0;
    }
    return first;
}
