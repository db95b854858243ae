#include "harness/train/tensor.h"

#include "kernels/hostmem.h"

/* ---- tensors without a scope ---- */

enum oom_status oom_tensor_alloc(struct oom_session *session, uint64_t bytes, enum oom_tag tag,
                                 const char *site, struct oom_tensor *out) {
    *out = (struct oom_tensor){0};
    return oom_allocator_alloc(session->allocator, bytes, session->stream, tag, site, &out->data);
}

enum oom_status oom_tensor_free(struct oom_session *session, struct oom_tensor *tensor) {
    if (tensor->data == 0) return OOM_OK;
    enum oom_status status = oom_allocator_free(session->allocator, tensor->data);
    *tensor = (struct oom_tensor){0};
    return status;
}

enum oom_status oom_run(struct oom_session *session, enum oom_op op, const void *args) {
    if (session->flops != NULL) *session->flops += oom_op_cost(op, args).flops;
    return session->device->api->launch(session->device, op, args, session->stream);
}

/* ---- scopes ---- */

static enum oom_status scope_slot(struct oom_scope *scope, int *slot) {
    for (int i = 0; i < scope->slots; i++) {
        if (scope->live[i] == 0) {
            *slot = i;
            return OOM_OK;
        }
    }
    if (scope->slots == scope->capacity) {
        int capacity = scope->capacity == 0 ? 64 : 2 * scope->capacity;
        oom_devptr *live = oom_host_realloc(scope->live, (size_t)capacity * sizeof *live);
        if (live == NULL) {
            return oom_fail(OOM_HOST_NOMEM, "a table of %d tensors: no host memory", capacity);
        }
        scope->live = live;
        scope->capacity = capacity;
    }
    *slot = scope->slots++;
    scope->live[*slot] = 0;
    return OOM_OK;
}

enum oom_status oom_scope_alloc(struct oom_scope *scope, uint64_t bytes, enum oom_tag tag,
                                const char *site, struct oom_tensor *out) {
    int slot = 0;
    *out = (struct oom_tensor){0};
    OOM_TRY(scope_slot(scope, &slot));
    OOM_TRY(oom_tensor_alloc(scope->session, bytes, tag, site, out));
    out->slot = slot;
    scope->live[slot] = out->data;
    return OOM_OK;
}

enum oom_status oom_scope_free(struct oom_scope *scope, struct oom_tensor *tensor) {
    if (tensor->data == 0) return OOM_OK;
    scope->live[tensor->slot] = 0;
    return oom_tensor_free(scope->session, tensor);
}

enum oom_status oom_scope_drop(struct oom_scope *scope) {
    enum oom_status first = OOM_OK;
    for (int i = 0; i < scope->slots; i++) {
        if (scope->live[i] == 0) continue;
        enum oom_status status = oom_allocator_free(scope->session->allocator, scope->live[i]);
        if (first == OOM_OK) first = status;
        scope->live[i] = 0;
    }
    scope->slots = 0;
    return first;
}

void oom_scope_end(struct oom_scope *scope) {
    oom_scope_drop(scope);
    oom_host_free(scope->live);
    *scope = (struct oom_scope){.session = scope->session};
}
