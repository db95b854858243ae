#include "harness/verify/injection.h"

#include "harness/base/sizes.h"

#include <math.h>
#include <string.h>

enum oom_status oom_injection_parse(const char *text, struct oom_injection *out) {
    struct oom_injection injection = {0};
    if (strcmp(text, "every") == 0) {
        injection.every = true;
    } else if (strncmp(text, "p=", 2) == 0) {
        OOM_TRY(oom_double_parse("--inject-oom p", text + 2, 0, 1, &injection.share));
        if (!(injection.share > 0)) {
            return oom_fail(OOM_USAGE, "--inject-oom: '%.40s' fails nothing; p is above 0", text);
        }
    } else if (text[0] >= '0' && text[0] <= '9') {
        OOM_TRY(oom_uint64_parse("--inject-oom", text, 1, UINT64_MAX, &injection.at));
    } else {
        return oom_fail(
            OOM_USAGE, "--inject-oom: '%.40s'; allowed are the number of a call, every, p=X", text);
    }
    *out = injection;
    return OOM_OK;
}

static uint64_t calls(const struct oom_allocator *allocator) {
    return oom_allocator_stats(allocator)->allocations;
}

/* How many calls from now the next failure is, the way there drawn call by call. */
static uint64_t gap(struct oom_injector *injector) {
    static const double never = 1e15;
    double u = 1 - oom_rng_uniform(&injector->rng); /* in (0, 1] */
    if (injector->injection.share >= 1) return 1;
    double calls_before = floor(log(u) / log1p(-injector->injection.share));
    return 1 + (uint64_t)(calls_before < never ? calls_before : never);
}

static void fail_after(struct oom_injector *injector, uint64_t n, struct oom_allocator *allocator) {
    injector->due = calls(allocator) + n;
    oom_allocator_fail_call_at(allocator, n);
}

void oom_injector_begin(struct oom_injector *injector, const struct oom_injection *injection,
                        uint64_t seed, struct oom_allocator *allocator) {
    *injector = (struct oom_injector){
        .injection = *injection, .rng = {oom_seed_derive(seed, "injection")}, .due = UINT64_MAX};
    if (injection->at > 0) fail_after(injector, injection->at, allocator);
    if (injection->share > 0) fail_after(injector, gap(injector), allocator);
}

void oom_injector_again(struct oom_injector *injector, struct oom_allocator *allocator) {
    if (!(injector->injection.share > 0) || calls(allocator) < injector->due) return;
    fail_after(injector, gap(injector), allocator);
}

void oom_injector_end(struct oom_injector *injector, struct oom_allocator *allocator) {
    injector->injection = (struct oom_injection){0};
    oom_allocator_fail_call_at(allocator, 0);
}
