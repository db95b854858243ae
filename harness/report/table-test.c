#include "harness/report/sample-records.h"

#include "harness/base/text.h"

void table_test(void);

static const char *const variables[] = {"LC_ALL", "COLUMNS"};
static char *saved[2];

static void environment_save(void) {
    for (int i = 0; i < 2; i++)
        saved[i] = getenv(variables[i]) != NULL ? oom_host_strdup(getenv(variables[i])) : NULL;
}

static void environment_restore(void) {
    for (int i = 0; i < 2; i++) {
        if (saved[i] != NULL) {
            setenv(variables[i], saved[i], 1);
        } else {
            unsetenv(variables[i]);
        }
        oom_host_free(saved[i]);
    }
}

static char *table(const char *locale, int columns, int first, int count) {
    const struct oom_report_paths paths = {.format = OOM_FORMAT_TABLE};
    char text[16];
    snprintf(text, sizeof text, "%d", columns);
    setenv("LC_ALL", locale, 1);
    setenv("COLUMNS", text, 1);
    return oom_sample_capture(&paths, first, count);
}

static int widest_line(const char *text) {
    char line[600];
    int widest = 0;
    while (*text != 0) {
        size_t bytes = strcspn(text, "\n");
        snprintf(line, sizeof line, "%.*s", (int)bytes, text);
        int own = strncmp(line, "ok 98", 5) == 0 ? 0 : oom_text_columns(line);
        if (own > widest) widest = own;
        text += bytes + (text[bytes] == '\n');
    }
    return widest;
}

static void at_80(void) {
    TEST("table: at 80 columns");
    char *text = table("C.UTF-8", 80, 0, OOM_SAMPLE_COUNT);
    if (text == NULL) return;
    CHECK(strstr(text, "\nlarge_batch                    OOM fits grads data state\n") != NULL);
    CHECK(strstr(text, "\n  accumulation/gpt/f32/uneven   \xe2\x9c\x93    \xe2\x9c\x93    "
                       "\xe2\x9c\x97     \xe2\x9c\x93    \xe2\x9c\x93   "
                       "64 \xe2\x86\x92 8  187.4/192 MiB\n") != NULL);
    CHECK(strstr(text, "\n    failed: grad_match false\n      grads: it's # SKIP") != NULL);
    CHECK(strstr(text, "\n  caught in halving: retry_without_clearing (grads)\n") != NULL);
    CHECK(strstr(text, "\n  halving/control/sized_from_total  not caught\n") != NULL);
    CHECK(strstr(text, "\n  amp_bf16/mlp/bf16            skipped: absent:") != NULL);
    CHECK(strstr(text, "    error: killed by SIGSEGV\n") != NULL);
    CHECK(strstr(text, "\n  ranks/cnn/f32/batch_norm      \xe2\x9c\x93    \xe2\x9c\x93    "
                       "\xe2\x89\xa0     \xe2\x9c\x93    \xe2\x9c\x93   ") != NULL);
    CHECK(strstr(text, "\n    grads: not equal, as it must be: 0.2 # of ||g||\n") != NULL);
    CHECK(strstr(text, "\n    failed: grad_match true, which mathematics makes false\n"
                       "      grads: equal, though it must not be\n") != NULL);
    CHECK(strstr(text, "\n\xe2\x9c\x93 true   \xe2\x9c\x97 false   \xc2\xb7 not reached\n"
                       "\xe2\x89\xa0 unequal, as it must be\n") != NULL);
    static const char last[] = "\n4 passed, 6 failed, 1 skipped\n";
    CHECK(strlen(text) > sizeof last && strcmp(text + strlen(text) - (sizeof last - 1), last) == 0);
    CHECK(strchr(text, '\033') == NULL); /* no colour in a file, no escape from a reason */
    oom_host_free(text);
}

static void at_any_width(void) {
    TEST("table: no line is wider than the terminal");
    for (int columns = 45; columns <= 130; columns += 5) {
        char *text = table("C.UTF-8", columns, 0, OOM_SAMPLE_COUNT);
        if (text == NULL) return;
        int widest = widest_line(text);
        CHECK_MSG(widest <= columns, "%d columns: %d", columns, widest);
        if (columns == 120)
            CHECK(strstr(text, "64 \xe2\x86\x92 8  peak 187.4 of 192.0 MiB") != NULL);
        oom_host_free(text);
    }
    char *text = table("C.UTF-8", 40, 0, OOM_SAMPLE_COUNT);
    CHECK(text != NULL && strstr(text, "passed") != NULL);
    oom_host_free(text);
}

static void elsewhere(void) {
    TEST("table: ASCII where the locale is not UTF-8");
    char *text = table("C", 80, 0, OOM_SAMPLE_COUNT);
    bool ascii = text != NULL;
    for (const char *at = text; at != NULL && *at != 0; at++)
        ascii = ascii && (unsigned char)*at < 0x80;
    CHECK(ascii);
    CHECK(text != NULL && strstr(text, "64 -> 8") != NULL);
    CHECK(text != NULL && strstr(text, "\n+ true   X false   . not reached\n# unequal, as it "
                                       "must be\n") != NULL);
    oom_host_free(text);
    TEST("table: the legend names what was shown");
    text = table("C", 80, 0, 9);
    CHECK(text != NULL && strstr(text, "\n+ true   X false   . not reached\n\n") != NULL);
    oom_host_free(text);
    TEST("table: a run of skips says so in its last line");
    text = table("C.UTF-8", 80, 5, 1);
    CHECK(text != NULL && strstr(text, "\n0 passed, 0 failed, 1 skipped: every selected case was "
                                       "skipped\n") != NULL);
    CHECK(text != NULL && strstr(text, "not reached") == NULL); /* no marks, no legend */
    oom_host_free(text);
}

void table_test(void) {
    environment_save();
    at_80();
    at_any_width();
    elsewhere();
    environment_restore();
}
