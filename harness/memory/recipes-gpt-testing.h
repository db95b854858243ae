/*
 * recipes-gpt-testing.h: for tests only: the recipes that train a transformer (B, R, D, E, P, Q,
 * Y). A pass is a few programs: which tensor is taken or given back next.
 */
#ifndef OOM_HARNESS_MEMORY_RECIPES_GPT_TESTING_H
#define OOM_HARNESS_MEMORY_RECIPES_GPT_TESTING_H

#include "harness/memory/recipes-sequence-testing.h"

enum { RECIPE_LAYERS = 16 };

/* ---- the tensors of a transformer, with c = 4bTC, s = 4bHT^2, v = 4bTV bytes ---- */

/* id, name, how many c, s, v, and where its number is kept: the slot of another site, so many
 * layers back. A layer's input is the res2 of the layer before, the first one's the embedding; dx
 * is the dres of the layer before. */
#define RECIPE_SITE_MAP(X) \
    X(EMB, "emb", 1, 0, 0, RES2, 1) \
    X(INPUT, "x", 1, 0, 0, RES2, 1) \
    X(LN1, "ln1", 1, 0, 0, LN1, 0) \
    X(QKV, "qkv", 3, 0, 0, QKV, 0) \
    X(SCORES, "scores", 0, 1, 0, SCORES, 0) \
    X(PROBS, "probs", 0, 1, 0, PROBS, 0) \
    X(ATT, "att", 1, 0, 0, ATT, 0) \
    X(RES1, "res1", 1, 0, 0, RES1, 0) \
    X(LN2, "ln2", 1, 0, 0, LN2, 0) \
    X(FC, "fc", 4, 0, 0, FC, 0) \
    X(GELU, "gelu", 4, 0, 0, GELU, 0) \
    X(RES2, "res2", 1, 0, 0, RES2, 0) \
    X(LNF, "lnf", 1, 0, 0, LNF, 0) \
    X(LOGITS, "logits", 0, 0, 1, LOGITS, 0) \
    X(EVAL_PROBS, "probs", 0, 0, 1, EVAL_PROBS, 0) \
    X(DLOGITS, "dlogits", 0, 0, 1, DLOGITS, 0) \
    X(DLNF, "dlnf", 1, 0, 0, DLNF, 0) \
    X(DRES, "dres", 1, 0, 0, DRES, 0) \
    X(DGELU, "dgelu", 4, 0, 0, DGELU, 0) \
    X(DFC, "dfc", 4, 0, 0, DFC, 0) \
    X(DLN2, "dln2", 1, 0, 0, DLN2, 0) \
    X(DRES1, "dres1", 1, 0, 0, DRES1, 0) \
    X(DATT, "datt", 1, 0, 0, DATT, 0) \
    X(DQKV, "dqkv", 3, 0, 0, DQKV, 0) \
    X(DPROBS, "dprobs", 0, 1, 0, DPROBS, 0) \
    X(DSCORES, "dscores", 0, 1, 0, DSCORES, 0) \
    X(DLN1, "dln1", 1, 0, 0, DLN1, 0) \
    X(DX, "dx", 1, 0, 0, DRES, 1)

enum recipe_site {
    RECIPE_END,
#define X(id, name, c, s, v, slot, back) id,
    RECIPE_SITE_MAP(X)
#undef X
        RECIPE_SITES
};

static const struct {
    const char *name;
    uint64_t c, s, v;
    enum recipe_site slot;
    int back;
} recipe_sites[] = {[RECIPE_END] = {"", 0, 0, 0, RECIPE_END, 0},
#define X(id, name, c, s, v, slot, back) [id] = {name, c, s, v, slot, back},
                    RECIPE_SITE_MAP(X)
#undef X
};

/* What one part of a pass does, in order: a site is taken, -site is given back. Those of size s are
 * passed over where scores are not materialised. */
typedef int8_t recipe_program[32];

static const recipe_program recipe_embed = {EMB};
static const recipe_program recipe_forward = {LN1,  QKV, SCORES, PROBS, -SCORES, ATT,
                                              RES1, LN2, FC,     GELU,  RES2};
