#include "scenarios/list.h"

#include "harness/cli/scenario.h"

#define X(name, file) extern const struct oom_scenario oom_scenario_##name;
OOM_SCENARIO_MAP(X)
#undef X

const struct oom_scenario *const oom_scenarios[] = {
#define X(name, file) &oom_scenario_##name,
    OOM_SCENARIO_MAP(X)
#undef X
        NULL,
};

/* The lessons, as NUL-terminated texts inside the binary. */
#define X(name, file) \
    __asm__(".section .rodata\n" \
            ".global oom_lesson_" #name "\n" \
            "oom_lesson_" #name ":\n" \
            ".incbin \"" file "\"\n" \
            ".byte 0\n" \
            ".previous\n");
OOM_SCENARIO_MAP(X)
#undef X
