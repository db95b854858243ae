/*
 * data-test.c: samples and windows: what a sample holds depends on its identity alone, weights add
 * up, files are read as they are, and what cannot be read is refused by its name.
 */
#include "harness/train/data.h"

#include "harness/train/train-testing.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void data_test(void);

/* ---- a batch on the host device, read back ---- */

struct loaded {
    int32_t *inputs_i32, *targets; /* (N) */
    void *inputs;                  /* mlp: (N,C) dtype */
    double *weights;               /* (N) */
    int64_t *identities;           /* (samples) */
    int64_t samples, rows;
};

static void *read_back(struct rig *rig, struct oom_tensor tensor, uint64_t bytes) {
    void *out = oom_host_alloc(bytes);
    if (CHECK(out != NULL)) rig_download(rig, tensor.data, out, bytes);
    return out;
}

static struct loaded load(struct rig *rig, int64_t begin, int64_t end) {
    struct oom_trainer *t = rig->trainer;
    const struct oom_model_spec *spec = &t->options.spec;
    struct oom_batch batch;
    CHECK_OK(oom_batch_load(&t->scope, &rig->window, begin, end,
                            (struct oom_weighing){.divisor = rig->window.total}, &batch));
    uint64_t n = (uint64_t)batch.rows;
    struct loaded out = {.samples = batch.samples, .rows = batch.rows};
    bool text = spec->kind == OOM_MODEL_GPT;
    out.inputs =
        read_back(rig, batch.inputs, text ? n * 4 : n * (uint64_t)spec->width * rig_real(rig));
    out.inputs_i32 = out.inputs;
    out.targets = read_back(rig, batch.targets, n * 4);
    out.weights = oom_host_alloc(n * 8);
    for (uint64_t i = 0; i < n; i++) {
        float narrow = 0;
        bool wide = rig->session.dtype == OOM_F64;
        uint64_t at = batch.weights.data + i * rig_real(rig);
        rig_download(rig, at, wide ? (void *)&out.weights[i] : (void *)&narrow, rig_real(rig));
        if (!wide) out.weights[i] = (double)narrow;
    }
    out.identities = read_back(rig, batch.identities, (uint64_t)batch.samples * 8);
    CHECK_OK(oom_batch_free(&t->scope, &batch));
    return out;
}

static void unload(struct loaded *loaded) {
    oom_host_free(loaded->inputs);
    oom_host_free(loaded->targets);
    oom_host_free(loaded->weights);
    oom_host_free(loaded->identities);
}

/* ---- windows ---- */

static void whole_window(void) {
    struct oom_model_spec spec = rig_spec("gpt,context=20");
    struct oom_source source = {.seed = 5, .file = -1};
    struct oom_window window;
    bool seen[16] = {false};
    double total = 0, least = 2, most = 0;
    TEST("data: a window of 400 samples draws on 16, the first 16 in order");
    oom_window_init(&window, &spec, &source, 400, 16, true);
    for (int64_t i = 0; i < 400; i++) {
        int64_t p = oom_window_identity(&window, i);
        if (!CHECK(p >= 0 && p < 16 && (i >= 16 || p == i))) continue;
        if (i >= 16) seen[p] = true;
    }
    for (int p = 0; p < 16; p++) CHECK(seen[p]);
    TEST("data: weights lie in 0.5 to 1.5 and in 2^-10, lengths in a quarter to the whole");
    for (int64_t i = 0; i < 400; i++) {
        double weight = oom_window_weight(&window, i);
        int64_t length = oom_window_length(&window, oom_window_identity(&window, i));
        CHECK(weight >= 0.5 && weight < 1.5 && weight * 1024 == floor(weight * 1024));
        CHECK(length >= 5 && length <= 20);
        least = fmin(least, weight);
        most = fmax(most, weight);
        total += weight * (double)length;
    }
    CHECK(least < 0.6 && most > 1.4);
    CHECK(window.total == total && window.nominal == 400);
    CHECK(oom_window_mass(&window, 0, 123) + oom_window_mass(&window, 123, 400) == total);
    TEST("data: where no sample repeats, every weight is 1; without token weights rows are whole");
    oom_window_init(&window, &spec, &source, 16, 16, false);
    for (int64_t i = 0; i < 16; i++) {
        CHECK(oom_window_weight(&window, i) == 1.0);
        CHECK_EQ(oom_window_identity(&window, i), i);
        CHECK_EQ(oom_window_length(&window, i), 20);
    }
    CHECK(window.total == 16 * 20);
    oom_window_init(&window, &spec, &source, 3, 16, false);
    CHECK_EQ(window.distinct, 3);
}

/* ---- batches ---- */

