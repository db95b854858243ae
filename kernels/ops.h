/*
 * ops.h: what runs on a device. One argument struct per op, with shapes, dtypes, layout and the
 * formula; every array is dense and row-major unless a leading dimension says otherwise.
 *
 * Letters: B samples, T positions, C channels, NH heads, D = C / NH, V classes or vocabulary,
 * N rows (B * T or B * R), E elements of one sample.
 *
 * Strictness, which every implementation keeps so that results are equal bit by bit:
 *   - gemm adds each c[i][j] as one fma chain over k in order, starting from C when accumulating,
 *     from 0 otherwise; bias is added after the chain;
 *   - every sum *over rows* (gemm with a transposed A, sum_rows, layernorm's dgamma and dbeta,
 *     embedding and position gradients) is one chain per output element, in row order, that starts
 *     from the value at its destination: so accumulating over pieces of a batch, in order, equals
 *     the whole batch bitwise;
 *   - sums *within* a row (norm, softmax, the losses of a sample) use a fixed tree of 32 lanes:
 * lane l adds elements l, l + 32, ... in order, then lanes are folded 16, 8, 4, 2, 1;
 *   - the results depend on no thread count, instruction set or schedule.
 *
 * Ownership: the structs hold device addresses and own nothing. Outputs may not overlap inputs
 * unless the op says "in place allowed".
 */
#ifndef OOM_KERNELS_OPS_H
#define OOM_KERNELS_OPS_H

#include "kernels/dtype.h"
#include "kernels/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* enum name, struct and function name */
#define OOM_OP_MAP(X) \
    X(GEMM, gemm) \
    X(SUM_ROWS, sum_rows) \
    X(EMBEDDING_FORWARD, embedding_forward) \
    X(EMBEDDING_BACKWARD, embedding_backward) \
    X(POSITION_FORWARD, position_forward) \
    X(POSITION_BACKWARD, position_backward) \
    X(LAYERNORM_FORWARD, layernorm_forward) \
    X(LAYERNORM_BACKWARD, layernorm_backward) \
    X(GELU_FORWARD, gelu_forward) \
    X(GELU_BACKWARD, gelu_backward) \
    X(RELU_FORWARD, relu_forward) \
    X(RELU_BACKWARD, relu_backward) \
    X(ATTENTION_SCORES_FORWARD, attention_scores_forward) \
    X(ATTENTION_SOFTMAX_FORWARD, attention_softmax_forward) \
    X(ATTENTION_VALUES_FORWARD, attention_values_forward) \
    X(ATTENTION_VALUES_BACKWARD, attention_values_backward) \
    X(ATTENTION_SOFTMAX_BACKWARD, attention_softmax_backward) \
    X(ATTENTION_SCORES_BACKWARD, attention_scores_backward) \
    X(ATTENTION_TILED_FORWARD, attention_tiled_forward) \
    X(ATTENTION_TILED_BACKWARD, attention_tiled_backward) \
    X(CROSS_ENTROPY, cross_entropy) \
    X(LOSS_SUM, loss_sum) \
    X(DROPOUT, dropout) \
    X(SGD, sgd) \
    X(ADAMW, adamw) \
    X(FILL, fill) \
    X(COPY, copy) \
    X(SCALE, scale) \
    X(AXPY, axpy) \
    X(ADD, add) \
    X(FINITE_CHECK, finite_check)

enum oom_op {
#define X(id, name) OOM_OP_##id,
    OOM_OP_MAP(X)
#undef X
        OOM_OP_COUNT
};

/* C = [C +] op(A) op(B) [+ bias].  op(A) is (M,K), op(B) is (K,N), C is (M,N).
 * A transposed matrix is stored as (K,M) or (N,K). ld counts elements and is at least the stored
 * row's length. dtype f32 or f64. Flops 2MNK; bytes (MK + KN + MN (+ MN)) * size. */
