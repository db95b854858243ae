/*
 * json-scan.h: reads JSON (RFC 8259) in place, value by value, for files whose shape is known and
 * whose size forbids a tree.
 *
 * A scan borrows the text and owns nothing; copying it keeps a place to come back to. Failure is
 * OOM_USAGE with name and byte. What is skipped is checked as strictly as what is read, but for
 * keys that stand twice: those the caller looks for are the caller's to refuse.
 */
#ifndef OOM_HARNESS_BASE_JSON_SCAN_H
#define OOM_HARNESS_BASE_JSON_SCAN_H

#include "kernels/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct oom_json_scan {
    const char *name, *text;
    size_t at, end;
    int depth;
};

/* The next character that is no space; 0 at the end. */
char oom_json_scan_peek(struct oom_json_scan *scan);
enum oom_status oom_json_scan_refuse(const struct oom_json_scan *scan, const char *text);

/* for (bool more = ...open; more; ...next): `opener` is '{' or '['. *more: a member follows. */
enum oom_status oom_json_scan_open(struct oom_json_scan *scan, char opener, bool *more);
enum oom_status oom_json_scan_next(struct oom_json_scan *scan, char opener, bool *more);

/* At most n - 1 bytes, NUL-terminated; *bytes (may be NULL) is the whole length, so that more was
 * cut. A NUL within the text is refused. */
enum oom_status oom_json_scan_text(struct oom_json_scan *scan, char *out, size_t n, size_t *bytes);
/* A member's name, and the colon. */
enum oom_status oom_json_scan_key(struct oom_json_scan *scan, char *out, size_t n);
/* Whole numbers from 0, also as a text of digits (numbers above 2^53 are written so). */
enum oom_status oom_json_scan_uint(struct oom_json_scan *scan, uint64_t *out);
enum oom_status oom_json_scan_int(struct oom_json_scan *scan, int64_t *out);
enum oom_status oom_json_scan_double(struct oom_json_scan *scan, double *out);
enum oom_status oom_json_scan_bool(struct oom_json_scan *scan, bool *out);
/* [1, 2, 3]: exactly `count` of them. */
enum oom_status oom_json_scan_row(struct oom_json_scan *scan, uint64_t *out, int count);
enum oom_status oom_json_scan_skip(struct oom_json_scan *scan);
/* Nothing but spaces follows. */
enum oom_status oom_json_scan_end(struct oom_json_scan *scan);

#endif
