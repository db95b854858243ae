/*
 * replay.c: `oombench replay TRACE`: does the model decide as the recorded run
 * did, and what would other settings, or another card, have made of it?
 */
#include "harness/cli/cli.h"

#include "harness/base/file.h"
#include "harness/base/options.h"
#include "harness/base/sizes.h"
#include "harness/base/text.h"
#include "harness/cli/replay-table.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long long ull; /* for printf */

enum { SIZE_TEXT = 16 };

struct replay_command {
    bool verify, sweep, help;
    const char *json, *capacity, *profile, *part, *export;
    struct oom_option_list alloc_conf;
    int device;
};

#define AT(field) .offset = offsetof(struct replay_command, field)
static const struct oom_option rows[] = {
    {"verify", 0, OOM_OPTION_FLAG, AT(verify),
     .help = "only compare every decision with the recording; exit 0 when all "
             "are equal"},
    {"capacity", 'c', OOM_OPTION_TEXT, AT(capacity), .metavar = "SIZE,...",
     .help = "cards to try (default: the one it ran on, where that is known)"},
    {"sweep", 0, OOM_OPTION_FLAG, AT(sweep), .help = "all settings on cards of many sizes"},
    {"alloc-conf", 0, OOM_OPTION_LIST, AT(alloc_conf), .metavar = "CONF[;CONF...]",
     .help = "settings to try, as in PYTORCH_CUDA_ALLOC_CONF; may be repeated "
             "(default: a "
             "choice of them)"},
    {"profile", 0, OOM_OPTION_TEXT, AT(profile), .metavar = "NAME",
     .help = "whose decisions: pytorch-2.13, pytorch-2.11 or fixed (default: "
             "those that agree "
             "with the recording)"},
    {"part", 0, OOM_OPTION_TEXT, AT(part), .fallback = "", .metavar = "ID",
     .help = "of a results file: which case's trace"},
    {"device", 0, OOM_OPTION_INT, AT(device), .min = 0, .max = 127, .fallback = "0",
     .help = "which device of the recording"},
    {"export", 0, OOM_OPTION_PATH, AT(export), .metavar = "FILE",
     .help = "write the recording as FILE.pickle (for PyTorch's viewer), "
             "FILE.perfetto.json or "
             "FILE.json, and do nothing else"},
    {"json", 0, OOM_OPTION_PATH, AT(json), .metavar = "FILE",
     .help = "as JSON; - is standard output"},
    {"help", 'h', OOM_OPTION_FLAG, AT(help), .help = "this list"},
};
#undef AT

struct replay {
    struct replay_command command;
    const char *path;
    struct oom_snapshot snapshot;
    struct oom_replay_options options;
    struct oom_replay_verdict verdict;
    bool verified; /* false: the recording names no segments */
    struct oom_replay_table table;
    bool capacity_known, capacity_inferred;
    int columns;
};

/* ---- what to try ---- */

static enum oom_status add_capacity(struct oom_replay_table *table, uint64_t bytes) {
    if (bytes < OOM_PAGE || bytes > UINT64_C(1) << 50) {
        char size[SIZE_TEXT];
        return oom_fail(OOM_USAGE, "--capacity: %s, allowed are 2.00 MiB to 1024 TiB",
                        oom_size_format(bytes, size, sizeof size));
    }
    if (table->capacity_count == OOM_REPLAY_CAPACITIES_MAX) {
        return oom_fail(OOM_USAGE, "--capacity: more than %d sizes", OOM_REPLAY_CAPACITIES_MAX);
    }
    table->capacities[table->capacity_count++] = bytes;
    return OOM_OK;
}

static enum oom_status parse_capacities(struct oom_replay_table *table, const char *text) {
    const char *at = text;
    for (;;) {
        char one[64];
        size_t length = strcspn(at, ",");
        uint64_t bytes;
        snprintf(one, sizeof one, "%.*s", length < sizeof one ? (int)length : 63, at);
        OOM_TRY(oom_size_parse("--capacity", one, &bytes));
        OOM_TRY(add_capacity(table, bytes));
        if (at[length] == 0) return OOM_OK;
        at += length + 1;
    }
}

