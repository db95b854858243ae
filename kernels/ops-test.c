/*
 * The one description of every op: operands, workspace and costs against figures worked out by hand
 * for small shapes, and a refusal that names op, field and value for every field that can be wrong.
 */
#include "kernels/ops-testing.h"

#include <math.h>

void ops_test(void);

/* Addresses 1, 2, 3 ... stand for operands: nothing looks at them. */

static void test_gemm(void) {
    TEST("ops: gemm");
    struct oom_gemm_args g = {OOM_F32, false, false, false, false, 2, 3, 4, 1, 5, 2, 3, 3, 7, 0};
    /* a: one row of 5 and 4 more; b: 4 rows of 3; c: one row of 7 and 3 more */
    expect(OOM_OP_GEMM, &g, "a:r36 b:r48 c:w40", 48, (8 + 12) * 4, 24);
    g.accumulate = true;
    expect(OOM_OP_GEMM, &g, "a:r36 b:r48 c:rw40", 48, (8 + 12 + 6) * 4, 24);
    BAD(GEMM, g, bias, 9, "0x9");
    g.accumulate = false, g.bias = 9, g.dtype = OOM_F64;
    expect(OOM_OP_GEMM, &g, "a:r72 b:r96 c:w80 bias:r24", 48 + 6, (8 + 12 + 3) * 8, 48);
    BAD_DTYPE(GEMM, g);
    BAD_DIM(GEMM, g, m);
    BAD_DIM(GEMM, g, n);
    BAD_DIM(GEMM, g, k);
    BAD(GEMM, g, lda, 3, "3");
    BAD(GEMM, g, ldb, 2, "2");
    BAD(GEMM, g, ldc, 2, "2");
    struct oom_gemm_args far = g;
    far.ldc = INT64_MAX;
    refuse(OOM_OP_GEMM, &far, "c", "2^63");
    BAD_POINTER(GEMM, g, a);
    BAD_POINTER(GEMM, g, b);
    BAD_POINTER(GEMM, g, c);
    g.transpose_a = g.transpose_b = true; /* a is (4,2), b (3,4) */
    g.lda = 2, g.ldb = 4;
    expect(OOM_OP_GEMM, &g, "a:r64 b:r96 c:w80 bias:r24", 48 + 6, (8 + 12 + 3) * 8, 48);
    BAD(GEMM, g, lda, 1, "1");
    BAD(GEMM, g, ldb, 3, "3");
    g.dtype = OOM_F16; /* bias stays wide; C is if asked */
    expect(OOM_OP_GEMM, &g, "a:r16 b:r24 c:w20 bias:r12", 48 + 6, (8 + 12) * 2 + 3 * 4, 12);
    g.wide = true;
    expect(OOM_OP_GEMM, &g, "a:r16 b:r24 c:w40 bias:r12", 48 + 6, (8 + 12) * 2 + 3 * 4, 24);
    g.bias = 0, g.accumulate = true;
    expect(OOM_OP_GEMM, &g, "a:r16 b:r24 c:rw40", 48, (8 + 12) * 2 + 6 * 4, 24);
    BAD(GEMM, g, wide, false, "accumulate and dtype f16");
}

