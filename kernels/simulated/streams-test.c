/*
 * When queued work runs: seen from outside with host_view, which waits for nothing.
 */
#include "kernels/hostmem.h"
#include "kernels/simulated/test-streams.h"

#include <stdio.h>
#include <stdlib.h>

void simulated_streams_test(void);

enum { MIB = TEST_MIB, WORDS = TEST_WORDS, BYTES = TEST_BYTES };

static void check_lazy(void) {
    TEST("lazy: nothing runs before it is needed, then in order");
    struct test_bench t = test_setup(OOM_SCHEDULE_LAZY, 1);
    uint8_t data[BYTES];
    memset(data, 3, BYTES);
    CHECK_OK(t.api->upload(t.dev, t.a, data, BYTES, NULL));
    memset(data, 9, BYTES); /* the device may not look at it again */
    CHECK_OK(t.api->copy(t.dev, t.b, t.a, BYTES, NULL));
    CHECK_OK(test_fill(&t, t.a, 5, NULL));
    CHECK_EQ(test_peek(&t, t.a), 0);
    CHECK_EQ(test_peek(&t, t.b), 0);
    CHECK_EQ(test_read_back(&t, t.b, NULL), 3);
    CHECK_EQ(test_peek(&t, t.a), 5);
    CHECK_OK(test_fill(&t, t.a, 6, t.streams[0]));
    CHECK_OK(test_fill(&t, t.b, 7, t.streams[1]));
    CHECK_OK(t.api->stream_sync(t.dev, t.streams[1]));
    CHECK_EQ(test_peek(&t, t.a), 5);
    CHECK_EQ(test_peek(&t, t.b), 7);
    CHECK_OK(t.api->sync(t.dev));
    CHECK_EQ(test_peek(&t, t.a), 6);
    oom_device_close(t.dev);
}

static void check_eager(void) {
    TEST("eager: everything runs at once");
    struct test_bench t = test_setup(OOM_SCHEDULE_EAGER, 1);
    CHECK_OK(test_fill(&t, t.a, 6, t.streams[0]));
    CHECK_EQ(test_peek(&t, t.a), 6);
    CHECK_OK(t.api->event_record(t.dev, t.event, t.streams[0]));
    CHECK_OK(t.api->event_query(t.dev, t.event));
    CHECK_OK(t.api->stream_wait(t.dev, NULL, t.event));
    CHECK_OK(test_fill(&t, t.a, 7, NULL));
    CHECK_EQ(test_peek(&t, t.a), 7);
    oom_device_close(t.dev);
}

static void check_wait(void) {
    TEST("lazy: a wait runs what the event stands for, and no more");
    struct test_bench t = test_setup(OOM_SCHEDULE_LAZY, 1);
    oom_devptr d;
    CHECK_OK(t.api->alloc(t.dev, BYTES, &d));
    CHECK_OK(test_fill(&t, t.a, 5, t.streams[0]));
    CHECK_OK(t.api->event_record(t.dev, t.event, t.streams[0]));
    CHECK_OK(test_fill(&t, t.c, 1, t.streams[2]));
    CHECK_OK(t.api->stream_wait(t.dev, t.streams[1], t.event));
    CHECK_OK(t.api->copy(t.dev, t.b, t.a, BYTES, t.streams[1]));
    CHECK_OK(test_fill(&t, d, 9, t.streams[0]));
    /* The wait has caught its place: neither a new record nor the event's end changes it. */
    CHECK_OK(t.api->event_record(t.dev, t.event, t.streams[2]));
    CHECK_OK(t.api->event_destroy(t.dev, t.event));
    CHECK_EQ(test_read_back(&t, t.b, t.streams[1]), 5);
    CHECK_EQ(test_peek(&t, t.a), 5);
    CHECK_EQ(test_peek(&t, d), 0);
    CHECK_EQ(test_peek(&t, t.c), 0);
    CHECK_EQ(test_read_back(&t, d, t.streams[0]), 9);
    CHECK_EQ(test_peek(&t, t.c), 0);
    oom_device_close(t.dev);
}

