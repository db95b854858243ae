/*
 * replay-hand-testing.h: for tests only: recordings written down event by event, so that what must
 * come of them follows from the specification alone.
 *
 * Borrows all arrays; nothing fails.
 */
#ifndef OOM_HARNESS_MEMORY_REPLAY_HAND_TESTING_H
#define OOM_HARNESS_MEMORY_REPLAY_HAND_TESTING_H

#include "harness/memory/snapshot.h"

enum { MIB = 1 << 20 };

#define EVENT(what, at, size) \
    { .action = OOM_ACTION_##what, .address = (at), .bytes = (size) }

/* Segments, blocks and events of one device; blocks follow one another. */
static inline struct oom_snapshot by_hand(struct oom_snapshot_segment *segments,
                                          uint64_t segment_count, struct oom_snapshot_block *blocks,
                                          uint64_t block_count, struct oom_snapshot_event *events,
                                          struct oom_snapshot_trace *trace) {
    static struct oom_pool_id pools[] = {{0, 0}, {0, 7}};
    static char text[1] = "";
    static uint64_t no_site; /* sites[0] */
    uint64_t at = 0;
    for (uint64_t i = 0; i < segment_count; i++) {
        uint64_t address = segments[i].address, end = address + segments[i].bytes;
        segments[i].first_block = at;
        for (; address < end; at++) {
            blocks[at].address = address;
            address += blocks[at].bytes;
            segments[i].block_count++;
        }
    }
    for (uint64_t i = 0; i < trace->count; i++) events[i].time_us = i;
    return (struct oom_snapshot){.segments = segments,
                                 .segment_count = segment_count,
                                 .blocks = blocks,
                                 .block_count = block_count,
                                 .events = events,
                                 .event_count = trace->count,
                                 .traces = trace,
                                 .device_count = 1,
                                 .pools = pools,
                                 .pool_count = 2,
                                 .site_text = text,
                                 .sites = &no_site,
                                 .site_count = 1};
}

#endif
