#include "harness/memory/free-set.h"

#include "kernels/hostmem.h"

#include <string.h>

/* Sizes are counted in granules of 512 bytes. Below 2048 granules (all of a small pool) each size
 * has a bin, so that a bin's tree holds equals only; from there on every octave has 64, up to 2^61
 * bytes. A second bit map says which words of the first have any bit. */
enum {
    GRANULE_SHIFT = 9,
    EXACT_SHIFT = 11,
    EXACT = 1 << EXACT_SHIFT,
    OCTAVE_SHIFT = 6,
    OCTAVE_BINS = 1 << OCTAVE_SHIFT,
    BINS = EXACT + OCTAVE_BINS * (61 - GRANULE_SHIFT - EXACT_SHIFT),
    WORDS = BINS / 64,
    SUMMARY = (WORDS + 63) / 64
};

struct oom_free_bins {
    uint64_t summary[SUMMARY];
    uint64_t used[WORDS];
    struct oom_tree bin[BINS];
};

static struct oom_block *block_of(struct oom_tree_node *node) {
    return (struct oom_block *)node; /* the first member */
}

static unsigned bin_of(uint64_t bytes) {
    uint64_t granules = bytes >> GRANULE_SHIFT;
    if (granules < EXACT) return (unsigned)granules;
    unsigned octave = 63u - (unsigned)__builtin_clzll(granules);
    return EXACT + (octave - EXACT_SHIFT) * OCTAVE_BINS +
           ((unsigned)(granules >> (octave - OCTAVE_SHIFT)) & (OCTAVE_BINS - 1));
}

static void mark(struct oom_free_bins *bins, unsigned bin) {
    unsigned word = bin / 64;
    bins->used[word] |= (uint64_t)1 << bin % 64;
    bins->summary[word / 64] |= (uint64_t)1 << word % 64;
}

static void unmark(struct oom_free_bins *bins, unsigned bin) {
    unsigned word = bin / 64;
    bins->used[word] &= ~((uint64_t)1 << bin % 64);
    if (bins->used[word] == 0) bins->summary[word / 64] &= ~((uint64_t)1 << word % 64);
}

/* The first bit at or above `at`, or `count` of them: there is none. */
static unsigned bit_from(const uint64_t *map, unsigned at, unsigned count) {
    if (at >= count) return count;
    unsigned word = at / 64;
    uint64_t bits = map[word] & (~(uint64_t)0 << at % 64);
    while (bits == 0 && ++word < (count + 63) / 64) bits = map[word];
    return bits == 0 ? count : word * 64 + (unsigned)__builtin_ctzll(bits);
}

/* The last bit below `end`, or `none`. */
static unsigned bit_below(const uint64_t *map, unsigned end, unsigned none) {
    if (end == 0) return none;
    unsigned word = (end - 1) / 64;
    uint64_t bits = map[word] & (~(uint64_t)0 >> (63 - (end - 1) % 64));
    while (bits == 0 && word > 0) bits = map[--word];
    return bits == 0 ? none : word * 64 + 63u - (unsigned)__builtin_clzll(bits);
}

/* The nearest bin in use at or above (below) `bin`; BINS: none. */
static unsigned used_from(const struct oom_free_bins *bins, unsigned bin) {
    if (bin >= BINS) return BINS;
    uint64_t bits = bins->used[bin / 64] & (~(uint64_t)0 << bin % 64);
    if (bits != 0) return bin / 64 * 64 + (unsigned)__builtin_ctzll(bits);
    unsigned word = bit_from(bins->summary, bin / 64 + 1, WORDS);
    return word == WORDS ? (unsigned)BINS : word * 64 + (unsigned)__builtin_ctzll(bins->used[word]);
}

static unsigned used_below(const struct oom_free_bins *bins, unsigned end) {
    if (end % 64 != 0) {
        uint64_t bits = bins->used[end / 64] & (((uint64_t)1 << end % 64) - 1);
        if (bits != 0) return end / 64 * 64 + 63u - (unsigned)__builtin_clzll(bits);
    }
    unsigned word = bit_below(bins->summary, end / 64, WORDS);
    return word == WORDS ? (unsigned)BINS
                         : word * 64 + 63u - (unsigned)__builtin_clzll(bins->used[word]);
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
    mark(bins, bin);
    set->count++;
}

void oom_free_set_remove(struct oom_free_set *set, struct oom_block *block) {
    struct oom_free_bins *bins = set->streams[block->stream];
    unsigned bin = bin_of(block->bytes);
    oom_tree_unlink(&bins->bin[bin], &block->node);
    if (bins->bin[bin].root == NULL) unmark(bins, bin);
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
