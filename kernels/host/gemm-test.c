/*
 * gemm-test.c: the GEMM of every instruction set against a naive loop of libm's fma, bit for bit:
 * of halves in f32, rounded once at the end.
 */
#include "kernels/half.h"
#include "kernels/host/isa-sets.h"
#include "kernels/host/op-testing.h"
#include "kernels/testing.h"

#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void gemm_test(void);

/* What is kept of one comparison: matrices with room around the rows. */
struct matrices {
    struct oom_gemm_args g;
    void *a, *b, *bias, *c, *expected, *start;
    size_t a_bytes, b_bytes, bias_bytes, c_bytes;
};

static double get(enum oom_dtype dtype, const void *x, int64_t i) {
    if (oom_dtype_is_half(dtype)) return oom_f32_from_half(dtype, ((const uint16_t *)x)[i]);
    return dtype == OOM_F32 ? (double)((const float *)x)[i] : ((const double *)x)[i];
}

static void set(enum oom_dtype dtype, void *x, int64_t i, double value) {
    if (oom_dtype_is_half(dtype))
        ((uint16_t *)x)[i] = oom_half_from_f64(dtype, value);
    else if (dtype == OOM_F32)
        ((float *)x)[i] = (float)value;
    else
        ((double *)x)[i] = value;
}

static enum oom_dtype c_dtype(const struct oom_gemm_args *g) {
    return g->wide ? oom_dtype_wide(g->dtype) : g->dtype;
}

static void *random_values(enum oom_dtype dtype, int64_t n, uint64_t seed) {
    void *x = oom_host_alloc((size_t)n * oom_dtype_bytes(dtype));
    for (int64_t i = 0; x != NULL && i < n; i++) set(dtype, x, i, oom_test_random(&seed));
    return x;
}

/* The definition: an element's chain or chains, in the wide type, then the bias, then C's type. */
static void naive(const struct oom_gemm_args *g, void *c) {
    enum oom_dtype to = c_dtype(g), wide = oom_dtype_wide(g->dtype);
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j++) {
            double chain = g->accumulate ? get(to, c, i * g->ldc + j) : 0;
            struct test_sum chains = {g->dtype, 0, 0, 0};
            for (int64_t p = 0; p < g->k; p++) {
                double x = get(g->dtype, OOM_HOST_PTR(void, g->a),
                               g->transpose_a ? p * g->lda + i : i * g->lda + p);
                double y = get(g->dtype, OOM_HOST_PTR(void, g->b),
                               g->transpose_b ? j * g->ldb + p : p * g->ldb + j);
                chain = test_fma(g->dtype, x, y, chain);
                test_sum_add(&chains, x, y);
            }
            double sum = g->accumulate ? chain : test_sum_end(&chains);
            if (g->bias != 0) {
                double bias = get(wide, OOM_HOST_PTR(void, g->bias), j);
                sum = wide == OOM_F32 ? (double)((float)sum + (float)bias) : sum + bias;
            }
            set(to, c, i * g->ldc + j, sum);
        }
}

/* Bits of `form`. */
enum { TRANSPOSE_A = 1, TRANSPOSE_B = 2, ACCUMULATE = 4, BIAS = 8, WIDE = 16, FORMS = 32 };

/* Accumulate goes neither with bias nor with a C of halves; wide says something of halves only. */
static bool is_form(enum oom_dtype dtype, int form) {
    bool half = oom_dtype_is_half(dtype), wide = (form & WIDE) != 0;
    if ((form & ACCUMULATE) != 0) return (form & BIAS) == 0 && half == wide;
    return half || !wide;
}

