/*
 * array-body.h: array.c for one element type. op_at handles elements i ... i + n - 1, n at most
 * REAL_LANES.
 */

#define TAKE(field) OOM_S(oom_take)(OOM_HOST_PTR(const stored, a->field) + i, n)
#define PUT(field, value) OOM_S(oom_put)(OOM_HOST_PTR(stored, a->field) + i, n, value)
#define TAKE_WIDE(field) OOM_V(oom_take)(OOM_HOST_PTR(const real, a->field) + i, n)
#define PUT_WIDE(field, value) OOM_V(oom_put)(OOM_HOST_PTR(real, a->field) + i, n, value)
#define ZERO ((vreal){0})

OOM_FUNCTION void OOM_R(gelu_forward_at)(const struct oom_gelu_forward_args *a, int64_t i,
                                         int64_t n) {
    PUT(y, OOM_V(oom_gelu)(TAKE(x)));
}
ARRAY_KERNEL(gelu_forward)

OOM_FUNCTION void OOM_R(gelu_backward_at)(const struct oom_gelu_backward_args *a, int64_t i,
                                          int64_t n) {
    PUT(dx, TAKE(dy) * OOM_V(oom_gelu_slope)(TAKE(x)));
}
ARRAY_KERNEL(gelu_backward)

OOM_FUNCTION void OOM_R(relu_forward_at)(const struct oom_relu_forward_args *a, int64_t i,
                                         int64_t n) {
    vreal x = TAKE(x);
    vmask on =
        a->branch == 0 ? (vmask)(x > 0) : OOM_V(byte_mask)(OOM_HOST_PTR(uint8_t, a->branch) + i, n);
    PUT(y, OOM_V(oom_select)(on, x, ZERO));
}
ARRAY_KERNEL(relu_forward)

OOM_FUNCTION void OOM_R(relu_backward_at)(const struct oom_relu_backward_args *a, int64_t i,
                                          int64_t n) {
    vmask on = a->branch == 0 ? (vmask)(TAKE(y) > 0)
                              : OOM_V(byte_mask)(OOM_HOST_PTR(uint8_t, a->branch) + i, n);
    PUT(dx, OOM_V(oom_select)(on, TAKE(dy), ZERO));
}
ARRAY_KERNEL(relu_backward)

#if !HALF
OOM_FUNCTION void OOM_R(sgd_at)(const struct oom_sgd_args *a, int64_t i, int64_t n) {
    vreal w = TAKE(w), v = TAKE(v);
    OOM_V(oom_sgd)((real)a->lr, (real)a->momentum, &w, &v, TAKE(g));
    PUT(v, v);
    PUT(w, w);
}
ARRAY_KERNEL(sgd)

OOM_FUNCTION void OOM_R(adamw_at)(const struct oom_adamw_args *a,
                                  const struct oom_adamw_factors *factors, int64_t i, int64_t n) {
    vreal w = TAKE(w), m = TAKE(m), v = TAKE(v);
    OOM_V(oom_adamw)(factors, &w, &m, &v, TAKE(g));
    PUT(m, m);
    PUT(v, v);
    PUT(w, w);
}

static void OOM_R(adamw)(const struct oom_adamw_args *args, const struct oom_host_part *part) {
    const struct oom_adamw_args a = *args;
    const struct oom_adamw_factors factors = oom_adamw_factors(args);
    int64_t i, end;
    oom_host_share(a.n, GRAIN, part, &i, &end);
    for (; i + REAL_LANES <= end; i += REAL_LANES) OOM_R(adamw_at)(&a, &factors, i, REAL_LANES);
    if (i < end) OOM_R(adamw_at)(&a, &factors, i, end - i);
}
#endif

static void OOM_R(fill)(const struct oom_fill_args *a, const struct oom_host_part *part) {
    stored *x = OOM_HOST_PTR(stored, a->x);
    const stored value = OOM_S(oom_nearest)(a->value);
    int64_t i, end;
    oom_host_share(a->n, GRAIN, part, &i, &end);
    for (; i < end; i++) x[i] = value;
}

OOM_FUNCTION void OOM_R(scale_at)(const struct oom_scale_args *a, int64_t i, int64_t n) {
    PUT(x, TAKE(x) * (real)a->factor);
}
ARRAY_KERNEL(scale)

OOM_FUNCTION void OOM_R(axpy_at)(const struct oom_axpy_args *a, int64_t i, int64_t n) {
    PUT_WIDE(y, TAKE_WIDE(y) + (real)a->a * TAKE(x));
}
ARRAY_KERNEL(axpy)

/* x - x is 0 for a finite x, else NaN, and NaN != 0. Threads that find something all store the
 * same 1. */
static void OOM_R(finite_check)(const struct oom_finite_check_args *a,
                                const struct oom_host_part *part) {
    const stored *x = OOM_HOST_PTR(const stored, a->x);
    int64_t i, end;
    oom_host_share(a->n, GRAIN, part, &i, &end);
    vmask bad = {0};
    for (; i < end; i += REAL_LANES) {
        vreal v = OOM_S(oom_take)(x + i, end - i);
        bad |= (vmask)(v - v != 0);
    }
    for (int lane = 0; lane < REAL_LANES; lane++) {
        if (bad[lane]) __atomic_store_n(OOM_HOST_PTR(int32_t, a->found), 1, __ATOMIC_RELAXED);
    }
}

#undef TAKE
#undef PUT
#undef TAKE_WIDE
#undef PUT_WIDE
#undef ZERO
