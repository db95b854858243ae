/*
 * real.h: one source for f32 and f64. A kernel file includes its body twice:
 *
 *     #define OOM_REAL 32
 *     #include "kernels/host/isa/real.h"
 *     #include "kernels/host/isa/norm-body.h"
 *     #undef OOM_REAL
 *     #define OOM_REAL 64
 *     ... the same two includes
 *
 * real        float or double              OOM_R(f)   f_f32 or f_f64  (the body's own functions)
 * vreal       oom_vf or oom_vd             OOM_V(f)   f_vf or f_vd    (OOM_V(oom_load),
 * OOM_V(oom_exp)) vmask       oom_vi or oom_vl REAL_LANES  lanes of a vreal No include guard: it is
 * meant to be included twice.
 */
#undef real
#undef vreal
#undef vmask
#undef REAL_LANES
#undef OOM_R
#undef OOM_V

#if OOM_REAL == 32
#define real float
#define vreal oom_vf
#define vmask oom_vi
#define REAL_LANES OOM_VF_LANES
#define OOM_R(name) name##_f32
#define OOM_V(name) name##_vf
#elif OOM_REAL == 64
#define real double
#define vreal oom_vd
#define vmask oom_vl
#define REAL_LANES OOM_VD_LANES
#define OOM_R(name) name##_f64
#define OOM_V(name) name##_vd
#else
#error "OOM_REAL must be 32 or 64"
#endif
