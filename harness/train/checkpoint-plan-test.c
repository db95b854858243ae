#include "harness/base/rng.h"
#include "harness/train/checkpoint-testing.h"
#include "kernels/hostmem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void checkpoint_plan_test(void);

/* How wide sizes and costs are spread. */
enum spread { FEW_UNITS, UNIFORM, HEAVY_TAILS, MANY_ZEROS, SPREADS, HUNDREDS };

static uint64_t draw(struct oom_rng *rng, enum spread spread) {
    switch (spread) {
    case FEW_UNITS:
        return oom_rng_below(rng, 7);
    case UNIFORM:
        return 1 + oom_rng_below(rng, 100000);
    case HUNDREDS:
        return oom_rng_below(rng, 200);
    case HEAVY_TAILS:
        return (UINT64_C(1) << oom_rng_below(rng, 20)) + oom_rng_below(rng, 3);
    default:
        return oom_rng_below(rng, 3) == 0 ? 1 + oom_rng_below(rng, 3) : 0;
    }
}

/* Boundaries are mostly smaller than what is saved, as in real models. */
static void random_stages(struct model *m, int n, enum spread spread, struct oom_rng *rng) {
    *m = (struct model){.chain = {.count = n, .stages = m->stages}};
    m->chain.input = 512 * draw(rng, spread);
    m->chain.fixed = 512 * draw(rng, spread);
    uint64_t factor = 1 + oom_rng_below(rng, 4);
    bool reads = oom_rng_below(rng, 2) == 0, leaves = oom_rng_below(rng, 2) == 0;
    for (int i = 0; i < n; i++) {
        struct oom_checkpoint_stage *s = &m->stages[i];
        s->forward_flops = draw(rng, spread);
        s->backward_flops = 2 * s->forward_flops;
        s->output = 512 * draw(rng, spread);
        s->saved = 512 * factor * draw(rng, spread);
        s->gradient = 512 * draw(rng, spread);
        s->left = leaves ? 512 * draw(rng, spread) : 0;
        s->reads_output = reads && oom_rng_below(rng, 2) == 0;
        uint64_t forward = 512 * draw(rng, spread), save = 512 * draw(rng, spread);
        set_peaks(m, i, forward, save, 512 * draw(rng, spread));
        if (oom_rng_below(rng, 3) == 0) s->peak[FREE] += 512 * 6 * draw(rng, spread);
        if (oom_rng_below(rng, 3) == 0) s->peak[TICK] += 512 * 6 * draw(rng, spread);
    }
}

/* The extra flops of the plan for a budget; it is judged. UINT64_MAX: refused. */
static uint64_t planned(const struct model *m, uint64_t budget) {
    struct oom_checkpoint_schedule schedule;
    enum oom_status status = oom_checkpoint_budget(&m->chain, budget, &schedule);
    if (status == OOM_USAGE) {
        oom_failure_clear();
        return UINT64_MAX;
    }
    CHECK_OK(status);
    struct oom_checkpoint_outcome outcome = judged(m, &schedule);
    oom_checkpoint_schedule_free(&schedule);
    CHECK(outcome.peak <= budget);
    return outcome.extra_flops;
}

/* ---- brute force: every sequence of operations the class allows ---- */

enum { LONGEST = 8 };

struct enumeration {
    int n;
    struct oom_checkpoint_schedule *schedules;
    int count, capacity;
};

/* Where a sequence has come to: what is there, and which backwards are to come. */
struct front {
    bool present[LONGEST + 1], kept[LONGEST + 1], saved[LONGEST + 1];
    int undone, count;
    struct oom_checkpoint_op ops[4 * LONGEST * LONGEST];
};

static void record(struct enumeration *all, const struct front *f) {
    if (all->count == all->capacity) {
        all->capacity = 2 * all->capacity + 16;
        all->schedules =
            oom_host_realloc(all->schedules, (size_t)all->capacity * sizeof *all->schedules);
    }
    struct oom_checkpoint_schedule *s = &all->schedules[all->count++];
    *s = (struct oom_checkpoint_schedule){.ops = oom_host_alloc(sizeof *s->ops * (size_t)f->count),
                                          .count = f->count,
                                          .capacity = f->count};
    memcpy(s->ops, f->ops, sizeof *s->ops * (size_t)f->count);
}

