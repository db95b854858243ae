/*
 * fingerprint.h: a 64-bit hash of a stream of bytes, for telling whether two are the same.
 *
 * The state is the caller's; nothing is allocated, nothing fails. The value does not depend on how
 * the stream was cut, nor on the machine; it is no protection against someone who wants a
 * collision.
 */
#ifndef OOM_HARNESS_BASE_FINGERPRINT_H
#define OOM_HARNESS_BASE_FINGERPRINT_H

#include <stddef.h>
#include <stdint.h>

enum { OOM_FINGERPRINT_STRIPE = 64 };

struct oom_fingerprint {
    uint64_t lanes[8];
    uint64_t bytes; /* so far */
    unsigned char pending[OOM_FINGERPRINT_STRIPE];
};

void oom_fingerprint_init(struct oom_fingerprint *state, uint64_t seed);
void oom_fingerprint_update(struct oom_fingerprint *state, const void *data, size_t bytes);
/* The value so far; the stream may go on. */
uint64_t oom_fingerprint_value(const struct oom_fingerprint *state);

/* All at once. */
uint64_t oom_fingerprint_of(const void *data, size_t bytes, uint64_t seed);

#endif
