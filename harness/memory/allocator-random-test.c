/* Random scripts against the plain allocator of plain-testing.h: every address, status and count
 * must agree after every step, with several streams and blocks that other streams use. Beside it a
 * map of who owns which 512 bytes, and on a device with memory the contents.
 *
 * OOM_TEST_STEPS=1000000 in the environment makes the scripts of every profile that long. */
#include "harness/memory/allocator.h"

#include "harness/base/rng.h"
#include "harness/memory/fake-device.h"
#include "harness/memory/plain-testing.h"
#include "kernels/hostmem.h"
#include "kernels/testing.h"

#include <stdlib.h>

void allocator_random_test(void);

static const uint64_t MIB = 1 << 20;

enum { MAX_LIVE = 400, CHECK_EVERY = 64 };

struct held {
    oom_devptr ptr;
    uint64_t bytes;
    bool told; /* another stream uses it */
};

struct script {
    const struct oom_allocator_settings *settings;
    uint64_t seed;
    int steps, streams;
    bool descending, computes;
};

static struct fake_device fake;
static uint8_t *owners; /* of each granule of the fake's address space: 0 nobody */

static bool own(const struct held *held, uint8_t from, uint8_t to) {
    bool good = true;
    if (owners == NULL) return true;
    uint64_t first = (held->ptr - fake.base) / 512;
    uint64_t last = (held->ptr - fake.base + held->bytes - 1) / 512;
    for (uint64_t i = first; i <= last; i++) {
        good = good && owners[i] == from;
        owners[i] = to;
    }
    return good && held->ptr % 512 == 0;
}

static void stamp(const struct held *held, uint8_t value) {
    if (!fake.computes) return;
    memset((void *)(uintptr_t)held->ptr, value, held->bytes < 64 ? held->bytes : 64);
    *(uint8_t *)(uintptr_t)(held->ptr + held->bytes - 1) = value;
}

static bool stamped(const struct held *held, uint8_t value) {
    const uint8_t *bytes = (const uint8_t *)(uintptr_t)held->ptr;
    return !fake.computes || (bytes[0] == value && bytes[held->bytes - 1] == value &&
                              bytes[held->bytes < 64 ? held->bytes - 1 : 63] == value);
}

static uint64_t draw_size(struct oom_rng *rng) {
    switch (oom_rng_below(rng, 8)) {
    case 0:
        return 1 + oom_rng_below(rng, 4096);
    case 1:
    case 2:
        return 512u * (1 + oom_rng_below(rng, 2048));
    case 3:
        return 1 + oom_rng_below(rng, 10 << 20);
    case 4:
        return MIB * (1 + oom_rng_below(rng, 12));
    case 5:
        return 2 * MIB; /* equal sizes: ties */
    case 6:
        return 10 * MIB + oom_rng_below(rng, 30 << 20);
    default:
        return 16 * MIB;
    }
}

/* ---- steps ---- */

/* Stream 0, mostly; the others are 1 to streams - 1. */
static int draw_stream(const struct script *s, struct oom_rng *rng) {
    uint32_t dice = oom_rng_below(rng, (uint32_t)(4 * s->streams));
    return dice < (uint32_t)s->streams ? (int)dice : 0;
}

static bool step_alloc(struct oom_allocator *a, const struct script *s, struct oom_rng *rng,
                       struct held *h, int step, bool *got) {
    int stream = draw_stream(s, rng);
    *h = (struct held){.bytes = draw_size(rng)};
    enum oom_status status =
        oom_allocator_alloc(a, h->bytes, fake_stream(&fake, stream),
                            (enum oom_tag)(step % OOM_TAG_COUNT), "random", &h->ptr);
    oom_failure_clear();
    uint64_t expected = plain_alloc(h->bytes, stream);
    *got = expected != 0;
    if (h->ptr != expected || status != (*got ? OOM_OK : OOM_NOMEM)) return false;
    if (!*got) return true;
    bool good = fake_accessible(&fake, h->ptr, h->bytes) && own(h, 0, 1);
    if (good) stamp(h, (uint8_t)h->bytes);
    return good;
}

