/*
 * describe-images.h: the descriptions of convolutions, norms over a batch and groups, and pooling;
 * a part of ops.c, whose words it is written in.
 */

enum { IMAGE_MAX = INT32_MAX };

/* Elements of the arrays of a convolution; `windows` is the explicit algorithm's matrix. */
struct conv {
    uint64_t x, w, y, windows;
    double flops;
};

static void conv_dim(struct sheet *s, const char *field, int64_t value, int64_t low, int64_t high) {
    if (value >= low && value <= high) return;
    reject(s, "%s is %lld, allowed is %lld to %lld", field, (long long)value, (long long)low,
           (long long)high);
}

static void conv_dims(struct sheet *s, const struct oom_conv_shape *c) {
    dim(s, "shape.batch", c->batch, IMAGE_MAX), dim(s, "shape.height", c->height, IMAGE_MAX);
    dim(s, "shape.width", c->width, IMAGE_MAX), dim(s, "shape.channels", c->channels, IMAGE_MAX);
    dim(s, "shape.filters", c->filters, IMAGE_MAX);
    dim(s, "shape.kernel_height", c->kernel_height, IMAGE_MAX);
    dim(s, "shape.kernel_width", c->kernel_width, IMAGE_MAX);
    dim(s, "shape.stride", c->stride, IMAGE_MAX);
    if (s->status != OOM_OK) return;
    bool flat = c->kernel_height < c->kernel_width;
    conv_dim(s, "shape.pad", c->pad, 0, (flat ? c->kernel_height : c->kernel_width) - 1);
    if (s->status != OOM_OK) return;
    conv_dim(s, "shape.height", c->height, 1, IMAGE_MAX - 2 * c->pad);
    conv_dim(s, "shape.width", c->width, 1, IMAGE_MAX - 2 * c->pad);
    conv_dim(s, "shape.kernel_height", c->kernel_height, 1, c->height + 2 * c->pad);
    conv_dim(s, "shape.kernel_width", c->kernel_width, 1, c->width + 2 * c->pad);
}

static struct conv conv_of(struct sheet *s, const struct oom_conv_shape *c, int algorithm,
                           bool backward_data) {
    struct conv v = {0};
    conv_dims(s, c);
    if (algorithm < 0 || algorithm >= OOM_CONV_ALGORITHM_COUNT) {
        reject(s, "algorithm is %d, allowed are 0 (implicit) and 1 (explicit)", algorithm);
    }
    if (s->status != OOM_OK) return v;
    uint64_t in = times(area(c->batch, c->height), (uint64_t)c->width);
    uint64_t out = times(area(c->batch, oom_conv_rows(c)), (uint64_t)oom_conv_columns(c));
    uint64_t taps = area(c->kernel_height, c->kernel_width);
    v.x = times(in, (uint64_t)c->channels);
    v.y = times(out, (uint64_t)c->filters);
    v.w = times(times(taps, (uint64_t)c->channels), (uint64_t)c->filters);
    uint64_t depth = times(taps, (uint64_t)(backward_data ? c->filters : c->channels));
    v.windows = times(backward_data ? in : out, depth);
    v.flops = 2 * (double)(backward_data ? in : out) * (double)depth *
              (double)(backward_data ? c->channels : c->filters);
    if (algorithm == OOM_CONV_EXPLICIT) s->workspace = times(v.windows, s->element);
    return v;
}

#define CONV(backward_data) \
    DTYPE(dtype); \
    struct conv v = conv_of(s, &a->shape, (int)a->algorithm, backward_data); \
    if (s->status != OOM_OK) return /* spans of impossible sizes mean nothing */
#define CONV_WORKSPACE \
    if (a->algorithm == OOM_CONV_EXPLICIT) UPDATE(workspace, v.windows)

DESCRIBE(conv_forward) {
    CONV(false);
    READ(x, v.x);
    READ(w, v.w);
    WRITE(y, v.y);
    CONV_WORKSPACE;
    FLOPS(v.flops);
}

DESCRIBE(conv_backward_data) {
    CONV(true);
    READ(dy, v.y);
    READ(w, v.w);
    WRITE(dx, v.x);
    CONV_WORKSPACE;
    FLOPS(v.flops);
}

DESCRIBE(conv_backward_weight) {
    CONV(false);
    READ(dy, v.y);
    READ(x, v.x);
    UPDATE_WIDE(dw, v.w);
    CONV_WORKSPACE;
    FLOPS(v.flops);
}

#define DIMS_BEC DIM(batch), DIM(positions), DIM(channels)
#define BEC volume(a->batch, a->positions, a->channels)

DESCRIBE(batchnorm_forward) {
    uint64_t channels = (uint64_t)a->channels;
    bool running = a->running_mean != 0 || a->running_var != 0;
    DTYPE(dtype);
    DIMS_BEC;
    SCALAR(eps, 0, INFINITY);
    uint64_t n = BEC;
    READ(x, n);
    READ_WIDE(gamma, channels);
    READ_WIDE(beta, channels);
    READ_WIDE_IF(counts, (uint64_t)a->batch);
    WRITE(out, n);
    WRITE_WIDE(mean, channels);
    WRITE_WIDE(rstd, channels);
    if (running) {
        SCALAR(momentum, 0, nextafter(1, 2)); /* 1 is allowed */
        UPDATE_WIDE(running_mean, channels);
        UPDATE_WIDE(running_var, channels);
        if (a->batch == 1 && a->positions == 1 && a->counts == 0) {
            reject(s, "positions is 1 with batch 1, allowed is more than one row with running");
        }
    }
    /* mean 1, var 3, out 4, the counts 2; a channel: / / + sqrt /, running: / and twice * * + */
    FLOPS((a->counts != 0 ? 10 : 8) * (double)n + (running ? 12 : 5) * (double)channels +
          (a->counts != 0 ? (double)a->batch : 0));
}

