/*
 * rng.h: splitmix64 (Steele, Lea, Flood 2014), for everything on the host that is drawn.
 *
 * The state is the caller's; nothing fails. The same seed gives the same numbers everywhere.
 */
#ifndef OOM_HARNESS_BASE_RNG_H
#define OOM_HARNESS_BASE_RNG_H

#include <stdint.h>

struct oom_rng {
    uint64_t state; /* the seed, at the beginning */
};

static inline uint64_t oom_rng_next(struct oom_rng *rng) {
    uint64_t z = rng->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* In [0, 1), a multiple of 2^-53. */
static inline double oom_rng_uniform(struct oom_rng *rng) {
    return (double)(oom_rng_next(rng) >> 11) * 0x1p-53;
}

/* floor(n * u), in 0 .. n - 1; n > 0. */
static inline uint32_t oom_rng_below(struct oom_rng *rng, uint32_t n) {
    return (uint32_t)((double)n * oom_rng_uniform(rng));
}

/* A seed for one purpose, from the run's seed and the purpose's name ("large_batch/weights"). */
uint64_t oom_seed_derive(uint64_t seed, const char *text);

#endif
