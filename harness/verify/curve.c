/*
 * curve.c: does training in another precision go where it should? The case's job beside two runs
 * of the unmitigated one, which differ in nothing but the order of their micro-batches, and so say
 * what rounding alone does to a curve.
 *
 *   |loss(k) - loss_a(k)| <= 3 max over k of |loss_a(k) - loss_b(k)| + u loss_a(k)     at every k
 *   0.9 <= |w(K) - w(0)| / |w_a(K) - w_a(0)| <= 1.1      with 2-norms over all weights
 *
 * k counts the steps that were taken, K = 30. u is 2^-8 for bf16, 2^-11 for f16. Updates below half
 * a unit in the last place of the weights are lost where these are halves: then the second fails.
 */
#include "harness/verify/proceedings.h"

#include <math.h>
#include <stdio.h>

enum { STEPS = 30, PIECES = 8 };

static const double noise_factor = 3, weight_tolerance = 0.1;

/* Micro-batches are as small as the rounding of their sums is to differ. */
static struct oom_job shuffled(const struct oom_proceedings *p, uint64_t capacity, uint64_t seed) {
    struct oom_job job = p->the_case->unmitigated;
    job.capacity = capacity;
    job.capture = true;
    job.micro = true;
    job.most = job.samples / PIECES > 0 ? job.samples / PIECES : 1;
    job.trainer.shuffle = seed;
    return job;
}

enum oom_status oom_curve_hear(struct oom_proceedings *p, uint64_t capacity) {
    for (int i = 0; i < 2; i++) {
        struct oom_job job = shuffled(p, capacity, 1 + (uint64_t)i);
        OOM_TRY(oom_court_hear(p->court, "curve", &job, NULL, &p->curves[i]));
    }
    return OOM_OK;
}

/* ---- the steps that were taken ---- */

/* The number of taken step k; -1: there are fewer. */
static int taken(const struct oom_hearing *hearing, int k) {
    for (int step = 0; hearing->finished && step < hearing->result.steps_done; step++) {
        if (hearing->result.steps[step].captured && k-- == 0) return step;
    }
    return -1;
}

static double loss_of(const struct oom_hearing *hearing, int k) {
    return hearing->result.steps[taken(hearing, k)].loss;
}

/* ---- loss ---- */

static double noise_of(const struct oom_proceedings *p) {
    double noise = 0;
    for (int k = 0; k < STEPS; k++) {
        noise = fmax(noise, fabs(loss_of(p->curves[0], k) - loss_of(p->curves[1], k)));
    }
    return noise;
}

/* The largest difference, as a part of what is allowed. */
static bool losses_agree(struct oom_proceedings *p, double *worst, double *allowed, int *at) {
    double u = oom_dtype_roundoff(oom_job_precision(&p->mitigated->job)), noise = noise_of(p);
    bool pass = true;
    *worst = -1;
    for (int k = 0; k < STEPS; k++) {
        double expected = loss_of(p->curves[0], k);
        double difference = fabs(loss_of(p->mitigated, k) - expected);
        double bound = noise_factor * noise + u * fabs(expected);
        pass = pass && difference <= bound;
        if (difference / bound <= *worst) continue; /* a NaN is noted, and has failed */
        *worst = difference / bound;
        *allowed = bound;
        *at = k;
    }
    oom_record_number(p->record, "curve_noise", noise, "");
    oom_record_number(p->record, "curve_difference", *worst * *allowed, "");
    oom_record_number(p->record, "curve_allowed", *allowed, "");
    return pass;
}

/* ---- weights ---- */

static FILE *open_weights(const struct oom_job *job, int step) {
    char path[OOM_JOB_PATH_MAX + 32];
    oom_job_path(job, "weights", step, path);
    return fopen(path, "rbe");
}

/* Of files of as many elements; -1 where they are not. */
static double distance(FILE *a, FILE *b) {
    enum { PIECE = 4096 };
    float left[PIECE], right[PIECE];
    double squares = 0;
    for (;;) {
        size_t m = fread(left, sizeof *left, PIECE, a), n = fread(right, sizeof *right, PIECE, b);
        if (m != n) return -1;
        for (size_t i = 0; i < n; i++) {
            double d = (double)left[i] - (double)right[i];
            squares += d * d;
        }
        if (n < PIECE) return ferror(a) == 0 && ferror(b) == 0 ? sqrt(squares) : -1;
    }
}

/* The norm of the sum of the first STEPS updates. */
static double moved(const struct oom_hearing *hearing) {
    FILE *a = open_weights(&hearing->job, taken(hearing, 0));
    FILE *b = open_weights(&hearing->job, taken(hearing, STEPS));
    double norm = a != NULL && b != NULL ? distance(a, b) : -1;
    if (a != NULL) fclose(a);
    if (b != NULL) fclose(b);
    return norm;
}

/* ---- both ---- */

const char *oom_curve_differs(struct oom_proceedings *p, char *why, size_t n) {
    const struct oom_hearing *all[] = {p->mitigated, p->curves[0], p->curves[1]};
    for (int i = 0; i < 3; i++) {
        if (taken(all[i], STEPS) >= 0) continue;
        snprintf(why, n, "%s did not take %d steps", i == 0 ? "it" : "a run to compare it with",
                 STEPS + 1);
        return why;
    }
    double worst = 0, allowed = 0, found = moved(p->mitigated), expected = moved(p->curves[0]);
    int at = 0;
    bool losses = losses_agree(p, &worst, &allowed, &at);
    double ratio = found >= 0 && expected > 0 ? found / expected : NAN;
    oom_record_number(p->record, "weight_change", found, "");
    oom_record_number(p->record, "weight_change_ratio", ratio, "");
    if (!losses) {
        snprintf(why, n, "the loss of step %d is %.7g, in f32 %.7g: %.2g is allowed", at,
                 loss_of(p->mitigated, at), loss_of(p->curves[0], at), allowed);
        return why;
    }
    if (!(fabs(ratio - 1) <= weight_tolerance)) {
        snprintf(why, n,
                 "in %d steps the weights moved by %.4g, in f32 by %.4g: %.1f %%, 90 to 110 are "
                 "allowed",
                 STEPS, found, expected, 100 * ratio);
        return why;
    }
    snprintf(p->curve_text, sizeof p->curve_text,
             "the loss of %d steps is within %.2f of what is allowed beside f32, the weights move "
             "by %.1f %% of that",
             STEPS, worst, 100 * ratio);
    return NULL;
}