DESCRIBE(batchnorm_infer) {
    uint64_t channels = (uint64_t)a->channels;
    DTYPE(dtype);
    DIM(rows), DIM(channels);
    SCALAR(eps, 0, INFINITY);
    uint64_t n = area(a->rows, a->channels);
    READ(x, n);
    READ_WIDE(gamma, channels);
    READ_WIDE(beta, channels);
    READ_WIDE(running_mean, channels);
    READ_WIDE(running_var, channels);
    WRITE(out, n);
    FLOPS(4 * (double)n + 3 * (double)channels);
}

DESCRIBE(batchnorm_backward) {
    uint64_t channels = (uint64_t)a->channels;
    DTYPE(dtype);
    DIMS_BEC;
    uint64_t n = BEC;
    READ(dout, n);
    READ(x, n);
    READ_WIDE(gamma, channels);
    READ_WIDE(mean, channels);
    READ_WIDE(rstd, channels);
    READ_WIDE_IF(counts, (uint64_t)a->batch);
    READ_IF(residual, n);
    WRITE(dx, n);
    UPDATE_WIDE(dgamma, channels);
    UPDATE_WIDE(dbeta, channels);
    /* xhat 2, four sums 6, dx 4, the counts 2 and the residual 1; a channel: * / / */
    FLOPS((12 + (a->counts != 0 ? 2 : 0) + (a->residual != 0 ? 1 : 0)) * (double)n +
          3 * (double)channels + (a->counts != 0 ? (double)a->batch : 0));
}

static void divides(struct sheet *s, int64_t groups, int64_t channels) {
    if (s->status != OOM_OK || channels % groups == 0) return;
    reject(s, "groups is %lld, allowed is a divisor of channels %lld", (long long)groups,
           (long long)channels);
}

DESCRIBE(groupnorm_forward) {
    uint64_t channels = (uint64_t)a->channels;
    DTYPE(dtype);
    DIMS_BEC, DIM(groups);
    SCALAR(eps, 0, INFINITY);
    divides(s, a->groups, a->channels);
    uint64_t n = BEC, rows = area(a->batch, a->groups);
    READ(x, n);
    READ_WIDE(gamma, channels);
    READ_WIDE(beta, channels);
    WRITE(out, n);
    WRITE_WIDE(mean, rows);
    WRITE_WIDE(rstd, rows);
    FLOPS(8 * (double)n + 5 * (double)rows);
}

DESCRIBE(groupnorm_backward) {
    uint64_t channels = (uint64_t)a->channels;
    DTYPE(dtype);
    DIMS_BEC, DIM(groups);
    divides(s, a->groups, a->channels);
    uint64_t n = BEC, rows = area(a->batch, a->groups);
    READ(dout, n);
    READ(x, n);
    READ_WIDE(gamma, channels);
    READ_WIDE(mean, rows);
    READ_WIDE(rstd, rows);
    READ_IF(residual, n);
    WRITE(dx, n);
    UPDATE_WIDE(dgamma, channels);
    UPDATE_WIDE(dbeta, channels);
    FLOPS((a->residual != 0 ? 14 : 13) * (double)n + 2 * (double)rows); /* as layernorm's */
}

/* Elements of the pooled image; of the one that it is made of: *whole, and within windows *used. */
static uint64_t pooled(struct sheet *s, int64_t batch, int64_t height, int64_t width,
                       int64_t channels, int64_t size, uint64_t *whole, uint64_t *used) {
    *whole = times(volume(batch, height, width), (uint64_t)channels);
    *used = 0;
    if (s->status != OOM_OK) return 0;
    int64_t least = height < width ? height : width;
    if (size > 16 || size > least) {
        reject(s, "size is %lld, allowed is at most 16 and the image's %lld x %lld",
               (long long)size, (long long)height, (long long)width);
        return 0;
    }
    uint64_t n = times(volume(batch, height / size, width / size), (uint64_t)channels);
    *used = times(n, (uint64_t)(size * size));
    return n;
}

#define POOLED \
    uint64_t whole, used; \
    DTYPE(dtype); \
    DIM(batch), DIM(height), DIM(width), DIM(channels), DIM(size); \
    uint64_t n = pooled(s, a->batch, a->height, a->width, a->channels, a->size, &whole, &used)

DESCRIBE(maxpool_forward) {
    POOLED;
    PART(x, READ, whole, a->branch != 0 ? n : used);
    SIZED(branch, OPTIONAL, READ, 1, n, n);
    WRITE(y, n);
    SIZED(index, REQUIRED, WRITE, 1, n, n);
    FLOPS(a->branch != 0 ? 0 : (double)used);
}

DESCRIBE(maxpool_backward) {
    POOLED;
    READ(dy, n);
    SIZED(index, REQUIRED, READ, 1, n, n);
    WRITE(dx, whole);
}

DESCRIBE(meanpool_forward) {
    DTYPE(dtype);
    DIMS_BEC;
    READ(x, BEC);
    WRITE(y, area(a->batch, a->channels));
    FLOPS((double)BEC + (double)area(a->batch, a->channels));
}

DESCRIBE(meanpool_backward) {
    DTYPE(dtype);
    DIMS_BEC;
    READ(dy, area(a->batch, a->channels));
    WRITE(dx, BEC);
    FLOPS((double)area(a->batch, a->channels));
}
