#include "harness/report/record.h"

#include "harness/base/json-read.h"
#include "harness/base/json-write.h"
#include "harness/base/text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { RECORD_BYTES_MAX = 256 << 10 };

/* ---- writing ---- */

/* Bytes that are no UTF-8 become '?', one for one: what is written always fits the field it is read
 * back into. */
static void put_text(struct oom_json_writer *json, const char *key, const char *text) {
    char clean[OOM_REPORT_TEXT_MAX];
    _Static_assert(OOM_REASON_MAX <= sizeof clean && OOM_ID_MAX <= sizeof clean &&
                       sizeof((struct oom_figure *)0)->text <= sizeof clean,
                   "the longest field is an allocator's report");
    size_t bytes = strnlen(text, sizeof clean), at = 0;
    while (at < bytes) {
        int length = oom_utf8_length(text + at, bytes - at);
        memcpy(clean + at, length > 0 ? text + at : "?", length > 0 ? (size_t)length : 1);
        at += length > 0 ? (size_t)length : 1;
    }
    oom_json_key(json, key);
    oom_json_string_n(json, clean, bytes);
}

/* JSON has no infinities and no NaN: they are strings here. */
static void put_number(struct oom_json_writer *json, const char *key, double value) {
    if (isfinite(value)) {
        oom_json_put_double(json, key, value);
    } else {
        oom_json_put_string(json, key, isnan(value) ? "nan" : value > 0 ? "inf" : "-inf");
    }
}

static void put_answer(struct oom_json_writer *json, enum oom_answer answer) {
    if (answer == OOM_NOT_REACHED) {
        oom_json_null(json);
    } else if (answer == OOM_NOT_ASKED) {
        oom_json_string(json, "not asked");
    } else {
        oom_json_bool(json, answer == OOM_TRUE);
    }
}

static void put_bits(struct oom_json_writer *json, const struct oom_case_record *record) {
    oom_json_key(json, "bits");
    oom_json_object_begin(json);
    for (int i = 0; i < OOM_BIT_COUNT; i++) {
        oom_json_key(json, oom_bit_name((enum oom_bit)i));
        put_answer(json, record->bits[i]);
    }
    oom_json_object_end(json);
    oom_json_key(json, "why");
    oom_json_object_begin(json);
    for (int i = 0; i < OOM_BIT_COUNT; i++) {
        if (record->why[i][0] != 0) put_text(json, oom_bit_name((enum oom_bit)i), record->why[i]);
    }
    oom_json_object_end(json);
}

static void put_expected(struct oom_json_writer *json, const struct oom_case_record *record) {
    if (!record->is_control && record->expected_false == 0) return;
    oom_json_key(json, record->is_control ? "control" : "unequal");
    oom_json_array_begin(json);
    for (int i = 0; i < OOM_BIT_COUNT; i++) {
        if (record->expected_false >> i & 1) oom_json_string(json, oom_bit_name((enum oom_bit)i));
    }
    oom_json_array_end(json);
}

static void put_figures(struct oom_json_writer *json, const struct oom_case_record *record) {
    oom_json_key(json, "figures");
    oom_json_array_begin(json);
    for (int i = 0; i < record->figure_count; i++) {
        const struct oom_figure *figure = &record->figures[i];
        oom_json_object_begin(json);
        put_text(json, "name", figure->name);
        put_number(json, "value", figure->value);
        if (figure->unit[0] != 0) put_text(json, "unit", figure->unit);
        if (figure->text[0] != 0) put_text(json, "text", figure->text);
        oom_json_object_end(json);
    }
    oom_json_array_end(json);
}

enum oom_status oom_record_write(const struct oom_case_record *record, char **out) {
    struct oom_json_writer json;
    oom_json_writer_init_memory(&json, OOM_JSON_COMPACT);
    oom_json_object_begin(&json);
    put_text(&json, "id", record->id);
    oom_json_put_string(&json, "outcome", oom_outcome_name(record->outcome));
    put_text(&json, "reason", record->reason);
    if (record->oom_report[0] != 0) put_text(&json, "oom_report", record->oom_report);
    put_expected(&json, record);
    put_bits(&json, record);
    put_number(&json, "seconds", record->seconds);
    put_figures(&json, record);
    oom_json_object_end(&json);
    return oom_json_writer_finish(&json, out, NULL);
}

