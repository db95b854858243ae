/*
 * vector-math.h: the functions of math.h and the op bodies of elementwise.h for the vectors of the
 * instruction set in force: oom_exp_vf, oom_log_vd, oom_gelu_vf ... Bits equal the scalar ones.
 */
#ifndef OOM_KERNELS_HOST_ISA_VECTOR_MATH_H
#define OOM_KERNELS_HOST_ISA_VECTOR_MATH_H

#include "kernels/elementwise.h"
#include "kernels/host/isa/vector.h"
#include "kernels/math.h"

typedef uint32_t oom_vu __attribute__((vector_size(OOM_VECTOR_BYTES)));
typedef uint64_t oom_vul __attribute__((vector_size(OOM_VECTOR_BYTES)));

/* n lanes from memory (the others 0) or to it; n may exceed the lanes. In a loop over whole vectors
 * n is constant and nothing of it is left. */
OOM_FUNCTION oom_vf oom_take_vf(const float *p, int64_t n) {
    return n >= OOM_VF_LANES ? oom_load_vf(p) : oom_load_some_vf(p, n, 0);
}

OOM_FUNCTION oom_vd oom_take_vd(const double *p, int64_t n) {
    return n >= OOM_VD_LANES ? oom_load_vd(p) : oom_load_some_vd(p, n, 0);
}

OOM_FUNCTION void oom_put_vf(float *p, int64_t n, oom_vf x) {
    if (n >= OOM_VF_LANES)
        oom_store_vf(p, x);
    else
        oom_store_some_vf(p, n, x);
}

OOM_FUNCTION void oom_put_vd(double *p, int64_t n, oom_vd x) {
    if (n >= OOM_VD_LANES)
        oom_store_vd(p, x);
    else
        oom_store_some_vd(p, n, x);
}

/* Square roots lane by lane: both compilers make one instruction of it. */
OOM_FUNCTION oom_vf oom_sqrt_vf(oom_vf x) {
    oom_vf root;
    OOM_UNROLL
    for (int i = 0; i < OOM_VF_LANES; i++) root[i] = __builtin_sqrtf(x[i]);
    return root;
}

OOM_FUNCTION oom_vd oom_sqrt_vd(oom_vd x) {
    oom_vd root;
    OOM_UNROLL
    for (int i = 0; i < OOM_VD_LANES; i++) root[i] = __builtin_sqrt(x[i]);
    return root;
}

#define M(name) name##_vf
#define M_REAL oom_vf
#define M_INT oom_vi
#define M_UINT oom_vu
#define M_SCALAR float
#define M_SELECT(condition, a, b) oom_select_vf((oom_vi)(condition), a, b)
#define M_SET(constant) oom_set_vf(constant)
#include "kernels/math-f32.h"
#include "kernels/elementwise-body.h"
#undef M
#undef M_REAL
#undef M_INT
#undef M_UINT
#undef M_SCALAR
#undef M_SELECT
#undef M_SET

#define M(name) name##_vd
#define M_REAL oom_vd
#define M_INT oom_vl
#define M_UINT oom_vul
#define M_SCALAR double
#define M_SELECT(condition, a, b) oom_select_vd((oom_vl)(condition), a, b)
#define M_SET(constant) oom_set_vd(constant)
#include "kernels/math-f64.h"
#include "kernels/elementwise-body.h"
#undef M
#undef M_REAL
#undef M_INT
#undef M_UINT
#undef M_SCALAR
#undef M_SELECT
#undef M_SET

#endif
