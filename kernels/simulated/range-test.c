/* Sets of holes against a naive map of cells: which cells are free, and first fit by looking. */
#include "kernels/simulated/range.h"
#include "kernels/hostmem.h"
#include "kernels/testing.h"

#include <string.h>

void simulated_range_test(void);

enum { CELLS = 600, LIVE = 200, STEPS = 20000 };

struct naive {
    bool taken[CELLS];
    uint64_t boundary;
};

static int first_cell(const struct naive *naive, int length) {
    for (int at = 0; at + length <= CELLS; at++) {
        int run = 0;
        while (run < length && !naive->taken[at + run]) run++;
        uint64_t last = (uint64_t)(at + length - 1);
        bool apart =
            naive->boundary != 0 && (uint64_t)at / naive->boundary != last / naive->boundary;
        if (run == length && !apart) return at;
    }
    return -1;
}

static uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u; /* Numerical Recipes' generator */
    return *state >> 8;
}

/* Holes as the naive map shows them: in order, none touching another except at a boundary. */
static bool same_holes(const struct oom_holes *holes, const struct naive *naive) {
    const struct oom_range *hole = oom_range_floor(holes->root, 0);
    if (hole == NULL) hole = oom_range_above(holes->root, 0);
    for (uint64_t at = 0; at < CELLS;) {
        uint64_t end = at;
        while (end < CELLS && !naive->taken[end] &&
               (end == at || naive->boundary == 0 || end % naive->boundary != 0)) {
            end++;
        }
        if (end == at) {
            at++;
            continue;
        }
        if (hole == NULL || hole->start != at || hole->length != end - at) return false;
        hole = oom_range_above(holes->root, hole->start);
        at = end;
    }
    return hole == NULL;
}

static void give_all(struct oom_holes *holes, uint64_t boundary) {
    for (uint64_t at = 0; at < CELLS; at += boundary != 0 ? boundary : CELLS) {
        struct oom_range *range = oom_range_get(holes->pool);
        range->start = at;
        range->length = boundary != 0 ? boundary : CELLS;
        oom_holes_give(holes, range);
    }
}

static void check_random(uint64_t boundary, uint32_t seed) {
    TEST("holes: %d random steps against a naive map, boundary %llu, seed %u", STEPS,
         (unsigned long long)boundary, seed);
    struct oom_range_pool pool = {.random = seed};
    struct oom_holes holes = {.pool = &pool, .boundary = boundary};
    struct naive naive = {.boundary = boundary};
    struct oom_range *live[LIVE];
    int count = 0, refused = 0;
    bool fine = true;
    uint32_t state = seed;
    uint64_t before = oom_host_bytes_current();
    give_all(&holes, boundary);
    for (int step = 0; step < STEPS; step++) {
        int length = 1 + (int)(next_random(&state) % (step / 1000 % 2 == 0 ? 4 : 30));
        struct oom_range *range = NULL;
        if (count < LIVE && next_random(&state) % 5 < 3) {
            int at = first_cell(&naive, length);
            enum oom_status status = oom_holes_take(&holes, (uint64_t)length, &range);
            fine = fine && status == (at >= 0 ? OOM_OK : OOM_NOMEM);
            refused += at < 0;
            if (range == NULL) continue;
            fine = fine && range->start == (uint64_t)at && range->length == (uint64_t)length;
            memset(&naive.taken[range->start], 1, (size_t)length);
            live[count++] = range;
        } else if (count > 0) {
            uint32_t i = next_random(&state) % (uint32_t)count;
            memset(&naive.taken[live[i]->start], 0, live[i]->length);
            struct oom_range *hole = oom_holes_give(&holes, live[i]);
            fine = fine && hole == oom_range_find(holes.root, hole->start);
            live[i] = live[--count];
        }
        if (step % 16 == 0) fine = fine && same_holes(&holes, &naive);
    }
    CHECK(fine);
    CHECK(refused > 10);
    while (count > 0) oom_holes_give(&holes, live[--count]);
    memset(naive.taken, 0, sizeof naive.taken);
    CHECK(same_holes(&holes, &naive));
    oom_range_pool_free(&pool);
    CHECK_EQ(oom_host_bytes_current(), before);
}

static void check_lowest(void) {
    TEST("holes: the lowest, as much as it has");
    struct oom_range_pool pool = {0};
    struct oom_holes holes = {.pool = &pool};
    struct oom_range *a, *b, *c, *range;
    give_all(&holes, 0);
    CHECK_OK(oom_holes_take(&holes, 3, &a));
    CHECK_OK(oom_holes_take(&holes, 1, &b));
    CHECK_OK(oom_holes_take(&holes, 5, &c));
    oom_holes_give(&holes, a);
    CHECK_OK(oom_holes_take_lowest(&holes, 100, &range));
    CHECK_EQ(range->start, 0);
    CHECK_EQ(range->length, 3);
    CHECK_OK(oom_holes_take_lowest(&holes, 100, &range));
    CHECK_EQ(range->start, 9);
    CHECK_EQ(range->length, 100);
    CHECK_OK(oom_holes_take_lowest(&holes, CELLS, &range));
    CHECK_EQ(range->length, CELLS - 109);
    CHECK_EQ(oom_holes_take_lowest(&holes, 1, &range), OOM_NOMEM);
    CHECK_EQ(oom_holes_take(&holes, 1, &range), OOM_NOMEM);
    oom_range_pool_free(&pool);
}

static void check_no_memory(void) {
    TEST("holes: without host memory nothing changes");
    struct oom_range_pool pool = {0};
    struct oom_holes holes = {.pool = &pool};
    struct oom_range *range = NULL;
    oom_host_fail_at(1);
    CHECK(oom_range_get(&pool) == NULL);
    give_all(&holes, 0);
    enum oom_status status = OOM_OK;
    oom_host_fail_at(1);
    int taken = 0;
    while (status == OOM_OK && taken < CELLS) {
        status = oom_holes_take(&holes, 1, &range);
        taken += status == OOM_OK;
    }
    oom_host_fail_at(0);
    CHECK_EQ(status, OOM_HOST_NOMEM);
    CHECK_EQ(range->start, taken - 1);
    CHECK_OK(oom_holes_take(&holes, 1, &range));
    CHECK_EQ(range->start, taken);
    oom_range_pool_free(&pool);
}

void simulated_range_test(void) {
    for (uint32_t seed = 1; seed <= 3; seed++) {
        check_random(0, seed);
        check_random(50, seed);
    }
    check_lowest();
    check_no_memory();
}
