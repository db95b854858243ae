/* skips-test.c: what is noticed of a step that was left out, and of the loss scale's moves. */
#include "harness/verify/skips.h"

#include "harness/verify/job-testing.h"

void skips_test(void);

static const char model[] = "cnn,layers=2,width=4,image=4,norm=batch,groups=2";

/* Two halvings of the scale away from a step that can be taken, as long as nothing is wrong. */
static void left_out(void) {
    char folder[64];
    struct oom_job_result *result = oom_host_alloc(sizeof *result);
    TEST("skips: steps that overflow are left out until one does not, and are found right");
    folder_make(folder, sizeof folder);
    struct oom_job job = small_job(model, 4, folder);
    job.capture = false;
    job.steps = 8;
    job.trainer.amp = OOM_AMP_F16;
    job.trainer.scaler = oom_scaler_default();
    job.trainer.scaler.initial = 0x1p20;
    CHECK_OK(oom_job_run(&job, result));
    CHECK_EQ(result->status, OOM_OK);
    CHECK(result->skipped > 0 && result->skipped < job.steps);
    CHECK_EQ(result->skip_checks, job.steps);
    CHECK_EQ(result->skip_bad, 0);
    double scale = 0x1p20;
    for (int i = 0; i < job.steps; i++) {
        CHECK((double)result->steps[i].scale == scale);
        CHECK(result->steps[i].skipped != result->steps[i].captured);
        if (result->steps[i].skipped) scale /= 2;
    }
    folder_remove(folder);
    oom_host_free(result);
}

/* ---- each thing that can be wrong, one at a time ---- */

struct rig {
    struct oom_session session;
    struct oom_trainer *trainer;
    struct oom_state_print before, ready;
    struct oom_job_result result;
};

/* A trainer after a step left out, as it should be. */
static void rig_open(struct rig *rig) {
    struct oom_device_options device = {.capacity = 32 << 20, .threads = 1};
    struct oom_allocator_settings settings = oom_allocator_settings_default();
    struct oom_trainer_options options = {.seed = 1, .amp = OOM_AMP_F16};
    *rig = (struct rig){.session = {.dtype = OOM_F32}};
    CHECK_OK(oom_model_spec_parse(model, &options.spec));
    CHECK_OK(oom_device_open("host", &device, &rig->session.device));
    CHECK_OK(oom_allocator_create(rig->session.device, &settings, &rig->session.allocator));
    CHECK_OK(oom_trainer_create(&rig->session, &options, &rig->trainer));
    CHECK_OK(oom_state_take(rig->trainer, &rig->before));
    rig->ready = rig->before;
    rig->trainer->rng_step++;
    rig->trainer->scaler.scale /= 2;
}

static void rig_close(struct rig *rig) {
    oom_trainer_destroy(rig->trainer);
    oom_allocator_destroy(rig->session.allocator);
    oom_device_close(rig->session.device);
}

/* What is said of the step; "" when nothing is. */
static const char *judge(struct rig *rig, bool left, uint64_t nonfinite) {
    struct oom_skip_watch watch = {.left_out = left, .ready = rig->ready, .nonfinite = nonfinite};
    rig->result = (struct oom_job_result){0};
    CHECK_OK(oom_skip_after(&watch, rig->trainer, &rig->before, 0, &rig->result));
    CHECK(!watch.left_out);
    CHECK_EQ(rig->result.skip_checks, 1);
    CHECK_EQ(rig->result.skip_bad, rig->result.skip_why[0] != 0);
    return rig->result.skip_why;
}

static void noticed(void) {
    struct rig rig;
    TEST("skips: each thing that a step left out must not do is noticed");
    rig_open(&rig);
    CHECK_STR(judge(&rig, true, 1), "");
    CHECK_STR(judge(&rig, true, 0), "step 0: a step with finite gradients was left out");
    rig.before.weights ^= 1;
    CHECK_STR(judge(&rig, true, 1), "step 0: weights changed");
    rig.before.weights ^= 1;
    rig.trainer->optimizer_steps++;
    CHECK_STR(judge(&rig, true, 1), "step 0: optimizer state changed");
    rig.trainer->optimizer_steps--;
    rig.ready.statistics ^= 1;
    CHECK_STR(judge(&rig, true, 1), "step 0: batch statistics are not those that the forward left");
    rig.ready.statistics ^= 1;
    rig.trainer->rng_step--;
    CHECK_STR(judge(&rig, true, 1), "step 0: random numbers are not those that the forward left");
    rig.trainer->rng_step++;
    rig.before.allocated++;
    CHECK_STR(judge(&rig, true, 1), "step 0: allocated bytes differ");
    rig.before.allocated--;
    rig_close(&rig);
}

static void scale_watched(void) {
    static const char wrong[] = "step 0: the loss scale is not the one that GradScaler would have";
    struct rig rig;
    TEST("skips: a scale that moves otherwise than GradScaler's is noticed");
    rig_open(&rig);
    rig.trainer->scaler.clean = 1;
    CHECK_STR(judge(&rig, true, 1), wrong);
    rig.trainer->scaler.scale *= 2;
    CHECK_STR(judge(&rig, true, 1), wrong);
    CHECK_STR(judge(&rig, false, 0), ""); /* a clean step counts, and leaves the scale */
    rig.trainer->scaler.scale *= 2;
    CHECK_STR(judge(&rig, false, 0), wrong);
    rig.before.scale = (uint64_t)1999 << 32 | (uint32_t)rig.before.scale;
    rig.trainer->scaler.clean = 0; /* the 2000th in a row */
    CHECK_STR(judge(&rig, false, 0), "");
    rig_close(&rig);
}

void skips_test(void) {
    left_out();
    noticed();
    scale_watched();
}
