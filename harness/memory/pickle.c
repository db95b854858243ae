#include "harness/memory/pickle.h"

#include "harness/memory/grow.h"
#include "kernels/hostmem.h"

#include <inttypes.h>
#include <string.h>

enum { VERSION_MIN = 2, VERSION_MAX = 5, PADDING_MAX = 3 };

/* Every opcode that is read: id, byte, bytes of its argument. */
#define OPCODE_MAP(X) \
    X(PROTO, 0x80, 1) \
    X(FRAME, 0x95, 8) \
    X(STOP, '.', 0) \
    X(MARK, '(', 0) \
    X(EMPTY_DICT, '}', 0) \
    X(SETITEMS, 'u', 0) \
    X(SETITEM, 's', 0) \
    X(DICT, 'd', 0) \
    X(EMPTY_LIST, ']', 0) \
    X(APPENDS, 'e', 0) \
    X(APPEND, 'a', 0) \
    X(LIST, 'l', 0) \
    X(EMPTY_TUPLE, ')', 0) \
    X(TUPLE1, 0x85, 0) \
    X(TUPLE2, 0x86, 0) \
    X(TUPLE3, 0x87, 0) \
    X(TUPLE, 't', 0) \
    X(SHORT_BINUNICODE, 0x8c, 1) \
    X(BINUNICODE, 'X', 4) \
    X(BINUNICODE8, 0x8d, 8) \
    X(MEMOIZE, 0x94, 0) \
    X(BINPUT, 'q', 1) \
    X(LONG_BINPUT, 'r', 4) \
    X(BINGET, 'h', 1) \
    X(LONG_BINGET, 'j', 4) \
    X(BININT1, 'K', 1) \
    X(BININT2, 'M', 2) \
    X(BININT, 'J', 4) \
    X(LONG1, 0x8a, 1) \
    X(BINFLOAT, 'G', 8) \
    X(NONE, 'N', 0) \
    X(NEWTRUE, 0x88, 0) \
    X(NEWFALSE, 0x89, 0)

enum opcode {
#define X(id, byte, bytes) OP_##id = (byte),
    OPCODE_MAP(X)
#undef X
};

/* 1 + the bytes of the argument; 0: not read. */
static const uint8_t argument_room[256] = {
#define X(id, byte, bytes) [byte] = (bytes) + 1,
    OPCODE_MAP(X)
#undef X
};

static enum oom_status refuse(const struct oom_pickle *p, const char *text) {
    return oom_fail(OOM_USAGE, "%.80s: byte %" PRIu64 ": %s", p->name, p->opcode_at, text);
}

/* `array` with room for `need` elements, or NULL with the failure recorded; the old one is then
 * still there. */
static void *grown(const struct oom_pickle *p, void *array, uint64_t *room, uint64_t need,
                   size_t each) {
    void *out = oom_grown(array, room, need, each);
    if (out == NULL) {
        oom_fail(OOM_HOST_NOMEM, "%.80s: byte %" PRIu64 ": no host memory for its values", p->name,
                 p->opcode_at);
    }
    return out;
}

/* ---- words ---- */

static uint32_t word_hash(const uint8_t *text, uint32_t length) {
    return (length * 67u + text[0] * 31u + text[length / 2] * 7u + text[length - 1] * 3u) & 1023;
}

static void words_enter(struct oom_pickle *p) {
    for (int i = 0; i < p->word_count; i++) {
        uint32_t slot = word_hash((const uint8_t *)p->words[i], (uint32_t)strlen(p->words[i]));
        while (p->word_slots[slot] != 0) slot = (slot + 1) & 1023;
        p->word_slots[slot] = (uint8_t)(i + 1);
    }
}

static uint8_t word_find(const struct oom_pickle *p, const uint8_t *text, uint32_t length) {
    if (length == 0 || length > 63) return 0;
    for (uint32_t slot = word_hash(text, length);; slot = (slot + 1) & 1023) {
        uint8_t word = p->word_slots[slot];
        if (word == 0) return 0;
        const char *known = p->words[word - 1];
        if (strlen(known) == length && memcmp(known, text, length) == 0) return word;
    }
}

/* ---- stack and memo ---- */

static inline struct oom_pickle_value *push(struct oom_pickle *p, enum oom_pickle_kind kind) {
    struct oom_pickle_value *value = &p->stack[p->stack_used++];
    *value = (struct oom_pickle_value){.kind = (uint8_t)kind};
    return value;
}

/* Values above the last mark: what an opcode may use. */
static inline uint64_t reach(const struct oom_pickle *p) {
    return p->stack_used - (p->mark_count > 0 ? p->marks[p->mark_count - 1] : 0);
}

