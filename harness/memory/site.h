/*
 * site.h: names of allocation sites, each kept once, so that a block or an event holds a number.
 *
 * The table owns the strings (63 characters each) until it is freed. Programs that make up a new
 * name for every allocation are bounded: from OOM_SITE_LIMIT names on, all new ones share one.
 */
#ifndef OOM_HARNESS_MEMORY_SITE_H
#define OOM_HARNESS_MEMORY_SITE_H

#include "kernels/status.h"

#include <stdint.h>

enum { OOM_SITE_LIMIT = 16384, OOM_SITE_BYTES = 64 };

struct oom_site_table {
    char **names;      /* by number; 0 is "", 1 the name that is shared past the limit */
    uint32_t *slots;   /* open addressing: number + 1, 0 where empty */
    uint32_t capacity; /* of names; slots has twice as many */
    uint32_t count;
};

enum oom_status oom_site_table_init(struct oom_site_table *table);
void oom_site_table_free(struct oom_site_table *table);
/* NULL is the empty name. OOM_HOST_NOMEM: the table is as before. */
enum oom_status oom_site_intern(struct oom_site_table *table, const char *name, uint32_t *out);

static inline const char *oom_site_name(const struct oom_site_table *table, uint32_t site) {
    return table->names[site];
}

#endif
