#include "harness/report/sample-records.h"

#include "harness/base/json-read.h"

#include <regex.h>

void results_json_test(void);

static const char schema_path[] = "results/schema/oombench-result-1.json";

/* ---- as much of JSON Schema (draft 2020-12) as our schema uses ---- */

static bool has_type(const struct oom_json *node, const char *type) {
    static const struct {
        const char *name;
        enum oom_json_kind kind;
    } types[] = {{"null", OOM_JSON_NULL},     {"boolean", OOM_JSON_BOOL},
                 {"number", OOM_JSON_NUMBER}, {"integer", OOM_JSON_NUMBER},
                 {"string", OOM_JSON_STRING}, {"array", OOM_JSON_ARRAY},
                 {"object", OOM_JSON_OBJECT}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(types[i].name, type) != 0) continue;
        return node->kind == types[i].kind && (strcmp(type, "integer") != 0 || node->integral);
    }
    return false;
}

static bool type_is_good(const struct oom_json *node, const struct oom_json *type) {
    const char *name;
    if (type == NULL) return true;
    if (oom_json_as_text(type, &name)) return has_type(node, name);
    for (const struct oom_json *one = type->child; one != NULL; one = one->next) {
        if (oom_json_as_text(one, &name) && has_type(node, name)) return true;
    }
    return false;
}

static bool enum_is_good(const struct oom_json *node, const struct oom_json *list) {
    if (list == NULL) return true;
    for (const struct oom_json *one = list->child; one != NULL; one = one->next) {
        if (one->kind != node->kind) continue;
        if (one->kind == OOM_JSON_STRING && strcmp(one->text, node->text) == 0) return true;
        if (one->kind == OOM_JSON_NUMBER && one->number == node->number) return true;
    }
    return false;
}

static bool pattern_is_good(const struct oom_json *node, const struct oom_json *pattern) {
    regex_t regex;
    if (pattern == NULL || node->kind != OOM_JSON_STRING) return true;
    if (regcomp(&regex, pattern->text, REG_EXTENDED | REG_NOSUB) != 0) return false;
    bool good = regexec(&regex, node->text, 0, NULL, 0) == 0;
    regfree(&regex);
    return good;
}

static bool range_is_good(const struct oom_json *node, const struct oom_json *schema) {
    double least;
    if (node->kind != OOM_JSON_NUMBER) return true;
    if (oom_json_as_double(oom_json_get(schema, "minimum"), &least) && !(node->number >= least))
        return false;
    return !oom_json_as_double(oom_json_get(schema, "exclusiveMinimum"), &least) ||
           node->number > least;
}

static bool is_valid(const struct oom_json *node, const struct oom_json *schema);

static bool members_are_good(const struct oom_json *node, const struct oom_json *schema) {
    const struct oom_json *properties = oom_json_get(schema, "properties");
    const struct oom_json *additional = oom_json_get(schema, "additionalProperties");
    const struct oom_json *required = oom_json_get(schema, "required");
    if (node->kind != OOM_JSON_OBJECT) return true;
    for (const struct oom_json *one = required != NULL ? required->child : NULL; one != NULL;
         one = one->next) {
        if (oom_json_get(node, one->text) == NULL) return false;
    }
    for (const struct oom_json *child = node->child; child != NULL; child = child->next) {
        const struct oom_json *own = oom_json_get(properties, child->key);
        if (own == NULL) own = additional;
        if (own == NULL) continue;
        if (own->kind == OOM_JSON_BOOL ? !own->boolean : !is_valid(child, own)) return false;
    }
    return true;
}

static bool is_valid(const struct oom_json *node, const struct oom_json *schema) {
    const struct oom_json *items = oom_json_get(schema, "items");
    bool good = type_is_good(node, oom_json_get(schema, "type")) &&
                enum_is_good(node, oom_json_get(schema, "enum")) &&
                pattern_is_good(node, oom_json_get(schema, "pattern")) &&
                range_is_good(node, schema) && members_are_good(node, schema);
    if (items == NULL || node->kind != OOM_JSON_ARRAY) return good;
    for (const struct oom_json *child = node->child; good && child != NULL; child = child->next)
        good = is_valid(child, items);
    return good;
}

static bool text_is_valid(const char *text, const struct oom_json *schema) {
    struct oom_json_document *document;
    if (oom_json_parse("results", text, strlen(text), 0, &document) != OOM_OK) return false;
    bool good = is_valid(oom_json_root(document), schema);
    oom_json_document_free(document);
    return good;
}

/* ---- tests ---- */

/* A new text with the first `from` replaced. */
static char *replaced(const char *text, const char *from, const char *to) {
    const char *found = strstr(text, from);
    size_t bytes = strlen(text) + strlen(to) + 1;
    char *out = found != NULL ? oom_host_alloc(bytes) : NULL;
    if (out != NULL)
        snprintf(out, bytes, "%.*s%s%s", (int)(found - text), text, to, found + strlen(from));
    return out;
}

