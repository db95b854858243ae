#include "harness/memory/address-map.h"

#include "kernels/hostmem.h"

#include <inttypes.h>

enum { ROOM_MIN = 64 };

static uint64_t mix(uint64_t x) { /* the finalizer of MurmurHash3, public domain */
    x = (x ^ x >> 33) * UINT64_C(0xff51afd7ed558ccd);
    x = (x ^ x >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
    return x ^ x >> 33;
}

static uint64_t home(const struct oom_address_map *map, uint64_t key) {
    return mix(key ^ mix((uint64_t)(uintptr_t)map->slots)) & (map->room - 1);
}

/* The slot that holds key, or the empty one where it would go. */
static uint64_t find(const struct oom_address_map *map, uint64_t key) {
    uint64_t i = home(map, key);
    while (map->slots[i].value != 0 && map->slots[i].key != key) i = (i + 1) & (map->room - 1);
    return i;
}

void oom_address_map_free(struct oom_address_map *map) {
    oom_host_free(map->slots);
    *map = (struct oom_address_map){0};
}

bool oom_address_map_get(const struct oom_address_map *map, uint64_t key, uint64_t *value) {
    if (map->count == 0) return false;
    const struct oom_address_slot *slot = &map->slots[find(map, key)];
    if (slot->value == 0) return false;
    *value = slot->value - 1;
    return true;
}

static enum oom_status grow(struct oom_address_map *map) {
    struct oom_address_map larger = {.room = map->room > 0 ? map->room * 2 : ROOM_MIN,
                                     .count = map->count};
    larger.slots = oom_host_calloc(larger.room, sizeof *larger.slots);
    if (larger.slots == NULL)
        return oom_fail(OOM_HOST_NOMEM, "no host memory for a table of %" PRIu64 " addresses",
                        larger.room);
    for (uint64_t i = 0; i < map->room; i++) {
        if (map->slots[i].value != 0)
            larger.slots[find(&larger, map->slots[i].key)] = map->slots[i];
    }
    oom_host_free(map->slots);
    *map = larger;
    return OOM_OK;
}

enum oom_status oom_address_map_put(struct oom_address_map *map, uint64_t key, uint64_t value) {
    if (map->count >= map->room / 2) OOM_TRY(grow(map));
    struct oom_address_slot *slot = &map->slots[find(map, key)];
    map->count += slot->value == 0;
    *slot = (struct oom_address_slot){key, value + 1};
    return OOM_OK;
}

/* Those behind move up, so that no search ends early at the hole. */
void oom_address_map_remove(struct oom_address_map *map, uint64_t key) {
    if (map->count == 0) return;
    uint64_t hole = find(map, key), mask = map->room - 1;
    if (map->slots[hole].value == 0) return;
    for (uint64_t i = (hole + 1) & mask; map->slots[i].value != 0; i = (i + 1) & mask) {
        uint64_t from_home = (i - home(map, map->slots[i].key)) & mask;
        if (from_home < ((i - hole) & mask)) continue;
        map->slots[hole] = map->slots[i];
        hole = i;
    }
    map->slots[hole] = (struct oom_address_slot){0};
    map->count--;
}
