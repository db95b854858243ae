/* settings.c: the string of PYTORCH_CUDA_ALLOC_CONF, read strictly.
 *
 *   string = [ pair { "," pair } ]     pair = key ":" ( word | "[" word ":" word { "," ... } "]" )
 *
 * PyTorch's own reader checks neither separators nor what follows a number, so that a slip changes
 * a setting in silence; here every slip is an error that says what PyTorch would have made of it.
 */
#include "harness/memory/internal.h"

#include "harness/base/nearest.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

static const uint64_t MIB = 1 << 20;

enum { DEFAULT_TRACE = 65536, MAX_MEGABYTES = 1 << 30, MAX_GUARD = 1 << 30 };

struct oom_allocator_settings oom_allocator_settings_default(void) {
    return (struct oom_allocator_settings){.trace_entries = DEFAULT_TRACE,
                                           .max_split_size = OOM_NO_LIMIT,
                                           .max_non_split_rounding = OOM_LARGE_SEGMENT,
                                           .large_segment_size = OOM_LARGE_SEGMENT,
                                           .per_process_memory_fraction = 1.0};
}

/* ---- tokens ---- */

struct token {
    const char *text; /* not terminated */
    int length;       /* 0: the end */
    int column;       /* from 1 */
};

struct reader {
    const char *conf, *at;
    struct token token; /* the one to be looked at next */
    struct token key;   /* whose pair is being read */
};

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_sign(char c) {
    return c != 0 && strchr(",:[]", c) != NULL;
}

static void advance(struct reader *r) {
    while (is_space(*r->at)) r->at++;
    const char *start = r->at;
    if (is_sign(*r->at))
        r->at++;
    else
        while (*r->at != 0 && !is_space(*r->at) && !is_sign(*r->at)) r->at++;
    r->token = (struct token){start, (int)(r->at - start), (int)(start - r->conf) + 1};
}

static bool token_is(const struct token *token, const char *text) {
    return (size_t)token->length == strlen(text) &&
           memcmp(token->text, text, (size_t)token->length) == 0;
}

static bool is_word(const struct token *token) {
    return token->length > 0 && !is_sign(*token->text);
}

/* ---- failures ---- */

static enum oom_status bad(const struct reader *r, const struct token *found, const char *allowed,
                           const char *pytorch) {
    return oom_fail(
        OOM_USAGE,
        "allocator settings, column %d: key '%.*s': found %s%.*s%s, allowed: %s; PyTorch %s",
        found->column, r->key.length < 40 ? r->key.length : 40, r->key.text,
        found->length > 0 ? "'" : "the end", found->length < 40 ? found->length : 40, found->text,
        found->length > 0 ? "'" : "", allowed, pytorch);
}

static const char *const raises = "would raise ValueError, too";
static const char *const not_looked_at =
    "would not look at the separator and take the next word for the value";

static enum oom_status expect(struct reader *r, const char *sign) {
    char allowed[8] = {'\'', *sign, '\'', 0};
    if (!token_is(&r->token, sign)) {
        return bad(r, &r->token, allowed,
                   r->token.length > 0 ? not_looked_at : "would run off the end and raise");
    }
    advance(r);
    return OOM_OK;
}

/* ---- values ---- */

/* Decimal digits alone. */
static bool read_integer(const struct token *token, uint64_t max, uint64_t *out) {
    uint64_t value = 0;
    for (int i = 0; i < token->length; i++) {
        char c = token->text[i];
        if (c < '0' || c > '9') return false;
        value = value * 10 + (uint64_t)(c - '0');
        if (value > max) return false;
    }
    *out = value;
    return token->length > 0;
}

/* Digits with at most one point: an integer below 2^53 over a power of ten below 10^16, both exact,
 * so the quotient is the nearest double. */
static bool read_decimal(const struct token *token, double *out) {
    uint64_t digits = 0, scale = 1;
    bool point = false, any = false;
    for (int i = 0; i < token->length; i++) {
        char c = token->text[i];
        if (c == '.' && !point) {
            point = true;
            continue;
        }
        if (c < '0' || c > '9' || digits >= 100000000000000u || scale >= 1000000000000000u) {
            return false;
        }
        any = true;
        digits = digits * 10 + (uint64_t)(c - '0');
        if (point) scale *= 10;
    }
    *out = (double)digits / (double)scale;
    return any;
}

