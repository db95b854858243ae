/*
 * recipes-testing.h: for tests only: sequences of tensors after which a request fails although the
 * free bytes suffice: all recipes, and the making of one.
 *
 * A recipe is a model, its tensors' sizes and how its lengths are drawn. Its one free number k is
 * the largest for which the peak of live bytes (each tensor rounded to 512) stays within f times
 * the capacity.
 */
#ifndef OOM_HARNESS_MEMORY_RECIPES_TESTING_H
#define OOM_HARNESS_MEMORY_RECIPES_TESTING_H

#include "harness/memory/recipes-gpt-testing.h"

/* ---- A: an mlp whose rows differ by a few per mille ---- */

enum { MLP_WIDTH = 128 };

static inline void recipe_mlp_pass(struct recipe_sequence *q) {
    static uint32_t y[RECIPE_PARAMETERS + 1];
    double ramp = 0.96 + (1 - 0.96) * q->step / 3;
    double drawn = floor(q->recipe->batch * (ramp * (1 - 0.005 * oom_rng_uniform(&q->rng))));
    uint64_t bytes = 4 * MLP_WIDTH * (uint64_t)drawn;
    uint32_t x = recipe_take(q, "x", bytes), dy;
    for (uint64_t i = 0; i < q->k; i++) y[i] = recipe_take(q, "y", bytes);
    dy = recipe_take(q, "dy", bytes);
    for (uint64_t i = q->k; i-- > 0;) {
        uint32_t dx = recipe_take(q, "dx", bytes);
        recipe_give(q, y[i]);
        recipe_give(q, dy);
        dy = dx;
    }
    recipe_give(q, dy);
    recipe_give(q, x);
}

static inline void recipe_mlp(struct recipe_sequence *q) {
    if (q->k > RECIPE_PARAMETERS) return;
    for (uint64_t i = 0; i < q->k; i++) recipe_parameter(q, 4 * MLP_WIDTH * MLP_WIDTH);
    recipe_train(q, NULL, recipe_mlp_pass, NULL);
}

/* ---- C: of 16 items of every step one stays for ever ---- */

enum { SURVIVOR_ITEMS = 16, ITEM_BYTES = 5 << 18 }; /* 1.25 MiB */

static uint32_t recipe_items[RECIPE_ITEMS];

static inline void recipe_survivors_pass(struct recipe_sequence *q) {
    double scale = 0.9 + (1 - 0.9) * oom_rng_uniform(&q->rng);
    uint64_t c = (uint64_t)floor((double)(64 * q->k) * scale) / 512 * 512;
    uint32_t h1 = recipe_take(q, "h1", c), h2 = recipe_take(q, "h2", 4 * c);
    uint32_t h3 = recipe_take(q, "h3", c), logits = recipe_take(q, "logits", 20 * c);
    for (int i = 0; i < SURVIVOR_ITEMS; i++) recipe_items[i] = recipe_take(q, "item", ITEM_BYTES);
    uint32_t dlogits = recipe_take(q, "dlogits", 20 * c);
    recipe_give(q, logits);
    uint32_t dh3 = recipe_take(q, "dh3", c);
    recipe_give(q, dlogits);
    recipe_give(q, h3);
    uint32_t dh2 = recipe_take(q, "dh2", 4 * c);
    recipe_give(q, dh3);
    recipe_give(q, h2);
    uint32_t dh1 = recipe_take(q, "dh1", c);
    recipe_give(q, dh2);
    recipe_give(q, h1);
    recipe_give(q, dh1);
}

static inline void recipe_survivors_drop(struct recipe_sequence *q) {
    uint32_t stays = oom_rng_below(&q->rng, SURVIVOR_ITEMS);
    for (uint32_t i = 0; i < SURVIVOR_ITEMS; i++) {
        if (i != stays) recipe_give(q, recipe_items[i]);
    }
}

static inline void recipe_survivors(struct recipe_sequence *q) {
    recipe_parameter(q, 20 * q->k);
    recipe_parameter(q, 4 * q->k);
    recipe_train(q, NULL, recipe_survivors_pass, recipe_survivors_drop);
}

/* ---- K: beside every activation an item that stays ---- */

enum { ACT_BYTES = 39 << 19 }; /* 19.5 MiB */

/* `stale`: items of the round before, given back after the backward. */
static inline void recipe_items_train(struct recipe_sequence *q, uint32_t *items, bool first,
                                      const uint32_t *stale) {
    static uint32_t acts[RECIPE_ITEMS];
    recipe_step(q);
    for (uint64_t i = 0; i < q->k; i++) {
        acts[i] = recipe_take(q, "act", ACT_BYTES);
        items[i] = recipe_take(q, "item", ITEM_BYTES);
    }
    uint32_t d = recipe_take(q, "d", ACT_BYTES);
    for (uint64_t i = q->k; i-- > 0;) recipe_give(q, acts[i]);
    recipe_give(q, d);
    if (first) {
        recipe_gradients(q);
        recipe_adam(q);
    }
    for (uint64_t i = 0; stale != NULL && i < q->k; i++) recipe_give(q, stale[i]);
}

