#include "harness/cli/list-settings.h"

#include "harness/base/json-write.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where the settings string came from, as the user would name it. */
static const char *string_source(const struct oom_run_command *c) {
    if (c->alloc_conf_from == OOM_SOURCE_OPTION) return "--alloc-conf";
    return c->alloc_conf_from == OOM_SOURCE_ENVIRONMENT ? "OOMBENCH_ALLOC_CONF" : "default";
}

static const char *profile_source(const struct oom_run_command *c) {
    if (c->profile_from == OOM_SOURCE_OPTION) return "--profile";
    return c->profile_from == OOM_SOURCE_ENVIRONMENT ? "OOMBENCH_PROFILE" : "default";
}

/* Keys that the profile's PyTorch did not have cannot be set otherwise. */
static bool fixed_by_profile(const struct oom_allocator_settings *settings,
                             enum oom_setting setting) {
    struct oom_allocator_settings trial = oom_allocator_settings_default();
    char conf[128], value[OOM_CONF_MAX];
    static const char *const any[OOM_SETTING_COUNT] = {[OOM_SETTING_RESERVE] = "1",
                                                       [OOM_SETTING_MAX_SPLIT] = "20",
                                                       [OOM_SETTING_ROUNDUP] = "2",
                                                       [OOM_SETTING_GC] = "0.5"};
    oom_setting_format(&trial, setting, value, sizeof value);
    trial.profile = settings->profile;
    snprintf(conf, sizeof conf, "%s:%.64s", oom_setting_name(setting),
             any[setting] != NULL ? any[setting] : value);
    bool known = oom_allocator_settings_parse(conf, &trial) == OOM_OK;
    oom_failure_clear();
    return !known;
}

static const char *source_of(const struct oom_run_command *c, enum oom_setting setting) {
    const struct oom_allocator_settings *settings = &c->options.settings;
    if (settings->given[setting]) return string_source(c);
    return fixed_by_profile(settings, setting) ? "profile" : "default";
}

/* ---- what needs saying beside the table ---- */

static bool collection_is_idle(const struct oom_allocator_settings *s) {
    return s->garbage_collection_threshold > 0 && !(s->per_process_memory_fraction < 1) &&
           s->profile != OOM_PROFILE_FIXED;
}

static bool oversize_and_expandable(const struct oom_allocator_settings *s) {
    return s->max_split_size != UINT64_MAX && s->expandable_segments &&
           s->profile != OOM_PROFILE_FIXED;
}

static bool cache_keys_idle(const struct oom_allocator_settings *s) {
    return s->backend == OOM_BACKEND_DIRECT &&
           (s->expandable_segments || s->max_split_size != UINT64_MAX ||
            s->garbage_collection_threshold > 0);
}

static const struct {
    bool (*holds)(const struct oom_allocator_settings *settings);
    const char *text;
} remarks[] = {
    {collection_is_idle,
     "garbage_collection_threshold does nothing without per_process_memory_fraction below 1, under "
     "this profile"},
    {oversize_and_expandable,
     "max_split_size_mb acts on expandable segments too, under this profile, and can make them "
     "grow without end (PyTorch #123548)"},
    {cache_keys_idle, "backend direct has no cache: the settings of one do nothing"},
};

/* Read by PyTorch, in this order; not by us, so that what was meant for a training run on this
 * machine does not change what is tested here. */
static const char *const pytorch_variables[] = {"PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF",
                                                "PYTORCH_ALLOC_CONF"};

enum { VARIABLES = sizeof pytorch_variables / sizeof pytorch_variables[0] };

static bool option_hides_environment(const struct oom_run_command *c) {
    return c->alloc_conf_from == OOM_SOURCE_OPTION && getenv("OOMBENCH_ALLOC_CONF") != NULL;
}

/* ---- for people ---- */

