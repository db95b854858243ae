/* What each setting does to each fragmentation recipe: of seeds 1 to 20, how many run out of
 * memory, under which request, with how much free. Cards of 24 GiB with OOM_TEST_FULL=1. */
#include "harness/memory/recipes-run-testing.h"

#include <stdio.h>
#include <stdlib.h>

void recipes_count_test(void);

enum { SEEDS = 20 };

/* The published rows: seeds that fail, by setting (def, exp, ms 20/.1/.25, ru 2/4/8, rel, gc
 * .6/.8); and over the seeds that fail by default the upper median, in MiB, of the request, the
 * free bytes and the largest hole; 0: not known. */
static const struct row {
    const char *recipe;
    uint64_t capacity; /* MiB */
    double f;
    const char *fails;
    double medians[3];
    bool large; /* on demand */
} rows[] = {
    {"A'", 64, .85, "20 0 20/20/20 20/20/20 20 20/20", {0}, false},
    {"A", 192, .80, "20 0 20/20/20 20/20/20 20 20/20", {0}, false},
    {"A", 512, .80, "20 0 20/20/20 20/20/20 20 20/20", {6.7, 174, 8}, false},
    {"B", 512, .85, "20 0 0/0/20 20/20/20 20 20/20", {126, 228, 106}, false},
    {"B", 1024, .88, "20 0 0/0/20 20/20/20 20 20/20", {270, 443, 228}, false},
    {"C", 512, .75, "20 0 0/0/0 20/20/18 0 20/20", {143, 284, 141}, false},
    {"C", 1024, .76, "20 0 0/0/0 20/20/19 4 19/20", {0}, false},
    {"R4", 512, .89, "17 0 20/17/17 20/20/17 0 18/17", {25, 87, 20}, false},
    {"R8", 1024, .91, "20 0 20/20/20 20/20/20 0 20/20", {49, 142, 40}, false},
    {"D", 512, .91, "18 0 11/18/18 20/12/15 0 16/16", {30, 89, 28}, false},
    {"D", 1024, .89, "20 0 14/20/20 20/20/20 0 20/20", {61, 198, 48}, false},
    {"E", 512, .84, "20 0 0/0/0 20/20/20 20 20/20", {154, 298, 134}, false},
    {"E", 1024, .86, "20 0 0/0/0 20/20/20 20 20/20", {338, 594, 272}, false},
    {"P", 512, .88, "19 0 0/11/19 0/10/16 20 13/16", {62, 138, 58}, false},
    {"P", 1024, .88, "20 0 0/19/20 0/10/19 20 18/19", {123, 281, 96}, false},
    {"Q", 1024, .90, "20 0 19/20/20 20/0/20 20 19/19", {146, 254, 78}, false},
    {"Y 512", 512, .90, "20 0 20/20/20 20/20/20 20 0/0", {8.4, 74, 12}, false},
    {"Y 1024", 1024, .90, "20 0 20/20/20 20/20/20 20 0/0", {20.5, 133, 15}, false},
    {"K", 192, .75, "0 20 0/0/0 0/0/0 0 0/0", {0}, false},
    {"K", 512, .75, "0 20 0/0/0 0/0/0 0 0/0", {0}, false},
    {"K2", 512, .80, "20 20 0/0/0 20/20/20 0 20/20", {186, 474, 96}, false},
    {"A", 24576, .80, "20 0 20/20/20 20/20/20 20 20/20", {0}, true},
    {"B", 24576, .88, "20 0 0/0/19 20/20/20 20 20/20", {6575, 11310, 5998}, true},
    {"C", 24576, .76, "20 0 0/0/0 20/20/20 1 20/20", {0}, true},
    {"R1", 24576, .86, "20 0 0/19/20 20/20/20 0 20/20", {1878, 6321, 1672}, true},
    {"D", 24576, .90, "18 0 0/18/18 20/20/20 0 19/19", {1533, 4174, 1138}, true},
    {"E", 24576, .86, "20 0 0/0/0 20/20/20 20 20/20", {0}, true},
    {"P", 24576, .90, "20 0 0/20/20 0/10/18 20 20/20", {0}, true},
    {"K", 24576, .75, "0 20 0/0/0 20/0/0 0 0/0", {0}, true},
    {"K2", 24576, .80, "20 20 0/0/0 20/20/20 0 20/20", {0}, true},
};

static struct recipe_sequence q;

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void check_medians(const struct row *row, const struct recipe_outcome *outcomes, int n) {
    for (int figure = 0; figure < 3; figure++) {
        double values[SEEDS] = {0}, want = row->medians[figure];
        for (int i = 0; i < n; i++) {
            const struct recipe_outcome *out = &outcomes[i];
            values[i] = (double)(figure == 0   ? out->request
                                 : figure == 1 ? out->free_bytes
                                               : out->hole) /
                        (double)RECIPE_MIB;
        }
        qsort(values, (size_t)n, sizeof values[0], by_value);
        if (!(want > 0)) continue;
        CHECK_MSG(fabs(values[n / 2] - want) <= .6, "figure %d: %.2f MiB, wanted %.1f", figure,
                  values[n / 2], want);
    }
}