static bool matrices_make(struct matrices *x, enum oom_dtype dtype, int64_t m, int64_t n, int64_t k,
                          int form, int64_t gap) {
    memset(x, 0, sizeof(*x));
    struct oom_gemm_args *g = &x->g;
    *g = (struct oom_gemm_args){.dtype = dtype, .m = m, .n = n, .k = k};
    g->transpose_a = (form & TRANSPOSE_A) != 0;
    g->transpose_b = (form & TRANSPOSE_B) != 0;
    g->accumulate = (form & ACCUMULATE) != 0;
    g->wide = (form & WIDE) != 0;
    g->lda = (g->transpose_a ? m : k) + gap;
    g->ldb = (g->transpose_b ? k : n) + gap;
    g->ldc = n + gap;
    int64_t a_rows = g->transpose_a ? k : m, b_rows = g->transpose_b ? n : k;
    x->a_bytes = (size_t)(a_rows * g->lda) * oom_dtype_bytes(dtype);
    x->b_bytes = (size_t)(b_rows * g->ldb) * oom_dtype_bytes(dtype);
    x->bias_bytes = (size_t)n * oom_dtype_bytes(oom_dtype_wide(dtype));
    x->c_bytes = (size_t)(m * g->ldc) * oom_dtype_bytes(c_dtype(g));
    x->a = random_values(dtype, a_rows * g->lda, 1);
    x->b = random_values(dtype, b_rows * g->ldb, 2);
    x->bias = random_values(oom_dtype_wide(dtype), n, 3);
    x->start = random_values(c_dtype(g), m * g->ldc, 4);
    x->c = oom_host_alloc(x->c_bytes);
    x->expected = oom_host_alloc(x->c_bytes);
    if (!x->a || !x->b || !x->bias || !x->start || !x->c || !x->expected) return false;
    g->a = (uintptr_t)x->a;
    g->b = (uintptr_t)x->b;
    g->c = (uintptr_t)x->c;
    g->bias = (form & BIAS) != 0 ? (uintptr_t)x->bias : 0;
    memcpy(x->expected, x->start, x->c_bytes);
    naive(g, x->expected);
    return true;
}

static void matrices_free(struct matrices *x) {
    void *all[] = {x->a, x->b, x->bias, x->c, x->expected, x->start};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) oom_host_free(all[i]);
}

/* Every instruction set and several counts of parts; what lies between the rows of C must not
 * change. */
static void check_matrices(struct matrices *x, bool large, void *scratch) {
    const struct oom_host_kernels *sets[OOM_ISA_COUNT];
    static const int parts[] = {1, 3, 2, 7};
    int n = oom_test_isa_sets(sets);
    for (int s = 0; s < n; s++)
        for (int i = 0; i < (large ? 2 : 4); i++) {
            memcpy(x->c, x->start, x->c_bytes);
            oom_test_run_parts(sets[s], OOM_OP_GEMM, &x->g, parts[i], scratch);
            CHECK_MSG(
                memcmp(x->c, x->expected, x->c_bytes) == 0,
                "%s %s %lld x %lld x %lld, transposed %d %d, accumulate %d, bias %d, wide %d, "
                "%d parts",
                sets[s]->isa, oom_dtype_name(x->g.dtype), (long long)x->g.m, (long long)x->g.n,
                (long long)x->g.k, x->g.transpose_a, x->g.transpose_b, x->g.accumulate,
                x->g.bias != 0, x->g.wide, parts[i]);
        }
}

static void test_shapes(enum oom_dtype dtype, void *scratch) {
    static const int64_t shapes[][3] = {
        {1, 1, 1},     {1, 7, 3},      {3, 1, 5},      {5, 33, 2},    {13, 47, 17},
        {12, 32, 9},   {25, 65, 64},   {31, 129, 257}, {67, 60, 260}, /* from here on above 10^6 */
        {26, 67, 600}, {270, 30, 130},
    };
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
        const int64_t *d = shapes[s];
        TEST("gemm: %s %lld x %lld x %lld equals the naive chain in every form, set and part count",
             oom_dtype_name(dtype), (long long)d[0], (long long)d[1], (long long)d[2]);
        bool large = d[0] * d[1] * d[2] > 1000000;
        for (int form = 0; form < FORMS; form++) {
            if (!is_form(dtype, form)) continue;
            if (large && form / 4 % 4 != form % 4 % 3) continue; /* one of each transposition */
            struct matrices x;
            bool made = matrices_make(&x, dtype, d[0], d[1], d[2], form, form % 3 * 5);
            CHECK(made);
            if (made) check_matrices(&x, large, scratch);
            matrices_free(&x);
        }
    }
}

