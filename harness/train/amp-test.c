/*
 * amp-test.c: mixed precision: which layer runs in what, the half copies, gradients that do not
 * depend on the cut, and the loss scale, against the rule of GradScaler and a recording of it
 * (goldens/grad-scaler.txt, made by ci/oracle/grad-scaler.py, which says what is in it).
 */
#include "harness/train/amp.h"
#include "harness/train/train-testing.h"

#include <math.h>
#include <stdio.h>

void amp_test(void);

static const char gpt[] = "gpt,layers=2,width=16,heads=2,context=11,vocab=31";
static const char mlp[] = "mlp,layers=3,width=20,rows=5,vocab=7";
static const char cnn[] = "cnn,layers=2,width=8,image=8,norm=group";
static const char cnn_batch[] = "cnn,layers=2,width=8,image=8,norm=batch";

static const char *const names[] = {[OOM_AMP_F16] = "f16", [OOM_AMP_BF16] = "bf16"};

enum { SAMPLES = 7 };

static void amp_open(struct rig *rig, const char *model, enum oom_amp amp) {
    struct rig_options o = {.model = model};
    struct oom_trainer_options options = rig_trainer_options(&o);
    options.amp = amp;
    options.optimizer = OOM_OPTIMIZER_ADAMW;
    rig_open_allocator(rig, &o);
    CHECK_OK(oom_trainer_create(&rig->session, &options, &rig->trainer));
    rig_window(rig, SAMPLES, 4, false);
}

/* ---- which layers run in what ---- */

static void table(enum oom_amp amp, enum oom_dtype half) {
    struct rig rig;
    TEST("amp: which layers run in what: %s", names[amp]);
    amp_open(&rig, mlp, amp);
    const struct oom_trainer *t = rig.trainer;
    CHECK_EQ(oom_layer_dtype(t, OOM_LAYER_LINEAR, OOM_F32), half);
    CHECK_EQ(oom_layer_dtype(t, OOM_LAYER_CONVOLUTION, OOM_F32), half);
    CHECK_EQ(oom_layer_dtype(t, OOM_LAYER_ATTENTION, OOM_F32), half);
    CHECK_EQ(oom_layer_dtype(t, OOM_LAYER_EMBEDDING, OOM_F32), OOM_F32);
    CHECK_EQ(oom_layer_dtype(t, OOM_LAYER_NORM, OOM_F32), OOM_F32);
    CHECK_EQ(oom_layer_dtype(t, OOM_LAYER_NORM, half), half);
    CHECK_EQ(oom_layer_dtype(t, OOM_LAYER_POINTWISE, half), half);
    CHECK_EQ(oom_layer_dtype(t, OOM_LAYER_LOSS, half), half);
    CHECK_EQ(oom_layer_dtype(t, OOM_LAYER_SUM, OOM_F32), OOM_F32);
    for (int i = 0; i < OOM_LAYER_COUNT; i++) {
        CHECK(oom_layer_name((enum oom_layer)i)[0] != 0);
        CHECK(oom_layer_rule((enum oom_layer)i)[0] != 0);
        CHECK(oom_layer_why((enum oom_layer)i)[0] != 0);
    }
    rig_close(&rig);
}

static void f64_refused(void) {
    struct rig rig;
    struct rig_options o = {.model = mlp, .dtype = OOM_F64};
    struct oom_trainer_options options = rig_trainer_options(&o);
    TEST("amp: beside f64 it is refused, and nothing is left");
    rig_open_allocator(&rig, &o);
    options.amp = OOM_AMP_BF16;
    CHECK_EQ(oom_trainer_create(&rig.session, &options, &rig.trainer), OOM_USAGE);
    CHECK(rig.trainer == NULL);
    oom_failure_clear();
    rig_close(&rig);
}

/* ---- half copies ---- */

