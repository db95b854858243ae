/*
 * job-test.c: a job on the dry and on the host device, the files it leaves, and that its bits do
 * not depend on threads, schedule or instruction set; files cut short are refused.
 */
#include "harness/verify/job.h"

#include "harness/verify/job-testing.h"
#include "kernels/hostmem.h"

void job_test(void);

static char folder[64];
static struct oom_job_result result, other;

static void run(const struct oom_job *job, struct oom_job_result *out) {
    uint64_t before = oom_host_bytes_current();
    oom_failure_clear();
    CHECK_OK(oom_job_run(job, out));
    oom_failure_clear();
    CHECK_EQ(oom_host_bytes_current(), before);
}

static int64_t elements_of(const struct oom_job *job) {
    const struct oom_model *model = oom_model_of(&job->trainer.spec);
    int64_t n = 0;
    for (int i = 0; i < model->count(&job->trainer.spec); i++) {
        struct oom_parameter p = {.rows = 0};
        model->describe(&job->trainer.spec, i, &p);
        n += oom_parameter_n(&p);
    }
    return n;
}

static void check_size(const struct oom_job *job, const char *what, int step, int64_t expected) {
    size_t bytes;
    oom_host_free(job_file(job, what, step, &bytes));
    CHECK_EQ(bytes, expected);
}

#define GPT "gpt,layers=2,width=16,heads=2,context=16,vocab=64"
#define MLP "mlp,layers=2,width=16,rows=4,vocab=5"

static void finished_job(const char *model) {
    struct oom_job job = small_job(model, 6, folder), dry = job;
    int64_t n = elements_of(&job);
    TEST("job: a finished job: every check made, none failed, nothing left: %s", model);
    run(&job, &result);
    CHECK_EQ(result.status, OOM_OK);
    CHECK_EQ(result.steps_done, 2);
    CHECK(result.peaks_agree && result.torn_down);
    CHECK_EQ(result.left_allocated, 0);
    CHECK_EQ(result.left_reserved, 0);
    CHECK_EQ(result.parameter_checks, 2);
    CHECK(result.canary_checks > 0 && result.canary_bad == 0 && result.parameter_bad == 0);
    CHECK(!result.oom.valid && result.restored_checks == 0);
    for (int i = 0; i < 2; i++) {
        CHECK(result.steps[i].captured && result.steps[i].loss > 0);
        CHECK_EQ(result.steps[i].samples, 6);
        CHECK_EQ(result.steps[i].size, 6);
        check_size(&job, "gradients", i, 4 * n);
        check_size(&job, "weights", i, 4 * n);
    }
    CHECK(result.steps[0].gradients != result.steps[1].gradients);
    check_size(&job, "state", -1,
               3 * 4 * n + 8 + 4 * 4); /* weights, m, v; steps; draws and scale */
    if (job.trainer.spec.kind == OOM_MODEL_MLP) check_size(&job, "branches", 1, 2 * 4 * 64);
    TEST("job: the dry device has the same peaks: %s", model);
    snprintf(dry.device, sizeof dry.device, "dry");
    dry.capture = false;
    run(&dry, &other);
    CHECK_EQ(other.status, OOM_OK);
    CHECK_EQ(other.peak_device, result.peak_device);
    CHECK_EQ(other.peak_reserved, result.peak_reserved);
    CHECK_EQ(other.peak_allocated, result.peak_allocated);
    CHECK(memcmp(other.tag_at_peak, result.tag_at_peak, sizeof result.tag_at_peak) == 0);
    CHECK_EQ(other.device_allocations, result.device_allocations);
}

static void same_bits(const char *model) {
    struct oom_job job = small_job(model, 6, folder);
    job.capture = false;
    TEST("job: threads, schedule and instruction set change no bit: %s", model);
    run(&job, &result);
    for (int i = 0; i < 3 * OOM_SCHEDULE_COUNT * OOM_ISA_COUNT; i++) {
        job.threads = 1 + i % 3;
        job.schedule = (enum oom_schedule)(i / 3 % OOM_SCHEDULE_COUNT);
        job.isa = (enum oom_isa)(i / 3 / OOM_SCHEDULE_COUNT);
        run(&job, &other);
        if (other.status == OOM_ABSENT || other.status == OOM_UNSUPPORTED ||
            other.status == OOM_USAGE) {
            continue; /* not an instruction set of this machine */
        }
        CHECK_EQ(other.status, OOM_OK);
        for (int k = 0; k < 2; k++) {
            CHECK_MSG(other.steps[k].gradients == result.steps[k].gradients &&
                          other.steps[k].loss == result.steps[k].loss,
                      "step %d, %d threads, %s, %s", k, job.threads,
                      oom_schedule_name(job.schedule), oom_isa_name(job.isa));
        }
    }
    TEST("job: another seed gives other bits: %s", model);
    job = small_job(model, 6, folder);
    job.capture = false;
    job.trainer.seed++;
    run(&job, &other);
    CHECK(other.steps[0].gradients != result.steps[0].gradients);
}

