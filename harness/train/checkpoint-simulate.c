#include "harness/train/checkpoint-plan.h"
#include "kernels/hostmem.h"

#include <inttypes.h>

/* ---- the description ---- */

static enum oom_status stage_check(const struct oom_checkpoint_stage *stage, int i, uint64_t input,
                                   uint64_t gradient) {
    static const enum oom_checkpoint_kind kinds[] = {
        OOM_CHECKPOINT_FORWARD_FREE, OOM_CHECKPOINT_FORWARD_CHECK, OOM_CHECKPOINT_FORWARD_SAVE,
        OOM_CHECKPOINT_BACKWARD};
    const uint64_t makes[] = {stage->output, stage->output, stage->output + stage->saved,
                              stage->gradient + stage->left};
    const uint64_t frees[] = {input, 0, 0, gradient + stage->saved + stage->output + input};
    for (int k = 0; k < OOM_CHECKPOINT_KIND_COUNT; k++) {
        if (stage->peak[kinds[k]] + frees[k] >= makes[k]) continue;
        return oom_fail(OOM_USAGE,
                        "chain: stage %d: the peak of %s is %" PRIu64
                        " bytes, yet it leaves %" PRIu64 " and frees at most %" PRIu64,
                        i, oom_checkpoint_kind_name(kinds[k]), stage->peak[kinds[k]], makes[k],
                        frees[k]);
    }
    return OOM_OK;
}

/* Sums of any figures then stay far from the end of 64 bits, also times the number of stages. */
static bool small(uint64_t figure) {
    return figure <= UINT64_C(1) << 48;
}

static enum oom_status range_check(const struct oom_checkpoint_chain *chain) {
    double flops = 0;
    bool all = small(chain->fixed) && small(chain->input);
    for (int i = 0; i < chain->count; i++) {
        const struct oom_checkpoint_stage *stage = &chain->stages[i];
        all = all && small(stage->output) && small(stage->saved) && small(stage->gradient) &&
              small(stage->left);
        for (int k = 0; k < OOM_CHECKPOINT_KIND_COUNT; k++) all = all && small(stage->peak[k]);
        if (!all) return oom_fail(OOM_USAGE, "chain: stage %d: more than 2^48 bytes", i);
        flops += (double)stage->forward_flops + (double)stage->backward_flops;
    }
    if (flops * chain->count <= 0x1p60) return OOM_OK;
    return oom_fail(OOM_USAGE, "chain: a step of %.3g flops, at most %.3g are possible", flops,
                    0x1p60 / chain->count);
}

enum oom_status oom_checkpoint_chain_check(const struct oom_checkpoint_chain *chain) {
    if (chain->count < 1 || chain->count > OOM_CHECKPOINT_STAGES) {
        return oom_fail(OOM_USAGE, "chain: %d stages, 1 to %d are possible", chain->count,
                        OOM_CHECKPOINT_STAGES);
    }
    OOM_TRY(range_check(chain));
    for (int i = 0; i < chain->count; i++) {
        uint64_t input = i > 0 ? chain->stages[i - 1].output : chain->input;
        uint64_t gradient = i + 1 < chain->count ? chain->stages[i + 1].gradient : 0;
        OOM_TRY(stage_check(&chain->stages[i], i, input, gradient));
    }
    return OOM_OK;
}

/* ---- one operation ---- */

/* Of the boundary x(i) and of stage i. */
struct place {
    bool present; /* x(i) */
    bool kept;    /* x(i) lives until its backward */
    bool saved;   /* what stage i's forward saved */
    bool run;     /* stage i's forward has run */
};

struct run {
    const struct oom_checkpoint_chain *chain;
    struct place *places; /* (count + 1) */
    int undone;           /* backwards still to come: those of the stages below */
    uint64_t live;        /* bytes */
    int op;               /* its number */
    struct oom_checkpoint_outcome outcome;
};

static uint64_t boundary_bytes(const struct run *run, int i) {
    return i > 0 ? run->chain->stages[i - 1].output : run->chain->input;
}

static enum oom_status refuse(const struct run *run, struct oom_checkpoint_op op, const char *why,
                              int boundary) {
    return oom_fail(OOM_INVALID, "schedule: operation %d, %s(%d): x(%d) %s", run->op,
                    oom_checkpoint_kind_name(op.kind), op.stage, boundary, why);
}

static void drop(struct run *run, int i) {
    struct place *place = &run->places[i];
    if (!place->present) return;
    place->present = place->kept = false;
    run->live -= boundary_bytes(run, i);
}

static void note_peak(struct run *run, struct oom_checkpoint_op op) {
    uint64_t bytes = run->live + run->chain->stages[op.stage].peak[op.kind];
    if (bytes <= run->outcome.peak) return;
    run->outcome.peak = bytes;
    run->outcome.peak_op = run->op;
}

