#include "harness/base/json-write.h"

#include "kernels/hostmem.h"
#include "kernels/testing.h"
#include "harness/base/rng.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void json_write_test(void);

static void example(struct oom_json_writer *json) {
    oom_json_object_begin(json);
    oom_json_put_string(json, "a", "x\"\\\n\x01\x7f");
    oom_json_key(json, "b");
    oom_json_array_begin(json);
    oom_json_int64(json, -3);
    oom_json_bool(json, true);
    oom_json_null(json);
    oom_json_string(json, NULL);
    oom_json_double(json, (double)INFINITY);
    oom_json_double(json, (double)NAN);
    oom_json_array_end(json);
    oom_json_key(json, "c");
    oom_json_object_begin(json);
    oom_json_object_end(json);
    oom_json_object_end(json);
}

static void texts(void) {
    struct oom_json_writer json;
    char *text;
    size_t length;
    TEST("json: written compactly");
    oom_json_writer_init_memory(&json, OOM_JSON_COMPACT);
    example(&json);
    CHECK_OK(oom_json_writer_finish(&json, &text, &length));
    CHECK_STR(
        text,
        "{\"a\":\"x\\\"\\\\\\n\\u0001\\u007f\",\"b\":[-3,true,null,null,null,null],\"c\":{}}");
    CHECK(text != NULL && length == strlen(text));
    oom_host_free(text);
    TEST("json: written prettily");
    oom_json_writer_init_memory(&json, OOM_JSON_PRETTY);
    oom_json_object_begin(&json);
    oom_json_put_int64(&json, "a", 1);
    oom_json_key(&json, "b");
    oom_json_array_begin(&json);
    oom_json_string(&json, "c");
    oom_json_array_end(&json);
    oom_json_object_end(&json);
    CHECK_OK(oom_json_writer_finish(&json, &text, NULL));
    CHECK_STR(text, "{\n  \"a\": 1,\n  \"b\": [\n    \"c\"\n  ]\n}\n");
    oom_host_free(text);
    TEST("json: invalid UTF-8 is replaced, valid UTF-8 kept");
    oom_json_writer_init_memory(&json, OOM_JSON_COMPACT);
    oom_json_string(&json, "\xe2\x86\x92\xff\xe2\x86|\xed\xa0\x80");
    CHECK_OK(oom_json_writer_finish(&json, &text, NULL));
    CHECK_STR(text, "\"\xe2\x86\x92\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd|"
                    "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
    oom_host_free(text);
}

static void numbers(void) {
    static const struct {
        double value;
        const char *text;
    } rows[] = {
        {0, "0"},
        {-0.0, "-0"},
        {1, "1"},
        {0.1, "0.1"},
        {1e15, "1000000000000000"},
        {1e16, "1e+16"},
        {123456789012345.5, "123456789012345.5"},
        {5e-324, "5e-324"},
        {DBL_MAX, "1.7976931348623157e+308"},
        {0x1p-1022, "2.2250738585072014e-308"},
        {2.0 / 3, "0.6666666666666666"},
        {9007199254740991.0, "9007199254740991"},
    };
    char text[OOM_DOUBLE_TEXT];
    TEST("json: numbers are the shortest that read back");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        CHECK_STR(oom_double_format(rows[i].value, text), rows[i].text);
    struct oom_rng rng = {4};
    int differ = 0;
    for (int i = 0; i < 20000; i++) {
        union {
            uint64_t bits;
            double value;
        } any = {oom_rng_next(&rng)};
        if (!isfinite(any.value)) continue;
        differ += strtod(oom_double_format(any.value, text), NULL) != any.value;
    }
    CHECK_EQ(differ, 0);
    struct oom_json_writer json;
    char *out;
    TEST("json: integers above 2^53 as text, on request");
    for (unsigned flags = 0; flags <= OOM_JSON_BIG_TEXT; flags += OOM_JSON_BIG_TEXT) {
        oom_json_writer_init_memory(&json, flags);
        oom_json_array_begin(&json);
        oom_json_uint64(&json, UINT64_C(1) << 53);
        oom_json_uint64(&json, UINT64_MAX);
        oom_json_int64(&json, INT64_MIN);
        oom_json_array_end(&json);
        CHECK_OK(oom_json_writer_finish(&json, &out, NULL));
        CHECK_STR(out,
                  flags == 0
                      ? "[9007199254740992,18446744073709551615,-9223372036854775808]"
                      : "[9007199254740992,\"18446744073709551615\",\"-9223372036854775808\"]");
        oom_host_free(out);
    }
}

static enum oom_status misused(int way) {
    struct oom_json_writer json;
    char *out = NULL;
    oom_json_writer_init_memory(&json, OOM_JSON_COMPACT);
    if (way != 3) oom_json_object_begin(&json);
    if (way == 0) oom_json_int64(&json, 1);                             /* no key */
    if (way == 1) oom_json_array_end(&json);                            /* the other bracket */
    if (way == 2) oom_json_key(&json, "a"), oom_json_key(&json, "b");   /* two keys */
    if (way == 3) oom_json_int64(&json, 1), oom_json_int64(&json, 2);   /* two values */
    if (way == 4) oom_json_key(&json, "a"), oom_json_object_end(&json); /* no value */
    if (way == 5) return oom_json_writer_finish(&json, &out, NULL);     /* not closed */
    if (way == 6)
        for (int i = 0; i < 65; i++) oom_json_key(&json, "a"), oom_json_object_begin(&json);
    oom_json_object_end(&json);
    enum oom_status status = oom_json_writer_finish(&json, &out, NULL);
    CHECK(out == NULL);
    oom_failure_clear();
    return status;
}

static void errors(void) {
    TEST("json: misuse is sticky and told at the end");
    for (int way = 0; way <= 6; way++)
        CHECK_MSG(misused(way) == OOM_INVALID, "way %d was taken", way);
    oom_failure_clear();
    TEST("json: no host memory, wherever it happens");
    uint64_t before = oom_host_bytes_current();
    int failed = 0;
    for (uint64_t n = 1; n <= 4; n++) {
        struct oom_json_writer json;
        char *out = NULL;
        oom_host_fail_at(n);
        oom_json_writer_init_memory(&json, OOM_JSON_COMPACT);
        oom_json_array_begin(&json);
        for (int i = 0; i < 200; i++) oom_json_string(&json, "0123456789");
        oom_json_array_end(&json);
        enum oom_status status = oom_json_writer_finish(&json, &out, NULL);
        CHECK(status == OOM_OK || (status == OOM_HOST_NOMEM && out == NULL));
        failed += status == OOM_HOST_NOMEM;
        oom_host_free(out);
        oom_failure_clear();
    }
    oom_host_fail_at(0);
    CHECK(failed >= 3);
    CHECK_EQ(oom_host_bytes_current(), before);
    TEST("json: a full disk is told");
    FILE *file = fopen("/dev/full", "w");
    if (file == NULL) {
        SKIP("no /dev/full");
        return;
    }
    struct oom_json_writer json;
    oom_json_writer_init_file(&json, file, OOM_JSON_COMPACT);
    example(&json);
    CHECK_EQ(oom_json_writer_finish(&json, NULL, NULL), OOM_IO);
    fclose(file);
    oom_failure_clear();
}

void json_write_test(void) {
    texts();
    numbers();
    errors();
}
