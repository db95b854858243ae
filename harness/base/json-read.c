#include "harness/base/json-read.h"

#include "harness/base/file.h"
#include "harness/base/json-write.h"
#include "harness/base/sizes.h"
#include "harness/base/text.h"
#include "kernels/hostmem.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

enum { CHUNK = 32 << 10, DEFAULT_LIMIT = 64 << 20, ALIGN = 16 };

/* Memory of the tree: chunks that only grow and are freed together. */
struct chunk {
    struct chunk *next;
    size_t used, bytes;
    _Alignas(ALIGN) char data[];
};

struct oom_json_document {
    struct chunk *chunks;
    struct oom_json root;
};

struct reader {
    struct oom_json_document *document;
    const char *source, *text;
    size_t at, end;
    int depth;
};

static enum oom_status refuse(const struct reader *reader, const char *text) {
    return oom_fail(OOM_USAGE, "%.80s: byte %zu: %s", reader->source, reader->at, text);
}

static void *take(struct reader *reader, size_t bytes) {
    struct chunk *chunk = reader->document->chunks;
    bytes = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (chunk == NULL || chunk->bytes - chunk->used < bytes) {
        size_t room = bytes > CHUNK ? bytes : CHUNK;
        chunk = oom_host_alloc(sizeof *chunk + room);
        if (chunk == NULL) {
            oom_fail(OOM_HOST_NOMEM, "%.80s: no host memory for its tree", reader->source);
            return NULL;
        }
        *chunk = (struct chunk){reader->document->chunks, 0, room};
        reader->document->chunks = chunk;
    }
    void *out = chunk->data + chunk->used;
    chunk->used += bytes;
    return out;
}

static int peek(const struct reader *reader) {
    return reader->at < reader->end ? (unsigned char)reader->text[reader->at] : -1;
}

static void skip_space(struct reader *reader) {
    int c;
    while ((c = peek(reader)) == ' ' || c == '\t' || c == '\n' || c == '\r') reader->at++;
}

static bool accept(struct reader *reader, char c) {
    if (peek(reader) != c) return false;
    reader->at++;
    return true;
}

/* ---- strings ---- */

/* Four hexadecimal digits, or -1. */
static int hex4(const struct reader *reader, size_t at) {
    if (reader->end - at < 4) return -1;
    int value = 0;
    for (int i = 0; i < 4; i++) {
        int c = tolower((unsigned char)reader->text[at + (size_t)i]);
        if (!isxdigit(c)) return -1;
        value = value << 4 | (isdigit(c) ? c - '0' : c - 'a' + 10);
    }
    return value;
}

