/*
 * Files of any bytes: refused with a message, or every byte of their data belongs to one tensor,
 * and the header written for what was read is read as the same. As most changes of a header change
 * its length, each input is also tried with the length made right.
 */
#include "harness/base/fuzz.h"
#include "harness/base/safetensors.h"
#include "kernels/hostmem.h"

#include <stdio.h>
#include <string.h>

oom_fuzz_target safetensors_fuzz;

enum {
    LENGTH_BYTES = 8,
    BYTES_EACH = 4,
    BYTES_BASE = 4096,
    BLOCK = 64
}; /* BLOCK: of host memory */

static int wrong(const char *what) {
    fprintf(stderr, "safetensors: %s: %s\n", what, oom_failure_last()->message);
    return 1;
}

static const char *message_judge(enum oom_status status) {
    const char *message = oom_failure_last()->message;
    if (status != OOM_USAGE) return "status";
    if (strncmp(message, "fuzz: ", 6) != 0) return "no file in the message";
    for (; *message != 0; message++) {
        if ((unsigned char)*message < 0x20 || *message == 0x7f)
            return "a message with control bytes";
    }
    return NULL;
}

/* From the header's end to the file's, without gap or overlap, and each can be copied. */
static const char *data_judge(const struct oom_safetensors *file, const uint8_t *data, size_t n) {
    static uint64_t copy[OOM_FUZZ_BYTES_MAX / sizeof(uint64_t) + 1];
    uint64_t header;
    memcpy(&header, data, LENGTH_BYTES);
    const uint8_t *at = data + LENGTH_BYTES + header;
    for (int i = 0; i < file->count; i++) {
        const struct oom_safetensors_tensor *tensor = &file->tensors[i];
        uint64_t bytes = oom_dtype_bytes(tensor->dtype);
        if (tensor->data != at) return "data that do not follow each other";
        if (tensor->bytes > n) return "more bytes than the file";
        for (int k = 0; k < tensor->rank; k++) bytes *= (uint64_t)tensor->shape[k];
        if (bytes != tensor->bytes) return "bytes that are not those of the shape";
        if (oom_safetensors_copy(tensor, 0, tensor->count, copy) != OOM_OK ||
            memcmp(copy, at, tensor->bytes) != 0)
            return "a copy that differs";
        if (oom_safetensors_find(file, tensor->name) != tensor) return "not found by its name";
        if (oom_safetensors_expect(file, tensor->name, tensor->dtype, tensor->rank, tensor->shape,
                                   NULL) != OOM_OK)
            return "not as expected";
        char index[OOM_SAFETENSORS_TEXT];
        if (tensor->count > 0 && oom_safetensors_index(tensor, tensor->count - 1, index)[0] != '[')
            return "no place";
        at += tensor->bytes;
    }
    if (at != data + n) return "data that belong to nobody";
    return oom_safetensors_only(file, NULL, 0) == OOM_OK && file->count > 0 ? "nobody asked" : NULL;
}

static bool same(const struct oom_safetensors *a, const struct oom_safetensors *b) {
    if (a->count != b->count || a->metadata_count != b->metadata_count) return false;
    for (int i = 0; i < a->count; i++) {
        const struct oom_safetensors_tensor *x = &a->tensors[i], *y = &b->tensors[i];
        if (strcmp(x->name, y->name) != 0 || x->dtype != y->dtype || x->rank != y->rank ||
            memcmp(x->shape, y->shape, sizeof x->shape) != 0 || x->count != y->count ||
            x->bytes != y->bytes || memcmp(x->data, y->data, x->bytes) != 0)
            return false;
    }
    for (int i = 0; i < a->metadata_count; i++) {
        if (strcmp(a->metadata[i].key, b->metadata[i].key) != 0 ||
            strcmp(a->metadata[i].value, b->metadata[i].value) != 0)
            return false;
    }
    return true;
}

static const char *round_trip(const struct oom_safetensors *file, const uint8_t *data, size_t n) {
    struct oom_safetensors again;
    char *header, *whole;
    size_t bytes;
    uint64_t old;
    memcpy(&old, data, LENGTH_BYTES);
    size_t rest = n - LENGTH_BYTES - (size_t)old;
    if (oom_safetensors_header(file->tensors, file->count, file->metadata, file->metadata_count,
                               &header, &bytes) != OOM_OK)
        return "no header for what was read";
    if (bytes % 8 != 0) return "data that are not aligned";
    whole = oom_host_realloc(header, bytes + rest);
    if (whole == NULL) return "memory";
    memcpy(whole + bytes, data + n - rest, rest);
    const char *why = "what was written is refused";
    if (oom_safetensors_parse("fuzz", whole, bytes + rest, &again) == OOM_OK) {
        why = same(file, &again) ? NULL : "what was written reads differently";
        oom_safetensors_close(&again);
    }
    oom_host_free(whole);
    return why;
}

static int judge(const uint8_t *data, size_t n) {
    struct oom_safetensors file;
    uint64_t before = oom_host_bytes_current();
    oom_failure_clear();
    oom_host_peak_reset();
    enum oom_status status = oom_safetensors_parse("fuzz", data, n, &file);
    if (oom_host_bytes_peak() - before > (uint64_t)n * BYTES_EACH + BYTES_BASE)
        return wrong("memory out of proportion");
    const char *why = status != OOM_OK ? message_judge(status) : data_judge(&file, data, n);
    if (status == OOM_OK) oom_failure_clear();
    if (status == OOM_OK && why == NULL) why = round_trip(&file, data, n);
    if (status == OOM_OK) oom_safetensors_close(&file);
    if (why != NULL) return wrong(why);
    return oom_host_bytes_current() == before ? 0 : wrong("a leak");
}

int safetensors_fuzz(const uint8_t *data, size_t n) {
    size_t end = n;
    if (judge(data, n) != 0) return 1;
    while (end > LENGTH_BYTES && data[end - 1] != '}') end--;
    if (end <= LENGTH_BYTES) return 0;
    uint64_t length = end - LENGTH_BYTES;
    size_t whole = (n + BLOCK - 1) / BLOCK * BLOCK;
    uint8_t *block = oom_host_alloc(whole);
    if (block == NULL) return wrong("memory");
    uint8_t *repaired = block + (whole - n);
    memcpy(repaired, data, n);
    memcpy(repaired, &length, LENGTH_BYTES);
    int result = judge(repaired, n);
    oom_host_free(block);
    return result;
}
