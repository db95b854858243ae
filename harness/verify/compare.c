#include "harness/verify/compare.h"

#ifdef __FAST_MATH__
#error "compare.c must see NaN and infinity: do not build it with -ffast-math"
#endif

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

double oom_bound_constant(enum oom_dtype dtype, int64_t terms) {
    if (dtype == OOM_F16 || dtype == OOM_BF16) return 4.0;
    return 16.0 + sqrt((double)terms) / 2.0;
}

struct oom_agreement oom_compare_bounded(const float *found, const double *truth,
                                         const double *magnitude, int64_t n, enum oom_dtype dtype,
                                         int64_t terms) {
    struct oom_agreement out = {.bound = oom_bound_constant(dtype, terms)};
    double error = 0, scale = 0;
    for (int64_t i = 0; i < n; i++) {
        double difference = (double)found[i] - truth[i];
        error += difference * difference;
        scale += magnitude[i] * magnitude[i];
        if (!(fabs((double)found[i]) <= 3.5e38)) out.nonfinite++;
    }
    double unit = oom_dtype_roundoff(dtype) * sqrt(scale);
    if (out.nonfinite > 0 || !(scale <= DBL_MAX)) {
        out.error = INFINITY;
    } else if (unit > 0) {
        out.error = sqrt(error) / unit;
    } else {
        out.error = error == 0 ? 0 : INFINITY;
    }
    out.pass = n > 0 && out.nonfinite == 0 && out.error <= out.bound;
    return out;
}

/* ---- files ---- */

static void compare_piece(const uint8_t *a, const uint8_t *b, size_t n, uint64_t at,
                          struct oom_equality *out) {
    if (memcmp(a, b, n) == 0) return;
    for (size_t i = 0; i < n; i++) {
        if (a[i] == b[i]) continue;
        if (out->differ++ == 0) out->first = at + i;
    }
}

static bool compare_open(FILE *a, FILE *b, struct oom_equality *out) {
    uint8_t left[16384], right[16384];
    for (;;) {
        size_t m = fread(left, 1, sizeof left, a), n = fread(right, 1, sizeof right, b);
        if (m != n) return false;
        compare_piece(left, right, n, out->bytes, out);
        out->bytes += n;
        if (n < sizeof left) return ferror(a) == 0 && ferror(b) == 0;
    }
}

enum oom_status oom_compare_files(const char *a, const char *b, struct oom_equality *out) {
    *out = (struct oom_equality){0};
    FILE *left = fopen(a, "rbe"), *right = fopen(b, "rbe");
    if (left == NULL || right == NULL) {
        int error = errno;
        if (left != NULL) fclose(left);
        if (right != NULL) fclose(right);
        return oom_fail_native(OOM_IO, error, "'%s' cannot be read: %s", left == NULL ? a : b,
                               strerror(error));
    }
    bool same_size = compare_open(left, right, out);
    fclose(left);
    fclose(right);
    out->same_size = same_size;
    out->pass = same_size && out->bytes > 0 && out->differ == 0;
    return OOM_OK;
}
