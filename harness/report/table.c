/*
 * The table for people. A scenario is a heading and a line per case: its id, five marks under short
 * headings, the figures that fit the terminal. Controls are told together once the scenario is
 * over; what failed is followed by its reasons.
 */
#include "harness/report/report-driver.h"

#include "harness/base/sizes.h"
#include "harness/base/text.h"
#include "kernels/hostmem.h"

#include <string.h>
#include <unistd.h>

enum { INDENT = 2, GAP = 2, LINE_MAX_BYTES = 512, FIGURES_LEAST = 15, ID_LEAST = 20 };

static const char *const headings[OOM_BIT_COUNT] = {"OOM", "fits", "grads", "data", "state"};

enum style { PLAIN, BOLD, GREEN, RED, DIM };

struct table {
    int columns, id_width;
    bool ascii, colour, marks;
    bool unequal;    /* a bit was false, as it must be */
    bool oom_shown;  /* which allocation failed, once a scenario */
    int group_first; /* records from here on are of the scenario on show */
    char scenario[OOM_ID_MAX];
};

static void print_styled(FILE *file, const struct table *table, enum style style,
                         const char *text) {
    static const char *const codes[] = {"", "\033[1m", "\033[32m", "\033[31m", "\033[2m"};
    bool plain = !table->colour || style == PLAIN;
    fprintf(file, "%s%s%s", plain ? "" : codes[style], text, plain ? "" : "\033[0m");
}

/* One line, no control characters; in an ASCII locale nothing but ASCII. */
static char *clean(const struct table *table, const char *text, char *out, size_t n) {
    oom_text_fit(text, 1 << 20, table->ascii, out, n);
    if (!table->ascii) return out;
    char *to = out;
    for (const char *at = out; *at != 0; at++) {
        unsigned char c = (unsigned char)*at;
        if (c < 0x80) *to++ = *at;
        if (c >= 0xc0) *to++ = '?'; /* the first byte of a character stands for it */
    }
    *to = 0;
    return out;
}

static int marks_width(void) {
    int width = -1;
    for (int i = 0; i < OOM_BIT_COUNT; i++) width += (int)strlen(headings[i]) + 1;
    return width;
}

/* ---- figures, in the room that is left ---- */

static double figure_value(const struct oom_case_record *record, const char *name) {
    const struct oom_figure *figure = oom_record_figure(record, name);
    return figure != NULL && figure->text[0] == 0 && figure->value > 0 ? figure->value : 0;
}

struct scale {
    const char *unit;
    double bytes;
};

static struct scale scale_for(double bytes) {
    static const struct scale scales[] = {{"GiB", 0x1p30}, {"MiB", 0x1p20}, {"KiB", 0x1p10}};
    for (int i = 0; i < 3; i++) {
        if (bytes >= scales[i].bytes) return scales[i];
    }
    return (struct scale){"B", 1};
}

/* "64 -> 8", "batch 8" or "". */
static void batch_text(const struct table *table, const struct oom_case_record *record, char *out,
                       size_t n) {
    double before = figure_value(record, "batch_without"), batch = figure_value(record, "batch");
    const char *arrow = table->ascii ? "->" : "\xe2\x86\x92"; /* U+2192 */
    out[0] = 0;
    if (batch > 0 && before > 0) {
        snprintf(out, n, "%.0f %s %.0f", before, arrow, batch);
    } else if (batch > 0) {
        snprintf(out, n, "batch %.0f", batch);
    }
}

static void peak_text(const struct oom_case_record *record, bool brief, char *out, size_t n) {
    double peak = figure_value(record, "peak_bytes");
    double capacity = figure_value(record, "capacity_bytes");
    struct scale scale = scale_for(capacity > 0 ? capacity : peak);
    out[0] = 0;
    if (peak > 0 && capacity > 0) {
        snprintf(out, n, brief ? "%.1f/%.4g %s" : "peak %.1f of %.1f %s", peak / scale.bytes,
                 capacity / scale.bytes, scale.unit);
    } else if (peak > 0) {
        snprintf(out, n, brief ? "%.1f %s" : "peak %.1f %s", peak / scale.bytes, scale.unit);
    }
}

