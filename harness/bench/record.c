/*
 * record.c: measurements as JSON. `context` and `benchmarks` are those of Google Benchmark, one
 * entry per round, so that its compare.py tests the difference of two files; `oombench` is ours and
 * follows results/schema/oombench-bench-1.json.
 */
#include "harness/bench/bench.h"

#include "harness/base/json-write.h"
#include "harness/bench/gbench.h"

#include <string.h>
#include <unistd.h>

static void put_context(struct oom_json_writer *json, const struct oom_bench_context *context) {
    oom_json_key(json, "context");
    oom_json_object_begin(json);
    oom_json_put_string(json, "date", context->started);
    oom_json_put_string(json, "executable", "oombench");
    oom_json_put_int64(json, "num_cpus", sysconf(_SC_NPROCESSORS_ONLN));
    oom_json_key(json, "caches");
    oom_json_array_begin(json);
    oom_json_array_end(json);
    oom_json_put_string(json, "library_build_type", "release");
    oom_json_put_int64(json, "json_schema_version", 1);
    oom_json_object_end(json);
}

/* Only ours: samples of the first subject come first. */
static void put_rounds(struct oom_json_writer *json, const struct oom_bench_result *result,
                       int index) {
    for (int round = 0; round < result->samples.rounds; round++) {
        double time = result->samples.seconds[round] * 1e9 / (double)result->times[0];
        oom_json_object_begin(json);
        oom_json_put_string(json, "name", result->row->name);
        oom_json_put_int64(json, "family_index", index);
        oom_json_put_int64(json, "per_family_instance_index", 0);
        oom_json_put_string(json, "run_name", result->row->name);
        oom_json_put_string(json, "run_type", "iteration");
        oom_json_put_int64(json, "repetitions", result->samples.rounds);
        oom_json_put_int64(json, "repetition_index", round);
        oom_json_put_int64(json, "threads", 1);
        oom_json_put_uint64(json, "iterations", result->times[0]);
        oom_json_put_double(json, "real_time", time);
        oom_json_put_double(json, "cpu_time", time);
        oom_json_put_string(json, "time_unit", "ns");
        oom_json_object_end(json);
    }
}

static void put_benchmarks(struct oom_json_writer *json, const struct oom_bench_result *results,
                           int count) {
    int index = 0;
    oom_json_key(json, "benchmarks");
    oom_json_array_begin(json);
    for (int i = 0; i < count; i++) {
        if (results[i].status == OOM_OK) put_rounds(json, &results[i], index++);
    }
    oom_json_array_end(json);
}

/* ---- our part ---- */

static void put_spread(struct oom_json_writer *json, const char *key,
                       const struct oom_spread *spread) {
    oom_json_key(json, key);
    oom_json_object_begin(json);
    oom_json_put_double(json, "median", spread->median);
    oom_json_put_double(json, "low", spread->low);
    oom_json_put_double(json, "high", spread->high);
    oom_json_put_double(json, "least", spread->least);
    oom_json_put_int64(json, "rounds", spread->count);
    oom_json_object_end(json);
}

static void put_peer(struct oom_json_writer *json, const struct oom_bench_figure *figure,
                     uint64_t times) {
    oom_json_object_begin(json);
    oom_json_put_string(json, "name", figure->name);
    if (figure->missing[0] != 0) {
        oom_json_put_string(json, "missing", figure->missing);
    } else {
        oom_json_put_uint64(json, "units_per_sample", times);
        put_spread(json, "nanoseconds", &figure->nanoseconds);
        put_spread(json, "time_by_ours", &figure->ratio);
    }
    oom_json_object_end(json);
}