static void check_schema(const char *text, const struct oom_json *schema) {
    static const char *const edits[][2] = {
        {"\"json_schema_version\": 1", "\"json_schema_version\": 2"},
        {"\"run_type\": \"iteration\"", "\"run_type\": \"aggregate\""},
        {"\"cpu_time\": 1250", "\"cpu_time\": 0"},
        {"\"oom_bytes\": 25165824", "\"oom_bytes\": \"much\""},
        {"\"passed\": 4", "\"passed\": 4.5"},
        {"\"passed\": 4,", ""},
        {"\"grad_match\": true", "\"grad_match\": 1"},
        {"\"kind\": \"case\"", "\"kind\": \"case\", \"extra\": 1"},
        {"\"id\": \"large_batch", "\"id\": \"large batch"},
        {"\"argv\": [", "\"argv\": [7, "},
        {"\"outcome\": \"pass\"", "\"outcome\": \"passed\""},
        {"\"unequal\": [", "\"unequal\": [\"bit\", "},
    };
    TEST("results: what is written satisfies the schema");
    CHECK(text_is_valid(text, schema));
    TEST("results: the schema refuses what was changed");
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        char *changed = replaced(text, edits[i][0], edits[i][1]);
        CHECK_MSG(changed != NULL && !text_is_valid(changed, schema), "taken: %s", edits[i][1]);
        oom_host_free(changed);
    }
    oom_failure_clear();
}

static void check_content(const char *text) {
    struct oom_json_document *document;
    uint64_t seed = 0;
    TEST("results: only what passed is in benchmarks, with times above 0");
    CHECK_OK(oom_json_parse("results", text, strlen(text), 0, &document));
    const struct oom_json *root = oom_json_root(document);
    const struct oom_json *benchmarks = oom_json_get(root, "benchmarks");
    const struct oom_json *own = oom_json_get(root, "oombench");
    CHECK(benchmarks != NULL && benchmarks->count == 2);
    const char *name = "";
    CHECK(oom_json_as_text(oom_json_get(oom_json_at(benchmarks, 0), "name"), &name));
    CHECK_STR(name, "large_batch/halving/gpt/f32"); /* the figure "name" is not here */
    TEST("results: bits are true, false and null; a seed above 2^53 is not rounded");
    CHECK(oom_json_as_uint64(oom_json_get(own, "seed"), &seed) && seed == UINT64_MAX);
    const struct oom_json *cases = oom_json_get(own, "cases");
    CHECK(cases != NULL && cases->count == OOM_SAMPLE_COUNT);
    const struct oom_json *bits = oom_json_get(oom_json_at(cases, 4), "bits");
    bool value = false;
    CHECK(oom_json_as_bool(oom_json_get(bits, "oom_without"), &value) && value);
    CHECK(oom_json_get(bits, "grad_match") != NULL &&
          oom_json_get(bits, "grad_match")->kind == OOM_JSON_NULL);
    bits = oom_json_get(oom_json_at(cases, 1), "bits");
    CHECK(oom_json_as_bool(oom_json_get(bits, "grad_match"), &value) && !value);
    TEST("results: a case that must be unequal is a case, and says so");
    const struct oom_json *unequal = oom_json_get(oom_json_at(cases, 9), "unequal");
    CHECK(oom_json_as_text(oom_json_get(oom_json_at(cases, 9), "kind"), &name));
    CHECK_STR(name, "case");
    CHECK(unequal != NULL && unequal->count == 1);
    CHECK(oom_json_as_text(oom_json_at(unequal, 0), &name));
    CHECK_STR(name, "grad_match");
    CHECK(oom_json_get(oom_json_at(cases, 0), "unequal") == NULL);
    CHECK(oom_json_get(oom_json_at(cases, 2), "unequal") == NULL);
    TEST("results: a capability told twice is there once");
    const struct oom_json *capabilities = oom_json_get(own, "capabilities");
    CHECK(capabilities != NULL && capabilities->count == 2);
    oom_json_document_free(document);
}

void results_json_test(void) {
    const struct oom_report_paths paths = {.format = OOM_FORMAT_JSON};
    struct oom_json_document *schema;
    setenv("OOMBENCH_TEST_LISTED", "listed value", 1);
    setenv("SECRET_TOKEN", "planted-secret-1", 1);
    setenv("MY_OOMBENCH_TOKEN", "planted-secret-2", 1);
    TEST("results: the schema is there (from the root of the checkout)");
    CHECK_OK(oom_json_parse_file(schema_path, 0, &schema));
    if (oom_failure_last()->status != OOM_OK) return;
    char *text = oom_sample_capture(&paths, 0, OOM_SAMPLE_COUNT);
    if (text != NULL) {
        check_schema(text, oom_json_root(schema));
        check_content(text);
        TEST("results: of the environment only what is listed");
        CHECK(strstr(text, "\"OOMBENCH_TEST_LISTED\": \"listed value\"") != NULL);
        CHECK(strstr(text, "planted-secret") == NULL);
        CHECK(strstr(text, "TOKEN") == NULL);
    }
    oom_host_free(text);
    unsetenv("OOMBENCH_TEST_LISTED");
    unsetenv("SECRET_TOKEN");
    unsetenv("MY_OOMBENCH_TOKEN");
    TEST("results: nothing selected is still a document of the schema");
    text = oom_sample_capture(&paths, 0, 0);
    CHECK(text != NULL && text_is_valid(text, oom_json_root(schema)));
    oom_host_free(text);
    oom_json_document_free(schema);
}
