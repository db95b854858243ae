/*
 * truth-magnitude-test.c: S of a cnn against loops over samples and pixels; runs that are right but
 * for their rounding are within the bound by it, as they are not by the sum over samples alone; and
 * a sample that is missing still is ten bounds away.
 */
#include "harness/verify/truth-magnitude.h"

#include "harness/train/cnn-unit.h"
#include "harness/train/train-testing.h"
#include "harness/verify/compare.h"
#include "harness/verify/job-testing.h"
#include "harness/verify/truth.h"

#include <math.h>

void truth_magnitude_test(void);

static char folder[64];
static struct oom_job_result result;

/* ---- S, the long way ---- */

enum { DISTINCT_MAX = 16 };

struct naive {
    struct rig rig; /* f64, all identities together; a loss of chosen ones */
    double weights[DISTINCT_MAX], counts[DISTINCT_MAX];
    int64_t n;
    double *by_samples, *terms, *larger;
};

static double *numbers(int64_t n) {
    double *out = oom_host_calloc((size_t)n, sizeof *out);
    CHECK(out != NULL);
    return out;
}

static double *fetched(struct rig *rig, const struct oom_tensor *from, int64_t n) {
    double *out = numbers(n);
    rig_download(rig, from->data, out, (uint64_t)n * sizeof *out);
    return out;
}

static double *terms_at(struct naive *w, const struct oom_parameter *parameter) {
    double *at = w->terms;
    for (int i = 0; &w->rig.trainer->parameters[i] < parameter; i++) {
        at += oom_parameter_n(&w->rig.trainer->parameters[i]);
    }
    return at;
}

/* One pixel of a result: what it adds for every weight of its filter. */
static void convolution_term(const struct oom_conv_shape *s, int64_t row, int64_t k, double dy,
                             const double *x, double *w) {
    int64_t b = row / (s->height * s->width), p = row / s->width % s->height, q = row % s->width;
    for (int64_t i = 0; i < 9 * s->channels; i++) {
        int64_t c = i % s->channels, h = p + i / s->channels / 3 - 1,
                v = q + i / s->channels % 3 - 1;
        if (h < 0 || h >= s->height || v < 0 || v >= s->width) continue;
        w[k * 9 * s->channels + i] +=
            fabs(dy * x[((b * s->height + h) * s->width + v) * s->channels + c]);
    }
}

static enum oom_status see_unit(void *context, const struct oom_unit_seen *seen) {
    struct naive *w = context;
    const struct oom_unit *u = seen->unit;
    const struct oom_conv_shape *s = &u->conv;
    int64_t rows = s->batch * u->positions, n = rows * s->filters;
    int64_t groups = u->groups > 0 ? s->batch * u->groups : s->filters;
    double *x = fetched(&w->rig, seen->x, rows * s->channels);
    double *dy = fetched(&w->rig, seen->dconv, n), *dout = fetched(&w->rig, seen->dout, n);
    double *in = fetched(&w->rig, &seen->saved->conv, n);
    double *mean = fetched(&w->rig, &seen->saved->mean, groups);
    double *rstd = fetched(&w->rig, &seen->saved->rstd, groups);
    double *weight = terms_at(w, u->weight), *gamma = terms_at(w, u->gamma);
    double *beta = terms_at(w, u->beta);
    for (int64_t i = 0; i < n; i++) {
        int64_t row = i / s->filters, k = i % s->filters, g = k;
        if (u->groups > 0) g = row / u->positions * u->groups + k * u->groups / s->filters;
        convolution_term(s, row, k, dy[i], x, weight);
        gamma[k] += fabs(dout[i] * (in[i] - mean[g]) * rstd[g]);
        beta[k] += fabs(dout[i]);
    }
    double *const all[] = {x, dy, dout, in, mean, rstd};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) oom_host_free(all[i]);
    return OOM_OK;
}

static void load_weights(struct rig *rig, const struct oom_job *job, int step) {
    size_t bytes;
    float *weights = (float *)(void *)job_file(job, "weights", step, &bytes), *next = weights;
    for (int i = 0; weights != NULL && i < rig->trainer->parameter_count; i++) {
        struct oom_parameter *p = &rig->trainer->parameters[i];
        for (int64_t k = 0; k < oom_parameter_n(p); k++) {
            double wide = (double)*next++;
            rig_upload(rig, p->value.data + (uint64_t)k * 8, &wide, 8);
        }
    }
    oom_host_free(weights);
}

