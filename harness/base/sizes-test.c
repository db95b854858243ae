#include "harness/base/sizes.h"

#include "kernels/testing.h"

#include <math.h>
#include <string.h>

void sizes_test(void);

static void check_size(const char *text, uint64_t expected) {
    uint64_t value = 7;
    CHECK_OK(oom_size_parse("--capacity", text, &value));
    CHECK_MSG(value == expected, "%s: %llu", text, (unsigned long long)value);
}

static void check_no_size(const char *text) {
    uint64_t value = 7;
    oom_failure_clear();
    CHECK_MSG(oom_size_parse("--capacity", text, &value) == OOM_USAGE, "\"%s\" was taken", text);
    CHECK_MSG(value == 7, "\"%s\" changed the value", text);
    const char *message = oom_failure_last()->message;
    CHECK_MSG(strstr(message, "--capacity") != NULL && strstr(message, "allowed:") != NULL &&
                  strstr(message, text) != NULL,
              "message: %s", message);
    oom_failure_clear();
}

static void sizes_read(void) {
    TEST("sizes: units of 1024 and of 1000");
    check_size("64MiB", 67108864);
    check_size("192M", 201326592);
    check_size("1GiB", 1073741824);
    check_size("1G", 1073741824);
    check_size("1GB", 1000000000);
    check_size("3kB", 3000);
    check_size("3KB", 3000);
    check_size("3K", 3072);
    check_size("2T", 2199023255552u);
    check_size("2TB", 2000000000000u);
    check_size("0", 0);
    check_size("4096", 4096);
    check_size("4096B", 4096);
    check_size("18446744073709551615", UINT64_MAX);
    TEST("sizes: fractions are exact, cut to bytes");
    check_size("1.5GiB", 1610612736);
    check_size("0.1KB", 100);
    check_size("0.1KiB", 102);                              /* 102.4 */
    check_size("16777215.999999999999999999T", UINT64_MAX); /* 2^64 - 10^-6, cut */
    TEST("sizes: what is no size is refused, by name");
    static const char *const bad[] = {
        "12QB",
        "-1",
        "",
        " 1",
        "1 ",
        "1 GiB",
        "1GiBx",
        "1.GiB",
        ".5GiB",
        "1.5",
        "1.5B",
        "+1",
        "0x10",
        "1e3",
        "nan",
        "inf",
        "18446744073709551616",
        "16777216T",
        "1Mib",
        "1mib",
        "KiB",
        "1,5G",
        "99999999999999999999999G",
        "1.0000000000000000001G",
        "\xc2\xb2",
        "1KK",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) check_no_size(bad[i]);
}

static void sizes_written(void) {
    char text[24];
    TEST("sizes: written for people");
    CHECK_STR(oom_size_format(0, text, sizeof text), "0 B");
    CHECK_STR(oom_size_format(1023, text, sizeof text), "1023 B");
    CHECK_STR(oom_size_format(1024, text, sizeof text), "1.00 KiB");
    CHECK_STR(oom_size_format(1536u << 20, text, sizeof text), "1.50 GiB");
    CHECK_STR(oom_size_format((1u << 20) - 1, text, sizeof text), "1.00 MiB");
    CHECK_STR(oom_size_format(UINT64_MAX, text, sizeof text), "16.00 EiB");
}

static void numbers_read(void) {
    int64_t i = 0;
    uint64_t u = 0;
    double d = 0;
    TEST("numbers: whole ones");
    CHECK_OK(oom_int64_parse("-n", "-9223372036854775808", INT64_MIN, INT64_MAX, &i));
    CHECK(i == INT64_MIN);
    CHECK_OK(oom_int64_parse("-n", "9223372036854775807", INT64_MIN, INT64_MAX, &i));
    CHECK(i == INT64_MAX);
    CHECK(oom_int64_parse("-n", "9223372036854775808", INT64_MIN, INT64_MAX, &i) == OOM_USAGE);
    CHECK(oom_int64_parse("-n", "-9223372036854775809", INT64_MIN, INT64_MAX, &i) == OOM_USAGE);
    CHECK_OK(oom_uint64_parse("-n", "0xFfFfFfFfFfFfFfFf", 0, UINT64_MAX, &u));
    CHECK(u == UINT64_MAX);
    static const char *const no_int[] = {"",
                                         "-",
                                         "1x",
                                         "0x1",
                                         "1.0",
                                         "1e3",
                                         " 1",
                                         "+1",
                                         "65",
                                         "0",
                                         "9223372036854775808",
                                         "-9223372036854775809"};
    for (size_t k = 0; k < sizeof no_int / sizeof *no_int; k++)
        CHECK_MSG(oom_int64_parse("-n", no_int[k], 1, 64, &i) == OOM_USAGE, "%s", no_int[k]);
    static const char *const no_uint[] = {
        "-1", "", "0x", "0xg", "0x10000000000000000", "18446744073709551616", "1 "};
    for (size_t k = 0; k < sizeof no_uint / sizeof *no_uint; k++)
        CHECK_MSG(oom_uint64_parse("-n", no_uint[k], 0, UINT64_MAX, &u) == OOM_USAGE, "%s",
                  no_uint[k]);
    TEST("numbers: with a fraction");
    CHECK_OK(oom_double_parse("-x", "-12.5e-1", -2, 2, &d));
    CHECK(d == -1.25);
    CHECK_OK(oom_double_parse("-x", ".5", 0, 1, &d));
    CHECK(d == 0.5);
    static const char *const no_double[] = {"",    ".", "nan", "inf", "1e999", "0x1p3", "1e",
                                            "1,5", "3", "-3",  "1 ",  "--1",   "e5"};
    for (size_t k = 0; k < sizeof no_double / sizeof *no_double; k++)
        CHECK_MSG(oom_double_parse("-x", no_double[k], -2, 2, &d) == OOM_USAGE, "%s", no_double[k]);
    TEST("numbers: durations");
    CHECK_OK(oom_duration_parse("-t", "250ms", &d));
    CHECK(fabs(d - 0.25) <= 1e-15);
    CHECK_OK(oom_duration_parse("-t", "1.5m", &d));
    CHECK(d == 90);
    CHECK_OK(oom_duration_parse("-t", "2h", &d));
    CHECK(d == 7200);
    CHECK_OK(oom_duration_parse("-t", "30", &d));
    CHECK(d == 30);
    static const char *const no_time[] = {"",    "ms",   "-1s", "1d",
                                          "1 s", "1e9h", "nan", "9999999999"};
    for (size_t k = 0; k < sizeof no_time / sizeof *no_time; k++)
        CHECK_MSG(oom_duration_parse("-t", no_time[k], &d) == OOM_USAGE, "%s", no_time[k]);
}

static void choices_read(void) {
    static const char *const names[] = {"eager", "lazy", NULL};
    int choice = 5;
    TEST("choices");
    CHECK_OK(oom_choice_parse("--schedule", "lazy", names, &choice));
    CHECK_EQ(choice, 1);
    CHECK(oom_choice_parse("--schedule", "laz", names, &choice) == OOM_USAGE);
    CHECK(strstr(oom_failure_last()->message, "eager, lazy") != NULL);
    CHECK_EQ(choice, 1);
}

void sizes_test(void) {
    sizes_read();
    sizes_written();
    numbers_read();
    choices_read();
}
