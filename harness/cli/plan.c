/*
 * plan.c: `oombench plan MODEL`: what a training step would need, and the largest batch that fits.
 */
#include "harness/cli/cli.h"

#include "harness/base/file.h"
#include "harness/base/json-write.h"
#include "harness/base/options.h"
#include "harness/base/sizes.h"
#include "harness/base/text.h"
#include "harness/train/checkpoint-fit.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct plan_command {
    uint64_t capacity;
    const char *alloc_conf, *profile, *json;
    const char *checkpoint;
    int64_t batch;
    bool sgd, zeroed, help;
    int micro;
};

#define AT(field) .offset = offsetof(struct plan_command, field)
static const struct oom_option rows[] = {
    {"capacity", 'c', OOM_OPTION_SIZE, AT(capacity), .fallback = "192MiB",
     .environment = "OOMBENCH_CAPACITY", .help = "memory of the device"},
    {"alloc-conf", 0, OOM_OPTION_TEXT, AT(alloc_conf), .fallback = "", .metavar = "CONF",
     .environment = "OOMBENCH_ALLOC_CONF", .help = "settings of the caching allocator"},
    {"profile", 0, OOM_OPTION_TEXT, AT(profile), .fallback = "pytorch-2.13", .metavar = "NAME",
     .environment = "OOMBENCH_PROFILE",
     .help = "whose decisions the caching allocator makes: pytorch-2.13, pytorch-2.11, fixed"},
    {"micro", 0, OOM_OPTION_INT, AT(micro), .min = 0, .max = 1048576, .fallback = "0",
     .metavar = "N", .help = "accumulate over micro-batches of N samples; 0: the batch in one"},
    {"checkpoint", 0, OOM_OPTION_TEXT, AT(checkpoint), .fallback = "none", .metavar = "HOW",
     .help = "none; sqrt: the inputs of about sqrt(n) segments; fit: by the largest budget that "
             "fits the capacity; SIZE: by a budget of so many live bytes"},
    {"sgd", 0, OOM_OPTION_FLAG, AT(sgd), .help = "SGD with momentum (default: AdamW)"},
    {"zeroed", 0, OOM_OPTION_FLAG, AT(zeroed),
     .help = "keep gradients and fill them with zeros (default: free them after each step)"},
    {"json", 0, OOM_OPTION_PATH, AT(json), .metavar = "FILE",
     .help = "as JSON; - is standard output"},
    {"help", 'h', OOM_OPTION_FLAG, AT(help), .help = "this list"},
};
#undef AT

struct answer {
    struct oom_model_spec spec;
    struct oom_plan_request request;
    struct oom_plan unlimited, capped;
    struct oom_checkpoint_fit fit;
    int64_t largest;
};

static enum oom_status fits(void *context, int64_t size, bool *out) {
    struct oom_plan_request request = *(const struct oom_plan_request *)context;
    struct oom_plan plan;
    if (!request.micro) request.samples = size;
    request.size = size;
    OOM_TRY(oom_plan_run(&request, &plan));
    *out = plan.fits;
    return OOM_OK;
}

static enum oom_status read_checkpoint(const char *text, struct oom_trainer_options *out) {
    if (strcmp(text, "none") == 0) return OOM_OK;
    out->checkpointing = OOM_CHECKPOINTING_SQRT;
    if (strcmp(text, "sqrt") == 0) return OOM_OK;
    out->checkpointing = OOM_CHECKPOINTING_BUDGET;
    if (strcmp(text, "fit") == 0) return OOM_OK;
    OOM_TRY(
        oom_size_parse("--checkpoint (none, sqrt, fit or a size)", text, &out->checkpoint_budget));
    if (out->checkpoint_budget > 0) return OOM_OK;
    return oom_fail(OOM_USAGE, "--checkpoint 0: a budget is at least a byte");
}

/* A budget is for one batch: the largest batch is not looked for. */
static bool searches(const struct answer *a) {
    return a->request.trainer.checkpointing != OOM_CHECKPOINTING_BUDGET;
}

/* What the largest budget is depends on the capacity, also for what it needs without limit. */
static enum oom_status choose_budget(struct answer *a, uint64_t capacity) {
    struct oom_trainer_options *options = &a->request.trainer;
    if (options->checkpointing != OOM_CHECKPOINTING_BUDGET) return OOM_OK;
    if (options->checkpoint_budget > 0) return OOM_OK;
    struct oom_plan_request request = a->request;
    request.capacity = capacity;
    OOM_TRY(oom_checkpoint_fit(&request, &a->fit));
    options->checkpoint_budget = a->fit.budget;
    return OOM_OK;
}