static void go_on(struct enumeration *all, struct front f);

static void with_forward(struct enumeration *all, struct front f, enum oom_checkpoint_kind kind,
                         int i) {
    f.ops[f.count++] = (struct oom_checkpoint_op){kind, i};
    f.present[i] = kind != FREE;
    f.kept[i] = kind != FREE;
    f.saved[i] = kind == SAVE;
    f.present[i + 1] = true;
    f.kept[i + 1] = kind == SAVE;
    go_on(all, f);
}

static void with_backward(struct enumeration *all, struct front f) {
    int i = --f.undone;
    f.ops[f.count++] = (struct oom_checkpoint_op){OOM_CHECKPOINT_BACKWARD, i};
    f.saved[i] = f.present[i + 1] = f.kept[i + 1] = false;
    if (i > 0) f.present[i] = f.kept[i] = false;
    go_on(all, f);
}

/* Only at the top: from the highest boundary there is, or back through what was saved. */
static void go_on(struct enumeration *all, struct front f) {
    int top = all->n;
    if (f.undone == 0) {
        record(all, &f);
        return;
    }
    if (f.saved[f.undone - 1]) {
        with_backward(all, f);
        return;
    }
    while (!f.present[top]) top--;
    if (top >= f.undone) return; /* a dead end: the last forward did not save */
    with_forward(all, f, SAVE, top);
    with_forward(all, f, TICK, top);
    if (!f.kept[top]) with_forward(all, f, FREE, top);
}

static struct enumeration enumerate(int n) {
    struct enumeration all = {.n = n};
    struct front f = {.undone = n};
    f.present[0] = f.kept[0] = true;
    go_on(&all, f);
    return all;
}

static void enumeration_free(struct enumeration *all) {
    for (int i = 0; i < all->count; i++) oom_host_free(all->schedules[i].ops);
    oom_host_free(all->schedules);
}

static int by_peak(const void *a, const void *b) {
    const struct oom_checkpoint_outcome *x = a, *y = b;
    if (x->peak != y->peak) return x->peak < y->peak ? -1 : 1;
    return (x->extra_flops > y->extra_flops) - (x->extra_flops < y->extra_flops);
}

/* All budgets at which the answer changes, and the byte below each. Returns how many were tried. */
static int against_all(const struct model *m, const struct enumeration *all) {
    struct oom_checkpoint_outcome *found = oom_host_calloc((size_t)all->count, sizeof *found);
    uint64_t least = UINT64_MAX, minimum = 0;
    int budgets = 0;
    for (int i = 0; i < all->count; i++) {
        if (oom_checkpoint_simulate(&m->chain, &all->schedules[i], &found[i]) != OOM_OK) {
            CHECK_MSG(false, "schedule %d: %s", i, oom_failure_last()->message);
        }
    }
    qsort(found, (size_t)all->count, sizeof *found, by_peak);
    CHECK_OK(oom_checkpoint_minimum(&m->chain, &minimum));
    CHECK_EQ(minimum, found[0].peak);
    for (int i = 0; i < all->count; i++) {
        if (found[i].extra_flops >= least) continue;
        if (found[i].peak > 0) CHECK_EQ(planned(m, found[i].peak - 1), least);
        least = found[i].extra_flops;
        CHECK_EQ(planned(m, found[i].peak), least);
        budgets += 2;
    }
    oom_host_free(found);
    return budgets;
}

