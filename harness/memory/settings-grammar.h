/*
 * settings-grammar.h: tokens and keys of the settings string, shared by the two readers of it:
 * the strict one (settings-parse.c) and the one that reads as PyTorch does (settings-lenient.c).
 *
 * Tokens point into the string, which must outlive them. Nothing here fails.
 */
#ifndef OOM_HARNESS_MEMORY_SETTINGS_GRAMMAR_H
#define OOM_HARNESS_MEMORY_SETTINGS_GRAMMAR_H

#include "harness/memory/settings.h"

struct oom_conf_token {
    const char *text; /* not terminated */
    int length;       /* 0: the end */
    int column;       /* from 1 */
};

struct oom_conf_reader {
    const char *conf, *at;
    struct oom_conf_token token; /* the one to be looked at next */
    struct oom_conf_token key;   /* whose pair is being read */
};

/* The first token is ready to be looked at. */
struct oom_conf_reader oom_conf_open(const char *conf);
/* White space separates and is dropped; , : [ ] stand alone; everything else is a word. */
void oom_conf_advance(struct oom_conf_reader *reader);
bool oom_conf_is(const struct oom_conf_token *token, const char *text);
bool oom_conf_is_word(const struct oom_conf_token *token);

enum oom_conf_kind {
    OOM_CONF_MEGABYTES,
    OOM_CONF_DECIMAL,
    OOM_CONF_DIVISIONS,
    OOM_CONF_BOOLEAN,
    OOM_CONF_RESERVE,
    OOM_CONF_BACKEND,
    OOM_CONF_NO_EFFECT, /* PyTorch has it; nothing here would change by it */
};

struct oom_conf_key {
    const char *name;
    enum oom_conf_kind kind;
    enum oom_setting setting; /* COUNT: none */
    size_t offset;            /* of the field that a number or a boolean goes to */
    bool newer;               /* came after 2.11 */
    const char *concerns;     /* of NO_EFFECT: what it is about; of others NULL */
};

enum { OOM_CONF_KEYS = 22 };

extern const struct oom_conf_key oom_conf_keys[OOM_CONF_KEYS];

/* The key of that name, -1: there is none. */
int oom_conf_key_find(const struct oom_conf_token *name);
bool oom_conf_key_known(int key, enum oom_profile profile);

/* What a new string sets back although it does not name it (PyTorch keeps the rest); the
 * non-split rounding becomes 0, for "as large_segment_size". */
void oom_conf_reset(struct oom_allocator_settings *settings);

/* Decimal digits alone, at most `max`. */
bool oom_conf_integer(const struct oom_conf_token *token, uint64_t max, uint64_t *out);
/* Digits with at most one point, fewer than 16 of them: the nearest double. */
bool oom_conf_decimal(const struct oom_conf_token *token, double *out);

/* Entry of the divisions' table for a boundary of so many MiB. */
int oom_conf_class(uint64_t megabytes);

static inline bool oom_conf_power_of_two(uint64_t n) {
    return n != 0 && (n & (n - 1)) == 0;
}

#endif
