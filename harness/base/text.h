/*
 * text.h: text laid out for a terminal: columns, cuts, wrapped lines.
 *
 * Owns nothing. Text is UTF-8; every code point but combining marks counts as one column. Nothing
 * fails: bytes that are not UTF-8 count one column each.
 */
#ifndef OOM_HARNESS_BASE_TEXT_H
#define OOM_HARNESS_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* The length in bytes of the UTF-8 sequence at text (1..4), 0 if it is not valid or n is 0. */
int oom_utf8_length(const char *text, size_t n);
/* The sequence of a code point below 0x110000 into out, which has room for 4 bytes; its length. */
int oom_utf8_put(char *out, int code);

/* The first `bytes` of the text, which nobody vouches for (it stood in a file, or was given), as a
 * terminal may have it: control characters (C0, DEL, C1) and bytes that are not UTF-8 become \xHH,
 * each byte of them. What does not fit into n bytes is left out. Returns out. */
char *oom_text_show(const char *text, size_t bytes, char *out, size_t n);

int oom_text_columns(const char *text);

/* At most `columns` columns of the text into out (n bytes): cut text ends with "…", or "..." where
 * ascii. Control characters become '?'. Returns out. */
char *oom_text_fit(const char *text, int columns, bool ascii, char *out, size_t n);

/* Prints words of text, as oom_text_show would have them, broken at spaces so that no line passes
 * `columns`, each line after the first begun with `indent` spaces; `at` is the column where the
 * first line starts. Ends with a newline. */
void oom_text_wrap(FILE *out, const char *text, int at, int indent, int columns);

/* Of a terminal, by TIOCGWINSZ, else COLUMNS, else 80; between 40 and 500. */
int oom_terminal_columns(int fd);
/* LC_ALL, LC_CTYPE or LANG (the first that is set and not empty) names UTF-8. */
bool oom_locale_is_utf8(void);
/* fd is a terminal, TERM is not "dumb" and NO_COLOR is not set (or empty). */
bool oom_terminal_has_colour(int fd);

#endif
