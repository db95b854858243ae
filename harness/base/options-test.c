#include "harness/base/options.h"

#include "kernels/testing.h"

#include <stdlib.h>
#include <string.h>

void options_test(void);

struct settings {
    bool quick;
    int threads;
    uint64_t seed, capacity;
    double rate, timeout;
    int schedule;
    const char *conf, *path;
    struct oom_option_list controls, benchmark;
};

static const char *const schedules[] = {"eager", "lazy", NULL};
static const char *const capacities[] = {"all", NULL};

#define AT(field) offsetof(struct settings, field)

static const struct oom_option rows[] = {
    {.name = "quick",
     .letter = 'q',
     .kind = OOM_OPTION_FLAG,
     .offset = AT(quick),
     .help = "Small."},
    {.name = "threads",
     .letter = 't',
     .kind = OOM_OPTION_INT,
     .offset = AT(threads),
     .min = 1,
     .max = 64,
     .fallback = "2",
     .help = "How many threads."},
    {.name = "seed",
     .kind = OOM_OPTION_UINT64,
     .offset = AT(seed),
     .fallback = "1",
     .environment = "OOMBENCH_TEST_SEED",
     .help = "The seed of all that is drawn."},
    {.name = "capacity",
     .letter = 'c',
     .kind = OOM_OPTION_SIZE,
     .offset = AT(capacity),
     .min = 1 << 20,
     .max = 0x1p40,
     .names = capacities,
     .fallback = "192MiB",
     .help = "Bytes of device memory that may be used, as enforced by the device itself."},
    {.name = "rate",
     .kind = OOM_OPTION_DOUBLE,
     .offset = AT(rate),
     .min = 0,
     .max = 1,
     .help = "A share."},
    {.name = "timeout",
     .kind = OOM_OPTION_DURATION,
     .offset = AT(timeout),
     .fallback = "1m",
     .help = "Time for each."},
    {.name = "schedule",
     .kind = OOM_OPTION_CHOICE,
     .offset = AT(schedule),
     .names = schedules,
     .fallback = "eager",
     .help = "When queued work runs."},
    {.name = "alloc-conf", .kind = OOM_OPTION_TEXT, .offset = AT(conf), .help = "Settings."},
    {.name = "a-file-with-a-very-long-name-indeed",
     .kind = OOM_OPTION_PATH,
     .offset = AT(path),
     .help = "Where."},
    {.name = "control",
     .kind = OOM_OPTION_LIST,
     .offset = AT(controls),
     .metavar = "NAME",
     .help = "Runs the case with this wrong twin."},
    {.name = "benchmark_",
     .kind = OOM_OPTION_PREFIX,
     .offset = AT(benchmark),
     .help = "Passed to Google Benchmark."},
    {.name = "hidden", .kind = OOM_OPTION_FLAG, .offset = AT(quick)},
};
enum { ROWS = sizeof rows / sizeof *rows, ARGS = 16 };

static const struct oom_options options = {rows, ROWS};
static const char *operands[ARGS];
static int operand_count;
static enum oom_option_source sources[ROWS];

/* Arguments separated by spaces; "_" stands for an empty one. */
static enum oom_status parse(const char *line, struct settings *out) {
    static char text[400];
    char *argv[ARGS], *rest = text;
    int argc = 0;
    snprintf(text, sizeof text, "%s", line);
    for (char *word; argc < ARGS && (word = strtok_r(rest, " ", &rest)) != NULL;)
        argv[argc++] = strcmp(word, "_") == 0 ? word + 1 : word;
    memset(out, 0, sizeof *out);
    oom_failure_clear();
    return oom_options_parse(&options, argc, argv, out, operands, &operand_count, sources);
}

static void accepted(void) {
    struct settings s;
    TEST("options: defaults");
    CHECK_OK(parse("", &s));
    CHECK(!s.quick && s.threads == 2 && s.seed == 1 && s.capacity == 201326592);
    CHECK(s.timeout == 60 && s.schedule == 0 && s.conf == NULL && s.controls.count == 0);
    CHECK_EQ(operand_count, 0);
    CHECK_EQ(sources[3], OOM_SOURCE_DEFAULT);
    TEST("options: every form");
    CHECK_OK(parse("--threads=3 a --seed 0x10 -c 1GiB -q --rate .5 -t4 -- --quick -x -", &s));
    CHECK(s.quick && s.threads == 4 && s.seed == 16 && s.capacity == 1 << 30 && s.rate == 0.5);
    CHECK_EQ(operand_count, 4);
    CHECK_STR(operands[0], "a");
    CHECK_STR(operands[1], "--quick");
    CHECK_STR(operands[3], "-");
    CHECK_EQ(sources[3], OOM_SOURCE_OPTION);
    CHECK_STR(oom_option_source_name(sources[3]), "option");
    CHECK_OK(parse("--quick=no --capacity all --alloc-conf=a:b=c --control x --control=--y", &s));
    CHECK(!s.quick && s.capacity == oom_option_size_name(0));
    CHECK_STR(s.conf, "a:b=c");
    CHECK_EQ(s.controls.count, 2);
    CHECK_STR(s.controls.items[1], "--y");
    TEST("options: a prefix is passed on untouched");
    CHECK_OK(parse("--benchmark_filter=x.* --benchmark_list_tests y", &s));
    CHECK_EQ(s.benchmark.count, 2);
    CHECK_STR(s.benchmark.items[0], "--benchmark_filter=x.*");
    CHECK_STR(s.benchmark.items[1], "--benchmark_list_tests");
    CHECK_EQ(operand_count, 1);
    TEST("options: the environment, below the command line");
    setenv("OOMBENCH_TEST_SEED", "7", 1);
    CHECK_OK(parse("", &s));
    CHECK(s.seed == 7 && sources[2] == OOM_SOURCE_ENVIRONMENT);
    CHECK_OK(parse("--seed 8", &s));
    CHECK_EQ(s.seed, 8);
    setenv("OOMBENCH_TEST_SEED", "x", 1);
    CHECK_EQ(parse("", &s), OOM_USAGE);
    CHECK(strstr(oom_failure_last()->message, "OOMBENCH_TEST_SEED: \"x\"") != NULL);
    setenv("OOMBENCH_TEST_SEED", "", 1);
    CHECK_OK(parse("", &s));
    CHECK_EQ(s.seed, 1);
    unsetenv("OOMBENCH_TEST_SEED");
}

