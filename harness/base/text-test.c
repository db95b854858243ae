#include "harness/base/text.h"

#include "kernels/hostmem.h"
#include "kernels/testing.h"

#include <stdlib.h>
#include <string.h>

void text_test(void);

static void utf8(void) {
    TEST("text: UTF-8 by the limits of RFC 3629");
    CHECK_EQ(oom_utf8_length("a", 1), 1);
    CHECK_EQ(oom_utf8_length("\xc2\x80", 2), 2);
    CHECK_EQ(oom_utf8_length("\xe0\xa0\x80", 3), 3);
    CHECK_EQ(oom_utf8_length("\xed\x9f\xbf", 3), 3);
    CHECK_EQ(oom_utf8_length("\xf4\x8f\xbf\xbf", 4), 4);
    static const char *const bad[] = {"\x80",
                                      "\xc1\xbf",
                                      "\xc2",
                                      "\xe0\x9f\xbf",
                                      "\xed\xa0\x80",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xff",
                                      "\xe2\x82"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_MSG(oom_utf8_length(bad[i], strlen(bad[i])) == 0, "sequence %zu was taken", i);
    CHECK_EQ(oom_utf8_length("", 0), 0);
}

static void fit(void) {
    char out[40], small[5];
    TEST("text: cut to columns");
    CHECK_EQ(oom_text_columns("64 \xe2\x86\x92 8"), 6);
    CHECK_STR(oom_text_fit("halving", 7, false, out, sizeof out), "halving");
    CHECK_STR(oom_text_fit("halving", 6, false, out, sizeof out), "halvi\xe2\x80\xa6");
    CHECK_STR(oom_text_fit("halving", 6, true, out, sizeof out), "hal...");
    CHECK_STR(oom_text_fit("halving", 2, true, out, sizeof out), "..");
    CHECK_STR(oom_text_fit("halving", 1, false, out, sizeof out), "\xe2\x80\xa6");
    CHECK_STR(oom_text_fit("halving", 0, false, out, sizeof out), "");
    CHECK_STR(oom_text_fit("a\033[1m\n\xff", 20, false, out, sizeof out), "a?[1m??");
    CHECK_STR(oom_text_fit("\xe2\x86\x92\xe2\x86\x92", 9, false, small, sizeof small),
              "\xe2\x86\x92");
}

static void show(void) {
    static const struct {
        const char *text, *shown;
    } rows[] = {
        {"as it is, \xe2\x86\x92 and \xc2\xa0", "as it is, \xe2\x86\x92 and \xc2\xa0"},
        {"\033[31mred\n\t", "\\x1b[31mred\\x0a\\x09"},
        {"\x7f\xc2\x80\xc2\x9f", "\\x7f\\xc2\\x80\\xc2\\x9f"}, /* DEL, C1 */
        {"a\xff\xe2\x86", "a\\xff\\xe2\\x86"},                 /* not UTF-8, cut */
        {"\\x41", "\\x41"},
        {"", ""},
    };
    char out[64], zero[16], small[6] = "?????";
    TEST("text: what a terminal would obey is shown escaped");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        CHECK_STR(oom_text_show(rows[i].text, strlen(rows[i].text), out, sizeof out),
                  rows[i].shown);
    }
    CHECK_STR(oom_text_show("a\0b", 3, zero, sizeof zero), "a\\x00b");
    CHECK_STR(oom_text_show("ab\033", 3, small, sizeof small), "ab"); /* whole or not at all */
    CHECK_STR(oom_text_show("abcdef", 3, out, sizeof out), "abc");
}

static char *wrapped(const char *text, int at, int indent, int columns) {
    static char out[400];
    FILE *file = fmemopen(out, sizeof out, "w");
    if (file == NULL) return NULL;
    oom_text_wrap(file, text, at, indent, columns);
    fclose(file);
    return out;
}

static void wrap(void) {
    TEST("text: wrapped at words");
    CHECK_STR(wrapped("aa bb cc", 0, 2, 5), "aa bb\n  cc\n");
    CHECK_STR(wrapped("aa bb cc", 3, 0, 5), "aa\nbb cc\n");
    CHECK_STR(wrapped("a\033[m b\nb", 0, 0, 8), "a\\x1b[m\nb\\x0ab\n");
    CHECK_STR(wrapped("", 0, 2, 5), "\n");
    CHECK_STR(wrapped("  toolongword x ", 0, 2, 5), "toolongword\n  x\n");
    CHECK_STR(wrapped("\xe2\x86\x92\xe2\x86\x92 bb", 0, 0, 5), "\xe2\x86\x92\xe2\x86\x92 bb\n");
}

/* Sets a variable for a test; NULL unsets. Returns a copy of the old value. */
static char *swap_variable(const char *name, const char *value) {
    char *old = getenv(name) != NULL ? oom_host_strdup(getenv(name)) : NULL;
    if (value != NULL) {
        setenv(name, value, 1);
    } else {
        unsetenv(name);
    }
    return old;
}

static void environment(void) {
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG", "COLUMNS"};
    char *old[4];
    TEST("text: locale and width from the environment");
    for (int i = 0; i < 4; i++) old[i] = swap_variable(names[i], NULL);
    CHECK(!oom_locale_is_utf8());
    setenv("LANG", "de_DE.UTF-8", 1);
    CHECK(oom_locale_is_utf8());
    setenv("LC_ALL", "C", 1);
    CHECK(!oom_locale_is_utf8());
    setenv("LC_ALL", "", 1);
    setenv("LC_CTYPE", "C.utf8", 1);
    CHECK(oom_locale_is_utf8());
    CHECK_EQ(oom_terminal_columns(-1), 80);
    setenv("COLUMNS", "60", 1);
    CHECK_EQ(oom_terminal_columns(-1), 60);
    setenv("COLUMNS", "3", 1);
    CHECK_EQ(oom_terminal_columns(-1), 40);
    setenv("COLUMNS", "99999999999999999999", 1);
    CHECK_EQ(oom_terminal_columns(-1), 500);
    setenv("COLUMNS", "60x", 1);
    CHECK_EQ(oom_terminal_columns(-1), 80);
    CHECK(!oom_terminal_has_colour(-1));
    for (int i = 0; i < 4; i++) {
        oom_host_free(swap_variable(names[i], old[i]));
        oom_host_free(old[i]);
    }
}

void text_test(void) {
    utf8();
    fit();
    show();
    wrap();
    environment();
}