struct oom_gemm_args {
    enum oom_dtype dtype;
    bool transpose_a, transpose_b;
    bool accumulate; /* start each chain from C; not together with bias */
    int64_t m, n, k; /* each at least 1 */
    oom_devptr a;
    int64_t lda;
    oom_devptr b;
    int64_t ldb;
    oom_devptr c;
    int64_t ldc;
    oom_devptr bias; /* (N) or 0; added to each row after the chain */
};

/* out[j] = out[j] + x[0][j] + x[1][j] + ..., in row order.  x (N,C), out (C). The gradient of a
 * bias. */
struct oom_sum_rows_args {
    enum oom_dtype dtype;
    int64_t rows, columns;
    oom_devptr x, out;
};

/* out[r] = table[tokens[r]].  tokens (N) i32 in [0, vocab), table (V,C), out (N,C). A token out of
 * range is read as 0 by the formula's clamp max(0, min(token, V - 1)): no device reads outside. */
struct oom_embedding_forward_args {
    enum oom_dtype dtype;
    int64_t rows, channels, vocab;
    oom_devptr tokens, table, out;
};

/* dtable[tokens[r]] += dout[r], in row order. */
struct oom_embedding_backward_args {
    enum oom_dtype dtype;
    int64_t rows, channels, vocab;
    oom_devptr tokens, dout, dtable;
};

/* x[b][t] += table[t].  x (B,T,C), table (T or more,C). In place. */
struct oom_position_forward_args {
    enum oom_dtype dtype;
    int64_t batch, positions, channels;
    oom_devptr table, x;
};

/* dtable[t] += dout[b][t], in order of b. */
struct oom_position_backward_args {
    enum oom_dtype dtype;
    int64_t batch, positions, channels;
    oom_devptr dout, dtable;
};

/* Layer normalisation over the last dimension (Ba, Kiros, Hinton 2016; biased variance):
 * mean = sum x / C; var = sum (x - mean)^2 / C; rstd = 1 / sqrt(var + eps);
 * out = (x - mean) * rstd * gamma + beta.  x, out (N,C); gamma, beta (C); mean, rstd (N). */
struct oom_layernorm_forward_args {
    enum oom_dtype dtype;
    int64_t rows, channels;
    double eps;
    oom_devptr x, gamma, beta;
    oom_devptr out, mean, rstd;
};

/* xhat = (x - mean) * rstd; g = dout * gamma;
 * dx = residual + rstd * (g - sum(g) / C - xhat * sum(g * xhat) / C);
 * dgamma += sum over rows of dout * xhat; dbeta += sum over rows of dout.
 * residual (N,C) or 0: the gradient that reaches x past the norm. */
struct oom_layernorm_backward_args {
    enum oom_dtype dtype;
    int64_t rows, channels;
    oom_devptr dout, x, gamma, mean, rstd, residual;
    oom_devptr dx, dgamma, dbeta;
};

/* GELU, tanh form (Hendrycks, Gimpel 2016; as in GPT-2):
 * y = x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))).  n elements. In place allowed. */
struct oom_gelu_forward_args {
    enum oom_dtype dtype;
    int64_t n;
    oom_devptr x, y;
};

/* dx = dy * GELU'(x). dx = dy (in place) allowed. */
struct oom_gelu_backward_args {
    enum oom_dtype dtype;
    int64_t n;
    oom_devptr x, dy, dx;
};

/* y = x > 0 ? x : 0. With `branch` (n bytes u8, or 0) the sign is taken from there instead:
 * y = branch ? x : 0, so that a second computation follows the same branch. In place allowed. */
struct oom_relu_forward_args {
    enum oom_dtype dtype;
    int64_t n;
    oom_devptr x, branch, y;
};

/* dx = (branch ? branch[i] != 0 : y[i] > 0) ? dy : 0.  y is the forward's output. dx = dy allowed.
 */
struct oom_relu_backward_args {
    enum oom_dtype dtype;
    int64_t n;
    oom_devptr y, branch, dy, dx;
};

