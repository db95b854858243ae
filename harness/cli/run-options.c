#include "harness/cli/run-options.h"

#include "harness/base/glob.h"
#include "harness/base/nearest.h"
#include "harness/base/sizes.h"

#include <stdio.h>
#include <string.h>

/* ---- the table ---- */

#define NAME_OF(id, name, ...) name,
static const char *const rng_names[] = {
    [OOM_RNG_KEYED] = "keyed", [OOM_RNG_STATEFUL] = "stateful", NULL};
static const char *const schedule_names[] = {OOM_SCHEDULE_MAP(NAME_OF) NULL};
static const char *const isa_names[] = {OOM_ISA_MAP(NAME_OF) NULL};
static const char *const format_names[] = {OOM_FORMAT_MAP(NAME_OF) NULL};
#undef NAME_OF

#define AT(field) .offset = offsetof(struct oom_run_command, field)

static const struct oom_option rows[] = {
    {"device", 0, OOM_OPTION_TEXT, AT(device), .fallback = "host", .metavar = "NAME",
     .environment = "OOMBENCH_DEVICE",
     .help = "host: a simulated GPU that really computes in capped memory; cuda: not in this "
             "version."},
    {"capacity", 'c', OOM_OPTION_SIZE, AT(capacity), .fallback = "0",
     .environment = "OOMBENCH_CAPACITY",
     .help = "memory of the device, such as 64MiB or 1GiB; 0: 192MiB, or 64MiB with --quick"},
    {"quick", 'q', OOM_OPTION_FLAG, AT(quick),
     .help = "64 MiB, smaller needs, one case per mitigation, all controls"},
    {"full", 0, OOM_OPTION_FLAG, AT(full), .help = "truths from 64 distinct samples, not 16"},
    {"control", 0, OOM_OPTION_TEXT, AT(control), .metavar = "NAME",
     .help = "runs the cases of this wrong twin with the mistake in: they end not ok, exit 1"},
    {"inject-oom", 0, OOM_OPTION_TEXT, AT(inject), .metavar = "N|every|p=X",
     .help =
         "makes an allocation of the mitigated steps fail: the N-th, every one in turn (one run "
         "each: best with --quick and one case), or each with probability X by the seed"},
    {"model", 'm', OOM_OPTION_TEXT, AT(model), .metavar = "MODEL",
     .help = "only this model, its keys in place of the scenario's: gpt,layers=4,width=64"},
    {"data", 0, OOM_OPTION_PATH, AT(data), .metavar = "FILE",
     .help = "bytes for gpt (default: a generated text)"},
    {"seed", 0, OOM_OPTION_UINT64, AT(seed), .fallback = "1", .environment = "OOMBENCH_SEED",
     .help = "of data, weights and dropout"},
    {"alloc-conf", 0, OOM_OPTION_TEXT, AT(alloc_conf), .fallback = "", .metavar = "CONF",
     .environment = "OOMBENCH_ALLOC_CONF",
     .help = "settings of the caching allocator, as in PYTORCH_CUDA_ALLOC_CONF; `oombench list "
             "settings` shows what comes of it"},
    {"profile", 0, OOM_OPTION_TEXT, AT(profile), .fallback = "pytorch-2.13", .metavar = "NAME",
     .environment = "OOMBENCH_PROFILE",
     .help = "whose decisions the caching allocator makes: pytorch-2.13, pytorch-2.11, fixed"},
    {"jobs", 'j', OOM_OPTION_INT, AT(jobs), .min = 0, .max = OOM_JOBS_MAX, .fallback = "0",
     .help = "scenarios at once; 0: on a simulated device as many as there are cores and memory "
             "for; results do not depend on it"},
    {"threads", 't', OOM_OPTION_INT, AT(threads), .min = 0, .max = 1024, .fallback = "0",
     .help = "of each job; 0: as many as this process may use, shared by the jobs; results do not "
             "depend on it"},
    {"isa", 0, OOM_OPTION_CHOICE, AT(isa), .names = isa_names, .fallback = "auto",
     .help = "instruction set of the host kernels; results do not depend on it"},
    {"rng", 0, OOM_OPTION_CHOICE, AT(rng), .names = rng_names, .fallback = "keyed",
     .help = "dropout's random numbers: keyed by the sample's identity, or running on with each "
             "call, as PyTorch's; the latter for cases whose reference makes the same calls"},
    {"schedule", 0, OOM_OPTION_CHOICE, AT(schedule), .names = schedule_names, .fallback = "eager",
     .help = "when queued work runs; results do not depend on it"},
    {"require", 0, OOM_OPTION_TEXT, AT(require), .metavar = "DEVICE",
     .help = "exit 3 when a case is skipped because this device is not there"},
    {"timeout", 0, OOM_OPTION_DURATION, AT(timeout), .fallback = "0",
     .help = "of a scenario; 0: by its size"},
    {"format", 'f', OOM_OPTION_CHOICE, AT(format), .names = format_names, .fallback = "table",
     .help = "on standard output"},
    {"snapshot", 0, OOM_OPTION_PATH, AT(snapshot), .metavar = "FILE",
     .help = "what the allocator remembers of the first case's failed run, in PyTorch's snapshot "
             "format: for its viewer, and for `oombench replay`"},
    {"traces", 0, OOM_OPTION_FLAG, AT(traces),
     .help = "the failed run of each case into --json's file, for `oombench replay --part ID`"},
    {"tap", 0, OOM_OPTION_PATH, AT(tap), .metavar = "FILE",
     .help = "TAP 13 beside it; - is "
             "standard output"},
    {"json", 0, OOM_OPTION_PATH, AT(json), .metavar = "FILE", .help = "results as JSON"},
    {"junit", 0, OOM_OPTION_PATH, AT(junit), .metavar = "FILE", .help = "JUnit XML"},
    {"help", 'h', OOM_OPTION_FLAG, AT(help), .help = "this list"},
};
#undef AT

