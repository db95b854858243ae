/*
 * recipes-run-testing.h: for tests only: a recipe's sequence through an allocator of its own over
 * the dry device, under one of the settings that are compared, up to its end or the first OOM.
 */
#ifndef OOM_HARNESS_MEMORY_RECIPES_RUN_TESTING_H
#define OOM_HARNESS_MEMORY_RECIPES_RUN_TESTING_H

#include "harness/memory/recipes-testing.h"

#include <stdio.h>

/* id, name, string; a share: that part of the capacity in MiB, at least 20, is appended; whether
 * the cache is released before every step; whether a limit of exactly the capacity is set */
#define RECIPE_SETTING_MAP(X) \
    X(DEF, "def", "", 0, false, false) \
    X(EXP, "exp", "expandable_segments:True", 0, false, false) \
    X(MS20, "ms 20", "max_split_size_mb:20", 0, false, false) \
    X(MS10TH, "ms .1", "max_split_size_mb:", 10, false, false) \
    X(MS4TH, "ms .25", "max_split_size_mb:", 4, false, false) \
    X(RU2, "ru 2", "roundup_power2_divisions:2", 0, false, false) \
    X(RU4, "ru 4", "roundup_power2_divisions:4", 0, false, false) \
    X(RU8, "ru 8", "roundup_power2_divisions:8", 0, false, false) \
    X(REL, "rel", "", 0, true, false) \
    X(GC6, "gc .6", "garbage_collection_threshold:0.6", 0, false, true) \
    X(GC8, "gc .8", "garbage_collection_threshold:0.8", 0, false, true) \
    X(GC8_ALONE, "gc .8 without a limit", "garbage_collection_threshold:0.8", 0, false, false) \
    X(NO_RETRY, "no retry", "throw_on_cudamalloc_oom:True", 0, false, false) \
    X(NO_RETRY_REL, "no retry, rel", "throw_on_cudamalloc_oom:True", 0, true, false)

enum recipe_setting {
#define X(id, name, conf, share, release, limit) id,
    RECIPE_SETTING_MAP(X)
#undef X
        RECIPE_COMPARED = GC8_ALONE /* the settings of the published tables */
};

static const struct {
    const char *name, *conf;
    uint64_t share;
    bool release, limit;
} recipe_settings[] = {
#define X(id, name, conf, share, release, limit) {name, conf, share, release, limit},
    RECIPE_SETTING_MAP(X)
#undef X
};

struct recipe_outcome {
    bool failed;         /* out of memory; what follows says where */
    uint64_t allocation; /* among all of the run, parameters included, from 1; 0: the foreign one */
    uint64_t request;    /* bytes of the block it wanted */
    uint64_t free_bytes; /* capacity - allocated, after the allocator's own release */
    uint64_t hole;       /* largest cached block, or what the device has */
    const char *site;
    int step, pass;             /* from 0 */
    uint32_t event, step_event; /* where it failed, and where that step began */
};

static oom_devptr recipe_live[RECIPE_TENSORS]; /* by tensor: its address, 0 once given back */

/* The largest fraction below 1: rounded to bytes it is the whole capacity (below 2^52), and yet a
 * limit, without which PyTorch collects no garbage. */
static inline double recipe_limit(void) {
    return nextafter(1, 0);
}

static inline struct oom_allocator *recipe_open(struct oom_device *device, uint64_t capacity,
                                                enum oom_profile profile,
                                                enum recipe_setting setting) {
    struct oom_allocator_settings settings = oom_allocator_settings_default();
    struct oom_allocator *a = NULL;
    char conf[64], number[24] = "";
    uint64_t share = recipe_settings[setting].share;
    if (share > 0) {
        uint64_t megabytes = (capacity / RECIPE_MIB + share / 2) / share; /* rounded */
        snprintf(number, sizeof number, "%llu",
                 (unsigned long long)(megabytes > 20 ? megabytes : 20));
    }
    snprintf(conf, sizeof conf, "%s%s", recipe_settings[setting].conf, number);
    settings.trace_entries = 0;
    settings.profile = profile;
    CHECK_OK(oom_allocator_settings_parse(conf, &settings));
    if (recipe_settings[setting].limit) settings.per_process_memory_fraction = recipe_limit();
    CHECK_OK(oom_allocator_create(device, &settings, &a));
    return a;
}

