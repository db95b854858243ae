/*
 * explain.c: `oombench explain NAME`: the lesson of a scenario. `{{name}}` in its text is replaced
 * by a figure of the scenario's first case at this capacity, computed on the dry device.
 */
#include "harness/cli/cli.h"

#include "harness/base/nearest.h"
#include "harness/base/sizes.h"
#include "harness/cli/explain-tables.h"
#include "harness/cli/run-options.h"

#include <stdio.h>
#include <string.h>

/* ---- the figures a lesson may name ---- */

struct figures {
    struct oom_job job;
    struct oom_job_result without, with; /* the step as it is, unlimited; and mitigated */
    struct oom_job_result failed;        /* the step as it is, at this capacity */
};

static enum oom_status run_dry(const struct oom_job *job, uint64_t capacity,
                               struct oom_job_result *out) {
    struct oom_job dry = *job;
    snprintf(dry.device, sizeof dry.device, "dry");
    dry.capacity = capacity;
    OOM_TRY(oom_job_run(&dry, out));
    oom_failure_clear(); /* an OOM in the job is what the lesson is about */
    return OOM_OK;
}

static enum oom_status make_figures(const struct oom_case *c, struct figures *out) {
    out->job = c->mitigated;
    OOM_TRY(run_dry(&c->unmitigated, OOM_PLAN_UNLIMITED, &out->without));
    OOM_TRY(run_dry(&c->unmitigated, c->unmitigated.capacity, &out->failed));
    return run_dry(&c->mitigated, c->mitigated.capacity, &out->with);
}

typedef void figure_print(const struct figures *f, char *out, size_t n);

static void print_size(uint64_t bytes, char *out, size_t n) {
    oom_size_format(bytes, out, n);
}

static void print_number(int64_t value, char *out, size_t n) {
    snprintf(out, n, "%lld", (long long)value);
}

#define SIZE_FIGURE(name, value) \
    static void figure_##name(const struct figures *f, char *out, size_t n) { \
        print_size((uint64_t)(value), out, n); \
    }
#define NUMBER_FIGURE(name, value) \
    static void figure_##name(const struct figures *f, char *out, size_t n) { \
        print_number((int64_t)(value), out, n); \
    }

SIZE_FIGURE(capacity, f->job.capacity)
SIZE_FIGURE(needed, f->without.peak_reserved)
SIZE_FIGURE(live, f->without.peak_allocated)
SIZE_FIGURE(activations, f->without.tag_at_peak[OOM_TAG_ACTIVATION])
SIZE_FIGURE(parameters, f->without.tag_at_peak[OOM_TAG_PARAMETER])
SIZE_FIGURE(peak, f->with.peak_device)
SIZE_FIGURE(wanted, f->failed.oom.requested)
SIZE_FIGURE(free, f->failed.oom.device_free)
NUMBER_FIGURE(batch, f->job.samples)
NUMBER_FIGURE(size, f->with.steps[0].size)
NUMBER_FIGURE(layers, f->job.trainer.spec.layers)
NUMBER_FIGURE(width, f->job.trainer.spec.width)
NUMBER_FIGURE(heads, f->job.trainer.spec.heads)
NUMBER_FIGURE(context, f->job.trainer.spec.context)
NUMBER_FIGURE(tokens, f->job.samples *oom_spec_rows(&f->job.trainer.spec))

static void figure_need(const struct figures *f, char *out, size_t n) {
    snprintf(out, n, "%.2f", (double)f->without.peak_reserved / (double)f->job.capacity);
}

static void figure_model(const struct figures *f, char *out, size_t n) {
    char text[OOM_SPEC_TEXT_MAX];
    oom_model_spec_text(&f->job.trainer.spec, text);
    snprintf(out, n, "%s", text);
}

/* ---- tables ---- */

static void print_table(enum oom_status (*make)(const struct oom_job *job,
                                                char out[OOM_EXPLAIN_TABLE_MAX]),
                        const struct figures *f, char *out, size_t n) {
    char text[OOM_EXPLAIN_TABLE_MAX];
    enum oom_status status = make(&f->job, text);
    snprintf(out, n, "%s", status == OOM_OK ? text : oom_failure_last()->message);
    if (status != OOM_OK) oom_failure_clear();
    size_t used = strlen(out);
    if (used > 0 && out[used - 1] == '\n') out[used - 1] = 0;
}

static void figure_depths(const struct figures *f, char *out, size_t n) {
    print_table(oom_explain_depths, f, out, n);
}

static void figure_budgets(const struct figures *f, char *out, size_t n) {
    print_table(oom_explain_budgets, f, out, n);
}

