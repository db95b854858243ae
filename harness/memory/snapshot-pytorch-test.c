#include "harness/memory/snapshot.h"

#include "harness/base/file.h"
#include "harness/memory/literal-testing.h"
#include "kernels/hostmem.h"
#include "kernels/testing.h"

#include <limits.h>
#include <unistd.h>

void snapshot_pytorch_test(void);

static struct oom_snapshot s;
static struct literal literal;

static enum oom_status parse(const char *python) {
    oom_failure_clear();
    literal_make(&literal, python);
    return oom_snapshot_parse("test", literal.bytes, literal.n, NULL, &s);
}

static bool said(const char *text) {
    return strstr(oom_failure_last()->message, text) != NULL;
}

/* ---- the format ---- */

#define BLOCKS \
    "[{'address':4096,'size':512,'requested_size':500,'state':'active_allocated','frames':[]}," \
    "{'address':4608,'size':1024,'requested_size':9,'state':'inactive','frames':[]}," \
    "{'address':5632,'size':512,'requested_size':300,'state':'active_pending_free','frames':[]}]"
#define SEGMENT \
    "{'device':0,'address':4096,'total_size':2048,'allocated_size':512,'active_size':1024," \
    "'requested_size':800,'stream':94000000000000,'segment_type':'large'," \
    "'segment_pool_id':(0,7),'is_expandable':True,'frames':[],'blocks':" BLOCKS "}"
#define SETTINGS \
    "{'PYTORCH_CUDA_ALLOC_CONF':'max_split_size_mb:20','max_split_size':20971520," \
    "'garbage_collection_threshold':0.5,'expandable_segments':True,'something_new':[1]," \
    "'roundup_power2_divisions':{'1':1,'4':3,'32768':9}}"
#define EVENTS \
    "[[{'action':'segment_alloc','addr':4096,'size':2048,'stream':5,'time_us':10," \
    "'compile_context':'N/A','user_metadata':'','pool_id':(0,7),'frames':[]}," \
    "{'action':'alloc','addr':4096,'size':500,'stream':0,'time_us':11,'frames':" \
    "[{'name':'unwind','filename':'?\?','line':0},{'name':'at::empty','filename':'/a/b.cpp'," \
    "'line':3},{'name':'forward','filename':'/x/model.py','line':12}]}," \
    "{'action':'annotate','addr':4096,'size':1}," \
    "{'action':'oom','device_free':77,'size':18446744073709551615,'stream':0,'time_us':12}]," \
    "[{'action':'alloc','addr':18446744073709551615,'size':1}]]"

static void whole(void) {
    TEST("pytorch: segments, blocks, traces and settings, field by field");
    CHECK_OK(parse("{'segments':[" SEGMENT "],'device_traces':" EVENTS
                   ",'allocator_settings':" SETTINGS ",'external_annotations':[]}"));
    CHECK_EQ(s.kind, OOM_SNAPSHOT_KIND_PYTORCH);
    CHECK_EQ(s.segment_count, 1);
    const struct oom_snapshot_segment *g = s.segments;
    CHECK(g->address == 4096 && g->bytes == 2048 && g->device == 0 && g->stream == 94000000000000);
    CHECK(g->allocated == 512 && g->active == 1024 && g->requested == 800);
    CHECK(g->pool.a == 0 && g->pool.b == 7 && g->expandable && !g->small_pool);
    CHECK_EQ(g->block_count, 3);
    CHECK(s.blocks[0].state == OOM_BLOCK_ALLOCATED && s.blocks[0].requested == 500);
    CHECK(s.blocks[1].state == OOM_BLOCK_INACTIVE && s.blocks[1].address == 4608);
    CHECK(s.blocks[2].state == OOM_BLOCK_PENDING_FREE && s.blocks[2].bytes == 512);
    CHECK_EQ(s.device_count, 2);
    CHECK(s.traces[0].first == 0 && s.traces[0].count == 3 && s.traces[1].first == 3);
    CHECK_EQ(s.events_skipped, 1);
    CHECK(s.events[0].action == OOM_ACTION_SEGMENT_ALLOC && s.events[0].stream == 5);
    CHECK(s.pools[s.events[0].pool].b == 7 && s.pools[s.events[1].pool].b == 0);
    CHECK(s.events[0].time_us == 10 && s.events[0].bytes == 2048);
    CHECK_STR(oom_snapshot_site(&s, s.events[1].site), "forward (model.py:12)");
    CHECK(s.events[2].action == OOM_ACTION_OOM && s.events[2].address == 77);
    CHECK(s.events[2].bytes == UINT64_MAX && s.events[3].address == UINT64_MAX);
    CHECK(s.has_settings && s.expandable_segments && s.max_split_size == 20971520);
    CHECK_STR(s.conf, "max_split_size_mb:20");
    CHECK(s.garbage_collection_threshold == 0.5);
    CHECK(s.roundup_power2_divisions[0] == 1 && s.roundup_power2_divisions[1] == 0);
    CHECK(s.roundup_power2_divisions[2] == 3 && s.roundup_power2_divisions[15] == 9);
    CHECK(s.capacity == 0 && s.profile == OOM_PROFILE_COUNT);
    oom_snapshot_free(&s);
}

