#include "scenarios/situation.h"

#include "kernels/hostmem.h"

#include <stdio.h>
#include <string.h>

enum { LAYERS_MOST = 512 };

/* ---- models ---- */

/* Narrow models give many bytes for little arithmetic, which is what a simulated device on a CPU
 * needs. Samples are as long as it takes to keep the depth below DEEP: a deep net of narrow layers
 * carries the rounding of all those before it into each gradient. */
enum { DEEP = 24, LONGEST_CONTEXT = 512, MOST_ROWS = 16384, LARGEST_IMAGE = 256 };

static struct oom_model_spec shape_of(uint64_t capacity, enum oom_model_kind kind) {
    struct oom_model_spec spec = oom_model_spec_default(kind);
    bool small = capacity <= OOM_SMALL_CAPACITY;
    spec.width = small ? 32 : 64;
    spec.heads = kind == OOM_MODEL_GPT ? (small ? 4 : 8) : spec.heads;
    spec.context = kind == OOM_MODEL_GPT ? 64 : spec.context;
    spec.rows = kind == OOM_MODEL_MLP ? 128 : spec.rows;
    if (kind == OOM_MODEL_CNN) spec.width = 8;
    return spec;
}

/* Twice as long samples; false when they are as long as they may be. */
static bool lengthen(struct oom_model_spec *spec) {
    const struct {
        int64_t *length, most;
    } of[OOM_MODEL_COUNT] = {
        [OOM_MODEL_MLP] = {&spec->rows, MOST_ROWS},
        [OOM_MODEL_GPT] = {&spec->context, LONGEST_CONTEXT},
        [OOM_MODEL_CNN] = {&spec->image, LARGEST_IMAGE},
    };
    int64_t *length = of[spec->kind].length;
    if (*length * 2 > of[spec->kind].most) return false;
    *length *= 2;
    return true;
}

/* The least number of layers that can be added: each stage of cnn has as many. */
static int64_t layers_at_once(const struct oom_model_spec *spec) {
    return spec->kind == OOM_MODEL_CNN ? spec->stages : 1;
}

static enum oom_status reserved_of(const struct oom_run_options *options,
                                   const struct oom_model_spec *spec, int64_t batch,
                                   uint64_t *bytes) {
    struct oom_plan_request request = {
        .trainer = {.spec = *spec, .seed = options->seed, .optimizer = OOM_OPTIMIZER_ADAMW},
        .settings = options->settings,
        .capacity = OOM_PLAN_UNLIMITED,
        .samples = batch,
        .size = batch,
        .steps = 1};
    struct oom_plan plan;
    OOM_TRY(oom_plan_run(&request, &plan));
    *bytes = plan.peak_reserved;
    return OOM_OK;
}

/* By doubling and bisection: bytes grow with layers. */
static enum oom_status search_depth(const struct oom_run_options *options, int64_t batch,
                                    double need, struct oom_model_spec *spec) {
    double wanted = need * (double)options->capacity;
    int64_t low = 0, high = 1, unit = layers_at_once(spec);
    for (uint64_t bytes = 0; high * unit < LAYERS_MOST; low = high, high *= 2) {
        spec->layers = high * unit;
        OOM_TRY(reserved_of(options, spec, batch, &bytes));
        if ((double)bytes >= wanted) break;
    }
    while (high - low > 1) {
        uint64_t bytes = 0;
        int64_t middle = low + (high - low) / 2;
        spec->layers = middle * unit;
        OOM_TRY(reserved_of(options, spec, batch, &bytes));
        if ((double)bytes >= wanted) {
            high = middle;
        } else {
            low = middle;
        }
    }
    spec->layers = high * unit;
    return OOM_OK;
}

enum oom_status oom_situation_depth(const struct oom_situation *s, int64_t batch, double need,
                                    struct oom_model_spec *spec) {
    do {
        OOM_TRY(search_depth(s->options, batch, need, spec));
    } while (spec->layers > DEEP && lengthen(spec));
    return OOM_OK;
}

