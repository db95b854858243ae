#include "harness/memory/block.h"

#include "kernels/hostmem.h"

enum { SLAB_BLOCKS = 256, FIRST_BITS = 8 };

struct oom_block_slab {
    struct oom_block_slab *next;
    struct oom_block blocks[SLAB_BLOCKS];
};

enum oom_status oom_block_store_reserve(struct oom_block_store *store, uint64_t count) {
    while (store->unused_count < count) {
        struct oom_block_slab *slab = oom_host_alloc(sizeof *slab);
        if (slab == NULL) {
            return oom_fail(OOM_HOST_NOMEM, "allocator: no host memory for %d more block records",
                            SLAB_BLOCKS);
        }
        slab->next = store->slabs;
        store->slabs = slab;
        for (int i = SLAB_BLOCKS - 1; i >= 0; i--) oom_block_give(store, &slab->blocks[i]);
    }
    return OOM_OK;
}

struct oom_block *oom_block_take(struct oom_block_store *store) {
    struct oom_block *block = store->unused;
    store->unused = block->next;
    store->unused_count--;
    return block;
}

void oom_block_give(struct oom_block_store *store, struct oom_block *block) {
    block->next = store->unused;
    store->unused = block;
    store->unused_count++;
}

void oom_block_store_free(struct oom_block_store *store) {
    while (store->slabs != NULL) {
        struct oom_block_slab *slab = store->slabs;
        store->slabs = slab->next;
        oom_host_free(slab);
    }
    store->unused = NULL;
    store->unused_count = 0;
}

struct oom_block *oom_block_cut(struct oom_block_store *store, struct oom_block *block,
                                uint64_t size) {
    struct oom_block *rest = oom_block_take(store);
    *rest = *block;
    rest->address += size;
    rest->bytes -= size;
    rest->prev = block;
    if (rest->next != NULL) rest->next->prev = rest;
    block->next = rest;
    block->bytes = size;
    return rest;
}

void oom_block_absorb_next(struct oom_block_store *store, struct oom_block *front) {
    struct oom_block *gone = front->next;
    front->bytes += gone->bytes;
    front->next = gone->next;
    if (front->next != NULL) front->next->prev = front;
    oom_block_give(store, gone);
}

/* Addresses are multiples of 512; Fibonacci hashing spreads what is left (Knuth, TAOCP 3, 6.4). */
static struct oom_block **bucket_of(const struct oom_live_table *table, uint64_t address) {
    return &table->buckets[((address >> 9) * 0x9e3779b97f4a7c15u) >> (64 - table->bits)];
}

enum oom_status oom_live_table_init(struct oom_live_table *table) {
    table->bits = FIRST_BITS;
    table->count = 0;
    table->buckets = oom_host_calloc((size_t)1 << FIRST_BITS, sizeof(struct oom_block *));
    if (table->buckets != NULL) return OOM_OK;
    return oom_fail(OOM_HOST_NOMEM, "allocator: no host memory for the table of live blocks");
}

void oom_live_table_free(struct oom_live_table *table) {
    oom_host_free(table->buckets);
    *table = (struct oom_live_table){0};
}

static void grow(struct oom_live_table *table) {
    struct oom_live_table larger = {.bits = table->bits + 1};
    larger.buckets = oom_host_calloc((size_t)1 << larger.bits, sizeof(struct oom_block *));
    if (larger.buckets == NULL) return; /* longer chains, the same answers */
    for (uint64_t i = 0; i < (uint64_t)1 << table->bits; i++) {
        for (struct oom_block *block = table->buckets[i], *next; block != NULL; block = next) {
            struct oom_block **bucket = bucket_of(&larger, block->address);
            next = block->same_hash;
            block->same_hash = *bucket;
            *bucket = block;
        }
    }
    larger.count = table->count;
    oom_host_free(table->buckets);
    *table = larger;
}

void oom_live_table_add(struct oom_live_table *table, struct oom_block *block) {
    if (table->count >> table->bits != 0) grow(table);
    struct oom_block **bucket = bucket_of(table, block->address);
    block->same_hash = *bucket;
    *bucket = block;
    table->count++;
}

struct oom_block *oom_live_table_find(const struct oom_live_table *table, uint64_t address) {
    struct oom_block *block = *bucket_of(table, address);
    while (block != NULL && block->address != address) block = block->same_hash;
    return block;
}

struct oom_block *oom_live_table_take(struct oom_live_table *table, uint64_t address) {
    struct oom_block **link = bucket_of(table, address);
    while (*link != NULL && (*link)->address != address) link = &(*link)->same_hash;
    struct oom_block *block = *link;
    if (block == NULL) return NULL;
    *link = block->same_hash;
    table->count--;
    return block;
}
