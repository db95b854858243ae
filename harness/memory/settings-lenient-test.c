/* The settings string as PyTorch itself reads it: what it steps over, where it ends early, and the
 * note that says so. */
#include "harness/memory/allocator.h"

#include "kernels/testing.h"

#include <string.h>

void settings_lenient_test(void);

static const uint64_t MIB = 1 << 20;
static const enum oom_profile now = OOM_PROFILE_PYTORCH_2_13;

static struct oom_allocator_settings leniently(const char *conf, const char *words,
                                               enum oom_profile profile) {
    char notes[1024];
    struct oom_allocator_settings s = oom_allocator_settings_default();
    s.profile = profile;
    oom_allocator_settings_parse_leniently(conf, &s, notes, sizeof notes);
    CHECK_STR(s.conf, conf);
    if (words == NULL)
        CHECK_STR(notes, "");
    else
        CHECK_MSG(strstr(notes, words) != NULL, "'%s' notes: %s", conf, notes);
    return s;
}

static void without_notes(void) {
    TEST("settings, leniently: what the strict reader takes is taken without a note");
    struct oom_allocator_settings s =
        leniently("expandable_segments:True,max_split_size_mb:64,garbage_collection_threshold:0.6,"
                  "roundup_power2_divisions:[256:1,512:2,>:8],expandable_segments_reserve:2G",
                  NULL, now);
    CHECK(s.expandable_segments && s.garbage_collection_threshold == 0.6);
    CHECK_EQ(s.max_split_size, 64 * MIB);
    CHECK_EQ(s.roundup_power2_divisions[0], 1);
    CHECK_EQ(s.roundup_power2_divisions[9], 2);
    CHECK_EQ(s.roundup_power2_divisions[15], 8);
    CHECK_EQ(s.expandable_reserve_bytes, 2048 * MIB);
    CHECK(s.given[OOM_SETTING_GC] && !s.given[OOM_SETTING_FRACTION]);
}

static void separators(void) {
    TEST("settings, leniently: separators are not looked at, numbers end early, -1 is huge");
    CHECK_EQ(leniently("max_split_size_mb,64", "not looked at", now).max_split_size, 64 * MIB);
    struct oom_allocator_settings s =
        leniently("max_split_size_mb:64:expandable_segments:True", "not looked at", now);
    CHECK(s.max_split_size == 64 * MIB && s.expandable_segments);
    CHECK_EQ(leniently("max_split_size_mb:64abc", "read as 64", now).max_split_size, 64 * MIB);
    CHECK_EQ(leniently("max_split_size_mb:-1", "wraps", now).max_split_size, UINT64_MAX - MIB + 1);
    CHECK_EQ(leniently("max_split_size_mb:17592186044417", NULL, now).max_split_size,
             UINT64_MAX - MIB + 1); /* 2^44 + 1 MiB is cut, not wrapped */
    CHECK(leniently("garbage_collection_threshold:0.5x", "read as 0.5", now)
              .garbage_collection_threshold == 0.5);
    CHECK_EQ(leniently("max_split_size_mb:64,max_split_size_mb:32", "last one", now).max_split_size,
             32 * MIB);
    CHECK_EQ(leniently("max_split_size_mb:64,", "',' ends", now).max_split_size, 64 * MIB);
    (void)leniently("q\0332J:1", "q\\x1b2J", now); /* not for a terminal to obey */
}

static void host_side(void) {
    TEST("settings, leniently: host-side keys are stepped over, lists too");
    struct oom_allocator_settings s =
        leniently("pinned_num_register_threads:4,expandable_segments_reserve_by_class:[a:1G,b:2G],"
                  "release_lock_on_cudamalloc:True,max_split_size_mb:64",
                  "no effect", now);
    CHECK_EQ(s.max_split_size, 64 * MIB);
}

static void refused(void) {
    TEST("settings, leniently: what PyTorch refuses ends the reading, what stood before holds");
    struct oom_allocator_settings s =
        leniently("expandable_segments:True,max_split_size_mb:19,garbage_collection_threshold:0.5",
                  "refuses '19' (at least 20)", now);
    CHECK(s.expandable_segments && s.garbage_collection_threshold == 0);
    CHECK(s.max_split_size == UINT64_MAX);
    leniently("max_split_size_mb=64", "unrecognized", now);
    leniently("max_split_size_mb", "separator is missing", now);
    leniently("max_split_size_mb:", "refuses the end", now);
    leniently("expandable_segments:true", "neither True", now);
    leniently("garbage_collection_threshold:nan", "not within (0, 1)", now);
    leniently("roundup_power2_divisions:[4:3]", "not a power of two", now);
    leniently("roundup_power2_divisions:[4:2", "separator is missing", now);
    leniently("roundup_power2_divisions:[", "refuses the end", now);
    leniently("expandable_segments_reserve_by_class:[a:1G", "']' is missing", now);
    leniently("backend:foo", "neither native", now);
    leniently("large_segment_size_mb:10", "at least 11", now);
}

static void ignored(void) {
    TEST("settings, leniently: a bad reserve is ignored, another backend said");
    struct oom_allocator_settings s =
        leniently("expandable_segments_reserve:12X,max_split_size_mb:64", "ignored", now);
    CHECK(s.expandable_reserve_bytes == 0 && s.max_split_size == 64 * MIB);
    CHECK_EQ(leniently("expandable_segments_reserve:1e20G", NULL, now).expandable_reserve_bytes,
             (uint64_t)1 << 62);
    CHECK_EQ(leniently("backend:cudaMallocAsync", "native is taken", now).backend,
             OOM_BACKEND_NATIVE);
}

static void segment_size(void) {
    TEST("settings, leniently: the segment size is looked for first; 2.11 does not know it");
    struct oom_allocator_settings s =
        leniently("max_split_size_mb:22,large_segment_size_mb:24", "at least 24", now);
    CHECK_EQ(s.large_segment_size, 24 * MIB);
    s = leniently("large_segment_size_mb:24,max_split_size_mb:22", "unrecognized",
                  OOM_PROFILE_PYTORCH_2_11);
    CHECK_EQ(s.large_segment_size, 20 * MIB);
    CHECK_EQ(leniently("max_split_size_mb:22,large_segment_size_mb:24", "unrecognized",
                       OOM_PROFILE_PYTORCH_2_11)
                 .max_split_size,
             22 * MIB);
}

static void short_buffer(void) {
    TEST("settings, leniently: a buffer without room keeps whole sentences only");
    char notes[12] = "x";
    struct oom_allocator_settings s = oom_allocator_settings_default();
    oom_allocator_settings_parse_leniently("a", &s, notes, sizeof notes);
    CHECK_STR(notes, "");
    oom_allocator_settings_parse_leniently("a", &s, NULL, 0);
}

void settings_lenient_test(void) {
    without_notes();
    separators();
    host_side();
    refused();
    ignored();
    segment_size();
    short_buffer();
}