static inline void recipe_items_evaluate(struct recipe_sequence *q) {
    double rest =
        q->f * (double)q->capacity - 16 * (double)RECIPE_MIB - (double)q->k * (double)ITEM_BYTES;
    uint64_t bytes = rest > 0 ? (uint64_t)floor(rest / 2) / 512 * 512 : 0;
    uint32_t one = recipe_take(q, "evaluation", bytes), two = recipe_take(q, "evaluation", bytes);
    recipe_give(q, one);
    recipe_give(q, two);
}

/* steps: rounds of training and evaluation */
static inline void recipe_items_rounds(struct recipe_sequence *q) {
    static uint32_t items[2][RECIPE_ITEMS];
    if (q->k > RECIPE_ITEMS) return;
    recipe_parameter(q, 4 * RECIPE_MIB);
    for (int round = 0; round < q->recipe->steps; round++) {
        recipe_items_train(q, items[round % 2], round == 0,
                           round > 0 ? items[(round - 1) % 2] : NULL);
        /* Alone, an evaluation is a step of its own; in rounds `rel` acts before training only. */
        if (q->recipe->steps == 1) recipe_step(q);
        recipe_items_evaluate(q);
    }
}

/* ---- all of them ---- */

static const struct recipe recipes[] = {
    /* name, make, layers, batch, vocab, scores, lo, steps, passes, channels, heads */
    {"A", recipe_mlp, 0, 14336, 0, false, 0, 4, 1, 0, 0},
    {"A'", recipe_mlp, 0, 1434, 0, false, 0, 4, 1, 0, 0},
    {"B", recipe_gpt, 1, 4, 256, true, 0.8, 20, 4, 128, 4},
    {"B'", recipe_gpt, 1, 1, 4096, true, 0.8, 20, 4, 128, 4},
    {"C", recipe_survivors, 0, 0, 0, false, 0, 20, 1, 0, 0},
    {"R1", recipe_gpt, 1, 8, 256, false, 0.8, 20, 1, 128, 4},
    {"R4", recipe_gpt, 4, 8, 256, false, 0.8, 20, 1, 128, 4},
    {"R8", recipe_gpt, 8, 8, 1024, false, 0.8, 20, 1, 128, 4},
    {"D", recipe_train_eval, 6, 8, 1024, false, 0.8, 16, 1, 128, 4},
    {"E", recipe_checkpointed, 16, 8, 4096, false, 0.8, 12, 4, 128, 4},
    {"P", recipe_powers, 1, 8, 256, false, 0.76, 20, 4, 128, 4},
    {"Q", recipe_gpt, 8, 8, 4096, false, 0.9, 8, 4, 128, 4},
    {"Y 512", recipe_gpt, 6, 8, 256, false, 0.95, 8, 4, 128, 4},
    {"Y 1024", recipe_gpt, 10, 8, 512, false, 0.97, 8, 4, 128, 4},
    {"K", recipe_items_rounds, 0, 0, 0, false, 0, 1, 1, 0, 0},
    {"K2", recipe_items_rounds, 0, 0, 0, false, 0, 2, 1, 0, 0},
};

static inline const struct recipe *recipe_find(const char *name) {
    for (size_t i = 0; i < sizeof recipes / sizeof recipes[0]; i++) {
        if (strcmp(recipes[i].name, name) == 0) return &recipes[i];
    }
    return NULL;
}

/* ---- the largest k ---- */

static inline void recipe_play(struct recipe_sequence *q, uint64_t k, bool recording) {
    q->k = k;
    q->rng.state = q->seed;
    q->recording = recording;
    q->live = q->peak = 0;
    q->tensors = q->events = q->parameters = 0;
    q->recipe->make(q);
}

static inline bool recipe_within(struct recipe_sequence *q, uint64_t k) {
    recipe_play(q, k, false);
    return (double)q->peak <= q->f * (double)q->capacity && q->peak > 0;
}

/* The sequence of this seed with the largest k that stays within f, as recipe_events; 0: none. */
static inline uint64_t recipe_make(struct recipe_sequence *q, const struct recipe *recipe,
                                   uint64_t capacity, double f, uint64_t seed) {
    uint64_t low = 0, high = 1;
    *q = (struct recipe_sequence){.recipe = recipe, .capacity = capacity, .f = f, .seed = seed};
    while (recipe_within(q, high)) high *= 2;
    for (low = high / 2; high - low > 1;) {
        uint64_t k = low + (high - low) / 2;
        *(recipe_within(q, k) ? &low : &high) = k;
    }
    if (low > 0) recipe_play(q, low, true);
    return low;
}

#endif
