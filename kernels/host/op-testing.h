/*
 * op-testing.h: for tests of host kernels: buffers with seeded contents, running one op in parts,
 * the check that its bits are the same for every instruction set and number of threads, and the one
 * that an op on halves gives the rounded results of the same op on f32.
 *
 * Buffers belong to this file and live until test_release(). A buffer that cannot be had fails the
 * test point and ends in NULL, which the kernels' check refuses.
 */
#ifndef OOM_KERNELS_HOST_OP_TESTING_H
#define OOM_KERNELS_HOST_OP_TESTING_H

#include "kernels/half.h"
#include "kernels/host/kernels.h"
#include "kernels/hostmem.h"
#include "kernels/testing.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define OOM_TEST_HELPER static __attribute__((unused))

enum { TEST_BUFFERS = 256 };

static struct {
    void *buffers[TEST_BUFFERS];
    int count;
    uint64_t seed;
} test_memory = {.seed = 1};

OOM_TEST_HELPER void *test_bytes(size_t bytes) {
    void *buffer = test_memory.count < TEST_BUFFERS ? oom_host_calloc(1, bytes) : NULL;
    CHECK(buffer != NULL);
    if (buffer != NULL) test_memory.buffers[test_memory.count++] = buffer;
    return buffer;
}

OOM_TEST_HELPER void test_release(void) {
    while (test_memory.count > 0) oom_host_free(test_memory.buffers[--test_memory.count]);
}

/* Uniform in [low, high); splitmix64 (Steele, Lea, Flood 2014). */
OOM_TEST_HELPER double test_uniform(double low, double high) {
    uint64_t z = test_memory.seed += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return low + (high - low) * ((double)((z ^ (z >> 31)) >> 11) * 0x1p-53);
}

OOM_TEST_HELPER double test_get(enum oom_dtype dtype, const void *array, int64_t i) {
    if (dtype == OOM_F64) return ((const double *)array)[i];
    if (dtype == OOM_F32) return ((const float *)array)[i];
    return oom_f32_from_half(dtype, ((const uint16_t *)array)[i]);
}

OOM_TEST_HELPER void test_set(enum oom_dtype dtype, void *array, int64_t i, double value) {
    if (dtype == OOM_F64)
        ((double *)array)[i] = value;
    else if (dtype == OOM_F32)
        ((float *)array)[i] = (float)value;
    else
        ((uint16_t *)array)[i] = oom_half_from_f64(dtype, value);
}

/* What a result loses by its one rounding to a half; 0 for f32 and f64, whose bounds have it. */
OOM_TEST_HELPER double test_half_rounding(enum oom_dtype dtype, double value) {
    if (!oom_dtype_is_half(dtype)) return 0;
    return 1.01 * oom_dtype_roundoff(dtype) * fabs(value) + 0x1p-25; /* subnormals of f16 */
}

/* An array of n elements drawn from [low, high). */
OOM_TEST_HELPER void *test_array(enum oom_dtype dtype, int64_t n, double low, double high) {
    void *array = test_bytes((size_t)n * oom_dtype_bytes(dtype));
    for (int64_t i = 0; array != NULL && i < n; i++) {
        test_set(dtype, array, i, test_uniform(low, high));
    }
    return array;
}

OOM_TEST_HELPER int32_t *test_tokens(int64_t n, int low, int high) {
    int32_t *tokens = test_bytes((size_t)n * sizeof *tokens);
    for (int64_t i = 0; tokens != NULL && i < n; i++) {
        tokens[i] = (int32_t)floor(test_uniform(low, high));
    }
    return tokens;
}

#define ADDRESS(pointer) ((oom_devptr)(uintptr_t)(pointer))

/* All parts of `count`, one after the other: what threads do, in one order. */
OOM_TEST_HELPER void test_run_parts(enum oom_isa isa, int count, enum oom_op op, const void *args) {
    const struct oom_host_kernels *kernels = NULL;
    CHECK_OK(oom_op_check(op, args));
    CHECK_OK(oom_host_kernels_select(isa, &kernels));
    void *scratch = oom_host_alloc(OOM_HOST_SCRATCH_BYTES);
    CHECK(scratch != NULL);
    for (int i = 0; i < count && scratch != NULL; i++) {
        const struct oom_host_part part = {i, count, scratch, OOM_HOST_SCRATCH_BYTES};
        kernels->run[op](args, &part);
    }
    oom_host_free(scratch);
}

