#include "harness/train/loop.h"

#include "harness/base/rng.h"
#include "kernels/hostmem.h"

#include <string.h>

enum { SALT_LENGTH, SALT_RESULT, SALT_EVALUATION };

/* Draw number `index` of a stream: a step that is repeated after an OOM draws the same again. */
static double draw(const struct oom_loop_options *options, int salt, int index) {
    struct oom_rng rng = {options->seed + (uint64_t)salt * 0xd1b54a32d192ed03u};
    rng.state += (uint64_t)index * 0x9e3779b97f4a7c15u; /* splitmix64 adds it once a number */
    return oom_rng_uniform(&rng);
}

/* ---- options ---- */

static enum oom_status out_of_range(const char *what, double found, const char *allowed) {
    return oom_fail(OOM_USAGE, "training loop: %s is %g, allowed: %s", what, found, allowed);
}

enum oom_status oom_loop_check_options(const struct oom_loop_options *o) {
    bool drawn = o->lengths != OOM_LENGTHS_SAME;
    if (drawn && !(o->low > 0 && o->low <= 1)) return out_of_range("low", o->low, "above 0, to 1");
    if (o->result_count < 0 || o->result_count > OOM_LOOP_RESULTS) {
        return out_of_range("the number of results", o->result_count, "0 to 32");
    }
    if (o->frozen < 0 || o->frozen > OOM_LOOP_FROZEN) {
        return out_of_range("the number of frozen tensors", o->frozen, "0 to 32");
    }
    if (o->evaluate_every < 0 || o->evaluate_samples < (o->evaluate_every > 0)) {
        return out_of_range("the size of an evaluation", (double)o->evaluate_samples, "1 or more");
    }
    return OOM_OK;
}

/* ---- tensors whose content is known ---- */

enum { CHUNK = 4096 };

static uint8_t mark_of(const struct oom_tensor *tensor) {
    return (uint8_t)(1 + (tensor->data >> 9) % 255); /* by its address: neighbours differ */
}

static enum oom_status make(struct oom_session *session, uint64_t bytes, enum oom_tag tag,
                            const char *site, struct oom_tensor *out) {
    OOM_TRY(oom_tensor_alloc(session, bytes, tag, site, out));
    return session->device->api->fill(session->device, out->data, mark_of(out), bytes,
                                      session->stream);
}

static enum oom_status look(const struct oom_session *session, const struct oom_tensor *tensor,
                            uint64_t bytes, uint64_t *damaged) {
    uint8_t found[CHUNK], expected[CHUNK];
    bool same = true;
    memset(expected, mark_of(tensor), sizeof expected);
    for (uint64_t at = 0; same && tensor->data != 0 && at < bytes; at += CHUNK) {
        uint64_t n = bytes - at < CHUNK ? bytes - at : CHUNK;
        OOM_TRY(session->device->api->download(session->device, found, tensor->data + at, n,
                                               session->stream));
        same = memcmp(found, expected, n) == 0;
    }
    *damaged += !same;
    return OOM_OK;
}

enum oom_status oom_loop_check(const struct oom_loop *loop, uint64_t *damaged) {
    const struct oom_session *session = loop->trainer->session;
    struct oom_device_properties properties;
    session->device->api->properties(session->device, &properties);
    *damaged = 0;
    if (!properties.computes) return OOM_OK;
    for (int i = 0; i < loop->options.frozen; i++) {
        OOM_TRY(look(session, &loop->frozen[i], loop->options.frozen_bytes, damaged));
    }
    for (int i = 0; i < loop->kept_count; i++) {
        OOM_TRY(look(session, &loop->kept[i].tensor, loop->options.result_bytes, damaged));
    }
    return OOM_OK;
}

/* ---- life ---- */

enum oom_status oom_loop_begin(struct oom_loop *loop, const struct oom_loop_options *options,
                               struct oom_session *session, int micro_batches) {
    *loop = (struct oom_loop){.options = *options, .micro_batches = micro_batches};
    OOM_TRY(oom_loop_check_options(options));
    if (micro_batches > OOM_LOOP_CUTS) {
        return out_of_range("the number of micro-batches of a step", micro_batches, "1 to 32");
    }
    for (int i = 0; i < options->frozen; i++) {
        OOM_TRY(make(session, options->frozen_bytes, OOM_TAG_PARAMETER, "frozen weights",
                     &loop->frozen[i]));
    }
    return OOM_OK;
}

