/* judge-bytes.c: did it run out of memory without, and does it fit with? */
#include "harness/verify/proceedings.h"

#include "harness/base/sizes.h"
#include "harness/verify/recording.h"

#include <stdio.h>

enum { HOST_ALLOWANCE = 16 << 20 }; /* bytes outside the arena, where a case states no other */

/* ---- oom_without ---- */

/* Which allocation, how many bytes, how many were free, in how many pieces. */
static void describe_oom(const struct oom_report *oom, char *why, size_t n) {
    char wanted[16], segment[16], free[16], cached[16], largest[16];
    snprintf(
        why, n,
        "%s (%s) wanted %s, a segment of %s: %s free on the device; %s cached in %llu pieces, "
        "the largest %s",
        oom->site, oom_tag_name(oom->tag), oom_size_format(oom->requested, wanted, sizeof wanted),
        oom_size_format(oom->wanted, segment, sizeof segment),
        oom_size_format(oom->device_free, free, sizeof free),
        oom_size_format(oom->cached, cached, sizeof cached), (unsigned long long)oom->cached_pieces,
        oom_size_format(oom->largest_cached, largest, sizeof largest));
}

/* The state that the unmitigated step failed in: what a release could give back, what not, and
 * which live blocks are in the way. */
static void note_fragmentation(struct oom_case_record *record, const struct oom_fragmentation *f) {
    oom_record_number(record, "oom_largest_hole", f->largest_hole, "");
    oom_record_number(record, "oom_soft_bytes", (double)f->soft, "bytes");
    oom_record_number(record, "oom_hard_bytes", (double)f->hard, "bytes");
    oom_record_number(record, "oom_pinned_segments", (double)f->pinned_segments, "");
    for (int i = 0; i < f->pin_count; i++) {
        char name[24], text[128];
        snprintf(name, sizeof name, "oom_pin_%d", i);
        snprintf(text, sizeof text, "%llu bytes free beside '%s'",
                 (unsigned long long)f->pins[i].free_bytes, f->pins[i].site);
        oom_record_text(record, name, text);
    }
}

/* NULL when it is fragmentation that the run failed for; else what is wrong. */
static enum oom_status unlike_fragmentation(struct oom_proceedings *p, const char **wrong,
                                            char *why, size_t n) {
    const struct oom_report *oom = &p->unmitigated->result.oom;
    *wrong = NULL;
    if (!p->the_case->fragmented) return OOM_OK;
    if (oom->capacity - oom->allocated >= oom->requested) {
        return oom_recording_judge(p->unmitigated, wrong, why, n);
    }
    *wrong = "fewer bytes are free than are asked for: that is no fragmentation";
    return OOM_OK;
}

/* NULL when the unmitigated run failed as the case says; else what is wrong. */
static enum oom_status not_failed(struct oom_proceedings *p, double need, const char **wrong,
                                  char *why, size_t n) {
    const struct oom_hearing *h = p->unmitigated;
    const struct oom_report *oom = &h->result.oom;
    *wrong = why;
    if (!h->finished) {
        snprintf(why, n, "the unmitigated step's process: %s", h->end);
    } else if (h->result.status != OOM_NOMEM || !oom->valid || oom->requested == 0) {
        snprintf(why, n, "the unmitigated step did not run out of memory: %.120s",
                 h->result.status == OOM_OK ? "it finished" : h->result.message);
    } else if (!(need >= p->the_case->need)) {
        snprintf(why, n, "it needs %.2f times the capacity; the case asks for %.2f", need,
                 p->the_case->need);
    } else {
        return unlike_fragmentation(p, wrong, why, n);
    }
    return OOM_OK;
}

