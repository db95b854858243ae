#include "harness/train/stages.h"

#include "harness/train/trainer.h"
#include "kernels/hostmem.h"

#include <string.h>

enum oom_status oom_stages_create(struct oom_stages *stages, int count, size_t stage_bytes) {
    *stages = (struct oom_stages){.count = count, .stage_bytes = stage_bytes};
    stages->kept = oom_host_calloc((size_t)count, stage_bytes);
    stages->boundary = oom_host_calloc((size_t)count, sizeof *stages->boundary);
    if (stages->kept != NULL && stages->boundary != NULL) return OOM_OK;
    oom_stages_free(stages);
    return oom_fail(OOM_HOST_NOMEM, "a chain of %d stages", count);
}

void oom_stages_free(struct oom_stages *stages) {
    oom_host_free(stages->kept);
    oom_host_free(stages->boundary);
    *stages = (struct oom_stages){0};
}

void oom_stages_forget(struct oom_stages *stages) {
    memset(stages->kept, 0, (size_t)stages->count * stages->stage_bytes);
    memset(stages->boundary, 0, (size_t)stages->count * sizeof *stages->boundary);
}

/* ---- one stage ---- */

static struct oom_stage stage_of(struct oom_trainer *t, int i) {
    struct oom_stages *stages = &t->stages;
    return (struct oom_stage){
        .index = i,
        .in = i == 0 ? &t->batch.inputs : &stages->boundary[i],
        .out = i + 1 < stages->count ? &stages->boundary[i + 1] : NULL,
        .kept = stages->kept + (size_t)i * stages->stage_bytes,
    };
}

static enum oom_status forward(struct oom_trainer *t, int i, struct oom_keeping keeping) {
    struct oom_stage stage = stage_of(t, i);
    t->stages.keeping = keeping;
    return oom_trainer_model(t)->forward(t, &stage);
}

static enum oom_status backward(struct oom_trainer *t, int i, struct oom_tensor *gradient) {
    struct oom_stage stage = stage_of(t, i);
    return oom_trainer_model(t)->backward(t, &stage, gradient);
}

/* ---- the whole ---- */

enum oom_status oom_stages_forward(struct oom_trainer *t) {
    bool keep = !t->evaluating;
    for (int i = 0; i < t->stages.count; i++) {
        OOM_TRY(forward(t, i, (struct oom_keeping){.saved = keep, .input = keep}));
    }
    return OOM_OK;
}

enum oom_status oom_stages_backward(struct oom_trainer *t) {
    struct oom_tensor gradient = {0};
    for (int i = t->stages.count - 1; i >= 0; i--) OOM_TRY(backward(t, i, &gradient));
    return OOM_OK;
}
