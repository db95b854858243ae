/*
 * grad.c: `oombench grad`: one training step of a model on the host device, from weights and a
 * batch in a file to loss, outputs and gradients in a file, so that others can check them.
 */
#include "harness/cli/cli.h"

#include "harness/base/options.h"
#include "harness/base/sizes.h"
#include "harness/base/text.h"
#include "harness/bench/sampler.h"
#include "harness/cli/capabilities.h"
#include "harness/train/accumulate.h"
#include "harness/train/given.h"
#include "harness/train/model-json.h"
#include "harness/train/plan.h"
#include "harness/verify/witness.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the options ---- */

struct grad_command {
    const char *model, *model_json, *init, *weights, *batch, *out;
    uint64_t seed, capacity;
    int dtype, amp, micro, threads, isa, time;
    bool sgd, help;
};

static const char *const dtype_names[] = {"f32", "f64", NULL};
static const enum oom_dtype dtypes[] = {OOM_F32, OOM_F64};
enum { DTYPE_UNSAID = -1 };
static const char *const amp_names[] = {
    [OOM_AMP_OFF] = "off", [OOM_AMP_F16] = "f16", [OOM_AMP_BF16] = "bf16", NULL};

#define NAME_OF(id, name, ...) name,
static const char *const isa_names[] = {OOM_ISA_MAP(NAME_OF) NULL};
#undef NAME_OF

#define AT(field) .offset = offsetof(struct grad_command, field)
static const struct oom_option rows[] = {
    {"seed", 0, OOM_OPTION_UINT64, AT(seed), .fallback = "1", .environment = "OOMBENCH_SEED",
     .help = "of weights and batch, where no file gives them, and of dropout"},
    {"model", 'm', OOM_OPTION_TEXT, AT(model), .metavar = "MODEL",
     .help = "such as gpt,layers=2,width=32,batch=4; where neither this nor --model-json is given, "
             "model, dtype and seed are those that the file of weights names"},
    {"model-json", 0, OOM_OPTION_PATH, AT(model_json), .metavar = "FILE",
     .help = "the same keys as JSON: {\"model\": \"gpt\", \"layers\": 2}"},
    {"dtype", 0, OOM_OPTION_CHOICE, AT(dtype), .names = dtype_names,
     .help = "of numbers in files and in the computation: f32 (default), f64"},
    {"amp", 0, OOM_OPTION_CHOICE, AT(amp), .names = amp_names, .fallback = "off",
     .help = "mixed precision beside f32; f16 scales the loss, and repeats the step where that "
             "overflows"},
    {"init", 0, OOM_OPTION_PATH, AT(init), .metavar = "FILE",
     .help = "writes seeded weights and a seeded batch, and computes nothing"},
    {"weights", 'w', OOM_OPTION_PATH, AT(weights), .metavar = "FILE",
     .help = "weights, and the batch where --batch is not given"},
    {"batch", 'b', OOM_OPTION_PATH, AT(batch), .metavar = "FILE", .help = "the batch"},
    {"out", 'o', OOM_OPTION_PATH, AT(out), .metavar = "FILE",
     .help = "loss, outputs, gradients, and which way each ReLU went"},
    {"micro", 0, OOM_OPTION_INT, AT(micro), .min = 0, .max = 1048576, .fallback = "0",
     .metavar = "N", .help = "accumulate over micro-batches of N samples; 0: the batch in one"},
    {"capacity", 'c', OOM_OPTION_SIZE, AT(capacity), .fallback = "0",
     .environment = "OOMBENCH_CAPACITY",
     .help = "memory of the device; 0: ample, by a dry run. Too little is exit 1."},
    {"threads", 't', OOM_OPTION_INT, AT(threads), .min = 0, .max = 1024, .fallback = "0",
     .help = "0: as many as this process may use; results do not depend on it"},
    {"isa", 0, OOM_OPTION_CHOICE, AT(isa), .names = isa_names, .fallback = "auto",
     .help = "instruction set of the host kernels; results do not depend on it"},
    {"time", 0, OOM_OPTION_INT, AT(time), .min = 0, .max = 1000000, .fallback = "0", .metavar = "N",
     .help = "after the first step, takes the time of N more, updates included"},
    {"sgd", 0, OOM_OPTION_FLAG, AT(sgd), .help = "their updates are SGD's (default: AdamW's)"},
    {"help", 'h', OOM_OPTION_FLAG, AT(help), .help = "this list"},
};
#undef AT
enum { ROWS = sizeof rows / sizeof rows[0], SEED_ROW = 0 };

enum { NUMBER = 24, INIT_ENTRIES = 4, ENTRIES = 8, STEPS_MAX = 64 };

