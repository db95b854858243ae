/* The settings string: what each key sets, and what each slip is told. Expected tables of
 * roundup_power2_divisions follow PyTorch's reader, not its manual, which differs. */
#include "harness/memory/allocator.h"

#include "harness/memory/fake-device.h"
#include "kernels/testing.h"

#include <math.h>
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
        {"expandable_segments:true", 21, "allowed: True or False"},
        {"expandable_segments:1", 21, "ValueError"},
        {"expandable_segments:[True]", 21, "found '['"},
        {"throw_on_cudamalloc_oom:maybe", 25, "allowed: True or False"},
        {"backend:cudaMallocAsync", 9, "on CUDA only"},
        {"backend:Direct", 9, "allowed: native or direct"},
        {"expandable_segments_reserve:0", 29, "ignore"},
        {"expandable_segments_reserve:-1", 29, "ignore"},
        {"expandable_segments_reserve:abc", 29, "ignore"},
        {"expandable_segments_reserve:G", 29, "ignore"},
        {"expandable_segments_reserve:12X", 29, "ignore"},
        {"expandable_segments_reserve:0.0000000001G", 29, "take it"},
        {"expandable_segments_reserve:1e20G", 29, "take it"},
        {"pinned_num_register_threads:4", 1, "pinned host memory"},
        {"release_lock_on_cudamalloc:True", 1, "no effect here"},
        {"graph_capture_record_stream_reuse:True", 1, "capture of graphs"},
        {"expandable_segments_reserve_by_class:[a:1G]", 1, "classes of streams"},
        {"max_splt_size_mb:64", 1, "did you mean max_split_size_mb"},
        {"backend:native,qqqqqqqqqqqq:1", 16, "Unrecognized key"},
        {"q\0332J:1", 1, "key 'q\\x1b2J'"}, /* not for a terminal to obey */
        {"backend:\0332J", 9, "found '\\x1b2J'"},
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

/* ---- profiles ---- */

static void profiles(void) {
    TEST("settings: a profile is found by its name; another name is told the nearest");
    enum oom_profile found = OOM_PROFILE_COUNT;
    CHECK_OK(oom_profile_find("pytorch-2.11", &found));
    CHECK_EQ(found, OOM_PROFILE_PYTORCH_2_11);
    CHECK_OK(oom_profile_find("fixed", &found));
    CHECK_EQ(found, OOM_PROFILE_FIXED);
    CHECK_STR(oom_profile_name(OOM_PROFILE_PYTORCH_2_13), "pytorch-2.13");
    CHECK_EQ(oom_allocator_settings_default().profile, OOM_PROFILE_PYTORCH_2_13);
    CHECK_EQ(oom_profile_find("pytorch-2.31", &found), OOM_USAGE);
    CHECK(strstr(oom_failure_last()->message, "nearest is pytorch-2.1") != NULL);
    oom_failure_clear();
    CHECK_EQ(oom_profile_find("fixeds", &found), OOM_USAGE);
    CHECK(strstr(oom_failure_last()->message, "nearest is fixed") != NULL);
    CHECK_EQ(oom_profile_find("", &found), OOM_USAGE);
    CHECK_EQ(found, OOM_PROFILE_FIXED);
    oom_failure_clear();
}

/* Spec 0.2: what 2.11 did not have. */
static void newer_keys(void) {
    static const struct {
        const char *conf;
        bool newer;
    } rows[] = {
        {"large_segment_size_mb:24", true},
        {"throw_on_cudamalloc_oom:True", true},
        {"per_process_memory_fraction:0.5", true},
        {"expandable_segments_reserve:0.5", true},
        {"expandable_segments_reserve_by_class:[a:1G]", true},
        {"expandable_segments:True", false},
        {"max_split_size_mb:64", false},
        {"garbage_collection_threshold:0.5", false},
        {"max_non_split_rounding_mb:64", false},
        {"roundup_power2_divisions:4", false},
        {"backend:native", false},
    };
    TEST("settings: keys that came after 2.11 are unknown under its profile, and only there");
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct oom_allocator_settings s = oom_allocator_settings_default();
        s.profile = OOM_PROFILE_PYTORCH_2_11;
        oom_failure_clear();
        enum oom_status status = oom_allocator_settings_parse(rows[i].conf, &s);
        CHECK_MSG(status == (rows[i].newer ? OOM_USAGE : OOM_OK), "%s", rows[i].conf);
        bool later = strstr(oom_failure_last()->message, "pytorch-2.11 (this one came later)");
        CHECK_MSG(later == rows[i].newer, "%s: %s", rows[i].conf, oom_failure_last()->message);
        for (int profile = 0; profile < OOM_PROFILE_COUNT; profile++) {
            if (profile == OOM_PROFILE_PYTORCH_2_11 || strstr(rows[i].conf, "class") != NULL) {
                continue;
            }
            s = oom_allocator_settings_default();
            s.profile = (enum oom_profile)profile;
            CHECK_OK(oom_allocator_settings_parse(rows[i].conf, &s));
        }
    }
    oom_failure_clear();
}

