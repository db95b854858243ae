#include "harness/train/batch-size.h"

#include "harness/base/control.h"

static const struct {
    const char *name, *prose;
} rules[OOM_RULE_COUNT] = {
#define X(id, name, prose) {name, prose},
    OOM_RULE_MAP(X)
#undef X
};

const char *oom_rule_name(enum oom_rule rule) {
    return rules[rule].name;
}

const char *oom_rule_prose(enum oom_rule rule) {
    return rules[rule].prose;
}

int64_t oom_sizing_next(const struct oom_sizing *sizing) {
    int64_t size = sizing->size;
    switch (sizing->rule) {
    case OOM_RULE_TWO_POINT_085: /* an estimate may be wrong: then it is halved too */
    case OOM_RULE_SEED_085:
    case OOM_RULE_HALVING:
        return size / 2;
    case OOM_RULE_X09:
        return size * 9 / 10;
    case OOM_RULE_RETRY:
        return size == sizing->most ? sizing->retry : 0;
    case OOM_RULE_REPEAT:
        return sizing->repeated ? 0 : size;
    default:
        return 0;
    }
}

/* ---- recovery ---- */

enum oom_status oom_recover(struct oom_trainer *t, enum oom_recovery recovery) {
    bool held = recovery == OOM_RECOVERY_HELD || recovery == OOM_RECOVERY_EMPTIED;
    if (held || oom_control_on(OOM_CONTROL_REFERENCES_HELD)) {
        OOM_TRY(oom_trainer_forget(t));
    } else {
        OOM_TRY(oom_trainer_drop(t));
    }
    if (!oom_control_on(OOM_CONTROL_RETRY_KEEPS_GRADS)) OOM_TRY(oom_trainer_clear_gradients(t));
    bool emptied = recovery == OOM_RECOVERY_FULL || recovery == OOM_RECOVERY_EMPTIED;
    if (!emptied || oom_control_on(OOM_CONTROL_NO_RELEASE)) return OOM_OK;
    return oom_allocator_release_cached(t->session->allocator);
}

/* ---- one attempt ---- */

struct step {
    struct oom_sizing *sizing;
    struct oom_trainer *trainer;
    int number;
    int64_t samples, nominal;
    struct oom_windows windows;
};

static enum oom_status tell(enum oom_status (*call)(void *, struct oom_trainer *), void *context,
                            struct oom_trainer *t) {
    return call != NULL ? call(context, t) : OOM_OK;
}

static struct oom_attempt *next_attempt(struct oom_sizing *sizing) {
    if (sizing->attempt_count < OOM_ATTEMPTS_MAX) sizing->attempt_count++;
    return &sizing->attempts[sizing->attempt_count - 1]; /* a longer run overwrites its last */
}

static void note(struct step *step, int64_t size, bool trial, enum oom_status status) {
    const struct oom_trainer *t = step->trainer;
    struct oom_attempt *attempt = next_attempt(step->sizing);
    *attempt = (struct oom_attempt){.step = step->number,
                                    .size = size,
                                    .trial = trial,
                                    .status = status,
                                    .phase = t->phase,
                                    .micro_batch = t->micro_batch,
                                    .gradients_written = t->gradients_written};
    if (status == OOM_NOMEM) attempt->report = *oom_allocator_report(t->session->allocator);
}

static void window_of_size(struct step *step, int64_t size, struct oom_window *window) {
    int64_t samples = step->samples;
    if (!step->sizing->micro && size < samples) samples = size;
    step->windows.make(step->windows.context, samples, window);
    if (step->sizing->micro) window->nominal = step->nominal;
}

static enum oom_status attempt_size(struct step *step, int64_t size) {
    struct oom_window window;
    window_of_size(step, size, &window);
    struct oom_cut cut = {.micro = size, .uneven = step->sizing->micro && step->sizing->uneven};
    enum oom_status status = oom_window_run(step->trainer, &window, cut, step->sizing->ready);
    note(step, size, false, status);
    return status;
}

/* Forward and backward of one micro-batch, to see its peak; nothing of it stays. */
static enum oom_status trial(struct step *step, int64_t size, uint64_t *peak) {
    struct oom_trainer *t = step->trainer;
    struct oom_window window;
    window_of_size(step, size, &window);
    int64_t samples = size < window.samples ? size : window.samples;
    const struct oom_watch *watch = &step->sizing->watch;
    OOM_TRY(tell(watch->peaks, watch->context, t));
    oom_allocator_reset_peaks(t->session->allocator);
    enum oom_status status = oom_trainer_begin_step(t);
    if (status == OOM_OK) {
        status = oom_trainer_micro_batch(t, &window, 0, samples,
                                         (struct oom_weighing){.divisor = window.total});
    }
    note(step, size, true, status);
    *peak =
        (uint64_t)oom_allocator_stats(t->session->allocator)->allocated_bytes[OOM_POOL_ALL].peak;
    enum oom_status recovered = oom_recover(t, OOM_RECOVERY_FULL);
    return status != OOM_OK ? status : recovered;
}

/* ---- the rules that choose before running ---- */

static const double safety = 0.85;

