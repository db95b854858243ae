#include "harness/base/text.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF. */
int oom_utf8_length(const char *text, size_t n) {
    const unsigned char *at = (const unsigned char *)text;
    if (n == 0) return 0;
    if (at[0] < 0x80) return 1;
    int length = at[0] >= 0xf0 ? 4 : at[0] >= 0xe0 ? 3 : 2;
    if (at[0] < 0xc2 || at[0] > 0xf4 || n < (size_t)length) return 0;
    for (int i = 1; i < length; i++) {
        if ((at[i] & 0xc0) != 0x80) return 0;
    }
    if (at[0] == 0xe0 && at[1] < 0xa0) return 0;
    if (at[0] == 0xed && at[1] > 0x9f) return 0;
    if (at[0] == 0xf0 && at[1] < 0x90) return 0;
    if (at[0] == 0xf4 && at[1] > 0x8f) return 0;
    return length;
}

int oom_utf8_put(char *out, int code) {
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const int lead[] = {0, 0xc0, 0xe0, 0xf0};
    out[0] = (char)(lead[more] | code >> (6 * more));
    for (int i = 1; i <= more; i++) out[i] = (char)(0x80 | (code >> (6 * (more - i)) & 0x3f));
    return more + 1;
}

/* What a terminal would obey, or not know: C0, DEL, C1, bytes that are not UTF-8. */
static bool is_unsafe(const char *text, int length) {
    const unsigned char *at = (const unsigned char *)text;
    return length == 0 || at[0] < 0x20 || at[0] == 0x7f || (at[0] == 0xc2 && at[1] < 0xa0);
}

enum { SHOWN_MAX = 8 }; /* of one character: two bytes as \xHH */

/* The next character of text into out, as it may be shown, with its end; *taken: bytes of text. */
static int show_one(const char *text, size_t bytes, char *out, size_t *taken) {
    static const char digits[] = "0123456789abcdef";
    int length = oom_utf8_length(text, bytes), n = 0;
    *taken = length > 0 ? (size_t)length : 1;
    if (!is_unsafe(text, length)) {
        memcpy(out, text, *taken);
        n = length;
    } else {
        for (size_t i = 0; i < *taken; i++) {
            unsigned char c = (unsigned char)text[i];
            out[n++] = '\\';
            out[n++] = 'x';
            out[n++] = digits[c >> 4];
            out[n++] = digits[c & 15];
        }
    }
    out[n] = 0;
    return n;
}

char *oom_text_show(const char *text, size_t bytes, char *out, size_t n) {
    char one[SHOWN_MAX + 1];
    size_t to = 0, taken;
    for (size_t from = 0; from < bytes; from += taken) {
        int length = show_one(text + from, bytes - from, one, &taken);
        if (to + (size_t)length >= n) break;
        memcpy(out + to, one, (size_t)length);
        to += (size_t)length;
    }
    if (n > 0) out[to] = 0;
    return out;
}

/* One character: its bytes and its columns (0 for the combining marks U+0300..U+036F). */
static int character(const char *text, size_t n, int *columns) {
    int length = oom_utf8_length(text, n);
    const unsigned char *at = (const unsigned char *)text;
    bool combining = length == 2 && (at[0] == 0xcc || (at[0] == 0xcd && at[1] <= 0xaf));
    *columns = combining ? 0 : 1;
    return length > 0 ? length : 1;
}

/* Bytes of text that fill at most `columns` columns; *used: how many they do. */
static size_t prefix_bytes(const char *text, size_t n, int columns, int *used) {
    size_t at = 0;
    *used = 0;
    while (at < n) {
        int width;
        int length = character(text + at, n - at, &width);
        if (*used + width > columns) break;
        *used += width;
        at += (size_t)length;
    }
    return at;
}

int oom_text_columns(const char *text) {
    int used;
    prefix_bytes(text, strlen(text), 1 << 30, &used);
    return used;
}

/* Copies whole characters while they fit; control characters become '?'. */
static size_t copy_clean(char *out, size_t n, const char *text, size_t bytes) {
    size_t to = 0, from = 0;
    while (from < bytes) {
        int length = oom_utf8_length(text + from, bytes - from);
        unsigned char c = (unsigned char)text[from];
        bool bad = length == 0 || c < 0x20 || c == 0x7f;
        size_t take = bad ? 1 : (size_t)length;
        if (to + take >= n) break;
        memcpy(out + to, bad ? "?" : text + from, take);
        to += take;
        from += take;
    }
    if (n > 0) out[to] = 0;
    return to;
}

char *oom_text_fit(const char *text, int columns, bool ascii, char *out, size_t n) {
    const char *mark = ascii ? "..." : "\xe2\x80\xa6"; /* U+2026 */
    int mark_columns = ascii ? 3 : 1, used;
    size_t bytes = strlen(text);
    if (prefix_bytes(text, bytes, columns, &used) == bytes) {
        copy_clean(out, n, text, bytes);
        return out;
    }
    size_t kept =
        columns > mark_columns ? prefix_bytes(text, bytes, columns - mark_columns, &used) : 0;
    size_t at = copy_clean(out, n, text, kept);
    copy_clean(out + at, n - at, mark,
               columns >= mark_columns ? strlen(mark)
                                       : (size_t)(ascii && columns > 0 ? columns : 0));
    return out;
}

/* One word; its columns where out is NULL. */
static int put_word(FILE *out, const char *word, size_t bytes) {
    char one[SHOWN_MAX + 1];
    size_t taken;
    int columns = 0;
    for (size_t from = 0; from < bytes; from += taken) {
        int length = show_one(word + from, bytes - from, one, &taken);
        columns += oom_text_columns(one);
        if (out != NULL) fwrite(one, 1, (size_t)length, out);
    }
    return columns;
}

void oom_text_wrap(FILE *out, const char *text, int at, int indent, int columns) {
    bool first = true;
    while (*text != 0) {
        text += strspn(text, " ");
        size_t bytes = strcspn(text, " ");
        if (bytes == 0) break;
        int used = put_word(NULL, text, bytes);
        if (!first && at + 1 + used > columns) {
            fprintf(out, "\n%*s", indent, "");
            at = indent;
        } else if (!first) {
            fputc(' ', out);
            at++;
        }
        at += put_word(out, text, bytes);
        text += bytes;
        first = false;
    }
    fputc('\n', out);
}

static int clamp_columns(int columns) {
    return columns < 40 ? 40 : columns > 500 ? 500 : columns;
}

int oom_terminal_columns(int fd) {
    struct winsize size;
    if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return clamp_columns(size.ws_col);
    const char *text = getenv("COLUMNS");
    char *end;
    long columns = text != NULL ? strtol(text, &end, 10) : 0;
    if (columns > 0 && *end == 0) return clamp_columns(columns > 500 ? 500 : (int)columns);
    return 80;
}

bool oom_locale_is_utf8(void) {
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (int i = 0; i < 3; i++) {
        const char *value = getenv(names[i]);
        if (value == NULL || *value == 0) continue;
        return strcasestr(value, "utf-8") != NULL || strcasestr(value, "utf8") != NULL;
    }
    return false;
}

bool oom_terminal_has_colour(int fd) {
    const char *no_colour = getenv("NO_COLOR"), *term = getenv("TERM");
    if (no_colour != NULL && *no_colour != 0) return false;
    return isatty(fd) && (term == NULL || strcmp(term, "dumb") != 0);
}
