/*
 * The schedules `lazy` and `seeded`: work is done when a call needs it, and at no other time.
 *
 * Whether work has been done is decided when somebody can see it. A caller sees it in the answer
 * of an event query and in nothing else: other calls that would tell wait first. So a program
 * without races meets every behaviour of a device that works on by itself, and one that has a race
 * cannot be saved by work that was done early by chance. That is what makes overtaking certain:
 * when a command conflicts with an earlier one that nothing orders before it, the earlier one is
 * still queued (unless it was taken along when an earlier race was shown), and running the later
 * one at once is legal, with all that it waits for.
 */
#include "kernels/simulated/queue.h"

/* splitmix64 (Steele, Lea, Flood 2014) */
static uint64_t next_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* ---- what must run ---- */

/* Looks at the commands up to the target of one stream; true when a wait among them needs more of
 * another stream. */
static bool look_on(struct oom_stream *stream) {
    bool more = false;
    for (; stream->walked < stream->target; stream->walked++, stream->walk = stream->walk->next) {
        const struct oom_command *command = stream->walk;
        if (command->kind != OOM_COMMAND_WAIT) continue;
        if (command->awaited->target >= command->position) continue;
        command->awaited->target = command->position;
        more = true;
    }
    return more;
}

/* Sets every stream's target to what comes before position `position` of `stream`: by the order of
 * streams and by waits. Afterwards `walk` is the first command of each that does not. */
static void mark_needed(struct oom_queues *queues, struct oom_stream *stream, uint64_t position) {
    for (struct oom_stream *each = queues->streams; each != NULL; each = each->next) {
        each->target = each->walked = each->finished;
        each->walk = each->head;
    }
    if (position > stream->target) stream->target = position;
    bool more = true;
    while (more) {
        more = false;
        for (struct oom_stream *each = queues->streams; each != NULL; each = each->next) {
            more = look_on(each) || more;
        }
    }
}

/* ---- in which order ---- */

/* A stream whose head may run and has to. A wait is always for something submitted earlier, so
 * while there is work to do there is one. */
static struct oom_stream *choose(struct oom_queues *queues) {
    struct oom_stream *chosen = NULL;
    uint64_t candidates = 0;
    for (struct oom_stream *each = queues->streams; each != NULL; each = each->next) {
        if (each->finished >= each->target || oom_queue_blocked(each)) continue;
        if (queues->schedule != OOM_SCHEDULE_SEEDED) return each;
        candidates++; /* each of them stays with the same chance */
        if (candidates == 1 || next_random(&queues->random) % candidates == 0) chosen = each;
    }
    return chosen;
}

static void run_marked(struct oom_queues *queues) {
    struct oom_stream *stream;
    while ((stream = choose(queues)) != NULL) oom_queue_step(queues, stream);
}

void oom_deferred_finish(struct oom_queues *queues, struct oom_stream *stream, uint64_t position) {
    if (stream->finished >= position) return;
    mark_needed(queues, stream, position);
    run_marked(queues);
}

void oom_deferred_finish_all(struct oom_queues *queues) {
    for (struct oom_stream *each = queues->streams; each != NULL; each = each->next) {
        each->target = each->submitted;
    }
    run_marked(queues);
}

void oom_deferred_asked(struct oom_queues *queues, struct oom_stream *stream, uint64_t position) {
    if (queues->schedule != OOM_SCHEDULE_SEEDED) return;
    bool ready = next_random(&queues->random) >> 63;
    if (ready) oom_deferred_finish(queues, stream, position);
}

/* ---- races ---- */

static bool others_wait(const struct oom_queues *queues, const struct oom_stream *stream) {
    for (const struct oom_stream *each = queues->streams; each != NULL; each = each->next) {
        if (each != stream && each->head != NULL) return true;
    }
    return false;
}

/* After mark_needed: nothing orders the two. */
static bool races(const struct oom_queues *queues, const struct oom_stream *stream,
                  const struct oom_command *command) {
    for (const struct oom_stream *each = queues->streams; each != NULL; each = each->next) {
        if (each == stream) continue;
        for (const struct oom_command *other = each->walk; other != NULL; other = other->next) {
            if (oom_commands_conflict(other, command)) return true;
        }
    }
    return false;
}

void oom_deferred_overtake(struct oom_queues *queues, struct oom_stream *stream,
                           const struct oom_command *command) {
    if (command->span_count == 0 || !others_wait(queues, stream)) return;
    mark_needed(queues, stream, stream->submitted);
    if (races(queues, stream, command)) run_marked(queues);
}
