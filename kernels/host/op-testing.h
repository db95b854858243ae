/*
 * op-testing.h: for tests of host kernels: buffers with seeded contents, running one op in parts,
 * and the check that its bits are the same for every instruction set and number of threads.
 *
 * Buffers belong to this file and live until test_release(). A buffer that cannot be had fails the
 * test point and ends in NULL, which the kernels' check refuses.
 */
#ifndef OOM_KERNELS_HOST_OP_TESTING_H
#define OOM_KERNELS_HOST_OP_TESTING_H

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
    return dtype == OOM_F32 ? (double)((const float *)array)[i] : ((const double *)array)[i];
}

OOM_TEST_HELPER void test_set(enum oom_dtype dtype, void *array, int64_t i, double value) {
    if (dtype == OOM_F32)
        ((float *)array)[i] = (float)value;
    else
        ((double *)array)[i] = value;
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

/* |a - b| <= bound, element by element; bound may depend on the element. */
OOM_TEST_HELPER void test_close(const char *what, int64_t i, double got, double want,
                                double bound) {
    CHECK_MSG(fabs(got - want) <= bound, "%s[%lld] = %.17g, want %.17g within %g", what,
              (long long)i, got, want, bound);
}

#endif
