#include "scenarios/generators.h"

#include <stdio.h>
#include <string.h>

#define MIB ((uint64_t)1 << 20)

const struct oom_generator oom_generators[] = {
    {.name = "tail",
     .prose = "activations of just under 7 MiB: two fill a segment of 20 MiB, and 6 MiB are lost",
     .sized = OOM_SIZE_LAYERS,
     .share = 0.80,
     .spec = {.kind = OOM_MODEL_MLP, .width = 32, .rows = 896, .vocab = 16},
     .samples = 64,
     .micro_batches = 1,
     .steps = 4,
     .loop = {.lengths = OOM_LENGTHS_RISING, .low = 0.96, .rising_steps = 4}},
    {.name = "small tail",
     .prose = "the same in the small pool, for small devices: two of 0.7 MiB fill one of 2 MiB",
     .sized = OOM_SIZE_LAYERS,
     .share = 0.58,
     .spec = {.kind = OOM_MODEL_MLP, .width = 32, .rows = 89, .vocab = 16},
     .samples = 64,
     .micro_batches = 1,
     .steps = 4,
     .loop = {.lengths = OOM_LENGTHS_RISING, .low = 0.96, .rising_steps = 4}},
    {.name = "scores",
     .prose = "materialised attention scores, whose freed memory is cut for smaller tensors",
     .sized = OOM_SIZE_LENGTH,
     .share = 0.87,
     .spec = {.kind = OOM_MODEL_GPT,
              .layers = 1,
              .width = 32,
              .heads = 8,
              .vocab = 64,
              .attention = OOM_ATTENTION_SCORES},
     .samples = 64,
     .micro_batches = 2,
     .steps = 20,
     .loop = {.lengths = OOM_LENGTHS_DRAWN, .low = 0.8}},
    {.name = "survivors",
     .prose = "of the results of each batch one is kept, in the middle of what is cached",
     .sized = OOM_SIZE_LENGTH,
     .share = 0.75,
     .spec = {.kind = OOM_MODEL_MLP, .layers = 3, .width = 32, .vocab = 640},
     .samples = 8,
     .micro_batches = 1,
     .steps = 20,
     .loop = {.lengths = OOM_LENGTHS_DRAWN,
              .low = 0.9,
              .results = OOM_RESULTS_OF_BATCH,
              .result_count = 16,
              .result_bytes = 5 * MIB / 4}},
    {.name = "lengths",
     .prose = "texts of changing length: what is cached has the shapes of the last ones",
     .sized = OOM_SIZE_LENGTH,
     .share = 0.90,
     .spec = {.kind = OOM_MODEL_GPT, .layers = 2, .width = 16, .heads = 2, .vocab = 32},
     .samples = 2048,
     .micro_batches = 1,
     .steps = 20,
     .loop = {.lengths = OOM_LENGTHS_DRAWN, .low = 0.8}},
    {.name = "evaluation",
     .prose = "every fourth step begins with an evaluation of more samples",
     .sized = OOM_SIZE_LENGTH,
     .share = 0.88,
     .spec = {.kind = OOM_MODEL_GPT, .layers = 6, .width = 32, .heads = 4, .vocab = 256},
     .samples = 64,
     .micro_batches = 1,
     .steps = 16,
     .loop =
         {.lengths = OOM_LENGTHS_DRAWN, .low = 0.8, .evaluate_every = 4, .evaluate_samples = 96}},
    {.name = "powers",
     .prose = "sizes just below powers of two, micro-batches accumulated, beside frozen weights",
     .sized = OOM_SIZE_FROZEN,
     .share = 0.90,
     .spec = {.kind = OOM_MODEL_GPT, .layers = 1, .width = 32, .heads = 4, .vocab = 64},
     .samples = 256,
     .micro_batches = 4,
     .steps = 20,
     .loop = {.lengths = OOM_LENGTHS_DRAWN, .low = 0.76}},
    {.name = "classes",
     .prose = "eight layers and a large head, micro-batches accumulated",
     .sized = OOM_SIZE_LENGTH,
     .share = 0.88,
     .spec = {.kind = OOM_MODEL_GPT, .layers = 8, .width = 32, .heads = 4, .vocab = 1024},
     .samples = 64,
     .micro_batches = 4,
     .steps = 8,
     .loop = {.lengths = OOM_LENGTHS_DRAWN, .low = 0.9}},
    {.name = "checkpointed",
     .prose = "checkpoints lie in what the logits of the last micro-batch left behind",
     .sized = OOM_SIZE_LENGTH,
     .share = 0.84,
     .spec = {.kind = OOM_MODEL_GPT, .layers = 4, .width = 16, .heads = 2, .vocab = 512},
     .samples = 1024,
     .micro_batches = 2,
     .steps = 12,
     .loop = {.lengths = OOM_LENGTHS_DRAWN, .low = 0.8},
     .checkpointing = OOM_CHECKPOINTING_SQRT},
    {.name = "even",
     .prose = "lengths that hardly change, and no room for one more segment",
     .sized = OOM_SIZE_LENGTH,
     .share = 0.84,
     .spec = {.kind = OOM_MODEL_GPT, .layers = 7, .width = 16, .heads = 2, .vocab = 32},
     .samples = 512,
     .micro_batches = 2,
     .steps = 8,
     .loop = {.lengths = OOM_LENGTHS_DRAWN, .low = 0.95}},
    {.name = "visitor",
     .prose = "texts of changing length, then a consumer outside the allocator",
     .sized = OOM_SIZE_LENGTH,
     .share = 0.60,
     .spec = {.kind = OOM_MODEL_GPT, .layers = 1, .width = 32, .heads = 4, .vocab = 64},
     .samples = 256,
     .micro_batches = 1,
     .steps = 6,
     .loop = {.lengths = OOM_LENGTHS_DRAWN, .low = 0.8},
     .foreign_share = 0.50},
    {.name = "items",
     .prose = "statistics of each layer are kept, then comes an evaluation with two large tensors",
     .sized = OOM_SIZE_LAYERS,
     .share = 0.75,
     .spec = {.kind = OOM_MODEL_MLP, .width = 64, .rows = 2496, .vocab = 4},
     .samples = 32,
     .micro_batches = 1,
     .steps = 1,
     .loop = {.results = OOM_RESULTS_OF_LAYER,
              .result_bytes = 5 * MIB / 4,
              .evaluate_every = 1,
              .evaluate_after = true,
              .evaluate_samples = 1,
              .evaluate_rows = 1}},
};

