#include "harness/verify/witness.h"

#include "harness/train/given.h"
#include "harness/verify/branches.h"
#include "harness/verify/state.h"
#include "kernels/hostmem.h"

#include <stdio.h>
#include <string.h>

/* Of one layer: side[sample * elements + e]. */
struct oom_branch_record {
    int64_t elements;
    uint8_t *side;
};

/* ---- from the device into a file ---- */

/* A file is gone through twice: first its tensors are said, then their data follow. */
struct pen {
    struct oom_safetensors_writer *writer;
    struct oom_session *session;
    bool data; /* the second time */
    const char *name;
};

static enum oom_status put_piece(void *context, const void *data, size_t bytes) {
    struct pen *pen = context;
    return oom_safetensors_writer_data(pen->writer, pen->name, data, bytes);
}

static enum oom_status put(struct pen *pen, const char *name,
                           const struct oom_safetensors_tensor *described,
                           struct oom_tensor tensor) {
    if (!pen->data) {
        return oom_safetensors_writer_tensor(pen->writer, name, described->dtype, described->rank,
                                             described->shape);
    }
    pen->name = name;
    return oom_tensor_read(pen->session, tensor, described->bytes, put_piece, pen);
}

static enum oom_status open_writer(struct oom_safetensors_writer *writer, const char *path,
                                   struct oom_metadata metadata) {
    OOM_TRY(oom_safetensors_writer_open(writer, path));
    for (int i = 0; i < metadata.count; i++) {
        OOM_TRY(oom_safetensors_writer_metadata(writer, metadata.entries[i].key,
                                                metadata.entries[i].value));
    }
    return OOM_OK;
}

static enum oom_status close_writer(struct oom_safetensors_writer *writer, enum oom_status status) {
    if (status == OOM_OK) return oom_safetensors_writer_commit(writer);
    oom_safetensors_writer_abandon(writer);
    return status;
}

/* ---- weights and batch ---- */

/* Wide types first, so that every element is aligned. */
static enum oom_status put_given(struct pen *pen, struct oom_trainer *t,
                                 const struct oom_batch *batch) {
    enum oom_dtype real = oom_dtype_wide(t->session->dtype);
    struct oom_safetensors_tensor of[OOM_GIVEN_COUNT], weight;
    oom_given_describe_batch(&t->options.spec, real, of);
    OOM_TRY(put(pen, of[OOM_GIVEN_IDENTITIES].name, &of[OOM_GIVEN_IDENTITIES], batch->identities));
    for (int i = 0; i < oom_given_weights_count(t); i++) {
        struct oom_tensor value;
        oom_given_describe(t, i, real, &weight, &value);
        OOM_TRY(put(pen, weight.name, &weight, value));
    }
    OOM_TRY(put(pen, of[OOM_GIVEN_WEIGHTS].name, &of[OOM_GIVEN_WEIGHTS], batch->weights));
    OOM_TRY(put(pen, of[OOM_GIVEN_INPUTS].name, &of[OOM_GIVEN_INPUTS], batch->inputs));
    return put(pen, of[OOM_GIVEN_TARGETS].name, &of[OOM_GIVEN_TARGETS], batch->targets);
}

enum oom_status oom_witness_write_given(struct oom_trainer *t, const struct oom_window *window,
                                        struct oom_metadata metadata, const char *path) {
    struct oom_safetensors_writer writer = {0};
    struct oom_batch batch = {0};
    struct oom_weighing undivided = {.divisor = 1.0};
    enum oom_status status = open_writer(&writer, path, metadata);
    if (status == OOM_OK) {
        status = oom_batch_load(&t->scope, window, 0, window->samples, undivided, &batch);
    }
    struct pen pen = {.writer = &writer, .session = t->session};
    if (status == OOM_OK) status = put_given(&pen, t, &batch);
    pen.data = true;
    if (status == OOM_OK) status = put_given(&pen, t, &batch);
    status = close_writer(&writer, status);
    enum oom_status freed = oom_batch_free(&t->scope, &batch);
    return status != OOM_OK ? status : freed;
}