struct grad {
    struct grad_command command;
    bool seed_said;
    struct oom_safetensors weights, batch; /* closed where there is no such file */
    struct oom_trainer_options options;
    enum oom_dtype dtype;
    char model[OOM_SPEC_TEXT_MAX], seed[NUMBER], micro[NUMBER], step[NUMBER], scale[NUMBER];

    struct oom_source source;
    struct oom_given given;
    struct oom_window window;
    struct oom_session session;
    struct oom_trainer *trainer;
    struct oom_witness witness;
    bool running; /* nothing more is wrong with what was asked */
    bool ready;   /* gradients were there, and finite where a scaler asks for that */
    double loss;
};

/* ---- what is asked ---- */

static enum oom_status check_command(const struct grad_command *c) {
    if (c->model != NULL && c->model_json != NULL) {
        return oom_fail(OOM_USAGE, "--model and --model-json: one of them");
    }
    if (c->init != NULL && (c->weights || c->batch || c->out || c->time > 0)) {
        return oom_fail(OOM_USAGE, "--init writes seeded weights and batch, and nothing else: it "
                                   "goes with none of --weights, --batch, --out, --time");
    }
    if (c->init == NULL && c->out == NULL && c->time == 0) {
        return oom_fail(OOM_USAGE, "nothing is asked: --init FILE writes weights and a batch, "
                                   "--out FILE gradients");
    }
    return OOM_OK;
}

/* Found before anything is computed. */
static enum oom_status check_target(const char *path) {
    struct oom_file_writer writer;
    if (path == NULL) return OOM_OK;
    OOM_TRY(oom_file_writer_open(&writer, path));
    oom_file_writer_abandon(&writer);
    return OOM_OK;
}

static enum oom_status open_files(struct grad *g) {
    const struct grad_command *c = &g->command;
    OOM_TRY(check_target(c->init != NULL ? c->init : c->out));
    if (c->weights != NULL) OOM_TRY(oom_safetensors_open(c->weights, &g->weights));
    if (c->batch != NULL) OOM_TRY(oom_safetensors_open(c->batch, &g->batch));
    return OOM_OK;
}

static enum oom_status read_model(struct grad *g, const char **dtype, const char **seed) {
    const struct grad_command *c = &g->command;
    struct oom_model_spec *spec = &g->options.spec;
    *dtype = *seed = NULL;
    if (c->model != NULL) return oom_model_spec_parse(c->model, spec);
    if (c->model_json != NULL) return oom_model_json_read(c->model_json, spec);
    const char *model = oom_safetensors_metadata(&g->weights, "model");
    if (model == NULL) {
        return oom_fail(OOM_USAGE, "a model is needed: --model, --model-json, or a file of weights "
                                   "with \"model\" in its metadata");
    }
    *dtype = oom_safetensors_metadata(&g->weights, "dtype");
    *seed = oom_safetensors_metadata(&g->weights, "seed");
    return oom_model_spec_parse(model, spec);
}

static enum oom_status take_dtype(struct grad *g, const char *name) {
    int chosen = g->command.dtype;
    for (int i = 0; chosen == DTYPE_UNSAID && name != NULL && dtype_names[i] != NULL; i++) {
        if (strcmp(name, dtype_names[i]) == 0) chosen = i;
    }
    if (chosen == DTYPE_UNSAID && name != NULL) {
        return oom_fail(OOM_USAGE, "%.80s: metadata \"dtype\" is '%.20s'; expected f32 or f64",
                        g->command.weights, name);
    }
    g->dtype = dtypes[chosen == DTYPE_UNSAID ? 0 : chosen];
    return OOM_OK;
}

static enum oom_status take_seed(struct grad *g, const char *text) {
    g->options.seed = g->command.seed;
    if (g->seed_said || text == NULL) return OOM_OK;
    errno = 0;
    bool digits = *text != 0 && text[strspn(text, "0123456789")] == 0;
    g->options.seed = strtoull(text, NULL, 10);
    if (digits && errno == 0) return OOM_OK;
    return oom_fail(OOM_USAGE,
                    "%.80s: metadata \"seed\" is '%.20s'; expected a whole number to %" PRIu64,
                    g->command.weights, text, UINT64_MAX);
}

static enum oom_status take_options(struct grad *g) {
    const char *dtype, *seed;
    OOM_TRY(read_model(g, &dtype, &seed));
    OOM_TRY(take_dtype(g, dtype));
    OOM_TRY(take_seed(g, seed));
    g->options.gradients = OOM_GRADIENTS_ZEROED;
    g->options.amp = (enum oom_amp)g->command.amp;
    g->options.optimizer = g->command.sgd ? OOM_OPTIMIZER_SGD : OOM_OPTIMIZER_ADAMW;
    oom_model_spec_text(&g->options.spec, g->model);
    snprintf(g->seed, sizeof g->seed, "%" PRIu64, g->options.seed);
    snprintf(g->micro, sizeof g->micro, "%d", g->command.micro);
    return OOM_OK;
}

