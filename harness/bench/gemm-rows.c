/*
 * gemm-rows.c: the host GEMM beside OpenBLAS with the same instruction set and number of threads.
 *
 * The clock of a shared machine drifts by 15 % between minutes, so only ratios of turns mean
 * something. OpenBLAS is looked for at run time (libopenblas.so.0, or $OOMBENCH_OPENBLAS);
 * OPENBLAS_CORETYPE is read when the library is loaded, hence set before.
 *
 * The shapes are those of the training models: tokens x C x {3C, C, 4C}, forward, gradient of the
 * data (B transposed), gradient of the weights (A transposed, k = tokens, accumulate), the head
 * with 256 classes; and squares. Those with MNK <= 10^6 are minor: a call's fixed cost decides.
 */
#include "harness/bench/bench.h"

#include "kernels/host/kernels.h"
#include "kernels/host/pool.h"
#include "kernels/hostmem.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { NO_TRANSPOSE = 111, TRANSPOSE = 112, ROW_MAJOR = 101 };

typedef void cblas_sgemm(int order, int ta, int tb, int m, int n, int k, float alpha,
                         const float *a, int lda, const float *b, int ldb, float beta, float *c,
                         int ldc);
typedef void cblas_dgemm(int order, int ta, int tb, int m, int n, int k, double alpha,
                         const double *a, int lda, const double *b, int ldb, double beta, double *c,
                         int ldc);

/* What all rows of a run share: made by the first, closed with the family. */
static struct {
    const struct oom_host_kernels *kernels; /* NULL: not made yet */
    struct oom_pool *pool;
    cblas_sgemm *sgemm;
    cblas_dgemm *dgemm;
    char missing[OOM_BENCH_TEXT]; /* why there is no peer */
} shared;

