/* settings.c: profiles, names, defaults and bounds of the allocator's settings, and their values as
 * text. The readers of the settings string are settings-parse.c and settings-lenient.c. */
#include "harness/memory/internal.h"
#include "harness/memory/settings-grammar.h"

#include "harness/base/nearest.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static const uint64_t MIB = 1 << 20;

enum { DEFAULT_TRACE = 65536, MAX_GUARD = 1 << 30 };

struct oom_allocator_settings oom_allocator_settings_default(void) {
    return (struct oom_allocator_settings){.trace_entries = DEFAULT_TRACE,
                                           .profile = OOM_PROFILE_PYTORCH_2_13,
                                           .backend = OOM_BACKEND_NATIVE,
                                           .max_split_size = OOM_NO_LIMIT,
                                           .max_non_split_rounding = OOM_LARGE_SEGMENT,
                                           .large_segment_size = OOM_LARGE_SEGMENT,
                                           .per_process_memory_fraction = 1.0};
}

/* ---- names ---- */

#define NAME_OF(id, name, ...) name,
static const char *const profile_names[] = {OOM_PROFILE_MAP(NAME_OF)};
static const char *const backend_names[] = {OOM_BACKEND_MAP(NAME_OF)};
static const char *const setting_names[] = {OOM_SETTING_MAP(NAME_OF)};
#undef NAME_OF

static const char *const profile_proses[] = {
#define X(id, name, prose) prose,
    OOM_PROFILE_MAP(X)
#undef X
};

static const char *const setting_proses[OOM_SETTING_COUNT] = {
    [OOM_SETTING_BACKEND] = "native: the caching allocator; direct: one device allocation a tensor",
    [OOM_SETTING_EXPANDABLE] = "one segment per stream and pool that grows and shrinks by pages",
    [OOM_SETTING_RESERVE] = "address space of an expandable segment: share of the device, or nG",
    [OOM_SETTING_LARGE_SEGMENT] = "segment, or expandable page, of requests from 1 to 10 MiB; MiB",
    [OOM_SETTING_MAX_SPLIT] = "blocks from this size on are never split; MiB",
    [OOM_SETTING_NON_SPLIT] = "by how much such a block may exceed the request it serves; MiB",
    [OOM_SETTING_ROUNDUP] = "rounds requests up to parts of a power of two, by size class",
    [OOM_SETTING_GC] = "share of the limit above which old cached segments are given back",
    [OOM_SETTING_FRACTION] = "share of the device that may be reserved",
    [OOM_SETTING_REJECT] = "beyond that share: refuse at once, without a retry",
};

const char *oom_profile_name(enum oom_profile profile) {
    return (unsigned)profile < OOM_PROFILE_COUNT ? profile_names[profile] : "unknown";
}

const char *oom_profile_prose(enum oom_profile profile) {
    return (unsigned)profile < OOM_PROFILE_COUNT ? profile_proses[profile] : "unknown";
}

enum oom_status oom_profile_find(const char *name, enum oom_profile *out) {
    for (int i = 0; i < OOM_PROFILE_COUNT; i++) {
        if (strcmp(name, profile_names[i]) != 0) continue;
        *out = (enum oom_profile)i;
        return OOM_OK;
    }
    const char *near = oom_nearest_name(name, profile_names, OOM_PROFILE_COUNT);
    return oom_fail(OOM_USAGE, "unknown profile '%.40s'%s%s; allowed are %s, %s and %s", name,
                    near != NULL ? ", nearest is " : "", near != NULL ? near : "", profile_names[0],
                    profile_names[1], profile_names[2]);
}

const char *oom_backend_name(enum oom_backend backend) {
    return (unsigned)backend < OOM_BACKEND_COUNT ? backend_names[backend] : "unknown";
}

const char *oom_setting_name(enum oom_setting setting) {
    return (unsigned)setting < OOM_SETTING_COUNT ? setting_names[setting] : "unknown";
}

const char *oom_setting_prose(enum oom_setting setting) {
    return (unsigned)setting < OOM_SETTING_COUNT ? setting_proses[setting] : "unknown";
}

/* ---- values as text ---- */

static void format_megabytes(uint64_t bytes, char *out, size_t n) {
    if (bytes == OOM_NO_LIMIT)
        snprintf(out, n, "unlimited");
    else if (bytes % MIB == 0)
        snprintf(out, n, "%" PRIu64, bytes / MIB);
    else
        snprintf(out, n, "%" PRIu64 " bytes", bytes);
}

/* The shortest decimal that is read back as the same number; `unit` follows it. */
static void format_decimal(double value, const char *unit, char *out, size_t n) {
    enum { MOST_DIGITS = 15 };
    char text[40];
    double back;
    for (int digits = 0; digits <= MOST_DIGITS; digits++) {
        int length = snprintf(text, sizeof text, "%.*f", digits, value);
        struct oom_conf_token token = {text, length, 1};
        if (length < (int)sizeof text && oom_conf_decimal(&token, &back) && back == value) {
            snprintf(out, n, "%s%s", text, unit);
            return;
        }
    }
    snprintf(out, n, "%.17g%s", value, unit);
}

static void format_reserve(const struct oom_allocator_settings *s, char *out, size_t n) {
    if (s->expandable_reserve_fraction > 0)
        format_decimal(s->expandable_reserve_fraction, "", out, n);
    else if (s->expandable_reserve_bytes > 0)
        format_decimal(ldexp((double)s->expandable_reserve_bytes, -30), "G", out, n);
    else
        snprintf(out, n, "9/8 of the device");
}

