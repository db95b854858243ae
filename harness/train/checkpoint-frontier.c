#include "harness/train/checkpoint-frontier.h"

#include "harness/train/checkpoint-schedule.h"
#include "kernels/hostmem.h"

#define at oom_checkpoint_at
#define max oom_checkpoint_max
#define min oom_checkpoint_min

typedef struct oom_checkpoint_point point;

/* Work is counted in cells of the bounds: what a look at an option's flops is about as long as. */
enum { WORK_STEP = 16, MOST_POINTS = 12000000 };

/* More than any plan's flops; three of them are still a number. */
static const int64_t never = INT64_C(1) << 61;

/* ---- points ---- */

static enum oom_status reserve(struct oom_checkpoint_points *list, size_t more) {
    if (list->count + more <= list->capacity) return OOM_OK;
    size_t capacity = 2 * list->capacity + more + 64;
    void *points = oom_host_realloc(list->points, capacity * sizeof(point));
    if (points == NULL) return oom_fail(OOM_HOST_NOMEM, "%zu points of plans", capacity);
    list->points = points;
    list->capacity = capacity;
    return OOM_OK;
}

/* The last of points[from ..] that an allowance reaches; points[from] must be one. It is mostly
 * near: steps double, then halve. */
static size_t reached(const point *points, size_t from, size_t count, int64_t bytes) {
    size_t low = from, step = 1;
    while (low + step < count && points[low + step].bytes <= bytes) {
        low += step;
        step *= 2;
    }
    while (step > 1) {
        step /= 2;
        if (low + step < count && points[low + step].bytes <= bytes) low += step;
    }
    return low;
}

/* ---- an option: one way to begin a plan ---- */

struct part {
    const point *points; /* NULL: no such part, 0 flops at any allowance */
    size_t count, now;   /* now: the point in force */
    int64_t less;        /* bytes of the allowance that are kept below it */
};

struct option {
    struct part part[2];
    int64_t work; /* flops of its run */
    int64_t from; /* least allowance */
    int64_t best; /* flops at any allowance, however large */
};

static struct part part_of(const struct oom_checkpoint_search *search, int s, int e, int64_t less) {
    struct oom_checkpoint_frontier f = search->frontiers[at(search->tables, s, e)];
    return (struct part){.points = search->pool.points + f.first, .count = f.count, .less = less};
}

static bool option_begin(struct option *o, int64_t work, int64_t from) {
    o->best = o->work = work;
    o->from = from;
    for (int i = 0; i < 2; i++) {
        const struct part *part = &o->part[i];
        if (part->points == NULL) continue;
        if (part->count == 0) return false;
        o->from = max(o->from, part->points[0].bytes + part->less);
        o->best += part->points[part->count - 1].flops;
    }
    return true;
}

static int64_t flops_at(const struct option *o, int64_t bytes) {
    int64_t flops = o->work;
    for (int i = 0; i < 2; i++) {
        const struct part *p = &o->part[i];
        if (p->points == NULL) continue;
        flops += p->points[reached(p->points, p->now, p->count, bytes - p->less)].flops;
    }
    return flops;
}

static void advance(struct option *o, int64_t bytes) {
    for (int i = 0; i < 2; i++) {
        struct part *p = &o->part[i];
        if (p->points == NULL) continue;
        p->now = reached(p->points, p->now, p->count, bytes - p->less);
    }
}

/* The next allowance at which its flops fall. */
static int64_t next_fall(const struct option *o) {
    int64_t next = INT64_MAX;
    for (int i = 0; i < 2; i++) {
        const struct part *p = &o->part[i];
        if (p->points == NULL || p->now + 1 >= p->count) continue;
        next = min(next, p->points[p->now + 1].bytes + p->less);
    }
    return next;
}

/* ---- the frontier so far, and an option beside it ---- */

struct sweep {
    struct option *option;
    const struct oom_checkpoint_points *old;
    const struct oom_checkpoint_window *window;
    int64_t flops; /* what is to be undercut, beside the old points */
    size_t below;  /* old points at or below the place reached */
    uint64_t work;
};

static int64_t to_undercut(const struct sweep *sweep, size_t below) {
    return below > 0 ? min(sweep->flops, sweep->old->points[below - 1].flops) : sweep->flops;
}