static void test_rows(void) {
    TEST("ops: sum_rows, embedding, position");
    struct oom_sum_rows_args s = {OOM_F32, 5, 3, 1, 2};
    expect(OOM_OP_SUM_ROWS, &s, "x:r60 out:rw12", 15, 72, 12);
    BAD_DTYPE(SUM_ROWS, s);
    BAD_DIM(SUM_ROWS, s, rows);
    BAD_DIM(SUM_ROWS, s, columns);
    BAD_POINTER(SUM_ROWS, s, x);
    BAD_POINTER(SUM_ROWS, s, out);
    struct oom_loss_sum_args l = {OOM_F64, 5, 3, 1, 2};
    expect(OOM_OP_LOSS_SUM, &l, "losses:r120 out:rw8", 15, 128, 8);
    BAD_HALF(LOSS_SUM, l);
    BAD_DIM(LOSS_SUM, l, batch);
    BAD_POINTER(LOSS_SUM, l, out);
    struct oom_sum_rows_args wide = s; /* 2^62 * 4 elements: the product does not fit */
    wide.rows = INT64_C(1) << 62, wide.columns = 4;
    refuse(OOM_OP_SUM_ROWS, &wide, "x", "rows 4611686018427387904, columns 4");

    struct oom_embedding_forward_args e = {OOM_F32, 5, 3, 7, 1, 2, 3};
    expect(OOM_OP_EMBEDDING_FORWARD, &e, "tokens:r20 table:r84 out:w60", 0, 20 + 60, 60);
    e.rows = 9; /* more tokens than rows of the table */
    expect(OOM_OP_EMBEDDING_FORWARD, &e, "tokens:r36 table:r84 out:w108", 0, 36 + 84, 108);
    BAD_DTYPE(EMBEDDING_FORWARD, e);
    BAD_DIM(EMBEDDING_FORWARD, e, rows);
    BAD_DIM(EMBEDDING_FORWARD, e, channels);
    BAD_DIM(EMBEDDING_FORWARD, e, vocab);
    BAD(EMBEDDING_FORWARD, e, vocab, INT64_C(1) << 31, "2147483648");
    BAD_POINTER(EMBEDDING_FORWARD, e, tokens);
    BAD_POINTER(EMBEDDING_FORWARD, e, table);
    BAD_POINTER(EMBEDDING_FORWARD, e, out);
    struct oom_embedding_backward_args eb = {OOM_F64, 5, 3, 7, 1, 2, 3};
    expect(OOM_OP_EMBEDDING_BACKWARD, &eb, "tokens:r20 dout:r120 dtable:rw168", 15, 20 + 240, 120);
    BAD_DIM(EMBEDDING_BACKWARD, eb, rows);
    BAD_DIM(EMBEDDING_BACKWARD, eb, channels);
    BAD_DIM(EMBEDDING_BACKWARD, eb, vocab);
    BAD_POINTER(EMBEDDING_BACKWARD, eb, tokens);
    BAD_POINTER(EMBEDDING_BACKWARD, eb, dout);
    BAD_POINTER(EMBEDDING_BACKWARD, eb, dtable);

    struct oom_position_forward_args p = {OOM_F32, 2, 3, 5, 1, 2};
    expect(OOM_OP_POSITION_FORWARD, &p, "table:r60 x:rw120", 30, 180, 120);
    BAD_DIM(POSITION_FORWARD, p, batch);
    BAD_DIM(POSITION_FORWARD, p, positions);
    BAD_DIM(POSITION_FORWARD, p, channels);
    BAD_POINTER(POSITION_FORWARD, p, table);
    BAD_POINTER(POSITION_FORWARD, p, x);
    struct oom_position_backward_args pb = {OOM_F32, 2, 3, 5, 1, 2};
    expect(OOM_OP_POSITION_BACKWARD, &pb, "dout:r120 dtable:rw60", 30, 180, 60);
    BAD_DIM(POSITION_BACKWARD, pb, batch);
    BAD_POINTER(POSITION_BACKWARD, pb, dout);
    BAD_POINTER(POSITION_BACKWARD, pb, dtable);
}

