/* Random scripts against a second allocator, written as plainly as possible (one array of blocks,
 * linear scans, nothing kept that can be recomputed) from the same rules: every address, status and
 * count must agree after every step. Beside it a map of who owns which 512 bytes. */
#include "harness/memory/allocator.h"

#include "harness/base/rng.h"
#include "harness/memory/fake-device.h"
#include "kernels/hostmem.h"
#include "kernels/testing.h"

void allocator_random_test(void);

static const uint64_t MIB = 1 << 20;

/* ---- the plain allocator ---- */

enum { MAX_BLOCKS = 8192 };

struct plain_block {
    uint64_t address, bytes, requested, age;
    uint64_t segment, segment_bytes; /* counter and size of the segment */
    bool live, small;
    int stream;
};

static struct plain {
    struct fake_device device;
    const struct oom_allocator_settings *settings;
    struct plain_block blocks[MAX_BLOCKS]; /* by segment, then address */
    int count;
    uint64_t limit, segments, small_searches, large_searches;
    uint64_t retries, ooms, device_allocs, device_frees;
} plain;

static bool neighbours(int i, int j) {
    return i >= 0 && j < plain.count && plain.blocks[i].segment == plain.blocks[j].segment;
}

static bool is_split(int i) {
    return neighbours(i - 1, i) || neighbours(i, i + 1);
}

static uint64_t plain_reserved(void) {
    uint64_t sum = 0;
    for (int i = 0; i < plain.count; i++) sum += plain.blocks[i].bytes;
    return sum;
}

static void insert(int at, struct plain_block block) {
    for (int i = plain.count++; i > at; i--) plain.blocks[i] = plain.blocks[i - 1];
    plain.blocks[at] = block;
}

static void delete_at(int at) {
    plain.count--;
    for (int i = at; i < plain.count; i++) plain.blocks[i] = plain.blocks[i + 1];
}

static bool collecting(void) {
    return plain.settings->per_process_memory_fraction < 1 &&
           plain.settings->garbage_collection_threshold > 0;
}

static uint64_t plain_round(uint64_t n) {
    uint64_t index = 0, power = 1;
    while (index < 15 && n >= (MIB << (index + 1))) index++;
    while (power * 2 <= n) power *= 2;
    uint64_t d = plain.settings->roundup_power2_divisions[index];
    uint64_t unit = d > 1 && n > 512 * d ? power / d : 512;
    uint64_t rounded = 0;
    for (rounded = n / unit * unit; rounded < n; rounded += unit) {}
    return rounded < 512 ? 512 : rounded;
}

static uint64_t plain_segment(uint64_t size) {
    if (size <= MIB) return 2 * MIB;
    if (size < 10 * MIB) return plain.settings->large_segment_size;
    return (size + 2 * MIB - 1) / (2 * MIB) * (2 * MIB);
}

/* Is i before j in (stream, size, segment, address)? */
static bool before(int i, int j) {
    const struct plain_block *a = &plain.blocks[i], *b = &plain.blocks[j];
    if (a->stream != b->stream) return a->stream < b->stream;
    if (a->bytes != b->bytes) return a->bytes < b->bytes;
    if (a->segment != b->segment) return a->segment < b->segment;
    return a->address < b->address;
}

/* The first free block of the pool and stream with at least `size`, or -1. */
static int first_fit(bool small, int stream, uint64_t size) {
    int best = -1;
    for (int i = 0; i < plain.count; i++) {
        const struct plain_block *b = &plain.blocks[i];
        if (b->live || b->small != small || b->stream != stream || b->bytes < size) continue;
        if (best < 0 || before(i, best)) best = i;
    }
    return best;
}

static void plain_release(int i) {
    plain.device_frees++;
    (void)fake_free(&plain.device.device, plain.blocks[i].address);
    delete_at(i);
}

