/*
 * checkpoint-hunt-test.c: the planner against a slow recursion over exact allowances that knows no
 * bounds; every bound against the plans of that recursion; work at depth, counted; its limit.
 */
#include "harness/train/checkpoint-hunt.h"

#include "harness/base/rng.h"
#include "harness/train/checkpoint-bounds.h"
#include "harness/train/checkpoint-testing.h"
#include "kernels/hostmem.h"

#include <stdio.h>
#include <string.h>

void checkpoint_hunt_test(void);

/* ---- the recursion ---- */

enum { SAVE_FIRST = 0, NOTHING = -1 };

struct answer {
    int64_t bytes, flops;
    int16_t s, e, first; /* first: the split, SAVE_FIRST, or NOTHING within the bytes */
    bool used;
};

struct slow {
    const struct oom_checkpoint_chain *chain;
    struct answer *answers; /* (slots), at most half of them used; slots is a power of two */
    size_t slots, used;
};

static struct slow slow_of(const struct model *m) {
    struct slow r = {.chain = &m->chain, .slots = 1 << 12};
    r.answers = oom_host_calloc(r.slots, sizeof *r.answers);
    return r;
}

static int64_t size_of(const struct slow *r, int i) {
    return (int64_t)(i > 0 ? r->chain->stages[i - 1].output : r->chain->input);
}

/* dx(e), what is fixed, and what the backwards from e on have left. */
static int64_t lives_beside(const struct slow *r, int e) {
    int64_t bytes = (int64_t)r->chain->fixed;
    for (int i = e; i < r->chain->count; i++) bytes += (int64_t)r->chain->stages[i].left;
    return bytes + (e < r->chain->count ? (int64_t)r->chain->stages[e].gradient : 0);
}

static bool saving_fits(const struct slow *r, int s, int e, int64_t bytes) {
    const struct oom_checkpoint_stage *stage = &r->chain->stages[s];
    bool read = stage->reads_output || e == s + 1;
    int64_t forward = size_of(r, s) + lives_beside(r, e) + (int64_t)stage->peak[SAVE];
    int64_t backward = size_of(r, s) + (int64_t)stage->saved + (read ? size_of(r, s + 1) : 0) +
                       lives_beside(r, s + 1) + (int64_t)stage->peak[BACK];
    return forward <= bytes && backward <= bytes;
}

static bool stage_fits(const struct slow *r, int s, int i, int e, int64_t bytes) {
    const struct oom_checkpoint_stage *stage = &r->chain->stages[i];
    int64_t live = size_of(r, s) + lives_beside(r, e) + (i > s ? size_of(r, i) : 0);
    return live + (int64_t)stage->peak[i > s ? FREE : TICK] <= bytes;
}

