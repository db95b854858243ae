#include "harness/base/json-scan.h"

#include "harness/base/json-read.h"
#include "harness/base/rng.h"
#include "kernels/testing.h"

#include <string.h>

void json_scan_test(void);

static bool skips(const char *text, size_t n) {
    struct oom_json_scan scan = {.name = "test", .text = text, .end = n};
    oom_failure_clear();
    return oom_json_scan_skip(&scan) == OOM_OK && oom_json_scan_end(&scan) == OOM_OK;
}

static bool parses(const char *text, size_t n) {
    struct oom_json_document *document = NULL;
    oom_failure_clear();
    enum oom_status status = oom_json_parse("test", text, n, 0, &document);
    oom_json_document_free(document);
    return status == OOM_OK;
}

/* Two readers written apart: whatever one takes, the other takes. */
static void agree(void) {
    static const char alphabet[] = "{}[]:,\"\\u0019ae-+.tfn \nrlsb\x01\xc3\xa9\xff";
    static const char *const pieces[] = {
        "true", "false", "null", "{\"a\":", "[1,", "\"\\u00e9\"", "\"\\ud83d\\ude00\"",
        "1e5",  "-0",    "0.5"};
    struct oom_rng rng = {11};
    char text[64];
    int accepted = 0, wrong = 0;
    TEST("json scan: a skip takes and refuses what the tree reader does");
    for (int round = 0; round < 200000; round++) {
        size_t n = 0, want = 1 + oom_rng_below(&rng, 6);
        for (size_t i = 0; i < want; i++) {
            if (oom_rng_below(&rng, 3) == 0) {
                const char *piece = pieces[oom_rng_below(&rng, sizeof pieces / sizeof *pieces)];
                memcpy(text + n, piece, strlen(piece));
                n += strlen(piece);
            } else {
                text[n++] = alphabet[oom_rng_below(&rng, sizeof alphabet - 1)];
            }
        }
        bool one = skips(text, n), other = parses(text, n);
        /* What no double holds, and a NUL, are matters of reading, not of grammar. */
        if (strstr(oom_failure_last()->message, "range of doubles") != NULL) continue;
        accepted += one;
        if (one != other && memmem(text, n, "\\u0000", 6) == NULL && wrong++ == 0)
            CHECK_MSG(false, "skip %d, tree %d: %.*s", one, other, (int)n, text);
    }
    CHECK_EQ(wrong, 0);
    CHECK(accepted > 1000);
}

static void depth(void) {
    char text[140];
    TEST("json scan: 64 levels, and no more");
    for (int levels = 64; levels <= 65; levels++) {
        memset(text, '[', (size_t)levels);
        memset(text + levels, ']', (size_t)levels);
        CHECK_EQ(skips(text, 2 * (size_t)levels), levels == 64);
    }
}

static struct oom_json_scan over(const char *text) {
    oom_failure_clear();
    return (struct oom_json_scan){.name = "test", .text = text, .end = strlen(text)};
}

static void numbers(void) {
    static const struct {
        const char *text;
        bool good;
        uint64_t value;
    } cases[] = {{"0", true, 0},
                 {" 18446744073709551615", true, UINT64_MAX},
                 {"\"18446744073709551615\"", true, UINT64_MAX},
                 {"18446744073709551616", false, 0},
                 {"99999999999999999999999", false, 0},
                 {"-1", false, 0},
                 {"01", false, 0},
                 {"1.5", false, 0},
                 {"1e3", false, 0},
                 {"\"\"", false, 0},
                 {"\"5", false, 0},
                 {"", false, 0}};
    TEST("json scan: whole numbers to the last bit");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct oom_json_scan scan = over(cases[i].text);
        uint64_t value = 0;
        CHECK_EQ(oom_json_scan_uint(&scan, &value) == OOM_OK, cases[i].good);
        CHECK(!cases[i].good || value == cases[i].value);
    }
    static const char *const bad[] = {"-\"5\"", "\"-\"5\"", "9223372036854775808", "--1", "-"};
    int64_t value;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct oom_json_scan scan = over(bad[i]);
        CHECK_EQ(oom_json_scan_int(&scan, &value), OOM_USAGE);
    }
    struct oom_json_scan scan = over("-9223372036854775807");
    CHECK_OK(oom_json_scan_int(&scan, &value));
    CHECK_EQ(value, -INT64_MAX);
    scan = over("\"-5\"");
    CHECK_OK(oom_json_scan_int(&scan, &value));
    CHECK_EQ(value, -5);
}

static void texts(void) {
    char out[8];
    size_t bytes;
    TEST("json scan: texts are cut at whole characters");
    struct oom_json_scan scan = over("\"abcdef\xc3\xa9xyz\"");
    CHECK_OK(oom_json_scan_text(&scan, out, sizeof out, &bytes));
    CHECK_STR(out, "abcdef");
    CHECK_EQ(bytes, 11);
    scan = over("\"\\ud83d\\ude00\\n\"");
    CHECK_OK(oom_json_scan_text(&scan, out, sizeof out, &bytes));
    CHECK_STR(out, "\xf0\x9f\x98\x80\n");
    scan = over("\"a\\u0000b\"");
    CHECK_EQ(oom_json_scan_text(&scan, out, sizeof out, &bytes), OOM_USAGE);
    static const char *const bad[] = {
        "\"\\ud83d\\ue000\"", "\"\\ud83d\\ud83d\"", "\"\\udc00\"", "\"\\ud83d\"", "\"\\x\"",
        "\"\\u12g4\""};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        scan = over(bad[i]);
        CHECK_EQ(oom_json_scan_text(&scan, out, sizeof out, &bytes), OOM_USAGE);
    }
    uint64_t row[3];
    scan = over("[1, 2 ,3]");
    CHECK_OK(oom_json_scan_row(&scan, row, 3));
    CHECK(row[0] == 1 && row[1] == 2 && row[2] == 3);
    scan = over("[1,2]");
    CHECK_EQ(oom_json_scan_row(&scan, row, 3), OOM_USAGE);
    scan = over("[1,2,3,4]");
    CHECK_EQ(oom_json_scan_row(&scan, row, 3), OOM_USAGE);
}

void json_scan_test(void) {
    agree();
    depth();
    numbers();
    texts();
    oom_failure_clear();
}
