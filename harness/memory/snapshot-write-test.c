#include "harness/memory/snapshot.h"

#include "harness/base/json-read.h"
#include "harness/base/rng.h"
#include "harness/memory/snapshot-build.h"
#include "harness/memory/snapshot-testing.h"
#include "kernels/testing.h"

#include <limits.h>
#include <stdlib.h>

void snapshot_write_test(void);

/* ---- random snapshots ---- */

static uint64_t any(struct oom_rng *rng) { /* every width of integer */
    return oom_rng_next(rng) >> oom_rng_below(rng, 64);
}

static uint32_t random_site(struct oom_snapshot_builder *b, struct oom_rng *rng) {
    static const char *const sites[] = {"",
                                        "plain",
                                        "layer 3 gelu (activation)",
                                        "f (m.py:7)",
                                        "(x)",
                                        " (y)",
                                        "z ()",
                                        "a (b/c)",
                                        "a (b:c:12)",
                                        "a (:5)",
                                        "a (b:012)",
                                        "\xc3\xa9\xf0\x9f\x98\x80 (t)",
                                        "q (r) (s)",
                                        "a (b:0)",
                                        "tail )",
                                        "a (b:999999999999999999)",
                                        "\"\\ 'quoted'"};
    uint32_t site = 0;
    const char *text = sites[oom_rng_below(rng, sizeof sites / sizeof *sites)];
    char numbered[64];
    if (oom_rng_below(rng, 4) == 0) {
        snprintf(numbered, sizeof numbered, "site %u (f%u.py:%u)", oom_rng_below(rng, 500),
                 oom_rng_below(rng, 9), oom_rng_below(rng, 99));
        text = numbered;
    }
    CHECK_OK(oom_build_site(b, text, strlen(text), &site));
    return site;
}

static uint16_t random_pool(struct oom_snapshot_builder *b, struct oom_rng *rng,
                            struct oom_pool_id *id) {
    uint16_t pool = 0;
    *id = (struct oom_pool_id){oom_rng_below(rng, 2), oom_rng_below(rng, 3)};
    if (oom_rng_below(rng, 9) == 0) *id = (struct oom_pool_id){any(rng), any(rng)};
    CHECK_OK(oom_build_pool(b, *id, &pool));
    return pool;
}

static void random_segment(struct oom_snapshot_builder *b, struct oom_rng *rng, int device,
                           uint64_t *next) {
    struct oom_snapshot_segment segment = {.device = device, .address = *next};
    struct oom_snapshot_block blocks[8] = {{0}};
    uint32_t count = 1 + oom_rng_below(rng, 8);
    for (uint32_t i = 0; i < count; i++) {
        blocks[i].address = *next;
        blocks[i].bytes = 1 + (any(rng) >> 16);
        blocks[i].requested = any(rng);
        blocks[i].site = random_site(b, rng);
        blocks[i].state = (uint8_t)oom_rng_below(rng, 3);
        segment.bytes += blocks[i].bytes;
        *next += blocks[i].bytes;
    }
    segment.stream = any(rng);
    random_pool(b, rng, &segment.pool);
    segment.site = random_site(b, rng);
    segment.small_pool = oom_rng_below(rng, 2) != 0;
    segment.expandable = oom_rng_below(rng, 2) != 0;
    CHECK_OK(oom_build_segment(b, &segment));
    for (uint32_t i = 0; i < count; i++) CHECK_OK(oom_build_block(b, &blocks[i]));
    CHECK_OK(oom_build_segment_check(b, &(struct oom_build_sums){0}));
}

static void random_settings(struct oom_snapshot *s, struct oom_rng *rng) {
    s->has_settings = true;
    snprintf(s->conf, sizeof s->conf, "max_split_size_mb:%u", oom_rng_below(rng, 999));
    s->expandable_segments = oom_rng_below(rng, 2) != 0;
    s->max_split_size = oom_rng_below(rng, 2) != 0 ? -1 : (int64_t)(any(rng) >> 1);
    s->garbage_collection_threshold = oom_rng_uniform(rng);
    for (int i = 0; i < OOM_ROUNDUP_CLASSES; i++)
        s->roundup_power2_divisions[i] = (uint32_t)any(rng);
}

