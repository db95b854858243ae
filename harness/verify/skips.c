#include "harness/verify/skips.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static enum oom_status count_nonfinite(void *context, const void *data, size_t bytes) {
    const float *value = data;
    uint64_t *count = context;
    for (size_t i = 0; i < bytes / sizeof *value; i++) *count += !isfinite(value[i]);
    return OOM_OK;
}

enum oom_status oom_skip_ready(struct oom_skip_watch *watch, struct oom_trainer *t,
                               const struct oom_state_print *now) {
    watch->left_out = true;
    watch->ready = *now;
    watch->nonfinite = 0;
    for (int i = 0; i < t->parameter_count; i++) {
        const struct oom_parameter *p = &t->parameters[i];
        if (p->gradient.data == 0) continue;
        uint64_t bytes = (uint64_t)oom_parameter_n(p) * sizeof(float);
        OOM_TRY(
            oom_tensor_read(t->session, p->gradient, bytes, count_nonfinite, &watch->nonfinite));
    }
    return OOM_OK;
}

/* NULL when the step left out left what it should. */
static const char *wrong_of(const struct oom_skip_watch *watch,
                            const struct oom_state_print *before,
                            const struct oom_state_print *after) {
    uint64_t one_step = 1; /* random numbers are keyed by a step, in the lower half */
    if (watch->nonfinite == 0) return "a step with finite gradients was left out";
    if (after->weights != before->weights) return "weights changed";
    if (after->optimizer != before->optimizer) return "optimizer state changed";
    if (after->statistics != watch->ready.statistics) {
        return "batch statistics are not those that the forward left";
    }
    if (after->random != watch->ready.random + one_step) {
        return "random numbers are not those that the forward left";
    }
    if (!after->gradients_clear) return "gradients were not cleared";
    if (after->allocated != before->allocated) return "allocated bytes differ";
    return NULL;
}

/* The scale and the clean steps since it changed, in a state's form. */
static uint64_t scale_after(const struct oom_trainer *t, uint64_t before, bool left_out) {
    const struct oom_scaler_options *o = &t->options.scaler;
    uint32_t bits = (uint32_t)before, clean = (uint32_t)(before >> 32) + 1;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    if (left_out) {
        scale = (float)((double)scale * o->backoff);
        clean = 0;
    } else if (clean == (uint32_t)o->interval) {
        float grown = (float)((double)scale * o->growth);
        if (isfinite(grown)) scale = grown;
        clean = 0;
    }
    memcpy(&bits, &scale, sizeof bits);
    return (uint64_t)clean << 32 | bits;
}

static void note(struct oom_job_result *result, int step, const char *wrong) {
    result->skip_checks++;
    if (wrong == NULL) return;
    result->skip_bad++;
    snprintf(result->skip_why, sizeof result->skip_why, "step %d: %s", step, wrong);
}

enum oom_status oom_skip_after(struct oom_skip_watch *watch, struct oom_trainer *t,
                               const struct oom_state_print *before, int step,
                               struct oom_job_result *result) {
    struct oom_state_print after;
    bool left_out = watch->left_out;
    watch->left_out = false;
    if (!t->scaler.on) return OOM_OK;
    uint32_t bits = (uint32_t)before->scale;
    memcpy(&result->steps[step].scale, &bits, sizeof bits);
    result->steps[step].skipped = left_out;
    result->skipped += left_out;
    OOM_TRY(oom_state_take(t, &after));
    const char *wrong = left_out ? wrong_of(watch, before, &after) : NULL;
    if (wrong == NULL && after.scale != scale_after(t, before->scale, left_out)) {
        wrong = "the loss scale is not the one that GradScaler would have";
    }
    note(result, step, wrong);
    return OOM_OK;
}