const struct oom_options oom_run_option_table = {rows, sizeof rows / sizeof rows[0]};

/* ---- checks ---- */

static enum oom_status check_device(struct oom_run_command *c) {
    static const char *const known[] = {"host", "cuda"};
    for (int i = 0; i < 2; i++) {
        if (strcmp(c->device, known[i]) == 0) return OOM_OK;
    }
    const char *near = oom_nearest_name(c->device, known, 2);
    return oom_fail(OOM_USAGE, "--device: '%s' is unknown; allowed are host and cuda%s%s%s",
                    c->device, near != NULL ? "; nearest is '" : "", near != NULL ? near : "",
                    near != NULL ? "'" : "");
}

static enum oom_status check_control(struct oom_run_command *c) {
    if (c->control == NULL) return OOM_OK;
    c->chosen_control = oom_control_find(c->control);
    if (c->chosen_control != OOM_CONTROL_NONE) return OOM_OK;
    const char *known[OOM_CONTROL_COUNT];
    for (int i = 1; i < OOM_CONTROL_COUNT; i++)
        known[i - 1] = oom_control_name((enum oom_control)i);
    const char *near = oom_nearest_name(c->control, known, OOM_CONTROL_COUNT - 1);
    return oom_fail(OOM_USAGE, "--control: unknown control '%s'%s%s; `oombench list` names them",
                    c->control, near != NULL ? ", nearest is " : "", near != NULL ? near : "");
}

enum { LEAST_CAPACITY = 64 << 20 }; /* below, canaries and 20 MiB segments are what fills it */

static void choose_capacity(struct oom_run_command *c, enum oom_option_source source) {
    bool given = c->capacity > 0;
    if (!given) c->capacity = c->quick ? 64u << 20 : (uint64_t)OOM_DEFAULT_CAPACITY;
    c->options.capacity = c->capacity;
    c->options.capacity_from = given ? oom_option_source_name(source) : "default";
}

static enum oom_status check_capacity(const struct oom_run_command *c) {
    char a[16], b[16];
    if (c->capacity < LEAST_CAPACITY) {
        return oom_fail(OOM_USAGE, "--capacity: %s is too small for any batch; at least %s",
                        oom_size_format(c->capacity, a, sizeof a),
                        oom_size_format(LEAST_CAPACITY, b, sizeof b));
    }
    return OOM_OK;
}

static enum oom_status check_texts(struct oom_run_command *c) {
    if (c->model != NULL) {
        struct oom_model_spec spec;
        OOM_TRY(oom_model_spec_parse(c->model, &spec));
    }
    if (c->data != NULL) {
        struct oom_source source;
        OOM_TRY(oom_source_open(c->data, c->seed, &source));
        oom_source_close(&source);
    }
    c->options.settings = oom_allocator_settings_default();
    if (c->inject != NULL) OOM_TRY(oom_injection_parse(c->inject, &c->options.injection));
    OOM_TRY(oom_profile_find(c->profile, &c->options.settings.profile));
    OOM_TRY(oom_allocator_settings_parse(c->alloc_conf, &c->options.settings));
    c->options.settings.trace_entries = 1024;
    if (c->require != NULL && strcmp(c->require, "cuda") != 0 && strcmp(c->require, "host") != 0) {
        return oom_fail(OOM_USAGE, "--require: '%s' is unknown; allowed are cuda and host",
                        c->require);
    }
    return OOM_OK;
}

static void fill_in(struct oom_run_command *c) {
    snprintf(c->options.device, sizeof c->options.device, "%s", c->device);
    c->options.schedule = (enum oom_schedule)c->schedule;
    c->options.isa = (enum oom_isa)c->isa;
    c->options.threads = c->threads;
    c->options.seed = c->seed;
    c->options.data = c->data;
    c->options.model = c->model;
    c->options.quick = c->quick;
    c->options.full = c->full;
    c->paths = (struct oom_report_paths){(enum oom_format)c->format, c->tap, c->json, c->junit};
}

static int row_of(const char *name) {
    for (int i = 0; i < oom_run_option_table.count; i++) {
        if (strcmp(rows[i].name, name) == 0) return i;
    }
    return 0;
}

