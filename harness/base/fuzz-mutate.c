/*
 * fuzz-mutate.c: how input is spoilt. Blind (nothing is measured), so the weight is on changes that
 * keep most of a seed's structure: words for words, numbers at the edges of their types, cuts.
 */
#include "harness/base/fuzz.h"

#include <stdbool.h>
#include <string.h>

enum { CHANGES_MAX = 8, PIECE_MAX = 64 };

struct text {
    uint8_t *bytes;
    size_t n, max;
};

struct piece {
    const uint8_t *bytes;
    size_t n;
};

static size_t below(struct oom_rng *rng, size_t n) {
    return n == 0 ? 0 : oom_rng_below(rng, (uint32_t)n);
}

/* Puts `piece` in the place of `cut` bytes at `at`; what does not fit falls off the end. */
static void replace(struct text *t, size_t at, size_t cut, struct piece piece) {
    if (at > t->n) at = t->n;
    if (cut > t->n - at) cut = t->n - at;
    if (piece.n > t->max - at) piece.n = t->max - at;
    size_t tail = t->n - at - cut;
    if (tail > t->max - at - piece.n) tail = t->max - at - piece.n;
    memmove(t->bytes + at + piece.n, t->bytes + at + cut, tail);
    memcpy(t->bytes + at, piece.bytes, piece.n);
    t->n = at + piece.n + tail;
}

static bool in_word(uint8_t c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           c == '.';
}

/* The word around `at`, or, where there is none, a few bytes. */
static struct piece word_at(const uint8_t *bytes, size_t n, size_t at, struct oom_rng *rng) {
    if (n == 0) return (struct piece){bytes, 0};
    size_t from = at, to = at;
    while (to < n && to - at < PIECE_MAX && in_word(bytes[to])) to++;
    if (to == at) {
        size_t most = n - at < 8 ? n - at : 8;
        return (struct piece){bytes + at, 1 + below(rng, most)};
    }
    while (from > 0 && at - from < PIECE_MAX && in_word(bytes[from - 1])) from--;
    return (struct piece){bytes + from, to - from};
}

static struct piece corpus_piece(const struct oom_fuzz_corpus *corpus, struct oom_rng *rng) {
    const struct oom_fuzz_seed *seed = &corpus->seeds[below(rng, (size_t)corpus->count)];
    return word_at((const uint8_t *)seed->bytes, seed->n, below(rng, seed->n), rng);
}

/* ---- the changes ---- */

typedef void change(struct text *t, const struct oom_fuzz_corpus *corpus, struct oom_rng *rng);

static void flip_bit(struct text *t, const struct oom_fuzz_corpus *corpus, struct oom_rng *rng) {
    (void)corpus;
    if (t->n > 0) t->bytes[below(rng, t->n)] ^= (uint8_t)(1u << below(rng, 8));
}

static void set_byte(struct text *t, const struct oom_fuzz_corpus *corpus, struct oom_rng *rng) {
    (void)corpus;
    if (t->n > 0) t->bytes[below(rng, t->n)] = (uint8_t)oom_rng_next(rng);
}

static void insert_bytes(struct text *t, const struct oom_fuzz_corpus *corpus,
                         struct oom_rng *rng) {
    (void)corpus;
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)oom_rng_next(rng);
    replace(t, below(rng, t->n + 1), 0, (struct piece){bytes, 1 + below(rng, 8)});
}

static void delete_bytes(struct text *t, const struct oom_fuzz_corpus *corpus,
                         struct oom_rng *rng) {
    (void)corpus;
    size_t most = below(rng, 4) == 0 ? t->n : 8;
    replace(t, below(rng, t->n), 1 + below(rng, most), (struct piece){t->bytes, 0});
}

static void insert_word(struct text *t, const struct oom_fuzz_corpus *corpus, struct oom_rng *rng) {
    replace(t, below(rng, t->n + 1), 0, corpus_piece(corpus, rng));
}

static void replace_word(struct text *t, const struct oom_fuzz_corpus *corpus,
                         struct oom_rng *rng) {
    struct piece old = word_at(t->bytes, t->n, below(rng, t->n), rng);
    replace(t, (size_t)(old.bytes - t->bytes), old.n, corpus_piece(corpus, rng));
}

