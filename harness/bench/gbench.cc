/*
 * gbench.cc: Google Benchmark behind gbench.h, the project's one C++ file.
 *
 * It makes each of our rows a benchmark, gives it our count of host memory, and collects what it
 * found. What it does badly for us is done here: it ends the process on some wrong flags, so those
 * are looked at before it sees them; it forgets that a benchmark failed, so errors are kept.
 */
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

/* C headers, which do not know of C++. */
extern "C" {
#include "harness/bench/gbench.h"
#include "kernels/hostmem.h"
}

namespace {

/* Releases disagree on the names of these. */
template <class Run> auto failed(const Run &run, int) -> decltype(bool(run.error_occurred)) {
    return run.error_occurred;
}
template <class Run> auto failed(const Run &run, long) -> decltype(bool(run.skipped)) {
    return bool(run.skipped);
}
template <class Run> auto message(const Run &run, int) -> decltype(std::string(run.error_message)) {
    return run.error_message;
}
template <class Run> auto message(const Run &run, long) -> decltype(std::string(run.skip_message)) {
    return run.skip_message;
}

/* The project's own host memory. Google Benchmark asks in a separate run of a few iterations.
 * 1.7 has both forms of Stop, the pointer's pure; later ones dropped it: so nothing says override.
 */
class HostMemory : public benchmark::MemoryManager {
  public:
    void Start() {
        allocations = oom_host_allocations();
        oom_host_peak_reset();
        before = oom_host_bytes_current();
    }
    void Stop(Result *result) {
        Stop(*result);
    }
    void Stop(Result &result) {
        result.num_allocs = static_cast<int64_t>(oom_host_allocations() - allocations);
        result.max_bytes_used = static_cast<int64_t>(oom_host_bytes_peak() - before);
        result.net_heap_growth = static_cast<int64_t>(oom_host_bytes_current() - before);
    }

  private:
    uint64_t allocations = 0, before = 0;
};

/* Keeps what came out, and lets another reporter print it, if there is one. */
class Collector : public benchmark::BenchmarkReporter {
  public:
    Collector(std::map<std::string, oom_gbench_result *> &results,
              benchmark::BenchmarkReporter *display)
        : names(results), shown(display) {
    }
    bool ReportContext(const Context &context) override {
        return shown == nullptr || shown->ReportContext(context);
    }
    void ReportRuns(const std::vector<Run> &runs) override {
        for (const Run &run : runs) keep(run);
        if (shown != nullptr) shown->ReportRuns(runs);
    }
    void Finalize() override {
        if (shown != nullptr) shown->Finalize();
    }

  private:
    std::map<std::string, oom_gbench_result *> &names;
    benchmark::BenchmarkReporter *shown;

    /* The median of the repetitions where there is one, else what came first. */
    void keep(const Run &run) {
        auto found = names.find(run.run_name.function_name);
        if (found == names.end()) return;
        oom_gbench_result &result = *found->second;
        if (failed(run, 0)) {
            std::snprintf(result.error, sizeof result.error, "%s", message(run, 0).c_str());
            return;
        }
        bool aggregate = run.run_type == Run::RT_Aggregate;
        if (aggregate ? run.aggregate_name != "median" : result.measured) return;
        double nanosecond = 1e9 / benchmark::GetTimeUnitMultiplier(run.time_unit);
        result.nanoseconds = run.GetAdjustedRealTime() * nanosecond;
        result.cpu_nanoseconds = run.GetAdjustedCPUTime() * nanosecond;
        if (!aggregate) result.iterations = static_cast<uint64_t>(run.iterations);
        if (run.memory_result != nullptr) {
            result.allocations = run.allocs_per_iter;
            result.bytes = static_cast<double>(run.memory_result->max_bytes_used);
        }
        result.measured = true;
    }
};

/* Setting a row up may take longer than measuring it, and Google Benchmark calls a benchmark many
 * times: the last one stays open until another one's turn comes. */
class Stage {
  public:
    bool open(const oom_gbench_entry *entry, char *reason, size_t n) {
        if (entry == current) return true;
        close();
        if (!entry->open(entry->context, reason, n)) return false;
        current = entry;
        return true;
    }
    void close() {
        if (current != nullptr) current->close(current->context);
        current = nullptr;
    }

