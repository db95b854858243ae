/*
 * replay-rows.c: a recorded run of a million events, as our own exporter writes it for PyTorch's
 * tools, read and replayed: events per second, reading included. The target: 2 million.
 */
#include "harness/bench/bench.h"

#include "harness/bench/load.h"
#include "harness/memory/replay.h"
#include "kernels/hostmem.h"

#include <errno.h>
#include <math.h>
#include <string.h>

enum { EVENTS, WORK };
enum { PARSE_AND_REPLAY, PARSE_AND_VERIFY, PARSE };

struct recording {
    char *bytes;
    size_t n;
    uint64_t events;
    int work;
};

/* ---- one: made, written, read back as bytes ---- */

/* The ring is larger than the events asked for: the recording begins with nothing. */
static enum oom_status record(uint64_t events, uint64_t seed, struct oom_snapshot *out) {
    enum { LIVE = 2000, LARGEST = 16 << 20 };
    struct oom_load *load;
    OOM_TRY(oom_load_create("dry", (uint64_t)1 << 40, 2 * events, &load));
    enum oom_status status = oom_load_scatter(load, LIVE, LARGEST, seed);
    while (status == OOM_OK && oom_allocator_trace_count(load->allocator) < events) {
        status = oom_load_churn(load, 256);
    }
    if (status == OOM_OK) status = oom_snapshot_take(load->allocator, out);
    oom_load_free(load);
    return status;
}

static enum oom_status read_all(FILE *file, struct recording *r) {
    long end = fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    if (end < 0) return oom_fail_native(OOM_IO, errno, "a temporary file: %s", strerror(errno));
    r->n = (size_t)end;
    r->bytes = oom_host_alloc(r->n);
    if (r->bytes == NULL) return oom_fail(OOM_HOST_NOMEM, "a recording of %zu bytes", r->n);
    rewind(file);
    if (fread(r->bytes, 1, r->n, file) == r->n) return OOM_OK;
    return oom_fail(OOM_IO, "a temporary file cannot be read back");
}

static enum oom_status make(uint64_t events, uint64_t seed, struct recording *r) {
    struct oom_snapshot snapshot = {0};
    FILE *file = tmpfile();
    if (file == NULL) return oom_fail_native(OOM_IO, errno, "tmpfile: %s", strerror(errno));
    enum oom_status status = record(events, seed, &snapshot);
    if (status == OOM_OK) status = oom_snapshot_write_pickle(&snapshot, file);
    if (status == OOM_OK) status = read_all(file, r);
    r->events = snapshot.event_count;
    oom_snapshot_free(&snapshot);
    fclose(file);
    return status;
}

/* ---- what is measured ---- */

static enum oom_status replay(const struct recording *r, const struct oom_snapshot *snapshot) {
    const struct oom_replay_options options = {0};
    struct oom_replay_outcome outcome;
    struct oom_replay_verdict verdict;
    if (snapshot->event_count != r->events) {
        return oom_fail(OOM_INTERNAL, "%llu events were written and %llu read",
                        (unsigned long long)r->events, (unsigned long long)snapshot->event_count);
    }
    switch (r->work) {
    case PARSE_AND_REPLAY:
        OOM_TRY(oom_replay_what_if(snapshot, &options, OOM_REPLAY_UNLIMITED, &outcome));
        if (!outcome.fits) return oom_fail(OOM_INTERNAL, "out of memory without a limit");
        break;
    case PARSE_AND_VERIFY:
        OOM_TRY(oom_replay_verify(snapshot, &options, &verdict));
        if (!verdict.matched) {
            return oom_fail(OOM_INTERNAL, "our own recording replays otherwise: event %llu",
                            (unsigned long long)verdict.first_event);
        }
        break;
    default:
        break;
    }
    return OOM_OK;
}

/* A unit is a whole recording. */
static enum oom_status work(void *context, uint64_t times) {
    const struct recording *r = context;
    for (uint64_t done = 0; done < times; done++) {
        struct oom_snapshot snapshot = {0};
        OOM_TRY(oom_snapshot_parse("recording", r->bytes, r->n, NULL, &snapshot));
        enum oom_status status = replay(r, &snapshot);
        oom_snapshot_free(&snapshot);
        OOM_TRY(status);
    }
    return OOM_OK;
}

static void close_recording(void *context) {
    struct recording *r = context;
    oom_host_free(r->bytes);
    oom_host_free(r);
}

static enum oom_status open_row(const struct oom_bench_row *row,
                                const struct oom_bench_settings *settings,
                                struct oom_bench_subjects *out) {
    struct recording *r = oom_host_calloc(1, sizeof *r);
    if (r == NULL) return oom_fail(OOM_HOST_NOMEM, "a recording");
    r->work = (int)row->parameters[WORK];
    enum oom_status status = make((uint64_t)row->parameters[EVENTS], settings->seed, r);
    if (status != OOM_OK) {
        close_recording(r);
        return status;
    }
    out->count = 1;
    out->items[0] =
        (struct oom_bench_subject){.context = r, .work = work, .close = close_recording};
    return OOM_OK;
}

static enum oom_status list_rows(const struct oom_bench_family *family,
                                 struct oom_bench_list *list) {
    static const char *const names[] = {"what-if", "verify", "parse"};
    (void)family;
    for (int kind = 0; kind < 3; kind++) {
        for (int power = 4; power <= 6; power++) {
            double events = pow(10, power);
            const struct oom_bench_row row = {.unit = "recording",
                                              .rate_unit = "Mevents/s",
                                              .rate = events * 1e3,
                                              .quick = power == 4,
                                              .parameters = {(int64_t)events, kind},
                                              .open = open_row};
            OOM_TRY(oom_bench_list_add(list, &row, "replay/%s/events=1e%d", names[kind], power));
        }
    }
    return OOM_OK;
}

const struct oom_bench_family oom_bench_replay = {
    .name = "replay",
    .prose = "a recording in PyTorch's format, read and replayed",
    .note = "what-if, verify: reading is included; parse: reading alone. The recording: random "
            "sizes from 512 B to 16 MiB and random frees, 2000 blocks live",
    .list = list_rows,
};
