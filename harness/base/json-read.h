/*
 * json-read.h: reads JSON (RFC 8259), strictly, into a tree.
 *
 * The document owns the tree and every text in it; free it once. Duplicate keys, text after the
 * value, bad UTF-8, lone surrogates, NaN, numbers beyond a double, and what is deeper or larger
 * than the limits is OOM_USAGE with the offset; OOM_HOST_NOMEM when the host has no memory.
 */
#ifndef OOM_HARNESS_BASE_JSON_READ_H
#define OOM_HARNESS_BASE_JSON_READ_H

#include "kernels/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum oom_json_kind {
    OOM_JSON_NULL,
    OOM_JSON_BOOL,
    OOM_JSON_NUMBER,
    OOM_JSON_STRING,
    OOM_JSON_ARRAY,
    OOM_JSON_OBJECT,
};

struct oom_json {
    enum oom_json_kind kind;
    bool boolean;
    bool integral;    /* number: written without fraction or exponent */
    double number;    /* number: nearest double */
    const char *text; /* string: NUL-terminated UTF-8; number: as written */
    size_t length;    /* bytes of text; more than strlen(text) if it holds a NUL */
    const char *key;  /* member of an object: its name */
    size_t key_length;
    int count;               /* array, object: children */
    struct oom_json *child;  /* the first */
    struct oom_json *next;   /* the next sibling */
    struct oom_json *sorted; /* private: while keys are compared */
};

struct oom_json_document;

/* `source` names the text in messages ("results.json"). `bytes` above `limit` is refused; limit 0
 * means 64 MiB. The text need not be NUL-terminated and is not kept. */
enum oom_status oom_json_parse(const char *source, const char *text, size_t bytes, size_t limit,
                               struct oom_json_document **out);
/* The same from a file; OOM_IO when it cannot be read. */
enum oom_status oom_json_parse_file(const char *path, size_t limit, struct oom_json_document **out);
void oom_json_document_free(struct oom_json_document *document); /* NULL is allowed */
const struct oom_json *oom_json_root(const struct oom_json_document *document);

/* NULL where there is none, or `node` is NULL or of another kind; so chains need one check. */
const struct oom_json *oom_json_get(const struct oom_json *node, const char *key);
const struct oom_json *oom_json_at(const struct oom_json *node, int index);

/* The value, of the very kind: false (and *out untouched) if node is NULL or anything else.
 * Integers must be written as such (or as a string of digits: see OOM_JSON_BIG_TEXT). */
bool oom_json_as_text(const struct oom_json *node, const char **out); /* without NUL bytes */
bool oom_json_as_double(const struct oom_json *node, double *out);
bool oom_json_as_int64(const struct oom_json *node, int64_t *out);
bool oom_json_as_uint64(const struct oom_json *node, uint64_t *out);
bool oom_json_as_bool(const struct oom_json *node, bool *out);

#endif