static void test_blocks(enum oom_dtype dtype, void *scratch) {
    /* the second: a C of halves of more rows and columns than are kept through the blocks of k */
    static const int64_t shapes[][4] = {{66, 1603, 10, TRANSPOSE_B}, {290, 513, 257, BIAS}};
    for (int s = 0; s < (oom_dtype_is_half(dtype) ? 2 : 1); s++) {
        const int64_t *d = shapes[s];
        TEST("gemm: %s %lld x %lld x %lld, more than a block holds", oom_dtype_name(dtype),
             (long long)d[0], (long long)d[1], (long long)d[2]);
        struct matrices x;
        bool made = matrices_make(&x, dtype, d[0], d[1], d[2], (int)d[3], s);
        CHECK(made);
        if (made) check_matrices(&x, true, scratch);
        matrices_free(&x);
    }
}

static void test_pieces(enum oom_dtype dtype, void *scratch) {
    TEST("gemm: %s accumulating over pieces of k, in order, equals the whole",
         oom_dtype_name(dtype));
    static const int64_t cuts[] = {0, 1, 100, 356, 357, 600};
    struct matrices x;
    bool made = matrices_make(&x, dtype, 48, 40, 600,
                              TRANSPOSE_A | ACCUMULATE | (oom_dtype_is_half(dtype) ? WIDE : 0), 0);
    CHECK(made);
    const struct oom_host_kernels *sets[OOM_ISA_COUNT];
    int n = oom_test_isa_sets(sets);
    for (int s = 0; made && s < n; s++) {
        memcpy(x.c, x.start, x.c_bytes);
        for (size_t i = 0; i + 1 < sizeof(cuts) / sizeof(cuts[0]); i++) {
            struct oom_gemm_args piece = x.g;
            uint64_t size = oom_dtype_bytes(dtype);
            piece.k = cuts[i + 1] - cuts[i];
            piece.a += (uint64_t)(cuts[i] * piece.lda) * size;
            piece.b += (uint64_t)(cuts[i] * piece.ldb) * size;
            oom_test_run_parts(sets[s], OOM_OP_GEMM, &piece, 2, scratch);
        }
        CHECK_MSG(memcmp(x.c, x.expected, x.c_bytes) == 0, "%s", sets[s]->isa);
    }
    matrices_free(&x);
}

/* Memory whose end is that of what may be touched, in whole pages. */
struct fenced {
    unsigned char *memory;
    size_t bytes, page;
};

