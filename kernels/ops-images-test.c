/*
 * The descriptions of convolutions, norms and pooling over images: figures worked out by hand for
 * small shapes, and a refusal for every field that can be wrong.
 */
#include "kernels/ops-testing.h"

#include <math.h>

void ops_images_test(void);

/* B 2, 5 x 4 x 3 to K 6 by 3 x 2 taps, stride 2, pad 1: P 3, Q 3. x 120 elements, w 108, y 108;
 * 18 windows of 18 elements, backwards 40 of 36. */
static const struct oom_conv_shape shape = {2, 5, 4, 3, 6, 3, 2, 2, 1};

static void test_conv(void) {
    TEST("ops: convolutions");
    struct oom_conv_forward_args f = {OOM_F32, OOM_CONV_IMPLICIT, shape, 1, 2, 3, 0};
    CHECK_EQ(oom_conv_rows(&shape), 3);
    CHECK_EQ(oom_conv_columns(&shape), 3);
    CHECK_EQ(oom_op_workspace_bytes(OOM_OP_CONV_FORWARD, &f), 0);
    expect(OOM_OP_CONV_FORWARD, &f, "x:r480 w:r432 y:w432", 2 * 18 * 6 * 18, 912, 432);
    struct oom_conv_backward_data_args d = {OOM_F64, OOM_CONV_IMPLICIT, shape, 1, 2, 3, 0};
    expect(OOM_OP_CONV_BACKWARD_DATA, &d, "dy:r864 w:r864 dx:w960", 2 * 40 * 36 * 3, 1728, 960);
    struct oom_conv_backward_weight_args w = {OOM_F16, OOM_CONV_IMPLICIT, shape, 1, 2, 3, 0};
    expect(OOM_OP_CONV_BACKWARD_WEIGHT, &w, "dy:r216 x:r240 dw:rw432", 2 * 18 * 6 * 18, 456 + 432,
           432);
    f.algorithm = d.algorithm = w.algorithm = OOM_CONV_EXPLICIT; /* asked before there is one */
    CHECK_EQ(oom_op_workspace_bytes(OOM_OP_CONV_FORWARD, &f), 18 * 18 * 4);
    CHECK_EQ(oom_op_workspace_bytes(OOM_OP_CONV_BACKWARD_DATA, &d), 40 * 36 * 8);
    CHECK_EQ(oom_op_workspace_bytes(OOM_OP_CONV_BACKWARD_WEIGHT, &w), 18 * 18 * 2);
    refuse(OOM_OP_CONV_FORWARD, &f, "workspace", "0");
    f.workspace = d.workspace = w.workspace = 4;
    expect(OOM_OP_CONV_FORWARD, &f, "x:r480 w:r432 y:w432 workspace:rw1296", 2 * 18 * 6 * 18,
           912 + 1296, 432 + 1296);
    expect(OOM_OP_CONV_BACKWARD_WEIGHT, &w, "dy:r216 x:r240 dw:rw432 workspace:rw648",
           2 * 18 * 6 * 18, 456 + 432 + 648, 432 + 648);
    BAD_POINTER(CONV_FORWARD, f, x);
    BAD_POINTER(CONV_FORWARD, f, w);
    BAD_POINTER(CONV_FORWARD, f, y);
    BAD_POINTER(CONV_BACKWARD_DATA, d, dy);
    BAD_POINTER(CONV_BACKWARD_DATA, d, w);
    BAD_POINTER(CONV_BACKWARD_DATA, d, dx);
    BAD_POINTER(CONV_BACKWARD_DATA, d, workspace);
    BAD_POINTER(CONV_BACKWARD_WEIGHT, w, dy);
    BAD_POINTER(CONV_BACKWARD_WEIGHT, w, x);
    BAD_POINTER(CONV_BACKWARD_WEIGHT, w, dw);
    BAD_POINTER(CONV_BACKWARD_WEIGHT, w, workspace);
}

