/*
 * plain-testing.h: for tests only: a second allocator, written as plainly as possible from the same
 * rules (one array of blocks, linear scans, nothing kept that can be recomputed), over a fake
 * device of its own. What it shares with the real one is the rules and nothing else.
 */
#ifndef OOM_HARNESS_MEMORY_PLAIN_TESTING_H
#define OOM_HARNESS_MEMORY_PLAIN_TESTING_H

#include "harness/memory/allocator.h"
#include "harness/memory/fake-device.h"

enum { PLAIN_BLOCKS = 8192, PLAIN_QUEUE = 2048 };

enum plain_state { PLAIN_FREE, PLAIN_LIVE, PLAIN_PENDING, PLAIN_UNMAPPED };

struct plain_block {
    uint64_t address, bytes, requested, age;
    uint64_t segment, segment_address, segment_bytes; /* counter and place of the segment */
    enum plain_state state;
    bool small, expandable;
    int stream, waits;
    bool used_by[FAKE_STREAMS];
};

static struct plain {
    struct fake_device device;
    const struct oom_allocator_settings *settings;
    struct plain_block blocks[PLAIN_BLOCKS]; /* by segment, then address */
    int count;
    uint64_t limit, segments, small_searches, large_searches;
    uint64_t retries, ooms, device_allocs, device_frees, syncs;
    struct {
        uint64_t submitted, finished;
        int length;
        struct {
            uint64_t address, ticket;
        } waiting[PLAIN_QUEUE];
    } streams[FAKE_STREAMS];
} plain;

static const uint64_t PLAIN_MIB = 1 << 20;

static inline bool plain_fixed(void) {
    return plain.settings->profile == OOM_PROFILE_FIXED;
}

static inline bool plain_neighbours(int i, int j) {
    return i >= 0 && j < plain.count && plain.blocks[i].segment == plain.blocks[j].segment;
}

static inline bool plain_split(int i) {
    return plain_neighbours(i - 1, i) || plain_neighbours(i, i + 1);
}

static inline uint64_t plain_reserved(void) {
    uint64_t sum = 0;
    for (int i = 0; i < plain.count; i++) {
        if (plain.blocks[i].state != PLAIN_UNMAPPED) sum += plain.blocks[i].bytes;
    }
    return sum;
}

static inline void plain_insert(int at, struct plain_block block) {
    for (int i = plain.count++; i > at; i--) plain.blocks[i] = plain.blocks[i - 1];
    plain.blocks[at] = block;
}

static inline void plain_delete(int at) {
    plain.count--;
    for (int i = at; i < plain.count; i++) plain.blocks[i] = plain.blocks[i + 1];
}

static inline int plain_at(uint64_t address) {
    int i = 0;
    while (i < plain.count && plain.blocks[i].address != address) i++;
    return i;
}

static inline uint64_t *plain_searches(bool small) {
    return small ? &plain.small_searches : &plain.large_searches;
}

/* The limit of garbage collection; 0: there is none. */
static inline uint64_t plain_gc_limit(void) {
    if (!(plain.settings->garbage_collection_threshold > 0)) return 0;
    if (plain.limit != UINT64_MAX) return plain.limit;
    return plain_fixed() ? plain.device.capacity : 0;
}

static inline uint64_t plain_round(uint64_t n) {
    uint64_t index = 0, power = 1;
    while (index < 15 && n >= (PLAIN_MIB << (index + 1))) index++;
    while (power * 2 <= n) power *= 2;
    uint64_t d = plain.settings->roundup_power2_divisions[index];
    uint64_t unit = d > 1 && n > 512 * d ? power / d : 512;
    uint64_t rounded = n / unit * unit;
    if (rounded < n) rounded += unit;
    return rounded < 512 ? 512 : rounded;
}

static inline uint64_t plain_segment_size(uint64_t size) {
    if (size <= PLAIN_MIB) return 2 * PLAIN_MIB;
    if (size < 10 * PLAIN_MIB) return plain.settings->large_segment_size;
    return (size + 2 * PLAIN_MIB - 1) / (2 * PLAIN_MIB) * (2 * PLAIN_MIB);
}

/* ---- which block ---- */

