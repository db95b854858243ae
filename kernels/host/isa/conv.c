/*
 * conv.c: convolutions as products (product.h), one factor of which is gathered from an image:
 *   forward           y  (B P Q, K)  = windows of x (B P Q, R S C)  times  w turned (R S C, K)
 *   backward_data     dx (B H W, C)  = windows of dy (B H W, R S K) times  w by taps (R S K, C)
 *   backward_weight   dw (K, R S C) += dy turned (K, B P Q)         times  windows of x
 * A row of windows is what one pixel of the result reads: for each tap (r, s) in order the channels
 * of the image there, zeros outside (for backward_data also between the strides). So the product's
 * chains are those of ops.h, and its 2 B P Q K R S C flops are one gemm's.
 *
 * Windows overlap: the matrix is R S times the image. IMPLICIT never has it: the product asks for a
 * block when it is about to use it, and gets copies of whole runs of channels, about a sixteenth of
 * a cycle per element against K / 32 cycles of fma. EXPLICIT writes all of it into the workspace
 * first; each part the rows (for dw the columns) that it multiplies. Traffic from beyond the second
 * cache is the product's, with the image read once for each row of the kernel in place of the
 * matrix; explicit: and the matrix written and read.
 */
#include "kernels/host/isa/product.h"
#include "kernels/host/isa/vector-math.h"
#include "kernels/host/kernels.h"

enum {
    LINE = 16, /* columns by which threads divide: a cache line of f32 */
    ROWS = 4,  /* rows by which they do */
    TILE = 256 /* elements of a row of halves gathered at once */
};

/* The windows of an image: row i (pixel b, row, column of a grid) and tap (r, s) read the image at
 * ((row * step + offset + sign * r) / divide, likewise with column and s), nothing where that is
 * outside or has a remainder. */
struct windows {
    const void *image;               /* (B, height, width, channels), of the op's dtype */
    int64_t height, width, channels; /* of the image */
    int64_t rows, columns;           /* of the grid of pixels */
    int64_t kernel_height, kernel_width;
    int64_t step, offset, sign, divide;
    int64_t depth; /* elements of a row: taps * channels */
    int64_t count; /* rows: samples * rows * columns */
};

/* What y (and dw) read of x. */
static struct windows windows_of_x(const struct oom_conv_shape *s, oom_devptr x) {
    return (struct windows){
        .image = OOM_HOST_PTR(const void, x),
        .height = s->height,
        .width = s->width,
        .channels = s->channels,
        .rows = oom_conv_rows(s),
        .columns = oom_conv_columns(s),
        .kernel_height = s->kernel_height,
        .kernel_width = s->kernel_width,
        .step = s->stride,
        .offset = -s->pad,
        .sign = 1,
        .divide = 1,
        .depth = s->kernel_height * s->kernel_width * s->channels,
        .count = s->batch * oom_conv_rows(s) * oom_conv_columns(s),
    };
}

/* What dx reads of dy. */
static struct windows windows_of_dy(const struct oom_conv_shape *s, oom_devptr dy) {
    return (struct windows){
        .image = OOM_HOST_PTR(const void, dy),
        .height = oom_conv_rows(s),
        .width = oom_conv_columns(s),
        .channels = s->filters,
        .rows = s->height,
        .columns = s->width,
        .kernel_height = s->kernel_height,
        .kernel_width = s->kernel_width,
        .step = 1,
        .offset = s->pad,
        .sign = -1,
        .divide = s->stride,
        .depth = s->kernel_height * s->kernel_width * s->filters,
        .count = s->batch * s->height * s->width,
    };
}

/* The image's row or column that a tap reads, or -1. */
static inline int64_t tap_of(const struct windows *w, int64_t at, int64_t tap, int64_t size) {
    int64_t x = at * w->step + w->offset + w->sign * tap;
    if (x < 0) return -1;
    if (w->divide > 1) {
        if (x % w->divide != 0) return -1;
        x /= w->divide;
    }
    return x < size ? x : -1;
}

/* The weights as backward_data multiplies by them: row (tap, filter), column channel. */
struct taps {
    const void *weights; /* (filters, count, channels) */
    int64_t filters, count, channels;
};

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* What depends on the dtype: the two gathers, and writing elements [k0, k1) of rows [first, last)
 * of the windows to where they belong in their whole matrix. */
struct type {
    oom_gather *windows, *taps;
    void (*write)(const struct windows *w, void *matrix, int64_t first, int64_t last, int64_t k0,
                  int64_t k1);
};

#define OOM_BODY "kernels/host/isa/conv-body.h"
#include "kernels/host/isa/each-dtype.h"

