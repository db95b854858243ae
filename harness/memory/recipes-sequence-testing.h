/*
 * recipes-sequence-testing.h: for tests only: what a recipe is (recipes-testing.h), and the
 * sequence of events that it makes: tensors taken and given back, steps, what stays after the first
 * one.
 *
 * The events are this file's own and last until the next sequence is made.
 */
#ifndef OOM_HARNESS_MEMORY_RECIPES_SEQUENCE_TESTING_H
#define OOM_HARNESS_MEMORY_RECIPES_SEQUENCE_TESTING_H

#include "harness/base/rng.h"
#include "harness/memory/allocator.h"
#include "kernels/testing.h"

#include <math.h>
#include <string.h>

enum {
    RECIPE_EVENTS = 1 << 17,
    RECIPE_TENSORS = 1 << 16,
    RECIPE_PARAMETERS = 1 << 12,
    RECIPE_ITEMS = 1 << 11,
};
static const uint64_t RECIPE_MIB = 1 << 20;

/* ---- what a recipe is ---- */

struct recipe_sequence;

struct recipe {
    const char *name;
    void (*make)(struct recipe_sequence *q);
    int layers, batch, vocab; /* mlp: rows as `batch` */
    bool scores;
    double lo; /* lengths are drawn from lo to 1 times the longest */
    int steps, passes;
    int channels, heads;
};

enum recipe_verb {
    RECIPE_TAKE,
    RECIPE_GIVE,
    RECIPE_STEP,   /* a step begins: where `rel` releases */
    RECIPE_PASS,   /* a micro-step begins; bytes: its length */
    RECIPE_FOREIGN /* somebody else takes bytes from the device itself */
};

struct recipe_event {
    enum recipe_verb verb;
    uint32_t tensor; /* taken or given: its number, from 0 */
    uint64_t bytes;
    const char *site;
};

/* ---- making a sequence ---- */

struct recipe_sequence {
    const struct recipe *recipe;
    uint64_t capacity, seed, k;
    double f;
    struct oom_rng rng;
    int step;
    uint64_t live, peak; /* bytes, every tensor rounded to 512 */
    uint64_t bytes_c, bytes_s, bytes_v;
    bool recording; /* false: only the peak is wanted */
    uint32_t tensors, events, parameters;
};

static struct recipe_event recipe_events[RECIPE_EVENTS];
static uint64_t recipe_tensor_bytes[RECIPE_TENSORS]; /* rounded */
static uint64_t recipe_parameters[RECIPE_PARAMETERS];

static inline void recipe_add(struct recipe_sequence *q, struct recipe_event event) {
    if (!q->recording) return;
    if (q->events < RECIPE_EVENTS)
        recipe_events[q->events++] = event;
    else
        CHECK(q->events < RECIPE_EVENTS);
}

static inline uint32_t recipe_take(struct recipe_sequence *q, const char *site, uint64_t bytes) {
    uint32_t tensor = q->tensors < RECIPE_TENSORS - 1 ? q->tensors++ : q->tensors;
    recipe_tensor_bytes[tensor] = (bytes + 511) / 512 * 512;
    q->live += recipe_tensor_bytes[tensor];
    if (q->live > q->peak) q->peak = q->live;
    recipe_add(q, (struct recipe_event){RECIPE_TAKE, tensor, bytes, site});
    return tensor;
}

static inline void recipe_give(struct recipe_sequence *q, uint32_t tensor) {
    q->live -= recipe_tensor_bytes[tensor];
    recipe_add(q, (struct recipe_event){RECIPE_GIVE, tensor, 0, ""});
}

static inline void recipe_parameter(struct recipe_sequence *q, uint64_t bytes) {
    if (q->parameters < RECIPE_PARAMETERS) recipe_parameters[q->parameters++] = bytes;
    recipe_take(q, "parameter", bytes);
}

static inline void recipe_gradients(struct recipe_sequence *q) {
    for (uint32_t i = q->parameters; i-- > 0;) recipe_take(q, "gradient", recipe_parameters[i]);
}

static inline void recipe_adam(struct recipe_sequence *q) {
    for (uint32_t i = 0; i < q->parameters; i++) {
        recipe_take(q, "m", recipe_parameters[i]);
        recipe_take(q, "v", recipe_parameters[i]);
    }
}

static inline void recipe_step(struct recipe_sequence *q) {
    recipe_add(q, (struct recipe_event){RECIPE_STEP, 0, 0, ""});
}

/* Steps of some passes; what stays is taken after the first pass and after the first step. */
static inline void recipe_train(struct recipe_sequence *q,
                                void (*before)(struct recipe_sequence *q),
                                void (*pass)(struct recipe_sequence *q),
                                void (*after)(struct recipe_sequence *q)) {
    for (q->step = 0; q->step < q->recipe->steps; q->step++) {
        recipe_step(q);
        if (before != NULL) before(q);
        for (int i = 0; i < q->recipe->passes; i++) {
            pass(q);
            if (q->step == 0 && i == 0) recipe_gradients(q);
        }
        if (q->step == 0) recipe_adam(q);
        if (after != NULL) after(q);
    }
}

#endif