static double monotonic(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Keeps the caller awake: a sleeping one would wake on a slower, colder CPU. */
static void spin(double time) {
    for (double end = monotonic() + time; monotonic() < end;) {}
}

/* ---- the two sides ---- */

static enum oom_status run_own(void *context, uint64_t times) {
    const struct oom_gemm_args *g = context;
    for (uint64_t i = 0; i < times; i++) {
        oom_host_kernels_run(shared.kernels, shared.pool, OOM_OP_GEMM, g);
    }
    return OOM_OK;
}

static enum oom_status run_peer(void *context, uint64_t times) {
    const struct oom_gemm_args *g = context;
    int ta = g->transpose_a ? TRANSPOSE : NO_TRANSPOSE,
        tb = g->transpose_b ? TRANSPOSE : NO_TRANSPOSE;
    int m = (int)g->m, n = (int)g->n, k = (int)g->k;
    int lda = (int)g->lda, ldb = (int)g->ldb, ldc = (int)g->ldc;
    double beta = g->accumulate ? 1 : 0;
    for (uint64_t i = 0; i < times; i++) {
        if (g->dtype == OOM_F32) {
            shared.sgemm(ROW_MAJOR, ta, tb, m, n, k, 1.0F, OOM_HOST_PTR(const float, g->a), lda,
                         OOM_HOST_PTR(const float, g->b), ldb, (float)beta,
                         OOM_HOST_PTR(float, g->c), ldc);
        } else {
            shared.dgemm(ROW_MAJOR, ta, tb, m, n, k, 1.0, OOM_HOST_PTR(const double, g->a), lda,
                         OOM_HOST_PTR(const double, g->b), ldb, beta, OOM_HOST_PTR(double, g->c),
                         ldc);
        }
    }
    return OOM_OK;
}

/* Its threads spin for some 25 ms after a call. */
static enum oom_status rest_of_peer(void *context) {
    (void)context;
    if (oom_pool_threads(shared.pool) > 1) spin(0.03);
    return OOM_OK;
}

/* The peer's name of an instruction set. */
static const char *core_type(const char *isa) {
    if (strcmp(isa, "avx512") == 0) return "SkylakeX";
    return strcmp(isa, "avx2") == 0 ? "Haswell" : "Prescott";
}

static void load_peer(void) {
    char threads[16];
    snprintf(threads, sizeof threads, "%d", oom_pool_threads(shared.pool));
#if defined(__x86_64__)
    setenv("OPENBLAS_CORETYPE", core_type(shared.kernels->isa), 1);
#else
    (void)core_type;
#endif
    setenv("OPENBLAS_NUM_THREADS", threads, 1);
    const char *path = getenv("OOMBENCH_OPENBLAS");
    void *library = dlopen(path != NULL ? path : "libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (library != NULL) {
        *(void **)&shared.sgemm = dlsym(library, "cblas_sgemm");
        *(void **)&shared.dgemm = dlsym(library, "cblas_dgemm");
    }
    if (shared.sgemm == NULL || shared.dgemm == NULL) {
        const char *why = dlerror();
        snprintf(shared.missing, sizeof shared.missing, "%s", why != NULL ? why : "no cblas_sgemm");
    }
}

static enum oom_status share(const struct oom_bench_settings *settings) {
    if (shared.kernels != NULL) return OOM_OK;
    OOM_TRY(oom_pool_create(settings->threads, OOM_HOST_SCRATCH_BYTES, &shared.pool));
    OOM_TRY(oom_host_kernels_select(settings->isa, &shared.kernels));
    load_peer();
    return OOM_OK;
}

static void close_shared(void) {
    oom_pool_destroy(shared.pool);
    memset(&shared, 0, sizeof shared);
}

/* ---- a row ---- */

enum { DTYPE, M, N, K, TRANSPOSE_A, TRANSPOSE_B, ACCUMULATE };

static void fill_random(void *x, int64_t n, enum oom_dtype dtype) {
    uint64_t state = 1;
    for (int64_t i = 0; i < n; i++) {
        state = state * 6364136223846793005U + 1442695040888963407U;
        double value = (double)(state >> 40) * 0x1p-24 - 0.5;
        if (dtype == OOM_F32)
            ((float *)x)[i] = (float)value;
        else
            ((double *)x)[i] = value;
    }
}

static void close_row(void *context) {
    struct oom_gemm_args *g = context;
    oom_host_free(OOM_HOST_PTR(void, g->a));
    oom_host_free(OOM_HOST_PTR(void, g->b));
    oom_host_free(OOM_HOST_PTR(void, g->c));
    oom_host_free(g);
}

static enum oom_status make_matrices(const int64_t *p, struct oom_gemm_args *g) {
    size_t size = oom_dtype_bytes((enum oom_dtype)p[DTYPE]);
    *g = (struct oom_gemm_args){
        .dtype = (enum oom_dtype)p[DTYPE],
        .transpose_a = p[TRANSPOSE_A] != 0,
        .transpose_b = p[TRANSPOSE_B] != 0,
        .accumulate = p[ACCUMULATE] != 0,
        .m = p[M],
        .n = p[N],
        .k = p[K],
        .a = (uintptr_t)oom_host_alloc((size_t)(p[M] * p[K]) * size),
        .lda = p[TRANSPOSE_A] ? p[M] : p[K],
        .b = (uintptr_t)oom_host_alloc((size_t)(p[K] * p[N]) * size),
        .ldb = p[TRANSPOSE_B] ? p[K] : p[N],
        .c = (uintptr_t)oom_host_calloc((size_t)(p[M] * p[N]), size),
        .ldc = p[N],
    };
    if (g->a == 0 || g->b == 0 || g->c == 0) {
        return oom_fail(OOM_HOST_NOMEM, "matrices of %lld x %lld x %lld", (long long)p[M],
                        (long long)p[N], (long long)p[K]);
    }
    fill_random(OOM_HOST_PTR(void, g->a), p[M] * p[K], g->dtype);
    fill_random(OOM_HOST_PTR(void, g->b), p[K] * p[N], g->dtype);
    return OOM_OK;
}

static enum oom_status open_row(const struct oom_bench_row *row,
                                const struct oom_bench_settings *settings,
                                struct oom_bench_subjects *out) {
    OOM_TRY(share(settings));
    struct oom_gemm_args *g = oom_host_calloc(1, sizeof *g);
    if (g == NULL) return oom_fail(OOM_HOST_NOMEM, "a row's operands");
    enum oom_status status = make_matrices(row->parameters, g);
    if (status != OOM_OK) {
        close_row(g);
        return status;
    }
    out->count = 2;
    out->items[0] = (struct oom_bench_subject){.context = g, .work = run_own, .close = close_row};
    out->items[1] = (struct oom_bench_subject){
        .name = "OpenBLAS", .context = g, .work = run_peer, .rest = rest_of_peer};
    memcpy(out->items[1].missing, shared.missing, sizeof shared.missing);
    return OOM_OK;
}

/* ---- the list ---- */

struct shape {
    const char *kind;
    int64_t m, n, k;
    bool ta, tb, accumulate;
};

static enum oom_status add(struct oom_bench_list *list, enum oom_dtype dtype, const struct shape *s,
                           bool quick) {
    double products = (double)s->m * (double)s->n * (double)s->k;
    const struct oom_bench_row row = {
        .unit = "product",
        .rate_unit = "GF/s",
        .rate = 2 * products, /* floating-point operations per ns */
        .quick = quick && dtype == OOM_F32,
        .threaded = true,
        .minor = products <= 1e6,
        .parameters = {dtype, s->m, s->n, s->k, s->ta, s->tb, s->accumulate},
        .open = open_row,
    };
    return oom_bench_list_add(list, &row, "gemm/%s/%s/%lldx%lldx%lld/%c%c%s", oom_dtype_name(dtype),
                              s->kind, (long long)s->m, (long long)s->n, (long long)s->k,
                              s->ta ? 'T' : 'N', s->tb ? 'T' : 'N', s->accumulate ? "+" : "");
}

static enum oom_status add_layer(struct oom_bench_list *list, enum oom_dtype dtype, int64_t tokens,
                                 int64_t in, int64_t out, bool quick) {
    const struct shape three[] = {
        {"forward", tokens, out, in, false, false, false},
        {"data", tokens, in, out, false, true, false},
        {"weights", in, out, tokens, true, false, true},
    };
    for (size_t i = 0; i < 3; i++) OOM_TRY(add(list, dtype, &three[i], quick));
    return OOM_OK;
}

static enum oom_status add_models(struct oom_bench_list *list, enum oom_dtype dtype) {
    static const int64_t widths[] = {32, 48, 64, 128, 768}, tokens[] = {256, 1024, 4096, 16384};
    for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++) {
        int64_t c = widths[w];
        for (size_t t = 0; t < sizeof tokens / sizeof tokens[0]; t++) {
            if (c == 768 && tokens[t] > 1024) continue;
            bool quick = c != 48 && c != 768 && tokens[t] != 16384;
            OOM_TRY(add_layer(list, dtype, tokens[t], c, 3 * c, quick));
            OOM_TRY(add_layer(list, dtype, tokens[t], c, c, quick));
            OOM_TRY(add_layer(list, dtype, tokens[t], c, 4 * c, quick));
            OOM_TRY(add_layer(list, dtype, tokens[t], 4 * c, c, quick));
            if (c != 64) OOM_TRY(add_layer(list, dtype, tokens[t], c, 256, quick));
        }
    }
    return OOM_OK;
}