/* ---- reading ---- */

static enum oom_status refuse(const char *what) {
    return oom_fail(OOM_USAGE, "a case record: %s", what);
}

/* Objects hold the keys they must and may: `count` keys were looked for and found. */
static enum oom_status keys_check(const struct oom_json *node, int count, const char *what) {
    return node->count == count ? OOM_OK : refuse(what);
}

static bool get_text(const struct oom_json *node, const char *key, char *out, size_t room,
                     int *found) {
    const char *text;
    const struct oom_json *child = oom_json_get(node, key);
    if (!oom_json_as_text(child, &text) || child->length >= room) return false;
    memcpy(out, text, child->length + 1);
    (*found)++;
    return true;
}

static bool get_number(const struct oom_json *node, const char *key, double *out, int *found) {
    const struct oom_json *child = oom_json_get(node, key);
    const char *text;
    if (oom_json_as_text(child, &text)) {
        bool nan = strcmp(text, "nan") == 0, minus = strcmp(text, "-inf") == 0;
        if (!nan && !minus && strcmp(text, "inf") != 0) return false;
        *out = nan ? (double)NAN : minus ? -HUGE_VAL : HUGE_VAL;
    } else if (!oom_json_as_double(child, out)) {
        return false;
    }
    (*found)++;
    return true;
}

static bool id_is_good(const char *id) {
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                  "0123456789_.=,/+-";
    return id[0] != 0 && id[strspn(id, allowed)] == 0;
}

static int bit_by_name(const char *name) {
    for (int i = 0; i < OOM_BIT_COUNT; i++) {
        if (strcmp(name, oom_bit_name((enum oom_bit)i)) == 0) return i;
    }
    return -1;
}

static enum oom_status read_outcome(const struct oom_json *node, enum oom_outcome *out) {
    const char *text;
    if (!oom_json_as_text(oom_json_get(node, "outcome"), &text))
        return refuse("outcome is missing");
    for (int i = 0; i < OOM_OUTCOME_COUNT; i++) {
        if (strcmp(text, oom_outcome_name((enum oom_outcome)i)) != 0) continue;
        *out = (enum oom_outcome)i;
        return OOM_OK;
    }
    return refuse("outcome is none that is known");
}

static bool read_answer(const struct oom_json *bit, enum oom_answer *out) {
    bool value;
    const char *text;
    if (oom_json_as_bool(bit, &value)) {
        *out = value ? OOM_TRUE : OOM_FALSE;
    } else if (oom_json_as_text(bit, &text) && strcmp(text, "not asked") == 0) {
        *out = OOM_NOT_ASKED;
    } else {
        *out = OOM_NOT_REACHED;
        return bit != NULL && bit->kind == OOM_JSON_NULL;
    }
    return true;
}

static enum oom_status read_bits(const struct oom_json *node, struct oom_case_record *record) {
    const struct oom_json *bits = oom_json_get(node, "bits"), *why = oom_json_get(node, "why");
    int whys = 0;
    if (bits == NULL || why == NULL || why->kind != OOM_JSON_OBJECT)
        return refuse("bits or why is missing");
    OOM_TRY(keys_check(bits, OOM_BIT_COUNT, "bits must be the five"));
    for (int i = 0; i < OOM_BIT_COUNT; i++) {
        const char *name = oom_bit_name((enum oom_bit)i);
        const struct oom_json *bit = oom_json_get(bits, name);
        if (!read_answer(bit, &record->bits[i]))
            return refuse("a bit is true, false, null or \"not asked\"");
        bool there = oom_json_get(why, name) != NULL;
        if (there && !get_text(why, name, record->why[i], sizeof record->why[i], &whys))
            return refuse("the reason of a bit is no text or too long");
    }
    return keys_check(why, whys, "why holds a key that is no bit");
}