static enum oom_status beyond_everything(const struct oom_plan *plan) {
    char limit[16];
    return oom_fail(OOM_USAGE,
                    "the step needs more than %s, which nothing here can count: it ends "
                    "at '%s'",
                    oom_size_format(OOM_PLAN_UNLIMITED, limit, sizeof limit),
                    plan->failed.report.site);
}

static enum oom_status make(const struct plan_command *c, struct answer *a) {
    struct oom_allocator_settings settings = oom_allocator_settings_default();
    OOM_TRY(oom_profile_find(c->profile, &settings.profile));
    OOM_TRY(oom_allocator_settings_parse(c->alloc_conf, &settings));
    a->request = (struct oom_plan_request){
        .trainer = {.spec = a->spec,
                    .seed = 1,
                    .gradients = c->zeroed ? OOM_GRADIENTS_ZEROED : OOM_GRADIENTS_NONE,
                    .optimizer = c->sgd ? OOM_OPTIMIZER_SGD : OOM_OPTIMIZER_ADAMW},
        .settings = settings,
        .capacity = OOM_PLAN_UNLIMITED,
        .samples = a->spec.batch,
        .size = c->micro > 0 ? c->micro : a->spec.batch,
        .micro = c->micro > 0,
        .steps = OOM_PLAN_STEPS};
    OOM_TRY(read_checkpoint(c->checkpoint, &a->request.trainer));
    OOM_TRY(choose_budget(a, c->capacity));
    OOM_TRY(oom_plan_run(&a->request, &a->unlimited));
    if (!a->unlimited.fits) return beyond_everything(&a->unlimited);
    a->request.capacity = c->capacity;
    OOM_TRY(oom_plan_run(&a->request, &a->capped));
    if (!searches(a)) return OOM_OK;
    int64_t most = a->request.micro ? a->spec.batch : 1 << 20;
    return oom_largest_fit(&a->request, fits, most, &a->largest);
}

static void print_checkpointing(const struct answer *a) {
    const struct oom_trainer_options *options = &a->request.trainer;
    char size[16], available[16];
    if (options->checkpointing == OOM_CHECKPOINTING_OFF) return;
    printf("again     %d forwards of stages, %.3f of one forward of all\n", a->unlimited.recomputed,
           a->unlimited.extra_forward);
    if (options->checkpointing == OOM_CHECKPOINTING_SQRT) return;
    if (a->unlimited.unproven > 0) {
        printf("            the search for the best schedule has ended early: another within the\n"
               "            budget might save %.3f of one forward, none more\n",
               a->unlimited.unproven);
    }
    printf("budget    %s of live bytes\n",
           oom_size_format(options->checkpoint_budget, size, sizeof size));
    if (a->fit.budget == 0) return;
    printf("            of %s; %d larger ones were passed by, as their reserved bytes do not fit\n",
           oom_size_format(a->fit.available, available, sizeof available), a->fit.passed);
    printf("            by live bytes alone %.3f of one forward\n", a->fit.live_share);
}

static void print(const struct plan_command *c, const struct answer *a) {
    char text[OOM_SPEC_TEXT_MAX], size[16], total[16];
    oom_model_spec_text(&a->spec, text);
    printf("model     %s\n", text);
    printf("needs     %s reserved, %s live at the peak, without limit\n",
           oom_size_format(a->unlimited.peak_reserved, size, sizeof size),
           oom_size_format(a->unlimited.peak_allocated, total, sizeof total));
    for (int i = 0; i < OOM_TAG_COUNT; i++) {
        if (a->unlimited.tag_at_peak[i] == 0) continue;
        printf("            %-14s %s\n", oom_tag_name((enum oom_tag)i),
               oom_size_format(a->unlimited.tag_at_peak[i], size, sizeof size));
    }
    print_checkpointing(a);
    printf("capacity  %s: %s\n", oom_size_format(c->capacity, size, sizeof size),
           a->capped.fits ? "fits" : "does not fit");
    if (a->capped.fits) {
        printf("            peak %s reserved\n",
               oom_size_format(a->capped.peak_reserved, size, sizeof size));
    } else {
        const struct oom_attempt *failed = &a->capped.failed;
        printf("            fails in %s at '%s', which wants %s\n", oom_phase_name(failed->phase),
               failed->report.site, oom_size_format(failed->report.requested, size, sizeof size));
    }
    if (!searches(a)) return;
    const char *what = a->request.micro ? "micro-batch" : "batch";
    if (a->largest == 0) {
        printf("largest   not even a %s of 1 fits\n", what);
    } else {
        printf("largest   %s of %lld: every %s up to it fits, three steps in a row\n", what,
               (long long)a->largest, what);
    }
}

