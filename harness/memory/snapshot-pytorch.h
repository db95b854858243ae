/*
 * snapshot-pytorch.h: what the two halves of the reader of PyTorch's snapshots share: frames and
 * events, taken as the pickle brings them (snapshot-event.c), and the rest, read from the finished
 * tree (snapshot-pytorch.c).
 *
 * The reader owns the pickle, the frames and the builder until it is done.
 */
#ifndef OOM_HARNESS_MEMORY_SNAPSHOT_PYTORCH_H
#define OOM_HARNESS_MEMORY_SNAPSHOT_PYTORCH_H

#include "harness/memory/pickle.h"
#include "harness/memory/snapshot-build.h"

/* Keys and words that mean something to us. The actions come after these, in their own order. */
#define OOM_PYTORCH_WORD_MAP(X) \
    X(ACTION, "action") \
    X(ADDR, "addr") \
    X(DEVICE_FREE, "device_free") \
    X(SIZE, "size") \
    X(STREAM, "stream") \
    X(TIME_US, "time_us") \
    X(POOL_ID, "pool_id") \
    X(FRAMES, "frames") \
    X(NAME, "name") \
    X(FILENAME, "filename") \
    X(LINE, "line") \
    X(SEGMENTS, "segments") \
    X(DEVICE_TRACES, "device_traces") \
    X(SETTINGS, "allocator_settings") \
    X(OOMBENCH, "oombench") \
    X(DEVICE, "device") \
    X(ADDRESS, "address") \
    X(TOTAL_SIZE, "total_size") \
    X(ALLOCATED_SIZE, "allocated_size") \
    X(ACTIVE_SIZE, "active_size") \
    X(REQUESTED_SIZE, "requested_size") \
    X(SEGMENT_TYPE, "segment_type") \
    X(SEGMENT_POOL_ID, "segment_pool_id") \
    X(IS_EXPANDABLE, "is_expandable") \
    X(BLOCKS, "blocks") \
    X(STATE, "state") \
    X(HISTORY, "history") \
    X(REAL_SIZE, "real_size") \
    X(SMALL, "small") \
    X(LARGE, "large") \
    X(INACTIVE, "inactive") \
    X(ACTIVE_ALLOCATED, "active_allocated") \
    X(ACTIVE_PENDING_FREE, "active_pending_free") \
    X(ACTIVE_AWAITING_FREE, "active_awaiting_free") \
    X(CONF, "PYTORCH_CUDA_ALLOC_CONF") \
    X(CONF_NEW, "PYTORCH_ALLOC_CONF") \
    X(MAX_SPLIT_SIZE, "max_split_size") \
    X(GC_THRESHOLD, "garbage_collection_threshold") \
    X(EXPANDABLE, "expandable_segments") \
    X(ROUNDUP, "roundup_power2_divisions") \
    X(PROFILE, "profile") \
    X(CAPACITY, "capacity")

enum oom_pytorch_word {
    OOM_WORD_NONE,
#define X(id, text) OOM_WORD_##id,
    OOM_PYTORCH_WORD_MAP(X)
#undef X
        OOM_WORD_ACTIONS /* the first action */
};

extern const char *const oom_pytorch_words[];
extern const int oom_pytorch_word_count;

enum {
    OOM_PYTORCH_KEYS_MAX = 64, /* of a dict that is looked into */
    OOM_TAKEN_EVENT = 1,       /* object->first: index in the builder's events */
    OOM_TAKEN_FRAME = 2,       /* index in the reader's frames */
    OOM_TAKEN_FRAMES = 3,      /* 1 + the index of the frame that names the list, 0: none */
    OOM_ACTION_UNKNOWN = UINT8_MAX
};

/* The values of a dict's known keys, by word; NULL where there is none. */
struct oom_pytorch_fields {
    const struct oom_pickle_value *at[OOM_WORD_ACTIONS];
};

struct oom_pytorch_frame {
    uint64_t name, file; /* their first bytes */
    uint32_t name_bytes, file_bytes;
    int64_t line;
    uint32_t site; /* 1 + its index; 0: not yet made */
    uint8_t rank;  /* how much it says to people */
};

struct oom_pytorch_reader {
    struct oom_pickle pickle;
    struct oom_snapshot_builder build;
    struct oom_pytorch_frame *frames;
    uint64_t frame_count, frame_room;
    uint64_t walked; /* items of lists looked at: shared lists may not multiply the work */
    struct oom_snapshot_event *gathered; /* owned while traces are put in order */
};

/* Fails when the dict has more keys than OOM_PYTORCH_KEYS_MAX, or was taken. `what` is for the
 * message. */
enum oom_status oom_pytorch_fields(struct oom_pytorch_reader *reader, const char *what,
                                   const struct oom_pickle_value *dict,
                                   struct oom_pytorch_fields *out);
/* Of a list or tuple that was not taken. */
enum oom_status oom_pytorch_list(struct oom_pytorch_reader *reader, const char *what,
                                 const struct oom_pickle_value *list,
                                 const struct oom_pickle_value **items, uint64_t *count);
/* "segments[3]: total_size is None; WANTED is expected" */
enum oom_status oom_pytorch_refuse(const struct oom_pytorch_reader *reader, const char *what,
                                   const char *key, const struct oom_pickle_value *value,
                                   const char *wanted);
/* A whole number from 0. */
bool oom_pytorch_uint(const struct oom_pickle_value *value, uint64_t *out);
bool oom_pytorch_pool(const struct oom_pytorch_reader *reader, const struct oom_pickle_value *value,
                      struct oom_pool_id *out);

/* ---- snapshot-event.c ---- */

oom_pickle_batch oom_pytorch_batch;
/* Of a value of "frames"; NULL and what is no list of frames is site 0. */
enum oom_status oom_pytorch_site(struct oom_pytorch_reader *reader,
                                 const struct oom_pickle_value *frames, uint32_t *out);
/* device_traces into the builder, in order. */
enum oom_status oom_pytorch_traces(struct oom_pytorch_reader *reader,
                                   const struct oom_pickle_value *value);

#endif
