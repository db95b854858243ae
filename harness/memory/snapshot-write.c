/*
 * PyTorch's snapshot format, pickle protocol 4, as Python's own pickler lays it out where the
 * viewers depend on it: keys, actions, frames and the empty list of frames are written once and
 * referred to, lists grow in batches of 1000 (one of the viewers spreads a batch over the
 * arguments of a call), and no integer is longer than it must be. There are no FRAMEs: they are
 * a reader's hint, and what is streamed does not know its length.
 */
#include "harness/memory/snapshot-pytorch.h"

#include "kernels/hostmem.h"

#include <string.h>

enum { BUFFER = 1 << 16, BATCH = 1000, WORDS = 64 };

_Static_assert(OOM_WORD_ACTIONS + OOM_ACTION_SNAPSHOT < WORDS, "every word has a place");

struct writer {
    FILE *out;
    const struct oom_snapshot *s;
    size_t used;
    bool failed;
    uint32_t memo_next;
    uint32_t words[WORDS]; /* 1 + memo number, 0: not yet written */

    uint32_t *sites, *pools; /* the same, by number in the snapshot */
    uint8_t buffer[BUFFER];
};

/* ---- bytes ---- */

static void flush(struct writer *w) {
    if (w->used > 0 && fwrite(w->buffer, 1, w->used, w->out) != w->used) w->failed = true;
    w->used = 0;
}

static void put_bytes(struct writer *w, const void *bytes, size_t n) {
    if (n > BUFFER - w->used) flush(w);
    if (n > BUFFER) {
        if (fwrite(bytes, 1, n, w->out) != n) w->failed = true;
        return;
    }
    memcpy(w->buffer + w->used, bytes, n);
    w->used += n;
}

static void put_byte(struct writer *w, int byte) {
    uint8_t one = (uint8_t)byte;
    put_bytes(w, &one, 1);
}

static void put_little(struct writer *w, int opcode, uint64_t value, int width) {
    uint8_t bytes[9] = {(uint8_t)opcode};
    for (int i = 0; i < width; i++) bytes[1 + i] = (uint8_t)(value >> (8 * i));
    put_bytes(w, bytes, (size_t)width + 1);
}

/* ---- values ---- */

static void put_uint(struct writer *w, uint64_t value) {
    if (value <= 0xff) {
        put_little(w, 'K', value, 1);
    } else if (value <= 0xffff) {
        put_little(w, 'M', value, 2);
    } else if (value <= INT32_MAX) {
        put_little(w, 'J', value, 4);
    } else { /* LONG1: two's complement, so the highest bit must stay free */
        int width = (64 - __builtin_clzll(value)) / 8 + 1;
        put_byte(w, 0x8a);
        put_little(w, width, value, width < 8 ? width : 8);
        if (width == 9) put_byte(w, 0);
    }
}

static void put_int(struct writer *w, int64_t value) {
    if (value >= 0)
        put_uint(w, (uint64_t)value);
    else if (value >= INT32_MIN)
        put_little(w, 'J', (uint64_t)value, 4);
    else {
        put_byte(w, 0x8a);
        put_little(w, 8, (uint64_t)value, 8);
    }
}

static void put_text(struct writer *w, const char *text, size_t bytes) {
    if (bytes <= 0xff)
        put_little(w, 0x8c, bytes, 1);
    else
        put_little(w, 'X', bytes, 4);
    put_bytes(w, text, bytes);
}

static void put_float(struct writer *w, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_little(w, 'G', __builtin_bswap64(bits), 8);
}

static void put_bool(struct writer *w, bool value) {
    put_byte(w, value ? 0x88 : 0x89);
}

/* ---- what is written once ---- */

/* True: it was there, and a reference is written. Else the caller writes it, then memoize(). */
static bool put_again(struct writer *w, uint32_t memo) {
    if (memo == 0) return false;
    put_little(w, memo <= 0x100 ? 'h' : 'j', memo - 1, memo <= 0x100 ? 1 : 4);
    return true;
}

static uint32_t memoize(struct writer *w) {
    put_byte(w, 0x94);
    return ++w->memo_next;
}

static void put_word(struct writer *w, int word) {
    if (put_again(w, w->words[word])) return;
    put_text(w, oom_pytorch_words[word - 1], strlen(oom_pytorch_words[word - 1]));
    w->words[word] = memoize(w);
}

static void put_tuple(struct writer *w, struct oom_pool_id id) {
    put_uint(w, id.a);
    put_uint(w, id.b);
    put_byte(w, 0x86);
}