static void check_events(void) {
    TEST("lazy: an event is not ready until its work has run; asking runs nothing");
    struct test_bench t = test_setup(OOM_SCHEDULE_LAZY, 1);
    CHECK_OK(t.api->event_query(t.dev, t.event)); /* never recorded */
    CHECK_OK(t.api->event_sync(t.dev, t.event));
    CHECK_OK(t.api->stream_wait(t.dev, t.streams[0], t.event));
    CHECK_OK(t.api->event_record(t.dev, t.event, t.streams[0])); /* after nothing */
    CHECK_OK(t.api->event_query(t.dev, t.event));
    CHECK_OK(test_fill(&t, t.a, 4, t.streams[0]));
    CHECK_OK(t.api->event_query(t.dev, t.event));
    CHECK_OK(t.api->event_record(t.dev, t.event, t.streams[0]));
    CHECK_OK(test_fill(&t, t.b, 4, t.streams[0]));
    for (int i = 0; i < 3; i++) CHECK_EQ(t.api->event_query(t.dev, t.event), OOM_NOT_READY);
    CHECK_EQ(oom_failure_last()->status, OOM_OK);
    CHECK_EQ(test_peek(&t, t.a), 0);
    CHECK_OK(t.api->event_sync(t.dev, t.event));
    CHECK_OK(t.api->event_query(t.dev, t.event));
    CHECK_EQ(test_peek(&t, t.a), 4);
    CHECK_EQ(test_peek(&t, t.b), 0);
    oom_device_close(t.dev);
}

static void check_ping_pong(enum oom_schedule schedule) {
    TEST("%s: two streams that wait for one another in turn", oom_schedule_name(schedule));
    enum { TURNS = 3000 };
    struct test_bench t = test_setup(schedule, 1);
    CHECK_OK(test_fill(&t, t.a, 0, NULL));
    CHECK_OK(t.api->sync(t.dev));
    for (int i = 0; i < TURNS; i++) {
        struct oom_stream *mine = t.streams[i % 2];
        CHECK_OK(t.api->stream_wait(t.dev, mine, t.event));
        oom_devptr from = i % 2 == 0 ? t.a : t.b, to = i % 2 == 0 ? t.b : t.a;
        CHECK_OK(t.api->copy(t.dev, to, from, BYTES, mine));
        /* Byte i % 251 after turn i tells that every turn saw the one before. */
        CHECK_OK(t.api->fill(t.dev, to + (uint64_t)(i % 251), (uint8_t)i, 1, mine));
        CHECK_OK(t.api->event_record(t.dev, t.event, mine));
    }
    uint8_t bytes[BYTES];
    CHECK_OK(t.api->download(t.dev, bytes, t.a, BYTES, t.streams[(TURNS - 1) % 2]));
    for (int i = TURNS - 251; i < TURNS; i++) CHECK_EQ(bytes[i % 251], (uint8_t)i);
    oom_device_close(t.dev);
}

static void check_failing(void) {
    TEST("lazy: the sync that runs a failing command reports it, once; later ones still run");
    struct test_bench t = test_setup(OOM_SCHEDULE_LAZY, 1);
    oom_devptr space;
    oom_handle handle;
    CHECK_OK(t.api->reserve(t.dev, OOM_PAGE, &space));
    CHECK_OK(t.api->create(t.dev, OOM_PAGE, &handle));
    CHECK_OK(t.api->map(t.dev, space, OOM_PAGE, handle));
    CHECK_OK(t.api->set_access(t.dev, space, OOM_PAGE, OOM_ACCESS_READ_WRITE));
    CHECK_OK(test_fill(&t, t.a, 1, NULL));
    CHECK_OK(test_fill(&t, space, 1, NULL));
    CHECK_OK(test_fill(&t, t.b, 1, NULL));
    test_expect(t.api->unmap(t.dev, space, OOM_PAGE), OOM_INVALID, "queued work");
    CHECK_OK(t.api->set_access(t.dev, space, OOM_PAGE, OOM_ACCESS_NONE));
    test_expect(test_fill(&t, space, 1, NULL), OOM_INVALID, "not in live");
    test_expect(t.api->free(t.dev, t.c), OOM_INVALID, "not in live"); /* and frees nothing */
    CHECK_EQ(test_peek(&t, t.a), 1);
    CHECK_EQ(test_peek(&t, t.b), 1);
    CHECK_OK(t.api->stream_sync(t.dev, NULL));
    CHECK_OK(t.api->sync(t.dev));
    CHECK_OK(t.api->unmap(t.dev, space, OOM_PAGE));
    CHECK_OK(t.api->free(t.dev, t.c));
    oom_device_close(t.dev);
}

