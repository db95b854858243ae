#include "harness/train/accumulate.h"

#include "harness/base/control.h"
#include "harness/base/rng.h"

int64_t oom_cut_size(struct oom_cut cut, int j) {
    int64_t size = cut.uneven ? cut.micro >> (j % 3) : cut.micro;
    return size > 0 ? size : 1;
}

int oom_cut_count(struct oom_cut cut, int64_t samples) {
    int count = 0;
    for (int64_t at = 0; at < samples; count++) at += oom_cut_size(cut, count);
    return count;
}

/* ---- how rows are weighed: the product's one line, and the mistakes ---- */

static double sample_mass(const struct oom_window *window) {
    double mass = 0;
    for (int64_t i = 0; i < window->samples; i++) mass += oom_window_weight(window, i);
    return mass;
}

static struct oom_weighing weighing_of(const struct oom_window *window, struct oom_cut cut,
                                       int64_t begin, int64_t end) {
    double micro_mass = oom_window_mass(window, begin, end);
    if (oom_control_on(OOM_CONTROL_LOSS_NOT_DIVIDED)) {
        return (struct oom_weighing){.divisor = micro_mass};
    }
    if (oom_control_on(OOM_CONTROL_MEAN_OF_MEANS)) {
        return (struct oom_weighing){.divisor = micro_mass * oom_cut_count(cut, window->samples)};
    }
    if (oom_control_on(OOM_CONTROL_FULL_DIVISOR)) {
        double part = (double)window->samples / (double)window->nominal;
        return (struct oom_weighing){.divisor = window->total / part};
    }
    if (oom_control_on(OOM_CONTROL_TOKENS_IGNORED)) {
        return (struct oom_weighing){.divisor = sample_mass(window), .per_sample = true};
    }
    return (struct oom_weighing){.divisor = window->total};
}

/* ---- in another order: what rounding alone does to a run ---- */

static int64_t common_divisor(int64_t a, int64_t b) {
    return b == 0 ? a : common_divisor(b, a % b);
}

/* Which micro-batch runs as number j of n: a permutation j -> (a j + b) mod n of this step's own.
 */
static int shuffled(const struct oom_trainer *t, int j, int n) {
    struct oom_rng rng = {t->options.shuffle ^ ((uint64_t)t->rng_step << 32)};
    int64_t a = 0, b = oom_rng_below(&rng, (uint32_t)n);
    do {
        a = 1 + oom_rng_below(&rng, (uint32_t)n);
    } while (common_divisor(a, n) != 1);
    return (int)((a * j + b) % n);
}

/* ---- the loop ---- */

static enum oom_status run_micro_batch(struct oom_trainer *t, const struct oom_window *window,
                                       struct oom_cut cut, int64_t begin, int64_t end) {
    bool last = end == window->samples;
    if (oom_control_on(OOM_CONTROL_GRADS_CLEARED)) OOM_TRY(oom_trainer_clear_gradients(t));
    if (oom_control_on(OOM_CONTROL_SAMPLE_DROPPED) && last && end - begin > 1) end--;
    if (oom_control_on(OOM_CONTROL_SAMPLE_TWICE) && last && begin > 0) begin--;
    return oom_trainer_micro_batch(t, window, begin, end, weighing_of(window, cut, begin, end));
}

static enum oom_status run_shuffled(struct oom_trainer *t, const struct oom_window *window,
                                    struct oom_cut cut) {
    for (int n = oom_cut_count(cut, window->samples); t->micro_batch < n; t->micro_batch++) {
        int which = shuffled(t, t->micro_batch, n);
        int64_t begin = 0;
        for (int j = 0; j < which; j++) begin += oom_cut_size(cut, j);
        int64_t end = begin + oom_cut_size(cut, which);
        if (end > window->samples) end = window->samples;
        OOM_TRY(run_micro_batch(t, window, cut, begin, end));
    }
    return OOM_OK;
}

static enum oom_status run_in_order(struct oom_trainer *t, const struct oom_window *window,
                                    struct oom_cut cut) {
    for (int64_t begin = 0; begin < window->samples; t->micro_batch++) {
        int64_t end = begin + oom_cut_size(cut, t->micro_batch);
        if (end > window->samples) end = window->samples;
        OOM_TRY(run_micro_batch(t, window, cut, begin, end));
        begin = end;
    }
    return OOM_OK;
}

enum oom_status oom_window_run(struct oom_trainer *t, const struct oom_window *window,
                               struct oom_cut cut, struct oom_gradients_ready ready) {
    OOM_TRY(oom_trainer_begin_step(t));
    OOM_TRY(t->options.shuffle != 0 ? run_shuffled(t, window, cut) : run_in_order(t, window, cut));
    bool partial = window->samples < window->nominal;
    if (oom_control_on(OOM_CONTROL_LAST_WINDOW_DROPPED) && partial) return OOM_OK;
    OOM_TRY(oom_unscale(t));
    if (ready.call != NULL) OOM_TRY(ready.call(ready.context, t, window));
    OOM_TRY(oom_trainer_update(t));
    return oom_trainer_end_step(t);
}
