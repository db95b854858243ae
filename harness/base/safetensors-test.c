#include "harness/base/safetensors-testing.h"

void safetensors_test(void);

/* The image is refused as wrong usage, with this message, and owns nothing. */
static void check_refused(struct image image, const char *message) {
    struct oom_safetensors file;
    uint64_t before = oom_host_bytes_current();
    CHECK_EQ(image_read(image, &file), OOM_USAGE);
    check_message(message);
    CHECK(file.tensors == NULL && file.count == 0 && file.text == NULL);
    CHECK_EQ(oom_host_bytes_current(), before);
    oom_host_free(image.block);
}

static void reads(void) {
    struct oom_safetensors file;
    TEST("safetensors: reads what the Python package wrote");
    struct image image = image_raw(recorded, sizeof recorded - 1);
    CHECK_OK(image_read(image, &file));
    recorded_check(&file);
    oom_safetensors_close(&file);
    oom_safetensors_close(&file); /* harmless */
    oom_host_free(image.block);

    TEST("safetensors: any order in the header, spaces, tensors that are aligned to nothing");
    image = image_make("{ \"b\" : {\"data_offsets\":[1, 9],\n\"shape\":[ 2 ],\"dtype\":\"F32\"},"
                       "\"z\":{\"dtype\":\"I64\",\"shape\":[0],\"data_offsets\":[1,1]},"
                       "\"\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}  ",
                       9);
    CHECK_OK(image_read(image, &file));
    CHECK_EQ(file.count, 3);
    CHECK_STR(file.tensors[0].name, ""); /* in the order of their data */
    CHECK_STR(file.tensors[1].name, "z");
    CHECK_STR(file.tensors[2].name, "b");
    check_tensor(&file, "", "U8 []", "\1");
    check_tensor(&file, "b", "F32 [2]", "\2\3\4\5\6\7\10\11");
    uint32_t second;
    CHECK_OK(oom_safetensors_copy(&file.tensors[2], 1, 1, &second));
    CHECK_EQ(second, 0x09080706);
    CHECK_EQ(oom_safetensors_copy(&file.tensors[2], 1, 2, &second), OOM_INVALID);
    check_message("tensor \"b\": elements from 1, 2 of them, were asked for; it has 2");
    CHECK_EQ(oom_safetensors_copy(&file.tensors[2], UINT64_MAX, 2, &second), OOM_INVALID);
    CHECK_EQ(oom_safetensors_copy(&file.tensors[2], 2, UINT64_MAX, &second), OOM_INVALID);
    oom_failure_clear();
    oom_safetensors_close(&file);
    oom_host_free(image.block);

    TEST("safetensors: no tensors at all, and names by escapes");
    image = image_make("{}", 0);
    CHECK_OK(image_read(image, &file));
    CHECK(file.count == 0 && oom_safetensors_find(&file, "a") == NULL);
    oom_safetensors_close(&file);
    oom_host_free(image.block);
    image =
        image_make("{\"\\u20ac\\ud83d\\ude00\\/\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1],"
                   "\"data_offsets\":[0,1]},\"__metadata__\":{}}",
                   1);
    CHECK_OK(image_read(image, &file));
    check_tensor(&file, "\xe2\x82\xac\xf0\x9f\x98\x80/", "U8 [1, 1, 1, 1, 1, 1, 1, 1]", "\1");
    CHECK_EQ(file.metadata_count, 0);
    oom_safetensors_close(&file);
    oom_host_free(image.block);
}

/* ---- every defect ---- */

