/* The settings string: what each key sets, and what each slip is told. Expected tables of
 * roundup_power2_divisions follow PyTorch's reader, not its manual, which differs. */
#include "harness/memory/allocator.h"

#include "harness/memory/fake-device.h"
#include "kernels/testing.h"

#include <stdio.h>

void settings_test(void);

static const uint64_t MIB = 1 << 20;

static struct oom_allocator_settings parsed(const char *conf) {
    struct oom_allocator_settings settings = oom_allocator_settings_default();
    CHECK_OK(oom_allocator_settings_parse(conf, &settings));
    CHECK_STR(settings.conf, conf);
    return settings;
}

static void values(void) {
    TEST("settings: defaults and every key");
    struct oom_allocator_settings s = parsed("");
    CHECK_EQ(s.trace_entries, 65536);
    CHECK_EQ(s.guard_bytes, 0);
    CHECK(s.max_split_size == UINT64_MAX);
    CHECK_EQ(s.max_non_split_rounding, 20 * MIB);
    CHECK_EQ(s.large_segment_size, 20 * MIB);
    CHECK(s.garbage_collection_threshold == 0 && s.per_process_memory_fraction == 1);
    for (int i = 0; i < 16; i++) CHECK_EQ(s.roundup_power2_divisions[i], 0);

    s = parsed(" max_split_size_mb : 128 ,max_non_split_rounding_mb:40, large_segment_size_mb:32,"
               "garbage_collection_threshold:0.8,per_process_memory_fraction:0.25,"
               "expandable_segments:False,backend:native,roundup_power2_divisions:8");
    CHECK_EQ(s.max_split_size, 128 * MIB);
    CHECK_EQ(s.max_non_split_rounding, 40 * MIB);
    CHECK_EQ(s.large_segment_size, 32 * MIB);
    CHECK(s.garbage_collection_threshold == 0.8);
    CHECK(s.per_process_memory_fraction == 0.25);
    for (int i = 0; i < 16; i++) CHECK_EQ(s.roundup_power2_divisions[i], 8);

    TEST("settings: the rounding follows the segment size, in any order of keys");
    CHECK_EQ(parsed("large_segment_size_mb:24").max_non_split_rounding, 24 * MIB);
    CHECK_EQ(parsed("max_split_size_mb:24,large_segment_size_mb:24").max_split_size, 24 * MIB);

    TEST("settings: a new string sets back what it does not name, but for two keys");
    s = parsed("max_split_size_mb:64,garbage_collection_threshold:.5,roundup_power2_divisions:2,"
               "large_segment_size_mb:22,per_process_memory_fraction:0.5");
    CHECK_OK(oom_allocator_settings_parse("backend:native", &s));
    CHECK(s.max_split_size == UINT64_MAX && s.garbage_collection_threshold == 0);
    CHECK_EQ(s.roundup_power2_divisions[3], 0);
    CHECK_EQ(s.large_segment_size, 22 * MIB);
    CHECK_EQ(s.max_non_split_rounding, 22 * MIB);
    CHECK(s.per_process_memory_fraction == 0.5);
}