/* Is i before j in (stream, size, segment but for 2.11, address)? */
static inline bool plain_before(int i, int j) {
    const struct plain_block *a = &plain.blocks[i], *b = &plain.blocks[j];
    if (a->stream != b->stream) return a->stream < b->stream;
    if (a->bytes != b->bytes) return a->bytes < b->bytes;
    if (plain.settings->profile != OOM_PROFILE_PYTORCH_2_11 && a->segment != b->segment) {
        return a->segment < b->segment;
    }
    return a->address < b->address;
}

/* The first free block of the pool and stream that has `size` and comes after `after` (-1: any), or
 * -1. */
static inline int plain_first(bool small, int stream, uint64_t size, int after) {
    int best = -1;
    for (int i = 0; i < plain.count; i++) {
        const struct plain_block *b = &plain.blocks[i];
        if (b->state != PLAIN_FREE || b->small != small || b->stream != stream) continue;
        if (b->bytes < size || (after >= 0 && !plain_before(after, i))) continue;
        if (best < 0 || plain_before(i, best)) best = i;
    }
    return best;
}

static inline uint64_t plain_reach(int i) {
    uint64_t bytes = plain.blocks[i].bytes;
    bool grows = plain_neighbours(i, i + 1) && plain.blocks[i + 1].state == PLAIN_UNMAPPED;
    return bytes + (grows ? plain.blocks[i + 1].bytes : 0);
}

static inline int plain_search(bool small, int stream, uint64_t size) {
    uint64_t max_split = plain.settings->max_split_size;
    if (plain_gc_limit() > 0) ++*plain_searches(small);
    int i = plain_first(small, stream, size, -1);
    while (i >= 0 && plain.blocks[i].expandable) {
        int next = plain_first(small, stream, size, i);
        if (next < 0 || plain_reach(next) >= plain_reach(i)) break;
        i = next;
    }
    if (i < 0 || (plain.blocks[i].expandable && plain_fixed())) return i;
    uint64_t found = plain.blocks[i].bytes;
    if (size < max_split && found >= max_split) return -1;
    if (size >= max_split && found >= size + plain.settings->max_non_split_rounding) return -1;
    return i;
}

/* ---- whole segments ---- */

static inline void plain_release(int i) {
    plain.device_frees++;
    (void)fake_free(&plain.device.device, plain.blocks[i].address);
    plain_delete(i);
}

static inline int plain_segment(uint64_t bytes, bool small, int stream) {
    oom_devptr address;
    if (fake_alloc(&plain.device.device, bytes, &address) != OOM_OK) {
        oom_failure_clear();
        return -1;
    }
    plain_insert(plain.count, (struct plain_block){.address = address,
                                                   .bytes = bytes,
                                                   .segment = plain.segments++,
                                                   .segment_address = address,
                                                   .segment_bytes = bytes,
                                                   .small = small,
                                                   .stream = stream});
    plain.device_allocs++;
    return plain.count - 1;
}

/* ---- pages ---- */

static inline uint64_t plain_page(bool small) {
    return small ? 2 * PLAIN_MIB : plain.settings->large_segment_size;
}

static inline bool plain_mergeable(int front) {
    const struct plain_block *a = &plain.blocks[front], *b = &plain.blocks[front + 1];
    return plain_neighbours(front, front + 1) && a->state == b->state &&
           (a->state == PLAIN_FREE || a->state == PLAIN_UNMAPPED);
}

/* Merges block i with its neighbours, whose age it takes over; its new place. */
static inline int plain_merge(int i) {
    for (int side = 1; side >= 0; side--) { /* behind first, then in front */
        int front = i - !side;
        if (front < 0 || !plain_mergeable(front)) continue;
        plain.blocks[front].bytes += plain.blocks[front + 1].bytes;
        plain.blocks[front].age = plain.blocks[i].age;
        plain_delete(front + 1);
        i = front;
    }
    return i;
}

/* Cuts block i after `bytes`. */
static inline void plain_cut(int i, uint64_t bytes) {
    struct plain_block rest = plain.blocks[i];
    if (rest.bytes == bytes) return;
    rest.address += bytes;
    rest.bytes -= bytes;
    plain.blocks[i].bytes = bytes;
    plain_insert(i + 1, rest);
}