const int oom_generator_count = sizeof oom_generators / sizeof oom_generators[0];

const struct oom_generator *oom_generator_find(const char *name) {
    for (int i = 0; i < oom_generator_count; i++) {
        if (strcmp(oom_generators[i].name, name) == 0) return &oom_generators[i];
    }
    return NULL;
}

/* ---- sizing ---- */

struct sizing {
    const struct oom_generator *generator;
    uint64_t capacity;
    struct oom_job job;
};

static int64_t *longest_of(struct oom_model_spec *spec) {
    return spec->kind == OOM_MODEL_GPT ? &spec->context : &spec->rows;
}

/* An activation of the largest power of two up to a 32nd of the capacity, and frozen tensors of
 * half of it, not below 16 MiB. */
static void set_frozen(struct sizing *s, int64_t size) {
    struct oom_model_spec *spec = &s->job.trainer.spec;
    uint64_t bytes = (uint64_t)1 << (63 - __builtin_clzll(s->capacity / 32));
    *longest_of(spec) = (int64_t)(bytes / 4) / (s->generator->samples * spec->width);
    s->job.loop.frozen = (int)size - 1;
    s->job.loop.frozen_bytes = bytes / 2 > 16 * MIB ? bytes / 2 : 16 * MIB;
}

/* Two tensors of an evaluation take what the kept results leave of the share. */
static void set_evaluation(struct sizing *s, int64_t layers) {
    struct oom_loop_options *loop = &s->job.loop;
    const struct oom_model_spec *spec = &s->job.trainer.spec;
    if (loop->evaluate_rows == 0) return;
    double kept = (double)layers * (double)loop->result_bytes + 16.0 * (double)MIB;
    double left = s->generator->share * (double)s->capacity - kept;
    int64_t rows = (int64_t)(left / 2 / 4) / spec->width;
    loop->evaluate_rows = rows > 0 ? rows : 1;
}

