#include "harness/memory/snapshot.h"

#include "harness/memory/snapshot-testing.h"
#include "kernels/testing.h"

void snapshot_json_test(void);

static struct oom_snapshot s;

static enum oom_status parse(const char *text, const char *part) {
    oom_failure_clear();
    return oom_snapshot_parse("file", text, strlen(text), part, &s);
}

static bool said(const char *text) {
    return strstr(oom_failure_last()->message, text) != NULL;
}

#define TRACE \
    "{\"kind\":\"oombench trace\",\"version\":1,\"profile\":\"pytorch-2.11\",\"capacity\":4096," \
    "\"settings\":{\"alloc_conf\":\"max_split_size_mb:20\",\"expandable_segments\":true," \
    "\"max_split_size\":-1,\"garbage_collection_threshold\":0.25," \
    "\"roundup_power2_divisions\":[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15],\"more\":[{}]}," \
    "\"events_skipped\":3,\"actions\":[\"free_completed\",\"alloc\"]," \
    "\"sites\":[\"\",\"layer 3 gelu (activation)\"],\"pools\":[[0,0],[0,7]]," \
    "\"segments\":[[1,512,2048,9,1,1,1,0,[[512,500,1,1],[1536,0,0,0]]]]," \
    "\"traces\":[[[1,512,500,\"18446744073709551615\",1,0,10],[0,512,500,0,0,1,20]],[]]}"

static void whole(void) {
    TEST("json: every field of a trace");
    CHECK_OK(parse(TRACE, NULL));
    CHECK(s.kind == OOM_SNAPSHOT_KIND_OOMBENCH && s.profile == OOM_PROFILE_PYTORCH_2_11);
    CHECK(s.capacity == 4096 && s.events_skipped == 3 && s.has_settings && s.expandable_segments);
    CHECK(s.max_split_size == -1 && s.garbage_collection_threshold == 0.25);
    CHECK_EQ(s.roundup_power2_divisions[15], 15);
    CHECK_STR(s.conf, "max_split_size_mb:20");
    const struct oom_snapshot_segment *g = s.segments;
    CHECK(s.segment_count == 1 && g->device == 1 && g->address == 512 && g->bytes == 2048);
    CHECK(g->stream == 9 && g->pool.b == 7 && g->small_pool && !g->expandable);
    CHECK(g->allocated == 512 && g->active == 512 && g->requested == 500);
    CHECK(s.blocks[0].requested == 500 && s.blocks[0].state == OOM_BLOCK_ALLOCATED);
    CHECK(s.blocks[1].address == 1024 && s.blocks[1].bytes == 1536);
    CHECK_STR(oom_snapshot_site(&s, s.blocks[0].site), "layer 3 gelu (activation)");
    CHECK(s.device_count == 2 && s.traces[0].count == 2 && s.traces[1].count == 0);
    CHECK(s.events[0].action == OOM_ACTION_ALLOC && s.events[0].stream == UINT64_MAX);
    CHECK(s.events[1].action == OOM_ACTION_FREE_COMPLETED && s.events[1].time_us == 20);
    CHECK_EQ(s.pools[s.events[1].pool].b, 7);
    oom_snapshot_free(&s);
}

#define RESULTS(cases) "{\"context\":{\"x\":[1.5,null]},\"oombench\":{\"cases\":[" cases "]}}"
#define CASE(id) "{\"id\":\"" id "\",\"seconds\":1,\"trace\":" TRACE "}"

