/*
 * sample-records.h: a run with one record of every sort, for the tests of the reports.
 */
#ifndef OOM_HARNESS_REPORT_SAMPLE_RECORDS_H
#define OOM_HARNESS_REPORT_SAMPLE_RECORDS_H

#include "harness/report/report.h"

#include "harness/base/file.h"
#include "harness/base/process.h"
#include "kernels/hostmem.h"
#include "kernels/testing.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OOM_SAMPLE_COUNT = 11 };

/* What a reason may hold that a format could take for its own. */
#define OOM_SAMPLE_NASTY \
    "it's # SKIP \\ \"quoted\" <b> & ]]> # TODO\nok 99 - injected\n  ...\n\t\x01\x1b[31m\xff"

static inline void oom_sample_set(struct oom_case_record *record, const char *id, const char *bits,
                                  const char *why) {
    *record = (struct oom_case_record){.seconds = 1.25};
    snprintf(record->id, sizeof record->id, "%s", id);
    for (int i = 0; i < OOM_BIT_COUNT; i++) {
        enum oom_answer answer = bits[i] == 't'   ? OOM_TRUE
                                 : bits[i] == 'f' ? OOM_FALSE
                                                  : OOM_NOT_REACHED;
        if (answer != OOM_NOT_REACHED) oom_record_bit(record, (enum oom_bit)i, answer, "%s", why);
    }
    oom_record_number(record, "oom_bytes", 25165824, "bytes");
    oom_record_number(record, "peak_bytes", 196503142, "bytes");
    oom_record_number(record, "capacity_bytes", 201326592, "bytes");
    oom_record_number(record, "batch_without", 64, "samples");
    oom_record_number(record, "batch", 8, "samples");
    oom_record_number(record, "name", 1, ""); /* a key of Google's */
    oom_record_text(record, "class", "bitwise");
}

/* Passed, failed, a control caught, one not caught, not reached, skipped, error, timeout; unequal
 * as it must be, and equal although it must not. */
static inline void oom_sample_fill(struct oom_case_record records[OOM_SAMPLE_COUNT]) {
    const uint32_t grad = 1u << OOM_BIT_GRAD_MATCH;
    oom_sample_set(&records[0], "large_batch/halving/gpt/f32", "ttttt", "as it must be");
    oom_sample_set(&records[1], "large_batch/accumulation/gpt/f32/uneven", "ttftt",
                   OOM_SAMPLE_NASTY);
    oom_sample_set(&records[2], "large_batch/halving/control/retry_without_clearing", "ttftt", "x");
    oom_sample_set(&records[3], "large_batch/halving/control/sized_from_total", "tfftt", "x");
    records[2].is_control = records[3].is_control = true;
    records[2].expected_false = records[3].expected_false = grad;
    oom_sample_set(&records[4], "precision/amp_fp16/mlp/f16", "t----", "an OOM of 24.0 MiB");
    oom_sample_set(&records[5], "precision/amp_bf16/mlp/bf16", "-----", "");
    records[5].outcome = OOM_OUTCOME_SKIP;
    snprintf(records[5].reason, sizeof records[5].reason, "absent: # TODO %s", OOM_SAMPLE_NASTY);
    oom_sample_set(&records[6], "data_parallel/ranks", "ttttt", "before the crash");
    records[6].outcome = OOM_OUTCOME_ERROR;
    snprintf(records[6].reason, sizeof records[6].reason, "killed by SIGSEGV");
    oom_sample_set(&records[7], "data_parallel/zero1/mlp/f32", "-----", "");
    records[7].outcome = OOM_OUTCOME_TIMEOUT;
    oom_sample_set(&records[8], "data_parallel/ranks/control/summed_not_averaged", "ttftt", "x");
    records[8].is_control = true;
    records[8].expected_false = grad;
    records[8].seconds = 0;
    oom_sample_set(&records[9], "data_parallel/ranks/cnn/f32/batch_norm", "ttftt",
                   "not equal, as it must be: 0.2 # of ||g||");
    oom_sample_set(&records[10], "data_parallel/ranks/cnn/f32/equal", "ttttt",
                   "equal, though it must not be");
    records[9].expected_false = records[10].expected_false = grad;
    for (int i = 0; i < OOM_SAMPLE_COUNT; i++) oom_record_decide(&records[i]);
}

/* The announcement: the ids, and [6] known beforehand to be unable to run. */
static inline void oom_sample_announce(const struct oom_case_record records[OOM_SAMPLE_COUNT],
                                       struct oom_case_record announced[OOM_SAMPLE_COUNT]) {
    for (int i = 0; i < OOM_SAMPLE_COUNT; i++) {
        announced[i] = (struct oom_case_record){.is_control = records[i].is_control};
        memcpy(announced[i].id, records[i].id, sizeof announced[i].id);
        if (i == 6) announced[i].outcome = OOM_OUTCOME_ERROR;
    }
}

static inline struct oom_run_context oom_sample_context(void) {
    static char program[] = "oombench", verb[] = "run", *argv[] = {program, verb, NULL};
    return (struct oom_run_context){
        .version = "0.1.0",
        .git = "abc1234-dirty",
        .started = "2026-01-02T03:04:05Z",
        .argc = 2,
        .argv = argv,
        .device = "host",
        .isa = "avx512",
        .schedule = "eager",
        .capacity_from = "option",
        .cpu_model = "a CPU",
        .capacity = 201326592,
        .seed = UINT64_MAX,
        .threads = 2,
        .cpus = 2,
        .capabilities = "cuda=no\ncompiler=gcc 12 \"x\"\ncuda=yes\nbroken line\n=x",
    };
}

/* The sample run from `first` on, `count` records, reported as `paths` says. */
static inline enum oom_status oom_sample_report(const struct oom_report_paths *paths, int first,
                                                int count) {
    struct oom_case_record records[OOM_SAMPLE_COUNT], announced[OOM_SAMPLE_COUNT];
    struct oom_run_context context = oom_sample_context();
    struct oom_reporter *reporter;
    enum oom_status status = OOM_OK;
    oom_sample_fill(records);
    oom_sample_announce(records, announced);
    OOM_TRY(oom_reporter_open(paths, &context, announced + first, count, &reporter));
    for (int i = first; i < first + count && status == OOM_OK; i++) {
        printf("ok 98 - a line of a library\n");
        fflush(stdout);
        status = oom_reporter_case(reporter, &records[i]);
    }
    enum oom_status closed = oom_reporter_close(reporter);
    return status != OOM_OK ? status : closed;
}

/* The same with standard output in a file, which is read back; NULL on failure. Standard error,
 * where progress and noise go, is silenced. */
static inline char *oom_sample_capture(const struct oom_report_paths *paths, int first, int count) {
    char path[PATH_MAX], directory[PATH_MAX - 8], *text = NULL;
    size_t bytes;
    if (oom_directory_temporary(directory, sizeof directory) != OOM_OK) return NULL;
    snprintf(path, sizeof path, "%s/out", directory);
    fflush(stdout);
    int own[2] = {dup(1), dup(2)};
    int out = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600), null = open("/dev/null", O_WRONLY);
    dup2(out, 1);
    dup2(null, 2);
    enum oom_status status = oom_sample_report(paths, first, count);
    fflush(stdout);
    for (int i = 0; i < 2; i++) {
        dup2(own[i], i + 1);
        close(own[i]);
    }
    close(out);
    close(null);
    if (status == OOM_OK) status = oom_file_read(path, 1 << 20, &text, &bytes);
    oom_directory_remove(directory);
    CHECK_MSG(status == OOM_OK, "%s", oom_failure_last()->message);
    return text;
}

#endif
