/*
 * situation.h: what the scenarios share: models sized to a capacity, jobs, and the table form that
 * a scenario is written in.
 *
 * Sizes are derived from the capacity and searched on the dry device, so a scenario is small on a
 * laptop and fills a large card. Nothing here owns anything but the docket's rows.
 */
#ifndef OOM_SCENARIOS_SITUATION_H
#define OOM_SCENARIOS_SITUATION_H

#include "harness/cli/scenario.h"

enum {
    OOM_SMALL_CAPACITY = 64 << 20, /* bytes: --quick, guard passes, controls */
    OOM_SPECS_REMEMBERED = 16,
};

/* The options a case is made for, and the models already sized for them. */
struct oom_situation {
    const struct oom_run_options *options;
    int remembered;
    struct {
        struct oom_model_spec asked, spec; /* before its depth was found, and after */
        double need;
    } specs[OOM_SPECS_REMEMBERED];
};

/* ---- a scenario's tables ---- */

/* One case. make() fills in the jobs and what the verdict asks for; id and guards are added. */
struct oom_row {
    const char *mitigation, *variant; /* variant NULL: none in the id */
    enum oom_model_kind model;
    bool quick;     /* also under --quick */
    bool full;      /* only under --full */
    bool small;     /* always at --quick size: the place of its OOM is searched */
    bool table;     /* made on the dry device alone: no guards */
    bool unguarded; /* no second pass with guards: another row has one of the same paths */
    enum oom_status (*make)(struct oom_situation *situation, const struct oom_row *row,
                            struct oom_case *out);
    int choice;                                        /* make()'s own: a rule, a variant */
    bool (*wanted)(const struct oom_attempt *failure); /* where the first OOM must be; or NULL */
    double dropout;
    const char *unequal; /* why mathematics makes other gradients than the reference's; NULL: not */
};

/* A wrong twin of a row: the same case at --quick size with one mistake in the product's path. */
struct oom_twin {
    const char *mitigation, *variant; /* of the row; its model is the first that has them */
    enum oom_control control;
    uint32_t expected_false; /* OOM_BITS_... */
};

#define OOM_BITS_FITS (1u << OOM_BIT_FITS_WITH)
#define OOM_BITS_GRADS (1u << OOM_BIT_GRAD_MATCH)
#define OOM_BITS_DATA (1u << OOM_BIT_DATA_INTACT)
#define OOM_BITS_STATE (1u << OOM_BIT_STATE_RESTORED)

/* Rows, then twins. `rows` and `twins` end with a zero entry. */
enum oom_status oom_situation_list(const char *scenario, const struct oom_row *rows,
                                   const struct oom_twin *twins,
                                   const struct oom_run_options *options,
                                   struct oom_docket *docket);

/* ---- what make() is written with ---- */

/* The model of a situation: as many layers as it takes for the step at `batch` samples to need
 * `need` times the capacity (peak of reserved bytes without limit). --model's keys win. */
enum oom_status oom_situation_model(struct oom_situation *situation, enum oom_model_kind kind,
                                    int64_t batch, double need, struct oom_model_spec *out);

/* The same for other widths, dropout and so on than the suite's own; layers are not read. */
enum oom_status oom_situation_model_of(struct oom_situation *situation,
                                       const struct oom_model_spec *shape, int64_t batch,
                                       double need, struct oom_model_spec *out);
struct oom_model_spec oom_situation_shape(const struct oom_situation *situation,
                                          enum oom_model_kind kind);

/* The same for a given shape: sets spec->layers, and lengthens samples where it would be deep. */
enum oom_status oom_situation_depth(const struct oom_situation *situation, int64_t batch,
                                    double need, struct oom_model_spec *spec);

/* A job of `samples` samples a window in one piece, nothing mitigated. */
struct oom_job oom_situation_job(const struct oom_situation *situation,
                                 const struct oom_model_spec *spec, int64_t samples, int steps);

/* Sets the jobs of a case, whose gradients are to be equal bits and in bound. */
void oom_situation_case(struct oom_case *out, const struct oom_job *mitigated,
                        const struct oom_job *unmitigated, double need);

/* Peak of reserved bytes of the job without limit. */
enum oom_status oom_situation_need(const struct oom_job *job, uint64_t *bytes);

/* Moves the job to the largest size (from `most` down) and least capacity at which its first OOM is
 * where it is wanted and the job as a whole still comes to its end. OOM_USAGE: there is none. */
enum oom_status oom_situation_place(struct oom_job *job,
                                    bool (*wanted)(const struct oom_attempt *failure),
                                    const char *what);

/* Places for an OOM. */
bool oom_place_backward(const struct oom_attempt *failure); /* after the first gradient */
bool oom_place_later_micro_batch(const struct oom_attempt *failure);
bool oom_place_optimizer(const struct oom_attempt *failure);

#endif
