#include "harness/memory/free-set.h"

#include "kernels/hostmem.h"

#include <string.h>

/* Sizes are counted in granules of 512 bytes. Bins 0..31 hold one size each; from 32 granules on
 * every octave has 32 bins, up to 2^61 bytes. */
enum { GRANULE_SHIFT = 9, OCTAVE_BINS = 32, OCTAVE_SHIFT = 5, WORDS = 24, BINS = WORDS * 64 };

struct oom_free_bins {
    uint64_t used[WORDS];
    struct oom_tree bin[BINS];
};

static struct oom_block *block_of(struct oom_tree_node *node) {
    return (struct oom_block *)node; /* the first member */
}

static unsigned bin_of(uint64_t bytes) {
    uint64_t granules = bytes >> GRANULE_SHIFT;
    if (granules < OCTAVE_BINS) return (unsigned)granules;
    unsigned octave = 63u - (unsigned)__builtin_clzll(granules);
    return (octave - OCTAVE_SHIFT + 1) * OCTAVE_BINS +
           ((unsigned)(granules >> (octave - OCTAVE_SHIFT)) & (OCTAVE_BINS - 1));
}

/* The nearest bin in use at or above (below) `bin`; BINS or more: none. */
static unsigned used_from(const struct oom_free_bins *bins, unsigned bin) {
    if (bin >= BINS) return BINS;
    unsigned word = bin / 64;
    uint64_t bits = bins->used[word] & (~(uint64_t)0 << bin % 64);
    while (bits == 0 && ++word < WORDS) bits = bins->used[word];
    return bits == 0 ? (unsigned)BINS : word * 64 + (unsigned)__builtin_ctzll(bits);
}

static unsigned used_below(const struct oom_free_bins *bins, unsigned end) {
    for (unsigned word = WORDS; word-- > 0;) {
        if (word * 64 >= end) continue;
        uint64_t bits = bins->used[word];
        if (end - word * 64 < 64) bits &= ((uint64_t)1 << (end - word * 64)) - 1;
        if (bits != 0) return word * 64 + 63u - (unsigned)__builtin_clzll(bits);
    }
    return BINS;
}

enum oom_status oom_free_set_reserve(struct oom_free_set *set, uint32_t count) {
    if (count <= set->stream_count) return OOM_OK;
    struct oom_free_bins **streams = oom_host_realloc(set->streams, count * sizeof *streams);
    if (streams == NULL) goto fail;
    set->streams = streams;
    while (set->stream_count < count) {
        struct oom_free_bins *bins = oom_host_calloc(1, sizeof *bins);
        if (bins == NULL) goto fail;
        set->streams[set->stream_count++] = bins;
    }
    return OOM_OK;
fail:
    return oom_fail(OOM_HOST_NOMEM, "allocator: no host memory for the free set of a stream");
}

void oom_free_set_free(struct oom_free_set *set) {
    for (uint32_t i = 0; i < set->stream_count; i++) oom_host_free(set->streams[i]);
    oom_host_free(set->streams);
    *set = (struct oom_free_set){0};
}

static bool older(const struct oom_block *a, const struct oom_block *b) {
    if (a->counter != b->counter) return a->counter < b->counter;
    return a->address < b->address;
}

void oom_free_set_insert(struct oom_free_set *set, struct oom_block *block) {
    struct oom_free_bins *bins = set->streams[block->stream];
    unsigned bin = bin_of(block->bytes);
    struct oom_tree_node *parent = NULL, *at = bins->bin[bin].root;
    int side = 0;
    while (at != NULL) {
        const struct oom_block *other = block_of(at);
        parent = at;
        side = block->bytes > other->bytes; /* a value, not a jump: nobody could predict it */
        if (block->bytes == other->bytes) side = older(other, block);
        at = at->child[side];
    }
    oom_tree_link(&bins->bin[bin], &block->node, parent, side);
    bins->used[bin / 64] |= (uint64_t)1 << bin % 64;
    set->count++;
}

void oom_free_set_remove(struct oom_free_set *set, struct oom_block *block) {
    struct oom_free_bins *bins = set->streams[block->stream];
    unsigned bin = bin_of(block->bytes);
    oom_tree_unlink(&bins->bin[bin], &block->node);
    if (bins->bin[bin].root == NULL) bins->used[bin / 64] &= ~((uint64_t)1 << bin % 64);
    set->count--;
}

/* The outermost block of the nearest bin in use: from `bin` upward, or below it. */
static struct oom_block *first_from(const struct oom_free_bins *bins, unsigned bin) {
    unsigned found = used_from(bins, bin);
    return found >= BINS ? NULL : block_of(oom_tree_end(&bins->bin[found], 0));
}

static struct oom_block *last_below(const struct oom_free_bins *bins, unsigned end) {
    unsigned found = used_below(bins, end);
    return found >= BINS ? NULL : block_of(oom_tree_end(&bins->bin[found], 1));
}

struct oom_block *oom_free_set_find(const struct oom_free_set *set, uint16_t stream,
                                    uint64_t bytes) {
    const struct oom_free_bins *bins = set->streams[stream];
    unsigned bin = bin_of(bytes);
    struct oom_tree_node *found = NULL, *at = bins->bin[bin].root;
    while (at != NULL) {
        bool fits = block_of(at)->bytes >= bytes;
        if (fits) found = at;
        at = at->child[!fits];
    }
    return found != NULL ? block_of(found) : first_from(bins, bin + 1);
}

struct oom_block *oom_free_set_last(const struct oom_free_set *set, uint16_t stream) {
    return last_below(set->streams[stream], BINS);
}

struct oom_block *oom_free_set_first(const struct oom_free_set *set) {
    struct oom_block *first = NULL;
    for (uint32_t i = 0; i < set->stream_count && first == NULL; i++) {
        first = first_from(set->streams[i], 0);
    }
    return first;
}

struct oom_block *oom_free_set_next(const struct oom_free_set *set, const struct oom_block *block) {
    struct oom_tree_node *node = oom_tree_step(&block->node, 1);
    if (node != NULL) return block_of(node);
    struct oom_block *next = first_from(set->streams[block->stream], bin_of(block->bytes) + 1);
    for (uint32_t i = block->stream + 1u; i < set->stream_count && next == NULL; i++) {
        next = first_from(set->streams[i], 0);
    }
    return next;
}

struct oom_block *oom_free_set_prev(const struct oom_free_set *set, const struct oom_block *block) {
    struct oom_tree_node *node = oom_tree_step(&block->node, 0);
    if (node != NULL) return block_of(node);
    struct oom_block *prev = last_below(set->streams[block->stream], bin_of(block->bytes));
    for (uint32_t i = block->stream; i-- > 0 && prev == NULL;) {
        prev = last_below(set->streams[i], BINS);
    }
    return prev;
}