static void layouts(void) {
    TEST("pytorch: the layout of 2.0, segments alone, and keys that older versions lack");
    CHECK_OK(parse("{'segments':[{'device':1,'address':512,'total_size':1536,'segment_type':"
                   "'small','stream':0,'blocks':[{'size':512,'state':'active_allocated','history':"
                   "[{'addr':512,'real_size':500,'frames':[{'name':'f','filename':'','line':0}]}]},"
                   "{'size':1024,'requested_size':0,'state':'inactive'}]}]}"));
    CHECK_EQ(s.kind, OOM_SNAPSHOT_KIND_PYTORCH_2_0);
    CHECK(s.blocks[0].requested == 500 && s.blocks[1].address == 1024);
    CHECK_STR(oom_snapshot_site(&s, s.blocks[0].site), "f");
    CHECK(s.segments[0].allocated == 512 && s.segments[0].small_pool && !s.has_settings);
    CHECK(s.device_count == 2 && s.event_count == 0 && s.max_split_size == -1);
    oom_snapshot_free(&s);
    CHECK_OK(parse("[" SEGMENT "]"));
    CHECK_EQ(s.segment_count, 1);
    oom_snapshot_free(&s);
    CHECK_OK(parse("{'device_traces':[]}"));
    CHECK_EQ(s.device_count, 0);
    oom_snapshot_free(&s);
}

static void elsewhere(void) {
    static const char host[] = "'host_traces':[[{'action':'alloc','addr':7,'size':7}]]";
    static const char device[] = "'device_traces':[[{'action':'alloc','addr':1,'size':2},"
                                 "{'action':'oom','device_free':3,'size':4}]]";
    char python[400];
    TEST("pytorch: events outside device_traces are not taken for the device's");
    for (int i = 0; i < 2; i++) {
        snprintf(python, sizeof python, "{%s,%s}", i == 0 ? host : device, i == 0 ? device : host);
        CHECK_OK(parse(python));
        CHECK(s.device_count == 1 && s.event_count == 2 && s.traces[0].count == 2);
        CHECK(s.traces[0].first == 0 && s.events[0].address == 1 && s.events[1].address == 3);
        oom_snapshot_free(&s);
    }
}

#define SMALL(device, address) \
    "{'device':" device ",'address':" address ",'total_size':512,'segment_type':'small'," \
    "'blocks':[{'address':" address ",'size':512,'state':'inactive'}]}"

static void order(void) {
    TEST("pytorch: segments come out by device and address, with their blocks");
    CHECK_OK(parse("[" SMALL("1", "512") "," SMALL("0", "2048") "," SMALL("0", "1024") "]"));
    CHECK(s.segments[0].address == 1024 && s.segments[1].address == 2048);
    CHECK(s.segments[2].device == 1);
    for (uint64_t i = 0; i < 3; i++)
        CHECK_EQ(s.blocks[s.segments[i].first_block].address, s.segments[i].address);
    oom_snapshot_free(&s);
}

static void sites(void) {
    static const struct {
        const char *frames, *site;
    } cases[] = {
        {"[]", ""},
        {"[{'name':'','filename':'','line':0}]", ""},
        {"[{'name':'f','filename':'x.c','line':0}]", "f (x.c)"},
        {"[{'name':'PyEval_Frame','filename':'c.c','line':1},{'name':'g','filename':'h.c','line':2}"
         "]",
         "g (h.c:2)"},
        {"[{'name':'?\?','filename':'c.c','line':1}]", "?\? (c.c:1)"},
        {"[{'name':'a','filename':'C:\\w\\m.py','line':7}]", "a (m.py:7)"},
        {"[{'name':'0123456789012345678901234567890123456789012345678901234567890123456789',"
         "'filename':'/d/model.py','line':12}]",
         "0123456789012345678901234567890123456789012345678 (model.py:12)"},
        {"[{'name':'tab\tbed','filename':'','line':0}]", "tab?bed"},
        {"[{'name':'\xff\xc3\xa9','filename':'','line':0}]", "?\xc3\xa9"},
        {"[3]", ""},
    };
    char python[600];
    TEST("pytorch: frames become one name, the line of Python first");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(python, sizeof python,
                 "{'device_traces':[[{'action':'alloc','addr':1,'size':1,'frames':%s}]]}",
                 cases[i].frames);
        CHECK_OK(parse(python));
        CHECK_STR(oom_snapshot_site(&s, s.events[0].site), cases[i].site);
        oom_snapshot_free(&s);
    }
}