/* Causal multi-head attention (Vaswani et al. 2017) in two kinds. qkv (B,T,3C) packs q, k, v of
 * each position: head h has q at h*D, k at C + h*D, v at 2C + h*D. scale is 1/sqrt(D).
 *
 * With materialised scores, one op per stage, so that every temporary is a tensor of the caller:
 *   scores = scale q k^T;  probs = softmax(scores);  out = probs v.
 * scores, probs and their gradients are (B,NH,T,T); entries with column > row (the future) are
 * neither written nor read. */
struct oom_attention_scores_forward_args {
    enum oom_dtype dtype;
    int64_t batch, positions, channels, heads;
    oom_devptr qkv, scores;
};
struct oom_attention_softmax_forward_args {
    enum oom_dtype dtype;
    int64_t batch, positions, heads;
    oom_devptr scores, probs;
};
struct oom_attention_values_forward_args {
    enum oom_dtype dtype;
    int64_t batch, positions, channels, heads;
    oom_devptr probs, qkv; /* v is read from qkv */
    oom_devptr out;        /* (B,T,C) */
};
/* dprobs = dout v^T; dv = probs^T dout, written into the v part of dqkv. */
struct oom_attention_values_backward_args {
    enum oom_dtype dtype;
    int64_t batch, positions, channels, heads;
    oom_devptr dout, probs, qkv;
    oom_devptr dprobs, dqkv;
};
/* dscores = probs * (dprobs - sum over the row of probs * dprobs). */
struct oom_attention_softmax_backward_args {
    enum oom_dtype dtype;
    int64_t batch, positions, heads;
    oom_devptr probs, dprobs, dscores;
};
/* dq = scale dscores k; dk = scale dscores^T q, written into the q and k parts of dqkv. */
struct oom_attention_scores_backward_args {
    enum oom_dtype dtype;
    int64_t batch, positions, channels, heads;
    oom_devptr dscores, qkv, dqkv;
};

/* The same function with online softmax (Milakov, Gimelshein 2018; Dao et al. 2022): no more than
 * a tile of scores ever exists, in scratch. lse (B,NH,T) = log sum exp of the scaled scores. */
struct oom_attention_tiled_forward_args {
    enum oom_dtype dtype;
    int64_t batch, positions, channels, heads;
    oom_devptr qkv;
    oom_devptr out, lse;
};
/* delta = sum over D of dout * out per position and head, kept in workspace (B,NH,T);
 * P = exp(scale q k^T - lse); dv = P^T dout; dS = P * (dout v^T - delta);
 * dq = scale dS k; dk = scale dS^T q. Writes all of dqkv (B,T,3C). */
struct oom_attention_tiled_backward_args {
    enum oom_dtype dtype;
    int64_t batch, positions, channels, heads;
    oom_devptr dout, out, qkv, lse;
    oom_devptr dqkv;
    oom_devptr workspace; /* oom_op_workspace_bytes() bytes */
};

/* Softmax cross-entropy with row weights:
 * p = softmax(logits[r]); losses[r] = weights[r] * -log p[targets[r]];
 * dlogits[r] = weights[r] * scale * (p - onehot(targets[r])).
 * logits, dlogits (N,V); targets (N) i32, clamped as in embedding; weights, losses (N) of dtype;
 * dlogits may be 0 (loss only) or equal logits (in place). scale is the loss scale. A window's
 * weights are w / W with W the sum over the whole window, so nothing is divided afterwards. */
struct oom_cross_entropy_args {
    enum oom_dtype dtype;
    int64_t rows, classes;
    double scale;
    oom_devptr logits, targets, weights;
    oom_devptr losses, dlogits;
};

/* out = out + s_0 + s_1 + ..., where s_b is the sum of sample b's T losses by the tree of 32 lanes:
 * one chain over *samples*, in order, so that a cut between samples does not show. A chain over all
 * B T rows would err by sqrt(B T) / 4 u on average: too near to any bound for a single number.
 * losses (B,T), out (1). */
struct oom_loss_sum_args {
    enum oom_dtype dtype;
    int64_t batch, positions;
    oom_devptr losses, out;
};

