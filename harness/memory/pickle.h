/*
 * pickle.h: reads a pickle of protocol 2 to 5 as plain data: dict, list, tuple, str, int, float,
 * bool, None. Nothing is ever called: opcodes that name a class or a function are refused.
 *
 * The machine borrows the bytes (texts are places in them) and owns everything else until
 * oom_pickle_free. Memory is proportional to the bytes: values are 16 bytes each, memo references
 * share them, and nothing in here walks the graph, so cycles are harmless. Whoever walks it must
 * bound the walk by its own schema. Bad input is OOM_USAGE with name, byte and opcode.
 *
 * Large recordings are lists of small dicts, so a client may take a container's contents as they
 * arrive (oom_pickle_batch) and keep a number in their place: the tree then stays small.
 */
#ifndef OOM_HARNESS_MEMORY_PICKLE_H
#define OOM_HARNESS_MEMORY_PICKLE_H

#include "kernels/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    OOM_PICKLE_DEPTH_MAX = 64, /* containers within containers, and marks within marks */
    OOM_PICKLE_WORDS = 255     /* that a client may know */
};

enum oom_pickle_kind {
    OOM_PICKLE_UNSET, /* a memo entry that nobody wrote; never seen by clients */
    OOM_PICKLE_NONE,
    OOM_PICKLE_BOOL,
    OOM_PICKLE_INT,  /* within int64 */
    OOM_PICKLE_UINT, /* above it, within uint64 */
    OOM_PICKLE_BIG,  /* an integer beyond both */
    OOM_PICKLE_FLOAT,
    OOM_PICKLE_TEXT,
    OOM_PICKLE_PAIR, /* a tuple of two integers below 2^32: first << 32 | second */
    OOM_PICKLE_TUPLE,
    OOM_PICKLE_LIST,
    OOM_PICKLE_DICT,
};

struct oom_pickle_value {
    uint8_t kind;
    uint8_t word;    /* text: 1 + its index among the client's words, 0: none of them */
    uint32_t length; /* text: bytes */
    union {
        int64_t i;     /* BOOL, INT */
        uint64_t u;    /* UINT, PAIR; TEXT: its first byte; containers: their number */
        double number; /* FLOAT */
    };
};

struct oom_pickle_object {
    uint64_t first; /* of its items; what the client put there where `taken` */
    uint32_t count; /* items; a dict has two for each key */
    uint32_t room;
    uint64_t offset : 48; /* of the opcode that made it */
    uint64_t depth : 8;   /* 1: holds no container */
    uint64_t kind : 4;
    uint64_t taken : 4; /* the client's, by its own numbers; 0: the items are here */
};

struct oom_pickle;

/* Sees every batch of items before a list or dict takes it. To keep the batch itself the client
 * sets object->taken and object->first (then, and in every later batch of that object, nothing is
 * stored); else it leaves the object alone. `items` are valid during the call. */
typedef enum oom_status oom_pickle_batch(void *context, struct oom_pickle *pickle,
                                         struct oom_pickle_object *object,
                                         const struct oom_pickle_value *items, uint64_t count);

struct oom_pickle {
    const char *name; /* for messages */
    const uint8_t *bytes;
    uint64_t size;
    const char *const *words;
    int word_count;
    oom_pickle_batch *batch;
    void *context;
    struct oom_pickle_value root;

    /* ---- private ---- */
    uint64_t at, limit, frame_end; /* limit: of the frame, else of the bytes */
    uint64_t opcode_at;
    struct oom_pickle_value *stack, *memo, *items;
    uint64_t stack_used, stack_room, items_used, items_room;
    uint64_t memo_end, memo_count, memo_room; /* entries below the end may be unset */
    struct oom_pickle_object *objects;
    uint64_t object_count, object_room;
    uint64_t marks[OOM_PICKLE_DEPTH_MAX];
    int mark_count;
    uint8_t word_slots[1024];
};

/* `words` are texts that the client compares by number; `batch` may be NULL. On failure there is
 * nothing to free. */
enum oom_status oom_pickle_parse(struct oom_pickle *pickle, const char *name, const void *bytes,
                                 uint64_t size, const char *const *words, int word_count,
                                 oom_pickle_batch *batch, void *context);
void oom_pickle_free(struct oom_pickle *pickle);

static inline struct oom_pickle_object *oom_pickle_object(const struct oom_pickle *pickle,
                                                          const struct oom_pickle_value *value) {
    return value->kind >= OOM_PICKLE_TUPLE ? &pickle->objects[value->u] : NULL;
}
static inline const struct oom_pickle_value *
oom_pickle_items(const struct oom_pickle *pickle, const struct oom_pickle_object *object) {
    return object->count > 0 ? pickle->items + object->first : NULL;
}
static inline const char *oom_pickle_text(const struct oom_pickle *pickle,
                                          const struct oom_pickle_value *value) {
    return (const char *)pickle->bytes + value->u;
}
/* Of an opcode that is not read; *calls: it names a class or calls a function. NULL: no opcode. */
const char *oom_pickle_opcode_name(uint8_t opcode, bool *calls);
/* "a list", "-3", "'alloc'": for messages. Returns out. */
const char *oom_pickle_describe(const struct oom_pickle *pickle,
                                const struct oom_pickle_value *value, char *out, size_t n);

#endif
