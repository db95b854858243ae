#include "harness/memory/snapshot-build.h"

#include "harness/base/text.h"
#include "harness/memory/grow.h"
#include "kernels/hostmem.h"

#include <stdlib.h>
#include <string.h>

enum { COLLISIONS_MAX = 64 };

#define RESERVE(build, array, room, need) \
    do { \
        if ((need) <= (room)) break; \
        void *reserve_array = oom_grown((array), &(room), (need), sizeof *(array)); \
        if (reserve_array == NULL) return no_memory(build); \
        (array) = reserve_array; \
    } while (0)

static enum oom_status no_memory(const struct oom_snapshot_builder *build) {
    return oom_fail(OOM_HOST_NOMEM, "%.80s: %s %" PRIu64 ": no host memory for what it holds",
                    build->name, build->unit, build->at);
}

enum oom_status oom_build_begin(struct oom_snapshot_builder *build, const char *name,
                                const char *unit) {
    *build = (struct oom_snapshot_builder){.name = name, .unit = unit, .sorted = true};
    build->out.profile = OOM_PROFILE_COUNT;
    build->out.max_split_size = -1;
    uint16_t pool;
    uint32_t site;
    OOM_TRY(oom_build_pool(build, (struct oom_pool_id){0, 0}, &pool));
    return oom_build_site(build, "", 0, &site);
}

void oom_build_abandon(struct oom_snapshot_builder *build) {
    oom_address_map_free(&build->pool_index);
    oom_address_map_free(&build->site_index);
    oom_snapshot_free(&build->out);
}

/* ---- pools and names ---- */

static uint64_t hash_bytes(const void *bytes, size_t n, uint64_t seed) {
    const uint8_t *at = bytes;
    uint64_t hash = UINT64_C(0xcbf29ce484222325) ^ seed; /* FNV-1a */
    for (size_t i = 0; i < n; i++) hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
    return hash;
}

enum oom_status oom_build_pool(struct oom_snapshot_builder *build, struct oom_pool_id id,
                               uint16_t *out) {
    struct oom_snapshot *s = &build->out;
    /* Nearly always the one before. */
    if (s->pool_count > 0 && s->pools[build->pool_last].a == id.a &&
        s->pools[build->pool_last].b == id.b) {
        *out = build->pool_last;
        return OOM_OK;
    }
    uint64_t key = 0, found;
    for (uint64_t seed = 0; seed < COLLISIONS_MAX; seed++) {
        key = hash_bytes(&id, sizeof id, seed);
        if (!oom_address_map_get(&build->pool_index, key, &found)) break;
        if (s->pools[found].a != id.a || s->pools[found].b != id.b) continue;
        *out = build->pool_last = (uint16_t)found;
        return OOM_OK;
    }
    if (s->pool_count > UINT16_MAX)
        return oom_build_fail(build, "more than %d different pools", UINT16_MAX + 1);
    RESERVE(build, s->pools, build->pool_room, s->pool_count + 1);
    OOM_TRY(oom_address_map_put(&build->pool_index, key, s->pool_count));
    s->pools[s->pool_count] = id;
    *out = build->pool_last = (uint16_t)s->pool_count++;
    return OOM_OK;
}

/* At most n - 1 bytes of whole, printable characters. */
static size_t clean(const char *text, size_t bytes, char *out, size_t n) {
    size_t used = 0;
    for (size_t i = 0; i < bytes;) {
        int width = oom_utf8_length(text + i, bytes - i);
        bool good = width > 0 && (unsigned char)text[i] >= 0x20 && text[i] != 0x7f;
        size_t step = width > 0 ? (size_t)width : 1, wide = good ? step : 1;
        if (used + wide >= n) break;
        if (good)
            memcpy(out + used, text + i, wide);
        else
            out[used] = '?';
        used += wide;
        i += step;
    }
    out[used] = 0;
    return used;
}

enum oom_status oom_build_site(struct oom_snapshot_builder *build, const char *text, size_t bytes,
                               uint32_t *out) {
    struct oom_snapshot *s = &build->out;
    char site[OOM_SNAPSHOT_SITE];
    size_t length = clean(text, bytes, site, sizeof site);
    uint64_t key = 0, found;
    for (uint64_t seed = 0; seed < COLLISIONS_MAX; seed++) {
        key = hash_bytes(site, length, seed);
        if (!oom_address_map_get(&build->site_index, key, &found)) break;
        if (strcmp(s->site_text + s->sites[found], site) != 0) continue;
        *out = (uint32_t)found;
        return OOM_OK;
    }
    if (s->site_count == UINT32_MAX) return oom_build_fail(build, "%s", "too many names");
    RESERVE(build, s->sites, build->site_room, s->site_count + 1);
    RESERVE(build, s->site_text, build->text_room, build->text_used + length + 1);
    OOM_TRY(oom_address_map_put(&build->site_index, key, s->site_count));
    memcpy(s->site_text + build->text_used, site, length + 1);
    s->sites[s->site_count] = build->text_used;
    build->text_used += length + 1;
    *out = (uint32_t)s->site_count++;
    return OOM_OK;
}

