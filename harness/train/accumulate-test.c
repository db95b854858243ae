/*
 * accumulate-test.c: however a window is cut, its gradients and its loss are the same bits (a tied
 * matrix is two chains into one gradient: there only nearly), and the bytes that each cut keeps
 * alive are those that the design states.
 */
#include "harness/train/train-testing.h"

#include <math.h>

void accumulate_test(void);

/* ---- cuts ---- */

static void cut_sizes(void) {
    static const int64_t uneven[] = {32, 16, 8, 32, 16, 8};
    TEST("accumulate: sizes and number of the micro-batches");
    for (int j = 0; j < 6; j++) {
        CHECK_EQ(oom_cut_size((struct oom_cut){.micro = 32, .uneven = true}, j), uneven[j]);
        CHECK_EQ(oom_cut_size((struct oom_cut){.micro = 7}, j), 7);
        CHECK_EQ(oom_cut_size((struct oom_cut){.micro = 1, .uneven = true}, j), 1);
    }
    CHECK_EQ(oom_cut_count((struct oom_cut){.micro = 32}, 128), 4);
    CHECK_EQ(oom_cut_count((struct oom_cut){.micro = 32}, 129), 5);
    CHECK_EQ(oom_cut_count((struct oom_cut){.micro = 32}, 1), 1);
    CHECK_EQ(oom_cut_count((struct oom_cut){.micro = 32, .uneven = true}, 56), 3);
    CHECK_EQ(oom_cut_count((struct oom_cut){.micro = 32, .uneven = true}, 57), 4);
}

/* ---- the same bits ---- */

static const struct oom_cut cuts[] = {{1, false}, {3, false}, {7, false}, {4, true},
                                      {7, true},  {12, true}, {13, false}};
enum { CUTS = sizeof cuts / sizeof cuts[0], SAMPLES = 13, DISTINCT = 5 };

/* Two steps in a row: the second one's gradients stand on the first one's weights. */
static void two_steps(const struct rig_options *o, bool tokens, struct oom_cut cut,
                      struct snapshot out[3]) {
    struct rig rig;
    rig_open(&rig, o);
    rig_window(&rig, SAMPLES, DISTINCT, tokens);
    for (int step = 0; step < 2; step++) CHECK_OK(rig_step(&rig, cut, &out[step]));
    snapshot_take(&rig, true, &out[2]);
    rig_close(&rig);
}

static void free_three(struct snapshot snapshots[3]) {
    for (int i = 0; i < 3; i++) snapshot_free(&snapshots[i]);
}

/* Threads, schedule and what happens to gradients go round with the cuts. */
static void same_bits(const char *model, enum oom_dtype dtype, bool tokens) {
    TEST("accumulate: any cut gives the bits of the whole: %s, %s%s", model, oom_dtype_name(dtype),
         tokens ? ", token weights" : "");
    struct rig_options o = {.model = model, .dtype = dtype, .optimizer = OOM_OPTIMIZER_ADAMW};
    struct snapshot whole[3] = {{0}};
    two_steps(&o, tokens, (struct oom_cut){.micro = SAMPLES}, whole);
    CHECK(!snapshot_same(&whole[0], &whole[1]));
    for (int c = 0; c < CUTS; c++) {
        struct snapshot found[3] = {{0}};
        o.threads = 1 + c % 3;
        o.schedule = c % 2 == 0 ? OOM_SCHEDULE_LAZY : OOM_SCHEDULE_EAGER;
        o.gradients = c / 2 % 2 == 0 ? OOM_GRADIENTS_ZEROED : OOM_GRADIENTS_NONE;
        two_steps(&o, tokens, cuts[c], found);
        for (int i = 0; i < 3; i++) {
            CHECK_MSG(snapshot_same(&whole[i], &found[i]), "micro-batches of %d%s, %s",
                      (int)cuts[c].micro, cuts[c].uneven ? " uneven" : "",
                      i == 2 ? "weights and loss after two steps" : "gradients and loss");
        }
        free_three(found);
    }
    free_three(whole);
}

/* The statistics of a micro-batch are not those of the batch: what is shown as the counter-example
 * differs by far more than rounding. */
static void batch_norm_differs(const char *model) {
    TEST("accumulate: batch norm makes another function of it: %s", model);
    struct rig_options o = {.model = model, .dtype = OOM_F64};
    struct snapshot whole[3] = {{0}}, cut[3] = {{0}};
    two_steps(&o, false, (struct oom_cut){.micro = SAMPLES}, whole);
    two_steps(&o, false, (struct oom_cut){.micro = 4}, cut);
    double away = 0, size = 0;
    for (size_t i = 0; i < whole[0].count / 8; i++) {
        double a, b;
        memcpy(&a, whole[0].bytes + 8 * i, 8);
        memcpy(&b, cut[0].bytes + 8 * i, 8);
        away += (a - b) * (a - b);
        size += a * a;
    }
    CHECK_MSG(sqrt(away / size) > 0.01, "relative distance %g", sqrt(away / size));
    free_three(whole);
    free_three(cut);
}

/* A tied matrix gets the head's chain and the embedding's in turn, so the order differs: within
 * some roundings of the whole, and not equal, or this test (and the class `bounded`) is idle. */