static bool begins_with_digit(const struct token *token) {
    return token->length > 0 && token->text[0] >= '0' && token->text[0] <= '9';
}

static const char *number_pytorch(const struct token *token) {
    if (begins_with_digit(token)) return "would take the leading digits and ignore the rest";
    if (token->length > 0 && token->text[0] == '-') return "would wrap it to a huge size";
    return raises;
}

static bool is_power_of_two(uint64_t n) {
    return n != 0 && (n & (n - 1)) == 0;
}

/* The words of one pair of the list [B:D,...], where "last" is the index that B of the pair before
 * had, -1 at the first. */
static enum oom_status read_list_pair(struct reader *r, int *last, uint32_t *table) {
    struct token size = r->token;
    uint64_t megabytes = 0, divisions = 0;
    bool rest = token_is(&size, ">");
    if (rest && *last < 0) return bad(r, &size, "a size in MiB before '>'", "would not say so");
    if (!rest && (!read_integer(&size, UINT32_MAX, &megabytes) || !is_power_of_two(megabytes))) {
        return bad(r, &size, "a power of two (MiB), or '>' at the end",
                   begins_with_digit(&size) && !is_power_of_two(megabytes) ? raises
                                                                           : number_pytorch(&size));
    }
    advance(r);
    OOM_TRY(expect(r, ":"));
    if (!read_integer(&r->token, UINT32_MAX / 2 + 1, &divisions) ||
        (divisions != 0 && !is_power_of_two(divisions))) {
        return bad(r, &r->token, "0 or a power of two", raises);
    }
    advance(r);
    if (rest) {
        for (int i = *last + 1; i < OOM_ROUNDUP_CLASSES; i++) table[i] = (uint32_t)divisions;
        if (token_is(&r->token, "]")) return OOM_OK;
        return bad(r, &r->token, "']', as '>' comes last", "would go on");
    }
    int index = 63 - __builtin_clzll(megabytes);
    if (index >= OOM_ROUNDUP_CLASSES) index = OOM_ROUNDUP_CLASSES - 1;
    for (int i = *last < 0 ? 0 : index; i <= index; i++) table[i] = (uint32_t)divisions;
    *last = index;
    return OOM_OK;
}

static enum oom_status read_divisions(struct reader *r, struct oom_allocator_settings *settings) {
    uint32_t table[OOM_ROUNDUP_CLASSES] = {0};
    int last = -1;
    uint64_t divisions;
    if (token_is(&r->token, "[")) {
        do {
            advance(r);
            OOM_TRY(read_list_pair(r, &last, table));
        } while (token_is(&r->token, ","));
        OOM_TRY(expect(r, "]"));
    } else {
        if (!read_integer(&r->token, UINT32_MAX / 2 + 1, &divisions) ||
            !is_power_of_two(divisions)) {
            return bad(r, &r->token, "a power of two, or a list [MiB:divisions,...,>:divisions]",
                       begins_with_digit(&r->token) ? raises : number_pytorch(&r->token));
        }
        for (int i = 0; i < OOM_ROUNDUP_CLASSES; i++) table[i] = (uint32_t)divisions;
        advance(r);
    }
    memcpy(settings->roundup_power2_divisions, table, sizeof table);
    return OOM_OK;
}

static enum oom_status read_megabytes(struct reader *r, uint64_t *out) {
    uint64_t megabytes;
    if (!read_integer(&r->token, MAX_MEGABYTES, &megabytes)) {
        return bad(r, &r->token, "a whole number of MiB, at most 1073741824",
                   number_pytorch(&r->token));
    }
    *out = megabytes * MIB;
    advance(r);
    return OOM_OK;
}

static enum oom_status read_fraction(struct reader *r, double *out) {
    struct token found = r->token;
    bool open = token_is(&r->key, "garbage_collection_threshold");
    const char *allowed =
        open ? "a decimal number above 0 and below 1" : "a decimal number from 0 to 1";
    double value;
    if (!read_decimal(&found, &value)) return bad(r, &found, allowed, number_pytorch(&found));
    if (open ? !(value > 0 && value < 1) : !(value >= 0 && value <= 1)) {
        return bad(r, &found, allowed, raises);
    }
    *out = value;
    advance(r);
    return OOM_OK;
}

