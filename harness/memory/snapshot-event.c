/*
 * Frames and events of PyTorch's snapshots, taken as the pickle brings them: a recording of a
 * million events is then a million records, and no tree of dicts.
 */
#include "harness/memory/snapshot-pytorch.h"

#include "harness/memory/grow.h"
#include "kernels/hostmem.h"

#include <string.h>

/* ---- frames: the one that tells people most names the allocation ---- */

static bool contains(const char *text, uint32_t bytes, const char *const *needles) {
    for (; *needles != NULL; needles++) {
        if (memmem(text, bytes, *needles, strlen(*needles)) != NULL) return true;
    }
    return false;
}

/* A line of somebody's Python says most; then whatever is not the machinery beneath. */
static uint8_t frame_rank(const struct oom_pickle *pickle, const struct oom_pytorch_frame *frame) {
    static const char *const machinery[] = {
        "??",          "unwind", "CapturedTraceback", "PyEval_",          "PyObject_",
        "PyFunction_", "_start", "libc_start",        "CachingAllocator", NULL};
    const char *name = (const char *)pickle->bytes + frame->name;
    const char *file = (const char *)pickle->bytes + frame->file;
    if (frame->file_bytes >= 3 && memcmp(file + frame->file_bytes - 3, ".py", 3) == 0) return 3;
    if (frame->name_bytes == 0) return 1;
    return contains(name, frame->name_bytes, machinery) ? 1 : 2;
}

static enum oom_status frame_take(struct oom_pytorch_reader *reader,
                                  struct oom_pickle_object *object,
                                  const struct oom_pytorch_fields *fields) {
    const struct oom_pickle_value *name = fields->at[OOM_WORD_NAME];
    const struct oom_pickle_value *file = fields->at[OOM_WORD_FILENAME];
    const struct oom_pickle_value *line = fields->at[OOM_WORD_LINE];
    if (name->kind != OOM_PICKLE_TEXT || file->kind != OOM_PICKLE_TEXT) return OOM_OK;
    if (reader->frame_count == reader->frame_room) {
        void *frames = oom_grown(reader->frames, &reader->frame_room, reader->frame_count + 1,
                                 sizeof *reader->frames);
        if (frames == NULL)
            return oom_fail(OOM_HOST_NOMEM, "%.80s: no host memory for its frames",
                            reader->build.name);
        reader->frames = frames;
    }
    struct oom_pytorch_frame frame = {
        .name = name->u, .name_bytes = name->length, .file = file->u, .file_bytes = file->length};
    if (line != NULL && line->kind == OOM_PICKLE_INT) frame.line = line->i;
    frame.rank = frame_rank(&reader->pickle, &frame);
    object->taken = OOM_TAKEN_FRAME;
    object->first = reader->frame_count;
    reader->frames[reader->frame_count++] = frame;
    return OOM_OK;
}

static void frames_take(const struct oom_pytorch_reader *reader, struct oom_pickle_object *object,
                        const struct oom_pickle_value *items, uint64_t count) {
    uint64_t best = object->taken == OOM_TAKEN_FRAMES ? object->first : 0;
    for (uint64_t i = 0; i < count; i++) {
        const struct oom_pickle_object *item = oom_pickle_object(&reader->pickle, &items[i]);
        if (item == NULL || item->taken != OOM_TAKEN_FRAME) continue;
        if (best == 0 || reader->frames[item->first].rank > reader->frames[best - 1].rank)
            best = item->first + 1;
    }
    object->taken = OOM_TAKEN_FRAMES;
    object->first = best;
}

enum oom_status oom_pytorch_site(struct oom_pytorch_reader *reader,
                                 const struct oom_pickle_value *frames, uint32_t *out) {
    *out = 0;
    const struct oom_pickle_object *list =
        frames != NULL ? oom_pickle_object(&reader->pickle, frames) : NULL;
    if (list == NULL || list->taken != OOM_TAKEN_FRAMES || list->first == 0) return OOM_OK;
    struct oom_pytorch_frame *frame = &reader->frames[list->first - 1];
    if (frame->site == 0) {
        const char *bytes = (const char *)reader->pickle.bytes;
        char text[OOM_SNAPSHOT_SITE];
        size_t n = oom_site_compose(bytes + frame->name, frame->name_bytes, bytes + frame->file,
                                    frame->file_bytes, frame->line, text);
        uint32_t site;
        OOM_TRY(oom_build_site(&reader->build, text, n, &site));
        frame->site = site + 1;
    }
    *out = frame->site - 1;
    return OOM_OK;
}

/* ---- events ---- */

