/*
 * literal-testing.h: for tests only: a Python literal as a pickle of protocol 2, so that tests show
 * what they feed. Single-quoted texts without escapes, integers that fit 64 bits, floats with a
 * point, None, True, False, lists, tuples of two and dicts; no spaces but after commas and colons.
 * It shares nothing with our writer.
 */
#ifndef OOM_HARNESS_MEMORY_LITERAL_TESTING_H
#define OOM_HARNESS_MEMORY_LITERAL_TESTING_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct literal {
    const char *at;
    uint8_t bytes[1 << 15];
    size_t n;
};

static inline void literal_put(struct literal *l, const void *bytes, size_t n) {
    if (l->n + n > sizeof l->bytes) return;
    memcpy(l->bytes + l->n, bytes, n);
    l->n += n;
}

static inline void literal_value(struct literal *l);

static inline void literal_text(struct literal *l) {
    const char *end = strchr(l->at + 1, '\'');
    uint32_t n = (uint32_t)(end - l->at - 1);
    literal_put(l, "X", 1);
    literal_put(l, &n, 4); /* little-endian, as every machine this is tested on */
    literal_put(l, l->at + 1, n);
    l->at = end + 1;
}

static inline void literal_number(struct literal *l) {
    char *end;
    if (strcspn(l->at, ".") < strspn(l->at, "-0123456789.")) {
        double value = strtod(l->at, &end);
        uint64_t bits;
        memcpy(&bits, &value, 8);
        bits = __builtin_bswap64(bits);
        literal_put(l, "G", 1);
        literal_put(l, &bits, 8);
    } else if (*l->at == '-') {
        int64_t value = strtoll(l->at, &end, 10);
        literal_put(l, "\x8a\x08", 2);
        literal_put(l, &value, 8);
    } else {
        uint64_t value = strtoull(l->at, &end, 10);
        literal_put(l, "\x8a\x09", 2);
        literal_put(l, &value, 8);
        literal_put(l, "", 1);
    }
    l->at = end;
}

static inline void literal_members(struct literal *l, char closer) {
    l->at++;
    while (*l->at != closer) {
        literal_value(l);
        if (*l->at == ',' || *l->at == ':') l->at++;
        while (*l->at == ' ') l->at++;
    }
    l->at++;
}

static inline void literal_value(struct literal *l) {
    static const struct {
        const char *word, *opcode;
    } words[] = {{"None", "N"}, {"True", "\x88"}, {"False", "\x89"}};
    for (size_t i = 0; i < 3; i++) {
        if (strncmp(l->at, words[i].word, strlen(words[i].word)) != 0) continue;
        literal_put(l, words[i].opcode, 1);
        l->at += strlen(words[i].word);
        return;
    }
    switch (*l->at) {
    case '{':
        literal_put(l, "}(", 2);
        literal_members(l, '}');
        literal_put(l, "u", 1);
        break;
    case '[':
        literal_put(l, "](", 2);
        literal_members(l, ']');
        literal_put(l, "e", 1);
        break;
    case '(':
        literal_members(l, ')');
        literal_put(l, "\x86", 1);
        break;
    case '\'':
        literal_text(l);
        break;
    default:
        literal_number(l);
        break;
    }
}

static inline void literal_make(struct literal *l, const char *text) {
    l->at = text;
    l->n = 0;
    literal_put(l, "\x80\x02", 2);
    literal_value(l);
    literal_put(l, ".", 1);
}

#endif