/* Cards that are sold, from the first below what the run needs; for small runs
 * shares of that. */
static enum oom_status choose_ladder(struct oom_replay_table *table, uint64_t peak) {
    static const int cards[] = {8, 10, 12, 16, 24, 32, 40, 48, 80, 141};
    enum { CARDS = sizeof cards / sizeof cards[0], PARTS = 8 };
    if (peak > UINT64_C(6) << 30) {
        for (int i = 0; i < CARDS; i++) {
            OOM_TRY(add_capacity(table, (uint64_t)cards[i] << 30));
        }
        return OOM_OK;
    }
    for (uint64_t i = 0; i < PARTS; i++) {
        uint64_t bytes = peak / 16 * (12 + i) / OOM_PAGE * OOM_PAGE;
        OOM_TRY(add_capacity(table, bytes > OOM_PAGE ? bytes : OOM_PAGE));
    }
    return OOM_OK;
}

static enum oom_status choose_capacities(struct replay *replay, uint64_t peak) {
    struct oom_replay_table *table = &replay->table;
    if (replay->command.capacity != NULL) {
        return parse_capacities(table, replay->command.capacity);
    }
    if (replay->command.sweep) return choose_ladder(table, peak);
    uint64_t known = replay->snapshot.capacity;
    replay->capacity_known = known != 0;
    if (known == 0) {
        known = replay->verdict.seen_capacity;
        replay->capacity_inferred = known >= OOM_PAGE;
    }
    return known >= OOM_PAGE ? add_capacity(table, known) : OOM_OK;
}

static enum oom_status add_preset_rows(struct oom_replay_table *table, uint64_t peak) {
    static const char *const confs[] = {
        "expandable_segments:True",
        "max_split_size_mb:20",
        NULL, /* a tenth of the card */
        "roundup_power2_divisions:2",
        "roundup_power2_divisions:4",
        "roundup_power2_divisions:8",
        "garbage_collection_threshold:0.8,per_process_memory_fraction:0.95",
    };
    uint64_t card = table->capacity_count > 0 ? table->capacities[0] : peak;
    for (size_t i = 0; i < sizeof confs / sizeof confs[0]; i++) {
        char tenth[64];
        const char *conf = confs[i];
        if (conf == NULL) {
            if (card / 10 >> 20 <= 20) continue;
            snprintf(tenth, sizeof tenth, "max_split_size_mb:%llu", (ull)(card / 10 >> 20));
            conf = tenth;
        }
        if (table->options.profile == OOM_PROFILE_PYTORCH_2_11 &&
            strstr(conf, "per_process_memory_fraction") != NULL) {
            continue; /* it has no such key */
        }
        OOM_TRY(oom_replay_table_add(table, conf, conf));
    }
    return OOM_OK;
}

static enum oom_status add_given_rows(struct oom_replay_table *table,
                                      const struct oom_option_list *list) {
    for (int i = 0; i < list->count; i++) {
        const char *at = list->items[i];
        for (;;) {
            char conf[OOM_CONF_MAX];
            size_t length = strcspn(at, ";");
            if (length >= sizeof conf) {
                return oom_fail(OOM_USAGE, "--alloc-conf: more than %d characters",
                                OOM_CONF_MAX - 1);
            }
            snprintf(conf, sizeof conf, "%.*s", (int)length, at);
            OOM_TRY(oom_replay_table_add(table, conf[0] != 0 ? conf : "default", conf));
            if (at[length] == 0) break;
            at += length + 1;
        }
    }
    return OOM_OK;
}