/* ---- what came with expandable segments ---- */

static void words(void) {
    TEST("settings: booleans, backend and reserve; which keys were given");
    struct oom_allocator_settings s =
        parsed("expandable_segments:True,throw_on_cudamalloc_oom:True,backend:direct,"
               "expandable_segments_reserve:0.25");
    CHECK(s.expandable_segments && s.throw_on_cudamalloc_oom);
    CHECK_EQ(s.backend, OOM_BACKEND_DIRECT);
    CHECK(s.expandable_reserve_fraction == 0.25 && s.expandable_reserve_bytes == 0);
    for (int i = 0; i < OOM_SETTING_COUNT; i++) {
        CHECK_EQ(s.given[i], i == OOM_SETTING_EXPANDABLE || i == OOM_SETTING_REJECT ||
                                 i == OOM_SETTING_BACKEND || i == OOM_SETTING_RESERVE);
    }
    TEST("settings: a new string keeps expandable segments, backend, reserve and rejection");
    CHECK_OK(oom_allocator_settings_parse("expandable_segments_reserve:1.5G", &s));
    CHECK(s.expandable_segments && s.throw_on_cudamalloc_oom);
    CHECK_EQ(s.backend, OOM_BACKEND_DIRECT);
    CHECK(s.expandable_reserve_fraction == 0);
    CHECK_EQ(s.expandable_reserve_bytes, 1536 * MIB);
    CHECK(s.given[OOM_SETTING_RESERVE] && !s.given[OOM_SETTING_EXPANDABLE]);
    CHECK_OK(oom_allocator_settings_parse("expandable_segments:False", &s));
    CHECK(!s.expandable_segments);
    CHECK_EQ(s.expandable_reserve_bytes, 1536 * MIB);
}

static void formatted(const char *conf, enum oom_setting setting, const char *want) {
    char text[OOM_CONF_MAX];
    struct oom_allocator_settings s = parsed(conf);
    CHECK_STR(oom_setting_format(&s, setting, text, sizeof text), want);
}

static void formats(void) {
    TEST("settings: values as text");
    formatted("", OOM_SETTING_BACKEND, "native");
    formatted("", OOM_SETTING_EXPANDABLE, "False");
    formatted("", OOM_SETTING_RESERVE, "9/8 of the device");
    formatted("", OOM_SETTING_LARGE_SEGMENT, "20");
    formatted("", OOM_SETTING_MAX_SPLIT, "unlimited");
    formatted("", OOM_SETTING_NON_SPLIT, "20");
    formatted("", OOM_SETTING_ROUNDUP, "none");
    formatted("", OOM_SETTING_GC, "off");
    formatted("", OOM_SETTING_FRACTION, "1");
    formatted("", OOM_SETTING_REJECT, "False");
    formatted("roundup_power2_divisions:[256:1,512:2,1024:4,>:8]", OOM_SETTING_ROUNDUP,
              "[256:1,512:2,1024:4,>:8]");
    formatted("roundup_power2_divisions:4", OOM_SETTING_ROUNDUP, "4");
    formatted("roundup_power2_divisions:[32768:2]", OOM_SETTING_ROUNDUP, "2");
    formatted("roundup_power2_divisions:[1:2,16:4]", OOM_SETTING_ROUNDUP,
              "[1:2,2:0,4:0,8:0,16:4,>:0]");
    formatted("garbage_collection_threshold:.60", OOM_SETTING_GC, "0.6");
    formatted("expandable_segments_reserve:0.5G", OOM_SETTING_RESERVE, "0.5G");
    formatted("expandable_segments_reserve:1.125", OOM_SETTING_RESERVE, "1.125");
}

