/* The OOM report on small states made by hand: the whole text once, then which advice is given and
 * which is not; PyTorch's own text, letter by letter, from section 2.7 of its description. */
#include "harness/memory/allocator-testing.h"

#include <string.h>

void report_test(void);

enum { TEXT_MAX = 3000 };

static oom_devptr named(uint64_t bytes, const char *site) {
    oom_devptr ptr = 0;
    CHECK_OK(oom_allocator_alloc(a, bytes, NULL, OOM_TAG_ACTIVATION, site, &ptr));
    return ptr;
}

static struct oom_report failed(uint64_t bytes) {
    refuse(bytes);
    return *oom_allocator_report(a);
}

static void begin_with(uint64_t capacity, const char *conf, enum oom_profile profile) {
    struct oom_allocator_settings settings = oom_allocator_settings_default();
    settings.profile = profile;
    fake_open(&fake, capacity, false);
    a = NULL;
    CHECK_OK(oom_allocator_settings_parse(conf, &settings));
    CHECK_OK(oom_allocator_create(&fake.device, &settings, &a));
}

/* 60 MiB reserved with 50 live in front; 40 on the device: 45 more would fit in sum. */
static struct oom_report pinned_state(const char *conf) {
    begin(100 * MIB, conf);
    give(named(60 * MIB, "first"));
    named(50 * MIB, "survivor");
    return failed(45 * MIB);
}

static void whole_text(void) {
    TEST("report: the whole text of a hard fragmentation");
    struct oom_report r = pinned_state("");
    char text[TEXT_MAX];
    int length = oom_report_text(&r, text, sizeof text);
    CHECK_STR(
        text,
        "Out of memory: wanted 45.00 MiB for refused (activation), allocation 3, as a segment of "
        "46.00 MiB; 40.00 MiB free on the device of 100.00 MiB; 50.00 MiB live, 10.00 MiB cached "
        "in one piece. Live by purpose: activation 50.00 MiB.\n"
        "Fragmentation: of 60.00 MiB reserved 0 B could be given back (soft), 10.00 MiB are held "
        "by live blocks (hard); largest hole 0.0 %, inactive split 16.7 %, waste at peak 0.0 %, "
        "utilization 83.3 %, lowest 0.0 %.\n"
        "Pinned: 10.00 MiB free of 60.00 MiB by 1 block of 50.00 MiB ('survivor').\n"
        "Settings in force: profile pytorch-2.13.\n"
        "Advice: enough is free, but beside live blocks: expandable_segments:True gathers whole "
        "free pages; max_split_size_mb keeps large segments whole, so that small blocks do not pin "
        "them; allocate what lives long first, or free the blocks that pin (named above) and "
        "release the cache.");
    CHECK_EQ(length, strlen(text));
    CHECK_EQ(oom_report_text(&r, NULL, 0), length);
    CHECK_EQ(oom_report_text(&r, text, 300), length);
    CHECK_EQ(strlen(text), 299);
    CHECK_EQ(r.largest_usable, 10 * MIB);
    end();
}

/* The figures that others read, and no pointer: the bytes of a copy say the same. */
static void survives_copying(void) {
    TEST("report: its bytes alone carry it");
    struct oom_report r = pinned_state(""), copy;
    char text[TEXT_MAX], again[TEXT_MAX];
    oom_report_text(&r, text, sizeof text);
    end();
    memcpy(&copy, &r, sizeof copy);
    memset(&r, 0xa5, sizeof r);
    oom_report_text(&copy, again, sizeof again);
    CHECK_STR(again, text);
    CHECK(copy.fragmentation.hard == 10 * MIB && copy.fragmentation.pinned_segments == 1);
}

/* ---- advice ---- */

static void says(const struct oom_report *r, const char *words, bool wanted) {
    char text[TEXT_MAX];
    oom_report_text(r, text, sizeof text);
    const char *advice = strstr(text, "\nAdvice: ");
    bool said = advice != NULL && strstr(advice, words) != NULL;
    CHECK_MSG(said == wanted, "'%s' is %s in: %s", words, wanted ? "not" : "wrongly", text);
}

