/*
 * product.h: the matrix product behind the op gemm, for kernels that are made of products
 * (attention, convolution). Owns nothing; scratch is the calling thread's; cannot fail.
 *
 * C = [C +] op(A) op(B) [+ bias], op(A) (m,k), op(B) (k,n), C (m,n); each element summed
 * over k in order as the op says: one fma chain from C where accumulating, else chains of
 * OOM_CHAIN_STEPS from 0, added up. Halves are converted to f32 as
 * they are packed; a C of halves is kept in f32 through all of k and its bias, and rounded once.
 *
 * A factor lies in memory, or nowhere: then its gather makes blocks of it, as they are packed. So a
 * convolution is a product with a matrix of gathered pixels that is never whole in memory.
 */
#ifndef OOM_KERNELS_HOST_ISA_PRODUCT_H
#define OOM_KERNELS_HOST_ISA_PRODUCT_H

#include "kernels/host/kernels.h"

#include <stdbool.h>
#include <stdint.h>

/* Writes rows row .. row + rows and columns column .. column + columns of the factor as it would be
 * stored (before any transposition) to to[r * ld + c]: floats, or doubles where C is f64. Nothing
 * else in `to` may be touched. A block is at most 512 elements wide. */
typedef void oom_gather(const void *context, int64_t row, int64_t rows, int64_t column,
                        int64_t columns, void *to, int64_t ld);

/* A factor as it is stored: element (i,p) of op(A) is A's (i,p), or (p,i) where transposed. */
struct oom_factor {
    bool transpose;
    enum oom_dtype dtype; /* in memory: C's wide type, or a half where that is f32 */
    const void *at;       /* element (r,c) at at[r * ld + c] */
    int64_t ld;
    oom_gather *gather;  /* or NULL; with one, dtype, at and ld are not looked at */
    const void *context; /* for gather */
    int64_t row, column; /* where in the stored matrix the product's begins */
};

/* m, n, k may be 0. */
struct oom_product {
    bool accumulate; /* not with a C of halves, nor with bias */
    int64_t m, n, k;
    struct oom_factor a, b;
    enum oom_dtype c_dtype;
    void *c;
    int64_t ldc;
    const void *bias; /* n values of the wide type, or NULL */
};

/* Of a thread's scratch, products use the first bytes; the kernel that calls has the rest. */
enum {
    OOM_PRODUCT_SCRATCH_BYTES = 1792 << 10,
    OOM_OTHER_SCRATCH_BYTES = OOM_HOST_SCRATCH_BYTES - OOM_PRODUCT_SCRATCH_BYTES
};

/* All of it, by the calling thread. */
void OOM_HOST_NAME(oom_product)(const struct oom_product *p, void *scratch);

/* The part's rectangle of C. A gather is told rows and columns of the whole stored matrix. */
void OOM_HOST_NAME(oom_product_part)(const struct oom_product *p, const struct oom_host_part *part);

#endif