/* "control" of a wrong twin, "unequal" of a case: a list of bits. */
static enum oom_status read_expected(const struct oom_json *node, struct oom_case_record *record,
                                     int *found) {
    const struct oom_json *control = oom_json_get(node, "control");
    const struct oom_json *list = control != NULL ? control : oom_json_get(node, "unequal");
    if (list == NULL) return OOM_OK;
    if (list->kind != OOM_JSON_ARRAY) return refuse("control or unequal is no list");
    record->is_control = control != NULL;
    (*found)++;
    for (const struct oom_json *child = list->child; child != NULL; child = child->next) {
        const char *name;
        int bit = oom_json_as_text(child, &name) ? bit_by_name(name) : -1;
        if (bit < 0 || (record->expected_false >> bit & 1))
            return refuse("control or unequal lists what is no bit, or one twice");
        record->expected_false |= 1u << bit;
    }
    if (control == NULL && record->expected_false == 0) return refuse("unequal is empty");
    return OOM_OK;
}

static enum oom_status read_figure(const struct oom_json *node, struct oom_figure *figure) {
    int found = 0;
    if (!get_text(node, "name", figure->name, sizeof figure->name, &found) || figure->name[0] == 0)
        return refuse("a figure without a name, or with one too long");
    if (!get_number(node, "value", &figure->value, &found))
        return refuse("a figure without a value");
    bool unit = oom_json_get(node, "unit") == NULL ||
                get_text(node, "unit", figure->unit, sizeof figure->unit, &found);
    bool text = oom_json_get(node, "text") == NULL ||
                get_text(node, "text", figure->text, sizeof figure->text, &found);
    if (!unit || !text) return refuse("the unit or text of a figure is no text or too long");
    return keys_check(node, found, "a figure holds an unknown key");
}

static enum oom_status read_figures(const struct oom_json *node, struct oom_case_record *record) {
    const struct oom_json *figures = oom_json_get(node, "figures");
    if (figures == NULL || figures->kind != OOM_JSON_ARRAY) return refuse("figures are missing");
    if (figures->count > OOM_FIGURES_MAX) return refuse("more figures than a record holds");
    for (const struct oom_json *child = figures->child; child != NULL; child = child->next) {
        struct oom_figure figure = {0};
        OOM_TRY(read_figure(child, &figure));
        if (oom_record_figure(record, figure.name) != NULL) return refuse("a figure stands twice");
        record->figures[record->figure_count++] = figure;
    }
    return OOM_OK;
}

static enum oom_status read_tree(const struct oom_json *node, struct oom_case_record *record) {
    int found = 4; /* outcome, bits, why, figures, each checked by its reader */
    if (!get_text(node, "id", record->id, sizeof record->id, &found) || !id_is_good(record->id))
        return refuse("id is missing, too long or holds characters that ids do not have");
    if (!get_text(node, "reason", record->reason, sizeof record->reason, &found))
        return refuse("reason is missing or too long");
    if (!get_number(node, "seconds", &record->seconds, &found))
        return refuse("seconds are missing");
    if (oom_json_get(node, "oom_report") != NULL &&
        !get_text(node, "oom_report", record->oom_report, sizeof record->oom_report, &found)) {
        return refuse("oom_report is no text or too long");
    }
    OOM_TRY(read_outcome(node, &record->outcome));
    OOM_TRY(read_expected(node, record, &found));
    OOM_TRY(read_bits(node, record));
    OOM_TRY(read_figures(node, record));
    return keys_check(node, found, "an unknown key");
}

enum oom_status oom_record_read(const char *line, size_t bytes, struct oom_case_record *out) {
    struct oom_json_document *document;
    struct oom_case_record record = {0};
    OOM_TRY(oom_json_parse("a case record", line, bytes, RECORD_BYTES_MAX, &document));
    enum oom_status status = read_tree(oom_json_root(document), &record);
    oom_json_document_free(document);
    if (status == OOM_OK) *out = record;
    return status;
}
