/*
 * isa-sets.h: for tests of the host's kernels: the instruction sets that this CPU has, and ops run
 * straight through the table in several parts, one after the other, without device or pool.
 */
#ifndef OOM_KERNELS_HOST_ISA_SETS_H
#define OOM_KERNELS_HOST_ISA_SETS_H

#include "kernels/host/kernels.h"
#include "kernels/hostmem.h"

/* Fills out with the tables that can run here, base first; returns how many. */
static inline int oom_test_isa_sets(const struct oom_host_kernels *out[OOM_ISA_COUNT]) {
    int n = 0;
    for (int isa = OOM_ISA_BASE; isa < OOM_ISA_COUNT; isa++) {
        if (oom_host_kernels_select((enum oom_isa)isa, &out[n]) == OOM_OK)
            n++;
        else
            oom_failure_clear();
    }
    return n;
}

/* scratch holds OOM_HOST_SCRATCH_BYTES */
static inline void oom_test_run_parts(const struct oom_host_kernels *kernels, enum oom_op op,
                                      const void *args, int parts, void *scratch) {
    for (int i = 0; i < parts; i++) {
        struct oom_host_part part = {i, parts, scratch, OOM_HOST_SCRATCH_BYTES};
        kernels->run[op](args, &part);
    }
}

/* 2^-1 .. 1 with either sign, the same on every machine */
static inline double oom_test_random(uint64_t *state) {
    *state = *state * 6364136223846793005U + 1442695040888963407U;
    double value = 0.5 + (double)(*state >> 40) * 0x1p-25;
    return (*state >> 20 & 1) != 0 ? value : -value;
}

#endif