static enum oom_status memo_put(struct oom_pickle *p, uint64_t index) {
    if (reach(p) == 0) return refuse(p, "nothing on the stack to remember");
    /* Writers number consecutively, and no entry takes less than a byte to write. */
    if (index > p->opcode_at) return refuse(p, "a memo number beyond what the file can hold");
    if (index >= p->memo_room) {
        void *memo = grown(p, p->memo, &p->memo_room, index + 1, sizeof *p->memo);
        if (memo == NULL) return OOM_HOST_NOMEM;
        p->memo = memo;
    }
    while (p->memo_end <= index) p->memo[p->memo_end++].kind = OOM_PICKLE_UNSET;
    if (p->memo[index].kind == OOM_PICKLE_UNSET) p->memo_count++;
    p->memo[index] = p->stack[p->stack_used - 1];
    return OOM_OK;
}

static inline enum oom_status memo_get(struct oom_pickle *p, uint64_t index) {
    if (index >= p->memo_end || p->memo[index].kind == OOM_PICKLE_UNSET)
        return refuse(p, "a reference to a memo entry that was not written");
    p->stack[p->stack_used++] = p->memo[index];
    return OOM_OK;
}

static enum oom_status mark_pop(struct oom_pickle *p, uint64_t *from) {
    if (p->mark_count == 0) return refuse(p, "this opcode needs a MARK, and there is none");
    *from = p->marks[--p->mark_count];
    return OOM_OK;
}

/* ---- containers ---- */

static enum oom_status object_push(struct oom_pickle *p, enum oom_pickle_kind kind) {
    if (p->object_count == p->object_room) {
        void *objects =
            grown(p, p->objects, &p->object_room, p->object_count + 1, sizeof *p->objects);
        if (objects == NULL) return OOM_HOST_NOMEM;
        p->objects = objects;
    }
    p->objects[p->object_count] = (struct oom_pickle_object){
        .offset = p->opcode_at & 0xffffffffffff, .depth = 1, .kind = (uint64_t)kind & 15};
    push(p, kind)->u = p->object_count++;
    return OOM_OK;
}

static enum oom_status room_take(struct oom_pickle *p, struct oom_pickle_object *object,
                                 uint64_t count) {
    uint64_t need = object->count + count;
    if (need > UINT32_MAX) return refuse(p, "more than 2^32 items in one container");
    if (need <= object->room) return OOM_OK;
    bool last = object->first + object->room == p->items_used;
    uint64_t first = last ? object->first : p->items_used;
    uint64_t room = last || object->count == 0 ? need : need + object->count;
    if (room > UINT32_MAX) room = UINT32_MAX;
    if (first + room > p->items_room) {
        void *items = grown(p, p->items, &p->items_room, first + room, sizeof *p->items);
        if (items == NULL) return OOM_HOST_NOMEM;
        p->items = items;
    }
    if (!last && object->count > 0)
        memcpy(p->items + first, p->items + object->first, object->count * sizeof *p->items);
    object->first = first;
    object->room = (uint32_t)room;
    p->items_used = first + room;
    return OOM_OK;
}

/* Containers are as deep as their deepest item was when it came in. */
static enum oom_status depth_raise(struct oom_pickle *p, struct oom_pickle_object *object,
                                   const struct oom_pickle_value *items, uint64_t count) {
    unsigned deepest = object->depth;
    for (uint64_t i = 0; i < count; i++) {
        const struct oom_pickle_object *item = oom_pickle_object(p, &items[i]);
        if (item != NULL && item != object && item->depth >= deepest) deepest = item->depth + 1u;
    }
    if (deepest > OOM_PICKLE_DEPTH_MAX) return refuse(p, "containers nested deeper than 64 levels");
    object->depth = deepest & 255;
    return OOM_OK;
}

static enum oom_status keys_check(const struct oom_pickle *p, const struct oom_pickle_value *items,
                                  uint64_t count) {
    if (count % 2 != 0) return refuse(p, "a key without a value");
    for (uint64_t i = 0; i < count; i += 2) {
        if (items[i].kind >= OOM_PICKLE_LIST) return refuse(p, "a list or dict as a key");
    }
    return OOM_OK;
}

