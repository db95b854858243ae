#include "harness/base/nearest.h"

#include "kernels/testing.h"

#include <stddef.h>

void nearest_test(void);

void nearest_test(void) {
    static const char *const names[] = {"capacity", "seed", NULL, "quick", "control", "format"};
    TEST("nearest: distances by hand");
    CHECK_EQ(oom_edit_distance("", ""), 0);
    CHECK_EQ(oom_edit_distance("", "abc"), 3);
    CHECK_EQ(oom_edit_distance("kitten", "sitting"), 3);
    CHECK_EQ(oom_edit_distance("seed", "sede"), 1); /* a swap */
    CHECK_EQ(oom_edit_distance("abc", "abc"), 0);
    TEST("nearest: the name meant, or none");
    CHECK_STR(oom_nearest_name("capasity", names, 6), "capacity");
    CHECK_STR(oom_nearest_name("sede", names, 6), "seed");
    CHECK_STR(oom_nearest_name("qiuck", names, 6), "quick");
    CHECK(oom_nearest_name("xyz", names, 6) == NULL);
    CHECK(oom_nearest_name("", names, 6) == NULL);
    CHECK(oom_nearest_name("temperature", names, 6) == NULL);
    CHECK(oom_nearest_name("a", names, 0) == NULL);
}
