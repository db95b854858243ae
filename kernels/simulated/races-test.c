/*
 * Programs that forgot a wait, each beside its right twin: under lazy and every seed the wrong one
 * gives the wrong result, whatever is waited for afterwards, and the right one never does. Expected
 * values are worked out by hand from the order in which the program submits.
 */
#include "kernels/simulated/test-streams.h"

void simulated_races_test(void);

enum { MIB = TEST_MIB, BYTES = TEST_BYTES, SEEDS = 200, RIGHT_EVERY = 5 };

/* ---- the programs: before is 1 in a, 2 in b, 3 in c; streams[0] is A, streams[1] B ---- */

#define A (t->streams[0])
#define B (t->streams[1])
#define C (t->streams[2])

static void read_too_early(const struct test_bench *t, bool right) {
    CHECK_OK(test_fill(t, t->a, 5, A));
    if (right) test_order(t, A, B);
    CHECK_OK(test_copy(t, t->b, t->a, B)); /* 5 */
    CHECK_OK(test_fill(t, t->c, 9, A));    /* the producer goes on */
}

static void overwritten_too_early(const struct test_bench *t, bool right) {
    CHECK_OK(test_copy(t, t->b, t->a, B)); /* 1 */
    if (right) test_order(t, B, A);
    CHECK_OK(test_fill(t, t->a, 5, A));
}

/* What a reused block looks like that was freed without a word about its other stream. */
static void reused_too_early(const struct test_bench *t, bool right) {
    uint8_t other[BYTES];
    memset(other, 77, BYTES);
    CHECK_OK(test_fill(t, t->c, 4, A));
    CHECK_OK(test_copy(t, t->b, t->a, B)); /* 1 */
    if (right) test_order(t, B, A);
    CHECK_OK(t->api->upload(t->dev, t->a, other, BYTES, A));
    CHECK_OK(test_copy(t, t->c, t->a, A));
}

static void written_twice(const struct test_bench *t, bool right) {
    CHECK_OK(test_fill(t, t->b, 5, A));
    if (right) test_order(t, A, B);
    CHECK_OK(test_fill(t, t->b, 6, B)); /* 6 */
}

static void event_too_old(const struct test_bench *t, bool right) {
    CHECK_OK(test_fill(t, t->c, 8, A));
    if (!right) test_order(t, A, B);
    CHECK_OK(test_fill(t, t->a, 5, A));
    if (right) test_order(t, A, B);
    CHECK_OK(test_copy(t, t->b, t->a, B)); /* 5 */
}

/* C waits for A, but only after the event that B takes from C. */
static void chain_too_short(const struct test_bench *t, bool right) {
    struct oom_event *produced;
    CHECK_OK(t->api->event_create(t->dev, &produced));
    CHECK_OK(test_fill(t, t->a, 5, A));
    CHECK_OK(t->api->event_record(t->dev, produced, A));
    CHECK_OK(test_fill(t, t->c, 4, C));
    if (!right) test_order(t, C, B);
    CHECK_OK(t->api->stream_wait(t->dev, C, produced));
    CHECK_OK(test_fill(t, t->c, 5, C));
    if (right) test_order(t, C, B);
    CHECK_OK(test_copy(t, t->b, t->a, B)); /* 5 */
    CHECK_OK(t->api->event_destroy(t->dev, produced));
}

static void by_ops(const struct test_bench *t, bool right) {
    struct oom_fill_args ones = {.dtype = OOM_F32, .n = TEST_WORDS, .value = 1, .x = t->a};
    struct oom_axpy_args axpy = {
        .dtype = OOM_F32, .n = TEST_WORDS, .a = 2, .x = t->a, .y = t->a + BYTES};
    CHECK_OK(t->api->launch(t->dev, OOM_OP_FILL, &ones, A));
    ones.x = axpy.y = t->c;
    CHECK_OK(t->api->launch(t->dev, OOM_OP_FILL, &ones, A));
    CHECK_OK(t->api->launch(t->dev, OOM_OP_AXPY, &axpy, A)); /* 3 = 0x40400000 */
    if (right) test_order(t, A, B);
    CHECK_OK(test_copy(t, t->b, t->c, B)); /* its last byte: 0x40 */
}