static void put_gbench(struct oom_json_writer *json, const struct oom_bench_gbench *gbench) {
    oom_json_key(json, "google_benchmark");
    oom_json_object_begin(json);
    if (gbench->missing[0] != 0) {
        oom_json_put_string(json, "missing", gbench->missing);
    } else {
        oom_json_put_double(json, "nanoseconds", gbench->nanoseconds);
        oom_json_put_double(json, "cpu_nanoseconds", gbench->cpu_nanoseconds);
        oom_json_put_uint64(json, "iterations", gbench->iterations);
        if (gbench->allocations >= 0) {
            oom_json_put_double(json, "host_allocations_per_unit", gbench->allocations);
            oom_json_put_double(json, "host_peak_bytes", gbench->bytes);
        }
    }
    oom_json_object_end(json);
}

static void put_figures(struct oom_json_writer *json, const struct oom_bench_result *result) {
    const struct oom_bench_row *row = result->row;
    const struct oom_spread *ours = &result->figures[0].nanoseconds;
    oom_json_put_string(json, "clock", result->cpu_time ? "cpu" : "wall");
    oom_json_put_uint64(json, "units_per_sample", result->times[0]);
    oom_json_put_bool(json, "steady", result->samples.steady);
    put_spread(json, "nanoseconds", ours);
    if (row->rate_unit != NULL) {
        oom_json_key(json, "rate");
        oom_json_object_begin(json);
        oom_json_put_double(json, "median", row->rate / ours->median);
        oom_json_put_string(json, "unit", row->rate_unit);
        oom_json_object_end(json);
    }
    oom_json_key(json, "peers");
    oom_json_array_begin(json);
    for (int i = 1; i < result->figure_count; i++) {
        put_peer(json, &result->figures[i], result->times[i]);
    }
    oom_json_array_end(json);
    put_gbench(json, &result->gbench);
}

static void put_row(struct oom_json_writer *json, const struct oom_bench_result *result) {
    oom_json_object_begin(json);
    oom_json_put_string(json, "id", result->row->name);
    oom_json_put_string(json, "unit", result->row->unit);
    const char *outcome = result->status == OOM_OK       ? "pass"
                          : result->status == OOM_ABSENT ? "skip"
                                                         : "fail";
    oom_json_put_string(json, "outcome", outcome);
    oom_json_put_string(json, "reason", result->reason);
    if (result->status == OOM_OK) put_figures(json, result);
    oom_json_object_end(json);
}

static void put_own(struct oom_json_writer *json, const struct oom_bench_context *context,
                    const struct oom_bench_result *results, int count) {
    oom_json_key(json, "oombench");
    oom_json_object_begin(json);
    oom_json_put_string(json, "schema", "oombench-bench/1");
    oom_json_put_string(json, "version", context->version);
    oom_json_put_string(json, "git", context->git);
    oom_json_put_string(json, "started", context->started);
    oom_json_key(json, "argv");
    oom_json_array_begin(json);
    for (int i = 0; i < context->argc; i++) oom_json_string(json, context->argv[i]);
    oom_json_array_end(json);
    oom_json_put_uint64(json, "seed", context->settings->seed);
    oom_json_put_int64(json, "threads", context->settings->threads);
    oom_json_put_string(json, "isa", oom_isa_name(context->settings->isa));
    oom_json_put_bool(json, "quick", context->settings->quick);
    oom_json_put_bool(json, "google_benchmark", oom_gbench_present());
    oom_json_key(json, "rows");
    oom_json_array_begin(json);
    for (int i = 0; i < count; i++) put_row(json, &results[i]);
    oom_json_array_end(json);
    oom_json_object_end(json);
}

enum oom_status oom_bench_record(const struct oom_bench_context *context,
                                 const struct oom_bench_result *results, int count, FILE *out) {
    struct oom_json_writer json;
    oom_json_writer_init_file(&json, out, OOM_JSON_PRETTY | OOM_JSON_BIG_TEXT);
    oom_json_object_begin(&json);
    put_context(&json, context);
    put_benchmarks(&json, results, count);
    put_own(&json, context, results, count);
    oom_json_object_end(&json);
    return oom_json_writer_finish(&json, NULL, NULL);
}
