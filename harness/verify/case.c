/*
 * case.c: from the jobs of a case to its five bits. One function a bit; each writes down what
 * decided it.
 */
#include "harness/verify/case.h"

#include "harness/base/sizes.h"
#include "harness/verify/compare.h"
#include "harness/verify/court.h"
#include "harness/verify/cures.h"
#include "harness/verify/recording.h"
#include "kernels/hostmem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { HOST_ALLOWANCE = 16 << 20 }; /* bytes outside the arena, where a case states no other */

struct proceedings {
    struct oom_court *court;
    const struct oom_case *the_case;
    struct oom_case_record *record;
    const struct oom_hearing *needed;    /* dry, without limit, unmitigated */
    const struct oom_hearing *predicted; /* dry, mitigated */
    const struct oom_hearing *unmitigated;
    const struct oom_hearing *mitigated;
    const struct oom_hearing *reference;
    const struct oom_hearing *guards; /* NULL: the case has none */
    const struct oom_hearing *beyond; /* one sample more; NULL: not asked */
};

/* ---- jobs ---- */

static struct oom_job on_dry(const struct oom_job *job, uint64_t capacity) {
    struct oom_job dry = *job;
    snprintf(dry.device, sizeof dry.device, "dry");
    dry.capacity = capacity;
    dry.capture = false;
    return dry;
}

static bool completed(const struct oom_hearing *hearing) {
    return hearing->finished && hearing->result.status == OOM_OK &&
           hearing->result.steps_done == hearing->job.steps;
}

static uint64_t need_of(const struct proceedings *p) {
    return p->needed->finished ? p->needed->result.peak_reserved : 0;
}

/* Enough for the unmitigated step and a little more, a multiple of 64 MiB. */
static uint64_t ample(const struct proceedings *p) {
    uint64_t unit = 64u << 20,
             least = need_of(p) + need_of(p) / 16 + p->the_case->mitigated.foreign;
    uint64_t capacity = (least / unit + 2) * unit;
    return capacity > p->the_case->mitigated.capacity ? capacity
                                                      : 2 * p->the_case->mitigated.capacity;
}

static struct oom_job reference_job(const struct proceedings *p) {
    struct oom_job job = p->the_case->mitigated;
    job.capacity = ample(p);
    job.foreign = job.foreign_between = 0;
    job.release_between = false;
    job.rule = OOM_RULE_FIXED;
    job.recovery = OOM_RECOVERY_FULL;
    job.retry = 0;
    job.capture = true;
    if (p->the_case->reference == OOM_REFERENCE_DEFAULTS) {
        job.settings = oom_allocator_settings_default();
        job.loop.release_each_step = false;
        return job;
    }
    job.most = job.samples;
    if (p->the_case->reference == OOM_REFERENCE_WHOLE) {
        job.micro = job.uneven = false;
        memset(job.sizes, 0, sizeof job.sizes);
        return job;
    }
    for (int i = 0; i < job.steps; i++) job.sizes[i] = p->mitigated->result.steps[i].size;
    return job;
}

/* It used memory that was not there: an address nobody gave it, a page that was unmapped. */
static bool strayed(const struct oom_hearing *hearing) {
    return hearing->finished && hearing->result.status == OOM_INVALID;
}

/* A job ends well, or out of memory, or astray, or by a crash: all are answers. Anything else (a
 * file that could not be written, no host memory) is the harness's own failure, and judges nobody.
 */
static enum oom_status broken(const struct oom_hearing *hearing) {
    enum oom_status status = hearing->finished ? hearing->result.status : OOM_OK;
    if (status == OOM_OK || status == OOM_NOMEM || strayed(hearing)) return OOM_OK;
    return oom_fail(status, "a job broke: %.200s", hearing->result.message);
}