enum oom_status oom_largest_fit(void *context,
                                enum oom_status (*plan)(void *context, int64_t size, bool *fits),
                                int64_t most, int64_t *out) {
    enum { SCANNED = 512, NEIGHBOURS = 16 };
    bool fits = true;
    int64_t good = 0;
    while (good < most && good < SCANNED) {
        OOM_TRY(plan(context, good + 1, &fits));
        if (!fits) break;
        good++;
    }
    if (fits && good < most) { /* above: bisection, then the neighbours below and above */
        int64_t low = good, high = most + 1;
        while (high - low > 1) {
            int64_t middle = low + (high - low) / 2;
            OOM_TRY(plan(context, middle, &fits));
            if (fits) {
                low = middle;
            } else {
                high = middle;
            }
        }
        int64_t from = low - NEIGHBOURS > good ? low - NEIGHBOURS : good;
        int64_t to = low + NEIGHBOURS < most ? low + NEIGHBOURS : most;
        good = to;
        for (int64_t size = from + 1; size <= to; size++) {
            OOM_TRY(plan(context, size, &fits));
            if (!fits) {
                good = size - 1;
                break;
            }
        }
        for (fits = good != from; !fits && good > SCANNED; good -= !fits) { /* not tried yet */
            OOM_TRY(plan(context, good, &fits));
        }
    }
    *out = good;
    return OOM_OK;
}

static enum oom_status choose_planned(struct step *step, int64_t *size) {
    struct oom_sizing *sizing = step->sizing;
    OOM_TRY(oom_largest_fit(sizing->plan_context, sizing->plan, sizing->most, size));
    if (oom_control_on(OOM_CONTROL_SIZE_NOT_RUN)) (*size)++;
    return OOM_OK;
}

static uint64_t budget_of(const struct step *step) {
    uint64_t bytes = step->sizing->available;
    if (oom_control_on(OOM_CONTROL_TOTAL_NOT_FREE)) {
        struct oom_memory_info info;
        struct oom_device *device = step->trainer->session->device;
        device->api->memory_info(device, &info);
        bytes = info.capacity;
    }
    return (uint64_t)(safety * (double)bytes);
}

static enum oom_status choose_two_point(struct step *step, int64_t *size) {
    uint64_t one = 0, two = 0, budget = budget_of(step);
    OOM_TRY(trial(step, 1, &one));
    enum oom_status second = trial(step, 2, &two);
    if (second == OOM_NOMEM) { /* one sample fits, two do not: that is the answer */
        oom_failure_clear();
        *size = 1;
        return OOM_OK;
    }
    OOM_TRY(second);
    uint64_t sample = two > one ? two - one : 1, fixed = one > sample ? one - sample : 0;
    *size = budget > fixed ? (int64_t)((budget - fixed) / sample) : 0;
    return OOM_OK;
}

static enum oom_status choose_seed(struct step *step, int64_t *size) {
    uint64_t one = 0;
    OOM_TRY(trial(step, 1, &one));
    *size = (int64_t)(budget_of(step) / (one > 0 ? one : 1));
    return OOM_OK;
}

static enum oom_status choose_most(struct step *step, int64_t *size) {
    *size = step->sizing->most;
    return OOM_OK;
}

static enum oom_status choose(struct step *step) {
    static enum oom_status (*const choosers[OOM_RULE_COUNT])(struct step *, int64_t *) = {
        [OOM_RULE_FIXED] = choose_most,
        [OOM_RULE_PLANNED] = choose_planned,
        [OOM_RULE_TWO_POINT_085] = choose_two_point,
        [OOM_RULE_SEED_085] = choose_seed,
        [OOM_RULE_HALVING] = choose_most,
        [OOM_RULE_X09] = choose_most,
        [OOM_RULE_RETRY] = choose_most,
        [OOM_RULE_REPEAT] = choose_most,
    };
    struct oom_sizing *sizing = step->sizing;
    int64_t size = 0;
    OOM_TRY(choosers[sizing->rule](step, &size));
    if (size > sizing->most && !oom_control_on(OOM_CONTROL_SIZE_NOT_RUN)) size = sizing->most;
    if (size < 1) {
        return oom_fail(OOM_NOMEM, "rule %s: not even one sample fits",
                        oom_rule_name(sizing->rule));
    }
    sizing->size = size;
    return OOM_OK;
}

/* ---- the step ---- */

enum oom_status oom_sized_step(struct oom_sizing *sizing, struct oom_trainer *trainer, int number,
                               int64_t samples, int64_t nominal, struct oom_windows windows) {
    struct step step = {sizing, trainer, number, samples, nominal, windows};
    const struct oom_watch *watch = &sizing->watch;
    OOM_TRY(tell(watch->before, watch->context, trainer));
    if (sizing->size == 0) OOM_TRY(choose(&step));
    sizing->repeated = false;
    for (;;) {
        enum oom_status status = attempt_size(&step, sizing->size);
        int64_t next = oom_sizing_next(sizing);
        if (status != OOM_NOMEM || next < 1) return status;
        OOM_TRY(tell(watch->failed, watch->context, trainer));
        OOM_TRY(oom_recover(trainer, sizing->recovery));
        oom_failure_clear();
        OOM_TRY(tell(watch->recovered, watch->context, trainer));
        sizing->size = next;
        sizing->repeated = true;
    }
}