enum oom_status oom_run_command_parse(int argc, char **argv, struct oom_run_command *c,
                                      const char **globs) {
    enum oom_option_source sources[sizeof rows / sizeof rows[0]];
    *c = (struct oom_run_command){0};
    OOM_TRY(
        oom_options_parse(&oom_run_option_table, argc, argv, c, globs, &c->glob_count, sources));
    c->globs = globs;
    if (c->help) return OOM_OK;
    OOM_TRY(check_device(c));
    OOM_TRY(check_control(c));
    c->alloc_conf_from = sources[row_of("alloc-conf")];
    c->profile_from = sources[row_of("profile")];
    choose_capacity(c, sources[row_of("capacity")]);
    OOM_TRY(check_capacity(c));
    OOM_TRY(check_texts(c));
    fill_in(c);
    return OOM_OK;
}

/* ---- selection ---- */

bool oom_run_selects(const struct oom_run_command *c, const char *id) {
    for (int i = 0; i < c->glob_count; i++) {
        if (oom_glob_match(c->globs[i], id)) return true;
    }
    return c->glob_count == 0;
}

/* With --control the twin's row stands for the case it spoils: chosen by either's name. */
static bool row_selected(const struct oom_run_command *c, const struct oom_scenario_case *row) {
    if (c->chosen_control != OOM_CONTROL_NONE && row->control != c->chosen_control) return false;
    if (oom_injection_on(&c->options.injection) && row->control != OOM_CONTROL_NONE &&
        c->chosen_control == OOM_CONTROL_NONE) {
        return false; /* what a twin turns is pinned without other failures */
    }
    return oom_run_selects(c, row->the_case.id);
}

/* Running random numbers: the bits of a reference that makes the same calls are asked for, and not
 * the truth, which goes through the samples one by one. */
static enum oom_status run_on(struct oom_case *c) {
    if (c->mitigated.trainer.spec.dropout == 0) return OOM_OK; /* there are none */
    bool same_calls = c->bitwise && !c->mitigated.micro && c->mitigated.rule == OOM_RULE_FIXED;
    if (!same_calls) {
        return oom_fail(OOM_USAGE,
                        "--rng stateful: %s has dropout, and its reference makes other calls for "
                        "random numbers; allowed is keyed, or a choice of cases such as "
                        "checkpointing/checkpoint_*",
                        c->id);
    }
    c->mitigated.trainer.rng = c->unmitigated.trainer.rng = OOM_RNG_STATEFUL;
    if (c->has_guards) c->guards.trainer.rng = OOM_RNG_STATEFUL;
    c->bounded = false;
    return OOM_OK;
}

enum oom_status oom_run_docket(const struct oom_run_command *c, const struct oom_scenario *scenario,
                               struct oom_docket *out) {
    *out = (struct oom_docket){0};
    enum oom_status status = scenario->list(&c->options, out);
    if (status != OOM_OK) {
        oom_docket_free(out);
        return status;
    }
    int kept = 0;
    for (int i = 0; i < out->count; i++) {
        if (row_selected(c, &out->rows[i])) out->rows[kept++] = out->rows[i];
    }
    out->count = kept;
    for (int i = 0; i < kept && c->rng == OOM_RNG_STATEFUL && status == OOM_OK; i++) {
        if (out->rows[i].skip[0] == 0) status = run_on(&out->rows[i].the_case);
    }
    if (status != OOM_OK) oom_docket_free(out);
    return status;
}

const struct oom_scenario *oom_scenario_find(const char *name) {
    for (int i = 0; oom_scenarios[i] != NULL; i++) {
        if (strcmp(oom_scenarios[i]->name, name) == 0) return oom_scenarios[i];
    }
    return NULL;
}

void oom_run_announce(const struct oom_run_command *c, const struct oom_scenario_case *row,
                      struct oom_case_record *out) {
    memset(out, 0, sizeof *out);
    snprintf(out->id, sizeof out->id, "%s", row->the_case.id);
    bool spoilt = row->control != OOM_CONTROL_NONE; /* chosen by name it is judged as a case */
    out->is_control = spoilt && c->chosen_control == OOM_CONTROL_NONE;
    out->expected_false = spoilt && !out->is_control ? 0 : row->expected_false;
    if (row->skip[0] == 0) return;
    /* the user's model may make no such situation; the suite's own always must */
    out->outcome = c->model != NULL ? OOM_OUTCOME_SKIP : OOM_OUTCOME_ERROR;
    snprintf(out->reason, sizeof out->reason, "%s", row->skip);
}

double oom_run_timeout(const struct oom_run_command *c, const struct oom_scenario *scenario) {
    static const double a_day = 24 * 3600;
    if (c->timeout > 0) return c->timeout;
    if (c->options.injection.every) return a_day; /* as many runs as there are allocations */
    double scale = (double)c->capacity / (double)OOM_DEFAULT_CAPACITY;
    double slow = c->isa == OOM_ISA_BASE ? 80 : 30; /* emulated fma; a small, loaded machine */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    slow *= 20;
#endif
    return 600 + slow * scenario->seconds * (scale > 1 ? scale : 1);
}
