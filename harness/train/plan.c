#include "harness/train/plan.h"

#include "harness/base/control.h"

/* Everything a plan makes and must give back. */
struct stage {
    const struct oom_plan_request *request;
    struct oom_source source;
    struct oom_session session;
    struct oom_trainer *trainer;
    struct oom_sizing sizing;
    double flops;
};

static void make_window(void *context, int64_t samples, struct oom_window *out) {
    struct stage *stage = context;
    oom_window_init(out, &stage->request->trainer.spec, &stage->source, samples, 1, false);
}

static enum oom_status take_foreign(struct stage *stage) {
    uint64_t bytes = stage->request->foreign;
    if (bytes == 0 || oom_control_on(OOM_CONTROL_TOTAL_NOT_FREE)) return OOM_OK;
    oom_devptr ptr;
    struct oom_device *device = stage->session.device;
    return device->api->alloc(device, bytes, &ptr);
}

static enum oom_status run_steps(struct stage *stage) {
    const struct oom_plan_request *request = stage->request;
    OOM_TRY(take_foreign(stage));
    for (int i = 0; i < request->neighbour_count; i++) {
        oom_devptr ptr;
        OOM_TRY(oom_allocator_alloc(stage->session.allocator, request->neighbours[i], NULL,
                                    OOM_TAG_OTHER, "neighbour", &ptr));
    }
    OOM_TRY(oom_trainer_create(&stage->session, &request->trainer, &stage->trainer));
    stage->sizing = (struct oom_sizing){.rule = OOM_RULE_FIXED,
                                        .micro = request->micro,
                                        .uneven = request->uneven,
                                        .most = request->size};
    struct oom_windows windows = {stage, make_window};
    for (int step = 0; step < request->steps; step++) {
        stage->flops = 0;
        OOM_TRY(oom_sized_step(&stage->sizing, stage->trainer, step, request->samples,
                               request->samples, windows));
    }
    return OOM_OK;
}

/* Of the flops computed again, those that a better schedule might not have, if there is one. */
static double unproven_part(const struct oom_checkpoint_schedule *schedule) {
    if (schedule == NULL || schedule->proof.flops == 0) return 0;
    return 1 - (double)schedule->proof.least / (double)schedule->proof.flops;
}

static void fill_in(struct stage *stage, struct oom_plan *out) {
    struct oom_memory_info info;
    stage->session.device->api->memory_info(stage->session.device, &info);
    const struct oom_allocator_stats *stats = oom_allocator_stats(stage->session.allocator);
    out->peak_device = info.peak;
    out->peak_reserved = (uint64_t)stats->reserved_bytes[OOM_POOL_ALL].peak;
    out->peak_allocated = (uint64_t)stats->allocated_bytes[OOM_POOL_ALL].peak;
    for (int i = 0; i < OOM_TAG_COUNT; i++) out->tag_at_peak[i] = stats->tag_at_peak[i];
    if (stage->trainer == NULL) return;
    const struct oom_stages *stages = &stage->trainer->stages;
    out->recomputed = stages->recomputed;
    if (stages->first_flops > 0) out->extra_forward = stages->again_flops / stages->first_flops;
    out->unproven = out->extra_forward * unproven_part(stages->schedule);
    double rest = stage->flops - stages->again_flops;
    if (rest > 0) out->extra_step = stages->again_flops / rest;
}

/* Before the first attempt (setup does not fit) there is no record of one. */
static void fill_in_failure(struct stage *stage, struct oom_plan *out) {
    int count = stage->sizing.attempt_count;
    out->failed = (struct oom_attempt){.status = OOM_NOMEM, .size = stage->request->size};
    if (count > 0) {
        out->failed = stage->sizing.attempts[count - 1];
    } else {
        out->failed.report = *oom_allocator_report(stage->session.allocator);
    }
}

enum oom_status oom_plan_run(const struct oom_plan_request *request, struct oom_plan *out) {
    struct stage stage = {.request = request, .source = {.seed = 1, .file = -1}};
    struct oom_device_options options = {.capacity = request->capacity};
    struct oom_allocator_settings settings = request->settings;
    settings.trace_entries = 0;
    *out = (struct oom_plan){0};
    OOM_TRY(oom_dry_open(&options, &stage.session.device));
    stage.session.dtype = OOM_F32;
    stage.session.flops = &stage.flops;
    enum oom_status status =
        oom_allocator_create(stage.session.device, &settings, &stage.session.allocator);
    if (status == OOM_OK) {
        status = run_steps(&stage);
        fill_in(&stage, out);
        out->fits = status == OOM_OK;
        if (status == OOM_NOMEM) {
            fill_in_failure(&stage, out);
            oom_failure_clear();
            status = OOM_OK;
        }
    }
    oom_trainer_destroy(stage.trainer);
    oom_allocator_destroy(stage.session.allocator);
    oom_device_close(stage.session.device);
    return status;
}