static bool plain_device(uint64_t bytes, bool small, int stream) {
    oom_devptr address;
    uint64_t limit = plain.limit;
    if (plain_reserved() + bytes > limit) return false;
    if (fake_alloc(&plain.device.device, bytes, &address) != OOM_OK) {
        oom_failure_clear();
        return false;
    }
    insert(plain.count, (struct plain_block){.address = address,
                                             .bytes = bytes,
                                             .segment = plain.segments++,
                                             .segment_bytes = bytes,
                                             .small = small,
                                             .stream = stream});
    plain.device_allocs++;
    return true;
}

static void plain_collect(void) {
    uint64_t allowed =
        (uint64_t)(plain.settings->garbage_collection_threshold * (double)plain.limit);
    if (!collecting() || plain_reserved() <= allowed) return;
    uint64_t target = plain_reserved() - allowed, gone = 0;
    for (bool freed = true; freed && gone < target;) {
        double sum = 0, n = 0;
        freed = false;
        for (int i = 0; i < plain.count; i++) {
            const struct plain_block *b = &plain.blocks[i];
            if (b->live || b->small || is_split(i)) continue;
            sum += (double)(plain.large_searches - b->age);
            n++;
        }
        if (n == 0) return;
        for (int i = plain.count - 1; i >= 0; i--) {
            const struct plain_block *b = &plain.blocks[i];
            if (b->live || b->small || is_split(i)) continue;
            if ((double)(plain.large_searches - b->age) < sum / n) continue;
            gone += b->bytes;
            plain_release(i);
            freed = true;
        }
    }
}

static bool plain_oversize(uint64_t size, bool small, int stream) {
    uint64_t max_split = plain.settings->max_split_size, released = 0;
    uint64_t key = size > max_split ? size : max_split;
    if (max_split == UINT64_MAX) return false;
    int i = first_fit(small, stream, key);
    if (i >= 0) {
        plain_release(i);
        return true;
    }
    while (released < key) {
        int last = -1;
        for (int j = 0; j < plain.count; j++) {
            const struct plain_block *b = &plain.blocks[j];
            if (b->live || b->small != small || b->stream != stream) continue;
            if (last < 0 || before(last, j)) last = j;
        }
        if (last < 0 || plain.blocks[last].bytes < max_split) break;
        released += plain.blocks[last].bytes;
        plain_release(last);
    }
    return released >= key;
}

static void plain_release_all(void) {
    for (int i = plain.count - 1; i >= 0; i--) {
        if (!plain.blocks[i].live && !is_split(i)) plain_release(i);
    }
}

/* The address, or 0 when it ran out. */
static uint64_t plain_alloc(uint64_t bytes, int stream) {
    uint64_t size = plain_round(bytes), max_split = plain.settings->max_split_size;
    uint64_t segment = plain_segment(size);
    bool small = size <= MIB;
    if (collecting()) *(small ? &plain.small_searches : &plain.large_searches) += 1;
    int i = first_fit(small, stream, size);
    if (i >= 0) {
        uint64_t found = plain.blocks[i].bytes;
        if (size < max_split && found >= max_split) i = -1;
        if (size >= max_split && found >= size + plain.settings->max_non_split_rounding) i = -1;
    }
    if (i < 0) {
        plain_collect();
        bool got = plain_device(segment, small, stream);
        if (!got && plain_oversize(size, small, stream)) got = plain_device(segment, small, stream);
        if (!got) {
            plain_release_all();
            plain.retries++;
            got = plain_device(segment, small, stream);
        }
        if (!got) {
            plain.ooms++;
            return 0;
        }
        i = plain.count - 1;
    }
    struct plain_block *b = &plain.blocks[i];
    uint64_t rest = b->bytes - size;
    if (small ? rest >= 512 : size < max_split && rest > MIB) {
        struct plain_block tail = *b;
        tail.address += size;
        tail.bytes = rest;
        tail.age = small ? plain.small_searches : plain.large_searches;
        b->bytes = size;
        insert(i + 1, tail);
    }
    b->live = true;
    b->requested = bytes;
    return b->address;
}

