/*
 * json-write.h: writes JSON as it goes, to a file or to memory.
 *
 * The writer owns its memory until finish() hands it over; a FILE stays the caller's. Errors are
 * sticky: write on, and look at what finish() says (OOM_IO, OOM_HOST_NOMEM; OOM_INVALID for a value
 * without a key, a key without a value or brackets that do not match).
 */
#ifndef OOM_HARNESS_BASE_JSON_WRITE_H
#define OOM_HARNESS_BASE_JSON_WRITE_H

#include "kernels/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { OOM_JSON_DEPTH_MAX = 64, OOM_DOUBLE_TEXT = 48 };

enum oom_json_flags {
    OOM_JSON_COMPACT = 0,
    OOM_JSON_PRETTY = 1,   /* two spaces of indent, a newline at the end */
    OOM_JSON_BIG_TEXT = 2, /* integers above 2^53 in size become strings, as readers that keep
                              numbers in doubles would change them */
};

struct oom_json_writer { /* private to json-write.c */
    FILE *file;          /* NULL: memory */
    char *data;
    size_t length, capacity;
    unsigned flags;
    int depth;
    bool has_key;
    struct {
        char closer; /* '}' or ']' */
        bool any;    /* something was written in it */
    } level[OOM_JSON_DEPTH_MAX + 1];
    enum oom_status status;
};

void oom_json_writer_init_file(struct oom_json_writer *writer, FILE *file, unsigned flags);
void oom_json_writer_init_memory(struct oom_json_writer *writer, unsigned flags);
/* The first error, if any. Memory: *out (NUL-terminated, oom_host_free) and *length (may be NULL);
 * file: both are NULL and the file was flushed, not closed. Frees what the writer owned. */
enum oom_status oom_json_writer_finish(struct oom_json_writer *writer, char **out, size_t *length);

void oom_json_object_begin(struct oom_json_writer *writer);
void oom_json_object_end(struct oom_json_writer *writer);
void oom_json_array_begin(struct oom_json_writer *writer);
void oom_json_array_end(struct oom_json_writer *writer);
void oom_json_key(struct oom_json_writer *writer, const char *key);

/* Invalid UTF-8 is replaced by U+FFFD; control bytes are escaped; NULL is null. */
void oom_json_string(struct oom_json_writer *writer, const char *text);
void oom_json_string_n(struct oom_json_writer *writer, const char *text, size_t bytes);
/* The shortest text that reads back as the same double; non-finite is null. */
void oom_json_double(struct oom_json_writer *writer, double value);
void oom_json_int64(struct oom_json_writer *writer, int64_t value);
void oom_json_uint64(struct oom_json_writer *writer, uint64_t value);
void oom_json_bool(struct oom_json_writer *writer, bool value);
void oom_json_null(struct oom_json_writer *writer);
/* A whole value that is JSON already, on one line. */
void oom_json_raw(struct oom_json_writer *writer, const char *text, size_t bytes);

/* Key and value at once, for objects. */
void oom_json_put_string(struct oom_json_writer *writer, const char *key, const char *text);
void oom_json_put_double(struct oom_json_writer *writer, const char *key, double value);
void oom_json_put_int64(struct oom_json_writer *writer, const char *key, int64_t value);
void oom_json_put_uint64(struct oom_json_writer *writer, const char *key, uint64_t value);
void oom_json_put_bool(struct oom_json_writer *writer, const char *key, bool value);

/* The number alone, as oom_json_double writes it; out has room for OOM_DOUBLE_TEXT
 * bytes. Returns out. */
char *oom_double_format(double value, char *out);

#endif