static void test_norm(void) {
    TEST("ops: layernorm");
    struct oom_layernorm_forward_args f = {OOM_F32, 5, 3, 1e-5, 1, 2, 3, 4, 5, 6};
    expect(OOM_OP_LAYERNORM_FORWARD, &f, "x:r60 gamma:r12 beta:r12 out:w60 mean:w20 rstd:w20",
           8 * 15 + 5 * 5, 84, 100);
    BAD_DTYPE(LAYERNORM_FORWARD, f);
    BAD_DIM(LAYERNORM_FORWARD, f, rows);
    BAD_DIM(LAYERNORM_FORWARD, f, channels);
    BAD(LAYERNORM_FORWARD, f, eps, -1, "-1");
    BAD(LAYERNORM_FORWARD, f, eps, NAN, "nan");
    BAD_POINTER(LAYERNORM_FORWARD, f, x);
    BAD_POINTER(LAYERNORM_FORWARD, f, gamma);
    BAD_POINTER(LAYERNORM_FORWARD, f, beta);
    BAD_POINTER(LAYERNORM_FORWARD, f, out);
    BAD_POINTER(LAYERNORM_FORWARD, f, mean);
    BAD_POINTER(LAYERNORM_FORWARD, f, rstd);
    struct oom_layernorm_backward_args b = {OOM_F32, 5, 3, 1, 2, 3, 4, 5, 0, 7, 8, 9};
    expect(OOM_OP_LAYERNORM_BACKWARD, &b,
           "dout:r60 x:r60 gamma:r12 mean:r20 rstd:r20 dx:w60 dgamma:rw12 dbeta:rw12", 13 * 15 + 10,
           196, 84);
    b.residual = 6;
    expect(OOM_OP_LAYERNORM_BACKWARD, &b,
           "dout:r60 x:r60 gamma:r12 mean:r20 rstd:r20 residual:r60 dx:w60 dgamma:rw12 dbeta:rw12",
           14 * 15 + 10, 256, 84);
    BAD_DIM(LAYERNORM_BACKWARD, b, rows);
    BAD_POINTER(LAYERNORM_BACKWARD, b, dout);
    BAD_POINTER(LAYERNORM_BACKWARD, b, x);
    BAD_POINTER(LAYERNORM_BACKWARD, b, gamma);
    BAD_POINTER(LAYERNORM_BACKWARD, b, mean);
    BAD_POINTER(LAYERNORM_BACKWARD, b, rstd);
    BAD_POINTER(LAYERNORM_BACKWARD, b, dx);
    BAD_POINTER(LAYERNORM_BACKWARD, b, dgamma);
    BAD_POINTER(LAYERNORM_BACKWARD, b, dbeta);
}

/* B 2, T 3, C 4, NH 2 (D 2): 6 positions, 24 states (96 bytes), qkv 288 bytes, squares of 36
 * elements (144 bytes) of which 24 are causal (96 bytes). */
