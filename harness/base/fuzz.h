/*
 * fuzz.h: feeds a reader with spoilt input. A file NAME-fuzz.c in a room defines
 *
 *   int NAME_fuzz(const uint8_t *data, size_t n);     0, or 1 after saying on stderr what is wrong
 *
 * and the build makes a program of it whose seeds are the files of harness/ROOM/corpus/NAME. The
 * target must free what it takes (host bytes are compared), read within data[0 .. n) (it ends where
 * a page that cannot be read begins), and give the same answer for the same bytes.
 *
 * A corpus owns its bytes until oom_fuzz_corpus_free. Failure: OOM_IO for a folder that cannot be
 * read, OOM_USAGE for one without files, OOM_HOST_NOMEM.
 */
#ifndef OOM_HARNESS_BASE_FUZZ_H
#define OOM_HARNESS_BASE_FUZZ_H

#include "harness/base/rng.h"
#include "kernels/status.h"

#include <stddef.h>
#include <stdint.h>

enum { OOM_FUZZ_BYTES_MAX = 1 << 16 };

typedef int oom_fuzz_target(const uint8_t *data, size_t n);

struct oom_fuzz_seed {
    char name[64]; /* of its file, cut */
    char *bytes;
    size_t n;
};

struct oom_fuzz_corpus {
    struct oom_fuzz_seed *seeds; /* by name */
    int count;
};

enum oom_status oom_fuzz_corpus_read(const char *folder, struct oom_fuzz_corpus *out);
void oom_fuzz_corpus_free(struct oom_fuzz_corpus *corpus);

/* One of the seeds, changed in one to eight ways, into out (max bytes); returns its length. The
 * words and pieces that are put in come from the corpus, so it is the dictionary, too. */
size_t oom_fuzz_mutate(const struct oom_fuzz_corpus *corpus, struct oom_rng *rng, uint8_t *out,
                       size_t max);

/* The main of a fuzz program: runs the target in a child, speaks TAP, and keeps the input at which
 * the child broke a property, crashed or hung. Returns the exit code. */
int oom_fuzz_main(int argc, char **argv, const char *name, oom_fuzz_target *target,
                  const char *folder);

#endif