void oom_loop_attach(struct oom_loop *loop, struct oom_trainer *trainer) {
    loop->trainer = trainer;
    trainer->loop = loop;
}

static enum oom_status free_row(struct oom_session *session, struct oom_tensor *row, int count) {
    for (int i = 0; i < count; i++) OOM_TRY(oom_tensor_free(session, &row[i]));
    return OOM_OK;
}

enum oom_status oom_loop_end(struct oom_loop *loop, struct oom_session *session) {
    OOM_TRY(free_row(session, loop->batch, OOM_LOOP_RESULTS));
    for (int i = 0; i < loop->kept_count; i++) {
        OOM_TRY(oom_tensor_free(session, &loop->kept[i].tensor));
    }
    OOM_TRY(free_row(session, loop->frozen, OOM_LOOP_FROZEN));
    oom_host_free(loop->kept);
    if (loop->trainer != NULL) loop->trainer->loop = NULL;
    *loop = (struct oom_loop){0};
    return OOM_OK;
}

/* ---- lengths ---- */

static double part_of(const struct oom_loop *loop, double u) {
    const struct oom_loop_options *o = &loop->options;
    switch (o->lengths) {
    case OOM_LENGTHS_DRAWN:
        return o->low + (1 - o->low) * u;
    case OOM_LENGTHS_RISING: {
        double way = o->rising_steps > 1 ? (double)loop->step / (o->rising_steps - 1) : 1;
        if (way > 1) way = 1;
        return (o->low + (1 - o->low) * way) * (1 - 0.005 * u);
    }
    default:
        return 1;
    }
}

static int64_t rows_for(const struct oom_loop *loop, double u) {
    double longest = (double)oom_spec_rows(&loop->trainer->options.spec);
    int64_t rows = (int64_t)(longest * part_of(loop, u));
    return rows > 0 ? rows : 1;
}

/* ---- evaluation ---- */

static enum oom_status evaluate(struct oom_loop *loop, const struct oom_source *source) {
    struct oom_trainer *t = loop->trainer;
    const struct oom_loop_options *o = &loop->options;
    int64_t samples = o->evaluate_samples;
    int64_t rows = o->evaluate_rows;
    if (rows == 0) rows = rows_for(loop, draw(o, SALT_EVALUATION, loop->step));
    struct oom_window window;
    oom_window_init(&window, &t->options.spec, source, samples, samples, false);
    oom_window_cut(&window, &rows, samples);
    return oom_trainer_evaluate(t, &window, &loop->evaluation);
}

static bool evaluates(const struct oom_loop *loop) {
    return loop->options.evaluate_every > 0 && loop->step % loop->options.evaluate_every == 0;
}

/* ---- around a step ---- */

enum oom_status oom_loop_before(struct oom_loop *loop, const struct oom_source *source, int step) {
    loop->step = step;
    for (int j = 0; j < loop->micro_batches; j++) {
        int index = step * loop->micro_batches + j;
        loop->cut[j] = rows_for(loop, draw(&loop->options, SALT_LENGTH, index));
    }
    if (loop->options.release_each_step) {
        OOM_TRY(oom_allocator_release_cached(loop->trainer->session->allocator));
    }
    if (!evaluates(loop) || loop->options.evaluate_after) return OOM_OK;
    return evaluate(loop, source);
}

/* Frees the kept results for which `wanted` holds, oldest first, and closes the gaps. */
static enum oom_status give_up(struct oom_loop *loop,
                               bool (*wanted)(const struct oom_loop *loop, int step)) {
    struct oom_session *session = loop->trainer->session;
    int left = 0;
    for (int i = 0; i < loop->kept_count; i++) {
        if (wanted(loop, loop->kept[i].step)) {
            OOM_TRY(oom_tensor_free(session, &loop->kept[i].tensor));
        } else {
            loop->kept[left++] = loop->kept[i];
        }
    }
    loop->kept_count = left;
    return OOM_OK;
}