/* ---- the device, the model and its data ---- */

/* The plan is f32's; f64 takes no more than twice as much. */
static enum oom_status choose_capacity(const struct grad *g, uint64_t *out) {
    const struct grad_command *c = &g->command;
    struct oom_plan_request request = {.trainer = g->options,
                                       .settings = oom_allocator_settings_default(),
                                       .capacity = OOM_PLAN_UNLIMITED,
                                       .samples = g->options.spec.batch,
                                       .size = c->micro > 0 ? c->micro : g->options.spec.batch,
                                       .micro = c->micro > 0,
                                       .steps = 2};
    struct oom_plan plan;
    *out = c->capacity;
    if (c->capacity > 0) return OOM_OK;
    OOM_TRY(oom_plan_run(&request, &plan));
    if (!plan.fits) return oom_fail(OOM_USAGE, "the step needs more than any machine has");
    *out = 2 * plan.peak_device + (64u << 20);
    return OOM_OK;
}

static enum oom_status open_session(struct grad *g) {
    struct oom_device_options device = {.isa = (enum oom_isa)g->command.isa,
                                        .threads = g->command.threads};
    struct oom_allocator_settings settings = oom_allocator_settings_default();
    settings.trace_entries = 0;
    g->session.dtype = g->dtype;
    OOM_TRY(choose_capacity(g, &device.capacity));
    OOM_TRY(oom_host_open(&device, &g->session.device));
    OOM_TRY(oom_allocator_create(g->session.device, &settings, &g->session.allocator));
    return oom_trainer_create(&g->session, &g->options, &g->trainer);
}

static enum oom_status take_given(struct grad *g) {
    const struct grad_command *c = &g->command;
    const struct oom_model_spec *spec = &g->trainer->options.spec;
    oom_window_init(&g->window, spec, &g->source, spec->batch, spec->batch, false);
    if (c->weights != NULL) {
        OOM_TRY(oom_given_only(g->trainer, &g->weights));
        OOM_TRY(oom_given_weights(g->trainer, &g->weights));
    }
    if (c->batch != NULL) OOM_TRY(oom_given_only(g->trainer, &g->batch));
    if (c->weights == NULL && c->batch == NULL) return OOM_OK;
    const struct oom_safetensors *file = c->batch != NULL ? &g->batch : &g->weights;
    OOM_TRY(oom_given_batch(file, spec, oom_dtype_wide(g->dtype), &g->given));
    oom_given_window(&g->given, spec, &g->source, &g->window);
    return OOM_OK;
}

/* ---- the step ---- */

static struct oom_metadata metadata_of(const struct grad *g,
                                       struct oom_safetensors_entry entries[ENTRIES]) {
    const struct oom_safetensors_entry all[ENTRIES] = {
        {"model", g->model}, {"dtype", oom_dtype_name(g->dtype)},
        {"seed", g->seed},   {"oombench", oom_version()},
        {"micro", g->micro}, {"amp", amp_names[g->command.amp]},
        {"step", g->step},   {"scale", g->scale},
    };
    memcpy(entries, all, sizeof all);
    return (struct oom_metadata){entries, g->command.init != NULL ? INIT_ENTRIES : ENTRIES};
}

static enum oom_status gradients_ready(void *context, struct oom_trainer *trainer,
                                       const struct oom_window *window) {
    struct grad *g = context;
    struct oom_safetensors_entry entries[ENTRIES];
    (void)window;
    if (trainer->scaler.found) return OOM_OK; /* the step is left out */
    g->ready = true;
    snprintf(g->step, sizeof g->step, "%" PRIu32, trainer->rng_step);
    snprintf(g->scale, sizeof g->scale, "%.9g", (double)trainer->scaler.scale);
    OOM_TRY(oom_trainer_read_loss(trainer, &g->loss));
    if (g->command.out == NULL) return OOM_OK;
    return oom_witness_write(&g->witness, metadata_of(g, entries), g->command.out);
}

static struct oom_cut cut_of(const struct grad *g) {
    return (struct oom_cut){g->command.micro > 0 ? g->command.micro : g->window.samples, false};
}

