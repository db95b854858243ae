/*
 * Random programs of fills, copies and ops on three streams, with exactly the waits they need:
 * under every schedule and seed the contents are those that plain C on arrays gives, one step after
 * the other. On `dry` the same seed answers every query as on `host`.
 */
#include "kernels/simulated/test-device.h"

#include <math.h>

void simulated_programs_test(void);

enum { SIDE = 8, WORDS = SIDE * SIDE, BYTES = WORDS * 4, STREAMS = 3, BUFFERS = 6, STEPS = 160 };
enum { QUERIES = STEPS };

struct program {
    struct oom_device *dev;
    const struct oom_device_api *api;
    struct oom_stream *streams[STREAMS];
    struct oom_event *written[BUFFERS];       /* after the last command that wrote it */
    struct oom_event *read[BUFFERS][STREAMS]; /* after the last that read it there */
    oom_devptr buffers[BUFFERS], weights;
    float model[BUFFERS][WORDS];
    enum oom_status answers[QUERIES]; /* of event queries */
    int asked;
    uint32_t random;
    bool fine;
};

static const float weight = 1.0f / 64;

static uint32_t draw(struct program *p, uint32_t below) {
    p->random = p->random * 1664525u + 1013904223u; /* Numerical Recipes' generator */
    return (p->random >> 8) % below;
}

static void must(struct program *p, enum oom_status status) {
    if (status != OOM_OK) p->fine = false;
}

static void begin(struct program *p, struct oom_device *dev, uint32_t random) {
    *p = (struct program){.dev = dev, .api = dev->api, .random = random, .fine = true};
    struct oom_fill_args set = {.dtype = OOM_F32, .n = WORDS, .value = weight};
    must(p, p->api->alloc(dev, BYTES, &p->weights));
    set.x = p->weights;
    must(p, p->api->launch(dev, OOM_OP_FILL, &set, NULL));
    for (int i = 0; i < STREAMS; i++) must(p, p->api->stream_create(dev, &p->streams[i]));
    for (int i = 0; i < BUFFERS; i++) {
        must(p, p->api->alloc(dev, BYTES, &p->buffers[i]));
        must(p, p->api->fill(dev, p->buffers[i], 0, BYTES, NULL));
        must(p, p->api->event_create(dev, &p->written[i]));
        for (int k = 0; k < STREAMS; k++) must(p, p->api->event_create(dev, &p->read[i][k]));
    }
    must(p, p->api->sync(dev));
}

/* ---- one command, on the device and in the model ---- */

enum kind { FILL, SET, COPY, AXPY, GEMM, KINDS };

static void launch(struct program *p, enum kind kind, int x, int y, int number,
                   struct oom_stream *stream) {
    oom_devptr from = p->buffers[x], to = p->buffers[y];
    struct oom_fill_args set = {.dtype = OOM_F32, .n = WORDS, .value = number, .x = to};
    struct oom_axpy_args axpy = {.dtype = OOM_F32, .n = WORDS, .a = 0.5, .x = from, .y = to};
    struct oom_gemm_args gemm = {.dtype = OOM_F32,
                                 .m = SIDE,
                                 .n = SIDE,
                                 .k = SIDE,
                                 .a = from,
                                 .lda = SIDE,
                                 .b = p->weights,
                                 .ldb = SIDE,
                                 .c = to,
                                 .ldc = SIDE};
    switch (kind) {
    case FILL:
        must(p, p->api->fill(p->dev, to, (uint8_t)(number % 64), BYTES, stream));
        break;
    case SET:
        must(p, p->api->launch(p->dev, OOM_OP_FILL, &set, stream));
        break;
    case COPY:
        must(p, p->api->copy(p->dev, to, from, BYTES, stream));
        break;
    case AXPY:
        must(p, p->api->launch(p->dev, OOM_OP_AXPY, &axpy, stream));
        break;
    case GEMM:
        must(p, p->api->launch(p->dev, OOM_OP_GEMM, &gemm, stream));
        break;
    case KINDS:
        break;
    }
}

