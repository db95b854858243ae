/*
 * truth-magnitude.c: sums of |term| for a unit's parameters, a sample at a time:
 *
 *   convolution  sum of |dy| |x|, gathered as the gradient is, by the same op on absolute values
 *   gamma, beta  sum of |dout (x - mean) rstd|, of |dout|
 */
#include "harness/verify/truth-magnitude.h"

#include "harness/train/cnn-unit.h"
#include "kernels/hostmem.h"

#include <math.h>

enum { REAL = sizeof(double) };

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* ---- memory ---- */

/* |x| and |dy| of a sample and a weight's sums. Pixels fall by four where channels double, so the
 * largest images are the stem's, the first blocks' or the first transition's. */
uint64_t oom_magnitude_bytes(const struct oom_model_spec *spec) {
    if (spec->kind != OOM_MODEL_CNN) return 0;
    int64_t c = spec->width, deepest = c << (spec->stages - 1);
    int64_t channels = larger(OOM_IMAGE_CHANNELS + c, spec->stages > 1 ? 3 * c : 2 * c);
    int64_t weight = OOM_KERNEL * OOM_KERNEL * larger(OOM_IMAGE_CHANNELS * c, deepest * deepest);
    return (uint64_t)(spec->image * spec->image * channels + weight) * REAL;
}

static int64_t count_all(const struct oom_trainer *t) {
    int64_t n = 0;
    for (int i = 0; i < t->parameter_count; i++) n += oom_parameter_n(&t->parameters[i]);
    return n;
}

enum oom_status oom_magnitude_begin(struct oom_trainer *t, struct oom_magnitude *out) {
    *out = (struct oom_magnitude){.trainer = t};
    uint64_t bytes = oom_magnitude_bytes(&t->options.spec);
    if (bytes == 0) return OOM_OK;
    OOM_TRY(oom_tensor_alloc(t->session, bytes, OOM_TAG_OTHER, "terms", &out->scratch));
    out->scratch.elements = (int64_t)(bytes / REAL);
    out->terms = oom_host_calloc((size_t)count_all(t), REAL);
    if (out->terms != NULL) return OOM_OK;
    return oom_fail(OOM_HOST_NOMEM, "terms of %lld elements", (long long)count_all(t));
}

void oom_magnitude_end(struct oom_magnitude *m) {
    if (m->trainer == NULL) return;
    m->trainer->watch = (struct oom_unit_watch){0};
    oom_tensor_free(m->trainer->session, &m->scratch);
    oom_host_free(m->terms);
    *m = (struct oom_magnitude){0};
}

void oom_magnitude_raise(const struct oom_magnitude *m, double *magnitude) {
    if (m->terms == NULL) return;
    for (int64_t i = 0, n = count_all(m->trainer); i < n; i++) {
        magnitude[i] = fmax(magnitude[i], m->terms[i]);
    }
}

/* ---- between host and device ---- */

static enum oom_status fetch(const struct oom_magnitude *m, oom_devptr from, int64_t n,
                             double *to) {
    const struct oom_session *s = m->trainer->session;
    return s->device->api->download(s->device, to, from, (uint64_t)n * REAL, s->stream);
}

static enum oom_status copy_absolute(const struct oom_magnitude *m, oom_devptr from, int64_t n,
                                     double *host, oom_devptr to) {
    const struct oom_session *s = m->trainer->session;
    OOM_TRY(fetch(m, from, n, host));
    for (int64_t i = 0; i < n; i++) host[i] = fabs(host[i]);
    return s->device->api->upload(s->device, to, host, (uint64_t)n * REAL, s->stream);
}

static double *terms_of(const struct oom_magnitude *m, const struct oom_parameter *parameter) {
    double *at = m->terms;
    for (const struct oom_parameter *p = m->trainer->parameters; p < parameter; p++) {
        at += oom_parameter_n(p);
    }
    return at;
}

/* ---- the convolution ---- */

/* Sample `b` of a tensor with `each` elements in a sample. */
static oom_devptr sample_of(const struct oom_tensor *x, int64_t b, int64_t each) {
    return x->data + (uint64_t)(b * each) * REAL;
}

