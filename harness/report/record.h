/*
 * record.h: a case record as one line of JSON, as a child sends it to its parent, and back.
 *
 * The text is the caller's (oom_host_free). What is written reads back as the same bytes in every
 * field that is UTF-8 (other bytes become '?'). A line that is no record (an unknown key or bit, a
 * text too long for its field, an id of other characters) is OOM_USAGE, and *out is untouched.
 */
#ifndef OOM_HARNESS_REPORT_RECORD_H
#define OOM_HARNESS_REPORT_RECORD_H

#include "harness/verify/verdict.h"

#include <stddef.h>

/* Without the newline. */
enum oom_status oom_record_write(const struct oom_case_record *record, char **out);
enum oom_status oom_record_read(const char *line, size_t bytes, struct oom_case_record *out);

#endif