static const recipe_program recipe_head = {LNF,      LOGITS, DLOGITS, -LOGITS, DLNF,
                                           -DLOGITS, DRES,   -DLNF,   -LNF};
static const recipe_program recipe_backward = {
    DGELU, -GELU,    DFC,  -DGELU, -FC,  DLN2,   -DFC,  -LN2,    DRES1,   -DLN2,
    -RES2, -DRES,    DATT, -ATT,   DQKV, DPROBS, -DATT, DSCORES, -DPROBS, -PROBS,
    -QKV,  -DSCORES, DLN1, -DQKV,  -LN1, DX,     -DLN1, -RES1,   -DRES1};
static const recipe_program recipe_end = {-EMB, -DX};

/* Evaluation keeps nothing for a backward. */
static const recipe_program recipe_eval_layer = {LN1, QKV, -LN1, ATT,  -QKV, RES1, -ATT,  -INPUT,
                                                 LN2, FC,  -LN2, GELU, -FC,  RES2, -GELU, -RES1};
static const recipe_program recipe_eval_head = {LNF,        -RES2,   LOGITS,     -LNF,
                                                EVAL_PROBS, -LOGITS, -EVAL_PROBS};

/* Checkpoints: a layer drops what backward will make again, and its input unless that is one. */
static const recipe_program recipe_drop = {-LN1, -QKV, -ATT, -RES1, -LN2, -FC, -GELU};
static const recipe_program recipe_drop_input = {-INPUT};
static const recipe_program recipe_checkpointed_head = {LNF,      LOGITS, DLOGITS, -LOGITS, DLNF,
                                                        -DLOGITS, DRES,   -DLNF,   -LNF,    -RES2};
static const recipe_program recipe_checkpointed_backward = {
    -RES2, DGELU, -GELU, DFC,   -DGELU, -FC,  DLN2,  -DFC, -LN2, DRES1, -DLN2, -DRES,
    DATT,  -ATT,  DQKV,  -DATT, -QKV,   DLN1, -DQKV, -LN1, DX,   -DLN1, -RES1, -DRES1};
static const recipe_program recipe_checkpointed_end = {-DX};

/* ---- passes ---- */

static uint32_t recipe_slots[RECIPE_LAYERS + 1][RECIPE_SITES]; /* [0]: before the first layer */

static inline void recipe_run_program(struct recipe_sequence *q, const recipe_program program,
                                      int layer) {
    for (int i = 0; program[i] != RECIPE_END; i++) {
        int site = program[i] < 0 ? -program[i] : program[i];
        uint32_t *slot =
            &recipe_slots[layer + 1 - recipe_sites[site].back][recipe_sites[site].slot];
        if (recipe_sites[site].s > 0 && !q->recipe->scores) continue;
        if (program[i] < 0)
            recipe_give(q, *slot);
        else
            *slot =
                recipe_take(q, recipe_sites[site].name,
                            recipe_sites[site].c * q->bytes_c + recipe_sites[site].s * q->bytes_s +
                                recipe_sites[site].v * q->bytes_v);
    }
}

/* A pass begins: its length is drawn, and with it the sizes. */
static inline void recipe_begin_pass(struct recipe_sequence *q, int batch, uint64_t longest) {
    const struct recipe *r = q->recipe;
    double scale = r->lo + (1 - r->lo) * oom_rng_uniform(&q->rng);
    uint64_t b = (uint64_t)batch, t = (uint64_t)floor((double)longest * scale);
    q->bytes_c = 4 * b * t * (uint64_t)r->channels;
    q->bytes_s = 4 * b * (uint64_t)r->heads * t * t;
    q->bytes_v = 4 * b * t * (uint64_t)r->vocab;
    recipe_add(q, (struct recipe_event){RECIPE_PASS, 0, t, ""});
}

static inline void recipe_gpt_parameters(struct recipe_sequence *q, uint64_t longest) {
    static const uint64_t matrices[] = {3, 1, 4, 4}; /* times C^2 */
    uint64_t c = (uint64_t)q->recipe->channels;
    recipe_parameter(q, 4 * (uint64_t)q->recipe->vocab * c);
    recipe_parameter(q, 4 * longest * c);
    for (int i = 0; i < 4 * q->recipe->layers; i++)
        recipe_parameter(q, 4 * matrices[i % 4] * c * c);
}

