/*
 * safetensors-testing.h: files in memory for the tests of reader and writer, and one that somebody
 * else wrote.
 */
#ifndef OOM_HARNESS_BASE_SAFETENSORS_TESTING_H
#define OOM_HARNESS_BASE_SAFETENSORS_TESTING_H

#include "harness/base/safetensors.h"
#include "kernels/hostmem.h"
#include "kernels/testing.h"

#include <string.h>

enum { ROOM = 1 << 12 };

/* ---- files in memory: at the very end of a block, so that sanitizers see what lies beyond ---- */

enum { BLOCK = 64 }; /* the granularity of host memory */

struct image {
    char *block, *bytes;
    size_t n;
};

static inline struct image image_raw(const void *bytes, size_t n) {
    size_t whole = (n / BLOCK + 1) * BLOCK;
    char *block = oom_host_alloc(whole);
    if (!CHECK(block != NULL)) return (struct image){0};
    memcpy(block + whole - n, bytes, n);
    return (struct image){block, block + whole - n, n};
}

/* Length, header and `data` bytes 1, 2, 3 ... */
static inline struct image image_make(const char *header, size_t data) {
    char bytes[ROOM];
    uint64_t length = strlen(header);
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, header, length);
    for (size_t i = 0; i < data; i++) bytes[8 + length + i] = (char)(i + 1);
    return image_raw(bytes, 8 + length + data);
}

static inline enum oom_status image_read(struct image image, struct oom_safetensors *out) {
    oom_failure_clear();
    return oom_safetensors_parse("f", image.bytes, image.n, out);
}

static inline void check_message(const char *expected) {
    CHECK_STR(oom_failure_last()->message, expected);
    oom_failure_clear();
}

static inline void check_tensor(const struct oom_safetensors *file, const char *name,
                                const char *description, const void *expected) {
    char found[OOM_SAFETENSORS_TEXT];
    union {
        char bytes[64];
        double aligned;
    } copy;
    const struct oom_safetensors_tensor *tensor = oom_safetensors_find(file, name);
    if (!CHECK_MSG(tensor != NULL, "%s is there", name)) return;
    oom_safetensors_describe(tensor->dtype, tensor->rank, tensor->shape, found);
    CHECK_STR(found, description);
    CHECK_STR(tensor->name, name);
    CHECK_OK(oom_safetensors_copy(tensor, 0, tensor->count, &copy));
    CHECK_MSG(memcmp(copy.bytes, expected, tensor->bytes) == 0, "values of %s", name);
}

/* ---- a file that the Python package wrote (safetensors 0.8.0, PyTorch 2.15.0, save_file) ---- */

static const char recorded[] =
    "8\x02\0\0\0\0\0\0{\"__metadata__\":{\"format\":\"pt\",\"k\\\"\xe2\x82\xac\":\"v\\n\"},"
    "\"l\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
    "\"d\":{\"dtype\":\"F64\",\"shape\":[2],\"data_offsets\":[8,24]},"
    "\"empty\":{\"dtype\":\"F32\",\"shape\":[2,0,3],\"data_offsets\":[24,24]},"
    "\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[24,48]},"
    "\"i\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[48,56]},"
    "\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[56,60]},"
    "\"h\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[60,66]},"
    "\"n\xc3\xa4me \\\"q\\\"\\n\\\\\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[66,67]},"
    "\"u\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[67,70]}}       "
    "\xff\xff\xff\xff\xff\xff\xdf\xff\x9a\x99\x99\x99\x99\x99\xb9?\x9cu\0\x88<\xe4"
    "7\xfe\0\0\x80?\0\0 \xc0\xcd\xcc\xcc=\x02\0\0\0\0\0\x80\x7f\xca\xf2Iq\0\0\0\x80\x07\0\0\0"
    "\x80?I@\0<\0\xc0\xff{\x05\0\xff\x80";

static const int64_t value_l = -9007199254740993;
static const double values_d[] = {0.1, -1e300};
static const float values_w[] = {1.0f, -2.5f, 0.1f, 0x1p-148f, __builtin_inff(), 1e30f};
static const int32_t values_i[] = {INT32_MIN, 7};
static const uint16_t values_b[] = {0x3f80, 0x4049};         /* 1, 3.140625 */
static const uint16_t values_h[] = {0x3c00, 0xc000, 0x7bff}; /* 1, -2, 65504 */
static const uint8_t values_n[] = {5}, values_u[] = {0, 255, 128};

static inline void recorded_check(const struct oom_safetensors *file) {
    CHECK_EQ(file->count, 9);
    check_tensor(file, "l", "I64 []", &value_l);
    check_tensor(file, "d", "F64 [2]", values_d);
    check_tensor(file, "empty", "F32 [2, 0, 3]", "");
    check_tensor(file, "w", "F32 [2, 3]", values_w);
    check_tensor(file, "i", "I32 [2]", values_i);
    check_tensor(file, "b", "BF16 [2]", values_b);
    check_tensor(file, "h", "F16 [3]", values_h);
    check_tensor(file, "n\xc3\xa4me \"q\"\n\\", "U8 [1]", values_n);
    check_tensor(file, "u", "U8 [3]", values_u);
    CHECK_EQ(file->metadata_count, 2);
    CHECK_STR(oom_safetensors_metadata(file, "format"), "pt");
    CHECK_STR(oom_safetensors_metadata(file, "k\"\xe2\x82\xac"), "v\n");
    CHECK(oom_safetensors_metadata(file, "") == NULL);
    CHECK(oom_safetensors_find(file, "W") == NULL);
}

#endif