static void check_in_use(void) {
    TEST("lazy: unmap knows what queued work uses, ops included; free finishes it");
    struct test_bench t = test_setup(OOM_SCHEDULE_LAZY, 1);
    oom_devptr space;
    oom_handle handle;
    CHECK_OK(t.api->reserve(t.dev, 2 * OOM_PAGE, &space));
    for (uint64_t at = space; at < space + 2 * OOM_PAGE; at += OOM_PAGE) {
        CHECK_OK(t.api->create(t.dev, OOM_PAGE, &handle));
        CHECK_OK(t.api->map(t.dev, at, OOM_PAGE, handle));
        CHECK_OK(t.api->set_access(t.dev, at, OOM_PAGE, OOM_ACCESS_READ_WRITE));
    }
    struct oom_axpy_args axpy = {.dtype = OOM_F32, .n = WORDS, .a = 2, .x = space + 512, .y = t.a};
    CHECK_OK(t.api->launch(t.dev, OOM_OP_AXPY, &axpy, t.streams[1]));
    axpy.x = 0; /* the arguments were copied */
    test_expect(t.api->unmap(t.dev, space, OOM_PAGE), OOM_INVALID, "queued work");
    test_expect(t.api->unmap(t.dev, space, 2 * OOM_PAGE), OOM_INVALID, "queued work");
    CHECK_OK(t.api->unmap(t.dev, space + OOM_PAGE, OOM_PAGE));
    CHECK_OK(t.api->stream_sync(t.dev, t.streams[1]));
    CHECK_OK(t.api->unmap(t.dev, space, OOM_PAGE));
    CHECK_OK(test_fill(&t, t.b, 77, t.streams[0]));
    CHECK_OK(t.api->copy(t.dev, t.c, t.b, BYTES, t.streams[0]));
    CHECK_OK(t.api->free(t.dev, t.b));
    CHECK_EQ(test_peek(&t, t.c), 77);
    test_expect(t.api->copy(t.dev, t.c, t.b, BYTES, NULL), OOM_INVALID, "src");
    oom_device_close(t.dev);
}

/* Work may be anywhere when memory is closed or unmapped: refused or reported, but never torn. */
static void check_closing(enum oom_schedule schedule) {
    TEST("%s: memory in use is not closed or unmapped under the work's feet",
         oom_schedule_name(schedule));
    struct test_bench t = test_setup(schedule, 3);
    oom_devptr space;
    oom_handle handle;
    const uint64_t bytes = 4 * OOM_PAGE;
    CHECK_OK(t.api->reserve(t.dev, bytes, &space));
    CHECK_OK(t.api->create(t.dev, bytes, &handle));
    for (int i = 0; i < 30; i++) {
        CHECK_OK(t.api->map(t.dev, space, bytes, handle));
        CHECK_OK(t.api->set_access(t.dev, space, bytes, OOM_ACCESS_READ_WRITE));
        struct oom_stream *stream = t.streams[i % 3];
        CHECK_OK(t.api->fill(t.dev, space, (uint8_t)i, 1, stream));
        CHECK_OK(t.api->event_record(t.dev, t.event, stream));
        CHECK_OK(t.api->fill(t.dev, space, (uint8_t)i, bytes, stream));
        CHECK_OK(t.api->event_sync(t.dev, t.event)); /* by now the next one has begun */
        if (i % 2 == 0) CHECK_OK(t.api->set_access(t.dev, space, bytes, OOM_ACCESS_NONE));
        enum oom_status unmapped = t.api->unmap(t.dev, space, bytes);
        if (schedule != OOM_SCHEDULE_THREADS) {
            CHECK_EQ(unmapped, schedule == OOM_SCHEDULE_EAGER ? OOM_OK : OOM_INVALID);
        }
        oom_failure_clear();
        enum oom_status done = t.api->sync(t.dev);
        CHECK(done == OOM_OK || (i % 2 == 0 && done == OOM_INVALID));
        oom_failure_clear();
        if (unmapped == OOM_INVALID) CHECK_OK(t.api->unmap(t.dev, space, bytes));
    }
    oom_device_close(t.dev);
}