static void failed_text(const struct oom_case_record *record, char *out, size_t n) {
    double bytes = figure_value(record, "oom_bytes");
    struct scale scale = scale_for(bytes);
    out[0] = 0;
    if (bytes > 0) snprintf(out, n, "failed at %.1f %s", bytes / scale.bytes, scale.unit);
}

/* Parts that are not empty, two columns apart. */
static void join(char *out, size_t n, const char *const *parts, int count) {
    out[0] = 0;
    for (int i = 0; i < count; i++) {
        size_t used = strlen(out);
        if (parts[i][0] != 0)
            snprintf(out + used, n - used, "%s%s", used > 0 ? "  " : "", parts[i]);
    }
}

/* The fullest of the forms that fits `columns`. */
static void figures_text(const struct table *table, const struct oom_case_record *record,
                         int columns, char *out, size_t n) {
    char batch[48], full[64], brief[48], failed[48];
    batch_text(table, record, batch, sizeof batch);
    peak_text(record, false, full, sizeof full);
    peak_text(record, true, brief, sizeof brief);
    failed_text(record, failed, sizeof failed);
    const char *const forms[][3] = {
        {batch, full, failed}, {batch, full, ""}, {batch, brief, ""},
        {brief, "", ""},       {batch, "", ""},
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        join(out, n, forms[i], 3);
        if (oom_text_columns(out) <= columns) return;
    }
    out[0] = 0;
}

/* ---- lines ---- */

static void print_padded(FILE *file, const struct table *table, enum style style, const char *text,
                         int width) {
    print_styled(file, table, style, text);
    int own = oom_text_columns(text);
    if (own < width) fprintf(file, "%*s", width - own, "");
}

enum { UNEQUAL = OOM_NOT_ASKED + 1, MARKS }; /* beside the answers */

static void print_mark(FILE *file, const struct table *table, int mark) {
    static const char *const marks[MARKS][2] = {{"\xc2\xb7", "."},
                                                {"\xe2\x9c\x97", "X"},
                                                {"\xe2\x9c\x93", "+"},
                                                {" ", " "},
                                                {"\xe2\x89\xa0", "#"}}; /* U+2260 */
    static const enum style styles[MARKS] = {DIM, RED, GREEN, PLAIN, GREEN};
    int i = (unsigned)mark < MARKS ? mark : OOM_NOT_REACHED;
    print_styled(file, table, styles[i], marks[i][table->ascii]);
}

/* Returns how many blanks still belong there, if anything follows. */
static int print_marks(FILE *file, const struct table *table,
                       const struct oom_case_record *record) {
    int blanks = 0;
    for (int i = 0; i < OOM_BIT_COUNT; i++) {
        int width = (int)strlen(headings[i]), before = width / 2;
        bool unequal = oom_record_is_unequal(record, (enum oom_bit)i);
        blanks += before;
        if (record->bits[i] == OOM_NOT_ASKED) {
            blanks++;
        } else {
            fprintf(file, "%*s", blanks, "");
            print_mark(file, table, unequal ? UNEQUAL : (int)record->bits[i]);
            blanks = 0;
        }
        if (i + 1 < OOM_BIT_COUNT) blanks += width - before;
    }
    return blanks;
}

static void print_wrapped(FILE *file, const struct table *table, int indent, enum style style,
                          const char *label, const char *text) {
    char line[LINE_MAX_BYTES];
    fprintf(file, "%*s", indent, "");
    print_styled(file, table, style, label);
    fprintf(file, ": ");
    oom_text_wrap(file, clean(table, text, line, sizeof line), indent + oom_text_columns(label) + 2,
                  indent + 2, table->columns);
}

