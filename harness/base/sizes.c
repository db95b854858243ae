#include "harness/base/sizes.h"

#include <ctype.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZES_ALLOWED \
    "a number and K, M, G, T, KiB, MiB, GiB, TiB (powers of 1024), KB, MB, GB, TB (of 1000) or B"

enum { FRACTION_DIGITS_MAX = 18 };

struct unit {
    const char *name;
    double factor;
};

static const struct unit size_units[] = {
    {"", 1},         {"B", 1},      {"K", 0x1p10},   {"k", 0x1p10},   {"KiB", 0x1p10},
    {"M", 0x1p20},   {"m", 0x1p20}, {"MiB", 0x1p20}, {"G", 0x1p30},   {"g", 0x1p30},
    {"GiB", 0x1p30}, {"T", 0x1p40}, {"t", 0x1p40},   {"TiB", 0x1p40}, {"kB", 1e3},
    {"KB", 1e3},     {"MB", 1e6},   {"GB", 1e9},     {"TB", 1e12},
};

static const struct unit duration_units[] = {
    {"", 1}, {"s", 1}, {"us", 1e-6}, {"ms", 1e-3}, {"min", 60}, {"m", 60}, {"h", 3600},
};

static const struct unit *unit_find(const struct unit *units, size_t count, const char *name) {
    for (size_t i = 0; i < count; i++) {
        if (strcmp(units[i].name, name) == 0) return &units[i];
    }
    return NULL;
}

static enum oom_status refuse(const char *what, const char *text, const char *allowed) {
    return oom_fail(OOM_USAGE, "%s: \"%.60s\" is not allowed; allowed: %s", what, text, allowed);
}

/* Decimal digits into *value; false when there are none or they overflow. */
static bool digits_read(const char **at, uint64_t *value) {
    const char *start = *at;
    for (*value = 0; isdigit((unsigned char)**at); (*at)++) {
        if (__builtin_mul_overflow(*value, 10, value)) return false;
        if (__builtin_add_overflow(*value, (uint64_t)(**at - '0'), value)) return false;
    }
    return *at > start;
}

/* whole.fraction units, cut to bytes; exact, as 10^18 * 2^40 fits in 128 bits. */
enum oom_status oom_size_parse(const char *what, const char *text, uint64_t *out) {
    const char *at = text;
    uint64_t whole, fraction = 0, scale = 1;
    if (!digits_read(&at, &whole)) return refuse(what, text, SIZES_ALLOWED);
    bool has_point = *at == '.';
    if (has_point) {
        const char *first = ++at;
        if (!digits_read(&at, &fraction) || at - first > FRACTION_DIGITS_MAX)
            return refuse(what, text, SIZES_ALLOWED);
        for (const char *digit = first; digit < at; digit++) scale *= 10;
    }
    const struct unit *unit = unit_find(size_units, sizeof size_units / sizeof *size_units, at);
    if (unit == NULL) return refuse(what, text, SIZES_ALLOWED);
    if (has_point && unit->factor == 1) return refuse(what, text, "whole bytes");
    uint64_t factor = (uint64_t)unit->factor, bytes;
    uint64_t part = (uint64_t)((unsigned __int128)fraction * factor / scale);
    if (__builtin_mul_overflow(whole, factor, &bytes) ||
        __builtin_add_overflow(bytes, part, &bytes))
        return refuse(what, text, "less than 16 EiB (2^64 bytes)");
    *out = bytes;
    return OOM_OK;
}