static void plain_free(uint64_t address) {
    int i = 0;
    while (plain.blocks[i].address != address || !plain.blocks[i].live) i++;
    plain.blocks[i].live = false;
    plain.blocks[i].age = plain.blocks[i].small ? plain.small_searches : plain.large_searches;
    for (int side = 1; side >= 0; side--) { /* behind first, then in front */
        int front = i - !side;
        if (!neighbours(front, front + 1)) continue;
        if (plain.blocks[front].live || plain.blocks[front + 1].live) continue;
        plain.blocks[front].bytes += plain.blocks[front + 1].bytes;
        plain.blocks[front].age = plain.blocks[i].age;
        delete_at(front + 1);
        i = front;
    }
}

/* ---- agreement ---- */

static bool plain_agrees(const struct oom_allocator_stats *stats) {
    int64_t live = 0, live_bytes = 0, requested = 0, split = 0, split_bytes = 0, segments = 0;
    int64_t oversize = 0, oversize_segments = 0;
    uint64_t max_split = plain.settings->max_split_size;
    for (int i = 0; i < plain.count; i++) {
        const struct plain_block *b = &plain.blocks[i];
        if (!neighbours(i - 1, i)) {
            segments++;
            oversize_segments += b->segment_bytes >= max_split;
        }
        if (b->live) {
            live++;
            live_bytes += (int64_t)b->bytes;
            requested += (int64_t)b->requested;
            oversize += b->bytes >= max_split;
        } else if (is_split(i)) {
            split++;
            split_bytes += (int64_t)b->bytes;
        }
    }
    return stats->allocation[0].current == live && stats->active[0].current == live &&
           stats->allocated_bytes[0].current == live_bytes &&
           stats->active_bytes[0].current == live_bytes &&
           stats->requested_bytes[0].current == requested &&
           stats->inactive_split[0].current == split &&
           stats->inactive_split_bytes[0].current == split_bytes &&
           stats->segment[0].current == segments &&
           stats->reserved_bytes[0].current == (int64_t)plain_reserved() &&
           stats->oversize_allocations.current == oversize &&
           stats->oversize_segments.current == oversize_segments &&
           stats->num_alloc_retries == plain.retries && stats->num_ooms == plain.ooms &&
           stats->num_device_alloc == plain.device_allocs &&
           stats->num_device_free == plain.device_frees;
}

/* ---- the script ---- */

enum { MAX_LIVE = 400 };

struct held {
    oom_devptr ptr;
    uint64_t bytes;
};

static struct fake_device fake;
static uint16_t *owners; /* of each granule of the fake's address space: 0 nobody */

static bool own(const struct held *held, uint16_t from, uint16_t to) {
    bool good = true;
    uint64_t first = (held->ptr - fake.base) / 512;
    uint64_t last = (held->ptr - fake.base + held->bytes - 1) / 512;
    for (uint64_t i = first; i <= last; i++) {
        good = good && owners[i] == from;
        owners[i] = to;
    }
    return good && held->ptr % 512 == 0;
}

