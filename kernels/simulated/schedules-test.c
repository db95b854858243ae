/*
 * The schedules on the queues themselves, with work that writes down its order or waits at a gate:
 * so what runs, and what has not, is known without looking at a clock.
 */
#include "kernels/simulated/streams.h"
#include "kernels/testing.h"

#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>

void simulated_schedules_test(void);

/* ---- work: a FILL's value is its number ---- */

enum { COMMANDS = 100, FAILING = 90, GATE = 91, OPENER = 92 };

struct log {
    struct oom_queues queues;
    pthread_mutex_t lock;
    int order[COMMANDS]; /* numbers as they ran */
    int count;
    sem_t gate, reached;
};

static enum oom_status check_number(void *context, const struct oom_command *command) {
    (void)context;
    if (command->value < FAILING || command->value >= GATE) return OOM_OK;
    return oom_fail(OOM_INVALID, "number %d may not run", command->value);
}

static void wait_for(sem_t *semaphore) {
    while (sem_wait(semaphore) != 0 && errno == EINTR) {}
}

static void write_number(void *context, const struct oom_command *command) {
    struct log *log = context;
    if (command->value == GATE) {
        sem_post(&log->reached);
        wait_for(&log->gate);
    }
    pthread_mutex_lock(&log->lock);
    if (log->count < COMMANDS) log->order[log->count++] = command->value;
    pthread_mutex_unlock(&log->lock);
    if (command->value == OPENER) sem_post(&log->gate);
}

static void open_log(struct log *log, enum oom_schedule schedule, uint64_t seed) {
    *log = (struct log){.count = 0};
    log->lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    sem_init(&log->gate, 0, 0);
    sem_init(&log->reached, 0, 0);
    const struct oom_work work = {check_number, write_number, log};
    CHECK_OK(oom_queues_init(&log->queues, schedule, seed, &work));
    oom_queues_enter(&log->queues);
}

static void close_log(struct log *log) {
    oom_queues_leave(&log->queues);
    oom_queues_free(&log->queues);
    sem_destroy(&log->gate);
    sem_destroy(&log->reached);
    pthread_mutex_destroy(&log->lock);
}

/* Each number has 16 bytes of its own, at 1024 times the number. */
static void submit(struct log *log, struct oom_stream *stream, int number) {
    struct oom_command command = {.kind = OOM_COMMAND_FILL,
                                  .value = (uint8_t)number,
                                  .dst = 1024 * (oom_devptr)number,
                                  .bytes = 16};
    CHECK_OK(oom_queues_submit(&log->queues, stream, &command));
}

static int count_done(struct log *log) {
    pthread_mutex_lock(&log->lock);
    int count = log->count;
    pthread_mutex_unlock(&log->lock);
    return count;
}

static bool is_done(struct log *log, int number) {
    bool found = false;
    pthread_mutex_lock(&log->lock);
    for (int i = 0; i < log->count; i++) found = found || log->order[i] == number;
    pthread_mutex_unlock(&log->lock);
    return found;
}

/* ---- legal orders ---- */

enum { STREAMS = 3, STEPS = 24 };

/* Number i goes to stream i % 3; where it is a multiple of 4, its stream first waits for what the
 * next stream has by then. */
static void run_known(struct log *log, uint64_t seed) {
    struct oom_stream *streams[STREAMS];
    struct oom_event *event;
    open_log(log, OOM_SCHEDULE_SEEDED, seed);
    for (int i = 0; i < STREAMS; i++) CHECK_OK(oom_stream_make(&log->queues, &streams[i]));
    CHECK_OK(oom_event_make(&log->queues, &event));
    for (int i = 0; i < STEPS; i++) {
        if (i % 4 == 0) {
            CHECK_OK(oom_event_mark(&log->queues, event, streams[(i + 1) % STREAMS]));
            CHECK_OK(oom_stream_await(&log->queues, streams[i % STREAMS], event));
        }
        submit(log, streams[i % STREAMS], i);
    }
    CHECK_EQ(log->count, 0);
    CHECK_OK(oom_stream_finish(&log->queues, streams[1]));
    CHECK_OK(oom_queues_sync(&log->queues));
    close_log(log);
}

