/*
 * real.h: one source for f32, f64, f16 and bf16: what is computed in, and what is stored. A kernel
 * file has a body included once for each of the four by
 *
 *     #define OOM_BODY "kernels/host/isa/norm-body.h"
 *     #include "kernels/host/isa/each-dtype.h"
 *
 * (what halves need not have stands between #if !HALF and #endif). By hand it is OOM_REAL (32, 64,
 * 16 for f16, 8 for bf16, after the bits of its significand), this file, and the body.
 *
 * real        float or double: the type of a value     vreal       oom_vf or oom_vd
 * stored      float, double or uint16_t: of an element  vmask       oom_vi or oom_vl
 * HALF        1 where stored is not real, else 0        REAL_LANES  lanes of a vreal
 * OOM_R(f)    f_f32, f_f64, f_f16 or f_bf16: the body's own functions
 * OOM_W(f)    f_f32 or f_f64, of the wide type (oom_dtype_wide): OOM_W(oom_sqrt)
 * OOM_V(f)    f_vf or f_vd: on a vreal or on memory of the wide type: OOM_V(oom_exp)
 * OOM_S(f)    f_vf, f_vd, f_vh or f_vb, on memory of stored (half-vector.h): OOM_S(oom_take)
 *
 * No include guard: it is meant to be included more than once.
 */
#undef real
#undef stored
#undef vreal
#undef vmask
#undef HALF
#undef REAL_LANES
#undef OOM_R
#undef OOM_W
#undef OOM_V
#undef OOM_S

#if OOM_REAL == 64
#define real double
#define vreal oom_vd
#define vmask oom_vl
#define REAL_LANES OOM_VD_LANES
#define OOM_W(name) name##_f64
#define OOM_V(name) name##_vd
#else
#define real float
#define vreal oom_vf
#define vmask oom_vi
#define REAL_LANES OOM_VF_LANES
#define OOM_W(name) name##_f32
#define OOM_V(name) name##_vf
#endif

#if OOM_REAL == 32
#define stored float
#define HALF 0
#define OOM_R(name) name##_f32
#define OOM_S(name) name##_vf
#elif OOM_REAL == 64
#define stored double
#define HALF 0
#define OOM_R(name) name##_f64
#define OOM_S(name) name##_vd
#elif OOM_REAL == 16
#define stored uint16_t
#define HALF 1
#define OOM_R(name) name##_f16
#define OOM_S(name) name##_vh
#elif OOM_REAL == 8
#define stored uint16_t
#define HALF 1
#define OOM_R(name) name##_bf16
#define OOM_S(name) name##_vb
#else
#error "OOM_REAL must be 32, 64, 16 (f16) or 8 (bf16)"
#endif
