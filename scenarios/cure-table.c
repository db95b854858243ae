#include "scenarios/cure-table.h"

#include "harness/verify/cures.h"

#include <string.h>

const struct oom_cure oom_cures[OOM_CURE_COUNT] = {
#define X(id, name, conf, release) {name, conf, release, false},
    OOM_CURE_MAP(X)
#undef X
};

#define FITS(id) (1u << OOM_CURE_##id)

const struct oom_pinned oom_pinned[] = {
    {"tail", 1, 1, 55, OOM_CURE_DEFAULT, 170, 7020544, 183535616, FITS(EXPANDABLE)},
    {"scores", 1, 1, 269, OOM_CURE_DEFAULT, 110, 133171200, 247483392,
     FITS(EXPANDABLE) | FITS(MAX_SPLIT) | FITS(MAX_SPLIT_TENTH)},
    {"survivors", 1, 1, 7906, OOM_CURE_DEFAULT, 239, 158064640, 315052544,
     FITS(EXPANDABLE) | FITS(MAX_SPLIT) | FITS(MAX_SPLIT_TENTH) | FITS(MAX_SPLIT_QUARTER) |
         FITS(RELEASE)},
    {"lengths", 10, 10, 94, OOM_CURE_DEFAULT, 214, 23330816, 100082176,
     FITS(EXPANDABLE) | FITS(RELEASE)},
    {"evaluation", 1, 1, 489, OOM_CURE_DEFAULT, 856, 31850496, 103256576,
     FITS(EXPANDABLE) | FITS(ROUNDUP_2) | FITS(RELEASE)},
    {"powers", 2, 2, 7, OOM_CURE_DEFAULT, 176, 63307776, 155116032,
     FITS(EXPANDABLE) | FITS(MAX_SPLIT) | FITS(ROUNDUP_2) | FITS(ROUNDUP_4) | FITS(ROUNDUP_8)},
    {"classes", 1, 1, 291, OOM_CURE_DEFAULT, 699, 76021760, 143092736,
     FITS(EXPANDABLE) | FITS(MAX_SPLIT) | FITS(MAX_SPLIT_TENTH) | FITS(ROUNDUP_4) |
         FITS(ROUNDUP_8)},
    {"checkpointed", 1, 1, 82, OOM_CURE_DEFAULT, 314, 161480704, 271471104,
     FITS(EXPANDABLE) | FITS(MAX_SPLIT) | FITS(MAX_SPLIT_TENTH) | FITS(MAX_SPLIT_QUARTER)},
    {"even", 1, 4, 114, OOM_CURE_DEFAULT, 802, 14811136, 106040320,
     FITS(EXPANDABLE) | FITS(MAX_SPLIT) | FITS(ROUNDUP_2) | FITS(ROUNDUP_8) | FITS(RELEASE) |
         FITS(GC_60) | FITS(GC_80)},
    {"visitor", 1, 1, 432, OOM_CURE_DEFAULT, 0, 268435456, 534880768, FITS(RELEASE)},
    {"items", 1, 1, 16, OOM_CURE_EXPANDABLE, 196, 182452224, 513471488,
     FITS(DEFAULT) | FITS(MAX_SPLIT) | FITS(MAX_SPLIT_TENTH) | FITS(MAX_SPLIT_QUARTER) |
         FITS(ROUNDUP_2) | FITS(ROUNDUP_4) | FITS(ROUNDUP_8) | FITS(RELEASE) | FITS(GC_60) |
         FITS(GC_80)},
    {0},
};

const struct oom_pinned *oom_pinned_find(const char *generator) {
    const struct oom_pinned *pin = oom_pinned;
    while (pin->generator != NULL && strcmp(pin->generator, generator) != 0) pin++;
    return pin->generator != NULL ? pin : NULL;
}

enum oom_status oom_cure_table_case(const struct oom_situation *s, const char *name,
                                    struct oom_case *out) {
    const struct oom_pinned *pin = oom_pinned_find(name);
    OOM_TRY(oom_generator_job(s, oom_generator_find(name), OOM_PINNED_CAPACITY, pin->seed,
                              pin->size, &out->unmitigated));
    OOM_TRY(oom_cure_apply(&oom_cures[pin->fails], &out->unmitigated));
    out->mitigated = out->unmitigated;
    out->table = (struct oom_cure_table){.count = OOM_CURE_COUNT,
                                         .allocation = pin->allocation,
                                         .requested = pin->requested,
                                         .free = pin->free};
    memcpy(out->table.cures, oom_cures, sizeof oom_cures);
    for (int i = 0; i < OOM_CURE_COUNT; i++) out->table.cures[i].fits = pin->fits >> i & 1;
    return OOM_OK;
}