/* Halving is exact, so it does not matter whether the device rounds the product. */
static void compute(struct program *p, enum kind kind, int x, int y, int number) {
    const float *from = p->model[x];
    float *to = p->model[y];
    switch (kind) {
    case FILL:
        memset(to, number % 64, BYTES);
        break;
    case COPY:
        memcpy(to, from, BYTES);
        break;
    case SET:
        for (int i = 0; i < WORDS; i++) to[i] = (float)number;
        break;
    case AXPY:
        for (int i = 0; i < WORDS; i++) to[i] += from[i] * 0.5f;
        break;
    case GEMM:
        for (int i = 0; i < WORDS; i++) {
            float sum = 0;
            for (int k = 0; k < SIDE; k++) sum = fmaf(from[i / SIDE * SIDE + k], weight, sum);
            to[i] = sum;
        }
        break;
    case KINDS:
        break;
    }
}

/* What reads waits for the last write; what writes, for that and for all reads since. */
static void step(struct program *p, int number) {
    enum kind kind = (enum kind)draw(p, KINDS);
    int s = (int)draw(p, STREAMS), x = (int)draw(p, BUFFERS);
    int y = (x + 1 + (int)draw(p, BUFFERS - 1)) % BUFFERS;
    bool reads = kind != FILL && kind != SET;
    if (reads) must(p, p->api->stream_wait(p->dev, p->streams[s], p->written[x]));
    must(p, p->api->stream_wait(p->dev, p->streams[s], p->written[y]));
    for (int i = 0; i < STREAMS; i++) {
        must(p, p->api->stream_wait(p->dev, p->streams[s], p->read[y][i]));
    }
    launch(p, kind, x, y, number, p->streams[s]);
    compute(p, kind, x, y, number);
    if (reads) must(p, p->api->event_record(p->dev, p->read[x][s], p->streams[s]));
    must(p, p->api->event_record(p->dev, p->written[y], p->streams[s]));
}

/* What a program does besides: asks, waits, allocates. */
static void interlude(struct program *p) {
    oom_devptr block;
    switch (draw(p, 24)) {
    case 0:
        must(p, p->api->stream_sync(p->dev, p->streams[draw(p, STREAMS)]));
        break;
    case 1:
        must(p, p->api->alloc(p->dev, 3 * TEST_MIB, &block));
        must(p, p->api->fill(p->dev, block, 1, 3 * TEST_MIB, p->streams[0]));
        if (draw(p, 2) == 0) must(p, p->api->free(p->dev, block));
        break;
    case 2:
        must(p, p->api->event_sync(p->dev, p->written[draw(p, BUFFERS)]));
        break;
    default:
        p->answers[p->asked++] = p->api->event_query(p->dev, p->written[draw(p, BUFFERS)]);
        break;
    }
}

static void run(struct program *p) {
    for (int i = 0; i < STEPS; i++) {
        step(p, i);
        if (i % 2 == 0) interlude(p);
    }
}

/* By turns: one wait of the caller for all, or one of the reading stream for each. */
static bool is_right(struct program *p) {
    float got[WORDS];
    bool right = true, all = draw(p, 2) == 0;
    if (all) must(p, p->api->sync(p->dev));
    for (int i = 0; i < BUFFERS; i++) {
        if (!all) must(p, p->api->stream_wait(p->dev, NULL, p->written[i]));
        must(p, p->api->download(p->dev, got, p->buffers[i], BYTES, NULL));
        right = memcmp(got, p->model[i], BYTES) == 0 && right;
    }
    return right && p->fine;
}

static struct oom_device *open_with(const char *name, enum oom_schedule schedule, uint64_t seed) {
    struct oom_device_options options = {
        .capacity = 400 * TEST_MIB, .schedule = schedule, .threads = 2, .seed = seed};
    struct oom_device *dev = NULL;
    CHECK_OK(oom_device_open(name, &options, &dev));
    return dev;
}

static void check_schedule(enum oom_schedule schedule, int seeds) {
    TEST("programs: %s, %d of them, give what plain C gives", oom_schedule_name(schedule), seeds);
    static struct program p;
    int right = 0;
    for (int seed = 0; seed < seeds; seed++) {
        struct oom_device *dev = open_with("host", schedule, (uint64_t)seed);
        if (dev == NULL) return;
        begin(&p, dev, (uint32_t)seed * 7919 + 1);
        run(&p);
        right += is_right(&p);
        oom_device_close(dev);
    }
    CHECK_EQ(right, seeds);
}

