/*
 * injection.h: failures of allocation put into a run on purpose: the N-th call, every one in turn,
 * or a share of them by chance. What must hold then: no crash, no wrong bit, nothing left behind;
 * a mitigation that retries comes through, one that does not ends cleanly.
 *
 * Calls are counted from the first of the training steps: what is made before them (canaries,
 * parameters) is the test's own. Plain values, nothing is owned.
 */
#ifndef OOM_HARNESS_VERIFY_INJECTION_H
#define OOM_HARNESS_VERIFY_INJECTION_H

#include "harness/base/rng.h"
#include "harness/memory/allocator.h"

/* All zero: nothing is injected. */
struct oom_injection {
    bool every;   /* each call in turn, one run for each: of a case, not of one job */
    uint64_t at;  /* this call of alloc fails, 1 is the first; 0: none */
    double share; /* each call fails with this probability, by the run's seed; 0: none */
};

static inline bool oom_injection_on(const struct oom_injection *injection) {
    return injection->every || injection->at > 0 || injection->share > 0;
}

/* "37", "every", "p=0.01" (above 0, at most 1); anything else is OOM_USAGE. */
enum oom_status oom_injection_parse(const char *text, struct oom_injection *out);

/* One run's: the allocator fails one call after another. */
struct oom_injector {
    struct oom_injection injection;
    struct oom_rng rng;
    uint64_t due; /* number of the call that fails next, as the allocator counts */
};

/* From now on. */
void oom_injector_begin(struct oom_injector *injector, const struct oom_injection *injection,
                        uint64_t seed, struct oom_allocator *allocator);
/* After a failure, and before each step: makes the next one due, where the last one has been. */
void oom_injector_again(struct oom_injector *injector, struct oom_allocator *allocator);
/* No more. */
void oom_injector_end(struct oom_injector *injector, struct oom_allocator *allocator);

#endif
