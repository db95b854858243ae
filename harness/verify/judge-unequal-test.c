/*
 * judge-unequal-test.c: a case that must be unequal is found so for batch norm in micro-batches;
 * not for a net whose gradients are equal, and not for a reference that is wrong.
 */
#include "harness/verify/proceedings.h"

#include "harness/verify/job-testing.h"

#include <math.h>

void judge_unequal_test(void);

/* A case of two runs that are there already. */
struct rig {
    char folders[2][64];
    struct oom_hearing mitigated, reference;
    struct oom_case the_case;
    struct oom_case_record record;
    struct oom_proceedings p;
};

static void run_job(struct oom_hearing *hearing, const struct oom_job *job) {
    hearing->job = *job;
    CHECK_OK(oom_job_run(job, &hearing->result));
    CHECK_EQ(hearing->result.status, OOM_OK);
    hearing->finished = true;
}

static struct rig *rig_open(const char *model, int64_t micro) {
    struct rig *rig = oom_host_calloc(1, sizeof *rig);
    if (!CHECK(rig != NULL)) return NULL;
    for (int i = 0; i < 2; i++) folder_make(rig->folders[i], sizeof rig->folders[i]);
    struct oom_job whole = small_job(model, 8, rig->folders[1]);
    whole.distinct = 8;
    struct oom_job cut = whole;
    snprintf(cut.directory, sizeof cut.directory, "%s", rig->folders[0]);
    cut.micro = true;
    cut.most = micro;
    run_job(&rig->mitigated, &cut);
    run_job(&rig->reference, &whole);
    snprintf(rig->the_case.unequal, sizeof rig->the_case.unequal, "because");
    rig->p = (struct oom_proceedings){.the_case = &rig->the_case,
                                      .record = &rig->record,
                                      .mitigated = &rig->mitigated,
                                      .reference = &rig->reference};
    const struct oom_court_options options = {.self = "unused"};
    CHECK_OK(oom_court_open(&options, &rig->p.court));
    return rig;
}

static void rig_close(struct rig *rig) {
    oom_court_close(rig->p.court);
    for (int i = 0; i < 2; i++) folder_remove(rig->folders[i]);
    oom_host_free(rig);
}

static enum oom_answer judged(struct rig *rig) {
    memset(&rig->record, 0, sizeof rig->record);
    oom_judge_gradients(&rig->p);
    return rig->record.bits[OOM_BIT_GRAD_MATCH];
}

static const char *why(const struct rig *rig) {
    return rig->record.why[OOM_BIT_GRAD_MATCH];
}

static double figure(const struct rig *rig, const char *name) {
    const struct oom_figure *found = oom_record_figure(&rig->record, name);
    return found != NULL ? found->value : (double)NAN;
}

static const char batch_norm[] = "cnn,layers=2,width=4,image=8,norm=batch,groups=2";
static const char group_norm[] = "cnn,layers=2,width=4,image=8,norm=group,groups=2";

/* The distance, once more and by itself, from the files. */
static double distance_by_hand(const struct rig *rig) {
    size_t bytes[2];
    float *found = (float *)(void *)job_file(&rig->mitigated.job, "gradients", 0, &bytes[0]);
    float *other = (float *)(void *)job_file(&rig->reference.job, "gradients", 0, &bytes[1]);
    long double squares = 0, norm = 0;
    CHECK_EQ(bytes[0], bytes[1]);
    for (size_t i = 0; i < bytes[0] / sizeof *found; i++) {
        long double difference = (long double)found[i] - (long double)other[i];
        squares += difference * difference;
        norm += (long double)other[i] * (long double)other[i];
    }
    oom_host_free(found);
    oom_host_free(other);
    return (double)sqrtl(squares / norm);
}

static void unequal(void) {
    TEST("unequal: batch norm in micro-batches is, by far more than rounding");
    struct rig *rig = rig_open(batch_norm, 2);
    if (rig == NULL) return;
    CHECK_EQ(judged(rig), OOM_FALSE);
    CHECK_MSG(strncmp(why(rig), "not equal, as it must be: ", 26) == 0, "%s", why(rig));
    CHECK(strstr(why(rig), ": because") != NULL);
    double distance = figure(rig, "grad_distance"), by_hand = distance_by_hand(rig);
    CHECK(distance > 0.01 && distance < 2);
    CHECK(fabs(distance - by_hand) <= 1e-12 * by_hand);
    CHECK(figure(rig, "grad_distance_of_rounding") < 1e-3);
    CHECK(figure(rig, "reference_loss") == rig->reference.result.steps[0].loss);
    rig_close(rig);
}