static void write_json(struct oom_json_writer *json, const struct plan_command *c,
                       const struct answer *a) {
    const struct oom_trainer_options *options = &a->request.trainer;
    char text[OOM_SPEC_TEXT_MAX];
    oom_model_spec_text(&a->spec, text);
    oom_json_object_begin(json);
    oom_json_put_string(json, "model", text);
    oom_json_put_uint64(json, "capacity_bytes", c->capacity);
    oom_json_put_uint64(json, "peak_reserved_bytes", a->unlimited.peak_reserved);
    oom_json_put_uint64(json, "peak_allocated_bytes", a->unlimited.peak_allocated);
    oom_json_put_bool(json, "fits", a->capped.fits);
    if (searches(a)) oom_json_put_int64(json, "largest", a->largest);
    if (options->checkpointing != OOM_CHECKPOINTING_OFF) {
        oom_json_put_int64(json, "recomputed_stages", a->unlimited.recomputed);
        oom_json_put_double(json, "extra_forward", a->unlimited.extra_forward);
    }
    if (options->checkpointing == OOM_CHECKPOINTING_BUDGET) {
        oom_json_put_uint64(json, "budget_bytes", options->checkpoint_budget);
        oom_json_put_double(json, "extra_forward_unproven", a->unlimited.unproven);
    }
    oom_json_object_end(json);
}

static enum oom_status print_json(const struct plan_command *c, const struct answer *a) {
    struct oom_file_writer writer = {.file = stdout};
    bool standard = strcmp(c->json, "-") == 0;
    if (!standard && oom_file_writer_open(&writer, c->json) != OOM_OK) return OOM_USAGE;
    struct oom_json_writer json;
    oom_json_writer_init_file(&json, writer.file, OOM_JSON_PRETTY);
    write_json(&json, c, a);
    enum oom_status status = oom_json_writer_finish(&json, NULL, NULL);
    if (standard) return status;
    if (status == OOM_OK) return oom_file_writer_commit(&writer);
    oom_file_writer_abandon(&writer);
    return status;
}

int oom_verb_plan(int argc, char **argv) {
    enum { OPERANDS_MAX = 64 };
    const char *operands[OPERANDS_MAX];
    const struct oom_options table = {rows, sizeof rows / sizeof rows[0]};
    struct plan_command command = {0};
    struct answer answer = {0};
    int count = 0;
    enum oom_status status = OOM_OK;
    if (argc > OPERANDS_MAX) status = oom_fail(OOM_USAGE, "more than %d arguments", OPERANDS_MAX);
    if (status == OOM_OK)
        status = oom_options_parse(&table, argc, argv, &command, operands, &count, NULL);
    if (status == OOM_OK && command.help) {
        printf("usage: oombench plan MODEL [options]\n\nMODEL is mlp, gpt or cnn with keys: "
               "gpt,layers=4,width=64,batch=32\n\n");
        oom_options_help(&table, stdout, oom_terminal_columns(1));
        return OOM_EXIT_OK;
    }
    if (status == OOM_OK && count != 1) {
        status = oom_fail(OOM_USAGE, "one model is needed, such as gpt,layers=4,batch=64; %d given",
                          count);
    }
    if (status == OOM_OK) status = oom_model_spec_parse(operands[0], &answer.spec);
    if (status == OOM_OK) status = make(&command, &answer);
    if (status == OOM_OK && command.json != NULL) status = print_json(&command, &answer);
    if (status == OOM_OK && (command.json == NULL || strcmp(command.json, "-") != 0)) {
        print(&command, &answer);
    }
    return status == OOM_OK ? OOM_EXIT_OK : oom_exit_for(status, "plan");
}