static void test_conv_shapes(void) {
    TEST("ops: shapes of convolutions that are refused");
    struct oom_conv_forward_args f = {OOM_F32, OOM_CONV_EXPLICIT, shape, 1, 2, 3, 4};
    BAD_DTYPE(CONV_FORWARD, f);
    BAD_DIM(CONV_FORWARD, f, shape.batch);
    BAD_DIM(CONV_FORWARD, f, shape.height);
    BAD_DIM(CONV_FORWARD, f, shape.width);
    BAD_DIM(CONV_FORWARD, f, shape.channels);
    BAD_DIM(CONV_FORWARD, f, shape.filters);
    BAD_DIM(CONV_FORWARD, f, shape.kernel_height);
    BAD_DIM(CONV_FORWARD, f, shape.kernel_width);
    BAD_DIM(CONV_FORWARD, f, shape.stride);
    BAD(CONV_FORWARD, f, shape.pad, -1, "-1");
    BAD(CONV_FORWARD, f, shape.pad, 2, "is 2, allowed is 0 to 1"); /* the kernel's width */
    BAD(CONV_FORWARD, f, shape.kernel_height, 8, "is 8, allowed is 1 to 7");
    BAD(CONV_FORWARD, f, shape.kernel_width, 7, "is 7, allowed is 1 to 6");
    BAD(CONV_FORWARD, f, shape.height, INT64_C(1) << 31, "2147483648");
    BAD(CONV_FORWARD, f, shape.height, INT32_MAX, "allowed is 1 to 2147483645"); /* pad */
    BAD(CONV_FORWARD, f, algorithm, (enum oom_conv_algorithm)2, "2");
    BAD(CONV_FORWARD, f, algorithm, (enum oom_conv_algorithm) - 1, "-1");
    struct oom_conv_forward_args huge = f; /* 2^31 * 2^31 * 4 elements */
    huge.shape.batch = huge.shape.channels = INT32_MAX;
    refuse(OOM_OP_CONV_FORWARD, &huge, "x", "2^63");
    struct oom_conv_backward_data_args d = {OOM_F32, OOM_CONV_IMPLICIT, shape, 1, 2, 3, 0};
    struct oom_conv_backward_weight_args w = {OOM_F32, OOM_CONV_IMPLICIT, shape, 1, 2, 3, 0};
    BAD_DTYPE(CONV_BACKWARD_DATA, d);
    BAD_DTYPE(CONV_BACKWARD_WEIGHT, w);
    BAD_DIM(CONV_BACKWARD_DATA, d, shape.stride);
    BAD_DIM(CONV_BACKWARD_WEIGHT, w, shape.filters);
}

/* B 2, E 3, C 5: 6 rows, 30 elements. */
static void test_batchnorm(void) {
    TEST("ops: batchnorm");
    struct oom_batchnorm_forward_args f = {OOM_F32, 2, 3, 5, 1e-5, 0.1, 1, 2, 3, 0, 5, 6, 7, 0, 0};
    expect(OOM_OP_BATCHNORM_FORWARD, &f, "x:r120 gamma:r20 beta:r20 out:w120 mean:w20 rstd:w20",
           8 * 30 + 5 * 5, 160, 160);
    BAD_POINTER(BATCHNORM_FORWARD, f, x);
    BAD_POINTER(BATCHNORM_FORWARD, f, gamma);
    BAD_POINTER(BATCHNORM_FORWARD, f, beta);
    BAD_POINTER(BATCHNORM_FORWARD, f, out);
    BAD_POINTER(BATCHNORM_FORWARD, f, mean);
    BAD_POINTER(BATCHNORM_FORWARD, f, rstd);
    f.dtype = OOM_BF16, f.counts = 4, f.running_mean = 8, f.running_var = 9;
    expect(OOM_OP_BATCHNORM_FORWARD, &f,
           "x:r60 gamma:r20 beta:r20 counts:r8 out:w60 mean:w20 rstd:w20 running_mean:rw20 "
           "running_var:rw20",
           10 * 30 + 12 * 5 + 2, 60 + 40 + 8 + 40, 60 + 40 + 40);
    BAD_DTYPE(BATCHNORM_FORWARD, f);
    BAD_DIM(BATCHNORM_FORWARD, f, batch);
    BAD_DIM(BATCHNORM_FORWARD, f, positions);
    BAD_DIM(BATCHNORM_FORWARD, f, channels);
    BAD(BATCHNORM_FORWARD, f, eps, -1, "-1");
    BAD(BATCHNORM_FORWARD, f, eps, NAN, "nan");
    BAD(BATCHNORM_FORWARD, f, momentum, -0.1, "-0.1");
    BAD(BATCHNORM_FORWARD, f, momentum, 1.5, "1.5");
    BAD_POINTER(BATCHNORM_FORWARD, f, running_mean);
    BAD_POINTER(BATCHNORM_FORWARD, f, running_var);
    f.momentum = 1, f.batch = f.positions = 1; /* one row, counted: its count may be above 1 */
    CHECK_OK(oom_op_check(OOM_OP_BATCHNORM_FORWARD, &f));
    f.counts = 0;
    refuse(OOM_OP_BATCHNORM_FORWARD, &f, "positions", "is 1 with batch 1");
}