static enum oom_status add_sample(const struct oom_magnitude *m, const struct oom_unit_seen *seen,
                                  int64_t b, double *host, oom_devptr dw) {
    const struct oom_unit *u = seen->unit;
    int64_t inputs = u->positions * u->conv.channels, outputs = u->elements;
    struct oom_conv_backward_weight_args args = {
        .dtype = OOM_F64,
        .algorithm = OOM_CONV_IMPLICIT,
        .shape = u->conv,
        .dy = m->scratch.data,
        .x = m->scratch.data + (uint64_t)outputs * REAL,
        .dw = dw,
    };
    args.shape.batch = 1;
    OOM_TRY(copy_absolute(m, sample_of(seen->dconv, b, outputs), outputs, host, args.dy));
    OOM_TRY(copy_absolute(m, sample_of(seen->x, b, inputs), inputs, host, args.x));
    return oom_run(m->trainer->session, OOM_OP_CONV_BACKWARD_WEIGHT, &args);
}

static enum oom_status add_convolution(const struct oom_magnitude *m,
                                       const struct oom_unit_seen *seen, double *host) {
    const struct oom_unit *u = seen->unit;
    const struct oom_session *s = m->trainer->session;
    int64_t n = oom_parameter_n(u->weight), before = u->elements + u->positions * u->conv.channels;
    oom_devptr dw = m->scratch.data + (uint64_t)before * REAL;
    if (before + n > m->scratch.elements) {
        return oom_fail(OOM_INTERNAL, "terms of %lld elements: there is room for %lld",
                        (long long)(before + n), (long long)m->scratch.elements);
    }
    OOM_TRY(s->device->api->fill(s->device, dw, 0, (uint64_t)n * REAL, s->stream));
    for (int64_t b = 0; b < u->conv.batch; b++) OOM_TRY(add_sample(m, seen, b, host, dw));
    OOM_TRY(fetch(m, dw, n, host));
    double *terms = terms_of(m, u->weight);
    for (int64_t i = 0; i < n; i++) terms[i] += m->coefficient * host[i];
    return OOM_OK;
}

/* ---- the norm ---- */

/* dout, x (E,C) of a sample; mean, rstd of its `groups` parts of a row. */
static void add_rows(const struct oom_magnitude *m, const struct oom_unit *u, const double *dout,
                     const double *x, const double *mean, const double *rstd, int64_t groups) {
    double *gamma = terms_of(m, u->gamma), *beta = terms_of(m, u->beta);
    int64_t channels = u->conv.filters, part = channels / groups;
    for (int64_t i = 0; i < u->elements; i++) {
        int64_t c = i % channels, g = c / part;
        gamma[c] += m->coefficient * fabs(dout[i] * ((x[i] - mean[g]) * rstd[g]));
        beta[c] += m->coefficient * fabs(dout[i]);
    }
}

/* The statistics are of a sample's groups, or of each channel for the whole batch. */
static enum oom_status add_norm(const struct oom_magnitude *m, const struct oom_unit_seen *seen,
                                double *host) {
    const struct oom_unit *u = seen->unit;
    int64_t groups = u->groups > 0 ? u->groups : u->conv.filters;
    double *dout = host, *x = dout + u->elements, *mean = x + u->elements, *rstd = mean + groups;
    for (int64_t b = 0; b < u->conv.batch; b++) {
        int64_t at = u->groups > 0 ? b : 0;
        OOM_TRY(fetch(m, sample_of(seen->dout, b, u->elements), u->elements, dout));
        OOM_TRY(fetch(m, sample_of(&seen->saved->conv, b, u->elements), u->elements, x));
        OOM_TRY(fetch(m, sample_of(&seen->saved->mean, at, groups), groups, mean));
        OOM_TRY(fetch(m, sample_of(&seen->saved->rstd, at, groups), groups, rstd));
        add_rows(m, u, dout, x, mean, rstd, groups);
    }
    return OOM_OK;
}

/* ---- the watch ---- */

static enum oom_status see_unit(void *context, const struct oom_unit_seen *seen) {
    const struct oom_magnitude *m = context;
    const struct oom_unit *u = seen->unit;
    int64_t room = 2 * (u->elements + u->conv.filters); /* dout, x, mean, rstd; or: */
    room = larger(room, larger(u->positions * u->conv.channels, oom_parameter_n(u->weight)));
    double *host = oom_host_alloc((size_t)room * REAL);
    if (host == NULL) return oom_fail(OOM_HOST_NOMEM, "a sample's terms");
    enum oom_status status = add_convolution(m, seen, host);
    if (status == OOM_OK) status = add_norm(m, seen, host);
    oom_host_free(host);
    return status;
}

void oom_magnitude_watch(struct oom_magnitude *m, double coefficient) {
    m->coefficient = coefficient;
    if (m->terms != NULL) m->trainer->watch = (struct oom_unit_watch){m, see_unit};
}
