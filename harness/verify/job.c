/*
 * job.c: a training run under observation. What it trains is harness/train's; here are the device,
 * the neighbours (canaries, a foreign consumer), the checks around each step and the figures.
 */
#include "harness/verify/job.h"

#include "harness/base/fingerprint.h"
#include "harness/verify/branches.h"
#include "harness/verify/canary.h"
#include "harness/verify/recording.h"
#include "harness/verify/skips.h"
#include "kernels/hostmem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct run {
    const struct oom_job *job;
    struct oom_job_result *result;
    struct oom_source source;
    struct oom_session session;
    struct oom_canaries canaries;
    struct oom_trainer *trainer;
    struct oom_loop loop;
    struct oom_sizing sizing;
    struct oom_state_print before; /* the step in hand */
    struct oom_skip_watch skip;
    double flops;     /* of every op so far */
    uint64_t foreign; /* bytes held now, as the device rounds */
    uint64_t scratch;
    struct oom_injector injector;
    uint64_t calls_before; /* of alloc, before the steps */
    bool in_step;          /* `before` is of the step in hand */
    int step;
    int branches; /* file of this step's branches; -1: none */
};

/* ---- peaks: whenever what others hold changes, and at the end ---- */

static enum oom_status settle_peaks(struct run *run) {
    struct oom_device *device = run->session.device;
    struct oom_job_result *result = run->result;
    struct oom_memory_info info;
    device->api->memory_info(device, &info);
    const struct oom_allocator_stats *stats = oom_allocator_stats(run->session.allocator);
    uint64_t reserved = (uint64_t)stats->reserved_bytes[OOM_POOL_ALL].peak;
    uint64_t allocated = (uint64_t)stats->allocated_bytes[OOM_POOL_ALL].peak;
    if (info.peak != reserved + run->foreign) result->peaks_agree = false;
    if (info.peak > result->peak_device) result->peak_device = info.peak;
    if (reserved > result->peak_reserved) result->peak_reserved = reserved;
    if (allocated > result->peak_allocated) {
        result->peak_allocated = allocated;
        memcpy(result->tag_at_peak, stats->tag_at_peak, sizeof result->tag_at_peak);
    }
    if (run->foreign > result->foreign) result->foreign = run->foreign;
    oom_allocator_reset_peaks(run->session.allocator);
    device->api->reset_peak(device);
    return OOM_OK;
}

/* A line of /proc/self/status in bytes; 0 where it is not known. */
static uint64_t status_bytes(const char *name) {
    FILE *file = fopen("/proc/self/status", "re");
    if (file == NULL) return 0;
    char line[128];
    unsigned long long kib = 0;
    size_t n = strlen(name);
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, name, n) == 0 && sscanf(line + n, ": %llu kB", &kib) == 1) break;
    }
    fclose(file);
    return kib * 1024;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const bool resident_means_something = false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
static const bool resident_means_something = false;
#else
static const bool resident_means_something = true;
#endif
#else
static const bool resident_means_something = true;
#endif

static bool under_valgrind(void) {
    const char *preload = getenv("LD_PRELOAD");
    return preload != NULL && strstr(preload, "vgpreload") != NULL;
}

/* Two views of what is resident outside the arena: the highest resident size of all (VmHWM) less
 * the arena's peak, and what is anonymous or from files now, less what is the arena's of it (the
 * rest of the arena is shared memory). The second is looked at around every step, and bounds the
 * first from below where the arena's pages were never all resident at once. */
static void look_at_residents(struct run *run) {
    if (!resident_means_something || under_valgrind()) return;
    struct oom_memory_info info;
    run->session.device->api->memory_info(run->session.device, &info);
    uint64_t now = status_bytes("RssAnon") + status_bytes("RssFile"); /* touched scratch included */
    uint64_t outside = now > info.anonymous ? now - info.anonymous : 0;
    if (outside > run->result->resident_out) run->result->resident_out = outside;
}

static void measure_host(struct run *run) {
    struct oom_job_result *result = run->result;
    uint64_t taken = oom_host_bytes_peak();
    result->host_peak = taken > run->scratch ? taken - run->scratch : 0;
    struct oom_device_properties properties;
    run->session.device->api->properties(run->session.device, &properties);
    look_at_residents(run);
    if (result->resident_out == 0 || !properties.computes) return;
    uint64_t inside = result->peak_device + run->scratch, highest = status_bytes("VmHWM");
    uint64_t outside = highest > inside ? highest - inside : 0;
    if (outside > result->resident_out) result->resident_out = outside;
}

