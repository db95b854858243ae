/*
 * truth-test.c: the truth of a captured run against another way to the same sum: the whole window
 * in one f64 batch. And what it must tell apart: a sample more or less, a weight of another step,
 * a branch that was never taken.
 */
#include "harness/verify/truth.h"

#include "harness/train/train-testing.h"
#include "harness/verify/compare.h"
#include "harness/verify/job-testing.h"

#include <fcntl.h>
#include <math.h>

void truth_test(void);

static char folder[64];
static struct oom_job_result result;

static void capture(struct oom_job *job) {
    CHECK_OK(oom_job_run(job, &result));
    CHECK_EQ(result.status, OOM_OK);
}

/* Gradients of the job's window in f64, at the captured weights of `step`, in one batch. */
static void whole_in_f64(const struct oom_job *job, int step, struct snapshot *out) {
    struct rig rig;
    size_t bytes;
    char model[OOM_SPEC_TEXT_MAX];
    oom_model_spec_text(&job->trainer.spec, model);
    rig_open(&rig, &(struct rig_options){.model = model,
                                         .seed = job->trainer.seed,
                                         .dtype = OOM_F64,
                                         .capacity = 256 << 20,
                                         .gradients = OOM_GRADIENTS_ZEROED});
    float *weights = (float *)(void *)job_file(job, "weights", step, &bytes), *next = weights;
    for (int i = 0; weights != NULL && i < rig.trainer->parameter_count; i++) {
        struct oom_parameter *p = &rig.trainer->parameters[i];
        for (int64_t k = 0; k < oom_parameter_n(p); k++) {
            double wide = (double)*next++;
            rig_upload(&rig, p->value.data + (uint64_t)k * 8, &wide, 8);
        }
    }
    oom_host_free(weights);
    rig.trainer->rng_step = (uint32_t)step;
    rig_window(&rig, job->samples, job->distinct, job->token_weights);
    CHECK_OK(oom_trainer_begin_step(rig.trainer));
    CHECK_OK(oom_trainer_micro_batch(rig.trainer, &rig.window, 0, job->samples,
                                     (struct oom_weighing){.divisor = rig.window.total}));
    snapshot_take(&rig, false, out);
    rig_close(&rig);
}

static struct oom_agreement against(const struct oom_job *job, const struct oom_truth *truth,
                                    int step) {
    size_t bytes;
    float *found = (float *)(void *)job_file(job, "gradients", step, &bytes);
    int64_t terms = job->samples * oom_spec_rows(&job->trainer.spec);
    CHECK_EQ(bytes, truth->n * 4);
    struct oom_agreement agreement =
        oom_compare_bounded(found, truth->gradient, truth->magnitude, truth->n, OOM_F32, terms);
    oom_host_free(found);
    return agreement;
}

static void same_sum(struct oom_job job, int step) {
    struct oom_truth truth;
    struct snapshot whole = {0};
    double worst = 0, scale = 0;
    capture(&job);
    CHECK_OK(oom_truth_make(&job, step, job.samples, &truth));
    whole_in_f64(&job, step, &whole);
    const double *other = (const double *)(void *)whole.bytes;
    if (CHECK(whole.count == (size_t)(truth.n + 1) * 8)) {
        for (int64_t i = 0; i < truth.n; i++) {
            CHECK(truth.magnitude[i] >= fabs(truth.gradient[i]) * (1 - 1e-12));
            worst = fmax(worst, fabs(truth.gradient[i] - other[i]));
            scale = fmax(scale, truth.magnitude[i]);
        }
        CHECK_MSG(worst <= 1e-12 * scale, "worst %g of %g", worst, scale);
        CHECK(fabs(other[truth.n] - truth.loss) <= 1e-12 * truth.loss);
        CHECK(truth.loss_magnitude == truth.loss); /* every loss is above zero */
    }
    CHECK_EQ(truth.branches_wrong, 0);
    struct oom_agreement a = against(&job, &truth, step);
    CHECK_MSG(a.pass && a.error > 0, "the run is %g u|S| from the truth, bound %g", a.error,
              a.bound);
    snapshot_free(&whole);
    oom_truth_free(&truth);
}