struct oom_model_spec oom_situation_shape(const struct oom_situation *s, enum oom_model_kind kind) {
    return shape_of(s->options->capacity, kind);
}

static bool same_shape(const struct oom_model_spec *a, const struct oom_model_spec *b) {
    char left[OOM_SPEC_TEXT_MAX], right[OOM_SPEC_TEXT_MAX];
    oom_model_spec_text(a, left);
    oom_model_spec_text(b, right);
    return strcmp(left, right) == 0;
}

enum oom_status oom_situation_model(struct oom_situation *s, enum oom_model_kind kind,
                                    int64_t batch, double need, struct oom_model_spec *out) {
    struct oom_model_spec shape = oom_situation_shape(s, kind);
    return oom_situation_model_of(s, &shape, batch, need, out);
}

enum oom_status oom_situation_model_of(struct oom_situation *s, const struct oom_model_spec *shape,
                                       int64_t batch, double need, struct oom_model_spec *out) {
    struct oom_model_spec spec = *shape;
    spec.batch = batch;
    const struct oom_model_spec asked = spec;
    for (int i = 0; i < s->remembered; i++) {
        if (s->specs[i].need == need && same_shape(&s->specs[i].asked, &asked)) {
            *out = s->specs[i].spec;
            return OOM_OK;
        }
    }
    if (s->options->model != NULL) OOM_TRY(oom_model_spec_override(s->options->model, &spec));
    OOM_TRY(oom_situation_depth(s, batch, need, &spec));
    if (s->options->model != NULL) { /* its keys win over longer samples; then the depth follows */
        OOM_TRY(oom_model_spec_override(s->options->model, &spec));
        OOM_TRY(search_depth(s->options, batch, need, &spec));
        OOM_TRY(oom_model_spec_override(s->options->model, &spec));
    }
    if (s->remembered < OOM_SPECS_REMEMBERED) {
        int at = s->remembered++;
        s->specs[at].asked = asked;
        s->specs[at].need = need;
        s->specs[at].spec = spec;
    }
    *out = spec;
    return OOM_OK;
}

/* ---- jobs ---- */

struct oom_job oom_situation_job(const struct oom_situation *s, const struct oom_model_spec *spec,
                                 int64_t samples, int steps) {
    const struct oom_run_options *options = s->options;
    struct oom_job job;
    memset(&job, 0, sizeof job);
    snprintf(job.device, sizeof job.device, "%s", options->device);
    job.capacity = options->capacity;
    job.schedule = options->schedule;
    job.isa = options->isa;
    job.threads = options->threads;
    job.settings = options->settings;
    job.trainer.spec = *spec;
    job.trainer.seed = options->seed;
    job.trainer.optimizer = OOM_OPTIMIZER_ADAMW;
    if (options->data != NULL) snprintf(job.data, sizeof job.data, "%s", options->data);
    job.dtype = OOM_F32;
    job.steps = steps;
    job.samples = job.most = samples;
    job.distinct = options->quick ? 8 : options->full ? 64 : 16;
    return job;
}

void oom_situation_case(struct oom_case *out, const struct oom_job *mitigated,
                        const struct oom_job *unmitigated, double need) {
    out->mitigated = *mitigated;
    out->unmitigated = *unmitigated;
    out->bitwise = out->bounded = true;
    out->need = need;
}

/* ---- on the dry device ---- */

enum oom_status oom_situation_need(const struct oom_job *job, uint64_t *bytes) {
    struct oom_job unlimited = *job;
    struct oom_job_result result;
    unlimited.capacity = OOM_PLAN_UNLIMITED;
    OOM_TRY(oom_job_run_dry(&unlimited, &result));
    *bytes = result.peak_reserved;
    return OOM_OK;
}

