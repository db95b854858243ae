/* settings-grammar.c: tokens, numbers and keys of the settings string. */
#include "harness/memory/settings-grammar.h"

#include <string.h>

/* ---- tokens ---- */

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_sign(char c) {
    return c != 0 && strchr(",:[]", c) != NULL;
}

void oom_conf_advance(struct oom_conf_reader *r) {
    while (is_space(*r->at)) r->at++;
    const char *start = r->at;
    if (is_sign(*r->at))
        r->at++;
    else
        while (*r->at != 0 && !is_space(*r->at) && !is_sign(*r->at)) r->at++;
    r->token = (struct oom_conf_token){start, (int)(r->at - start), (int)(start - r->conf) + 1};
}

struct oom_conf_reader oom_conf_open(const char *conf) {
    struct oom_conf_reader r = {.conf = conf, .at = conf};
    oom_conf_advance(&r);
    return r;
}

bool oom_conf_is(const struct oom_conf_token *token, const char *text) {
    return (size_t)token->length == strlen(text) &&
           memcmp(token->text, text, (size_t)token->length) == 0;
}

bool oom_conf_is_word(const struct oom_conf_token *token) {
    return token->length > 0 && !is_sign(*token->text);
}

/* ---- numbers ---- */

bool oom_conf_integer(const struct oom_conf_token *token, uint64_t max, uint64_t *out) {
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

/* An integer below 2^53 over a power of ten below 10^16, both exact, so the quotient is the nearest
 * double. */
bool oom_conf_decimal(const struct oom_conf_token *token, double *out) {
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

int oom_conf_class(uint64_t megabytes) {
    int index = 63 - __builtin_clzll(megabytes);
    return index < OOM_ROUNDUP_CLASSES ? index : OOM_ROUNDUP_CLASSES - 1;
}

/* ---- keys ---- */

#define FIELD(name) offsetof(struct oom_allocator_settings, name)
#define NO_EFFECT(name, newer, concerns) \
    { name, OOM_CONF_NO_EFFECT, OOM_SETTING_COUNT, 0, newer, concerns }

static const char threads[] = "the driver's lock between host threads";
static const char pinned[] = "pinned host memory";

const struct oom_conf_key oom_conf_keys[OOM_CONF_KEYS] = {
    {"large_segment_size_mb", OOM_CONF_MEGABYTES, OOM_SETTING_LARGE_SEGMENT,
     FIELD(large_segment_size), true, NULL},
    {"max_split_size_mb", OOM_CONF_MEGABYTES, OOM_SETTING_MAX_SPLIT, FIELD(max_split_size), false,
     NULL},
    {"max_non_split_rounding_mb", OOM_CONF_MEGABYTES, OOM_SETTING_NON_SPLIT,
     FIELD(max_non_split_rounding), false, NULL},
    {"garbage_collection_threshold", OOM_CONF_DECIMAL, OOM_SETTING_GC,
     FIELD(garbage_collection_threshold), false, NULL},
    {"per_process_memory_fraction", OOM_CONF_DECIMAL, OOM_SETTING_FRACTION,
     FIELD(per_process_memory_fraction), true, NULL},
    {"roundup_power2_divisions", OOM_CONF_DIVISIONS, OOM_SETTING_ROUNDUP, 0, false, NULL},
    {"expandable_segments", OOM_CONF_BOOLEAN, OOM_SETTING_EXPANDABLE, FIELD(expandable_segments),
     false, NULL},
    {"throw_on_cudamalloc_oom", OOM_CONF_BOOLEAN, OOM_SETTING_REJECT,
     FIELD(throw_on_cudamalloc_oom), true, NULL},
    {"expandable_segments_reserve", OOM_CONF_RESERVE, OOM_SETTING_RESERVE, 0, true, NULL},
    {"backend", OOM_CONF_BACKEND, OOM_SETTING_BACKEND, 0, false, NULL},
    NO_EFFECT("expandable_segments_reserve_by_class", true, "classes of streams"),
    NO_EFFECT("graph_capture_record_stream_reuse", false, "the capture of graphs"),
    NO_EFFECT("release_lock_on_cudamalloc", false, threads),
    NO_EFFECT("release_lock_on_hipmalloc", false, threads),
    NO_EFFECT("pinned_use_cuda_host_register", false, pinned),
    NO_EFFECT("pinned_use_hip_host_register", false, pinned),
    NO_EFFECT("pinned_num_register_threads", false, pinned),
    NO_EFFECT("pinned_use_background_threads", false, pinned),
    NO_EFFECT("pinned_reserve_segment_size_mb", true, pinned),
    NO_EFFECT("pinned_max_round_threshold_mb", true, pinned),
    NO_EFFECT("pinned_max_cached_size_mb", true, pinned),
    NO_EFFECT("pinned_free_catch_all", true, pinned),
};

int oom_conf_key_find(const struct oom_conf_token *name) {
    for (int key = 0; key < OOM_CONF_KEYS; key++) {
        if (oom_conf_is(name, oom_conf_keys[key].name)) return key;
    }
    return -1;
}

bool oom_conf_key_known(int key, enum oom_profile profile) {
    return profile != OOM_PROFILE_PYTORCH_2_11 || !oom_conf_keys[key].newer;
}

void oom_conf_reset(struct oom_allocator_settings *settings) {
    settings->max_split_size = UINT64_MAX;
    settings->max_non_split_rounding = 0;
    settings->garbage_collection_threshold = 0;
    memset(settings->roundup_power2_divisions, 0, sizeof settings->roundup_power2_divisions);
    memset(settings->given, 0, sizeof settings->given);
}
