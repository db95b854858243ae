/*
 * kernels.h: the host device's kernels: one function per op and instruction set, all with the same
 * bits, in a table chosen once when the device is opened.
 *
 * Where a file goes:
 *   kernels/host/isa/NAME.c   compiled once per instruction set, -O3,
 * -DOOM_HOST_ISA=base|avx2|avx512 (avx2: -mavx2 -mfma -mf16c; avx512: -mavx512f -mavx512bw
 * -mavx512dq -mavx512vl -mfma -mf16c -mprefer-vector-width=512; base: no more flags); machines
 * other than x86-64 have base only; kernels/host/isa/NAME.h   included by those (bodies, static
 * inline helpers); kernels/host/NAME.c       compiled once (pool, choice, device); NAME-test.c is a
 * test. In kernels/host/isa every name that is not static goes through OOM_HOST_NAME, which appends
 * the instruction set: otherwise the linker keeps one copy, and an old CPU may get the AVX one. For
 * the same reason shared headers hold `static inline` functions only.
 *
 * A kernel of the op gemm is
 *     void OOM_HOST_KERNEL(gemm)(const void *args, const struct oom_host_part *part)
 * with args a struct oom_gemm_args whose addresses are host addresses (cast through uintptr_t).
 * It computes its part of the *outputs* (sums are never split), knows no other part, waits for
 * nobody, allocates nothing and cannot fail: oom_op_check came before. An op whose outputs cannot
 * be split computes everything in part 0.
 */
#ifndef OOM_KERNELS_HOST_KERNELS_H
#define OOM_KERNELS_HOST_KERNELS_H

#include "kernels/device.h"
#include "kernels/host/pool.h"
#include "kernels/ops.h"
#include "kernels/status.h"

/* name##_base and so on, with OOM_HOST_ISA expanded first */
#define OOM_HOST_JOIN2(name, isa) name##_##isa
#define OOM_HOST_JOIN(name, isa) OOM_HOST_JOIN2(name, isa)
#define OOM_HOST_NAME(name) OOM_HOST_JOIN(name, OOM_HOST_ISA)
#define OOM_HOST_KERNEL(op) OOM_HOST_NAME(oom_host_##op)

/* Host pointer of a device address. */
#define OOM_HOST_PTR(type, address) ((type *)(uintptr_t)(address))

typedef void oom_host_kernel(const void *args, const struct oom_host_part *part);

struct oom_host_kernels {
    const char *isa; /* "base", "avx2", "avx512" */
    oom_host_kernel *run[OOM_OP_COUNT];
};

/* Scratch that each thread needs, for any kernel and any shape. */
enum { OOM_HOST_SCRATCH_BYTES = 2 << 20 };

/* AUTO is the best that this CPU has. A forced one that the CPU (or this build) lacks is
 * OOM_ABSENT, naming the missing feature. *out is static. */
enum oom_status oom_host_kernels_select(enum oom_isa isa, const struct oom_host_kernels **out);

/* Runs one op on the pool's threads; one too small to be worth waking them runs on the caller.
 * The pool's scratch must be OOM_HOST_SCRATCH_BYTES or more. */
void oom_host_kernels_run(const struct oom_host_kernels *kernels, struct oom_pool *pool,
                          enum oom_op op, const void *args);

#if defined(__x86_64__)
#define OOM_HOST_ISA_EACH(X, op) X(op, base) X(op, avx2) X(op, avx512)
#else
#define OOM_HOST_ISA_EACH(X, op) X(op, base)
#endif

/* oom_host_kernel oom_host_gemm_base, ...; every op, every instruction set of this machine */
#define OOM_HOST_DECLARE(op, isa) oom_host_kernel oom_host_##op##_##isa;
#define X(id, op) OOM_HOST_ISA_EACH(OOM_HOST_DECLARE, op)
OOM_OP_MAP(X)
#undef X
#undef OOM_HOST_DECLARE

#endif
