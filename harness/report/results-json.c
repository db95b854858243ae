/*
 * Results as JSON: `context` and `benchmarks` as Google Benchmark writes them, so that its
 * compare.py reads the file, and our own object `oombench`, whose schema is
 * results/schema/oombench-result-1.json. Only what passed is in `benchmarks`. Of the environment
 * only variables on the list below are recorded: it holds people's secrets.
 */
#include "harness/report/report-driver.h"

#include "harness/base/file.h"
#include "harness/base/json-write.h"
#include "kernels/hostmem.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const environment_names[] = {
    "CUDA_VISIBLE_DEVICES",    "CUDA_LAUNCH_BLOCKING", "CUDA_MODULE_LOADING",
    "NVIDIA_TF32_OVERRIDE",    "OMP_NUM_THREADS",      "OPENBLAS_NUM_THREADS",
    "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF",   NULL,
};
static const char *const environment_prefixes[] = {"NCCL_", "OOMBENCH_", NULL};

/* Keys of benchmarks[] that no figure may take. */
static const char *const reserved_keys[] = {
    "name",
    "run_name",
    "run_type",
    "family_index",
    "per_family_instance_index",
    "repetitions",
    "repetition_index",
    "threads",
    "iterations",
    "real_time",
    "cpu_time",
    "time_unit",
    "error_occurred",
    "error_message",
    "label",
    "aggregate_name",
    "big_o",
    "rms",
    "cpu_coefficient",
    "real_coefficient",
    NULL,
};

static bool name_is_in(const char *const *names, const char *name) {
    for (; *names != NULL; names++) {
        if (strcmp(*names, name) == 0) return true;
    }
    return false;
}

static void put_text_or_empty(struct oom_json_writer *json, const char *key, const char *text) {
    oom_json_put_string(json, key, text != NULL ? text : "");
}

/* ---- Google Benchmark's part ---- */

static void put_context(struct oom_json_writer *json, const struct oom_run_context *context) {
    oom_json_key(json, "context");
    oom_json_object_begin(json);
    put_text_or_empty(json, "date", context->started);
    oom_json_put_string(json, "executable", "oombench");
    oom_json_put_int64(json, "num_cpus", context->cpus);
    oom_json_key(json, "caches");
    oom_json_array_begin(json);
    oom_json_array_end(json);
    oom_json_put_string(json, "library_build_type", "release");
    oom_json_put_int64(json, "json_schema_version", 1);
    oom_json_object_end(json);
}

/* Milliseconds, never 0: one entry without a time takes the whole geometric mean from compare.py.
 */
static double milliseconds(double seconds) {
    return isfinite(seconds) && seconds > 1e-9 ? seconds * 1e3 : 1e-6;
}

static void put_benchmark(struct oom_json_writer *json, const struct oom_case_record *record,
                          const struct oom_run_context *context, int index) {
    const struct oom_figure *cpu = oom_record_figure(record, "cpu_seconds");
    oom_json_object_begin(json);
    oom_json_put_string(json, "name", record->id);
    oom_json_put_int64(json, "family_index", index);
    oom_json_put_int64(json, "per_family_instance_index", 0);
    oom_json_put_string(json, "run_name", record->id);
    oom_json_put_string(json, "run_type", "iteration");
    oom_json_put_int64(json, "repetitions", 1);
    oom_json_put_int64(json, "repetition_index", 0);
    oom_json_put_int64(json, "threads", context->threads > 0 ? context->threads : 1);
    oom_json_put_int64(json, "iterations", 1);
    oom_json_put_double(json, "real_time", milliseconds(record->seconds));
    oom_json_put_double(json, "cpu_time", milliseconds(cpu != NULL ? cpu->value : record->seconds));
    oom_json_put_string(json, "time_unit", "ms");
    for (int i = 0; i < record->figure_count; i++) {
        const struct oom_figure *figure = &record->figures[i];
        bool fits = figure->text[0] == 0 && isfinite(figure->value);
        if (fits && !name_is_in(reserved_keys, figure->name))
            oom_json_put_double(json, figure->name, figure->value);
    }
    oom_json_object_end(json);
}

static void put_benchmarks(struct oom_json_writer *json, const struct oom_report_run *run) {
    int index = 0;
    oom_json_key(json, "benchmarks");
    oom_json_array_begin(json);
    for (int i = 0; i < run->record_count; i++) {
        const struct oom_case_record *record = &run->records[i];
        if (record->outcome == OOM_OUTCOME_PASS && !record->is_control)
            put_benchmark(json, record, run->context, index++);
    }
    oom_json_array_end(json);
}