static void print_reasons(FILE *file, const struct table *table,
                          const struct oom_case_record *record) {
    bool fail = record->outcome == OOM_OUTCOME_FAIL;
    print_wrapped(file, table, 2 * INDENT, RED, fail ? "failed" : oom_outcome_name(record->outcome),
                  record->reason[0] != 0 ? record->reason : "no reason was given");
    for (int i = 0; i < OOM_BIT_COUNT; i++) {
        if (oom_record_is_right(record, (enum oom_bit)i) || record->why[i][0] == 0) continue;
        print_wrapped(file, table, 3 * INDENT, PLAIN, headings[i], record->why[i]);
    }
}

/* What is false because mathematics has it so, and by how much. */
static void print_unequal(FILE *file, struct table *table, const struct oom_case_record *record) {
    for (int i = 0; i < OOM_BIT_COUNT; i++) {
        if (!oom_record_is_unequal(record, (enum oom_bit)i)) continue;
        table->unequal = true;
        print_wrapped(file, table, 2 * INDENT, DIM, headings[i], record->why[i]);
    }
}

static const char *id_rest(const char *id) {
    size_t bytes = oom_report_scenario_bytes(id);
    return id[bytes] == '/' ? id + bytes + 1 : id;
}

/* The last line of the allocator's report. */
static void print_advice(FILE *file, const struct table *table,
                         const struct oom_case_record *record) {
    static const char before[] = "\nAdvice: ";
    const char *advice = strstr(record->oom_report, before);
    if (advice == NULL) return;
    print_wrapped(file, table, 2 * INDENT, DIM, "advice", advice + sizeof before - 1);
}

static void print_case(FILE *file, struct table *table, const struct oom_case_record *record) {
    char id[OOM_ID_MAX], figures[160];
    oom_text_fit(id_rest(record->id), table->id_width, table->ascii, id, sizeof id);
    fprintf(file, "%*s", INDENT, "");
    if (record->outcome == OOM_OUTCOME_SKIP) {
        char line[LINE_MAX_BYTES];
        print_padded(file, table, PLAIN, id, table->id_width + GAP);
        print_styled(file, table, DIM, "skipped: ");
        oom_text_wrap(file, clean(table, record->reason, line, sizeof line),
                      INDENT + table->id_width + GAP + 9, 2 * INDENT, table->columns);
        return;
    }
    table->marks = true;
    print_padded(file, table, PLAIN, id, table->id_width + GAP);
    int blanks = print_marks(file, table, record);
    int left = table->columns - INDENT - table->id_width - GAP - marks_width() - 1;
    figures_text(table, record, left, figures, sizeof figures);
    /* The last heading is wider than its mark. */
    if (figures[0] != 0) fprintf(file, "%*s%s", blanks + 3, "", figures);
    fputc('\n', file);
    if (record->outcome != OOM_OUTCOME_PASS) print_reasons(file, table, record);
    print_unequal(file, table, record);
    const struct oom_figure *note = oom_record_figure(record, "cured_by");
    if (note != NULL) print_wrapped(file, table, 2 * INDENT, DIM, "cured by", note->text);
    if (!table->oom_shown && record->bits[OOM_BIT_OOM_WITHOUT] == OOM_TRUE) {
        print_wrapped(file, table, 2 * INDENT, DIM, "OOM", record->why[OOM_BIT_OOM_WITHOUT]);
        print_advice(file, table, record);
        table->oom_shown = true;
    }
}

/* ---- controls, together ---- */

static const char *control_name(const char *id) {
    const char *found = strstr(id, "/control/");
    return found != NULL ? found + strlen("/control/") : id_rest(id);
}

/* "name (grads, state)" */
static void control_text(const struct oom_case_record *record, char *out, size_t n) {
    bool any = false;
    snprintf(out, n, "%s (", control_name(record->id));
    for (int i = 0; i < OOM_BIT_COUNT; i++) {
        if (record->bits[i] != OOM_FALSE) continue;
        size_t used = strlen(out);
        snprintf(out + used, n - used, "%s%s", any ? ", " : "", headings[i]);
        any = true;
    }
    size_t used = strlen(out);
    snprintf(out + used, n - used, ")");
}

static bool is_caught(const struct oom_case_record *record) {
    return record->is_control && record->outcome == OOM_OUTCOME_PASS;
}

