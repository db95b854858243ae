/*
 * list.c: `oombench list`: scenarios, their cases and controls, models, rules, devices; `oombench
 * list settings`: the allocator's settings (list-settings.c).
 */
#include "harness/cli/cli.h"

#include "harness/cli/list-settings.h"
#include "harness/cli/run-options.h"

#include <stdio.h>
#include <string.h>

static void list_models(void) {
    printf("\nmodels\n");
    for (int i = 0; i < OOM_MODEL_COUNT; i++) {
        char text[OOM_SPEC_TEXT_MAX];
        struct oom_model_spec spec = oom_model_spec_default((enum oom_model_kind)i);
        oom_model_spec_text(&spec, text);
        printf("  %-6s %s\n         %s\n", oom_model_name((enum oom_model_kind)i),
               oom_model_prose((enum oom_model_kind)i), text);
    }
}

static void list_controls(void) {
    printf("\ncontrols (wrong twins, which must be caught)\n");
    for (int i = 1; i < OOM_CONTROL_COUNT; i++) {
        printf("  %-28s %s\n", oom_control_name((enum oom_control)i),
               oom_control_prose((enum oom_control)i));
    }
}

static void list_rules(void) {
    printf("\nsizing rules\n");
    for (int i = 0; i < OOM_RULE_COUNT; i++) {
        printf("  %-14s %s\n", oom_rule_name((enum oom_rule)i), oom_rule_prose((enum oom_rule)i));
    }
}

static enum oom_status list_scenarios(const struct oom_run_command *command) {
    printf("scenarios\n");
    for (int i = 0; oom_scenarios[i] != NULL; i++) {
        struct oom_docket docket;
        OOM_TRY(oom_run_docket(command, oom_scenarios[i], &docket));
        printf("  %s: %s\n", oom_scenarios[i]->name, oom_scenarios[i]->summary);
        for (int k = 0; k < docket.count; k++) printf("    %s\n", docket.rows[k].the_case.id);
        oom_docket_free(&docket);
    }
    return OOM_OK;
}

int oom_verb_list(int argc, char **argv) {
    enum { GLOBS_MAX = 256 };
    const char *globs[GLOBS_MAX];
    struct oom_run_command command;
    enum oom_status status = OOM_OK;
    if (argc > GLOBS_MAX) status = oom_fail(OOM_USAGE, "more than %d arguments", GLOBS_MAX);
    if (status == OOM_OK) status = oom_run_command_parse(argc, argv, &command, globs);
    if (status == OOM_OK && command.help) {
        printf("usage: oombench list [GLOB...]   takes the options of run: "
               "`oombench run --help`\n"
               "       oombench list settings    the allocator's settings in force, where each "
               "comes from,\n                                 and what it does; --json FILE, - is "
               "standard output\n");
        return OOM_EXIT_OK;
    }
    if (status == OOM_OK && command.glob_count == 1 && strcmp(globs[0], "settings") == 0) {
        status = oom_list_settings(&command);
        return status == OOM_OK ? OOM_EXIT_OK : oom_exit_for(status, "list");
    }
    if (status == OOM_OK) status = list_scenarios(&command);
    if (status != OOM_OK) return oom_exit_for(status, "list");
    list_controls();
    list_rules();
    list_models();
    printf("\ndevices\n  host   a simulated GPU: computes in capped real memory\n"
           "  dry    counts only; what `plan` runs on\n"
           "  cuda   not in this version\n");
    return OOM_EXIT_OK;
}
