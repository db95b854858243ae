/*
 * hostmem.h: host memory, counted. Every allocation the project makes on the host goes through
 * here, so that "host memory outside the arena" is a figure and not a guess.
 *
 * The caller owns what it gets and gives it back with oom_host_free. Failure is NULL, never an
 * abort; nothing is recorded, the caller says what it wanted the memory for. Thread-safe.
 */
#ifndef OOM_KERNELS_HOSTMEM_H
#define OOM_KERNELS_HOSTMEM_H

#include <stddef.h>
#include <stdint.h>

void *oom_host_alloc(size_t bytes);                /* aligned to 64, contents undefined */
void *oom_host_calloc(size_t count, size_t bytes); /* zeroed; NULL when count * bytes overflows */
void *oom_host_realloc(void *block, size_t bytes); /* on NULL the old block is still valid */
void oom_host_free(void *block);                   /* NULL is allowed */
char *oom_host_strdup(const char *text);

/* Bytes asked for and not yet freed, and their highest value since the last reset. */
uint64_t oom_host_bytes_current(void);
uint64_t oom_host_bytes_peak(void);
void oom_host_peak_reset(void);
/* Successful calls of alloc, calloc and realloc since the start. */
uint64_t oom_host_allocations(void);

/* Tests only: makes the n-th allocation from now fail (1 is the next one; 0 switches it off). */
void oom_host_fail_at(uint64_t n);

#endif
