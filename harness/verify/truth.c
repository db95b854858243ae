#include "harness/verify/truth.h"

#include "harness/verify/compare.h"
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
    int64_t at;               /* element, while gradients are added */
};

/* ---- the device: large enough for one sample in f64 ---- */

static enum oom_status open_session(struct maker *m) {
    struct oom_plan_request request = {.trainer = m->job->trainer,
                                       .settings = oom_allocator_settings_default(),
                                       .capacity = OOM_PLAN_UNLIMITED,
                                       .samples = 1,
                                       .size = 1,
                                       .steps = 1};
    struct oom_plan plan;
    OOM_TRY(oom_plan_run(&request, &plan));
    struct oom_device_options options = {.capacity = 2 * plan.peak_device + (64u << 20),
                                         .isa = m->job->isa,
                                         .threads = m->job->threads};
    struct oom_allocator_settings settings = oom_allocator_settings_default();
    settings.trace_entries = 0;
    OOM_TRY(oom_host_open(&options, &m->session.device));
    m->session.dtype = OOM_F64;
    OOM_TRY(oom_allocator_create(m->session.device, &settings, &m->session.allocator));
    struct oom_trainer_options trainer = m->job->trainer;
    trainer.gradients = OOM_GRADIENTS_ZEROED;
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

static enum oom_status branch_bits(const struct maker *m, int layer, int64_t sample,
                                   int64_t elements, uint8_t *bits) {
    int64_t bytes = oom_branch_bytes(elements);
    off_t at = (off_t)(((int64_t)layer * m->job->distinct + sample) * bytes);
    if (pread(m->branches, bits, (size_t)bytes, at) == (ssize_t)bytes) return OOM_OK;
    return oom_fail_native(OOM_IO, errno, "the file of branches is too short");
}

/* Truth runs one sample at a time: n is 1 and `begin` its identity. */
static enum oom_status take_branches(void *context, int layer, int64_t begin, int64_t n,
                                     int64_t elements, uint8_t *out) {
    struct maker *m = context;
    uint8_t *bits = oom_host_alloc((size_t)oom_branch_bytes(elements));
    if (bits == NULL || n != 1) {
        oom_host_free(bits);
        return oom_fail(OOM_HOST_NOMEM, "the branches of a sample");
    }
    enum oom_status status = branch_bits(m, layer, begin, elements, bits);
    for (int64_t i = 0; i < elements; i++) out[i] = (uint8_t)((bits[i / 8] >> (i % 8)) & 1);
    oom_host_free(bits);
    return status;
}

/* How far from 0 rounding alone can move a pre-activation: a chain of K terms errs by at most
 * (16 + sqrt(K)/2) u sum|a w|, and sum|a w| is about sqrt(K) times the rms of the sums; the inputs
 * of a layer carry the errors of those below. */
static double kink_width(const struct maker *m, int layer, double rms) {
    double k = (double)m->job->trainer.spec.width;
    return oom_bound_constant(OOM_F32, (int64_t)k) * oom_dtype_roundoff(m->job->dtype) * sqrt(k) *
           (layer + 1) * rms;
}

static void judge_branches(struct maker *m, int layer, const double *x, const uint8_t *bits,
                           int64_t elements) {
    double squares = 0;
    for (int64_t i = 0; i < elements; i++) squares += x[i] * x[i];
    double width = kink_width(m, layer, sqrt(squares / (double)elements));
    for (int64_t i = 0; i < elements; i++) {
        bool taken = (bits[i / 8] >> (i % 8)) & 1;
        if (taken == (x[i] > 0)) continue;
        m->truth->branches_differ++;
        if (!(fabs(x[i]) <= width)) m->truth->branches_wrong++;
    }
}

static enum oom_status see_branches(void *context, int layer, int64_t begin, int64_t n,
                                    int64_t elements, oom_devptr x) {
    struct maker *m = context;
    (void)n;
    double *values = oom_host_alloc((size_t)elements * sizeof *values);
    uint8_t *bits = oom_host_alloc((size_t)oom_branch_bytes(elements));
    enum oom_status status = OOM_OK;
    if (values == NULL || bits == NULL) status = oom_fail(OOM_HOST_NOMEM, "a sample's branches");
    if (status == OOM_OK) {
        status = m->session.device->api->download(m->session.device, values, x,
                                                  (uint64_t)elements * 8, m->session.stream);
    }
    if (status == OOM_OK) status = branch_bits(m, layer, begin, elements, bits);
    if (status == OOM_OK) judge_branches(m, layer, values, bits, elements);
    oom_host_free(values);
    oom_host_free(bits);
    return status;
}

/* ---- the sum ---- */

static double coefficient_of(const struct maker *m, int64_t identity) {
    double sum = 0;
    for (int64_t i = 0; i < m->window.samples; i++) {
        if (oom_window_identity(&m->window, i) == identity) sum += oom_window_weight(&m->window, i);
    }
    return sum / m->window.total;
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

static enum oom_status add_sample(struct maker *m, const struct oom_window *alone, int64_t p) {
    struct oom_trainer *t = m->trainer;
    double loss;
    OOM_TRY(oom_trainer_begin_step(t));
    OOM_TRY(oom_trainer_clear_gradients(t));
    OOM_TRY(oom_trainer_micro_batch(t, alone, p, p + 1, (struct oom_weighing){1.0, false}));
    OOM_TRY(m->session.device->api->download(m->session.device, &loss, t->loss.data, sizeof loss,
                                             m->session.stream));
    m->coefficient = coefficient_of(m, p);
    m->truth->loss += m->coefficient * loss;
    m->truth->loss_magnitude += m->coefficient * fabs(loss);
    return add_gradients(m);
}

static enum oom_status allocate(struct maker *m) {
    for (int i = 0; i < m->trainer->parameter_count; i++) {
        m->truth->n += oom_parameter_n(&m->trainer->parameters[i]);
    }
    m->truth->gradient = oom_host_calloc((size_t)m->truth->n, sizeof(double));
    m->truth->magnitude = oom_host_calloc((size_t)m->truth->n, sizeof(double));
    if (m->truth->gradient != NULL && m->truth->magnitude != NULL) return OOM_OK;
    return oom_fail(OOM_HOST_NOMEM, "the truth of %lld elements", (long long)m->truth->n);
}

static enum oom_status make(struct maker *m, int step, int64_t samples) {
    const struct oom_job *job = m->job;
    OOM_TRY(oom_source_open(job->data[0] != 0 ? job->data : NULL, job->trainer.seed, &m->source));
    OOM_TRY(open_session(m));
    OOM_TRY(allocate(m));
    OOM_TRY(load_weights(m, step));
    if (job->trainer.spec.kind == OOM_MODEL_MLP) {
        OOM_TRY(open_file(job, "branches", step, &m->branches));
        m->trainer->branches = (struct oom_branches){m, see_branches, take_branches};
    }
    m->trainer->rng_step = (uint32_t)step;
    oom_window_init(&m->window, &job->trainer.spec, &m->source, samples, job->distinct,
                    job->token_weights);
    struct oom_window alone; /* each identity once, with weight 1 */
    oom_window_init(&alone, &job->trainer.spec, &m->source, m->window.distinct, m->window.distinct,
                    job->token_weights);
    for (int64_t p = 0; p < m->window.distinct; p++) OOM_TRY(add_sample(m, &alone, p));
    return OOM_OK;
}

enum oom_status oom_truth_make(const struct oom_job *job, int step, int64_t samples,
                               struct oom_truth *out) {
    *out = (struct oom_truth){0};
    struct maker m = {.job = job, .truth = out, .source = {.file = -1}, .branches = -1};
    enum oom_status status = make(&m, step, samples);
    oom_trainer_destroy(m.trainer);
    oom_allocator_destroy(m.session.allocator);
    oom_device_close(m.session.device);
    oom_source_close(&m.source);
    if (m.branches >= 0) close(m.branches);
    if (status != OOM_OK) oom_truth_free(out);
    return status;
}

void oom_truth_free(struct oom_truth *truth) {
    oom_host_free(truth->gradient);
    oom_host_free(truth->magnitude);
    *truth = (struct oom_truth){0};
}