static struct answer *look(const struct slow *r, int s, int e, int64_t bytes) {
    uint64_t hash = ((uint64_t)bytes * 1024 + (uint64_t)s) * 1024 + (uint64_t)e;
    size_t i = (size_t)(hash * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (r->slots - 1);
    while (r->answers[i].used &&
           (r->answers[i].bytes != bytes || r->answers[i].s != s || r->answers[i].e != e)) {
        i = (i + 1) & (r->slots - 1);
    }
    return &r->answers[i];
}

static void remember(struct slow *r, struct answer made) {
    if (2 * ++r->used > r->slots) {
        struct slow larger = *r;
        larger.slots *= 4;
        larger.answers = oom_host_calloc(larger.slots, sizeof *larger.answers);
        for (size_t i = 0; i < r->slots; i++) {
            struct answer a = r->answers[i];
            if (a.used) *look(&larger, a.s, a.e, a.bytes) = a;
        }
        oom_host_free(r->answers);
        *r = larger;
    }
    *look(r, made.s, made.e, made.bytes) = made;
}

static struct answer best_of(struct slow *r, int s, int e, int64_t bytes);

static void take(struct answer *best, int first, int64_t flops) {
    if (best->first != NOTHING && best->flops <= flops) return;
    best->first = (int16_t)first;
    best->flops = flops;
}

static struct answer compute(struct slow *r, int s, int e, int64_t bytes) {
    struct answer best = {bytes, 0, (int16_t)s, (int16_t)e, NOTHING, true};
    int64_t work = 0;
    if (saving_fits(r, s, e, bytes)) {
        struct answer rest = {.first = SAVE_FIRST};
        int64_t kept = size_of(r, s) + (int64_t)r->chain->stages[s].saved;
        if (e > s + 1) rest = best_of(r, s + 1, e, bytes - kept);
        if (rest.first != NOTHING) take(&best, SAVE_FIRST, rest.flops);
    }
    for (int j = s + 1; j < e && stage_fits(r, s, j - 1, e, bytes); j++) {
        work += (int64_t)r->chain->stages[j - 1].forward_flops;
        struct answer right = best_of(r, j, e, bytes - size_of(r, s));
        if (right.first == NOTHING) continue;
        struct answer left = best_of(r, s, j, bytes);
        if (left.first != NOTHING) take(&best, j, work + right.flops + left.flops);
    }
    return best;
}

static struct answer best_of(struct slow *r, int s, int e, int64_t bytes) {
    struct answer *known = look(r, s, e, bytes);
    if (known->used) return *known;
    struct answer made = compute(r, s, e, bytes);
    remember(r, made);
    return made;
}

/* ---- chains ---- */

static uint64_t any_size(struct oom_rng *rng, int kind) {
    switch (kind) {
    case 0:
        return 512 * (900 + oom_rng_below(rng, 200)); /* alike */
    case 1:
        return 512 * (UINT64_C(1) << oom_rng_below(rng, 14)) + oom_rng_below(rng, 4000);
    case 2:
        return 1 + oom_rng_below(rng, 1000000); /* no two sums are alike */
    case 3:
        return 4096 * (1 + oom_rng_below(rng, 4));
    default: /* many small ones among few large ones: the bounds get a price */
        return 512 * (1 + oom_rng_below(rng, 4) + (oom_rng_below(rng, 5) == 0) * 2000);
    }
}

static void any_chain(struct model *m, int n, int kind, struct oom_rng *rng) {
    *m = (struct model){.chain = {.count = n, .stages = m->stages}};
    uint64_t factor = 1 + oom_rng_below(rng, 5), bulk = oom_rng_below(rng, 3);
    m->chain.input = any_size(rng, kind);
    m->chain.fixed = oom_rng_below(rng, 2) * any_size(rng, kind);
    for (int i = 0; i < n; i++) {
        struct oom_checkpoint_stage *s = &m->stages[i];
        s->forward_flops = oom_rng_below(rng, 4) == 0 ? 1000 : 1 + oom_rng_below(rng, 100000);
        s->output = bulk == 0 ? 512 : any_size(rng, kind);
        s->saved = factor * any_size(rng, kind);
        s->gradient = s->output;
        s->left = bulk == 1 ? any_size(rng, kind) / 4 : 0;
        s->reads_output = oom_rng_below(rng, 2) == 0;
        uint64_t large = bulk == 2 && i + 1 == n ? 20 : 1; /* as a head of many classes */
        set_peaks(m, i, any_size(rng, kind), large * any_size(rng, kind), any_size(rng, kind));
    }
}

static uint64_t all_saved(const struct model *m) {
    struct oom_checkpoint_schedule schedule;
    CHECK_OK(oom_checkpoint_none(&m->chain, &schedule));
    uint64_t peak = judged(m, &schedule).peak;
    oom_checkpoint_schedule_free(&schedule);
    return peak;
}

/* The i-th of so many budgets, closer together towards the minimum. */
static uint64_t budget_of(const struct model *m, int i, int count) {
    uint64_t least = 0, most = all_saved(m);
    CHECK_OK(oom_checkpoint_minimum(&m->chain, &least));
    double share = (double)i / count;
    return least + (uint64_t)((double)(most - least) * share * share);
}

/* ---- the same flops ---- */

static void against_slow(void) {
    enum { CHAINS = 8, BUDGETS = 10 };
    struct oom_rng rng = {411};
    struct model m;
    int plans = 0;
    TEST("checkpoint hunt: lengths 9 to 14: the flops of a recursion without bounds");
    for (int k = 0; k < 6 * CHAINS; k++) {
        any_chain(&m, 9 + k % 6, k / 6 % 5, &rng);
        struct slow r = slow_of(&m);
        for (int i = 0; i < BUDGETS; i++, plans++) {
            struct oom_checkpoint_schedule schedule;
            uint64_t bytes = budget_of(&m, i, BUDGETS);
            CHECK_OK(oom_checkpoint_budget(&m.chain, bytes, &schedule));
            struct answer best = best_of(&r, 0, m.chain.count, (int64_t)bytes);
            CHECK_EQ(judged(&m, &schedule).extra_flops, best.flops);
            CHECK(schedule.proof.exact && schedule.proof.flops == schedule.proof.least);
            oom_checkpoint_schedule_free(&schedule);
        }
        oom_host_free(r.answers);
    }
    printf("# %d chains, %d budgets\n", 6 * CHAINS, plans);
}

/* ---- every bound ---- */

struct held {
    struct slow *r;
    const struct oom_checkpoint_bounds *b;
    int64_t limit;
    int intervals;
};

/* The parts of a plan below the limit: none of them may be left out. */
static void hold(struct held *h, int s, int e, int64_t bytes) {
    struct answer a = best_of(h->r, s, e, bytes);
    struct oom_checkpoint_window window;
    bool any = oom_checkpoint_bounds_window(h->b, s, e, h->limit, &window);
    struct oom_checkpoint_window plan = {bytes, any ? window.to : bytes, a.flops};
    CHECK_MSG(any && window.from <= bytes && bytes <= window.to && a.flops < window.flops,
              "plan(%d, %d) of %lld flops within %lld bytes is outside its window", s, e,
              (long long)a.flops, (long long)bytes);
    CHECK_MSG(oom_checkpoint_bounds_useful(h->b, s, e, &plan, h->limit),
              "plan(%d, %d) of %lld flops within %lld bytes is called useless", s, e,
              (long long)a.flops, (long long)bytes);
    h->intervals++;
    if (e < h->b->tables->n) {
        CHECK(oom_checkpoint_bounds_plan(h->b, 0, s, e, bytes) <= (double)a.flops * (1 + 1e-9));
    }
    if (bytes >= h->b->tables->whole[oom_checkpoint_at(h->b->tables, s, e)]) return;
    if (a.first == SAVE_FIRST) {
        hold(h, s + 1, e, bytes - h->b->tables->kept[s]);
        return;
    }
    CHECK_MSG((double)oom_checkpoint_bounds_splits(h->b, s, e)[a.first - s - 1] <
                  (double)h->limit * (1 + 1e-9),
              "plan(%d, %d) must not be split at %d", s, e, a.first);
    hold(h, a.first, e, bytes - size_of(h->r, s));
    hold(h, s, a.first, bytes);
}

/* With more bytes never more flops: so a look at a higher cell than the allowance's is a bound. */
static bool all_fall(const struct oom_checkpoint_bounds *b) {
    int n = b->tables->n;
    bool falls = true;
    for (int s = 0; s < n; s++) {
        for (int e = s + 1; e <= n; e++) {
            const struct oom_checkpoint_grid *grid = e == n ? &b->outer : &b->inner;
            double last = 1e300;
            for (int k = grid->first[s]; k < grid->first[s + 1]; k++) {
                double flops = oom_checkpoint_bounds_plan(b, 0, s, e, grid->clusters[k].low);
                falls = falls && flops <= last;
                last = flops;
            }
        }
    }
    return falls;
}

static int hold_levels(struct slow *r, const struct oom_checkpoint_tables *t, int64_t bytes) {
    enum { LEVELS = 3 };
    struct oom_checkpoint_bounds levels[LEVELS];
    struct held held = {.r = r, .limit = best_of(r, 0, t->n, bytes).flops + 1};
    CHECK_OK(oom_checkpoint_bounds_create(t, bytes, &levels[0]));
    for (int k = 0; k < LEVELS; k++) {
        double least = 0;
        if (k > 0) CHECK_OK(oom_checkpoint_bounds_refine(&levels[k - 1], 2, k, &levels[k]));
        oom_checkpoint_bounds_inside(&levels[k], &least);
        CHECK(least <= (double)held.limit * (1 + 1e-9));
        CHECK(all_fall(&levels[k]));
        oom_checkpoint_bounds_outside(&levels[k], held.limit);
        held.b = &levels[k];
        hold(&held, 0, t->n, bytes);
    }
    for (int k = 0; k < LEVELS; k++) oom_checkpoint_bounds_free(&levels[k]);
    return held.intervals;
}

static void bounds_hold(void) {
    enum { CHAINS = 120, BUDGETS = 8 };
    struct oom_rng rng = {97};
    struct model m;
    int intervals = 0;
    TEST("checkpoint bounds: whatever is part of a best plan is live, in every level");
    for (int k = 0; k < CHAINS; k++) {
        struct oom_checkpoint_tables tables;
        any_chain(&m, 8 + k % 5, k / 5 % 5, &rng);
        struct slow r = slow_of(&m);
        CHECK_OK(oom_checkpoint_tables_create(&m.chain, &tables));
        for (int i = 0; i < BUDGETS; i++) {
            intervals += hold_levels(&r, &tables, (int64_t)budget_of(&m, i, BUDGETS));
        }
        oom_checkpoint_tables_free(&tables);
        oom_host_free(r.answers);
    }
    printf("# %d intervals\n", intervals);
}

/* ---- work ---- */

enum { DEEP = 256 };

/* A transformer's blocks and a head of 50,000 classes. */
static void language_model(struct model *m) {
    uint64_t x = 8 * 256 * 768 * 4, logits = UINT64_C(8) * 256 * 50304 * 4;
    equal_stages(m, DEEP, x, 13 * x + 512 * 7, x, 5 * x);
    m->stages[DEEP - 1].output = logits;
    m->stages[DEEP - 1].saved = x;
    m->stages[DEEP - 1].forward_flops = 7;
    set_peaks(m, DEEP - 1, x, x, logits);
    m->stages[0].saved = 0;
}

/* Four groups, each of half the bytes. */
static void image_model(struct model *m) {
    equal_stages(m, DEEP, UINT64_C(1) << 24, UINT64_C(3) << 24, UINT64_C(1) << 24, 1 << 22);
    for (int i = 0; i < DEEP; i++) {
        struct oom_checkpoint_stage *s = &m->stages[i];
        s->output >>= (i + 1) * 4 / (DEEP + 1);
        s->saved >>= i * 4 / DEEP;
        s->gradient >>= i * 4 / DEEP;
        set_peaks(m, i, s->output, s->output, 2 * s->output);
    }
}

/* Within 10 % of each other, no two the same. */
static void alike(struct model *m) {
    struct oom_rng rng = {6};
    equal_stages(m, DEEP, 512000, 4096000, 512000, 512000);
    for (int i = 0; i < DEEP; i++) {
        struct oom_checkpoint_stage *s = &m->stages[i];
        s->output = 512 * (1000 + oom_rng_below(&rng, 100));
        s->gradient = i > 0 ? s->output : 0;
        s->saved = 512 * (8000 + oom_rng_below(&rng, 800));
        s->forward_flops = 100000 + oom_rng_below(&rng, 10000);
        set_peaks(m, i, 512000, 0, 512000);
    }
}

static void work_at_depth(void) {
    static const struct {
        const char *name;
        void (*make)(struct model *);
        uint64_t most; /* about three times what was seen */
    } rows[] = {{"language model", language_model, 400000000},
                {"image model", image_model, 400000000},
                {"stages alike", alike, 900000000}};
    static const int at[] = {0, 14}; /* of 24 */
    struct model m;
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        uint64_t most = 0;
        rows[k].make(&m);
        TEST("checkpoint hunt: %s of %d stages: exact, with little work", rows[k].name, DEEP);
        for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
            struct oom_checkpoint_schedule schedule;
            CHECK_OK(oom_checkpoint_budget(&m.chain, budget_of(&m, at[i], 24), &schedule));
            CHECK(schedule.proof.exact);
            if (schedule.proof.work > most) most = schedule.proof.work;
            oom_checkpoint_schedule_free(&schedule);
        }
        CHECK_MSG(most <= rows[k].most, "%llu cells", (unsigned long long)most);
        printf("# at most %llu cells\n", (unsigned long long)most);
    }
}

