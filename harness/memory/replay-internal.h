/*
 * replay-internal.h: what the files of the replay share; nobody else includes
 * it.
 *
 * One file per job: replay-map.c finds things by address; replay-regions.c
 * holds segments and mapped runs; replay-undo.c goes back from the final state;
 * replay-start.c lays out what was there then; replay-order.c learns ages;
 * replay-script.c answers the model as the recorded device did; replay-drive.c
 * drives and compares, with replay-explain.c, which tells who gave memory back,
 * and replay-place.c; replay-ages.c learns from differences; replay-end.c compares the ends;
 * replay-verify.c tries orders and profiles; replay-requests.c and replay-what-if.c ask what else
 * would have happened.
 */
#ifndef OOM_HARNESS_MEMORY_REPLAY_INTERNAL_H
#define OOM_HARNESS_MEMORY_REPLAY_INTERNAL_H

#include "harness/memory/drive.h"
#include "harness/memory/replay.h"
#include "harness/memory/tree.h"

typedef unsigned long long oom_ull; /* for printf */

#define OOM_REPLAY_NEVER UINT64_MAX

enum { OOM_REPLAY_PAGE = 2 << 20, OOM_REPLAY_SMALL_MAX = 1 << 20 };

/* ---- replay-regions.c: segments and mapped runs, by address ---- */

enum oom_replay_size { OOM_REPLAY_UNKNOWN, OOM_REPLAY_SMALL, OOM_REPLAY_LARGE };

struct oom_replay_region {
    uint64_t address, bytes, stream;
    struct oom_pool_id pool;
    enum oom_replay_size size; /* of which pool */
    bool expandable;           /* a run of mapped pages; else a segment */
};

struct oom_replay_regions {
    struct oom_replay_region *items; /* ascending, not overlapping */
    uint64_t count;
};

void oom_replay_regions_free(struct oom_replay_regions *regions);
/* The one that holds the address, or NULL. */
struct oom_replay_region *oom_replay_regions_at(const struct oom_replay_regions *regions,
                                                uint64_t address);

/* The same while they come and go: each change costs the logarithm of their number. */
struct oom_region_tree {
    struct oom_tree tree;
    uint64_t count;
};

void oom_region_tree_free(struct oom_region_tree *tree);
enum oom_status oom_region_tree_list(const struct oom_region_tree *tree,
                                     struct oom_replay_regions *out);
/* Expandable ones grow together with neighbours of the same stream and pools.
 * *clash: it overlaps one that is there, and nothing has changed. */
enum oom_status oom_region_tree_add(struct oom_region_tree *tree,
                                    const struct oom_replay_region *region, bool *clash);
/* A whole segment, or a part of a run, which settles of which pool that is. *clash: it is not there
 * as a whole. */
enum oom_status oom_region_tree_take(struct oom_region_tree *tree,
                                     const struct oom_replay_region *region, bool *clash);
struct oom_replay_region *oom_region_tree_at(const struct oom_region_tree *tree, uint64_t address);
/* Runs of which that was not known lie in a pool of this size where they hold these bytes; they
 * begin in one run. */
void oom_region_tree_settle(struct oom_region_tree *tree, uint64_t address, uint64_t bytes,
                            enum oom_replay_size size);
/* Nothing more is to be learnt: what is not known is like the run that it touches. */
void oom_region_tree_settle_rest(struct oom_region_tree *tree);

/* ---- one device's part of a recording ---- */

/* Live before the first event. */
struct oom_replay_block {
    uint64_t address, bytes, requested;
    uint64_t freed; /* index of the event that made it free; NEVER: it lived to
                       the end */
    uint32_t site;
    bool pending;
    bool exact; /* bytes are recorded; else they are the rounded request, without
                   an unsplit tail */
};

struct oom_recording {
    const struct oom_snapshot *snapshot;
    const struct oom_snapshot_event *events;
    uint64_t count;
    int32_t device;
    bool has_requests, has_completions; /* of frees: both, unless one of them was not recorded */
    struct oom_allocator_settings settings; /* as recorded or given, without guards and trace */
    char notes[OOM_REPLAY_TEXT];
    uint64_t capacity; /* of the device; 0: not known */

    uint64_t *streams; /* handles, ascending; [0] is 0 */
    uint64_t stream_count;
    struct oom_pool_id *pools; /* by event, where events do not say what segments do; else NULL */
    bool names_pools;          /* some event does */

    struct oom_replay_regions regions; /* before the first event */
    struct oom_replay_block *blocks;   /* ascending */
    uint64_t block_count;
    struct oom_replay_start start;

    struct oom_start_segment *segments; /* the same for oom_allocator_start, ascending */
    uint64_t segment_count;
    struct oom_start_block *start_blocks;
    uint64_t start_block_count;
    uint64_t given, given_bytes; /* a segment that the device gave for the first event, an alloc;
                                    bytes 0: none */
    uint64_t reserve;            /* capacity for the model's address ranges, where it is not
                                    known */
};