static bool is_legal(const struct log *log) {
    int place[STEPS];
    memset(place, -1, sizeof place);
    for (int i = 0; i < log->count; i++) {
        if (log->order[i] >= STEPS || place[log->order[i]] >= 0) return false;
        place[log->order[i]] = i;
    }
    bool legal = log->count == STEPS;
    for (int i = STREAMS; i < STEPS && legal; i++) {
        legal = place[i - STREAMS] < place[i];
        /* The next stream's last number before i is i - 2. */
        if (i % 4 == 0) legal = legal && place[i - 2] < place[i];
    }
    return legal;
}

static void check_orders(void) {
    TEST("seeded: the same seed gives the same order; every order is legal; seeds differ");
    enum { SEEDS = 120 };
    static struct log first, again;
    int before[COMMANDS] = {0}, changes = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        run_known(&first, seed);
        run_known(&again, seed);
        CHECK(is_legal(&first));
        CHECK_EQ(first.count, again.count);
        CHECK(memcmp(first.order, again.order, sizeof first.order) == 0);
        changes += seed > 0 && memcmp(first.order, before, sizeof before) != 0;
        memcpy(before, first.order, sizeof before);
    }
    CHECK_MSG(changes > SEEDS * 9 / 10, "%d of %d", changes, SEEDS - 1);
}

static void check_both_first(void) {
    TEST("seeded: of three streams without order each comes first for some seeds");
    enum { SEEDS = 90 };
    static struct log log;
    int firsts[STREAMS] = {0};
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        open_log(&log, OOM_SCHEDULE_SEEDED, seed);
        for (int i = 0; i < STREAMS; i++) {
            struct oom_stream *stream;
            CHECK_OK(oom_stream_make(&log.queues, &stream));
            submit(&log, stream, i);
        }
        CHECK_OK(oom_queues_sync(&log.queues));
        CHECK_EQ(log.count, STREAMS);
        if (log.order[0] < STREAMS) firsts[log.order[0]]++;
        close_log(&log);
    }
    /* 30 expected, standard deviation 4.5 */
    for (int i = 0; i < STREAMS; i++) CHECK_MSG(firsts[i] > 8, "%d: %d", i, firsts[i]);
}

static void check_needed_only(void) {
    TEST("lazy, seeded: a wait of the caller runs what it needs and nothing else");
    static struct log log;
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct oom_stream *a, *b, *c;
        struct oom_event *event;
        open_log(&log, seed == 0 ? OOM_SCHEDULE_LAZY : OOM_SCHEDULE_SEEDED, seed);
        CHECK_OK(oom_stream_make(&log.queues, &a));
        CHECK_OK(oom_stream_make(&log.queues, &b));
        CHECK_OK(oom_stream_make(&log.queues, &c));
        CHECK_OK(oom_event_make(&log.queues, &event));
        submit(&log, a, 0);
        CHECK_OK(oom_event_mark(&log.queues, event, a));
        submit(&log, a, 1);
        submit(&log, c, 2);
        CHECK_OK(oom_stream_await(&log.queues, b, event));
        submit(&log, b, 3);
        CHECK_OK(oom_event_mark(&log.queues, event, b));
        submit(&log, b, 4);
        CHECK_EQ(log.count, 0);
        CHECK_OK(oom_event_finish(&log.queues, event));
        CHECK_EQ(log.count, 2);
        CHECK_EQ(log.order[0], 0);
        CHECK_EQ(log.order[1], 3);
        close_log(&log);
    }
}

/* ---- events ---- */

static void check_asking(void) {
    TEST(
        "seeded: an event may be ready or not; then it is so with all before it, and nothing else");
    static struct log log;
    int ready_at_once = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct oom_stream *a, *b;
        struct oom_event *early, *late;
        open_log(&log, OOM_SCHEDULE_SEEDED, seed);
        CHECK_OK(oom_stream_make(&log.queues, &a));
        CHECK_OK(oom_stream_make(&log.queues, &b));
        CHECK_OK(oom_event_make(&log.queues, &early));
        CHECK_OK(oom_event_make(&log.queues, &late));
        submit(&log, b, 0);
        submit(&log, a, 1);
        CHECK_OK(oom_event_mark(&log.queues, early, a));
        submit(&log, a, 2);
        CHECK_OK(oom_event_mark(&log.queues, late, a));
        submit(&log, a, 3);
        enum oom_status first = oom_event_ask(&log.queues, late);
        ready_at_once += first == OOM_OK;
        CHECK_EQ(log.count, first == OOM_OK ? 2 : 0);
        int asked = 0;
        while (oom_event_ask(&log.queues, late) == OOM_NOT_READY && asked < 100) asked++;
        CHECK_MSG(asked < 100, "not ready after %d", asked);
        CHECK_EQ(log.count, 2);
        CHECK_OK(oom_event_ask(&log.queues, early));
        CHECK_OK(oom_event_ask(&log.queues, late));
        CHECK_EQ(log.count, 2);
        CHECK_EQ(oom_failure_last()->status, OOM_OK);
        close_log(&log);
    }
    CHECK_MSG(ready_at_once > 60 && ready_at_once < 140, "%d of 200", ready_at_once);
}

