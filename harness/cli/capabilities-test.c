#include "harness/cli/capabilities.h"
#include "kernels/testing.h"

#include <string.h>

void capabilities_test(void);

/* The compiler speaks for itself, in macros that the probe did not use. */
static void test_rows_agree_with_the_compiler(const struct oom_capability *rows, size_t count) {
    TEST("capabilities: the rows agree with the compiler that built this test");
    for (size_t i = 0; i < count; i++) {
        if (strcmp(rows[i].name, "compiler") == 0) {
            char version[32];
#if defined(__clang__)
            snprintf(version, sizeof version, "clang %d.%d.", __clang_major__, __clang_minor__);
#else
            snprintf(version, sizeof version, "gcc %d.%d", __GNUC__, __GNUC_MINOR__);
#endif
            CHECK(rows[i].present);
            CHECK_MSG(strncmp(rows[i].detail, version, strlen(version)) == 0, "\"%s\", \"%s\"",
                      rows[i].detail, version);
        }
        if (strcmp(rows[i].name, "avx2") == 0) {
#if defined(__x86_64__)
            CHECK(rows[i].present);
#else
            CHECK(!rows[i].present);
#endif
        }
        if (strcmp(rows[i].name, "cuda-plugin") == 0) CHECK(!rows[i].present);
    }
}

void capabilities_test(void) {
    size_t count = 0;
    const struct oom_capability *rows = oom_capabilities(&count);

    TEST("capabilities: every row has a name of its own and a detail");
    CHECK(count >= 10);
    for (size_t i = 0; i < count; i++) {
        CHECK(rows[i].name[0] != 0 && rows[i].detail[0] != 0);
        for (size_t j = 0; j < i; j++) CHECK(strcmp(rows[i].name, rows[j].name) != 0);
    }

    test_rows_agree_with_the_compiler(rows, count);

    TEST("capabilities: version and commit are said");
    CHECK(strchr(oom_version(), '.') != NULL);
    CHECK(oom_commit()[0] != 0);
}
