/*
 * pairs.c: the ops whose arrays may be of two dtypes:
 *   copy   y = x, any dtype to any, rounded once
 *   add    out = a + b, where b may be of another dtype (ops.h), rounded once
 *
 * Every element is read and written once; threads take contiguous shares. What f32 holds goes
 * through vectors of it. f64 to and from halves is rare (truths and oracles), so it goes through
 * half.h, element by element.
 */
#include "kernels/host/isa/half-vector.h"
#include "kernels/host/kernels.h"

/* Elements by which shares are cut: whole vectors and cache lines for everyone. */
enum { GRAIN = 256 };

typedef void copy_function(const struct oom_copy_args *a, int64_t begin, int64_t end);

/* Bits as they are, whatever they mean. */
#define COPY_SAME(name, stored) \
    static void name(const struct oom_copy_args *a, int64_t begin, int64_t end) { \
        const stored *restrict x = OOM_HOST_PTR(const stored, a->x); \
        stored *restrict y = OOM_HOST_PTR(stored, a->y); \
        for (int64_t i = begin; i < end; i++) y[i] = x[i]; \
    }

COPY_SAME(copy_2_bytes, uint16_t)
COPY_SAME(copy_4_bytes, uint32_t)
COPY_SAME(copy_8_bytes, uint64_t)

/* y[i] = x[i] with a conversion; such plain loops every compiler vectorises. */
#define COPY_EACH(name, source, target, CONVERT) \
    static void name(const struct oom_copy_args *a, int64_t begin, int64_t end) { \
        const source *restrict x = OOM_HOST_PTR(const source, a->x); \
        target *restrict y = OOM_HOST_PTR(target, a->y); \
        for (int64_t i = begin; i < end; i++) y[i] = CONVERT(x[i]); \
    }

COPY_EACH(copy_f32_f64, float, double, (double))
COPY_EACH(copy_f64_f32, double, float, (float))
COPY_EACH(copy_f64_f16, double, uint16_t, oom_f16_from_f64)
COPY_EACH(copy_f64_bf16, double, uint16_t, oom_bf16_from_f64)
COPY_EACH(copy_f16_f64, uint16_t, double, (double)oom_f32_from_f16)
COPY_EACH(copy_bf16_f64, uint16_t, double, (double)oom_f32_from_bf16)

/* n elements at i, by way of a vector of f32; v and u are suffixes of half-vector.h */
#define COPY_VECTORS(name, source, v, target, u) \
    OOM_FUNCTION void name##_at(const struct oom_copy_args *a, int64_t i, int64_t n) { \
        oom_vf x = oom_take_##v(OOM_HOST_PTR(const source, a->x) + i, n); \
        oom_put_##u(OOM_HOST_PTR(target, a->y) + i, n, x); \
    } \
    static void name(const struct oom_copy_args *a, int64_t i, int64_t end) { \
        for (; i + OOM_VF_LANES <= end; i += OOM_VF_LANES) name##_at(a, i, OOM_VF_LANES); \
        if (i < end) name##_at(a, i, end - i); \
    }

COPY_VECTORS(copy_f32_f16, float, vf, uint16_t, vh)
COPY_VECTORS(copy_f32_bf16, float, vf, uint16_t, vb)
COPY_VECTORS(copy_f16_f32, uint16_t, vh, float, vf)
COPY_VECTORS(copy_f16_bf16, uint16_t, vh, uint16_t, vb)
COPY_VECTORS(copy_bf16_f32, uint16_t, vb, float, vf)
COPY_VECTORS(copy_bf16_f16, uint16_t, vb, uint16_t, vh)

/* by source, then target */
static copy_function *const copies[][OOM_BF16 + 1] = {
    [OOM_F32] = {[OOM_F32] = copy_4_bytes,
                 [OOM_F64] = copy_f32_f64,
                 [OOM_F16] = copy_f32_f16,
                 [OOM_BF16] = copy_f32_bf16},
    [OOM_F64] = {[OOM_F32] = copy_f64_f32,
                 [OOM_F64] = copy_8_bytes,
                 [OOM_F16] = copy_f64_f16,
                 [OOM_BF16] = copy_f64_bf16},
    [OOM_F16] = {[OOM_F32] = copy_f16_f32,
                 [OOM_F64] = copy_f16_f64,
                 [OOM_F16] = copy_2_bytes,
                 [OOM_BF16] = copy_f16_bf16},
    [OOM_BF16] = {[OOM_F32] = copy_bf16_f32,
                  [OOM_F64] = copy_bf16_f64,
                  [OOM_F16] = copy_bf16_f16,
                  [OOM_BF16] = copy_2_bytes},
};

void OOM_HOST_KERNEL(copy)(const void *args, const struct oom_host_part *part) {
    const struct oom_copy_args *a = args;
    int64_t begin, end;
    oom_host_share(a->n, GRAIN, part, &begin, &end);
    copies[a->from][a->to](a, begin, end);
}

typedef void add_function(const struct oom_add_args *a, int64_t begin, int64_t end);

/* a and out have suffix v, b has u; vr is what both are computed in */
#define ADD(name, vr, LANES, stored, v, other, u) \
    OOM_FUNCTION void name##_at(const struct oom_add_args *a, int64_t i, int64_t n) { \
        vr sum = oom_take_##v(OOM_HOST_PTR(const stored, a->a) + i, n); \
        sum += oom_take_##u(OOM_HOST_PTR(const other, a->b) + i, n); \
        oom_put_##v(OOM_HOST_PTR(stored, a->out) + i, n, sum); \
    } \
    static void name(const struct oom_add_args *args, int64_t i, int64_t end) { \
        const struct oom_add_args a = *args; /* which no store can change */ \
        for (; i + LANES <= end; i += LANES) name##_at(&a, i, LANES); \
        if (i < end) name##_at(&a, i, end - i); \
    }

#define ADD_F32(name, stored, v, other, u) ADD(name, oom_vf, OOM_VF_LANES, stored, v, other, u)

ADD(add_f64, oom_vd, OOM_VD_LANES, double, vd, double, vd)
ADD_F32(add_f32, float, vf, float, vf)
ADD_F32(add_f32_f16, float, vf, uint16_t, vh)
ADD_F32(add_f32_bf16, float, vf, uint16_t, vb)
ADD_F32(add_f16, uint16_t, vh, uint16_t, vh)
ADD_F32(add_f16_f32, uint16_t, vh, float, vf)
ADD_F32(add_bf16, uint16_t, vb, uint16_t, vb)
ADD_F32(add_bf16_f32, uint16_t, vb, float, vf)

/* by dtype, then b_dtype */
static add_function *const additions[][OOM_BF16 + 1] = {
    [OOM_F32] = {[OOM_F32] = add_f32, [OOM_F16] = add_f32_f16, [OOM_BF16] = add_f32_bf16},
    [OOM_F64] = {[OOM_F64] = add_f64},
    [OOM_F16] = {[OOM_F32] = add_f16_f32, [OOM_F16] = add_f16},
    [OOM_BF16] = {[OOM_F32] = add_bf16_f32, [OOM_BF16] = add_bf16},
};

void OOM_HOST_KERNEL(add)(const void *args, const struct oom_host_part *part) {
    const struct oom_add_args *a = args;
    int64_t begin, end;
    oom_host_share(a->n, GRAIN, part, &begin, &end);
    additions[a->dtype][a->b_dtype](a, begin, end);
}