/* Every key, formatted and read again, gives the same settings. */
static void round_trip(void) {
    static const char *const confs[] = {
        "max_split_size_mb:128,max_non_split_rounding_mb:40,large_segment_size_mb:37",
        "garbage_collection_threshold:0.8125,per_process_memory_fraction:0.123456789012345",
        "expandable_segments:True,expandable_segments_reserve:2.75G,throw_on_cudamalloc_oom:True",
        "backend:direct,expandable_segments:False,expandable_segments_reserve:0.05",
        "roundup_power2_divisions:[64:8,128:2,256:2,512:2,1024:1,>:1]",
        "roundup_power2_divisions:[1:0,2:16,32768:4]",
        "roundup_power2_divisions:[16384:4,32768:8],per_process_memory_fraction:0",
        "roundup_power2_divisions:2147483648,garbage_collection_threshold:0.000000000000001",
    };
    TEST("settings: formatted and parsed again they are the same");
    for (unsigned i = 0; i < sizeof confs / sizeof confs[0]; i++) {
        struct oom_allocator_settings s = parsed(confs[i]);
        for (int k = 0; k < OOM_SETTING_COUNT; k++) {
            if (!s.given[k]) continue;
            char value[OOM_CONF_MAX], conf[2 * OOM_CONF_MAX];
            oom_setting_format(&s, (enum oom_setting)k, value, sizeof value);
            snprintf(conf, sizeof conf, "%s:%s", oom_setting_name((enum oom_setting)k), value);
            struct oom_allocator_settings again = oom_allocator_settings_default();
            again.large_segment_size = s.large_segment_size;
            CHECK_OK(oom_allocator_settings_parse(conf, &again));
            char back[OOM_CONF_MAX];
            oom_setting_format(&again, (enum oom_setting)k, back, sizeof back);
            CHECK_STR(back, value);
            bool same = false;
            switch (k) {
            case OOM_SETTING_GC:
                same = again.garbage_collection_threshold == s.garbage_collection_threshold;
                break;
            case OOM_SETTING_FRACTION:
                same = again.per_process_memory_fraction == s.per_process_memory_fraction;
                break;
            case OOM_SETTING_ROUNDUP:
                same = memcmp(again.roundup_power2_divisions, s.roundup_power2_divisions,
                              sizeof s.roundup_power2_divisions) == 0;
                break;
            case OOM_SETTING_RESERVE:
                same = again.expandable_reserve_bytes == s.expandable_reserve_bytes &&
                       again.expandable_reserve_fraction == s.expandable_reserve_fraction;
                break;
            default:
                same = again.max_non_split_rounding == s.max_non_split_rounding ||
                       k != OOM_SETTING_NON_SPLIT;
            }
            CHECK_MSG(same, "%s of '%s'", conf, confs[i]);
        }
    }
}

/* ---- made by hand ---- */

static void checked(void) {
    static struct fake_device fake;
    struct oom_allocator *a = NULL;
    TEST("settings: made by hand and out of range, they make no allocator");
    fake_open(&fake, (uint64_t)1 << 30, false);
#define REFUSED(change, word) \
    { \
        struct oom_allocator_settings s = oom_allocator_settings_default(); \
        oom_failure_clear(); \
        change; \
        CHECK_EQ(oom_allocator_create(&fake.device, &s, &a), OOM_USAGE); \
        CHECK_MSG(strstr(oom_failure_last()->message, word) != NULL, "%s", \
                  oom_failure_last()->message); \
    }
    REFUSED(s.profile = (enum oom_profile)OOM_PROFILE_COUNT, "profile")
    REFUSED(s.backend = (enum oom_backend)OOM_BACKEND_COUNT, "backend")
    REFUSED(s.expandable_reserve_fraction = -1, "expandable_reserve_fraction")
    REFUSED(s.expandable_reserve_fraction = (double)NAN, "expandable_reserve_fraction")
    REFUSED(s.expandable_reserve_fraction = 0.5; s.expandable_reserve_bytes = 1, "beside")
    REFUSED(s.per_process_memory_fraction = (double)NAN, "per_process_memory_fraction")
    REFUSED(s.garbage_collection_threshold = 1, "garbage_collection_threshold")
    REFUSED(s.roundup_power2_divisions[7] = 3, "roundup_power2_divisions")
    REFUSED(s.max_split_size = 1, "max_split_size")
#undef REFUSED
    oom_failure_clear();
}

void settings_test(void) {
    profiles();
    newer_keys();
    words();
    formats();
    round_trip();
    checked();
    values();
    tables();
    slips();
    rounded();
    fraction();
}