static void refused(void) {
    static const struct {
        const char *line, *message;
    } bad[] = {
        {"--capasity 1", "did you mean --capacity?"},
        {"--zzzzzz", "unknown option \"--zzzzzz\""},
        {"-z", "unknown option \"-z\""},
        {"--threads", "--threads: a value is missing"},
        {"--threads --quick", "--threads: a value is missing before \"--quick\""},
        {"--threads 0", "whole numbers from 1 to 64"},
        {"--threads 65", "whole numbers from 1 to 64"},
        {"--threads=", "--threads: \"\""},
        {"--threads 2x", "--threads: \"2x\""},
        {"--capacity 1K", "1.00 MiB to 1.00 TiB"},
        {"--capacity 12QB", "--capacity: \"12QB\""},
        {"-c _", "-c: \"\""},
        {"--rate 2", "0 to 1"},
        {"--rate nan", "0 to 1"},
        {"--schedule later", "eager, lazy"},
        {"--quick=maybe", "no, yes"},
        {"-qx", "takes no value"},
        {"--timeout 5d", "--timeout: \"5d\""},
        {"--a-file-with-a-very-long-name-indeed=", "a path"},
        {"--seed -1", "--seed: \"-1\""},
        {"--benchmark_", "unknown option"},
        {"--capacit 1", "did you mean --capacity?"},
    };
    struct settings s;
    TEST("options: every bad one is told in one line");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_MSG(parse(bad[i].line, &s) == OOM_USAGE, "taken: %s", bad[i].line);
        const char *message = oom_failure_last()->message;
        CHECK_MSG(strstr(message, bad[i].message) != NULL, "%s: %s", bad[i].line, message);
        CHECK(strchr(message, '\n') == NULL);
    }
    TEST("options: a list has an end");
    struct oom_option_list *list = &s.controls;
    CHECK_OK(parse("--control x", &s));
    char *argv[OOM_OPTION_LIST_MAX + 1];
    char argument[] = "--control=x";
    const char *many[OOM_OPTION_LIST_MAX + 1];
    for (int i = 0; i <= OOM_OPTION_LIST_MAX; i++) argv[i] = argument;
    CHECK_OK(
        oom_options_parse(&options, OOM_OPTION_LIST_MAX, argv, &s, many, &operand_count, NULL));
    CHECK_EQ(list->count, OOM_OPTION_LIST_MAX);
    CHECK_EQ(
        oom_options_parse(&options, OOM_OPTION_LIST_MAX + 1, argv, &s, many, &operand_count, NULL),
        OOM_USAGE);
    oom_failure_clear();
}

static void help(void) {
    TEST("options: help fits its columns and names everything");
    for (int columns = 30; columns <= 120; columns += 10) {
        char text[6000];
        memset(text, 0, sizeof text);
        FILE *file = fmemopen(text, sizeof text - 1, "w");
        if (file == NULL) break;
        oom_options_help(&options, file, columns);
        fclose(file);
        size_t widest = 0;
        for (char *line = text; *line != 0;) {
            size_t bytes = strcspn(line, "\n");
            if (bytes > widest) widest = bytes;
            line += bytes + (line[bytes] == '\n');
        }
        CHECK_MSG(widest <= (size_t)(columns < 48 ? 48 : columns), "%d columns: %zu", columns,
                  widest); /* the longest name needs 46 */
        CHECK(strstr(text, "--hidden") == NULL);
        CHECK(strstr(text, "-c, --capacity SIZE") != NULL);
        CHECK(strstr(text, "--benchmark_...") != NULL);
        if (columns < 120) continue; /* where that is not broken */
        CHECK(strstr(text, "One of eager, lazy. (default eager)") != NULL);
        CHECK(strstr(text, "[OOMBENCH_TEST_SEED]") != NULL);
    }
}

void options_test(void) {
    accepted();
    refused();
    help();
}