/* Both fall with the allowance: over a block of old points an option that is not below the block's
 * first at the block's end is nowhere below. Blocks double. */
static int64_t leap(struct sweep *sweep) {
    const struct oom_checkpoint_points *old = sweep->old;
    size_t below = sweep->below;
    for (size_t step = 4;; step *= 2) {
        size_t next = below + step;
        bool last = next > old->count;
        sweep->work += WORK_STEP;
        int64_t end = last ? sweep->window->to : old->points[next - 1].bytes - 1;
        if (flops_at(sweep->option, end) < to_undercut(sweep, below)) break;
        if (last) return INT64_MAX;
        below = next;
    }
    if (below == sweep->below) return next_fall(sweep->option);
    return old->points[below - 1].bytes;
}

/* From `bytes` on, the first allowance where the option is better; INT64_MAX: nowhere. */
static int64_t next_better(struct sweep *sweep, int64_t bytes) {
    const struct oom_checkpoint_points *old = sweep->old;
    while (bytes <= sweep->window->to) {
        while (sweep->below < old->count && old->points[sweep->below].bytes <= bytes) {
            sweep->below++;
        }
        int64_t flops = to_undercut(sweep, sweep->below);
        if (flops <= sweep->option->best) break;
        sweep->work += 2 * WORK_STEP;
        advance(sweep->option, bytes);
        if (flops_at(sweep->option, bytes) < flops) return bytes;
        bytes = leap(sweep);
    }
    return INT64_MAX;
}

static void push(struct oom_checkpoint_points *list, point new) {
    if (list->count > 0) {
        point last = list->points[list->count - 1];
        if (new.flops >= last.flops) return;
        if (new.bytes == last.bytes) list->count--;
    }
    list->points[list->count++] = new;
}

static void push_old(struct oom_checkpoint_points *list, const struct oom_checkpoint_points *old,
                     size_t *done, int64_t to) {
    for (; *done < old->count && old->points[*done].bytes <= to; (*done)++) {
        push(list, old->points[*done]);
    }
}

/* current = the lower of current and the option, within the window. */
static enum oom_status merge(struct oom_checkpoint_search *search, struct option *option,
                             const struct oom_checkpoint_window *window) {
    struct oom_checkpoint_points *next = &search->next;
    struct sweep sweep = {option, &search->current, window, window->flops, 0, 0};
    size_t done = 0;
    next->count = 0;
    search->work += WORK_STEP;
    int64_t bytes = max(option->from, window->from);
    if (search->current.count > 0 && search->current.points[0].bytes <= bytes) {
        sweep.below = 1 + reached(search->current.points, 0, search->current.count, bytes);
    }
    bytes = next_better(&sweep, bytes);
    if (bytes == INT64_MAX) {
        search->work += sweep.work;
        return OOM_OK;
    }
    for (; bytes != INT64_MAX; bytes = next_better(&sweep, next_fall(option))) {
        OOM_TRY(reserve(next, search->current.count + 1));
        push_old(next, &search->current, &done, bytes);
        sweep.flops = flops_at(option, bytes);
        push(next, (point){bytes, sweep.flops});
    }
    push_old(next, &search->current, &done, INT64_MAX);
    search->work += sweep.work + 2 * next->count;
    struct oom_checkpoint_points swap = search->current;
    search->current = search->next;
    search->next = swap;
    return OOM_OK;
}

/* ---- an interval ---- */

static enum oom_status add_whole(struct oom_checkpoint_search *search, int s, int e,
                                 const struct oom_checkpoint_window *window) {
    int64_t whole = search->tables->whole[at(search->tables, s, e)];
    if (whole > window->to || window->flops <= 0) return OOM_OK;
    OOM_TRY(reserve(&search->current, 1));
    push(&search->current, (point){max(whole, window->from), 0});
    return OOM_OK;
}

static enum oom_status add_save(struct oom_checkpoint_search *search, int s, int e,
                                const struct oom_checkpoint_window *window) {
    const struct oom_checkpoint_tables *t = search->tables;
    struct option o = {.part = {part_of(search, s + 1, e, t->kept[s])}};
    return option_begin(&o, 0, t->save[at(t, s, e)]) ? merge(search, &o, window) : OOM_OK;
}