static void never_what_is_on(void) {
    TEST("advice: what is on already is not recommended");
    struct oom_report r = pinned_state("");
    says(&r, "expandable_segments:True", true);
    says(&r, "max_split_size_mb keeps", true);
    r.settings.max_split_size = 64 * MIB;
    says(&r, "max_split_size_mb", false);
    says(&r, "expandable_segments:True", true);
    r.settings.max_split_size = UINT64_MAX;
    r.settings.expandable_segments = true;
    says(&r, "expandable_segments:True", false);
    says(&r, "max_split_size_mb", false);
    says(&r, "expandable segments (on)", true);
    says(&r, "release the cache", true);

    TEST("advice: both at once are advised against, but under the profile that mends it");
    r.settings.max_split_size = 64 * MIB;
    says(&r, "#123548", true);
    r.settings.profile = OOM_PROFILE_FIXED;
    says(&r, "#123548", false);
    end();
}

static void no_setting_helps(void) {
    TEST("advice: no setting helps a block above the device's size");
    begin(100 * MIB, "");
    struct oom_report r = failed(100 * MIB + 1);
    says(&r, "short by 512 bytes; no setting helps, as this block alone", true);
    says(&r, "expandable", false);
    says(&r, "must be alive", false);

    TEST("advice: no setting helps where live blocks and the request exceed the device");
    named(60 * MIB, "live");
    r = failed(50 * MIB);
    says(&r, "short by 10.00 MiB; no setting helps, as live blocks and this one", true);
    says(&r, "this block alone", false);
    says(&r, "_", false); /* no key is named */
    end();
}

static void others_and_limits(void) {
    TEST("advice: what others hold is what lacks");
    begin(100 * MIB, "");
    fake.foreign = 30 * MIB;
    named(40 * MIB, "live");
    struct oom_report r = failed(40 * MIB);
    says(&r, "short by 10.00 MiB; without what others hold", true);
    says(&r, "no setting", false);
    says(&r, "fraction", false);
    r = failed(70 * MIB); /* more than the whole device beside what is live */
    says(&r, "no setting helps, as live", true);
    says(&r, "others", false);
    fake.foreign = 0;
    end();

    TEST("advice: the limit is what lacks; who set it is said");
    begin(100 * MIB, "per_process_memory_fraction:0.5");
    named(30 * MIB, "live");
    r = failed(30 * MIB);
    says(&r, "short by 10.00 MiB; the limit of per_process_memory_fraction", true);
    says(&r, "others", false);
    char text[TEXT_MAX];
    oom_report_text(&r, text, sizeof text);
    CHECK(strstr(text, "Settings in force: profile pytorch-2.13, per_process_memory_fraction:0.5; "
                       "the limit of 50.00 MiB was set by the settings string.\n") != NULL);
    r.settings.given[OOM_SETTING_FRACTION] = false;
    oom_report_text(&r, text, sizeof text);
    CHECK(strstr(text, "the limit of 50.00 MiB was set by the program.\n") != NULL);
    end();
}

static void sizes_of_segments(void) {
    TEST("advice: the block fits, its segment does not");
    begin(30 * MIB, "");
    named(12 * MIB, "live"); /* 18 MiB are left, a request of 5 wants 20 */
    struct oom_report r = failed(5 * MIB);
    says(&r, "large_segment_size_mb can be lowered", true);
    says(&r, "expandable", false);
    r.settings.profile = OOM_PROFILE_PYTORCH_2_11; /* does not know that key */
    says(&r, "large_segment_size_mb", false);
    says(&r, "its segment does not", true);
    end();
}

static void rounding(void) {
    TEST("advice: the rounding alone is what lacks");
    begin(90 * MIB, "roundup_power2_divisions:4");
    struct oom_report r = failed(84 * MIB); /* becomes 96 */
    says(&r, "short by 6.00 MiB; without the rounding of roundup_power2_divisions", true);
    says(&r, "no setting", false);
    named(20 * MIB, "live");
    r = failed(84 * MIB); /* 104 without it, too */
    says(&r, "rounding", false);
    says(&r, "no setting helps", true);
    end();
}