static void lengths(void) {
    TEST("safetensors: a header's length that the file does not have");
    check_refused(image_raw("", 0), "f: 0 bytes; a safetensors file has at least 10");
    check_refused(image_raw("\2\0\0\0\0\0\0\0{", 9),
                  "f: 9 bytes; a safetensors file has at least 10");
    check_refused(image_raw("\3\0\0\0\0\0\0\0{}", 10),
                  "f: a header of 3 bytes, by its first 8 bytes, but only 2 follow; it is cut off");
    check_refused(image_raw("\0\341\365\5\0\0\0\0{}", 10), /* 100,000,000: allowed, not there */
                  "f: a header of 100000000 bytes, by its first 8 bytes, but only 2 follow; it is "
                  "cut off");
    check_refused(image_raw("\1\341\365\5\0\0\0\0{}", 10),
                  "f: a header of 100000001 bytes, by its first 8 bytes; at most 100000000 are "
                  "allowed");
    check_refused(image_raw("\370\377\377\377\377\377\377\377{}", 10),
                  "f: a header of 18446744073709551608 bytes, by its first 8 bytes; at most "
                  "100000000 are allowed");
    check_refused(image_raw("\0\0\0\0\0\0\0\0{}", 10),
                  "f: the header must begin with '{', at byte 8");
    check_refused(image_raw("\1\0\0\0\0\0\0\0{}", 10),
                  "f: the header must begin with '{', at byte 8");

    TEST("safetensors: every cut of a good file is refused");
    for (size_t n = 0; n < sizeof recorded - 1; n++) {
        struct oom_safetensors file;
        struct image image = image_raw(recorded, n);
        CHECK_EQ(image_read(image, &file), OOM_USAGE);
        oom_host_free(image.block);
    }
    oom_failure_clear();
}

#define U8(name, from, to, size) \
    "\"" name "\":{\"dtype\":\"U8\",\"shape\":[" size "],\"data_offsets\":[" from "," to "]}"
#define FIELDS(fields) "{\"w\":{" fields "}}"
#define DTYPE(dtype) FIELDS("\"dtype\":" dtype ",\"shape\":[4],\"data_offsets\":[0,4]")
#define SHAPE(shape) FIELDS("\"dtype\":\"U8\",\"shape\":" shape ",\"data_offsets\":[0,4]")
#define OFFSETS(offsets) FIELDS("\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" offsets)
#define ALLOWED "expected one of F32 F64 F16 BF16 I32 I64 U8"
#define WHOLE "a whole number from 0 to 9223372036854775807 is expected"