static void count_forward(struct run *run, int i) {
    run->outcome.flops += run->chain->stages[i].forward_flops;
    if (run->places[i].run) {
        run->outcome.extra_flops += run->chain->stages[i].forward_flops;
        run->outcome.extra_forwards++;
    }
    run->places[i].run = true;
}

static enum oom_status forward(struct run *run, struct oom_checkpoint_op op) {
    int i = op.stage;
    struct place *in = &run->places[i], *out = &run->places[i + 1];
    bool save = op.kind == OOM_CHECKPOINT_FORWARD_SAVE;
    bool free = op.kind == OOM_CHECKPOINT_FORWARD_FREE;
    if (!in->present) return refuse(run, op, "is not there", i);
    if (i >= run->undone) return refuse(run, op, "has no backward to come", i);
    if (out->present || in->saved) return refuse(run, op, "has been made already", i + 1);
    if (free && in->kept) return refuse(run, op, "is kept until its backward", i);
    note_peak(run, op);
    count_forward(run, i);
    out->present = true;
    out->kept = save;
    run->live += boundary_bytes(run, i + 1);
    in->kept = true;
    in->saved = save;
    if (save) run->live += run->chain->stages[i].saved;
    if (free) drop(run, i);
    return OOM_OK;
}

/* x(i) is read on by the backward of the stage that made it. */
static bool read_on(const struct run *run, int i) {
    return i == 0 || (run->places[i - 1].saved && run->chain->stages[i - 1].reads_output);
}

static enum oom_status backward(struct run *run, struct oom_checkpoint_op op) {
    int i = op.stage, n = run->chain->count;
    const struct oom_checkpoint_stage *stage = &run->chain->stages[i];
    struct place *in = &run->places[i], *out = &run->places[i + 1];
    if (i + 1 != run->undone) return refuse(run, op, "has no gradient yet, or no longer", i + 1);
    if (!in->present) return refuse(run, op, "is not there", i);
    if (!in->saved) return refuse(run, op, "was made without saving", i + 1);
    if ((stage->reads_output || i + 1 == n) && !out->present) {
        return refuse(run, op, "is not there", i + 1);
    }
    note_peak(run, op);
    run->live += stage->gradient + stage->left;
    run->live -= stage->saved + (i + 1 < n ? run->chain->stages[i + 1].gradient : 0);
    run->outcome.flops += stage->backward_flops;
    in->saved = false;
    drop(run, i + 1);
    if (!read_on(run, i)) drop(run, i);
    run->undone = i;
    return OOM_OK;
}

/* ---- the whole ---- */

static enum oom_status all_ops(struct run *run, const struct oom_checkpoint_schedule *schedule) {
    for (; run->op < schedule->count; run->op++) {
        struct oom_checkpoint_op op = schedule->ops[run->op];
        if (op.stage < 0 || op.stage >= run->chain->count || op.kind >= OOM_CHECKPOINT_KIND_COUNT) {
            return oom_fail(OOM_INVALID, "schedule: operation %d: %s, stage %d of %d", run->op,
                            oom_checkpoint_kind_name(op.kind), op.stage, run->chain->count);
        }
        OOM_TRY(op.kind == OOM_CHECKPOINT_BACKWARD ? backward(run, op) : forward(run, op));
    }
    return OOM_OK;
}

/* What stays: the input, its gradient, what the backwards leave for good. */
static enum oom_status end_check(const struct run *run) {
    const struct oom_checkpoint_chain *chain = run->chain;
    uint64_t rest = chain->fixed + chain->input + chain->stages[0].gradient;
    if (run->undone > 0) {
        return oom_fail(OOM_INVALID, "schedule: it ends before the backward of stage %d",
                        run->undone - 1);
    }
    for (int i = 0; i < chain->count; i++) rest += chain->stages[i].left;
    if (run->live == rest) return OOM_OK;
    return oom_fail(OOM_INVALID, "schedule: %" PRIu64 " bytes live at its end, not %" PRIu64,
                    run->live, rest);
}

enum oom_status oom_checkpoint_simulate(const struct oom_checkpoint_chain *chain,
                                        const struct oom_checkpoint_schedule *schedule,
                                        struct oom_checkpoint_outcome *out) {
    *out = (struct oom_checkpoint_outcome){0};
    OOM_TRY(oom_checkpoint_chain_check(chain));
    struct run run = {.chain = chain, .undone = chain->count, .live = chain->fixed + chain->input};
    run.places = oom_host_calloc((size_t)chain->count + 1, sizeof *run.places);
    if (run.places == NULL) return oom_fail(OOM_HOST_NOMEM, "a chain of %d stages", chain->count);
    run.places[0] = (struct place){.present = true, .kept = true};
    enum oom_status status = all_ops(&run, schedule);
    if (status == OOM_OK) status = end_check(&run);
    oom_host_free(run.places);
    *out = run.outcome;
    return status;
}