static void put_pool(struct writer *w, uint64_t pool) {
    if (put_again(w, w->pools[pool])) return;
    put_tuple(w, w->s->pools[pool]);
    w->pools[pool] = memoize(w);
}

static void dict_begin(struct writer *w) {
    put_bytes(w, "}(", 2);
}

static void dict_end(struct writer *w) {
    put_byte(w, 'u');
}

static void put_number(struct writer *w, enum oom_pytorch_word key, uint64_t value) {
    put_word(w, (int)key);
    put_uint(w, value);
}

/* Before item i of a list: its opening, or the end of a batch. */
static void list_step(struct writer *w, uint64_t i) {
    if (i == 0)
        put_bytes(w, "](", 2);
    else if (i % BATCH == 0)
        put_bytes(w, "e(", 2);
}

static void list_end(struct writer *w, uint64_t count) {
    put_byte(w, count > 0 ? 'e' : ']');
}

/* A list of one frame. */
static void put_frames(struct writer *w, uint32_t site) {
    put_word(w, OOM_WORD_FRAMES);
    if (site >= w->s->site_count) site = 0;
    if (put_again(w, w->sites[site])) return;
    const char *text = oom_snapshot_site(w->s, site);
    put_byte(w, ']');
    w->sites[site] = memoize(w);
    if (*text == 0) return;
    struct oom_site_parts parts = oom_site_split(text);
    dict_begin(w);
    put_word(w, OOM_WORD_NAME);
    put_text(w, parts.name, (size_t)parts.name_bytes);
    put_word(w, OOM_WORD_FILENAME);
    put_text(w, parts.file, (size_t)parts.file_bytes);
    put_number(w, OOM_WORD_LINE, (uint64_t)parts.line);
    dict_end(w);
    put_byte(w, 'a');
}

/* ---- segments ---- */

static void put_block(struct writer *w, const struct oom_snapshot_block *block) {
    static const enum oom_pytorch_word states[] = {
        [OOM_BLOCK_INACTIVE] = OOM_WORD_INACTIVE,
        [OOM_BLOCK_ALLOCATED] = OOM_WORD_ACTIVE_ALLOCATED,
        [OOM_BLOCK_PENDING_FREE] = OOM_WORD_ACTIVE_PENDING_FREE};
    dict_begin(w);
    put_number(w, OOM_WORD_ADDRESS, block->address);
    put_number(w, OOM_WORD_SIZE, block->bytes);
    put_number(w, OOM_WORD_REQUESTED_SIZE, block->requested);
    put_word(w, OOM_WORD_STATE);
    put_word(w, (int)states[block->state]);
    put_frames(w, block->site);
    dict_end(w);
}

static void put_segment(struct writer *w, const struct oom_snapshot_segment *segment) {
    dict_begin(w);
    put_number(w, OOM_WORD_DEVICE, (uint64_t)segment->device);
    put_number(w, OOM_WORD_ADDRESS, segment->address);
    put_number(w, OOM_WORD_TOTAL_SIZE, segment->bytes);
    put_number(w, OOM_WORD_ALLOCATED_SIZE, segment->allocated);
    put_number(w, OOM_WORD_ACTIVE_SIZE, segment->active);
    put_number(w, OOM_WORD_REQUESTED_SIZE, segment->requested);
    put_number(w, OOM_WORD_STREAM, segment->stream);
    put_word(w, OOM_WORD_SEGMENT_TYPE);
    put_word(w, segment->small_pool ? OOM_WORD_SMALL : OOM_WORD_LARGE);
    put_word(w, OOM_WORD_SEGMENT_POOL_ID);
    put_tuple(w, segment->pool);
    put_word(w, OOM_WORD_IS_EXPANDABLE);
    put_bool(w, segment->expandable);
    put_frames(w, segment->site);
    put_word(w, OOM_WORD_BLOCKS);
    for (uint64_t i = 0; i < segment->block_count; i++) {
        list_step(w, i);
        put_block(w, &w->s->blocks[segment->first_block + i]);
    }
    list_end(w, segment->block_count);
    dict_end(w);
}

static void put_segments(struct writer *w) {
    put_word(w, OOM_WORD_SEGMENTS);
    for (uint64_t i = 0; i < w->s->segment_count; i++) {
        list_step(w, i);
        put_segment(w, &w->s->segments[i]);
    }
    list_end(w, w->s->segment_count);
}

/* ---- events ---- */

