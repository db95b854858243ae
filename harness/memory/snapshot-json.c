/*
 * Our own traces: one JSON object (oom_snapshot_put_json has its layout), alone or as "trace" of a
 * case in a results file. Rows are read in place: a million events never become a tree. Members
 * may stand in any order: the first pass only notes where they are.
 */
#include "harness/memory/grow.h"
#include "harness/base/json-scan.h"
#include "harness/memory/snapshot-build.h"
#include "harness/memory/snapshot-parts.h"

#include "harness/base/text.h"

#include "kernels/hostmem.h"

#include <string.h>

enum { KEY_BYTES = 40, ID_BYTES = 160, EVENT_COLUMNS = 7, SEGMENT_COLUMNS = 8, BLOCK_COLUMNS = 4 };

#define MEMBER_MAP(X) \
    X(KIND, "kind", true) \
    X(VERSION, "version", true) \
    X(PROFILE, "profile", false) \
    X(CAPACITY, "capacity", true) \
    X(SETTINGS, "settings", false) \
    X(SKIPPED, "events_skipped", true) \
    X(ACTIONS, "actions", true) \
    X(SITES, "sites", true) \
    X(POOLS, "pools", true) \
    X(SEGMENTS, "segments", true) \
    X(TRACES, "traces", true)

enum member {
#define X(id, name, required) MEMBER_##id,
    MEMBER_MAP(X)
#undef X
        MEMBER_COUNT
};

static const struct {
    const char *name;
    bool required;
} members[MEMBER_COUNT] = {
#define X(id, name, required) {name, required},
    MEMBER_MAP(X)
#undef X
};

struct json_reader {
    struct oom_snapshot_builder build;
    struct oom_json_scan at[MEMBER_COUNT]; /* text NULL: not there */
    uint8_t actions[UINT8_MAX + 1];        /* the file's number -> ours */
    uint64_t action_count;
    uint32_t *sites; /* the file's number -> ours */
    uint64_t site_count, site_room;
    uint16_t *pools;
    uint64_t pool_count, pool_room;
};

/* ---- where things are ---- */

static enum oom_status members_find(struct json_reader *reader, struct oom_json_scan *scan) {
    char key[KEY_BYTES];
    bool more;
    OOM_TRY(oom_json_scan_open(scan, '{', &more));
    while (more) {
        OOM_TRY(oom_json_scan_key(scan, key, sizeof key));
        for (int i = 0; i < MEMBER_COUNT; i++) {
            if (strcmp(key, members[i].name) != 0) continue;
            if (reader->at[i].text != NULL)
                return oom_json_scan_refuse(scan, "a key that stands twice in this object");
            reader->at[i] = *scan;
        }
        OOM_TRY(oom_json_scan_skip(scan));
        OOM_TRY(oom_json_scan_next(scan, '{', &more));
    }
    for (int i = 0; i < MEMBER_COUNT; i++) {
        if (members[i].required && reader->at[i].text == NULL)
            return oom_fail(OOM_USAGE, "%.80s: byte %zu: the trace that ends here has no \"%s\"",
                            scan->name, scan->at, members[i].name);
    }
    return OOM_OK;
}

/* ---- small members ---- */

static enum oom_status expect(struct oom_json_scan *scan, const char *wanted) {
    char text[KEY_BYTES], shown[4 * KEY_BYTES];
    struct oom_json_scan start = *scan;
    OOM_TRY(oom_json_scan_text(scan, text, sizeof text, NULL));
    if (strcmp(text, wanted) == 0) return OOM_OK;
    return oom_fail(OOM_USAGE, "%.80s: byte %zu: '%s'; '%s' is expected", start.name, start.at,
                    oom_text_show(text, strlen(text), shown, sizeof shown), wanted);
}

static enum oom_status profile_read(struct oom_json_scan *scan, enum oom_profile *out) {
    char text[KEY_BYTES];
    if (oom_json_scan_peek(scan) == 'n') return OOM_OK; /* null: nobody's we know */
    OOM_TRY(oom_json_scan_text(scan, text, sizeof text, NULL));
    return oom_profile_find(text, out);
}

static enum oom_status roundup_read(struct oom_json_scan *scan, struct oom_snapshot *s) {
    uint64_t divisions[OOM_ROUNDUP_CLASSES];
    OOM_TRY(oom_json_scan_row(scan, divisions, OOM_ROUNDUP_CLASSES));
    for (int i = 0; i < OOM_ROUNDUP_CLASSES; i++) {
        if (divisions[i] > UINT32_MAX)
            return oom_json_scan_refuse(scan, "divisions below 2^32 are expected");
        s->roundup_power2_divisions[i] = (uint32_t)divisions[i];
    }
    return OOM_OK;
}

