#include "harness/verify/verdict.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const bit_names[] = {
#define X(id, name) name,
    OOM_BIT_MAP(X)
#undef X
};

static const char *const outcome_names[] = {
#define X(id, name) name,
    OOM_OUTCOME_MAP(X)
#undef X
};

const char *oom_bit_name(enum oom_bit bit) {
    return (unsigned)bit < OOM_BIT_COUNT ? bit_names[bit] : "unknown";
}

const char *oom_outcome_name(enum oom_outcome outcome) {
    return (unsigned)outcome < OOM_OUTCOME_COUNT ? outcome_names[outcome] : "unknown";
}

/* A text cut by its field may end within a UTF-8 character: that one is left out. */
static void trim_cut(char *text, size_t room) {
    size_t end = strlen(text), at = end;
    if (end + 1 < room) return;
    while (at > 0 && ((unsigned char)text[at - 1] & 0xc0) == 0x80) at--;
    if (at == 0) return;
    unsigned char lead = (unsigned char)text[at - 1];
    size_t needed = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
    if (end - (at - 1) < needed) text[at - 1] = 0;
}

static void text_set(char *out, size_t room, const char *text) {
    snprintf(out, room, "%s", text);
    trim_cut(out, room);
}

/* The figure of that name, or a new one; NULL when the record is full. */
static struct oom_figure *figure_slot(struct oom_case_record *record, const char *name) {
    struct oom_figure *slot = NULL;
    char cut[sizeof slot->name];
    text_set(cut, sizeof cut, name);
    for (int i = 0; i < record->figure_count; i++) {
        if (strcmp(record->figures[i].name, cut) == 0) slot = &record->figures[i];
    }
    if (slot == NULL && record->figure_count < OOM_FIGURES_MAX)
        slot = &record->figures[record->figure_count++];
    if (slot == NULL) return NULL;
    *slot = (struct oom_figure){0};
    memcpy(slot->name, cut, sizeof cut);
    return slot;
}

void oom_record_number(struct oom_case_record *record, const char *name, double value,
                       const char *unit) {
    struct oom_figure *figure = figure_slot(record, name);
    if (figure == NULL) return;
    figure->value = value;
    text_set(figure->unit, sizeof figure->unit, unit);
}

void oom_record_text(struct oom_case_record *record, const char *name, const char *text) {
    struct oom_figure *figure = figure_slot(record, name);
    if (figure != NULL) text_set(figure->text, sizeof figure->text, text);
}

const struct oom_figure *oom_record_figure(const struct oom_case_record *record, const char *name) {
    for (int i = 0; i < record->figure_count; i++) {
        if (strcmp(record->figures[i].name, name) == 0) return &record->figures[i];
    }
    return NULL;
}

void oom_record_bit(struct oom_case_record *record, enum oom_bit bit, enum oom_answer answer,
                    const char *format, ...) {
    if ((unsigned)bit >= OOM_BIT_COUNT) return;
    va_list args;
    va_start(args, format);
    vsnprintf(record->why[bit], sizeof record->why[bit], format, args);
    va_end(args);
    trim_cut(record->why[bit], sizeof record->why[bit]);
    record->bits[bit] = answer;
}

/* ---- the decision ---- */

bool oom_record_is_unequal(const struct oom_case_record *record, enum oom_bit bit) {
    return !record->is_control && (record->expected_false >> bit & 1) &&
           record->bits[bit] == OOM_FALSE;
}

bool oom_record_is_right(const struct oom_case_record *record, enum oom_bit bit) {
    enum oom_answer answer = record->bits[bit];
    if (answer == OOM_NOT_ASKED) return true;
    return answer == (record->expected_false >> bit & 1 ? OOM_FALSE : OOM_TRUE);
}

/* The set of bits that have this answer. */
static uint32_t bits_with(const struct oom_case_record *record, enum oom_answer answer) {
    uint32_t set = 0;
    for (int i = 0; i < OOM_BIT_COUNT; i++) set |= (uint32_t)(record->bits[i] == answer) << i;
    return set;
}

/* "grad_match, data_intact", or "none". */
static const char *set_names(uint32_t set, char *out, size_t n) {
    out[0] = 0;
    for (int i = 0; i < OOM_BIT_COUNT; i++) {
        if (!(set >> i & 1)) continue;
        size_t used = strlen(out);
        snprintf(out + used, n - used, "%s%s", used > 0 ? ", " : "", bit_names[i]);
    }
    return out[0] != 0 ? out : "none";
}

static void fail(struct oom_case_record *record, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* A reason that is there already says more than the rule can. */
static void fail(struct oom_case_record *record, const char *format, ...) {
    record->outcome = OOM_OUTCOME_FAIL;
    if (record->reason[0] != 0) return;
    va_list args;
    va_start(args, format);
    vsnprintf(record->reason, sizeof record->reason, format, args);
    va_end(args);
    trim_cut(record->reason, sizeof record->reason);
}

/* "x false", "; y not reached": what is wrong, if anything is. */
static void append(char *out, size_t n, uint32_t set, const char *what) {
    char names[128];
    size_t used = strlen(out);
    if (set == 0) return;
    snprintf(out + used, n - used, "%s%s %s", used > 0 ? "; " : "",
             set_names(set, names, sizeof names), what);
}

static void decide_case(struct oom_case_record *record, uint32_t all, uint32_t is_true,
                        uint32_t is_false) {
    char wrong[OOM_REASON_MAX] = "";
    uint32_t unequal = record->expected_false;
    append(wrong, sizeof wrong, is_false & ~unequal, "false");
    append(wrong, sizeof wrong, is_true & unequal, "true, which mathematics makes false");
    append(wrong, sizeof wrong, all & ~is_true & ~is_false, "not reached");
    if (wrong[0] != 0) {
        fail(record, "%s", wrong);
    } else {
        record->outcome = OOM_OUTCOME_PASS;
    }
}

static void decide_control(struct oom_case_record *record, uint32_t all, uint32_t is_false) {
    char expected[128], got[128];
    uint32_t wanted = record->expected_false;
    if (wanted == 0 || (wanted & ~all) != 0) {
        fail(record, "a control must name the bits that it turns (set 0x%x)", wanted);
    } else if (is_false == wanted) {
        record->outcome = OOM_OUTCOME_PASS;
    } else {
        fail(record, "must turn exactly: %s; turned: %s", set_names(wanted, expected, 128),
             set_names(is_false, got, 128));
    }
}

void oom_record_decide(struct oom_case_record *record) {
    if (record->outcome != OOM_OUTCOME_PASS && record->outcome != OOM_OUTCOME_FAIL) return;
    uint32_t all = (1u << OOM_BIT_COUNT) - 1;
    uint32_t is_true = bits_with(record, OOM_TRUE), is_false = bits_with(record, OOM_FALSE);
    all &= ~bits_with(record, OOM_NOT_ASKED);
    if ((is_true | is_false) == 0) {
        fail(record, "made no check");
    } else if (record->is_control) {
        decide_control(record, all, is_false);
    } else {
        decide_case(record, all, is_true, is_false);
    }
}