/* The topmost `count` values go into the container below them (`kind` says which it must be). */
static enum oom_status batch_store(struct oom_pickle *p, enum oom_pickle_kind kind,
                                   uint64_t count) {
    if (reach(p) < count + 1) return refuse(p, "fewer values on the stack than this opcode takes");
    const struct oom_pickle_value *items = p->stack + p->stack_used - count;
    struct oom_pickle_object *object = oom_pickle_object(p, items - 1);
    if (object == NULL || object->kind != kind)
        return refuse(p, kind == OOM_PICKLE_DICT ? "items are set in what is no dict"
                                                 : "items are appended to what is no list");
    if (count == 0) return OOM_OK;
    if (kind == OOM_PICKLE_DICT) OOM_TRY(keys_check(p, items, count));
    if (p->batch != NULL) {
        OOM_TRY(p->batch(p->context, p, object, items, count));
    }
    if (object->taken == 0) {
        OOM_TRY(depth_raise(p, object, items, count));
        OOM_TRY(room_take(p, object, count));
        memcpy(p->items + object->first + object->count, items, count * sizeof *items);
        object->count += (uint32_t)count;
    }
    p->stack_used -= count;
    return OOM_OK;
}

static enum oom_status marked_store(struct oom_pickle *p, enum oom_pickle_kind kind) {
    uint64_t from = 0;
    OOM_TRY(mark_pop(p, &from));
    return batch_store(p, kind, p->stack_used - from);
}

static inline bool half(const struct oom_pickle_value *value) {
    return value->kind == OOM_PICKLE_INT && (uint64_t)value->i <= UINT32_MAX;
}

/* The topmost `count` values become one container of their own. */
static enum oom_status gather(struct oom_pickle *p, enum oom_pickle_kind kind, uint64_t count) {
    if (reach(p) < count) return refuse(p, "fewer values on the stack than this opcode takes");
    struct oom_pickle_value *items = p->stack + p->stack_used - count;
    if (kind == OOM_PICKLE_TUPLE && count == 2 && half(&items[0]) && half(&items[1])) {
        items->u = (uint64_t)items[0].i << 32 | (uint64_t)items[1].i;
        items->kind = OOM_PICKLE_PAIR;
        p->stack_used--;
        return OOM_OK;
    }
    if (p->stack_used == p->stack_room) {
        void *stack = grown(p, p->stack, &p->stack_room, p->stack_used + 1, sizeof *p->stack);
        if (stack == NULL) return OOM_HOST_NOMEM;
        p->stack = stack;
    }
    uint64_t from = p->stack_used - count;
    OOM_TRY(object_push(p, kind));
    struct oom_pickle_value made = p->stack[--p->stack_used];
    memmove(p->stack + from + 1, p->stack + from, count * sizeof *p->stack);
    p->stack[from] = made;
    p->stack_used++;
    if (kind != OOM_PICKLE_TUPLE) return batch_store(p, kind, count);
    struct oom_pickle_object *object = &p->objects[made.u];
    OOM_TRY(depth_raise(p, object, p->stack + from + 1, count));
    OOM_TRY(room_take(p, object, count));
    if (count > 0) memcpy(p->items + object->first, p->stack + from + 1, count * sizeof *p->items);
    object->count = (uint32_t)count;
    p->stack_used -= count;
    return OOM_OK;
}

static enum oom_status marked_gather(struct oom_pickle *p, enum oom_pickle_kind kind) {
    uint64_t from = 0;
    OOM_TRY(mark_pop(p, &from));
    return gather(p, kind, p->stack_used - from);
}

/* ---- scalars ---- */

static enum oom_status text_push(struct oom_pickle *p, uint64_t length) {
    if (length > p->limit - p->at)
        return oom_fail(OOM_USAGE,
                        "%.80s: byte %" PRIu64 ": a text of %" PRIu64 " bytes, and %" PRIu64
                        " are left",
                        p->name, p->opcode_at, length, p->limit - p->at);
    if (length > UINT32_MAX) return refuse(p, "a text of more than 4 GiB");
    struct oom_pickle_value *value = push(p, OOM_PICKLE_TEXT);
    value->u = p->at;
    value->length = (uint32_t)length;
    value->word = word_find(p, p->bytes + p->at, (uint32_t)length);
    p->at += length;
    return OOM_OK;
}

/* Little-endian two's complement of any width; none at all is 0. */
static enum oom_status long_push(struct oom_pickle *p, uint64_t length) {
    if (length > p->limit - p->at) return refuse(p, "the file ends within an integer");
    const uint8_t *bytes = p->bytes + p->at;
    p->at += length;
    struct oom_pickle_value *value = push(p, OOM_PICKLE_INT);
    bool negative = length > 0 && bytes[length - 1] >= 0x80;
    uint8_t fill = negative ? 0xff : 0;
    uint64_t bits = negative ? UINT64_MAX : 0;
    for (uint64_t i = length < 8 ? length : 8; i-- > 0;) bits = bits << 8 | bytes[i];
    value->u = bits;
    for (uint64_t i = 8; i < length; i++) {
        if (bytes[i] != fill) value->kind = OOM_PICKLE_BIG;
    }
    if (value->kind == OOM_PICKLE_INT && (bits >> 63 != 0) != negative)
        value->kind = negative ? OOM_PICKLE_BIG : OOM_PICKLE_UINT;
    return OOM_OK;
}

