/*
 * report-driver.h: what a format of report is made of; private to this room.
 *
 * report.c owns run and sinks, opens and commits the files, and looks for write errors after each
 * call; a driver only prints to sink->file. state, if a driver takes one in begin, is memory of
 * hostmem that report.c frees.
 */
#ifndef OOM_HARNESS_REPORT_REPORT_DRIVER_H
#define OOM_HARNESS_REPORT_REPORT_DRIVER_H

#include "harness/base/file.h"
#include "harness/report/report.h"

#include <stdio.h>

/* One announced id, and how many TAP points stand for it. */
struct oom_report_entry {
    char id[OOM_ID_MAX];
    bool is_control, done;
    int points;
};

struct oom_report_run {
    const struct oom_run_context *context;
    struct oom_report_entry *entries; /* (entry_count) in the order announced */
    int entry_count;
    struct oom_case_record *records; /* (record_count) in the order of arrival */
    int record_count, record_capacity;
    struct oom_report_totals totals;
};

struct oom_report_sink {
    const struct oom_report_driver *driver;
    FILE *file;
    bool standard_output;
    struct oom_file_writer writer; /* file's owner, but for standard output */
    int points;                    /* TAP: printed so far */
    void *state;
};

struct oom_report_driver {
    enum oom_format format;
    enum oom_status (*begin)(struct oom_report_sink *sink, const struct oom_report_run *run);
    enum oom_status (*record)(struct oom_report_sink *sink, const struct oom_report_run *run,
                              const struct oom_report_entry *entry,
                              const struct oom_case_record *record);
    enum oom_status (*end)(struct oom_report_sink *sink, const struct oom_report_run *run);
};

extern const struct oom_report_driver oom_report_table_driver;
extern const struct oom_report_driver oom_report_tap_driver;
extern const struct oom_report_driver oom_report_junit_driver;
extern const struct oom_report_driver oom_report_json_driver;

/* Bytes of the scenario's name, the id's first part. */
size_t oom_report_scenario_bytes(const char *id);

#endif
