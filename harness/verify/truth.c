#include "harness/verify/truth.h"

#include "harness/verify/compare.h"
#include "harness/verify/truth-magnitude.h"
#include "kernels/hostmem.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

struct maker {
    const struct oom_job *job;
    struct oom_truth *truth;
    struct oom_source source;
    struct oom_session session;
    struct oom_trainer *trainer;
    struct oom_window window; /* as the run had it */
    int branches;             /* file; -1: none */
    double coefficient;       /* of the sample in hand */
    bool judged;              /* branches were looked at before */
    double *counts, *weights; /* batch norm: of each identity */
    struct oom_magnitude terms;
    int64_t at; /* element, while gradients are added */
};

/* ---- the device: large enough for what runs at once, in f64 ---- */

static enum oom_status open_session(struct maker *m) {
    const struct oom_model *model = oom_model_of(&m->job->trainer.spec);
    bool joined = model->statistics != NULL && model->statistics(&m->job->trainer.spec) > 0;
    int64_t at_once = joined ? m->job->distinct : 1;
    struct oom_trainer_options trainer = m->job->trainer;
    trainer.gradients = OOM_GRADIENTS_ZEROED;
    trainer.amp = OOM_AMP_OFF;
    trainer.checkpointing = OOM_CHECKPOINTING_OFF;
    struct oom_plan_request request = {.trainer = trainer,
                                       .settings = oom_allocator_settings_default(),
                                       .capacity = OOM_PLAN_UNLIMITED,
                                       .samples = at_once,
                                       .size = at_once,
                                       .steps = 1};
    struct oom_plan plan;
    OOM_TRY(oom_plan_run(&request, &plan));
    uint64_t scratch = oom_magnitude_bytes(&trainer.spec);
    struct oom_device_options options = {.capacity = 2 * plan.peak_device + scratch + (64u << 20),
                                         .isa = m->job->isa,
                                         .threads = m->job->threads};
    struct oom_allocator_settings settings = oom_allocator_settings_default();
    settings.trace_entries = 0;
    OOM_TRY(oom_host_open(&options, &m->session.device));
    m->session.dtype = OOM_F64;
    OOM_TRY(oom_allocator_create(m->session.device, &settings, &m->session.allocator));
    return oom_trainer_create(&m->session, &trainer, &m->trainer);
}

/* ---- the weights that the run had, from its file ---- */

enum { PIECE = 4096 }; /* elements */

static enum oom_status read_exactly(int file, void *out, size_t bytes) {
    for (size_t done = 0; done < bytes;) {
        ssize_t got = read(file, (char *)out + done, bytes - done);
        if (got <= 0) return oom_fail_native(OOM_IO, errno, "a job's file is too short");
        done += (size_t)got;
    }
    return OOM_OK;
}

static enum oom_status load_parameter(struct maker *m, int file, const struct oom_parameter *p) {
    float narrow[PIECE];
    double wide[PIECE];
    struct oom_device *device = m->session.device;
    for (int64_t at = 0, n = oom_parameter_n(p); at < n; at += PIECE) {
        int64_t count = n - at < PIECE ? n - at : PIECE;
        OOM_TRY(read_exactly(file, narrow, (size_t)count * sizeof *narrow));
        for (int64_t i = 0; i < count; i++) wide[i] = (double)narrow[i];
        OOM_TRY(device->api->upload(device, p->value.data + (uint64_t)at * 8, wide,
                                    (uint64_t)count * 8, m->session.stream));
    }
    return OOM_OK;
}

static enum oom_status open_file(const struct oom_job *job, const char *what, int step, int *file) {
    char path[OOM_JOB_PATH_MAX + 32];
    oom_job_path(job, what, step, path);
    *file = open(path, O_RDONLY | O_CLOEXEC);
    if (*file >= 0) return OOM_OK;
    return oom_fail_native(OOM_IO, errno, "'%s' cannot be read: %s", path, strerror(errno));
}

