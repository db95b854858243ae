/*
 * array.c: the ops that walk over arrays of one dtype: GELU, ReLU, SGD, AdamW, fill, scale, axpy,
 * finite_check. Formulas in ops.h, bodies of several terms in elementwise.h.
 *
 * Every element is read and written once, in place or not: bytes per f32 element 4 (fill,
 * finite_check), 8 (gelu_forward, relu, scale), 12 (gelu_backward, axpy), 20 (sgd), 28 (adamw);
 * half of that for halves (axpy: 10, y being f32). Threads take contiguous shares.
 */
#include "kernels/host/isa/vector-math.h"
#include "kernels/host/kernels.h"

/* Elements by which shares are cut: whole vectors and cache lines for everyone. */
enum { GRAIN = 256 };

/* A kernel from op_at(args, first element, how many), which handles at most one vector. The args
 * are copied so that stores cannot be thought to change them. */
#define ARRAY_KERNEL(op) \
    static void OOM_R(op)(const struct oom_##op##_args *args, const struct oom_host_part *part) { \
        const struct oom_##op##_args a = *args; \
        int64_t i, end; \
        oom_host_share(a.n, GRAIN, part, &i, &end); \
        for (; i + REAL_LANES <= end; i += REAL_LANES) OOM_R(op##_at)(&a, i, REAL_LANES); \
        if (i < end) OOM_R(op##_at)(&a, i, end - i); \
    }

/* Bytes as masks: -1 where the byte is not 0. */
typedef uint8_t bytes_vf __attribute__((vector_size(OOM_VF_LANES)));
typedef uint8_t bytes_vd __attribute__((vector_size(OOM_VD_LANES)));

#define BYTE_MASK(v, vm, LANES) \
    OOM_FUNCTION vm byte_mask_##v(const uint8_t *p, int64_t n) { \
        bytes_##v bytes = {0}; \
        memcpy(&bytes, p, n >= LANES ? (size_t)LANES : (size_t)n); \
        return __builtin_convertvector(bytes, vm) != 0; \
    }

BYTE_MASK(vf, oom_vi, OOM_VF_LANES)
BYTE_MASK(vd, oom_vl, OOM_VD_LANES)

#define OOM_BODY "kernels/host/isa/array-body.h"
#include "kernels/host/isa/each-dtype.h"

OOM_KERNEL_OF(gelu_forward, OOM_BY_DTYPE)
OOM_KERNEL_OF(gelu_backward, OOM_BY_DTYPE)
OOM_KERNEL_OF(relu_forward, OOM_BY_DTYPE)
OOM_KERNEL_OF(relu_backward, OOM_BY_DTYPE)
OOM_KERNEL_OF(fill, OOM_BY_DTYPE)
OOM_KERNEL_OF(scale, OOM_BY_DTYPE)
OOM_KERNEL_OF(axpy, OOM_BY_DTYPE)
OOM_KERNEL_OF(finite_check, OOM_BY_DTYPE)
OOM_KERNEL_OF(sgd, OOM_BY_WIDE)
OOM_KERNEL_OF(adamw, OOM_BY_WIDE)
