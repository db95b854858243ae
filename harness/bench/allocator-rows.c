/*
 * allocator-rows.c: what one allocation and its free cost, on a dry device, whose own calls cost
 * next to nothing. The target: a pair that hits the cache, 16 sizes in turn, beside 10^5 live and
 * 10^5 free blocks, takes 150 ns at most; with random sizes and frees it grows like log n.
 */
#include "harness/bench/bench.h"

#include "harness/bench/load.h"

#include <math.h>

static const uint64_t BOUNDLESS = (uint64_t)1 << 52; /* bytes; dry memory is only counted */

enum { LIVE, FREE, TRACE, ON_HOST };

static enum oom_status pairs(void *context, uint64_t times) {
    return oom_load_pairs(context, times);
}

static enum oom_status churn(void *context, uint64_t times) {
    return oom_load_churn(context, times);
}

static enum oom_status uncached(void *context, uint64_t times) {
    return oom_load_uncached(context, times);
}

static void close_load(void *context) {
    oom_load_free(context);
}

static enum oom_status hand_over(struct oom_load *load, enum oom_status status,
                                 enum oom_status (*work)(void *context, uint64_t times),
                                 struct oom_bench_subjects *out) {
    if (status != OOM_OK) {
        oom_load_free(load);
        return status;
    }
    out->count = 1;
    out->items[0] = (struct oom_bench_subject){.context = load, .work = work, .close = close_load};
    return OOM_OK;
}

static enum oom_status open_cached(const struct oom_bench_row *row,
                                   const struct oom_bench_settings *settings,
                                   struct oom_bench_subjects *out) {
    const int64_t *p = row->parameters;
    struct oom_load *load;
    (void)settings;
    OOM_TRY(oom_load_create("dry", BOUNDLESS, (uint64_t)p[TRACE], &load));
    return hand_over(load, oom_load_fill(load, (uint64_t)p[LIVE], (uint64_t)p[FREE]), pairs, out);
}

static enum oom_status open_random(const struct oom_bench_row *row,
                                   const struct oom_bench_settings *settings,
                                   struct oom_bench_subjects *out) {
    const int64_t *p = row->parameters;
    struct oom_load *load;
    OOM_TRY(oom_load_create("dry", BOUNDLESS, (uint64_t)p[TRACE], &load));
    return hand_over(load, oom_load_scatter(load, (uint64_t)p[LIVE], 16 << 20, settings->seed),
                     churn, out);
}

static enum oom_status open_uncached(const struct oom_bench_row *row,
                                     const struct oom_bench_settings *settings,
                                     struct oom_bench_subjects *out) {
    const int64_t *p = row->parameters;
    struct oom_load *load;
    (void)settings;
    OOM_TRY(oom_load_create(p[ON_HOST] ? "host" : "dry", 64 << 20, (uint64_t)p[TRACE], &load));
    return hand_over(load, OOM_OK, uncached, out);
}

/* ---- the list ---- */

enum { RING = 65536 }; /* the allocator's default */

static enum oom_status list_cached(struct oom_bench_list *list) {
    static const struct {
        int live, free; /* powers of ten */
    } states[] = {{3, 3}, {4, 4}, {5, 2}, {5, 3}, {5, 4}, {5, 5}, {6, 5}};
    for (int trace = 1; trace >= 0; trace--) {
        for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
            const struct oom_bench_row row = {
                .unit = "pair",
                .quick = states[i].live <= 4,
                .parameters = {(int64_t)pow(10, states[i].live), (int64_t)pow(10, states[i].free),
                               trace ? RING : 0},
                .open = open_cached,
            };
            OOM_TRY(oom_bench_list_add(list, &row, "allocator/pair/cached/live=1e%d/free=1e%d%s",
                                       states[i].live, states[i].free, trace ? "" : "/trace=off"));
        }
    }
    return OOM_OK;
}

static enum oom_status list_rows(const struct oom_bench_family *family,
                                 struct oom_bench_list *list) {
    (void)family;
    OOM_TRY(list_cached(list));
    for (int host = 0; host < 2; host++) {
        const struct oom_bench_row row = {.unit = "pair",
                                          .quick = !host,
                                          .parameters = {[TRACE] = RING, [ON_HOST] = host},
                                          .open = open_uncached};
        OOM_TRY(
            oom_bench_list_add(list, &row, "allocator/pair/uncached/%s", host ? "host" : "dry"));
    }
    for (int live = 3; live <= 6; live++) {
        const struct oom_bench_row row = {.unit = "pair",
                                          .quick = live <= 4,
                                          .series = pow(10, live),
                                          .parameters = {(int64_t)pow(10, live), [TRACE] = RING},
                                          .open = open_random};
        OOM_TRY(oom_bench_list_add(list, &row, "allocator/random/live=1e%d", live));
    }
    return OOM_OK;
}

const struct oom_bench_family oom_bench_allocator = {
    .name = "allocator",
    .prose = "one allocation and its free: cached, past the cache, random sizes and frees",
    .note = "cached: 16 sizes in turn; random: log-uniform from 512 B to 16 MiB, a random block "
            "freed for each; uncached: a device call for each, and the release of the cache",
    .list = list_rows,
};
