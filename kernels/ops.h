/*
 * ops.h: what runs on a device. One argument struct per op, with shapes, dtypes, layout and the
 * formula; every array is dense and row-major unless a leading dimension says otherwise.
 *
 * Letters: B samples, T positions, C channels, NH heads, D = C / NH, V classes or vocabulary,
 * N rows (B * T or B * R), E elements of one sample.
 *
 * Strictness, which every implementation keeps so that results are equal bit by bit:
 *   - gemm adds each c[i][j] over k in order. Accumulating, as one fma chain that starts from C.
 *     Otherwise as fma chains from 0 of OOM_CHAIN_STEPS each, added up in order, then the bias: k
 *     lies within a row there, so no cut of a batch can show, and over a vocabulary of 50,000 one
 *     chain would be ten times as far from the truth as several;
 *   - every sum *over rows* (gemm with a transposed A, sum_rows, layernorm's dgamma and dbeta,
 *     embedding and position gradients) is one chain per output element, in row order, that starts
 *     from the value at its destination: so accumulating over pieces of a batch, in order, equals
 *     the whole batch bitwise;
 *   - sums *within* a row (norm, softmax, the losses of a sample) use a fixed tree of 32 lanes:
 *     lane l adds elements l, l + 32, ... in order, then lanes are folded 16, 8, 4, 2, 1;
 *   - the results depend on no thread count, instruction set or schedule.
 *
 * Halves. Where an op's dtype is f16 or bf16, its arrays are stored so and every value is computed
 * in f32: elements are converted, exactly, when read, and a result is rounded once, to nearest
 * even, when written (half.h). What belongs to a row or is summed over rows is in the op's *wide*
 * type (oom_dtype_wide: f64 for f64, f32 for f32 and the halves): gradients of parameters, a norm's
 * statistics and parameters, biases, lse, losses, row weights. So no running sum is kept in a half,
 * and an op's bits are those of the f32 op on converted arrays, rounded. Scalars are rounded to the
 * wide type. Arrays are of dtype unless their op says "wide"; loss_sum, sgd and adamw have no
 * halves.
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
    X(CONV_FORWARD, conv_forward) \
    X(CONV_BACKWARD_DATA, conv_backward_data) \
    X(CONV_BACKWARD_WEIGHT, conv_backward_weight) \
    X(BATCHNORM_FORWARD, batchnorm_forward) \
    X(BATCHNORM_INFER, batchnorm_infer) \
    X(BATCHNORM_BACKWARD, batchnorm_backward) \
    X(GROUPNORM_FORWARD, groupnorm_forward) \
    X(GROUPNORM_BACKWARD, groupnorm_backward) \
    X(MAXPOOL_FORWARD, maxpool_forward) \
    X(MAXPOOL_BACKWARD, maxpool_backward) \
    X(MEANPOOL_FORWARD, meanpool_forward) \
    X(MEANPOOL_BACKWARD, meanpool_backward) \
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

enum { OOM_CHAIN_STEPS = 256 };

enum oom_op {
#define X(id, name) OOM_OP_##id,
    OOM_OP_MAP(X)
#undef X
        OOM_OP_COUNT
};

/* C = [C +] op(A) op(B) [+ bias].  op(A) is (M,K), op(B) is (K,N), C is (M,N).
 * A transposed matrix is stored as (K,M) or (N,K). ld counts elements and is at least the stored
 * row's length. A and B of dtype, bias wide; C of dtype, or with `wide` of its wide type. A C of
 * halves is the f32 result, bias included, rounded once. Flops 2MNK; bytes MK + KN of A and B,
 * MN (2MN) of C. */
struct oom_gemm_args {
    enum oom_dtype dtype;
    bool transpose_a, transpose_b;
    bool accumulate; /* start from C, which is not of halves; not together with bias */
    bool wide;       /* C is f32 where dtype is a half; for f32 and f64 it says nothing */
    int64_t m, n, k; /* each at least 1 */
    oom_devptr a;
    int64_t lda;
    oom_devptr b;
    int64_t ldb;
    oom_devptr c;
    int64_t ldc;
    oom_devptr bias; /* (N) or 0; added to each row in the end */
};

/* out[j] = out[j] + x[0][j] + x[1][j] + ..., in row order.  x (N,C), out (C) wide. The gradient of
 * a bias. */
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

