/*
 * explain-tables.h: the tables of a lesson on checkpointing, computed on the dry device from the
 * scenario's own job. The text goes into the caller's buffer, a line a row.
 */
#ifndef OOM_HARNESS_CLI_EXPLAIN_TABLES_H
#define OOM_HARNESS_CLI_EXPLAIN_TABLES_H

#include "harness/verify/job.h"

enum { OOM_EXPLAIN_TABLE_MAX = 2048 };

/* Activations at the peak by depth, all saved and with sqrt(n) segments. */
enum oom_status oom_explain_depths(const struct oom_job *job, char out[OOM_EXPLAIN_TABLE_MAX]);
/* What budgets from the least to all that is saved cost. */
enum oom_status oom_explain_budgets(const struct oom_job *job, char out[OOM_EXPLAIN_TABLE_MAX]);

#endif