/* ---- failures ---- */

static void check_failures(enum oom_schedule schedule) {
    TEST("%s: what failed is reported by the next wait, once; the caller's record is his own",
         oom_schedule_name(schedule));
    static struct log log;
    for (uint64_t seed = 0; seed < 8; seed++) {
        struct oom_stream *a;
        struct oom_event *event;
        open_log(&log, schedule, seed);
        CHECK_OK(oom_stream_make(&log.queues, &a));
        CHECK_OK(oom_event_make(&log.queues, &event));
        submit(&log, a, 1);
        submit(&log, a, FAILING);
        submit(&log, a, 2);
        CHECK_OK(oom_event_mark(&log.queues, event, a));
        (void)oom_fail(OOM_IO, "an older failure");
        enum oom_status answer = OOM_NOT_READY;
        for (int i = 0; i < 50 && answer == OOM_NOT_READY; i++) {
            answer = oom_event_ask(&log.queues, event);
        }
        CHECK_STR(oom_failure_last()->message, "an older failure");
        oom_failure_clear();
        CHECK_EQ(oom_stream_finish(&log.queues, a), OOM_INVALID);
        CHECK_STR(oom_failure_last()->message, "number 90 may not run");
        oom_failure_clear();
        CHECK_OK(oom_stream_finish(&log.queues, a));
        CHECK_OK(oom_event_finish(&log.queues, event));
        CHECK_OK(oom_queues_sync(&log.queues));
        CHECK_EQ(log.count, 2);
        CHECK_EQ(log.order[1], 2);
        submit(&log, a, FAILING);
        CHECK_EQ(oom_stream_drop(&log.queues, a), OOM_INVALID);
        oom_failure_clear();
        CHECK_EQ(oom_stream_check(&log.queues, a), OOM_INVALID);
        oom_failure_clear();
        close_log(&log);
    }
}

/* ---- threads ---- */

/* Until the work at the gate has been begun. */
static void until_reached(struct log *log) {
    oom_queues_leave(&log->queues);
    wait_for(&log->reached);
    oom_queues_enter(&log->queues);
}

static void check_threads(void) {
    TEST("threads: streams go on by themselves, side by side, and wait for one another");
    static struct log log;
    struct oom_stream *a, *b, *c;
    struct oom_event *event, *other;
    open_log(&log, OOM_SCHEDULE_THREADS, 0);
    CHECK_OK(oom_stream_make(&log.queues, &a));
    CHECK_OK(oom_stream_make(&log.queues, &b));
    CHECK_OK(oom_stream_make(&log.queues, &c));
    CHECK_OK(oom_event_make(&log.queues, &event));
    CHECK_OK(oom_event_make(&log.queues, &other));
    submit(&log, a, GATE);
    CHECK_OK(oom_event_mark(&log.queues, event, a));
    CHECK_OK(oom_stream_await(&log.queues, b, event));
    submit(&log, b, 2);
    CHECK_OK(oom_event_mark(&log.queues, other, b));
    submit(&log, c, 3);
    until_reached(&log); /* without anybody's waiting for it */
    CHECK_OK(oom_stream_finish(&log.queues, c));
    CHECK(is_done(&log, 3));
    CHECK(!is_done(&log, 2));
    for (int i = 0; i < 5; i++) {
        CHECK_EQ(oom_event_ask(&log.queues, event), OOM_NOT_READY);
        CHECK_EQ(oom_event_ask(&log.queues, other), OOM_NOT_READY);
    }
    CHECK(oom_queues_use(&log.queues, 1024 * GATE + 15, 1)); /* being done is using */
    CHECK(!oom_queues_use(&log.queues, 1024 * GATE + 16, 100));
    CHECK(oom_queues_use(&log.queues, 1024 * 2, 1));
    oom_queues_settle(&log.queues, 1024 * 2, 16); /* queued is not being done: no wait */
    CHECK(!is_done(&log, 2));
    submit(&log, c, OPENER);
    CHECK_OK(oom_event_finish(&log.queues, other));
    CHECK_OK(oom_event_ask(&log.queues, event));
    CHECK_OK(oom_queues_sync(&log.queues));
    CHECK(log.order[log.count - 1] == 2 || log.order[log.count - 2] == 2);
    CHECK(!oom_queues_use(&log.queues, 0, 1 << 20));
    close_log(&log);
}