static void brute_force(void) {
    static const int known[LONGEST + 1] = {0, 1, 2, 6, 22, 90, 394, 1806, 8558};
    enum { CHAINS = 30 };
    struct oom_rng rng = {20240601};
    struct model m;
    int budgets = 0;
    for (int n = 1; n <= LONGEST; n++) {
        struct enumeration all = enumerate(n);
        TEST("checkpoint plan: length %d: there are as many schedules as Schroeder's numbers say",
             n);
        CHECK_EQ(all.count, known[n]);
        TEST(
            "checkpoint plan: length %d: %d random chains, every budget: the best of all schedules",
            n, CHAINS);
        for (int k = 0; k < CHAINS; k++) {
            random_stages(&m, n, (enum spread)(k % SPREADS), &rng);
            budgets += against_all(&m, &all);
        }
        enumeration_free(&all);
    }
    printf("# %d chains, %d budgets\n", CHAINS * LONGEST, budgets);
}

/* ---- depth, against what is known ---- */

static uint64_t binomial(int n, int k) {
    uint64_t b = 1;
    for (int i = 1; i <= k; i++) b = b * (uint64_t)(n - k + i) / (uint64_t)i;
    return b;
}

/* Griewank, Walther 2000, theorem 1: the least forwards beyond the last of each step, for l equal
 * steps and c checkpoints (the input is one): r l - beta(c + 1, r - 1), beta(c, r) = C(c + r, c).
 */
static uint64_t revolve(int l, int c) {
    int r = 0;
    while (binomial(c + r, c) < (uint64_t)l) r++;
    return (uint64_t)(r * l) - binomial(c + r, c + 1);
}

static void against_revolve(int n) {
    struct model m;
    uint64_t saved = 512 * 10000;
    TEST("checkpoint plan: %d equal stages of which one can be saved: the flops of revolve", n);
    equal_stages(&m, n, 512, saved, 0, 0);
    for (int c = 1; c <= 40 && c <= n; c = c < 8 ? c + 1 : c * 2) {
        uint64_t budget = (uint64_t)(c + 2) * 512 + saved;
        CHECK_EQ(planned(&m, budget), revolve(n, c));
    }
}

/* The textbook's table over (s, e, units of 512 bytes): exact where every size is a few units. */
struct table {
    const struct model *m;
    int n, units;
    uint64_t *cells; /* (n+1, n+1, units+1) */
};

static const uint64_t none = UINT64_MAX / 8;

static uint64_t *cell(const struct table *t, int s, int e, int64_t bytes) {
    static uint64_t nothing;
    nothing = none;
    if (bytes < 0) return &nothing;
    size_t row = (size_t)t->n + 1;
    return &t->cells[((size_t)s * row + (size_t)e) * (size_t)(t->units + 1) + (size_t)bytes / 512];
}

static int64_t boundary(const struct model *m, int i) {
    return (int64_t)(i > 0 ? m->stages[i - 1].output : m->chain.input);
}

/* Lives beside the boundaries when plan(., e) begins. */
static int64_t beside(const struct model *m, int e) {
    int64_t bytes = (int64_t)m->chain.fixed;
    if (e < m->chain.count) bytes += (int64_t)m->stages[e].gradient;
    for (int i = e; i < m->chain.count; i++) bytes += (int64_t)m->stages[i].left;
    return bytes;
}

static bool can_save(const struct model *m, int s, int e, int64_t bytes) {
    const struct oom_checkpoint_stage *stage = &m->stages[s];
    int64_t in = boundary(m, s);
    int64_t out = stage->reads_output || e == s + 1 ? boundary(m, s + 1) : 0;
    return in + beside(m, e) + (int64_t)stage->peak[SAVE] <= bytes &&
           in + (int64_t)stage->saved + out + beside(m, s + 1) + (int64_t)stage->peak[BACK] <=
               bytes;
}

static uint64_t table_cell(const struct table *t, int s, int e, int64_t bytes) {
    const struct model *m = t->m;
    int64_t in = boundary(m, s);
    uint64_t best = none, work = 0;
    if (can_save(m, s, e, bytes)) {
        int64_t rest = bytes - in - (int64_t)m->stages[s].saved;
        best = e == s + 1 ? 0 : *cell(t, s + 1, e, rest);
    }
    for (int j = s + 1; j < e; j++) {
        const struct oom_checkpoint_stage *last = &m->stages[j - 1];
        int64_t peak =
            j == s + 1 ? (int64_t)last->peak[TICK] : boundary(m, j - 1) + (int64_t)last->peak[FREE];
        if (in + beside(m, e) + peak > bytes) break;
        work += last->forward_flops;
        uint64_t flops = work + *cell(t, j, e, bytes - in);
        flops += *cell(t, s, j, bytes);
        if (flops < best) best = flops;
    }
    return best;
}

