/*
 * nearest.h: which known name was meant by a misspelt one.
 *
 * Owns nothing, cannot fail; the answer is one of the names given, or NULL where none is near (more
 * than a third of the letters differ, but two slips are always allowed in four letters or more).
 */
#ifndef OOM_HARNESS_BASE_NEAREST_H
#define OOM_HARNESS_BASE_NEAREST_H

/* Edit distance where a swap of neighbours counts as one; at most 64 bytes of each are looked at.
 */
int oom_edit_distance(const char *a, const char *b);

/* The first of the nearest names; `names` has `count` entries, NULL entries are skipped. */
const char *oom_nearest_name(const char *text, const char *const *names, int count);

#endif