static void float_push(struct oom_pickle *p, uint64_t little) {
    uint64_t big = __builtin_bswap64(little);
    memcpy(&push(p, OOM_PICKLE_FLOAT)->number, &big, sizeof big);
}

/* ---- the machine ---- */

static enum oom_status frame_enter(struct oom_pickle *p, uint64_t length) {
    if (p->frame_end != 0) return refuse(p, "a FRAME within a FRAME");
    if (length > p->size - p->at)
        return oom_fail(OOM_USAGE,
                        "%.80s: byte %" PRIu64 ": a FRAME of %" PRIu64 " bytes, and %" PRIu64
                        " are left",
                        p->name, p->opcode_at, length, p->size - p->at);
    if (length == 0) return OOM_OK;
    p->frame_end = p->limit = p->at + length;
    return OOM_OK;
}

static enum oom_status opcode_refuse(const struct oom_pickle *p, uint8_t opcode) {
    bool calls;
    const char *name = oom_pickle_opcode_name(opcode, &calls);
    if (name != NULL && calls)
        return oom_fail(OOM_USAGE,
                        "%.80s: byte %" PRIu64 ": the opcode %s names a class or calls a function; "
                        "only plain data is read",
                        p->name, p->opcode_at, name);
    if (name != NULL)
        return oom_fail(OOM_USAGE,
                        "%.80s: byte %" PRIu64 ": the opcode %s occurs in no snapshot; protocols "
                        "2 to 5 of dict, list, tuple, str and numbers are read",
                        p->name, p->opcode_at, name);
    return oom_fail(OOM_USAGE, "%.80s: byte %" PRIu64 ": 0x%02x is no opcode", p->name,
                    p->opcode_at, opcode);
}

static enum oom_status stop(struct oom_pickle *p) {
    if (p->mark_count != 0) return refuse(p, "STOP, and a MARK is still open");
    if (p->stack_used != 1) {
        return oom_fail(OOM_USAGE,
                        "%.80s: byte %" PRIu64 ": STOP with %" PRIu64 " values; one is expected",
                        p->name, p->opcode_at, p->stack_used);
    }
    if (p->frame_end != 0 && p->at != p->frame_end)
        return refuse(p, "STOP before the end of its FRAME");
    uint64_t left = p->size - p->at; /* viewers pad with zeros before they encode */
    for (uint64_t i = 0; i < left && left <= PADDING_MAX; i++) {
        if (p->bytes[p->at + i] != 0) left = PADDING_MAX + 1;
    }
    if (left > PADDING_MAX)
        return oom_fail(OOM_USAGE, "%.80s: byte %" PRIu64 ": bytes after the end of the pickle",
                        p->name, p->at);
    p->root = p->stack[0];
    return OOM_OK;
}

