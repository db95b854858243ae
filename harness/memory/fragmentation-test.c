/* The measures of fragmentation on states made by hand, each worked out by hand beside it, and what
 * is called soft against what a release of the cache really gives back, on random states. */
#include "harness/memory/allocator-testing.h"

#include "harness/base/rng.h"
#include "harness/memory/drive.h"

#include <string.h>

void fragmentation_test(void);

static struct oom_fragmentation picture(void) {
    struct oom_fragmentation f;
    memset(&f, 0xff, sizeof f);
    CHECK_OK(oom_fragmentation_take(a, &f));
    return f;
}

static oom_devptr named(uint64_t bytes, const char *site) {
    oom_devptr ptr = 0;
    CHECK_OK(oom_allocator_alloc(a, bytes, NULL, OOM_TAG_ACTIVATION, site, &ptr));
    return ptr;
}

static void nothing(void) {
    TEST("fragmentation: an allocator that holds nothing has none, by every measure");
    begin(GIB, "");
    struct oom_fragmentation f = picture();
    CHECK_EQ(f.allocated + f.active + f.reserved + f.cached + f.soft + f.hard, 0);
    CHECK_EQ(f.device_free, GIB);
    CHECK_EQ(f.cached_pieces + f.largest_cached + f.inactive_split, 0);
    CHECK(f.largest_hole == 0 && f.waste_at_peak == 0 && f.inactive_split_share == 0);
    CHECK(f.snapshot_ratio == 1 && f.lowest_utilization == 1);
    CHECK_EQ(f.pin_count, 0);
    CHECK_EQ(f.pinned_segments, 0);
    end();
}

/* 40 MiB whole and free; 60 MiB of which 4 MiB in front are live; 20 MiB with 2 + 2 live and 5
 * between them and 11 behind: of 120 MiB reserved 8 are live, 112 cached, 40 of them soft. */
static void by_hand(void) {
    TEST("fragmentation: three segments, every measure worked out by hand");
    begin(GIB, "");
    oom_devptr whole = named(40 * MIB, "whole"), cut = named(60 * MIB, "cut");
    oom_devptr low = named(2 * MIB, "low"), middle = named(5 * MIB, "middle");
    oom_devptr high = named(2 * MIB + 512, "high");
    give(cut);
    oom_devptr survivor = named(50 * MIB, "survivor"); /* of the 60, the rest stays cached: 10 */
    give(whole);
    give(middle);
    /* now: 40 free | 50 live + 10 free | 2 live, 5 free, 2 MiB + 512 live, the rest of 20 free */
    struct oom_fragmentation f = picture();
    uint64_t live = 54 * MIB + 512, reserved_bytes = 120 * MIB, rest = 11 * MIB - 512;
    CHECK_EQ(f.allocated, live);
    CHECK_EQ(f.active, live);
    CHECK_EQ(f.reserved, reserved_bytes);
    CHECK_EQ(f.device_free, GIB - reserved_bytes);
    CHECK_EQ(f.cached, reserved_bytes - live);
    CHECK_EQ(f.cached_pieces, 4);
    CHECK_EQ(f.largest_cached, 40 * MIB);
    CHECK_EQ(f.soft, 40 * MIB);
    CHECK_EQ(f.hard, 10 * MIB + 5 * MIB + rest);
    CHECK_EQ(f.inactive_split, f.hard);
    /* peaks: 109 MiB + 512 live when everything was (40 + 60 + 9), 120 reserved */
    CHECK(f.largest_hole == 1 - (double)(40 * MIB) / (double)(reserved_bytes - live));
    CHECK(f.waste_at_peak == 1 - (double)(109 * MIB + 512) / (double)reserved_bytes);
    CHECK(f.inactive_split_share == (double)(26 * MIB - 512) / (double)reserved_bytes);
    CHECK(f.snapshot_ratio == (double)live / (double)reserved_bytes);

    TEST("fragmentation: the segments that live blocks pin, most free bytes first");
    CHECK_EQ(f.pinned_segments, 2);
    CHECK_EQ(f.pin_count, 2);
    CHECK_EQ(f.pins[0].segment_bytes, 20 * MIB);
    CHECK_EQ(f.pins[0].segment, low);
    CHECK_EQ(f.pins[0].free_bytes, 5 * MIB + rest);
    CHECK_EQ(f.pins[0].pinned_bytes, 4 * MIB + 512);
    CHECK_EQ(f.pins[0].pinned_count, 2);
    CHECK_EQ(f.pins[0].smallest, 2 * MIB);
    CHECK_STR(f.pins[0].site, "low");
    CHECK_EQ(f.pins[1].segment, survivor);
    CHECK_EQ(f.pins[1].free_bytes, 10 * MIB);
    CHECK_EQ(f.pins[1].pinned_bytes, 50 * MIB);
    CHECK_STR(f.pins[1].site, "survivor");

    TEST("fragmentation: a release gives back the soft part and leaves the hard one");
    CHECK_OK(oom_allocator_release_cached(a));
    struct oom_fragmentation after = picture();
    CHECK_EQ(after.reserved, 80 * MIB);
    CHECK_EQ(after.soft, 0);
    CHECK_EQ(after.hard, f.hard);
    CHECK(after.largest_hole == 1 - (double)rest / (double)(26 * MIB - 512));
    give(low);
    give(high);
    give(survivor);
    end();
}