static enum oom_status hear_all(struct proceedings *p) {
    const struct oom_case *c = p->the_case;
    struct oom_job mitigated = c->mitigated;
    mitigated.capture = true;
    mitigated.injection = c->injection;
    struct oom_job need = on_dry(&c->unmitigated, OOM_PLAN_UNLIMITED);
    struct oom_job predicted = on_dry(&mitigated, c->mitigated.capacity);
    OOM_TRY(oom_court_hear(p->court, "dry-need", &need, NULL, &p->needed));
    OOM_TRY(oom_court_hear(p->court, "dry", &predicted, c->extra, &p->predicted));
    struct oom_job unmitigated = c->unmitigated;
    unmitigated.record = c->fragmented || c->exports != NULL;
    OOM_TRY(oom_court_hear(p->court, "unmitigated", &unmitigated, NULL, &p->unmitigated));
    OOM_TRY(oom_court_hear(p->court, "mitigated", &mitigated, c->extra, &p->mitigated));
    if (completed(p->mitigated)) {
        struct oom_job reference = reference_job(p);
        if (c->bitwise) {
            OOM_TRY(oom_court_hear(p->court, "reference", &reference, NULL, &p->reference));
        }
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

/* ---- oom_without ---- */

static void bit(struct proceedings *p, enum oom_bit which, bool value, const char *why) {
    oom_record_bit(p->record, which, value ? OOM_TRUE : OOM_FALSE, "%s", why);
}

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
static enum oom_status unlike_fragmentation(struct proceedings *p, const char **wrong, char *why,
                                            size_t n) {
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
static enum oom_status not_failed(struct proceedings *p, double need, const char **wrong, char *why,
                                  size_t n) {
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

static enum oom_status judge_oom_without(struct proceedings *p) {
    char why[OOM_REASON_MAX];
    const char *wrong;
    double need = (double)need_of(p) / (double)p->the_case->mitigated.capacity;
    oom_record_number(p->record, "need", need, "");
    OOM_TRY(not_failed(p, need, &wrong, why, sizeof why));
    if (wrong == NULL) {
        const struct oom_report *oom = &p->unmitigated->result.oom;
        describe_oom(oom, why, sizeof why);
        oom_record_number(p->record, "oom_requested_bytes", (double)oom->requested, "bytes");
        oom_record_number(p->record, "oom_free_bytes", (double)oom->device_free, "bytes");
        oom_record_text(p->record, "oom_site", oom->site);
        note_fragmentation(p->record, &oom->fragmentation);
    }
    bit(p, OOM_BIT_OOM_WITHOUT, wrong == NULL, wrong == NULL ? why : wrong);
    return OOM_OK;
}

/* ---- fits_with ---- */

static int count_ooms(const struct oom_job_result *result) {
    int ooms = 0;
    for (int i = 0; i < result->attempt_count; i++) ooms += result->attempts[i].status == OOM_NOMEM;
    return ooms;
}

static int count_real_runs(const struct oom_job_result *result) {
    int runs = 0;
    for (int i = 0; i < result->attempt_count; i++) runs += result->attempts[i].step == 0;
    return runs;
}

static int count_injected(const struct oom_job_result *result) {
    int injected = 0;
    for (int i = 0; i < result->attempt_count; i++) {
        const struct oom_attempt *attempt = &result->attempts[i];
        injected += attempt->status == OOM_NOMEM && attempt->report.injected;
    }
    return injected;
}

/* An injected failure ended the run, and rightly: no rule had a smaller size left. Outside a step
 * (an evaluation) nothing retries. */
static bool ended_by_injection(const struct oom_hearing *h) {
    const struct oom_job_result *r = &h->result;
    if (!oom_injection_on(&h->job.injection) || !h->finished) return false;
    if (r->status != OOM_NOMEM || !r->oom.injected) return false;
    const struct oom_attempt *last = &r->attempts[r->attempt_count > 0 ? r->attempt_count - 1 : 0];
    if (r->attempt_count == 0 || last->status != OOM_NOMEM || last->trial) return true;
    struct oom_sizing sizing = {
        .rule = h->job.rule, .most = h->job.most, .retry = h->job.retry, .size = last->size};
    return oom_sizing_next(&sizing) < 1;
}

/* NULL when it fits; else what is wrong, with figures. */
static const char *misfit(struct proceedings *p, char *why, size_t n) {
    const struct oom_job_result *r = &p->mitigated->result, *dry = &p->predicted->result;
    const struct oom_case *c = p->the_case;
    uint64_t allowance = c->host_allowance > 0 ? c->host_allowance : HOST_ALLOWANCE;
    char size[16];
    if (r->peak_device > r->capacity) return "the device's peak is above its capacity";
    if (!r->peaks_agree)
        return "the device's peak is not the allocator's reserved and foreign bytes";
    if (!completed(p->predicted)) {
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
    if (c->without_oom && count_ooms(r) > count_injected(r))
        return "the mitigated run met an OOM of its own";
    if (p->beyond != NULL && !(p->beyond->finished && p->beyond->result.status == OOM_NOMEM)) {
        return "one sample more fits as well: the size found is not the largest";
    }
    return NULL;
}

static void judge_fits(struct proceedings *p) {
    const struct oom_hearing *h = p->mitigated;
    char why[OOM_REASON_MAX], a[16], b[16];
    if (!h->finished) {
        oom_record_bit(p->record, OOM_BIT_FITS_WITH, OOM_NOT_REACHED, "the process ended: %s",
                       h->end);
        return;
    }
    if (ended_by_injection(h)) {
        oom_record_bit(p->record, OOM_BIT_FITS_WITH, OOM_NOT_ASKED,
                       "the injected failure ended it: rule %s has no smaller size",
                       oom_rule_name(h->job.rule));
        return;
    }
    if (!completed(h)) {
        const struct oom_report *oom = &h->result.oom;
        bool nomem = h->result.status == OOM_NOMEM && oom->valid;
        snprintf(why, sizeof why, "the mitigated run did not finish: %.120s",
                 nomem ? oom->site : h->result.message);
        bit(p, OOM_BIT_FITS_WITH, false, why);
        return;
    }
    char text[OOM_REASON_MAX];
    const char *wrong = misfit(p, text, sizeof text);
    if (wrong == NULL) {
        snprintf(why, sizeof why, "peak %s of %s, to the byte as planned",
                 oom_size_format(h->result.peak_device, a, sizeof a),
                 oom_size_format(h->result.capacity, b, sizeof b));
    }
    bit(p, OOM_BIT_FITS_WITH, wrong == NULL, wrong == NULL ? why : wrong);
}

/* ---- grad_match ---- */

/* NULL when equal. */
static const char *unequal_file(const struct oom_job *a, const struct oom_job *b, const char *what,
                                int step, char *why, size_t n) {
    char left[OOM_JOB_PATH_MAX + 32], right[OOM_JOB_PATH_MAX + 32];
    struct oom_equality equality;
    oom_job_path(a, what, step, left);
    oom_job_path(b, what, step, right);
    if (oom_compare_files(left, right, &equality) != OOM_OK) {
        snprintf(why, n, "%s of step %d cannot be compared: %.120s", what, step,
                 oom_failure_last()->message);
        oom_failure_clear();
        return why;
    }
    if (equality.pass) return NULL;
    if (!equality.same_size) {
        snprintf(why, n, "%s and the reference's are of different size", what);
        return why;
    }
    snprintf(why, n, "%s%s differ from the reference in %llu of %llu bytes, first at %llu", what,
             step < 0 ? " left behind" : "", (unsigned long long)equality.differ,
             (unsigned long long)equality.bytes, (unsigned long long)equality.first);
    return why;
}

static const char *unequal_bits(struct proceedings *p, char *why, size_t n) {
    const struct oom_hearing *a = p->mitigated, *b = p->reference;
    if (!completed(b)) {
        snprintf(why, n, "the reference did not finish: %.120s",
                 b->finished ? b->result.message : b->end);
        return why;
    }
    for (int step = 0; step < a->job.steps; step++) {
        const char *wrong = unequal_file(&a->job, &b->job, "gradients", step, why, n);
        if (wrong != NULL) return wrong;
        if (!(a->result.steps[step].loss == b->result.steps[step].loss)) {
            snprintf(why, n, "the loss of step %d is %.9g, the reference's %.9g", step,
                     a->result.steps[step].loss, b->result.steps[step].loss);
            return why;
        }
        if (!(a->result.steps[step].evaluation == b->result.steps[step].evaluation)) {
            snprintf(why, n, "the evaluation at step %d gives %.9g, the reference's %.9g", step,
                     a->result.steps[step].evaluation, b->result.steps[step].evaluation);
            return why;
        }
    }
    return unequal_file(&a->job, &b->job, "state", -1, why, n);
}

/* The parameters' names and sizes, as the model describes them. */
struct layout {
    struct oom_model_spec spec;
    int index;
    int64_t at;
    struct oom_parameter parameter;
};

static bool next_parameter(struct layout *layout) {
    const struct oom_model *model =
        layout->spec.kind == OOM_MODEL_GPT ? &oom_model_gpt : &oom_model_mlp;
    if (layout->index > 0) layout->at += oom_parameter_n(&layout->parameter);
    if (layout->index >= model->count(&layout->spec)) return false;
    layout->parameter = (struct oom_parameter){0};
    model->describe(&layout->spec, layout->index++, &layout->parameter);
    return true;
}

static enum oom_status read_gradients(const struct oom_job *job, int step, int64_t n, float **out) {
    char path[OOM_JOB_PATH_MAX + 32];
    oom_job_path(job, "gradients", step, path);
    FILE *file = fopen(path, "rbe");
    *out = oom_host_alloc((size_t)n * sizeof **out);
    size_t got = 0;
    if (file != NULL && *out != NULL) got = fread(*out, sizeof **out, (size_t)n, file);
    if (file != NULL) fclose(file);
    if (got == (size_t)n) return OOM_OK;
    oom_host_free(*out);
    *out = NULL;
    return oom_fail(OOM_IO, "'%s' has %zu of %lld gradients", path, got, (long long)n);
}

struct worst {
    double error, bound;
    char name[32];
};

static bool agree_parameters(const struct proceedings *p, const float *found,
                             const struct oom_truth *truth, int64_t terms, struct worst *worst) {
    const struct oom_job *job = &p->mitigated->job;
    struct layout layout = {.spec = job->trainer.spec};
    bool pass = true;
    while (next_parameter(&layout)) {
        struct oom_agreement agreement = oom_compare_bounded(
            found + layout.at, truth->gradient + layout.at, truth->magnitude + layout.at,
            oom_parameter_n(&layout.parameter), job->dtype, terms);
        pass = pass && agreement.pass;
        if (agreement.error <= worst->error) continue;
        *worst = (struct worst){.error = agreement.error, .bound = agreement.bound};
        snprintf(worst->name, sizeof worst->name, "%s", layout.parameter.name);
    }
    return pass;
}

/* NULL when every parameter and the loss are within the bound. */
static const char *out_of_bound(struct proceedings *p, int step, struct worst *worst, char *why,
                                size_t n) {
    const struct oom_job *job = &p->mitigated->job;
    const struct oom_job_step *done = &p->mitigated->result.steps[step];
    int64_t nominal =
        step == job->steps - 1 && job->last_samples > 0 ? job->last_samples : job->samples;
    int64_t samples = job->micro ? nominal : done->samples;
    int64_t terms = samples * oom_spec_rows(&job->trainer.spec);
    const struct oom_truth *truth;
    float *found = NULL;
    bool pass = false;
    if (oom_court_truth(p->court, job, step, samples, &truth) == OOM_OK &&
        read_gradients(job, step, truth->n, &found) == OOM_OK) {
        pass = agree_parameters(p, found, truth, terms, worst);
        oom_host_free(found);
    } else {
        snprintf(why, n, "no truth: %.120s", oom_failure_last()->message);
        oom_failure_clear();
        return why;
    }
    float loss = (float)done->loss;
    struct oom_agreement loss_agreement =
        oom_compare_bounded(&loss, &truth->loss, &truth->loss_magnitude, 1, job->dtype, terms);
    oom_record_number(p->record, "branches_differ", (double)truth->branches_differ, "");
    if (truth->branches_wrong > 0) {
        snprintf(why, n, "%lld branches differ from the truth's away from their kink",
                 (long long)truth->branches_wrong);
        return why;
    }
    if (!loss_agreement.pass) {
        snprintf(why, n, "the loss of step %d is %.9g, the truth %.9g (%.3g u, bound %.1f)", step,
                 done->loss, truth->loss, loss_agreement.error, loss_agreement.bound);
        return why;
    }
    if (pass) return NULL;
    snprintf(why, n, "step %d: %s is %.3g u|S| from the truth, the bound is %.1f", step,
             worst->name, worst->error, worst->bound);
    return why;
}

static void judge_gradients(struct proceedings *p) {
    const struct oom_case *c = p->the_case;
    const struct oom_hearing *h = p->mitigated;
    char why[OOM_REASON_MAX] = "";
    if (!h->finished) {
        snprintf(why, sizeof why, "the process ended: %s", h->end);
        bit(p, OOM_BIT_GRAD_MATCH, false, why);
        return;
    }
    if (ended_by_injection(h)) {
        oom_record_bit(p->record, OOM_BIT_GRAD_MATCH, OOM_NOT_ASKED,
                       "the injected failure ended it");
        return;
    }
    if (!completed(h)) {
        oom_record_bit(p->record, OOM_BIT_GRAD_MATCH, OOM_NOT_REACHED, "no finished step");
        return;
    }
    if (!c->bitwise && !c->bounded) {
        oom_record_bit(p->record, OOM_BIT_GRAD_MATCH, OOM_NOT_REACHED, "nothing to compare with");
        return;
    }
    struct worst worst = {.error = -1};
    const char *wrong = NULL;
    for (int step = 0; step < h->job.steps && wrong == NULL; step++) {
        if (!h->result.steps[step].captured) wrong = "a window ended without its optimizer step";
        if (wrong == NULL && c->bounded) wrong = out_of_bound(p, step, &worst, why, sizeof why);
    }
    if (c->bounded) oom_record_number(p->record, "grad_error", worst.error, "u|S|");
    if (c->bounded) oom_record_number(p->record, "grad_bound", worst.bound, "u|S|");
    if (wrong == NULL && c->bitwise) wrong = unequal_bits(p, why, sizeof why);
    if (wrong == NULL) {
        char bound[96] = "";
        if (c->bounded) {
            snprintf(bound, sizeof bound, "; %.2f u|S| from the f64 truth, bound %.1f (%s)",
                     worst.error, worst.bound, worst.name);
        }
        snprintf(why, sizeof why, "%s%s", c->bitwise ? "equal bits to the reference" : "in bound",
                 bound);
        wrong = NULL;
    }
    bit(p, OOM_BIT_GRAD_MATCH, wrong == NULL, wrong == NULL ? why : wrong);
}

/* ---- data_intact ---- */

static void judge_data(struct proceedings *p) {
    const struct oom_hearing *h = p->mitigated, *g = p->guards;
    char why[OOM_REASON_MAX];
    if (!h->finished || (g != NULL && !g->finished)) {
        snprintf(why, sizeof why, "the %s process ended: %s", h->finished ? "guards" : "mitigated",
                 h->finished ? g->end : h->end);
        bit(p, OOM_BIT_DATA_INTACT, false, why);
        return;
    }
    const struct oom_job_result *r = &h->result;
    if (strayed(h)) {
        snprintf(why, sizeof why, "it used memory that was not there: %.160s", r->message);
        bit(p, OOM_BIT_DATA_INTACT, false, why);
        return;
    }
    if (r->canary_checks == 0 || r->parameter_checks < r->steps_done) {
        oom_record_bit(p->record, OOM_BIT_DATA_INTACT, OOM_NOT_REACHED, "nothing was checked");
        return;
    }
    bool intact = r->canary_bad == 0 && r->parameter_bad == 0 && r->kept_bad == 0;
    uint64_t blocks = g != NULL ? g->result.guards_bad : 0;
    bool guarded = g == NULL || (completed(g) && g->result.guard_checks > 0 && blocks == 0 &&
                                 g->result.canary_bad == 0 && g->result.parameter_bad == 0);
    if (g != NULL && !completed(g)) {
        snprintf(why, sizeof why, "the guards pass did not finish: %.120s", g->result.message);
    } else {
        snprintf(why, sizeof why,
                 "canaries: %llu bytes changed in %d looks; parameters: changed in %d of %d looks; "
                 "guards: %llu of the blocks' damaged; kept results: %llu changed",
                 (unsigned long long)r->canary_bad, r->canary_checks, r->parameter_bad,
                 r->parameter_checks, (unsigned long long)blocks, (unsigned long long)r->kept_bad);
    }
    bit(p, OOM_BIT_DATA_INTACT, intact && guarded, why);
}

/* ---- state_restored ---- */

/* OOMs of real attempts: in a finished run each was followed by a recovery. */
static int count_retried(const struct oom_job_result *result) {
    int retried = 0;
    for (int i = 0; i < result->attempt_count; i++) {
        retried += result->attempts[i].status == OOM_NOMEM && !result->attempts[i].trial;
    }
    return retried;
}

static void judge_state(struct proceedings *p) {
    const struct oom_hearing *h = p->mitigated;
    char why[OOM_REASON_MAX];
    if (!h->finished) {
        oom_record_bit(p->record, OOM_BIT_STATE_RESTORED, OOM_NOT_REACHED, "the process ended");
        return;
    }
    const struct oom_job_result *r = &h->result;
    if (r->restored_bad > 0) {
        snprintf(why, sizeof why, "between the OOM and the retry: %s (%d of %d)", r->restored_why,
                 r->restored_bad, r->restored_checks);
        bit(p, OOM_BIT_STATE_RESTORED, false, why);
        return;
    }
    if (!r->torn_down) {
        oom_record_bit(p->record, OOM_BIT_STATE_RESTORED, OOM_NOT_REACHED, "no teardown");
        return;
    }
    bool clean = r->left_allocated == 0 && r->left_reserved == 0;
    if (r->restored_checks != count_retried(r)) {
        clean = false;
        snprintf(why, sizeof why, "%d OOMs were survived, but the state was looked at %d times",
                 count_retried(r), r->restored_checks);
    } else if (!clean) {
        snprintf(why, sizeof why, "after teardown %llu bytes are allocated and %llu reserved",
                 (unsigned long long)r->left_allocated, (unsigned long long)r->left_reserved);
    } else if (r->restored_checks > 0) {
        snprintf(why, sizeof why, "as before in %d of %d retries; nothing left after teardown",
                 r->restored_checks, r->restored_checks);
    } else {
        snprintf(why, sizeof why, "no OOM in the mitigated run; nothing left after teardown");
    }
    bit(p, OOM_BIT_STATE_RESTORED, clean, why);
}

/* ---- figures ---- */

static void note_figures(struct proceedings *p) {
    struct oom_case_record *record = p->record;
    const struct oom_job_result *r = &p->mitigated->result;
    if (!p->mitigated->finished) return;
    oom_record_number(record, "capacity_bytes", (double)r->capacity, "bytes");
    oom_record_number(record, "peak_bytes", (double)r->peak_device, "bytes");
    oom_record_number(record, "peak_reserved_bytes", (double)r->peak_reserved, "bytes");
    oom_record_number(record, "peak_allocated_bytes", (double)r->peak_allocated, "bytes");
    oom_record_number(record, "planned_peak_bytes", (double)p->predicted->result.peak_device,
                      "bytes");
    oom_record_number(record, "unmitigated_bytes", (double)need_of(p), "bytes");
    oom_record_number(record, "foreign_bytes", (double)r->foreign, "bytes");
    oom_record_number(record, "host_bytes", (double)r->host_peak, "bytes");
    oom_record_number(record, "host_resident_bytes", (double)r->resident_out, "bytes");
    oom_record_number(record, "batch_without", (double)p->the_case->unmitigated.samples, "samples");
    oom_record_number(record, "batch", (double)r->steps[0].size, "samples");
    int last = r->steps_done > 0 ? r->steps_done - 1 : 0;
    oom_record_number(record, "batch_last", (double)r->steps[last].size, "samples");
    oom_record_number(record, "attempts", (double)count_real_runs(r), "");
    oom_record_number(record, "ooms", (double)count_ooms(r), "");
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
static enum oom_status note_share(struct proceedings *p) {
    const struct oom_case *c = p->the_case;
    if (!c->rates || c->extra != NULL || !completed(p->mitigated)) return OOM_OK;
    struct oom_job dry = on_dry(&c->mitigated, c->mitigated.capacity);
    const struct oom_job_result *r = &p->mitigated->result;
    int64_t largest = 0, size = r->steps[r->steps_done - 1].size;
    OOM_TRY(oom_largest_fit(&dry, fits_dry, dry.most, &largest));
    if (largest == 0) return OOM_OK;
    oom_record_number(p->record, "largest_batch", (double)largest, "samples");
    oom_record_number(p->record, "share_of_largest", (double)size / (double)largest, "");
    return OOM_OK;
}

/* Which failures were injected, and whether the last one ended the run. */
static void note_injection(struct proceedings *p) {
    const struct oom_hearing *h = p->mitigated;
    const struct oom_job_result *r = &h->result;
    const struct oom_report *first = NULL;
    char text[128];
    if (!h->finished) return;
    for (int i = r->attempt_count - 1; i >= 0; i--) {
        if (r->attempts[i].report.injected) first = &r->attempts[i].report;
    }
    if (first == NULL && r->oom.injected) first = &r->oom;
    int injected = count_injected(r);
    oom_record_number(p->record, "injected", injected > 0 ? injected : first != NULL, "");
    oom_record_number(p->record, "injected_end", ended_by_injection(h), "");
    if (first == NULL) return;
    snprintf(text, sizeof text, "allocation %llu ('%s')", (unsigned long long)first->index,
             first->site);
    oom_record_text(p->record, "injected_at", text);
}

/* A table's unmitigated run, once more in a process of its own, if somebody wants to see it. */
static enum oom_status export_table(struct proceedings *p) {
    const struct oom_hearing *hearing;
    if (p->the_case->exports == NULL) return OOM_OK;
    struct oom_job job = on_dry(&p->the_case->unmitigated, p->the_case->unmitigated.capacity);
    job.record = true;
    OOM_TRY(oom_court_hear(p->court, "recording", &job, NULL, &hearing));
    return hearing->finished ? oom_recording_export(hearing, p->the_case->exports) : OOM_OK;
}

enum oom_status oom_case_run(struct oom_court *court, const struct oom_case *the_case,
                             struct oom_case_record *record) {
    struct proceedings p = {.court = court, .the_case = the_case, .record = record};
    snprintf(record->id, sizeof record->id, "%s", the_case->id);
    if (the_case->table.count > 0) {
        OOM_TRY(export_table(&p));
        return oom_cures_judge(the_case, record);
    }
    OOM_TRY(hear_all(&p));
    if (the_case->exports != NULL && p.unmitigated->finished) {
        OOM_TRY(oom_recording_export(p.unmitigated, the_case->exports));
    }
    note_figures(&p);
    OOM_TRY(note_share(&p));
    OOM_TRY(judge_oom_without(&p));
    judge_fits(&p);
    judge_gradients(&p);
    judge_data(&p);
    judge_state(&p);
    if (!oom_injection_on(&the_case->injection)) return OOM_OK;
    note_injection(&p);
    oom_court_forget(court, p.mitigated);
    oom_court_forget(court, p.predicted);
    return OOM_OK;
}