static enum oom_status load_weights(struct maker *m, int step) {
    int file;
    OOM_TRY(open_file(m->job, "weights", step, &file));
    enum oom_status status = OOM_OK;
    for (int i = 0; i < m->trainer->parameter_count && status == OOM_OK; i++) {
        status = load_parameter(m, file, &m->trainer->parameters[i]);
    }
    close(file);
    return status;
}

/* ---- branches ---- */

static enum oom_status read_branches(const struct maker *m, const struct oom_kink *kink,
                                     uint8_t *out) {
    size_t bytes = (size_t)(kink->samples * kink->elements);
    off_t at = (off_t)oom_job_branches_at(m->job, kink->index, kink->begin);
    if (pread(m->branches, out, bytes, at) == (ssize_t)bytes) return OOM_OK;
    return oom_fail_native(OOM_IO, errno, "the file of branches is too short");
}

/* A sample's identity is its number here: each stands once in the window. */
static enum oom_status take_branches(void *context, const struct oom_kink *kink, uint8_t *out) {
    return read_branches(context, kink, out);
}

/* How far from a kink rounding alone can move a sum: a chain of K terms errs by at most
 * (16 + sqrt(K)/2) u sum|a w|, and sum|a w| is about sqrt(K) times the rms of the sums; what goes
 * into the layer carries the errors of those below. Twice that between two elements of a pool. */
static double kink_width(const struct maker *m, int kink, double rms) {
    const struct oom_model_spec *spec = &m->job->trainer.spec;
    int64_t wide = spec->width << (spec->kind == OOM_MODEL_CNN ? spec->stages - 1 : 0);
    double k = (double)(spec->kind == OOM_MODEL_CNN ? 9 * wide : wide);
    return oom_bound_constant(OOM_F32, (int64_t)k) * oom_dtype_roundoff(oom_job_precision(m->job)) *
           sqrt(k) * (kink + 1) * rms;
}

static double rms_of(const double *x, int64_t n) {
    double squares = 0;
    for (int64_t i = 0; i < n; i++) squares += x[i] * x[i];
    return sqrt(squares / (double)n);
}

static void judge_one(struct maker *m, bool same, double distance, double width) {
    if (same) return;
    m->truth->branches_differ++;
    if (!(distance <= width)) m->truth->branches_wrong++;
}

static void judge_relu(struct maker *m, const struct oom_kink *kink, const double *x,
                       const uint8_t *taken) {
    int64_t n = kink->samples * kink->elements;
    double width = kink_width(m, kink->index, rms_of(x, n));
    for (int64_t i = 0; i < n; i++) {
        judge_one(m, (taken[i] != 0) == (x[i] > 0), fabs(x[i]), width);
    }
}

/* Decision i of a pooling: element (r, s) of its window, as an index into x. */
static int64_t element_of(const struct oom_kink *kink, int64_t i, int64_t r, int64_t s) {
    int64_t columns = kink->width / kink->size, rows = kink->height / kink->size;
    int64_t c = i % kink->channels, q = i / kink->channels % columns;
    int64_t p = i / kink->channels / columns % rows, b = i / kink->channels / columns / rows;
    int64_t row = (b * kink->height + p * kink->size + r) * kink->width + q * kink->size + s;
    return row * kink->channels + c;
}

static void judge_pool(struct maker *m, const struct oom_kink *kink, const double *x,
                       const uint8_t *taken) {
    int64_t n = kink->samples * kink->elements, size = kink->size;
    double width = 2 * kink_width(m, kink->index, rms_of(x, n * size * size));
    for (int64_t i = 0; i < n; i++) {
        double largest = -INFINITY,
               chosen = x[element_of(kink, i, taken[i] / size, taken[i] % size)];
        for (int64_t e = 0; e < size * size; e++) {
            largest = fmax(largest, x[element_of(kink, i, e / size, e % size)]);
        }
        judge_one(m, chosen == largest, largest - chosen, width);
    }
}