static void figure_stages(const struct figures *f, char *out, size_t n) {
    const struct oom_model_spec *spec = &f->job.trainer.spec;
    print_number(oom_model_of(spec)->stages(spec), out, n);
}

static void figure_again(const struct figures *f, char *out, size_t n) {
    print_number(f->with.recomputed, out, n);
}

static void figure_extra(const struct figures *f, char *out, size_t n) {
    double once = f->with.forward_flops;
    snprintf(out, n, "%.2f", once > 0 ? f->with.again_flops / once : 0);
}

static void figure_site(const struct figures *f, char *out, size_t n) {
    snprintf(out, n, "%s", f->failed.oom.site);
}

static const struct {
    const char *name;
    figure_print *print;
} figure_table[] = {
    {"capacity", figure_capacity},
    {"needed", figure_needed},
    {"live", figure_live},
    {"activations", figure_activations},
    {"parameters", figure_parameters},
    {"peak", figure_peak},
    {"wanted", figure_wanted},
    {"free", figure_free},
    {"batch", figure_batch},
    {"size", figure_size},
    {"layers", figure_layers},
    {"width", figure_width},
    {"context", figure_context},
    {"tokens", figure_tokens},
    {"need", figure_need},
    {"site", figure_site},
    {"model", figure_model},
    {"heads", figure_heads},
    {"stages", figure_stages},
    {"again", figure_again},
    {"extra", figure_extra},
    {"depths", figure_depths},
    {"budgets", figure_budgets},
};

static void print_figure(const struct figures *f, const char *name, size_t length) {
    for (size_t i = 0; i < sizeof figure_table / sizeof figure_table[0]; i++) {
        if (strlen(figure_table[i].name) != length) continue;
        if (strncmp(figure_table[i].name, name, length) != 0) continue;
        char text[OOM_EXPLAIN_TABLE_MAX];
        figure_table[i].print(f, text, sizeof text);
        fputs(text, stdout);
        return;
    }
    printf("{{%.*s}}", (int)length, name); /* shown as it stands: a test looks for these */
}

static void print_lesson(const char *text, const struct figures *f) {
    for (const char *open; (open = strstr(text, "{{")) != NULL;) {
        const char *close = strstr(open, "}}");
        if (close == NULL) break;
        fwrite(text, 1, (size_t)(open - text), stdout);
        print_figure(f, open + 2, (size_t)(close - open - 2));
        text = close + 2;
    }
    fputs(text, stdout);
}

/* ---- the verb ---- */

static enum oom_status find_scenario(int count, const char *const *operands,
                                     const struct oom_scenario **out) {
    const char *names[64];
    int known = 0;
    for (int i = 0; oom_scenarios[i] != NULL && known < 64; i++)
        names[known++] = oom_scenarios[i]->name;
    if (count != 1) return oom_fail(OOM_USAGE, "one scenario is needed, such as %s", names[0]);
    *out = oom_scenario_find(operands[0]);
    if (*out != NULL) return OOM_OK;
    const char *near = oom_nearest_name(operands[0], names, known);
    return oom_fail(OOM_USAGE, "unknown scenario '%s'%s%s", operands[0],
                    near != NULL ? ", nearest is " : "; `oombench list` names them",
                    near != NULL ? near : "");
}

static enum oom_status explain(struct oom_run_command *command,
                               const struct oom_scenario *scenario) {
    struct oom_docket docket;
    struct figures figures;
    command->glob_count = 0; /* the operand named the scenario, not cases */
    OOM_TRY(oom_run_docket(command, scenario, &docket));
    enum oom_status status = docket.count > 0 ? make_figures(&docket.rows[0].the_case, &figures)
                                              : oom_fail(OOM_NOTHING, "no case of this model");
    oom_docket_free(&docket);
    if (status == OOM_OK) print_lesson(scenario->lesson, &figures);
    return status;
}

int oom_verb_explain(int argc, char **argv) {
    enum { OPERANDS_MAX = 64 };
    const char *operands[OPERANDS_MAX];
    struct oom_run_command command;
    const struct oom_scenario *scenario = NULL;
    enum oom_status status = OOM_OK;
    if (argc > OPERANDS_MAX) status = oom_fail(OOM_USAGE, "more than %d arguments", OPERANDS_MAX);
    if (status == OOM_OK) status = oom_run_command_parse(argc, argv, &command, operands);
    if (status == OOM_OK && command.help) {
        printf("usage: oombench explain NAME   takes --capacity, --model, --quick of run\n");
        return OOM_EXIT_OK;
    }
    if (status == OOM_OK) status = find_scenario(command.glob_count, operands, &scenario);
    if (status == OOM_OK) status = explain(&command, scenario);
    return status == OOM_OK ? OOM_EXIT_OK : oom_exit_for(status, "explain");
}