enum oom_status oom_judge_oom_without(struct oom_proceedings *p) {
    char why[OOM_REASON_MAX];
    const char *wrong;
    double need = (double)oom_need_of(p) / (double)p->the_case->mitigated.capacity;
    oom_record_number(p->record, "need", need, "");
    OOM_TRY(not_failed(p, need, &wrong, why, sizeof why));
    if (wrong == NULL) {
        const struct oom_report *oom = &p->unmitigated->result.oom;
        describe_oom(oom, why, sizeof why);
        oom_report_text(oom, p->record->oom_report, sizeof p->record->oom_report);
        oom_record_number(p->record, "oom_requested_bytes", (double)oom->requested, "bytes");
        oom_record_number(p->record, "oom_free_bytes", (double)oom->device_free, "bytes");
        oom_record_text(p->record, "oom_site", oom->site);
        note_fragmentation(p->record, &oom->fragmentation);
    }
    oom_judge_bit(p, OOM_BIT_OOM_WITHOUT, wrong == NULL, wrong == NULL ? why : wrong);
    return OOM_OK;
}

/* ---- fits_with ---- */

/* NULL when it fits; else what is wrong, with figures. */
static const char *misfit(struct oom_proceedings *p, char *why, size_t n) {
    const struct oom_job_result *r = &p->mitigated->result, *dry = &p->predicted->result;
    const struct oom_case *c = p->the_case;
    uint64_t allowance = c->host_allowance > 0 ? c->host_allowance : HOST_ALLOWANCE;
    char size[16];
    if (r->peak_device > r->capacity) return "the device's peak is above its capacity";
    if (!r->peaks_agree)
        return "the device's peak is not the allocator's reserved and foreign bytes";
    if (!oom_completed(p->predicted)) {
        snprintf(why, n, "the plan says that it does not fit: %.120s",
                 p->predicted->finished ? dry->message : p->predicted->end);
        return why;
    }
    if (r->peak_device != dry->peak_device || r->peak_allocated != dry->peak_allocated) {
        snprintf(why, n, "peak %llu bytes, planned %llu; live peak %llu, planned %llu",
                 (unsigned long long)r->peak_device, (unsigned long long)dry->peak_device,
                 (unsigned long long)r->peak_allocated, (unsigned long long)dry->peak_allocated);
        return why;
    }
    /* what is resident includes the scratch that was touched, at most all of it */
    if (r->host_peak > allowance || r->resident_out > allowance + r->scratch) {
        uint64_t worst = r->host_peak > r->resident_out ? r->host_peak : r->resident_out;
        snprintf(why, n, "%s of host memory outside the arena, %.2f MiB are allowed",
                 oom_size_format(worst, size, sizeof size), (double)allowance / (1 << 20));
        return why;
    }
    if (c->without_oom && oom_count_ooms(r) > oom_count_injected(r))
        return "the mitigated run met an OOM of its own";
    if (p->beyond != NULL && !(p->beyond->finished && p->beyond->result.status == OOM_NOMEM)) {
        return "one sample more fits as well: the size found is not the largest";
    }
    return NULL;
}

void oom_judge_fits(struct oom_proceedings *p) {
    const struct oom_hearing *h = p->mitigated;
    char why[OOM_REASON_MAX], a[16], b[16];
    if (!h->finished) {
        oom_record_bit(p->record, OOM_BIT_FITS_WITH, OOM_NOT_REACHED, "the process ended: %s",
                       h->end);
        return;
    }
    if (oom_ended_by_injection(h)) {
        oom_record_bit(p->record, OOM_BIT_FITS_WITH, OOM_NOT_ASKED,
                       "the injected failure ended it: rule %s has no smaller size",
                       oom_rule_name(h->job.rule));
        return;
    }
    if (!oom_completed(h)) {
        const struct oom_report *oom = &h->result.oom;
        bool nomem = h->result.status == OOM_NOMEM && oom->valid;
        snprintf(why, sizeof why, "the mitigated run did not finish: %.120s",
                 nomem ? oom->site : h->result.message);
        oom_judge_bit(p, OOM_BIT_FITS_WITH, false, why);
        return;
    }
    char text[OOM_REASON_MAX];
    const char *wrong = misfit(p, text, sizeof text);
    if (wrong == NULL) {
        snprintf(why, sizeof why, "peak %s of %s, to the byte as planned",
                 oom_size_format(h->result.peak_device, a, sizeof a),
                 oom_size_format(h->result.capacity, b, sizeof b));
    }
    oom_judge_bit(p, OOM_BIT_FITS_WITH, wrong == NULL, wrong == NULL ? why : wrong);
}