static inline void recipe_gpt_pass_of(struct recipe_sequence *q, uint64_t longest) {
    int layers = q->recipe->layers;
    recipe_begin_pass(q, q->recipe->batch, longest);
    recipe_run_program(q, recipe_embed, 0);
    for (int i = 0; i < layers; i++) recipe_run_program(q, recipe_forward, i);
    recipe_run_program(q, recipe_head, layers - 1);
    for (int i = layers; i-- > 0;) recipe_run_program(q, recipe_backward, i);
    recipe_run_program(q, recipe_end, 0);
}

static inline void recipe_gpt_pass(struct recipe_sequence *q) {
    recipe_gpt_pass_of(q, q->k);
}

static inline void recipe_gpt(struct recipe_sequence *q) {
    recipe_gpt_parameters(q, q->k);
    recipe_train(q, NULL, recipe_gpt_pass, NULL);
}

/* D: every fourth step begins with an evaluation of 12 rows. */
static inline void recipe_evaluate(struct recipe_sequence *q) {
    int layers = q->recipe->layers;
    if (q->step % 4 != 0) return;
    recipe_begin_pass(q, q->recipe->batch * 3 / 2, q->k);
    recipe_run_program(q, recipe_embed, 0);
    for (int i = 0; i < layers; i++) recipe_run_program(q, recipe_eval_layer, i);
    recipe_run_program(q, recipe_eval_head, layers - 1);
}

static inline void recipe_train_eval(struct recipe_sequence *q) {
    recipe_gpt_parameters(q, q->k);
    recipe_train(q, recipe_evaluate, recipe_gpt_pass, NULL);
}

/* E: checkpoints, one for every 4 layers. */
enum { CHECKPOINT_LAYERS = 4 };

static inline void recipe_checkpointed_pass(struct recipe_sequence *q) {
    int layers = q->recipe->layers;
    recipe_begin_pass(q, q->recipe->batch, q->k);
    recipe_run_program(q, recipe_embed, 0);
    for (int i = 0; i < layers; i++) {
        recipe_run_program(q, recipe_forward, i);
        recipe_run_program(q, recipe_drop, i);
        if (i % CHECKPOINT_LAYERS != 0) recipe_run_program(q, recipe_drop_input, i);
    }
    recipe_run_program(q, recipe_checkpointed_head, layers - 1);
    for (int first = layers - CHECKPOINT_LAYERS; first >= 0; first -= CHECKPOINT_LAYERS) {
        int end = first + CHECKPOINT_LAYERS;
        for (int i = first; i < end; i++) recipe_run_program(q, recipe_forward, i);
        for (int i = end; i-- > first;) recipe_run_program(q, recipe_checkpointed_backward, i);
        recipe_run_program(q, recipe_drop_input, first);
    }
    recipe_run_program(q, recipe_checkpointed_end, 0);
}

static inline void recipe_checkpointed(struct recipe_sequence *q) {
    recipe_gpt_parameters(q, q->k);
    recipe_train(q, NULL, recipe_checkpointed_pass, NULL);
}

/* P: the longest length is a power of two, and k - 1 frozen tensors fill the rest. */
static inline uint64_t recipe_power(const struct recipe_sequence *q) {
    uint64_t p = 1;
    while (2 * p <= q->capacity / 32) p *= 2;
    return p;
}

static inline uint64_t recipe_power_longest(const struct recipe_sequence *q) {
    return recipe_power(q) / (4 * (uint64_t)q->recipe->batch * (uint64_t)q->recipe->channels);
}

static inline void recipe_powers_pass(struct recipe_sequence *q) {
    recipe_gpt_pass_of(q, recipe_power_longest(q));
}

static inline void recipe_powers(struct recipe_sequence *q) {
    uint64_t half = recipe_power(q) / 2;
    uint64_t bytes = half > 16 * RECIPE_MIB ? half : 16 * RECIPE_MIB;
    for (uint64_t i = 1; i < q->k && q->peak <= q->capacity; i++) recipe_take(q, "frozen", bytes);
    recipe_gpt_parameters(q, recipe_power_longest(q));
    recipe_train(q, NULL, recipe_powers_pass, NULL);
}

#endif
