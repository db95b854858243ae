#include "harness/base/fingerprint.h"

#include "harness/base/rng.h"
#include "kernels/testing.h"

#include <string.h>

void fingerprint_test(void);

/* Naively, after the formula at the head of fingerprint.c. */
static uint64_t naive(const unsigned char *data, size_t bytes, uint64_t seed) {
    struct oom_rng rng = {seed};
    uint64_t lanes[8];
    for (int i = 0; i < 8; i++) lanes[i] = oom_rng_next(&rng);
    for (size_t word = 0; word * 8 < (bytes + 63) / 64 * 64; word++) {
        uint64_t w = 0;
        for (size_t k = 8; k-- > 0;) w = w * 256 + (word * 8 + k < bytes ? data[word * 8 + k] : 0);
        uint64_t x = (lanes[word % 8] ^ w) * 0xd6e8feb86659fd93u;
        lanes[word % 8] = ((x << 29) | (x >> 35)) + 0xa0761d6478bd642fu;
    }
    rng.state = bytes;
    for (int i = 0; i < 8; i++) rng.state = oom_rng_next(&rng) ^ lanes[i];
    return oom_rng_next(&rng);
}

static void against_naive(const unsigned char *data) {
    int differ = 0;
    TEST("fingerprint: as computed naively, for lengths 0 to 300");
    for (size_t n = 0; n <= 300; n++) differ += oom_fingerprint_of(data, n, n) != naive(data, n, n);
    CHECK_EQ(differ, 0);
}

static void cut_anyhow(const unsigned char *data, size_t bytes) {
    struct oom_rng rng = {2};
    uint64_t whole = oom_fingerprint_of(data, bytes, 3);
    int differ = 0;
    TEST("fingerprint: however the stream is cut, and asked in between");
    for (int round = 0; round < 300; round++) {
        struct oom_fingerprint state;
        oom_fingerprint_init(&state, 3);
        for (size_t at = 0; at < bytes;) {
            size_t part = oom_rng_below(&rng, 150);
            if (part > bytes - at) part = bytes - at;
            oom_fingerprint_update(&state, data + at, part);
            at += part;
            if (round % 3 == 0) oom_fingerprint_value(&state);
        }
        differ += oom_fingerprint_value(&state) != whole;
    }
    CHECK_EQ(differ, 0);
}

static void every_bit_counts(unsigned char *data) {
    enum { BYTES = 200 };
    uint64_t whole = oom_fingerprint_of(data, BYTES, 0);
    int same = 0, flipped = 0;
    TEST("fingerprint: each of 1600 bits changes about half of the value");
    for (int bit = 0; bit < BYTES * 8; bit++) {
        data[bit / 8] ^= (unsigned char)(1 << bit % 8);
        uint64_t other = oom_fingerprint_of(data, BYTES, 0);
        data[bit / 8] ^= (unsigned char)(1 << bit % 8);
        same += other == whole;
        flipped += __builtin_popcountll(other ^ whole);
    }
    CHECK_EQ(same, 0);
    CHECK(flipped > BYTES * 8 * 31 && flipped < BYTES * 8 * 33); /* 32 on average; 10 sigma */
    TEST("fingerprint: length, order and seed count");
    unsigned char zeros[130] = {0};
    CHECK(oom_fingerprint_of(zeros, 0, 0) != oom_fingerprint_of(zeros, 1, 0));
    CHECK(oom_fingerprint_of(zeros, 64, 0) != oom_fingerprint_of(zeros, 128, 0));
    CHECK(oom_fingerprint_of(zeros, 63, 0) != oom_fingerprint_of(zeros, 64, 0));
    CHECK(oom_fingerprint_of(zeros, 64, 0) != oom_fingerprint_of(zeros, 64, 1));
    zeros[0] = 1;
    uint64_t first = oom_fingerprint_of(zeros, 130, 0);
    zeros[0] = 0, zeros[64] = 1;
    CHECK(first != oom_fingerprint_of(zeros, 130, 0));
    CHECK(oom_fingerprint_of(NULL, 0, 0) == oom_fingerprint_of(zeros, 0, 0));
}

void fingerprint_test(void) {
    unsigned char data[1000];
    struct oom_rng rng = {1};
    for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)oom_rng_next(&rng);
    against_naive(data);
    cut_anyhow(data, sizeof data);
    every_bit_counts(data);
}