/* A lack of bytes would be no fragmentation. */
static void note_default(const struct recipe_outcome *out, struct recipe_outcome *outcomes,
                         int *count) {
    if (!out->failed) return;
    CHECK(out->free_bytes >= out->request);
    outcomes[(*count)++] = *out;
}

static void check_row(const struct row *row) {
    struct recipe_outcome outcomes[SEEDS];
    int counts[RECIPE_COMPARED] = {0}, by_default = 0;
    char text[96];
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        CHECK(recipe_make(&q, recipe_find(row->recipe), row->capacity * RECIPE_MIB, row->f, seed) >
              0);
        for (int s = 0; s < RECIPE_COMPARED; s++) {
            struct recipe_outcome out =
                recipe_run(&q, OOM_PROFILE_PYTORCH_2_13, (enum recipe_setting)s);
            counts[s] += out.failed;
            if (s == DEF) note_default(&out, outcomes, &by_default);
        }
    }
    snprintf(text, sizeof text, "%d %d %d/%d/%d %d/%d/%d %d %d/%d", counts[DEF], counts[EXP],
             counts[MS20], counts[MS10TH], counts[MS4TH], counts[RU2], counts[RU4], counts[RU8],
             counts[REL], counts[GC6], counts[GC8]);
    CHECK_STR(text, row->fails);
    check_medians(row, outcomes, by_default);
}

static void test_rows(bool full) {
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (rows[i].large && !full) continue;
        TEST("recipes: %s at %llu MiB, f %.2f: seeds that fail, under every setting",
             rows[i].recipe, (unsigned long long)rows[i].capacity, rows[i].f);
        check_row(&rows[i]);
    }
}

/* A consumer outside the allocator, at the end of six steps: only a release before it helps. */
static void check_foreign(const struct recipe *recipe, uint64_t capacity, double f, int percent) {
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        recipe_make(&q, recipe, capacity * RECIPE_MIB, f, seed);
        recipe_add(&q, (struct recipe_event){RECIPE_FOREIGN, 0,
                                             capacity * RECIPE_MIB / 100 * (uint64_t)percent,
                                             "foreign"});
        for (int s = 0; s < RECIPE_COMPARED; s++) {
            struct recipe_outcome out =
                recipe_run(&q, OOM_PROFILE_PYTORCH_2_13, (enum recipe_setting)s);
            CHECK_MSG(out.failed == (s != REL), "%d percent, seed %llu, %s: %s", percent,
                      (unsigned long long)seed, recipe_settings[s].name,
                      out.failed ? out.site : "fits");
            if (s == DEF || s == EXP) CHECK_STR(out.site, "foreign");
        }
    }
}

static void test_foreign(uint64_t capacity, double f) {
    struct recipe six_steps = *recipe_find("R1");
    six_steps.steps = 6;
    TEST("recipes: a foreign consumer of half the card, %llu MiB, f %.2f",
         (unsigned long long)capacity, f);
    for (int percent = 45; percent <= 55; percent += 5) {
        check_foreign(&six_steps, capacity, f, percent);
    }
}

/* Without a retry that empties the cache, what is cached starves the allocator itself. */
static void test_without_retry(const char *recipe, uint64_t capacity, double f, int least) {
    int failed = 0, released = 0;
    TEST("recipes: %s without the retry, and with a release before every step", recipe);
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        recipe_make(&q, recipe_find(recipe), capacity * RECIPE_MIB, f, seed);
        failed += recipe_run(&q, OOM_PROFILE_PYTORCH_2_13, NO_RETRY).failed;
        released += recipe_run(&q, OOM_PROFILE_PYTORCH_2_13, NO_RETRY_REL).failed;
    }
    CHECK_MSG(failed >= least, "%d of %d fail, wanted %d", failed, SEEDS, least);
    CHECK_EQ(released, 0);
}

void recipes_count_test(void) {
    const char *wish = getenv("OOM_TEST_FULL");
    bool full = wish != NULL && strcmp(wish, "1") == 0;
    test_rows(full);
    test_without_retry("R4", 512, .89, 18);
    test_without_retry("R8", 1024, .91, 18);
    test_without_retry("K", 512, .75, 18);
    test_foreign(512, .6);
    test_foreign(512, .7);
    if (!full) return;
    static const uint64_t capacities[] = {192, 1024, 24576};
    for (int i = 0; i < 3; i++) {
        test_foreign(capacities[i], .6);
        test_foreign(capacities[i], .7);
    }
}
