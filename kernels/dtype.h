/*
 * dtype.h: the element types that devices store. Halves are stored as uint16_t (half.h converts).
 */
#ifndef OOM_KERNELS_DTYPE_H
#define OOM_KERNELS_DTYPE_H

#include <stdbool.h>
#include <stdint.h>

typedef uint64_t oom_devptr; /* an address on a device; 0 is no address; never dereferenced */

/* name, bytes, unit roundoff of one rounding to the type (0: not a floating type) */
#define OOM_DTYPE_MAP(X) \
    X(F32, "f32", 4, 0x1p-24) \
    X(F64, "f64", 8, 0x1p-53) \
    X(F16, "f16", 2, 0x1p-11) \
    X(BF16, "bf16", 2, 0x1p-8) \
    X(I32, "i32", 4, 0.0) \
    X(I64, "i64", 8, 0.0) \
    X(U8, "u8", 1, 0.0)

enum oom_dtype {
#define X(id, name, bytes, roundoff) OOM_##id,
    OOM_DTYPE_MAP(X)
#undef X
        OOM_DTYPE_COUNT
};

static inline uint64_t oom_dtype_bytes(enum oom_dtype dtype) {
    static const uint8_t sizes[] = {
#define X(id, name, bytes, roundoff) bytes,
        OOM_DTYPE_MAP(X)
#undef X
    };
    return sizes[dtype];
}

static inline const char *oom_dtype_name(enum oom_dtype dtype) {
    static const char *const names[] = {
#define X(id, name, bytes, roundoff) name,
        OOM_DTYPE_MAP(X)
#undef X
    };
    return (unsigned)dtype < OOM_DTYPE_COUNT ? names[dtype] : "unknown";
}

static inline double oom_dtype_roundoff(enum oom_dtype dtype) {
    static const double roundoffs[] = {
#define X(id, name, bytes, roundoff) roundoff,
        OOM_DTYPE_MAP(X)
#undef X
    };
    return roundoffs[dtype];
}

static inline bool oom_dtype_is_half(enum oom_dtype dtype) {
    return dtype == OOM_F16 || dtype == OOM_BF16;
}

/* What an op computes in, and sums over rows are kept in: f32 for halves (ops.h). */
static inline enum oom_dtype oom_dtype_wide(enum oom_dtype dtype) {
    return oom_dtype_is_half(dtype) ? OOM_F32 : dtype;
}

#endif
