/* A long random script of every memory call on `host` and `dry` side by side: equal statuses,
 * equal addresses relative to the base, equal figures; and use as counted apart, by hand. */
#include "kernels/simulated/test-device.h"

void simulated_parity_test(void);

enum { STEPS = 10000, LIVE = 64, PAIR = 2, CAPACITY = 48 * TEST_MIB };
static const uint64_t page = OOM_PAGE;

struct thing { /* a block, reservation or handle on both devices */
    uint64_t at[PAIR];
    uint64_t bytes;
    oom_devptr mapped; /* of a handle: offset of its last mapping plus 1; 0: none */
    bool released;
};

struct things {
    struct thing items[LIVE];
    int count;
};

struct script {
    struct oom_device *dev[PAIR];
    oom_devptr base[PAIR];
    struct things blocks, spaces, handles;
    uint32_t random;
    uint64_t expected; /* bytes in use */
    int statuses[3];   /* seen: fine, out of memory, invalid */
    bool fine;
};

static uint32_t next_random(struct script *s) {
    s->random = s->random * 1664525u + 1013904223u; /* Numerical Recipes' generator */
    return s->random >> 8;
}

static struct thing *pick(struct script *s, struct things *things) {
    return things->count > 0 ? &things->items[next_random(s) % (uint32_t)things->count] : NULL;
}

static void forget(struct things *things, struct thing *thing) {
    *thing = things->items[--things->count];
}

/* Both devices must have answered the same. */
static enum oom_status same(struct script *s, const enum oom_status got[PAIR]) {
    oom_failure_clear();
    if (got[0] != got[1]) s->fine = false;
    s->statuses[got[0] == OOM_OK ? 0 : got[0] == OOM_NOMEM ? 1 : 2]++;
    return got[0];
}

static void keep(struct script *s, struct things *things, struct thing thing, bool address) {
    if (address && thing.at[0] - s->base[0] != thing.at[1] - s->base[1]) s->fine = false;
    things->items[things->count++] = thing;
}

static uint64_t pages_of(uint64_t bytes) {
    return (bytes + page - 1) / page * page;
}

/* Small blocks: one page for each that holds a block, found by looking at all. */
static uint64_t small_pages(const struct things *blocks) {
    uint64_t bytes = 0;
    for (int i = 0; i < blocks->count; i++) {
        bool first = blocks->items[i].bytes < TEST_MIB;
        for (int j = 0; j < i && first; j++) {
            bool near = blocks->items[j].at[0] / page == blocks->items[i].at[0] / page;
            first = !(near && blocks->items[j].bytes < TEST_MIB);
        }
        bytes += first ? page : 0;
    }
    return bytes;
}

static void step_alloc(struct script *s) {
    static const uint64_t scales[] = {600, 40000, 1 << 20, 5 << 20};
    struct thing thing = {.bytes = 1 + next_random(s) % scales[next_random(s) % 4]};
    enum oom_status got[PAIR];
    if (s->blocks.count == LIVE) return;
    for (int i = 0; i < PAIR; i++) {
        got[i] = s->dev[i]->api->alloc(s->dev[i], thing.bytes, &thing.at[i]);
    }
    if (same(s, got) != OOM_OK) return;
    if (thing.bytes >= TEST_MIB) s->expected += pages_of(thing.bytes);
    keep(s, &s->blocks, thing, true);
}

static void step_free(struct script *s) {
    struct thing *thing = pick(s, &s->blocks);
    if (thing == NULL) return;
    uint32_t choice = next_random(s);
    uint64_t inside = choice % 16 == 0 ? 512 : 0;        /* now and then a wrong one */
    if (inside != 0 && thing->bytes <= TEST_MIB) return; /* may be a neighbour's start */
    enum oom_status got[PAIR];
    for (int i = 0; i < PAIR; i++) { /* with work in the queue now and then */
        enum oom_status filled = OOM_OK;
        if (choice % 4 == 0) filled = s->dev[i]->api->fill(s->dev[i], thing->at[i], 1, 1, NULL);
        if (filled != OOM_OK) s->fine = false;
        got[i] = s->dev[i]->api->free(s->dev[i], thing->at[i] + inside);
    }
    if (same(s, got) != OOM_OK) return;
    if (thing->bytes >= TEST_MIB) s->expected -= pages_of(thing->bytes);
    forget(&s->blocks, thing);
}

static void step_reserve(struct script *s) {
    struct thing thing = {.bytes = page * (1 + next_random(s) % 12)};
    enum oom_status got[PAIR];
    if (s->spaces.count == LIVE) return;
    for (int i = 0; i < PAIR; i++) {
        got[i] = s->dev[i]->api->reserve(s->dev[i], thing.bytes, &thing.at[i]);
    }
    if (same(s, got) == OOM_OK) keep(s, &s->spaces, thing, true);
}

static void step_unreserve(struct script *s) {
    struct thing *thing = pick(s, &s->spaces);
    if (thing == NULL) return;
    enum oom_status got[PAIR];
    for (int i = 0; i < PAIR; i++) {
        got[i] = s->dev[i]->api->unreserve(s->dev[i], thing->at[i], thing->bytes);
    }
    if (same(s, got) == OOM_OK) forget(&s->spaces, thing);
}