static void many_pins(void) {
    TEST("fragmentation: of more pinned segments than fit, the four with most free bytes");
    begin(GIB, "");
    oom_devptr front[6], back[6];
    for (int i = 0; i < 6; i++) {
        uint64_t size = (uint64_t)(24 + 4 * ((i * 5) % 6)) * MIB; /* 24 44 40 36 32 28 */
        back[i] = named(size, "back");
        give(back[i]);
        char site[16];
        snprintf(site, sizeof site, "pin %d", i);
        front[i] = named(size - 4 * MIB - (uint64_t)i * MIB, site); /* free: 4 5 6 7 8 9 MiB */
        CHECK_EQ(front[i], back[i]);
    }
    struct oom_fragmentation f = picture();
    CHECK_EQ(f.pinned_segments, 6);
    CHECK_EQ(f.pin_count, 4);
    for (int i = 0; i < 4; i++) {
        char site[16];
        snprintf(site, sizeof site, "pin %d", 5 - i);
        CHECK_STR(f.pins[i].site, site);
        CHECK_EQ(f.pins[i].free_bytes, (uint64_t)(9 - i) * MIB);
    }
    for (int i = 0; i < 6; i++) give(front[i]);
    end();
}

static void as_text(void) {
    TEST("fragmentation: the table for people");
    begin(GIB, "");
    oom_devptr keep = named(15 * MIB, "first"), cut;
    give(keep);
    cut = named(12 * MIB, "the survivor of the step");
    struct oom_fragmentation f = picture();
    char text[3000] = "";
    FILE *out = fmemopen(text, sizeof text, "w");
    oom_fragmentation_print(&f, out);
    fclose(out);
    CHECK_STR(
        text,
        "  allocated                 12.00 MiB  in live blocks\n"
        "  active                    12.00 MiB  and in those that other streams are not done with\n"
        "  reserved                  16.00 MiB  held from the device\n"
        "  device free             1008.00 MiB  held by nobody\n"
        "  cached                     4.00 MiB  reserved, not active\n"
        "  largest cached             4.00 MiB  the largest free block\n"
        "  soft                            0 B  of the cached: a release gives it back\n"
        "  hard                       4.00 MiB  of the cached: held by live blocks beside it\n"
        "  inactive split             4.00 MiB  free in segments that are cut\n"
        "  largest hole                  0.0 %  1 - largest free / all free (RMM)\n"
        "  waste at peak                 0.0 %  1 - peak active / peak reserved (GMLake)\n"
        "  inactive split share         25.0 %  inactive split / reserved (PyTorch)\n"
        "  snapshot ratio               75.0 %  allocated / reserved, now\n"
        "  lowest utilization            0.0 %  least allocated / reserved so far (cuDF)\n"
        "  pinned: 4.00 MiB of a segment of 16.00 MiB are free beside 1 live block of 12.00 MiB, "
        "the smallest 'the survivor of the step' (12.00 MiB)\n");
    give(cut);
    end();
}

/* ---- expandable segments, pools, streams ---- */

static struct oom_device *dry(uint64_t capacity) {
    struct oom_device_options options = {.capacity = capacity};
    struct oom_device *device = NULL;
    CHECK_OK(oom_dry_open(&options, &device));
    return device;
}

static struct oom_device *begin_dry(const char *conf) {
    struct oom_allocator_settings settings = oom_allocator_settings_default();
    struct oom_device *device = dry(GIB);
    CHECK_OK(oom_allocator_settings_parse(conf, &settings));
    CHECK_OK(oom_allocator_create(device, &settings, &a));
    return device;
}

static void end_dry(struct oom_device *device) {
    oom_allocator_destroy(a);
    oom_device_close(device);
}