static void parts(void) {
    TEST("json: a results file's trace is found by its case");
    CHECK_OK(parse(RESULTS("{\"id\":\"none\"},{\"id\":\"null\",\"trace\":null}," CASE("a/b")), ""));
    CHECK_EQ(s.event_count, 2);
    oom_snapshot_free(&s);
    CHECK_OK(parse(RESULTS(CASE("a/b") "," CASE("c/d")), "c/d"));
    oom_snapshot_free(&s);
    CHECK_EQ(parse(RESULTS(CASE("a/b") "," CASE("c/d")), NULL), OOM_USAGE);
    CHECK(said("2 cases have a trace; name one of: a/b, c/d"));
    CHECK_EQ(parse(RESULTS(CASE("a/b") "," CASE("c/d")), "e"), OOM_USAGE);
    CHECK(said("no case 'e' with a trace; there are: a/b, c/d"));
    CHECK_EQ(parse(RESULTS(CASE("\x7f") "," CASE("c/d")), NULL), OOM_USAGE);
    CHECK(said("name one of: \\x7f, c/d"));
    CHECK_EQ(parse(RESULTS("{\"id\":\"x\"}"), NULL), OOM_USAGE);
    CHECK(said("no trace in it"));
    CHECK_EQ(parse(TRACE, "a/b"), OOM_USAGE);
    CHECK(said("only results files have parts"));
    CHECK_EQ(parse("[1]", NULL), OOM_USAGE);
    CHECK_EQ(parse(TRACE "x", NULL), OOM_USAGE);
    CHECK(said("text after"));
}

static void mistakes(void) {
    static const struct {
        const char *from, *to, *message;
    } cases[] = {
        {"\"version\":1", "\"version\":2", "version 2; 1 is read"},
        {"\"version\":1,", "", "no \"version\""},
        {"\"version\":1", "\"version\":1,\"version\":1", "stands twice"},
        {"oombench trace", "other trace", "'other trace'; 'oombench trace' is expected"},
        {"oombench trace",
         "\xc2\x9b"
         "2J",
         "'\\xc2\\x9b2J'; 'oombench"}, /* C1 is not for a terminal to obey */
        {"pytorch-2.11", "pytorch-0.4", "pytorch-0.4"},
        {"\"free_completed\"", "\"fly\"", "an unknown action"},
        {"[1,512,500,", "[2,512,500,", "an event of action 2; there are 2"},
        {",1,0,10]", ",2,0,10]", "an event of site 2; there are 2"},
        {",1,0,10]", ",1,2,10]", "an event of pool 2; there are 2"},
        {",1,0,10]", ",1,0]", "too few numbers"},
        {",1,0,10]", ",1,0,10,0]", "too many numbers"},
        {",1,0,10]", ",1,0,-10]", "a whole number of at most 64 bits"},
        {"[512,500,1,1]", "[512,500,3,1]", "a block of state 3; there are 3"},
        {"[512,500,1,1]", "[512,500,1,7]", "a block of site 7"},
        {"[512,500,1,1]", "[513,500,1,1]", "blocks[1]: 1536 bytes, and 1535"},
        {"[1536,0,0,0]", "[1024,0,0,0]", "total_size is 2048, and its blocks sum to 1536"},
        {"[[1,512,2048,9", "[[128,512,2048,9", "a segment of device 128"},
        {"9,1,1,1,0,[[", "9,1,1,2,0,[[", "a segment with flag 2"},
        {"9,1,1,1,0,[[", "9,2,1,1,0,[[", "a segment of pool 2"},
        {"9,1,1,1,0,[[", "9,1,1,1,[[", "a whole number"},
        {"\"max_split_size\":-1", "\"max_split_size\":-2", "max_split_size"},
        {"0.25", "1.25", "from 0 to 1"},
        {"[0,1,2,3", "[4294967296,1,2,3", "below 2^32"},
    };
    static const char base[] = TRACE;
    static char text[4096];
    TEST("json: whatever does not fit is refused with the byte");
    uint64_t before = oom_host_bytes_current();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *at = strstr(base, cases[i].from);
        if (!CHECK(at != NULL)) continue;
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - base), base, cases[i].to,
                 at + strlen(cases[i].from));
        CHECK_EQ(parse(text, NULL), OOM_USAGE);
        CHECK_MSG(said(cases[i].message), "%s: %s", cases[i].to, oom_failure_last()->message);
    }
    for (size_t n = 0; n < sizeof base - 1; n++) {
        oom_failure_clear();
        CHECK_EQ(oom_snapshot_parse("file", base, n, NULL, &s), OOM_USAGE);
    }
    CHECK_EQ(oom_host_bytes_current(), before);
}

void snapshot_json_test(void) {
    whole();
    parts();
    mistakes();
    oom_failure_clear();
}