/* "caught in halving: ", the mitigation as the id has it. Returns its columns. */
static int print_label(FILE *file, const struct table *table, const char *id) {
    char label[OOM_ID_MAX + 32];
    const char *mitigation = id_rest(id);
    snprintf(label, sizeof label, "caught in %.*s:", (int)strcspn(mitigation, "/"), mitigation);
    fprintf(file, "%*s", INDENT, "");
    print_styled(file, table, GREEN, label);
    return INDENT + (int)strlen(label);
}

static bool same_mitigation(const char *a, const char *b) {
    a = id_rest(a);
    b = id_rest(b);
    size_t n = strcspn(a, "/");
    return n == strcspn(b, "/") && strncmp(a, b, n) == 0;
}

/* A label a mitigation, its controls after it, broken between them. */
static void print_caught(FILE *file, const struct table *table, const struct oom_report_run *run) {
    const char *last = NULL;
    int at = 0;
    for (int i = table->group_first; i < run->record_count; i++) {
        const struct oom_case_record *record = &run->records[i];
        char item[OOM_ID_MAX + 64], line[LINE_MAX_BYTES];
        if (!is_caught(record)) continue;
        control_text(record, item, sizeof item);
        int width = oom_text_columns(clean(table, item, line, sizeof line));
        bool fresh = last == NULL || !same_mitigation(last, record->id);
        if (fresh && last != NULL) fputc('\n', file);
        if (!fresh) fputc(',', file);
        if (fresh) at = print_label(file, table, record->id);
        if (at + 3 + width > table->columns) {
            fprintf(file, "\n%*s", 2 * INDENT, "");
            at = 2 * INDENT;
        } else {
            fputc(' ', file);
            at += 1;
        }
        fputs(line, file);
        at += width + 1;
        last = record->id;
    }
    if (last != NULL) fputc('\n', file);
}

/* A control that was not caught is a failure, and is told at once. */
static void print_uncaught(FILE *file, const struct table *table,
                           const struct oom_case_record *record) {
    char id[OOM_ID_MAX];
    bool skip = record->outcome == OOM_OUTCOME_SKIP;
    oom_text_fit(id_rest(record->id), table->columns - 14, table->ascii, id, sizeof id);
    fprintf(file, "%*s%s  ", INDENT, "", id);
    print_styled(file, table, skip ? DIM : RED, skip ? "skipped" : "not caught");
    fputc('\n', file);
    if (skip) {
        print_wrapped(file, table, 2 * INDENT, DIM, "skipped", record->reason);
    } else {
        print_reasons(file, table, record);
    }
}

/* ---- the driver ---- */

static int longest_id(const struct oom_report_run *run) {
    int longest = 0;
    for (int i = 0; i < run->entry_count; i++) {
        bool control = run->entries[i].is_control;
        int own = control ? 0 : oom_text_columns(id_rest(run->entries[i].id));
        int scenario = (int)oom_report_scenario_bytes(run->entries[i].id) - INDENT;
        if (scenario > own) own = scenario;
        if (own > longest) longest = own;
    }
    return longest;
}

/* Ids whole if they can be; figures give way to them where a terminal is narrow. */
static int id_width(const struct oom_report_run *run, int columns) {
    int room = columns - INDENT - GAP - marks_width(), longest = longest_id(run);
    int beside_figures = room - 1 - FIGURES_LEAST;
    int most = beside_figures >= ID_LEAST ? beside_figures : room;
    return longest < most ? longest : most;
}

static void print_context(FILE *file, const struct table *table,
                          const struct oom_run_context *context) {
    char text[LINE_MAX_BYTES], line[LINE_MAX_BYTES], size[24];
    snprintf(text, sizeof text, "oombench %s, device %s (%s, %s), capacity %s (%s), seed %llu",
             context->version != NULL ? context->version : "",
             context->device != NULL ? context->device : "",
             context->isa != NULL ? context->isa : "",
             context->schedule != NULL ? context->schedule : "",
             oom_size_format(context->capacity, size, sizeof size),
             context->capacity_from != NULL ? context->capacity_from : "",
             (unsigned long long)context->seed);
    oom_text_wrap(file, clean(table, text, line, sizeof line), 0, INDENT, table->columns);
}

