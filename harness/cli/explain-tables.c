#include "harness/cli/explain-tables.h"

#include "harness/base/sizes.h"
#include "harness/train/checkpoint.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void append(char out[OOM_EXPLAIN_TABLE_MAX], const char *format, ...) {
    size_t used = strlen(out);
    va_list values;
    va_start(values, format);
    vsnprintf(out + used, OOM_EXPLAIN_TABLE_MAX - used, format, values);
    va_end(values);
}

static enum oom_status plan(const struct oom_job *job, struct oom_trainer_options trainer,
                            struct oom_plan *out) {
    struct oom_plan_request request = {.trainer = trainer,
                                       .settings = job->settings,
                                       .capacity = OOM_PLAN_UNLIMITED,
                                       .samples = job->samples,
                                       .size = job->samples,
                                       .steps = 2};
    request.settings.expandable_segments = true; /* live blocks are tensors, cut to 512 bytes */
    return oom_plan_run(&request, out);
}

/* ---- depth ---- */

enum { SHALLOWEST = 8, DEEPEST = 128 };

static enum oom_status depth_row(const struct oom_job *job, int64_t layers,
                                 char out[OOM_EXPLAIN_TABLE_MAX]) {
    struct oom_trainer_options trainer = job->trainer;
    struct oom_plan all, some;
    char saved[16], kept[16];
    trainer.spec.layers = layers;
    trainer.checkpointing = OOM_CHECKPOINTING_OFF;
    OOM_TRY(plan(job, trainer, &all));
    trainer.checkpointing = OOM_CHECKPOINTING_SQRT;
    OOM_TRY(plan(job, trainer, &some));
    int stages = oom_model_of(&trainer.spec)->stages(&trainer.spec);
    uint64_t peak = some.tag_at_peak[OOM_TAG_ACTIVATION];
    append(out, "%6lld  %6d  %10s  %13s  %19.2f  %8.3f\n", (long long)layers, stages,
           oom_size_format(all.tag_at_peak[OOM_TAG_ACTIVATION], saved, sizeof saved),
           oom_size_format(peak, kept, sizeof kept), (double)peak / sqrt(stages) / (1 << 20),
           some.extra_forward);
    return OOM_OK;
}

enum oom_status oom_explain_depths(const struct oom_job *job, char out[OOM_EXPLAIN_TABLE_MAX]) {
    out[0] = 0;
    append(out, "layers  stages   all saved  sqrt segments  MiB by sqrt(stages)  forwards\n");
    for (int64_t layers = SHALLOWEST; layers <= DEEPEST; layers *= 2) {
        OOM_TRY(depth_row(job, layers, out));
    }
    return OOM_OK;
}

/* ---- budgets ---- */

enum { BUDGETS = 6 };

static enum oom_status budget_row(const struct oom_job *job, uint64_t budget,
                                  char out[OOM_EXPLAIN_TABLE_MAX]) {
    struct oom_trainer_options trainer = job->trainer;
    struct oom_plan made;
    char size[16], peak[16];
    trainer.checkpointing = OOM_CHECKPOINTING_BUDGET;
    trainer.checkpoint_budget = budget;
    OOM_TRY(plan(job, trainer, &made));
    append(out, "%10s  %10s  %8d  %8.3f  %7.0f %%\n", oom_size_format(budget, size, sizeof size),
           oom_size_format(made.peak_allocated, peak, sizeof peak), made.recomputed,
           made.extra_forward, 100 * made.extra_step);
    return OOM_OK;
}

enum oom_status oom_explain_budgets(const struct oom_job *job, char out[OOM_EXPLAIN_TABLE_MAX]) {
    struct oom_checkpoint_chain chain;
    struct oom_trainer_options trainer = job->trainer;
    struct oom_plan all;
    uint64_t least = 0;
    out[0] = 0;
    trainer.checkpointing = OOM_CHECKPOINTING_OFF;
    OOM_TRY(plan(job, trainer, &all));
    OOM_TRY(oom_checkpoint_describe(&trainer, job->dtype, job->samples, false, &chain));
    enum oom_status status = oom_checkpoint_minimum(&chain, &least);
    oom_checkpoint_chain_free(&chain);
    OOM_TRY(status);
    append(out, "    budget   live peak     again  forwards  more work\n");
    for (int i = 0; i <= BUDGETS; i++) {
        uint64_t more = (all.peak_allocated - least) / BUDGETS * (uint64_t)i;
        OOM_TRY(budget_row(job, i < BUDGETS ? least + more : all.peak_allocated, out));
    }
    return OOM_OK;
}
