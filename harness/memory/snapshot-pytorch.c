/*
 * PyTorch's snapshots: the top level, segments, blocks and settings, read from the finished pickle.
 * Keys that PyTorch may add are not looked at; keys that older versions lack may be absent.
 */
#include "harness/memory/snapshot-pytorch.h"

#include "harness/base/text.h"
#include "harness/memory/snapshot-parts.h"
#include "kernels/hostmem.h"

#include <stdlib.h>
#include <string.h>

const char *const oom_pytorch_words[] = {
#define X(id, text) text,
    OOM_PYTORCH_WORD_MAP(X) OOM_ACTION_MAP(X)
#undef X
};
const int oom_pytorch_word_count = sizeof oom_pytorch_words / sizeof *oom_pytorch_words;

/* ---- values ---- */

bool oom_pytorch_uint(const struct oom_pickle_value *value, uint64_t *out) {
    if (value == NULL) return false;
    if (value->kind != OOM_PICKLE_UINT && (value->kind != OOM_PICKLE_INT || value->i < 0))
        return false;
    *out = value->u;
    return true;
}

bool oom_pytorch_pool(const struct oom_pytorch_reader *reader, const struct oom_pickle_value *value,
                      struct oom_pool_id *out) {
    if (value->kind == OOM_PICKLE_PAIR) {
        *out = (struct oom_pool_id){value->u >> 32, value->u & UINT32_MAX};
        return true;
    }
    const struct oom_pickle_object *object = oom_pickle_object(&reader->pickle, value);
    if (object == NULL || object->kind == OOM_PICKLE_DICT || object->taken != 0) return false;
    const struct oom_pickle_value *items = oom_pickle_items(&reader->pickle, object);
    return object->count == 2 && oom_pytorch_uint(&items[0], &out->a) &&
           oom_pytorch_uint(&items[1], &out->b);
}

enum oom_status oom_pytorch_refuse(const struct oom_pytorch_reader *reader, const char *what,
                                   const char *key, const struct oom_pickle_value *value,
                                   const char *wanted) {
    char found[64] = "not there";
    if (value != NULL) oom_pickle_describe(&reader->pickle, value, found, sizeof found);
    return oom_build_fail(&reader->build, "%s: %s%sis %s; %s is expected", what, key,
                          *key != 0 ? " " : "", found, wanted);
}

enum oom_status oom_pytorch_fields(struct oom_pytorch_reader *reader, const char *what,
                                   const struct oom_pickle_value *dict,
                                   struct oom_pytorch_fields *out) {
    const struct oom_pickle_object *object = oom_pickle_object(&reader->pickle, dict);
    if (object != NULL) reader->build.at = object->offset;
    if (object == NULL || object->kind != OOM_PICKLE_DICT)
        return oom_pytorch_refuse(reader, what, "it", dict, "a dict");
    if (object->taken != 0)
        return oom_build_fail(&reader->build,
                              "%s: it is an event or a frame, which do not belong here", what);
    if (object->count > 2 * OOM_PYTORCH_KEYS_MAX)
        return oom_build_fail(&reader->build, "%s: a dict of %u keys; at most %d are looked at",
                              what, object->count / 2, OOM_PYTORCH_KEYS_MAX);
    *out = (struct oom_pytorch_fields){0};
    const struct oom_pickle_value *items = oom_pickle_items(&reader->pickle, object);
    for (uint32_t i = 0; i < object->count; i += 2) {
        uint8_t word = items[i].kind == OOM_PICKLE_TEXT ? items[i].word : 0;
        if (word != 0 && word < OOM_WORD_ACTIONS) out->at[word] = &items[i + 1];
    }
    return OOM_OK;
}

enum oom_status oom_pytorch_list(struct oom_pytorch_reader *reader, const char *what,
                                 const struct oom_pickle_value *list,
                                 const struct oom_pickle_value **items, uint64_t *count) {
    const struct oom_pickle_object *object =
        list != NULL ? oom_pickle_object(&reader->pickle, list) : NULL;
    if (object == NULL || object->kind == OOM_PICKLE_DICT)
        return oom_pytorch_refuse(reader, what, "it", list, "a list");
    reader->build.at = object->offset;
    if (object->taken != 0)
        return oom_build_fail(&reader->build,
                              "%s: it is a list of frames, which does not belong here", what);
    reader->walked += object->count;
    if (reader->walked > reader->pickle.size)
        return oom_build_fail(&reader->build, "%s: lists are referred to again and again", what);
    *items = oom_pickle_items(&reader->pickle, object);
    *count = object->count;
    return OOM_OK;
}