static void test_attention(void) {
    TEST("ops: attention");
    struct oom_attention_scores_forward_args s = {OOM_F32, 2, 3, 4, 2, 1, 2};
    expect(OOM_OP_ATTENTION_SCORES_FORWARD, &s, "qkv:r288 scores:w144", 5 * 24, 192, 96);
    BAD_DTYPE(ATTENTION_SCORES_FORWARD, s);
    BAD_DIM(ATTENTION_SCORES_FORWARD, s, batch);
    BAD_DIM(ATTENTION_SCORES_FORWARD, s, positions);
    BAD_DIM(ATTENTION_SCORES_FORWARD, s, channels);
    BAD_DIM(ATTENTION_SCORES_FORWARD, s, heads);
    BAD(ATTENTION_SCORES_FORWARD, s, heads, 3, "3");
    BAD_POINTER(ATTENTION_SCORES_FORWARD, s, qkv);
    BAD_POINTER(ATTENTION_SCORES_FORWARD, s, scores);
    struct oom_attention_softmax_forward_args m = {OOM_F32, 2, 3, 2, 1, 2};
    expect(OOM_OP_ATTENTION_SOFTMAX_FORWARD, &m, "scores:r144 probs:w144", 5 * 24, 96, 96);
    BAD_DIM(ATTENTION_SOFTMAX_FORWARD, m, heads);
    BAD_POINTER(ATTENTION_SOFTMAX_FORWARD, m, probs);
    struct oom_attention_values_forward_args v = {OOM_F32, 2, 3, 4, 2, 1, 2, 3};
    expect(OOM_OP_ATTENTION_VALUES_FORWARD, &v, "probs:r144 qkv:r288 out:w96", 4 * 24, 192, 96);
    BAD_POINTER(ATTENTION_VALUES_FORWARD, v, out);
    struct oom_attention_values_backward_args vb = {OOM_F32, 2, 3, 4, 2, 1, 2, 3, 4, 5};
    expect(OOM_OP_ATTENTION_VALUES_BACKWARD, &vb,
           "dout:r96 probs:r144 qkv:r288 dprobs:w144 dqkv:w288", 8 * 24, 96 * 3, 96 * 2);
    BAD_POINTER(ATTENTION_VALUES_BACKWARD, vb, dprobs);
    struct oom_attention_softmax_backward_args mb = {OOM_F32, 2, 3, 2, 1, 2, 3};
    expect(OOM_OP_ATTENTION_SOFTMAX_BACKWARD, &mb, "probs:r144 dprobs:r144 dscores:w144", 4 * 24,
           192, 96);
    BAD_POINTER(ATTENTION_SOFTMAX_BACKWARD, mb, dscores);
    struct oom_attention_scores_backward_args sb = {OOM_F32, 2, 3, 4, 2, 1, 2, 3};
    expect(OOM_OP_ATTENTION_SCORES_BACKWARD, &sb, "dscores:r144 qkv:r288 dqkv:w288",
           8 * 24 + 2 * 24, 96 * 3, 96 * 2);
    BAD_POINTER(ATTENTION_SCORES_BACKWARD, sb, dqkv);

    struct oom_attention_tiled_forward_args f = {OOM_F32, 2, 3, 4, 2, 1, 2, 3};
    expect(OOM_OP_ATTENTION_TILED_FORWARD, &f, "qkv:r288 out:w96 lse:w48", 14 * 24 + 2 * 12, 288,
           96 + 48);
    BAD(ATTENTION_TILED_FORWARD, f, heads, 3, "3");
    BAD_POINTER(ATTENTION_TILED_FORWARD, f, lse);
    struct oom_attention_tiled_backward_args b = {OOM_F32, 2, 3, 4, 2, 1, 2, 3, 4, 5, 6};
    expect(OOM_OP_ATTENTION_TILED_BACKWARD, &b,
           "dout:r96 out:r96 qkv:r288 lse:r48 dqkv:w288 workspace:rw48", 25 * 24 + 4 * 24,
           96 + 96 + 288 + 48 + 48, 288 + 48);
    BAD_POINTER(ATTENTION_TILED_BACKWARD, b, workspace);
    b.workspace = 0; /* asked before there is one */
    CHECK_EQ(oom_op_workspace_bytes(OOM_OP_ATTENTION_TILED_BACKWARD, &b), 2 * 2 * 3 * 4);
    CHECK_EQ(oom_op_workspace_bytes(OOM_OP_ATTENTION_TILED_FORWARD, &f), 0);
    f.dtype = b.dtype = OOM_BF16; /* lse and delta stay wide; dq is summed in f32 beside delta */
    expect(OOM_OP_ATTENTION_TILED_FORWARD, &f, "qkv:r144 out:w48 lse:w48", 14 * 24 + 2 * 12, 144,
           48 + 48);
    b.workspace = 6;
    expect(OOM_OP_ATTENTION_TILED_BACKWARD, &b,
           "dout:r48 out:r48 qkv:r144 lse:r48 dqkv:w144 workspace:rw144", 25 * 24 + 4 * 24,
           48 + 48 + 144 + 48 + 144, 144 + 144);
    CHECK_EQ(oom_op_workspace_bytes(OOM_OP_ATTENTION_TILED_BACKWARD, &b), (12 + 24) * 4);
}

