/* tree.c: red-black trees (Guibas, Sedgewick 1978), both mirror images by an index. An absent child
 * counts as black; every path from a node down to an absent child passes equally many black nodes,
 * and no red node has a red child. */
#include "harness/memory/tree.h"

static bool is_red(const struct oom_tree_node *node) {
    return node != NULL && node->red;
}

static int side_of(const struct oom_tree_node *node) {
    return node->parent->child[1] == node;
}

static void replace_child(struct oom_tree *tree, struct oom_tree_node *parent,
                          struct oom_tree_node *old, struct oom_tree_node *new) {
    if (parent == NULL)
        tree->root = new;
    else
        parent->child[parent->child[1] == old] = new;
    if (new != NULL) new->parent = parent;
}

/* node goes down to `side`; its child of the other side takes its place. */
static void rotate(struct oom_tree *tree, struct oom_tree_node *node, int side) {
    struct oom_tree_node *up = node->child[!side];
    replace_child(tree, node->parent, node, up);
    node->child[!side] = up->child[side];
    if (up->child[side] != NULL) up->child[side]->parent = node;
    up->child[side] = node;
    node->parent = up;
}

void oom_tree_link(struct oom_tree *tree, struct oom_tree_node *node, struct oom_tree_node *parent,
                   int side) {
    node->child[0] = node->child[1] = NULL;
    node->parent = parent;
    node->red = true;
    if (parent == NULL)
        tree->root = node;
    else
        parent->child[side] = node;

    while (is_red(node->parent)) { /* a red parent is not the root: there is a grandparent */
        parent = node->parent;
        struct oom_tree_node *grand = parent->parent;
        int outer = side_of(parent);
        struct oom_tree_node *uncle = grand->child[!outer];
        if (is_red(uncle)) {
            parent->red = uncle->red = false;
            grand->red = true;
            node = grand;
            continue;
        }
        if (side_of(node) != outer) {
            rotate(tree, parent, outer);
            parent = node;
        }
        parent->red = false;
        grand->red = true;
        rotate(tree, grand, !outer);
        break;
    }
    tree->root->red = false;
}

/* The paths through parent->child[side] lack one black node. */
static void mend(struct oom_tree *tree, struct oom_tree_node *parent, int side) {
    while (parent != NULL) {
        struct oom_tree_node *node = parent->child[side];
        if (is_red(node)) {
            node->red = false;
            return;
        }
        struct oom_tree_node *sibling = parent->child[!side]; /* there is one: it has black nodes */
        if (sibling->red) {
            sibling->red = false;
            parent->red = true;
            rotate(tree, parent, side);
            sibling = parent->child[!side];
        }
        if (!is_red(sibling->child[0]) && !is_red(sibling->child[1])) {
            sibling->red = true; /* both sides lack one now: go on above */
            if (parent->red) {
                parent->red = false;
                return;
            }
            node = parent;
            parent = node->parent;
            if (parent != NULL) side = side_of(node);
            continue;
        }
        if (!is_red(sibling->child[!side])) {
            sibling->child[side]->red = false;
            sibling->red = true;
            rotate(tree, sibling, !side);
            sibling = parent->child[!side];
        }
        sibling->red = parent->red;
        parent->red = false;
        sibling->child[!side]->red = false;
        rotate(tree, parent, side);
        return;
    }
}

void oom_tree_unlink(struct oom_tree *tree, struct oom_tree_node *node) {
    struct oom_tree_node *parent = node->parent;
    int side = parent != NULL && side_of(node);
    bool lost_black = !node->red;

    if (node->child[0] == NULL || node->child[1] == NULL) {
        replace_child(tree, parent, node, node->child[node->child[0] == NULL]);
    } else { /* the next in order takes its place and colour */
        struct oom_tree_node *next = node->child[1];
        while (next->child[0] != NULL) next = next->child[0];
        lost_black = !next->red;
        next->red = node->red;
        if (next == node->child[1]) {
            parent = next;
            side = 1;
        } else {
            parent = next->parent;
            side = 0;
            replace_child(tree, parent, next, next->child[1]);
            next->child[1] = node->child[1];
            next->child[1]->parent = next;
        }
        next->child[0] = node->child[0];
        next->child[0]->parent = next;
        replace_child(tree, node->parent, node, next);
    }
    if (!lost_black) return;
    if (parent != NULL)
        mend(tree, parent, side);
    else if (tree->root != NULL)
        tree->root->red = false;
}

struct oom_tree_node *oom_tree_end(const struct oom_tree *tree, int side) {
    struct oom_tree_node *node = tree->root;
    while (node != NULL && node->child[side] != NULL) node = node->child[side];
    return node;
}

struct oom_tree_node *oom_tree_step(const struct oom_tree_node *node, int side) {
    struct oom_tree_node *at = node->child[side];
    if (at != NULL) {
        while (at->child[!side] != NULL) at = at->child[!side];
        return at;
    }
    while (node->parent != NULL && side_of(node) == side) node = node->parent;
    return node->parent;
}