  private:
    const oom_gbench_entry *current = nullptr;
};

/* All iterations are one call, so that no loop of ours or theirs is measured. */
void run(benchmark::State &state, Stage &stage, const oom_gbench_entry *entry) {
    char reason[128] = "";
    if (!stage.open(entry, reason, sizeof reason)) {
        state.SkipWithError(reason);
        return;
    }
    while (state.KeepRunningBatch(state.max_iterations)) {
        uint64_t times = static_cast<uint64_t>(state.max_iterations);
        if (!entry->work(entry->context, times, reason, sizeof reason)) {
            state.SkipWithError(reason);
            break;
        }
        benchmark::ClobberMemory();
    }
}

bool repeated; /* asked for by a flag */

/* With repetitions 1.7 keeps pointers into a list of memory results that moves when it grows. */
bool repeats() {
    return repeated || std::getenv("BENCHMARK_REPETITIONS") != nullptr;
}

/* "--name" or "--name=": the value; nullptr: another flag. */
const char *value_of(const char *flag, const char *name) {
    size_t n = std::strlen(name);
    if (std::strncmp(flag, name, n) != 0) return nullptr;
    if (flag[n] == '=') return flag + n + 1;
    return flag[n] == 0 ? "true" : nullptr;
}

bool is_format(const char *text) {
    return !std::strcmp(text, "console") || !std::strcmp(text, "json") || !std::strcmp(text, "csv");
}

/* What would make it end the process, or ends it with 0. */
oom_status look_at(const char *flag, bool *reports) {
    const char *format = value_of(flag, "--benchmark_format");
    const char *out_format = value_of(flag, "--benchmark_out_format");
    const char *out = value_of(flag, "--benchmark_out");
    const char *list = value_of(flag, "--benchmark_list_tests");
    if (value_of(flag, "--benchmark_repetitions") != nullptr) repeated = true;
    const char *checked = format != nullptr ? format : out_format;
    if (checked != nullptr && !is_format(checked)) {
        return oom_fail(OOM_USAGE, "%.80s: allowed: console, json, csv", flag);
    }
    if (format != nullptr || (list != nullptr && std::strcmp(list, "false") != 0)) *reports = true;
    if (out == nullptr || out[0] == 0) return OOM_OK;
    std::FILE *file = std::fopen(out, "a");
    if (file == nullptr) return oom_fail(OOM_IO, "%.120s: cannot be written", flag);
    std::fclose(file);
    return OOM_OK;
}

} // namespace

bool oom_gbench_present(void) {
    return true;
}

const char *oom_gbench_note(void) {
    return "";
}

enum oom_status oom_gbench_flags(int argc, const char *const *argv, bool *reports) {
    *reports = false;
    std::vector<std::string> texts = {"oombench"};
    for (int i = 0; i < argc; i++) {
        OOM_TRY(look_at(argv[i], reports));
        texts.push_back(argv[i]);
    }
    std::vector<char *> flags;
    for (std::string &text : texts) flags.push_back(&text[0]);
    flags.push_back(nullptr);
    int left = argc + 1;
    benchmark::Initialize(&left, flags.data());
    if (left <= 1) return OOM_OK;
    return oom_fail(OOM_USAGE,
                    "unrecognized flag of Google Benchmark, or a value it does not take: %.80s",
                    flags[1]);
}

enum oom_status oom_gbench_run(const struct oom_gbench_entry *entries, int count, bool reports,
                               struct oom_gbench_result *results) {
    std::map<std::string, oom_gbench_result *> names;
    Stage stage;
    for (int i = 0; i < count; i++) {
        const oom_gbench_entry *entry = &entries[i];
        results[i] = oom_gbench_result();
        results[i].allocations = results[i].bytes = -1;
        names[entry->name] = &results[i];
        auto *made = benchmark::RegisterBenchmark(
            entry->name, [&stage, entry](benchmark::State &state) { run(state, stage, entry); });
        if (!entry->cpu_time) made->UseRealTime();
    }
    HostMemory memory;
    benchmark::RegisterMemoryManager(repeats() ? nullptr : &memory);
    std::unique_ptr<benchmark::BenchmarkReporter> shown;
    if (reports) shown.reset(benchmark::CreateDefaultDisplayReporter());
    Collector collector(names, shown.get());
    size_t matched = benchmark::RunSpecifiedBenchmarks(&collector);
    stage.close();
    benchmark::RegisterMemoryManager(nullptr);
    benchmark::ClearRegisteredBenchmarks();
    if (matched > 0 || count == 0) return OOM_OK;
    return oom_fail(OOM_NOTHING, "--benchmark_filter matches none of the %d rows chosen", count);
}