static inline bool plain_map(int *i, uint64_t want) {
    struct plain_block *b = &plain.blocks[*i];
    uint64_t page = plain_page(b->small), pages = (want + page - 1) / page;
    oom_handle handles[64];
    for (uint64_t k = 0; k < pages; k++) {
        if (fake_create(&plain.device.device, page, &handles[k]) == OOM_OK) continue;
        oom_failure_clear();
        while (k-- > 0) (void)fake_release(&plain.device.device, handles[k]);
        return false;
    }
    for (uint64_t k = 0; k < pages; k++) {
        (void)fake_map(&plain.device.device, b->address + k * page, page, handles[k]);
    }
    (void)fake_set_access(&plain.device.device, b->address, pages * page, OOM_ACCESS_READ_WRITE);
    plain_cut(*i, pages * page);
    b->state = PLAIN_FREE;
    b->age = *plain_searches(b->small);
    plain.device_allocs++;
    *i = plain_merge(*i);
    return true;
}

static inline bool plain_fillable(int i) {
    return plain.blocks[i].state == PLAIN_FREE || plain.blocks[i].state == PLAIN_UNMAPPED;
}

/* The lowest start from which free and unmapped blocks hold `size`. */
static inline int plain_place(bool small, int stream, uint64_t size) {
    int best = -1;
    for (int i = 0; i < plain.count; i++) {
        const struct plain_block *b = &plain.blocks[i];
        if (!b->expandable || b->small != small || b->stream != stream || !plain_fillable(i)) {
            continue;
        }
        bool before_unmapped =
            plain_neighbours(i, i + 1) && plain.blocks[i + 1].state == PLAIN_UNMAPPED;
        if (b->state == PLAIN_FREE && !before_unmapped) continue;
        uint64_t sum = 0;
        for (int j = i; j == i || (plain_neighbours(j - 1, j) && plain_fillable(j)); j++) {
            sum += plain.blocks[j].bytes;
            if (j + 1 == plain.count) break;
        }
        if (sum < size) continue;
        if (best < 0 || b->address < plain.blocks[best].address) best = i;
    }
    return best;
}

static inline int plain_reserve(bool small, int stream, uint64_t size) {
    uint64_t page = plain_page(small), full = plain.device.capacity / 8 * 9;
    uint64_t bytes = (full + page - 1) / page * page;
    oom_devptr address;
    if (bytes < size) return -1;
    (void)fake_reserve(&plain.device.device, bytes, &address);
    plain_insert(plain.count, (struct plain_block){.address = address,
                                                   .bytes = bytes,
                                                   .segment = plain.segments++,
                                                   .segment_address = address,
                                                   .segment_bytes = bytes,
                                                   .state = PLAIN_UNMAPPED,
                                                   .small = small,
                                                   .expandable = true,
                                                   .stream = stream});
    return plain.count - 1;
}

static inline int plain_expand(uint64_t size, bool small, int stream) {
    int i = plain_place(small, stream, size);
    if (i < 0) i = plain_reserve(small, stream, size);
    if (i < 0) return -1;
    while (plain.blocks[i].state == PLAIN_UNMAPPED || plain.blocks[i].bytes < size) {
        int next = plain.blocks[i].state == PLAIN_UNMAPPED ? i : i + 1;
        uint64_t missing = size - (next == i ? 0 : plain.blocks[i].bytes);
        uint64_t there = plain.blocks[next].bytes;
        if (!plain_map(&next, missing < there ? missing : there)) return -1;
        i = next;
    }
    return i;
}

/* Whole pages of free block i; false: nothing of it went. */
static inline void plain_unmap(int i) {
    struct plain_block b = plain.blocks[i];
    uint64_t page = plain_page(b.small), start = b.segment_address;
    while (start < b.address) start += page;
    uint64_t end = start;
    while (end + page <= b.address + b.bytes) end += page;
    if (end == start) return;
    for (uint64_t at = start; at < end; at += page) {
        oom_handle handle = fake_mapping(&plain.device, at)->handle;
        (void)fake_unmap(&plain.device.device, at, page);
        (void)fake_release(&plain.device.device, handle);
    }
    plain.blocks[i].age = *plain_searches(b.small);
    if (start > b.address) plain_cut(i++, start - b.address);
    plain_cut(i, end - start);
    plain.blocks[i].state = PLAIN_UNMAPPED;
    plain.device_frees++;
    i = plain_merge(i);
    if (plain_split(i)) return;
    (void)fake_unreserve(&plain.device.device, b.segment_address, b.segment_bytes);
    plain_delete(i);
}

