/*
 * allocator-testing.h: for tests only: one allocator over one fake device, and the few verbs that
 * every test of the allocator is written with. They check what they do.
 */
#ifndef OOM_HARNESS_MEMORY_ALLOCATOR_TESTING_H
#define OOM_HARNESS_MEMORY_ALLOCATOR_TESTING_H

#include "harness/memory/allocator.h"
#include "harness/memory/fake-device.h"
#include "kernels/testing.h"

static const uint64_t MIB = 1 << 20, GIB = 1 << 30;

static struct fake_device fake;
static struct oom_allocator *a;

static inline void begin_as(uint64_t capacity, enum oom_profile profile, const char *conf) {
    struct oom_allocator_settings settings = oom_allocator_settings_default();
    fake_open_wide(&fake, capacity, 64 * capacity, false); /* room for many reservations */
    a = NULL;
    settings.profile = profile;
    CHECK_OK(oom_allocator_settings_parse(conf, &settings));
    CHECK_OK(oom_allocator_create(&fake.device, &settings, &a));
}

static inline void begin(uint64_t capacity, const char *conf) {
    begin_as(capacity, OOM_PROFILE_PYTORCH_2_13, conf);
}

/* Destroys the allocator as it is: nothing may be left on the device. */
static inline void end(void) {
    CHECK_OK(oom_allocator_check(a));
    oom_allocator_destroy(a);
    CHECK_EQ(fake.used, 0);
    CHECK_EQ(fake.count, 0);
    CHECK_EQ(fake.event_count, 0);
    CHECK_EQ(fake.misuse, 0);
    fake_close(&fake.device);
}

static inline oom_devptr take_on(struct oom_stream *stream, uint64_t bytes) {
    oom_devptr ptr = 0;
    CHECK_OK(oom_allocator_alloc(a, bytes, stream, OOM_TAG_ACTIVATION, "test", &ptr));
    return ptr;
}

static inline oom_devptr take(uint64_t bytes) {
    return take_on(NULL, bytes);
}

static inline void give(oom_devptr ptr) {
    CHECK_OK(oom_allocator_free(a, ptr));
}

/* What an OOM is expected to be: the failure record is read and cleared. */
static inline void refuse(uint64_t bytes) {
    oom_devptr ptr = 1;
    oom_failure_clear();
    CHECK_EQ(oom_allocator_alloc(a, bytes, NULL, OOM_TAG_ACTIVATION, "refused", &ptr), OOM_NOMEM);
    CHECK_EQ(oom_failure_last()->status, OOM_NOMEM);
    CHECK_EQ(ptr, 0);
    oom_failure_clear();
}

static inline const struct oom_allocator_stats *stats(void) {
    return oom_allocator_stats(a);
}

static inline int64_t reserved(void) {
    return stats()->reserved_bytes[OOM_POOL_ALL].current;
}

/* The newest events of the trace are these: alloc, free requested (r) and completed (c), segment
 * allocated (S) and freed (F), mapped (M) and unmapped (U), out of memory (O). */
static inline bool traced(const char *expected) {
    static const char letters[] = {'a', 'r', 'c', 'S', 'F', 'M', 'U', 'O'};
    uint64_t count = oom_allocator_trace_count(a), length = strlen(expected), same = 0;
    for (uint64_t i = 0; count >= length && i < length; i++) {
        same += letters[oom_allocator_trace_at(a, count - length + i)->action] == expected[i];
    }
    return same == length && count >= length;
}

static inline uint64_t traced_address(int from_newest) {
    return oom_allocator_trace_at(a, oom_allocator_trace_count(a) - 1 - (uint64_t)from_newest)
        ->address;
}

static inline uint64_t traced_bytes(int from_newest) {
    return oom_allocator_trace_at(a, oom_allocator_trace_count(a) - 1 - (uint64_t)from_newest)
        ->bytes;
}

struct wanted_block {
    int left; /* blocks before it */
    struct oom_block_view view;
};

static inline enum oom_status nth_block(const struct oom_block_view *block, void *context) {
    struct wanted_block *want = context;
    if (want->left-- > 0) return OOM_OK;
    want->view = *block;
    return OOM_NOTHING;
}

/* The n-th block by address, over all segments. */
static inline struct oom_block_view block_at(int n) {
    struct wanted_block want = {.left = n};
    CHECK_EQ(oom_allocator_walk(a, nth_block, &want), OOM_NOTHING);
    return want.view;
}

#endif
