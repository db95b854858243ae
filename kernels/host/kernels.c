/*
 * kernels.c: the tables of kernels, the choice of one, and how many threads an op is worth.
 */
#include "kernels/host/kernels.h"

#include <stdbool.h>

#define TABLE(set) \
    static const struct oom_host_kernels table_##set = {.isa = #set, .run = {OOM_OP_MAP(ENTRY)}};

#define ENTRY(id, op) oom_host_##op##_base,
TABLE(base)
#undef ENTRY

#if defined(__x86_64__)
#define ENTRY(id, op) oom_host_##op##_avx2,
TABLE(avx2)
#undef ENTRY
#define ENTRY(id, op) oom_host_##op##_avx512,
TABLE(avx512)
#undef ENTRY

/* clang 14 knows single features, not levels. NULL: all there. */
#define NEED(feature) \
    if (!__builtin_cpu_supports(feature)) return feature

static const char *missing_avx2(void) {
    NEED("avx2");
    NEED("fma");
#if !defined(__clang__) || __clang_major__ > 15
    NEED("f16c");
#endif
    return NULL;
}

static const char *missing_avx512(void) {
    const char *missing = missing_avx2();
    if (missing != NULL) return missing;
    NEED("avx512f");
    NEED("avx512bw");
    NEED("avx512dq");
    NEED("avx512vl");
    return NULL;
}
#endif

static const char *missing_base(void) {
    return NULL;
}

/* best first */
static const struct {
    enum oom_isa isa;
    const struct oom_host_kernels *table;
    const char *(*missing)(void);
} choices[] = {
#if defined(__x86_64__)
    {OOM_ISA_AVX512, &table_avx512, missing_avx512},
    {OOM_ISA_AVX2, &table_avx2, missing_avx2},
#endif
    {OOM_ISA_BASE, &table_base, missing_base},
};

enum oom_status oom_host_kernels_select(enum oom_isa isa, const struct oom_host_kernels **out) {
    if ((unsigned)isa >= OOM_ISA_COUNT)
        return oom_fail(OOM_INVALID, "instruction set %d, allowed 0 to %d", (int)isa,
                        OOM_ISA_COUNT - 1);
#if defined(__x86_64__)
    __builtin_cpu_init();
#endif
    for (size_t i = 0; i < sizeof(choices) / sizeof(choices[0]); i++) {
        if (isa != OOM_ISA_AUTO && isa != choices[i].isa) continue;
        const char *missing = choices[i].missing();
        if (missing == NULL) {
            *out = choices[i].table;
            return OOM_OK;
        }
        if (isa != OOM_ISA_AUTO)
            return oom_fail(OOM_ABSENT, "instruction set %s: this CPU has no %s",
                            choices[i].table->isa, missing);
    }
    return oom_fail(OOM_ABSENT, "instruction set %s: this build has none such", oom_isa_name(isa));
}

struct call {
    oom_host_kernel *kernel;
    const void *args;
};

static void run_call(void *context, const struct oom_host_part *part) {
    const struct call *call = context;
    call->kernel(call->args, part);
}

/* Waking spinning threads costs a tenth of a microsecond, sleeping ones 40 or more. Below this much
 * work (operations or bytes, whichever are more) an op is done before others could help. */
static const double LEAST_WORK = 1e5;

void oom_host_kernels_run(const struct oom_host_kernels *kernels, struct oom_pool *pool,
                          enum oom_op op, const void *args) {
    struct oom_op_cost cost = oom_op_cost(op, args);
    double bytes = cost.bytes_read + cost.bytes_written;
    bool alone = cost.flops < LEAST_WORK && bytes < LEAST_WORK;
    struct call call = {.kernel = kernels->run[op], .args = args};
    oom_pool_run(pool, alone ? 1 : oom_pool_threads(pool), run_call, &call);
}
