/*
 * A snapshot of our own allocator: its blocks, its trace, and the settings in force. A name becomes
 * "site (tag)", so that viewers of PyTorch's format show the tag where they show a frame's file.
 */
#include "harness/memory/internal.h"
#include "harness/memory/snapshot-build.h"

#include <string.h>

struct taker {
    struct oom_snapshot_builder build;
    bool open; /* a segment's blocks are being added */
};

static enum oom_status site_make(struct taker *taker, const char *site, enum oom_tag tag,
                                 uint32_t *out) {
    char text[OOM_SNAPSHOT_SITE];
    const char *name = oom_tag_name(tag);
    *out = 0;
    if (*site == 0 && tag == OOM_TAG_OTHER) return OOM_OK;
    size_t n = oom_site_compose(site, strlen(site), name, strlen(name), 0, text);
    return oom_build_site(&taker->build, text, n, out);
}

/* ---- segments ---- */

static enum oom_status segment_close(struct taker *taker) {
    if (!taker->open) return OOM_OK;
    taker->open = false;
    return oom_build_segment_check(&taker->build, &(struct oom_build_sums){0});
}

static enum oom_status segment_open(struct taker *taker, const struct oom_block_view *view) {
    struct oom_snapshot_segment segment = {.address = view->segment,
                                           .bytes = view->segment_bytes,
                                           .stream = view->stream,
                                           .pool = view->pool,
                                           .small_pool = view->small_pool,
                                           .expandable = view->expandable};
    uint16_t pool;
    OOM_TRY(segment_close(taker));
    OOM_TRY(oom_build_pool(&taker->build, segment.pool, &pool));
    taker->open = true;
    return oom_build_segment(&taker->build, &segment);
}

static enum oom_status block_visit(const struct oom_block_view *view, void *context) {
    struct taker *taker = context;
    if (view->address == view->segment) OOM_TRY(segment_open(taker, view));
    struct oom_snapshot_block block = {.address = view->address,
                                       .bytes = view->bytes,
                                       .requested = view->requested,
                                       .state = view->allocated ? OOM_BLOCK_ALLOCATED
                                                : view->pending ? OOM_BLOCK_PENDING_FREE
                                                                : OOM_BLOCK_INACTIVE};
    if (block.state != OOM_BLOCK_INACTIVE)
        OOM_TRY(site_make(taker, view->site, view->tag, &block.site));
    return oom_build_block(&taker->build, &block);
}

/* ---- events ---- */

static enum oom_status events_take(struct taker *taker, const struct oom_allocator *allocator) {
    uint64_t count = oom_allocator_trace_count(allocator);
    for (uint64_t i = 0; i < count; i++) {
        const struct oom_trace_event *from = oom_allocator_trace_at(allocator, i);
        struct oom_snapshot_event event = {.address = from->address,
                                           .bytes = from->bytes,
                                           .stream = from->stream,
                                           .time_us = from->time_us,
                                           .action = (uint8_t)from->action};
        OOM_TRY(oom_build_pool(&taker->build, from->pool, &event.pool));
        OOM_TRY(site_make(taker, from->site, from->tag, &event.site));
        OOM_TRY(oom_build_event(&taker->build, &event));
    }
    return oom_build_trace(&taker->build);
}

/* ---- settings ---- */

static bool same_setting(const struct oom_allocator_settings *a,
                         const struct oom_allocator_settings *b, enum oom_setting setting,
                         char *text, size_t n) {
    char other[OOM_CONF_MAX];
    oom_setting_format(b, setting, other, sizeof other);
    return strcmp(oom_setting_format(a, setting, text, n), other) == 0;
}

/* The string as given where it says all; else one that does, as far as there is room. */
static void conf_make(const struct oom_allocator_settings *settings, char out[OOM_CONF_MAX]) {
    struct oom_allocator_settings plain = oom_allocator_settings_default(), said;
    char notes[OOM_CONF_MAX], text[OOM_CONF_MAX];
    size_t used = 0;
    bool complete = true, fits = true;
    plain.profile = settings->profile;
    said = plain;
    oom_allocator_settings_parse_leniently(settings->conf, &said, notes, sizeof notes);
    out[0] = 0;
    for (int i = 0; i < OOM_SETTING_COUNT; i++) {
        enum oom_setting setting = (enum oom_setting)i;
        if (!same_setting(settings, &said, setting, text, sizeof text)) complete = false;
        if (same_setting(settings, &plain, setting, text, sizeof text)) continue;
        int n = snprintf(out + used, OOM_CONF_MAX - used, "%s%s:%s", used > 0 ? "," : "",
                         oom_setting_name(setting), text);
        if (n < 0 || (size_t)n >= OOM_CONF_MAX - used)
            fits = false;
        else
            used += (size_t)n;
    }
    /* What was given says more than a cut string. */
    if (complete || !fits) memcpy(out, settings->conf, OOM_CONF_MAX);
}

static void settings_take(struct oom_snapshot *s, const struct oom_allocator_settings *settings) {
    s->has_settings = true;
    conf_make(settings, s->conf);
    s->expandable_segments = settings->expandable_segments;
    s->max_split_size =
        settings->max_split_size <= (uint64_t)INT64_MAX ? (int64_t)settings->max_split_size : -1;
    s->garbage_collection_threshold = settings->garbage_collection_threshold;
    memcpy(s->roundup_power2_divisions, settings->roundup_power2_divisions,
           sizeof s->roundup_power2_divisions);
    s->profile = settings->profile;
}

enum oom_status oom_snapshot_take(const struct oom_allocator *allocator, struct oom_snapshot *out) {
    struct taker taker = {.open = false};
    *out = (struct oom_snapshot){0};
    enum oom_status status = oom_build_begin(&taker.build, "the allocator", "event");
    taker.build.out.kind = OOM_SNAPSHOT_KIND_OOMBENCH;
    taker.build.out.capacity = allocator->properties.capacity;
    settings_take(&taker.build.out, &allocator->settings);
    if (status == OOM_OK) status = oom_allocator_walk(allocator, block_visit, &taker);
    if (status == OOM_OK) status = segment_close(&taker);
    if (status == OOM_OK) status = events_take(&taker, allocator);
    if (status == OOM_OK) status = oom_build_finish(&taker.build, out);
    oom_build_abandon(&taker.build);
    return status;
}
