/*
 * golden-test.c: every model's gradients in f64 against those of PyTorch's autograd, from the files
 * in goldens/ (made by ci/oracle/make-goldens.py, which says what is in them):
 * |found - golden| <= 1e-12 |S|, S = sum over samples of |g_s|.
 */
#include "harness/train/given.h"
#include "harness/train/train-testing.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

void golden_test(void);

static const char *const names[] = {"mlp",      "mlp-dropout", "gpt-tiled", "gpt-scores",
                                    "gpt-tied", "cnn-batch",   "cnn-group"};
enum { GOLDENS = sizeof names / sizeof names[0], ELEMENTS_MAX = 1024 };

static const double tolerance = 1e-12;

struct golden {
    struct oom_safetensors file;
    struct oom_given given;
    double largest; /* of the magnitudes */
};

/* Elements of a tensor of the file; NaN, which agrees with nothing, where it is not there. */
static void read_golden(const struct golden *golden, const char *kind, const char *name, int64_t n,
                        double *out) {
    char full[96];
    snprintf(full, sizeof full, "%s%s", kind, name);
    const struct oom_safetensors_tensor *tensor = oom_safetensors_find(&golden->file, full);
    for (int64_t i = 0; i < n; i++) out[i] = NAN;
    bool good = tensor != NULL && tensor->dtype == OOM_F64 && (int64_t)tensor->count == n;
    if (CHECK_MSG(good, "%s: %lld elements of f64", full, (long long)n)) {
        CHECK_OK(oom_safetensors_copy(tensor, 0, (uint64_t)n, out));
    }
}

static void find_largest(struct golden *golden) {
    static const char kind[] = "magnitude.";
    golden->largest = 0;
    for (int i = 0; i < golden->file.count; i++) {
        const char *name = golden->file.tensors[i].name;
        double value;
        if (strncmp(name, kind, sizeof kind - 1) != 0) continue;
        read_golden(golden, "", name, 1, &value);
        golden->largest = fmax(golden->largest, value);
    }
    CHECK(golden->largest > 0);
}

static bool golden_open(struct golden *golden, const char *name, struct rig *rig) {
    static char path[96]; /* the file's messages borrow it */
    snprintf(path, sizeof path, "harness/train/goldens/%s.safetensors", name);
    enum oom_status status = oom_safetensors_open(path, &golden->file);
    if (!CHECK_MSG(status == OOM_OK, "%s: %s", path, oom_failure_last()->message)) return false;
    const char *model = oom_safetensors_metadata(&golden->file, "model");
    const char *seed = oom_safetensors_metadata(&golden->file, "seed");
    if (!CHECK(model != NULL && seed != NULL)) return false;
    struct rig_options options = {
        .model = model, .dtype = OOM_F64, .seed = strtoull(seed, NULL, 10)};
    rig_open(rig, &options);
    const struct oom_model_spec *spec = &rig->trainer->options.spec;
    CHECK_OK(oom_given_weights(rig->trainer, &golden->file));
    CHECK_OK(oom_given_batch(&golden->file, spec, OOM_F64, &golden->given));
    oom_given_window(&golden->given, spec, &rig->source, &rig->window);
    find_largest(golden);
    return true;
}

/* ---- comparing ---- */

static double distance(const double *a, const double *b, int64_t n) {
    double squares = 0;
    for (int64_t i = 0; i < n; i++) squares += (a[i] - b[i]) * (a[i] - b[i]);
    return sqrt(squares);
}

static void compare(const char *name, const double *found, const double *expected, int64_t n,
                    double magnitude) {
    double error = distance(found, expected, n), bound = tolerance * magnitude;
    CHECK_MSG(error <= bound, "%s: |found - golden| is %g, allowed %g", name, error, bound);
}

static void compare_gradients(const struct golden *golden, const struct rig *rig,
                              const struct snapshot *step) {
    double expected[ELEMENTS_MAX], magnitude;
    const double *found = (const double *)(const void *)step->bytes;
    for (int i = 0; i < rig->trainer->parameter_count; i++) {
        const struct oom_parameter *p = &rig->trainer->parameters[i];
        int64_t n = oom_parameter_n(p);
        if (!CHECK(n <= ELEMENTS_MAX)) return;
        read_golden(golden, "grad.", p->name, n, expected);
        read_golden(golden, "magnitude.", p->name, 1, &magnitude);
        if (magnitude < 1e-12 * golden->largest) magnitude = golden->largest;
        compare(p->name, found, expected, n, magnitude);
        found += n;
    }
    read_golden(golden, "", "loss", 1, expected);
    read_golden(golden, "", "loss_magnitude", 1, &magnitude);
    compare("loss", found, expected, 1, magnitude);
}

static void compare_statistics(const struct golden *golden, struct rig *rig) {
    double expected[ELEMENTS_MAX], found[ELEMENTS_MAX];
    static const double nothing[ELEMENTS_MAX] = {0};
    for (int i = 0; i < rig->trainer->statistic_count; i++) {
        const struct oom_statistic *statistic = &rig->trainer->statistics[i];
        if (!CHECK(statistic->n <= ELEMENTS_MAX)) return;
        rig_download(rig, statistic->value.data, found, (uint64_t)statistic->n * sizeof *found);
        read_golden(golden, "after.", statistic->name, statistic->n, expected);
        compare(statistic->name, found, expected, statistic->n,
                distance(expected, nothing, statistic->n));
    }
}

/* A batch norm's micro-batches have statistics of their own: it is compared in one piece only. */
static void test_golden(const char *name, bool cut) {
    struct golden golden = {0};
    struct rig rig;
    struct snapshot step = {0};
    TEST("%s as PyTorch's autograd has it in f64%s", name, cut ? ", sample by sample" : "");
    if (golden_open(&golden, name, &rig)) {
        int64_t samples = cut ? 1 : rig.window.samples;
        CHECK_OK(rig_step(&rig, (struct oom_cut){samples, false}, &step));
        if (CHECK(step.bytes != NULL)) compare_gradients(&golden, &rig, &step);
        compare_statistics(&golden, &rig);
        snapshot_free(&step);
        rig_close(&rig);
    }
    oom_safetensors_close(&golden.file);
}

void golden_test(void) {
    for (int i = 0; i < GOLDENS; i++) {
        test_golden(names[i], false);
        if (strcmp(names[i], "cnn-batch") != 0) test_golden(names[i], true);
    }
}