/* replay-recording.c. Of an RMM log, which names no segments, nothing is known
 * before the first event; of others all is. */
enum oom_status oom_recording_open(struct oom_recording *recording,
                                   const struct oom_snapshot *snapshot,
                                   const struct oom_replay_options *options);
void oom_recording_close(struct oom_recording *recording);
/* For verification: without a capacity a fraction of it is no limit. */
void oom_recording_drop_fraction(struct oom_recording *recording);
uint32_t oom_recording_stream(const struct oom_recording *recording, uint64_t handle);
static inline struct oom_pool_id oom_recording_pool(const struct oom_recording *recording,
                                                    uint64_t event) {
    if (recording->pools != NULL) return recording->pools[event];
    return recording->snapshot->pools[recording->events[event].pool];
}
static inline bool oom_pool_same(struct oom_pool_id a, struct oom_pool_id b) {
    return a.a == b.a && a.b == b.b;
}
/* PyTorch's rounding of a request. */
uint64_t oom_replay_rounded(const struct oom_allocator_settings *settings, uint64_t bytes);
static inline bool oom_replay_is_small(const struct oom_recording *recording, uint64_t event) {
    uint64_t bytes = recording->events[event].bytes;
    return oom_replay_rounded(&recording->settings, bytes) <= OOM_REPLAY_SMALL_MAX;
}
/* OOM_USAGE: why event `index` makes the recording impossible. */
enum oom_status oom_recording_refuse(const struct oom_recording *recording, uint64_t index,
                                     const char *why);
/* "alloc of 512 bytes at 0x7f.." */
char *oom_event_text(const struct oom_snapshot_event *event, char *out, size_t n);
/* Event `index` names another stream or pool than the model's: a difference. `place` NULL: the
 * model has nothing there, which shows elsewhere. */
struct oom_replay_difference;
void oom_replay_compare_place(const struct oom_recording *recording, uint64_t index,
                              const struct oom_place *place,
                              struct oom_replay_difference *difference);

enum oom_status oom_recording_undo(struct oom_recording *recording);   /* replay-undo.c */
enum oom_status oom_recording_layout(struct oom_recording *recording); /* replay-start.c */

/* replay-ranges.c: which runs of mapped pages lie in one address range, and how
 * far it goes: a recording names neither. Sets recording->reserve, too. */
struct oom_replay_range {
    uint64_t first, count; /* regions, of `regions` */
    uint64_t address, bytes;
    uint64_t mapped; /* while the events are looked through */
};

enum oom_status oom_recording_ranges(struct oom_recording *recording,
                                     struct oom_replay_range **ranges, uint64_t *count);
uint64_t oom_replay_page(const struct oom_recording *recording, enum oom_replay_size size);

/* ---- replay-order.c: which of the start's segments is older, as far as is
 * known ---- */

struct oom_replay_order {
    uint64_t count; /* of segments */
    struct oom_replay_edge {
        uint64_t older, younger;
    } * edges;
    uint64_t edge_count, edge_room;
};

void oom_replay_order_free(struct oom_replay_order *order);
enum oom_status oom_replay_order_add(struct oom_replay_order *order, uint64_t older,
                                     uint64_t younger);
/* rank[0] is the oldest; by number where nothing is known. *fits false: what is
 * known contradicts itself, and rank is not filled in. rank may be NULL. */
enum oom_status oom_replay_order_sort(const struct oom_replay_order *order, uint64_t *rank,
                                      bool *fits);

/* ---- replay-script.c: a device that answers as the recorded one did ---- */

struct oom_replay_difference {
    bool found;
    uint64_t event;
    char expected[OOM_REPLAY_TEXT], got[OOM_REPLAY_TEXT];
    /* Where ages could explain it: what the recording took, what the model took.
     * 0: they cannot. */
    uint64_t older, younger;
    bool downward; /* the recording freed the younger one, and that comes first there */
};

struct oom_script {
    struct oom_device device;
    const struct oom_recording *recording;
    uint64_t at, end;  /* events that the device may answer from, the next one first */
    uint64_t unmapped; /* bytes of the event at `at` that were unmapped so far */
    uint64_t last_handle;
    uint64_t stray;                /* address for a range that is never mapped */
    struct oom_region_tree ranges; /* of addresses, reserved */
    struct oom_device_properties properties;
    struct oom_replay_difference *difference;
    const struct oom_allocator *allocator; /* that asks */
    struct oom_place asker;                /* its request */
    uint64_t downward_first, downward_end; /* events that free the youngest first */
    bool closing;                          /* the allocator gives everything back: anything goes */
};

/* On failure it must be closed, too. */
enum oom_status oom_script_open(struct oom_script *script, const struct oom_recording *recording,
                                struct oom_replay_difference *difference);
void oom_script_close(struct oom_script *script);
/* The events [first, end) are what the device does next; event `end` is what
 * the caller got. */