static enum oom_status table_begin(struct oom_report_sink *sink, const struct oom_report_run *run) {
    struct table *table = oom_host_calloc(1, sizeof *table);
    if (table == NULL) return oom_fail(OOM_HOST_NOMEM, "no host memory for the table");
    int fd = fileno(sink->file);
    sink->state = table;
    table->columns = oom_terminal_columns(fd);
    table->ascii = !oom_locale_is_utf8();
    table->colour = oom_terminal_has_colour(fd);
    table->id_width = id_width(run, table->columns);
    print_context(sink->file, table, run->context);
    return OOM_OK;
}

static void print_heading(FILE *file, const struct table *table) {
    fputc('\n', file);
    char name[OOM_ID_MAX];
    int width = INDENT + table->id_width;
    oom_text_fit(table->scenario, width, table->ascii, name, sizeof name);
    print_padded(file, table, BOLD, name, width + GAP);
    for (int i = 0; i < OOM_BIT_COUNT; i++)
        fprintf(file, "%s%s", headings[i], i + 1 < OOM_BIT_COUNT ? " " : "\n");
}

static void scenario_enter(struct oom_report_sink *sink, const struct oom_report_run *run,
                           const char *id) {
    struct table *table = sink->state;
    size_t bytes = oom_report_scenario_bytes(id);
    if (strlen(table->scenario) == bytes && memcmp(table->scenario, id, bytes) == 0) return;
    struct oom_report_run before = *run;
    before.record_count--; /* the record that begins the new scenario is there already */
    print_caught(sink->file, table, &before);
    table->group_first = run->record_count - 1;
    memcpy(table->scenario, id, bytes);
    table->scenario[bytes] = 0;
    table->oom_shown = false;
    print_heading(sink->file, table);
}

static enum oom_status table_record(struct oom_report_sink *sink, const struct oom_report_run *run,
                                    const struct oom_report_entry *entry,
                                    const struct oom_case_record *record) {
    (void)entry;
    scenario_enter(sink, run, record->id);
    if (!record->is_control) {
        print_case(sink->file, sink->state, record);
    } else if (!is_caught(record)) {
        print_uncaught(sink->file, sink->state, record);
    }
    return OOM_OK;
}

static void print_legend(FILE *file, const struct table *table) {
    static const enum oom_answer answers[] = {OOM_TRUE, OOM_FALSE, OOM_NOT_REACHED};
    static const char *const words[] = {"true", "false", "not reached"};
    fputc('\n', file);
    for (int i = 0; i < 3; i++) {
        print_mark(file, table, (int)answers[i]);
        fprintf(file, " %s%s", words[i], i < 2 ? "   " : "\n");
    }
    if (!table->unequal) return;
    print_mark(file, table, UNEQUAL);
    fprintf(file, " unequal, as it must be\n");
}

static enum oom_status table_end(struct oom_report_sink *sink, const struct oom_report_run *run) {
    struct table *table = sink->state;
    const struct oom_report_totals *totals = &run->totals;
    char line[160];
    print_caught(sink->file, table, run);
    if (table->marks) print_legend(sink->file, table);
    bool only_skips = totals->skipped > 0 && totals->passed + totals->failed == 0;
    snprintf(line, sizeof line, "%d passed, %d failed, %d skipped%s", totals->passed,
             totals->failed, totals->skipped,
             only_skips ? ": every selected case was skipped" : "");
    fputc('\n', sink->file);
    print_styled(sink->file, table,
                 totals->failed > 0   ? RED
                 : totals->passed > 0 ? GREEN
                                      : PLAIN,
                 line);
    fputc('\n', sink->file);
    return OOM_OK;
}

const struct oom_report_driver oom_report_table_driver = {OOM_FORMAT_TABLE, table_begin,
                                                          table_record, table_end};