static void fill_table(const struct table *t) {
    for (int s = t->n - 1; s >= 0; s--) {
        for (int e = s + 1; e <= t->n; e++) {
            for (int64_t bytes = 0; bytes <= t->units * INT64_C(512); bytes += 512) {
                *cell(t, s, e, bytes) = table_cell(t, s, e, bytes);
            }
        }
    }
}

/* Live bytes when everything is saved. */
static uint64_t peak_of_none(const struct model *m) {
    struct oom_checkpoint_schedule schedule;
    CHECK_OK(oom_checkpoint_none(&m->chain, &schedule));
    uint64_t peak = judged(m, &schedule).peak;
    oom_checkpoint_schedule_free(&schedule);
    return peak;
}

static int least_units(const struct model *m) {
    uint64_t bytes = 0;
    CHECK_OK(oom_checkpoint_minimum(&m->chain, &bytes));
    return (int)(bytes / 512);
}

static void against_table(enum spread spread, int n, int chains, uint64_t seed) {
    struct oom_rng rng = {seed};
    struct model m;
    int compared = 0;
    TEST("checkpoint plan: %d random chains of length %d against the table over all units", chains,
         n);
    for (int k = 0; k < chains; k++) {
        random_stages(&m, n, spread, &rng);
        for (int i = 0; i < n; i++) m.stages[i].forward_flops = oom_rng_below(&rng, 1000000);
        int units = (int)(peak_of_none(&m) / 512);
        struct table t = {&m, n, units, NULL};
        t.cells = oom_host_calloc((size_t)(n + 1) * (size_t)(n + 1),
                                  sizeof *t.cells * (size_t)(units + 1));
        fill_table(&t);
        int least = least_units(&m);
        for (int i = 0; i <= 24; i++) { /* closer together towards the minimum */
            int u = least - 1 + (units - least + 1) * i * i / (24 * 24);
            if (u < 0) continue; /* below nothing */
            uint64_t best = *cell(&t, 0, n, u * INT64_C(512));
            CHECK_EQ(planned(&m, (uint64_t)u * 512), best < none ? best : UINT64_MAX);
            compared++;
        }
        oom_host_free(t.cells);
    }
    printf("# %d budgets\n", compared);
}

/* ---- properties ---- */

static void budgets_monotone(void) {
    struct oom_rng rng = {77};
    struct model m;
    TEST("checkpoint plan: more bytes never cost more flops; enough bytes cost none");
    for (int k = 0; k < 6; k++) {
        uint64_t minimum = 0, last = UINT64_MAX;
        random_stages(&m, 60, (enum spread)(k % SPREADS), &rng);
        CHECK_OK(oom_checkpoint_minimum(&m.chain, &minimum));
        uint64_t most = peak_of_none(&m);
        for (int i = 0; i <= 12; i++) {
            uint64_t flops = planned(&m, minimum + (most - minimum) * (uint64_t)i / 12);
            CHECK(flops <= last);
            last = flops;
        }
        CHECK_EQ(last, 0);
    }
}

static void below_minimum(void) {
    struct model m;
    struct oom_checkpoint_schedule schedule;
    uint64_t minimum = 0;
    char text[64];
    TEST("checkpoint plan: below the minimum it says both figures");
    equal_stages(&m, 12, 4096, 8192, 4096, 512);
    CHECK_OK(oom_checkpoint_minimum(&m.chain, &minimum));
    /* x(0), x(i), what i saved, x(i+1), dx(i+1), dx(i), a temporary */
    CHECK_EQ(minimum, 4096 * 5 + 8192 + 512);
    CHECK_EQ(oom_checkpoint_budget(&m.chain, minimum - 1, &schedule), OOM_USAGE);
    snprintf(text, sizeof text, "a budget of %d bytes; at least %d", (int)minimum - 1,
             (int)minimum);
    CHECK_MSG(strstr(oom_failure_last()->message, text) != NULL, "%s", oom_failure_last()->message);
    oom_failure_clear();
    CHECK(planned(&m, minimum) < UINT64_MAX);
}