static struct oom_snapshot random_snapshot(uint64_t seed) {
    struct oom_rng rng = {seed};
    struct oom_snapshot_builder b;
    struct oom_snapshot s = {0};
    CHECK_OK(oom_build_begin(&b, "random", "event"));
    uint32_t devices = oom_rng_below(&rng, 4), segments = oom_rng_below(&rng, 5);
    for (uint32_t d = 0; d < devices; d++) {
        uint64_t next = any(&rng) >> 8;
        for (uint32_t i = 0; i < segments; i++) random_segment(&b, &rng, (int)d, &next);
        uint32_t events = oom_rng_below(&rng, 2) != 0 ? 0 : oom_rng_below(&rng, 2500);
        for (uint32_t i = 0; i < events; i++) {
            struct oom_pool_id id;
            struct oom_snapshot_event event = {.address = any(&rng),
                                               .bytes = any(&rng),
                                               .stream = any(&rng),
                                               .time_us = any(&rng),
                                               .site = random_site(&b, &rng),
                                               .pool = random_pool(&b, &rng, &id),
                                               .action = (uint8_t)oom_rng_below(&rng, 9)};
            CHECK_OK(oom_build_event(&b, &event));
        }
        CHECK_OK(oom_build_trace(&b));
    }
    if (oom_rng_below(&rng, 2) != 0) random_settings(&b.out, &rng);
    b.out.capacity = oom_rng_below(&rng, 2) != 0 ? any(&rng) : 0;
    b.out.profile = (enum oom_profile)oom_rng_below(&rng, OOM_PROFILE_COUNT + 1);
    CHECK_OK(oom_build_finish(&b, &s));
    return s;
}

static void round_trips(void) {
    TEST("snapshot: random ones survive pickle and JSON, field by field");
    uint64_t before = oom_host_bytes_current();
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct oom_snapshot s = random_snapshot(seed);
        const char *pickle = snapshot_round_trip(&s, oom_snapshot_write_pickle);
        const char *json = snapshot_round_trip(&s, oom_snapshot_write_json);
        CHECK_MSG(pickle == NULL, "seed %d: pickle: %s: %s", (int)seed, pickle,
                  oom_failure_last()->message);
        CHECK_MSG(json == NULL, "seed %d: JSON: %s: %s", (int)seed, json,
                  oom_failure_last()->message);
        oom_snapshot_free(&s);
    }
    CHECK_EQ(oom_host_bytes_current(), before);
}

static void recordings(void) {
    static const char *const names[] = {
        "silmont2000-mem.pickle",          "silmont2000-forward-fp32-128.pickle",
        "transformer_nuggets-mini.pickle", "verl-segments.pickle",
        "llm-inference-oom-v2.0.pickle",   "rmm-adaptor-log.csv"};
    const char *folder = getenv("OOMBENCH_TRACES");
    TEST("snapshot: the recordings survive pickle and JSON, field by field");
    if (folder == NULL || *folder == 0) {
        SKIP("OOMBENCH_TRACES names no folder of recordings");
        return;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[PATH_MAX];
        struct oom_snapshot s;
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        CHECK_OK(oom_snapshot_read(path, NULL, &s));
        CHECK(snapshot_round_trip(&s, oom_snapshot_write_pickle) == NULL);
        CHECK(snapshot_round_trip(&s, oom_snapshot_write_json) == NULL);
        oom_snapshot_free(&s);
    }
}

/* ---- what is written ---- */

/* PyTorch's viewers know these opcodes and no others; `counts` by opcode. Returns the widest
 * batch of a list. */
static uint64_t opcodes_count(const struct memory_stream *stream, uint64_t counts[256]) {
    const uint8_t *bytes = (const uint8_t *)stream->data;
    uint64_t items = 0, widest = 0, at = 2;
    memset(counts, 0, 256 * sizeof *counts);
    while (at < stream->bytes) {
        uint8_t op = bytes[at++];
        uint32_t n = 0;
        counts[op]++;
        if (op == ']' && bytes[at] == '(') items = 0;
        if (op == '}') widest = ++items > widest ? items : widest;
        if (op == 'e') items = 0;
        switch (op) {
        case 'K':
        case 'h':
            at += 1;
            break;
        case 'M':
            at += 2;
            break;
        case 'J':
        case 'j':
            at += 4;
            break;
        case 'G':
            at += 8;
            break;
        case 0x8a:
        case 0x8c:
            at += 1u + bytes[at];
            break;
        case 'X':
            memcpy(&n, bytes + at, 4);
            at += 4 + n;
            break;
        default:
            break;
        }
    }
    return widest;
}