/* y = keep ? x / (1 - p) : 0, forward and, applied to dy, backward.  x, y (B,E); samples (B) i64.
 * keep of element e of row b: word e % 4 of Philox 4x32-10 (Salmon et al. 2011) with
 * key (seed low, seed high) and counter (e / 4, samples[b], step, layer) is at least
 * floor(p * 2^32). It depends on the sample's identity, not on its place. In place allowed. */
struct oom_dropout_args {
    enum oom_dtype dtype;
    int64_t batch, elements; /* elements below 2^34 */
    double p;                /* 0 <= p < 1 */
    uint64_t seed;
    uint32_t step, layer;
    oom_devptr samples, x, y;
};

/* SGD with momentum, as PyTorch: v = momentum * v + g; w -= lr * v.  In place on w, v. */
struct oom_sgd_args {
    enum oom_dtype dtype;
    int64_t n;
    double lr, momentum;
    oom_devptr w, v, g;
};

/* AdamW (Loshchilov, Hutter 2019), as PyTorch: t is the step, from 1;
 * w *= 1 - lr * decay; m += (1 - beta1) (g - m); v = beta2 v + (1 - beta2) g^2;
 * w -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps).
 * The scalar factors are computed in double and rounded to dtype once. */
struct oom_adamw_args {
    enum oom_dtype dtype;
    int64_t n;
    int64_t t;
    double lr, beta1, beta2, eps, decay;
    oom_devptr w, m, v, g;
};

/* x = value, n elements of dtype (f32 or f64). */
struct oom_fill_args {
    enum oom_dtype dtype;
    int64_t n;
    double value;
    oom_devptr x;
};

/* y = x, converted from one dtype to another (f32, f64). Rounds to nearest even. */
struct oom_copy_args {
    enum oom_dtype from, to;
    int64_t n;
    oom_devptr x, y;
};

/* x *= factor (rounded to dtype once). */
struct oom_scale_args {
    enum oom_dtype dtype;
    int64_t n;
    double factor;
    oom_devptr x;
};

/* y = y + a * x: one product, one sum, each rounded; a rounded to dtype once. */
struct oom_axpy_args {
    enum oom_dtype dtype;
    int64_t n;
    double a;
    oom_devptr x, y;
};

/* out = a + b. out may be a or b. */
struct oom_add_args {
    enum oom_dtype dtype;
    int64_t n;
    oom_devptr a, b, out;
};

/* found (1) i32: set to 1 if any of x is infinite or NaN, else left as it is. */
struct oom_finite_check_args {
    enum oom_dtype dtype;
    int64_t n;
    oom_devptr x, found;
};

/* ---- one description of every op, for checks, races, traffic and the GPU's roofline ---- */

enum { OOM_OPERANDS_MAX = 12 };

enum oom_direction { OOM_READ = 1, OOM_WRITE = 2, OOM_READ_WRITE = 3 };

struct oom_operand {
    const char *name; /* the struct's field: "dqkv" */
    oom_devptr ptr;
    uint64_t bytes; /* from ptr to the last byte touched */
    enum oom_direction direction;
};

const char *oom_op_name(enum oom_op op);  /* "gemm"; static */
size_t oom_op_args_bytes(enum oom_op op); /* sizeof its struct */

/* Shapes, dtypes and scalars are what the op's comment allows; else OOM_INVALID, naming op, field,
 * value. Addresses are not looked at, except that required ones must not be 0. */
enum oom_status oom_op_check(enum oom_op op, const void *args);

/* The memory an op touches; absent optional operands are left out. Returns how many. */
int oom_op_operands(enum oom_op op, const void *args, struct oom_operand out[OOM_OPERANDS_MAX]);

/* Workspace by shape and dtype only: the same for every thread count and instruction set. */
uint64_t oom_op_workspace_bytes(enum oom_op op, const void *args);

/* Floating-point operations by the formula (an fma is two) and bytes by the operands. */
struct oom_op_cost {
    double flops, bytes_read, bytes_written;
};
struct oom_op_cost oom_op_cost(enum oom_op op, const void *args);

/* Every op's arguments, for queues that keep a copy. */
union oom_op_args {
#define X(id, name) struct oom_##name##_args name;
    OOM_OP_MAP(X)
#undef X
};

#endif
