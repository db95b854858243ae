/* settings-parse.c: the string of PYTORCH_CUDA_ALLOC_CONF, read strictly.
 *
 *   string = [ pair { "," pair } ]     pair = key ":" ( word | "[" word ":" word { "," ... } "]" )
 *
 * PyTorch's own reader checks neither separators nor what follows a number, so that a slip changes
 * a setting in silence; here every slip is an error that says what PyTorch would have made of it.
 */
#include "harness/memory/settings-grammar.h"

#include "harness/base/nearest.h"
#include "harness/base/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t MIB = 1 << 20;

enum { MAX_MEGABYTES = 1 << 30 };

/* ---- failures ---- */

enum { SHOWN = 40 };

static size_t shown(int length) {
    return (size_t)(length < SHOWN ? length : SHOWN);
}

static enum oom_status bad(const struct oom_conf_reader *r, const struct oom_conf_token *found,
                           const char *allowed, const char *pytorch) {
    char key[4 * SHOWN + 1], text[4 * SHOWN + 1];
    oom_text_show(r->key.text, shown(r->key.length), key, sizeof key);
    oom_text_show(found->text, shown(found->length), text, sizeof text);
    return oom_fail(
        OOM_USAGE, "allocator settings, column %d: key '%s': found %s%s%s, allowed: %s; PyTorch %s",
        found->column, key, found->length > 0 ? "'" : "the end", text, found->length > 0 ? "'" : "",
        allowed, pytorch);
}

static const char *const raises = "would raise ValueError, too";
static const char *const not_looked_at =
    "would not look at the separator and take the next word for the value";

static enum oom_status expect(struct oom_conf_reader *r, const char *sign) {
    char allowed[8] = {'\'', *sign, '\'', 0};
    if (!oom_conf_is(&r->token, sign)) {
        return bad(r, &r->token, allowed,
                   r->token.length > 0 ? not_looked_at : "would run off the end and raise");
    }
    oom_conf_advance(r);
    return OOM_OK;
}

/* ---- numbers ---- */

static bool begins_with_digit(const struct oom_conf_token *token) {
    return token->length > 0 && token->text[0] >= '0' && token->text[0] <= '9';
}

static const char *number_pytorch(const struct oom_conf_token *token) {
    if (begins_with_digit(token)) return "would take the leading digits and ignore the rest";
    if (token->length > 0 && token->text[0] == '-') return "would wrap it to a huge size";
    return raises;
}

/* The words of one pair of the list [B:D,...], where "last" is the index that B of the pair before
 * had, -1 at the first. */
static enum oom_status read_list_pair(struct oom_conf_reader *r, int *last, uint32_t *table) {
    struct oom_conf_token size = r->token;
    uint64_t megabytes = 0, divisions = 0;
    bool rest = oom_conf_is(&size, ">");
    if (rest && *last < 0) return bad(r, &size, "a size in MiB before '>'", "would not say so");
    if (!rest &&
        (!oom_conf_integer(&size, UINT32_MAX, &megabytes) || !oom_conf_power_of_two(megabytes))) {
        return bad(r, &size, "a power of two (MiB), or '>' at the end",
                   begins_with_digit(&size) && !oom_conf_power_of_two(megabytes)
                       ? raises
                       : number_pytorch(&size));
    }
    oom_conf_advance(r);
    OOM_TRY(expect(r, ":"));
    if (!oom_conf_integer(&r->token, UINT32_MAX / 2 + 1, &divisions) ||
        (divisions != 0 && !oom_conf_power_of_two(divisions))) {
        return bad(r, &r->token, "0 or a power of two", raises);
    }
    oom_conf_advance(r);
    if (rest) {
        for (int i = *last + 1; i < OOM_ROUNDUP_CLASSES; i++) table[i] = (uint32_t)divisions;
        if (oom_conf_is(&r->token, "]")) return OOM_OK;
        return bad(r, &r->token, "']', as '>' comes last", "would go on");
    }
    int index = oom_conf_class(megabytes);
    for (int i = *last < 0 ? 0 : index; i <= index; i++) table[i] = (uint32_t)divisions;
    *last = index;
    return OOM_OK;
}

static enum oom_status read_divisions(struct oom_conf_reader *r,
                                      struct oom_allocator_settings *settings) {
    uint32_t table[OOM_ROUNDUP_CLASSES] = {0};
    int last = -1;
    uint64_t divisions;
    if (oom_conf_is(&r->token, "[")) {
        do {
            oom_conf_advance(r);
            OOM_TRY(read_list_pair(r, &last, table));
        } while (oom_conf_is(&r->token, ","));
        OOM_TRY(expect(r, "]"));
    } else {
        if (!oom_conf_integer(&r->token, UINT32_MAX / 2 + 1, &divisions) ||
            !oom_conf_power_of_two(divisions)) {
            return bad(r, &r->token, "a power of two, or a list [MiB:divisions,...,>:divisions]",
                       begins_with_digit(&r->token) ? raises : number_pytorch(&r->token));
        }
        for (int i = 0; i < OOM_ROUNDUP_CLASSES; i++) table[i] = (uint32_t)divisions;
        oom_conf_advance(r);
    }
    memcpy(settings->roundup_power2_divisions, table, sizeof table);
    return OOM_OK;
}