static void copies(const char *model, enum oom_amp amp) {
    struct rig rig;
    TEST("amp: %s: weights' half copies live as long as the micro-batch: %s", names[amp], model);
    amp_open(&rig, model, amp);
    struct oom_trainer *t = rig.trainer;
    struct oom_weighing weighing = {.divisor = rig.window.total};
    int made = 0;
    CHECK_OK(oom_trainer_begin_step(t));
    CHECK_OK(oom_trainer_load(t, &rig.window, 0, 3, weighing));
    CHECK_OK(oom_stages_forward(t));
    for (int i = 0; i < t->parameter_count; i++) {
        const struct oom_parameter *p = &t->parameters[i];
        bool matrix = strstr(p->name, "weight") != NULL;
        CHECK_MSG((p->half.data != 0) == matrix, "%s", p->name);
        if (matrix) CHECK_EQ(p->half.dtype, amp == OOM_AMP_F16 ? OOM_F16 : OOM_BF16);
        made += matrix;
    }
    CHECK(made > 0);
    CHECK_OK(oom_trainer_drop(t));
    CHECK_OK(oom_trainer_micro_batch(t, &rig.window, 0, 3, weighing));
    for (int i = 0; i < t->parameter_count; i++) CHECK_EQ(t->parameters[i].half.data, 0);
    CHECK_OK(oom_trainer_drop(t));
    CHECK_OK(oom_trainer_clear_gradients(t));
    rig_close(&rig);
}

/* ---- gradients are wide: adding up does not depend on the cut ---- */

static void same_bits(const char *model, enum oom_amp amp) {
    static const struct oom_cut cuts[] = {
        {.micro = 1}, {.micro = 3}, {.micro = 4, .uneven = true}, {.micro = 6}};
    struct rig rig;
    struct snapshot whole = {0}, cut = {0};
    TEST("amp: %s: gradients and loss are equal bits for any cut: %s", names[amp], model);
    amp_open(&rig, model, amp);
    CHECK_OK(rig_step(&rig, (struct oom_cut){.micro = SAMPLES}, &whole));
    rig_close(&rig);
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        amp_open(&rig, model, amp);
        CHECK_OK(rig_step(&rig, cuts[i], &cut));
        CHECK(snapshot_same(&whole, &cut));
        rig_close(&rig);
    }
    snapshot_free(&whole);
    snapshot_free(&cut);
}

/* ---- the loss scale: a recording of PyTorch's ---- */

struct recording {
    struct oom_scaler scaler;
    struct oom_scaler_options options;
    bool bad[10001];
    int steps, settings, differ;
};

static void play(struct recording *r, int first, int count, float scale, int tracker, int each) {
    for (int i = 0; i < count; i++) {
        r->scaler.found = r->bad[first + i];
        oom_scaler_update(&r->scaler, &r->options);
        bool same = r->scaler.scale == scale && r->scaler.clean == tracker + i * each;
        if (!same && r->differ++ == 0) {
            CHECK_MSG(false, "step %d: scale %a, %d clean; PyTorch has %a, %d", first + i,
                      (double)r->scaler.scale, r->scaler.clean, (double)scale, tracker + i * each);
        }
        r->steps++;
    }
}

static void read_line(struct recording *r, const char *line) {
    enum { STEPS_MAX = 10000 };
    int first, count, tracker, each;
    double a, b, c;
    if (sscanf(line, "setting %d %la %la %la %d", &first, &a, &b, &c, &count) == 5) {
        r->options = (struct oom_scaler_options){
            .initial = (float)a, .growth = b, .backoff = c, .interval = count};
        r->scaler = (struct oom_scaler){.on = true, .scale = (float)a};
        memset(r->bad, 0, sizeof r->bad);
        CHECK(first <= STEPS_MAX);
        r->settings++;
    } else if (sscanf(line, "bad %d %d", &first, &count) == 2) {
        for (int i = first; i < first + count && i < STEPS_MAX; i++) r->bad[i] = true;
    } else if (sscanf(line, "run %d %d %la %d %d", &first, &count, &a, &tracker, &each) == 5) {
        if (CHECK(first + count <= STEPS_MAX)) play(r, first, count, (float)a, tracker, each);
    } else {
        CHECK_MSG(line[0] == '#' || strncmp(line, "end", 3) == 0, "'%s'", line);
    }
}

static void golden(void) {
    static struct recording r;
    char line[160];
    TEST("amp: the loss scale moves as torch.amp.GradScaler's over a recording of it");
    FILE *file = fopen("harness/train/goldens/grad-scaler.txt", "re");
    CHECK(file != NULL);
    while (file != NULL && fgets(line, sizeof line, file) != NULL) read_line(&r, line);
    if (file != NULL) fclose(file);
    CHECK_EQ(r.differ, 0);
    CHECK(r.settings >= 6);
    CHECK(r.steps >= 20000);
}

