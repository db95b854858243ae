/*
 * JUnit XML as GitLab, Jenkins and GitHub's actions read it: a suite per scenario, a test case per
 * case, <skipped/> for skips, <failure> for a verdict and <error> for a crash or a timeout.
 */
#include "harness/report/report-driver.h"

#include "harness/base/text.h"

#include <string.h>

/* What XML 1.0 cannot hold at all, even as a reference: most control characters, U+FFFE, U+FFFF. */
static bool is_forbidden(const char *at, int length) {
    unsigned char c = (unsigned char)*at;
    if (length == 0) return true;
    if (length == 1) return c < 0x20 && c != '\n' && c != '\t';
    return length == 3 &&
           (memcmp(at, "\xef\xbf\xbe", 3) == 0 || memcmp(at, "\xef\xbf\xbf", 3) == 0);
}

static const char *reference(char c) {
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&apos;";
    case '\n':
        return "&#10;";
    case '\t':
        return "&#9;";
    default:
        return NULL;
    }
}

static void print_text(FILE *file, const char *text, size_t bytes) {
    for (size_t at = 0; at < bytes;) {
        int length = oom_utf8_length(text + at, bytes - at);
        const char *instead = is_forbidden(text + at, length) ? "?" : reference(text[at]);
        if (instead != NULL) {
            fputs(instead, file);
        } else {
            fwrite(text + at, 1, (size_t)length, file);
        }
        at += length > 0 ? (size_t)length : 1;
    }
}

static void print_attribute(FILE *file, const char *name, const char *text, size_t bytes) {
    fprintf(file, " %s=\"", name);
    print_text(file, text, bytes);
    fputc('"', file);
}

static void print_property(FILE *file, const char *name, const char *value) {
    fprintf(file, "      <property name=\"%s\"", name);
    print_attribute(file, "value", value != NULL ? value : "", value != NULL ? strlen(value) : 0);
    fprintf(file, "/>\n");
}

/* ---- one case ---- */

/* Bits that a reader needs to see: those that are not as they should be. */
static void print_bits(FILE *file, const struct oom_case_record *record) {
    static const char *const answers[] = {"not reached", "false", "true", "not asked"};
    for (int i = 0; i < OOM_BIT_COUNT; i++) {
        enum oom_answer answer = record->bits[i];
        fprintf(file, "%s: %s", oom_bit_name((enum oom_bit)i),
                (unsigned)answer < 4 ? answers[answer] : "unknown");
        if (record->why[i][0] != 0) fputs(": ", file);
        print_text(file, record->why[i], strlen(record->why[i]));
        fputc('\n', file);
    }
}

static void print_outcome(FILE *file, const struct oom_case_record *record) {
    bool skip = record->outcome == OOM_OUTCOME_SKIP, fail = record->outcome == OOM_OUTCOME_FAIL;
    const char *element = skip ? "skipped" : fail ? "failure" : "error";
    fprintf(file, "      <%s", element);
    print_attribute(file, "message", record->reason, strlen(record->reason));
    if (skip) {
        fprintf(file, "/>\n");
        return;
    }
    fprintf(file, " type=\"%s\">", oom_outcome_name(record->outcome));
    print_bits(file, record);
    fprintf(file, "</%s>\n", element);
}

/* A case that passed although a bit is false, as it must be, says by how much. */
static void print_unequal(FILE *file, const struct oom_case_record *record) {
    fprintf(file, "      <system-out>");
    print_bits(file, record);
    fprintf(file, "</system-out>\n");
}

