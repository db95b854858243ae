#include "kernels/status.h"

#include <stdarg.h>
#include <stdio.h>

static const struct {
    const char *name;
    const char *text;
} statuses[] = {
#define X(name, text) {#name, text},
    OOM_STATUS_MAP(X)
#undef X
};

static _Thread_local struct oom_failure last_failure;

static bool status_known(enum oom_status status) {
    return (unsigned)status < sizeof statuses / sizeof statuses[0];
}

const char *oom_status_name(enum oom_status status) {
    return status_known(status) ? statuses[status].name : "unknown";
}

const char *oom_status_text(enum oom_status status) {
    return status_known(status) ? statuses[status].text : "unknown";
}

const struct oom_failure *oom_failure_last(void) {
    return &last_failure;
}

void oom_failure_clear(void) {
    last_failure = (struct oom_failure){0};
}

enum oom_status oom_failure_record(const char *file, int line, enum oom_status status, long native,
                                   const char *format, ...) {
    if (last_failure.status != OOM_OK) return status;
    last_failure.status = status;
    last_failure.file = file;
    last_failure.line = line;
    last_failure.native = native;
    va_list args;
    va_start(args, format);
    vsnprintf(last_failure.message, sizeof last_failure.message, format, args);
    va_end(args);
    return status;
}
