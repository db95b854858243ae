#include "harness/verify/cures.h"

#include "harness/base/sizes.h"

#include <stdio.h>
#include <string.h>

typedef unsigned long long ull; /* for printf */

enum oom_status oom_cure_apply(const struct oom_cure *cure, struct oom_job *job) {
    struct oom_allocator_settings settings = oom_allocator_settings_default();
    settings.profile = job->settings.profile;
    OOM_TRY(oom_allocator_settings_parse(cure->conf, &settings));
    job->settings = settings;
    job->loop.release_each_step = job->release_between = cure->release_before;
    return OOM_OK;
}

/* ---- the failure as it is ---- */

static uint64_t free_bytes(const struct oom_report *oom) {
    return oom->capacity - oom->allocated;
}

static void judge_failure(const struct oom_cure_table *table, const struct oom_job_result *result,
                          struct oom_case_record *record) {
    const struct oom_report *oom = &result->oom;
    char wanted[16], free[16], largest[16];
    if (result->status != OOM_NOMEM || !oom->valid) {
        oom_record_bit(record, OOM_BIT_OOM_WITHOUT, OOM_FALSE, "it came to its end");
        return;
    }
    oom_report_text(oom, record->oom_report, sizeof record->oom_report);
    bool same = oom->index == table->allocation && oom->requested == table->requested &&
                free_bytes(oom) == table->free;
    bool enough = free_bytes(oom) >= oom->requested;
    oom_record_number(record, "oom_allocation", (double)oom->index, "");
    oom_record_number(record, "oom_requested_bytes", (double)oom->requested, "bytes");
    oom_record_number(record, "oom_free_bytes", (double)free_bytes(oom), "bytes");
    oom_record_text(record, "oom_site", oom->site);
    if (!same) {
        oom_record_bit(record, OOM_BIT_OOM_WITHOUT, OOM_FALSE,
                       "fails at allocation %llu of %llu bytes with %llu free; pinned are %llu, "
                       "%llu, %llu",
                       (ull)oom->index, (ull)oom->requested, (ull)free_bytes(oom),
                       (ull)table->allocation, (ull)table->requested, (ull)table->free);
        return;
    }
    oom_record_bit(record, OOM_BIT_OOM_WITHOUT, enough ? OOM_TRUE : OOM_FALSE,
                   "%s wanted %s with %s free, the largest piece %s", oom->site,
                   oom_size_format(oom->requested, wanted, sizeof wanted),
                   oom_size_format(free_bytes(oom), free, sizeof free),
                   oom_size_format(oom->largest_cached, largest, sizeof largest));
}

/* ---- the cells ---- */

static void append(char *text, size_t n, const char *word) {
    size_t used = strlen(text);
    snprintf(text + used, n - used, "%s%s", used > 0 ? ", " : "", word);
}

static void note_cell(struct oom_case_record *record, const struct oom_cure *cure,
                      const struct oom_job_result *result) {
    char name[40], text[96];
    snprintf(name, sizeof name, "cure_%s", cure->name);
    if (result->status == OOM_OK) {
        snprintf(text, sizeof text, "fits, peak %llu", (ull)result->peak_reserved);
    } else {
        snprintf(text, sizeof text, "fails at allocation %llu (%.40s)", (ull)result->oom.index,
                 result->oom.site);
    }
    oom_record_text(record, name, text);
}

enum oom_status oom_cures_judge(const struct oom_case *c, struct oom_case_record *record) {
    struct oom_job_result result;
    char fitting[128] = "", changed[160] = "";
    OOM_TRY(oom_job_run_dry(&c->unmitigated, &result));
    judge_failure(&c->table, &result, record);
    for (int i = 0; i < c->table.count; i++) {
        const struct oom_cure *cure = &c->table.cures[i];
        struct oom_job job = c->unmitigated;
        OOM_TRY(oom_cure_apply(cure, &job));
        OOM_TRY(oom_job_run_dry(&job, &result));
        bool fits = result.status == OOM_OK;
        note_cell(record, cure, &result);
        if (fits) append(fitting, sizeof fitting, cure->name);
        if (fits == cure->fits) continue;
        append(changed, sizeof changed, cure->name);
        append(changed, sizeof changed, fits ? "now fits" : "no longer fits");
    }
    oom_record_text(record, "cured_by", fitting[0] != 0 ? fitting : "nothing");
    if (changed[0] != 0) {
        oom_record_bit(record, OOM_BIT_FITS_WITH, OOM_FALSE, "a cell changed: %s", changed);
    } else {
        oom_record_bit(record, OOM_BIT_FITS_WITH, OOM_TRUE, "all %d cells as pinned: %s",
                       c->table.count, fitting);
    }
    for (int bit = OOM_BIT_GRAD_MATCH; bit < OOM_BIT_COUNT; bit++) {
        oom_record_bit(record, (enum oom_bit)bit, OOM_NOT_ASKED,
                       "a table made on the dry device, which computes nothing");
    }
    return OOM_OK;
}