/* free waits for all streams: the reader's result is there, and the block is no longer read. */
static void check_free(enum oom_schedule schedule) {
    TEST("%s: free finishes the work of every stream first", oom_schedule_name(schedule));
    struct oom_device *dev = test_open("host", 64 * MIB, schedule);
    const struct oom_device_api *api = dev->api;
    enum { LARGE = 8 * MIB };
    struct oom_stream *streams[2];
    for (int i = 0; i < 2; i++) CHECK_OK(api->stream_create(dev, &streams[i]));
    for (int i = 1; i < 12; i++) {
        oom_devptr from, to[2];
        CHECK_OK(api->alloc(dev, LARGE, &from));
        CHECK_OK(api->fill(dev, from, (uint8_t)i, LARGE, NULL));
        CHECK_OK(api->sync(dev));
        for (int k = 0; k < 2; k++) {
            CHECK_OK(api->alloc(dev, LARGE, &to[k]));
            CHECK_OK(api->copy(dev, to[k], from, LARGE, streams[k]));
        }
        CHECK_OK(api->free(dev, from));
        for (int k = 0; k < 2; k++) {
            const uint8_t *bytes = api->host_view(dev, to[k]);
            CHECK(bytes != NULL && bytes[0] == i && bytes[LARGE - 1] == i);
        }
        for (int k = 0; k < 2; k++) CHECK_OK(api->free(dev, to[k]));
    }
    oom_device_close(dev);
}

static void check_destroyed(void) {
    TEST("streams: destruction finishes the work; use afterwards is invalid");
    struct test_bench t = test_setup(OOM_SCHEDULE_LAZY, 1);
    CHECK_OK(test_fill(&t, t.a, 8, t.streams[0]));
    CHECK_OK(t.api->event_record(t.dev, t.event, t.streams[0]));
    CHECK_OK(t.api->stream_wait(t.dev, t.streams[1], t.event));
    CHECK_OK(t.api->copy(t.dev, t.b, t.a, BYTES, t.streams[1]));
    CHECK_OK(t.api->stream_destroy(t.dev, t.streams[0]));
    CHECK_EQ(test_peek(&t, t.a), 8);
    CHECK_OK(t.api->event_query(t.dev, t.event));
    test_expect(test_fill(&t, t.a, 1, t.streams[0]), OOM_INVALID, "not a live stream");
    test_expect(t.api->stream_sync(t.dev, t.streams[0]), OOM_INVALID, "not a live stream");
    test_expect(t.api->stream_destroy(t.dev, t.streams[0]), OOM_INVALID, "not a live stream");
    test_expect(t.api->stream_destroy(t.dev, NULL), OOM_INVALID, "default stream");
    CHECK_OK(t.api->event_destroy(t.dev, t.event));
    test_expect(t.api->event_query(t.dev, t.event), OOM_INVALID, "not a live event");
    test_expect(t.api->event_destroy(t.dev, t.event), OOM_INVALID, "not a live event");
    CHECK_OK(t.api->event_create(t.dev, &t.event)); /* may be the old one: not recorded yet */
    CHECK_OK(t.api->event_record(t.dev, t.event, t.streams[1]));
    CHECK_EQ(t.api->event_query(t.dev, t.event), OOM_NOT_READY);
    CHECK_OK(t.api->event_destroy(t.dev, t.event));
    CHECK_OK(t.api->event_create(t.dev, &t.event));
    CHECK_OK(t.api->event_query(t.dev, t.event));
    struct test_bench other = test_setup(OOM_SCHEDULE_LAZY, 1);
    test_expect(test_fill(&t, t.a, 1, other.streams[0]), OOM_INVALID, "not a live stream");
    test_expect(t.api->stream_wait(t.dev, NULL, other.event), OOM_INVALID, "not a live event");
    oom_device_close(other.dev);
    CHECK_OK(t.api->stream_create(t.dev, &t.streams[0])); /* may be the old one, made anew */
    CHECK_OK(test_fill(&t, t.c, 2, t.streams[0]));
    CHECK_EQ(test_peek(&t, t.c), 0);
    CHECK_EQ(test_read_back(&t, t.b, t.streams[1]), 8);
    oom_device_close(t.dev); /* with work in a queue */
}