void oom_script_window(struct oom_script *script, uint64_t first, uint64_t end);
/* Event `index` maps pages for the stream and pools of event `request`. */
bool oom_replay_maps_for(const struct oom_recording *recording, uint64_t index, uint64_t request);
/* The next event of the window that a device knows of, or NULL. */
const struct oom_snapshot_event *oom_script_next(struct oom_script *script);

/* ---- replay-drive.c: one pass ---- */

struct oom_replay_pass {
    const struct oom_recording *recording;
    const struct oom_allocator_settings *settings;
    struct oom_replay_order *order;
    uint64_t decisions, equal;
    uint64_t peak_reserved, peak_allocated, end_allocated, end_reserved;
    struct oom_replay_difference difference;
    bool learned; /* ages of segments: worth another pass */
};

enum oom_status oom_replay_drive(struct oom_replay_pass *pass);

/* replay-place.c: the model's block that holds an address; false: none. */
bool oom_replay_block_at(const struct oom_allocator *allocator, uint64_t address,
                         struct oom_block_view *out);
/* "0x7f.. (segment 0x7e.. + 512)" */
const char *oom_replay_place(const struct oom_allocator *allocator, uint64_t address, char *out,
                             size_t n);
/* Of a pool that the model may not have, or not have any more; those that are retired give their
 * memory back in the order of these calls. */
enum oom_status oom_replay_retire(struct oom_allocator *allocator, struct oom_pool_id pool);
/* Blocks that were freed and are not completed. */
uint64_t oom_replay_pending(const struct oom_allocator *allocator);

/* ---- replay-explain.c: who gave memory back ---- */

/* What lies before a request, which is event `end`; or before something else. */
struct oom_replay_group {
    uint64_t first, taking, end; /* `taking`: the first event that takes memory, or end */
    uint64_t completions;
    bool request;
    bool releases;     /* before anything is taken */
    bool releases_any; /* at all */
    bool fails;        /* the request does */
};

/* The request, made now, would take what there is. */
bool oom_replay_fits(const struct oom_recording *recording, const struct oom_allocator *allocator,
                     uint64_t request);

/* The request, made now, would do what the events from `at` on say. */
bool oom_replay_by_request(const struct oom_recording *recording,
                           const struct oom_allocator *allocator,
                           const struct oom_replay_group *group, uint64_t at);

/* The events [first, end) from `at` on, as far as they are alike what it would do, in which it
 * gives back the youngest of equal segments first; elsewhere the oldest is. */
void oom_replay_downward(const struct oom_recording *recording,
                         const struct oom_allocator *allocator,
                         const struct oom_replay_group *group, uint64_t at, uint64_t *first,
                         uint64_t *end);

enum oom_replay_giver {
    OOM_GIVER_REQUEST, /* on its way; or nobody is known */
    OOM_GIVER_PROGRAM, /* before it */
    OOM_GIVER_RETRY,   /* the request, which did not see what came free while it waited */
};

/* Of a group that ends with a request, once what stands before `at` was completed. retry_seen: the
 * request would have found nothing before that was. */
enum oom_replay_giver oom_replay_giver(const struct oom_recording *recording,
                                       const struct oom_allocator *allocator,
                                       const struct oom_replay_group *group, uint64_t at,
                                       bool ages_known, bool retry_seen);

/* replay-ages.c: where ages explain the difference of a pass, learns them into
 * pass->order and says so in pass->learned. Changes the allocator. */
enum oom_status oom_replay_learn(struct oom_replay_pass *pass, struct oom_allocator *allocator);

/* replay-end.c */
enum oom_status oom_replay_compare_end(const struct oom_recording *recording,
                                       const struct oom_allocator *allocator,
                                       struct oom_replay_difference *difference);

/* ---- replay-requests.c: what the program asked for, whatever was answered
 * ---- */

enum oom_replay_kind {
    OOM_REPLAY_ALLOC,
    OOM_REPLAY_TRY,      /* it failed when recorded: nothing is known of what would
                            have followed */
    OOM_REPLAY_FREE,     /* and nobody else used it */
    OOM_REPLAY_HOLD,     /* freed, but others are not done with it */
    OOM_REPLAY_COMPLETE, /* they are */
    OOM_REPLAY_RELEASE,  /* of the cache, by the program */
    OOM_REPLAY_RETIRE,   /* of a private pool */
};

struct oom_replay_request {
    uint64_t bytes; /* asked for */
    uint64_t event; /* NEVER: it was live before the first */
    uint32_t slot;  /* numbers live blocks; used again once they are free */
    uint32_t site;
    uint16_t stream; /* number */
    uint16_t pool;   /* index into pools */
    uint8_t kind;    /* enum oom_replay_kind */
};

struct oom_replay_requests {
    struct oom_replay_request *items;
    uint64_t count, room;
    uint64_t slot_count, stream_count;
    struct oom_pool_id *pools;
    uint64_t pool_count;
    uint64_t peak_live; /* bytes, each block rounded to 512 */
};

enum oom_status oom_replay_requests_make(const struct oom_recording *recording,
                                         struct oom_replay_requests *out);
void oom_replay_requests_free(struct oom_replay_requests *requests);

#endif