/* What the suite must not take for a show of it: gradients that are equal. */
static void equal(void) {
    const struct {
        const char *model;
        int64_t micro;
    } pairs[] = {{group_norm, 2}, {batch_norm, 8}};
    for (int i = 0; i < 2; i++) {
        TEST("unequal: %s in micro-batches of %d is not, and fails",
             i == 0 ? "group norm" : "batch norm", (int)pairs[i].micro);
        struct rig *rig = rig_open(pairs[i].model, pairs[i].micro);
        if (rig == NULL) return;
        CHECK_EQ(judged(rig), OOM_TRUE);
        CHECK(figure(rig, "grad_distance") == 0);
        rig->record.expected_false = 1u << OOM_BIT_GRAD_MATCH;
        oom_record_decide(&rig->record);
        CHECK_EQ(rig->record.outcome, OOM_OUTCOME_FAIL);
        rig_close(rig);
    }
}

static void damage(const struct oom_job *job, const char *what, size_t keep) {
    char path[OOM_JOB_PATH_MAX + 32];
    oom_job_path(job, what, 0, path);
    if (keep > 0) {
        CHECK_EQ(truncate(path, (off_t)keep), 0);
        return;
    }
    FILE *file = fopen(path, "r+be");
    const float far = 1e6F;
    CHECK(file != NULL && fwrite(&far, sizeof far, 1, file) == 1);
    if (file != NULL) fclose(file);
}

/* Nothing that went wrong elsewhere may pass for the difference that is to be shown. */
static void wrong_reference(void) {
    TEST("unequal: a reference that is wrong, or not there, shows nothing");
    struct rig *rig = rig_open(batch_norm, 2);
    if (rig == NULL) return;
    rig->p.reference = NULL;
    CHECK_EQ(judged(rig), OOM_NOT_REACHED);
    rig->p.reference = &rig->reference;
    rig->mitigated.result.steps[1].captured = false;
    CHECK_EQ(judged(rig), OOM_NOT_REACHED);
    CHECK_STR(why(rig), "a window ended without its optimizer step");
    rig->mitigated.result.steps[1].captured = true;
    damage(&rig->mitigated.job, "gradients", 64);
    CHECK_EQ(judged(rig), OOM_NOT_REACHED);
    CHECK_MSG(strncmp(why(rig), "cannot be compared: ", 20) == 0, "%s", why(rig));
    damage(&rig->reference.job, "gradients", 0);
    CHECK_EQ(judged(rig), OOM_NOT_REACHED);
    CHECK_MSG(strncmp(why(rig), "the reference itself: step 0: ", 30) == 0, "%s", why(rig));
    rig_close(rig);
}

static void answers(void) {
    TEST("unequal: true within rounding, false beyond ten times that, else not reached");
    CHECK_EQ(oom_unequal_answer(0, 1e-6), OOM_TRUE);
    CHECK_EQ(oom_unequal_answer(1e-6, 1e-6), OOM_TRUE);
    CHECK_EQ(oom_unequal_answer(2e-6, 1e-6), OOM_NOT_REACHED);
    CHECK_EQ(oom_unequal_answer(9.9e-6, 1e-6), OOM_NOT_REACHED);
    CHECK_EQ(oom_unequal_answer(1.1e-5, 1e-6), OOM_FALSE);
    CHECK_EQ(oom_unequal_answer((double)NAN, 1e-6), OOM_NOT_REACHED);
    CHECK_EQ(oom_unequal_answer((double)INFINITY, 1e-6), OOM_NOT_REACHED);
    CHECK_EQ(oom_unequal_answer(1, (double)NAN), OOM_NOT_REACHED);
}

void judge_unequal_test(void) {
    answers();
    unequal();
    equal();
    wrong_reference();
}
