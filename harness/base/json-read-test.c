#include "harness/base/json-read.h"

#include "harness/base/json-write.h"
#include "harness/base/rng.h"
#include "kernels/hostmem.h"
#include "kernels/testing.h"

#include <string.h>

void json_read_test(void);

static enum oom_status parse(const char *text, size_t bytes) {
    struct oom_json_document *document = NULL;
    oom_failure_clear();
    enum oom_status status = oom_json_parse("test", text, bytes, 0, &document);
    if (status == OOM_OK) oom_json_document_free(document);
    return status;
}

static void accepted_and_refused(void) {
    static const char *const good[] = {
        "{}",
        "[]",
        " [1 , 2]\n",
        "\"\"",
        "0",
        "-0",
        "-1.5e+10",
        "1E5",
        "true",
        "false",
        "null",
        "{\"a\":1,\"b\":{\"a\":2}}",
        "\"\\u00e9\\ud83d\\ude00\\u0000\\/\"",
        "[[[]]]",
        "1e-999",
        "{\"\":0}",
        "\"\xf0\x9f\x98\x80\"",
        "\"\x7f\"",
    };
    static const char *const bad[] = {
        "",
        " ",
        "{",
        "}",
        "[",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "01",
        "-",
        "+1",
        "1.",
        ".5",
        "1e",
        "1e+",
        "0x1",
        "NaN",
        "Infinity",
        "-Infinity",
        "nan",
        "tru",
        "True",
        "\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\u0041\"",
        "\"\\ud800\\ud800\"",
        "\"a\nb\"",
        "\"a\tb\"",
        "\"\xff\"",
        "\"\xc0\xaf\"",
        "\"\xed\xa0\x80\"",
        "{} {}",
        "[] x",
        "1 2",
        "1e999",
        "-1e999",
        "{\"a\":1,\"a\":2}",
        "{\"a\":1,\"\\u0061\":2}",
        "// c\n1",
        "[1]]",
        "\xef\xbb\xbf{}",
        "\"\\",
    };
    TEST("json: texts that are JSON");
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        CHECK_MSG(parse(good[i], strlen(good[i])) == OOM_OK, "refused: %s (%s)", good[i],
                  oom_failure_last()->message);
    TEST("json: texts that are not");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_MSG(parse(bad[i], strlen(bad[i])) == OOM_USAGE, "taken: %s", bad[i]);
        CHECK_MSG(strstr(oom_failure_last()->message, "test: byte ") != NULL, "%s",
                  oom_failure_last()->message);
    }
    CHECK_EQ(parse("1\0", 2), OOM_USAGE);
    CHECK_EQ(parse("\"\0\"", 3), OOM_USAGE);
    CHECK_EQ(parse("[1]", 2), OOM_USAGE); /* the bytes told are all that is read */
    TEST("json: keys of which a terminal would obey a part are shown escaped");
    CHECK_EQ(parse("{\"\x7f\":1,\"\x7f\":2}", 13), OOM_USAGE);
    CHECK(strstr(oom_failure_last()->message, "the key \"\\x7f\" stands twice") != NULL);
    TEST("json: the offset of the error");
    CHECK_EQ(parse("[1, x]", 6), OOM_USAGE);
    CHECK(strstr(oom_failure_last()->message, "byte 4:") != NULL);
    oom_failure_clear();
}

static void limits(void) {
    char deep[140];
    TEST("json: depth 64 is read, 65 is not");
    memset(deep, '[', 65);
    memset(deep + 65, ']', 65);
    CHECK_EQ(parse(deep + 1, 128), OOM_OK);
    CHECK_EQ(parse(deep, 130), OOM_USAGE);
    TEST("json: more bytes than the limit");
    struct oom_json_document *document;
    CHECK_EQ(oom_json_parse("test", "[1]", 3, 2, &document), OOM_USAGE);
    oom_failure_clear();
    TEST("json: a duplicate among 5000 keys");
    struct oom_json_writer json;
    char *text;
    size_t bytes;
    for (int twice = 0; twice < 2; twice++) {
        oom_json_writer_init_memory(&json, OOM_JSON_COMPACT);
        oom_json_object_begin(&json);
        for (int i = 0; i < 5000; i++) {
            char key[16];
            snprintf(key, sizeof key, "k%d", i * 7919 % 5000);
            oom_json_put_int64(&json, key, i);
        }
        if (twice) oom_json_put_int64(&json, "k77", 0);
        oom_json_object_end(&json);
        CHECK_OK(oom_json_writer_finish(&json, &text, &bytes));
        CHECK_EQ(parse(text, bytes), twice ? OOM_USAGE : OOM_OK);
        oom_host_free(text);
        oom_failure_clear();
    }
}

