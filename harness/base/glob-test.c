#include "harness/base/glob.h"

#include "harness/base/rng.h"
#include "kernels/testing.h"

#include <fnmatch.h>
#include <string.h>

void glob_test(void);

/* The same by fnmatch on every leading part that ends before a '/'. */
static bool by_fnmatch(const char *pattern, const char *id) {
    char part[64];
    for (size_t n = 0; n <= strlen(id); n++) {
        if (id[n] != '/' && id[n] != 0) continue;
        memcpy(part, id, n);
        part[n] = 0;
        if (fnmatch(pattern, part, FNM_NOESCAPE) == 0) return true;
    }
    return false;
}

void glob_test(void) {
    static const char id[] = "large_batch/halving/gpt/f32/x09";
    TEST("glob: leading parts");
    CHECK(oom_glob_match("large_batch", id));
    CHECK(oom_glob_match("large_batch/halving", id));
    CHECK(oom_glob_match("large_batch/halving/gpt/f32/x09", id));
    CHECK(!oom_glob_match("large", id));
    CHECK(!oom_glob_match("large_batch/", id));
    CHECK(!oom_glob_match("halving", id));
    CHECK(!oom_glob_match("", id));
    CHECK(oom_glob_match("", ""));
    TEST("glob: stars, sets");
    CHECK(oom_glob_match("*", id));
    CHECK(oom_glob_match("large*", id));
    CHECK(oom_glob_match("*/halving", id));
    CHECK(oom_glob_match("*/gpt/f[13]?", id));
    CHECK(!oom_glob_match("*/gpt/f[!13]?", id));
    CHECK(oom_glob_match("*/x0[0-9]", id));
    CHECK(!oom_glob_match("*/x0[0-8]", id));
    CHECK(oom_glob_match("[]a]", "]"));
    CHECK(oom_glob_match("[", "["));
    CHECK(!oom_glob_match("[a", "a"));
    TEST("glob: no pattern takes for ever");
    char as[200];
    memset(as, 'a', sizeof as - 1);
    as[sizeof as - 1] = 0;
    CHECK(!oom_glob_match("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b", as));
    TEST("glob: as fnmatch on every leading part, 50000 drawn pairs");
    struct oom_rng rng = {1};
    int differ = 0;
    for (int i = 0; i < 50000; i++) {
        char pattern[10] = "", text[10] = "";
        for (uint32_t k = 0, n = oom_rng_below(&rng, 8); k < n; k++)
            pattern[k] = "ab/*?ab/"[oom_rng_below(&rng, 8)];
        for (uint32_t k = 0, n = oom_rng_below(&rng, 8); k < n; k++)
            text[k] = "ab/ab"[oom_rng_below(&rng, 5)];
        differ += oom_glob_match(pattern, text) != by_fnmatch(pattern, text);
    }
    CHECK_EQ(differ, 0);
}