static void idle_collection(void) {
    static const struct {
        enum oom_profile profile;
        bool fraction, said;
    } rows[] = {
        {OOM_PROFILE_PYTORCH_2_13, false, true},
        {OOM_PROFILE_PYTORCH_2_11, false, true},
        {OOM_PROFILE_FIXED, false, false},
        {OOM_PROFILE_PYTORCH_2_13, true, false},
    };
    TEST("advice: a garbage collection threshold without a fraction does nothing in PyTorch");
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        begin_with(100 * MIB,
                   rows[i].fraction
                       ? "garbage_collection_threshold:0.5,per_process_memory_fraction:0.9"
                       : "garbage_collection_threshold:0.5",
                   rows[i].profile);
        struct oom_report r = failed(120 * MIB);
        says(&r, "garbage_collection_threshold does nothing", rows[i].said);
        end();
    }
}

static void streams(void) {
    TEST("advice: a free block that fits belongs to another stream");
    begin(100 * MIB, "");
    struct oom_stream *other = (struct oom_stream *)&fake.span;
    oom_devptr ptr;
    CHECK_OK(oom_allocator_alloc(a, 60 * MIB, other, OOM_TAG_OTHER, "its own", &ptr));
    give(ptr);
    CHECK_OK(oom_allocator_alloc(a, 5 * MIB, other, OOM_TAG_OTHER, "survivor", &ptr));
    struct oom_report r = failed(50 * MIB);
    CHECK_EQ(r.largest_cached, 55 * MIB);
    CHECK_EQ(r.largest_usable, 0);
    says(&r, "blocks of another stream", true);
    says(&r, "expandable", false);
    TEST("advice: one that came free during the call, and how profile fixed does better");
    r.largest_usable = r.largest_cached;
    says(&r, "#189504", true);
    says(&r, "another stream", false);
    r.fragmentation.allocated = 0; /* all of it is pending */
    r.allocated = 0;
    r.rounded = 98 * MIB;
    says(&r, "wait for other streams", true);
    says(&r, "no setting", false);
    end();
}

static void refusals(void) {
    TEST("advice: injected, rejected, refused by the device, without a cache");
    struct oom_report r = pinned_state("");
    struct oom_report injected = r, rejected = r, refused = r, direct = r;
    injected.injected = true;
    says(&injected, "Advice: nothing to mend: the failure was injected.", true);
    says(&injected, "expandable", false);
    rejected.rejected = true;
    rejected.fragmentation.soft = 10 * MIB;
    rejected.fragmentation.hard = 0;
    says(&rejected, "throw_on_cudamalloc_oom refused", true);
    says(&rejected, "expandable", false);
    refused.wanted = refused.rounded = 40 * MIB;
    says(&refused, "the device refused although", true);
    says(&refused, "expandable", false);
    direct.settings.backend = OOM_BACKEND_DIRECT;
    says(&direct, "backend direct keeps no cache", true);
    says(&direct, "expandable", false);
    end();
}

static void rejection(void) {
    TEST("report: a rejection is told from an OOM, and the cache it left alone is named");
    begin(100 * MIB, "throw_on_cudamalloc_oom:True");
    give(named(60 * MIB, "cached"));
    struct oom_report r = failed(70 * MIB);
    char text[TEXT_MAX];
    CHECK(r.rejected && r.fragmentation.soft == 60 * MIB);
    says(&r, "Advice: throw_on_cudamalloc_oom refused before the cache was given back", true);
    says(&r, "no setting", false);
    oom_report_pytorch_text(&r, OOM_PROFILE_PYTORCH_2_13, text, sizeof text);
    CHECK(strstr(text, "limit. Requested size: 70.00 MiB") != NULL);
    end();
    begin(100 * MIB, "");
    CHECK(!failed(101 * MIB).rejected);
    end();
}

/* ---- PyTorch's words ---- */

static void pytorch_is(const struct oom_report *r, enum oom_profile profile, const char *want) {
    char text[TEXT_MAX];
    int length = oom_report_pytorch_text(r, profile, text, sizeof text);
    CHECK_STR(text, want);
    CHECK_EQ(length, strlen(want));
}

#define ADVICE_OF_PYTORCH \
    " If reserved but unallocated memory is large try setting " \
    "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See documentation " \
    "for Memory Management  "