static enum oom_status uint_read(const struct oom_pytorch_reader *reader, const char *what,
                                 const struct oom_pytorch_fields *fields,
                                 enum oom_pytorch_word word, uint64_t *out) {
    if (oom_pytorch_uint(fields->at[word], out)) return OOM_OK;
    return oom_pytorch_refuse(reader, what, oom_pytorch_words[word - 1], fields->at[word],
                              "a whole number from 0");
}

static enum oom_status uint_read_if(const struct oom_pytorch_reader *reader, const char *what,
                                    const struct oom_pytorch_fields *fields,
                                    enum oom_pytorch_word word, bool *has, uint64_t *out) {
    *has = fields->at[word] != NULL;
    return *has ? uint_read(reader, what, fields, word, out) : OOM_OK;
}

/* Absent: *out stays as it is. */
static enum oom_status bool_read_if(const struct oom_pytorch_reader *reader, const char *what,
                                    const struct oom_pytorch_fields *fields,
                                    enum oom_pytorch_word word, bool *out) {
    const struct oom_pickle_value *value = fields->at[word];
    if (value == NULL) return OOM_OK;
    if (value->kind != OOM_PICKLE_BOOL)
        return oom_pytorch_refuse(reader, what, oom_pytorch_words[word - 1], value,
                                  "True or False");
    *out = value->i != 0;
    return OOM_OK;
}

static bool is_word(const struct oom_pickle_value *value, enum oom_pytorch_word word) {
    return value != NULL && value->kind == OOM_PICKLE_TEXT && value->word == word;
}

/* ---- blocks ---- */

static bool state_read(const struct oom_pickle_value *value, uint8_t *out) {
    if (is_word(value, OOM_WORD_INACTIVE))
        *out = OOM_BLOCK_INACTIVE;
    else if (is_word(value, OOM_WORD_ACTIVE_ALLOCATED))
        *out = OOM_BLOCK_ALLOCATED;
    else if (is_word(value, OOM_WORD_ACTIVE_PENDING_FREE) ||
             is_word(value, OOM_WORD_ACTIVE_AWAITING_FREE))
        *out = OOM_BLOCK_PENDING_FREE;
    else
        return false;
    return true;
}

/* The layout of 2.0: what a block has been used for, the newest first. */
static enum oom_status history_read(struct oom_pytorch_reader *reader, const char *what,
                                    const struct oom_pickle_value *history, bool has_requested,
                                    struct oom_snapshot_block *block) {
    const struct oom_pickle_value *items;
    uint64_t count;
    OOM_TRY(oom_pytorch_list(reader, what, history, &items, &count));
    if (count == 0) return OOM_OK;
    struct oom_pytorch_fields fields;
    OOM_TRY(oom_pytorch_fields(reader, what, &items[0], &fields));
    if (!has_requested)
        OOM_TRY(uint_read(reader, what, &fields, OOM_WORD_REAL_SIZE, &block->requested));
    return oom_pytorch_site(reader, fields.at[OOM_WORD_FRAMES], &block->site);
}

/* `expected`: where the block before ends, for a block without an address. */
static enum oom_status block_read(struct oom_pytorch_reader *reader, uint64_t expected,
                                  const struct oom_pickle_value *dict) {
    struct oom_snapshot *s = &reader->build.out;
    const struct oom_snapshot_segment *segment = &s->segments[s->segment_count - 1];
    char what[80];
    snprintf(what, sizeof what, "segments[%" PRIu64 "].blocks[%" PRIu64 "]", s->segment_count - 1,
             segment->block_count);
    struct oom_pytorch_fields fields;
    OOM_TRY(oom_pytorch_fields(reader, what, dict, &fields));
    struct oom_snapshot_block block = {.address = expected};
    bool has_address, has_requested;
    OOM_TRY(uint_read_if(reader, what, &fields, OOM_WORD_ADDRESS, &has_address, &block.address));
    OOM_TRY(uint_read(reader, what, &fields, OOM_WORD_SIZE, &block.bytes));
    OOM_TRY(uint_read_if(reader, what, &fields, OOM_WORD_REQUESTED_SIZE, &has_requested,
                         &block.requested));
    if (!state_read(fields.at[OOM_WORD_STATE], &block.state))
        return oom_pytorch_refuse(reader, what, "state", fields.at[OOM_WORD_STATE],
                                  "active_allocated, active_pending_free or inactive");
    OOM_TRY(oom_pytorch_site(reader, fields.at[OOM_WORD_FRAMES], &block.site));
    if (!has_address) s->kind = OOM_SNAPSHOT_KIND_PYTORCH_2_0;
    uint64_t at = reader->build.at;
    if (fields.at[OOM_WORD_HISTORY] != NULL)
        OOM_TRY(history_read(reader, what, fields.at[OOM_WORD_HISTORY], has_requested, &block));
    reader->build.at = at;
    return oom_build_block(&reader->build, &block);
}

