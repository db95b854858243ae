/*
 * compensated.h: sum + value for one element type, with what the additions lost so far in `lost`,
 * to be taken back by the next (Kahan 1965). Included by batchnorm.c and groupnorm.c: a plain chain
 * over equal terms, as the gradient of a mean gives them, repeats its rounding error.
 */
OOM_FUNCTION void OOM_R(add)(vreal *sum, vreal *lost, vreal value) {
    vreal rest = value - *lost, next = *sum + rest;
    *lost = (next - *sum) - rest;
    *sum = next;
}