/* Four bytes of data follow each. */
static const struct {
    const char *header, *message;
} defects[] = {
    /* the object */
    {" {" U8("w", "0", "4", "4") "}", "f: the header must begin with '{', at byte 8"},
    {"[" U8("w", "0", "4", "4") "]", "f: the header must begin with '{', at byte 8"},
    {"{" U8("w", "0", "4", "4") "}\n", "f: byte 61: only spaces may follow the header's object"},
    {"{" U8("w", "0", "4", "4") "}{}", "f: byte 61: only spaces may follow the header's object"},
    {"{" U8("w", "0", "4", "4") ",}", "f: byte 61: a text is expected"},
    {"{" U8("w", "0", "4", "4"), "f: byte 60: ',' or a closing bracket is expected"},
    {"{\"w\":4}", "f: tensor \"w\": an object with dtype, shape and data_offsets is expected"},
    {"{\"\xff\":{}}", "f: byte 10: invalid UTF-8"},
    {"{\"\\ud800\":{}}", "f: byte 16: no such escape, or a NUL"},
    {"{\"a\\u0000\":{}}", "f: byte 17: no such escape, or a NUL"},
    /* names */
    {"{" U8("w", "0", "4", "4") "," U8("w", "0", "4", "4") "}",
     "f: tensor \"w\" stands twice in the header"}, /* said before that they overlap */
    {"{" U8("w", "0", "2", "2") "," U8("w", "2", "4", "2") "}",
     "f: tensor \"w\" stands twice in the header"},
    {"{" U8("w", "0", "2", "2") "," U8("v", "2", "4", "2") "," U8("\\u0077", "4", "4", "0") "}",
     "f: tensor \"w\" stands twice in the header"},
    {"{\"a\\n\\u001b[31mb\":4}",
     "f: tensor \"a??[31mb\": an object with dtype, shape and data_offsets is expected"},
    /* metadata */
    {"{\"__metadata__\":4}", "f: __metadata__ must be an object of texts"},
    {"{\"__metadata__\":{\"a\":1}}", "f: __metadata__: the value of \"a\" must be a text"},
    {"{\"__metadata__\":{\"a\":\"\",\"a\":\"\"}," U8("w", "0", "4", "4") "}",
     "f: __metadata__: \"a\" stands twice"},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", "f: __metadata__ stands twice in the header"},
    /* fields */
    {"{\"w\":{}}", "f: tensor \"w\": dtype is missing"},
    {FIELDS("\"dtype\":\"U8\",\"data_offsets\":[0,4]"), "f: tensor \"w\": shape is missing"},
    {FIELDS("\"dtype\":\"U8\",\"shape\":[4]"), "f: tensor \"w\": data_offsets is missing"},
    {FIELDS("\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]"),
     "f: tensor \"w\": dtype stands twice"},
    {FIELDS("\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4],\"strides\":[1]"),
     "f: tensor \"w\": the field \"strides\" is none of the format"},
    {DTYPE("\"I8\""), "f: tensor \"w\": dtype I8 is not read here; " ALLOWED},
    {DTYPE("\"F8_E4M3\""), "f: tensor \"w\": dtype F8_E4M3 is not read here; " ALLOWED},
    {DTYPE("\"float32\""), "f: tensor \"w\": dtype \"float32\" is unknown; " ALLOWED},
    {DTYPE("\"u8\""), "f: tensor \"w\": dtype \"u8\" is unknown; " ALLOWED},
    {DTYPE("4"), "f: tensor \"w\": dtype must be a text"},
    {SHAPE("4"), "f: tensor \"w\": shape must be a row of numbers"},
    {SHAPE("[-4]"), "f: tensor \"w\": shape: byte 36: " WHOLE},
    {SHAPE("[4.0]"), "f: tensor \"w\": shape: byte 36: " WHOLE},
    {SHAPE("[4e0]"), "f: tensor \"w\": shape: byte 36: " WHOLE},
    {SHAPE("[04]"), "f: tensor \"w\": shape: byte 36: " WHOLE},
    {SHAPE("[\"4\"]"), "f: tensor \"w\": shape: byte 36: " WHOLE},
    {SHAPE("[9223372036854775808]"), "f: tensor \"w\": shape: byte 36: " WHOLE},
    {SHAPE("[18446744073709551620]"), "f: tensor \"w\": shape: byte 36: " WHOLE},
    {SHAPE("[4,]"), "f: tensor \"w\": shape: byte 38: " WHOLE},
    {SHAPE("[1,1,1,1,1,1,1,1,4]"), "f: tensor \"w\": more than 8 dimensions"},
    {SHAPE("[5]"), "f: tensor \"w\": U8 [5] takes 5 bytes; data_offsets [0, 4] are 4"},
    {SHAPE("[4294967296,4294967296]"),
     "f: tensor \"w\": U8 [4294967296, 4294967296] has more bytes than 63 bits can hold"},
    {SHAPE("[4294967296,4294967296,0]"), /* as in the reference: the product in order */
     "f: tensor \"w\": U8 [4294967296, 4294967296, 0] has more bytes than 63 bits can hold"},
    {FIELDS("\"dtype\":\"F64\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]"),
     "f: tensor \"w\": F64 [2305843009213693952] has more bytes than 63 bits can hold"},
    /* offsets */
    {OFFSETS("4"), "f: tensor \"w\": data_offsets must be two numbers, from and to"},
    {OFFSETS("[]"), "f: tensor \"w\": data_offsets must be two numbers, from and to"},
    {OFFSETS("[4]"), "f: tensor \"w\": data_offsets must be two numbers, from and to"},
    {OFFSETS("[0,4,4]"), "f: tensor \"w\": data_offsets must be two numbers, from and to"},
    {OFFSETS("[0,-4]"), "f: tensor \"w\": data_offsets: byte 57: " WHOLE},
    {OFFSETS("[4,0]"), "f: tensor \"w\": data_offsets [4, 0] end before they begin"},
    {OFFSETS("[0,3]"), "f: tensor \"w\": U8 [4] takes 4 bytes; data_offsets [0, 3] are 3"},
    {OFFSETS("[9223372036854775803,9223372036854775807]"),
     "f: tensor \"w\": data_offsets [9223372036854775803, 9223372036854775807], but the file has "
     "4 bytes of data; it is cut off, or the offsets are wrong"},
    {"{" U8("w", "0", "5", "5") "}",
     "f: tensor \"w\": data_offsets [0, 5], but the file has 4 bytes of data; it is cut off, or "
     "the offsets are wrong"},
    {"{" U8("z", "5", "5", "0") "," U8("w", "0", "4", "4") "}",
     "f: tensor \"z\": data_offsets [5, 5], but the file has 4 bytes of data; it is cut off, or "
     "the offsets are wrong"},
    /* the tensors among each other */
    {"{" U8("b", "2", "4", "2") "," U8("a", "0", "3", "3") "}",
     "f: tensor \"b\": begins at byte 2 of the data; expected 3: it overlaps \"a\""},
    {"{" U8("a", "0", "4", "4") "," U8("b", "0", "4", "4") "}",
     "f: tensor \"b\": begins at byte 0 of the data; expected 4: it overlaps \"a\""},
    {"{" U8("a", "0", "4", "4") "," U8("b", "2", "2", "0") "}",
     "f: tensor \"b\": begins at byte 2 of the data; expected 4: it overlaps \"a\""},
    {"{" U8("b", "2", "4", "2") "," U8("a", "0", "1", "1") "}",
     "f: tensor \"b\": begins at byte 2 of the data; expected 1: what lies between belongs to no "
     "tensor"},
    {"{" U8("b", "1", "4", "3") "}",
     "f: tensor \"b\": begins at byte 1 of the data; expected 0: what lies between belongs to no "
     "tensor"},
    {"{" U8("w", "0", "3", "3") "}",
     "f: 4 bytes of data; expected 3: what follows the last tensor belongs to none"},
    {"{}", "f: 4 bytes of data; expected 0: what follows the last tensor belongs to none"},
};