/* What is saved costs as much as it is large: every sum is worth the same. */
static void subset_sums(struct model *m, int n) {
    struct oom_rng rng = {21};
    equal_stages(m, n, 512, 0, 512, 0);
    for (int i = 0; i < n; i++) {
        struct oom_checkpoint_stage *s = &m->stages[i];
        s->saved = 512 * (1 + oom_rng_below(&rng, 1000000));
        s->forward_flops = s->saved / 512;
        set_peaks(m, i, 0, 0, 0);
    }
}

static void limited(void) {
    static const uint64_t works[] = {1, 100000, 3000000, 30000000};
    struct oom_checkpoint_schedule first, again;
    struct model m;
    uint64_t none = 0;
    TEST("checkpoint hunt: when the work ends: a plan within the budget, and how good it is");
    subset_sums(&m, 64);
    for (int i = 0; i < 64; i++) none += m.stages[i].forward_flops;
    uint64_t bytes = budget_of(&m, 17, 24);
    for (int k = 0; k < 4; k++) {
        CHECK_OK(oom_checkpoint_budget_within(&m.chain, bytes, works[k], &first));
        CHECK_OK(oom_checkpoint_budget_within(&m.chain, bytes, works[k], &again));
        struct oom_checkpoint_outcome outcome = judged(&m, &first);
        CHECK(outcome.peak <= bytes && outcome.extra_flops == first.proof.flops);
        CHECK(first.proof.exact == (first.proof.least == first.proof.flops));
        CHECK(first.proof.least > 0 && first.proof.least <= first.proof.flops);
        CHECK(memcmp(&first.proof, &again.proof, sizeof first.proof) == 0);
        CHECK(first.count == again.count &&
              memcmp(first.ops, again.ops, sizeof *first.ops * (size_t)first.count) == 0);
        if (k == 0) CHECK(!first.proof.exact);
        CHECK(first.proof.flops <= none);
        oom_checkpoint_schedule_free(&first);
        oom_checkpoint_schedule_free(&again);
    }
}