/* The gradient of the loss of identity `only`, or of all of them (-1), |.|, added to `sums`. */
static void add_gradients(struct naive *w, const struct oom_job *job, int64_t only, double *sums) {
    struct oom_trainer *t = w->rig.trainer;
    struct oom_window window;
    oom_window_init(&window, &job->trainer.spec, &w->rig.source, job->samples, job->distinct,
                    false);
    for (int64_t p = 0; p < window.distinct; p++) w->weights[p] = w->counts[p] = 0;
    for (int64_t i = 0; i < job->samples; i++) {
        int64_t p = oom_window_identity(&window, i);
        w->counts[p]++;
        if (only < 0 || only == p) w->weights[p] += oom_window_weight(&window, i);
    }
    struct oom_weighing weighing = {
        .divisor = window.total, .weights = w->weights, .counts = w->counts};
    struct snapshot taken = {0};
    CHECK_OK(oom_trainer_begin_step(t));
    CHECK_OK(oom_trainer_clear_gradients(t));
    rig_window(&w->rig, window.distinct, window.distinct, false);
    CHECK_OK(oom_trainer_micro_batch(t, &w->rig.window, 0, window.distinct, weighing));
    snapshot_take(&w->rig, false, &taken);
    const double *gradient = (const double *)(void *)taken.bytes;
    for (int64_t i = 0; sums != NULL && i < w->n; i++) sums[i] += fabs(gradient[i]);
    snapshot_free(&taken);
}

static void naive_open(const struct oom_job *job, int step, struct naive *w) {
    char model[OOM_SPEC_TEXT_MAX];
    oom_model_spec_text(&job->trainer.spec, model);
    *w = (struct naive){.n = 0};
    rig_open(&w->rig, &(struct rig_options){.model = model,
                                            .seed = job->trainer.seed,
                                            .dtype = OOM_F64,
                                            .capacity = 512 << 20,
                                            .gradients = OOM_GRADIENTS_ZEROED});
    struct oom_trainer *t = w->rig.trainer;
    for (int i = 0; i < t->parameter_count; i++) w->n += oom_parameter_n(&t->parameters[i]);
    w->by_samples = numbers(w->n);
    w->terms = numbers(w->n);
    w->larger = numbers(w->n);
    load_weights(&w->rig, job, step);
    t->rng_step = (uint32_t)step;
    int64_t distinct = job->samples < job->distinct ? job->samples : job->distinct;
    for (int64_t p = 0; p < distinct; p++) add_gradients(w, job, p, w->by_samples);
    t->watch = (struct oom_unit_watch){w, see_unit};
    add_gradients(w, job, -1, NULL);
    for (int64_t i = 0; i < w->n; i++) w->larger[i] = fmax(w->by_samples[i], w->terms[i]);
}

static void naive_close(struct naive *w) {
    oom_host_free(w->by_samples);
    oom_host_free(w->terms);
    oom_host_free(w->larger);
    rig_close(&w->rig);
}

/* The terms of a batch of several samples, whatever the norm. */
static void terms_together(struct naive *w, const struct oom_job *job) {
    struct oom_magnitude m;
    double *found = numbers(w->n), worst = 0;
    CHECK_OK(oom_magnitude_begin(w->rig.trainer, &m));
    oom_magnitude_watch(&m, 1);
    add_gradients(w, job, -1, NULL);
    oom_magnitude_raise(&m, found);
    oom_magnitude_end(&m);
    for (int64_t i = 0; i < w->n; i++) {
        worst = fmax(worst, fabs(found[i] - w->terms[i]) / fmax(w->terms[i], 1e-300));
    }
    CHECK_MSG(worst <= 1e-9, "worst relative difference of terms %g", worst);
    oom_host_free(found);
}

static struct oom_job cnn_job(const char *model, int64_t samples, uint64_t seed) {
    struct oom_job job = small_job(model, samples, folder);
    job.trainer.seed = seed;
    job.steps = 1;
    job.distinct = 8;
    return job;
}

static void capture(struct oom_job *job) {
    CHECK_OK(oom_job_run(job, &result));
    CHECK_EQ(result.status, OOM_OK);
}

static void same_magnitude(const char *model, int64_t samples) {
    TEST("truth: S is that of loops over samples and pixels: %s, %lld samples", model,
         (long long)samples);
    struct oom_job job = cnn_job(model, samples, 3);
    struct oom_truth truth;
    struct naive w;
    capture(&job);
    CHECK_OK(oom_truth_make(&job, 0, samples, &truth));
    CHECK_EQ(truth.branches_differ, 0);
    naive_open(&job, 0, &w);
    int64_t raised = 0; /* in the head, which has no units, none */
    double worst = 0;
    if (CHECK(truth.n == w.n)) {
        for (int64_t i = 0; i < w.n; i++) {
            worst = fmax(worst, fabs(truth.magnitude[i] - w.larger[i]) / w.larger[i]);
            raised += w.terms[i] > w.by_samples[i];
        }
    }
    CHECK_MSG(worst <= 1e-9, "worst relative difference %g", worst);
    CHECK_MSG(2 * raised > w.n, "%lld of %lld raised", (long long)raised, (long long)w.n);
    oom_truth_free(&truth);
    terms_together(&w, &job);
    naive_close(&w);
}