static enum oom_status make_table(struct replay *replay) {
    struct oom_replay_table *table = &replay->table;
    struct oom_replay_outcome outcome;
    table->snapshot = &replay->snapshot;
    table->options = replay->options;
    table->options.profile_given = true;
    if (!replay->options.profile_given) table->options.profile = replay->verdict.profile;
    table->events = replay->snapshot.traces[replay->options.device].count;
    OOM_TRY(oom_replay_what_if(table->snapshot, &table->options, OOM_REPLAY_UNLIMITED, &outcome));
    OOM_TRY(choose_capacities(replay, outcome.peak_reserved));
    OOM_TRY(oom_replay_table_add(table, "recorded", NULL));
    if (replay->command.alloc_conf.count > 0) {
        return add_given_rows(table, &replay->command.alloc_conf);
    }
    OOM_TRY(oom_replay_table_add(table, "default", ""));
    return add_preset_rows(table, outcome.peak_reserved);
}

/* ---- what the recording is ---- */

static uint64_t duration_us(const struct replay *replay) {
    const struct oom_snapshot_trace *trace = &replay->snapshot.traces[replay->options.device];
    const struct oom_snapshot_event *events = replay->snapshot.events + trace->first;
    uint64_t last = trace->count > 0 ? events[trace->count - 1].time_us : 0;
    return trace->count > 0 && last > events[0].time_us ? last - events[0].time_us : 0;
}

static void print_wrapped(const struct replay *replay, const char *label, const char *text) {
    enum { LABEL = 11 };
    printf("%-*s", LABEL, label);
    oom_text_wrap(stdout, text, LABEL, LABEL, replay->columns);
}

static void print_start(const struct replay *replay) {
    const struct oom_replay_start *start = &replay->verdict.start;
    char text[OOM_REPLAY_TEXT + 256], a[SIZE_TEXT], b[SIZE_TEXT];
    if (start->empty) {
        print_wrapped(replay, "start", "empty");
        return;
    }
    snprintf(text, sizeof text,
             "mid-run: %llu segments (%s) with %llu live blocks (%s), %llu of "
             "which no event "
             "explains; rebuilt by undoing the events",
             (ull)start->segments, oom_size_format(start->reserved, a, sizeof a), (ull)start->live,
             oom_size_format(start->allocated, b, sizeof b), (ull)start->ghosts);
    print_wrapped(replay, "start", text);
    if (start->learned > 0) {
        snprintf(text, sizeof text,
                 "the ages of its segments are not recorded; %llu choices between "
                 "equal blocks "
                 "told them",
                 (ull)start->learned);
        print_wrapped(replay, "", text);
    }
    if (start->ambiguous > 0) {
        snprintf(text, sizeof text, "ambiguous in %llu places, the first: %s",
                 (ull)start->ambiguous, start->why);
        print_wrapped(replay, "", text);
    }
}

static void print_difference(const struct replay *replay) {
    const struct oom_replay_verdict *v = &replay->verdict;
    char text[OOM_REPLAY_TEXT + 64];
    snprintf(text, sizeof text, "event %llu: %s", (ull)v->first_event, v->expected);
    print_wrapped(replay, "expected", text);
    print_wrapped(replay, "got", v->got);
}