/* classname is scenario.mitigation, name the rest. */
static void print_case(FILE *file, const struct oom_case_record *record) {
    size_t scenario = oom_report_scenario_bytes(record->id);
    const char *rest = record->id + scenario + (record->id[scenario] == '/');
    size_t mitigation = strcspn(rest, "/");
    bool more = rest[mitigation] == '/';
    fprintf(file, "    <testcase classname=\"");
    print_text(file, record->id, scenario);
    if (more) {
        fputc('.', file);
        print_text(file, rest, mitigation);
        rest += mitigation + 1;
    }
    fputc('"', file);
    if (*rest == 0) rest = record->id;
    print_attribute(file, "name", rest, strlen(rest));
    fprintf(file, " time=\"%.3f\"", record->seconds >= 0 ? record->seconds : 0.0);
    bool pass = record->outcome == OOM_OUTCOME_PASS;
    if (pass && (record->is_control || record->expected_false == 0)) {
        fprintf(file, "/>\n");
        return;
    }
    fprintf(file, ">\n");
    if (pass) {
        print_unequal(file, record);
    } else {
        print_outcome(file, record);
    }
    fprintf(file, "    </testcase>\n");
}

/* ---- suites ---- */

struct counts {
    int tests, failures, errors, skipped;
    double seconds;
};

static bool same_scenario(const char *a, const char *b) {
    size_t bytes = oom_report_scenario_bytes(a);
    return bytes == oom_report_scenario_bytes(b) && memcmp(a, b, bytes) == 0;
}

static void count_add(struct counts *counts, const struct oom_case_record *record) {
    counts->tests++;
    counts->failures += record->outcome == OOM_OUTCOME_FAIL;
    counts->skipped += record->outcome == OOM_OUTCOME_SKIP;
    counts->errors +=
        record->outcome == OOM_OUTCOME_ERROR || record->outcome == OOM_OUTCOME_TIMEOUT;
    if (record->seconds > 0) counts->seconds += record->seconds;
}

static void print_counts(FILE *file, const struct counts *counts, bool with_skipped) {
    fprintf(file, " tests=\"%d\" failures=\"%d\" errors=\"%d\"", counts->tests, counts->failures,
            counts->errors);
    if (with_skipped) fprintf(file, " skipped=\"%d\"", counts->skipped);
    fprintf(file, " time=\"%.3f\"", counts->seconds);
}

static void print_suite(FILE *file, const struct oom_report_run *run, const char *id) {
    struct counts counts = {0};
    for (int i = 0; i < run->record_count; i++) {
        if (same_scenario(run->records[i].id, id)) count_add(&counts, &run->records[i]);
    }
    fprintf(file, "  <testsuite");
    print_attribute(file, "name", id, oom_report_scenario_bytes(id));
    print_counts(file, &counts, true);
    if (run->context->started != NULL)
        print_attribute(file, "timestamp", run->context->started, strlen(run->context->started));
    fprintf(file, ">\n    <properties>\n");
    print_property(file, "version", run->context->version);
    print_property(file, "git", run->context->git);
    print_property(file, "device", run->context->device);
    fprintf(file, "    </properties>\n");
    for (int i = 0; i < run->record_count; i++) {
        if (same_scenario(run->records[i].id, id)) print_case(file, &run->records[i]);
    }
    fprintf(file, "  </testsuite>\n");
}

static bool is_first_of_scenario(const struct oom_report_run *run, int index) {
    for (int i = 0; i < index; i++) {
        if (same_scenario(run->records[i].id, run->records[index].id)) return false;
    }
    return true;
}

static enum oom_status junit_end(struct oom_report_sink *sink, const struct oom_report_run *run) {
    struct counts counts = {0};
    for (int i = 0; i < run->record_count; i++) count_add(&counts, &run->records[i]);
    fprintf(sink->file,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"oombench\"");
    print_counts(sink->file, &counts, false);
    fprintf(sink->file, ">\n");
    for (int i = 0; i < run->record_count; i++) {
        if (is_first_of_scenario(run, i)) print_suite(sink->file, run, run->records[i].id);
    }
    fprintf(sink->file, "</testsuites>\n");
    return OOM_OK;
}

const struct oom_report_driver oom_report_junit_driver = {OOM_FORMAT_JUNIT, NULL, NULL, junit_end};