/* ---- our part ---- */

static void put_argv(struct oom_json_writer *json, const struct oom_run_context *context) {
    oom_json_key(json, "argv");
    oom_json_array_begin(json);
    for (int i = 0; i < context->argc; i++) oom_json_string(json, context->argv[i]);
    oom_json_array_end(json);
}

/* Lines "name=value"; a later line of the same name is left out, as keys are unique. */
static bool line_repeats(const char *all, const char *line, size_t name_bytes) {
    for (const char *at = all; at < line; at += strcspn(at, "\n") + 1) {
        if (strncmp(at, line, name_bytes) == 0 && at[name_bytes] == '=') return true;
    }
    return false;
}

static void put_capabilities(struct oom_json_writer *json, const char *lines) {
    oom_json_key(json, "capabilities");
    oom_json_object_begin(json);
    for (const char *at = lines; at != NULL && *at != 0;) {
        size_t bytes = strcspn(at, "\n"), name_bytes = strcspn(at, "=\n");
        char name[64];
        bool good = at[name_bytes] == '=' && name_bytes > 0 && name_bytes < sizeof name;
        if (good && !line_repeats(lines, at, name_bytes)) {
            memcpy(name, at, name_bytes);
            name[name_bytes] = 0;
            oom_json_key(json, name);
            oom_json_string_n(json, at + name_bytes + 1, bytes - name_bytes - 1);
        }
        at += bytes + (at[bytes] == '\n');
    }
    oom_json_object_end(json);
}

static void put_device(struct oom_json_writer *json, const struct oom_run_context *context) {
    oom_json_key(json, "device");
    oom_json_object_begin(json);
    put_text_or_empty(json, "name", context->device);
    put_text_or_empty(json, "isa", context->isa);
    put_text_or_empty(json, "schedule", context->schedule);
    put_text_or_empty(json, "cpu_model", context->cpu_model);
    oom_json_put_int64(json, "threads", context->threads);
    oom_json_object_end(json);
}

static bool variable_is_allowed(const char *name) {
    if (name_is_in(environment_names, name)) return true;
    for (const char *const *prefix = environment_prefixes; *prefix != NULL; prefix++) {
        if (strncmp(name, *prefix, strlen(*prefix)) == 0) return true;
    }
    return false;
}

static void put_environment(struct oom_json_writer *json) {
    oom_json_key(json, "environment");
    oom_json_object_begin(json);
    for (char **entry = environ; entry != NULL && *entry != NULL; entry++) {
        size_t bytes = strcspn(*entry, "=");
        char name[64];
        if (bytes >= sizeof name || (*entry)[bytes] != '=') continue;
        memcpy(name, *entry, bytes);
        name[bytes] = 0;
        /* getenv gives the first of a name; a second one in environ would repeat a key. */
        if (variable_is_allowed(name) && getenv(name) == *entry + bytes + 1)
            oom_json_put_string(json, name, *entry + bytes + 1);
    }
    oom_json_object_end(json);
}

static void put_bits(struct oom_json_writer *json, const struct oom_case_record *record) {
    oom_json_key(json, "bits");
    oom_json_object_begin(json);
    for (int i = 0; i < OOM_BIT_COUNT; i++) {
        oom_json_key(json, oom_bit_name((enum oom_bit)i));
        if (record->bits[i] == OOM_TRUE || record->bits[i] == OOM_FALSE) {
            oom_json_bool(json, record->bits[i] == OOM_TRUE);
        } else {
            oom_json_null(json);
        }
    }
    oom_json_object_end(json);
    oom_json_key(json, "why");
    oom_json_object_begin(json);
    for (int i = 0; i < OOM_BIT_COUNT; i++)
        oom_json_put_string(json, oom_bit_name((enum oom_bit)i), record->why[i]);
    oom_json_object_end(json);
}

static void put_kind(struct oom_json_writer *json, const struct oom_case_record *record) {
    oom_json_put_string(json, "kind", record->is_control ? "control" : "case");
    if (!record->is_control && record->expected_false == 0) return;
    oom_json_key(json, record->is_control ? "must_turn" : "unequal");
    oom_json_array_begin(json);
    for (int i = 0; i < OOM_BIT_COUNT; i++) {
        if (record->expected_false >> i & 1) oom_json_string(json, oom_bit_name((enum oom_bit)i));
    }
    oom_json_array_end(json);
}

