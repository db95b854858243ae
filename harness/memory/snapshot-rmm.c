/*
 * Logs of RAPIDS RMM: CSV, one line per call, columns found by the names in the first line. An
 * allocation becomes `alloc`, a free `free_requested` and `free_completed` with the size of its
 * allocation, a failure `oom`. There are no segments: RMM's own pool is not in the log.
 */
#include "harness/memory/snapshot-build.h"
#include "harness/memory/snapshot-parts.h"

#include "harness/base/text.h"

#include <string.h>

enum { COLUMNS_MAX = 32 };

#define COLUMN_MAP(X) \
    X(TIME, "Time") \
    X(ACTION, "Action") \
    X(POINTER, "Pointer") \
    X(SIZE, "Size") \
    X(STREAM, "Stream")

enum column {
#define X(id, name) COLUMN_##id,
    COLUMN_MAP(X)
#undef X
        COLUMN_COUNT
};

static const char *const column_names[COLUMN_COUNT] = {
#define X(id, name) name,
    COLUMN_MAP(X)
#undef X
};

struct field {
    const char *text;
    size_t bytes;
};

struct log {
    struct oom_snapshot_builder build;
    struct oom_address_map live; /* pointer -> index of its alloc among the events */
    const char *at, *end;
    struct field fields[COLUMNS_MAX];
    int field_count, column[COLUMN_COUNT];
    uint64_t day, last_us; /* microseconds before this day; the last time of day */
};

enum { SHOWN = 40 }; /* bytes of what was found */

static enum oom_status refuse(const struct log *log, enum column column, const char *wanted) {
    const struct field *field = &log->fields[log->column[column]];
    char text[4 * SHOWN + 1];
    return oom_build_fail(
        &log->build, "column %d (%s) is '%s'; %s is expected", log->column[column] + 1,
        column_names[column],
        oom_text_show(field->text, field->bytes < SHOWN ? field->bytes : SHOWN, text, sizeof text),
        wanted);
}

static struct field trim(const char *text, size_t bytes) {
    while (bytes > 0 && (*text == ' ' || *text == '\t')) {
        text++;
        bytes--;
    }
    while (bytes > 0 && (text[bytes - 1] == ' ' || text[bytes - 1] == '\t')) bytes--;
    return (struct field){text, bytes};
}

static bool is(const struct field *field, const char *text) {
    return field->bytes == strlen(text) && memcmp(field->text, text, field->bytes) == 0;
}

/* The next line, cut at its commas. */
static enum oom_status line_read(struct log *log) {
    log->build.at++;
    const char *end = memchr(log->at, '\n', (size_t)(log->end - log->at));
    const char *next = end != NULL ? end + 1 : log->end;
    if (end == NULL) end = log->end;
    if (end > log->at && end[-1] == '\r') end--;
    log->field_count = 0;
    for (const char *at = log->at;;) {
        const char *comma = memchr(at, ',', (size_t)(end - at));
        if (log->field_count == COLUMNS_MAX)
            return oom_build_fail(&log->build, "more than %d columns", COLUMNS_MAX);
        const char *stop = comma != NULL ? comma : end;
        log->fields[log->field_count++] = trim(at, (size_t)(stop - at));
        if (comma == NULL) break;
        at = comma + 1;
    }
    log->at = next;
    return OOM_OK;
}

static bool is_blank(const struct log *log) {
    return log->field_count == 1 && log->fields[0].bytes == 0;
}

static enum oom_status header_read(struct log *log) {
    OOM_TRY(line_read(log));
    for (int c = 0; c < COLUMN_COUNT; c++) {
        log->column[c] = -1;
        for (int i = 0; i < log->field_count; i++) {
            if (!is(&log->fields[i], column_names[c])) continue;
            if (log->column[c] >= 0)
                return oom_build_fail(&log->build, "two columns are named %s", column_names[c]);
            log->column[c] = i;
        }
        if (log->column[c] < 0)
            return oom_build_fail(&log->build,
                                  "no column is named %s; an RMM log begins with "
                                  "Thread,Time,Action,Pointer,Size,Stream",
                                  column_names[c]);
    }
    return OOM_OK;
}

/* ---- fields ---- */