/* ---- what is watched around each step ---- */

static enum oom_status check_canaries(struct run *run) {
    uint64_t damaged = 0;
    OOM_TRY(oom_canaries_check(&run->canaries, &damaged));
    run->result->canary_checks++;
    run->result->canary_bad += damaged;
    OOM_TRY(oom_loop_check(&run->loop, &damaged));
    run->result->kept_bad += damaged;
    if (run->job->settings.guard_bytes == 0) return OOM_OK;
    OOM_TRY(oom_allocator_guards_check(run->session.allocator, &damaged));
    run->result->guard_checks++;
    run->result->guards_bad += damaged;
    return OOM_OK;
}

static enum oom_status before_step(void *context, struct oom_trainer *trainer) {
    struct run *run = context;
    oom_injector_again(&run->injector, run->session.allocator);
    run->in_step = true;
    return oom_state_take(trainer, &run->before);
}

static enum oom_status recovered(void *context, struct oom_trainer *trainer) {
    struct run *run = context;
    struct oom_state_print after;
    OOM_TRY(oom_state_take(trainer, &after));
    look_at_residents(run);
    const char *difference = oom_state_difference(&run->before, &after);
    run->result->restored_checks++;
    run->result->steps[run->step] = (struct oom_job_step){0}; /* what the attempt left is void */
    if (difference != NULL) {
        run->result->restored_bad++;
        snprintf(run->result->restored_why, sizeof run->result->restored_why, "%s", difference);
    }
    oom_injector_again(&run->injector, run->session.allocator);
    return check_canaries(run);
}

static enum oom_status peaks_reset(void *context, struct oom_trainer *trainer) {
    (void)trainer;
    return settle_peaks(context);
}

/* ---- capture: gradients, weights, branches ---- */

static enum oom_status open_for(const struct oom_job *job, const char *what, int step, int *file) {
    char path[OOM_JOB_PATH_MAX + 32];
    oom_job_path(job, what, step, path);
    *file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (*file >= 0) return OOM_OK;
    return oom_fail_native(OOM_IO, errno, "'%s' cannot be written: %s", path, strerror(errno));
}

struct sink {
    int file; /* -1: only the hash */
    struct oom_fingerprint hash;
};

static enum oom_status sink_piece(void *context, const void *data, size_t bytes) {
    struct sink *sink = context;
    oom_fingerprint_update(&sink->hash, data, bytes);
    for (size_t done = 0; sink->file >= 0 && done < bytes;) {
        ssize_t wrote = write(sink->file, (const char *)data + done, bytes - done);
        if (wrote < 0) return oom_fail_native(OOM_IO, errno, "a job's file: %s", strerror(errno));
        done += (size_t)wrote;
    }
    return OOM_OK;
}

enum part { PART_WEIGHTS, PART_GRADIENTS, PART_STATE };

static enum oom_status write_tensor(struct run *run, const struct oom_parameter *p,
                                    struct oom_tensor tensor, struct sink *sink) {
    uint64_t bytes = (uint64_t)oom_parameter_n(p) * oom_dtype_bytes(run->session.dtype);
    if (tensor.data == 0) return OOM_OK;
    return oom_tensor_read(&run->session, tensor, bytes, sink_piece, sink);
}

static enum oom_status write_parts(struct run *run, enum part part, struct sink *sink) {
    for (int i = 0; i < run->trainer->parameter_count; i++) {
        const struct oom_parameter *p = &run->trainer->parameters[i];
        struct oom_tensor first = part == PART_GRADIENTS ? p->gradient : p->value;
        OOM_TRY(write_tensor(run, p, first, sink));
        for (int k = 0; part == PART_STATE && k < OOM_STATES; k++) {
            OOM_TRY(write_tensor(run, p, p->state[k], sink));
        }
    }
    return OOM_OK;
}