OOM_TEST_HELPER void test_run(enum oom_op op, const void *args) {
    test_run_parts(OOM_ISA_AUTO, 1, op, args);
}

static bool test_isa_present(enum oom_isa isa) {
    const struct oom_host_kernels *kernels;
    bool present = oom_host_kernels_select(isa, &kernels) == OOM_OK;
    if (!present) oom_failure_clear();
    return present;
}

/* Copies of what an op writes, to put it back and to compare. */
struct test_copy {
    int n;
    struct oom_operand operand[OOM_OPERANDS_MAX];
    void *bytes[OOM_OPERANDS_MAX];
};

static struct test_copy test_copy_outputs(enum oom_op op, const void *args) {
    struct test_copy copy = {0};
    struct oom_operand all[OOM_OPERANDS_MAX];
    int n = oom_op_operands(op, args, all);
    for (int i = 0; i < n; i++) {
        if (!(all[i].direction & OOM_WRITE)) continue;
        void *bytes = test_bytes(all[i].bytes);
        if (bytes == NULL) return copy;
        memcpy(bytes, OOM_HOST_PTR(void, all[i].ptr), all[i].bytes);
        copy.operand[copy.n] = all[i];
        copy.bytes[copy.n++] = bytes;
    }
    return copy;
}

static void test_put_back(const struct test_copy *copy) {
    for (int i = 0; i < copy->n; i++) {
        memcpy(OOM_HOST_PTR(void, copy->operand[i].ptr), copy->bytes[i], copy->operand[i].bytes);
    }
}

/* The op's outputs are the same bytes on every instruction set of this CPU with 1, 2 and 3 parts.
 * Leaves the outputs computed once. */
OOM_TEST_HELPER void test_same_everywhere(enum oom_op op, const void *args) {
    struct test_copy before = test_copy_outputs(op, args);
    test_run_parts(OOM_ISA_BASE, 1, op, args);
    struct test_copy expected = test_copy_outputs(op, args);
    for (int isa = OOM_ISA_BASE; isa < OOM_ISA_COUNT; isa++) {
        for (int count = 1; count <= 3 && test_isa_present((enum oom_isa)isa); count++) {
            test_put_back(&before);
            test_run_parts((enum oom_isa)isa, count, op, args);
            for (int i = 0; i < expected.n; i++) {
                const struct oom_operand *o = &expected.operand[i];
                CHECK_MSG(memcmp(OOM_HOST_PTR(void, o->ptr), expected.bytes[i], o->bytes) == 0,
                          "%s, %s: isa %d with %d parts differs from base", oom_op_name(op),
                          o->name, isa, count);
            }
        }
    }
}

/* One operand of an op on halves: an array of f32 with the same values (where the op on f32 has
 * twice the bytes there) or a copy. */
static void *test_widened(enum oom_dtype half, const struct oom_operand *o, uint64_t wide_bytes) {
    void *out = test_bytes(wide_bytes);
    if (out == NULL) return NULL;
    if (o->bytes == wide_bytes) return memcpy(out, OOM_HOST_PTR(void, o->ptr), o->bytes);
    for (uint64_t i = 0; i < o->bytes / 2; i++)
        ((float *)out)[i] = oom_f32_from_half(half, OOM_HOST_PTR(uint16_t, o->ptr)[i]);
    return out;
}

/* Puts the address `to` wherever the struct of arguments has `from`. */
static void test_redirect(void *args, size_t bytes, oom_devptr from, const void *to) {
    oom_devptr now, instead = ADDRESS(to);
    for (size_t at = 0; at + sizeof now <= bytes; at += sizeof now) {
        memcpy(&now, (char *)args + at, sizeof now);
        if (now == from) memcpy((char *)args + at, &instead, sizeof now);
    }
}