/* dtable[tokens[r]] += dout[r], in row order. dtable wide. */
struct oom_embedding_backward_args {
    enum oom_dtype dtype;
    int64_t rows, channels, vocab;
    oom_devptr tokens, dout, dtable;
};

/* x[b][t] += table[t].  x (B,T,C), table (T or more,C). In place: a sum of two, rounded once. */
struct oom_position_forward_args {
    enum oom_dtype dtype;
    int64_t batch, positions, channels;
    oom_devptr table, x;
};

/* dtable[t] += dout[b][t], in order of b. dtable wide. */
struct oom_position_backward_args {
    enum oom_dtype dtype;
    int64_t batch, positions, channels;
    oom_devptr dout, dtable;
};

/* Layer normalisation over the last dimension (Ba, Kiros, Hinton 2016; biased variance):
 * mean = sum x / C; var = sum (x - mean)^2 / C; rstd = 1 / sqrt(var + eps);
 * out = (x - mean) * rstd * gamma + beta.  x, out (N,C); gamma, beta (C) and mean, rstd (N)
 * wide. */
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
 * residual (N,C) or 0: the gradient that reaches x past the norm. gamma, mean, rstd, dgamma, dbeta
 * wide. */
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
 * neither written nor read. Of halves, each array an op writes is its f32 result rounded once;
 * products are summed as a gemm's. */
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
 * a tile of scores ever exists, in scratch. lse (B,NH,T), wide, = log sum exp of the scaled scores.
 */
struct oom_attention_tiled_forward_args {
    enum oom_dtype dtype;
    int64_t batch, positions, channels, heads;
    oom_devptr qkv;
    oom_devptr out, lse;
};
/* delta = sum over D of dout * out per position and head, kept in workspace (B,NH,T), wide, and
 * with halves beside it dq in f32 (B,NH,T,D), which is summed over blocks of keys;
 * P = exp(scale q k^T - lse); dv = P^T dout; dS = P * (dout v^T - delta);
 * dq = scale dS k; dk = scale dS^T q. Writes all of dqkv (B,T,3C). */
struct oom_attention_tiled_backward_args {
    enum oom_dtype dtype;
    int64_t batch, positions, channels, heads;
    oom_devptr dout, out, qkv, lse;
    oom_devptr dqkv;
    oom_devptr workspace; /* oom_op_workspace_bytes() bytes */
};

/* ---- images: (B,H,W,C), channels last; E = H * W positions ---- */

/* A convolution's sizes; the result is (B,P,Q,K). At most 2^31 - 1 each, so is P, Q, and H + 2 pad.
 * The kernel fits the padded image, and pad is less than the kernel, so every window meets it. */
struct oom_conv_shape {
    int64_t batch, height, width, channels;       /* B, H, W, C */
    int64_t filters, kernel_height, kernel_width; /* K, R, S */
    int64_t stride, pad;                          /* from 1; from 0 */
};

/* P = (H + 2 pad - R) / stride + 1, rounded down; Q likewise. */
static inline int64_t oom_conv_rows(const struct oom_conv_shape *s) {
    return (s->height + 2 * s->pad - s->kernel_height) / s->stride + 1;
}
static inline int64_t oom_conv_columns(const struct oom_conv_shape *s) {
    return (s->width + 2 * s->pad - s->kernel_width) / s->stride + 1;
}

/* The same bits by either. EXPLICIT first writes the matrix of all windows, one row for each pixel
 * of the result, into the workspace: (B P Q, R S C) of dtype, for backward_data (B H W, R S K);
 * IMPLICIT gathers a few of these rows at a time into scratch and needs no workspace. */
enum oom_conv_algorithm { OOM_CONV_IMPLICIT, OOM_CONV_EXPLICIT, OOM_CONV_ALGORITHM_COUNT };

/* Convolution without bias (as everywhere in networks, a correlation: the kernel is not turned):
 * y[b][p][q][k] = sum of x[b][p stride + r - pad][q stride + s - pad][c] w[k][r][s][c] over (r, s,
 * c), in that order and summed as a gemm's; outside x is 0, whose products are in the sum.
 * x (B,H,W,C), w (K,R,S,C), y (B,P,Q,K). Flops 2 B P Q K R S C, the products with 0 counted. */
struct oom_conv_forward_args {
    enum oom_dtype dtype;
    enum oom_conv_algorithm algorithm;
    struct oom_conv_shape shape;
    oom_devptr x, w;
    oom_devptr y;
    oom_devptr workspace; /* oom_op_workspace_bytes() bytes, or 0 where that is 0 */
};