static enum oom_status obey(struct oom_pickle *p, uint8_t opcode, uint64_t argument) {
    switch ((enum opcode)opcode) {
    case OP_PROTO:
        return refuse(p, "PROTO may only stand at the beginning");
    case OP_FRAME:
        return frame_enter(p, argument);
    case OP_STOP:
        return stop(p);
    case OP_MARK:
        if (p->mark_count == OOM_PICKLE_DEPTH_MAX)
            return refuse(p, "marks nested deeper than 64 levels");
        p->marks[p->mark_count++] = p->stack_used;
        return OOM_OK;
    case OP_EMPTY_DICT:
        return object_push(p, OOM_PICKLE_DICT);
    case OP_EMPTY_LIST:
        return object_push(p, OOM_PICKLE_LIST);
    case OP_SETITEMS:
        return marked_store(p, OOM_PICKLE_DICT);
    case OP_APPENDS:
        return marked_store(p, OOM_PICKLE_LIST);
    case OP_SETITEM:
        return batch_store(p, OOM_PICKLE_DICT, 2);
    case OP_APPEND:
        return batch_store(p, OOM_PICKLE_LIST, 1);
    case OP_DICT:
        return marked_gather(p, OOM_PICKLE_DICT);
    case OP_LIST:
        return marked_gather(p, OOM_PICKLE_LIST);
    case OP_TUPLE:
        return marked_gather(p, OOM_PICKLE_TUPLE);
    case OP_EMPTY_TUPLE:
        return gather(p, OOM_PICKLE_TUPLE, 0);
    case OP_TUPLE1:
        return gather(p, OOM_PICKLE_TUPLE, 1);
    case OP_TUPLE2:
        return gather(p, OOM_PICKLE_TUPLE, 2);
    case OP_TUPLE3:
        return gather(p, OOM_PICKLE_TUPLE, 3);
    case OP_SHORT_BINUNICODE:
    case OP_BINUNICODE:
    case OP_BINUNICODE8:
        return text_push(p, argument);
    case OP_MEMOIZE:
        return memo_put(p, p->memo_count);
    case OP_BINPUT:
    case OP_LONG_BINPUT:
        return memo_put(p, argument);
    case OP_BINGET:
    case OP_LONG_BINGET:
        return memo_get(p, argument);
    case OP_BININT1:
    case OP_BININT2:
        push(p, OOM_PICKLE_INT)->u = argument;
        return OOM_OK;
    case OP_BININT:
        push(p, OOM_PICKLE_INT)->i = (int32_t)(uint32_t)argument;
        return OOM_OK;
    case OP_LONG1:
        return long_push(p, argument);
    case OP_BINFLOAT:
        float_push(p, argument);
        return OOM_OK;
    case OP_NONE:
        push(p, OOM_PICKLE_NONE);
        return OOM_OK;
    case OP_NEWTRUE:
        push(p, OOM_PICKLE_BOOL)->i = 1;
        return OOM_OK;
    case OP_NEWFALSE:
        push(p, OOM_PICKLE_BOOL);
        return OOM_OK;
    }
    return opcode_refuse(p, opcode);
}

static inline uint64_t argument_load(const uint8_t *bytes, unsigned width) {
    uint64_t value = 0;
    if (width == 1) return bytes[0];
    if (width == 2) return bytes[0] | (uint64_t)bytes[1] << 8;
    for (unsigned i = width; i-- > 0;) value = value << 8 | bytes[i];
    return value;
}

static enum oom_status run(struct oom_pickle *p) {
    for (;;) {
        p->opcode_at = p->at;
        if (p->at == p->limit) {
            if (p->frame_end == 0 || p->limit == p->size)
                return refuse(p, "the file ends before STOP");
            p->frame_end = 0;
            p->limit = p->size;
        }
        uint8_t opcode = p->bytes[p->at++];
        unsigned width = argument_room[opcode];
        if (width-- == 0) return opcode_refuse(p, opcode);
        if (p->limit - p->at < width) {
            return refuse(p, p->frame_end != 0 ? "its FRAME ends within an opcode"
                                               : "the file ends within an opcode");
        }
        uint64_t argument = argument_load(p->bytes + p->at, width);
        p->at += width;
        if (p->stack_used == p->stack_room) {
            void *stack = grown(p, p->stack, &p->stack_room, p->stack_used + 1, sizeof *p->stack);
            if (stack == NULL) return OOM_HOST_NOMEM;
            p->stack = stack;
        }
        OOM_TRY(obey(p, opcode, argument));
        if (opcode == OP_STOP) return OOM_OK;
    }
}

static enum oom_status begin(struct oom_pickle *p) {
    if (p->size < 2 || p->bytes[0] != OP_PROTO)
        return refuse(p, "no pickle: it does not begin with PROTO (0x80)");
    if (p->bytes[1] < VERSION_MIN || p->bytes[1] > VERSION_MAX)
        return oom_fail(OOM_USAGE, "%.80s: byte 1: pickle protocol %u; 2 to 5 are read", p->name,
                        p->bytes[1]);
    p->at = 2;
    p->limit = p->size;
    return OOM_OK;
}

enum oom_status oom_pickle_parse(struct oom_pickle *pickle, const char *name, const void *bytes,
                                 uint64_t size, const char *const *words, int word_count,
                                 oom_pickle_batch *batch, void *context) {
    *pickle = (struct oom_pickle){.name = name,
                                  .bytes = bytes,
                                  .size = size,
                                  .words = words,
                                  .word_count = word_count,
                                  .batch = batch,
                                  .context = context};
    words_enter(pickle);
    enum oom_status status = begin(pickle);
    if (status == OOM_OK) status = run(pickle);
    if (status != OOM_OK) oom_pickle_free(pickle);
    return status;
}

void oom_pickle_free(struct oom_pickle *pickle) {
    oom_host_free(pickle->stack);
    oom_host_free(pickle->memo);
    oom_host_free(pickle->items);
    oom_host_free(pickle->objects);
    pickle->stack = pickle->memo = pickle->items = NULL;
    pickle->objects = NULL;
}
