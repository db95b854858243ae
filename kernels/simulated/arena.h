/*
 * arena.h: real memory for the simulated device. One sparse memfd stands for the physical memory
 * that may be mapped at several addresses, or at none (a page frame is an offset in it), one
 * reservation of inaccessible address space for the device's addresses; mapping a frame at an
 * address is mmap(MAP_FIXED) of that offset there. Memory that lives and dies with its one address
 * is anonymous, which costs the kernel half as much.
 *
 * The arena owns descriptor and reservation; whoever calls it keeps the books, and gives it only
 * whole pages inside them. When the kernel refuses, the status is OOM_HOST_NOMEM with errno in the
 * record and nothing has changed. Memory is zero when it is committed, and charged to the process
 * that commits it, so the arena must be opened in the process that is to be limited.
 */
#ifndef OOM_KERNELS_SIMULATED_ARENA_H
#define OOM_KERNELS_SIMULATED_ARENA_H

#include "kernels/status.h"

#include <stdbool.h>
#include <stdint.h>

struct oom_arena {
    int fd;
    uint64_t base;        /* first address, a multiple of the page */
    uint64_t reservation; /* bytes of address space from base */
    void *whole;          /* what mmap gave: the reservation and one page of slack */
    bool dirty;           /* a decommit failed once: commit clears frames itself from then on */
};

/* With `reservation` 0 the arena takes `wanted` bytes of address space, or as much as the kernel
 * allows, but at least `capacity`; otherwise `reservation` exactly. */
enum oom_status oom_arena_open(struct oom_arena *arena, uint64_t capacity, uint64_t reservation,
                               uint64_t wanted);
void oom_arena_close(struct oom_arena *arena);

/* Frames: offset and bytes in the memfd. */
enum oom_status oom_arena_commit(struct oom_arena *arena, uint64_t offset, uint64_t bytes);
void oom_arena_decommit(struct oom_arena *arena, uint64_t offset, uint64_t bytes);

/* Makes committed frames readable and writable at an address. */
enum oom_status oom_arena_map(struct oom_arena *arena, uint64_t address, uint64_t bytes,
                              uint64_t offset);
/* Commits anonymous memory at an address, readable and writable. */
enum oom_status oom_arena_back(struct oom_arena *arena, uint64_t address, uint64_t bytes);
/* Back to inaccessible: frames keep what is in them, anonymous memory goes. */
enum oom_status oom_arena_unmap(struct oom_arena *arena, uint64_t address, uint64_t bytes);

/* Tests only: the n-th call to the kernel from now fails with ENOMEM (1 is the next; 0: none).
 * Returns how many were left until the one asked for before: 0 when it has come. */
uint64_t oom_arena_fail_at(uint64_t n);
/* For calls to the kernel that are made elsewhere: this one is to fail. */
bool oom_arena_fails(void);

#endif
