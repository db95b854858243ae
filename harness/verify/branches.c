#include "harness/verify/branches.h"

#include "kernels/half.h"

double oom_element(enum oom_dtype dtype, const void *array, size_t i) {
    switch (dtype) {
    case OOM_F16:
        return (double)oom_f32_from_f16(((const uint16_t *)array)[i]);
    case OOM_BF16:
        return (double)oom_f32_from_bf16(((const uint16_t *)array)[i]);
    case OOM_F32:
        return (double)((const float *)array)[i];
    default:
        return ((const double *)array)[i];
    }
}

static enum oom_status read_signs(struct oom_session *session, const struct oom_tensor *x,
                                  int64_t at, int64_t n, uint8_t *out) {
    enum { PIECE = 4096 };
    double values[PIECE]; /* room for the widest elements */
    uint64_t size = oom_dtype_bytes(x->dtype);
    for (int64_t done = 0; done < n; done += PIECE) {
        int64_t count = n - done < PIECE ? n - done : PIECE;
        OOM_TRY(session->device->api->download(session->device, values,
                                               x->data + (uint64_t)(at + done) * size,
                                               (uint64_t)count * size, session->stream));
        for (int64_t i = 0; i < count; i++) {
            out[done + i] = oom_element(x->dtype, values, (size_t)i) > 0;
        }
    }
    return OOM_OK;
}

enum oom_status oom_branches_read(struct oom_session *session, const struct oom_kink *kink,
                                  int64_t at, int64_t n, uint8_t *out) {
    if (kink->kind == OOM_KINK_RELU) return read_signs(session, kink->x, at, n, out);
    return session->device->api->download(session->device, out, kink->taken->data + (uint64_t)at,
                                          (uint64_t)n, session->stream);
}
