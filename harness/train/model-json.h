/*
 * model-json.h: a model's description as JSON, {"model": "gpt", "layers": 4, "attention": "tiled",
 * "dropout": 0.1}: the keys of the text form (model-spec.h), read as strictly.
 *
 * Nothing is owned. A file that is no JSON, no object, has no "model", or a value that is neither
 * number nor text is OOM_USAGE naming file and key; OOM_IO where it cannot be read.
 */
#ifndef OOM_HARNESS_TRAIN_MODEL_JSON_H
#define OOM_HARNESS_TRAIN_MODEL_JSON_H

#include "harness/train/model-spec.h"

enum oom_status oom_model_json_read(const char *path, struct oom_model_spec *out);

#endif