/* n / s stages are saved at a time while s boundaries are kept: about (saved + 2 boundaries)
 * sqrt(n) bytes; without checkpoints it is n. */
static void sqrt_curve(void) {
    struct model m;
    double low = 1e300, high = 0;
    TEST("checkpoint plan: sqrt(n) segments: bytes grow like sqrt(n)");
    for (int n = 16; n <= 512; n = n * 5 / 4) {
        struct oom_checkpoint_schedule schedule;
        int s = oom_checkpoint_sqrt(n);
        equal_stages(&m, n, 4096, 4096 * 9, 4096, 4096);
        CHECK(s * s >= n && (s - 1) * (s - 1) < n);
        CHECK_OK(oom_checkpoint_segments(&m.chain, s, &schedule));
        uint64_t peak = judged(&m, &schedule).peak;
        oom_checkpoint_schedule_free(&schedule);
        uint64_t each = (uint64_t)(n + s - 1) / (uint64_t)s;
        CHECK(peak <= 4096 * ((uint64_t)s + 10 * each + 5));
        double ratio = (double)peak / s;
        low = ratio < low ? ratio : low;
        high = ratio > high ? ratio : high;
        if (n < 128) CHECK(planned(&m, peak) <= (uint64_t)n); /* the best plan is no worse */
    }
    CHECK(high <= 1.35 * low);
    printf("# peak / sqrt(n): %.0f to %.0f bytes\n", low, high);
}

static void nesting_pays(void) {
    struct model m;
    struct oom_checkpoint_schedule schedule;
    uint64_t best = UINT64_MAX;
    TEST("checkpoint plan: below what any one level of segments needs, segments nest");
    equal_stages(&m, 64, 4096, 4096 * 9, 4096, 4096);
    for (int k = 1; k <= 64; k++) {
        CHECK_OK(oom_checkpoint_segments(&m.chain, k, &schedule));
        uint64_t peak = judged(&m, &schedule).peak;
        best = peak < best ? peak : best;
        oom_checkpoint_schedule_free(&schedule);
    }
    uint64_t flops = planned(&m, best * 6 / 10);
    CHECK(flops > 64 && flops < 3 * 64);
}

static void host_memory(void) {
    struct oom_rng rng = {5};
    struct model m;
    uint64_t before = oom_host_bytes_current();
    bool done = false;
    int n = 0;
    TEST("checkpoint plan: no host memory at any place is a status, and leaves nothing");
    random_stages(&m, 12, UNIFORM, &rng);
    uint64_t minimum = 0;
    CHECK_OK(oom_checkpoint_minimum(&m.chain, &minimum));
    while (!done && n < 1000) {
        struct oom_checkpoint_schedule schedule;
        oom_host_fail_at((uint64_t)++n);
        enum oom_status status = oom_checkpoint_budget(&m.chain, minimum * 5 / 4, &schedule);
        oom_host_fail_at(0);
        done = status == OOM_OK;
        CHECK(done || (status == OOM_HOST_NOMEM && schedule.ops == NULL));
        oom_checkpoint_schedule_free(&schedule);
        oom_failure_clear();
        CHECK_EQ(oom_host_bytes_current(), before);
    }
    CHECK(done && n > 15);
}

void checkpoint_plan_test(void) {
    sqrt_curve();
    below_minimum();
    nesting_pays();
    brute_force();
    against_table(HUNDREDS, 16, 16, 1);
    against_table(FEW_UNITS, 20, 6, 2);
    against_table(FEW_UNITS, 48, 3, 3);
    for (int n = 1; n <= 64; n = n < 8 ? n + 1 : n * 2) against_revolve(n);
    budgets_monotone();
    host_memory();
}