static void growth_ends(void) {
    struct oom_scaler_options options = {
        .initial = 0x1p127F, .growth = 2, .backoff = 0.5F, .interval = 1};
    struct oom_scaler scaler = {.on = true, .scale = options.initial};
    TEST("amp: the scale does not grow to infinity");
    for (int i = 0; i < 5; i++) oom_scaler_update(&scaler, &options);
    CHECK(scaler.scale == 0x1p127F);
    CHECK_EQ(scaler.clean, 0);
    CHECK_EQ(scaler.skipped, 0);
}

/* ---- unscaling ---- */

struct count {
    int ready, found;
    bool unscaled;
};

static enum oom_status count_windows(void *context, struct oom_trainer *t,
                                     const struct oom_window *window) {
    struct count *count = context;
    (void)window;
    count->ready++;
    count->found += t->scaler.found;
    count->unscaled = t->scaler.unscaled;
    CHECK_EQ(oom_unscale(t), OOM_INVALID); /* a second time */
    oom_failure_clear();
    return OOM_OK;
}

static void once_a_window(void) {
    struct rig rig;
    struct count count = {0};
    TEST("amp: one unscale a window of many micro-batches; a second is refused");
    amp_open(&rig, gpt, OOM_AMP_F16);
    struct oom_gradients_ready ready = {&count, count_windows};
    CHECK_OK(oom_window_run(rig.trainer, &rig.window, (struct oom_cut){.micro = 2}, ready));
    CHECK_EQ(count.ready, 1);
    CHECK(count.unscaled);
    CHECK(!rig.trainer->scaler.unscaled); /* the update ended it */
    CHECK_EQ(rig.trainer->scaler.clean, 1);
    rig_close(&rig);
}

static void bf16_unscaled(void) {
    struct rig rig;
    TEST("amp: bf16 has no scaler");
    amp_open(&rig, gpt, OOM_AMP_BF16);
    CHECK(!rig.trainer->scaler.on);
    CHECK(oom_loss_scale(rig.trainer) == 1.0);
    CHECK_EQ(rig.trainer->found.data, 0);
    CHECK_OK(oom_unscale(rig.trainer));
    CHECK_OK(oom_unscale(rig.trainer));
    rig_close(&rig);
}

/* ---- a step left out ---- */

struct poison {
    float value;
    int parameter;
};

/* One element of one gradient; then the window's end as accumulate.c has it. */
static void poisoned(const char *model, struct poison poison) {
    struct rig rig;
    struct snapshot before = {0}, after = {0};
    TEST("amp: %f in one gradient element of parameter %d leaves the step out: %s",
         (double)poison.value, poison.parameter, model);
    amp_open(&rig, model, OOM_AMP_F16);
    struct oom_trainer *t = rig.trainer;
    struct oom_parameter *p = &t->parameters[poison.parameter];
    CHECK_OK(rig_step(&rig, (struct oom_cut){.micro = SAMPLES}, NULL));
    snapshot_take(&rig, true, &before);
    before.count -= rig_real(&rig); /* without the loss */
    CHECK_OK(oom_trainer_begin_step(t));
    CHECK_OK(oom_trainer_micro_batch(t, &rig.window, 0, SAMPLES,
                                     (struct oom_weighing){.divisor = rig.window.total}));
    rig_upload(&rig, p->gradient.data + 4 * (uint64_t)(oom_parameter_n(p) - 1), &poison.value, 4);
    CHECK_OK(oom_unscale(t));
    CHECK(t->scaler.found);
    CHECK_OK(oom_trainer_update(t));
    CHECK_OK(oom_trainer_end_step(t));
    snapshot_take(&rig, true, &after);
    after.count -= rig_real(&rig);
    CHECK(snapshot_same(&before, &after));
    CHECK_EQ(t->optimizer_steps, 1);
    CHECK_EQ(t->rng_step, 2);
    CHECK_EQ(t->scaler.skipped, 1);
    CHECK(t->scaler.scale == 32768.0F);
    CHECK_OK(rig_step(&rig, (struct oom_cut){.micro = SAMPLES}, NULL)); /* and on it goes */
    CHECK_EQ(t->optimizer_steps, 2);
    snapshot_free(&before);
    snapshot_free(&after);
    rig_close(&rig);
}

/* ---- what a scale is for: gradients of all magnitudes from 2^-40 to 2^-9 ---- */

