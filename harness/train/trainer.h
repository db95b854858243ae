/*
 * trainer.h: a model with its parameters, gradients and optimizer, and one training step of it.
 *
 * The trainer owns its parameters, gradients, optimizer states and everything alive within a step
 * (its scope). A step is: for each micro-batch load, forward, loss, backward; then the optimizer.
 * On failure nothing is undone here: recovery (batch-size.c) drops the scope and the gradients.
 */
#ifndef OOM_HARNESS_TRAIN_TRAINER_H
#define OOM_HARNESS_TRAIN_TRAINER_H

#include "harness/train/amp.h"
#include "harness/train/data.h"
#include "harness/train/kinks.h"
#include "harness/train/model-spec.h"
#include "harness/train/stages.h"
#include "harness/train/tensor.h"

#include <stdbool.h>
#include <stdint.h>

struct oom_loop;      /* loop.h */
struct oom_unit_seen; /* cnn-unit.h */

/* ---- parameters ---- */

/* Of vectors, tables and heads. A head must begin small: with saturated probabilities the rows'
 * gradients are nearly equal, and a chain repeats the rounding error of a repeated term. */
#define OOM_SMALL_DEVIATION 0.05

enum { OOM_STATES = 2 }; /* AdamW: m and v; SGD: v */

struct oom_parameter {
    char name[32];         /* "block3.qkv.weight" */
    int64_t rows, columns; /* (out, in) of a linear layer; vectors have rows 1 */
    int64_t kernel;   /* of a convolution, whose columns are kernel x kernel x channels; or 0 */
    double deviation; /* of the initial values; 0: by the number of inputs */
    double mean;
    struct oom_tensor value, gradient, state[OOM_STATES];
    struct oom_tensor half; /* copy of the value for this micro-batch; in the scope */
};

static inline int64_t oom_parameter_n(const struct oom_parameter *parameter) {
    return parameter->rows * parameter->columns;
}

/* What a batch norm remembers of the batches it saw: changed by forward, not by the optimizer. */
struct oom_statistic {
    char name[48]; /* "block3.norm1.running_mean" */
    int64_t n;
    double initial;
    struct oom_tensor value;
    struct oom_tensor before; /* at the beginning of the step, for a step that fails */
};

/* ---- what a step is doing, for the report of an OOM ---- */

#define OOM_PHASE_MAP(X) \
    X(SETUP, "setup") \
    X(LOAD, "load") \
    X(FORWARD, "forward") \
    X(LOSS, "loss") \
    X(BACKWARD, "backward") \
    X(OPTIMIZER, "optimizer")

enum oom_phase {
#define X(id, name) OOM_PHASE_##id,
    OOM_PHASE_MAP(X)
#undef X
        OOM_PHASE_COUNT
};

const char *oom_phase_name(enum oom_phase phase);

/* ---- options ---- */

/* After a step gradients are freed ("none", PyTorch's set_to_none) or kept and filled with 0. */
enum oom_gradients { OOM_GRADIENTS_NONE, OOM_GRADIENTS_ZEROED };

enum oom_optimizer { OOM_OPTIMIZER_SGD, OOM_OPTIMIZER_ADAMW };

/* What dropout's random numbers depend on: (seed, step, layer, sample), so that they are the same
 * however a batch is cut; or, as in PyTorch, a running number that each call advances, and the
 * place in the batch. */
enum oom_rng_kind { OOM_RNG_KEYED, OOM_RNG_STATEFUL };

/* What is kept for backward, and what is computed again (checkpoint.h). */
enum oom_checkpointing {
    OOM_CHECKPOINTING_OFF,
    OOM_CHECKPOINTING_SQRT,   /* the inputs of about sqrt(n) segments */
    OOM_CHECKPOINTING_BUDGET, /* as much as fits in a budget, at the least recomputation */
};

/* A schedule, and the samples of the micro-batch that it is for. */
struct oom_trainer_schedule {
    struct oom_checkpoint_schedule schedule;
    int64_t samples; /* 0: none yet */
};

struct oom_trainer_options {
    struct oom_model_spec spec;
    uint64_t seed;
    enum oom_gradients gradients;
    enum oom_optimizer optimizer;
    double learning_rate; /* 0: 2^-10 */
    uint64_t shuffle;     /* seed of the order in which a window's micro-batches run; 0: as they
                           * come */
    int raised;           /* parameter whose initial values are all raised, */
    double raised_by;     /* so much */
    enum oom_rng_kind rng;
    enum oom_amp amp;                 /* beside a session of f32 */
    struct oom_scaler_options scaler; /* of f16; all of the default where interval is 0 */
    enum oom_checkpointing checkpointing;
    uint64_t checkpoint_budget; /* bytes of all that is live, weights and states included */
};

/* ---- the trainer ---- */

/* Told of every unit of a cnn in its backward, while all that its gradients are made of is there.
 * May fail. */
struct oom_unit_watch {
    void *context;
    enum oom_status (*unit)(void *context, const struct oom_unit_seen *seen);
};