/* ---- segments ---- */

static enum oom_status segment_fill(struct oom_pytorch_reader *reader, const char *what,
                                    const struct oom_pytorch_fields *fields,
                                    struct oom_snapshot_segment *segment,
                                    struct oom_build_sums *said) {
    uint64_t device = 0;
    bool has;
    OOM_TRY(uint_read_if(reader, what, fields, OOM_WORD_DEVICE, &has, &device));
    segment->device = device < INT32_MAX ? (int32_t)device : INT32_MAX;
    OOM_TRY(uint_read(reader, what, fields, OOM_WORD_ADDRESS, &segment->address));
    OOM_TRY(uint_read(reader, what, fields, OOM_WORD_TOTAL_SIZE, &segment->bytes));
    OOM_TRY(uint_read_if(reader, what, fields, OOM_WORD_STREAM, &has, &segment->stream));
    OOM_TRY(uint_read_if(reader, what, fields, OOM_WORD_ALLOCATED_SIZE, &said->has_allocated,
                         &said->allocated));
    OOM_TRY(
        uint_read_if(reader, what, fields, OOM_WORD_ACTIVE_SIZE, &said->has_active, &said->active));
    OOM_TRY(uint_read_if(reader, what, fields, OOM_WORD_REQUESTED_SIZE, &said->has_requested,
                         &said->requested));
    OOM_TRY(bool_read_if(reader, what, fields, OOM_WORD_IS_EXPANDABLE, &segment->expandable));
    const struct oom_pickle_value *type = fields->at[OOM_WORD_SEGMENT_TYPE];
    if (!is_word(type, OOM_WORD_SMALL) && !is_word(type, OOM_WORD_LARGE))
        return oom_pytorch_refuse(reader, what, "segment_type", type, "'small' or 'large'");
    segment->small_pool = is_word(type, OOM_WORD_SMALL);
    const struct oom_pickle_value *pool = fields->at[OOM_WORD_SEGMENT_POOL_ID];
    if (pool != NULL && !oom_pytorch_pool(reader, pool, &segment->pool))
        return oom_pytorch_refuse(reader, what, "segment_pool_id", pool,
                                  "a tuple of two whole numbers");
    uint16_t index;
    OOM_TRY(oom_build_pool(&reader->build, segment->pool, &index));
    return oom_pytorch_site(reader, fields->at[OOM_WORD_FRAMES], &segment->site);
}

static enum oom_status segment_read(struct oom_pytorch_reader *reader,
                                    const struct oom_pickle_value *dict) {
    struct oom_snapshot *s = &reader->build.out;
    char what[48];
    snprintf(what, sizeof what, "segments[%" PRIu64 "]", s->segment_count);
    struct oom_pytorch_fields fields;
    OOM_TRY(oom_pytorch_fields(reader, what, dict, &fields));
    uint64_t offset = reader->build.at;
    struct oom_snapshot_segment segment = {0};
    struct oom_build_sums said = {0};
    OOM_TRY(segment_fill(reader, what, &fields, &segment, &said));
    OOM_TRY(oom_build_segment(&reader->build, &segment));
    const struct oom_pickle_value *items;
    uint64_t count, next = segment.address;
    snprintf(what, sizeof what, "segments[%" PRIu64 "].blocks", s->segment_count - 1);
    OOM_TRY(oom_pytorch_list(reader, what, fields.at[OOM_WORD_BLOCKS], &items, &count));
    for (uint64_t i = 0; i < count; i++) {
        OOM_TRY(block_read(reader, next, &items[i]));
        next += s->blocks[s->block_count - 1].bytes;
    }
    reader->build.at = offset;
    return oom_build_segment_check(&reader->build, &said);
}