/* Only the last byte of what is read is touched by the other. */
static void one_byte(const struct test_bench *t, bool right) {
    CHECK_OK(t->api->fill(t->dev, t->a + BYTES - 1, 5, 1, A));
    if (right) test_order(t, A, B);
    CHECK_OK(test_copy(t, t->b, t->a, B)); /* 5 */
}

#undef A
#undef B
#undef C

static const struct {
    const char *name;
    void (*submit)(const struct test_bench *t, bool right);
    int result; /* last byte of b */
} programs[] = {
    {"reads before it was produced", read_too_early, 5},
    {"overwritten before it was read", overwritten_too_early, 1},
    {"a block reused on another stream", reused_too_early, 1},
    {"written by two", written_twice, 6},
    {"an event recorded too early", event_too_old, 5},
    {"a chain of waits that is too short", chain_too_short, 5},
    {"ops", by_ops, 0x40},
    {"one byte", one_byte, 5},
};

/* ---- what happens afterwards ---- */

/* 6 of them, so that every fifth seed has each */
enum ending { FIRST_STREAM, SECOND_STREAM, ALL, FREE, POLL, BACKGROUND, ENDINGS };

static void finish(const struct test_bench *t, enum ending ending) {
    oom_devptr other;
    switch (ending) {
    case FIRST_STREAM:
        CHECK_OK(t->api->stream_sync(t->dev, t->streams[0]));
        break;
    case SECOND_STREAM:
        CHECK_OK(t->api->stream_sync(t->dev, t->streams[1]));
        break;
    case FREE:
        CHECK_OK(t->api->alloc(t->dev, BYTES, &other));
        CHECK_OK(t->api->free(t->dev, other));
        break;
    case POLL:
        CHECK_OK(t->api->event_record(t->dev, t->event, t->streams[0]));
        for (int i = 0; i < 4; i++) (void)t->api->event_query(t->dev, t->event);
        break;
    case BACKGROUND:
        CHECK_OK(t->api->stream_destroy(t->dev, t->streams[2]));
        break;
    case ALL:
    case ENDINGS:
        break;
    }
    CHECK_OK(t->api->sync(t->dev));
}

static bool result_is_right(size_t program, bool right, enum ending ending,
                            enum oom_schedule schedule, uint64_t seed) {
    struct test_bench t = test_setup(schedule, seed);
    CHECK_OK(test_fill(&t, t.a, 1, NULL));
    CHECK_OK(test_fill(&t, t.b, 2, NULL));
    CHECK_OK(test_fill(&t, t.c, 3, NULL));
    CHECK_OK(t.api->sync(t.dev));
    programs[program].submit(&t, right);
    finish(&t, ending);
    int result = test_peek(&t, t.b + BYTES - 1);
    oom_device_close(t.dev);
    return result == programs[program].result;
}

static void check_program(size_t program) {
    TEST("races: %s: wrong without the wait, right with it, lazy and %d seeds",
         programs[program].name, SEEDS);
    int wrong_shown = 0, right_kept = 0;
    for (int i = 0; i <= SEEDS; i++) {
        enum oom_schedule schedule = i == 0 ? OOM_SCHEDULE_LAZY : OOM_SCHEDULE_SEEDED;
        enum ending ending = (enum ending)(i % ENDINGS);
        wrong_shown += !result_is_right(program, false, ending, schedule, (uint64_t)i);
        if (i % RIGHT_EVERY != 0) continue;
        right_kept += result_is_right(program, true, ending, schedule, (uint64_t)i);
    }
    for (int i = 0; i < ENDINGS; i++) {
        if (result_is_right(program, false, (enum ending)i, OOM_SCHEDULE_LAZY, 0)) wrong_shown--;
    }
    CHECK_EQ(wrong_shown, SEEDS + 1);
    CHECK_EQ(right_kept, SEEDS / RIGHT_EVERY + 1);
    CHECK(result_is_right(program, true, ALL, OOM_SCHEDULE_EAGER, 0));
    CHECK(result_is_right(program, true, ALL, OOM_SCHEDULE_THREADS, 0));
}

