/* The vectors of the fragmentation recipes: for each, seed, the failing allocation, what it asked
 * for and how many bytes were free, as another program found them; and which settings cure it,
 * which do not, for how many seeds. Then what a release is good for. */
#include "harness/memory/fake-device.h"
#include "harness/memory/recipes-run-testing.h"

void recipes_test(void);

enum { SEEDS = 20 };

#define AT(setting) (1u << (setting))
#define ALL_MS (AT(MS20) | AT(MS10TH) | AT(MS4TH))
#define ALL_RU (AT(RU2) | AT(RU4) | AT(RU8))
#define ALL_GC (AT(GC6) | AT(GC8))

/* A row of the recommended set. Of seeds 1 to 20 so many keep it (every setting of `fit` fits,
 * every one of `fail` runs out of memory) at f, and so many at f - 0.01, f and f + 0.01; the vector
 * is that of the first of these. */
static const struct row {
    const char *recipe;
    uint64_t capacity; /* MiB */
    double f;
    unsigned fit, fail;
    int keep, keep_around;
    enum recipe_setting setting; /* under which the vector was made */
    uint64_t seed, k, allocation;
    const char *site;
    uint64_t request, free_bytes;
} rows[] = {
    {"A", 512, .80, AT(EXP), AT(DEF) | ALL_MS | ALL_RU | AT(REL) | ALL_GC, 20, 20, DEF, 1, 53, 104,
     "y", 7026176, 182088704},
    {"B", 512, .85, AT(EXP) | AT(MS20) | AT(MS10TH),
     AT(DEF) | AT(MS4TH) | ALL_RU | AT(REL) | AT(GC8), 20, 18, DEF, 1, 1478, 88, "dscores",
     138109952, 226613248},
    {"B", 1024, .88, AT(EXP) | AT(MS20) | AT(MS10TH),
     AT(DEF) | AT(MS4TH) | ALL_RU | AT(REL) | AT(GC8), 20, 20, DEF, 1, 2157, 62, "dscores",
     268173824, 490904576},
    {"C", 512, .75, AT(EXP) | AT(MS20) | AT(MS10TH) | AT(REL),
     AT(DEF) | AT(RU2) | AT(RU4) | AT(GC8), 20, 16, DEF, 1, 119469, 101, "dlogits", 151040000,
     301850624},
    {"R4", 512, .89, AT(EXP) | AT(REL), AT(DEF) | ALL_MS | ALL_RU | AT(GC8), 17, 13, DEF, 1, 1619,
     461, "dgelu", 25264128, 103589888},
    {"R8", 1024, .91, AT(EXP) | AT(REL), AT(DEF) | ALL_MS | ALL_RU | AT(GC8), 20, 15, DEF, 1, 1592,
     472, "dlogits", 51838976, 148406272},
    {"D", 1024, .89, AT(EXP) | AT(REL), AT(DEF) | AT(MS10TH) | AT(MS4TH) | ALL_RU | AT(GC8), 20, 20,
     DEF, 1, 2004, 770, "dlogits", 59375616, 261939200},
    {"E", 512, .84, AT(EXP) | ALL_MS, AT(DEF) | ALL_RU | AT(REL) | AT(GC8), 20, 20, DEF, 1, 1321,
     1044, "dlogits", 172097536, 301792256},
    {"P", 512, .88, AT(EXP) | AT(RU2) | AT(MS20), AT(DEF) | AT(MS4TH) | AT(REL) | AT(GC8), 15, 14,
     DEF, 4, 6, 76, "dgelu", 64831488, 154644480},
    {"P", 1024, .88, AT(EXP) | AT(RU2) | AT(MS20), AT(DEF) | AT(MS4TH) | AT(REL) | AT(GC8), 19, 19,
     DEF, 1, 12, 60, "dgelu", 126025728, 311853056},
    {"Q", 1024, .90, AT(EXP) | AT(RU4), AT(DEF) | ALL_MS | AT(RU2) | AT(RU8) | AT(REL) | AT(GC8),
     18, 13, DEF, 1, 1171, 404, "dlogits", 152961024, 280589312},
    {"Y 512", 512, .90, AT(EXP) | ALL_GC, AT(DEF) | ALL_MS | ALL_RU | AT(REL), 20, 20, DEF, 1, 1105,
     564, "dlogits", 8798208, 75298816},
    {"K", 512, .75, AT(DEF) | ALL_MS | ALL_RU | AT(REL) | ALL_GC, AT(EXP), 20, 20, EXP, 1, 17, 40,
     "evaluation", 181796864, 497811456},
    {"K2", 512, .80, ALL_MS | AT(REL), AT(DEF) | AT(EXP) | AT(RU4) | AT(RU8) | ALL_GC, 20, 20, DEF,
     1, 17, 77, "evaluation", 195218432, 497287168},
};

