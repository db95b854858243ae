/* What kind of file it is, by what is in it; and what all kinds share. */
#include "harness/memory/snapshot.h"

#include "harness/base/file.h"
#include "harness/memory/snapshot-parts.h"
#include "kernels/hostmem.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_BYTES_MAX (UINT64_C(8) << 30)

const char *oom_snapshot_kind_name(enum oom_snapshot_kind kind) {
    static const char *const names[] = {
#define X(id, name) [OOM_SNAPSHOT_KIND_##id] = name,
        OOM_SNAPSHOT_KIND_MAP(X)
#undef X
    };
    return (unsigned)kind < sizeof names / sizeof *names ? names[kind] : "unknown";
}

void oom_snapshot_free(struct oom_snapshot *snapshot) {
    oom_host_free(snapshot->segments);
    oom_host_free(snapshot->blocks);
    oom_host_free(snapshot->events);
    oom_host_free(snapshot->traces);
    oom_host_free(snapshot->pools);
    oom_host_free(snapshot->site_text);
    oom_host_free(snapshot->sites);
    *snapshot = (struct oom_snapshot){0};
}

static bool begins(const char *bytes, size_t n, const char *with, size_t length) {
    return n >= length && memcmp(bytes, with, length) == 0;
}

/* The first line has a comma: some table, and its reader says what it lacks. */
static bool is_table(const char *bytes, size_t n) {
    const char *end = memchr(bytes, '\n', n);
    size_t line = end != NULL ? (size_t)(end - bytes) : n;
    return memchr(bytes, ',', line) != NULL && memchr(bytes, 0, line) == NULL;
}

static enum oom_status unknown(const char *name, const unsigned char *bytes, size_t n) {
    static const char wanted[] =
        "a PyTorch snapshot (pickle), an RMM log (CSV), or JSON of this program is expected";
    static const struct {
        const char *with;
        int length;
        const char *hint;
    } hints[] = {{"\x1f\x8b", 2, "it is compressed by gzip"},
                 {"PK", 2, "it is a zip archive"},
                 {"\x28\xb5\x2f\xfd", 4, "it is compressed by zstd"},
                 {"<", 1, "it is a page of a viewer; the snapshot it was made from is needed"}};
    for (size_t i = 0; i < sizeof hints / sizeof *hints; i++) {
        if (begins((const char *)bytes, n, hints[i].with, (size_t)hints[i].length))
            return oom_fail(OOM_USAGE, "%.80s: %s; %s", name, hints[i].hint, wanted);
    }
    if (n == 0) return oom_fail(OOM_USAGE, "%.80s: it is empty; %s", name, wanted);
    return oom_fail(OOM_USAGE, "%.80s: it begins with byte 0x%02x; %s", name, bytes[0], wanted);
}

enum oom_status oom_snapshot_parse(const char *name, const void *bytes, size_t n, const char *part,
                                   struct oom_snapshot *out) {
    const char *text = bytes;
    size_t skip = 0;
    *out = (struct oom_snapshot){0};
    while (skip < n &&
           (text[skip] == ' ' || text[skip] == '\t' || text[skip] == '\n' || text[skip] == '\r'))
        skip++;
    if (skip < n && (text[skip] == '{' || text[skip] == '['))
        return oom_snapshot_parse_json(name, bytes, n, part, out);
    if (part != NULL && *part != 0)
        return oom_fail(OOM_USAGE,
                        "%.80s: the part '%.60s' was asked for; only results files have "
                        "parts",
                        name, part);
    if (begins(text, n, "\x80", 1)) return oom_snapshot_parse_pickle(name, bytes, n, out);
    if (n > 0 && is_table(text, n) && !begins(text, n, "<", 1))
        return oom_snapshot_parse_rmm(name, bytes, n, out);
    return unknown(name, bytes, n);
}

enum oom_status oom_snapshot_read(const char *path, const char *part, struct oom_snapshot *out) {
    char *bytes;
    size_t n;
    struct stat info;
    *out = (struct oom_snapshot){0};
    if (stat(path, &info) == 0 && (uint64_t)info.st_size > FILE_BYTES_MAX)
        return oom_fail(OOM_USAGE, "%.200s: %lld bytes; at most %" PRIu64 " are read", path,
                        (long long)info.st_size, FILE_BYTES_MAX);
    OOM_TRY(oom_file_read(path, FILE_BYTES_MAX, &bytes, &n));
    enum oom_status status = oom_snapshot_parse(path, bytes, n, part, out);
    oom_host_free(bytes);
    return status;
}