/* dx[b][h][w][c] = sum over (r, s, k) of dy[b][p][q][k] w[k][r][s][c] with p stride + r - pad = h
 * and q stride + s - pad = w, in that order and summed as a gemm's; where there is no such p or q
 * dy is 0, whose products are in the sum. Flops 2 B H W C R S K. */
struct oom_conv_backward_data_args {
    enum oom_dtype dtype;
    enum oom_conv_algorithm algorithm;
    struct oom_conv_shape shape;
    oom_devptr dy, w;
    oom_devptr dx;
    oom_devptr workspace; /* as above */
};

/* dw[k][r][s][c] += sum over (b, p, q) of dy[b][p][q][k] x[b][p stride + r - pad][...][c]: one
 * chain over the rows (b, p, q) in order, from the value at its destination. dw (K,R,S,C) wide. */
struct oom_conv_backward_weight_args {
    enum oom_dtype dtype;
    enum oom_conv_algorithm algorithm;
    struct oom_conv_shape shape;
    oom_devptr dy, x;
    oom_devptr dw;
    oom_devptr workspace; /* as above */
};

/* Batch normalisation (Ioffe, Szegedy 2015) of N = B E rows. With counts, sample b stands counts[b]
 * times in the statistics (c is its count, 1 without), and M = E * sum of counts, N without:
 * mean = sum c x / M; var = sum c (x - mean)^2 / M; rstd = 1 / sqrt(var + eps);
 * out = (x - mean) * rstd * gamma + beta;
 * running = (1 - momentum) * running + momentum * value, of the mean and of the unbiased variance
 * sum c (x - mean)^2 / (M - 1), as PyTorch. Sums are one chain over rows per channel from 0,
 * compensated (Kahan 1965: each addition takes back what the last one lost), as no cut of a batch
 * can keep them anyway and their error reaches every row. x, out (B,E,C); the others (C) wide, but
 * counts (B) wide. counts or 0; both of running or 0, and with them M must be above 1 (refused
 * where B E is 1 without counts). */
struct oom_batchnorm_forward_args {
    enum oom_dtype dtype;
    int64_t batch, positions, channels;
    double eps, momentum; /* momentum is not looked at where running is 0 */
    oom_devptr x, gamma, beta, counts;
    oom_devptr out, mean, rstd, running_mean, running_var;
};

/* out = (x - running_mean) * (1 / sqrt(running_var + eps)) * gamma + beta.  x, out (N,C); the
 * others (C) wide. */
struct oom_batchnorm_infer_args {
    enum oom_dtype dtype;
    int64_t rows, channels;
    double eps;
    oom_devptr x, gamma, beta, running_mean, running_var;
    oom_devptr out;
};

/* xhat = (x - mean) * rstd; dout of a sample is the gradient that all its occurrences receive, dx
 * likewise:
 * dx = residual + gamma * rstd * (dout - c * sum(dout) / M - c * xhat * sum(dout * xhat) / M);
 * dgamma += sum of dout * xhat; dbeta += sum of dout. A sample's sums are compensated chains
 * over its positions; samples are added in order, for dx compensated and from 0, for dgamma and
 * dbeta plainly and from the destination: a chain over all rows would repeat the rounding error of
 * the equal terms that a mean's gradient is. residual (B,E,C) or 0, counts (B) or 0. */
struct oom_batchnorm_backward_args {
    enum oom_dtype dtype;
    int64_t batch, positions, channels;
    oom_devptr dout, x, gamma, mean, rstd, counts, residual;
    oom_devptr dx, dgamma, dbeta;
};

/* Group normalisation (Wu, He 2018): the statistics are those of one sample and one of G groups of
 * C / G adjacent channels, n = E * C / G elements:
 * mean = sum x / n; var = sum (x - mean)^2 / n; rstd = 1 / sqrt(var + eps);
 * out = (x - mean) * rstd * gamma + beta.
 * Sums are one compensated chain (as above) over positions per channel, then a plain one over the
 * group's channels in order.
 * x, out (B,E,C); gamma, beta (C) wide; mean, rstd (B,G) wide. groups divides channels. */
struct oom_groupnorm_forward_args {
    enum oom_dtype dtype;
    int64_t batch, positions, channels, groups;
    double eps;
    oom_devptr x, gamma, beta;
    oom_devptr out, mean, rstd;
};

