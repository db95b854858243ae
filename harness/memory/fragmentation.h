/*
 * fragmentation.h: one state of an allocator by every measure of fragmentation in use, side by
 * side, since each tells something else; what a release of the cache would give back (soft
 * fragmentation) and what it would not (hard); and which live blocks pin which segments.
 *
 * A picture owns nothing; names in it are copies. All figures are bytes or shares in [0, 1].
 */
#ifndef OOM_HARNESS_MEMORY_FRAGMENTATION_H
#define OOM_HARNESS_MEMORY_FRAGMENTATION_H

#include "kernels/status.h"

#include <stdint.h>
#include <stdio.h>

struct oom_allocator;

enum { OOM_PINS_MAX = 4 };

/* A segment (of an expandable one: a page run) that holds free bytes and cannot be given back,
 * because of the live blocks in it. */
struct oom_pin {
    uint64_t segment, segment_bytes;
    uint64_t free_bytes;   /* of it free, but not given back by a release */
    uint64_t pinned_bytes; /* the live blocks in it, */
    uint64_t pinned_count; /* so many, */
    uint64_t smallest;     /* the smallest of them with its name: */
    char site[64];
};

struct oom_fragmentation {
    uint64_t allocated, active, reserved, cached; /* cached = reserved - active */
    uint64_t device_free;                         /* of the device, not reserved */
    uint64_t cached_pieces, largest_cached;
    uint64_t soft, hard;     /* cached = soft + hard: what a release gives back now (whole unused
                                segments, whole unused pages of expandable ones), and the rest */
    uint64_t inactive_split; /* bytes, torch's inactive_split_bytes */
    double largest_hole;     /* 1 - largest free / total free, within reserved memory (RMM,
                                TensorFlow); 0 where nothing is free */
    double waste_at_peak;    /* 1 - peak active / peak reserved (GMLake, STAlloc) */
    double inactive_split_share; /* inactive_split / reserved */
    double snapshot_ratio;       /* allocated / reserved now (a PyTorch users' formula); 1 where
                                    nothing is reserved, and so nothing is wasted */
    double lowest_utilization;   /* least allocated / reserved since the start (cuDF); 1 likewise */
    uint64_t pinned_segments;    /* how many segments are pinned; the worst are kept: */
    int pin_count;
    struct oom_pin pins[OOM_PINS_MAX]; /* most free bytes first */
};

enum oom_status oom_fragmentation_take(const struct oom_allocator *allocator,
                                       struct oom_fragmentation *out);

/* The measures as the rows of a table for people, one "name  value  meaning" a line. */
void oom_fragmentation_print(const struct oom_fragmentation *fragmentation, FILE *out);

#endif
