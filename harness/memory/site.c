#include "harness/memory/site.h"

#include "kernels/hostmem.h"

#include <string.h>

enum { FIRST_CAPACITY = 64, SHARED_SITE = 1 };

static const char *const shared_name = "(one of too many site names)";

/* Multiplies eight bytes at a time into the state; only spreads names over slots. */
static uint32_t hash_of(const char *name, size_t length) {
    uint64_t state = length, word;
    while (length >= sizeof word) {
        memcpy(&word, name, sizeof word);
        state = (state ^ word) * 0x9e3779b97f4a7c15u;
        state ^= state >> 32;
        name += sizeof word;
        length -= sizeof word;
    }
    word = 0;
    memcpy(&word, name, length);
    state = (state ^ word) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(state >> 32);
}

/* The slot that holds the name, or the empty one where it belongs. */
static uint32_t *slot_of(const struct oom_site_table *table, const char *name, size_t length) {
    uint32_t mask = 2 * table->capacity - 1;
    uint32_t at = hash_of(name, length) & mask;
    while (table->slots[at] != 0) {
        const char *held = table->names[table->slots[at] - 1];
        if (memcmp(held, name, length) == 0 && held[length] == 0) break;
        at = (at + 1) & mask;
    }
    return &table->slots[at];
}

static enum oom_status no_memory(void) {
    return oom_fail(OOM_HOST_NOMEM, "allocator: no host memory for the names of sites");
}

static enum oom_status grow(struct oom_site_table *table, uint32_t capacity) {
    struct oom_site_table larger = {.capacity = capacity, .count = table->count};
    larger.names = oom_host_calloc(capacity, sizeof *larger.names);
    larger.slots = oom_host_calloc(2 * (size_t)capacity, sizeof *larger.slots);
    if (larger.names == NULL || larger.slots == NULL) {
        oom_host_free(larger.names);
        oom_host_free(larger.slots);
        return no_memory();
    }
    for (uint32_t i = 0; i < table->count; i++) {
        larger.names[i] = table->names[i];
        *slot_of(&larger, larger.names[i], strlen(larger.names[i])) = i + 1;
    }
    oom_host_free(table->names);
    oom_host_free(table->slots);
    *table = larger;
    return OOM_OK;
}

enum oom_status oom_site_table_init(struct oom_site_table *table) {
    uint32_t site;
    *table = (struct oom_site_table){0};
    enum oom_status status = grow(table, FIRST_CAPACITY);
    if (status == OOM_OK) status = oom_site_intern(table, "", &site);
    if (status == OOM_OK) status = oom_site_intern(table, shared_name, &site);
    if (status != OOM_OK) oom_site_table_free(table);
    return status;
}

void oom_site_table_free(struct oom_site_table *table) {
    for (uint32_t i = 0; i < table->count; i++) oom_host_free(table->names[i]);
    oom_host_free(table->names);
    oom_host_free(table->slots);
    *table = (struct oom_site_table){0};
}

enum oom_status oom_site_intern(struct oom_site_table *table, const char *name, uint32_t *out) {
    if (name == NULL) name = "";
    size_t length = strnlen(name, OOM_SITE_BYTES - 1);
    uint32_t *slot = slot_of(table, name, length);
    if (*slot != 0) {
        *out = *slot - 1;
        return OOM_OK;
    }
    if (table->count >= OOM_SITE_LIMIT) {
        *out = SHARED_SITE;
        return OOM_OK;
    }
    if (table->count == table->capacity) {
        OOM_TRY(grow(table, 2 * table->capacity));
        slot = slot_of(table, name, length);
    }
    /* OOM_SITE_BYTES or less, padded so that memcmp of any name stays inside */
    char *copy = oom_host_calloc(1, OOM_SITE_BYTES);
    if (copy == NULL) return no_memory();
    memcpy(copy, name, length);
    *out = table->count;
    table->names[table->count++] = copy;
    *slot = *out + 1;
    return OOM_OK;
}
