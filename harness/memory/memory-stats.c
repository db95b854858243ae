/* memory-stats.c: the statistics as torch.cuda.memory_stats flattens them: every key, sorted. */
#include "harness/memory/internal.h"

#include <stdio.h>
#include <string.h>

typedef enum oom_status visit_function(const char *key, int64_t value, void *context);

struct visitor {
    visit_function *visit;
    void *context;
};

static enum oom_status say_fields(const struct visitor *to, const char *name,
                                  const struct oom_counter *counter) {
    const struct {
        const char *field;
        int64_t value;
    } fields[] = {{"allocated", counter->allocated},
                  {"current", counter->current},
                  {"freed", counter->freed},
                  {"peak", counter->peak}};
    char key[128];
    for (int i = 0; i < 4; i++) {
        snprintf(key, sizeof key, "%s.%s", name, fields[i].field);
        OOM_TRY(to->visit(key, fields[i].value, to->context));
    }
    return OOM_OK;
}

/* `counters` by enum oom_pool_kind. */
static enum oom_status say_family(const struct visitor *to, const char *name,
                                  const struct oom_counter *counters) {
    static const struct {
        const char *name;
        enum oom_pool_kind kind;
    } pools[] = {
        {"all", OOM_POOL_ALL}, {"large_pool", OOM_POOL_LARGE}, {"small_pool", OOM_POOL_SMALL}};
    char key[96];
    for (int i = 0; i < 3; i++) {
        snprintf(key, sizeof key, "%s.%s", name, pools[i].name);
        OOM_TRY(say_fields(to, key, &counters[pools[i].kind]));
    }
    return OOM_OK;
}

/* With the dot that follows it in a key, because "1_1." sorts before "1_10." */
struct group_key {
    char text[48];
};

static struct group_key key_of(const struct oom_pool_group *group) {
    struct group_key key;
    snprintf(key.text, sizeof key.text, "%llu_%llu.", (unsigned long long)group->id.a,
             (unsigned long long)group->id.b);
    return key;
}

/* The private pool whose key follows `after` ("": the first), or NULL. */
static const struct oom_pool_group *next_group(const struct oom_allocator *a, const char *after) {
    const struct oom_pool_group *best = NULL;
    for (const struct oom_pool_group *group = a->group.next; group != NULL; group = group->next) {
        if (strcmp(key_of(group).text, after) <= 0) continue;
        if (best == NULL || strcmp(key_of(group).text, key_of(best).text) < 0) best = group;
    }
    return best;
}

static enum oom_status say_private_pools(const struct visitor *to, const struct oom_allocator *a) {
    struct group_key key = {""};
    char name[96];
    for (const struct oom_pool_group *group; (group = next_group(a, key.text)) != NULL;) {
        key = key_of(group);
        snprintf(name, sizeof name, "reserved_bytes_by_private_pools.%.*s",
                 (int)strlen(key.text) - 1, key.text);
        OOM_TRY(say_family(to, name, group->reserved_bytes));
    }
    return OOM_OK;
}

enum oom_status oom_allocator_memory_stats(const struct oom_allocator *a, visit_function *visit,
                                           void *context) {
    const struct oom_allocator_stats *s = &a->stats;
    const struct visitor to = {visit, context};
    const struct {
        const char *key;
        int64_t value;
    } scalars[] = {{"max_split_size", (int64_t)a->settings.max_split_size}, /* unlimited: -1 */
                   {"num_alloc_retries", (int64_t)s->num_alloc_retries},
                   {"num_device_alloc", (int64_t)s->num_device_alloc},
                   {"num_device_free", (int64_t)s->num_device_free},
                   {"num_oom_rejections", (int64_t)s->num_oom_rejections},
                   {"num_ooms", (int64_t)s->num_ooms},
                   {"num_sync_all_streams", (int64_t)s->num_sync_all_streams}};
    OOM_TRY(say_family(&to, "active", s->active));
    OOM_TRY(say_family(&to, "active_bytes", s->active_bytes));
    OOM_TRY(say_family(&to, "allocated_bytes", s->allocated_bytes));
    OOM_TRY(say_family(&to, "allocation", s->allocation));
    OOM_TRY(say_family(&to, "inactive_split", s->inactive_split));
    OOM_TRY(say_family(&to, "inactive_split_bytes", s->inactive_split_bytes));
    for (size_t i = 0; i < sizeof scalars / sizeof scalars[0]; i++) {
        OOM_TRY(visit(scalars[i].key, scalars[i].value, context));
    }
    OOM_TRY(say_fields(&to, "oversize_allocations", &s->oversize_allocations));
    OOM_TRY(say_fields(&to, "oversize_segments", &s->oversize_segments));
    OOM_TRY(say_family(&to, "requested_bytes", s->requested_bytes));
    OOM_TRY(say_family(&to, "reserved_bytes", s->reserved_bytes));
    OOM_TRY(say_private_pools(&to, a));
    return say_family(&to, "segment", s->segment);
}
