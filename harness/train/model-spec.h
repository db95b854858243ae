/*
 * model-spec.h: a model described by a short text, such as `gpt,layers=4,width=64,batch=64`.
 *
 * The canonical text (every key, in table order) stands in results and is what plan, run and grad
 * take. Unknown names and keys, values out of range and impossible combinations are OOM_USAGE.
 */
#ifndef OOM_HARNESS_TRAIN_MODEL_SPEC_H
#define OOM_HARNESS_TRAIN_MODEL_SPEC_H

#include "kernels/status.h"

#include <stdint.h>

#define OOM_MODEL_MAP(X) \
    X(MLP, "mlp", "layers of width x width with ReLU over bags of rows, a linear head") \
    X(GPT, "gpt", "GPT-2 style decoder over bytes: pre-norm blocks, causal attention, own head") \
    X(CNN, "cnn", "residual convolutional net over images: 3x3, batch or group norm, pooling")

enum oom_model_kind {
#define X(id, name, prose) OOM_MODEL_##id,
    OOM_MODEL_MAP(X)
#undef X
        OOM_MODEL_COUNT
};

enum oom_attention { OOM_ATTENTION_TILED, OOM_ATTENTION_SCORES };
enum oom_image_norm { OOM_IMAGE_NORM_BATCH, OOM_IMAGE_NORM_GROUP };

struct oom_model_spec {
    enum oom_model_kind kind;
    int64_t layers;    /* blocks, or hidden layers */
    int64_t width;     /* channels C; of the first stage (cnn) */
    int64_t heads;     /* attention heads NH; divides width (gpt) */
    int64_t context;   /* positions T of a sample (gpt) */
    int64_t rows;      /* rows R of a sample (mlp) */
    int64_t image;     /* height and width of a sample, of 3 channels (cnn) */
    int64_t stages;    /* each with twice the channels and half the height of the last (cnn) */
    int64_t norm;      /* enum oom_image_norm (cnn) */
    int64_t groups;    /* of the group norm; divides width (cnn) */
    int64_t vocab;     /* vocabulary, or classes, V */
    int64_t batch;     /* samples of the effective batch */
    int64_t attention; /* enum oom_attention */
    int64_t tied;      /* 1: the head is the embedding table (gpt) */
    double dropout;    /* 0 <= p < 1 */
};

enum { OOM_SPEC_TEXT_MAX = 160 };

const char *oom_model_name(enum oom_model_kind kind);
const char *oom_model_prose(enum oom_model_kind kind);

/* The defaults of a model. */
struct oom_model_spec oom_model_spec_default(enum oom_model_kind kind);
enum oom_status oom_model_spec_parse(const char *text, struct oom_model_spec *out);
/* The keys of `text`, whose model must be spec's, replace those in *spec. */
enum oom_status oom_model_spec_override(const char *text, struct oom_model_spec *spec);
void oom_model_spec_text(const struct oom_model_spec *spec, char out[OOM_SPEC_TEXT_MAX]);

enum { OOM_IMAGE_CHANNELS = 3 };

/* Rows of the loss in one sample: T, R, or the one label of an image. */
static inline int64_t oom_spec_rows(const struct oom_model_spec *spec) {
    if (spec->kind == OOM_MODEL_CNN) return 1;
    return spec->kind == OOM_MODEL_GPT ? spec->context : spec->rows;
}

/* Numbers in one row of a sample's input: a token, C, or the image. */
static inline int64_t oom_spec_row_numbers(const struct oom_model_spec *spec) {
    if (spec->kind == OOM_MODEL_CNN) return spec->image * spec->image * OOM_IMAGE_CHANNELS;
    return spec->kind == OOM_MODEL_GPT ? 1 : spec->width;
}

#endif
