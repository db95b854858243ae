/* judge-gradients.c: are gradients and loss those of the reference, and within the bound? */
#include "harness/verify/proceedings.h"

#include "harness/verify/compare.h"
#include "kernels/hostmem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

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

static const char *unequal_bits(struct oom_proceedings *p, char *why, size_t n) {
    const struct oom_hearing *a = p->mitigated, *b = p->reference;
    if (!oom_completed(b)) {
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
    const struct oom_model *model = oom_model_of(&layout->spec);
    if (layout->index > 0) layout->at += oom_parameter_n(&layout->parameter);
    if (layout->index >= model->count(&layout->spec)) return false;
    layout->parameter = (struct oom_parameter){0};
    model->describe(&layout->spec, layout->index++, &layout->parameter);
    return true;
}

enum oom_status oom_read_gradients(const struct oom_job *job, int step, int64_t n, float **out) {
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

static bool agree_parameters(const struct oom_job *job, const float *found,
                             const struct oom_truth *truth, int64_t terms,
                             struct oom_worst *worst) {
    struct layout layout = {.spec = job->trainer.spec};
    bool pass = true;
    while (next_parameter(&layout)) {
        struct oom_agreement agreement = oom_compare_bounded(
            found + layout.at, truth->gradient + layout.at, truth->magnitude + layout.at,
            oom_parameter_n(&layout.parameter), oom_job_precision(job), terms);
        pass = pass && agreement.pass;
        if (agreement.error <= worst->error) continue;
        *worst = (struct oom_worst){.error = agreement.error, .bound = agreement.bound};
        snprintf(worst->name, sizeof worst->name, "%s", layout.parameter.name);
    }
    return pass;
}

int64_t oom_terms_of(const struct oom_job *job, int64_t samples) {
    const struct oom_model_spec *spec = &job->trainer.spec;
    int64_t pixels = spec->kind == OOM_MODEL_CNN ? spec->image * spec->image : 1;
    return samples * oom_spec_rows(spec) * pixels;
}

const char *oom_out_of_bound(struct oom_proceedings *p, const struct oom_hearing *h, int step,
                             struct oom_worst *worst, char *why, size_t n) {
    const struct oom_job *job = &h->job;
    const struct oom_job_step *done = &h->result.steps[step];
    int64_t nominal =
        step == job->steps - 1 && job->last_samples > 0 ? job->last_samples : job->samples;
    int64_t samples = job->micro ? nominal : done->samples;
    int64_t terms = oom_terms_of(job, samples);
    const struct oom_truth *truth;
    float *found = NULL;
    bool pass = false;
    if (oom_court_truth(p->court, job, step, samples, &truth) == OOM_OK &&
        oom_read_gradients(job, step, truth->n, &found) == OOM_OK) {
        pass = agree_parameters(job, found, truth, terms, worst);
        oom_host_free(found);
    } else {
        snprintf(why, n, "no truth: %.120s", oom_failure_last()->message);
        oom_failure_clear();
        return why;
    }
    float loss = (float)done->loss;
    struct oom_agreement loss_agreement = oom_compare_bounded(
        &loss, &truth->loss, &truth->loss_magnitude, 1, oom_job_precision(job), terms);
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

const char *oom_skips_wrong(const struct oom_proceedings *p) {
    const struct oom_job_result *r = &p->mitigated->result;
    if (r->skipped == r->steps_done)
        return "every step was left out: there is no gradient to judge";
    if (r->skipped < p->the_case->skips) return "no step was left out, although gradients overflow";
    return NULL;
}

void oom_judge_gradients(struct oom_proceedings *p) {
    const struct oom_case *c = p->the_case;
    const struct oom_hearing *h = p->mitigated;
    char why[OOM_REASON_MAX] = "";
    if (!h->finished) {
        snprintf(why, sizeof why, "the process ended: %s", h->end);
        oom_judge_bit(p, OOM_BIT_GRAD_MATCH, false, why);
        return;
    }
    if (oom_ended_by_injection(h)) {
        oom_record_bit(p->record, OOM_BIT_GRAD_MATCH, OOM_NOT_ASKED,
                       "the injected failure ended it");
        return;
    }
    if (!oom_completed(h)) {
        oom_record_bit(p->record, OOM_BIT_GRAD_MATCH, OOM_NOT_REACHED, "no finished step");
        return;
    }
    if (c->unequal[0] != 0) {
        oom_judge_unequal(p);
        return;
    }
    if (!c->bitwise && !c->bounded && !c->curve) {
        oom_record_bit(p->record, OOM_BIT_GRAD_MATCH, OOM_NOT_REACHED, "nothing to compare with");
        return;
    }
    struct oom_worst worst = {.error = -1};
    const char *wrong = NULL;
    for (int step = 0; step < h->job.steps && wrong == NULL; step++) {
        if (h->result.steps[step].skipped) continue;
        if (!h->result.steps[step].captured) wrong = "a window ended without its optimizer step";
        if (wrong == NULL && c->bounded)
            wrong = oom_out_of_bound(p, h, step, &worst, why, sizeof why);
    }
    if (wrong == NULL) wrong = oom_skips_wrong(p);
    if (wrong == NULL && c->curve) wrong = oom_curve_differs(p, why, sizeof why);
    if (c->bounded) oom_record_number(p->record, "grad_error", worst.error, "u|S|");
    if (c->bounded) oom_record_number(p->record, "grad_bound", worst.bound, "u|S|");
    if (wrong == NULL && c->bitwise) wrong = unequal_bits(p, why, sizeof why);
    if (wrong == NULL) {
        char bound[96] = "";
        if (c->bounded) {
            snprintf(bound, sizeof bound, "; %.2f u|S| from the f64 truth, bound %.1f (%s)",
                     worst.error, worst.bound, worst.name);
        }
        const char *how = c->bitwise ? "equal bits to the reference"
                          : c->curve ? p->curve_text
                                     : "in bound";
        snprintf(why, sizeof why, "%.144s%s", how, bound);
    }
    oom_judge_bit(p, OOM_BIT_GRAD_MATCH, wrong == NULL, wrong == NULL ? why : wrong);
}