static void tables(void) {
    static const struct {
        const char *conf;
        uint32_t table[16];
    } rows[] = {
        {"[256:1,512:2,1024:4,>:8]", {1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 8, 8, 8, 8, 8}},
        {"[64:8,128:2,256:2,512:2,1024:1,>:1]", {8, 8, 8, 8, 8, 8, 8, 2, 2, 2, 1, 1, 1, 1, 1, 1}},
        {"[1:2,16:4]", {2, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
        {"[4:2,1:16]", {2 /* then */, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
        {"[1048576:4]", {4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4}},
    };
    TEST("settings: lists of roundup_power2_divisions");
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char conf[100];
        snprintf(conf, sizeof conf, "roundup_power2_divisions:%s", rows[i].conf);
        struct oom_allocator_settings s = parsed(conf);
        for (int j = 0; j < 16; j++) {
            uint32_t want = i == 3 && j == 0 ? 16 : rows[i].table[j];
            CHECK_MSG(s.roundup_power2_divisions[j] == want, "%s entry %d: %u, not %u", conf, j,
                      s.roundup_power2_divisions[j], want);
        }
    }
}

static void slips(void) {
    static const struct {
        const char *conf;
        int column;
        const char *words; /* of the message, besides column and key */
    } rows[] = {
        {"max_split_size_mb", 18, "found the end"},
        {"max_split_size_mb:", 19, "found the end"},
        {"max_split_size_mb=64", 1, "did you mean max_split_size_mb"},
        {"max_split_size_mb:64abc", 19, "leading digits"},
        {"max_split_size_mb:-1", 19, "huge"},
        {"max_split_size_mb:1.5", 19, "leading digits"},
        {"max_split_size_mb:6 4", 21, "','"},
        {"max_split_size_mb:19", 19, "at least 20"},
        {"max_split_size_mb:20,large_segment_size_mb:24", 19, "at least 24"},
        {"max_split_size_mb:99999999999999999999", 19, "at most"},
        {"max_split_size_mb,64", 18, "':'"},
        {"max_split_size_mb:64;backend:native", 19, "64;backend"},
        {"max_split_size_mb:64:backend", 21, "','"},
        {"max_split_size_mb:64,", 22, "a key after ','"},
        {",", 1, "a key"},
        {"max_split_size_mb:64,max_split_size_mb:32", 22, "last one"},
        {"max_non_split_rounding_mb:10", 27, "at least 20"},
        {"large_segment_size_mb:10", 23, "more than 10"},
        {"garbage_collection_threshold:0", 30, "above 0"},
        {"garbage_collection_threshold:1.0", 30, "below 1"},
        {"garbage_collection_threshold:nan", 30, "decimal"},
        {"garbage_collection_threshold:0.5x", 30, "leading digits"},
        {"garbage_collection_threshold:0.5.1", 30, "leading digits"},
        {"garbage_collection_threshold:.", 30, "decimal"},
        {"per_process_memory_fraction:1.1", 29, "from 0 to 1"},
        {"roundup_power2_divisions:0", 26, "power of two"},
        {"roundup_power2_divisions:3", 26, "power of two"},
        {"roundup_power2_divisions:[3:2]", 27, "power of two"},
        {"roundup_power2_divisions:[4:3]", 29, "0 or a power of two"},
        {"roundup_power2_divisions:[4:2", 30, "']'"},
        {"roundup_power2_divisions:[>:2]", 27, "before '>'"},
        {"roundup_power2_divisions:[4:2,>:1,8:1]", 34, "last"},
        {"roundup_power2_divisions:[]", 27, "power of two"},
        {"expandable_segments:True", 21, "not supported here yet"},
        {"expandable_segments:true", 21, "allowed: False"},
        {"backend:cudaMallocAsync", 9, "not supported here yet"},
        {"backend:direct", 9, "allowed: native"},
        {"pinned_num_register_threads:4", 1, "not supported here yet"},
        {"throw_on_cudamalloc_oom:True", 1, "not supported here yet"},
        {"max_splt_size_mb:64", 1, "did you mean max_split_size_mb"},
        {"backend:native,qqqqqqqqqqqq:1", 16, "Unrecognized key"},
    };
    TEST("settings: every slip is refused, with key and column, and changes nothing");
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct oom_allocator_settings s = oom_allocator_settings_default(), before = s;
        char column[32];
        snprintf(column, sizeof column, "column %d:", rows[i].column);
        oom_failure_clear();
        enum oom_status status = oom_allocator_settings_parse(rows[i].conf, &s);
        const char *message = oom_failure_last()->message;
        CHECK_MSG(status == OOM_USAGE, "'%s' was taken", rows[i].conf);
        CHECK_MSG(strstr(message, column) != NULL && strstr(message, rows[i].words) != NULL &&
                      strstr(message, "key '") != NULL && strstr(message, "PyTorch") != NULL,
                  "'%s' gives: %s", rows[i].conf, message);
        CHECK(memcmp(&s, &before, sizeof s) == 0);
    }
    oom_failure_clear();
}

/* The size of the block that a request gets. */
static void rounding(const char *conf, uint64_t request, uint64_t block) {
    static struct fake_device fake;
    struct oom_allocator_settings s = parsed(conf);
    struct oom_allocator *a = NULL;
    oom_devptr ptr;
    fake_open(&fake, (uint64_t)64 << 30, false);
    CHECK_OK(oom_allocator_create(&fake.device, &s, &a));
    CHECK_OK(oom_allocator_alloc(a, request, NULL, OOM_TAG_OTHER, "x", &ptr));
    CHECK_EQ(oom_allocator_stats(a)->allocated_bytes[0].current, block);
    CHECK_EQ(oom_allocator_stats(a)->requested_bytes[0].current, request);
    oom_allocator_destroy(a);
}

static void rounded(void) {
    TEST("settings: sizes rounded to parts of a power of two");
    const char *four = "roundup_power2_divisions:4", *eight = "roundup_power2_divisions:8";
    rounding(four, 1200, 1536); /* not above 512 x 4: plain */
    rounding(four, 2048, 2048);
    rounding(four, 2049, 2560);
    rounding(four, 84 * MIB, 96 * MIB);
    rounding(eight, 84 * MIB, 88 * MIB);
    rounding("roundup_power2_divisions:2", 400 * MIB, 512 * MIB);
    rounding(four, 64 * MIB, 64 * MIB);
    rounding(four, 64 * MIB + 1, 80 * MIB);
    const char *list = "roundup_power2_divisions:[64:8,128:2,256:2,512:2,1024:1,>:1]";
    rounding(list, 84 * MIB, 88 * MIB);
    rounding(list, 400 * MIB, 512 * MIB);
    rounding(list, 1100 * MIB, 1100 * MIB);
    rounding("roundup_power2_divisions:[1:1,32768:2]", 33000 * MIB, 49152 * MIB);
}

/* Out of memory under a fraction: the limit is asked before the device. */
static void fraction(void) {
    static struct fake_device fake;
    TEST("settings: a fraction of the capacity refuses before the device does, 0 everything");
    struct oom_allocator_settings s = parsed("per_process_memory_fraction:0.5");
    struct oom_allocator *a = NULL;
    oom_devptr ptr;
    fake_open(&fake, 128 * MIB, false);
    CHECK_OK(oom_allocator_create(&fake.device, &s, &a));
    CHECK_EQ(oom_allocator_alloc(a, 66 * MIB, NULL, OOM_TAG_OTHER, "x", &ptr), OOM_NOMEM);
    CHECK_EQ(fake.allocs, 0);
    CHECK_EQ(oom_allocator_report(a)->limit, 64 * MIB);
    CHECK_EQ(oom_allocator_stats(a)->num_alloc_retries, 1);
    oom_failure_clear();
    CHECK_OK(oom_allocator_alloc(a, 64 * MIB, NULL, OOM_TAG_OTHER, "x", &ptr));
    oom_allocator_destroy(a);

    s = parsed("per_process_memory_fraction:0");
    CHECK_OK(oom_allocator_create(&fake.device, &s, &a));
    CHECK_EQ(oom_allocator_alloc(a, 1, NULL, OOM_TAG_OTHER, "x", &ptr), OOM_NOMEM);
    oom_allocator_destroy(a);
    oom_failure_clear();
}

void settings_test(void) {
    values();
    tables();
    slips();
    rounded();
    fraction();
}