static void test_loss_dropout(void) {
    TEST("ops: cross_entropy, dropout");
    struct oom_cross_entropy_args c = {OOM_F32, 5, 3, 1, 1, 2, 3, 4, 5};
    expect(OOM_OP_CROSS_ENTROPY, &c, "logits:r60 targets:r20 weights:r20 losses:w20 dlogits:w60",
           6 * 20, 100, 80);
    BAD_DTYPE(CROSS_ENTROPY, c);
    BAD_DIM(CROSS_ENTROPY, c, rows);
    BAD_DIM(CROSS_ENTROPY, c, classes);
    BAD(CROSS_ENTROPY, c, scale, INFINITY, "inf");
    BAD(CROSS_ENTROPY, c, scale, -INFINITY, "-inf");
    BAD_POINTER(CROSS_ENTROPY, c, logits);
    BAD_POINTER(CROSS_ENTROPY, c, targets);
    BAD_POINTER(CROSS_ENTROPY, c, weights);
    BAD_POINTER(CROSS_ENTROPY, c, losses);
    c.dlogits = 0;
    expect(OOM_OP_CROSS_ENTROPY, &c, "logits:r60 targets:r20 weights:r20 losses:w20", 4 * 20, 100,
           20);
    struct oom_dropout_args d = {OOM_F32, 5, 3, 0.5, 1, 2, 3, 1, 2, 3};
    expect(OOM_OP_DROPOUT, &d, "samples:r40 x:r60 y:w60", 15, 100, 60);
    BAD_DTYPE(DROPOUT, d);
    BAD_DIM(DROPOUT, d, batch);
    BAD_DIM(DROPOUT, d, elements);
    BAD(DROPOUT, d, elements, INT64_C(1) << 34, "17179869184");
    BAD(DROPOUT, d, p, 1, "1");
    BAD(DROPOUT, d, p, -0.1, "-0.1");
    BAD(DROPOUT, d, p, NAN, "nan");
    BAD_POINTER(DROPOUT, d, samples);
    BAD_POINTER(DROPOUT, d, x);
    BAD_POINTER(DROPOUT, d, y);
}

static void test_optimizers(void) {
    TEST("ops: sgd, adamw");
    struct oom_sgd_args s = {OOM_F32, 7, 0.1, 0.9, 1, 2, 3};
    expect(OOM_OP_SGD, &s, "w:rw28 v:rw28 g:r28", 28, 84, 56);
    BAD_N(SGD, s, "w");
    BAD_HALF(SGD, s);
    BAD(SGD, s, lr, NAN, "nan");
    BAD(SGD, s, momentum, -1, "-1");
    BAD_POINTER(SGD, s, w);
    BAD_POINTER(SGD, s, v);
    BAD_POINTER(SGD, s, g);
    struct oom_adamw_args a = {OOM_F64, 7, 1, 0.1, 0.9, 0.99, 1e-8, 0.1, 1, 2, 3, 4};
    expect(OOM_OP_ADAMW, &a, "w:rw56 m:rw56 v:rw56 g:r56", 14 * 7, 224, 168);
    BAD_N(ADAMW, a, "w");
    BAD_HALF(ADAMW, a);
    BAD_DIM(ADAMW, a, t);
    BAD(ADAMW, a, lr, -1, "-1");
    BAD(ADAMW, a, beta1, 1, "1");
    BAD(ADAMW, a, beta2, -0.5, "-0.5");
    BAD(ADAMW, a, eps, INFINITY, "inf");
    BAD(ADAMW, a, decay, NAN, "nan");
    BAD_POINTER(ADAMW, a, w);
    BAD_POINTER(ADAMW, a, m);
    BAD_POINTER(ADAMW, a, v);
    BAD_POINTER(ADAMW, a, g);
}