/* Pages of 20 MiB, four of them: 5 live, 50 free, 15 live, the rest of 10 free. Of the hole the
 * pages from 20 to 40 are whole, 15 before and 15 behind are parts; the tail is a part. */
static void pages(void) {
    TEST("fragmentation: of an expandable segment whole unused pages are soft, parts are hard");
    struct oom_device *device = begin_dry("expandable_segments:True");
    named(5 * MIB, "low");
    oom_devptr hole = named(50 * MIB, "hole");
    named(15 * MIB, "high");
    give(hole);
    struct oom_fragmentation f = picture();
    CHECK_EQ(f.reserved, 80 * MIB);
    CHECK_EQ(f.cached, 60 * MIB);
    CHECK_EQ(f.largest_cached, 50 * MIB);
    CHECK_EQ(f.soft, 20 * MIB);
    CHECK_EQ(f.hard, 40 * MIB);
    CHECK_EQ(f.inactive_split, 0); /* PyTorch does not count expandable ones */
    CHECK_EQ(f.pinned_segments, 1);
    CHECK_EQ(f.pins[0].segment_bytes, 80 * MIB);
    CHECK_EQ(f.pins[0].free_bytes, 40 * MIB);
    CHECK_EQ(f.pins[0].pinned_bytes, 20 * MIB);
    CHECK_EQ(f.pins[0].pinned_count, 2);
    CHECK_STR(f.pins[0].site, "low");

    TEST("fragmentation: after the release there are two runs of pages, each with its pin");
    CHECK_OK(oom_allocator_release_cached(a));
    f = picture();
    CHECK_EQ(f.reserved, 60 * MIB);
    CHECK_EQ(f.soft, 0);
    CHECK_EQ(f.hard, 40 * MIB);
    CHECK_EQ(f.pinned_segments, 2);
    CHECK_EQ(f.pins[0].segment_bytes, 40 * MIB); /* 15 of the hole, 15 live, 10 of the tail */
    CHECK_EQ(f.pins[0].free_bytes, 25 * MIB);
    CHECK_STR(f.pins[0].site, "high");
    CHECK_EQ(f.pins[1].segment_bytes, 20 * MIB);
    CHECK_EQ(f.pins[1].free_bytes, 15 * MIB);
    CHECK_STR(f.pins[1].site, "low");
    end_dry(device);
}

/* Small blocks have pages of 2 MiB, whatever large_segment_size_mb says. */
static void small_pages(void) {
    TEST("fragmentation: pages of the small pool are 2 MiB, of the large one as the setting says");
    struct oom_device *device = begin_dry("expandable_segments:True,large_segment_size_mb:12");
    oom_devptr small[7];
    for (int i = 0; i < 7; i++) small[i] = named(MIB, "small");
    for (int i = 1; i < 6; i++) give(small[i]); /* 1 live, 5 free, 1 live, 1 free: pages 2-4, 4-6 */
    struct oom_fragmentation f = picture();
    CHECK_EQ(f.reserved, 8 * MIB);
    CHECK_EQ(f.soft, 4 * MIB);
    CHECK_EQ(f.hard, 2 * MIB);
    named(5 * MIB, "low");
    oom_devptr hole = named(30 * MIB, "hole");
    named(3 * MIB, "high");
    give(hole); /* 48 mapped: 5 live, 30 free, 3 live, 10 free: only 12-24 is whole */
    f = picture();
    CHECK_EQ(f.reserved, 56 * MIB);
    CHECK_EQ(f.soft, 4 * MIB + 12 * MIB);
    CHECK_EQ(f.hard, 2 * MIB + 28 * MIB);
    end_dry(device);
}

static void private_pools(void) {
    TEST("fragmentation: a private pool keeps its segments until it is retired");
    begin(GIB, "");
    struct oom_pool_id id = {1, 0};
    CHECK_OK(oom_allocator_pool_use(a, id));
    give(named(30 * MIB, "private"));
    CHECK_OK(oom_allocator_pool_use(a, (struct oom_pool_id){0, 0}));
    struct oom_fragmentation f = picture();
    CHECK_EQ(f.soft, 0);
    CHECK_EQ(f.hard, 30 * MIB);
    CHECK_EQ(f.pinned_segments, 0); /* no block does that */
    CHECK_OK(oom_allocator_release_cached(a));
    CHECK_EQ(reserved(), 30 * MIB);
    CHECK_OK(oom_allocator_pool_retire(a, id));
    f = picture();
    CHECK_EQ(f.soft, 30 * MIB);
    CHECK_OK(oom_allocator_release_cached(a));
    CHECK_EQ(reserved(), 0);
    end();
}