size_t oom_site_compose(const char *name, size_t name_bytes, const char *file, size_t file_bytes,
                        int64_t line, char out[OOM_SNAPSHOT_SITE]) {
    for (size_t i = file_bytes; i > 0; i--) {
        if (file[i - 1] != '/' && file[i - 1] != '\\') continue;
        file += i;
        file_bytes -= i;
        break;
    }
    char base[OOM_SNAPSHOT_SITE], tail[OOM_SNAPSHOT_SITE + 32] = "";
    size_t tail_bytes = 0;
    if (clean(file, file_bytes, base, sizeof base) > 0) {
        int n = line > 0 ? snprintf(tail, sizeof tail, " (%s:%" PRId64 ")", base, line)
                         : snprintf(tail, sizeof tail, " (%s)", base);
        tail_bytes = (size_t)n;
    }
    size_t room = OOM_SNAPSHOT_SITE > tail_bytes ? OOM_SNAPSHOT_SITE - tail_bytes : 1;
    size_t used = clean(name, name_bytes, out, room);
    return used + clean(tail, tail_bytes, out + used, OOM_SNAPSHOT_SITE - used);
}

static bool is_digits(const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9') return false;
    }
    return n > 0 && n < 18 && text[0] != '0';
}

struct oom_site_parts oom_site_split(const char *text) {
    size_t length = strlen(text);
    struct oom_site_parts parts = {text, "", (int)length, 0, 0};
    if (length < 4 || text[length - 1] != ')') return parts;
    size_t open = length - 1;
    while (open > 1 && !(text[open - 2] == ' ' && text[open - 1] == '(')) open--;
    if (open <= 1) return parts;
    const char *file = text + open;
    size_t bytes = length - 1 - open;
    if (bytes == 0 || memchr(file, '/', bytes) != NULL || memchr(file, '\\', bytes) != NULL)
        return parts;
    parts.name_bytes = (int)open - 2;
    parts.file = file;
    parts.file_bytes = (int)bytes;
    size_t colon = bytes;
    while (colon > 0 && file[colon - 1] != ':') colon--;
    if (colon > 1 && is_digits(file + colon, bytes - colon)) {
        parts.file_bytes = (int)colon - 1;
        parts.line = strtoll(file + colon, NULL, 10);
    }
    return parts;
}

/* ---- events ---- */

enum oom_status oom_build_event(struct oom_snapshot_builder *build,
                                const struct oom_snapshot_event *event) {
    struct oom_snapshot *s = &build->out;
    RESERVE(build, s->events, build->event_room, s->event_count + 1);
    s->events[s->event_count++] = *event;
    return OOM_OK;
}

enum oom_status oom_build_trace(struct oom_snapshot_builder *build) {
    struct oom_snapshot *s = &build->out;
    if (s->device_count == OOM_SNAPSHOT_DEVICES)
        return oom_build_fail(build, "traces of more than %d devices", OOM_SNAPSHOT_DEVICES);
    RESERVE(build, s->traces, build->trace_room, s->device_count + 1);
    uint64_t first = 0;
    if (s->device_count > 0) {
        const struct oom_snapshot_trace *last = &s->traces[s->device_count - 1];
        first = last->first + last->count;
    }
    s->traces[s->device_count++] = (struct oom_snapshot_trace){first, s->event_count - first};
    return OOM_OK;
}

/* ---- segments ---- */

static bool before(const struct oom_snapshot_segment *a, const struct oom_snapshot_segment *b) {
    return a->device != b->device ? a->device < b->device : a->address < b->address;
}

enum oom_status oom_build_segment(struct oom_snapshot_builder *build,
                                  const struct oom_snapshot_segment *segment) {
    struct oom_snapshot *s = &build->out;
    uint64_t i = s->segment_count;
    if (segment->device < 0 || segment->device >= OOM_SNAPSHOT_DEVICES)
        return oom_build_fail(build, "segments[%" PRIu64 "]: device %d; allowed are 0 to %d", i,
                              segment->device, OOM_SNAPSHOT_DEVICES - 1);
    if (segment->bytes == 0 || segment->bytes > UINT64_MAX - segment->address) {
        return oom_build_fail(build,
                              "segments[%" PRIu64 "]: %" PRIu64 " bytes at address %" PRIu64
                              "; it must hold something and end within 64 bits",
                              i, segment->bytes, segment->address);
    }
    RESERVE(build, s->segments, build->segment_room, i + 1);
    if (i > 0 && before(segment, &s->segments[i - 1])) build->sorted = false;
    s->segments[i] = *segment;
    s->segments[i].first_block = s->block_count;
    s->segments[i].block_count = 0;
    s->segment_count++;
    return OOM_OK;
}