/* What else a step leaves behind: batch statistics, random numbers, the loss scale. */
static enum oom_status write_rest_of_state(struct run *run, struct sink *sink) {
    const struct oom_trainer *t = run->trainer;
    for (int i = 0; i < t->statistic_count; i++) {
        const struct oom_statistic *s = &t->statistics[i];
        uint64_t bytes = (uint64_t)s->n * oom_dtype_bytes(run->session.dtype);
        OOM_TRY(oom_tensor_read(&run->session, s->value, bytes, sink_piece, sink));
    }
    const uint32_t random[] = {t->rng_step, t->rng_offset};
    OOM_TRY(sink_piece(sink, &t->optimizer_steps, sizeof t->optimizer_steps));
    OOM_TRY(sink_piece(sink, random, sizeof random));
    OOM_TRY(sink_piece(sink, &t->scaler.scale, sizeof t->scaler.scale));
    return sink_piece(sink, &t->scaler.clean, sizeof t->scaler.clean);
}

/* Writes a file (if captured) of all parameters' weights, gradients or state; gives its hash. */
static enum oom_status capture(struct run *run, enum part part, const char *what, int step,
                               uint64_t *hash) {
    struct sink sink = {.file = -1};
    oom_fingerprint_init(&sink.hash, 0);
    if (run->job->capture) OOM_TRY(open_for(run->job, what, step, &sink.file));
    enum oom_status status = write_parts(run, part, &sink);
    if (status == OOM_OK && part == PART_STATE) status = write_rest_of_state(run, &sink);
    if (sink.file >= 0) close(sink.file);
    *hash = oom_fingerprint_value(&sink.hash);
    return status;
}

/* All gradients of the window are there; the weights must be those of the beginning. */
static enum oom_status gradients_ready(void *context, struct oom_trainer *trainer,
                                       const struct oom_window *window) {
    struct run *run = context;
    struct oom_job_step *step = &run->result->steps[run->step];
    struct oom_state_print now;
    uint64_t ignored;
    look_at_residents(run);
    run->result->recomputed = trainer->stages.recomputed;
    run->result->forward_flops = trainer->stages.first_flops;
    run->result->again_flops = trainer->stages.again_flops;
    OOM_TRY(oom_state_take(trainer, &now));
    run->result->parameter_checks++;
    if (now.weights != run->before.weights) run->result->parameter_bad++;
    if (trainer->scaler.found) return oom_skip_ready(&run->skip, trainer, &now);
    OOM_TRY(capture(run, PART_GRADIENTS, "gradients", run->step, &step->gradients));
    if (run->job->capture) OOM_TRY(capture(run, PART_WEIGHTS, "weights", run->step, &ignored));
    OOM_TRY(oom_trainer_read_loss(trainer, &step->loss));
    step->samples = window->samples;
    step->captured = true;
    return OOM_OK;
}

/* ---- branches: a file of bytes, those of the first occurrence of each identity ---- */

int64_t oom_job_branches_at(const struct oom_job *job, int kink, int64_t sample) {
    const struct oom_model_spec *spec = &job->trainer.spec;
    const struct oom_model *model = oom_model_of(spec);
    int64_t at = 0;
    for (int i = 0; i < kink; i++) at += job->distinct * model->kink_elements(spec, i);
    return at + sample * model->kink_elements(spec, kink);
}

bool oom_job_keeps_branches(const struct oom_job *job) {
    return job->capture && oom_model_of(&job->trainer.spec)->kinks != NULL &&
           job->loop.lengths == OOM_LENGTHS_SAME;
}

enum { BRANCHES = 4096 }; /* of a buffer on the stack */

static enum oom_status store_sample(struct run *run, const struct oom_kink *kink, int64_t place) {
    uint8_t decisions[BRANCHES];
    int64_t to = oom_job_branches_at(run->job, kink->index, kink->begin + place);
    for (int64_t done = 0; done < kink->elements; done += BRANCHES) {
        int64_t n = kink->elements - done < BRANCHES ? kink->elements - done : BRANCHES;
        OOM_TRY(
            oom_branches_read(&run->session, kink, place * kink->elements + done, n, decisions));
        if (pwrite(run->branches, decisions, (size_t)n, (off_t)(to + done)) != (ssize_t)n) {
            return oom_fail_native(OOM_IO, errno, "the file of branches: %s", strerror(errno));
        }
    }
    return OOM_OK;
}