static enum oom_status see_branches(void *context, const struct oom_kink *kink) {
    struct maker *m = context;
    int64_t n = kink->samples * kink->elements;
    int64_t inputs = kink->kind == OOM_KINK_POOL ? n * kink->size * kink->size : n;
    if (m->judged) return OOM_OK;
    double *values = oom_host_alloc((size_t)inputs * sizeof *values);
    uint8_t *taken = oom_host_alloc((size_t)n);
    enum oom_status status = OOM_OK;
    if (values == NULL || taken == NULL) status = oom_fail(OOM_HOST_NOMEM, "a sample's branches");
    if (status == OOM_OK) {
        status = m->session.device->api->download(m->session.device, values, kink->x->data,
                                                  (uint64_t)inputs * 8, m->session.stream);
    }
    if (status == OOM_OK) status = read_branches(m, kink, taken);
    if (status == OOM_OK) {
        (kink->kind == OOM_KINK_POOL ? judge_pool : judge_relu)(m, kink, values, taken);
    }
    oom_host_free(values);
    oom_host_free(taken);
    return status;
}

/* ---- the sum ---- */

enum { ALL = -1 }; /* in place of an identity */

/* How often an identity stands in the window, and with what weight. */
static double count_of(const struct maker *m, int64_t identity, double *weight) {
    double count = 0;
    *weight = 0;
    for (int64_t i = 0; i < m->window.samples; i++) {
        if (oom_window_identity(&m->window, i) != identity) continue;
        *weight += oom_window_weight(&m->window, i);
        count++;
    }
    return count;
}

static enum oom_status add_piece(void *context, const void *data, size_t bytes) {
    struct maker *m = context;
    const double *value = data;
    for (size_t i = 0; i < bytes / sizeof *value; i++, m->at++) {
        m->truth->gradient[m->at] += m->coefficient * value[i];
        m->truth->magnitude[m->at] += m->coefficient * fabs(value[i]);
    }
    return OOM_OK;
}

static enum oom_status add_gradients(struct maker *m) {
    m->at = 0;
    for (int i = 0; i < m->trainer->parameter_count; i++) {
        const struct oom_parameter *p = &m->trainer->parameters[i];
        OOM_TRY(oom_tensor_read(&m->session, p->gradient, (uint64_t)oom_parameter_n(p) * 8,
                                add_piece, m));
    }
    return OOM_OK;
}

static enum oom_status run(struct maker *m, const struct oom_window *alone, int64_t begin,
                           int64_t end, struct oom_weighing weighing) {
    OOM_TRY(oom_trainer_begin_step(m->trainer));
    OOM_TRY(oom_trainer_clear_gradients(m->trainer));
    return oom_trainer_micro_batch(m->trainer, alone, begin, end, weighing);
}

/* The gradient of samples [begin, end) of `alone`, times the coefficient. */
static enum oom_status add(struct maker *m, const struct oom_window *alone, int64_t begin,
                           int64_t end, struct oom_weighing weighing) {
    double loss;
    OOM_TRY(run(m, alone, begin, end, weighing));
    OOM_TRY(oom_trainer_read_loss(m->trainer, &loss));
    m->truth->loss += m->coefficient * loss;
    m->truth->loss_magnitude += m->coefficient * fabs(loss);
    return add_gradients(m);
}

/* Its terms are those of the window, times the coefficient. */
static enum oom_status add_alone(struct maker *m, const struct oom_window *alone, int64_t p) {
    double weight;
    count_of(m, p, &weight);
    m->coefficient = weight / m->window.total;
    oom_magnitude_watch(&m->terms, m->coefficient);
    return add(m, alone, p, p + 1, (struct oom_weighing){.divisor = 1.0});
}

/* Batch norm: all identities together, as often in the statistics as they stand in the window; the
 * loss of identity p, or of all. */
static struct oom_weighing together(struct maker *m, int64_t p) {
    for (int64_t i = 0; i < m->job->distinct; i++) {
        double weight;
        m->counts[i] = count_of(m, i, &weight);
        m->weights[i] = p == ALL || p == i ? weight : 0;
    }
    return (struct oom_weighing){
        .divisor = m->window.total, .weights = m->weights, .counts = m->counts};
}

