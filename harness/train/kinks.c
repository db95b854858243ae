#include "harness/train/kinks.h"

#include "harness/train/trainer.h"
#include "kernels/hostmem.h"

enum { WINDOW = 2 };

static struct oom_kink kink_of(const struct oom_trainer *t, int index, enum oom_kink_kind kind,
                               int64_t elements, const struct oom_tensor *x) {
    return (struct oom_kink){.index = index,
                             .kind = kind,
                             .begin = t->first_sample,
                             .samples = t->batch.samples,
                             .elements = elements,
                             .x = x};
}

static enum oom_status see(struct oom_trainer *t, const struct oom_kink *kink) {
    return t->branches.see == NULL ? OOM_OK : t->branches.see(t->branches.context, kink);
}

/* The decisions as a tensor of bytes, where they come from outside; else none. */
static enum oom_status take(struct oom_trainer *t, const struct oom_kink *kink,
                            struct oom_tensor *out) {
    *out = (struct oom_tensor){0};
    if (t->branches.take == NULL) return OOM_OK;
    uint64_t bytes = (uint64_t)(kink->samples * kink->elements);
    OOM_TRY(oom_scope_alloc(&t->scope, bytes, OOM_TAG_DATA, "branches", out));
    uint8_t *host = oom_host_alloc(bytes);
    if (host == NULL) return oom_fail(OOM_HOST_NOMEM, "the branches of one layer");
    enum oom_status status = t->branches.take(t->branches.context, kink, host);
    if (status == OOM_OK) {
        status = t->session->device->api->upload(t->session->device, out->data, host, bytes,
                                                 t->session->stream);
    }
    oom_host_free(host);
    return status;
}

/* ---- ReLU ---- */

enum oom_status oom_relu_forward(struct oom_trainer *t, int index, int64_t elements,
                                 const struct oom_tensor *y) {
    struct oom_kink kink = kink_of(t, index, OOM_KINK_RELU, elements, y);
    struct oom_tensor branch;
    OOM_TRY(see(t, &kink));
    OOM_TRY(take(t, &kink, &branch));
    struct oom_relu_forward_args args = {y->dtype, kink.samples * elements, y->data, branch.data,
                                         y->data};
    OOM_TRY(oom_run(t->session, OOM_OP_RELU_FORWARD, &args));
    return oom_scope_free(&t->scope, &branch);
}

enum oom_status oom_relu_backward(struct oom_trainer *t, int index, int64_t elements,
                                  const struct oom_tensor *y, const struct oom_tensor *dy) {
    struct oom_kink kink = kink_of(t, index, OOM_KINK_RELU, elements, y);
    struct oom_tensor branch;
    OOM_TRY(take(t, &kink, &branch));
    struct oom_relu_backward_args args = {
        y->dtype, kink.samples * elements, y->data, branch.data, dy->data, dy->data};
    OOM_TRY(oom_run(t->session, OOM_OP_RELU_BACKWARD, &args));
    return oom_scope_free(&t->scope, &branch);
}

/* ---- max pooling ---- */

enum oom_status oom_maxpool_forward(struct oom_trainer *t, int index, struct oom_pool_shape shape,
                                    const struct oom_tensor *x, const struct oom_tensor *y,
                                    const struct oom_tensor *chosen) {
    int64_t elements = (shape.height / WINDOW) * (shape.width / WINDOW) * shape.channels;
    struct oom_kink kink = kink_of(t, index, OOM_KINK_POOL, elements, x);
    kink.taken = chosen;
    kink.height = shape.height;
    kink.width = shape.width;
    kink.channels = shape.channels;
    kink.size = WINDOW;
    struct oom_tensor branch;
    OOM_TRY(take(t, &kink, &branch));
    struct oom_maxpool_forward_args args = {.dtype = x->dtype,
                                            .batch = kink.samples,
                                            .height = shape.height,
                                            .width = shape.width,
                                            .channels = shape.channels,
                                            .size = WINDOW,
                                            .x = x->data,
                                            .branch = branch.data,
                                            .y = y->data,
                                            .index = chosen->data};
    OOM_TRY(oom_run(t->session, OOM_OP_MAXPOOL_FORWARD, &args));
    OOM_TRY(oom_scope_free(&t->scope, &branch));
    return see(t, &kink);
}

enum oom_status oom_maxpool_backward(struct oom_trainer *t, struct oom_pool_shape shape,
                                     const struct oom_tensor *dy, const struct oom_tensor *chosen,
                                     const struct oom_tensor *dx) {
    struct oom_maxpool_backward_args args = {.dtype = dy->dtype,
                                             .batch = t->batch.samples,
                                             .height = shape.height,
                                             .width = shape.width,
                                             .channels = shape.channels,
                                             .size = WINDOW,
                                             .dy = dy->data,
                                             .index = chosen->data,
                                             .dx = dx->data};
    return oom_run(t->session, OOM_OP_MAXPOOL_BACKWARD, &args);
}
