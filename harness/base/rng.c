#include "harness/base/rng.h"

#include "harness/base/fingerprint.h"

#include <string.h>

uint64_t oom_seed_derive(uint64_t seed, const char *text) {
    return oom_fingerprint_of(text, strlen(text), seed);
}
