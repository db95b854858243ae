#include "kernels/testing.h"

#include "kernels/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static struct {
    char name[200];
    char skip[200];
    int points, failed, checks, failures;
    bool open;
} test;

static void close_point(void) {
    if (!test.open) return;
    test.open = false;
    test.points++;
    bool skipped = test.skip[0] != 0;
    bool pass = skipped || (test.checks > 0 && test.failures == 0);
    if (!pass) test.failed++;
    printf("%s %d - %s%s%s\n", pass ? "ok" : "not ok", test.points, test.name,
           skipped ? " # SKIP " : "", test.skip);
    if (!skipped && test.checks == 0) printf("# this point made no check\n");
    fflush(stdout);
}

void oom_test_begin(const char *format, ...) {
    if (test.points == 0 && !test.open) printf("TAP version 13\n");
    close_point();
    test.open = true;
    test.checks = test.failures = 0;
    test.skip[0] = 0;
    va_list args;
    va_start(args, format);
    vsnprintf(test.name, sizeof test.name, format, args);
    va_end(args);
    oom_failure_clear();
}

void oom_test_skip(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(test.skip, sizeof test.skip, format, args);
    va_end(args);
}

bool oom_test_check(bool pass, const char *file, int line, const char *format, ...) {
    test.checks++;
    if (pass) return true;
    if (test.failures++ >= 10) return false; /* ten lines say enough */
    char text[600];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    printf("# %s:%d: %s\n", file, line, text);
    return false;
}

bool oom_test_same(const char *a, const char *b) {
    return a != NULL && b != NULL && strcmp(a, b) == 0;
}

bool oom_test_status_ok(int status, const char *file, int line, const char *text) {
    return oom_test_check(status == OOM_OK, file, line, "%s: %s (%s)", text,
                          oom_status_name((enum oom_status)status), oom_failure_last()->message);
}

int oom_test_finish(void) {
    close_point();
    printf("1..%d\n", test.points);
    return test.failed == 0 && test.points > 0 ? 0 : 1;
}