static enum oom_status read_megabytes(struct oom_conf_reader *r, uint64_t *out) {
    uint64_t megabytes;
    if (!oom_conf_integer(&r->token, MAX_MEGABYTES, &megabytes)) {
        return bad(r, &r->token, "a whole number of MiB, at most 1073741824",
                   number_pytorch(&r->token));
    }
    *out = megabytes * MIB;
    oom_conf_advance(r);
    return OOM_OK;
}

static enum oom_status read_share(struct oom_conf_reader *r, bool open, double *out) {
    struct oom_conf_token found = r->token;
    const char *allowed =
        open ? "a decimal number above 0 and below 1" : "a decimal number from 0 to 1";
    double value;
    if (!oom_conf_decimal(&found, &value)) return bad(r, &found, allowed, number_pytorch(&found));
    if (open ? !(value > 0 && value < 1) : !(value >= 0 && value <= 1)) {
        return bad(r, &found, allowed, raises);
    }
    *out = value;
    oom_conf_advance(r);
    return OOM_OK;
}

/* ---- words ---- */

static enum oom_status read_boolean(struct oom_conf_reader *r, bool *out) {
    bool yes = oom_conf_is(&r->token, "True");
    if (!yes && !oom_conf_is(&r->token, "False")) {
        return bad(r, &r->token, "True or False", raises);
    }
    *out = yes;
    oom_conf_advance(r);
    return OOM_OK;
}

static enum oom_status read_backend(struct oom_conf_reader *r,
                                    struct oom_allocator_settings *settings) {
    for (int i = 0; i < OOM_BACKEND_COUNT; i++) {
        if (!oom_conf_is(&r->token, oom_backend_name((enum oom_backend)i))) continue;
        settings->backend = (enum oom_backend)i;
        oom_conf_advance(r);
        return OOM_OK;
    }
    bool async = oom_conf_is(&r->token, "cudaMallocAsync");
    return bad(r, &r->token,
               async ? "native or direct (cudaMallocAsync is the driver's own, on CUDA only)"
                     : "native or direct",
               async ? "would take the driver's pools" : raises);
}

/* What PyTorch makes of a reserve that is refused here: it takes whatever strtod takes. */
static const char *reserve_pytorch(const struct oom_conf_token *found) {
    char text[64], *end;
    snprintf(text, sizeof text, "%.*s", found->length, found->text);
    double value = strtod(text, &end);
    if (*end == 'G' && end > text) end++;
    return end > text && *end == 0 && value > 0 && isfinite(value) ? "would take it"
                                                                   : "would warn and ignore it";
}

static enum oom_status read_reserve(struct oom_conf_reader *r,
                                    struct oom_allocator_settings *settings) {
    static const double gibibyte = 1 << 30, most = 1 << 30;
    struct oom_conf_token number = r->token;
    double value = 0;
    bool gigabytes = number.length > 1 && number.text[number.length - 1] == 'G';
    if (gigabytes) number.length--;
    if (!oom_conf_decimal(&number, &value) || !(value > 0 && value <= most) ||
        (gigabytes && value * gibibyte < 1)) {
        return bad(r, &r->token,
                   "a share of the device such as 0.5, or GiB such as 2G; above 0, at most 2^30",
                   reserve_pytorch(&r->token));
    }
    settings->expandable_reserve_fraction = gigabytes ? 0 : value;
    settings->expandable_reserve_bytes = gigabytes ? (uint64_t)(value * gibibyte) : 0;
    oom_conf_advance(r);
    return OOM_OK;
}

/* ---- keys ---- */

static enum oom_status unknown_key(const struct oom_conf_reader *r,
                                   const struct oom_allocator_settings *settings) {
    static const char *const pytorch = "would raise ValueError: Unrecognized key";
    const char *names[OOM_CONF_KEYS];
    char word[64], allowed[96];
    int key = oom_conf_key_find(&r->key);
    if (key >= 0) {
        snprintf(allowed, sizeof allowed, "a key of %s (this one came later)",
                 oom_profile_name(settings->profile));
        return bad(r, &r->key, allowed, pytorch);
    }
    for (int i = 0; i < OOM_CONF_KEYS; i++) {
        bool offered =
            oom_conf_keys[i].kind != OOM_CONF_NO_EFFECT && oom_conf_key_known(i, settings->profile);
        names[i] = offered ? oom_conf_keys[i].name : NULL;
    }
    snprintf(word, sizeof word, "%.*s", r->key.length, r->key.text);
    const char *nearest = oom_nearest_name(word, names, OOM_CONF_KEYS);
    snprintf(allowed, sizeof allowed, "%s%s",
             nearest != NULL ? "did you mean " : "a key of PyTorch",
             nearest != NULL ? nearest : "");
    return bad(r, &r->key, allowed, pytorch);
}

