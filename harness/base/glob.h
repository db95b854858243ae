/*
 * glob.h: patterns over ids such as "large_batch/halving/gpt/f32".
 *
 * Owns nothing, cannot fail: a pattern that is no pattern ("[" without "]") matches itself only.
 * Time is at most length of the pattern times length of the id.
 */
#ifndef OOM_HARNESS_BASE_GLOB_H
#define OOM_HARNESS_BASE_GLOB_H

#include <stdbool.h>

/* True when the pattern matches the whole id, or a leading part of it that ends before a '/'.
 * `*` any characters (also '/'), `?` one, `[abc]`, `[a-z]`, `[!a]` one of a set. */
bool oom_glob_match(const char *pattern, const char *id);

#endif
