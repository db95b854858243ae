/* Spoilt input: its bounds, its seeds, what it is made of. The driver is tested by ci/tests. */
#include "harness/base/fuzz.h"

#include "harness/base/file.h"
#include "kernels/hostmem.h"
#include "kernels/testing.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

void fuzz_test(void);

static struct oom_fuzz_seed two[] = {{"a", (char[]){"alpha:1,beta:22"}, 15},
                                     {"b", (char[]){"[gamma]"}, 7}};
static const struct oom_fuzz_corpus corpus = {two, 2};

static void test_mutants(void) {
    enum { RUNS = 20000, MAX = 40, GUARD = 16 };
    uint8_t out[MAX + GUARD], again[MAX];
    struct oom_rng rng = {7}, same = {7};
    int equal = 0, empty = 0, full = 0, changed = 0, foreign = 0, numbers = 0;
    TEST("fuzz: mutants stay within their room, and the same seed makes the same ones");
    memset(out + MAX, 0xa5, GUARD);
    for (int i = 0; i < RUNS; i++) {
        size_t n = oom_fuzz_mutate(&corpus, &rng, out, MAX);
        size_t m = oom_fuzz_mutate(&corpus, &same, again, MAX);
        equal += n == m && n <= MAX && memcmp(out, again, n) == 0;
        empty += n == 0;
        full += n == MAX;
        changed += !(n == 15 && memcmp(out, two[0].bytes, n) == 0) &&
                   !(n == 7 && memcmp(out, two[1].bytes, n) == 0);
        foreign += n > 10 && memmem(out, n, "alpha", 5) && memmem(out, n, "gamma", 5);
        numbers += memmem(out, n, "9223372036854775808", 19) != NULL;
    }
    CHECK_EQ(equal, RUNS);
    for (int i = 0; i < GUARD; i++) CHECK_EQ(out[MAX + i], 0xa5);

    TEST("fuzz: they are cut, lengthened, crossed with others, and hold numbers at the edges");
    CHECK(empty > 100 && full > 100);
    CHECK(changed > RUNS * 9 / 10);
    CHECK(foreign > 100);
    CHECK(numbers > 50);

    TEST("fuzz: no room at all, and an empty seed");
    struct oom_fuzz_seed nothing = {"c", (char[]){""}, 0};
    const struct oom_fuzz_corpus bare = {&nothing, 1};
    for (int i = 0; i < 1000; i++) {
        CHECK_EQ(oom_fuzz_mutate(&corpus, &rng, out, 0), 0);
        CHECK(oom_fuzz_mutate(&bare, &rng, out, MAX) <= MAX);
    }
}

static void test_corpus(void) {
    char folder[PATH_MAX], path[PATH_MAX + 16];
    struct oom_fuzz_corpus read;
    TEST("fuzz: a corpus is the files of a folder, by name; without any it is refused");
    CHECK_OK(oom_directory_temporary(folder, sizeof folder));
    CHECK(oom_fuzz_corpus_read(folder, &read) == OOM_USAGE);
    oom_failure_clear();
    uint64_t before = oom_host_bytes_current();
    for (int i = 2; i >= 0; i--) {
        snprintf(path, sizeof path, "%s/%c", folder, "xya"[i]);
        CHECK_OK(oom_file_write(path, "\0text", (size_t)i));
    }
    CHECK_OK(oom_fuzz_corpus_read(folder, &read));
    CHECK_EQ(read.count, 3);
    CHECK(read.count == 3 && strcmp(read.seeds[0].name, "a") == 0 && read.seeds[0].n == 2 &&
          strcmp(read.seeds[2].name, "y") == 0 && read.seeds[2].n == 1);
    oom_fuzz_corpus_free(&read);
    CHECK_EQ(oom_host_bytes_current(), before);
    for (uint64_t k = 1; k <= 3; k++) {
        oom_host_fail_at(k);
        CHECK(oom_fuzz_corpus_read(folder, &read) == OOM_HOST_NOMEM);
        oom_failure_clear();
        oom_host_fail_at(0);
        CHECK_EQ(oom_host_bytes_current(), before);
    }
    CHECK_OK(oom_directory_remove(folder));
    CHECK(oom_fuzz_corpus_read(folder, &read) == OOM_IO);
    oom_failure_clear();
}

void fuzz_test(void) {
    test_mutants();
    test_corpus();
}