/* Sample 3 of the window, in two batches, at two places. */
static void same_sample(const char *model, enum oom_dtype dtype) {
    struct rig rig;
    TEST("data: a sample is the same wherever it stands: %s, %s", model, oom_dtype_name(dtype));
    rig_open(&rig, &(struct rig_options){.model = model, .dtype = dtype});
    rig_window(&rig, 9, 4, true);
    const struct oom_model_spec *spec = &rig.trainer->options.spec;
    int64_t rows = oom_spec_rows(spec);
    size_t row = spec->kind == OOM_MODEL_GPT ? 4 : (size_t)spec->width * rig_real(&rig);
    struct loaded a = load(&rig, 0, 9), b = load(&rig, 3, 6);
    CHECK_EQ(a.rows, 9 * rows);
    CHECK(memcmp((char *)a.inputs + 3 * (size_t)rows * row, b.inputs, (size_t)rows * row) == 0);
    CHECK(memcmp(a.targets + 3 * rows, b.targets, (size_t)rows * 4) == 0);
    CHECK(memcmp(a.weights + 3 * rows, b.weights, (size_t)rows * 8) == 0);
    for (int64_t i = 0; i < 9; i++) CHECK_EQ(a.identities[i], oom_window_identity(&rig.window, i));
    CHECK_EQ(b.identities[0], 3);
    TEST("data: rows of a sample weigh alike up to its length, and all of them 1 in sum: %s",
         model);
    double sum = 0;
    for (int64_t i = 0; i < a.rows; i++) {
        int64_t p = oom_window_identity(&rig.window, i / rows);
        double expected = i % rows < oom_window_length(&rig.window, p)
                              ? oom_window_weight(&rig.window, i / rows) / rig.window.total
                              : 0.0;
        CHECK(a.weights[i] == (dtype == OOM_F64 ? expected : (double)(float)expected));
        sum += a.weights[i];
        CHECK(a.targets[i] >= 0 && a.targets[i] < spec->vocab);
    }
    CHECK(fabs(sum - 1) <= (dtype == OOM_F64 ? 1e-14 : 1e-6));
    unload(&a);
    unload(&b);
    rig_close(&rig);
}

static void seeds_differ(const char *model) {
    struct rig rig;
    struct loaded loaded[3];
    size_t bytes = 0;
    TEST("data: equal seeds give equal samples, others others: %s", model);
    for (int i = 0; i < 3; i++) {
        rig_open(&rig, &(struct rig_options){.model = model, .seed = i == 2 ? 8 : 7});
        rig_window(&rig, 4, 0, false);
        loaded[i] = load(&rig, 0, 4);
        bytes = (size_t)loaded[i].rows * 4;
        rig_close(&rig);
    }
    CHECK(memcmp(loaded[0].inputs, loaded[1].inputs, bytes) == 0);
    CHECK(memcmp(loaded[0].targets, loaded[1].targets, bytes) == 0);
    CHECK(memcmp(loaded[0].inputs, loaded[2].inputs, bytes) != 0);
    CHECK(memcmp(loaded[0].targets, loaded[2].targets, bytes) != 0);
    for (int i = 0; i < 3; i++) unload(&loaded[i]);
}

static void numbers(void) {
    struct rig rig[2];
    struct loaded f32, f64;
    double sum = 0, squares = 0;
    const int64_t n = 16 * 50 * 8;
    TEST("data: f32 and f64 runs see the same inputs, of mean 0 and variance 1");
    for (int i = 0; i < 2; i++) {
        rig_open(&rig[i], &(struct rig_options){.model = "mlp,layers=1,width=8,rows=50",
                                                .dtype = i == 0 ? OOM_F32 : OOM_F64});
        rig_window(&rig[i], 16, 0, false);
    }
    f32 = load(&rig[0], 0, 16);
    f64 = load(&rig[1], 0, 16);
    for (int64_t i = 0; i < n; i++) {
        double x = ((const double *)f64.inputs)[i];
        CHECK((double)((const float *)f32.inputs)[i] == x);
        sum += x;
        squares += x * x;
    }
    CHECK_MSG(fabs(sum / (double)n) < 0.05, "mean %g", sum / (double)n);
    CHECK_MSG(fabs(squares / (double)n - 1.02) < 0.06, "mean square %g", squares / (double)n);
    unload(&f32);
    unload(&f64);
    for (int i = 0; i < 2; i++) rig_close(&rig[i]);
}

/* ---- text ---- */

static void next_byte(const struct loaded *loaded, int64_t context) {
    for (int64_t i = 0; i < loaded->rows; i++) {
        if (i % context < context - 1) CHECK_EQ(loaded->targets[i], loaded->inputs_i32[i + 1]);
    }
}

static void generated_text(void) {
    struct rig rig;
    char text[201];
    TEST("data: generated text is words, a space between them, and its own next byte");
    rig_open(&rig, &(struct rig_options){.model = "gpt,layers=1,context=200,width=8,heads=2"});
    rig_window(&rig, 3, 0, false);
    struct loaded loaded = load(&rig, 0, 3);
    next_byte(&loaded, 200);
    for (int i = 0; i < 200; i++) text[i] = (char)loaded.inputs_i32[i];
    text[200] = 0;
    CHECK_MSG(strspn(text, "abcdefghijklmnopqrstuvwxyz \n") == 200, "%s", text);
    CHECK(strchr(text, '\n') != NULL && strstr(text, "  ") == NULL);
    CHECK(memcmp(loaded.inputs_i32, loaded.inputs_i32 + 200, 800) != 0);
    unload(&loaded);
    rig_close(&rig);
}

