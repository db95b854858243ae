/* replay-regions.c: segments and mapped runs by address: a tree while events come and go, a sorted
 * array of what was there in the end. */
#include "harness/memory/replay-internal.h"

#include "kernels/hostmem.h"

/* ---- settled ---- */

void oom_replay_regions_free(struct oom_replay_regions *regions) {
    oom_host_free(regions->items);
    *regions = (struct oom_replay_regions){0};
}

struct oom_replay_region *oom_replay_regions_at(const struct oom_replay_regions *regions,
                                                uint64_t address) {
    uint64_t low = 0, high = regions->count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (regions->items[middle].address <= address)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0) return NULL;
    struct oom_replay_region *region = &regions->items[low - 1];
    return address - region->address < region->bytes ? region : NULL;
}

/* ---- changing ---- */

struct node {
    struct oom_tree_node node;
    struct oom_replay_region region;
};

static struct node *node_of(struct oom_tree_node *node) {
    return (struct node *)node; /* the first member */
}

static struct node *neighbour(struct node *node, int side) {
    return node_of(oom_tree_step(&node->node, side));
}

void oom_region_tree_free(struct oom_region_tree *tree) {
    struct oom_tree_node *node;
    while ((node = oom_tree_end(&tree->tree, 0)) != NULL) {
        oom_tree_unlink(&tree->tree, node);
        oom_host_free(node);
    }
    tree->count = 0;
}

enum oom_status oom_region_tree_list(const struct oom_region_tree *tree,
                                     struct oom_replay_regions *out) {
    out->count = 0;
    out->items = oom_host_alloc((tree->count + 1) * sizeof *out->items);
    if (out->items == NULL) {
        return oom_fail(OOM_HOST_NOMEM, "replay: no host memory for %llu segments",
                        (oom_ull)tree->count);
    }
    for (struct oom_tree_node *node = oom_tree_end(&tree->tree, 0); node != NULL;
         node = oom_tree_step(node, 1)) {
        out->items[out->count++] = node_of(node)->region;
    }
    return OOM_OK;
}

/* The last one at or below the address, or NULL. */
static struct node *below(const struct oom_region_tree *tree, uint64_t address) {
    struct oom_tree_node *at = tree->tree.root, *found = NULL;
    while (at != NULL) {
        bool reaches = node_of(at)->region.address <= address;
        if (reaches) found = at;
        at = at->child[reaches];
    }
    return node_of(found);
}

static struct node *node_at(const struct oom_region_tree *tree, uint64_t address) {
    struct node *node = below(tree, address);
    bool holds = node != NULL && address - node->region.address < node->region.bytes;
    return holds ? node : NULL;
}

struct oom_replay_region *oom_region_tree_at(const struct oom_region_tree *tree, uint64_t address) {
    struct node *node = node_at(tree, address);
    return node != NULL ? &node->region : NULL;
}

static enum oom_status insert(struct oom_region_tree *tree, const struct oom_replay_region *region,
                              struct node **out) {
    struct oom_tree_node *parent = NULL, *at = tree->tree.root;
    int side = 0;
    struct node *node = oom_host_alloc(sizeof *node);
    if (node == NULL) return oom_fail(OOM_HOST_NOMEM, "replay: no host memory for a segment");
    node->region = *region;
    while (at != NULL) {
        parent = at;
        side = region->address > node_of(at)->region.address;
        at = at->child[side];
    }
    oom_tree_link(&tree->tree, &node->node, parent, side);
    tree->count++;
    *out = node;
    return OOM_OK;
}

static void erase(struct oom_region_tree *tree, struct node *node) {
    oom_tree_unlink(&tree->tree, &node->node);
    oom_host_free(node);
    tree->count--;
}

/* Two runs of one address range, as far as one can see. One of which it is not known of which pool
 * it is may lie between two that are not alike: it stays alone until that is `settled`, by what
 * there is to know or for good. */
