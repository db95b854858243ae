/*
 * Reads the text files in which the kernel says what a process may use.
 */
#include "kernels/simulated/limit.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, TEXT_BYTES = 16384 };

static void lower(struct oom_memory_limit *limit, uint64_t bytes, const char *source) {
    if (bytes < limit->bytes) *limit = (struct oom_memory_limit){bytes, source};
}

/* ---- small files ---- */

static bool read_text(const char *folder, const char *name, char text[TEXT_BYTES]) {
    char path[PATH_BYTES];
    int length = snprintf(path, sizeof path, "%s/%s", folder, name);
    if (length < 0 || length >= (int)sizeof path) return false;
    FILE *file = fopen(path, "re");
    if (file == NULL) return false;
    size_t got = fread(text, 1, TEXT_BYTES - 1, file);
    text[got] = 0;
    fclose(file);
    return got > 0;
}

/* The number that begins text after blanks; "max" and "unlimited" are none. */
static bool parse_number(const char *text, uint64_t *out) {
    text += strspn(text, " \t");
    if (*text < '0' || *text > '9') return false;
    *out = strtoull(text, NULL, 10);
    return true;
}

static bool read_number(const char *folder, const char *name, uint64_t *out) {
    char text[TEXT_BYTES];
    return read_text(folder, name, text) && parse_number(text, out);
}

/* The number after `key` at the start of a line. */
static bool find_number(const char *text, const char *key, uint64_t *out) {
    size_t length = strlen(key);
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, length) == 0) return parse_number(line + length, out);
    }
    return false;
}

/* ---- control groups ---- */

struct version {
    const char *limit, *usage, *cache; /* files; line in memory.stat */
};
static const struct version version_1 = {"memory.limit_in_bytes", "memory.usage_in_bytes",
                                         "total_inactive_file "};
static const struct version version_2 = {"memory.max", "memory.current", "inactive_file "};

static void read_group(const char *folder, const struct version *version,
                       struct oom_memory_limit *limit) {
    char stat[TEXT_BYTES];
    uint64_t most, usage, cache = 0;
    if (!read_number(folder, version->limit, &most)) return;
    if (!read_number(folder, version->usage, &usage)) return;
    if (read_text(folder, "memory.stat", stat)) find_number(stat, version->cache, &cache);
    usage -= cache < usage ? cache : usage;
    lower(limit, usage < most ? most - usage : 0, "the memory limit of the cgroup");
}

/* From the group up to the mount: every level limits. In a container the path may belong to the
 * host, then only the mount itself is found. */
static void walk_groups(const char *mount, const char *group, const struct version *version,
                        struct oom_memory_limit *limit) {
    char folder[PATH_BYTES];
    int length = snprintf(folder, sizeof folder, "%s%s", mount, group);
    if (length < 0 || length >= (int)sizeof folder) return;
    for (char *end = folder + length; end >= folder + strlen(mount); end--) {
        if (*end != '/' && *end != 0) continue;
        *end = 0;
        read_group(folder, version, limit);
    }
}

static bool has_memory(const char *controllers) {
    static const char name[] = "memory";
    for (const char *at = controllers; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        size_t length = strcspn(at, ",");
        if (length == sizeof name - 1 && strncmp(at, name, length) == 0) return true;
    }
    return false;
}

/* Lines are "number:controllers:path"; v2 has number 0 and no controllers (cgroups(7)). */
static void read_groups(const char *proc, const char *cgroup, struct oom_memory_limit *limit) {
    char text[TEXT_BYTES], mount[PATH_BYTES], *rest = NULL;
    if (!read_text(proc, "self/cgroup", text)) return;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *controllers = strchr(line, ':');
        char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (group == NULL) continue;
        *controllers++ = 0;
        *group++ = 0;
        if (*controllers == 0) {
            walk_groups(cgroup, group, &version_2, limit);
        } else if (has_memory(controllers)) {
            int length = snprintf(mount, sizeof mount, "%s/memory", cgroup);
            if (length > 0 && length < (int)sizeof mount) {
                walk_groups(mount, group, &version_1, limit);
            }
        }
    }
}

/* ---- the process and the machine ---- */

static void read_process(const char *proc, struct oom_memory_limit *limit) {
    char text[TEXT_BYTES];
    uint64_t most, pages = 0;
    if (!read_text(proc, "self/limits", text)) return;
    if (find_number(text, "Max file size", &most)) lower(limit, most, "RLIMIT_FSIZE");
    if (!find_number(text, "Max address space", &most)) return;
    read_number(proc, "self/statm", &pages);
    uint64_t used = pages * (uint64_t)sysconf(_SC_PAGESIZE);
    lower(limit, used < most ? most - used : 0, "RLIMIT_AS");
}

static void read_machine(const char *proc, struct oom_memory_limit *limit) {
    char text[TEXT_BYTES];
    uint64_t kib;
    if (read_text(proc, "meminfo", text) && find_number(text, "MemAvailable:", &kib)) {
        lower(limit, kib * 1024, "MemAvailable of the machine");
    }
}

struct oom_memory_limit oom_memory_limit_read(const char *proc, const char *cgroup) {
    struct oom_memory_limit limit = {UINT64_MAX, "no limit"};
    read_groups(proc, cgroup, &limit);
    read_process(proc, &limit);
    read_machine(proc, &limit);
    return limit;
}
