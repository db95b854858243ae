/*
 * test-streams.h: what the tests of streams share: a host device with three streams and three
 * blocks, and a look at its memory that waits for nothing.
 */
#ifndef OOM_KERNELS_SIMULATED_TEST_STREAMS_H
#define OOM_KERNELS_SIMULATED_TEST_STREAMS_H

#include "kernels/simulated/test-device.h"

enum { TEST_WORDS = 64, TEST_BYTES = TEST_WORDS * 4 };

struct test_bench {
    struct oom_device *dev;
    const struct oom_device_api *api;
    struct oom_stream *streams[3];
    struct oom_event *event;
    oom_devptr a, b, c;
};

static inline struct test_bench test_setup(enum oom_schedule schedule, uint64_t seed) {
    struct test_bench t = {.dev = test_open_seeded("host", 16 * TEST_MIB, schedule, seed)};
    t.api = t.dev->api;
    for (int i = 0; i < 3; i++) CHECK_OK(t.api->stream_create(t.dev, &t.streams[i]));
    CHECK_OK(t.api->event_create(t.dev, &t.event));
    CHECK_OK(t.api->alloc(t.dev, TEST_BYTES, &t.a));
    CHECK_OK(t.api->alloc(t.dev, TEST_BYTES, &t.b));
    CHECK_OK(t.api->alloc(t.dev, TEST_BYTES, &t.c));
    return t;
}

/* What is there now. Not under `threads`, where the work may be going on. */
static inline int test_peek(const struct test_bench *t, oom_devptr at) {
    const uint8_t *byte = t->api->host_view(t->dev, at);
    return byte != NULL ? *byte : -1;
}

static inline int test_read_back(const struct test_bench *t, oom_devptr at,
                                 struct oom_stream *stream) {
    uint8_t bytes[TEST_BYTES];
    CHECK_OK(t->api->download(t->dev, bytes, at, TEST_BYTES, stream));
    return bytes[TEST_BYTES - 1];
}

static inline enum oom_status test_fill(const struct test_bench *t, oom_devptr at, int value,
                                        struct oom_stream *stream) {
    return t->api->fill(t->dev, at, (uint8_t)value, TEST_BYTES, stream);
}

static inline enum oom_status test_copy(const struct test_bench *t, oom_devptr to, oom_devptr from,
                                        struct oom_stream *stream) {
    return t->api->copy(t->dev, to, from, TEST_BYTES, stream);
}

/* `later` goes on when `earlier` has done what it has by now. */
static inline void test_order(const struct test_bench *t, struct oom_stream *earlier,
                              struct oom_stream *later) {
    CHECK_OK(t->api->event_record(t->dev, t->event, earlier));
    CHECK_OK(t->api->stream_wait(t->dev, later, t->event));
}

#endif
