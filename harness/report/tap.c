/*
 * TAP version 13, flat, plan first: the dialect that prove 3.44, Jenkins and TAP 14 readers share.
 * Points of a case are `<id>/<bit>`; a control has one, `<id>`. A bit that mathematics makes false
 * is ok, and says by how much in a comment. Diagnostics stand on failures only, as one level of
 * plain keys with single-quoted strings, which is all that every reader takes.
 */
#include "harness/report/report-driver.h"

#include "harness/base/sizes.h"
#include "harness/base/text.h"

#include <string.h>

enum { CLEAN_MAX = 1024 };

/* One line, no control characters. */
static char *clean(const char *text, char *out) {
    return oom_text_fit(text != NULL ? text : "", CLEAN_MAX, true, out, CLEAN_MAX);
}

/* '#' would begin a directive. */
static void print_description(FILE *file, const char *text) {
    char line[CLEAN_MAX];
    for (const char *at = clean(text, line); *at != 0; at++) {
        if (*at == '#' || *at == '\\') fputc('\\', file);
        fputc(*at, file);
    }
}

static void print_yaml(FILE *file, const char *key, const char *text) {
    char line[CLEAN_MAX];
    if (text == NULL || *text == 0) return;
    fprintf(file, "  %s: '", key);
    for (const char *at = clean(text, line); *at != 0; at++) {
        if (*at == '\'') fputc('\'', file);
        fputc(*at, file);
    }
    fprintf(file, "'\n");
}

static void print_set(FILE *file, const char *key, const struct oom_case_record *record,
                      uint32_t set) {
    char names[160] = "";
    (void)record;
    for (int i = 0; i < OOM_BIT_COUNT; i++) {
        if (!(set >> i & 1)) continue;
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", used > 0 ? " " : "",
                 oom_bit_name((enum oom_bit)i));
    }
    print_yaml(file, key, names[0] != 0 ? names : "none");
}

static uint32_t false_bits(const struct oom_case_record *record) {
    uint32_t set = 0;
    for (int i = 0; i < OOM_BIT_COUNT; i++) set |= (uint32_t)(record->bits[i] == OOM_FALSE) << i;
    return set;
}

static const char *answer_text(enum oom_answer answer) {
    static const char *const texts[] = {"not reached", "false", "true", "not asked"};
    return (unsigned)answer < 4 ? texts[answer] : "unknown";
}

/* bit -1: the point stands for the whole record. */
static void print_diagnostic(FILE *file, const struct oom_case_record *record, int bit) {
    fprintf(file, "  ---\n");
    print_yaml(file, "outcome", oom_outcome_name(record->outcome));
    print_yaml(file, "reason", record->reason);
    if (bit >= 0) {
        print_yaml(file, "answer", answer_text(record->bits[bit]));
        print_yaml(file, "why", record->why[bit]);
    } else if (record->is_control) {
        print_set(file, "must_turn", record, record->expected_false);
        print_set(file, "turned", record, false_bits(record));
    }
    fprintf(file, "  ...\n");
}

static void print_point(struct oom_report_sink *sink, const struct oom_case_record *record, int bit,
                        bool ok) {
    FILE *file = sink->file;
    bool unasked = bit >= 0 && record->bits[bit] == OOM_NOT_ASKED;
    bool skip = record->outcome == OOM_OUTCOME_SKIP || unasked;
    fprintf(file, "%s %d - ", ok || skip ? "ok" : "not ok", ++sink->points);
    print_description(file, record->id);
    if (bit >= 0) fprintf(file, "/%s", oom_bit_name((enum oom_bit)bit));
    if (skip) {
        fprintf(file, " # SKIP ");
        print_description(file, unasked ? record->why[bit] : record->reason);
    } else if (bit >= 0 && oom_record_is_unequal(record, (enum oom_bit)bit)) {
        fprintf(file, " # ");
        print_description(file, record->why[bit]);
    }
    fputc('\n', file);
    if (!ok && !skip) print_diagnostic(file, record, bit);
}

static enum oom_status tap_begin(struct oom_report_sink *sink, const struct oom_report_run *run) {
    const struct oom_run_context *context = run->context;
    char line[CLEAN_MAX], size[24];
    int points = 0;
    for (int i = 0; i < run->entry_count; i++) points += run->entries[i].points;
    setvbuf(sink->file, NULL, _IOLBF, BUFSIZ);
    fprintf(sink->file, "TAP version 13\n1..%d%s\n", points,
            points == 0 ? " # SKIP nothing selected" : "");
    fprintf(sink->file, "# oombench %s", clean(context->version, line));
    fprintf(sink->file, " (%s)", clean(context->git, line));
    fprintf(sink->file, ", device %s", clean(context->device, line));
    fprintf(sink->file, ", capacity %s, seed %llu\n",
            oom_size_format(context->capacity, size, sizeof size),
            (unsigned long long)context->seed);
    return OOM_OK;
}

/* Bits speak for themselves only where the record is a verdict and they explain it. */
static bool bit_is_ok(const struct oom_case_record *record, int bit) {
    bool all = true;
    for (int i = 0; i < OOM_BIT_COUNT; i++) all &= oom_record_is_right(record, (enum oom_bit)i);
    if (record->outcome == OOM_OUTCOME_PASS) return all;
    return record->outcome == OOM_OUTCOME_FAIL && !all &&
           oom_record_is_right(record, (enum oom_bit)bit);
}

static enum oom_status tap_record(struct oom_report_sink *sink, const struct oom_report_run *run,
                                  const struct oom_report_entry *entry,
                                  const struct oom_case_record *record) {
    (void)run;
    if (entry->points == 1) {
        print_point(sink, record, -1, record->outcome == OOM_OUTCOME_PASS);
        return OOM_OK;
    }
    for (int i = 0; i < OOM_BIT_COUNT; i++) print_point(sink, record, i, bit_is_ok(record, i));
    return OOM_OK;
}

static enum oom_status tap_end(struct oom_report_sink *sink, const struct oom_report_run *run) {
    fprintf(sink->file, "# %d passed, %d failed, %d skipped\n", run->totals.passed,
            run->totals.failed, run->totals.skipped);
    return OOM_OK;
}

const struct oom_report_driver oom_report_tap_driver = {OOM_FORMAT_TAP, tap_begin, tap_record,
                                                        tap_end};