static enum oom_status read_only(struct reader *r, const char *supported, const char *other,
                                 const char *allowed) {
    if (token_is(&r->token, other)) {
        return bad(r, &r->token, allowed, "knows this value, which is not supported here yet");
    }
    if (!token_is(&r->token, supported)) return bad(r, &r->token, allowed, raises);
    advance(r);
    return OOM_OK;
}

/* ---- keys ---- */

enum kind { MEGABYTES, FRACTION, DIVISIONS, EXPANDABLE, BACKEND, UNSUPPORTED };

static const struct {
    const char *name;
    enum kind kind;
    size_t offset;
} keys[] = {
    {"large_segment_size_mb", MEGABYTES,
     offsetof(struct oom_allocator_settings, large_segment_size)},
    {"max_split_size_mb", MEGABYTES, offsetof(struct oom_allocator_settings, max_split_size)},
    {"max_non_split_rounding_mb", MEGABYTES,
     offsetof(struct oom_allocator_settings, max_non_split_rounding)},
    {"garbage_collection_threshold", FRACTION,
     offsetof(struct oom_allocator_settings, garbage_collection_threshold)},
    {"per_process_memory_fraction", FRACTION,
     offsetof(struct oom_allocator_settings, per_process_memory_fraction)},
    {"roundup_power2_divisions", DIVISIONS, 0},
    {"expandable_segments", EXPANDABLE, 0},
    {"backend", BACKEND, 0},
    {"release_lock_on_cudamalloc", UNSUPPORTED, 0},
    {"release_lock_on_hipmalloc", UNSUPPORTED, 0},
    {"pinned_use_cuda_host_register", UNSUPPORTED, 0},
    {"pinned_use_hip_host_register", UNSUPPORTED, 0},
    {"pinned_num_register_threads", UNSUPPORTED, 0},
    {"pinned_reserve_segment_size_mb", UNSUPPORTED, 0},
    {"pinned_free_catch_all", UNSUPPORTED, 0},
    {"pinned_use_background_threads", UNSUPPORTED, 0},
    {"pinned_max_round_threshold_mb", UNSUPPORTED, 0},
    {"pinned_max_cached_size_mb", UNSUPPORTED, 0},
    {"graph_capture_record_stream_reuse", UNSUPPORTED, 0},
    {"throw_on_cudamalloc_oom", UNSUPPORTED, 0},
    {"expandable_segments_reserve", UNSUPPORTED, 0},
    {"expandable_segments_reserve_by_class", UNSUPPORTED, 0},
};

enum { KEYS = sizeof keys / sizeof keys[0] };

static enum oom_status unknown_key(const struct reader *r) {
    const char *names[KEYS];
    char word[64], allowed[96];
    for (int i = 0; i < KEYS; i++) names[i] = keys[i].name;
    snprintf(word, sizeof word, "%.*s", r->key.length, r->key.text);
    const char *nearest = oom_nearest_name(word, names, KEYS);
    snprintf(allowed, sizeof allowed, "%s%s",
             nearest != NULL ? "did you mean " : "a key of PyTorch",
             nearest != NULL ? nearest : "");
    return bad(r, &r->key, allowed, "would raise ValueError: Unrecognized key");
}

static enum oom_status read_value(struct reader *r, int key,
                                  struct oom_allocator_settings *settings) {
    void *field = (char *)settings + keys[key].offset;
    switch (keys[key].kind) {
    case MEGABYTES:
        return read_megabytes(r, field);
    case FRACTION:
        return read_fraction(r, field);
    case DIVISIONS:
        return read_divisions(r, settings);
    case EXPANDABLE:
        return read_only(r, "False", "True", "False");
    case BACKEND:
        return read_only(r, "native", "cudaMallocAsync", "native");
    case UNSUPPORTED:
        break;
    }
    return bad(r, &r->key, "other keys", "knows this key, which is not supported here yet");
}