static void refuses(void) {
    TEST("safetensors: %d defects, each by its message", (int)(sizeof defects / sizeof defects[0]));
    for (size_t i = 0; i < sizeof defects / sizeof defects[0]; i++)
        check_refused(image_make(defects[i].header, 4), defects[i].message);

    TEST("safetensors: every dtype that the format has and we do not read");
    static const char *const others[] = {
        "BOOL",        "F4",          "F6_E2M3", "F6_E3M2", "I8",  "F8_E5M2", "F8_E4M3", "F8_E8M0",
        "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I16",     "U16",     "U32", "C64",     "U64"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        char header[256], message[256];
        snprintf(header, sizeof header,
                 "{\"w\":{\"dtype\":\"%s\",\"shape\":[4],\"data_offsets\":[0,4]}}", others[i]);
        snprintf(message, sizeof message, "f: tensor \"w\": dtype %s is not read here; %s",
                 others[i], ALLOWED);
        check_refused(image_make(header, 4), message);
    }

    TEST("safetensors: a header within a header, to any depth, is refused in little memory");
    char header[ROOM / 2] = "{\"w\":";
    memset(header + 5, '[', sizeof header - 6);
    check_refused(image_make(header, 0),
                  "f: tensor \"w\": an object with dtype, shape and data_offsets is expected");
}

static void memory(void) {
    struct oom_safetensors file;
    TEST("safetensors: host memory that fails at any place");
    struct image image = image_raw(recorded, sizeof recorded - 1);
    uint64_t before = oom_host_bytes_current(), n = 0;
    enum oom_status status;
    do {
        oom_host_fail_at(++n);
        status = image_read(image, &file);
        oom_host_fail_at(0);
        if (status != OOM_OK) CHECK_EQ(status, OOM_HOST_NOMEM);
        oom_safetensors_close(&file);
        CHECK_EQ(oom_host_bytes_current(), before);
    } while (status != OOM_OK && n < 100);
    CHECK_EQ(n, 5); /* four lists */
    oom_failure_clear();
    oom_host_free(image.block);
}

