/*
 * safetensors.c: the reader.
 *
 * The header is read twice by the same code, first to check and count, then to store: what is
 * allocated is then exactly what was found, however the header was made. No tree is built, for a
 * tree of a hostile header of 100 MB would take gigabytes.
 */
#include "harness/base/safetensors-parts.h"
#include "harness/base/json-scan.h"
#include "kernels/hostmem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the data are little-endian");

enum { HEADER_LEAST = 2 };

struct reader {
    struct oom_json_scan scan; /* from the file's first byte to the header's end */
    struct oom_safetensors *file;
    const char *data;
    uint64_t data_bytes;
    char name[SAFETENSORS_SHOWN]; /* of the tensor at hand, cut */

    int tensors, entries; /* so far */
    bool metadata_seen;
    size_t text_bytes;
    bool storing; /* else only counting */
};

/* A tensor as the header says it, before anything is believed. */
struct claim {
    struct oom_safetensors_tensor tensor;
    uint64_t from, to;
    unsigned seen; /* a bit for each of the fields below */
};

static enum oom_status refuse(const struct reader *reader, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Of the tensor at hand. */
static enum oom_status refuse(const struct reader *reader, const char *format, ...) {
    char text[256], name[SAFETENSORS_SHOWN];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return oom_fail(OOM_USAGE, "%.80s: tensor \"%s\": %s", reader->file->path,
                    safetensors_shown(reader->name, name), text);
}

/* ---- texts ---- */

/* The next text, a key where `key`, into the place for texts; `shown` (n bytes) gets its beginning.
 * *out is "" while counting. */
static enum oom_status text_read(struct reader *reader, bool key, char *shown, size_t n,
                                 const char **out) {
    struct oom_json_scan ahead = reader->scan;
    size_t bytes;
    OOM_TRY(oom_json_scan_text(&ahead, shown, n, &bytes));
    char none[1] = "";
    char *place = reader->storing ? reader->file->text + reader->text_bytes : none;
    size_t room = reader->storing ? bytes + 1 : sizeof none;
    *out = reader->storing ? place : "";
    reader->text_bytes += bytes + 1;
    if (key) return oom_json_scan_key(&reader->scan, place, room);
    return oom_json_scan_text(&reader->scan, place, room, NULL);
}

static enum oom_status metadata_read(struct reader *reader) {
    const char *path = reader->file->path;
    if (reader->metadata_seen)
        return oom_fail(OOM_USAGE, "%.80s: %s stands twice in the header", path,
                        SAFETENSORS_METADATA);
    reader->metadata_seen = true;
    if (oom_json_scan_peek(&reader->scan) != '{')
        return oom_fail(OOM_USAGE, "%.80s: %s must be an object of texts", path,
                        SAFETENSORS_METADATA);
    bool more;
    OOM_TRY(oom_json_scan_open(&reader->scan, '{', &more));
    while (more) {
        struct oom_safetensors_entry entry;
        char shown[SAFETENSORS_SHOWN], name[SAFETENSORS_SHOWN], rest[1];
        OOM_TRY(text_read(reader, true, shown, sizeof shown, &entry.key));
        if (oom_json_scan_peek(&reader->scan) != '"')
            return oom_fail(OOM_USAGE, "%.80s: %s: the value of \"%s\" must be a text", path,
                            SAFETENSORS_METADATA, safetensors_shown(shown, name));
        OOM_TRY(text_read(reader, false, rest, sizeof rest, &entry.value));
        if (reader->storing) reader->file->metadata[reader->entries] = entry;
        reader->entries++;
        OOM_TRY(oom_json_scan_next(&reader->scan, '{', &more));
    }
    return OOM_OK;
}

/* ---- the fields of a tensor ---- */

/* A whole number, written as JSON's integers are, without sign. */
static enum oom_status whole_read(struct reader *reader, const char *what, uint64_t *out) {
    struct oom_json_scan *scan = &reader->scan;
    oom_json_scan_peek(scan);
    size_t start = scan->at;
    int64_t value = 0;
    bool fits = true;
    for (; scan->at < scan->end; scan->at++) {
        int digit = scan->text[scan->at] - '0';
        if (digit < 0 || digit > 9) break;
        fits = fits && !__builtin_mul_overflow(value, 10, &value) &&
               !__builtin_add_overflow(value, digit, &value);
    }
    size_t digits = scan->at - start;
    bool plain = scan->at < scan->end && strchr(".eE", scan->text[scan->at]) == NULL;
    if (digits == 0 || !plain || (digits > 1 && scan->text[start] == '0') || !fits)
        return refuse(reader, "%s: byte %zu: a whole number from 0 to %" PRId64 " is expected",
                      what, start, INT64_MAX);
    *out = (uint64_t)value;
    return OOM_OK;
}

/* What the format knows and we do not read. */
static const char *const other_dtypes[] = {
    "BOOL",        "F4",          "F6_E2M3", "F6_E3M2", "I8",  "F8_E5M2", "F8_E4M3", "F8_E8M0",
    "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I16",     "U16",     "U32", "C64",     "U64",
};

#define X(id, name, bytes, roundoff) " " #id
static const char dtypes_read[] = OOM_DTYPE_MAP(X);
#undef X

static enum oom_status dtype_read(struct reader *reader, struct claim *claim) {
    char text[SAFETENSORS_SHOWN], shown[SAFETENSORS_SHOWN];
    if (oom_json_scan_peek(&reader->scan) != '"') return refuse(reader, "dtype must be a text");
    OOM_TRY(oom_json_scan_text(&reader->scan, text, sizeof text, NULL));
    for (int i = 0; i < OOM_DTYPE_COUNT; i++) {
        if (strcmp(text, safetensors_dtype((enum oom_dtype)i)) != 0) continue;
        claim->tensor.dtype = (enum oom_dtype)i;
        return OOM_OK;
    }
    for (size_t i = 0; i < sizeof other_dtypes / sizeof other_dtypes[0]; i++) {
        if (strcmp(text, other_dtypes[i]) == 0)
            return refuse(reader, "dtype %s is not read here; expected one of%s", text,
                          dtypes_read);
    }
    return refuse(reader, "dtype \"%s\" is unknown; expected one of%s",
                  safetensors_shown(text, shown), dtypes_read);
}

static enum oom_status shape_read(struct reader *reader, struct claim *claim) {
    struct oom_safetensors_tensor *tensor = &claim->tensor;
    bool more;
    if (oom_json_scan_peek(&reader->scan) != '[')
        return refuse(reader, "shape must be a row of numbers");
    OOM_TRY(oom_json_scan_open(&reader->scan, '[', &more));
    while (more) {
        uint64_t length;
        if (tensor->rank == OOM_SAFETENSORS_RANK_MAX)
            return refuse(reader, "more than %d dimensions", OOM_SAFETENSORS_RANK_MAX);
        OOM_TRY(whole_read(reader, "shape", &length));
        tensor->shape[tensor->rank++] = (int64_t)length;
        OOM_TRY(oom_json_scan_next(&reader->scan, '[', &more));
    }
    return OOM_OK;
}

static enum oom_status offsets_read(struct reader *reader, struct claim *claim) {
    bool more = false;
    if (oom_json_scan_peek(&reader->scan) == '[')
        OOM_TRY(oom_json_scan_open(&reader->scan, '[', &more));
    uint64_t offsets[2] = {0};
    int count = 0;
    for (; more && count < 2; count++) {
        OOM_TRY(whole_read(reader, "data_offsets", &offsets[count]));
        OOM_TRY(oom_json_scan_next(&reader->scan, '[', &more));
    }
    claim->from = offsets[0];
    claim->to = offsets[1];
    if (count == 2 && !more) return OOM_OK;
    return refuse(reader, "data_offsets must be two numbers, from and to");
}

static const struct {
    const char *name;
    enum oom_status (*read)(struct reader *, struct claim *);
} fields[] = {{"dtype", dtype_read}, {"shape", shape_read}, {"data_offsets", offsets_read}};
enum { FIELDS = sizeof fields / sizeof fields[0] };

static enum oom_status field_read(struct reader *reader, struct claim *claim) {
    struct oom_json_scan ahead = reader->scan;
    char key[SAFETENSORS_SHOWN], shown[SAFETENSORS_SHOWN];
    OOM_TRY(oom_json_scan_text(&ahead, key, sizeof key, NULL));
    OOM_TRY(oom_json_scan_key(&reader->scan, (char[1]){0}, 1));
    for (int i = 0; i < FIELDS; i++) {
        if (strcmp(key, fields[i].name) != 0) continue;
        if (claim->seen & 1u << i) return refuse(reader, "%s stands twice", key);
        claim->seen |= 1u << i;
        return fields[i].read(reader, claim);
    }
    return refuse(reader, "the field \"%s\" is none of the format", safetensors_shown(key, shown));
}

/* ---- a tensor ---- */

/* Offsets within the data, and as many bytes as dtype and shape take. */
static enum oom_status claim_check(const struct reader *reader, struct claim *claim) {
    struct oom_safetensors_tensor *tensor = &claim->tensor;
    char what[OOM_SAFETENSORS_TEXT];
    oom_safetensors_describe(tensor->dtype, tensor->rank, tensor->shape, what);
    if (!oom_safetensors_size(tensor->dtype, tensor->rank, tensor->shape, &tensor->count,
                              &tensor->bytes))
        return refuse(reader, "%s has more bytes than 63 bits can hold", what);
    if (claim->from > claim->to)
        return refuse(reader, "data_offsets [%" PRIu64 ", %" PRIu64 "] end before they begin",
                      claim->from, claim->to);
    if (claim->to - claim->from != tensor->bytes)
        return refuse(reader,
                      "%s takes %" PRIu64 " bytes; data_offsets [%" PRIu64 ", %" PRIu64
                      "] are %" PRIu64,
                      what, tensor->bytes, claim->from, claim->to, claim->to - claim->from);
    if (claim->to > reader->data_bytes)
        return refuse(reader,
                      "data_offsets [%" PRIu64 ", %" PRIu64 "], but the file has %" PRIu64
                      " bytes of data; it is cut off, or the offsets are wrong",
                      claim->from, claim->to, reader->data_bytes);
    return OOM_OK;
}

static enum oom_status tensor_read(struct reader *reader, const char *name) {
    struct claim claim = {.tensor.name = name};
    bool more;
    if (oom_json_scan_peek(&reader->scan) != '{')
        return refuse(reader, "an object with dtype, shape and data_offsets is expected");
    OOM_TRY(oom_json_scan_open(&reader->scan, '{', &more));
    while (more) {
        OOM_TRY(field_read(reader, &claim));
        OOM_TRY(oom_json_scan_next(&reader->scan, '{', &more));
    }
    for (int i = 0; i < FIELDS; i++) {
        if (!(claim.seen & 1u << i)) return refuse(reader, "%s is missing", fields[i].name);
    }
    OOM_TRY(claim_check(reader, &claim));
    claim.tensor.data = reader->data + claim.from;
    if (reader->storing) reader->file->tensors[reader->tensors] = claim.tensor;
    reader->tensors++;
    return OOM_OK;
}

/* ---- the header ---- */

static enum oom_status header_read(struct reader *reader) {
    struct oom_json_scan *scan = &reader->scan;
    bool more;
    scan->at = SAFETENSORS_LENGTH_BYTES;
    reader->tensors = reader->entries = 0;
    reader->metadata_seen = false;
    reader->text_bytes = 0;
    OOM_TRY(oom_json_scan_open(scan, '{', &more));
    while (more) {
        const char *name;
        OOM_TRY(text_read(reader, true, reader->name, sizeof reader->name, &name));
        bool metadata = strcmp(reader->name, SAFETENSORS_METADATA) == 0;
        OOM_TRY(metadata ? metadata_read(reader) : tensor_read(reader, name));
        OOM_TRY(oom_json_scan_next(scan, '{', &more));
    }
    while (scan->at < scan->end && scan->text[scan->at] == ' ') scan->at++;
    if (scan->at < scan->end)
        return oom_json_scan_refuse(scan, "only spaces may follow the header's object");
    return OOM_OK;
}

/* n of them; NULL where there are none, which is no failure. */
static bool list_make(int n, size_t each, void *out) {
    void *list = n > 0 ? oom_host_calloc((size_t)n, each) : NULL;
    memcpy(out, &list, sizeof list);
    return n == 0 || list != NULL;
}

static enum oom_status store(struct reader *reader) {
    struct oom_safetensors *file = reader->file;
    bool made = list_make(reader->tensors, sizeof *file->tensors, &file->tensors) &&
                list_make(reader->tensors, sizeof(void *), &file->by_name) &&
                list_make(reader->entries, sizeof *file->metadata, &file->metadata) &&
                list_make((int)reader->text_bytes, 1, &file->text);
    if (!made)
        return oom_fail(OOM_HOST_NOMEM, "%.80s: no host memory for the names of %d tensors",
                        file->path, reader->tensors);
    reader->storing = true;
    OOM_TRY(header_read(reader));
    file->count = reader->tensors;
    file->metadata_count = reader->entries;
    return OOM_OK;
}

/* ---- what the tensors must be to each other ---- */

static int by_data(const void *a, const void *b) {
    const struct oom_safetensors_tensor *x = a, *y = b;
    const char *from_x = x->data, *from_y = y->data;
    if (from_x != from_y) return from_x < from_y ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return (x->name > y->name) - (x->name < y->name); /* names lie in the order of the header */
}

static int by_name(const void *a, const void *b) {
    const struct oom_safetensors_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static int by_key(const void *a, const void *b) {
    return strcmp(((const struct oom_safetensors_entry *)a)->key,
                  ((const struct oom_safetensors_entry *)b)->key);
}

/* Tensors in the order of their data; names and keys in that of their letters. */
static void arrange(struct oom_safetensors *file) {
    if (file->count > 1) qsort(file->tensors, (size_t)file->count, sizeof *file->tensors, by_data);
    for (int i = 0; i < file->count; i++) file->by_name[i] = &file->tensors[i];
    if (file->count > 1) qsort(file->by_name, (size_t)file->count, sizeof *file->by_name, by_name);
    if (file->metadata_count > 1)
        qsort(file->metadata, (size_t)file->metadata_count, sizeof *file->metadata, by_key);
}

static enum oom_status once(const struct oom_safetensors *file) {
    char shown[SAFETENSORS_SHOWN];
    for (int i = 1; i < file->count; i++) {
        if (by_name(&file->by_name[i - 1], &file->by_name[i]) == 0)
            return oom_fail(OOM_USAGE, "%.80s: tensor \"%s\" stands twice in the header",
                            file->path, safetensors_shown(file->by_name[i]->name, shown));
    }
    for (int i = 1; i < file->metadata_count; i++) {
        if (by_key(&file->metadata[i - 1], &file->metadata[i]) == 0)
            return oom_fail(OOM_USAGE, "%.80s: %s: \"%s\" stands twice", file->path,
                            SAFETENSORS_METADATA, safetensors_shown(file->metadata[i].key, shown));
    }
    return OOM_OK;
}

/* Every byte of the data belongs to exactly one tensor. */
static enum oom_status covered(struct reader *reader) {
    struct oom_safetensors *file = reader->file;
    uint64_t end = 0;
    char shown[SAFETENSORS_SHOWN];
    for (int i = 0; i < file->count; i++) {
        const struct oom_safetensors_tensor *tensor = &file->tensors[i];
        uint64_t from = (uint64_t)((const char *)tensor->data - reader->data);
        snprintf(reader->name, sizeof reader->name, "%.*s", SAFETENSORS_SHOWN - 1, tensor->name);
        if (from > end)
            return refuse(reader,
                          "begins at byte %" PRIu64 " of the data; expected %" PRIu64
                          ": what lies between belongs to no tensor",
                          from, end);
        if (from < end)
            return refuse(reader,
                          "begins at byte %" PRIu64 " of the data; expected %" PRIu64
                          ": it overlaps \"%s\"",
                          from, end, safetensors_shown(tensor[-1].name, shown));
        end += tensor->bytes;
    }
    if (end != reader->data_bytes)
        return oom_fail(OOM_USAGE,
                        "%.80s: %" PRIu64 " bytes of data; expected %" PRIu64
                        ": what follows the last tensor belongs to none",
                        file->path, reader->data_bytes, end);
    return OOM_OK;
}

/* ---- the file ---- */

static enum oom_status length_read(const char *path, const char *bytes, size_t n, size_t *header) {
    uint64_t length;
    if (n < SAFETENSORS_LENGTH_BYTES + HEADER_LEAST)
        return oom_fail(OOM_USAGE, "%.80s: %zu bytes; a safetensors file has at least %d", path, n,
                        SAFETENSORS_LENGTH_BYTES + HEADER_LEAST);
    memcpy(&length, bytes, sizeof length);
    if (length > OOM_SAFETENSORS_HEADER_MAX)
        return oom_fail(OOM_USAGE,
                        "%.80s: a header of %" PRIu64
                        " bytes, by its first 8 bytes; at most %d are allowed",
                        path, length, OOM_SAFETENSORS_HEADER_MAX);
    if (length > n - SAFETENSORS_LENGTH_BYTES)
        return oom_fail(OOM_USAGE,
                        "%.80s: a header of %" PRIu64
                        " bytes, by its first 8 bytes, but only %zu follow; it is cut off",
                        path, length, n - SAFETENSORS_LENGTH_BYTES);
    if (length < HEADER_LEAST || bytes[SAFETENSORS_LENGTH_BYTES] != '{')
        return oom_fail(OOM_USAGE, "%.80s: the header must begin with '{', at byte %d", path,
                        SAFETENSORS_LENGTH_BYTES);
    *header = (size_t)length;
    return OOM_OK;
}

enum oom_status oom_safetensors_parse(const char *path, const void *bytes, size_t n,
                                      struct oom_safetensors *out) {
    size_t header = 0;
    *out = (struct oom_safetensors){.path = path};
    OOM_TRY(length_read(path, bytes, n, &header));
    struct reader reader = {
        .file = out,
        .scan = {path, bytes, SAFETENSORS_LENGTH_BYTES, SAFETENSORS_LENGTH_BYTES + header, 0},
        .data = (const char *)bytes + SAFETENSORS_LENGTH_BYTES + header,
        .data_bytes = n - SAFETENSORS_LENGTH_BYTES - header};
    enum oom_status status = header_read(&reader);
    if (status == OOM_OK) status = store(&reader);
    if (status == OOM_OK) arrange(out);
    if (status == OOM_OK) status = once(out);
    if (status == OOM_OK) status = covered(&reader);
    if (status != OOM_OK) oom_safetensors_close(out);
    return status;
}

static enum oom_status fail_path(const char *path) {
    int error = errno;
    return oom_fail_native(OOM_IO, error, "cannot read \"%.200s\": %s", path, strerror(error));
}

/* An empty file has no mapping: *bytes is 0 then. */
static enum oom_status map(int fd, const char *path, void **mapping, size_t *bytes) {
    struct stat info;
    if (fstat(fd, &info) != 0) return fail_path(path);
    if (!S_ISREG(info.st_mode))
        return oom_fail(OOM_USAGE, "%.200s: a safetensors file must be a regular file", path);
    *bytes = (size_t)info.st_size;
    if (*bytes == 0) return OOM_OK;
    *mapping = mmap(NULL, *bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    return *mapping != MAP_FAILED ? OOM_OK : fail_path(path);
}

enum oom_status oom_safetensors_open(const char *path, struct oom_safetensors *out) {
    *out = (struct oom_safetensors){.path = path};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* no wait where a pipe has no writer */
    if (fd < 0) return fail_path(path);
    void *mapping = NULL;
    size_t bytes = 0;
    enum oom_status status = map(fd, path, &mapping, &bytes);
    close(fd);
    OOM_TRY(status);
    status = oom_safetensors_parse(path, mapping, bytes, out);
    if (status != OOM_OK) {
        if (bytes > 0) munmap(mapping, bytes);
        return status;
    }
    out->mapping = mapping;
    out->mapped = bytes;
    return OOM_OK;
}

void oom_safetensors_close(struct oom_safetensors *file) {
    oom_host_free(file->tensors);
    oom_host_free(file->by_name);
    oom_host_free(file->metadata);
    oom_host_free(file->text);
    if (file->mapping != NULL) munmap(file->mapping, file->mapped);
    *file = (struct oom_safetensors){.path = file->path};
}
