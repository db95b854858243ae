/*
 * safetensors-require.c: what is asked of a file that was read, and the sizes that reader and
 * writer share.
 */
#include "harness/base/safetensors-parts.h"
#include "kernels/hostmem.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { LISTED = 3, QUOTES = 8 };

/* ---- sizes ---- */

bool oom_safetensors_size(enum oom_dtype dtype, int rank, const int64_t *shape, uint64_t *count,
                          uint64_t *bytes) {
    int64_t elements = 1, size;
    if (rank < 0 || rank > OOM_SAFETENSORS_RANK_MAX) return false;
    for (int i = 0; i < rank; i++) {
        if (shape[i] < 0 || __builtin_mul_overflow(elements, shape[i], &elements)) return false;
    }
    if (__builtin_mul_overflow(elements, (int64_t)oom_dtype_bytes(dtype), &size)) return false;
    if (count != NULL) *count = (uint64_t)elements;
    if (bytes != NULL) *bytes = (uint64_t)size;
    return true;
}

char *oom_safetensors_describe(enum oom_dtype dtype, int rank, const int64_t *shape, char *out) {
    const char *name = safetensors_dtype(dtype);
    int at = snprintf(out, OOM_SAFETENSORS_TEXT, "%s [", name != NULL ? name : "unknown");
    for (int i = 0; i < rank && i < OOM_SAFETENSORS_RANK_MAX; i++)
        at += snprintf(out + at, (size_t)(OOM_SAFETENSORS_TEXT - at), "%s%" PRId64,
                       i > 0 ? ", " : "", shape[i]);
    snprintf(out + at, (size_t)(OOM_SAFETENSORS_TEXT - at), "]");
    return out;
}

/* ---- looking ---- */

static int name_compare(const void *name, const void *element) {
    const struct oom_safetensors_tensor *const *tensor = element;
    return strcmp(name, (*tensor)->name);
}

const struct oom_safetensors_tensor *oom_safetensors_find(const struct oom_safetensors *file,
                                                          const char *name) {
    if (file->count == 0) return NULL;
    const struct oom_safetensors_tensor **found =
        bsearch(name, file->by_name, (size_t)file->count, sizeof *file->by_name, name_compare);
    return found == NULL ? NULL : *found;
}

static int key_compare(const void *key, const void *element) {
    return strcmp(key, ((const struct oom_safetensors_entry *)element)->key);
}

const char *oom_safetensors_metadata(const struct oom_safetensors *file, const char *key) {
    if (file->metadata_count == 0) return NULL;
    const struct oom_safetensors_entry *found = bsearch(
        key, file->metadata, (size_t)file->metadata_count, sizeof *file->metadata, key_compare);
    return found == NULL ? NULL : found->value;
}

enum oom_status oom_safetensors_copy(const struct oom_safetensors_tensor *tensor, uint64_t first,
                                     uint64_t count, void *out) {
    char shown[SAFETENSORS_SHOWN];
    if (first > tensor->count || count > tensor->count - first)
        return oom_fail(OOM_INVALID,
                        "tensor \"%s\": elements from %" PRIu64 ", %" PRIu64
                        " of them, were asked for; it has %" PRIu64,
                        safetensors_shown(tensor->name, shown), first, count, tensor->count);
    uint64_t each = oom_dtype_bytes(tensor->dtype);
    if (count > 0) memcpy(out, (const char *)tensor->data + first * each, count * each);
    return OOM_OK;
}

/* ---- requiring ---- */

static bool same_shape(const struct oom_safetensors_tensor *tensor, int rank,
                       const int64_t *shape) {
    for (int i = 0; i < rank && i < tensor->rank; i++) {
        if (tensor->shape[i] != shape[i]) return false;
    }
    return tensor->rank == rank;
}

enum oom_status oom_safetensors_expect(const struct oom_safetensors *file, const char *name,
                                       enum oom_dtype dtype, int rank, const int64_t *shape,
                                       const struct oom_safetensors_tensor **out) {
    char expected[OOM_SAFETENSORS_TEXT], found[OOM_SAFETENSORS_TEXT], shown[SAFETENSORS_SHOWN];
    const struct oom_safetensors_tensor *tensor = oom_safetensors_find(file, name);
    oom_safetensors_describe(dtype, rank, shape, expected);
    if (tensor == NULL)
        return oom_fail(OOM_USAGE, "%.80s: tensor \"%s\" is missing; expected %s", file->path,
                        safetensors_shown(name, shown), expected);
    oom_safetensors_describe(tensor->dtype, tensor->rank, tensor->shape, found);
    if (tensor->dtype != dtype || !same_shape(tensor, rank, shape))
        return oom_fail(OOM_USAGE, "%.80s: tensor \"%s\": %s; expected %s, found %s", file->path,
                        safetensors_shown(name, shown),
                        tensor->dtype != dtype ? "wrong dtype" : "wrong shape", expected, found);
    if (out != NULL) *out = tensor;
    return OOM_OK;
}

/* The first few that are not wanted, in the order of their data. */
static enum oom_status extra_refuse(const struct oom_safetensors *file, const bool *wanted,
                                    int extra) {
    char list[LISTED * (SAFETENSORS_SHOWN + QUOTES)] = "", shown[SAFETENSORS_SHOWN];
    size_t at = 0;
    int listed = 0;
    for (int i = 0; i < file->count && listed < LISTED; i++) {
        if (wanted[i]) continue;
        at += (size_t)snprintf(list + at, sizeof list - at, "%s\"%s\"", listed++ > 0 ? ", " : "",
                               safetensors_shown(file->tensors[i].name, shown));
    }
    return oom_fail(OOM_USAGE, "%.80s: %d tensor%s that nothing here is made for: %s%s", file->path,
                    extra, extra > 1 ? "s" : "", list, extra > LISTED ? ", ..." : "");
}

enum oom_status oom_safetensors_only(const struct oom_safetensors *file, const char *const *names,
                                     int count) {
    if (file->count == 0) return OOM_OK;
    bool *wanted = oom_host_calloc((size_t)file->count, sizeof *wanted);
    if (wanted == NULL)
        return oom_fail(OOM_HOST_NOMEM, "%.80s: no host memory to compare %d names", file->path,
                        file->count);
    int extra = file->count;
    for (int i = 0; i < count; i++) {
        const struct oom_safetensors_tensor *tensor = oom_safetensors_find(file, names[i]);
        if (tensor == NULL || wanted[tensor - file->tensors]) continue;
        wanted[tensor - file->tensors] = true;
        extra--;
    }
    enum oom_status status = extra == 0 ? OOM_OK : extra_refuse(file, wanted, extra);
    oom_host_free(wanted);
    return status;
}

/* ---- naming ---- */

char *oom_safetensors_index(const struct oom_safetensors_tensor *tensor, uint64_t element,
                            char *out) {
    uint64_t index[OOM_SAFETENSORS_RANK_MAX] = {0};
    for (int i = tensor->rank - 1; i >= 0; i--) {
        index[i] = element % (uint64_t)tensor->shape[i];
        element /= (uint64_t)tensor->shape[i];
    }
    int at = snprintf(out, OOM_SAFETENSORS_TEXT, "[");
    for (int i = 0; i < tensor->rank; i++)
        at += snprintf(out + at, (size_t)(OOM_SAFETENSORS_TEXT - at), "%s%" PRIu64,
                       i > 0 ? ", " : "", index[i]);
    snprintf(out + at, (size_t)(OOM_SAFETENSORS_TEXT - at), "]");
    return out;
}
