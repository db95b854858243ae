/*
 * product.h: the matrix product behind the op gemm, for kernels that need small products of their
 * own (attention). Owns nothing; scratch is the calling thread's; cannot fail.
 */
#ifndef OOM_KERNELS_HOST_ISA_PRODUCT_H
#define OOM_KERNELS_HOST_ISA_PRODUCT_H

#include "kernels/host/kernels.h"

#include <stdbool.h>
#include <stdint.h>

/* As struct oom_gemm_args, of host pointers; m, n, k may be 0. */
struct oom_product {
    bool transpose_a, transpose_b, accumulate;
    int64_t m, n, k;
    const void *a;
    int64_t lda;
    const void *b;
    int64_t ldb;
    void *c;
    int64_t ldc;
    const void *bias; /* n values or NULL */
};

/* Of a thread's scratch, products use the first bytes; the kernel that calls has the rest. */
enum {
    OOM_PRODUCT_SCRATCH_BYTES = 1792 << 10,
    OOM_OTHER_SCRATCH_BYTES = OOM_HOST_SCRATCH_BYTES - OOM_PRODUCT_SCRATCH_BYTES
};

void OOM_HOST_NAME(oom_product_f32)(const struct oom_product *p, void *scratch);
void OOM_HOST_NAME(oom_product_f64)(const struct oom_product *p, void *scratch);

#endif
