/*
 * case.c: the jobs of a case, heard one after the other; then the judges of judge-*.c have it.
 */
#include "harness/verify/proceedings.h"

#include "harness/verify/cures.h"
#include "harness/verify/recording.h"

#include <stdio.h>
#include <string.h>

/* ---- jobs ---- */

/* Enough for the unmitigated step and a little more, a multiple of 64 MiB. */
static uint64_t ample(const struct oom_proceedings *p) {
    uint64_t unit = 64u << 20,
             least = oom_need_of(p) + oom_need_of(p) / 16 + p->the_case->mitigated.foreign;
    uint64_t capacity = (least / unit + 2) * unit;
    return capacity > p->the_case->mitigated.capacity ? capacity
                                                      : 2 * p->the_case->mitigated.capacity;
}

static struct oom_job reference_job(const struct oom_proceedings *p) {
    struct oom_job job = p->the_case->mitigated;
    job.capacity = ample(p);
    job.foreign = job.foreign_between = 0;
    job.release_between = false;
    job.rule = OOM_RULE_FIXED;
    job.recovery = OOM_RECOVERY_FULL;
    job.retry = 0;
    job.capture = true;
    job.trainer.checkpointing = OOM_CHECKPOINTING_OFF;
    job.trainer.checkpoint_budget = 0;
    if (p->the_case->reference == OOM_REFERENCE_DEFAULTS) {
        job.settings = oom_allocator_settings_default();
        job.loop.release_each_step = false;
        return job;
    }
    job.most = job.samples;
    if (p->the_case->reference == OOM_REFERENCE_WHOLE) {
        job.settings = p->the_case->unmitigated.settings;
        job.micro = job.uneven = false;
        memset(job.sizes, 0, sizeof job.sizes);
        return job;
    }
    for (int i = 0; i < job.steps; i++) job.sizes[i] = p->mitigated->result.steps[i].size;
    return job;
}

/* A job ends well, or out of memory, or astray, or by a crash: all are answers. Anything else (a
 * file that could not be written, no host memory) is the harness's own failure, and judges nobody.
 */
static enum oom_status broken(const struct oom_hearing *hearing) {
    enum oom_status status = hearing->finished ? hearing->result.status : OOM_OK;
    if (status == OOM_OK || status == OOM_NOMEM || oom_strayed(hearing)) return OOM_OK;
    return oom_fail(status, "a job broke: %.200s", hearing->result.message);
}

static enum oom_status hear_all(struct oom_proceedings *p) {
    const struct oom_case *c = p->the_case;
    struct oom_job mitigated = c->mitigated;
    mitigated.capture = true;
    mitigated.injection = c->injection;
    struct oom_job need = oom_on_dry(&c->unmitigated, OOM_PLAN_UNLIMITED);
    struct oom_job predicted = oom_on_dry(&mitigated, c->mitigated.capacity);
    OOM_TRY(oom_court_hear(p->court, "dry-need", &need, NULL, &p->needed));
    OOM_TRY(oom_court_hear(p->court, "dry", &predicted, c->extra, &p->predicted));
    struct oom_job unmitigated = c->unmitigated;
    unmitigated.record = c->fragmented || c->exports != NULL;
    OOM_TRY(oom_court_hear(p->court, "unmitigated", &unmitigated, NULL, &p->unmitigated));
    OOM_TRY(oom_court_hear(p->court, "mitigated", &mitigated, c->extra, &p->mitigated));
    if (oom_completed(p->mitigated)) {
        struct oom_job reference = reference_job(p);
        if (c->bitwise || c->unequal[0] != 0) {
            OOM_TRY(oom_court_hear(p->court, "reference", &reference, NULL, &p->reference));
        }
        if (c->curve) OOM_TRY(oom_curve_hear(p, ample(p)));
        if (c->at_the_edge && c->extra == NULL && !oom_injection_on(&c->injection)) {
            struct oom_job beyond = c->mitigated;
            beyond.rule = OOM_RULE_FIXED;
            beyond.steps = OOM_PLAN_STEPS;
            beyond.samples = beyond.most = p->mitigated->result.steps[0].size + 1;
            OOM_TRY(oom_court_hear(p->court, "one-more", &beyond, NULL, &p->beyond));
        }
    }
    OOM_TRY(broken(p->mitigated));
    OOM_TRY(broken(p->unmitigated));
    OOM_TRY(broken(p->predicted));
    if (!c->has_guards) return OOM_OK;
    return oom_court_hear(p->court, "guards", &c->guards, c->extra, &p->guards);
}

/* A table's unmitigated run, once more in a process of its own, if somebody wants to see it. */
static enum oom_status export_table(struct oom_proceedings *p) {
    const struct oom_hearing *hearing;
    if (p->the_case->exports == NULL) return OOM_OK;
    struct oom_job job = oom_on_dry(&p->the_case->unmitigated, p->the_case->unmitigated.capacity);
    job.record = true;
    OOM_TRY(oom_court_hear(p->court, "recording", &job, NULL, &hearing));
    return hearing->finished ? oom_recording_export(hearing, p->the_case->exports) : OOM_OK;
}

enum oom_status oom_case_run(struct oom_court *court, const struct oom_case *the_case,
                             struct oom_case_record *record) {
    struct oom_proceedings p = {.court = court, .the_case = the_case, .record = record};
    snprintf(record->id, sizeof record->id, "%s", the_case->id);
    if (the_case->table.count > 0) {
        OOM_TRY(export_table(&p));
        return oom_cures_judge(the_case, record);
    }
    OOM_TRY(hear_all(&p));
    if (the_case->exports != NULL && p.unmitigated->finished) {
        OOM_TRY(oom_recording_export(p.unmitigated, the_case->exports));
    }
    oom_note_precision(&p);
    oom_note_figures(&p);
    OOM_TRY(oom_note_share(&p));
    OOM_TRY(oom_judge_oom_without(&p));
    oom_judge_fits(&p);
    oom_judge_gradients(&p);
    oom_judge_data(&p);
    oom_judge_state(&p);
    if (!oom_injection_on(&the_case->injection)) return OOM_OK;
    oom_note_injection(&p);
    oom_court_forget(court, p.mitigated);
    oom_court_forget(court, p.predicted);
    return OOM_OK;
}