/* The run's gradients against truths that are wrong by one thing: far beyond the bound. */
static void one_thing_wrong(const char *model) {
    struct oom_job job = small_job(model, 40, folder);
    struct oom_truth truth;
    capture(&job);
    TEST("truth: one sample of 40 less, or more, is ten bounds away: %s", model);
    for (int more = -1; more <= 1; more += 2) {
        CHECK_OK(oom_truth_make(&job, 0, 40 + more, &truth));
        struct oom_agreement a = against(&job, &truth, 0);
        CHECK_MSG(!a.pass && a.error > 10 * a.bound, "%g of %g", a.error, a.bound);
        oom_truth_free(&truth);
    }
    TEST("truth: the gradients of another step are far away: %s", model);
    CHECK_OK(oom_truth_make(&job, 1, 40, &truth));
    CHECK(against(&job, &truth, 1).pass);
    CHECK(!against(&job, &truth, 0).pass);
    oom_truth_free(&truth);
    TEST("truth: other token weights are far away: %s", model);
    job.token_weights = true;
    CHECK_OK(oom_truth_make(&job, 0, 40, &truth));
    CHECK(!against(&job, &truth, 0).pass);
    oom_truth_free(&truth);
}

/* ---- branches ---- */

static void flip_bit(const struct oom_job *job, int step, long at) {
    char path[OOM_JOB_PATH_MAX + 32];
    uint8_t byte;
    oom_job_path(job, "branches", step, path);
    int file = open(path, O_RDWR | O_CLOEXEC);
    CHECK_EQ(pread(file, &byte, 1, at), 1);
    byte ^= 1;
    CHECK_EQ(pwrite(file, &byte, 1, at), 1);
    close(file);
}

static void branches(void) {
    struct oom_job job = small_job("mlp,layers=2,width=16,rows=4,vocab=5", 9, folder);
    struct oom_truth truth, turned;
    capture(&job);
    TEST("truth: a branch that the run cannot have taken is counted as wrong, and is followed");
    CHECK_OK(oom_truth_make(&job, 0, 9, &truth));
    CHECK_EQ(truth.branches_differ, 0);
    const long bytes = 4 * 16;
    for (int layer = 0; layer < 2; layer++) {
        for (int sample = 0; sample < 4; sample++) {
            long at = (layer * 4 + sample) * bytes + sample;
            flip_bit(&job, 0, at);
            CHECK_OK(oom_truth_make(&job, 0, 9, &turned));
            if (layer == 1) CHECK_EQ(turned.branches_differ, 1); /* a lower one moves those above */
            CHECK(turned.branches_differ >= 1 && turned.branches_wrong >= 1);
            CHECK(memcmp(truth.gradient, turned.gradient, (size_t)truth.n * 8) != 0);
            oom_truth_free(&turned);
            flip_bit(&job, 0, at);
        }
    }
    oom_truth_free(&truth);
    TEST("truth: files cut short are refused");
    static const char *const names[] = {"branches", "weights"};
    for (int i = 0; i < 2; i++) {
        char path[OOM_JOB_PATH_MAX + 32];
        oom_job_path(&job, names[i], 0, path);
        CHECK_EQ(truncate(path, 40), 0);
        CHECK_EQ(oom_truth_make(&job, 0, 9, &truth), OOM_IO);
        CHECK(truth.gradient == NULL && truth.magnitude == NULL);
        oom_failure_clear();
    }
}

void truth_test(void) {
    static const char gpt[] = "gpt,layers=2,width=16,heads=2,context=16,vocab=64";
    static const char mlp[] = "mlp,layers=2,width=16,rows=4,vocab=5";
    folder_make(folder, sizeof folder);
    uint64_t before = oom_host_bytes_current();
    TEST("truth: sample by sample is the whole window in f64: gpt, repeats and token weights");
    struct oom_job job = small_job(gpt, 11, folder);
    job.token_weights = true;
    same_sum(job, 0);
    same_sum(job, 1);
    TEST("truth: the same with dropout and a tied head, 3 samples of at most 4");
    job = small_job("gpt,layers=1,width=16,heads=4,context=9,vocab=31,tied=1,dropout=0.125", 3,
                    folder);
    job.distinct = 3;
    same_sum(job, 1);
    TEST("truth: the same for mlp, with dropout and uneven micro-batches in the run");
    job = small_job("mlp,layers=3,width=16,rows=4,vocab=5,dropout=0.125", 13, folder);
    job.micro = job.uneven = true;
    job.most = 4;
    same_sum(job, 0);
    same_sum(job, 1);
    one_thing_wrong(gpt);
    one_thing_wrong(mlp);
    branches();
    TEST("truth: nothing is left");
    CHECK_EQ(oom_host_bytes_current(), before);
    folder_remove(folder);
}
