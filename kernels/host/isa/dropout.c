/*
 * dropout.c: y = keep ? x / (1 - p) : 0, with keep from Philox 4x32-10 (elementwise.h).
 *   Word e % 4 of counter (e / 4, sample, step, layer), key (seed low, seed high), decides element
 * e.
 *
 * 8 bytes per f32 element, but bound by the words: four counters a lane of 64 bits, twice a step.
 * Words of a chunk of a row are made first, in the first-level cache; threads divide chunks.
 */
#include "kernels/host/isa/vector-math.h"
#include "kernels/host/kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum {
    CHUNK = 1024,                  /* elements */
    AT_ONCE = 2,                   /* vectors of counters */
    STEP = AT_ONCE * OOM_VD_LANES, /* counters a step; a divisor of CHUNK / 4 */
};

/* The product of the low halves of the lanes. */
OOM_FUNCTION oom_vul low_product(oom_vul a, oom_vul b) {
#if OOM_VECTOR_BYTES == 64
    return (oom_vul)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif OOM_VECTOR_BYTES == 32
    return (oom_vul)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__x86_64__)
    return (oom_vul)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}

/* Ten rounds on lanes of 64 bits whose upper halves may hold anything. */
struct lanes {
    oom_vul c0, c1, c2, c3;
};

OOM_FUNCTION void philox_round(struct lanes *s, uint32_t k0, uint32_t k1) {
    const oom_vul m0 = (oom_vul){0} + OOM_PHILOX_MULTIPLY_0;
    const oom_vul m1 = (oom_vul){0} + OOM_PHILOX_MULTIPLY_1;
    oom_vul p0 = low_product(s->c0, m0), p1 = low_product(s->c2, m1);
    s->c0 = (p1 >> 32) ^ s->c1 ^ (uint64_t)k0;
    s->c1 = p1;
    s->c2 = (p0 >> 32) ^ s->c3 ^ (uint64_t)k1;
    s->c3 = p0;
}

/* Words of counters first, first + 1, ...: STEP of them, 4 words each, in order. */
OOM_FUNCTION void philox_step(uint32_t *words, uint32_t first, const uint32_t rest[3],
                              const uint32_t key[2]) {
    struct lanes s[AT_ONCE];
    oom_vul lane = {0};
    for (int i = 0; i < OOM_VD_LANES; i++) lane[i] = (uint64_t)i;
    OOM_UNROLL
    for (int v = 0; v < AT_ONCE; v++) {
        s[v].c0 = lane + (uint64_t)first + (uint64_t)(v * OOM_VD_LANES);
        s[v].c1 = (oom_vul){0} + rest[0];
        s[v].c2 = (oom_vul){0} + rest[1];
        s[v].c3 = (oom_vul){0} + rest[2];
    }
    uint32_t k0 = key[0], k1 = key[1];
    for (int i = 0; i < OOM_PHILOX_ROUNDS; i++) {
        OOM_UNROLL
        for (int v = 0; v < AT_ONCE; v++) philox_round(&s[v], k0, k1);
        k0 += OOM_PHILOX_KEY_STEP_0;
        k1 += OOM_PHILOX_KEY_STEP_1;
    }
    OOM_UNROLL
    for (int v = 0; v < AT_ONCE; v++) {
        oom_vul low = (s[v].c0 & 0xffffffffu) | (s[v].c1 << 32);
        oom_vul high = (s[v].c2 & 0xffffffffu) | (s[v].c3 << 32);
        for (int i = 0; i < OOM_VD_LANES; i++) {
            uint64_t pair[2] = {low[i], high[i]};
            memcpy(words + 4 * (v * OOM_VD_LANES + i), pair, sizeof pair);
        }
    }
}

/* Masks of REAL_LANES elements: words >= threshold. Flipping the top bit orders unsigned words as
 * signed ones. */
OOM_FUNCTION oom_vi keep_vf(const uint32_t *words, uint32_t threshold) {
    oom_vu w;
    memcpy(&w, words, sizeof w);
    return (oom_vi)(w ^ 0x80000000u) >= (int32_t)(threshold ^ 0x80000000u);
}

OOM_FUNCTION oom_vl keep_vd(const uint32_t *words, uint32_t threshold) {
    typedef uint32_t half __attribute__((vector_size(OOM_VECTOR_BYTES / 2)));
    half w;
    memcpy(&w, words, sizeof w);
    return __builtin_convertvector(w, oom_vl) >= (int64_t)threshold;
}

#define OOM_BODY "kernels/host/isa/dropout-body.h"
#include "kernels/host/isa/each-dtype.h"

void OOM_HOST_KERNEL(dropout)(const void *args, const struct oom_host_part *part) {
    const struct oom_dropout_args *a = args;
    const int64_t chunks = (a->elements + CHUNK - 1) / CHUNK;
    const uint32_t key[2] = {(uint32_t)a->seed, (uint32_t)(a->seed >> 32)};
    const uint32_t threshold = oom_dropout_threshold(a->p);
    const int64_t *samples = OOM_HOST_PTR(const int64_t, a->samples);
    uint32_t words[CHUNK];
    int64_t i, end;
    oom_host_share(a->batch * chunks, 1, part, &i, &end);
    for (; i < end; i++) {
        int64_t row = i / chunks, at = i % chunks * CHUNK;
        int64_t n = a->elements - at < CHUNK ? a->elements - at : CHUNK;
        const uint32_t rest[3] = {(uint32_t)samples[row], a->step, a->layer};
        for (int64_t w = 0; w < n; w += 4 * STEP) {
            philox_step(words + w, (uint32_t)((at + w) / 4), rest, key);
        }
        OOM_BY_DTYPE(a->dtype, drop, a, row * a->elements + at, n, words, threshold);
    }
}