/* ---- mistakes ---- */

static void replaced(const char *from, const char *to, char *out, size_t n) {
    static const char base[] =
        "{'segments':[" SEGMENT "],'device_traces':" EVENTS ",'allocator_settings':" SETTINGS "}";
    const char *at = strstr(base, from);
    if (!CHECK(at != NULL)) return;
    snprintf(out, n, "%.*s%s%s", (int)(at - base), base, to, at + strlen(from));
}

static void mistakes(void) {
    static const struct {
        const char *from, *to, *message;
    } cases[] = {
        {"'total_size':2048", "'total_size':4096", "segments[0]: total_size is 4096"},
        {"'total_size':2048", "'total_size':-2048", "total_size is -2048; a whole number"},
        {"'total_size':2048", "'total_size':1024", "segments[0].blocks[1]: 1024 bytes, and 512"},
        {"'total_size':2048", "'total_size':0", "segments[0]: 0 bytes"},
        {"'total_size':2048,", "", "total_size is not there"},
        {"'address':4096,'total", "'address':18446744073709551000,'total", "within 64 bits"},
        {"'allocated_size':512", "'allocated_size':513", "allocated_size is 513, and its blocks"},
        {"'active_size':1024", "'active_size':512", "active_size is 512"},
        {"'requested_size':800", "'requested_size':809", "requested_size is 809"},
        {"'address':4608", "'address':4609",
         "blocks[1]: at address 4609; the one before it ends at"
         " 4608"},
        {"'address':4096,'size'", "'address':4000,'size'", "blocks[0]: at address 4000"},
        {"'size':1024", "'size':0", "blocks[1]: 0 bytes"},
        {"'size':1024", "'size':'1024'", "blocks[1]: size is '1024'; a whole number"},
        {"'size':1024", "'size':1024.5", "a float"},
        {"'state':'inactive'", "'state':'asleep'", "state is 'asleep'; active_allocated"},
        {"'segment_type':'large'", "'segment_type':'huge'", "segment_type is 'huge'"},
        {"'segment_pool_id':(0,7)", "'segment_pool_id':(0,-7)", "segment_pool_id is a tuple"},
        {"'is_expandable':True", "'is_expandable':1", "is_expandable is 1; True or False"},
        {"'device':0", "'device':128", "device 128; allowed are 0 to 127"},
        {"'blocks':" BLOCKS, "'blocks':{}", "segments[0].blocks: it is a dict"},
        {"'blocks':" BLOCKS, "'blocks':[3]", "segments[0].blocks[0]: it is 3; a dict"},
        {"[" SEGMENT "]", "[" SEGMENT "," SEGMENT "]", "segments overlap"},
        {"[" SEGMENT "]", "5", "segments: it is 5; a list"},
        {"[" SEGMENT "]", "[[]]", "segments[0]: it is a list; a dict"},
        {"'action':'alloc'", "'action':7", "device_traces[0][1]: action is 7; a text"},
        {"'addr':4096,'size':500", "'size':500", "device_traces[0][1]: addr is not there"},
        {"'size':500,", "'size':-1,", "size is -1; a whole number"},
        {"'time_us':11", "'time_us':'x'", "time_us is 'x'"},
        {"'stream':5", "'stream':None", "device_traces[0][0]: stream is None"},
        {"'pool_id':(0,7)", "'pool_id':7", "pool_id is 7; a tuple of two"},
        {"'max_split_size':20971520", "'max_split_size':-2", "max_split_size is -2"},
        {"'garbage_collection_threshold':0.5", "'garbage_collection_threshold':1.5", "from 0 to 1"},
        {"'4':3", "'5':3", "'5' is no power of two"},
        {"'4':3", "'\033[2J':3", "'\\x1b[2J' is no power of two"},
        {"'time_us':11", "'time_us':'\033[2J'", "time_us is '\\x1b[2J'"},
        {"'4':3", "'4':-3", "no whole number"},
        {"'max_split_size_mb:20'", "7", "PYTORCH_CUDA_ALLOC_CONF is 7; a text"},
    };
    char python[4096];
    TEST("pytorch: whatever contradicts itself is refused, with the place and both figures");
    uint64_t before = oom_host_bytes_current();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        replaced(cases[i].from, cases[i].to, python, sizeof python);
        CHECK_EQ(parse(python), OOM_USAGE);
        CHECK_MSG(said(cases[i].message), "%s: %s", cases[i].to, oom_failure_last()->message);
        CHECK_MSG(said("byte ") || said("overlap"), "no place: %s", oom_failure_last()->message);
    }
    CHECK_EQ(parse("{'a':1}"), OOM_USAGE);
    CHECK(said("neither 'segments' nor 'device_traces'"));
    CHECK_EQ(parse("7"), OOM_USAGE);
    CHECK_EQ(oom_host_bytes_current(), before);
}

