#include "harness/base/glob.h"

#include <stddef.h>
#include <string.h>

/* The ']' that closes the set at `set` (just after '['), which may be the first of its members. */
static const char *set_end(const char *set) {
    if (*set == '!') set++;
    return *set == 0 ? NULL : strchr(set + 1, ']');
}

static bool set_has(const char *set, const char *end, char c) {
    bool negated = *set == '!';
    bool found = false;
    for (const char *at = set + negated; at < end; at++) {
        if (at + 2 < end && at[1] == '-') {
            found |= at[0] <= c && c <= at[2];
            at += 2;
        } else {
            found |= *at == c;
        }
    }
    return found != negated;
}

/* One element of the pattern against one character; where the pattern goes on, or NULL. */
static const char *element_match(const char *pattern, char c) {
    if (*pattern == '?') return pattern + 1;
    const char *end = *pattern == '[' ? set_end(pattern + 1) : NULL;
    if (end != NULL) return set_has(pattern + 1, end, c) ? end + 1 : NULL;
    return *pattern == c ? pattern + 1 : NULL;
}

/* On a mismatch only the newest star takes one more character: older ones cannot do better. */
bool oom_glob_match(const char *pattern, const char *id) {
    const char *star = NULL, *star_id = NULL;
    for (;;) {
        if (*pattern == 0 && (*id == 0 || *id == '/')) return true;
        if (*pattern == '*') {
            star = ++pattern;
            star_id = id;
            continue;
        }
        const char *next = *id != 0 && *pattern != 0 ? element_match(pattern, *id) : NULL;
        if (next != NULL) {
            pattern = next;
            id++;
            continue;
        }
        if (star == NULL || *star_id == 0) return false;
        pattern = star;
        id = ++star_id;
    }
}