static void print_recording(const struct replay *replay) {
    const struct oom_replay_verdict *v = &replay->verdict;
    char text[OOM_REPLAY_TEXT], a[SIZE_TEXT];
    uint64_t took = duration_us(replay);
    int length = snprintf(text, sizeof text, "%s, %llu events",
                          oom_snapshot_kind_name(replay->snapshot.kind),
                          (ull)replay->snapshot.traces[replay->options.device].count);
    if (took > 0) {
        snprintf(text + length, sizeof text - (size_t)length, " in %.3f s", (double)took / 1e6);
    }
    print_wrapped(replay, "recording", text);
    if (!replay->verified) {
        print_wrapped(replay, "decisions", "it names no segments, so there are none to compare");
        return;
    }
    print_start(replay);
    if (v->settings_notes[0] != 0) print_wrapped(replay, "settings", v->settings_notes);
    snprintf(text, sizeof text, "%s%s", oom_profile_name(v->profile),
             replay->options.profile_given || replay->snapshot.profile < OOM_PROFILE_COUNT ? ""
             : v->profile_decided ? ", which agrees longest"
                                  : "; nothing in it tells the profiles apart");
    print_wrapped(replay, "profile", text);
    if (v->ooms > 0) {
        snprintf(text, sizeof text,
                 "%llu, the last at event %llu; the card had %s for this process "
                 "then (inferred: "
                 "reserved and free)",
                 (ull)v->ooms, (ull)v->last_oom, oom_size_format(v->seen_capacity, a, sizeof a));
        print_wrapped(replay, "OOM", text);
    }
    if (!v->matched) print_difference(replay);
}

static void print_decisions(const struct oom_replay_verdict *v) {
    printf("decisions %llu of %llu equal, peak reserved %llu, peak allocated %llu\n", (ull)v->equal,
           (ull)v->decisions, (ull)v->peak_reserved, (ull)v->peak_allocated);
}

/* Which settings would have saved a run that ended in OOM, on the card it ran
 * on. */
static void print_saved(const struct replay *replay) {
    char text[1024] = "", size[SIZE_TEXT], name[4 * OOM_CONF_MAX];
    const struct oom_replay_table *table = &replay->table;
    if (replay->verdict.ooms == 0 || !(replay->capacity_known || replay->capacity_inferred)) return;
    size_t used = 0;
    for (int i = 0; i < table->row_count; i++) {
        if (!table->rows[i].at[0].fits || strcmp(table->rows[i].name, "recorded") == 0) continue;
        if (used + OOM_CONF_MAX + 128 > sizeof text) break;
        oom_text_show(table->rows[i].name, strlen(table->rows[i].name), name, sizeof name);
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%.*s", used > 0 ? "; " : "",
                                 OOM_CONF_MAX, name);
    }
    printf("it ran out of memory on a card of %s (%s); ",
           oom_size_format(table->capacities[0], size, sizeof size),
           replay->capacity_known ? "recorded" : "inferred");
    if (used == 0)
        printf("no setting here would have saved it\n");
    else
        printf("it would have been saved by: %s\n", text);
}

/* ---- JSON ---- */

static void put_verdict(const struct replay *replay, struct oom_json_writer *json) {
    const struct oom_replay_verdict *v = &replay->verdict;
    oom_json_put_string(json, "trace", replay->path);
    oom_json_put_string(json, "kind", oom_snapshot_kind_name(replay->snapshot.kind));
    oom_json_put_uint64(json, "events", replay->snapshot.traces[replay->options.device].count);
    if (!replay->verified) return;
    oom_json_put_bool(json, "matched", v->matched);
    oom_json_put_uint64(json, "decisions", v->decisions);
    oom_json_put_uint64(json, "equal", v->equal);
    oom_json_put_uint64(json, "peak_reserved_bytes", v->peak_reserved);
    oom_json_put_uint64(json, "peak_allocated_bytes", v->peak_allocated);
    oom_json_put_uint64(json, "end_reserved_bytes", v->end_reserved);
    oom_json_put_uint64(json, "end_allocated_bytes", v->end_allocated);
    oom_json_put_string(json, "profile", oom_profile_name(v->profile));
    oom_json_put_bool(json, "profile_decided", v->profile_decided);
    oom_json_put_uint64(json, "ooms", v->ooms);
    oom_json_put_uint64(json, "seen_capacity_bytes", v->seen_capacity);
    oom_json_put_string(json, "settings_notes", v->settings_notes);
    oom_json_key(json, "start");
    oom_json_object_begin(json);
    oom_json_put_bool(json, "empty", v->start.empty);
    oom_json_put_uint64(json, "segments", v->start.segments);
    oom_json_put_uint64(json, "live_blocks", v->start.live);
    oom_json_put_uint64(json, "reserved_bytes", v->start.reserved);
    oom_json_put_uint64(json, "allocated_bytes", v->start.allocated);
    oom_json_put_uint64(json, "ghosts", v->start.ghosts);
    oom_json_put_uint64(json, "learned_ages", v->start.learned);
    oom_json_put_uint64(json, "ambiguous", v->start.ambiguous);
    oom_json_put_string(json, "why", v->start.why);
    oom_json_object_end(json);
    oom_json_key(json, "first_difference");
    if (v->matched) {
        oom_json_null(json);
        return;
    }
    oom_json_object_begin(json);
    oom_json_put_uint64(json, "event", v->first_event);
    oom_json_put_string(json, "expected", v->expected);
    oom_json_put_string(json, "got", v->got);
    oom_json_object_end(json);
}

