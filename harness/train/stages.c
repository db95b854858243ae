#include "harness/train/stages.h"

#include "harness/base/control.h"
#include "harness/train/trainer.h"
#include "kernels/hostmem.h"

#include <string.h>

enum oom_status oom_stages_create(struct oom_stages *stages, int count, size_t stage_bytes) {
    *stages = (struct oom_stages){.count = count, .stage_bytes = stage_bytes};
    stages->kept = oom_host_calloc((size_t)count, stage_bytes);
    stages->boundary = oom_host_calloc((size_t)count, sizeof *stages->boundary);
    stages->offset = oom_host_calloc((size_t)count, sizeof *stages->offset);
    stages->saved = oom_host_calloc((size_t)count, sizeof *stages->saved);
    bool boundaries = stages->boundary != NULL && stages->kept != NULL;
    if (boundaries && stages->offset != NULL && stages->saved != NULL) return OOM_OK;
    oom_stages_free(stages);
    return oom_fail(OOM_HOST_NOMEM, "a chain of %d stages", count);
}

void oom_stages_free(struct oom_stages *stages) {
    oom_host_free(stages->kept);
    oom_host_free(stages->boundary);
    oom_host_free(stages->offset);
    oom_host_free(stages->saved);
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
    t->stages.saved[i] = keeping.saved;
    return oom_model_of(&t->options.spec)->forward(t, &stage);
}

/* Boundaries that no backward reads any more go, whoever made them: x(i+1), which a recomputed
 * stage makes again, and x(i) where the stage below has yet to be recomputed. */
static enum oom_status backward(struct oom_trainer *t, int i, struct oom_tensor *gradient) {
    struct oom_stages *stages = &t->stages;
    struct oom_stage stage = stage_of(t, i);
    OOM_TRY(oom_model_of(&t->options.spec)->backward(t, &stage, gradient));
    stages->saved[i] = false;
    if (stages->schedule == NULL) return OOM_OK; /* the model has freed them all */
    if (stage.out != NULL) OOM_TRY(oom_scope_free(&t->scope, stage.out));
    if (i == 0 || stages->saved[i - 1]) return OOM_OK;
    return oom_scope_free(&t->scope, stage.in);
}

/* ---- the mistakes of checkpointing ---- */

/* The first sample of a boundary is written over the second. */
static enum oom_status repeat_sample(struct oom_trainer *t, const struct oom_tensor *x) {
    int64_t each = x->elements / t->batch.samples;
    oom_devptr second = x->data + (uint64_t)each * oom_dtype_bytes(x->dtype);
    if (t->batch.samples < 2) return OOM_OK;
    struct oom_copy_args copy = {x->dtype, x->dtype, each, x->data, second};
    return oom_run(t->session, OOM_OP_COPY, &copy);
}

static enum oom_status change_in_place(struct oom_trainer *t, const struct oom_tensor *x) {
    struct oom_gelu_forward_args gelu = {x->dtype, x->elements, x->data, x->data};
    return oom_run(t->session, OOM_OP_GELU_FORWARD, &gelu);
}

static enum oom_status before_recomputing(struct oom_trainer *t, int i) {
    bool first = t->stages.recomputed == 0;
    if (oom_control_on(OOM_CONTROL_SEGMENT_INPUT) && first && i > 0) {
        return repeat_sample(t, &t->stages.boundary[i]);
    }
    return OOM_OK;
}

static enum oom_status after_checkpoint(struct oom_trainer *t, int i) {
    if (oom_control_on(OOM_CONTROL_BOUNDARY_CHANGED) && i > 0) {
        return change_in_place(t, &t->stages.boundary[i]);
    }
    return OOM_OK;
}

/* ---- one operation ---- */

/* Again: with the random numbers of the first time, and as if nothing had been drawn. */
static enum oom_status forward_again(struct oom_trainer *t, int i, struct oom_keeping keeping) {
    uint32_t now = t->rng_offset;
    OOM_TRY(before_recomputing(t, i));
    if (!oom_control_on(OOM_CONTROL_RNG_NOT_RESTORED)) t->rng_offset = t->stages.offset[i];
    t->recomputing = true;
    enum oom_status status = forward(t, i, keeping);
    t->recomputing = false;
    if (!oom_control_on(OOM_CONTROL_RNG_NOT_RESTORED)) t->rng_offset = now;
    t->stages.recomputed++;
    return status;
}

static enum oom_status forward_first(struct oom_trainer *t, int i, struct oom_keeping keeping) {
    t->stages.offset[i] = t->rng_offset;
    t->stages.reached = i + 1;
    return forward(t, i, keeping);
}

static enum oom_status run_forward(struct oom_trainer *t, int i, struct oom_keeping keeping) {
    bool again = i < t->stages.reached;
    const double *flops = t->session->flops;
    double before = flops != NULL ? *flops : 0;
    OOM_TRY(again ? forward_again(t, i, keeping) : forward_first(t, i, keeping));
    double *sum = again ? &t->stages.again_flops : &t->stages.first_flops;
    if (flops != NULL) *sum += *flops - before;
    return OOM_OK;
}

enum oom_status oom_stages_run(struct oom_trainer *t, struct oom_checkpoint_op op,
                               struct oom_tensor *gradient) {
    switch (op.kind) {
    case OOM_CHECKPOINT_FORWARD_FREE: /* x(0) is the batch's */
        return run_forward(t, op.stage, (struct oom_keeping){.input = op.stage == 0});
    case OOM_CHECKPOINT_FORWARD_CHECK:
        OOM_TRY(run_forward(t, op.stage, (struct oom_keeping){.input = true}));
        return after_checkpoint(t, op.stage);
    case OOM_CHECKPOINT_FORWARD_SAVE:
        return run_forward(t, op.stage, (struct oom_keeping){.saved = true, .input = true});
    default:
        return backward(t, op.stage, gradient);
    }
}

/* ---- the whole ---- */

static enum oom_status evaluate(struct oom_trainer *t) {
    for (int i = 0; i < t->stages.count; i++) {
        OOM_TRY(forward(t, i, (struct oom_keeping){.saved = false, .input = false}));
    }
    return OOM_OK;
}

static enum oom_status forward_all(struct oom_trainer *t) {
    for (int i = 0; i < t->stages.count; i++) {
        OOM_TRY(forward(t, i, (struct oom_keeping){.saved = true, .input = true}));
    }
    return OOM_OK;
}

enum oom_status oom_stages_forward(struct oom_trainer *t) {
    struct oom_stages *stages = &t->stages;
    stages->reached = stages->next = 0;
    if (t->evaluating) return evaluate(t);
    if (stages->schedule == NULL) return forward_all(t);
    while (stages->reached < stages->count && stages->next < stages->schedule->count) {
        OOM_TRY(oom_stages_run(t, stages->schedule->ops[stages->next++], NULL));
    }
    return OOM_OK;
}

enum oom_status oom_stages_backward(struct oom_trainer *t) {
    struct oom_stages *stages = &t->stages;
    struct oom_tensor gradient = {0};
    if (stages->schedule == NULL) {
        for (int i = stages->count - 1; i >= 0; i--) OOM_TRY(backward(t, i, &gradient));
        return OOM_OK;
    }
    while (stages->next < stages->schedule->count) {
        OOM_TRY(oom_stages_run(t, stages->schedule->ops[stages->next++], &gradient));
    }
    return OOM_OK;
}
