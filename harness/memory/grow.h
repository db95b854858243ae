/*
 * grow.h: arrays that grow while a file is read.
 *
 * The caller owns the array (oom_host_free). NULL: the host has no memory, nothing is recorded,
 * and the old array is still there.
 */
#ifndef OOM_HARNESS_MEMORY_GROW_H
#define OOM_HARNESS_MEMORY_GROW_H

#include <stddef.h>
#include <stdint.h>

/* `array` with room for at least `need` elements of `each` bytes; *room at least doubles. */
void *oom_grown(void *array, uint64_t *room, uint64_t need, size_t each);

#endif
