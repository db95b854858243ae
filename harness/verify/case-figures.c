/* case-figures.c: the numbers of a case that decide nothing, but that people want to see. */
#include "harness/verify/proceedings.h"

#include "kernels/hostmem.h"

#include <stdio.h>
#include <string.h>

static int count_real_runs(const struct oom_job_result *result) {
    int runs = 0;
    for (int i = 0; i < result->attempt_count; i++) runs += result->attempts[i].step == 0;
    return runs;
}

/* ---- figures ---- */

/* What checkpointing saves, and what it costs. */
static void note_checkpointing(struct oom_proceedings *p) {
    const struct oom_job_result *r = &p->mitigated->result;
    const struct oom_checkpoint_fit *fit = &r->fit;
    if (p->mitigated->job.trainer.checkpointing == OOM_CHECKPOINTING_OFF) return;
    double once = r->forward_flops > 0 ? r->forward_flops : 1;
    oom_record_number(p->record, "recomputed_forwards", r->recomputed, "");
    oom_record_number(p->record, "extra_forward_share", r->again_flops / once, "");
    oom_record_number(p->record, "saved_bytes", (double)oom_need_of(p) - (double)r->peak_reserved,
                      "bytes");
    if (p->reference != NULL && oom_completed(p->reference)) {
        oom_record_number(p->record, "time_ratio",
                          r->step_seconds / p->reference->result.step_seconds, "");
    }
    if (fit->budget == 0) return;
    oom_record_number(p->record, "budget_bytes", (double)fit->budget, "bytes");
    oom_record_number(p->record, "budget_available_bytes", (double)fit->available, "bytes");
    oom_record_number(p->record, "budgets_passed", fit->passed, "");
    oom_record_number(p->record, "extra_share_by_live_bytes", fit->live_share, "");
    /* the planner's work ended before it knew its schedule to be the best */
    if (fit->unproven > 0) {
        oom_record_number(p->record, "extra_share_unproven", fit->unproven, "");
    }
}

void oom_note_figures(struct oom_proceedings *p) {
    struct oom_case_record *record = p->record;
    const struct oom_job_result *r = &p->mitigated->result;
    if (!p->mitigated->finished) return;
    oom_record_number(record, "capacity_bytes", (double)r->capacity, "bytes");
    oom_record_number(record, "peak_bytes", (double)r->peak_device, "bytes");
    oom_record_number(record, "peak_reserved_bytes", (double)r->peak_reserved, "bytes");
    oom_record_number(record, "peak_allocated_bytes", (double)r->peak_allocated, "bytes");
    oom_record_number(record, "planned_peak_bytes", (double)p->predicted->result.peak_device,
                      "bytes");
    oom_record_number(record, "unmitigated_bytes", (double)oom_need_of(p), "bytes");
    oom_record_number(record, "foreign_bytes", (double)r->foreign, "bytes");
    oom_record_number(record, "host_bytes", (double)r->host_peak, "bytes");
    oom_record_number(record, "host_resident_bytes", (double)r->resident_out, "bytes");
    note_checkpointing(p);
    oom_record_number(record, "batch_without", (double)p->the_case->unmitigated.samples, "samples");
    oom_record_number(record, "batch", (double)r->steps[0].size, "samples");
    int last = r->steps_done > 0 ? r->steps_done - 1 : 0;
    oom_record_number(record, "batch_last", (double)r->steps[last].size, "samples");
    oom_record_number(record, "attempts", (double)count_real_runs(r), "");
    oom_record_number(record, "ooms", (double)oom_count_ooms(r), "");
    oom_record_number(record, "retries", (double)r->retries, "");
    oom_record_number(record, "loss", r->steps[0].loss, "");
    for (int i = 0; i < OOM_TAG_COUNT; i++) {
        char name[40];
        snprintf(name, sizeof name, "%s_bytes", oom_tag_name((enum oom_tag)i));
        oom_record_number(record, name, (double)r->tag_at_peak[i], "bytes");
    }
    char text[OOM_SPEC_TEXT_MAX];
    oom_model_spec_text(&p->mitigated->job.trainer.spec, text);
    oom_record_text(record, "model", text);
    for (int i = 0; i < r->steps_done; i++) {
        char name[40];
        snprintf(name, sizeof name, "grad_fingerprint_%d", i);
        snprintf(text, sizeof text, "%016llx", (unsigned long long)r->steps[i].gradients);
        oom_record_text(record, name, text);
    }
    for (int i = 0; i < r->attempt_count; i++) {
        const struct oom_attempt *attempt = &r->attempts[i];
        if (attempt->status != OOM_NOMEM) continue;
        snprintf(text, sizeof text, "%s, micro-batch %d, %d gradients",
                 oom_phase_name(attempt->phase), attempt->micro_batch, attempt->gradients_written);
        oom_record_text(record, "first_oom", text);
        break;
    }
    record->seconds = r->seconds;
}

