/*
 * safetensors-parts.h: words of the format that reader, writer and the checks share.
 */
#ifndef OOM_HARNESS_BASE_SAFETENSORS_PARTS_H
#define OOM_HARNESS_BASE_SAFETENSORS_PARTS_H

#include "harness/base/safetensors.h"
#include "harness/base/text.h"

#define SAFETENSORS_METADATA "__metadata__" /* a member of the header that is no tensor */

enum {
    SAFETENSORS_LENGTH_BYTES = 8,
    SAFETENSORS_COLUMNS = 40,
    SAFETENSORS_SHOWN = 4 * SAFETENSORS_COLUMNS + 8,
};

/* Names come from files, so for messages they are cut and control characters go. Returns out. */
static inline const char *safetensors_shown(const char *name, char out[SAFETENSORS_SHOWN]) {
    return oom_text_fit(name, SAFETENSORS_COLUMNS, false, out, SAFETENSORS_SHOWN);
}

/* As the format spells it; NULL where there is no such type. */
static inline const char *safetensors_dtype(enum oom_dtype dtype) {
#define X(id, name, bytes, roundoff) #id,
    static const char *const names[] = {OOM_DTYPE_MAP(X)};
#undef X
    return (unsigned)dtype < OOM_DTYPE_COUNT ? names[dtype] : NULL;
}

#endif
