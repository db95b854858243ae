#include "harness/train/checkpoint-hunt.h"

#include "harness/train/checkpoint-frontier.h"
#include "harness/train/checkpoint-guess.h"

#include <math.h>

#define max oom_checkpoint_max
#define min oom_checkpoint_min

enum { MOST_SHIFT = 16, DEEPEST = 8, MOST_OUTER = 200000 };

/* Cells of a level beyond which it is not refined any more; bytes of all levels. */
static const uint64_t level_work = 60000000, level_bytes = UINT64_C(512) << 20;

struct hunt {
    int64_t least; /* proven: no plan computes fewer flops again */
    int64_t hint;  /* what finer bounds made of plans below too low a limit: not proven */
    int64_t flops; /* of the best schedule so far */
    struct oom_checkpoint_schedule *best;
    uint64_t work, most; /* so far, and where it ends */
    uint64_t bytes;      /* of all levels */
};

static bool over(const struct hunt *h) {
    return h->least >= h->flops || h->work >= h->most;
}

static void prove(struct hunt *h, int64_t flops) {
    h->least = max(h->least, min(flops, h->flops));
}

/* ---- a level ---- */

static enum oom_status guess(struct hunt *h, const struct oom_checkpoint_bounds *b) {
    for (int shift = 0; shift <= MOST_SHIFT; shift = 2 * shift + (shift == 0)) {
        struct oom_checkpoint_schedule made = {0};
        int64_t flops = 0;
        enum oom_status status = oom_checkpoint_guess(b, shift, &flops, &made);
        if (status == OOM_OK && flops < h->flops) {
            struct oom_checkpoint_schedule old = *h->best;
            *h->best = made;
            made = old;
            h->flops = flops;
        }
        oom_checkpoint_schedule_free(&made);
        OOM_TRY(status);
    }
    return OOM_OK;
}

/* What the level itself proves about plans below the limit, and what following it comes to. */
static enum oom_status fill(struct hunt *h, struct oom_checkpoint_bounds *b, int64_t limit) {
    double least;
    oom_checkpoint_bounds_inside(b, &least);
    h->work += b->work;
    OOM_TRY(guess(h, b));
    least -= oom_checkpoint_bounds_rounding(b, least);
    if (least > (double)h->hint && least < (double)h->flops) h->hint = (int64_t)least;
    prove(h, least >= (double)limit ? limit : (int64_t)ceil(fmax(least, 0)));
    return OOM_OK;
}

/* Is there a plan below the limit? Where so much work does not tell, nothing changes. */
static enum oom_status search(struct hunt *h, struct oom_checkpoint_bounds *b, int64_t limit,
                              uint64_t work) {
    uint64_t left = h->most > h->work ? h->most - h->work : 0;
    struct oom_checkpoint_search search;
    int64_t found = OOM_CHECKPOINT_UNKNOWN;
    OOM_TRY(oom_checkpoint_search_create(b->tables, b, &search));
    search.least_work = work < left ? level_work / 32 : left;
    search.most_work = work < left ? work : left;
    enum oom_status status = oom_checkpoint_search_run(&search, limit, &found);
    h->work += search.work;
    if (status == OOM_OK && found >= 0) {
        h->best->count = 0;
        status = oom_checkpoint_search_emit(&search, h->best);
        h->flops = h->least = found;
    } else if (status == OOM_OK && found == OOM_CHECKPOINT_NONE) {
        prove(h, limit);
    }
    oom_checkpoint_search_free(&search);
    return status;
}

/* ---- limits ---- */

static enum oom_status hunt(struct hunt *h, struct oom_checkpoint_bounds *b, int64_t limit,
                            int depth);

/* Into how many parts clusters are cut: as many as keep the next level's work within bounds. */
static int parts_for(uint64_t effort, uint64_t most) {
    return effort * 4 <= most ? 4 : effort * 2 <= most ? 2 : 1;
}

static enum oom_status finer(struct hunt *h, const struct oom_checkpoint_bounds *b, int64_t limit,
                             int depth) {
    struct oom_checkpoint_bounds next;
    int parts = parts_for(b->effort, 2 * level_work);
    int outer =
        parts_for(b->outer_effort,
                  (uint64_t)parts * b->effort < level_work / 4 ? level_work / 2 : level_work / 8);
    if (b->outer.first[b->tables->n] > MOST_OUTER) outer = 1;
    OOM_TRY(oom_checkpoint_bounds_refine(b, parts, outer, &next));
    h->bytes += next.bytes;
    enum oom_status status = hunt(h, &next, limit, depth + 1);
    h->bytes -= next.bytes;
    oom_checkpoint_bounds_free(&next);
    return status;
}

/* The limit becomes lower where too much would be live below it. */
static uint64_t spread(struct hunt *h, struct oom_checkpoint_bounds *b, int64_t *limit) {
    for (;;) {
        uint64_t before = b->work;
        oom_checkpoint_bounds_reset(b);
        oom_checkpoint_bounds_outside(b, *limit);
        h->work += b->work - before;
        int64_t step = (*limit - h->least) / 2;
        if (b->effort <= level_work || step <= h->least / 512 || over(h)) return b->effort;
        *limit = h->least + step;
    }
}

static enum oom_status try_limit(struct hunt *h, struct oom_checkpoint_bounds *b, int64_t *limit,
                                 int depth) {
    uint64_t effort = spread(h, b, limit);
    bool last = effort > level_work || depth == DEEPEST || h->bytes + 4 * b->bytes > level_bytes;
    OOM_TRY(search(h, b, *limit, last ? UINT64_MAX : 2 * level_work));
    return over(h) || h->least >= *limit || last ? OOM_OK : finer(h, b, *limit, depth);
}

/* Up to the limit, which is that of the coarser bounds. */
static enum oom_status hunt(struct hunt *h, struct oom_checkpoint_bounds *b, int64_t limit,
                            int depth) {
    OOM_TRY(fill(h, b, limit));
    int64_t step = depth > 0 ? (limit - h->least) / 4 : h->least / 256;
    while (!over(h) && h->least < limit) {
        int64_t least = h->least, most = min(limit, h->flops);
        int64_t from = h->hint < most ? max(h->hint, least) : least, next = from + step + 1;
        int64_t tried = next + step / 2 < most ? next : most;
        OOM_TRY(try_limit(h, b, &tried, depth));
        if (h->least == least) break; /* too much work */
        step *= 2;
    }
    return OOM_OK;
}

enum oom_status oom_checkpoint_hunt(const struct oom_checkpoint_tables *tables, int64_t budget,
                                    uint64_t work, struct oom_checkpoint_schedule *out) {
    struct oom_checkpoint_bounds bounds;
    int64_t most =
        out->count > 0 ? (int64_t)out->proof.flops : tables->work[tables->n] * tables->n + 1;
    struct hunt h = {.flops = most, .best = out, .most = work > 0 ? work : UINT64_MAX};
    OOM_TRY(oom_checkpoint_bounds_create(tables, budget, &bounds));
    h.bytes = bounds.bytes;
    enum oom_status status = hunt(&h, &bounds, most, 0);
    oom_checkpoint_bounds_free(&bounds);
    out->proof = (struct oom_checkpoint_proof){.exact = h.least >= h.flops,
                                               .flops = (uint64_t)h.flops,
                                               .least = (uint64_t)h.least,
                                               .work = h.work};
    return status;
}