static void values(void) {
    static const char source[] =
        "{\"a\":[1,2.5,\"x\\u0041\\n\\ud83d\\ude00\",true,null],\"big\":18446744073709551615,"
        "\"text\":\"9007199254740993\",\"min\":-9223372036854775808,\"nul\":\"a\\u0000b\",\"e\":"
        "1e2}";
    struct oom_json_document *document;
    const char *text = NULL;
    double d = 0;
    int64_t i = 0;
    uint64_t u = 0;
    bool b = false;
    TEST("json: values out of the tree");
    CHECK_OK(oom_json_parse("test", source, sizeof source - 1, 0, &document));
    const struct oom_json *root = oom_json_root(document), *a = oom_json_get(root, "a");
    CHECK(a != NULL && a->count == 5);
    CHECK(oom_json_as_int64(oom_json_at(a, 0), &i) && i == 1);
    CHECK(oom_json_as_double(oom_json_at(a, 1), &d) && d == 2.5);
    CHECK(!oom_json_as_int64(oom_json_at(a, 1), &i));
    CHECK(oom_json_as_text(oom_json_at(a, 2), &text));
    CHECK_STR(text, "xA\n\xf0\x9f\x98\x80");
    CHECK(oom_json_as_bool(oom_json_at(a, 3), &b) && b);
    CHECK(!oom_json_as_bool(oom_json_at(a, 4), &b));
    CHECK(oom_json_at(a, 5) == NULL && oom_json_at(a, -1) == NULL);
    CHECK(oom_json_get(NULL, "x") == NULL && oom_json_get(a, "x") == NULL);
    CHECK(oom_json_get(root, "missing") == NULL && oom_json_at(root, 0) == NULL);
    CHECK(oom_json_as_uint64(oom_json_get(root, "big"), &u) && u == UINT64_MAX);
    CHECK(!oom_json_as_int64(oom_json_get(root, "big"), &i));
    CHECK(oom_json_as_uint64(oom_json_get(root, "text"), &u) && u == 9007199254740993u);
    CHECK(oom_json_as_int64(oom_json_get(root, "min"), &i) && i == INT64_MIN);
    CHECK(!oom_json_as_uint64(oom_json_get(root, "min"), &u));
    CHECK(!oom_json_as_text(oom_json_get(root, "nul"), &text));
    CHECK(oom_json_get(root, "nul")->length == 3);
    CHECK(!oom_json_as_int64(oom_json_get(root, "e"), &i));
    oom_json_document_free(document);
}

static void rewrite(struct oom_json_writer *json, const struct oom_json *node) {
    if (node->kind == OOM_JSON_OBJECT) oom_json_object_begin(json);
    if (node->kind == OOM_JSON_ARRAY) oom_json_array_begin(json);
    for (const struct oom_json *child = node->child; child != NULL; child = child->next) {
        if (node->kind == OOM_JSON_OBJECT) oom_json_key(json, child->key);
        rewrite(json, child);
    }
    if (node->kind == OOM_JSON_OBJECT) oom_json_object_end(json);
    if (node->kind == OOM_JSON_ARRAY) oom_json_array_end(json);
    if (node->kind == OOM_JSON_STRING) oom_json_string_n(json, node->text, node->length);
    if (node->kind == OOM_JSON_NUMBER) oom_json_double(json, node->number);
    if (node->kind == OOM_JSON_BOOL) oom_json_bool(json, node->boolean);
    if (node->kind == OOM_JSON_NULL) oom_json_null(json);
}

/* What is read and written again reads as the same: writes of reads are fixed points. */
static bool is_fixed_point(const char *text, size_t bytes) {
    char *once = NULL, *again = NULL;
    for (int i = 0; i < 2; i++) {
        struct oom_json_document *document;
        struct oom_json_writer json;
        const char *from = once != NULL ? once : text;
        size_t length = once != NULL ? strlen(once) : bytes;
        if (oom_json_parse("fuzz", from, length, 0, &document) != OOM_OK) return i == 0;
        oom_json_writer_init_memory(&json, OOM_JSON_COMPACT);
        rewrite(&json, oom_json_root(document));
        oom_json_document_free(document);
        if (oom_json_writer_finish(&json, i == 0 ? &once : &again, NULL) != OOM_OK) return false;
    }
    bool same = strcmp(once, again) == 0;
    oom_host_free(once);
    oom_host_free(again);
    return same;
}

static void mutations(void) {
    static const char seed[] =
        "{\"a\":[1,-2.5e3,\"x\\u0041\\ud83d\\ude00 \xe2\x86\x92\",true,null],"
        "\"b\":{\"c\":[],\"d\":false,\"e\":\"\\\"\\\\\"},\"f\":0.1}";
    static const char pieces[] = "{}[]\",:\\u0eE+-.19tfn \x80\xe2\xff\n";
    struct oom_rng rng = {5};
    uint64_t before = oom_host_bytes_current();
    int broken = 0;
    TEST("json: 60000 mutations neither break the reader nor change on writing");
    for (int i = 0; i < 60000; i++) {
        char text[sizeof seed];
        memcpy(text, seed, sizeof seed);
        size_t bytes = sizeof seed - 1;
        for (uint32_t k = 0, n = 1 + oom_rng_below(&rng, 3); k < n; k++)
            text[oom_rng_below(&rng, (uint32_t)bytes)] =
                pieces[oom_rng_below(&rng, sizeof pieces - 1)];
        if (oom_rng_below(&rng, 4) == 0) bytes = oom_rng_below(&rng, (uint32_t)bytes + 1);
        /* An exact copy, so that a sanitizer sees a read past the end. */
        char *exact = oom_host_alloc(bytes);
        if (exact == NULL) break;
        memcpy(exact, text, bytes);
        broken += !is_fixed_point(exact, bytes);
        oom_host_free(exact);
        oom_failure_clear();
    }
    CHECK_EQ(broken, 0);
    CHECK_EQ(oom_host_bytes_current(), before);
    TEST("json: no host memory, wherever it happens");
    for (uint64_t n = 1; n <= 2; n++) {
        oom_host_fail_at(n);
        CHECK_EQ(parse(seed, sizeof seed - 1), OOM_HOST_NOMEM);
    }
    oom_host_fail_at(0);
    CHECK_EQ(oom_host_bytes_current(), before);
    oom_failure_clear();
}

void json_read_test(void) {
    accepted_and_refused();
    limits();
    values();
    mutations();
}