enum { ROWS = sizeof rows / sizeof rows[0] };

static struct recipe_sequence q;

static uint64_t make(const struct row *row, double f, uint64_t seed) {
    return recipe_make(&q, recipe_find(row->recipe), row->capacity * RECIPE_MIB, f, seed);
}

static void check_vector(const struct row *row, enum oom_profile profile) {
    CHECK_EQ(make(row, row->f, row->seed), row->k);
    struct recipe_outcome out = recipe_run(&q, profile, row->setting);
    CHECK(out.failed);
    CHECK_EQ(out.allocation, row->allocation);
    CHECK_STR(out.site, row->site);
    CHECK_EQ(out.request, row->request);
    CHECK_EQ(out.free_bytes, row->free_bytes);
}

static void test_vectors(enum oom_profile profile) {
    for (int i = 0; i < ROWS; i++) {
        TEST("recipes: %s at %llu MiB, seed %llu, %s: the vector", rows[i].recipe,
             (unsigned long long)rows[i].capacity, (unsigned long long)rows[i].seed,
             oom_profile_name(profile));
        check_vector(&rows[i], profile);
    }
}

/* ---- which settings cure ---- */

static bool keeps(const struct row *row, double f, uint64_t seed) {
    CHECK(make(row, f, seed) > 0);
    for (int s = 0; s < RECIPE_COMPARED; s++) {
        if (((row->fit | row->fail) & AT(s)) == 0) continue;
        bool failed = recipe_run(&q, OOM_PROFILE_PYTORCH_2_13, (enum recipe_setting)s).failed;
        if (((failed ? row->fit : row->fail) & AT(s)) != 0) return false;
    }
    return true;
}

static bool keeps_around(const struct row *row, uint64_t seed) {
    return keeps(row, row->f - .01, seed) && keeps(row, row->f + .01, seed);
}

static void check_seeds(const struct row *row) {
    uint64_t first = 0;
    int at_f = 0, around = 0;
    for (uint64_t seed = SEEDS; seed >= 1; seed--) {
        if (!keeps(row, row->f, seed)) continue;
        at_f++;
        if (!keeps_around(row, seed)) continue;
        around++;
        first = seed;
    }
    CHECK_EQ(at_f, row->keep);
    CHECK_EQ(around, row->keep_around);
    CHECK_EQ(first, row->seed);
}

static void test_seeds(void) {
    for (int i = 0; i < ROWS; i++) {
        TEST("recipes: %s at %llu MiB: the seeds for which the cures cure, and those alone",
             rows[i].recipe, (unsigned long long)rows[i].capacity);
        check_seeds(&rows[i]);
    }
}

/* ---- the order of 2.11: by address, here with every new segment below all others ---- */

/* Without virtual memory, so without the expandable cell. */
static bool keeps_below(const struct row *row, uint64_t seed) {
    static struct fake_device fake;
    bool kept = true;
    CHECK(make(row, row->f, seed) > 0);
    for (int s = 0; s < RECIPE_COMPARED && kept; s++) {
        if (s == EXP || ((row->fit | row->fail) & AT(s)) == 0) continue;
        fake_open(&fake, q.capacity, false);
        fake.span = 64 * q.capacity;
        fake.descending = true;
        struct oom_allocator *a =
            recipe_open(&fake.device, q.capacity, OOM_PROFILE_PYTORCH_2_11, (enum recipe_setting)s);
        struct recipe_outcome out = recipe_drive(a, &q, 0, recipe_settings[s].release);
        kept = ((out.failed ? row->fit : row->fail) & AT(s)) == 0;
        oom_allocator_destroy(a);
        fake_close(&fake.device);
    }
    return kept;
}

