/*
 * train-testing.h: for tests only: a device, an allocator, a trainer and its data, and the few
 * verbs that the tests of training are written with. They check what they do.
 *
 * A rig owns everything in it from rig_open to rig_close; what a snapshot holds is freed by
 * snapshot_free.
 */
#ifndef OOM_HARNESS_TRAIN_TRAIN_TESTING_H
#define OOM_HARNESS_TRAIN_TRAIN_TESTING_H

#include "harness/base/rng.h"
#include "harness/train/batch-size.h"
#include "kernels/hostmem.h"
#include "kernels/testing.h"

#include <string.h>

struct rig_options {
    const char *model;
    const char *device; /* NULL: host */
    uint64_t capacity;  /* 0: 64 MiB */
    uint64_t seed;      /* 0: 1 */
    enum oom_dtype dtype;
    enum oom_schedule schedule;
    enum oom_gradients gradients;
    enum oom_optimizer optimizer;
    int threads; /* 0: 1 */
};

struct rig {
    struct oom_source source;
    struct oom_session session;
    struct oom_trainer *trainer;
    struct oom_window window;
};

static inline struct oom_model_spec rig_spec(const char *model) {
    struct oom_model_spec spec = oom_model_spec_default(OOM_MODEL_MLP);
    CHECK_OK(oom_model_spec_parse(model, &spec));
    return spec;
}

static inline void rig_open_allocator(struct rig *rig, const struct rig_options *o) {
    struct oom_device_options device = {.capacity = o->capacity > 0 ? o->capacity : 64u << 20,
                                        .schedule = o->schedule,
                                        .threads = o->threads > 0 ? o->threads : 1};
    struct oom_allocator_settings settings = oom_allocator_settings_default();
    settings.trace_entries = 0;
    *rig = (struct rig){.source = {.seed = o->seed > 0 ? o->seed : 1, .file = -1}};
    rig->session.dtype = o->dtype;
    CHECK_OK(
        oom_device_open(o->device != NULL ? o->device : "host", &device, &rig->session.device));
    CHECK_OK(oom_allocator_create(rig->session.device, &settings, &rig->session.allocator));
}

static inline struct oom_trainer_options rig_trainer_options(const struct rig_options *o) {
    return (struct oom_trainer_options){.spec = rig_spec(o->model),
                                        .seed = o->seed > 0 ? o->seed : 1,
                                        .gradients = o->gradients,
                                        .optimizer = o->optimizer};
}

static inline void rig_open(struct rig *rig, const struct rig_options *o) {
    struct oom_trainer_options options = rig_trainer_options(o);
    rig_open_allocator(rig, o);
    CHECK_OK(oom_trainer_create(&rig->session, &options, &rig->trainer));
}

static inline void rig_close(struct rig *rig) {
    oom_trainer_destroy(rig->trainer);
    CHECK_EQ(oom_allocator_stats(rig->session.allocator)->allocated_bytes[OOM_POOL_ALL].current, 0);
    oom_allocator_destroy(rig->session.allocator);
    oom_device_close(rig->session.device);
}

/* Samples of the window; distinct 0: all of them are. */
static inline void rig_window(struct rig *rig, int64_t samples, int64_t distinct, bool tokens) {
    oom_window_init(&rig->window, &rig->trainer->options.spec, &rig->source, samples,
                    distinct > 0 ? distinct : samples, tokens);
}

static inline int64_t rig_live_peak(const struct rig *rig) {
    return oom_allocator_stats(rig->session.allocator)->allocated_bytes[OOM_POOL_ALL].peak;
}

static inline uint64_t rig_real(const struct rig *rig) {
    return oom_dtype_bytes(rig->session.dtype);
}

static inline void rig_download(struct rig *rig, oom_devptr from, void *to, uint64_t bytes) {
    struct oom_device *device = rig->session.device;
    CHECK_OK(device->api->download(device, to, from, bytes, rig->session.stream));
}

static inline void rig_upload(struct rig *rig, oom_devptr to, const void *from, uint64_t bytes) {
    struct oom_device *device = rig->session.device;
    CHECK_OK(device->api->upload(device, to, from, bytes, rig->session.stream));
}

/* ---- the gradients and the loss of a window, as bytes ---- */

struct snapshot {
    uint8_t *bytes; /* gradients of all parameters in order, then the loss */
    size_t count;
};

static inline void snapshot_free(struct snapshot *snapshot) {
    oom_host_free(snapshot->bytes);
    *snapshot = (struct snapshot){0};
}

static inline void snapshot_take(struct rig *rig, bool weights, struct snapshot *out) {
    struct oom_trainer *t = rig->trainer;
    size_t size = rig_real(rig), at = 0;
    out->count = size;
    for (int i = 0; i < t->parameter_count; i++) {
        out->count += (size_t)oom_parameter_n(&t->parameters[i]) * size;
    }
    out->bytes = oom_host_alloc(out->count);
    CHECK(out->bytes != NULL);
    for (int i = 0; i < t->parameter_count; i++) {
        struct oom_parameter *p = &t->parameters[i];
        size_t bytes = (size_t)oom_parameter_n(p) * size;
        struct oom_tensor tensor = weights ? p->value : p->gradient;
        if (CHECK_MSG(tensor.data != 0, "%s is there", p->name)) {
            rig_download(rig, tensor.data, out->bytes + at, bytes);
        }
        at += bytes;
    }
    rig_download(rig, t->loss.data, out->bytes + at, size);
}

static inline bool snapshot_same(const struct snapshot *a, const struct snapshot *b) {
    return a->count == b->count && a->count > 0 && memcmp(a->bytes, b->bytes, a->count) == 0;
}

struct rig_ready {
    struct rig *rig;
    struct snapshot *out;
};

static inline enum oom_status rig_take_gradients(void *context, struct oom_trainer *trainer,
                                                 const struct oom_window *window) {
    struct rig_ready *ready = context;
    (void)trainer, (void)window;
    snapshot_free(ready->out);
    snapshot_take(ready->rig, false, ready->out);
    return OOM_OK;
}

/* One step over rig->window; *out becomes its gradients and loss. */
static inline enum oom_status rig_step(struct rig *rig, struct oom_cut cut, struct snapshot *out) {
    struct rig_ready ready = {rig, out};
    struct oom_gradients_ready call = {&ready, out != NULL ? rig_take_gradients : NULL};
    return oom_window_run(rig->trainer, &rig->window, cut, call);
}

/* A step by a rule of sizes, whose windows are of data that repeats after 4 samples. */
static inline void rig_make_window(void *context, int64_t samples, struct oom_window *out) {
    struct rig *rig = context;
    oom_window_init(out, &rig->trainer->options.spec, &rig->source, samples, 4, false);
}

static inline enum oom_status rig_sized_step(struct rig *rig, struct oom_sizing *sizing, int step,
                                             int64_t samples) {
    return oom_sized_step(sizing, rig->trainer, step, samples, samples,
                          (struct oom_windows){rig, rig_make_window});
}

#endif