static void check_settle(void) {
    TEST("threads: settling waits for the work that is being done there");
    static struct log log;
    struct oom_stream *a, *b;
    open_log(&log, OOM_SCHEDULE_THREADS, 0);
    CHECK_OK(oom_stream_make(&log.queues, &a));
    CHECK_OK(oom_stream_make(&log.queues, &b));
    for (int i = 0; i < 20; i++) {
        submit(&log, a, GATE);
        until_reached(&log);
        submit(&log, b, OPENER);
        int before = count_done(&log);
        oom_queues_settle(&log.queues, 1024 * GATE, 1);
        CHECK(!oom_queues_use(&log.queues, 1024 * GATE, 1));
        CHECK(count_done(&log) > before);
    }
    close_log(&log);
}

static void check_all_waits(void) {
    TEST("threads: sync waits for every stream; one that was destroyed is used again");
    static struct log log;
    struct oom_stream *streams[8];
    open_log(&log, OOM_SCHEDULE_THREADS, 0);
    for (int round = 0; round < 10; round++) {
        log.count = 0;
        for (int i = 0; i < 8; i++) CHECK_OK(oom_stream_make(&log.queues, &streams[i]));
        for (int i = 0; i < 80; i++) submit(&log, streams[i % 8], i);
        if (round % 2 == 0) CHECK_OK(oom_queues_sync(&log.queues));
        for (int i = 0; i < 8; i++) CHECK_OK(oom_stream_drop(&log.queues, streams[i]));
        CHECK_EQ(log.count, 80);
        int last[8] = {0, 1, 2, 3, 4, 5, 6, 7};
        for (int i = 0; i < log.count; i++) { /* in order within each */
            int number = log.order[i];
            CHECK_EQ(number, last[number % 8]);
            last[number % 8] += 8;
        }
    }
    int made = 0; /* the default stream and eight */
    for (struct oom_stream *each = log.queues.unused_streams; each != NULL && made < 100; made++) {
        CHECK_OK(oom_stream_make(&log.queues, &each));
        each = log.queues.unused_streams;
    }
    CHECK_EQ(made, 8);
    close_log(&log);
}

/* Work that waits for something that never comes must not keep the end. */
static void check_dropped(void) {
    TEST("threads: the end drops what is queued and waits for what is being done");
    static struct log log;
    struct oom_stream *a, *b;
    struct oom_event *event;
    open_log(&log, OOM_SCHEDULE_THREADS, 0);
    CHECK_OK(oom_stream_make(&log.queues, &a));
    CHECK_OK(oom_stream_make(&log.queues, &b));
    CHECK_OK(oom_event_make(&log.queues, &event));
    submit(&log, a, GATE);
    submit(&log, a, 1);
    CHECK_OK(oom_event_mark(&log.queues, event, a));
    CHECK_OK(oom_stream_await(&log.queues, b, event));
    submit(&log, b, 2);
    until_reached(&log);
    sem_post(&log.gate);
    close_log(&log);
    CHECK(log.count >= 1);
    CHECK_EQ(log.order[0], GATE);
}

void simulated_schedules_test(void) {
    check_orders();
    check_both_first();
    check_needed_only();
    check_asking();
    check_failures(OOM_SCHEDULE_LAZY);
    check_failures(OOM_SCHEDULE_SEEDED);
    check_failures(OOM_SCHEDULE_THREADS);
    check_threads();
    check_settle();
    check_all_waits();
    check_dropped();
}
