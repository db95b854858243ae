/*
 * given.h: a model's weights and its batch as tensors of a safetensors file, in place of seeded
 * ones: their names and layouts, and how they get onto the device.
 *
 *   weights by the parameter's name: linear (out,in), tables (V,C) and (T,C), vectors (n),
 *            convolutions (K,R,S,C); and batch norm's running statistics by theirs, (C)
 *   batch.inputs      gpt: tokens (B,T) i32; mlp: (B,R,C); cnn: images (B,H,W,3)
 *   batch.targets     gpt (B,T), mlp (B,R), cnn (B), i32
 *   batch.weights     of the rows, in the shape of the targets, before they are divided by their
 *                     sum; not negative
 *   batch.identities  (B) i64, by which dropout knows a sample: 0 to 2^32 - 1
 *
 * Numbers are f32 or f64, of the trainer's wide type. Everything is borrowed: a file must outlive
 * what was made of it. What is missing, too much, of another type or shape, not finite or out of
 * range is OOM_USAGE naming file, tensor, element, what is expected and what was found.
 */
#ifndef OOM_HARNESS_TRAIN_GIVEN_H
#define OOM_HARNESS_TRAIN_GIVEN_H

#include "harness/base/safetensors.h"
#include "harness/train/trainer.h"

enum {
    OOM_GIVEN_INPUTS,
    OOM_GIVEN_TARGETS,
    OOM_GIVEN_WEIGHTS,
    OOM_GIVEN_IDENTITIES,
    OOM_GIVEN_COUNT
};

/* Parameters, then statistics. */
int oom_given_weights_count(const struct oom_trainer *trainer);
/* Name, dtype and shape of the i-th in a file (nothing else of `out` is set), and where it lies on
 * the device (`value` may be NULL). `real`: f32 or f64. */
void oom_given_describe(const struct oom_trainer *trainer, int i, enum oom_dtype real,
                        struct oom_safetensors_tensor *out, struct oom_tensor *value);
void oom_given_describe_batch(const struct oom_model_spec *spec, enum oom_dtype real,
                              struct oom_safetensors_tensor out[OOM_GIVEN_COUNT]);

/* The file holds tensors of this trainer's model and of its batch, and no others. */
enum oom_status oom_given_only(const struct oom_trainer *trainer,
                               const struct oom_safetensors *file);
/* Every parameter and statistic, from the file onto the device. */
enum oom_status oom_given_weights(struct oom_trainer *trainer, const struct oom_safetensors *file);

/* A batch of a file: what a window has in place of seeded samples (data.h). */
struct oom_given {
    const struct oom_safetensors_tensor *tensors[OOM_GIVEN_COUNT];
    double total; /* the sum of all weights */
};

/* The batch of `spec` (its number of samples, too), looked at whole. */
enum oom_status oom_given_batch(const struct oom_safetensors *file,
                                const struct oom_model_spec *spec, enum oom_dtype real,
                                struct oom_given *out);
/* The window of all its samples. */
void oom_given_window(const struct oom_given *given, const struct oom_model_spec *spec,
                      const struct oom_source *source, struct oom_window *out);
/* Samples [begin, ...) into a batch that is allocated (data.c). */
enum oom_status oom_given_load(const struct oom_given *given, struct oom_session *session,
                               int64_t begin, double divisor, struct oom_batch *batch);

#endif