static enum oom_status segments_read(struct oom_pytorch_reader *reader,
                                     const struct oom_pickle_value *list) {
    const struct oom_pickle_value *items;
    uint64_t count;
    OOM_TRY(oom_pytorch_list(reader, "segments", list, &items, &count));
    for (uint64_t i = 0; i < count; i++) OOM_TRY(segment_read(reader, &items[i]));
    return OOM_OK;
}

/* ---- settings ---- */

static bool is_plain_text(const char *text, uint32_t bytes) {
    for (uint32_t i = 0; i < bytes;) {
        int width = oom_utf8_length(text + i, bytes - i);
        if (width == 0 || text[i] == 0) return false;
        i += (uint32_t)width;
    }
    return true;
}

static enum oom_status text_copy(const struct oom_pytorch_reader *reader, const char *what,
                                 const char *key, const struct oom_pickle_value *value, char *out,
                                 size_t n) {
    if (value->kind != OOM_PICKLE_TEXT)
        return oom_pytorch_refuse(reader, what, key, value, "a text");
    const char *text = oom_pickle_text(&reader->pickle, value);
    if (value->length >= n || !is_plain_text(text, value->length))
        return oom_build_fail(&reader->build, "%s: %s of %u bytes; at most %zu of UTF-8, no NUL",
                              what, key, value->length, n - 1);
    memcpy(out, text, value->length);
    out[value->length] = 0;
    return OOM_OK;
}

/* {"1": 0, "2": 0, "4": 8, ...}: keys are MiB, powers of two. */
static enum oom_status roundup_read(struct oom_pytorch_reader *reader, const char *what,
                                    const struct oom_pickle_value *value) {
    const struct oom_pickle_object *object = oom_pickle_object(&reader->pickle, value);
    if (object == NULL || object->kind != OOM_PICKLE_DICT || object->taken != 0)
        return oom_pytorch_refuse(reader, what, "roundup_power2_divisions", value, "a dict");
    const struct oom_pickle_value *items = oom_pickle_items(&reader->pickle, object);
    for (uint32_t i = 0; i < object->count; i += 2) {
        char key[8] = "", shown[4 * sizeof key];
        OOM_TRY(text_copy(reader, what, "a key of roundup_power2_divisions", &items[i], key,
                          sizeof key));
        char *end;
        unsigned long mib = strtoul(key, &end, 10);
        bool power = *end == 0 && mib > 0 && mib <= 1ul << (OOM_ROUNDUP_CLASSES - 1) &&
                     (mib & (mib - 1)) == 0;
        uint64_t divisions;
        if (!power || !oom_pytorch_uint(&items[i + 1], &divisions) || divisions > UINT32_MAX)
            return oom_build_fail(&reader->build,
                                  "%s: roundup_power2_divisions: '%s' is no power of two from 1 to "
                                  "32768, or what it maps to no whole number below 2^32",
                                  what, oom_text_show(key, strlen(key), shown, sizeof shown));
        reader->build.out.roundup_power2_divisions[__builtin_ctzl(mib)] = (uint32_t)divisions;
    }
    return OOM_OK;
}

static enum oom_status numbers_read(struct oom_pytorch_reader *reader, const char *what,
                                    const struct oom_pytorch_fields *fields) {
    struct oom_snapshot *s = &reader->build.out;
    const struct oom_pickle_value *split = fields->at[OOM_WORD_MAX_SPLIT_SIZE];
    if (split != NULL && split->kind == OOM_PICKLE_UINT && split->u == UINT64_MAX) {
        s->max_split_size = -1; /* SIZE_MAX, as some versions say it */
    } else if (split != NULL) {
        if (split->kind != OOM_PICKLE_INT || split->i < -1)
            return oom_pytorch_refuse(reader, what, "max_split_size", split,
                                      "a number of bytes, or -1");
        s->max_split_size = split->i;
    }
    const struct oom_pickle_value *gc = fields->at[OOM_WORD_GC_THRESHOLD];
    if (gc == NULL) return OOM_OK;
    double threshold = gc->kind == OOM_PICKLE_FLOAT ? gc->number : -1;
    if (gc->kind == OOM_PICKLE_INT) threshold = (double)gc->i;
    if (!(threshold >= 0 && threshold <= 1))
        return oom_pytorch_refuse(reader, what, "garbage_collection_threshold", gc,
                                  "a number from 0 to 1");
    s->garbage_collection_threshold = threshold;
    return OOM_OK;
}