enum oom_status oom_build_block(struct oom_snapshot_builder *build,
                                const struct oom_snapshot_block *block) {
    struct oom_snapshot *s = &build->out;
    uint64_t i = s->segment_count - 1;
    struct oom_snapshot_segment *segment = &s->segments[i];
    uint64_t k = segment->block_count, expected = segment->address;
    if (k > 0)
        expected = s->blocks[s->block_count - 1].address + s->blocks[s->block_count - 1].bytes;
    if (block->address != expected) {
        return oom_build_fail(build,
                              "segments[%" PRIu64 "].blocks[%" PRIu64 "]: at address %" PRIu64
                              "; the one before it ends at %" PRIu64,
                              i, k, block->address, expected);
    }
    if (block->bytes == 0 || block->bytes > segment->address + segment->bytes - expected) {
        return oom_build_fail(build,
                              "segments[%" PRIu64 "].blocks[%" PRIu64 "]: %" PRIu64
                              " bytes, and %" PRIu64 " of its segment are left",
                              i, k, block->bytes, segment->address + segment->bytes - expected);
    }
    RESERVE(build, s->blocks, build->block_room, s->block_count + 1);
    s->blocks[s->block_count++] = *block;
    segment->block_count++;
    return OOM_OK;
}

static enum oom_status sum_check(struct oom_snapshot_builder *build, const char *what, bool has,
                                 uint64_t said, uint64_t found) {
    if (!has || said == found) return OOM_OK;
    return oom_build_fail(
        build, "segments[%" PRIu64 "]: %s is %" PRIu64 ", and its blocks sum to %" PRIu64,
        build->out.segment_count - 1, what, said, found);
}

enum oom_status oom_build_segment_check(struct oom_snapshot_builder *build,
                                        const struct oom_build_sums *said) {
    struct oom_snapshot *s = &build->out;
    struct oom_snapshot_segment *segment = &s->segments[s->segment_count - 1];
    uint64_t total = 0, requested = 0, by_state[OOM_BLOCK_PENDING_FREE + 1] = {0};
    for (uint64_t i = 0; i < segment->block_count; i++) {
        const struct oom_snapshot_block *block = &s->blocks[segment->first_block + i];
        total += block->bytes;
        by_state[block->state] += block->bytes;
        if (block->state != OOM_BLOCK_INACTIVE) requested += block->requested;
    }
    OOM_TRY(sum_check(build, "total_size", true, segment->bytes, total));
    segment->allocated = by_state[OOM_BLOCK_ALLOCATED];
    segment->active = segment->allocated + by_state[OOM_BLOCK_PENDING_FREE];
    segment->requested = requested;
    OOM_TRY(sum_check(build, "allocated_size", said->has_allocated, said->allocated,
                      segment->allocated));
    OOM_TRY(sum_check(build, "active_size", said->has_active, said->active, segment->active));
    return sum_check(build, "requested_size", said->has_requested, said->requested, requested);
}

/* ---- the end ---- */

static int compare(const void *a, const void *b) {
    const struct oom_snapshot_segment *x = a, *y = b;
    return before(y, x) - before(x, y);
}

/* Blocks follow their segments. */
static enum oom_status sort(struct oom_snapshot_builder *build) {
    struct oom_snapshot *s = &build->out;
    struct oom_snapshot_block *blocks = oom_host_alloc((s->block_count + 1) * sizeof *blocks);
    if (blocks == NULL)
        return oom_fail(OOM_HOST_NOMEM, "%.80s: no host memory to sort its segments", build->name);
    qsort(s->segments, s->segment_count, sizeof *s->segments, compare);
    uint64_t used = 0;
    for (uint64_t i = 0; i < s->segment_count; i++) {
        struct oom_snapshot_segment *segment = &s->segments[i];
        if (segment->block_count == 0) continue;
        memcpy(blocks + used, s->blocks + segment->first_block,
               segment->block_count * sizeof *blocks);
        segment->first_block = used;
        used += segment->block_count;
    }
    oom_host_free(s->blocks);
    s->blocks = blocks;
    return OOM_OK;
}

static enum oom_status overlaps_find(const struct oom_snapshot_builder *build) {
    const struct oom_snapshot *s = &build->out;
    for (uint64_t i = 1; i < s->segment_count; i++) {
        const struct oom_snapshot_segment *a = &s->segments[i - 1], *b = &s->segments[i];
        if (a->device != b->device || a->address + a->bytes <= b->address) continue;
        return oom_fail(
            OOM_USAGE,
            "%.80s: segments overlap: by address, number %" PRIu64 " of device %d is [%" PRIu64
            ", %" PRIu64 ") and the next begins at %" PRIu64,
            build->name, i - 1, a->device, a->address, a->address + a->bytes, b->address);
    }
    return OOM_OK;
}

enum oom_status oom_build_finish(struct oom_snapshot_builder *build, struct oom_snapshot *out) {
    if (!build->sorted) OOM_TRY(sort(build));
    OOM_TRY(overlaps_find(build));
    const struct oom_snapshot *s = &build->out;
    uint64_t devices = 0;
    if (s->segment_count > 0) devices = (uint64_t)s->segments[s->segment_count - 1].device + 1;
    while (s->device_count < devices) OOM_TRY(oom_build_trace(build));
    oom_address_map_free(&build->pool_index);
    oom_address_map_free(&build->site_index);
    *out = build->out;
    build->out = (struct oom_snapshot){0};
    return OOM_OK;
}
