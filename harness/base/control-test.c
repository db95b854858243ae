#include "harness/base/control.h"

#include "kernels/testing.h"

#include <string.h>

void control_test(void);

static void names(void) {
    TEST("control: names are unique, safe in an id, and found again; each has its line of prose");
    for (int i = OOM_CONTROL_NONE + 1; i < OOM_CONTROL_COUNT; i++) {
        const char *name = oom_control_name((enum oom_control)i);
        CHECK_EQ(oom_control_find(name), i);
        CHECK(name[0] != 0 &&
              strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == strlen(name));
        CHECK(strlen(oom_control_prose((enum oom_control)i)) > 20);
        CHECK(strchr(oom_control_prose((enum oom_control)i), '\n') == NULL);
        for (int k = i + 1; k < OOM_CONTROL_COUNT; k++) {
            CHECK(strcmp(name, oom_control_name((enum oom_control)k)) != 0);
            CHECK(strcmp(oom_control_prose((enum oom_control)i),
                         oom_control_prose((enum oom_control)k)) != 0);
        }
    }
}

static void switches(void) {
    TEST("control: one at a time, and none to begin with");
    for (int i = OOM_CONTROL_NONE + 1; i < OOM_CONTROL_COUNT; i++) {
        CHECK(!oom_control_on((enum oom_control)i));
    }
    for (int i = OOM_CONTROL_NONE + 1; i < OOM_CONTROL_COUNT; i++) {
        oom_control_set((enum oom_control)i);
        for (int k = OOM_CONTROL_NONE + 1; k < OOM_CONTROL_COUNT; k++) {
            CHECK_EQ(oom_control_on((enum oom_control)k), i == k);
        }
    }
    oom_control_set(OOM_CONTROL_NONE);
    CHECK(!oom_control_on(OOM_CONTROL_LOSS_NOT_DIVIDED));
    TEST("control: what is none, unknown, or nearly known is not found");
    CHECK_EQ(oom_control_find("none"), OOM_CONTROL_NONE);
    CHECK_EQ(oom_control_find(""), OOM_CONTROL_NONE);
    CHECK_EQ(oom_control_find("Loss_not_divided"), OOM_CONTROL_NONE);
    CHECK_EQ(oom_control_find("loss_not_divided "), OOM_CONTROL_NONE);
}

void control_test(void) {
    names();
    switches();
}