static enum oom_status conf_read(struct oom_json_scan *scan, struct oom_snapshot *s) {
    size_t bytes;
    OOM_TRY(oom_json_scan_text(scan, s->conf, sizeof s->conf, &bytes));
    if (bytes < sizeof s->conf) return OOM_OK;
    return oom_json_scan_refuse(scan, "a settings string of more than 255 bytes");
}

static enum oom_status setting_read(struct oom_json_scan *scan, const char *key,
                                    struct oom_snapshot *s) {
    if (strcmp(key, "alloc_conf") == 0) return conf_read(scan, s);
    if (strcmp(key, "expandable_segments") == 0)
        return oom_json_scan_bool(scan, &s->expandable_segments);
    if (strcmp(key, "roundup_power2_divisions") == 0) return roundup_read(scan, s);
    if (strcmp(key, "max_split_size") == 0) {
        OOM_TRY(oom_json_scan_int(scan, &s->max_split_size));
        if (s->max_split_size >= -1) return OOM_OK;
        return oom_json_scan_refuse(scan, "max_split_size is a number of bytes, or -1");
    }
    if (strcmp(key, "garbage_collection_threshold") == 0) {
        OOM_TRY(oom_json_scan_double(scan, &s->garbage_collection_threshold));
        if (s->garbage_collection_threshold >= 0 && s->garbage_collection_threshold <= 1)
            return OOM_OK;
        return oom_json_scan_refuse(scan, "garbage_collection_threshold is from 0 to 1");
    }
    return oom_json_scan_skip(scan);
}

static enum oom_status settings_read(struct oom_json_scan *scan, struct oom_snapshot *s) {
    char key[KEY_BYTES];
    bool more;
    if (oom_json_scan_peek(scan) == 'n') return OOM_OK;
    OOM_TRY(oom_json_scan_open(scan, '{', &more));
    while (more) {
        OOM_TRY(oom_json_scan_key(scan, key, sizeof key));
        OOM_TRY(setting_read(scan, key, s));
        OOM_TRY(oom_json_scan_next(scan, '{', &more));
    }
    s->has_settings = true;
    return OOM_OK;
}

/* ---- tables ---- */

static enum oom_status actions_read(struct json_reader *reader, struct oom_json_scan *scan) {
    char name[KEY_BYTES];
    bool more;
    OOM_TRY(oom_json_scan_open(scan, '[', &more));
    while (more) {
        if (reader->action_count > UINT8_MAX)
            return oom_json_scan_refuse(scan, "more than 256 actions");
        OOM_TRY(oom_json_scan_text(scan, name, sizeof name, NULL));
        uint8_t action = 0;
        while (action <= OOM_ACTION_SNAPSHOT && strcmp(name, oom_action_name(action)) != 0)
            action++;
        if (action > OOM_ACTION_SNAPSHOT) return oom_json_scan_refuse(scan, "an unknown action");
        reader->actions[reader->action_count++] = action;
        OOM_TRY(oom_json_scan_next(scan, '[', &more));
    }
    return OOM_OK;
}

static void *grown(const struct oom_json_scan *scan, void *array, uint64_t *room, size_t each) {
    void *out = oom_grown(array, room, *room + 1, each);
    if (out == NULL)
        oom_fail(OOM_HOST_NOMEM, "%.80s: byte %zu: no host memory for its tables", scan->name,
                 scan->at);
    return out;
}

static enum oom_status sites_read(struct json_reader *reader, struct oom_json_scan *scan) {
    char text[OOM_SNAPSHOT_SITE];
    bool more;
    OOM_TRY(oom_json_scan_open(scan, '[', &more));
    while (more) {
        OOM_TRY(oom_json_scan_text(scan, text, sizeof text, NULL));
        if (reader->site_count == reader->site_room) {
            void *sites = grown(scan, reader->sites, &reader->site_room, sizeof *reader->sites);
            if (sites == NULL) return OOM_HOST_NOMEM;
            reader->sites = sites;
        }
        OOM_TRY(
            oom_build_site(&reader->build, text, strlen(text), &reader->sites[reader->site_count]));
        reader->site_count++;
        OOM_TRY(oom_json_scan_next(scan, '[', &more));
    }
    return OOM_OK;
}