/* Entries as the list form that gives them: a scalar where all are equal and not 0. */
static void format_divisions(const uint32_t *table, char *out, size_t n) {
    int last = OOM_ROUNDUP_CLASSES - 1;
    while (last > 0 && table[last - 1] == table[OOM_ROUNDUP_CLASSES - 1]) last--;
    if (last == 0 && table[0] == 0) {
        snprintf(out, n, "none");
    } else if (last == 0) {
        snprintf(out, n, "%" PRIu32, table[0]);
    } else {
        /* the first pair writes below its index, too: it must name entry 0 or what equals it */
        int first = 0, length = snprintf(out, n, "[");
        while (table[first + 1] == table[0]) first++;
        for (int i = first; i < last && (size_t)length < n; i++) {
            length +=
                snprintf(out + length, n - (size_t)length, "%d:%" PRIu32 ",", 1 << i, table[i]);
        }
        if ((size_t)length < n) {
            snprintf(out + length, n - (size_t)length, ">:%" PRIu32 "]", table[last]);
        }
    }
}

const char *oom_setting_format(const struct oom_allocator_settings *s, enum oom_setting setting,
                               char *out, size_t n) {
    switch (setting) {
    case OOM_SETTING_BACKEND:
        snprintf(out, n, "%s", oom_backend_name(s->backend));
        break;
    case OOM_SETTING_EXPANDABLE:
        snprintf(out, n, "%s", s->expandable_segments ? "True" : "False");
        break;
    case OOM_SETTING_RESERVE:
        format_reserve(s, out, n);
        break;
    case OOM_SETTING_LARGE_SEGMENT:
        format_megabytes(s->large_segment_size, out, n);
        break;
    case OOM_SETTING_MAX_SPLIT:
        format_megabytes(s->max_split_size, out, n);
        break;
    case OOM_SETTING_NON_SPLIT:
        format_megabytes(s->max_non_split_rounding, out, n);
        break;
    case OOM_SETTING_ROUNDUP:
        format_divisions(s->roundup_power2_divisions, out, n);
        break;
    case OOM_SETTING_GC:
        if (s->garbage_collection_threshold > 0)
            format_decimal(s->garbage_collection_threshold, "", out, n);
        else
            snprintf(out, n, "off");
        break;
    case OOM_SETTING_FRACTION:
        format_decimal(s->per_process_memory_fraction, "", out, n);
        break;
    case OOM_SETTING_REJECT:
        snprintf(out, n, "%s", s->throw_on_cudamalloc_oom ? "True" : "False");
        break;
    case OOM_SETTING_COUNT:
        snprintf(out, n, "unknown");
        break;
    }
    return out;
}

/* ---- settings made by hand ---- */

static enum oom_status out_of_range(const char *field, double value, const char *allowed) {
    return oom_fail(OOM_USAGE, "allocator settings: %s is %.17g, allowed: %s", field, value,
                    allowed);
}

static enum oom_status check_sizes(const struct oom_allocator_settings *s) {
    if (s->guard_bytes % OOM_MIN_BLOCK != 0 || s->guard_bytes > MAX_GUARD) {
        return out_of_range("guard_bytes", (double)s->guard_bytes, "a multiple of 512 up to 1 GiB");
    }
    if (s->large_segment_size <= OOM_LARGE_MIN || s->large_segment_size % MIB != 0) {
        return out_of_range("large_segment_size", (double)s->large_segment_size,
                            "whole MiB, more than 10 (begin with the defaults)");
    }
    if (s->max_split_size < s->large_segment_size) {
        return out_of_range("max_split_size", (double)s->max_split_size,
                            "at least large_segment_size");
    }
    if (s->max_non_split_rounding < s->large_segment_size) {
        return out_of_range("max_non_split_rounding", (double)s->max_non_split_rounding,
                            "at least large_segment_size");
    }
    return OOM_OK;
}

static enum oom_status check_shares(const struct oom_allocator_settings *s) {
    double threshold = s->garbage_collection_threshold, fraction = s->per_process_memory_fraction;
    double reserve = s->expandable_reserve_fraction;
    if (!(threshold >= 0 && threshold < 1)) {
        return out_of_range("garbage_collection_threshold", threshold, "0 or more, below 1");
    }
    if (!(fraction >= 0 && fraction <= 1)) {
        return out_of_range("per_process_memory_fraction", fraction, "0 to 1");
    }
    if (!(reserve >= 0 && isfinite(reserve))) {
        return out_of_range("expandable_reserve_fraction", reserve, "0 (none) or more, finite");
    }
    if (reserve > 0 && s->expandable_reserve_bytes > 0) {
        return out_of_range("expandable_reserve_bytes", (double)s->expandable_reserve_bytes,
                            "0 beside a fraction");
    }
    return OOM_OK;
}

enum oom_status oom_allocator_settings_check(const struct oom_allocator_settings *s) {
    if ((unsigned)s->profile >= OOM_PROFILE_COUNT) {
        return out_of_range("profile", (double)(unsigned)s->profile, "one of enum oom_profile");
    }
    if ((unsigned)s->backend >= OOM_BACKEND_COUNT) {
        return out_of_range("backend", (double)(unsigned)s->backend, "one of enum oom_backend");
    }
    OOM_TRY(check_sizes(s));
    OOM_TRY(check_shares(s));
    for (int i = 0; i < OOM_ROUNDUP_CLASSES; i++) {
        uint64_t divisions = s->roundup_power2_divisions[i];
        if (divisions == 0 || oom_conf_power_of_two(divisions)) continue;
        return out_of_range("roundup_power2_divisions", (double)divisions, "0 or a power of two");
    }
    return OOM_OK;
}
