/*
 * Eight lanes of 64 bits; a stripe of 64 bytes gives each lane one little-endian word w:
 *     lane = rotl((lane ^ w) * K, 29) + C
 * Each step is one-to-one in the lane and in the word, so two streams that differ in one word never
 * meet in that lane while the rest is equal. The lanes hide the latency of the product: the loop
 * reads memory once and is limited by one product per eight bytes. The tail is padded with zeros;
 * the number of bytes enters the end, so padding is never mistaken for data.
 */
#include "harness/base/fingerprint.h"

#include "harness/base/rng.h"

#include <string.h>

#define LANE_FACTOR 0xd6e8feb86659fd93u
#define LANE_ADDEND 0xa0761d6478bd642fu

static uint64_t word_load(const unsigned char *at) {
    uint64_t word;
    memcpy(&word, at, sizeof word);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

static uint64_t lane_step(uint64_t lane, const unsigned char *at) {
    uint64_t product = (lane ^ word_load(at)) * LANE_FACTOR;
    return (product << 29 | product >> 35) + LANE_ADDEND;
}

/* The lanes are variables, so that they stay in registers. */
static void stripes_add(uint64_t lanes[8], const unsigned char *at, size_t stripes) {
    uint64_t a = lanes[0], b = lanes[1], c = lanes[2], d = lanes[3];
    uint64_t e = lanes[4], f = lanes[5], g = lanes[6], h = lanes[7];
    for (; stripes > 0; stripes--, at += OOM_FINGERPRINT_STRIPE) {
        a = lane_step(a, at);
        b = lane_step(b, at + 8);
        c = lane_step(c, at + 16);
        d = lane_step(d, at + 24);
        e = lane_step(e, at + 32);
        f = lane_step(f, at + 40);
        g = lane_step(g, at + 48);
        h = lane_step(h, at + 56);
    }
    const uint64_t after[8] = {a, b, c, d, e, f, g, h};
    memcpy(lanes, after, sizeof after);
}

void oom_fingerprint_init(struct oom_fingerprint *state, uint64_t seed) {
    struct oom_rng rng = {seed};
    *state = (struct oom_fingerprint){0};
    for (int i = 0; i < 8; i++) state->lanes[i] = oom_rng_next(&rng);
}

void oom_fingerprint_update(struct oom_fingerprint *state, const void *data, size_t bytes) {
    if (bytes == 0) return; /* data may be NULL then */
    const unsigned char *at = data;
    size_t pending = state->bytes % OOM_FINGERPRINT_STRIPE;
    state->bytes += bytes;
    if (pending > 0) {
        size_t room = OOM_FINGERPRINT_STRIPE - pending;
        size_t taken = bytes < room ? bytes : room;
        memcpy(state->pending + pending, at, taken);
        if (taken < room) return;
        stripes_add(state->lanes, state->pending, 1);
        at += taken;
        bytes -= taken;
    }
    stripes_add(state->lanes, at, bytes / OOM_FINGERPRINT_STRIPE);
    size_t whole = bytes - bytes % OOM_FINGERPRINT_STRIPE;
    if (bytes > whole) memcpy(state->pending, at + whole, bytes - whole);
}

uint64_t oom_fingerprint_value(const struct oom_fingerprint *state) {
    uint64_t lanes[8];
    memcpy(lanes, state->lanes, sizeof lanes);
    size_t pending = state->bytes % OOM_FINGERPRINT_STRIPE;
    if (pending > 0) {
        unsigned char last[OOM_FINGERPRINT_STRIPE] = {0};
        memcpy(last, state->pending, pending);
        stripes_add(lanes, last, 1);
    }
    struct oom_rng rng = {state->bytes};
    for (int i = 0; i < 8; i++) rng.state = oom_rng_next(&rng) ^ lanes[i];
    return oom_rng_next(&rng);
}

uint64_t oom_fingerprint_of(const void *data, size_t bytes, uint64_t seed) {
    struct oom_fingerprint state;
    oom_fingerprint_init(&state, seed);
    oom_fingerprint_update(&state, data, bytes);
    return oom_fingerprint_value(&state);
}