static void tied_nearly(void) {
    static const char model[] = "gpt,layers=1,width=8,heads=2,context=9,vocab=13,tied=1";
    struct rig rig;
    struct snapshot whole = {0}, cut = {0};
    struct rig_options o = {.model = model, .dtype = OOM_F64};
    TEST("accumulate: a tied matrix is within rounding of the whole batch, not equal to it");
    rig_open(&rig, &o);
    rig_window(&rig, SAMPLES, DISTINCT, false);
    CHECK_OK(rig_step(&rig, (struct oom_cut){.micro = SAMPLES}, &whole));
    rig_close(&rig);
    rig_open(&rig, &o);
    rig_window(&rig, SAMPLES, DISTINCT, false);
    CHECK_OK(rig_step(&rig, (struct oom_cut){.micro = 3}, &cut));
    rig_close(&rig);
    const double *a = (const double *)(void *)whole.bytes, *b = (const double *)(void *)cut.bytes;
    double worst = 0;
    for (size_t i = 0; i < whole.count / 8; i++) worst = fmax(worst, fabs(a[i] - b[i]));
    CHECK_MSG(worst > 0 && worst <= 1e-13, "largest difference %g", worst);
    snapshot_free(&whole);
    snapshot_free(&cut);
}

/* ---- partial windows: the weights are those of the window there is ---- */

static void partial_window(void) {
    struct rig rig;
    struct snapshot plain = {0}, partial = {0};
    struct rig_options o = {.model = "mlp,layers=2,width=8,rows=3,vocab=5", .dtype = OOM_F32};
    TEST("accumulate: a last partial window is divided by its own mass");
    rig_open(&rig, &o);
    rig_window(&rig, 5, 0, false);
    CHECK_OK(rig_step(&rig, (struct oom_cut){.micro = 5}, &plain));
    rig_close(&rig);
    rig_open(&rig, &o);
    rig_window(&rig, 5, 0, false);
    rig.window.nominal = 8;
    CHECK_OK(rig_step(&rig, (struct oom_cut){.micro = 4}, &partial));
    CHECK_EQ(rig.trainer->optimizer_steps, 1);
    rig_close(&rig);
    CHECK(snapshot_same(&plain, &partial));
    snapshot_free(&plain);
    snapshot_free(&partial);
}

/* ---- bytes alive ---- */

/* The live peak of the second step (the first one makes the optimizer's states). */
static int64_t peak_of(struct rig_options o, int64_t samples, struct oom_cut cut) {
    struct rig rig;
    o.device = "dry";
    o.capacity = UINT64_C(1) << 40;
    rig_open(&rig, &o);
    rig_window(&rig, samples, 0, false);
    CHECK_OK(rig_step(&rig, cut, NULL));
    oom_allocator_reset_peaks(rig.session.allocator);
    CHECK_OK(rig_step(&rig, cut, NULL));
    int64_t peak = rig_live_peak(&rig);
    rig_close(&rig);
    return peak;
}

static void live_peaks(const char *model) {
    struct rig_options zeroed = {.model = model,
                                 .gradients = OOM_GRADIENTS_ZEROED,
                                 .optimizer = OOM_OPTIMIZER_ADAMW},
                       none = zeroed;
    none.gradients = OOM_GRADIENTS_NONE;
    struct oom_cut equal = {.micro = 8}, uneven = {.micro = 8, .uneven = true};
    TEST("accumulate: live peak with zeroed gradients: of N micro-batches that of one: %s", model);
    int64_t one = peak_of(zeroed, 8, equal);
    for (int64_t n = 2; n <= 5; n++) CHECK_EQ(peak_of(zeroed, 8 * n, equal), one);
    CHECK(peak_of(zeroed, 16, (struct oom_cut){.micro = 16}) > one);
    TEST("accumulate: live peak with none: of N micro-batches that of two: %s", model);
    int64_t first = peak_of(none, 8, equal), two = peak_of(none, 16, equal);
    for (int64_t n = 3; n <= 5; n++) CHECK_EQ(peak_of(none, 8 * n, equal), two);
    CHECK(first < two);
    CHECK(two <= one);
    TEST("accumulate: live peak of uneven micro-batches: that of the largest: %s", model);
    for (int64_t n = 8; n <= 40; n += 4) CHECK_EQ(peak_of(zeroed, n, uneven), one);
    for (int64_t n = 22; n <= 46; n += 4) CHECK_EQ(peak_of(none, n, uneven), two);
}

void accumulate_test(void) {
    static const char tiled[] = "gpt,layers=2,width=12,heads=3,context=10,vocab=31";
    static const char scores[] =
        "gpt,layers=2,width=12,heads=2,context=7,vocab=19,attention=scores,dropout=0.125";
    static const char dropped[] = "gpt,layers=1,width=16,heads=2,context=11,vocab=31,dropout=0.125";
    static const char mlp[] = "mlp,layers=3,width=20,rows=5,vocab=7";
    static const char mlp_dropped[] = "mlp,layers=2,width=17,rows=3,vocab=5,dropout=0.125";
    static const char cnn[] = "cnn,layers=2,width=8,image=8,norm=group,dropout=0.125";
    cut_sizes();
    for (int wide = 0; wide < 2; wide++) {
        enum oom_dtype dtype = wide ? OOM_F64 : OOM_F32;
        same_bits(tiled, dtype, true);
        same_bits(scores, dtype, false);
        same_bits(dropped, dtype, false);
        same_bits(mlp, dtype, true);
        same_bits(mlp_dropped, dtype, false);
        same_bits(cnn, dtype, false);
    }
    batch_norm_differs("cnn,layers=2,width=8,image=8,norm=batch");
    same_bits("mlp,layers=1,width=24,rows=97,vocab=5", OOM_F32,
              false); /* longer than a block of the GEMM */
    same_bits("gpt,layers=1,width=32,heads=4,context=64,vocab=40", OOM_F32, true);
    tied_nearly();
    partial_window();
    live_peaks("gpt,layers=2,width=64,heads=4,context=64");
    live_peaks("gpt,layers=3,width=32,heads=4,context=32,attention=scores,dropout=0.125");
    live_peaks("mlp,layers=4,width=64,rows=32");
    live_peaks("cnn,layers=4,width=16,image=16,norm=group");
}