/* ---- streams ---- */

static inline void plain_complete(int i) {
    struct plain_block *b = &plain.blocks[i];
    b->state = PLAIN_FREE;
    b->age = *plain_searches(b->small);
    plain_merge(i);
}

/* Completes what has finished; `all`: waits. */
static inline void plain_poll(bool all) {
    for (int s = 0; s < FAKE_STREAMS; s++) {
        if (all && plain.streams[s].length > 0) {
            uint64_t last = plain.streams[s].waiting[plain.streams[s].length - 1].ticket;
            if (last > plain.streams[s].finished) plain.streams[s].finished = last;
        }
        while (plain.streams[s].length > 0 &&
               plain.streams[s].waiting[0].ticket <= plain.streams[s].finished) {
            int i = plain_at(plain.streams[s].waiting[0].address);
            plain.streams[s].length--;
            memmove(plain.streams[s].waiting, plain.streams[s].waiting + 1,
                    (size_t)plain.streams[s].length * sizeof plain.streams[s].waiting[0]);
            if (--plain.blocks[i].waits == 0) plain_complete(i);
        }
    }
}

static inline void plain_record_stream(uint64_t address, int stream) {
    struct plain_block *b = &plain.blocks[plain_at(address)];
    if (stream != b->stream) b->used_by[stream] = true;
}

static inline void plain_free(uint64_t address) {
    struct plain_block *b = &plain.blocks[plain_at(address)];
    for (int s = FAKE_STREAMS - 1; s >= 0; s--) {
        if (!b->used_by[s]) continue;
        b->used_by[s] = false;
        b->state = PLAIN_PENDING;
        b->waits++;
        int n = plain.streams[s].length++;
        plain.streams[s].waiting[n].address = address;
        plain.streams[s].waiting[n].ticket = ++plain.streams[s].submitted;
    }
    if (b->state == PLAIN_LIVE) plain_complete(plain_at(address));
}

/* ---- the chain ---- */

static inline int plain_attempt(uint64_t size, bool small, int stream) {
    uint64_t bytes = plain_segment_size(size);
    if (plain.limit != UINT64_MAX && plain_reserved() + bytes > plain.limit) return -1;
    return plain.settings->expandable_segments ? plain_expand(size, small, stream)
                                               : plain_segment(bytes, small, stream);
}

static inline void plain_collect(void) {
    double threshold = plain.settings->garbage_collection_threshold;
    uint64_t allowed = (uint64_t)(threshold * (double)plain_gc_limit());
    if (plain_gc_limit() == 0 || plain_reserved() <= allowed) return;
    uint64_t target = plain_reserved() - allowed, gone = 0;
    for (bool freed = true; freed && gone < target;) {
        double sum = 0, n = 0;
        freed = false;
        for (int i = 0; i < plain.count; i++) {
            const struct plain_block *b = &plain.blocks[i];
            if (b->state != PLAIN_FREE || b->small || plain_split(i)) continue;
            sum += (double)(plain.large_searches - b->age);
            n++;
        }
        if (n == 0) return;
        for (int i = plain.count - 1; i >= 0; i--) {
            const struct plain_block *b = &plain.blocks[i];
            if (b->state != PLAIN_FREE || b->small || b->expandable || plain_split(i)) continue;
            if ((double)(plain.large_searches - b->age) < sum / n) continue;
            gone += b->bytes;
            plain_release(i);
            freed = true;
        }
    }
}

static inline bool plain_oversize(uint64_t size, bool small, int stream) {
    uint64_t max_split = plain.settings->max_split_size, released = 0;
    uint64_t key = size > max_split ? size : max_split;
    if (max_split == UINT64_MAX || plain.settings->expandable_segments) return false;
    int i = plain_first(small, stream, key, -1);
    if (i >= 0) {
        plain_release(i);
        return true;
    }
    while (released < key) {
        int last = -1;
        for (int j = 0; j < plain.count; j++) {
            const struct plain_block *b = &plain.blocks[j];
            if (b->state != PLAIN_FREE || b->small != small || b->stream != stream) continue;
            if (last < 0 || plain_before(last, j)) last = j;
        }
        if (last < 0 || plain.blocks[last].bytes < max_split) break;
        released += plain.blocks[last].bytes;
        plain_release(last);
    }
    return released >= key;
}