static const struct shape others[] = {
    {"long", 14336, 128, 128, false, false, false},
    {"square", 512, 512, 512, false, false, false},
    {"square", 512, 512, 512, false, true, false},
    {"square", 512, 512, 512, true, false, false},
    {"square", 512, 512, 512, true, true, false},
    {"square", 1024, 1024, 1024, false, false, false},
    {"square", 1024, 1024, 1024, false, true, false},
    {"square", 1024, 1024, 1024, true, false, false},
    {"skinny", 64, 256, 1024, false, false, false},
    {"skinny", 192, 192, 64, false, false, false},
    {"skinny", 32, 768, 128, false, false, false},
    {"tiny", 128, 32, 128, false, false, false},
    {"tiny", 16, 64, 64, false, false, false},
    {"tiny", 16, 64, 64, false, true, false},
};

static enum oom_status list_rows(const struct oom_bench_family *family,
                                 struct oom_bench_list *list) {
    (void)family;
    static const enum oom_dtype dtypes[] = {OOM_F32, OOM_F64};
    for (size_t d = 0; d < 2; d++) {
        OOM_TRY(add_models(list, dtypes[d]));
        for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
            OOM_TRY(add(list, dtypes[d], &others[i], others[i].m <= 192));
    }
    return OOM_OK;
}

const struct oom_bench_family oom_bench_gemm = {
    .name = "gemm",
    .prose = "matrix products of the host kernels, beside OpenBLAS",
    .note = "--threads N (1) and --isa NAME choose the kernels; OpenBLAS gets the same",
    .list = list_rows,
    .close = close_shared,
};