static void set_size(struct sizing *s, int64_t size) {
    struct oom_model_spec *spec = &s->job.trainer.spec;
    switch (s->generator->sized) {
    case OOM_SIZE_LENGTH:
        *longest_of(spec) = size;
        break;
    case OOM_SIZE_LAYERS:
        spec->layers = size;
        set_evaluation(s, size);
        break;
    case OOM_SIZE_FROZEN:
        set_frozen(s, size);
        break;
    }
}

static enum oom_status within_share(struct sizing *s, int64_t size, bool *yes) {
    struct oom_job job;
    struct oom_job_result result;
    set_size(s, size);
    job = s->job;
    job.capacity = OOM_PLAN_UNLIMITED;
    OOM_TRY(oom_job_run_dry(&job, &result));
    *yes = (double)result.peak_allocated <= s->generator->share * (double)s->capacity;
    return OOM_OK;
}

/* The largest size within the share: live bytes grow with it. */
static enum oom_status find_size(struct sizing *s) {
    int64_t low = 0, high = 1, most = s->generator->sized == OOM_SIZE_LENGTH ? 1 << 20 : 4096;
    if (s->generator->sized == OOM_SIZE_FROZEN) most = OOM_LOOP_FROZEN;
    bool yes = true;
    while (yes && high < most) {
        OOM_TRY(within_share(s, high, &yes));
        if (yes) {
            low = high;
            high *= 2;
        }
    }
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        OOM_TRY(within_share(s, middle, &yes));
        if (yes) {
            low = middle;
        } else {
            high = middle;
        }
    }
    if (low == 0) {
        return oom_fail(OOM_USAGE, "generator %s: at size 1 it needs more than %.2f of %llu bytes",
                        s->generator->name, s->generator->share, (unsigned long long)s->capacity);
    }
    set_size(s, low);
    return OOM_OK;
}

int64_t oom_generator_size(const struct oom_generator *g, const struct oom_job *job) {
    struct oom_model_spec spec = job->trainer.spec;
    if (g->sized == OOM_SIZE_FROZEN) return job->loop.frozen + 1;
    return g->sized == OOM_SIZE_LAYERS ? spec.layers : *longest_of(&spec);
}

enum oom_status oom_generator_job(const struct oom_situation *situation,
                                  const struct oom_generator *g, uint64_t capacity, uint64_t seed,
                                  int64_t size, struct oom_job *out) {
    struct oom_model_spec spec = g->spec;
    int64_t samples = g->samples * g->micro_batches;
    spec.batch = samples;
    struct sizing s = {.generator = g, .capacity = capacity};
    s.job = oom_situation_job(situation, &spec, samples, g->steps);
    s.job.most = g->samples;
    s.job.micro = g->micro_batches > 1;
    s.job.rule = OOM_RULE_FIXED;
    s.job.loop = g->loop;
    s.job.trainer.checkpointing = g->checkpointing;
    s.job.loop.seed = seed;
    struct oom_allocator_settings settings = s.job.settings;
    s.job.settings = oom_allocator_settings_default(); /* live bytes do not depend on them */
    if (size > 0) {
        set_size(&s, size);
    } else {
        OOM_TRY(find_size(&s));
    }
    s.job.settings = settings;
    s.job.capacity = capacity;
    s.job.foreign_between = (uint64_t)(g->foreign_share * (double)capacity) / OOM_PAGE * OOM_PAGE;
    s.job.foreign_step = g->steps - 1;
    *out = s.job;
    return OOM_OK;
}