static enum oom_status write_json(const struct replay *replay) {
    bool standard = strcmp(replay->command.json, "-") == 0;
    struct oom_file_writer writer;
    struct oom_json_writer json;
    if (!standard) OOM_TRY(oom_file_writer_open(&writer, replay->command.json));
    oom_json_writer_init_file(&json, standard ? stdout : writer.file, OOM_JSON_PRETTY);
    oom_json_object_begin(&json);
    put_verdict(replay, &json);
    if (replay->table.row_count > 0) {
        oom_json_put_uint64(&json, "lower_bound_bytes", replay->table.rows[0].endless.peak_live);
        oom_replay_table_json(&replay->table, &json);
    }
    oom_json_object_end(&json);
    enum oom_status status = oom_json_writer_finish(&json, NULL, NULL);
    if (standard) return status;
    if (status == OOM_OK) return oom_file_writer_commit(&writer);
    oom_file_writer_abandon(&writer);
    return status;
}

/* ---- export ---- */

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n > m && strcmp(text + n - m, end) == 0;
}

static enum oom_status export(const struct replay *replay) {
    static const struct {const char * end;
                         enum oom_status(*write)(const struct oom_snapshot *snapshot, FILE *out);}
formats[] = {{".pickle", oom_snapshot_write_pickle},
             {".perfetto.json", oom_snapshot_write_perfetto},
             {".json", oom_snapshot_write_json}};
const char *path = replay->command.export;
for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
    struct oom_file_writer writer;
    if (!ends_with(path, formats[i].end)) continue;
    OOM_TRY(oom_file_writer_open(&writer, path));
    enum oom_status status = formats[i].write(&replay->snapshot, writer.file);
    if (status == OOM_OK) return oom_file_writer_commit(&writer);
    oom_file_writer_abandon(&writer);
    return status;
}
return oom_fail(OOM_USAGE,
                "--export '%s': names that end with .pickle, .perfetto.json or "
                ".json are known",
                path);
}

/* ---- the verb ---- */

static enum oom_status prepare(struct replay *replay) {
    const struct replay_command *c = &replay->command;
    replay->columns = oom_terminal_columns(1);
    replay->options.device = (uint64_t)c->device;
    if (c->profile != NULL) {
        replay->options.profile_given = true;
        OOM_TRY(oom_profile_find(c->profile, &replay->options.profile));
    }
    if (c->capacity != NULL) { /* refused before anything is read */
        OOM_TRY(parse_capacities(&replay->table, c->capacity));
        replay->table.capacity_count = 0;
    }
    if (c->verify && c->alloc_conf.count > 1) {
        return oom_fail(OOM_USAGE, "--verify: one --alloc-conf at most, %d given",
                        c->alloc_conf.count);
    }
    if (c->verify && c->alloc_conf.count == 1) {
        replay->options.settings_given = true;
        replay->options.settings = oom_allocator_settings_default();
        if (c->profile != NULL) replay->options.settings.profile = replay->options.profile;
        OOM_TRY(oom_allocator_settings_parse(c->alloc_conf.items[0], &replay->options.settings));
    }
    return OOM_OK;
}

