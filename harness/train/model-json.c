#include "harness/train/model-json.h"

#include "harness/base/json-read.h"

#include <stdio.h>
#include <string.h>

enum { LIMIT = 1 << 16, TEXT = 480 };

/* Adds "key=value" to the text form; what would be read as more than that is refused. */
static enum oom_status add_pair(const char *path, const struct oom_json *node, char *text) {
    bool word = node->kind == OOM_JSON_STRING || node->kind == OOM_JSON_NUMBER;
    if (!word) {
        return oom_fail(OOM_USAGE, "%.80s: \"%.40s\": a number or a text is expected", path,
                        node->key);
    }
    bool plain = node->key[strcspn(node->key, ",=")] == 0 &&
                 strlen(node->key) == node->key_length &&
                 node->text[strcspn(node->text, ",=")] == 0 && strlen(node->text) == node->length;
    size_t used = strlen(text);
    int added = snprintf(text + used, TEXT - used, ",%s=%s", node->key, node->text);
    if (plain && (size_t)added < TEXT - used) return OOM_OK;
    return oom_fail(OOM_USAGE, "%.80s: \"%.40s\": its value is none of a model's", path, node->key);
}

static enum oom_status read_object(const char *path, const struct oom_json *root,
                                   struct oom_model_spec *out) {
    char text[TEXT] = "";
    const char *model;
    if (!oom_json_as_text(oom_json_get(root, "model"), &model) || strchr(model, ',') != NULL ||
        strlen(model) >= TEXT) {
        return oom_fail(OOM_USAGE,
                        "%.80s: expected an object with \"model\", such as "
                        "{\"model\": \"gpt\", \"layers\": 4}",
                        path);
    }
    snprintf(text, sizeof text, "%s", model);
    for (const struct oom_json *node = root->child; node != NULL; node = node->next) {
        if (strcmp(node->key, "model") != 0) OOM_TRY(add_pair(path, node, text));
    }
    return oom_model_spec_parse(text, out);
}

enum oom_status oom_model_json_read(const char *path, struct oom_model_spec *out) {
    struct oom_json_document *document = NULL;
    OOM_TRY(oom_json_parse_file(path, LIMIT, &document));
    enum oom_status status = read_object(path, oom_json_root(document), out);
    oom_json_document_free(document);
    return status;
}
