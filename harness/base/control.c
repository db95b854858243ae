#include "harness/base/control.h"

#include <string.h>

static const struct {
    const char *name;
    const char *prose;
} controls[OOM_CONTROL_COUNT] = {[OOM_CONTROL_NONE] = {"none", "the product"},
#define X(id, name, prose) [OOM_CONTROL_##id] = {name, prose},
                                 OOM_CONTROL_MAP(X)
#undef X
};

enum oom_control oom_control_in_force;

const char *oom_control_name(enum oom_control control) {
    return controls[control].name;
}

const char *oom_control_prose(enum oom_control control) {
    return controls[control].prose;
}

enum oom_control oom_control_find(const char *name) {
    for (int i = OOM_CONTROL_NONE + 1; i < OOM_CONTROL_COUNT; i++) {
        if (strcmp(controls[i].name, name) == 0) return (enum oom_control)i;
    }
    return OOM_CONTROL_NONE;
}

void oom_control_set(enum oom_control control) {
    oom_control_in_force = control;
}