static bool belong_together(const struct oom_replay_region *a, const struct oom_replay_region *b,
                            bool settled) {
    bool known = a->size != OOM_REPLAY_UNKNOWN && b->size != OOM_REPLAY_UNKNOWN;
    return a->expandable && b->expandable && a->stream == b->stream &&
           oom_pool_same(a->pool, b->pool) && (known ? a->size == b->size : settled);
}

static bool join_next(struct oom_region_tree *tree, struct node *node, bool settled) {
    struct node *next = neighbour(node, 1);
    struct oom_replay_region *front = &node->region;
    if (next == NULL || front->address + front->bytes != next->region.address) return false;
    if (!belong_together(front, &next->region, settled)) return false;
    front->bytes += next->region.bytes;
    if (front->size == OOM_REPLAY_UNKNOWN) front->size = next->region.size;
    erase(tree, next);
    return true;
}

static bool reaches_into(const struct node *node, uint64_t address, uint64_t bytes) {
    return node->region.address <= address || node->region.address - address < bytes;
}

void oom_region_tree_settle(struct oom_region_tree *tree, uint64_t address, uint64_t bytes,
                            enum oom_replay_size size) {
    struct node *node = node_at(tree, address);
    for (; node != NULL && reaches_into(node, address, bytes); node = neighbour(node, 1)) {
        if (!node->region.expandable || node->region.size != OOM_REPLAY_UNKNOWN) continue;
        node->region.size = size;
        (void)join_next(tree, node, false);
        struct node *before = neighbour(node, 0);
        if (before != NULL && join_next(tree, before, false)) node = before;
    }
}

void oom_region_tree_settle_rest(struct oom_region_tree *tree) {
    struct node *node = node_of(oom_tree_end(&tree->tree, 0));
    for (; node != NULL; node = neighbour(node, 1)) {
        while (join_next(tree, node, true)) {}
    }
}

enum oom_status oom_region_tree_add(struct oom_region_tree *tree,
                                    const struct oom_replay_region *region, bool *clash) {
    struct node *before = below(tree, region->address), *node;
    struct oom_tree_node *after =
        before != NULL ? oom_tree_step(&before->node, 1) : oom_tree_end(&tree->tree, 0);
    *clash = region->bytes == 0 || region->address + region->bytes < region->address ||
             (before != NULL && region->address - before->region.address < before->region.bytes) ||
             (after != NULL && node_of(after)->region.address - region->address < region->bytes);
    if (*clash) return OOM_OK;
    OOM_TRY(insert(tree, region, &node));
    if (!region->expandable) return OOM_OK;
    (void)join_next(tree, node, false);
    if (before != NULL) (void)join_next(tree, before, false);
    return OOM_OK;
}

/* A part of a run, with `front` bytes before it and `back` behind. */
static enum oom_status cut_out(struct oom_region_tree *tree, struct node *node, uint64_t front,
                               uint64_t back) {
    struct oom_replay_region rest = node->region;
    rest.address += rest.bytes - back;
    rest.bytes = back;
    if (front == 0) {
        node->region = rest;
        return OOM_OK;
    }
    if (back > 0) {
        struct node *behind;
        OOM_TRY(insert(tree, &rest, &behind));
    }
    node->region.bytes = front;
    return OOM_OK;
}

enum oom_status oom_region_tree_take(struct oom_region_tree *tree,
                                     const struct oom_replay_region *region, bool *clash) {
    if (region->size != OOM_REPLAY_UNKNOWN) {
        oom_region_tree_settle(tree, region->address, region->bytes, region->size);
    }
    struct node *node = node_at(tree, region->address);
    *clash = true;
    if (node == NULL || node->region.expandable != region->expandable) return OOM_OK;
    uint64_t front = region->address - node->region.address;
    if (region->bytes == 0 || region->bytes > node->region.bytes - front) return OOM_OK;
    uint64_t back = node->region.bytes - front - region->bytes;
    if (!region->expandable && (front > 0 || back > 0)) return OOM_OK;
    *clash = false;
    if (front > 0 || back > 0) return cut_out(tree, node, front, back);
    erase(tree, node);
    return OOM_OK;
}