static bool gives_up(const struct oom_checkpoint_search *search) {
    return search->work > search->most_work ||
           search->pool.count + search->current.count > MOST_POINTS;
}

/* What it will take in the end, if work goes with the bounds' effort. */
static bool hopeless(const struct oom_checkpoint_search *search, int s) {
    const uint64_t *effort = search->bounds->effort_of;
    uint64_t done = 0, all = 0;
    for (int i = 0; i < search->tables->n; i++) {
        all += effort[i];
        if (i >= s) done += effort[i];
    }
    if (search->work < search->least_work) return false;
    return (double)search->work * (double)all > (double)search->most_work * (double)done;
}

/* Where the frontier begins at the least allowance there is, a run of more flops than its first
 * point's is of no use any more. */
static bool too_long(const struct oom_checkpoint_search *search, int64_t work, int64_t least) {
    const struct oom_checkpoint_points *current = &search->current;
    return current->count > 0 && current->points[0].bytes <= least &&
           work >= current->points[0].flops;
}

static enum oom_status add_splits(struct oom_checkpoint_search *search, int s, int e,
                                  const struct oom_checkpoint_window *window) {
    const struct oom_checkpoint_tables *t = search->tables;
    int64_t least = max(window->from, t->need[at(t, s, e)]);
    const float *useful = oom_checkpoint_bounds_splits(search->bounds, s, e) - (s + 1);
    for (int j = s + 1; j < e; j++) {
        if ((double)useful[j] >= search->below) continue;
        int64_t work = oom_checkpoint_work(t, s, j), run = oom_checkpoint_run(t, s, j, e);
        if (run > window->to || work >= window->flops || too_long(search, work, least)) break;
        struct option o = {.part = {part_of(search, j, e, t->x[s]), part_of(search, s, j, 0)}};
        if (option_begin(&o, work, run)) OOM_TRY(merge(search, &o, window));
        if (gives_up(search)) break;
    }
    return OOM_OK;
}

/* The points that matter, at the pool's end. Without one, its allowances get the point below. */
static enum oom_status keep(struct oom_checkpoint_search *search, int s, int e, int64_t to,
                            int64_t limit) {
    const struct oom_checkpoint_points *current = &search->current;
    struct oom_checkpoint_points *pool = &search->pool;
    size_t first = pool->count;
    OOM_TRY(reserve(pool, current->count));
    for (size_t i = 0; i < current->count; i++) {
        point p = current->points[i];
        int64_t end = i + 1 < current->count ? current->points[i + 1].bytes - 1 : to;
        struct oom_checkpoint_window plan = {p.bytes, end, p.flops};
        if (!oom_checkpoint_bounds_useful(search->bounds, s, e, &plan, limit)) continue;
        pool->points[pool->count++] = p;
    }
    search->frontiers[at(search->tables, s, e)] =
        (struct oom_checkpoint_frontier){first, pool->count - first};
    return OOM_OK;
}

static enum oom_status fill(struct oom_checkpoint_search *search, int s, int e, int64_t limit) {
    const struct oom_checkpoint_tables *t = search->tables;
    struct oom_checkpoint_window window = {0, 0, 0};
    search->current.count = 0;
    if (oom_checkpoint_bounds_window(search->bounds, s, e, limit, &window)) {
        OOM_TRY(add_whole(search, s, e, &window));
        if (e > s + 1 && t->whole[at(t, s, e)] > window.from) {
            OOM_TRY(add_save(search, s, e, &window));
            OOM_TRY(add_splits(search, s, e, &window));
        }
    }
    return keep(search, s, e, window.to, limit);
}

/* ---- the whole ---- */

static int64_t least_flops(const struct oom_checkpoint_search *search, int s, int e,
                           int64_t allowance) {
    struct part part = part_of(search, s, e, 0);
    if (part.count == 0 || part.points[0].bytes > allowance) return never;
    return part.points[reached(part.points, 0, part.count, allowance)].flops;
}