/* The first key whose value cannot be, or OOM_WORD_NONE. */
static enum oom_pytorch_word event_fill(const struct oom_pytorch_reader *reader,
                                        const struct oom_pytorch_fields *fields,
                                        struct oom_snapshot_event *event,
                                        struct oom_pool_id *pool) {
    const struct oom_pickle_value *action = fields->at[OOM_WORD_ACTION];
    if (action == NULL || action->kind != OOM_PICKLE_TEXT) return OOM_WORD_ACTION;
    event->action = action->word > OOM_WORD_ACTIONS - 1 ? (uint8_t)(action->word - OOM_WORD_ACTIONS)
                                                        : (uint8_t)OOM_ACTION_UNKNOWN;
    if (event->action == OOM_ACTION_UNKNOWN) return OOM_WORD_NONE;
    enum oom_pytorch_word place = OOM_WORD_ADDR;
    if (event->action == OOM_ACTION_OOM && fields->at[OOM_WORD_DEVICE_FREE] != NULL)
        place = OOM_WORD_DEVICE_FREE;
    if (!oom_pytorch_uint(fields->at[place], &event->address)) return place;
    if (!oom_pytorch_uint(fields->at[OOM_WORD_SIZE], &event->bytes)) return OOM_WORD_SIZE;
    /* Older recordings lack these. */
    const struct oom_pickle_value *stream = fields->at[OOM_WORD_STREAM];
    const struct oom_pickle_value *time = fields->at[OOM_WORD_TIME_US];
    const struct oom_pickle_value *pool_id = fields->at[OOM_WORD_POOL_ID];
    if (stream != NULL && !oom_pytorch_uint(stream, &event->stream)) return OOM_WORD_STREAM;
    if (time != NULL && !oom_pytorch_uint(time, &event->time_us)) return OOM_WORD_TIME_US;
    if (pool_id != NULL && !oom_pytorch_pool(reader, pool_id, pool)) return OOM_WORD_POOL_ID;
    return OOM_WORD_NONE;
}

static enum oom_status event_add(struct oom_pytorch_reader *reader,
                                 const struct oom_pytorch_fields *fields,
                                 struct oom_snapshot_event *event, struct oom_pool_id pool) {
    OOM_TRY(oom_build_pool(&reader->build, pool, &event->pool));
    OOM_TRY(oom_pytorch_site(reader, fields->at[OOM_WORD_FRAMES], &event->site));
    return oom_build_event(&reader->build, event);
}

/* An event that cannot be is left where it is: only device_traces makes it a mistake. */
static enum oom_status event_take(struct oom_pytorch_reader *reader,
                                  struct oom_pickle_object *object,
                                  const struct oom_pytorch_fields *fields) {
    struct oom_snapshot_event event = {0};
    struct oom_pool_id pool = {0, 0};
    if (event_fill(reader, fields, &event, &pool) != OOM_WORD_NONE) return OOM_OK;
    object->taken = OOM_TAKEN_EVENT;
    object->first = reader->build.out.event_count;
    return event_add(reader, fields, &event, pool);
}

enum oom_status oom_pytorch_batch(void *context, struct oom_pickle *pickle,
                                  struct oom_pickle_object *object,
                                  const struct oom_pickle_value *items, uint64_t count) {
    struct oom_pytorch_reader *reader = context;
    reader->build.at = pickle->opcode_at;
    if (object->kind == OOM_PICKLE_LIST) {
        const struct oom_pickle_object *item = oom_pickle_object(pickle, &items[0]);
        bool frame = item != NULL && item->taken == OOM_TAKEN_FRAME && object->count == 0;
        if (frame || object->taken != 0) frames_take(reader, object, items, count);
        return OOM_OK;
    }
    if (object->taken != 0)
        return oom_build_fail(&reader->build, "%s", "a finished dict is given more items");
    if (object->count != 0 || count > 2 * OOM_PYTORCH_KEYS_MAX) return OOM_OK;
    struct oom_pytorch_fields fields = {0};
    for (uint64_t i = 0; i < count; i += 2) {
        uint8_t word = items[i].kind == OOM_PICKLE_TEXT ? items[i].word : 0;
        if (word != 0 && word < OOM_WORD_ACTIONS) fields.at[word] = &items[i + 1];
    }
    if (fields.at[OOM_WORD_ACTION] != NULL) return event_take(reader, object, &fields);
    if (fields.at[OOM_WORD_NAME] != NULL && fields.at[OOM_WORD_FILENAME] != NULL)
        return frame_take(reader, object, &fields);
    return OOM_OK;
}

/* ---- device_traces ---- */