/* Terms are those of the whole loss: a term of one sample's loss is not one of the run's. */
static enum oom_status add_together(struct maker *m, const struct oom_window *alone) {
    int64_t n = alone->samples;
    m->coefficient = 1;
    for (int64_t p = 0; p < n; p++) {
        OOM_TRY(add(m, alone, 0, n, together(m, p)));
        m->judged = true; /* every forward is the same */
    }
    oom_magnitude_watch(&m->terms, 1);
    return run(m, alone, 0, n, together(m, ALL));
}

static enum oom_status add_all(struct maker *m, const struct oom_window *alone) {
    if (m->trainer->statistic_count > 0) return add_together(m, alone);
    for (int64_t p = 0; p < alone->samples; p++) OOM_TRY(add_alone(m, alone, p));
    return OOM_OK;
}

static enum oom_status allocate(struct maker *m) {
    for (int i = 0; i < m->trainer->parameter_count; i++) {
        m->truth->n += oom_parameter_n(&m->trainer->parameters[i]);
    }
    m->counts = oom_host_calloc((size_t)m->job->distinct, sizeof(double));
    m->weights = oom_host_calloc((size_t)m->job->distinct, sizeof(double));
    m->truth->gradient = oom_host_calloc((size_t)m->truth->n, sizeof(double));
    m->truth->magnitude = oom_host_calloc((size_t)m->truth->n, sizeof(double));
    bool good = m->counts != NULL && m->weights != NULL;
    if (good && m->truth->gradient != NULL && m->truth->magnitude != NULL) return OOM_OK;
    return oom_fail(OOM_HOST_NOMEM, "the truth of %lld elements", (long long)m->truth->n);
}

static enum oom_status make(struct maker *m, int step, int64_t samples) {
    const struct oom_job *job = m->job;
    OOM_TRY(oom_source_open(job->data[0] != 0 ? job->data : NULL, job->trainer.seed, &m->source));
    OOM_TRY(open_session(m));
    OOM_TRY(allocate(m));
    OOM_TRY(load_weights(m, step));
    if (oom_job_keeps_branches(job)) {
        OOM_TRY(open_file(job, "branches", step, &m->branches));
        m->trainer->branches = (struct oom_branches){m, see_branches, take_branches};
    }
    m->trainer->rng_step = (uint32_t)step;
    oom_window_init(&m->window, &job->trainer.spec, &m->source, samples, job->distinct,
                    job->token_weights);
    struct oom_window alone; /* each identity once, with weight 1 */
    oom_window_init(&alone, &job->trainer.spec, &m->source, m->window.distinct, m->window.distinct,
                    job->token_weights);
    OOM_TRY(oom_magnitude_begin(m->trainer, &m->terms));
    OOM_TRY(add_all(m, &alone));
    oom_magnitude_raise(&m->terms, m->truth->magnitude);
    return OOM_OK;
}

enum oom_status oom_truth_make(const struct oom_job *job, int step, int64_t samples,
                               struct oom_truth *out) {
    *out = (struct oom_truth){0};
    struct maker m = {.job = job, .truth = out, .source = {.file = -1}, .branches = -1};
    enum oom_status status = make(&m, step, samples);
    oom_magnitude_end(&m.terms);
    oom_trainer_destroy(m.trainer);
    oom_allocator_destroy(m.session.allocator);
    oom_device_close(m.session.device);
    oom_source_close(&m.source);
    if (m.branches >= 0) close(m.branches);
    oom_host_free(m.counts);
    oom_host_free(m.weights);
    if (status != OOM_OK) oom_truth_free(out);
    return status;
}

void oom_truth_free(struct oom_truth *truth) {
    oom_host_free(truth->gradient);
    oom_host_free(truth->magnitude);
    *truth = (struct oom_truth){0};
}