static void test_batchnorm_rest(void) {
    TEST("ops: batchnorm, infer and backward");
    struct oom_batchnorm_infer_args i = {OOM_F32, 6, 5, 1e-5, 1, 2, 3, 4, 5, 6};
    expect(OOM_OP_BATCHNORM_INFER, &i,
           "x:r120 gamma:r20 beta:r20 running_mean:r20 running_var:r20 out:w120", 4 * 30 + 3 * 5,
           200, 120);
    BAD_DTYPE(BATCHNORM_INFER, i);
    BAD_DIM(BATCHNORM_INFER, i, rows);
    BAD_DIM(BATCHNORM_INFER, i, channels);
    BAD(BATCHNORM_INFER, i, eps, INFINITY, "inf");
    BAD_POINTER(BATCHNORM_INFER, i, running_mean);
    BAD_POINTER(BATCHNORM_INFER, i, running_var);
    BAD_POINTER(BATCHNORM_INFER, i, out);
    struct oom_batchnorm_backward_args b = {OOM_F32, 2, 3, 5, 1, 2, 3, 4, 5, 0, 0, 8, 9, 10};
    expect(OOM_OP_BATCHNORM_BACKWARD, &b,
           "dout:r120 x:r120 gamma:r20 mean:r20 rstd:r20 dx:w120 dgamma:rw20 dbeta:rw20",
           12 * 30 + 3 * 5, 340, 160);
    b.counts = 6, b.residual = 7;
    expect(OOM_OP_BATCHNORM_BACKWARD, &b,
           "dout:r120 x:r120 gamma:r20 mean:r20 rstd:r20 counts:r8 residual:r120 dx:w120 "
           "dgamma:rw20 dbeta:rw20",
           15 * 30 + 3 * 5 + 2, 340 + 128, 160);
    BAD_DTYPE(BATCHNORM_BACKWARD, b);
    BAD_DIM(BATCHNORM_BACKWARD, b, batch);
    BAD_DIM(BATCHNORM_BACKWARD, b, positions);
    BAD_DIM(BATCHNORM_BACKWARD, b, channels);
    BAD_POINTER(BATCHNORM_BACKWARD, b, dout);
    BAD_POINTER(BATCHNORM_BACKWARD, b, x);
    BAD_POINTER(BATCHNORM_BACKWARD, b, mean);
    BAD_POINTER(BATCHNORM_BACKWARD, b, rstd);
    BAD_POINTER(BATCHNORM_BACKWARD, b, dx);
    BAD_POINTER(BATCHNORM_BACKWARD, b, dgamma);
    BAD_POINTER(BATCHNORM_BACKWARD, b, dbeta);
}

/* B 2, E 3, C 6, G 3: 36 elements, 6 groups. */
static void test_groupnorm(void) {
    TEST("ops: groupnorm");
    struct oom_groupnorm_forward_args f = {OOM_F32, 2, 3, 6, 3, 1e-5, 1, 2, 3, 4, 5, 6};
    expect(OOM_OP_GROUPNORM_FORWARD, &f, "x:r144 gamma:r24 beta:r24 out:w144 mean:w24 rstd:w24",
           8 * 36 + 5 * 6, 192, 192);
    BAD_DTYPE(GROUPNORM_FORWARD, f);
    BAD_DIM(GROUPNORM_FORWARD, f, batch);
    BAD_DIM(GROUPNORM_FORWARD, f, positions);
    BAD_DIM(GROUPNORM_FORWARD, f, channels);
    BAD_DIM(GROUPNORM_FORWARD, f, groups);
    BAD(GROUPNORM_FORWARD, f, groups, 4, "is 4, allowed is a divisor of channels 6");
    BAD(GROUPNORM_FORWARD, f, groups, 12, "12");
    BAD(GROUPNORM_FORWARD, f, eps, NAN, "nan");
    BAD_POINTER(GROUPNORM_FORWARD, f, x);
    BAD_POINTER(GROUPNORM_FORWARD, f, mean);
    BAD_POINTER(GROUPNORM_FORWARD, f, rstd);
    struct oom_groupnorm_backward_args b = {OOM_F32, 2, 3, 6, 3, 1, 2, 3, 4, 5, 0, 7, 8, 9};
    expect(OOM_OP_GROUPNORM_BACKWARD, &b,
           "dout:r144 x:r144 gamma:r24 mean:r24 rstd:r24 dx:w144 dgamma:rw24 dbeta:rw24",
           13 * 36 + 2 * 6, 144 * 2 + 24 * 5, 192);
    b.residual = 6, b.dtype = OOM_F16;
    expect(OOM_OP_GROUPNORM_BACKWARD, &b,
           "dout:r72 x:r72 gamma:r24 mean:r24 rstd:r24 residual:r72 dx:w72 dgamma:rw24 dbeta:rw24",
           14 * 36 + 2 * 6, 72 * 3 + 24 * 5, 120);
    BAD_DTYPE(GROUPNORM_BACKWARD, b);
    BAD(GROUPNORM_BACKWARD, b, groups, 5, "5");
    BAD_POINTER(GROUPNORM_BACKWARD, b, dout);
    BAD_POINTER(GROUPNORM_BACKWARD, b, dx);
    BAD_POINTER(GROUPNORM_BACKWARD, b, dgamma);
    BAD_POINTER(GROUPNORM_BACKWARD, b, dbeta);
}