/* ---- requiring ---- */

static void requires(void) {
    struct oom_safetensors file;
    const struct oom_safetensors_tensor *tensor = NULL;
    struct image image = image_raw(recorded, sizeof recorded - 1);
    CHECK_OK(image_read(image, &file));
    TEST("safetensors: a tensor that is missing, of another dtype, of another shape");
    CHECK_OK(oom_safetensors_expect(&file, "w", OOM_F32, 2, (int64_t[]){2, 3}, &tensor));
    CHECK(tensor == oom_safetensors_find(&file, "w") && tensor != NULL);
    CHECK_OK(oom_safetensors_expect(&file, "l", OOM_I64, 0, NULL, NULL));
    CHECK_EQ(oom_safetensors_expect(&file, "x", OOM_F32, 1, (int64_t[]){2}, NULL), OOM_USAGE);
    check_message("f: tensor \"x\" is missing; expected F32 [2]");
    CHECK_EQ(oom_safetensors_expect(&file, "w", OOM_F64, 2, (int64_t[]){2, 3}, NULL), OOM_USAGE);
    check_message("f: tensor \"w\": wrong dtype; expected F64 [2, 3], found F32 [2, 3]");
    CHECK_EQ(oom_safetensors_expect(&file, "w", OOM_F32, 2, (int64_t[]){3, 2}, NULL), OOM_USAGE);
    check_message("f: tensor \"w\": wrong shape; expected F32 [3, 2], found F32 [2, 3]");
    CHECK_EQ(oom_safetensors_expect(&file, "w", OOM_F32, 1, (int64_t[]){2}, NULL), OOM_USAGE);
    check_message("f: tensor \"w\": wrong shape; expected F32 [2], found F32 [2, 3]");
    CHECK_EQ(oom_safetensors_expect(&file, "w", OOM_F32, 3, (int64_t[]){2, 3, 1}, NULL), OOM_USAGE);
    check_message("f: tensor \"w\": wrong shape; expected F32 [2, 3, 1], found F32 [2, 3]");

    TEST("safetensors: tensors that nobody asked for");
    static const char *const all[] = {
        "l", "d", "empty", "w", "i", "b", "h", "u", "n\xc3\xa4me \"q\"\n\\", "not there", "w"};
    CHECK_OK(oom_safetensors_only(&file, all, 11));
    CHECK_EQ(oom_safetensors_only(&file, all, 8), OOM_USAGE);
    check_message("f: 1 tensor that nothing here is made for: \"n\xc3\xa4me \"q\"?\\\"");
    CHECK_EQ(oom_safetensors_only(&file, all + 1, 10), OOM_USAGE);
    check_message("f: 1 tensor that nothing here is made for: \"l\"");
    CHECK_EQ(oom_safetensors_only(&file, NULL, 0), OOM_USAGE);
    check_message("f: 9 tensors that nothing here is made for: \"l\", \"d\", \"empty\", ...");
    oom_safetensors_close(&file);
    oom_host_free(image.block);
}

static void indices(void) {
    static const struct {
        struct oom_safetensors_tensor tensor;
        uint64_t element;
        const char *place;
    } cases[] = {
        {{.rank = 0}, 0, "[]"},
        {{.rank = 1, .shape = {4}}, 3, "[3]"},
        {{.rank = 2, .shape = {3, 1}}, 2, "[2, 0]"},
        {{.rank = 2, .shape = {3, 2}}, 3, "[1, 1]"},
        {{.rank = 3, .shape = {1, 2, 3}}, 5, "[0, 1, 2]"},
        {{.rank = 2, .shape = {2, INT64_MAX / 2}}, INT64_MAX - 2, "[1, 4611686018427387902]"},
    };
    TEST("safetensors: the place of an element, one number for each dimension");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[OOM_SAFETENSORS_TEXT];
        CHECK_STR(oom_safetensors_index(&cases[i].tensor, cases[i].element, text), cases[i].place);
    }
}

void safetensors_test(void) {
    reads();
    lengths();
    refuses();
    memory();
    requires();
    indices();
}