static void waiting(void) {
    TEST("fragmentation: what other streams are not done with is active, and pins");
    begin(GIB, "");
    give(named(30 * MIB, "first"));
    oom_devptr held = named(12 * MIB, "held");
    CHECK_OK(oom_allocator_free_held(a, held));
    struct oom_fragmentation f = picture();
    CHECK_EQ(f.allocated, 0);
    CHECK_EQ(f.active, 12 * MIB);
    CHECK_EQ(f.cached, 18 * MIB);
    CHECK_EQ(f.hard, 18 * MIB);
    CHECK_EQ(f.pins[0].pinned_bytes, 12 * MIB);
    CHECK_STR(f.pins[0].site, "held");
    CHECK_OK(oom_allocator_complete(a, held));
    f = picture();
    CHECK_EQ(f.soft, 30 * MIB);
    end();
}

static void lowest(void) {
    TEST("fragmentation: the lowest utilization is remembered, also over a release");
    begin(GIB, "");
    oom_devptr kept = named(20 * MIB, "kept"), freed = named(60 * MIB, "freed");
    CHECK(picture().lowest_utilization == 1);
    give(freed); /* 20 of 80 */
    CHECK(picture().lowest_utilization == 0.25);
    CHECK_OK(oom_allocator_release_cached(a));
    struct oom_fragmentation f = picture();
    CHECK(f.snapshot_ratio == 1 && f.lowest_utilization == 0.25);
    CHECK(f.waste_at_peak == 0);
    give(kept);
    end();
}

/* Whatever was done before: what is called soft is what a release gives back, to the byte. */
static void soft_is_released(struct oom_device *device, const char *conf, uint64_t seed,
                             bool caches) {
    enum { LIVE = 64, STEPS = 1500 };
    struct oom_allocator_settings settings = oom_allocator_settings_default();
    oom_devptr live[LIVE] = {0};
    uint64_t released = 0;
    struct oom_rng rng = {seed};
    CHECK_OK(oom_allocator_settings_parse(conf, &settings));
    CHECK_OK(oom_allocator_create(device, &settings, &a));
    for (uint64_t step = 0; step < STEPS; step++) {
        uint64_t dice = oom_rng_next(&rng), slot = dice % LIVE;
        uint64_t size = (dice >> 8) % 3 == 0 ? (dice >> 16) % (2 * MIB) : (dice >> 16) % (48 * MIB);
        CHECK_OK(oom_allocator_free(a, live[slot]));
        live[slot] = 0;
        if (dice >> 63 != 0) live[slot] = named(size + 1, "random");
        if (step % 16 != 15) continue;
        struct oom_fragmentation f = picture();
        CHECK_EQ(f.cached, f.soft + f.hard);
        CHECK_EQ(f.cached, f.reserved - f.active);
        uint64_t before = f.reserved, soft = f.soft, hard = f.hard;
        CHECK_OK(oom_allocator_release_cached(a));
        f = picture();
        CHECK_EQ(before - f.reserved, soft);
        CHECK_EQ(f.soft, 0);
        CHECK_EQ(f.hard, hard);
        released += soft;
    }
    CHECK(caches ? released > 100 * MIB : released == 0);
    oom_allocator_destroy(a);
}

static void random_states(void) {
    static const char *const plain[] = {
        "",
        "max_split_size_mb:20",
        "backend:direct",
    };
    static const char *const expandable[] = {
        "expandable_segments:True",
        "expandable_segments:True,large_segment_size_mb:12",
        "expandable_segments:True,max_split_size_mb:24",
    };
    TEST("fragmentation: on random states a release gives back the soft part, to the byte");
    for (uint64_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
        fake_open(&fake, 16 * GIB, false);
        soft_is_released(&fake.device, plain[i], 1 + i, i < 2);
        fake_close(&fake.device);
    }
    TEST("fragmentation: the same of the pages of expandable segments");
    for (uint64_t i = 0; i < sizeof expandable / sizeof expandable[0]; i++) {
        struct oom_device *device = dry(16 * GIB);
        soft_is_released(device, expandable[i], 11 + i, true);
        oom_device_close(device);
    }
}

void fragmentation_test(void) {
    nothing();
    by_hand();
    many_pins();
    as_text();
    pages();
    small_pages();
    private_pools();
    waiting();
    lowest();
    random_states();
}