static void print_remarks(const struct oom_run_command *c) {
    if (option_hides_environment(c)) {
        printf("\nOOMBENCH_ALLOC_CONF is set, too: the option stands in its place, they are not "
               "merged.\n");
    }
    for (size_t i = 0; i < sizeof remarks / sizeof remarks[0]; i++) {
        if (remarks[i].holds(&c->options.settings)) printf("\n%s.\n", remarks[i].text);
    }
    for (int i = 0; i < VARIABLES; i++) {
        if (getenv(pytorch_variables[i]) == NULL) continue;
        printf("\n%s is set, and deliberately not read: it is PyTorch's. Give its value to "
               "--alloc-conf\nor OOMBENCH_ALLOC_CONF where it is meant for this.\n",
               pytorch_variables[i]);
    }
}

static void print_table(const struct oom_run_command *c) {
    const struct oom_allocator_settings *settings = &c->options.settings;
    char value[OOM_CONF_MAX];
    printf("settings string  %s (%s)\n", settings->conf[0] != 0 ? settings->conf : "none",
           string_source(c));
    printf("profile          %s (%s): %s\n\n", oom_profile_name(settings->profile),
           profile_source(c), oom_profile_prose(settings->profile));
    printf("%-28s %-18s %-20s %s\n", "setting", "value", "from", "what it does");
    for (int i = 0; i < OOM_SETTING_COUNT; i++) {
        enum oom_setting setting = (enum oom_setting)i;
        printf("%-28s %-18s %-20s %s\n", oom_setting_name(setting),
               oom_setting_format(settings, setting, value, sizeof value), source_of(c, setting),
               oom_setting_prose(setting));
    }
    print_remarks(c);
}

/* ---- for programs ---- */

static void write_settings(const struct oom_run_command *c, struct oom_json_writer *json) {
    const struct oom_allocator_settings *settings = &c->options.settings;
    char value[OOM_CONF_MAX];
    oom_json_object_begin(json);
    oom_json_put_string(json, "string", settings->conf);
    oom_json_put_string(json, "string_from", string_source(c));
    oom_json_put_string(json, "profile", oom_profile_name(settings->profile));
    oom_json_put_string(json, "profile_from", profile_source(c));
    oom_json_key(json, "settings");
    oom_json_array_begin(json);
    for (int i = 0; i < OOM_SETTING_COUNT; i++) {
        enum oom_setting setting = (enum oom_setting)i;
        oom_json_object_begin(json);
        oom_json_put_string(json, "name", oom_setting_name(setting));
        oom_json_put_string(json, "value",
                            oom_setting_format(settings, setting, value, sizeof value));
        oom_json_put_string(json, "from", source_of(c, setting));
        oom_json_object_end(json);
    }
    oom_json_array_end(json);
    oom_json_key(json, "not_read");
    oom_json_array_begin(json);
    for (int i = 0; i < VARIABLES; i++) {
        if (getenv(pytorch_variables[i]) != NULL) oom_json_string(json, pytorch_variables[i]);
    }
    oom_json_array_end(json);
    oom_json_object_end(json);
}

static enum oom_status print_json(const struct oom_run_command *c) {
    bool standard = strcmp(c->json, "-") == 0;
    FILE *file = standard ? stdout : fopen(c->json, "we");
    if (file == NULL) return oom_fail(OOM_IO, "'%s' cannot be written", c->json);
    struct oom_json_writer json;
    oom_json_writer_init_file(&json, file, OOM_JSON_PRETTY);
    write_settings(c, &json);
    enum oom_status status = oom_json_writer_finish(&json, NULL, NULL);
    if (!standard && fclose(file) != 0 && status == OOM_OK) {
        status = oom_fail(OOM_IO, "'%s' cannot be written", c->json);
    }
    return status;
}

enum oom_status oom_list_settings(const struct oom_run_command *c) {
    if (c->json != NULL) OOM_TRY(print_json(c));
    if (c->json == NULL || strcmp(c->json, "-") != 0) print_table(c);
    return OOM_OK;
}