/* The head of this one and the tail of another. */
static void splice(struct text *t, const struct oom_fuzz_corpus *corpus, struct oom_rng *rng) {
    const struct oom_fuzz_seed *seed = &corpus->seeds[below(rng, (size_t)corpus->count)];
    size_t from = below(rng, seed->n + 1);
    replace(t, below(rng, t->n + 1), t->n,
            (struct piece){(const uint8_t *)seed->bytes + from, seed->n - from});
}

static void truncate_text(struct text *t, const struct oom_fuzz_corpus *corpus,
                          struct oom_rng *rng) {
    (void)corpus;
    t->n = below(rng, t->n + 1);
}

/* Where integers end, as text and as bytes. */
static void put_number(struct text *t, const struct oom_fuzz_corpus *corpus, struct oom_rng *rng) {
    static const char *const numbers[] = {"0",
                                          "1",
                                          "-1",
                                          "127",
                                          "128",
                                          "255",
                                          "256",
                                          "32767",
                                          "65535",
                                          "65536",
                                          "2147483647",
                                          "2147483648",
                                          "4294967295",
                                          "4294967296",
                                          "9223372036854775807",
                                          "9223372036854775808",
                                          "18446744073709551615",
                                          "18446744073709551616",
                                          "1e308",
                                          "1e309",
                                          "-0",
                                          "0.5",
                                          "nan",
                                          "0x7fffffff"};
    (void)corpus;
    const char *number = numbers[below(rng, sizeof numbers / sizeof numbers[0])];
    struct piece old = word_at(t->bytes, t->n, below(rng, t->n), rng);
    replace(t, (size_t)(old.bytes - t->bytes), old.n,
            (struct piece){(const uint8_t *)number, strlen(number)});
}

static void put_integer(struct text *t, const struct oom_fuzz_corpus *corpus, struct oom_rng *rng) {
    static const uint64_t values[] = {0,           1,           0x7f,       0x80,
                                      0xff,        0x7fff,      0xffff,     0x7fffffff,
                                      0x80000000u, 0xffffffffu, 0x10000000, INT64_MAX,
                                      UINT64_MAX,  1u << 20,    0xfffe,     (uint64_t)1 << 63};
    (void)corpus;
    uint64_t value = values[below(rng, sizeof values / sizeof values[0])];
    uint8_t bytes[8];
    size_t width = (size_t)1 << below(rng, 4);
    bool big = below(rng, 4) == 0;
    for (size_t i = 0; i < width; i++) {
        bytes[big ? width - 1 - i : i] = (uint8_t)(value >> (8 * i));
    }
    replace(t, below(rng, t->n), width, (struct piece){bytes, width});
}

/* Nesting, and lists longer than anything a seed has: a stretch again and again. */
static void repeat(struct text *t, const struct oom_fuzz_corpus *corpus, struct oom_rng *rng) {
    (void)corpus;
    uint8_t bytes[PIECE_MAX];
    if (t->n == 0) return;
    size_t at = below(rng, t->n), most = t->n - at < PIECE_MAX ? t->n - at : PIECE_MAX;
    struct piece piece = {bytes, 1 + below(rng, most)};
    memcpy(bytes, t->bytes + at, piece.n);
    size_t times = below(rng, 16) == 0 ? below(rng, 2048) : below(rng, 8);
    for (size_t i = 0; i < times && t->n < t->max; i++) replace(t, at, 0, piece);
}

static change *const changes[] = {
    flip_bit, set_byte,   insert_bytes, delete_bytes, insert_word, replace_word, replace_word,
    splice,   put_number, put_number,   put_integer,  repeat,      truncate_text};

size_t oom_fuzz_mutate(const struct oom_fuzz_corpus *corpus, struct oom_rng *rng, uint8_t *out,
                       size_t max) {
    const struct oom_fuzz_seed *seed = &corpus->seeds[below(rng, (size_t)corpus->count)];
    struct text text = {out, seed->n < max ? seed->n : max, max};
    memcpy(out, seed->bytes, text.n);
    size_t count = (size_t)1 << below(rng, 4);
    if (count > CHANGES_MAX) count = CHANGES_MAX;
    for (size_t i = 0; i < count; i++) {
        changes[below(rng, sizeof changes / sizeof changes[0])](&text, corpus, rng);
    }
    return text.n;
}