enum oom_status oom_checkpoint_search_run(struct oom_checkpoint_search *search, int64_t limit,
                                          int64_t *found) {
    int n = search->tables->n;
    search->below = (double)limit + oom_checkpoint_bounds_rounding(search->bounds, (double)limit);
    search->pool.count = 0;
    *found = OOM_CHECKPOINT_UNKNOWN;
    for (int s = n - 1; s >= 0; s--) {
        for (int e = s + 1; e <= n; e++) {
            OOM_TRY(fill(search, s, e, limit));
            if (gives_up(search)) return OOM_OK;
        }
        if (hopeless(search, s)) return OOM_OK;
    }
    *found = least_flops(search, 0, n, search->bounds->budget);
    if (*found >= limit) *found = OOM_CHECKPOINT_NONE;
    return OOM_OK;
}

enum oom_status oom_checkpoint_search_create(const struct oom_checkpoint_tables *tables,
                                             struct oom_checkpoint_bounds *bounds,
                                             struct oom_checkpoint_search *out) {
    size_t row = (size_t)tables->n + 1;
    *out = (struct oom_checkpoint_search){.tables = tables, .bounds = bounds};
    out->frontiers = oom_host_calloc(row * row, sizeof *out->frontiers);
    if (out->frontiers != NULL) return OOM_OK;
    return oom_fail(OOM_HOST_NOMEM, "frontiers of a chain of %d stages", tables->n);
}

void oom_checkpoint_search_free(struct oom_checkpoint_search *search) {
    oom_host_free(search->frontiers);
    oom_host_free(search->pool.points);
    oom_host_free(search->current.points);
    oom_host_free(search->next.points);
    *search = (struct oom_checkpoint_search){0};
}

/* ---- the schedule of the least ---- */

static enum oom_status emit(const struct oom_checkpoint_search *search, int s, int e,
                            int64_t allowance, struct oom_checkpoint_schedule *out);

static enum oom_status emit_save(const struct oom_checkpoint_search *search, int s, int e,
                                 int64_t allowance, struct oom_checkpoint_schedule *out) {
    OOM_TRY(oom_checkpoint_append(out, OOM_CHECKPOINT_FORWARD_SAVE, s));
    OOM_TRY(emit(search, s + 1, e, allowance - search->tables->kept[s], out));
    return oom_checkpoint_append(out, OOM_CHECKPOINT_BACKWARD, s);
}

static enum oom_status emit_split(const struct oom_checkpoint_search *search, int s, int j, int e,
                                  int64_t allowance, struct oom_checkpoint_schedule *out) {
    OOM_TRY(oom_checkpoint_append_run(out, s, j));
    OOM_TRY(emit(search, j, e, allowance - search->tables->x[s], out));
    return emit(search, s, j, allowance, out);
}

static int64_t split_flops(const struct oom_checkpoint_search *search, int s, int j, int e,
                           int64_t allowance) {
    const struct oom_checkpoint_tables *t = search->tables;
    if (oom_checkpoint_run(t, s, j, e) > allowance) return never;
    return oom_checkpoint_work(t, s, j) + least_flops(search, j, e, allowance - t->x[s]) +
           least_flops(search, s, j, allowance);
}

/* Which option made the point is found again rather than remembered for every point. */
static enum oom_status emit(const struct oom_checkpoint_search *search, int s, int e,
                            int64_t allowance, struct oom_checkpoint_schedule *out) {
    const struct oom_checkpoint_tables *t = search->tables;
    if (t->whole[at(t, s, e)] <= allowance) return oom_checkpoint_append_saved(out, s, e);
    int64_t flops = least_flops(search, s, e, allowance);
    if (flops < never && t->save[at(t, s, e)] <= allowance &&
        least_flops(search, s + 1, e, allowance - t->kept[s]) == flops) {
        return emit_save(search, s, e, allowance, out);
    }
    for (int j = s + 1; j < e && flops < never; j++) {
        if (split_flops(search, s, j, e, allowance) == flops) {
            return emit_split(search, s, j, e, allowance, out);
        }
    }
    return oom_fail(OOM_INTERNAL, "checkpoint plan: stages %d to %d: no option makes %lld flops", s,
                    e, (long long)flops);
}

enum oom_status oom_checkpoint_search_emit(const struct oom_checkpoint_search *search,
                                           struct oom_checkpoint_schedule *out) {
    return emit(search, 0, search->tables->n, search->bounds->budget, out);
}