/* `values` keeps where the value of each key stood, length 0 for keys that are absent. */
static enum oom_status read_pair(struct reader *r, struct token values[KEYS],
                                 struct oom_allocator_settings *settings) {
    int key = 0;
    r->key = r->token;
    if (!is_word(&r->token)) return bad(r, &r->token, "a key", raises);
    while (key < KEYS && !token_is(&r->key, keys[key].name)) key++;
    if (key == KEYS) return unknown_key(r);
    if (values[key].length > 0) {
        return bad(r, &r->key, "each key once", "would take the last one");
    }
    advance(r);
    OOM_TRY(expect(r, ":"));
    values[key] = r->token;
    return read_value(r, key, settings);
}

/* Bounds that hang on another key, which may stand further right. */
static enum oom_status check_sizes(struct reader *r, const struct token values[KEYS],
                                   const struct oom_allocator_settings *settings) {
    char allowed[64];
    uint64_t large = settings->large_segment_size / MIB;
    for (int key = 0; key < KEYS; key++) {
        if (keys[key].kind != MEGABYTES || values[key].length == 0) continue;
        uint64_t value = *(const uint64_t *)((const char *)settings + keys[key].offset) / MIB;
        if (key == 0 ? value > 10 : value >= large) continue;
        r->key = (struct token){keys[key].name, (int)strlen(keys[key].name), 0};
        snprintf(allowed, sizeof allowed, key == 0 ? "more than 10" : "at least %llu",
                 (unsigned long long)large);
        return bad(r, &values[key], allowed, raises);
    }
    return OOM_OK;
}

/* What a new string sets back although it does not name it; PyTorch keeps the rest. */
static void reset(struct oom_allocator_settings *settings) {
    settings->max_split_size = OOM_NO_LIMIT;
    settings->garbage_collection_threshold = 0;
    memset(settings->roundup_power2_divisions, 0, sizeof settings->roundup_power2_divisions);
}

enum oom_status oom_allocator_settings_parse(const char *conf,
                                             struct oom_allocator_settings *settings) {
    struct oom_allocator_settings parsed = *settings;
    struct token values[KEYS] = {{0}};
    struct reader r = {.conf = conf, .at = conf};
    if (strlen(conf) >= sizeof parsed.conf) {
        return oom_fail(OOM_USAGE, "allocator settings: %zu characters, allowed are %zu",
                        strlen(conf), sizeof parsed.conf - 1);
    }
    reset(&parsed);
    parsed.max_non_split_rounding = 0; /* as large_segment_size, unless named */
    advance(&r);
    while (r.token.length > 0) {
        OOM_TRY(read_pair(&r, values, &parsed));
        if (r.token.length == 0) break;
        OOM_TRY(expect(&r, ","));
        if (r.token.length == 0) return bad(&r, &r.token, "a key after ','", "would not mind");
    }
    OOM_TRY(check_sizes(&r, values, &parsed));
    if (parsed.max_non_split_rounding == 0) {
        parsed.max_non_split_rounding = parsed.large_segment_size;
    }
    snprintf(parsed.conf, sizeof parsed.conf, "%s", conf);
    *settings = parsed;
    return OOM_OK;
}

/* ---- settings made by hand ---- */

static enum oom_status out_of_range(const char *field, double value, const char *allowed) {
    return oom_fail(OOM_USAGE, "allocator settings: %s is %.17g, allowed: %s", field, value,
                    allowed);
}

enum oom_status oom_allocator_settings_check(const struct oom_allocator_settings *s) {
    double threshold = s->garbage_collection_threshold, fraction = s->per_process_memory_fraction;
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
    if (!(threshold >= 0 && threshold < 1)) {
        return out_of_range("garbage_collection_threshold", threshold, "0 or more, below 1");
    }
    if (!(fraction >= 0 && fraction <= 1)) {
        return out_of_range("per_process_memory_fraction", fraction, "0 to 1");
    }
    for (int i = 0; i < OOM_ROUNDUP_CLASSES; i++) {
        uint64_t divisions = s->roundup_power2_divisions[i];
        if (divisions == 0 || is_power_of_two(divisions)) continue;
        return out_of_range("roundup_power2_divisions", (double)divisions, "0 or a power of two");
    }
    return OOM_OK;
}
