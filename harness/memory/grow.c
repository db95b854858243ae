#include "harness/memory/grow.h"

#include "kernels/hostmem.h"

#include <string.h>
#include <sys/mman.h>

enum { ROOM_MIN = 64, HUGE_PAGE = 2 << 20 };

/* Half the time of reading a large file went into page faults; huge pages leave few of them. */
static void prefer_huge_pages(char *block, size_t bytes) {
#ifdef MADV_HUGEPAGE
    uintptr_t from = ((uintptr_t)block + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    uintptr_t to = ((uintptr_t)block + bytes) / HUGE_PAGE * HUGE_PAGE;
    /* A wish: where it is refused nothing is lost. */
    if (from < to) (void)madvise(block + (from - (uintptr_t)block), to - from, MADV_HUGEPAGE);
#else
    (void)block;
    (void)bytes;
#endif
}

void *oom_grown(void *array, uint64_t *room, uint64_t need, size_t each) {
    uint64_t larger = *room < UINT64_MAX / 2 && *room * 2 > need ? *room * 2 : need;
    if (larger < ROOM_MIN) larger = ROOM_MIN;
    if (larger >= SIZE_MAX / each) return NULL;
    void *out = oom_host_alloc(larger * each);
    if (out == NULL) return NULL;
    prefer_huge_pages(out, larger * each);
    if (array != NULL) memcpy(out, array, *room * each);
    oom_host_free(array);
    *room = larger;
    return out;
}