struct oom_trainer {
    struct oom_session *session; /* borrowed */
    struct oom_trainer_options options;
    struct oom_parameter *parameters;
    int parameter_count;
    struct oom_statistic *statistics;
    int statistic_count;
    struct oom_scope scope;
    struct oom_batch batch; /* of the current micro-batch; the last one lives until the step ends */
    struct oom_trainer_schedule scheduled[2];  /* of a window's first micro-batch, of the others */
    struct oom_tensor logits, dlogits, losses; /* of the current micro-batch */
    struct oom_stages stages;                  /* what the model keeps for backward */
    struct oom_tensor loss;                    /* (1) dtype: the window's loss so far */
    int64_t optimizer_steps;                   /* taken: AdamW's t */
    uint32_t rng_step;                         /* the step that dropout is keyed by */
    uint32_t rng_offset, rng_offset_before;    /* the running number; at the step's beginning */
    struct oom_scaler scaler;
    struct oom_tensor found; /* (1) i32, with a scaler: a gradient is not finite */
    int64_t first_sample;    /* of the current micro-batch, in the window */
    enum oom_phase phase;
    int micro_batch;              /* its number in the window, from 0 */
    int gradients_written;        /* how many parameter gradients this step has begun to add to */
    struct oom_branches branches; /* zero: not looked at */
    struct oom_unit_watch watch;  /* zero: likewise */
    struct oom_loop *loop;        /* borrowed; NULL: nothing happens beside the steps */
    bool evaluating;              /* nothing is kept for backward, nothing is dropped out */
    bool recomputing;             /* this forward has been before: statistics do not count it */
};

/* Allocates and initialises the parameters (seeded) and the loss. On failure nothing is left. */
enum oom_status oom_trainer_create(struct oom_session *session,
                                   const struct oom_trainer_options *options,
                                   struct oom_trainer **out);
/* Frees everything. NULL is allowed. */
void oom_trainer_destroy(struct oom_trainer *trainer);

/* One micro-batch: adds its gradients and its part of the loss. The batch stays until the next
 * micro-batch or oom_trainer_end_step. */
enum oom_status oom_trainer_micro_batch(struct oom_trainer *trainer,
                                        const struct oom_window *window, int64_t begin, int64_t end,
                                        struct oom_weighing weighing);

/* Its parts, for those who measure: the batch; the loss and its gradient, from logits to dlogits.
 */
enum oom_status oom_trainer_load(struct oom_trainer *trainer, const struct oom_window *window,
                                 int64_t begin, int64_t end, struct oom_weighing weighing);
enum oom_status oom_trainer_loss(struct oom_trainer *trainer);

/* The optimizer's update: all or nothing. Everything is allocated before anything is written. With
 * a scaler the gradients have been unscaled (amp.h); where one of them is not finite nothing but
 * the scale changes. */
enum oom_status oom_trainer_update(struct oom_trainer *trainer);

/* Forward and loss of a whole window, in one piece; every tensor goes as soon as it has been read
 * for the last time. The trainer's own loss is not kept. */
enum oom_status oom_trainer_evaluate(struct oom_trainer *trainer, const struct oom_window *window,
                                     double *loss);

/* The window's loss so far. */
enum oom_status oom_trainer_read_loss(struct oom_trainer *trainer, double *loss);

/* Sets the loss to 0. */
enum oom_status oom_trainer_begin_step(struct oom_trainer *trainer);
/* Frees the last batch and clears the gradients as the options say; advances the random numbers. */
enum oom_status oom_trainer_end_step(struct oom_trainer *trainer);

/* Drops every tensor of the failed step, results kept from it included, and takes back what its
 * forwards changed (statistics, running random numbers); gradients are not touched. */
enum oom_status oom_trainer_drop(struct oom_trainer *trainer);
/* Takes back the same and forgets the tensors without freeing, as a program does that still
 * references a failed step's; they are freed by a later drop, or with the trainer. */
enum oom_status oom_trainer_forget(struct oom_trainer *trainer);
/* Frees the gradients, or fills them with 0, as the options say. */
enum oom_status oom_trainer_clear_gradients(struct oom_trainer *trainer);

/* Makes sure that the gradient exists (zero-filled when new). */
enum oom_status oom_parameter_gradient(struct oom_trainer *trainer,
                                       struct oom_parameter *parameter);

/* ---- what a model provides (gpt.c, mlp.c, cnn.c) ---- */

/* A stage of the chain, as its model's code sees it. */
struct oom_stage {
    int index;
    struct oom_tensor *in;  /* x(i); of stage 0 the batch's inputs */
    struct oom_tensor *out; /* x(i+1); of the last stage NULL */
    void *kept;             /* the model's struct of what this stage keeps */
};

struct oom_model {
    int (*count)(const struct oom_model_spec *spec);
    /* Names, shapes and initial values of parameter i. */
    void (*describe)(const struct oom_model_spec *spec, int i, struct oom_parameter *out);
    /* Batch statistics, and kinks with the decisions that each makes for a whole sample; NULL where
     * there are none. */
    int (*statistics)(const struct oom_model_spec *spec);
    void (*describe_statistic)(const struct oom_model_spec *spec, int i, struct oom_statistic *out);
    int (*kinks)(const struct oom_model_spec *spec);
    int64_t (*kink_elements)(const struct oom_model_spec *spec, int kink);
    int (*stages)(const struct oom_model_spec *spec);
    size_t stage_bytes; /* of the struct that a stage keeps */
    bool reads_output;  /* a stage's backward reads what it made, and frees it; else the next one's
                         * does, as the last to read it */
    /* Makes stage->out from stage->in; the last stage makes trainer->logits. What is not to be kept
     * (trainer->stages.keeping) is freed where it has been read for the last time. */
    enum oom_status (*forward)(struct oom_trainer *trainer, const struct oom_stage *stage);
    /* gradient: that of stage->out (the last stage reads trainer->dlogits instead, and frees it)
     * becomes that of stage->in (stage 0: none). Adds to the parameters' gradients, frees what the
     * stage kept. */
    enum oom_status (*backward)(struct oom_trainer *trainer, const struct oom_stage *stage,
                                struct oom_tensor *gradient);
};

extern const struct oom_model oom_model_mlp, oom_model_gpt, oom_model_cnn;

const struct oom_model *oom_model_of(const struct oom_model_spec *spec);

#endif
