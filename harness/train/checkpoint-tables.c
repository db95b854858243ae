#include "harness/train/checkpoint-tables.h"

#include "kernels/hostmem.h"

#define at oom_checkpoint_at
#define max oom_checkpoint_max
#define min oom_checkpoint_min

/* ---- rows ---- */

static void fill_rows(const struct oom_checkpoint_chain *chain, struct oom_checkpoint_tables *t) {
    int n = t->n;
    t->x[0] = (int64_t)chain->input;
    t->ground[n] = (int64_t)chain->fixed;
    for (int i = 0; i < n; i++) {
        const struct oom_checkpoint_stage *stage = &chain->stages[i];
        t->x[i + 1] = (int64_t)stage->output;
        t->kept[i] = t->x[i] + (int64_t)stage->saved;
        t->before[i + 1] = t->before[i] + t->kept[i];
        t->work[i + 1] = t->work[i] + (int64_t)stage->forward_flops;
    }
    int64_t left = (int64_t)chain->fixed;
    for (int i = n - 1; i >= 0; i--) {
        left += (int64_t)chain->stages[i].left;
        t->ground[i] = left + (int64_t)chain->stages[i].gradient;
    }
}

/* ---- intervals ---- */

static void fill_run(const struct oom_checkpoint_chain *chain, struct oom_checkpoint_tables *t,
                     int s) {
    const uint64_t *first = chain->stages[s].peak;
    int64_t most = t->x[s] + (int64_t)first[OOM_CHECKPOINT_FORWARD_CHECK];
    for (int j = s + 1; j < t->n; j++) {
        t->run[at(t, s, j)] = most;
        int64_t peak = (int64_t)chain->stages[j].peak[OOM_CHECKPOINT_FORWARD_FREE];
        most = max(most, t->x[s] + t->x[j] + peak);
    }
}

/* x(s+1) is live during BACKWARD(s) where that reads it, or where no backward came between. */
static int64_t save_bytes(const struct oom_checkpoint_chain *chain,
                          const struct oom_checkpoint_tables *t, int s, int e) {
    const struct oom_checkpoint_stage *stage = &chain->stages[s];
    int64_t output = stage->reads_output || e == s + 1 ? t->x[s + 1] : 0;
    int64_t forward = t->x[s] + t->ground[e] + (int64_t)stage->peak[OOM_CHECKPOINT_FORWARD_SAVE];
    int64_t backward =
        t->kept[s] + output + t->ground[s + 1] + (int64_t)stage->peak[OOM_CHECKPOINT_BACKWARD];
    return max(forward, backward);
}

static int64_t least_allowance(const struct oom_checkpoint_tables *t, int s, int e) {
    int64_t least = max(t->save[at(t, s, e)], t->kept[s] + t->need[at(t, s + 1, e)]);
    for (int j = s + 1; j < e; j++) {
        int64_t run = oom_checkpoint_run(t, s, j, e);
        if (run >= least) break; /* it only grows with j */
        int64_t parts = max(t->x[s] + t->need[at(t, j, e)], t->need[at(t, s, j)]);
        least = min(least, max(run, parts));
    }
    return least;
}

static void fill_interval(const struct oom_checkpoint_chain *chain, struct oom_checkpoint_tables *t,
                          int s, int e) {
    size_t here = at(t, s, e);
    t->save[here] = t->need[here] = t->whole[here] = save_bytes(chain, t, s, e);
    if (e == s + 1) return;
    t->whole[here] = max(t->save[here], t->kept[s] + t->whole[at(t, s + 1, e)]);
    t->need[here] = least_allowance(t, s, e);
}

/* ---- the whole ---- */

static bool allocate(struct oom_checkpoint_tables *t) {
    size_t row = (size_t)t->n + 1;
    int64_t **rows[] = {&t->x, &t->kept, &t->before, &t->work, &t->ground};
    int64_t **squares[] = {&t->save, &t->run, &t->need, &t->whole};
    bool all = true;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        all = (*rows[i] = oom_host_calloc(row, sizeof **rows[i])) != NULL && all;
    }
    for (size_t i = 0; i < sizeof squares / sizeof *squares; i++) {
        all = (*squares[i] = oom_host_calloc(row * row, sizeof **squares[i])) != NULL && all;
    }
    return all;
}

enum oom_status oom_checkpoint_tables_create(const struct oom_checkpoint_chain *chain,
                                             struct oom_checkpoint_tables *out) {
    *out = (struct oom_checkpoint_tables){.n = chain->count};
    if (!allocate(out)) {
        oom_checkpoint_tables_free(out);
        return oom_fail(OOM_HOST_NOMEM, "tables of a chain of %d stages", chain->count);
    }
    fill_rows(chain, out);
    for (int s = out->n - 1; s >= 0; s--) {
        fill_run(chain, out, s);
        for (int e = s + 1; e <= out->n; e++) fill_interval(chain, out, s, e);
    }
    return OOM_OK;
}

void oom_checkpoint_tables_free(struct oom_checkpoint_tables *t) {
    int64_t *all[] = {t->x,    t->kept, t->before, t->work, t->ground,
                      t->save, t->run,  t->need,   t->whole};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) oom_host_free(all[i]);
    *t = (struct oom_checkpoint_tables){0};
}