static void pytorch_words(void) {
    TEST("report, PyTorch's text: the fields, and the tail of each version");
    struct oom_report r = pinned_state("");
    const char *fields = "CUDA out of memory. Tried to allocate 46.00 MiB. GPU 0 has a total "
                         "capacity of 100.00 MiB of which 40.00 MiB is free. Of the allocated "
                         "memory 50.00 MiB is allocated by PyTorch, and 10.00 MiB is reserved by "
                         "PyTorch but unallocated.";
    char want[TEXT_MAX];
    snprintf(want, sizeof want,
             "%s" ADVICE_OF_PYTORCH "(https://docs.pytorch.org/docs/stable/notes/cuda.html"
             "#optimizing-memory-usage-with-pytorch-cuda-alloc-conf)",
             fields);
    pytorch_is(&r, OOM_PROFILE_PYTORCH_2_13, want);
    pytorch_is(&r, OOM_PROFILE_FIXED, want);
    snprintf(want, sizeof want,
             "%s" ADVICE_OF_PYTORCH
             "(https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)",
             fields);
    pytorch_is(&r, OOM_PROFILE_PYTORCH_2_11, want);
    struct oom_report on = r;
    on.settings.expandable_segments = true;
    pytorch_is(&on, OOM_PROFILE_PYTORCH_2_11, want); /* unconditional there (#173049) */
    char text[TEXT_MAX];
    oom_report_pytorch_text(&on, OOM_PROFILE_PYTORCH_2_13, text, sizeof text);
    CHECK(strncmp(text, fields, strlen(fields)) == 0);
    CHECK(strstr(text, "expandable_segments:True") == NULL);
    CHECK(strstr(text, "9/8 of device memory") && strstr(text, "expandable_segments_reserve_by_"));
    on.settings.expandable_reserve_bytes = 20 * MIB;
    oom_report_pytorch_text(&on, OOM_PROFILE_PYTORCH_2_13, text, sizeof text);
    CHECK(strstr(text, "reserve of 20.00 MiB is smaller than the 46.00 MiB asked for") != NULL);

    TEST("report, PyTorch's text: limit, private pools, and what was refused beforehand");
    struct oom_report more = r;
    more.limit = 90 * MIB;
    more.private_cached = 4 * MIB;
    oom_report_pytorch_text(&more, OOM_PROFILE_PYTORCH_2_13, text, sizeof text);
    const char *middle = "40.00 MiB is free. 90.00 MiB allowed; Of the allocated memory 54.00 MiB "
                         "is allocated by PyTorch, with 4.00 MiB allocated in private pools (e.g., "
                         "CUDA Graphs), and 6.00 MiB is reserved by PyTorch but unallocated. If ";
    CHECK_MSG(strstr(text, middle) != NULL, "%s", text);
    more.rejected = true;
    more.requested = 1536;
    pytorch_is(&more, OOM_PROFILE_PYTORCH_2_13,
               "CUDA out of memory. Allocation was preemptively rejected because it would exceed "
               "per_process_memory_fraction limit. Requested size: 1.50 KiB");
    more.requested = (uint64_t)1 << 60;
    pytorch_is(&more, OOM_PROFILE_PYTORCH_2_13,
               "CUDA out of memory. Tried to allocate more than 1EB memory.");
    end();
}

static void pytorch_numbers(void) {
    static const struct {
        uint64_t bytes;
        const char *text;
    } rows[] = {
        {0, "0 bytes"},
        {1024, "1024 bytes"},
        {1025, "1.00 KiB"},
        {1048576, "1024.00 KiB"},
        {1048577, "1.00 MiB"},
        {2097152, "2.00 MiB"},
        {1073741824, "1024.00 MiB"},
        {1073741825, "1.00 GiB"},
        {800000000u * (uint64_t)1073741824, "800000000.00 GiB"},
    };
    TEST("report, PyTorch's text: numbers");
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct oom_report r = {.valid = true, .wanted = rows[i].bytes, .limit = UINT64_MAX};
        char text[TEXT_MAX], want[64];
        snprintf(want, sizeof want, "Tried to allocate %s. GPU 0 has", rows[i].text);
        oom_report_pytorch_text(&r, OOM_PROFILE_PYTORCH_2_13, text, sizeof text);
        CHECK_MSG(strstr(text, want) != NULL, "%s in %s", want, text);
    }
}

void report_test(void) {
    whole_text();
    survives_copying();
    never_what_is_on();
    no_setting_helps();
    others_and_limits();
    sizes_of_segments();
    rounding();
    idle_collection();
    streams();
    refusals();
    rejection();
    pytorch_words();
    pytorch_numbers();
}
