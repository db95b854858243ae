/* settings-lenient.c: the settings string as PyTorch itself reads it, for strings of recorded runs:
 * separators are stepped over unseen, a number ends at the first other character, -1 is huge, what
 * is only for the host is skipped, the last of equal keys wins.
 *
 * What PyTorch refuses ends its reading, with what stood before in force; so it does here. */
#include "harness/memory/settings-grammar.h"

#include "harness/base/text.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t MIB = 1 << 20;

struct reading {
    struct oom_conf_reader r;
    struct oom_allocator_settings *settings;
    char *notes;
    size_t n, used;
};

static void note(struct reading *reading, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* One more sentence; those that do not fit are dropped whole. */
static void note(struct reading *reading, const char *format, ...) {
    char raw[256], text[4 * sizeof raw];
    va_list args;
    va_start(args, format);
    vsnprintf(raw, sizeof raw, format, args);
    va_end(args);
    oom_text_show(raw, strlen(raw), text, sizeof text);
    const char *space = reading->used > 0 ? " " : "";
    size_t length = strlen(space) + strlen(text) + 1;
    if (reading->used + length + 1 > reading->n) return;
    snprintf(reading->notes + reading->used, reading->n - reading->used, "%s%s.", space, text);
    reading->used += length;
}

static int shown(const struct oom_conf_token *token) {
    return token->length < 40 ? token->length : 40;
}

/* What PyTorch refuses: false, and nothing further right is read. */
static bool refuse(struct reading *reading, const struct oom_conf_token *found, const char *why) {
    note(reading, "Column %d, key '%.*s': PyTorch refuses %s%.*s%s (%s) and reads no further",
         found->column, shown(&reading->r.key), reading->r.key.text,
         found->length > 0 ? "'" : "the end", shown(found), found->text,
         found->length > 0 ? "'" : "", why);
    return false;
}

/* Whatever stands there is taken for the separator. */
static bool step_over(struct reading *reading, const char *sign) {
    struct oom_conf_token found = reading->r.token;
    if (found.length == 0) return refuse(reading, &found, "a separator is missing");
    if (!oom_conf_is(&found, sign)) {
        note(reading, "Column %d: '%.*s' stands where '%s' should and is not looked at",
             found.column, shown(&found), found.text, sign);
    }
    oom_conf_advance(&reading->r);
    return true;
}

/* ---- numbers ---- */

static void copy(const struct oom_conf_token *token, char *out, size_t n) {
    snprintf(out, n, "%.*s", token->length < (int)n ? token->length : (int)n - 1, token->text);
}

static void note_rest(struct reading *reading, const struct oom_conf_token *found,
                      const char *rest) {
    if (*rest == 0) return;
    note(reading, "Column %d: '%.*s' is read as %.*s", found->column, shown(found), found->text,
         (int)(found->length - (int)strlen(rest)), found->text);
}

/* As std::stoull. */
static bool read_integer(struct reading *reading, uint64_t *out) {
    struct oom_conf_token found = reading->r.token;
    char text[OOM_CONF_MAX], *end;
    copy(&found, text, sizeof text);
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (end == text || errno != 0) return refuse(reading, &found, "not a number");
    if (text[0] == '-') {
        note(reading, "Column %d: '%s' wraps to %llu", found.column, text, value);
    } else {
        note_rest(reading, &found, end);
    }
    *out = value;
    oom_conf_advance(&reading->r);
    return true;
}

/* As std::stod. */
static bool read_double(struct reading *reading, double *out) {
    struct oom_conf_token found = reading->r.token;
    char text[OOM_CONF_MAX], *end;
    copy(&found, text, sizeof text);
    errno = 0;
    *out = strtod(text, &end);
    if (end == text || errno != 0) return refuse(reading, &found, "not a number");
    note_rest(reading, &found, end);
    oom_conf_advance(&reading->r);
    return true;
}

/* ---- values, by kind ---- */

static bool read_megabytes(struct reading *reading, uint64_t least, uint64_t *out) {
    struct oom_conf_token found = reading->r.token;
    uint64_t megabytes;
    char why[64];
    if (!read_integer(reading, &megabytes)) return false;
    snprintf(why, sizeof why, "at least %" PRIu64, least);
    if (megabytes < least) return refuse(reading, &found, why);
    uint64_t most = UINT64_MAX / MIB;
    *out = (megabytes < most ? megabytes : most) * MIB;
    return true;
}

static bool read_share(struct reading *reading, bool open, double *out) {
    struct oom_conf_token found = reading->r.token;
    double value;
    if (!read_double(reading, &value)) return false;
    if (open ? !(value > 0 && value < 1) : !(value >= 0 && value <= 1)) {
        return refuse(reading, &found, open ? "not within (0, 1)" : "not within [0, 1]");
    }
    *out = value;
    return true;
}

static bool read_divisor(struct reading *reading, bool zero, uint32_t *out) {
    struct oom_conf_token found = reading->r.token;
    uint64_t value;
    if (!read_integer(reading, &value)) return false;
    if (!(zero && value == 0) && (!oom_conf_power_of_two(value) || value > UINT32_MAX)) {
        return refuse(reading, &found, "not a power of two");
    }
    *out = (uint32_t)value;
    return true;
}

/* One "B:D" of the list; *last is the class of the B before, -1 at the first. */
static bool read_list_pair(struct reading *reading, int *last, uint32_t *table) {
    uint32_t megabytes = 0, divisions;
    bool rest = oom_conf_is(&reading->r.token, ">");
    if (rest)
        oom_conf_advance(&reading->r);
    else if (!read_divisor(reading, false, &megabytes))
        return false;
    if (!step_over(reading, ":") || !read_divisor(reading, true, &divisions)) return false;
    int index = rest ? OOM_ROUNDUP_CLASSES - 1 : oom_conf_class(megabytes);
    int from = index;
    if (rest)
        from = *last + 1; /* behind the last one named; */
    else if (*last < 0)
        from = 0; /* the first one named also gives what lies below */
    if (rest && *last < 0) from = 1;
    for (int i = from; i <= index; i++) table[i] = divisions;
    if (!rest) *last = index;
    return true;
}

static bool read_divisions(struct reading *reading) {
    uint32_t table[OOM_ROUNDUP_CLASSES] = {0}, divisions;
    int last = -1;
    if (oom_conf_is(&reading->r.token, "[")) {
        oom_conf_advance(&reading->r);
        while (!oom_conf_is(&reading->r.token, "]")) {
            if (!read_list_pair(reading, &last, table)) return false;
            if (oom_conf_is(&reading->r.token, "]")) break;
            if (!step_over(reading, ",")) return false;
        }
        oom_conf_advance(&reading->r);
    } else {
        if (!read_divisor(reading, false, &divisions)) return false;
        for (int i = 0; i < OOM_ROUNDUP_CLASSES; i++) table[i] = divisions;
    }
    memcpy(reading->settings->roundup_power2_divisions, table, sizeof table);
    return true;
}

static bool read_boolean(struct reading *reading, bool *out) {
    bool yes = oom_conf_is(&reading->r.token, "True");
    if (!yes && !oom_conf_is(&reading->r.token, "False")) {
        return refuse(reading, &reading->r.token, "neither True nor False");
    }
    *out = yes;
    oom_conf_advance(&reading->r);
    return true;
}

static bool read_backend(struct reading *reading) {
    struct oom_conf_token found = reading->r.token;
    if (oom_conf_is(&found, "cudaMallocAsync")) {
        note(reading, "Backend cudaMallocAsync is the driver's own; native is taken in its place");
    } else if (!oom_conf_is(&found, "native")) {
        return refuse(reading, &found, "neither native nor cudaMallocAsync");
    }
    reading->settings->backend = OOM_BACKEND_NATIVE;
    oom_conf_advance(&reading->r);
    return true;
}

/* PyTorch only warns of a bad one. */
static bool read_reserve(struct reading *reading) {
    static const double gibibyte = 1 << 30, most = (double)((uint64_t)1 << 62);
    struct oom_conf_token found = reading->r.token;
    struct oom_allocator_settings *s = reading->settings;
    char text[OOM_CONF_MAX], *end;
    copy(&found, text, sizeof text);
    double value = strtod(text, &end);
    bool gigabytes = end > text && *end == 'G';
    if (found.length == 0) return refuse(reading, &found, "a value is missing");
    oom_conf_advance(&reading->r);
    if (end == text || end[gigabytes] != 0 || !(value > 0) || !isfinite(value)) {
        note(reading, "Column %d: the reserve '%.*s' is ignored, with a warning", found.column,
             shown(&found), found.text);
        return true;
    }
    double bytes = value * gibibyte;
    s->expandable_reserve_fraction = gigabytes ? 0 : value;
    s->expandable_reserve_bytes = !gigabytes ? 0 : bytes < most ? (uint64_t)bytes : (uint64_t)most;
    return true;
}

static bool skip_value(struct reading *reading, const char *concerns) {
    struct oom_conf_reader *r = &reading->r;
    if (r->token.length == 0) return refuse(reading, &r->token, "a value is missing");
    if (oom_conf_is(&r->token, "[")) {
        while (r->token.length > 0 && !oom_conf_is(&r->token, "]")) oom_conf_advance(r);
    }
    if (r->token.length == 0) return refuse(reading, &r->token, "']' is missing");
    oom_conf_advance(r);
    note(reading, "Key '%.*s' is about %s and has no effect here", shown(&r->key), r->key.text,
         concerns);
    return true;
}

/* ---- pairs ---- */

static bool read_value(struct reading *reading, const struct oom_conf_key *key) {
    struct oom_allocator_settings *s = reading->settings;
    void *field = (char *)s + key->offset;
    switch (key->kind) {
    case OOM_CONF_MEGABYTES:
        return read_megabytes(
            reading, key->setting == OOM_SETTING_LARGE_SEGMENT ? 11 : s->large_segment_size / MIB,
            field);
    case OOM_CONF_DECIMAL:
        return read_share(reading, key->setting == OOM_SETTING_GC, field);
    case OOM_CONF_DIVISIONS:
        return read_divisions(reading);
    case OOM_CONF_BOOLEAN:
        return read_boolean(reading, field);
    case OOM_CONF_RESERVE:
        return read_reserve(reading);
    case OOM_CONF_BACKEND:
        return read_backend(reading);
    case OOM_CONF_NO_EFFECT:
        break;
    }
    return skip_value(reading, key->concerns);
}

static bool read_pair(struct reading *reading) {
    struct oom_conf_reader *r = &reading->r;
    r->key = r->token;
    int key = oom_conf_key_find(&r->key);
    if (key < 0 || !oom_conf_key_known(key, reading->settings->profile)) {
        return refuse(reading, &r->key, "an unrecognized key");
    }
    const struct oom_conf_key *row = &oom_conf_keys[key];
    oom_conf_advance(r);
    if (!step_over(reading, ":") || !read_value(reading, row)) return false;
    if (row->setting == OOM_SETTING_COUNT) return true;
    if (reading->settings->given[row->setting]) {
        note(reading, "Key '%s' comes again: the last one counts", row->name);
    }
    reading->settings->given[row->setting] = true;
    return true;
}

/* The bound of the other sizes is looked for before they are read; what is wrong with it is said
 * when its turn comes. */
static void find_large_segment(const char *conf, struct oom_allocator_settings *settings) {
    struct reading silent = {.r = oom_conf_open(conf), .settings = settings};
    while (silent.r.token.length > 0) {
        bool found = oom_conf_is(&silent.r.token, "large_segment_size_mb");
        oom_conf_advance(&silent.r);
        if (!found) continue;
        oom_conf_advance(&silent.r);
        if (!read_megabytes(&silent, 11, &settings->large_segment_size)) return;
    }
}

void oom_allocator_settings_parse_leniently(const char *conf,
                                            struct oom_allocator_settings *settings, char *notes,
                                            size_t n) {
    struct reading reading = {oom_conf_open(conf), settings, notes, n, 0};
    if (n > 0) notes[0] = 0;
    oom_conf_reset(settings);
    if (settings->profile != OOM_PROFILE_PYTORCH_2_11) find_large_segment(conf, settings);
    while (reading.r.token.length > 0) {
        if (!read_pair(&reading)) break;
        if (reading.r.token.length == 0) break;
        step_over(&reading, ",");
        if (reading.r.token.length == 0) note(&reading, "A ',' ends the string");
    }
    if (settings->max_non_split_rounding == 0) {
        settings->max_non_split_rounding = settings->large_segment_size;
    }
    memset(settings->conf, 0, sizeof settings->conf);
    snprintf(settings->conf, sizeof settings->conf, "%s", conf);
}
