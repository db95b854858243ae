/* foresee-test.c: what a request is said to do is what it then does: whether the cache satisfies
 * it, and which segments it gives back first, in that order. */
#include "harness/memory/replay-testing.h"

#include "kernels/testing.h"

void foresee_test(void);

enum { NAMED = 256 };

struct named {
    uint64_t address[NAMED];
    int count, garbage;
};

static void name(uint64_t address, enum oom_foreseen_step step, void *context) {
    struct named *named = context;
    if (named->count < NAMED) named->address[named->count++] = address;
    named->garbage += step == OOM_FORESEEN_GARBAGE;
}

/* Segments given back since event `from`; *taken: the device was asked with success. */
static int given_back(const struct recorder *r, uint64_t from, uint64_t *out, bool *taken) {
    int count = 0;
    *taken = false;
    for (uint64_t i = from; i < oom_allocator_trace_count(r->allocator); i++) {
        const struct oom_trace_event *event = oom_allocator_trace_at(r->allocator, i);
        *taken |= event->action == OOM_ACTION_SEGMENT_ALLOC;
        if (event->action == OOM_ACTION_SEGMENT_FREE && count < NAMED)
            out[count++] = event->address;
    }
    return count;
}

/* What garbage was named goes at once; the rest where that was not enough. */
static bool as_named(const struct named *named, const uint64_t *freed, int count) {
    int need = count > named->garbage ? named->count : named->garbage;
    if (count < need) return false;
    for (int i = 0; i < need; i++) {
        if (freed[i] != named->address[i]) return false;
    }
    return true;
}

static uint64_t compare_steps(struct recorder *r) {
    uint64_t freed[NAMED], seen = 0;
    for (uint64_t i = 0; i < r->script.steps; i++) {
        if (r->live_count > 0 && (r->bytes > r->script.live_bytes || recorder_chance(r, 500))) {
            CHECK_OK(recorder_free(r, (int)recorder_below(r, (uint64_t)r->live_count), false));
            continue;
        }
        struct named named = {.count = 0};
        bool taken;
        uint64_t bytes = recorder_size(r), from = oom_allocator_trace_count(r->allocator);
        uint64_t stream = recorder_below(r, (uint64_t)r->script.streams);
        const struct oom_pool_id pool = {0, 0};
        bool fits = oom_allocator_fits(r->allocator, pool, stream, bytes);
        oom_allocator_foresee(r->allocator, pool, stream, bytes, name, &named);
        CHECK_OK(recorder_alloc(r, bytes, (int)stream));
        int count = given_back(r, from, freed, &taken);
        if (fits) CHECK(count == 0 && !taken);
        if (!fits) CHECK_MSG(as_named(&named, freed, count), "step %d", (int)i);
        seen += !fits && named.count > 0 && count > 0;
    }
    return seen;
}

void foresee_test(void) {
    static const char *const confs[] = {
        "max_split_size_mb:21", "garbage_collection_threshold:0.4,per_process_memory_fraction:0.9",
        "garbage_collection_threshold:0.6,per_process_memory_fraction:0.8,max_split_size_mb:22"};
    for (size_t i = 0; i < sizeof confs / sizeof confs[0]; i++) {
        struct recorder_script script = {.conf = confs[i],
                                         .profile = OOM_PROFILE_PYTORCH_2_13,
                                         .capacity = UINT64_C(200) << 20,
                                         .live_bytes = UINT64_C(170) << 20,
                                         .steps = 3000,
                                         .seed = i + 1,
                                         .streams = 2};
        struct recorder recorder;
        TEST("drive: what a request gives back is foreseen under '%s'", confs[i]);
        enum oom_status status = recorder_open(&recorder, &script);
        CHECK_OK(status);
        if (status != OOM_OK) continue;
        CHECK(compare_steps(&recorder) > 20);
        recorder_close(&recorder);
    }
}
