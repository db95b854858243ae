#include "harness/cli/replay-table.h"

#include "harness/base/sizes.h"
#include "harness/base/text.h"
#include "kernels/hostmem.h"

#include <stdio.h>
#include <string.h>

typedef unsigned long long ull; /* for printf */

enum { INDENT = 2, SIZE_TEXT = 16, NAME_LEAST = 20, NAME_MOST = 44 };

/* ---- rows ---- */

static enum oom_status fill(struct oom_replay_table *table, const char *conf,
                            struct oom_replay_row *row) {
    struct oom_replay_options options = table->options;
    if (conf != NULL) {
        options.settings = oom_allocator_settings_default();
        options.settings_given = true;
        options.settings.profile = options.profile;
        OOM_TRY(oom_allocator_settings_parse(conf, &options.settings));
    }
    OOM_TRY(oom_replay_what_if(table->snapshot, &options, OOM_REPLAY_UNLIMITED, &row->endless));
    OOM_TRY(oom_replay_least(table->snapshot, &options, &row->least));
    for (int i = 0; i < table->capacity_count; i++) {
        OOM_TRY(oom_replay_what_if(table->snapshot, &options, table->capacities[i], &row->at[i]));
    }
    return OOM_OK;
}

enum oom_status oom_replay_table_add(struct oom_replay_table *table, const char *name,
                                     const char *conf) {
    if (table->row_count == OOM_REPLAY_ROWS_MAX) {
        return oom_fail(OOM_USAGE, "more than %d settings", OOM_REPLAY_ROWS_MAX);
    }
    struct oom_replay_row *rows =
        oom_host_realloc(table->rows, ((size_t)table->row_count + 1) * sizeof *rows);
    if (rows == NULL) return oom_fail(OOM_HOST_NOMEM, "replay: no host memory for a row");
    table->rows = rows;
    struct oom_replay_row *row = &rows[table->row_count];
    *row = (struct oom_replay_row){0};
    snprintf(row->name, sizeof row->name, "%s", name);
    OOM_TRY(fill(table, conf, row));
    table->row_count++;
    return OOM_OK;
}

void oom_replay_table_free(struct oom_replay_table *table) {
    oom_host_free(table->rows);
    table->rows = NULL;
    table->row_count = 0;
}

/* ---- for people ---- */

static int name_width(const struct oom_replay_table *table, int columns) {
    int width = NAME_LEAST, most = columns / 2 < NAME_MOST ? columns / 2 : NAME_MOST;
    for (int i = 0; i < table->row_count; i++) {
        int own = oom_text_columns(table->rows[i].name);
        if (own > width) width = own;
    }
    return width < most ? width : most;
}

static void print_name(const struct oom_replay_row *row, int width) {
    char name[OOM_CONF_MAX];
    oom_text_fit(row->name, width, true, name, sizeof name);
    printf("%*s%-*s  ", INDENT, "", width, name);
}

static const char *least_text(const struct oom_replay_row *row, char *out) {
    if (row->least == 0) return "none";
    return oom_size_format(row->least, out, SIZE_TEXT);
}

/* What is left out where the terminal is narrow is in the JSON. */
static void print_needs(const struct oom_replay_table *table, int columns) {
    int width = name_width(table, columns);
    bool wide = columns >= INDENT + width + 2 + 62;
    printf("\n%*s%-*s  %12s", INDENT, "", width, "settings", "least card");
    printf(wide ? "  %12s  %12s  %10s  %6s\n" : "\n", "reserved", "live", "calls", "waste");
    for (int i = 0; i < table->row_count; i++) {
        const struct oom_replay_row *row = &table->rows[i];
        const struct oom_replay_outcome *o = &row->endless;
        char least[SIZE_TEXT], reserved[SIZE_TEXT], live[SIZE_TEXT];
        print_name(row, width);
        printf("%12s", least_text(row, least));
        if (wide && o->fits) {
            printf("  %12s  %12s  %10llu  %5.1f%%",
                   oom_size_format(o->peak_reserved, reserved, sizeof reserved),
                   oom_size_format(o->peak_allocated, live, sizeof live), (ull)o->device_calls,
                   100 * o->fragmentation.waste_at_peak);
        }
        printf("\n");
    }
}

static void outcome_text(const struct oom_replay_table *table, const struct oom_replay_outcome *o,
                         char *out, size_t n) {
    char a[SIZE_TEXT], b[SIZE_TEXT], c[SIZE_TEXT];
    if (o->fits) {
        snprintf(out, n, "fits: %s reserved at the peak, %llu device calls, %llu retries",
                 oom_size_format(o->peak_reserved, a, sizeof a), (ull)o->device_calls,
                 (ull)o->retries);
        return;
    }
    snprintf(out, n,
             "OOM at event %llu of %llu%s%s%s: wants %s, %s free on the card, %s "
             "cached, the "
             "largest hole %.16s",
             (ull)o->failed_event, (ull)table->events, o->oom.site[0] != 0 ? " (" : "", o->oom.site,
             o->oom.site[0] != 0 ? ")" : "", oom_size_format(o->oom.requested, a, sizeof a),
             oom_size_format(o->oom.device_free, b, sizeof b),
             oom_size_format(o->oom.cached, c, sizeof c),
             oom_size_format(o->oom.largest_cached, (char[SIZE_TEXT]){0}, SIZE_TEXT));
}