static void out_of_memory(void) {
    struct oom_job job = small_job("mlp,layers=4,width=64,rows=64", 512, folder);
    job.capacity = 32 << 20;
    job.capture = false;
    TEST("job: an OOM is a result: which attempt, what for, how many bytes");
    run(&job, &result);
    CHECK_EQ(result.status, OOM_NOMEM);
    CHECK_EQ(result.steps_done, 0);
    CHECK_EQ(result.attempt_count, 1);
    CHECK(result.oom.valid && !result.oom.injected && result.oom.requested > 0);
    CHECK(result.oom.site[0] != 0 && result.message[0] != 0);
    CHECK_EQ(result.attempts[0].status, OOM_NOMEM);
    CHECK(result.peak_device <= job.capacity && !result.torn_down);
    TEST("job: halving ends at a size that fits, with the state restored at each retry");
    job.rule = OOM_RULE_HALVING;
    run(&job, &result);
    CHECK_EQ(result.status, OOM_OK);
    CHECK(result.attempt_count > 2 && result.steps[0].size < 512);
    CHECK_EQ(result.restored_checks, result.attempt_count - 2);
    CHECK_EQ(result.restored_bad, 0);
    int64_t found = result.steps[0].size;
    TEST("job: planned ends at the largest size, with no OOM on the way; one more is one too many");
    job.rule = OOM_RULE_PLANNED;
    run(&job, &result);
    CHECK_EQ(result.status, OOM_OK);
    CHECK_EQ(result.attempt_count, 2);
    CHECK(result.steps[0].size >= found && result.peaks_agree);
    job.rule = OOM_RULE_FIXED;
    job.most = result.steps[0].size + 1;
    run(&job, &result);
    CHECK_EQ(result.status, OOM_NOMEM);
}

/* Tensors held over the failure are seen by the check, and the retry starves. */
static void wrong_recovery(void) {
    struct oom_job job = small_job("mlp,layers=4,width=64,rows=64", 512, folder);
    job.capacity = 32 << 20;
    job.capture = false;
    job.rule = OOM_RULE_HALVING;
    job.recovery = OOM_RECOVERY_HELD;
    TEST("job: a failed step's tensors that stay are a state not restored");
    run(&job, &result);
    CHECK(result.restored_checks > 0);
    CHECK_EQ(result.restored_bad, result.restored_checks);
    CHECK_STR(result.restored_why, "allocated bytes differ");
}

/* ---- files ---- */

static void cut_file(const char *what, long bytes) {
    char path[OOM_JOB_PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/%s", folder, what);
    CHECK_EQ(truncate(path, bytes), 0);
}

static void round_trip(void) {
    struct oom_job job = small_job(MLP, 5, folder);
    static struct oom_job back;
    TEST("job: a job survives its file");
    job.uneven = true;
    job.sizes[1] = 77;
    job.settings.roundup_power2_divisions[3] = 4;
    CHECK_OK(oom_job_write(&job));
    CHECK_OK(oom_job_read(folder, &back));
    CHECK(memcmp(&job, &back, sizeof job) == 0);
    TEST("job: a result survives its file");
    run(&job, &result);
    CHECK_OK(oom_job_result_write(&job, &result));
    CHECK_OK(oom_job_result_read(&job, &other));
    other.magic = result.magic;
    CHECK(memcmp(&result, &other, sizeof result) == 0);
    TEST("job: files cut short, or longer, are refused");
    const long sizes[] = {0, 1, (long)sizeof result - 1, (long)sizeof result + 1};
    for (int i = 0; i < 4; i++) {
        cut_file("result", sizes[i]);
        CHECK(oom_job_result_read(&job, &other) != OOM_OK);
        CHECK(strstr(oom_failure_last()->message, "result") != NULL);
        oom_failure_clear();
    }
    cut_file("job", (long)sizeof job - 1);
    CHECK_EQ(oom_job_read(folder, &back), OOM_IO);
    oom_failure_clear();
    TEST("job: bytes of the right number that are no result are refused");
    cut_file("result", 0);
    cut_file("result", (long)sizeof result);
    CHECK_EQ(oom_job_result_read(&job, &other), OOM_IO);
    CHECK(strstr(oom_failure_last()->message, "no result") != NULL);
    oom_failure_clear();
    TEST("job: a folder that is not there is a failure that names the file");
    snprintf(job.directory, sizeof job.directory, "%s/nowhere", folder);
    CHECK_EQ(oom_job_result_read(&job, &other), OOM_IO);
    CHECK(strstr(oom_failure_last()->message, "nowhere") != NULL);
    oom_failure_clear();
    run(&job, &result);
    CHECK_EQ(result.status, OOM_IO);
    CHECK(strstr(result.message, "nowhere") != NULL);
}

void job_test(void) {
    folder_make(folder, sizeof folder);
    finished_job(GPT);
    finished_job(MLP);
    same_bits(GPT);
    same_bits(MLP ",dropout=0.125");
    out_of_memory();
    wrong_recovery();
    round_trip();
    folder_remove(folder);
}