/* ---- what is seen ---- */

/* The logits' description; their rows are those of the targets. */
static void describe_outputs(const struct oom_trainer *t, struct oom_safetensors_tensor *out) {
    struct oom_safetensors_tensor batch[OOM_GIVEN_COUNT];
    enum oom_dtype wide = oom_dtype_wide(t->session->dtype);
    oom_given_describe_batch(&t->options.spec, wide, batch);
    *out = batch[OOM_GIVEN_TARGETS];
    out->name = "outputs";
    out->dtype = wide;
    out->shape[out->rank++] = t->options.spec.vocab;
    oom_safetensors_size(out->dtype, out->rank, out->shape, &out->count, &out->bytes);
}

/* Elements of any floating type, as they come from the device: their values in the wide type. */
struct pieces {
    enum oom_dtype dtype;
    double *f64; /* one of the two */
    float *f32;
};

static enum oom_status take_piece(void *context, const void *data, size_t bytes) {
    struct pieces *pieces = context;
    size_t count = bytes / oom_dtype_bytes(pieces->dtype);
    for (size_t i = 0; i < count; i++) {
        double value = oom_element(pieces->dtype, data, i);
        if (pieces->f64 != NULL) {
            *pieces->f64++ = value;
        } else {
            *pieces->f32++ = (float)value;
        }
    }
    return OOM_OK;
}

static enum oom_status read_pieces(struct oom_session *session, struct oom_tensor tensor,
                                   int64_t elements, struct pieces *pieces) {
    uint64_t bytes = (uint64_t)elements * oom_dtype_bytes(pieces->dtype);
    return oom_tensor_read(session, tensor, bytes, take_piece, pieces);
}

static enum oom_status see_outputs(void *context, struct oom_trainer *t) {
    struct oom_witness *w = context;
    struct oom_safetensors_tensor outputs;
    describe_outputs(t, &outputs);
    int64_t sample = (int64_t)outputs.count / t->options.spec.batch;
    int64_t begin = t->first_sample * sample;
    struct pieces pieces = {.dtype = t->logits.dtype};
    if (outputs.dtype == OOM_F64) {
        pieces.f64 = (double *)w->outputs + begin;
    } else {
        pieces.f32 = (float *)w->outputs + begin;
    }
    return read_pieces(t->session, t->logits, t->batch.samples * sample, &pieces);
}

static enum oom_status branch_of(struct oom_witness *w, int layer, int64_t elements,
                                 struct oom_branch_record **out) {
    if (layer >= w->branch_count) {
        size_t bytes = (size_t)(layer + 1) * sizeof *w->branches;
        struct oom_branch_record *grown = oom_host_realloc(w->branches, bytes);
        if (grown == NULL) return oom_fail(OOM_HOST_NOMEM, "the branches of %d layers", layer + 1);
        w->branches = grown;
        while (w->branch_count <= layer) grown[w->branch_count++] = (struct oom_branch_record){0};
    }
    struct oom_branch_record *branch = &w->branches[layer];
    if (branch->side == NULL) {
        branch->elements = elements;
        branch->side = oom_host_calloc((size_t)w->trainer->options.spec.batch, (size_t)elements);
        if (branch->side == NULL) return oom_fail(OOM_HOST_NOMEM, "the branches of a layer");
    }
    *out = branch;
    return OOM_OK;
}

static enum oom_status see_branches(void *context, const struct oom_kink *kink) {
    struct oom_witness *w = context;
    struct oom_branch_record *branch = NULL;
    OOM_TRY(branch_of(w, kink->index, kink->elements, &branch));
    uint8_t *out = branch->side + kink->begin * kink->elements;
    return oom_branches_read(w->trainer->session, kink, 0, kink->samples * kink->elements, out);
}

