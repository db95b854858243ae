#include "harness/base/json-scan.h"

#include "harness/base/sizes.h"
#include "harness/base/text.h"

#include <math.h>
#include <string.h>

enum { DEPTH_MAX = 64, NUMBER_MAX = 320 };

enum oom_status oom_json_scan_refuse(const struct oom_json_scan *scan, const char *text) {
    return oom_fail(OOM_USAGE, "%.80s: byte %zu: %s", scan->name, scan->at, text);
}

static inline bool is_space(char c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static inline bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static inline char here(const struct oom_json_scan *scan) {
    return scan->at < scan->end ? scan->text[scan->at] : 0;
}

static inline char peek(struct oom_json_scan *scan) {
    while (scan->at < scan->end && is_space(scan->text[scan->at])) scan->at++;
    return here(scan);
}

char oom_json_scan_peek(struct oom_json_scan *scan) {
    return peek(scan);
}

static inline bool accept(struct oom_json_scan *scan, char c) {
    if (peek(scan) != c || scan->at == scan->end) return false;
    scan->at++;
    return true;
}

/* ---- brackets ---- */

enum oom_status oom_json_scan_open(struct oom_json_scan *scan, char opener, bool *more) {
    if (!accept(scan, opener))
        return oom_json_scan_refuse(scan, opener == '{' ? "an object is expected"
                                                        : "an array is expected");
    if (++scan->depth > DEPTH_MAX) return oom_json_scan_refuse(scan, "deeper than 64 levels");
    *more = !accept(scan, (char)(opener + 2)); /* ']' and '}' come two after */
    if (!*more) scan->depth--;
    return OOM_OK;
}

enum oom_status oom_json_scan_next(struct oom_json_scan *scan, char opener, bool *more) {
    *more = accept(scan, ',');
    if (*more) return OOM_OK;
    if (!accept(scan, (char)(opener + 2)))
        return oom_json_scan_refuse(scan, "',' or a closing bracket is expected");
    scan->depth--;
    return OOM_OK;
}

/* ---- texts ---- */

static int hex4(struct oom_json_scan *scan) {
    int value = 0;
    for (int i = 0; i < 4; i++) {
        int c = here(scan), digit = c - '0';
        if (digit < 0 || digit > 9) digit = (c | 32) - 'a' + 10;
        if (!is_digit((char)c) && ((c | 32) < 'a' || (c | 32) > 'f')) return -1;
        value = value * 16 + digit;
        scan->at++;
    }
    return value;
}

/* After "\u". Returns the code point, or -1. */
static int code_read(struct oom_json_scan *scan) {
    int code = hex4(scan);
    if (code < 0xd800 || code >= 0xe000) return code;
    if (code >= 0xdc00 || here(scan) != '\\') return -1;
    scan->at++;
    if (here(scan) != 'u') return -1;
    scan->at++;
    int low = hex4(scan);
    if (low < 0xdc00 || low >= 0xe000) return -1;
    return 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
}

/* After the backslash: 1 to 4 bytes into out; 0 when there is no such escape. */
static int escape_read(struct oom_json_scan *scan, char *out) {
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    char c = here(scan);
    if (c == 0) return 0;
    scan->at++;
    if (c == 'u') {
        int code = code_read(scan);
        return code > 0 ? oom_utf8_put(out, code) : 0;
    }
    const char *found = strchr(letters, c);
    if (found == NULL) return 0;
    out[0] = meanings[found - letters];
    return 1;
}

enum oom_status oom_json_scan_text(struct oom_json_scan *scan, char *out, size_t n, size_t *bytes) {
    if (!accept(scan, '"')) return oom_json_scan_refuse(scan, "a text is expected");
    size_t used = 0, length = 0;
    for (;;) {
        if (scan->at == scan->end) return oom_json_scan_refuse(scan, "it ends within a text");
        char c = scan->text[scan->at], made[4];
        const char *from = scan->text + scan->at;
        int width = 1;
        if (c == '"') break;
        if ((unsigned char)c < 0x20)
            return oom_json_scan_refuse(scan, "a control character within a text");
        if (c == '\\') {
            scan->at++;
            from = made;
            width = escape_read(scan, made);
            if (width == 0) return oom_json_scan_refuse(scan, "no such escape, or a NUL");
        } else {
            width = (unsigned char)c < 0x80 ? 1 : oom_utf8_length(from, scan->end - scan->at);
            if (width == 0) return oom_json_scan_refuse(scan, "invalid UTF-8");
            scan->at += (size_t)width;
        }
        if (used == length && used + (size_t)width < n) {
            memcpy(out + used, from, (size_t)width);
            used += (size_t)width;
        }
        length += (size_t)width;
    }
    scan->at++;
    if (n > 0) out[used] = 0;
    if (bytes != NULL) *bytes = length;
    return OOM_OK;
}

enum oom_status oom_json_scan_key(struct oom_json_scan *scan, char *out, size_t n) {
    size_t bytes;
    OOM_TRY(oom_json_scan_text(scan, out, n, &bytes));
    if (bytes >= n) out[0] = 0; /* no name that anybody looks for is that long */
    return accept(scan, ':') ? OOM_OK : oom_json_scan_refuse(scan, "':' is expected");
}

/* ---- numbers and words ---- */

static void digits_skip(struct oom_json_scan *scan) {
    while (is_digit(here(scan))) scan->at++;
}

/* The grammar of RFC 8259, section 6. */
static enum oom_status number_skip(struct oom_json_scan *scan) {
    if (here(scan) == '-') scan->at++;
    if (!is_digit(here(scan))) return oom_json_scan_refuse(scan, "a value is expected");
    bool zero = here(scan) == '0';
    size_t start = scan->at;
    digits_skip(scan);
    if (zero && scan->at > start + 1)
        return oom_json_scan_refuse(scan, "a number may not begin with 0");
    if (here(scan) == '.') {
        scan->at++;
        if (!is_digit(here(scan))) return oom_json_scan_refuse(scan, "a digit is expected");
        digits_skip(scan);
    }
    if ((here(scan) | 32) == 'e') {
        scan->at++;
        if (here(scan) == '+' || here(scan) == '-') scan->at++;
        if (!is_digit(here(scan))) return oom_json_scan_refuse(scan, "a digit is expected");
        digits_skip(scan);
    }
    return OOM_OK;
}

/* Digits, and the quote after them where one stood before. */
static enum oom_status magnitude_read(struct oom_json_scan *scan, bool quoted, uint64_t *out) {
    size_t start = scan->at;
    uint64_t value = 0;
    bool fits = true;
    while (is_digit(here(scan))) {
        unsigned digit = (unsigned)(scan->text[scan->at++] - '0');
        fits = fits &&
               (value < UINT64_MAX / 10 || (value == UINT64_MAX / 10 && digit <= UINT64_MAX % 10));
        value = value * 10 + digit;
    }
    char after = here(scan);
    bool plain = quoted ? after == '"' : after != '.' && (after | 32) != 'e';
    bool leading = scan->at > start + 1 && scan->text[start] == '0';
    if (scan->at == start || !plain || leading || !fits) {
        scan->at = start;
        return oom_json_scan_refuse(scan, "a whole number of at most 64 bits is expected");
    }
    scan->at += quoted;
    *out = value;
    return OOM_OK;
}

enum oom_status oom_json_scan_uint(struct oom_json_scan *scan, uint64_t *out) {
    bool quoted = accept(scan, '"');
    return magnitude_read(scan, quoted, out);
}

enum oom_status oom_json_scan_int(struct oom_json_scan *scan, int64_t *out) {
    bool quoted = accept(scan, '"'), negative = here(scan) == '-';
    uint64_t magnitude;
    scan->at += negative;
    OOM_TRY(magnitude_read(scan, quoted, &magnitude));
    if (magnitude > (uint64_t)INT64_MAX)
        return oom_json_scan_refuse(scan, "a number within 63 bits is expected");
    *out = negative ? -(int64_t)magnitude : (int64_t)magnitude;
    return OOM_OK;
}

enum oom_status oom_json_scan_double(struct oom_json_scan *scan, double *out) {
    char text[NUMBER_MAX];
    peek(scan);
    size_t start = scan->at;
    OOM_TRY(number_skip(scan));
    size_t bytes = scan->at - start;
    if (bytes >= sizeof text) return oom_json_scan_refuse(scan, "a number of too many digits");
    memcpy(text, scan->text + start, bytes);
    text[bytes] = 0;
    *out = oom_double_scan(text, NULL);
    return isfinite(*out) ? OOM_OK : oom_json_scan_refuse(scan, "a number beyond doubles");
}

static bool word_accept(struct oom_json_scan *scan, const char *word) {
    size_t bytes = strlen(word);
    peek(scan);
    if (scan->end - scan->at < bytes || memcmp(scan->text + scan->at, word, bytes) != 0)
        return false;
    scan->at += bytes;
    return true;
}

enum oom_status oom_json_scan_bool(struct oom_json_scan *scan, bool *out) {
    *out = word_accept(scan, "true");
    if (*out || word_accept(scan, "false")) return OOM_OK;
    return oom_json_scan_refuse(scan, "true or false is expected");
}

enum oom_status oom_json_scan_row(struct oom_json_scan *scan, uint64_t *out, int count) {
    bool more;
    OOM_TRY(oom_json_scan_open(scan, '[', &more));
    for (int i = 0; i < count; i++) {
        if (!more) return oom_json_scan_refuse(scan, "a row with too few numbers");
        OOM_TRY(oom_json_scan_uint(scan, &out[i]));
        OOM_TRY(oom_json_scan_next(scan, '[', &more));
    }
    return more ? oom_json_scan_refuse(scan, "a row with too many numbers") : OOM_OK;
}

/* ---- skipping ---- */

static enum oom_status scalar_skip(struct oom_json_scan *scan) {
    char c = peek(scan);
    if (is_digit(c) || c == '-') return number_skip(scan);
    if (c == '"') return oom_json_scan_text(scan, NULL, 0, NULL);
    if (word_accept(scan, "true") || word_accept(scan, "false") || word_accept(scan, "null"))
        return OOM_OK;
    return number_skip(scan);
}

/* Without recursion: the openers above are all there is to remember. */
enum oom_status oom_json_scan_skip(struct oom_json_scan *scan) {
    char openers[DEPTH_MAX + 1] = {0};
    int outside = scan->depth;
    bool more = true;
    for (;;) {
        char c = peek(scan);
        if (c == '{' || c == '[') {
            OOM_TRY(oom_json_scan_open(scan, c, &more));
            if (more) openers[scan->depth] = c;
        } else {
            OOM_TRY(scalar_skip(scan));
            more = false;
        }
        while (!more) {
            if (scan->depth == outside) return OOM_OK;
            OOM_TRY(oom_json_scan_next(scan, openers[scan->depth], &more));
        }
        if (openers[scan->depth] == '{') OOM_TRY(oom_json_scan_key(scan, (char[1]){0}, 1));
    }
}

enum oom_status oom_json_scan_end(struct oom_json_scan *scan) {
    peek(scan);
    return scan->at == scan->end ? OOM_OK : oom_json_scan_refuse(scan, "text after the value");
}