static enum oom_status answer(struct replay *replay) {
    replay->verified = replay->command.verify ||
                       oom_replay_has_segments(&replay->snapshot, replay->options.device);
    if (replay->verified) {
        if (replay->command.verify && replay->command.capacity != NULL) {
            OOM_TRY(parse_capacities(&replay->table, replay->command.capacity));
            replay->options.capacity = replay->table.capacities[0];
        }
        OOM_TRY(oom_replay_verify(&replay->snapshot, &replay->options, &replay->verdict));
    }
    return replay->command.verify ? OOM_OK : make_table(replay);
}

static void print(const struct replay *replay) {
    char size[SIZE_TEXT];
    print_recording(replay);
    if (replay->command.verify) {
        print_decisions(&replay->verdict);
        return;
    }
    if (replay->verified) {
        printf("%-11s", "decisions");
        printf("%llu of %llu equal%s\n", (ull)replay->verdict.equal, (ull)replay->verdict.decisions,
               replay->verdict.matched ? ", and the same end" : "");
    }
    printf("%-11s%s live at the peak: no allocator needs less\n", "least",
           oom_size_format(replay->table.rows[0].endless.peak_live, size, sizeof size));
    oom_replay_table_print(&replay->table, replay->columns);
    oom_replay_table_conclude(&replay->table, replay->columns);
    print_saved(replay);
}

static int run(struct replay *replay) {
    enum oom_status status =
        oom_snapshot_read(replay->path, replay->command.part, &replay->snapshot);
    if (status == OOM_IO) { /* what was named is what is wrong */
        oom_exit_for(status, "replay");
        return OOM_EXIT_USAGE;
    }
    if (status == OOM_OK && replay->command.export != NULL) {
        status = export(replay);
        return status == OOM_OK ? OOM_EXIT_OK : oom_exit_for(status, "replay");
    }
    if (status == OOM_OK) status = answer(replay);
    if (status == OOM_OK && replay->command.json != NULL) status = write_json(replay);
    if (status != OOM_OK) return oom_exit_for(status, "replay");
    if (replay->command.json == NULL || strcmp(replay->command.json, "-") != 0) print(replay);
    return replay->command.verify && !replay->verdict.matched ? OOM_EXIT_FAILED : OOM_EXIT_OK;
}

int oom_verb_replay(int argc, char **argv) {
    enum { OPERANDS_MAX = 256 };
    const char *operands[OPERANDS_MAX];
    const struct oom_options table = {rows, sizeof rows / sizeof rows[0]};
    struct replay replay = {0};
    int count = 0;
    enum oom_status status = OOM_OK;
    if (argc > OPERANDS_MAX) status = oom_fail(OOM_USAGE, "more than %d arguments", OPERANDS_MAX);
    if (status == OOM_OK) {
        status = oom_options_parse(&table, argc, argv, &replay.command, operands, &count, NULL);
    }
    if (status == OOM_OK && replay.command.help) {
        printf("usage: oombench replay TRACE [options]\n\nTRACE is a snapshot of "
               "PyTorch's "
               "(pickle), an RMM log (CSV), or JSON of oombench.\n\n");
        oom_options_help(&table, stdout, oom_terminal_columns(1));
        return OOM_EXIT_OK;
    }
    if (status == OOM_OK && count != 1) {
        status = oom_fail(OOM_USAGE, "one recording is needed, such as snapshot.pickle; %d given",
                          count);
    }
    if (status == OOM_OK) status = prepare(&replay);
    if (status != OOM_OK) return oom_exit_for(status, "replay");
    replay.path = operands[0];
    int code = run(&replay);
    oom_replay_table_free(&replay.table);
    oom_snapshot_free(&replay.snapshot);
    return code;
}