static enum oom_status see_branches(void *context, const struct oom_kink *kink) {
    struct run *run = context;
    int64_t end = run->job->distinct - kink->begin;
    for (int64_t i = 0; run->branches >= 0 && i < kink->samples && i < end; i++) {
        OOM_TRY(store_sample(run, kink, i));
    }
    return OOM_OK;
}

/* ---- planning, for the rule that plans ---- */

static struct oom_plan_request plan_of(const struct oom_job *job, int64_t size) {
    return (struct oom_plan_request){.trainer = job->trainer,
                                     .settings = job->settings,
                                     .capacity = job->capacity,
                                     .foreign = job->foreign,
                                     .neighbours = oom_canary_bytes,
                                     .neighbour_count = OOM_CANARIES,
                                     .samples = job->micro ? job->samples : size,
                                     .size = size,
                                     .micro = job->micro,
                                     .uneven = job->uneven,
                                     .steps = OOM_PLAN_STEPS};
}

static enum oom_status plan_size(void *context, int64_t size, bool *fits) {
    const struct run *run = context;
    struct oom_plan_request request = plan_of(run->job, size);
    struct oom_plan plan;
    OOM_TRY(oom_plan_run(&request, &plan));
    *fits = plan.fits;
    return OOM_OK;
}

/* The trainer's options, with a budget of checkpointing that fits where the job states none. */
static enum oom_status choose_budget(struct run *run, struct oom_trainer_options *out) {
    const struct oom_job *job = run->job;
    *out = job->trainer;
    if (out->checkpointing != OOM_CHECKPOINTING_BUDGET || out->checkpoint_budget > 0) return OOM_OK;
    struct oom_plan_request request = plan_of(job, job->most);
    OOM_TRY(oom_checkpoint_fit(&request, &run->result->fit));
    out->checkpoint_budget = run->result->fit.budget;
    return OOM_OK;
}

/* ---- the run ---- */

static void make_window(void *context, int64_t samples, struct oom_window *out) {
    const struct run *run = context;
    oom_window_init(out, &run->job->trainer.spec, &run->source, samples, run->job->distinct,
                    run->job->token_weights);
    if (run->job->loop.lengths != OOM_LENGTHS_SAME) {
        oom_window_cut(out, run->loop.cut, run->job->micro ? run->job->most : samples);
    }
}

static enum oom_status take_foreign(struct run *run, uint64_t bytes, oom_devptr *ptr) {
    struct oom_device *device = run->session.device;
    OOM_TRY(settle_peaks(run));
    OOM_TRY(device->api->alloc(device, bytes, ptr));
    run->foreign += (bytes + OOM_PAGE - 1) / OOM_PAGE * OOM_PAGE;
    return settle_peaks(run);
}

/* The consumer's OOM: what the allocator has cached is what it could have had. */
static enum oom_status report_foreign(struct run *run) {
    struct oom_memory_info info;
    struct oom_fragmentation f;
    run->session.device->api->memory_info(run->session.device, &info);
    OOM_TRY(oom_fragmentation_take(run->session.allocator, &f));
    uint64_t bytes = run->job->foreign_between;
    run->result->oom = (struct oom_report){.valid = true,
                                           .site = "a consumer outside the allocator",
                                           .tag = OOM_TAG_OTHER,
                                           .requested = bytes,
                                           .rounded = bytes,
                                           .wanted = bytes,
                                           .capacity = info.capacity,
                                           .limit = UINT64_MAX,
                                           .device_free = info.free,
                                           .reserved = f.reserved,
                                           .allocated = f.allocated,
                                           .foreign = run->foreign,
                                           .cached = f.cached,
                                           .cached_pieces = f.cached_pieces,
                                           .largest_cached = f.largest_cached,
                                           .fragmentation = f,
                                           .settings = run->job->settings};
    return OOM_OK;
}

/* The consumer outside the allocator that comes between two steps. */
static enum oom_status foreign_visit(struct run *run) {
    const struct oom_job *job = run->job;
    struct oom_device *device = run->session.device;
    oom_devptr ptr;
    if (job->release_between) OOM_TRY(oom_allocator_release_cached(run->session.allocator));
    enum oom_status status = take_foreign(run, job->foreign_between, &ptr);
    if (status == OOM_NOMEM) OOM_TRY(report_foreign(run));
    OOM_TRY(status);
    OOM_TRY(check_canaries(run));
    OOM_TRY(settle_peaks(run));
    OOM_TRY(device->api->free(device, ptr));
    run->foreign -= (job->foreign_between + OOM_PAGE - 1) / OOM_PAGE * OOM_PAGE;
    device->api->reset_peak(device);
    return OOM_OK;
}

