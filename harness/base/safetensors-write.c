/*
 * safetensors-write.c: the writer. The header tells where every tensor lies, so all of them are
 * said before the first byte of data; data then go straight to the file.
 */
#include "harness/base/json-write.h"
#include "harness/base/safetensors-parts.h"
#include "kernels/hostmem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 8 };

/* ---- the header ---- */

static bool is_utf8(const char *text) {
    size_t n = strlen(text);
    while (n > 0) {
        int length = oom_utf8_length(text, n);
        if (length == 0) return false;
        text += length;
        n -= (size_t)length;
    }
    return true;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Good UTF-8, each once. Sorts the list. */
static enum oom_status texts_check(const char **texts, int count, const char *what) {
    char shown[SAFETENSORS_SHOWN];
    for (int i = 0; i < count; i++) {
        if (!is_utf8(texts[i]))
            return oom_fail(OOM_INVALID, "safetensors: %s \"%s\" is not UTF-8", what,
                            safetensors_shown(texts[i], shown));
    }
    if (count > 1) qsort(texts, (size_t)count, sizeof *texts, by_text);
    for (int i = 1; i < count; i++) {
        if (strcmp(texts[i - 1], texts[i]) == 0)
            return oom_fail(OOM_INVALID, "safetensors: %s \"%s\" twice", what,
                            safetensors_shown(texts[i], shown));
    }
    return OOM_OK;
}

static enum oom_status all_check(const struct oom_safetensors_tensor *tensors, int count,
                                 const struct oom_safetensors_entry *metadata, int metadata_count) {
    char shown[SAFETENSORS_SHOWN];
    int room = 1 + (count > metadata_count ? count : metadata_count);
    const char **texts = oom_host_alloc((size_t)room * sizeof *texts);
    if (texts == NULL) return oom_fail(OOM_HOST_NOMEM, "safetensors: %d names to compare", room);
    for (int i = 0; i < count; i++) texts[i] = tensors[i].name;
    enum oom_status status = texts_check(texts, count, "tensor");
    for (int i = 0; i < metadata_count; i++) texts[i] = metadata[i].key;
    if (status == OOM_OK) status = texts_check(texts, metadata_count, SAFETENSORS_METADATA ": key");
    for (int i = 0; status == OOM_OK && i < metadata_count; i++) {
        if (!is_utf8(metadata[i].value))
            status = oom_fail(OOM_INVALID, "safetensors: %s: the value of \"%s\" is not UTF-8",
                              SAFETENSORS_METADATA, safetensors_shown(metadata[i].key, shown));
    }
    for (int i = 0; status == OOM_OK && i < count; i++) {
        if (strcmp(tensors[i].name, SAFETENSORS_METADATA) == 0)
            status = oom_fail(OOM_INVALID, "safetensors: no tensor may be named %s",
                              SAFETENSORS_METADATA);
    }
    oom_host_free(texts);
    return status;
}

static void metadata_write(struct oom_json_writer *json,
                           const struct oom_safetensors_entry *metadata, int count) {
    oom_json_key(json, SAFETENSORS_METADATA);
    oom_json_object_begin(json);
    for (int i = 0; i < count; i++) oom_json_put_string(json, metadata[i].key, metadata[i].value);
    oom_json_object_end(json);
}

static void tensor_write(struct oom_json_writer *json, const struct oom_safetensors_tensor *tensor,
                         uint64_t from, uint64_t to) {
    oom_json_key(json, tensor->name);
    oom_json_object_begin(json);
    oom_json_put_string(json, "dtype", safetensors_dtype(tensor->dtype));
    oom_json_key(json, "shape");
    oom_json_array_begin(json);
    for (int i = 0; i < tensor->rank; i++) oom_json_int64(json, tensor->shape[i]);
    oom_json_array_end(json);
    oom_json_key(json, "data_offsets");
    oom_json_array_begin(json);
    oom_json_uint64(json, from);
    oom_json_uint64(json, to);
    oom_json_array_end(json);
    oom_json_object_end(json);
}

static enum oom_status tensors_write(struct oom_json_writer *json,
                                     const struct oom_safetensors_tensor *tensors, int count) {
    uint64_t at = 0, bytes;
    char shown[SAFETENSORS_SHOWN];
    for (int i = 0; i < count; i++) {
        const struct oom_safetensors_tensor *tensor = &tensors[i];
        if ((unsigned)tensor->dtype >= OOM_DTYPE_COUNT ||
            !oom_safetensors_size(tensor->dtype, tensor->rank, tensor->shape, NULL, &bytes) ||
            bytes > (uint64_t)INT64_MAX - at)
            return oom_fail(OOM_INVALID,
                            "safetensors: tensor \"%s\": a dtype, a shape or a file of more bytes "
                            "than can be written",
                            safetensors_shown(tensor->name, shown));
        tensor_write(json, tensor, at, at + bytes);
        at += bytes;
    }
    return OOM_OK;
}

/* The text of n bytes with its length before it and spaces after it. */
static enum oom_status frame(const char *text, size_t n, char **out, size_t *bytes) {
    uint64_t length = (n + ALIGN - 1) / ALIGN * ALIGN;
    if (length > OOM_SAFETENSORS_HEADER_MAX)
        return oom_fail(OOM_INVALID, "safetensors: a header of %zu bytes; at most %d are allowed",
                        n, OOM_SAFETENSORS_HEADER_MAX);
    char *framed = oom_host_alloc(SAFETENSORS_LENGTH_BYTES + (size_t)length);
    if (framed == NULL)
        return oom_fail(OOM_HOST_NOMEM, "safetensors: a header of %zu bytes", (size_t)length);
    memcpy(framed, &length, SAFETENSORS_LENGTH_BYTES);
    memcpy(framed + SAFETENSORS_LENGTH_BYTES, text, n);
    memset(framed + SAFETENSORS_LENGTH_BYTES + n, ' ', (size_t)length - n);
    *out = framed;
    *bytes = SAFETENSORS_LENGTH_BYTES + (size_t)length;
    return OOM_OK;
}

enum oom_status oom_safetensors_header(const struct oom_safetensors_tensor *tensors, int count,
                                       const struct oom_safetensors_entry *metadata,
                                       int metadata_count, char **out, size_t *bytes) {
    OOM_TRY(all_check(tensors, count, metadata, metadata_count));
    struct oom_json_writer json;
    oom_json_writer_init_memory(&json, OOM_JSON_COMPACT);
    oom_json_object_begin(&json);
    if (metadata_count > 0) metadata_write(&json, metadata, metadata_count);
    enum oom_status status = tensors_write(&json, tensors, count);
    oom_json_object_end(&json);
    char *text = NULL;
    size_t n = 0;
    enum oom_status finished = oom_json_writer_finish(&json, &text, &n);
    if (status == OOM_OK) status = finished;
    if (status == OOM_OK) status = frame(text, n, out, bytes);
    oom_host_free(text);
    return status;
}

/* ---- the file ---- */

enum oom_status oom_safetensors_writer_open(struct oom_safetensors_writer *writer,
                                            const char *path) {
    *writer = (struct oom_safetensors_writer){0};
    return writer->status = oom_file_writer_open(&writer->file, path);
}

static enum oom_status misuse(struct oom_safetensors_writer *writer, const char *name,
                              const char *text) {
    char shown[SAFETENSORS_SHOWN];
    return writer->status = oom_fail(OOM_INVALID, "writing \"%.80s\": \"%s\": %s",
                                     writer->file.path, safetensors_shown(name, shown), text);
}

static enum oom_status no_memory(struct oom_safetensors_writer *writer) {
    return writer->status = oom_fail(OOM_HOST_NOMEM, "writing \"%.80s\": %d names to keep",
                                     writer->file.path, writer->count + writer->metadata_count);
}

/* Open, without a failure so far. */
static enum oom_status ready(struct oom_safetensors_writer *writer) {
    if (writer->status == OOM_OK && writer->file.file == NULL)
        writer->status = oom_fail(OOM_INVALID, "writing a safetensors file that is not open");
    return writer->status;
}

/* Room for one more of `each` bytes. */
static bool grow(void *list, int count, int *capacity, size_t each) {
    if (count < *capacity) return true;
    int larger = *capacity * 2 + 16;
    void *old;
    memcpy(&old, list, sizeof old);
    void *grown = oom_host_realloc(old, (size_t)larger * each);
    if (grown == NULL) return false;
    memcpy(list, &grown, sizeof grown);
    *capacity = larger;
    return true;
}

enum oom_status oom_safetensors_writer_metadata(struct oom_safetensors_writer *writer,
                                                const char *key, const char *value) {
    OOM_TRY(ready(writer));
    if (writer->begun) return misuse(writer, key, "metadata after the first data");
    struct oom_safetensors_entry entry = {oom_host_strdup(key), oom_host_strdup(value)};
    if (entry.key == NULL || entry.value == NULL ||
        !grow(&writer->metadata, writer->metadata_count, &writer->metadata_capacity,
              sizeof *writer->metadata)) {
        oom_host_free((char *)entry.key);
        oom_host_free((char *)entry.value);
        return no_memory(writer);
    }
    writer->metadata[writer->metadata_count++] = entry;
    return OOM_OK;
}

enum oom_status oom_safetensors_writer_tensor(struct oom_safetensors_writer *writer,
                                              const char *name, enum oom_dtype dtype, int rank,
                                              const int64_t *shape) {
    OOM_TRY(ready(writer));
    if (writer->begun) return misuse(writer, name, "a tensor after the first data");
    struct oom_safetensors_tensor tensor = {.dtype = dtype, .rank = rank};
    if ((unsigned)dtype >= OOM_DTYPE_COUNT ||
        !oom_safetensors_size(dtype, rank, shape, &tensor.count, &tensor.bytes))
        return misuse(writer, name, "a dtype or shape that cannot be written");
    if (rank > 0) memcpy(tensor.shape, shape, (size_t)rank * sizeof *shape);
    tensor.name = oom_host_strdup(name);
    if (tensor.name == NULL ||
        !grow(&writer->tensors, writer->count, &writer->capacity, sizeof *writer->tensors)) {
        oom_host_free((char *)tensor.name);
        return no_memory(writer);
    }
    writer->tensors[writer->count++] = tensor;
    return OOM_OK;
}

static enum oom_status put(struct oom_safetensors_writer *writer, const void *data, size_t bytes) {
    if (bytes == 0 || fwrite(data, 1, bytes, writer->file.file) == bytes) return OOM_OK;
    int error = errno;
    return writer->status = oom_fail_native(OOM_IO, error, "cannot write \"%.200s\": %s",
                                            writer->file.path, strerror(error));
}

static enum oom_status begin(struct oom_safetensors_writer *writer) {
    char *header;
    size_t bytes;
    writer->begun = true;
    writer->status = oom_safetensors_header(writer->tensors, writer->count, writer->metadata,
                                            writer->metadata_count, &header, &bytes);
    OOM_TRY(writer->status);
    enum oom_status status = put(writer, header, bytes);
    oom_host_free(header);
    return status;
}

/* To the tensor whose bytes come next; the end when all are there. */
static void advance(struct oom_safetensors_writer *writer) {
    while (writer->at < writer->count && writer->written == writer->tensors[writer->at].bytes) {
        writer->at++;
        writer->written = 0;
    }
}

enum oom_status oom_safetensors_writer_data(struct oom_safetensors_writer *writer, const char *name,
                                            const void *data, uint64_t bytes) {
    OOM_TRY(ready(writer));
    if (!writer->begun) OOM_TRY(begin(writer));
    if (bytes == 0) return OOM_OK;
    advance(writer);
    if (writer->at == writer->count) return misuse(writer, name, "data after the last tensor's");
    const struct oom_safetensors_tensor *tensor = &writer->tensors[writer->at];
    if (strcmp(tensor->name, name) != 0) return misuse(writer, name, "its data do not come next");
    if (bytes > tensor->bytes - writer->written)
        return misuse(writer, name, "more data than dtype and shape take");
    OOM_TRY(put(writer, data, (size_t)bytes));
    writer->written += bytes;
    return OOM_OK;
}

enum oom_status oom_safetensors_writer_commit(struct oom_safetensors_writer *writer) {
    if (ready(writer) == OOM_OK && !writer->begun) begin(writer);
    if (writer->status == OOM_OK) advance(writer);
    if (writer->status == OOM_OK && writer->at < writer->count)
        misuse(writer, writer->tensors[writer->at].name, "not all of its data were given");
    enum oom_status status = writer->status;
    if (status == OOM_OK) status = oom_file_writer_commit(&writer->file);
    oom_safetensors_writer_abandon(writer);
    return status;
}

void oom_safetensors_writer_abandon(struct oom_safetensors_writer *writer) {
    oom_file_writer_abandon(&writer->file);
    for (int i = 0; i < writer->count; i++) oom_host_free((char *)writer->tensors[i].name);
    for (int i = 0; i < writer->metadata_count; i++) {
        oom_host_free((char *)writer->metadata[i].key);
        oom_host_free((char *)writer->metadata[i].value);
    }
    oom_host_free(writer->tensors);
    oom_host_free(writer->metadata);
    *writer = (struct oom_safetensors_writer){0};
}

enum oom_status oom_safetensors_write(const char *path,
                                      const struct oom_safetensors_tensor *tensors, int count,
                                      const struct oom_safetensors_entry *metadata,
                                      int metadata_count) {
    struct oom_safetensors_writer writer;
    OOM_TRY(oom_safetensors_writer_open(&writer, path));
    for (int i = 0; i < metadata_count; i++)
        oom_safetensors_writer_metadata(&writer, metadata[i].key, metadata[i].value);
    for (int i = 0; i < count; i++)
        oom_safetensors_writer_tensor(&writer, tensors[i].name, tensors[i].dtype, tensors[i].rank,
                                      tensors[i].shape);
    for (int i = 0; i < count && writer.status == OOM_OK; i++)
        oom_safetensors_writer_data(&writer, tensors[i].name, tensors[i].data,
                                    writer.tensors[i].bytes);
    return oom_safetensors_writer_commit(&writer);
}
