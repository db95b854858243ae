/*
 * status.h: what every function of the project returns, and the record of the first failure.
 *
 * Out of memory is an ordinary status here (OOM_NOMEM on the device, OOM_HOST_NOMEM on the host):
 * every caller handles it. The record is per thread; it belongs to this file and is overwritten
 * only after oom_failure_clear(), so the *first* failure of a chain is the one that is reported.
 */
#ifndef OOM_KERNELS_STATUS_H
#define OOM_KERNELS_STATUS_H

#include <stdbool.h>
#include <stdint.h>

/* name, the sentence shown to a user */
#define OOM_STATUS_MAP(X) \
    X(OK, "success") \
    X(NOMEM, "out of device memory") \
    X(HOST_NOMEM, "out of host memory") \
    X(INVALID, "invalid use") \
    X(UNSUPPORTED, "not supported by this device") \
    X(ABSENT, "device not present") \
    X(NOT_READY, "not finished yet") \
    X(IO, "input or output failed") \
    X(USAGE, "wrong usage") \
    X(NOTHING, "nothing selected") \
    X(TIMEOUT, "took too long") \
    X(DEVICE, "the device failed") \
    X(INTERNAL, "internal error")

enum oom_status {
#define X(name, text) OOM_##name,
    OOM_STATUS_MAP(X)
#undef X
};

/* The first failure since the last clear, on this thread. */
struct oom_failure {
    enum oom_status status; /* OOM_OK: nothing failed */
    const char *file;       /* static string */
    int line;
    long native;       /* errno, CUDA code ...; 0: none */
    char message[320]; /* one line: the thing, the value found, what is allowed */
};

/* Both return static strings; an unknown value gives "unknown". */
const char *oom_status_name(enum oom_status status);
const char *oom_status_text(enum oom_status status);

const struct oom_failure *oom_failure_last(void);
void oom_failure_clear(void);

/* Records a failure unless one is recorded already; returns `status`, so `return oom_fail(...)`. */
enum oom_status oom_failure_record(const char *file, int line, enum oom_status status, long native,
                                   const char *format, ...) __attribute__((format(printf, 5, 6)));

#define oom_fail(status, ...) oom_failure_record(__FILE__, __LINE__, (status), 0, __VA_ARGS__)
#define oom_fail_native(status, native, ...) \
    oom_failure_record(__FILE__, __LINE__, (status), (native), __VA_ARGS__)

/* Relays a failure upward. A function that owns something uses `goto out` instead. */
#define OOM_TRY(expr) \
    do { \
        enum oom_status oom_try_status = (expr); \
        if (oom_try_status != OOM_OK) return oom_try_status; \
    } while (0)

#endif
