/*
 * tensor.h: a session (what a training run computes on) and its tensors.
 *
 * A tensor is an address in device memory and a dtype: its shape is in the code that uses it.
 * Tensors that die with the step belong to a scope, which can drop all of them at once: that is
 * what recovery from an out-of-memory does. Longer-lived ones (parameters, optimizer states) are
 * freed by their owners. Failure: the status of the allocator; the tensor is then none.
 */
#ifndef OOM_HARNESS_TRAIN_TENSOR_H
#define OOM_HARNESS_TRAIN_TENSOR_H

#include "harness/memory/allocator.h"
#include "kernels/device.h"

struct oom_session {
    struct oom_device *device;       /* borrowed */
    struct oom_allocator *allocator; /* borrowed */
    struct oom_stream *stream;       /* NULL: the default stream */
    enum oom_dtype dtype;            /* of parameters and activations */
    double *flops;                   /* those of every op are added here; NULL: not counted */
};

struct oom_tensor {
    oom_devptr data;      /* 0: none */
    int slot;             /* in its scope */
    enum oom_dtype dtype; /* of its elements, and how many; set by who makes it, where wanted */
    int64_t elements;
};

/* The step's tensors that are alive. Zero-initialise; dropped or freed tensors leave no trace. */
struct oom_scope {
    struct oom_session *session;
    oom_devptr *live; /* by slot; 0: unused */
    int slots, capacity;
};

enum oom_status oom_scope_alloc(struct oom_scope *scope, uint64_t bytes, enum oom_tag tag,
                                const char *site, struct oom_tensor *out);
/* Frees and makes it none; none is allowed. */
enum oom_status oom_scope_free(struct oom_scope *scope, struct oom_tensor *tensor);
/* Frees every live tensor of the scope, in order of their slots. */
enum oom_status oom_scope_drop(struct oom_scope *scope);
/* Drops, and frees the table itself. */
void oom_scope_end(struct oom_scope *scope);

/* Tensors without a scope. */
enum oom_status oom_tensor_alloc(struct oom_session *session, uint64_t bytes, enum oom_tag tag,
                                 const char *site, struct oom_tensor *out);
enum oom_status oom_tensor_free(struct oom_session *session, struct oom_tensor *tensor);

/* Launches an op on the session's stream. */
enum oom_status oom_run(struct oom_session *session, enum oom_op op, const void *args);

#endif
