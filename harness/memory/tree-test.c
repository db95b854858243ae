/* The tree keeps order and balance under any script; the free set keeps PyTorch's order. */
#include "harness/memory/free-set.h"
#include "harness/memory/tree.h"

#include "harness/base/rng.h"
#include "kernels/testing.h"

void tree_test(void);

enum { ITEMS = 700 };

struct item {
    struct oom_tree_node node;
    int key;
    bool in;
};

/* The number of black nodes on every path down, or -1 where the rules are broken. */
static int black_height(const struct oom_tree_node *node) {
    if (node == NULL) return 0;
    int heights[2];
    for (int side = 0; side < 2; side++) {
        const struct oom_tree_node *child = node->child[side];
        heights[side] = black_height(child);
        if (heights[side] < 0) return -1;
        if (child == NULL) continue;
        int order = ((const struct item *)child)->key - ((const struct item *)node)->key;
        if (child->parent != node || (order > 0) != (side == 1)) return -1;
        if (node->red && child->red) return -1;
    }
    return heights[0] == heights[1] ? heights[0] + !node->red : -1;
}

static void insert(struct oom_tree *tree, struct item *item) {
    struct oom_tree_node *parent = NULL, *at = tree->root;
    int side = 0;
    while (at != NULL) {
        parent = at;
        side = item->key > ((struct item *)at)->key;
        at = at->child[side];
    }
    oom_tree_link(tree, &item->node, parent, side);
    item->in = true;
}

static bool same_order(const struct oom_tree *tree, const struct item *items, int side) {
    const struct oom_tree_node *at = oom_tree_end(tree, !side);
    for (int i = 0; i < ITEMS; i++) {
        const struct item *item = &items[side == 1 ? i : ITEMS - 1 - i];
        if (!item->in) continue;
        if (at != &item->node) return false;
        at = oom_tree_step(at, side);
    }
    return at == NULL;
}

static void trees(void) {
    static struct item items[ITEMS];
    struct oom_tree tree = {0};
    struct oom_rng rng = {7};
    TEST("tree: balance and order after each of 20000 random steps, both directions");
    int bad = 0;
    for (int i = 0; i < ITEMS; i++) items[i].key = i;
    for (int step = 0; step < 20000; step++) {
        /* fills, empties, fills */
        struct item *item = &items[oom_rng_below(&rng, ITEMS)];
        bool filling = oom_rng_below(&rng, 10) < (step / 4000 % 2 == 0 ? 8u : 2u);
        if (filling && !item->in) insert(&tree, item);
        if (!filling && item->in) {
            oom_tree_unlink(&tree, &item->node);
            item->in = false;
        }
        bad += black_height(tree.root) < 0;
        if (step % 50 == 0) bad += !same_order(&tree, items, 1) + !same_order(&tree, items, 0);
    }
    CHECK_EQ(bad, 0);
    for (int i = 0; i < ITEMS; i++) {
        if (items[i].in) oom_tree_unlink(&tree, &items[i].node);
        items[i].in = false;
        bad += black_height(tree.root) < 0;
    }
    CHECK_EQ(bad, 0);
    CHECK(tree.root == NULL && oom_tree_end(&tree, 0) == NULL);
}

/* ---- the free set against a sorted array ---- */

enum { BLOCKS = 300 };

static bool sorts_before(const struct oom_block *a, const struct oom_block *b) {
    if (a->stream != b->stream) return a->stream < b->stream;
    if (a->bytes != b->bytes) return a->bytes < b->bytes;
    if (a->counter != b->counter) return a->counter < b->counter;
    return a->address < b->address;
}

/* The least member that `after` (NULL: any) sorts before, within the conditions. */
static struct oom_block *least(struct oom_block *blocks, const bool *in, uint64_t bytes, int stream,
                               const struct oom_block *after) {
    struct oom_block *best = NULL;
    for (int i = 0; i < BLOCKS; i++) {
        struct oom_block *b = &blocks[i];
        if (!in[i] || b->bytes < bytes || (stream >= 0 && b->stream != stream)) continue;
        if (after != NULL && !sorts_before(after, b)) continue;
        if (best == NULL || sorts_before(b, best)) best = b;
    }
    return best;
}

static uint64_t draw_bytes(struct oom_rng *rng) {
    uint32_t octave = oom_rng_below(rng, 45);
    if (oom_rng_below(rng, 3) == 0) return 512u * (1 + oom_rng_below(rng, 40)); /* ties */
    return (((uint64_t)512 << octave) + (oom_rng_next(rng) & (((uint64_t)512 << octave) - 1))) /
           512 * 512;
}

static void free_sets(void) {
    static struct oom_block blocks[BLOCKS];
    static bool in[BLOCKS];
    struct oom_free_set set = {0};
    struct oom_rng rng = {9};
    int bad = 0;
    TEST("free set: order, search and steps as in a list searched from end to end");
    CHECK_OK(oom_free_set_reserve(&set, 3));
    for (int step = 0; step < 4000; step++) {
        int i = (int)oom_rng_below(&rng, BLOCKS);
        struct oom_block *b = &blocks[i];
        if (in[i]) {
            oom_free_set_remove(&set, b);
        } else {
            *b = (struct oom_block){.bytes = draw_bytes(&rng),
                                    .address = 512u * (1 + (uint64_t)i),
                                    .counter = oom_rng_below(&rng, 4),
                                    .stream = (uint16_t)oom_rng_below(&rng, 3)};
            oom_free_set_insert(&set, b);
        }
        in[i] = !in[i];
        uint64_t bytes = draw_bytes(&rng);
        uint16_t stream = (uint16_t)oom_rng_below(&rng, 3);
        bad += oom_free_set_find(&set, stream, bytes) != least(blocks, in, bytes, stream, NULL);
        bad += oom_free_set_first(&set) != least(blocks, in, 0, -1, NULL);
        if (!in[i]) continue;
        struct oom_block *next = oom_free_set_next(&set, b);
        bad += next != least(blocks, in, 0, -1, b);
        if (next != NULL) bad += oom_free_set_prev(&set, next) != b;
        struct oom_block *last = oom_free_set_last(&set, stream);
        if (last != NULL) bad += last->stream != stream || least(blocks, in, 0, stream, last);
        if (last == NULL) bad += least(blocks, in, 0, stream, NULL) != NULL;
    }
    CHECK_EQ(bad, 0);
    oom_free_set_free(&set);
}

void tree_test(void) {
    trees();
    free_sets();
}