/* The capacities of one size, in pages from half its need on. */
static enum oom_status
place_at_size(struct oom_job *job, bool (*wanted)(const struct oom_attempt *failure), bool *found) {
    uint64_t need = 0;
    OOM_TRY(oom_situation_need(job, &need));
    for (job->capacity = need / 2 / OOM_PAGE * OOM_PAGE; job->capacity <= need;
         job->capacity += OOM_PAGE) {
        struct oom_job_result result;
        OOM_TRY(oom_job_run_dry(job, &result));
        bool whole = result.status == OOM_OK && result.steps_done == job->steps;
        bool failed = result.attempt_count > 0 && result.attempts[0].status == OOM_NOMEM;
        *found = whole && failed && wanted(&result.attempts[0]);
        if (*found) break;
    }
    return OOM_OK;
}

enum oom_status oom_situation_place(struct oom_job *job,
                                    bool (*wanted)(const struct oom_attempt *failure),
                                    const char *what) {
    int64_t most = job->most, step = most / 16 > 0 ? most / 16 : 1;
    for (int64_t size = most; size > most / 4; size -= step) {
        struct oom_job here = *job;
        bool found = false;
        here.most = size;
        if (!here.micro) here.samples = size;
        OOM_TRY(place_at_size(&here, wanted, &found));
        if (!found) continue;
        *job = here;
        return OOM_OK;
    }
    return oom_fail(OOM_USAGE, "%s: with this model no batch and capacity put the first OOM there",
                    what);
}

bool oom_place_backward(const struct oom_attempt *failure) {
    return failure->phase == OOM_PHASE_BACKWARD && failure->gradients_written > 0 &&
           failure->micro_batch == 0;
}

bool oom_place_later_micro_batch(const struct oom_attempt *failure) {
    return failure->micro_batch > 0 && failure->phase != OOM_PHASE_OPTIMIZER;
}

bool oom_place_optimizer(const struct oom_attempt *failure) {
    return failure->phase == OOM_PHASE_OPTIMIZER;
}

/* ---- docket ---- */

struct oom_scenario_case *oom_docket_add(struct oom_docket *docket) {
    if (docket->count == docket->capacity) {
        int capacity = docket->capacity == 0 ? 16 : 2 * docket->capacity;
        struct oom_scenario_case *rows =
            oom_host_realloc(docket->rows, (size_t)capacity * sizeof *rows);
        if (rows == NULL) return NULL;
        docket->rows = rows;
        docket->capacity = capacity;
    }
    struct oom_scenario_case *row = &docket->rows[docket->count++];
    memset(row, 0, sizeof *row);
    return row;
}

void oom_docket_free(struct oom_docket *docket) {
    oom_host_free(docket->rows);
    *docket = (struct oom_docket){0};
}

/* ---- from the tables to the docket ---- */

struct listing {
    const char *scenario;
    const struct oom_row *rows;
    const struct oom_run_options *options;
    struct oom_run_options small_options;
    struct oom_situation asked, small; /* the capacity asked for, and --quick's */
    struct oom_docket *docket;
};

static bool model_wanted(const struct oom_run_options *options, enum oom_model_kind kind) {
    const char *name = oom_model_name(kind), *text = options->model;
    size_t n = strlen(name);
    return text == NULL || (strncmp(text, name, n) == 0 && (text[n] == 0 || text[n] == ','));
}

static enum oom_status add(struct listing *l, struct oom_scenario_case **out) {
    *out = oom_docket_add(l->docket);
    if (*out != NULL) return OOM_OK;
    return oom_fail(OOM_HOST_NOMEM, "the list of cases of %s", l->scenario);
}

/* Guards take room of their own, and shift what shares a segment: as much more capacity as the job
 * needs to come to its end with them. */
static enum oom_status make_room_for_guards(struct oom_job *job) {
    uint64_t step = job->capacity / 16 / OOM_PAGE * OOM_PAGE + OOM_PAGE;
    job->settings.guard_bytes = OOM_GRANULE;
    for (int tries = 0; tries < 32; tries++, job->capacity += step) {
        struct oom_job_result result;
        OOM_TRY(oom_job_run_dry(job, &result));
        if (result.status == OOM_OK) return OOM_OK;
    }
    return oom_fail(OOM_USAGE, "the guards pass fits at no capacity up to %llu bytes",
                    (unsigned long long)job->capacity);
}

