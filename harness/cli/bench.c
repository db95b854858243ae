/*
 * bench.c: `oombench bench [GLOB...]`: measurements, by our sampler beside peers, and by Google
 * Benchmark where it is there. Google Benchmark goes first, over all rows, so that the table can be
 * printed as our own rounds come in.
 */
#include "harness/bench/bench.h"
#include "harness/cli/cli.h"

#include "harness/base/file.h"
#include "harness/base/options.h"
#include "harness/base/text.h"
#include "harness/bench/gbench.h"
#include "harness/cli/capabilities.h"
#include "kernels/hostmem.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum format { TABLE, JSON };

struct bench_command {
    struct oom_bench_settings settings;
    int isa, format;
    bool list, help;
    const char *json;
    struct oom_option_list google;
};

static const char *const format_names[] = {"table", "json", NULL};
#define NAME_OF(id, name, ...) name,
static const char *const isa_names[] = {OOM_ISA_MAP(NAME_OF) NULL};
#undef NAME_OF

#define AT(field) .offset = offsetof(struct bench_command, field)
static const struct oom_option rows[] = {
    {"list", 'l', OOM_OPTION_FLAG, AT(list), .help = "names the rows, measures nothing"},
    {"quick", 'q', OOM_OPTION_FLAG, AT(settings.quick),
     .help = "the rows that are made quickly, few and short samples: to see that all works"},
    {"seconds", 0, OOM_OPTION_DURATION, AT(settings.seconds), .fallback = "0",
     .help = "of our rounds, per row, where they do not become steady; 0: as usual"},
    {"seed", 0, OOM_OPTION_UINT64, AT(settings.seed), .fallback = "1",
     .environment = "OOMBENCH_SEED", .help = "of sizes, frees and the order in a round"},
    {"threads", 't', OOM_OPTION_INT, AT(settings.threads), .min = 1, .max = 1024, .fallback = "1",
     .help = "of the host kernels and of OpenBLAS"},
    {"isa", 0, OOM_OPTION_CHOICE, AT(isa), .names = isa_names, .fallback = "auto",
     .help = "instruction set of the host kernels and of OpenBLAS"},
    {"format", 'f', OOM_OPTION_CHOICE, AT(format), .names = format_names, .fallback = "table",
     .help = "on standard output"},
    {"json", 0, OOM_OPTION_PATH, AT(json), .metavar = "FILE",
     .help = "results as JSON; - is standard output"},
    {"benchmark_", 0, OOM_OPTION_PREFIX, AT(google),
     .help = "flags of Google Benchmark: min_time, repetitions, filter, out, format; with format "
             "it alone measures and prints"},
    {"help", 'h', OOM_OPTION_FLAG, AT(help), .help = "this list"},
};
#undef AT

/* ---- Google Benchmark's turn ---- */

/* A row as Google Benchmark sees it. */
struct guest {
    const struct oom_bench_row *row;
    const struct oom_bench_settings *settings;
    struct oom_bench_subjects subjects;
    enum oom_status status;
};

static void say_why(char *reason, size_t n) {
    snprintf(reason, n, "%.120s", oom_failure_last()->message);
    oom_failure_clear();
}

static void guest_close(void *context) {
    struct guest *guest = context;
    for (int i = 0; i < guest->subjects.count; i++) {
        struct oom_bench_subject *subject = &guest->subjects.items[i];
        if (subject->close != NULL) subject->close(subject->context);
    }
    guest->subjects.count = 0;
}

