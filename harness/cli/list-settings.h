/*
 * list-settings.h: `oombench list settings`: the allocator's settings in force and where each comes
 * from, since a setting that is silently not the one meant is the commonest mistake with them.
 *
 * Prints to standard output, or to the file of --json; only writing that file can fail.
 */
#ifndef OOM_HARNESS_CLI_LIST_SETTINGS_H
#define OOM_HARNESS_CLI_LIST_SETTINGS_H

#include "harness/cli/run-options.h"

enum oom_status oom_list_settings(const struct oom_run_command *command);

#endif