/* ---- runs by both measures ---- */

/* error / bound: of the worst tensor, by S and by the sum over samples alone; of the best by S. */
struct ratios {
    double by_terms, by_samples, least;
};

static void add_tensor(const struct naive *w, const struct oom_job *job, const float *found,
                       const struct oom_truth *truth, int64_t at, int64_t n, struct ratios *out) {
    const struct oom_model_spec *spec = &job->trainer.spec;
    const double *by[2] = {truth->magnitude + at, w->by_samples + at};
    double ratio[2];
    for (int i = 0; i < 2; i++) {
        struct oom_agreement a =
            oom_compare_bounded(found + at, truth->gradient + at, by[i], n, oom_job_precision(job),
                                job->samples * spec->image * spec->image);
        ratio[i] = a.error / a.bound;
    }
    out->by_terms = fmax(out->by_terms, ratio[0]);
    out->by_samples = fmax(out->by_samples, ratio[1]);
    out->least = fmin(out->least, ratio[0]);
}

static struct ratios ratios_of(const struct oom_job *job, int64_t samples) {
    struct oom_truth truth;
    struct naive w;
    struct ratios out = {-1, -1, INFINITY};
    size_t bytes;
    CHECK_OK(oom_truth_make(job, 0, samples, &truth));
    float *found = (float *)(void *)job_file(job, "gradients", 0, &bytes);
    naive_open(job, 0, &w);
    if (samples == job->samples) CHECK_EQ(truth.branches_wrong, 0);
    if (CHECK(bytes == (size_t)truth.n * 4)) {
        for (int64_t i = 0, at = 0, n; i < w.rig.trainer->parameter_count; i++, at += n) {
            n = oom_parameter_n(&w.rig.trainer->parameters[i]);
            add_tensor(&w, job, found, &truth, at, n, &out);
        }
    }
    naive_close(&w);
    oom_host_free(found);
    oom_truth_free(&truth);
    return out;
}
/* Five seeds of one shape. */
static int within(const char *model, int64_t samples, enum oom_amp amp) {
    static const char *const names[] = {"f32", "f16", "bf16"};
    int beyond = 0;
    TEST("truth: right runs are within the bound: %s, %lld samples, %s", model, (long long)samples,
         names[amp]);
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct oom_job job = cnn_job(model, samples, seed);
        job.trainer.amp = amp;
        capture(&job);
        struct ratios r = ratios_of(&job, samples);
        CHECK_MSG(r.by_terms > 0 && r.by_terms <= 1, "seed %d: %.3g bounds", (int)seed, r.by_terms);
        beyond += r.by_samples > 1;
    }
    return beyond;
}

static void right_runs(void) {
    static const char *const models[] = {
        "cnn,layers=3,width=3,image=12,stages=3,norm=batch,vocab=6",
        "cnn,layers=1,width=4,image=32,stages=1,norm=batch,vocab=5",
        "cnn,layers=2,width=6,image=14,stages=2,norm=group,groups=3,vocab=4",
        "cnn,layers=3,width=5,image=9,stages=1,norm=group,groups=5,vocab=3",
    };
    int beyond[3] = {0};
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        beyond[OOM_AMP_OFF] += within(models[i], 5, OOM_AMP_OFF);
        for (int amp = OOM_AMP_OFF; amp <= OOM_AMP_BF16; amp++) {
            beyond[amp] += within(models[i], 2, (enum oom_amp)amp);
        }
    }
    TEST("truth: by samples alone some of them, in each precision, are not");
    for (int amp = 0; amp < 3; amp++) CHECK_MSG(beyond[amp] > 0, "precision %d: none", amp);
}

static void sample_missing(const char *model) {
    TEST("truth: one sample of 8 less is ten bounds away: %s", model);
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct oom_job job = cnn_job(model, 8, seed);
        capture(&job);
        struct ratios r = ratios_of(&job, 7);
        CHECK_MSG(r.least > 10, "seed %d: %.3g to %.3g bounds", (int)seed, r.least, r.by_terms);
    }
}

void truth_magnitude_test(void) {
    static const char group[] = "cnn,layers=2,width=4,image=6,stages=2,norm=group,groups=2,vocab=5";
    static const char batch[] = "cnn,layers=2,width=4,image=6,stages=2,norm=batch,vocab=5";
    folder_make(folder, sizeof folder);
    uint64_t before = oom_host_bytes_current();
    same_magnitude(group, 6);
    same_magnitude(group, 11); /* repeats, with weights */
    same_magnitude(batch, 6);
    same_magnitude(batch, 11);
    same_magnitude("cnn,layers=1,width=1,image=5,stages=1,norm=batch,vocab=2", 3);
    right_runs();
    sample_missing(group);
    sample_missing(batch);
    TEST("truth: nothing of S is left");
    CHECK_EQ(oom_host_bytes_current(), before);
    folder_remove(folder);
}
