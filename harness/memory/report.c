/* report.c: what is known at the moment of an OOM, and the paragraph that says it to people. */
#include "harness/memory/internal.h"

#include "harness/base/sizes.h"

#include <stdarg.h>
#include <string.h>

static void count_cached(const struct oom_allocator *a, struct oom_report *report) {
    for (int pool = OOM_POOL_SMALL; pool <= OOM_POOL_LARGE; pool++) {
        const struct oom_free_set *set = &a->pools[pool].free;
        for (struct oom_block *b = oom_free_set_first(set); b != NULL;
             b = oom_free_set_next(set, b)) {
            report->cached += b->bytes;
            report->cached_pieces++;
            if (b->bytes > report->largest_cached) report->largest_cached = b->bytes;
        }
    }
}

enum oom_status oom_report_fill(struct oom_allocator *a, const struct oom_request *request) {
    struct oom_memory_info info;
    a->device->api->memory_info(a->device, &info);
    struct oom_report report = {
        .valid = true,
        .tag = (enum oom_tag)request->tag,
        .index = a->stats.allocations,
        .requested = request->bytes,
        .rounded = request->size,
        .wanted = request->segment_bytes,
        .injected = request->refused,
        .capacity = info.capacity,
        .limit = a->limit,
        .released = request->released,
        .device_free = info.free,
        .reserved = a->reserved,
        .allocated = (uint64_t)a->stats.allocated_bytes[OOM_POOL_ALL].current,
        .foreign = info.used > a->reserved ? info.used - a->reserved : 0,
    };
    strncpy(report.site, oom_site_name(&a->sites, request->site), sizeof report.site - 1);
    memcpy(report.tag_bytes, a->stats.tag_current, sizeof report.tag_bytes);
    count_cached(a, &report);
    a->report = report;

    char text[256];
    oom_report_text(&report, text, sizeof text);
    return oom_fail(OOM_NOMEM, "%s", text);
}

const struct oom_report *oom_allocator_report(const struct oom_allocator *a) {
    return &a->report;
}

/* ---- the paragraph ---- */

struct text {
    char *out;
    size_t n;
    int length; /* of the whole text, as snprintf counts */
};

static void say(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(struct text *text, const char *format, ...) {
    size_t used = (size_t)text->length < text->n ? (size_t)text->length : text->n;
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text->n > used ? text->out + used : NULL, text->n - used, format, args);
    va_end(args);
    if (length > 0) text->length += length;
}

static void say_size(struct text *text, const char *before, uint64_t bytes, const char *after) {
    char size[32];
    say(text, "%s%s%s", before, oom_size_format(bytes, size, sizeof size), after);
}

static void say_request(struct text *text, const struct oom_report *r) {
    say_size(text, "Out of memory: wanted ", r->requested, " for ");
    say(text, "%s (%s), allocation %llu", r->site[0] != 0 ? r->site : "an unnamed site",
        oom_tag_name(r->tag), (unsigned long long)r->index);
    if (r->wanted != r->requested) say_size(text, ", as a segment of ", r->wanted, "");
    say(text, "; ");
}

static void say_cached(struct text *text, const struct oom_report *r) {
    if (r->cached == 0) {
        say(text, "nothing cached");
        return;
    }
    say_size(text, "", r->cached, " cached in ");
    if (r->cached_pieces == 1) {
        say(text, "one piece");
        return;
    }
    say(text, "%llu pieces, ", (unsigned long long)r->cached_pieces);
    say_size(text, "the largest ", r->largest_cached, "");
}

static void say_tags(struct text *text, const struct oom_report *r) {
    const char *before = ". Live by purpose: ";
    for (int tag = 0; tag < OOM_TAG_COUNT; tag++) {
        if (r->tag_bytes[tag] == 0) continue;
        say(text, "%s%s ", before, oom_tag_name((enum oom_tag)tag));
        say_size(text, "", r->tag_bytes[tag], "");
        before = ", ";
    }
}

int oom_report_text(const struct oom_report *r, char *out, size_t n) {
    struct text text = {out, n, 0};
    if (!r->valid) {
        say(&text, "No out-of-memory error has happened.");
        return text.length;
    }
    say_request(&text, r);
    say_size(&text, "", r->device_free, " free on the device");
    say_size(&text, " of ", r->capacity, "");
    if (r->limit != OOM_NO_LIMIT) say_size(&text, ", where this allocator may hold ", r->limit, "");
    say_size(&text, "; ", r->allocated, " live, ");
    say_cached(&text, r);
    if (r->foreign > 0) say_size(&text, ", ", r->foreign, " used by others");
    if (r->released > 0) say_size(&text, "; ", r->released, " of cache was given back first");
    say_tags(&text, r);
    say(&text, ".");
    if (r->injected) say(&text, " (The failure was injected.)");
    return text.length;
}