/* \uXXXX or a pair of surrogates; `at` is just after "\u". */
static enum oom_status unicode_escape(struct reader *reader, char *out, size_t *n) {
    int code = hex4(reader, reader->at);
    if (code < 0) return refuse(reader, "\\u needs four hexadecimal digits");
    if (code >= 0xdc00 && code < 0xe000) return refuse(reader, "a lone surrogate");
    reader->at += 4;
    if (code >= 0xd800 && code < 0xdc00) {
        bool pair = reader->end - reader->at >= 6 && reader->text[reader->at] == '\\' &&
                    reader->text[reader->at + 1] == 'u';
        int low = pair ? hex4(reader, reader->at + 2) : -1;
        if (low < 0xdc00 || low >= 0xe000) return refuse(reader, "a lone surrogate");
        reader->at += 6;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    *n += (size_t)oom_utf8_put(out + *n, code);
    return OOM_OK;
}

static enum oom_status escape_read(struct reader *reader, char *out, size_t *n) {
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    int c = peek(reader);
    if (c == 'u') {
        reader->at++;
        return unicode_escape(reader, out, n);
    }
    const char *found = c > 0 ? strchr(letters, c) : NULL;
    if (found == NULL) return refuse(reader, "an unknown escape");
    reader->at++;
    out[(*n)++] = meanings[found - letters];
    return OOM_OK;
}

/* The closing quote's offset bounds the room: no escape is shorter than what it stands for. */
static size_t string_bound(const struct reader *reader) {
    size_t at = reader->at;
    while (at < reader->end && reader->text[at] != '"') at += reader->text[at] == '\\' ? 2 : 1;
    return (at < reader->end ? at : reader->end) - reader->at;
}

static enum oom_status string_read(struct reader *reader, const char **text, size_t *length) {
    if (!accept(reader, '"')) return refuse(reader, "a string was expected");
    char *out = take(reader, string_bound(reader) + 1);
    if (out == NULL) return OOM_HOST_NOMEM;
    size_t n = 0;
    while (!accept(reader, '"')) {
        int c = peek(reader);
        if (c < 0) return refuse(reader, "the text ends within a string");
        if (c < 0x20) return refuse(reader, "a control character within a string");
        if (accept(reader, '\\')) {
            OOM_TRY(escape_read(reader, out, &n));
            continue;
        }
        int bytes = oom_utf8_length(reader->text + reader->at, reader->end - reader->at);
        if (bytes == 0) return refuse(reader, "invalid UTF-8");
        memcpy(out + n, reader->text + reader->at, (size_t)bytes);
        n += (size_t)bytes;
        reader->at += (size_t)bytes;
    }
    out[n] = 0;
    *text = out;
    *length = n;
    return OOM_OK;
}

/* ---- numbers and words ---- */

static bool skip_digits(struct reader *reader) {
    size_t start = reader->at;
    while (isdigit(peek(reader))) reader->at++;
    return reader->at > start;
}

static enum oom_status number_read(struct reader *reader, struct oom_json *node) {
    size_t start = reader->at;
    node->kind = OOM_JSON_NUMBER;
    node->integral = true;
    accept(reader, '-');
    if (!accept(reader, '0') && !skip_digits(reader)) return refuse(reader, "a value was expected");
    if (isdigit(peek(reader))) return refuse(reader, "a number may not begin with 0");
    if (accept(reader, '.')) {
        node->integral = false;
        if (!skip_digits(reader)) return refuse(reader, "a digit was expected after the point");
    }
    if (accept(reader, 'e') || accept(reader, 'E')) {
        node->integral = false;
        if (!accept(reader, '+')) accept(reader, '-');
        if (!skip_digits(reader)) return refuse(reader, "a digit was expected in the exponent");
    }
    size_t bytes = reader->at - start;
    char *copy = take(reader, bytes + 1);
    if (copy == NULL) return OOM_HOST_NOMEM;
    memcpy(copy, reader->text + start, bytes);
    copy[bytes] = 0;
    node->text = copy;
    node->length = bytes;
    node->number = oom_double_scan(copy, NULL);
    return isfinite(node->number) ? OOM_OK : refuse(reader, "a number beyond the range of doubles");
}

static bool word_accept(struct reader *reader, const char *word) {
    size_t bytes = strlen(word);
    if (reader->end - reader->at < bytes) return false;
    if (memcmp(reader->text + reader->at, word, bytes) != 0) return false;
    reader->at += bytes;
    return true;
}

/* ---- duplicate keys: a merge sort of the members by a link of their own needs no memory ---- */

static int key_compare(const struct oom_json *a, const struct oom_json *b) {
    size_t shorter = a->key_length < b->key_length ? a->key_length : b->key_length;
    int order = memcmp(a->key, b->key, shorter);
    return order != 0 ? order : (a->key_length > b->key_length) - (a->key_length < b->key_length);
}

static struct oom_json *merge(struct oom_json *a, struct oom_json *b) {
    struct oom_json *first = NULL, **tail = &first;
    while (a != NULL && b != NULL) {
        struct oom_json **least = key_compare(a, b) <= 0 ? &a : &b;
        *tail = *least;
        tail = &(*least)->sorted;
        *least = (*least)->sorted;
    }
    *tail = a != NULL ? a : b;
    return first;
}

static const struct oom_json *duplicate_find(struct oom_json *object) {
    struct oom_json *runs[48] = {0}; /* runs[i] holds 2^i members or none */
    for (struct oom_json *child = object->child; child != NULL; child = child->next) {
        struct oom_json *run = child;
        child->sorted = NULL;
        int i = 0;
        for (; runs[i] != NULL; i++) {
            run = merge(runs[i], run);
            runs[i] = NULL;
        }
        runs[i] = run;
    }
    struct oom_json *all = NULL;
    for (int i = 0; i < 48; i++) all = merge(runs[i], all);
    for (; all != NULL && all->sorted != NULL; all = all->sorted) {
        if (key_compare(all, all->sorted) == 0) return all;
    }
    return NULL;
}

/* ---- values ---- */

static enum oom_status value_read(struct reader *reader, struct oom_json *node);

static enum oom_status member_read(struct reader *reader, struct oom_json *parent,
                                   struct oom_json **out) {
    struct oom_json *child = take(reader, sizeof *child);
    if (child == NULL) return OOM_HOST_NOMEM;
    *child = (struct oom_json){0};
    skip_space(reader);
    if (parent->kind == OOM_JSON_OBJECT) {
        OOM_TRY(string_read(reader, &child->key, &child->key_length));
        skip_space(reader);
        if (!accept(reader, ':')) return refuse(reader, "':' was expected");
    }
    parent->count++;
    *out = child;
    return value_read(reader, child);
}

static enum oom_status container_read(struct reader *reader, struct oom_json *node) {
    bool object = reader->text[reader->at++] == '{';
    char closer = object ? '}' : ']';
    node->kind = object ? OOM_JSON_OBJECT : OOM_JSON_ARRAY;
    if (++reader->depth > OOM_JSON_DEPTH_MAX) return refuse(reader, "deeper than 64 levels");
    skip_space(reader);
    if (!accept(reader, closer)) {
        struct oom_json **tail = &node->child;
        do {
            OOM_TRY(member_read(reader, node, tail));
            tail = &(*tail)->next;
            skip_space(reader);
        } while (accept(reader, ','));
        if (!accept(reader, closer)) return refuse(reader, "',' or a closing bracket was expected");
    }
    reader->depth--;
    const struct oom_json *duplicate = object ? duplicate_find(node) : NULL;
    if (duplicate == NULL) return OOM_OK;
    char key[128];
    return oom_fail(OOM_USAGE, "%.80s: byte %zu: the key \"%.60s\" stands twice in this object",
                    reader->source, reader->at,
                    oom_text_show(duplicate->key, strlen(duplicate->key), key, sizeof key));
}

static enum oom_status value_read(struct reader *reader, struct oom_json *node) {
    skip_space(reader);
    int c = peek(reader);
    if (c == '{' || c == '[') return container_read(reader, node);
    if (c == '"') {
        node->kind = OOM_JSON_STRING;
        return string_read(reader, &node->text, &node->length);
    }
    if (word_accept(reader, "null")) {
        node->kind = OOM_JSON_NULL;
        return OOM_OK;
    }
    node->kind = OOM_JSON_BOOL;
    node->boolean = c == 't';
    if (word_accept(reader, "true") || word_accept(reader, "false")) return OOM_OK;
    return number_read(reader, node);
}

enum oom_status oom_json_parse(const char *source, const char *text, size_t bytes, size_t limit,
                               struct oom_json_document **out) {
    if (limit == 0) limit = DEFAULT_LIMIT;
    if (bytes > limit)
        return oom_fail(OOM_USAGE, "%.80s: %zu bytes; at most %zu are read", source, bytes, limit);
    struct oom_json_document *document = oom_host_calloc(1, sizeof *document);
    if (document == NULL)
        return oom_fail(OOM_HOST_NOMEM, "%.80s: no host memory for its tree", source);
    struct reader reader = {document, source, text, 0, bytes, 0};
    enum oom_status status = value_read(&reader, &document->root);
    skip_space(&reader);
    if (status == OOM_OK && reader.at != bytes) status = refuse(&reader, "text after the value");
    if (status == OOM_OK) {
        *out = document;
    } else {
        oom_json_document_free(document);
    }
    return status;
}

enum oom_status oom_json_parse_file(const char *path, size_t limit,
                                    struct oom_json_document **out) {
    char *text;
    size_t bytes;
    OOM_TRY(oom_file_read(path, limit == 0 ? DEFAULT_LIMIT : limit, &text, &bytes));
    enum oom_status status = oom_json_parse(path, text, bytes, limit, out);
    oom_host_free(text);
    return status;
}

void oom_json_document_free(struct oom_json_document *document) {
    if (document == NULL) return;
    while (document->chunks != NULL) {
        struct chunk *next = document->chunks->next;
        oom_host_free(document->chunks);
        document->chunks = next;
    }
    oom_host_free(document);
}

const struct oom_json *oom_json_root(const struct oom_json_document *document) {
    return &document->root;
}

/* ---- looking into the tree ---- */

const struct oom_json *oom_json_get(const struct oom_json *node, const char *key) {
    if (node == NULL || node->kind != OOM_JSON_OBJECT) return NULL;
    size_t length = strlen(key);
    for (const struct oom_json *child = node->child; child != NULL; child = child->next) {
        if (child->key_length == length && memcmp(child->key, key, length) == 0) return child;
    }
    return NULL;
}

const struct oom_json *oom_json_at(const struct oom_json *node, int index) {
    if (node == NULL || node->kind != OOM_JSON_ARRAY || index < 0) return NULL;
    const struct oom_json *child = node->child;
    while (child != NULL && index-- > 0) child = child->next;
    return child;
}

bool oom_json_as_text(const struct oom_json *node, const char **out) {
    if (node == NULL || node->kind != OOM_JSON_STRING) return false;
    if (memchr(node->text, 0, node->length) != NULL) return false;
    *out = node->text;
    return true;
}

bool oom_json_as_double(const struct oom_json *node, double *out) {
    if (node == NULL || node->kind != OOM_JSON_NUMBER) return false;
    *out = node->number;
    return true;
}

/* Sign and size of an integer, as a number or as a string of digits. */
static bool integer_read(const struct oom_json *node, bool *negative, uint64_t *size) {
    bool number = node != NULL && node->kind == OOM_JSON_NUMBER && node->integral;
    bool text = node != NULL && node->kind == OOM_JSON_STRING;
    if (!number && !text) return false;
    const char *at = node->text, *end = at + node->length;
    *negative = at < end && *at == '-';
    at += *negative;
    if (at == end) return false;
    for (*size = 0; at < end; at++) {
        if (!isdigit((unsigned char)*at)) return false;
        if (__builtin_mul_overflow(*size, 10, size)) return false;
        if (__builtin_add_overflow(*size, (uint64_t)(*at - '0'), size)) return false;
    }
    return true;
}

bool oom_json_as_int64(const struct oom_json *node, int64_t *out) {
    bool negative;
    uint64_t size;
    if (!integer_read(node, &negative, &size)) return false;
    if (size > (uint64_t)INT64_MAX + negative) return false;
    *out = negative ? (int64_t)(0 - size) : (int64_t)size;
    return true;
}

bool oom_json_as_uint64(const struct oom_json *node, uint64_t *out) {
    bool negative;
    uint64_t size;
    if (!integer_read(node, &negative, &size) || (negative && size != 0)) return false;
    *out = size;
    return true;
}

bool oom_json_as_bool(const struct oom_json *node, bool *out) {
    if (node == NULL || node->kind != OOM_JSON_BOOL) return false;
    *out = node->boolean;
    return true;
}