/* Expandable segments come and go in the order of the free set: large pool first. */
static inline void plain_release_all(void) {
    for (int i = plain.count - 1; i >= 0; i--) {
        const struct plain_block *b = &plain.blocks[i];
        if (b->state == PLAIN_FREE && !b->expandable && !plain_split(i)) plain_release(i);
    }
    for (int small = 0; small < 2; small++) {
        for (int s = 0; s < FAKE_STREAMS; s++) {
            uint64_t gone[PLAIN_BLOCKS / 8];
            int n = 0;
            for (int i = plain_first(small, s, 0, -1); i >= 0; i = plain_first(small, s, 0, i)) {
                if (plain.blocks[i].expandable) gone[n++] = plain.blocks[i].address;
            }
            for (int k = 0; k < n; k++) plain_unmap(plain_at(gone[k]));
        }
    }
}

static inline void plain_empty_cache(void) {
    plain.syncs++;
    plain_poll(true);
    plain_release_all();
}

static inline int plain_obtain(uint64_t size, bool small, int stream) {
    plain_collect();
    int i = plain_attempt(size, small, stream);
    if (i < 0 && plain_oversize(size, small, stream)) i = plain_attempt(size, small, stream);
    if (i >= 0) return i;
    plain.syncs++;
    plain_poll(true);
    if (plain_fixed()) i = plain_search(small, stream, size);
    if (i >= 0) return i;
    plain_release_all();
    plain.retries++;
    return plain_attempt(size, small, stream);
}

/* The address, or 0 when it ran out. */
static inline uint64_t plain_alloc(uint64_t bytes, int stream) {
    plain_poll(false);
    uint64_t size = plain_round(bytes);
    bool small = size <= PLAIN_MIB, finely = small || plain.settings->expandable_segments;
    int i = plain_search(small, stream, size);
    if (i < 0) i = plain_obtain(size, small, stream);
    if (i < 0) {
        plain.ooms++;
        return 0;
    }
    uint64_t rest = plain.blocks[i].bytes - size;
    if (finely ? rest >= 512 : size < plain.settings->max_split_size && rest > PLAIN_MIB) {
        plain.blocks[i].age = *plain_searches(small);
        plain_cut(i, size);
    }
    plain.blocks[i].state = PLAIN_LIVE;
    plain.blocks[i].requested = bytes;
    return plain.blocks[i].address;
}

/* ---- agreement ---- */

static inline bool plain_agrees(const struct oom_allocator_stats *stats) {
    int64_t live = 0, live_bytes = 0, active = 0, active_bytes = 0, requested = 0, split = 0;
    int64_t split_bytes = 0, segments = 0, oversize = 0, oversize_segments = 0;
    uint64_t max_split = plain.settings->max_split_size;
    for (int i = 0; i < plain.count; i++) {
        const struct plain_block *b = &plain.blocks[i];
        if (!plain_neighbours(i - 1, i) && !b->expandable) {
            segments++;
            oversize_segments += b->segment_bytes >= max_split;
        }
        if (b->state == PLAIN_LIVE) {
            live++;
            live_bytes += (int64_t)b->bytes;
            oversize += b->bytes >= max_split;
        }
        if (b->state == PLAIN_LIVE || b->state == PLAIN_PENDING) {
            active++;
            active_bytes += (int64_t)b->bytes;
            requested += (int64_t)b->requested;
        } else if (!b->expandable && plain_split(i)) {
            split++;
            split_bytes += (int64_t)b->bytes;
        }
    }
    return stats->allocation[0].current == live && stats->active[0].current == active &&
           stats->allocated_bytes[0].current == live_bytes &&
           stats->active_bytes[0].current == active_bytes &&
           stats->requested_bytes[0].current == requested &&
           stats->inactive_split[0].current == split &&
           stats->inactive_split_bytes[0].current == split_bytes &&
           stats->segment[0].current == segments &&
           stats->reserved_bytes[0].current == (int64_t)plain_reserved() &&
           stats->oversize_allocations.current == oversize &&
           stats->oversize_segments.current == oversize_segments &&
           stats->num_alloc_retries == plain.retries && stats->num_ooms == plain.ooms &&
           stats->num_sync_all_streams == plain.syncs &&
           stats->num_device_alloc == plain.device_allocs &&
           stats->num_device_free == plain.device_frees;
}

#endif