/* ---- the guarantee is about races only: what is ordered does not run before it must ---- */

static void check_not_overtaken(void) {
    TEST("races: what is ordered, or only read, or beside it, is left to the end");
    struct test_bench t = test_setup(OOM_SCHEDULE_LAZY, 0);
    oom_devptr d;
    CHECK_OK(t.api->alloc(t.dev, 2 * BYTES, &d));
    CHECK_OK(test_fill(&t, t.a, 5, t.streams[0]));
    test_order(&t, t.streams[0], t.streams[2]); /* by way of a third stream, which does nothing */
    test_order(&t, t.streams[2], t.streams[1]);
    CHECK_OK(test_copy(&t, t.b, t.a, t.streams[1]));
    CHECK_OK(test_copy(&t, t.c, t.a, t.streams[0]));
    CHECK_OK(test_fill(&t, d, 6, t.streams[0]));
    CHECK_OK(test_fill(&t, d + BYTES, 7, t.streams[1]));
    CHECK_EQ(test_peek(&t, t.a), 0);
    CHECK_EQ(test_peek(&t, t.b), 0);
    CHECK_EQ(test_peek(&t, d + BYTES), 0);
    CHECK_OK(t.api->sync(t.dev));
    CHECK_EQ(test_peek(&t, t.b), 5);
    CHECK_OK(test_fill(&t, t.a, 8, t.streams[0]));
    CHECK_OK(t.api->stream_sync(t.dev, t.streams[0])); /* the caller has waited: no race */
    CHECK_OK(test_copy(&t, t.b, t.a, t.streams[1]));
    CHECK_EQ(test_peek(&t, t.b), 5);
    CHECK_EQ(test_read_back(&t, t.b, t.streams[1]), 8);
    oom_device_close(t.dev);
}

static void check_read_back(void) {
    TEST("races: a read-back that waits for another stream than the producer's");
    for (int i = 0; i <= SEEDS; i++) {
        enum oom_schedule schedule = i == 0 ? OOM_SCHEDULE_LAZY : OOM_SCHEDULE_SEEDED;
        struct test_bench t = test_setup(schedule, (uint64_t)i);
        CHECK_OK(test_fill(&t, t.a, 5, t.streams[0]));
        CHECK_OK(test_fill(&t, t.b, 5, t.streams[1]));
        CHECK_EQ(test_read_back(&t, t.a, t.streams[1]), 0);
        CHECK_EQ(test_read_back(&t, t.a, t.streams[0]), 5);
        oom_device_close(t.dev);
    }
}

static void check_overtaking_takes_along(void) {
    TEST("races: the one that overtakes takes along what it waits for, and no more");
    struct test_bench t = test_setup(OOM_SCHEDULE_LAZY, 0);
    oom_devptr d;
    CHECK_OK(t.api->alloc(t.dev, BYTES, &d));
    CHECK_OK(test_fill(&t, t.a, 5, t.streams[0]));
    CHECK_OK(test_fill(&t, t.c, 6, t.streams[2]));
    test_order(&t, t.streams[2], t.streams[1]);
    CHECK_OK(test_fill(&t, d, 7, t.streams[2]));
    CHECK_OK(test_copy(&t, t.b, t.c, t.streams[1]));
    CHECK_EQ(test_peek(&t, t.b), 0);
    CHECK_OK(test_copy(&t, t.b, t.a, t.streams[1])); /* races with the first */
    CHECK_EQ(test_peek(&t, t.c), 6);
    CHECK_EQ(test_peek(&t, t.b), 0); /* was 6, then a's old 0 */
    CHECK_EQ(test_peek(&t, t.a), 0);
    CHECK_EQ(test_peek(&t, d), 0);
    oom_device_close(t.dev);
}

void simulated_races_test(void) {
    for (size_t i = 0; i < sizeof programs / sizeof programs[0]; i++) check_program(i);
    check_not_overtaken();
    check_read_back();
    check_overtaking_takes_along();
}