static void pickle_layout(void) {
    uint64_t counts[256];
    struct memory_stream stream;
    struct oom_snapshot_builder b;
    struct oom_snapshot s;
    TEST("snapshot: keys and frames are written once, lists in batches of at most 1000");
    CHECK_OK(oom_build_begin(&b, "events", "event"));
    struct oom_snapshot_event event = {.bytes = 5};
    CHECK_OK(oom_build_site(&b, "a (b)", 5, &event.site));
    for (event.time_us = 0; event.time_us < 2500; event.time_us++)
        CHECK_OK(oom_build_event(&b, &event));
    CHECK_OK(oom_build_trace(&b));
    CHECK_OK(oom_build_finish(&b, &s));
    CHECK_OK(snapshot_written(&s, oom_snapshot_write_pickle, &stream));
    CHECK(memcmp(stream.data, "\x80\x04", 2) == 0 && stream.data[stream.bytes - 1] == '.');
    CHECK_EQ(opcodes_count(&stream, counts), 1000 + 1); /* and the dict of the frame */
    /* 3 top keys, 7 of an event, alloc, 3 of a frame and its two texts */
    CHECK_EQ(counts[0x8c], 16);
    CHECK_EQ(counts['}'], 2500 + 1 + 1);
    CHECK_EQ(counts['e'], 3 + 1);
    uint64_t known = 0;
    for (const char *op = "K"
                          "h"
                          "M"
                          "J"
                          "j"
                          "G"
                          "X"
                          "}"
                          "]"
                          "("
                          "u"
                          "e"
                          "a"
                          ".";
         *op != 0; op++)
        known += counts[(uint8_t)*op];
    known +=
        counts[0x8a] + counts[0x8c] + counts[0x94] + counts[0x86] + counts[0x88] + counts[0x89];
    uint64_t all = 0;
    for (int i = 0; i < 256; i++) all += counts[i];
    CHECK_EQ(known, all);
    oom_host_free(stream.data);
    oom_snapshot_free(&s);
}

static void memo_numbers(void) {
    struct oom_snapshot_builder b;
    struct oom_snapshot s;
    char site[16];
    TEST("snapshot: references beyond the 256th are as good as those before");
    CHECK_OK(oom_build_begin(&b, "events", "event"));
    for (uint64_t i = 0; i < 1200; i++) {
        struct oom_snapshot_event event = {.address = i};
        snprintf(site, sizeof site, "site %d", (int)(i / 2));
        CHECK_OK(oom_build_site(&b, site, strlen(site), &event.site));
        CHECK_OK(oom_build_event(&b, &event));
    }
    CHECK_OK(oom_build_trace(&b));
    CHECK_OK(oom_build_finish(&b, &s));
    CHECK(snapshot_round_trip(&s, oom_snapshot_write_pickle) == NULL);
    oom_snapshot_free(&s);
}

static double number(const struct oom_json *event, const char *key) {
    double value = -1;
    oom_json_as_double(oom_json_get(event, key), &value);
    return value;
}

/* 4 allocations (one of them from before, one never freed), one OOM; times that run back once. */
static struct oom_snapshot small_trace(void) {
    static const struct oom_snapshot_event events[] = {
        {.action = OOM_ACTION_SEGMENT_ALLOC, .address = 512, .bytes = 2048, .time_us = 100},
        {.action = OOM_ACTION_ALLOC, .address = 512, .bytes = 500, .time_us = 110},
        {.action = OOM_ACTION_FREE_REQUESTED, .address = 4096, .bytes = 70, .time_us = 120},
        {.action = OOM_ACTION_FREE_COMPLETED, .address = 4096, .bytes = 70, .time_us = 130},
        {.action = OOM_ACTION_ALLOC, .address = 1024, .bytes = 300, .time_us = 125},
        {.action = OOM_ACTION_FREE_REQUESTED, .address = 512, .bytes = 500, .time_us = 140},
        {.action = OOM_ACTION_FREE_COMPLETED, .address = 512, .bytes = 500, .time_us = 150},
        {.action = OOM_ACTION_OOM, .address = 9, .bytes = 1 << 20, .time_us = 160},
    };
    struct oom_snapshot_builder b;
    struct oom_snapshot s;
    CHECK_OK(oom_build_begin(&b, "events", "event"));
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        CHECK_OK(oom_build_event(&b, &events[i]));
    CHECK_OK(oom_build_trace(&b));
    struct oom_snapshot_segment segment = {.address = 512, .bytes = 2048};
    struct oom_snapshot_block blocks[] = {
        {.address = 512, .bytes = 512},
        {.address = 1024, .bytes = 512, .requested = 300, .state = OOM_BLOCK_ALLOCATED},
        {.address = 1536, .bytes = 1024}};
    CHECK_OK(oom_build_segment(&b, &segment));
    for (int i = 0; i < 3; i++) CHECK_OK(oom_build_block(&b, &blocks[i]));
    CHECK_OK(oom_build_segment_check(&b, &(struct oom_build_sums){0}));
    CHECK_OK(oom_build_finish(&b, &s));
    return s;
}

