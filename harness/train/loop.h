/*
 * loop.h: what a training loop does besides its steps: samples of changing length, results that
 * it keeps, evaluations in between, frozen weights. Each is harmless by itself; together with a
 * caching allocator they are what fragments memory.
 *
 * A loop owns what it keeps, until oom_loop_end. Failures are those of the allocator and the
 * device; what was kept before stays kept.
 */
#ifndef OOM_HARNESS_TRAIN_LOOP_H
#define OOM_HARNESS_TRAIN_LOOP_H

#include "harness/train/trainer.h"

/* Rows of the samples of a micro-batch, as a part of the spec's; u is uniform in [0, 1), a draw for
 * each micro-batch. */
#define OOM_LENGTHS_MAP(X) \
    X(SAME, "the same") /* 1 */ \
    X(DRAWN, "drawn")   /* low + (1 - low) u: text of changing length */ \
    X(RISING, "rising") /* (low + (1 - low) s / (S - 1)) (1 - 0.005 u) at step s of S: a warm-up \
                         */

enum oom_lengths {
#define X(id, name) OOM_LENGTHS_##id,
    OOM_LENGTHS_MAP(X)
#undef X
        OOM_LENGTHS_COUNT
};

/* Where in a micro-batch results are taken that outlive it. */
enum oom_results {
    OOM_RESULTS_NONE,
    OOM_RESULTS_OF_BATCH, /* after forward; one of them, drawn, is kept for ever, as a program does
                             that appends an output to a list; the others go with the batch */
    OOM_RESULTS_OF_LAYER, /* after each layer (mlp); all are kept */
};

struct oom_loop_options {
    enum oom_lengths lengths;
    double low;
    int rising_steps; /* S */
    uint64_t seed;    /* of the draws */

    enum oom_results results;
    int result_count;      /* of a batch */
    uint64_t result_bytes; /* of each */
    int result_steps;      /* of layers: kept so many steps beside the current one; 0: for ever */

    int evaluate_every;       /* before step 0, n, 2n ...; 0: never */
    bool evaluate_after;      /* ... after those steps instead */
    int64_t evaluate_samples; /* in one piece */
    int64_t evaluate_rows;    /* of each; 0: drawn as for training, before it */

    int frozen;            /* tensors that lie there all along, as a frozen part of a model */
    uint64_t frozen_bytes; /* each */

    bool release_each_step; /* give cached memory back before each step */
};

enum { OOM_LOOP_CUTS = 32, OOM_LOOP_FROZEN = 32, OOM_LOOP_RESULTS = 32 };

/* Called with each micro-batch's logits in place, before the loss reads them. */
struct oom_viewer {
    void *context;
    enum oom_status (*logits)(void *context, struct oom_trainer *trainer);
};

/* A result that outlives its batch. */
struct oom_kept {
    struct oom_tensor tensor;
    int step;
};

struct oom_loop {
    struct oom_loop_options options;
    struct oom_trainer *trainer; /* borrowed */
    int step, micro_batches;
    int64_t cut[OOM_LOOP_CUTS]; /* rows of the samples of this step's micro-batches */
    struct oom_tensor frozen[OOM_LOOP_FROZEN];
    struct oom_tensor batch[OOM_LOOP_RESULTS]; /* of the current micro-batch */
    struct oom_kept *kept;                     /* in the order they were made */
    int kept_count, kept_room;
    double evaluation;        /* the last evaluation's loss */
    struct oom_viewer viewer; /* zero: nobody looks */
};

/* Options out of range (more than the tables hold, low outside (0, 1]) are OOM_USAGE. */
enum oom_status oom_loop_check_options(const struct oom_loop_options *options);

/* The frozen tensors: they come before the model. Steps have so many micro-batches each. */
enum oom_status oom_loop_begin(struct oom_loop *loop, const struct oom_loop_options *options,
                               struct oom_session *session, int micro_batches);
/* From now on the trainer calls it. */
void oom_loop_attach(struct oom_loop *loop, struct oom_trainer *trainer);

/* Before step s: lengths, release, evaluation. After it: evaluation, results given up. */
enum oom_status oom_loop_before(struct oom_loop *loop, const struct oom_source *source, int step);
enum oom_status oom_loop_after(struct oom_loop *loop, const struct oom_source *source, int step);

/* Called by models and trainer; where the trainer has no loop they do nothing. drop: the attempt
 * failed, what it has kept so far goes. forget: it failed, but all of its results stay kept. */
enum oom_status oom_loop_after_layer(struct oom_trainer *trainer);
enum oom_status oom_loop_after_forward(struct oom_trainer *trainer);
enum oom_status oom_loop_after_backward(struct oom_trainer *trainer);
enum oom_status oom_loop_drop(struct oom_trainer *trainer);
void oom_loop_forget(struct oom_trainer *trainer);

/* Reads what is kept and frozen back; *damaged counts tensors that changed. Nothing is read where
 * the device does not compute. */
enum oom_status oom_loop_check(const struct oom_loop *loop, uint64_t *damaged);
/* Frees everything; a loop that never began is allowed. */
enum oom_status oom_loop_end(struct oom_loop *loop, struct oom_session *session);

#endif