static bool step_free(struct oom_allocator *a, const struct script *s, struct oom_rng *rng,
                      struct held *h) {
    bool good = stamped(h, (uint8_t)h->bytes) && own(h, 1, 0);
    for (int i = 0; s->streams > 1 && i < 2 && oom_rng_below(rng, 5) == 0; i++) {
        int stream = (int)oom_rng_below(rng, (uint32_t)s->streams);
        good = good && oom_allocator_record_stream(a, h->ptr, fake_stream(&fake, stream)) == OOM_OK;
        plain_record_stream(h->ptr, stream);
    }
    good = good && oom_allocator_free(a, h->ptr) == OOM_OK;
    plain_free(h->ptr);
    return good;
}

/* One stream gets a little further. */
static void step_progress(const struct script *s, struct oom_rng *rng) {
    int stream = (int)oom_rng_below(rng, (uint32_t)s->streams);
    uint64_t by = oom_rng_below(rng, 12);
    struct fake_stream *real = &fake.streams[stream];
    if (by > real->submitted - real->finished) by = real->submitted - real->finished;
    real->finished += by;
    plain.streams[stream].finished = real->finished;
}

static bool step_any(struct oom_allocator *a, const struct script *s, struct oom_rng *rng,
                     struct held *held, int *count, int step) {
    uint32_t dice = oom_rng_below(rng, 1000);
    bool good = true, got = false;
    if (dice < 3) {
        good = oom_allocator_release_cached(a) == OOM_OK;
        plain_empty_cache();
    } else if (dice < 60 && s->streams > 1) {
        step_progress(s, rng);
    } else if (*count < MAX_LIVE && (*count == 0 || dice < 540)) {
        good = step_alloc(a, s, rng, &held[*count], step, &got);
        *count += got;
    } else {
        int i = (int)oom_rng_below(rng, (uint32_t)*count);
        good = step_free(a, s, rng, &held[i]);
        held[i] = held[--*count];
    }
    if (good && step % CHECK_EVERY == 0) good = oom_allocator_check(a) == OOM_OK;
    return good && plain_agrees(oom_allocator_stats(a));
}

static int long_steps(int usual) {
    const char *text = getenv("OOM_TEST_STEPS");
    return text != NULL && atoi(text) > usual ? atoi(text) : usual;
}

static void run_script(const struct script *s) {
    static struct held held[MAX_LIVE];
    struct oom_allocator *a = NULL;
    struct oom_rng rng = {s->seed};
    int count = 0, wrong = 0;
    uint64_t capacity = 256 * MIB, span = s->descending ? (uint64_t)1 << 45 : 32 * capacity;

    fake_open_wide(&fake, capacity, span, s->computes);
    fake.descending = s->descending;
    plain = (struct plain){.settings = s->settings, .limit = UINT64_MAX};
    plain.device = fake;
    if (s->settings->per_process_memory_fraction < 1) {
        double half = s->settings->profile == OOM_PROFILE_PYTORCH_2_11 ? 0 : 0.5;
        plain.limit =
            (uint64_t)(s->settings->per_process_memory_fraction * (double)capacity + half);
    }
    owners = s->descending ? NULL : oom_host_calloc(fake.span / 512, sizeof *owners);
    CHECK_OK(oom_allocator_create(&fake.device, s->settings, &a));
    plain.device.computes = false; /* the memory behind the addresses is the real one's */
    for (int i = 1; i < s->streams; i++) {
        oom_devptr ptr; /* so that the streams have the numbers that the plain one gives them */
        CHECK_OK(oom_allocator_alloc(a, 512, fake_stream(&fake, i), OOM_TAG_OTHER, "", &ptr));
        CHECK_OK(oom_allocator_free(a, ptr));
        CHECK_EQ(plain_alloc(512, i), ptr);
        plain_free(ptr);
    }
    for (int step = 1; step <= s->steps && wrong == 0; step++) {
        if (!step_any(a, s, &rng, held, &count, step)) wrong = step;
    }
    const struct oom_allocator_stats *stats = oom_allocator_stats(a);
    CHECK_MSG(wrong == 0, "step %d differs; %s", wrong, oom_failure_last()->message);
    CHECK(stats->num_ooms > 0 && stats->num_alloc_retries > 0);
    oom_allocator_destroy(a);
    CHECK_EQ(fake.used, 0);
    CHECK_EQ(fake.count, 0);
    CHECK_EQ(fake.misuse, 0);
    fake_close(&fake.device);
    oom_host_free(owners);
}

