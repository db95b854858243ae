/*
 * sizes.h: numbers, sizes and times as people write them, read strictly, and sizes written back.
 *
 * Nothing is allocated or kept. A text that is not wholly and exactly the thing asked for is
 * OOM_USAGE; the failure names `what` ("--capacity"), the text and what is allowed; *out is then
 * untouched.
 */
#ifndef OOM_HARNESS_BASE_SIZES_H
#define OOM_HARNESS_BASE_SIZES_H

#include "kernels/status.h"

#include <stddef.h>
#include <stdint.h>

/* "64MiB", "192M", "1.5GiB", "1GB", "4096": K M G T (also k m g t) and KiB MiB GiB TiB are powers
 * of 1024, kB KB MB GB TB powers of 1000, B or nothing is bytes. Fractions of a unit are cut to
 * whole bytes; a fraction of plain bytes is refused. */
enum oom_status oom_size_parse(const char *what, const char *text, uint64_t *out);

/* "1.50 GiB", "512 B": two decimals, IEC units. Returns out. 16 bytes are enough. */
char *oom_size_format(uint64_t bytes, char *out, size_t n);

/* Decimal only; min and max are allowed values. */
enum oom_status oom_int64_parse(const char *what, const char *text, int64_t min, int64_t max,
                                int64_t *out);
/* Decimal, or hexadecimal after 0x (seeds). */
enum oom_status oom_uint64_parse(const char *what, const char *text, uint64_t min, uint64_t max,
                                 uint64_t *out);
/* Finite; decimal with an optional exponent. The locale has no say. */
enum oom_status oom_double_parse(const char *what, const char *text, double min, double max,
                                 double *out);
/* `names` ends with NULL; *out is the index. */
enum oom_status oom_choice_parse(const char *what, const char *text, const char *const *names,
                                 int *out);
/* "250ms", "1.5s", "10m", "2h", "30" (seconds). *out: seconds. */
enum oom_status oom_duration_parse(const char *what, const char *text, double *out);

/* strtod in the C locale, whatever the process's is; for text whose grammar was checked. */
double oom_double_scan(const char *text, char **end);

#endif