static enum oom_status run_step(struct run *run, int step) {
    const struct oom_job *job = run->job;
    bool last = step == job->steps - 1;
    int64_t samples = last && job->last_samples > 0 ? job->last_samples : job->samples;
    run->step = step;
    if (job->sizes[step] > 0) run->sizing.size = job->sizes[step];
    if (oom_job_keeps_branches(job)) OOM_TRY(open_for(job, "branches", step, &run->branches));
    OOM_TRY(oom_loop_before(&run->loop, &run->source, step));
    struct oom_windows windows = {run, make_window};
    enum oom_status status =
        oom_sized_step(&run->sizing, run->trainer, step, samples, job->samples, windows);
    if (run->branches >= 0) close(run->branches);
    run->branches = -1;
    run->result->steps[step].size = run->sizing.size;
    OOM_TRY(status);
    run->in_step = false;
    OOM_TRY(oom_skip_after(&run->skip, run->trainer, &run->before, step, run->result));
    OOM_TRY(oom_loop_after(&run->loop, &run->source, step));
    run->result->steps[step].evaluation = run->loop.evaluation;
    return OOM_OK;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static enum oom_status run_steps(struct run *run) {
    const struct oom_job *job = run->job;
    double start = now();
    run->calls_before = oom_allocator_stats(run->session.allocator)->allocations;
    oom_injector_begin(&run->injector, &job->injection, job->trainer.seed, run->session.allocator);
    for (int step = 0; step < job->steps; step++) {
        OOM_TRY(run_step(run, step));
        run->result->steps_done++;
        bool visit = step == job->foreign_step && job->foreign_between > 0;
        if (visit) OOM_TRY(foreign_visit(run));
    }
    run->result->step_seconds = now() - start;
    return OOM_OK;
}

static void prepare_sizing(struct run *run) {
    const struct oom_job *job = run->job;
    uint64_t others = run->foreign;
    run->sizing = (struct oom_sizing){
        .rule = job->rule,
        .micro = job->micro,
        .uneven = job->uneven,
        .recovery = job->recovery,
        .most = job->most,
        .retry = job->retry,
        .available = job->capacity > others ? job->capacity - others : 0,
        .plan_context = run,
        .plan = plan_size,
        .ready = {run, gradients_ready},
        .watch = {run, before_step, NULL, recovered, peaks_reset},
    };
}

static enum oom_status set_up(struct run *run) {
    const struct oom_job *job = run->job;
    struct oom_device_options options = {.capacity = job->capacity,
                                         .schedule = job->schedule,
                                         .isa = job->isa,
                                         .threads = job->threads,
                                         .seed = job->trainer.seed};
    oom_host_peak_reset();
    OOM_TRY(oom_source_open(job->data[0] != 0 ? job->data : NULL, job->trainer.seed, &run->source));
    OOM_TRY(oom_device_open(job->device, &options, &run->session.device));
    struct oom_device_properties properties;
    run->session.device->api->properties(run->session.device, &properties);
    run->scratch = run->result->scratch = properties.scratch;
    run->session.dtype = job->dtype;
    run->session.flops = &run->flops;
    OOM_TRY(oom_allocator_create(run->session.device, &job->settings, &run->session.allocator));
    oom_devptr foreign;
    if (job->foreign > 0) OOM_TRY(take_foreign(run, job->foreign, &foreign));
    OOM_TRY(oom_canaries_plant(run->session.device, run->session.allocator, job->trainer.seed,
                               &run->canaries));
    int micro_batches = job->micro ? (int)((job->samples + job->most - 1) / job->most) : 1;
    OOM_TRY(oom_loop_begin(&run->loop, &job->loop, &run->session, micro_batches));
    struct oom_trainer_options trainer;
    OOM_TRY(choose_budget(run, &trainer));
    OOM_TRY(oom_trainer_create(&run->session, &trainer, &run->trainer));
    oom_loop_attach(&run->loop, run->trainer);
    if (oom_job_keeps_branches(job)) {
        run->trainer->branches = (struct oom_branches){.context = run, .see = see_branches};
    }
    prepare_sizing(run);
    return OOM_OK;
}

/* Allocated bytes, and after a release reserved ones, must be those from before: none. */
static enum oom_status tear_down(struct run *run) {
    struct oom_job_result *result = run->result;
    OOM_TRY(oom_loop_end(&run->loop, &run->session));
    oom_trainer_destroy(run->trainer);
    run->trainer = NULL;
    OOM_TRY(oom_canaries_free(&run->canaries));
    const struct oom_allocator_stats *stats = oom_allocator_stats(run->session.allocator);
    result->left_allocated = (uint64_t)stats->allocated_bytes[OOM_POOL_ALL].current;
    OOM_TRY(oom_allocator_release_cached(run->session.allocator));
    result->left_reserved = (uint64_t)stats->reserved_bytes[OOM_POOL_ALL].current;
    result->torn_down = true;
    return OOM_OK;
}

static enum oom_status finish(struct run *run) {
    uint64_t ignored;
    measure_host(run);
    OOM_TRY(check_canaries(run));
    if (run->job->capture) OOM_TRY(capture(run, PART_STATE, "state", -1, &ignored));
    return tear_down(run);
}

/* An injected failure ended the run: everything must still come down as if it had not. */
static enum oom_status give_up(struct run *run) {
    oom_injector_end(&run->injector, run->session.allocator);
    OOM_TRY(oom_recover(run->trainer, OOM_RECOVERY_FULL));
    OOM_TRY(run->in_step ? recovered(run, run->trainer) : check_canaries(run));
    return tear_down(run);
}

/* The figures that exist however the run ended. */
static void note_end(struct run *run, enum oom_status status) {
    struct oom_job_result *result = run->result;
    result->status = status;
    if (status != OOM_OK) {
        snprintf(result->message, sizeof result->message, "%s", oom_failure_last()->message);
    }
    result->attempt_count = run->sizing.attempt_count;
    memcpy(result->attempts, run->sizing.attempts, sizeof result->attempts);
    if (run->session.allocator == NULL) return;
    const struct oom_allocator_stats *stats = oom_allocator_stats(run->session.allocator);
    result->retries = stats->num_alloc_retries;
    result->device_allocations = stats->num_device_alloc;
    result->step_calls = stats->allocations - run->calls_before;
    if (status == OOM_NOMEM && !result->oom.valid) {
        result->oom = *oom_allocator_report(run->session.allocator);
    }
    settle_peaks(run);
}

enum oom_dtype oom_job_precision(const struct oom_job *job) {
    if (job->trainer.amp == OOM_AMP_OFF) return job->dtype;
    return job->trainer.amp == OOM_AMP_F16 ? OOM_F16 : OOM_BF16;
}

enum oom_status oom_job_run(const struct oom_job *job, struct oom_job_result *result) {
    struct run run = {.job = job, .result = result, .source = {.file = -1}, .branches = -1};
    *result = (struct oom_job_result){.capacity = job->capacity, .peaks_agree = true};
    double start = now();
    enum oom_status status = set_up(&run);
    if (status == OOM_OK) status = run_steps(&run);
    result->seconds = now() - start;
    note_end(&run, status);
    enum oom_status ended = OOM_OK;
    if (job->record && run.session.allocator != NULL) {
        ended = oom_recording_write(job, run.session.allocator);
    }
    if (ended == OOM_OK && status == OOM_OK) ended = finish(&run);
    if (status == OOM_NOMEM && oom_injection_on(&run.injector.injection)) ended = give_up(&run);
    if (run.session.allocator != NULL) oom_loop_end(&run.loop, &run.session);
    oom_trainer_destroy(run.trainer);
    oom_allocator_destroy(run.session.allocator);
    oom_device_close(run.session.device);
    oom_source_close(&run.source);
    return ended;
}

enum oom_status oom_job_run_dry(const struct oom_job *job, struct oom_job_result *result) {
    struct oom_job dry = *job;
    snprintf(dry.device, sizeof dry.device, "dry");
    dry.capture = false;
    enum oom_status status = oom_job_run(&dry, result);
    if (status == OOM_OK && result->status != OOM_NOMEM) status = result->status;
    if (status == OOM_OK) oom_failure_clear(); /* an OOM in the job is an answer */
    return status;
}