enum oom_status oom_witness_begin(struct oom_witness *w, struct oom_trainer *t) {
    struct oom_loop_options nothing = {0};
    struct oom_safetensors_tensor outputs;
    *w = (struct oom_witness){.trainer = t};
    OOM_TRY(oom_loop_begin(&w->loop, &nothing, t->session, 1));
    oom_loop_attach(&w->loop, t);
    w->loop.viewer = (struct oom_viewer){w, see_outputs};
    t->branches = (struct oom_branches){.context = w, .see = see_branches};
    describe_outputs(t, &outputs);
    w->outputs = oom_host_calloc(1, outputs.bytes);
    if (w->outputs != NULL) return OOM_OK;
    return oom_fail(OOM_HOST_NOMEM, "outputs of %llu bytes", (unsigned long long)outputs.bytes);
}

void oom_witness_end(struct oom_witness *w) {
    if (w->trainer == NULL) return;
    oom_loop_end(&w->loop, w->trainer->session);
    w->trainer->branches = (struct oom_branches){0};
    for (int i = 0; i < w->branch_count; i++) oom_host_free(w->branches[i].side);
    oom_host_free(w->branches);
    oom_host_free(w->outputs);
    *w = (struct oom_witness){0};
}

/* ---- what is said ---- */

enum { NAME_MAX_BYTES = 64 };

/* Of parameters the gradient, of statistics what they are after the step. */
static enum oom_status put_results(struct pen *pen, const struct oom_trainer *t) {
    for (int i = 0; i < oom_given_weights_count(t); i++) {
        bool parameter = i < t->parameter_count;
        struct oom_safetensors_tensor described;
        struct oom_tensor tensor;
        char name[NAME_MAX_BYTES];
        oom_given_describe(t, i, oom_dtype_wide(t->session->dtype), &described, &tensor);
        snprintf(name, sizeof name, "%s.%s", parameter ? "grad" : "after", described.name);
        if (parameter) tensor = t->parameters[i].gradient;
        if (tensor.data == 0) return oom_fail(OOM_INTERNAL, "%s is not there", name);
        OOM_TRY(put(pen, name, &described, tensor));
    }
    return OOM_OK;
}

static enum oom_status put_branches(struct pen *pen, const struct oom_witness *w) {
    for (int i = 0; i < w->branch_count; i++) {
        const struct oom_branch_record *branch = &w->branches[i];
        const int64_t shape[2] = {w->trainer->options.spec.batch, branch->elements};
        char name[NAME_MAX_BYTES];
        if (branch->side == NULL) continue;
        snprintf(name, sizeof name, "branch.%d", i);
        OOM_TRY(pen->data ? oom_safetensors_writer_data(pen->writer, name, branch->side,
                                                        (uint64_t)(shape[0] * shape[1]))
                          : oom_safetensors_writer_tensor(pen->writer, name, OOM_U8, 2, shape));
    }
    return OOM_OK;
}

static enum oom_status put_all(struct pen *pen, const struct oom_witness *w) {
    struct oom_trainer *t = w->trainer;
    struct oom_safetensors_tensor outputs, loss = {.dtype = oom_dtype_wide(t->session->dtype)};
    loss.bytes = oom_dtype_bytes(loss.dtype);
    describe_outputs(t, &outputs);
    OOM_TRY(put(pen, "loss", &loss, t->loss));
    OOM_TRY(pen->data
                ? oom_safetensors_writer_data(pen->writer, outputs.name, w->outputs, outputs.bytes)
                : put(pen, outputs.name, &outputs, (struct oom_tensor){0}));
    OOM_TRY(put_results(pen, t));
    return put_branches(pen, w);
}

enum oom_status oom_witness_write(const struct oom_witness *w, struct oom_metadata metadata,
                                  const char *path) {
    struct oom_safetensors_writer writer = {0};
    struct pen pen = {.writer = &writer, .session = w->trainer->session};
    enum oom_status status = open_writer(&writer, path, metadata);
    if (status == OOM_OK) status = put_all(&pen, w);
    pen.data = true;
    if (status == OOM_OK) status = put_all(&pen, w);
    return close_writer(&writer, status);
}