/* With a scaler a step is left out, and its scale halved, while gradients overflow. */
static enum oom_status run_steps(struct grad *g) {
    struct oom_gradients_ready ready = {g, gradients_ready};
    for (int i = 0; i < STEPS_MAX && !g->ready; i++) {
        OOM_TRY(oom_window_run(g->trainer, &g->window, cut_of(g), ready));
    }
    if (g->ready) return OOM_OK;
    return oom_fail(OOM_USAGE,
                    "gradients are not finite at any loss scale down to %g: the weights "
                    "or the batch are too large",
                    (double)g->trainer->scaler.scale);
}

static enum oom_status run_witnessed(struct grad *g) {
    enum oom_status status = oom_witness_begin(&g->witness, g->trainer);
    if (status == OOM_OK) status = run_steps(g);
    oom_witness_end(&g->witness);
    return status;
}

/* Reading the loss waits until all is done. */
static enum oom_status timed_step(void *context) {
    struct grad *g = context;
    double loss;
    OOM_TRY(oom_window_run(g->trainer, &g->window, cut_of(g), (struct oom_gradients_ready){0}));
    return oom_trainer_read_loss(g->trainer, &loss);
}

static enum oom_status take_time(struct grad *g) {
    struct oom_sampler_entry entry = {.name = "step", .context = g, .work = timed_step};
    struct oom_sampler_options options = oom_sampler_options_default();
    struct oom_samples samples;
    struct oom_spread spread;
    options.warmup = 0;
    options.least = options.most = g->command.time;
    OOM_TRY(oom_sampler_run(&entry, 1, &options, &samples));
    enum oom_status status = oom_samples_spread(&samples, 0, &spread);
    oom_samples_free(&samples);
    OOM_TRY(status);
    printf("step      median %.9f s, least %.9f s, of %d: forward, backward, %s\n", spread.median,
           spread.least, spread.count, g->command.sgd ? "SGD" : "AdamW");
    return OOM_OK;
}

static enum oom_status compute(struct grad *g) {
    OOM_TRY(run_witnessed(g));
    printf("loss      %.17g\n", g->loss);
    if (!isfinite(g->loss)) fprintf(stderr, "oombench grad: the loss is not finite\n");
    if (g->command.out != NULL) {
        printf("gradients of %d parameters in %s\n", g->trainer->parameter_count, g->command.out);
    }
    return g->command.time > 0 ? take_time(g) : OOM_OK;
}

static enum oom_status run(struct grad *g) {
    struct oom_safetensors_entry entries[ENTRIES];
    OOM_TRY(check_command(&g->command));
    OOM_TRY(open_files(g));
    OOM_TRY(take_options(g));
    g->source = (struct oom_source){.seed = g->options.seed, .file = -1};
    OOM_TRY(open_session(g));
    OOM_TRY(take_given(g));
    g->running = true;
    if (g->command.init == NULL) return compute(g);
    return oom_witness_write_given(g->trainer, &g->window, metadata_of(g, entries),
                                   g->command.init);
}

static int finish(struct grad *g, enum oom_status status) {
    oom_trainer_destroy(g->trainer);
    oom_allocator_destroy(g->session.allocator);
    oom_device_close(g->session.device);
    oom_safetensors_close(&g->weights);
    oom_safetensors_close(&g->batch);
    if (status == OOM_OK) return OOM_EXIT_OK;
    int code = oom_exit_for(status, "grad");
    if (status == OOM_NOMEM) return OOM_EXIT_FAILED;
    return status == OOM_IO && !g->running ? OOM_EXIT_USAGE : code; /* what was named is wrong */
}

int oom_verb_grad(int argc, char **argv) {
    enum { OPERANDS_MAX = 64 };
    const char *operands[OPERANDS_MAX];
    enum oom_option_source sources[ROWS];
    const struct oom_options table = {rows, ROWS};
    struct grad g = {.command.dtype = DTYPE_UNSAID, .source.file = -1};
    int count = 0;
    enum oom_status status = OOM_OK;
    if (argc > OPERANDS_MAX) status = oom_fail(OOM_USAGE, "more than %d arguments", OPERANDS_MAX);
    if (status == OOM_OK) {
        status = oom_options_parse(&table, argc, argv, &g.command, operands, &count, sources);
    }
    if (status == OOM_OK && g.command.help) {
        printf("usage: oombench grad --model MODEL --init FILE [options]\n"
               "       oombench grad --weights FILE [--batch FILE] --out FILE [options]\n\n");
        oom_options_help(&table, stdout, oom_terminal_columns(1));
        return OOM_EXIT_OK;
    }
    if (status == OOM_OK && count > 0) {
        status = oom_fail(OOM_USAGE, "'%s': only options are taken, such as --model", operands[0]);
    }
    if (status == OOM_OK) {
        g.seed_said = sources[SEED_ROW] != OOM_SOURCE_DEFAULT;
        status = run(&g);
    }
    return finish(&g, status);
}
