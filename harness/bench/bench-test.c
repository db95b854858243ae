/* Rows, their choice, one row measured with every way to fail, the table and the file. */
#include "harness/bench/bench.h"

#include "harness/base/json-read.h"
#include "kernels/hostmem.h"
#include "kernels/testing.h"

#include <math.h>
#include <string.h>

void bench_test(void);

/* ---- the list ---- */

static void test_list(void) {
    TEST("bench: rows have unique ids under their family's name, each family a quick one");
    struct oom_bench_list list;
    CHECK_OK(oom_bench_select(oom_bench_families, NULL, 0, false, &list));
    for (int i = 0; i < list.count; i++) {
        const struct oom_bench_row *row = &list.rows[i];
        size_t family = strlen(row->family->name);
        int twins = 0;
        for (int k = 0; k < i; k++) twins += strcmp(list.rows[k].name, row->name) == 0;
        CHECK_MSG(twins == 0, "%s twice", row->name);
        CHECK(strncmp(row->name, row->family->name, family) == 0 && row->name[family] == '/');
        CHECK(strspn(row->name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_.=,/+-") == strlen(row->name));
        CHECK(row->open != NULL && row->unit != NULL);
    }
    for (int f = 0; oom_bench_families[f] != NULL; f++) {
        struct oom_bench_list quick;
        CHECK_OK(
            oom_bench_select(oom_bench_families, &oom_bench_families[f]->name, 1, true, &quick));
        CHECK(quick.count > 0 && quick.rows[0].family == oom_bench_families[f]);
        oom_bench_list_free(&quick);
    }
    oom_bench_list_free(&list);

    TEST("bench: each glob must match; what matches is taken once");
    const char *globs[] = {"map/dry", "map/*/2MiB", "nosuch*"};
    CHECK_OK(oom_bench_select(oom_bench_families, globs, 2, false, &list));
    CHECK_EQ(list.count, 3);
    oom_bench_list_free(&list);
    CHECK(oom_bench_select(oom_bench_families, globs, 3, false, &list) == OOM_NOTHING);
    CHECK(strstr(oom_failure_last()->message, "nosuch*") != NULL);
    CHECK(list.rows == NULL);
    oom_failure_clear();
}

/* ---- one row ---- */

static struct {
    int opened, closed, rested;
    uint64_t units[2];
    enum oom_status open_status, work_status;
    bool missing;
} fake;

static enum oom_status fake_work(void *context, uint64_t times) {
    uint64_t sum = 0;
    /* the peer's unit is longer, so that its samples have fewer */
    uint64_t steps = context == &fake.units[1] ? 5000 : 50;
    for (uint64_t i = 0; i < times * steps; i++) {
        sum += i;
        oom_bench_keep(&sum);
    }
    *(uint64_t *)context += times;
    if (fake.work_status != OOM_OK && fake.units[0] > 3) {
        return oom_fail(fake.work_status, "asked to fail");
    }
    return OOM_OK;
}

static enum oom_status fake_rest(void *context) {
    (void)context;
    fake.rested++;
    return OOM_OK;
}

static void fake_close(void *context) {
    (void)context;
    fake.closed++;
}

static enum oom_status fake_open(const struct oom_bench_row *row,
                                 const struct oom_bench_settings *settings,
                                 struct oom_bench_subjects *out) {
    (void)row, (void)settings;
    if (fake.open_status != OOM_OK) return oom_fail(fake.open_status, "not to be opened");
    out->count = 2;
    for (int i = 0; i < 2; i++) {
        out->items[i] = (struct oom_bench_subject){.name = i == 0 ? "" : "peer",
                                                   .context = &fake.units[i],
                                                   .work = fake_work,
                                                   .rest = i == 1 ? fake_rest : NULL,
                                                   .close = fake_close};
    }
    if (fake.missing) snprintf(out->items[1].missing, sizeof out->items[1].missing, "gone");
    return OOM_OK;
}

static const struct oom_bench_family fakes = {.name = "fake", .prose = "nothing", .note = "note"};
static const struct oom_bench_row row = {
    .name = "fake/a", .unit = "unit", .open = fake_open, .family = &fakes};
static const struct oom_bench_settings settings = {.quick = true, .seed = 1, .threads = 1};

static void test_measure(void) {
    struct oom_bench_result result = {0};
    uint64_t before = oom_host_bytes_current();
    TEST("bench: a row and its peer are measured in the same rounds and closed");
    memset(&fake, 0, sizeof fake);
    oom_bench_measure(&row, &settings, &result);
    CHECK_EQ(result.status, OOM_OK);
    CHECK_EQ(result.figure_count, 2);
    CHECK_EQ(fake.closed, 2);
    int rounds = result.samples.rounds;
    CHECK(rounds >= 3 && rounds <= 5);
    CHECK_EQ(result.figures[0].nanoseconds.count, rounds);
    CHECK_EQ(result.figures[1].ratio.count, rounds);
    CHECK(fake.units[0] >= result.times[0] * (uint64_t)rounds);
    CHECK(fake.rested > rounds); /* warm-up and calibration, too */
    /* the median of ratios lies between the extremes that the samples allow */
    double least = INFINITY, most = 0, first = result.samples.seconds[0], last = first;
    CHECK(result.times[1] < result.times[0]);
    for (int i = 0; i < rounds; i++) {
        first = fmin(first, result.samples.seconds[i]);
        last = fmax(last, result.samples.seconds[i]);
        double ours = result.samples.seconds[i] / (double)result.times[0];
        double theirs = result.samples.seconds[rounds + i] / (double)result.times[1];
        least = fmin(least, theirs / ours);
        most = fmax(most, theirs / ours);
    }
    CHECK(result.figures[1].ratio.median >= least * 0.999999 &&
          result.figures[1].ratio.median <= most * 1.000001);
    double median = result.figures[0].nanoseconds.median * (double)result.times[0] / 1e9;
    CHECK(median >= first * 0.999999 && median <= last * 1.000001);
    oom_bench_result_free(&result);

    TEST("bench: a peer that is not there has a reason and no figure");
    memset(&fake, 0, sizeof fake);
    fake.missing = true;
    oom_bench_measure(&row, &settings, &result);
    CHECK_EQ(result.status, OOM_OK);
    CHECK_STR(result.figures[1].missing, "gone");
    CHECK_EQ(fake.units[1], 0);
    CHECK_EQ(result.samples.entries, 1);
    oom_bench_result_free(&result);

    TEST("bench: a row that cannot be opened, or fails, is a result with its reason");
    memset(&fake, 0, sizeof fake);
    fake.open_status = OOM_ABSENT;
    oom_bench_measure(&row, &settings, &result);
    CHECK_EQ(result.status, OOM_ABSENT);
    CHECK_STR(result.reason, "not to be opened");
    CHECK_EQ(fake.closed, 0);
    memset(&fake, 0, sizeof fake);
    fake.work_status = OOM_IO;
    oom_bench_measure(&row, &settings, &result);
    CHECK_EQ(result.status, OOM_IO);
    CHECK_STR(result.reason, "asked to fail");
    CHECK_EQ(fake.closed, 2);
    CHECK_EQ(result.figure_count, 0);
    CHECK_EQ(oom_host_bytes_current(), before);
    CHECK(oom_failure_last()->status == OOM_OK);

    TEST("bench: the clock is the thread's own unless more threads work");
    struct oom_bench_row threaded = {.threaded = true};
    struct oom_bench_settings two = {.threads = 2};
    CHECK(oom_bench_cpu_time(&row, &settings) && oom_bench_cpu_time(&row, &two));
    CHECK(oom_bench_cpu_time(&threaded, &settings) && !oom_bench_cpu_time(&threaded, &two));
}

/* ---- every row ---- */

/* Opened and worked once, that none is dead; those of the host need real memory. */
static void test_rows(void) {
    TEST("bench: every quick row can be opened, works, and gives its memory back");
    struct oom_bench_list list;
    uint64_t before = oom_host_bytes_current();
    CHECK_OK(oom_bench_select(oom_bench_families, NULL, 0, true, &list));
    for (int i = 0; i < list.count; i++) {
        struct oom_bench_subjects subjects = {0};
        if (list.rows[i].threaded && i % 16 != 0) continue; /* of the products a few */
        CHECK_OK(list.rows[i].open(&list.rows[i], &settings, &subjects));
        for (int k = 0; k < subjects.count; k++) {
            struct oom_bench_subject *subject = &subjects.items[k];
            /* often enough that a leak of the device's memory would exhaust it */
            uint64_t times = strncmp(list.rows[i].name, "map/dry", 7) == 0 ? 100 : 2;
            if (subject->missing[0] == 0) CHECK_OK(subject->work(subject->context, times));
        }
        /* a peer may work on what is ours */
        for (int k = 0; k < subjects.count; k++) {
            struct oom_bench_subject *subject = &subjects.items[k];
            if (subject->close != NULL) subject->close(subject->context);
        }
    }
    oom_bench_list_free(&list);
    for (int f = 0; oom_bench_families[f] != NULL; f++) {
        if (oom_bench_families[f]->close != NULL) oom_bench_families[f]->close();
    }
    CHECK_EQ(oom_host_bytes_current(), before);
}

/* ---- what is shown ---- */

static struct oom_bench_result made(const struct oom_bench_row *of, double ns, double ratio) {
    struct oom_bench_result result = {.row = of, .figure_count = 2, .times = {10, 10}};
    result.figures[0].nanoseconds = (struct oom_spread){ns, ns * 0.9, ns * 1.1, ns * 0.9, 3};
    snprintf(result.figures[1].name, sizeof result.figures[1].name, "peer");
    result.figures[1].nanoseconds = result.figures[0].nanoseconds;
    result.figures[1].ratio = (struct oom_spread){ratio, ratio, ratio, ratio, 3};
    snprintf(result.gbench.missing, sizeof result.gbench.missing, "no Google");
    return result;
}

static void read_back(FILE *file, char *text, size_t n) {
    rewind(file);
    text[fread(text, 1, n - 1, file)] = 0;
    fclose(file);
}

static void test_show(void) {
    char text[4096], time[24];
    TEST("bench: times have three digits and a unit");
    CHECK_STR(oom_bench_time_text(1.234, time, sizeof time), "1.23 ns");
    CHECK_STR(oom_bench_time_text(99.96, time, sizeof time), "100 ns");
    CHECK_STR(oom_bench_time_text(999.6, time, sizeof time), "1.00 us");
    CHECK_STR(oom_bench_time_text(2.5e6, time, sizeof time), "2.50 ms");
    CHECK_STR(oom_bench_time_text(6e10, time, sizeof time), "60.0 s");

    TEST("bench: a family's foot: geometric mean, the least that counts, growth, what lacks");
    struct oom_bench_row rows[4] = {row, row, row, row};
    struct oom_bench_result results[4];
    static const double ratios[] = {0.5, 8, 2, 2};
    for (int i = 0; i < 4; i++) {
        snprintf(rows[i].name, sizeof rows[i].name, "fake/%d", i);
        rows[i].series = exp2(10 + i);
        rows[i].minor = i == 0;
        results[i] = made(&rows[i], 100 + 7 * i, ratios[i]);
    }
    FILE *file = tmpfile();
    CHECK(file != NULL);
    oom_bench_show_row(&results[1], false, file);
    oom_bench_show_foot(results, 4, file);
    read_back(file, text, sizeof text);
    CHECK_MSG(strstr(text, "107 ns  10.0%") != NULL, "%s", text);
    CHECK_MSG(strstr(text, "geometric mean of 4 rows 2.000, least 2.00 (2)") != NULL, "%s", text);
    CHECK_MSG(strstr(text, "doubling of n adds 7.0 ns") != NULL, "%s", text);
    CHECK(strstr(text, "no Google") != NULL && strstr(text, "note") != NULL);
}

static void test_record(void) {
    char text[16384];
    TEST("bench: the file has an entry per round, and the spread and the ratio beside");
    static double seconds[] = {1e-6, 2e-6, 3e-6, 1, 1, 1};
    static char quick[] = "--quick", *argv[] = {quick};
    const struct oom_bench_context context = {"1", "abc", "2026-01-01T00:00:00Z",
                                              1,   argv,  &settings};
    struct oom_bench_result results[2] = {made(&row, 200, 4), made(&row, 1, 1)};
    results[0].samples = (struct oom_samples){2, 3, seconds, true};
    results[1].samples = results[0].samples;
    results[1].status = OOM_IO;
    snprintf(results[1].reason, sizeof results[1].reason, "broken");
    FILE *file = tmpfile();
    CHECK(file != NULL);
    CHECK_OK(oom_bench_record(&context, results, 2, file));
    read_back(file, text, sizeof text);
    struct oom_json_document *document;
    CHECK_OK(oom_json_parse("record", text, strlen(text), 0, &document));
    const struct oom_json *root = oom_json_root(document);
    const struct oom_json *benchmarks = oom_json_get(root, "benchmarks");
    CHECK(benchmarks != NULL && benchmarks->count == 3); /* of the one that was measured */
    double value = 0;
    CHECK(oom_json_as_double(oom_json_get(oom_json_at(benchmarks, 1), "real_time"), &value));
    CHECK(fabs(value - 200) < 1e-9); /* 2 us for 10 units */
    const struct oom_json *rows = oom_json_get(oom_json_get(root, "oombench"), "rows");
    CHECK(rows != NULL && rows->count == 2);
    const struct oom_json *peer = oom_json_at(oom_json_get(oom_json_at(rows, 0), "peers"), 0);
    CHECK(oom_json_as_double(oom_json_get(oom_json_get(peer, "time_by_ours"), "median"), &value));
    CHECK(value == 4);
    const char *outcome = "";
    CHECK(oom_json_as_text(oom_json_get(oom_json_at(rows, 1), "outcome"), &outcome));
    CHECK_STR(outcome, "fail");
    oom_json_document_free(document);
}

void bench_test(void) {
    test_list();
    test_measure();
    test_rows();
    test_show();
    test_record();
}
