/* pool.c: private pools: who allocates from which pair of pools, and when one is gone. */
#include "harness/memory/internal.h"

#include "kernels/hostmem.h"

typedef unsigned long long ull; /* for printf */

static void init_group(struct oom_pool_group *group, struct oom_pool *pools, uint16_t number) {
    group->pools = pools;
    for (uint8_t kind = OOM_POOL_SMALL; kind <= OOM_POOL_LARGE; kind++) {
        pools[kind].kind = kind;
        pools[kind].group = group;
        pools[kind].number = number;
    }
}

static enum oom_status no_memory(void) {
    return oom_fail(OOM_HOST_NOMEM, "allocator: no host memory for a private pool");
}

/* ---- all groups ---- */

enum oom_status oom_pools_init(struct oom_allocator *a) {
    init_group(&a->group, a->pools, 0);
    a->current = &a->group;
    a->pool_ids = oom_host_calloc(1, sizeof *a->pool_ids);
    if (a->pool_ids == NULL) return no_memory();
    a->pool_id_count = 1;
    return OOM_OK;
}

static void free_sets(struct oom_pool_group *group) {
    oom_free_set_free(&group->pools[OOM_POOL_SMALL].free);
    oom_free_set_free(&group->pools[OOM_POOL_LARGE].free);
}

static void free_group(struct oom_pool_group *group) {
    free_sets(group);
    oom_host_free(group->pools);
    oom_host_free(group);
}

void oom_pools_free(struct oom_allocator *a) {
    while (a->group.next != NULL) {
        struct oom_pool_group *group = a->group.next;
        a->group.next = group->next;
        free_group(group);
    }
    if (a->group.pools != NULL) free_sets(&a->group);
    oom_host_free(a->pool_ids);
}

static enum oom_status reserve_sets(struct oom_pool_group *group, uint32_t count) {
    OOM_TRY(oom_free_set_reserve(&group->pools[OOM_POOL_SMALL].free, count));
    return oom_free_set_reserve(&group->pools[OOM_POOL_LARGE].free, count);
}

enum oom_status oom_pools_reserve(struct oom_allocator *a, uint32_t count) {
    for (struct oom_pool_group *group = &a->group; group != NULL; group = group->next) {
        OOM_TRY(reserve_sets(group, count));
    }
    return OOM_OK;
}

void oom_pools_sweep(struct oom_allocator *a) {
    for (struct oom_pool_group **link = &a->group.next; *link != NULL;) {
        struct oom_pool_group *group = *link;
        if (!group->retired || group->segments > 0) {
            link = &group->next;
            continue;
        }
        *link = group->next;
        free_group(group);
    }
}

/* ---- one group ---- */

const struct oom_pool_group *oom_pool_group_look(const struct oom_allocator *a,
                                                 struct oom_pool_id id) {
    const struct oom_pool_group *group = &a->group;
    while (group != NULL && (group->id.a != id.a || group->id.b != id.b)) group = group->next;
    return group;
}

static struct oom_pool_group *find(struct oom_allocator *a, struct oom_pool_id id) {
    return (struct oom_pool_group *)oom_pool_group_look(a, id); /* of a, which is not const */
}

/* The number of an id, which keeps it when its pool is gone: the trace names it by that. */
static enum oom_status number_of(struct oom_allocator *a, struct oom_pool_id id, uint16_t *out) {
    uint32_t number = 0;
    while (number < a->pool_id_count &&
           (a->pool_ids[number].a != id.a || a->pool_ids[number].b != id.b)) {
        number++;
    }
    if (number > UINT16_MAX) {
        return oom_fail(OOM_INVALID, "allocator: more than %d private pools", UINT16_MAX);
    }
    if (number == a->pool_id_count) {
        struct oom_pool_id *ids = oom_host_realloc(a->pool_ids, (number + 1) * sizeof *ids);
        if (ids == NULL) return no_memory();
        a->pool_ids = ids;
        a->pool_ids[a->pool_id_count++] = id;
    }
    *out = (uint16_t)number;
    return OOM_OK;
}

static enum oom_status make(struct oom_allocator *a, struct oom_pool_id id,
                            struct oom_pool_group **out) {
    uint16_t number = 0;
    OOM_TRY(number_of(a, id, &number));
    struct oom_pool_group *group = oom_host_calloc(1, sizeof *group);
    struct oom_pool *pools = oom_host_calloc(OOM_POOL_COUNT, sizeof *pools);
    if (group == NULL || pools == NULL) {
        oom_host_free(group);
        oom_host_free(pools);
        return no_memory();
    }
    init_group(group, pools, number);
    group->id = id;
    enum oom_status status = reserve_sets(group, a->stream_count);
    if (status != OOM_OK) {
        free_group(group);
        return status;
    }
    struct oom_pool_group *last = &a->group;
    while (last->next != NULL) last = last->next;
    last->next = group;
    *out = group;
    return OOM_OK;
}

enum oom_status oom_pool_group_find(struct oom_allocator *a, struct oom_pool_id id,
                                    struct oom_pool_group **out) {
    struct oom_pool_group *group = find(a, id);
    if (group == NULL) return make(a, id, out);
    *out = group;
    return OOM_OK;
}

enum oom_status oom_allocator_pool_use(struct oom_allocator *a, struct oom_pool_id id) {
    struct oom_pool_group *group;
    OOM_TRY(oom_pool_group_find(a, id, &group));
    if (group->retired) {
        return oom_fail(OOM_INVALID,
                        "pool (%llu, %llu) is retired and still has segments: allowed are other "
                        "ids, or this one once a release has given all of them back",
                        (ull)id.a, (ull)id.b);
    }
    a->current = group;
    return OOM_OK;
}

enum oom_status oom_allocator_pool_retire(struct oom_allocator *a, struct oom_pool_id id) {
    struct oom_pool_group *group = find(a, id);
    if (group == NULL || group == &a->group || group->retired) {
        return oom_fail(OOM_INVALID, "retire of pool (%llu, %llu): %s", (ull)id.a, (ull)id.b,
                        group == NULL        ? "there is no such pool"
                        : group == &a->group ? "the default pools stay"
                                             : "it is retired already");
    }
    if (group == a->current) {
        return oom_fail(OOM_INVALID,
                        "retire of pool (%llu, %llu): allocations come from it; another one must "
                        "be chosen first",
                        (ull)id.a, (ull)id.b);
    }
    group->retired = true;
    if (group->segments == 0) oom_pools_sweep(a);
    return OOM_OK;
}
