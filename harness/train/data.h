/*
 * data.h: samples, and the window of samples that one optimizer step sees.
 *
 * A sample has an identity p; its content depends on (seed, p) alone. A window of B samples draws
 * on P distinct identities: the first P occurrences are 0..P-1, later ones repeat them unevenly,
 * each occurrence with a weight of its own (0.5 to 1.5; weight 1 where B <= P). So the truth of a
 * window of any size is a weighted sum over P samples. Rows (tokens) may have weights too.
 *
 * The loss of a window is sum(w l) / W with W = sum of all w of the *whole* window, known before
 * its first micro-batch is cut.
 */
#ifndef OOM_HARNESS_TRAIN_DATA_H
#define OOM_HARNESS_TRAIN_DATA_H

#include "harness/train/model-spec.h"
#include "harness/train/tensor.h"

#include <stdbool.h>
#include <stdint.h>

/* Where bytes come from: a seeded grammar, or a file. Owns the open file. */
struct oom_source {
    uint64_t seed;
    int file;           /* -1: generated */
    uint64_t bytes;     /* of the file */
    uint64_t file_hash; /* of its contents */
};

/* path NULL: generated. Unreadable, not a regular file, or empty: OOM_USAGE naming the path. */
enum oom_status oom_source_open(const char *path, uint64_t seed, struct oom_source *out);
void oom_source_close(struct oom_source *source);

struct oom_given; /* given.h */

struct oom_window {
    const struct oom_model_spec *spec; /* borrowed */
    const struct oom_source *source;   /* borrowed */
    int64_t samples;                   /* B */
    int64_t nominal;                   /* B of a full window; larger where this is a partial one */
    int64_t distinct;                  /* P */
    bool token_weights;                /* gpt: samples have lengths; rows past the length weigh 0 */
    /* Samples of changing length, as text cut at its own end: those of micro-batch j (`micro`
     * samples each) have cut[j] rows, the first of the spec's. NULL: all have the spec's. */
    const int64_t *cut; /* borrowed */
    int64_t micro;
    double total;                  /* W */
    const struct oom_given *given; /* borrowed; samples from outside; NULL: seeded ones */
};

/* Fills in `total`; nothing is cut. */
void oom_window_init(struct oom_window *window, const struct oom_model_spec *spec,
                     const struct oom_source *source, int64_t samples, int64_t distinct,
                     bool token_weights);

int64_t oom_window_identity(const struct oom_window *window, int64_t sample); /* of [0, B) */
double oom_window_weight(const struct oom_window *window, int64_t sample);
/* Gives the window samples of changing length. */
void oom_window_cut(struct oom_window *window, const int64_t *cut, int64_t micro);

/* Rows that a sample has on the device: positions T of gpt, rows R of mlp. */
int64_t oom_window_rows(const struct oom_window *window, int64_t sample);
/* Rows of identity p that count: those before its length weigh 1, the others 0. */
int64_t oom_window_length(const struct oom_window *window, int64_t identity);
/* Sum of the rows' weights of samples [begin, end), each times its sample's weight. */
double oom_window_mass(const struct oom_window *window, int64_t begin, int64_t end);

/* Some consecutive samples of a window, of one length, on the device. */
struct oom_batch {
    int64_t samples, rows;        /* rows: N = samples * each */
    int64_t each;                 /* rows of a sample */
    struct oom_tensor inputs;     /* gpt: tokens (N) i32; mlp: (N,C), cnn: (B,H,W,3) dtype */
    struct oom_tensor targets;    /* (N) i32 */
    struct oom_tensor weights;    /* (N) dtype: w / divisor */
    struct oom_tensor identities; /* (samples) i64 */
    struct oom_tensor counts;     /* (samples) dtype, where they are given */
};

/* How the rows of a batch are weighed. The product uses {window->total, false}. */
struct oom_weighing {
    double divisor;
    bool per_sample; /* divide a sample's rows by its own length first */
    bool by_place;   /* a sample is known by its place in the batch, not by its identity */
    /* By sample of the window, borrowed; NULL: the window's own, and each counts once. */
    const double *weights; /* in the loss */
    const double *counts;  /* in the statistics of a batch norm */
};

enum oom_status oom_batch_load(struct oom_scope *scope, const struct oom_window *window,
                               int64_t begin, int64_t end, struct oom_weighing weighing,
                               struct oom_batch *out);
enum oom_status oom_batch_free(struct oom_scope *scope, struct oom_batch *batch);

#endif
