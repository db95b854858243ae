/*
 * gemm-bench.c: the host GEMM beside OpenBLAS with the same instruction set and threads.
 *
 *   gemm-bench [--threads N] [--isa auto|avx2|avx512|base] [--f64] [--quick]
 *
 * Both run in turn on the same matrices, in one process, several rounds, and the best of each are
 * compared: the clock of a shared machine drifts by 15 % between minutes, so only ratios of turns
 * mean something, and what disturbs a round only ever makes it slower. With one thread its CPU time
 * is taken, which other processes do not lengthen; with more, the wall clock.
 * OpenBLAS is looked for at run time (libopenblas.so.0, or $OOMBENCH_OPENBLAS); without it the own
 * figures stand alone. OPENBLAS_CORETYPE is read when the library is loaded, hence set before.
 *
 * The shapes are those of the training models: tokens x C x {3C, C, 4C}, forward, gradient of the
 * data (B transposed), gradient of the weights (A transposed, k = tokens, accumulate), the head
 * with 256 classes; and squares. Exit code: 0, or 2 for wrong usage, 4 when something failed.
 */
#include "kernels/device.h"
#include "kernels/host/kernels.h"
#include "kernels/host/pool.h"
#include "kernels/hostmem.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROUNDS = 7, QUICK_ROUNDS = 3, NO_TRANSPOSE = 111, TRANSPOSE = 112, ROW_MAJOR = 101 };

typedef void cblas_sgemm(int order, int ta, int tb, int m, int n, int k, float alpha,
                         const float *a, int lda, const float *b, int ldb, float beta, float *c,
                         int ldc);
typedef void cblas_dgemm(int order, int ta, int tb, int m, int n, int k, double alpha,
                         const double *a, int lda, const double *b, int ldb, double beta, double *c,
                         int ldc);

struct bench {
    const struct oom_host_kernels *kernels;
    struct oom_pool *pool;
    enum oom_dtype dtype;
    bool quick, warm;   /* until it is warm nothing is reported */
    void (*peer)(void); /* cblas_sgemm or cblas_dgemm; NULL: none */
    int peer_threads;
    double log_sum, worst;
    int shapes;
    char worst_name[80];
};

struct shape {
    const char *kind;
    int64_t m, n, k;
    bool ta, tb, accumulate;
};

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Keeps the caller awake: a sleeping one would wake on a slower, colder CPU. */
static void spin(double time) {
    for (double end = seconds(CLOCK_MONOTONIC) + time; seconds(CLOCK_MONOTONIC) < end;) {}
}

static void run_own(const struct bench *bench, const struct oom_gemm_args *g) {
    oom_host_kernels_run(bench->kernels, bench->pool, OOM_OP_GEMM, g);
}

static void run_peer(const struct bench *bench, const struct oom_gemm_args *g) {
    int ta = g->transpose_a ? TRANSPOSE : NO_TRANSPOSE,
        tb = g->transpose_b ? TRANSPOSE : NO_TRANSPOSE;
    int m = (int)g->m, n = (int)g->n, k = (int)g->k;
    int lda = (int)g->lda, ldb = (int)g->ldb, ldc = (int)g->ldc;
    double beta = g->accumulate ? 1 : 0;
    if (g->dtype == OOM_F32)
        ((cblas_sgemm *)bench->peer)(
            ROW_MAJOR, ta, tb, m, n, k, 1.0F, OOM_HOST_PTR(const float, g->a), lda,
            OOM_HOST_PTR(const float, g->b), ldb, (float)beta, OOM_HOST_PTR(float, g->c), ldc);
    else
        ((cblas_dgemm *)bench->peer)(
            ROW_MAJOR, ta, tb, m, n, k, 1.0, OOM_HOST_PTR(const double, g->a), lda,
            OOM_HOST_PTR(const double, g->b), ldb, beta, OOM_HOST_PTR(double, g->c), ldc);
}

typedef void runner(const struct bench *bench, const struct oom_gemm_args *g);

/* Seconds per call of `calls` calls, after one that is not counted. */
static double measure(const struct bench *bench, runner *run, const struct oom_gemm_args *g,
                      int calls) {
    clockid_t clock = bench->peer_threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
    run(bench, g);
    double start = seconds(clock);
    for (int i = 0; i < calls; i++) run(bench, g);
    return (seconds(clock) - start) / calls;
}

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

