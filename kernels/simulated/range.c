/*
 * Treaps (Seidel, Aragon 1996) whose nodes also know the longest range below them, which makes
 * first fit a single descent.
 */
#include "kernels/simulated/range.h"

#include "kernels/hostmem.h"

enum { SLAB_RANGES = 100 };

struct oom_range_slab {
    struct oom_range_slab *next;
    struct oom_range ranges[SLAB_RANGES];
};

/* ---- pool ---- */

static uint32_t next_priority(struct oom_range_pool *pool) {
    uint32_t x = pool->random != 0 ? pool->random : 2463534242u; /* xorshift, Marsaglia 2003 */
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return pool->random = x;
}

static bool add_slab(struct oom_range_pool *pool) {
    struct oom_range_slab *slab = oom_host_alloc(sizeof *slab);
    if (slab == NULL) return false;
    slab->next = pool->slabs;
    pool->slabs = slab;
    for (int i = SLAB_RANGES - 1; i >= 0; i--) oom_range_put(pool, &slab->ranges[i]);
    return true;
}

struct oom_range *oom_range_get(struct oom_range_pool *pool) {
    if (pool->unused == NULL && !add_slab(pool)) return NULL;
    struct oom_range *range = pool->unused;
    pool->unused = range->left;
    *range = (struct oom_range){.priority = next_priority(pool)};
    return range;
}

void oom_range_put(struct oom_range_pool *pool, struct oom_range *range) {
    range->left = pool->unused;
    pool->unused = range;
}

void oom_range_pool_free(struct oom_range_pool *pool) {
    while (pool->slabs != NULL) {
        struct oom_range_slab *next = pool->slabs->next;
        oom_host_free(pool->slabs);
        pool->slabs = next;
    }
    pool->unused = NULL;
}

/* ---- trees ---- */

static _Thread_local uint64_t visits;

uint64_t oom_range_visits(void) {
    return visits;
}

static uint64_t longest_of(const struct oom_range *root) {
    return root != NULL ? root->longest : 0;
}

static void update(struct oom_range *node) {
    uint64_t below_left = longest_of(node->left), below_right = longest_of(node->right);
    uint64_t below = below_left > below_right ? below_left : below_right;
    node->longest = node->length > below ? node->length : below;
}

static void split(struct oom_range *root, uint64_t start, struct oom_range **before,
                  struct oom_range **after) {
    visits++;
    if (root == NULL) {
        *before = *after = NULL;
        return;
    }
    if (root->start < start) {
        split(root->right, start, &root->right, after);
        *before = root;
    } else {
        split(root->left, start, before, &root->left);
        *after = root;
    }
    update(root);
}

static struct oom_range *join(struct oom_range *before, struct oom_range *after) {
    visits++;
    if (before == NULL) return after;
    if (after == NULL) return before;
    struct oom_range *top = before->priority > after->priority ? before : after;
    if (top == before) {
        top->right = join(before->right, after);
    } else {
        top->left = join(before, after->left);
    }
    update(top);
    return top;
}

void oom_range_insert(struct oom_range **root, struct oom_range *range) {
    struct oom_range *top = *root;
    visits++;
    if (top == NULL || range->priority > top->priority) {
        split(top, range->start, &range->left, &range->right);
        *root = top = range;
    } else {
        oom_range_insert(range->start < top->start ? &top->left : &top->right, range);
    }
    update(top);
}

void oom_range_remove(struct oom_range **root, struct oom_range *range) {
    struct oom_range *top = *root;
    visits++;
    if (top == range) {
        *root = join(top->left, top->right);
        range->left = range->right = NULL;
        return;
    }
    oom_range_remove(range->start < top->start ? &top->left : &top->right, range);
    update(top);
}

struct oom_range *oom_range_floor(struct oom_range *root, uint64_t start) {
    struct oom_range *best = NULL;
    while (root != NULL) {
        visits++;
        if (root->start <= start) best = root;
        root = root->start <= start ? root->right : root->left;
    }
    return best;
}

struct oom_range *oom_range_above(struct oom_range *root, uint64_t start) {
    struct oom_range *best = NULL;
    while (root != NULL) {
        visits++;
        if (root->start > start) best = root;
        root = root->start > start ? root->left : root->right;
    }
    return best;
}

struct oom_range *oom_range_find(struct oom_range *root, uint64_t start) {
    struct oom_range *range = oom_range_floor(root, start);
    return range != NULL && range->start == start ? range : NULL;
}

struct oom_range *oom_range_at(struct oom_range *root, uint64_t address) {
    struct oom_range *range = oom_range_floor(root, address);
    return range != NULL && address - range->start < range->length ? range : NULL;
}

/* Changes extent in place: the order stays, as holes never pass one another. */
static void resize(struct oom_range *root, struct oom_range *range, uint64_t start,
                   uint64_t length) {
    visits++;
    if (root == range) {
        range->start = start;
        range->length = length;
    } else {
        resize(range->start < root->start ? root->left : root->right, range, start, length);
    }
    update(root);
}

/* ---- holes ---- */

static struct oom_range *first_fit(struct oom_range *root, uint64_t length) {
    if (longest_of(root) < length) return NULL;
    for (;;) {
        visits++;
        if (longest_of(root->left) >= length) {
            root = root->left;
        } else if (root->length >= length) {
            return root;
        } else {
            root = root->right;
        }
    }
}

static enum oom_status take_front(struct oom_holes *holes, struct oom_range *hole, uint64_t length,
                                  struct oom_range **out) {
    if (hole->length == length) {
        oom_range_remove(&holes->root, hole);
        *out = hole;
        return OOM_OK;
    }
    struct oom_range *taken = oom_range_get(holes->pool);
    if (taken == NULL) {
        return oom_fail(OOM_HOST_NOMEM, "no host memory for the record of a range of %llu",
                        (unsigned long long)length);
    }
    taken->start = hole->start;
    taken->length = length;
    resize(holes->root, hole, hole->start + length, hole->length - length);
    *out = taken;
    return OOM_OK;
}

enum oom_status oom_holes_take(struct oom_holes *holes, uint64_t length, struct oom_range **out) {
    struct oom_range *hole = first_fit(holes->root, length);
    return hole != NULL ? take_front(holes, hole, length, out) : OOM_NOMEM;
}

enum oom_status oom_holes_take_lowest(struct oom_holes *holes, uint64_t most,
                                      struct oom_range **out) {
    struct oom_range *hole = first_fit(holes->root, 1);
    if (hole == NULL) return OOM_NOMEM;
    return take_front(holes, hole, hole->length < most ? hole->length : most, out);
}

static bool may_merge(const struct oom_holes *holes, uint64_t at) {
    return holes->boundary == 0 || at % holes->boundary != 0;
}

struct oom_range *oom_holes_give(struct oom_holes *holes, struct oom_range *range) {
    struct oom_range *before = oom_range_floor(holes->root, range->start);
    struct oom_range *after = oom_range_above(holes->root, range->start);
    uint64_t end = range->start + range->length;
    if (after != NULL && after->start == end && may_merge(holes, end)) {
        range->length += after->length;
        oom_range_remove(&holes->root, after);
        oom_range_put(holes->pool, after);
    }
    if (before != NULL && before->start + before->length == range->start &&
        may_merge(holes, range->start)) {
        resize(holes->root, before, before->start, before->length + range->length);
        oom_range_put(holes->pool, range);
        return before;
    }
    oom_range_insert(&holes->root, range);
    return range;
}