static void put_event(struct writer *w, const struct oom_snapshot_event *event) {
    bool oom = event->action == OOM_ACTION_OOM;
    dict_begin(w);
    put_word(w, OOM_WORD_ACTION);
    put_word(w, OOM_WORD_ACTIONS + event->action);
    put_number(w, oom ? OOM_WORD_DEVICE_FREE : OOM_WORD_ADDR, event->address);
    put_number(w, OOM_WORD_SIZE, event->bytes);
    put_number(w, OOM_WORD_STREAM, event->stream);
    put_number(w, OOM_WORD_TIME_US, event->time_us);
    put_word(w, OOM_WORD_POOL_ID);
    put_pool(w, event->pool);
    put_frames(w, event->site);
    dict_end(w);
}

static void put_traces(struct writer *w) {
    put_word(w, OOM_WORD_DEVICE_TRACES);
    for (uint64_t d = 0; d < w->s->device_count; d++) {
        const struct oom_snapshot_trace *trace = &w->s->traces[d];
        list_step(w, d);
        for (uint64_t i = 0; i < trace->count; i++) {
            list_step(w, i);
            put_event(w, &w->s->events[trace->first + i]);
        }
        list_end(w, trace->count);
    }
    list_end(w, w->s->device_count);
}

/* ---- the rest ---- */

static void put_settings(struct writer *w) {
    const struct oom_snapshot *s = w->s;
    put_word(w, OOM_WORD_SETTINGS);
    dict_begin(w);
    put_word(w, OOM_WORD_CONF);
    put_text(w, s->conf, strlen(s->conf));
    put_word(w, OOM_WORD_MAX_SPLIT_SIZE);
    put_int(w, s->max_split_size);
    put_word(w, OOM_WORD_GC_THRESHOLD);
    put_float(w, s->garbage_collection_threshold);
    put_word(w, OOM_WORD_EXPANDABLE);
    put_bool(w, s->expandable_segments);
    put_word(w, OOM_WORD_ROUNDUP);
    dict_begin(w);
    for (int i = 0; i < OOM_ROUNDUP_CLASSES; i++) {
        char key[8];
        put_text(w, key, (size_t)snprintf(key, sizeof key, "%d", 1 << i));
        put_uint(w, s->roundup_power2_divisions[i]);
    }
    dict_end(w);
    dict_end(w);
}

/* A key of our own, which PyTorch's tools do not look at. */
static void put_own(struct writer *w) {
    const struct oom_snapshot *s = w->s;
    put_word(w, OOM_WORD_OOMBENCH);
    dict_begin(w);
    if (s->profile < OOM_PROFILE_COUNT) {
        const char *profile = oom_profile_name(s->profile);
        put_word(w, OOM_WORD_PROFILE);
        put_text(w, profile, strlen(profile));
    }
    put_number(w, OOM_WORD_CAPACITY, s->capacity);
    dict_end(w);
}

static void put_snapshot(struct writer *w) {
    static const char annotations[] = "external_annotations";
    put_bytes(w, "\x80\x04", 2);
    dict_begin(w);
    put_segments(w);
    put_traces(w);
    if (w->s->has_settings) put_settings(w);
    put_text(w, annotations, sizeof annotations - 1);
    put_byte(w, ']');
    if (w->s->capacity > 0 || w->s->profile < OOM_PROFILE_COUNT) put_own(w);
    dict_end(w);
    put_byte(w, '.');
    flush(w);
}

enum oom_status oom_snapshot_write_pickle(const struct oom_snapshot *snapshot, FILE *out) {
    enum oom_status status = OOM_OK;
    struct writer *w = oom_host_calloc(1, sizeof *w);
    if (w == NULL) return oom_fail(OOM_HOST_NOMEM, "no host memory to write a snapshot");
    w->out = out;
    w->s = snapshot;
    w->sites = oom_host_calloc(snapshot->site_count + 1, sizeof *w->sites);
    w->pools = oom_host_calloc(snapshot->pool_count + 1, sizeof *w->pools);
    if (w->sites == NULL || w->pools == NULL) {
        status = oom_fail(OOM_HOST_NOMEM, "no host memory to write a snapshot");
        goto out;
    }
    put_snapshot(w);
    if (w->failed || fflush(out) != 0)
        status = oom_fail(OOM_IO, "the snapshot could not be written");
out:
    oom_host_free(w->sites);
    oom_host_free(w->pools);
    oom_host_free(w);
    return status;
}