static void perfetto(void) {
    struct memory_stream stream;
    struct oom_json_document *document = NULL;
    struct oom_snapshot s = small_trace();
    TEST("perfetto: slices begin and end once, time never runs back, counters are the sums");
    CHECK_OK(snapshot_written(&s, oom_snapshot_write_perfetto, &stream));
    CHECK_OK(oom_json_parse("perfetto", stream.data, stream.bytes, 0, &document));
    const struct oom_json *events = oom_json_get(oom_json_root(document), "traceEvents");
    int slices[8] = {0}, instants = 0;
    double now = 0, reserved = -1, allocated = -1, active = -1, first_allocated = -1;
    for (const struct oom_json *e = events->child; e != NULL; e = e->next) {
        const char *phase = "", *name = "", *id = "0x0";
        CHECK(oom_json_as_text(oom_json_get(e, "ph"), &phase));
        CHECK(oom_json_as_text(oom_json_get(e, "name"), &name));
        CHECK(number(e, "ts") >= now);
        now = number(e, "ts");
        double bytes = number(oom_json_get(e, "args"), "bytes");
        if (*phase == 'b' || *phase == 'e') {
            CHECK(oom_json_as_text(oom_json_get(e, "id"), &id));
            int i = atoi(id + 2) & 7;
            CHECK_EQ(slices[i], *phase == 'b' ? 0 : 1);
            slices[i]++;
        }
        instants += *phase == 'i' && number(oom_json_get(e, "args"), "device_free") == 9;
        if (strcmp(name, "reserved") == 0) reserved = bytes;
        if (strcmp(name, "active") == 0) active = bytes;
        if (strcmp(name, "allocated") == 0) allocated = bytes;
        if (first_allocated < 0) first_allocated = allocated;
    }
    /* the events that began them: 1, 3 (freed, not allocated) and 4 */
    static const int wanted[8] = {[1] = 2, [3] = 2, [4] = 2};
    CHECK(memcmp(slices, wanted, sizeof wanted) == 0);
    CHECK_EQ(instants, 1);
    CHECK(now == 60 && reserved == 2048 && allocated == 300 && active == 300);
    CHECK(first_allocated == 70);
    oom_json_document_free(document);
    oom_host_free(stream.data);
    oom_snapshot_free(&s);
}

static void failures(void) {
    static snapshot_writer *const writers[] = {oom_snapshot_write_pickle, oom_snapshot_write_json,
                                               oom_snapshot_write_perfetto};
    struct oom_snapshot s = random_snapshot(3);
    TEST("snapshot: a full device is OOM_IO; without host memory nothing is left");
    for (int i = 0; i < 3; i++) {
        FILE *full = fopen("/dev/full", "w");
        oom_failure_clear();
        if (full == NULL) continue;
        CHECK_EQ(writers[i](&s, full), OOM_IO);
        fclose(full);
    }
    struct memory_stream stream;
    CHECK_OK(snapshot_written(&s, oom_snapshot_write_pickle, &stream));
    uint64_t before = oom_host_bytes_current();
    int refused = 0;
    for (uint64_t n = 1; n < 400; n++) {
        struct oom_snapshot again;
        oom_failure_clear();
        oom_host_fail_at(n);
        enum oom_status status =
            oom_snapshot_parse("again", stream.data, stream.bytes, NULL, &again);
        oom_host_fail_at(0);
        if (status == OOM_OK) {
            oom_snapshot_free(&again);
            break;
        }
        CHECK_EQ(status, OOM_HOST_NOMEM);
        CHECK_EQ(oom_host_bytes_current(), before);
        refused++;
    }
    CHECK(refused > 5);
    oom_host_free(stream.data);
    oom_snapshot_free(&s);
    oom_failure_clear();
}

void snapshot_write_test(void) {
    round_trips();
    recordings();
    pickle_layout();
    memo_numbers();
    perfetto();
    failures();
}