static void print_capacity(const struct oom_replay_table *table, int which, int columns) {
    char size[SIZE_TEXT], text[320];
    int width = name_width(table, columns);
    printf("\non a card of %s\n", oom_size_format(table->capacities[which], size, sizeof size));
    for (int i = 0; i < table->row_count; i++) {
        print_name(&table->rows[i], width);
        outcome_text(table, &table->rows[i].at[which], text, sizeof text);
        oom_text_wrap(stdout, text, INDENT + width + 2, INDENT + 2, columns);
    }
}

/* Rows against capacities: one word each. */
static void print_ladder(const struct oom_replay_table *table, int columns) {
    int width = name_width(table, columns), room = (columns - INDENT - width - 2) / 11;
    int each = room > 0 ? room : 1;
    for (int first = 0; first < table->capacity_count; first += each) {
        int end = first + each < table->capacity_count ? first + each : table->capacity_count;
        printf("\n%*s%-*s  ", INDENT, "", width, "fits");
        for (int k = first; k < end; k++) {
            char size[SIZE_TEXT];
            printf("%11s", oom_size_format(table->capacities[k], size, sizeof size));
        }
        printf("\n");
        for (int i = 0; i < table->row_count; i++) {
            print_name(&table->rows[i], width);
            for (int k = first; k < end; k++)
                printf("%11s", table->rows[i].at[k].fits ? "yes" : "OOM");
            printf("\n");
        }
    }
}

void oom_replay_table_print(const struct oom_replay_table *table, int columns) {
    enum { LADDER_FROM = 4 };
    if (table->row_count == 0) return;
    print_needs(table, columns);
    if (table->capacity_count >= LADDER_FROM) {
        print_ladder(table, columns);
        return;
    }
    for (int i = 0; i < table->capacity_count; i++) print_capacity(table, i, columns);
}

void oom_replay_table_conclude(const struct oom_replay_table *table, int columns) {
    const struct oom_replay_row *first = &table->rows[0], *best = first;
    char text[OOM_CONF_MAX + 160], a[SIZE_TEXT], b[SIZE_TEXT];
    for (int i = 1; i < table->row_count; i++) {
        const struct oom_replay_row *row = &table->rows[i];
        if (row->least != 0 && (best->least == 0 || row->least < best->least)) best = row;
    }
    if (best == first) {
        snprintf(text, sizeof text, "no other setting here needs less than the %s ones (%s)",
                 first->name, least_text(first, a));
    } else {
        snprintf(text, sizeof text, "with %s this run fits %s instead of %s", best->name,
                 least_text(best, a), least_text(first, b));
    }
    printf("\n");
    oom_text_wrap(stdout, text, 0, INDENT, columns);
}

/* ---- for programs ---- */

static void put_outcome(const struct oom_replay_outcome *o, struct oom_json_writer *json) {
    oom_json_put_bool(json, "fits", o->fits);
    oom_json_put_uint64(json, "peak_reserved_bytes", o->peak_reserved);
    oom_json_put_uint64(json, "peak_allocated_bytes", o->peak_allocated);
    oom_json_put_uint64(json, "device_calls", o->device_calls);
    oom_json_put_uint64(json, "retries", o->retries);
    oom_json_put_double(json, "waste_at_peak", o->fragmentation.waste_at_peak);
    oom_json_put_double(json, "largest_hole", o->fragmentation.largest_hole);
    if (o->fits) return;
    oom_json_put_uint64(json, "failed_event", o->failed_event);
    oom_json_put_string(json, "site", o->oom.site);
    oom_json_put_uint64(json, "requested_bytes", o->oom.requested);
    oom_json_put_uint64(json, "device_free_bytes", o->oom.device_free);
    oom_json_put_uint64(json, "cached_bytes", o->oom.cached);
    oom_json_put_uint64(json, "largest_cached_bytes", o->oom.largest_cached);
}

void oom_replay_table_json(const struct oom_replay_table *table, struct oom_json_writer *json) {
    oom_json_key(json, "settings");
    oom_json_array_begin(json);
    for (int i = 0; i < table->row_count; i++) {
        const struct oom_replay_row *row = &table->rows[i];
        oom_json_object_begin(json);
        oom_json_put_string(json, "settings", row->name);
        oom_json_key(json, "least_capacity_bytes");
        if (row->least != 0)
            oom_json_uint64(json, row->least);
        else
            oom_json_null(json);
        put_outcome(&row->endless, json);
        oom_json_key(json, "capacities");
        oom_json_array_begin(json);
        for (int k = 0; k < table->capacity_count; k++) {
            oom_json_object_begin(json);
            oom_json_put_uint64(json, "capacity_bytes", table->capacities[k]);
            put_outcome(&row->at[k], json);
            oom_json_object_end(json);
        }
        oom_json_array_end(json);
        oom_json_object_end(json);
    }
    oom_json_array_end(json);
}