/* Moves the matrix to the end of it. */
static bool fence(struct fenced *f, void **x, oom_devptr *address, size_t bytes) {
    f->page = (size_t)sysconf(_SC_PAGESIZE);
    f->bytes = (bytes + f->page - 1) / f->page * f->page;
    f->memory =
        mmap(NULL, f->bytes + f->page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (f->memory == MAP_FAILED) return false;
    mprotect(f->memory + f->bytes, f->page, PROT_NONE);
    unsigned char *to = f->memory + f->bytes - bytes;
    memcpy(to, *x, bytes);
    oom_host_free(*x);
    *x = to;
    if (*address != 0) *address = (uintptr_t)to;
    return true;
}

/* Ends of rows are read and written in place, so a vector must not reach beyond the last. */
static void test_ends(enum oom_dtype dtype, void *scratch) {
    TEST("gemm: %s nothing beyond the ends of the matrices is touched", oom_dtype_name(dtype));
    static const int64_t shapes[][3] = {{9, 3, 5}, {13, 23, 17}, {25, 41, 3}, {2300, 21, 23}};
    for (int i = 0; i < 4 * FORMS; i++) {
        const int64_t *d = shapes[i / FORMS];
        int form = i % FORMS;
        if (!is_form(dtype, form) || (i / FORMS == 3 && form % 16 != 0)) continue;
        struct matrices x;
        struct fenced at[4] = {{0}};
        bool made = matrices_make(&x, dtype, d[0], d[1], d[2], form, 0);
        CHECK(made);
        if (made) {
            bool moved = fence(&at[0], &x.a, &x.g.a, x.a_bytes) &&
                         fence(&at[1], &x.b, &x.g.b, x.b_bytes) &&
                         fence(&at[2], &x.bias, &x.g.bias, x.bias_bytes) &&
                         fence(&at[3], &x.c, &x.g.c, x.c_bytes);
            CHECK(moved);
            if (moved) check_matrices(&x, true, scratch);
        }
        void **all[] = {&x.a, &x.b, &x.bias, &x.c};
        for (int m = 0; m < 4; m++) {
            if (at[m].memory == NULL || at[m].memory == MAP_FAILED) continue;
            munmap(at[m].memory, at[m].bytes + at[m].page);
            *all[m] = NULL;
        }
        matrices_free(&x);
    }
}

/* Values over the whole range of exponents, with infinities: chains meet subnormals, overflow and
 * NaN on the way. NaN is compared as NaN. */
static void test_extremes(enum oom_dtype dtype, void *scratch) {
    TEST("gemm: %s subnormals, overflow and infinities as libm's fma has them",
         oom_dtype_name(dtype));
    struct matrices x;
    bool made = matrices_make(&x, dtype, 24, 40, 20, 0, 0);
    CHECK(made);
    if (!made) goto out;
    int low = dtype == OOM_F64 ? 1060 : dtype == OOM_F16 ? 26 : 140;
    int range = low + (dtype == OOM_F16 ? 16 : 40);
    void *both[] = {x.a, x.b};
    int64_t counts[] = {x.g.m * x.g.k, x.g.k * x.g.n};
    uint64_t state = 5;
    for (int w = 0; w < 2; w++)
        for (int64_t i = 0; i < counts[w]; i++) {
            double value = oom_test_random(&state);
            int exponent = (int)((state >> 33) % (uint64_t)range) - low;
            if (state >> 54 == 0) value = INFINITY;
            set(dtype, both[w], i, ldexp(value, exponent));
        }
    naive(&x.g, x.expected);
    const struct oom_host_kernels *sets[OOM_ISA_COUNT];
    int n = oom_test_isa_sets(sets);
    for (int s = 0; s < n; s++) {
        oom_test_run_parts(sets[s], OOM_OP_GEMM, &x.g, 1, scratch);
        int64_t wrong = 0;
        for (int64_t i = 0; i < x.g.m * x.g.n; i++) {
            double got = get(dtype, x.c, i), expected = get(dtype, x.expected, i);
            if (isnan(expected) ? !isnan(got) : memcmp(&got, &expected, sizeof(got)) != 0) wrong++;
        }
        CHECK_MSG(wrong == 0, "%s: %lld of %lld differ", sets[s]->isa, (long long)wrong,
                  (long long)(x.g.m * x.g.n));
    }
out:
    matrices_free(&x);
}

void gemm_test(void) {
    void *scratch = oom_host_alloc(OOM_HOST_SCRATCH_BYTES);
    if (scratch == NULL) {
        TEST("gemm: scratch");
        CHECK(scratch != NULL);
        return;
    }
    static const enum oom_dtype dtypes[] = {OOM_F32, OOM_F64, OOM_F16, OOM_BF16};
    for (size_t i = 0; i < 4; i++) {
        test_shapes(dtypes[i], scratch);
        test_blocks(dtypes[i], scratch);
        test_pieces(dtypes[i], scratch);
        test_ends(dtypes[i], scratch);
        test_extremes(dtypes[i], scratch);
    }
    oom_host_free(scratch);
}