#define TYPE(name) \
    { gather_##name, gather_weights_##name, write_##name }
static const struct type types[OOM_DTYPE_COUNT] = {
    [OOM_F32] = TYPE(f32), [OOM_F64] = TYPE(f64), [OOM_F16] = TYPE(f16), [OOM_BF16] = TYPE(bf16)};

/* c = windows times p.b. */
static void windows_times(struct oom_product p, const struct windows *w, enum oom_dtype dtype,
                          void *matrix, const struct oom_host_part *part) {
    if (matrix == NULL) {
        p.a = (struct oom_factor){.gather = types[dtype].windows, .context = w};
        OOM_HOST_NAME(oom_product_part)(&p, part);
        return;
    }
    int64_t first, last;
    oom_host_share(p.m, ROWS, part, &first, &last);
    types[dtype].write(w, matrix, first, last, 0, w->depth);
    p.a = (struct oom_factor){.dtype = dtype, .at = matrix, .ld = w->depth, .row = first};
    p.m = last - first;
    p.c = (char *)p.c + first * p.ldc * (int64_t)oom_dtype_bytes(p.c_dtype);
    OOM_HOST_NAME(oom_product)(&p, part->scratch);
}

/* c += p.a times windows. */
static void times_windows(struct oom_product p, const struct windows *w, enum oom_dtype dtype,
                          void *matrix, const struct oom_host_part *part) {
    if (matrix == NULL) {
        p.b = (struct oom_factor){.gather = types[dtype].windows, .context = w};
        OOM_HOST_NAME(oom_product_part)(&p, part);
        return;
    }
    int64_t first, last;
    oom_host_share(p.n, LINE, part, &first, &last);
    types[dtype].write(w, matrix, 0, w->count, first, last);
    p.b = (struct oom_factor){.dtype = dtype, .at = matrix, .ld = w->depth, .column = first};
    p.n = last - first;
    p.c = (char *)p.c + first * (int64_t)oom_dtype_bytes(p.c_dtype);
    OOM_HOST_NAME(oom_product)(&p, part->scratch);
}

static void *matrix_of(enum oom_conv_algorithm algorithm, oom_devptr workspace) {
    return algorithm == OOM_CONV_EXPLICIT ? OOM_HOST_PTR(void, workspace) : NULL;
}

void OOM_HOST_KERNEL(conv_forward)(const void *args, const struct oom_host_part *part) {
    const struct oom_conv_forward_args *a = args;
    const struct windows w = windows_of_x(&a->shape, a->x);
    const struct oom_product p = {
        .m = w.count,
        .n = a->shape.filters,
        .k = w.depth,
        .b = {.transpose = true,
              .dtype = a->dtype,
              .at = OOM_HOST_PTR(const void, a->w),
              .ld = w.depth},
        .c_dtype = a->dtype,
        .c = OOM_HOST_PTR(void, a->y),
        .ldc = a->shape.filters,
    };
    windows_times(p, &w, a->dtype, matrix_of(a->algorithm, a->workspace), part);
}

void OOM_HOST_KERNEL(conv_backward_data)(const void *args, const struct oom_host_part *part) {
    const struct oom_conv_backward_data_args *a = args;
    const struct windows w = windows_of_dy(&a->shape, a->dy);
    const struct taps taps = {OOM_HOST_PTR(const void, a->w), a->shape.filters,
                              a->shape.kernel_height * a->shape.kernel_width, a->shape.channels};
    const struct oom_product p = {
        .m = w.count,
        .n = a->shape.channels,
        .k = w.depth,
        .b = {.gather = types[a->dtype].taps, .context = &taps},
        .c_dtype = a->dtype,
        .c = OOM_HOST_PTR(void, a->dx),
        .ldc = a->shape.channels,
    };
    windows_times(p, &w, a->dtype, matrix_of(a->algorithm, a->workspace), part);
}

void OOM_HOST_KERNEL(conv_backward_weight)(const void *args, const struct oom_host_part *part) {
    const struct oom_conv_backward_weight_args *a = args;
    const struct windows w = windows_of_x(&a->shape, a->x);
    const struct oom_product p = {
        .accumulate = true,
        .m = a->shape.filters,
        .n = w.depth,
        .k = w.count,
        .a = {.transpose = true,
              .dtype = a->dtype,
              .at = OOM_HOST_PTR(const void, a->dy),
              .ld = a->shape.filters},
        .c_dtype = oom_dtype_wide(a->dtype),
        .c = OOM_HOST_PTR(void, a->dw),
        .ldc = w.depth,
    };
    times_windows(p, &w, a->dtype, matrix_of(a->algorithm, a->workspace), part);
}