/* As layernorm_backward, with the sums over the group: g = dout * gamma;
 * dx = residual + rstd * (g - sum(g) / n - xhat * sum(g * xhat) / n);
 * dgamma += sum over the rows (b, e) of dout * xhat; dbeta += sum of dout: compensated
 * chains over a sample's positions, samples added in order from the destination. */
struct oom_groupnorm_backward_args {
    enum oom_dtype dtype;
    int64_t batch, positions, channels, groups;
    oom_devptr dout, x, gamma, mean, rstd, residual;
    oom_devptr dx, dgamma, dbeta;
};

/* y[b][p][q][c] = the largest of the window of size * size elements that begins at (p size, q
 * size); rows and columns beyond the last whole window are ignored. index is r * size + s of the
 * element taken: the first one unless a later one is greater, or NaN (PyTorch's rule: the last
 * NaN). With `branch` (u8, or 0) the index is taken from there instead (clamped to size^2 - 1) and
 * y is that element, so that a second computation follows the same branch; index is written all the
 * same. x (B,H,W,C); y, index, branch (B,H/size,W/size,C); size at most 16, H and W. */
struct oom_maxpool_forward_args {
    enum oom_dtype dtype;
    int64_t batch, height, width, channels, size;
    oom_devptr x, branch;
    oom_devptr y, index;
};

/* dx = dy of its window where the window's index names it, else 0. Writes all of dx (B,H,W,C). */
struct oom_maxpool_backward_args {
    enum oom_dtype dtype;
    int64_t batch, height, width, channels, size;
    oom_devptr dy, index;
    oom_devptr dx;
};

/* y[b] = (x[b][0] + x[b][1] + ...) / E: one chain over positions from 0.  x (B,E,C), y (B,C). */
struct oom_meanpool_forward_args {
    enum oom_dtype dtype;
    int64_t batch, positions, channels;
    oom_devptr x, y;
};

/* dx[b][e] = dy[b] / E. */
struct oom_meanpool_backward_args {
    enum oom_dtype dtype;
    int64_t batch, positions, channels;
    oom_devptr dy, dx;
};

/* Softmax cross-entropy with row weights:
 * p = softmax(logits[r]); losses[r] = weights[r] * -log p[targets[r]];
 * dlogits[r] = weights[r] * scale * (p - onehot(targets[r])).
 * logits, dlogits (N,V); targets (N) i32, clamped as in embedding; weights, losses (N) wide;
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
 * losses (B,T), out (1). f32 or f64. */
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

/* SGD with momentum, as PyTorch: v = momentum * v + g; w -= lr * v.  In place on w, v. f32 or
 * f64. */
struct oom_sgd_args {
    enum oom_dtype dtype;
    int64_t n;
    double lr, momentum;
    oom_devptr w, v, g;
};

/* AdamW (Loshchilov, Hutter 2019), as PyTorch: t is the step, from 1;
 * w *= 1 - lr * decay; m += (1 - beta1) (g - m); v = beta2 v + (1 - beta2) g^2;
 * w -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps).
 * The scalar factors are computed in double and rounded to dtype once. f32 or f64. */
struct oom_adamw_args {
    enum oom_dtype dtype;
    int64_t n;
    int64_t t;
    double lr, beta1, beta2, eps, decay;
    oom_devptr w, m, v, g;
};

/* x = value, rounded to dtype once; n elements. */
struct oom_fill_args {
    enum oom_dtype dtype;
    int64_t n;
    double value;
    oom_devptr x;
};

/* y = x, converted from one dtype to another: every pair of f32, f64, f16 and bf16, rounded once
 * (f64 to a half not by way of f32), to nearest even. */
struct oom_copy_args {
    enum oom_dtype from, to;
    int64_t n;
    oom_devptr x, y;
};

/* x *= factor (rounded to the wide type once). */
struct oom_scale_args {
    enum oom_dtype dtype;
    int64_t n;
    double factor;
    oom_devptr x;
};

/* y = y + a * x: one product, one sum, each rounded; a rounded to the wide type once; y wide. */
struct oom_axpy_args {
    enum oom_dtype dtype;
    int64_t n;
    double a;
    oom_devptr x, y;
};

/* out = a + b, rounded once. a and out of dtype; b of b_dtype, which is dtype, or a half beside
 * f32, or f32 beside a half. out may be a, and b where that is of dtype. */
struct oom_add_args {
    enum oom_dtype dtype, b_dtype;
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