static bool guest_open(void *context, char *reason, size_t n) {
    struct guest *guest = context;
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\r\033[K%s\r", guest->row->name);
    guest->subjects = (struct oom_bench_subjects){0};
    guest->status = guest->row->open(guest->row, guest->settings, &guest->subjects);
    if (guest->status != OOM_OK) say_why(reason, n);
    return guest->status == OOM_OK;
}

static bool guest_work(void *context, uint64_t times, char *reason, size_t n) {
    struct guest *guest = context;
    struct oom_bench_subject *subject = &guest->subjects.items[0];
    guest->status = subject->work(subject->context, times);
    if (guest->status != OOM_OK) say_why(reason, n);
    return guest->status == OOM_OK;
}

static void keep(const struct oom_gbench_result *found, struct oom_bench_gbench *out) {
    *out = (struct oom_bench_gbench){.nanoseconds = found->nanoseconds,
                                     .cpu_nanoseconds = found->cpu_nanoseconds,
                                     .iterations = found->iterations,
                                     .allocations = found->allocations,
                                     .bytes = found->bytes};
    if (found->error[0] != 0) {
        snprintf(out->missing, sizeof out->missing, "%.150s", found->error);
    } else if (!found->measured) {
        snprintf(out->missing, sizeof out->missing, "left out by --benchmark_filter");
    }
}

/* *failed: a row failed in it, which its own exit code would not say. */
static enum oom_status measure_as_guests(const struct bench_command *command, bool reports,
                                         const struct oom_bench_list *list,
                                         struct oom_bench_result *results, bool *failed) {
    size_t count = (size_t)list->count;
    struct guest *guests = oom_host_calloc(count, sizeof *guests);
    struct oom_gbench_entry *entries = oom_host_calloc(count, sizeof *entries);
    struct oom_gbench_result *found = oom_host_calloc(count, sizeof *found);
    enum oom_status status = OOM_OK;
    if (guests == NULL || entries == NULL || found == NULL) {
        status = oom_fail(OOM_HOST_NOMEM, "%d rows", list->count);
        goto out;
    }
    for (int i = 0; i < list->count; i++) {
        const struct oom_bench_row *row = &list->rows[i];
        guests[i] = (struct guest){.row = row, .settings = &command->settings};
        entries[i] =
            (struct oom_gbench_entry){.name = row->name,
                                      .context = &guests[i],
                                      .cpu_time = oom_bench_cpu_time(row, &command->settings),
                                      .open = guest_open,
                                      .work = guest_work,
                                      .close = guest_close};
    }
    status = oom_gbench_run(entries, list->count, reports, found);
    for (int i = 0; status == OOM_OK && i < list->count; i++) {
        keep(&found[i], &results[i].gbench);
        if (found[i].error[0] == 0 || guests[i].status == OOM_ABSENT) continue;
        fprintf(stderr, "oombench bench: %s: %s\n", list->rows[i].name, found[i].error);
        *failed = true;
    }
out:
    oom_host_free(guests);
    oom_host_free(entries);
    oom_host_free(found);
    return status;
}

/* Ours first, so that what the user says wins. A minimum of half a second for each of hundreds of
 * rows is long. */
static enum oom_status google_flags(const struct bench_command *command, bool *reports) {
    const char *flags[OOM_OPTION_LIST_MAX + 1];
    int count = 0;
    *reports = false;
    if (oom_gbench_present()) {
        flags[count++] =
            command->settings.quick ? "--benchmark_min_time=0.001" : "--benchmark_min_time=0.1";
    }
    for (int i = 0; i < command->google.count; i++) flags[count++] = command->google.items[i];
    return oom_gbench_flags(count, flags, reports);
}

/* ---- our turn ---- */

static void measure_family(const struct bench_command *command, struct oom_bench_result *results,
                           int count, bool show, bool *failed) {
    bool utf8 = oom_locale_is_utf8();
    if (show) oom_bench_show_head(results[0].row->family, utf8, stdout);
    for (int i = 0; i < count; i++) {
        oom_bench_measure(results[i].row, &command->settings, &results[i]);
        if (results[i].status != OOM_OK && results[i].status != OOM_ABSENT) {
            *failed = true;
            if (!show) {
                fprintf(stderr, "oombench bench: %s: %s\n", results[i].row->name,
                        results[i].reason);
            }
        }
        if (show) oom_bench_show_row(&results[i], utf8, stdout);
        fflush(stdout);
    }
    if (show) oom_bench_show_foot(results, count, stdout);
}

/* Rows of one family lie together. */
static void measure_all(const struct bench_command *command, struct oom_bench_result *results,
                        int count, bool show, bool *failed) {
    for (int i = 0, n; i < count; i += n) {
        for (n = 1; i + n < count && results[i + n].row->family == results[i].row->family;) n++;
        measure_family(command, results + i, n, show, failed);
    }
}

static int drop_filtered(struct oom_bench_result *results, int count) {
    int kept = 0;
    for (int i = 0; i < count; i++) {
        if (strncmp(results[i].gbench.missing, "left out", 8) != 0) results[kept++] = results[i];
    }
    return kept;
}

static enum oom_status write_json(int argc, char **argv, const struct bench_command *command,
                                  const struct oom_bench_result *results, int count, FILE *out) {
    char started[32];
    time_t now = time(NULL);
    struct tm utc;
    strftime(started, sizeof started, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    const struct oom_bench_context context = {.version = oom_version(),
                                              .git = oom_commit(),
                                              .started = started,
                                              .argc = argc,
                                              .argv = argv,
                                              .settings = &command->settings};
    return oom_bench_record(&context, results, count, out);
}

static enum oom_status run(int argc, char **argv, struct bench_command *command,
                           const struct oom_bench_list *list, bool reports, bool *failed) {
    bool piped = command->json != NULL && strcmp(command->json, "-") == 0;
    bool standard = command->format == JSON || piped;
    struct oom_file_writer file = {0};
    int count = list->count;
    struct oom_bench_result *results = oom_host_calloc((size_t)count, sizeof *results);
    if (results == NULL) return oom_fail(OOM_HOST_NOMEM, "%d results", count);
    for (int i = 0; i < count; i++) {
        results[i].row = &list->rows[i];
        snprintf(results[i].gbench.missing, sizeof results[i].gbench.missing, "%s",
                 oom_gbench_note());
    }
    enum oom_status status = OOM_OK;
    if (command->json != NULL && !piped) status = oom_file_writer_open(&file, command->json);
    if (status == OOM_OK && oom_gbench_present()) {
        status = measure_as_guests(command, reports, list, results, failed);
    }
    if (status == OOM_OK && !reports) {
        count = drop_filtered(results, count);
        measure_all(command, results, count, !standard, failed);
        if (standard) status = write_json(argc, argv, command, results, count, stdout);
        if (status == OOM_OK && file.file != NULL) {
            status = write_json(argc, argv, command, results, count, file.file);
            if (status == OOM_OK) status = oom_file_writer_commit(&file);
        }
    }
    oom_file_writer_abandon(&file);
    for (int i = 0; i < count; i++) oom_bench_result_free(&results[i]);
    for (int i = 0; oom_bench_families[i] != NULL; i++) {
        if (oom_bench_families[i]->close != NULL) oom_bench_families[i]->close();
    }
    oom_host_free(results);
    return status;
}

static void print_list(const struct oom_bench_list *list) {
    const struct oom_bench_family *family = NULL;
    for (int i = 0; i < list->count; i++) {
        if (list->rows[i].family != family) {
            family = list->rows[i].family;
            printf("%s: %s\n", family->name, family->prose);
        }
        printf("  %s\n", list->rows[i].name);
    }
}

int oom_verb_bench(int argc, char **argv) {
    enum { GLOBS_MAX = 256 };
    const char *globs[GLOBS_MAX];
    const struct oom_options table = {rows, sizeof rows / sizeof rows[0]};
    struct bench_command command = {0};
    struct oom_bench_list list = {0};
    int count = 0;
    bool reports = false, failed = false;
    enum oom_status status = OOM_OK;
    if (argc > GLOBS_MAX) status = oom_fail(OOM_USAGE, "more than %d arguments", GLOBS_MAX);
    if (status == OOM_OK)
        status = oom_options_parse(&table, argc, argv, &command, globs, &count, NULL);
    if (status == OOM_OK && command.help) {
        printf("usage: oombench bench [GLOB...] [options]\n\n");
        oom_options_help(&table, stdout, oom_terminal_columns(1));
        return OOM_EXIT_OK;
    }
    command.settings.isa = (enum oom_isa)command.isa;
    if (status == OOM_OK) status = google_flags(&command, &reports);
    if (status == OOM_OK) {
        status = oom_bench_select(oom_bench_families, globs, count, command.settings.quick, &list);
    }
    if (status == OOM_OK && command.list) {
        print_list(&list);
    } else if (status == OOM_OK) {
        status = run(argc, argv, &command, &list, reports, &failed);
    }
    oom_bench_list_free(&list);
    if (status != OOM_OK) return oom_exit_for(status, "bench");
    return failed ? OOM_EXIT_FAILED : OOM_EXIT_OK;
}
