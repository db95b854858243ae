/*
 * Our own traces as JSON, in compact rows. version 1:
 * {"kind", "version", "profile" (or null), "capacity", "settings" (or null), "events_skipped",
 *  "actions": [names], "sites": [names], "pools": [[a, b], ...],
 *  "segments": [[device, address, bytes, stream, pool, site, small, expandable,
 *                [[bytes, requested, state, site], ...]], ...],
 *  "traces": [by device [[action, address, bytes, stream, site, pool, time in us], ...], ...]}
 * Addresses of blocks follow from their segment; numbers above 2^53 are texts, as in results files.
 */
#include "harness/memory/snapshot.h"

static void put_settings(const struct oom_snapshot *s, struct oom_json_writer *json) {
    oom_json_key(json, "settings");
    if (!s->has_settings) {
        oom_json_null(json);
        return;
    }
    oom_json_object_begin(json);
    oom_json_put_string(json, "alloc_conf", s->conf);
    oom_json_put_bool(json, "expandable_segments", s->expandable_segments);
    oom_json_put_int64(json, "max_split_size", s->max_split_size);
    oom_json_put_double(json, "garbage_collection_threshold", s->garbage_collection_threshold);
    oom_json_key(json, "roundup_power2_divisions");
    oom_json_array_begin(json);
    for (int i = 0; i < OOM_ROUNDUP_CLASSES; i++)
        oom_json_uint64(json, s->roundup_power2_divisions[i]);
    oom_json_array_end(json);
    oom_json_object_end(json);
}

static void put_row(struct oom_json_writer *json, const uint64_t *row, int count) {
    oom_json_array_begin(json);
    for (int i = 0; i < count; i++) oom_json_uint64(json, row[i]);
    oom_json_array_end(json);
}

static void put_tables(const struct oom_snapshot *s, struct oom_json_writer *json) {
    oom_json_key(json, "actions");
    oom_json_array_begin(json);
    for (int i = 0; i <= OOM_ACTION_SNAPSHOT; i++)
        oom_json_string(json, oom_action_name((enum oom_action)i));
    oom_json_array_end(json);
    oom_json_key(json, "sites");
    oom_json_array_begin(json);
    for (uint32_t i = 0; i < s->site_count; i++) oom_json_string(json, oom_snapshot_site(s, i));
    oom_json_array_end(json);
    oom_json_key(json, "pools");
    oom_json_array_begin(json);
    for (uint64_t i = 0; i < s->pool_count; i++)
        put_row(json, (uint64_t[]){s->pools[i].a, s->pools[i].b}, 2);
    oom_json_array_end(json);
}

/* The number of a pool; all pools of segments are in the table. */
static uint64_t pool_number(const struct oom_snapshot *s, struct oom_pool_id id) {
    uint64_t i = 0;
    while (i + 1 < s->pool_count && (s->pools[i].a != id.a || s->pools[i].b != id.b)) i++;
    return i;
}

static void put_segment(const struct oom_snapshot *s, const struct oom_snapshot_segment *segment,
                        struct oom_json_writer *json) {
    const uint64_t head[] = {
        (uint64_t)segment->device,     segment->address, segment->bytes,      segment->stream,
        pool_number(s, segment->pool), segment->site,    segment->small_pool, segment->expandable};
    oom_json_array_begin(json);
    for (size_t i = 0; i < sizeof head / sizeof *head; i++) oom_json_uint64(json, head[i]);
    oom_json_array_begin(json);
    for (uint64_t i = 0; i < segment->block_count; i++) {
        const struct oom_snapshot_block *block = &s->blocks[segment->first_block + i];
        put_row(json, (uint64_t[]){block->bytes, block->requested, block->state, block->site}, 4);
    }
    oom_json_array_end(json);
    oom_json_array_end(json);
}

static void put_trace(const struct oom_snapshot *s, const struct oom_snapshot_trace *trace,
                      struct oom_json_writer *json) {
    oom_json_array_begin(json);
    for (uint64_t i = trace->first; i < trace->first + trace->count; i++) {
        const struct oom_snapshot_event *e = &s->events[i];
        put_row(
            json,
            (uint64_t[]){e->action, e->address, e->bytes, e->stream, e->site, e->pool, e->time_us},
            7);
    }
    oom_json_array_end(json);
}

void oom_snapshot_put_json(const struct oom_snapshot *s, struct oom_json_writer *json) {
    oom_json_object_begin(json);
    oom_json_put_string(json, "kind", oom_snapshot_kind_name(OOM_SNAPSHOT_KIND_OOMBENCH));
    oom_json_put_uint64(json, "version", 1);
    oom_json_put_string(json, "profile",
                        s->profile < OOM_PROFILE_COUNT ? oom_profile_name(s->profile) : NULL);
    oom_json_put_uint64(json, "capacity", s->capacity);
    put_settings(s, json);
    oom_json_put_uint64(json, "events_skipped", s->events_skipped);
    put_tables(s, json);
    oom_json_key(json, "segments");
    oom_json_array_begin(json);
    for (uint64_t i = 0; i < s->segment_count; i++) put_segment(s, &s->segments[i], json);
    oom_json_array_end(json);
    oom_json_key(json, "traces");
    oom_json_array_begin(json);
    for (uint64_t i = 0; i < s->device_count; i++) put_trace(s, &s->traces[i], json);
    oom_json_array_end(json);
    oom_json_object_end(json);
}

enum oom_status oom_snapshot_write_json(const struct oom_snapshot *snapshot, FILE *out) {
    struct oom_json_writer json;
    oom_json_writer_init_file(&json, out, OOM_JSON_COMPACT | OOM_JSON_BIG_TEXT);
    oom_snapshot_put_json(snapshot, &json);
    OOM_TRY(oom_json_writer_finish(&json, NULL, NULL));
    return putc('\n', out) != EOF && fflush(out) == 0
               ? OOM_OK
               : oom_fail(OOM_IO, "the trace could not be written");
}
