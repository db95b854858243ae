#include "harness/base/json-write.h"

#include "harness/base/sizes.h"
#include "harness/base/text.h"
#include "kernels/hostmem.h"

#include <errno.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#define BIG_INTEGER (UINT64_C(1) << 53)

static void fail(struct oom_json_writer *writer, enum oom_status status, const char *text) {
    if (writer->status == OOM_OK) writer->status = oom_fail(status, "writing JSON: %s", text);
}

static bool grow(struct oom_json_writer *writer, size_t bytes) {
    size_t needed;
    if (__builtin_add_overflow(writer->length, bytes, &needed)) return false;
    if (needed <= writer->capacity) return true;
    size_t capacity = needed + needed / 2 + 256;
    char *grown = oom_host_realloc(writer->data, capacity);
    if (grown == NULL) return false;
    writer->data = grown;
    writer->capacity = capacity;
    return true;
}

static void emit(struct oom_json_writer *writer, const char *text, size_t bytes) {
    if (writer->status != OOM_OK || bytes == 0) return;
    if (writer->file != NULL) {
        if (fwrite(text, 1, bytes, writer->file) == bytes) return;
        writer->status = oom_fail_native(OOM_IO, errno, "writing JSON: %s", strerror(errno));
    } else if (grow(writer, bytes)) {
        memcpy(writer->data + writer->length, text, bytes);
        writer->length += bytes;
    } else {
        fail(writer, OOM_HOST_NOMEM, "no host memory for the text");
    }
}

static void emit_text(struct oom_json_writer *writer, const char *text) {
    emit(writer, text, strlen(text));
}

static void newline(struct oom_json_writer *writer) {
    if (!(writer->flags & OOM_JSON_PRETTY)) return;
    emit(writer, "\n", 1);
    for (int i = 0; i < writer->depth; i++) emit(writer, "  ", 2);
}

static bool in_object(const struct oom_json_writer *writer) {
    return writer->depth > 0 && writer->level[writer->depth].closer == '}';
}

static void comma(struct oom_json_writer *writer) {
    if (writer->level[writer->depth].any) emit(writer, ",", 1);
    writer->level[writer->depth].any = true;
    if (writer->depth > 0) newline(writer);
}

/* Everything that is a value passes here first. */
static bool value_begin(struct oom_json_writer *writer) {
    if (writer->status != OOM_OK) return false;
    if (in_object(writer)) {
        if (!writer->has_key) fail(writer, OOM_INVALID, "a value without a key in an object");
        writer->has_key = false;
    } else if (writer->depth == 0 && writer->level[0].any) {
        fail(writer, OOM_INVALID, "a second value after the first");
    } else {
        comma(writer);
    }
    return writer->status == OOM_OK;
}

static void open_level(struct oom_json_writer *writer, char opener, char closer) {
    if (!value_begin(writer)) return;
    if (writer->depth == OOM_JSON_DEPTH_MAX) {
        fail(writer, OOM_INVALID, "deeper than 64 levels");
        return;
    }
    emit(writer, &opener, 1);
    writer->depth++;
    writer->level[writer->depth].closer = closer;
    writer->level[writer->depth].any = false;
}

static void close_level(struct oom_json_writer *writer, char closer) {
    if (writer->status != OOM_OK) return;
    if (writer->depth == 0 || writer->level[writer->depth].closer != closer || writer->has_key) {
        fail(writer, OOM_INVALID, "a bracket closed that is not open, or after a key");
        return;
    }
    bool any = writer->level[writer->depth].any;
    writer->depth--;
    if (any) newline(writer);
    emit(writer, &closer, 1);
}

void oom_json_writer_init_file(struct oom_json_writer *writer, FILE *file, unsigned flags) {
    *writer = (struct oom_json_writer){.file = file, .flags = flags};
}

void oom_json_writer_init_memory(struct oom_json_writer *writer, unsigned flags) {
    *writer = (struct oom_json_writer){.flags = flags};
}

enum oom_status oom_json_writer_finish(struct oom_json_writer *writer, char **out, size_t *length) {
    if (out != NULL) *out = NULL;
    if (writer->depth != 0 || !writer->level[0].any)
        fail(writer, OOM_INVALID, "the text is not complete");
    if (writer->flags & OOM_JSON_PRETTY) emit(writer, "\n", 1);
    if (writer->file != NULL && writer->status == OOM_OK && fflush(writer->file) != 0)
        writer->status = oom_fail_native(OOM_IO, errno, "writing JSON: %s", strerror(errno));
    size_t bytes = writer->length;
    if (writer->file == NULL) emit(writer, "", 1); /* the NUL */
    if (writer->status == OOM_OK && out != NULL && writer->file == NULL) {
        *out = writer->data;
        writer->data = NULL;
    }
    if (length != NULL) *length = bytes;
    oom_host_free(writer->data);
    writer->data = NULL;
    writer->length = writer->capacity = 0;
    return writer->status;
}

void oom_json_object_begin(struct oom_json_writer *writer) {
    open_level(writer, '{', '}');
}

void oom_json_object_end(struct oom_json_writer *writer) {
    close_level(writer, '}');
}

void oom_json_array_begin(struct oom_json_writer *writer) {
    open_level(writer, '[', ']');
}

void oom_json_array_end(struct oom_json_writer *writer) {
    close_level(writer, ']');
}