static enum oom_status pools_read(struct json_reader *reader, struct oom_json_scan *scan) {
    bool more;
    OOM_TRY(oom_json_scan_open(scan, '[', &more));
    while (more) {
        uint64_t id[2];
        reader->build.at = scan->at;
        OOM_TRY(oom_json_scan_row(scan, id, 2));
        if (reader->pool_count == reader->pool_room) {
            void *pools = grown(scan, reader->pools, &reader->pool_room, sizeof *reader->pools);
            if (pools == NULL) return OOM_HOST_NOMEM;
            reader->pools = pools;
        }
        OOM_TRY(oom_build_pool(&reader->build, (struct oom_pool_id){id[0], id[1]},
                               &reader->pools[reader->pool_count]));
        reader->pool_count++;
        OOM_TRY(oom_json_scan_next(scan, '[', &more));
    }
    return OOM_OK;
}

static enum oom_status lookup(const struct json_reader *reader, const char *what, uint64_t value,
                              uint64_t count) {
    if (value < count) return OOM_OK;
    return oom_build_fail(&reader->build, "%s %" PRIu64 "; there are %" PRIu64, what, value, count);
}

/* ---- segments and traces ---- */

static enum oom_status block_read(struct json_reader *reader, struct oom_json_scan *scan,
                                  uint64_t address) {
    uint64_t row[BLOCK_COLUMNS];
    OOM_TRY(oom_json_scan_row(scan, row, BLOCK_COLUMNS));
    OOM_TRY(lookup(reader, "a block of state", row[2], OOM_BLOCK_PENDING_FREE + 1));
    OOM_TRY(lookup(reader, "a block of site", row[3], reader->site_count));
    struct oom_snapshot_block block = {.address = address,
                                       .bytes = row[0],
                                       .requested = row[1],
                                       .state = (uint8_t)row[2],
                                       .site = reader->sites[row[3]]};
    return oom_build_block(&reader->build, &block);
}

static enum oom_status segment_add(struct json_reader *reader, const uint64_t *row) {
    const struct oom_snapshot *s = &reader->build.out;
    OOM_TRY(lookup(reader, "a segment of device", row[0], OOM_SNAPSHOT_DEVICES));
    OOM_TRY(lookup(reader, "a segment of pool", row[4], reader->pool_count));
    OOM_TRY(lookup(reader, "a segment of site", row[5], reader->site_count));
    OOM_TRY(lookup(reader, "a segment with flag", row[6] > row[7] ? row[6] : row[7], 2));
    struct oom_snapshot_segment segment = {.device = (int32_t)row[0],
                                           .address = row[1],
                                           .bytes = row[2],
                                           .stream = row[3],
                                           .pool = s->pools[reader->pools[row[4]]],
                                           .site = reader->sites[row[5]],
                                           .small_pool = row[6] != 0,
                                           .expandable = row[7] != 0};
    return oom_build_segment(&reader->build, &segment);
}

/* [device, address, bytes, stream, pool, site, small, expandable, [[bytes, requested, state,
 * site], ...]] */
static enum oom_status segment_read(struct json_reader *reader, struct oom_json_scan *scan) {
    const struct oom_snapshot *s = &reader->build.out;
    uint64_t row[SEGMENT_COLUMNS];
    bool more;
    OOM_TRY(oom_json_scan_open(scan, '[', &more));
    for (int i = 0; i < SEGMENT_COLUMNS; i++) {
        if (!more) return oom_json_scan_refuse(scan, "a segment with too few columns");
        OOM_TRY(oom_json_scan_uint(scan, &row[i]));
        OOM_TRY(oom_json_scan_next(scan, '[', &more));
    }
    if (!more) return oom_json_scan_refuse(scan, "a segment without blocks");
    OOM_TRY(segment_add(reader, row));
    uint64_t next = row[1];
    OOM_TRY(oom_json_scan_open(scan, '[', &more));
    while (more) {
        reader->build.at = scan->at;
        OOM_TRY(block_read(reader, scan, next));
        next += s->blocks[s->block_count - 1].bytes;
        OOM_TRY(oom_json_scan_next(scan, '[', &more));
    }
    OOM_TRY(oom_json_scan_next(scan, '[', &more));
    if (more) return oom_json_scan_refuse(scan, "a segment with too many columns");
    return oom_build_segment_check(&reader->build, &(struct oom_build_sums){0});
}

static enum oom_status segments_read(struct json_reader *reader, struct oom_json_scan *scan) {
    bool more;
    OOM_TRY(oom_json_scan_open(scan, '[', &more));
    while (more) {
        reader->build.at = scan->at;
        OOM_TRY(segment_read(reader, scan));
        OOM_TRY(oom_json_scan_next(scan, '[', &more));
    }
    return OOM_OK;
}

