#include "kernels/hostmem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* A block is [header | bytes]; the header is as large as the alignment, so both are aligned. */
enum { ALIGNMENT = 64 };

struct header {
    size_t bytes;
};

static _Atomic uint64_t bytes_current;
static _Atomic uint64_t bytes_peak;
static _Atomic uint64_t allocations;
static _Atomic uint64_t fail_countdown;

static struct header *header_of(void *block) {
    return (struct header *)((char *)block - ALIGNMENT);
}

static void count(size_t bytes) {
    uint64_t now = atomic_fetch_add(&bytes_current, bytes) + bytes;
    uint64_t peak = atomic_load(&bytes_peak);
    while (now > peak && !atomic_compare_exchange_weak(&bytes_peak, &peak, now)) {}
}

static int must_fail(void) {
    uint64_t left = atomic_load(&fail_countdown);
    while (left != 0) {
        if (atomic_compare_exchange_weak(&fail_countdown, &left, left - 1)) return left == 1;
    }
    return 0;
}

void *oom_host_alloc(size_t bytes) {
    if (must_fail() || bytes > SIZE_MAX - 2 * ALIGNMENT) return NULL;
    size_t whole = (bytes + 2 * ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    struct header *header = aligned_alloc(ALIGNMENT, whole);
    if (header == NULL) return NULL;
    header->bytes = bytes;
    count(bytes);
    atomic_fetch_add(&allocations, 1);
    return (char *)header + ALIGNMENT;
}

void *oom_host_calloc(size_t number, size_t bytes) {
    size_t whole;
    if (__builtin_mul_overflow(number, bytes, &whole)) return NULL;
    void *block = oom_host_alloc(whole);
    if (block != NULL) memset(block, 0, whole);
    return block;
}

void *oom_host_realloc(void *block, size_t bytes) {
    void *grown = oom_host_alloc(bytes);
    if (grown == NULL || block == NULL) return grown;
    size_t old = header_of(block)->bytes;
    memcpy(grown, block, old < bytes ? old : bytes);
    oom_host_free(block);
    return grown;
}

void oom_host_free(void *block) {
    if (block == NULL) return;
    struct header *header = header_of(block);
    atomic_fetch_sub(&bytes_current, header->bytes);
    free(header);
}

char *oom_host_strdup(const char *text) {
    size_t bytes = strlen(text) + 1;
    char *copy = oom_host_alloc(bytes);
    if (copy != NULL) memcpy(copy, text, bytes);
    return copy;
}

uint64_t oom_host_bytes_current(void) {
    return atomic_load(&bytes_current);
}

uint64_t oom_host_bytes_peak(void) {
    return atomic_load(&bytes_peak);
}

uint64_t oom_host_allocations(void) {
    return atomic_load(&allocations);
}

void oom_host_peak_reset(void) {
    atomic_store(&bytes_peak, atomic_load(&bytes_current));
}

void oom_host_fail_at(uint64_t n) {
    atomic_store(&fail_countdown, n);
}