/* Wherever the work ends, the best, which takes all of it, lies between what is proven and found.
 */
static void limited_holds(void) {
    enum { CHAINS = 20 };
    struct oom_rng rng = {8};
    struct model m;
    int open = 0, all = 0;
    TEST("checkpoint hunt: the best lies between what is proven and what is found");
    for (int k = 0; k < CHAINS; k++) {
        struct oom_checkpoint_schedule best, schedule;
        any_chain(&m, 40, k % 5, &rng);
        uint64_t bytes = budget_of(&m, k % 4, 10);
        CHECK_OK(oom_checkpoint_budget_within(&m.chain, bytes, 0, &best));
        CHECK(best.proof.exact);
        for (int i = 1; i < 16; i++, all++) {
            uint64_t work = best.proof.work / 16 * (uint64_t)i;
            CHECK_OK(oom_checkpoint_budget_within(&m.chain, bytes, work + 1, &schedule));
            CHECK(schedule.proof.least <= best.proof.flops);
            CHECK(schedule.proof.flops >= best.proof.flops);
            open += !schedule.proof.exact;
            oom_checkpoint_schedule_free(&schedule);
        }
        oom_checkpoint_schedule_free(&best);
    }
    CHECK(open > CHAINS);
    printf("# %d of %d left open\n", open, all);
}

void checkpoint_hunt_test(void) {
    against_slow();
    bounds_hold();
    work_at_depth();
    limited();
    limited_holds();
}