/* [action, address, bytes, stream, site, pool, time] */
static enum oom_status event_read(struct json_reader *reader, struct oom_json_scan *scan) {
    uint64_t row[EVENT_COLUMNS];
    reader->build.at = scan->at;
    OOM_TRY(oom_json_scan_row(scan, row, EVENT_COLUMNS));
    OOM_TRY(lookup(reader, "an event of action", row[0], reader->action_count));
    OOM_TRY(lookup(reader, "an event of site", row[4], reader->site_count));
    OOM_TRY(lookup(reader, "an event of pool", row[5], reader->pool_count));
    struct oom_snapshot_event event = {.action = reader->actions[row[0]],
                                       .address = row[1],
                                       .bytes = row[2],
                                       .stream = row[3],
                                       .site = reader->sites[row[4]],
                                       .pool = reader->pools[row[5]],
                                       .time_us = row[6]};
    return oom_build_event(&reader->build, &event);
}

static enum oom_status traces_read(struct json_reader *reader, struct oom_json_scan *scan) {
    bool more, inner;
    OOM_TRY(oom_json_scan_open(scan, '[', &more));
    while (more) {
        OOM_TRY(oom_json_scan_open(scan, '[', &inner));
        while (inner) {
            OOM_TRY(event_read(reader, scan));
            OOM_TRY(oom_json_scan_next(scan, '[', &inner));
        }
        reader->build.at = scan->at;
        OOM_TRY(oom_build_trace(&reader->build));
        OOM_TRY(oom_json_scan_next(scan, '[', &more));
    }
    return OOM_OK;
}

/* ---- one trace ---- */

static enum oom_status trace_read(struct json_reader *reader, struct oom_json_scan *scan) {
    struct oom_snapshot *s = &reader->build.out;
    struct oom_json_scan *at = reader->at;
    uint64_t version;
    OOM_TRY(members_find(reader, scan));
    OOM_TRY(expect(&at[MEMBER_KIND], oom_snapshot_kind_name(OOM_SNAPSHOT_KIND_OOMBENCH)));
    OOM_TRY(oom_json_scan_uint(&at[MEMBER_VERSION], &version));
    if (version != 1)
        return oom_fail(OOM_USAGE, "%.80s: a trace of version %" PRIu64 "; 1 is read", scan->name,
                        version);
    OOM_TRY(oom_json_scan_uint(&at[MEMBER_CAPACITY], &s->capacity));
    OOM_TRY(oom_json_scan_uint(&at[MEMBER_SKIPPED], &s->events_skipped));
    if (at[MEMBER_PROFILE].text != NULL) OOM_TRY(profile_read(&at[MEMBER_PROFILE], &s->profile));
    if (at[MEMBER_SETTINGS].text != NULL) OOM_TRY(settings_read(&at[MEMBER_SETTINGS], s));
    OOM_TRY(actions_read(reader, &at[MEMBER_ACTIONS]));
    OOM_TRY(sites_read(reader, &at[MEMBER_SITES]));
    OOM_TRY(pools_read(reader, &at[MEMBER_POOLS]));
    OOM_TRY(traces_read(reader, &at[MEMBER_TRACES]));
    return segments_read(reader, &at[MEMBER_SEGMENTS]);
}

/* ---- which trace ---- */

struct choice {
    const char *part;           /* "": any */
    struct oom_json_scan found; /* text NULL: none yet */
    uint64_t traces, matches;
    char ids[160]; /* of those that have one, for people */
};

static void choice_list(struct choice *choice, const char *id) {
    size_t used = strlen(choice->ids);
    if (choice->traces++ > 0 && used + 1 < sizeof choice->ids)
        used += (size_t)snprintf(choice->ids + used, sizeof choice->ids - used, ", ");
    char shown[sizeof choice->ids];
    oom_text_show(id, strlen(id), shown, sizeof shown);
    if (used + strlen(shown) + 5 < sizeof choice->ids)
        snprintf(choice->ids + used, sizeof choice->ids - used, "%s", shown);
    else if (used + 4 < sizeof choice->ids && strstr(choice->ids, "...") == NULL)
        snprintf(choice->ids + used, sizeof choice->ids - used, "...");
}