/* ---- ops ---- */

static void check_launch(const char *name, enum oom_schedule schedule) {
    TEST("%s, %s: launch checks shapes and operands", name, oom_schedule_name(schedule));
    struct oom_device *dev = test_open(name, 16 * MIB, schedule);
    const struct oom_device_api *api = dev->api;
    oom_devptr x, y, z;
    char reason[320], named[32];
    CHECK_OK(api->alloc(dev, BYTES, &x));
    CHECK_OK(api->alloc(dev, BYTES, &y));
    CHECK_OK(api->alloc(dev, BYTES - 4, &z)); /* its granules would have room */
    struct oom_axpy_args axpy = {.dtype = OOM_F32, .n = WORDS, .a = 2, .x = x, .y = y};
    struct oom_fill_args set = {.dtype = OOM_F32, .n = WORDS, .value = 3, .x = x};
    CHECK(api->supports(dev, OOM_OP_AXPY, &axpy, reason, sizeof reason));
    CHECK_OK(api->launch(dev, OOM_OP_FILL, &set, NULL));
    set.x = y;
    CHECK_OK(api->launch(dev, OOM_OP_FILL, &set, NULL));
    CHECK_OK(api->launch(dev, OOM_OP_AXPY, &axpy, NULL));
    float words[WORDS];
    CHECK_OK(api->download(dev, words, y, BYTES, NULL));
    float want = strcmp(name, "host") == 0 ? 9 : 0;
    for (int i = 0; i < WORDS; i++) CHECK(words[i] == want);

    axpy.y = z;
    test_expect(api->launch(dev, OOM_OP_AXPY, &axpy, NULL), OOM_INVALID, "axpy: y");
    axpy.y = y + 4;
    snprintf(named, sizeof named, "0x%llx", (unsigned long long)axpy.y);
    test_expect(api->launch(dev, OOM_OP_AXPY, &axpy, NULL), OOM_INVALID, named);
    axpy.y = 0;
    test_expect(api->launch(dev, OOM_OP_AXPY, &axpy, NULL), OOM_INVALID, "axpy");
    axpy.y = y;
    axpy.n = -1;
    test_expect(api->launch(dev, OOM_OP_AXPY, &axpy, NULL), OOM_INVALID, "-1");
    test_expect(api->launch(dev, OOM_OP_COUNT, &axpy, NULL), OOM_INVALID, "unknown");
    reason[0] = 0;
    CHECK(!api->supports(dev, OOM_OP_AXPY, &axpy, reason, sizeof reason));
    CHECK(strstr(reason, "-1") != NULL);
    CHECK_EQ(oom_failure_last()->status, OOM_OK);
    (void)oom_fail(OOM_IO, "an older failure");
    CHECK(!api->supports(dev, OOM_OP_AXPY, &axpy, reason, sizeof reason));
    CHECK(strstr(reason, "-1") != NULL);
    test_expect(OOM_IO, OOM_IO, "an older failure");
    test_expect(api->copy(dev, x, x + 8, BYTES - 8, NULL), OOM_INVALID, "overlap");
    CHECK_OK(api->copy(dev, x, y, 0, NULL));
    CHECK_OK(api->upload(dev, 0, NULL, 0, NULL));
    CHECK_OK(api->free(dev, x));
    axpy.n = WORDS;
    test_expect(api->launch(dev, OOM_OP_AXPY, &axpy, NULL), OOM_INVALID, "axpy: x");
    oom_device_close(dev);
}

/* ---- a random program without races gives the same bits whenever it runs ---- */

enum { BUFFERS = 8, STREAMS = 4, STEPS = 2000 };

static uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u; /* Numerical Recipes' generator */
    return *state >> 8;
}