static bool on_device(const struct held *held) {
    for (uint64_t i = 0; i < fake.count; i++) {
        const struct fake_region *region = &fake.regions[i];
        if (held->ptr >= region->address &&
            held->ptr + held->bytes <= region->address + region->bytes) {
            return true;
        }
    }
    return false;
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

/* 0 when all agrees, else the number of the step. */
static int run_script(const char *conf, uint64_t seed, int steps, bool descending, bool computes) {
    struct oom_allocator_settings settings = oom_allocator_settings_default();
    struct oom_allocator *a = NULL;
    struct oom_rng rng = {seed};
    struct held held[MAX_LIVE];
    int count = 0, wrong = 0;
    uint64_t capacity = 256 * MIB;

    CHECK_OK(oom_allocator_settings_parse(conf, &settings));
    fake_open(&fake, capacity, computes);
    plain = (struct plain){.settings = &settings, .limit = UINT64_MAX};
    plain.device = fake;
    plain.device.descending = fake.descending = descending;
    if (descending) plain.device.span = fake.span = (uint64_t)1 << 45;
    if (settings.per_process_memory_fraction < 1) {
        plain.limit = (uint64_t)(settings.per_process_memory_fraction * (double)capacity + 0.5);
    }
    owners = descending ? NULL : oom_host_calloc(fake.span / 512, sizeof *owners);
    CHECK_OK(oom_allocator_create(&fake.device, &settings, &a));

    for (int step = 1; step <= steps && wrong == 0; step++) {
        bool good = true;
        uint32_t dice = oom_rng_below(&rng, 1000);
        if (dice < 3) {
            good = oom_allocator_release_cached(a) == OOM_OK;
            plain_release_all();
        } else if (count < MAX_LIVE && (count == 0 || dice < 520)) {
            struct held *h = &held[count];
            int stream = oom_rng_below(&rng, 5) == 0;
            h->bytes = draw_size(&rng);
            enum oom_status status =
                oom_allocator_alloc(a, h->bytes, stream == 0 ? NULL : (struct oom_stream *)&rng,
                                    (enum oom_tag)(step % OOM_TAG_COUNT), "random", &h->ptr);
            oom_failure_clear();
            uint64_t expected = plain_alloc(h->bytes, stream);
            good = h->ptr == expected && (status == OOM_OK ? expected != 0 : status == OOM_NOMEM);
            if (good && expected != 0) {
                good = on_device(h) && (owners == NULL || own(h, 0, 1));
                stamp(h, (uint8_t)h->bytes);
                count++;
            }
        } else {
            int i = (int)oom_rng_below(&rng, (uint32_t)count);
            good = stamped(&held[i], (uint8_t)held[i].bytes) &&
                   (owners == NULL || own(&held[i], 1, 0)) &&
                   oom_allocator_free(a, held[i].ptr) == OOM_OK;
            plain_free(held[i].ptr);
            held[i] = held[--count];
        }
        good = good && oom_allocator_check(a) == OOM_OK && plain_agrees(oom_allocator_stats(a));
        if (!good) wrong = step;
    }
    const struct oom_allocator_stats *stats = oom_allocator_stats(a);
    CHECK_MSG(wrong == 0, "step %d differs; %s", wrong, oom_failure_last()->message);
    CHECK(stats->num_ooms > 0 && stats->num_alloc_retries >= stats->num_ooms);
    oom_allocator_destroy(a);
    CHECK_EQ(fake.used, 0);
    fake_close(&fake.device);
    oom_host_free(owners);
    return wrong;
}

void allocator_random_test(void) {
    static const char *const confs[] = {
        "",
        "max_split_size_mb:20",
        "max_split_size_mb:24,max_non_split_rounding_mb:20",
        "max_split_size_mb:30,max_non_split_rounding_mb:40",
        "per_process_memory_fraction:0.7",
        "garbage_collection_threshold:0.6,per_process_memory_fraction:0.8",
        "garbage_collection_threshold:0.3,per_process_memory_fraction:0.9,max_split_size_mb:22",
        "roundup_power2_divisions:4",
        "roundup_power2_divisions:[1:8,4:2,16:4,>:1]",
        "large_segment_size_mb:32",
    };
    TEST("random: 20000 steps, every address and count as in the plain allocator, contents kept");
    run_script("", 1, 20000, false, true);
    for (unsigned i = 0; i < sizeof confs / sizeof confs[0]; i++) {
        TEST("random: '%s'", confs[i]);
        run_script(confs[i], 100 + i, 3000, false, false);
        run_script(confs[i], 200 + i, 3000, true, false);
    }
}
