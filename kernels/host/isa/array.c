/*
 * array.c: the ops that walk over arrays: GELU, ReLU, SGD, AdamW, fill, copy, scale, axpy, add,
 * finite_check. Formulas in ops.h, bodies of several terms in elementwise.h.
 *
 * Every element is read and written once, in place or not: bytes per f32 element 4 (fill,
 * finite_check), 8 (gelu_forward, relu, scale, copy), 12 (gelu_backward, axpy, add), 20 (sgd),
 * 28 (adamw). Threads take contiguous shares.
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

#define ARRAY_DISPATCH(op) \
    void OOM_HOST_KERNEL(op)(const void *args, const struct oom_host_part *part) { \
        const struct oom_##op##_args *a = args; \
        if (a->dtype == OOM_F32) \
            op##_f32(a, part); \
        else \
            op##_f64(a, part); \
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

#define OOM_REAL 32
#include "kernels/host/isa/real.h"
#include "kernels/host/isa/array-body.h"
#undef OOM_REAL
#define OOM_REAL 64
#include "kernels/host/isa/real.h"
#include "kernels/host/isa/array-body.h"

ARRAY_DISPATCH(gelu_forward)
ARRAY_DISPATCH(gelu_backward)
ARRAY_DISPATCH(relu_forward)
ARRAY_DISPATCH(relu_backward)
ARRAY_DISPATCH(sgd)
ARRAY_DISPATCH(adamw)
ARRAY_DISPATCH(fill)
ARRAY_DISPATCH(scale)
ARRAY_DISPATCH(axpy)
ARRAY_DISPATCH(add)
ARRAY_DISPATCH(finite_check)

/* y[i] = x[i] with a conversion; such plain loops every compiler vectorises. */
#define COPY_LOOP(name, source, target) \
    static void name(const struct oom_copy_args *a, int64_t begin, int64_t end) { \
        const source *restrict x = OOM_HOST_PTR(const source, a->x); \
        target *restrict y = OOM_HOST_PTR(target, a->y); \
        for (int64_t i = begin; i < end; i++) y[i] = (target)x[i]; \
    }

COPY_LOOP(copy_f32_f32, float, float)
COPY_LOOP(copy_f32_f64, float, double)
COPY_LOOP(copy_f64_f32, double, float)
COPY_LOOP(copy_f64_f64, double, double)

void OOM_HOST_KERNEL(copy)(const void *args, const struct oom_host_part *part) {
    const struct oom_copy_args *a = args;
    int64_t begin, end;
    oom_host_share(a->n, GRAIN, part, &begin, &end);
    if (a->from == OOM_F32)
        (a->to == OOM_F32 ? copy_f32_f32 : copy_f32_f64)(a, begin, end);
    else
        (a->to == OOM_F32 ? copy_f64_f32 : copy_f64_f64)(a, begin, end);
}