static void write_file(const char *path, const void *data, size_t bytes) {
    FILE *file = fopen(path, "wbe");
    CHECK(file != NULL);
    if (file == NULL) return;
    CHECK_EQ(fwrite(data, 1, bytes, file), bytes);
    fclose(file);
}

/* Every byte of the file is its own place, so one token tells where a sample began. */
static void text_of_file(const char *path) {
    struct rig rig;
    uint8_t bytes[151];
    TEST("data: a file's bytes are read in order, from its beginning again at its end");
    for (int i = 0; i < 151; i++) bytes[i] = (uint8_t)(i + 100);
    write_file(path, bytes, sizeof bytes);
    rig_open(&rig, &(struct rig_options){.model = "gpt,layers=1,context=400,width=8,heads=2"});
    CHECK_OK(oom_source_open(path, 1, &rig.source));
    rig_window(&rig, 5, 0, false);
    struct loaded loaded = load(&rig, 0, 5);
    bool apart = false;
    for (int64_t i = 0; i < loaded.rows; i++) {
        int64_t start = loaded.inputs_i32[i / 400 * 400] - 100;
        CHECK_EQ(loaded.inputs_i32[i], bytes[(start + i % 400) % 151]);
        apart = apart || loaded.inputs_i32[i / 400 * 400] != loaded.inputs_i32[0];
    }
    CHECK(apart);
    next_byte(&loaded, 400);
    unload(&loaded);
    uint64_t hash = rig.source.file_hash;
    oom_source_close(&rig.source);
    rig_close(&rig);
    TEST("data: the hash of a file is that of its contents");
    struct oom_source source;
    CHECK_OK(oom_source_open(path, 2, &source));
    CHECK(source.file_hash == hash && source.bytes == 151);
    oom_source_close(&source);
    bytes[77] ^= 1;
    write_file(path, bytes, sizeof bytes);
    CHECK_OK(oom_source_open(path, 1, &source));
    CHECK(source.file_hash != hash);
    oom_source_close(&source);
}

static void shrinking_file(const char *path) {
    struct rig rig;
    struct oom_batch batch;
    TEST("data: a file that shrinks under the run is a failure, not old bytes");
    write_file(path, "0123456789", 10);
    rig_open(&rig, &(struct rig_options){.model = "gpt,layers=1,context=30,width=8,heads=2"});
    CHECK_OK(oom_source_open(path, 1, &rig.source));
    write_file(path, "", 0);
    rig_window(&rig, 2, 0, false);
    CHECK_EQ(oom_batch_load(&rig.trainer->scope, &rig.window, 0, 2,
                            (struct oom_weighing){.divisor = 1.0}, &batch),
             OOM_IO);
    oom_failure_clear();
    CHECK_OK(oom_trainer_drop(rig.trainer));
    oom_source_close(&rig.source);
    rig_close(&rig);
}

static void refused(const char *path, const char *why) {
    struct oom_source source;
    TEST("data: refused: %s", why);
    oom_failure_clear();
    CHECK_EQ(oom_source_open(path, 1, &source), OOM_USAGE);
    CHECK_MSG(strstr(oom_failure_last()->message, path) != NULL, "names it: %s",
              oom_failure_last()->message);
    CHECK(strstr(oom_failure_last()->message, why) != NULL);
    CHECK_EQ(source.file, -1);
    oom_failure_clear();
}

static void files(void) {
    char folder[] = "/tmp/oombench-data-XXXXXX", path[64];
    if (!CHECK_MSG(mkdtemp(folder) != NULL, "a folder for the files of this test")) return;
    snprintf(path, sizeof path, "%s/text", folder);
    refused(path, "No such file");
    refused(folder, "not a regular file");
    write_file(path, "x", 0);
    refused(path, "0 bytes; at least 2");
    write_file(path, "x", 1);
    refused(path, "1 bytes; at least 2");
    text_of_file(path);
    shrinking_file(path);
    unlink(path);
    rmdir(folder);
}

void data_test(void) {
    whole_window();
    same_sample("gpt,layers=1,context=12,width=8,heads=2,vocab=50", OOM_F32);
    same_sample("gpt,layers=1,context=12,width=8,heads=2,vocab=50", OOM_F64);
    same_sample("mlp,layers=1,width=8,rows=11,vocab=5", OOM_F32);
    same_sample("mlp,layers=1,width=8,rows=3,vocab=5", OOM_F64);
    seeds_differ("gpt,layers=1,context=40,width=8,heads=2");
    seeds_differ("mlp,layers=1,width=8,rows=11,vocab=5");
    numbers();
    generated_text();
    files();
}
