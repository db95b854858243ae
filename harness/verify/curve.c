/*
 * curve.c: does training in another precision go where it should? The case's job beside two runs
 * of the unmitigated one, which differ in nothing but the order of their micro-batches, and so say
 * what rounding alone does to a curve.
 *
 *   |loss(k) - loss_a(k)| <= 3 max over k of |loss_a(k) - loss_b(k)| + u loss_a(k)     at every k
 *   |D . D_a / D_a . D_a - 1| <= 0.1     D = w(K) - w(0), the sum of K updates of all weights
 *
 * k counts the steps that were taken, K = 30; u is 2^-8 for bf16, 2^-11 for f16. Updates below half
 * a unit in the last place of weights that are halves are lost: then D . D_a is. (The norm of D is
 * not looked at: the first rounding of such weights, which is no update, would count in it.)
 */
#include "harness/verify/proceedings.h"

#include <math.h>
#include <stdio.h>

enum { STEPS = 30, PIECES = 8, PIECE = 4096 };

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

enum { FIRST, LAST, FIRST_F32, LAST_F32, FILES };

/* Dot products of the two runs' weight changes: each with itself, and with the other. */
struct dots {
    double found, expected, both;
};

static void add_piece(float pieces[FILES][PIECE], size_t n, struct dots *dots) {
    for (size_t i = 0; i < n; i++) {
        double found = (double)pieces[LAST][i] - (double)pieces[FIRST][i];
        double expected = (double)pieces[LAST_F32][i] - (double)pieces[FIRST_F32][i];
        dots->found += found * found;
        dots->expected += expected * expected;
        dots->both += found * expected;
    }
}

/* False when the files cannot be read, or are not of one size. */
static bool read_changes(FILE *const files[FILES], struct dots *dots) {
    float pieces[FILES][PIECE];
    for (size_t n = PIECE; n == PIECE;) {
        n = fread(pieces[0], sizeof(float), PIECE, files[0]);
        for (int i = 1; i < FILES; i++) {
            if (fread(pieces[i], sizeof(float), PIECE, files[i]) != n) return false;
        }
        add_piece(pieces, n, dots);
    }
    for (int i = 0; i < FILES; i++) {
        if (ferror(files[i]) != 0) return false;
    }
    return dots->expected > 0;
}

/* The part of the f32 run's weight change that this one made: 1 when it made all of it. */
static double moved(const struct oom_hearing *found, const struct oom_hearing *expected) {
    FILE *files[FILES] = {open_weights(&found->job, taken(found, 0)),
                          open_weights(&found->job, taken(found, STEPS)),
                          open_weights(&expected->job, taken(expected, 0)),
                          open_weights(&expected->job, taken(expected, STEPS))};
    struct dots dots = {0};
    bool open = true;
    for (int i = 0; i < FILES; i++) open = open && files[i] != NULL;
    bool good = open && read_changes(files, &dots);
    for (int i = 0; i < FILES; i++) {
        if (files[i] != NULL) fclose(files[i]);
    }
    return good ? dots.both / dots.expected : NAN;
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
    double worst = 0, allowed = 0, part = moved(p->mitigated, p->curves[0]);
    int at = 0;
    bool losses = losses_agree(p, &worst, &allowed, &at);
    oom_record_number(p->record, "weight_change", part, "");
    if (!(fabs(part - 1) <= weight_tolerance)) {
        snprintf(why, n,
                 "in %d steps the weights have made %.1f %% of the way that they make in f32: 90 "
                 "to 110 are allowed",
                 STEPS, 100 * part);
        return why;
    }
    if (!losses) {
        snprintf(why, n, "the loss of step %d is %.7g, in f32 %.7g: %.2g is allowed", at,
                 loss_of(p->mitigated, at), loss_of(p->curves[0], at), allowed);
        return why;
    }
    snprintf(p->curve_text, sizeof p->curve_text,
             "%d losses within %.3f of what is allowed beside f32; %.1f %% of its way", STEPS,
             worst, 100 * part);
    return NULL;
}