/* [t] * 100 of a trace of 1000 events, which is written once and referred to again. */
static void shared(void) {
    static const char event[] = "}(X\x06\0\0\0actionX\x05\0\0\0allocX\x04\0\0\0addrK\x01X\x04\0\0\0"
                                "sizeK\x01u";
    static uint8_t bytes[1 << 16];
    TEST("pytorch: shared lists do not multiply");
    size_t n = 0;
#define PUT(text) (memcpy(bytes + n, text, sizeof(text) - 1), n += sizeof(text) - 1)
    PUT("\x80\x04}X\x0d\0\0\0device_traces](]\x94(");
    for (int i = 0; i < 1000; i++) PUT(event);
    PUT("e");
    for (int i = 0; i < 100; i++) PUT("h\x00");
    PUT("es.");
#undef PUT
    oom_failure_clear();
    uint64_t before = oom_host_bytes_current();
    oom_host_peak_reset();
    CHECK_EQ(oom_snapshot_parse("test", bytes, n, NULL, &s), OOM_USAGE);
    CHECK(said("again and again"));
    CHECK(oom_host_bytes_peak() - before < 64 * sizeof bytes);
}

static void detection(void) {
    TEST("snapshot: files that are none of ours are named for what they are");
    static const struct {
        const char *bytes;
        int n;
        const char *message;
    } cases[] = {{"", 0, "it is empty"},
                 {"\x1f\x8b\x08", 3, "gzip"},
                 {"PK\x03\x04", 4, "zip"},
                 {"<!DOCTYPE html>,", 16, "page of a viewer"},
                 {"hello", 5, "it begins with byte 0x68"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        oom_failure_clear();
        CHECK_EQ(oom_snapshot_parse("f", cases[i].bytes, (size_t)cases[i].n, NULL, &s), OOM_USAGE);
        CHECK_MSG(said(cases[i].message), "%s", oom_failure_last()->message);
    }
    oom_failure_clear();
    CHECK_EQ(oom_snapshot_parse("f", "\x80\x02N.", 4, "case", &s), OOM_USAGE);
    CHECK(said("only results files have parts"));
    oom_failure_clear();
    CHECK_EQ(oom_snapshot_read("/nonexistent/file", NULL, &s), OOM_IO);
}

/* A hole costs no disk; reading it would cost memory. */
static void too_large(void) {
    char folder[PATH_MAX], path[PATH_MAX + 8];
    TEST("snapshot: more than 8 GiB are refused before they are read");
    CHECK_OK(oom_directory_temporary(folder, sizeof folder));
    snprintf(path, sizeof path, "%s/large", folder);
    FILE *file = fopen(path, "w");
    bool made = file != NULL && ftruncate(fileno(file), (off_t)9 << 30) == 0;
    if (file != NULL) fclose(file);
    oom_host_peak_reset();
    uint64_t before = oom_host_bytes_peak();
    oom_failure_clear();
    if (!made) {
        SKIP("no file of 9 GiB can be made here");
    } else {
        CHECK_EQ(oom_snapshot_read(path, NULL, &s), OOM_USAGE);
        CHECK(said("9663676416 bytes; at most 8589934592"));
        CHECK_EQ(oom_host_bytes_peak(), before);
    }
    CHECK_OK(oom_directory_remove(folder));
}

/* ---- recordings: the figures of the README beside them ---- */

static bool recording(const char *name) {
    const char *folder = getenv("OOMBENCH_TRACES");
    char path[PATH_MAX];
    if (folder == NULL || *folder == 0) {
        SKIP("OOMBENCH_TRACES names no folder of recordings");
        return false;
    }
    snprintf(path, sizeof path, "%s/%s", folder, name);
    oom_failure_clear();
    return CHECK_MSG(oom_snapshot_read(path, NULL, &s) == OOM_OK, "%s: %s", name,
                     oom_failure_last()->message);
}

static uint64_t events_of(enum oom_action action) {
    uint64_t count = 0;
    for (uint64_t i = 0; i < s.event_count; i++) count += s.events[i].action == action;
    return count;
}

static uint64_t blocks_in(enum oom_block_state state, uint64_t *bytes) {
    uint64_t count = 0;
    *bytes = 0;
    for (uint64_t i = 0; i < s.block_count; i++) {
        if (s.blocks[i].state != state) continue;
        count++;
        *bytes += s.blocks[i].bytes;
    }
    return count;
}

static void recordings(void) {
    uint64_t bytes;
    TEST("recording: silmont2000-mem");
    if (recording("silmont2000-mem.pickle")) {
        CHECK_EQ(events_of(OOM_ACTION_ALLOC), 36);
        CHECK_EQ(events_of(OOM_ACTION_FREE_COMPLETED), 26);
        CHECK_EQ(events_of(OOM_ACTION_SEGMENT_ALLOC), 9);
        CHECK_EQ(s.segment_count, 9);
        CHECK_EQ(blocks_in(OOM_BLOCK_ALLOCATED, &bytes), 10);
        CHECK_EQ(bytes, 31719936);
        CHECK(s.has_settings && s.max_split_size == -1 && !s.expandable_segments);
        oom_snapshot_free(&s);
    }
    TEST("recording: silmont2000-forward-fp32-128");
    if (recording("silmont2000-forward-fp32-128.pickle")) {
        CHECK_EQ(events_of(OOM_ACTION_ALLOC), 681);
        CHECK_EQ(events_of(OOM_ACTION_FREE_REQUESTED), 681);
        CHECK_EQ(s.segment_count, 29);
        CHECK_EQ(blocks_in(OOM_BLOCK_ALLOCATED, &bytes), 137);
        CHECK_EQ(bytes, 525286400);
        oom_snapshot_free(&s);
    }
    TEST("recording: transformer_nuggets-mini");
    if (recording("transformer_nuggets-mini.pickle")) {
        CHECK_EQ(s.event_count, 50);
        CHECK_EQ(s.segment_count, 14);
        oom_snapshot_free(&s);
    }
    TEST("recording: verl-segments");
    if (recording("verl-segments.pickle")) {
        CHECK_EQ(s.segment_count, 127);
        CHECK_EQ(s.pool_count, 3);
        CHECK_EQ(blocks_in(OOM_BLOCK_PENDING_FREE, &bytes), 9);
        oom_snapshot_free(&s);
    }
    TEST("recording: llm-inference-oom-v2.0");
    if (recording("llm-inference-oom-v2.0.pickle")) {
        CHECK_EQ(s.kind, OOM_SNAPSHOT_KIND_PYTORCH_2_0);
        CHECK_EQ(s.segment_count, 176);
        CHECK_EQ(s.block_count, 463);
        CHECK(s.event_count == 1 && s.events[0].bytes == 11840159744);
        oom_snapshot_free(&s);
    }
    TEST("recording: rmm-adaptor-log");
    if (recording("rmm-adaptor-log.csv")) {
        CHECK_EQ(s.event_count, 3);
        oom_snapshot_free(&s);
    }
}

/* Made at random by its authors: its blocks cover 1024 of 52428800 bytes. */
static void synthetic(void) {
    const char *folder = getenv("OOMBENCH_TRACES");
    char path[PATH_MAX];
    TEST("recording: mosaic-SYNTHETIC is refused for what is wrong with it");
    if (folder == NULL || *folder == 0) {
        SKIP("OOMBENCH_TRACES names no folder of recordings");
        return;
    }
    snprintf(path, sizeof path, "%s/mosaic-SYNTHETIC.pickle", folder);
    oom_failure_clear();
    CHECK_EQ(oom_snapshot_read(path, NULL, &s), OOM_USAGE);
    CHECK(said("segments[0]: total_size is 52428800, and its blocks sum to 1024"));
    oom_failure_clear();
}

void snapshot_pytorch_test(void) {
    whole();
    layouts();
    elsewhere();
    order();
    sites();
    mistakes();
    shared();
    detection();
    too_large();
    recordings();
    synthetic();
}
