#include "harness/verify/proceedings.h"

#include <stdio.h>

bool oom_completed(const struct oom_hearing *hearing) {
    return hearing->finished && hearing->result.status == OOM_OK &&
           hearing->result.steps_done == hearing->job.steps;
}

bool oom_strayed(const struct oom_hearing *hearing) {
    return hearing->finished && hearing->result.status == OOM_INVALID;
}

int oom_count_ooms(const struct oom_job_result *result) {
    int ooms = 0;
    for (int i = 0; i < result->attempt_count; i++) ooms += result->attempts[i].status == OOM_NOMEM;
    return ooms;
}

int oom_count_injected(const struct oom_job_result *result) {
    int injected = 0;
    for (int i = 0; i < result->attempt_count; i++) {
        const struct oom_attempt *attempt = &result->attempts[i];
        injected += attempt->status == OOM_NOMEM && attempt->report.injected;
    }
    return injected;
}

bool oom_ended_by_injection(const struct oom_hearing *h) {
    const struct oom_job_result *r = &h->result;
    if (!oom_injection_on(&h->job.injection) || !h->finished) return false;
    if (r->status != OOM_NOMEM || !r->oom.injected) return false;
    const struct oom_attempt *last = &r->attempts[r->attempt_count > 0 ? r->attempt_count - 1 : 0];
    if (r->attempt_count == 0 || last->status != OOM_NOMEM || last->trial) return true;
    struct oom_sizing sizing = {
        .rule = h->job.rule, .most = h->job.most, .retry = h->job.retry, .size = last->size};
    return oom_sizing_next(&sizing) < 1;
}

uint64_t oom_need_of(const struct oom_proceedings *p) {
    return p->needed->finished ? p->needed->result.peak_reserved : 0;
}

struct oom_job oom_on_dry(const struct oom_job *job, uint64_t capacity) {
    struct oom_job dry = *job;
    snprintf(dry.device, sizeof dry.device, "dry");
    dry.capacity = capacity;
    dry.capture = false;
    return dry;
}

void oom_judge_bit(struct oom_proceedings *p, enum oom_bit which, bool value, const char *why) {
    oom_record_bit(p->record, which, value ? OOM_TRUE : OOM_FALSE, "%s", why);
}