static void report(struct bench *bench, const struct shape *s, double own, double peer) {
    double work = 2e-9 * (double)s->m * (double)s->n * (double)s->k;
    char name[80];
    snprintf(name, sizeof(name), "%-8s %6lld %5lld %6lld %c%c%s", s->kind, (long long)s->m,
             (long long)s->n, (long long)s->k, s->ta ? 'T' : 'N', s->tb ? 'T' : 'N',
             s->accumulate ? " +=" : "   ");
    if (bench->peer == NULL) {
        printf("%s %8.1f\n", name, work / own);
        return;
    }
    double ratio = peer / own;
    bool small = work < 2e-3;
    printf("%s %8.1f %8.1f %6.2f%s\n", name, work / own, work / peer, ratio,
           small ? "  small" : "");
    fflush(stdout);
    bench->log_sum += log(ratio);
    bench->shapes++;
    if (!small && ratio < bench->worst) {
        bench->worst = ratio;
        memcpy(bench->worst_name, name, sizeof(name));
    }
}

static enum oom_status bench_shape(struct bench *bench, const struct shape *s) {
    enum oom_status status = OOM_OK;
    size_t size = oom_dtype_bytes(bench->dtype);
    void *a = oom_host_alloc((size_t)(s->m * s->k) * size);
    void *b = oom_host_alloc((size_t)(s->k * s->n) * size);
    void *c = oom_host_calloc((size_t)(s->m * s->n), size);
    if (a == NULL || b == NULL || c == NULL) {
        status = oom_fail(OOM_HOST_NOMEM, "matrices of %lld x %lld x %lld", (long long)s->m,
                          (long long)s->n, (long long)s->k);
        goto out;
    }
    fill_random(a, s->m * s->k, bench->dtype);
    fill_random(b, s->k * s->n, bench->dtype);
    struct oom_gemm_args g = {
        .dtype = bench->dtype,
        .transpose_a = s->ta,
        .transpose_b = s->tb,
        .accumulate = s->accumulate,
        .m = s->m,
        .n = s->n,
        .k = s->k,
        .a = (uintptr_t)a,
        .lda = s->ta ? s->m : s->k,
        .b = (uintptr_t)b,
        .ldb = s->tb ? s->k : s->n,
        .c = (uintptr_t)c,
        .ldc = s->n,
    };
    int calls = (int)(2e-3 / measure(bench, run_own, &g, 1)) + 1;
    double own = INFINITY, peer = INFINITY;
    int rounds = bench->quick ? QUICK_ROUNDS : ROUNDS;
    for (int i = 0; i < rounds; i++) {
        own = fmin(own, measure(bench, run_own, &g, calls));
        if (bench->peer == NULL) continue;
        peer = fmin(peer, measure(bench, run_peer, &g, calls));
        /* its threads spin for some 25 ms after a call */
        if (bench->peer_threads > 1) spin(0.03);
    }
    if (bench->warm) report(bench, s, own, peer);
out:
    oom_host_free(a);
    oom_host_free(b);
    oom_host_free(c);
    return status;
}

static enum oom_status bench_layer(struct bench *bench, int64_t tokens, int64_t in, int64_t out) {
    const struct shape three[] = {
        {"forward", tokens, out, in, false, false, false},
        {"data", tokens, in, out, false, true, false},
        {"weights", in, out, tokens, true, false, true},
    };
    for (size_t i = 0; i < 3; i++) OOM_TRY(bench_shape(bench, &three[i]));
    return OOM_OK;
}

