#include "harness/verify/state.h"

#include "harness/base/fingerprint.h"

#include <string.h>

enum oom_status
oom_tensor_read(struct oom_session *session, struct oom_tensor tensor, uint64_t bytes,
                enum oom_status (*piece)(void *context, const void *data, size_t bytes),
                void *context) {
    enum { PIECE = 32768 };
    union {
        double aligned;
        uint8_t bytes[PIECE];
    } buffer;
    struct oom_device_properties properties;
    session->device->api->properties(session->device, &properties);
    for (uint64_t at = 0; at < bytes; at += PIECE) {
        uint64_t count = bytes - at < PIECE ? bytes - at : PIECE;
        OOM_TRY(session->device->api->download(session->device, &buffer, tensor.data + at, count,
                                               session->stream));
        if (properties.computes) OOM_TRY(piece(context, &buffer, (size_t)count));
    }
    return OOM_OK;
}

static enum oom_status hash_piece(void *context, const void *data, size_t bytes) {
    oom_fingerprint_update(context, data, bytes);
    return OOM_OK;
}

static enum oom_status find_nonzero(void *context, const void *data, size_t bytes) {
    const uint8_t *byte = data;
    bool *clear = context;
    uint8_t any = 0;
    for (size_t i = 0; i < bytes; i++) any |= byte[i]; /* without a branch: many at once */
    *clear = *clear && any == 0;
    return OOM_OK;
}

static uint64_t bytes_of(const struct oom_trainer *t, const struct oom_parameter *p) {
    return (uint64_t)oom_parameter_n(p) * oom_dtype_bytes(t->session->dtype);
}

static enum oom_status hash_states(struct oom_trainer *t, const struct oom_parameter *p,
                                   struct oom_fingerprint *hash) {
    for (int k = 0; k < OOM_STATES; k++) {
        uint8_t exists = p->state[k].data != 0;
        oom_fingerprint_update(hash, &exists, 1);
        if (exists)
            OOM_TRY(oom_tensor_read(t->session, p->state[k], bytes_of(t, p), hash_piece, hash));
    }
    return OOM_OK;
}

enum oom_status oom_state_take(struct oom_trainer *t, struct oom_state_print *out) {
    struct oom_fingerprint weights, optimizer, statistics;
    oom_fingerprint_init(&weights, 1);
    oom_fingerprint_init(&optimizer, 2);
    oom_fingerprint_init(&statistics, 3);
    bool clear = true;
    for (int i = 0; i < t->parameter_count; i++) {
        const struct oom_parameter *p = &t->parameters[i];
        OOM_TRY(oom_tensor_read(t->session, p->value, bytes_of(t, p), hash_piece, &weights));
        OOM_TRY(hash_states(t, p, &optimizer));
        if (p->gradient.data == 0) continue;
        if (t->options.gradients == OOM_GRADIENTS_NONE) clear = false;
        OOM_TRY(oom_tensor_read(t->session, p->gradient, bytes_of(t, p), find_nonzero, &clear));
    }
    oom_fingerprint_update(&optimizer, &t->optimizer_steps, sizeof t->optimizer_steps);
    for (int i = 0; i < t->statistic_count; i++) {
        const struct oom_statistic *s = &t->statistics[i];
        uint64_t bytes = (uint64_t)s->n * oom_dtype_bytes(t->session->dtype);
        OOM_TRY(oom_tensor_read(t->session, s->value, bytes, hash_piece, &statistics));
    }
    uint32_t scale;
    memcpy(&scale, &t->scaler.scale, sizeof scale);
    const struct oom_allocator_stats *stats = oom_allocator_stats(t->session->allocator);
    *out = (struct oom_state_print){
        .weights = oom_fingerprint_value(&weights),
        .optimizer = oom_fingerprint_value(&optimizer),
        .statistics = oom_fingerprint_value(&statistics),
        .random = (uint64_t)t->rng_offset << 32 | t->rng_step,
        .scale = (uint64_t)t->scaler.clean << 32 | scale,
        .allocated = (uint64_t)stats->allocated_bytes[OOM_POOL_ALL].current,
        .gradients_clear = clear,
    };
    return OOM_OK;
}

const char *oom_state_difference(const struct oom_state_print *before,
                                 const struct oom_state_print *after) {
    if (before->weights != after->weights) return "weights changed";
    if (before->optimizer != after->optimizer) return "optimizer state changed";
    if (before->statistics != after->statistics) return "batch statistics changed";
    if (before->scale != after->scale) return "the loss scale changed";
    if (before->random != after->random) return "random numbers were spent";
    if (!after->gradients_clear) return "gradients were not cleared";
    if (before->allocated != after->allocated) return "allocated bytes differ";
    return NULL;
}