static enum oom_status settings_read(struct oom_pytorch_reader *reader,
                                     const struct oom_pickle_value *dict) {
    static const char what[] = "allocator_settings";
    struct oom_snapshot *s = &reader->build.out;
    struct oom_pytorch_fields fields;
    OOM_TRY(oom_pytorch_fields(reader, what, dict, &fields));
    s->has_settings = true;
    const struct oom_pickle_value *conf = fields.at[OOM_WORD_CONF];
    if (conf == NULL) conf = fields.at[OOM_WORD_CONF_NEW];
    if (conf != NULL)
        OOM_TRY(text_copy(reader, what, "PYTORCH_CUDA_ALLOC_CONF", conf, s->conf, sizeof s->conf));
    OOM_TRY(bool_read_if(reader, what, &fields, OOM_WORD_EXPANDABLE, &s->expandable_segments));
    OOM_TRY(numbers_read(reader, what, &fields));
    const struct oom_pickle_value *roundup = fields.at[OOM_WORD_ROUNDUP];
    return roundup != NULL ? roundup_read(reader, what, roundup) : OOM_OK;
}

/* What only this program writes: which model decided, on how large a card. */
static enum oom_status own_read(struct oom_pytorch_reader *reader,
                                const struct oom_pickle_value *dict) {
    static const char what[] = "oombench";
    struct oom_snapshot *s = &reader->build.out;
    struct oom_pytorch_fields fields;
    OOM_TRY(oom_pytorch_fields(reader, what, dict, &fields));
    bool has;
    OOM_TRY(uint_read_if(reader, what, &fields, OOM_WORD_CAPACITY, &has, &s->capacity));
    if (fields.at[OOM_WORD_PROFILE] == NULL) return OOM_OK;
    char name[32] = "";
    OOM_TRY(text_copy(reader, what, "profile", fields.at[OOM_WORD_PROFILE], name, sizeof name));
    return oom_profile_find(name, &s->profile);
}

/* ---- the whole ---- */

static enum oom_status top_read(struct oom_pytorch_reader *reader) {
    const struct oom_pickle_value *root = &reader->pickle.root;
    /* torch.cuda.memory_snapshot() gives the segments alone. */
    if (root->kind == OOM_PICKLE_LIST) {
        OOM_TRY(segments_read(reader, root));
        return oom_pytorch_traces(reader, NULL);
    }
    struct oom_pytorch_fields fields;
    OOM_TRY(oom_pytorch_fields(reader, "the top level", root, &fields));
    const struct oom_pickle_value *segments = fields.at[OOM_WORD_SEGMENTS];
    const struct oom_pickle_value *traces = fields.at[OOM_WORD_DEVICE_TRACES];
    if (segments == NULL && traces == NULL)
        return oom_build_fail(&reader->build, "%s",
                              "a dict with neither 'segments' nor 'device_traces' is no snapshot");
    OOM_TRY(oom_pytorch_traces(reader, traces));
    if (segments != NULL) OOM_TRY(segments_read(reader, segments));
    if (fields.at[OOM_WORD_SETTINGS] != NULL)
        OOM_TRY(settings_read(reader, fields.at[OOM_WORD_SETTINGS]));
    if (fields.at[OOM_WORD_OOMBENCH] != NULL)
        OOM_TRY(own_read(reader, fields.at[OOM_WORD_OOMBENCH]));
    return OOM_OK;
}

enum oom_status oom_snapshot_parse_pickle(const char *name, const void *bytes, size_t n,
                                          struct oom_snapshot *out) {
    struct oom_pytorch_reader reader = {0};
    enum oom_status status = oom_build_begin(&reader.build, name, "byte");
    if (status != OOM_OK) goto out;
    reader.build.out.kind = OOM_SNAPSHOT_KIND_PYTORCH;
    status = oom_pickle_parse(&reader.pickle, name, bytes, n, oom_pytorch_words,
                              oom_pytorch_word_count, oom_pytorch_batch, &reader);
    if (status == OOM_OK) status = top_read(&reader);
    if (status == OOM_OK) status = oom_build_finish(&reader.build, out);
out:
    oom_host_free(reader.gathered);
    oom_host_free(reader.frames);
    oom_pickle_free(&reader.pickle);
    oom_build_abandon(&reader.build);
    return status;
}