static enum oom_status bench_models(struct bench *bench) {
    static const int64_t widths[] = {32, 48, 64, 128, 768}, tokens[] = {256, 1024, 4096, 16384};
    for (size_t w = 0; w < sizeof(widths) / sizeof(widths[0]); w++) {
        int64_t c = widths[w];
        for (size_t t = 0; t < sizeof(tokens) / sizeof(tokens[0]); t++) {
            if (c == 768 && tokens[t] > 1024) continue;
            if (bench->quick && (c == 48 || c == 768 || tokens[t] == 16384)) continue;
            OOM_TRY(bench_layer(bench, tokens[t], c, 3 * c));
            OOM_TRY(bench_layer(bench, tokens[t], c, c));
            OOM_TRY(bench_layer(bench, tokens[t], c, 4 * c));
            OOM_TRY(bench_layer(bench, tokens[t], 4 * c, c));
            OOM_TRY(bench_layer(bench, tokens[t], c, 256));
        }
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
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        OOM_TRY(bench_shape(bench, &others[i]));
    return OOM_OK;
}

/* The peer's name of an instruction set. */
static const char *core_type(const char *isa) {
    if (strcmp(isa, "avx512") == 0) return "SkylakeX";
    return strcmp(isa, "avx2") == 0 ? "Haswell" : "Prescott";
}

static void load_peer(struct bench *bench) {
    char threads[16];
    snprintf(threads, sizeof(threads), "%d", bench->peer_threads);
#if defined(__x86_64__)
    setenv("OPENBLAS_CORETYPE", core_type(bench->kernels->isa), 1);
#else
    (void)core_type;
#endif
    setenv("OPENBLAS_NUM_THREADS", threads, 1);
    const char *path = getenv("OOMBENCH_OPENBLAS");
    void *library = dlopen(path != NULL ? path : "libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        printf("# no OpenBLAS to compare with (%s)\n", dlerror());
        return;
    }
    const char *name = bench->dtype == OOM_F32 ? "cblas_sgemm" : "cblas_dgemm";
    *(void **)&bench->peer = dlsym(library, name);
    if (bench->peer == NULL) {
        printf("# OpenBLAS has no %s\n", name);
        return;
    }
    char *(*core)(void);
    *(void **)&core = dlsym(library, "openblas_get_corename");
    printf("# OpenBLAS core %s\n", core != NULL ? core() : "unknown");
}

static enum oom_status run_bench(struct bench *bench, enum oom_isa isa, int threads) {
    OOM_TRY(oom_host_kernels_select(isa, &bench->kernels));
    OOM_TRY(oom_pool_create(threads, OOM_HOST_SCRATCH_BYTES, &bench->pool));
    bench->peer_threads = oom_pool_threads(bench->pool);
    printf("# %s, %s, %d thread%s %s\n", bench->kernels->isa, oom_dtype_name(bench->dtype),
           bench->peer_threads, bench->peer_threads == 1 ? "" : "s", oom_pool_note(bench->pool));
    load_peer(bench);
    printf("# kind          m     n      k       GF/s   peer's  ratio\n");
    const struct shape warm = {"warm up", 1024, 1024, 1024, false, false, false};
    for (double end = seconds(CLOCK_MONOTONIC) + 1.5; seconds(CLOCK_MONOTONIC) < end;)
        OOM_TRY(bench_shape(bench, &warm));
    bench->warm = true;
    bench->worst = INFINITY;
    OOM_TRY(bench_models(bench));
    if (bench->shapes > 0)
        printf("# %d shapes, geometric mean %.3f, worst with MNK > 1e6: %.2f (%s)\n", bench->shapes,
               exp(bench->log_sum / bench->shapes), bench->worst, bench->worst_name);
    return OOM_OK;
}

static int usage(const char *what) {
    fprintf(stderr,
            "gemm-bench: %s\nusage: gemm-bench [--threads N] [--isa NAME] [--f64] [--quick]\n",
            what);
    return 2;
}

static bool isa_by_name(const char *name, enum oom_isa *out) {
    for (int i = 0; i < OOM_ISA_COUNT; i++) {
        if (strcmp(name, oom_isa_name((enum oom_isa)i)) != 0) continue;
        *out = (enum oom_isa)i;
        return true;
    }
    return false;
}

int main(int argc, char **argv) {
    struct bench bench = {.dtype = OOM_F32};
    enum oom_isa isa = OOM_ISA_AUTO;
    int threads = 1;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0) {
            bench.quick = true;
        } else if (strcmp(argv[i], "--f64") == 0) {
            bench.dtype = OOM_F64;
        } else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
            char *end;
            threads = (int)strtol(argv[++i], &end, 10);
            if (*end != '\0' || threads < 1) return usage("--threads needs a number from 1");
        } else if (strcmp(argv[i], "--isa") == 0 && i + 1 < argc) {
            if (!isa_by_name(argv[++i], &isa)) return usage("--isa: auto, base, avx2 or avx512");
        } else {
            return usage(argv[i]);
        }
    }
    enum oom_status status = run_bench(&bench, isa, threads);
    oom_pool_destroy(bench.pool);
    if (status == OOM_OK) return 0;
    fprintf(stderr, "gemm-bench: %s\n", oom_failure_last()->message);
    return 4;
}