static void test_arrays(void) {
    TEST("ops: gelu, relu, fill, copy, scale, axpy, add, finite_check");
    struct oom_gelu_forward_args gf = {OOM_F32, 7, 1, 2};
    expect(OOM_OP_GELU_FORWARD, &gf, "x:r28 y:w28", 63, 28, 28);
    BAD_N(GELU_FORWARD, gf, "x");
    BAD_POINTER(GELU_FORWARD, gf, x);
    BAD_POINTER(GELU_FORWARD, gf, y);
    struct oom_gelu_backward_args gb = {OOM_F32, 7, 1, 2, 3};
    expect(OOM_OP_GELU_BACKWARD, &gb, "x:r28 dy:r28 dx:w28", 126, 56, 28);
    BAD_POINTER(GELU_BACKWARD, gb, dy);
    struct oom_relu_forward_args rf = {OOM_F32, 7, 1, 0, 2};
    expect(OOM_OP_RELU_FORWARD, &rf, "x:r28 y:w28", 7, 28, 28);
    rf.branch = 3;
    expect(OOM_OP_RELU_FORWARD, &rf, "x:r28 branch:r7 y:w28", 7, 35, 28);
    BAD_N(RELU_FORWARD, rf, "x");
    struct oom_relu_backward_args rb = {OOM_F32, 7, 1, 0, 2, 3};
    expect(OOM_OP_RELU_BACKWARD, &rb, "y:r28 dy:r28 dx:w28", 7, 56, 28);
    BAD_POINTER(RELU_BACKWARD, rb, y);
    rb.branch = 4; /* instead of y, which need not be there */
    rb.y = 0;
    expect(OOM_OP_RELU_BACKWARD, &rb, "branch:r7 dy:r28 dx:w28", 7, 35, 28);
    struct oom_fill_args fill = {OOM_F64, 7, 1, 1};
    expect(OOM_OP_FILL, &fill, "x:w56", 0, 0, 56);
    BAD_N(FILL, fill, "x");
    BAD_POINTER(FILL, fill, x);
    struct oom_copy_args copy = {OOM_F32, OOM_F64, 7, 1, 2};
    expect(OOM_OP_COPY, &copy, "x:r28 y:w56", 0, 28, 56);
    BAD(COPY, copy, from, OOM_I32, "i32");
    BAD(COPY, copy, to, OOM_U8, "u8");
    BAD_DIM(COPY, copy, n);
    struct oom_scale_args scale = {OOM_F32, 7, 2, 1};
    expect(OOM_OP_SCALE, &scale, "x:rw28", 7, 28, 28);
    BAD_N(SCALE, scale, "x");
    struct oom_axpy_args axpy = {OOM_F32, 7, 2, 1, 2};
    expect(OOM_OP_AXPY, &axpy, "x:r28 y:rw28", 14, 56, 28);
    BAD_N(AXPY, axpy, "x");
    struct oom_add_args add = {OOM_F32, OOM_F32, 7, 1, 2, 3};
    expect(OOM_OP_ADD, &add, "a:r28 b:r28 out:w28", 7, 56, 28);
    BAD_N(ADD, add, "a");
    BAD(ADD, add, b_dtype, OOM_F64, "f64");
    BAD(ADD, add, b_dtype, OOM_I32, "are f32, f16 and bf16");
    add.dtype = OOM_F16;
    BAD(ADD, add, b_dtype, OOM_BF16, "bf16");
    BAD(ADD, add, b_dtype, OOM_F64, "are the same and f32");
    add.dtype = OOM_F64;
    BAD(ADD, add, b_dtype, OOM_F32, "f32");
    struct oom_finite_check_args finite = {OOM_F32, 7, 1, 2};
    expect(OOM_OP_FINITE_CHECK, &finite, "x:r28 found:rw4", 7, 32, 4);
    BAD_N(FINITE_CHECK, finite, "x");
    BAD_POINTER(FINITE_CHECK, finite, found);
}