/* Keys that 2.11 does not have are in force all the same: it decides as if it had them. */
static struct oom_allocator_settings settings_of(enum oom_profile profile, const char *conf) {
    struct oom_allocator_settings settings = oom_allocator_settings_default();
    CHECK_OK(oom_allocator_settings_parse(conf, &settings));
    settings.profile = profile;
    return settings;
}

/* ---- scripts ---- */

static void every_profile(void) {
    static const char *const confs[] = {
        "",
        "expandable_segments:True",
        "max_split_size_mb:20",
        "garbage_collection_threshold:0.6,per_process_memory_fraction:0.8",
        "roundup_power2_divisions:4",
        "large_segment_size_mb:12,max_non_split_rounding_mb:20",
    };
    for (int profile = 0; profile < OOM_PROFILE_COUNT; profile++) {
        for (unsigned i = 0; i < sizeof confs / sizeof confs[0]; i++) {
            struct oom_allocator_settings settings =
                settings_of((enum oom_profile)profile, confs[i]);
            const struct script script = {.settings = &settings,
                                          .seed = 1000 + 10 * (uint64_t)profile + i,
                                          .steps = long_steps(20000),
                                          .streams = 4,
                                          .computes = true};
            TEST("random: %s, '%s': every address and count as in the plain allocator",
                 oom_profile_name((enum oom_profile)profile), confs[i]);
            run_script(&script);
        }
    }
}

static void more_settings(void) {
    static const char *const confs[] = {
        "max_split_size_mb:24,max_non_split_rounding_mb:20",
        "max_split_size_mb:30,max_non_split_rounding_mb:40",
        "per_process_memory_fraction:0.7",
        "garbage_collection_threshold:0.3,per_process_memory_fraction:0.9,max_split_size_mb:22",
        "roundup_power2_divisions:[1:8,4:2,16:4,>:1]",
        "large_segment_size_mb:32",
        "large_segment_size_mb:64,max_split_size_mb:64", /* as small as it may be */
        "expandable_segments:True,max_split_size_mb:24",
        "expandable_segments:True,garbage_collection_threshold:0.4,per_process_memory_fraction:0.8",
        "expandable_segments:True,large_segment_size_mb:12",
        "garbage_collection_threshold:0.5",
    };
    for (unsigned i = 0; i < sizeof confs / sizeof confs[0]; i++) {
        TEST("random: '%s'", confs[i]);
        for (int k = 0; k < 4; k++) {
            static const enum oom_profile profiles[] = {OOM_PROFILE_PYTORCH_2_13,
                                                        OOM_PROFILE_FIXED};
            struct oom_allocator_settings settings = settings_of(profiles[k % 2], confs[i]);
            const struct script script = {.settings = &settings,
                                          .seed = 100 + 10 * (uint64_t)i + (uint64_t)k,
                                          .steps = 2500,
                                          .streams = 1 + k,
                                          .descending = k >= 2};
            run_script(&script);
        }
    }
}

void allocator_random_test(void) {
    every_profile();
    more_settings();
}
