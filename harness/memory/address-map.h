/*
 * address-map.h: numbers by address, for readers that pair frees with allocations.
 *
 * The map owns its table until oom_address_map_free; zero-initialised is empty. Where the table
 * lies seeds its hash, so that no file can be made to fill one corner of it. OOM_HOST_NOMEM: the
 * map is as before.
 */
#ifndef OOM_HARNESS_MEMORY_ADDRESS_MAP_H
#define OOM_HARNESS_MEMORY_ADDRESS_MAP_H

#include "kernels/status.h"

#include <stdbool.h>
#include <stdint.h>

struct oom_address_slot {
    uint64_t key, value; /* value + 1; 0: empty */
};

struct oom_address_map {
    struct oom_address_slot *slots;
    uint64_t room, count; /* room: a power of two, or 0 */
};

void oom_address_map_free(struct oom_address_map *map);
bool oom_address_map_get(const struct oom_address_map *map, uint64_t key, uint64_t *value);
/* Replaces what was there. value < UINT64_MAX. */
enum oom_status oom_address_map_put(struct oom_address_map *map, uint64_t key, uint64_t value);
void oom_address_map_remove(struct oom_address_map *map, uint64_t key);

#endif
