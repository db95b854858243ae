/*
 * proceedings.h: a case while it is heard: its jobs' hearings and the record that is written.
 * Internal to verify/: case.c hears the jobs, the judge-*.c decide a bit or two each.
 */
#ifndef OOM_HARNESS_VERIFY_PROCEEDINGS_H
#define OOM_HARNESS_VERIFY_PROCEEDINGS_H

#include "harness/verify/court.h"

struct oom_proceedings {
    struct oom_court *court;
    const struct oom_case *the_case;
    struct oom_case_record *record;
    const struct oom_hearing *needed;    /* dry, without limit, unmitigated */
    const struct oom_hearing *predicted; /* dry, mitigated */
    const struct oom_hearing *unmitigated;
    const struct oom_hearing *mitigated;
    const struct oom_hearing *reference;
    const struct oom_hearing *guards;    /* NULL: the case has none */
    const struct oom_hearing *beyond;    /* one sample more; NULL: not asked */
    const struct oom_hearing *curves[2]; /* the unmitigated job, its micro-batches shuffled */
    char curve_text[160];                /* how the curves agree */
};

/* ---- what a hearing came to ---- */

/* The job came to its end. */
bool oom_completed(const struct oom_hearing *hearing);
/* It used memory that was not there: an address nobody gave it, a page that was unmapped. */
bool oom_strayed(const struct oom_hearing *hearing);
/* An injected failure ended the run, and rightly: no rule had a smaller size left. Outside a step
 * (an evaluation) nothing retries. */
bool oom_ended_by_injection(const struct oom_hearing *hearing);
/* Failed attempts, and those among them that were injected. */
int oom_count_ooms(const struct oom_job_result *result);
int oom_count_injected(const struct oom_job_result *result);
/* Peak of reserved bytes of the unmitigated step without limit; 0: not known. */
uint64_t oom_need_of(const struct oom_proceedings *p);

/* The same job on the dry device. */
struct oom_job oom_on_dry(const struct oom_job *job, uint64_t capacity);

/* ---- judges ---- */

void oom_judge_bit(struct oom_proceedings *p, enum oom_bit which, bool value, const char *why);

enum oom_status oom_judge_oom_without(struct oom_proceedings *p);
void oom_judge_fits(struct oom_proceedings *p);
void oom_judge_gradients(struct oom_proceedings *p);
/* The same of a case whose gradients must differ; by the distance and by what rounding explains. */
void oom_judge_unequal(struct oom_proceedings *p);
enum oom_answer oom_unequal_answer(double distance, double rounding);

/* ---- gradients of a captured step ---- */

/* The parameter that is furthest from the truth. */
struct oom_worst {
    double error, bound; /* u|S| */
    char name[32];
};
/* NULL when every parameter and the loss are within the bound of the truth. */
const char *oom_out_of_bound(struct oom_proceedings *p, const struct oom_hearing *hearing, int step,
                             struct oom_worst *worst, char *why, size_t n);
/* (n) of all parameters, in order; the caller's, by oom_host_free. */
enum oom_status oom_read_gradients(const struct oom_job *job, int step, int64_t n, float **out);
/* Terms of the longest sum over a batch of so many samples. */
int64_t oom_terms_of(const struct oom_job *job, int64_t samples);

/* ---- more judges ---- */

/* NULL when as many steps were left out as the case asks for, and one at least was not. */
const char *oom_skips_wrong(const struct oom_proceedings *p);
void oom_judge_data(struct oom_proceedings *p);
void oom_judge_state(struct oom_proceedings *p);

/* ---- curves (curve.c) ---- */

/* The two runs that say what the unmitigated job's own rounding does to its curve. */
enum oom_status oom_curve_hear(struct oom_proceedings *p, uint64_t capacity);
/* NULL when loss and weights of the mitigated run follow theirs. */
const char *oom_curve_differs(struct oom_proceedings *p, char *why, size_t n);

/* ---- figures ---- */

void oom_note_figures(struct oom_proceedings *p);
void oom_note_precision(struct oom_proceedings *p);
/* How much of what fits was found. */
enum oom_status oom_note_share(struct oom_proceedings *p);
void oom_note_injection(struct oom_proceedings *p);

#endif
