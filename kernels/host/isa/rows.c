/*
 * rows.c: sums over rows, and gathering and scattering of rows:
 *   sum_rows            out[j] += x[0][j] + x[1][j] + ...
 *   position_backward   dtable[t] += dout[0][t] + dout[1][t] + ...   the same with (B, T*C)
 *   position_forward    x[b][t] += table[t]
 *   embedding_forward   out[r] = table[tokens[r]]
 *   embedding_backward  dtable[tokens[r]] += dout[r]
 *
 * One chain of additions per output element, in row order, from the value at its destination:
 * threads and vectors divide columns, never rows. Each reads its matrix once (N*C elements); the
 * forward ones write as much.
 */
#include "kernels/host/isa/vector-math.h"
#include "kernels/host/kernels.h"

enum {
    LINE = 16,     /* columns by which threads divide: a cache line of f32 */
    WIDTH_MAX = 8, /* vectors of sums kept in registers */
    CHUNK = 1024,  /* elements of a row handled at once by the forward ops */
};

static int64_t clamp_token(int32_t token, int64_t vocab) {
    int64_t low = token < 0 ? 0 : token;
    return low < vocab ? low : vocab - 1;
}

#define OOM_BODY "kernels/host/isa/rows-body.h"
#include "kernels/host/isa/each-dtype.h"

OOM_KERNEL_OF(sum_rows, OOM_BY_DTYPE)
OOM_KERNEL_OF(position_forward, OOM_BY_DTYPE)
OOM_KERNEL_OF(position_backward, OOM_BY_DTYPE)
OOM_KERNEL_OF(embedding_forward, OOM_BY_DTYPE)
OOM_KERNEL_OF(embedding_backward, OOM_BY_DTYPE)
