/*
 * report-text.h: text that grows in a buffer of any size, as snprintf counts it, and the part of
 * the OOM report that gives advice. Only the files of the report include it.
 */
#ifndef OOM_HARNESS_MEMORY_REPORT_TEXT_H
#define OOM_HARNESS_MEMORY_REPORT_TEXT_H

#include "harness/memory/allocator.h"

#include <stdarg.h>

struct oom_text {
    char *out; /* may be NULL where n is 0 */
    size_t n;
    int length; /* of the whole text */
};

void oom_text_say(struct oom_text *text, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void oom_text_size(struct oom_text *text, const char *before, uint64_t bytes, const char *after);

/* A new line "Advice: ...", where there is any. */
void oom_report_advise(struct oom_text *text, const struct oom_report *report);

#endif
