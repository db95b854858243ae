/*
 * judge-unequal.c: a case whose gradients mathematics makes others than the reference's, such as
 * batch norm in micro-batches. No mistake is looked for; what has to be shown is that they differ,
 * and by how much:
 *
 *   d = |found - reference|_2 / |reference|_2    all parameters, step 0: the weights are the same
 *   r = 2 C u |S|_2 / |g|_2                      what rounding can make of two runs that agree
 *
 * g and S are the truth's, C u |S| the bound of each run's distance from it (compare.h). The bit is
 * true where d <= r, false where d >= 10 r, and in between nothing can be told. The reference is
 * held against the truth, as any run is: what differs shall differ from the right gradient.
 */
#include "harness/verify/proceedings.h"

#include "harness/verify/compare.h"
#include "kernels/hostmem.h"

#include <math.h>
#include <stdio.h>

static const double clearly = 10;

enum oom_answer oom_unequal_answer(double distance, double rounding) {
    if (distance <= rounding) return OOM_TRUE;
    if (isfinite(distance) && distance >= clearly * rounding) return OOM_FALSE;
    return OOM_NOT_REACHED;
}

/* ---- the two numbers ---- */

struct measured {
    double distance, rounding, loss, reference_loss;
};

static double norm_of(const double *x, int64_t n) {
    double squares = 0;
    for (int64_t i = 0; i < n; i++) squares += x[i] * x[i];
    return sqrt(squares);
}

static double distance_of(const float *found, const float *reference, int64_t n) {
    double squares = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        double b = (double)reference[i], difference = (double)found[i] - b;
        squares += difference * difference;
        norm += b * b;
    }
    return sqrt(squares / norm);
}

static enum oom_status measure(struct oom_proceedings *p, struct measured *out) {
    const struct oom_hearing *a = p->mitigated, *b = p->reference;
    const struct oom_truth *truth;
    float *found = NULL, *reference = NULL;
    int64_t samples = b->result.steps[0].samples;
    OOM_TRY(oom_court_truth(p->court, &b->job, 0, samples, &truth));
    enum oom_status status = oom_read_gradients(&a->job, 0, truth->n, &found);
    if (status == OOM_OK) status = oom_read_gradients(&b->job, 0, truth->n, &reference);
    if (status == OOM_OK) {
        enum oom_dtype dtype = oom_job_precision(&b->job);
        double unit =
            oom_bound_constant(dtype, oom_terms_of(&b->job, samples)) * oom_dtype_roundoff(dtype);
        out->distance = distance_of(found, reference, truth->n);
        out->rounding =
            2 * unit * norm_of(truth->magnitude, truth->n) / norm_of(truth->gradient, truth->n);
        out->loss = a->result.steps[0].loss;
        out->reference_loss = b->result.steps[0].loss;
    }
    oom_host_free(found);
    oom_host_free(reference);
    return status;
}

/* ---- the bit ---- */

/* NULL when the reference is a right one. */
static const char *wrong_reference(struct oom_proceedings *p, char *why, size_t n) {
    const struct oom_hearing *b = p->reference;
    char bound[OOM_REASON_MAX] = "";
    struct oom_worst worst = {.error = -1};
    if (b == NULL || !oom_completed(b)) return "the reference did not finish";
    for (int step = 0; step < b->job.steps; step++) {
        bool both = b->result.steps[step].captured && p->mitigated->result.steps[step].captured;
        if (!both) return "a window ended without its optimizer step";
    }
    const char *wrong = oom_out_of_bound(p, b, 0, &worst, bound, sizeof bound);
    if (wrong == NULL) return NULL;
    snprintf(why, n, "the reference itself: %.180s", wrong);
    return why;
}

static void answer(struct oom_proceedings *p, const struct measured *m) {
    static const char *const words[] = {
        [OOM_TRUE] = "equal, though it must not be",
        [OOM_FALSE] = "not equal, as it must be",
        [OOM_NOT_REACHED] = "neither equal nor clearly unequal",
    };
    enum oom_answer which = oom_unequal_answer(m->distance, m->rounding);
    oom_record_number(p->record, "grad_distance", m->distance, "||g||");
    oom_record_number(p->record, "grad_distance_of_rounding", m->rounding, "||g||");
    oom_record_number(p->record, "reference_loss", m->reference_loss, "");
    oom_record_bit(p->record, OOM_BIT_GRAD_MATCH, which,
                   "%s: %.3g of ||g|| from the reference, where rounding makes at most %.1e (loss "
                   "%.6g, its %.6g): %s",
                   words[which], m->distance, m->rounding, m->loss, m->reference_loss,
                   p->the_case->unequal);
}

void oom_judge_unequal(struct oom_proceedings *p) {
    char why[OOM_REASON_MAX];
    struct measured measured = {0};
    const char *wrong = wrong_reference(p, why, sizeof why);
    if (wrong == NULL && measure(p, &measured) != OOM_OK) {
        snprintf(why, sizeof why, "cannot be compared: %.180s", oom_failure_last()->message);
        oom_failure_clear();
        wrong = why;
    }
    if (wrong == NULL) {
        answer(p, &measured);
    } else {
        oom_record_bit(p->record, OOM_BIT_GRAD_MATCH, OOM_NOT_REACHED, "%s", wrong);
    }
}