/* How one ASCII byte stands in a string; NULL: as itself. `out` has room for 8. */
static const char *escape(unsigned char c, char *out) {
    switch (c) {
    case '"':
        return "\\\"";
    case '\\':
        return "\\\\";
    case '\n':
        return "\\n";
    case '\r':
        return "\\r";
    case '\t':
        return "\\t";
    default:
        break;
    }
    if (c >= 0x20 && c != 0x7f) return NULL;
    snprintf(out, 8, "\\u%04x", c);
    return out;
}

static void emit_quoted(struct oom_json_writer *writer, const char *text, size_t bytes) {
    char room[8];
    size_t plain = 0; /* bytes before `at` not yet written */
    emit(writer, "\"", 1);
    for (size_t at = 0; at < bytes;) {
        int length = oom_utf8_length(text + at, bytes - at);
        const char *instead = length == 0   ? "\xef\xbf\xbd" /* U+FFFD */
                              : length == 1 ? escape((unsigned char)text[at], room)
                                            : NULL;
        if (instead != NULL) {
            emit(writer, text + plain, at - plain);
            emit_text(writer, instead);
            plain = at + 1;
        }
        at += length > 0 ? (size_t)length : 1;
    }
    emit(writer, text + plain, bytes - plain);
    emit(writer, "\"", 1);
}

void oom_json_key(struct oom_json_writer *writer, const char *key) {
    if (writer->status != OOM_OK) return;
    if (!in_object(writer) || writer->has_key) {
        fail(writer, OOM_INVALID, "a key outside an object, or after a key");
        return;
    }
    comma(writer);
    emit_quoted(writer, key, strlen(key));
    emit_text(writer, writer->flags & OOM_JSON_PRETTY ? ": " : ":");
    writer->has_key = true;
}

void oom_json_string_n(struct oom_json_writer *writer, const char *text, size_t bytes) {
    if (value_begin(writer)) emit_quoted(writer, text, bytes);
}

void oom_json_string(struct oom_json_writer *writer, const char *text) {
    if (text == NULL) {
        oom_json_null(writer);
    } else {
        oom_json_string_n(writer, text, strlen(text));
    }
}

/* %.15g is the shortest wherever 15 digits are enough, except for subnormals, which have fewer. */
char *oom_double_format(double value, char *out) {
    if (fabs(value) < 0x1p53 && value == trunc(value)) {
        snprintf(out, OOM_DOUBLE_TEXT, "%.0f", value);
        return out;
    }
    for (int digits = fabs(value) < DBL_MIN ? 1 : 15; digits <= 17; digits++) {
        snprintf(out, OOM_DOUBLE_TEXT, "%.*g", digits, value);
        for (char *at = out; *at != 0; at++) {
            if (*at == ',') *at = '.'; /* the point of another locale */
        }
        if (oom_double_scan(out, NULL) == value) break;
    }
    return out;
}

void oom_json_double(struct oom_json_writer *writer, double value) {
    char text[OOM_DOUBLE_TEXT];
    if (value_begin(writer))
        emit_text(writer, isfinite(value) ? oom_double_format(value, text) : "null");
}

static void emit_integer(struct oom_json_writer *writer, bool negative, uint64_t size) {
    char text[OOM_DOUBLE_TEXT];
    bool quoted = (writer->flags & OOM_JSON_BIG_TEXT) && size > BIG_INTEGER;
    const char *quote = quoted ? "\"" : "";
    snprintf(text, sizeof text, "%s%s%" PRIu64 "%s", quote, negative ? "-" : "", size, quote);
    if (value_begin(writer)) emit_text(writer, text);
}

void oom_json_int64(struct oom_json_writer *writer, int64_t value) {
    emit_integer(writer, value < 0, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
}

void oom_json_uint64(struct oom_json_writer *writer, uint64_t value) {
    emit_integer(writer, false, value);
}

void oom_json_bool(struct oom_json_writer *writer, bool value) {
    if (value_begin(writer)) emit_text(writer, value ? "true" : "false");
}

void oom_json_null(struct oom_json_writer *writer) {
    if (value_begin(writer)) emit_text(writer, "null");
}

void oom_json_raw(struct oom_json_writer *writer, const char *text, size_t bytes) {
    if (!value_begin(writer)) return;
    while (bytes > 0 && (text[bytes - 1] == '\n' || text[bytes - 1] == ' ')) bytes--;
    if (bytes == 0) fail(writer, OOM_INVALID, "an empty value");
    emit(writer, text, bytes);
}

void oom_json_put_string(struct oom_json_writer *writer, const char *key, const char *text) {
    oom_json_key(writer, key);
    oom_json_string(writer, text);
}

void oom_json_put_double(struct oom_json_writer *writer, const char *key, double value) {
    oom_json_key(writer, key);
    oom_json_double(writer, value);
}

void oom_json_put_int64(struct oom_json_writer *writer, const char *key, int64_t value) {
    oom_json_key(writer, key);
    oom_json_int64(writer, value);
}

void oom_json_put_uint64(struct oom_json_writer *writer, const char *key, uint64_t value) {
    oom_json_key(writer, key);
    oom_json_uint64(writer, value);
}

void oom_json_put_bool(struct oom_json_writer *writer, const char *key, bool value) {
    oom_json_key(writer, key);
    oom_json_bool(writer, value);
}