static void step_create(struct script *s) {
    struct thing thing = {.bytes = page * (1 + next_random(s) % 3)};
    enum oom_status got[PAIR];
    if (s->handles.count == LIVE) return;
    for (int i = 0; i < PAIR; i++) {
        got[i] = s->dev[i]->api->create(s->dev[i], thing.bytes, &thing.at[i]);
    }
    if (same(s, got) != OOM_OK) return;
    s->expected += thing.bytes;
    keep(s, &s->handles, thing, false);
}

/* Each handle has one mapping at most here; aliases are in virtual-test.c. */
static void step_map(struct script *s) {
    struct thing *handle = pick(s, &s->handles), *space = pick(s, &s->spaces);
    if (handle == NULL || space == NULL || (handle->mapped != 0 && !handle->released)) return;
    uint64_t offset = page * (next_random(s) % 12);
    enum oom_status got[PAIR];
    for (int i = 0; i < PAIR; i++) {
        oom_devptr at = space->at[i] + offset;
        got[i] = s->dev[i]->api->map(s->dev[i], at, handle->bytes, handle->at[i]);
    }
    if (same(s, got) != OOM_OK) return;
    if (handle->released) s->fine = false;
    handle->mapped = space->at[0] + offset - s->base[0] + 1;
}

static void step_access(struct script *s, enum oom_access access) {
    struct thing *handle = pick(s, &s->handles);
    if (handle == NULL) return;
    enum oom_status got[PAIR];
    for (int i = 0; i < PAIR; i++) {
        oom_devptr at = s->base[i] + (handle->mapped != 0 ? handle->mapped - 1 : 0);
        got[i] = s->dev[i]->api->set_access(s->dev[i], at, handle->bytes, access);
    }
    (void)same(s, got);
}

static void step_unmap(struct script *s) {
    struct thing *handle = pick(s, &s->handles);
    if (handle == NULL || handle->mapped == 0) return;
    enum oom_status got[PAIR];
    for (int i = 0; i < PAIR; i++) {
        oom_devptr at = s->base[i] + handle->mapped - 1;
        got[i] = s->dev[i]->api->unmap(s->dev[i], at, handle->bytes);
    }
    if (same(s, got) != OOM_OK) {
        s->fine = false;
        return;
    }
    handle->mapped = 0;
    if (!handle->released) return;
    s->expected -= handle->bytes;
    forget(&s->handles, handle);
}

static void step_release(struct script *s) {
    struct thing *handle = pick(s, &s->handles);
    if (handle == NULL) return;
    enum oom_status got[PAIR];
    for (int i = 0; i < PAIR; i++) {
        got[i] = s->dev[i]->api->release(s->dev[i], handle->at[i]);
    }
    enum oom_status want = handle->released ? OOM_INVALID : OOM_OK;
    if (same(s, got) != want) s->fine = false;
    handle->released = true;
    if (want != OOM_OK || handle->mapped != 0) return;
    s->expected -= handle->bytes;
    forget(&s->handles, handle);
}

static void step(struct script *s) {
    uint32_t choice = next_random(s) % 100;
    if (choice < 26)
        step_alloc(s);
    else if (choice < 52)
        step_free(s);
    else if (choice < 57)
        step_reserve(s);
    else if (choice < 61)
        step_unreserve(s);
    else if (choice < 69)
        step_create(s);
    else if (choice < 79)
        step_map(s);
    else if (choice < 83)
        step_access(s, OOM_ACCESS_READ_WRITE);
    else if (choice < 85)
        step_access(s, OOM_ACCESS_NONE);
    else if (choice < 93)
        step_unmap(s);
    else
        step_release(s);
}

static void check_figures(struct script *s) {
    struct oom_memory_info info[PAIR];
    for (int i = 0; i < PAIR; i++) s->dev[i]->api->memory_info(s->dev[i], &info[i]);
    bool equal = info[0].used == info[1].used && info[0].peak == info[1].peak &&
                 info[0].free == info[1].free && info[0].capacity == info[1].capacity;
    if (!equal || info[0].used != s->expected + small_pages(&s->blocks)) s->fine = false;
}

void simulated_parity_test(void) {
    for (uint32_t seed = 1; seed <= OOM_SCHEDULE_COUNT; seed++) {
        enum oom_schedule schedule = (enum oom_schedule)(seed - 1);
        TEST("parity: %d random steps on host and dry, seed %u, %s", STEPS / 4, seed,
             oom_schedule_name(schedule));
        static struct script s;
        s = (struct script){.random = seed, .fine = true};
        for (int i = 0; i < PAIR; i++) {
            s.dev[i] = test_open(test_devices[i], CAPACITY, schedule);
            s.base[i] = test_base(s.dev[i]);
        }
        int at = 0;
        for (; at < STEPS / 4 && s.fine; at++) {
            step(&s);
            check_figures(&s);
        }
        CHECK_MSG(s.fine, "step %d of seed %u", at, seed);
        for (int i = 0; i < 3; i++) CHECK_MSG(s.statuses[i] > 50, "kind %d: %d", i, s.statuses[i]);
        for (int i = 0; i < PAIR; i++) oom_device_close(s.dev[i]);
    }
}
