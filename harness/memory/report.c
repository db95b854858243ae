/* report.c: what is known at the moment of an OOM, and how it is said to people: the line, then
 * fragmentation, pins, settings in force and advice (report-advice.c). */
#include "harness/memory/internal.h"
#include "harness/memory/report-text.h"

#include "harness/base/sizes.h"

#include <string.h>

/* ---- the figures ---- */

/* What the request itself could have been given: the largest block on its stream in its pool. */
static uint64_t largest_usable(const struct oom_request *request) {
    const struct oom_free_set *set = &request->pool->free;
    uint64_t largest = 0;
    for (struct oom_block *b = oom_free_set_first(set); b != NULL; b = oom_free_set_next(set, b)) {
        if (b->stream == request->stream && b->bytes > largest) largest = b->bytes;
    }
    return largest;
}

static enum oom_status add_private(const struct oom_block_view *block, void *context) {
    uint64_t *cached = context;
    bool in_private = block->pool.a != 0 || block->pool.b != 0;
    if (in_private && !block->allocated && !block->pending) *cached += block->bytes;
    return OOM_OK;
}

/* From one walk, so that it stands whatever pools and segments there are. Taking a picture asks
 * nothing of host or device that could fail; if it did, its figures would be missing, not wrong. */
static void take_picture(const struct oom_allocator *a, struct oom_report *report) {
    if (oom_fragmentation_take(a, &report->fragmentation) != OOM_OK) return;
    report->cached = report->fragmentation.cached;
    report->cached_pieces = report->fragmentation.cached_pieces;
    report->largest_cached = report->fragmentation.largest_cached;
    oom_allocator_walk(a, add_private, &report->private_cached);
}

enum oom_status oom_report_fill(struct oom_allocator *a, const struct oom_request *request) {
    struct oom_memory_info info;
    a->device->api->memory_info(a->device, &info);
    struct oom_report *report = &a->report;
    *report = (struct oom_report){
        .valid = true,
        .tag = (enum oom_tag)request->tag,
        .index = a->stats.allocations,
        .requested = request->bytes,
        .rounded = request->size,
        .wanted = request->segment_bytes,
        .injected = request->refused,
        .rejected = request->rejected,
        .capacity = info.capacity,
        .limit = a->limit,
        .released = request->released,
        .device_free = info.free,
        .reserved = a->reserved,
        .allocated = (uint64_t)a->stats.allocated_bytes[OOM_POOL_ALL].current,
        .foreign = info.used > a->reserved ? info.used - a->reserved : 0,
        .largest_usable = largest_usable(request),
        .settings = a->settings,
    };
    strncpy(report->site, oom_site_name(&a->sites, request->site), sizeof report->site - 1);
    memcpy(report->tag_bytes, a->stats.tag_current, sizeof report->tag_bytes);
    take_picture(a, report);

    char text[256];
    oom_report_line(report, text, sizeof text);
    return oom_fail(OOM_NOMEM, "%s", text);
}

const struct oom_report *oom_allocator_report(const struct oom_allocator *a) {
    return &a->report;
}

/* ---- text ---- */

void oom_text_say(struct oom_text *text, const char *format, ...) {
    size_t used = (size_t)text->length < text->n ? (size_t)text->length : text->n;
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text->n > used ? text->out + used : NULL, text->n - used, format, args);
    va_end(args);
    if (length > 0) text->length += length;
}

void oom_text_size(struct oom_text *text, const char *before, uint64_t bytes, const char *after) {
    char size[32];
    oom_text_say(text, "%s%s%s", before, oom_size_format(bytes, size, sizeof size), after);
}

/* ---- the line ---- */

static void say_request(struct oom_text *text, const struct oom_report *r) {
    oom_text_size(text, "Out of memory: wanted ", r->requested, " for ");
    oom_text_say(text, "%s (%s), allocation %llu", r->site[0] != 0 ? r->site : "an unnamed site",
                 oom_tag_name(r->tag), (unsigned long long)r->index);
    if (r->wanted != r->requested) oom_text_size(text, ", as a segment of ", r->wanted, "");
    oom_text_say(text, "; ");
}

static void say_cached(struct oom_text *text, const struct oom_report *r) {
    if (r->cached == 0) {
        oom_text_say(text, "nothing cached");
        return;
    }
    oom_text_size(text, "", r->cached, " cached in ");
    if (r->cached_pieces == 1) {
        oom_text_say(text, "one piece");
        return;
    }
    oom_text_say(text, "%llu pieces, ", (unsigned long long)r->cached_pieces);
    oom_text_size(text, "the largest ", r->largest_cached, "");
}