/* A situation that these options cannot make costs its own row only: it is skipped, and says why.
 */
static enum oom_status skip_if_unfit(enum oom_status status, struct oom_scenario_case *added) {
    if (status != OOM_USAGE) return status;
    snprintf(added->skip, sizeof added->skip, "%.200s", oom_failure_last()->message);
    oom_failure_clear();
    return OOM_OK;
}

static void name_row(const struct listing *l, const struct oom_row *row, struct oom_case *c) {
    enum oom_dtype dtype = oom_job_precision(&c->mitigated);
    snprintf(c->id, sizeof c->id, "%s/%s/%s/%s%s%s", l->scenario, row->mitigation,
             oom_model_name(row->model), oom_dtype_name(dtype), row->variant != NULL ? "/" : "",
             row->variant != NULL ? row->variant : "");
}

static enum oom_status add_row(struct listing *l, const struct oom_row *row) {
    struct oom_scenario_case *added;
    struct oom_case guards;
    memset(&guards, 0, sizeof guards);
    OOM_TRY(add(l, &added));
    struct oom_case *c = &added->the_case;
    enum oom_status status = row->make(row->small ? &l->small : &l->asked, row, c);
    name_row(l, row, c);
    if (row->unequal != NULL) {
        snprintf(c->unequal, sizeof c->unequal, "%s", row->unequal);
        added->expected_false = OOM_BITS_GRADS;
    }
    if (row->table || row->unguarded) return skip_if_unfit(status, added);
    if (status == OOM_OK) status = row->make(&l->small, row, &guards);
    c->guards = guards.mitigated;
    c->has_guards = true;
    if (status == OOM_OK) status = make_room_for_guards(&c->guards);
    return skip_if_unfit(status, added);
}

static bool same(const char *a, const char *b) {
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static enum oom_status add_twin(struct listing *l, const struct oom_twin *twin) {
    const struct oom_row *row = l->rows;
    while (row->make != NULL &&
           !(same(row->mitigation, twin->mitigation) && same(row->variant, twin->variant) &&
             model_wanted(l->options, row->model))) {
        row++;
    }
    if (row->make == NULL) return OOM_OK; /* --model named another */
    struct oom_scenario_case *added;
    OOM_TRY(add(l, &added));
    enum oom_status status = row->make(&l->small, row, &added->the_case);
    snprintf(added->the_case.id, sizeof added->the_case.id, "%s/%s/control/%s", l->scenario,
             twin->mitigation, oom_control_name(twin->control));
    added->control = twin->control;
    added->expected_false = twin->expected_false;
    return skip_if_unfit(status, added);
}

enum oom_status oom_situation_list(const char *scenario, const struct oom_row *rows,
                                   const struct oom_twin *twins,
                                   const struct oom_run_options *options,
                                   struct oom_docket *docket) {
    struct listing l = {.scenario = scenario, .rows = rows, .options = options, .docket = docket};
    l.small_options = *options;
    l.small_options.quick = true;
    if (l.small_options.capacity > OOM_SMALL_CAPACITY) {
        l.small_options.capacity = OOM_SMALL_CAPACITY;
    }
    l.asked.options = options;
    l.small.options = &l.small_options;
    for (const struct oom_row *row = rows; row->make != NULL; row++) {
        bool left_out = (options->quick && !row->quick) || (row->full && !options->full);
        if (!model_wanted(options, row->model) || left_out) continue;
        OOM_TRY(add_row(&l, row));
    }
    for (const struct oom_twin *twin = twins; twin->mitigation != NULL; twin++) {
        OOM_TRY(add_twin(&l, twin));
    }
    return OOM_OK;
}