/* What mixed precision saves, by tag, and what its loss scale did. */
void oom_note_precision(struct oom_proceedings *p) {
    const struct oom_job_result *r = &p->mitigated->result, *without = &p->needed->result;
    if (p->mitigated->job.trainer.amp == OOM_AMP_OFF || !p->mitigated->finished) return;
    oom_record_number(p->record, "skipped_steps", r->skipped, "");
    oom_record_number(p->record, "loss_scale_first", (double)r->steps[0].scale, "");
    int last = r->steps_done > 0 ? r->steps_done - 1 : 0;
    oom_record_number(p->record, "loss_scale_last", (double)r->steps[last].scale, "");
    for (int i = 0; i < OOM_TAG_COUNT && p->needed->finished; i++) {
        char name[40];
        snprintf(name, sizeof name, "unmitigated_%s_bytes", oom_tag_name((enum oom_tag)i));
        oom_record_number(p->record, name, (double)without->tag_at_peak[i], "bytes");
    }
    oom_record_number(p->record, "unmitigated_live_bytes", (double)without->peak_allocated,
                      "bytes");
}

/* ---- how much of what fits was found ---- */

static enum oom_status fits_dry(void *context, int64_t size, bool *fits) {
    struct oom_job job = *(const struct oom_job *)context;
    struct oom_job_result *result = oom_host_alloc(sizeof *result);
    if (result == NULL) return oom_fail(OOM_HOST_NOMEM, "a job's result");
    job.rule = OOM_RULE_FIXED;
    job.steps = OOM_PLAN_STEPS;
    job.samples = job.most = size;
    enum oom_status status = oom_job_run(&job, result);
    if (status == OOM_OK && result->status != OOM_NOMEM) status = result->status;
    *fits = result->status == OOM_OK && result->steps_done == job.steps;
    oom_host_free(result);
    if (status == OOM_OK) oom_failure_clear(); /* a size that does not fit is an answer */
    return status;
}

/* B*: the largest size up to which all fit, for the same steps; and the share of it in use. */
enum oom_status oom_note_share(struct oom_proceedings *p) {
    const struct oom_case *c = p->the_case;
    if (!c->rates || c->extra != NULL || !oom_completed(p->mitigated)) return OOM_OK;
    struct oom_job dry = oom_on_dry(&c->mitigated, c->mitigated.capacity);
    const struct oom_job_result *r = &p->mitigated->result;
    int64_t largest = 0, size = r->steps[r->steps_done - 1].size;
    OOM_TRY(oom_largest_fit(&dry, fits_dry, dry.most, &largest));
    if (largest == 0) return OOM_OK;
    oom_record_number(p->record, "largest_batch", (double)largest, "samples");
    oom_record_number(p->record, "share_of_largest", (double)size / (double)largest, "");
    return OOM_OK;
}

/* Which failures were injected, and whether the last one ended the run. */
void oom_note_injection(struct oom_proceedings *p) {
    const struct oom_hearing *h = p->mitigated;
    const struct oom_job_result *r = &h->result;
    const struct oom_report *first = NULL;
    char text[128];
    if (!h->finished) return;
    for (int i = r->attempt_count - 1; i >= 0; i--) {
        if (r->attempts[i].report.injected) first = &r->attempts[i].report;
    }
    if (first == NULL && r->oom.injected) first = &r->oom;
    int injected = oom_count_injected(r);
    oom_record_number(p->record, "injected", injected > 0 ? injected : first != NULL, "");
    oom_record_number(p->record, "injected_end", oom_ended_by_injection(h), "");
    if (first == NULL) return;
    snprintf(text, sizeof text, "allocation %llu ('%s')", (unsigned long long)first->index,
             first->site);
    oom_record_text(p->record, "injected_at", text);
}
