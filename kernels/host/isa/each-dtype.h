/*
 * each-dtype.h: the file OOM_BODY included for f32, f64, f16 and bf16, the words of real.h set for
 * each; and the call of the function that a dtype asks for.
 */
#include "kernels/host/isa/half-vector.h"

#define OOM_REAL 32
#include "kernels/host/isa/real.h"
#include OOM_BODY
#undef OOM_REAL
#define OOM_REAL 64
#include "kernels/host/isa/real.h"
#include OOM_BODY
#undef OOM_REAL
#define OOM_REAL 16
#include "kernels/host/isa/real.h"
#include OOM_BODY
#undef OOM_REAL
#define OOM_REAL 8
#include "kernels/host/isa/real.h"
#include OOM_BODY
#undef OOM_REAL
#undef OOM_BODY

/* name_f32(...) or name_f64, name_f16, name_bf16; and where there are no halves */
#define OOM_BY_DTYPE(dtype, name, ...) \
    do { \
        if ((dtype) == OOM_F16) \
            name##_f16(__VA_ARGS__); \
        else if ((dtype) == OOM_BF16) \
            name##_bf16(__VA_ARGS__); \
        else \
            OOM_BY_WIDE(dtype, name, __VA_ARGS__); \
    } while (0)

#define OOM_BY_WIDE(dtype, name, ...) \
    do { \
        if ((dtype) == OOM_F64) \
            name##_f64(__VA_ARGS__); \
        else \
            name##_f32(__VA_ARGS__); \
    } while (0)

/* The kernel of an op whose functions take its arguments and the part; CHOICE is one of these. */
#define OOM_KERNEL_OF(op, CHOICE) \
    void OOM_HOST_KERNEL(op)(const void *args, const struct oom_host_part *part) { \
        const struct oom_##op##_args *a = args; \
        CHOICE(a->dtype, op, a, part); \
    }