static bool is_old(const struct oom_loop *loop, int step) {
    return loop->options.result_steps > 0 && step <= loop->step - loop->options.result_steps;
}

static bool is_of_this_step(const struct oom_loop *loop, int step) {
    return step == loop->step;
}

enum oom_status oom_loop_after(struct oom_loop *loop, const struct oom_source *source, int step) {
    loop->step = step;
    OOM_TRY(give_up(loop, is_old));
    if (!evaluates(loop) || !loop->options.evaluate_after) return OOM_OK;
    return evaluate(loop, source);
}

/* ---- results ---- */

/* Room for `count` more is made before the tensors, so that nothing stays half kept. */
static enum oom_status make_room(struct oom_loop *loop, int count) {
    if (loop->kept_count + count <= loop->kept_room) return OOM_OK;
    int room = loop->kept_room == 0 ? OOM_LOOP_RESULTS : 2 * loop->kept_room;
    struct oom_kept *kept = oom_host_realloc(loop->kept, (size_t)room * sizeof *kept);
    if (kept == NULL) return oom_fail(OOM_HOST_NOMEM, "the list of kept results");
    loop->kept = kept;
    loop->kept_room = room;
    return OOM_OK;
}

static bool takes(const struct oom_trainer *t, enum oom_results results) {
    return t->loop != NULL && !t->evaluating && t->loop->options.results == results;
}

enum oom_status oom_loop_after_layer(struct oom_trainer *t) {
    if (!takes(t, OOM_RESULTS_OF_LAYER)) return OOM_OK;
    struct oom_loop *loop = t->loop;
    OOM_TRY(make_room(loop, 1));
    struct oom_kept *kept = &loop->kept[loop->kept_count];
    *kept = (struct oom_kept){.step = loop->step};
    OOM_TRY(make(t->session, loop->options.result_bytes, OOM_TAG_OTHER, "layer's statistics",
                 &kept->tensor));
    loop->kept_count++;
    return OOM_OK;
}

static enum oom_status view(struct oom_trainer *t) {
    if (t->loop == NULL || t->loop->viewer.logits == NULL) return OOM_OK;
    return t->loop->viewer.logits(t->loop->viewer.context, t);
}

enum oom_status oom_loop_after_forward(struct oom_trainer *t) {
    OOM_TRY(view(t));
    if (!takes(t, OOM_RESULTS_OF_BATCH)) return OOM_OK;
    struct oom_loop *loop = t->loop;
    OOM_TRY(make_room(loop, loop->options.result_count)); /* one is kept; forgotten ones all are */
    for (int i = 0; i < loop->options.result_count; i++) {
        OOM_TRY(make(t->session, loop->options.result_bytes, OOM_TAG_OTHER, "batch's result",
                     &loop->batch[i]));
    }
    return OOM_OK;
}

enum oom_status oom_loop_after_backward(struct oom_trainer *t) {
    if (!takes(t, OOM_RESULTS_OF_BATCH)) return OOM_OK;
    struct oom_loop *loop = t->loop;
    int count = loop->options.result_count;
    int index = loop->step * loop->micro_batches + t->micro_batch;
    int one = (int)((double)count * draw(&loop->options, SALT_RESULT, index));
    loop->kept[loop->kept_count++] = (struct oom_kept){loop->batch[one], loop->step};
    loop->batch[one] = (struct oom_tensor){0};
    return free_row(t->session, loop->batch, count);
}

void oom_loop_forget(struct oom_trainer *t) {
    struct oom_loop *loop = t->loop;
    for (int i = 0; loop != NULL && i < OOM_LOOP_RESULTS; i++) {
        if (loop->batch[i].data == 0) continue;
        loop->kept[loop->kept_count++] = (struct oom_kept){loop->batch[i], loop->step};
        loop->batch[i] = (struct oom_tensor){0};
    }
}

enum oom_status oom_loop_drop(struct oom_trainer *t) {
    if (t->loop == NULL) return OOM_OK;
    OOM_TRY(free_row(t->session, t->loop->batch, OOM_LOOP_RESULTS));
    return give_up(t->loop, is_of_this_step);
}