static bool digits_read(const char **at, const char *end, unsigned base, uint64_t *out) {
    const char *start = *at;
    uint64_t value = 0;
    for (; *at < end; ++*at) {
        unsigned c = (unsigned char)**at, digit = c - '0';
        if (digit > 9) digit = (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : 99;
        if (digit >= base) break;
        if (__builtin_mul_overflow(value, base, &value) ||
            __builtin_add_overflow(value, digit, &value))
            return false;
    }
    *out = value;
    return *at > start;
}

/* Decimal, hexadecimal after 0x, or C's "(nil)". */
static bool number_read(const struct field *field, uint64_t *out) {
    *out = 0;
    if (is(field, "(nil)")) return true;
    const char *at = field->text, *end = at + field->bytes;
    bool hex = field->bytes > 2 && at[0] == '0' && (at[1] | 32) == 'x';
    if (hex) at += 2;
    return digits_read(&at, end, hex ? 16 : 10, out) && at == end;
}

static enum oom_status column_read(const struct log *log, enum column column, uint64_t *out) {
    if (number_read(&log->fields[log->column[column]], out)) return OOM_OK;
    return refuse(log, column, "a number");
}

/* HH:MM:SS, then ':' or '.' and the fraction. Versions of RMM write both. */
static bool time_of_day(const struct field *field, uint64_t *out) {
    static const uint64_t limits[] = {24, 60, 61};
    const char *at = field->text, *end = at + field->bytes;
    uint64_t parts[3], seconds = 0;
    for (int i = 0; i < 3; i++) {
        if (i > 0 && (at == end || *at++ != ':')) return false;
        if (!digits_read(&at, end, 10, &parts[i]) || parts[i] >= limits[i]) return false;
        seconds = seconds * 60 + parts[i];
    }
    *out = seconds * 1000000;
    if (at == end) return true;
    if (*at != ':' && *at != '.') return false;
    const char *fraction = ++at;
    uint64_t micros;
    if (!digits_read(&at, end, 10, &micros) || at != end || end - fraction > 9) return false;
    for (long i = end - fraction; i < 6; i++) micros *= 10;
    for (long i = end - fraction; i > 6; i--) micros /= 10;
    *out += micros;
    return true;
}

/* A time far before the one before it is the next day's. */
static enum oom_status time_read(struct log *log, uint64_t *out) {
    static const uint64_t day = UINT64_C(86400) * 1000000;
    uint64_t us;
    if (!time_of_day(&log->fields[log->column[COLUMN_TIME]], &us))
        return refuse(log, COLUMN_TIME, "HH:MM:SS.microseconds");
    if (us + day / 2 < log->last_us) log->day += day;
    log->last_us = us;
    *out = log->day + us;
    return OOM_OK;
}

/* ---- lines ---- */

static enum oom_status allocated(struct log *log, struct oom_snapshot_event *event) {
    uint64_t before;
    if (oom_address_map_get(&log->live, event->address, &before))
        return refuse(log, COLUMN_POINTER, "a pointer that is not allocated already");
    event->action = OOM_ACTION_ALLOC;
    OOM_TRY(oom_address_map_put(&log->live, event->address, log->build.out.event_count));
    return oom_build_event(&log->build, event);
}

static enum oom_status freed(struct log *log, struct oom_snapshot_event *event) {
    uint64_t alloc;
    if (!oom_address_map_get(&log->live, event->address, &alloc))
        return refuse(log, COLUMN_POINTER, "a pointer that is allocated");
    if (event->bytes != log->build.out.events[alloc].bytes)
        return refuse(log, COLUMN_SIZE, "the size of the pointer's allocation");
    oom_address_map_remove(&log->live, event->address);
    event->action = OOM_ACTION_FREE_REQUESTED;
    OOM_TRY(oom_build_event(&log->build, event));
    event->action = OOM_ACTION_FREE_COMPLETED;
    return oom_build_event(&log->build, event);
}

static enum oom_status event_read(struct log *log) {
    for (int c = 0; c < COLUMN_COUNT; c++) {
        if (log->column[c] >= log->field_count)
            return oom_build_fail(&log->build, "%d columns; %s is column %d", log->field_count,
                                  column_names[c], log->column[c] + 1);
    }
    struct oom_snapshot_event event = {0};
    OOM_TRY(time_read(log, &event.time_us));
    OOM_TRY(column_read(log, COLUMN_POINTER, &event.address));
    OOM_TRY(column_read(log, COLUMN_SIZE, &event.bytes));
    OOM_TRY(column_read(log, COLUMN_STREAM, &event.stream));
    const struct field *action = &log->fields[log->column[COLUMN_ACTION]];
    if (is(action, "allocate failure")) {
        event.action = OOM_ACTION_OOM;
        event.address = 0; /* what the device had left is not in the log */
        return oom_build_event(&log->build, &event);
    }
    bool allocate = is(action, "allocate");
    if (!allocate && !is(action, "free"))
        return refuse(log, COLUMN_ACTION, "allocate, free or allocate failure");
    if (event.bytes == 0 && event.address == 0) return OOM_OK; /* nothing was asked for */
    return allocate ? allocated(log, &event) : freed(log, &event);
}

static enum oom_status log_read(struct log *log) {
    OOM_TRY(header_read(log));
    while (log->at < log->end) {
        OOM_TRY(line_read(log));
        if (!is_blank(log)) OOM_TRY(event_read(log));
    }
    return oom_build_trace(&log->build);
}

enum oom_status oom_snapshot_parse_rmm(const char *name, const void *bytes, size_t n,
                                       struct oom_snapshot *out) {
    struct log log = {.at = bytes, .end = (const char *)bytes + n};
    enum oom_status status = oom_build_begin(&log.build, name, "line");
    log.build.out.kind = OOM_SNAPSHOT_KIND_RMM;
    if (status == OOM_OK) status = log_read(&log);
    if (status == OOM_OK) status = oom_build_finish(&log.build, out);
    oom_address_map_free(&log.live);
    oom_build_abandon(&log.build);
    return status;
}