/* A case: {"id": ..., "trace": {...}, ...} */
static enum oom_status case_read(struct oom_json_scan *scan, struct choice *choice) {
    char key[KEY_BYTES], id[ID_BYTES] = "";
    struct oom_json_scan trace = {0};
    bool more;
    OOM_TRY(oom_json_scan_open(scan, '{', &more));
    while (more) {
        OOM_TRY(oom_json_scan_key(scan, key, sizeof key));
        if (strcmp(key, "trace") == 0 && oom_json_scan_peek(scan) == '{') trace = *scan;
        if (strcmp(key, "id") == 0)
            OOM_TRY(oom_json_scan_text(scan, id, sizeof id, NULL));
        else
            OOM_TRY(oom_json_scan_skip(scan));
        OOM_TRY(oom_json_scan_next(scan, '{', &more));
    }
    if (trace.text == NULL) return OOM_OK;
    choice_list(choice, id);
    if (*choice->part != 0 && strcmp(choice->part, id) != 0) return OOM_OK;
    choice->matches++;
    choice->found = trace;
    return OOM_OK;
}

static enum oom_status cases_read(struct oom_json_scan *scan, struct choice *choice) {
    bool more;
    OOM_TRY(oom_json_scan_open(scan, '[', &more));
    while (more) {
        OOM_TRY(case_read(scan, choice));
        OOM_TRY(oom_json_scan_next(scan, '[', &more));
    }
    return OOM_OK;
}

/* The members named `inside` of the object, by `visit`; others are skipped. */
static enum oom_status object_visit(struct oom_json_scan *scan, const char *inside,
                                    enum oom_status (*visit)(struct oom_json_scan *,
                                                             struct choice *),
                                    struct choice *choice) {
    char key[KEY_BYTES];
    bool more;
    OOM_TRY(oom_json_scan_open(scan, '{', &more));
    while (more) {
        OOM_TRY(oom_json_scan_key(scan, key, sizeof key));
        if (strcmp(key, inside) == 0)
            OOM_TRY(visit(scan, choice));
        else
            OOM_TRY(oom_json_scan_skip(scan));
        OOM_TRY(oom_json_scan_next(scan, '{', &more));
    }
    return OOM_OK;
}

static enum oom_status own_read(struct oom_json_scan *scan, struct choice *choice) {
    return object_visit(scan, "cases", cases_read, choice);
}

static enum oom_status noted(struct oom_json_scan *scan, struct choice *choice) {
    choice->found = *scan;
    return oom_json_scan_skip(scan);
}

static enum oom_status choose(const char *name, const struct choice *choice) {
    if (choice->traces == 0)
        return oom_fail(OOM_USAGE,
                        "%.80s: no trace in it: neither a trace itself (\"kind\") nor a "
                        "results file with cases that hold one",
                        name);
    if (choice->matches == 1) return OOM_OK;
    if (choice->matches == 0)
        return oom_fail(OOM_USAGE, "%.80s: no case '%.60s' with a trace; there are: %s", name,
                        choice->part, choice->ids);
    return oom_fail(OOM_USAGE, "%.80s: %" PRIu64 " cases have a trace; name one of: %s", name,
                    choice->matches, choice->ids);
}

static enum oom_status document_read(struct json_reader *reader, struct oom_json_scan scan,
                                     const char *part) {
    struct choice choice = {.part = part};
    struct oom_json_scan start = scan;
    OOM_TRY(object_visit(&scan, "kind", noted, &choice));
    OOM_TRY(oom_json_scan_end(&scan));
    scan = start;
    if (choice.found.text != NULL) {
        if (*part != 0)
            return oom_fail(OOM_USAGE,
                            "%.80s: the part '%.60s' was asked for; only results files "
                            "have parts",
                            start.name, part);
        return trace_read(reader, &scan);
    }
    OOM_TRY(object_visit(&scan, "oombench", own_read, &choice));
    OOM_TRY(choose(start.name, &choice));
    choice.found.depth = 0;
    return trace_read(reader, &choice.found);
}

enum oom_status oom_snapshot_parse_json(const char *name, const void *bytes, size_t n,
                                        const char *part, struct oom_snapshot *out) {
    struct json_reader reader = {0};
    struct oom_json_scan scan = {.name = name, .text = bytes, .end = n};
    enum oom_status status = oom_build_begin(&reader.build, name, "byte");
    reader.build.out.kind = OOM_SNAPSHOT_KIND_OOMBENCH;
    if (status == OOM_OK) status = document_read(&reader, scan, part != NULL ? part : "");
    if (status == OOM_OK) status = oom_build_finish(&reader.build, out);
    oom_host_free(reader.sites);
    oom_host_free(reader.pools);
    oom_build_abandon(&reader.build);
    return status;
}
