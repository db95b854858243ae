/*
 * cure-table.h: every generator under every cure, as it is known: which cell fits, and where the
 * run fails as it is. Made on the dry device at one capacity, so that a cell that changes means
 * that the allocator, or the step, has changed.
 */
#ifndef OOM_SCENARIOS_CURE_TABLE_H
#define OOM_SCENARIOS_CURE_TABLE_H

#include "scenarios/generators.h"

/* Bytes; below, a page of 20 MiB is too large a part of the device. */
enum { OOM_PINNED_CAPACITY = 512 << 20 };

/* id, name, settings, cached memory given back before each step and each other consumer */
#define OOM_CURE_MAP(X) \
    X(DEFAULT, "default", "", false) \
    X(EXPANDABLE, "expandable", "expandable_segments:True", false) \
    X(MAX_SPLIT, "max split 20", "max_split_size_mb:20", false) \
    X(MAX_SPLIT_TENTH, "max split 51", "max_split_size_mb:51", false) \
    X(MAX_SPLIT_QUARTER, "max split 128", "max_split_size_mb:128", false) \
    X(ROUNDUP_2, "roundup 2", "roundup_power2_divisions:2", false) \
    X(ROUNDUP_4, "roundup 4", "roundup_power2_divisions:4", false) \
    X(ROUNDUP_8, "roundup 8", "roundup_power2_divisions:8", false) \
    X(RELEASE, "release", "", true) \
    X(GC_60, "gc 0.6", OOM_CONF_GC("0.6"), false) \
    X(GC_80, "gc 0.8", OOM_CONF_GC("0.8"), false)

/* A threshold acts beside a limit only; this fraction rounds to the whole capacity. */
#define OOM_CONF_GC(threshold) \
    "garbage_collection_threshold:" threshold ",per_process_memory_fraction:0.99999999999999"

enum oom_cure_id {
#define X(id, name, conf, release) OOM_CURE_##id,
    OOM_CURE_MAP(X)
#undef X
        OOM_CURE_COUNT
};

extern const struct oom_cure oom_cures[OOM_CURE_COUNT];

/* What is known of a generator at OOM_PINNED_CAPACITY with this seed and size: where the run fails
 * under `fails` (which allocation of the run, bytes asked for, bytes not allocated), and which
 * cures let it end. */
struct oom_pinned {
    const char *generator;
    uint64_t seed;
    uint64_t real_seed; /* of what is computed: the one that fails soonest */
    int64_t size;
    enum oom_cure_id fails;
    uint64_t allocation, requested, free;
    uint32_t fits; /* 1 << enum oom_cure_id */
};

extern const struct oom_pinned oom_pinned[]; /* ends with a zero entry */

/* NULL: nothing is known of it. */
const struct oom_pinned *oom_pinned_find(const char *generator);

/* The row of this generator as a case. */
enum oom_status oom_cure_table_case(const struct oom_situation *situation, const char *generator,
                                    struct oom_case *out);

#endif