static void run_program(enum oom_schedule schedule, uint64_t seed, float out[BUFFERS][WORDS]) {
    struct oom_device *dev = test_open_seeded("host", 16 * MIB, schedule, seed);
    const struct oom_device_api *api = dev->api;
    struct oom_stream *streams[STREAMS] = {NULL}; /* the first is the default stream */
    struct oom_event *events[BUFFERS];            /* after the buffer's last use */
    oom_devptr buffers[BUFFERS];
    uint32_t state = 20260729;
    bool fine = true;
    for (int i = 1; i < STREAMS; i++) CHECK_OK(api->stream_create(dev, &streams[i]));
    for (int i = 0; i < BUFFERS; i++) {
        CHECK_OK(api->event_create(dev, &events[i]));
        CHECK_OK(api->alloc(dev, BYTES, &buffers[i]));
        struct oom_fill_args set = {.dtype = OOM_F32, .n = WORDS, .value = i + 1, .x = buffers[i]};
        CHECK_OK(api->launch(dev, OOM_OP_FILL, &set, NULL));
        CHECK_OK(api->event_record(dev, events[i], NULL));
    }
    for (int i = 0; i < STEPS; i++) {
        struct oom_stream *stream = streams[next_random(&state) % STREAMS];
        uint32_t x = next_random(&state) % BUFFERS;
        uint32_t y = (x + 1 + next_random(&state) % (BUFFERS - 1)) % BUFFERS;
        double a = (double)(next_random(&state) % 3) - 1;
        struct oom_axpy_args axpy = {
            .dtype = OOM_F32, .n = WORDS, .a = a, .x = buffers[x], .y = buffers[y]};
        fine = api->stream_wait(dev, stream, events[x]) == OOM_OK && fine;
        fine = api->stream_wait(dev, stream, events[y]) == OOM_OK && fine;
        struct oom_fill_args set = {.dtype = OOM_F32, .n = WORDS, .value = i, .x = buffers[y]};
        bool reset = next_random(&state) % 4 == 0; /* else the sums would grow beyond floats */
        enum oom_status launched = reset ? api->launch(dev, OOM_OP_FILL, &set, stream)
                                         : api->launch(dev, OOM_OP_AXPY, &axpy, stream);
        fine = launched == OOM_OK && fine;
        fine = api->event_record(dev, events[x], stream) == OOM_OK && fine;
        fine = api->event_record(dev, events[y], stream) == OOM_OK && fine;
        if (i % 701 == 700) fine = api->event_sync(dev, events[y]) == OOM_OK && fine;
    }
    CHECK(fine);
    for (int i = 0; i < BUFFERS; i++) {
        CHECK_OK(api->event_sync(dev, events[i]));
        CHECK_OK(api->download(dev, out[i], buffers[i], BYTES, NULL));
    }
    oom_device_close(dev);
}

static void check_random(void) {
    TEST("a random program on %d streams: every schedule gives the bits of eager", STREAMS);
    static float eager[BUFFERS][WORDS], other[BUFFERS][WORDS];
    run_program(OOM_SCHEDULE_EAGER, 0, eager);
    for (int i = 1; i < OOM_SCHEDULE_COUNT; i++) {
        for (uint64_t seed = 0; seed < 3; seed++) {
            run_program((enum oom_schedule)i, seed, other);
            CHECK_MSG(memcmp(eager, other, sizeof eager) == 0, "%s, seed %d",
                      oom_schedule_name((enum oom_schedule)i), (int)seed);
        }
    }
    for (int i = 0; i < BUFFERS; i++) CHECK(eager[i][0] > -1e30f && eager[i][0] < 1e30f);
    bool differ = false; /* buffers must not have become all alike, or the test says nothing */
    for (int i = 1; i < BUFFERS; i++) differ = differ || eager[i][0] != eager[0][0];
    CHECK(differ);
}

void simulated_streams_test(void) {
    check_lazy();
    check_eager();
    check_wait();
    check_events();
    check_failing();
    check_in_use();
    check_destroyed();
    for (int i = 0; i < OOM_SCHEDULE_COUNT; i++) {
        enum oom_schedule schedule = (enum oom_schedule)i;
        check_ping_pong(schedule);
        check_closing(schedule);
        check_free(schedule);
        for (int k = 0; k < 2; k++) check_launch(test_devices[k], schedule);
    }
    check_random();
}