static enum oom_status no_effect(const struct oom_conf_reader *r, const char *concerns) {
    char allowed[128];
    snprintf(allowed, sizeof allowed,
             "other keys (this one is about %s and would have no effect here)", concerns);
    return bad(r, &r->key, allowed, "knows it");
}

static enum oom_status read_value(struct oom_conf_reader *r, int key,
                                  struct oom_allocator_settings *settings) {
    void *field = (char *)settings + oom_conf_keys[key].offset;
    switch (oom_conf_keys[key].kind) {
    case OOM_CONF_MEGABYTES:
        return read_megabytes(r, field);
    case OOM_CONF_DECIMAL:
        return read_share(r, oom_conf_keys[key].setting == OOM_SETTING_GC, field);
    case OOM_CONF_DIVISIONS:
        return read_divisions(r, settings);
    case OOM_CONF_BOOLEAN:
        return read_boolean(r, field);
    case OOM_CONF_RESERVE:
        return read_reserve(r, settings);
    case OOM_CONF_BACKEND:
        return read_backend(r, settings);
    case OOM_CONF_NO_EFFECT:
        break;
    }
    return no_effect(r, oom_conf_keys[key].concerns);
}

/* `values` keeps where the value of each key stood, length 0 for keys that are absent. */
static enum oom_status read_pair(struct oom_conf_reader *r,
                                 struct oom_conf_token values[OOM_CONF_KEYS],
                                 struct oom_allocator_settings *settings) {
    r->key = r->token;
    if (!oom_conf_is_word(&r->token)) return bad(r, &r->token, "a key", raises);
    int key = oom_conf_key_find(&r->key);
    if (key < 0 || !oom_conf_key_known(key, settings->profile)) return unknown_key(r, settings);
    if (oom_conf_keys[key].kind == OOM_CONF_NO_EFFECT) {
        return no_effect(r, oom_conf_keys[key].concerns);
    }
    if (values[key].length > 0) {
        return bad(r, &r->key, "each key once", "would take the last one");
    }
    oom_conf_advance(r);
    OOM_TRY(expect(r, ":"));
    values[key] = r->token;
    OOM_TRY(read_value(r, key, settings));
    settings->given[oom_conf_keys[key].setting] = true;
    return OOM_OK;
}

/* Bounds that hang on another key, which may stand further right. */
static enum oom_status check_sizes(struct oom_conf_reader *r,
                                   const struct oom_conf_token values[OOM_CONF_KEYS],
                                   const struct oom_allocator_settings *settings) {
    char allowed[64];
    uint64_t large = settings->large_segment_size / MIB;
    for (int key = 0; key < OOM_CONF_KEYS; key++) {
        const struct oom_conf_key *k = &oom_conf_keys[key];
        if (k->kind != OOM_CONF_MEGABYTES || values[key].length == 0) continue;
        uint64_t value = *(const uint64_t *)((const char *)settings + k->offset) / MIB;
        bool own = k->setting == OOM_SETTING_LARGE_SEGMENT;
        if (own ? value > 10 : value >= large) continue;
        r->key = (struct oom_conf_token){k->name, (int)strlen(k->name), 0};
        snprintf(allowed, sizeof allowed, own ? "more than 10" : "at least %llu",
                 (unsigned long long)large);
        return bad(r, &values[key], allowed, raises);
    }
    return OOM_OK;
}

enum oom_status oom_allocator_settings_parse(const char *conf,
                                             struct oom_allocator_settings *settings) {
    struct oom_allocator_settings parsed = *settings;
    struct oom_conf_token values[OOM_CONF_KEYS] = {{0}};
    if (strlen(conf) >= sizeof parsed.conf) {
        return oom_fail(OOM_USAGE, "allocator settings: %zu characters, allowed are %zu",
                        strlen(conf), sizeof parsed.conf - 1);
    }
    struct oom_conf_reader r = oom_conf_open(conf);
    oom_conf_reset(&parsed);
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
    memset(parsed.conf, 0, sizeof parsed.conf);
    memcpy(parsed.conf, conf, strlen(conf));
    *settings = parsed;
    return OOM_OK;
}
