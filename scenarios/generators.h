/*
 * generators.h: training loops that fragment memory: each is an ordinary step repeated, and one
 * ordinary habit (lengths that change, results that are kept, evaluations in between).
 *
 * A generator has one size, found so that the peak of live bytes is a given share of the capacity:
 * the device is large enough, and what fails, fails for the shape of the free memory alone.
 */
#ifndef OOM_SCENARIOS_GENERATORS_H
#define OOM_SCENARIOS_GENERATORS_H

#include "scenarios/situation.h"

/* What is sized. */
enum oom_generator_size {
    OOM_SIZE_LENGTH, /* rows of the longest sample */
    OOM_SIZE_LAYERS,
    OOM_SIZE_FROZEN, /* tensors of a frozen part; samples as long as a power of two allows */
};

struct oom_generator {
    const char *name, *prose;
    enum oom_generator_size sized;
    double share; /* of the capacity: peak of live bytes */
    struct oom_model_spec spec;
    int64_t samples;   /* of a micro-batch */
    int micro_batches; /* of a step */
    int steps;
    struct oom_loop_options loop;
    enum oom_checkpointing checkpointing;
    double foreign_share; /* of the capacity: another consumer wants it after the last step */
};

extern const struct oom_generator oom_generators[];
extern const int oom_generator_count;

/* NULL: no generator of that name. */
const struct oom_generator *oom_generator_find(const char *name);

/* The job of this generator for `capacity` and this seed, at this size (0: the largest that keeps
 * within the share, found on the dry device). Its settings are the situation's. OOM_USAGE: not even
 * size 1 keeps within it. */
enum oom_status oom_generator_job(const struct oom_situation *situation,
                                  const struct oom_generator *generator, uint64_t capacity,
                                  uint64_t seed, int64_t size, struct oom_job *out);

/* The size of a generator's job. */
int64_t oom_generator_size(const struct oom_generator *generator, const struct oom_job *job);

#endif
