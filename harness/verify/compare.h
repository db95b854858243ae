/*
 * compare.h: do two arrays agree, and by which measure? This unit refuses fast-math, and a NaN
 * never passes: conditions are written pass = (error <= bound).
 */
#ifndef OOM_HARNESS_VERIFY_COMPARE_H
#define OOM_HARNESS_VERIFY_COMPARE_H

#include "kernels/dtype.h"
#include "kernels/status.h"

#include <stdbool.h>
#include <stdint.h>

/* The constant of class `bounded`: 16 + sqrt(N)/2 for f32 (N terms in the longest sum over the
 * effective batch), 4 for halves, whose gradients are written once and added up in f32. */
double oom_bound_constant(enum oom_dtype dtype, int64_t terms);

/* One tensor against the truth: |found - truth|_2 <= C u |magnitude|_2. */
struct oom_agreement {
    bool pass;
    double error;      /* |found - truth|_2 in units of u |magnitude|_2; infinite when not finite */
    double bound;      /* C */
    int64_t nonfinite; /* elements of `found` that are */
};

/* found (n) f32, truth and magnitude (n) f64. A magnitude of zero asks for exact zeros. */
struct oom_agreement oom_compare_bounded(const float *found, const double *truth,
                                         const double *magnitude, int64_t n, enum oom_dtype dtype,
                                         int64_t terms);

struct oom_equality {
    bool pass, same_size;
    uint64_t bytes;  /* of each file, when they have the same size */
    uint64_t differ; /* bytes that do */
    uint64_t first;  /* the first of them */
};

/* Two files, byte by byte. Files of different size, or empty ones, do not pass. */
enum oom_status oom_compare_files(const char *a, const char *b, struct oom_equality *out);

#endif
