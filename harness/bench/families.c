/*
 * families.c: the table of what can be measured, and the rows that somebody asks for.
 */
#include "harness/bench/bench.h"

#include "harness/base/glob.h"
#include "kernels/hostmem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const struct oom_bench_family *const oom_bench_families[] = {
    &oom_bench_allocator, &oom_bench_malloc, &oom_bench_map,
    &oom_bench_replay,    &oom_bench_gemm,   NULL,
};

static enum oom_status grow(struct oom_bench_list *list) {
    int capacity = list->capacity > 0 ? 2 * list->capacity : 64;
    struct oom_bench_row *rows =
        oom_host_realloc(list->rows, (size_t)capacity * sizeof *list->rows);
    if (rows == NULL) return oom_fail(OOM_HOST_NOMEM, "a list of %d rows", capacity);
    list->rows = rows;
    list->capacity = capacity;
    return OOM_OK;
}

enum oom_status oom_bench_list_add(struct oom_bench_list *list, const struct oom_bench_row *row,
                                   const char *format, ...) {
    if (list->count == list->capacity) OOM_TRY(grow(list));
    struct oom_bench_row *added = &list->rows[list->count];
    *added = *row;
    va_list args;
    va_start(args, format);
    int length = vsnprintf(added->name, sizeof added->name, format, args);
    va_end(args);
    if (length < 0 || length >= (int)sizeof added->name) {
        return oom_fail(OOM_INTERNAL, "a row's name of %d bytes: '%s'", length, added->name);
    }
    list->count++;
    return OOM_OK;
}

void oom_bench_list_free(struct oom_bench_list *list) {
    oom_host_free(list->rows);
    *list = (struct oom_bench_list){0};
}

/* A glob that matches a row without a quick form has matched. */
static bool chosen(const char *name, const char *const *globs, int count, bool *matched) {
    bool any = count == 0;
    for (int i = 0; i < count; i++) {
        if (!oom_glob_match(globs[i], name)) continue;
        any = matched[i] = true;
    }
    return any;
}

enum oom_status oom_bench_select(const struct oom_bench_family *const *families,
                                 const char *const *globs, int glob_count, bool quick,
                                 struct oom_bench_list *out) {
    *out = (struct oom_bench_list){0};
    bool *matched = oom_host_calloc((size_t)glob_count + 1, sizeof *matched);
    enum oom_status status =
        matched == NULL ? oom_fail(OOM_HOST_NOMEM, "%d globs", glob_count) : OOM_OK;
    for (; status == OOM_OK && *families != NULL; families++) {
        int before = out->count, kept = before;
        status = (*families)->list(*families, out);
        for (int i = before; i < out->count; i++) {
            out->rows[i].family = *families;
            bool wanted = chosen(out->rows[i].name, globs, glob_count, matched);
            if (wanted && (!quick || out->rows[i].quick)) out->rows[kept++] = out->rows[i];
        }
        out->count = kept;
    }
    for (int i = 0; status == OOM_OK && i < glob_count; i++) {
        if (!matched[i]) {
            status = oom_fail(OOM_NOTHING, "'%.80s' matches no row; --list names them", globs[i]);
        }
    }
    if (status == OOM_OK && out->count == 0) {
        status = oom_fail(OOM_NOTHING, "none of these rows has a quick form");
    }
    oom_host_free(matched);
    if (status != OOM_OK) oom_bench_list_free(out);
    return status;
}
