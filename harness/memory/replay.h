/*
 * replay.h: a recorded run driven through the allocator model: does the model decide as the
 * recording did, and what would other settings, another profile or another card have done?
 *
 * Nothing here needs a device: verification answers the model's device calls from the recording,
 * what-if runs on a dry device. Functions borrow the snapshot; results own nothing. A recording
 * that cannot be replayed (no events, contradictory, cut) is OOM_USAGE with the reason.
 */
#ifndef OOM_HARNESS_MEMORY_REPLAY_H
#define OOM_HARNESS_MEMORY_REPLAY_H

#include "harness/memory/fragmentation.h"
#include "harness/memory/snapshot.h"

enum { OOM_REPLAY_TEXT = 320 };

struct oom_replay_options {
    uint64_t device;     /* which of the recording's; 0 is the first */
    bool settings_given; /* else those of the recording, read leniently */
    struct oom_allocator_settings settings;
    bool profile_given; /* else the recording's; where it names none, every one is tried, and the
                           one that agrees longest taken */
    enum oom_profile profile;
    uint64_t
        capacity; /* of the card that it ran on, where the recording does not say; 0: unknown */
};

/* ---- the start ---- */

/* What was rebuilt by undoing the events from the final segments. */
struct oom_replay_start {
    bool empty;                   /* the recording begins with nothing */
    uint64_t segments, live;      /* blocks */
    uint64_t reserved, allocated; /* bytes */
    uint64_t ghosts;              /* live blocks of the final state that no event explains */
    uint64_t learned;             /* choices between equal blocks that told which segment is older:
                                     ages are not recorded, and one order agrees with all of them */
    uint64_t ambiguous;           /* places where more than one start fits */
    char why[OOM_REPLAY_TEXT];    /* the first of them */
};

/* ---- verification ---- */

struct oom_replay_verdict {
    struct oom_replay_start start;
    enum oom_profile profile;  /* under which the figures below came out */
    bool profile_decided;      /* a tie in the recording tells the profiles apart */
    uint64_t decisions, equal; /* allocations and out-of-memory errors */
    bool matched;              /* all decisions equal, nothing besides, and the same end state */
    uint64_t first_event;      /* of the first difference: index in the trace, */
    char expected[OOM_REPLAY_TEXT], got[OOM_REPLAY_TEXT];                /* "" when there is none */
    uint64_t peak_reserved, peak_allocated, end_allocated, end_reserved; /* of the model */
    char settings_notes[OOM_REPLAY_TEXT]; /* what was odd about the recorded settings */
    uint64_t ooms, last_oom;              /* out-of-memory errors recorded; the event of the last */
    uint64_t seen_capacity; /* most that was reserved and free on the card at one of them: it has
                               this much for this allocator; 0: there was none */
};

/* False: a log of requests only, such as RMM's: there are no decisions to compare. */
bool oom_replay_has_segments(const struct oom_snapshot *snapshot, uint64_t device);

enum oom_status oom_replay_verify(const struct oom_snapshot *snapshot,
                                  const struct oom_replay_options *options,
                                  struct oom_replay_verdict *out);

/* ---- what if ---- */

#define OOM_REPLAY_UNLIMITED (UINT64_C(1) << 60)

struct oom_replay_outcome {
    bool fits;
    uint64_t failed_event; /* of the first OOM: index in the trace */
    struct oom_report oom; /* and the report of it */
    uint64_t peak_live;    /* bytes of live blocks, each rounded to 512: no allocator needs less */
    uint64_t peak_allocated, peak_reserved;
    uint64_t device_calls; /* alloc, free, map and unmap */
    uint64_t retries;
    struct oom_fragmentation fragmentation; /* at the OOM, or at the end */
};

/* The recording's requests under other settings on a card of `capacity` bytes. The start state is
 * laid out anew by the model's own rules (allocated largest segment first would lie): blocks that
 * were live at the start are requested in the order of their addresses. */
enum oom_status oom_replay_what_if(const struct oom_snapshot *snapshot,
                                   const struct oom_replay_options *options, uint64_t capacity,
                                   struct oom_replay_outcome *out);

/* The smallest capacity (a multiple of 2 MiB) at which the run fits, by bisection; a run may fit at
 * one capacity and not at a larger one, so every multiple within 64 MiB below is tried too. */
enum oom_status oom_replay_least(const struct oom_snapshot *snapshot,
                                 const struct oom_replay_options *options, uint64_t *capacity);

#endif