static void put_figures(struct oom_json_writer *json, const struct oom_case_record *record) {
    oom_json_key(json, "figures");
    oom_json_object_begin(json);
    for (int i = 0; i < record->figure_count; i++) {
        const struct oom_figure *figure = &record->figures[i];
        oom_json_key(json, figure->name);
        oom_json_object_begin(json);
        if (figure->text[0] != 0) {
            oom_json_put_string(json, "text", figure->text);
        } else {
            oom_json_put_double(json, "value", figure->value);
            oom_json_put_string(json, "unit", figure->unit);
        }
        oom_json_object_end(json);
    }
    oom_json_object_end(json);
}

void oom_trace_path(const char *directory, const char *id, char *out, size_t n) {
    int length = snprintf(out, n, "%s/", directory);
    if (length < 0 || (size_t)length >= n) return;
    snprintf(out + length, n - (size_t)length, "%s.trace", id);
    for (char *at = out + length; *at != 0; at++) {
        if (*at == '/') *at = '+';
    }
}

/* Cases that did not fail, or never ran, have no trace. */
static void put_trace(struct oom_json_writer *json, const struct oom_case_record *record,
                      const char *traces) {
    enum { TRACE_MAX = 1 << 28 };
    char path[PATH_MAX], *text;
    size_t bytes;
    oom_trace_path(traces, record->id, path, sizeof path);
    if (access(path, R_OK) != 0) return;
    if (oom_file_read(path, TRACE_MAX, &text, &bytes) != OOM_OK) return;
    oom_json_key(json, "trace");
    oom_json_raw(json, text, bytes);
    oom_host_free(text);
}

static void put_case(struct oom_json_writer *json, const struct oom_case_record *record,
                     const char *traces) {
    oom_json_object_begin(json);
    oom_json_put_string(json, "id", record->id);
    put_kind(json, record);
    oom_json_put_string(json, "outcome", oom_outcome_name(record->outcome));
    oom_json_put_string(json, "reason", record->reason);
    put_bits(json, record);
    if (record->oom_report[0] != 0) {
        oom_json_put_string(json, "oom_report", record->oom_report);
    }
    oom_json_put_double(json, "seconds", record->seconds);
    put_figures(json, record);
    if (traces != NULL) put_trace(json, record, traces);
    oom_json_object_end(json);
}

static void put_totals(struct oom_json_writer *json, const struct oom_report_totals *totals) {
    oom_json_key(json, "totals");
    oom_json_object_begin(json);
    oom_json_put_int64(json, "passed", totals->passed);
    oom_json_put_int64(json, "failed", totals->failed);
    oom_json_put_int64(json, "skipped", totals->skipped);
    oom_json_object_end(json);
}

static void put_own(struct oom_json_writer *json, const struct oom_report_run *run) {
    const struct oom_run_context *context = run->context;
    oom_json_key(json, "oombench");
    oom_json_object_begin(json);
    oom_json_put_string(json, "schema", "oombench-result/1");
    put_text_or_empty(json, "version", context->version);
    put_text_or_empty(json, "git", context->git);
    put_text_or_empty(json, "started", context->started);
    put_argv(json, context);
    put_capabilities(json, context->capabilities);
    put_device(json, context);
    oom_json_put_uint64(json, "seed", context->seed);
    oom_json_put_uint64(json, "capacity", context->capacity);
    put_text_or_empty(json, "capacity_from", context->capacity_from);
    put_environment(json);
    put_totals(json, &run->totals);
    oom_json_key(json, "cases");
    oom_json_array_begin(json);
    for (int i = 0; i < run->record_count; i++) put_case(json, &run->records[i], context->traces);
    oom_json_array_end(json);
    oom_json_object_end(json);
}

static enum oom_status json_end(struct oom_report_sink *sink, const struct oom_report_run *run) {
    struct oom_json_writer json;
    oom_json_writer_init_file(&json, sink->file, OOM_JSON_PRETTY | OOM_JSON_BIG_TEXT);
    oom_json_object_begin(&json);
    put_context(&json, run->context);
    put_benchmarks(&json, run);
    put_own(&json, run);
    oom_json_object_end(&json);
    return oom_json_writer_finish(&json, NULL, NULL);
}

const struct oom_report_driver oom_report_json_driver = {OOM_FORMAT_JSON, NULL, NULL, json_end};
