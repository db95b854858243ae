#include "harness/train/checkpoint-schedule.h"

#include "kernels/hostmem.h"

const char *oom_checkpoint_kind_name(enum oom_checkpoint_kind kind) {
    static const char *const names[] = {
#define X(name, prose) #name,
        OOM_CHECKPOINT_MAP(X)
#undef X
    };
    return kind < OOM_CHECKPOINT_KIND_COUNT ? names[kind] : "unknown";
}

void oom_checkpoint_schedule_free(struct oom_checkpoint_schedule *schedule) {
    oom_host_free(schedule->ops);
    *schedule = (struct oom_checkpoint_schedule){0};
}

/* ---- writing ---- */

static enum oom_status grow(struct oom_checkpoint_schedule *schedule) {
    int capacity = schedule->capacity > 0 ? 2 * schedule->capacity : 64;
    void *ops = oom_host_realloc(schedule->ops, (size_t)capacity * sizeof *schedule->ops);
    if (ops == NULL) return oom_fail(OOM_HOST_NOMEM, "a schedule of %d operations", capacity);
    schedule->ops = ops;
    schedule->capacity = capacity;
    return OOM_OK;
}

enum oom_status oom_checkpoint_append(struct oom_checkpoint_schedule *schedule,
                                      enum oom_checkpoint_kind kind, int stage) {
    if (schedule->count == schedule->capacity) OOM_TRY(grow(schedule));
    schedule->ops[schedule->count++] = (struct oom_checkpoint_op){kind, stage};
    return OOM_OK;
}

enum oom_status oom_checkpoint_append_run(struct oom_checkpoint_schedule *schedule, int first,
                                          int end) {
    OOM_TRY(oom_checkpoint_append(schedule, OOM_CHECKPOINT_FORWARD_CHECK, first));
    for (int i = first + 1; i < end; i++) {
        OOM_TRY(oom_checkpoint_append(schedule, OOM_CHECKPOINT_FORWARD_FREE, i));
    }
    return OOM_OK;
}

enum oom_status oom_checkpoint_append_saved(struct oom_checkpoint_schedule *schedule, int first,
                                            int end) {
    for (int i = first; i < end; i++) {
        OOM_TRY(oom_checkpoint_append(schedule, OOM_CHECKPOINT_FORWARD_SAVE, i));
    }
    for (int i = end - 1; i >= first; i--) {
        OOM_TRY(oom_checkpoint_append(schedule, OOM_CHECKPOINT_BACKWARD, i));
    }
    return OOM_OK;
}

/* ---- schedules that need no search ---- */

int oom_checkpoint_sqrt(int stages) {
    int s = 0;
    while ((int64_t)s * s < stages) s++;
    return s;
}

static enum oom_status append_segments(const struct oom_checkpoint_chain *chain, int segments,
                                       struct oom_checkpoint_schedule *out) {
    int n = chain->count, last = (segments - 1) * n / segments;
    for (int k = 0; k + 1 < segments; k++) {
        OOM_TRY(oom_checkpoint_append_run(out, k * n / segments, (k + 1) * n / segments));
    }
    OOM_TRY(oom_checkpoint_append_saved(out, last, n));
    for (int k = segments - 2; k >= 0; k--) {
        OOM_TRY(oom_checkpoint_append_saved(out, k * n / segments, (k + 1) * n / segments));
    }
    return OOM_OK;
}

enum oom_status oom_checkpoint_segments(const struct oom_checkpoint_chain *chain, int segments,
                                        struct oom_checkpoint_schedule *out) {
    *out = (struct oom_checkpoint_schedule){0};
    OOM_TRY(oom_checkpoint_chain_check(chain));
    if (segments < 1 || segments > chain->count) {
        return oom_fail(OOM_USAGE, "checkpoints: %d segments asked for, 1 to %d are possible",
                        segments, chain->count);
    }
    enum oom_status status = append_segments(chain, segments, out);
    if (status != OOM_OK) oom_checkpoint_schedule_free(out);
    return status;
}

enum oom_status oom_checkpoint_none(const struct oom_checkpoint_chain *chain,
                                    struct oom_checkpoint_schedule *out) {
    return oom_checkpoint_segments(chain, 1, out);
}
