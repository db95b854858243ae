/*
 * case.h: the processes of a case and their verdict.
 *
 * A case is one mitigation applied to one situation. Its jobs run in processes of their own, one
 * after the other: dry (what the unmitigated step needs; what the mitigated one will peak at),
 * unmitigated, mitigated, reference, guards. Then the files they left are compared. Jobs that
 * several cases share, and truths, are made once per court.
 *
 * A court owns a temporary directory with everything the jobs wrote, until oom_court_close.
 */
#ifndef OOM_HARNESS_VERIFY_CASE_H
#define OOM_HARNESS_VERIFY_CASE_H

#include "harness/verify/job.h"
#include "harness/verify/verdict.h"

/* What the mitigated run is compared with. */
enum oom_reference {
    OOM_REFERENCE_SIZES,    /* a fresh process that begins at the sizes the mitigation found */
    OOM_REFERENCE_WHOLE,    /* the whole batch in one piece */
    OOM_REFERENCE_DEFAULTS, /* the same loop under the allocator's default settings */
};

/* A setting tried on the dry device, and what is known to come of it. */
struct oom_cure {
    char name[24];
    char conf[96];       /* the allocator's settings string */
    bool release_before; /* give cached memory back before each step and other consumer, too */
    bool fits;           /* pinned: a cell that changes is a failure */
};

enum { OOM_CURES_MAX = 16 };

/* A table of cures: the job `unmitigated` under each of them, on the dry device alone. */
struct oom_cure_table {
    int count; /* 0: the case is no table */
    struct oom_cure cures[OOM_CURES_MAX];
    /* pinned of the unmitigated run's failure: which allocation of the run, its bytes, and what
     * was not allocated of the capacity */
    uint64_t allocation, requested, free;
};

/* Where the recording of the unmitigated run goes; NULL: nowhere. */
struct oom_exports {
    const char *snapshot; /* in PyTorch's format */
    const char *trace;    /* JSON, for a results file */
};

struct oom_case {
    char id[OOM_ID_MAX];
    struct oom_cure_table table; /* if not empty, only `unmitigated` counts of what follows */
    struct oom_job mitigated;    /* device, directory and capture are filled in */
    struct oom_job unmitigated;  /* must run out of memory */
    struct oom_job guards;       /* the mitigated job at --quick size, with guard regions */
    bool has_guards;
    enum oom_reference reference;
    bool bitwise;     /* gradients, loss and the state left behind are equal bits */
    bool bounded;     /* gradients and loss agree with the truth within the class's bound */
    char unequal[80]; /* why mathematics makes other gradients of it: then they must differ from the
                         reference's by far more than rounding; "": it does not */
    double need;      /* least peak of reserved bytes without limit / capacity; live if by_live */
    bool curve;       /* loss and weights follow those of the unmitigated job's precision */
    int skips;        /* steps that the loss scaler leaves out, at least; another is not */
    bool without_oom; /* the mitigated run may not meet a single OOM */
    bool at_the_edge; /* the size found is the largest: one more sample must fail */
    bool fragmented;  /* as many bytes are free as are asked for, and the failed run's own trace,
                         given to replay, fails at the same allocation */
    const struct oom_exports *exports; /* NULL: nothing */
    bool rates;              /* record the share of the largest size that fits, found on dry */
    uint64_t host_allowance; /* bytes of host memory outside the arena; 0: 16 MiB */
    struct oom_injection injection; /* into the mitigated run, and its prediction */
    const char *const *extra;       /* options passed on to the mitigated job's processes; NULL */
};

struct oom_court;

/* `self` is the path of this binary; timeout in seconds per process; progress may be NULL. */
struct oom_court_options {
    const char *self;
    double timeout;
    void (*progress)(void *user, const char *what);
    void *user;
};

enum oom_status oom_court_open(const struct oom_court_options *options, struct oom_court **out);
void oom_court_close(struct oom_court *court);

/* Runs the case and fills in bits, reasons and figures; the caller decides (oom_record_decide).
 * A harness failure (a job that could not be started, files that cannot be read) is a status. */
enum oom_status oom_case_run(struct oom_court *court, const struct oom_case *the_case,
                             struct oom_case_record *record);

/* The case with failures injected (also every call in turn), decided. A mitigation that retries
 * must end with all bits true; one that does not, or has no smaller size left, ends by the failure:
 * then fits_with and grad_match are not asked, the others decide. Skipped where there is no such
 * call. */
enum oom_status oom_case_inject(struct oom_court *court, const struct oom_case *the_case,
                                const struct oom_injection *injection,
                                struct oom_case_record *record);

#endif