/* B 2, 5 x 4 x 3 to 2 x 2 x 3: of 120 elements 96 are in windows, 24 come out. */
static void test_pooling(void) {
    TEST("ops: pooling");
    struct oom_maxpool_forward_args f = {OOM_F32, 2, 5, 4, 3, 2, 1, 0, 3, 4};
    expect(OOM_OP_MAXPOOL_FORWARD, &f, "x:r480 y:w96 index:w24", 96, 96 * 4, 120);
    f.branch = 2;
    expect(OOM_OP_MAXPOOL_FORWARD, &f, "x:r480 branch:r24 y:w96 index:w24", 0, 96 + 24, 120);
    BAD_DTYPE(MAXPOOL_FORWARD, f);
    BAD_DIM(MAXPOOL_FORWARD, f, batch);
    BAD_DIM(MAXPOOL_FORWARD, f, height);
    BAD_DIM(MAXPOOL_FORWARD, f, width);
    BAD_DIM(MAXPOOL_FORWARD, f, channels);
    BAD_DIM(MAXPOOL_FORWARD, f, size);
    BAD(MAXPOOL_FORWARD, f, size, 5, "is 5, allowed is at most 16 and the image's 5 x 4");
    BAD_POINTER(MAXPOOL_FORWARD, f, x);
    BAD_POINTER(MAXPOOL_FORWARD, f, y);
    BAD_POINTER(MAXPOOL_FORWARD, f, index);
    f.height = f.width = 40;
    BAD(MAXPOOL_FORWARD, f, size, 17, "17"); /* 17 * 17 places do not fit a byte */
    struct oom_maxpool_backward_args b = {OOM_F64, 2, 5, 4, 3, 2, 1, 2, 3};
    expect(OOM_OP_MAXPOOL_BACKWARD, &b, "dy:r192 index:r24 dx:w960", 0, 216, 960);
    BAD_DTYPE(MAXPOOL_BACKWARD, b);
    BAD_DIM(MAXPOOL_BACKWARD, b, size);
    BAD_POINTER(MAXPOOL_BACKWARD, b, dy);
    BAD_POINTER(MAXPOOL_BACKWARD, b, index);
    BAD_POINTER(MAXPOOL_BACKWARD, b, dx);
    struct oom_meanpool_forward_args m = {OOM_F32, 2, 3, 5, 1, 2};
    expect(OOM_OP_MEANPOOL_FORWARD, &m, "x:r120 y:w40", 30 + 10, 120, 40);
    BAD_DTYPE(MEANPOOL_FORWARD, m);
    BAD_DIM(MEANPOOL_FORWARD, m, batch);
    BAD_DIM(MEANPOOL_FORWARD, m, positions);
    BAD_DIM(MEANPOOL_FORWARD, m, channels);
    BAD_POINTER(MEANPOOL_FORWARD, m, x);
    BAD_POINTER(MEANPOOL_FORWARD, m, y);
    struct oom_meanpool_backward_args mb = {OOM_F32, 2, 3, 5, 1, 2};
    expect(OOM_OP_MEANPOOL_BACKWARD, &mb, "dy:r40 dx:w120", 10, 40, 120);
    BAD_DTYPE(MEANPOOL_BACKWARD, mb);
    BAD_POINTER(MEANPOOL_BACKWARD, mb, dy);
    BAD_POINTER(MEANPOOL_BACKWARD, mb, dx);
}

void ops_images_test(void) {
    test_conv();
    test_conv_shapes();
    test_batchnorm();
    test_batchnorm_rest();
    test_groupnorm();
    test_pooling();
}
