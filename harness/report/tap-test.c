#include "harness/report/sample-records.h"

#include <ctype.h>

void tap_test(void);

/* Line by line against the dialect: numbers in order, YAML only after "not ok", nothing else. */
static void check_stream(char *text, int points, int failed) {
    int seen = 0, bad = 0, line_number = 0;
    bool after_failure = false, in_yaml = false;
    for (char *rest = text, *line; (line = strtok_r(rest, "\n", &rest)) != NULL; line_number++) {
        int number = 0, used = 0;
        if (line_number == 0) {
            CHECK_STR(line, "TAP version 13");
        } else if (line_number == 1) {
            CHECK(sscanf(line, "1..%d%n", &number, &used) == 1 && number == points);
        } else if (in_yaml) {
            in_yaml = strcmp(line, "  ...") != 0;
            size_t bytes = strlen(line);
            bool pair = strncmp(line, "  ", 2) == 0 && islower((unsigned char)line[2]) &&
                        strstr(line, ": '") != NULL && line[bytes - 1] == '\'';
            CHECK_MSG(!in_yaml || pair, "YAML: %s", line);
        } else if (strcmp(line, "  ---") == 0) {
            CHECK(after_failure);
            in_yaml = true;
            after_failure = false;
        } else if (line[0] != '#') {
            bool fails = strncmp(line, "not ", 4) == 0;
            CHECK_MSG(sscanf(line + 4 * fails, "ok %d - %n", &number, &used) == 1 && used > 0,
                      "line: %s", line);
            CHECK_EQ(number, ++seen);
            bad += fails;
            after_failure = fails;
        }
        for (const char *at = line; *at != 0; at++) CHECK((unsigned char)*at >= 0x20);
    }
    CHECK_EQ(seen, points);
    CHECK_EQ(bad, failed);
}

static void streams(void) {
    const struct oom_report_paths paths = {.format = OOM_FORMAT_TAP};
    TEST("tap: every sort of record, and a library that prints between");
    char *text = oom_sample_capture(&paths, 0, OOM_SAMPLE_COUNT);
    if (text == NULL) return;
    CHECK(strstr(text, "ok 98") == NULL);
    CHECK(strstr(text, "\nok 1 - large_batch/halving/gpt/f32/oom_without\n") != NULL);
    CHECK(strstr(text, "\nnot ok 8 - large_batch/accumulation/gpt/f32/uneven/grad_match\n") !=
          NULL);
    CHECK(strstr(text, "\nok 11 - large_batch/halving/control/retry_without_clearing\n") != NULL);
    CHECK(strstr(text, "\nnot ok 23 - data_parallel/ranks\n") != NULL);
    CHECK(strstr(text, "  answer: 'not reached'\n") != NULL);
    CHECK(strstr(text, "/oom_without # SKIP absent: \\# TODO it's") != NULL);
    CHECK(strstr(text, "  why: 'it''s # SKIP \\ \"quoted\"") != NULL);
    CHECK(strstr(text,
                 "\nok 32 - data_parallel/ranks/cnn/f32/batch_norm/grad_match # not equal, as "
                 "it must be: 0.2 \\# of ||g||\n") != NULL);
    CHECK(strstr(text, "\nok 36 - data_parallel/ranks/cnn/f32/equal/fits_with\n") != NULL);
    CHECK(strstr(text, "\nnot ok 37 - data_parallel/ranks/cnn/f32/equal/grad_match\n") != NULL);
    /* 5 + 5 + 1 + 1 + 5 + 5 + 1 + 5 + 1 + 5 + 5; one bit, one control, four bits, one whole, five
     * bits, one bit */
    check_stream(text, 39, 1 + 1 + 4 + 1 + 5 + 1);
    oom_host_free(text);
    TEST("tap: nothing selected is a skipped plan");
    text = oom_sample_capture(&paths, 0, 0);
    CHECK(text != NULL && strstr(text, "\n1..0 # SKIP nothing selected\n") != NULL);
    oom_host_free(text);
}

/* Exit code of prove on our file; its words are in *result. */
static int prove(int first, int count, struct oom_process_result *result) {
    char directory[100], path[128];
    char program[] = "/usr/bin/prove", exec[] = "--exec", cat[] = "cat", verbose[] = "-v";
    char *argv[] = {program, verbose, exec, cat, path, NULL};
    struct oom_process_options options = {.argv = argv, .timeout = 60};
    int exit_code = -1;
    if (oom_directory_temporary(directory, sizeof directory) != OOM_OK) return -1;
    snprintf(path, sizeof path, "%s/run.tap", directory);
    const struct oom_report_paths paths = {.format = OOM_FORMAT_JSON, .tap = path};
    char *text = oom_sample_capture(&paths, first, count);
    oom_host_free(text);
    if (oom_process_run(&options, result) == OOM_OK) exit_code = result->exit_code;
    CHECK(strstr(result->out, "Parse errors") == NULL);
    oom_directory_remove(directory);
    return exit_code;
}

static void proved(void) {
    struct oom_process_result result = {0};
    TEST("tap: prove counts what we count");
    if (access("/usr/bin/prove", X_OK) != 0) {
        SKIP("no prove");
        return;
    }
    CHECK_EQ(prove(0, OOM_SAMPLE_COUNT, &result), 1);
    CHECK_MSG(strstr(result.out, "Tests: 39 Failed: 13") != NULL, "%s", result.out);
    CHECK_EQ(prove(0, 1, &result), 0);
    CHECK(strstr(result.out, "Result: PASS") != NULL);
    CHECK_EQ(prove(5, 1, &result), 0); /* skipped */
    CHECK_EQ(prove(9, 1, &result), 0); /* unequal, as it must be */
    CHECK_EQ(prove(10, 1, &result), 1);
    CHECK_EQ(prove(3, 1, &result), 1); /* a control that was not caught */
}

void tap_test(void) {
    streams();
    proved();
}
