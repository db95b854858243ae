/*
 * testing.h: what a test file needs. A file `gemm-test.c` defines `void gemm_test(void)`; the
 * build finds it and calls it from the room's test program, which speaks TAP version 13.
 *
 *   void gemm_test(void) {
 *       TEST("gemm: a 1x1 product");      starts a test point; the previous one is closed
 *       CHECK(x == 1);                    any number of checks; values are printed by CHECK_EQ
 *   }
 *
 * A point without a check is `not ok`. A skip is `ok N - name # SKIP why`.
 */
#ifndef OOM_KERNELS_TESTING_H
#define OOM_KERNELS_TESTING_H

#include <stdbool.h>
#include <stdint.h>

void oom_test_begin(const char *format, ...) __attribute__((format(printf, 1, 2)));
void oom_test_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool oom_test_check(bool pass, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
int oom_test_finish(void); /* prints the plan; 0 when every point passed */

#define TEST(...) oom_test_begin(__VA_ARGS__)
#define SKIP(...) oom_test_skip(__VA_ARGS__)
#define CHECK(condition) oom_test_check((condition), __FILE__, __LINE__, "%s", #condition)
#define CHECK_MSG(condition, ...) oom_test_check((condition), __FILE__, __LINE__, __VA_ARGS__)
#define CHECK_EQ(a, b) \
    do { \
        int64_t check_a = (int64_t)(a), check_b = (int64_t)(b); \
        oom_test_check(check_a == check_b, __FILE__, __LINE__, "%s == %s: %lld, %lld", #a, #b, \
                       (long long)check_a, (long long)check_b); \
    } while (0)
#define CHECK_STR(a, b) \
    do { \
        const char *check_a = (a), *check_b = (b); \
        oom_test_check(oom_test_same(check_a, check_b), __FILE__, __LINE__, \
                       "%s == %s: \"%s\", \"%s\"", #a, #b, check_a, check_b); \
    } while (0)
#define CHECK_OK(expr) \
    do { \
        oom_test_status_ok((int)(expr), __FILE__, __LINE__, #expr); \
    } while (0)

bool oom_test_same(const char *a, const char *b);
bool oom_test_status_ok(int status, const char *file, int line, const char *text);

#endif