static void check_answers(void) {
    TEST("programs: seeded: host and dry answer alike, the same twice; threads on dry is lazy");
    static struct program p;
    static enum oom_status host[QUERIES], dry[QUERIES];
    int ready = 0, differ = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        for (int i = 0; i < 3; i++) {
            struct oom_device *dev = open_with(i == 1 ? "dry" : "host", OOM_SCHEDULE_SEEDED, seed);
            if (dev == NULL) return;
            begin(&p, dev, 5);
            run(&p);
            CHECK(p.fine);
            oom_device_close(dev);
            if (i == 0) {
                for (int k = 0; k < p.asked; k++) ready += p.answers[k] == OOM_OK;
                differ += seed > 0 && memcmp(host, p.answers, sizeof host) != 0;
                memcpy(host, p.answers, sizeof host);
            }
            CHECK(memcmp(host, p.answers, sizeof host) == 0);
        }
    }
    CHECK_MSG(differ > 15, "%d of 19 differ", differ);
    CHECK_MSG(ready > 20 * p.asked / 4 && ready < 20 * p.asked, "%d of %d", ready, 20 * p.asked);
    for (int i = 0; i < 2; i++) {
        struct oom_device *dev = open_with("dry", i ? OOM_SCHEDULE_LAZY : OOM_SCHEDULE_THREADS, 0);
        if (dev == NULL) return;
        begin(&p, dev, 5);
        run(&p);
        memcpy(i ? host : dry, p.answers, sizeof host);
        oom_device_close(dev);
    }
    CHECK(memcmp(host, dry, sizeof host) == 0);
}

/* Products large enough for the pool's threads and scratch, of several streams at once. A is all
 * i + 1 on stream i and B all ones, so each of TIMES products adds N (i + 1) to every element. */
static void check_shared_pool(void) {
    TEST("programs: threads: ops of several streams share pool and scratch unharmed");
    enum { N = 96, TIMES = 60 };
    static float got[N * N];
    struct oom_device *dev = open_with("host", OOM_SCHEDULE_THREADS, 0);
    if (dev == NULL) return;
    const struct oom_device_api *api = dev->api;
    struct oom_stream *streams[STREAMS];
    oom_devptr a[STREAMS], c[STREAMS], ones;
    struct oom_fill_args set = {.dtype = OOM_F32, .n = N * N, .value = 1};
    CHECK_OK(api->alloc(dev, sizeof got, &ones));
    set.x = ones;
    CHECK_OK(api->launch(dev, OOM_OP_FILL, &set, NULL));
    CHECK_OK(api->sync(dev));
    for (int i = 0; i < STREAMS; i++) {
        CHECK_OK(api->stream_create(dev, &streams[i]));
        CHECK_OK(api->alloc(dev, sizeof got, &a[i]));
        CHECK_OK(api->alloc(dev, sizeof got, &c[i]));
        CHECK_OK(api->fill(dev, c[i], 0, sizeof got, streams[i]));
        set.x = a[i];
        set.value = i + 1;
        CHECK_OK(api->launch(dev, OOM_OP_FILL, &set, streams[i]));
    }
    for (int i = 0; i < STREAMS * TIMES; i++) {
        struct oom_gemm_args gemm = {.dtype = OOM_F32, .m = N, .n = N, .k = N, .accumulate = true};
        gemm.lda = gemm.ldb = gemm.ldc = N;
        gemm.a = a[i % STREAMS];
        gemm.b = ones;
        gemm.c = c[i % STREAMS];
        CHECK_OK(api->launch(dev, OOM_OP_GEMM, &gemm, streams[i % STREAMS]));
    }
    for (int i = 0; i < STREAMS; i++) {
        CHECK_OK(api->download(dev, got, c[i], sizeof got, streams[i]));
        int wrong = 0;
        for (int k = 0; k < N * N; k++) wrong += !(got[k] == (float)(TIMES * N * (i + 1)));
        CHECK_EQ(wrong, 0);
    }
    oom_device_close(dev);
}

void simulated_programs_test(void) {
    check_shared_pool();
    check_schedule(OOM_SCHEDULE_EAGER, 20);
    check_schedule(OOM_SCHEDULE_LAZY, 20);
    check_schedule(OOM_SCHEDULE_SEEDED, 120);
    check_schedule(OOM_SCHEDULE_THREADS, 40);
    check_answers();
}