static int lost(struct rig *rig, double scale) {
    enum { OCTAVES = 32, EACH = 8, N = OCTAVES * EACH };
    struct oom_tensor x, y;
    float values[N];
    uint16_t halves[N];
    int zeros = 0;
    for (int i = 0; i < N; i++) {
        values[i] = (float)(scale * ldexp(1 + (i % EACH) / (double)EACH, -40 + i / EACH));
    }
    CHECK_OK(oom_scope_alloc(&rig->trainer->scope, sizeof values, OOM_TAG_OTHER, "x", &x));
    x.dtype = OOM_F32;
    rig_upload(rig, x.data, values, sizeof values);
    CHECK_OK(oom_cast(rig->trainer, OOM_F16, N, &x, "y", &y));
    rig_download(rig, y.data, halves, sizeof halves);
    for (int i = 0; i < N; i++) {
        zeros += halves[i] == 0;
        CHECK_MSG((halves[i] & 0x7c00) != 0x7c00, "element %d overflows", i);
    }
    CHECK_OK(oom_scope_free(&rig->trainer->scope, &x));
    CHECK_OK(oom_scope_free(&rig->trainer->scope, &y));
    return zeros;
}

static void histogram(void) {
    struct rig rig;
    TEST("amp: gradients from 2^-40 to 2^-9: what f16 loses without and with a scale of 2^16");
    amp_open(&rig, mlp, OOM_AMP_F16);
    /* 2^-25 is half the least subnormal: a tie, to even, so 0; all above it stay */
    CHECK_EQ(lost(&rig, 1), 15 * 8 + 1);
    CHECK_EQ(lost(&rig, 65536), 0);
    rig_close(&rig);
}

/* ---- failure of every allocation ---- */

static int64_t live_bytes(const struct rig *rig) {
    return oom_allocator_stats(rig->session.allocator)->allocated_bytes[OOM_POOL_ALL].current;
}

/* In capacities from too small for the parameters to enough for a step. */
static void failures(const char *model, enum oom_amp amp) {
    int failed = 0, done = 0;
    TEST("amp: %s: a step that runs out of memory anywhere leaves nothing behind: %s", names[amp],
         model);
    for (uint64_t pages = 1; done == 0 && pages < 32; pages++) {
        struct rig rig;
        struct rig_options o = {.model = model, .capacity = pages << 21};
        struct oom_trainer_options options = rig_trainer_options(&o);
        options.amp = amp;
        rig_open_allocator(&rig, &o);
        enum oom_status status = oom_trainer_create(&rig.session, &options, &rig.trainer);
        if (status == OOM_OK) {
            rig_window(&rig, 64, 4, false);
            int64_t before = live_bytes(&rig);
            status = rig_step(&rig, (struct oom_cut){.micro = 64}, NULL);
            if (status == OOM_NOMEM) {
                CHECK_OK(oom_trainer_drop(rig.trainer));
                CHECK_OK(oom_trainer_clear_gradients(rig.trainer));
                CHECK_EQ(live_bytes(&rig), before);
            }
        }
        CHECK(status == OOM_OK || status == OOM_NOMEM);
        failed += status == OOM_NOMEM;
        done += status == OOM_OK;
        oom_failure_clear();
        rig_close(&rig);
    }
    CHECK(failed > 0);
    CHECK_EQ(done, 1);
}

void amp_test(void) {
    static const char *const models[] = {gpt, mlp, cnn};
    table(OOM_AMP_F16, OOM_F16);
    table(OOM_AMP_BF16, OOM_BF16);
    f64_refused();
    for (enum oom_amp amp = OOM_AMP_F16; amp <= OOM_AMP_BF16; amp++) {
        for (int i = 0; i < 3; i++) {
            copies(models[i], amp);
            same_bits(models[i], amp);
        }
        failures("mlp,layers=4,width=64,rows=64", amp);
        failures("cnn,layers=2,width=8,image=16", amp);
    }
    golden();
    growth_ends();
    once_a_window();
    bf16_unscaled();
    poisoned(gpt, (struct poison){INFINITY, 0});
    poisoned(gpt, (struct poison){NAN, 5});
    poisoned(mlp, (struct poison){-INFINITY, 7});
    poisoned(cnn_batch, (struct poison){INFINITY, 2});
    histogram();
}