char *oom_size_format(uint64_t bytes, char *out, size_t n) {
    static const char *const names[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (bytes < 1024) {
        snprintf(out, n, "%u B", (unsigned)bytes);
        return out;
    }
    size_t i = 0;
    double value = (double)bytes / 1024;
    /* 1023.995 would be shown as 1024.00 of the smaller unit. */
    for (; i + 1 < sizeof names / sizeof *names && value >= 1023.995; i++) value /= 1024;
    snprintf(out, n, "%.2f %s", value, names[i]);
    return out;
}

enum oom_status oom_int64_parse(const char *what, const char *text, int64_t min, int64_t max,
                                int64_t *out) {
    char allowed[80];
    snprintf(allowed, sizeof allowed, "whole numbers from %lld to %lld", (long long)min,
             (long long)max);
    bool negative = text[0] == '-';
    const char *at = text + negative;
    uint64_t size;
    if (!digits_read(&at, &size) || *at != 0) return refuse(what, text, allowed);
    if (size > (uint64_t)INT64_MAX + negative) return refuse(what, text, allowed);
    int64_t value = negative ? (int64_t)(0 - size) : (int64_t)size;
    if (value < min || value > max) return refuse(what, text, allowed);
    *out = value;
    return OOM_OK;
}

static bool hex_read(const char **at, uint64_t *value) {
    const char *start = *at;
    for (*value = 0; isxdigit((unsigned char)**at); (*at)++) {
        if (*value >> 60 != 0) return false;
        int c = tolower((unsigned char)**at);
        *value = *value << 4 | (uint64_t)(isdigit(c) ? c - '0' : c - 'a' + 10);
    }
    return *at > start;
}

enum oom_status oom_uint64_parse(const char *what, const char *text, uint64_t min, uint64_t max,
                                 uint64_t *out) {
    char allowed[80];
    snprintf(allowed, sizeof allowed, "whole numbers from %llu to %llu", (unsigned long long)min,
             (unsigned long long)max);
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    const char *at = hex ? text + 2 : text;
    uint64_t value;
    bool read = hex ? hex_read(&at, &value) : digits_read(&at, &value);
    if (!read || *at != 0 || value < min || value > max) return refuse(what, text, allowed);
    *out = value;
    return OOM_OK;
}

double oom_double_scan(const char *text, char **end) {
    static locale_t c_locale; /* glibc gives its one static object; nothing to free */
    locale_t now = __atomic_load_n(&c_locale, __ATOMIC_ACQUIRE);
    if (now == NULL) {
        now = newlocale(LC_ALL_MASK, "C", NULL);
        __atomic_store_n(&c_locale, now, __ATOMIC_RELEASE);
    }
    return now != NULL ? strtod_l(text, end, now) : strtod(text, end);
}

/* Digits with an optional point; at least one digit. */
static const char *decimal_skip(const char *at) {
    bool any = false;
    for (; isdigit((unsigned char)*at); at++) any = true;
    if (*at == '.') at++;
    for (; isdigit((unsigned char)*at); at++) any = true;
    return any ? at : NULL;
}

static const char *exponent_skip(const char *at) {
    if (*at != 'e' && *at != 'E') return at;
    at++;
    if (*at == '+' || *at == '-') at++;
    if (!isdigit((unsigned char)*at)) return NULL;
    while (isdigit((unsigned char)*at)) at++;
    return at;
}

enum oom_status oom_double_parse(const char *what, const char *text, double min, double max,
                                 double *out) {
    char allowed[80];
    snprintf(allowed, sizeof allowed, "finite numbers from %g to %g", min, max);
    const char *at = decimal_skip(text + (text[0] == '-'));
    if (at != NULL) at = exponent_skip(at);
    if (at == NULL || *at != 0) return refuse(what, text, allowed);
    double value = oom_double_scan(text, NULL);
    if (!isfinite(value) || !(value >= min && value <= max)) return refuse(what, text, allowed);
    *out = value;
    return OOM_OK;
}

enum oom_status oom_choice_parse(const char *what, const char *text, const char *const *names,
                                 int *out) {
    char allowed[200] = "";
    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(text, names[i]) == 0) {
            *out = i;
            return OOM_OK;
        }
        size_t used = strlen(allowed);
        snprintf(allowed + used, sizeof allowed - used, "%s%s", i > 0 ? ", " : "", names[i]);
    }
    return refuse(what, text, allowed);
}

enum oom_status oom_duration_parse(const char *what, const char *text, double *out) {
    static const char allowed[] = "a number and us, ms, s, m, min or h (seconds without)";
    const char *at = decimal_skip(text);
    if (at == NULL) return refuse(what, text, allowed);
    const struct unit *unit =
        unit_find(duration_units, sizeof duration_units / sizeof *duration_units, at);
    double number = oom_double_scan(text, NULL);
    if (unit == NULL || !(number * unit->factor <= 1e9)) return refuse(what, text, allowed);
    *out = number * unit->factor;
    return OOM_OK;
}