static void say_tags(struct oom_text *text, const struct oom_report *r) {
    const char *before = ". Live by purpose: ";
    for (int tag = 0; tag < OOM_TAG_COUNT; tag++) {
        if (r->tag_bytes[tag] == 0) continue;
        oom_text_say(text, "%s%s ", before, oom_tag_name((enum oom_tag)tag));
        oom_text_size(text, "", r->tag_bytes[tag], "");
        before = ", ";
    }
}

int oom_report_line(const struct oom_report *r, char *out, size_t n) {
    struct oom_text text = {out, n, 0};
    if (!r->valid) {
        oom_text_say(&text, "No out-of-memory error has happened.");
        return text.length;
    }
    say_request(&text, r);
    oom_text_size(&text, "", r->device_free, " free on the device");
    oom_text_size(&text, " of ", r->capacity, "");
    if (r->limit != OOM_NO_LIMIT) {
        oom_text_size(&text, ", where this allocator may hold ", r->limit, "");
    }
    oom_text_size(&text, "; ", r->allocated, " live, ");
    say_cached(&text, r);
    if (r->foreign > 0) oom_text_size(&text, ", ", r->foreign, " used by others");
    if (r->released > 0) {
        oom_text_size(&text, "; ", r->released, " of cache was given back first");
    }
    say_tags(&text, r);
    oom_text_say(&text, ".");
    if (r->injected) oom_text_say(&text, " (The failure was injected.)");
    return text.length;
}

/* ---- the lines below it ---- */

static void say_measures(struct oom_text *text, const struct oom_report *r) {
    const struct oom_fragmentation *f = &r->fragmentation;
    uint64_t pending = f->active > f->allocated ? f->active - f->allocated : 0;
    oom_text_size(text, "\nFragmentation: of ", f->reserved, " reserved ");
    if (pending > 0) oom_text_size(text, "", pending, " wait for other streams, ");
    oom_text_size(text, "", f->soft, " could be given back (soft), ");
    oom_text_size(text, "", f->hard, " are held by live blocks (hard)");
    oom_text_say(text,
                 "; largest hole %.1f %%, inactive split %.1f %%, waste at peak %.1f %%, "
                 "utilization %.1f %%, lowest %.1f %%.",
                 100 * f->largest_hole, 100 * f->inactive_split_share, 100 * f->waste_at_peak,
                 100 * f->snapshot_ratio, 100 * f->lowest_utilization);
}

static void say_pins(struct oom_text *text, const struct oom_fragmentation *f) {
    const char *before = "\nPinned: ";
    for (int i = 0; i < f->pin_count; i++) {
        const struct oom_pin *pin = &f->pins[i];
        oom_text_size(text, before, pin->free_bytes, " free");
        oom_text_size(text, " of ", pin->segment_bytes, "");
        oom_text_say(text, " by %llu block%s ", (unsigned long long)pin->pinned_count,
                     pin->pinned_count == 1 ? "" : "s");
        oom_text_size(text, "of ", pin->pinned_bytes, "");
        oom_text_say(text, " ('%s')", pin->site);
        before = ", ";
    }
    if (f->pin_count == 0) return;
    uint64_t more = f->pinned_segments - (uint64_t)f->pin_count;
    if (more > 0) oom_text_say(text, " and %llu more segments", (unsigned long long)more);
    oom_text_say(text, ".");
}

/* What is not as it is by default, and who limits. */
static void say_settings(struct oom_text *text, const struct oom_report *r) {
    struct oom_allocator_settings plain = oom_allocator_settings_default();
    char value[OOM_CONF_MAX], usual[OOM_CONF_MAX];
    oom_text_say(text, "\nSettings in force: profile %s", oom_profile_name(r->settings.profile));
    for (int i = 0; i < OOM_SETTING_COUNT; i++) {
        enum oom_setting setting = (enum oom_setting)i;
        oom_setting_format(&plain, setting, usual, sizeof usual);
        oom_setting_format(&r->settings, setting, value, sizeof value);
        if (strcmp(value, usual) == 0) continue;
        oom_text_say(text, ", %s:%s", oom_setting_name(setting), value);
    }
    if (r->settings.guard_bytes > 0) {
        oom_text_size(text, ", guards of ", r->settings.guard_bytes, "");
    }
    if (r->limit != OOM_NO_LIMIT) {
        oom_text_size(text, "; the limit of ", r->limit, " was set by the ");
        oom_text_say(text, "%s",
                     r->settings.given[OOM_SETTING_FRACTION] ? "settings string" : "program");
    }
    oom_text_say(text, ".");
}

int oom_report_text(const struct oom_report *r, char *out, size_t n) {
    struct oom_text text = {out, n, 0};
    text.length = oom_report_line(r, out, n);
    if (!r->valid) return text.length;
    say_measures(&text, r);
    say_pins(&text, &r->fragmentation);
    say_settings(&text, r);
    oom_report_advise(&text, r);
    return text.length;
}