static inline void recipe_note_oom(struct oom_allocator *a, const struct recipe_event *event,
                                   struct recipe_outcome *out) {
    const struct oom_report *report = oom_allocator_report(a);
    bool ours = event->verb == RECIPE_TAKE;
    out->failed = true;
    out->request = ours ? report->rounded : event->bytes;
    if (ours) {
        out->allocation = report->index;
        out->free_bytes = report->capacity - report->allocated;
        out->hole = report->largest_cached > report->device_free ? report->largest_cached
                                                                 : report->device_free;
    }
    oom_failure_clear();
}

/* Not through the allocator: somebody else asks the device. */
static inline enum oom_status recipe_foreign(struct oom_device *device, uint64_t bytes) {
    oom_devptr ptr = 0;
    OOM_TRY(device->api->alloc(device, bytes, &ptr));
    return device->api->free(device, ptr);
}

static inline enum oom_status recipe_act(struct oom_allocator *a, const struct recipe_event *e,
                                         bool release, struct recipe_outcome *out) {
    switch (e->verb) {
    case RECIPE_TAKE:
        return oom_allocator_alloc(a, e->bytes, NULL, OOM_TAG_ACTIVATION, e->site,
                                   &recipe_live[e->tensor]);
    case RECIPE_GIVE:
        OOM_TRY(oom_allocator_free(a, recipe_live[e->tensor]));
        recipe_live[e->tensor] = 0;
        return OOM_OK;
    case RECIPE_STEP:
        out->step++;
        out->pass = -1;
        return release ? oom_allocator_release_cached(a) : OOM_OK;
    case RECIPE_PASS:
        out->pass++;
        return OOM_OK;
    case RECIPE_FOREIGN:
        if (release) OOM_TRY(oom_allocator_release_cached(a));
        return recipe_foreign(oom_allocator_device(a), e->bytes);
    }
    return OOM_INTERNAL;
}

/* Plays recipe_events from `event` on. On OOM the allocator is left as it was then. */
static inline struct recipe_outcome recipe_drive(struct oom_allocator *a,
                                                 const struct recipe_sequence *q, uint32_t event,
                                                 bool release) {
    struct recipe_outcome out = {.step = -1};
    for (; event < q->events; event++) {
        const struct recipe_event *e = &recipe_events[event];
        if (e->verb == RECIPE_STEP) out.step_event = event;
        enum oom_status status = recipe_act(a, e, release, &out);
        if (status == OOM_OK) continue;
        out.event = event;
        out.site = e->site;
        if (status != OOM_NOMEM) CHECK_OK(status);
        recipe_note_oom(a, e, &out);
        break;
    }
    return out;
}

static inline struct oom_device *recipe_device(uint64_t capacity) {
    struct oom_device_options options = {
        .capacity = capacity,
        .reservation = 4 * capacity + 1024 * RECIPE_MIB, /* two expandable segments at least */
        .threads = 1};
    struct oom_device *device = NULL;
    CHECK_OK(oom_dry_open(&options, &device));
    return device;
}

static inline struct recipe_outcome
recipe_run(const struct recipe_sequence *q, enum oom_profile profile, enum recipe_setting setting) {
    struct recipe_outcome out = {0};
    struct oom_device *device = recipe_device(q->capacity);
    if (device == NULL) return out;
    struct oom_allocator *a = recipe_open(device, q->capacity, profile, setting);
    if (a != NULL) out = recipe_drive(a, q, 0, recipe_settings[setting].release);
    oom_allocator_destroy(a);
    oom_device_close(device);
    return out;
}

#endif