/* A dict that was not taken as it came: now it must be an event. */
static enum oom_status event_convert(struct oom_pytorch_reader *reader, const char *what,
                                     const struct oom_pickle_value *item,
                                     struct oom_snapshot_event *event) {
    static const char *const wanted[] = {
        [OOM_WORD_ACTION] = "a text", [OOM_WORD_POOL_ID] = "a tuple of two whole numbers"};
    struct oom_pytorch_fields fields;
    struct oom_pool_id pool = {0, 0};
    OOM_TRY(oom_pytorch_fields(reader, what, item, &fields));
    enum oom_pytorch_word bad = event_fill(reader, &fields, event, &pool);
    if (bad != OOM_WORD_NONE) {
        const char *expected = "a whole number from 0";
        if (bad < sizeof wanted / sizeof *wanted && wanted[bad] != NULL) expected = wanted[bad];
        return oom_pytorch_refuse(reader, what, oom_pytorch_words[bad - 1], fields.at[bad],
                                  expected);
    }
    OOM_TRY(oom_build_pool(&reader->build, pool, &event->pool));
    return oom_pytorch_site(reader, fields.at[OOM_WORD_FRAMES], &event->site);
}

static enum oom_status trace_gather(struct oom_pytorch_reader *reader, uint64_t device,
                                    const struct oom_pickle_value *list) {
    struct oom_snapshot *s = &reader->build.out;
    const struct oom_pickle_value *items;
    uint64_t count;
    char what[64];
    snprintf(what, sizeof what, "device_traces[%" PRIu64 "]", device);
    OOM_TRY(oom_pytorch_list(reader, what, list, &items, &count));
    for (uint64_t i = 0; i < count; i++) {
        const struct oom_pickle_object *object = oom_pickle_object(&reader->pickle, &items[i]);
        struct oom_snapshot_event event = {0};
        if (object != NULL && object->taken == OOM_TAKEN_EVENT) {
            event = reader->gathered[object->first];
        } else {
            snprintf(what, sizeof what, "device_traces[%" PRIu64 "][%" PRIu64 "]", device, i);
            OOM_TRY(event_convert(reader, what, &items[i], &event));
        }
        if (event.action != OOM_ACTION_UNKNOWN)
            OOM_TRY(oom_build_event(&reader->build, &event));
        else
            s->events_skipped++;
    }
    return oom_build_trace(&reader->build);
}

/* The usual case: every event was taken in its place, and others (host_traces) after them. */
static bool trace_in_place(const struct oom_pytorch_reader *reader,
                           const struct oom_pickle_value *list, uint64_t *next) {
    const struct oom_snapshot *s = &reader->build.out;
    const struct oom_pickle_object *object = oom_pickle_object(&reader->pickle, list);
    if (object == NULL || object->kind == OOM_PICKLE_DICT || object->taken != 0) return false;
    const struct oom_pickle_value *items = oom_pickle_items(&reader->pickle, object);
    for (uint64_t i = 0; i < object->count; i++) {
        const struct oom_pickle_object *item = oom_pickle_object(&reader->pickle, &items[i]);
        if (item == NULL || item->taken != OOM_TAKEN_EVENT || item->first != *next ||
            s->events[*next].action == OOM_ACTION_UNKNOWN)
            return false;
        ++*next;
    }
    return true;
}

static enum oom_status traces_in_place(struct oom_pytorch_reader *reader,
                                       const struct oom_pickle_value *items, uint64_t count) {
    uint64_t next = 0;
    for (uint64_t d = 0; d < count; d++) {
        if (!trace_in_place(reader, &items[d], &next)) return OOM_NOTHING;
    }
    struct oom_snapshot *s = &reader->build.out;
    s->event_count = 0;
    for (uint64_t d = 0; d < count; d++) {
        s->event_count += oom_pickle_object(&reader->pickle, &items[d])->count;
        OOM_TRY(oom_build_trace(&reader->build));
    }
    return OOM_OK;
}

enum oom_status oom_pytorch_traces(struct oom_pytorch_reader *reader,
                                   const struct oom_pickle_value *value) {
    const struct oom_pickle_value *items = NULL;
    uint64_t count = 0;
    if (value != NULL) OOM_TRY(oom_pytorch_list(reader, "device_traces", value, &items, &count));
    enum oom_status status = traces_in_place(reader, items, count);
    if (status != OOM_NOTHING) return status;
    struct oom_snapshot *s = &reader->build.out;
    reader->gathered = s->events;
    s->events = NULL;
    s->event_count = reader->build.event_room = 0;
    for (uint64_t d = 0; d < count; d++) OOM_TRY(trace_gather(reader, d, &items[d]));
    oom_host_free(reader->gathered);
    reader->gathered = NULL;
    return OOM_OK;
}