/* What belongs to rows or is summed over them has 4 bytes beside halves of 2. */
static void test_halves(void) {
    TEST("ops: halves, and what is wide beside them");
    struct oom_sum_rows_args s = {OOM_F16, 5, 3, 1, 2};
    expect(OOM_OP_SUM_ROWS, &s, "x:r30 out:rw12", 15, 30 + 12, 12);
    struct oom_embedding_forward_args e = {OOM_BF16, 5, 3, 7, 1, 2, 3};
    expect(OOM_OP_EMBEDDING_FORWARD, &e, "tokens:r20 table:r42 out:w30", 0, 20 + 30, 30);
    struct oom_embedding_backward_args eb = {OOM_F16, 5, 3, 7, 1, 2, 3};
    expect(OOM_OP_EMBEDDING_BACKWARD, &eb, "tokens:r20 dout:r30 dtable:rw84", 15, 20 + 30 + 60, 60);
    struct oom_position_forward_args p = {OOM_BF16, 2, 3, 5, 1, 2};
    expect(OOM_OP_POSITION_FORWARD, &p, "table:r30 x:rw60", 30, 90, 60);
    struct oom_position_backward_args pb = {OOM_F16, 2, 3, 5, 1, 2};
    expect(OOM_OP_POSITION_BACKWARD, &pb, "dout:r60 dtable:rw60", 30, 120, 60);
    struct oom_layernorm_forward_args f = {OOM_F16, 5, 3, 1e-5, 1, 2, 3, 4, 5, 6};
    expect(OOM_OP_LAYERNORM_FORWARD, &f, "x:r30 gamma:r12 beta:r12 out:w30 mean:w20 rstd:w20",
           8 * 15 + 5 * 5, 54, 70);
    struct oom_layernorm_backward_args b = {OOM_BF16, 5, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    expect(OOM_OP_LAYERNORM_BACKWARD, &b,
           "dout:r30 x:r30 gamma:r12 mean:r20 rstd:r20 residual:r30 dx:w30 dgamma:rw12 dbeta:rw12",
           14 * 15 + 10, 30 + 30 + 12 + 40 + 30 + 24, 30 + 24);
    struct oom_cross_entropy_args c = {OOM_F16, 5, 3, 1, 1, 2, 3, 4, 5};
    expect(OOM_OP_CROSS_ENTROPY, &c, "logits:r30 targets:r20 weights:r20 losses:w20 dlogits:w30",
           6 * 20, 70, 50);
    struct oom_copy_args copy = {OOM_F64, OOM_BF16, 7, 1, 2};
    expect(OOM_OP_COPY, &copy, "x:r56 y:w14", 0, 56, 14);
    struct oom_axpy_args axpy = {OOM_F16, 7, 2, 1, 2};
    expect(OOM_OP_AXPY, &axpy, "x:r14 y:rw28", 14, 42, 28);
    struct oom_add_args add = {OOM_F16, OOM_F32, 7, 1, 2, 3};
    expect(OOM_OP_ADD, &add, "a:r14 b:r28 out:w14", 7, 42, 14);
    add.dtype = OOM_F32, add.b_dtype = OOM_BF16;
    expect(OOM_OP_ADD, &add, "a:r28 b:r14 out:w28", 7, 42, 28);
}

static void test_names(void) {
    TEST("ops: names, sizes, unknown ops");
    CHECK_STR(oom_op_name(OOM_OP_GEMM), "gemm");
    CHECK_STR(oom_op_name(OOM_OP_FINITE_CHECK), "finite_check");
    CHECK_STR(oom_op_name((enum oom_op)1000), "unknown");
    CHECK_EQ(oom_op_args_bytes(OOM_OP_ADAMW), sizeof(struct oom_adamw_args));
    CHECK_EQ(oom_op_args_bytes(OOM_OP_COUNT), 0);
    CHECK_EQ(oom_op_check((enum oom_op)1000, ""), OOM_INVALID);
    CHECK(strstr(oom_failure_last()->message, "1000") != NULL);
    oom_failure_clear();
    CHECK_EQ(oom_op_check(OOM_OP_FILL, NULL), OOM_INVALID);
    oom_failure_clear();
}

void ops_test(void) {
    test_names();
    test_gemm();
    test_rows();
    test_norm();
    test_attention();
    test_loss_dropout();
    test_optimizers();
    test_arrays();
    test_halves();
}
