#include "harness/base/nearest.h"

#include <stddef.h>
#include <string.h>

enum { LENGTH_MAX = 64 };

static int least(int a, int b, int c) {
    int ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* Optimal string alignment: the table of Wagner and Fischer (1974), three rows of it, with
 * Damerau's swap of neighbours. */
int oom_edit_distance(const char *a, const char *b) {
    int na = (int)strnlen(a, LENGTH_MAX), nb = (int)strnlen(b, LENGTH_MAX);
    int rows[3][LENGTH_MAX + 1];
    int *before = rows[0], *last = rows[1], *now = rows[2];
    for (int j = 0; j <= nb; j++) last[j] = j;
    for (int i = 1; i <= na; i++) {
        now[0] = i;
        for (int j = 1; j <= nb; j++) {
            now[j] = least(last[j] + 1, now[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1]));
            int swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped && before[j - 2] + 1 < now[j]) now[j] = before[j - 2] + 1;
        }
        int *free_row = before;
        before = last;
        last = now;
        now = free_row;
    }
    return last[nb];
}

const char *oom_nearest_name(const char *text, const char *const *names, int count) {
    int length = (int)strnlen(text, LENGTH_MAX);
    int allowed = length >= 4 && length / 3 < 2 ? 2 : length / 3;
    const char *nearest = NULL;
    for (int i = 0; i < count; i++) {
        if (names[i] == NULL) continue;
        int distance = oom_edit_distance(text, names[i]);
        if (distance > allowed) continue;
        if (distance < allowed || nearest == NULL) nearest = names[i];
        allowed = distance;
    }
    return nearest;
}
