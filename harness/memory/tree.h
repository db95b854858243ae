/*
 * tree.h: an intrusive red-black tree. The caller descends by its own order (so comparisons are
 * inlined), then links the node at the place found; this file only keeps the balance.
 *
 * A node belongs to its owner and lies in at most one tree. Nothing is allocated and nothing
 * fails; link and unlink are O(1) rotations, amortised, and a descent passes 2 log2(n + 1) nodes at
 * most.
 */
#ifndef OOM_HARNESS_MEMORY_TREE_H
#define OOM_HARNESS_MEMORY_TREE_H

#include <stdbool.h>
#include <stddef.h>

struct oom_tree_node {
    struct oom_tree_node *child[2]; /* 0: what sorts before, 1: what sorts after */
    struct oom_tree_node *parent;
    bool red;
};

struct oom_tree {
    struct oom_tree_node *root; /* NULL: empty */
};

/* parent NULL: the tree is empty. parent->child[side] must be NULL. */
void oom_tree_link(struct oom_tree *tree, struct oom_tree_node *node, struct oom_tree_node *parent,
                   int side);
void oom_tree_unlink(struct oom_tree *tree, struct oom_tree_node *node);

/* The outermost node of that side: 0 the first, 1 the last; NULL of an empty tree. */
struct oom_tree_node *oom_tree_end(const struct oom_tree *tree, int side);
/* The neighbour in order: side 1 the next, 0 the one before; NULL at the end. */
struct oom_tree_node *oom_tree_step(const struct oom_tree_node *node, int side);

#endif