/* An operand's halves are the f32 values rounded; what is wide is the same bits. */
static void test_is_rounded(enum oom_op op, enum oom_dtype half, const struct oom_operand *o,
                            const struct oom_operand *wide) {
    const uint16_t *got = OOM_HOST_PTR(uint16_t, o->ptr);
    const float *want = OOM_HOST_PTR(float, wide->ptr);
    if (o->bytes == wide->bytes) {
        CHECK_MSG(memcmp(got, want, o->bytes) == 0, "%s, %s: not the f32 op's bits",
                  oom_op_name(op), o->name);
        return;
    }
    for (uint64_t i = 0; i < o->bytes / 2; i++) {
        CHECK_MSG(got[i] == oom_half_from_f32(half, want[i]),
                  "%s, %s[%llu]: 0x%04x is not %a rounded to %s", oom_op_name(op), o->name,
                  (unsigned long long)i, got[i], (double)want[i], oom_dtype_name(half));
    }
}

/* The rule of ops.h for halves: the bits are those of the f32 op on converted arrays, rounded, on
 * every instruction set, whole and in parts. `args` are of the half, `wide` the same struct with
 * f32 for its dtypes; its addresses are replaced. Leaves the outputs of `args` computed once. */
OOM_TEST_HELPER void test_half_is_f32_rounded(enum oom_op op, const void *args, void *wide) {
    struct oom_operand half[OOM_OPERANDS_MAX], full[OOM_OPERANDS_MAX];
    int n = oom_op_operands(op, args, half);
    enum oom_dtype dtype;
    memcpy(&dtype, args, sizeof dtype); /* every struct begins with it */
    CHECK_EQ(oom_op_operands(op, wide, full), n);
    for (int i = 0; i < n; i++) {
        void *copy = test_widened(dtype, &half[i], full[i].bytes);
        if (copy == NULL) return;
        test_redirect(wide, oom_op_args_bytes(op), half[i].ptr, copy);
    }
    oom_op_operands(op, wide, full);
    test_run(op, wide);
    test_same_everywhere(op, args);
    for (int i = 0; i < n; i++) {
        if (half[i].direction & OOM_WRITE) test_is_rounded(op, dtype, &half[i], &full[i]);
    }
}

/* The same for a struct whose one dtype is its field `dtype`. Does nothing for f32 and f64. */
#define TEST_HALF_IS_F32_ROUNDED(OP, args) \
    do { \
        __typeof__(args) full_args = args; \
        full_args.dtype = OOM_F32; \
        if (oom_dtype_is_half((args).dtype)) test_half_is_f32_rounded(OP, &(args), &full_args); \
    } while (0)

/* |a - b| <= bound, element by element; bound may depend on the element. */
OOM_TEST_HELPER void test_close(const char *what, int64_t i, double got, double want,
                                double bound) {
    CHECK_MSG(fabs(got - want) <= bound, "%s[%lld] = %.17g, want %.17g within %g", what,
              (long long)i, got, want, bound);
}

/* One rounding to f32 or f64. */
static inline double test_rounded(enum oom_dtype wide, double x) {
    return wide == OOM_F64 ? x : (double)(float)x;
}

/* sum + value by Kahan's rule (1965), each operation rounded. */
static inline double test_compensated(enum oom_dtype wide, double sum, double value, double *lost) {
    double rest = test_rounded(wide, value - *lost), next = test_rounded(wide, sum + rest);
    *lost = test_rounded(wide, test_rounded(wide, next - sum) - rest);
    return next;
}

/* ---- sums of products, as ops.h defines those that do not accumulate ---- */

struct test_sum {
    enum oom_dtype dtype;
    double done, chain; /* of the chains before, and of the one in hand */
    int64_t steps;
};

/* sum + a b, rounded once to the wide type. */
static inline double test_fma(enum oom_dtype dtype, double a, double b, double sum) {
    bool is_double = oom_dtype_wide(dtype) == OOM_F64;
    return is_double ? fma(a, b, sum) : (double)fmaf((float)a, (float)b, (float)sum);
}

static inline double test_sum_end(const struct test_sum *s) {
    bool is_double = oom_dtype_wide(s->dtype) == OOM_F64;
    if (s->steps <= OOM_CHAIN_STEPS) return s->chain;
    return is_double ? s->done + s->chain : (double)((float)s->done + (float)s->chain);
}

static inline void test_sum_add(struct test_sum *s, double a, double b) {
    if (s->steps > 0 && s->steps % OOM_CHAIN_STEPS == 0) {
        s->done = test_sum_end(s);
        s->chain = 0;
    }
    s->chain = test_fma(s->dtype, a, b, s->chain);
    s->steps++;
}

#endif