static void test_by_address(void) {
    static const struct {
        const char *recipe;
        int keep;
    } other[] = {{"R4", 15}, {"R8", 20}, {"Q", 19}};
    for (int i = 0, n = 0; i < ROWS && n < 3; i++) {
        int kept = 0;
        if (strcmp(rows[i].recipe, other[n].recipe) != 0) continue;
        TEST("recipes: %s at %llu MiB by address, downwards: as many seeds as 2.11 has",
             rows[i].recipe, (unsigned long long)rows[i].capacity);
        for (uint64_t seed = 1; seed <= SEEDS; seed++) kept += keeps_below(&rows[i], seed);
        CHECK_EQ(kept, other[n++].keep);
    }
}

/* ---- release of cached blocks after the OOM, and before the step ---- */

/* Gives back what the failed step took. */
static void drop_step(struct oom_allocator *a, const struct recipe_outcome *out) {
    for (uint32_t i = out->step_event; i < out->event; i++) {
        const struct recipe_event *e = &recipe_events[i];
        if (e->verb != RECIPE_TAKE || recipe_live[e->tensor] == 0) continue;
        CHECK_OK(oom_allocator_free(a, recipe_live[e->tensor]));
        recipe_live[e->tensor] = 0;
    }
}

static void check_release(const char *recipe, uint64_t capacity, double f) {
    oom_devptr ptr = 0;
    recipe_make(&q, recipe_find(recipe), capacity * RECIPE_MIB, f, 1);
    struct oom_device *device = recipe_device(q.capacity);
    struct oom_allocator *a = recipe_open(device, q.capacity, OOM_PROFILE_PYTORCH_2_13, DEF);
    struct recipe_outcome out = recipe_drive(a, &q, 0, false);
    const struct oom_counter *reserved = &oom_allocator_stats(a)->reserved_bytes[OOM_POOL_ALL];
    int64_t before = reserved->current;
    CHECK(out.failed && out.step > 0);

    /* While the failed step lives, the retry has already released what there was. */
    CHECK_OK(oom_allocator_release_cached(a));
    CHECK_EQ(reserved->current, before);
    CHECK_EQ(oom_allocator_alloc(a, out.request, NULL, OOM_TAG_ACTIVATION, out.site, &ptr),
             OOM_NOMEM);
    oom_failure_clear();

    /* Dropped without a release, the step finds the same pieces and fails again; released, not. */
    drop_step(a, &out);
    struct recipe_outcome again = recipe_drive(a, &q, out.step_event, false);
    CHECK(again.failed && again.step == 0);
    again.step_event = out.step_event;
    drop_step(a, &again);
    CHECK_OK(oom_allocator_release_cached(a));
    CHECK(reserved->current < before);
    struct recipe_outcome cured = recipe_drive(a, &q, out.step_event, false);
    CHECK(!cured.failed || cured.step > 0);
    CHECK_OK(oom_allocator_check(a));
    oom_allocator_destroy(a);
    oom_device_close(device);
}

static void test_release(void) {
    TEST("recipes: a release after the OOM is useless, before the step it cures R4");
    check_release("R4", 512, .89);
    TEST("recipes: a release after the OOM is useless, before the step it cures D");
    check_release("D", 1024, .89);
}

/* ---- collection without a limit ---- */

static bool collects(enum oom_profile profile, enum recipe_setting setting) {
    recipe_make(&q, recipe_find("Y 512"), 512 * RECIPE_MIB, .90, 1);
    return !recipe_run(&q, profile, setting).failed;
}

static void test_collection(void) {
    TEST("recipes: a collection threshold without a limit cures Y in profile fixed alone");
    CHECK(collects(OOM_PROFILE_PYTORCH_2_13, GC8));
    CHECK(!collects(OOM_PROFILE_PYTORCH_2_13, GC8_ALONE));
    CHECK(collects(OOM_PROFILE_FIXED, GC8_ALONE));
}

void recipes_test(void) {
    test_vectors(OOM_PROFILE_PYTORCH_2_13);
    test_vectors(OOM_PROFILE_PYTORCH_2_11);
    test_seeds();
    test_by_address();
    test_release();
    test_collection();
}
