/*
 * elementwise-body.h: the bodies of elementwise.h for one type, scalar or vector, by the M_ words
 * of math.h and M_SCALAR, the type of an element. No include guard: included once per type.
 */

/* GELU by way of 1/2 (1 + tanh u) = 1 / (1 + exp(-2u)), which needs one exp and keeps its digits
 * where 1 + tanh u would cancel. `gate` is that factor, `both` gate * (1 - gate) = t / (1 + t)^2,
 * t = exp(-2|u|); 2u = 2 sqrt(2/pi) (x + 0.044715 x^3), from |x|. */
struct M(oom_gelu_parts) {
    M_REAL gate, both;
};

OOM_FUNCTION struct M(oom_gelu_parts) M(oom_gelu_parts)(M_REAL x, M_REAL a) {
    const M_SCALAR twice_root = (M_SCALAR)0x1.9884533d43651p+0, cubic = (M_SCALAR)0.044715;
    M_REAL u = twice_root * (a + cubic * ((a * a) * a));
    M_REAL t = M(oom_exp)(-u);
    M_REAL s = (M_SCALAR)1 / ((M_SCALAR)1 + t);
    struct M(oom_gelu_parts) parts;
    parts.gate = M_SELECT(x < (M_SCALAR)0, t * s, s);
    parts.both = (t * s) * s;
    return parts;
}

OOM_FUNCTION M_REAL M(oom_gelu)(M_REAL x) {
    return x * M(oom_gelu_parts)(x, M(oom_abs)(x)).gate;
}

/* GELU'(x) = gate + x (2u)' gate (1 - gate). Beyond 22 the second term is 0 in f32 and f64; the
 * clamp keeps its cube finite, so that the slope of a huge x is 0 or 1. */
OOM_FUNCTION M_REAL M(oom_gelu_slope)(M_REAL x) {
    const M_SCALAR twice_root = (M_SCALAR)0x1.9884533d43651p+0, cubic3 = (M_SCALAR)0.134145;
    M_REAL a = M(oom_abs)(x);
    a = M_SELECT(a > (M_SCALAR)22, M_SET((M_SCALAR)22), a);
    struct M(oom_gelu_parts) parts = M(oom_gelu_parts)(x, a);
    M_REAL inner = twice_root * ((M_SCALAR)1 + cubic3 * (a * a));
    M_REAL tail = (a * inner) * parts.both;
    return parts.gate + M_SELECT(x < (M_SCALAR)0, -tail, tail);
}

/* One step of SGD with momentum, in place on w, v. */
OOM_FUNCTION void M(oom_sgd)(M_SCALAR lr, M_SCALAR momentum, M_REAL *w, M_REAL *v, M_REAL g) {
    *v = momentum * *v + g;
    *w = *w - lr * *v;
}

/* One step of AdamW, in place on w, m, v. */
OOM_FUNCTION void M(oom_adamw)(const struct oom_adamw_factors *f, M_REAL *w, M_REAL *m, M_REAL *v,
                               M_REAL g) {
    *m = *m + (M_SCALAR)f->fresh_m * (g - *m);
    *v = (M_SCALAR)f->old_v * *v + ((M_SCALAR)f->fresh_v * g) * g;
    M_REAL below = M(oom_sqrt)(*v) * (M_SCALAR)f->root + (M_SCALAR)f->eps;
    *w = *w * (M_SCALAR)f->keep - ((M_SCALAR)f->rate * *m) / below;
}
