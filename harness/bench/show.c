/*
 * show.c: results as tables, one per family: the median per unit, its spread, the rate, what Google
 * Benchmark says, and for each peer its time by ours. Times of this machine compare with nothing;
 * the ratios, taken round by round within one run, do.
 */
#include "harness/bench/bench.h"

#include <math.h>
#include <string.h>

enum { NAME_WIDTH = 44 };

char *oom_bench_time_text(double nanoseconds, char *out, size_t n) {
    static const char *const units[] = {"ns", "us", "ms", "s"};
    int unit = 0;
    while (unit < 3 && nanoseconds >= 999.5) {
        nanoseconds /= 1000;
        unit++;
    }
    int digits = nanoseconds < 9.995 ? 2 : nanoseconds < 99.95 ? 1 : 0;
    snprintf(out, n, "%.*f %s", digits, nanoseconds, units[unit]);
    return out;
}

/* Without the family's name, which stands above. */
static const char *short_name(const struct oom_bench_row *row) {
    const char *slash = strchr(row->name, '/');
    return slash != NULL ? slash + 1 : row->name;
}

void oom_bench_show_head(const struct oom_bench_family *family, bool utf8, FILE *out) {
    fprintf(out, "%s: %s\n", family->name, family->prose);
    /* the sign is two bytes where it is one column */
    fprintf(out, "  %-*s %9s %*s %14s %9s\n", NAME_WIDTH, "", "ours", utf8 ? 7 : 6,
            utf8 ? "\xc2\xb1" : "+-", "rate", "Google's");
}

static void show_peers(const struct oom_bench_result *result, bool utf8, FILE *out) {
    for (int i = 1; i < result->figure_count; i++) {
        const struct oom_bench_figure *figure = &result->figures[i];
        if (figure->missing[0] != 0) {
            fprintf(out, "  %s %s", figure->name, utf8 ? "\xe2\x9c\x97" : "no");
        } else {
            fprintf(out, "  %s %.2f%s", figure->name, figure->ratio.median,
                    result->row->minor ? " minor" : "");
        }
    }
}

void oom_bench_show_row(const struct oom_bench_result *result, bool utf8, FILE *out) {
    const struct oom_bench_row *row = result->row;
    char time[24], rate[24] = "", google[24] = "-";
    if (result->status != OOM_OK) {
        fprintf(out, "  %-*s %s: %s\n", NAME_WIDTH, short_name(row),
                result->status == OOM_ABSENT ? "skipped"
                : utf8                       ? "\xe2\x9c\x97"
                                             : "failed",
                result->reason);
        return;
    }
    const struct oom_spread *ours = &result->figures[0].nanoseconds;
    oom_bench_time_text(ours->median, time, sizeof time);
    if (row->rate_unit != NULL) {
        snprintf(rate, sizeof rate, "%.3g %s", row->rate / ours->median, row->rate_unit);
    }
    if (result->gbench.missing[0] == 0) {
        oom_bench_time_text(result->cpu_time ? result->gbench.cpu_nanoseconds
                                             : result->gbench.nanoseconds,
                            google, sizeof google);
    }
    fprintf(out, "  %-*s %9s %5.1f%% %14s %9s", NAME_WIDTH, short_name(row), time,
            50 * (ours->high - ours->low) / ours->median, rate, google);
    show_peers(result, utf8, out);
    fprintf(out, "\n");
}

/* ---- below a family ---- */

/* What is not there, once, though every row lacks it. */
static void show_missing(const struct oom_bench_result *results, int count, FILE *out) {
    for (int p = 1; p < OOM_BENCH_SUBJECTS_MAX; p++) {
        for (int i = 0; i < count; i++) {
            if (p >= results[i].figure_count || results[i].figures[p].missing[0] == 0) continue;
            fprintf(out, "  no %s: %s\n", results[i].figures[p].name,
                    results[i].figures[p].missing);
            break;
        }
    }
    for (int i = 0; i < count; i++) {
        if (results[i].status != OOM_OK || results[i].gbench.missing[0] == 0) continue;
        fprintf(out, "  -: %s\n", results[i].gbench.missing);
        break;
    }
}

/* The geometric mean of a peer's ratios, and the least of those that are not minor. */
static void show_means(const struct oom_bench_result *results, int count, FILE *out) {
    for (int p = 1; p < OOM_BENCH_SUBJECTS_MAX; p++) {
        double logs = 0, worst = INFINITY;
        const struct oom_bench_result *named = NULL, *least = NULL;
        int rows = 0;
        for (int i = 0; i < count; i++) {
            if (p >= results[i].figure_count || results[i].figures[p].missing[0] != 0) continue;
            double ratio = results[i].figures[p].ratio.median;
            named = &results[i];
            logs += log(ratio);
            rows++;
            if (results[i].row->minor || ratio >= worst) continue;
            worst = ratio;
            least = &results[i];
        }
        if (rows == 0) continue;
        fprintf(out, "  %s's time by ours: geometric mean of %d row%s %.3f", named->figures[p].name,
                rows, rows == 1 ? "" : "s", exp(logs / rows));
        if (least != NULL) fprintf(out, ", least %.2f (%s)", worst, short_name(least->row));
        fprintf(out, "\n");
    }
}

/* Least squares of the time over log2 n: what a doubling adds. */
static void show_growth(const struct oom_bench_result *results, int count, FILE *out) {
    double n = 0, sx = 0, sy = 0, sxx = 0, sxy = 0;
    for (int i = 0; i < count; i++) {
        if (results[i].row->series <= 0 || results[i].status != OOM_OK) continue;
        double x = log2(results[i].row->series), y = results[i].figures[0].nanoseconds.median;
        n++;
        sx += x;
        sy += y;
        sxx += x * x;
        sxy += x * y;
    }
    if (n < 2) return;
    double slope = (n * sxy - sx * sy) / (n * sxx - sx * sx);
    fprintf(out, "  growth: a doubling of n adds %.1f ns (fit of a + b log2 n):", slope);
    for (int i = 0; i < count; i++) {
        if (results[i].row->series <= 0 || results[i].status != OOM_OK) continue;
        double x = log2(results[i].row->series), fit = (sy - slope * sx) / n + slope * x;
        fprintf(out, " %.0e: %.0f ns (%.0f)", results[i].row->series,
                results[i].figures[0].nanoseconds.median, fit);
    }
    fprintf(out, "\n");
}

void oom_bench_show_foot(const struct oom_bench_result *results, int count, FILE *out) {
    show_means(results, count, out);
    show_growth(results, count, out);
    show_missing(results, count, out);
    const char *note = results[0].row->family->note;
    if (note != NULL) fprintf(out, "  %s\n", note);
    fprintf(out, "\n");
}
