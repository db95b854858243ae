/*
 * safetensors.h: reads and writes files of tensors in the safetensors format, strictly.
 *
 *   8 bytes   N, the length of the header, little-endian, at most 100,000,000
 *   N bytes   JSON, from '{' on, filled up with spaces:
 *             {"__metadata__": {text: text}, NAME: {"dtype", "shape", "data_offsets": [from, to]}}
 *   the rest  the data, little-endian, row-major; every byte of it belongs to exactly one tensor
 *
 * Source: https://github.com/huggingface/safetensors (README, "Format"). What breaks a rule of it
 * is refused, and so is what only we do not take: other dtypes, more than 8 dimensions, fields that
 * are not of the format, NUL within a text. Values are not looked at.
 *
 * An open file owns its names and a read-only mapping of the bytes until close; the path is the
 * caller's and must outlive it. Whoever shortens the file meanwhile ends the process, as with every
 * mapping; files written here are replaced, never shortened. Host memory: at most 4 bytes for each
 * byte of header. Failure: OOM_IO; OOM_USAGE naming file, tensor, what is expected and what was
 * found; OOM_HOST_NOMEM. Then *out owns nothing.
 */
#ifndef OOM_HARNESS_BASE_SAFETENSORS_H
#define OOM_HARNESS_BASE_SAFETENSORS_H

#include "harness/base/file.h"
#include "kernels/dtype.h"
#include "kernels/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    OOM_SAFETENSORS_RANK_MAX = 8,
    OOM_SAFETENSORS_HEADER_MAX = 100000000, /* bytes */
    OOM_SAFETENSORS_TEXT = 192,             /* room for "BF16 [1, 2, 3]" with every dimension */
};

struct oom_safetensors_tensor {
    const char *name; /* UTF-8; may be empty */
    enum oom_dtype dtype;
    int rank; /* 0: one element */
    int64_t shape[OOM_SAFETENSORS_RANK_MAX];
    uint64_t count, bytes; /* elements, and what they take */
    const void *data;      /* row-major; aligned to nothing, so read it by oom_safetensors_copy */
};

struct oom_safetensors_entry {
    const char *key, *value; /* UTF-8 */
};

struct oom_safetensors {
    const char *path; /* for messages */
    int count, metadata_count;
    struct oom_safetensors_tensor *tensors; /* in the order of their data */
    struct oom_safetensors_entry *metadata; /* by key */

    const struct oom_safetensors_tensor **by_name; /* private, like what follows */
    char *text;
    void *mapping;
    size_t mapped;
};

enum oom_status oom_safetensors_open(const char *path, struct oom_safetensors *out);
/* The same of bytes in memory, which stay the caller's and must outlive *out. */
enum oom_status oom_safetensors_parse(const char *path, const void *bytes, size_t n,
                                      struct oom_safetensors *out);
void oom_safetensors_close(struct oom_safetensors *file); /* harmless on a closed or zeroed one */

/* NULL where there is none. */
const struct oom_safetensors_tensor *oom_safetensors_find(const struct oom_safetensors *file,
                                                          const char *name);
const char *oom_safetensors_metadata(const struct oom_safetensors *file, const char *key);

/* Elements [first, first + count) into out, which has the alignment of its type. OOM_INVALID where
 * the tensor has fewer. */
enum oom_status oom_safetensors_copy(const struct oom_safetensors_tensor *tensor, uint64_t first,
                                     uint64_t count, void *out);

/* ---- what a caller requires; OOM_USAGE where it is not so ---- */

/* *out (may be NULL): the tensor of that name, which has this dtype and shape (rank). */
enum oom_status oom_safetensors_expect(const struct oom_safetensors *file, const char *name,
                                       enum oom_dtype dtype, int rank, const int64_t *shape,
                                       const struct oom_safetensors_tensor **out);
/* There is no tensor but those named (which need not be there). */
enum oom_status oom_safetensors_only(const struct oom_safetensors *file, const char *const *names,
                                     int count);
/* The place of an element that is there, for a message: "[2, 1]". Returns `out`, which has
 * OOM_SAFETENSORS_TEXT bytes. */
char *oom_safetensors_index(const struct oom_safetensors_tensor *tensor, uint64_t element,
                            char *out);

/* ---- writing ----
 *
 * Say all tensors, then give their bytes in the same order, in pieces of any length; the file is
 * there, whole, after commit, or as it was before. The order is that of the calls, so the same
 * calls make the same file. The data begin at a multiple of 8; where the elements shall be aligned,
 * too, say the wider types first. A writer owns what it was told (names are copied) until commit or
 * abandon. Failure is sticky: OOM_IO, OOM_HOST_NOMEM, or OOM_INVALID for what no reader would take
 * (a name twice, no UTF-8, a size beyond 63 bits) and for bytes that are not the next ones. */

struct oom_safetensors_writer { /* private to safetensors-write.c */
    struct oom_file_writer file;
    struct oom_safetensors_tensor *tensors;
    struct oom_safetensors_entry *metadata;
    int count, capacity, metadata_count, metadata_capacity;
    bool begun;       /* the header is written */
    int at;           /* the tensor whose bytes come next */
    uint64_t written; /* of its bytes */
    enum oom_status status;
};

enum oom_status oom_safetensors_writer_open(struct oom_safetensors_writer *writer,
                                            const char *path);
enum oom_status oom_safetensors_writer_metadata(struct oom_safetensors_writer *writer,
                                                const char *key, const char *value);
enum oom_status oom_safetensors_writer_tensor(struct oom_safetensors_writer *writer,
                                              const char *name, enum oom_dtype dtype, int rank,
                                              const int64_t *shape);
/* The next `bytes` of tensor `name`, row-major. */
enum oom_status oom_safetensors_writer_data(struct oom_safetensors_writer *writer, const char *name,
                                            const void *data, uint64_t bytes);
/* The first failure, if any; OOM_INVALID while bytes are missing. Closed, whatever comes back. */
enum oom_status oom_safetensors_writer_commit(struct oom_safetensors_writer *writer);
/* Removes the temporary file. Harmless on a writer that is not open. */
void oom_safetensors_writer_abandon(struct oom_safetensors_writer *writer);

/* A whole file at once: of each tensor name, dtype, rank, shape and data count. */
enum oom_status oom_safetensors_write(const char *path,
                                      const struct oom_safetensors_tensor *tensors, int count,
                                      const struct oom_safetensors_entry *metadata,
                                      int metadata_count);

/* What stands before the data, padded, with its length: *out (oom_host_free), *bytes. */
enum oom_status oom_safetensors_header(const struct oom_safetensors_tensor *tensors, int count,
                                       const struct oom_safetensors_entry *metadata,
                                       int metadata_count, char **out, size_t *bytes);

/* ---- shared by both ---- */

/* Elements and bytes (either may be NULL). False: more than 8 dimensions, a negative one, or more
 * bytes than 63 bits hold. */
bool oom_safetensors_size(enum oom_dtype dtype, int rank, const int64_t *shape, uint64_t *count,
                          uint64_t *bytes);
/* "F32 [2, 3]", as the format spells it; out has room for OOM_SAFETENSORS_TEXT bytes. Returns out.
 */
char *oom_safetensors_describe(enum oom_dtype dtype, int rank, const int64_t *shape, char *out);

#endif
