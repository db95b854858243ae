#include "harness/train/checkpoint-guess.h"

#include "harness/train/checkpoint-schedule.h"

#define at oom_checkpoint_at

struct guess {
    const struct oom_checkpoint_bounds *bounds;
    struct oom_checkpoint_schedule *out;
    int64_t flops;
    int shift;
};

struct choice {
    int split; /* 0: save */
    double flops;
};

static void offer(struct choice *best, int split, double flops) {
    if (flops < best->flops) *best = (struct choice){split, flops};
}

static double price(const struct oom_checkpoint_bounds *b, int e, int64_t bytes) {
    return e == b->tables->n ? b->price * (double)bytes : 0;
}

static struct choice choose(const struct guess *g, int s, int e, int64_t allowance) {
    const struct oom_checkpoint_bounds *b = g->bounds;
    const struct oom_checkpoint_tables *t = b->tables;
    struct choice best = {-1, 1e300};
    int64_t rest = allowance - t->kept[s];
    if (e == s + 1 || (t->save[at(t, s, e)] <= allowance && t->need[at(t, s + 1, e)] <= rest)) {
        double flops = e == s + 1 ? 0 : oom_checkpoint_bounds_plan(b, g->shift, s + 1, e, rest);
        offer(&best, 0, flops + price(b, e, t->kept[s]));
    }
    rest = allowance - t->x[s];
    for (int j = s + 1; j < e; j++) {
        if (oom_checkpoint_run(t, s, j, e) > allowance) break;
        if (t->need[at(t, j, e)] > rest || t->need[at(t, s, j)] > allowance) continue;
        double flops = (double)oom_checkpoint_work(t, s, j) + price(b, e, t->x[s]);
        if (flops >= best.flops) break;
        flops += oom_checkpoint_bounds_plan(b, g->shift, j, e, rest);
        if (flops >= best.flops) continue;
        offer(&best, j, flops + oom_checkpoint_bounds_plan(b, g->shift, s, j, allowance));
    }
    return best;
}

static enum oom_status go(struct guess *g, int s, int e, int64_t allowance) {
    const struct oom_checkpoint_tables *t = g->bounds->tables;
    if (t->whole[at(t, s, e)] <= allowance) return oom_checkpoint_append_saved(g->out, s, e);
    struct choice best = choose(g, s, e, allowance);
    if (best.split < 0) {
        return oom_fail(OOM_INTERNAL, "checkpoint plan: stages %d to %d: none within %lld bytes", s,
                        e, (long long)allowance);
    }
    if (best.split == 0) {
        OOM_TRY(oom_checkpoint_append(g->out, OOM_CHECKPOINT_FORWARD_SAVE, s));
        OOM_TRY(go(g, s + 1, e, allowance - t->kept[s]));
        return oom_checkpoint_append(g->out, OOM_CHECKPOINT_BACKWARD, s);
    }
    g->flops += oom_checkpoint_work(t, s, best.split);
    OOM_TRY(oom_checkpoint_append_run(g->out, s, best.split));
    OOM_TRY(go(g, best.split, e, allowance - t->x[s]));
    return go(g, s, best.split, allowance);
}

enum oom_status oom_checkpoint_guess(const struct oom_checkpoint_bounds *bounds, int shift,
                                     int64_t *flops, struct oom_checkpoint_schedule *out) {
    struct guess guess = {bounds, out, 0, shift};
    out->count = 0;
    enum oom_status status = go(&guess, 0, bounds->tables->n, bounds->budget);
    *flops = guess.flops;
    return status;
}
